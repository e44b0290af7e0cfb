//! `keygate serve`: runs the gate until it is told to stop.

use std::io::{self, Write};
use std::process::ExitCode;

use super::check::too_few_files;
use super::{ConfigFile, FAILED, USAGE, complain};
use crate::app::{self, Options, StartError};
use crate::config::{self, System};
use crate::listener::files;

/// `keygate serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs the gate until it is told to stop.
pub(super) fn run(args: Args) -> ExitCode {
    let path = args.config.path();
    let loaded = match config::load(&path, &System) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return refuse(&lines, USAGE);
        }
    };
    let few = too_few_files(&path, &loaded.config, files::hard_limit());
    for warning in loaded.warnings.iter().chain(&few) {
        complain(&format!("warning: {warning}"));
    }
    start(Options {
        config: loaded.config,
        config_path: Some(path),
        environment: Box::new(System),
        on_ready: Box::new(|_, _| {}),
    })
}

/// Runs a gate and turns its end into an exit status.
pub(super) fn start(options: Options) -> ExitCode {
    match app::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError { problems, is_configuration }) => {
            refuse(&problems, if is_configuration { USAGE } else { FAILED })
        }
    }
}

fn refuse(lines: &[String], status: u8) -> ExitCode {
    let mut err = io::stderr().lock();
    for line in lines {
        let _closed = writeln!(err, "{line}");
    }
    ExitCode::from(status)
}
