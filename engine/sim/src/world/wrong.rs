//! Clients that follow no rule. Whatever they ask, no other client notices, and no replica ends.

use super::World;
use isonomy_protocol::contract::ClientRef;
use isonomy_protocol::payload::Payload;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{CommandId, Epoch, InstanceId, ReplicaId, SessionId, ShardId};
use rand::Rng;
use rand::rngs::SmallRng;

/// Values as long as this are asked for now and then.
const LONG_VALUE_BYTES: usize = 20_000;
/// No Open of an honest client is the command of such an index.
const NOBODYS_INDEX: u32 = 5_000;

impl World {
    /// Asks a replica for something that no conversation would ask, on keys and sessions that no client uses.
    pub(super) fn ask_wrongly(&mut self, process: u8) {
        let count = self.faults.random_range(1..3);
        let requests: Vec<Payload> = (0..count).map(|_| wrong_request(&mut self.faults)).collect();
        let payload = Payload::join(&requests);
        let is_lawful = requests.len() == 1 && !payload.is_barrier();
        self.show_newest_of(process);
        let Some(node) = self.place(process) else { return };
        let time = self.nodes[usize::from(node)].time(self.now);
        let Some(core) = &mut self.nodes[usize::from(node)].core else { return };

        core.on_request(time, ClientRef::default(), payload).expect("the queue is not full");

        self.summary.coverage.wrong |= is_lawful;
        self.turn(node);
    }
}

/// One request that parses, and is wrong in any other way.
fn wrong_request(random: &mut SmallRng) -> Payload {
    let mut builder = RequestBuilder::default();
    let key = format!("wrong key {}", random.random_range(0..3));
    let instance = InstanceId::new(ReplicaId(random.random_range(0..9)), random.random_range(1..1_000));
    let made = CommandId { epoch: Epoch(1), shard: ShardId(0), instance, index: NOBODYS_INDEX };
    let (never_opened, named) = (SessionId::opened_by(made), SessionId::named("wrong stream"));
    let session = if random.random_bool(0.3) { never_opened } else { named };
    let number = random.random_range(1..60);
    let (session, first) = match random.random_range(0..7) {
        0 => {
            let value = vec![7; random.random_range(0..LONG_VALUE_BYTES)];
            builder.decide(key.as_bytes(), &value).expect("it is within the limits");
            (session, number)
        }
        1 => {
            builder.decide_if(key.as_bytes(), b"v", random.random_range(0..9)).expect("it fits");
            (session, number)
        }
        2 => {
            builder.delete(key.as_bytes()).expect("it fits");
            (session, number)
        }
        3 => {
            builder.skip(random.random_range(1..1_000)).expect("a run is within the limits");
            (session, number)
        }
        4 => {
            builder.read(key.as_bytes()).expect("it fits");
            (SessionId::NONE, 0)
        }
        5 => {
            builder.barrier();
            (SessionId::NONE, 0)
        }
        _ => {
            builder.end();
            (never_opened, number)
        }
    };
    let below = if first > 0 { random.random_range(0..=first) } else { 0 };
    let bytes = builder.encode(session, Numbering { first, answered_below: below });
    let crc = crc32c::crc32c(&bytes);
    Payload::parse(bytes, crc).expect("what does not parse never reaches a core")
}
