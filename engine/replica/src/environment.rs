//! Environment variables that are set but empty, as scripts leave them that fill in what they do not
//! have. Each counts as not set, and is told.

use crate::logging::say;
use clap::builder::{OsStr, Resettable};
use clap::{Arg, ArgMatches, Command};

/// Whether a variable is set and has no value.
pub(crate) fn is_empty(name: impl AsRef<std::ffi::OsStr>) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

fn reads_empty(arg: &Arg) -> bool {
    arg.get_env().is_some_and(is_empty)
}

/// The command line as it is without those variables.
pub(crate) fn ignore_empty(command: Command) -> Command {
    let command = command.mut_args(|arg| match reads_empty(&arg) {
        true => arg.env(Resettable::<OsStr>::Reset),
        false => arg,
    });
    command.mut_subcommands(ignore_empty)
}

/// Names those that the command would have read; all of the program if no command was understood.
pub(crate) fn tell_empty(command: &Command, matches: Option<&ArgMatches>) {
    let mut names = Vec::new();
    collect(command, matches, &mut names);
    names.sort_unstable();
    names.dedup();
    for name in names {
        say(&format!(
            "isonomy: {name} is set but empty, which counts as not set; unset it or give it a value"
        ));
    }
}

fn collect(command: &Command, matches: Option<&ArgMatches>, names: &mut Vec<String>) {
    let empty = command.get_arguments().filter(|arg| reads_empty(arg));
    names.extend(empty.filter_map(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned()));
    let chosen = matches.map(|matches| matches.subcommand());
    for inner in command.get_subcommands() {
        match chosen {
            None => collect(inner, None, names),
            Some(Some((name, matches))) if name == inner.get_name() => collect(inner, Some(matches), names),
            Some(_) => {}
        }
    }
}
