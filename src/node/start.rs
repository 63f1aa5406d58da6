//! The order of start-up, as code.
//!
//! Storage and secret first, then every port is bound, so that what cannot work fails before
//! anything is told to anyone; then admin answers (alive, not ready), peers and gossip start, and
//! clients are accepted once the node is part of a cluster with an active member.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::admin;
use crate::admin::status::Addresses;
use crate::clock::{SharedClock, SystemClock};
use crate::cluster::{self, ClusterOptions, ClusterParts, MemberPort, PeerService};
use crate::config::{Config, MemoryPolicy};
use crate::gossip::GossipSocket;
use crate::hlc::Hlc;
use crate::limits::{STORE_SHARDS_MAX, UDP_BUFFER};
use crate::members::{MemberCodec, Members, MembersOptions, MembersParts, Resolve};
use crate::membership::{GossipKey, KeyRing};
use crate::metrics::Metrics;
use crate::net::{Net, TcpListener};
use crate::peers::{Caller, Directory};
use crate::persist::{DirectoryStorage, NodeFile, Seed, Storage};
use crate::rng::Randomness;
use crate::server::{Port, Server};
use crate::store::{Policy, Store, StoreOptions};
use crate::tasks::{BoxFuture, Executor, Latch, TaskGroup};
use crate::tls::Secret;
use crate::transport::{Transport, TransportOptions};
use crate::types::{ByteSize, ClusterFacts, Identity, MemberState, NodeId, NodeMeta, Phase};
use crate::wire::member::{MemberAnswer, MemberRequest};
use crate::wire::message::{Request, Response};

use super::addresses::{advertised, route_to};
use super::backend::FrontEnd;
use super::client::ShardHandle;
use super::shards::{Threads, default_shards};
use super::source::NodeSource;
use super::{Error, Inner, Node, Seams};

/// How far ahead of its stamps a node reserves its hybrid clock in the node file, in milliseconds.
const CLOCK_RESERVE_MILLIS: u64 = 1_000;

/// Starts a node on threads of its own.
pub(super) async fn on_threads(config: Config) -> Result<Node, Error> {
    let wanted = config.node.threads;
    let threads = Threads::own(if wanted == 0 { default_shards() } else { wanted })?;
    let storage = Arc::new(DirectoryStorage::open(&config.node.data_dir)?);
    let (control, shards) = (threads.control(), threads.shards());
    let inner = control
        .clone()
        .run("start", async move {
            let seams = Seams {
                net: Net::Os,
                clock: Arc::new(SystemClock::new()),
                rng: Randomness::from_system(),
                storage,
            };
            start(config, seams, control, shards).await
        })
        .await
        .ok_or(Error::Stopped)??;
    Ok(Node { inner, _threads: threads })
}

/// Starts a node on the caller's runtime.
pub(super) async fn on_caller(config: Config, seams: Seams) -> Result<Node, Error> {
    let inner = start(config, seams, Executor::Caller, vec![Executor::Caller]).await?;
    Ok(Node { inner, _threads: Threads::Caller })
}

/// Ports that are bound and not served yet.
struct Ports {
    client: Vec<TcpListener>,
    cluster: Vec<TcpListener>,
    gossip: GossipSocket,
    /// `None` in a simulation, where there is no HTTP.
    admin: Option<admin::Bound>,
}

async fn start(
    config: Config,
    seams: Seams,
    control: Executor,
    shards: Vec<Executor>,
) -> Result<Arc<Inner>, Error> {
    let Seams { net, clock, rng, storage } = seams;
    let secret = secret(&config)?;
    let file = node_file(&*storage, &clock, &rng)?;
    let (metrics, recorder) = Metrics::new();
    let tasks = TaskGroup::new();
    let ports = bind(&config, net).await?;
    let route = route(&config, net).await;
    let me = Caller { node: file.node, generation: file.generation };

    let identity_address = bound(ports.gossip.local_addr(), "gossip.listen", config.gossip.listen)?;
    let gossip = advertised(config.gossip.advertise, identity_address, route);
    let peer_socket = config.peer.listen;
    let directory = Arc::new(LateDirectory::default());
    let transport = Arc::new(Transport::bind(TransportOptions {
        net,
        listen: peer_socket,
        own: me,
        cluster: config.cluster.name.clone(),
        secret: secret.clone(),
        directory: Arc::clone(&directory) as Arc<dyn Directory>,
        clock: Arc::clone(&clock),
        rng: rng.clone(),
        metrics: metrics.transport.clone(),
        tasks: tasks.clone(),
        lanes: config.peer.lanes,
        max_mtu: config.peer.max_mtu,
        disable_gso: config.peer.disable_gso,
    })?);
    let addresses = addresses(&config, &ports, gossip, transport.local_addr(), route)?;
    let (members, service) =
        Members::prepare(members_options(&config, &file, addresses, &secret, &storage));
    directory.set(members.clone());

    let store = Arc::new(store(&config, &secret, &clock, &file));
    let shared = cluster::Shared::new(
        cluster_options(&config, me),
        ClusterParts {
            store,
            clock: Arc::clone(&clock),
            rng: rng.clone(),
            metrics: metrics.clone(),
            table: members.table(),
        },
    );
    let port: Arc<dyn MemberPort> = Arc::new(members.clone());
    let control_peers = transport.peers(0)?;
    let control_cache = cluster::Cache::new(Arc::clone(&shared), Arc::clone(&control_peers));
    let handles = serve_peers(&shards, &transport, &shared, &port, &tasks).await?;

    let inner = Arc::new(Inner {
        me: me.node,
        generation: me.generation,
        started: clock.now(),
        clock: Arc::clone(&clock),
        recorder,
        addresses,
        members: members.clone(),
        transport: Arc::clone(&transport),
        control: control_cache,
        shards: handles.into(),
        server: Server::new(
            config.client.clone(),
            password(&config)?,
            Arc::clone(&clock),
            metrics.server.clone(),
        ),
        tasks: tasks.clone(),
        storage,
        stopping: Latch::new(),
        stopped: Latch::new(),
        shared,
        metrics,
        config,
    });
    if let Some(admin) = ports.admin {
        admin.serve(Arc::new(NodeSource(Arc::clone(&inner))), &tasks);
    }
    service.start(MembersParts {
        clock,
        randomness: rng,
        datagrams: Arc::new(ports.gossip),
        peers: control_peers,
        resolver: Arc::new(NetResolver(net)),
        metrics: inner.metrics.gossip.clone(),
        tasks: tasks.clone(),
    });
    run(&inner, file, &port, &control);
    accept_clients(&inner, ports.client, ports.cluster);
    tracing::info!(
        node = %inner.config.node.name,
        id = %inner.me,
        client = %addresses.client,
        cluster = %addresses.cluster,
        gossip = %addresses.gossip,
        peer = %addresses.peer,
        "node started"
    );
    Ok(inner)
}

/// The background work of a running node.
fn run(inner: &Arc<Inner>, file: NodeFile, port: &Arc<dyn MemberPort>, control: &Executor) {
    let tasks = &inner.tasks;
    let transport = Arc::clone(&inner.transport);
    tasks.spawn_on(control, "peer port", async move { transport.run().await });
    tasks.spawn_on(control, "follow members", follow_members(Arc::clone(inner)));
    tasks.spawn_on(control, "node file", keep_file(Arc::clone(inner), file));
    inner.control.spawn_workers(tasks, port);
}

/// Publishes every member table to the cluster layer, and closes connections to the dead.
async fn follow_members(inner: Arc<Inner>) {
    let mut tables = inner.members.subscribe();
    let mut stop = inner.tasks.stop_signal();
    loop {
        let table = Arc::clone(&tables.borrow_and_update());
        for member in &table.members {
            if member.state == MemberState::Dead {
                inner.transport.disconnect(member.identity.node);
            }
        }
        inner.shared.publish(table);
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            changed = tables.changed() => if changed.is_err() { return },
        }
    }
}

/// Keeps the node file: the clock's reserve, the cluster facts, the members last known.
async fn keep_file(inner: Arc<Inner>, mut file: NodeFile) {
    let mut stop = inner.tasks.stop_signal();
    loop {
        let table = inner.members.table();
        let before = file.clone();
        let wall = inner.clock.wall().saturating_add(CLOCK_RESERVE_MILLIS);
        file.clock_high = file.clock_high.max(crate::hlc::reading_at(wall));
        if table.formed {
            file.facts = Some(table.facts.clone());
            let seeds = table.members.iter().filter(|member| member.identity.node != inner.me);
            file.members = seeds
                .filter(|member| member.state != MemberState::Left)
                .filter_map(|member| {
                    let peer = member.meta.as_ref()?.peer;
                    Some(Seed { node: member.identity.node, peer })
                })
                .collect();
        }
        if let Some(own) = table.get(inner.me) {
            file.generation = file.generation.max(own.identity.generation);
        }
        if file != before
            && let Err(error) = file.write(&*inner.storage)
        {
            tracing::error!(%error, "node file could not be written");
        }
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(std::time::Duration::from_millis(CLOCK_RESERVE_MILLIS / 2)) => {}
        }
    }
}

fn secret(config: &Config) -> Result<Secret, Error> {
    match &config.security.secret_file {
        Some(path) => Ok(Secret::read(path)?),
        None => Ok(Secret::development()),
    }
}

fn password(config: &Config) -> Result<Option<crate::server::Password>, Error> {
    let Some(path) = &config.client.password_file else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::Settings(format!("client.password_file {}: {error}", path.display()))
    })?;
    match crate::server::Password::from_text(&text) {
        Some(password) => Ok(Some(password)),
        None => Err(Error::Settings(format!("client.password_file {}: empty", path.display()))),
    }
}

fn node_file(
    storage: &dyn Storage,
    clock: &SharedClock,
    rng: &Randomness,
) -> Result<NodeFile, Error> {
    let new_id = || NodeId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
    Ok(NodeFile::begin(storage, clock.wall(), new_id)?)
}

async fn bind(config: &Config, net: Net) -> Result<Ports, Error> {
    let tcp = |what: &'static str, address: SocketAddr| {
        net.bind_tcp(address).map_err(|source| Error::Bind { what, address, source })
    };
    let mut client = Vec::new();
    for address in &config.client.listen {
        client.push(tcp("client.listen", *address)?);
    }
    let mut cluster = Vec::new();
    for address in cluster_listen(config, &client)? {
        cluster.push(tcp("client.cluster_listen", address)?);
    }
    let gossip = config.gossip.listen;
    let socket = net.bind_udp(gossip, UDP_BUFFER).map_err(|source| Error::Bind {
        what: "gossip.listen",
        address: gossip,
        source,
    })?;
    let admin =
        if net.is_simulated() { None } else { Some(admin::Bound::bind(&config.admin).await?) };
    Ok(Ports { client, cluster, gossip: GossipSocket::new(socket), admin })
}

/// Where cluster clients are served: as set, else the client port + 10000, else any port.
fn cluster_listen(config: &Config, client: &[TcpListener]) -> Result<Vec<SocketAddr>, Error> {
    if !config.client.cluster_listen.is_empty() {
        return Ok(config.client.cluster_listen.clone());
    }
    config
        .client
        .listen
        .iter()
        .zip(client)
        .map(|(wanted, listener)| {
            let mut address = bound(listener.local_addr(), "client.listen", *wanted)?;
            let beside = if wanted.port() == 0 { None } else { wanted.port().checked_add(10_000) };
            address.set_port(beside.unwrap_or(0));
            Ok(address)
        })
        .collect()
}

fn bound(
    address: std::io::Result<SocketAddr>,
    what: &'static str,
    wanted: SocketAddr,
) -> Result<SocketAddr, Error> {
    address.map_err(|source| Error::Bind { what, address: wanted, source })
}

/// This host's address on the way to the first seed that resolves.
async fn route(config: &Config, net: Net) -> Option<IpAddr> {
    for seed in &config.cluster.join {
        let resolved = net.resolve(&crate::config::seed_address(seed)).await;
        if let Some(target) = resolved.ok().and_then(|found| found.first().copied()) {
            return if net.is_simulated() { None } else { route_to(target) };
        }
    }
    None
}

fn addresses(
    config: &Config,
    ports: &Ports,
    gossip: SocketAddr,
    peer: SocketAddr,
    route: Option<IpAddr>,
) -> Result<Addresses, Error> {
    let first = |listeners: &[TcpListener], what: &'static str| match listeners.first() {
        Some(listener) => bound(listener.local_addr(), what, config.gossip.listen),
        None => Err(Error::Settings(format!("{what} names no address"))),
    };
    let client = first(&ports.client, "client.listen")?;
    let cluster = first(&ports.cluster, "client.cluster_listen")?;
    let admin = ports.admin.as_ref().and_then(|admin| admin.addresses().first().copied());
    Ok(Addresses {
        client: advertised(config.client.advertise, client, route),
        cluster: advertised(config.client.cluster_advertise, cluster, route),
        gossip,
        peer: advertised(config.peer.advertise, peer, route),
        admin: admin.map(|admin| advertised(None, admin, route)),
    })
}

fn members_options(
    config: &Config,
    file: &NodeFile,
    addresses: Addresses,
    secret: &Secret,
    storage: &Arc<dyn Storage>,
) -> MembersOptions {
    let was_member = file.facts.is_some();
    let phase = if was_member { Phase::Returning } else { Phase::Joining };
    let zone = config.node.zone.as_ref();
    let identity = Identity {
        node: file.node,
        gossip: addresses.gossip,
        generation: file.generation,
        revision: 0,
        phase,
        weight: config.node.weight,
        zone: zone.map_or(0, crate::types::Zone::tag),
    };
    let meta = NodeMeta {
        node: file.node,
        generation: file.generation,
        revision: 0,
        name: config.node.name.clone(),
        zone: zone.cloned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        peer: addresses.peer,
        client: addresses.client,
        cluster: addresses.cluster,
        admin: addresses.admin,
    };
    let cluster = &config.cluster;
    let wished = ClusterFacts {
        name: cluster.name.clone(),
        replicas: cluster.replicas,
        virtual_nodes: cluster.virtual_nodes,
        ring_grace: cluster.ring_grace,
        tombstone_grace: cluster.tombstone_grace,
        revision: 0,
        origin: file.node.tag(),
    };
    let kept = file.facts.clone().filter(|facts| facts.name == cluster.name);
    let (kept_file, storage) = (file.clone(), Arc::clone(storage));
    MembersOptions {
        identity,
        meta,
        profile: config.gossip.profile,
        probe_interval: config.gossip.probe_interval,
        key_ring: KeyRing::new(
            cluster.name.clone(),
            0,
            GossipKey::new(*secret.gossip_key(&cluster.name)),
        ),
        facts: kept.unwrap_or(wished),
        seeds: cluster.join.iter().map(|seed| crate::config::seed_address(seed)).collect(),
        last_known: file.members.iter().map(|seed| seed.peer).collect(),
        form: cluster.form,
        codec: MemberCodec { encode: encode_member, decode: decode_member },
        on_identity: Box::new(move |identity| {
            // A renewed generation must be on disk before its first packet.
            let mut file = kept_file.clone();
            file.generation = file.generation.max(identity.generation);
            if let Err(error) = file.write(&*storage) {
                tracing::error!(%error, "node file could not be written");
            }
        }),
    }
}

fn encode_member(request: MemberRequest) -> bytes::Bytes {
    Request::Member(request).encode()
}

fn decode_member(bytes: &[u8]) -> Option<MemberAnswer> {
    match Response::decode(bytes)? {
        Response::Member(answer) => Some(answer),
        _ => None,
    }
}

fn store(config: &Config, secret: &Secret, clock: &SharedClock, file: &NodeFile) -> Store {
    let seed = secret.digest_seed(&config.cluster.name);
    let policy = match config.memory.policy {
        MemoryPolicy::Evict => Policy::Evict,
        MemoryPolicy::Refuse => Policy::Refuse,
    };
    let store = Store::new(StoreOptions {
        shards: STORE_SHARDS_MAX,
        limit: config.memory.limit,
        policy,
        digest_seed: seed,
        hash_seed: seed.rotate_left(32),
    });
    let floor = file.clock_high.max(crate::hlc::reading_at(clock.wall()));
    for index in 0..store.shards() {
        *store.lock_shard(index).clock_mut() = Hlc::starting_above(floor);
    }
    store
}

fn cluster_options(config: &Config, me: Caller) -> ClusterOptions {
    ClusterOptions {
        me: me.node,
        generation: me.generation,
        acks: config.cluster.acks,
        acks_shortfall: config.cluster.acks_shortfall,
        call_timeout: config.peer.call_timeout,
        op_timeout: config.client.op_timeout,
        sync_rate: ByteSize(config.peer.sync_rate.0),
        max_value: config.client.max_value_size,
    }
}

/// Gives each shard its way to the peers and its share of the peers that arrive.
async fn serve_peers(
    shards: &[Executor],
    transport: &Arc<Transport>,
    shared: &Arc<cluster::Shared>,
    port: &Arc<dyn MemberPort>,
    tasks: &TaskGroup,
) -> Result<Vec<ShardHandle>, Error> {
    let mut handles = Vec::with_capacity(shards.len());
    for (number, executor) in shards.iter().enumerate() {
        let (transport, shared) = (Arc::clone(transport), Arc::clone(shared));
        let acceptor = transport.acceptor();
        let peers = match executor {
            Executor::Caller => transport.peers(number),
            // On the shard's own runtime: the lanes it dials belong to it.
            there @ Executor::Thread(_) => there
                .run("shard peers", async move { transport.peers(number + 1) })
                .await
                .ok_or(Error::Stopped)?,
        }?;
        let cache = cluster::Cache::new(shared, peers);
        let service = Arc::new(PeerService::new(cache.clone(), Arc::clone(port)));
        tasks.spawn_on(executor, "peers of a shard", acceptor.run(service));
        handles.push(ShardHandle { executor: executor.clone(), cache });
    }
    Ok(handles)
}

/// Accepts clients once the node is in a cluster that can serve them, and hands them to the shards
/// in turn.
fn accept_clients(inner: &Arc<Inner>, client: Vec<TcpListener>, cluster: Vec<TcpListener>) {
    let front_ends: Vec<(Executor, Arc<FrontEnd>)> = inner
        .shards
        .iter()
        .map(|shard| {
            let front_end = FrontEnd::new(shard.cache.clone(), Arc::clone(inner));
            (shard.executor.clone(), Arc::new(front_end))
        })
        .collect();
    let listeners = client
        .into_iter()
        .map(|listener| (listener, Port::Client))
        .chain(cluster.into_iter().map(|listener| (listener, Port::Cluster)));
    for (listener, port) in listeners {
        let (inner, tasks) = (Arc::clone(inner), inner.tasks.clone());
        let mut turns = front_ends.clone().into_iter().cycle();
        tasks.clone().spawn("accept clients", async move {
            inner.has_active_member().await;
            let (server, stop) = (Arc::clone(&inner.server), tasks.stop_signal());
            let give = move |accepted| {
                if let Some((executor, front_end)) = turns.next() {
                    let server = Arc::clone(&inner.server);
                    tasks.spawn_on(&executor, "client", server.serve(front_end, accepted));
                }
            };
            server.listen(listener, port, stop, give).await;
        });
    }
}

impl Inner {
    /// Waits until the node knows an active member, itself or another.
    async fn has_active_member(&self) {
        let mut views = self.shared.view_changes();
        loop {
            let view = self.shared.view();
            let active = |phase: Phase| phase == Phase::Active;
            if view.table.formed
                && view.table.members.iter().any(|member| active(member.identity.phase))
            {
                return;
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The member table as the transport asks it, once there is one.
#[derive(Default)]
struct LateDirectory(std::sync::OnceLock<Members>);

impl LateDirectory {
    fn set(&self, members: Members) {
        // It is set once, right after it is made.
        let _set_before = self.0.set(members);
    }
}

impl Directory for LateDirectory {
    fn locate(&self, node: NodeId) -> Option<SocketAddr> {
        self.0.get()?.locate(node)
    }
}

/// Seeds are found by the node's network.
struct NetResolver(Net);

impl Resolve for NetResolver {
    fn resolve(&self, host_port: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let net = self.0;
        Box::pin(async move { net.resolve(&host_port).await })
    }
}
