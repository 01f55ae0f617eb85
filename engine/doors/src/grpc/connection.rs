//! The connections of gRPC.

use super::body::{Meter, Metered, Sending};
use super::calls::{Answer, Calls};
use super::proto::decision_service_server::SERVICE_NAME;
use super::service::routes;
use crate::accept::{accept, prepare};
use crate::body::Room;
use crate::limits::{
    CALL_WINDOW_BYTES, CALLS_MAX, CONNECTION_LOOK_EVERY, CONNECTION_WINDOW_BYTES, GRPC_CONNECTIONS_MAX,
    HEAD_BYTES_MAX, HEAD_PATIENCE, IDLE_PATIENCE, PING_EVERY, PING_PATIENCE, READER_PATIENCE, STOP_PATIENCE,
};
use crate::router::House;
use axum::Router;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// The answer to a connection for which there is no place: settings without any, and the end of the connection (GOAWAY) before
/// its first call, with ENHANCE_YOUR_CALM and the reason, so that the client knows that nothing was done.
const NO_PLACE: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x21\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0bno place for more clients";

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrpcBounds {
    pub(super) connections: usize,
    /// How long a connection may take until its first call.
    pub(super) head_patience: Duration,
    /// How long it is kept without calls after that.
    pub(super) idle_patience: Duration,
    /// How long a reader may take nothing of an answer.
    pub(super) reader_patience: Duration,
    pub(super) look_every: Duration,
}

pub(super) const BOUNDS: GrpcBounds = GrpcBounds {
    connections: GRPC_CONNECTIONS_MAX,
    head_patience: HEAD_PATIENCE,
    idle_patience: IDLE_PATIENCE,
    reader_patience: READER_PATIENCE,
    look_every: CONNECTION_LOOK_EVERY,
};

/// Serves until the doors close.
pub(crate) async fn serve(listener: &TcpListener, house: &Arc<House>) {
    serve_within(listener, house, BOUNDS).await;
}

pub(super) async fn serve_within(listener: &TcpListener, house: &Arc<House>, bounds: GrpcBounds) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let (router, room, stopped) = (routes(house).into_axum_router(), &house.room, &house.stopped);
    let take = |stream, place| {
        let (router, room, stopped) = (router.clone(), room.clone(), stopped.clone());
        tokio::spawn(async move {
            connection(stream, router, room, bounds, stopped).await;
            drop(place);
        });
    };
    accept(listener, "gRPC", &places, NO_PLACE, stopped.clone(), take).await;
    let _ = timeout(STOP_PATIENCE, places.acquire_many(bounds.connections as u32)).await;
}

/// A connection, until it ends, is idle or is stuck.
async fn connection(
    stream: TcpStream,
    router: Router,
    room: Room,
    bounds: GrpcBounds,
    mut stopped: watch::Receiver<bool>,
) {
    prepare(&stream);
    let calls = Arc::new(Calls::new(Instant::now()));
    let service = Calling { router: TowerToHyperService::new(router), room, calls: calls.clone() };
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_PATIENCE);
    http.max_concurrent_streams(CALLS_MAX).max_header_list_size(HEAD_BYTES_MAX as u32);
    http.initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(CALL_WINDOW_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut looks = tokio::time::interval(bounds.look_every);
    let mut is_closing = false;
    loop {
        tokio::select! {
            // Whoever is cut off knows, and what strangers send is no news for the operator.
            _ = &mut connection => return,
            _ = stopped.wait_for(|stopped| *stopped), if !is_closing => {}
            _ = looks.tick() => {
                let now = Instant::now();
                let patience = match is_closing {
                    // The client has been told, and has no call under way.
                    true => (Duration::ZERO, Duration::ZERO),
                    false => (bounds.head_patience, bounds.idle_patience),
                };
                let is_idle = calls.is_idle(now, patience.0, patience.1);
                if calls.is_stuck(now, bounds.reader_patience) || is_idle && is_closing {
                    return;
                }
                if !is_idle {
                    continue;
                }
            }
        }
        is_closing = true;
        connection.as_mut().graceful_shutdown();
        looks.reset();
    }
}

/// Meters what the calls of a connection send and take.
struct Calling {
    router: TowerToHyperService<Router>,
    room: Room,
    calls: Arc<Calls>,
}

impl Service<Request<Incoming>> for Calling {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let sending = sending(request.uri().path());
        let meter = Arc::new(Meter::new(&self.room));
        let mut request = request.map(|body| Metered::new(body, sending, self.room.clone(), meter.clone()));
        request.extensions_mut().insert(meter);
        let (answered, call) = (self.router.call(request), self.calls.begin());
        Box::pin(async move { answered.await.map(|answer| answer.map(|body| Answer::new(body, call))) })
    }
}

/// How a call with this path sends.
fn sending(path: &str) -> Sending {
    match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((SERVICE_NAME, "ProposeStream")) => Sending::Proposals,
        Some((SERVICE_NAME, _)) => Sending::Unary,
        _ => Sending::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::house;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);
    const PATIENT: GrpcBounds = GrpcBounds {
        connections: 2,
        head_patience: LONG,
        idle_patience: LONG,
        reader_patience: LONG,
        look_every: Duration::from_millis(1),
    };
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const NO_SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    /// The first window of each call is empty.
    const NO_WINDOW: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

    /// A door with no cluster behind it.
    async fn open(bounds: GrpcBounds) -> (String, watch::Sender<bool>, JoinHandle<()>) {
        let (house, stop) = house(LONG);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move { serve_within(&listener, &Arc::new(house), bounds).await });
        (address, stop, served)
    }

    /// What comes back until the door closes.
    async fn heard(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let closed = timeout(LONG, stream.read_to_end(&mut bytes)).await;
        let _ = closed.expect("the door closes the connection");
        bytes
    }

    /// Sends bytes, and waits for the settings of the door.
    async fn greet(address: &str, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[3], 4, "settings come first: {frame:?}");
        stream
    }

    /// A call of `Check` of health, as stream 1.
    fn check() -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        let field = |name, value| [vec![0], text(name), text(value)].concat();
        let head = [
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":path", "/grpc.health.v1.Health/Check"),
            field("content-type", "application/grpc"),
            field("te", "trailers"),
        ];
        let head = head.concat();
        let frames: [&[u8]; 4] =
            [&[0, 0, head.len() as u8, 1, 4, 0, 0, 0, 1], &head, &[0, 0, 5, 0, 1, 0, 0, 0, 1], &[0; 5]];
        frames.concat()
    }

    #[tokio::test]
    async fn a_connection_without_a_place_is_told_so_and_a_place_is_given_back() {
        let (address, _stop, _served) = open(PATIENT).await;
        let hello = [PREFACE, NO_SETTINGS].concat();
        let first = greet(&address, &hello).await;
        let _second = greet(&address, &hello).await;
        let told = heard(&mut TcpStream::connect(&address).await.unwrap()).await;
        assert_eq!(told, NO_PLACE);
        let away = &told[9..];
        assert_eq!((usize::from(away[2]), away[3]), (away.len() - 9, 7), "one whole frame that says GOAWAY");
        drop(first);
        loop {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let _ = stream.write_all(&[&hello[..], &check()].concat()).await;
            let mut bytes = [0; 64];
            stream.read_exact(&mut bytes).await.unwrap_or_default();
            // Settings of the door have values, and those of a connection without a place have none.
            if bytes[2] > 0 {
                break;
            }
        }
    }

    #[tokio::test]
    async fn connections_end_that_send_nothing_or_take_nothing() {
        let hasty = GrpcBounds { head_patience: SHORT, ..PATIENT };
        let (address, _stop, _served) = open(hasty).await;
        for begin in [&b""[..], b"PRI * HTTP", &[PREFACE, NO_SETTINGS].concat()] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(begin).await.unwrap();
            heard(&mut stream).await;
        }
        let hasty = GrpcBounds { idle_patience: SHORT, ..PATIENT };
        let (address, _stop, _served) = open(hasty).await;
        let mut idle = greet(&address, &[PREFACE, NO_SETTINGS, &check()].concat()).await;
        let answer = heard(&mut idle).await;
        assert!(answer.windows(7).any(|part| part == b"\0\0\0\0\x02\x08\x02"), "NOT_SERVING: {answer:?}");
        let hasty = GrpcBounds { reader_patience: SHORT, ..PATIENT };
        let (address, _stop, _served) = open(hasty).await;
        let mut stuck = greet(&address, &[PREFACE, NO_WINDOW, &check()].concat()).await;
        heard(&mut stuck).await;
    }

    #[tokio::test]
    async fn bytes_that_are_no_http2_end_their_connection() {
        let (address, _stop, _served) = open(PATIENT).await;
        for bytes in
            [&b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"\x16\x03\x01\0\xff this is TLS, not HTTP/2"]
        {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            heard(&mut stream).await;
        }
    }

    #[tokio::test]
    async fn doors_that_close_take_no_connections_and_end_those_that_are_idle() {
        let (address, stop, served) = open(PATIENT).await;
        let mut stream = greet(&address, &[PREFACE, NO_SETTINGS].concat()).await;
        stop.send_replace(true);
        served.await.unwrap();
        heard(&mut stream).await;
        assert!(TcpStream::connect(&address).await.is_err());
    }
}
