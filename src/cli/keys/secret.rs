//! New secrets: drawn at random, each with an id that no other key has.

use super::Failure;
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
