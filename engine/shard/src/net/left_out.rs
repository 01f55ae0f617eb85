//! Section 9, step 5: a replica that a later epoch has left out tells whoever knows it still where the members are.

use isonomy_mesh::Roster;
use isonomy_wire::frame::Encoder;
use isonomy_wire::message::Refusal;
use std::rc::Rc;

use crate::net::connection::Connection;
use crate::net::listener::Listener;
use crate::shard::{Listeners, Shard, client_addresses};
use crate::tasks::Tasks;
use crate::time::ticker::CLIENT_PATIENCE;

/// A shard of a replica that is no member any more.
pub(crate) struct LeftOut {
    shard: Rc<Shard>,
    refusal: Refusal,
}

impl LeftOut {
    /// The members are those of `roster`.
    pub(crate) fn new(shard: Rc<Shard>, roster: &Roster) -> Rc<LeftOut> {
        let refusal = Refusal::NotAMember { epoch: roster.epoch, members: client_addresses(roster) };
        Rc::new(LeftOut { shard, refusal })
    }

    /// Tells everybody until the process is told to stop.
    pub(crate) async fn serve(self: Rc<LeftOut>, listeners: &Listeners) {
        let tasks = Tasks::default();
        for listener in [&listeners.peers, &listeners.clients] {
            tasks.spawn(self.clone().accept(listener.clone()));
        }
        self.shard.mail.say_ready();
        while !self.shard.mail.is_stopping() {
            self.shard.tick.wait().await;
        }
        tasks.cancel().await;
    }

    async fn accept(self: Rc<LeftOut>, listener: Rc<Listener>) {
        let refuse = |connection, place| {
            let left_out = self.clone();
            let refuse = async move {
                left_out.refuse(connection).await;
                drop(place);
            };
            glommio::spawn_local(refuse).detach();
        };
        listener.serve_strangers(&self.shard, "a stranger", CLIENT_PATIENCE, refuse).await;
    }

    async fn refuse(&self, mut connection: Connection) {
        let (mut encoder, shard) = (Encoder::default(), self.shard.settings.shard);
        if connection.hear(&mut encoder, shard).await.is_ok() {
            connection.refuse(&mut encoder, shard, self.refusal.clone()).await;
        }
    }
}
