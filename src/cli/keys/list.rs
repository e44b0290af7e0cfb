//! `keygate keys list`: all keys, or those asked for, as a table for people or JSON for programs.

use std::io::{self, IsTerminal as _, Write};

use jiff::{SignedDuration, Timestamp};

use super::activity::Activities;
use super::change::look_watched;
use super::place::Place;
use super::progress::Progress;
use super::table::{self, Column, NONE, clipped};
use super::{Failure, about, say_all, tell, terms};
use crate::keyring::record::Record;

/// `keygate keys list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only keys of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only keys that have expired
    #[arg(long)]
    expired: bool,
    /// Only keys that expire within this time, such as 7d, and have not yet
    #[arg(long, value_name = "TIME", value_parser = terms::span, conflicts_with = "expired")]
    expiring: Option<SignedDuration>,
    /// Only keys that were neither used nor made within this time, such as 30d
    #[arg(long, value_name = "TIME", value_parser = terms::span)]
    unused: Option<SignedDuration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const COLUMNS: [Column; 10] = [
    Column { head: "ID", is_text: false },
    Column { head: "NAME", is_text: true },
    Column { head: "USER", is_text: true },
    Column { head: "ROLES", is_text: true },
    Column { head: "SCOPES", is_text: true },
    Column { head: "STATE", is_text: false },
    Column { head: "EXPIRES (UTC)", is_text: false },
    Column { head: "LAST USED (UTC)", is_text: false },
    Column { head: "TODAY", is_text: false },
    Column { head: "NOTE", is_text: true },
];

/// Widest cell; whole texts are in the JSON.
const WIDEST: usize = 40;

/// As much of an id as tells keys apart; the beginning of an id names a key.
const ID_SHOWN: usize = 8;

/// Lists keys.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let now = Timestamp::now();
    let progress = Progress::new();
    let (keyring, activities) = (look_watched(place, &progress)?, Activities::read(place, now));
    if let Some(why) = activities.why_unknown().filter(|_| args.unused.is_some()) {
        return Err(Failure::usage(format!("it is not known which keys are unused: {why}")));
    }
    let records = || {
        let all = keyring.records().map(AsRef::as_ref).enumerate().inspect(|(at, _)| progress.reached(*at));
        all.map(|(_, record)| record).filter(|record: &&Record| args.want(record, &activities, now))
    };
    progress.begin_output("writing", keyring.len());
    if args.json {
        return say_all(|out| write_json(out, records().map(|record| about::json(record, activities.of(record), now))));
    }
    if records().next().is_none() {
        tell("there are no such keys");
        return Ok(());
    }
    say_all(|out| table::write(out, COLUMNS, room(), || records().map(|record| row(record, &activities, now))))?;
    // A pipe's reader knows, or left long ago.
    if let Some(why) = activities.why_unknown().filter(|_| io::stdout().is_terminal()) {
        tell(&format!("LAST USED and TODAY are not known: {why}"));
    }
    Ok(())
}

/// An array with one entry a line, so that `head` and `grep` are of use with it.
fn write_json(out: &mut dyn Write, entries: impl Iterator<Item = serde_json::Value>) -> io::Result<()> {
    out.write_all(b"[")?;
    for (at, entry) in entries.enumerate() {
        out.write_all(if at == 0 { b"" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &entry)?;
    }
    out.write_all(b"]\n")
}

impl Args {
    fn want(&self, record: &Record, activities: &Activities, now: Timestamp) -> bool {
        let expires = record.expires();
        let ended = expires.is_some_and(|end| end <= now);
        let soon = |span: &SignedDuration| {
            !ended && expires.is_some_and(|end| now.checked_add(*span).map_or(true, |until| end <= until))
        };
        self.user.as_deref().is_none_or(|user| record.user() == user)
            && (!self.expired || ended)
            && self.expiring.as_ref().is_none_or(soon)
            && self.unused.is_none_or(|span| activities.unused(record, span, now))
    }
}

/// How wide the terminal is that shows the table, if one does.
fn room() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

fn row(record: &Record, activities: &Activities, now: Timestamp) -> [String; 10] {
    let activity = activities.of(record);
    let shown = |text: &str| if text.is_empty() { NONE.to_owned() } else { clipped(text, WIDEST) };
    let minute = |time: Option<Timestamp>| time.map_or_else(|| NONE.to_owned(), about::minute);
    let id = record.id().as_str();
    [
        id.get(..ID_SHOWN).unwrap_or(id).to_owned(),
        shown(record.name().unwrap_or_default()),
        shown(record.user()),
        shown(record.roles_joined()),
        shown(&record.scopes_joined().replace(' ', ",")),
        about::state(record, now).to_owned(),
        minute(record.expires()),
        minute(activity.and_then(|activity| activity.last_used)),
        activity.map_or_else(|| NONE.to_owned(), |activity| activity.today.to_string()),
        clipped(record.note().unwrap_or_default(), WIDEST),
    ]
}
