//! A cluster whose members are named in a real etcd, with both of the test's own.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

#[path = "../../../control/tests/etcd/support/certificates.rs"]
pub mod certificates;
pub mod changing;
#[path = "../../../control/tests/etcd/support/server.rs"]
pub mod server;

use crate::support::{CLUSTER, Cluster, PATIENCE, ends, eventually, program};
use serde_json::Value;
use server::Etcd;
use std::fs;
use std::process::{Command, Output, Stdio};
use tokio::runtime::Runtime;

/// A prepared cluster, and the etcd in which its members are named.
pub struct World {
    pub runtime: Runtime,
    pub etcd: Etcd,
    pub cluster: Cluster,
}

impl World {
    pub fn new(replicas: usize) -> World {
        World::with(Etcd::one(), Cluster::prepare(replicas, 1))
    }

    /// The same with this etcd and these replicas.
    pub fn with(etcd: impl Future<Output = Etcd>, cluster: Cluster) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let etcd = runtime.block_on(etcd);
        let world = World { runtime, etcd, cluster };
        (0..world.cluster.hosts.len()).for_each(|index| world.configure(index, ""));
        world
    }

    /// A cluster that was initialised, and runs.
    pub fn running(replicas: usize) -> World {
        World::growing(replicas, replicas)
    }

    /// A cluster of the first of the prepared replicas, which runs.
    pub fn growing(replicas: usize, prepared: usize) -> World {
        let mut world = World::new(prepared);
        world.begin(replicas, Cluster::spawn);
        world
    }

    /// Initialises a cluster of the first of the prepared replicas, and starts them.
    pub fn begin(&mut self, replicas: usize, spawn: impl Fn(&mut Cluster, usize)) {
        let members: Vec<_> = (0..replicas).map(|index| self.address(index)).collect();
        let init = self.member(&["init", "--members", &members.join(",")]);
        assert!(init.status.success(), "{}", said(&init));
        (0..replicas).for_each(|index| spawn(&mut self.cluster, index));
        self.cluster.wait_linked();
        eventually("all live", || self.living() == vec![true; replicas]);
    }

    /// Writes the configuration of a replica, with more lines.
    pub fn configure(&self, index: usize, lines: &str) {
        let text = format!(
            "cluster = \"{CLUSTER}\"\nreplica = {index}\nmembership = \"etcd\"\ndata_dir = \"{}\"\n{lines}\n\
             [etcd]\nendpoints = {:?}\n",
            self.cluster.data_dir(index).display(),
            self.etcd.endpoints()
        );
        fs::write(self.cluster.config_path(index), text).unwrap();
    }

    /// Where a replica is found, as `isonomy member` takes it.
    pub fn address(&self, index: usize) -> String {
        let Cluster { hosts, peer_bases, client_bases, .. } = &self.cluster;
        format!("{}:{}:{}", hosts[index], peer_bases[index], client_bases[index])
    }

    pub fn members(&self) -> String {
        (0..self.cluster.hosts.len()).map(|index| self.address(index)).collect::<Vec<_>>().join(",")
    }

    pub fn member(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        ends(&mut child);
        child.wait_with_output().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("member").args(arguments).args(["--cluster", CLUSTER, "--etcd-endpoints"]);
        command.arg(self.etcd.endpoints().join(","));
        command
    }

    pub fn init(&self) -> Output {
        self.member(&["init", "--members", &self.members()])
    }

    pub fn listed(&self) -> Value {
        let output = self.member(&["list", "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Which members live, as etcd says.
    pub fn living(&self) -> Vec<bool> {
        let members = self.listed()["members"].as_array().cloned().unwrap_or_default();
        members.iter().map(|member| member["lives"] == true).collect()
    }

    /// Decides a key, by any of the replicas that run.
    pub fn decide(&self, key: &str) {
        let connect = self.cluster.addresses().join(",");
        let output = program().args(["propose", "--connect", &connect, key, "value"]).output().unwrap();
        assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What a command says on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
