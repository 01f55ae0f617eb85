//! What one client sends for one key takes effect in the order in which it was sent (law, S2), although the
//! replica that it was sent to stands still in the middle, and wakes up with what it had been sent.

mod support;

use isonomy_wire::client::{Client, Proposal, Proposed, discover};
use isonomy_wire::conversation::Config;
use rustix::process::Signal;
use std::time::Duration;
use support::{Cluster, PATIENCE};

/// Enough that each replica is the home of some.
const KEYS: usize = 24;
/// Before a replica stands still, while it does, and after that.
const ROUNDS: [u32; 3] = [10, 60, 20];
/// Between two of them, so that the requests under way are of different age when their replica falls
/// silent: each had its own patience once.
const PACE: Duration = Duration::from_millis(20);

async fn connect(cluster: &Cluster) -> Client {
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config {
        // Many frames of a key are under way at once.
        frame_commands: 8,
        deadline_us: PATIENCE.as_micros() as u64,
        ..Config::of(&welcome)
    };
    Client::with(welcome, config)
}

/// Decides all keys so many times, without waiting for answers.
async fn propose(client: &Client, rounds: std::ops::Range<u32>, sent: &mut [Vec<Proposal>]) {
    for round in rounds {
        for (key, proposals) in sent.iter_mut().enumerate() {
            let proposal = client.propose(format!("key {key}"), round.to_string()).await;
            proposals.push(proposal.unwrap());
        }
        tokio::time::sleep(PACE).await;
    }
}

#[tokio::test]
async fn s2_commands_of_a_key_keep_their_order_while_its_home_stands_still() {
    let cluster = Cluster::start(3, 1);
    let client = connect(&cluster).await;
    for paused in 0..3 {
        let mut sent: Vec<Vec<Proposal>> = (0..KEYS).map(|_| Vec::new()).collect();
        let [before, during, after] = ROUNDS;
        propose(&client, 0..before, &mut sent).await;
        cluster.signal(paused, Signal::STOP);
        propose(&client, before..before + during, &mut sent).await;
        // The others have decided all of it when this one is: it was sent last.
        let last = client.propose("key 0", "the last but those that follow").await.unwrap();
        last.await.unwrap();
        cluster.signal(paused, Signal::CONT);
        propose(&client, before + during..before + during + after, &mut sent).await;
        for (key, proposals) in sent.into_iter().enumerate() {
            let mut highest = 0;
            for proposal in proposals {
                let Proposed::Committed(committed) = proposal.await.unwrap() else {
                    panic!("key {key}: nothing is decided before")
                };
                assert!(committed.key_seq > highest, "key {key}: decision {} came late", committed.key_seq);
                highest = committed.key_seq;
            }
            let found = client.read(format!("key {key}")).await.unwrap().expect("it was decided");
            assert_eq!(found.value, (before + during + after - 1).to_string(), "key {key}");
        }
    }
    client.close().await;
    cluster.wait_agreed();
}
