//! What clients asked of one key and what they were told. Times are nanoseconds since an origin.

/// What a command asks of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Decide,
    /// With the key_seq that it expects.
    DecideIf(u64),
    Read,
    Delete,
}

impl Asked {
    pub(crate) fn writes(self) -> bool {
        matches!(self, Asked::Decide | Asked::DecideIf(_))
    }
}

/// What its client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// It decided, as the decision of this number in the key's life.
    Wrote(u64),
    /// It changed nothing and saw this many decisions, and the token of the last. A rejection may
    /// come without the token.
    Saw(u64, Option<u64>),
    /// It ended a life of so many decisions.
    Deleted(u64),
    /// It certainly had no effect.
    Nothing,
    /// It may have had one, and may still have it.
    Unknown,
}

impl Told {
    /// How many decisions its client knows of.
    pub(crate) fn seq(self) -> Option<u64> {
        match self {
            Told::Wrote(seq) | Told::Saw(seq, _) | Told::Deleted(seq) => Some(seq),
            Told::Nothing | Told::Unknown => None,
        }
    }
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    /// What it writes; unique.
    pub(crate) token: u64,
    pub(crate) asked: Asked,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) told: Told,
}

impl Op {
    pub(crate) fn may_have_written(&self) -> bool {
        self.asked.writes() && matches!(self.told, Told::Wrote(_) | Told::Unknown)
    }
}

/// How many times a value repeats its token: values differ in length, and some are so long that a log is full
/// of them in seconds.
fn repeats(token: u64) -> usize {
    match token % 8 {
        0 => 1 + token as usize / 8 % 256,
        4 => 1024 * (1 + token as usize / 8 % 8),
        _ => 1,
    }
}

/// The value that a command with this token writes.
pub(crate) fn value_of(token: u64) -> Vec<u8> {
    token.to_le_bytes().repeat(repeats(token))
}

/// No command has this token.
pub(crate) const GARBLED: u64 = u64::MAX;

/// The token whose value this is; [`GARBLED`] if nobody can have written it.
pub(crate) fn token_of(value: &[u8]) -> u64 {
    let first = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    first.filter(|token| value == value_of(*token)).unwrap_or(GARBLED)
}
