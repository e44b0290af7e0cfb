//! `keygate keys`: makes, lists, changes and revokes keys.

use std::process::ExitCode;

use super::{FAILED, complain};

/// `keygate keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to do, and to which key
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Makes, lists, changes and revokes keys.
pub(super) fn run(args: Args) -> ExitCode {
    complain(&format!("keys is not built in yet ({} arguments)", args.rest.len()));
    ExitCode::from(FAILED)
}
