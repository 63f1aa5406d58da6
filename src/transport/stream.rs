//! Reading and writing whole messages on a QUIC stream.
//!
//! A length that a peer declares reserves nothing: memory grows with the bytes that came.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::{Bytes, BytesMut};
use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream, WriteError};
use thiserror::Error;

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

/// Reads exactly `length` bytes.
pub(super) async fn read_payload(recv: &mut RecvStream, length: usize) -> Result<Bytes, ReadError> {
    let mut payload = BytesMut::new();
    loop {
        let missing = length.saturating_sub(payload.len());
        if missing == 0 {
            return Ok(payload.freeze());
        }
        let chunk = recv.read_chunk(missing.min(CHUNK), true).await?.ok_or(ReadError::CutOff)?;
        if chunk.bytes.len() == length {
            return Ok(chunk.bytes);
        }
        payload.extend_from_slice(&chunk.bytes);
    }
}

/// Reads a frame that has a stream of its own.
pub(super) async fn read_frame(
    recv: &mut RecvStream,
    payload_max: usize,
) -> Result<(FrameHeader, Bytes), ReadError> {
    let mut bytes = [0; HEADER_LEN];
    recv.read_exact(&mut bytes).await?;
    let header = FrameHeader::decode(&bytes, payload_max)?.ok_or(ReadError::CutOff)?;
    let payload = read_payload(recv, header.payload_len).await?;
    Ok((header, payload))
}

/// Writes a frame on a stream of its own, and ends the stream.
pub(super) async fn write_frame(
    send: &mut SendStream,
    header: FrameHeader,
    payload: Bytes,
) -> Result<(), ReadError> {
    let mut head = BytesMut::with_capacity(HEADER_LEN);
    header.encode(&mut head);
    send.write_all_chunks(&mut [head.freeze(), payload]).await?;
    let _already_ended = send.finish();
    Ok(())
}
