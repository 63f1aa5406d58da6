//! Reading and writing whole messages on a QUIC stream.
//!
//! A length that a peer declares reserves nothing: memory grows with the bytes that came. What is
//! longer than a lane's frame takes its time, so that no budget bounds it, but its progress: when
//! no byte moves for [`TRANSFER_STALL`] it is given up.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream, WriteError};
use thiserror::Error;
use tokio::time::timeout;

use crate::limits::{CALL_PAYLOAD_MAX, TRANSFER_STALL};
use crate::peers::CallError;
use crate::wire::frame::{FrameError, FrameHeader, HEADER_LEN};
use crate::wire::hello::{self, Refusal};

/// The most that is read from a stream at a time.
const CHUNK: usize = 64 * 1024;

/// Why a message could not be read or written whole.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// The connection is gone.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The peer ended or reset the stream within a message.
    #[error("stream was cut off")]
    CutOff,
    /// No byte moved for [`TRANSFER_STALL`].
    #[error("transfer stalled")]
    Stalled,
    /// The request was written long ago: its sender or this node stood still since.
    #[error("request is stale")]
    Stale,
    /// The peer sent what is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent what is no hello.
    #[error(transparent)]
    Hello(#[from] Refusal),
}

impl From<quinn::ReadError> for ReadError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::CutOff,
        }
    }
}

impl From<ReadExactError> for ReadError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::ReadError(error) => error.into(),
            ReadExactError::FinishedEarly(_) => Self::CutOff,
        }
    }
}

impl From<WriteError> for ReadError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::CutOff,
        }
    }
}

/// Writes all of `bytes`.
pub(super) async fn write(send: &mut SendStream, bytes: Bytes) -> Result<(), ReadError> {
    Ok(send.write_chunk(bytes).await?)
}

/// Reads one hello or acknowledgement, without its length.
pub(super) async fn read_hello(recv: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut length = [0; hello::LENGTH_LEN];
    recv.read_exact(&mut length).await?;
    let mut bytes = vec![0; hello::decode_length(length)?];
    recv.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads exactly `length` bytes, however long it takes as long as they come.
pub(super) async fn read_payload(recv: &mut RecvStream, length: usize) -> Result<Bytes, ReadError> {
    let mut payload = BytesMut::new();
    loop {
        let missing = length.saturating_sub(payload.len());
        if missing == 0 {
            return Ok(payload.freeze());
        }
        let chunk = timeout(TRANSFER_STALL, recv.read_chunk(missing.min(CHUNK), true));
        let chunk = chunk.await.map_err(|_| ReadError::Stalled)??.ok_or(ReadError::CutOff)?;
        if chunk.bytes.len() == length {
            return Ok(chunk.bytes);
        }
        payload.extend_from_slice(&chunk.bytes);
    }
}

/// Reads the header of a frame that has a stream of its own.
pub(super) async fn read_header(recv: &mut RecvStream) -> Result<FrameHeader, ReadError> {
    let mut bytes = [0; HEADER_LEN];
    recv.read_exact(&mut bytes).await?;
    FrameHeader::decode(&bytes, CALL_PAYLOAD_MAX)?.ok_or(ReadError::CutOff)
}

/// Writes a frame on a stream of its own, and ends the stream.
pub(super) async fn write_frame(
    send: &mut SendStream,
    header: FrameHeader,
    payload: Bytes,
) -> Result<(), ReadError> {
    let mut head = BytesMut::with_capacity(HEADER_LEN);
    header.encode(&mut head);
    let mut chunks = [head.freeze(), payload];
    let mut left = &mut chunks[..];
    while !left.iter().all(Bytes::is_empty) {
        let written = timeout(TRANSFER_STALL, send.write_chunks(left));
        let whole = written.await.map_err(|_| ReadError::Stalled)??.chunks;
        left = left.get_mut(whole..).unwrap_or_default();
    }
    let _already_ended = send.finish();
    Ok(())
}

/// One call on a stream of its own. `budget` is the time for its answer to begin once the request
/// is there, `sent` this node's clock as frames carry it.
pub(super) async fn exchange(
    (send, recv): (&mut SendStream, &mut RecvStream),
    (budget, sent): (Duration, u32),
    request: Bytes,
) -> Result<Bytes, CallError> {
    let header = FrameHeader::request(0, budget, sent, request.len());
    write_frame(send, header, request).await?;
    // Written is not arrived: up to a window is on its way yet.
    let late = async {
        let _arrived_or_lost = timeout(TRANSFER_STALL, send.stopped()).await;
        tokio::time::sleep(budget).await;
    };
    let header = tokio::select! {
        biased;
        header = read_header(recv) => header?,
        () = late => return Err(CallError::TimedOut),
    };
    Ok(read_payload(recv, header.payload_len).await?)
}

/// How a call on a stream of its own fails whose request may have arrived.
impl From<ReadError> for CallError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stalled => Self::TimedOut,
            _ => Self::Lost,
        }
    }
}
