//! The corners that a batch of seeds has reached. A batch that misses a corner proves nothing about it.

use isonomy_protocol::marks::{Mark, Marks};
use isonomy_wire::id::InstanceId;
use isonomy_wire::message::PeerMessage;

/// The kinds of messages, in the order of [`kind_of`].
const KINDS: [&str; 17] = [
    "PreAccept",
    "PreAcceptOk",
    "Accept",
    "AcceptOk",
    "Commit",
    "Nack",
    "Lacking",
    "Recover",
    "RecoverOk",
    "Validate",
    "ValidateOk",
    "Waiting",
    "Pull",
    "Gossip",
    "Gone",
    "Stalled",
    "Unreadable",
];

/// The events that were reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Branches of the law.
    pub marks: Marks,
    /// Kinds of messages that arrived twice.
    duplicated: u32,
    /// Kinds of messages about an instance that arrived when it was committed.
    late: u32,
    /// A crash left a part of a group on disk.
    pub torn: bool,
    /// A replica found its disk damaged.
    pub damaged: bool,
    /// A replica that was set back was refused.
    pub set_back: bool,
    /// A write failed.
    pub failed_write: bool,
    /// A source that was started again was told that a number was done.
    pub repeated: bool,
    /// A process that submitted something else under a source's numbers was found out.
    pub found_out: bool,
    /// A key's life was ended.
    pub deleted: bool,
    /// A process stopped in good order, with everything done.
    pub stopped: bool,
    /// A process ended between keeping a snapshot and counting on it.
    pub between: bool,
    /// The state changed while a copy of it was under way.
    pub copied: bool,
    /// A client that follows no rule has asked.
    pub wrong: bool,
    /// A piece of a snapshot did not come, and the transfer went on from there.
    pub resumed: bool,
    /// A source was silent for so long, in between, that its snapshot was given up.
    pub given_up: bool,
    /// The received bytes of a snapshot could not be read.
    pub misread: bool,
    /// A client ended its sessions and came back with another conversation.
    pub left: bool,
    /// A command with an idempotency key was repeated, and had its first answer.
    pub echoed: bool,
    /// A command with an idempotency key that had timed out was settled by its repetition.
    pub settled: bool,
    /// A process of a source that lived on was fenced by its successor.
    pub fenced: bool,
    /// An epoch followed another one.
    pub changed: bool,
    /// A member with an empty directory replaced one whose directory was lost.
    pub replaced: bool,
    /// A change was abandoned before a Seal could have been proposed.
    pub abandoned: bool,
    /// A change was abandoned later, so that the epoch ended with the same members.
    pub abandoned_late: bool,
    /// An operator let a change go on that waited for it.
    pub promoted: bool,
    /// A learner became a member.
    pub learned: bool,
    /// The next epoch had more members.
    pub grown: bool,
    /// The next epoch had fewer members.
    pub shrunk: bool,
    /// The store was set back, and a process stopped for that reason.
    pub store_set_back: bool,
    /// Two drivers of a change met at the store.
    pub competed: bool,
    /// A sealed core handed its state over.
    pub succeeded: bool,
    /// A message of another epoch was refused.
    pub hinted: bool,
    /// One publisher went on where another one had stopped.
    pub publishers_took_turns: bool,
    /// A node that had taken over a snapshot published what came behind it.
    pub published_behind_a_gap: bool,
}

impl Coverage {
    /// A message arrives a second time.
    pub fn duplicated(&mut self, message: &PeerMessage) {
        self.duplicated |= 1 << kind_of(message);
    }

    /// A message arrives about an instance that is committed.
    pub fn late(&mut self, message: &PeerMessage) {
        self.late |= 1 << kind_of(message);
    }

    /// Adds the events that another run has reached.
    pub fn merge(&mut self, other: &Coverage) {
        self.marks.merge(other.marks);
        self.duplicated |= other.duplicated;
        self.late |= other.late;
        self.torn |= other.torn;
        self.damaged |= other.damaged;
        self.set_back |= other.set_back;
        self.failed_write |= other.failed_write;
        self.repeated |= other.repeated;
        self.found_out |= other.found_out;
        self.deleted |= other.deleted;
        self.stopped |= other.stopped;
        self.between |= other.between;
        self.copied |= other.copied;
        self.wrong |= other.wrong;
        self.resumed |= other.resumed;
        self.given_up |= other.given_up;
        self.misread |= other.misread;
        self.left |= other.left;
        self.echoed |= other.echoed;
        self.settled |= other.settled;
        self.fenced |= other.fenced;
        self.changed |= other.changed;
        self.replaced |= other.replaced;
        self.abandoned |= other.abandoned;
        self.abandoned_late |= other.abandoned_late;
        self.promoted |= other.promoted;
        self.learned |= other.learned;
        self.grown |= other.grown;
        self.shrunk |= other.shrunk;
        self.store_set_back |= other.store_set_back;
        self.competed |= other.competed;
        self.succeeded |= other.succeeded;
        self.publishers_took_turns |= other.publishers_took_turns;
        self.published_behind_a_gap |= other.published_behind_a_gap;
        self.hinted |= other.hinted;
    }

    /// The events that were not reached.
    pub fn missing(&self) -> Vec<String> {
        let marks = Mark::ALL.iter().filter(|mark| !self.marks.has(**mark)).map(|mark| format!("{mark:?}"));
        let of = |bits: u32, what: &'static str| {
            let kinds = KINDS.iter().enumerate();
            kinds
                .filter(move |(kind, _)| bits & 1 << kind == 0)
                .map(move |(_, name)| format!("{what} {name}"))
        };
        let about_all = |name: &str| {
            ["Pull", "Gossip", "Gone", "Stalled", "Unreadable"].iter().any(|kind| name.ends_with(kind))
        };
        let late = of(self.late, "late").filter(|name| !about_all(name));
        let named = self.flags().into_iter().filter(|(was, _)| !was).map(|(_, name)| name.to_string());
        marks.chain(of(self.duplicated, "duplicated")).chain(late).chain(named).collect()
    }

    fn flags(&self) -> [(bool, &'static str); 32] {
        [
            (self.torn, "torn group"),
            (self.damaged, "damaged disk"),
            (self.set_back, "set back"),
            (self.failed_write, "failed write"),
            (self.repeated, "repeated number"),
            (self.found_out, "impostor found out"),
            (self.deleted, "deleted key"),
            (self.stopped, "stop in good order"),
            (self.between, "end between a snapshot and its use"),
            (self.copied, "copy of a state that changes"),
            (self.wrong, "wrong request"),
            (self.resumed, "transfer that went on after a break"),
            (self.given_up, "transfer whose source is gone"),
            (self.misread, "snapshot that came damaged"),
            (self.left, "end of a conversation by choice"),
            (self.echoed, "repeated idempotency key"),
            (self.settled, "timeout settled by its idempotency key"),
            (self.fenced, "process that its successor fenced"),
            (self.changed, "change of epoch"),
            (self.replaced, "replaced member"),
            (self.abandoned, "abandoned change"),
            (self.abandoned_late, "change abandoned at its Seal"),
            (self.promoted, "change that was held and promoted"),
            (self.learned, "learner that became a member"),
            (self.grown, "larger cluster"),
            (self.shrunk, "smaller cluster"),
            (self.store_set_back, "store that was set back"),
            (self.competed, "competing drivers"),
            (self.succeeded, "state that was handed over"),
            (self.publishers_took_turns, "publishers that took turns"),
            (self.published_behind_a_gap, "publication behind a gap"),
            (self.hinted, "message of another epoch"),
        ]
    }
}

fn kind_of(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::PreAccept { .. } => 0,
        PeerMessage::PreAcceptOk { .. } => 1,
        PeerMessage::Accept { .. } => 2,
        PeerMessage::AcceptOk { .. } => 3,
        PeerMessage::Commit { .. } => 4,
        PeerMessage::Nack { .. } => 5,
        PeerMessage::Lacking { .. } => 6,
        PeerMessage::Recover { .. } => 7,
        PeerMessage::RecoverOk { .. } => 8,
        PeerMessage::Validate { .. } => 9,
        PeerMessage::ValidateOk { .. } => 10,
        PeerMessage::Waiting { .. } => 11,
        PeerMessage::Pull { .. } => 12,
        PeerMessage::Gossip(_) => 13,
        PeerMessage::Gone { .. } => 14,
        PeerMessage::Stalled => 15,
        PeerMessage::Unreadable { .. } => 16,
        PeerMessage::Fetch { .. } | PeerMessage::Piece { .. } => unreachable!("cores do not send them"),
    }
}

/// The instance that a message is about; the first of a range.
pub fn id_of(message: &PeerMessage) -> Option<InstanceId> {
    match message {
        PeerMessage::PreAccept { id, .. }
        | PeerMessage::PreAcceptOk { id, .. }
        | PeerMessage::Accept { id, .. }
        | PeerMessage::AcceptOk { id, .. }
        | PeerMessage::Commit { id, .. }
        | PeerMessage::Nack { id, .. }
        | PeerMessage::Lacking { id, .. }
        | PeerMessage::RecoverOk { id, .. }
        | PeerMessage::Validate { id, .. }
        | PeerMessage::ValidateOk { id, .. }
        | PeerMessage::Waiting { id, .. } => Some(*id),
        PeerMessage::Recover { row, from, .. } => Some(InstanceId::new(*row, *from)),
        PeerMessage::Pull { .. }
        | PeerMessage::Gossip(_)
        | PeerMessage::Gone { .. }
        | PeerMessage::Stalled
        | PeerMessage::Unreadable { .. }
        | PeerMessage::Fetch { .. }
        | PeerMessage::Piece { .. } => None,
    }
}
