//! Finding the cluster: asking seeds, answering those who ask, joining and forming.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::audit;
use crate::limits::{MEMBER_CALLS_MAX, MEMBERS_MAX};
use crate::members::admission::{admit, same_cluster};
use crate::members::asking::{Asked, Outcome};
use crate::members::facts::founding;
use crate::members::forming::{Decision, Forming, SeedState};
use crate::members::service::Task;
use crate::peers::Caller;
use crate::types::{Instant, MemberRecord, MemberState, NodeId, Phase};
use crate::wire::member::{
    ClusterState, Join, MEMBER_PROTOCOL, MemberAnswer, MemberRequest, Refusal,
};

/// How often a node that looks for a cluster asks its seeds.
const LOOKING: Duration = Duration::from_millis(500);

/// How long a node looks before it says so: seeds that are there have answered by then.
const QUIET: Duration = Duration::from_secs(2);

impl Task {
    pub(super) fn look(&mut self, now: Instant) {
        if self.rounds.look <= now {
            self.rounds.look = now + LOOKING;
            for index in 0..self.seeds.len() {
                if let Some(seed) = self.seeds.get(index).filter(|seed| !seed.asking) {
                    let address = seed.address.clone();
                    self.ask(Some(index), address);
                }
            }
        }
        match self.forming.as_mut().map(|forming| forming.decide(now)) {
            Some(Decision::Form) => self.form(now),
            Some(Decision::Wait(why)) => {
                if why != self.waiting_for {
                    self.waiting_for = why;
                    self.changed = true;
                }
                self.say_waiting(now);
            }
            None => {}
        }
    }

    /// Logs for whom this node waits, once its seeds had time to answer.
    fn say_waiting(&mut self, now: Instant) {
        let settled = self.forming.as_ref().is_some_and(|forming| forming.waited(now) >= QUIET);
        if settled
            && self.lines.waiting_said != self.waiting_for
            && self.lines.waiting.may(now).is_some()
        {
            self.lines.waiting_said.clone_from(&self.waiting_for);
            tracing::warn!(waiting_for = %self.waiting_for, "no cluster yet");
        }
    }

    pub(super) fn ask(&mut self, seed: Option<usize>, address: String) {
        if self.in_flight >= MEMBER_CALLS_MAX {
            return;
        }
        if let Some(seed) = seed.and_then(|seed| self.seeds.get_mut(seed)) {
            seed.asking = true;
        }
        let join = Join {
            protocol: MEMBER_PROTOCOL,
            cluster: self.facts.name.clone(),
            identity: self.core.identity().clone(),
            incarnation: 0,
            meta: self.own.clone(),
            formed: self.is_formed(),
            first: self.forming.as_ref().is_some_and(Forming::is_first),
        };
        let request = (self.line.codec.encode)(MemberRequest::Join(Box::new(join)));
        // A member asks only where nobody is known; a node that looks asks everywhere.
        let alive = if self.is_formed() { self.alive_addresses() } else { Arc::default() };
        let asking = self.line.clone().ask_seed(address, request, alive);
        self.spawn(async move { Outcome::Asked { seed, asked: asking.await } });
    }

    pub(super) fn alive_addresses(&self) -> Arc<[SocketAddr]> {
        let alive = self.core.members().filter(|member| !member.is_gone());
        alive.filter_map(|m| self.metas.get(m.identity.node).map(|meta| meta.peer)).collect()
    }

    pub(super) fn take_asked(&mut self, now: Instant, index: Option<usize>, asked: Asked) {
        let Asked { myself, present, answers, failure } = asked;
        let mut state = match (myself, failure) {
            (true, _) => SeedState::Myself,
            (false, Some(why)) => SeedState::Failed(why),
            (false, None) => SeedState::Failed("no answer".to_owned()),
        };
        let mut who = myself.then_some(self.own.node);
        for (node, answer) in answers {
            match answer {
                MemberAnswer::Joined(cluster) => {
                    who = Some(node);
                    self.take_joined(now, node, *cluster);
                }
                MemberAnswer::Starter { node, first } => {
                    if let Some(forming) = &mut self.forming {
                        forming.note_starter(now, node, first);
                    }
                    if state != SeedState::Myself {
                        state = SeedState::Starter;
                    }
                }
                MemberAnswer::Refused(refusal) => {
                    self.parts.metrics.joins_failed.increment(1);
                    if self.lines.refused.may(now).is_some() {
                        tracing::warn!(seed = %node, %refusal, "seed refused this node");
                    }
                    state = SeedState::Failed(refusal.to_string());
                }
                MemberAnswer::Same
                | MemberAnswer::State(_)
                | MemberAnswer::Pong { .. }
                | MemberAnswer::Done
                | MemberAnswer::Keys(_)
                | MemberAnswer::Busy => state = SeedState::Failed("busy".to_owned()),
            }
        }
        let Some(index) = index else { return };
        if let Some(seed) = self.seeds.get_mut(index) {
            seed.asking = false;
            if !present {
                seed.node = who;
            }
        }
        if let Some(forming) = &mut self.forming {
            forming.note_seed(index, state);
        }
    }

    /// Takes in the cluster that a seed is a member of.
    pub(super) fn take_joined(&mut self, now: Instant, seed: NodeId, cluster: ClusterState) {
        if cluster.facts.name != self.facts.name || cluster.records.len() > MEMBERS_MAX {
            tracing::warn!(%seed, "answer of a seed is not usable");
            return;
        }
        if self.is_formed() {
            self.merge(now, cluster);
            let state = self.state();
            self.tell(seed, MemberRequest::Push(Box::new(state)));
            return;
        }
        self.forming = None;
        self.changed = true;
        self.parts.metrics.joins.increment(1);
        let me = self.own.node;
        let before = cluster.records.iter().find(|record| record.identity.node == me);
        let keeps_place = before.is_some_and(|record| {
            record.identity.phase.on_ring() && record.state != MemberState::Left && !record.removed
        });
        let phase = if keeps_place { Phase::Returning } else { Phase::Joining };
        let members = cluster.records.len();
        self.facts = cluster.facts.clone();
        self.core.set_ring_grace(now, self.facts.ring_grace);
        let announced = cluster.records.first().map(|record| record.identity.clone());
        self.merge(now, cluster);
        if matches!(self.core.identity().phase, Phase::Joining | Phase::Returning) {
            self.core.set_phase(now, phase);
        }
        tracing::info!(cluster = %self.facts.name, %seed, members, %phase, "joined the cluster");
        if let Some(identity) = announced {
            self.core.announce(now, identity);
        }
        // Gossip may be sealed with a key that this node does not have.
        self.exchange_keys(seed);
        self.push_pull_with_some();
    }

    pub(super) fn form(&mut self, now: Instant) {
        self.facts = founding(&self.facts, self.own.node);
        self.forming = None;
        self.changed = true;
        self.core.set_ring_grace(now, self.facts.ring_grace);
        // Nobody is there to fill from.
        self.core.set_phase(now, Phase::Active);
        tracing::info!(cluster = %self.facts.name, "formed the cluster");
    }

    /// Asks the seeds behind which no living member is known: whoever comes up there, or was parted
    /// from this cluster, is found again.
    pub(super) fn ask_absent(&mut self) {
        let mut present: BTreeSet<NodeId> = self
            .core
            .members()
            .filter(|member| !member.is_gone())
            .map(|member| member.identity.node)
            .collect();
        present.insert(self.own.node);
        for index in 0..self.seeds.len() {
            let absent = self.seeds.get(index).filter(|seed| {
                !seed.asking && seed.node.is_none_or(|node| !present.contains(&node))
            });
            if let Some(seed) = absent {
                let address = seed.address.clone();
                self.ask(Some(index), address);
            }
        }
    }

    pub(super) fn serve_join(&mut self, now: Instant, from: Caller, join: Join) -> MemberAnswer {
        let node = join.identity.node;
        if from.node != node || join.meta.node != node {
            if let Some(others) = self.lines.refusing.may(now) {
                let (caller, text) = (from.node, "join under another node id refused");
                tracing::warn!(target: audit::TARGET, %caller, %node, others, text);
            }
            return MemberAnswer::Busy;
        }
        if let Err(refusal) = same_cluster(&join, &self.facts) {
            return self.refuse(now, &join, refusal);
        }
        if !self.leaving.is_empty() || self.has_left {
            return MemberAnswer::Refused(Refusal::Leaving);
        }
        if let Some(forming) = &mut self.forming {
            let (me, first) = (self.own.node, forming.is_first());
            if join.formed {
                // A member looks for its absent seed, which is this node: it is asked at once.
                self.ask(None, join.meta.peer.to_string());
            } else {
                forming.note_starter(now, node, join.first);
            }
            return MemberAnswer::Starter { node: me, first };
        }
        match admit(&join, &self.core, &self.own, &self.metas) {
            Err(refusal) => self.refuse(now, &join, refusal),
            Ok(replaced) => {
                if let Some(dead) = replaced {
                    self.core.forget(now, dead);
                }
                let before = self.state();
                self.metas.merge(join.meta);
                self.core.apply_records(
                    now,
                    &[MemberRecord {
                        identity: join.identity,
                        incarnation: join.incarnation,
                        state: MemberState::Alive,
                        removed: false,
                        meta: None,
                    }],
                );
                self.changed = true;
                MemberAnswer::Joined(Box::new(before))
            }
        }
    }
    fn refuse(&mut self, now: Instant, join: &Join, refusal: Refusal) -> MemberAnswer {
        if let Some(others) = self.lines.refusing.may(now) {
            let (node, peer) = (join.identity.node, join.meta.peer);
            tracing::warn!(target: audit::TARGET, %node, %peer, %refusal, others, "join refused");
        }
        MemberAnswer::Refused(refusal)
    }
}
