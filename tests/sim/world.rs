//! Three nodes, a client and faults, in one simulated world.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chickadee::clock::SimulatedClock;
use chickadee::cluster::Shared;
use chickadee::config::{Acks, Config};
use chickadee::net::Net;
use chickadee::node::{Node, Seams};
use chickadee::persist::MemoryStorage;
use chickadee::rng::Randomness;
use chickadee::types::{Slot, WallMillis};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::Client;

const NODES: usize = 3;
const CLIENT_PORT: u16 = 6379;
const PEER_PORT: u16 = 7401;
const GOSSIP_PORT: u16 = 7400;
/// 2026-11-21, when the simulated worlds begin.
const EPOCH: WallMillis = WallMillis(1_795_219_200_000);
/// How long the client writes.
const WRITING: Duration = Duration::from_mins(1);
/// How long the cluster may take to settle at the end.
const SETTLING: Duration = Duration::from_mins(1);

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node dies and comes back, with its node file and without its data.
    Crash {
        /// Which.
        node: usize,
        /// When, in milliseconds.
        at: u64,
        /// When it comes back.
        back: u64,
    },
    /// One node is cut off from the others.
    Partition {
        /// Which.
        node: usize,
        /// When, in milliseconds.
        at: u64,
        /// When the cut heals.
        healed: u64,
    },
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The faults that were injected.
    pub(crate) faults: Vec<Fault>,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Writes that were not.
    pub(crate) failed: usize,
    /// Time from the last fault's end until all nodes agreed.
    pub(crate) converged: Duration,
    /// Slots taken over from a dead node, over all nodes.
    pub(crate) takeovers: usize,
    /// Slots that were filled, over all nodes.
    pub(crate) fills: usize,
    /// When each write was acknowledged or failed, in simulated milliseconds.
    pub(crate) history: Vec<(u64, String)>,
}

/// The nodes that run now, as far as a check needs them.
type Running = Arc<Mutex<BTreeMap<usize, Arc<Shared>>>>;

/// What the client did.
#[derive(Default)]
struct Story {
    written: BTreeMap<String, String>,
    history: Vec<(u64, String)>,
    failed: usize,
    /// The client is done, and saw everything it had written.
    checked: bool,
}

/// A world made from a seed.
pub(crate) struct World {
    seed: u64,
    faults: Vec<Fault>,
    running: Running,
    story: Arc<Mutex<Story>>,
}

fn name(node: usize) -> String {
    format!("n{node}")
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let crash_at = rng.random_range(12_000..20_000);
        let cut_at = rng.random_range(42_000..50_000);
        let faults = vec![
            Fault::Crash {
                node: rng.random_range(0..NODES),
                at: crash_at,
                back: crash_at + rng.random_range(1_000..15_000),
            },
            Fault::Partition {
                node: rng.random_range(0..NODES),
                at: cut_at,
                healed: cut_at + rng.random_range(500..12_000),
            },
        ];
        Self { seed, faults, running: Arc::default(), story: Arc::default() }
    }

    /// Runs the world to its end; panics where a promise was broken.
    pub(crate) fn run(self) -> Outcome {
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(3))
            .simulation_duration(Duration::from_mins(10))
            .udp_capacity(4096)
            .tcp_capacity(4096)
            .build();
        for node in 0..NODES {
            let (storage, running) = (MemoryStorage::default(), Arc::clone(&self.running));
            let seed = self.seed.wrapping_mul(31).wrapping_add(node as u64);
            sim.host(name(node), move || live(node, seed, storage.clone(), Arc::clone(&running)));
        }
        sim.client("client", write_and_check(Arc::clone(&self.story), self.seed));
        let mut pending = self.faults.clone();
        let mut open: Vec<Fault> = Vec::new();
        let mut converged = None;
        loop {
            let now = u64::try_from(sim.elapsed().as_millis()).expect("a short simulation");
            inject(&mut sim, now, &mut pending, &mut open);
            let last_end = self.faults.iter().map(end).max().unwrap_or(0);
            if now > last_end && converged.is_none() && self.is_settled() {
                converged = Some(Duration::from_millis(now - last_end));
            }
            let done = sim.step().unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
            if done {
                break;
            }
        }
        self.finish(converged)
    }

    /// Whether all nodes agree on a placement, each slot is acted for once and complete where it
    /// belongs, and its copies are equal.
    fn is_settled(&self) -> bool {
        let running = self.running.lock().expect("no test thread panicked");
        if running.len() < NODES {
            return false;
        }
        let mut placements: Vec<_> =
            running.values().map(|node| node.view().placement.id()).collect();
        placements.dedup();
        let acting: usize = running.values().map(|node| node.slot_counts().acting).sum();
        placements.len() == 1
            && running.values().all(|node| node.slot_counts().incomplete == 0)
            && acting == usize::from(chickadee::types::SLOTS)
            && differing_slots(&running).is_empty()
    }

    fn finish(self, converged: Option<Duration>) -> Outcome {
        let seed = self.seed;
        let story = self.story.lock().expect("no test thread panicked");
        assert!(story.checked, "seed {seed}: the client did not come to its end");
        let running = self.running.lock().expect("no test thread panicked");
        let differing = differing_slots(&running);
        assert!(differing.is_empty(), "seed {seed}: copies differ in slots {differing:?}");
        Outcome {
            acknowledged: story.written.len(),
            failed: story.failed,
            converged: converged.unwrap_or(Duration::MAX),
            takeovers: running.values().map(|node| node.tallies().taken_over).sum(),
            fills: running.values().map(|node| node.tallies().filled).sum(),
            history: story.history.clone(),
            faults: self.faults,
        }
    }
}

fn differing_slots(running: &BTreeMap<usize, Arc<Shared>>) -> Vec<u16> {
    let mut digests: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    for node in running.values() {
        for report in node.slot_reports(Slot::all()) {
            if report.owner.is_some() {
                digests.entry(report.slot.get()).or_default().push((report.digest, report.keys));
            }
        }
    }
    let differs = |copies: &Vec<(u64, u64)>| copies.len() != 2 || copies[0] != copies[1];
    digests.into_iter().filter(|(_, copies)| differs(copies)).map(|(slot, _)| slot).collect()
}

const fn end(fault: &Fault) -> u64 {
    match fault {
        Fault::Crash { back, .. } => *back,
        Fault::Partition { healed, .. } => *healed,
    }
}

fn inject(sim: &mut turmoil::Sim<'_>, now: u64, pending: &mut Vec<Fault>, open: &mut Vec<Fault>) {
    pending.retain(|fault| {
        let (Fault::Crash { at, .. } | Fault::Partition { at, .. }) = fault;
        if now < *at {
            return true;
        }
        match fault {
            Fault::Crash { node, .. } => sim.crash(name(*node)),
            Fault::Partition { node, .. } => {
                for other in (0..NODES).filter(|other| other != node) {
                    sim.partition(name(*node), name(other));
                }
            }
        }
        open.push(*fault);
        false
    });
    open.retain(|fault| {
        if now < end(fault) {
            return true;
        }
        match fault {
            Fault::Crash { node, .. } => sim.bounce(name(*node)),
            Fault::Partition { node, .. } => {
                for other in (0..NODES).filter(|other| other != node) {
                    sim.repair(name(*node), name(other));
                }
            }
        }
        false
    });
}

/// A node's life, from a start to a crash.
async fn live(
    node: usize,
    seed: u64,
    storage: MemoryStorage,
    running: Running,
) -> Result<(), Box<dyn std::error::Error>> {
    let own = turmoil::lookup(name(node));
    let elapsed = u64::try_from(turmoil::sim_elapsed().unwrap_or_default().as_millis())?;
    let seams = Seams {
        net: Net::Simulated,
        clock: Arc::new(SimulatedClock::new(EPOCH.saturating_add(elapsed))),
        rng: Randomness::from_seed(seed ^ elapsed),
        storage: Arc::new(storage),
    };
    running.lock().expect("no test thread panicked").remove(&node);
    let node_handle = Node::start_in(config(node, own), seams).await?;
    let shared = Arc::clone(node_handle.cluster());
    running.lock().expect("no test thread panicked").insert(node, shared);
    node_handle.stopped().await;
    Ok(())
}

fn config(node: usize, own: IpAddr) -> Config {
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let at = |port| Some(SocketAddr::new(own, port));
    let name_of_node = name(node).parse().expect("a valid name");
    let mut config = Config::on_loopback(name_of_node, std::path::PathBuf::new());
    config.cluster.acks = Acks::All;
    config.cluster.join = (0..NODES).map(|seed| format!("{}:{PEER_PORT}", name(seed))).collect();
    config.gossip.listen = any(GOSSIP_PORT);
    config.gossip.advertise = at(GOSSIP_PORT);
    config.peer.listen = any(PEER_PORT);
    config.peer.advertise = at(PEER_PORT);
    config.client.listen = vec![any(CLIENT_PORT)];
    config.client.cluster_listen = vec![any(CLIENT_PORT + 10_000)];
    config.client.advertise = at(CLIENT_PORT);
    config.client.cluster_advertise = at(CLIENT_PORT + 10_000);
    config
}

/// Writes keys through all nodes in turn, then reads every acknowledged one through each of them.
async fn write_and_check(
    story: Arc<Mutex<Story>>,
    seed: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let address = |node| SocketAddr::new(turmoil::lookup(name(node)), CLIENT_PORT);
    let mut clients: Vec<Client> = (0..NODES).map(|node| Client::new(address(node))).collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut number = 0;
    while turmoil::elapsed() < WRITING {
        let key = format!("key:{}", rng.random_range(0..400));
        let value = format!("value:{number}");
        number += 1;
        let reply = clients[number % NODES].run(&["SET", &key, &value]).await;
        let acknowledged = reply.as_ref().is_ok_and(|reply| reply == "+OK");
        note(&story, &key, &value, acknowledged);
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
    }
    let deadline = turmoil::elapsed() + SETTLING;
    let written = story.lock().expect("no test thread panicked").written.clone();
    for (key, value) in &written {
        for client in &mut clients {
            loop {
                match client.run(&["GET", key]).await {
                    Ok(found) if found == *value => break,
                    found => assert!(
                        turmoil::elapsed() < deadline,
                        "seed {seed}: {key} is {found:?}, acknowledged was {value}"
                    ),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    story.lock().expect("no test thread panicked").checked = true;
    Ok(())
}

/// An acknowledged value is what must be read from then on; one that was not may be either, so the
/// key is not checked until it is written again.
fn note(story: &Mutex<Story>, key: &str, value: &str, acknowledged: bool) {
    let mut story = story.lock().expect("no test thread panicked");
    let now = u64::try_from(turmoil::elapsed().as_millis()).unwrap_or(u64::MAX);
    story.history.push((now, format!("{key}={value} {acknowledged}")));
    if acknowledged {
        story.written.insert(key.to_owned(), value.to_owned());
    } else {
        story.written.remove(key);
        story.failed += 1;
    }
}
