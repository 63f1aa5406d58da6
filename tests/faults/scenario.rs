//! A scenario: a cluster under load, what is done to it, and what must be found in the end.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::figures::{ms, percentile, sorted};
use crate::findings::{Findings, Kind};
use crate::load::{Done, Load, pass};
use crate::story::Stories;
use crate::support::resp::{Client, Reply};
use crate::support::{Cluster, free_port, now, wait_for};

/// Nodes at the start of each scenario: seeds of one another.
pub(crate) const NODES: usize = 3;
/// Nodes that may run at the same time, a joiner included.
const NODES_MAX: usize = 4;
/// How long the load goes on between two faults while nothing is wrong.
const IN_ORDER: Duration = Duration::from_secs(2);
/// Keys that are read with one command.
const KEYS_A_READ: usize = 200;

/// Scenarios measure times: one runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to run, until it is dropped.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that the environment may give.
pub(crate) fn asked(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(otherwise, |text| text.parse().expect("the variable is a number"))
}

/// A cluster under load. The load is dropped first, the nodes next.
pub(crate) struct Scenario {
    name: String,
    load: Option<Load>,
    /// Its nodes.
    pub(crate) cluster: Cluster,
    addresses: Arc<[SocketAddr]>,
    /// Sockets that keep the client ports from others while their nodes are down.
    _kept: Vec<socket2::Socket>,
    seeds: Vec<u16>,
    /// Keys that were there before the load, with their values.
    loaded: Vec<(String, String)>,
    faults: Vec<Instant>,
    settled: Vec<Duration>,
    notes: Vec<String>,
    findings: Arc<Findings>,
    _turn: MutexGuard<'static, ()>,
}

impl Scenario {
    /// Three nodes with two copies of everything, acknowledged by both.
    pub(crate) fn new(name: &str, shortfall: &str) -> Self {
        let turn = turn();
        let shortfall_setting = format!("cluster.acks_shortfall={shortfall}");
        let settings =
            ["cluster.replicas=2", "cluster.acks=all", &shortfall_setting, "memory.limit=1GiB"];
        let kept: Vec<socket2::Socket> = (0..NODES_MAX).map(|_| kept_port()).collect();
        let addresses = kept.iter().map(|socket| {
            let address = socket.local_addr().expect("a bound socket has an address");
            address.as_socket().expect("it is of the internet's")
        });
        let addresses: Arc<[SocketAddr]> = addresses.collect();
        let mut scenario = Self {
            name: format!("{name} ({shortfall})"),
            load: None,
            cluster: Cluster::new(&settings),
            addresses,
            _kept: kept,
            seeds: distinct_ports(NODES),
            loaded: Vec::new(),
            faults: Vec::new(),
            settled: Vec::new(),
            notes: Vec::new(),
            findings: Arc::default(),
            _turn: turn,
        };
        for number in 0..NODES {
            scenario.add_node(scenario.seeds[number]);
        }
        scenario.cluster.wait_settled(NODES);
        scenario
    }

    /// Adds a fourth node.
    pub(crate) fn add(&mut self) -> usize {
        self.add_node(free_port())
    }

    fn add_node(&mut self, peer_port: u16) -> usize {
        let address = self.addresses[self.cluster.nodes.len()];
        let settings = [
            format!("client.listen={address}"),
            "client.cluster_listen=127.0.0.1:0".to_owned(),
            format!("gossip.listen=127.0.0.1:{}", free_port()),
        ];
        let settings = settings.each_ref().map(String::as_str);
        self.cluster.add_at(peer_port, &self.seeds, &settings)
    }

    /// Writes `count` keys before the load begins; how many bytes they and their values have.
    pub(crate) fn write_before(&mut self, count: usize) -> usize {
        let pair = |number: usize| (format!("loaded:{number}"), format!("{number:0100}"));
        self.loaded = (0..count).map(pair).collect();
        let mut clients: Vec<Client> = (0..NODES).map(|node| self.cluster.client(node)).collect();
        for (chunk, pairs) in self.loaded.chunks(KEYS_A_READ).enumerate() {
            let words = pairs.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
            let words: Vec<&str> = std::iter::once("MSET").chain(words).collect();
            // A busy machine may refuse it for a moment; written twice it is the same.
            let client = &mut clients[chunk % NODES];
            wait_for("keys written before the load", || {
                (!client.run(&words).is_error()).then_some(())
            });
        }
        self.loaded.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Starts the load.
    pub(crate) fn start_load(&mut self) {
        let addresses = Arc::clone(&self.addresses);
        self.load = Some(Load::start(addresses, NODES, Arc::clone(&self.findings)));
    }

    /// Spreads the clients over these nodes again.
    pub(crate) fn spread(&self, nodes: &[usize]) {
        self.load.as_ref().expect("the load goes on").spread(nodes);
    }

    /// Lets the load go on for a while over these nodes, which are in order.
    pub(crate) fn work_in_order(&self, nodes: &[usize]) {
        self.spread(nodes);
        pass(IN_ORDER);
    }

    /// Notes that a fault begins now.
    pub(crate) fn fault(&mut self) {
        self.faults.push(now());
    }

    /// How long ago the last fault began.
    pub(crate) fn since_fault(&self) -> Duration {
        self.faults.last().map(Instant::elapsed).unwrap_or_default()
    }

    /// Waits until these nodes, and no other, form a cluster in order; notes how long that took.
    pub(crate) fn settle(&mut self, nodes: &[usize]) {
        let began = now();
        self.cluster.wait_agreed(nodes, nodes.len() as u64);
        self.settled.push(began.elapsed());
    }

    /// Adds to what is told in the end.
    pub(crate) fn tell(&mut self, note: &str) {
        self.notes.push(format!("{note}; "));
    }

    /// Stops the load, reads every key at every one of these nodes, and prints what was found.
    #[expect(clippy::print_stdout, reason = "what a scenario measured is shown with --nocapture")]
    pub(crate) fn finish(mut self, nodes: &[usize]) {
        let load = self.load.take().expect("the load goes on");
        let began = load.began();
        let done = load.stop();
        self.cluster.wait_agreed(nodes, nodes.len() as u64);
        let equal = now();
        self.wait_equal(nodes);
        let equal = equal.elapsed();
        let checked = self.check(nodes, &done);
        let faults: Vec<Duration> =
            self.faults.iter().map(|fault| fault.saturating_duration_since(began)).collect();
        let settled = sorted(self.settled.iter().copied());
        println!(
            "SUMMARY {}: {} faults in {:.0} s; writes: {} (p50..worst: {}); reads: {} ({}; counters read \
             lower than before {}); in order again after median {} worst {} ms; copies equal {} ms \
             after the load; {}{checked} keys read at {} nodes: {}",
            self.name,
            faults.len(),
            done.time.as_secs_f64(),
            done.writes,
            done.writes.latencies(&faults),
            done.reads,
            done.reads.latencies(&faults),
            done.reads.went_back,
            ms(percentile(&settled, 50)),
            ms(percentile(&settled, 100)),
            ms(equal),
            self.notes.concat(),
            nodes.len(),
            *self.findings,
        );
        self.findings.assert_none();
    }

    /// Reads every key at every node; how many there are.
    fn check(&self, nodes: &[usize], done: &Done) -> usize {
        let stories = Stories { stories: &done.stories, claims: &done.claims };
        let keys = stories.keys();
        for node in nodes {
            let mut client = self.cluster.client(*node);
            for keys in keys.chunks(KEYS_A_READ) {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                for (key, found) in keys.iter().zip(read_all(&mut client, &keys)) {
                    stories.check(key, found.as_deref(), &self.findings);
                }
            }
            for pairs in self.loaded.chunks(KEYS_A_READ) {
                let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
                for ((key, value), found) in pairs.iter().zip(read_all(&mut client, &keys)) {
                    if found.as_ref() != Some(value) {
                        self.findings.note(Kind::Missing, format!("{key} is {found:?}"));
                    }
                }
            }
        }
        keys.len() + self.loaded.len()
    }

    /// Waits until all holders of each slot have equal digests.
    fn wait_equal(&self, nodes: &[usize]) {
        let copies = 2.min(nodes.len());
        wait_for("the copies of each slot are equal", || {
            let mut digests: Vec<Vec<Value>> = vec![Vec::new(); 16_384];
            for node in nodes {
                let answer = self.cluster.nodes[*node].json("/v1/slots")?;
                for row in answer["slots"].as_array()? {
                    let slot = usize::try_from(row["slot"].as_u64()?).ok()?;
                    digests.get_mut(slot)?.push(row["digest"].clone());
                }
            }
            let equal = |held: &mut Vec<Value>| {
                let enough = held.len() >= copies;
                held.dedup();
                enough && held.len() == 1
            };
            digests.iter_mut().all(equal).then_some(())
        });
    }

    /// Bytes of fills that each node received since it was started.
    pub(crate) fn received(&self, node: usize) -> f64 {
        let received = "direction=\"received\"";
        self.cluster.nodes[node].metric("chickadee_sync_bytes_total", received)
    }

    /// Copies the nodes' logs to the folder that `CHICKADEE_LOGS` names, if it names one.
    fn keep_logs(&self) {
        let Ok(folder) = std::env::var("CHICKADEE_LOGS") else { return };
        let folder = Path::new(&folder).join(self.name.replace([' ', '(', ')'], "-"));
        let _as_far_as_possible = fs::create_dir_all(&folder);
        for node in &self.cluster.nodes {
            let _as_far_as_possible = fs::write(folder.join(&node.name), node.log());
        }
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

/// The values of these keys, by one command.
fn read_all(client: &mut Client, keys: &[&str]) -> Vec<Option<String>> {
    let words: Vec<&str> = std::iter::once("MGET").chain(keys.iter().copied()).collect();
    let reply = client.run(&words);
    let Reply::Array(Some(values)) = &reply else { unreachable!("MGET was answered {reply:?}") };
    assert_eq!(values.len(), keys.len());
    values.iter().map(Reply::text).collect()
}

/// A socket that has a port of the system's choice and does not listen: nobody is given the port, and
/// a node that wants it by name gets it all the same.
fn kept_port() -> socket2::Socket {
    let made = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        std::io::Result::Ok(socket)
    };
    made().expect("loopback has ports")
}

fn distinct_ports(count: usize) -> Vec<u16> {
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = free_port();
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}
