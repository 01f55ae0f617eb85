use super::*;
use isonomy_mesh::MemberAddress;
use isonomy_protocol::contract::Position;
use isonomy_protocol::epoch::FIRST;
use isonomy_wire::id::RecordId;

const BEGAN: Began = Began { epoch: FIRST, replicas: 3 };

fn expected(path: &Path) -> Expected {
    Expected {
        path: path.join("data"),
        cluster: "test".into(),
        cluster_id: None,
        member: 0,
        shards: 2,
        outlives_power: true,
    }
}

/// Replica 0 of three, in the first epoch.
fn roster() -> Roster {
    let at = |port| MemberAddress { host: "db".into(), peer_base: port, client_base: port + 100 };
    Roster::of_first_epoch(ReplicaId(0), (0..3).map(at))
}

/// Opens the directory, and enters the first epoch.
fn open(expected: &Expected) -> EpochDir {
    DataDir::open(expected).unwrap().enter(&roster()).unwrap()
}

fn claim(incarnation: u128) -> Claim {
    Claim { incarnation, is_named: false }
}

#[test]
fn a_directory_keeps_its_identity_and_its_peers() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = open(&expected);
    assert!(first.accept_peer(ReplicaId(1), claim(5)).unwrap());
    let incarnation = first.incarnation();
    drop(first);
    let again = open(&expected);
    assert_eq!(again.incarnation(), incarnation);
    assert!(again.accept_peer(ReplicaId(1), claim(5)).unwrap());
    assert!(!again.accept_peer(ReplicaId(1), claim(6)).unwrap(), "a wiped peer comes back as a stranger");
}

#[test]
fn g6_starts_that_take_part_are_counted_and_a_directory_that_was_set_back_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = open(&expected).start();
    let again = open(&expected);
    assert_eq!((first.number, again.start().number), (1, 1), "the first has said nothing");
    assert_ne!(first.nonce, again.start().nonce);
    assert!(again.count_start().unwrap() && again.count_start().unwrap());
    drop(again);
    let again = open(&expected);
    assert_eq!(again.start().number, 2);
    let met = Start { number: 4, nonce: 5 };
    assert_eq!(again.met(ReplicaId(2)), None);
    assert!(again.accept_peer(ReplicaId(2), claim(7)).unwrap(), "nobody is heard before");
    assert!(again.note_start(ReplicaId(2), met).unwrap());
    drop(again);
    let again = open(&expected);
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
fn g6_an_empty_directory_votes_once_all_members_have_accepted_it() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = open(&expected);
    first.on_accepted(ReplicaId(1)).unwrap();
    first.on_accepted(ReplicaId(1)).unwrap();
    assert!(!first.is_formed());
    drop(first);
    let again = open(&expected);
    again.on_accepted(ReplicaId(2)).unwrap();
    assert!(!again.is_formed(), "each start asks all");
    again.on_accepted(ReplicaId(1)).unwrap();
    assert!(again.is_formed());
    drop(again);
    assert!(open(&expected).is_formed());
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
    let first = open(&expected);
    assert!(first.accept_peer(one, claim(5)).unwrap() && !first.is_formed());
    assert_eq!(parse(&written(&expected).epochs[&1].peers[&1]), Some(5), "it is in the file when it counts");
    drop(first);
    // Still not formed, and restarted again.
    let second = open(&expected);
    assert_eq!(
        (second.knows_peer(one, claim(5)), second.knows_peer(one, claim(6))),
        (Some(true), Some(false))
    );
    assert!(!second.accept_peer(one, claim(6)).unwrap() && !second.is_formed());
    assert_eq!(second.knows_peer(two, claim(7)), None, "who was not met is not known");
    assert!(second.accept_peer(two, claim(7)).unwrap());
    drop(second);
    let third = open(&expected);
    for peer in [one, two] {
        third.on_accepted(peer).unwrap();
    }
    assert!(third.is_formed() && written(&expected).formed);
    drop(third);
    let last = open(&expected);
    let judged =
        [(one, 5), (one, 6), (two, 7), (two, 5)].map(|(id, it)| last.accept_peer(id, claim(it)).unwrap());
    assert_eq!(judged, [true, false, true, false]);
}

#[test]
fn g6_of_two_incarnations_at_once_one_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let open = open(&expected);
    // Shards meet a peer side by side.
    let meet = |incarnation| {
        let dir = open.clone();
        std::thread::spawn(move || dir.accept_peer(ReplicaId(1), claim(incarnation)).unwrap())
    };
    let met: Vec<_> = (1..=8).map(meet).collect();
    let accepted: Vec<bool> = met.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 1, "{accepted:?}");
    let known = parse(&written(&expected).epochs[&1].peers[&1]).unwrap();
    assert!(accepted[known as usize - 1]);
}

#[test]
fn g6_what_is_not_written_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let (peer, start) = (ReplicaId(1), Start { number: 1, nonce: 9 });
    let open = open(&expected);
    let two = ReplicaId(2);
    assert!(open.accept_peer(two, claim(7)).unwrap());
    // The file cannot be made anew.
    let blocked = expected.path.join("identity.tmp");
    fs::create_dir(&blocked).unwrap();
    assert!(open.accept_peer(peer, claim(5)).is_err() && open.knows_peer(peer, claim(5)).is_none());
    assert!(open.note_start(two, start).is_err() && open.met(two).is_none());
    assert!(open.count_start().is_err() && !open.is_counted());
    open.on_accepted(peer).unwrap();
    assert!(open.on_accepted(ReplicaId(2)).is_err() && !open.is_formed());
    fs::remove_dir(&blocked).unwrap();
    assert!(open.accept_peer(peer, claim(6)).unwrap(), "nobody was accepted before");
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
            let open = open(&expected);
            open.on_accepted(ReplicaId(peer)).unwrap();
            assert!(!open.is_formed() && !written(&expected).formed, "by replica {peer} alone");
        }
    }
}

#[test]
fn it_is_refused_to_anyone_else() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let open = open(&expected);
    let refused = |expected: &Expected| {
        let fatal = DataDir::open(expected).unwrap_err();
        assert_eq!(fatal.reason, Reason::DataDir);
        fatal.to_string()
    };
    assert!(refused(&expected).contains("another process"));
    drop(open);
    assert!(refused(&Expected { cluster: "other".into(), ..expected.clone() }).contains("'test'"));
    assert!(refused(&Expected { member: 1, ..expected.clone() }).contains("replica 0"));
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
    drop(open(&expected));
    // What comes to a replica's directory later does not keep it from starting.
    fs::write(expected.path.join("notes"), b"").unwrap();
    open(&expected);
}

#[test]
fn one_that_lost_its_identity_is_not_taken_for_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    drop(open(&expected));
    fs::write(epoch_dir(&expected.path, ShardId(1), FIRST).join("000000000001.log"), b"").unwrap();
    drop(open(&expected));
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
    drop(open(&expected));
    let lost = epoch_dir(&expected.path, ShardId(1), FIRST);
    fs::remove_dir(&lost).unwrap();
    let fatal = DataDir::open(&expected).unwrap_err();
    assert_eq!(fatal.reason, Reason::Damaged);
    assert!(fatal.to_string().contains("shard-001") && !lost.exists(), "{fatal}");
}

#[test]
fn d6_what_a_log_has_reached_is_known_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let first = open(&expected);
    let reached = |dir: &EpochDir, shard| dir.known(ShardId(shard), 0).reached;
    assert_eq!(reached(&first, 1), Position(0));
    first.note_reached(ShardId(1), Position(7)).unwrap();
    first.note_reached(ShardId(1), Position(5)).unwrap();
    drop(first);
    let again = open(&expected);
    assert_eq!((reached(&again, 0), reached(&again, 1)), (Position(0), Position(7)));
    assert_eq!(look(&expected.path).unwrap().known(FIRST, ShardId(1), 3).reached, Position(7));
}

#[test]
fn a_restore_needs_an_empty_directory_and_counts_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let path = &expected.path;
    let half = |_| {
        fs::write(epoch_dir(path, ShardId(0), FIRST).join("snapshot.tmp"), b"half").unwrap();
        Err(data_dir(path, "interrupted"))
    };
    assert!(DataDir::restore(&expected, "a", BEGAN, half).unwrap_err().to_string().contains("interrupted"));
    assert!(DataDir::open(&expected).unwrap_err().to_string().contains("was interrupted"));
    let again = DataDir::restore(&expected, "a", BEGAN, |_| Ok(())).unwrap_err();
    assert_eq!(again.reason, Reason::DataDir);
    assert!(again.to_string().contains("not empty"), "{again}");
    fs::remove_dir_all(&expected.path).unwrap();
    fs::create_dir_all(expected.path.join("lost+found")).unwrap();
    DataDir::restore(&expected, "a", BEGAN, |_| Ok(())).unwrap();
    assert_eq!(look(path).unwrap().shards, 2);
    open(&expected);
}

#[test]
fn a_restored_cluster_is_another_one_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let restored = |name: &str, origin: &str| {
        let expected = expected(&dir.path().join(name));
        DataDir::restore(&expected, origin, BEGAN, |_| Ok(())).unwrap();
        open(&expected).cluster_id()
    };
    let ids = [restored("first", "a"), restored("second", "a"), restored("third", "b")];
    let fresh = DataDir::open(&expected(dir.path())).unwrap().cluster_id();
    assert_eq!(fresh, ClusterId::of_name("test"));
    assert_eq!(ids[0], ids[1], "members of one cluster come from one backup");
    assert!(ids[0] != ids[2] && !ids.contains(&fresh));
    // A new member of the restored cluster has its id, also after a restart that no longer names it.
    let other = expected(&dir.path().join("joined"));
    let joining = Expected { cluster_id: Some(ids[0]), ..other.clone() };
    assert_eq!(open(&joining).cluster_id(), ids[0]);
    assert_eq!(open(&other).cluster_id(), ids[0]);
}

/// The roster of an epoch with this record, in which the directory has this place.
fn later(epoch: u32, record: u128, own: u8, incarnation: Option<u128>) -> Roster {
    let mut roster =
        Roster { epoch: Epoch(epoch), record: RecordId(record), own: Some(ReplicaId(own)), ..roster() };
    roster.places[0].incarnation = incarnation;
    roster
}

#[test]
fn an_epoch_is_entered_once_and_no_earlier_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    let data_dir = open(&expected);
    let second = data_dir.enter(&later(2, 9, 0, None)).unwrap();
    assert!(second.log_dir(ShardId(1)).is_dir() && data_dir.log_dir(ShardId(1)).is_dir());
    assert_eq!(
        (data_dir.newest_epoch(), second.before(ShardId(0)).unwrap().log.epoch),
        (Some(Epoch(2)), FIRST)
    );
    drop((data_dir, second));
    let again = DataDir::open(&expected).unwrap();
    again.enter(&later(2, 9, 0, None)).unwrap();
    let refused = |roster: &Roster| {
        let fatal = again.enter(roster).unwrap_err();
        assert_eq!(fatal.reason, Reason::DataDir);
        fatal.to_string()
    };
    assert!(refused(&roster()).contains("etcd was restored"), "the first epoch is over");
    assert!(refused(&later(2, 8, 0, None)).contains("entered the record"));
    assert!(refused(&later(2, 9, 1, None)).contains("belongs to replica 0"));
    assert!(refused(&Roster { members: 2, ..later(2, 9, 0, None) }).contains("has 3 members"));
    again.enter(&later(4, 7, 1, None)).unwrap();
    let identity = look(&expected.path).unwrap();
    assert_eq!(identity.epochs.keys().copied().collect::<Vec<_>>(), [2, 4], "two are remembered");
    assert_eq!(identity.newest().map(|(epoch, part)| (epoch, part.replica)), Some((Epoch(4), 1)));
}

#[test]
fn the_state_of_an_epoch_that_was_missed_is_not_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = open(&expected(dir.path()));
    let third = data_dir.enter(&later(3, 9, 0, None)).unwrap();
    assert!(third.before(ShardId(0)).is_none());
}

#[test]
fn what_lies_of_earlier_epochs_goes_with_their_last_need() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = open(&expected(dir.path()));
    let second = data_dir.enter(&later(2, 9, 0, None)).unwrap();
    second.remove_earlier(ShardId(1)).unwrap();
    assert!(second.log_dir(ShardId(1)).is_dir() && !data_dir.log_dir(ShardId(1)).exists());
    assert!(data_dir.log_dir(ShardId(0)).is_dir(), "the other shard may need it still");
}

#[test]
fn g6_a_directory_that_a_later_record_names_is_formed() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = open(&expected(dir.path()));
    data_dir.enter(&later(2, 9, 0, Some(data_dir.incarnation() + 1))).unwrap();
    assert!(!data_dir.is_formed(), "it names another one");
    data_dir.enter(&later(3, 9, 0, Some(data_dir.incarnation()))).unwrap();
    assert!(data_dir.is_formed());
}

#[test]
fn g6_what_was_met_of_a_peer_is_known_in_the_next_epoch_at_its_new_place() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&expected(dir.path()));
    let start = Start { number: 4, nonce: 5 };
    assert!(
        first.accept_peer(ReplicaId(2), claim(7)).unwrap() && first.note_start(ReplicaId(2), start).unwrap()
    );
    let second = first.enter(&later(2, 9, 0, None)).unwrap();
    assert_eq!(second.met(ReplicaId(1)), None);
    assert!(second.accept_peer(ReplicaId(1), claim(7)).unwrap());
    assert_eq!(second.met(ReplicaId(1)), Some(start));
}

#[test]
fn another_learner_may_have_the_place_of_one_that_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = open(&expected(dir.path()));
    let named = |incarnation| Claim { incarnation, is_named: true };
    let learner = ReplicaId(3);
    assert!(data_dir.accept_peer(learner, named(5)).unwrap());
    assert!(data_dir.accept_peer(learner, named(6)).unwrap());
    assert!(!data_dir.accept_peer(learner, claim(5)).unwrap(), "without the record it is whom it was met as");
}

#[test]
fn a_learner_may_change_its_place_and_a_member_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(&expected(dir.path())).unwrap();
    let at = |own, members| Roster { own: Some(ReplicaId(own)), members, ..roster() };
    data_dir.enter(&at(1, 1)).unwrap();
    data_dir.enter(&at(2, 1)).unwrap();
    assert!(data_dir.enter(&at(0, 1)).unwrap_err().to_string().contains("belongs to replica 1"));
}

#[test]
fn d6_only_the_epoch_of_a_backup_began_with_its_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path());
    DataDir::restore(&expected, "a", BEGAN, |_| Ok(())).unwrap();
    let is_restored = |dir: &EpochDir| dir.known(ShardId(0), 1).restored;
    let first = open(&expected);
    assert!(is_restored(&first));
    let second = first.enter(&later(2, 9, 0, None)).unwrap();
    assert!(!is_restored(&second));
    first.enter(&later(3, 8, 0, None)).unwrap();
    assert!(!is_restored(&second), "it is the oldest that is remembered, and began with a log");
}
