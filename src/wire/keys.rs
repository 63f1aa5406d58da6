//! The key ring of gossip as it travels between members, over mutual TLS only.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The bytes of a key; wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBytes(pub [u8; 32]);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(…)")
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A key ring, one versioned record of the cluster: last writer wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRingRecord {
    /// Order among changes: the higher wins. 0 is the ring that the secret gives.
    pub revision: u64,
    /// Tag of the node that made this revision; settles equal revisions.
    pub origin: u32,
    /// The key that seals.
    pub primary: u8,
    /// The keys that open, by their ids.
    pub keys: Vec<(u8, KeyBytes)>,
}

impl KeyRingRecord {
    /// What orders rings.
    pub const fn order(&self) -> (u64, u32) {
        (self.revision, self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let keys = vec![(3, KeyBytes([0xab; 32]))];
        let text = format!("{:?}", KeyRingRecord { revision: 1, origin: 2, primary: 3, keys });
        assert!(text.contains("KeyBytes(…)") && !text.contains("171"), "{text}");
    }
}
