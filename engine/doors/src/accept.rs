//! Takes connections, within their number.

use crate::limits::{ACCEPT_PAUSE, READER_PATIENCE};
use socket2::SockRef;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Takes connections until the doors close, each with a place. A connection for which there is none is told so.
pub(crate) async fn accept(
    listener: &TcpListener,
    name: &str,
    places: &Arc<Semaphore>,
    no_place: &[u8],
    mut stopped: watch::Receiver<bool>,
    take: impl Fn(TcpStream, OwnedSemaphorePermit),
) {
    let mut is_troubled = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !std::mem::replace(&mut is_troubled, true) {
                    log::warn!("no {name} connections can be taken for now: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        is_troubled = false;
        match places.clone().try_acquire_owned() {
            Ok(place) => take(stream, place),
            // The answer fits the empty buffer of a new connection, or nobody is told.
            Err(_) => drop(stream.try_write(no_place)),
        }
    }
}

/// Sets how a connection behaves. A connection without these settings works, too.
pub(crate) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(READER_PATIENCE));
}
