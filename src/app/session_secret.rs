//! The secret that signs browser logins: a file of its own beside the state, so that logins outlive a restart (decision 7).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::Config;
use crate::credential::Source;
use crate::keyring::source;
use crate::session::SessionSecret;

/// Reads the secret, or makes one. `None` where no cookie is a credential. Without a state file, and where its folder cannot
/// be used, it lives as long as the process.
pub(super) fn load(config: &Config) -> io::Result<Option<SessionSecret>> {
    if !config.credentials.sources.iter().any(|source| matches!(source, Source::Cookie { .. })) {
        return Ok(None);
    }
    let bytes = match &config.state_path {
        Some(state) => {
            let mut path = state.clone().into_os_string();
            path.push(".session");
            match kept_in(Path::new(&path)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "browser logins will end with this process");
                    fresh()?
                }
            }
        }
        None => fresh()?,
    };
    Ok(Some(SessionSecret::new(&bytes)))
}

fn kept_in(path: &Path) -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    match source::open(path) {
        Ok(mut file) => file.read_exact(&mut bytes).map(|()| bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes = fresh()?;
            // Whole or not at all: half a secret, from a full disk, would keep every later start from working.
            let mut new = path.as_os_str().to_owned();
            new.push(".new");
            let written = write_new(Path::new(&new), &bytes).and_then(|()| fs::rename(&new, path));
            if written.is_err() {
                let _ = fs::remove_file(&new);
            }
            written.map(|()| bytes)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file of the owner's alone, in place of one that an earlier start left behind.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn fresh() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}
