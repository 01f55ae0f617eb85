//! What can go wrong with etcd.

use crate::bad::BadRecord;
use crate::record::Record;
use crate::settings::BadSettings;
use std::fmt;

/// Why something that was asked of etcd was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadSettings),
    /// No endpoint answers. Nothing was changed.
    #[error(
        "etcd does not answer ({0}); check that it runs, has a leader and is reached from here, and its endpoints"
    )]
    Unreachable(Tried),
    /// No endpoint has answered, and one may have taken what was to be written.
    #[error(
        "etcd has not said whether it took the record ({0}); look what is there when it answers again, \
             and ask again if need be: a record is never written twice"
    )]
    Unsettled(Tried),
    /// etcd and this process do not accept each other's certificates.
    #[error(
        "{endpoint} and this process do not agree on TLS: {why}; check the files of the authority, the own \
             certificate and its key, and that the certificate names the host of the endpoint"
    )]
    Certificate {
        /// The endpoint.
        endpoint: String,
        /// What was found wrong.
        why: String,
    },
    /// etcd does not know the user or the password.
    #[error(
        "etcd refuses the user or the password: {0}; check both, and whether authentication is enabled in etcd"
    )]
    Password(String),
    /// The user may not do that.
    #[error("etcd forbids this: {0}; grant the user read and write access to the whole prefix")]
    Permission(String),
    /// etcd has no room.
    #[error("etcd has no room: {0}; compact and defragment etcd or raise its quota, then disarm its alarm")]
    Full(String),
    /// The revisions asked for are gone.
    #[error("etcd has compacted the revisions before {0}; list again")]
    Compacted(i64),
    /// The lease is over.
    #[error("the lease is over; take another one")]
    LeaseOver,
    /// There is no record.
    #[error("there is no cluster at {0}; initialise one (`isonomy member init`), or check the prefix")]
    Absent(String),
    /// There is a record where one was to be created. Nothing was changed.
    #[error(
        "there is a cluster at {key} already: {there}; nothing was changed. Name another prefix for another cluster"
    )]
    Exists {
        /// The key.
        key: String,
        /// The record that is there.
        there: Box<Record>,
    },
    /// What is there is no record of this cluster. Nothing was changed.
    #[error("what is at {key} cannot be used: {why}; nothing was changed")]
    Bad {
        /// The key.
        key: String,
        /// Why.
        why: BadRecord,
    },
    /// The record has changed since it was read.
    #[error("the record at {key} is not the one that was planned with: {}. Look at it, and plan anew",
            there_now(.there))]
    Moved {
        /// The key.
        key: String,
        /// What is there now.
        there: Option<Box<Record>>,
    },
    /// Anything else that etcd says.
    #[error("{endpoint} answers: {why}; its log says more")]
    Other {
        /// The endpoint.
        endpoint: String,
        /// Its words.
        why: String,
    },
}

fn there_now(record: &Option<Box<Record>>) -> String {
    record.as_ref().map_or_else(|| "nothing is there".into(), |record| record.to_string())
}

/// What each endpoint did when it was tried last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tried(pub Vec<(String, String)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no answer in time");
        }
        let each: Vec<_> = self.0.iter().map(|(endpoint, why)| format!("{endpoint}: {why}")).collect();
        write!(f, "{}", each.join("; "))
    }
}

impl Tried {
    /// Notes what an endpoint did.
    pub(crate) fn note(&mut self, endpoint: &str, why: String) {
        match self.0.iter_mut().find(|(known, _)| known == endpoint) {
            Some((_, last)) => *last = why,
            None => self.0.push((endpoint.into(), why)),
        }
    }
}
