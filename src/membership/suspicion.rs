//! Suspicions: which of foca's verdicts stand, what is asked over QUIC before one, and what a suspect
//! is told.

use std::time::Duration;

use foca::{State, Timer};

use crate::membership::backchannel::{Answered, Backchannel};
use crate::membership::engine::{Event, Membership};
use crate::membership::profile::config_for;
use crate::membership::timers::Due;
use crate::types::{Identity, Instant, MemberState};

/// How often a suspect that is heard of is told that it is suspected.
const ACCUSE_AGAIN: Duration = Duration::from_secs(1);

/// A node held up for longer than this judges nobody by suspicions from before.
const HELD_UP: Duration = Duration::from_secs(1);

impl Membership {
    /// Hands foca a timer of its own, unless the timer is out of date.
    pub(super) fn fire(&mut self, now: Instant, late: Duration, timer: Timer<Identity>) {
        match &timer {
            // foca sends "you are dead" when this timer runs out even if the suspicion was refuted
            // in the meantime, and the member then renews for nothing. Measured: at 5 % loss every
            // wrong suspicion did so. Hence foca only sees timers of suspicions that still stand.
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                if !self.suspicion_stands(member_id, *incarnation) {
                    return;
                }
                if late > HELD_UP {
                    self.timers.arm(now + self.suspicion_span(), Due::Foca(timer));
                    return;
                }
            }
            Timer::SendIndirectProbe { probed_id, .. } => self.ask_for_fallback(probed_id),
            Timer::ProbeRandomMember(_)
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_)
            | Timer::RemoveDown(_) => {}
        }
        self.drive(now, |swim, outbox| swim.handle_timer(timer, outbox));
    }

    pub(super) fn suspicion_stands(&self, suspect: &Identity, incarnation: u16) -> bool {
        self.swim.iter_members().any(|member| {
            member.id() == suspect
                && member.incarnation() == incarnation
                && member.state() == State::Suspect
        })
    }

    pub(super) fn suspicion_span(&self) -> Duration {
        config_for(self.profile, self.probe_interval, self.sized_for).suspect_to_down_after
    }

    /// Decides a suspicion that was heard of. In foca only the node whose probe failed does; one
    /// that misses its word would hold the dead for suspect until it comes to probe it itself, a
    /// minute later in a cluster of a hundred.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        late: Duration,
        suspect: Identity,
        incarnation: u16,
    ) {
        if !self.suspicion_stands(&suspect, incarnation) {
            return;
        }
        if late > HELD_UP {
            let at = now + self.suspicion_span();
            self.timers.arm(at, Due::Judge(suspect, incarnation));
            return;
        }
        let dead = foca::Member::new(suspect, incarnation, State::Down);
        self.drive(now, |swim, outbox| swim.apply_many(std::iter::once(dead), true, outbox));
    }

    pub(super) fn ask_for_fallback(&mut self, probed: &Identity) {
        let waiting = self.back.with(|back| {
            back.probe()
                .filter(|probe| probe.answered == Answered::Never && &probe.target == probed)
                .map(|probe| probe.serial)
        });
        if let Some(token) = waiting {
            let suspected = self
                .table
                .get(probed.node)
                .filter(|member| member.state == MemberState::Suspect)
                .map(|member| (member.identity.generation, member.incarnation));
            self.events.push_back(Event::FallbackPing { node: probed.node, token, suspected });
        }
    }

    /// Tells the sender of the last packet if it is suspected; the same suspicion once a second.
    ///
    /// A node that was cut off has suspected others where nobody heard of it, and foca gossips each
    /// suspicion a few times only. Without this it declares them dead when it is back among them.
    pub(super) fn accuse_sender(&mut self, now: Instant) {
        let Some((node, generation)) = self.back.with(Backchannel::take_sender) else { return };
        let suspect = self.table.get(node).filter(|member| {
            member.state == MemberState::Suspect && member.identity.generation == generation
        });
        let Some(incarnation) = suspect.map(|member| member.incarnation) else { return };
        let told = self.accused.get(&node).copied();
        if told.is_none_or(|at| now.saturating_since(at) >= ACCUSE_AGAIN) {
            self.accused.insert(node, now);
            self.events.push_back(Event::Accuse { node, generation, incarnation });
        }
    }
}
