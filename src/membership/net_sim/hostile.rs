//! Datagrams that no member sent, or not now: they change nothing and are never answered.

use super::*;
use crate::membership::tests::key_ring;
use crate::metrics::GossipMetrics;

/// Everything that a stranger could bring about.
fn fingerprint(core: &Membership) -> (Vec<MemberRecord>, Option<Instant>) {
    (core.records(), core.poll_timeout())
}

fn stays_unmoved(net: &mut Network, datagram: &[u8]) {
    let now = net.now;
    let core = net.hosts[0].core.as_mut().unwrap();
    let before = fingerprint(core);
    core.handle_packet(now, "10.9.9.9:1".parse().unwrap(), &mut datagram.to_vec());
    assert_eq!(core.poll_transmit(), None, "never answered");
    assert_eq!(core.poll_event(), None);
    assert_eq!(fingerprint(core), before);
}

#[test]
fn garbage_changes_nothing() {
    let mut net = Network::cluster(3, 61);
    for length in [0, 1, 17, 18, 33, 34, 35, 80, 1400, 1401, 9000] {
        for version in [0, 1, 255] {
            let mut bytes: Vec<u8> = (0..length).map(|_| net.rng.random()).collect();
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            stays_unmoved(&mut net, &bytes);
        }
    }
}

/// The datagrams that node 1 sends to node 0 within three seconds.
fn recorded(net: &mut Network) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    let end = net.now + Duration::from_secs(3);
    loop {
        if let Some(((at, _), Happening::Datagram { to: 0, from, bytes })) =
            net.queue.first_key_value()
            && *at <= end
            && index_of(*from) == 1
        {
            heard.push(bytes.clone());
        }
        if !net.step(end) {
            return heard;
        }
    }
}

#[test]
fn a_replayed_or_altered_datagram_changes_nothing() {
    let mut net = Network::cluster(3, 62);
    let heard = recorded(&mut net);
    assert!(!heard.is_empty());
    for datagram in heard {
        stays_unmoved(&mut net, &datagram);
        for at in 0..datagram.len() {
            let mut altered = datagram.clone();
            altered[at] ^= 1;
            stays_unmoved(&mut net, &altered);
        }
    }
}

#[test]
fn a_stranger_with_another_key_or_cluster_is_not_heard() {
    let mut net = Network::cluster(3, 63);
    let victim = net.core(0).identity().clone();
    let keys = [
        KeyRing::new("test".parse().unwrap(), 1, GossipKey::new([8; 32])),
        KeyRing::new("other".parse().unwrap(), 1, GossipKey::new([7; 32])),
        KeyRing::new("test".parse().unwrap(), 2, GossipKey::new([7; 32])),
    ];
    for ring in keys {
        let options = MembershipOptions {
            identity: identity(77, 1),
            profile: crate::config::GossipProfile::Lan,
            probe_interval: None,
            ring_grace: Duration::from_secs(30),
        };
        let metrics = GossipMetrics::unregistered();
        let mut stranger = Membership::new(options, ring, 1, metrics, net.now);
        stranger.announce(net.now, victim.clone());
        let datagram = stranger.poll_transmit().unwrap();
        stays_unmoved(&mut net, &datagram.bytes);
    }
}

#[test]
fn a_datagram_that_opens_but_makes_no_sense_is_counted_and_dropped() {
    let mut net = Network::cluster(3, 64);
    let mut insider = seal::Sealer::new(key_ring(), 4711);
    for length in [0, 1, 40, 300] {
        let packet: Vec<u8> = (0..length).map(|_| net.rng.random()).collect();
        stays_unmoved(&mut net, &insider.seal(&packet));
    }
}
