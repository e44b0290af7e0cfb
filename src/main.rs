//! Parses arguments, runs one command, turns its outcome into an exit status; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    keygate::cli::run(std::env::args_os())
}
