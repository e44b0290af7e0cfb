//! From the keys of the sources to entries of the key file: ids, users, names, what the command line adds, and what of it is
//! refused.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{Args, Report, SHOWN, Sourced, at, merge, name, refuse};
use crate::cli::FAILED;
use crate::cli::keys::audit::Deed;
use crate::cli::keys::change::Plan;
use crate::cli::keys::create::shown;
use crate::cli::keys::selector::described;
use crate::cli::keys::{Failure, secret};
use crate::import::{Credential, Owner, Remark};
use crate::key::{self, KeyHash, KeyId};
use crate::keyring::Keyring;
use crate::keyring::edit::{self, Change, Field, Written};
use crate::limit::Limits;
use crate::strength::{common, weakness};

/// What an import needs to know while it makes entries.
pub(super) struct Import<'a> {
    args: &'a Args,
    keyring: &'a Keyring,
    now: Timestamp,
    /// What the command line gives to all.
    terms: Vec<(Field, Written)>,
    common: HashSet<KeyHash>,
    ids: HashSet<KeyId>,
    users: HashSet<String>,
    /// Names that keys of the file have.
    names: HashSet<&'a str>,
    /// The next number for the users of a list.
    numbers: HashMap<String, u64>,
    problems: Vec<(usize, Remark)>,
    weak: Vec<(usize, Remark)>,
    report: Report,
}

/// An entry to be.
struct New {
    source: usize,
    line: usize,
    id: KeyId,
    user: String,
    fields: Vec<(Field, Written)>,
}

impl<'a> Import<'a> {
    pub(super) fn new(args: &'a Args, keyring: &'a Keyring, now: Timestamp) -> Result<Self, Failure> {
        let terms = args.terms.fields(Limits::default(), now).map_err(Failure::usage)?;
        Ok(Self {
            args,
            keyring,
            now,
            terms,
            common: common::hashes().collect(),
            ids: HashSet::new(),
            users: keyring.records().map(|record| record.user().to_owned()).collect(),
            names: keyring.records().filter_map(|record| record.name()).collect(),
            numbers: HashMap::new(),
            problems: Vec::new(),
            weak: Vec::new(),
            report: Report::default(),
        })
    }

    /// What is to be written for `keys`. Errors name every problem, or every weak key.
    pub(super) fn plan(mut self, keys: Vec<(KeyHash, Sourced)>) -> Result<Plan<Report>, Failure> {
        let mut entries = Vec::with_capacity(keys.len());
        for (hash, key) in keys {
            if self.is_there(&hash, &key) {
                continue;
            }
            if let Some(new) = self.entry(&hash, key)? {
                entries.push(new);
            }
        }
        self.check(&entries);
        refuse(self.args, std::mem::take(&mut self.problems))?;
        self.refuse_weak()?;
        let mut plan = Plan { changes: Vec::new(), deeds: Vec::new(), outcome: self.report };
        for New { source, line, id, user, fields } in entries {
            let changes = shown(&fields);
            let more = if changes.is_empty() { String::new() } else { format!("; {}", changes.join("; ")) };
            plan.outcome.imported.push(match self.args.dry_run {
                true => format!("would import {}:{line} for {user}{more}", name(self.args, source)),
                false => format!("imported {id} for {user}{more}"),
            });
            let text = |wanted: Field| {
                fields.iter().find_map(|(field, value)| match value {
                    Written::Text(text) if *field == wanted => Some(text.clone()),
                    _ => None,
                })
            };
            let name = text(Field::Name);
            plan.deeds.push(Deed { action: "import", key: id.as_str().to_owned(), user, name, changes });
            plan.changes.push(Change::Add(fields));
        }
        Ok(plan)
    }

    /// Whether the key file has this key already; tells so, and what the source would have more.
    fn is_there(&mut self, hash: &KeyHash, key: &Sourced) -> bool {
        let Some(record) = self.keyring.find_by_hash(hash) else { return false };
        let roles = key.entry.fields.iter().find_map(|(field, value)| match value {
            Written::List(roles) if *field == Field::Roles => Some(roles.as_slice()),
            _ => None,
        });
        let lacking = roles.unwrap_or_default().iter().filter(|role| record.roles().all(|has| has != *role));
        let lacking: Vec<String> = lacking.map(|role| format!(" --add-role {role}")).collect();
        let hint = match lacking.is_empty() {
            true => String::new(),
            false => format!("; it lacks roles: keygate keys update {}{}", record.id(), lacking.concat()),
        };
        let what = format!("already there as {}{hint}", described(record));
        let line = at(self.args, key.source, &Remark { line: key.entry.line, what });
        self.report.skipped.push(line);
        true
    }

    fn entry(&mut self, hash: &KeyHash, key: Sourced) -> Result<Option<New>, Failure> {
        let Sourced { source, entry } = key;
        let line = entry.line;
        let Some(user) = self.user(source, line, &entry.owner) else { return Ok(None) };
        if let Some(what) = self.judge(hash, &entry.credential, &user, &entry.fields, source, line) {
            self.problems.push((source, Remark { line, what: what.to_owned() }));
            return Ok(None);
        }
        let id = self.id(&entry.credential)?;
        let created = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        let mut fields = entry.fields;
        fields.push((Field::Id, Written::Text(id.as_str().to_owned())));
        fields.push((Field::User, Written::Text(user.clone())));
        // Counted users are names as good as any, and short for the next command.
        if matches!(entry.owner, Owner::Listed(_)) && self.args.user.is_none() && !self.names.contains(user.as_str()) {
            merge::add(&mut fields, Field::Name, &Written::Text(user.clone()));
        }
        fields.push((Field::Hash, edit::hash(hash)));
        for (field, value) in &self.terms {
            merge::add(&mut fields, *field, value);
        }
        merge::add(&mut fields, Field::Created, &Written::Plain(created.to_string()));
        fields.sort_by_key(|(field, _)| *field);
        Ok(Some(New { source, line, id, user, fields }))
    }

    fn user(&mut self, source: usize, line: usize, owner: &Owner) -> Option<String> {
        match (owner, &self.args.user) {
            (Owner::Named(user), _) => Some(user.clone()),
            (_, Some(user)) => Some(user.clone()),
            (Owner::Unnamed, None) => {
                let what = "no user is named here: say --user".to_owned();
                self.problems.push((source, Remark { line, what }));
                None
            }
            (Owner::Listed(list), None) => loop {
                let number = self.numbers.entry(list.clone()).or_default();
                *number += 1;
                let user = format!("{list}-{number}");
                if self.users.insert(user.clone()) {
                    return Some(user);
                }
            },
        }
    }

    /// Looks at what could be guessed, and at secrets in the wrong place. Returns what is wrong with the line.
    fn judge(
        &mut self,
        hash: &KeyHash,
        credential: &Credential,
        user: &str,
        fields: &[(Field, Written)],
        source: usize,
        line: usize,
    ) -> Option<&'static str> {
        let Credential::Secret(secret) = credential else {
            if self.common.contains(hash) {
                let what = "this is the hash of a secret that everybody knows: give the user a new key".to_owned();
                match self.args.accept_weak {
                    true => self.report.warnings.push(at(self.args, source, &Remark { line, what })),
                    false => self.weak.push((source, Remark { line, what })),
                }
            }
            return None;
        };
        let secret = secret.as_str();
        let holds = |text: &str| secret.len() >= 8 && text.contains(secret) || key::holds_own_format(text.as_bytes());
        let in_fields = fields.iter().any(|(_, value)| match value {
            Written::Text(text) | Written::Plain(text) => holds(text),
            Written::List(items) => items.iter().any(|item| holds(item)),
            Written::Map(_) => false,
        });
        if in_fields || holds(user) {
            return Some("a key stands outside its own field, where it would be no secret");
        }
        let mut about = vec![user];
        about.extend(fields.iter().filter_map(|(_, value)| match value {
            Written::List(items) => items.first().map(String::as_str),
            Written::Text(text) => Some(text.as_str()),
            Written::Plain(_) | Written::Map(_) => None,
        }));
        // Past these the rest need not be looked at: nothing is imported anyway.
        if self.weak.len() >= 1_000 {
            return None;
        }
        let swapped = weakness(user, &[]).is_none();
        if self.args.accept_weak && !swapped {
            return None;
        }
        let why = weakness(secret, &about)?;
        if swapped {
            let what =
                "what stands for the user looks like a key, and what stands for the key does not: are they swapped?";
            if !self.args.accept_weak {
                return Some(what);
            }
            self.report.warnings.push(at(self.args, source, &Remark { line, what: what.to_owned() }));
            return None;
        }
        self.weak.push((source, Remark { line, what: format!("the key of {user}: {why}") }));
        None
    }

    /// The id inside a key of our own; for others one by chance (decision 17).
    fn id(&mut self, credential: &Credential) -> Result<KeyId, Failure> {
        if let Credential::Secret(secret) = credential
            && key::is_own_format(secret.as_bytes())
            && let Some(id) = secret.get(3..11).map(KeyId::new)
            && self.keyring.find_by_id(&id).is_none()
            && self.ids.insert(id.clone())
        {
            return Ok(id);
        }
        loop {
            let id = secret::draw(self.keyring, None)?.id();
            if self.ids.insert(id.clone()) {
                return Ok(id);
            }
        }
    }

    /// Asks the key file's reader what it would refuse, so that it can be told by the source's line.
    fn check(&mut self, entries: &[New]) {
        let mut names: HashMap<&str, &New> = HashMap::new();
        for new in entries {
            let name = new.fields.iter().find_map(|(field, value)| match value {
                Written::Text(text) if *field == Field::Name => Some(text.as_str()),
                _ => None,
            });
            let Some(name) = name else { continue };
            let what = match names.insert(name, new) {
                Some(first) => format!("the name stands on line {} already, and names may not repeat", first.line),
                None if self.names.contains(name) => "a key in the key file has this name already".to_owned(),
                None => continue,
            };
            self.problems.push((new.source, Remark { line: new.line, what }));
        }
        if !self.problems.is_empty() {
            return;
        }
        let fields: Vec<_> = entries.iter().map(|new| new.fields.clone()).collect();
        for (place, mut problem) in edit::faults(&fields) {
            let Some(new) = entries.get(place) else { continue };
            problem.line = None;
            self.problems.push((new.source, Remark { line: new.line, what: problem.to_string() }));
        }
    }

    fn refuse_weak(&self) -> Result<(), Failure> {
        if self.weak.is_empty() {
            return Ok(());
        }
        let lines = self.weak.iter().take(SHOWN).map(|(source, remark)| at(self.args, *source, remark));
        let mut lines: Vec<String> =
            ["nothing was imported: these keys can be guessed:".to_owned()].into_iter().chain(lines).collect();
        if let Some(more) = self.weak.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            lines.push(format!("… and {more} more"));
        }
        let why = "whoever gets hold of the key file finds out a guessable key from its hash, which is unsalted; better give \
                   these users new keys (keygate keys create), or take them as they are with --accept-weak";
        lines.push(why.to_owned());
        Err(Failure { status: FAILED, lines })
    }
}
