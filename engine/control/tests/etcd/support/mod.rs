//! What the tests share: etcds of their own, a proxy that loses answers, certificates, and clusters to keep there.

pub(crate) mod certificates;
pub(crate) mod log;
pub(crate) mod proxy;
pub(crate) mod server;

use isonomy_control::id::{ChangeId, Incarnation, MemberId, RecordId};
use isonomy_control::plan::{Change, Founding, Stands, activate, announce, claim, found};
use isonomy_control::record::{Address, Record, Stage, State};
use isonomy_control::service::{Options, Service, View};
use isonomy_control::settings::Settings;
use isonomy_control::store::Store;
use isonomy_control::{Error, Presence};
use isonomy_wire::id::ClusterId;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long anything that must happen may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The name of the cluster in most tests.
pub(crate) const CLUSTER: &str = "orders";
/// The prefix of that cluster.
pub(crate) const PREFIX: &str = "/isonomy/orders/";
/// The key of that cluster's record.
pub(crate) const KEY: &str = "/isonomy/orders/epoch";

pub(crate) fn settings(endpoints: &[String]) -> Settings {
    Settings { endpoints: endpoints.to_vec(), prefix: PREFIX.into(), user: None, tls: None }
}

pub(crate) fn store(endpoints: &[String]) -> Store {
    Store::new(Arc::new(settings(endpoints)), CLUSTER).unwrap()
}

pub(crate) fn address(n: u8) -> Address {
    Address { host: format!("h{n}"), peer_base: 7100, client_base: 7400 }
}

/// A record of a cluster of three that have started; each call makes another one.
pub(crate) fn record() -> Record {
    let founding = Founding {
        cluster: CLUSTER.into(),
        cluster_id: ClusterId::of_name(CLUSTER),
        shards: 1,
        addresses: (0..3).map(address).collect(),
        stands: Stands { f: 1, e: 1 },
        epoch: 1,
    };
    let first = found(founding, RecordId::random()).unwrap();
    (0..3).fold(first, |record, n| claim(&record, MemberId(n), directory(n)).unwrap())
}

/// The announcement of a fourth member.
pub(crate) fn changing(record: &Record) -> Record {
    announced(record, &Change::Add(address(3)), false)
}

/// The announcement of a change while all members live.
pub(crate) fn announced(record: &Record, change: &Change, is_held: bool) -> Record {
    let stands = |n| if n < 3 { Stands { f: 0, e: 0 } } else { Stands { f: 1, e: 1 } };
    let living = (0..9).map(directory).collect();
    announce(record, change, ChangeId::random(), is_held, stands, &living).unwrap()
}

/// The epoch after a record: that of its change, or another one with the same members.
pub(crate) fn next(record: &Record) -> Record {
    let same = (ChangeId::random(), record.membership.clone());
    let (change, to) = match &record.state {
        State::Active => same,
        State::Changing { change, to, .. } => (*change, to.clone()),
    };
    let holders = to.members.iter().filter_map(|member| Some((member.incarnation?, 7))).collect();
    let state = State::Changing { change, to, stage: Stage::Sealing };
    activate(&Record { state, ..record.clone() }, &holders).unwrap()
}

/// The data directory of a member.
pub(crate) fn directory(n: u8) -> Incarnation {
    Incarnation(u128::from(n) + 1)
}

pub(crate) fn presence(n: u8) -> Presence {
    Presence { id: MemberId(n), incarnation: directory(n), address: address(n) }
}

/// Follows the cluster, with a file in `dir`.
pub(crate) fn follow(endpoints: &[String], dir: &Path) -> Service {
    Service::start(options(endpoints, dir)).unwrap()
}

pub(crate) fn options(endpoints: &[String], dir: &Path) -> Options {
    Options {
        settings: settings(endpoints),
        cluster: CLUSTER.into(),
        cache: dir.join("membership.json"),
        presence: None,
        life: Duration::from_secs(3),
    }
}

/// Waits until a service has a view of some kind.
pub(crate) async fn until(service: &Service, what: &str, is_it: impl Fn(&View) -> bool) -> View {
    let mut views = service.views();
    match tokio::time::timeout(PATIENCE, views.wait_for(|view| is_it(view))).await {
        Ok(view) => view.unwrap().clone(),
        Err(_) => panic!("{what}: not within {PATIENCE:?}: {:#?}", service.view()),
    }
}

/// Waits until a service follows a record.
pub(crate) async fn until_follows(service: &Service, record: &Record) -> View {
    until(service, "a record is followed", |view| {
        view.unfollowed.is_none() && view.record.as_deref() == Some(record)
    })
    .await
}

/// Does something until etcd answers.
pub(crate) async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let patient = async {
        loop {
            match ask().await {
                Err(Error::Unreachable(_) | Error::Unsettled(_)) => {}
                answer => return answer.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, patient).await.expect("etcd answers in the end")
}
