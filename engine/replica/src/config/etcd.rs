//! Where etcd is, for clusters whose members are named there: flags over environment over the table `[etcd]`.

use crate::fatal::Fatal;
use clap::{Args, ValueEnum};
use isonomy_control::settings::{Settings, TlsFiles, User};
use serde::Deserialize;
use std::path::{Path, PathBuf};

use super::{absolute, bad};

/// Where the members of a cluster are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MembershipSource {
    /// In each replica's configuration, the same for all
    #[default]
    Static,
    /// In etcd, where `isonomy member init` has put them
    Etcd,
}

/// The options that say where etcd is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "etcd")]
pub(crate) struct EtcdArgs {
    /// The client URLs of the members of etcd
    #[arg(long, env = "ISONOMY_ETCD_ENDPOINTS", value_delimiter = ',', value_name = "URL,...")]
    etcd_endpoints: Vec<String>,
    /// The beginning of all keys of the cluster in etcd [default: /isonomy/CLUSTER/]
    #[arg(long, env = "ISONOMY_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<String>,
    /// The user of etcd, if etcd asks for one
    #[arg(long, env = "ISONOMY_ETCD_USER", value_name = "NAME")]
    etcd_user: Option<String>,
    /// The file with the password of that user
    #[arg(long, env = "ISONOMY_ETCD_PASSWORD_FILE", value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
    /// The certificates (PEM) of the authorities that etcd's certificate may come from
    #[arg(long, env = "ISONOMY_ETCD_CA", value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// The own certificate (PEM), if etcd asks for one
    #[arg(long, env = "ISONOMY_ETCD_CERT", value_name = "FILE")]
    etcd_cert: Option<PathBuf>,
    /// The key (PEM) of the own certificate
    #[arg(long, env = "ISONOMY_ETCD_KEY", value_name = "FILE")]
    etcd_key: Option<PathBuf>,
}

/// The table `[etcd]` of the configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EtcdFile {
    #[serde(default)]
    endpoints: Vec<String>,
    prefix: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl EtcdFile {
    /// Lets relative paths begin at `base`.
    pub(super) fn begin_at(&mut self, base: &Path) -> Result<(), Fatal> {
        let EtcdFile { password_file, ca, cert, key, .. } = self;
        for path in [password_file, ca, cert, key].into_iter().flatten() {
            *path = absolute(&base.join(&*path))?;
        }
        Ok(())
    }
}

/// Joins the flags and the table.
pub(super) fn join(args: EtcdArgs, file: EtcdFile, cluster: &str) -> Result<Settings, Fatal> {
    let endpoints = if args.etcd_endpoints.is_empty() { file.endpoints } else { args.etcd_endpoints };
    let prefix = args.etcd_prefix.or(file.prefix);
    let (ca, cert) = (args.etcd_ca.or(file.ca), args.etcd_cert.or(file.cert));
    let own = match (cert, args.etcd_key.or(file.key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err(bad("etcd: `cert` is given and `key` is missing; set both".into())),
        (None, Some(_)) => return Err(bad("etcd: `key` is given and `cert` is missing; set both".into())),
    };
    let user = user(args.etcd_user.or(file.user), args.etcd_password_file.or(file.password_file))?;
    let settings = Settings {
        endpoints,
        prefix: prefix.unwrap_or_else(|| format!("/isonomy/{cluster}/")),
        user,
        tls: (ca.is_some() || own.is_some()).then_some(TlsFiles { ca, own }),
    };
    settings.check().map_err(|wrong| bad(format!("etcd: {wrong}")))?;
    Ok(settings)
}

fn user(name: Option<String>, password_file: Option<PathBuf>) -> Result<Option<User>, Fatal> {
    let (name, path) = match (name, password_file) {
        (Some(name), Some(path)) => (name, path),
        (None, None) => return Ok(None),
        _ => return Err(bad("etcd: `user` and `password_file` belong together; set both or neither".into())),
    };
    let read = std::fs::read_to_string(&path);
    let password = read.map_err(|error| {
        bad(format!(
            "etcd: {}: {error}; name a file with the password that this user may read",
            path.display()
        ))
    })?;
    // An editor ends a file with a line feed, which is no part of a password.
    let password = password.trim_end_matches(['\n', '\r']).to_owned();
    Ok(Some(User { name, password }))
}
