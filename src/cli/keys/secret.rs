//! New secrets: drawn at random, each with an id that no other key has.

use std::io;

use super::{Failure, complain, print};
use crate::key::{ApiKey, KeyId};
use crate::keyring::Keyring;

/// A new key. It carries the id `kept` where there is one, else one that is not in `keyring`.
pub(super) fn draw(keyring: &Keyring, kept: Option<&KeyId>) -> Result<ApiKey, Failure> {
    loop {
        let mut failed = None;
        let key = ApiKey::generate(kept, |bytes| {
            if let Err(error) = getrandom::fill(bytes) {
                failed = Some(error);
            }
        });
        if let Some(error) = failed {
            return Err(Failure::failed(format!("the system gives no random bytes: {error}")));
        }
        if kept.is_some() || keyring.find_by_id(&key.id()).is_none() {
            return Ok(key);
        }
    }
}

/// Whether `id` is one that a key of ours can carry (decision 17).
pub(super) fn can_carry(id: &KeyId) -> bool {
    id.as_str().len() == 8 && id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Prints what holds the new secret of the key `id`, which is in force already: whoever cannot see it must learn that it is,
/// and what to do `then`.
pub(super) fn show(line: &str, id: &KeyId, then: &str) -> Result<(), Failure> {
    if let Err(mut failure) = print(line) {
        failure.lines.push(format!("key {id} is in force with a secret that nobody has seen: {then}"));
        return Err(failure);
    }
    if leads_nowhere() {
        complain("standard output is closed or /dev/null");
        complain(&format!("key {id} is in force with a secret that nobody has seen: {then}"));
    }
    Ok(())
}

/// Whether standard output is /dev/null, which also takes the place of one that was closed when the program began.
fn leads_nowhere() -> bool {
    let (Ok(out), Ok(null)) = (rustix::fs::fstat(io::stdout()), rustix::fs::stat("/dev/null")) else { return false };
    (out.st_dev, out.st_ino, out.st_rdev) == (null.st_dev, null.st_ino, null.st_rdev)
}
