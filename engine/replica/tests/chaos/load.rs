//! Clients that ask without end, and what they are told.

use super::check::OPS_PER_KEY_MAX;
use super::history::{Asked, Op, Told, token_of, value_of};
use super::support::PATIENCE;
use isonomy_wire::client::{CallError, Client, Decided, Found, discover};
use isonomy_wire::conversation::{Config, Error, Routing};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Clients at a time.
const CLIENTS: u64 = 8;
/// One key of so many is also deleted.
const DELETED_KEYS: usize = 4;
/// When a client gives up that cannot wait: what it asked during a pause or a kill of all is unknown.
const HASTE: Duration = Duration::from_millis(1500);
/// Commands of one load: what is remembered of them fits into memory.
const OPS_MAX: usize = 8_000_000;
/// Between tries to find a replica that answers.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How clients ask.
pub(crate) struct Style {
    /// Keys that are written at a time.
    pub(crate) keys_open: usize,
    /// Commands that a client has under way.
    pub(crate) commands_per_client: usize,
    /// Between an answer and the next command.
    pub(crate) pause: Duration,
    /// A client is closed, and another takes its place, after up to this time.
    pub(crate) client_life_max: Duration,
    /// Every other client asks each replica in turn, and one gives up early.
    pub(crate) varied: bool,
}

/// A key and all that was asked of it.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) ops: Vec<Op>,
    /// How many commands have begun.
    begun: usize,
    /// The key_seq that was told last.
    told: u64,
}

/// How one client asks.
#[derive(Clone, Copy)]
struct Manner {
    routing: Routing,
    deadline: Duration,
}

/// What all clients of a load share.
struct Board {
    /// What the keys' names begin with.
    prefix: String,
    keys: Vec<Key>,
    /// Those that are written, by place.
    open: Vec<usize>,
    begun: usize,
    progress: Progress,
    last_told: u64,
}

/// How far a load is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Commands with an answer.
    pub(crate) answered: u64,
    /// Those that decided.
    pub(crate) decided: u64,
    /// The longest that a command took.
    pub(crate) slowest: Duration,
    /// The longest time in which nothing at all was answered.
    pub(crate) silence: Duration,
}

/// A command that is about to be asked.
struct Next {
    key: usize,
    name: String,
    token: u64,
    asked: Asked,
}

struct Shared {
    board: Mutex<Board>,
    stop: AtomicBool,
    origin: Instant,
    style: Style,
}

/// Clients on a thread of their own.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Starts clients that find the cluster through these addresses. No two loads may have one prefix.
    pub(crate) fn start(addresses: Vec<String>, prefix: &str, style: Style, seed: u64) -> Load {
        let board = Mutex::new(Board::new(prefix, style.keys_open));
        let shared = Shared { board, stop: AtomicBool::new(false), origin: Instant::now(), style };
        let shared = Arc::new(shared);
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || runtime().block_on(run(shared, addresses, seed))
        });
        Load { shared, thread }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.shared.board.lock().unwrap().progress
    }

    /// Lets the clients end what they have begun, and reads all keys once more.
    pub(crate) fn finish(self, addresses: &[String]) -> (Vec<Key>, Progress) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no client fails");
        let shared = Arc::into_inner(self.shared).expect("the clients are gone");
        let mut board = shared.board.into_inner().unwrap();
        runtime().block_on(read_all(&mut board.keys, addresses, shared.origin));
        (board.keys, board.progress)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn run(shared: Arc<Shared>, addresses: Vec<String>, seed: u64) {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut addresses = addresses.clone();
        let len = addresses.len();
        addresses.rotate_left(number as usize % len);
        let varied = shared.style.varied;
        let manner = Manner {
            routing: if varied && number.is_multiple_of(2) { Routing::Any } else { Routing::Home },
            deadline: if varied && number == 0 { HASTE } else { PATIENCE },
        };
        let rng = SmallRng::seed_from_u64(seed ^ number);
        clients.spawn(succeed(shared.clone(), addresses, manner, rng));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client fails");
    }
}

/// One client after the other.
async fn succeed(shared: Arc<Shared>, addresses: Vec<String>, manner: Manner, mut rng: SmallRng) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(client) = connect(&addresses, manner).await else {
            sleep(CONNECT_PAUSE).await;
            continue;
        };
        let until = Instant::now() + rng.random_range(Duration::ZERO..shared.style.client_life_max);
        let mut workers = JoinSet::new();
        for _ in 0..shared.style.commands_per_client {
            let rng = SmallRng::from_rng(&mut rng);
            workers.spawn(work(shared.clone(), client.clone(), until, rng));
        }
        while let Some(ended) = workers.join_next().await {
            ended.expect("no client fails");
        }
        client.close().await;
    }
}

async fn connect(addresses: &[String], manner: Manner) -> Option<Client> {
    let welcome = discover(addresses).await.ok()?;
    let Manner { routing, deadline } = manner;
    let config = Config { deadline_us: deadline.as_micros() as u64, routing, ..Config::of(&welcome) };
    Some(Client::with(welcome, config))
}

async fn work(shared: Arc<Shared>, client: Client, until: Instant, mut rng: SmallRng) {
    while !shared.stop.load(Ordering::Relaxed) && Instant::now() < until {
        let next = shared.board.lock().unwrap().next(&mut rng);
        let began = shared.now();
        let told = ask(&client, &next).await;
        shared.board.lock().unwrap().told(&next, began, shared.now(), told);
        sleep(shared.style.pause).await;
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

impl Board {
    fn new(prefix: &str, keys_open: usize) -> Board {
        let mut board = Board {
            prefix: prefix.to_owned(),
            keys: Vec::new(),
            open: vec![0; keys_open],
            begun: 0,
            progress: Progress::default(),
            last_told: 0,
        };
        for place in 0..keys_open {
            board.open_key(place);
        }
        board
    }

    /// Lets a fresh key take a place.
    fn open_key(&mut self, place: usize) {
        self.open[place] = self.keys.len();
        let name = format!("{}/{}", self.prefix, self.keys.len());
        self.keys.push(Key { name, ops: Vec::new(), begun: 0, told: 0 });
    }

    fn next(&mut self, rng: &mut SmallRng) -> Next {
        assert!(self.begun < OPS_MAX, "the load has run for too long");
        self.begun += 1;
        let place = rng.random_range(0..self.open.len());
        // The read at the end is one more.
        if self.keys[self.open[place]].begun + 1 == OPS_PER_KEY_MAX {
            self.open_key(place);
        }
        let index = self.open[place];
        let key = &mut self.keys[index];
        key.begun += 1;
        let asked = match rng.random_range(0..100) {
            0..50 => Asked::Decide,
            50..70 => Asked::DecideIf(key.told),
            70..73 if index.is_multiple_of(DELETED_KEYS) => Asked::Delete,
            _ => Asked::Read,
        };
        Next { key: index, name: key.name.clone(), token: self.begun as u64, asked }
    }

    fn told(&mut self, next: &Next, began: u64, ended: u64, told: Told) {
        let key = &mut self.keys[next.key];
        key.ops.push(Op { token: next.token, asked: next.asked, began, ended, told });
        match told {
            Told::Wrote(seq) | Told::Saw(seq, _) => key.told = seq,
            Told::Deleted(_) => key.told = 0,
            Told::Nothing | Told::Unknown => {}
        }
        let progress = &mut self.progress;
        progress.answered += 1;
        progress.decided += u64::from(matches!(told, Told::Wrote(_)));
        progress.slowest = progress.slowest.max(Duration::from_nanos(ended - began));
        progress.silence = progress.silence.max(Duration::from_nanos(ended - self.last_told));
        self.last_told = ended;
    }
}

async fn ask(client: &Client, next: &Next) -> Told {
    let (key, value) = (next.name.clone(), value_of(next.token));
    let told = match next.asked {
        Asked::Decide => client.decide(key, value).await.map(|committed| Told::Wrote(committed.key_seq)),
        Asked::DecideIf(expected) => client.decide_if(key, value, expected).await.map(decided),
        Asked::Read => client.read(key).await.map(found),
        Asked::Delete => {
            let deleted = client.delete(key).await;
            deleted.map(|life| life.map_or(Told::Saw(0, None), |life| Told::Deleted(life.key_seq)))
        }
    };
    told.unwrap_or_else(|error| match error {
        CallError::Failed(Error::NotTaken { .. }) => Told::Nothing,
        CallError::Failed(Error::TimedOut | Error::Expired) | CallError::Duplicate => Told::Unknown,
        error => panic!("{:?} of {}: {error}", next.asked, next.name),
    })
}

fn decided(decided: Decided) -> Told {
    match decided {
        Decided::Committed(committed) => Told::Wrote(committed.key_seq),
        Decided::Rejected { key_seq: 0, .. } => Told::Saw(0, None),
        Decided::Rejected { key_seq, value } => Told::Saw(key_seq, value.map(|value| token_of(&value))),
    }
}

fn found(found: Option<Found>) -> Told {
    found.map_or(Told::Saw(0, None), |found| Told::Saw(found.key_seq, Some(token_of(&found.value))))
}

/// The last command of every key.
async fn read_all(keys: &mut [Key], addresses: &[String], origin: Instant) {
    let client = connect(addresses, Manner { routing: Routing::Home, deadline: PATIENCE })
        .await
        .expect("all replicas run");
    let now = || origin.elapsed().as_nanos() as u64;
    for key in keys {
        let began = now();
        let told = found(client.read(key.name.clone()).await.expect("all replicas run"));
        key.ops.push(Op { token: 0, asked: Asked::Read, began, ended: now(), told });
    }
    client.close().await;
}
