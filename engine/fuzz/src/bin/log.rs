//! The scan of a segment: whatever happens to it, it gives a prefix of what was written, or refuses.
#![no_main]

use isonomy_fuzz::{BLOCK_BYTES, Edit, aligned, apply, history, log_id};
use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::log::SegmentHead;
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::scan::{LogEntry, Scanner};
use isonomy_protocol::payload::Payload;
use std::sync::LazyLock;

/// Records of a group at most.
const GROUP: usize = 5;
const SEGMENT: u64 = 9;

struct Written {
    appends: Vec<Append>,
    segment: Vec<u8>,
    /// What lay in its file before.
    older: Vec<u8>,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let (appends, ..) = history(7);
    let (segment, older) = (encode(&appends, SEGMENT), encode(&history(8).0, SEGMENT - 1));
    Written { appends, segment, older }
});

fn encode(appends: &[Append], segment: u64) -> Vec<u8> {
    let mut bytes = log_id().encode_head(SegmentHead { segment, first: appends[0].position.0 });
    let mut encoder = GroupEncoder::new(log_id());
    for records in appends.chunks(GROUP) {
        let place = log_id().place(segment).wrapping_add(bytes.len() as u64);
        let needed = records.iter().map(|append| group_bytes(append.payload.as_ref())).sum();
        let (mut buffer, mut group) = (vec![0; needed], Group::new(records[0].position));
        for append in records {
            assert!(encoder.append(&mut group, &mut buffer, place, append));
        }
        let size = encoder.finish(&group, &mut buffer, place, Position(records[0].position.0 - 1));
        bytes.extend_from_slice(&buffer[..size]);
    }
    bytes.resize(bytes.len() + 4 * BLOCK_BYTES, 0);
    bytes
}

fn is_same((record, payload): &LogEntry, append: &Append) -> bool {
    let bytes =
        |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.batch().payload().to_vec());
    *record == append.record && bytes(payload) == bytes(&append.payload)
}

libfuzzer_sys::fuzz_target!(|edits: Vec<Edit>| {
    let Written { appends, segment, older } = &*WRITTEN;
    let mut bytes = segment.clone();
    edits.into_iter().for_each(|edit| apply(edit, &mut bytes, older));
    // What is missing reads as zeros, as in a file of fixed size.
    bytes.resize(segment.len(), 0);
    let mut scanner = Scanner::new(log_id(), SEGMENT, aligned(&bytes), appends[0].position);
    let mut read = 0;
    loop {
        match scanner.next_group(|entry| {
            assert!(is_same(&entry, &appends[read]), "record {read} is not what was written");
            read += 1;
        }) {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) => {
                let Ok(_) = scanner.is_torn();
                return;
            }
        }
    }
});
