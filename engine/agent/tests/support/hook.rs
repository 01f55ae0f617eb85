//! A service that agents call. Each test says what it answers.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The header `Idempotency-Key`.
    pub(crate) name: String,
    /// Of all headers, in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// How often the decision was asked about before.
    pub(crate) tries: usize,
    /// Whether it was answered with 2xx.
    pub(crate) is_taken: bool,
}

impl Request {
    pub(crate) fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_default().to_owned()
    }
}

/// What a request is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Status(u16),
    /// With `Retry-After` in seconds.
    Later(u16, u32),
    /// Elsewhere.
    Redirect,
    /// The connection ends without an answer.
    Close,
    /// No answer comes.
    Hang,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// How often each decision was asked about, and those that were taken, by their names.
    tries: BTreeMap<String, usize>,
    taken: BTreeSet<String>,
    /// Requests of each key that are under way, and the most of them at once.
    open: BTreeMap<String, usize>,
    most_of_a_key: usize,
    most: usize,
}

/// The service.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Service {
    /// Starts a service that answers so.
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/decisions", listener.local_addr().unwrap());
        let service = Service { url, seen: Arc::default() };
        let (this, answer) = (service.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (this, answer) = (this.clone(), Arc::clone(&answer));
                std::thread::spawn(move || this.serve(stream.unwrap(), &*answer));
            }
        });
        service
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// How many decisions were taken.
    pub(crate) fn taken(&self) -> usize {
        self.seen.lock().unwrap().taken.len()
    }

    /// How many requests were under way at once at most, of one key and of all.
    pub(crate) fn most(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.most_of_a_key, seen.most)
    }

    fn serve(&self, stream: TcpStream, answer: &dyn Fn(&Request) -> Answer) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(mut request) = read(&mut reader) {
            let key = request.text("key");
            let what = self.begin(&mut request, &key, answer);
            let is_open = respond(&stream, what);
            *self.seen.lock().unwrap().open.get_mut(&key).unwrap() -= 1;
            if !is_open {
                return;
            }
        }
    }

    fn begin(&self, request: &mut Request, key: &str, answer: &dyn Fn(&Request) -> Answer) -> Answer {
        let mut seen = self.seen.lock().unwrap();
        let tries = seen.tries.entry(request.name.clone()).or_default();
        request.tries = *tries;
        *tries += 1;
        let what = answer(request);
        request.is_taken = matches!(what, Answer::Status(200..300));
        if request.is_taken {
            seen.taken.insert(request.name.clone());
        }
        seen.requests.push(request.clone());
        let open = seen.open.entry(key.to_owned()).or_default();
        *open += 1;
        seen.most_of_a_key = seen.most_of_a_key.max(seen.open[key]);
        seen.most = seen.most.max(seen.open.values().sum());
        what
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0).map(|_| line.trim().to_owned())
    };
    assert_eq!(line()?, "POST /decisions HTTP/1.1");
    let mut headers = BTreeMap::new();
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap();
    let name = headers["idempotency-key"].clone();
    Some(Request { name, headers, body, tries: 0, is_taken: false })
}

/// Answers, and says whether the connection goes on.
fn respond(mut stream: &TcpStream, answer: Answer) -> bool {
    let (status, header) = match answer {
        Answer::Status(status) => (status, String::new()),
        Answer::Later(status, seconds) => (status, format!("Retry-After: {seconds}\r\n")),
        Answer::Redirect => (302, "Location: /elsewhere\r\n".into()),
        Answer::Close => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return false;
        }
        Answer::Hang => {
            // Until the other side leaves.
            let _ = stream.read(&mut [0; 1]);
            return false;
        }
    };
    let answer = format!("HTTP/1.1 {status} So\r\n{header}Content-Length: 6\r\n\r\nsaid\r\n");
    stream.write_all(answer.as_bytes()).is_ok()
}
