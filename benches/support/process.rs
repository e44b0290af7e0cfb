//! Programs that a bench starts: how they are found, pinned, awaited and ended, and the CPU time of their whole tree.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The clock ticks a second in which `/proc` counts CPU time: 100 for programs on every Linux.
const TICKS: u32 = 100;

/// A program under way; ended when dropped.
pub struct Program(Child);

/// Where a program is: in PATH, else where Debian has it, which a user's PATH may lack. `None` if it is not installed.
pub fn find(debian: &str) -> Option<PathBuf> {
    let debian = PathBuf::from(debian);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter_map(|folder| Some(folder.join(debian.file_name()?)));
    in_path.chain([debian.clone()]).find(|file| file.is_file())
}

/// A command for `program` that stays on one core (0: what is measured, 1: what loads it), where there are two.
pub fn pinned(core: usize, program: &Path) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match find("/usr/bin/taskset") {
        Some(taskset) if cores > 1 => {
            let mut command = Command::new(taskset);
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

/// A command for keygate as built for this bench, with this configuration; `KEYGATE_BIN` names another binary.
pub fn keygate(config: &Path) -> Command {
    let binary = std::env::var_os("KEYGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_keygate").into());
    let mut command = pinned(0, Path::new(&binary));
    command.arg("serve").arg("--config").arg(config);
    command
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts what `command` gives for two ports; again with others if it does not come up.
pub fn listening(folder: &Path, command: impl Fn([u16; 2]) -> (Command, Vec<u16>)) -> Option<(Program, [u16; 2])> {
    let started = (0..3).find_map(|_| {
        let ports = [free_port(), free_port()];
        let (mut command, awaited) = command(ports);
        Program::start(&mut command, &folder.join("log"), &awaited).map(|program| (program, ports))
    });
    if started.is_none() {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        println!("FAILED to start {}: {log}", folder.display());
    }
    started
}

/// A folder of that name in `folder`.
pub fn prepare(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Program {
    /// Starts it and waits until it listens on `ports`; `None` if it ended instead, as when a port was taken meanwhile.
    pub fn start(command: &mut Command, log: &Path, ports: &[u16]) -> Option<Self> {
        let log = fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut program = Self(command.spawn().unwrap());
        let give_up = Instant::now() + Duration::from_secs(60);
        while !ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            if program.0.try_wait().unwrap().is_some() || Instant::now() > give_up {
                return None;
            }
            sleep(Duration::from_millis(20));
        }
        Some(program)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// User and system time that it and its children that still run have used.
    pub fn cpu(&self) -> Duration {
        let mut tree = vec![self.id()];
        let mut all: Vec<(u32, u32, u32)> =
            fs::read_dir("/proc").unwrap().filter_map(|it| stat(&it.ok()?.path())).collect();
        all.sort_unstable();
        let mut ticks = 0;
        while let Some(id) = tree.pop() {
            tree.extend(all.iter().filter(|(_, parent, _)| *parent == id).map(|(child, ..)| *child));
            ticks += all.iter().find(|(other, ..)| *other == id).map_or(0, |(.., ticks)| *ticks);
        }
        Duration::from_secs(1) * ticks / TICKS
    }
}

/// Process id, parent and CPU ticks (proc_pid_stat(5), fields 1, 4, 14 and 15).
fn stat(process: &Path) -> Option<(u32, u32, u32)> {
    let id = process.file_name()?.to_str()?.parse().ok()?;
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some((id, number(1)?, number(11)? + number(12)?))
}

impl Drop for Program {
    fn drop(&mut self) {
        let id = Pid::from_child(&self.0);
        let _gone = kill_process(id, Signal::TERM);
        let give_up = Instant::now() + Duration::from_secs(5);
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > give_up {
                let _gone = self.0.kill();
            }
            sleep(Duration::from_millis(10));
        }
    }
}
