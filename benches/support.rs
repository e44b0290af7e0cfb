//! What the benches share.

pub mod gate;
