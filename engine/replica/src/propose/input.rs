//! Where lines come from. Nothing is opened twice: what is no regular file can be read only once.

use super::lines::{BadLine, Line, Lines};
use std::fs::File;
use std::io::{BufReader, Read, Seek, stdin};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Lines that were read and are not under way yet.
const LINES_AHEAD_MAX: usize = 1024;
/// The bytes of all lines that were read and have no outcome yet: so many are held in memory.
pub(crate) const LINES_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(LINES_BYTES_MAX >= isonomy_wire::command::VALUE_BYTES_MAX, "each line must fit");

/// An input of lines, open.
pub(super) struct Input {
    /// For people.
    pub(super) name: String,
    source: Source,
}

enum Source {
    /// A regular file, which can be checked as a whole before.
    File(File),
    /// A pipe or anything else that can be read only once.
    Stream(Box<dyn Read + Send>),
}

/// Why an input does not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{name}: {source}; name a file of JSON lines that this user may read, or - for standard input")]
    Io { name: String, source: std::io::Error },
    #[error("{0} is a directory; name a file of JSON lines")]
    Directory(String),
}

impl Input {
    /// Opens a file, or standard input if the path is `-`.
    pub(super) fn open(path: &Path) -> Result<Input, OpenError> {
        if path == Path::new("-") {
            return Ok(Input { name: "standard input".into(), source: Source::Stream(Box::new(stdin())) });
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|source| OpenError::Io { name: name.clone(), source })?;
        if metadata.is_dir() {
            return Err(OpenError::Directory(name));
        }
        let is_file = metadata.is_file();
        let source = if is_file { Source::File(file) } else { Source::Stream(Box::new(file)) };
        Ok(Input { name, source })
    }

    /// Reads the whole input before anything is proposed, if it can be read again: how many lines it
    /// has that are not empty.
    pub(super) fn check(&mut self, field: &str) -> Result<Option<u64>, BadLine> {
        let Source::File(file) = &mut self.source else { return Ok(None) };
        let mut count = 0;
        for line in Lines::new(BufReader::new(&*file), field) {
            line?;
            count += 1;
        }
        file.rewind().map_err(BadLine::unreadable)?;
        Ok(Some(count))
    }

    /// Reads the lines on a thread of their own: a pipe may have long pauses between them.
    pub(super) fn read(self, field: &str) -> mpsc::Receiver<Result<Held, BadLine>> {
        let (sender, lines) = mpsc::channel(LINES_AHEAD_MAX);
        let field = field.to_owned();
        std::thread::spawn(move || {
            // Nobody receives any more once a line was not decided.
            let _ = match self.source {
                Source::File(file) => send(Lines::new(BufReader::new(file), &field), &sender),
                Source::Stream(stream) => send(Lines::new(BufReader::new(stream), &field), &sender),
            };
        });
        lines
    }
}

/// A line that counts against what may be held in memory for as long as this lives.
pub(super) struct Held {
    pub(super) line: Line,
    pub(super) room: OwnedSemaphorePermit,
}

/// `None` when nobody receives any more.
fn send(
    lines: impl Iterator<Item = Result<Line, BadLine>>,
    sender: &mpsc::Sender<Result<Held, BadLine>>,
) -> Option<()> {
    let room = Arc::new(Semaphore::new(LINES_BYTES_MAX));
    for line in lines {
        let held = match line {
            Ok(line) => {
                let bytes = line.value.len() as u32;
                let taken = futures_lite::future::block_on(room.clone().acquire_many_owned(bytes));
                Ok(Held { line, room: taken.expect("it is never closed") })
            }
            Err(bad) => Err(bad),
        };
        sender.blocking_send(held).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn numbers(input: Input) -> Vec<u64> {
        let mut lines = input.read("k");
        let next = || lines.blocking_recv().map(|held| held.unwrap().line.number);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_file_is_checked_and_then_read_from_its_beginning() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"{\"k\":1}\n\n{\"k\":2}").unwrap();
        let mut input = Input::open(file.path()).unwrap();
        assert_eq!(input.check("k").unwrap(), Some(2));
        assert_eq!(numbers(input), [1, 3]);
        file.write_all(b"\n[").unwrap();
        let error = Input::open(file.path()).unwrap().check("k").unwrap_err().to_string();
        assert!(error.contains("line 4") && error.contains("array"), "{error}");
    }

    #[test]
    fn a_pipe_is_read_once() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        writer.write_all(b"{\"k\":1}\n{\"k\":2}\n").unwrap();
        drop(writer);
        let mut input = Input::open(Path::new(&path)).unwrap();
        assert_eq!(input.check("k").unwrap(), None);
        assert_eq!(numbers(input), [1, 2]);
    }

    #[test]
    fn what_does_not_open_is_named() {
        let error = |path: &str| Input::open(Path::new(path)).err().unwrap().to_string();
        assert!(error("/nowhere/x").starts_with("/nowhere/x: No such file"));
        assert!(error("/").contains("/ is a directory"));
    }

    #[test]
    fn lines_wait_for_room_in_memory() {
        let value = format!("{{\"k\":1,\"v\":\"{}\"}}\n", "v".repeat(1 << 19));
        let count = 2 * LINES_BYTES_MAX / value.len();
        let text = std::io::Cursor::new(value.repeat(count));
        let mut lines = Input { name: "test".into(), source: Source::Stream(Box::new(text)) }.read("k");
        let mut held = Vec::new();
        while (held.len() + 1) * (value.len() - 1) <= LINES_BYTES_MAX {
            held.push(lines.blocking_recv().unwrap().unwrap());
        }
        // The next line comes when an earlier line has gone.
        assert!(lines.try_recv().is_err());
        let rest = std::iter::from_fn(|| {
            held.pop();
            lines.blocking_recv()
        });
        assert!(rest.count() > count / 3);
    }
}
