//! The places to which results go. A place that cannot be written is an ordinary error, which is found before a run
//! where possible, and no error keeps the figures from the other places.

use anyhow::{Context, Error, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::{Path, PathBuf};

/// The reader of standard output has left. It has what it wanted, so nothing is said to it.
#[derive(Debug, thiserror::Error)]
#[error("the reader of standard output has left")]
pub(crate) struct ReaderLeft;

/// Prints a result on standard output.
pub(crate) fn print(text: impl Display) -> Result<()> {
    let mut out = stdout().lock();
    // Bytes that stay in a buffer would be lost without a word.
    let printed = out.write_all(text.to_string().as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => ReaderLeft.into(),
        _ => Error::new(error)
            .context("the result cannot be written to standard output; write the result to another place"),
    })
}

/// Says something on standard error.
pub(crate) fn say(text: impl Display) {
    // There is no other place to say that this one is broken.
    let _ = writeln!(stderr(), "{text}");
}

/// A file for a result, open since before the run.
#[derive(Debug)]
pub(crate) struct ResultFile {
    file: File,
    path: PathBuf,
    option: &'static str,
    /// Whether the result replaces what the file held before.
    replaces: bool,
}

impl ResultFile {
    /// A file whose content the result replaces.
    pub(crate) fn replace(path: Option<&Path>, option: &'static str) -> Result<Option<ResultFile>> {
        ResultFile::open(path, option, true)
    }

    /// A file that gets one more line.
    pub(crate) fn append(path: Option<&Path>) -> Result<Option<ResultFile>> {
        ResultFile::open(path, "--append", false)
    }

    fn open(path: Option<&Path>, option: &'static str, replaces: bool) -> Result<Option<ResultFile>> {
        let Some(path) = path else { return Ok(None) };
        let file = File::options().create(true).write(true).append(!replaces).truncate(false).open(path);
        let file = file.with_context(|| cannot_write(path, option))?;
        Ok(Some(ResultFile { file, path: path.into(), option, replaces }))
    }

    /// Writes the result.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut write = || {
            // Pipes and devices have no length.
            if self.replaces && self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.file.write_all(bytes)
        };
        write().with_context(|| cannot_write(&self.path, self.option))
    }
}

fn cannot_write(path: &Path, option: &str) -> String {
    format!("the result cannot be written to {}; choose another {option}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_replaces_what_was_there_only_when_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result");
        std::fs::write(&path, "an older and longer result\n").unwrap();
        let mut file = ResultFile::replace(Some(&path), "--html").unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 27);
        file.write(b"newer\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "newer\n");
        ResultFile::append(Some(&path)).unwrap().unwrap().write(b"more\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "newer\nmore\n");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_known_before() {
        let error = ResultFile::replace(Some(Path::new("/nowhere/x")), "--hgrm").unwrap_err();
        assert!(format!("{error:#}").contains("choose another --hgrm"), "{error:#}");
        let mut full = ResultFile::replace(Some(Path::new("/dev/full")), "--hgrm").unwrap().unwrap();
        assert!(format!("{:#}", full.write(b"x").unwrap_err()).contains("/dev/full"));
    }
}
