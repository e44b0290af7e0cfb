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
    let Args { rest: _ } = args;
    complain("the key commands are not in this version; the README says how to make a key and its hash");
    ExitCode::from(FAILED)
}
