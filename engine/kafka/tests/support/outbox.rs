//! An outbox in memory, which gives no more batches than the test allows.

use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::publisher::Source;
use std::error::Error;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How many batches may be given, and how many were.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(usize, usize)>, Condvar)>);

impl Gate {
    /// A gate that lets so many batches pass.
    pub(crate) fn of(count: usize) -> Gate {
        let gate = Gate::default();
        gate.open(count);
        gate
    }

    /// Lets so many batches pass in all.
    pub(crate) fn open(&self, count: usize) {
        self.0.0.lock().unwrap().0 = count;
        self.0.1.notify_all();
    }

    /// How many batches have passed since the source was rewound.
    pub(crate) fn passed(&self) -> usize {
        self.0.0.lock().unwrap().1
    }
}

/// An outbox in memory.
pub(crate) struct Outbox {
    batches: Vec<Vec<u8>>,
    next: usize,
    gate: Gate,
}

impl Outbox {
    pub(crate) fn new(batches: Vec<Vec<u8>>, gate: &Gate) -> Outbox {
        Outbox { batches, next: 0, gate: gate.clone() }
    }

    pub(crate) fn open(batches: Vec<Vec<u8>>) -> Outbox {
        let gate = Gate::of(batches.len());
        Outbox::new(batches, &gate)
    }
}

type Failure = Box<dyn Error + Send + Sync>;

impl Source for Outbox {
    fn rewind(&mut self, _: &Cursor) -> Result<(), Failure> {
        self.next = 0;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        let mut gate = self.gate.0.0.lock().unwrap();
        let is_open = self.next < gate.0;
        let batch = self.batches.get(self.next).filter(|_| is_open);
        self.next += usize::from(batch.is_some());
        gate.1 = self.next;
        Ok(batch.map(|batch| &batch[..]))
    }

    fn wait(&mut self, at_most: Duration) {
        let gate = self.gate.0.0.lock().unwrap();
        let is_shut = |gate: &mut (usize, usize)| self.next >= gate.0.min(self.batches.len());
        drop(self.gate.0.1.wait_timeout_while(gate, at_most, is_shut).unwrap());
    }

    /// So that the publisher looks at the cursor before it fences anybody, too.
    fn may_lack(&self) -> bool {
        true
    }

    fn on_published(&mut self, _: &Cursor) {}
}
