//! What is due by `now`: expired values and old tombstones, found and removed in bounded steps.
//!
//! Reads never serve an expired value, so this is about memory alone. Nothing is kept per entry: a
//! page knows from when a look at it is worth its cost, which after a look is when 1/32 of its bytes
//! will have expired. Measured on a prototype: about 2 µs of CPU for each expiry where lifetimes are
//! spread over an hour.

use super::gone::OnGone;
use super::pages::Handle;
use super::shard::Shard;
use super::table::NEVER;
use crate::types::WallMillis;

/// One part in this many of a page may have expired before the page is looked at.
const EXPIRY_LAG_PART: usize = 32;
/// Spans of remaining time that a look tells apart for each doubling.
const SPANS_PER_OCTAVE: u32 = 4;
/// Spans of remaining time: enough for 2^48 milliseconds.
const SPANS: usize = 48 * SPANS_PER_OCTAVE as usize;

/// Where the sweep of a shard stands.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Wall milliseconds before which no page has anything to sweep.
    from: u64,
    /// Pages that are due.
    due: Vec<u16>,
    look: Option<Look>,
    /// Tombstones that were removed.
    reaped: u64,
}

/// A look at a page that is under way.
#[derive(Debug)]
struct Look {
    page: u16,
    serial: u64,
    at: usize,
    /// Bytes by remaining time.
    remaining: Box<[u32; SPANS]>,
    bytes: usize,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { from: NEVER, due: Vec::new(), look: None, reaped: 0 }
    }
}

impl Sweep {
    /// All pages are others.
    pub(super) fn start_over(&mut self) {
        *self = Self { reaped: self.reaped, ..Self::default() };
    }

    /// An entry comes, or comes to another page: the sweep must not pass over it.
    pub(super) fn note(&mut self, expires_at: Option<WallMillis>) {
        if let Some(expiry) = expires_at {
            self.from = self.from.min(expiry.0);
        }
    }
}

impl Look {
    fn new(page: u16, serial: u64) -> Self {
        Self { page, serial, at: 0, remaining: Box::new([0; SPANS]), bytes: 0 }
    }

    fn count(&mut self, remaining: u64, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.remaining[span(remaining)] += bytes;
        self.bytes += bytes as usize;
    }

    /// In how many milliseconds enough will have expired; `None` if nothing will.
    fn next(&self) -> Option<u64> {
        let mut bytes = 0;
        let enough = self.bytes / EXPIRY_LAG_PART;
        let reaches = |count: &u32| {
            bytes += *count as usize;
            bytes > enough
        };
        self.remaining.iter().position(reaches).map(end_of)
    }
}

/// The span of a remaining time: its octave, and the quarter of it.
fn span(remaining: u64) -> usize {
    let remaining = remaining.max(1);
    let octave = remaining.ilog2();
    let within = (remaining << 2 >> octave) & 0b11;
    let index = octave * SPANS_PER_OCTAVE + u32::try_from(within).unwrap_or_default();
    (index as usize).min(SPANS - 1)
}

/// The end of a span, in milliseconds.
fn end_of(span: usize) -> u64 {
    let (octave, within) = (span / 4, span % 4);
    ((within as u64 + 5) << octave) >> 2
}

impl Shard {
    /// Removes values whose time is over by `now`, looking at up to `limit` entries, from where the
    /// last call stopped. Returns how many values went. Nothing is looked at that is not due, and if
    /// nothing in the shard is, the call ends at once.
    pub fn sweep(&mut self, now: WallMillis, limit: usize, expired: &mut OnGone<'_>) -> usize {
        if self.garbage.hides_entries() || now.0 < self.sweep.from && self.sweep.look.is_none() {
            return 0;
        }
        let (mut looked, mut removed) = (0, 0);
        while looked < limit {
            let Some(mut look) = self.sweep.look.take().or_else(|| self.next_look(now)) else {
                break;
            };
            // The page may have been emptied, and its number given to another one.
            if self.log.serial(look.page) != Some(look.serial) {
                continue;
            }
            while looked < limit && self.log.serial(look.page) == Some(look.serial) {
                let Some(handle) = self.log.next_entry(look.page, &mut look.at) else { break };
                looked += 1;
                removed += usize::from(self.expire(handle, &mut look, now, expired));
            }
            self.drop_empty_victim();
            if looked < limit {
                self.finish(&look, now);
            } else {
                self.sweep.look = Some(look);
            }
        }
        self.settle();
        removed
    }

    /// Begins the look at the next page that is due; finds the due ones anew after the last.
    fn next_look(&mut self, now: WallMillis) -> Option<Look> {
        if self.sweep.due.is_empty() {
            (self.sweep.due, self.sweep.from) = self.log.due(now, self.eviction.victim());
        }
        loop {
            let page = self.sweep.due.pop()?;
            self.sweep.from = self.sweep.from.min(self.log.scan_from(page));
            if self.log.scan_from(page) > now.0 {
                continue;
            }
            // What comes meanwhile lowers it again.
            self.log.set_scan_from(page, NEVER);
            if let Some(serial) = self.log.serial(page) {
                return Some(Look::new(page, serial));
            }
        }
    }

    /// Removes an entry if its time is over; else takes its bytes into the measure.
    fn expire(
        &mut self,
        handle: Handle,
        look: &mut Look,
        now: WallMillis,
        expired: &mut OnGone<'_>,
    ) -> bool {
        let entry = self.log.entry(handle);
        let Some(expiry) = entry.expires_at() else { return false };
        if !entry.is_expired(now) {
            look.count(expiry.saturating_since(now), entry.len());
            return false;
        }
        let key = entry.key();
        let (slot, hash) = (self.slot_of(key), self.key_hash(key));
        self.part_with(slot, hash, handle, expired);
        true
    }

    /// Notes when the page is worth the next look.
    fn finish(&mut self, look: &Look, now: WallMillis) {
        if self.log.serial(look.page) != Some(look.serial) {
            return;
        }
        if let Some(remaining) = look.next() {
            let next = now.0.saturating_add(remaining).min(self.log.scan_from(look.page));
            self.log.set_scan_from(look.page, next);
            self.sweep.from = self.sweep.from.min(next);
        }
    }

    /// Removes tombstones whose clock is below `bound`, looking at about `limit` entries, at most one
    /// page more. If they go `unseen` by a holder their slots say so. Returns how many went.
    pub fn reap_tombstones(&mut self, bound: u64, limit: usize, unseen: bool) -> usize {
        if self.garbage.hides_entries() {
            return 0;
        }
        let (mut looked, mut removed) = (0, 0);
        for page in self.log.with_tombstones_below(bound) {
            if looked >= limit {
                break;
            }
            let (mut at, mut oldest) = (0, NEVER);
            while let Some(handle) = self.log.next_entry(page, &mut at) {
                looked += 1;
                let entry = self.log.entry(handle);
                let clock = entry.version().clock;
                if clock < bound {
                    let key = entry.key();
                    let (slot, hash) = (self.slot_of(key), self.key_hash(key));
                    self.take_away(slot, hash, handle);
                    removed += 1;
                    if unseen {
                        self.header_mut(slot).forget(clock);
                    }
                } else {
                    oldest = oldest.min(clock);
                }
            }
            self.log.set_oldest(page, oldest);
        }
        self.sweep.reaped += removed as u64;
        self.settle();
        removed
    }

    /// Tombstones that were removed since the store was made.
    pub const fn reaped(&self) -> u64 {
        self.sweep.reaped
    }

    /// For how long a look for expired values has been due, in milliseconds.
    pub const fn expiry_lag(&self, now: WallMillis) -> u64 {
        now.0.saturating_sub(self.sweep.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_ends_after_what_it_holds_and_not_much_later() {
        for remaining in (0..20_000).chain((1..40).map(|bits| (1 << bits) + 12_345)) {
            let end = end_of(span(remaining));
            assert!(end >= remaining && end <= remaining + remaining / 4 + 2, "{remaining} {end}");
        }
        assert_eq!(span(u64::MAX), SPANS - 1);
    }

    #[test]
    fn the_next_look_is_when_a_part_has_expired() {
        let mut look = Look::new(0, 0);
        assert_eq!(look.next(), None);
        for second in 1..=100 {
            look.count(second * 1_000, 50);
        }
        let next = look.next().unwrap();
        assert!((3_000..6_000).contains(&next), "{next}");
    }
}
