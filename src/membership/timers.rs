//! What is due when, in order.
//!
//! Of what is due at the same instant, the indirect probes come before the next probe and
//! everything else after: foca takes the reverse order for a broken probe cycle.

use std::collections::BTreeMap;

use foca::Timer;

use crate::types::{Generation, Identity, Instant, NodeId};

/// What happens when a timer runs out.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// One of foca's own.
    Foca(Timer<Identity>),
    /// Look after members that foca gives up: announce to them while alone, reap the long dead.
    Housekeeping,
    /// A suspicion that was heard of and that nobody decided.
    Judge(Identity, u16),
    /// The place of a dead member is to be given up.
    Remove(NodeId, Generation),
    /// A renewal that was put off may happen now.
    Renew,
    /// Repeat the leave gossip.
    Leave,
}

impl Due {
    const fn rank(&self) -> u8 {
        match self {
            Self::Foca(Timer::SendIndirectProbe { .. }) => 0,
            Self::Foca(Timer::ProbeRandomMember(_)) => 1,
            Self::Foca(_) => 2,
            Self::Housekeeping | Self::Judge(..) | Self::Remove(..) | Self::Renew | Self::Leave => {
                3
            }
        }
    }
}

/// Timers by due time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(Instant, u8, u64), Due>,
    armed: u64,
}

impl Timers {
    /// Arms a timer.
    pub(super) fn arm(&mut self, at: Instant, due: Due) {
        self.armed = self.armed.wrapping_add(1);
        self.queue.insert((at, due.rank(), self.armed), due);
    }

    /// When the next timer runs out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, ..), _)| *at)
    }

    /// The next timer that has run out by `now`, and when it was due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, Due)> {
        let entry = self.queue.first_entry()?;
        let (at, ..) = *entry.key();
        (at <= now).then(|| (at, entry.remove()))
    }

    /// Disarms everything.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn indirect_probes_come_before_the_next_probe_of_the_same_instant() {
        let at = Instant::from_origin(Duration::from_secs(1));
        let mut timers = Timers::default();
        timers.arm(at, Due::Housekeeping);
        timers.arm(at, Due::Foca(Timer::ProbeRandomMember(0)));
        timers.arm(at + Duration::from_secs(1), Due::Renew);
        let probed_id = crate::membership::tests::identity(1, 1);
        timers.arm(at, Due::Foca(Timer::SendIndirectProbe { probed_id, token: 0 }));
        let ranks: Vec<u8> =
            std::iter::from_fn(|| timers.take_due(at)).map(|(_, due)| due.rank()).collect();
        assert_eq!(ranks, [0, 1, 3]);
        assert_eq!(timers.next(), Some(at + Duration::from_secs(1)));
    }
}
