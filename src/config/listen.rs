//! `listen` and `admin`: where the gate listens, and that no two of these places are one.

use std::net::IpAddr;

use super::address;
use super::certificate;
use super::decode::{Section, Slot};
use super::defaults;
use super::place::Placed;
use super::quantity::{boolean, choice};
use crate::listener::{ListenAddress, Settings};
use crate::tls::{self, CertificateFiles, MinVersion};

/// The listeners, each with the place of its address.
pub(super) fn listeners(top: &mut Section<'_>) -> Vec<Placed<Settings>> {
    let Some(slot) = top.required("listen", "write at least one listener: `listen: [{ address: \"127.0.0.1:9100\" }]`")
    else {
        return Vec::new();
    };
    slot.items().into_iter().filter_map(listener).collect()
}

fn listener(slot: Slot<'_>) -> Option<Placed<Settings>> {
    let mut section = slot.section()?;
    let decoder = section.decoder;
    let address = section
        .required("address", "write `address: \"127.0.0.1:8443\"`")
        .and_then(|slot| slot.placed(|text| address::listen(&decoder.resolve(""))(text)));
    let tls_written = section.has("tls");
    let tls = section.section("tls").map(listener_tls);
    section.finish();
    let Placed { value: address, place } = address?;
    if !tls_written && is_public(&address) {
        decoder.warning(
            &place,
            "keys cross the network in clear text to this listener",
            Some("give it `tls`, or let it listen on 127.0.0.1 or unix:/path"),
        );
    }
    Some(Placed { value: Settings { address, tls }, place })
}

fn listener_tls(mut section: Section<'_>) -> tls::Settings {
    let files = section.required("certificates", "write `certificates: [{ cert: FILE, key: FILE }]`");
    let certificates = files.map(Slot::items).unwrap_or_default().into_iter().filter_map(certificate_files).collect();
    let versions = choice(&[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)]);
    let settings = tls::Settings {
        certificates,
        min_version: section.or("min_version", MinVersion::default(), versions),
        http2: section.or("http2", defaults::TLS_HTTP2, boolean),
    };
    section.finish();
    settings
}

fn certificate_files(slot: Slot<'_>) -> Option<CertificateFiles> {
    let mut section = slot.section()?;
    let decoder = section.decoder;
    let cert = section.required("cert", "name the PEM file of the chain, leaf first").and_then(certificate::file);
    let key = section.required("key", "name the PEM file of the private key").and_then(certificate::file);
    section.finish();
    let (cert, key) = (cert?, key?);
    certificate::check_pair(decoder, &cert, &key);
    Some(CertificateFiles { cert: cert.value, key: key.value })
}

/// The operators' listener, if there is one.
pub(super) fn admin(top: &mut Section<'_>) -> Option<Placed<ListenAddress>> {
    let mut section = top.section("admin")?;
    let decoder = section.decoder;
    let address = section
        .required("address", "write `address: \"127.0.0.1:9180\"`, or leave `admin` out")
        .and_then(|slot| slot.placed(|text| address::listen(&decoder.resolve(""))(text)));
    section.finish();
    let address = address?;
    if is_public(&address.value) {
        decoder.warning(
            &address.place,
            "metrics name keys and users, and others than this host can reach them here",
            Some("listen on 127.0.0.1 or unix:/path, or see that a firewall stands in between"),
        );
    }
    Some(address)
}

/// Reports listeners that want the same socket.
pub(super) fn check(listeners: &[Placed<Settings>], admin: Option<&Placed<ListenAddress>>, top: &Section<'_>) {
    let addresses = listeners.iter().map(|listener| (&listener.value.address, &listener.place));
    let all: Vec<_> = addresses.chain(admin.map(|admin| (&admin.value, &admin.place))).collect();
    for (index, (address, place)) in all.iter().enumerate() {
        let twin = all.iter().take(index).find(|(other, _)| address::overlap(address, other));
        if let Some((_, other)) = twin {
            let what = format!("takes the same address as {} in line {}", other.path, other.line);
            top.decoder.problem(place, what, Some("each listener needs an address of its own"));
        }
    }
}

/// Whether others than this host can reach it.
fn is_public(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.to_canonical().is_loopback(),
        },
        ListenAddress::Unix(_) => false,
    }
}
