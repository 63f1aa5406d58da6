//! What seeds found, as worlds of their own: a seed draws another world when the drawing changes.

use super::apart::Order;
use super::faults::{Fault, Kind, Script, Trouble};
use super::side_by_side;

/// Each story is told with so many seeds, which draw what clients do and how long messages take.
const SEEDS: std::ops::Range<u64> = 0..4;

const fn fault(kind: Kind, node: usize, lasts: u64) -> Fault {
    Fault { kind, node, after: 0, lasts }
}

/// Two copies, and writes that too few copies have are refused.
fn strict(troubles: &[&[Fault]]) -> Script {
    let troubles =
        troubles.iter().map(|faults| Trouble { quiet: 2_000, faults: faults.to_vec() }).collect();
    Script {
        copies: 2,
        strict: true,
        quorum: false,
        short_grace: true,
        forgetful: false,
        lopsided: false,
        saving: false,
        troubles,
    }
}

/// Nodes that are cut off for so long that others take their places.
pub(crate) fn cuts() -> Script {
    strict(&[&[fault(Kind::Cut, 1, 8_900)], &[fault(Kind::Cut, 0, 5_000)]])
}

/// Nodes that are killed while everybody writes, one after the other.
pub(crate) fn crashes() -> Script {
    let crash =
        |node, lasts| Trouble { quiet: 2_000, faults: vec![fault(Kind::Crash, node, lasts)] };
    let killed =
        [(1, 558), (0, 389), (0, 580), (0, 1_337), (0, 1_120), (2, 362), (1, 1_298), (1, 1_099)];
    let troubles = killed.map(|(node, lasts)| crash(node, lasts)).to_vec();
    Script { troubles, ..strict(&[]) }
}

/// A node joins and one dies a moment later; then one leaves, and the one that joined dies.
pub(crate) fn comings() -> Script {
    let join = fault(Kind::Join, 3, 0);
    let crash = |node, after, lasts| Fault { after, ..fault(Kind::Crash, node, lasts) };
    let leave = fault(Kind::Leave, 2, 0);
    strict(&[&[join, crash(0, 868, 3_291)], &[leave, crash(3, 94, 2_848)]])
}

fn tell(script: &Script) {
    tell_with(script, SEEDS);
}

fn tell_with(script: &Script, seeds: std::ops::Range<u64>) {
    let seeds: Vec<u64> = seeds.collect();
    let run = |seed: &u64| Order::of_seed(*seed).with_script(script.clone()).run(true);
    let passed = side_by_side(&seeds, |seed| run(seed).is_some().then_some(*seed));
    let failed: Vec<&u64> = seeds.iter().filter(|seed| !passed.contains(&Some(**seed))).collect();
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

/// A node that nobody heard for nine seconds lost its place and took everything over for itself. When
/// it was heard again the others dropped the copies that it claimed to have, and an INCR that they
/// had acknowledged was lost to its higher term.
#[test]
fn a_node_that_was_not_heard_is_not_believed() {
    tell(&strict(&[
        &[fault(Kind::Crash, 2, 7_535)],
        &[fault(Kind::OneWay { mute: true }, 1, 8_985)],
    ]));
}

/// Without the rule the story before is not told wrongly any more, this one is.
pub(crate) fn unheard() -> Script {
    strict(&[&[fault(Kind::OneWay { mute: true }, 1, 10_443)]])
}

/// A node joined while nobody heard another, which did not know the joiner's address therefore. A call that
/// could not be made passed for one without an answer: the node took the joiner for silent, lifted its fence
/// without asking anybody, and deposed all of them.
#[test]
fn who_cannot_be_asked_is_not_silent() {
    let mute = Fault { after: 1_496, ..fault(Kind::OneWay { mute: true }, 2, 11_620) };
    let join = Fault { after: 6_860, ..fault(Kind::Join, 3, 0) };
    tell_with(&strict(&[&[mute, join]]), 10..11);
    tell_with(&strict(&[&[mute, join]]), 127..128);
}

/// A node leaves while nobody hears another: one is left on each side.
pub(crate) fn lonely() -> Script {
    let mute = Fault { after: 381, ..fault(Kind::OneWay { mute: true }, 2, 13_578) };
    strict(&[&[mute, Fault { after: 11_431, ..fault(Kind::Leave, 0, 0) }]])
}

/// One node was cut off while another left: one was left on each side, and each found the other dead. The one
/// that had been alone came back under higher terms and acted with its old copies, while the other discounted
/// its own, which had all that was acknowledged.
#[test]
fn of_two_that_were_each_alone_both_copies_count() {
    let cut = Fault { after: 1_025, ..fault(Kind::Cut, 0, 6_274) };
    let leave = Fault { after: 2_998, ..fault(Kind::Leave, 1, 0) };
    let split = strict(&[&[fault(Kind::Crash, 0, 8_231)], &[cut, leave]]);
    tell_with(&Script { lopsided: true, ..split }, 1_459..1_460);
    tell_with(&lonely(), 1_266..1_267);
}

/// Of three copies two were enough. The one that took over from a dead node had missed a write for a moment,
/// was proved equal from before, and did not ask the third, which had acknowledged it.
#[test]
fn who_takes_over_asks_all_where_fewer_acknowledge() {
    let crash = |node, after, lasts| Fault { after, ..fault(Kind::Crash, node, lasts) };
    let cut = fault(Kind::Cut, 2, 3_111);
    let troubles =
        strict(&[&[cut, crash(0, 2_922, 2_467)], &[crash(0, 0, 5_174)], &[crash(1, 0, 3_674)]]);
    tell_with(&Script { copies: 3, quorum: true, ..troubles }, 19..20);
}

/// Three copies, of which two are enough, and one trouble after so many quiet milliseconds.
fn of_three(quiet: u64, faults: &[Fault]) -> Script {
    let troubles = vec![Trouble { quiet, faults: faults.to_vec() }];
    Script { copies: 3, quorum: true, troubles, ..strict(&[]) }
}

/// Nobody heard one of three for ten seconds. It took one of the others for dead and the last one for silent, lifted its
/// fence on nobody's word, and took everything; what it had queued deposed that last one when it was heard
/// again, and INCRs that two had acknowledged were lost.
#[test]
fn of_two_that_are_left_who_has_no_answer_may_be_the_one_that_is_cut_off() {
    let mute = Fault { after: 371, ..fault(Kind::OneWay { mute: true }, 1, 10_807) };
    let join = Fault { after: 6_488, ..fault(Kind::Join, 3, 0) };
    let script = Script { short_grace: false, saving: true, ..of_three(2_697, &[mute, join]) };
    tell_with(&Script { lopsided: true, ..script }, 0..5);
}

/// A node stood still while another, that had just been started again, turned active: it took that one for dead
/// and off the ring under its earlier revision, and gave the later one no place.
#[test]
fn who_turns_active_while_another_takes_it_for_dead_gets_its_place_back() {
    let stall = Fault { after: 492, ..fault(Kind::Stall, 2, 13_861) };
    tell(&of_three(2_000, &[stall, fault(Kind::Crash, 1, 378)]));
}

/// Of three copies one was cut off for a moment. The next took its slots over, told one other, and died; the first one
/// went on under its term, which that other did not follow any more.
#[test]
fn who_took_over_and_died_at_once_leaves_no_two_terms() {
    let crash = Fault { after: 979, ..fault(Kind::Crash, 0, 9_810) };
    let script = of_three(3_543, &[fault(Kind::Cut, 1, 836), crash]);
    tell_with(&Script { lopsided: true, ..script }, 0..7);
}

/// Two had taken slots under the same counter, and the holder of the lower term followed the other with its
/// next write only: empty slots went on under two terms.
#[test]
fn a_tie_of_two_terms_is_settled_without_a_write() {
    let mute = Fault { after: 757, ..fault(Kind::OneWay { mute: true }, 1, 6_104) };
    let leave = Fault { after: 578, ..fault(Kind::Leave, 2, 0) };
    tell_with(&strict(&[&[mute, leave]]), 1_433..1_434);
}

/// A node took slots while it was fenced, because its round had begun before: acknowledged INCRs were
/// lost after a crash and a cut of eight seconds.
#[test]
fn no_bit_is_taken_while_a_node_is_fenced() {
    tell(&strict(&[&[fault(Kind::Crash, 2, 362)], &[fault(Kind::Cut, 1, 8_469)]]));
}

/// A node that was cut off had suspected the others where nobody heard it, and declared them dead when
/// it was back: they were fenced, and slots had nobody who acted, seconds after all had settled.
#[test]
fn who_was_cut_off_declares_nobody_dead_afterwards() {
    tell(&strict(&[&[fault(Kind::Crash, 0, 6_689)], &[fault(Kind::Cut, 0, 3_081)]]));
    let mute = Kind::OneWay { mute: true };
    tell(&strict(&[&[fault(Kind::Crash, 0, 7_391)], &[fault(mute, 0, 5_782)]]));
}

/// With one copy of each slot a delete left no tombstone: a key deleted while its slot moved came back.
#[test]
fn a_deleted_key_stays_deleted_where_there_is_one_copy() {
    let restart = |node| fault(Kind::Restart, node, 400);
    let join = Fault { after: 300, ..fault(Kind::Join, 3, 0) };
    let script = strict(&[&[restart(0)], &[restart(1), join], &[restart(2)], &[restart(0)]]);
    tell(&Script { copies: 1, strict: false, ..script });
}

/// A node that was leaving acted for a slot with the acknowledgements of one of its set, and handed over to that.
/// Then all nodes fenced at once, and the other of the set, which had been cut off and knew nothing of it,
/// took the slot with its old copy: an INCR was lost.
fn unaware() -> Script {
    let join = Fault { after: 217, ..fault(Kind::Join, 3, 0) };
    let leave = Fault { after: 3_300, ..fault(Kind::Leave, 2, 0) };
    strict(&[&[fault(Kind::Crash, 2, 1_975), join], &[fault(Kind::Cut, 3, 6_726), leave]])
}

#[test]
fn who_takes_a_free_slot_catches_up_with_its_highest_term() {
    tell_with(&unaware(), 35..38);
}

/// A node stood still for six seconds just as a DEL had come to its socket. Its client gave it up, and set the
/// key through another node, which acknowledged it; then the first node woke and deleted the key.
pub(crate) fn stops() -> Script {
    let stall = |node| fault(Kind::Stall, node, 5_750);
    strict(&[&[stall(0)], &[stall(1)], &[stall(2)], &[stall(0)]])
}

#[test]
fn a_command_from_before_a_stop_is_not_executed() {
    tell(&stops());
}

/// A node was cut off for longer than tombstones are kept. It had keys that were deleted meanwhile, written
/// since it was filled and never compared, and they came back with it.
#[test]
fn what_was_deleted_does_not_come_back_with_a_node_after_its_tombstone_is_gone() {
    let script = strict(&[&[fault(Kind::Cut, 1, 20_000)], &[fault(Kind::Cut, 0, 20_000)]]);
    tell_with(&Script { forgetful: true, ..script }, 5..12);
}

/// A node was cut off while another joined and took slots of it over. When it was heard again nobody whom it knew
/// acted for them, and it took them with its old copies: an INCR was lost.
fn strangers() -> Script {
    let join = Fault { after: 1_000, ..fault(Kind::Join, 3, 0) };
    let script = strict(&[&[fault(Kind::Cut, 1, 6_000), join]]);
    Script { short_grace: false, lopsided: true, ..script }
}

#[test]
fn who_does_not_know_everybody_takes_nothing() {
    tell_with(&strangers(), 8..11);
    tell_with(&strangers(), 23..26);
}

/// A write was acknowledged by a holder that was just being replaced, and had not arrived at the one that came in
/// its place when the acting node crashed: the old holder gave its copy up, and an INCR was lost.
#[test]
fn who_is_replaced_keeps_its_copy_until_everything_has_arrived() {
    let crash = |after| Fault { after, ..fault(Kind::Crash, 1, 4_400) };
    for after in [90, 100, 110] {
        tell_with(&strict(&[&[fault(Kind::Join, 3, 0), crash(after)]]), 0..6);
    }
}

#[test]
fn nodes_come_and_go_while_everybody_writes() {
    let (join, leave) = (|node| fault(Kind::Join, node, 0), |node| fault(Kind::Leave, node, 0));
    tell(&strict(&[&[join(3)], &[leave(1)], &[join(1)], &[leave(0)], &[join(0)], &[leave(2)]]));
}

#[test]
fn a_node_with_a_wrong_clock_hands_over() {
    tell(&strict(&[&[fault(Kind::Skew, 1, 8_000)], &[fault(Kind::Skew, 0, 8_001)]]));
}
