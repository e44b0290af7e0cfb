//! The composition root: configuration in, wired Pingora server out; the only place where the parts meet.
