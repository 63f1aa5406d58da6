//! Checks of ports and seeds: whether a node can listen, and find the others.

use std::net::SocketAddr;

use crate::config::keys;

use super::Finding;
use super::facts::{Facts, NodeFacts, Port, PortState};

/// A node starts only if it gets all of its ports.
pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let node = facts.node_here();
    let mut findings = Vec::new();
    let (mut free, mut held) = (0, 0);
    for port in &facts.ports {
        let Port { key, address, state } = port;
        match state {
            PortState::Free => free += 1,
            PortState::Taken if node.is_some_and(|node| holds(node, facts, key)) => held += 1,
            PortState::Taken => findings.push(Finding::fail(
                CHECK,
                format!("{key} {address} is taken by another process"),
                format!("`ss -lnp 'sport = :{}'` says by whom; else set {key}", address.port()),
            )),
            PortState::Refused(why) => findings.push(Finding::fail(
                CHECK,
                format!("{key} {address} cannot be had: {why}"),
                format!(
                    "set {key} to an address of this machine and a port that its user may have"
                ),
            )),
        }
    }
    if findings.is_empty() {
        let found = match node {
            Some(node) => {
                format!("{held} held by {}, {free} free", node.status.node.name)
            }
            None => format!("{free} of the settings are free"),
        };
        findings.push(Finding::ok(CHECK, found));
    }
    findings
}

/// Whether the ports of a setting are the node's own. Of several it tells the first; the others are taken
/// for its own with that.
fn holds(node: &NodeFacts, facts: &Facts, key: &str) -> bool {
    let addresses = &node.status.addresses;
    let own: Option<SocketAddr> = match key {
        keys::CLIENT_LISTEN => Some(addresses.client),
        keys::CLUSTER_LISTEN => Some(addresses.cluster),
        keys::GOSSIP_LISTEN => Some(addresses.gossip),
        keys::PEER_LISTEN => Some(addresses.peer),
        keys::ADMIN_LISTEN => addresses.admin,
        _ => None,
    };
    let ports = facts.ports.iter().filter(|port| port.key == key);
    own.is_some_and(|own| ports.map(|port| port.address.port()).any(|port| port == own.port()))
}

/// A node finds its cluster by the seeds.
pub(super) fn seeds(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "seeds";
    if facts.seeds.is_empty() {
        return vec![Finding::ok(CHECK, "none: such a node forms a cluster by itself")];
    }
    let lost: Vec<String> = facts
        .seeds
        .iter()
        .filter_map(|seed| Some(format!("{} ({})", seed.name, seed.addresses.as_ref().err()?)))
        .collect();
    let fix = format!("correct {}, or the names in DNS or /etc/hosts", keys::JOIN);
    vec![if lost.is_empty() {
        let count = facts.seeds.len();
        let addresses = facts.seeds.iter().flat_map(|seed| seed.addresses.iter().flatten()).count();
        Finding::ok(CHECK, format!("{count} resolve to {addresses} addresses"))
    } else if lost.len() < facts.seeds.len() {
        Finding::warn(CHECK, format!("not all resolve: {}", lost.join(", ")), fix)
    } else {
        Finding::fail(CHECK, format!("none resolves: {}", lost.join(", ")), fix)
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Fail, Ok, Warn};
    use super::super::facts::{Seed, good, good_node};
    use super::*;

    fn port(key: &'static str, number: u16, state: PortState) -> Port {
        Port { key, address: ([127, 0, 0, 1], number).into(), state }
    }

    #[test]
    fn a_port_is_free_or_the_nodes_own_or_in_the_way() {
        let mut facts = good();
        facts.ports = vec![
            port(keys::CLIENT_LISTEN, 6379, PortState::Taken),
            port(keys::ADMIN_LISTEN, 9400, PortState::Taken),
            port(keys::PEER_LISTEN, 7401, PortState::Free),
        ];
        let found = ports(&facts);
        assert_eq!(found.iter().map(|it| it.level).collect::<Vec<_>>(), [Fail, Fail]);
        assert!(found[0].fix.as_ref().unwrap().contains("sport = :6379"));
        facts.node = Some(good_node());
        let found = ports(&facts);
        assert_eq!((found.len(), found[0].level), (1, Ok), "{found:?}");
        assert_eq!(found[0].found, "2 held by n1, 1 free");
        facts.ports.push(port(keys::CLIENT_LISTEN, 6380, PortState::Taken));
        assert_eq!(ports(&facts)[0].found, "3 held by n1, 1 free", "it serves clients on both");
        facts.ports.push(port(keys::CLUSTER_LISTEN, 9999, PortState::Taken));
        assert_eq!(ports(&facts)[0].level, Fail, "another process has that one");
        facts.ports.pop();
        facts.node.as_mut().unwrap().is_here = false;
        assert_eq!(ports(&facts).len(), 3, "a node elsewhere holds nothing here");
        facts.ports = vec![port(keys::PEER_LISTEN, 1, PortState::Refused("denied".to_owned()))];
        assert!(ports(&facts)[0].found.contains("denied"));
    }

    #[test]
    fn seeds_must_resolve() {
        let seed = |name: &str, addresses: Result<usize, &str>| Seed {
            name: format!("{name}:7401"),
            addresses: addresses
                .map(|count| vec![([10, 0, 0, 1], 7401).into(); count])
                .map_err(str::to_owned),
        };
        let mut facts = good();
        assert_eq!(seeds(&facts)[0].level, Ok);
        facts.seeds = vec![seed("a", Result::Ok(2)), seed("b", Result::Ok(1))];
        assert_eq!(seeds(&facts)[0].found, "2 resolve to 3 addresses");
        facts.seeds.push(seed("c", Err("no such host")));
        let found = seeds(&facts);
        assert_eq!(found[0].level, Warn);
        assert!(found[0].found.contains("c:7401 (no such host)"), "{found:?}");
        facts.seeds.drain(..2);
        assert_eq!(seeds(&facts)[0].level, Fail);
    }
}
