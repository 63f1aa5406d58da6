//! The one encoding of a record, used by replication, fills and repair.
//!
//! ```text
//! kind u8 | version 12 | [expiry u64, kinds with one] | key length u32 | key | [value length u32 | value]
//! ```
//! Little-endian throughout. Kinds: 1 string, 2 string with an expiry, 3 tombstone.

use bytes::BufMut;
use thiserror::Error;

use crate::types::{BodyRef, RecordRef, Version, WallMillis};

const STRING: u8 = 1;
const STRING_EXPIRING: u8 = 2;
const TOMBSTONE: u8 = 3;

/// Why bytes were not understood. Nothing was applied from the damaged place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("message ends early")]
    Truncated,
    /// A kind that this version does not know.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// A field holds a value outside its range.
    #[error("field out of range")]
    Range,
}

/// Appends a record.
pub fn put_record(out: &mut Vec<u8>, record: RecordRef<'_>) {
    let kind = match (record.body, record.expires_at) {
        (BodyRef::Tombstone, _) => TOMBSTONE,
        (BodyRef::String(_), None) => STRING,
        (BodyRef::String(_), Some(_)) => STRING_EXPIRING,
    };
    out.put_u8(kind);
    out.put_slice(&record.version.to_bytes());
    if let (BodyRef::String(_), Some(at)) = (record.body, record.expires_at) {
        out.put_u64_le(at.0);
    }
    put_bytes(out, record.key);
    if let BodyRef::String(value) = record.body {
        put_bytes(out, value);
    }
}

/// Appends a length and bytes. Lengths above `u32::MAX` cannot be: values are bounded far below.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and values are bounded below 4 GiB");
    out.put_u32_le(length);
    out.put_slice(bytes);
}

/// Reads fields off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A version.
    pub fn version(&mut self) -> Result<Version, DecodeError> {
        self.array().map(Version::from_bytes)
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| DecodeError::Range)?)
    }

    /// A record.
    pub fn record(&mut self) -> Result<RecordRef<'a>, DecodeError> {
        let kind = self.u8()?;
        let version = self.version()?;
        let expires_at = match kind {
            STRING_EXPIRING => Some(WallMillis(self.u64()?)),
            STRING | TOMBSTONE => None,
            other => return Err(DecodeError::Kind(other)),
        };
        let key = self.bytes()?;
        if key.first().is_none_or(|db| *db >= crate::types::Db::COUNT) {
            return Err(DecodeError::Range);
        }
        let body = match kind {
            TOMBSTONE => BodyRef::Tombstone,
            _ => BodyRef::String(self.bytes()?),
        };
        Ok(RecordRef { key, version, expires_at, body })
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_went(
            key in proptest::collection::vec(any::<u8>(), 0..50),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            expires in proptest::option::of(any::<u64>()),
            (term, clock, origin) in (any::<u16>(), 0u64..1 << 48, any::<u32>()),
        ) {
            let mut stored = vec![3];
            stored.extend_from_slice(&key);
            let body = value.as_deref().map_or(BodyRef::Tombstone, BodyRef::String);
            let expires_at = value.as_ref().and(expires).map(WallMillis);
            let record =
                RecordRef { key: &stored, version: Version { term, clock, origin }, expires_at, body };
            let mut bytes = Vec::new();
            put_record(&mut bytes, record);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.record().unwrap(), record);
            prop_assert!(reader.is_empty());
            for cut in 0..bytes.len() {
                prop_assert!(Reader::new(&bytes[..cut]).record().is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new(&bytes);
            while reader.record().is_ok() {}
        }
    }

    #[test]
    fn the_bytes_of_version_one_stay_as_they_are() {
        let mut bytes = Vec::new();
        put_record(
            &mut bytes,
            RecordRef {
                key: b"\x01k",
                version: Version { term: 2, clock: 0x0605_0403_0201, origin: 7 },
                expires_at: Some(WallMillis(9)),
                body: BodyRef::String(b"v"),
            },
        );
        assert_eq!(
            bytes,
            b"\x02\x02\x00\x01\x02\x03\x04\x05\x06\x07\x00\x00\x00\x09\0\0\0\0\0\0\0\x02\0\0\0\x01k\x01\0\0\0v"
        );
    }
}
