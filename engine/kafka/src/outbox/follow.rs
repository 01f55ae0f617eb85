//! The outbox of a replica that does not publish: what another one has published need not be kept here either.

use super::head::{read_head, segments};
use super::writer::Published;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::publisher::Publication;
use crate::read::published;
use crate::settings::Settings;
use std::path::Path;

/// Asks Kafka how far a shard is published, and shows it to the writer of this outbox. Only whole segments count, since
/// the order between two barriers is another one at each replica. Returns the cursor. That of another cluster, from whose backup
/// this one was restored, says nothing about this outbox.
///
/// # Errors
///
/// [`Error`] if Kafka does not answer, or if the outbox cannot be read.
pub fn follow(
    settings: &Settings,
    publication: Publication,
    outbox: &Path,
    writer: &Published,
) -> Result<Option<Cursor>, Error> {
    let Publication { cluster, shard, .. } = publication;
    let cursor = published(settings, shard)?.filter(|cursor| cursor.cluster == cluster);
    let Some(cursor) = cursor else { return Ok(None) };
    let unread = |error: super::OutboxError| Error::Source(error.into());
    let there = segments(outbox).map_err(|error| Error::Source(error.into()))?;
    for barrier in there.into_iter().rev() {
        if cursor.has_passed(&read_head(outbox, barrier).map_err(unread)?.start) {
            writer.raise(barrier);
            break;
        }
    }
    Ok(Some(cursor))
}
