//! What is planned in situations that are easily got wrong, on made-up clusters.

use std::sync::Arc;

use super::*;
use crate::cluster::tests::table_of;
use crate::cluster::view::Lacks;
use crate::members::MemberTable;
use crate::types::{Generation, MemberState, NodeId};

const GENERATION: Generation = Generation(1);

/// A cluster of up to five nodes as node `me` sees it, with two copies of each slot.
struct Scene {
    table: MemberTable,
    words: BTreeMap<NodeId, PeerHoldings>,
    own: Holdings,
    silent: BTreeSet<NodeId>,
    asking: SlotSet,
    filling: SlotSet,
    filled: SlotSet,
    settled: SlotSet,
}

fn nothing() -> Holdings {
    Holdings { generation: GENERATION, revision: 1, ..Holdings::default() }
}

impl Scene {
    fn new(me: u128, phases: &[Phase]) -> Self {
        let members: Vec<(u128, Phase)> = (0..).zip(phases.iter().copied()).collect();
        let table = table_of(NodeId(me), &members);
        let mut scene = Self {
            table,
            words: BTreeMap::new(),
            own: nothing(),
            silent: BTreeSet::new(),
            asking: SlotSet::new(),
            filling: SlotSet::new(),
            filled: SlotSet::new(),
            settled: SlotSet::full(),
        };
        for number in (0..phases.len() as u128).filter(|number| *number != me) {
            scene.words.insert(
                NodeId(number),
                PeerHoldings {
                    holdings: nothing(),
                    fresh: true,
                    out: false,
                    lacks: Lacks::default(),
                    fences: 0,
                },
            );
        }
        scene
    }

    fn state(mut self, number: usize, state: MemberState) -> Self {
        self.table.members[number].state = state;
        self
    }

    fn word(&mut self, number: u128) -> &mut Holdings {
        if NodeId(number) == self.table.me {
            return &mut self.own;
        }
        &mut self.words.get_mut(&NodeId(number)).expect("a node of the scene").holdings
    }

    fn view(&self) -> View {
        View::build(Arc::new(self.table.clone()), &BTreeMap::new(), None)
    }

    /// Every slot is complete at its set, and its first member acts.
    fn in_order(mut self) -> Self {
        let placement = Arc::clone(&self.view().placement);
        for slot in Slot::all() {
            for (place, node) in placement.replica_set(slot).enumerate() {
                self.word(node.0).complete.insert(slot);
                if place == 0 {
                    self.word(node.0).acting.insert(slot);
                }
            }
        }
        self
    }

    fn plan(&self) -> Plan {
        plan(&Known {
            view: &self.view(),
            own: &self.own,
            peers: &self.words,
            silent: &self.silent,
            asking: &self.asking,
            filling: &self.filling,
            filled: &self.filled,
            settled: &self.settled,
        })
    }
}

const ACTIVE: [Phase; 3] = [Phase::Active; 3];

#[test]
fn nothing_moves_where_everything_is_in_order() {
    let plan = Scene::new(0, &ACTIVE).in_order().plan();
    assert!(plan.is_idle() && plan.is_complete());
    assert_eq!(plan.under_replicated, 0);
}

#[test]
fn a_joiner_fills_its_future_slots_from_whoever_acts() {
    let mut scene = Scene::new(3, &[Phase::Active, Phase::Active, Phase::Active, Phase::Joining]);
    scene = scene.in_order();
    let first = scene.plan();
    assert_eq!(first.fills.values().map(SlotSet::len).sum::<usize>(), first.assigned);
    assert!(first.assigned > 0 && first.releases.is_empty() && first.takes.is_empty());
    scene.filling = first.fills.into_values().next().expect("a donor");
    let rest = scene.plan();
    assert!(rest.fills.values().all(|slots| slots.iter().all(|s| !scene.filling.contains(s))));
}

#[test]
fn a_dead_owners_slots_are_taken_by_the_next_complete_member_once_all_were_heard() {
    let scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    let view = scene.view();
    let second = |slot: &Slot| view.placement.replica_set(*slot).eq([NodeId(0), NodeId(1)]);
    let expected: SlotSet = Slot::all().filter(second).collect();
    assert!(!expected.is_empty());
    assert_eq!(scene.plan().takes, expected);

    let mut unheard = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    unheard.words.get_mut(&NodeId(2)).expect("a peer").fresh = false;
    assert!(unheard.plan().takes.is_empty(), "somebody did not give its word");
}

/// A node that had been cut off took slots over from one that it had declared dead, and which another
/// heard all the time.
#[test]
fn nobody_is_dead_whom_another_hears() {
    let mut scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    assert!(!scene.plan().takes.is_empty());
    let word = scene.words.get_mut(&NodeId(2)).expect("a node of the scene");
    word.lacks.dead = true;
    assert!(scene.plan().takes.is_empty());
}

/// A node that had been cut off took slots that nobody whom it knew acted for: the one that did had joined
/// meanwhile, and the INCRs that it had acknowledged were lost (seed 13996).
#[test]
fn nobody_acts_for_a_slot_only_where_everybody_is_known() {
    let mut scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    assert!(!scene.plan().takes.is_empty());
    let word = scene.words.get_mut(&NodeId(2)).expect("a node of the scene");
    word.lacks.strangers = true;
    assert!(scene.plan().takes.is_empty());
}

#[test]
fn a_suspect_member_is_heard_and_a_dead_one_is_not() {
    let states = [MemberState::Suspect, MemberState::Dead, MemberState::Left];
    let scene = (0..)
        .zip(states)
        .fold(Scene::new(3, &[Phase::Active; 4]), |scene, (node, state)| scene.state(node, state));
    let view = scene.view();
    assert_eq!(view.heard(), [NodeId(0), NodeId(3)]);
    let lacks = |node| view.lacks(&[NodeId(0), NodeId(node), NodeId(3)]);
    assert_eq!([lacks(0), lacks(2)], [Lacks::default(); 2], "who has left is not missed");
    assert_eq!(lacks(1), Lacks { dead: true, strangers: false });
    assert_eq!(lacks(9), Lacks { dead: false, strangers: true });
}

#[test]
fn the_word_of_a_node_counts_that_was_taken_for_dead_and_came_back() {
    let mut scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    let free = scene.plan().takes;
    scene.table.members[2].identity.generation = Generation(2);
    assert_eq!(scene.plan().takes, free, "it did not restart, so its word has the old number");
}

#[test]
fn a_suspect_owner_keeps_its_slots() {
    let scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Suspect);
    assert!(scene.plan().is_idle());
}

#[test]
fn the_next_complete_member_stands_in_for_a_silent_one() {
    let mut scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Suspect);
    let owned = scene.words[&NodeId(0)].holdings.acting.clone();
    scene.words.get_mut(&NodeId(0)).expect("a peer").fresh = false;
    assert!(scene.plan().takes.is_empty(), "it may be well");
    scene.silent.insert(NodeId(0));
    let taken = scene.plan().takes;
    assert!(!taken.is_empty() && taken.iter().all(|slot| owned.contains(slot)));
    let other = scene.words[&NodeId(2)].holdings.complete.clone();
    assert!(owned.iter().all(|slot| taken.contains(slot) != other.contains(slot)));
    scene.asking = taken.iter().take(10).collect();
    assert_eq!(scene.plan().takes.len() + 10, taken.len(), "a release of those is under way");
}

#[test]
fn a_silent_copy_is_a_copy() {
    let mut scene = Scene::new(0, &[Phase::Returning; 3]);
    let free = scene.plan().promotes.len();
    scene.silent.insert(NodeId(1));
    assert_eq!(scene.plan().promotes.len(), free);
    scene.word(1).complete = SlotSet::full();
    assert!(scene.plan().promotes.is_empty(), "it may be back any moment");
}

#[test]
fn a_slot_on_its_way_to_somebody_is_taken_by_nobody() {
    let mut scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    let free = scene.plan().takes;
    let moving: SlotSet = free.iter().take(10).collect();
    scene.word(2).in_transit = moving.clone();
    let taken = scene.plan().takes;
    assert_eq!(taken.len() + 10, free.len());
    assert!(moving.iter().all(|slot| !taken.contains(slot)));
}

#[test]
fn only_the_first_member_promotes_and_only_when_no_copy_can_be_left() {
    let scene = |me| Scene::new(me, &[Phase::Returning; 3]);
    let mut promoted: Vec<SlotSet> = (0..3).map(|me| scene(me).plan().promotes).collect();
    assert_eq!(promoted.iter().map(SlotSet::len).sum::<usize>(), usize::from(SLOTS));
    let first = promoted.remove(0);
    assert!(promoted.iter().all(|other| other.iter().all(|slot| !first.contains(slot))));

    let mut held = scene(0);
    held.word(2).complete = SlotSet::full();
    assert!(held.plan().promotes.is_empty(), "somebody has a copy");
    let absent = scene(0).state(1, MemberState::Dead);
    let view = absent.view();
    let alone = |slot: &Slot| !view.placement.holds(NodeId(1), *slot);
    assert!(absent.plan().promotes.iter().all(|slot| alone(&slot)), "an absent holder may return");
}

#[test]
fn a_former_holder_keeps_a_slot_until_every_member_of_its_set_has_it() {
    let mut scene = Scene::new(0, &ACTIVE).in_order();
    let view = scene.view();
    let foreign = Slot::all().find(|slot| !view.placement.holds(NodeId(0), *slot));
    let foreign = foreign.expect("two copies on three nodes leave some out");
    scene.own.complete.insert(foreign);
    assert!(scene.plan().drops.contains(foreign));
    scene.settled.remove(foreign);
    assert!(scene.plan().drops.is_empty(), "some of what it holds may not have arrived there");
    scene.settled.insert(foreign);
    let last = view.placement.replica_set(foreign).last().expect("a set of two");
    scene.word(last.0).complete.remove(foreign);
    assert!(!scene.plan().drops.contains(foreign));
}

#[test]
fn a_returning_owner_asks_for_its_slots_only_when_it_is_active_again() {
    let mut scene = Scene::new(0, &[Phase::Returning, Phase::Active, Phase::Active]).in_order();
    let own = std::mem::take(&mut scene.own.acting);
    let placement = Arc::clone(&scene.view().placement);
    for slot in own.iter() {
        let second = placement.replica_set(slot).nth(1).expect("a set of two");
        scene.word(second.0).acting.insert(slot);
    }
    assert!(scene.plan().is_idle());
    scene.table.members[0].identity.phase = Phase::Active;
    let releases = scene.plan().releases;
    assert_eq!(releases.values().map(SlotSet::len).sum::<usize>(), own.len());
}

#[test]
fn a_node_with_a_wrong_clock_is_not_rightful_unless_it_is_the_only_one() {
    let mut scene = Scene::new(1, &ACTIVE).in_order();
    scene.word(0).clock_wrong = true;
    let view = scene.view();
    let with_me = |slot: &Slot| view.placement.replica_set(*slot).eq([NodeId(0), NodeId(1)]);
    let expected: SlotSet = Slot::all().filter(with_me).collect();
    assert_eq!(scene.plan().releases.remove(&NodeId(0)), Some(expected));
    scene.own.clock_wrong = true;
    assert!(scene.plan().releases.is_empty(), "both are wrong: nothing is better");
}

#[test]
fn the_copy_that_goes_furthest_is_declared_complete_by_a_node_of_the_set_or_not() {
    let slot = Slot::new(7).expect("a slot");
    let returning = [Phase::Active, Phase::Returning, Phase::Returning];
    for me in 0..3 {
        let mut scene = Scene::new(me, &returning);
        for (node, kept) in [(0, 50), (1, 90), (2, 70)] {
            let word = scene.word(node);
            word.kept = kept;
            word.kept_slots.insert(slot);
        }
        scene.filled.insert(slot);
        assert_eq!(scene.plan().promotes.contains(slot), me == 1, "node {me}");
        let last = scene.word(2);
        (last.kept, last.kept_slots) = (LOADING, SlotSet::new());
        assert_eq!(
            scene.plan().promotes.contains(slot),
            me == 2,
            "it may find one that goes further"
        );
    }
}

#[test]
fn the_word_of_a_member_that_lost_its_place_moves_nothing() {
    let mut scene = Scene::new(1, &ACTIVE).in_order().state(0, MemberState::Dead);
    assert!(!scene.plan().takes.is_empty());
    scene.words.get_mut(&NodeId(2)).expect("a peer").out = true;
    let plan = scene.plan();
    assert!(plan.takes.is_empty() && plan.drops.is_empty(), "it may not know who acts");
}
