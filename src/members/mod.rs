//! The membership service: owns the core, finds the cluster, and publishes who is in it.
//!
//! ```text
//!            Datagrams (UDP)          Peers (QUIC)
//!                  │                      │ join, push-pull, ping, renew
//!                  ▼                      ▼
//!   Members ──► one task: Membership, metadata, cluster facts, forming ──► watch: MemberTable
//!   (handle)
//! ```
//!
//! One task owns all state and never waits for a peer: calls run as tasks of their own and hand in
//! their outcome. Everyone else holds a [`Members`] handle or reads the published [`MemberTable`].
//!
//! Invariants:
//! - No call, queue or answer of a peer holds the task up; each is bounded.
//! - The table is sorted by node id, contains this node, and is replaced as a whole.
//! - The cluster facts a node publishes are those of its cluster once it is `formed`, and only the
//!   settings' wish before.

mod admission;
mod asking;
mod exchange;
mod facts;
mod forming;
mod joining;
mod key_ring;
mod push_pull;
mod service;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::SharedClock;
use crate::config::GossipProfile;
use crate::limits::MEMBER_COMMANDS_MAX;
use crate::metrics::GossipMetrics;
use crate::peers::{Caller, Directory, Peers};
use crate::rng::Randomness;
use crate::tasks::{BoxFuture, TaskGroup};
use crate::types::{
    ClusterFacts, Identity, MemberState, NodeId, NodeMeta, Phase, WallMillis, Weight,
};
use crate::wire::keys::KeyRingRecord;
use crate::wire::member::{MemberAnswer, MemberRequest};

pub use facts::{FactsChange, FactsError};
pub use key_ring::{KeyChange, KeysChanged, KeysError, VersionedKeys};
pub use service::MemberService;

/// Gossip datagrams, without a socket. They may be lost, doubled and reordered; what arrives may
/// have been sent by anyone.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends a datagram if there is room; otherwise it counts as lost.
    fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()>;

    /// Waits for a datagram; its length and where it came from.
    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;

    /// Takes a datagram that is there; `WouldBlock` if there is none.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

/// Finds the addresses of a seed. Asked anew at each try.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `host:port`.
    fn resolve(&self, host_port: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// How member messages become the opaque bytes of a call, and back.
#[derive(Clone, Copy, Debug)]
pub struct MemberCodec {
    /// The bytes of a request.
    pub encode: fn(MemberRequest) -> Bytes,
    /// The answer in these bytes; `None` if there is none.
    pub decode: fn(&[u8]) -> Option<MemberAnswer>,
}

/// What the service is told at its start.
pub struct MembersOptions {
    /// Who this node is. Its phase is `Returning` where it was a member before, else `Joining`;
    /// the cluster's word corrects it.
    pub identity: Identity,
    /// The rest about this node.
    pub meta: NodeMeta,
    /// The set of gossip timings.
    pub profile: GossipProfile,
    /// How often a member is probed; `None` = the profile's.
    pub probe_interval: Option<Duration>,
    /// The keys of gossip, as they were kept or as the secret gives them.
    pub keys: VersionedKeys,
    /// The facts kept from before, or the settings' with revision 0.
    pub facts: ClusterFacts,
    /// Peer addresses of seeds as `host:port`; the order matters for forming.
    pub seeds: Vec<String>,
    /// Peer addresses of the last known members; they count as seeds.
    pub last_known: Vec<SocketAddr>,
    /// Form a cluster once all seeds were asked and none is a member.
    pub form: bool,
    /// How messages become bytes.
    pub codec: MemberCodec,
    /// Called with every later identity of this node, so that its generation can be kept.
    pub on_identity: Box<dyn Fn(&Identity) + Send + Sync>,
    /// Called with every later key ring, so that it can be kept.
    pub on_keys: Box<dyn Fn(&KeyRingRecord) + Send + Sync>,
}

/// What the service works with.
pub struct MembersParts {
    /// The time.
    pub clock: SharedClock,
    /// The node's randomness.
    pub randomness: Randomness,
    /// The gossip socket.
    pub datagrams: Arc<dyn Datagrams>,
    /// Calls to peers.
    pub peers: Arc<dyn Peers>,
    /// Finds seeds.
    pub resolver: Arc<dyn Resolve>,
    /// Metrics of gossip.
    pub metrics: GossipMetrics,
    /// Owns the service's tasks.
    pub tasks: TaskGroup,
}

/// One member as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its gossiped identity.
    pub identity: Identity,
    /// How it fares.
    pub state: MemberState,
    /// When it came into this state, as this node saw it.
    pub since: WallMillis,
    /// Whether its place on the ring was given up.
    pub removed: bool,
    /// The rest about it; `None` for the moment between gossip and push-pull.
    pub meta: Option<Arc<NodeMeta>>,
}

impl MemberInfo {
    /// Whether placement counts it: on the ring by its phase, and neither left nor removed.
    pub fn is_placed(&self) -> bool {
        self.identity.phase.on_ring() && self.state != MemberState::Left && !self.removed
    }

    /// Whether it is dead or left.
    pub const fn is_gone(&self) -> bool {
        matches!(self.state, MemberState::Dead | MemberState::Left)
    }
}

/// Who is in the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTable {
    /// This node.
    pub me: NodeId,
    /// All members, this node included, by node id.
    pub members: Vec<MemberInfo>,
    /// What the cluster agrees on; before `formed`, what the settings wish for.
    pub facts: ClusterFacts,
    /// How often this node refuted a suspicion of itself, or came back under a higher generation
    /// because it had been taken for dead.
    pub refutations: u64,
    /// Whether this node is in a cluster.
    pub formed: bool,
    /// What a node that is in none waits for, in words for people; empty otherwise.
    pub waiting_for: String,
}

impl MemberTable {
    /// A member, this node included.
    pub fn get(&self, node: NodeId) -> Option<&MemberInfo> {
        let at = self.members.binary_search_by_key(&node, |member| member.identity.node).ok()?;
        self.members.get(at)
    }

    /// The other members that are not known to have left, with their peer addresses: to be kept in
    /// the node file and handed back in [`MembersOptions::last_known`].
    pub fn last_known(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        self.members
            .iter()
            .filter(|member| member.identity.node != self.me && member.state != MemberState::Left)
            .filter_map(|member| Some((member.identity.node, member.meta.as_ref()?.peer)))
    }
}

/// What others ask of the service's task.
enum Command {
    Serve(Caller, MemberRequest, oneshot::Sender<MemberAnswer>),
    SetPhase(Phase),
    SetWeightZone(Weight, u32),
    SetMeta(Box<NodeMeta>),
    SetFacts(FactsChange, oneshot::Sender<Result<ClusterFacts, FactsError>>),
    Keys(oneshot::Sender<VersionedKeys>),
    ConfirmKeys(oneshot::Sender<Vec<NodeId>>),
    ChangeKeys(u64, KeyChange, oneshot::Sender<Result<u8, KeysError>>),
    Leave(oneshot::Sender<()>),
    Form(oneshot::Sender<bool>),
    Forget(NodeId, oneshot::Sender<bool>),
    Pulse(oneshot::Sender<()>),
}

/// A handle on the membership service. Clones are the same service.
///
/// Commands wait while the service's queue is full; after the service has stopped they do nothing.
#[derive(Clone, Debug)]
pub struct Members {
    commands: mpsc::Sender<Command>,
    table: watch::Receiver<Arc<MemberTable>>,
}

impl Members {
    /// The handle, and the service to be started with its parts. The handle is good at once, so
    /// that a transport can be built on it: its table holds this node alone until then.
    pub fn prepare(options: MembersOptions) -> (Self, MemberService) {
        let (commands, receiver) = mpsc::channel(MEMBER_COMMANDS_MAX);
        let me = MemberInfo {
            identity: options.identity.clone(),
            state: MemberState::Alive,
            since: WallMillis(0),
            removed: false,
            meta: Some(Arc::new(options.meta.clone())),
        };
        let (publisher, table) = watch::channel(Arc::new(MemberTable {
            me: me.identity.node,
            members: vec![me],
            facts: options.facts.clone(),
            refutations: 0,
            formed: false,
            waiting_for: "starting".to_owned(),
        }));
        let service = MemberService { options, commands: receiver, publisher };
        (Self { commands, table }, service)
    }

    /// The present table.
    pub fn table(&self) -> Arc<MemberTable> {
        Arc::clone(&self.table.borrow())
    }

    /// The table and its changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<MemberTable>> {
        self.table.clone()
    }

    /// Answers a peer's request.
    pub fn serve(&self, from: Caller, request: MemberRequest) -> BoxFuture<'static, MemberAnswer> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (answer, receiver) = oneshot::channel();
            if commands.send(Command::Serve(from, request, answer)).await.is_err() {
                return MemberAnswer::Busy;
            }
            receiver.await.unwrap_or(MemberAnswer::Busy)
        })
    }

    async fn tell(&self, command: Command) {
        let _a_stopped_service_does_nothing = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, receiver) = oneshot::channel();
        self.tell(command(answer)).await;
        receiver.await.ok()
    }

    /// Announces another phase of this node's life.
    pub async fn set_phase(&self, phase: Phase) {
        self.tell(Command::SetPhase(phase)).await;
    }

    /// Announces another weight or zone tag of this node.
    pub async fn set_weight_zone(&self, weight: Weight, zone: u32) {
        self.tell(Command::SetWeightZone(weight, zone)).await;
    }

    /// Changes what is known about this node beside its identity; generation and revision are set
    /// by the service.
    pub async fn set_meta(&self, meta: NodeMeta) {
        self.tell(Command::SetMeta(Box::new(meta))).await;
    }

    /// Changes cluster facts; returns them as they are afterwards.
    pub async fn set_facts(&self, change: FactsChange) -> Result<ClusterFacts, FactsError> {
        self.ask(|answer| Command::SetFacts(change, answer))
            .await
            .unwrap_or(Err(FactsError::Stopping))
    }

    /// The key ring of gossip; `None` if the service has stopped.
    pub async fn keys(&self) -> Option<VersionedKeys> {
        self.ask(Command::Keys).await
    }

    /// Changes the key ring of the whole cluster.
    pub async fn change_keys(&self, change: KeyChange) -> Result<KeysChanged, KeysError> {
        let before = self.keys().await.ok_or(KeysError::Stopping)?;
        // A key that is only added is used by nobody yet.
        if !matches!(change, KeyChange::Add(_)) {
            let late = self.ask(Command::ConfirmKeys).await.ok_or(KeysError::Stopping)?;
            if !late.is_empty() {
                return Err(KeysError::Unconfirmed(late));
            }
        }
        let change = |answer| Command::ChangeKeys(before.revision, change, answer);
        let id = self.ask(change).await.unwrap_or(Err(KeysError::Stopping))?;
        let late = self.ask(Command::ConfirmKeys).await.ok_or(KeysError::Stopping)?;
        Ok(KeysChanged { id, late })
    }

    /// Leaves the cluster for good; returns when the goodbye is said (within a second).
    pub async fn leave(&self) {
        self.ask(Command::Leave).await;
    }

    /// Forms a cluster now; `false` if this node is in one already.
    pub async fn form(&self) -> bool {
        self.ask(Command::Form).await.unwrap_or(false)
    }

    /// Returns once the service has gone through its loop; `false` if it has stopped.
    pub async fn pulse(&self) -> bool {
        self.ask(Command::Pulse).await.is_some()
    }

    /// Declares a dead member left, in the whole cluster; `false` if it is not known or not dead.
    pub async fn forget(&self, node: NodeId) -> bool {
        self.ask(|answer| Command::Forget(node, answer)).await.unwrap_or(false)
    }
}

impl Directory for Members {
    fn locate(&self, node: NodeId) -> Option<SocketAddr> {
        let table = self.table();
        let member = table.get(node).filter(|member| !member.is_gone())?;
        member.meta.as_ref().map(|meta| meta.peer)
    }
}
