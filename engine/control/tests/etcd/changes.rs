//! Changes that members carry on: whoever is first takes each step, and none of them is needed for the next.

use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Etcd;
use crate::support::{
    CLUSTER, KEY, PREFIX, address, announced, directory, log, options, presence, record, store, until,
    until_follows,
};
use etcd_client::{EventType, GetOptions, WatchOptions};
use isonomy_control::driver::{Held, Report};
use isonomy_control::id::{ChangeId, Incarnation, MemberId, RecordId};
use isonomy_control::mark::{Fact, Mark};
use isonomy_control::plan::{Change, cancel, claim, promote};
use isonomy_control::record::{Record, Stage};
use isonomy_control::service::{Etcd as Link, Options, Service, View};
use isonomy_control::store::{Store, Stored};
use isonomy_control::{Error, follows};
use std::path::PathBuf;
use tempfile::TempDir;

const CLOSE: Report = Report { is_close: true, held: None };

/// A cluster of three to which a fourth member is to be added, and whichever of the four run.
struct World {
    etcd: Etcd,
    dir: TempDir,
    running: Vec<Option<Service>>,
}

impl World {
    /// The change is announced, and the new member has taken its place. Nobody runs.
    async fn announced(is_held: bool) -> World {
        World::of(Etcd::one().await, is_held).await
    }

    async fn of(etcd: Etcd, is_held: bool) -> World {
        let world =
            World { etcd, dir: tempfile::tempdir().unwrap(), running: (0..4).map(|_| None).collect() };
        let mut store = world.store();
        let first = store.init(&record()).await.unwrap();
        let next = announced(&first.record, &Change::Add(address(3)), is_held);
        let next = store.replace(&first, &next).await.unwrap();
        let next_claimed = claim(&next.record, MemberId(3), directory(3)).unwrap();
        store.replace(&next, &next_claimed).await.unwrap();
        world
    }

    /// The same, and these members run and are close.
    async fn learning(members: impl IntoIterator<Item = u8>) -> World {
        let mut world = World::announced(false).await;
        world.run_close(members);
        world
    }

    /// The epoch is being sealed, and all members run.
    async fn sealing() -> World {
        let world = World::learning(0..4).await;
        for n in 0..4 {
            world.until_stage(n, Stage::Sealing).await;
        }
        world
    }

    /// The same, and member 0 has etcd behind a proxy.
    async fn sealing_behind_proxy() -> (World, Proxy) {
        let mut world = World::sealing().await;
        world.stop(0);
        let proxy = Proxy::new(&world.etcd.endpoints()[0]);
        world.run(0, &[proxy.endpoint()]);
        // It has the record of the epoch from its file before it has any of etcd.
        until(world.member(0), "0 reaches etcd", |view| matches!(view.etcd, Link::Reached)).await;
        world.until_stage(0, Stage::Sealing).await;
        (world, proxy)
    }

    fn store(&self) -> Store {
        store(&self.etcd.endpoints())
    }

    fn run(&mut self, n: u8, endpoints: &[String]) {
        let dir: PathBuf = self.dir.path().join(n.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let options = Options { presence: Some(presence(n)), ..options(endpoints, &dir) };
        self.running[usize::from(n)] = Some(Service::start(options).unwrap());
    }

    fn run_close(&mut self, members: impl IntoIterator<Item = u8>) {
        for n in members {
            self.run(n, &self.etcd.endpoints());
            self.member(n).report(CLOSE);
        }
    }

    fn stop(&mut self, n: u8) {
        drop(self.running[usize::from(n)].take().expect("it runs"));
    }

    fn member(&self, n: u8) -> &Service {
        self.running[usize::from(n)].as_ref().expect("it runs")
    }

    /// A member has sealed the epoch for the change that it knows of.
    fn hold(&self, n: u8) {
        let change = change_of(&self.member(n).view());
        self.member(n).report(Report { is_close: true, held: Some(Held { change, hash: 7 }) });
    }

    async fn until_stage(&self, n: u8, stage: Stage) {
        let is_at =
            |view: &View| view.record.as_ref().is_some_and(|it| it.change().map(|it| it.1) == Some(stage));
        until(self.member(n), &format!("{n} sees {stage}"), is_at).await;
    }

    /// Waits until a member sees the marks of these, which hold the state.
    async fn until_hold(&self, n: u8, holders: impl IntoIterator<Item = u8>) {
        let expected: Vec<_> = holders.into_iter().map(directory).collect();
        let are_seen =
            |view: &View| view.marks.holders(change_of(view)).into_keys().eq(expected.iter().copied());
        until(self.member(n), "the holders are seen", are_seen).await;
    }

    async fn until_epoch(&self, n: u8, epoch: u32) -> Record {
        let is_it = |view: &View| view.record.as_ref().is_some_and(|record| record.epoch == epoch);
        until(self.member(n), "the next epoch", is_it).await.record.unwrap().as_ref().clone()
    }

    /// All records in the order in which they were written.
    async fn history(&self) -> Vec<Record> {
        let mut client = self.etcd.client().await;
        let now = client.get(KEY, None).await.unwrap();
        let (first, last) = (now.kvs()[0].create_revision(), now.kvs()[0].mod_revision());
        let options = WatchOptions::new().with_start_revision(first);
        let mut stream = client.watch(KEY, Some(options)).await.unwrap();
        let mut records = Vec::new();
        loop {
            for event in stream.message().await.unwrap().unwrap().events() {
                assert_eq!(event.event_type(), EventType::Put);
                let kv = event.kv().unwrap();
                records.push(Record::parse(kv.value(), CLUSTER).unwrap());
                if kv.mod_revision() == last {
                    return records;
                }
            }
        }
    }

    /// Whatever became of the change, each record follows the one before, each step was written once, and no mark is
    /// left of a change that is over.
    async fn assert_in_order(&self) -> Vec<Record> {
        let history = self.history().await;
        for pair in history.windows(2) {
            assert_eq!(follows(&pair[0], &pair[1]), Ok(()), "{} -> {}", pair[0], pair[1]);
            assert_ne!(pair[0], pair[1]);
        }
        if history.last().unwrap().change().is_none() {
            assert_eq!(self.marks().await, Vec::<String>::new());
        }
        history
    }

    /// The keys of all marks.
    async fn marks(&self) -> Vec<String> {
        let mut client = self.etcd.client().await;
        let options = GetOptions::new().with_prefix().with_keys_only();
        let there = client.get(format!("{PREFIX}change/"), Some(options)).await.unwrap();
        there.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    }
}

fn change_of(view: &View) -> ChangeId {
    view.record.as_ref().unwrap().change().expect("a change is under way").0
}

fn stages(history: &[Record]) -> Vec<(u32, Option<Stage>)> {
    history.iter().map(|record| (record.epoch, record.change().map(|it| it.1))).collect()
}

#[tokio::test]
async fn all_members_carry_a_change_to_its_end_and_each_step_is_taken_once() {
    let world = World::sealing().await;
    (0..4).for_each(|n| world.hold(n));
    let mut ends = Vec::new();
    for n in 0..4 {
        ends.push(world.until_epoch(n, 2).await);
    }
    assert!(ends.iter().all(|end| *end == ends[0]));
    let history = world.assert_in_order().await;
    let (change, _) = history[3].change().unwrap();
    assert_eq!((ends[0].record, ends[0].membership.members.len()), (RecordId(change.0), 4));
    let learning = (1, Some(Stage::Learning));
    let expected = [(1, None), learning, learning, (1, Some(Stage::Sealing)), (2, None)];
    assert_eq!(stages(&history), expected);
}

#[tokio::test]
async fn a_change_that_is_held_goes_on_when_the_operator_says_so() {
    let mut world = World::announced(true).await;
    world.run_close(0..4);
    let change = world.store().get().await.unwrap().record.change().unwrap().0;
    let all_close = |view: &View| view.marks.close(change).len() == 4 && view.alive.len() == 4;
    let view = until(world.member(0), "all are close", all_close).await;
    let known = world.store().get().await.unwrap();
    assert_eq!(known.record.change(), Some((change, Stage::Held)));
    let next = promote(&known.record, &view.marks.close(change), &view.living()).unwrap();
    world.store().replace(&known, &next).await.unwrap();
    world.until_stage(2, Stage::Sealing).await;
    (0..4).for_each(|n| {
        world.member(n).report(Report { is_close: true, held: Some(Held { change, hash: 7 }) })
    });
    world.until_epoch(0, 2).await;
    world.assert_in_order().await;
}

#[tokio::test]
async fn whoever_dies_at_any_step_the_others_go_on() {
    let mut world = World::learning([0, 1]).await;
    let change = world.store().get().await.unwrap().record.change().unwrap().0;
    let close = |n| move |view: &View| view.marks.close(change).contains(&directory(n));
    // Member 0 has told that it is close, and begins anew: its word stands.
    until(world.member(1), "0 is close", close(0)).await;
    world.stop(0);
    world.run(0, &world.etcd.endpoints());
    // The new member dies, and comes back.
    world.run_close([3]);
    until(world.member(1), "3 is close", close(3)).await;
    world.stop(3);
    world.run(3, &world.etcd.endpoints());
    world.until_stage(3, Stage::Sealing).await;
    // One after the other holds the state, tells so, and dies. The last one begins the epoch alone.
    for n in [3, 1, 0] {
        world.until_stage(n, Stage::Sealing).await;
    }
    world.hold(3);
    world.until_hold(1, [3]).await;
    world.stop(3);
    world.hold(1);
    world.until_hold(0, [1, 3]).await;
    world.stop(1);
    world.hold(0);
    assert_eq!(world.until_epoch(0, 2).await.membership.members.len(), 4);
    // Those that were dead find out.
    world.run(1, &world.etcd.endpoints());
    world.until_epoch(1, 2).await;
    world.assert_in_order().await;
}

#[tokio::test]
async fn what_members_have_come_to_while_etcd_was_gone_is_told_later() {
    let mut world = World::sealing().await;
    world.etcd.kill(0);
    (0..4).for_each(|n| world.hold(n));
    let is_gone = |view: &View| matches!(view.etcd, Link::Gone { .. });
    until(world.member(0), "etcd is gone", is_gone).await;
    world.etcd.restart(0).await;
    world.until_epoch(0, 2).await;
    world.assert_in_order().await;
}

#[tokio::test]
async fn a_step_that_etcd_has_not_taken_is_taken_when_it_answers_again() {
    let (world, proxy) = World::sealing_behind_proxy().await;
    log::keep();
    proxy.set(Mode::Refuse);
    world.hold(0);
    log::until_logged(&["the change of the members waits", &proxy.endpoint()]).await;
    proxy.set(Mode::Pass);
    world.until_hold(1, [0]).await;
}

#[tokio::test]
async fn a_mark_is_told_though_the_record_is_written_again_and_again() {
    let mut world = World::announced(false).await;
    world.run(0, &world.etcd.endpoints());
    until(world.member(0), "the record is seen", |view| view.revision.is_some()).await;
    let change = change_of(&world.member(0).view());
    let (mut client, record) = (world.etcd.client().await, world.store().get().await.unwrap().record);
    for n in 0..200 {
        client.put(KEY, record.to_json(), None).await.unwrap();
        if n == 50 {
            world.member(0).report(CLOSE);
        }
    }
    let is_told = |view: &View| view.marks.close(change) == [directory(0)].into();
    until(world.member(0), "it is told", is_told).await;
}

#[tokio::test]
async fn the_death_of_etcds_leader_delays_a_change() {
    let mut world = World::of(Etcd::three().await, false).await;
    let leader = world.etcd.leader().await;
    world.etcd.kill(leader);
    world.run_close(0..4);
    for n in 0..4 {
        world.until_stage(n, Stage::Sealing).await;
        world.hold(n);
    }
    world.until_epoch(0, 2).await;
    world.etcd.restart(leader).await;
    world.assert_in_order().await;
}

#[tokio::test]
async fn answers_that_are_lost_do_no_step_twice() {
    let mut world = World::announced(false).await;
    let proxy = Proxy::new(&world.etcd.endpoints()[0]);
    (0..4).for_each(|n| world.run(n, &[proxy.endpoint()]));
    for n in 0..4 {
        until(world.member(n), "the record is seen", |view| view.revision.is_some()).await;
        proxy.set(Mode::LoseOne);
        world.member(n).report(CLOSE);
    }
    for n in 0..4 {
        world.until_stage(n, Stage::Sealing).await;
        proxy.set(Mode::LoseOne);
        world.hold(n);
    }
    world.until_epoch(0, 2).await;
    let history = world.assert_in_order().await;
    assert_eq!(history.len(), 5, "{:?}", stages(&history));
}

#[tokio::test]
async fn a_cancelled_change_leaves_nothing_behind() {
    for is_held in [false, true] {
        let mut world = World::announced(is_held).await;
        world.run_close([0, 3]);
        let known = world.store().get().await.unwrap();
        let change = known.record.change().unwrap().0;
        let two_close = |view: &View| view.marks.close(change).len() == 2;
        until(world.member(0), "two are close", two_close).await;
        assert_eq!(world.marks().await.len(), 2);
        let cancelled = cancel(&known.record).unwrap();
        world.store().replace(&known, &cancelled).await.unwrap();
        let view = until_follows(world.member(0), &cancelled).await;
        assert_eq!((view.marks.close(change).len(), world.marks().await.len()), (0, 0));
        // A member that still thinks the change under way cannot tell anything of it any more.
        let mark = Mark { change, member: MemberId(1), incarnation: directory(1), fact: Fact::Close };
        let late = world.store().mark(known.revision, &mark).await.unwrap_err();
        assert!(matches!(&late, Error::Moved { there: Some(there), .. } if **there == cancelled), "{late}");
        // The next change begins afresh.
        let again = world.store().get().await.unwrap();
        let next = announced(&again.record, &Change::Add(address(4)), false);
        world.store().replace(&again, &next).await.unwrap();
        until(world.member(0), "0 is close again", |view| {
            view.record.as_deref() == Some(&next)
                && view.marks.close(change_of(view)) == [directory(0)].into()
        })
        .await;
        world.assert_in_order().await;
    }
}

#[tokio::test]
async fn a_change_that_is_cancelled_while_the_epoch_is_sealed_ends_it_with_the_same_members() {
    let world = World::sealing().await;
    // The new member and one other hold the state: of the next epoch's four that is one too few.
    world.hold(3);
    world.hold(0);
    world.until_hold(1, [0, 3]).await;
    let known = world.store().get().await.unwrap();
    let cancelled = cancel(&known.record).unwrap();
    world.store().replace(&known, &cancelled).await.unwrap();
    until_follows(world.member(1), &cancelled).await;
    // Of the present three, one more is enough.
    world.hold(1);
    let end = world.until_epoch(1, 2).await;
    assert_eq!(end.membership, known.record.membership);
    assert_eq!(end.record, RecordId(known.record.change().unwrap().0.0));
    world.assert_in_order().await;
}

#[tokio::test]
async fn a_cancellation_and_a_seal_that_meet_agree_on_one() {
    let world = World::learning(0..4).await;
    let mut store = world.store();
    let mut cancelled = None;
    for _ in 0..8 {
        let known = store.get().await.unwrap();
        match store.replace(&known, &cancel(&known.record).unwrap()).await {
            Ok(Stored { record, .. }) => {
                cancelled = Some(record);
                break;
            }
            Err(Error::Moved { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let cancelled = cancelled.expect("the record moves a few times only");
    until_follows(world.member(2), &cancelled).await;
    if cancelled.change().is_some() {
        [0, 1, 2].into_iter().for_each(|n| {
            let held = Some(Held { change: cancelled.change().unwrap().0, hash: 7 });
            world.member(n).report(Report { is_close: true, held });
        });
        assert_eq!(world.until_epoch(0, 2).await.membership, cancelled.membership);
    }
    world.assert_in_order().await;
}

#[tokio::test]
async fn marks_that_a_member_could_not_watch_are_listed() {
    let (mut world, proxy) = World::sealing_behind_proxy().await;
    proxy.set(Mode::Refuse);
    world.hold(1);
    world.hold(2);
    world.until_hold(3, [1, 2]).await;
    for n in [1, 2, 3] {
        world.stop(n);
    }
    let mut client = world.etcd.client().await;
    let revision = client.get(KEY, None).await.unwrap().header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    proxy.set(Mode::Pass);
    // Alone it sees what the others have told, and has the last word.
    world.until_hold(0, [1, 2]).await;
    world.hold(0);
    assert_eq!(world.until_epoch(0, 2).await.membership.members.len(), 4);
}

#[tokio::test]
async fn marks_of_other_directories_and_what_is_no_mark_count_for_nothing() {
    let mut world = World::learning([0, 1]).await;
    let known = world.store().get().await.unwrap();
    let change = known.record.change().unwrap().0;
    let foreign = Mark { change, member: MemberId(3), incarnation: Incarnation(99), fact: Fact::Close };
    world.store().mark(known.revision, &foreign).await.unwrap();
    let mut client = world.etcd.client().await;
    for (key, value) in [
        (format!("{change}/close/2"), "{}".to_owned()),
        (format!("{change}/held/2"), format!(r#"{{"incarnation":"{}"}}"#, directory(2))),
        ("close/2".into(), format!(r#"{{"incarnation":"{}"}}"#, directory(2))),
    ] {
        client.put(format!("{PREFIX}change/{key}"), value, None).await.unwrap();
    }
    let three = [directory(0), directory(1), Incarnation(99)].into();
    until(world.member(0), "three marks are seen", |view| view.marks.close(change) == three).await;
    let listed = world.store().list().await.unwrap();
    assert_eq!((listed.marks.close(change), listed.marks.holders(change).len()), (three, 0));
    // The new member lives, but it was another directory that was close.
    world.run(3, &world.etcd.endpoints());
    let lives = |view: &View| view.alive.contains_key(&directory(3));
    until(world.member(0), "3 lives", lives).await;
    assert_eq!(world.store().get().await.unwrap(), known);
    world.member(3).report(CLOSE);
    world.until_stage(0, Stage::Sealing).await;
    assert_eq!(world.history().await.len(), 4);
}
