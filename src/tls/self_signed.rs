//! A throw-away certificate for `keygate demo`: made at the start, trusted by nobody.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use zeroize::Zeroizing;

/// A self-signed certificate and its key, PEM.
pub struct SelfSigned {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: Zeroizing<String>,
}

/// Makes a certificate for DNS names and IP addresses, valid from the day before `now` for [`VALID_DAYS`] days. Fails on a
/// name that cannot stand in a certificate.
pub fn self_signed(names: &[&str], now: Timestamp) -> Result<SelfSigned, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "keygate demo");
    let start = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)).saturating_sub(DAY);
    params.not_before = date_time_ymd(1970, 1, 1) + start;
    params.not_after = params.not_before + DAY * VALID_DAYS;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?.pem();
    Ok(SelfSigned { cert, key: Zeroizing::new(key.serialize_pem()) })
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfSigned").finish_non_exhaustive()
    }
}

/// How long it is valid.
pub const VALID_DAYS: u32 = 31;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
