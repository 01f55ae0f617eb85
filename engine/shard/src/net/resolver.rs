//! Addresses of members. A lookup runs on a thread of its own, so that a name server that does not answer delays
//! nobody; the caller goes on with the last good address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a caller waits for a lookup. The lookup may run for longer. No other lookup of its host begins before it
/// ends, so there are never more threads than members.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);
/// The most addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

/// The function that looks a name up. The function may block.
type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The addresses of hosts, shared by the shards of a process.
#[derive(Clone)]
pub struct Resolver {
    lookup: Lookup,
    /// By name. Only the names of members are looked up.
    hosts: Arc<Mutex<BTreeMap<String, Arc<Mutex<Host>>>>>,
}

/// The lookups of one host and their results.
#[derive(Default)]
pub struct Host {
    /// When the lookup that is under way began.
    began: Option<Instant>,
    /// Lookups that have ended.
    ended: u64,
    /// The error of the last lookup, if that lookup failed.
    failure: Option<String>,
    /// The addresses of the last lookup that succeeded.
    good: Vec<IpAddr>,
}

/// One question, which is polled until its answer is there.
pub enum Question {
    /// The host is an address itself.
    Address(IpAddr),
    /// The host is a name. The first lookup that ends after this number of lookups answers the question.
    Name(Arc<Mutex<Host>>, u64),
}

/// The addresses of a host.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundAddresses {
    pub addresses: Vec<IpAddr>,
    /// The reason why these addresses come from an earlier lookup.
    pub failure: Option<String>,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::with(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

impl Resolver {
    fn with(lookup: Lookup) -> Resolver {
        Resolver { lookup, hosts: Arc::default() }
    }

    /// Asks for the current addresses of a host, since a name may have moved.
    pub fn ask(&self, name: &str) -> Question {
        if let Ok(address) = name.parse() {
            return Question::Address(address);
        }
        let host = lock(&self.hosts).entry(name.to_owned()).or_default().clone();
        let mut known = lock(&host);
        let ended = known.ended;
        if known.began.is_none() {
            known.began = Some(Instant::now());
            let (lookup, name, asked) = (self.lookup, name.to_owned(), host.clone());
            let work = move || {
                let found = lookup(&name);
                lock(&asked).end(found);
            };
            if let Err(error) = std::thread::Builder::new().name("lookup".into()).spawn(work) {
                known.end(Err(error));
            }
        }
        drop(known);
        Question::Name(host, ended)
    }
}

impl Host {
    fn end(&mut self, found: io::Result<Vec<IpAddr>>) {
        self.began = None;
        self.ended += 1;
        self.failure = match found {
            Ok(addresses) if addresses.is_empty() => Some("the name server gave no address".into()),
            Ok(mut addresses) => {
                addresses.dedup();
                addresses.truncate(ADDRESSES_MAX);
                self.good = addresses;
                None
            }
            Err(error) => Some(error.to_string()),
        };
    }

    /// The known addresses, or the reason why none is known.
    fn found(&self, failure: Option<String>) -> Result<FoundAddresses, String> {
        match failure {
            Some(failure) if self.good.is_empty() => Err(failure),
            failure => Ok(FoundAddresses { addresses: self.good.clone(), failure }),
        }
    }
}

impl Question {
    /// The answer, once the lookup has ended or its patience is over.
    pub fn answer(&self) -> Option<Result<FoundAddresses, String>> {
        let (host, before) = match self {
            Question::Address(address) => {
                return Some(Ok(FoundAddresses { addresses: vec![*address], failure: None }));
            }
            Question::Name(host, before) => (lock(host), *before),
        };
        if host.ended > before {
            return Some(host.found(host.failure.clone()));
        }
        let is_late = host.began.is_none_or(|began| began.elapsed() >= LOOKUP_PATIENCE);
        is_late.then(|| host.found(Some(format!("no name server has answered for {LOOKUP_PATIENCE:?}"))))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn answer(question: &Question) -> Result<FoundAddresses, String> {
        loop {
            match question.answer() {
                Some(answer) => return answer,
                None => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn an_address_is_not_looked_up() {
        let resolver = Resolver::with(|_| unreachable!());
        for text in ["127.0.0.1", "::1"] {
            let found = resolver.ask(text).answer().expect("at once").unwrap();
            assert_eq!(found, FoundAddresses { addresses: vec![text.parse().unwrap()], failure: None });
        }
    }

    #[test]
    fn a_lookup_that_hangs_is_not_waited_for_nor_begun_twice() {
        static SILENT: AtomicBool = AtomicBool::new(false);
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::with(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            while SILENT.load(Ordering::SeqCst) {
                std::thread::park();
            }
            Ok(vec![HERE])
        });
        assert_eq!(answer(&resolver.ask("db")), Ok(FoundAddresses { addresses: vec![HERE], failure: None }));
        SILENT.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            // The first is waited for; for those who come later it has been waited for long enough.
            let found = answer(&resolver.ask("db")).unwrap();
            assert_eq!(found.addresses, [HERE], "the last good one");
            assert!(found.failure.unwrap().contains("no name server"));
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
        // A host that was never found has no last address.
        assert!(answer(&resolver.ask("other")).unwrap_err().contains("no name server"));
    }

    #[test]
    fn a_name_that_moves_is_found_again_and_a_failure_keeps_the_last_address() {
        static ROUND: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::with(|_| match ROUND.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec!["10.0.0.1".parse().unwrap()]),
            1 => Ok(vec!["10.0.0.2".parse().unwrap()]),
            _ => Err(io::Error::other("no such host")),
        });
        let found = |resolver: &Resolver| answer(&resolver.ask("db")).unwrap();
        assert_eq!(found(&resolver).addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let moved = vec!["10.0.0.2".parse().unwrap()];
        assert_eq!(found(&resolver), FoundAddresses { addresses: moved.clone(), failure: None });
        let failure = Some("no such host".into());
        assert_eq!(found(&resolver), FoundAddresses { addresses: moved, failure });
    }
}
