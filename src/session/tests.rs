//! Tokens hold while and only while their key, their time and their signature do.

use super::*;
use crate::credential::{Accepts, Settings, Source};
use crate::http1::request::sample::Sample;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn parts() -> (SessionSecret, KeyId, KeyHash) {
    (SessionSecret::new(&[7; 32]), KeyId::new("48e8f859"), KeyHash::of(b"alice-example-key-48e8f859"))
}

#[test]
fn a_token_names_its_key_for_twelve_hours() {
    let (secret, id, hash) = parts();
    let token = issue(&secret, &id, &hash, at(1_000));
    assert!(is_token(token.as_bytes()) && token.len() <= 200);
    for (second, want) in [(1_000, true), (1_000 + 43_199, true), (1_000 + 43_200, false), (i64::from(u32::MAX), false)]
    {
        let claim = verify(&secret, token.as_bytes(), at(second));
        assert_eq!(claim.as_ref().map(|claim| claim.id.clone()).ok(), want.then(|| id.clone()), "{second}");
        if let Err(failure) = claim {
            assert_eq!(failure, AuthFailure::Expired);
        }
    }
}

#[test]
fn a_token_dies_with_its_key_and_its_secret() {
    let (secret, id, hash) = parts();
    let token = issue(&secret, &id, &hash, at(0));
    let claim = verify(&secret, token.as_bytes(), at(0)).unwrap();
    assert!(claim.is_bound_to(&secret, &hash));
    assert!(!claim.is_bound_to(&secret, &KeyHash::of(b"the rotated key")));
    let other = SessionSecret::new(&[8; 32]);
    assert_eq!(verify(&other, token.as_bytes(), at(0)), Err(AuthFailure::Unknown));
}

#[test]
fn no_changed_byte_is_taken() {
    let (secret, id, hash) = parts();
    let token = issue(&secret, &id, &hash, at(0));
    for index in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[index] ^= 1 << bit;
            assert!(verify(&secret, &bytes, at(0)).is_err(), "byte {index} bit {bit}");
        }
        assert!(verify(&secret, &token.as_bytes()[..index], at(0)).is_err(), "cut at {index}");
    }
    for junk in ["", "kgs1.", "kgs1.AAAA", "kgs1.====", &format!("{token}A"), &format!("kgs1.{}", "A".repeat(4096))] {
        assert!(verify(&secret, junk.as_bytes(), at(0)).is_err(), "{junk}");
    }
}

#[test]
fn a_token_and_its_secret_tell_nothing_of_the_hash() {
    let (secret, id, hash) = parts();
    let token = issue(&secret, &id, &hash, at(0));
    let bytes = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
    assert!(hash.as_bytes().windows(4).all(|part| !bytes.windows(4).any(|window| window == part)));
    let claim = verify(&secret, token.as_bytes(), at(0)).unwrap();
    assert!(!claim.is_bound_to(&SessionSecret::new(&[0; 32]), &hash), "without the secret no guess can be checked");
    assert_eq!(format!("{secret:?}"), "SessionSecret(..)");
    let later = issue(&secret, &id, &hash, at(1));
    assert_ne!(token[PREFIX.len() + 11..][..20], later[PREFIX.len() + 11..][..20], "two tokens cannot be linked");
}

#[test]
fn the_longest_id_fits() {
    let (secret, _, hash) = parts();
    let id = KeyId::new(&"i".repeat(MAX_ID_LEN));
    let token = issue(&secret, &id, &hash, at(0));
    assert_eq!(verify(&secret, token.as_bytes(), at(0)).unwrap().id, id);
}

#[test]
fn cookies_carry_their_attributes() {
    for (secure, tail) in [(true, "; Secure"), (false, "")] {
        let (mut kept, mut cleared) = (Vec::new(), Vec::new());
        write_cookie(&mut kept, "s", "kgs1.x", secure);
        write_cleared_cookie(&mut cleared, "s", secure);
        let want = format!("s=kgs1.x; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax{tail}");
        assert_eq!(String::from_utf8(kept).unwrap(), want);
        let want = format!("s=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{tail}");
        assert_eq!(String::from_utf8(cleared).unwrap(), want);
    }
}

fn sources() -> Sources {
    Sources::new(&Settings {
        sources: vec![
            Source::Query { name: "api_key".into(), browser_login: true },
            Source::Query { name: "token".into(), browser_login: false },
            Source::Cookie { name: "s".into() },
        ],
        realm: "g".into(),
    })
}

fn login(line: &str, fields: &[&str], accepted: Option<&[usize]>) -> Option<String> {
    let (sample, sources) = (Sample::new(line.as_bytes(), fields), sources());
    let accepts = Accepts { sources: accepted, public: false };
    let found = sources.find(sample.request(), accepts, |key| key == b"K").unwrap();
    let login = browser_login(sample.request(), &sources, accepted, &found)?;
    assert_eq!(login.cookie, "s");
    Some(String::from_utf8(login.location).unwrap())
}

#[test]
fn a_page_opened_with_a_key_is_sent_to_its_clean_link() {
    let page: &[&str] = &["Sec-Fetch-Mode: navigate"];
    for (target, want) in [
        ("/ui/?api_key=K", Some("/ui/")),
        ("/ui?a=%2C&api%5Fkey=K&b=+", Some("/ui?a=%2C&b=+")),
        ("/?token=K", None),
        ("//evil.example/?api_key=K", None),
        ("/\\evil.example/?api_key=K", None),
        ("/a//b?api_key=K", Some("/a//b")),
    ] {
        assert_eq!(login(&format!("GET {target} HTTP/1.1"), page, None).as_deref(), want, "{target}");
    }
    let app = login("GET /?token=app&api_key=K HTTP/1.1", page, Some(&[0, 2]));
    assert_eq!(app.as_deref(), Some("/?token=app"), "what is the upstream's stays in the link");
    assert_eq!(login("GET /?api_key=K HTTP/1.1", &["Accept: */*"], None), None, "not a navigation");
    assert_eq!(login("POST /?api_key=K HTTP/1.1", page, None), None, "not a GET");
    assert_eq!(login("GET /?api_key=K HTTP/1.1", page, Some(&[0, 1])), None, "the route takes no cookie");
}

#[test]
fn cookies_work_from_our_own_pages_only() {
    let rows: &[(&str, &[&str], bool)] = &[
        ("GET", &[], true),
        ("HEAD", &["Origin: https://evil"], true),
        ("OPTIONS", &["Origin: https://evil"], true),
        ("POST", &[], false),
        ("POST", &["Origin: https://gate.lan"], true),
        ("POST", &["Origin: https://gate.lan:443"], true),
        ("POST", &["Origin: HTTPS://GATE.LAN"], true),
        ("POST", &["Origin: http://gate.lan"], false),
        ("POST", &["Origin: https://gate.lan:8443"], false),
        ("POST", &["Origin: https://gate.lan.evil"], false),
        ("POST", &["Origin: https://xgate.lan"], false),
        ("POST", &["Origin: null"], false),
        ("POST", &["Origin:"], false),
        ("POST", &["Origin: https://"], false),
        ("POST", &["Origin: https://gate.lan", "Origin: https://gate.lan"], false),
        ("POST", &["Origin: https://gate.lan, https://evil"], false),
        ("DELETE", &["Origin: https://evil"], false),
        ("PROPFIND", &[], false),
        ("GET", &["Upgrade: websocket"], false),
        ("GET", &["Upgrade: anything"], false),
        ("GET", &["Upgrade: websocket", "Origin: https://evil"], false),
        ("GET", &["Upgrade: websocket", "Origin: https://gate.lan"], true),
    ];
    for (method, fields, want) in rows {
        let sample = Sample::new(format!("{method} / HTTP/1.1").as_bytes(), fields);
        assert_eq!(origin_allowed(sample.request(), "https", b"gate.lan"), *want, "{method} {fields:?}");
    }
    let sample = Sample::new(b"POST / HTTP/1.1", &["Origin: http://[::1]:9100"]);
    assert!(origin_allowed(sample.request(), "http", b"[::1]:9100"));
    assert!(!origin_allowed(sample.request(), "http", b""));
    assert!(!is_foreign_page(sample.request(), b"[::1]:9100") && is_foreign_page(sample.request(), b""));
}
