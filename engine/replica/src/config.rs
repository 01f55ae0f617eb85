//! The configuration of a replica: flags over environment over file over defaults.

mod consume;
mod doors;
mod etcd;
pub(crate) mod publish;

use crate::fatal::{Fatal, Reason};
use clap::{Args, ValueEnum};
use consume::ConsumeFile;
use doors::DoorFile;
use etcd::EtcdFile;
pub(crate) use etcd::{EtcdArgs, MembershipSource};
use isonomy_control::places::places;
use isonomy_control::record::{Address, Record};
use isonomy_control::settings::Settings as EtcdSettings;
use isonomy_control::tuning::Chosen;
use isonomy_kafka::consumer::ConsumerSettings;
use isonomy_mesh::{MemberAddress, Roster};
use isonomy_shard::data_dir::Expected;
use isonomy_wire::address::{bare_host, is_host, with_port};
use isonomy_wire::id::{ClusterId, Epoch, REPLICAS_MAX, ReplicaId, SHARDS_MAX};
use publish::PublishFile;
pub(crate) use publish::{Publish, PublishTo, Target as PublishTarget};
use serde::{Deserialize, Deserializer};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The default number of client connections per shard.
pub(crate) const CONNECTIONS_MAX: u32 = 1024;
/// The default size of log that a shard may keep, in MiB.
pub(crate) const LOG_BUDGET_MIB: u64 = 4096;
/// The smallest budget, since a barrier must fit between two others.
pub(crate) const LOG_BUDGET_MIB_MIN: u64 = 64;

/// The default number of days without use after which a source is forgotten, and the largest.
const SOURCE_EXPIRY_DAYS: u32 = 30;
const SOURCE_EXPIRY_DAYS_MAX: u32 = 3650;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The moment at which a decision may be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// When the disk has flushed the decision.
    #[default]
    Fsync,
    /// When the operating system has the decision; a power failure of a majority can lose it.
    Os,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
        }
    }
}

/// The address of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberConfig {
    /// A name or an address. An IPv6 address has no brackets here, but may have them in the file.
    #[serde(deserialize_with = "read_host")]
    pub(crate) host: String,
    /// Shard `s` listens for peers on this port plus `s`.
    pub(crate) peer_base: u16,
    /// Shard `s` listens for clients on this port plus `s`.
    pub(crate) client_base: u16,
}

impl MemberConfig {
    /// Where clients find its shard 0.
    pub(crate) fn client_address(&self) -> String {
        with_port(&self.host, self.client_base)
    }
}

impl FromStr for MemberConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<MemberConfig, String> {
        let parts = text.rsplitn(3, ':').collect::<Vec<_>>();
        let [client_base, peer_base, host] = parts[..] else {
            return Err("a member is HOST:PEER_BASE:CLIENT_BASE".into());
        };
        let port = |text: &str| text.parse().map_err(|_| format!("'{text}' is not a port"));
        Ok(MemberConfig {
            host: bare_host(host).into(),
            peer_base: port(peer_base)?,
            client_base: port(client_base)?,
        })
    }
}

fn read_host<'de, D: Deserializer<'de>>(host: D) -> Result<String, D::Error> {
    String::deserialize(host).map(|host| bare_host(&host).to_owned())
}

impl From<&Address> for MemberConfig {
    fn from(address: &Address) -> MemberConfig {
        let Address { host, peer_base, client_base } = address.clone();
        MemberConfig { host, peer_base, client_base }
    }
}

impl From<MemberConfig> for Address {
    fn from(member: MemberConfig) -> Address {
        let MemberConfig { host, peer_base, client_base } = member;
        Address { host, peer_base, client_base }
    }
}

/// The configuration file, in which every key is optional.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Option<String>,
    replica: Option<u8>,
    shards: Option<u16>,
    data_dir: Option<PathBuf>,
    durability: Option<Durability>,
    cores: Option<Vec<usize>>,
    listen: Option<String>,
    connections_max: Option<u32>,
    log_budget_mib: Option<u64>,
    source_expiry_days: Option<u32>,
    membership: Option<MembershipSource>,
    advertise: Option<MemberConfig>,
    #[serde(default)]
    members: Vec<MemberConfig>,
    #[serde(default)]
    etcd: EtcdFile,
    #[serde(default)]
    publish: PublishFile,
    consume: Option<ConsumeFile>,
    #[serde(default)]
    http: DoorFile,
    #[serde(default)]
    grpc: DoorFile,
    settings: Option<Chosen>,
}

/// `isonomy serve`
#[derive(Args, Debug, Default)]
pub(crate) struct ServeArgs {
    /// The configuration file (TOML)
    #[arg(long, env = "ISONOMY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster's name; replicas and clients of different clusters refuse each other
    #[arg(long, env = "ISONOMY_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// The place of this replica in the list of members, from 0
    #[arg(long, env = "ISONOMY_REPLICA", value_name = "N")]
    replica: Option<u8>,
    /// The number of shards, equal for all members and fixed for the cluster's life [default: 1]
    #[arg(long, env = "ISONOMY_SHARDS", value_name = "N")]
    shards: Option<u16>,
    /// The directory of the log and the snapshots, of this replica alone
    #[arg(long, env = "ISONOMY_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// When a decision may be answered [default: fsync]
    #[arg(long, env = "ISONOMY_DURABILITY", value_enum)]
    durability: Option<Durability>,
    /// The cores to which shards are pinned, in turn [default: all that the process may use]
    #[arg(long, env = "ISONOMY_CORES", value_delimiter = ',', value_name = "CORE,...")]
    cores: Option<Vec<usize>>,
    /// The address to listen on [default: the member's own host]
    #[arg(long, env = "ISONOMY_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// The most client connections per shard [default: 1024]
    #[arg(long, env = "ISONOMY_CONNECTIONS_MAX", value_name = "N")]
    connections_max: Option<u32>,
    /// The size of log, in MiB, that each shard may keep before it refuses clients; it takes a snapshot whenever the
    /// log has grown by a quarter of this [default: 4096]
    #[arg(long, env = "ISONOMY_LOG_BUDGET_MIB", value_name = "MIB")]
    log_budget_mib: Option<u64>,
    /// The days without use after which a source of `propose --source` is forgotten; a restart of the replica begins
    /// them anew [default: 30]
    #[arg(long, env = "ISONOMY_SOURCE_EXPIRY_DAYS", value_name = "DAYS")]
    source_expiry_days: Option<u32>,
    /// All members in order, as HOST:PEER_BASE:CLIENT_BASE
    #[arg(long = "members", env = "ISONOMY_MEMBERS", value_delimiter = ',', value_name = "MEMBER,...")]
    members: Vec<MemberConfig>,
    /// Where the members of the cluster are named [default: static]
    #[arg(long, env = "ISONOMY_MEMBERSHIP", value_enum)]
    membership: Option<MembershipSource>,
    /// Where the others find this replica, if not where etcd says, as HOST:PEER_BASE:CLIENT_BASE
    #[arg(long, env = "ISONOMY_ADVERTISE", value_name = "MEMBER")]
    advertise: Option<MemberConfig>,
    /// Where the decisions are published, for those who read them from outside [default: nowhere]
    #[arg(long, env = "ISONOMY_PUBLISH", value_enum, value_name = "TARGET")]
    publish: Option<PublishTarget>,
    /// Where HTTP is answered (docs/HTTP.md) [default: nowhere]
    #[arg(long, env = "ISONOMY_HTTP", value_name = "HOST:PORT")]
    http: Option<String>,

    /// Where gRPC is answered (docs/GRPC.md) [default: nowhere]
    #[arg(long, env = "ISONOMY_GRPC", value_name = "HOST:PORT")]
    grpc: Option<String>,
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// The checked settings of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) cluster: String,
    /// The cluster of the record in etcd, if this replica comes to it as a new member.
    pub(crate) joins: Option<ClusterId>,
    pub(crate) replica: ReplicaId,
    pub(crate) shards: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) durability: Durability,
    /// The cores for shards; empty: all that the process may use.
    pub(crate) cores: Vec<usize>,
    pub(crate) listen: String,
    pub(crate) connections_max: u32,
    /// The log that each shard may keep, in bytes.
    pub(crate) log_budget: u64,
    /// The time without use after which a source is forgotten.
    pub(crate) source_expiry: Duration,
    /// The settings of the protocol, if the members are not named in etcd.
    pub(crate) settings: Chosen,
    /// How the decisions are published, if they are.
    pub(crate) publish: Option<Publish>,
    /// Where proposals are consumed from, if they are.
    pub(crate) consume: Option<ConsumerSettings>,
    /// Where HTTP is answered, if it is.
    pub(crate) http: Option<String>,
    /// Where gRPC is answered, if it is.
    pub(crate) grpc: Option<String>,
    /// Where etcd is, if the members are named there.
    pub(crate) etcd: Option<EtcdSettings>,
    /// Where the others find this replica, if not where the record in etcd says.
    advertise: Option<MemberConfig>,
    /// All that take part, by their places. Of a cluster in etcd there are none before its record was adopted.
    pub(crate) members: Vec<MemberConfig>,
    /// The own place among them.
    place: usize,
}

impl Config {
    /// Joins flags, environment (which clap has read) and file.
    pub(crate) fn load(args: ServeArgs) -> Result<Config, Fatal> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let members = if args.members.is_empty() { file.members } else { args.members };
        let replica = args.replica.or(file.replica).ok_or_else(|| missing("replica"))?;
        let cluster = args.cluster.or(file.cluster).ok_or_else(|| missing("cluster"))?;
        let typed = args.data_dir.as_deref().map(absolute).transpose()?;
        let data_dir = typed.or(file.data_dir);
        let etcd = match args.membership.or(file.membership).unwrap_or_default() {
            MembershipSource::Static => None,
            MembershipSource::Etcd => Some(etcd::join(args.etcd, file.etcd, &cluster)?),
        };
        let mut config = Config {
            cluster,
            joins: None,
            replica: ReplicaId(replica),
            shards: args.shards.or(file.shards).unwrap_or(1),
            data_dir: data_dir.ok_or_else(|| missing("data_dir"))?,
            durability: args.durability.or(file.durability).unwrap_or_default(),
            cores: args.cores.or(file.cores).unwrap_or_default(),
            listen: args.listen.or(file.listen).unwrap_or_default(),
            connections_max: args.connections_max.or(file.connections_max).unwrap_or(CONNECTIONS_MAX),
            log_budget: args.log_budget_mib.or(file.log_budget_mib).unwrap_or(LOG_BUDGET_MIB) << 20,
            source_expiry: DAY
                * args.source_expiry_days.or(file.source_expiry_days).unwrap_or(SOURCE_EXPIRY_DAYS),
            settings: settings(file.settings, etcd.is_some())?,
            publish: publish::join(args.publish, file.publish)?,
            consume: consume::check(file.consume)?,
            http: doors::join("http", "127.0.0.1:8080", args.http, file.http)?,
            grpc: doors::join("grpc", "127.0.0.1:9090", args.grpc, file.grpc)?,
            etcd,
            advertise: args.advertise.or(file.advertise),
            members,
            place: usize::from(replica),
        };
        config.check()?;
        if config.etcd.is_none() {
            config.take_members()?;
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), Fatal> {
        if self.cluster.is_empty() {
            return Err(bad("`cluster` is empty; give the cluster a name".into()));
        }
        if self.connections_max == 0 {
            return Err(bad("`connections_max` is 0; nobody could connect".into()));
        }
        if self.log_budget < LOG_BUDGET_MIB_MIN << 20 {
            return Err(bad(format!(
                "`log_budget_mib` is too small; at least {LOG_BUDGET_MIB_MIN} are needed"
            )));
        }
        if self.source_expiry < DAY || self.source_expiry > DAY * SOURCE_EXPIRY_DAYS_MAX {
            return Err(bad(format!("`source_expiry_days` goes from 1 to {SOURCE_EXPIRY_DAYS_MAX}")));
        }
        match (&self.etcd, &self.advertise) {
            (Some(_), _) if !self.members.is_empty() => Err(bad(
                "`members` are given, and `membership` is \"etcd\", where they are named already; leave one out".into(),
            )),
            (None, Some(_)) => Err(bad(
                "`advertise` is for clusters in etcd; without etcd all replicas name the same `members`".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Checks the members, now that they are known, and listens at the own host if nothing else was configured.
    fn take_members(&mut self) -> Result<(), Fatal> {
        let count = self.members.len();
        if count == 0 || (self.etcd.is_none() && count > REPLICAS_MAX) {
            return Err(bad(format!("`members` names {count} replicas; a cluster has 1 to {REPLICAS_MAX}")));
        }
        if self.place >= count {
            let last = count - 1;
            return Err(bad(format!("`replica` is {}, but the members are 0 to {last}", self.replica)));
        }
        if self.shards == 0 || usize::from(self.shards) > SHARDS_MAX {
            return Err(bad(format!("`shards` is {}; a cluster has 1 to {SHARDS_MAX}", self.shards)));
        }
        for (index, member) in self.members.iter().enumerate() {
            check_host(index, &member.host)?;
            self.check_ports(index, member)?;
        }
        self.settle_listen();
        Ok(())
    }

    /// Takes members and shards from the record in etcd, in which this replica has this place.
    pub(crate) fn adopt(&mut self, record: &Record, place: usize) {
        self.place = place;
        self.shards = record.shards;
        // A member of the first record of a restored cluster has to be restored itself.
        self.joins = (place >= record.membership.members.len()).then_some(record.cluster_id);
        self.members = places(record).map(|member| MemberConfig::from(&member.address)).collect();
        if let Some(advertise) = &self.advertise {
            self.members[place] = advertise.clone();
        }
        self.settle_listen();
    }

    /// Listens at the own host if nothing else was configured.
    fn settle_listen(&mut self) {
        let listen = if self.listen.is_empty() { &self.own().host } else { &self.listen };
        self.listen = bare_host(listen).to_owned();
    }

    /// Checks that the ports of each member exist, and that no two overlap, neither of one member nor of one host.
    fn check_ports(&self, index: usize, member: &MemberConfig) -> Result<(), Fatal> {
        let ranges = |member: &MemberConfig| [member.peer_base, member.client_base];
        for base in ranges(member) {
            if base == 0 || u32::from(base) + u32::from(self.shards) > 1 << 16 {
                let shards = self.shards;
                return Err(bad(format!("member {index}: {shards} ports from {base} on do not exist")));
            }
        }
        let overlap = |a: u16, b: u16| a.abs_diff(b) < self.shards;
        if overlap(member.peer_base, member.client_base) {
            return Err(bad(format!("member {index}: the ports for peers and clients overlap")));
        }
        for (other, theirs) in self.members.iter().enumerate().take(index) {
            let clash = ranges(member).iter().any(|a| ranges(theirs).iter().any(|b| overlap(*a, *b)));
            if theirs.host == member.host && clash {
                return Err(bad(format!("members {other} and {index} share ports of {}", member.host)));
            }
        }
        Ok(())
    }

    /// What the data directory must agree with.
    pub(crate) fn expected(&self) -> Expected {
        Expected {
            path: self.data_dir.clone(),
            cluster: self.cluster.clone(),
            cluster_id: self.joins,
            member: self.replica.0,
            shards: self.shards,
            outlives_power: self.durability == Durability::Fsync,
        }
    }

    /// Who takes part if the members are not named in etcd. Their epoch is the one that the data directory is in, since a
    /// cluster that was restored goes on in the epoch of its backup.
    pub(crate) fn roster(&self, epoch: Option<Epoch>) -> Roster {
        let address = |member: &MemberConfig| {
            let MemberConfig { host, peer_base, client_base } = member.clone();
            MemberAddress { host, peer_base, client_base }
        };
        let first = Roster::of_first_epoch(self.replica, self.members.iter().map(address));
        Roster { epoch: epoch.unwrap_or(first.epoch), ..first }
    }

    /// Where clients find the members. Itself first: it is the nearest, and it knows the members when they change.
    pub(crate) fn client_addresses(&self) -> Vec<String> {
        let all = std::iter::once(self.own()).chain(&self.members);
        all.map(MemberConfig::client_address).collect()
    }

    /// The entry of this replica in the list of members.
    pub(crate) fn own(&self) -> &MemberConfig {
        &self.members[self.place]
    }
}

/// The name of a cluster and where its etcd is, for commands that need nothing else of the configuration.
pub(crate) fn etcd_of(
    file: Option<&Path>,
    cluster: Option<String>,
    etcd: EtcdArgs,
) -> Result<(String, EtcdSettings), Fatal> {
    let file = file.map(read).transpose()?.unwrap_or_default();
    let cluster = cluster.or(file.cluster).ok_or_else(|| missing("cluster"))?;
    let settings = etcd::join(etcd, file.etcd, &cluster)?;
    Ok((cluster, settings))
}

/// The settings of the protocol, which are in etcd where the members are.
fn settings(chosen: Option<Chosen>, is_in_etcd: bool) -> Result<Chosen, Fatal> {
    let Some(chosen) = chosen else { return Ok(Chosen::default()) };
    if is_in_etcd {
        return Err(bad("the table `settings` is given, and `membership` is \"etcd\", where the settings are, too; change \
                        them with `isonomy settings set`"
            .into()));
    }
    chosen.check().map_err(|wrong| bad(format!("settings: {wrong}")))?;
    Ok(chosen)
}

/// Checks the host of a member, under which the others find it.
fn check_host(index: usize, host: &str) -> Result<(), Fatal> {
    if !is_host(host) {
        let text = format!("member {index}: '{host}' is no host; give a name or an address, without a port");
        return Err(bad(text));
    }
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
        return Err(bad(format!(
            "member {index}: nobody finds a member under {host}; give the address that the others and the clients \
             connect to, and set `listen` to {host} to listen on all"
        )));
    }
    Ok(())
}

/// Reads the file. A relative path in the file is resolved against the file's directory, so that it does not depend
/// on the working directory of the program.
fn read(path: &Path) -> Result<File, Fatal> {
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("{}: {error}", path.display())))?;
    // The parser's text names line, column and the keys that exist.
    let mut file: File =
        toml::from_str(&text).map_err(|error| bad(format!("{}: {error}", path.display())))?;
    // What is no file, such as a pipe, lies nowhere.
    let base = if path.is_file() { path.parent().unwrap_or(path) } else { Path::new("") };
    if let Some(data_dir) = &file.data_dir {
        if data_dir.as_os_str().is_empty() {
            return Err(bad(format!("{}: `data_dir` is empty; name a directory", path.display())));
        }
        file.data_dir = Some(absolute(&base.join(data_dir))?);
    }
    file.etcd.begin_at(base)?;
    Ok(file)
}

/// A path completed with the working directory of the program, without a call to the file system.
fn absolute(path: &Path) -> Result<PathBuf, Fatal> {
    let refused = |error| bad(format!("the path '{}' is no place for data: {error}", path.display()));
    std::path::absolute(path).map_err(refused)
}

fn missing(what: &str) -> Fatal {
    let flag = what.replace('_', "-");
    bad(format!("`{what}` is missing; set it in the file, as --{flag} or in the environment"))
}

fn bad(text: String) -> Fatal {
    Fatal::new(Reason::Config, format!("configuration: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        cluster = "orders"
        replica = 1
        data_dir = "/var/lib/isonomy"
        members = [
            { host = "10.0.0.1", peer_base = 7100, client_base = 7400 },
            { host = "10.0.0.2", peer_base = 7100, client_base = 7400 },
            { host = "10.0.0.3", peer_base = 7100, client_base = 7400 },
        ]
    "#;

    fn load(text: &str, change: impl FnOnce(&mut ServeArgs)) -> Result<Config, Fatal> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut args = ServeArgs { config: Some(file.path().into()), ..ServeArgs::default() };
        change(&mut args);
        Config::load(args)
    }

    fn error(text: &str) -> String {
        load(text, |_| ()).unwrap_err().to_string()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = load(FILE, |args| args.replica = Some(2)).unwrap();
        assert_eq!((config.replica, config.shards), (ReplicaId(2), 1));
        assert_eq!((config.durability, config.listen.as_str()), (Durability::Fsync, "10.0.0.3"));
        let config = load(&FILE.replace("replica = 1", "replica = 1\nshards = 4"), |args| {
            args.durability = Some(Durability::Os);
        });
        let config = config.unwrap();
        assert_eq!((config.shards, config.durability), (4, Durability::Os));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_its_line() {
        let text = error(&FILE.replace("replica = 1", "replicaa = 1"));
        assert!(text.contains("line 3") && text.contains("replicaa"), "{text}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(error(&FILE.replace("replica = 1", "replica = 3")).contains("0 to 2"));
        assert!(error(&FILE.replace("replica = 1", "")).contains("`replica` is missing"));
        assert!(error(&FILE.replace("cluster = \"orders\"", "")).contains("`cluster` is missing"));
        assert!(error(&FILE.replace("client_base = 7400", "client_base = 65536")).contains("line"));
        assert!(error(&FILE.replace("client_base = 7400", "client_base = 7100")).contains("overlap"));
        assert!(error(&FILE.replace("10.0.0.2", "10.0.0.1")).contains("share ports"));
        let many = FILE.replace("replica = 1", "replica = 1\nshards = 300");
        assert!(error(&many).contains("1 to 256"));
        let never = FILE.replace("replica = 1", "replica = 1\nsource_expiry_days = 0");
        assert!(error(&never).contains("1 to 3650"));
    }

    #[test]
    fn an_address_of_ipv6_may_have_brackets_everywhere() {
        let file =
            FILE.replace("10.0.0.2", "[fd00::2]").replace("replica = 1", "replica = 1\nlisten = \"[::]\"");
        let config = load(&file, |_| ()).unwrap();
        assert_eq!((config.own().host.as_str(), config.listen.as_str()), ("fd00::2", "::"));
        let text = error(&FILE.replace("10.0.0.2", "[fd00::2]").replace("10.0.0.1", "fd00::2"));
        assert!(text.contains("share ports of fd00::2"), "{text}");
    }

    #[test]
    fn a_member_has_an_address_under_which_others_find_it() {
        for nowhere in ["0.0.0.0", "::", "[::]"] {
            let text = error(&FILE.replace("10.0.0.2", nowhere));
            assert!(text.contains("member 1: nobody finds") && text.contains("`listen`"), "{text}");
        }
        for wrong in ["", "10.0.0.2:7100", "http://db2", "[fd00::2"] {
            let text = error(&FILE.replace("10.0.0.2", wrong));
            assert!(text.contains("member 1") && text.contains("without a port"), "{text}");
        }
    }

    #[test]
    fn doors_listen_where_the_flag_or_else_the_table_says() {
        let file = format!("{FILE}\n[http]\nlisten = \"db:8080\"\n[grpc]\nlisten = \"db:9090\"\n");
        let config = load(&file, |_| ()).unwrap();
        assert_eq!((config.http.as_deref(), config.grpc.as_deref()), (Some("db:8080"), Some("db:9090")));
        let config = load(&file, |args| args.grpc = Some("[::1]:9091".into())).unwrap();
        assert_eq!(config.grpc.as_deref(), Some("[::1]:9091"));
        for table in ["http", "grpc"] {
            let text = error(&format!("{FILE}\n[{table}]\nlisten = \"8080\"\n"));
            assert!(text.contains(&format!("{table}: `listen` is '8080'; give HOST:PORT")), "{text}");
        }
    }

    #[test]
    fn a_relative_data_dir_begins_at_the_file_and_a_typed_one_where_it_was_typed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("isonomy.toml");
        std::fs::write(&path, FILE.replace("/var/lib/isonomy", "data/0")).unwrap();
        let load = |data_dir: Option<&str>| {
            let config = Some(path.clone());
            Config::load(ServeArgs { config, data_dir: data_dir.map(Into::into), ..ServeArgs::default() })
        };
        assert_eq!(load(None).unwrap().data_dir, dir.path().join("data/0"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(load(Some("typed")).unwrap().data_dir, here.join("typed"));
        std::fs::write(&path, FILE.replace("/var/lib/isonomy", "")).unwrap();
        assert!(load(None).unwrap_err().to_string().contains("`data_dir` is empty"));
    }

    #[test]
    fn members_are_read_from_text() {
        let member: MemberConfig = "db1.example:7100:7400".parse().unwrap();
        assert_eq!((member.host.as_str(), member.peer_base, member.client_base), ("db1.example", 7100, 7400));
        for v6 in ["::1:7100:7400", "[::1]:7100:7400"] {
            assert_eq!(v6.parse::<MemberConfig>().unwrap().host, "::1");
        }
        assert!("db1:7100".parse::<MemberConfig>().is_err());
    }
}
