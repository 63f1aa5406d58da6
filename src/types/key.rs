//! Keys as the store knows them: the database number is part of the key.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// A database number, 0 to 15.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Db(u8);

impl Db {
    /// How many databases there are.
    pub const COUNT: u8 = 16;

    /// The database of this number; `None` at 16 and above.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Every database.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

/// An owned key: the database's byte, then the bytes the client gave.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The key `name` in database `db`.
    pub fn new(db: Db, name: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(name.len() + 1);
        bytes.put_u8(db.get());
        bytes.put_slice(name);
        Self(bytes.freeze())
    }

    /// Reads a key from its stored bytes; `None` if they are empty or name no database.
    pub fn from_stored(bytes: Bytes) -> Option<Self> {
        Db::new(*bytes.first()?)?;
        Some(Self(bytes))
    }

    /// The database.
    pub fn db(&self) -> Db {
        self.0.first().copied().and_then(Db::new).unwrap_or_default()
    }

    /// The bytes the client gave.
    pub fn name(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }

    /// The stored bytes: database byte and name.
    pub fn stored(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {} bytes)", self.db().get(), self.name().len())
    }
}
