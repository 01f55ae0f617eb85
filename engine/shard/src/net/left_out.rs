//! What becomes of a replica that a later epoch has left out: whoever knows it still is told where the members are.

use glommio::net::TcpListener;
use isonomy_mesh::Roster;
use isonomy_wire::frame::Encoder;
use isonomy_wire::message::Refusal;
use std::rc::Rc;

use crate::net::connection::Connection;
use crate::net::limits::STRANGERS_MAX;
use crate::net::peers::accept;
use crate::net::strangers::Strangers;
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

    async fn accept(self: Rc<LeftOut>, listener: Rc<TcpListener>) {
        let strangers = Rc::new(Strangers::default());
        loop {
            strangers.room(|count| count < STRANGERS_MAX as usize).await;
            let stream = accept(&self.shard, &listener, "a stranger").await;
            futures_lite::future::yield_now().await;
            let from = stream.peer_addr().ok().map(|address| address.ip());
            let connection = Connection::new(stream, CLIENT_PATIENCE);
            let place = strangers.admit(from, &connection.sink);
            let left_out = self.clone();
            let refuse = async move {
                left_out.refuse(connection).await;
                drop(place);
            };
            glommio::spawn_local(refuse).detach();
        }
    }

    async fn refuse(&self, mut connection: Connection) {
        let (mut encoder, shard) = (Encoder::default(), self.shard.settings.shard);
        if connection.hear(&mut encoder, shard).await.is_ok() {
            connection.refuse(&mut encoder, shard, self.refusal.clone()).await;
        }
    }
}
