//! `keygate serve`: runs the gate until it is told to stop.

use std::process::ExitCode;

use super::{ConfigFile, FAILED, complain};

/// `keygate serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs the gate until it is told to stop.
pub(super) fn run(args: Args) -> ExitCode {
    let path = args.config.path();
    complain(&format!("serve is not built in yet; {} was not read", path.display()));
    ExitCode::from(FAILED)
}
