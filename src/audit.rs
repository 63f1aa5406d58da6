//! Log lines about who was let in and who was not: one target, and not without end.
//!
//! Strangers cause such lines as often as they like, so a kind of them comes once in a while, with the
//! number of those left out.

use std::time::Duration;

use crate::types::Instant;

/// The target of these lines, for `log.level` (`info,chickadee::audit=debug` shows each login as
/// well) and for whoever collects them.
pub const TARGET: &str = "chickadee::audit";

/// The least time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// When a line of one kind may be written again.
#[derive(Debug, Default)]
pub struct Seldom {
    next: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether to write a line at `now`: then the number of those left out since the last one.
    pub fn may(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.next = Some(now + PAUSE);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_at_once_and_then_once_in_a_while() {
        let at = |seconds| Instant::from_origin(Duration::from_secs(seconds));
        let mut seldom = Seldom::default();
        assert_eq!(seldom.may(at(0)), Some(0));
        assert_eq!(seldom.may(at(1)), None);
        assert_eq!(seldom.may(at(9)), None);
        assert_eq!(seldom.may(at(10)), Some(2));
        assert_eq!(seldom.may(at(20)), Some(0));
    }
}
