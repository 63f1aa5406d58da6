//! What is proved of the core without a network; `net_sim` proves the rest.

use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::config::GossipProfile;
use crate::metrics::GossipMetrics;
use crate::types::{
    Generation, Identity, Instant, MemberRecord, MemberState, NodeId, Phase, Weight,
};

/// The identity of node `node` at `generation`, active, at the address that `net_sim` gives it.
pub(super) fn identity(node: u16, generation: u64) -> Identity {
    let [high, low] = node.to_be_bytes();
    Identity {
        node: NodeId(u128::from(node) << 64 | 0xabcd),
        gossip: SocketAddr::from(([10, 0, high, low], 7400)),
        generation: Generation(generation),
        revision: 0,
        phase: Phase::Active,
        weight: Weight::DEFAULT,
        zone: 0,
    }
}

pub(super) fn member(identity: Identity, state: MemberState) -> Member {
    Member { identity, incarnation: 0, state, since: Instant::ORIGIN, removed: false }
}

pub(super) fn record(identity: Identity, state: MemberState) -> MemberRecord {
    MemberRecord { identity, incarnation: 0, state, removed: false, meta: None }
}

pub(super) fn key_ring() -> KeyRing {
    KeyRing::new("test".parse().unwrap(), 1, GossipKey::new([7; 32]))
}

pub(super) fn core(identity: Identity, seed: u64, now: Instant) -> Membership {
    let options = MembershipOptions {
        identity,
        profile: GossipProfile::Lan,
        probe_interval: None,
        ring_grace: Duration::from_secs(30),
    };
    Membership::new(options, key_ring(), seed, GossipMetrics::unregistered(), now)
}

/// foca 2.0.0 tells a member that it is dead when the timer of a suspicion runs out that the member
/// has refuted long since. The engine keeps such timers from foca; when this test fails, foca was
/// mended and the guard may go.
#[test]
fn foca_alone_declares_a_refuted_member_dead() {
    let back = backchannel::SharedBackchannel::new(identity(1, 1));
    let mut swim = foca::Foca::with_custom_broadcast(
        identity(1, 1),
        profile::config_for(GossipProfile::Lan, None, 2),
        StdRng::seed_from_u64(1),
        codec::PacketCodec::new(back.clone()),
        notice::NoticeHandler::new(back),
    );
    let mut runtime = foca::AccumulatingRuntime::new();
    let refuted = foca::Member::new(identity(2, 1), 1, foca::State::Alive);
    swim.apply_many(std::iter::once(refuted), true, &mut runtime).unwrap();
    while runtime.to_send().is_some() {}
    let stale =
        foca::Timer::ChangeSuspectToDown { member_id: identity(2, 1), incarnation: 0, token: 0 };
    swim.handle_timer(stale, &mut runtime).unwrap();
    let (to, _turn_undead) = runtime.to_send().expect("foca sends what the guard keeps from it");
    assert_eq!(to, identity(2, 1));
}

#[test]
fn a_node_whose_generation_is_behind_jumps_ahead_at_once() {
    let mut node = core(identity(1, 5), 1, Instant::ORIGIN);
    let seen_by_others = record(identity(1, 900), MemberState::Dead);
    node.apply_records(Instant::ORIGIN, &[seen_by_others]);
    assert_eq!(node.identity().generation, Generation(901));
}

#[test]
fn renewals_are_at_most_one_a_second() {
    let mut node = core(identity(1, 5), 1, Instant::ORIGIN);
    for _ in 0..100 {
        let own = node.identity().generation;
        node.renew(Instant::ORIGIN, own);
    }
    assert_eq!(node.identity().generation, Generation(6));
    node.handle_timeout(Instant::ORIGIN + Duration::from_secs(1));
    assert_eq!(node.identity().generation, Generation(1005), "it follows the clock");
}

#[test]
fn a_stale_renew_notice_is_ignored() {
    let mut node = core(identity(1, 5), 1, Instant::ORIGIN);
    node.renew(Instant::ORIGIN, Generation(4));
    assert_eq!(node.identity().generation, Generation(5));
}

#[test]
fn a_forgotten_member_has_left() {
    let mut node = core(identity(1, 5), 1, Instant::ORIGIN);
    let records =
        [record(identity(2, 5), MemberState::Dead), record(identity(3, 5), MemberState::Alive)];
    node.apply_records(Instant::ORIGIN, &records);
    assert!(node.forget(Instant::ORIGIN, identity(2, 5).node));
    assert!(!node.forget(Instant::ORIGIN, identity(3, 5).node), "only the dead are forgotten");
    assert_eq!(node.member(identity(2, 5).node).unwrap().state, MemberState::Left);
}

/// A node that was cut off has suspected others where nobody heard it, and gossips that no more.
#[test]
fn a_suspect_that_is_heard_of_is_told_so() {
    let (mut node, now) = (core(identity(1, 5), 1, Instant::ORIGIN), Instant::ORIGIN);
    let mut suspect = core(identity(2, 5), 2, now);
    node.apply_records(now, &[record(identity(2, 5), MemberState::Suspect)]);
    while node.poll_event().is_some() {}
    let mut accused = |node: &mut Membership, now| {
        suspect.announce(now, identity(1, 5));
        while let Some(transmit) = suspect.poll_transmit() {
            node.handle_packet(now, transmit.to, &mut transmit.bytes.clone());
        }
        let events = std::iter::from_fn(|| node.poll_event());
        events.filter(|event| matches!(event, Event::Accuse { .. })).count()
    };
    assert_eq!(accused(&mut node, now), 1);
    assert_eq!(accused(&mut node, now), 0, "once a second");
    assert_eq!(accused(&mut node, now + Duration::from_secs(1)), 1);
}

/// A node was taken for dead and off the ring by one that stood still, while it turned active among the others.
/// The later revision made it alive again, but not a place of its own: placements differed for good.
#[test]
fn who_was_dead_is_told_to_renew_when_it_comes_back_under_a_later_revision() {
    let (mut node, now) = (core(identity(1, 5), 1, Instant::ORIGIN), Instant::ORIGIN);
    let id = identity(2, 5).node;
    node.apply_records(now, &[record(identity(2, 5), MemberState::Dead)]);
    node.note_removed(id, Generation(5));
    while node.poll_event().is_some() {}
    let mut seed = 1;
    let mut renewals = |now, generation, revision| {
        node.handle_timeout(now);
        let own = Identity { revision, ..identity(2, generation) };
        seed += 1;
        let mut member = core(own, seed, now);
        member.announce(now, identity(1, 5));
        while let Some(transmit) = member.poll_transmit() {
            node.handle_packet(now, transmit.to, &mut transmit.bytes.clone());
        }
        let notices = std::iter::from_fn(|| node.poll_event()).filter_map(|event| match event {
            Event::RenewNotice { node, above } => Some((node, above)),
            _ => None,
        });
        let notices: Vec<_> = notices.collect();
        let known = node.member(id).expect("it is known");
        (notices, known.state, known.removed)
    };
    let revived = (vec![(id, Generation(5))], MemberState::Alive, true);
    assert_eq!(renewals(now, 5, 1), revived);
    assert_eq!(renewals(now, 5, 1).0, [], "once in a while");
    let later = now + Duration::from_secs(20);
    assert_eq!(renewals(later, 5, 1).0, revived.0, "and again where that was lost");
    assert_eq!(renewals(later, 6, 0), (Vec::new(), MemberState::Alive, false));
}
