//! QUIC between nodes: lanes for calls, bulk streams, and the port on which peers arrive.
//!
//! ```text
//!                    ┌ thread 0: Pool ── lane ──► peer a        (a connection each,
//!  Transport ────────┤            └───── lane ──► peer b         dialled on first use)
//!   server endpoint  ├ thread 1: Pool ── …
//!   accept loop ─────┴─► Acceptor of thread 0, 1, … ─► dyn Serve
//! ```
//!
//! - Each shard thread has a [`Pool`](pool) with its own endpoint, so that a proxied call never
//!   changes thread; lanes are one-way, each side dials for its own calls.
//! - A connection is up when the dialler has the acknowledgement of its hello, not before.
//! - QUIC trouble is a local hint; only membership declares a peer dead ([`Transport::disconnect`]).
//! - Connections from a node before its restart are ended by its stateless resets within
//!   milliseconds, because the keys of resets and connection ids come from the secret.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::metrics::TransportMetrics;
use crate::net::Net;
use crate::peers::{Caller, Directory, Peers};
use crate::rng::Randomness;
use crate::tasks::{Latch, TaskGroup};
use crate::tls::{self, ConfigError, Credentials, IdentityError, Proof, Secret};
use crate::types::{ClusterName, NodeId, WallMillis};
use crate::wire::hello::Protocols;

mod accept;
mod answer;
mod bulk;
mod connections;
mod endpoint;
mod freshness;
mod in_flight;
mod lane;
mod pool;
mod stream;
#[cfg(test)]
mod tests;

pub use accept::Acceptor;
use accept::Intake;
use connections::Connections;
use endpoint::close;
use pool::Pool;

/// Threads that dial one peer when the setting leaves it open.
const LANES_DEFAULT: usize = 4;

/// How often connection figures are collected.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// How long closing waits for peers to hear of it.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What a transport is made of.
pub struct TransportOptions {
    /// The network it lives in.
    pub net: Net,
    /// Where peers arrive; port 0 takes any.
    pub listen: SocketAddr,
    /// This node and the number of its start.
    pub own: Caller,
    /// The versions of the peer protocol that it speaks.
    pub protocols: Protocols,
    /// The cluster that it belongs to.
    pub cluster: ClusterName,
    /// The secret that makes the keys of resets and connection ids.
    pub secret: Secret,
    /// An operator's certificates; where there are none, those that follow from the secret.
    pub credentials: Option<Credentials>,
    /// Where peers are found.
    pub directory: Arc<dyn Directory>,
    /// The node's clock.
    pub clock: SharedClock,
    /// The node's randomness; in a simulation it seeds QUIC too.
    pub rng: Randomness,
    /// Counters and gauges.
    pub metrics: TransportMetrics,
    /// The group in which its tasks run.
    pub tasks: TaskGroup,
    /// Threads that dial one peer (`peer.lanes`); 0 = 4. Threads above it share their lanes.
    pub lanes: usize,
    /// `peer.max_mtu`: 0 = discovered up to 6500; else fixed, 1200 to 6500.
    pub max_mtu: u16,
    /// `peer.disable_gso`: one datagram a system call, for hosts where batches fail.
    pub disable_gso: bool,
}

/// Why the transport could not be made. The node must not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A UDP port could not be bound.
    #[error("cannot bind the peer port {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The fixed MTU is out of range.
    #[error("peer.max_mtu must be 0 or 1200 to {max}, not {0}", max = endpoint::MTU_MAX)]
    Mtu(u16),
    /// No certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS refuses its configuration.
    #[error(transparent)]
    Tls(#[from] ConfigError),
}

/// What is known of the connections with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// The peer.
    pub node: NodeId,
    /// Whether any connection with it is up, in either direction.
    pub up: bool,
    /// Connections with it, in both directions.
    pub connections: usize,
    /// The smallest smoothed round trip among the connections that this node dialled.
    pub rtt: Option<Duration>,
    /// Packets lost on the connections that are open now.
    pub lost_packets: u64,
    /// Calls that wait for its answer.
    pub in_flight: usize,
    /// Bytes that wait to be written to it.
    pub queued_bytes: usize,
}

/// What all parts of a transport share.
struct Context {
    net: Net,
    listen: SocketAddr,
    own: Caller,
    protocols: Protocols,
    cluster: ClusterName,
    directory: Arc<dyn Directory>,
    clock: SharedClock,
    rng: Randomness,
    metrics: TransportMetrics,
    tasks: TaskGroup,
    /// How this node dials.
    client: ArcSwap<quinn::ClientConfig>,
    /// What the certificates of peers prove.
    proof: Proof,
    connections: Connections,
    /// Open once the transport closes.
    closed: Latch,
}

/// A node's QUIC: its port, and the lanes of its threads.
pub struct Transport {
    context: Arc<Context>,
    server: quinn::Endpoint,
    /// How peers are received.
    arriving: quinn::ServerConfig,
    certificate_end: Mutex<Option<WallMillis>>,
    local_address: SocketAddr,
    intake: Arc<Intake>,
    lanes: usize,
    /// Told each time that [`Transport::run`] has collected figures.
    observed: Notify,
    /// By thread, modulo the number of lanes.
    pools: Mutex<Vec<(usize, Arc<Pool>)>>,
}

impl Transport {
    /// Binds the port, on the current runtime: the one that is to carry [`Transport::run`].
    pub fn bind(mut options: TransportOptions) -> Result<Self, TransportError> {
        let credentials = if let Some(given) = options.credentials.take() {
            given
        } else {
            let (own, now) = (options.own.node, options.clock.wall());
            Credentials::derived(&options.secret, &options.cluster, own, now)?
        };
        let settings = Arc::new(endpoint::transport_config(options.max_mtu, !options.disable_gso)?);
        let client = endpoint::client_config(&credentials, &options.clock, &settings)?;
        let arriving = endpoint::server_config(&options, &credentials, &settings)?;
        let bound = endpoint::bind_server(&options, arriving.clone())?;
        let local_address = bound
            .endpoint
            .local_addr()
            .map_err(|source| TransportError::Bind { address: options.listen, source })?;
        report_buffer(bound.receive_buffer, &options.metrics);
        let context = Arc::new(Context {
            net: options.net,
            listen: local_address,
            own: options.own,
            protocols: options.protocols,
            cluster: options.cluster,
            directory: options.directory,
            clock: options.clock,
            rng: options.rng,
            metrics: options.metrics,
            tasks: options.tasks,
            client: ArcSwap::from_pointee(client),
            proof: credentials.proof(),
            connections: Connections::default(),
            closed: Latch::new(),
        });
        let lanes = if options.lanes == 0 { LANES_DEFAULT } else { options.lanes };
        Ok(Self {
            context,
            server: bound.endpoint,
            arriving,
            certificate_end: Mutex::new(credentials.end()),
            local_address,
            intake: Arc::default(),
            lanes,
            observed: Notify::new(),
            pools: Mutex::default(),
        })
    }

    /// Connections from now on are made with these credentials, which must prove the same as those
    /// before; the others live on.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), TransportError> {
        let mut arriving = self.arriving.clone();
        let clock = &self.context.clock;
        let client = endpoint::client_config(credentials, clock, &arriving.transport)?;
        arriving.crypto = Arc::new(tls::quic_server(credentials, clock)?);
        self.context.client.store(Arc::new(client));
        self.server.set_server_config(Some(arriving));
        *self.certificate_end.lock().unwrap_or_else(PoisonError::into_inner) = credentials.end();
        Ok(())
    }

    /// When the node's certificate ends; `None` if it outlives the process.
    pub fn certificate_end(&self) -> Option<WallMillis> {
        *self.certificate_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The versions of the peer protocol that this node speaks.
    pub fn protocols(&self) -> Protocols {
        self.context.protocols
    }

    /// The address of the port, with its real number.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// The calls of a shard thread: to be asked for on that thread's runtime. Beyond the number of
    /// lanes, threads share.
    pub fn peers(&self, thread: usize) -> Result<Arc<dyn Peers>, TransportError> {
        let index = thread % self.lanes;
        let mut pools = self.lock();
        if let Some((_, pool)) = pools.iter().find(|(known, _)| *known == index) {
            return Ok(Arc::clone(pool) as Arc<dyn Peers>);
        }
        let pool = Pool::new(Arc::clone(&self.context))
            .map_err(|source| TransportError::Bind { address: self.context.listen, source })?;
        let pool = Arc::new(pool);
        pools.push((index, Arc::clone(&pool)));
        Ok(pool)
    }

    /// A thread's share of the peers that arrive: run it on that thread.
    pub fn acceptor(&self) -> Acceptor {
        self.intake.acceptor(Arc::clone(&self.context))
    }

    /// Takes connections and hands them to the acceptors in turn, until the transport closes.
    pub async fn run(&self) {
        let mut observe = tokio::time::interval(OBSERVE_EVERY);
        loop {
            tokio::select! {
                biased;
                // First, or a flood of connections would look like a standstill.
                _ = observe.tick() => self.observe(),
                incoming = self.server.accept() => match incoming {
                    Some(incoming) => self.intake.hand_over(incoming, self.server.open_connections()),
                    None => return,
                },
            }
        }
    }

    /// Returns once the task of the port has gone through its loop: within about a second where it works.
    pub async fn pulse(&self) {
        self.observed.notified().await;
    }

    /// Membership says that a node is dead: its connections are closed and its calls fail, now.
    pub fn disconnect(&self, node: NodeId) {
        self.context.connections.close(node, close::DEAD, b"declared dead");
        let pools = self.lock().clone();
        for (_, pool) in pools {
            pool.abandon(node);
        }
    }

    /// What is known of each peer with which there is a connection or a lane, by node id.
    pub fn peer_stats(&self) -> Vec<PeerStats> {
        let mut stats: std::collections::BTreeMap<NodeId, PeerStats> = self
            .context
            .connections
            .summaries()
            .into_iter()
            .map(|(node, summary)| (node, PeerStats::of(node, summary)))
            .collect();
        for (_, pool) in self.lock().iter() {
            for (node, load) in pool.loads() {
                let entry = stats
                    .entry(node)
                    .or_insert_with(|| PeerStats::of(node, connections::Summary::default()));
                entry.in_flight += load.in_flight;
                entry.queued_bytes += load.queued_bytes;
            }
        }
        stats.into_values().collect()
    }

    /// Ends every call and connection; peers are told. Nothing can be called after.
    pub async fn close(&self) {
        self.context.closed.open();
        self.intake.close();
        let pools = std::mem::take(&mut *self.lock());
        for (_, pool) in pools {
            pool.close();
        }
        self.server.close(close::STOPPING, b"node stops");
        let _told_or_late = tokio::time::timeout(CLOSE_GRACE, self.server.wait_idle()).await;
    }

    /// Brings the gauges up to date.
    fn observe(&self) {
        let metrics = &self.context.metrics;
        let (mut in_flight, mut queued) = (0, 0);
        for (_, pool) in self.lock().iter() {
            for load in pool.loads().into_values() {
                in_flight += load.in_flight;
                queued += load.queued_bytes;
            }
        }
        metrics.connections.set(as_gauge(self.context.connections.len()));
        metrics.in_flight.set(as_gauge(in_flight));
        metrics.queued_bytes.set(as_gauge(queued));
        let traffic = self.context.connections.collect();
        metrics.lost_packets.increment(traffic.lost_packets);
        metrics.congestion_events.increment(traffic.congestion_events);
        metrics.bytes_sent.increment(traffic.bytes_sent);
        metrics.bytes_received.increment(traffic.bytes_received);
        self.observed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Arc<Pool>)>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerStats {
    const fn of(node: NodeId, summary: connections::Summary) -> Self {
        Self {
            node,
            up: summary.connections > 0,
            connections: summary.connections,
            rtt: summary.rtt,
            lost_packets: summary.lost_packets,
            in_flight: 0,
            queued_bytes: 0,
        }
    }
}

/// The system clamps socket buffers silently; with small ones QUIC loses packets.
fn report_buffer(granted: usize, metrics: &TransportMetrics) {
    metrics.receive_buffer.set(as_gauge(granted));
    if granted < crate::limits::UDP_BUFFER {
        tracing::warn!(
            granted,
            wanted = crate::limits::UDP_BUFFER,
            "receive buffer of the peer port was clamped: raise net.core.rmem_max"
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
const fn as_gauge(count: usize) -> f64 {
    count as f64
}
