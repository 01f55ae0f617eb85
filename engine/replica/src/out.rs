//! The results of commands. The reader of a pipe can leave and a disk can fill up: what standard output
//! does not take is an ordinary error.

use crate::fatal::{Fatal, Reason};
use isonomy_tuning::file_size;
use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, Write, stdout};

/// Prints a result and a newline on standard output.
pub(crate) fn print(result: impl Display) -> Result<(), Fatal> {
    let mut text = String::new();
    writeln!(text, "{result}").expect("writing to memory cannot fail");
    print_bytes(text.as_bytes())
}

/// Writes exactly these bytes to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Fatal> {
    let mut out = stdout().lock();
    // What stays in a buffer would be lost without a word.
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| failed(&error))
}

/// A reader that left has what it wanted, so nothing is said to it.
fn failed(error: &std::io::Error) -> Fatal {
    match error.kind() {
        ErrorKind::BrokenPipe => Fatal::quiet(Reason::Failed),
        _ => {
            let remedy =
                file_size::remedy(error).unwrap_or_else(|| "write the result to another place".to_owned());
            let text = format!("the result cannot be written to standard output: {error}; {remedy}");
            Fatal::new(Reason::Failed, text)
        }
    }
}
