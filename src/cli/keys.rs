//! `keygate keys`: the whole life of a key, from its making to its end. Each command is a file; what they share is here
//! and in `place`, `change`, `selector` and `terms`. Secrets go to standard output, once; all else to standard error.

mod about;
mod activity;
mod audit;
mod bitwarden;
mod change;
mod create;
mod example;
mod export;
mod import;
mod list;
mod place;
mod progress;
mod prune;
mod revoke;
mod rotate;
mod secret;
mod selector;
mod show;
mod switch;
mod table;
mod terms;
mod update;
mod verify;
mod words;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand;

use super::{FAILED, USAGE, complain, out};
use place::PlaceArgs;
use switch::Switch;

/// `keygate keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key: the secret goes to standard output, once.
    Create(Box<create::Args>),
    /// Take over keys of another gate or service, so that they stay good; its files are only read.
    Import(Box<import::Args>),
    /// Show all keys, or those asked for.
    List(list::Args),
    /// Show all of one key but its hash, and the limits that hold for it.
    Show(show::Args),
    /// Change what a key may do; what is not named stays.
    Update(Box<update::Args>),
    /// Let disabled keys in again.
    Enable(switch::Args),
    /// Refuse keys, and close their connections, without losing their entries.
    Disable(switch::Args),
    /// Give a key a new secret: it goes to standard output, once; the old one is good for a while yet.
    Rotate(rotate::Args),
    /// End keys: their entries leave the file, and their connections close.
    Revoke(revoke::Args),
    /// Clear away keys that have expired, and replaced ones past their grace.
    Prune(prune::Args),
    /// Print keys as items for a password manager; needs --bitwarden.
    Export(export::Args),
    /// Say whose a key is, and what it may do: the key is typed unseen, or read from standard input.
    Verify(verify::Args),
}

/// Runs one of the key commands.
pub(super) fn run(args: Args) -> ExitCode {
    let Args { place, command } = args;
    let done = place.resolve().and_then(|place| match command {
        Command::Create(args) => create::run(&place, &args),
        Command::Import(args) => import::run(&place, &args),
        Command::List(args) => list::run(&place, &args),
        Command::Show(args) => show::run(&place, &args),
        Command::Update(args) => update::run(&place, &args),
        Command::Enable(args) => switch::run(&place, &args, Switch::On),
        Command::Disable(args) => switch::run(&place, &args, Switch::Off),
        Command::Rotate(args) => rotate::run(&place, &args),
        Command::Revoke(args) => revoke::run(&place, &args),
        Command::Prune(args) => prune::run(&place, &args),
        Command::Export(args) => export::run(&place, &args),
        Command::Verify(args) => verify::run(&place, &args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in &failure.lines {
                complain(line);
            }
            ExitCode::from(failure.status)
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
struct Failure {
    status: u8,
    lines: Vec<String>,
}

impl Failure {
    /// It failed, though nothing is wrong with what was asked.
    fn failed(line: impl Into<String>) -> Self {
        Self { status: FAILED, lines: vec![line.into()] }
    }

    /// The command line, the configuration or the key file is wrong.
    fn usage(line: impl Into<String>) -> Self {
        Self { status: USAGE, lines: vec![line.into()] }
    }
}

/// Said after what lets keys in, which would else be tried too early.
const IN_FORCE: &str = "A running gate takes it within a second.";

/// Prints one line on standard output that must arrive, such as a secret. Errors where nobody reads it any more.
fn print(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| unprinted(&e))
}

/// Prints one line on standard output for whoever reads; one who has seen enough is no failure.
fn say(line: &str) -> Result<(), Failure> {
    say_all(|out| writeln!(out, "{line}"))
}

/// As [`say`], for more than is worth holding at once.
fn say_all(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Failure> {
    out::for_reading(write).map_err(|e| unprinted(&e))
}

fn unprinted(error: &io::Error) -> Failure {
    Failure::failed(out::unwritten(error))
}

/// Tells the operator something that is not for a pipe: standard error, without the program's name before it.
fn tell(line: &str) {
    let _closed = writeln!(io::stderr(), "{line}");
}
