//! Three nodes, three clients and faults, in one simulated world.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chickadee::clock::SimulatedClock;
use chickadee::cluster::{Shared, SlotReport};
use chickadee::config::{Acks, Config};
use chickadee::net::Net;
use chickadee::node::{Node, Seams};
use chickadee::persist::MemoryStorage;
use chickadee::resp::Reply;
use chickadee::rng::Randomness;
use chickadee::types::{SLOTS, Slot, WallMillis};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use turmoil::Sim;

use super::client::Client;
use super::faults::{Fault, Kind, Names, Script};
use super::story::{Counts, Story, Told};

const NODES: usize = 3;
const COPIES: usize = 2;
/// As many at each node.
const CLIENTS: usize = 2 * NODES;
const CLIENT_PORT: u16 = 6379;
const CLUSTER_PORT: u16 = 16_379;
const PEER_PORT: u16 = 7401;
const GOSSIP_PORT: u16 = 7400;
/// 2026-11-21, when the simulated worlds begin.
const EPOCH: WallMillis = WallMillis(1_795_219_200_000);
/// The simulator's step, and the grain of all times on its network.
const TICK: Duration = Duration::from_millis(2);
/// How often the world is looked at, in milliseconds.
const LOOK_EVERY: u64 = 100;
/// The longest that the world may take to settle after a fault has ended.
pub(crate) const SETTLING_MAX: Duration = Duration::from_secs(30);
/// How long a command of unknown outcome may still be under way.
const STRAGGLING: Duration = Duration::from_secs(3);
/// Keys that one `MGET` asks for.
const KEYS_AT_ONCE: usize = 50;

/// What became of a world.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The seed.
    pub(crate) seed: u64,
    /// The faults that it had.
    pub(crate) faults: Vec<Fault>,
    /// Commands of all clients by what became of them.
    pub(crate) counts: Counts,
    /// The longest time from the end of a fault until everything was in its place again.
    pub(crate) slowest: Duration,
    /// Slots taken over that nobody acted for, over all nodes.
    pub(crate) taken_over: usize,
    /// Slots that were filled, over all nodes.
    pub(crate) filled: usize,
    /// How often nodes were fenced.
    pub(crate) fences: u64,
    /// What happened, in simulated milliseconds.
    pub(crate) history: Vec<(u64, String)>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acknowledged, not_executed, unknown } = self.counts;
        write!(
            f,
            "seed {}: {acknowledged} writes acknowledged, {not_executed} not executed, {unknown} \
             unknown; settled {:?} after {:?}",
            self.seed, self.slowest, self.faults
        )
    }
}

/// What the world, its nodes and its clients share.
#[derive(Default)]
struct Stage {
    /// The nodes that run now, as far as a check needs them.
    running: BTreeMap<usize, Arc<Shared>>,
    /// The clocks of their present lives, and how they are told to stop.
    lives: BTreeMap<usize, Life>,
    /// The clients are to stop writing and to check what they find.
    checking: bool,
    counts: Counts,
    /// Clients that found everything as it must be.
    satisfied: usize,
    taken_over: usize,
    filled: usize,
    fences: u64,
    history: Vec<(u64, String)>,
}

/// What the world does to a node that runs.
struct Life {
    clock: Arc<SimulatedClock>,
    stop: Arc<Notify>,
}

type SharedStage = Arc<Mutex<Stage>>;

fn on(stage: &SharedStage) -> MutexGuard<'_, Stage> {
    stage.lock().expect("whoever panics ends the world")
}

/// What the world waits for.
enum Moment {
    /// Everything comes to its place.
    Settling { since: u64 },
    /// The next fault.
    Quiet { until: u64, fault: Fault },
    /// The fault's end.
    Broken { until: u64, fault: Fault },
    /// The clients' last look.
    Checking,
}

/// A world made from a seed.
pub(crate) struct World {
    seed: u64,
    script: Script,
    stage: SharedStage,
    names: Names,
    slowest: Duration,
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let script = Script::draw(&mut StdRng::seed_from_u64(seed), NODES);
        Self {
            seed,
            script,
            stage: SharedStage::default(),
            names: Names {
                nodes: (0..NODES).map(name).collect(),
                clients: (0..CLIENTS).map(|client| format!("c{client}")).collect(),
            },
            slowest: Duration::ZERO,
        }
    }

    /// Runs the world to its end; panics where a promise was broken.
    pub(crate) fn run(mut self) -> Outcome {
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(if self.seed % 3 == 2 { 30 } else { 4 }))
            .simulation_duration(Duration::from_mins(10))
            .udp_capacity(4096)
            .tcp_capacity(4096)
            .build();
        self.populate(&mut sim);
        let mut coming = self.script.faults.clone().into_iter();
        let (mut moment, mut looked) = (Moment::Settling { since: 0 }, 0);
        loop {
            let now = millis(sim.elapsed());
            if now >= looked + LOOK_EVERY {
                looked = now;
                moment = self.turn(&mut sim, now, moment, &mut coming);
            }
            match sim.step() {
                Ok(true) => return self.finish(),
                Ok(false) => {}
                Err(error) => panic!("seed {} after {now} ms: {error}", self.seed),
            }
        }
    }

    fn populate(&self, sim: &mut Sim<'_>) {
        for node in 0..NODES {
            let (storage, stage) = (MemoryStorage::default(), Arc::clone(&self.stage));
            let seed = self.seed.wrapping_mul(31).wrapping_add(node as u64);
            let script = self.script.clone();
            sim.host(name(node), move || {
                live(node, seed, script.clone(), storage.clone(), Arc::clone(&stage))
            });
        }
        for client in 0..CLIENTS {
            let seed = self.seed.wrapping_mul(37).wrapping_add(client as u64);
            sim.client(format!("c{client}"), write_and_check(client, seed, self.stage.clone()));
        }
    }

    /// Looks at the world and goes on to its next moment.
    fn turn(
        &mut self,
        sim: &mut Sim<'_>,
        now: u64,
        moment: Moment,
        coming: &mut impl Iterator<Item = (u64, Fault)>,
    ) -> Moment {
        if self.script.is_whole() {
            let acting: usize =
                on(&self.stage).running.values().map(|it| it.acting_slots().len()).sum();
            assert!(acting <= usize::from(SLOTS), "after {now} ms {acting} slots are acted for");
        }
        match moment {
            Moment::Settling { since } => {
                let why = unsettled(&on(&self.stage).running);
                let Some(why) = why else { return self.settled(now, since, coming.next()) };
                if now >= since + millis(SETTLING_MAX) {
                    let slots = odd_slots(&on(&self.stage).running);
                    panic!("not settled {SETTLING_MAX:?} after {since} ms: {why}{slots}");
                }
                moment
            }
            Moment::Quiet { until, fault } if now >= until => {
                self.tell(now, format!("{fault:?} begins"));
                self.begin(&fault);
                fault.begin(sim, &self.names);
                Moment::Broken { until: now + fault.lasts, fault }
            }
            Moment::Broken { until, fault } if now >= until => {
                self.tell(now, format!("{fault:?} ends"));
                self.end(&fault);
                fault.end(sim, &self.names);
                Moment::Settling { since: now }
            }
            Moment::Broken { fault, .. } => {
                fault.go_on(sim, &self.names, now);
                moment
            }
            Moment::Quiet { .. } | Moment::Checking => moment,
        }
    }

    /// What a fault does to the node itself.
    fn begin(&self, fault: &Fault) {
        match fault.kind {
            Kind::Crash => self.retire(fault.node),
            Kind::Restart => {
                let stage = on(&self.stage);
                stage.lives[&fault.node].stop.notify_one();
            }
            Kind::Cut | Kind::OneWay { .. } | Kind::Stall | Kind::Lag => {}
        }
    }

    fn end(&self, fault: &Fault) {
        match fault.kind {
            Kind::Restart => self.retire(fault.node),
            Kind::Stall => {
                let stage = on(&self.stage);
                stage.lives[&fault.node].clock.skip(Duration::from_millis(fault.lasts));
            }
            Kind::Crash | Kind::Cut | Kind::OneWay { .. } | Kind::Lag => {}
        }
    }

    fn settled(&mut self, now: u64, since: u64, next: Option<(u64, Fault)>) -> Moment {
        self.tell(now, "settled".to_owned());
        self.slowest = self.slowest.max(Duration::from_millis(now - since));
        if let Some((quiet, fault)) = next {
            return Moment::Quiet { until: now + quiet, fault };
        }
        on(&self.stage).checking = true;
        Moment::Checking
    }

    fn tell(&self, now: u64, what: String) {
        tracing::info!("{now} ms: {what}");
        on(&self.stage).history.push((now, what));
    }

    /// A node runs no more; what it did counts.
    fn retire(&self, node: usize) {
        let mut stage = on(&self.stage);
        if let Some(shared) = stage.running.remove(&node) {
            stage.taken_over += shared.tallies().taken_over;
            stage.filled += shared.tallies().filled;
            stage.fences += shared.tallies().fences;
        }
    }

    fn finish(self) -> Outcome {
        let nodes: Vec<usize> = on(&self.stage).running.keys().copied().collect();
        let why = unsettled(&on(&self.stage).running);
        assert_eq!(why, None, "the world is in order after the last look");
        for node in nodes {
            self.retire(node);
        }
        let mut stage = on(&self.stage);
        assert_eq!(stage.satisfied, CLIENTS, "every client came to its end");
        Outcome {
            seed: self.seed,
            counts: stage.counts,
            slowest: self.slowest,
            taken_over: stage.taken_over,
            filled: stage.filled,
            fences: stage.fences,
            history: std::mem::take(&mut stage.history),
            faults: self.script.faults.iter().map(|(_, fault)| *fault).collect(),
        }
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("a simulation is short")
}

/// Why the world is not in order: all nodes must be there and agree on one placement, each slot
/// must be acted for once and complete where it belongs, and its copies must be equal.
fn unsettled(running: &BTreeMap<usize, Arc<Shared>>) -> Option<String> {
    if running.len() < NODES {
        return Some(format!("only {} nodes run", running.len()));
    }
    let views: Vec<_> = running.values().map(|node| node.view()).collect();
    let first = views.first()?.placement.id();
    if views.iter().any(|view| view.placement.id() != first) {
        return Some("there are several placements".to_owned());
    }
    if views.iter().any(|view| view.placement.members().len() != NODES) {
        return Some("not every node has a place".to_owned());
    }
    let counts: Vec<_> = running.values().map(|node| node.slot_counts()).collect();
    let acting: usize = counts.iter().map(|counts| counts.acting).sum();
    let incomplete: usize = counts.iter().map(|counts| counts.incomplete).sum();
    if acting != usize::from(SLOTS) || incomplete > 0 {
        return Some(format!("{acting} slots are acted for, {incomplete} copies incomplete"));
    }
    let differing = differing_slots(running);
    (!differing.is_empty()).then(|| format!("copies differ in slots {differing:?}"))
}

/// A few slots that are not acted for once or not complete, and how the nodes have them.
fn odd_slots(running: &BTreeMap<usize, Arc<Shared>>) -> String {
    let mut states: BTreeMap<u16, Vec<(usize, SlotReport)>> = BTreeMap::new();
    for (node, shared) in running {
        for report in shared.slot_reports(Slot::all()) {
            states.entry(report.slot.get()).or_default().push((*node, report));
        }
    }
    states.retain(|_, copies| {
        copies.iter().filter(|(_, copy)| copy.acting).count() != 1
            || copies.iter().any(|(_, copy)| copy.owner.is_some() && !copy.complete)
    });
    let mut lines = Vec::new();
    for (slot, copies) in states.iter().take(4) {
        lines.push(format!("\n  slot {slot}:"));
        for (node, SlotReport { owner, acting, complete, keys, .. }) in copies {
            let facts = format!("owner {owner:?} acting {acting} complete {complete} keys {keys}");
            lines.push(format!(" n{node} {{{facts}}}"));
        }
    }
    lines.concat()
}

/// Slots that are not acted for by exactly one of two complete and equal copies.
fn differing_slots(running: &BTreeMap<usize, Arc<Shared>>) -> Vec<u16> {
    let mut copies: BTreeMap<u16, Vec<(u64, u64, bool)>> = BTreeMap::new();
    for node in running.values() {
        for report in node.slot_reports(Slot::all()).iter().filter(|it| it.owner.is_some()) {
            let copy = (report.digest, report.keys, report.acting);
            copies.entry(report.slot.get()).or_default().push(copy);
        }
    }
    let differs = |copies: &[(u64, u64, bool)]| {
        let acting = copies.iter().filter(|(.., acting)| *acting).count();
        let equal = copies.iter().all(|copy| (copy.0, copy.1) == (copies[0].0, copies[0].1));
        copies.len() != COPIES || acting != 1 || !equal
    };
    copies.into_iter().filter(|(_, copies)| differs(copies)).map(|(slot, _)| slot).collect()
}

/// A node's life, from a start to a crash.
async fn live(
    node: usize,
    seed: u64,
    script: Script,
    storage: MemoryStorage,
    stage: SharedStage,
) -> Result<(), Box<dyn std::error::Error>> {
    let elapsed = millis(turmoil::sim_elapsed().unwrap_or_default());
    let clock = Arc::new(SimulatedClock::new(EPOCH.saturating_add(elapsed)));
    let stop = Arc::new(Notify::new());
    let life = Life { clock: Arc::clone(&clock), stop: Arc::clone(&stop) };
    let seams = Seams {
        net: Net::Simulated,
        clock,
        rng: Randomness::from_seed(seed ^ elapsed.rotate_left(32)),
        storage: Arc::new(storage),
    };
    let handle = Node::start_in(config(node, &script), seams).await?;
    let shared = Arc::clone(handle.cluster());
    on(&stage).running.insert(node, shared);
    on(&stage).lives.insert(node, life);
    stop.notified().await;
    handle.shutdown().await;
    Ok(())
}

fn config(node: usize, script: &Script) -> Config {
    let own: IpAddr = turmoil::lookup(name(node));
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let at = |port| Some(SocketAddr::new(own, port));
    let name_of_node = name(node).parse().expect("a valid name");
    let mut config = Config::on_loopback(name_of_node, std::path::PathBuf::new());
    config.cluster.acks = Acks::All;
    config.cluster.acks_shortfall = script.shortfall;
    if script.short_grace {
        config.cluster.ring_grace = Duration::from_secs(2);
    }
    config.cluster.join = (0..NODES).map(|seed| format!("{}:{PEER_PORT}", name(seed))).collect();
    config.gossip.listen = any(GOSSIP_PORT);
    config.gossip.advertise = at(GOSSIP_PORT);
    config.peer.listen = any(PEER_PORT);
    config.peer.advertise = at(PEER_PORT);
    config.client.listen = vec![any(CLIENT_PORT)];
    config.client.cluster_listen = vec![any(CLUSTER_PORT)];
    config.client.advertise = at(CLIENT_PORT);
    config.client.cluster_advertise = at(CLUSTER_PORT);
    config
}

/// Writes through one node until told to stop, then reads everything it ever wrote through each.
async fn write_and_check(
    client: usize,
    seed: u64,
    stage: SharedStage,
) -> Result<(), Box<dyn std::error::Error>> {
    let address = |node| SocketAddr::new(turmoil::lookup(name(node)), CLIENT_PORT);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut story = Story::new(client);
    let mut own = Client::new(address(client % NODES));
    while !on(&stage).checking {
        let act = story.next_act(&mut rng);
        let told = Told::by(&own.run(&act.args()).await);
        let now = millis(turmoil::sim_elapsed().unwrap_or_default());
        on(&stage).history.push((now, format!("{act:?}: {told:?}")));
        tracing::debug!(?act, ?told, "client");
        story.note(&act, told);
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..25))).await;
    }
    tokio::time::sleep(STRAGGLING).await;
    for node in 0..NODES {
        check_through(&mut Client::new(address(node)), &story).await?;
    }
    let mut stage = on(&stage);
    stage.satisfied += 1;
    stage.counts.add(story.counts);
    Ok(())
}

async fn check_through(client: &mut Client, story: &Story) -> Result<(), std::io::Error> {
    let keys = story.keys();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let mut args = vec!["MGET"];
        args.extend(keys.iter().map(String::as_str));
        let Reply::Array(found) = client.run(&args).await? else { panic!("MGET gives an array") };
        for (key, value) in keys.iter().zip(found) {
            match value {
                Reply::Bulk(value) => story.check(key, Some(&String::from_utf8_lossy(&value))),
                Reply::Null => story.check(key, None),
                other => panic!("{key} is {other:?}"),
            }
        }
    }
    Ok(())
}
