//! The scout of a client: looks for members that have moved while one of them cannot be reached.
//!
//! A client hears where the members are whenever it connects. Members that move while all other connections hold, and
//! members that have all moved, are found by the scout.

use super::connection::Connection;
use super::links::{Event, What};
use super::troubles::Troubles;
use crate::id::{ClusterId, ReplicaId, ShardId};
use crate::message::{Member, Role};
use crate::view::View;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// How often the scout asks while a member cannot be reached. One replica that answers is enough each time.
const SCOUT_EVERY: Duration = Duration::from_secs(5);

/// The state of the task.
pub(super) struct Scout {
    pub(super) cluster: ClusterId,
    /// The members of the first contact, which are asked when nobody else answers.
    pub(super) first: Vec<Member>,
    /// The newest members that the driver knows.
    pub(super) view: watch::Receiver<View>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) troubles: Troubles,
}

impl Scout {
    /// Runs until the client is gone.
    pub(super) async fn run(self) {
        loop {
            sleep(SCOUT_EVERY).await;
            let unconnected = self.troubles.unconnected_of(ShardId(0));
            if unconnected.is_empty() {
                continue;
            }
            let view = self.view.borrow().clone();
            let members = (0..).map(ReplicaId).zip(view.members());
            let (far, near): (Vec<_>, Vec<_>) = members.partition(|(place, _)| unconnected.contains(place));
            let asked = near.into_iter().chain(far).map(|(_, member)| member).chain(&self.first);
            let Some(told) = self.ask(asked).await else { continue };
            let event = Event {
                epoch: view.epoch(),
                replica: ReplicaId(0),
                shard: ShardId(0),
                what: What::Told(told),
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// The members that the first of these replicas names which answers.
    async fn ask(&self, replicas: impl Iterator<Item = &Member>) -> Option<View> {
        for replica in replicas {
            match Connection::open(replica, ShardId(0), Some(self.cluster), Role::Client).await {
                Ok(connection) => return View::of(connection.welcome()).ok(),
                Err(error) => {
                    if let Some(told) = error.referral() {
                        return Some(told);
                    }
                }
            }
        }
        None
    }
}
