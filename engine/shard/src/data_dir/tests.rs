use super::*;

fn expected(path: &Path) -> Expected {
    Expected {
        path: path.join("data"),
        cluster: "test".into(),
        replica: ReplicaId(0),
        replicas: 3,
        shards: 2,
        outlives_power: true,
    }
}

#[test]
fn a_directory_keeps_its_identity_and_its_peers() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = DataDir::open(&expected).unwrap();
    assert!(first.accept_peer(ReplicaId(1), 5).unwrap());
    let incarnation = first.incarnation();
    drop(first);
    let again = DataDir::open(&expected).unwrap();
    assert_eq!(again.incarnation(), incarnation);
    assert!(again.accept_peer(ReplicaId(1), 5).unwrap());
    assert!(!again.accept_peer(ReplicaId(1), 6).unwrap(), "a wiped peer comes back as a stranger");
}

#[test]
fn g6_starts_that_take_part_are_counted_and_a_directory_that_was_set_back_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = DataDir::open(&expected).unwrap().start();
    let again = DataDir::open(&expected).unwrap();
    assert_eq!((first.number, again.start().number), (1, 1), "the first has said nothing");
    assert_ne!(first.nonce, again.start().nonce);
    assert!(again.count_start().unwrap() && again.count_start().unwrap());
    drop(again);
    let again = DataDir::open(&expected).unwrap();
    assert_eq!(again.start().number, 2);
    let met = Start { number: 4, nonce: 5 };
    assert_eq!(again.met(ReplicaId(2)), None);
    assert!(again.note_start(ReplicaId(2), met).unwrap());
    drop(again);
    let again = DataDir::open(&expected).unwrap();
    assert_eq!((again.met(ReplicaId(2)), again.met(ReplicaId(1))), (Some(met), None));
    let older = [Start { number: 3, nonce: 9 }, Start { number: 4, nonce: 6 }];
    assert!(older.iter().all(|older| again.note_start(ReplicaId(2), *older).unwrap()));
    assert_eq!(again.met(ReplicaId(2)), Some(met), "another shard has heard the newer one by then");
    assert_eq!(again.on_set_back("replica 1 has met a later one").reason, Reason::Damaged);
    drop(again);
    for _ in 0..2 {
        let fatal = DataDir::open(&expected).unwrap_err();
        assert_eq!(fatal.reason, Reason::Damaged);
        assert!(fatal.to_string().contains("has met a later one"), "{fatal}");
    }
    let identity = look(&expected.path).unwrap();
    assert_eq!(identity.starts, 1, "one that is refused counts nothing");
}

#[test]
fn a_directory_of_a_release_that_counted_no_starts_opens() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    drop(DataDir::open(&expected).unwrap());
    let path = expected.path.join("identity.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let fields = json.as_object_mut().unwrap();
    assert!(fields.remove("starts").is_some() && fields.remove("peer_starts").is_some());
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(DataDir::open(&expected).unwrap().start().number, 1);
}

#[test]
fn g6_an_empty_directory_votes_once_all_members_have_accepted_it() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = DataDir::open(&expected).unwrap();
    first.on_accepted(ReplicaId(1)).unwrap();
    first.on_accepted(ReplicaId(1)).unwrap();
    assert!(!first.is_formed());
    drop(first);
    let again = DataDir::open(&expected).unwrap();
    again.on_accepted(ReplicaId(2)).unwrap();
    assert!(!again.is_formed(), "each start asks all");
    again.on_accepted(ReplicaId(1)).unwrap();
    assert!(again.is_formed());
    drop(again);
    assert!(DataDir::open(&expected).unwrap().is_formed());
}

/// What the file says now; a copy in memory would not do.
fn written(expected: &Expected) -> Identity {
    look(&expected.path).unwrap()
}

#[test]
fn g6_a_peer_that_was_accepted_before_the_directory_was_formed_is_known_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let (one, two) = (ReplicaId(1), ReplicaId(2));
    let open = || DataDir::open(&expected).unwrap();
    let first = open();
    assert!(first.accept_peer(one, 5).unwrap() && !first.is_formed());
    assert_eq!(parse(&written(&expected).peers[&1]), Some(5), "it is in the file when it counts");
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
    assert!(third.is_formed() && written(&expected).formed);
    drop(third);
    let last = open();
    let judged = [(one, 5), (one, 6), (two, 7), (two, 5)].map(|(id, it)| last.accept_peer(id, it).unwrap());
    assert_eq!(judged, [true, false, true, false]);
}

#[test]
fn g6_of_two_incarnations_at_once_one_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let open = DataDir::open(&expected).unwrap();
    // Shards meet a peer side by side.
    let meet = |incarnation| {
        let dir = open.clone();
        std::thread::spawn(move || dir.accept_peer(ReplicaId(1), incarnation).unwrap())
    };
    let met: Vec<_> = (1..=8).map(meet).collect();
    let accepted: Vec<bool> = met.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 1, "{accepted:?}");
    let known = parse(&written(&expected).peers[&1]).unwrap();
    assert!(accepted[known as usize - 1]);
}

#[test]
fn g6_what_is_not_written_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let (peer, start) = (ReplicaId(1), Start { number: 1, nonce: 9 });
    let open = DataDir::open(&expected).unwrap();
    // The file cannot be made anew.
    let blocked = expected.path.join("identity.tmp");
    fs::create_dir(&blocked).unwrap();
    assert!(open.accept_peer(peer, 5).is_err() && open.knows_peer(peer, 5).is_none());
    assert!(open.note_start(peer, start).is_err() && open.met(peer).is_none());
    assert!(open.count_start().is_err() && !open.is_counted());
    open.on_accepted(peer).unwrap();
    assert!(open.on_accepted(ReplicaId(2)).is_err() && !open.is_formed());
    fs::remove_dir(&blocked).unwrap();
    assert!(open.accept_peer(peer, 6).unwrap(), "nobody was accepted before");
    open.on_accepted(ReplicaId(2)).unwrap();
    assert!(open.is_formed() && written(&expected).formed);
}

#[test]
fn g6_nobody_forms_a_directory_alone() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    // Whoever is accepted by one after the other, with restarts in between, was never accepted by all.
    for _ in 0..2 {
        for peer in [1, 2] {
            let open = DataDir::open(&expected).unwrap();
            open.on_accepted(ReplicaId(peer)).unwrap();
            assert!(!open.is_formed() && !written(&expected).formed, "by replica {peer} alone");
        }
    }
}

#[test]
fn it_is_refused_to_anyone_else() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let open = DataDir::open(&expected).unwrap();
    let refused = |expected: &Expected| {
        let fatal = DataDir::open(expected).unwrap_err();
        assert_eq!(fatal.reason, Reason::DataDir);
        fatal.to_string()
    };
    assert!(refused(&expected).contains("another process"));
    drop(open);
    assert!(refused(&Expected { cluster: "other".into(), ..expected.clone() }).contains("'test'"));
    assert!(refused(&Expected { replica: ReplicaId(1), ..expected.clone() }).contains("replica 0"));
    assert!(refused(&Expected { shards: 3, ..expected.clone() }).contains("2 shards"));
}

#[test]
fn a_directory_with_other_files_is_no_place_for_a_new_replica() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    fs::create_dir_all(expected.path.join("lost+found")).unwrap();
    fs::write(expected.path.join("thesis.tex"), b"years of work").unwrap();
    let refused = DataDir::open(&expected).unwrap_err();
    assert_eq!(refused.reason, Reason::DataDir);
    assert!(refused.to_string().contains("holds thesis.tex"), "{refused}");
    assert_eq!(fs::read_dir(&expected.path).unwrap().count(), 2, "nothing was made in it");
    fs::rename(expected.path.join("thesis.tex"), dir.path().join("thesis.tex")).unwrap();
    drop(DataDir::open(&expected).unwrap());
    // What comes to a replica's directory later does not keep it from starting.
    fs::write(expected.path.join("notes"), b"").unwrap();
    DataDir::open(&expected).unwrap();
}

#[test]
fn one_that_lost_its_identity_is_not_taken_for_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    drop(DataDir::open(&expected).unwrap());
    fs::write(shard_dir(&expected.path, ShardId(1)).join("000000000001.log"), b"").unwrap();
    drop(DataDir::open(&expected).unwrap());
    fs::remove_file(expected.path.join("identity.json")).unwrap();
    let fatal = DataDir::open(&expected).unwrap_err();
    assert_eq!(fatal.reason, Reason::DataDir);
    assert!(fatal.to_string().contains("no identity.json"), "{fatal}");
    assert!(look(&expected.path).is_err());
}

#[test]
fn d6_one_that_lost_a_shard_is_not_taken_for_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    drop(DataDir::open(&expected).unwrap());
    let lost = shard_dir(&expected.path, ShardId(1));
    fs::remove_dir(&lost).unwrap();
    let fatal = DataDir::open(&expected).unwrap_err();
    assert_eq!(fatal.reason, Reason::Damaged);
    assert!(fatal.to_string().contains("shard-001") && !lost.exists(), "{fatal}");
}

#[test]
fn d6_what_a_log_has_reached_is_known_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = DataDir::open(&expected).unwrap();
    let reached = |dir: &DataDir, shard| dir.known(ShardId(shard), 0).reached;
    assert_eq!(reached(&first, 1), Position(0));
    first.note_reached(ShardId(1), Position(7)).unwrap();
    first.note_reached(ShardId(1), Position(5)).unwrap();
    drop(first);
    let again = DataDir::open(&expected).unwrap();
    assert_eq!((reached(&again, 0), reached(&again, 1)), (Position(0), Position(7)));
    assert_eq!(look(&expected.path).unwrap().known(ShardId(1), 3).reached, Position(7));
}

#[test]
fn a_restore_needs_an_empty_directory_and_counts_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let path = &expected.path;
    let half = |_| {
        fs::write(shard_dir(path, ShardId(0)).join("snapshot.tmp"), b"half").unwrap();
        Err(data_dir(path, "interrupted"))
    };
    assert!(DataDir::restore(&expected, "a", half).unwrap_err().to_string().contains("interrupted"));
    assert!(DataDir::open(&expected).unwrap_err().to_string().contains("was interrupted"));
    let again = DataDir::restore(&expected, "a", |_| Ok(())).unwrap_err();
    assert_eq!(again.reason, Reason::DataDir);
    assert!(again.to_string().contains("not empty"), "{again}");
    fs::remove_dir_all(&expected.path).unwrap();
    fs::create_dir_all(expected.path.join("lost+found")).unwrap();
    DataDir::restore(&expected, "a", |_| Ok(())).unwrap();
    assert_eq!(look(path).unwrap().shards, 2);
    DataDir::open(&expected).unwrap();
}

#[test]
fn a_restored_cluster_is_another_one_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let restored = |name: &str, origin: &str| {
        let expected = expected(&dir.path().join(name));
        DataDir::restore(&expected, origin, |_| Ok(())).unwrap();
        DataDir::open(&expected).unwrap().cluster_id()
    };
    let ids = [restored("first", "a"), restored("second", "a"), restored("third", "b")];
    let fresh = DataDir::open(&expected(dir.path())).unwrap().cluster_id();
    assert_eq!(fresh, ClusterId::of_name("test"));
    assert_eq!(ids[0], ids[1], "members of one cluster come from one backup");
    assert!(ids[0] != ids[2] && !ids.contains(&fresh));
}
