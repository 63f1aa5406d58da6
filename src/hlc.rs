//! The hybrid logical clock (Kulkarni et al., 2014): stamps that follow the wall clock and never
//! go back.
//!
//! A reading has 48 bits: 41 bits of milliseconds since 2020, which last until 2089, above 7 bits
//! that count within a millisecond and run over into the next one when it is full. Each store shard
//! has a clock of its own under its lock, so that 64 shards stamp without meeting.

use crate::types::WallMillis;

/// Bits that count within a millisecond.
const COUNTER_BITS: u32 = 7;
/// 2020-01-01T00:00:00Z.
const EPOCH_MILLIS: u64 = 1_577_836_800_000;
/// The largest reading.
const READING_MAX: u64 = (1 << 48) - 1;
/// How far past the wall clock a peer's stamp may pull this clock.
pub const DRAG_MAX_MILLIS: u64 = 500;

/// The lowest reading of a millisecond.
pub const fn reading_at(wall: WallMillis) -> u64 {
    let millis = wall.0.saturating_sub(EPOCH_MILLIS);
    if millis > READING_MAX >> COUNTER_BITS { READING_MAX } else { millis << COUNTER_BITS }
}

/// The millisecond of a reading.
pub const fn wall_of(reading: u64) -> WallMillis {
    WallMillis((reading >> COUNTER_BITS) + EPOCH_MILLIS)
}

/// A clock that gives ever larger readings.
#[derive(Clone, Debug, Default)]
pub struct Hlc {
    last: u64,
}

impl Hlc {
    /// A clock that gives only readings above `floor`, the high-water mark of an earlier life.
    pub const fn starting_above(floor: u64) -> Self {
        Self { last: floor }
    }

    /// The next reading: above every earlier one, above `above`, and not behind the wall clock.
    pub fn tick(&mut self, wall: WallMillis, above: u64) -> u64 {
        let next = self.last.max(above).saturating_add(1).max(reading_at(wall));
        self.last = next.min(READING_MAX);
        self.last
    }

    /// Takes notice of a peer's stamp, so that later readings are above it; a stamp too far past
    /// the wall clock pulls only as far as [`DRAG_MAX_MILLIS`]. Returns whether it was held back.
    pub fn observe(&mut self, wall: WallMillis, remote: u64) -> bool {
        let ceiling = reading_at(wall.saturating_add(DRAG_MAX_MILLIS));
        self.last = self.last.max(remote.min(ceiling));
        remote > ceiling
    }

    /// The last reading given or observed.
    pub const fn newest(&self) -> u64 {
        self.last
    }

    /// The last reading given or observed; at least the wall clock's.
    pub fn last(&self, wall: WallMillis) -> u64 {
        self.last.max(reading_at(wall))
    }

    /// How far the last reading is ahead of the wall clock, in milliseconds.
    pub const fn ahead_millis(&self, wall: WallMillis) -> u64 {
        wall_of(self.last).saturating_since(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn readings_only_grow(walls in proptest::collection::vec(0u64..1 << 41, 1..100)) {
            let mut clock = Hlc::default();
            let mut last = 0;
            for wall in walls {
                let reading = clock.tick(WallMillis(wall), 0);
                prop_assert!(reading > last);
                prop_assert!(reading >= reading_at(WallMillis(wall)));
                last = reading;
            }
        }
    }

    #[test]
    fn a_peer_far_ahead_pulls_the_clock_only_a_little() {
        let wall = WallMillis(EPOCH_MILLIS + 1_000_000);
        let mut clock = Hlc::default();
        assert!(clock.observe(wall, reading_at(wall.saturating_add(60_000))));
        assert_eq!(clock.ahead_millis(wall), DRAG_MAX_MILLIS);
        assert!(!clock.observe(wall, reading_at(wall.saturating_add(100))));
    }

    #[test]
    fn a_reading_names_its_millisecond() {
        let wall = WallMillis(1_795_000_000_123);
        assert_eq!(wall_of(reading_at(wall)), wall);
    }
}
