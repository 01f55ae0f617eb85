//! A port of a shard, which outlives the tasks that accept its connections.

use futures_lite::future::poll_fn;
use glommio::net::{TcpListener, TcpStream};
use isonomy_tuning::files;
use std::cell::RefCell;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::ready;
use std::time::Duration;

use crate::io::error_of;
use crate::net::connection::Connection;
use crate::net::limits::STRANGERS_MAX;
use crate::net::strangers::{Place, Strangers};
use crate::shard::Shard;
use crate::told::Kind;

/// The pause after a failed accept, such as for lack of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Accepted = std::io::Result<TcpStream>;

/// A bound port. The accept that it has asked the kernel for is kept when the task that waits for it is cancelled, as
/// happens at the end of an epoch: the kernel may hand a connection to an accept whose cancellation it has not seen yet,
/// and then nobody would ever serve or close that connection.
pub(crate) struct Listener {
    listener: Rc<TcpListener>,
    accepting: RefCell<Option<Pin<Box<dyn Future<Output = Accepted>>>>>,
}

impl Listener {
    /// Hands a bound listener to this executor.
    pub(crate) fn new(listener: std::net::TcpListener) -> Listener {
        // SAFETY: the descriptor is that of a listening socket, and is given up by its owner here.
        #[allow(unsafe_code)]
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        Listener { listener: Rc::new(listener), accepting: RefCell::default() }
    }

    /// The next connection. One task waits at a time; what comes for one that was cancelled goes to the next.
    pub(crate) async fn accept(&self) -> Accepted {
        poll_fn(|context| {
            let mut accepting = self.accepting.borrow_mut();
            let accept = accepting.get_or_insert_with(|| {
                let listener = self.listener.clone();
                Box::pin(async move { listener.accept().await.map_err(error_of) })
            });
            let accepted = ready!(accept.as_mut().poll(context));
            *accepting = None;
            accepted.into()
        })
        .await
    }

    /// The next connection. After a failure, such as for lack of open files, it pauses, since the next accept may fail,
    /// too.
    pub(crate) async fn next(&self, shard: &Shard, whose: &str) -> TcpStream {
        loop {
            match self.accept().await {
                Ok(stream) => return stream,
                Err(error) if shard.told.may(Kind::Accept) => {
                    let remedy =
                        if files::are_lacking(&error) { files::REMEDY } else { "it will be tried again" };
                    log::warn!(
                        "shard {}: {whose} could not be accepted: {error}; {remedy}",
                        shard.settings.shard.0
                    );
                }
                Err(_) => {}
            }
            glommio::timer::sleep(ACCEPT_PAUSE).await;
        }
    }

    /// Hands each connection to `serve`, with a place among the strangers at this port, for ever.
    pub(crate) async fn serve_strangers(
        &self,
        shard: &Shard,
        whose: &str,
        patience: Duration,
        serve: impl Fn(Connection, Place),
    ) {
        let strangers = Rc::new(Strangers::default());
        loop {
            strangers.room(|count| count < STRANGERS_MAX as usize).await;
            let stream = self.next(shard, whose).await;
            // A machine that connects as fast as it can must not keep the shard from its work.
            futures_lite::future::yield_now().await;
            let from = stream.peer_addr().ok().map(|address| address.ip());
            let connection = Connection::new(stream, patience);
            let place = strangers.admit(from, &connection.sink);
            serve(connection, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fixture;
    use crate::testing::rig::within_patience;
    use futures_lite::future::poll_once;
    use std::net::TcpStream as Client;

    #[test]
    fn a_connection_that_comes_while_an_accept_is_cancelled_is_not_lost() {
        fixture::run(async {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = port.local_addr().unwrap();
            let listener = Listener::new(port);
            // Time for the ring to hand the accept to the kernel, which then fulfils it at once.
            let kernel = || glommio::timer::sleep(Duration::from_millis(1));
            let mut waiting = Box::pin(listener.accept());
            assert!(poll_once(&mut waiting).await.is_none());
            kernel().await;
            let client = Client::connect(address).unwrap();
            drop(waiting);
            let accepted = within_patience("the connection", listener.accept()).await.unwrap();
            assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        });
    }
}
