//! Snapshots of peers come piece by piece: links break and come back, sources end, and bytes are read wrongly.

use super::{Event, ProofStage, World};
use crate::transfer::Transfer;
use isonomy_protocol::transfer::{Fetch, FetchFailure};
use isonomy_wire::id::ReplicaId;
use rand::Rng;

/// How long a piece may take before it is asked for again.
const PIECE_PATIENCE_US: u64 = 20_000;
/// How long a source may be silent before the transfer is given up.
const SOURCE_PATIENCE_US: u64 = 300_000;
/// How often a bit of a piece differs from the file, where files rot.
const MISREAD: f64 = 0.1;

impl World {
    /// A replica begins to fetch the snapshot that it needs.
    pub(super) fn begin_transfer(&mut self, id: u8, source: u8, barrier: u64) {
        let now = self.now;
        let node = &mut self.nodes[usize::from(id)];
        if node.transfer.is_some() {
            return;
        }
        node.begin_transfer(now, source, barrier);
        let life = node.life;
        self.after(1_000, 50_000, Event::Fetched { node: id, life });
    }

    /// A piece comes, or should have come.
    pub(super) fn fetched(&mut self, id: u8, life: u32) {
        if self.nodes[usize::from(id)].life != life {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Fetched { node: id, life });
        }
        let Some(transfer) = self.nodes[usize::from(id)].transfer.take() else { return };
        self.note(7, id.into(), transfer.barrier);
        // A transfer that is needed no longer, or is needed from elsewhere, ends here.
        if self.nodes[usize::from(id)].wants_snapshot(transfer.source, transfer.barrier) {
            self.take_piece(id, transfer);
        }
        self.turn(id);
    }

    fn take_piece(&mut self, id: u8, mut transfer: Transfer) {
        let (now, source, barrier) = (self.now, transfer.source, transfer.barrier);
        let answers = self.is_paused(source).is_none() && self.linked(id).contains(&ReplicaId(source));
        if !answers {
            return self.wait_for_source(id, transfer);
        }
        let World { nodes, disks, .. } = self;
        let fetch = Fetch { barrier, from: transfer.from() as u64 };
        let piece = nodes[usize::from(source)].give_piece(now, id, fetch, disks);
        let Some(mut piece) = piece else { return self.fetch_failed(id, &transfer, FetchFailure::Source) };
        if self.stage == ProofStage::Faults && self.plan.rot > 0.0 && self.disks.random_bool(MISREAD) {
            let at = self.disks.random_range(0..piece.bytes.len());
            piece.bytes[at] ^= 1;
        }
        if now < self.nodes[usize::from(id)].crowded_until {
            return self.fetch_failed(id, &transfer, FetchFailure::Own);
        }
        match transfer.take(now, &piece) {
            Ok(true) => self.install(id, transfer),
            Ok(false) => self.go_on(id, transfer, 10_000),
            Err(_) => self.fetch_failed(id, &transfer, FetchFailure::Damaged),
        }
    }

    /// Asks for the piece again, until the source has had its time.
    fn wait_for_source(&mut self, id: u8, mut transfer: Transfer) {
        if self.now - transfer.heard_at >= SOURCE_PATIENCE_US {
            self.summary.coverage.given_up |= transfer.from() > 0;
            return self.fetch_failed(id, &transfer, FetchFailure::Source);
        }
        transfer.is_broken |= transfer.from() > 0;
        self.go_on(id, transfer, PIECE_PATIENCE_US);
    }

    fn go_on(&mut self, id: u8, transfer: Transfer, most: u64) {
        let node = &mut self.nodes[usize::from(id)];
        node.transfer = Some(transfer);
        let life = node.life;
        self.after(100, most, Event::Fetched { node: id, life });
    }

    fn fetch_failed(&mut self, id: u8, transfer: &Transfer, why: FetchFailure) {
        let now = self.now;
        self.summary.coverage.misread |= why == FetchFailure::Damaged;
        self.nodes[usize::from(id)].fetch_failed(now, transfer.source, transfer.barrier, why);
    }

    /// The file has come whole. A process that dies now keeps the file, and knows nothing of it.
    fn install(&mut self, id: u8, transfer: Transfer) {
        let now = self.now;
        let (source, barrier, is_broken) = (transfer.source, transfer.barrier, transfer.is_broken);
        let node = &mut self.nodes[usize::from(id)];
        let Ok(whole) = transfer.finish() else {
            return node.fetch_failed(now, source, barrier, FetchFailure::Damaged);
        };
        let before = node.kept_snapshot();
        let dies = self.stage == ProofStage::Faults && self.disks.random_bool(self.plan.between);
        node.install_snapshot(now, whole, dies, &mut self.ghost);
        let is_kept = node.kept_snapshot() != before;
        self.summary.coverage.resumed |= is_kept && is_broken;
        if dies && is_kept {
            self.summary.coverage.between = true;
            return self.crash(self.host(id));
        }
        self.maybe_rot(id, before);
    }
}
