//! `keygate demo`: runs a gate that needs no files.

use std::process::ExitCode;

use super::{FAILED, complain};

/// `keygate demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs a gate that needs no files.
pub(super) fn run(args: Args) -> ExitCode {
    let Args {} = args;
    complain("demo is not built in yet");
    ExitCode::from(FAILED)
}
