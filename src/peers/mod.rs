//! How nodes talk to each other about data, without a socket: calls, bulk streams, and serving them.
//!
//! A call carries opaque bytes (`wire` gives them meaning) and is answered by opaque bytes. What the
//! implementations promise, and their contract suite tests:
//!
//! - Calls of one thread to one peer arrive in the order in which they were started, as long as
//!   their payload is at most [`crate::limits::LANE_PAYLOAD_MAX`]; larger ones travel beside the
//!   lane and may be overtaken.
//! - A call ends at its budget at the latest, but for large payloads: the budget counts from when
//!   the request has arrived until the answer begins, and a transfer is given up when it stalls for
//!   [`crate::limits::TRANSFER_STALL`].
//! - [`CallError::is_certain`] says that the peer did certainly not execute it.

pub mod memory;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::tasks::BoxFuture;
use crate::types::{Generation, Instant, NodeId};

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The lane is full; nothing was sent. Reads try the next replica, writes are shed.
    #[error("peer is busy")]
    Busy,
    /// No connection and no way to make one within the budget; nothing was sent.
    #[error("peer is not reachable: {0}")]
    Unreachable(String),
    /// Sent, and not answered within the budget: it may have been executed.
    #[error("peer did not answer in time")]
    TimedOut,
    /// Sent, and the connection was lost before the answer: it may have been executed.
    #[error("connection to peer was lost")]
    Lost,
    /// The peer refused the connection for good, with its reason (another secret, another cluster).
    #[error("peer refused: {0}")]
    Refused(String),
    /// The payload is larger than any peer accepts; nothing was sent.
    #[error("message is too large")]
    TooLarge,
}

impl CallError {
    /// Whether the call was certainly not executed by the peer.
    pub const fn is_certain(&self) -> bool {
        match self {
            Self::Busy | Self::Unreachable(_) | Self::Refused(_) | Self::TooLarge => true,
            Self::TimedOut | Self::Lost => false,
        }
    }
}

/// The answer of a call.
pub type Answer = Result<Bytes, CallError>;

/// A started call: await it for the answer. Dropping it gives the answer up, not the call.
#[derive(Debug)]
pub struct Call(oneshot::Receiver<Answer>);

impl Call {
    /// A call that `receiver` will answer; a dropped sender reads as [`CallError::Lost`].
    pub const fn new(receiver: oneshot::Receiver<Answer>) -> Self {
        Self(receiver)
    }

    /// A call that is answered already.
    pub fn ready(answer: Answer) -> Self {
        let (sender, receiver) = oneshot::channel();
        let _receiver_is_held_below = sender.send(answer);
        Self(receiver)
    }
}

impl Future for Call {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.0).poll(context).map(|got| got.unwrap_or(Err(CallError::Lost)))
    }
}

/// A stream of messages to and from one peer, on a connection of its own: fills and repair.
///
/// Both directions are bounded; a message is at most [`crate::limits::BULK_MESSAGE_MAX`].
/// Dropping the sender ends the stream in order; `None` from the receiver is its end, and an error
/// says that it was cut off.
#[derive(Debug)]
pub struct BulkStream {
    /// Messages to the peer.
    pub outgoing: mpsc::Sender<BulkMessage>,
    /// Messages from the peer.
    pub incoming: mpsc::Receiver<Answer>,
}

/// A message on its way into a bulk stream.
#[derive(Clone, Debug)]
pub struct BulkMessage {
    /// When its sender read what it says. A node that stood still since then sends it all the same,
    /// and its peer cuts off a stream whose message is [`crate::limits::BULK_STALE`] old.
    pub read_at: Instant,
    /// At most [`crate::limits::BULK_MESSAGE_MAX`].
    pub bytes: Bytes,
}

/// Who called: proved by its certificate where there is a secret, by its word otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The peer's node id.
    pub node: NodeId,
    /// The number of its present start.
    pub generation: Generation,
}

/// Where the transport finds a node: the member table, as a port.
pub trait Directory: Send + Sync + 'static {
    /// The peer address of a member; `None` if it is not known or is dead.
    fn locate(&self, node: NodeId) -> Option<SocketAddr>;
}

/// Calls peers. One per shard thread: lanes belong to the thread that dials them.
pub trait Peers: Send + Sync + 'static {
    /// Starts a call. It is enqueued before this returns.
    fn call(&self, to: NodeId, request: Bytes, budget: Duration) -> Call;

    /// Calls whoever answers at a peer address: how a seed is asked, whose node id is not known.
    fn call_address(
        &self,
        to: SocketAddr,
        request: Bytes,
        budget: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>>;

    /// Opens a bulk stream.
    fn open_bulk(
        &self,
        to: NodeId,
        budget: Duration,
    ) -> BoxFuture<'static, Result<BulkStream, CallError>>;
}

/// How a request is answered.
pub enum Served {
    /// At once.
    Now(Bytes),
    /// When the future is done; later requests of the lane do not wait for it.
    Later(BoxFuture<'static, Bytes>),
}

/// Answers peers. Called on the thread that the lane was handed to; must not block.
pub trait Serve: Send + Sync + 'static {
    /// Answers one request. `request` lives in the lane's buffer; `budget` is what is left of the
    /// caller's patience.
    fn serve(&self, from: Caller, request: &[u8], budget: Duration) -> Served;

    /// Called before requests are answered that arrived together.
    fn wake(&self, _now: Instant) {}

    /// Takes over a bulk stream that a peer opened.
    fn serve_bulk(&self, from: Caller, stream: BulkStream);
}
