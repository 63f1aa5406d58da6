//! What nodes say to each other about membership over QUIC: join, push-pull, ping, renew.
//!
//! | message | from | to | answer |
//! |---|---|---|---|
//! | `Join` | a node that looks for a cluster, or a member | whoever answers at a seed's address | `Joined`, `Starter` or `Refused` |
//! | `PushPull` | member | member | `Same` or `State` |
//! | `Push` | member, when the other's state lacked something | the same member | `Done` |
//! | `Ping` | member whose UDP probe was not answered | the probed member | `Pong` |
//! | `Keys` | member | member | `Keys`: the later of both rings |
//! | `Renew` | member that disagrees with others on whether the receiver is dead | the receiver | `Done` |
//!
//! postcard is positional: a message that changes is a new variant at the end; the tests pin the
//! bytes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::keys::KeyRingRecord;
use crate::types::{
    ClusterFacts, ClusterName, Generation, Identity, MemberRecord, NodeId, NodeMeta, NodeName, Zone,
};

/// The protocol version of these messages: nodes of different versions do not join each other.
pub const MEMBER_PROTOCOL: u16 = 1;

/// A node introduces itself to a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// [`MEMBER_PROTOCOL`] of the sender.
    pub protocol: u16,
    /// The cluster that it wants to be in.
    pub cluster: ClusterName,
    /// Its identity.
    pub identity: Identity,
    /// Its incarnation.
    pub incarnation: u16,
    /// The rest about it.
    pub meta: NodeMeta,
    /// Whether it is a member of a formed cluster; otherwise it looks for one.
    pub formed: bool,
    /// Whether its own address stands first in its list of seeds.
    pub first: bool,
}

/// All that a node knows of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The members, the sender first.
    pub records: Vec<MemberRecord>,
    /// What the cluster agrees on.
    pub facts: ClusterFacts,
}

/// Why a join was refused. Nothing changed at the one who refused; the text tells the operator
/// what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The seed belongs to another cluster.
    #[error("the seed belongs to cluster `{theirs}`, not `{yours}`: check cluster.name")]
    OtherCluster {
        /// The cluster of the one who refuses.
        theirs: ClusterName,
        /// The cluster that was asked for.
        yours: ClusterName,
    },
    /// The seed speaks another version of the protocol.
    #[error("the seed speaks member protocol {theirs}, this node {yours}: upgrade the older one")]
    OtherProtocol {
        /// The version of the one who refuses.
        theirs: u16,
        /// The version of the refused.
        yours: u16,
    },
    /// An alive member has this name.
    #[error(
        "the name `{name}` belongs to the member at {holder}; this node at {yours} needs another \
         node.name"
    )]
    NameTaken {
        /// The name.
        name: NodeName,
        /// Peer address of its holder.
        holder: SocketAddr,
        /// Peer address of the refused.
        yours: SocketAddr,
    },
    /// An alive member has this node id at another address.
    #[error(
        "node id {node} is alive at {holder}; the node at {yours} runs on a copy of its data \
         directory, or that one is not yet known to be dead"
    )]
    IdInUse {
        /// The node id.
        node: NodeId,
        /// Gossip address of its holder.
        holder: SocketAddr,
        /// Gossip address of the refused.
        yours: SocketAddr,
    },
    /// Two zone names have the same tag.
    #[error("zones `{theirs}` and `{yours}` have the same tag: rename one of them")]
    ZoneClash {
        /// The zone that is in use.
        theirs: Zone,
        /// The zone of the refused.
        yours: Zone,
    },
    /// The one who was asked is leaving.
    #[error("the node that was asked is leaving the cluster")]
    Leaving,
}

/// A request of one node to another about membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberRequest {
    /// May I join, or: are you with us?
    Join(Box<Join>),
    /// Is your state the one with this fingerprint? Otherwise send it.
    PushPull {
        /// Fingerprint of the sender's state.
        fingerprint: u64,
    },
    /// My state.
    Push(Box<ClusterState>),
    /// Are you alive?
    Ping {
        /// The generation and incarnation under which the sender suspects the receiver.
        suspected: Option<(Generation, u16)>,
    },
    /// Choose a generation above this one: some hold it for dead.
    Renew {
        /// The disputed generation.
        above: Generation,
    },
    /// My key ring. Take it over if it is later than yours.
    Keys(Box<KeyRingRecord>),
}

/// The answer to a [`MemberRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberAnswer {
    /// You are in; this is the cluster as it was before you came.
    Joined(Box<ClusterState>),
    /// I look for a cluster myself.
    Starter {
        /// Who says so.
        node: NodeId,
        /// Whether its own address stands first in its list of seeds.
        first: bool,
    },
    /// You are not let in.
    Refused(Refusal),
    /// My state has the same fingerprint.
    Same,
    /// My state.
    State(Box<ClusterState>),
    /// I am alive.
    Pong {
        /// The generation that answers.
        generation: Generation,
        /// Its incarnation.
        incarnation: u16,
    },
    /// Done.
    Done,
    /// The member service is stopping or overloaded; nothing happened.
    Busy,
    /// My key ring, after I saw yours.
    Keys(Box<KeyRingRecord>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{MemberState, Phase, Weight};
    use crate::wire::keys::KeyBytes;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn identity() -> Identity {
        Identity {
            node: NodeId(5),
            gossip: "10.0.0.5:7400".parse().unwrap(),
            generation: Generation(1000),
            revision: 2,
            phase: Phase::Active,
            weight: Weight::DEFAULT,
            zone: 7,
        }
    }

    fn meta() -> NodeMeta {
        NodeMeta {
            node: NodeId(5),
            generation: Generation(1000),
            revision: 1,
            name: "n5".parse().unwrap(),
            zone: Some("z".parse().unwrap()),
            version: "0.1.0".to_owned(),
            peer: "10.0.0.5:7401".parse().unwrap(),
            client: "10.0.0.5:6379".parse().unwrap(),
            cluster: "10.0.0.5:16379".parse().unwrap(),
            admin: Some("10.0.0.5:9400".parse().unwrap()),
            cluster_tls: Some("10.0.0.5:16380".parse().unwrap()),
        }
    }

    fn state() -> ClusterState {
        let record = MemberRecord {
            identity: identity(),
            incarnation: 3,
            state: MemberState::Suspect,
            removed: false,
            meta: Some(meta()),
        };
        let facts = ClusterFacts {
            name: "c".parse().unwrap(),
            replicas: 2,
            virtual_nodes: 256,
            ring_grace: Duration::from_secs(30),
            tombstone_grace: Duration::from_hours(1),
            revision: 1,
            origin: 9,
        };
        ClusterState { records: vec![record], facts }
    }

    fn ring() -> KeyRingRecord {
        KeyRingRecord { revision: 300, origin: 9, primary: 1, keys: vec![(1, KeyBytes([7; 32]))] }
    }

    #[test]
    fn the_bytes_of_requests_are_pinned() {
        let join = Join {
            protocol: MEMBER_PROTOCOL,
            cluster: "c".parse().unwrap(),
            identity: identity(),
            incarnation: 3,
            meta: meta(),
            formed: true,
            first: false,
        };
        let requests = [
            (MemberRequest::Join(Box::new(join)), JOIN),
            (MemberRequest::PushPull { fingerprint: 300 }, "01ac02"),
            (MemberRequest::Push(Box::new(state())), PUSH),
            (MemberRequest::Ping { suspected: Some((Generation(1), 2)) }, "03010102"),
            (MemberRequest::Renew { above: Generation(128) }, "048001"),
            (MemberRequest::Keys(Box::new(ring())), KEYS),
        ];
        for (request, golden) in requests {
            let bytes = postcard::to_stdvec(&request).unwrap();
            assert_eq!(hex(&bytes), golden, "{request:?}");
            assert_eq!(postcard::from_bytes::<MemberRequest>(&bytes).unwrap(), request);
        }
    }

    #[test]
    fn the_bytes_of_answers_are_pinned() {
        let refusal = Refusal::OtherProtocol { theirs: 2, yours: 1 };
        let answers = [
            (MemberAnswer::Joined(Box::new(state())), format!("00{}", &PUSH[2..])),
            (MemberAnswer::Starter { node: NodeId(5), first: true }, "010501".to_owned()),
            (MemberAnswer::Refused(refusal), "02010201".to_owned()),
            (MemberAnswer::Same, "03".to_owned()),
            (MemberAnswer::State(Box::new(state())), format!("04{}", &PUSH[2..])),
            (MemberAnswer::Pong { generation: Generation(1), incarnation: 2 }, "050102".to_owned()),
            (MemberAnswer::Done, "06".to_owned()),
            (MemberAnswer::Busy, "07".to_owned()),
            (MemberAnswer::Keys(Box::new(ring())), format!("08{}", &KEYS[2..])),
        ];
        for (answer, golden) in answers {
            let bytes = postcard::to_stdvec(&answer).unwrap();
            assert_eq!(hex(&bytes), golden, "{answer:?}");
            assert_eq!(postcard::from_bytes::<MemberAnswer>(&bytes).unwrap(), answer);
        }
    }

    const JOIN: &str = "0001016305000a000005e839e807020201070305e80701026e3501017a05302e312e30\
        000a000005e939000a000005eb31000a000005fb7f01000a000005b84901000a000005fc7f0100";
    const PUSH: &str = "020105000a000005e839e807020201070301000105e80701026e3501017a05302e312e30\
        000a000005e939000a000005eb31000a000005fb7f01000a000005b84901000a000005fc7f01630280021e\
        00901c000109";
    const KEYS: &str = "05ac020901010107070707070707070707070707070707\
        07070707070707070707070707070707";
}
