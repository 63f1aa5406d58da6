//! How late a timer runs: what a starved machine shows first.
//!
//! The worst of the last half minute is kept, so that a scrape every ten seconds misses nothing, as
//! two windows of which the older is forgotten when the younger is full.

use std::time::Duration;

use crate::types::Instant;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(15);

/// What a timer that ought to ring every so often has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    every: Duration,
    last: Instant,
    began: Instant,
    worst: Duration,
    worst_before: Duration,
}

impl Lateness {
    /// A timer that is set for `every` from `now` on.
    pub(super) const fn new(every: Duration, now: Instant) -> Self {
        let none = Duration::ZERO;
        Self { every, last: now, began: now, worst: none, worst_before: none }
    }

    /// It rang; gives how late it was at worst lately.
    pub(super) fn note(&mut self, now: Instant) -> Duration {
        if now.saturating_since(self.began) >= WINDOW {
            (self.began, self.worst_before) = (now, self.worst);
            self.worst = Duration::ZERO;
        }
        let late = now.saturating_since(self.last).saturating_sub(self.every);
        self.last = now;
        self.worst = self.worst.max(late);
        self.worst.max(self.worst_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_kept_for_a_window_and_then_forgotten() {
        let every = Duration::from_millis(100);
        let mut now = Instant::from_origin(Duration::from_secs(1));
        let mut lateness = Lateness::new(every, now);
        now += every + Duration::from_millis(70);
        assert_eq!(lateness.note(now), Duration::from_millis(70));
        let late = now;
        while now.saturating_since(late) < WINDOW {
            now += every;
            assert_eq!(lateness.note(now), Duration::from_millis(70));
        }
        while now.saturating_since(late) < WINDOW * 2 + every {
            now += every;
            lateness.note(now);
        }
        assert_eq!(lateness.note(now + every), Duration::ZERO);
    }
}
