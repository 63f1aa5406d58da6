//! Checks of the node that answered, and of its cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::admin::status::Member;
use crate::cli::output::span;
use crate::config::keys;
use crate::config::load::Origin;
use crate::types::{ByteSize, MemberState};

use super::Finding;
use super::facts::{Facts, NodeFacts};

/// How far a peer's clock may be from this node's, in seconds; the alert on it says the same.
const CLOCK_OFF: f64 = 1.0;
/// How far off a node's clock is wrong by its peers', in seconds: it then acts for nothing.
const CLOCK_WRONG: f64 = 5.0;
/// By how much the memory of one member, for its weight, may be above that of another.
const MEMORY_UNEVEN: f64 = 1.2;

fn alive(node: &NodeFacts) -> impl Iterator<Item = &Member> {
    node.members.iter().filter(|member| member.state == MemberState::Alive)
}

/// Whether a node answers, and is ready.
pub(super) fn node(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "node";
    let Some(node) = &facts.node else {
        let found = "no node answers here: only the machine and the settings were looked at";
        return vec![Finding::ok(CHECK, found)];
    };
    let name = &node.status.node.name;
    vec![if node.reasons.is_empty() {
        let up = span(node.status.uptime_seconds);
        Finding::ok(CHECK, format!("{name} is ready, up {up}, asked at {}", node.asked))
    } else {
        Finding::fail(
            CHECK,
            format!("{name} is not ready: {}", node.reasons.join("; ")),
            "`chickadee status --wait ready` waits for it; the log says what holds it up",
        )
    }]
}

/// Whether all members are there, and enough of them for all copies.
pub(super) fn members(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "members";
    let Some(node) = &facts.node else { return Vec::new() };
    let missing: Vec<String> = node
        .members
        .iter()
        .filter(|member| matches!(member.state, MemberState::Suspect | MemberState::Dead))
        .map(|member| format!("{} is {}", member.name, member.state))
        .collect();
    let mut findings = Vec::new();
    if !missing.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            missing.join(", "),
            "`systemctl status chickadee` there; of a host that is gone for good nothing is needed",
        ));
    }
    let (there, copies) = (node.ring.nodes.len(), node.ring.replicas);
    let short = node.status.ring.slots_under_replicated;
    if there < usize::from(copies) {
        findings.push(Finding::warn(
            CHECK,
            format!("{there} on the ring, {copies} copies are wanted: there are fewer"),
            "add nodes",
        ));
    } else if short > 0 {
        findings.push(Finding::warn(
            CHECK,
            format!("{short} slots lack a copy"),
            "`chickadee status --wait replicated` waits until they are made",
        ));
    }
    if findings.is_empty() {
        let count = alive(node).count();
        findings.push(Finding::ok(CHECK, format!("{count} alive, every slot has its copies")));
    }
    findings
}

/// What the cluster was formed with counts, whatever the settings say later.
pub(super) fn facts(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "cluster facts";
    let Some(node) = facts.node_here() else { return Vec::new() };
    let wished = &facts.config().cluster;
    let is_given = |key| facts.loaded.origin(key) != Origin::Default;
    let mut findings = Vec::new();
    let name = wished.name.as_str();
    if is_given(keys::CLUSTER_NAME) && name != node.status.cluster {
        findings.push(Finding::fail(
            CHECK,
            format!("the node is in {}, the settings say {name}", node.status.cluster),
            format!(
                "set {} to the cluster's name, or start with another folder",
                keys::CLUSTER_NAME
            ),
        ));
    }
    if is_given(keys::REPLICAS) && wished.replicas != node.ring.replicas {
        findings.push(Finding::warn(
            CHECK,
            format!("{} copies, the settings say {}", node.ring.replicas, wished.replicas),
            format!(
                "{} counts only when a cluster is formed: make the settings agree",
                keys::REPLICAS
            ),
        ));
    }
    if findings.is_empty() {
        let (cluster, copies) = (&node.status.cluster, node.ring.replicas);
        findings.push(Finding::ok(CHECK, format!("{cluster}, {copies} copies of each slot")));
    }
    findings
}

/// Expiries and the order of writes follow the clocks.
pub(super) fn clocks(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "clock";
    let Some(node) = &facts.node else { return Vec::new() };
    let offset =
        |peer: &crate::admin::status::Peer| Some((peer.name.clone(), peer.clock_offset_seconds?));
    let offsets: Vec<(String, f64)> = node.peers.iter().filter_map(offset).collect();
    let far = |limit: f64| {
        let far = offsets.iter().filter(move |(_, offset)| offset.abs() >= limit);
        let tell = |(name, offset): &(String, f64)| format!("{name} is {offset:+.3} s off");
        far.map(tell).collect::<Vec<_>>().join(", ")
    };
    let (wrong, off) = (far(CLOCK_WRONG), far(CLOCK_OFF));
    let fix =
        "`chronyc tracking` or `timedatectl` on both, `chronyc makestep` on the one that is wrong";
    let worst = offsets.iter().map(|(_, offset)| offset.abs()).fold(0.0, f64::max);
    vec![if !wrong.is_empty() {
        Finding::fail(CHECK, wrong, fix)
    } else if !off.is_empty() {
        Finding::warn(CHECK, off, fix)
    } else if offsets.is_empty() {
        return Vec::new();
    } else {
        let count = offsets.len();
        Finding::ok(CHECK, format!("within {} of {count} peers", span(worst)))
    }]
}

/// Copies of a slot are in different zones, where these are large enough for it.
pub(super) fn zones(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "zones";
    let Some(node) = &facts.node else { return Vec::new() };
    let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
    let named: Vec<_> = node.ring.nodes.iter().filter(|member| member.zone.is_some()).collect();
    if named.is_empty() {
        return vec![Finding::ok(CHECK, "none: any node may hold any copy")];
    }
    let without: Vec<&str> = (node.ring.nodes.iter())
        .filter(|member| member.zone.is_none())
        .map(|member| member.name.as_str())
        .collect();
    if !without.is_empty() {
        return vec![Finding::warn(
            CHECK,
            format!("no zone: {}", without.join(", ")),
            format!("set {} on every node, or on none", keys::ZONE),
        )];
    }
    for member in named {
        let zone = member.zone.as_deref().unwrap_or_default();
        *weights.entry(zone).or_default() += u32::from(member.weight);
    }
    let shown: Vec<String> =
        weights.iter().map(|(zone, weight)| format!("{zone} (weight {weight})")).collect();
    let shown = shown.join(", ");
    let copies = usize::from(node.ring.replicas);
    let sharing = node.figures.get("slots_sharing_zone").copied().unwrap_or(0.0);
    vec![if weights.len() < copies {
        Finding::warn(
            CHECK,
            format!("{copies} copies in {} zones: {shown}", weights.len()),
            "some slots have two copies in one zone and are lost with it: add a node in another zone",
        )
    } else if sharing > 0.0 {
        let least = weights.iter().min_by_key(|(_, weight)| **weight).map_or("", |(zone, _)| zone);
        Finding::warn(
            CHECK,
            format!("{sharing} slots have two copies in one zone: {shown}"),
            format!(
                "zone {least} is too small for its share: add a node there, or raise {}",
                keys::WEIGHT
            ),
        )
    } else {
        Finding::ok(CHECK, shown)
    }]
}

/// Slots go by weight: a node with little memory for its weight evicts while others have room.
pub(super) fn memory_per_weight(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "memory by weight";
    let Some(node) = &facts.node else { return Vec::new() };
    let mut shares: Vec<(f64, &str)> = Vec::new();
    for member in alive(node) {
        let status = if member.is_self { Some(&node.status) } else { node.others.get(&member.id) };
        let Some(status) = status else { continue };
        #[expect(clippy::cast_precision_loss, reason = "compared by parts of a hundred")]
        let limit = status.store.limit_bytes as f64;
        shares.push((limit / f64::from(member.weight.max(1)), member.name.as_str()));
    }
    shares.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(least), Some(most)) = (shares.first(), shares.last()) else { return Vec::new() };
    if shares.len() < 2 {
        return Vec::new();
    }
    let size = |share: f64| ByteSize(super::host::whole(share));
    let found = format!(
        "{} has {} for each unit of weight, {} has {} ({} members answered)",
        least.1,
        size(least.0),
        most.1,
        size(most.0),
        shares.len()
    );
    vec![if most.0 > least.0 * MEMORY_UNEVEN {
        let (limit, weight) = (keys::MEMORY_LIMIT, keys::WEIGHT);
        Finding::warn(
            CHECK,
            format!("{found}: it evicts while others have room"),
            format!("let {weight} follow {limit}: twice the memory, twice the weight"),
        )
    } else {
        Finding::ok(CHECK, found)
    }]
}

/// Versions may differ while nodes are upgraded one after the other, and no longer.
pub(super) fn versions(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "versions";
    let Some(node) = &facts.node else { return Vec::new() };
    let mut by_version: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for member in alive(node) {
        let Some(version) = member.version.as_deref() else { continue };
        by_version.entry(version).or_default().insert(member.name.as_str());
    }
    let shown: Vec<String> = by_version
        .iter()
        .map(|(version, names)| {
            format!("{version}: {}", names.iter().copied().collect::<Vec<_>>().join(" "))
        })
        .collect();
    vec![if by_version.len() > 1 {
        Finding::warn(CHECK, shown.join("; "), "upgrade the others, one after the other")
    } else {
        Finding::ok(CHECK, by_version.keys().copied().collect::<String>())
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Fail, Ok, Warn};
    use super::super::facts::{good, good_node, member};
    use super::*;

    /// Good facts with a node that was changed.
    fn with(change: impl FnOnce(&mut NodeFacts)) -> Facts {
        let mut node = good_node();
        change(&mut node);
        Facts { node: Some(node), ..good() }
    }

    #[test]
    fn a_node_that_is_not_ready_fails_with_its_reasons() {
        let facts = with(|node| node.reasons = vec!["fenced: alone".to_owned()]);
        let found = node(&facts);
        assert_eq!(found[0].level, Fail);
        assert!(found[0].found.contains("fenced: alone"), "{found:?}");
        assert_eq!(node(&with(|_| {}))[0].level, Ok);
        assert_eq!(node(&good())[0].level, Ok, "there need not be one yet");
        assert!(members(&good()).is_empty() && clocks(&good()).is_empty());
    }

    #[test]
    fn members_must_be_there_and_enough_of_them() {
        assert_eq!(members(&with(|_| {}))[0].level, Ok);
        let dead = with(|node| node.members[1].state = MemberState::Dead);
        assert_eq!(members(&dead)[0].found, "n2 is dead");
        let few = with(|node| node.ring.replicas = 3);
        assert!(members(&few)[0].found.contains("3 copies are wanted"), "{:?}", members(&few));
        let short = with(|node| node.status.ring.slots_under_replicated = 7);
        assert_eq!((members(&short)[0].level, members(&short).len()), (Warn, 1));
    }

    #[test]
    fn settings_that_the_cluster_does_not_follow_are_named() {
        let mut other = with(|node| node.ring.replicas = 3);
        assert_eq!(facts(&other)[0].level, Ok, "nobody asked for another number");
        other.loaded.origins.insert(keys::REPLICAS, Origin::Variable("X".to_owned()));
        assert_eq!(facts(&other)[0].level, Warn);
        other.loaded.origins.insert(keys::CLUSTER_NAME, Origin::Variable("X".to_owned()));
        assert_eq!(facts(&other).len(), 1, "the name is the same");
        other.node.as_mut().unwrap().status.cluster = "another".to_owned();
        assert_eq!(facts(&other)[0].level, Fail);
        other.node.as_mut().unwrap().is_here = false;
        assert!(facts(&other).is_empty(), "the settings are not that node's");
    }

    #[test]
    fn a_clock_is_right_or_off_or_wrong() {
        for (offset, expected) in [(0.02, Ok), (-0.9, Ok), (1.5, Warn), (-4.9, Warn), (-5.0, Fail)]
        {
            let facts = with(|node| node.peers[0].clock_offset_seconds = Some(offset));
            assert_eq!(clocks(&facts)[0].level, expected, "{offset}");
        }
        assert!(clocks(&with(|node| node.peers[0].clock_offset_seconds = None)).is_empty());
    }

    #[test]
    fn zones_must_be_enough_large_enough_and_everywhere() {
        let zoned = |zones: [Option<&str>; 2]| {
            with(|node| {
                for (member, zone) in node.ring.nodes.iter_mut().zip(zones) {
                    member.zone = zone.map(str::to_owned);
                }
            })
        };
        assert_eq!(zones(&zoned([None, None]))[0].level, Ok);
        assert_eq!(zones(&zoned([Some("a"), Some("b")]))[0].level, Ok);
        assert_eq!(zones(&zoned([Some("a"), None]))[0].found, "no zone: n2");
        let one = zoned([Some("a"), Some("a")]);
        assert_eq!(zones(&one)[0].found, "2 copies in 1 zones: a (weight 2)");
        let mut small = zoned([Some("a"), Some("b")]);
        let node = small.node.as_mut().unwrap();
        node.ring.nodes[0].weight = 4;
        node.figures.insert("slots_sharing_zone".to_owned(), 12.0);
        let found = zones(&small);
        assert!(found[0].fix.as_ref().unwrap().contains("zone b is too small"), "{found:?}");
    }

    #[test]
    fn memory_follows_the_weight() {
        let limits = |limit: u64, weight: u8| {
            with(|node| {
                node.members[1].weight = weight;
                let other = node.others.values_mut().next().unwrap();
                other.store.limit_bytes = limit;
            })
        };
        let gib = 1 << 30;
        assert_eq!(memory_per_weight(&limits(gib, 1))[0].level, Ok);
        assert_eq!(memory_per_weight(&limits(gib / 100 * 119, 1))[0].level, Ok);
        let found = memory_per_weight(&limits(2 * gib, 1));
        assert_eq!(found[0].level, Warn);
        assert!(found[0].found.starts_with("n1 has 1GiB"), "{found:?}");
        assert_eq!(memory_per_weight(&limits(2 * gib, 2))[0].level, Ok);
        let silent = with(|node| node.others.clear());
        assert!(memory_per_weight(&silent).is_empty(), "nothing is known of the others");
    }

    #[test]
    fn versions_that_differ_are_told_with_their_members() {
        assert_eq!(versions(&with(|_| {}))[0].level, Ok);
        let facts = with(|node| {
            node.members[1].version = Some("0.2.0".to_owned());
            node.members.push(member(3, None));
        });
        assert_eq!(versions(&facts)[0].found, "0.1.0: n1 n3; 0.2.0: n2");
        let gone = with(|node| {
            node.members[1].version = Some("0.2.0".to_owned());
            node.members[1].state = MemberState::Dead;
        });
        assert_eq!(versions(&gone)[0].level, Ok, "who is gone does not count");
    }
}
