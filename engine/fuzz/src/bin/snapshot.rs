//! The reader of snapshots: whatever happens to one, it gives what was written, or refuses.
#![no_main]

use isonomy_fuzz::{Edit, apply, history};
use isonomy_protocol::snapshot::{Reader, Snapshot, SnapshotId, rebrand};
use std::sync::LazyLock;

/// How the bytes arrive.
const CHUNK: usize = 1000;

struct Written {
    id: SnapshotId,
    whole: Vec<u8>,
    /// What lay in its file before.
    older: Vec<u8>,
    hash: u64,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let (_, id, whole) = history(7);
    let hash = read(id, &whole).expect("it is whole").machine.hash();
    let (_, _, other) = history(8);
    let mut older = Vec::new();
    let earlier = SnapshotId { barrier: id.barrier - 1, ..id };
    let mut snapshot = read(id, &other).expect("it is whole");
    rebrand(&mut snapshot, earlier, |bytes| older.extend_from_slice(bytes));
    Written { id, whole, older, hash }
});

fn read(id: SnapshotId, bytes: &[u8]) -> Option<Snapshot> {
    let mut reader = Reader::new(id);
    bytes.chunks(CHUNK).try_for_each(|chunk| reader.push(chunk)).ok()?;
    reader.finish().ok()
}

libfuzzer_sys::fuzz_target!(|edits: Vec<Edit>| {
    let Written { id, whole, older, hash } = &*WRITTEN;
    let mut bytes = whole.clone();
    edits.into_iter().for_each(|edit| apply(edit, &mut bytes, older));
    if let Some(snapshot) = read(*id, &bytes) {
        assert_eq!(snapshot.machine.hash(), *hash, "another state passed for the one that was written");
    }
});
