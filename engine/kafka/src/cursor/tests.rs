use super::*;
use isonomy_wire::id::InstanceId;

fn origin(epoch: u32, row: u8, seq: u64) -> Origin {
    Origin {
        cluster: ClusterId(7),
        shard: ShardId(3),
        epoch: Epoch(epoch),
        instance: InstanceId::new(ReplicaId(row), seq),
        has_more: false,
    }
}

fn cursor() -> Cursor {
    let cluster = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    let topic = TopicId(*b"0123456789abcdef");
    let frontier = Frontier([258, 0, 3, 0, 0, 0, 0, 0, 9]);
    Cursor { cluster, shard: ShardId(3), epoch: Epoch(2), frontier, topic, end: 1000 }
}

/// The bytes of the layout, as the documentation has them. A change of the layout is a new version.
#[test]
fn the_layout_is_the_documented_one() {
    let bytes = cursor().encode();
    assert_eq!(&bytes[..4], b"ISOC");
    assert_eq!(bytes[4..8], crc32c::crc32c(&bytes[8..]).to_le_bytes());
    let hex: String = bytes[8..].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!(
        "01 09 0300 02000000 77665544332211 00efcdab8967452301 30313233343536373839616263646566 e803000000000000 \
         0201000000000000 {zero} 0300000000000000 {zeros} 0900000000000000",
        zero = "00".repeat(8),
        zeros = "00".repeat(40),
    );
    assert_eq!(hex, expected.replace(' ', ""));
    assert_eq!(Cursor::decode(&bytes), Ok(cursor()));
    assert_eq!(Cursor::key("committed", 3), "committed/3");
}

#[test]
fn bytes_that_are_no_cursor_are_refused_with_what_is_wrong() {
    let whole = cursor().encode();
    assert_eq!(Cursor::decode(b""), Err(BadCursor::NoCursor));
    assert_eq!(Cursor::decode(&[0; 200]), Err(BadCursor::NoCursor));
    assert_eq!(Cursor::decode(&whole[..whole.len() - 1]), Err(BadCursor::Damaged));
    assert_eq!(Cursor::decode(&[&whole[..], b"x"].concat()), Err(BadCursor::Damaged));
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert!(Cursor::decode(&damaged).is_err(), "byte {at}");
    }
    let mut newer = whole;
    newer[8] = 2;
    assert_eq!(Cursor::decode(&newer), Err(BadCursor::Version(2)));
}

#[test]
fn rows_go_forward_and_an_epoch_ends_those_before_it() {
    let mut cursor = Cursor::nothing(ClusterId(7), ShardId(3), TopicId::default());
    for (epoch, row, seq) in [(1, 0, 2), (1, 1, 1), (1, 0, 5)] {
        assert!(!cursor.covers(&origin(epoch, row, seq)));
        cursor.add(&origin(epoch, row, seq)).unwrap();
        assert!(cursor.covers(&origin(epoch, row, seq)));
    }
    assert!(cursor.covers(&origin(1, 0, 4)) && !cursor.covers(&origin(1, 1, 2)));
    let before = cursor;
    assert_eq!(cursor.add(&origin(1, 0, 5)), Err(OutOfOrder(origin(1, 0, 5))));
    assert_eq!(cursor.add(&origin(1, 9, 1)), Err(OutOfOrder(origin(1, 9, 1))));
    assert_eq!(cursor, before);
    cursor.add(&origin(2, 1, 1)).unwrap();
    assert!(cursor.covers(&origin(1, 0, 1000)) && !cursor.covers(&origin(2, 0, 1)));
    assert!(cursor.add(&origin(1, 2, 1000)).is_err(), "an epoch that has ended publishes nothing more");
}
