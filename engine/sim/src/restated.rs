//! The law's rules on quorums and footprints, stated once more and without the product's code, since a check that
//! asks the code that it checks is blind.

use isonomy_protocol::payload::Payload;
use isonomy_wire::command::Op;
use isonomy_wire::id::{CommandId, Epoch, InstanceId, SessionId, ShardId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Section 1: the sizes of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// The number of replicas that may be down.
    pub f: usize,
    /// The number of replicas that may be down while two message delays still suffice.
    pub e: usize,
    /// The fast quorum.
    pub fast: usize,
    /// The slow and recovery quorum.
    pub slow: usize,
}

impl Sizes {
    /// The law's table, row by row.
    pub fn of(n: u8) -> Sizes {
        let (f, e, fast, slow) = match n {
            1 => (0, 0, 1, 1),
            2 => (0, 0, 2, 2),
            3 => (1, 1, 2, 2),
            4 => (1, 1, 3, 3),
            5 => (2, 2, 3, 3),
            6 => (2, 2, 4, 4),
            7 => (3, 2, 5, 4),
            8 => (3, 3, 5, 5),
            9 => (4, 3, 6, 5),
            _ => panic!("the law has no cluster of {n}"),
        };
        Sizes { f, e, fast, slow }
    }
}

/// The things that a batch touches: a digest of each thing, and whether it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Touches {
    /// The things that conflict by the law's footprint (section 2, S1, G4).
    pub things: Vec<(u64, bool)>,
    /// S1: the sessions that the batch's Opens make. They stand in decisions only, since a replica that pre-accepts
    /// an Open late does not name the instances that use its session already.
    pub made: Vec<(u64, bool)>,
}

/// The thing that every batch reads and a barrier writes.
const EVERYTHING: u64 = 1;
const KEYS: u64 = 2;
const SESSIONS: u64 = 3;

impl Touches {
    /// Of the batch of an instance of this epoch, command by command.
    pub fn of(epoch: Epoch, id: InstanceId, payload: &Payload) -> Touches {
        let (mut things, mut made, mut is_barrier) = (Vec::new(), Vec::new(), false);
        for part in payload.batch().parts() {
            if part.session != SessionId::NONE {
                things.push((session(part.session), true));
            }
            for (index, command) in (part.index..).zip(payload.batch().commands_of(part)) {
                match command.op {
                    Op::Decide | Op::DecideIf | Op::Delete => things.push((digest(KEYS, command.key), true)),
                    Op::Read => things.push((digest(KEYS, command.key), false)),
                    Op::Open => {
                        let by = CommandId { epoch, shard: ShardId(0), instance: id, index };
                        made.push((session(SessionId::opened_by(by)), true));
                    }
                    Op::End | Op::Skip | Op::Attach => {
                        assert!(part.session != SessionId::NONE, "they are about their session")
                    }
                    Op::Barrier | Op::Seal => is_barrier = true,
                }
            }
        }
        things.push((EVERYTHING, is_barrier));
        things.sort_unstable();
        things.dedup();
        Touches { things, made }
    }

    /// Whether one of the two writes what the other touches.
    pub fn conflict_with(&self, other: &Touches) -> bool {
        self.things.iter().any(|(thing, writes)| {
            other.things.iter().any(|(theirs, they_write)| thing == theirs && (*writes || *they_write))
        })
    }
}

fn digest(kind: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, kind)
}

fn session(id: SessionId) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.high.to_be_bytes());
    bytes[8..].copy_from_slice(&id.low.to_be_bytes());
    digest(SESSIONS, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_protocol::conflict::conflicts;
    use isonomy_protocol::quorum::Quorum;
    use isonomy_wire::command::{Numbering, RequestBuilder};
    use isonomy_wire::id::ReplicaId;

    #[test]
    fn the_product_has_the_sizes_of_the_law() {
        for n in 1..=9 {
            let (quorum, sizes) = (Quorum::new(n), Sizes::of(n));
            let product = Sizes { f: quorum.f, e: quorum.e, fast: quorum.fast(), slow: quorum.slow() };
            assert_eq!(product, sizes, "n = {n}");
        }
    }

    /// Batches of one command each; batches with one letter touch one thing.
    fn batches() -> Vec<(&'static str, Payload)> {
        let parse = |mut builder: RequestBuilder, session: SessionId, first: u64| {
            let bytes = builder.encode(session, Numbering::at(first));
            let crc = crc32c::crc32c(&bytes);
            Payload::parse(bytes, crc).expect("it is valid")
        };
        let with = |fill: &dyn Fn(&mut RequestBuilder), session: &str, first: u64| {
            let mut builder = RequestBuilder::default();
            fill(&mut builder);
            let by = |seq| CommandId {
                epoch: Epoch(1),
                shard: ShardId(0),
                instance: InstanceId::new(ReplicaId(8), seq),
                index: 0,
            };
            let id = session.parse().map_or(SessionId::NONE, |seq| SessionId::opened_by(by(seq)));
            parse(builder, id, first)
        };
        vec![
            ("decide a", with(&|it| it.decide(b"a", b"v").unwrap(), "1", 1)),
            ("decide-if a", with(&|it| it.decide_if(b"a", b"v", 1).unwrap(), "2", 1)),
            ("read a", with(&|it| it.read(b"a").unwrap(), "", 0)),
            ("delete a", with(&|it| it.delete(b"a").unwrap(), "3", 1)),
            ("decide b", with(&|it| it.decide(b"b", b"v").unwrap(), "4", 1)),
            ("open", with(&RequestBuilder::open, "", 0)),
            ("skip on 1", with(&|it| it.skip(3).unwrap(), "1", 2)),
            ("end of 1", with(&RequestBuilder::end, "1", 5)),
            ("barrier", with(&RequestBuilder::barrier, "", 0)),
        ]
    }

    /// Every pair of commands, as the law says and as the product says.
    #[test]
    fn every_pair_of_commands_conflicts_as_the_law_says() {
        let pairs = [
            ("decide a", "decide a decide-if a read a delete a skip on 1 end of 1 barrier"),
            ("decide-if a", "decide a decide-if a read a delete a barrier"),
            ("read a", "decide a decide-if a delete a barrier"),
            ("delete a", "decide a decide-if a read a delete a barrier"),
            ("decide b", "decide b barrier"),
            ("open", "barrier"),
            ("skip on 1", "decide a skip on 1 end of 1 barrier"),
            ("end of 1", "decide a skip on 1 end of 1 barrier"),
            ("barrier", "decide a decide-if a read a delete a decide b open skip on 1 end of 1 barrier"),
        ];
        let id = InstanceId::new(ReplicaId(0), 1);
        for (name, with) in pairs {
            let batches = batches();
            let one = &batches.iter().find(|(other, _)| *other == name).expect("it is there").1;
            for (other, two) in &batches {
                let expected = with.contains(other);
                let restated = Touches::of(Epoch(1), id, one).conflict_with(&Touches::of(Epoch(1), id, two));
                assert_eq!(restated, expected, "restated: {name} and {other}");
                assert_eq!(conflicts(one, two), expected, "the product: {name} and {other}");
            }
        }
    }
}
