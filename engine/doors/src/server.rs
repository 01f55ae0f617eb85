//! The thread of the doors, its listener and its connections.

use crate::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_PATIENCE, HEADER_FIELDS_MAX, READER_PATIENCE,
    STOP_PATIENCE,
};
use crate::metrics::Metrics;
use crate::router::{House, router};
use crate::view::Shown;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// The answer to a connection for which there is no place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 202\r\n\r\n\
    {\"type\":\"/problems/no-connection-left\",\"title\":\"All connections are taken\",\"status\":503,\"detail\":\"\
    this replica has as many HTTP connections as it takes; use fewer connections, or try again in a second\"}";

/// What the doors are opened with.
#[derive(Debug)]
pub struct Settings {
    /// The listener, which the caller has bound, so that a port that is taken refuses the start.
    pub listener: StdListener,
    /// What the process shows of itself.
    pub shown: Shown,
    /// The directory whose file system the metrics measure.
    pub data_dir: PathBuf,
}

/// The doors, which are open until [`Doors::stop`].
#[derive(Debug)]
pub struct Doors {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Doors {
    /// Opens the doors, on a thread of their own.
    ///
    /// # Errors
    ///
    /// The system's, if it gives no thread or takes the listener no more.
    pub fn start(settings: Settings) -> io::Result<Doors> {
        let Settings { listener, shown, data_dir } = settings;
        let metrics = Metrics::registry(shown.clone(), data_dir);
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let serve = move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(&listener, &router(House { shown, metrics }), stopped).await,
                    Err(error) => {
                        log::error!("the HTTP listener cannot be used: {error}; start the replica again")
                    }
                }
            });
            // A name that is still looked up, on a thread of its own, holds nobody up.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("doors".into()).spawn(serve)?;
        Ok(Doors { thread, stop })
    }

    /// Takes no more connections, and lets the answers that are under way leave.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether the doors have closed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn serve(listener: &TcpListener, router: &Router, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = GracefulShutdown::new();
    let mut is_troubled = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !std::mem::replace(&mut is_troubled, true) {
                    log::warn!("no HTTP connections can be taken for now: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        is_troubled = false;
        let Ok(place) = places.clone().try_acquire_owned() else {
            // The answer fits the empty buffer of a new connection, or nobody is told.
            let _ = stream.try_write(NO_PLACE);
            continue;
        };
        prepare(&stream);
        let service = TowerToHyperService::new(router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
        http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADER_FIELDS_MAX);
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // Whoever is cut off knows, and what strangers send is no news for the operator.
            let _ = connection.await;
            drop(place);
        });
    }
    let _ = tokio::time::timeout(STOP_PATIENCE, connections.shutdown()).await;
}

/// Sets how a connection behaves. A connection without these settings works, too.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(READER_PATIENCE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_without_a_place_has_the_length_that_it_names() {
        let text = std::str::from_utf8(NO_PLACE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
}
