//! A node: all parts wired together, started and stopped in order.
//!
//! ```text
//!   control thread   gossip and members, QUIC accept loop, reconcile, compare, upkeep, admin
//!   shard threads    clients and their commands, lanes to peers, requests of peers
//! ```
//!
//! In a simulation, and wherever a caller asks for it, both are the caller's one runtime.

mod actions;
mod backend;
mod certificates;
mod client;
mod error;
mod ground;
mod keeper;
mod key_file;
mod ports;
mod pulse;
mod shards;
mod snapshots;
mod source;
mod start;
mod stats;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;

use crate::admin::Source;
use crate::admin::status::{Addresses, Member, Status};
use crate::clock::SharedClock;
use crate::cluster;
use crate::config::Config;
use crate::members::Members;
use crate::metrics::Metrics;
use crate::metrics::commands::{Durations, render};
use crate::net::Net;
use crate::persist::Storage;
use crate::rng::Randomness;
use crate::server::Server;
use crate::server::stats::BUCKETS;
use crate::tasks::{Latch, TaskGroup};
use crate::transport::Transport;
use crate::types::{Generation, Instant, NodeId, Phase};
use crate::wire::hello::Protocols;

pub use client::Cache;
pub use error::Error;
pub use pulse::Stuck;
pub use stats::Stats;

use client::ShardHandle;
use shards::Threads;
use snapshots::Disk;
use source::NodeSource;

/// Where a node gets what is outside of it.
pub struct Seams {
    /// The network.
    pub net: Net,
    /// The clocks.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: Randomness,
    /// Files.
    pub storage: Arc<dyn Storage>,
    /// The versions of the peer protocol that it speaks: this program's, but where an upgrade is tried.
    pub protocols: Protocols,
}

/// A running node. Dropping it ends it without a word to the others, as a crash would.
pub struct Node {
    inner: Arc<Inner>,
    /// Last, so that the runtimes end when nothing needs them any more.
    _threads: Threads,
}

/// What the parts of a running node share.
pub(crate) struct Inner {
    config: Config,
    me: NodeId,
    generation: Generation,
    /// It was in no cluster before this start.
    is_new: bool,
    started: Instant,
    clock: SharedClock,
    disk: Disk,
    metrics: Metrics,
    recorder: PrometheusHandle,
    addresses: Addresses,
    members: Members,
    transport: Arc<Transport>,
    shared: Arc<cluster::Shared>,
    /// The cache as the control thread uses it.
    control: cluster::Cache,
    shards: Arc<[ShardHandle]>,
    server: Arc<Server>,
    tasks: TaskGroup,
    /// Accepts clients; stops before the rest.
    listeners: TaskGroup,
    /// Open once the node is told to stop: it is not ready any more.
    stopping: Latch,
    /// Open once it has stopped.
    stopped: Latch,
}

impl Node {
    /// Starts a node on threads of its own, in the operating system's world. Returns when its ports
    /// are bound and it looks for its cluster; [`Node::ready`] waits until it is part of it.
    pub async fn start(config: Config) -> Result<Self, Error> {
        start::on_threads(config).await
    }

    /// Starts a node on the caller's single-threaded runtime, in the world of `seams`.
    pub async fn start_in(config: Config, seams: Seams) -> Result<Self, Error> {
        start::on_caller(config, seams).await
    }

    /// Waits until the node is ready: joined, and complete for its slots.
    pub async fn ready(&self) -> Result<(), Error> {
        loop {
            if self.inner.stopping.is_open() {
                return Err(Error::Stopped);
            }
            if self.inner.reasons().is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why the node is not ready; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        self.inner.reasons()
    }

    /// Waits until it is told to stop.
    pub async fn told_to_stop(&self) {
        self.inner.stopping.opened().await;
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.is_open()
    }

    /// Whether it looks for a cluster in which it has never been.
    pub fn has_nothing_to_lose(&self) -> bool {
        self.inner.is_new && !self.inner.shared.view().table.formed
    }

    /// Takes over what can change in a running node: limits, the password and the certificate of clients,
    /// and the rate of fills. The rest of `config` must be as it was.
    ///
    /// # Errors
    ///
    /// A file that the settings name cannot be used; all stays as it was.
    pub fn reload(&self, config: &Config) -> Result<(), Error> {
        let admission = ground::admission(config, &self.inner.clock)?;
        self.inner.renew_peer_credentials()?;
        self.inner.server.reload(&config.client, admission);
        self.inner.shared.set_sync_rate(config.peer.sync_rate);
        Ok(())
    }

    /// Notes for the metrics whether the last reading of the settings went well.
    pub fn note_reload(&self, successful: bool) {
        self.inner.note_reload(successful);
    }

    /// A handle to the cluster's keys.
    pub fn cache(&self) -> Cache {
        Cache::new(Arc::clone(&self.inner.shards))
    }

    /// The node by its own word.
    pub fn status(&self) -> Status {
        NodeSource(Arc::clone(&self.inner)).status()
    }

    /// Every member that this node knows, itself included, by name.
    pub fn members(&self) -> Vec<Member> {
        NodeSource(Arc::clone(&self.inner)).members()
    }

    /// What the node has in memory and what it did since its start.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The metrics as Prometheus text.
    pub fn metrics(&self) -> String {
        self.inner.render_metrics()
    }

    /// Where the node is reached.
    pub fn addresses(&self) -> Addresses {
        self.inner.addresses
    }

    /// The cluster layer, for checks that look behind the public face.
    pub fn cluster(&self) -> &Arc<cluster::Shared> {
        &self.inner.shared
    }

    /// Leaves the cluster for good, within the configured time: hands everything over, says goodbye
    /// and stops. Gives the number of slots that nobody else could take over.
    pub async fn leave(&self) -> usize {
        Arc::clone(&self.inner).leave(None).await
    }

    /// Pauses: releases its slots, keeps its place for a restart, and stops.
    pub async fn shutdown(&self) {
        Arc::clone(&self.inner).pause().await;
    }

    /// Waits until the node has stopped, whoever told it to.
    pub async fn stopped(&self) {
        self.inner.stopped.opened().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inner.listeners.abort();
        self.inner.tasks.abort();
    }
}

impl Inner {
    fn note_reload(&self, successful: bool) {
        let view = &self.metrics.view;
        view.reload_successful.set(if successful { 1.0 } else { 0.0 });
        if successful {
            let seconds = Duration::from_millis(self.clock.wall().0).as_secs_f64();
            view.reload_time.set(seconds);
        }
    }

    fn uptime(&self) -> Duration {
        self.clock.now().saturating_since(self.started)
    }

    /// Why the node is not ready.
    fn reasons(&self) -> Vec<String> {
        let view = self.shared.view();
        let mut reasons = Vec::new();
        if self.stopping.is_open() {
            reasons.push("stopping".to_owned());
        }
        if !view.table.formed {
            reasons.push(format!("no cluster yet: {}", self.members.table().waiting_for));
            return reasons;
        }
        if view.phase != Phase::Active {
            reasons.push(format!("phase is {}", view.phase));
        }
        if let Some(why) = self.shared.fenced() {
            reasons.push(format!("fenced: {why}"));
        }
        if self.shared.is_clock_wrong() {
            reasons.push("this node's clock is wrong by the other nodes' clocks".to_owned());
        }
        let progress = self.shared.progress();
        if progress.complete < progress.assigned || progress.assigned == 0 {
            let missing = progress.assigned - progress.complete;
            reasons.push(format!("{missing} of {} slots are not complete", progress.assigned));
        }
        reasons
    }

    fn render_metrics(&self) -> String {
        self.shared.show_gauges();
        let view = self.shared.view();
        let mut counts = [0usize; 4];
        for member in &view.table.members {
            counts[member.state as usize] += 1;
        }
        let gauges = &self.metrics.view;
        let states = [&gauges.alive, &gauges.suspect, &gauges.dead, &gauges.left];
        for (gauge, count) in states.into_iter().zip(counts) {
            gauge.set(crate::metrics::level(count));
        }
        gauges.ready.set(if self.reasons().is_empty() { 1.0 } else { 0.0 });
        self.recorder.run_upkeep();
        let mut text = self.recorder.render();
        text.push_str(&self.render_commands());
        text
    }

    /// What the front end counts, as text.
    fn render_commands(&self) -> String {
        let stats = self.server.stats();
        let bounds = BUCKETS.iter().copied().map(Some).chain([None]);
        let durations = stats.durations().map(|kind| Durations {
            class: kind.class.as_str(),
            route: kind.route.as_str(),
            buckets: bounds.clone().zip(kind.buckets).collect(),
            total: kind.total,
        });
        render(stats.calls(), stats.errors(), durations)
    }
}
