//! THE table: every setting once, with its key, kind, range, default, help and place in the tree.
//!
//! Variables, flags, `config example`, `config show` and the manual page are made from it. The rows
//! of the section `client` stand in `client_settings`.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::client_settings::CLIENT;
use crate::config::setting::{BLANK, Change, Setting};
use crate::config::value::{Kind, Value};
use crate::config::{Acks, AcksShortfall, GossipProfile, LogFormat, MemoryPolicy};
use crate::types::Weight;

/// The row of a key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|row| row.key == key)
}

const ACKS: [(&str, Acks); 3] = [("one", Acks::One), ("quorum", Acks::Quorum), ("all", Acks::All)];
const SHORTFALL: [(&str, AcksShortfall); 2] =
    [("accept", AcksShortfall::Accept), ("error", AcksShortfall::Error)];
const PROFILE: [(&str, GossipProfile); 2] =
    [("lan", GossipProfile::Lan), ("wan", GossipProfile::Wan)];
const POLICY: [(&str, MemoryPolicy); 2] =
    [("evict", MemoryPolicy::Evict), ("refuse", MemoryPolicy::Refuse)];
const FORMAT: [(&str, LogFormat); 4] = [
    ("auto", LogFormat::Auto),
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
    ("journald", LogFormat::Journald),
];

fn chosen<T: Copy>(words: &[(&str, T)], value: Value) -> T {
    let text = value.text().unwrap_or_default();
    let found = words.iter().find(|(word, _)| *word == text);
    found.expect("the row's words are those of the enum").1
}

fn word<T: Copy + PartialEq>(words: &[(&str, T)], chosen: T) -> Value {
    let found = words.iter().find(|(_, value)| *value == chosen);
    text(found.map(|(word, _)| *word))
}

fn text(text: Option<impl ToString>) -> Value {
    text.map_or(Value::Nothing, |text| Value::Texts(vec![text.to_string()]))
}

pub(super) fn path(path: Option<&PathBuf>) -> Value {
    text(path.map(|path| path.display()))
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const DAY: u64 = 86_400;
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// How many settings there are.
const COUNT: usize = BEFORE_CLIENT.len() + CLIENT.len() + AFTER_CLIENT.len();

/// Every setting, by section.
pub const SETTINGS: &[Setting] = &{
    let parts = [BEFORE_CLIENT, CLIENT, AFTER_CLIENT];
    let mut all = [BLANK; COUNT];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            all[at] = parts[part][row];
            at += 1;
            row += 1;
        }
        part += 1;
    }
    all
};

/// Everything before the ports for clients.
const BEFORE_CLIENT: &[Setting] = &[
    Setting {
        key: "node.name",
        kind: Kind::Name,
        fallback: "the host's name",
        flag: Some("name"),
        doc: "The node's name for people; unique among the members.",
        put: |c, v| {
            if let Some(name) = v.text().and_then(|name| name.parse().ok()) {
                c.node.name = name;
            }
        },
        get: |c| text(Some(&c.node.name)),
        ..BLANK
    },
    Setting {
        key: "node.zone",
        kind: Kind::Name,
        fallback: "none",
        doc: "The failure domain: copies of a slot are kept in distinct zones where that can be had.",
        more: "Name the rack or the data centre. With fewer zones than replicas some slots have two \
               copies in one zone; `chickadee_slots_sharing_zone` counts them.",
        put: |c, v| c.node.zone = v.text().and_then(|zone| zone.parse().ok()),
        get: |c| text(c.node.zone.as_ref()),
        ..BLANK
    },
    Setting {
        key: "node.weight",
        kind: Kind::Count { min: 1, max: 100, or: None },
        default: "1",
        doc: "The node's share of the slots relative to the others.",
        more: "Give a node with twice the memory twice the weight.",
        put: |c, v| c.node.weight = Weight::new(v.count()).unwrap_or_default(),
        get: |c| Value::Count(c.node.weight.get().into()),
        ..BLANK
    },
    Setting {
        key: "node.threads",
        kind: Kind::Count { min: 1, max: 256, or: Some((0, "half of the cores")) },
        default: "0",
        doc: "Shard threads: each serves its own clients and its own lanes to the peers.",
        put: |c, v| c.node.threads = v.count(),
        get: |c| Value::Count(c.node.threads as u64),
        ..BLANK
    },
    Setting {
        key: "node.data_dir",
        kind: Kind::Path,
        fallback: "`$STATE_DIRECTORY`, else `/var/lib/chickadee`; for a user without rights \
                   `$XDG_STATE_HOME/chickadee`",
        doc: "The folder of the node's identity; one process at a time uses it.",
        put: |c, v| {
            if let Some(folder) = v.text() {
                c.node.data_dir = folder.into();
            }
        },
        get: |c| path(Some(&c.node.data_dir)),
        ..BLANK
    },
    Setting {
        key: "cluster.name",
        kind: Kind::Name,
        default: "chickadee",
        change: Change::Forming,
        doc: "The cluster's name; nodes of another name are refused.",
        put: |c, v| {
            if let Some(name) = v.text().and_then(|name| name.parse().ok()) {
                c.cluster.name = name;
            }
        },
        get: |c| text(Some(&c.cluster.name)),
        ..BLANK
    },
    Setting {
        key: "cluster.join",
        kind: Kind::Seeds,
        fallback: "none: form a cluster at once",
        flag: Some("join"),
        doc: "Seeds: peer addresses of some members, asked for ever until one answers.",
        more: "Port 7401 where none is given. The same list may stand on every node: a node finds \
               and skips its own address. Names are resolved anew at each try. An empty seed is an \
               error.",
        put: |c, v| c.cluster.join = v.texts(),
        get: |c| match c.cluster.join.as_slice() {
            [] => Value::Nothing,
            seeds => Value::Texts(seeds.to_vec()),
        },
        ..BLANK
    },
    Setting {
        key: "cluster.replicas",
        kind: Kind::Count { min: 1, max: 8, or: None },
        default: "2",
        change: Change::Forming,
        flag: Some("replicas"),
        doc: "Copies of each slot, the owner's included.",
        more: "Each copy costs memory and a message a write; with R copies R−1 nodes may be lost \
               before data is.",
        put: |c, v| c.cluster.replicas = v.count(),
        get: |c| Value::Count(c.cluster.replicas.into()),
        ..BLANK
    },
    Setting {
        key: "cluster.acks",
        kind: Kind::Choice(&["one", "quorum", "all"]),
        default: "quorum",
        doc: "How many copies must have applied a write before it is acknowledged.",
        more: "`quorum` is more than half of `cluster.replicas`: at two copies both.",
        put: |c, v| c.cluster.acks = chosen(&ACKS, v),
        get: |c| word(&ACKS, c.cluster.acks),
        ..BLANK
    },
    Setting {
        key: "cluster.acks_shortfall",
        kind: Kind::Choice(&["accept", "error"]),
        default: "accept",
        doc: "What happens to a write when too few holders are known beforehand.",
        more: "`accept` goes on with those that are there and counts it; `error` answers NOREPLICAS \
               before writing.",
        put: |c, v| c.cluster.acks_shortfall = chosen(&SHORTFALL, v),
        get: |c| word(&SHORTFALL, c.cluster.acks_shortfall),
        ..BLANK
    },
    Setting {
        key: "cluster.virtual_nodes",
        kind: Kind::Count { min: 16, max: 1024, or: None },
        default: "256",
        change: Change::Forming,
        doc: "Points on the ring per unit of weight.",
        more: "More points balance better and make the ring slower to build.",
        put: |c, v| c.cluster.virtual_nodes = v.count(),
        get: |c| Value::Count(c.cluster.virtual_nodes.into()),
        ..BLANK
    },
    Setting {
        key: "cluster.ring_grace",
        kind: Kind::Span { min: ms(100), max: secs(DAY), zero: Some("none") },
        default: "30s",
        change: Change::Forming,
        doc: "How long a dead member keeps its place before its slots are placed anew.",
        more: "Longer than a restart takes, so that a restart moves no data; until it ends the \
               slots of a dead member have one copy less.",
        put: |c, v| c.cluster.ring_grace = v.span(),
        get: |c| Value::Span(c.cluster.ring_grace),
        ..BLANK
    },
    Setting {
        key: "cluster.tombstone_grace",
        kind: Kind::Span { min: secs(60), max: secs(30 * DAY), zero: None },
        default: "1h",
        change: Change::Forming,
        doc: "How long a deletion is remembered for a holder that is away.",
        more: "A node that was away for longer starts its slots empty. Longer than \
               `cluster.ring_grace`.",
        put: |c, v| c.cluster.tombstone_grace = v.span(),
        get: |c| Value::Span(c.cluster.tombstone_grace),
        ..BLANK
    },
    Setting {
        key: "cluster.leave_timeout",
        kind: Kind::Span { min: secs(1), max: secs(DAY), zero: None },
        default: "30s",
        doc: "How long leaving and pausing may take before the node stops all the same.",
        put: |c, v| c.cluster.leave_timeout = v.span(),
        get: |c| Value::Span(c.cluster.leave_timeout),
        ..BLANK
    },
    Setting {
        key: "security.secret_file",
        kind: Kind::Path,
        fallback: "none: loopback only",
        flag: Some("secret-file"),
        credential: Some("secret"),
        doc: "The file with the cluster's secret; `chickadee keygen` makes one.",
        more: "The same on every node. Gossip is sealed and peers prove themselves with keys that \
               are derived from it. Where this is not set, the file `secret` in \
               `$CREDENTIALS_DIRECTORY` is used if there is one.",
        put: |c, v| c.security.secret_file = v.text().map(PathBuf::from),
        get: |c| path(c.security.secret_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "security.cert_file",
        kind: Kind::Path,
        fallback: "derived from the secret",
        doc: "The certificate (PEM) by which peers know this node, with what leads to its authority.",
        more: "With `security.key_file` and `security.ca_file`, on all nodes of the cluster or on \
               none. `chickadee cert issue` makes one; any other must name \
               `peer.<cluster>.chickadee`. The files are read again at a reload.",
        put: |c, v| c.security.cert_file = v.text().map(PathBuf::from),
        get: |c| path(c.security.cert_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "security.key_file",
        kind: Kind::Path,
        fallback: "derived from the secret",
        doc: "The private key (PEM) of `security.cert_file`; for the node's user alone.",
        put: |c, v| c.security.key_file = v.text().map(PathBuf::from),
        get: |c| path(c.security.key_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "security.ca_file",
        kind: Kind::Path,
        fallback: "derived from the secret",
        doc: "The authorities (PEM) that sign the certificates of the cluster's nodes.",
        more: "More than one while authorities change.",
        put: |c, v| c.security.ca_file = v.text().map(PathBuf::from),
        get: |c| path(c.security.ca_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "gossip.listen",
        kind: Kind::Address,
        default: "127.0.0.1:7400",
        doc: "Where gossip is received (UDP); port 0 takes any.",
        put: |c, v| {
            if let Some(address) = v.address() {
                c.gossip.listen = address;
            }
        },
        get: |c| Value::Addresses(vec![c.gossip.listen]),
        ..BLANK
    },
    Setting {
        key: "gossip.advertise",
        kind: Kind::Address,
        fallback: "as listened",
        doc: "The gossip address that the others are told.",
        more: "Where `gossip.listen` is 0.0.0.0 and this is not set, the address is found by the \
               route to the first seed.",
        put: |c, v| c.gossip.advertise = v.address(),
        get: |c| c.gossip.advertise.map_or(Value::Nothing, |a| Value::Addresses(vec![a])),
        ..BLANK
    },
    Setting {
        key: "gossip.profile",
        kind: Kind::Choice(&["lan", "wan"]),
        default: "lan",
        doc: "The set of gossip timings: `lan` within a site, `wan` between sites.",
        put: |c, v| c.gossip.profile = chosen(&PROFILE, v),
        get: |c| word(&PROFILE, c.gossip.profile),
        ..BLANK
    },
    Setting {
        key: "gossip.probe_interval",
        kind: Kind::Span { min: ms(100), max: secs(60), zero: None },
        fallback: "the profile's",
        doc: "How often a member probes another one.",
        more: "Shorter finds a death sooner, and costs packets in proportion.",
        put: |c, v| {
            c.gossip.probe_interval = if v == Value::Nothing { None } else { Some(v.span()) };
        },
        get: |c| c.gossip.probe_interval.map_or(Value::Nothing, Value::Span),
        ..BLANK
    },
    Setting {
        key: "peer.listen",
        kind: Kind::Address,
        default: "127.0.0.1:7401",
        doc: "Where peers are received (QUIC, UDP); port 0 takes any.",
        put: |c, v| {
            if let Some(address) = v.address() {
                c.peer.listen = address;
            }
        },
        get: |c| Value::Addresses(vec![c.peer.listen]),
        ..BLANK
    },
    Setting {
        key: "peer.advertise",
        kind: Kind::Address,
        fallback: "as listened",
        doc: "The peer address that the others are told.",
        put: |c, v| c.peer.advertise = v.address(),
        get: |c| c.peer.advertise.map_or(Value::Nothing, |a| Value::Addresses(vec![a])),
        ..BLANK
    },
    Setting {
        key: "peer.call_timeout",
        kind: Kind::Span { min: ms(10), max: secs(60), zero: None },
        default: "250ms",
        doc: "How long a proxied operation may take at one peer.",
        more: "A read then tries the next replica. Shorter than `client.op_timeout`.",
        put: |c, v| c.peer.call_timeout = v.span(),
        get: |c| Value::Span(c.peer.call_timeout),
        ..BLANK
    },
    Setting {
        key: "peer.lanes",
        kind: Kind::Count { min: 1, max: 256, or: Some((0, "4")) },
        default: "0",
        doc: "How many shard threads keep a connection of their own to one peer.",
        more: "Each half of a connection costs 38 KiB.",
        put: |c, v| c.peer.lanes = v.count(),
        get: |c| Value::Count(c.peer.lanes as u64),
        ..BLANK
    },
    Setting {
        key: "peer.max_mtu",
        kind: Kind::Count { min: 1200, max: 6500, or: Some((0, "found by probing")) },
        default: "0",
        doc: "The largest datagram between peers, in bytes.",
        put: |c, v| c.peer.max_mtu = v.count(),
        get: |c| Value::Count(c.peer.max_mtu.into()),
        ..BLANK
    },
    Setting {
        key: "peer.disable_gso",
        kind: Kind::Switch,
        default: "false",
        doc: "Sends datagrams one by one, for network cards that spoil batches of them.",
        put: |c, v| c.peer.disable_gso = v.switch(),
        get: |c| Value::Switch(c.peer.disable_gso),
        ..BLANK
    },
    Setting {
        key: "peer.sync_rate",
        kind: Kind::Size { min: 64 * KIB, max: 1 << 40, zero: Some("unlimited") },
        default: "0B",
        change: Change::Reload,
        doc: "Bytes per second that fills and repair may send.",
        put: |c, v| c.peer.sync_rate = v.size(),
        get: |c| Value::Size(c.peer.sync_rate),
        ..BLANK
    },
];

/// Everything behind the ports for clients.
const AFTER_CLIENT: &[Setting] = &[
    Setting {
        key: "admin.listen",
        kind: Kind::Addresses,
        default: "127.0.0.1:9400",
        doc: "Where metrics, status and the status page are served (HTTP, read-only).",
        more: "Empty: not at all. Nothing here asks for a password: do not open it to strangers.",
        put: |c, v| c.admin.listen = v.addresses(),
        get: |c| Value::Addresses(c.admin.listen.clone()),
        ..BLANK
    },
    Setting {
        key: "admin.socket",
        kind: Kind::Path,
        fallback: "`admin.sock` in `$RUNTIME_DIRECTORY`, else in `node.data_dir`",
        doc: "The unix socket through which the node is told to act.",
        put: |c, v| {
            if let Some(socket) = v.text() {
                c.admin.socket = socket.into();
            }
        },
        get: |c| path(Some(&c.admin.socket)),
        ..BLANK
    },
    Setting {
        key: "memory.limit",
        kind: Kind::Memory { min: 4 * MIB },
        default: "60%",
        flag: Some("memory"),
        doc: "The memory budget of the store.",
        more: "A share is of the machine's memory, or of its control group's. Connections and \
               buffers come on top.",
        put: |c, v| c.memory.limit = v.size(),
        get: |c| Value::Size(c.memory.limit),
        ..BLANK
    },
    Setting {
        key: "memory.policy",
        kind: Kind::Choice(&["evict", "refuse"]),
        default: "evict",
        doc: "What happens to a write when the budget is used up: others make room, or OOM.",
        put: |c, v| c.memory.policy = chosen(&POLICY, v),
        get: |c| word(&POLICY, c.memory.policy),
        ..BLANK
    },
    Setting {
        key: "snapshot.enabled",
        kind: Kind::Switch,
        default: "true",
        doc: "Whether a node that is stopped keeps its data in a file for its next start.",
        more: "It is compared with the other copies before it is used, and `cluster.tombstone_grace` \
               ends its use.",
        put: |c, v| c.snapshot.enabled = v.switch(),
        get: |c| Value::Switch(c.snapshot.enabled),
        ..BLANK
    },
    Setting {
        key: "snapshot.interval",
        kind: Kind::Span { min: secs(1), max: secs(DAY), zero: Some("only when it stops") },
        default: "0s",
        doc: "How often the snapshot file is written while the node runs.",
        put: |c, v| c.snapshot.interval = v.span(),
        get: |c| Value::Span(c.snapshot.interval),
        ..BLANK
    },
    Setting {
        key: "log.level",
        kind: Kind::Filter,
        default: "info",
        change: Change::Reload,
        doc: "What is logged, such as `info` or `info,chickadee::transport=debug`.",
        put: |c, v| c.log.level = v.text().unwrap_or_default(),
        get: |c| text(Some(&c.log.level)),
        ..BLANK
    },
    Setting {
        key: "log.format",
        kind: Kind::Choice(&["auto", "text", "json", "journald"]),
        default: "auto",
        doc: "The shape of log lines.",
        more: "`auto` is text; under systemd the journal is left the time and told the priority. `journald` sends \
               events to the journal with their fields apart, as `CHICKADEE_NODE=…`.",
        put: |c, v| c.log.format = chosen(&FORMAT, v),
        get: |c| word(&FORMAT, c.log.format),
        ..BLANK
    },
];
