//! The connections of gRPC.

use super::body::{Kind, Meter, Metered};
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
    b"\0\0\0\x04\0\0\0\0\0\0\0\x1e\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0bno place for more clients";

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    /// How long a connection may take until its first call.
    pub(super) head_patience: Duration,
    /// How long it is kept without calls after that.
    pub(super) idle_patience: Duration,
    /// How long a reader may take nothing of an answer.
    pub(super) reader_patience: Duration,
    pub(super) look_every: Duration,
}

pub(super) const BOUNDS: Bounds = Bounds {
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

pub(super) async fn serve_within(listener: &TcpListener, house: &Arc<House>, bounds: Bounds) {
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
    bounds: Bounds,
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
            _ = stopped.wait_for(|stopped| *stopped), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = looks.tick() => {
                let now = Instant::now();
                let is_idle = calls.is_idle(now, bounds.head_patience, bounds.idle_patience);
                if calls.is_stuck(now, bounds.reader_patience) || is_idle && is_closing {
                    return;
                }
                if is_idle {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
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
        let kind = kind(request.uri().path());
        let meter = Arc::new(Meter::new(&self.room));
        let mut request = request.map(|body| Metered::new(body, kind, self.room.clone(), meter.clone()));
        request.extensions_mut().insert(meter);
        let (answered, call) = (self.router.call(request), self.calls.begin());
        Box::pin(async move { answered.await.map(|answer| answer.map(|body| Answer::new(body, call))) })
    }
}

/// How a call with this path sends.
fn kind(path: &str) -> Kind {
    match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((SERVICE_NAME, "ProposeStream")) => Kind::Proposals,
        Some((SERVICE_NAME, _)) => Kind::Unary,
        _ => Kind::Other,
    }
}
