//! The order of start-up, as code.
//!
//! Storage and secret first, then every port is bound, so that what cannot work fails before
//! anything is told to anyone; then admin answers (alive, not ready), peers and gossip start, and
//! clients are served once the node is part of a cluster with an active member.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::cluster::{self, MemberPort, PeerService};
use crate::config::Config;
use crate::members::{Members, MembersParts, Resolve};
use crate::metrics::Metrics;
use crate::net::{Net, TcpListener};
use crate::peers::Directory;
use crate::persist::DirectoryStorage;
use crate::rng::Randomness;
use crate::server::{Entrance, Server};
use crate::tasks::{BoxFuture, Executor, Latch, TaskGroup};
use crate::transport::Transport;
use crate::types::{MemberState, NodeId, Phase};
use crate::wire::hello::Protocols;

use super::backend::FrontEnd;
use super::client::ShardHandle;
use super::ground::Ground;
use super::keeper::FileKeeper;
use super::ports::Ports;
use super::shards::{Threads, default_shards};
use super::snapshots::Disk;
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
                protocols: Protocols::OWN,
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

async fn start(
    config: Config,
    seams: Seams,
    control: Executor,
    shards: Vec<Executor>,
) -> Result<Arc<Inner>, Error> {
    let mut ground = Ground::lay(config, seams)?;
    let keeper = ground.keeper();
    let (metrics, recorder) = Metrics::new();
    let tasks = TaskGroup::new();
    let ports = Ports::bind(&ground.config, ground.seams.net).await?;
    let directory = Arc::new(LateDirectory::default());
    let known: Arc<dyn Directory> = Arc::clone(&directory) as Arc<dyn Directory>;
    let transport = Arc::new(Transport::bind(ground.transport(known, &metrics, &tasks))?);
    let addresses = ports.addresses(&ground.config, transport.local_addr()).await?;
    let (members, service) = Members::prepare(ground.members(addresses, &keeper));
    directory.set(members.clone());

    let parts = ground.cluster_parts(&metrics, members.table());
    let shared = cluster::Shared::new(ground.cluster_options(), parts);
    let port: Arc<dyn MemberPort> = Arc::new(members.clone());
    let control_peers = transport.peers(0)?;
    let control_cache = cluster::Cache::new(Arc::clone(&shared), Arc::clone(&control_peers));
    let handles = serve_peers(&shards, &transport, &shared, &port, &tasks).await?;
    let Ground { config, seams: Seams { net, clock, rng, storage, .. }, file, admission, .. } =
        ground;
    let server = Server::new(
        config.client.clone(),
        admission,
        (Arc::clone(&clock), rng.clone()),
        metrics.server.clone(),
    );
    let inner = Arc::new(Inner {
        me: file.node,
        generation: file.generation,
        is_new: file.facts.is_none(),
        started: clock.now(),
        clock: Arc::clone(&clock),
        disk: Disk::new(storage),
        recorder,
        addresses,
        members,
        transport,
        control: control_cache,
        shards: handles.into(),
        server,
        tasks: tasks.clone(),
        listeners: TaskGroup::new(),
        stopping: Latch::new(),
        stopped: Latch::new(),
        shared,
        metrics,
        config,
    });
    inner.note_reload(true);
    if file.facts.is_some() {
        inner.begin_warm_start(&control);
    }
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
        tasks,
    });
    run(&inner, keeper, &port, &control);
    inner.watch_certificate(&control);
    accept_clients(&inner, ports.entrances);
    inner.say_started();
    Ok(inner)
}

/// The background work of a running node.
fn run(
    inner: &Arc<Inner>,
    keeper: Arc<FileKeeper>,
    port: &Arc<dyn MemberPort>,
    control: &Executor,
) {
    let tasks = &inner.tasks;
    let transport = Arc::clone(&inner.transport);
    tasks.spawn_on(control, "peer port", async move { transport.run().await });
    tasks.spawn_on(control, "follow members", follow_members(Arc::clone(inner)));
    tasks.spawn_on(control, "node file", keep_file(Arc::clone(inner), keeper));
    inner.begin_snapshots(control);
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
async fn keep_file(inner: Arc<Inner>, keeper: Arc<FileKeeper>) {
    let mut stop = inner.tasks.stop_signal();
    loop {
        let wall = inner.clock.wall().saturating_add(CLOCK_RESERVE_MILLIS);
        keeper.note(&inner.members.table(), crate::hlc::reading_at(wall));
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(std::time::Duration::from_millis(CLOCK_RESERVE_MILLIS / 2)) => {}
        }
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
/// in turn; those that come before are told to go elsewhere.
fn accept_clients(inner: &Arc<Inner>, entrances: Vec<(TcpListener, Entrance)>) {
    let front_ends: Vec<(Executor, Arc<FrontEnd>)> = inner
        .shards
        .iter()
        .map(|shard| {
            let front_end = FrontEnd::new(shard.cache.clone(), Arc::clone(inner));
            (shard.executor.clone(), Arc::new(front_end))
        })
        .collect();
    let (node, mut stop) = (Arc::clone(inner), inner.tasks.stop_signal());
    inner.tasks.spawn("close old clients", async move {
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                () = node.shared.has_stood_still() => {}
            }
            node.server.close_old();
        }
    });
    for (listener, entrance) in entrances {
        let (inner, tasks) = (Arc::clone(inner), inner.tasks.clone());
        let mut turns = front_ends.clone().into_iter().cycle();
        let listeners = inner.listeners.clone();
        listeners.clone().spawn("accept clients", async move {
            let (server, mut stop) = (Arc::clone(&inner.server), listeners.stop_signal());
            let served = async {
                tokio::select! {
                    biased;
                    () = stop.stopped() => {}
                    () = inner.has_active_member() => {}
                }
            };
            server.turn_away((&listener, entrance), served).await;
            let shared = Arc::clone(&inner.shared);
            let wake = move |now| shared.wake(now);
            let give = move |accepted| {
                if let Some((executor, front_end)) = turns.next() {
                    let server = Arc::clone(&inner.server);
                    tasks.spawn_on(&executor, "client", server.serve(front_end, accepted));
                }
            };
            server.listen(listener, entrance, stop, (wake, give)).await;
        });
    }
}

impl Inner {
    fn say_started(&self) {
        tracing::info!(
            node = %self.config.node.name,
            id = %self.me,
            client = %self.addresses.client,
            cluster = %self.addresses.cluster,
            gossip = %self.addresses.gossip,
            peer = %self.addresses.peer,
            "node started"
        );
    }

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
