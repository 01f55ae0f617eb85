use super::*;
use crate::answer::ResponseBuilder;
use crate::command::{Numbering, RequestBuilder};
use crate::id::SessionId;
use proptest::prelude::*;

fn origin(seq: u64) -> Origin {
    Origin {
        cluster: ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        shard: ShardId(3),
        epoch: Epoch(2),
        instance: InstanceId::new(ReplicaId(1), seq),
        has_more: false,
    }
}

fn decided<'a>(index: u16, key_seq: u64, key: &'a [u8], value: &'a [u8]) -> Decision<'a> {
    Decision { index, effect: Effect::Decided { key_seq }, key, value }
}

/// A batch of two requests of one session, and the response of each command: the second repeats the first.
fn executed(origin: &Origin) -> (Batch, [Bytes; 2]) {
    let mut request = RequestBuilder::default();
    request.decide(b"a", b"one").unwrap();
    request.decide_if(b"a", b"no", 7).unwrap();
    request.delete(b"a").unwrap();
    request.delete(b"none").unwrap();
    let bytes = request.encode(SessionId::named("s"), Numbering::at(1));
    let part = Batch::parse(bytes.clone(), crc32c::crc32c(&bytes), |_| ()).unwrap();
    let mut answers = ResponseBuilder::new(origin.epoch, origin.shard);
    answers.committed(origin.instance, 0, 1);
    answers.rejected(origin.instance, 1, 1, Some(b"one"));
    answers.deleted(origin.instance, 2, 1);
    answers.plain(origin.instance, 3, &crate::answer::Answer::Missing);
    let response = answers.encode();
    (Batch::join(&[part.clone(), part]), [response.clone(), response])
}

#[test]
fn only_what_was_executed_here_and_has_changed_something_is_published() {
    let origin = origin(9);
    let (batch, responses) = executed(&origin);
    let mut builder = PublishedBuilder::default();
    for (part, response) in batch.parts().iter().zip(responses) {
        builder.push_part(&origin, &batch, part, response).unwrap();
    }
    let bytes = builder.finish(&origin).unwrap().to_vec();
    let published = PublishedBatch::parse(&bytes).unwrap();
    let deleted = Decision { index: 2, effect: Effect::Deleted { key_seq: 1 }, key: b"a", value: b"" };
    assert_eq!(published.decisions().collect::<Vec<_>>(), [decided(0, 1, b"a", b"one"), deleted]);
    assert_eq!((published.origin(), published.len()), (&origin, 2));
    builder.clear();
    let retry = Origin { instance: InstanceId::new(ReplicaId(0), 9), ..origin };
    let (_, [response, _]) = executed(&origin);
    builder.push_part(&retry, &batch, &batch.parts()[0], response).unwrap();
    assert!(builder.finish(&retry).is_none(), "a retry in another instance publishes nothing");
}

/// The bytes of the layout, as the documentation has them. A change of the layout is a new version.
#[test]
fn the_layout_is_the_documented_one() {
    let mut builder = PublishedBuilder::default();
    builder.push(&decided(5, 7, b"key", b"value"));
    let bytes = builder.finish(&Origin { has_more: true, ..origin(258) }).unwrap();
    assert_eq!(&bytes[..4], b"ISOD");
    assert_eq!(bytes[4..8], crc32c::crc32c(&bytes[8..]).to_le_bytes());
    let expected = "58000000 01 01 0300 77665544332211 00efcdab8967452301 02000000 01000000 0201000000000000 01 \
                    000000000000000000000000000000 0700000000000001 05000000 0300 0500";
    let hex: String = bytes[8..80].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected.replace(' ', ""));
    assert_eq!(&bytes[80..], b"keyvalue");
}

#[test]
fn bytes_that_are_no_batch_are_refused_with_what_is_wrong() {
    let mut builder = PublishedBuilder::default();
    builder.push(&decided(0, 1, b"k", b"v"));
    let whole = builder.finish(&origin(1)).unwrap().to_vec();
    let refusal = |bytes: &[u8]| PublishedBatch::parse(bytes).unwrap_err();
    let length = whole.len();
    assert_eq!(refusal(&whole[..10]), BadBatch::CutOff { there: 10, length: HEAD_BYTES });
    assert_eq!(refusal(&whole[..length - 1]), BadBatch::CutOff { there: length - 1, length });
    assert_eq!(refusal(&[0; 100]), BadBatch::NoBatch);
    let mut newer = whole.clone();
    newer[12] = 2;
    assert_eq!(refusal(&newer), BadBatch::Version(2));
    for at in 4..length {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert!(PublishedBatch::parse(&damaged).is_err(), "byte {at}");
    }
    let behind = [&whole[..], b"the next batch"].concat();
    assert_eq!(PublishedBatch::parse(&behind).unwrap().bytes(), whole);
}

proptest! {
    #[test]
    fn what_is_built_is_read(entries in proptest::collection::vec(
        (any::<u16>(), 1u64..1 << 50, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40),
         proptest::collection::vec(any::<u8>(), 0..90)), 1..20)
    ) {
        let decisions: Vec<Decision<'_>> = entries.iter().map(|(index, key_seq, deleted, key, value)| {
            let key_seq = *key_seq;
            let effect = if *deleted { Effect::Deleted { key_seq } } else { Effect::Decided { key_seq } };
            Decision { index: *index, effect, key, value }
        }).collect();
        let mut builder = PublishedBuilder::default();
        decisions.iter().for_each(|decision| builder.push(decision));
        let bytes = builder.finish(&origin(77)).unwrap();
        let batch = PublishedBatch::parse(bytes).unwrap();
        prop_assert_eq!(batch.decisions().collect::<Vec<_>>(), decisions);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes;
        let _ = PublishedBatch::parse(&bytes);
        if bytes.len() >= HEAD_BYTES {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(b"ISOD");
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            bytes[12] = PUBLISHED_VERSION;
            let crc = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            let _ = PublishedBatch::parse(&bytes);
        }
    }
}
