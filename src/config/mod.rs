//! A node's settings as a tree of parts. A [`Config`] that exists is valid.
//!
//! `settings` is the table that defines every setting once; `load` turns text from a file, the
//! environment and flags into this tree, or into an error that names the key and where it stood;
//! `relations` checks what must hold between settings; `describe` writes the example file and the
//! manual page from the table.

mod client_settings;
pub mod describe;
pub mod keys;
pub mod load;
mod relations;
pub mod setting;
pub mod settings;
pub mod value;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use keys::CLUSTER_NAME;
use load::{ConfigError, Loaded, Machine, Sources, load};
use setting::{Change, Setting};
use settings::{SETTINGS, find};
use value::{Raw, Value};

use crate::types::{ByteSize, ClusterFacts, ClusterName, NodeName, Weight, Zone};

/// Everything a node is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Section `node`.
    pub node: NodeConfig,
    /// Section `cluster`.
    pub cluster: ClusterConfig,
    /// Section `security`.
    pub security: SecurityConfig,
    /// Section `gossip`.
    pub gossip: GossipConfig,
    /// Section `peer`.
    pub peer: PeerConfig,
    /// Section `client`.
    pub client: ClientConfig,
    /// Section `admin`.
    pub admin: AdminConfig,
    /// Section `memory`.
    pub memory: MemoryConfig,
    /// Section `log`.
    pub log: LogConfig,
    /// `snapshot.*`.
    pub snapshot: SnapshotConfig,
}

/// What a second reading of the settings changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new value counts from now on.
    pub changed: Vec<&'static str>,
    /// Keys whose new value counts at the next start.
    pub waiting: Vec<&'static str>,
}

impl Config {
    /// These settings with what of `new` can change in a running node, and what differs.
    ///
    /// # Errors
    ///
    /// What must hold between settings does not, where some of `new` count now and some at the next
    /// start only: a password goes while the address beyond loopback stays.
    pub fn reloaded(&self, new: &Loaded) -> Result<(Self, Reloaded), ConfigError> {
        let mut reloaded = Reloaded::default();
        let mut merged = Loaded { config: self.clone(), origins: new.origins.clone() };
        for row in SETTINGS {
            if row.show(self) == row.show(&new.config) {
                continue;
            }
            if row.change == Change::Reload {
                (row.put)(&mut merged.config, (row.get)(&new.config));
                reloaded.changed.push(row.key);
            } else {
                reloaded.waiting.push(row.key);
            }
        }
        relations::check(&merged)?;
        Ok((merged.config, reloaded))
    }

    /// The cluster's facts with the one of this name as `text` says. A fact has the name, the kind and
    /// the range of its setting in section `cluster`.
    ///
    /// # Errors
    ///
    /// There is no such fact, or it cannot be `text`; in words for people.
    pub fn with_fact(
        &self,
        facts: &ClusterFacts,
        name: &str,
        text: &str,
    ) -> Result<ClusterFacts, String> {
        let is_fact = |row: &&Setting| row.change == Change::Forming && row.key != CLUSTER_NAME;
        let Some(row) = find(&format!("cluster.{name}")).filter(is_fact) else {
            let rows = SETTINGS.iter().filter(is_fact);
            let names: Vec<&str> = rows.map(|row| row.parts().1).collect();
            return Err(format!("{name:?} cannot be set: facts are {}", names.join(", ")));
        };
        let fault = |why: String| format!("{name}: {why}");
        let value = row.kind.parse(&Raw(vec![text.to_owned()]), ByteSize(0)).map_err(fault)?;
        if value == Value::Nothing {
            return Err(fault(format!("takes {}", row.kind.describe())));
        }
        let mut changed = self.clone();
        changed.cluster.replicas = facts.replicas;
        changed.cluster.virtual_nodes = facts.virtual_nodes;
        changed.cluster.ring_grace = facts.ring_grace;
        changed.cluster.tombstone_grace = facts.tombstone_grace;
        (row.put)(&mut changed, value);
        Ok(ClusterFacts {
            replicas: changed.cluster.replicas,
            virtual_nodes: changed.cluster.virtual_nodes,
            ring_grace: changed.cluster.ring_grace,
            tombstone_grace: changed.cluster.tombstone_grace,
            ..facts.clone()
        })
    }

    /// A node on loopback with ports that the system gives, defaults for everything else, and
    /// 64 MiB: what an embedding program or a test begins with and changes.
    pub fn on_loopback(name: NodeName, data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let machine = Machine {
            host_name: name.to_string(),
            total_memory: ByteSize(64 << 20),
            data_dir: data_dir.clone(),
            runtime_dir: None,
            credentials: BTreeMap::new(),
        };
        let environment = BTreeMap::new();
        let sources = Sources {
            file: None,
            environment: &environment,
            flags: &[],
            form: false,
            machine: &machine,
        };
        let mut config = load(&sources).expect("the defaults are valid settings").config;
        config.node.name = name;
        config.memory.limit = ByteSize(64 << 20);
        config.client.listen = vec![any];
        config.gossip.listen = any;
        config.peer.listen = any;
        config.admin.listen = vec![any];
        config.admin.socket = data_dir.join("admin.sock");
        config
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `node.name`; the host's name where none is given.
    pub name: NodeName,
    /// `node.zone`.
    pub zone: Option<Zone>,
    /// `node.weight`.
    pub weight: Weight,
    /// `node.threads`: shard threads; 0 = half of the cores, at least one.
    pub threads: usize,
    /// `node.data_dir`.
    pub data_dir: PathBuf,
}

/// The cluster to form or to join.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// `cluster.name`, a cluster fact.
    pub name: ClusterName,
    /// `cluster.join`: seeds as `host:port` of their peer addresses, resolved anew at each try.
    pub join: Vec<String>,
    /// `serve --form`: form a cluster now if no member answers.
    pub form: bool,
    /// `cluster.replicas`, a cluster fact: copies, the owner's included.
    pub replicas: u8,
    /// `cluster.acks`.
    pub acks: Acks,
    /// `cluster.acks_shortfall`.
    pub acks_shortfall: AcksShortfall,
    /// `cluster.virtual_nodes`, a cluster fact.
    pub virtual_nodes: u16,
    /// `cluster.ring_grace`, a cluster fact.
    pub ring_grace: Duration,
    /// `cluster.tombstone_grace`, a cluster fact.
    pub tombstone_grace: Duration,
    /// `cluster.leave_timeout`: how long leaving and pausing may take.
    pub leave_timeout: Duration,
}

/// How many nodes of the replica set must have applied a write before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acks {
    /// The acting node alone.
    One,
    /// More than half of the configured copies.
    Quorum,
    /// Every configured copy.
    All,
}

impl Acks {
    /// How many of `replicas` configured copies must have applied a write, the acting one included.
    pub const fn needed(self, replicas: u8) -> u8 {
        match self {
            Self::One => 1,
            Self::Quorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }
}

/// What happens to a write when too few members are known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcksShortfall {
    /// Go on with those that are there, and count it.
    Accept,
    /// Answer `NOREPLICAS` before writing.
    Error,
}

/// Trust between nodes.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "named as the settings are")]
pub struct SecurityConfig {
    /// `security.secret_file`.
    pub secret_file: Option<PathBuf>,
    /// `security.cert_file`: the certificate for peers, where none is derived from the secret.
    pub cert_file: Option<PathBuf>,
    /// `security.key_file`.
    pub key_file: Option<PathBuf>,
    /// `security.ca_file`.
    pub ca_file: Option<PathBuf>,
}

/// The gossip socket.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// `gossip.listen`.
    pub listen: SocketAddr,
    /// `gossip.advertise`.
    pub advertise: Option<SocketAddr>,
    /// `gossip.profile`.
    pub profile: GossipProfile,
    /// `gossip.probe_interval`; `None` = the profile's.
    pub probe_interval: Option<Duration>,
}

/// A set of gossip timings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipProfile {
    /// Nodes within a millisecond or so.
    Lan,
    /// Nodes up to some hundred milliseconds apart.
    Wan,
}

/// The QUIC endpoint.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// `peer.listen`.
    pub listen: SocketAddr,
    /// `peer.advertise`.
    pub advertise: Option<SocketAddr>,
    /// `peer.call_timeout`: how long a proxied operation may take at one peer.
    pub call_timeout: Duration,
    /// `peer.lanes`: threads that dial one peer; 0 = 4.
    pub lanes: usize,
    /// `peer.max_mtu`: 0 = discovered, at most 6500.
    pub max_mtu: u16,
    /// `peer.disable_gso`.
    pub disable_gso: bool,
    /// `peer.sync_rate`: bytes per second that fills and repair may send; 0 = unlimited.
    pub sync_rate: ByteSize,
}

/// The ports for clients.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `client.listen`.
    pub listen: Vec<SocketAddr>,
    /// `client.cluster_listen`; empty = the client port + 10000, else any.
    pub cluster_listen: Vec<SocketAddr>,
    /// `client.advertise`.
    pub advertise: Option<SocketAddr>,
    /// `client.cluster_advertise`.
    pub cluster_advertise: Option<SocketAddr>,
    /// `client.tls_listen`; empty = off.
    pub tls_listen: Vec<SocketAddr>,
    /// `client.cluster_tls_listen`; empty = off.
    pub cluster_tls_listen: Vec<SocketAddr>,
    /// `client.tls_cert_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// `client.tls_key_file`.
    pub tls_key_file: Option<PathBuf>,
    /// `client.tls_client_ca_file`: who signs the certificates that clients must have.
    pub tls_client_ca_file: Option<PathBuf>,
    /// `client.op_timeout`: the budget of one command.
    pub op_timeout: Duration,
    /// `client.password_file`.
    pub password_file: Option<PathBuf>,
    /// `client.acl_file`.
    pub acl_file: Option<PathBuf>,
    /// `client.max_clients`.
    pub max_clients: usize,
    /// `client.idle_timeout`; zero = never.
    pub idle_timeout: Duration,
    /// `client.output_buffer_limit`: a connection that lets more replies pile up is closed.
    pub output_buffer_limit: ByteSize,
    /// `client.max_value_size`.
    pub max_value_size: ByteSize,
    /// `client.danger_allow_anonymous`: listen beyond loopback without a password.
    pub danger_allow_anonymous: bool,
}

/// The admin interfaces.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `admin.listen`.
    pub listen: Vec<SocketAddr>,
    /// `admin.socket`.
    pub socket: PathBuf,
}

/// The memory budget.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// `memory.limit` in bytes (a share of the machine's memory is resolved when it is loaded).
    pub limit: ByteSize,
    /// `memory.policy`.
    pub policy: MemoryPolicy,
}

/// What happens to a write when the memory budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPolicy {
    /// Other entries make room.
    Evict,
    /// The write is answered `OOM`.
    Refuse,
}

/// The snapshot file, for a warm restart.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotConfig {
    /// `snapshot.enabled`.
    pub enabled: bool,
    /// `snapshot.interval`: how often it is written beside on pause; zero for never.
    pub interval: Duration,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `log.level`: a `tracing` filter such as `info` or `info,chickadee::transport=debug`.
    pub level: String,
    /// `log.format`.
    pub format: LogFormat,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text; where systemd's journal reads it without times, and with priorities.
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
    /// To systemd's journal, with fields of its own.
    Journald,
}

/// The port that a seed is asked at where its address names none.
const SEED_PORT: u16 = 7401;

/// A seed as `host:port`, with the default peer port where none is named.
pub fn seed_address(seed: &str) -> String {
    let after_brackets = seed.rsplit_once(']').map_or(seed, |(_, rest)| rest);
    let bare_v6 = !seed.contains(']') && seed.matches(':').count() > 1;
    match (after_brackets.contains(':'), bare_v6) {
        (_, true) => format!("[{seed}]:{SEED_PORT}"),
        (true, false) => seed.to_owned(),
        (false, false) => format!("{seed}:{SEED_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_the_peer_port_unless_it_names_another() {
        for (seed, address) in [
            ("node1", "node1:7401"),
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("::1", "[::1]:7401"),
            ("[::1]", "[::1]:7401"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(seed_address(seed), address);
        }
    }
}
