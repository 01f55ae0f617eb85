use super::*;
use crate::config::MemberConfig;

fn config(path: &Path) -> Config {
    let member =
        |n: u16| MemberConfig { host: "127.0.0.1".into(), peer_base: 7100 + n, client_base: 7200 + n };
    Config { shards: 2, ..Config::for_test(path.join("data"), (0..3).map(member).collect()) }
}

#[test]
fn a_directory_keeps_its_identity_and_its_peers() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let first = DataDir::open(&config).unwrap();
    assert!(first.accept_peer(ReplicaId(1), 5).unwrap());
    let incarnation = first.incarnation();
    drop(first);
    let again = DataDir::open(&config).unwrap();
    assert_eq!(again.incarnation(), incarnation);
    assert!(again.accept_peer(ReplicaId(1), 5).unwrap());
    assert!(!again.accept_peer(ReplicaId(1), 6).unwrap(), "a wiped peer comes back as a stranger");
}

#[test]
fn g6_starts_that_take_part_are_counted_and_a_directory_that_was_set_back_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let first = DataDir::open(&config).unwrap().start();
    let again = DataDir::open(&config).unwrap();
    assert_eq!((first.number, again.start().number), (1, 1), "the first has said nothing");
    assert_ne!(first.nonce, again.start().nonce);
    assert!(again.count_start().unwrap() && again.count_start().unwrap());
    drop(again);
    let again = DataDir::open(&config).unwrap();
    assert_eq!(again.start().number, 2);
    let met = Start { number: 4, nonce: 5 };
    assert_eq!(again.met(ReplicaId(2)), None);
    assert!(again.note_start(ReplicaId(2), met).unwrap());
    drop(again);
    let again = DataDir::open(&config).unwrap();
    assert_eq!((again.met(ReplicaId(2)), again.met(ReplicaId(1))), (Some(met), None));
    let older = [Start { number: 3, nonce: 9 }, Start { number: 4, nonce: 6 }];
    assert!(older.iter().all(|older| again.note_start(ReplicaId(2), *older).unwrap()));
    assert_eq!(again.met(ReplicaId(2)), Some(met), "another shard has heard the newer one by then");
    assert_eq!(again.on_set_back("replica 1 has met a later one").reason, Reason::Damaged);
    drop(again);
    for _ in 0..2 {
        let fatal = DataDir::open(&config).unwrap_err();
        assert_eq!(fatal.reason, Reason::Damaged);
        assert!(fatal.to_string().contains("has met a later one"), "{fatal}");
    }
    let identity = look(&config.data_dir).unwrap();
    assert_eq!(identity.starts, 1, "one that is refused counts nothing");
}

#[test]
fn a_directory_of_a_release_that_counted_no_starts_opens() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(DataDir::open(&config).unwrap());
    let path = config.data_dir.join("identity.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let fields = json.as_object_mut().unwrap();
    assert!(fields.remove("starts").is_some() && fields.remove("peer_starts").is_some());
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(DataDir::open(&config).unwrap().start().number, 1);
}

#[test]
fn g6_an_empty_directory_votes_once_all_members_have_accepted_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let first = DataDir::open(&config).unwrap();
    first.on_accepted(ReplicaId(1)).unwrap();
    first.on_accepted(ReplicaId(1)).unwrap();
    assert!(!first.is_formed());
    drop(first);
    let again = DataDir::open(&config).unwrap();
    again.on_accepted(ReplicaId(2)).unwrap();
    assert!(!again.is_formed(), "each start asks all");
    again.on_accepted(ReplicaId(1)).unwrap();
    assert!(again.is_formed());
    drop(again);
    assert!(DataDir::open(&config).unwrap().is_formed());
}

/// What the file says now; a copy in memory would not do.
fn written(config: &Config) -> Identity {
    look(&config.data_dir).unwrap()
}

#[test]
fn g6_a_peer_that_was_accepted_before_the_directory_was_formed_is_known_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (one, two) = (ReplicaId(1), ReplicaId(2));
    let open = || DataDir::open(&config).unwrap();
    let first = open();
    assert!(first.accept_peer(one, 5).unwrap() && !first.is_formed());
    assert_eq!(parse(&written(&config).peers[&1]), Some(5), "it is in the file when it counts");
    drop(first);
    // Still not formed, and restarted again.
    let second = open();
    assert_eq!((second.knows_peer(one, 5), second.knows_peer(one, 6)), (Some(true), Some(false)));
    assert!(!second.accept_peer(one, 6).unwrap() && !second.is_formed());
    assert_eq!(second.knows_peer(two, 7), None, "who was not met is not known");
    assert!(second.accept_peer(two, 7).unwrap());
    drop(second);
    let third = open();
    for peer in [one, two] {
        third.on_accepted(peer).unwrap();
    }
    assert!(third.is_formed() && written(&config).formed);
    drop(third);
    let last = open();
    let judged = [(one, 5), (one, 6), (two, 7), (two, 5)].map(|(id, it)| last.accept_peer(id, it).unwrap());
    assert_eq!(judged, [true, false, true, false]);
}

#[test]
fn g6_of_two_incarnations_at_once_one_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let open = DataDir::open(&config).unwrap();
    // Shards meet a peer side by side.
    let meet = |incarnation| {
        let dir = open.clone();
        std::thread::spawn(move || dir.accept_peer(ReplicaId(1), incarnation).unwrap())
    };
    let met: Vec<_> = (1..=8).map(meet).collect();
    let accepted: Vec<bool> = met.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 1, "{accepted:?}");
    let known = parse(&written(&config).peers[&1]).unwrap();
    assert!(accepted[known as usize - 1]);
}

#[test]
fn g6_what_is_not_written_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (peer, start) = (ReplicaId(1), Start { number: 1, nonce: 9 });
    let open = DataDir::open(&config).unwrap();
    // The file cannot be made anew.
    let blocked = config.data_dir.join("identity.tmp");
    fs::create_dir(&blocked).unwrap();
    assert!(open.accept_peer(peer, 5).is_err() && open.knows_peer(peer, 5).is_none());
    assert!(open.note_start(peer, start).is_err() && open.met(peer).is_none());
    assert!(open.count_start().is_err() && !open.is_counted());
    open.on_accepted(peer).unwrap();
    assert!(open.on_accepted(ReplicaId(2)).is_err() && !open.is_formed());
    fs::remove_dir(&blocked).unwrap();
    assert!(open.accept_peer(peer, 6).unwrap(), "nobody was accepted before");
    open.on_accepted(ReplicaId(2)).unwrap();
    assert!(open.is_formed() && written(&config).formed);
}

#[test]
fn g6_nobody_forms_a_directory_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    // Whoever is accepted by one after the other, with restarts in between, was never accepted by all.
    for _ in 0..2 {
        for peer in [1, 2] {
            let open = DataDir::open(&config).unwrap();
            open.on_accepted(ReplicaId(peer)).unwrap();
            assert!(!open.is_formed() && !written(&config).formed, "by replica {peer} alone");
        }
    }
}

#[test]
fn it_is_refused_to_anyone_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let open = DataDir::open(&config).unwrap();
    let refused = |config: &Config| {
        let fatal = DataDir::open(config).unwrap_err();
        assert_eq!(fatal.reason, Reason::DataDir);
        fatal.to_string()
    };
    assert!(refused(&config).contains("another process"));
    drop(open);
    assert!(refused(&Config { cluster: "other".into(), ..config.clone() }).contains("'test'"));
    assert!(refused(&Config { replica: ReplicaId(1), ..config.clone() }).contains("replica 0"));
    assert!(refused(&Config { shards: 3, ..config.clone() }).contains("2 shards"));
}

#[test]
fn a_directory_with_other_files_is_no_place_for_a_new_replica() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    fs::create_dir_all(config.data_dir.join("lost+found")).unwrap();
    fs::write(config.data_dir.join("thesis.tex"), b"years of work").unwrap();
    let refused = DataDir::open(&config).unwrap_err();
    assert_eq!(refused.reason, Reason::DataDir);
    assert!(refused.to_string().contains("thesis.tex is in it"), "{refused}");
    assert_eq!(fs::read_dir(&config.data_dir).unwrap().count(), 2, "nothing was made in it");
    fs::rename(config.data_dir.join("thesis.tex"), dir.path().join("thesis.tex")).unwrap();
    drop(DataDir::open(&config).unwrap());
    // What comes to a replica's directory later does not keep it from starting.
    fs::write(config.data_dir.join("notes"), b"").unwrap();
    DataDir::open(&config).unwrap();
}

#[test]
fn one_that_lost_its_identity_is_not_taken_for_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(DataDir::open(&config).unwrap());
    fs::write(shard_dir(&config.data_dir, ShardId(1)).join("000000000001.log"), b"").unwrap();
    drop(DataDir::open(&config).unwrap());
    fs::remove_file(config.data_dir.join("identity.json")).unwrap();
    let fatal = DataDir::open(&config).unwrap_err();
    assert_eq!(fatal.reason, Reason::DataDir);
    assert!(fatal.to_string().contains("no identity.json"), "{fatal}");
    assert!(look(&config.data_dir).is_err());
}

#[test]
fn d6_one_that_lost_a_shard_is_not_taken_for_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(DataDir::open(&config).unwrap());
    let lost = shard_dir(&config.data_dir, ShardId(1));
    fs::remove_dir(&lost).unwrap();
    let fatal = DataDir::open(&config).unwrap_err();
    assert_eq!(fatal.reason, Reason::Damaged);
    assert!(fatal.to_string().contains("shard-001") && !lost.exists(), "{fatal}");
}

#[test]
fn d6_what_a_log_has_reached_is_known_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let first = DataDir::open(&config).unwrap();
    let reached = |dir: &DataDir, shard| dir.known(ShardId(shard), 0).reached;
    assert_eq!(reached(&first, 1), Position(0));
    first.note_reached(ShardId(1), Position(7)).unwrap();
    first.note_reached(ShardId(1), Position(5)).unwrap();
    drop(first);
    let again = DataDir::open(&config).unwrap();
    assert_eq!((reached(&again, 0), reached(&again, 1)), (Position(0), Position(7)));
    assert_eq!(look(&config.data_dir).unwrap().known(ShardId(1), 3).reached, Position(7));
}

#[test]
fn a_restore_needs_an_empty_directory_and_counts_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let path = &config.data_dir;
    let half = |_| {
        fs::write(shard_dir(path, ShardId(0)).join("snapshot.tmp"), b"half").unwrap();
        Err(data_dir(path, "interrupted"))
    };
    assert!(DataDir::restore(&config, "a", half).unwrap_err().to_string().contains("interrupted"));
    assert!(DataDir::open(&config).unwrap_err().to_string().contains("was interrupted"));
    let again = DataDir::restore(&config, "a", |_| Ok(())).unwrap_err();
    assert_eq!(again.reason, Reason::DataDir);
    assert!(again.to_string().contains("not empty"), "{again}");
    fs::remove_dir_all(&config.data_dir).unwrap();
    fs::create_dir_all(config.data_dir.join("lost+found")).unwrap();
    DataDir::restore(&config, "a", |_| Ok(())).unwrap();
    assert_eq!(look(path).unwrap().shards, 2);
    DataDir::open(&config).unwrap();
}

#[test]
fn a_restored_cluster_is_another_one_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let restored = |name: &str, origin: &str| {
        let config = config(&dir.path().join(name));
        DataDir::restore(&config, origin, |_| Ok(())).unwrap();
        DataDir::open(&config).unwrap().cluster_id()
    };
    let ids = [restored("first", "a"), restored("second", "a"), restored("third", "b")];
    let fresh = DataDir::open(&config(dir.path())).unwrap().cluster_id();
    assert_eq!(fresh, ClusterId::of_name("test"));
    assert_eq!(ids[0], ids[1], "members of one cluster come from one backup");
    assert!(ids[0] != ids[2] && !ids.contains(&fresh));
}
