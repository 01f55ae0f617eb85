use super::*;
use crate::id::ShardId;

fn session() -> SessionId {
    SessionId::named("test")
}

fn parse(payload: Bytes) -> Result<Batch, Invalid> {
    let crc = crc32c::crc32c(&payload);
    Batch::parse(payload, crc, |_| ())
}

fn sample() -> Bytes {
    let mut builder = RequestBuilder::default();
    builder.decide(b"a", b"one").unwrap();
    builder.skip(5).unwrap();
    builder.decide_if(b"bb", b"two", 9).unwrap();
    builder.delete(b"ccc").unwrap();
    assert_eq!(builder.numbers(), 8);
    builder.encode(session(), Numbering { first: 10, answered_below: 7 })
}

#[test]
fn commands_come_back_as_they_went_in() {
    let batch = parse(sample()).unwrap();
    let part = batch.parts()[0];
    assert_eq!((part.first, part.answered_below, part.numbers, part.commands), (10, 7, 8, 4));
    let commands: Vec<_> = batch.commands_of(&part).collect();
    assert_eq!(commands[0].op, Op::Decide);
    assert_eq!((commands[0].key, commands[0].value), (&b"a"[..], &b"one"[..]));
    assert_eq!((commands[1].op, commands[1].number, commands[1].run), (Op::Skip, 11, 5));
    assert_eq!((commands[2].number, commands[2].expected), (16, 9));
    assert_eq!(commands[2].key_value, b"bbtwo");
    assert_eq!((commands[3].op, commands[3].number), (Op::Delete, 17));
}

#[test]
fn joined_batches_equal_parsing_the_joined_bytes() {
    let first = parse(sample()).unwrap();
    let mut builder = RequestBuilder::default();
    builder.read(b"key").unwrap();
    let second = parse(builder.encode(SessionId::NONE, Numbering::NONE)).unwrap();
    let joined = Batch::join(&[first.clone(), second.clone()]);
    let again = parse(joined.payload().clone()).unwrap();
    assert_eq!(joined.parts(), again.parts());
    assert_eq!(joined.crc(), crc32c::crc32c(joined.payload()));
    assert_eq!(joined.commands(), 5);
    assert_eq!(joined.commands_of(&joined.parts()[1]).next().unwrap().key, b"key");
    assert_eq!(Batch::join(std::slice::from_ref(&first)), first);
}

#[test]
fn every_truncation_is_refused() {
    let payload = sample();
    for length in 0..payload.len() {
        assert!(parse(payload.slice(..length)).is_err(), "{length}");
    }
}

#[test]
fn no_flipped_bit_makes_it_panic() {
    let payload = sample();
    for bit in 0..payload.len() * 8 {
        let mut bytes = payload.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(batch) = parse(bytes.into()) {
            for part in batch.parts() {
                assert_eq!(batch.commands_of(part).count(), part.commands as usize);
            }
        }
    }
}

#[test]
fn limits_are_errors_with_numbers_in_them() {
    let mut builder = RequestBuilder::default();
    let long = vec![0; VALUE_BYTES_MAX + 1];
    assert_eq!(builder.decide(b"", b""), Err(Invalid::KeyLength(0)));
    assert_eq!(builder.decide(&long[..1025], b""), Err(Invalid::KeyLength(1025)));
    let refused = builder.decide(b"k", &long).unwrap_err();
    assert_eq!(refused.to_string(), "a value has 1048577 bytes; at most 1048576 are allowed");
    for _ in 0..3 {
        builder.decide(b"k", &long[1..]).unwrap();
    }
    assert_eq!(builder.decide(b"k", &long[1..]), Err(Invalid::TooManyBytes));
    assert_eq!(builder.skip(REQUEST_NUMBERS_MAX), Err(Invalid::Numbers));
}

#[test]
fn kinds_do_not_mix() {
    let mut builder = RequestBuilder::default();
    builder.read(b"k").unwrap();
    assert_eq!(parse(builder.encode(session(), Numbering::at(1))), Err(Invalid::WrongKind(Op::Read)));
    builder.decide(b"k", b"v").unwrap();
    assert_eq!(parse(builder.encode(SessionId::NONE, Numbering::NONE)), Err(Invalid::WrongKind(Op::Decide)));
    builder.decide(b"k", b"v").unwrap();
    assert_eq!(parse(builder.encode(session(), Numbering::NONE)), Err(Invalid::WrongKind(Op::Decide)));
    let (keyed, at) = (SessionId::keyed(b"17"), Numbering::at(1 << 40));
    builder.decide(b"k", b"v").unwrap();
    assert!(parse(builder.encode(keyed, at)).is_ok());
    for _ in 0..2 {
        builder.decide(b"k", b"v").unwrap();
    }
    assert_eq!(
        parse(builder.encode(keyed, at)),
        Err(Invalid::WrongKind(Op::Decide)),
        "a key has one command"
    );
    builder.decide(b"k", b"v").unwrap();
    let below = Numbering { answered_below: 7, ..at };
    assert_eq!(parse(builder.encode(keyed, below)), Err(Invalid::WrongKind(Op::Decide)));
    builder.skip(3).unwrap();
    assert_eq!(parse(builder.encode(keyed, at)), Err(Invalid::WrongKind(Op::Skip)));
    builder.open();
    builder.open();
    assert_eq!(parse(builder.encode(SessionId::NONE, Numbering::NONE)), Err(Invalid::WrongKind(Op::Open)));
    builder.end();
    assert_eq!(parse(builder.encode(session(), Numbering::at(4))), Err(Invalid::WrongKind(Op::End)));
    assert_eq!(parse(builder.encode(session(), Numbering::at(4))), Err(Invalid::CommandCount));
}

#[test]
fn an_attach_comes_back_and_names_owner_and_source() {
    let name: SourceName = "daily".parse().unwrap();
    let attach = |owner| {
        let mut builder = RequestBuilder::default();
        builder.attach(Owner(3), Owner(owner), &name);
        builder.encode(name.session(ShardId(0)), Numbering::NONE)
    };
    let batch = parse(attach(4)).unwrap();
    let found = batch.commands_of(&batch.parts()[0]).next().unwrap().attach();
    assert_eq!(found, Some(Attach { expected: Owner(3), owner: Owner(4), name: name.clone() }));
    assert_eq!(parse(attach(0)), Err(Invalid::Attach));
    let mut builder = RequestBuilder::default();
    builder.attach(Owner(3), Owner(4), &name);
    builder.decide(b"k", b"v").unwrap();
    assert_eq!(parse(builder.encode(session(), Numbering::NONE)), Err(Invalid::WrongKind(Op::Attach)));
}

#[test]
fn a_seal_is_alone_and_names_the_record_that_follows() {
    let record = RecordId(u128::MAX - 7);
    let mut builder = RequestBuilder::default();
    builder.seal(record);
    let batch = parse(builder.encode(SessionId::NONE, Numbering::NONE)).unwrap();
    let seal = batch.commands_of(&batch.parts()[0]).next().unwrap();
    assert_eq!((seal.op, seal.record()), (Op::Seal, Some(record)));
    builder.seal(record);
    builder.seal(record);
    assert_eq!(parse(builder.encode(SessionId::NONE, Numbering::NONE)), Err(Invalid::WrongKind(Op::Seal)));
    builder.seal(record);
    assert_eq!(parse(builder.encode(session(), Numbering::at(1))), Err(Invalid::WrongKind(Op::Seal)));
    builder.request.headers.push(header(Op::Seal, 0, SEAL_BYTES - 1));
    builder.request.blob.extend_from_slice(&[0; SEAL_BYTES - 1]);
    assert_eq!(
        parse(builder.encode(SessionId::NONE, Numbering::NONE)),
        Err(Invalid::ValueLength(SEAL_BYTES - 1))
    );
}

#[test]
fn a_request_says_whose_it_is_and_the_next_one_says_so_anew() {
    let mut builder = RequestBuilder::default();
    builder.decide(b"k", b"v").unwrap();
    builder.owned_by(Owner(9));
    assert_eq!(parse(builder.encode(session(), Numbering::at(1))).unwrap().parts()[0].owner, Owner(9));
    builder.decide(b"k", b"v").unwrap();
    assert_eq!(parse(builder.encode(session(), Numbering::at(1))).unwrap().parts()[0].owner, Owner::NOBODY);
}

#[test]
fn a_misaligned_payload_is_copied_not_refused() {
    let payload = sample();
    for shift in 0..16 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(&payload);
        assert!(parse(Bytes::from(bytes).slice(shift..)).is_ok());
    }
}
