//! The contract of [`Peers`], run on QUIC over loopback and on the memory network, and what only
//! QUIC can show: trust, restarts, the simulator.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::connections::Traffic;
use super::{Transport, TransportError, TransportOptions};
use crate::clock::{Clock, SystemClock};
use crate::limits::{CALL_PAYLOAD_MAX, LANE_IN_FLIGHT_MAX, LANE_PAYLOAD_MAX, LANE_QUEUED_MAX};
use crate::metrics::TransportMetrics;
use crate::net::Net;
use crate::peers::memory::MemoryNetwork;
use crate::peers::{BulkMessage, BulkStream, CallError, Caller, Directory, Peers, Serve, Served};
use crate::rng::Randomness;
use crate::tasks::{self, TaskGroup};
use crate::tls::Secret;
use crate::types::{Generation, Instant, NodeId};
use crate::wire::hello::Protocols;

const CALLER: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const STRANGER: NodeId = NodeId(99);

/// Long enough that only a fault ends a call by it.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where peers listen that will be started again: nothing else is given a port there meanwhile.
const PEER_LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0);

/// Answers by the first byte of the request, and remembers what came.
#[derive(Default)]
struct Scripted {
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Serve for Scripted {
    fn serve(&self, from: Caller, request: &[u8], budget: Duration) -> Served {
        assert_eq!(from.node, CALLER);
        assert!(budget <= PATIENCE);
        self.seen.lock().unwrap().push(request[..request.len().min(16)].to_vec());
        let echo = Bytes::copy_from_slice(request);
        match request.first() {
            Some(b'l') => Served::Later(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                echo
            })),
            Some(b'n') => Served::Later(Box::pin(std::future::pending())),
            Some(b'b') => Served::Now(vec![b'B'; LANE_PAYLOAD_MAX * 30].into()),
            _ => Served::Now(echo),
        }
    }

    /// Sends every message back; ends when the caller does.
    fn serve_bulk(&self, from: Caller, mut stream: BulkStream) {
        assert_eq!(from.node, CALLER);
        tasks::spawn("bulk echo", async move {
            while let Some(Ok(message)) = stream.incoming.recv().await {
                if stream.outgoing.send(read_at(0, message)).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn read_at(seconds: u64, bytes: Bytes) -> BulkMessage {
    BulkMessage { read_at: Instant::from_origin(Duration::from_secs(seconds)), bytes }
}

/// What the contract needs of a network.
trait Flock {
    fn caller(&self) -> Arc<dyn Peers>;
    /// Starts the peer, or starts it again at its old address.
    fn start(&mut self, serve: Arc<dyn Serve>);
    /// The peer vanishes without a word.
    fn crash(&mut self);
    fn address(&self) -> SocketAddr;
}

struct MemoryFlock {
    network: MemoryNetwork,
    caller: Arc<dyn Peers>,
}

impl MemoryFlock {
    fn new() -> Self {
        let network = MemoryNetwork::new();
        let caller = network.join(CALLER, Arc::new(Scripted::default()));
        Self { network, caller }
    }
}

impl Flock for MemoryFlock {
    fn caller(&self) -> Arc<dyn Peers> {
        Arc::clone(&self.caller)
    }

    fn start(&mut self, serve: Arc<dyn Serve>) {
        self.network.join(PEER, serve);
    }

    fn crash(&mut self) {
        self.network.remove(PEER);
    }

    fn address(&self) -> SocketAddr {
        self.network.address(PEER).unwrap()
    }
}

#[derive(Default)]
struct Addresses(Mutex<BTreeMap<NodeId, SocketAddr>>);

impl Addresses {
    fn set(&self, node: NodeId, address: SocketAddr) {
        self.0.lock().unwrap().insert(node, address);
    }
}

impl Directory for Addresses {
    fn locate(&self, node: NodeId) -> Option<SocketAddr> {
        self.0.lock().unwrap().get(&node).copied()
    }
}

fn options(node: NodeId, generation: u64, directory: &Arc<Addresses>) -> TransportOptions {
    TransportOptions {
        net: Net::Os,
        listen: LOOPBACK,
        own: Caller { node, generation: Generation(generation) },
        protocols: Protocols::OWN,
        cluster: "flock".parse().unwrap(),
        secret: Secret::from_random([3; 32]),
        credentials: None,
        directory: Arc::clone(directory) as Arc<dyn Directory>,
        clock: Arc::new(SystemClock::new()),
        rng: Randomness::from_seed(generation),
        metrics: TransportMetrics::unregistered(),
        tasks: TaskGroup::new(),
        lanes: 0,
        max_mtu: 0,
        disable_gso: false,
    }
}

/// The caller lives on the test's runtime, the peer on a thread of its own, whose runtime is
/// dropped for a crash: so that it says nothing more.
struct QuicFlock {
    directory: Arc<Addresses>,
    caller: Transport,
    peer: Option<Running>,
    generation: u64,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl QuicFlock {
    fn new() -> Self {
        let directory = Arc::new(Addresses::default());
        let caller = Transport::bind(options(CALLER, 1, &directory)).unwrap();
        Self { directory, caller, peer: None, generation: 0 }
    }
}

/// Runs a transport on a thread until it is told to stop; its address.
fn run_on_thread(options: TransportOptions, serve: Arc<dyn Serve>) -> (Running, SocketAddr) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let transport = Transport::bind(options).unwrap();
            let acceptor = transport.acceptor();
            tell.send(transport.local_addr()).unwrap();
            tasks::spawn("acceptor", acceptor.run(serve));
            tokio::select! {
                biased;
                _ = stopped => {}
                () = transport.run() => {}
            }
            // Leaked into the runtime's end, so that nothing closes in order.
            tasks::spawn("crashed", async move {
                std::future::pending::<()>().await;
                drop(transport);
            });
        });
        runtime.shutdown_background();
    });
    (Running { stop, thread }, told.recv().unwrap())
}

impl Flock for QuicFlock {
    fn caller(&self) -> Arc<dyn Peers> {
        self.caller.peers(0).unwrap()
    }

    fn start(&mut self, serve: Arc<dyn Serve>) {
        self.generation += 1;
        let mut options = options(PEER, self.generation, &self.directory);
        options.listen = self.directory.locate(PEER).unwrap_or(PEER_LOOPBACK);
        let (running, address) = run_on_thread(options, serve);
        self.directory.set(PEER, address);
        self.peer = Some(running);
    }

    fn crash(&mut self) {
        let Some(running) = self.peer.take() else { return };
        let _already_stopped = running.stop.send(());
        running.thread.join().unwrap();
    }

    fn address(&self) -> SocketAddr {
        self.directory.locate(PEER).unwrap()
    }
}

impl Drop for QuicFlock {
    fn drop(&mut self) {
        self.crash();
    }
}

macro_rules! contract {
    ($($name:ident)+) => {
        mod on_quic {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&mut super::QuicFlock::new()).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&mut super::MemoryFlock::new()).await;
            })+
        }
    };
}

contract! {
    calls_arrive_in_the_order_in_which_they_were_started
    a_later_answer_holds_nobody_up
    a_call_ends_at_its_budget
    a_full_lane_is_busy_at_once_and_recovers
    large_payloads_pass_both_ways
    an_unknown_node_is_unreachable_at_once
    a_crashed_peer_fails_calls_and_is_found_again_at_its_port
    bulk_messages_keep_their_order_and_end
    a_cut_bulk_stream_does_not_end_in_order
    a_seed_is_called_by_its_address
}

async fn calls_arrive_in_the_order_in_which_they_were_started(flock: &mut dyn Flock) {
    let serve = Arc::new(Scripted::default());
    flock.start(Arc::clone(&serve) as Arc<dyn Serve>);
    let caller = flock.caller();
    let requests: Vec<Bytes> = (0..2000).map(|i| Bytes::from(format!("e{i}"))).collect();
    let calls: Vec<_> =
        requests.iter().map(|request| caller.call(PEER, request.clone(), PATIENCE)).collect();
    for (request, call) in requests.iter().zip(calls) {
        assert_eq!(call.await.as_ref(), Ok(request));
    }
    assert_eq!(*serve.seen.lock().unwrap(), requests);
}

async fn a_later_answer_holds_nobody_up(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let caller = flock.caller();
    let later = caller.call(PEER, Bytes::from_static(b"later"), PATIENCE);
    let now = caller.call(PEER, Bytes::from_static(b"echo"), PATIENCE);
    tokio::select! {
        biased;
        _ = later => panic!("the later answer came first"),
        answer = now => assert_eq!(answer.unwrap(), "echo"),
    }
}

async fn a_call_ends_at_its_budget(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let caller = flock.caller();
    caller.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.unwrap();
    let clock = SystemClock::new();
    let never = caller.call(PEER, Bytes::from_static(b"never"), Duration::from_millis(80));
    let patient = caller.call(PEER, Bytes::from_static(b"later"), PATIENCE);
    let error = never.await.unwrap_err();
    assert_eq!(error, CallError::TimedOut);
    assert!(!error.is_certain());
    assert!(clock.now().since_origin() >= Duration::from_millis(80));
    assert!(clock.now().since_origin() < Duration::from_secs(5));
    assert_eq!(patient.await.unwrap(), "later");
}

async fn a_full_lane_is_busy_at_once_and_recovers(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let caller = flock.caller();
    caller.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.unwrap();
    let budget = Duration::from_millis(1500);
    let never = || caller.call(PEER, Bytes::from_static(b"never"), budget);
    let calls: Vec<_> = (0..LANE_IN_FLIGHT_MAX).map(|_| never()).collect();
    let busy = never().await.unwrap_err();
    assert_eq!(busy, CallError::Busy);
    assert!(busy.is_certain());
    for call in calls {
        assert_eq!(call.await, Err(CallError::TimedOut));
    }
    let after = caller.call(PEER, Bytes::from(vec![b'e'; LANE_PAYLOAD_MAX + 1]), PATIENCE);
    assert_eq!(after.await.unwrap().len(), LANE_PAYLOAD_MAX + 1);
}

async fn large_payloads_pass_both_ways(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let caller = flock.caller();
    for length in [0, 1, LANE_PAYLOAD_MAX, LANE_PAYLOAD_MAX + 1, 3_000_000] {
        let request: Bytes = vec![b'e'; length].into();
        let answer = caller.call(PEER, request.clone(), PATIENCE).await;
        assert!(answer.as_ref() == Ok(&request), "{length}: {:?}", answer.map(|a| a.len()));
    }
    let big = caller.call(PEER, Bytes::from_static(b"big"), PATIENCE).await.unwrap();
    assert!(big.len() == LANE_PAYLOAD_MAX * 30 && big.iter().all(|byte| *byte == b'B'));
    let too_large = caller.call(PEER, vec![0; CALL_PAYLOAD_MAX + 1].into(), PATIENCE).await;
    assert_eq!(too_large, Err(CallError::TooLarge));
}

async fn an_unknown_node_is_unreachable_at_once(flock: &mut dyn Flock) {
    let caller = flock.caller();
    let call = caller.call(STRANGER, Bytes::from_static(b"echo"), PATIENCE);
    let error = tokio::time::timeout(Duration::from_secs(1), call).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)) && error.is_certain());
    assert!(caller.open_bulk(STRANGER, PATIENCE).await.is_err());
}

async fn a_crashed_peer_fails_calls_and_is_found_again_at_its_port(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let caller = flock.caller();
    caller.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.unwrap();
    let pending = caller.call(PEER, Bytes::from_static(b"never"), PATIENCE);
    flock.crash();
    flock.start(Arc::new(Scripted::default()));
    let clock = SystemClock::new();
    let error = pending.await.unwrap_err();
    assert_eq!(error, CallError::Lost);
    let found =
        async { while caller.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.is_err() {} };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
    // The idle time-out alone would take five seconds.
    let took = clock.now().since_origin();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

async fn bulk_messages_keep_their_order_and_end(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let BulkStream { outgoing, mut incoming } =
        flock.caller().open_bulk(PEER, PATIENCE).await.unwrap();
    let lengths = [0, 1, 70_000, 5, 2_000_000];
    let sending = async move {
        for length in lengths {
            outgoing.send(read_at(0, vec![7; length].into())).await.unwrap();
        }
    };
    let receiving = async {
        for length in lengths {
            assert_eq!(incoming.recv().await.unwrap().unwrap().len(), length);
        }
        assert_eq!(incoming.recv().await, None);
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
}

async fn a_cut_bulk_stream_does_not_end_in_order(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let mut stream = flock.caller().open_bulk(PEER, PATIENCE).await.unwrap();
    stream.outgoing.send(read_at(0, Bytes::from_static(b"one"))).await.unwrap();
    assert_eq!(stream.incoming.recv().await.unwrap().unwrap(), "one");
    flock.crash();
    flock.start(Arc::new(Scripted::default()));
    let _may_be_cut_before = stream.outgoing.send(read_at(0, Bytes::from_static(b"two"))).await;
    let cut = tokio::time::timeout(PATIENCE, stream.incoming.recv()).await.unwrap();
    assert_eq!(cut, Some(Err(CallError::Lost)));
}

/// Only clocks tell, and the memory network has none.
#[tokio::test]
async fn a_bulk_message_from_a_paused_past_cuts_the_stream_off() {
    let mut flock = QuicFlock::new();
    flock.start(Arc::new(Scripted::default()));
    let mut stream = flock.caller().open_bulk(PEER, PATIENCE).await.unwrap();
    for seconds in [100, 75] {
        stream.outgoing.send(read_at(seconds, Bytes::from_static(b"fresh"))).await.unwrap();
        assert_eq!(stream.incoming.recv().await.unwrap().unwrap(), "fresh");
    }
    let _may_be_cut_before = stream.outgoing.send(read_at(69, Bytes::from_static(b"stale"))).await;
    let cut = tokio::time::timeout(PATIENCE, stream.incoming.recv()).await.unwrap();
    assert!(matches!(cut, None | Some(Err(_))), "{cut:?}");
}

async fn a_seed_is_called_by_its_address(flock: &mut dyn Flock) {
    flock.start(Arc::new(Scripted::default()));
    let request: Bytes = vec![b'e'; 100_000].into();
    let call = flock.caller().call_address(flock.address(), request.clone(), PATIENCE);
    let (who, answer) = call.await.unwrap();
    assert_eq!(who, Caller { node: PEER, generation: Generation(1) });
    assert!(answer == request);
    assert!(flock.caller().call_address(flock.address(), Bytes::new(), PATIENCE).await.is_ok());
}

/// What a caller with other options is told by the peer.
async fn refusal_of(change: impl FnOnce(&mut TransportOptions)) -> (CallError, CallError) {
    let mut flock = QuicFlock::new();
    flock.start(Arc::new(Scripted::default()));
    let mut options = options(CALLER, 1, &flock.directory);
    change(&mut options);
    let stranger = Transport::bind(options).unwrap();
    let peers = stranger.peers(0).unwrap();
    let lane = peers.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.unwrap_err();
    let seed = peers.call_address(flock.address(), Bytes::new(), PATIENCE).await.unwrap_err();
    stranger.close().await;
    (lane, seed)
}

#[tokio::test]
async fn another_secret_is_refused_with_words_that_name_it() {
    let (lane, seed) = refusal_of(|o| o.secret = Secret::from_random([4; 32])).await;
    for error in [lane, seed] {
        assert!(error.is_certain());
        assert!(error.to_string().contains("another cluster secret"), "{error}");
    }
}

#[tokio::test]
async fn another_cluster_is_refused_with_words_that_name_it() {
    let (lane, seed) = refusal_of(|o| o.cluster = "colony".parse().unwrap()).await;
    for error in [lane, seed] {
        assert!(error.to_string().contains("another cluster secret or cluster name"), "{error}");
    }
}

#[tokio::test]
async fn another_node_at_the_address_is_refused() {
    let mut flock = QuicFlock::new();
    flock.start(Arc::new(Scripted::default()));
    flock.directory.set(STRANGER, flock.address());
    let call = flock.caller().call(STRANGER, Bytes::from_static(b"echo"), PATIENCE);
    let error = call.await.unwrap_err();
    assert!(error.to_string().contains("not the node that was expected"), "{error}");
}

#[tokio::test]
async fn a_dead_peer_is_disconnected_at_once_and_figures_show_it() {
    let mut flock = QuicFlock::new();
    flock.start(Arc::new(Scripted::default()));
    let peers = flock.caller();
    let traffic = || flock.caller.context.connections.collect();
    assert_eq!(traffic(), Traffic::default());
    let pending = peers.call(PEER, Bytes::from_static(b"never"), PATIENCE);
    peers.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.unwrap();
    let stats = flock.caller.peer_stats();
    assert_eq!(stats.len(), 1);
    assert!(stats[0].node == PEER && stats[0].up && stats[0].rtt.is_some());
    assert_eq!(stats[0].in_flight, 1);
    let open = traffic();
    assert!(open.bytes_sent > 1_200 && open.bytes_received > 1_200, "{open:?}");
    let again = traffic();
    assert!(again.bytes_sent < 1_200, "only what is new is counted: {again:?}");
    flock.caller.disconnect(PEER);
    assert_eq!(pending.await, Err(CallError::Lost));
    peers.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await.unwrap();
    flock.caller.close().await;
    let call = peers.call(PEER, Bytes::from_static(b"echo"), PATIENCE).await;
    assert!(matches!(call, Err(CallError::Unreachable(_))));
}

#[tokio::test]
async fn a_peer_that_is_away_fails_calls_by_their_budget_and_certainly() {
    let mut flock = QuicFlock::new();
    flock.start(Arc::new(Scripted::default()));
    flock.crash();
    let budget = Duration::from_millis(200);
    let calls: Vec<_> =
        (0..10).map(|_| flock.caller().call(PEER, Bytes::from_static(b"echo"), budget)).collect();
    let clock = SystemClock::new();
    for call in calls {
        let error = call.await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable(_)), "{error}");
    }
    assert!(clock.now().since_origin() < Duration::from_secs(1));
    flock.start(Arc::new(Scripted::default()));
    let call = flock.caller().call(PEER, Bytes::from_static(b"echo"), PATIENCE);
    let found = async {
        if call.await.is_err() {
            while flock.caller().call(PEER, Bytes::new(), PATIENCE).await.is_err() {}
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_and_an_mtu_out_of_range_are_named() {
    let directory = Arc::new(Addresses::default());
    let first = Transport::bind(options(CALLER, 1, &directory)).unwrap();
    let mut second = options(PEER, 1, &directory);
    second.listen = first.local_addr();
    let error = Transport::bind(second).err().unwrap();
    assert!(error.to_string().contains(&first.local_addr().to_string()), "{error}");
    for (mtu, fine) in [(1199, false), (1200, true), (6500, true), (6501, false)] {
        let mut options = options(PEER, 1, &directory);
        options.max_mtu = mtu;
        let bound = Transport::bind(options);
        assert_eq!(bound.is_ok(), fine, "{mtu}");
        assert!(fine || matches!(bound, Err(TransportError::Mtu(_))));
    }
}

#[tokio::test]
async fn what_waits_for_a_connection_is_bounded_in_bytes() {
    let flock = QuicFlock::new();
    let nobody = Net::Os.bind_udp(PEER_LOOPBACK, 1 << 16).unwrap();
    flock.directory.set(PEER, nobody.local_addr().unwrap());
    let payload: Bytes = vec![0; LANE_PAYLOAD_MAX].into();
    let budget = Duration::from_millis(100);
    let fits = LANE_QUEUED_MAX / LANE_PAYLOAD_MAX;
    let calls: Vec<_> =
        (0..fits).map(|_| flock.caller().call(PEER, payload.clone(), budget)).collect();
    let busy = flock.caller().call(PEER, payload.clone(), PATIENCE).await;
    assert_eq!(busy, Err(CallError::Busy));
    for call in calls {
        assert!(call.await.unwrap_err().is_certain());
    }
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let mut flock = QuicFlock::new();
    flock.start(Arc::new(Scripted::default()));
    let noise = Net::Os.bind_udp(LOOPBACK, 1 << 16).unwrap();
    let rng = Randomness::from_seed(7);
    for _ in 0..2000 {
        let length = usize::try_from(rng.below(1400)).unwrap();
        let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
        noise.send_to(&bytes, flock.address()).await.unwrap();
    }
    let call = flock.caller().call(PEER, Bytes::from_static(b"echo"), PATIENCE);
    assert_eq!(call.await.unwrap(), "echo");
}

#[tokio::test]
async fn connections_are_handed_to_the_threads_in_turn() {
    let directory = Arc::new(Addresses::default());
    let peer = Arc::new(Transport::bind(options(PEER, 1, &directory)).unwrap());
    directory.set(PEER, peer.local_addr());
    let running = Arc::clone(&peer);
    tasks::spawn("accept loop", async move { running.run().await });
    let threads = [Arc::new(Scripted::default()), Arc::new(Scripted::default())];
    for serve in &threads {
        let serve = Arc::clone(serve) as Arc<dyn Serve>;
        tasks::spawn("acceptor", peer.acceptor().run(serve));
    }
    let mut options = options(CALLER, 1, &directory);
    options.lanes = 2;
    let caller = Transport::bind(options).unwrap();
    for thread in [0, 1, 0, 2, 3] {
        let call = caller.peers(thread).unwrap().call(PEER, Bytes::from_static(b"e"), PATIENCE);
        call.await.unwrap();
    }
    // The third and fourth thread share the lanes of the first and second.
    for (thread, count) in threads.iter().zip([3, 2]) {
        assert_eq!(thread.seen.lock().unwrap().len(), count);
    }
    peer.close().await;
}

/// A lane that rests after dials that failed waits for it: the way to the peer is open again.
#[tokio::test]
async fn a_peer_that_dials_is_noticed() {
    let directory = Arc::new(Addresses::default());
    let peer = Arc::new(Transport::bind(options(PEER, 1, &directory)).unwrap());
    directory.set(PEER, peer.local_addr());
    let running = Arc::clone(&peer);
    tasks::spawn("accept loop", async move { running.run().await });
    tasks::spawn("acceptor", peer.acceptor().run(Arc::new(Scripted::default())));
    let caller = Transport::bind(options(CALLER, 1, &directory)).unwrap();
    let (moment, arrivals) = (Duration::from_millis(50), &peer.context.connections);
    let mut arrival = std::pin::pin!(arrivals.arrival(CALLER, 0));
    let mut another = std::pin::pin!(arrivals.arrival(STRANGER, 0));
    assert!(tokio::time::timeout(moment, arrival.as_mut()).await.is_err(), "nobody has dialled");
    assert!(tokio::time::timeout(moment, another.as_mut()).await.is_err());
    let call = caller.peers(0).unwrap().call(PEER, Bytes::from_static(b"echo"), PATIENCE);
    call.await.unwrap();
    tokio::time::timeout(PATIENCE, arrival).await.unwrap();
    assert!(tokio::time::timeout(moment, another).await.is_err(), "it was another that dialled");
    let next = tokio::time::timeout(moment, arrivals.arrival(CALLER, arrivals.next())).await;
    assert!(next.is_err(), "a connection of before says nothing new");
    peer.close().await;
}

#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::net::simulated::{Fate, set_hook};
    use crate::types::WallMillis;

    const PEER_PORT: u16 = 7401;

    type Error = Box<dyn std::error::Error>;

    /// A transport of this host; `node` is its generation's seed too.
    fn bind(node: NodeId, generation: u64) -> Result<Transport, Error> {
        let directory = Arc::new(Addresses::default());
        directory.set(PEER, SocketAddr::new(turmoil::lookup("peer"), PEER_PORT));
        let mut options = options(node, generation, &directory);
        options.net = Net::Simulated;
        options.clock = Arc::new(SimulatedClock::new(WallMillis(1_800_000_000_000)));
        options.listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PEER_PORT);
        Ok(Transport::bind(options)?)
    }

    async fn serve(generation: u64) -> Result<(), Error> {
        let transport = bind(PEER, generation)?;
        tasks::spawn("acceptor", transport.acceptor().run(Arc::new(Scripted::default())));
        transport.run().await;
        Ok(())
    }

    /// Calls until `count` calls were answered, one after the other; how many were not.
    async fn answered(peers: &dyn Peers, count: usize) -> usize {
        let budget = Duration::from_millis(250);
        let (mut done, mut failed) = (0, 0);
        while done < count {
            let request = Bytes::from(format!("e{done}"));
            match peers.call(PEER, request.clone(), budget).await {
                Ok(answer) => {
                    assert_eq!(answer, request);
                    done += 1;
                }
                Err(_) => failed += 1,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(failed < 200, "the lane never came up again");
        }
        failed
    }

    /// One run: the peer crashes between calls and comes back, datagrams are lost and doubled.
    /// When, to where and how long each datagram was.
    fn run(seed: u64) -> Vec<(Duration, SocketAddr, usize)> {
        let trace = Rc::new(RefCell::new(Vec::new()));
        let rng = Randomness::from_seed(seed);
        let seen = Rc::clone(&trace);
        set_hook(Some(Box::new(move |to, bytes| {
            seen.borrow_mut().push((turmoil::elapsed(), to, bytes.len()));
            match rng.below(100) {
                0..5 => Fate::Drop,
                5..8 => Fate::Duplicate,
                8 => Fate::Replace(bytes.iter().map(|byte| byte ^ 1).collect()),
                _ => Fate::Deliver,
            }
        })));
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_mins(2))
            .rng_seed(seed)
            .build();
        let starts = Rc::new(RefCell::new(0));
        sim.host("peer", move || {
            *starts.borrow_mut() += 1;
            let generation = *starts.borrow();
            async move { serve(generation).await }
        });
        let (tell, told) = std::sync::mpsc::channel();
        sim.client("caller", async move {
            let transport = bind(CALLER, 1)?;
            let peers = transport.peers(0)?;
            answered(&*peers, 50).await;
            tell.send(())?;
            let failed = answered(&*peers, 100).await;
            assert!(failed > 0, "nobody noticed the crash");
            transport.close().await;
            Ok(())
        });
        let mut steps_to_bounce = None;
        while !sim.step().unwrap() {
            if told.try_recv().is_ok() {
                sim.crash("peer");
                steps_to_bounce = Some(1000);
            }
            steps_to_bounce = steps_to_bounce.map(|steps: u32| steps.saturating_sub(1));
            if steps_to_bounce == Some(0) {
                sim.bounce("peer");
                steps_to_bounce = None;
            }
        }
        set_hook(None);
        trace.take()
    }

    #[test]
    fn an_idle_lane_is_closed_and_dialled_again() {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_mins(3))
            .tick_duration(Duration::from_millis(20))
            .build();
        sim.host("peer", || serve(1));
        sim.client("caller", async {
            let transport = bind(CALLER, 1)?;
            let peers = transport.peers(0)?;
            answered(&*peers, 3).await;
            tokio::time::sleep(Duration::from_secs(50)).await;
            assert!(transport.peer_stats()[0].up);
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(!transport.peer_stats()[0].up);
            answered(&*peers, 3).await;
            assert!(transport.peer_stats()[0].up);
            Ok(())
        });
        sim.run().unwrap();
    }

    /// A value of 5 MB was once read as nil: its transfers did not fit the budget of a call, so its
    /// copy was missing, and the read fell through to it.
    #[test]
    fn a_large_payload_may_take_longer_than_the_budget_of_a_call() {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_mins(2))
            .rng_seed(1)
            // Nearly the same for all, so that none overtakes another and counts as lost.
            .min_message_latency(Duration::from_millis(20))
            .max_message_latency(Duration::from_millis(21))
            .build();
        sim.host("peer", || serve(1));
        sim.client("caller", async {
            let transport = bind(CALLER, 1)?;
            let peers = transport.peers(0)?;
            answered(&*peers, 3).await;
            let budget = Duration::from_millis(150);
            let started = turmoil::elapsed();
            let request: Bytes = vec![b'e'; 3_000_000].into();
            assert!(peers.call(PEER, request.clone(), budget).await == Ok(request));
            let big = peers.call(PEER, Bytes::from_static(b"big"), budget).await?;
            assert_eq!(big.len(), LANE_PAYLOAD_MAX * 30);
            let took = turmoil::elapsed().saturating_sub(started);
            assert!(took > budget * 3, "the network was not slow");
            let never = peers.call(PEER, Bytes::from_static(b"never"), budget).await;
            assert_eq!(never, Err(CallError::TimedOut));
            Ok(())
        });
        sim.run().unwrap();
    }

    #[test]
    fn lanes_survive_crashes_and_bad_networks_and_repeat_themselves() {
        for seed in 1..=3 {
            let (first, second) = (run(seed), run(seed));
            assert!(first.len() > 200, "seed {seed}");
            let differs = first.iter().zip(&second).position(|(a, b)| a != b);
            assert_eq!(differs, None, "seed {seed}");
            assert_eq!(first.len(), second.len(), "seed {seed}");
        }
    }
}
