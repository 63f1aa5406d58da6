//! [`Membership`]: packets and timers in, packets and events out, foca in between.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Foca, Notification, Timer};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::config::GossipProfile;
use crate::limits::{ANNOUNCE_FANOUT, GOSSIP_DATAGRAM_MAX};
use crate::membership::backchannel::{Answered, SharedBackchannel};
use crate::membership::codec::PacketCodec;
use crate::membership::health::{Health, LATE};
use crate::membership::identity::order;
use crate::membership::member::{Change, Member, Table};
use crate::membership::notice::{NoticeHandler, removed_bytes};
use crate::membership::profile::config_for;
use crate::membership::refused::Refused;
use crate::membership::seal::{KeyRing, Sealer};
use crate::membership::timers::{Due, Timers};
use crate::metrics::{GossipMetrics, level};
use crate::types::{Generation, Identity, Instant, MemberState, NodeId};

/// How often a node looks after what foca gives up, and announces itself while it is alone.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How long a dead or left member is remembered.
const REMEMBERED: Duration = Duration::from_hours(24);

/// The removals of one member by all others are spread over this span by rank, so that the first
/// word reaches the rest before they say the same.
const REMOVAL_SPREAD: Duration = Duration::from_secs(2);

/// A suspicion heard of is decided by the hearer after this many times its span, so that the word
/// of the accuser or the refutation has had its time.
const SECOND_JUDGE: u32 = 2;

/// What a [`Membership`] is told at its start.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// Who this node is; its generation must be higher than at every start before.
    pub identity: Identity,
    /// The set of timings.
    pub profile: GossipProfile,
    /// How often one member is probed; `None` = the profile's (1 s in a LAN). What depends on it
    /// (probe timeout, suspicion, gossip) is scaled alike: half the interval finds a death in half
    /// the time, for twice the load.
    pub probe_interval: Option<Duration>,
    /// How long a dead member keeps its place on the ring.
    pub ring_grace: Duration,
}

/// A sealed datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The gossip address to send to.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What the owner of a [`Membership`] must know or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is new, or its state or identity changed: read it from [`Membership::member`].
    Member {
        /// The member.
        node: NodeId,
        /// Its state before; `None` if it was not known.
        before: Option<MemberState>,
    },
    /// The place of a dead member was given up; every ring changes.
    Removed {
        /// The member.
        node: NodeId,
        /// The generation that died.
        generation: Generation,
    },
    /// This node's own identity changed: keep its generation, the next start must be above it.
    Identity(Identity),
    /// This node refuted a suspicion of itself, or is back under a higher generation because it was
    /// taken for dead: others may have acted in its place.
    Refuted,
    /// A probe had no answer by gossip: ask the member over QUIC and hand its answer to
    /// [`Membership::handle_ping_answer`].
    FallbackPing {
        /// The member.
        node: NodeId,
        /// To be handed back with the answer.
        token: u64,
        /// The generation and incarnation under which this node suspects it, if it does; the
        /// member refutes when it hears of it.
        suspected: Option<(Generation, u16)>,
    },
    /// A packet came from a member that this node suspects: tell it over QUIC, so that it refutes
    /// at once and not when gossip gets there, which may be never.
    Accuse {
        /// The member.
        node: NodeId,
        /// The generation under which it is suspected.
        generation: Generation,
        /// The incarnation under which it is suspected.
        incarnation: u16,
    },
    /// This node and another disagree whether the member is dead: tell it over QUIC to renew.
    RenewNotice {
        /// The member.
        node: NodeId,
        /// It must choose a generation above this one.
        above: Generation,
    },
    /// The last leave gossip is out; nothing more will come.
    Left,
}

/// What a member answers to a ping over QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The generation that answers.
    pub generation: Generation,
    /// Its incarnation.
    pub incarnation: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Member,
    /// Saying goodbye this many more times.
    Leaving(u8),
    Left,
}

/// foca's outputs of one call.
#[derive(Default)]
pub(super) struct Outbox {
    sends: Vec<(SocketAddr, Vec<u8>)>,
    timers: Vec<(Timer<Identity>, Duration)>,
    defunct: bool,
}

impl foca::Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::Defunct => self.defunct = true,
            Notification::MemberUp(_)
            | Notification::MemberDown(_)
            | Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to.gossip, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((timer, after));
    }
}

pub(super) type Swim = Foca<Identity, PacketCodec, StdRng, NoticeHandler>;

/// The membership protocol of one node.
///
/// Three kinds of methods: *inputs* (`handle_*`), *commands* (plain verbs) and *outputs*
/// (`poll_*`). After every input or command drain [`poll_transmit`](Self::poll_transmit), then
/// [`poll_event`](Self::poll_event), then arm one timer for
/// [`poll_timeout`](Self::poll_timeout) and call [`handle_timeout`](Self::handle_timeout) when it
/// runs out. An owner that was held up hands in the waiting packets before the timeout: answers
/// that are there already must count.
pub struct Membership {
    pub(super) swim: Swim,
    pub(super) back: SharedBackchannel,
    pub(super) sealer: Sealer,
    pub(super) table: Table,
    pub(super) timers: Timers,
    pub(super) events: VecDeque<Event>,
    pub(super) life: Life,
    pub(super) ring_grace: Duration,
    pub(super) started: Instant,
    pub(super) first_generation: Generation,
    pub(super) last_renewal: Option<Instant>,
    /// A renewal that waits for its turn must be above this.
    pub(super) renewal_above: Option<Generation>,
    pub(super) notices: BTreeMap<NodeId, (Generation, Instant)>,
    transmits: VecDeque<Transmit>,
    health: Health,
    incarnation: u16,
    pub(super) refutations: u64,
    refused: Refused,
    /// Packets that opened, and how many of them before the probe under way.
    heard: u64,
    /// When suspects were told so.
    pub(super) accused: BTreeMap<NodeId, Instant>,
    heard_at_probe: u64,
    pub(super) sized_for: usize,
    pub(super) profile: GossipProfile,
    pub(super) probe_interval: Option<Duration>,
    rng: StdRng,
    pub(super) metrics: GossipMetrics,
}

impl Membership {
    /// A node that knows nobody. The seed must be different at every start: the key that seals
    /// packets is derived with it.
    pub fn new(
        options: MembershipOptions,
        key_ring: KeyRing,
        seed: u64,
        metrics: GossipMetrics,
        now: Instant,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        metrics.keys.set(level(key_ring.keys().count()));
        let back = SharedBackchannel::new(options.identity.clone());
        let first_generation = options.identity.generation;
        let swim = Foca::with_custom_broadcast(
            options.identity,
            config_for(options.profile, options.probe_interval, 1),
            StdRng::seed_from_u64(rng.next_u64()),
            PacketCodec::new(back.clone()),
            NoticeHandler::new(back.clone()),
        );
        let mut timers = Timers::default();
        // Two nodes that lost each other at the same instant must not call at the same instant.
        let phase = Duration::from_millis(rng.random_range(0..1000));
        timers.arm(now + HOUSEKEEPING + phase, Due::Housekeeping);
        Self {
            swim,
            back,
            sealer: Sealer::new(key_ring, rng.next_u64()),
            table: Table::default(),
            timers,
            events: VecDeque::new(),
            life: Life::Member,
            ring_grace: options.ring_grace,
            started: now,
            first_generation,
            last_renewal: None,
            renewal_above: None,
            notices: BTreeMap::new(),
            transmits: VecDeque::new(),
            health: Health::default(),
            incarnation: 0,
            refutations: 0,
            refused: Refused::default(),
            heard: 0,
            accused: BTreeMap::new(),
            heard_at_probe: 0,
            sized_for: 1,
            profile: options.profile,
            probe_interval: options.probe_interval,
            rng,
            metrics,
        }
    }

    /// Takes in a datagram. What does not open or is not understood is counted and dropped.
    pub fn handle_packet(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        if self.life != Life::Member {
            return;
        }
        self.metrics.packets_received.increment(1);
        self.metrics.bytes_received.increment(u64::try_from(datagram.len()).unwrap_or(u64::MAX));
        if datagram.len() > GOSSIP_DATAGRAM_MAX {
            self.metrics.rejected_oversize.increment(1);
            return;
        }
        let mut outbox = Outbox::default();
        let understood = match self.sealer.open(datagram) {
            Ok(packet) => self.swim.handle_data(packet, &mut outbox),
            Err(rejected) => {
                self.refused.note(now, from, rejected, &self.metrics);
                return;
            }
        };
        self.heard = self.heard.saturating_add(1);
        if let Err(error) = understood {
            self.metrics.rejected_malformed.increment(1);
            tracing::debug!(%from, %error, "gossip packet was not understood");
        }
        self.collect(now, outbox);
        self.accuse_sender(now);
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut on_time = true;
        while let Some((at, due)) = self.timers.take_due(now) {
            let late = now.saturating_since(at);
            if late > LATE && on_time {
                on_time = false;
                self.health.worse();
            }
            match due {
                Due::Foca(timer) => self.fire(now, late, timer),
                Due::Housekeeping => self.keep_house(now),
                Due::Judge(suspect, incarnation) => self.judge(now, late, suspect, incarnation),
                Due::Remove(node, generation) => self.remove_if_due(now, node, generation),
                Due::Renew => self.renew_if_wanted(now),
                Due::Leave => self.say_goodbye(now),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Runs foca and takes over what it puts out. An error means that foca found nothing to do.
    pub(super) fn drive(
        &mut self,
        now: Instant,
        run: impl FnOnce(&mut Swim, &mut Outbox) -> Result<(), foca::Error>,
    ) {
        let mut outbox = Outbox::default();
        if let Err(error) = run(&mut self.swim, &mut outbox) {
            tracing::debug!(%error, "foca refused");
        }
        self.collect(now, outbox);
    }

    fn collect(&mut self, now: Instant, outbox: Outbox) {
        for (to, packet) in outbox.sends {
            let bytes = self.sealer.seal(&packet);
            self.metrics.packets_sent.increment(1);
            self.metrics.bytes_sent.increment(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            self.transmits.push_back(Transmit { to, bytes });
        }
        self.watch_health();
        for (timer, after) in outbox.timers {
            let after = match &timer {
                Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                    self.health.stretch(after)
                }
                Timer::ChangeSuspectToDown { .. }
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_)
                | Timer::RemoveDown(_) => after,
            };
            self.timers.arm(now + after, Due::Foca(timer));
        }
        self.metrics.health_score.set(self.health.score());
        let news = self.swim.updates_backlog().saturating_add(self.swim.custom_broadcast_backlog());
        self.metrics.queue_length.set(level(news));
        let (dirty, heard) = self.back.with(|back| (back.take_dirty(), back.take_heard()));
        if dirty {
            self.scan(now);
        }
        for (node, generation) in heard {
            self.give_up_place(node, generation);
        }
        if outbox.defunct && self.life == Life::Member {
            let own = self.swim.identity().generation;
            self.renew(now, own);
        }
    }

    /// Draws the health score from how the last probe ended and from suspicions of this node.
    fn watch_health(&mut self) {
        let (finished, incarnation) =
            self.back.with(|back| (back.take_finished(), back.incarnation()));
        match finished {
            Some(Answered::Gossip) => {
                self.metrics.probe_ack.increment(1);
                self.health.better();
            }
            Some(Answered::Fallback) => {
                self.metrics.probe_fallback.increment(1);
                self.health.better();
            }
            Some(Answered::Never) => {
                self.metrics.probe_fail.increment(1);
                if self.heard == self.heard_at_probe {
                    self.health.worse();
                }
            }
            None => {}
        }
        if finished.is_some() {
            self.heard_at_probe = self.heard;
        }
        if incarnation > self.incarnation {
            self.metrics.refutations.increment(1);
            self.note_refuted();
            self.health.worse();
        }
        self.incarnation = incarnation;
    }

    /// Compares foca's members with the table: foca tells nothing of suspicions and refutations.
    fn scan(&mut self, now: Instant) {
        let own = self.swim.identity().clone();
        let mut changes = Vec::new();
        let mut ahead = None;
        for member in self.swim.iter_membership_state() {
            if member.id().node != own.node {
                changes.extend(self.table.take_over(now, member));
            } else if order(member.id(), &own).is_gt() {
                ahead = Some(member.id().generation);
            }
        }
        for change in changes {
            self.on_change(now, change);
        }
        let nodes = self.swim.num_members().saturating_add(1);
        if nodes != self.sized_for {
            self.sized_for = nodes;
            let config = config_for(self.profile, self.probe_interval, nodes);
            self.swim.set_config(config).expect("only numbers that foca lets change are changed");
        }
        if let Some(ahead) = ahead {
            // The cluster knows a later generation of this node than it knows itself.
            self.renew(now, ahead);
        }
    }

    fn on_change(&mut self, now: Instant, change: Change) {
        let Change { node, before, revived } = change;
        self.events.push_back(Event::Member { node, before });
        let Some(member) = self.table.get(node) else { return };
        let generation = member.identity.generation;
        // Of a member that was gone before this node heard of it nothing has changed.
        if before.map_or_else(|| !member.is_gone(), |before| before != member.state) {
            self.metrics.transitions(member.state).increment(1);
        }
        if member.state == MemberState::Suspect {
            let at = now + self.suspicion_span().saturating_mul(SECOND_JUDGE);
            self.timers.arm(at, Due::Judge(member.identity.clone(), member.incarnation));
        }
        if member.state == MemberState::Dead {
            if self.back.with(|back| back.is_removed(node, generation)) {
                self.give_up_place(node, generation);
            } else {
                let at = now + self.grace_of(node);
                self.timers.arm(at, Due::Remove(node, generation));
            }
        }
        if revived {
            // It was taken for dead here, and where it was not it went on to a later revision, which foca
            // takes for another member: its place is gone until it has a later generation.
            self.dispute(now, node, generation);
        }
    }

    /// How long this node waits before it gives up the place of a dead member.
    pub(super) fn grace_of(&self, node: NodeId) -> Duration {
        let own = self.swim.identity().node;
        let mut rank = 0_u32;
        let mut count = 1_u32;
        for member in self.table.iter().filter(|member| !member.is_gone()) {
            count = count.saturating_add(1);
            if member.identity.node < own && member.identity.node != node {
                rank = rank.saturating_add(1);
            }
        }
        let spread = REMOVAL_SPREAD.mul_f64(f64::from(rank) / f64::from(count));
        self.ring_grace.saturating_add(spread)
    }

    fn remove_if_due(&mut self, now: Instant, node: NodeId, generation: Generation) {
        let Some(member) = self.table.get(node) else { return };
        let same = member.identity.generation == generation && member.state == MemberState::Dead;
        if !same || member.removed {
            return;
        }
        let due = member.since + self.grace_of(node);
        if now < due {
            self.timers.arm(due, Due::Remove(node, generation));
        } else {
            self.note_removed(node, generation);
        }
    }

    /// Gives up the place of a dead member at once and gossips it.
    pub fn note_removed(&mut self, node: NodeId, generation: Generation) {
        if self.back.with(|back| back.note_removed(node, generation)) {
            self.swim
                .add_broadcast(&removed_bytes(node, generation))
                .expect("a notice is small and of a known kind");
        }
        self.give_up_place(node, generation);
    }

    pub(super) fn give_up_place(&mut self, node: NodeId, generation: Generation) {
        let concerns = |member: &Member| {
            member.state == MemberState::Dead && member.identity.generation <= generation
        };
        if self.table.get(node).is_some_and(concerns) && self.table.set_removed(node) {
            self.events.push_back(Event::Removed { node, generation });
        }
    }

    fn keep_house(&mut self, now: Instant) {
        self.timers.arm(now + HOUSEKEEPING, Due::Housekeeping);
        let old: Vec<Identity> = self
            .table
            .iter()
            .filter(|member| member.is_gone() && now.saturating_since(member.since) > REMEMBERED)
            .map(|member| member.identity.clone())
            .collect();
        // One that came back without a place, and was told so in vain.
        let homeless: Vec<_> = self
            .table
            .iter()
            .filter(|member| member.removed && !member.is_gone())
            .map(|member| (member.identity.node, member.identity.generation))
            .collect();
        for (node, generation) in homeless {
            self.dispute(now, node, generation);
        }
        for identity in old {
            self.table.remove(identity.node);
            self.notices.remove(&identity.node);
            self.accused.remove(&identity.node);
            self.drive(now, |swim, outbox| swim.handle_timer(Timer::RemoveDown(identity), outbox));
        }
        // foca stops every timer of its own when nobody is left, and would stay alone for ever.
        if self.swim.num_members() == 0 {
            self.announce_to_lost(now);
        }
    }

    /// Announces this node to some of the members that it holds for dead.
    pub(super) fn announce_to_lost(&mut self, now: Instant) {
        let mut lost: Vec<Identity> = self
            .table
            .iter()
            .filter(|member| member.state == MemberState::Dead)
            .map(|member| member.identity.clone())
            .collect();
        for _ in 0..ANNOUNCE_FANOUT {
            if lost.is_empty() {
                return;
            }
            let chosen = lost.swap_remove(self.rng.random_range(0..lost.len()));
            self.drive(now, |swim, outbox| swim.announce(chosen, outbox));
        }
    }
}
