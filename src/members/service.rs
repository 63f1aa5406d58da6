//! The task that owns the membership core, the metadata and the cluster facts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::audit::Seldom;
use crate::clock::sleep_until;
use crate::limits::{DATAGRAM_BATCH, GOSSIP_DATAGRAM_MAX, MEMBER_CALLS_MAX};
use crate::members::asking::{Line, Outcome};
use crate::members::exchange::FETCH_FIRST;
use crate::members::forming::Forming;
use crate::members::push_pull::{Metas, fingerprint};
use crate::members::{
    Command, MemberInfo, MemberTable, MembersOptions, MembersParts, VersionedKeys,
};
use crate::membership::{Event, Membership, MembershipOptions, Pong};
use crate::peers::Caller;
use crate::types::{ClusterFacts, Identity, Instant, MemberState, NodeId, NodeMeta, WallMillis};
use crate::wire::keys::KeyRingRecord;
use crate::wire::member::{MemberAnswer, MemberRequest};

/// How often a member exchanges states with a random member.
pub(super) const PUSH_PULL: Duration = Duration::from_secs(30);

/// How often a member tries a random dead member or absent seed.
pub(super) const LOST: Duration = Duration::from_secs(10);

/// How often a member asks all its absent seeds.
pub(super) const ABSENT: Duration = Duration::from_secs(30);

/// After an error of the gossip socket it is left alone for this long.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);

/// Outcomes and commands that are taken in for each batch of datagrams.
const INPUT_BATCH: usize = 64;

/// A prepared service, to be started with its parts.
pub struct MemberService {
    pub(super) options: MembersOptions,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) publisher: watch::Sender<Arc<MemberTable>>,
}

impl MemberService {
    /// Starts the service's task on the current runtime.
    pub fn start(self, parts: MembersParts) {
        let Self { options, commands, publisher } = self;
        let (sender, outcomes) = mpsc::channel(MEMBER_CALLS_MAX);
        let tasks = parts.tasks.clone();
        let task = Task::new(options, parts, publisher, sender);
        tasks.spawn("members", task.run(commands, outcomes));
    }
}

pub(super) struct Seed {
    pub(super) address: String,
    /// A call is under way.
    pub(super) asking: bool,
    /// Who answered there last.
    pub(super) node: Option<NodeId>,
}

/// When the rounds of a member are due next.
pub(super) struct Rounds {
    pub(super) look: Instant,
    pub(super) push_pull: Instant,
    pub(super) lost: Instant,
    pub(super) absent: Instant,
    pub(super) fetch: Option<Instant>,
    pub(super) fetch_pause: Duration,
}

/// Log lines that a node which asks again and again would repeat.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) waiting: Seldom,
    /// For whom this node waited when that was logged last.
    pub(super) waiting_said: String,
    /// This node was refused.
    pub(super) refused: Seldom,
    /// This node refused another one.
    pub(super) refusing: Seldom,
}

pub(super) struct Task {
    pub(super) core: Membership,
    pub(super) metas: Metas,
    pub(super) own: NodeMeta,
    pub(super) facts: ClusterFacts,
    pub(super) keys: VersionedKeys,
    /// `None` once this node is in a cluster.
    pub(super) forming: Option<Forming>,
    pub(super) waiting_for: String,
    pub(super) lines: Lines,
    pub(super) seeds: Vec<Seed>,
    pub(super) rounds: Rounds,
    pub(super) line: Line,
    pub(super) in_flight: usize,
    pub(super) outcomes: mpsc::Sender<Outcome>,
    pub(super) leaving: Vec<oneshot::Sender<()>>,
    pub(super) has_left: bool,
    pub(super) on_identity: Box<dyn Fn(&Identity) + Send + Sync>,
    pub(super) on_keys: Box<dyn Fn(&KeyRingRecord) + Send + Sync>,
    pub(super) publisher: watch::Sender<Arc<MemberTable>>,
    pub(super) changed: bool,
    /// When this node began to be a member of itself.
    pub(super) started: Instant,
    /// The wall clock at the origin of the monotonic one.
    pub(super) wall_origin: WallMillis,
    pub(super) socket_pause: Option<Instant>,
    pub(super) parts: MembersParts,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The seeds that were named, and the members last known where they are not among these.
fn all_seeds(named: Vec<String>, last_known: &[SocketAddr], own: SocketAddr) -> Vec<String> {
    let mut addresses = named;
    for known in last_known.iter().filter(|known| **known != own) {
        let known = known.to_string();
        if !addresses.contains(&known) {
            addresses.push(known);
        }
    }
    addresses
}

impl Task {
    pub(super) fn new(
        options: MembersOptions,
        parts: MembersParts,
        publisher: watch::Sender<Arc<MemberTable>>,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Self {
        let now = parts.clock.now();
        let me = options.identity.node;
        let core = Membership::new(
            MembershipOptions {
                identity: options.identity,
                profile: options.profile,
                probe_interval: options.probe_interval,
                ring_grace: options.facts.ring_grace,
            },
            options.keys.ring.clone(),
            parts.randomness.next_u64(),
            parts.metrics.clone(),
            now,
        );
        let addresses = all_seeds(options.seeds, &options.last_known, options.meta.peer);
        let forming = Forming::new(me, addresses.clone(), options.form, now);
        let seeds = addresses
            .into_iter()
            .map(|address| Seed { address, asking: false, node: None })
            .collect();
        let line = Line {
            peers: Arc::clone(&parts.peers),
            resolver: Arc::clone(&parts.resolver),
            codec: options.codec,
            own: me,
            own_peer: options.meta.peer,
        };
        // Members that start together should not push-pull together.
        let jitter =
            |span: Duration| span + Duration::from_millis(parts.randomness.below(millis(span)));
        let rounds = Rounds {
            look: now,
            push_pull: now + jitter(PUSH_PULL / 2),
            lost: now + jitter(LOST / 2),
            absent: now + jitter(ABSENT / 2),
            fetch: None,
            fetch_pause: FETCH_FIRST,
        };
        let own = NodeMeta { generation: core.identity().generation, ..options.meta };
        let mut metas = Metas::default();
        metas.merge(own.clone());
        let wall = parts.clock.wall().0;
        Self {
            core,
            metas,
            own,
            facts: options.facts,
            keys: options.keys,
            forming: Some(forming),
            waiting_for: String::new(),
            lines: Lines::default(),
            seeds,
            rounds,
            line,
            in_flight: 0,
            outcomes,
            leaving: Vec::new(),
            has_left: false,
            on_identity: options.on_identity,
            on_keys: options.on_keys,
            publisher,
            changed: true,
            started: now,
            wall_origin: WallMillis(wall.saturating_sub(millis(now.since_origin()))),
            socket_pause: None,
            parts,
        }
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut outcomes: mpsc::Receiver<Outcome>,
    ) {
        let mut stop = self.parts.tasks.stop_signal();
        let clock = Arc::clone(&self.parts.clock);
        let datagrams = Arc::clone(&self.parts.datagrams);
        let mut buffer = vec![0; GOSSIP_DATAGRAM_MAX + 1];
        loop {
            self.keep_time();
            self.settle();
            let wake = self.next_wake();
            let listening = self.socket_pause.is_none();
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                got = datagrams.receive(&mut buffer), if listening => {
                    self.take_datagrams(got, &mut buffer);
                }
                Some(outcome) = outcomes.recv() => self.take_outcome(outcome),
                Some(command) = commands.recv() => self.take_command(command),
                () = sleep_until(&*clock, wake) => {}
            }
            // The order above lets a flood of datagrams come first for ever; the others get their
            // share here.
            for _ in 0..INPUT_BATCH {
                let outcome = outcomes.try_recv().map(|outcome| self.take_outcome(outcome));
                let command = commands.try_recv().map(|command| self.take_command(command));
                if outcome.is_err() && command.is_err() {
                    break;
                }
            }
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    pub(super) fn is_formed(&self) -> bool {
        self.forming.is_none()
    }

    /// Takes in a datagram and those that wait behind it: what is here already counts before any
    /// timer does.
    pub(super) fn take_datagrams(
        &mut self,
        first: io::Result<(usize, SocketAddr)>,
        buffer: &mut [u8],
    ) {
        let now = self.now();
        let mut got = first;
        for _ in 0..DATAGRAM_BATCH {
            match got {
                Ok((length, from)) => {
                    if let Some(datagram) = buffer.get_mut(..length) {
                        self.core.handle_packet(now, from, datagram);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "gossip socket failed");
                    self.socket_pause = Some(now + SOCKET_PAUSE);
                    return;
                }
            }
            got = self.parts.datagrams.try_receive(buffer);
        }
    }

    pub(super) fn take_outcome(&mut self, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let now = self.now();
        match outcome {
            Outcome::Asked { seed, asked } => self.take_asked(now, seed, asked),
            Outcome::PushPull { with, answer } => match answer {
                Ok(MemberAnswer::Same) => self.parts.metrics.push_pulls.increment(1),
                Ok(MemberAnswer::State(state)) => {
                    self.parts.metrics.push_pulls.increment(1);
                    let theirs = fingerprint(&state);
                    self.merge(now, *state);
                    let ours = self.state();
                    if fingerprint(&ours) != theirs {
                        self.tell(with, MemberRequest::Push(Box::new(ours)));
                    }
                }
                Ok(_) | Err(_) => self.parts.metrics.push_pulls_failed.increment(1),
            },
            Outcome::Pinged { token, pong } => {
                if let Some(pong) = pong {
                    self.core.handle_ping_answer(now, token, pong);
                }
            }
            Outcome::Keys(Ok(MemberAnswer::Keys(theirs))) => self.merge_keys(&theirs),
            // An older program does not know the question; the next push-pull asks again.
            Outcome::Keys(Ok(_) | Err(_)) | Outcome::Told => {}
        }
    }

    pub(super) fn take_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Serve(from, request, answer) => {
                let answered = self.serve(now, from, request);
                let _caller_may_have_gone = answer.send(answered);
            }
            Command::SetPhase(phase) => self.core.set_phase(now, phase),
            Command::SetWeightZone(weight, zone) => self.core.set_weight_zone(now, weight, zone),
            Command::SetMeta(meta) => self.set_meta(*meta),
            Command::SetFacts(change, answer) => {
                let _caller_may_have_gone = answer.send(self.set_facts(now, change));
            }
            Command::Keys(answer) => {
                let _caller_may_have_gone = answer.send(self.keys.clone());
            }
            Command::ConfirmKeys(answer) => {
                let telling = self.tell_keys();
                self.spawn(async move {
                    let _caller_may_have_gone = answer.send(telling.unconfirmed().await);
                    Outcome::Told
                });
            }
            Command::ChangeKeys(revision, change, answer) => {
                let _caller_may_have_gone = answer.send(self.change_keys(revision, change));
            }
            Command::Leave(done) => {
                if self.has_left {
                    let _caller_may_have_gone = done.send(());
                } else {
                    self.leaving.push(done);
                    self.core.leave(now);
                }
            }
            Command::Form(answer) => {
                let forms = !self.is_formed();
                if forms {
                    self.form(now);
                }
                let _caller_may_have_gone = answer.send(forms);
            }
            Command::Forget(node, answer) => {
                let _caller_may_have_gone = answer.send(self.core.forget(now, node));
            }
            Command::Pulse(answer) => {
                let _caller_may_have_gone = answer.send(());
            }
        }
    }

    pub(super) fn serve(
        &mut self,
        now: Instant,
        from: Caller,
        request: MemberRequest,
    ) -> MemberAnswer {
        match request {
            MemberRequest::Join(join) => self.serve_join(now, from, *join),
            MemberRequest::PushPull { fingerprint: theirs } if self.is_formed() => {
                let state = self.state();
                if fingerprint(&state) == theirs {
                    MemberAnswer::Same
                } else {
                    MemberAnswer::State(Box::new(state))
                }
            }
            MemberRequest::Push(state) if self.is_formed() => {
                self.merge(now, *state);
                MemberAnswer::Done
            }
            MemberRequest::PushPull { .. } | MemberRequest::Push(_) => MemberAnswer::Busy,
            MemberRequest::Ping { suspected } => {
                let Pong { generation, incarnation } = self.core.handle_ping(now, suspected);
                MemberAnswer::Pong { generation, incarnation }
            }
            MemberRequest::Renew { above } => {
                self.core.renew(now, above);
                MemberAnswer::Done
            }
            MemberRequest::Keys(theirs) => {
                self.merge_keys(&theirs);
                MemberAnswer::Keys(Box::new(self.keys.to_record()))
            }
        }
    }

    /// Drains the core and publishes what changed.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(transmit) = self.core.poll_transmit() {
                if let Err(error) = self.parts.datagrams.send(transmit.to, &transmit.bytes) {
                    tracing::debug!(to = %transmit.to, %error, "gossip datagram was not sent");
                }
            }
            let Some(event) = self.core.poll_event() else { break };
            self.take_event(event);
        }
        if std::mem::take(&mut self.changed) {
            self.publish();
        }
    }

    pub(super) fn take_event(&mut self, event: Event) {
        match event {
            Event::Member { node, before } => self.take_member(node, before),
            Event::Removed { node, generation } => {
                self.changed = true;
                tracing::info!(%node, generation = generation.0, "member lost its place");
            }
            Event::Identity(identity) => {
                self.changed = true;
                (self.on_identity)(&identity);
                if self.own.generation != identity.generation {
                    self.own.generation = identity.generation;
                    self.metas.merge(self.own.clone());
                    self.push_pull_with_some();
                }
            }
            Event::Refuted => self.changed = true,
            Event::FallbackPing { node, token, suspected } => {
                self.ping(node, token, MemberRequest::Ping { suspected });
            }
            Event::Accuse { node, generation, incarnation } => {
                let suspected = Some((generation, incarnation));
                self.tell(node, MemberRequest::Ping { suspected });
            }
            Event::RenewNotice { node, above } => self.tell(node, MemberRequest::Renew { above }),
            Event::Left => {
                self.has_left = true;
                for done in self.leaving.drain(..) {
                    let _caller_may_have_gone = done.send(());
                }
            }
        }
    }

    pub(super) fn take_member(&mut self, node: NodeId, before: Option<MemberState>) {
        self.changed = true;
        let Some(member) = self.core.member(node) else { return };
        let (state, phase) = (member.state, member.identity.phase);
        let (generation, incarnation) = (member.identity.generation.0, member.incarnation);
        if before != Some(state) {
            tracing::info!(%node, %state, %phase, generation, incarnation, "member changed state");
        }
        if self.lacks_meta(member) && self.rounds.fetch.is_none() {
            self.rounds.fetch_pause = FETCH_FIRST;
            self.rounds.fetch = Some(self.now() + FETCH_FIRST);
        }
    }

    pub(super) fn publish(&mut self) {
        let me = self.own.node;
        self.metas.keep_only(|node| node == me || self.core.member(node).is_some());
        let since = |at: Instant| self.wall_origin.saturating_add(millis(at.since_origin()));
        let own = MemberInfo {
            identity: self.core.identity().clone(),
            state: if self.has_left { MemberState::Left } else { MemberState::Alive },
            since: since(self.started),
            removed: false,
            meta: self.metas.get(me).cloned(),
        };
        let mut members: Vec<MemberInfo> = self
            .core
            .members()
            .map(|member| MemberInfo {
                identity: member.identity.clone(),
                state: member.state,
                since: since(member.since),
                removed: member.removed,
                meta: self.metas.get(member.identity.node).cloned(),
            })
            .chain(std::iter::once(own))
            .collect();
        members.sort_unstable_by_key(|member| member.identity.node);
        let waiting_for = if self.is_formed() { String::new() } else { self.waiting_for.clone() };
        let facts = self.facts.clone();
        let formed = self.is_formed();
        let refutations = self.core.refutations();
        let table = MemberTable { me, members, facts, refutations, formed, waiting_for };
        self.publisher.send_replace(Arc::new(table));
    }
}
