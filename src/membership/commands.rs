//! What the owner of a [`Membership`] may ask of it, and what it may read.

use std::time::Duration;

use foca::{Header, Message, State};

use crate::limits::MEMBERS_MAX;
use crate::membership::backchannel::{Answered, Backchannel};
use crate::membership::codec::header_bytes;
use crate::membership::engine::{Event, Life, Membership, Pong};
use crate::membership::identity::{renewed, with_phase};
use crate::membership::member::Member;
use crate::membership::merge::{Verdict, judge};
use crate::membership::seal::KeyRing;
use crate::membership::timers::Due;
use crate::metrics::level;
use crate::types::{
    Generation, Identity, Instant, MemberRecord, MemberState, NodeId, Phase, Weight,
};

/// A node renews at most this often: two processes under one node id would otherwise renew against
/// each other without end.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// A member is told to renew at most this often for one generation. Measured: without a limit the
/// healing of 300 nodes takes 155,000 notices.
const NOTICE_INTERVAL: Duration = Duration::from_secs(5);

/// The leave gossip is said this often ...
const GOODBYES: u8 = 5;

/// ... in this rhythm.
const GOODBYE_INTERVAL: Duration = Duration::from_millis(200);

impl Membership {
    /// Announces this node to another, which answers with members.
    pub fn announce(&mut self, now: Instant, to: Identity) {
        if self.life == Life::Member && to.node != self.swim.identity().node {
            self.drive(now, |swim, outbox| swim.announce(to, outbox));
        }
    }

    /// Merges what another node knows: the push-pull of full states.
    ///
    /// What is unknown or newer is taken over. Of a member that one side holds for dead and the
    /// other, at the same generation, for alive, nothing is taken over: the member is told to
    /// renew ([`Event::RenewNotice`]), and if it is this node, it renews.
    pub fn apply_records(&mut self, now: Instant, records: &[MemberRecord]) {
        if self.life != Life::Member {
            return;
        }
        let own = self.swim.identity().clone();
        let mut updates = Vec::new();
        let mut own_above = None;
        let mut room = MEMBERS_MAX.saturating_sub(self.table.iter().count());
        for record in records {
            let (node, generation) = (record.identity.node, record.identity.generation);
            let gone = matches!(record.state, MemberState::Dead | MemberState::Left);
            if node == own.node {
                if generation > own.generation || (generation == own.generation && gone) {
                    own_above = own_above.max(Some(generation));
                }
                continue;
            }
            match judge(self.table.get(node), record) {
                Verdict::Apply if self.table.get(node).is_none() && room == 0 => {}
                Verdict::Apply => {
                    if self.table.get(node).is_none() {
                        room = room.saturating_sub(1);
                    }
                    let state = match record.state {
                        MemberState::Alive => State::Alive,
                        MemberState::Suspect => State::Suspect,
                        MemberState::Dead | MemberState::Left => State::Down,
                    };
                    let identity = record.identity.clone();
                    updates.push(foca::Member::new(identity, record.incarnation, state));
                }
                Verdict::Dispute => self.dispute(now, node, generation),
                Verdict::Ignore => {}
            }
        }
        // A joiner hears what all others know already; it must not gossip it all over again.
        let news = self.table.iter().next().is_some();
        if !updates.is_empty() {
            self.back.with(Backchannel::changed);
            self.drive(now, |swim, outbox| {
                swim.apply_many(updates.into_iter(), news, &mut *outbox)?;
                if news { swim.gossip(outbox) } else { Ok(()) }
            });
        }
        for record in records.iter().filter(|record| record.removed) {
            self.give_up_place(record.identity.node, record.identity.generation);
        }
        if let Some(above) = own_above {
            self.renew(now, above);
        }
    }

    /// This node and others disagree whether a member is dead: it settles that itself.
    pub(super) fn dispute(&mut self, now: Instant, node: NodeId, generation: Generation) {
        let told = self.notices.get(&node).is_some_and(|(last, at)| {
            *last == generation && now.saturating_since(*at) < NOTICE_INTERVAL
        });
        if !told {
            self.notices.insert(node, (generation, now));
            self.events.push_back(Event::RenewNotice { node, above: generation });
        }
    }

    /// Everything this node knows of members, itself first, then by node id. Without metadata.
    pub fn records(&self) -> Vec<MemberRecord> {
        let own = MemberRecord {
            identity: self.swim.identity().clone(),
            incarnation: self.back.with(|back| back.incarnation()),
            state: match self.life {
                Life::Member => MemberState::Alive,
                Life::Leaving(_) | Life::Left => MemberState::Left,
            },
            removed: false,
            meta: None,
        };
        let others = self.table.iter().map(|member| MemberRecord {
            identity: member.identity.clone(),
            incarnation: member.incarnation,
            state: member.state,
            removed: member.removed,
            meta: None,
        });
        std::iter::once(own).chain(others).collect()
    }

    /// Announces another phase of this node's life.
    pub fn set_phase(&mut self, now: Instant, phase: Phase) {
        let own = self.swim.identity();
        if self.life == Life::Member && own.phase != phase {
            let next = with_phase(own, phase);
            self.become_identity(now, next);
        }
    }

    /// Announces another weight or zone tag of this node.
    pub fn set_weight_zone(&mut self, now: Instant, weight: Weight, zone: u32) {
        let own = self.swim.identity();
        if self.life == Life::Member && (own.weight, own.zone) != (weight, zone) {
            let next = Identity { weight, zone, ..with_phase(own, own.phase) };
            self.become_identity(now, next);
        }
    }

    /// Takes a generation above `above`: some members hold that one for dead, and death is final.
    /// Nothing happens when this node's generation is above already. At most once a second.
    pub fn renew(&mut self, now: Instant, above: Generation) {
        if self.life != Life::Member || self.swim.identity().generation > above {
            return;
        }
        let waiting = self.renewal_above.is_some();
        self.renewal_above = self.renewal_above.max(Some(above));
        match self.last_renewal.map(|last| last + RENEWAL_INTERVAL) {
            Some(turn) if now < turn => {
                if !waiting {
                    self.timers.arm(turn, Due::Renew);
                }
            }
            Some(_) | None => self.renew_if_wanted(now),
        }
    }

    pub(super) fn renew_if_wanted(&mut self, now: Instant) {
        let Some(above) = self.renewal_above.take() else { return };
        let own = self.swim.identity();
        if self.life != Life::Member || own.generation > above {
            return;
        }
        self.last_renewal = Some(now);
        // Generations are wall milliseconds at the start; going on with them keeps a generation
        // that was lost with the disk below the next start's.
        let passed = now.saturating_since(self.started).as_millis();
        let by_clock =
            self.first_generation.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
        let generation = Generation(by_clock.max(above.0.saturating_add(1)));
        let next = renewed(own, generation);
        self.note_refuted();
        self.become_identity(now, next);
        self.announce_to_lost(now);
    }

    pub(super) fn note_refuted(&mut self) {
        self.refutations += 1;
        self.events.push_back(Event::Refuted);
    }

    /// How often this node refuted a suspicion, or renewed because it was taken for dead.
    pub const fn refutations(&self) -> u64 {
        self.refutations
    }

    fn become_identity(&mut self, now: Instant, next: Identity) {
        self.back.with(|back| back.set_own(next.clone()));
        self.events.push_back(Event::Identity(next.clone()));
        self.drive(now, |swim, outbox| {
            swim.change_identity(next, &mut *outbox)?;
            // foca would pause until it next hears from somebody; this makes it look at once.
            swim.apply_many(std::iter::empty(), false, outbox)
        });
    }

    /// Goes for good: says so five times over 800 ms, hears and answers nothing any more, and ends
    /// with [`Event::Left`].
    pub fn leave(&mut self, now: Instant) {
        if self.life != Life::Member {
            return;
        }
        self.set_phase(now, Phase::Leaving);
        self.life = Life::Leaving(GOODBYES);
        self.timers.clear();
        self.say_goodbye(now);
    }

    pub(super) fn say_goodbye(&mut self, now: Instant) {
        let Life::Leaving(left) = self.life else { return };
        let left = left.saturating_sub(1);
        self.drive(now, |swim, outbox| swim.leave_cluster(outbox));
        self.timers.clear();
        if left == 0 {
            self.life = Life::Left;
            self.events.push_back(Event::Left);
        } else {
            self.life = Life::Leaving(left);
            self.timers.arm(now + GOODBYE_INTERVAL, Due::Leave);
        }
    }

    /// Answers a ping over QUIC. One that says that this node is suspected makes it refute.
    pub fn handle_ping(&mut self, now: Instant, suspected: Option<(Generation, u16)>) -> Pong {
        let own = self.swim.identity().clone();
        if let Some((generation, incarnation)) = suspected
            && generation == own.generation
            && self.life == Life::Member
        {
            let suspicion = foca::Member::new(own.clone(), incarnation, State::Suspect);
            self.drive(now, |swim, outbox| {
                swim.apply_many(std::iter::once(suspicion), false, outbox)
            });
        }
        Pong { generation: own.generation, incarnation: self.back.with(|back| back.incarnation()) }
    }

    /// Takes in the answer to an [`Event::FallbackPing`]; one that comes too late changes nothing.
    pub fn handle_ping_answer(&mut self, now: Instant, token: u64, pong: Pong) {
        let probe = self.back.with(|back| {
            back.probe()
                .filter(|probe| probe.serial == token && probe.answered == Answered::Never)
                .cloned()
        });
        let Some(probe) = probe else { return };
        if probe.target.generation != pong.generation || self.life != Life::Member {
            return;
        }
        self.back.with(Backchannel::answer_by_fallback);
        let ack = header_bytes(&Header {
            src: probe.target,
            src_incarnation: pong.incarnation,
            dst: self.swim.identity().clone(),
            message: Message::Ack(probe.number),
        });
        self.drive(now, |swim, outbox| swim.handle_data(&ack, outbox));
    }

    /// Declares a dead member left, everywhere: it loses its place and its name at once. Whether
    /// the member was known and dead.
    pub fn forget(&mut self, now: Instant, node: NodeId) -> bool {
        let Some(member) = self.table.get(node).filter(|m| m.state == MemberState::Dead) else {
            return false;
        };
        let identity = with_phase(&member.identity, Phase::Leaving);
        let left = foca::Member::new(identity, 0, State::Down);
        self.drive(now, |swim, outbox| swim.apply_many(std::iter::once(left), true, outbox));
        true
    }

    /// Changes how long dead members keep their place; counts for those that are dead already.
    pub fn set_ring_grace(&mut self, now: Instant, ring_grace: Duration) {
        self.ring_grace = ring_grace;
        let dead: Vec<(Instant, NodeId, Generation)> = self
            .table
            .iter()
            .filter(|member| member.state == MemberState::Dead && !member.removed)
            .map(|member| {
                let node = member.identity.node;
                (member.since + self.grace_of(node), node, member.identity.generation)
            })
            .collect();
        for (at, node, generation) in dead {
            self.timers.arm(at.max(now), Due::Remove(node, generation));
        }
    }

    /// Puts another key ring in place; packets sealed with its keys open from now on.
    pub fn set_key_ring(&mut self, ring: KeyRing) {
        self.metrics.keys.set(level(ring.keys().count()));
        self.sealer.set_ring(ring);
    }

    /// This node's present identity.
    pub fn identity(&self) -> &Identity {
        self.swim.identity()
    }

    /// All known members but this node, by node id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter()
    }

    /// A member other than this node.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.table.get(node)
    }
}
