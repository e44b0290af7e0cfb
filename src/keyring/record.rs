//! One entry of the key file, checked and packed: what a key may do, until when and from where. A file may hold a
//! million of them, so a record spends about a hundred bytes beside its own words and shares what many keys have alike.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::key::{KeyHash, KeyId};
use crate::limit::Limits;

/// Longest user or name in bytes; the key file's reader refuses longer ones and [`Record::pack`] cuts them.
pub const MAX_WORD_BYTES: usize = 256;

/// An entry as it was read, field by field. [`Record::pack`] makes a [`Record`] of it.
pub struct Fields {
    /// Public id, unique in the file.
    pub id: KeyId,
    /// Whom the upstream is told; safe in a header.
    pub user: String,
    /// The operator's name for the key.
    pub name: Option<String>,
    /// Free text.
    pub note: Option<String>,
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// The key that a rotation replaced.
    pub previous: Option<Previous>,
    /// Roles: no blanks, no commas.
    pub roles: Vec<String>,
    /// Scopes: no blanks, no commas.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Where it may be used; empty is everywhere.
    pub allow_from: Vec<IpNet>,
    /// Its own limits; a group that is `None` comes from the default.
    pub limits: Limits,
}

impl Fields {
    /// The least an entry needs.
    pub fn new(id: KeyId, user: &str, hash: KeyHash) -> Self {
        Self {
            id,
            user: user.to_owned(),
            name: None,
            note: None,
            hash,
            previous: None,
            roles: Vec::new(),
            scopes: Vec::new(),
            created: None,
            expires: None,
            disabled: false,
            allow_from: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// The key before a rotation and the moment from which it is no longer good.
#[derive(PartialEq, Eq)]
pub struct Previous {
    /// SHA-256 of the replaced key.
    pub hash: KeyHash,
    /// End of the grace.
    pub until: Timestamp,
}

/// Which of a record's two keys a caller presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The key in force.
    Current,
    /// The key that a rotation replaced, within its grace.
    Previous,
}

/// One key: made by [`Record::pack`], never changed.
#[derive(PartialEq, Eq)]
pub struct Record {
    id: KeyId,
    /// User, name and note one after the other: one allocation instead of three.
    words: Box<str>,
    hash: KeyHash,
    terms: Arc<Terms>,
    previous: Option<Box<Previous>>,
    created: Moment,
    expires: Moment,
    user_len: u16,
    name_len: u16,
    disabled: bool,
}

impl Record {
    /// Packs `fields`, sharing on `shelf` what another record already has.
    pub fn pack(fields: Fields, shelf: &mut Shelf) -> Self {
        let (user, user_len) = cut(&fields.user);
        let (name, name_len) = cut(fields.name.as_deref().unwrap_or_default());
        let words = [user, name, fields.note.as_deref().unwrap_or_default()].concat().into_boxed_str();
        let terms = Terms {
            roles: fields.roles.join(",").into_boxed_str(),
            scopes: fields.scopes.join(" ").into_boxed_str(),
            allow_from: fields.allow_from.into_boxed_slice(),
            limits: fields.limits,
        };
        Self {
            id: fields.id,
            words,
            hash: fields.hash,
            terms: shelf.share(terms),
            previous: fields.previous.map(Box::new),
            created: Moment::pack(fields.created),
            expires: Moment::pack(fields.expires),
            user_len,
            name_len,
            disabled: fields.disabled,
        }
    }

    /// The public id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Whom the upstream is told.
    pub fn user(&self) -> &str {
        self.words.get(..usize::from(self.user_len)).unwrap_or_default()
    }

    /// The operator's name for the key.
    pub fn name(&self) -> Option<&str> {
        let start = usize::from(self.user_len);
        self.words.get(start..start + usize::from(self.name_len)).filter(|name| !name.is_empty())
    }

    /// Free text.
    pub fn note(&self) -> Option<&str> {
        let start = usize::from(self.user_len) + usize::from(self.name_len);
        self.words.get(start..).filter(|note| !note.is_empty())
    }

    /// SHA-256 of the key in force.
    pub fn hash(&self) -> &KeyHash {
        &self.hash
    }

    /// The key that a rotation replaced.
    pub fn previous(&self) -> Option<&Previous> {
        self.previous.as_deref()
    }

    /// Roles, joined by commas as the upstream gets them; empty when there are none.
    pub fn roles_joined(&self) -> &str {
        &self.terms.roles
    }

    /// Roles one by one.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.terms.roles.split(',').filter(|role| !role.is_empty())
    }

    /// Scopes, joined by spaces as the upstream gets them; empty when there are none.
    pub fn scopes_joined(&self) -> &str {
        &self.terms.scopes
    }

    /// Scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.terms.scopes.split(' ').filter(|scope| !scope.is_empty())
    }

    /// When the key was made.
    pub fn created(&self) -> Option<Timestamp> {
        self.created.unpack()
    }

    /// When the key ends.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires.unpack()
    }

    /// Whether the key is switched off.
    pub fn disabled(&self) -> bool {
        self.disabled
    }

    /// Where the key may be used; empty is everywhere.
    pub fn allow_from(&self) -> &[IpNet] {
        &self.terms.allow_from
    }

    /// The key's own limits; a group that is `None` comes from the default (decision 13).
    pub fn limits(&self) -> &Limits {
        &self.terms.limits
    }

    /// The digest that `which` means.
    pub(super) fn hash_of(&self, which: Which) -> Option<&KeyHash> {
        match which {
            Which::Current => Some(&self.hash),
            Which::Previous => self.previous.as_ref().map(|previous| &previous.hash),
        }
    }

    /// When a caller who presented `which` stops being welcome; `None` is never.
    pub(super) fn ends(&self, which: Which) -> Option<Timestamp> {
        let grace = match which {
            Which::Current => None,
            Which::Previous => self.previous.as_ref().map(|previous| previous.until),
        };
        match (self.expires(), grace) {
            (Some(expires), Some(until)) => Some(expires.min(until)),
            (end, None) | (None, end) => end,
        }
    }

    /// Whether the key may be used from `address`. An IPv4 address inside IPv6 counts as IPv4; a caller without an
    /// address (unix listener) is nowhere, so a key that names places refuses it.
    pub(super) fn admits(&self, address: Option<IpAddr>) -> bool {
        if self.terms.allow_from.is_empty() {
            return true;
        }
        let address = address.map(|address| address.to_canonical());
        self.terms.allow_from.iter().fold(false, |hit, net| hit | address.is_some_and(|address| net.contains(&address)))
    }
}

/// Opaque but for the public id: the rest holds hashes and the operator's words.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What many keys have alike, held once.
#[derive(PartialEq, Eq)]
struct Terms {
    roles: Box<str>,
    scopes: Box<str>,
    allow_from: Box<[IpNet]>,
    limits: Limits,
}

impl Hash for Terms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.roles, &self.scopes, &self.allow_from).hash(state);
        let Limits { rate, concurrent, websockets, quota } = self.limits;
        rate.map(|rate| (rate.requests, rate.per, rate.burst)).hash(state);
        (concurrent, websockets, quota.map(|quota| (quota.requests, quota.per))).hash(state);
    }
}

/// Where records being packed find what they can share. Needed only while a file is read.
#[derive(Default)]
pub struct Shelf(HashSet<Arc<Terms>>);

impl Shelf {
    fn share(&mut self, terms: Terms) -> Arc<Terms> {
        if let Some(known) = self.0.get(&terms) {
            return Arc::clone(known);
        }
        let new = Arc::new(terms);
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// An optional date in eight bytes: microseconds since 1970, `i64::MAX` for none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment(i64);

impl Moment {
    const NEVER: i64 = i64::MAX;

    fn pack(time: Option<Timestamp>) -> Self {
        Self(time.map_or(Self::NEVER, Timestamp::as_microsecond))
    }

    fn unpack(self) -> Option<Timestamp> {
        // Asked for first: every request looks here, and the error of a number that is no time allocates.
        (self.0 != Self::NEVER).then(|| Timestamp::from_microsecond(self.0).ok()).flatten()
    }
}

/// The first bytes of `word` that fit, and how many.
fn cut(word: &str) -> (&str, u16) {
    let end = word.floor_char_boundary(MAX_WORD_BYTES);
    (word.get(..end).unwrap_or_default(), u16::try_from(end).unwrap_or_default())
}
