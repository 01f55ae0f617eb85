use crate::support::hook::{Answer, Request, Service};
use crate::support::{Topic, await_that, end_of};
use isonomy_agent::{Agent, Error, Hook, HookError, HookSettings, HookStatus, Refused, Table};
use isonomy_kafka::settings::Format;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How many requests are under way at once at most.
const CONCURRENCY: usize = 4;
/// How long a request may take where the service hangs.
const SHORT: Duration = Duration::from_millis(300);

fn start(topic: &Topic, hook: HookSettings) -> (Agent, Arc<HookStatus>) {
    let hook = Hook::open(&topic.file(), hook).unwrap();
    let status = hook.status();
    (Agent::start(topic.settings(), hook).unwrap(), status)
}

fn settings(service: &Service) -> HookSettings {
    HookSettings { url: service.url.clone(), concurrency: CONCURRENCY, ..HookSettings::default() }
}

fn stop(agent: Agent) {
    agent.stop();
    agent.join().unwrap();
}

/// Posts everything to a service, and stops.
fn post_all(topic: &Topic, hook: HookSettings) -> Arc<HookStatus> {
    let (agent, status) = start(topic, hook);
    await_that("everything to be posted", || agent.status().known_at.is_some() || agent.has_ended());
    stop(agent);
    status
}

/// The ids of each key that the service has taken, in their order.
fn taken(requests: &[Request]) -> BTreeMap<Vec<u8>, Vec<String>> {
    let mut taken: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.is_taken) {
        taken.entry(request.text("key").into_bytes()).or_default().push(request.text("id"));
    }
    taken
}

/// The ids of each key of the history, in their order.
fn decided(topic: &Topic) -> BTreeMap<Vec<u8>, Vec<String>> {
    let ids = |decisions: &Vec<(String, u64, Option<Vec<u8>>)>| {
        decisions.iter().map(|(id, ..)| id.clone()).collect()
    };
    topic.history.decisions.iter().map(|(key, decisions)| (key.clone(), ids(decisions))).collect()
}

#[test]
fn each_decision_is_posted_in_the_order_of_its_key() {
    for format in [Format::Record, Format::Batch] {
        let topic = Topic::full(format, 21, 100);
        let service = Service::start(|_| Answer::Status(204));
        let headers = [("Authorization".into(), "Bearer x".into())].into();
        let status = post_all(&topic, HookSettings { headers, ..settings(&service) });
        let requests = service.requests();
        assert!(taken(&requests) == decided(&topic), "{format}");
        let names: BTreeSet<_> = requests.iter().map(|request| request.name.clone()).collect();
        assert_eq!(names.len() as u64, topic.history.len(), "each has a name of its own");
        let (of_a_key, of_all) = service.most();
        assert!(of_a_key == 1 && of_all <= CONCURRENCY, "{of_a_key} and {of_all} at once");
        assert_eq!((status.posted(), status.retried(), status.trouble()), (topic.history.len(), 0, None));
        for request in requests {
            assert_eq!(request.headers["authorization"], "Bearer x");
            assert_eq!(request.headers["content-type"], "application/json");
            let decisions = &topic.history.decisions[request.text("key").as_bytes()];
            let (_, key_seq, value) = decisions.iter().find(|(id, ..)| *id == request.text("id")).unwrap();
            assert_eq!(request.body["key_seq"], *key_seq);
            assert_eq!(request.body["deleted"], value.is_none());
            assert_eq!(request.body["value"].as_str().map(str::as_bytes), value.as_deref());
        }
    }
}

/// Each decision fails in another way, some of them several times.
#[test]
fn what_fails_is_tried_again_and_keeps_its_place() {
    const FAILURES: [Answer; 8] = [
        Answer::Status(500),
        Answer::Status(503),
        Answer::Later(429, 1),
        Answer::Later(503, 0),
        Answer::Status(408),
        Answer::Status(425),
        Answer::Close,
        Answer::Hang,
    ];
    let topic = Topic::full(Format::Record, 22, 6);
    let service = Service::start(|request| {
        let which = request.body["id"].as_str().unwrap().bytes().map(usize::from).sum::<usize>();
        if request.tries <= which % 2 {
            FAILURES[(which + request.tries) % FAILURES.len()]
        } else {
            Answer::Status(200)
        }
    });
    let status = post_all(&topic, HookSettings { timeout: SHORT, ..settings(&service) });
    let requests = service.requests();
    assert!(taken(&requests) == decided(&topic));
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in &requests {
        ids.entry(request.name.clone()).or_default().insert(request.text("id"));
    }
    assert!(ids.values().all(|ids| ids.len() == 1) && ids.len() as u64 == topic.history.len());
    assert!(status.retried() >= topic.history.len(), "{} retries", status.retried());
    assert_eq!(status.posted(), topic.history.len());
}

/// One decision is put off for an hour, and while another key fails for seconds nobody asks about it again.
#[test]
fn a_service_says_when_it_is_to_be_asked_again() {
    let topic = Topic::full(Format::Record, 23, 20);
    let (key, other) = ("0-0", "1-1");
    let keys: Vec<_> =
        topic.history.decisions.keys().map(|key| String::from_utf8(key.clone()).unwrap()).collect();
    assert!([key, other].iter().all(|key| keys.contains(&(*key).to_owned())), "{keys:?}");
    let service = Service::start(move |request| match request.text("key") {
        asked if asked == key => Answer::Later(429, 3600),
        asked if asked == other && request.tries < 5 => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let (agent, status) = start(&topic, HookSettings { concurrency: 64, ..settings(&service) });
    let of = |key: &str| {
        service.requests().into_iter().filter(move |request| request.text("key") == key).collect::<Vec<_>>()
    };
    await_that("the other key", || of(other).iter().any(|request| request.is_taken) && !of(key).is_empty());
    assert_eq!(of(key).len(), 1);
    assert!(status.trouble().is_none_or(|trouble| trouble.contains("429") || trouble.contains("500")));
    stop(agent);
    let db = rusqlite::Connection::open(topic.file()).unwrap();
    let count = "SELECT count(*) FROM positions WHERE reader = 'hook' AND next_offset > 20";
    assert_eq!(
        db.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(),
        0,
        "what was not taken is posted again"
    );
}

fn refusing(request: &Request) -> Answer {
    match request.body["key_seq"].as_u64() {
        Some(2) => Answer::Status(422),
        Some(3) => Answer::Redirect,
        _ => Answer::Status(200),
    }
}

#[test]
fn what_is_refused_for_good_ends_the_agent_or_is_skipped_and_kept() {
    let topic = Topic::full(Format::Record, 24, 40);
    let service = Service::start(refusing);
    let ended = end_of(start(&topic, settings(&service)).0);
    let Error::Projection(failure) = ended else { panic!("{ended}") };
    let text = failure.to_string();
    assert!(matches!(
        *failure.downcast().unwrap(),
        HookError::Refused { key_seq: 2 | 3, status: 422 | 302, .. }
    ));
    assert!(text.contains("said") && text.contains("skip"), "{text}");

    let status = post_all(&topic, HookSettings { refused: Refused::Skip, ..settings(&service) });
    let of_all = topic.history.decisions.values().flatten();
    let is_refused = |(_, key_seq, _): &&(String, u64, Option<Vec<u8>>)| [2, 3].contains(key_seq);
    let refused: BTreeSet<_> =
        of_all.filter(is_refused).map(|(id, key_seq, _)| (id.clone(), *key_seq)).collect();
    let db = rusqlite::Connection::open(topic.file()).unwrap();
    let mut statement = db.prepare("SELECT id, key_seq, status, answer FROM skipped").unwrap();
    let skipped = statement.query_map([], |row| {
        assert_eq!(
            (row.get::<_, i64>(2)? == 302, row.get::<_, String>(3)?),
            (row.get::<_, i64>(1)? == 3, "said".into())
        );
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    });
    assert!(skipped.unwrap().collect::<Result<BTreeSet<_>, _>>().unwrap() == refused && !refused.is_empty());
    assert_eq!(status.skipped(), refused.len() as u64);
    assert_eq!(status.posted() + status.skipped(), topic.history.len());
}

/// The table has its own positions: it goes on while the hook hangs.
#[test]
fn a_hook_that_hangs_holds_up_no_table_and_ends_in_good_order() {
    let topic = Topic::full(Format::Batch, 25, 60);
    let service = Service::start(|_| Answer::Hang);
    let (hook, status) = start(&topic, HookSettings { timeout: SHORT, ..settings(&service) });
    await_that("a request without an answer", || status.retried() > 0);
    let table = Agent::start(topic.settings(), Table::open(&topic.file()).unwrap()).unwrap();
    await_that("everything to be read", || table.status().decisions == topic.history.len());
    assert!(topic.rows() == topic.expected());
    assert!(status.trouble().unwrap().contains("has not taken decision") && status.posted() == 0);
    assert!(hook.status().known_at.is_none());
    let db = rusqlite::Connection::open(topic.file()).unwrap();
    let of = |reader: &str| {
        let sum = "SELECT sum(next_offset) FROM positions WHERE reader = ?1";
        db.query_row(sum, [reader], |row| row.get::<_, Option<i64>>(0)).unwrap()
    };
    assert!(of("hook") == Some(0) && of("table") > Some(0));
    stop(hook);
    stop(table);
}

/// Stopped again and again, wherever it is, the hook goes on where its file is: nothing is left out.
#[test]
fn a_hook_that_starts_again_leaves_nothing_out() {
    let topic = Topic::full(Format::Batch, 26, 100);
    let service = Service::start(|_| Answer::Status(200));
    for part in [10, 60, 100] {
        let (agent, status) = start(&topic, settings(&service));
        await_that("a part", || status.posted() >= part);
        stop(agent);
    }
    post_all(&topic, settings(&service));
    let requests = service.requests();
    let mut first = BTreeSet::new();
    let once: Vec<_> =
        requests.iter().filter(|request| first.insert(request.name.clone())).cloned().collect();
    assert!(taken(&once) == decided(&topic));
    assert!(requests.len() > once.len(), "some were posted again");
    assert!(requests.len() < 2 * once.len(), "not all were posted again");
}
