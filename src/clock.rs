//! The one place that reads a clock.
//!
//! Everything else is given `now`, or a [`Clock`] to ask. The monotonic reading and the timers come
//! from the runtime, so that a simulated node lives in its host's virtual time; the wall clock is
//! the operating system's, or a simulated one with an offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::{Instant, WallMillis};

/// Tells the time and sleeps. One per node, shared by all of its parts.
pub trait Clock: Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// The time of day.
    fn wall(&self) -> WallMillis;
    /// The runtime's instant that stands for `at`, for its timers.
    fn timer(&self, at: Instant) -> tokio::time::Instant;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// Waits until `at` on `clock`.
pub async fn sleep_until(clock: &dyn Clock, at: Instant) {
    tokio::time::sleep_until(clock.timer(at)).await;
}

/// The runtime's monotonic clock and the operating system's wall clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose origin is this moment.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    fn now(&self) -> Instant {
        Instant::from_origin(tokio::time::Instant::now().duration_since(self.origin))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    fn wall(&self) -> WallMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn timer(&self, at: Instant) -> tokio::time::Instant {
        self.origin + at.since_origin()
    }
}

/// A simulated clock: the runtime's virtual time, and a wall clock that starts at a fixed date and
/// may be put wrong by an offset.
///
/// Outside of the runtime, where a simulation looks at its nodes, there is no virtual time: the clock shows
/// what it showed last.
#[derive(Debug)]
pub struct SimulatedClock {
    origin: tokio::time::Instant,
    /// The time that it showed last, in nanoseconds.
    shown_nanos: AtomicU64,
    epoch: WallMillis,
    skew_millis: AtomicI64,
    /// Time of the monotonic clock that the node did not live through.
    skipped_millis: AtomicU64,
}

impl SimulatedClock {
    /// A clock whose wall shows `epoch` at this moment.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn new(epoch: WallMillis) -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            shown_nanos: AtomicU64::new(0),
            epoch,
            skew_millis: AtomicI64::new(0),
            skipped_millis: AtomicU64::new(0),
        }
    }

    /// Puts the monotonic clock ahead: the node finds itself late, as if it had been stopped.
    pub fn skip(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.skipped_millis.fetch_add(millis, Ordering::Relaxed);
    }

    fn skipped(&self) -> Duration {
        Duration::from_millis(self.skipped_millis.load(Ordering::Relaxed))
    }

    /// Puts the wall clock wrong by `millis` from now on.
    pub fn set_skew(&self, millis: i64) {
        self.skew_millis.store(millis, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    fn now(&self) -> Instant {
        if tokio::runtime::Handle::try_current().is_ok() {
            let passed = tokio::time::Instant::now().duration_since(self.origin);
            let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            self.shown_nanos.store(nanos, Ordering::Relaxed);
        }
        let passed = Duration::from_nanos(self.shown_nanos.load(Ordering::Relaxed));
        Instant::from_origin(passed + self.skipped())
    }

    fn wall(&self) -> WallMillis {
        let passed = self.now().since_origin().saturating_sub(self.skipped());
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let skew = self.skew_millis.load(Ordering::Relaxed);
        WallMillis(self.epoch.0.saturating_add(passed).saturating_add_signed(skew))
    }

    fn timer(&self, at: Instant) -> tokio::time::Instant {
        self.origin + at.since_origin().saturating_sub(self.skipped())
    }
}

/// Waits for `future` at most until `span` from now has passed on the runtime's clock.
pub async fn within<F: Future>(span: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(span, future).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look from outside once showed the machine's time: a simulation that it had held up for long took
    /// its nodes for having stood still.
    #[test]
    fn a_simulated_clock_shows_virtual_time_outside_of_the_runtime_too() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let clock = runtime.block_on(async {
            let clock = SimulatedClock::new(WallMillis(1_000));
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(clock.now().since_origin(), Duration::from_secs(5));
            clock
        });
        assert_eq!(clock.now().since_origin(), Duration::from_secs(5));
        clock.skip(Duration::from_secs(1));
        assert_eq!(clock.now().since_origin(), Duration::from_secs(6));
        assert_eq!(clock.wall(), WallMillis(6_000));
    }
}
