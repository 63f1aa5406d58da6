//! The catalog of metrics: the only place that names one.
//!
//! A family is a struct of handles that one part of the node holds; observing is one line at the
//! place where the thing happens. Each node builds its own recorder, so that several nodes live in
//! one process. Series with the label `peer` are rendered from the member table by `admin`, because
//! a recorder cannot forget a departed peer.

use metrics::{Counter, Gauge, Key, KeyName, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// A count as the floating-point number that gauges hold; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
pub const fn level(count: usize) -> f64 {
    count as f64
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

macro_rules! kind {
    (Counter) => {
        Kind::Counter
    };
    (Gauge) => {
        Kind::Gauge
    };
}

macro_rules! family {
    ($(#[$doc:meta])* $name:ident {
        $($help:literal $field:ident: $kind:ident = $metric:literal
            $({$($label:ident = $value:literal),+})?;)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $(#[doc = $help] pub $field: $kind,)+
        }

        impl $name {
            /// The rows of this family.
            pub const ROWS: &'static [Row] = &[$(Row {
                name: $metric,
                kind: kind!($kind),
                labels: &[$($((stringify!($label), $value)),+)?],
                help: $help,
            }),+];

            /// Handles that go nowhere, for tests of a part alone.
            pub fn unregistered() -> Self {
                Self { $($field: $kind::noop(),)+ }
            }

            fn register(recorder: &PrometheusRecorder) -> Self {
                let mut rows = Self::ROWS.iter();
                let mut next = || rows.next().expect("a family has one row for each field");
                Self { $($field: $kind::registered(recorder, next()),)+ }
            }
        }
    };
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

family! {
    /// SWIM and gossip.
    GossipMetrics {
        "Probes answered by the member itself." probe_ack: Counter
            = "chickadee_swim_probes_total" {result = "ack"};
        "Probes answered by the fallback over QUIC." probe_fallback: Counter
            = "chickadee_swim_probes_total" {result = "fallback_ack"};
        "Probes that ended without an answer." probe_fail: Counter
            = "chickadee_swim_probes_total" {result = "fail"};
        "Local health of this node as a prober (Lifeguard): 0 is well, 7 is worst."
            health_score: Gauge = "chickadee_swim_health_score";
        "Suspicions of itself that this node refuted." refutations: Counter
            = "chickadee_swim_refutations_total";
        "Gossip datagrams sent." packets_sent: Counter
            = "chickadee_gossip_packets_total" {direction = "sent"};
        "Gossip datagrams received." packets_received: Counter
            = "chickadee_gossip_packets_total" {direction = "received"};
        "Gossip bytes sent." bytes_sent: Counter
            = "chickadee_gossip_bytes_total" {direction = "sent"};
        "Gossip bytes received." bytes_received: Counter
            = "chickadee_gossip_bytes_total" {direction = "received"};
        "Datagrams that did not open with any key." rejected_sealed: Counter
            = "chickadee_gossip_packets_rejected_total" {reason = "aead"};
        "Datagrams that were seen before." rejected_replay: Counter
            = "chickadee_gossip_packets_rejected_total" {reason = "replay"};
        "Datagrams of an unknown version." rejected_version: Counter
            = "chickadee_gossip_packets_rejected_total" {reason = "version"};
        "Datagrams that opened but were not understood." rejected_malformed: Counter
            = "chickadee_gossip_packets_rejected_total" {reason = "malformed"};
        "Datagrams larger than any we send." rejected_oversize: Counter
            = "chickadee_gossip_packets_rejected_total" {reason = "oversize"};
        "Push-pulls of the full member state that ended well." push_pulls: Counter
            = "chickadee_push_pulls_total" {result = "ok"};
        "Push-pulls of the full member state that failed." push_pulls_failed: Counter
            = "chickadee_push_pulls_total" {result = "failed"};
        "Joins that ended well." joins: Counter = "chickadee_join_attempts_total" {result = "ok"};
        "Joins that failed or were refused." joins_failed: Counter
            = "chickadee_join_attempts_total" {result = "failed"};
    }
}

family! {
    /// Members and placement as this node sees them.
    ViewMetrics {
        "Members by state." alive: Gauge = "chickadee_members" {state = "alive"};
        "Members by state." suspect: Gauge = "chickadee_members" {state = "suspect"};
        "Members by state." dead: Gauge = "chickadee_members" {state = "dead"};
        "Members by state." left: Gauge = "chickadee_members" {state = "left"};
        "Nodes on the ring." ring_nodes: Gauge = "chickadee_ring_nodes";
        "Changes of the placement." ring_changes: Counter = "chickadee_ring_changes_total";
        "Slots of which this node is owner." owned: Gauge = "chickadee_slots" {role = "owner"};
        "Slots of which this node is replica." replica: Gauge
            = "chickadee_slots" {role = "replica"};
        "Slots for which this node acts." acting: Gauge = "chickadee_slots_acting";
        "Slots with two copies in one zone." sharing_zone: Gauge
            = "chickadee_slots_sharing_zone";
        "Slots this node acts for with fewer complete copies than configured."
            under_replicated: Gauge = "chickadee_slots_under_replicated";
        "1 when the node is ready." ready: Gauge = "chickadee_ready";
        "1 if the settings were right when they were read last." reload_successful: Gauge
            = "chickadee_config_last_reload_successful";
        "When settings were taken over last, in seconds since 1970." reload_time: Gauge
            = "chickadee_config_last_reload_timestamp_seconds";
    }
}

family! {
    /// The store.
    StoreMetrics {
        "Live keys, expired ones that were not swept yet included." keys: Gauge = "chickadee_keys";
        "Tombstones." tombstones: Gauge = "chickadee_tombstones";
        "Bytes charged to the memory budget." used_bytes: Gauge = "chickadee_memory_used_bytes";
        "Bytes of keys and values with their heads." memory_entries: Gauge
            = "chickadee_memory_bytes" {kind = "entries"};
        "Bytes of tombstones." memory_tombstones: Gauge
            = "chickadee_memory_bytes" {kind = "tombstones"};
        "Bytes of pages that are dead or not written yet." memory_holes: Gauge
            = "chickadee_memory_bytes" {kind = "holes"};
        "Bytes of the tables by which entries are found." memory_tables: Gauge
            = "chickadee_memory_bytes" {kind = "tables"};
        "Bytes of the fingerprints of evicted keys." memory_ghost: Gauge
            = "chickadee_memory_bytes" {kind = "ghost"};
        "Bytes that were flushed and are not freed yet." memory_garbage: Gauge
            = "chickadee_memory_bytes" {kind = "garbage"};
        "Bytes of entries that the eviction moved to another page." moved_bytes: Counter
            = "chickadee_eviction_moved_bytes_total";
        "Entries evicted although they had been used, because nothing else made room." forced: Counter
            = "chickadee_eviction_forced_total";
        "Hollow pages whose entries were gathered." cleaned: Counter
            = "chickadee_pages_cleaned_total";
        "Keys written again soon after they were evicted." ghost_hits: Counter
            = "chickadee_eviction_ghost_hits_total";
        "Tombstones that were removed." reaped: Counter = "chickadee_tombstones_reaped_total";
        "For how long a look for expired values has been due at most." expiry_lag: Gauge
            = "chickadee_expiry_lag_seconds";
        "The memory budget." limit_bytes: Gauge = "chickadee_memory_limit_bytes";
        "Reads that found a live value." hits: Counter = "chickadee_reads_total" {result = "hit"};
        "Reads that found nothing live." misses: Counter
            = "chickadee_reads_total" {result = "miss"};
        "Writes by clients, at the acting node." writes_client: Counter
            = "chickadee_writes_total" {origin = "client"};
        "Writes merged from the acting node." writes_replica: Counter
            = "chickadee_writes_total" {origin = "replica"};
        "Writes merged from a fill." writes_sync: Counter
            = "chickadee_writes_total" {origin = "sync"};
        "Writes merged from a compare." writes_repair: Counter
            = "chickadee_writes_total" {origin = "repair"};
        "Entries evicted to make room." evicted_memory: Counter
            = "chickadee_evictions_total" {reason = "memory"};
        "Replica entries dropped because the acting node evicted them." evicted_notice: Counter
            = "chickadee_evictions_total" {reason = "notice"};
        "Entries that expired and were removed." expired: Counter = "chickadee_expired_total";
        "Writes refused because the memory budget was used up." refused: Counter
            = "chickadee_writes_refused_total";
        "Merged records that were older than what was stored." superseded: Counter
            = "chickadee_writes_superseded_total";
        "How far the hybrid clock is ahead of the wall clock." clock_drift: Gauge
            = "chickadee_clock_drift_seconds";
    }
}

family! {
    /// Clients and their commands.
    ServerMetrics {
        "Connections of plain clients." clients_plain: Gauge
            = "chickadee_clients" {kind = "plain"};
        "Connections of cluster clients." clients_cluster: Gauge
            = "chickadee_clients" {kind = "cluster"};
        "Client connections accepted." connections: Counter
            = "chickadee_client_connections_total";
        "Connections refused at the limit." rejected_limit: Counter
            = "chickadee_client_rejections_total" {reason = "limit"};
        "Connections refused because the node was not part of a cluster yet." rejected_early: Counter
            = "chickadee_client_rejections_total" {reason = "not_joined"};
        "Failed logins." rejected_auth: Counter
            = "chickadee_client_rejections_total" {reason = "auth"};
        "Connections closed for breaking the protocol." rejected_protocol: Counter
            = "chickadee_client_rejections_total" {reason = "protocol"};
        "Connections closed for being idle." rejected_idle: Counter
            = "chickadee_client_rejections_total" {reason = "idle"};
        "Connections closed for not reading replies." rejected_output: Counter
            = "chickadee_client_rejections_total" {reason = "output_buffer"};
        "Bytes from clients." bytes_received: Counter
            = "chickadee_client_bytes_total" {direction = "received"};
        "Bytes to clients." bytes_sent: Counter
            = "chickadee_client_bytes_total" {direction = "sent"};
    }
}

family! {
    /// Operations that cross nodes, ownership, replication and movement.
    ClusterMetrics {
        "Proxied operations that were answered." proxied_ok: Counter
            = "chickadee_proxied_requests_total" {result = "ok"};
        "Proxied operations that went on to another node." proxied_retried: Counter
            = "chickadee_proxied_requests_total" {result = "retried"};
        "Proxied operations that failed for good." proxied_failed: Counter
            = "chickadee_proxied_requests_total" {result = "failed"};
        "Replicated records that were applied." replicated_applied: Counter
            = "chickadee_replication_ops_total" {result = "applied"};
        "Replicated records that a peer missed; their slots are dirty." replicated_missed: Counter
            = "chickadee_replication_ops_total" {result = "missed"};
        "Replicated records refused because another node acts." replicated_deposed: Counter
            = "chickadee_replication_ops_total" {result = "deposed"};
        "Writes acknowledged with fewer copies than asked for." shortfalls: Counter
            = "chickadee_write_acks_missed_total";
        "Writes whose outcome is not known." outcome_unknown: Counter
            = "chickadee_outcome_unknown_total";
        "Slots taken over by Release." handovers: Counter
            = "chickadee_handovers_total" {result = "taken"};
        "Slots released to another node." handovers_given: Counter
            = "chickadee_handovers_total" {result = "released"};
        "Slots taken over from a dead node." handovers_death: Counter
            = "chickadee_handovers_total" {result = "death"};
        "Times that all acting bits were dropped because others may have stood in." fences: Counter
            = "chickadee_fences_total";
        "When the snapshot file was last written, in seconds since 1970." snapshot_written: Gauge
            = "chickadee_snapshot_last_success_timestamp_seconds";
        "Size of the snapshot file last written." snapshot_bytes: Gauge
            = "chickadee_snapshot_size_bytes";
        "Slots taken over from a member that answered no ping." deputy_takeovers: Counter
            = "chickadee_deputy_takeovers_total";
        "Slots whose last or only copy was declared complete." promoted: Counter
            = "chickadee_slots_promoted_total";
        "Share of the slots to be filled that are complete." sync_progress: Gauge
            = "chickadee_sync_progress_ratio";
        "Bytes of fills sent." sync_bytes_sent: Counter
            = "chickadee_sync_bytes_total" {direction = "sent"};
        "Bytes of fills received." sync_bytes_received: Counter
            = "chickadee_sync_bytes_total" {direction = "received"};
        "Records of fills sent." sync_keys_sent: Counter
            = "chickadee_sync_keys_total" {direction = "sent"};
        "Records of fills received." sync_keys_received: Counter
            = "chickadee_sync_keys_total" {direction = "received"};
        "Records that a compare fetched from a holder." repaired_pulled: Counter
            = "chickadee_antientropy_keys_repaired_total" {direction = "pulled"};
        "Records that a compare sent to a holder." repaired_pushed: Counter
            = "chickadee_antientropy_keys_repaired_total" {direction = "pushed"};
    }
}

family! {
    /// QUIC.
    TransportMetrics {
        "Open QUIC connections, both directions." connections: Gauge
            = "chickadee_quic_connections";
        "Handshakes that ended well." handshakes_ok: Counter
            = "chickadee_quic_handshakes_total" {result = "ok"};
        "Handshakes refused for trust or protocol." handshakes_refused: Counter
            = "chickadee_quic_handshakes_total" {result = "refused"};
        "Handshakes that did not end in time." handshakes_timeout: Counter
            = "chickadee_quic_handshakes_total" {result = "timeout"};
        "QUIC packets lost." lost_packets: Counter = "chickadee_quic_lost_packets_total";
        "Calls answered busy because a lane was full." busy: Counter
            = "chickadee_lane_busy_total";
        "Requests that came ten seconds late or more, and bulk messages that came thirty, and were dropped." stale: Counter
            = "chickadee_lane_stale_total";
        "Calls that had no answer in time." timeouts: Counter = "chickadee_lane_timeouts_total";
        "Calls waiting for an answer." in_flight: Gauge = "chickadee_lane_in_flight";
        "Bytes waiting in lanes." queued_bytes: Gauge = "chickadee_lane_queued_bytes";
        "Size of the peer socket's receive buffer." receive_buffer: Gauge
            = "chickadee_udp_receive_buffer_bytes";
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
        ]
        .into_iter()
        .flatten()
    }
}

// --- series that admin renders -----------------------------------------------------------------

/// Series whose labels name members or builds: rendered as text at each scrape, never registered,
/// because a recorder cannot forget a departed member. The values of their labels are left empty.
pub mod rendered {
    use crate::metrics::{Kind, Row};

    macro_rules! rows {
        ($($name:ident = $metric:literal [$($label:literal),+] $help:literal;)+) => {
            $(#[doc = $help] pub const $name: Row = Row {
                name: $metric,
                kind: Kind::Gauge,
                labels: &[$(($label, "")),+],
                help: $help,
            };)+

            /// Every row of this section.
            pub const ROWS: &[Row] = &[$($name),+];
        };
    }

    rows! {
        BUILD_INFO = "chickadee_build_info" ["version", "revision"] "The running program.";
        PLACEMENT_INFO = "chickadee_placement_info" ["placement_id"]
            "The placement of this node's view; equal on nodes that agree.";
        FENCED = "chickadee_fenced" ["reason"]
            "1 while the node holds no acting bit until its peers say what is whose.";
        PEER_STATE = "chickadee_peer_state" ["peer", "state"] "1 for the state a peer is in.";
        PEER_UP = "chickadee_peer_up" ["peer"] "1 while a QUIC connection to the peer is open.";
        PEER_RTT = "chickadee_peer_rtt_seconds" ["peer"] "Smoothed round trip to a peer.";
        QUEUE_BYTES = "chickadee_replication_queue_bytes" ["peer"]
            "Bytes of records that wait to be sent to a peer.";
        CLOCK_OFFSET = "chickadee_peer_clock_offset_seconds" ["peer"]
            "How far a peer's wall clock is ahead of this node's.";
    }
}

/// The `process_*` metrics of the running process, gathered at each scrape.
#[derive(Clone)]
pub struct ProcessMetrics {
    recorder: std::sync::Arc<PrometheusRecorder>,
    collector: metrics_process::Collector,
}

impl ProcessMetrics {
    /// A collector with a recorder of its own.
    pub fn new() -> Self {
        let recorder = std::sync::Arc::new(PrometheusBuilder::new().build_recorder());
        let collector = metrics_process::Collector::default();
        metrics::with_local_recorder(&*recorder, || collector.describe());
        Self { recorder, collector }
    }

    /// The metrics as Prometheus text.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.collector.collect());
        self.recorder.handle().render()
    }
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ProcessMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessMetrics").finish_non_exhaustive()
    }
}

// --- commands -----------------------------------------------------------------------------------

/// What the front end counts in arrays of its own, because a handle for each would cost too much on
/// the command path; rendered as text at each scrape.
pub mod commands {
    use std::fmt::Write;
    use std::time::Duration;

    use crate::metrics::{Kind, Row};

    const CALLS: Row = Row {
        name: "chickadee_commands_total",
        kind: Kind::Counter,
        labels: &[("command", "")],
        help: "Commands by name.",
    };
    const ERRORS: Row = Row {
        name: "chickadee_command_errors_total",
        kind: Kind::Counter,
        labels: &[("reason", "")],
        help: "Error replies by their first word.",
    };
    const DURATION: Row = Row {
        name: "chickadee_command_duration_seconds",
        kind: Kind::Histogram,
        labels: &[("class", ""), ("route", "")],
        help: "Time from reading a command to its reply, by what it does and where it ran.",
    };

    /// Every row of this section.
    pub const ROWS: &[Row] = &[CALLS, ERRORS, DURATION];

    /// Durations of one kind of command.
    #[derive(Clone, Debug)]
    pub struct Durations {
        /// `read`, `write` or `other`.
        pub class: &'static str,
        /// `local` or `proxied`.
        pub route: &'static str,
        /// Upper bound of each bucket in microseconds, and how many fell into it; the last bucket
        /// has no bound.
        pub buckets: Vec<(Option<u64>, u64)>,
        /// All of them together.
        pub total: Duration,
    }

    /// The counts as Prometheus text.
    pub fn render(
        calls: impl Iterator<Item = (&'static str, u64)>,
        errors: impl Iterator<Item = (&'static str, u64)>,
        durations: impl Iterator<Item = Durations>,
    ) -> String {
        let mut out = String::new();
        head(&mut out, &CALLS, "counter");
        for (command, count) in calls.filter(|(_, count)| *count > 0) {
            line(&mut out, format_args!("{}{{command=\"{command}\"}} {count}", CALLS.name));
        }
        head(&mut out, &ERRORS, "counter");
        for (reason, count) in errors {
            line(&mut out, format_args!("{}{{reason=\"{reason}\"}} {count}", ERRORS.name));
        }
        head(&mut out, &DURATION, "histogram");
        for kind in durations {
            histogram(&mut out, &kind);
        }
        out
    }

    fn histogram(out: &mut String, kind: &Durations) {
        let labels = format!("class=\"{}\",route=\"{}\"", kind.class, kind.route);
        let mut below = 0;
        for (bound, count) in &kind.buckets {
            below += count;
            let bound = match bound {
                Some(micros) => Duration::from_micros(*micros).as_secs_f64().to_string(),
                None => "+Inf".to_owned(),
            };
            let name = DURATION.name;
            line(out, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}"));
        }
        let total = kind.total.as_secs_f64();
        line(out, format_args!("{}_sum{{{labels}}} {total}", DURATION.name));
        line(out, format_args!("{}_count{{{labels}}} {below}", DURATION.name));
    }

    fn head(out: &mut String, row: &Row, kind: &str) {
        line(out, format_args!("# HELP {} {}", row.name, row.help));
        line(out, format_args!("# TYPE {} {kind}", row.name));
    }

    fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
        writeln!(out, "{text}").expect("writing to a string succeeds");
    }
}
