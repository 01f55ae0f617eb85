//! G6: this replica takes part in nothing before the others have confirmed that it was not set back.

use isonomy_protocol::admission::{Admission, Met, judge};
use isonomy_protocol::quorum::Quorum;
use isonomy_wire::id::{PLACES_MAX, ReplicaId};
use isonomy_wire::message::{Refusal, Start};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::connection::LinkError;
use crate::node::Node;
use crate::pump::Input;
use crate::settings::Seat;
use isonomy_mesh::fatal::{Reason, stop, stop_with};

/// How long this replica waits for members that do not answer, once a quorum has welcomed it. A member that can be
/// reached judges within milliseconds.
const JUDGE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a peer may report that another process of this replica lives. A machine that lost its power and is back
/// before its old connections are given up waits for less.
const OTHER_PATIENCE: Duration = Duration::from_secs(10);
/// The pause before another try to write the count, when the disk has no room or open files are lacking.
const COUNT_PAUSE: Duration = Duration::from_secs(1);

/// The judgements of the others about this process and its log of the shard.
pub(crate) struct Judged {
    /// How many records the log had when the process started, if that number is meaningful.
    began: Option<u64>,
    /// Whether the process has confirmed in the epoch before what the others would have to confirm.
    is_proven: bool,
    said: RefCell<Said>,
}

struct Said {
    admission: Admission,
    /// Since when a quorum has welcomed this replica.
    quorum_since: Option<Instant>,
    /// Whether a try to count this process is under way.
    is_counting: bool,
    /// When the last such try failed.
    uncounted_since: Option<Instant>,
    /// Since when each peer reports that another process lives.
    objects_since: [Option<Instant>; PLACES_MAX],
}

impl Judged {
    pub(crate) fn new(seat: Seat, began: Option<u64>, is_proven: bool) -> Judged {
        let admission = Admission::new(Quorum::new(seat.members), seat.replica);
        // A learner promises nothing, so nothing can be forgotten.
        let is_proven = is_proven || seat.is_learner();
        let said = Said {
            admission,
            quorum_since: None,
            is_counting: false,
            uncounted_since: None,
            objects_since: [None; PLACES_MAX],
        };
        Judged { began, is_proven, said: RefCell::new(said) }
    }
}

impl Node {
    /// The number of records that the hello to a peer names. Records appended since the start must not hide from a
    /// peer that has not judged yet that records were missing at the start.
    pub(crate) fn told_position(&self, peer: ReplicaId) -> Option<u64> {
        let is_judged = self.net.judged.said.borrow().admission.is_welcomed_by(peer);
        if is_judged { self.pump.look(|core| core.position()) } else { self.net.judged.began }
    }

    /// Checks that a process of a peer has the newest state of its directory and is the only one, as far as this
    /// replica knows.
    pub(crate) fn judge_state(
        &self,
        id: ReplicaId,
        here: Start,
        position: Option<u64>,
    ) -> Result<(), Refusal> {
        // A member always tells a learner the position at its own start, since no learner's word admits it.
        let is_learner = self.seat.is_learner();
        let heard = if is_learner { 0 } else { self.pump.look(|core| core.heard(id)) };
        let met = Met { start: self.data_dir.met(id), heard };
        judge(met, here, position).map_err(|found| Refusal::SetBack {
            id,
            found,
            by: self.seat.replica,
            cluster: self.data_dir.cluster_id(),
            epoch: self.seat.epoch,
        })?;
        match self.net.links.borrow().living(id, Instant::now()) {
            Some(living) if living != here => Err(Refusal::AnotherLives { id, here, living }),
            _ => Ok(()),
        }
    }

    /// A peer has accepted this process as the newest.
    pub(crate) fn on_welcome(self: &Rc<Node>, peer: ReplicaId) {
        if peer.0 >= self.seat.members {
            // A learner judges nobody.
            return;
        }
        let mut said = self.net.judged.said.borrow_mut();
        said.admission.on_welcome(peer);
        said.objects_since[peer.index()] = None;
        drop(said);
        self.maybe_admit();
    }

    /// A link to a peer failed, because the peer was not reached or refuses this replica.
    pub(crate) fn on_no_link(self: &Rc<Node>, peer: ReplicaId, error: &LinkError) {
        match error {
            LinkError::Refused(refusal) if self.is_set_back(peer, refusal) => {
                let fatal =
                    self.data_dir.on_set_back(&format!("replica {peer} refuses the directory: {refusal}"));
                stop_with(&fatal);
            }
            LinkError::Refused(refusal @ Refusal::AnotherLives { id, .. }) if *id == self.seat.replica => {
                self.on_objection(peer, refusal);
            }
            _ if peer.0 >= self.seat.members => return,
            _ => {
                let mut said = self.net.judged.said.borrow_mut();
                said.admission.on_silence(peer);
                said.objects_since[peer.index()] = None;
            }
        }
        self.maybe_admit();
    }

    /// Whether a member itself, of this cluster and epoch, says that this replica was set back. A learner judges nobody.
    pub(crate) fn is_set_back(&self, peer: ReplicaId, refusal: &Refusal) -> bool {
        let (me, here) = (self.seat.replica, self.data_dir.cluster_id());
        peer.0 < self.seat.members
            && matches!(*refusal, Refusal::SetBack { id, by, cluster, epoch, .. }
                if (id, by, cluster, epoch) == (me, peer, here, self.seat.epoch))
    }

    fn on_objection(&self, peer: ReplicaId, refusal: &Refusal) {
        let mut said = self.net.judged.said.borrow_mut();
        said.admission.on_objection(peer);
        let since = *said.objects_since[peer.index()].get_or_insert_with(Instant::now);
        if since.elapsed() > OTHER_PATIENCE {
            let dir = self.data_dir.path();
            let text =
                format!("data directory {}: replica {peer} refuses the directory: {refusal}", dir.display());
            stop(Reason::DataDir, &text);
        }
    }

    /// Lets the core begin once the others allow it and this process is counted.
    pub(crate) fn maybe_admit(self: &Rc<Node>) {
        if self.pump.look(|core| core.is_admitted()) || !self.data_dir.is_formed() {
            return;
        }
        if !self.is_open() {
            return;
        }
        if self.data_dir.is_counted() {
            self.pump.take(Input::Admit);
        } else if self.may_count() {
            // The task begins to run at once.
            glommio::spawn_local(self.clone().count_start()).detach();
        }
    }

    /// Whether all members that must judge this process have done so.
    fn is_open(&self) -> bool {
        let Said { admission, quorum_since, .. } = &mut *self.net.judged.said.borrow_mut();
        if admission.has_quorum() && quorum_since.get_or_insert_with(Instant::now).elapsed() > JUDGE_PATIENCE
        {
            admission.on_patience_over();
        }
        self.net.judged.is_proven || admission.is_open()
    }

    /// Whether a try to count this process begins now.
    fn may_count(&self) -> bool {
        let Said { is_counting, uncounted_since, .. } = &mut *self.net.judged.said.borrow_mut();
        let is_due = uncounted_since.is_none_or(|since| since.elapsed() >= COUNT_PAUSE);
        is_due && !std::mem::replace(is_counting, true)
    }

    /// Counts this process while other tasks go on, since the disk may hang.
    async fn count_start(self: Rc<Node>) {
        let data_dir = self.data_dir.clone();
        let counted = self.shard.aside.run(move || data_dir.count_start()).await;
        let is_counted = counted.unwrap_or_else(|fatal| stop_with(&fatal));
        let mut said = self.net.judged.said.borrow_mut();
        said.is_counting = false;
        if !is_counted && said.uncounted_since.replace(Instant::now()).is_none() {
            let dir = self.data_dir.path().display();
            log::warn!(
                "{dir}: identity.json cannot be written, because the disk has no room or the process has too \
                 many open files; this replica takes part as soon as identity.json is written: make room on \
                 the disk, or raise the limit on open files"
            );
        }
        drop(said);
        self.maybe_admit();
    }
}
