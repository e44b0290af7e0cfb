//! `keygate keys import`: takes over the keys of another gate or service, so that their owners need no new ones. Sources
//! are only read; keys that are there already stay as they are; all others come in by one write, or none does.

mod entries;
mod merge;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::change::{change, look};
use super::place::Place;
use super::selector::secret_from_stdin;
use super::terms::Terms;
use super::{Failure, IN_FORCE, print, tell};
use crate::import::{self, Entry, Remark};
use crate::key::{self, KeyHash};
use crate::keyring::Keyring;
use entries::Import;

/// `keygate keys import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files with keys or hashes; `-` is standard input, where secrets belong: never type one on a command line
    #[arg(value_name = "FILE", required = true)]
    sources: Vec<String>,
    /// How they are written [default: seen from name and content, where only one is possible]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// User of the keys for which the source names none
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    terms: Terms,
    /// Only print what would be imported
    #[arg(long)]
    dry_run: bool,
    /// Take keys, too, that a person may have made up: whoever reads the key file can find them out
    #[arg(long)]
    accept_weak: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A SHA-256 a line, with a user or without: `alice 6e87f3…`
    Hash,
    /// `CLIENT_API_KEYS=["k1","k2"]`: keys by role
    Env,
    /// `map $http_x_api_key $user { "key" "user"; }`
    Nginx,
    /// Lines of `key user`
    Haproxy,
    /// A row that names the columns: key or hash, user, name, roles, scopes, expires, created, note, disabled, allow_from
    Csv,
    /// A list of objects with these fields
    Json,
}

impl From<Format> for import::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Hash => Self::Hash,
            Format::Env => Self::Env,
            Format::Nginx => Self::Nginx,
            Format::Haproxy => Self::Haproxy,
            Format::Csv => Self::Csv,
            Format::Json => Self::Json,
        }
    }
}

/// More is no list of keys.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Lines of the report that are shown; the audit log has all.
const SHOWN: usize = 20;

/// A key and where it was found.
struct Sourced {
    /// Which of the sources.
    source: usize,
    entry: Entry,
}

/// Takes keys over.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let mut found = Vec::new();
    let (mut problems, mut remarks) = (Vec::new(), Vec::new());
    for (source, name) in args.sources.iter().enumerate() {
        let read = read(args, name)?;
        found.extend(read.entries.into_iter().map(|entry| Sourced { source, entry }));
        problems.extend(read.problems.into_iter().map(|remark| (source, remark)));
        remarks.extend(read.remarks.into_iter().map(|remark| (source, remark)));
    }
    for (source, remark) in remarks {
        tell(&at(args, source, &remark));
    }
    let keys = merge::once(found, &mut problems);
    refuse(args, problems)?;
    let now = Timestamp::now();
    let decide = |keyring: &Keyring| Import::new(args, keyring, now)?.plan(keys);
    let report = if args.dry_run {
        let planned = if place.key_file.exists() { decide(&look(place)?) } else { decide(&Keyring::new(Vec::new())) };
        planned?.outcome
    } else {
        change(place, decide)?
    };
    show(args, &report)
}

/// What became of the keys of the sources.
#[derive(Default)]
struct Report {
    imported: Vec<String>,
    skipped: Vec<String>,
    warnings: Vec<String>,
}

fn show(args: &Args, report: &Report) -> Result<(), Failure> {
    let all = |lines: &[String]| lines.iter().try_for_each(|line| print(line));
    let some = |lines: &[String]| {
        lines.iter().take(SHOWN).for_each(|line| tell(line));
        if lines.len() > SHOWN {
            tell(&format!("… and {} more", lines.len() - SHOWN));
        }
    };
    if args.dry_run {
        all(&report.imported)?;
        all(&report.skipped)?;
    } else {
        some(&report.imported);
        some(&report.skipped);
    }
    some(&report.warnings);
    let keys = |number: usize| if number == 1 { "1 key".to_owned() } else { format!("{number} keys") };
    let done = if args.dry_run { "would import" } else { "imported" };
    let skipped = match report.skipped.len() {
        0 => String::new(),
        number => format!("; left {} that {} there already", keys(number), if number == 1 { "is" } else { "are" }),
    };
    tell(&format!("{done} {}{skipped}", keys(report.imported.len())));
    if !args.dry_run && !report.imported.is_empty() {
        tell(IN_FORCE);
    }
    Ok(())
}

/// Ends the command where there are problems.
fn refuse(args: &Args, problems: Vec<(usize, Remark)>) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::usage("nothing was imported:");
    failure.lines.extend(problems.iter().take(SHOWN).map(|(source, problem)| at(args, *source, problem)));
    if problems.len() > SHOWN {
        failure.lines.push(format!("… and {} problems more", problems.len() - SHOWN));
    }
    Err(failure)
}

/// A remark with its place before it.
fn at(args: &Args, source: usize, remark: &Remark) -> String {
    format!("{}:{}: {}", name(args, source), remark.line, remark.what)
}

/// A source's name for messages.
fn name(args: &Args, source: usize) -> &str {
    match args.sources.get(source).map(String::as_str) {
        Some("-") | None => "standard input",
        Some(name) => name,
    }
}

/// Reads one source.
fn read(args: &Args, name: &str) -> Result<import::Found, Failure> {
    let text = text(args, name)?;
    let told = if name == "-" { "standard input" } else { name };
    let format = args.format.map(import::Format::from).or_else(|| import::guess(name, &text)).ok_or_else(|| {
        let hint = "say --format hash, env, nginx, haproxy, csv or json";
        Failure::usage(format!("{told}: how it is written cannot be told from it: {hint}"))
    })?;
    Ok(import::read(format, &text))
}

fn text(args: &Args, name: &str) -> Result<Zeroizing<String>, Failure> {
    if name == "-" && args.sources.iter().filter(|other| *other == "-").count() > 1 {
        return Err(Failure::usage("standard input can be read once"));
    }
    if name == "-" && io::stdin().is_terminal() {
        // One line, typed unseen: a hash is as secret as its key.
        return secret_from_stdin();
    }
    // A key or a hash in place of a file is not repeated.
    if key::is_own_format(name.as_bytes()) || KeyHash::parse(name).is_some() {
        return Err(Failure::usage("this is no file but a secret: give it on standard input, with `-` in its place"));
    }
    let told = if name == "-" { "standard input" } else { name };
    let unreadable = |e: io::Error| Failure::usage(format!("{told} cannot be read: {e}"));
    let mut bytes = Zeroizing::new(Vec::new());
    let input: Box<dyn Read> =
        if name == "-" { Box::new(io::stdin()) } else { Box::new(File::open(name).map_err(unreadable)?) };
    input.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(Failure::usage(format!("{told} has over 256 MiB: that is no list of keys")));
    }
    let text = import::decode(&bytes);
    let text = text.map_err(|problem| Failure::usage(format!("{told}:{}: {}", problem.line, problem.what)))?;
    Ok(Zeroizing::new(text.to_owned()))
}
