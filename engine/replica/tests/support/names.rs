//! Names that are looked up at a server which answers nobody.

use super::program;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

/// A server that is heard of nowhere else and answers nobody. It takes root, who may bind the port and mount.
pub fn silent_server() -> Option<UdpSocket> {
    let may_mount = Command::new("unshare").args(["--mount", "true"]).status();
    let [a, b] = rand::random::<[u8; 2]>();
    let server = UdpSocket::bind((std::net::Ipv4Addr::new(127, 53, a, b), 53)).ok();
    let server = server.filter(|_| may_mount.is_ok_and(|status| status.success()));
    if server.is_none() {
        eprintln!("NOT TESTED: this user cannot answer for a name server here; run the tests as root");
    }
    server
}

/// The program where names are looked up in this file first and then at that server, each for longer
/// than anything here may take.
pub fn with_names(dir: &Path, server: &UdpSocket) -> Command {
    let resolv = format!("nameserver {}\noptions timeout:30 attempts:5\n", server.local_addr().unwrap().ip());
    fs::write(dir.join("resolv.conf"), resolv).unwrap();
    fs::write(dir.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let mounts = ["hosts", "resolv.conf", "nsswitch.conf"]
        .map(|file| format!("mount --bind '{}' /etc/{file}", dir.join(file).display()));
    let script = format!("touch /etc/nsswitch.conf && {} && exec \"$0\" \"$@\"", mounts.join(" && "));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(program().get_program());
    command
}
