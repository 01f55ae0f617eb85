//! The environment variables that a program reads. A variable that is set but empty, as scripts leave those for which
//! they have no value, counts as not set.

use clap::builder::{OsStr, Resettable};
use clap::{Arg, ArgMatches, Command};
use std::os::unix::ffi::OsStrExt;
use std::process;

/// Whether a variable is set and has no value.
pub fn is_empty(name: impl AsRef<std::ffi::OsStr>) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

fn reads_empty(arg: &Arg) -> bool {
    arg.get_env().is_some_and(is_empty)
}

/// The command line, in which the empty variables are no longer read.
pub fn ignore_empty(command: Command) -> Command {
    let command = command.mut_args(|arg| match reads_empty(&arg) {
        true => arg.env(Resettable::<OsStr>::Reset),
        false => arg,
    });
    command.mut_subcommands(ignore_empty)
}

/// The names of the empty variables that the command would have read; those of all commands if none was understood.
pub fn empty_names(command: &Command, matches: Option<&ArgMatches>) -> Vec<String> {
    let mut names = Vec::new();
    collect(command, matches, &mut names);
    names.sort_unstable();
    names.dedup();
    names
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

/// Keeps the variables whose names begin with `prefix` from a process that is started, since the user set them for
/// another one.
pub fn withhold(command: &mut process::Command, prefix: &str) {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.as_bytes().starts_with(prefix.as_bytes())) {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_begin_so_are_withheld_and_no_others() {
        let mut command = process::Command::new("true");
        withhold(&mut command, "PAT");
        let withheld: Vec<_> = command.get_envs().collect();
        assert!(withheld.contains(&("PATH".as_ref(), None)), "{withheld:?}");
        assert!(withheld.iter().all(|(name, _)| name.as_bytes().starts_with(b"PAT")), "{withheld:?}");
    }
}
