//! What the upstream sees.
