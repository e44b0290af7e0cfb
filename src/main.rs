//! Parses arguments, runs one command, turns its outcome into an exit status; nothing else.

fn main() {}
