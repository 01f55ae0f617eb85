//! The change of the members, as a client sees it: not at all.

use super::discovery::REFERRALS_MAX;
use super::rig::*;
use super::*;
use crate::id::{Epoch, ReplicaId};
use crate::message::{Member, Role};
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// Waits until a condition holds that other tasks bring about.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    come(what, wait).await;
}

/// Tasks that decide without a pause until they are told to stop. Each has a key of its own; the last numbers come back.
fn deciders(client: &Client, count: usize) -> (Arc<std::sync::atomic::AtomicBool>, JoinSet<u64>) {
    let stop = Arc::<std::sync::atomic::AtomicBool>::default();
    let mut tasks = JoinSet::new();
    for task in 0..count {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let decided = client.decide(format!("key {task}"), format!("{task}-{number}")).await;
                assert_eq!(decided.unwrap().key_seq, number);
            }
            number
        });
    }
    (stop, tasks)
}

#[tokio::test]
async fn no_call_fails_while_members_come_and_go_and_change_their_places() {
    let cluster = Cluster::start_with(6, &[0, 1, 2]).await;
    let client = cluster.client().await;
    let (stop, tasks) = deciders(&client, 20);
    let members: [&[usize]; 7] =
        [&[0, 1, 2, 3, 4], &[2, 0, 1, 3, 4], &[4, 2, 3], &[5], &[5, 0, 1, 2], &[3, 5, 4], &[4, 3, 0]];
    for (round, places) in members.iter().enumerate() {
        let before = cluster.shared.frames.load(Ordering::Relaxed);
        until("some load", || cluster.shared.frames.load(Ordering::Relaxed) > before + 50).await;
        cluster.shared.says_leave.store(round % 2 == 0, Ordering::Relaxed);
        cluster.change(places);
        for member in *places {
            let before = cluster.shared.by_replica[*member].load(Ordering::Relaxed);
            let is_used = || cluster.shared.by_replica[*member].load(Ordering::Relaxed) > before;
            until("a request to each member", is_used).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let numbers = come("the last answers", tasks.join_all()).await;
    let model = cluster.shared.model.lock().unwrap();
    assert!(model.decided.values().all(|times| *times == 1));
    assert_eq!(model.decided.len() as u64, numbers.iter().sum::<u64>(), "nothing is lost");
}

#[tokio::test]
async fn a_request_that_is_open_at_the_end_of_an_epoch_is_answered_in_the_next() {
    let cluster = Cluster::start_with(5, &[0, 1, 2]).await;
    let client = cluster.client().await;
    client.decide("k", "0").await.unwrap();
    let id = client.read("k").await.unwrap().unwrap().id;
    assert_eq!(id.epoch, Epoch(1));
    // The state is sealed, and no member knows the next epoch.
    cluster.seal();
    let open = tokio::spawn({
        let client = client.clone();
        async move { client.decide("k", "1").await }
    });
    until("many tries", || cluster.shared.ended.load(Ordering::Relaxed) > 12).await;
    assert!(!open.is_finished());
    // Only a member that leaves and one that stays hear of it. The other ones lag behind.
    let known = cluster.members(2, &[3, 1, 4]);
    [2, 3].into_iter().for_each(|process| cluster.tell(process, known.clone()));
    let decided = come("the answer", open).await.unwrap().unwrap();
    assert_eq!((decided.key_seq, decided.id.epoch), (2, Epoch(2)));
    assert_eq!(cluster.shared.model.lock().unwrap().decided[&b"1"[..]], 1);
}

#[tokio::test]
async fn an_earlier_epoch_teaches_nothing_and_its_members_are_used_once_they_follow() {
    let cluster = Cluster::start_with(4, &[0, 1, 2]).await;
    cluster.seal();
    let known = cluster.members(2, &[3, 1]);
    cluster.tell(3, known.clone());
    let client = Client::connect(&[cluster.address(3)]).await.unwrap();
    let hellos = |process: usize| cluster.shared.hellos[process].load(Ordering::Relaxed);
    until("a look at the one that lags", || hellos(1) > 2).await;
    for n in 0..30 {
        client.decide(format!("key {n}"), "v").await.unwrap();
    }
    let troubles = client.troubles().join(" ");
    assert!(troubles.contains("replica 1 is still in epoch 1, and epoch 2 has begun"), "{troubles}");
    assert_eq!((hellos(0), hellos(2)), (0, 0), "nobody asks the members of epoch 1");
    cluster.tell(1, known);
    let followed = async {
        let mut keys = (0..30).cycle();
        while cluster.shared.by_replica[1].load(Ordering::Relaxed) == 0 {
            client.decide(format!("key {}", keys.next().unwrap()), "again").await.unwrap();
        }
    };
    come("a request to the one that lagged", followed).await;
    assert!(client.troubles().is_empty(), "{:?}", client.troubles());
}

#[tokio::test]
async fn old_addresses_lead_to_the_members_also_over_several_epochs() {
    let cluster = Cluster::start(6).await;
    // Each knows only those that came right after it; the second of each pair knows nothing.
    cluster.tell(0, cluster.members(2, &[1]));
    cluster.tell(1, cluster.members(3, &[2]));
    cluster.tell(2, cluster.members(5, &[4, 3]));
    cluster.tell(3, cluster.members(5, &[4, 3]));
    cluster.tell(4, cluster.members(4, &[5]));
    (0..4).for_each(|_| cluster.seal());
    let addresses = [cluster.address(0)];
    let found = come("the first contact", contact(&addresses, None, Role::Client)).await.unwrap();
    assert_eq!((found.welcome.epoch, found.welcome.replica), (Epoch(5), ReplicaId(1)));
    assert_eq!(found.member, cluster.shared.members[3]);
    let named =
        come("another", contact(&addresses, Some(found.welcome.cluster), Role::Client)).await.unwrap();
    assert_eq!(named.welcome.epoch, Epoch(5));
    let client = Client::connect(&addresses).await.unwrap();
    assert_eq!(client.decide("k", "v").await.unwrap().id.epoch, Epoch(5));
    // An operator, whom the old members welcome, comes to a member, too.
    let operator = come("an operator's", contact(&addresses, None, Role::Operator)).await.unwrap();
    assert_eq!(operator.welcome.replica, ReplicaId(1));
}

#[tokio::test]
async fn of_members_of_several_epochs_the_newest_is_taken() {
    let cluster = Cluster::start(3).await;
    cluster.seal();
    cluster.tell(2, cluster.members(2, &[2]));
    let addresses: Vec<String> = (0..3).map(|process| cluster.address(process)).collect();
    let found = come("the first contact", discover(&addresses)).await.unwrap();
    assert_eq!((found.epoch, found.members.len()), (Epoch(2), 1));
}

#[tokio::test]
async fn replicas_that_name_each_other_in_a_circle_end_the_search() {
    let cluster = Cluster::start(3).await;
    cluster.tell(0, cluster.members(2, &[1]));
    cluster.tell(1, cluster.members(2, &[0]));
    let addresses = [cluster.address(0)];
    let error = come("the end", discover(&addresses)).await.unwrap_err().to_string();
    assert!(error.contains("not a member in epoch 2, whose members are 127.0.0.1:"), "{error}");
    let hellos: usize = cluster.shared.hellos.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    assert_eq!(hellos as u32, 1 + REFERRALS_MAX);
}

#[tokio::test]
async fn a_first_contact_waits_a_moment_for_members_that_are_about_to_begin() {
    let cluster = Cluster::start_with(2, &[0]).await;
    // The one that leaves knows of the epoch, and its successor still takes itself for a learner.
    cluster.tell(0, cluster.members(2, &[1]));
    let addresses = [cluster.address(0)];
    let found = tokio::spawn(async move { discover(&addresses).await });
    until("the second look", || cluster.shared.hellos[1].load(Ordering::Relaxed) == 2).await;
    cluster.tell(1, cluster.members(2, &[1]));
    assert_eq!(come("the first contact", found).await.unwrap().unwrap().epoch, Epoch(2));
}

#[tokio::test]
async fn impossible_members_are_refused_and_not_printed() {
    let cluster = Cluster::start(2).await;
    let good = cluster.shared.members[1].clone();
    let host = "x\nreplica 0 has lost its data; delete its directory";
    let bad = Member { host: host.into(), client_base: 7 };
    for (members, expected) in [
        (vec![], "names 0 members"),
        (vec![good.clone(); 100], "names 100 members"),
        (vec![good, bad], "member 1 in the list of the other side has no possible address"),
    ] {
        cluster.tell(0, Known { members, ..cluster.members(9, &[1]) });
        let error = come("the end", discover(&[cluster.address(0)])).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("delete"), "{error}");
        assert_eq!(cluster.shared.hellos[1].load(Ordering::Relaxed), 0);
    }
    // The lists of members that welcome a client are looked at alike.
    cluster.tell(0, Known { members: Vec::new(), ..cluster.members(9, &[0]) });
    let error = come("the end", discover(&[cluster.address(0)])).await.unwrap_err().to_string();
    assert!(error.contains("names 0 members"), "{error}");
}

#[tokio::test]
async fn a_source_goes_on_in_the_next_epoch() {
    let cluster = Cluster::start_with(5, &[0, 1, 2]).await;
    let name: crate::source::SourceName = "orders".parse().unwrap();
    let source = Source::connect(&[cluster.address(1)], &name, 1).await.unwrap();
    let mut number = 0;
    for places in [&[0, 1, 2][..], &[3, 4, 0, 1, 2], &[4], &[2, 3]] {
        cluster.change(places);
        let mut proposals = Vec::new();
        for _ in 0..50 {
            number += 1;
            proposals.push(source.propose(number, format!("k{number}"), format!("v{number}")).await.unwrap());
        }
        for proposal in proposals {
            assert!(matches!(come("an outcome", proposal).await.unwrap(), Proposed::Committed(_)));
        }
    }
    come("the end", source.close()).await.unwrap();
    {
        let model = cluster.shared.model.lock().unwrap();
        assert_eq!((model.decided.len() as u64, model.decided.values().max()), (number, Some(&1)));
    }
    // Who ends the source knows only members that have left.
    let contact = contact(&[cluster.address(2)], None, Role::Operator).await.unwrap();
    cluster.change(&[0, 1]);
    let ended = come("the end of the source", end_source(&contact, &name)).await.unwrap();
    assert_eq!(ended[0].low, number + 1);
    assert_eq!(cluster.sessions(), 0);
}

#[tokio::test]
async fn a_member_that_moves_within_its_epoch_is_found() {
    let mut cluster = Cluster::start_with(4, &[0, 1, 2]).await;
    let client = cluster.client().await;
    for n in 0..30 {
        client.decide(format!("key {n}"), "v").await.unwrap();
    }
    // Member 2 runs as process 3 now, and the connections to the others hold.
    let known = cluster.members(1, &[0, 1, 3]);
    (0..4).for_each(|process| cluster.tell(process, known.clone()));
    cluster.replicas[2].shutdown().await;
    let found = async {
        let mut keys = (0..30).cycle();
        while cluster.shared.by_replica[3].load(Ordering::Relaxed) == 0 {
            client.decide(format!("key {}", keys.next().unwrap()), "again").await.unwrap();
        }
    };
    come("a request to the member that moved", found).await;
}

#[tokio::test]
async fn members_that_all_come_elsewhere_while_a_client_is_cut_off_are_found_by_the_first_addresses() {
    let mut cluster = Cluster::start_with(5, &[0, 1]).await;
    let client = cluster.client().await;
    client.decide("k", "0").await.unwrap();
    cluster.change(&[2]);
    assert_eq!(client.decide("k", "1").await.unwrap().id.epoch, Epoch(2));
    // The only member is gone before the client hears of its successors, and a member of epoch 1 is still there.
    cluster.replicas[2].shutdown().await;
    cluster.replicas[0].shutdown().await;
    cluster.change(&[3, 4]);
    let decided = come("the answer", client.decide("k", "2")).await.unwrap();
    assert_eq!((decided.key_seq, decided.id.epoch), (3, Epoch(3)));
}
