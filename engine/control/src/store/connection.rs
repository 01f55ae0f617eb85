//! One connection to one endpoint at a time. An endpoint that fails gives way to the next, so that a text can say what
//! each of them did.

use super::classify::{Meaning, is_tls_suspected, meaning};
use crate::backoff::Backoff;
use crate::error::{Error, Tried};
use crate::settings::{CONNECT_DEADLINE, Settings};
use etcd_client::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// How often all endpoints are tried, with a pause in between, until a call is given up. Together that is longer than
/// etcd takes to elect a leader.
const ROUNDS_MAX: usize = 5;

/// A connection to etcd.
#[derive(Debug)]
pub(super) struct Connection {
    settings: Arc<Settings>,
    /// The endpoint whose turn it is.
    turn: usize,
    client: Option<Connected>,
}

struct Connected(Client);

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connected")
    }
}

/// Why a call was given up.
pub(super) enum Failed {
    /// No endpoint answers. Whether one of them was sent the call, which it may carry out still.
    Unreachable { tried: Tried, is_sent: bool },
    /// Another try does no better.
    Final(Error),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        match failed {
            Failed::Unreachable { tried, .. } => Error::Unreachable(tried),
            Failed::Final(error) => error,
        }
    }
}

impl Connection {
    pub(super) fn new(settings: Arc<Settings>) -> Connection {
        Connection { settings, turn: 0, client: None }
    }

    /// Calls etcd until an endpoint answers, and returns the answer. A call may be carried out more than once.
    pub(super) async fn call<T>(
        &mut self,
        call: impl AsyncFn(Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, Failed> {
        let (mut tried, mut is_sent, mut distrusted) = (Tried::default(), false, 0);
        let mut backoff = Backoff::new();
        let endpoints = self.settings.endpoints.len();
        for attempt in 0..ROUNDS_MAX * endpoints {
            if attempt > 0 && attempt % endpoints == 0 {
                backoff.wait().await;
            }
            let why = match self.connect().await {
                Ok(client) => {
                    is_sent = true;
                    match within(CALL_DEADLINE, call(client)).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            match self.give_way(why) {
                Meaning::Transient(why) => {
                    distrusted = 0;
                    tried.note(&self.settings.endpoints[self.turn], why);
                }
                // One member of etcd may have a certificate that the others do not have.
                Meaning::Final(Error::Certificate { endpoint, why }) if distrusted + 1 < endpoints => {
                    distrusted += 1;
                    tried.note(&endpoint, why);
                }
                Meaning::Final(error) => return Err(Failed::Final(error)),
            }
            self.turn = (self.turn + 1) % endpoints;
        }
        Err(verdict(tried, is_sent))
    }

    /// The connection failed while an answer was awaited, for example that of a watch.
    pub(super) fn failed(&mut self, error: etcd_client::Error) -> Error {
        match self.give_way(CallFailure::Etcd(error)) {
            Meaning::Final(error) => error,
            Meaning::Transient(why) => {
                let mut tried = Tried::default();
                tried.note(&self.settings.endpoints[self.turn], why);
                self.turn = (self.turn + 1) % self.settings.endpoints.len();
                Error::Unreachable(tried)
            }
        }
    }

    /// A client of the endpoint whose turn it is, which has answered.
    async fn connect(&mut self) -> Result<Client, CallFailure> {
        if let Some(Connected(client)) = &self.client {
            return Ok(client.clone());
        }
        let endpoint = &self.settings.endpoints[self.turn];
        let options = self.settings.options(endpoint).map_err(|error| CallFailure::Settings(error.into()))?;
        let client = within(CONNECT_DEADLINE, async {
            let mut client = Client::connect([endpoint], Some(options)).await?;
            client.status().await?;
            Ok(client)
        })
        .await?;
        self.client = Some(Connected(client.clone()));
        Ok(client)
    }

    fn give_way(&mut self, why: CallFailure) -> Meaning {
        let endpoint = &self.settings.endpoints[self.turn];
        let meaning = match why {
            CallFailure::Settings(error) => Meaning::Final(error),
            CallFailure::Late(deadline) => Meaning::Transient(format!("no answer within {deadline:?}")),
            CallFailure::Etcd(error) => meaning(endpoint, &error),
        };
        self.client = None;
        meaning
    }
}

/// What it means that no endpoint has answered.
fn verdict(tried: Tried, is_sent: bool) -> Failed {
    match tried.0.first() {
        Some((endpoint, why)) if !is_sent && tried.0.iter().all(|(it, why)| is_tls_suspected(it, why)) => {
            Failed::Final(Error::Certificate { endpoint: endpoint.clone(), why: why.clone() })
        }
        _ => Failed::Unreachable { tried, is_sent },
    }
}

/// Why a call or a connection failed.
enum CallFailure {
    Settings(Error),
    Late(Duration),
    Etcd(etcd_client::Error),
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, CallFailure> {
    match timeout(deadline, call).await {
        Ok(answer) => answer.map_err(CallFailure::Etcd),
        Err(_) => Err(CallFailure::Late(deadline)),
    }
}
