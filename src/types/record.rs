//! Records: entries as they travel between nodes and into snapshots.

use bytes::Bytes;

use super::{Key, Version, WallMillis};

/// What a record says of its key, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRef<'a> {
    /// The key has this string value.
    String(&'a [u8]),
    /// The key was deleted.
    Tombstone,
}

/// What a record says of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The key has this string value.
    String(Bytes),
    /// The key was deleted.
    Tombstone,
}

impl Body {
    /// The same, borrowed.
    pub fn as_ref(&self) -> BodyRef<'_> {
        match self {
            Self::String(value) => BodyRef::String(value),
            Self::Tombstone => BodyRef::Tombstone,
        }
    }
}

/// A record, borrowed: the stored key (database byte first), its version, expiry and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The stored key: database byte and name.
    pub key: &'a [u8],
    /// Order among the writes of this key.
    pub version: Version,
    /// When the value stops being served; `None` for never.
    pub expires_at: Option<WallMillis>,
    /// The value, or that there is none any more.
    pub body: BodyRef<'a>,
}

impl RecordRef<'_> {
    /// An owned copy; `None` if the stored key names no database.
    pub fn to_record(self) -> Option<Record> {
        Some(Record {
            key: Key::from_stored(Bytes::copy_from_slice(self.key))?,
            version: self.version,
            expires_at: self.expires_at,
            body: match self.body {
                BodyRef::String(value) => Body::String(Bytes::copy_from_slice(value)),
                BodyRef::Tombstone => Body::Tombstone,
            },
        })
    }
}

/// A record: key, version, expiry and value or tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key with its database.
    pub key: Key,
    /// Order among the writes of this key.
    pub version: Version,
    /// When the value stops being served; `None` for never.
    pub expires_at: Option<WallMillis>,
    /// The value, or that there is none any more.
    pub body: Body,
}

impl Record {
    /// The same, borrowed.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            key: self.key.stored(),
            version: self.version,
            expires_at: self.expires_at,
            body: self.body.as_ref(),
        }
    }
}
