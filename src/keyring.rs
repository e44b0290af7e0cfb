//! An immutable, indexed set of key records that answers "whose key is this?" with a principal or the reason there is
//! none. Swapped whole at a reload; a request loads it once.

pub mod edit;
pub mod file;
pub mod record;
pub mod reload;
pub mod source;
pub mod write;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use jiff::Timestamp;
use subtle::ConstantTimeEq;

use crate::key::{KeyHash, KeyId};
use crate::limit::Limits;
use crate::rejection::AuthFailure;
use record::{Fields, Record, Shelf, Which};

/// Every key of one key file, indexed by digest and by id.
pub struct Keyring {
    records: Vec<Arc<Record>>,
    /// Slots of all digests, those of replaced keys too.
    by_hash: HashTable<Slot>,
    /// Indices into `records`.
    by_id: HashTable<u32>,
    /// Keyed by chance, so that nobody can choose hashes or ids that collide.
    hasher: RandomState,
    /// Stands in where no record is found, so that finding none costs the same checks (design rule 5).
    decoy: Arc<Record>,
    digest: Option<[u8; 32]>,
}

/// Where a digest leads: the record's index times two, plus one for the previous key.
#[derive(Clone, Copy)]
struct Slot(u32);

/// Two places in a list of records that hold what may stand in one only.
enum Repeat {
    /// Indices of records with one id.
    Id { first: u32, again: u32 },
    /// Digests that are the same.
    Hash { first: Slot, again: Slot },
}

/// How many keys are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Good at the time asked for.
    pub active: usize,
    /// `disabled: true`, expired or not.
    pub disabled: usize,
    /// Past `expires`.
    pub expired: usize,
}

impl Keyring {
    /// Indexes `records`. Ids and hashes should not repeat (the key file's reader refuses that); where they do, the
    /// first record wins.
    pub fn new(records: Vec<Record>) -> Self {
        Self::index(records.into_iter().map(Arc::new).collect()).0
    }

    /// Indexes `records` and tells what repeats in them.
    fn index(records: Vec<Arc<Record>>) -> (Self, Vec<Repeat>) {
        let decoy = Fields::new(KeyId::new(""), "", KeyHash::from_digest([0; 32]));
        let mut keyring = Self {
            by_hash: HashTable::with_capacity(records.len()),
            by_id: HashTable::with_capacity(records.len()),
            records,
            hasher: RandomState::new(),
            decoy: Arc::new(Record::pack(decoy, &mut Shelf::default())),
            digest: None,
        };
        let mut repeats = Vec::new();
        // The reader's bound on the file's size keeps the count far below this.
        let count = u32::try_from(keyring.records.len()).unwrap_or(u32::MAX).min(u32::MAX / 2);
        for index in 0..count {
            repeats.extend(keyring.add_id(index));
            repeats.extend(keyring.add_hash(Slot::new(index, Which::Current)));
            repeats.extend(keyring.add_hash(Slot::new(index, Which::Previous)));
        }
        (keyring, repeats)
    }

    /// Notes the SHA-256 of the file that the records came from.
    pub fn with_digest(self, digest: [u8; 32]) -> Self {
        Self { digest: Some(digest), ..self }
    }

    /// Whose key `hash` is, if it may be used from `address` at `now`. Every outcome takes the same few checks.
    ///
    /// Errors: [`AuthFailure::Unknown`], `Disabled`, `Expired` (`now` has reached `expires`, or the end of the grace for
    /// a replaced key) or `Address`, the first that holds in this order.
    pub fn identify(&self, hash: &KeyHash, address: Option<IpAddr>, now: Timestamp) -> Result<Principal, AuthFailure> {
        self.decide(self.find(hash), address, now)
    }

    /// Whether `hash` is in the file at all, in any state: "one of our keys" (design rule 6, decision 8).
    pub fn knows(&self, hash: &KeyHash) -> bool {
        self.find(hash).is_some()
    }

    /// The record with this digest, as its key or the one before it, in any state.
    pub fn find_by_hash(&self, hash: &KeyHash) -> Option<&Arc<Record>> {
        self.find(hash).map(|(record, _)| record)
    }

    /// The record with this id, in any state.
    pub fn find_by_id(&self, id: &KeyId) -> Option<&Arc<Record>> {
        self.record(self.place_of(id)?)
    }

    /// Which record has this id, counted from the first in the file.
    fn place_of(&self, id: &KeyId) -> Option<u32> {
        let hash = self.hasher.hash_one(id.as_str());
        self.by_id.find(hash, |index| self.record(*index).is_some_and(|record| record.id() == id)).copied()
    }

    /// Whether the credential behind `principal` is still good after a reload, with the record as it is now: open
    /// connections of one that is not are ended (design rule 8).
    ///
    /// The credential is the digest, so a rotation ends nothing while its grace lasts. A digest that has moved to
    /// another id or user is [`AuthFailure::Unknown`]: the upstream was told somebody else.
    pub fn still_holds(
        &self,
        principal: &Principal,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Principal, AuthFailure> {
        let hash = principal.record.hash_of(principal.which).ok_or(AuthFailure::Unknown)?;
        let same = |record: &Record| record.id() == principal.id() && record.user() == principal.user();
        self.decide(self.find(hash).filter(|(record, _)| same(record)), address, now)
    }

    /// The principal of a browser's login token, which names a key's id and is bound to its digest: `bound_to` says
    /// whether a digest is the one the token was made for. Errors as [`Keyring::identify`].
    pub fn principal_for_session(
        &self,
        id: &KeyId,
        bound_to: impl Fn(&KeyHash) -> bool,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Principal, AuthFailure> {
        let found = self.find_by_id(id).and_then(|record| {
            let mut both = [Which::Current, Which::Previous].into_iter();
            both.find(|which| record.hash_of(*which).is_some_and(&bound_to)).map(|which| (record, which))
        });
        self.decide(found, address, now)
    }

    /// How many keys are in which state at `now`, for `keygate_keys{state}`. Walks all of them.
    pub fn counts(&self, now: Timestamp) -> Counts {
        self.records.iter().fold(Counts::default(), |mut counts, record| {
            match (record.disabled(), record.expires().is_some_and(|expires| now >= expires)) {
                (true, _) => counts.disabled += 1,
                (false, true) => counts.expired += 1,
                (false, false) => counts.active += 1,
            }
            counts
        })
    }

    /// All records in the order of the file.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &Arc<Record>> {
        self.records.iter()
    }

    /// How many keys there are, in whatever state.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The first 12 hex digits of the source file's SHA-256, for `keygate_keyfile_info{digest}`; empty for a keyring
    /// that was not read from a file.
    pub fn digest(&self) -> String {
        self.digest.iter().flatten().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    fn add_id(&mut self, index: u32) -> Option<Repeat> {
        let Self { records, by_id, hasher, .. } = self;
        let id = |index: &u32| records.get(*index as usize).map(|record| record.id().as_str());
        let wanted = id(&index)?;
        let same = |other: &u32| id(other) == Some(wanted);
        match by_id.entry(hasher.hash_one(wanted), same, |other| hasher.hash_one(id(other).unwrap_or_default())) {
            Entry::Occupied(first) => Some(Repeat::Id { first: *first.get(), again: index }),
            Entry::Vacant(place) => {
                place.insert(index);
                None
            }
        }
    }

    fn add_hash(&mut self, slot: Slot) -> Option<Repeat> {
        let Self { records, by_hash, hasher, .. } = self;
        let digest = |slot: &Slot| slot.digest(records).map(KeyHash::as_bytes);
        let wanted = digest(&slot)?;
        let same = |other: &Slot| digest(other) == Some(wanted);
        match by_hash.entry(hasher.hash_one(wanted), same, |other| hasher.hash_one(digest(other).unwrap_or(&[0; 32]))) {
            Entry::Occupied(first) => Some(Repeat::Hash { first: *first.get(), again: slot }),
            Entry::Vacant(place) => {
                place.insert(slot);
                None
            }
        }
    }

    fn record(&self, index: u32) -> Option<&Arc<Record>> {
        self.records.get(index as usize)
    }

    fn find(&self, hash: &KeyHash) -> Option<(&Arc<Record>, Which)> {
        let wanted = hash.as_bytes();
        let slot = self.by_hash.find(self.hasher.hash_one(wanted), |slot| {
            slot.digest(&self.records).is_some_and(|digest| bool::from(digest.as_bytes().ct_eq(wanted)))
        })?;
        self.records.get(slot.index()).map(|record| (record, slot.which()))
    }

    fn decide(
        &self,
        found: Option<(&Arc<Record>, Which)>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Principal, AuthFailure> {
        let (record, which) = found.unwrap_or((&self.decoy, Which::Current));
        let expired = record.ends(which).is_some_and(|end| now >= end);
        let elsewhere = !record.admits(address);
        match (found.is_none(), record.disabled(), expired, elsewhere) {
            (true, ..) => Err(AuthFailure::Unknown),
            (_, true, ..) => Err(AuthFailure::Disabled),
            (_, _, true, _) => Err(AuthFailure::Expired),
            (.., true) => Err(AuthFailure::Address),
            (false, false, false, false) => Ok(Principal { record: Arc::clone(record), which }),
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.records.len()).finish_non_exhaustive()
    }
}

impl Slot {
    fn new(index: u32, which: Which) -> Self {
        match which {
            Which::Current => Self(index * 2),
            Which::Previous => Self(index * 2 + 1),
        }
    }

    fn index(self) -> usize {
        self.0 as usize / 2
    }

    fn which(self) -> Which {
        if self.0.is_multiple_of(2) { Which::Current } else { Which::Previous }
    }

    fn digest(self, records: &[Arc<Record>]) -> Option<&KeyHash> {
        records.get(self.index())?.hash_of(self.which())
    }
}

/// A caller whose key was found good. Only the keyring can make one.
#[derive(Clone)]
pub struct Principal {
    record: Arc<Record>,
    which: Which,
}

impl Principal {
    /// The key's public id.
    pub fn id(&self) -> &KeyId {
        self.record.id()
    }

    /// Whom the upstream is told.
    pub fn user(&self) -> &str {
        self.record.user()
    }

    /// The operator's name for the key.
    pub fn name(&self) -> Option<&str> {
        self.record.name()
    }

    /// Roles one by one.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.record.roles()
    }

    /// Roles, joined by commas.
    pub fn roles_joined(&self) -> &str {
        self.record.roles_joined()
    }

    /// Scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.record.scopes()
    }

    /// Scopes, joined by spaces.
    pub fn scopes_joined(&self) -> &str {
        self.record.scopes_joined()
    }

    /// The key's own limits; a group that is `None` comes from the default.
    pub fn limits(&self) -> &Limits {
        self.record.limits()
    }

    /// Which of the record's keys was presented.
    pub fn which(&self) -> Which {
        self.which
    }

    /// The digest that was presented, for binding a login token to it.
    pub fn hash(&self) -> &KeyHash {
        self.record.hash_of(self.which).unwrap_or(self.record.hash())
    }

    /// The earliest time from which this principal is no longer good: `expires`, or the end of the grace if it came by
    /// the replaced key. `None` is never.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.record.ends(self.which)
    }

    /// The whole record.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("id", self.id()).field("which", &self.which).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
