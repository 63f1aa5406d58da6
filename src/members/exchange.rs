//! A member's calls and rounds: push-pull of states, pings, notices.

use std::time::Duration;

use crate::limits::{MEMBER_CALLS_MAX, MEMBERS_MAX, PUSH_PULL_FANOUT};
use crate::members::asking::{CALL_BUDGET, Outcome, PING_BUDGET, Target};
use crate::members::push_pull::{fingerprint, state_of};
use crate::members::service::{ABSENT, LOST, PUSH_PULL, Task};
use crate::members::{FactsChange, FactsError};
use crate::membership::{Member, Pong};
use crate::types::{ClusterFacts, Instant, MemberState, NodeId, NodeMeta};
use crate::wire::member::{ClusterState, MemberAnswer, MemberRequest};

/// How soon metadata that is missing is asked for; doubled at each try up to the second.
pub(super) const FETCH_FIRST: Duration = Duration::from_millis(50);
const FETCH_LAST: Duration = Duration::from_secs(5);

impl Task {
    pub(super) fn state(&self) -> ClusterState {
        state_of(&self.core, &self.metas, &self.facts)
    }

    pub(super) fn merge(&mut self, now: Instant, state: ClusterState) {
        if state.facts.name != self.facts.name || state.records.len() > MEMBERS_MAX {
            return;
        }
        let mut records = state.records;
        for record in &mut records {
            let node = record.identity.node;
            if let Some(meta) = record.meta.take().filter(|meta| meta.node == node)
                && node != self.own.node
            {
                self.changed |= self.metas.merge(meta);
            }
        }
        self.core.apply_records(now, &records);
        if state.facts.supersedes(&self.facts) {
            self.adopt_facts(now, state.facts);
        }
    }

    pub(super) fn adopt_facts(&mut self, now: Instant, facts: ClusterFacts) {
        tracing::info!(revision = facts.revision, "cluster facts changed");
        self.facts = facts;
        self.core.set_ring_grace(now, self.facts.ring_grace);
        self.changed = true;
    }

    pub(super) fn set_facts(
        &mut self,
        now: Instant,
        change: FactsChange,
    ) -> Result<ClusterFacts, FactsError> {
        if !self.is_formed() {
            return Err(FactsError::NotFormed);
        }
        let facts = change.apply(&self.facts, self.own.node)?;
        self.adopt_facts(now, facts.clone());
        self.push_pull_with_some();
        Ok(facts)
    }

    pub(super) fn set_meta(&mut self, meta: NodeMeta) {
        let revision = self.own.revision.saturating_add(1);
        let (node, generation) = (self.own.node, self.own.generation);
        self.own = NodeMeta { node, generation, revision, ..meta };
        self.line.own_peer = self.own.peer;
        self.changed |= self.metas.merge(self.own.clone());
        self.push_pull_with_some();
    }

    pub(super) fn spawn(&mut self, call: impl Future<Output = Outcome> + Send + 'static) {
        self.in_flight = self.in_flight.saturating_add(1);
        let outcomes = self.outcomes.clone();
        self.parts.tasks.spawn("member call", async move {
            let _service_may_have_stopped = outcomes.send(call.await).await;
        });
    }

    pub(super) fn target(&self, node: NodeId) -> Option<Target> {
        if self.core.member(node).is_some_and(|member| !member.is_gone()) {
            return Some(Target::Member(node));
        }
        self.metas.get(node).map(|meta| Target::At(node, meta.peer))
    }

    pub(super) fn tell(&mut self, node: NodeId, request: MemberRequest) {
        if let Some(target) = self.target(node).filter(|_| self.in_flight < MEMBER_CALLS_MAX) {
            let call = self.line.clone().call(target, request, CALL_BUDGET);
            self.spawn(async move {
                if let Err(error) = call.await {
                    tracing::debug!(%node, %error, "peer was not told");
                }
                Outcome::Told
            });
        }
    }

    pub(super) fn ping(&mut self, node: NodeId, token: u64, request: MemberRequest) {
        if let Some(target) = self.target(node).filter(|_| self.in_flight < MEMBER_CALLS_MAX) {
            let call = self.line.clone().call(target, request, PING_BUDGET);
            self.spawn(async move {
                let pong = match call.await {
                    Ok(MemberAnswer::Pong { generation, incarnation }) => {
                        Some(Pong { generation, incarnation })
                    }
                    Ok(_) | Err(_) => None,
                };
                Outcome::Pinged { token, pong }
            });
        }
    }

    pub(super) fn push_pull(&mut self, with: NodeId) {
        if let Some(target) = self.target(with).filter(|_| self.in_flight < MEMBER_CALLS_MAX) {
            let fingerprint = fingerprint(&self.state());
            let request = MemberRequest::PushPull { fingerprint };
            let call = self.line.clone().call(target, request, CALL_BUDGET);
            self.spawn(async move { Outcome::PushPull { with, answer: call.await } });
            self.exchange_keys(with);
        }
    }

    /// Members that can be called, in random order.
    pub(super) fn shuffled(&self, wanted: impl Fn(&Member) -> bool) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self
            .core
            .members()
            .filter(|member| wanted(member) && self.metas.get(member.identity.node).is_some())
            .map(|member| member.identity.node)
            .collect();
        for last in (1..nodes.len()).rev() {
            let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
            let other = usize::try_from(self.parts.randomness.below(bound)).unwrap_or(last);
            nodes.swap(last, other);
        }
        nodes
    }

    pub(super) fn push_pull_with_some(&mut self) {
        for node in self.shuffled(|member| !member.is_gone()).into_iter().take(PUSH_PULL_FANOUT) {
            self.push_pull(node);
        }
    }

    pub(super) fn next_wake(&self) -> Instant {
        let rounds = &self.rounds;
        let round = if self.is_formed() {
            let soonest = rounds.push_pull.min(rounds.lost).min(rounds.absent);
            rounds.fetch.map_or(soonest, |fetch| soonest.min(fetch))
        } else {
            rounds.look
        };
        let core = self.core.poll_timeout().unwrap_or(round);
        round.min(core).min(self.socket_pause.unwrap_or(round))
    }

    pub(super) fn keep_time(&mut self) {
        let now = self.now();
        if self.socket_pause.is_some_and(|until| until <= now) {
            self.socket_pause = None;
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        if self.has_left || !self.leaving.is_empty() {
            self.rounds.look = now + ABSENT;
            self.rounds.push_pull = now + ABSENT;
            self.rounds.lost = now + ABSENT;
            self.rounds.absent = now + ABSENT;
            self.rounds.fetch = None;
        } else if self.is_formed() {
            self.member_rounds(now);
        } else {
            self.look(now);
        }
    }

    pub(super) fn member_rounds(&mut self, now: Instant) {
        if self.rounds.push_pull <= now {
            self.rounds.push_pull = now + PUSH_PULL;
            if let Some(node) = self.shuffled(|member| !member.is_gone()).first() {
                self.push_pull(*node);
            }
        }
        if self.rounds.lost <= now {
            self.rounds.lost = now + LOST;
            if let Some(node) = self.shuffled(|member| member.state == MemberState::Dead).first() {
                self.push_pull(*node);
            }
        }
        if self.rounds.absent <= now {
            self.rounds.absent = now + ABSENT;
            self.ask_absent();
        }
        if self.rounds.fetch.is_some_and(|at| at <= now) {
            self.fetch_missing(now);
        }
    }

    /// Whether this node knows nothing of a living member beside its identity, or only what an
    /// earlier generation said.
    pub(super) fn lacks_meta(&self, member: &Member) -> bool {
        let meta = self.metas.get(member.identity.node);
        !member.is_gone() && meta.is_none_or(|meta| meta.generation < member.identity.generation)
    }

    /// Asks a member for the metadata that this node lacks of others.
    pub(super) fn fetch_missing(&mut self, now: Instant) {
        self.rounds.fetch = None;
        let missing = self.core.members().any(|member| self.lacks_meta(member));
        if !missing {
            self.rounds.fetch_pause = FETCH_FIRST;
            return;
        }
        self.rounds.fetch_pause = self.rounds.fetch_pause.saturating_mul(2).min(FETCH_LAST);
        self.rounds.fetch = Some(now + self.rounds.fetch_pause);
        if let Some(node) = self.shuffled(|member| !member.is_gone()).first() {
            self.push_pull(*node);
        }
    }
}
