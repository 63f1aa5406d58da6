//! What comes from a paused past is not taken in.
//!
//! Each request, and each message of a bulk stream, says when it was written, on its sender's own clock. The shortest way
//! that one of the connection took lately, clocks' difference included, is what a fresh one takes; one
//! that took far longer lay somewhere while its sender or this node stood still. The measure is
//! renewed every minute, because clocks drift.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::types::Instant;

/// How often the measure is renewed.
const RENEWED_EVERY: Duration = Duration::from_mins(1);

/// What took so much longer than the shortest way has lain somewhere.
const LAIN: Duration = Duration::from_millis(200);
/// For how long everything may seem to have lain somewhere.
const UNMEASURED: Duration = Duration::from_secs(3);

/// The milliseconds of a clock as frames carry them: they run over after seven weeks.
pub(super) fn stamp(now: Instant) -> u32 {
    (now.since_origin().as_millis() & u128::from(u32::MAX)).try_into().unwrap_or_default()
}

/// Judges what comes over one connection.
#[derive(Debug)]
pub(super) struct Freshness {
    stale: Duration,
    measure: Mutex<Option<Measure>>,
}

/// The shortest ways, as differences of clocks that run over.
#[derive(Clone, Copy, Debug)]
struct Measure {
    last_minute: u32,
    this_minute: u32,
    renewed: Instant,
    /// When something came last that had not lain anywhere.
    fresh: Instant,
}

/// How much longer one way is than another.
const fn longer(way: u32, than: u32) -> i32 {
    way.wrapping_sub(than).cast_signed()
}

fn shorter_of(one: u32, other: u32) -> u32 {
    if longer(one, other) < 0 { one } else { other }
}

impl Freshness {
    /// Takes nothing as fresh that is as old as `stale`.
    pub(super) const fn new(stale: Duration) -> Self {
        Self { stale, measure: Mutex::new(None) }
    }

    /// Whether what was written at `sent` and is read `now` is to be executed.
    pub(super) fn is_fresh(&self, now: Instant, sent: u32) -> bool {
        self.age(now, sent).is_some()
    }

    /// How long what was written at `sent` and is read `now` has lain somewhere. `None` if that is too
    /// long, or if all that came lately seems to have: then it is the measure that is wrong, because
    /// the sender's clock stood still.
    pub(super) fn age(&self, now: Instant, sent: u32) -> Option<Duration> {
        let way = stamp(now).wrapping_sub(sent);
        let mut known = self.measure.lock().unwrap_or_else(PoisonError::into_inner);
        let measure = known.get_or_insert(Measure {
            last_minute: way,
            this_minute: way,
            renewed: now,
            fresh: now,
        });
        let shortest = shorter_of(measure.last_minute, measure.this_minute);
        let age = Duration::from_millis(u64::try_from(longer(way, shortest)).unwrap_or(0));
        if age < LAIN {
            measure.fresh = now;
        }
        if age >= self.stale || now.saturating_since(measure.fresh) >= UNMEASURED {
            return None;
        }
        if now.saturating_since(measure.renewed) >= RENEWED_EVERY {
            measure.last_minute = std::mem::replace(&mut measure.this_minute, way);
            measure.renewed = now;
        } else {
            measure.this_minute = shorter_of(measure.this_minute, way);
        }
        Some(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REQUEST_STALE;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn what_lay_for_ten_seconds_is_refused_and_what_follows_is_not() {
        let lane = Freshness::new(REQUEST_STALE);
        for (now, sent, fresh) in [
            (1_000, 500_000, true),
            (2_000, 500_990, true),
            (4_000, 500_001, true),
            (11_000, 509_990, true),
            (14_001, 502_900, false),
            (14_002, 513_000, true),
            (90_000, 520_000, false),
            (90_001, 588_900, true),
        ] {
            assert_eq!(lane.is_fresh(at(now), sent), fresh, "{now} {sent}");
        }
    }

    /// Who sent it has given it up by then: it must not come after what was acknowledged since.
    #[test]
    fn the_age_of_a_request_is_that_beyond_the_shortest_way() {
        let lane = Freshness::new(REQUEST_STALE);
        assert_eq!(lane.age(at(1_000), 500_000), Some(Duration::ZERO));
        assert_eq!(lane.age(at(2_300), 501_000), Some(Duration::from_millis(300)));
        assert_eq!(lane.age(at(2_400), 501_410), Some(Duration::ZERO));
        assert_eq!(lane.age(at(5_399), 503_000), Some(Duration::from_millis(1_409)));
        assert_eq!(lane.age(at(5_400), 503_000), None, "nothing was fresh for three seconds");
    }

    #[test]
    fn clocks_may_drift_and_run_over() {
        let lane = Freshness::new(REQUEST_STALE);
        let start = u64::from(u32::MAX) - 100_000;
        for minute in 0..2_000u64 {
            // Fifty milliseconds a minute apart: ten times what clocks do at most.
            assert!(lane.is_fresh(at(start + minute * 60_050), stamp(at(minute * 60_000))));
        }
    }
}
