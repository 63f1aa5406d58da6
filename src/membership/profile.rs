//! foca's timings for a profile, a probe interval and a number of members.
//!
//! Numbers that grow with the logarithm of the cluster's size (how often an update is repeated, how
//! long a suspicion lasts) are set anew as members come and go.

use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use foca::Config;

use crate::config::GossipProfile;
use crate::limits::GOSSIP_DATAGRAM_MAX;
use crate::membership::seal::SEAL_OVERHEAD;

/// Fewer repetitions than this let updates die out in small clusters that lose packets: measured,
/// three nodes at 20 % loss declare each other dead with foca's 2 and never with 10.
const TRANSMISSIONS_MIN: u8 = 10;

/// The largest packet before it is sealed.
const PACKET_MAX: usize = GOSSIP_DATAGRAM_MAX - SEAL_OVERHEAD;

/// foca's configuration for a cluster of `nodes` (this one included).
pub(super) fn config_for(
    profile: GossipProfile,
    probe_interval: Option<Duration>,
    nodes: usize,
) -> Config {
    let size = u32::try_from(nodes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let mut config = match profile {
        GossipProfile::Lan => Config::new_lan(size),
        GossipProfile::Wan => Config::new_wan(size),
    };
    config.max_packet_size = NonZeroUsize::new(PACKET_MAX).unwrap_or(NonZeroUsize::MIN);
    config.max_transmissions =
        config.max_transmissions.max(NonZeroU8::new(TRANSMISSIONS_MIN).unwrap_or(NonZeroU8::MIN));
    // Push-pull brings the full state, and the engine's own housekeeping reaps the dead: foca's
    // feeds of a full packet each would cost a tenth of the quiet load, its reaping a timer each.
    config.periodic_announce = None;
    config.remove_down_after = None;
    if let Some(interval) = probe_interval.filter(|interval| !interval.is_zero()) {
        let factor = interval.as_secs_f64() / config.probe_period.as_secs_f64();
        config.probe_period = interval;
        config.probe_rtt = config.probe_rtt.mul_f64(factor);
        config.suspect_to_down_after = config.suspect_to_down_after.mul_f64(factor);
        if let Some(gossip) = &mut config.periodic_gossip {
            gossip.frequency = gossip.frequency.mul_f64(factor);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicions_last_longer_in_larger_clusters() {
        let lan = |nodes| config_for(GossipProfile::Lan, None, nodes).suspect_to_down_after;
        assert_eq!(lan(3), Duration::from_secs(4));
        assert_eq!(lan(100), Duration::from_secs(8));
        assert_eq!(lan(1000), Duration::from_secs(12));
    }

    #[test]
    fn a_probe_interval_scales_what_depends_on_it() {
        let half = Some(Duration::from_millis(500));
        let config = config_for(GossipProfile::Lan, half, 10);
        assert_eq!(config.probe_rtt, Duration::from_millis(250));
        assert_eq!(config.suspect_to_down_after, Duration::from_secs(2));
        assert_eq!(config.max_transmissions.get(), TRANSMISSIONS_MIN);
    }
}
