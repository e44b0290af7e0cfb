//! `keygate keys export`: keys that are in the file as items for a password manager. The file holds only hashes, so the key
//! itself must come from standard input or is left out; a hash is as secret as its key and goes to standard output alone.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::audit::{self, Deed};
use super::bitwarden::{self, Key, Options};
use super::change::look;
use super::place::Place;
use super::selector::{Selector, described, find_all, secret_from_stdin};
use super::{Failure, about, say, say_all, tell};
use crate::key::KeyHash;
use crate::keyring::Keyring;
use crate::keyring::record::Record;
use crate::keyring::write;

/// `keygate keys export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ids, beginnings of ids, or names; `-` reads a key from standard input, which its item then holds
    ///
    /// One gives an item, for `bw encode | bw create item`. Several, or none for all keys, give a document, for
    /// `bw import bitwardenjson`.
    #[arg(value_name = "KEY")]
    which: Vec<String>,
    /// Print Bitwarden items; each has the key's hash, and no password unless the key is given
    #[arg(long, required = true)]
    bitwarden: bool,
    /// Read the password of the item, the key itself, from standard input; it must be the key that is named
    #[arg(long, requires = "which")]
    password_stdin: bool,
    #[command(flatten)]
    options: Options,
}

/// Prints keys as items.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let asked = Asked::read(args)?;
    let keyring = look(place)?;
    let records = asked.find(&keyring)?;
    asked.check(&records)?;
    note(place, args, &records);
    let now = Timestamp::now();
    if let ([record], false) = (records.as_slice(), args.which.is_empty()) {
        say(&args.options.item(place, Key::of(record, asked.secret_of(record))).to_string())?;
        bitwarden::warn_on_terminal("keygate keys export --bitwarden KEY | bw encode | bw create item");
        tell_of_one(record, &asked, now);
        return Ok(());
    }
    let items = Items { place, args, asked: &asked, records: &records };
    let document = Document { encrypted: false, folders: [], items };
    say_all(|out| {
        serde_json::to_writer(&mut *out, &document)?;
        writeln!(out)
    })?;
    bitwarden::warn_on_terminal("keygate keys export --bitwarden | bw import bitwardenjson /dev/stdin");
    tell_of_several(&records, &asked, now);
    Ok(())
}

/// The keys named, and the key on standard input.
struct Asked {
    /// None for all keys.
    selectors: Vec<Selector>,
    secret: Option<(Zeroizing<String>, KeyHash)>,
}

impl Asked {
    fn read(args: &Args) -> Result<Self, Failure> {
        let dashes = args.which.iter().filter(|word| *word == "-").count();
        if dashes + usize::from(args.password_stdin) > 1 {
            return Err(Failure::usage("standard input holds one key: give `-` once, or --password-stdin without it"));
        }
        if args.password_stdin && args.which.len() > 1 {
            return Err(Failure::usage("--password-stdin takes one KEY"));
        }
        if args.options.organization.is_some() && args.which.len() != 1 {
            return Err(Failure::usage(
                "--organization takes one KEY: an import drops it from items; \
                 there it is `bw import --organizationid ID bitwardenjson FILE`",
            ));
        }
        let named = args.which.iter().filter(|word| *word != "-").map(|word| Selector::read(word));
        let mut selectors = named.collect::<Result<Vec<_>, _>>()?;
        let wanted = dashes > 0 || args.password_stdin;
        let secret = wanted.then(secret_from_stdin).transpose()?.map(|secret| {
            let hash = KeyHash::of(secret.as_bytes());
            (secret, hash)
        });
        selectors.extend(secret.iter().filter(|_| dashes > 0).map(|(_, hash)| Selector::Hash(hash.clone())));
        Ok(Self { selectors, secret })
    }

    fn find(&self, keyring: &Keyring) -> Result<Vec<Arc<Record>>, Failure> {
        if self.selectors.is_empty() {
            return Ok(keyring.records().map(Arc::clone).collect());
        }
        find_all(&self.selectors, keyring)
    }

    /// Refuses a key that no item would hold: another's, or one that was replaced and ends.
    fn check(&self, records: &[Arc<Record>]) -> Result<(), Failure> {
        let Some((_, hash)) = &self.secret else { return Ok(()) };
        if records.iter().any(|record| record.hash() == hash) {
            return Ok(());
        }
        let replaced = |record: &&Arc<Record>| record.previous().is_some_and(|previous| previous.hash == *hash);
        Err(Failure::failed(match (records.iter().find(replaced), records) {
            (Some(record), _) => {
                format!("the key on standard input was replaced by a newer one of {}", described(record))
            }
            (None, [record]) => format!("the key on standard input is not that of {}", described(record)),
            (None, _) => "the key on standard input is none of these".to_owned(),
        }))
    }

    /// The key itself; empty where it is not known.
    fn secret_of(&self, record: &Record) -> &str {
        let given = self.secret.as_ref().filter(|(_, hash)| record.hash() == hash);
        given.map_or("", |(secret, _)| secret.as_str())
    }
}

/// What `bw import bitwardenjson` reads.
#[derive(Serialize)]
struct Document<'a> {
    encrypted: bool,
    folders: [(); 0],
    items: Items<'a>,
}

/// The items of many keys, made one by one.
struct Items<'a> {
    place: &'a Place,
    args: &'a Args,
    asked: &'a Asked,
    records: &'a [Arc<Record>],
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let item = |record| self.args.options.item(self.place, Key::of(record, self.asked.secret_of(record)));
        serializer.collect_seq(self.records.iter().map(|record| item(record)))
    }
}

/// Writes down who took the hashes of which keys. Whoever can read the file could also copy it, so where the log cannot be
/// written (a read-only mount) that is told, and the keys are given all the same.
fn note(place: &Place, args: &Args, records: &[Arc<Record>]) {
    let deeds: Vec<Deed> = if args.which.is_empty() {
        let all = vec![format!("all {} keys", records.len())];
        vec![Deed { action: "export", key: "*".to_owned(), user: "*".to_owned(), name: None, changes: all }]
    } else {
        records.iter().map(|record| Deed::about("export", record, Vec::new())).collect()
    };
    let lock = write::lock(&place.key_file, || tell("waiting for a change of the key file to end"));
    let noted = lock.map_err(io::Error::other).and_then(|lock| audit::note_read(&lock, &deeds));
    if let Err(error) = noted {
        tell(&format!("this export is not in the audit log, which cannot be written: {error}"));
    }
}

fn tell_of_one(record: &Record, asked: &Asked, now: Timestamp) {
    tell(&format!("exported {}", described(record)));
    if let state @ ("disabled" | "expired") = about::state(record, now) {
        tell(&format!("  the key is {state}"));
    }
    if asked.secret.is_none() {
        tell(
            "  the item has no password: the file holds only the key's hash. With the key itself on standard input, use",
        );
        tell("  --password-stdin");
    }
}

fn tell_of_several(records: &[Arc<Record>], asked: &Asked, now: Timestamp) {
    let count = |is: &dyn Fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let ended = count(&|record| matches!(about::state(record, now), "disabled" | "expired"));
    let bare = count(&|record| asked.secret_of(record).is_empty());
    tell(&format!("exported keys: {}; without a password: {bare}; disabled or expired: {ended}", records.len()));
}
