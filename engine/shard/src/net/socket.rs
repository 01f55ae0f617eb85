//! TCP sockets that end when the network fails, and not a quarter of an hour later.

use futures_lite::{AsyncWriteExt, FutureExt};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

/// How long connecting may take. The kernel sends lost packets of an attempt again after 1, 3, 7, 15 ... seconds, so
/// an attempt that began while the network was cut is given up and begun anew.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// The parts of a connection's patience. An idle connection is probed after two of five parts, and ends when three
/// probes, one part apart, have no answer.
const PATIENCE_PARTS: u32 = 5;
const QUIET_PARTS: u32 = 2;
const PROBES: u32 = PATIENCE_PARTS - QUIET_PARTS;

/// Connects to an address.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut stream = stream_of(socket);
    // An empty write ends when the connection stands or has failed.
    let connected = async { stream.write(&[]).await.map(drop) };
    let late = async {
        Timer::new(CONNECT_PATIENCE).await;
        let text =
            format!("no answer came for {CONNECT_PATIENCE:?}; check that the machine and the network are up");
        Err(Error::new(ErrorKind::TimedOut, text))
    };
    connected.or(late).await?;
    Ok(stream)
}

/// Whether the kernel has given a connection up, for a caller that neither reads nor writes for now.
pub(crate) fn has_failed(socket: BorrowedFd<'_>) -> bool {
    !matches!(sockopt::socket_error(socket), Ok(Ok(())))
}

/// Ends the connection when the other side has acknowledged nothing for `patience`: neither sent bytes, nor probes
/// while nothing is sent.
pub(crate) fn limit_silence(stream: &TcpStream, patience: Duration) -> Result<()> {
    let socket = descriptor_of(stream);
    sockopt::set_tcp_user_timeout(socket, patience.as_millis() as u32)?;
    sockopt::set_tcp_keepidle(socket, patience * QUIET_PARTS / PATIENCE_PARTS)?;
    sockopt::set_tcp_keepintvl(socket, patience / PATIENCE_PARTS)?;
    sockopt::set_tcp_keepcnt(socket, PROBES)?;
    Ok(sockopt::set_socket_keepalive(socket, true)?)
}

#[allow(unsafe_code)]
fn stream_of(socket: OwnedFd) -> TcpStream {
    // SAFETY: the descriptor is that of a socket, and is given up by its owner here.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

#[allow(unsafe_code)]
fn descriptor_of(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the socket is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
