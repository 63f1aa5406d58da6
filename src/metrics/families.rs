//! The families: one struct of handles for each part of a node.

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::metrics::{Handle, Kind, Row};
use crate::types::MemberState;

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

            pub(super) fn register(recorder: &PrometheusRecorder) -> Self {
                let mut rows = Self::ROWS.iter();
                let mut next = || rows.next().expect("a family has one row for each field");
                Self { $($field: $kind::registered(recorder, next()),)+ }
            }
        }
    };
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
        "Changes of a member to this state." to_alive: Counter
            = "chickadee_member_transitions_total" {to = "alive"};
        "Changes of a member to this state." to_suspect: Counter
            = "chickadee_member_transitions_total" {to = "suspect"};
        "Changes of a member to this state." to_dead: Counter
            = "chickadee_member_transitions_total" {to = "dead"};
        "Changes of a member to this state." to_left: Counter
            = "chickadee_member_transitions_total" {to = "left"};
        "News of members that still ride on packets." queue_length: Gauge
            = "chickadee_gossip_queue_length";
        "Keys that open gossip: two while one takes the place of the other." keys: Gauge
            = "chickadee_gossip_keys";
    }
}

impl GossipMetrics {
    /// The counter of changes to a state.
    pub const fn transitions(&self, to: MemberState) -> &Counter {
        match to {
            MemberState::Alive => &self.to_alive,
            MemberState::Suspect => &self.to_suspect,
            MemberState::Dead => &self.to_dead,
            MemberState::Left => &self.to_left,
        }
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
        "Slots that this node should hold and does not hold completely." incomplete: Gauge
            = "chickadee_slots_incomplete";
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
        "Live keys with an expiry." keys_with_ttl: Gauge = "chickadee_keys_with_ttl";
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
        "Bytes of the entries that this node evicted to make room." evicted_bytes: Counter
            = "chickadee_evicted_bytes_total";
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
        "Connections that clients may have open together." clients_limit: Gauge
            = "chickadee_clients_limit";
        "Connections over TLS, of both kinds of clients." clients_tls: Gauge
            = "chickadee_clients" {kind = "tls"};
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
        "TLS handshakes that failed or did not end in time." rejected_tls: Counter
            = "chickadee_client_rejections_total" {reason = "tls"};
        "TLS clients without a certificate that is trusted." rejected_certificate: Counter
            = "chickadee_client_rejections_total" {reason = "certificate"};
        "TLS clients refused because too many handshakes were under way." rejected_handshakes: Counter
            = "chickadee_client_rejections_total" {reason = "tls_busy"};
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
        "Bytes of records that may wait for one peer, all its queues together." queue_limit: Gauge
            = "chickadee_replication_queue_limit_bytes";
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
        "Fills under way that this node sends." sync_sending: Gauge
            = "chickadee_sync_active" {direction = "sent"};
        "Fills under way that this node receives." sync_receiving: Gauge
            = "chickadee_sync_active" {direction = "received"};
        "Fills sent to their end." sync_sent: Counter
            = "chickadee_sync_runs_total" {direction = "sent", result = "ok"};
        "Fills to a peer that were cut off." sync_sent_failed: Counter
            = "chickadee_sync_runs_total" {direction = "sent", result = "failed"};
        "Fills received to their end." sync_received: Counter
            = "chickadee_sync_runs_total" {direction = "received", result = "ok"};
        "Fills from a peer that were cut off." sync_received_failed: Counter
            = "chickadee_sync_runs_total" {direction = "received", result = "failed"};
        "Bytes of fills sent." sync_bytes_sent: Counter
            = "chickadee_sync_bytes_total" {direction = "sent"};
        "Bytes of fills received." sync_bytes_received: Counter
            = "chickadee_sync_bytes_total" {direction = "received"};
        "Records of fills sent." sync_keys_sent: Counter
            = "chickadee_sync_keys_total" {direction = "sent"};
        "Records of fills received." sync_keys_received: Counter
            = "chickadee_sync_keys_total" {direction = "received"};
        "Times that this node compared all slots it acts for with every peer that is alive." rounds: Counter
            = "chickadee_antientropy_rounds_total" {result = "ok"};
        "Such rounds in which a peer did not answer to the end." rounds_failed: Counter
            = "chickadee_antientropy_rounds_total" {result = "failed"};
        "When the last such round ended well, in seconds since 1970; 0 before the first." full_pass: Gauge
            = "chickadee_antientropy_last_full_pass_timestamp_seconds";
        "Slots that were not equal at a holder in the last round; what is being written is among them." divergent: Gauge
            = "chickadee_antientropy_divergent_slots";
        "How late the node's timer ran at worst in the last half minute." tick_delay: Gauge
            = "chickadee_tokio_poll_delay_seconds";
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
        "Times that QUIC slowed down because packets were lost or marked." congestion_events: Counter
            = "chickadee_quic_congestion_events_total";
        "Bytes of QUIC sent." bytes_sent: Counter
            = "chickadee_quic_bytes_total" {direction = "sent"};
        "Bytes of QUIC received." bytes_received: Counter
            = "chickadee_quic_bytes_total" {direction = "received"};
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
