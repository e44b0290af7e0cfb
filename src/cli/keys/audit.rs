//! The audit log of the key commands: one JSON line for each key that a command changed or handed out the hash of, beside the
//! key file. It says who, when and what, never a secret or a hash of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::keyring::record::Record;
use crate::keyring::write::{self, Lock};

/// What was done to one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Deed {
    /// The command.
    pub(super) action: &'static str,
    /// The key's id.
    pub(super) key: String,
    /// Its user.
    pub(super) user: String,
    /// The operator's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// What changed, in words that hold no secret, such as `roles=client`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<String>,
}

impl Deed {
    /// What `action` did to a key that is in the file.
    pub(super) fn about(action: &'static str, record: &Record, changes: Vec<String>) -> Self {
        let (key, user) = (record.id().as_str().to_owned(), record.user().to_owned());
        Self { action, key, user, name: record.name().map(str::to_owned), changes }
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    /// The user who runs the command, by name where there is one.
    by: &'a str,
    /// The user who logged in, where the system knows and it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    #[serde(flatten)]
    deed: &'a Deed,
    /// The first digits of the key file's SHA-256 before and after, as `keygate_keyfile_info` shows them. A line whose
    /// `before` is not the last line's `after` tells of an edit by hand, or of a change that was stopped midway. Nothing
    /// where nothing was to change.
    #[serde(flatten)]
    digests: Option<&'a Digests>,
}

#[derive(Serialize)]
struct Digests {
    before: String,
    after: String,
}

/// The log that belongs to the key file `target`: `keys.yaml` has `keys.yaml.audit`.
pub(super) fn path(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".audit");
    path.into()
}

/// Lines just written, for as long as they may have to go again.
pub(super) struct Noted {
    log: File,
    size: u64,
}

impl Noted {
    /// Takes the lines back, since what they tell of did not come about. In a log that the system lets only grow they stay,
    /// and the next line's `before` tells.
    pub(super) fn take_back(self) {
        let _stays = self.log.set_len(self.size);
    }
}

/// Writes down what is about to be done, before it is: a change that nobody can know of must not happen.
pub(super) fn note(target: &Path, deeds: &[Deed], before: &[u8], after: &[u8]) -> io::Result<Noted> {
    let digests = Digests { before: digest(before), after: digest(after) };
    append(target, deeds, Some(&digests))
}

/// Writes down what is about to be handed out. Under the lock: a change that fails takes back all that follows its lines.
pub(super) fn note_read(lock: &Lock, deeds: &[Deed]) -> io::Result<()> {
    append(lock.target(), deeds, None).map(|_stays| ())
}

fn append(target: &Path, deeds: &[Deed], digests: Option<&Digests>) -> io::Result<Noted> {
    let by = user_name(rustix::process::getuid().as_raw());
    let login = login_name().filter(|login| *login != by);
    let time = jiff::Timestamp::now().to_string();
    let mut text = Vec::new();
    for deed in deeds {
        let line = Line { time: &time, by: &by, login: login.as_deref(), deed, digests };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    let mut log = open(&path(target), target)?;
    let size = log.metadata()?.len();
    if !ends_with_newline(&log, size)? {
        text.insert(0, b'\n');
    }
    write::allowed(usize::try_from(size).unwrap_or(usize::MAX).saturating_add(text.len()))?;
    let written = log.write_all(&text).and_then(|()| log.sync_all());
    let noted = Noted { log, size };
    match written {
        Ok(()) => Ok(noted),
        Err(error) => {
            noted.take_back();
            Err(error)
        }
    }
}

/// Opens the log. A new one belongs to whom the key file belongs: what root did must not keep others from writing later.
///
/// Only a file in this very place will do: through a link, whoever may write in the folder could have root write to, or make
/// and give away, any file of the system. A pipe would wait for a reader.
fn open(path: &Path, target: &Path) -> io::Result<File> {
    let own = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let options = || {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(0o600).custom_flags(own);
        options
    };
    let (log, is_new) = match options().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options().open(path), false),
        made => (made, true),
    };
    let log = log.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => io::Error::other("it is a link, which is not followed"),
        _ => error,
    })?;
    if !log.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if let Ok(keys) = fs::metadata(target)
        && is_new
    {
        let _not_root = std::os::unix::fs::fchown(&log, Some(keys.uid()), Some(keys.gid()));
    }
    Ok(log)
}

/// Whether the log ends with a whole line; a killed command may have left half of one.
fn ends_with_newline(log: &File, size: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if size > 0 {
        log.read_exact_at(&mut last, size - 1)?;
    }
    Ok(last == *b"\n")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Who logged in, whatever `su` and `sudo` did since; where the system does not keep that, as in many containers, who called
/// `sudo` or `doas`. None for a service.
fn login_name() -> Option<String> {
    let known = fs::read_to_string("/proc/self/loginuid").ok().and_then(|id| id.trim().parse().ok());
    let known = known.filter(|id| *id != u32::MAX).map(user_name);
    known.or_else(|| ["SUDO_USER", "DOAS_USER"].iter().find_map(|name| std::env::var(name).ok()))
}

/// The name of a user, or the number where the system has no name for it.
fn user_name(id: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_what_and_which_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = folder.path().join("keys.yaml");
        let deed = Deed {
            action: "create",
            key: "a1".to_owned(),
            user: "alice".to_owned(),
            name: None,
            changes: vec!["roles=client".to_owned()],
        };
        note(&keys, std::slice::from_ref(&deed), b"", b"new").expect("written");
        fs::write(path(&keys), [fs::read(path(&keys)).expect("read"), b"{\"half".to_vec()].concat()).expect("written");
        note(&keys, &[deed], b"new", b"newer").expect("written");
        let text = fs::read_to_string(path(&keys)).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let first: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
        let last: serde_json::Value = serde_json::from_str(lines[2]).expect("JSON");
        assert_eq!(
            (&first["action"], &first["key"], &first["user"]),
            (&"create".into(), &"a1".into(), &"alice".into())
        );
        assert_eq!(first["changes"][0], "roles=client");
        assert!(first["by"].as_str().is_some_and(|by| !by.is_empty()) && first["time"].is_string());
        assert_eq!(first["after"], last["before"]);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(path(&keys)).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_the_log_is_not_written_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = folder.path().join("keys.yaml");
        fs::write(&keys, "").expect("written");
        let (there, made) = (folder.path().join("passwd"), folder.path().join("cron"));
        fs::write(&there, "root\n").expect("written");
        for aim in [&there, &made] {
            std::os::unix::fs::symlink(aim, path(&keys)).expect("linked");
            let error = note(&keys, &[Deed::default()], b"", b"new").err().expect("refused");
            assert!(error.to_string().contains("a link"), "{error}");
            fs::remove_file(path(&keys)).expect("removed");
        }
        assert!(!made.exists() && fs::read(&there).expect("read") == b"root\n");
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path(&keys), pipe, 0o600.into(), 0).expect("made");
        assert!(note(&keys, &[Deed::default()], b"", b"new").is_err());
    }

    #[test]
    fn lines_of_a_change_that_did_not_come_about_are_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = folder.path().join("keys.yaml");
        let deed = Deed { action: "revoke", key: "a1".to_owned(), ..Deed::default() };
        note(&keys, std::slice::from_ref(&deed), b"", b"new").expect("written");
        let before = fs::read(path(&keys)).expect("read");
        note(&keys, &[deed], b"new", b"newer").expect("written").take_back();
        assert_eq!(fs::read(path(&keys)).expect("read"), before);
    }
}
