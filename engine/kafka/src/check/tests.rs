use super::*;
use isonomy_wire::command::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX};
use isonomy_wire::published::ENTRY_BYTES;

fn settings() -> Settings {
    Settings { brokers: "127.0.0.1:9092".into(), ..Settings::default() }
}

fn fit() -> Facts {
    Facts {
        id: TopicId([1; 16]),
        partitions: 4,
        replicas: 3,
        insync: 2,
        record_bytes: 8 << 20,
        cleanup: "compact".into(),
        is_unclean: false,
    }
}

#[test]
fn topics_that_are_as_they_must_be_are_taken() {
    assert_eq!(settings().judge_topic(4, &Facts { cleanup: "delete".into(), ..fit() }), Ok(()));
    assert_eq!(settings().judge_cursor_topic(4, &fit()), Ok(()));
    assert_eq!(settings().judge_cursor_topic(2, &fit()), Ok(()), "cursors need no more than their partition");
}

#[test]
fn each_fault_of_the_topic_of_the_decisions_is_said() {
    let judge = |facts: Facts| settings().judge_topic(4, &facts).unwrap_err();
    let topic = || "committed".to_owned();
    assert_eq!(
        judge(Facts { partitions: 5, ..fit() }),
        Unfit::Partitions { topic: topic(), there: 5, needed: 4 }
    );
    assert_eq!(
        judge(Facts { replicas: 2, ..fit() }),
        Unfit::Replicas { topic: topic(), there: 2, needed: 3 }
    );
    assert_eq!(judge(Facts { insync: 1, ..fit() }), Unfit::InSync { topic: topic(), there: 1, needed: 2 });
    assert_eq!(judge(Facts { is_unclean: true, ..fit() }), Unfit::Unclean(topic()));
    assert_eq!(judge(Facts { id: TopicId::default(), ..fit() }), Unfit::NoId(topic()));
    let needed = settings().record_bytes_max();
    let small = Facts { record_bytes: needed - 1, ..fit() };
    assert_eq!(judge(small), Unfit::RecordBytes { topic: topic(), there: needed - 1, needed });
}

#[test]
fn each_fault_of_the_topic_of_the_cursors_is_said() {
    let judge = |facts: Facts| settings().judge_cursor_topic(4, &facts).unwrap_err();
    let topic = || "isonomy-publish-cursor".to_owned();
    for there in ["delete", "compact,delete", ""] {
        let facts = Facts { cleanup: there.into(), ..fit() };
        assert_eq!(judge(facts), Unfit::Cleanup { topic: topic(), there: there.into() });
    }
    assert_eq!(
        judge(Facts { partitions: 3, ..fit() }),
        Unfit::Partitions { topic: topic(), there: 3, needed: 4 }
    );
    assert_eq!(judge(Facts { is_unclean: true, ..fit() }), Unfit::Unclean(topic()));
}

#[test]
fn the_largest_record_of_each_format_has_room() {
    let bytes = |format| Settings { format, ..settings() }.record_bytes_max();
    assert!(bytes(Format::Record) > KEY_BYTES_MAX + VALUE_BYTES_MAX);
    assert!(bytes(Format::Batch) > BATCH_BYTES_MAX + BATCH_COMMANDS_MAX * ENTRY_BYTES);
}
