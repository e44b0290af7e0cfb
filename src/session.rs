//! Login tokens for browsers: signed, short-lived, bound to a key and dying with it (decision 7).
