//! Lines of JSON objects: reads them with a bound, finds their keys, and says what else was given.

use super::key::{KeyError, key_of};
use isonomy_wire::command::VALUE_BYTES_MAX;
use std::io::{BufRead, Read};

/// The value is the line, so a line has no more bytes than a value.
const LINE_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// An end of line, of either kind.
const NEWLINE_BYTES_MAX: usize = b"\r\n".len();
/// What some editors write before the first line of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How files begin that hold lines only once they are decompressed, and with what.
const COMPRESSED: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
    (b"BZh", "bzip2", "bzcat"),
    (b"PK\x03\x04", "zip", "unzip -p"),
];

/// A line that is not empty, and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    /// Counted from 1 in the input, empty ones too.
    pub(super) number: u64,
    pub(super) key: String,
    /// As it stands in the input, without its end.
    pub(super) value: Vec<u8>,
}

/// A line that cannot be proposed.
#[derive(Debug, thiserror::Error)]
#[error("line {number}: {why}")]
pub(super) struct BadLine {
    /// Counted from 1 in the input, empty ones too.
    number: u64,
    why: Why,
}

/// What is wrong with a line, and what to do.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("the line cannot be read: {0}; check the input and its disk")]
    Io(#[from] std::io::Error),
    #[error(
        "the line has more than {LINE_BYTES_MAX} bytes, and the whole line is the value; keep large data \
         elsewhere and decide their name"
    )]
    TooLong,
    #[error("the input is compressed by {0}; decompress the input: {1} FILE | isonomy propose --from - ...")]
    Compressed(&'static str, &'static str),
    #[error(
        "the input is UTF-16, not UTF-8; convert the input: iconv -f UTF-16 -t UTF-8 FILE | isonomy propose \
         --from - ..."
    )]
    Utf16,
    #[error("a byte order mark stands inside the input, as when files were joined; remove the mark")]
    ByteOrderMark,
    #[error("an array begins here, and each line must be one object; unpack the array: jq -c '.[]' FILE")]
    Array,
    #[error("an object begins here and does not end on this line; write one object per line: jq -c . FILE")]
    Broken,
    #[error(
        "the input ends in the middle of the line, so the line is still being written or was cut off; run \
         again when the line is whole, or remove the line"
    )]
    HalfWritten,
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// The lines of an input that are not empty, up to the first that cannot be proposed.
pub(super) struct Lines<R> {
    reader: R,
    field: String,
    number: u64,
    failed: bool,
}

impl BadLine {
    /// For an input that cannot be read from its beginning.
    pub(super) fn unreadable(error: std::io::Error) -> BadLine {
        BadLine { number: 1, why: error.into() }
    }
}

impl<R: BufRead> Lines<R> {
    /// `field` holds a line's key.
    pub(super) fn new(reader: R, field: &str) -> Lines<R> {
        Lines { reader, field: field.to_owned(), number: 0, failed: false }
    }

    /// The next line that is not empty.
    fn read(&mut self) -> Result<Option<Line>, Why> {
        loop {
            let Some(RawLine { mut bytes, is_ended }) = read_raw(&mut self.reader)? else { return Ok(None) };
            self.number += 1;
            if self.number == 1 {
                check_encoding(&bytes)?;
                let text = bytes.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec);
                bytes = text.unwrap_or(bytes);
            }
            if !bytes.trim_ascii().is_empty() {
                let key = self.key(&bytes, is_ended)?;
                return Ok(Some(Line { number: self.number, key, value: bytes }));
            }
        }
    }

    fn key(&self, line: &[u8], is_ended: bool) -> Result<String, Why> {
        let is_array = line.trim_ascii_start().starts_with(b"[");
        if is_array {
            return Err(Why::Array);
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(Why::TooLong);
        }
        if line.starts_with(BYTE_ORDER_MARK) {
            return Err(Why::ByteOrderMark);
        }
        match key_of(line, &self.field) {
            Err(KeyError::CutOff) if is_ended => Err(Why::Broken),
            Err(KeyError::CutOff) => Err(Why::HalfWritten),
            key => Ok(key?),
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Line, BadLine>;

    fn next(&mut self) -> Option<Result<Line, BadLine>> {
        if self.failed {
            return None;
        }
        let line = self.read().map_err(|why| BadLine { number: self.number.max(1), why });
        self.failed = line.is_err();
        line.transpose()
    }
}

/// A line as it was read. It has more bytes than a line may have if it is longer, and then not all.
struct RawLine {
    bytes: Vec<u8>,
    /// Whether a newline ends it, not the input.
    is_ended: bool,
}

/// `None` at the end of the input.
fn read_raw(reader: &mut impl BufRead) -> std::io::Result<Option<RawLine>> {
    let mut bytes = Vec::new();
    let bound = BYTE_ORDER_MARK.len() + LINE_BYTES_MAX + NEWLINE_BYTES_MAX;
    if reader.take(bound as u64).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let is_ended = bytes.pop_if(|last| *last == b'\n').is_some();
    if is_ended {
        bytes.pop_if(|last| *last == b'\r');
    }
    Ok(Some(RawLine { bytes, is_ended }))
}

/// What is no UTF-8 text shows at its beginning.
fn check_encoding(line: &[u8]) -> Result<(), Why> {
    if let Some((_, by, tool)) = COMPRESSED.iter().find(|(magic, ..)| line.starts_with(magic)) {
        return Err(Why::Compressed(by, tool));
    }
    // With a byte order mark or without: the first characters are of ASCII.
    let is_utf16 = line.starts_with(b"\xff\xfe")
        || line.starts_with(b"\xfe\xff")
        || matches!(line, [0, 1..=127, ..] | [1..=127, 0, ..]);
    if is_utf16 { Err(Why::Utf16) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn lines(input: &[u8]) -> Vec<Result<Line, BadLine>> {
        Lines::new(input, "k").collect()
    }

    /// The only line of an input that cannot be proposed, as it is told.
    fn told(input: &[u8]) -> String {
        let mut lines = lines(input);
        let last = lines.pop().expect("there is a line");
        assert!(lines.iter().all(Result::is_ok), "{lines:?}");
        last.expect_err("it cannot be proposed").to_string()
    }

    #[test]
    fn lines_keep_their_numbers_across_empty_ones_and_either_newline() {
        let input = b"{\"k\":1}\n\n{\"k\":2}\r\n  \t\r\n\r\n{\"k\":3}\n";
        let lines: Vec<Line> = lines(input).into_iter().map(Result::unwrap).collect();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3, 6]);
        assert_eq!(lines[1].value, b"{\"k\":2}");
        assert!(told(b"{\"k\":1}\r\n\r\nnonsense\n").starts_with("line 3: the line is not JSON"));
    }

    #[test]
    fn the_value_is_the_line_whatever_else_is_in_it() {
        let odd = [
            &br#" {"k": "a", "v": 1e999, "u": "\ud800", "k2": [1, 1], "v": 2} "#[..],
            b"{\"k\": \"a\", \"v\": \"\xff\", \"\xfe\": 1}",
            b"{\"\\ud800\": 1, \"k\": \"a\", \"v\": 123456789012345678901234567890}",
        ];
        for line in odd {
            let read = lines(line).pop().unwrap().unwrap();
            assert_eq!((read.key.as_str(), &read.value[..]), ("a", line));
        }
        let deep = format!("{{\"v\": {}{}, \"k\": 1}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(lines(deep.as_bytes()).pop().unwrap().unwrap().key, "1");
    }

    #[test]
    fn a_byte_order_mark_counts_at_the_beginning_only() {
        let input = b"\xef\xbb\xbf{\"k\":1}\n{\"k\":2}\n";
        assert_eq!(lines(input)[0].as_ref().unwrap().value, b"{\"k\":1}");
        assert_eq!(lines(b"\xef\xbb\xbf\n{\"k\":1}").len(), 1);
        assert_eq!(lines(b"\xef\xbb\xbf").len(), 0);
        assert!(told(b"{\"k\":1}\n\xef\xbb\xbf{\"k\":2}\n").contains("line 2: a byte order mark"));
    }

    #[test]
    fn what_is_no_line_of_text_says_how_it_becomes_one() {
        assert!(
            told(b"\x1f\x8b\x08\0\0\n")
                .contains("line 1: the input is compressed by gzip; decompress the input: zcat")
        );
        assert!(told(b"\x28\xb5\x2f\xfd\0").contains("zstdcat"));
        for text in
            [&b"\xff\xfe{\0\"\0"[..], b"\xfe\xff\0{\0\"", b"{\0\"\0", b"\0{\0\"", b"\xff\xfe{\0}\0\n\0"]
        {
            assert!(told(text).contains("line 1: the input is UTF-16"), "{text:?}");
        }
    }

    #[test]
    fn json_that_is_no_object_per_line_says_how_it_becomes_one() {
        for array in [&b"[{\"k\":1},{\"k\":2}]\n"[..], b"[\n  {\n", b"[", b" [1]", b"\n\n[\n"] {
            assert!(told(array).contains("jq -c '.[]'"), "{array:?}");
        }
        for pretty in [&b"{\n  \"k\": 1\n}\n"[..], b"{\"k\": 1,\n\"v\": 2}\n", b"{\"k\": \"a\n\"}"] {
            assert!(told(pretty).contains("line 1: an object begins here"), "{pretty:?}");
        }
        assert!(told(b"\"text\"\n").contains("the line is text, not an object"));
        assert!(told(b"17\n").contains("the line is a number, not an object"));
        assert!(told(b"null\n").contains("not an object"));
        assert!(told(b"k;v\n").contains("the line is not JSON"));
        assert!(told(b"{\"k\":1} {\"k\":2}\n").contains("more text follows"));
    }

    #[test]
    fn a_last_line_that_is_half_written_is_told_as_that() {
        let whole = br#"{"k": "a\u00e9", "v": [true, {"x": -1.5e3}]}"#;
        for length in 1..whole.len() {
            let mut input = b"{\"k\":1}\n".to_vec();
            input.extend(&whole[..length]);
            let text = told(&input);
            assert!(text.starts_with("line 2: the input ends in the middle"), "{length}: {text}");
        }
        assert_eq!(lines(whole).len(), 1, "a last line needs no newline");
    }

    #[test]
    fn a_line_has_as_many_bytes_as_a_value_may_have() {
        let line = |bytes: usize| format!("{{\"k\":1,\"v\":\"{}\"}}", "v".repeat(bytes - 14));
        for end in ["", "\n", "\r\n"] {
            let fits = line(LINE_BYTES_MAX) + end;
            assert_eq!(lines(fits.as_bytes())[0].as_ref().unwrap().value.len(), LINE_BYTES_MAX);
            let marked = [BYTE_ORDER_MARK, fits.as_bytes()].concat();
            assert_eq!(lines(&marked)[0].as_ref().unwrap().value.len(), LINE_BYTES_MAX);
            assert!(told((line(LINE_BYTES_MAX + 1) + end).as_bytes()).contains("more than 1048576 bytes"));
        }
    }

    /// Counts what is taken from an input without an end.
    struct Endless<'a>(&'a std::cell::Cell<usize>);

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'[');
            self.0.set(self.0.get() + buffer.len());
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_is_held() {
        let taken = std::cell::Cell::new(0);
        let mut lines = Lines::new(BufReader::new(Endless(&taken)), "k");
        assert!(lines.next().unwrap().unwrap_err().to_string().contains("array"));
        assert!(lines.next().is_none(), "nothing is read behind it");
        assert!(taken.get() < 2 * LINE_BYTES_MAX, "{}", taken.get());
    }
}
