//! Peers without a network: nodes of one process that call each other through channels.
//!
//! Tests of everything above the transport run on it. It keeps the promises of [`Peers`]; links
//! can be cut and healed, nodes can vanish and come back. Over a cut link nothing arrives: calls
//! end with their budget, bulk streams end as cut off. With a vanished node calls end at once. On
//! one single-threaded runtime a run repeats itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{Answer, BulkMessage, BulkStream, Call, CallError, Caller, Peers, Serve, Served};
use crate::limits::{BULK_MESSAGE_MAX, BULK_QUEUE_MAX, CALL_PAYLOAD_MAX, LANE_IN_FLIGHT_MAX};
use crate::tasks::{self, BoxFuture};
use crate::types::{Generation, NodeId};

/// The first port of the made-up addresses: node after node in the order of joining.
const FIRST_PORT: u16 = 7401;

/// A network in memory. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever a link or a member changes.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<NodeId, Member>,
    /// Address and last generation of everyone who was ever here.
    known: BTreeMap<NodeId, (SocketAddr, Generation)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    lanes: BTreeMap<(Start, Start), Lane>,
}

/// One start of a node, as a key.
type Start = (NodeId, Generation);

struct Member {
    generation: Generation,
    serve: Arc<dyn Serve>,
}

struct Request {
    payload: Bytes,
    budget: Duration,
    answer: oneshot::Sender<Answer>,
    in_flight: OwnedSemaphorePermit,
}

/// The queue from one node to another, and what bounds the calls that wait for an answer.
#[derive(Clone)]
struct Lane {
    requests: mpsc::Sender<Request>,
    in_flight: Arc<Semaphore>,
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or starts it again with a higher generation; `serve` answers its peers.
    pub fn join(&self, node: NodeId, serve: Arc<dyn Serve>) -> Arc<dyn Peers> {
        let mut state = self.shared.lock();
        let next_port = u16::try_from(state.known.len()).unwrap_or(u16::MAX);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT.saturating_add(next_port)));
        let known = state.known.entry(node).or_insert((address, Generation(0)));
        known.1 = Generation(known.1.0 + 1);
        let generation = known.1;
        state.members.insert(node, Member { generation, serve });
        drop(state);
        self.shared.tell();
        Arc::new(MemoryPeers { shared: Arc::clone(&self.shared), own: Caller { node, generation } })
    }

    /// The address under which a node is called by `call_address`; `None` if it never joined.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.shared.lock().known.get(&node).map(|(address, _)| *address)
    }

    /// A node vanishes: what is in flight to it is lost, and it is not reachable any more.
    pub fn remove(&self, node: NodeId) {
        self.shared.lock().members.remove(&node);
        self.shared.tell();
    }

    /// Nothing passes between two nodes from now on, in either direction.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.shared.lock().cut.insert(pair(a, b));
        self.shared.tell();
    }

    /// Opens a link that was cut.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.shared.lock().cut.remove(&pair(a, b));
        self.shared.tell();
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

/// What stands between two starts of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Open,
    Cut,
    Gone,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn link(&self, from: Caller, to: Caller) -> Link {
        let state = self.lock();
        let here = |who: Caller| {
            state.members.get(&who.node).is_some_and(|m| m.generation == who.generation)
        };
        if !here(from) || !here(to) {
            Link::Gone
        } else if state.cut.contains(&pair(from.node, to.node)) {
            Link::Cut
        } else {
            Link::Open
        }
    }

    /// Waits until the link is in a state that `wanted` accepts.
    async fn until(&self, from: Caller, to: Caller, wanted: impl Fn(Link) -> bool) -> Link {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let link = self.link(from, to);
            if wanted(link) || changed.changed().await.is_err() {
                return link;
            }
        }
    }

    fn member(&self, node: NodeId) -> Option<(Caller, Arc<dyn Serve>)> {
        let state = self.lock();
        let member = state.members.get(&node)?;
        let caller = Caller { node, generation: member.generation };
        Some((caller, Arc::clone(&member.serve)))
    }

    /// The lane between two nodes; the first call makes it, with a task that delivers in order.
    fn lane(self: &Arc<Self>, from: Caller, to: Caller, serve: Arc<dyn Serve>) -> Lane {
        let key = ((from.node, from.generation), (to.node, to.generation));
        let mut state = self.lock();
        if let Some(lane) = state.lanes.get(&key) {
            return lane.clone();
        }
        let (requests, receiver) = mpsc::channel(LANE_IN_FLIGHT_MAX);
        let in_flight = Arc::new(Semaphore::new(LANE_IN_FLIGHT_MAX));
        let lane = Lane { requests, in_flight };
        state.lanes.insert(key, lane.clone());
        drop(state);
        let shared = Arc::downgrade(self);
        tasks::spawn("memory lane", deliver(shared, from, to, serve, receiver));
        lane
    }
}

async fn deliver(
    shared: Weak<Shared>,
    from: Caller,
    to: Caller,
    serve: Arc<dyn Serve>,
    mut requests: mpsc::Receiver<Request>,
) {
    while let Some(Request { payload, budget, answer, in_flight }) = requests.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        let served = match shared.link(from, to) {
            Link::Open => Some(serve.serve(from, &payload, budget)),
            Link::Cut | Link::Gone => None,
        };
        if let (Some(Served::Now(bytes)), Link::Open) = (&served, shared.link(from, to)) {
            let _caller_may_have_gone = answer.send(Ok(bytes.clone()));
            continue;
        }
        tasks::spawn("memory call", async move {
            let _in_flight = in_flight;
            let reply = async {
                match served {
                    Some(Served::Now(bytes)) => bytes,
                    Some(Served::Later(later)) => later.await,
                    None => std::future::pending().await,
                }
            };
            let outcome = tokio::select! {
                biased;
                _ = shared.until(from, to, |link| link == Link::Gone) => Err(CallError::Lost),
                reply = timeout(budget, reply) => reply.map_err(|_| CallError::TimedOut),
            };
            if outcome.is_ok() && shared.link(from, to) == Link::Cut {
                tokio::time::sleep(budget).await;
                let _caller_may_have_gone = answer.send(Err(CallError::TimedOut));
            } else {
                let _caller_may_have_gone = answer.send(outcome);
            }
        });
    }
}

/// One node's view of a [`MemoryNetwork`].
struct MemoryPeers {
    shared: Arc<Shared>,
    own: Caller,
}

impl Peers for MemoryPeers {
    fn call(&self, to: NodeId, payload: Bytes, budget: Duration) -> Call {
        if payload.len() > CALL_PAYLOAD_MAX {
            return Call::ready(Err(CallError::TooLarge));
        }
        let Some((to, serve)) = self.shared.member(to) else {
            return Call::ready(Err(CallError::Unreachable("no such node".to_owned())));
        };
        let (answer, receiver) = oneshot::channel();
        let lane = self.shared.lane(self.own, to, serve);
        let Ok(in_flight) = lane.in_flight.try_acquire_owned() else {
            return Call::ready(Err(CallError::Busy));
        };
        match lane.requests.try_send(Request { payload, budget, answer, in_flight }) {
            Ok(()) => Call::new(receiver),
            Err(_) => Call::ready(Err(CallError::Busy)),
        }
    }

    fn call_address(
        &self,
        to: SocketAddr,
        request: Bytes,
        budget: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>> {
        let known = self
            .shared
            .lock()
            .known
            .iter()
            .find_map(|(node, (address, _))| (*address == to).then_some(*node));
        let found = known.and_then(|node| self.shared.member(node));
        let Some((callee, _)) = found else {
            let nobody = CallError::Unreachable("nobody answers there".to_owned());
            return Box::pin(std::future::ready(Err(nobody)));
        };
        let call = self.call(callee.node, request, budget);
        Box::pin(async move { call.await.map(|answer| (callee, answer)) })
    }

    fn open_bulk(
        &self,
        to: NodeId,
        budget: Duration,
    ) -> BoxFuture<'static, Result<BulkStream, CallError>> {
        let (shared, from) = (Arc::clone(&self.shared), self.own);
        Box::pin(async move {
            let unreachable = || CallError::Unreachable("no such node".to_owned());
            let (to, serve) = shared.member(to).ok_or_else(unreachable)?;
            let opened = shared.until(from, to, |link| link != Link::Cut);
            if timeout(budget, opened).await != Ok(Link::Open) {
                return Err(CallError::Unreachable("no way to the node".to_owned()));
            }
            let ours = half(&shared, from, to);
            let theirs = half(&shared, from, to);
            serve.serve_bulk(from, BulkStream { outgoing: theirs.0, incoming: ours.1 });
            Ok(BulkStream { outgoing: ours.0, incoming: theirs.1 })
        })
    }
}

/// One direction of a bulk stream over the link between two nodes.
fn half(
    shared: &Arc<Shared>,
    from: Caller,
    to: Caller,
) -> (mpsc::Sender<BulkMessage>, mpsc::Receiver<Answer>) {
    let (outgoing, mut source) = mpsc::channel::<BulkMessage>(BULK_QUEUE_MAX);
    let (sink, incoming) = mpsc::channel(BULK_QUEUE_MAX);
    let shared = Arc::clone(shared);
    tasks::spawn("memory bulk", async move {
        let broken = shared.until(from, to, |link| link != Link::Open);
        tokio::pin!(broken);
        loop {
            let message = tokio::select! {
                biased;
                _ = &mut broken => Err(CallError::Lost),
                message = source.recv() => match message.map(|message| message.bytes) {
                    Some(bytes) if bytes.len() > BULK_MESSAGE_MAX => Err(CallError::TooLarge),
                    Some(bytes) => Ok(bytes),
                    None => return,
                },
            };
            let last = message.is_err();
            if sink.send(message).await.is_err() || last {
                return;
            }
        }
    });
    (outgoing, incoming)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Serve for Echo {
        fn serve(&self, _: Caller, request: &[u8], _: Duration) -> Served {
            Served::Now(Bytes::copy_from_slice(request))
        }

        /// Holds the stream until it is cut off.
        fn serve_bulk(&self, _: Caller, mut stream: BulkStream) {
            tasks::spawn("held", async move { while stream.incoming.recv().await.is_some() {} });
        }
    }

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const BUDGET: Duration = Duration::from_millis(20);
    const WORD: Bytes = Bytes::from_static(b"dee");

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_a_cut_link_until_it_is_healed() {
        let network = MemoryNetwork::new();
        let a = network.join(A, Arc::new(Echo));
        let b = network.join(B, Arc::new(Echo));
        let mut bulk = a.open_bulk(B, BUDGET).await.unwrap();
        network.cut(B, A);
        assert_eq!(a.call(B, WORD, BUDGET).await, Err(CallError::TimedOut));
        assert_eq!(b.call(A, WORD, BUDGET).await, Err(CallError::TimedOut));
        assert_eq!(bulk.incoming.recv().await, Some(Err(CallError::Lost)));
        assert!(a.open_bulk(B, BUDGET).await.unwrap_err().is_certain());
        network.heal(A, B);
        assert_eq!(a.call(B, WORD, BUDGET).await, Ok(WORD));
        assert_eq!(b.call(A, WORD, BUDGET).await, Ok(WORD));
        assert!(a.open_bulk(B, BUDGET).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_came_back_has_a_higher_generation_at_its_old_address() {
        let network = MemoryNetwork::new();
        let a = network.join(A, Arc::new(Echo));
        network.join(B, Arc::new(Echo));
        let address = network.address(B).unwrap();
        network.remove(B);
        assert!(a.call_address(address, WORD, BUDGET).await.unwrap_err().is_certain());
        let old = network.join(B, Arc::new(Echo));
        let (who, _) = a.call_address(address, WORD, BUDGET).await.unwrap();
        assert_eq!(who, Caller { node: B, generation: Generation(2) });
        network.join(B, Arc::new(Echo));
        assert_eq!(old.call(A, WORD, BUDGET).await, Err(CallError::Lost));
    }
}
