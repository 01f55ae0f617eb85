//! Where the publication of a shard goes on, if its operator says so.

use crate::check::check;
use crate::client::Asking;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::publisher::Publication;
use crate::settings::Settings;
use crate::standing::Standing;
use crate::stop::Stop;
use crate::transaction::Transactions;
use isonomy_wire::message::Milestone;
use std::sync::Arc;

/// Writes a cursor for the topic as it is now, behind which the shard is published from then on. The publisher that wrote
/// the cursor before is fenced, also if it is another cluster's: the new cursor is written under its transactional id, so that
/// nothing of it comes behind the new cursor. Either all of that happens, or the cursor stays as it is.
///
/// # Errors
///
/// [`Error::Moved`] if Kafka has something else than was `seen`; [`Error`] if the topics cannot be used, or if Kafka does
/// not answer.
pub fn reset(
    settings: &Settings,
    publication: Publication,
    seen: &Standing,
    behind: &Milestone,
) -> Result<Cursor, Error> {
    settings.check()?;
    let Publication { cluster, shard, shards } = publication;
    let asking = Asking { settings, shard };
    let reader = asking.reader("read_uncommitted")?;
    let topic = check(asking, shards, &reader)?;
    let owner = seen.cursor.map_or(cluster, |cursor| cursor.cluster);
    let id = Publication { cluster: owner, ..publication }.transactional_id(&settings.topic);
    let transactions = Transactions::fence(asking, &id, Arc::new(Stop::default()))?;
    let now = Standing::ask(asking, topic, &reader)?;
    if (now.topic, now.cursor, now.has_records) != (seen.topic, seen.cursor, seen.has_records) {
        return Err(Error::Moved(shard));
    }
    let Milestone { epoch, frontier, .. } = *behind;
    let next = Cursor { cluster, shard, epoch, frontier, topic, end: now.end };
    transactions.begin()?;
    let written = transactions.send_cursor(&next).and_then(|()| transactions.commit());
    if let Err(error) = written {
        transactions.abort();
        return Err(error);
    }
    Ok(next)
}
