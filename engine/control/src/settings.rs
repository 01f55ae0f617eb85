//! Where etcd is, and as whom it is asked.

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a connection may take until it stands.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How often a peer that says nothing is asked for a sign of life while something is awaited from it, and how long it
/// may take. etcd closes connections that ask more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(3));

/// Where etcd is, and as whom it is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// One URL for each member of etcd, such as `http://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// All keys of the cluster begin with this, such as `/isonomy/orders/`.
    pub prefix: String,
    /// The name and the password, where etcd asks for them.
    pub user: Option<User>,
    /// The files for TLS. Without them, `https` trusts whom the system trusts.
    pub tls: Option<TlsFiles>,
}

/// A user of etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password, which is never printed.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The files for TLS, in PEM. They are read for each connection, so that renewed certificates are noticed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    /// The certificates of the authorities that etcd's certificate may come from.
    pub ca: Option<PathBuf>,
    /// The own certificate and its key, where etcd asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// No endpoint.
    #[error("no endpoint of etcd is given; name each member of etcd by its client URL")]
    NoEndpoint,
    /// An endpoint is no URL.
    #[error("'{0}' is no endpoint of etcd; an endpoint is http://HOST:PORT or https://HOST:PORT")]
    Endpoint(String),
    /// Files for TLS, but a connection without it.
    #[error("'{0}' does not use TLS, but files for TLS are given; write https://, or leave the files out")]
    Plain(String),
    /// The prefix is none.
    #[error("'{0}' is no prefix; a prefix begins and ends with a slash, such as /isonomy/orders/")]
    Prefix(String),
    /// A file for TLS cannot be read.
    #[error("{path}: {error}; name the file, and let this user read it", path = .0.display(), error = .1)]
    File(PathBuf, std::io::Error),
}

impl Settings {
    /// Whether the settings can be used.
    ///
    /// # Errors
    /// [`BadSettings`] with what is wrong. Files are read when a connection is made, not here.
    pub fn check(&self) -> Result<(), BadSettings> {
        if self.endpoints.is_empty() {
            return Err(BadSettings::NoEndpoint);
        }
        for endpoint in &self.endpoints {
            let (scheme, rest) = endpoint.split_once("://").unwrap_or_default();
            let has_port = rest.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains('/')
            });
            if !matches!(scheme, "http" | "https") || !has_port {
                return Err(BadSettings::Endpoint(endpoint.clone()));
            }
            if scheme == "http" && self.tls.is_some() {
                return Err(BadSettings::Plain(endpoint.clone()));
            }
        }
        let is_prefix = self.prefix.len() > 1 && self.prefix.starts_with('/') && self.prefix.ends_with('/');
        if is_prefix { Ok(()) } else { Err(BadSettings::Prefix(self.prefix.clone())) }
    }

    /// The options for a connection to `endpoint`.
    pub(crate) fn options(&self, endpoint: &str) -> Result<ConnectOptions, BadSettings> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_DEADLINE)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(User { name, password }) = &self.user {
            options = options.with_user(name, password);
        }
        if endpoint.starts_with("https://") {
            options = options.with_tls(self.tls_options()?);
        }
        Ok(options)
    }

    fn tls_options(&self) -> Result<TlsOptions, BadSettings> {
        let files = self.tls.clone().unwrap_or_default();
        let mut options = match &files.ca {
            Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?)),
            None => TlsOptions::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &files.own {
            options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(options)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BadSettings> {
    std::fs::read(path).map_err(|error| BadSettings::File(path.into(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str, prefix: &str) -> Settings {
        Settings { endpoints: vec![endpoint.into()], prefix: prefix.into(), user: None, tls: None }
    }

    #[test]
    fn endpoints_and_prefixes_have_a_form() {
        for endpoint in ["http://h:2379", "https://10.0.0.1:2379", "http://[::1]:2379"] {
            settings(endpoint, "/isonomy/orders/").check().unwrap();
        }
        for endpoint in
            ["", "h:2379", "ftp://h:2379", "http://h", "http://:2379", "http://h:99999", "http://h:1/v3"]
        {
            let error = settings(endpoint, "/a/").check().unwrap_err();
            assert!(matches!(&error, BadSettings::Endpoint(it) if it == endpoint), "{endpoint}: {error}");
        }
        for prefix in ["", "/", "a/", "/a"] {
            let error = settings("http://h:1", prefix).check().unwrap_err();
            assert!(matches!(error, BadSettings::Prefix(_)), "{prefix}");
        }
        let none = Settings { endpoints: vec![], ..settings("", "/a/") };
        assert!(matches!(none.check(), Err(BadSettings::NoEndpoint)));
        let plain = Settings { tls: Some(TlsFiles::default()), ..settings("http://h:1", "/a/") };
        assert!(matches!(plain.check(), Err(BadSettings::Plain(_))));
    }

    #[test]
    fn a_password_is_not_printed() {
        let user = User { name: "isonomy".into(), password: "secret".into() };
        assert_eq!(format!("{user:?}"), r#"User { name: "isonomy", .. }"#);
    }

    #[test]
    fn a_missing_file_is_named() {
        let tls = TlsFiles { ca: Some("/nowhere/ca.pem".into()), own: None };
        let settings = Settings { tls: Some(tls), ..settings("https://h:1", "/a/") };
        let error = settings.options("https://h:1").err().unwrap().to_string();
        assert!(error.starts_with("/nowhere/ca.pem: No such file"), "{error}");
    }
}
