//! Calls to peers, each as a task of its own that hands in an outcome.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::SEED_ADDRESSES_MAX;
use crate::members::{MemberCodec, Resolve};
use crate::membership::Pong;
use crate::peers::{CallError, Peers};
use crate::types::NodeId;
use crate::wire::member::{MemberAnswer, MemberRequest};

/// How long a seed or a member may take to answer.
pub(super) const CALL_BUDGET: Duration = Duration::from_secs(1);

/// How long a fallback ping may take: it must be answered before the probe ends.
pub(super) const PING_BUDGET: Duration = Duration::from_millis(450);

/// What a call came to.
pub(super) enum Outcome {
    /// A seed was asked; `None` stands for an address that is no seed.
    Asked { seed: Option<usize>, asked: Asked },
    /// A push-pull with a member.
    PushPull { with: NodeId, answer: Result<MemberAnswer, CallError> },
    /// A fallback ping.
    Pinged { token: u64, pong: Option<Pong> },
    /// Rings were exchanged with a member.
    Keys(Result<MemberAnswer, CallError>),
    /// Something was told; nothing follows.
    Told,
}

/// What came of asking all addresses of a seed.
#[derive(Default)]
pub(super) struct Asked {
    /// One of the addresses is this node's.
    pub(super) myself: bool,
    /// One of the addresses belongs to a member that is alive already; it was not asked again.
    pub(super) present: bool,
    /// Who answered what.
    pub(super) answers: Vec<(NodeId, MemberAnswer)>,
    /// Why the last of the others did not answer.
    pub(super) failure: Option<String>,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// To a member, over the lanes.
    Member(NodeId),
    /// To a node that the transport does not look for, being dead, at its last address.
    At(NodeId, SocketAddr),
}

/// What calls are made with.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) peers: Arc<dyn Peers>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) codec: MemberCodec,
    pub(super) own: NodeId,
    pub(super) own_peer: SocketAddr,
}

impl Line {
    /// Calls one node.
    pub(super) async fn call(
        self,
        target: Target,
        request: MemberRequest,
        budget: Duration,
    ) -> Result<MemberAnswer, CallError> {
        let request = (self.codec.encode)(request);
        let bytes = match target {
            Target::Member(node) => self.peers.call(node, request, budget).await?,
            Target::At(node, address) => {
                let (who, bytes) = self.peers.call_address(address, request, budget).await?;
                if who.node != node {
                    let other = format!("node {} answers there", who.node);
                    return Err(CallError::Unreachable(other));
                }
                bytes
            }
        };
        (self.codec.decode)(&bytes).ok_or(CallError::Lost)
    }

    /// Asks every address of a seed, until one of them lets this node in.
    pub(super) async fn ask_seed(
        self,
        seed: String,
        request: Bytes,
        alive: Arc<[SocketAddr]>,
    ) -> Asked {
        let mut asked = Asked::default();
        let addresses = match self.resolver.resolve(seed).await {
            Ok(addresses) => addresses,
            Err(error) => {
                asked.failure = Some(format!("not resolved: {error}"));
                return asked;
            }
        };
        for address in addresses.into_iter().take(SEED_ADDRESSES_MAX) {
            if address == self.own_peer {
                asked.myself = true;
            } else if alive.contains(&address) {
                asked.present = true;
            } else {
                self.ask_address(address, request.clone(), &mut asked).await;
            }
            if matches!(asked.answers.last(), Some((_, MemberAnswer::Joined(_)))) {
                break;
            }
        }
        asked
    }

    async fn ask_address(&self, address: SocketAddr, request: Bytes, asked: &mut Asked) {
        match self.peers.call_address(address, request, CALL_BUDGET).await {
            Ok((who, _)) if who.node == self.own => asked.myself = true,
            Ok((who, bytes)) => match (self.codec.decode)(&bytes) {
                Some(answer) => asked.answers.push((who.node, answer)),
                None => asked.failure = Some("answer not understood".to_owned()),
            },
            Err(error) => asked.failure = Some(error.to_string()),
        }
    }
}
