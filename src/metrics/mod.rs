//! The catalog of metrics: the only place that names one.
//!
//! A family is a struct of handles that one part of the node holds; observing is one line at the
//! place where the thing happens. Each node builds its own recorder, so that several nodes live in
//! one process. Series with the label `peer` are rendered from the member table by `admin`, because
//! a recorder cannot forget a departed peer.

pub mod commands;
mod families;
mod process;
pub mod rendered;

pub use families::{
    ClusterMetrics, GossipMetrics, ServerMetrics, StoreMetrics, TransportMetrics, ViewMetrics,
};
pub use process::{LogMessages, ProcessMetrics};

use metrics::{Counter, Gauge, Key, KeyName, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// A count as the floating-point number that gauges hold; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
pub const fn level(count: usize) -> f64 {
    count as f64
}

/// Raises a gauge by one while it lives.
#[derive(Debug)]
pub struct UnderWay(Gauge);

impl UnderWay {
    /// One more.
    pub fn on(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// A row of the catalog: one series of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The metric's name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// The series' labels, from closed sets.
    pub labels: &'static [(&'static str, &'static str)],
    /// One sentence for `HELP`.
    pub help: &'static str,
}

/// How a handle is made from a row.
trait Handle: Sized {
    fn registered(recorder: &PrometheusRecorder, row: &Row) -> Self;
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(row: &Row) -> Key {
    let labels: Vec<metrics::Label> = row.labels.iter().map(metrics::Label::from).collect();
    Key::from_parts(row.name, labels)
}

impl Handle for Counter {
    fn registered(recorder: &PrometheusRecorder, row: &Row) -> Self {
        let (name, help) = (KeyName::from_const_str(row.name), SharedString::const_str(row.help));
        recorder.describe_counter(name, None::<Unit>, help);
        recorder.register_counter(&key(row), &METADATA)
    }
}

impl Handle for Gauge {
    fn registered(recorder: &PrometheusRecorder, row: &Row) -> Self {
        let (name, help) = (KeyName::from_const_str(row.name), SharedString::const_str(row.help));
        recorder.describe_gauge(name, None::<Unit>, help);
        recorder.register_gauge(&key(row), &METADATA)
    }
}

/// Every handle of one node.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// SWIM and gossip.
    pub gossip: GossipMetrics,
    /// Members and placement.
    pub view: ViewMetrics,
    /// The store.
    pub store: StoreMetrics,
    /// Clients.
    pub server: ServerMetrics,
    /// Cluster operations.
    pub cluster: ClusterMetrics,
    /// QUIC.
    pub transport: TransportMetrics,
}

impl Metrics {
    /// Registers every metric on a recorder of this node's own; the handle renders them.
    pub fn new() -> (Self, PrometheusHandle) {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let metrics = Self {
            gossip: GossipMetrics::register(&recorder),
            view: ViewMetrics::register(&recorder),
            store: StoreMetrics::register(&recorder),
            server: ServerMetrics::register(&recorder),
            cluster: ClusterMetrics::register(&recorder),
            transport: TransportMetrics::register(&recorder),
        };
        (metrics, handle)
    }

    /// Handles that go nowhere.
    pub fn unregistered() -> Self {
        Self {
            gossip: GossipMetrics::unregistered(),
            view: ViewMetrics::unregistered(),
            store: StoreMetrics::unregistered(),
            server: ServerMetrics::unregistered(),
            cluster: ClusterMetrics::unregistered(),
            transport: TransportMetrics::unregistered(),
        }
    }

    /// Every row of the catalog.
    pub fn rows() -> impl Iterator<Item = &'static Row> {
        [
            GossipMetrics::ROWS,
            ViewMetrics::ROWS,
            StoreMetrics::ROWS,
            ServerMetrics::ROWS,
            ClusterMetrics::ROWS,
            TransportMetrics::ROWS,
            commands::ROWS,
            process::ROWS,
        ]
        .into_iter()
        .flatten()
    }
}
