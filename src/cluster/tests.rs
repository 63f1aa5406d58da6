//! One node's cluster layer between made-up members.

use super::*;
use crate::clock::SimulatedClock;
use crate::members::{MemberInfo, MemberTable};
use crate::store::{Policy, StoreOptions};
use crate::types::{ClusterFacts, Identity, MemberState, Term, Weight};
use crate::wire::message::ReleasedSlot;

const ME: NodeId = NodeId(0);

/// A cluster with two copies of each slot and members of these numbers and phases, as `me` sees it.
pub(super) fn table_of(me: NodeId, members: &[(u128, Phase)]) -> MemberTable {
    let member = |(node, phase): &(u128, Phase)| MemberInfo {
        identity: Identity {
            node: NodeId(*node),
            gossip: ([127, 0, 0, 1], 7400).into(),
            generation: Generation(1),
            revision: 0,
            phase: *phase,
            weight: Weight::DEFAULT,
            zone: 0,
        },
        state: MemberState::Alive,
        since: WallMillis(0),
        removed: false,
        meta: None,
    };
    let facts = ClusterFacts {
        name: "test".parse().unwrap(),
        replicas: 2,
        virtual_nodes: 64,
        ring_grace: Duration::from_secs(30),
        tombstone_grace: Duration::from_hours(1),
        revision: 1,
        origin: 0,
    };
    let members = members.iter().map(member).collect();
    let (refutations, formed, waiting_for) = (0, true, String::new());
    MemberTable { me, members, facts, refutations, formed, waiting_for }
}

fn table(members: &[(u128, Phase)]) -> Arc<MemberTable> {
    table_of(ME, members).into()
}

fn node(table: Arc<MemberTable>) -> Arc<Shared> {
    let store = Store::new(StoreOptions {
        shards: 2,
        limit: ByteSize(1 << 20),
        policy: Policy::Evict,
        digest_seed: 1,
        hash_seed: 2,
        slot_of: crate::ring::slot_of,
    });
    let parts = ClusterParts {
        store: Arc::new(store),
        clock: Arc::new(SimulatedClock::new(WallMillis(1_700_000_000_000))),
        rng: Randomness::from_seed(7),
        metrics: Metrics::unregistered(),
        table,
    };
    let options = ClusterOptions {
        me: ME,
        generation: Generation(1),
        former: BTreeSet::new(),
        acks: Acks::Quorum,
        acks_shortfall: AcksShortfall::Accept,
        call_timeout: Duration::from_millis(250),
        op_timeout: Duration::from_secs(2),
        sync_rate: ByteSize(0),
        max_value: ByteSize(1 << 20),
    };
    Shared::new(options, parts)
}

/// A joiner was filled by a node that heard it, which then handed the slot to one that did not hear it
/// yet: what that one wrote until it did went nowhere, and nobody looked. The joiner passed for
/// complete without it (seed 12431).
#[tokio::test(start_paused = true)]
async fn who_was_not_heard_when_a_slot_was_handed_over_is_compared_when_it_is() {
    use Phase::{Active, Joining};
    let (other, joiner) = (NodeId(1), NodeId(2));
    let shared = node(table(&[(0, Active), (1, Active)]));
    shared.publish(table(&[(0, Active), (1, Active)]));
    let grown = table(&[(0, Active), (1, Active), (2, Active)]);
    let target = View::build(Arc::clone(&grown), &BTreeMap::new(), None).placement;
    let slot = Slot::all().find(|slot| target.holds(ME, *slot) && target.holds(joiner, *slot));
    let slot = slot.expect("three nodes share some slot by two");
    let term = Term { counter: 3, holder: 9 };
    {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.term) = (true, term);
    }
    let followers = vec![(other, true), (joiner, false)];
    let given = ReleasedSlot { slot, term, clock: 5, marks: Vec::new(), followers };
    let mut to_drive = replicate::ToDrive::new();
    assert_eq!(shared.accept(&shared.view(), other, &[given], &mut to_drive), 1);

    shared.publish(table(&[(0, Active), (1, Active), (2, Joining)]));
    shared.publish(grown);
    let link = shared.link(joiner).expect("it is known now");
    assert!(link.missed().all().contains(slot), "it is compared");
    let link = shared.link(other).expect("it was known before");
    assert!(!link.missed().all().contains(slot), "who was heard all the time is not");
}

/// Else a former holder could give its copy up while what mends the new one is still queued.
#[test]
fn a_question_about_a_queue_begins_anew_with_every_change_drop_and_mending() {
    let (link, slot) = (Link::new(NodeId(1), 1), Slot::new(7).unwrap());
    let settles = |placements| [link.has_settled(0, placements), link.has_settled(0, placements)];
    assert_eq!(settles(1), [false, true], "nothing was queued");
    assert_eq!(settles(2), [false, true], "the placement changed");
    assert_eq!(settles(1), [false, true], "and back: what was between counts");
    link.set_dirty(slot);
    assert_eq!(settles(1), [false, true], "something was missed");
    let begun = link.missed().begin_compare(&[slot]);
    link.missed().end_compare(&begun, &SlotSet::new());
    assert_eq!(settles(1), [false, true], "and mended");

    let happened = crate::wire::replication::Happened::Acting;
    let item = crate::wire::replication::Item { slot, term: Term::default(), happened };
    let group = replicate::Group::of(&item);
    assert!(link.push(0, replicate::Outgoing::untallied(slot, &group)), "it is to be driven");
    assert!(link.has_settled(0, 1), "it was queued after the question");
    assert_eq!(settles(2), [false, false], "it has not arrived");
    link.set_standing(false, true);
    assert!(!link.has_settled(0, 2), "it was dropped");
    assert!(link.missed().contains(slot));
}
