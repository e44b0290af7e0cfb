//! `keygate keys show`: all of one entry but its hashes, and the limits that hold for it.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::activity::{Activities, Activity};
use super::change::look;
use super::place::Place;
use super::selector::Selector;
use super::{Failure, about, say};
use crate::keyring::edit;
use crate::keyring::record::Record;
use crate::limit::Limits;

/// `keygate keys show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id, beginning of an id, or name; `-` reads a key from standard input
    #[arg(value_name = "KEY")]
    which: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the key named.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let record = Selector::read(&args.which)?.find(&look(place)?)?;
    let activities = Activities::read(place, Timestamp::now());
    let activity = activities.of(&record);
    let defaults = place.config.as_deref().map(|config| config.default_limits);
    let now = Timestamp::now();
    if args.json {
        let mut json = about::json(&record, activity, now);
        let effective = defaults.map(|defaults| {
            edit::limits(&record.limits().or(defaults))
                .map_or_else(|| serde_json::json!({}), |all| about::written(&all))
        });
        if let Some(members) = json.as_object_mut() {
            members.insert("effective_limits".to_owned(), serde_json::json!(effective));
        }
        return say(&json.to_string());
    }
    say(text(&record, activity.ok_or(activities.why_unknown().unwrap_or_default()), defaults, now).trim_end())
}

/// One line for each thing; a note of several lines is indented.
fn text(record: &Record, activity: Result<Activity, &str>, defaults: Option<Limits>, now: Timestamp) -> String {
    let none = || "-".to_owned();
    let time = |time: Option<Timestamp>| time.map_or_else(none, |time| time.to_string());
    let list = |items: Vec<String>, else_: &str| if items.is_empty() { else_.to_owned() } else { items.join(", ") };
    let owned = |text: &str| text.to_owned();
    let mut lines = vec![
        ("id", owned(record.id().as_str())),
        ("name", record.name().map_or_else(none, owned)),
        ("user", owned(record.user())),
        ("state", owned(about::state(record, now))),
        ("roles", list(record.roles().map(owned).collect(), "-")),
        ("scopes", list(record.scopes().map(owned).collect(), "-")),
        ("note", record.note().map_or_else(none, |note| note.replace('\n', "\n             "))),
        ("created", time(record.created())),
        ("expires", record.expires().map_or_else(|| owned("never"), |end| end.to_string())),
        ("allow from", list(record.allow_from().iter().map(ToString::to_string).collect(), "everywhere")),
        (
            "last used",
            match activity {
                Ok(activity) => time(activity.last_used),
                Err(why) => format!("not known: {why}"),
            },
        ),
        ("today", activity.map_or_else(|_| none(), |activity| activity.today.to_string())),
    ];
    if let Some(previous) = record.previous() {
        let is = if previous.until > now { "is good until" } else { "ended" };
        lines.insert(4, ("replaced key", format!("{is} {}", previous.until)));
    }
    let limits = limits(record.limits(), defaults);
    lines.extend(limits.into_iter().enumerate().map(|(at, limit)| (if at == 0 { "limits" } else { "" }, limit)));
    let mut text = String::new();
    for (name, value) in lines {
        let _infallible = writeln!(text, "{name:<12} {value}");
    }
    text
}

/// Each limit that holds, and where it comes from.
fn limits(own: &Limits, defaults: Option<Limits>) -> Vec<String> {
    let all = own.or(defaults.unwrap_or_default());
    let mut lines = Vec::new();
    let mut say = |what: Option<String>, is_own: bool| {
        lines.extend(what.map(|what| format!("{what} ({})", if is_own { "its own" } else { "limits.default" })));
    };
    let rate = all.rate.map(|rate| {
        let plural = if rate.requests.get() == 1 { "" } else { "s" };
        format!("{} request{plural} per {}, burst {}", rate.requests, edit::span(rate.per), rate.burst)
    });
    say(rate, own.rate.is_some());
    say(all.concurrent.map(|most| format!("{most} in flight at once")), own.concurrent.is_some());
    say(all.websockets.map(|most| format!("{most} open WebSockets at once")), own.websockets.is_some());
    let quota = all.quota.map(|quota| format!("quota of {} per {}", quota.requests, edit::window(quota.per)));
    say(quota, own.quota.is_some());
    match defaults {
        None => lines.push("others as limits.default of the configuration says, which was not read".to_owned()),
        Some(_) if lines.is_empty() => lines.push("none".to_owned()),
        Some(_) => {}
    }
    lines
}
