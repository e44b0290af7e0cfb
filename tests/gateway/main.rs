//! Integration tests: the real binary, bytes on sockets.

fn main() {}
