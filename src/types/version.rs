//! Versions order the writes of a key; terms order the holders of a slot's acting bit.

use serde::{Deserialize, Serialize};

/// The term of an acting bit: every taking of the bit is a new, higher term.
///
/// Ordered by counter, then by the holder's tag (`NodeId::tag`). The counter has 16 bits: it grows
/// by one for each hand-over of one slot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term {
    /// How often the slot's acting bit was taken.
    pub counter: u16,
    /// The tag of the node that took it.
    pub holder: u32,
}

impl Term {
    /// The next term above this one, taken by `holder`.
    #[must_use]
    pub const fn next(self, holder: u32) -> Self {
        Self { counter: self.counter.saturating_add(1), holder }
    }
}

/// The order of writes: term counter, then hybrid clock, then origin. Twelve bytes.
///
/// The clock is that of `hlc`: milliseconds since 2020 and a counter within the millisecond.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    /// Counter of the term under which the write was stamped.
    pub term: u16,
    /// Hybrid clock: 48 bits.
    pub clock: u64,
    /// Tag of the node that stamped it.
    pub origin: u32,
}

impl Version {
    /// The lowest version: below every stamped one.
    pub const ZERO: Self = Self { term: 0, clock: 0, origin: 0 };
    /// At or above every stamped one.
    pub const MAX: Self = Self { term: u16::MAX, clock: (1 << 48) - 1, origin: u32::MAX };
    /// The bytes of an encoded version.
    pub const BYTES: usize = 12;

    /// The fixed encoding: term, six bytes of clock, origin; all little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&self.term.to_le_bytes());
        bytes[2..8].copy_from_slice(&self.clock.to_le_bytes()[..6]);
        bytes[8..].copy_from_slice(&self.origin.to_le_bytes());
        bytes
    }

    /// Reads what [`Version::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [t0, t1, c0, c1, c2, c3, c4, c5, o0, o1, o2, o3] = bytes;
        Self {
            term: u16::from_le_bytes([t0, t1]),
            clock: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, 0, 0]),
            origin: u32::from_le_bytes([o0, o1, o2, o3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_survives_its_encoding() {
        let version = Version { term: 7, clock: 0x1234_5678_9abc, origin: 9 };
        assert_eq!(Version::from_bytes(version.to_bytes()), version);
    }

    #[test]
    fn a_higher_term_wins_over_a_later_clock() {
        let late = Version { term: 1, clock: 100, origin: 1 };
        let high = Version { term: 2, clock: 1, origin: 0 };
        assert!(high > late);
    }
}
