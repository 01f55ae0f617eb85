//! Environment variables that are set but empty, as scripts leave them that fill in what they do not have. Each
//! counts as not set, and is told.

use crate::out::say;
use clap::builder::{OsStr, Resettable};
use clap::{Arg, ArgMatches, Command};

fn reads_empty(arg: &Arg) -> bool {
    let value = arg.get_env().and_then(std::env::var_os);
    value.is_some_and(|value| value.is_empty())
}

/// The command line as it is without those variables.
pub(crate) fn ignore_empty(command: Command) -> Command {
    command.mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| match reads_empty(&arg) {
            true => arg.env(Resettable::<OsStr>::Reset),
            false => arg,
        })
    })
}

/// Names those that the command would have read; all of the program if no command was understood.
pub(crate) fn tell_empty(command: &Command, matches: Option<&ArgMatches>) {
    let chosen = matches.and_then(ArgMatches::subcommand_name);
    let commands = command.get_subcommands().filter(|it| chosen.is_none_or(|name| name == it.get_name()));
    for arg in commands.flat_map(Command::get_arguments).filter(|arg| reads_empty(arg)) {
        let name = arg.get_env().unwrap_or_default().display();
        say(format_args!(
            "warning: {name} is set but empty, which counts as not set; unset it or give it a value"
        ));
    }
}
