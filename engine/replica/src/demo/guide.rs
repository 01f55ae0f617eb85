//! How to go on with a cluster that is kept: where everything is, and commands that can be pasted.

use super::cluster::Cluster;
use super::load;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The text for the user. Lines that begin with two spaces are commands.
pub(super) fn text(cluster: &Cluster) -> Result<String> {
    let isonomy = word(&typed()?)?;
    let replicas = 0..cluster.client_bases.len();
    let connect = cluster.addresses(replicas.clone()).join(",");
    let mut text = "demo: the cluster runs until Ctrl-C. Try these commands in another terminal:".to_owned();
    for (command, rest) in
        [("status", ""), ("propose", " order-17 accepted"), ("read", " order-17"), ("snapshot take", "")]
    {
        let _ = write!(text, "\n  {isonomy} {command} --connect {connect}{rest}");
    }
    let http = cluster.http(0);
    let _ = write!(
        text,
        "\n  curl http://{http}/v1/propose --json '{{\"key\":\"order-18\",\"payload\":{{\"state\":\"paid\"}}}}'"
    );
    let _ = write!(text, "\n  curl http://{http}/v1/decisions/order-18");
    if let Ok(bench) = load::program() {
        let _ = write!(text, "\n  {} load --seconds 5 --connect {connect}", word(&bench)?);
    }
    let _ = write!(text, "\ndemo: each replica has this configuration, these ports and this log:");
    for index in replicas.clone() {
        let (peers, clients) = (cluster.peer_bases[index], cluster.client_bases[index]);
        let (config, log) = (cluster.config_path(index), cluster.log_path(index));
        let (config, log) = (config.display(), log.display());
        let (http, grpc) = (cluster.http(index), cluster.grpc(index));
        let _ = write!(
            text,
            "\n    {config}: peers {peers}, clients {clients}, http://{http}/, gRPC {grpc}; {log}"
        );
    }
    let _ = write!(text, "\ndemo: after Ctrl-C, these commands start the same cluster again, with its data:");
    for index in replicas {
        let _ = write!(text, "\n  {isonomy} serve --config {} &", word(&cluster.config_path(index))?);
    }
    let _ = write!(
        text,
        "\ndemo: when the cluster is stopped, this command removes it:\n  rm -r {}",
        word(&cluster.dir)?
    );
    Ok(text)
}

/// This program as it can be called from everywhere.
fn typed() -> Result<PathBuf> {
    let typed = std::env::args_os().next().map(PathBuf::from);
    match typed.filter(|typed| typed.components().count() == 1) {
        // The shell found the program by its name, and will find it again.
        Some(name) => Ok(name),
        None => std::env::current_exe().context("the path of this program cannot be found"),
    }
}

/// A path as a word of a command.
fn word(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| {
        format!(
            "{}: the path is not UTF-8 text, so it cannot be printed as a command; use another path",
            path.display()
        )
    })?;
    Ok(shlex::try_quote(text)?.into_owned())
}
