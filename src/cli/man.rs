//! `keygate completions` and `keygate man`: what a shell and a reader of manual pages need, made from the command line's
//! own description, so that it is never behind.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{FAILED, complain, out};

/// `keygate completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Prints completions for a shell.
pub(super) fn completions<C: CommandFactory>(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "keygate", &mut script);
    print(&script)
}

/// Prints the manual page.
pub(super) fn man<C: CommandFactory>() -> ExitCode {
    let mut page = Vec::new();
    match write_page(C::command(), &mut page) {
        Ok(()) => print(&page),
        Err(error) => failed(&error),
    }
}

fn write_page(mut command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    command.build();
    let man = Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    write_commands(&command, page)?;
    writeln!(page, ".SH \"EXIT STATUS\"\n0 fine, 1 it failed, 2 usage or configuration.")
}

/// A section for each command below `parent`, and those below it.
fn write_commands(parent: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
        let man = Man::new(command.clone());
        let mut section = Vec::new();
        man.render_description_section(&mut section)?;
        writeln!(section, ".PP")?;
        man.render_synopsis_section(&mut section)?;
        man.render_options_section(&mut section)?;
        // The page has these headings once; below a command they would end its section.
        let lines = section.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b".SH "));
        page.extend(lines.flatten());
        write_commands(command, page)?;
    }
    Ok(())
}

fn print(text: &[u8]) -> ExitCode {
    match out::for_reading(|out| out.write_all(text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> ExitCode {
    complain(&out::unwritten(error));
    ExitCode::from(FAILED)
}
