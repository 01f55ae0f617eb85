//! Who may ask etcd: users and passwords, certificates and keys.

use crate::support::certificates::Certificates;
use crate::support::server::Etcd;
use crate::support::{CLUSTER, PREFIX, record, settings};
use etcd_client::{Permission, PermissionType};
use isonomy_control::Error;
use isonomy_control::settings::{Settings, TlsFiles, User};
use isonomy_control::store::Store;
use std::sync::Arc;

fn user(name: &str, password: &str) -> Option<User> {
    Some(User { name: name.into(), password: password.into() })
}

/// An etcd in which `isonomy` may do everything below the prefix, `reader` may read there, and `stranger` nothing.
async fn guarded() -> Etcd {
    let etcd = Etcd::one().await;
    let mut client = etcd.client().await;
    let below = |kind| Permission::new(kind, PREFIX).with_prefix();
    client.role_add("root").await.unwrap();
    for (name, permission) in [
        ("root", None),
        ("isonomy", Some(below(PermissionType::Readwrite))),
        ("reader", Some(below(PermissionType::Read))),
        ("stranger", None),
    ] {
        client.user_add(name, "secret", None).await.unwrap();
        if let Some(permission) = permission {
            client.role_add(name).await.unwrap();
            client.role_grant_permission(name, permission).await.unwrap();
            client.user_grant_role(name, name).await.unwrap();
        }
    }
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    etcd
}

#[tokio::test]
async fn users_and_passwords() {
    let etcd = guarded().await;
    let store = |user| {
        let settings = Settings { user, ..settings(&etcd.endpoints()) };
        Store::new(Arc::new(settings), CLUSTER).unwrap()
    };
    let mut own = store(user("isonomy", "secret"));
    let first = own.init(&record()).await.unwrap();
    own.watch(first.revision).await.unwrap();
    for user in [user("isonomy", "wrong"), user("nobody", "secret"), None] {
        let error = store(user.clone()).get().await.unwrap_err();
        assert!(matches!(error, Error::Password(_)), "{user:?}: {error}");
    }
    let mut reader = store(user("reader", "secret"));
    assert_eq!(reader.get().await.unwrap(), first);
    let error = reader.replace(&first, &crate::support::next(&first.record)).await.unwrap_err();
    assert!(matches!(error, Error::Permission(_)), "{error}");
    let mut stranger = store(user("stranger", "secret"));
    for error in [stranger.get().await.unwrap_err(), stranger.watch(1).await.unwrap_err()] {
        assert!(matches!(error, Error::Permission(_)), "{error}");
    }
    assert_eq!(own.get().await.unwrap(), first, "nothing has changed");
}

#[tokio::test]
async fn a_password_where_etcd_asks_for_none() {
    let etcd = Etcd::one().await;
    let settings = Settings { user: user("isonomy", "secret"), ..settings(&etcd.endpoints()) };
    let error = Store::new(Arc::new(settings), CLUSTER).unwrap().get().await.unwrap_err();
    assert!(matches!(error, Error::Password(_)), "{error}");
}

#[tokio::test]
async fn certificates_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Certificates::new(dir.path(), "ours");
    let theirs = Certificates::new(dir.path(), "theirs");
    let (our_ca, our_client) = (ours.ca.clone(), ours.client.clone());
    let etcd = Etcd::with_tls(ours).await;
    let store = |tls| {
        let settings = Settings { tls, ..settings(&etcd.endpoints()) };
        Store::new(Arc::new(settings), CLUSTER).unwrap()
    };
    let files = |ca: &std::path::PathBuf, own| Some(TlsFiles { ca: Some(ca.clone()), own });
    let mut own = store(files(&our_ca, Some(our_client.clone())));
    let first = own.init(&record()).await.unwrap();
    for (what, tls) in [
        ("no certificate", files(&our_ca, None)),
        ("a certificate of another authority", files(&our_ca, Some(theirs.client.clone()))),
        ("an etcd of another authority", files(&theirs.ca, Some(our_client.clone()))),
        ("an etcd that the system does not trust", None),
    ] {
        let error = store(tls).get().await.unwrap_err();
        let is_named =
            matches!(&error, Error::Certificate { endpoint, .. } if *endpoint == etcd.endpoints()[0]);
        assert!(is_named, "{what}: {error}");
    }
    let missing = store(files(&dir.path().join("none.pem"), None)).get().await.unwrap_err();
    assert!(matches!(&missing, Error::Settings(_)) && missing.to_string().contains("none.pem"), "{missing}");
    assert_eq!(own.get().await.unwrap(), first);
}

#[tokio::test]
async fn tls_where_etcd_has_none() {
    let etcd = Etcd::one().await;
    let endpoints = vec![etcd.endpoints()[0].replace("http:", "https:")];
    let error = Store::new(Arc::new(settings(&endpoints)), CLUSTER).unwrap().get().await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error}");
}
