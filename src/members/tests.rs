//! Whole services over memory networks, in the runtime's paused time.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Mutex, OnceLock};

use super::*;
use crate::clock::SimulatedClock;
use crate::membership::{GossipKey, KeyRing, KeyRingError};
use crate::peers::memory::MemoryNetwork;
use crate::peers::{BulkStream, Serve, Served};
use crate::types::{ClusterName, Generation, NodeName};
use crate::wire::member::{Join, MEMBER_PROTOCOL, Refusal};

type Datagram = (SocketAddr, Vec<u8>);

/// Gossip sockets in memory; parted ones do not hear each other.
#[derive(Clone, Default)]
struct Ether(Arc<Mutex<EtherState>>);

#[derive(Default)]
struct EtherState {
    sockets: BTreeMap<SocketAddr, mpsc::Sender<Datagram>>,
    parted: Vec<SocketAddr>,
}

struct EtherSocket {
    own: SocketAddr,
    ether: Ether,
    inbox: Mutex<mpsc::Receiver<Datagram>>,
}

impl Ether {
    fn bind(&self, own: SocketAddr) -> EtherSocket {
        let (sender, inbox) = mpsc::channel(1024);
        self.0.lock().unwrap().sockets.insert(own, sender);
        EtherSocket { own, ether: self.clone(), inbox: Mutex::new(inbox) }
    }

    fn part(&self, sockets: &[SocketAddr]) {
        self.0.lock().unwrap().parted = sockets.to_vec();
    }
}

fn put(buffer: &mut [u8], (from, bytes): &Datagram) -> (usize, SocketAddr) {
    let length = bytes.len().min(buffer.len());
    buffer[..length].copy_from_slice(&bytes[..length]);
    (length, *from)
}

impl Datagrams for EtherSocket {
    fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let state = self.ether.0.lock().unwrap();
        let together = state.parted.contains(&self.own) == state.parted.contains(&to);
        if let Some(socket) = state.sockets.get(&to).filter(|_| together) {
            let _full_is_lost = socket.try_send((self.own, bytes.to_vec()));
        }
        Ok(())
    }

    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async {
            match poll_fn(|context| self.inbox.lock().unwrap().poll_recv(context)).await {
                Some(datagram) => Ok(put(buffer, &datagram)),
                None => std::future::pending().await,
            }
        })
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let got = self.inbox.lock().unwrap().try_recv();
        got.map(|datagram| put(buffer, &datagram)).map_err(|_| io::ErrorKind::WouldBlock.into())
    }
}

/// Answers calls through a service that is made later.
#[derive(Default)]
struct Front(OnceLock<Members>);

impl Serve for Front {
    fn serve(&self, from: Caller, request: &[u8], _budget: Duration) -> Served {
        let request = postcard::from_bytes(request).unwrap();
        let answer = self.0.get().unwrap().serve(from, request);
        Served::Later(Box::pin(async { postcard::to_stdvec(&answer.await).unwrap().into() }))
    }

    fn serve_bulk(&self, _from: Caller, _stream: BulkStream) {}
}

struct Literal;

impl Resolve for Literal {
    fn resolve(&self, host_port: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let parsed = host_port.parse().map_err(|_| io::ErrorKind::NotFound.into());
        Box::pin(std::future::ready(parsed.map(|address| vec![address])))
    }
}

const CODEC: MemberCodec = MemberCodec {
    encode: |request| postcard::to_stdvec(&request).unwrap().into(),
    decode: |bytes| postcard::from_bytes(bytes).ok(),
};

struct Node {
    id: NodeId,
    members: Members,
    tasks: TaskGroup,
    gossip: SocketAddr,
}

/// What a node of a test is started with.
#[derive(Clone)]
struct Setup {
    id: u128,
    name: String,
    cluster: &'static str,
    seeds: Vec<String>,
    form: bool,
    phase: Phase,
}

impl Setup {
    fn new(id: u128, seeds: &[&str]) -> Self {
        Self {
            id,
            name: format!("n{id}"),
            cluster: "test",
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
            form: false,
            phase: Phase::Joining,
        }
    }
}

struct World {
    clock: SharedClock,
    peers: MemoryNetwork,
    ether: Ether,
    randomness: Randomness,
}

const SEEDS: [&str; 3] = ["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"];

fn facts(name: &str) -> ClusterFacts {
    ClusterFacts {
        name: name.parse::<ClusterName>().unwrap(),
        replicas: 2,
        virtual_nodes: 256,
        ring_grace: Duration::from_secs(30),
        tombstone_grace: Duration::from_hours(1),
        revision: 0,
        origin: 0,
    }
}

impl World {
    fn new() -> Self {
        Self {
            clock: Arc::new(SimulatedClock::new(WallMillis(1_700_000_000_000))),
            peers: MemoryNetwork::new(),
            ether: Ether::default(),
            randomness: Randomness::from_seed(7),
        }
    }

    fn start(&self, setup: Setup) -> Node {
        let id = NodeId(setup.id);
        let front = Arc::new(Front::default());
        let peers = self.peers.join(id, Arc::<Front>::clone(&front));
        let peer = self.peers.address(id).unwrap();
        let gossip = SocketAddr::from(([127, 0, 0, 1], peer.port() + 1000));
        let generation = Generation(self.clock.wall().0);
        let options = MembersOptions {
            identity: Identity {
                node: id,
                gossip,
                generation,
                revision: 0,
                phase: setup.phase,
                weight: Weight::DEFAULT,
                zone: 0,
            },
            meta: NodeMeta {
                node: id,
                generation,
                revision: 0,
                name: setup.name.parse::<NodeName>().unwrap(),
                zone: None,
                version: "0".to_owned(),
                peer,
                client: peer,
                cluster: peer,
                admin: Some(peer),
                cluster_tls: None,
            },
            profile: GossipProfile::Lan,
            probe_interval: None,
            keys: VersionedKeys::first(KeyRing::new(
                "test".parse().unwrap(),
                1,
                GossipKey::new([1; 32]),
            )),
            facts: facts(setup.cluster),
            seeds: setup.seeds,
            last_known: Vec::new(),
            form: setup.form,
            codec: CODEC,
            on_identity: Box::new(|_| {}),
            on_keys: Box::new(|_| {}),
        };
        let tasks = TaskGroup::new();
        let (members, service) = Members::prepare(options);
        front.0.set(members.clone()).unwrap();
        service.start(MembersParts {
            clock: Arc::clone(&self.clock),
            randomness: self.randomness.clone(),
            datagrams: Arc::new(self.ether.bind(gossip)),
            peers,
            resolver: Arc::new(Literal),
            metrics: GossipMetrics::unregistered(),
            tasks: tasks.clone(),
        });
        Node { id, members, tasks, gossip }
    }

    fn crash(&self, node: &Node) {
        node.tasks.abort();
        self.peers.remove(node.id);
        self.ether.0.lock().unwrap().sockets.remove(&node.gossip);
    }

    /// Waits in virtual time until `holds`; how long it took.
    async fn until(&self, seconds: u64, what: &str, holds: impl Fn() -> bool) -> Duration {
        let start = self.clock.now();
        loop {
            let passed = self.clock.now().saturating_since(start);
            if holds() {
                return passed;
            }
            assert!(passed < Duration::from_secs(seconds), "not in {seconds} s: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Three nodes that formed a cluster.
    async fn three(&self) -> [Node; 3] {
        let nodes = [1, 2, 3].map(|id| self.start(Setup::new(id, &SEEDS)));
        self.until(20, "three nodes are one cluster", || whole(&nodes)).await;
        nodes
    }
}

fn state(at: &Node, of: &Node) -> Option<MemberState> {
    at.members.table().get(of.id).map(|member| member.state)
}

/// Whether each sees all of them alive, with metadata, in one cluster with equal facts.
fn whole(nodes: &[Node]) -> bool {
    let facts = nodes[0].members.table().facts.clone();
    nodes.iter().all(|node| {
        let table = node.members.table();
        let alive = table.members.iter().filter(|member| !member.is_gone());
        table.formed
            && table.facts == facts
            && alive.clone().count() == nodes.len()
            && alive.clone().all(|member| {
                let meta = member.meta.as_ref().map(|meta| meta.generation);
                member.state == MemberState::Alive && meta == Some(member.identity.generation)
            })
            && nodes.iter().all(|other| table.get(other.id).is_some())
    })
}

#[tokio::test(start_paused = true)]
async fn three_nodes_with_the_same_seeds_form_one_cluster_in_any_order() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for ids in orders {
        for rotate in [false, true] {
            for pause in [0, 3, 8] {
                let world = World::new();
                let mut nodes = Vec::new();
                for (at, id) in ids.into_iter().enumerate() {
                    let mut setup = Setup::new(id, &SEEDS);
                    if rotate {
                        setup.seeds.rotate_left(at);
                    }
                    nodes.push(world.start(setup));
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
                world.until(20, "one cluster", || whole(&nodes)).await;
                let founders = nodes.iter().filter(|node| phase(node) == Phase::Active).count();
                assert_eq!(founders, 1, "{ids:?} rotate {rotate} pause {pause}");
                for node in &nodes {
                    world.crash(node);
                }
            }
        }
    }
}

fn phase(node: &Node) -> Phase {
    node.members.table().get(node.id).unwrap().identity.phase
}

#[tokio::test(start_paused = true)]
async fn a_node_without_seeds_forms_at_once_and_others_join_it() {
    let world = World::new();
    let first = world.start(Setup::new(5, &[]));
    world.until(1, "formed", || first.members.table().formed).await;
    let nodes = [first, world.start(Setup::new(1, &SEEDS[..1]))];
    let joined = world.until(2, "joined", || whole(&nodes)).await;
    println!("a joiner and the cluster know each other after {joined:?}");
    assert_eq!(phase(&nodes[1]), Phase::Joining);
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_among_three_seeds_waits_and_says_for_whom() {
    let world = World::new();
    let node = world.start(Setup::new(1, &[SEEDS[1], SEEDS[0], SEEDS[2]]));
    let waits = || node.members.table().waiting_for.clone();
    world.until(10, "it says so", || waits().contains("1 of 3 seeds reached")).await;
    assert!(waits().contains("127.0.0.1:7403 ("), "{}", waits());
    assert!(node.members.form().await);
    world.until(1, "told to form, it does", || node.members.table().formed).await;
    assert!(!node.members.form().await, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn another_cluster_is_refused_with_both_names() {
    let world = World::new();
    let _first = world.start(Setup::new(1, &[]));
    let stranger = world.start(Setup { cluster: "other", ..Setup::new(2, &SEEDS[..1]) });
    world
        .until(10, "the refusal is told", || {
            let waiting = stranger.members.table().waiting_for.clone();
            waiting.contains("belongs to cluster `test`, not `other`")
        })
        .await;
    assert!(!stranger.members.table().formed);
}

#[tokio::test(start_paused = true)]
async fn a_name_belongs_to_one_alive_member_and_a_dead_one_loses_it() {
    let world = World::new();
    let first = world.start(Setup::new(1, &[]));
    let second = world.start(Setup::new(2, &SEEDS[..1]));
    let double = world.start(Setup { name: "n2".to_owned(), ..Setup::new(3, &SEEDS[..1]) });
    world
        .until(10, "refused with both addresses", || {
            let waiting = double.members.table().waiting_for.clone();
            waiting.contains("`n2` belongs to the member at 127.0.0.1:7402")
                && waiting.contains("this node at 127.0.0.1:7403")
        })
        .await;
    world.crash(&second);
    world.until(20, "let in once the holder is dead", || double.members.table().formed).await;
    world
        .until(2, "the dead one is replaced", || {
            state(&first, &second) == Some(MemberState::Left)
                && state(&first, &double) == Some(MemberState::Alive)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_id_at_a_second_address_is_refused() {
    let world = World::new();
    let nodes = world.three().await;
    let table = nodes[0].members.table();
    let other = table.get(nodes[1].id).unwrap();
    let join = Join {
        protocol: MEMBER_PROTOCOL,
        cluster: "test".parse().unwrap(),
        identity: Identity {
            gossip: "127.0.0.1:9".parse().unwrap(),
            generation: Generation(u64::MAX - 1),
            ..other.identity.clone()
        },
        incarnation: 0,
        meta: NodeMeta::clone(other.meta.as_ref().unwrap()),
        formed: false,
        first: false,
    };
    let caller = Caller { node: nodes[1].id, generation: Generation(1) };
    let answer = nodes[0].members.serve(caller, MemberRequest::Join(Box::new(join.clone()))).await;
    assert!(matches!(answer, MemberAnswer::Refused(Refusal::IdInUse { .. })), "{answer:?}");
    let impostor = Caller { node: nodes[2].id, ..caller };
    let answer = nodes[0].members.serve(impostor, MemberRequest::Join(Box::new(join))).await;
    assert_eq!(answer, MemberAnswer::Busy, "nobody joins for another");
}

#[tokio::test(start_paused = true)]
async fn changed_facts_are_everybodys_facts() {
    let world = World::new();
    let nodes = world.three().await;
    let change = FactsChange { replicas: Some(3), ..FactsChange::default() };
    let changed = nodes[1].members.set_facts(change).await.unwrap();
    assert_eq!(changed.replicas, 3);
    world.until(2, "all know", || nodes.iter().all(|n| n.members.table().facts == changed)).await;
    let wrong = FactsChange { replicas: Some(0), ..FactsChange::default() };
    assert_eq!(nodes[1].members.set_facts(wrong).await, Err(FactsError::Replicas));
    let late = world.start(Setup::new(9, &SEEDS));
    world.until(5, "a joiner takes them over", || late.members.table().facts == changed).await;
}

#[tokio::test(start_paused = true)]
async fn a_death_is_published_and_a_restart_keeps_the_place() {
    let world = World::new();
    let [a, b, c] = world.three().await;
    for node in [&a, &b, &c] {
        node.members.set_phase(Phase::Active).await;
    }
    world
        .until(2, "active", || {
            a.members.table().members.iter().all(|member| member.identity.phase == Phase::Active)
        })
        .await;
    world.crash(&c);
    world
        .until(10, "dead", || [&a, &b].iter().all(|at| state(at, &c) == Some(MemberState::Dead)))
        .await;
    assert!(a.members.table().get(c.id).unwrap().is_placed(), "it keeps its place");
    let back = world.start(Setup::new(3, &SEEDS));
    world.until(5, "back", || phase(&back) == Phase::Returning).await;
    let nodes = [a, b, back];
    world.until(5, "whole", || whole(&nodes)).await;
    world.crash(&nodes[2]);
    world.until(60, "removed", || nodes[0].members.table().get(nodes[2].id).unwrap().removed).await;
    let anew = world.start(Setup { phase: Phase::Returning, ..Setup::new(3, &SEEDS) });
    world
        .until(5, "whose place is gone joins anew", || {
            anew.members.table().formed && phase(&anew) == Phase::Joining
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_has_left_for_all() {
    let world = World::new();
    let [a, b, c] = world.three().await;
    c.members.leave().await;
    world
        .until(2, "left", || [&a, &b].iter().all(|at| state(at, &c) == Some(MemberState::Left)))
        .await;
    assert!(!a.members.table().get(c.id).unwrap().is_placed());
    let gone = "127.0.0.1:7403".parse().unwrap();
    assert!(a.members.table().last_known().all(|(_, peer)| peer != gone));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_member_has_left_for_all() {
    let world = World::new();
    let [a, b, c] = world.three().await;
    assert!(!a.members.forget(c.id).await, "the living are not forgotten");
    world.crash(&c);
    world.until(10, "dead", || state(&a, &c) == Some(MemberState::Dead)).await;
    assert!(a.members.forget(c.id).await);
    world
        .until(2, "left", || [&a, &b].iter().all(|at| state(at, &c) == Some(MemberState::Left)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_parted_node_is_found_again() {
    let world = World::new();
    let nodes = world.three().await;
    world.ether.part(&[nodes[2].gossip]);
    for other in [&nodes[0], &nodes[1]] {
        world.peers.cut(nodes[2].id, other.id);
    }
    world
        .until(20, "both sides hold the other for dead", || {
            state(&nodes[0], &nodes[2]) == Some(MemberState::Dead)
                && state(&nodes[2], &nodes[0]) == Some(MemberState::Dead)
                && state(&nodes[2], &nodes[1]) == Some(MemberState::Dead)
        })
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.ether.part(&[]);
    for other in [&nodes[0], &nodes[1]] {
        world.peers.heal(nodes[2].id, other.id);
    }
    let healed = world.until(15, "one cluster again", || whole(&nodes)).await;
    println!("three nodes healed after {healed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_udp_is_kept_alive_by_the_fallback_ping() {
    let world = World::new();
    let nodes = world.three().await;
    world.ether.part(&[nodes[2].gossip]);
    for tenth in 0..600 {
        let dead = state(&nodes[0], &nodes[2]) == Some(MemberState::Dead);
        assert!(!dead, "after {tenth} tenths of a second");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_clusters_of_one_name_merge_when_they_meet() {
    let world = World::new();
    let a = world.start(Setup { form: true, ..Setup::new(1, &SEEDS[..2]) });
    world.until(5, "formed alone", || a.members.table().formed).await;
    let b = world.start(Setup::new(2, &[]));
    world.until(5, "formed alone", || b.members.table().formed).await;
    let change = FactsChange { replicas: Some(3), ..FactsChange::default() };
    b.members.set_facts(change).await.unwrap();
    let nodes = [a, b];
    let merged = world.until(60, "one cluster", || whole(&nodes)).await;
    println!("two clusters merged after {merged:?}");
    assert_eq!(nodes[0].members.table().facts.replicas, 3);
}

/// The keys of a node by id, and the one that seals.
async fn keys(node: &Node) -> (Vec<u8>, u8) {
    let keys = node.members.keys().await.unwrap().ring;
    (keys.keys().map(|(id, _)| id).collect(), keys.primary())
}

async fn change(node: &Node, change: KeyChange) -> Result<KeysChanged, KeysError> {
    node.members.change_keys(change).await
}

#[tokio::test(start_paused = true)]
async fn a_key_is_added_used_and_removed_at_any_nodes_and_joiners_get_the_ring() {
    let world = World::new();
    let nodes = world.three().await;
    let added = change(&nodes[0], KeyChange::Add(GossipKey::new([9; 32]))).await.unwrap();
    assert_eq!(added, KeysChanged { id: 2, late: Vec::new() });
    let again = change(&nodes[1], KeyChange::Add(GossipKey::new([9; 32]))).await.unwrap();
    assert_eq!(again.id, 2, "the same key is not there twice");
    let seals = change(&nodes[1], KeyChange::Remove(1)).await;
    assert_eq!(seals, Err(KeyRingError::InUse(1).into()));
    assert_eq!(change(&nodes[1], KeyChange::Use(7)).await, Err(KeyRingError::Unknown(7).into()));
    assert_eq!(change(&nodes[1], KeyChange::Use(2)).await.unwrap().late, []);
    assert_eq!(change(&nodes[2], KeyChange::Remove(1)).await.unwrap().late, []);
    for node in &nodes {
        assert_eq!(keys(node).await, (vec![2], 2));
    }
    // Its own key, from the secret, opens nothing that the others send.
    let [a, b, c] = nodes;
    let all = [a, b, c, world.start(Setup::new(4, &SEEDS))];
    world.until(5, "a joiner hears and is heard", || whole(&all)).await;
    assert_eq!(keys(&all[3]).await, (vec![2], 2));
}

#[tokio::test(start_paused = true)]
async fn no_key_seals_before_every_living_member_has_it() {
    let world = World::new();
    let nodes = world.three().await;
    world.peers.remove(nodes[2].id);
    let added = change(&nodes[0], KeyChange::Add(GossipKey::new([9; 32]))).await.unwrap();
    assert_eq!(added.late, [nodes[2].id]);
    let used = change(&nodes[0], KeyChange::Use(added.id)).await;
    assert_eq!(used, Err(KeysError::Unconfirmed(vec![nodes[2].id])));
    assert_eq!(keys(&nodes[0]).await, (vec![1, 2], 1), "nothing was changed");
    world.crash(&nodes[2]);
    world.until(30, "it is dead", || state(&nodes[0], &nodes[2]) == Some(MemberState::Dead)).await;
    assert_eq!(change(&nodes[0], KeyChange::Use(added.id)).await.unwrap().late, []);
}

#[tokio::test(start_paused = true)]
async fn a_change_elsewhere_meanwhile_is_noticed_and_the_later_ring_wins_everywhere() {
    let world = World::new();
    let nodes = world.three().await;
    let (one, other) = tokio::join!(
        change(&nodes[0], KeyChange::Add(GossipKey::new([8; 32]))),
        change(&nodes[1], KeyChange::Add(GossipKey::new([9; 32]))),
    );
    assert!(one.is_ok() || other.is_ok());
    // A round of push-pull and a half.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let first = nodes[0].members.keys().await.unwrap().to_record();
    for node in &nodes {
        assert_eq!(node.members.keys().await.unwrap().to_record(), first);
    }
}
