//! The part of a replica in a cluster whose members are named in etcd: it finds them there, takes its place, says that it
//! lives and where, and follows members that move. A decision never waits for any of that.

use crate::config::Config;
use crate::fatal::{Fatal, Reason};
use isonomy_control::id::{Incarnation, MemberId};
use isonomy_control::join::{JoinError, first_record, take_place};
use isonomy_control::record::{Address, Record};
use isonomy_control::service::{Etcd, LIFE, Options, Service, View};
use isonomy_control::{Presence, settings::Settings};
use isonomy_mesh::MemberAddress;
use isonomy_shard::data_dir::{DataDir, MEMBERSHIP_FILE};
use std::cell::Cell;
use std::path::PathBuf;

/// A replica's place among members that are named in etcd.
pub(crate) struct Membership {
    settings: Settings,
    cluster: String,
    cache: PathBuf,
    own: MemberId,
    record: Record,
    service: Option<Service>,
    /// Whether the log says that etcd is gone.
    is_gone: Cell<bool>,
}

impl Membership {
    /// Finds the members, and completes the configuration with them. `None`: they are named in the configuration.
    ///
    /// An error that passes if there is no record yet, or etcd does not answer and the data directory has no record.
    pub(crate) fn find(config: &mut Config) -> Result<Option<Membership>, Fatal> {
        let Some(settings) = config.etcd.clone() else { return Ok(None) };
        std::fs::create_dir_all(&config.data_dir).map_err(|error| {
            let path = config.data_dir.display();
            Fatal::new(Reason::DataDir, format!("data directory {path}: {error}; it must be writable"))
        })?;
        let cache = config.data_dir.join(MEMBERSHIP_FILE);
        let record = first_record(&settings, &config.cluster, &cache).map_err(|error| fatal(&error))?;
        let own = MemberId(config.replica.0);
        config.adopt(&record)?;
        let (cluster, is_gone) = (config.cluster.clone(), Cell::new(false));
        Ok(Some(Membership { settings, cluster, cache, own, record, service: None, is_gone }))
    }

    /// Takes the place with this data directory, publishes where the replica is found, and follows etcd from here on.
    /// News wake the calling thread.
    pub(crate) fn join(&mut self, config: &Config, data_dir: &DataDir) -> Result<(), Fatal> {
        self.check_cluster(data_dir)?;
        let incarnation = Incarnation(data_dir.incarnation());
        take_place(&self.settings, &self.record, self.own, incarnation).map_err(|error| fatal(&error))?;
        let address = Address::from(config.own().clone());
        let service = Service::start(Options {
            settings: self.settings.clone(),
            cluster: self.cluster.clone(),
            cache: self.cache.clone(),
            presence: Some(Presence { id: self.own, incarnation, address }),
            life: LIFE,
        });
        let service = service.map_err(|error| Fatal::new(Reason::Machine, error.to_string()))?;
        let (mut views, main) = (service.views(), std::thread::current());
        let wake = move || {
            // The views end with the service.
            while futures_lite::future::block_on(views.changed()).is_ok() {
                main.unpark();
            }
        };
        let thread = std::thread::Builder::new().name("members".into()).spawn(wake);
        thread.map_err(|error| {
            Fatal::new(
                Reason::Machine,
                format!("no thread for the members ({error}); raise the limit on threads"),
            )
        })?;
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

    /// Where the members are found, as far as that is known now: each at the address that it published last, or else at
    /// the one that the record names.
    pub(crate) fn addresses(&self) -> Vec<MemberAddress> {
        let view = self.service.as_ref().map(Service::view);
        view.iter().for_each(|view| self.tell_etcd(view));
        let known = view.as_ref().and_then(|view| view.record.as_deref()).unwrap_or(&self.record);
        // Of another epoch nothing is taken: its members may have other places.
        let record = if known.epoch == self.record.epoch { known } else { &self.record };
        let found = |member: &isonomy_control::record::Member| {
            let published = view.as_ref().and_then(|view| published(view, member.id, member.incarnation));
            address_of(published.unwrap_or(&member.address))
        };
        record.membership.members.iter().map(found).collect()
    }
}

impl Membership {
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

/// Where a member has said that it is found. Another directory than the one that has taken its place says nothing.
fn published(view: &View, id: MemberId, incarnation: Option<Incarnation>) -> Option<&Address> {
    let presence = view.alive.get(&id)?;
    incarnation.is_none_or(|incarnation| incarnation == presence.incarnation).then_some(&presence.address)
}

fn address_of(address: &Address) -> MemberAddress {
    let Address { host, peer_base, client_base } = address.clone();
    MemberAddress { host, peer_base, client_base }
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
