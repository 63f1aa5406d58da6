//! Series whose labels name members or builds: rendered as text at each scrape, never registered,
//! because a recorder cannot forget a departed member. The values of their labels are left empty.

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
    NODE_INFO = "chickadee_node_info" ["node", "zone", "protocol"]
        "The node: its name, its zone, and the newest protocol it speaks to its peers.";
    PLACEMENT_INFO = "chickadee_placement_info" ["placement_id"]
        "The placement of this node's view; equal on nodes that agree.";
    FENCED = "chickadee_fenced" ["reason"]
        "1 while the node holds no acting bit until its peers say what is whose.";
    PEER_INFO = "chickadee_peer_info" ["peer", "addr", "zone", "version"]
        "A peer: its address for QUIC, its zone, and the version of its program.";
    PEER_STATE = "chickadee_peer_state" ["peer", "state"] "1 for the state a peer is in.";
    PEER_UP = "chickadee_peer_up" ["peer"] "1 while a QUIC connection to the peer is open.";
    PEER_RTT = "chickadee_peer_rtt_seconds" ["peer"] "Smoothed round trip to a peer.";
    QUEUE_BYTES = "chickadee_replication_queue_bytes" ["peer"]
        "Bytes of records that wait to be sent to a peer.";
    CERTIFICATE_END = "chickadee_tls_certificate_not_after_timestamp_seconds" ["use"]
        "When the certificate in use ends, in seconds since 1970.";
    DIRTY_SLOTS = "chickadee_replication_dirty_slots" ["peer"]
        "Slots of which a peer missed something that is not mended yet.";
    LAST_SEEN = "chickadee_peer_last_seen_timestamp_seconds" ["peer"]
        "When a peer last said what it holds, which it is asked every second or two, in seconds since 1970.";
    CLOCK_OFFSET = "chickadee_peer_clock_offset_seconds" ["peer"]
        "How far a peer's wall clock is ahead of this node's.";
}
