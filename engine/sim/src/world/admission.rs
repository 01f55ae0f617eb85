//! G6: replicas whose disk was set back, and how the others find that out.

use super::World;
use isonomy_protocol::admission::{Met, judge};
use isonomy_wire::id::ReplicaId;

impl World {
    /// A disk that was copied may be put back while its replica is down. That counts among the disks that may be
    /// lost, and is done once in a run, and only where the replica could find no quorum of others that does not know
    /// better: no member can notice the loss of what none has heard.
    pub(super) fn maybe_set_back(&mut self, id: u8) {
        let (node, f) = (&self.nodes[usize::from(id)], self.ghost.quorum.f);
        let lost = self.nodes.iter().filter(|node| node.is_at_risk()).count();
        let is_due = !self.is_calm() && lost < f && !node.is_at_risk() && !self.was_set_back;
        let Some(copied) = node.copied.as_ref().filter(|_| is_due) else { return };
        let knows = |other: &u8| {
            let (heard, met) = (
                self.ghost.books[usize::from(*other)].durable.heard[usize::from(id)],
                self.nodes[usize::from(*other)].identity.met[usize::from(id)],
            );
            heard > copied.position() || met.is_some_and(|met| met.number > copied.identity.starts)
        };
        let knowing = self.members().filter(|other| *other != id).filter(knows).count();
        if knowing <= f {
            return;
        }
        self.was_set_back = true;
        // The ghost forgets nothing: all that the replica says after this is held against all that it said before.
        self.nodes[usize::from(id)].set_back();
        if self.plan.trace {
            eprintln!("{:>9} {id} is set back", self.now);
        }
    }

    /// A replica that runs asks all that it reaches, and takes part once it may. A replica that is refused ends.
    pub(super) fn ask_others(&mut self, id: u8) {
        let time = self.nodes[usize::from(id)].time(self.now);
        if self.nodes[usize::from(id)].core.is_none() {
            return;
        }
        let (reached, outlives_power) = (self.reached(id), self.plan.outlives_power);
        let is_judged = |place: u8| usize::from(place) < self.ghost.n;
        for peer in &reached {
            let asked = &self.nodes[peer.index()];
            let heard = asked.core.as_ref().map_or(0, |core| core.heard(ReplicaId(id)));
            let met = Met { start: asked.identity.met[usize::from(id)], heard };
            let node = &mut self.nodes[usize::from(id)];
            if node.admission.is_welcomed_by(*peer) {
                continue;
            }
            // G6 guards nothing at a learner, and its place may have been another one's.
            if !is_judged(id) || !is_judged(peer.0) {
                node.admission.on_welcome(*peer);
                continue;
            }
            match judge(met, node.start, outlives_power.then_some(node.began)) {
                Ok(()) => node.admission.on_welcome(*peer),
                Err(found) => {
                    assert!(node.is_damaged, "G6: replica {id} is refused for no reason: {found}");
                    self.summary.coverage.set_back = true;
                    self.crash(self.host(id));
                    self.nodes[usize::from(id)].is_lost = true;
                    return;
                }
            }
        }
        let others = self.members().map(ReplicaId).filter(|other| other.0 != id);
        let node = &mut self.nodes[usize::from(id)];
        others.filter(|other| !reached.contains(other)).for_each(|other| node.admission.on_silence(other));
        if !node.admission.is_open() {
            return;
        }
        if let Some(core) = node.core.as_mut().filter(|core| !core.is_admitted()) {
            core.admit(time);
            node.identity.starts = node.start.number;
        }
        let start = node.start;
        for peer in reached {
            self.nodes[peer.index()].identity.met[usize::from(id)] = Some(start);
        }
    }

    /// Those that run and that a replica can reach, and that can reach it.
    pub(super) fn reached(&mut self, id: u8) -> Vec<ReplicaId> {
        if !self.is_hosted(id) {
            return Vec::new();
        }
        let me = self.host(id);
        let up = (0..self.nodes.len() as u8).filter(|place| self.nodes[usize::from(*place)].core.is_some());
        let others: Vec<(u8, u8)> =
            up.filter(|place| *place != id).map(|place| (place, self.host(place))).collect();
        others
            .into_iter()
            .filter(|(_, host)| self.network.is_linked(me, *host))
            .map(|(it, _)| ReplicaId(it))
            .collect()
    }

    /// The reached replicas that take part and have welcomed this one, as it has welcomed them.
    pub(super) fn linked(&mut self, id: u8) -> Vec<ReplicaId> {
        let mut linked = self.reached(id);
        let takes_part =
            |id: u8| self.nodes[usize::from(id)].core.as_ref().is_some_and(|core| core.is_admitted());
        let welcomes = |a: u8, b: ReplicaId| self.nodes[usize::from(a)].admission.is_welcomed_by(b);
        linked.retain(|peer| {
            takes_part(id) && takes_part(peer.0) && welcomes(id, *peer) && welcomes(peer.0, ReplicaId(id))
        });
        linked
    }
}
