//! What an error of etcd-client means: whether another endpoint, or a later try, may do better.

use crate::error::Error;
use std::error::Error as _;

/// The codes of gRPC, as far as etcd uses them.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// The words of etcd for a wrong user, a wrong password, none where one is needed, and one where none is.
const PASSWORD_WORDS: [&str; 3] =
    ["authentication failed", "user name is empty", "authentication is not enabled"];
/// The words of TLS for what another try does not mend.
const TLS_WORDS: [&str; 4] = ["certificate", "fatal alert", "corrupt message", "invalid dns name"];

/// What is said of a connection that etcd closes while TLS is agreed on, for example since it asks for a certificate.
const CLOSED_WORDS: [&str; 4] = ["connection closed", "handshake eof", "connection reset", "broken pipe"];

/// Whether what an endpoint did looks like a quarrel about TLS, though nobody says so.
pub(super) fn is_tls_suspected(endpoint: &str, why: &str) -> bool {
    let lower = why.to_lowercase();
    endpoint.starts_with("https://") && CLOSED_WORDS.iter().any(|words| lower.contains(words))
}

/// What an error means.
pub(super) enum Meaning {
    /// Another endpoint or a later try may do better.
    Transient(String),
    /// No other try does better.
    Final(Error),
}

/// What an error of an endpoint means.
pub(super) fn meaning(endpoint: &str, error: &etcd_client::Error) -> Meaning {
    let why = with_causes(error);
    let lower = why.to_lowercase();
    if TLS_WORDS.iter().any(|word| lower.contains(word)) {
        return Meaning::Final(Error::Certificate { endpoint: endpoint.into(), why });
    }
    let code = match error {
        etcd_client::Error::GRpcStatus(status) => i32::from(status.code()),
        etcd_client::Error::LeaseKeepAliveError(words) if words.contains("not found") => {
            return Meaning::Final(Error::LeaseOver);
        }
        etcd_client::Error::LeaseKeepAliveError(_)
        | etcd_client::Error::TransportError(_)
        | etcd_client::Error::WatchError(_) => return Meaning::Transient(why),
        _ => return Meaning::Final(Error::Other { endpoint: endpoint.into(), why }),
    };
    let is_password = PASSWORD_WORDS.iter().any(|words| why.contains(words));
    match code {
        code::UNAUTHENTICATED => Meaning::Final(Error::Password(why)),
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION if is_password => {
            Meaning::Final(Error::Password(why))
        }
        code::PERMISSION_DENIED => Meaning::Final(Error::Permission(why)),
        code::RESOURCE_EXHAUSTED if why.contains("space exceeded") => Meaning::Final(Error::Full(why)),
        code::OUT_OF_RANGE if why.contains("compacted") => Meaning::Final(Error::Compacted(0)),
        _ => Meaning::Transient(why),
    }
}

/// The words of an error and of all that caused it.
fn with_causes(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return error.to_string();
    };
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
