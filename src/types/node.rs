//! Who a node is: its id, name, generation, zone and weight.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// The longest node, cluster or zone name, in bytes: names appear in DNS labels of certificates.
pub const NAME_MAX: usize = 63;

/// A node's identity for life: 128 random bits made at its first start and kept on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u128);

impl NodeId {
    /// The id as Redis Cluster clients see it: 40 hex digits, a function of the id alone.
    pub fn to_redis_hex(self) -> String {
        let check = xxh3_64(&self.0.to_le_bytes()) & 0xffff_ffff;
        format!("{:032x}{check:08x}", self.0)
    }

    /// The 32 bits that stand for this node in versions and terms.
    pub fn tag(self) -> u32 {
        let [a, b, c, d, ..] = xxh3_64(&self.0.to_le_bytes()).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = NameError;

    /// Reads the 32 hex digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() != 32 {
            return Err(NameError::NotAnId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NameError::NotAnId)
    }
}

/// Why a name was refused. Nothing changed; choose another name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The name is longer than [`NAME_MAX`] bytes.
    #[error("a name has at most {NAME_MAX} characters")]
    TooLong,
    /// A character is not a letter, digit, hyphen, underscore or dot.
    #[error("a name holds letters, digits, `-`, `_` and `.` only, not {0:?}")]
    Character(char),
    /// Not the 32 hex digits of a node id.
    #[error("a node id is 32 hex digits")]
    NotAnId,
}

fn checked_name(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.chars().find(|c| !allowed(*c)) {
        Some(wrong) => Err(NameError::Character(wrong)),
        None => Ok(Arc::from(text)),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                checked_name(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type! {
    /// A node's name for people; unique among the members of a cluster.
    NodeName
}
name_type! {
    /// The name of a cluster: bound into its keys and certificates.
    ClusterName
}
name_type! {
    /// The name of a failure domain.
    Zone
}

impl Zone {
    /// The 32 bits of the name that travel in the gossiped identity.
    pub fn tag(&self) -> u32 {
        let [a, b, c, d, ..] = xxh3_64(self.0.as_bytes()).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// The number of a node's start: larger at every restart, persisted before the first packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

/// A node's share of the slots relative to the others: 1 to 100, normally 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(u8);

impl TryFrom<u8> for Weight {
    type Error = &'static str;

    fn try_from(weight: u8) -> Result<Self, &'static str> {
        Self::new(weight).ok_or("a weight is 1 to 100")
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl Weight {
    /// The weight of a node that was given none.
    pub const DEFAULT: Self = Self(1);

    /// A weight of 1 to 100; anything else is `None`.
    pub const fn new(weight: u8) -> Option<Self> {
        if weight >= 1 && weight <= 100 { Some(Self(weight)) } else { None }
    }

    /// The weight as a number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}
