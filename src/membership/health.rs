//! Local health (Lifeguard's multiplier): a node that is itself late or deaf probes more slowly.
//!
//! The score rises with late timers, with suspicions of this node, and with probes that failed while
//! nothing at all was heard; it falls with good probes. A probe's period and timeout are stretched
//! by `1 + score`, so that a node in trouble accuses others later. A probe that failed while others
//! were heard says nothing against this node: counting it too would slow the discovery of many
//! deaths at once, when it matters most.

use std::time::Duration;

/// The worst score.
const WORST: u32 = 7;

/// A timer that is later than this tells of a node that was held up.
pub(super) const LATE: Duration = Duration::from_millis(100);

/// The score: 0 is well, 7 is worst.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health(u32);

impl Health {
    /// Something went wrong that may be this node's own fault.
    pub(super) fn worse(&mut self) {
        self.0 = self.0.saturating_add(1).min(WORST);
    }

    /// A probe was answered.
    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// The score.
    pub(super) const fn score(self) -> u32 {
        self.0
    }

    /// `span` stretched by the score.
    pub(super) const fn stretch(self, span: Duration) -> Duration {
        span.saturating_mul(self.0.saturating_add(1))
    }
}
