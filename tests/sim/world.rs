//! Three nodes and a fourth that comes and goes, clients and troubles, in one simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chickadee::clock::SimulatedClock;
use chickadee::cluster::{Shared, SlotReport};
use chickadee::config::{Acks, AcksShortfall, Config};
use chickadee::net::Net;
use chickadee::node::{Node, Seams};
use chickadee::persist::MemoryStorage;
use chickadee::resp::Reply;
use chickadee::rng::Randomness;
use chickadee::types::{SLOTS, Slot, Term, WallMillis, Weight};
use chickadee::wire::hello::Protocols;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use turmoil::Sim;

use super::client::Client;
use super::faults::{FIRST_NODES, Fault, Kind, NODES, Names, Script, Trouble};
use super::story::{Claims, Counts, Story, Told};

/// As many at each of the first nodes.
const CLIENTS: usize = 2 * FIRST_NODES;
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
/// How often in a row everything must be found in order.
const CALM_LOOKS: u32 = 5;
/// The longest that the world may take to settle after a trouble has ended.
pub(crate) const SETTLING_MAX: Duration = Duration::from_secs(30);
/// How long a command of unknown outcome may still be under way.
const STRAGGLING: Duration = Duration::from_secs(3);
/// How soon a node with a wrong clock has handed over what it acts for.
const HANDING_OVER: Duration = Duration::from_secs(5);
/// How far a clock is wrong at least, where it is.
const SKEW_MIN_MILLIS: i64 = 6_000;
/// How often nodes write their snapshot files, where they do.
const SAVING: Duration = Duration::from_secs(2);
/// How old tombstones become, where they are forgotten.
const FORGETTING: Duration = Duration::from_secs(1);
/// The weight of a node that holds more than others.
const HEAVY: Weight = Weight::new(2).expect("a weight");
/// Keys that one `MGET` asks for.
const KEYS_AT_ONCE: usize = 50;

/// What became of a world.
#[derive(Debug, Serialize, Deserialize)]
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
    /// The nodes that belong to the cluster.
    wanted: BTreeSet<usize>,
    /// Nodes that were told to stop and have.
    stopped: BTreeSet<usize>,
    /// The clocks of their present lives, and how they are told to stop.
    lives: BTreeMap<usize, Life>,
    /// The clients are to stop writing and to check what they find.
    checking: bool,
    /// Everything was found in order after the clients' last look.
    over: bool,
    claims: Claims,
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
    leave: Arc<Notify>,
}

type SharedStage = Arc<Mutex<Stage>>;

fn on(stage: &SharedStage) -> MutexGuard<'_, Stage> {
    stage.lock().expect("whoever panics ends the world")
}

/// What the world waits for.
enum Moment {
    /// Everything comes to its place.
    Settling { since: u64, calm: u32 },
    /// The next trouble.
    Quiet { until: u64, trouble: Trouble },
    /// The trouble's end.
    Troubled { began: u64, faults: Vec<(Fault, Course)> },
    /// The clients' last look.
    Checking,
    /// Everything is in its place once more.
    Ending { since: u64 },
}

/// A copy of a slot: its digest, its number of keys, its term, and whether its node acts.
type Copy = (u64, u64, Term, bool);
/// Slots with their copies.
type Differing = BTreeMap<u16, Vec<Copy>>;

/// How far a fault has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Coming,
    Here,
    Over,
}

/// A world made from a seed.
pub(crate) struct World {
    seed: u64,
    script: Script,
    stage: SharedStage,
    names: Names,
    slowest: Duration,
    /// What differed at the last look.
    differing: Differing,
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self::scripted(seed, Script::draw(&mut StdRng::seed_from_u64(seed)))
    }

    /// A world with these troubles; the seed draws everything else.
    pub(crate) fn scripted(seed: u64, script: Script) -> Self {
        let stage = Stage { wanted: (0..FIRST_NODES).collect(), ..Stage::default() };
        Self {
            seed,
            script,
            stage: Arc::new(Mutex::new(stage)),
            names: Names {
                nodes: (0..NODES).map(name).collect(),
                clients: (0..CLIENTS).map(|client| format!("c{client}")).collect(),
            },
            slowest: Duration::ZERO,
            differing: Differing::new(),
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
        let mut coming = self.script.troubles.clone().into_iter();
        let (mut moment, mut looked) = (Moment::Settling { since: 0, calm: 0 }, 0);
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
        let stage = Arc::clone(&self.stage);
        sim.client("end", async move {
            while !on(&stage).over {
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY)).await;
            }
            Ok(())
        });
    }

    /// Looks at the world and goes on to its next moment.
    fn turn(
        &mut self,
        sim: &mut Sim<'_>,
        now: u64,
        moment: Moment,
        coming: &mut impl Iterator<Item = Trouble>,
    ) -> Moment {
        if self.script.is_whole() {
            let acting: usize =
                on(&self.stage).running.values().map(|it| it.acting_slots().len()).sum();
            assert!(acting <= usize::from(SLOTS), "after {now} ms {acting} slots are acted for");
        }
        match moment {
            Moment::Settling { since, calm } => match self.unsettled(now, since) {
                Some(_) => Moment::Settling { since, calm: 0 },
                None if calm + 1 < CALM_LOOKS => Moment::Settling { since, calm: calm + 1 },
                None => self.settled(now, since, coming.next()),
            },
            Moment::Quiet { until, trouble } if now >= until => {
                let faults = trouble.faults.into_iter().map(|it| (it, Course::Coming)).collect();
                Moment::Troubled { began: now, faults }
            }
            Moment::Troubled { began, faults } => self.go_on(sim, now, began, faults),
            Moment::Checking if on(&self.stage).satisfied == CLIENTS => {
                Moment::Ending { since: now }
            }
            Moment::Ending { since } => {
                if self.unsettled(now, since).is_none() && self.differing.is_empty() {
                    on(&self.stage).over = true;
                }
                moment
            }
            Moment::Quiet { .. } | Moment::Checking => moment,
        }
    }

    /// Lets the faults of a trouble begin, go on and end.
    fn go_on(
        &self,
        sim: &mut Sim<'_>,
        now: u64,
        began: u64,
        mut faults: Vec<(Fault, Course)>,
    ) -> Moment {
        for (fault, course) in &mut faults {
            let begins = began + fault.after;
            match course {
                Course::Coming if now >= begins => {
                    self.tell(now, format!("{fault:?} begins"));
                    self.begin(fault);
                    fault.begin(sim, &self.names);
                    *course = Course::Here;
                }
                Course::Here if now >= begins + fault.lasts && self.may_end(fault) => {
                    self.tell(now, format!("{fault:?} ends"));
                    self.end(fault);
                    fault.end(sim, &self.names);
                    *course = Course::Over;
                }
                Course::Here => fault.go_on(sim, &self.names, now - begins),
                Course::Coming | Course::Over => {}
            }
        }
        if faults.iter().all(|(_, course)| *course == Course::Over) {
            return Moment::Settling { since: now, calm: 0 };
        }
        Moment::Troubled { began, faults }
    }

    /// Whether a fault may end now: where there is no other copy a node is not killed in its stop.
    fn may_end(&self, fault: &Fault) -> bool {
        let is_patient = self.script.copies == 1 && fault.kind == Kind::Restart;
        !is_patient || on(&self.stage).stopped.contains(&fault.node)
    }

    /// What a fault does to the node itself.
    fn begin(&self, fault: &Fault) {
        let mut stage = on(&self.stage);
        match fault.kind {
            Kind::Crash => {
                drop(stage);
                self.retire(fault.node);
            }
            Kind::Restart => {
                stage.stopped.remove(&fault.node);
                stage.lives[&fault.node].stop.notify_one();
            }
            Kind::Join => {
                stage.wanted.insert(fault.node);
            }
            Kind::Leave => {
                stage.wanted.remove(&fault.node);
                stage.lives[&fault.node].leave.notify_one();
            }
            Kind::Skew => {
                let millis = SKEW_MIN_MILLIS + fault.lasts.cast_signed();
                let ahead = fault.lasts.is_multiple_of(2);
                stage.lives[&fault.node].clock.set_skew(if ahead { millis } else { -millis });
            }
            Kind::Cut
            | Kind::Flap
            | Kind::OneWay { .. }
            | Kind::Stall
            | Kind::Lag
            | Kind::Noise => {}
        }
    }

    fn end(&self, fault: &Fault) {
        match fault.kind {
            Kind::Restart => self.retire(fault.node),
            Kind::Stall => {
                let stage = on(&self.stage);
                stage.lives[&fault.node].clock.skip(Duration::from_millis(fault.lasts));
            }
            Kind::Skew => {
                let stage = on(&self.stage);
                let alone = self.script.troubles.iter().any(|it| it.faults == [*fault]);
                if alone && fault.lasts >= millis(HANDING_OVER) {
                    let acting = stage.running[&fault.node].acting_slots().len();
                    assert_eq!(acting, 0, "a node with a wrong clock acts");
                }
                stage.lives[&fault.node].clock.set_skew(0);
            }
            Kind::Crash
            | Kind::Cut
            | Kind::Flap
            | Kind::OneWay { .. }
            | Kind::Lag
            | Kind::Noise
            | Kind::Join
            | Kind::Leave => {}
        }
    }

    /// Why the world is not in order; panics if it has not been for too long. Copies that differ as
    /// they did at the last look are not equal; others may have a write on its way.
    fn unsettled(&mut self, now: u64, since: u64) -> Option<String> {
        let stage = on(&self.stage);
        let copies = usize::from(self.script.copies);
        let disorder = disorder(&stage.wanted, &stage.running);
        // A look at every slot is dear: the first one that is in order begins the comparison.
        let differing = match disorder {
            Some(_) => Differing::new(),
            None => differing_slots(&stage.running, copies),
        };
        let stuck: Vec<u16> = differing
            .iter()
            .filter(|(slot, copies)| self.differing.get(slot) == Some(copies))
            .map(|(slot, _)| *slot)
            .collect();
        self.differing = differing;
        let why = disorder.or_else(|| {
            (!stuck.is_empty())
                .then(|| format!("copies differ in slots {:?}", &stuck[..stuck.len().min(9)]))
        })?;
        if now >= since + millis(SETTLING_MAX) {
            let copies_of = |slot: &u16| format!("\n  slot {slot}: {:?}", self.differing.get(slot));
            let copied: String = stuck.iter().take(3).map(copies_of).collect();
            let entries = odd_entries(&stage.running, &stuck, copies);
            let slots = odd_slots(&stage.running) + &copied + &entries;
            panic!("not settled {SETTLING_MAX:?} after {since} ms: {why}{slots}");
        }
        Some(why)
    }

    fn settled(&mut self, now: u64, since: u64, next: Option<Trouble>) -> Moment {
        self.tell(now, "settled".to_owned());
        self.slowest = self.slowest.max(Duration::from_millis(now - since));
        if let Some(trouble) = next {
            return Moment::Quiet { until: now + trouble.quiet, trouble };
        }
        on(&self.stage).checking = true;
        Moment::Checking
    }

    fn tell(&self, now: u64, what: String) {
        tracing::info!("{now} ms: {what}");
        on(&self.stage).history.push((now, what));
    }

    fn retire(&self, node: usize) {
        retire(&mut on(&self.stage), node);
    }

    fn finish(self) -> Outcome {
        let nodes: Vec<usize> = on(&self.stage).running.keys().copied().collect();
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
            faults: self.script.faults().copied().collect(),
        }
    }
}

/// A node runs no more; what it did counts.
fn retire(stage: &mut Stage, node: usize) {
    if let Some(shared) = stage.running.remove(&node) {
        stage.taken_over += shared.tallies().taken_over;
        stage.filled += shared.tallies().filled;
        stage.fences += shared.tallies().fences;
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("a simulation is short")
}

/// Why the world is not in order: all nodes must be there and agree on one placement, and each slot
/// must be acted for once and complete where it belongs.
fn disorder(wanted: &BTreeSet<usize>, running: &BTreeMap<usize, Arc<Shared>>) -> Option<String> {
    if !running.keys().eq(wanted) {
        return Some(format!("nodes {:?} run, not {wanted:?}", running.keys()));
    }
    let views: Vec<_> = running.values().map(|node| node.view()).collect();
    let first = views.first()?.placement.id();
    if views.iter().any(|view| view.placement.id() != first) {
        return Some("there are several placements".to_owned());
    }
    if views.iter().any(|view| view.placement.members().len() != wanted.len()) {
        return Some("not every node has a place".to_owned());
    }
    let counts: Vec<_> = running.values().map(|node| node.slot_counts()).collect();
    let acting: usize = counts.iter().map(|counts| counts.acting).sum();
    let incomplete: usize = counts.iter().map(|counts| counts.incomplete).sum();
    if acting != usize::from(SLOTS) || incomplete > 0 {
        return Some(format!("{acting} slots are acted for, {incomplete} copies incomplete"));
    }
    None
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

/// The entries that one copy of a differing slot has and another has not.
fn odd_entries(running: &BTreeMap<usize, Arc<Shared>>, slots: &[u16], wanted: usize) -> String {
    let mut lines = Vec::new();
    for slot in slots.iter().take(2).copied().filter_map(Slot::new) {
        let mut copies: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (node, shared) in running {
            shared.store().lock(slot).scan(slot, 0, usize::MAX, &mut |_, entry| {
                copies.entry(format!("{:?}", entry.record())).or_default().push(*node);
            });
        }
        copies.retain(|_, nodes| nodes.len() < wanted);
        lines.extend(copies.iter().map(|(entry, nodes)| format!("\n  n{nodes:?} {entry}")));
    }
    lines.concat()
}

/// Slots that are not acted for by exactly one of as many equal copies as are wanted.
fn differing_slots(running: &BTreeMap<usize, Arc<Shared>>, wanted: usize) -> Differing {
    let mut by_slot = vec![Vec::with_capacity(wanted); usize::from(SLOTS)];
    for node in running.values() {
        for report in node.slot_reports(Slot::all()).iter().filter(|it| it.owner.is_some()) {
            let copy = (report.digest, report.keys, report.term, report.acting);
            by_slot[report.slot.index()].push(copy);
        }
    }
    let copies = (0..).zip(by_slot);
    let differing = copies.filter(|(_, copies)| {
        let acting = copies.iter().filter(|(.., acting)| *acting).count();
        let what = |copy: &Copy| (copy.0, copy.1, copy.2);
        let equal = copies.iter().all(|copy| what(copy) == what(&copies[0]));
        copies.len() != wanted || acting != 1 || !equal
    });
    differing.collect()
}

/// A node's life, from a start to a crash.
async fn live(
    node: usize,
    seed: u64,
    script: Script,
    storage: MemoryStorage,
    stage: SharedStage,
) -> Result<(), Box<dyn std::error::Error>> {
    if !on(&stage).wanted.contains(&node) {
        return Ok(());
    }
    let elapsed = millis(turmoil::sim_elapsed().unwrap_or_default());
    let clock = Arc::new(SimulatedClock::new(EPOCH.saturating_add(elapsed)));
    let (stop, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let life =
        Life { clock: Arc::clone(&clock), stop: Arc::clone(&stop), leave: Arc::clone(&leave) };
    let seams = Seams {
        net: Net::Simulated,
        clock,
        rng: Randomness::from_seed(seed ^ elapsed.rotate_left(32)),
        storage: Arc::new(storage),
        protocols: Protocols::OWN,
    };
    let handle = Node::start_in(config(node, &script), seams).await?;
    let shared = Arc::clone(handle.cluster());
    on(&stage).running.insert(node, shared);
    on(&stage).lives.insert(node, life);
    tokio::select! {
        biased;
        () = stop.notified() => {
            handle.shutdown().await;
            on(&stage).stopped.insert(node);
        }
        () = leave.notified() => {
            let _alone_held = handle.leave().await;
            retire(&mut on(&stage), node);
        }
    }
    Ok(())
}

fn config(node: usize, script: &Script) -> Config {
    let own: IpAddr = turmoil::lookup(name(node));
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let at = |port| Some(SocketAddr::new(own, port));
    let name_of_node = name(node).parse().expect("a valid name");
    let mut config = Config::on_loopback(name_of_node, std::path::PathBuf::new());
    config.cluster.acks = if script.quorum { Acks::Quorum } else { Acks::All };
    config.cluster.replicas = script.copies;
    config.cluster.acks_shortfall =
        if script.strict { AcksShortfall::Error } else { AcksShortfall::Accept };
    if script.short_grace {
        config.cluster.ring_grace = Duration::from_secs(2);
    }
    if script.forgetful {
        config.cluster.tombstone_grace = FORGETTING;
    }
    if script.saving {
        config.snapshot.interval = SAVING;
    }
    if script.lopsided {
        config.node.zone = if node.is_multiple_of(2) { "east" } else { "west" }.parse().ok();
        config.node.weight = if node == 1 { HEAVY } else { Weight::default() };
    }
    config.cluster.join =
        (0..FIRST_NODES).map(|seed| format!("{}:{PEER_PORT}", name(seed))).collect();
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
    let mut addresses: Vec<_> = (0..NODES).map(address).collect();
    addresses.rotate_left(client % FIRST_NODES);
    let mut own = Client::new(addresses);
    while !on(&stage).checking {
        let act = story.next_act(&mut rng, &mut on(&stage).claims);
        let told = Told::by(&own.run(&act.args()).await);
        let now = millis(turmoil::sim_elapsed().unwrap_or_default());
        on(&stage).history.push((now, format!("{act:?}: {told:?}")));
        tracing::debug!(?act, ?told, "client");
        story.note(&act, told);
        on(&stage).claims.note(&act, told);
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..25))).await;
    }
    tokio::time::sleep(STRAGGLING).await;
    let nodes = on(&stage).wanted.clone();
    for node in nodes {
        let mut client = Client::new(vec![address(node)]);
        let found = look_up(&mut client, &story.keys()).await?;
        for (key, value) in &found {
            story.check(key, value.as_deref());
        }
        let claims = on(&stage).claims.keys();
        let found = look_up(&mut client, &claims).await?;
        for (key, value) in &found {
            on(&stage).claims.check(key, value.as_deref());
        }
    }
    let mut stage = on(&stage);
    stage.satisfied += 1;
    stage.counts.add(story.counts);
    Ok(())
}

async fn look_up(
    client: &mut Client,
    keys: &[String],
) -> Result<Vec<(String, Option<String>)>, std::io::Error> {
    let mut all = Vec::new();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let mut args = vec!["MGET"];
        args.extend(keys.iter().map(String::as_str));
        let Reply::Array(found) = client.run(&args).await? else { panic!("MGET gives an array") };
        for (key, value) in keys.iter().zip(found) {
            let value = match value {
                Reply::Bulk(value) => Some(String::from_utf8_lossy(&value).into_owned()),
                Reply::Null => None,
                other => panic!("{key} is {other:?}"),
            };
            all.push((key.clone(), value));
        }
    }
    Ok(all)
}
