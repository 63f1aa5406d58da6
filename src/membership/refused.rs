//! What is done with a packet that does not open: counted, and named in the log once in a while.

use std::net::SocketAddr;

use crate::audit::{self, Seldom};
use crate::membership::seal::Rejected;
use crate::metrics::GossipMetrics;
use crate::types::Instant;

/// Packets that no key of the ring opens.
#[derive(Debug, Default)]
pub(super) struct Refused {
    line: Seldom,
}

impl Refused {
    /// Notes one. It is never answered: its sender may be anyone.
    pub(super) fn note(
        &mut self,
        now: Instant,
        from: SocketAddr,
        why: Rejected,
        metrics: &GossipMetrics,
    ) {
        match why {
            Rejected::Version => metrics.rejected_version.increment(1),
            Rejected::Replay => metrics.rejected_replay.increment(1),
            Rejected::Sealed => {
                metrics.rejected_sealed.increment(1);
                if let Some(others) = self.line.may(now) {
                    tracing::warn!(
                        target: audit::TARGET,
                        %from,
                        others,
                        reason = "sealed with another cluster secret or cluster name, or no gossip",
                        "gossip packet was refused"
                    );
                }
            }
        }
    }
}
