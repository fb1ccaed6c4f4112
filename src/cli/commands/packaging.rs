//! `completions` and `man`: what packages of this tool install beside it.

use clap::CommandFactory;
use clap_complete::Shell;
use cvm_export::error::{Error, ErrorKind};

use super::Context;
use super::exit::Exit;
use crate::cli::Cli;

#[derive(clap::Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ManArgs {
    /// The command whose page is wanted [default: the program's own page]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(crate) fn completions(args: &CompletionsArgs, context: &Context<'_>) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cvm-export", &mut script);
    if args.shell == Shell::Bash {
        // The generator takes the hyphen of the program's name for the border of a subcommand in one
        // of two places (clap issue 6421), and the completion of every subcommand is dead.
        let text = String::from_utf8_lossy(&script).replace("cvm__subcmd__export", "cvm__export");
        script = text.into_bytes();
    }
    context.printer.write_out(&script);
    Exit::Done
}

pub(crate) fn manual(args: &ManArgs, context: &Context<'_>) -> Result<Exit, Error> {
    let mut program = Cli::command();
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                format!("there is no command `{name}` (example: `cvm-export man image`)"),
            )
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                "the manual page could not be written",
            )
            .with_source(error)
        })?;
    context.printer.write_out(&page);
    Ok(Exit::Done)
}
