//! Bulk streams: messages both ways on a connection of their own.
//!
//! Each message is a u32 LE length, the u32 LE milliseconds of its sender's clock when what it says was
//! read, and its bytes. A side that has no more to say ends its half in
//! order; a connection that is lost, or a half that is reset, cuts off, and the receiver can tell
//! one from the other. Both directions are bounded by their channels and QUIC's windows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Context;
use super::accept::LINGER;
use super::connections::{Direction, Registered};
use super::endpoint::{Dialer, Target, close};
use super::freshness::{Freshness, stamp};
use super::stream::{self, ReadError};
use crate::limits::{BULK_MESSAGE_MAX, BULK_QUEUE_MAX, BULK_STALE};
use crate::peers::{Answer, BulkMessage, BulkStream, CallError};
use crate::tasks::BoxFuture;
use crate::types::NodeId;
use crate::wire::hello::Purpose;

/// Says that a half of a stream is given up.
const GIVEN_UP: VarInt = VarInt::from_u32(1);

/// Bytes of a message's length and clock.
const HEAD_LEN: usize = 8;

/// Opens a bulk stream to a node.
pub(super) async fn open(
    context: Arc<Context>,
    dialer: Arc<Dialer>,
    to: NodeId,
    budget: Duration,
) -> Result<BulkStream, CallError> {
    let unknown = || CallError::Unreachable("address is not known".to_owned());
    let address = context.directory.locate(to).ok_or_else(unknown)?;
    let dialled = dialer.dial(address, Target::Node(to), Purpose::Bulk, budget).await?;
    let halves = (dialled.send, dialled.recv);
    let (stream, pump) = pump(&context, dialled.registered, halves, Direction::Out);
    context.tasks.spawn("bulk stream", pump);
    Ok(stream)
}

/// The channels of a bulk stream, and the future that carries their messages.
pub(super) fn pump(
    context: &Arc<Context>,
    registered: Registered,
    (send, recv): (SendStream, RecvStream),
    direction: Direction,
) -> (BulkStream, BoxFuture<'static, ()>) {
    let (outgoing, source) = mpsc::channel(BULK_QUEUE_MAX);
    let (sink, incoming) = mpsc::channel(BULK_QUEUE_MAX);
    let context = Arc::clone(context);
    let pump = async move {
        let connection = registered.connection();
        tokio::join!(send_all(connection, send, source), receive_all(&context, recv, sink));
        // What this side sent has arrived, and what the other sent was read: the dialler closes.
        if direction == Direction::In {
            let _closed_or_late = timeout(LINGER, connection.closed()).await;
        }
        connection.close(close::DONE, b"");
    };
    (BulkStream { outgoing, incoming }, Box::pin(pump))
}

/// Sends what comes until the sender is dropped, then ends the half and waits until all arrived.
async fn send_all(
    connection: &Connection,
    mut send: SendStream,
    mut source: mpsc::Receiver<BulkMessage>,
) {
    let stopped = send.stopped();
    tokio::pin!(stopped);
    loop {
        let message = tokio::select! {
            biased;
            _ = connection.closed() => return,
            _ = &mut stopped => return,
            message = source.recv() => message,
        };
        let Some(message) = message else { break };
        let BulkMessage { read_at, bytes } = message;
        if bytes.len() > BULK_MESSAGE_MAX {
            tracing::error!(bytes = bytes.len(), "BUG: bulk message is too large");
            let _already_closed = send.reset(GIVEN_UP);
            return;
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let head = [length, stamp(read_at).to_le_bytes()].concat();
        if send.write_all_chunks(&mut [head.into(), bytes]).await.is_err() {
            return;
        }
    }
    if send.finish().is_ok() {
        let _arrived_or_cut_off = stopped.await;
    }
}

/// Hands on what arrives until the peer ends its half, or is cut off: by itself, or here for a
/// message from a paused past.
async fn receive_all(context: &Context, mut recv: RecvStream, sink: mpsc::Sender<Answer>) {
    let freshness = Freshness::new(BULK_STALE);
    loop {
        let message = tokio::select! {
            biased;
            () = sink.closed() => {
                let _already_closed = recv.stop(GIVEN_UP);
                return;
            }
            message = read_message(&mut recv) => message,
        };
        let message = match message {
            Ok(Some((sent, _))) if !freshness.is_fresh(context.clock.now(), sent) => {
                context.metrics.stale.increment(1);
                let _already_closed = recv.stop(GIVEN_UP);
                Err(CallError::Lost)
            }
            Ok(Some((_, message))) => Ok(message),
            Ok(None) => return,
            Err(_) => Err(CallError::Lost),
        };
        let last = message.is_err();
        let _noticed_above = sink.send(message).await;
        if last {
            return;
        }
    }
}

/// The next message with its sender's clock; `None` at the end of the half.
async fn read_message(recv: &mut RecvStream) -> Result<Option<(u32, Bytes)>, ReadError> {
    let mut head = [0; HEAD_LEN];
    match recv.read_exact(&mut head).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let [a, b, c, d, sent @ ..] = head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > BULK_MESSAGE_MAX {
        return Err(ReadError::CutOff);
    }
    let message = stream::read_payload(recv, length).await?;
    Ok(Some((u32::from_le_bytes(sent), message)))
}
