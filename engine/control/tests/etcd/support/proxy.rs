//! A proxy between a client and one etcd, which loses answers and connections when it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// What the proxy does with what it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Hands everything on.
    Pass,
    /// Loses the next answer with its connection, and passes what comes after.
    LoseOne,
    /// Loses every answer with its connection.
    LoseAll,
    /// Takes no connection.
    Refuse,
}

const MODES: [Mode; 4] = [Mode::Pass, Mode::LoseOne, Mode::LoseAll, Mode::Refuse];

#[derive(Clone)]
pub(crate) struct Proxy {
    endpoint: String,
    mode: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of an endpoint of etcd without TLS.
    pub(crate) fn new(etcd: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Proxy { endpoint, mode: Arc::default(), open: Arc::default() };
        let (serving, etcd) = (proxy.clone(), etcd.strip_prefix("http://").unwrap().to_owned());
        spawn(move || listener.incoming().for_each(|client| serving.serve(client.unwrap(), &etcd)));
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    pub(crate) fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Ordering::SeqCst))]
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    fn cut(&self) {
        for connection in self.open.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, client: TcpStream, etcd: &str) {
        if self.mode() == Mode::Refuse {
            return;
        }
        let Ok(server) = TcpStream::connect(etcd) else { return };
        self.open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let proxy = self.clone();
        spawn(move || {
            let _ = proxy.answer(server, &client);
            let _ = client.shutdown(Shutdown::Both);
        });
    }

    fn answer(&self, mut server: TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let length = server.read(&mut bytes)?;
            if length == 0 || self.loses(&bytes[..length]) {
                return Ok(());
            }
            client.write_all(&bytes[..length])?;
        }
    }

    /// Whether these bytes, and the connection, are to be lost. The frame of an answer is of type HEADERS (1); frames of
    /// other types keep the connection itself going.
    fn loses(&self, bytes: &[u8]) -> bool {
        if !matches!(self.mode(), Mode::LoseOne | Mode::LoseAll) || !has_headers(bytes) {
            return false;
        }
        if self.mode() == Mode::LoseOne {
            self.set(Mode::Pass);
        }
        true
    }
}

/// Whether one of the HTTP/2 frames is of type HEADERS.
fn has_headers(mut bytes: &[u8]) -> bool {
    while let [a, b, c, kind, ..] = *bytes {
        if kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize + 9;
        bytes = bytes.get(length..).unwrap_or_default();
    }
    false
}
