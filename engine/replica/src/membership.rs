//! The part of a replica in a cluster whose members are named in etcd: it finds them there, takes its place, says that it
//! lives and where, and follows members that move. A decision never waits for any of that.

use crate::config::Config;
use crate::fatal::{Fatal, Reason};
use crate::threads::no_thread;
use isonomy_control::driver::Report;
use isonomy_control::id::{Incarnation, MemberId};
use isonomy_control::join::{JoinError, first_record, take_place};
use isonomy_control::places::{own_place, places};
use isonomy_control::plan::Refusal;
use isonomy_control::record::{Address, Member, Record, Stage};
use isonomy_control::service::{Etcd, LIFE, Options, Service, StartError, View};
use isonomy_control::{Presence, settings::Settings};
use isonomy_mesh::{MemberAddress, Place, Roster, ShardSettings};
use isonomy_shard::data_dir::{DataDir, MEMBERSHIP_FILE, known_incarnation};
use isonomy_wire::id::{Epoch, RecordId, ReplicaId};
use isonomy_wire::tuning::Loss;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// A replica's place among members that are named in etcd.
pub(crate) struct Membership {
    settings: Settings,
    cluster: String,
    cache: PathBuf,
    own: MemberId,
    /// The data directory, once it is open.
    incarnation: Option<Incarnation>,
    /// The newest record at the start.
    record: Record,
    service: Option<Service>,
    /// Where each member has said last that it is found, also after its sign of life has ended.
    published: RefCell<BTreeMap<Incarnation, Presence>>,
    /// Whether the log says that etcd is gone.
    is_gone: Cell<bool>,
}

/// What a replica knows of its cluster at one moment.
pub(crate) struct Known {
    /// Who takes part, and where they are found.
    pub(crate) roster: Roster,
    /// The record that the Seal is to name, if the epoch is to end.
    pub(crate) sealing: Option<RecordId>,
    /// The settings of the protocol, as etcd had them last.
    pub(crate) settings: ShardSettings,
    /// Why other settings are in etcd, which are not followed; empty if there are none.
    pub(crate) settings_trouble: String,
}

impl Membership {
    /// Finds the members, and completes the configuration with them. `None`: they are named in the configuration.
    ///
    /// An error that passes if there is no record yet, or etcd does not answer and the data directory has no record.
    pub(crate) fn find(config: &mut Config, stopping: &AtomicBool) -> Result<Option<Membership>, Fatal> {
        let Some(settings) = config.etcd.clone() else { return Ok(None) };
        let cache = config.data_dir.join(MEMBERSHIP_FILE);
        let is_over = || stopping.load(Ordering::Relaxed);
        let record =
            first_record(&settings, &config.cluster, &cache, is_over).map_err(|error| fatal(&error))?;
        let own = MemberId(config.replica.0);
        // Before the directory is made, because a directory is its member's for ever.
        let incarnation = known_incarnation(&config.data_dir).map(Incarnation);
        let place = own_place(&record, own, incarnation).map_err(|refusal| match refusal {
            Refusal::NoMember(_) => no_member(own, &record),
            refusal => fatal(&refusal.into()),
        })?;
        config.adopt(&record, place);
        let (cluster, is_gone) = (config.cluster.clone(), Cell::new(false));
        let published = RefCell::default();
        Ok(Some(Membership {
            settings,
            cluster,
            cache,
            own,
            incarnation,
            record,
            service: None,
            published,
            is_gone,
        }))
    }

    /// Takes the place with this data directory, publishes where the replica is found, and follows etcd from here on.
    /// News wake the calling thread.
    pub(crate) fn join(
        &mut self,
        config: &Config,
        data_dir: &DataDir,
        stopping: &AtomicBool,
    ) -> Result<(), Fatal> {
        self.check_cluster(data_dir)?;
        let incarnation = Incarnation(data_dir.incarnation());
        self.incarnation = Some(incarnation);
        let is_over = || stopping.load(Ordering::Relaxed);
        take_place(&self.settings, &self.record, &self.cache, self.own, incarnation, is_over)
            .map_err(|error| fatal(&error))?;
        let presence = Presence { id: self.own, incarnation, address: Address::from(config.own().clone()) };
        self.published.borrow_mut().insert(incarnation, presence.clone());
        let service = Service::start(Options {
            settings: self.settings.clone(),
            cluster: self.cluster.clone(),
            cache: self.cache.clone(),
            presence: Some(presence),
            life: LIFE,
        });
        let reason = |error: &StartError| match error {
            StartError::Cache(_) => Reason::DataDir,
            StartError::Settings(_) | StartError::Thread(_) => Reason::Machine,
        };
        let service = service.map_err(|error| Fatal::new(reason(&error), error.to_string()))?;
        let (mut views, main) = (service.views(), std::thread::current());
        let wake = move || {
            // The views end with the service.
            while futures_lite::future::block_on(views.changed()).is_ok() {
                main.unpark();
            }
        };
        let thread = std::thread::Builder::new().name("members".into()).spawn(wake);
        thread.map_err(no_thread("for the members"))?;
        self.service = Some(service);
        Ok(())
    }

    /// A cluster that was restored from a backup has the old name and another identity.
    fn check_cluster(&self, data_dir: &DataDir) -> Result<(), Fatal> {
        let (here, there) = (data_dir.cluster_id(), self.record.cluster_id);
        if here == there {
            return Ok(());
        }
        let text = format!(
            "the data directory belongs to the cluster with id {here}, and the record in etcd to {there}; check \
             `data_dir` and the prefix, or initialise the restored cluster under another prefix \
             (`isonomy member init --cluster-id {here}`)"
        );
        Err(Fatal::new(Reason::DataDir, text))
    }

    /// What is known now, taken at one moment. Says in etcd whether a shard of this replica judges that a fast quorum cannot
    /// be formed.
    pub(crate) fn look(&self, loss: Option<Loss>) -> Known {
        let Some(service) = &self.service else {
            return Known {
                roster: self.roster_of(&self.record),
                sealing: None,
                settings: ShardSettings::default(),
                settings_trouble: String::new(),
            };
        };
        service.judge(loss);
        let view = service.view();
        self.on_view(&view);
        let record = view.record.as_deref().unwrap_or(&self.record);
        let sealing = record.change().filter(|(_, stage)| *stage == Stage::Sealing);
        let is_slow_agreed = view.tuning.is_slow_agreed();
        Known {
            roster: self.roster_of(record),
            sealing: sealing.map(|(change, _)| RecordId(change.0)),
            settings: ShardSettings { tuning: view.tuning.chosen.tuning(), is_slow_agreed },
            settings_trouble: view.tuning.trouble.map_or_else(String::new, |why| why.to_string()),
        }
    }

    /// Who takes part in the epoch of a record, and where they are found: each at the address that it published last, or
    /// else at the one that the record names.
    fn roster_of(&self, record: &Record) -> Roster {
        let own = own_place(record, self.own, self.incarnation).ok();
        let published = self.published.borrow();
        let place = |(index, member): (usize, &Member)| {
            let known = member.incarnation.or(self.incarnation.filter(|_| own == Some(index)));
            let presence = known.and_then(|known| published.get(&known));
            let address = address_of(presence.map_or(&member.address, |presence| &presence.address));
            Place { address, incarnation: known.map(|it| it.0) }
        };
        Roster {
            epoch: Epoch(record.epoch),
            record: RecordId(record.record.0),
            own: own.map(|place| ReplicaId(place as u8)),
            members: record.membership.members.len() as u8,
            places: places(record).enumerate().map(place).collect(),
            is_changing: record.change().is_some(),
        }
    }

    /// Whether etcd answers.
    pub(crate) fn is_etcd_reached(&self) -> bool {
        self.service.as_ref().is_some_and(|service| matches!(service.view().etcd, Etcd::Reached))
    }

    /// Says what the shards of this replica have come to, which a change of the members waits for.
    pub(crate) fn report(&self, report: Report) {
        if let Some(service) = &self.service {
            service.report(report);
        }
    }

    /// Notes where members have said that they are found. The own address is the one that is configured.
    fn on_view(&self, view: &View) {
        self.tell_etcd(view);
        let is_possible = |presence: &&Presence| presence.is_possible(self.record.shards);
        let is_other = |presence: &&Presence| Some(presence.incarnation) != self.incarnation;
        let others = view.alive.values().filter(is_other).filter(is_possible);
        self.published.borrow_mut().extend(others.map(|presence| (presence.incarnation, presence.clone())));
    }

    /// Logs that etcd is gone or answers again, once each time.
    fn tell_etcd(&self, view: &View) {
        match &view.etcd {
            Etcd::Gone { why: Some(why), .. } if !self.is_gone.replace(true) => log::warn!(
                "{why}. Until then members that move are not found anew; decisions go on with the members that are known"
            ),
            Etcd::Reached if self.is_gone.replace(false) => log::info!("etcd answers again"),
            Etcd::Gone { .. } | Etcd::Reached => {}
        }
    }
}

fn address_of(address: &Address) -> MemberAddress {
    let Address { host, peer_base, client_base } = address.clone();
    MemberAddress { host, peer_base, client_base }
}

fn no_member(own: MemberId, record: &Record) -> Fatal {
    let ids: Vec<String> = places(record).map(|member| member.id.to_string()).collect();
    let text = format!(
        "`replica` is {own}, and the members in etcd are {}; check `replica` and `cluster`, or let the replica in first \
         (`isonomy member add`)",
        ids.join(", ")
    );
    Fatal::new(Reason::Config, text)
}

fn fatal(error: &JoinError) -> Fatal {
    let text = error.to_string();
    match error {
        error if error.passes() => Fatal::passing(Reason::Config, text),
        JoinError::Cache(_) => Fatal::new(Reason::DataDir, text),
        JoinError::Refused(_) | JoinError::Refusal(_) => Fatal::new(Reason::DataDir, text),
        JoinError::Runtime(_) => Fatal::new(Reason::Machine, text),
        JoinError::Settings(_) | JoinError::Etcd(_) => Fatal::new(Reason::Config, text),
    }
}
