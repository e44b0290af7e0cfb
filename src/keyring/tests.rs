//! Whose key it is: entry state, address and time against the outcome.

use super::*;
use crate::keyring::record::Previous;
use proptest::prelude::*;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn hash(key: &str) -> KeyHash {
    KeyHash::of(key.as_bytes())
}

fn entry(id: &str, change: impl FnOnce(&mut Fields)) -> Record {
    let mut fields = Fields::new(KeyId::new(id), &format!("user-{id}"), hash(id));
    change(&mut fields);
    Record::pack(fields, &mut Shelf::default())
}

fn ring() -> Keyring {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().expect("a net")).collect();
    Keyring::new(vec![
        entry("plain", |_| {}),
        entry("off", |fields| fields.disabled = true),
        entry("off-and-old", |fields| {
            fields.disabled = true;
            fields.expires = Some(time("2026-06-01T00:00:00Z"));
        }),
        entry("ends", |fields| fields.expires = Some(time("2026-06-01T00:00:00Z"))),
        entry("home", |fields| fields.allow_from = nets(&["10.0.0.0/8", "fd00::/8"])),
        entry("home-ends", |fields| {
            fields.allow_from = nets(&["10.0.0.0/8"]);
            fields.expires = Some(time("2026-06-01T00:00:00Z"));
        }),
        entry("turned", |fields| {
            fields.previous = Some(Previous { hash: hash("turned-before"), until: time("2026-06-01T00:00:00Z") });
            fields.expires = Some(time("2026-09-01T00:00:00Z"));
        }),
    ])
}

#[test]
fn identify_by_state_address_and_time() {
    use AuthFailure::{Address, Disabled, Expired, Unknown};
    let before = "2026-05-31T23:59:59.999999Z";
    let after = "2026-06-01T00:00:00Z";
    let rows: &[(&str, &str, &str, Result<&str, AuthFailure>)] = &[
        ("plain", "192.0.2.1", before, Ok("plain")),
        ("plain", "2001:db8::1", after, Ok("plain")),
        ("plain", "", after, Ok("plain")),
        ("strange", "10.0.0.1", before, Err(Unknown)),
        ("", "10.0.0.1", before, Err(Unknown)),
        ("off", "10.0.0.1", before, Err(Disabled)),
        ("off-and-old", "10.0.0.1", after, Err(Disabled)),
        ("ends", "10.0.0.1", before, Ok("ends")),
        ("ends", "10.0.0.1", after, Err(Expired)),
        ("ends", "10.0.0.1", "2030-01-01T00:00:00Z", Err(Expired)),
        ("home", "10.0.0.1", before, Ok("home")),
        ("home", "10.255.255.255", before, Ok("home")),
        ("home", "11.0.0.0", before, Err(Address)),
        ("home", "::ffff:10.0.0.1", before, Ok("home")),
        ("home", "::ffff:11.0.0.1", before, Err(Address)),
        ("home", "::10.0.0.1", before, Err(Address)),
        ("home", "fd00::7", before, Ok("home")),
        ("home", "fe80::7", before, Err(Address)),
        ("home", "", before, Err(Address)),
        ("home-ends", "11.0.0.1", after, Err(Expired)),
        ("home-ends", "11.0.0.1", before, Err(Address)),
        ("turned", "10.0.0.1", before, Ok("turned")),
        ("turned", "10.0.0.1", after, Ok("turned")),
        ("turned", "10.0.0.1", "2026-09-01T00:00:00Z", Err(Expired)),
        ("turned-before", "10.0.0.1", before, Ok("turned")),
        ("turned-before", "10.0.0.1", after, Err(Expired)),
    ];
    let ring = ring();
    for (key, address, now, want) in rows {
        let address = (!address.is_empty()).then(|| address.parse().expect("an address"));
        let got = ring.identify(&hash(key), address, time(now));
        assert_eq!(got.map(|principal| principal.id().to_string()), want.map(str::to_owned), "{key} {address:?} {now}");
    }
}

#[test]
fn a_principal_ends_with_its_key_or_its_grace() {
    let ring = ring();
    let now = time("2026-01-01T00:00:00Z");
    for (key, which, ends) in [
        ("plain", Which::Current, None),
        ("ends", Which::Current, Some("2026-06-01T00:00:00Z")),
        ("turned", Which::Current, Some("2026-09-01T00:00:00Z")),
        ("turned-before", Which::Previous, Some("2026-06-01T00:00:00Z")),
    ] {
        let principal = ring.identify(&hash(key), None, now).expect(key);
        assert_eq!((principal.which(), principal.expires_at()), (which, ends.map(time)), "{key}");
        assert_eq!(principal.hash(), &hash(key));
    }
}

#[test]
fn known_means_in_the_file_in_any_state() {
    let ring = ring();
    for key in ["plain", "off", "off-and-old", "ends", "home", "turned", "turned-before"] {
        assert!(ring.knows(&hash(key)), "{key}");
    }
    assert!(!ring.knows(&hash("strange")) && !ring.knows(&KeyHash::from_digest([0; 32])));
    assert_eq!(ring.find_by_id(&KeyId::new("off")).map(|record| record.user()), Some("user-off"));
    assert!(ring.find_by_id(&KeyId::new("turned-before")).is_none());
}

#[test]
fn a_reload_ends_what_is_no_longer_good() {
    use AuthFailure::{Address, Disabled, Expired, Unknown};
    let now = time("2026-01-01T00:00:00Z");
    let until = |text: &str| Some(Previous { hash: hash("k"), until: time(text) });
    let home = Some("10.0.0.1".parse().expect("an address"));
    let old = Keyring::new(vec![entry("k", |_| {})]).identify(&hash("k"), home, now).expect("good");
    let rows: Vec<(&str, Record, Result<Which, AuthFailure>)> = vec![
        ("the same", entry("k", |_| {}), Ok(Which::Current)),
        ("gone", entry("other", |_| {}), Err(Unknown)),
        ("disabled", entry("k", |fields| fields.disabled = true), Err(Disabled)),
        ("expired", entry("k", |fields| fields.expires = Some(now)), Err(Expired)),
        (
            "moved away",
            entry("k", |fields| fields.allow_from = vec!["11.0.0.0/8".parse().expect("a net")]),
            Err(Address),
        ),
        ("another id", entry("other", |fields| fields.hash = hash("k")), Err(Unknown)),
        ("another user", entry("k", |fields| fields.user = "bob".to_owned()), Err(Unknown)),
        ("rotated at once", entry("k", |fields| fields.hash = hash("new")), Err(Unknown)),
        (
            "rotated with grace",
            entry("k", |fields| (fields.hash, fields.previous) = (hash("new"), until("2026-01-02T00:00:00Z"))),
            Ok(Which::Previous),
        ),
        (
            "rotated, grace over",
            entry("k", |fields| (fields.hash, fields.previous) = (hash("new"), until("2026-01-01T00:00:00Z"))),
            Err(Expired),
        ),
    ];
    for (what, record, want) in rows {
        let got = Keyring::new(vec![record]).still_holds(&old, home, now).map(|principal| principal.which());
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn a_login_token_follows_its_digest() {
    let ring = ring();
    let now = time("2026-01-01T00:00:00Z");
    for (id, key, want) in [
        ("turned", "turned", Ok(Which::Current)),
        ("turned", "turned-before", Ok(Which::Previous)),
        ("turned", "plain", Err(AuthFailure::Unknown)),
        ("strange", "plain", Err(AuthFailure::Unknown)),
        ("off", "off", Err(AuthFailure::Disabled)),
    ] {
        let got = ring.principal_for_session(&KeyId::new(id), |other| *other == hash(key), None, now);
        assert_eq!(got.map(|principal| principal.which()), want, "{id} {key}");
    }
}

#[test]
fn counts_by_state() {
    let counts = |now| ring().counts(time(now));
    assert_eq!(counts("2026-01-01T00:00:00Z"), Counts { active: 5, disabled: 2, expired: 0 });
    assert_eq!(counts("2026-06-01T00:00:00Z"), Counts { active: 3, disabled: 2, expired: 2 });
    assert_eq!(counts("2026-09-01T00:00:00Z"), Counts { active: 2, disabled: 2, expired: 3 });
}

#[test]
fn repeats_never_change_the_owner() {
    let ring = Keyring::new(vec![
        entry("one", |fields| fields.hash = hash("same")),
        entry("two", |fields| fields.hash = hash("same")),
        entry("one", |fields| fields.user = "thief".to_owned()),
    ]);
    let now = time("2026-01-01T00:00:00Z");
    assert_eq!(ring.identify(&hash("same"), None, now).expect("good").user(), "user-one");
    assert_eq!(ring.find_by_id(&KeyId::new("one")).expect("there").user(), "user-one");
}

#[test]
fn what_is_shown_holds_no_hash() {
    let ring = ring();
    let principal = ring.identify(&hash("plain"), None, time("2026-01-01T00:00:00Z")).expect("good");
    let shown = format!("{ring:?} {principal:?} {:?}", principal.record());
    assert_eq!(shown, "Keyring { keys: 7, .. } Principal { id: plain, which: Current, .. } Record { id: plain, .. }");
}

#[test]
fn a_record_keeps_what_it_was_packed_from() {
    let record = entry("k", |fields| {
        fields.user = "ålice".to_owned();
        fields.note = Some("two\nlines".to_owned());
        fields.roles = vec!["client".to_owned(), "miner".to_owned()];
        fields.scopes = vec!["jobs:write".to_owned(), "read".to_owned()];
        fields.created = Some(time("2026-01-01T00:00:00.123456Z"));
    });
    assert_eq!((record.user(), record.name(), record.note()), ("ålice", None, Some("two\nlines")));
    assert_eq!((record.roles_joined(), record.scopes_joined()), ("client,miner", "jobs:write read"));
    assert_eq!(record.roles().collect::<Vec<_>>(), ["client", "miner"]);
    assert_eq!(record.scopes().collect::<Vec<_>>(), ["jobs:write", "read"]);
    assert_eq!(record.created(), Some(time("2026-01-01T00:00:00.123456Z")));
    assert_eq!(entry("k", |_| {}).roles().count() + entry("k", |_| {}).scopes().count(), 0);
}

#[test]
fn records_stay_small_and_share() {
    // 200 bytes a key are allowed beyond the strings; the rest goes to the reference count, the id and the indices.
    assert!(size_of::<Record>() <= 104, "{}", size_of::<Record>());
    let mut shelf = Shelf::default();
    let pack = |id: &str, shelf: &mut Shelf| {
        let mut fields = Fields::new(KeyId::new(id), id, hash(id));
        fields.roles = vec!["client".to_owned()];
        Record::pack(fields, shelf)
    };
    let (one, two) = (pack("one", &mut shelf), pack("two", &mut shelf));
    assert_eq!(one.roles_joined().as_ptr(), two.roles_joined().as_ptr());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_key_is_found_and_no_other(ids in proptest::collection::hash_set("[a-z]{1,6}", 0..60), strange in "[A-Z]{1,6}") {
        let ring = Keyring::new(ids.iter().map(|id| entry(id, |_| {})).collect());
        let now = time("2026-01-01T00:00:00Z");
        for id in &ids {
            let found = ring.identify(&hash(id), None, now).expect("found");
            prop_assert_eq!(found.id().as_str(), id);
        }
        prop_assert_eq!(ring.identify(&hash(&strange), None, now).err(), Some(AuthFailure::Unknown));
        prop_assert_eq!(ring.len(), ids.len());
    }
}

#[test]
fn a_key_costs_at_most_200_bytes_beside_its_words() {
    // One more than fills tables of 8,192 places, so that each has twice as many: the dearest number of keys there is.
    let count = 7_169u32;
    let mut shelf = Shelf::default();
    let records = (0..count).map(|number| {
        let fields = Fields::new(KeyId::new(&format!("{number:08x}")), "alice", KeyHash::of(&number.to_le_bytes()));
        Arc::new(Record::pack(fields, &mut shelf))
    });
    let (keyring, repeats) = Keyring::index(records.collect());
    assert!(repeats.is_empty());
    let index = keyring.by_hash.allocation_size() + keyring.by_id.allocation_size();
    // What the usual allocators add: 8 bytes, up to a multiple of 16. The counts of an `Arc` are two words.
    let allocated = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32);
    let record = allocated(16 + size_of::<Record>()) + size_of::<Arc<Record>>();
    let words = allocated("alice".len()) - "alice".len();
    let each = index.div_ceil(count as usize) + record + words;
    // An id of the usual length has no allocation of its own.
    assert_eq!(size_of::<KeyId>(), 16);
    assert!(each <= 200, "{each} bytes: {index} of index for {count} keys, {record} of record, {words} of words");
}
