//! The file of a projection, without Kafka.

use isonomy_agent::{
    Batch, Decision, Failure, FileError, Look, Positions, Projection, Standing, Start, Stop, Table, TopicId,
};
use isonomy_wire::id::{CommandId, Epoch, ShardId};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const TOPIC: TopicId = TopicId([0xab; 16]);

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("table.db");
    (dir, file)
}

fn decision(key: &[u8], key_seq: u64, value: Option<&[u8]>) -> Decision {
    let id = CommandId { epoch: Epoch(u32::MAX), shard: ShardId(u16::MAX), ..CommandId::default() };
    let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
    Decision { partition: 3, offset: 70, id, key, key_seq, value, time_ms: Some(5) }
}

fn apply(table: &mut Table, decisions: &[Decision], next: i64) -> Result<(), Failure> {
    let positions = Positions::from([(3, next)]);
    table.apply(&Batch { topic: TOPIC, decisions, positions: &positions, stop: &Stop::default() })
}

fn failure(result: Result<(), Failure>) -> FileError {
    *result.unwrap_err().downcast().unwrap()
}

fn refusal(file: &Path) -> FileError {
    Table::open(file).err().unwrap()
}

fn query(file: &Path, sql: &str) -> String {
    Connection::open(file).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn state_and_positions_are_kept_together() {
    let (_dir, file) = place();
    let mut table = Table::open(&file).unwrap();
    assert_eq!(table.start().unwrap(), Start::default());
    apply(&mut table, &[decision(b"a", 1, Some(b"x")), decision(b"b", 1, Some(b""))], 71).unwrap();
    apply(&mut table, &[decision(b"a", 1, None), decision(b"b", 2, Some(b"y"))], 80).unwrap();
    let mut table = Table::open(&file).unwrap();
    assert_eq!(table.start().unwrap(), Start { topic: Some(TOPIC), positions: [(3, 80)].into() });
    assert_eq!([&b"a"[..], b"b"].map(|key| table.key_seq(key).unwrap()), [Some(0), Some(2)]);
    let all = query(
        &file,
        "SELECT group_concat(key || value || key_seq || id || epoch || shard || time_ms) FROM latest",
    );
    assert_eq!(all, "by24294967295.65535.0.0.04294967295655355");
}

#[test]
fn text_is_text_for_those_who_query() {
    let (_dir, file) = place();
    let mut table = Table::open(&file).unwrap();
    table.start().unwrap();
    for (at, (key, value)) in
        [("é", &b"\xff"[..]), ("a\0", b"{\"n\": 7}"), ("b", b"\0")].into_iter().enumerate()
    {
        // Once more, so that equal bytes are the same key.
        apply(&mut table, &[decision(key.as_bytes(), 1, Some(value))], 10 * at as i64).unwrap();
        apply(&mut table, &[decision(key.as_bytes(), 2, Some(value))], 10 * at as i64 + 1).unwrap();
        assert_eq!(table.key_seq(key.as_bytes()).unwrap(), Some(2));
    }
    let types = "SELECT group_concat(typeof(key) || ' ' || typeof(value), ', ') FROM latest";
    assert_eq!(query(&file, types), "text blob, blob text, text blob");
    assert_eq!(query(&file, "SELECT json_extract(value, '$.n') || '' FROM latest WHERE key = x'6100'"), "7");
}

/// Both have begun at the same positions.
#[test]
fn two_processes_cannot_read_the_same_partition_into_a_file() {
    let (_dir, file) = place();
    let mut tables = [Table::open(&file).unwrap(), Table::open(&file).unwrap()];
    for known in [false, true] {
        tables.iter_mut().for_each(|table| drop(table.start().unwrap()));
        let (value, next) = (Some(&b"x"[..]), if known { 20 } else { 10 });
        apply(&mut tables[0], &[decision(b"a", 1, value)], next).unwrap();
        let error = failure(apply(&mut tables[1], &[decision(b"b", 1, value)], next + 1));
        assert!(matches!(error, FileError::Shared { partition: 3, .. }), "{error}");
    }
    assert_eq!(query(&file, "SELECT group_concat(key) FROM latest"), "a");
}

#[test]
fn a_file_of_others_is_left_alone() {
    let (_dir, file) = place();
    Connection::open(&file)
        .unwrap()
        .execute_batch("CREATE TABLE mine (a); INSERT INTO mine VALUES (1)")
        .unwrap();
    assert!(matches!(refusal(&file), FileError::Foreign(_)));
    assert_eq!(query(&file, "SELECT group_concat(name) FROM sqlite_schema"), "mine");
    std::fs::write(&file, "no database at all, and long enough to be looked at").unwrap();
    assert!(matches!(refusal(&file), FileError::Sqlite { .. }));
}

#[test]
fn a_file_of_another_release_is_left_alone() {
    let (_dir, file) = place();
    drop(Table::open(&file).unwrap());
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(refusal(&file), FileError::Version { version: 2, .. }));
}

#[test]
fn a_damaged_topic_is_no_topic() {
    let (_dir, file) = place();
    let mut table = Table::open(&file).unwrap();
    table.start().unwrap();
    apply(&mut table, &[], 1).unwrap();
    Connection::open(&file).unwrap().execute("UPDATE source SET topic_id = 'abc'", []).unwrap();
    let error = failure(table.start().map(drop));
    assert!(matches!(error, FileError::Damaged { .. }), "{error}");
}

#[test]
fn how_old_it_may_be_is_a_query() {
    let (_dir, file) = place();
    let mut table = Table::open(&file).unwrap();
    table.start().unwrap();
    apply(&mut table, &[], 70).unwrap();
    let shown = || {
        query(
            &file,
            "SELECT reader || ' ' || coalesce(seconds >= 60 AND seconds < 600, 'unknown') || ' ' || lag FROM staleness",
        )
    };
    let partitions = BTreeMap::from([(3, Standing { next: 70, end: 75 })]);
    table.on_look(&Look { partitions: &partitions, age: None }).unwrap();
    assert_eq!(shown(), "table unknown 5");
    table.on_look(&Look { partitions: &partitions, age: Some(Duration::from_secs(60)) }).unwrap();
    assert_eq!(shown(), "table 1 5");
}
