//! The distributed cache: where operations run, how writes are replicated, how slots move.
//!
//! ```text
//!            server, library, admin                     peers (Serve)
//!                    │ Cache::start                          │ serve
//!                    ▼                                       ▼
//!  coordinate: who acts? ── this node ──► execute (shard lock: bit, stamp, apply, queue)
//!        │  fanout: many slots                │ replicate: (store shard, peer) queues ─► holders
//!        └── another ──► peers.call           └ quorum: acknowledgements
//!
//!  view ─► plan (pure) ─► reconcile: fill, release, take, drop      compare: anti-entropy
//! ```
//!
//! The coordinator decides *where*; the acting node decides *what*, under the shard lock. A peer
//! never passes an operation on. No lock is held across an await or a call to a peer.

mod acting;
pub mod breakage;
mod clocks;
mod compare;
mod coordinate;
mod deputy;
mod execute;
mod fanout;
mod fence;
mod fill;
mod hints;
mod holdings;
mod kept;
mod lateness;
mod marks;
mod missed;
mod outcasts;
mod plan;
mod proved;
mod pull;
mod quorum;
mod reconcile;
mod replicate;
mod report;
mod room;
mod serve;
mod silence;
mod terms;
#[cfg(test)]
mod tests;
mod upkeep;
mod view;
mod yields;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::config::{Acks, AcksShortfall};
use crate::limits::REPLICATION_QUEUE_MAX;
use crate::members::{MemberTable, Members};
use crate::metrics::{Metrics, level};
use crate::peers::{Caller, Directory, Peers};
use crate::rng::Randomness;
use crate::store::Store;
use crate::tasks::{BoxFuture, TaskGroup, lock};
use crate::types::{ByteSize, Generation, NodeId, Phase, Slot, SlotSet, WallMillis};
use crate::wire::member::{MemberAnswer, MemberRequest};
use crate::wire::message::ActingHint;

use clocks::Clocks;
use fence::Fence;
use hints::Hints;
use holdings::HoldingsBook;
use kept::Kept;
use outcasts::Outcasts;
use proved::Proved;
use replicate::Link;
use yields::Yields;

pub use coordinate::{CommandCall, Port, Started};
pub use fence::FenceReason;
pub use kept::Loaded;
pub use reconcile::Progress;
pub use report::{CopyReport, GoneCounts, LocatedReplica, MoveCounts, SlotCounts, SlotReport};
pub use serve::PeerService;
pub use view::{Placed, Standing, View};

/// What the cluster layer is told once.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// This node.
    pub me: NodeId,
    /// The number of its present start.
    pub generation: Generation,
    /// The other members when it stopped, if it was one before.
    pub former: BTreeSet<NodeId>,
    /// How many copies must have applied a write.
    pub acks: Acks,
    /// What happens when too few are there.
    pub acks_shortfall: AcksShortfall,
    /// How long one call to a peer may take.
    pub call_timeout: Duration,
    /// The budget of one command.
    pub op_timeout: Duration,
    /// Bytes per second that a fill may send; 0 for unlimited.
    pub sync_rate: ByteSize,
    /// The largest value that a command may build, in bytes.
    pub max_value: ByteSize,
}

impl ClusterOptions {
    /// The bytes of the largest value that a command may build.
    fn max_value(&self) -> usize {
        usize::try_from(self.max_value.0).unwrap_or(usize::MAX)
    }
}

/// What the cluster layer asks of the membership service.
pub trait MemberPort: Send + Sync + 'static {
    /// Announces the node's phase.
    fn announce(&self, phase: Phase) -> BoxFuture<'_, ()>;

    /// Answers a peer's message about membership.
    fn serve(&self, from: Caller, request: MemberRequest) -> BoxFuture<'static, MemberAnswer>;
}

impl MemberPort for Members {
    fn announce(&self, phase: Phase) -> BoxFuture<'_, ()> {
        Box::pin(self.set_phase(phase))
    }

    fn serve(&self, from: Caller, request: MemberRequest) -> BoxFuture<'static, MemberAnswer> {
        Self::serve(self, from, request)
    }
}

/// What all threads of a node share.
pub struct Shared {
    options: ClusterOptions,
    /// Bytes per second that fills may send; 0 = unlimited.
    sync_rate: AtomicU64,
    store: Arc<Store>,
    clock: SharedClock,
    rng: Randomness,
    metrics: Metrics,
    view: ArcSwap<View>,
    links: ArcSwap<BTreeMap<NodeId, Arc<Link>>>,
    hints: Hints,
    holdings: HoldingsBook,
    fills: fill::Fills,
    expired: AtomicU64,
    /// Whether a holder may have missed something, as it was a second ago at most.
    unsettled: AtomicBool,
    taken_over: AtomicUsize,
    filled: AtomicUsize,
    evicted: AtomicU64,
    /// What the last round of the reconciler found.
    progress: Mutex<Progress>,
    /// Asks the reconciler for a round.
    kicked: Notify,
    /// Counts the rounds that ended.
    rounds: tokio::sync::watch::Sender<u64>,
    /// Slots whose release was asked for and not answered yet.
    asking: Mutex<SlotSet>,
    yields: Yields,
    proved: Proved,
    fence: Fence,
    outcasts: Outcasts,
    kept: Kept,
    clocks: Clocks,
    /// Told whenever a new view is published.
    viewed: tokio::sync::watch::Sender<u64>,
    publishing: Mutex<()>,
}

/// The cache as one thread uses it: the shared state, and that thread's way to the peers.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
    peers: Arc<dyn Peers>,
}

/// What the cluster layer works with.
pub struct ClusterParts {
    /// The local store.
    pub store: Arc<Store>,
    /// The clock.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: Randomness,
    /// Metric handles.
    pub metrics: Metrics,
    /// The members as they are now.
    pub table: Arc<MemberTable>,
}

impl Shared {
    /// Fills send so many bytes per second from now on; 0 = as they can.
    pub fn set_sync_rate(&self, rate: ByteSize) {
        self.sync_rate.store(rate.0, Ordering::Relaxed);
    }

    /// The shared state of a node whose members are `parts.table`.
    pub fn new(options: ClusterOptions, parts: ClusterParts) -> Arc<Self> {
        let view = View::build(parts.table, &BTreeMap::new(), None);
        let fence = Fence::new(parts.clock.now());
        let outcasts = Outcasts::new(options.generation);
        let kept = Kept::new(options.former.clone(), parts.clock.now());
        let queue = parts.store.shards().saturating_mul(REPLICATION_QUEUE_MAX);
        parts.metrics.cluster.queue_limit.set(level(queue));
        Arc::new(Self {
            holdings: HoldingsBook::new(options.generation),
            sync_rate: AtomicU64::new(options.sync_rate.0),
            options,
            store: parts.store,
            clock: parts.clock,
            rng: parts.rng,
            metrics: parts.metrics,
            view: ArcSwap::from_pointee(view),
            links: ArcSwap::default(),
            hints: Hints::new(),
            fills: fill::Fills::default(),
            expired: AtomicU64::new(0),
            unsettled: AtomicBool::new(true),
            taken_over: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            progress: Mutex::default(),
            kicked: Notify::new(),
            rounds: tokio::sync::watch::Sender::new(0),
            asking: Mutex::default(),
            yields: Yields::new(),
            proved: Proved::default(),
            fence,
            outcasts,
            kept,
            clocks: Clocks::default(),
            viewed: tokio::sync::watch::Sender::new(0),
            publishing: Mutex::default(),
        })
    }

    /// The present view.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Told whenever a new view is published.
    pub fn view_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.viewed.subscribe()
    }

    /// The time of day.
    pub fn wall(&self) -> WallMillis {
        self.clock.wall()
    }

    /// The local store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes in a new member table: makes and publishes the view, and lets replication follow.
    pub fn publish(&self, table: Arc<MemberTable>) {
        let _one_at_a_time = lock(&self.publishing);
        let links = self.follow_links(&table);
        self.outcasts.note(&table);
        for link in links.values() {
            link.set_outcast(self.outcasts.removal(link.node).is_some());
        }
        let last = self.view.load_full();
        let view = View::build(table, &links, Some(&last));
        if view.placement.id() != last.placement.id() {
            self.metrics.view.ring_changes.increment(1);
            tracing::info!(
                placement_id = %view.placement.id(),
                nodes = view.placement.members().len(),
                "placement changed"
            );
        }
        let view = Arc::new(view);
        self.view.store(Arc::clone(&view));
        if view.placement.id() != last.placement.id() {
            self.suspect_newcomers(&last, &view);
        }
        if let Some(why) = was_away(&last, &self.view()) {
            self.fence_off(why);
        }
        self.viewed.send_modify(|count| *count += 1);
        self.kick();
    }

    /// Members that are new in the set of a slot for which this node acts, and did not follow it
    /// so far, are compared before anything is handed to them.
    fn suspect_newcomers(&self, last: &View, view: &View) {
        for index in 0..self.store.shards() {
            let shard = self.store.lock_shard(index);
            for (slot, header) in shard.headers().filter(|(_, header)| header.acting) {
                view.replica_set(slot)
                    .filter(|placed| !last.placement.holds(placed.node, slot))
                    .filter(|placed| !header.receivers.contains(&placed.node))
                    .filter_map(|placed| placed.link.as_ref())
                    .for_each(|link| link.set_dirty(slot));
            }
        }
    }

    /// Members that this node hears of only now, or anew, follow no slot of it: what it would have sent
    /// them meanwhile went nowhere.
    fn forget_strangers(&self, strangers: &[NodeId]) {
        if strangers.is_empty() {
            return;
        }
        for index in 0..self.store.shards() {
            let mut shard = self.store.lock_shard(index);
            let followed: Vec<Slot> = shard
                .headers()
                .filter(|(_, header)| header.receivers.iter().any(|node| strangers.contains(node)))
                .map(|(slot, _)| slot)
                .collect();
            for slot in followed {
                shard.header_mut(slot).receivers.retain(|node| !strangers.contains(node));
            }
        }
    }

    /// One link for each member, old ones kept; those of members that are gone are told so.
    fn follow_links(&self, table: &MemberTable) -> Arc<BTreeMap<NodeId, Arc<Link>>> {
        let known = self.links.load_full();
        let (mut links, mut strangers) = (BTreeMap::new(), Vec::new());
        for member in &table.members {
            let node = member.identity.node;
            if node == self.options.me {
                continue;
            }
            let link = known.get(&node).cloned().unwrap_or_else(|| {
                strangers.push(node);
                Arc::new(Link::new(node, self.store.shards()))
            });
            let standing = view::standing(member);
            link.set_standing(standing == Standing::Suspect, standing == Standing::Gone);
            if standing == Standing::Suspect {
                self.doubt(&link);
            }
            if standing == Standing::Gone {
                for slot in Slot::all() {
                    self.hints.clear_if(slot, node);
                }
            }
            links.insert(node, link);
        }
        for (node, link) in known.iter() {
            if !links.contains_key(node) {
                link.set_standing(false, true);
            }
        }
        // Before they can be sent anything, so that who is no receiver then is one from its fill on.
        self.forget_strangers(&strangers);
        let links = Arc::new(links);
        self.links.store(Arc::clone(&links));
        links
    }

    fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.links.load().get(&node).cloned()
    }

    /// Asks the reconciler for a round soon.
    fn kick(&self) {
        self.kicked.notify_one();
    }

    fn hint(&self, slot: Slot) -> Option<ActingHint> {
        let node = self.hints.get(slot)?;
        Some(ActingHint { node, peer: self.view.load().peer_address(node) })
    }
}

/// Whether the members may have taken this node for gone, or did while it saw nobody.
fn was_away(last: &View, view: &View) -> Option<FenceReason> {
    if !last.table.formed {
        return None;
    }
    if view.table.refutations > last.table.refutations {
        return Some(FenceReason::Suspected);
    }
    (last.is_alone() && !view.is_alone()).then_some(FenceReason::Alone)
}

impl Directory for Shared {
    fn locate(&self, node: NodeId) -> Option<SocketAddr> {
        let view = self.view.load();
        if view.standing(node) == Standing::Gone {
            return None;
        }
        view.peer_address(node)
    }
}

impl Cache {
    /// The cache for a thread whose way to the peers is `peers`.
    pub fn new(shared: Arc<Shared>, peers: Arc<dyn Peers>) -> Self {
        Self { shared, peers }
    }

    /// The shared state.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The present view.
    pub fn view(&self) -> Arc<View> {
        self.shared.view()
    }

    /// Runs all background work of the cluster layer until the group stops: movement, repair,
    /// expiry.
    pub fn spawn_workers(&self, tasks: &TaskGroup, members: &Arc<dyn MemberPort>) {
        tasks.spawn(
            "reconcile",
            reconcile::run(self.clone(), Arc::clone(members), tasks.clone(), tasks.stop_signal()),
        );
        tasks.spawn("compare", compare::run(self.clone(), tasks.stop_signal()));
        tasks.spawn("tick", fence::run(self.clone(), tasks.stop_signal()));
        tasks.spawn("upkeep", upkeep::run(self.clone(), tasks.stop_signal()));
    }
}
