//! `/livez` and `/readyz`, for supervisors and load balancers.

use crate::limits::SHARD_SILENCE_MAX;
use crate::router::Rooms;
use crate::view::{ReplicaView, ShardView};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use std::fmt::Write as _;
use std::time::Instant;

/// The process runs, and its control thread answers.
pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

/// The replica takes requests: every shard serves and reaches a majority. Neither etcd nor Kafka is needed for that.
pub(crate) async fn ready(State(house): Rooms, RawQuery(query): RawQuery) -> impl IntoResponse {
    let checks = checks(&house.shown.look(), Instant::now());
    let is_ready = are_passed(&checks);
    let wants_all = query.is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    let mut text = String::new();
    for Check { name, trouble } in checks {
        match trouble {
            None if wants_all => writeln!(text, "[+] {name}: ok"),
            None => Ok(()),
            Some(trouble) => writeln!(text, "[-] {name}: {trouble}"),
        }
        .expect("writing to memory cannot fail");
    }
    text += if is_ready { "ready\n" } else { "not ready\n" };
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

/// The same as one word.
pub(crate) fn is_ready(view: &ReplicaView, now: Instant) -> bool {
    are_passed(&checks(view, now))
}

fn are_passed(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.trouble.is_none())
}

/// Something that must be so for the replica to be ready.
#[derive(PartialEq, Eq, Debug)]
struct Check {
    name: String,
    trouble: Option<String>,
}

fn checks(view: &ReplicaView, now: Instant) -> Vec<Check> {
    let trouble = (!view.welcome.is_member()).then(|| {
        let epoch = view.welcome.epoch.0;
        format!("this replica is not one of the members of epoch {epoch}; see isonomy member list")
    });
    let member = Check { name: "member".into(), trouble };
    let needed = view.welcome.members.len() / 2 + 1;
    let shards = view.shards.iter().enumerate().map(|(index, shard)| {
        let trouble = trouble_of(shard, needed, now);
        Check { name: format!("shard {index}"), trouble }
    });
    std::iter::once(member).chain(shards).collect()
}

/// Why a shard takes no requests.
fn trouble_of(shard: &ShardView, needed: usize, now: Instant) -> Option<String> {
    if !shard.is_serving {
        return Some("it does not serve yet; its log is being read".into());
    }
    let (Some(status), Some(told)) = (&shard.status, shard.told) else {
        return Some("it serves, and has not told its state yet".into());
    };
    let silent = now.saturating_duration_since(told);
    if silent > SHARD_SILENCE_MAX {
        return Some(format!("it has said nothing for {} s; see the log of the replica", silent.as_secs()));
    }
    if status.is_learner {
        return Some("it is a learner, which still copies the state of the members".into());
    }
    if status.disk_hung_ms > 0 {
        return Some(format!("its disk has not answered for {} ms; check the disk", status.disk_hung_ms));
    }
    let reached = status.peers_connected.len() + 1;
    (reached < needed)
        .then(|| format!("it reaches {reached} replicas, itself included, and {needed} are needed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{ClusterId, Epoch, ReplicaId};
    use isonomy_wire::message::{Member, ShardStatus, Welcome};
    use std::sync::Arc;

    fn view(now: Instant, status: ShardStatus) -> ReplicaView {
        let members = vec![Member { host: "db".into(), client_base: 7400 }; 3];
        let (cluster, epoch, replica) = (ClusterId(1), Epoch(1), ReplicaId(0));
        let welcome = Welcome { cluster, epoch, replica, shards: 1, members, durable: true };
        let shard = ShardView { is_serving: true, status: Some(Arc::new(status)), told: Some(now) };
        ReplicaView { address: "db:7400".into(), welcome, shards: vec![shard], is_etcd_reached: None }
    }

    fn troubles(view: &ReplicaView, now: Instant) -> Vec<String> {
        checks(view, now).into_iter().filter_map(|check| check.trouble).collect()
    }

    #[test]
    fn ready_is_who_serves_and_reaches_a_majority() {
        let now = Instant::now();
        let reaches = |peers: &[u8]| ShardStatus {
            peers_connected: peers.iter().map(|peer| ReplicaId(*peer)).collect(),
            ..ShardStatus::default()
        };
        assert!(troubles(&view(now, reaches(&[2])), now).is_empty());
        assert!(troubles(&view(now, reaches(&[])), now)[0].contains("it reaches 1 replicas"));
        assert!(troubles(&view(now, reaches(&[2])), now + SHARD_SILENCE_MAX * 2)[0].contains("10 s"));
        let hung = ShardStatus { disk_hung_ms: 700, ..reaches(&[1, 2]) };
        assert!(troubles(&view(now, hung), now)[0].contains("700 ms"));
        let learns = ShardStatus { is_learner: true, ..reaches(&[1, 2]) };
        assert!(troubles(&view(now, learns), now)[0].contains("learner"));
        let mut starting = view(now, reaches(&[1, 2]));
        starting.shards.push(ShardView::default());
        assert!(troubles(&starting, now)[0].contains("does not serve yet"));
        starting.shards[1].is_serving = true;
        assert!(troubles(&starting, now)[0].contains("not told"));
        let mut outside = view(now, reaches(&[1, 2]));
        outside.welcome.replica = ReplicaId(u8::MAX);
        assert!(troubles(&outside, now)[0].contains("not one of the members"));
    }
}
