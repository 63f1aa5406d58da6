//! The calls of a lane that wait for their answer, by id and by deadline.
//!
//! An id is a place in a table and the number of its use, so that the answer to a call that was
//! given up finds nobody, and the table never grows beyond the calls that may be in flight.

use tokio::sync::oneshot;

use crate::peers::Answer;
use crate::types::Instant;

/// Where an answer goes.
pub(super) type Waiter = oneshot::Sender<Answer>;

/// The table. Its user bounds it by [`InFlight::len`].
#[derive(Default)]
pub(super) struct InFlight {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Place {
    uses: u32,
    call: Option<(Instant, Waiter)>,
}

impl InFlight {
    /// How many calls wait.
    pub(super) const fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Adds a call; its id is not that of any call before it (but for 2³² uses of its place).
    pub(super) fn insert(&mut self, deadline: Instant, waiter: Waiter) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("far fewer calls than 2^32 are in flight")
        });
        let place = &mut self.places[index as usize];
        place.uses = place.uses.wrapping_add(1);
        place.call = Some((deadline, waiter));
        u64::from(place.uses) << 32 | u64::from(index)
    }

    /// Takes the call of an id; `None` if it was answered or given up before.
    pub(super) fn remove(&mut self, id: u64) -> Option<Waiter> {
        let index = u32::try_from(id & u64::from(u32::MAX)).ok()?;
        let place = self.places.get_mut(index as usize)?;
        if u64::from(place.uses) != id >> 32 {
            return None;
        }
        let (_, waiter) = place.call.take()?;
        self.free.push(index);
        Some(waiter)
    }

    /// Moves the calls whose deadline is not after `now` to `expired`; the earliest deadline left.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<Waiter>) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        for (index, place) in (0u32..).zip(&mut self.places) {
            match &place.call {
                Some((deadline, _)) if *deadline <= now => {
                    expired.extend(place.call.take().map(|(_, waiter)| waiter));
                    self.free.push(index);
                }
                Some((deadline, _)) => {
                    earliest = Some(earliest.map_or(*deadline, |known| known.min(*deadline)));
                }
                None => {}
            }
        }
        earliest
    }

    /// Takes every call.
    pub(super) fn drain(&mut self) -> Vec<Waiter> {
        let mut all = Vec::new();
        for (index, place) in (0u32..).zip(&mut self.places) {
            if let Some((_, waiter)) = place.call.take() {
                all.push(waiter);
                self.free.push(index);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_late_answer_finds_nobody_though_its_place_is_used_again() {
        let mut calls = InFlight::default();
        let first = calls.insert(at(1), oneshot::channel().0);
        let mut expired = Vec::new();
        assert_eq!(calls.expire(at(1), &mut expired), None);
        assert_eq!((expired.len(), calls.len()), (1, 0));
        let second = calls.insert(at(2), oneshot::channel().0);
        assert_eq!(first & 0xffff_ffff, second & 0xffff_ffff);
        assert!(calls.remove(first).is_none());
        assert!(calls.remove(second).is_some());
        assert!(calls.remove(second).is_none());
        assert!(calls.remove(u64::MAX).is_none());
    }

    #[test]
    fn the_earliest_deadline_is_known_after_each_sweep() {
        let mut calls = InFlight::default();
        for millis in [30, 10, 20] {
            calls.insert(at(millis), oneshot::channel().0);
        }
        let mut expired = Vec::new();
        assert_eq!(calls.expire(at(10), &mut expired), Some(at(20)));
        assert_eq!((expired.len(), calls.len()), (1, 2));
        assert_eq!(calls.drain().len(), 2);
        assert_eq!(calls.len(), 0);
    }
}
