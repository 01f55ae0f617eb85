//! The status that a replica reports to operators agrees with its records.

use crate::ghost::{Counted, Ghost};
use isonomy_protocol::replica::Replica;

pub(super) fn check(ghost: &Ghost, node: u8, core: &Replica) {
    let (book, status) = (&ghost.books[usize::from(node)], core.status());
    let told = Counted { fast: status.fast, slow: status.slow, recoveries: status.recoveries };
    assert_eq!(told, book.counted, "status: replica {node} has counted, and its records, on the right");
    assert!(book.written.committed.covers(&status.committed), "status: replica {node} has committed more");
    assert_eq!(
        status.snapshot.max(book.snapshot.0),
        book.snapshot.0,
        "status: replica {node} has no such snapshot"
    );
}
