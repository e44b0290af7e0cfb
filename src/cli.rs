//! The command line: one file per command; the only room that prints.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::key;
use crate::strength::weakness;

mod check;
mod demo;
mod keys;
mod man;
mod out;
mod serve;

/// It failed, though nothing was wrong with the command line or the configuration.
const FAILED: u8 = 1;

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

/// A reverse-proxy auth gateway: API keys, identity headers and limits in front of HTTP and WebSocket services.
#[derive(Debug, Parser)]
#[command(name = "keygate", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 fine, 1 it failed, 2 usage or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate.
    Serve(serve::Args),
    /// Report every problem of a configuration and its key file.
    Check(check::Args),
    /// Run a gate with an echo service behind it, no files needed, and print commands to try.
    Demo(demo::Args),
    /// Make, list, change and revoke keys.
    Keys(keys::Args),
    /// Print completions for a shell.
    Completions(man::CompletionsArgs),
    /// Print the manual page, for `man -l -` or a file.
    Man,
}

/// Which configuration a command is about.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigFile {
    /// Configuration file [default: keygate.yaml, then /etc/keygate/keygate.yaml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    /// The file named, else the first of the usual places that exists, else the first.
    pub(crate) fn path(&self) -> PathBuf {
        let there = |place: &&str| Path::new(place).exists();
        let usual = || PLACES.iter().copied().find(there).unwrap_or(PLACES[0]);
        self.file.clone().unwrap_or_else(|| usual().into())
    }
}

const PLACES: [&str; 2] = ["keygate.yaml", "/etc/keygate/keygate.yaml"];

/// Runs the command that `arguments` ask for; the first is the program's own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version are no errors, and go to standard output, whose reader may leave early.
            let shown = if e.use_stderr() { without_keys(&e.to_string(), &words) } else { None };
            if let Some(shown) = shown {
                complain(&shown);
                return ExitCode::from(USAGE);
            }
            return match out::if_read(e.print()) {
                _ if e.use_stderr() => ExitCode::from(USAGE),
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&out::unwritten(&error));
                    ExitCode::from(FAILED)
                }
            };
        }
    };
    match arguments.command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Completions(args) => man::completions::<Arguments>(&args),
        Command::Man => man::man::<Arguments>(),
    }
}

/// An error message about the command line `words` without what looks like keys among them; `None` where it quotes none.
fn without_keys(message: &str, words: &[OsString]) -> Option<String> {
    let mut shown = message.to_owned();
    for word in words.iter().filter_map(|word| word.to_str()) {
        let value = word.split_once('=').map_or(word, |(_, value)| value);
        for secret in [word, word.trim_start_matches('-'), value].into_iter().filter(|word| looks_like_a_key(word)) {
            shown = shown.replace(secret, "…");
        }
    }
    let hint = "what stands there as … looks like a key, which is now in the shell's history: best replace it";
    (shown != message).then(|| format!("{}\n{hint}", shown.trim_end()))
}

/// Whether a word of the command line could be a secret, so that it is not shown again: logs keep what cron and services say.
fn looks_like_a_key(word: &str) -> bool {
    // Moments have as many signs as keys, and are mistyped often.
    let is_moment =
        word.get(4..5) == Some("-") && word.bytes().all(|b| b.is_ascii_digit() || b"-:.+TtZz ".contains(&b));
    !is_moment && (word.starts_with("kg_") || key::holds_own_format(word.as_bytes()) || weakness(word, &[]).is_none())
}

/// Tells the operator one thing on standard error; a closed one is nobody's to tell.
fn complain(what: &str) {
    use std::io::Write as _;
    let _closed = writeln!(io::stderr(), "keygate: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(arguments: &str) -> String {
        let arguments = arguments.split(' ').map(OsString::from);
        format!("{:?}", run(arguments))
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_key_on_the_command_line_is_not_shown_again() {
        let own = key::ApiKey::generate(None, |bytes| bytes.fill(7));
        for secret in [own.expose_secret(), "9b1f6c0de24a7358c1d0f7aa3b92e461", "Zk3vQ9xPb7LmT2Rw8NyH"] {
            for line in ["keys S", "keys list S", "keys list --unused S", "keys rotate --grace=S a", "keys list --S"] {
                let line = format!("keygate {}", line.replace('S', secret));
                let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
                let message = Arguments::try_parse_from(&words).expect_err("refused").to_string();
                assert!(message.contains(secret), "{message}");
                let shown = without_keys(&message, &words).expect("changed");
                assert!(!shown.contains(secret) && shown.contains('…'), "{shown}");
            }
        }
        for harmless in
            ["chek --config /etc/keygate/keygate.yaml", "keys create --user a --expires 2027-03-28T02:30:00"]
        {
            let words: Vec<OsString> = ["keygate"].into_iter().chain(harmless.split(' ')).map(OsString::from).collect();
            let message = Arguments::try_parse_from(&words).expect_err("refused").to_string();
            assert_eq!(without_keys(&message, &words), None);
        }
    }

    #[test]
    fn exit_status() {
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(status("keygate --version"), code(0));
        assert_eq!(status("keygate check --help"), code(0));
        assert_eq!(status("keygate"), code(USAGE));
        assert_eq!(status("keygate chek"), code(USAGE));
        assert_eq!(status("keygate check --confg x"), code(USAGE));
        assert_eq!(status("keygate check -c /nonexistent/keygate.yaml"), code(USAGE));
        assert_eq!(status("keygate check --config /nonexistent/keygate.yaml"), code(USAGE));
    }

    #[test]
    fn a_file_named_is_the_file() {
        assert_eq!(ConfigFile { file: Some("a.yaml".into()) }.path(), Path::new("a.yaml"));
    }
}
