//! Certificates for one test: an authority, a server and a client.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};

/// The files.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

impl Certificates {
    /// Makes them in a directory that exists, under names that begin with `name`.
    pub(crate) fn new(dir: &Path, name: &str) -> Certificates {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let ca = write(dir, &format!("{name}-ca.pem"), &authority.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(authority, key);
        // etcd 3.4 dials itself with the server's certificate.
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pair = |kind: &str, usages: &[ExtendedKeyUsagePurpose]| {
            let mut params = CertificateParams::new(["127.0.0.1".into(), "localhost".into()]).unwrap();
            params.extended_key_usages = usages.to_vec();
            params.distinguished_name.push(rcgen::DnType::CommonName, kind);
            let key = KeyPair::generate().unwrap();
            let own = params.signed_by(&key, &issuer).unwrap().pem();
            let write = |what: &str, pem: &str| write(dir, &format!("{name}-{kind}{what}.pem"), pem);
            (write("", &own), write("-key", &key.serialize_pem()))
        };
        Certificates { ca, server: pair("server", &both), client: pair("client", &both[1..]) }
    }
}

fn write(dir: &Path, name: &str, pem: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, pem).unwrap();
    path
}
