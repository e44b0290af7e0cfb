//! Login tokens for browsers: signed, short-lived, bound to a key and dying with it (decision 7). A page opened with the
//! key in its link gets such a token as a cookie and is sent to the link without the key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::credential::challenge::is_navigation;
use crate::credential::{Found, Sources, Via};
use crate::http1::request::Request;
use crate::key::{KeyHash, KeyId};
use crate::rejection::AuthFailure;

/// How long a token lives, in seconds: 12 hours.
pub const LIFETIME_SECONDS: i64 = 12 * 60 * 60;

/// What every token begins with. No key of ours does; the digit is the version of the form.
const PREFIX: &str = "kgs1.";
const EXPIRY_LEN: usize = 8;
const BINDING_LEN: usize = 16;
const MAC_LEN: usize = 32;
const MAX_ID_LEN: usize = 64;
const MAX_LEN: usize = EXPIRY_LEN + BINDING_LEN + MAC_LEN + MAX_ID_LEN;

/// The key under which tokens are signed: 32 random bytes, kept beside the state file.
pub struct SessionSecret(Zeroizing<[u8; 64]>);

/// What a token with a good signature says. It admits nobody before [`SessionClaim::is_bound_to`] was asked.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionClaim {
    /// The key that was logged in with.
    pub id: KeyId,
    /// The first second, of the Unix epoch, at which the token is no longer good.
    pub expires: i64,
    binding: [u8; BINDING_LEN],
}

/// A browser login: the answer is 303 to `location` with the cookie `cookie`.
#[derive(Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// Name of the cookie.
    pub cookie: &'a str,
    /// The target without the key, in origin-form.
    pub location: Vec<u8>,
}

impl SessionSecret {
    /// Wraps 32 random bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        // HMAC pads a short key with zeros to its block (RFC 2104); done here, signing cannot fail.
        let mut block = Zeroizing::new([0; 64]);
        for (slot, byte) in block.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        Self(block)
    }

    /// HMAC-SHA256 over the parts; `purpose` keeps signatures made for one thing from passing for another.
    fn sign(&self, purpose: u8, expires: i64, id: &[u8], content: &[u8]) -> [u8; MAC_LEN] {
        let mut mac = Hmac::<Sha256>::new(&(*self.0).into());
        mac.update(&[purpose, u8::try_from(id.len()).unwrap_or(u8::MAX)]);
        mac.update(&expires.to_be_bytes());
        mac.update(id);
        mac.update(content);
        mac.finalize().into_bytes().into()
    }

    /// Ties a token to the hash of its key. One way, so that a token tells nothing of the hash.
    fn bind(&self, expires: i64, id: &[u8], hash: &KeyHash) -> [u8; BINDING_LEN] {
        let whole = self.sign(b'b', expires, id, hash.as_bytes());
        whole.first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

/// Makes a token for the key `id` with this hash: `kgs1.` and base64url of expiry, binding, signature and id.
pub fn issue(secret: &SessionSecret, id: &KeyId, hash: &KeyHash, now: Timestamp) -> String {
    let expires = now.as_second().saturating_add(LIFETIME_SECONDS);
    let id = id.as_str().as_bytes();
    let binding = secret.bind(expires, id, hash);
    let mut bytes = Vec::with_capacity(MAX_LEN);
    bytes.extend_from_slice(&expires.to_be_bytes());
    bytes.extend_from_slice(&binding);
    bytes.extend_from_slice(&secret.sign(b't', expires, id, &binding));
    bytes.extend_from_slice(id);
    let mut token = PREFIX.to_owned();
    URL_SAFE_NO_PAD.encode_string(&bytes, &mut token);
    token
}

/// Whether a cookie's value means to be a token, not a key.
pub fn is_token(value: &[u8]) -> bool {
    value.starts_with(PREFIX.as_bytes())
}

/// Reads a token and checks its signature and age.
///
/// # Errors
/// [`AuthFailure::Malformed`]: not a token. [`AuthFailure::Unknown`]: not signed by `secret`. [`AuthFailure::Expired`].
pub fn verify(secret: &SessionSecret, token: &[u8], now: Timestamp) -> Result<SessionClaim, AuthFailure> {
    let mut buffer = [0; MAX_LEN];
    let bytes = decode(token, &mut buffer).ok_or(AuthFailure::Malformed)?;
    let (expires, rest) = bytes.split_first_chunk::<EXPIRY_LEN>().ok_or(AuthFailure::Malformed)?;
    let (binding, rest) = rest.split_first_chunk::<BINDING_LEN>().ok_or(AuthFailure::Malformed)?;
    let (mac, id) = rest.split_first_chunk::<MAC_LEN>().ok_or(AuthFailure::Malformed)?;
    let expires = i64::from_be_bytes(*expires);
    if !bool::from(secret.sign(b't', expires, id, binding).ct_eq(mac)) {
        return Err(AuthFailure::Unknown);
    }
    let id = std::str::from_utf8(id).ok().filter(|id| !id.is_empty()).ok_or(AuthFailure::Malformed)?;
    if now.as_second() >= expires {
        return Err(AuthFailure::Expired);
    }
    Ok(SessionClaim { id: KeyId::new(id), expires, binding: *binding })
}

impl SessionClaim {
    /// Whether the token was issued for the key with this hash. Ask it of every hash that the entry of [`Self::id`]
    /// honours now: a token of a replaced or revoked key is bound to none of them.
    pub fn is_bound_to(&self, secret: &SessionSecret, hash: &KeyHash) -> bool {
        secret.bind(self.expires, self.id.as_str().as_bytes(), hash).ct_eq(&self.binding).into()
    }
}

/// Appends the value of the `Set-Cookie` that keeps a login. `secure`: the client speaks TLS.
pub fn write_cookie(out: &mut Vec<u8>, name: &str, token: &str, secure: bool) {
    push_cookie(out, name, token, LIFETIME_SECONDS, secure);
}

/// Appends the value of the `Set-Cookie` that clears a bad login; goes with the 401 (decision 7).
pub fn write_cleared_cookie(out: &mut Vec<u8>, name: &str, secure: bool) {
    push_cookie(out, name, "", 0, secure);
}

/// The login that an admitted request is to be answered with: its key came by a query source with `browser_login`, it is
/// a navigation, and its route (taking the sources `accepted`) takes a cookie.
///
/// `None`, too, when the clean target could be read as another site's address: `//host` and what browsers take for it.
pub fn browser_login<'a>(
    request: Request<'_>,
    sources: &'a Sources,
    accepted: Option<&[usize]>,
    found: &Found<'_>,
) -> Option<Login<'a>> {
    let via = found.presented.as_ref()?.via();
    if via != (Via::Query { browser_login: true }) || !is_navigation(request) {
        return None;
    }
    let cookie = sources.login_cookie(accepted)?;
    let mut location = Vec::with_capacity(request.target().len());
    sources.write_target(&mut location, request.path(), request.query(), found.untouched);
    let own_path = match location.as_slice() {
        [b'/', b'/' | b'\\', ..] => false,
        [b'/', rest @ ..] => rest.iter().all(|byte| byte.is_ascii_graphic()),
        _ => false,
    };
    own_path.then_some(Login { cookie, location })
}

/// Whether a request that authenticates by a cookie may be taken (decision 7). A browser sends cookies whoever made it
/// ask, so an unsafe method or an upgrade must come from the gate's own pages: with exactly one `Origin`, equal to
/// `scheme://host`. `scheme` and `host` are those that the client used; a default port may be there or not.
pub fn origin_allowed(request: Request<'_>, scheme: &str, host: &[u8]) -> bool {
    if !may_change(request) {
        return true;
    }
    let mut origins = request.fields().values("origin");
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    is_of(origin, scheme, host)
}

/// Whether a page of another host had the browser ask for a change, or for an upgrade: an `Origin` is there, and not
/// `host`'s. A browser that was once asked for HTTP Basic adds it whoever made it ask, as it does cookies; other clients
/// send it without an `Origin`. The scheme is not looked at: TLS may end at a proxy that nobody told the gate to trust.
pub fn is_foreign_page(request: Request<'_>, host: &[u8]) -> bool {
    let own = |origin: &[u8]| is_of(origin, "https", host) || is_of(origin, "http", host);
    may_change(request) && request.fields().values("origin").any(|origin| !own(origin))
}

/// Whether the method is one that may change something, or an upgrade is asked for.
fn may_change(request: Request<'_>) -> bool {
    let safe = matches!(request.method(), b"GET" | b"HEAD" | b"OPTIONS");
    !safe || request.is_websocket() || request.fields().first("upgrade").is_some()
}

/// Whether `origin` is `scheme://host`.
fn is_of(origin: &[u8], scheme: &str, host: &[u8]) -> bool {
    let Some((found, rest)) = origin.split_at_checked(scheme.len()) else { return false };
    let Some(theirs) = rest.strip_prefix(b"://") else { return false };
    let same = without_default_port(theirs, scheme).eq_ignore_ascii_case(without_default_port(host, scheme));
    found.eq_ignore_ascii_case(scheme.as_bytes()) && same && !theirs.is_empty()
}

fn without_default_port<'a>(host: &'a [u8], scheme: &str) -> &'a [u8] {
    let port: &[u8] = if scheme.eq_ignore_ascii_case("https") { b":443" } else { b":80" };
    host.strip_suffix(port).unwrap_or(host)
}

fn decode<'b>(token: &[u8], buffer: &'b mut [u8; MAX_LEN]) -> Option<&'b [u8]> {
    let encoded = token.strip_prefix(PREFIX.as_bytes())?;
    let len = URL_SAFE_NO_PAD.decode_slice(encoded, buffer).ok()?;
    buffer.get(..len)
}

fn push_cookie(out: &mut Vec<u8>, name: &str, value: &str, max_age: i64, secure: bool) {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
