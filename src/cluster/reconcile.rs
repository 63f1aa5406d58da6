//! Brings this node to where the view wants it: asks the others what they hold, makes a plan, and
//! carries it out.
//!
//! A round runs whenever something changed, and once a second. It also moves the node through its
//! phases: a joining or returning node whose slots are all complete turns active.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::limits::{HOLDINGS_TIMEOUT, RECONCILE_INTERVAL};
use crate::metrics::level;
use crate::tasks::{Stop, TaskGroup, lock};
use crate::types::{NodeId, Phase, Slot, SlotSet};
use crate::wire::message::{Request, Response};

use super::plan::{Known, Plan, plan};
use super::replicate::{ToDrive, drive_all};
use super::view::View;
use super::{Cache, MemberPort};

/// The least time between two rounds, so that a burst of changes costs one.
const SETTLE: Duration = Duration::from_millis(10);
/// The time to the next round while something is to be moved.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);

/// Reconciles until the group stops.
pub(super) async fn run(
    cache: Cache,
    members: Arc<dyn MemberPort>,
    tasks: TaskGroup,
    mut stop: Stop,
) {
    let mut pause = SETTLE;
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = cache.shared.kicked.notified() => {
                tokio::time::sleep(SETTLE).await;
            }
            () = tokio::time::sleep(pause) => {}
        }
        let view = cache.view();
        if !view.table.formed {
            pause = RECONCILE_INTERVAL;
            continue;
        }
        let idle = cache.round(&view, &*members, &tasks).await;
        cache.shared.rounds.send_modify(|count| *count += 1);
        pause = if idle { RECONCILE_INTERVAL } else { BUSY_INTERVAL };
    }
}

impl Cache {
    /// One round; whether nothing is left to do. It comes to nothing if the members changed while
    /// the others were heard: a slot may seem free whose acting node has come back meanwhile.
    async fn round(&self, view: &View, members: &dyn MemberPort, tasks: &TaskGroup) -> bool {
        let shared = &self.shared;
        let (began, fences) = (shared.yields.moment(), shared.fence.count());
        let silent = self.judge_doubted(view).await;
        let orphans = shared.takeable(view, silent.iter().copied());
        let settled = self.hear_holdings(view, &silent, &orphans).await;
        let is_old =
            || shared.fence.count() != fences || !Arc::ptr_eq(&self.view().table, &view.table);
        if is_old() {
            return false;
        }
        let peers = shared.holdings.peers();
        shared.note_proved(view, &settled);
        shared.follow_holders(view, &peers);
        if shared.fenced().is_some() {
            // Whom only the others hear may act for what this node had. Everybody hears that the fence is
            // over before anything is taken.
            if !shared.holdings.hear_others() {
                self.lift_fence(view, &silent).await;
            }
            return false;
        }
        let own = shared.own_holdings();
        let mut plan = plan(&Known {
            view,
            own: &own,
            peers: &peers,
            silent: &silent,
            asking: &lock(&shared.asking).clone(),
            filling: &shared.fills.under_way(),
            filled: &shared.filled_slots(),
            settled: &settled,
        });
        if shared.kept.is_loading() {
            plan.fills.clear();
        }
        if shared.kept.is_loading() || shared.kept.awaits_others(view, shared.clock.now()) {
            plan.promotes = SlotSet::new();
        }
        if is_old() {
            return false;
        }
        let is_idle = plan.is_idle();
        self.drop_given_up(&plan.drops);
        self.start_moving(&plan, &own.acting, tasks);
        self.follow_phase(&plan, view, members).await;
        shared.show_plan(&plan);
        let mut free = plan.takes.clone();
        free.union_with(&plan.promotes);
        let caught_up = self.catch_up(view, &silent, free).await;
        if is_old() {
            return false;
        }
        let ready = |slot: &Slot| caught_up.contains(*slot) && !shared.yields.since(began, *slot);
        self.promote(view, &plan.promotes.iter().filter(ready).collect());
        let takes = plan.takes.iter().filter(ready).collect();
        self.take_over(&takes, &orphans);
        is_idle && self.doubted(view).iter().all(|link| silent.contains(&link.node))
    }

    /// Forgets slots that others hold now.
    fn drop_given_up(&self, drops: &SlotSet) {
        if !drops.is_empty() {
            tracing::info!(slots = drops.len(), "slots dropped that others hold now");
            drops.iter().for_each(|slot| self.shared.drop_slot(slot));
        }
    }

    /// Declares copies complete, and begins to act for their slots.
    fn promote(&self, view: &View, slots: &SlotSet) {
        let shared = &self.shared;
        let mut to_drive = ToDrive::new();
        slots.iter().for_each(|slot| shared.promote(view, slot, &mut to_drive));
        drive_all(shared, &self.peers, to_drive);
        let formed_alone = view.table.members.len() == 1;
        if !slots.is_empty() && !formed_alone {
            let slots = slots.len();
            shared.metrics.cluster.promoted.increment(slots as u64);
            tracing::warn!(slots, "no complete copy was left: this node's was declared complete");
        }
    }

    /// Starts fills, and asks for releases.
    fn start_moving(&self, plan: &Plan, own_acting: &SlotSet, tasks: &TaskGroup) {
        for (donor, slots) in plan.fills.clone() {
            tracing::info!(node = %donor, slots = slots.len(), "fill started");
            let cache = self.clone();
            tasks.spawn("fill", async move { cache.fill_from(donor, slots).await });
        }
        for (holder, slots) in plan.releases.clone() {
            lock(&self.shared.asking).union_with(&slots);
            let (cache, acting) = (self.clone(), own_acting.clone());
            tasks.spawn("release", async move {
                cache.ask_release(holder, &slots, &acting).await;
                lock(&cache.shared.asking).subtract(&slots);
            });
        }
    }

    /// Begins to act for slots that nobody acts for.
    fn take_over(&self, takes: &SlotSet, orphans: &SlotSet) {
        if takes.is_empty() {
            return;
        }
        let (shared, slots) = (&self.shared, takes.len());
        let deputy = takes.iter().filter(|slot| orphans.contains(*slot)).count();
        let mut to_drive = ToDrive::new();
        takes.iter().for_each(|slot| shared.take_free(slot, &mut to_drive));
        drive_all(shared, &self.peers, to_drive);
        shared.taken_over.fetch_add(slots, Ordering::Relaxed);
        shared.metrics.cluster.deputy_takeovers.increment(deputy as u64);
        shared.metrics.cluster.handovers_death.increment((slots - deputy) as u64);
        tracing::info!(slots, from_silent = deputy, "slots taken over that nobody acted for");
    }

    /// Asks everyone who is not silent what they hold, and tells them which slots this node may take
    /// over; who does not answer in time keeps its last word. Gives the slots whose sets have all
    /// that was written before the placement was what it is.
    async fn hear_holdings(
        &self,
        view: &View,
        silent: &BTreeSet<NodeId>,
        taking: &SlotSet,
    ) -> SlotSet {
        let shared = &self.shared;
        let present: Vec<NodeId> = view.others().map(|member| member.identity.node).collect();
        shared.holdings.begin_round(&present);
        let began = shared.clock.wall();
        let (heard, placement) = (view.heard_fingerprint(), view.placement.id().get());
        let unproved = shared.unproved(view);
        let mut settled = SlotSet::new();
        let calls: Vec<_> = present
            .iter()
            .filter(|node| !silent.contains(node))
            .map(|node| {
                let known = shared.holdings.known(*node);
                let removed = shared.outcasts.removal(*node);
                let asked = shared.outcasts.asked(*node);
                let (taking, unproved) = (taking.clone(), unproved.clone());
                let request =
                    Request::Holdings { known, taking, removed, heard, unproved, placement, asked };
                (*node, self.peers.call(*node, request.encode(), HOLDINGS_TIMEOUT))
            })
            .collect();
        for (node, call) in calls {
            let answer = call.await;
            if let Some(link) = shared.link(node) {
                shared.note_answer(&link, &answer);
            }
            let Ok(answer) = answer else { continue };
            let (word, aside) = match Response::decode(&answer) {
                Some(Response::Holdings(holdings, aside)) => (Some(holdings), aside),
                Some(Response::Unchanged(aside)) => (None, aside),
                _ => {
                    tracing::warn!(%node, "peer did not understand a question about holdings");
                    continue;
                }
            };
            shared.clocks.note(node, began, aside.wall, shared.clock.wall());
            shared.hear_asked(node, aside.asked);
            shared.mind_removal(node, aside.removed);
            let out = shared.outcasts.removal(node).is_some();
            settled.union_with(&aside.settled);
            let lacks = view.lacks(&aside.heard);
            let is_back = shared.holdings.heard(node, word, (out, lacks));
            if let Some(link) = shared.link(node).filter(|_| is_back) {
                // It may follow terms of the time before.
                shared.own_holdings().acting.iter().for_each(|slot| link.set_dirty(slot));
            }
        }
        shared.judge_clocks(view);
        settled
    }

    /// Asks `holder` for acting bits. Where both act, the copies are compared first.
    async fn ask_release(&self, holder: NodeId, slots: &SlotSet, own_acting: &SlotSet) {
        let shared = &self.shared;
        let both: SlotSet = slots.iter().filter(|slot| own_acting.contains(*slot)).collect();
        if let Some(link) = shared.link(holder) {
            both.iter().for_each(|slot| link.set_dirty(slot));
        }
        if !both.is_empty()
            && let Err(error) = self.compare_with(holder, &both).await
        {
            tracing::info!(node = %holder, %error, "compare before a release was cut off");
            return;
        }
        let asked = shared.yields.moment();
        let request = Request::Release { slots: slots.clone() }.encode();
        let answer = self.peers.call(holder, request, shared.options.op_timeout).await;
        let Ok(answer) = answer else { return };
        if let Some(Response::Released(mut released)) = Response::decode(&answer) {
            // Whoever asked meanwhile may have taken them over.
            released.retain(|given| !shared.yields.since(asked, given.slot));
            let mut to_drive = ToDrive::new();
            let taken = shared.accept(holder, &released, &mut to_drive);
            drive_all(shared, &self.peers, to_drive);
            if taken > 0 {
                tracing::info!(node = %holder, slots = taken, "slots taken over by release");
                shared.kick();
            }
        }
    }

    async fn follow_phase(&self, plan: &Plan, view: &View, members: &dyn MemberPort) {
        let alone = view.placement.members().is_empty() && is_first_joiner(view);
        let done = match view.phase {
            Phase::Joining => plan.assigned > 0 && plan.is_complete() || alone,
            Phase::Returning => plan.is_complete(),
            Phase::Active | Phase::Paused | Phase::Leaving => false,
        };
        if done {
            self.shared.confirm_kept();
            members.announce(Phase::Active).await;
        }
    }
}

/// Whether nobody is on the ring and this node is the first of those that want to be: then there is
/// nobody to be filled from.
fn is_first_joiner(view: &View) -> bool {
    view.phase == Phase::Joining
        && view
            .others()
            .all(|member| member.identity.phase != Phase::Joining || member.identity.node > view.me)
}

impl super::Shared {
    fn show_plan(&self, plan: &Plan) {
        let gauges = &self.metrics.view;
        gauges.under_replicated.set(level(plan.under_replicated));
        let mut last = lock(&self.progress);
        *last = Progress {
            assigned: plan.assigned,
            complete: plan.complete,
            under_replicated: plan.under_replicated,
        };
    }
}

/// What the last round found, for status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Slots of this node's place.
    pub assigned: usize,
    /// How many of them are complete.
    pub complete: usize,
    /// Slots this node acts for with too few complete copies.
    pub under_replicated: usize,
}
