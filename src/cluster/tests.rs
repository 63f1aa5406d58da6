//! One node's cluster layer between made-up members.

use super::*;
use crate::clock::SimulatedClock;
use crate::members::{MemberInfo, MemberTable};
use crate::peers::memory::MemoryNetwork;
use crate::peers::{BulkStream, Serve, Served};
use crate::store::{Policy, StoreOptions};
use crate::types::{
    BodyRef, ClusterFacts, Identity, MemberState, RecordRef, Term, Version, Weight,
};
use crate::wire::message::{Holdings, ReleasedSlot, Request, Response};
use crate::wire::raw::Raw;

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

/// Answers questions about records, but for those about `damaged`.
struct Holder {
    shared: Arc<Shared>,
    damaged: Option<Slot>,
}

impl Serve for Holder {
    fn serve(&self, _from: Caller, request: &[u8], _budget: Duration) -> Served {
        Served::Now(match Request::decode(request) {
            Some(Request::List { slot, from }) if Some(slot) != self.damaged => {
                let (listed, next) = self.shared.list(slot, from);
                Response::Listed(listed, next, self.shared.floors(slot)).encode()
            }
            Some(Request::Fetch { slot, hashes }) => {
                Response::Fetched(Raw(&self.shared.fetch(slot, &hashes))).encode()
            }
            _ => Response::Unsupported.encode(),
        })
    }

    fn serve_bulk(&self, _from: Caller, _stream: BulkStream) {}
}

fn cache_beside(shared: Arc<Shared>, network: &MemoryNetwork) -> Cache {
    let serve = Holder { shared: Arc::clone(&shared), damaged: None };
    let peers = network.join(ME, Arc::new(serve));
    Cache::new(shared, peers)
}

fn put(shared: &Shared, slot: Slot, key: &[u8], version: Version) {
    let body = BodyRef::String(b"value");
    let record = RecordRef { key, version, expires_at: None, body };
    shared.store.lock(slot).merge(slot, record);
}

pub(super) fn table(members: &[(u128, Phase)]) -> Arc<MemberTable> {
    table_of(ME, members).into()
}

fn clock() -> Arc<SimulatedClock> {
    Arc::new(SimulatedClock::new(WallMillis(1_700_000_000_000)))
}

pub(super) fn node(table: Arc<MemberTable>) -> Arc<Shared> {
    node_by(clock(), table)
}

fn node_by(clock: Arc<SimulatedClock>, table: Arc<MemberTable>) -> Arc<Shared> {
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
        clock,
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
    assert_eq!(shared.accept(other, &[given], &mut to_drive), 1);

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

/// Else a deleted key could come back from it: who takes the slot over compares with it.
#[test]
fn a_former_holder_gets_the_writes_of_a_slot_until_it_says_that_it_has_none() {
    use Phase::Active;
    let (former, newcomer) = (NodeId(1), NodeId(2));
    let shared = node(table(&[(0, Active), (1, Active)]));
    shared.publish(table(&[(0, Active), (1, Active)]));
    let grown = table(&[(0, Active), (1, Active), (2, Active)]);
    let next = View::build(Arc::clone(&grown), &BTreeMap::new(), None).placement;
    let slot = Slot::all().find(|slot| next.holds(ME, *slot) && next.holds(newcomer, *slot));
    let slot = slot.expect("three nodes share some slot by two");
    let write = || {
        let term = Term { counter: 3, holder: 9 };
        let happened = crate::wire::replication::Happened::Acting;
        let item = crate::wire::replication::Item { slot, term, happened };
        let group = replicate::Group::of(&item);
        let outgoing = replicate::Outgoing::untallied(slot, &group);
        let shard = shared.store.lock(slot);
        shared.queue(&shared.view(), &shard, outgoing, &mut replicate::ToDrive::new());
        [former, newcomer].map(|node| shared.queued_bytes(node))
    };
    {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, true);
    }
    assert!(matches!(write(), [(1..), 0]), "the former one is of the set still");
    shared.publish(grown);
    let queued = shared.queued_bytes(former);
    assert_eq!(write()[0], queued, "it is not known to have a copy");
    let holdings = Holdings { complete: [slot].into_iter().collect(), ..Holdings::default() };
    shared.holdings.heard(former, Some(holdings), (false, view::Lacks::default()));
    shared.follow_holders(&shared.view(), &shared.holdings.peers());
    assert!(shared.link(former).expect("it is known").missed().contains(slot), "it is compared");
    let [to_former, to_newcomer] = write();
    assert!(to_former > queued && to_newcomer > 0);
    shared.forget_receiver(former, slot);
    assert_eq!(write()[0], to_former);
}

/// Who takes a slot over compares with all who have it until its own copy is proved.
#[test]
fn a_copy_is_proved_by_who_acts_once_its_set_has_what_was_queued_before() {
    use Phase::Active;
    let shared = node(table(&[(0, Active), (1, Active)]));
    shared.publish(table(&[(0, Active), (1, Active)]));
    let slots: SlotSet = Slot::all().take(2).collect();
    let [acting, held] = [0, 1].map(|index| slots.iter().nth(index).unwrap());
    for slot in [acting, held] {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, slot == acting);
    }
    let view = shared.view();
    let of = |slot: Slot| [slot].into_iter().collect::<SlotSet>();
    assert_eq!(shared.unproved(&view), of(held));
    shared.note_proved(&view, &of(held));
    assert!(shared.unproved(&view).is_empty());

    // The other way round: what this node says to those who ask.
    let id = view.placement.id().get();
    let settled = |id| shared.settled(&view, (NodeId(1), id), slots.clone());
    assert!(settled(id).is_empty(), "asked for the first time");
    assert_eq!(settled(id), of(acting));
    assert!(settled(id + 1).is_empty(), "of another placement");
    shared.link(NodeId(1)).expect("it is known").set_dirty(acting);
    assert!(settled(id).is_empty(), "it missed something");
    assert!(settled(id).is_empty(), "and is not mended yet");

    shared.publish(table(&[(0, Active), (1, Active), (2, Active)]));
    let asked = shared.unproved(&shared.view());
    assert!(asked.contains(held) && !asked.contains(acting), "the placement changed");
}

/// Sixty-four large values took longer than a call may, each time anew.
#[test]
fn a_fetch_of_large_values_is_answered_in_parts() {
    use crate::types::{BodyRef, RecordRef, Version};
    let shared = node(table(&[(0, Phase::Active)]));
    let slot = Slot::all().next().unwrap();
    let value = vec![b'x'; crate::limits::FILL_MESSAGE_BYTES / 2 + 1];
    let mut hashes = Vec::new();
    for key in [&b"\0one"[..], b"\0two", b"\0three"] {
        let version = Version { term: 1, clock: 5, origin: 1 };
        let record = RecordRef { key, version, expires_at: None, body: BodyRef::String(&value) };
        shared.store.lock(slot).merge(slot, record);
        hashes.push(shared.store.key_hash(key));
    }
    let keys = |hashes: &[u64]| {
        let records = shared.fetch(slot, hashes);
        let mut reader = crate::wire::snapshot::Reader::new(&records);
        let mut keys = Vec::new();
        while !reader.is_empty() {
            keys.push(reader.record().expect("it is whole").key.to_vec());
        }
        keys
    };
    assert_eq!(keys(&hashes), [b"\0one".to_vec(), b"\0two".to_vec()]);
    assert_eq!(keys(&hashes[2..]), [b"\0three".to_vec()]);
    assert!(keys(&[7]).is_empty());
}

/// What mends it may be queued behind the writes that are waited for, and is refused once it has heard of
/// the next term.
#[tokio::test(start_paused = true)]
async fn a_follower_that_is_mended_while_a_slot_is_handed_over_does_not_have_all() {
    use Phase::Active;
    let (mended, late) = (NodeId(1), NodeId(2));
    let members = [(0, Active), (1, Active), (2, Active)];
    let shared = node(table(&members));
    shared.publish(table(&members));
    let (slot, term) = (Slot::all().next().unwrap(), Term { counter: 3, holder: 9 });
    let queues = [shared.store.shard_index(slot)];
    let happened = crate::wire::replication::Happened::Acting;
    let group = replicate::Group::of(&crate::wire::replication::Item { slot, term, happened });
    let link = |node| shared.link(node).expect("it is known");
    assert!(link(late).push(queues[0], replicate::Outgoing::untallied(slot, &group)));

    for is_mended in [false, true] {
        let followers = vec![(ME, false), (mended, false), (late, false)];
        let mut released = [ReleasedSlot { slot, term, clock: 5, marks: Vec::new(), followers }];
        let drain = shared.drain_followers(&mut released, &queues);
        let mend = async {
            if is_mended {
                assert!(link(mended).missed().begin_mend(slot));
            }
        };
        tokio::join!(drain, mend);
        let followers = [(ME, true), (mended, !is_mended), (late, false)];
        assert_eq!(released[0].followers, followers);
    }
}

/// An asker whose first question was lost asks again; what came to nothing for the first question was taken
/// back, and given to nobody by the second.
#[test]
fn what_was_taken_back_is_not_given_by_a_later_answer() {
    use Phase::Active;
    let asker = NodeId(1);
    let shared = node(table(&[(0, Active), (1, Active)]));
    shared.publish(table(&[(0, Active), (1, Active)]));
    let view = shared.view();
    let is_askers = |slot: &Slot| view.replica_set(*slot).next().unwrap().node == asker;
    let slot = Slot::all().find(is_askers).expect("it owns some");
    {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, true);
    }
    let slots = [slot].into_iter().collect();
    let [first, second] = [0, 1].map(|_| shared.release(&view, asker, &slots));
    assert!(first.len() == 1 && first == second, "asking again gives the same answer");
    assert!(shared.is_given(&second[0], asker));
    shared.take_back(&first, asker, &mut replicate::ToDrive::new());
    assert!(!shared.is_given(&second[0], asker), "it acts again");
    let link = shared.link(asker).expect("it is known");
    assert!(link.missed().contains(slot), "and who may have asked meanwhile is compared");
}

/// By the placement of who handed the slot over the newcomer was not of the set yet, and nobody had sent it
/// what a deputy wrote; by that of who took it the newcomer was of the set already, and no news (seed 11459).
#[tokio::test(start_paused = true)]
async fn a_member_of_the_set_to_whom_the_last_acting_node_did_not_send_is_compared() {
    use Phase::Active;
    let (other, newcomer) = (NodeId(1), NodeId(2));
    let members = [(0, Active), (1, Active), (2, Active)];
    let shared = node(table(&members));
    shared.publish(table(&members));
    let placement = &shared.view().placement;
    let mut slots =
        Slot::all().filter(|slot| placement.holds(ME, *slot) && placement.holds(newcomer, *slot));
    let term = Term { counter: 3, holder: 9 };
    for follows in [true, false] {
        let slot = slots.next().expect("three nodes share some slots by two");
        {
            let mut shard = shared.store.lock(slot);
            let header = shard.header_mut(slot);
            (header.complete, header.term) = (true, term);
        }
        let mut followers = vec![(other, true)];
        followers.extend(follows.then_some((newcomer, true)));
        let given = ReleasedSlot { slot, term, clock: 5, marks: Vec::new(), followers };
        assert_eq!(shared.accept(other, &[given], &mut replicate::ToDrive::new()), 1);
        let is_dirty = |node| shared.link(node).expect("it is known").missed().contains(slot);
        assert_eq!((is_dirty(newcomer), is_dirty(other)), (!follows, false));
    }
}

/// Who had taken the sender off the ring followed its terms, and was deposed by its answers.
#[test]
fn nothing_of_an_outcast_counts_until_it_has_asked() {
    use Phase::Active;
    let outcast = NodeId(1);
    let members = [(0, Active), (1, Active)];
    let shared = node(table(&members));
    let mut gone = table_of(ME, &members);
    gone.members[1].state = MemberState::Dead;
    gone.members[1].removed = true;
    shared.publish(gone.into());
    // Alive again, and it has not heard that it lost its place.
    shared.publish(table(&members));
    let view = shared.view();
    let is_its = |slot: &Slot| view.replica_set(*slot).next().unwrap().node == outcast;
    let slot = Slot::all().find(is_its).expect("it owns some");
    let own = Term { counter: 3, holder: 7 };
    let act = || {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting, header.term) = (true, true, own);
    };
    let acts = || shared.store.lock(slot).header(slot).acting;
    let slots: SlotSet = [slot].into_iter().collect();
    act();
    let higher = Term { counter: 9, holder: 8 };
    shared.deposed(outcast, slot, higher, None);
    assert!(acts(), "its terms do not count");
    assert!(shared.release(&view, outcast, &slots).is_empty() && acts(), "it is given nothing");
    shared.hear_asked(outcast, Generation(1));
    shared.deposed(outcast, slot, higher, None);
    assert!(acts(), "it asked before it lost its place");
    shared.hear_asked(outcast, Generation(2));
    assert_eq!(shared.release(&view, outcast, &slots).len(), 1);
    act();
    shared.deposed(outcast, slot, higher, None);
    assert!(!acts(), "it has asked since");
}

#[test]
fn a_copy_that_is_discounted_is_told_to_who_asks_until_it_is_complete_again() {
    let shared = node(table(&[(0, Phase::Active), (1, Phase::Active)]));
    let slots: SlotSet = Slot::all().take(2).collect();
    let [mine, other] = slots.iter().collect::<Vec<_>>()[..] else { unreachable!() };
    for slot in slots.iter() {
        shared.store.lock(slot).header_mut(slot).complete = true;
    }
    let told = || shared.terms(NodeId(1), &slots, Generation(1));
    assert!(told().discounted.is_empty() && told().held[0].is_some());
    assert_eq!(shared.discount_copies(), 2);
    assert_eq!(told().discounted.iter().map(|it| it.0).collect::<Vec<_>>(), [mine, other]);
    assert_eq!(told().held, [None, None]);
    let mut to_drive = replicate::ToDrive::new();
    shared.promote(&shared.view(), mine, &mut to_drive);
    shared.drop_slot(other);
    assert!(told().discounted.is_empty() && told().held[0].is_some());
    let is_discounted = |slot| shared.store.lock(slot).header(slot).discounted;
    assert!(!is_discounted(mine) && !is_discounted(other));
}

/// The part of a damaged batch that could not be read passed for applied.
#[test]
fn nothing_of_a_damaged_batch_is_acknowledged() {
    use crate::wire::message::Response;
    use crate::wire::replication::{Happened, Item, put_item};
    let shared = node(table(&[(0, Phase::Active), (1, Phase::Active)]));
    let slot = Slot::all().next().expect("there are slots");
    shared.store.lock(slot).header_mut(slot).complete = true;
    let (term, happened) = (Term { counter: 2, holder: 1 }, Happened::Acting);
    let mut batch = Vec::new();
    put_item(&mut batch, &Item { slot, term, happened });
    let applied = |batch: &[u8]| shared.apply_batch(NodeId(1), batch);
    assert_eq!(applied(&batch), Response::Replicated(Vec::new()));
    let whole = batch.clone();
    batch.extend_from_slice(&whole[..whole.len() - 1]);
    assert_eq!(applied(&batch), Response::Unsupported);
}

/// One of three copies could acknowledge such a write after another node had taken the slot over without it.
#[test]
fn a_fenced_node_vouches_for_no_write_that_it_has_under_way() {
    use Phase::Active;
    let shared = node(table(&[(0, Active), (1, Active)]));
    shared.publish(table(&[(0, Active), (1, Active)]));
    let slots: SlotSet = Slot::all().take(1).collect();
    let slot = slots.iter().next().expect("it has one");
    {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, true);
    }
    let view = shared.view();
    shared.note_proved(&view, &slots);
    let happened = crate::wire::replication::Happened::Acting;
    let item = crate::wire::replication::Item { slot, term: Term::default(), happened };
    let group = replicate::Group::of(&item);
    let (tally, mut decision) = quorum::Tally::new(1, 1);
    let outgoing = replicate::Outgoing { slot, group: &group, tally: Some(&tally) };
    let link = shared.link(NodeId(1)).expect("it is known");
    assert!(link.push(shared.store.shard_index(slot), outgoing));
    assert!(decision.try_recv().is_err(), "it is waited for");
    assert_eq!(shared.proved.under(view.changes), slots);
    shared.fence_off(FenceReason::Late);
    assert_eq!(decision.try_recv(), Ok(quorum::Verdict::Deposed));
    assert!(shared.proved.under(view.changes).is_empty());
    tally.answered(crate::wire::message::Applied::Complete);
    assert!(link.queued_bytes() > 0, "it is sent all the same");
}

/// Slots that nobody acted for at the moment kept their keys, and the client was told that all was gone.
#[tokio::test(start_paused = true)]
async fn a_flush_is_done_when_every_slot_had_somebody_who_did_it() {
    let clock = clock();
    let shared = node_by(Arc::clone(&clock), table(&[(0, Phase::Active)]));
    let cache = cache_beside(Arc::clone(&shared), &MemoryNetwork::new());
    let late = Slot::all().next().expect("there are slots");
    let act = |slot| {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, true);
    };
    Slot::all().filter(|slot| *slot != late).for_each(act);
    // Taken in after a split, it is of a higher term than this node's.
    put(&shared, late, b"\0key", Version { term: 7, clock: 5, origin: 1 });
    let keys = || shared.store.lock(late).header(late).keys();
    let refused = cache.flush(None, Port::Client).await;
    assert!(refused.is_err_and(|why| why.contains("outcome unknown: 1 slots")));
    assert_eq!(keys(), 1);
    let takes_over = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        act(late);
    };
    let (flushed, ()) = tokio::join!(cache.flush(None, Port::Client), takes_over);
    assert_eq!((flushed, keys()), (Ok(()), 0));

    // One try is not followed by another that would flush what was written while the process stood still.
    put(&shared, late, b"\0new", Version { term: 8, clock: u64::MAX >> 16, origin: 1 });
    shared.store.lock(late).header_mut(late).acting = false;
    let stands_still = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        clock.skip(Duration::from_secs(30));
        act(late);
    };
    let (flushed, ()) = tokio::join!(cache.flush(None, Port::Client), stands_still);
    assert!(flushed.is_err() && keys() == 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_in_of_one_slot_holds_up_no_other() {
    let holder = NodeId(1);
    let (shared, theirs) = (node(table(&[(0, Phase::Active)])), node(table(&[(1, Phase::Active)])));
    let slots: Vec<Slot> = Slot::all().take(100).collect();
    for slot in &slots {
        put(&theirs, *slot, b"\0key", Version { term: 7, clock: 5, origin: 1 });
    }
    let network = MemoryNetwork::new();
    let cache = cache_beside(Arc::clone(&shared), &network);
    let damaged = slots.get(3).copied();
    network.join(holder, Arc::new(Holder { shared: theirs, damaged }));
    let (done, ended) = cache.pull_slots(holder, &slots).await;
    assert!(ended.is_err());
    let is_there = |slot: &Slot| shared.store.lock(*slot).header(*slot).keys() == 1;
    let there: SlotSet = slots.iter().copied().filter(is_there).collect();
    assert!(there == done && done.len() == 99 && !damaged.is_some_and(|slot| done.contains(slot)));

    // What came is of a higher term than this node followed: it acts above it, and so it writes.
    let slot = slots[0];
    shared.store.lock(slot).header_mut(slot).complete = true;
    shared.take_free(slot, &mut replicate::ToDrive::new());
    assert_eq!(shared.store.lock(slot).header(slot).term.counter, 8);
}

/// It had filled another under the hollow term, which that one followed for a minute.
#[test]
fn who_goes_above_a_hollow_term_compares_with_those_it_filled_under_it() {
    use Phase::Active;
    let (other, joiner) = (NodeId(1), NodeId(2));
    let members = [(0, Active), (1, Active), (2, Phase::Joining)];
    let shared = node(table(&members));
    shared.publish(table(&members));
    let slot = Slot::all().next().expect("there are slots");
    {
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, true);
        header.receivers.push(joiner);
        header.term = Term { counter: acting::HOLLOW, holder: ME.tag() };
    }
    let higher = Term { counter: 6, holder: 9 };
    shared.deposed(other, slot, higher, None);
    let shard = shared.store.lock(slot);
    assert_eq!((shard.header(slot).acting, shard.header(slot).term.counter), (true, 7));
    drop(shard);
    for node in [other, joiner] {
        assert!(shared.link(node).expect("it is known").missed().contains(slot));
    }
}

/// Whoever had missed a flush and took the slot over served what was flushed, and its copy differed for good.
#[tokio::test(start_paused = true)]
async fn who_takes_a_slot_over_hears_of_a_flush_that_it_missed() {
    let holder = NodeId(1);
    let (shared, theirs) = (node(table(&[(0, Phase::Active)])), node(table(&[(1, Phase::Active)])));
    let slot = Slot::all().next().expect("there are slots");
    let at = |clock| Version { term: 1, clock, origin: 1 };
    put(&shared, slot, b"\0flushed", at(5));
    put(&shared, slot, b"\0later", at(9));
    theirs.store.lock(slot).set_floor(slot, None, at(7));
    put(&theirs, slot, b"\0later", at(9));
    let network = MemoryNetwork::new();
    let cache = cache_beside(Arc::clone(&shared), &network);
    network.join(holder, Arc::new(Holder { shared: Arc::clone(&theirs), damaged: None }));
    let (done, ended) = cache.pull_slots(holder, &[slot]).await;
    assert!(ended.is_ok() && done.contains(slot));
    let digest = |shared: &Shared| shared.store.lock(slot).header(slot).digest();
    assert_eq!(digest(&shared), digest(&theirs));
    assert_eq!(shared.store.lock(slot).header(slot).keys(), 1);
}
