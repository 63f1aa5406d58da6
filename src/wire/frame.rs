//! The frames of a lane: a fixed header, then opaque bytes.
//!
//! ```text
//!  0        4                12     13            17           21
//!  ├─ len ──┼──── id ────────┼ kind ┼── budget ───┼─── sent ────┼─ payload …
//!    u32 LE      u64 LE         u8       u32 LE, ms    u32 LE, ms
//! ```
//!
//! `len` counts what follows it. `id` is the caller's and comes back with the answer; answers come
//! in any order. `budget` is what was left of the caller's patience when the frame was written, `sent`
//! its monotonic clock then, which runs over; both are 0 in an answer. The same header stands before a payload that has a stream of its own.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// Bytes of the header, its length field included.
pub const HEADER_LEN: usize = 21;

/// Bytes of the length field, which does not count itself.
const LENGTH_LEN: usize = 4;

/// Bytes of the header that the length field counts.
const COUNTED_LEN: usize = HEADER_LEN - LENGTH_LEN;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Asks to be answered under its id within its budget.
    Request,
    /// Answers the request of the same id.
    Answer,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The caller's number of the request.
    pub id: u64,
    /// Request or answer.
    pub kind: FrameKind,
    /// What is left of the caller's patience, in whole milliseconds.
    pub budget: Duration,
    /// The caller's monotonic clock, in milliseconds modulo 2³².
    pub sent: u32,
    /// Bytes of payload that follow.
    pub payload_len: usize,
}

/// Why bytes are no frame. The stream cannot be understood any further; close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is below that of a header.
    #[error("frame of {0} bytes is shorter than its header")]
    Short(u32),
    /// The payload is longer than what may travel here.
    #[error("frame of {length} bytes where {limit} are allowed")]
    Long {
        /// The length that the frame declares.
        length: u32,
        /// The largest payload here.
        limit: usize,
    },
    /// A kind that this version does not know.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
}

impl FrameHeader {
    /// The header of a request; `budget` is rounded up to whole milliseconds.
    pub fn request(id: u64, budget: Duration, sent: u32, payload_len: usize) -> Self {
        let millis = budget.as_nanos().div_ceil(1_000_000);
        let budget = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        Self { id, kind: FrameKind::Request, budget, sent, payload_len }
    }

    /// The header of an answer.
    pub const fn answer(id: u64, payload_len: usize) -> Self {
        Self { id, kind: FrameKind::Answer, budget: Duration::ZERO, sent: 0, payload_len }
    }

    /// Appends the header. The payload must be at most 4 GiB less a header, which every limit of
    /// payloads ensures.
    pub fn encode(&self, out: &mut BytesMut) {
        let length = u32::try_from(self.payload_len.saturating_add(COUNTED_LEN));
        out.put_u32_le(length.unwrap_or(u32::MAX));
        out.put_u64_le(self.id);
        out.put_u8(match self.kind {
            FrameKind::Request => 0,
            FrameKind::Answer => 1,
        });
        out.put_u32_le(u32::try_from(self.budget.as_millis()).unwrap_or(u32::MAX));
        out.put_u32_le(self.sent);
    }

    /// Reads a header at the start of `bytes`; `None` while it is not all there.
    ///
    /// A length beyond `payload_max` is an error as soon as the length field is there.
    pub fn decode(bytes: &[u8], payload_max: usize) -> Result<Option<Self>, FrameError> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        let payload_len = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_sub(COUNTED_LEN))
            .ok_or(FrameError::Short(length))?;
        if payload_len > payload_max {
            return Err(FrameError::Long { length, limit: payload_max });
        }
        let Some((id, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        let Some((kind, rest)) = rest.split_first() else { return Ok(None) };
        let Some((budget, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some((sent, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let kind = match kind {
            0 => FrameKind::Request,
            1 => FrameKind::Answer,
            other => return Err(FrameError::Kind(*other)),
        };
        let budget = Duration::from_millis(u64::from(u32::from_le_bytes(*budget)));
        let (id, sent) = (u64::from_le_bytes(*id), u32::from_le_bytes(*sent));
        Ok(Some(Self { id, kind, budget, sent, payload_len }))
    }

    /// Bytes of the whole frame.
    pub const fn frame_len(&self) -> usize {
        self.payload_len.saturating_add(HEADER_LEN)
    }
}

/// Appends a whole frame.
pub fn encode_frame(header: FrameHeader, payload: &[u8], out: &mut BytesMut) {
    out.reserve(header.frame_len());
    header.encode(out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_frame_stay_as_they_are() {
        let mut out = BytesMut::new();
        let header = FrameHeader::request(0x0102_0304, Duration::from_micros(249_100), 0x0506, 3);
        encode_frame(header, b"dee", &mut out);
        assert_eq!(
            out.as_ref(),
            [20, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 250, 0, 0, 0, 6, 5, 0, 0, b'd', b'e', b'e']
        );
    }

    #[test]
    fn lengths_are_judged_before_the_rest_is_there() {
        let long = 100u32.to_le_bytes();
        assert_eq!(
            FrameHeader::decode(&long, 82),
            Err(FrameError::Long { length: 100, limit: 82 })
        );
        assert_eq!(FrameHeader::decode(&long, 83), Ok(None));
        assert_eq!(FrameHeader::decode(&[16, 0, 0, 0], 100), Err(FrameError::Short(16)));
        let mut out = BytesMut::new();
        FrameHeader::answer(1, 0).encode(&mut out);
        out[12] = 9;
        assert_eq!(FrameHeader::decode(&out, 0), Err(FrameError::Kind(9)));
    }

    proptest! {
        #[test]
        fn a_header_survives_its_encoding(
            id: u64, request: bool, millis: u32, sent: u32, payload_len in 0usize..1_000_000
        ) {
            let header = if request {
                FrameHeader::request(id, Duration::from_millis(millis.into()), sent, payload_len)
            } else {
                FrameHeader::answer(id, payload_len)
            };
            let mut out = BytesMut::new();
            header.encode(&mut out);
            prop_assert_eq!(out.len(), HEADER_LEN);
            prop_assert_eq!(FrameHeader::decode(&out, 1_000_000), Ok(Some(header)));
            for cut in 0..HEADER_LEN {
                prop_assert_eq!(FrameHeader::decode(&out[..cut], 1_000_000), Ok(None));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _any_outcome = FrameHeader::decode(&bytes, 1000);
        }
    }
}
