//! Looks at certificates and keys as `check` needs it: that they are there, are PEM, and belong together. Serving them
//! is the business of the `tls` room, which reads them again.

use std::path::PathBuf;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::decode::{Decoder, Slot};
use super::environment::why;
use super::place::Placed;
use super::problem::Fault;

/// A file named by a setting, relative to the configuration.
pub(super) fn file(slot: Slot<'_>) -> Option<Placed<PathBuf>> {
    let decoder = slot.decoder;
    slot.placed(|text| path(decoder, text))
}

/// A path relative to the configuration.
pub(super) fn path(decoder: &Decoder<'_>, text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("is not the path of a file"));
    }
    Ok(decoder.resolve(text))
}

/// Reports what is wrong with a chain and its private key.
pub(super) fn check_pair(decoder: &Decoder<'_>, cert: &Placed<PathBuf>, key: &Placed<PathBuf>) {
    let chain = chain(decoder, cert);
    let private = read(decoder, key).and_then(|bytes| {
        let parsed = PrivateKeyDer::from_pem_slice(&bytes).ok();
        if parsed.is_none() {
            problem(
                decoder,
                key,
                "holds no private key in PEM form",
                "a `-----BEGIN PRIVATE KEY-----` block is needed",
            );
        }
        parsed
    });
    let (Some(chain), Some(private)) = (chain, private) else { return };
    let provider = aws_lc_rs::default_provider();
    let Ok(signer) = provider.key_provider.load_private_key(private) else {
        problem(
            decoder,
            key,
            "holds a private key that cannot be used",
            "RSA of 2048 bits and more, ECDSA and Ed25519 can",
        );
        return;
    };
    match CertifiedKey::new(chain, signer).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let what = "does not belong to the certificate beside it";
            problem(decoder, key, what, "the chain's first certificate must be the one for this key");
        }
        Err(_) => problem(decoder, cert, "begins with a certificate that cannot be read", "the leaf comes first"),
    }
}

/// Reports what is wrong with a file of certificates to trust.
pub(super) fn check_roots(decoder: &Decoder<'_>, ca: &Placed<PathBuf>) {
    let Some(certificates) = chain(decoder, ca) else { return };
    let mut store = rustls::RootCertStore::empty();
    if certificates.into_iter().any(|certificate| store.add(certificate).is_err()) {
        problem(decoder, ca, "holds a certificate that cannot be read", "every block must be a CA certificate");
    }
}

fn chain(decoder: &Decoder<'_>, file: &Placed<PathBuf>) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read(decoder, file)?;
    match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) | Err(_) => {
            let hint = "a `-----BEGIN CERTIFICATE-----` block is needed";
            problem(decoder, file, "holds no certificate in PEM form", hint);
            None
        }
    }
}

fn read(decoder: &Decoder<'_>, file: &Placed<PathBuf>) -> Option<Vec<u8>> {
    match decoder.environment().read(&file.value) {
        Ok(bytes) => Some(bytes),
        Err(e) => {
            let fault = Fault::new(format!("cannot be read ({})", why(&e)));
            report(decoder, file, fault.suggest(format!("looked for {}", file.value.display())));
            None
        }
    }
}

fn problem(decoder: &Decoder<'_>, file: &Placed<PathBuf>, what: &str, hint: &str) {
    report(decoder, file, Fault::new(what).hint(hint));
}

fn report(decoder: &Decoder<'_>, file: &Placed<PathBuf>, fault: Fault) {
    let written = file.value.strip_prefix(decoder.resolve("")).unwrap_or(&file.value);
    decoder.fault(&file.place, &written.to_string_lossy(), fault);
}
