//! Certificates replaced on disk.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::TLS13;

use super::{Authority, LIMIT, leaf_in, load, ping, served_leaf, settings, shake};
use crate::tls::reload::{Reload, Reloader, keep_current};
use crate::tls::store::CertificateStore;
use crate::tls::watch::LOOK_EVERY;

/// Looks that make the files hold still: enough for a change to be read.
fn settle(reloader: &mut Reloader, clock: &mut Instant) -> Vec<Reload> {
    (0..3)
        .flat_map(|_| {
            *clock += LOOK_EVERY;
            reloader.look(*clock)
        })
        .collect()
}

#[tokio::test]
async fn a_new_pair_comes_into_force_and_a_bad_one_does_not() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.test"]);
    let second = authority.issue("second", &["second.test"]);
    let (store, acceptor) = load(&settings(vec![first, second.clone()]));
    let config = Arc::new(authority.client(&[&TLS13], &[]));
    let (mut reloader, mut clock) = (Reloader::new(store.clone()), Instant::now());
    assert_eq!(settle(&mut reloader, &mut clock), [], "nothing changed");
    let old = leaf_in(&second.cert);
    let (server, client) = shake(&acceptor, &config, "second.test").await;
    let ((mut open_server, _), mut open_client) = (server.unwrap(), client.unwrap());

    // The certificate alone is new: it does not go with the key.
    let (new_cert, new_key) = authority.pem(&["second.test", "more.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    fs::write(&second.cert, &new_cert).unwrap();
    let reloads = settle(&mut reloader, &mut clock);
    assert!(
        matches!(&reloads[..], [Reload::Refused(problem)] if problem.file.as_ref() == Some(&second.key)),
        "{reloads:?}"
    );
    clock += Duration::from_secs(5);
    assert_eq!(settle(&mut reloader, &mut clock), [], "the same fault is told once");
    let (_, client) = shake(&acceptor, &config, "second.test").await;
    assert_eq!(served_leaf(&client.unwrap()), old);

    // Gone, half-written, then whole, by rename.
    fs::remove_file(&second.key).unwrap();
    assert!(matches!(&settle(&mut reloader, &mut clock)[..], [Reload::Refused(_)]));
    fs::write(&second.key, &new_key[..new_key.len() / 2]).unwrap();
    assert!(matches!(&settle(&mut reloader, &mut clock)[..], [Reload::Refused(_)]));
    let aside = authority.folder.path().join("aside");
    fs::write(&aside, &new_key).unwrap();
    fs::rename(&aside, &second.key).unwrap();
    let not_after = store.certificates()[1].not_after();
    assert_eq!(
        settle(&mut reloader, &mut clock),
        [Reload::Swapped { cert: second.cert.clone(), not_after }],
        "rcgen gives all certificates one end of validity"
    );

    for name in ["second.test", "more.test"] {
        let (_, client) = shake(&acceptor, &config, name).await;
        assert_eq!(served_leaf(&client.unwrap()), leaf_in(&second.cert), "{name}");
    }
    let (_, client) = shake(&acceptor, &config, "first.test").await;
    assert!(client.is_ok(), "the other certificate is untouched");
    ping(&mut open_server, &mut open_client).await;
}

#[test]
fn a_change_that_stat_does_not_show_is_found_by_content() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let store = Arc::new(CertificateStore::load(&settings(vec![files])).unwrap());
    let (mut reloader, mut clock) = (Reloader::new(store.clone()), Instant::now());
    settle(&mut reloader, &mut clock);
    // Replaced after the watcher's last look and before its next ones, which see stamps they take for read: as with a file
    // system that does not tell. Stood in for by a reloader that already looked at the new stamps over the old store.
    let (cert, key) = authority.pem(&["b.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    authority.write("a", &cert, &key);
    reloader.forget_change();
    assert_eq!(settle(&mut reloader, &mut clock), []);
    clock += Duration::from_secs(5);
    assert!(matches!(&settle(&mut reloader, &mut clock)[..], [Reload::Swapped { .. }]));
    assert_eq!(&*store.certificates()[0].names()[0], "b.test");
}

#[tokio::test]
async fn the_watching_task_swaps_by_itself() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let store = Arc::new(CertificateStore::load(&settings(vec![files])).unwrap());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let report = Arc::new(move |reload: &Reload| tell.send(reload.clone()).unwrap());
    let task = tokio::spawn(keep_current(store.clone(), report));
    authority.issue("a", &["b.test"]);
    let reload = tokio::time::timeout(LIMIT, told.recv()).await.unwrap().unwrap();
    assert!(matches!(reload, Reload::Swapped { .. }), "{reload:?}");
    assert_eq!(store.certificates()[0].label(), "b.test");
    task.abort();
}
