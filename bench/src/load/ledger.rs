//! The answers about each key, kept so that they can be compared with each other.
//!
//! A key's decisions are numbered 1, 2, 3 and so on (its key_seq). Whatever is asked after an
//! answer was heard must be answered by a state that is no older.

use crate::options::Options;
use isonomy_wire::answer::Answer;
use isonomy_wire::id::CommandId;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::workload::{Made, Op, key_name};

/// Keys are spread over this many books, so that threads seldom wait for each other.
const BOOKS: usize = 64;
/// Contradictions that are kept in words; the others are counted.
const CONTRADICTIONS_SHOWN: usize = 10;

/// The answers that all threads of this process received.
pub(crate) struct Ledger {
    /// The highest number that was heard of each key.
    known: Vec<AtomicU64>,
    /// The books, if answers are checked.
    books: Option<Vec<Mutex<Book>>>,
    contradictions: Mutex<Contradictions>,
}

/// Answers that cannot all be true.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contradictions {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) texts: Vec<String>,
}

/// A command that was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) made: Made,
    /// The number that had been heard before.
    floor: u64,
}

impl Ledger {
    pub(crate) fn new(options: &Options) -> Ledger {
        let books = || (0..BOOKS).map(|_| Mutex::default()).collect();
        Ledger {
            known: (0..options.keys).map(|_| AtomicU64::new(0)).collect(),
            books: options.verify.then(books),
            contradictions: Mutex::default(),
        }
    }

    /// The number of a key's latest decision, as far as was heard.
    #[inline]
    pub(crate) fn known(&self, key: u32) -> u64 {
        self.known[key as usize].load(Ordering::Relaxed)
    }

    fn with_book<T>(&self, key: u32, work: impl FnOnce(&mut Book) -> T) -> Option<T> {
        let book = &self.books.as_ref()?[key as usize % BOOKS];
        Some(work(&mut book.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A command is about to be asked.
    pub(crate) fn ask(&self, made: Made) -> Asked {
        let floor = self.with_book(made.key, |book| book.ask(made.key)).unwrap_or_default();
        Asked { made, floor }
    }

    /// A command was answered, or has no answer.
    pub(crate) fn on_answer(&self, asked: &Asked, answer: Option<&Answer>) {
        if let Some(
            Answer::Committed { key_seq, .. }
            | Answer::Rejected { key_seq, .. }
            | Answer::Found { key_seq, .. },
        ) = answer
        {
            self.known[asked.made.key as usize].fetch_max(*key_seq, Ordering::Relaxed);
        }
        if let Some(Err(contradiction)) = self.with_book(asked.made.key, |book| book.on_answer(asked, answer))
        {
            let mut all = self.contradictions.lock().unwrap_or_else(PoisonError::into_inner);
            all.count += 1;
            if all.texts.len() < CONTRADICTIONS_SHOWN {
                all.texts.push(contradiction.to_string());
            }
        }
    }

    /// The contradictions that were found so far; `None` if answers are not checked.
    pub(crate) fn contradictions(&self) -> Option<Contradictions> {
        self.books.as_ref()?;
        Some(self.contradictions.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The answer about a number of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    /// The command that decided, where the answer names it.
    id: Option<CommandId>,
    /// Whether `Committed` told it, which comes once for each number, or another answer.
    committed: bool,
}

/// The answers about some of the keys.
#[derive(Debug, Default)]
struct Book {
    /// The highest number of each key, and what was told of that number.
    tops: HashMap<u32, (u64, Told)>,
    /// Keys about which something is asked.
    open: HashMap<u32, OpenKey>,
}

/// A key about which something is asked.
#[derive(Debug, Default)]
struct OpenKey {
    /// How many commands without an answer were asked above each number.
    floors: BTreeMap<u64, u32>,
    /// Numbers above the lowest of these.
    told: BTreeMap<u64, Told>,
}

impl Book {
    fn ask(&mut self, key: u32) -> u64 {
        let floor = self.tops.get(&key).map_or(0, |top| top.0);
        *self.open.entry(key).or_default().floors.entry(floor).or_default() += 1;
        floor
    }

    fn on_answer(&mut self, asked: &Asked, answer: Option<&Answer>) -> Result<(), Contradiction> {
        let key = asked.made.key;
        let result = answer.map_or(Ok(()), |answer| self.check(asked, answer));
        let open = self.open.get_mut(&key).expect("it was asked");
        let count = open.floors.get_mut(&asked.floor).expect("it was asked above this number");
        *count -= 1;
        if *count == 0 {
            open.floors.remove(&asked.floor);
        }
        // A command that was asked above a number does not depend on the answers up to that number.
        match open.floors.first_key_value() {
            None => drop(self.open.remove(&key)),
            Some((lowest, _)) => {
                while open.told.first_key_value().is_some_and(|(number, _)| number <= lowest) {
                    open.told.pop_first();
                }
            }
        }
        result
    }

    fn check(&mut self, asked: &Asked, answer: &Answer) -> Result<(), Contradiction> {
        let Asked { made: Made { key, op }, floor } = *asked;
        let wrong = |number, why: String| Contradiction { key, number, answer: say(answer), why };
        let (number, told) = match (op, answer) {
            (Op::DecideIf { expected }, Answer::Committed { key_seq, .. }) if *key_seq != expected + 1 => {
                return Err(wrong(*key_seq, format!("to a DecideIf that expected key_seq {expected}")));
            }
            (Op::Decide | Op::DecideIf { .. }, Answer::Committed { id, key_seq }) => {
                if *key_seq <= floor {
                    return Err(wrong(*key_seq, self.before(key, floor)));
                }
                (*key_seq, Told { id: Some(*id), committed: true })
            }
            (Op::DecideIf { expected }, Answer::Rejected { key_seq, .. }) if *key_seq == expected => {
                return Err(wrong(*key_seq, "to a DecideIf that expected exactly this key_seq".into()));
            }
            (Op::DecideIf { .. }, Answer::Rejected { key_seq, .. }) => {
                (*key_seq, Told { id: None, committed: false })
            }
            (Op::Read, Answer::Found { key_seq, id, .. }) => {
                (*key_seq, Told { id: Some(*id), committed: false })
            }
            (Op::Read, Answer::Missing) => (0, Told { id: None, committed: false }),
            // These are errors, and counted as such.
            (_, Answer::Duplicate | Answer::Expired | Answer::Early | Answer::Ended { .. }) => return Ok(()),
            (op, _) => return Err(wrong(0, format!("to a {op:?}"))),
        };
        if number < floor {
            return Err(wrong(number, self.before(key, floor)));
        }
        self.tell(key, number, told).map_err(|earlier| wrong(number, format!("after {earlier}")))
    }

    /// Notes what was told of a number. The error says what contradicts it.
    fn tell(&mut self, key: u32, number: u64, told: Told) -> Result<(), String> {
        if number == 0 {
            return Ok(());
        }
        let top = self.tops.get(&key).filter(|top| top.0 == number).map(|top| top.1);
        let open = self.open.get_mut(&key).expect("it was asked");
        if let Some(earlier) = open.told.get(&number).copied().or(top) {
            let other_id = earlier.id.zip(told.id).is_some_and(|(a, b)| a != b);
            if other_id || (earlier.committed && told.committed) {
                return Err(earlier.say(number));
            }
        }
        let merge = |earlier: &mut Told| {
            earlier.id = earlier.id.or(told.id);
            earlier.committed |= told.committed;
        };
        open.told.entry(number).and_modify(merge).or_insert(told);
        let top = self.tops.entry(key).or_insert((number, told));
        if number > top.0 {
            *top = (number, told);
        } else if number == top.0 {
            merge(&mut top.1);
        }
        Ok(())
    }

    /// What had been answered before a command was asked above `floor`.
    fn before(&self, key: u32, floor: u64) -> String {
        let top = self.tops.get(&key).filter(|top| top.0 == floor);
        let told = top.map_or(Told { id: None, committed: false }, |top| top.1);
        format!("after {} before this command was sent", told.say(floor))
    }
}

impl Told {
    fn say(&self, number: u64) -> String {
        let id = self.id.map_or("an unnamed command".to_owned(), |id| format!("command {id}"));
        format!("key_seq {number} by {id} had been answered")
    }
}

fn say(answer: &Answer) -> String {
    match answer {
        Answer::Committed { id, key_seq } => format!("Committed, key_seq {key_seq}, command {id}"),
        Answer::Found { id, key_seq, .. } => format!("Found, key_seq {key_seq}, command {id}"),
        Answer::Rejected { key_seq, .. } => format!("Rejected, key_seq {key_seq}"),
        other => format!("{other:?}"),
    }
}

/// An answer that cannot be true, and why.
#[derive(Debug)]
struct Contradiction {
    key: u32,
    number: u64,
    answer: String,
    why: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contradiction { key, number, answer, why } = self;
        write!(f, "key {}, key_seq {number}: answered `{answer}` {why}", key_name(*key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::parsed;
    use bytes::Bytes;
    use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};

    const KEY: u32 = 5;

    fn id(seq: u64) -> CommandId {
        let instance = InstanceId::new(ReplicaId(0), seq);
        CommandId { epoch: Epoch(1), shard: ShardId(0), instance, index: 0 }
    }

    fn committed(key_seq: u64, by: u64) -> Answer {
        Answer::Committed { id: id(by), key_seq }
    }

    fn found(key_seq: u64, by: u64) -> Answer {
        Answer::Found { key_seq, value: Bytes::new(), id: id(by) }
    }

    fn rejected(key_seq: u64) -> Answer {
        Answer::Rejected { key_seq, value: None }
    }

    fn ledger() -> Ledger {
        Ledger::new(&parsed("--verify --keys 10"))
    }

    fn ask(ledger: &Ledger, op: Op) -> Asked {
        ledger.ask(Made { key: KEY, op })
    }

    /// Asks and answers one command after the other. Returns what was found.
    fn one_by_one(answers: &[(Op, Answer)]) -> Contradictions {
        let ledger = ledger();
        for (op, answer) in answers {
            let asked = ask(&ledger, *op);
            ledger.on_answer(&asked, Some(answer));
        }
        ledger.contradictions().unwrap()
    }

    fn assert_wrong(answers: &[(Op, Answer)], words: &[&str]) {
        let found = one_by_one(answers);
        assert_eq!(found.count, 1, "{answers:?}");
        let text = &found.texts[0];
        assert!(text.contains("key decision00000005"), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{text}: {word}"));
    }

    #[test]
    fn what_happens_in_a_good_cluster_is_no_contradiction() {
        let if_at = |expected| Op::DecideIf { expected };
        let answers = [
            (Op::Read, Answer::Missing),
            (Op::Decide, committed(1, 1)),
            (Op::Read, found(1, 1)),
            (if_at(1), committed(2, 4)),
            (if_at(1), rejected(2)),
            (Op::Decide, committed(7, 9)),
            (Op::Read, found(9, 20)),
            (if_at(9), committed(10, 21)),
            (Op::Read, Answer::Expired),
        ];
        assert_eq!(one_by_one(&answers).count, 0);
    }

    #[test]
    fn sequential_decisions_have_ascending_numbers() {
        let text = ["key_seq 3", "command 1.0.0.2.0", "command 1.0.0.1.0"];
        assert_wrong(&[(Op::Decide, committed(3, 1)), (Op::Decide, committed(3, 2))], &text);
        assert_wrong(&[(Op::Decide, committed(3, 1)), (Op::Decide, committed(2, 2))], &["key_seq 2"]);
        // Rows begin anew in each epoch, and their commands are others.
        let next = CommandId { epoch: Epoch(2), ..id(1) };
        let again = Answer::Found { key_seq: 3, value: Bytes::new(), id: next };
        assert_wrong(&[(Op::Decide, committed(3, 1)), (Op::Read, again)], &["command 2.0.0.1.0"]);
    }

    #[test]
    fn no_number_comes_twice_even_to_commands_that_overlap() {
        let ledger = ledger();
        let asked = [(); 3].map(|()| ask(&ledger, Op::Decide));
        for (asked, answer) in asked.iter().zip([committed(4, 1), committed(6, 2), committed(4, 3)]) {
            ledger.on_answer(asked, Some(&answer));
        }
        let found = ledger.contradictions().unwrap();
        assert_eq!(found.count, 1);
        let text = &found.texts[0];
        assert!(text.contains("key_seq 4, command 1.0.0.3.0"), "{text}");
        assert!(text.contains("key_seq 4 by command 1.0.0.1.0 had been answered"), "{text}");
    }

    #[test]
    fn overlapping_decisions_may_be_answered_in_any_order() {
        let ledger = ledger();
        let asked = [(); 3].map(|()| ask(&ledger, Op::Decide));
        for (asked, answer) in asked.iter().zip([committed(3, 1), committed(1, 2), committed(2, 3)]) {
            ledger.on_answer(asked, Some(&answer));
        }
        assert_eq!(ledger.contradictions().unwrap().count, 0);
        assert_eq!(ledger.known(KEY), 3);
    }

    #[test]
    fn a_decide_if_commits_exactly_when_its_expectation_holds() {
        let if_at = |expected| Op::DecideIf { expected };
        assert_wrong(&[(if_at(3), committed(5, 1))], &["key_seq 5", "expected key_seq 3"]);
        assert_wrong(&[(if_at(3), rejected(3))], &["key_seq 3", "expected exactly this"]);
        assert_wrong(&[(Op::Decide, committed(5, 1)), (if_at(3), rejected(4))], &["key_seq 4", "key_seq 5"]);
    }

    #[test]
    fn reads_see_what_was_answered_before() {
        assert_wrong(&[(Op::Decide, committed(5, 1)), (Op::Read, found(4, 9))], &["key_seq 4", "key_seq 5"]);
        assert_wrong(
            &[(Op::Decide, committed(5, 1)), (Op::Read, Answer::Missing)],
            &["Missing", "key_seq 5"],
        );
        assert_wrong(&[(Op::Decide, committed(5, 1)), (Op::Read, found(5, 2))], &["command 1.0.0.1.0"]);
        assert_wrong(&[(Op::Read, committed(5, 1))], &["Read"]);
    }

    #[test]
    fn nothing_is_kept_of_keys_about_which_nothing_is_asked_but_the_last_number() {
        let ledger = ledger();
        let (first, second) = (ask(&ledger, Op::Decide), ask(&ledger, Op::Decide));
        ledger.on_answer(&first, Some(&committed(2, 1)));
        ledger.on_answer(&second, None);
        let kept = ledger.with_book(KEY, |book| (book.open.len(), book.tops.len())).unwrap();
        assert_eq!(kept, (0, 1));
    }
}
