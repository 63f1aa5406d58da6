//! A virtual network of membership cores: discrete events, one seed, no clock.
//!
//! Datagrams take 0.1 to 1 ms and are lost with a set probability. What the service does over QUIC
//! (hello, push-pull, fallback ping, renew notice) goes the same way but is never lost: each lost
//! packet costs it a retransmission of 100 ms, doubling. Cut-off nodes hear nothing. The merging is
//! the cores' own.

mod goals;
mod hostile;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::{core, identity};
use super::*;
use crate::types::{Generation, Instant, MemberRecord, MemberState, NodeId};

const PUSH_PULL_ALIVE: Duration = Duration::from_secs(30);
const PUSH_PULL_DEAD: Duration = Duration::from_secs(10);

/// IP and UDP headers, counted with what is sealed.
const DATAGRAM_HEADERS: usize = 28;

enum Happening {
    Datagram { to: usize, from: SocketAddr, bytes: Vec<u8> },
    Wake { node: usize, life: u32 },
    Ping { from: usize, to: usize, token: u64, suspected: Option<(Generation, u16)> },
    Pong { to: usize, token: u64, pong: Pong },
    PushPull { node: usize, life: u32, with_dead: bool },
    Records { from: usize, to: usize, records: Vec<MemberRecord>, answer: bool },
    Notice { to: usize, above: Generation },
}

struct Host {
    core: Option<Membership>,
    /// Starts of this host; what was armed for an earlier one is void.
    life: u32,
    /// The earliest wake-up that is queued.
    wake: Option<Instant>,
    generation: u64,
    /// Hosts hear each other only within one side.
    side: u8,
    sent: u64,
    sent_bytes: u64,
}

/// A state that one node saw another come into.
#[derive(Clone, Debug)]
struct Sighting {
    at: Instant,
    observer: usize,
    node: usize,
    state: MemberState,
    /// Whether it was wrong: dead, though the very generation lives and can be reached.
    wrong: bool,
}

struct Network {
    now: Instant,
    queued: u64,
    queue: BTreeMap<(Instant, u64), Happening>,
    hosts: Vec<Host>,
    rng: StdRng,
    loss: f64,
    /// Whether push-pull, fallback pings and notices work.
    quic: bool,
    sightings: Vec<Sighting>,
    renewals: u32,
    removed: Vec<(Instant, usize, usize)>,
    left: Vec<usize>,
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.0 >> 64).unwrap()
}

fn index_of(addr: SocketAddr) -> usize {
    let SocketAddr::V4(addr) = addr else { panic!("the simulated network is IPv4") };
    let [_, _, high, low] = addr.ip().octets();
    usize::from(u16::from_be_bytes([high, low]))
}

impl Network {
    fn new(seed: u64) -> Self {
        Self {
            now: Instant::ORIGIN,
            queued: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            quic: true,
            sightings: Vec::new(),
            renewals: 0,
            removed: Vec::new(),
            left: Vec::new(),
        }
    }

    /// A cluster of `nodes` that know each other, settled for ten seconds.
    fn cluster(nodes: usize, seed: u64) -> Self {
        let mut net = Self::new(seed);
        for node in 0..nodes {
            net.add();
            net.start(node);
        }
        let all: Vec<MemberRecord> = (0..nodes).map(|node| net.own_record(node)).collect();
        for node in 0..nodes {
            net.with(node, |core, now| core.apply_records(now, &all));
            // Real nodes do not probe and gossip in step.
            let most = 1_000_000 / u64::try_from(nodes).unwrap();
            let pause = Duration::from_micros(net.rng.random_range(0..=most));
            net.run(pause);
        }
        net.run(Duration::from_secs(10));
        net.forget_history();
        net
    }

    fn forget_history(&mut self) {
        self.sightings.clear();
        self.renewals = 0;
        for host in &mut self.hosts {
            (host.sent, host.sent_bytes) = (0, 0);
        }
    }

    fn add(&mut self) -> usize {
        self.hosts.push(Host {
            core: None,
            life: 0,
            wake: None,
            generation: 0,
            side: 0,
            sent: 0,
            sent_bytes: 0,
        });
        self.hosts.len() - 1
    }

    fn core(&self, node: usize) -> &Membership {
        self.hosts[node].core.as_ref().unwrap()
    }

    fn own_record(&self, node: usize) -> MemberRecord {
        self.core(node).records().remove(0)
    }

    /// Starts a host at a higher generation than ever before.
    fn start(&mut self, node: usize) {
        let seed = self.rng.random();
        let now = self.now;
        let host = &mut self.hosts[node];
        host.life += 1;
        host.wake = None;
        let millis = u64::try_from(now.since_origin().as_millis()).unwrap();
        host.generation = (host.generation + 1).max(1_000_000 + millis);
        let identity = identity(u16::try_from(node).unwrap(), host.generation);
        host.core = Some(core(identity, seed, now));
        let life = host.life;
        for (with_dead, every) in [(false, PUSH_PULL_ALIVE), (true, PUSH_PULL_DEAD)] {
            let after = every.mul_f64(self.rng.random_range(0.0..1.0));
            self.queue_in(after, Happening::PushPull { node, life, with_dead });
        }
        self.settle(node);
    }

    /// The hello of a joiner: it brings the members, and the seed learns of the joiner.
    fn join(&mut self, node: usize, seed: usize) {
        let records = self.core(seed).records();
        let joiner = self.own_record(node);
        let seed_identity = self.core(seed).identity().clone();
        self.with(seed, |core, now| core.apply_records(now, &[joiner]));
        self.with(node, |core, now| {
            core.apply_records(now, &records);
            core.announce(now, seed_identity);
        });
    }

    fn crash(&mut self, node: usize) {
        self.hosts[node].core = None;
    }

    fn with<T>(&mut self, node: usize, f: impl FnOnce(&mut Membership, Instant) -> T) -> T {
        let now = self.now;
        let result = f(self.hosts[node].core.as_mut().unwrap(), now);
        self.settle(node);
        result
    }

    fn queue_in(&mut self, after: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), happening);
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(100..1000))
    }

    /// How long one QUIC packet takes to get through, retransmissions included.
    fn reliable_latency(&mut self) -> Duration {
        let mut after = self.latency();
        let mut retransmission = Duration::from_millis(100);
        while self.rng.random_bool(self.loss) {
            after += retransmission;
            retransmission *= 2;
        }
        after
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.hosts[to].core.is_some()
            && self.hosts[from].core.is_some()
            && self.hosts[from].side == self.hosts[to].side
    }

    /// Drains a core, as its owner must after every call.
    fn settle(&mut self, node: usize) {
        let Some(mut core) = self.hosts[node].core.take() else { return };
        let own_addr = core.identity().gossip;
        while let Some(Transmit { to, bytes }) = core.poll_transmit() {
            let to = index_of(to);
            let host = &mut self.hosts[node];
            host.sent += 1;
            host.sent_bytes += u64::try_from(bytes.len() + DATAGRAM_HEADERS).unwrap();
            let side = host.side;
            let heard = self.hosts.get(to).is_some_and(|host| host.side == side);
            if heard && !self.rng.random_bool(self.loss) {
                let after = self.latency();
                self.queue_in(after, Happening::Datagram { to, from: own_addr, bytes });
            }
        }
        while let Some(event) = core.poll_event() {
            self.note(node, &core, event);
        }
        let next = core.poll_timeout();
        let host = &mut self.hosts[node];
        host.core = Some(core);
        if let Some(next) = next
            && host.wake.is_none_or(|wake| next < wake)
        {
            host.wake = Some(next);
            let life = host.life;
            self.queue_in(next.saturating_since(self.now), Happening::Wake { node, life });
        }
    }

    fn note(&mut self, observer: usize, core: &Membership, event: Event) {
        match event {
            Event::Member { node, .. } => {
                let Some(member) = core.member(node) else { return };
                let (node, state) = (index(node), member.state);
                let host = &self.hosts[node];
                let lives = host.core.as_ref().is_some_and(|core| {
                    core.identity().generation == member.identity.generation
                        && host.side == self.hosts[observer].side
                });
                let wrong = state == MemberState::Dead && lives;
                self.sightings.push(Sighting { at: self.now, observer, node, state, wrong });
            }
            Event::Removed { node, .. } => self.removed.push((self.now, observer, index(node))),
            Event::Identity(identity) => {
                let host = &mut self.hosts[observer];
                if identity.generation.0 != host.generation {
                    self.renewals += 1;
                }
                host.generation = identity.generation.0;
            }
            Event::Refuted => {}
            Event::FallbackPing { node, token, suspected } => {
                if self.quic {
                    let after = self.reliable_latency();
                    let to = index(node);
                    let ping = Happening::Ping { from: observer, to, token, suspected };
                    self.queue_in(after, ping);
                }
            }
            Event::Accuse { node, generation, incarnation } => {
                if self.quic {
                    let (to, suspected) = (index(node), Some((generation, incarnation)));
                    let ping = Happening::Ping { from: observer, to, token: 0, suspected };
                    let after = self.reliable_latency();
                    self.queue_in(after, ping);
                }
            }
            Event::RenewNotice { node, above } => {
                let to = index(node);
                if self.quic && self.hosts[to].side == self.hosts[observer].side {
                    let after = self.reliable_latency();
                    self.queue_in(after, Happening::Notice { to, above });
                }
            }
            Event::Left => self.left.push(observer),
        }
    }

    /// Lets the next thing happen, unless it lies behind `end`.
    fn step(&mut self, end: Instant) -> bool {
        let Some(entry) = self.queue.first_entry() else { return false };
        let (at, _) = *entry.key();
        if at > end {
            return false;
        }
        let happening = entry.remove();
        self.now = at;
        self.happen(happening);
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { to, from, mut bytes } => {
                if self.hosts[to].core.is_some() {
                    self.with(to, |core, now| core.handle_packet(now, from, &mut bytes));
                }
            }
            Happening::Wake { node, life } => {
                let host = &mut self.hosts[node];
                if host.core.is_some() && host.life == life {
                    host.wake = None;
                    self.with(node, Membership::handle_timeout);
                }
            }
            Happening::Ping { from, to, token, suspected } => {
                if self.reaches(from, to) {
                    let pong = self.with(to, |core, now| core.handle_ping(now, suspected));
                    let after = self.reliable_latency();
                    self.queue_in(after, Happening::Pong { to: from, token, pong });
                }
            }
            Happening::Pong { to, token, pong } => {
                if self.hosts[to].core.is_some() {
                    self.with(to, |core, now| core.handle_ping_answer(now, token, pong));
                }
            }
            Happening::PushPull { node, life, with_dead } => {
                if self.hosts[node].core.is_some() && self.hosts[node].life == life {
                    self.push_pull(node, life, with_dead);
                }
            }
            Happening::Records { from, to, records, answer } => {
                if self.reaches(from, to) {
                    let own = self.core(to).records();
                    self.with(to, |core, now| core.apply_records(now, &records));
                    if answer {
                        let after = self.reliable_latency();
                        let back =
                            Happening::Records { from: to, to: from, records: own, answer: false };
                        self.queue_in(after, back);
                    }
                }
            }
            Happening::Notice { to, above } => {
                if self.hosts[to].core.is_some() {
                    self.with(to, |core, now| core.renew(now, above));
                }
            }
        }
    }

    fn push_pull(&mut self, node: usize, life: u32, with_dead: bool) {
        let every = if with_dead { PUSH_PULL_DEAD } else { PUSH_PULL_ALIVE };
        self.queue_in(every, Happening::PushPull { node, life, with_dead });
        let wanted = |state| match state {
            MemberState::Alive | MemberState::Suspect => !with_dead,
            MemberState::Dead => with_dead,
            MemberState::Left => false,
        };
        let partners: Vec<usize> = self
            .core(node)
            .members()
            .filter(|member| wanted(member.state))
            .map(|member| index(member.identity.node))
            .collect();
        if partners.is_empty() || !self.quic {
            return;
        }
        let to = partners[self.rng.random_range(0..partners.len())];
        let records = self.core(node).records();
        let after = self.reliable_latency();
        self.queue_in(after, Happening::Records { from: node, to, records, answer: true });
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done` holds, at most `span`; how long it took.
    fn run_until(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + span);
        loop {
            if done(self) {
                return Some(self.now.saturating_since(start));
            }
            if !self.step(end) {
                return None;
            }
        }
    }

    fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|node| self.hosts[*node].core.is_some())
    }

    /// Whether every living node sees `node` in `state`.
    fn all_see(&self, node: usize, state: MemberState) -> bool {
        self.alive().filter(|observer| *observer != node).all(|observer| {
            self.core(observer)
                .members()
                .any(|member| index(member.identity.node) == node && member.state == state)
        })
    }

    /// Whether every living node sees exactly the living nodes alive, under their true identities.
    fn is_exact(&self) -> bool {
        let living: Vec<usize> = self.alive().collect();
        living.iter().all(|observer| {
            let mut seen = 0;
            for member in self.core(*observer).members().filter(|member| !member.is_gone()) {
                let truth = self.hosts[index(member.identity.node)].core.as_ref();
                let exact = truth.is_some_and(|core| core.identity() == &member.identity);
                if !exact || member.state != MemberState::Alive {
                    return false;
                }
                seen += 1;
            }
            seen + 1 == living.len()
        })
    }

    fn count(&self, state: MemberState) -> usize {
        self.sightings.iter().filter(|seen| seen.state == state).count()
    }
}
