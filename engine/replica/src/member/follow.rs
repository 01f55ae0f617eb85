//! Waits for the end of a change that members carry on, and says meanwhile how far it is.

use super::copying::Copying;
use super::standing::Standing;
use crate::logging::say;
use crate::status::replica_status;
use anyhow::Result;
use indicatif::ProgressBar;
use isonomy_control::Error;
use isonomy_control::id::{ChangeId, MemberId, RecordId};
use isonomy_control::record::{Member, Record, Stage, State};
use isonomy_control::store::Store;
use isonomy_wire::address::with_port;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How often it is looked how far the change is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the status of a new member is waited for.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
/// How often the progress is told where no terminal shows it.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why the end of a change was not seen, or is another one than was waited for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfollowed {
    /// The process was told to stop.
    #[error(
        "the change {0} goes on by itself; `isonomy member list --wait` shows how far it is, and `isonomy member \
         cancel` takes it back"
    )]
    Interrupted(ChangeId),
    /// Somebody has cancelled the change.
    #[error(
        "the change {0} was cancelled, and the members are as before; announce it again if it is still wanted"
    )]
    Cancelled(ChangeId),
    /// The record is several epochs ahead, or of another history.
    #[error(
        "what came of the change {change} was not seen: etcd now has {there}; `isonomy member list` shows the members"
    )]
    Overtaken {
        /// The change.
        change: ChangeId,
        /// What is in etcd.
        there: Box<Record>,
    },
    /// etcd does not let the command look.
    #[error("{error}. The change {change} goes on as soon as its members reach etcd")]
    Etcd {
        /// What is wrong.
        error: Error,
        /// The change.
        change: ChangeId,
    },
}

/// Waits until the change of a record is over. Returns how the members stand then.
pub(super) async fn follow(store: &mut Store, begun: &Record) -> Result<Standing> {
    let Some((change, _)) = begun.change() else { return Ok(Standing::read(store).await?) };
    let mut progress = Progress::new();
    let mut interrupted = interruption()?;
    loop {
        let read = tokio::select! {
            read = Standing::read(store) => read,
            _ = &mut interrupted => return Err(Unfollowed::Interrupted(change).into()),
        };
        match read {
            Ok(standing) => match end_of(begun, change, &standing.record) {
                End::NotYet => progress.show(&standing).await,
                End::Done => return Ok(standing),
                End::Cancelled => return Err(Unfollowed::Cancelled(change).into()),
                End::Unseen => {
                    let there = Box::new(standing.record);
                    return Err(Unfollowed::Overtaken { change, there }.into());
                }
            },
            Err(error @ (Error::Unreachable(_) | Error::Unsettled(_) | Error::Other { .. })) => {
                progress.tell(&error.to_string(), String::new());
            }
            Err(error) => return Err(Unfollowed::Etcd { error, change }.into()),
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            _ = &mut interrupted => return Err(Unfollowed::Interrupted(change).into()),
        }
    }
}

/// What has come of a change.
#[derive(PartialEq, Eq, Debug)]
enum End {
    NotYet,
    Done,
    Cancelled,
    Unseen,
}

/// What has come of the change of a record, as a later record of the cluster tells.
fn end_of(begun: &Record, change: ChangeId, now: &Record) -> End {
    let to = begun.changing_to().unwrap_or(&begun.membership);
    match &now.state {
        State::Changing { change: there, .. } if now.record == begun.record && *there == change => {
            End::NotYet
        }
        _ if now.record == begun.record => End::Cancelled,
        // Before the epoch was sealed, the change has given way to another one.
        _ if now.predecessor == Some(begun.record) && now.record != RecordId(change.0) => End::Cancelled,
        _ if now.predecessor == Some(begun.record) && to.is_kept_in(&now.membership) => End::Done,
        _ if now.predecessor == Some(begun.record) => End::Cancelled,
        _ => End::Unseen,
    }
}

/// Tells when the process is told to stop.
fn interruption() -> Result<oneshot::Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, interrupted) = oneshot::channel();
    let wait = move || {
        if signals.forever().next().is_some() {
            // Whoever waits for it may have what it wants by now.
            let _ = sender.send(());
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(interrupted)
}

/// What is told of a change while it goes on: on a terminal always the newest, elsewhere now and then.
struct Progress {
    began: Instant,
    bar: ProgressBar,
    copying: BTreeMap<MemberId, Copying>,
    /// What was told last, without its figures, and when.
    told: Option<(String, Instant)>,
}

impl Progress {
    fn new() -> Progress {
        let (bar, copying) = (ProgressBar::new_spinner(), BTreeMap::new());
        Progress { began: Instant::now(), bar, copying, told: None }
    }

    async fn show(&mut self, standing: &Standing) {
        let waits = standing.waits_for().unwrap_or_default();
        let stage = standing.record.change().map_or(Stage::Learning, |(_, stage)| stage);
        let learners: Vec<String> = standing.record.learners().map(|it| standing.learner(it)).collect();
        let mut figures = String::new();
        for member in standing.record.learners() {
            if let Some(copied) = self.ask(standing, member).await {
                figures += &format!("; new member {} {copied}", member.id);
            }
        }
        let learners: String = learners.iter().map(|learner| format!("; new member {learner}")).collect();
        self.tell(&format!("{stage}{learners}; {waits}"), figures);
    }

    /// How much a new member has copied.
    async fn ask(&mut self, standing: &Standing, member: &Member) -> Option<String> {
        let address = &standing.presence_of(member).filter(|_| member.incarnation.is_some())?.address;
        let (address, cluster) = (with_port(&address.host, address.client_base), standing.record.cluster_id);
        let status = timeout(STATUS_PATIENCE, replica_status(&address, Some(cluster))).await;
        let (now, copying) = (self.began.elapsed(), self.copying.entry(member.id).or_default());
        // A member that has only begun to start gives no status yet.
        if let Ok(Ok((_, shards))) = status {
            copying.on_status(now, &shards);
        }
        copying.describe(now)
    }

    /// Tells how the change stands, and the figures that change all the time.
    fn tell(&mut self, text: &str, figures: String) {
        self.bar.set_message(format!("{text}{figures}"));
        self.bar.tick();
        let is_due = match &self.told {
            Some((told, at)) => told != text || (at.elapsed() >= TELL_EVERY && !figures.is_empty()),
            None => true,
        };
        if self.bar.is_hidden() && is_due {
            say(&format!("isonomy: {text}{figures}"));
            self.told = Some((text.to_owned(), Instant::now()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::stands;
    use isonomy_control::id::Incarnation;
    use isonomy_control::plan::{Change, Founding, activate, announce, cancel, claim, found, promote};
    use isonomy_control::record::Address;
    use isonomy_wire::id::ClusterId;
    use std::collections::BTreeSet;

    fn directory(id: u8) -> Incarnation {
        Incarnation(u128::from(id) + 1)
    }

    fn all() -> BTreeSet<Incarnation> {
        (0..9).map(directory).chain([Incarnation(99)]).collect()
    }

    fn first() -> Record {
        let address = |n: u8| Address { host: format!("h{n}"), peer_base: 1, client_base: 2 };
        let founding = Founding {
            cluster: "orders".into(),
            cluster_id: ClusterId(1),
            shards: 1,
            addresses: (0..3).map(address).collect(),
            stands: stands(3),
            epoch: 1,
        };
        let record = found(founding, RecordId(1)).unwrap();
        (0..3).fold(record, |record, id| claim(&record, MemberId(id), directory(id)).unwrap())
    }

    fn announced(record: &Record, change: ChangeId) -> Record {
        let replace = Change::Replace(MemberId(1), None);
        let next = announce(record, &replace, change, false, stands, &all()).unwrap();
        claim(&next, MemberId(1), Incarnation(99)).unwrap()
    }

    fn sealing(record: &Record) -> Record {
        promote(record, &all(), &all()).unwrap()
    }

    fn next(record: &Record) -> Record {
        activate(record, &all().into_iter().map(|it| (it, 7)).collect()).unwrap()
    }

    #[test]
    fn what_came_of_a_change_is_told_from_the_record() {
        let (first, change) = (first(), ChangeId(5));
        let begun = announced(&first, change);
        let sealing = sealing(&begun);
        let done = next(&sealing);
        let cancelled = cancel(&sealing).unwrap();
        for (now, expected) in [
            (&begun, End::NotYet),
            (&sealing, End::NotYet),
            (&cancelled, End::NotYet),
            (&done, End::Done),
            // Another change may be under way by now.
            (&announced_again(&done), End::Done),
            (&first, End::Cancelled),
            (&announced(&first, ChangeId(6)), End::Cancelled),
            (&next(&cancelled), End::Cancelled),
            (&next(&self::sealing(&announced(&first, ChangeId(6)))), End::Cancelled),
            (&next(&self::sealing(&announced_again(&done))), End::Unseen),
            (&Record { record: RecordId(77), ..first.clone() }, End::Unseen),
        ] {
            assert_eq!(end_of(&begun, change, now), expected, "{now}");
        }
        // Whoever has cancelled waits for the same members.
        assert_eq!(end_of(&cancelled, change, &next(&cancelled)), End::Done);
    }

    fn announced_again(record: &Record) -> Record {
        announce(record, &Change::Remove(MemberId(0)), ChangeId(8), false, stands, &all()).unwrap()
    }
}
