//! Keys of people are told from random ones.

use super::*;
use crate::key::ApiKey;

/// Bytes that look random and are the same in every run: a linear congruential generator (Knuth's MMIX constants).
fn random(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    }
}

#[test]
fn keys_of_people_are_weak() {
    for (weak, why) in [
        ("", Weakness::Short),
        ("secret", Weakness::Known),
        ("hunter2", Weakness::Short),
        ("f3a9c1d27b", Weakness::Short),
        ("48e8f85912345678", Weakness::Short),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Weakness::Monotonous),
        ("correct-horse-battery-staple", Weakness::Words),
        ("correcthorsebatterystaple", Weakness::Words),
        ("client_dev_key_3_valid", Weakness::Words),
        ("my_super_secret_admin_key_for_production_2024", Weakness::Words),
        ("homelab-fetchml-worker-key", Weakness::Words),
    ] {
        assert_eq!(weakness(weak, &[]), Some(why), "{weak}");
    }
    // Words or a pattern: these are both.
    for weak in [
        "Test1234Key5678",
        "12345678901234567890123456789012345678901234",
        "0123456789abcdef0123456789abcdef",
        "deadbeefcafebabedeadbeefcafebabe",
        "qwertyuiopasdfghjklzxcvbnm",
        "Passw0rd!Passw0rd!Passw0rd!",
        "00000000-0000-4000-8000-000000000000",
    ] {
        assert!(weakness(weak, &[]).is_some(), "{weak}");
    }
    assert_eq!(weakness("jfraeys-homelab-worker-7", &["jfraeys"]), Some(Weakness::Words));
}

#[test]
fn every_key_printed_in_documents_is_weak() {
    for secret in common::secrets() {
        assert!(weakness(secret, &[]).is_some(), "{secret}");
    }
    // Those of AITBC would be without the list, too.
    for secret in common::secrets().filter(|secret| secret.contains("_key_")) {
        let changed = secret.replace("key", "kee").replace("dev", "deb");
        assert!(weakness(&changed, &[]).is_some(), "{changed}");
    }
}

#[test]
fn runs_of_digits_make_no_words_of_random_hex() {
    // Found among 100,000 random keys: letters by chance, and digits that could be dates, made half of each.
    for key in
        ["58e0018028efbebe5135543e29750f1a", "326f5039f5432a4dddecd2f9d4432037", "2050ffcaae3be43e6b109898e8485d0c"]
    {
        assert_eq!(weakness(key, &["user35205"]), None, "{key}");
    }
}

#[test]
fn random_keys_are_never_weak() {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for seed in 0..100 {
        let mut fill = random(seed);
        let mut bytes = [0; 32];
        fill(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex32 = &hex[..32];
        let uuid = format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
        let base64: String = bytes.iter().map(|byte| char::from(BASE64[usize::from(byte % 64)])).collect();
        let own = ApiKey::generate(None, &mut fill);
        let alphanumeric: String = base64.replace(['-', '_'], "x").chars().take(20).collect();
        for key in [&hex, hex32, &hex.to_uppercase(), &uuid, &base64, &base64[..22], own.expose_secret(), &alphanumeric]
        {
            assert_eq!(weakness(key, &["alice", "client"]), None, "seed {seed}: {key}");
        }
    }
}
