//! What the checks judge, gathered before by probes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::admin::status::{Member, Peer, Ring, Status};
use crate::config::Config;
use crate::config::load::Loaded;
use crate::types::{ByteSize, WallMillis};

/// Everything that is known.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The settings, and where each came from.
    pub(super) loaded: Loaded,
    /// This machine.
    pub(super) machine: MachineFacts,
    /// The folder for data.
    pub(super) folder: Folder,
    /// The secret file; `None` if none is set.
    pub(super) secret: Option<Readable>,
    /// The file of the clients' password; `None` if none is set.
    pub(super) password: Option<Readable>,
    /// The files of certificates.
    pub(super) certificates: Vec<CertificateFile>,
    /// The time of day.
    pub(super) now: WallMillis,
    /// The ports that a node with these settings binds.
    pub(super) ports: Vec<Port>,
    /// The seeds.
    pub(super) seeds: Vec<Seed>,
    /// The node that answered, if one did.
    pub(super) node: Option<NodeFacts>,
}

impl Facts {
    /// The settings.
    pub(super) const fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The node, if it runs on this machine.
    pub(super) fn node_here(&self) -> Option<&NodeFacts> {
        self.node.as_ref().filter(|node| node.is_here)
    }
}

/// What this machine gives to a process that was started like this one.
#[derive(Clone, Debug)]
pub(super) struct MachineFacts {
    /// Memory of the machine, or of the control group.
    pub(super) memory: ByteSize,
    /// Bytes of receive buffer that a UDP socket got when it asked for as many as a node does; `None` if it
    /// could not be tried.
    pub(super) receive_buffer: Option<usize>,
    /// Files that may be open; `None` for any number.
    pub(super) open_files: Option<u64>,
    /// How the system hands out huge pages by itself; `None` where it has none.
    pub(super) huge_pages: Option<String>,
    /// Whether this is root, who may look at everything.
    pub(super) is_root: bool,
}

/// The folder for data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Folder {
    /// It can be written to; bytes free there, where the system tells.
    Writable(Option<ByteSize>),
    /// It does not exist, and can be made; bytes free there.
    ToBeMade(Option<ByteSize>),
    /// It cannot be written to, or made, and why.
    Refused(String),
}

/// A file whose content is nobody else's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// It is good.
    Good,
    /// This user must not look at it.
    Denied,
    /// It is readable by others than its owner and its group.
    Exposed(String),
    /// It is no good, and why.
    Bad(String),
}

/// A file of certificates.
#[derive(Clone, Debug)]
pub(super) struct CertificateFile {
    /// Its setting.
    pub(super) key: &'static str,
    /// Where it is.
    pub(super) path: PathBuf,
    /// When what is in it counts.
    pub(super) validity: Validity,
}

/// When certificates count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// The file serves from then on, and until then.
    Between(WallMillis, WallMillis),
    /// This user must not look at it.
    Denied,
    /// There are none, and why.
    Bad(String),
}

/// A port of the settings.
#[derive(Clone, Debug)]
pub(super) struct Port {
    /// Its setting.
    pub(super) key: &'static str,
    /// The address.
    pub(super) address: SocketAddr,
    /// Whether it could be bound.
    pub(super) state: PortState,
}

/// Whether a port could be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortState {
    /// Nobody has it.
    Free,
    /// Somebody has it.
    Taken,
    /// The system refuses it, and why.
    Refused(String),
}

/// A seed of the settings.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    /// `host:port`.
    pub(super) name: String,
    /// Its addresses, or why there are none.
    pub(super) addresses: Result<Vec<SocketAddr>, String>,
}

/// What a node says of itself and its cluster.
#[derive(Clone, Debug)]
pub(super) struct NodeFacts {
    /// Where it was asked.
    pub(super) asked: String,
    /// Whether that is this machine.
    pub(super) is_here: bool,
    /// Its status.
    pub(super) status: Status,
    /// Why it is not ready.
    pub(super) reasons: Vec<String>,
    /// The members.
    pub(super) members: Vec<Member>,
    /// Its peers.
    pub(super) peers: Vec<Peer>,
    /// The placement.
    pub(super) ring: Ring,
    /// Figures of its metrics, series of one metric added up.
    pub(super) figures: BTreeMap<String, f64>,
    /// What other members say of themselves, by id, as far as they answered.
    pub(super) others: BTreeMap<String, Status>,
}

#[cfg(test)]
pub(super) use made_up::{good, good_node, member};

/// Facts with which nothing is wrong, for tests to spoil.
#[cfg(test)]
mod made_up {
    use super::*;
    use crate::admin::status::{
        Addresses, MemberCounts, NodeStatus, RingNode, RingStatus, Stamp, StoreStatus,
    };
    use crate::types::{MemberState, Phase, WallMillis};

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    pub(in crate::cli::doctor) fn good() -> Facts {
        let name = "n1".parse().unwrap();
        let config = Config::on_loopback(name, "/data");
        Facts {
            loaded: Loaded { config, origins: BTreeMap::default() },
            machine: MachineFacts {
                memory: ByteSize(8 << 30),
                receive_buffer: Some(4 << 20),
                open_files: Some(1 << 20),
                huge_pages: Some("madvise".to_owned()),
                is_root: true,
            },
            folder: Folder::Writable(Some(ByteSize(1 << 40))),
            secret: None,
            password: None,
            certificates: Vec::new(),
            now: WallMillis(1_800_000_000_000),
            ports: Vec::new(),
            seeds: Vec::new(),
            node: None,
        }
    }

    pub(in crate::cli::doctor) fn member(number: u16, zone: Option<&str>) -> Member {
        Member {
            id: format!("{number:032x}"),
            name: format!("n{number}"),
            state: MemberState::Alive,
            phase: Phase::Active,
            since: Stamp(WallMillis(1)),
            gossip: at(7400 + number),
            peer: None,
            client: None,
            cluster: None,
            admin: Some(at(9400 + number)),
            zone: zone.map(str::to_owned),
            weight: 1,
            generation: 1,
            version: Some("0.1.0".to_owned()),
            rtt_seconds: None,
            is_self: number == 1,
        }
    }

    fn status(number: u16) -> Status {
        Status {
            node: NodeStatus {
                id: format!("{number:032x}"),
                name: format!("n{number}"),
                version: "0.1.0".to_owned(),
                zone: None,
                protocol: 1,
            },
            cluster: "chickadee".to_owned(),
            ready: true,
            phase: Phase::Active,
            fenced: None,
            members: MemberCounts { alive: 2, ..MemberCounts::default() },
            ring: RingStatus { nodes: 2, ..RingStatus::default() },
            store: StoreStatus { limit_bytes: 1 << 30, ..StoreStatus::default() },
            uptime_seconds: 100.0,
            addresses: Addresses {
                client: at(6379),
                cluster: at(16379),
                gossip: at(7400),
                peer: at(7401),
                admin: Some(at(9400)),
                client_tls: None,
                cluster_tls: None,
            },
        }
    }

    /// `n1` on this machine, in a cluster with `n2`.
    pub(in crate::cli::doctor) fn good_node() -> NodeFacts {
        let node = |number: u16| RingNode {
            id: format!("{number:032x}"),
            name: format!("n{number}"),
            zone: None,
            weight: 1,
            slots_owned: 8192,
            slots_replica: 8192,
        };
        NodeFacts {
            asked: "127.0.0.1:9400".to_owned(),
            is_here: true,
            status: status(1),
            reasons: Vec::new(),
            members: vec![member(1, None), member(2, None)],
            peers: vec![Peer {
                id: format!("{:032x}", 2),
                name: "n2".to_owned(),
                state: MemberState::Alive,
                address: None,
                zone: None,
                version: None,
                connected: true,
                rtt_seconds: None,
                queue_bytes: 0,
                dirty_slots: 0,
                last_seen: None,
                clock_offset_seconds: Some(-0.01),
                last_error: None,
            }],
            ring: Ring {
                placement_id: "00".to_owned(),
                replicas: 2,
                nodes: vec![node(1), node(2)],
            },
            figures: BTreeMap::from([
                ("udp_receive_buffer_bytes".to_owned(), 4_194_304.0),
                ("max_fds".to_owned(), 1_048_576.0),
                ("slots_sharing_zone".to_owned(), 0.0),
            ]),
            others: BTreeMap::from([(format!("{:032x}", 2), status(2))]),
        }
    }
}
