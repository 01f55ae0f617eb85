//! A model of the outboxes (section 6c), and of publishers that take turns.
//!
//! What a node has told lies in its outbox, on its disk. A publication is what all publishers of an epoch have published
//! together. It is held against the law: every decision once, those of a key in their order, and the outcome of an
//! instance is the same wherever and however often it is told.

use isonomy_protocol::contract::Executed;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{ClusterId, Epoch, InstanceId, ShardId};
use isonomy_wire::published::{Decision, Effect, Origin, PublishedBatch, PublishedBuilder};
use std::collections::BTreeMap;

/// A batch that was told, as it would be published.
#[derive(Clone, Debug)]
struct Batch {
    id: InstanceId,
    /// Empty if it has decided nothing.
    bytes: Vec<u8>,
    has_more: bool,
}

/// What was told between two barriers.
#[derive(Clone, Debug)]
struct Segment {
    frontier: Frontier,
    has_gap: bool,
    batches: Vec<Batch>,
}

/// What a node has told in its epoch, by the barriers.
#[derive(Clone, Debug, Default)]
pub struct Outbox(BTreeMap<u64, Segment>);

impl Outbox {
    /// The log is read without a snapshot of the epoch.
    pub fn begin(&mut self, epoch: Epoch) {
        self.0.clear();
        if epoch == Epoch(1) {
            self.open(0, Frontier::NONE, false);
        }
    }

    fn open(&mut self, barrier: u64, frontier: Frontier, has_gap: bool) {
        self.0.insert(barrier, Segment { frontier, has_gap, batches: Vec::new() });
    }

    /// Takes what was told.
    pub fn take(&mut self, epoch: Epoch, executed: Executed) {
        match executed {
            Executed::State { barrier, frontier } => {
                let has_gap = self.0.get(&barrier).is_none_or(|segment| segment.has_gap);
                self.0.split_off(&barrier);
                self.open(barrier, frontier, has_gap);
            }
            Executed::Barrier { barrier, frontier, .. } => {
                let last = self.0.last_key_value().map(|(last, _)| *last);
                assert!(last.is_none_or(|last| last + 1 == barrier), "P2: barrier {barrier} behind {last:?}");
                self.open(barrier, frontier, false);
            }
            Executed::Batch { id, payload, responses, has_more } => {
                let (cluster, shard) = (ClusterId::default(), ShardId(0));
                let origin = Origin { cluster, shard, epoch, instance: id, has_more: false };
                let mut builder = PublishedBuilder::default();
                let batch = payload.batch();
                for (part, response) in responses {
                    let pushed = builder.push_part(&origin, batch, &batch.parts()[part], response);
                    pushed.expect("a core's response decodes");
                }
                let bytes = builder.finish(&origin).unwrap_or_default().to_vec();
                let segment =
                    self.0.last_entry().expect("P2: something is told before it is told from where");
                segment.into_mut().batches.push(Batch { id, bytes, has_more });
            }
        }
    }

    /// The machine loses what nobody has waited for.
    pub fn lose_tail(&mut self) {
        if let Some(mut last) = self.0.last_entry() {
            let half = last.get().batches.len() / 2;
            last.get_mut().batches.truncate(half);
        }
    }

    /// Whether a part of what was executed before is missing.
    pub fn has_gap(&self) -> bool {
        self.0.values().any(|segment| segment.has_gap)
    }

    /// The segments from the newest one on before which everything is published; `None` if too much is missing.
    fn from(&self, cursor: &Frontier) -> Option<impl Iterator<Item = &Segment>> {
        let is_covered = |segment: &Segment| cursor.covers(&segment.frontier);
        let gap = self.0.iter().rev().find(|(_, segment)| segment.has_gap).map(|(barrier, _)| *barrier);
        let first = match gap {
            Some(gap) if is_covered(&self.0[&gap]) => gap,
            Some(_) => return None,
            None => *self.0.first_key_value()?.0,
        };
        Some(self.0.range(first..).map(|(_, segment)| segment))
    }
}

/// What the publishers of an epoch have published.
#[derive(Default)]
pub struct Publication {
    cursor: Frontier,
    /// The `key_seq` of each key's newest decision, 0 after its life.
    last: BTreeMap<Vec<u8>, u64>,
    /// What was published of each instance.
    known: BTreeMap<InstanceId, Vec<u8>>,
    /// The node that has published last, and how often another one has gone on.
    publisher: Option<u8>,
    /// How often a publisher went on where another one had stopped.
    pub turns: u64,
}

impl Publication {
    /// A node publishes some components of what its outbox has and the cursor does not cover. Returns whether it has all
    /// that is needed.
    pub fn publish(&mut self, epoch: Epoch, node: u8, outbox: &Outbox, components: usize) -> bool {
        let known = self.cursor;
        let Some(segments) = outbox.from(&known) else { return false };
        let (mut left, before) = (components, self.known.len());
        let mut component = Vec::new();
        for segment in segments {
            self.cursor.merge(&segment.frontier);
            for batch in &segment.batches {
                if self.cursor.contains(batch.id) {
                    self.compare(batch);
                    continue;
                }
                component.push(batch);
                if batch.has_more {
                    continue;
                }
                if left == 0 {
                    self.note(node, before);
                    return true;
                }
                component.drain(..).for_each(|batch| self.add(epoch, batch));
                left -= 1;
            }
        }
        self.note(node, before);
        true
    }

    fn note(&mut self, node: u8, before: usize) {
        if self.known.len() > before {
            self.turns += u64::from(self.publisher.is_some_and(|publisher| publisher != node));
            self.publisher = Some(node);
        }
    }

    /// What was published has the same outcome wherever it is told.
    fn compare(&self, batch: &Batch) {
        let known = self.known.get(&batch.id).map_or(&[][..], |bytes| bytes);
        assert_eq!(
            known, batch.bytes,
            "P3: {:?} was published with another outcome, or not at all",
            batch.id
        );
    }

    fn add(&mut self, epoch: Epoch, batch: &Batch) {
        self.cursor.add(batch.id);
        if batch.bytes.is_empty() {
            return;
        }
        let published = PublishedBatch::parse(&batch.bytes).expect("it was just built");
        for decision in published.decisions() {
            self.follow(epoch, batch.id, &decision);
        }
        self.known.insert(batch.id, batch.bytes.clone());
    }

    /// The decisions of a key are published as 1, 2, 3 and so on.
    fn follow(&mut self, epoch: Epoch, id: InstanceId, decision: &Decision<'_>) {
        let Decision { key, effect, .. } = *decision;
        // What earlier epochs have decided was published by them.
        let before = self.last.get(key).copied().or((epoch == Epoch(1)).then_some(0));
        let (expected, now) = match effect {
            Effect::Decided { key_seq } => (key_seq - 1, key_seq),
            Effect::Deleted { key_seq } => (key_seq, 0),
        };
        assert!(
            before.is_none_or(|before| before == expected),
            "P3: {id:?} is published as {effect:?} of {key:?}, and the one before was {before:?}"
        );
        self.last.insert(key.to_vec(), now);
    }
}
