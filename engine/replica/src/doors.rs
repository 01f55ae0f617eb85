//! The doors for HTTP and gRPC, and what the main thread shows them.

use crate::config::{Config, Durability};
use crate::fatal::Fatal;
use crate::publish::outbox_dir;
use crate::threads::{await_end, no_thread};
use isonomy_doors::feed::{Begin, Fed, Feed, Feeds};
use isonomy_doors::view::{ReplicaView, ShardView, Shown};
use isonomy_doors::{Doors, Settings};
use isonomy_kafka::outbox::{Next, OutboxReader, segments};
use isonomy_mesh::Roster;
use isonomy_shard::data_dir::DataDir;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{Member, Welcome};
use std::net::TcpListener;

/// The doors of this replica, which are open before its shards serve.
pub(crate) struct OpenDoors {
    doors: Doors,
    shown: Shown,
}

impl OpenDoors {
    /// Opens the doors that have a listener, if there is one.
    pub(crate) fn open(
        config: &Config,
        data_dir: &DataDir,
        roster: &Roster,
        http: Option<TcpListener>,
        grpc: Option<TcpListener>,
    ) -> Result<Option<OpenDoors>, Fatal> {
        if http.is_none() && grpc.is_none() {
            return Ok(None);
        }
        let welcome = Welcome {
            cluster: data_dir.cluster_id(),
            epoch: roster.epoch,
            replica: place(roster),
            shards: config.shards,
            members: members(roster),
            durable: config.durability == Durability::Fsync,
        };
        let shards = vec![ShardView::default(); config.shards.into()];
        let address = config.own().client_address();
        let shown = Shown::new(ReplicaView { address, welcome, shards, is_etcd_reached: None });
        let settings = Settings {
            http,
            grpc,
            shown: shown.clone(),
            data_dir: config.data_dir.clone(),
            members: config.client_addresses(),
            feeds: feeds(config),
        };
        let doors = Doors::start(settings).map_err(no_thread("for HTTP and gRPC"))?;
        Ok(Some(OpenDoors { doors, shown }))
    }

    /// Shows who takes part, how the shards stand, and whether etcd answers, if the members are named there.
    pub(crate) fn show(
        &self,
        roster: &Roster,
        shards: impl Iterator<Item = ShardView>,
        is_etcd_reached: Option<bool>,
    ) {
        self.shown.change(|view| {
            (view.welcome.epoch, view.welcome.replica) = (roster.epoch, place(roster));
            view.welcome.members = members(roster);
            view.shards = shards.collect();
            view.is_etcd_reached = is_etcd_reached;
        });
    }

    /// Closes the doors, but does not wait for long.
    pub(crate) fn close(self) {
        self.doors.stop();
        await_end(|| self.doors.has_ended());
    }
}

/// The outboxes as feeds, if the decisions are published.
fn feeds(config: &Config) -> Option<Feeds> {
    config.publish.as_ref()?;
    let data_dir = config.data_dir.clone();
    let open = move |shard, begin| -> Feed {
        let dir = outbox_dir(&data_dir, shard);
        let barrier = match begin {
            Begin::Barrier(barrier) => barrier,
            // Without one yet, the first that comes is the newest.
            Begin::Newest => segments(&dir).unwrap_or_default().last().copied().unwrap_or_default(),
        };
        let mut reader = OutboxReader::starting_at(&dir, barrier);
        Box::new(move || {
            let position = reader.position();
            let next = reader.read_next().map_err(|error| error.to_string())?;
            Ok(match next {
                Next::Segment(head) => {
                    Some(Fed::Segment { barrier: head.start.barrier, has_gap: head.has_gap })
                }
                Next::Batch(batch) => {
                    let (_, offset) = position.expect("a batch lies in a segment");
                    Some(Fed::Batch { offset, bytes: batch.bytes().to_vec() })
                }
                Next::End => None,
            })
        })
    };
    Some(Feeds { open: Box::new(open) })
}

/// The place of this replica; one that is none of a member if it is none.
fn place(roster: &Roster) -> ReplicaId {
    roster.own.unwrap_or(ReplicaId(u8::MAX))
}

fn members(roster: &Roster) -> Vec<Member> {
    let members = roster.places.iter().take(roster.members.into());
    members
        .map(|place| Member { host: place.address.host.clone(), client_base: place.address.client_base })
        .collect()
}
