//! The thread of the doors, and the connections of HTTP.

use crate::accept::{accept, prepare};
use crate::cluster::Cluster;
use crate::feed::Feeds;
use crate::grpc;
use crate::limits::{
    CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_PATIENCE, HEADER_FIELDS_MAX, STOP_PATIENCE, STREAM_THREADS_MAX,
};
use crate::lingering::Lingering;
use crate::metrics::Metrics;
use crate::router::{House, router};
use crate::view::Shown;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The answer to a connection for which there is no place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 202\r\n\r\n\
    {\"type\":\"/problems/no-connection-left\",\"title\":\"All connections are taken\",\"status\":503,\"detail\":\"\
    this replica has as many HTTP connections as it takes; use fewer connections, or try again in a second\"}";

/// What the doors are opened with.
#[derive(Debug)]
pub struct Settings {
    /// The listener for HTTP, if it is answered. The caller has bound it, so that a port that is taken refuses the start.
    pub http: Option<StdListener>,
    /// The same for gRPC.
    pub grpc: Option<StdListener>,
    /// What the process shows of itself.
    pub shown: Shown,
    /// The directory whose file system the metrics measure.
    pub data_dir: PathBuf,
    /// Where clients find the members ("host:port", of shard 0), this replica first.
    pub members: Vec<String>,
    /// Where executed decisions are read from, if this replica keeps them for those who read them from outside.
    pub feeds: Option<Feeds>,
}

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections: usize,
    head_patience: Duration,
}

const BOUNDS: Bounds = Bounds { connections: CONNECTIONS_MAX, head_patience: HEAD_PATIENCE };

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
    /// The system's, if it gives no thread or takes a listener no more.
    pub fn start(settings: Settings) -> io::Result<Doors> {
        let Settings { http, grpc, shown, data_dir, members, feeds } = settings;
        let metrics = Metrics::registry(shown.clone(), data_dir);
        for listener in http.iter().chain(&grpc) {
            listener.set_nonblocking(true)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(STREAM_THREADS_MAX)
            .build()?;
        let cluster = Cluster::new(shown.look().welcome.cluster, members);
        let (stop, stopped) = watch::channel(false);
        let house = Arc::new(House::new(shown, metrics, cluster, feeds, stopped.clone()));
        let serve = move || {
            runtime.block_on(async {
                let http = async {
                    if let Some(listener) = usable(http, "HTTP") {
                        serve(&listener, &router(house.clone()), BOUNDS, stopped).await;
                    }
                };
                let grpc = async {
                    if let Some(listener) = usable(grpc, "gRPC") {
                        grpc::serve(&listener, &house).await;
                    }
                };
                tokio::join!(http, grpc);
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

/// A listener as the runtime takes it.
fn usable(listener: Option<StdListener>, name: &str) -> Option<TcpListener> {
    let taken = TcpListener::from_std(listener?);
    taken
        .inspect_err(|error| {
            log::error!("the {name} listener cannot be used: {error}; start the replica again")
        })
        .ok()
}

/// Serves HTTP until the doors close.
async fn serve(listener: &TcpListener, router: &Router, bounds: Bounds, stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let connections = GracefulShutdown::new();
    let take = |stream, place| {
        prepare(&stream);
        let service = TowerToHyperService::new(router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(bounds.head_patience);
        http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADER_FIELDS_MAX);
        let connection =
            connections.watch(http.serve_connection(TokioIo::new(Lingering::new(stream)), service));
        tokio::spawn(async move {
            // Whoever is cut off knows, and what strangers send is no news for the operator.
            let _ = connection.await;
            drop(place);
        });
    };
    accept(listener, "HTTP", &places, NO_PLACE, stopped, take).await;
    let _ = tokio::time::timeout(STOP_PATIENCE, connections.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BODY_BYTES_MAX;
    use crate::router::tests::house;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const PATIENT: Bounds = Bounds { connections: 4, head_patience: Duration::from_secs(60) };

    /// Doors that wait no longer than `body_patience` for a body. No cluster is behind them.
    async fn open(
        bounds: Bounds,
        body_patience: Duration,
    ) -> (String, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let (house, stop) = house(body_patience);
        let stopped = house.stopped.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = router(Arc::new(house));
        let served = tokio::spawn(async move { serve(&listener, &router, bounds, stopped).await });
        (address, stop, served)
    }

    /// Sends bytes; what comes back until the doors close.
    async fn say(address: &str, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The doors may close before they have read everything.
        let _ = stream.write_all(bytes).await;
        heard(&mut stream).await
    }

    async fn heard(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn bytes_that_are_no_request_are_refused() {
        let (address, _stop, _served) = open(PATIENT, Duration::from_secs(60)).await;
        let head = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        let fields = format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(HEADER_FIELDS_MAX + 1));
        let long = format!(
            "POST /v1/propose HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            BODY_BYTES_MAX + 1
        );
        for (bytes, expected) in [
            ("\x16\x03\x01 this is TLS\r\n\r\n", "HTTP/1.1 400 "),
            ("GET /livez HTTP/9.9\r\n\r\n", "HTTP/1.1 400 "),
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "HTTP/1.1 400 "),
            (&head, "HTTP/1.1 431 "),
            (&fields, "HTTP/1.1 431 "),
            (&long, "HTTP/1.1 413 "),
        ] {
            let heard = say(&address, bytes.as_bytes()).await;
            assert!(heard.starts_with(expected), "{}: {heard}", &bytes[..20]);
        }
    }

    #[tokio::test]
    async fn a_refusal_arrives_although_the_body_is_still_on_its_way() {
        let (address, _stop, _served) = open(PATIENT, Duration::from_secs(60)).await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let body = vec![b' '; 2 * BODY_BYTES_MAX];
        let head = format!(
            "POST /v1/propose HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 13];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 413 ");
        stream.write_all(&body).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("no reset");
        assert!(String::from_utf8_lossy(&rest).contains("/problems/too-large"));
    }

    #[tokio::test]
    async fn requests_that_come_at_once_are_answered_in_their_order() {
        let (address, _stop, _served) = open(PATIENT, Duration::from_secs(60)).await;
        let bytes = "GET /livez HTTP/1.1\r\n\r\nGET /no HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\nconnection: close\r\n\r\n";
        let heard = say(&address, bytes.as_bytes()).await;
        let answers: Vec<&str> = heard.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(answers, ["200", "404", "200"]);
    }

    #[tokio::test]
    async fn slow_senders_are_cut_off() {
        let patience = Duration::from_millis(50);
        let (address, _stop, _served) = open(Bounds { head_patience: patience, ..PATIENT }, patience).await;
        assert_eq!(say(&address, b"GET /livez HT").await, "", "a head that does not come");
        assert_eq!(say(&address, b"").await, "", "a connection on which nothing comes");
        let begun =
            "POST /v1/propose HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
        let heard = say(&address, begun.as_bytes()).await;
        assert!(heard.starts_with("HTTP/1.1 408 ") && heard.contains("/problems/slow-sender"), "{heard}");
        let begun = "POST /v1/propose:batch HTTP/1.1\r\ncontent-type: application/jsonl\r\ncontent-length: 99\r\n\r\n{\n";
        let heard = say(&address, begun.as_bytes()).await;
        assert!(heard.contains("/problems/bad-json") && heard.contains("/problems/slow-sender"), "{heard}");
    }

    #[tokio::test]
    async fn a_connection_without_a_place_is_told_so_and_a_place_is_given_back() {
        let (address, _stop, _served) = open(PATIENT, Duration::from_secs(60)).await;
        let mut all = Vec::new();
        for _ in 0..PATIENT.connections {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
            stream.read_exact(&mut [0; 15]).await.unwrap();
            all.push(stream);
        }
        let heard = say(&address, b"").await;
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
        all.pop();
        let one = b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n";
        while !say(&address, one).await.starts_with("HTTP/1.1 200 ") {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn doors_that_close_take_no_connections_and_end_those_that_are_idle() {
        let (address, stop, served) = open(PATIENT, Duration::from_secs(60)).await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 15]).await.unwrap();
        stop.send_replace(true);
        served.await.unwrap();
        assert!(heard(&mut stream).await.ends_with("alive\n"));
        assert!(TcpStream::connect(&address).await.is_err());
    }
}
