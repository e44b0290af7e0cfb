//! The watcher as a pure state machine, under a clock of its own.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A watcher over a real file's stamps with an invented clock.
struct Stage {
    folder: tempfile::TempDir,
    start: Instant,
    watcher: Watcher,
    writes: u64,
}

impl Stage {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("keys.yaml"), text).expect("written");
        let start = Instant::now();
        let content = Content::of(&crate::keyring::source::read(&folder.path().join("keys.yaml")));
        Self { watcher: Watcher::new(content, start), folder, start, writes: 0 }
    }

    /// Writes with a time of its own: those of a file system may be too coarse to tell two writes apart.
    fn write(&mut self, text: &str) {
        self.writes += 1;
        let path = self.folder.path().join("keys.yaml");
        fs::write(&path, text).expect("written");
        let file = fs::File::options().append(true).open(&path).expect("opened");
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(self.writes)).expect("time set");
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn glance(&self, millis: u64) -> Glance {
        let seen = Stamp::of(&self.folder.path().join("keys.yaml")).map_err(ReadError::from);
        self.watcher.look(&seen, self.at(millis))
    }

    /// Looks, reads if told to, and says what follows: `None` is rest.
    fn look(&mut self, millis: u64) -> Option<Verdict> {
        matches!(self.glance(millis), Glance::Read).then(|| {
            let content = Content::of(&crate::keyring::source::read(&self.folder.path().join("keys.yaml")));
            self.watcher.read(content, self.at(millis))
        })
    }

    fn wait(&self, millis: u64) -> Option<Verdict> {
        Some(Verdict::Wait(self.at(millis)))
    }
}

#[test]
fn nothing_new_is_not_read_until_five_seconds_are_over() {
    let mut stage = Stage::new("a");
    assert_eq!(stage.glance(0), Glance::Rest(stage.at(200)));
    assert_eq!(stage.look(4_999), None);
    assert_eq!(stage.look(5_000), Some(Verdict::Same));
    assert_eq!(stage.look(9_999), None);
}

#[test]
fn a_change_is_taken_after_two_equal_looks() {
    let mut stage = Stage::new("a");
    stage.write("b");
    assert_eq!(stage.look(10), stage.wait(110));
    assert_eq!(stage.glance(50), Glance::Rest(stage.at(110)), "notifications do not hurry it");
    assert_eq!(stage.look(110), Some(Verdict::Take));
    assert_eq!(stage.look(200), None);
}

#[test]
fn a_change_that_moves_waits_and_one_that_never_stops_is_forced() {
    let mut stage = Stage::new("a\n...\n");
    for at in [0, 100, 200, 300, 400] {
        stage.write(&format!("b{at}\n...\n"));
        assert_eq!(stage.look(at), stage.wait(at + 100));
    }
    stage.write("b500\n...\n");
    assert_eq!(stage.look(500), Some(Verdict::Force));
    assert_eq!(stage.watcher.not_yet(stage.at(500), Duration::ZERO), stage.at(600));
    stage.write("b600\n...\n");
    assert_eq!(stage.look(600), Some(Verdict::Force));
    stage.watcher.taken();
    assert_eq!(stage.look(700), None);
    stage.write("b800\n...\n");
    assert_eq!(stage.look(800), stage.wait(900), "the time to wait begins anew");
}

#[test]
fn dear_attempts_are_made_less_often() {
    let mut stage = Stage::new("a");
    for at in [0, 100, 200, 300, 400] {
        stage.write(&format!("b{at}"));
        assert_eq!(stage.look(at), stage.wait(at + 100));
    }
    stage.write("b500");
    assert_eq!(stage.look(500), Some(Verdict::Force));
    assert_eq!(stage.watcher.not_yet(stage.at(1_500), Duration::from_secs(1)), stage.at(3_500));
    assert_eq!(stage.glance(3_499), Glance::Rest(stage.at(3_500)));
}

#[test]
fn a_file_that_still_grows_is_not_forced_unless_it_says_that_it_is_whole() {
    let mut stage = Stage::new("a");
    let mut text = String::new();
    for at in (0..1_000).step_by(100) {
        text.push_str("more\n");
        stage.write(&text);
        assert_eq!(stage.look(at), stage.wait(at + 100));
    }
    text.push_str("...\n");
    stage.write(&text);
    assert_eq!(stage.look(1_000), Some(Verdict::Force));
    stage.watcher.not_yet(stage.at(1_000), Duration::ZERO);
    stage.write("more");
    assert_eq!(stage.look(1_100), Some(Verdict::Force), "it shrank: another file");
    stage.watcher.not_yet(stage.at(1_100), Duration::ZERO);
    stage.write("more\nand more");
    assert_eq!(stage.look(5_000), Some(Verdict::Restless));
}

/// The gap in a reading must not hide that the file grew over it.
#[test]
fn a_growing_file_that_could_not_be_read_for_a_moment_is_not_forced() {
    let mut stage = Stage::new("a");
    let mut text = String::new();
    for at in (0..2_000).step_by(200) {
        text.push_str("more\n");
        stage.write(&text);
        assert_eq!(stage.look(at), stage.wait(at + 100));
        let torn = stage.watcher.read(Content::Unreadable(ReadError::Changing), stage.at(at + 100));
        assert_eq!(Some(torn), stage.wait(at + 200));
    }
}

#[test]
fn the_same_content_again_is_unchanged() {
    let mut stage = Stage::new("a");
    fs::rename(stage.folder.path().join("keys.yaml"), stage.folder.path().join("old")).expect("renamed");
    stage.write("a");
    assert_eq!(stage.look(10), Some(Verdict::Unchanged));
    assert_eq!(stage.look(20), None);
    stage.write("b");
    assert_eq!(stage.look(30), stage.wait(130));
    stage.write("a");
    assert_eq!(stage.look(130), Some(Verdict::Unchanged), "changed back before it was taken");
    assert_eq!(stage.look(140), None);
}

#[test]
fn a_missing_file_is_a_state_like_any_other() {
    let mut stage = Stage::new("a");
    fs::remove_file(stage.folder.path().join("keys.yaml")).expect("removed");
    assert_eq!(stage.look(0), stage.wait(100));
    assert_eq!(stage.look(100), Some(Verdict::Take));
    assert_eq!(stage.look(300), None, "told once");
    stage.write("a");
    assert_eq!(stage.look(400), stage.wait(500));
    assert_eq!(stage.look(500), Some(Verdict::Take));
}

#[test]
fn a_short_absence_is_no_change() {
    let mut stage = Stage::new("a");
    fs::remove_file(stage.folder.path().join("keys.yaml")).expect("removed");
    assert_eq!(stage.look(0), stage.wait(100));
    stage.write("a");
    assert_eq!(stage.look(100), Some(Verdict::Unchanged));
}

#[test]
fn rights_count_as_content() {
    let mut stage = Stage::new("a");
    let path = stage.folder.path().join("keys.yaml");
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    set(0o666);
    assert_eq!(stage.look(0), stage.wait(100));
    assert_eq!(stage.look(100), Some(Verdict::Take));
    assert_eq!(stage.look(300), Some(Verdict::Same), "read again at each look, reported once");
    set(0o600);
    assert_eq!(stage.look(400), stage.wait(500));
    assert_eq!(stage.look(500), Some(Verdict::Take));
}

#[test]
fn what_changes_while_it_is_read_is_never_taken() {
    let mut stage = Stage::new("a");
    stage.write("b");
    for at in (0..5_000).step_by(100) {
        assert!(matches!(stage.glance(at), Glance::Read));
        let verdict = stage.watcher.read(Content::Unreadable(ReadError::Changing), stage.at(at));
        assert_eq!(Some(verdict), stage.wait(at + 100));
    }
    let verdict = stage.watcher.read(Content::Unreadable(ReadError::Changing), stage.at(5_000));
    assert_eq!(verdict, Verdict::Restless, "and it is not passed over in silence");
    assert_eq!(stage.watcher.not_yet(stage.at(5_001), Duration::ZERO), stage.at(5_101));
    assert_eq!(stage.look(5_101), Some(Verdict::Restless), "one look is not enough: it may be a part");
    assert_eq!(stage.look(5_201), Some(Verdict::Take), "what holds still after all is taken");
}
