//! The commands as an operator runs them: `check`, `serve` that cannot start, and what `demo` prints, pasted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::gateway::{Gateway, run, write_private};
use crate::support::origin::Origin;
use crate::support::{KEYS, config};

/// A folder with this configuration and the usual keys.
fn folder(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keygate.yaml"), config).unwrap();
    write_private(&dir.path().join("keys.yaml"), KEYS);
    dir
}

#[test]
fn check_says_all_that_is_wrong_and_where() {
    let origin = Origin::ok();
    let good = folder(&config(&origin));
    let (status, out, err) = run(good.path(), &["check"]);
    assert_eq!((status, out.as_str()), (0, "ok: 1 listener, 1 route, 1 upstream, 9 credential sources\n"), "{err}");
    let (status, out, _) = run(good.path(), &["check", "--print"]);
    assert!(status == 0 && out.contains("body_min_rate: 256B"), "{out}");
    // What is printed is a configuration itself.
    let printed = folder(&out);
    assert_eq!(run(printed.path(), &["check", "--config", "keygate.yaml"]).0, 0);

    let bad = folder(&config(&origin).replace("upstream: app", "upstream: ap").replace("format: json", "format: yes"));
    let (status, out, err) = run(bad.path(), &["check"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        err.contains("keygate.yaml:18: routes[0].upstream: `ap` is not one of `upstreams`; did you mean `app`?"),
        "{err}"
    );
    assert!(err.contains("keygate.yaml:19: log.format: ") && err.contains("2 problems"), "{err}");
    fs::write(good.path().join("keys.yaml"), "version: 1\nkeys:\n  - { id: x }\n").unwrap();
    let (status, _, err) = run(good.path(), &["check"]);
    assert!(status == 2 && err.contains("keys.yaml:3: "), "{err}");
    // `serve` tells of a key file in the same words.
    let (status, _, told) = run(good.path(), &["serve"]);
    let about_keys = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("keys.yaml:3: ")).map(str::to_owned).collect()
    };
    assert_eq!((status, about_keys(&told)), (2, about_keys(&err)), "{err}{told}");
    // A file that is not there has no first line.
    let (status, _, err) = run(good.path(), &["check", "-c", "nowhere.yaml"]);
    assert!(status == 2 && err.starts_with("nowhere.yaml: cannot be read (no such file); `--config FILE` "), "{err}");
    fs::remove_file(good.path().join("keys.yaml")).unwrap();
    let (_, _, err) = run(good.path(), &["check"]);
    assert!(
        err.contains(
            "keys.yaml: the key file is refused: there is no such file; `keygate keys create --user NAME` makes it"
        ),
        "{err}"
    );
    assert_eq!(run(good.path(), &["chek"]).0, 2);
}

#[test]
fn the_examples_pass() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&config).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = fs::read_to_string(&path).unwrap();
            write_private(&dir.path().join(path.file_name().unwrap()), &text);
        }
    }
    let (status, out, err) = run(dir.path(), &["check", "-c", "minimal.yaml"]);
    assert!(status == 0 && out.starts_with("ok: "), "{err}");
    // The full one names certificates that its own comment makes.
    let full = fs::read_to_string(dir.path().join("full.yaml")).unwrap();
    let made: Vec<&str> = full.lines().skip_while(|line| !line.contains("mkdir -p certs")).take(4).collect();
    let made: Vec<&str> = made.iter().map(|line| line.trim_start_matches(['#', ' '])).collect();
    let script = Command::new("sh").arg("-ec").arg(made.join("\n")).current_dir(dir.path()).output().unwrap();
    assert!(script.status.success(), "{made:?}: {script:?}");
    let (status, out, err) = run(dir.path(), &["check", "-c", "full.yaml"]);
    assert!(status == 0 && out.starts_with("ok: 2 listeners, 4 routes, 2 upstreams, "), "{out}{err}");
}

#[test]
fn serve_that_cannot_start_says_why() {
    let origin = Origin::ok();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let rows = [
        (config(&origin).replacen("127.0.0.1:0", &address, 1), 1, format!("listen {address}: Address already in use")),
        (config(&origin).replacen("127.0.0.1:0", &address, 1), 1, "; something listens there already, `ss".to_owned()),
        (config(&origin).replacen("127.0.0.1:0", "192.0.2.1:9", 1), 1, "; this machine has no such address".to_owned()),
        (config(&origin).replacen("127.0.0.1:0", "unix:/nonexistent/s", 1), 1, "; its folder must be there".to_owned()),
        (
            config(&origin).replacen("127.0.0.1:0", "unix:keys.yaml", 1),
            1,
            "; it is served already, or is no".to_owned(),
        ),
        (
            config(&origin).replace("admin: { address: \"127.0.0.1:0\"", &format!("admin: {{ address: \"{address}\"")),
            1,
            format!("admin.address {address}: Address already in use"),
        ),
        (config(&origin).replace("upstream: app", "upstream: ap"), 2, "did you mean `app`?".to_owned()),
        (config(&origin).replace("keys.yaml", "nowhere.yaml"), 2, "nowhere.yaml".to_owned()),
        (config(&origin).replace("access: stdout", "access: /nonexistent/log"), 1, "/nonexistent/log".to_owned()),
    ];
    for (text, want, says) in rows {
        let (status, _, err) = run(folder(&text).path(), &["serve"]);
        assert_eq!(status, want, "{says}: {err}");
        assert!(err.contains(&says), "{says}: {err}");
    }
    // An address of another gate, whose sockets are shared among its workers, is taken too.
    let gate = Gateway::start(&config(&origin));
    let (status, _, err) = run(folder(&config(&origin).replacen("127.0.0.1:0", gate.address(0), 1)).path(), &["serve"]);
    assert!(status == 1 && err.contains("Address already in use"), "{err}");
}

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_the_demo_prints_works_when_pasted() {
    if !Path::new("/usr/bin/curl").exists() {
        println!("SKIPPED: curl is not installed");
        return;
    }
    let mut demo = Command::new(env!("CARGO_BIN_EXE_keygate"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = demo.stdout.take().unwrap();
    let mut demo = Running(demo);
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let guide: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")).collect();
    // What comes after are access lines; somebody must read them.
    let reader = std::thread::spawn(move || lines.count());
    let text = guide.join("\n");
    // The README's own commands take these; a reader pastes them first.
    let variables = text.lines().find(|line| line.starts_with("  KEY=kg_")).unwrap();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, quick_start) = readme.split_once("\n## Quick start\n").unwrap();
    let quick_start = quick_start.lines().take_while(|line| !line.starts_with("## "));
    let pasted: Vec<&str> = quick_start.filter_map(|line| line.strip_prefix("$ ")).collect();
    let shell = Command::new("sh").args(["-c", &format!("{variables}\n{}", pasted.join("\n"))]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shell.stdout), "401\n200\n200\n200\n200\n429\n", "{pasted:?}");

    let blocks: Vec<(&str, &str)> = text.split("\n  # ").skip(1).filter_map(|block| block.split_once('\n')).collect();
    let mut tried = 0;
    for (what, commands) in blocks {
        let shell = Command::new("sh").arg("-c").arg(commands).output().unwrap();
        let said = String::from_utf8_lossy(&shell.stdout).into_owned();
        let want = match what.split([':', ' ']).next().unwrap() {
            "401" => "HTTP/1.1 401 ",
            "200" => "HTTP/1.1 200 ",
            // Part of the ten seconds' allowance is spent.
            "429" => "\n429\n",
            "a" => "HTTP/1.1 101 ",
            "the" => "\nHTTP/2 200 ",
            "what" => "keygate_requests_total{",
            other => panic!("no test for the demo's `{other}`"),
        };
        assert!(format!("\n{said}").contains(want), "{what}\n{commands}\n{said}");
        tried += 1;
    }
    assert_eq!(tried, 6, "{text}");
    let interrupted = Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let ended = crate::support::eventually("the demo ends", || demo.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(reader.join().unwrap() > 0, "access lines are shown");
}

#[test]
fn the_log_is_for_machines_or_people() {
    let origin = Origin::ok();
    let text = config(&origin).replace("format: json", "format: text").replace("access: stdout", "access: access.log");
    let dir = folder(&text);
    let mut gate = Command::new(env!("CARGO_BIN_EXE_keygate"))
        .arg("serve")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = gate.stderr.take().unwrap();
    let _gate = Running(gate);
    let lines: Vec<String> =
        BufReader::new(log).lines().map_while(Result::ok).take_while(|l| !l.contains("ready")).collect();
    let listening = lines.iter().find(|line| line.contains(": listening ")).unwrap();
    assert!(!listening.starts_with('{') && listening.contains("INFO"), "{listening}");
    let address = listening.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(crate::support::client::get(address, "/v1", &[]).status, 401);
    let line = crate::support::eventually("an access line", || {
        fs::read_to_string(dir.path().join("access.log")).ok().filter(|text| text.ends_with('\n'))
    });
    assert!(!line.starts_with('{') && line.contains("/v1") && line.contains("401"), "{line}");
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    if !Path::new("/usr/bin/script").exists() {
        println!("SKIPPED: script is not installed");
        return;
    }
    let origin = Origin::ok();
    // The error comes after the first lines of the log, and ends it.
    let dir =
        folder(&config(&origin).replacen("127.0.0.1:0", "192.0.2.1:9", 1).replace("format: json", "format: text"));
    let command = format!("{} serve", env!("CARGO_BIN_EXE_keygate"));
    for (no_color, coloured) in [("", true), ("1", false)] {
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &command, "/dev/null"]).current_dir(dir.path()).env("NO_COLOR", no_color);
        let shown = terminal.stdin(Stdio::null()).output().unwrap().stdout;
        let shown = String::from_utf8_lossy(&shown);
        assert!(shown.contains("key file loaded"), "{shown}");
        assert_eq!(shown.contains('\x1b'), coloured, "NO_COLOR={no_color}: {shown}");
    }
}
