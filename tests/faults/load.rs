//! The load: writers and readers spread over all nodes, each a thread with a connection of its own.
//!
//! A client paces itself, and who had to wait long sends no burst afterwards. A command
//! that was certainly not executed is tried again as client libraries do it, at the next node where the
//! connection broke; what may have been executed is sent again only if that changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::connection::{Broken, Connection};
use crate::figures::{Counts, Sample};
use crate::findings::{Findings, Kind};
use crate::story::{Act, COUNTERS, Claims, Story, Told, counter_key};
use crate::support::now;
use crate::support::resp::Reply;

/// Clients that write.
const WRITERS: usize = 8;
/// Clients that read.
const READERS: usize = 2;
/// From one write of a client to the next: 2,000 writes a second by all.
const WRITE_EVERY: Duration = Duration::from_millis(4);
/// From one read of a client to the next.
const READ_EVERY: Duration = Duration::from_millis(5);
/// How long a client repeats a command that is certainly not executed.
const REPEATING_MAX: Duration = Duration::from_secs(10);
/// Between two tries of one command.
const BACK_OFF: Duration = Duration::from_millis(3);

/// How far behind its pace a client may fall and still catch up: threads wake up late.
const LATE_MAX: Duration = Duration::from_millis(20);

/// Lets time pass: for pacing, and as long as a fault is to last.
#[expect(clippy::disallowed_methods, reason = "clients are paced, and faults have a length")]
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    addresses: Arc<[SocketAddr]>,
    stopped: AtomicBool,
    /// Raised when clients are to spread over the nodes again.
    calls: AtomicUsize,
    homes: Mutex<Vec<usize>>,
    claims: Claims,
    /// How often each counter was raised for certain.
    counters: Vec<AtomicI64>,
    /// Keys that are written once and were acknowledged.
    published: Mutex<Vec<(String, String)>>,
    findings: Arc<Findings>,
    began: Instant,
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<(Story, Counts)>>,
    readers: Vec<JoinHandle<Counts>>,
}

/// What the clients did and were told.
pub(crate) struct Done {
    /// One story for each writer.
    pub(crate) stories: Vec<Story>,
    /// What they claimed.
    pub(crate) claims: Claims,
    /// Figures of writes.
    pub(crate) writes: Counts,
    /// Figures of reads.
    pub(crate) reads: Counts,
    /// How long they worked.
    pub(crate) time: Duration,
}

impl Load {
    /// Starts the clients, at home at the first `nodes` of the addresses.
    pub(crate) fn start(
        addresses: Arc<[SocketAddr]>,
        nodes: usize,
        findings: Arc<Findings>,
    ) -> Self {
        let shared = Arc::new(Shared {
            addresses,
            stopped: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            homes: Mutex::new((0..nodes).collect()),
            claims: Claims::default(),
            counters: (0..WRITERS * COUNTERS).map(|_| AtomicI64::new(0)).collect(),
            published: Mutex::default(),
            findings,
            began: now(),
        });
        let worker = |number: usize| Worker::new(number, Arc::clone(&shared));
        let writers = (0..WRITERS)
            .map(|number| (number, worker(number)))
            .map(|(number, worker)| std::thread::spawn(move || worker.write_all(number)))
            .collect();
        let readers = (0..READERS)
            .map(|number| worker(WRITERS + number))
            .map(|worker| std::thread::spawn(move || worker.read_all()))
            .collect();
        Self { shared, writers, readers }
    }

    /// When the clients began.
    pub(crate) fn began(&self) -> Instant {
        self.shared.began
    }

    /// Spreads the clients over these nodes again.
    pub(crate) fn spread(&self, nodes: &[usize]) {
        *self.shared.homes.lock().expect("nobody panics with it") = nodes.to_vec();
        self.shared.calls.fetch_add(1, Ordering::Release);
    }

    /// Stops the clients, each after its present command.
    pub(crate) fn stop(mut self) -> Done {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let (mut stories, mut writes, mut reads) =
            (Vec::new(), Counts::default(), Counts::default());
        for writer in self.writers.drain(..) {
            let (story, counts) = writer.join().expect("a writer does not panic");
            stories.push(story);
            writes.add(counts);
        }
        for reader in self.readers.drain(..) {
            reads.add(reader.join().expect("a reader does not panic"));
        }
        let shared = Arc::clone(&self.shared);
        drop(self);
        let shared = Arc::into_inner(shared).expect("all clients have ended");
        let time = now().saturating_duration_since(shared.began);
        Done { stories, claims: shared.claims, writes, reads, time }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _of_a_test_that_failed = writer.join();
        }
        for reader in self.readers.drain(..) {
            let _of_a_test_that_failed = reader.join();
        }
    }
}

/// One client.
struct Worker {
    number: usize,
    shared: Arc<Shared>,
    rng: StdRng,
    connection: Connection,
    calls: usize,
    counts: Counts,
}

impl Worker {
    fn new(number: usize, shared: Arc<Shared>) -> Self {
        let connection = Connection::new(Arc::clone(&shared.addresses), number % 3);
        let rng = StdRng::seed_from_u64(number as u64);
        Self { number, shared, rng, connection, calls: 0, counts: Counts::default() }
    }

    /// Calls `once` at even distances until the clients are stopped.
    fn paced(&mut self, every: Duration, mut once: impl FnMut(&mut Self)) {
        let mut due = now();
        while !self.shared.stopped.load(Ordering::Relaxed) {
            let calls = self.shared.calls.load(Ordering::Acquire);
            if calls != self.calls {
                self.calls = calls;
                let homes = self.shared.homes.lock().expect("nobody panics with it");
                self.connection.go_to(homes[self.number % homes.len()]);
            }
            once(self);
            due += every;
            let ahead = due.saturating_duration_since(now());
            if ahead.is_zero() && due.elapsed() > LATE_MAX {
                due = now();
            }
            pass(ahead);
        }
    }

    fn write_all(mut self, client: usize) -> (Story, Counts) {
        let shared = Arc::clone(&self.shared);
        let mut story = Story::new(client);
        self.paced(WRITE_EVERY, |worker| {
            let act = story.next_act(&mut worker.rng, &shared.claims);
            let told = worker.write(&act);
            story.note(&act, told, &shared.claims, &shared.findings);
            match (&act, told) {
                (Act::Once(key, value), Told::Done(_)) => {
                    let mut published = shared.published.lock().expect("nobody panics with it");
                    published.push((key.clone(), value.clone()));
                }
                (Act::Increment(number, _), Told::Done(_)) => {
                    shared.counters[client * COUNTERS + number].fetch_add(1, Ordering::Release);
                }
                _ => {}
            }
        });
        (story, self.counts)
    }

    fn read_all(mut self) -> Counts {
        let shared = Arc::clone(&self.shared);
        let mut seen = BTreeMap::new();
        self.paced(READ_EVERY, |worker| {
            if worker.rng.random_ratio(1, 2) {
                worker.read_counter(&shared, &mut seen);
            } else {
                worker.read_published(&shared);
            }
        });
        self.counts
    }

    /// Reads a counter: it is not below what was acknowledged before, nor below what this client saw.
    fn read_counter(&mut self, shared: &Shared, seen: &mut BTreeMap<usize, i64>) {
        let counter = self.rng.random_range(0..shared.counters.len());
        let acknowledged = shared.counters[counter].load(Ordering::Acquire);
        let key = counter_key(counter / COUNTERS, counter % COUNTERS);
        let Some(reply) = self.read(&key) else { return };
        let found = match reply {
            Reply::Bulk(None) => 0,
            other => match other.text().and_then(|text| text.parse().ok()) {
                Some(number) => number,
                None => return shared.findings.note(Kind::Reply, format!("GET {key}: {other:?}")),
            },
        };
        let at = shared.began.elapsed();
        if found < acknowledged {
            let case = format!("{key} was read as {found} after {acknowledged}, at {at:?}");
            shared.findings.note(Kind::Stale, case);
        }
        let before = seen.insert(counter, found).unwrap_or(0);
        if found < before {
            self.counts.went_back += 1;
        }
    }

    /// Reads one of the keys that are written once.
    fn read_published(&mut self, shared: &Shared) {
        let some = {
            let published = shared.published.lock().expect("nobody panics with it");
            let length = published.len();
            (length > 0).then(|| published[self.rng.random_range(0..length)].clone())
        };
        let Some((key, value)) = some else { return };
        let Some(reply) = self.read(&key) else { return };
        if reply.text().as_ref() != Some(&value) {
            let at = shared.began.elapsed();
            shared.findings.note(Kind::Stale, format!("{key} was read as {reply:?}, at {at:?}"));
        }
    }

    fn read(&mut self, key: &str) -> Option<Reply> {
        let (told, reply) = self.perform(&["GET", key], true);
        reply.filter(|_| told != Told::NotExecuted && told != Told::Unknown)
    }

    fn write(&mut self, act: &Act) -> Told {
        self.perform(&act.args(), act.is_repeatable()).0
    }

    /// Runs a command until it is known what became of it, or that this cannot be known.
    fn perform(&mut self, args: &[&str], repeatable: bool) -> (Told, Option<Reply>) {
        let began = now();
        let mut perhaps = false;
        let (mut told, reply) = loop {
            let tried = self.connection.run(args);
            let late = began.elapsed() > REPEATING_MAX;
            match tried {
                Ok(reply) => {
                    let told = self.judge(args, &reply, late);
                    if let Some(told) = told {
                        break (told, Some(reply));
                    }
                }
                Err(Broken::Unsent) => {
                    self.counts.unsent += 1;
                    self.connection.go_on();
                    if late {
                        self.counts.failed("no node");
                        break (Told::NotExecuted, None);
                    }
                }
                Err(Broken::Sent) => {
                    self.counts.lost += 1;
                    self.connection.go_on();
                    perhaps = true;
                    if !repeatable || late {
                        self.counts.unknown_by_connection += 1;
                        break (Told::Unknown, None);
                    }
                    continue;
                }
            }
            pass(BACK_OFF);
        };
        if perhaps && told == Told::NotExecuted {
            told = Told::Unknown;
        }
        let (began, ended) = (began - self.shared.began, self.shared.began.elapsed());
        let done = !matches!(told, Told::NotExecuted | Told::Unknown);
        self.counts.samples.push(Sample { began, ended, done });
        (told, reply)
    }

    /// What a reply says; none where the command is to be tried again.
    fn judge(&mut self, args: &[&str], reply: &Reply, late: bool) -> Option<Told> {
        let text = match reply {
            Reply::Int(number) => return Some(Told::Done(*number)),
            Reply::Bulk(None) if args[0] == "SET" => return Some(Told::Refused),
            Reply::Simple(_) | Reply::Bulk(_) => return Some(Told::Done(0)),
            Reply::Error(text) => text.as_str(),
            Reply::Array(_) => "an array",
        };
        let prefix = text.split(' ').next().unwrap_or_default();
        match prefix {
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" if !late => {
                self.counts.repeated(prefix);
                if prefix != "TRYAGAIN" {
                    self.connection.go_on();
                }
                None
            }
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "NOREPLICAS" => {
                self.counts.failed(prefix);
                Some(Told::NotExecuted)
            }
            _ if text.starts_with("ERR outcome unknown") => {
                self.counts.unknown(text.trim_start_matches("ERR outcome unknown: "));
                Some(Told::Unknown)
            }
            _ => {
                self.shared.findings.note(Kind::Reply, format!("{args:?}: {text}"));
                Some(Told::Unknown)
            }
        }
    }
}
