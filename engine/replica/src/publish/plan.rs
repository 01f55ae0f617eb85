//! Where a shard goes on, what that leaves out, and what comes twice.

use super::overview::{Obstacle, Overview, lacking};
use clap::ValueEnum;
use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::{Error, Standing};
use isonomy_wire::id::{ClusterId, ShardId};
use isonomy_wire::message::{Milestone, ShardStatus};

/// Where the publication goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Whence {
    /// Behind the cursor that Kafka has, so that nothing is left out
    Cursor,
    /// With the oldest decision from which on a replica keeps all
    Kept,
    /// With what is executed from now on
    Now,
}

/// What is done about a shard.
pub(super) struct Plan {
    pub(super) shard: ShardId,
    pub(super) seen: Standing,
    /// What counts as published.
    pub(super) behind: Milestone,
    /// What is wrong, what is left out, and what comes twice.
    pub(super) told: String,
}

/// Why nothing is done about a shard.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Another command does.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// The topic is another cluster's than was named.
    #[error(
        "shard {}: the topic has the decisions of cluster {there}, not of {named}; nothing was changed; name the cluster from \
         which this one was restored", shard.0
    )]
    OtherOwner { shard: ShardId, there: ClusterId, named: ClusterId },
    /// There is nothing to adopt.
    #[error("shard {}: no other cluster has the topic, so there is nothing to adopt; what is wrong is this: {what}", shard.0)]
    NothingToAdopt { shard: ShardId, what: Obstacle },
    /// There is no cursor of this cluster.
    #[error("shard {}: Kafka has no cursor of this cluster to go on behind; choose --from kept or --from now", .0.0)]
    NoOwnCursor(ShardId),
    /// No replica has told what it keeps.
    #[error(
        "shard {}: no replica that answers keeps decisions; start the replicas with the table [publish], and try again", .0.0
    )]
    NothingKept(ShardId),
    /// The replicas do not keep what comes next.
    #[error(
        "shard {}: the replicas that answer keep all decisions from barrier {barrier} on only, and the cursor is before it; start \
         a replica that keeps more, or choose --from kept or --from now", shard.0
    )]
    NotKept { shard: ShardId, barrier: u64 },
}

/// What is done about a shard; `None` if nothing is wrong with it. `adopted` is the cluster whose topic is taken over.
pub(super) fn make(
    overview: &Overview,
    shard: ShardId,
    whence: Whence,
    adopted: Option<ClusterId>,
) -> Result<Option<Plan>, Refusal> {
    let kafka = |error: Error| Refusal::Obstacle(error.into());
    let seen = overview.standing(shard).map_err(kafka)?;
    let Err(obstacle) = overview.judge(shard, &seen) else { return Ok(None) };
    let kept = overview.kept(shard);
    let oldest = kept.iter().min_by_key(|start| start.barrier).ok_or(Refusal::NothingKept(shard))?;
    let obstacle = admit(shard, obstacle, &seen, adopted)?;
    let choice = Choice { cluster: overview.cluster, shard, whence, seen: &seen, kept: &kept, oldest };
    let next = choice.behind(&obstacle, overview.statuses(shard))?;
    let told = tell(overview, &obstacle, whence, oldest, &next);
    let behind = Milestone { barrier: oldest.barrier, epoch: next.epoch, frontier: next.frontier };
    Ok(Some(Plan { shard, seen, behind, told }))
}

/// What an operator has chosen, and what is known of a shard.
struct Choice<'a> {
    cluster: ClusterId,
    shard: ShardId,
    whence: Whence,
    seen: &'a Standing,
    /// From where on each replica that answers keeps everything, and the oldest of these barriers.
    kept: &'a [Milestone],
    oldest: &'a Milestone,
}

impl Choice<'_> {
    /// The cursor that says so, but for the place in the topic.
    fn behind<'s>(
        &self,
        obstacle: &Obstacle,
        statuses: impl Iterator<Item = &'s ShardStatus>,
    ) -> Result<Cursor, Refusal> {
        let Choice { cluster, shard, whence, seen, kept, oldest } = *self;
        let own = seen.cursor.filter(|cursor| cursor.cluster == cluster);
        // What is published stays published, unless the operator wants it again.
        let is_again = whence == Whence::Kept && !matches!(obstacle, Obstacle::Lacking(_));
        let nothing = || Cursor::nothing(cluster, shard, seen.topic);
        let mut next = own.filter(|_| !is_again).unwrap_or_else(nothing);
        match whence {
            Whence::Cursor if own.is_none() => return Err(Refusal::NoOwnCursor(shard)),
            Whence::Cursor => {}
            Whence::Kept => next.pass(oldest),
            // What any replica has executed is closed under dependencies, and so is all of it together.
            Whence::Now => statuses.for_each(|status| {
                let ShardStatus { barrier, epoch, frontier, .. } = *status;
                next.pass(&Milestone { barrier, epoch, frontier });
            }),
        }
        match lacking(shard, &next, kept) {
            Some(lacking) => Err(Refusal::NotKept { shard, barrier: lacking.barrier }),
            None => Ok(next),
        }
    }
}

/// Whether this command is the one for an obstacle.
fn admit(
    shard: ShardId,
    obstacle: Obstacle,
    seen: &Standing,
    adopted: Option<ClusterId>,
) -> Result<Obstacle, Refusal> {
    match (&obstacle, adopted) {
        (Obstacle::Kafka(Error::Owned { there, .. }), Some(named)) if there.cluster != named => {
            Err(Refusal::OtherOwner { shard, there: there.cluster, named })
        }
        (Obstacle::Kafka(Error::Owned { there, .. }), Some(_)) if there.shard == shard => Ok(obstacle),
        // Of this shard the other cluster has published nothing.
        (Obstacle::Lacking(_), Some(_)) if seen.cursor.is_none() => Ok(obstacle),
        (_, Some(_)) => Err(Refusal::NothingToAdopt { shard, what: obstacle }),
        (
            Obstacle::Kafka(Error::Replaced { .. } | Error::Truncated { .. } | Error::NoCursor { .. }),
            None,
        )
        | (Obstacle::Lacking(_), None) => Ok(obstacle),
        (Obstacle::Kafka(_), None) => Err(Refusal::Obstacle(obstacle)),
    }
}

/// What a plan means for those who read the topic.
fn tell(
    overview: &Overview,
    obstacle: &Obstacle,
    whence: Whence,
    oldest: &Milestone,
    next: &Cursor,
) -> String {
    let barrier = oldest.barrier;
    let mut left_out = match (whence, obstacle) {
        (Whence::Cursor, Obstacle::Kafka(Error::Truncated { end, reached, .. })) => {
            format!("what Kafka has lost, offsets {end} to {reached}")
        }
        (Whence::Cursor, _) => "nothing; what was published went to the topic before this one".to_owned(),
        (Whence::Kept, _) if barrier == 0 => "nothing".to_owned(),
        (Whence::Kept, _) => format!("what was decided before barrier {barrier} and is not published"),
        (Whence::Now, _) => "all that is executed by now and not published".to_owned(),
    };
    let silent = overview.silent();
    if !silent.is_empty() && whence != Whence::Cursor {
        left_out += &format!(", and what only those keep that do not answer ({})", silent.join(", "));
    }
    let twice = match (whence, obstacle) {
        (Whence::Cursor, _) | (_, Obstacle::Lacking(_)) => "nothing".to_owned(),
        (_, Obstacle::Kafka(Error::Owned { there, .. })) => format!(
            "ids and key_seqs that cluster {} published after the backup; they name other decisions now",
            there.cluster
        ),
        (Whence::Now, _) => "nothing".to_owned(),
        (Whence::Kept, Obstacle::Kafka(Error::Replaced { .. })) => {
            format!("nothing in this topic; what came behind barrier {barrier} was in the one before")
        }
        (Whence::Kept, _) => format!("what the topic has of the decisions behind barrier {barrier}"),
    };
    format!(
        "shard {}: {obstacle}\n  goes on behind epoch {} {:?}\n  left out: {left_out}\n  comes twice: {twice}",
        next.shard.0, next.epoch.0, next.frontier
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_kafka::cursor::TopicId;
    use isonomy_kafka::outbox::Lacking;
    use isonomy_wire::deps::Frontier;
    use isonomy_wire::id::Epoch;

    const CLUSTER: ClusterId = ClusterId(1);
    const SHARD: ShardId = ShardId(0);

    fn at(barrier: u64, epoch: u32, rows: [u64; 2]) -> Milestone {
        let frontier = Frontier::from([rows[0], rows[1], 0, 0, 0, 0, 0, 0, 0]);
        Milestone { barrier, epoch: Epoch(epoch), frontier }
    }

    /// Where a choice goes on, where this was published by a cluster, and two replicas have kept and executed so much.
    fn behind(
        whence: Whence,
        obstacle: &Obstacle,
        published: Option<(ClusterId, Milestone)>,
    ) -> Result<Milestone, Refusal> {
        let cursor = |(cluster, start): (ClusterId, Milestone)| {
            let mut cursor = Cursor::nothing(cluster, SHARD, TopicId::default());
            cursor.pass(&start);
            cursor
        };
        let seen =
            Standing { topic: TopicId::default(), end: 9, cursor: published.map(cursor), has_records: true };
        let kept = [at(5, 2, [50, 52]), at(4, 2, [40, 41])];
        let oldest = &kept[1];
        let executed = [at(6, 2, [61, 60]), at(5, 2, [59, 66])];
        let status =
            |it: &Milestone| ShardStatus { epoch: it.epoch, frontier: it.frontier, ..ShardStatus::default() };
        let statuses: Vec<ShardStatus> = executed.iter().map(status).collect();
        let choice = Choice { cluster: CLUSTER, shard: SHARD, whence, seen: &seen, kept: &kept, oldest };
        let next = choice.behind(obstacle, statuses.iter())?;
        Ok(Milestone { barrier: 0, epoch: next.epoch, frontier: next.frontier })
    }

    fn own(start: Milestone) -> Option<(ClusterId, Milestone)> {
        Some((CLUSTER, start))
    }

    #[test]
    fn what_is_kept_begins_with_the_oldest_and_what_is_published_comes_again_only_if_something_was_lost() {
        let lacking = Obstacle::Lacking(Lacking { shard: SHARD, barrier: 4 });
        let none = Obstacle::Kafka(Error::NoCursor { topic: "t".into(), partition: 0 });
        let kept = |obstacle, published| behind(Whence::Kept, obstacle, published).unwrap();
        assert_eq!(kept(&none, None), at(0, 2, [40, 41]));
        assert_eq!(kept(&none, own(at(0, 2, [70, 70]))), at(0, 2, [40, 41]));
        assert_eq!(kept(&lacking, own(at(0, 2, [70, 30]))), at(0, 2, [70, 41]), "it does not come twice");
        let other = Some((ClusterId(2), at(0, 3, [99, 99])));
        assert_eq!(
            kept(&none, other),
            at(0, 2, [40, 41]),
            "what another cluster has published is nothing here"
        );
    }

    #[test]
    fn now_is_all_that_any_replica_has_executed_and_what_is_published() {
        let none = Obstacle::Kafka(Error::NoCursor { topic: "t".into(), partition: 0 });
        let now = |published| behind(Whence::Now, &none, published).unwrap();
        assert_eq!(now(None), at(0, 2, [61, 66]));
        assert_eq!(now(own(at(0, 1, [90, 90]))), at(0, 2, [61, 66]), "an epoch ends those before it");
        assert_eq!(now(own(at(0, 2, [90, 1]))), at(0, 2, [90, 66]));
    }

    #[test]
    fn a_cursor_is_gone_on_behind_only_if_a_replica_keeps_what_follows() {
        let none = Obstacle::Kafka(Error::NoCursor { topic: "t".into(), partition: 0 });
        let cursor = |published| behind(Whence::Cursor, &none, published);
        assert_eq!(cursor(own(at(0, 2, [45, 41]))).unwrap(), at(0, 2, [45, 41]));
        assert!(matches!(cursor(own(at(0, 2, [45, 40]))), Err(Refusal::NotKept { barrier: 4, .. })));
        assert!(matches!(cursor(None), Err(Refusal::NoOwnCursor(_))));
        let other = Some((ClusterId(2), at(0, 2, [99, 99])));
        assert!(matches!(cursor(other), Err(Refusal::NoOwnCursor(_))));
    }
}
