//! How often commands ran, how they failed, and how long they took.
//!
//! A connection counts for itself and hands its sums over once per batch, so that the shared
//! counters are touched seldom.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::command::{Flags, Row, table};

/// Upper bounds of the buckets of durations, in microseconds; a last one has no bound.
pub const BUCKETS: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 2_500_000];

/// The reasons by which errors are counted: their first word, or `other`.
pub const REASONS: [&str; 11] = [
    "ERR",
    "WRONGTYPE",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "MOVED",
    "CROSSSLOT",
    "TRYAGAIN",
    "OOM",
    "NOREPLICAS",
    "other",
];

/// What a command does, for its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Reads keys.
    Read,
    /// Writes keys.
    Write,
    /// Anything else.
    Other,
}

/// Whether a command's reply came from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It was answered at once.
    Local,
    /// It had to wait for another node.
    Proxied,
}

impl Route {
    /// The route as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Proxied => "proxied",
        }
    }
}

/// Every class with every route, in the order of [`CommandStats::durations`].
pub const KINDS: [(Class, Route); 6] = [
    (Class::Read, Route::Local),
    (Class::Read, Route::Proxied),
    (Class::Write, Route::Local),
    (Class::Write, Route::Proxied),
    (Class::Other, Route::Local),
    (Class::Other, Route::Proxied),
];

impl Class {
    /// The class as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Other => "other",
        }
    }

    /// The class of a command.
    pub const fn of(row: &Row) -> Self {
        if row.flags.has(Flags::WRITE) {
            Self::Write
        } else if row.flags.has(Flags::READONLY) {
            Self::Read
        } else {
            Self::Other
        }
    }
}

/// Counters of one node.
#[derive(Debug)]
pub struct CommandStats {
    calls: [AtomicU64; table::COUNT],
    errors: [AtomicU64; REASONS.len()],
    durations: [Durations; KINDS.len()],
}

#[derive(Debug)]
struct Durations {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Default for CommandStats {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            calls: std::array::from_fn(zero),
            errors: std::array::from_fn(zero),
            durations: std::array::from_fn(|_| Durations {
                buckets: std::array::from_fn(zero),
                micros: AtomicU64::new(0),
            }),
        }
    }
}

/// How long commands of one kind took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationCounts {
    /// What they did.
    pub class: Class,
    /// Where they were answered.
    pub route: Route,
    /// How many fell into each of [`BUCKETS`], and above the last.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// All their durations together.
    pub total: Duration,
}

impl CommandStats {
    /// How often each command was called, those never called included.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |calls: &AtomicU64| calls.load(Ordering::Relaxed);
        table::ROWS.iter().zip(&self.calls).map(move |(row, calls)| (row.name, count(calls)))
    }

    /// How many commands were called.
    pub fn total_calls(&self) -> u64 {
        self.calls().map(|(_, calls)| calls).sum()
    }

    /// How many error replies were sent, by reason.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS
            .iter()
            .zip(&self.errors)
            .map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)))
    }

    /// How long commands took from being read to being answered, as far as whole batches tell.
    pub fn durations(&self) -> impl Iterator<Item = DurationCounts> {
        KINDS.iter().zip(&self.durations).map(|((class, route), durations)| DurationCounts {
            class: *class,
            route: *route,
            buckets: std::array::from_fn(|at| {
                durations.buckets.get(at).map_or(0, |bucket| bucket.load(Ordering::Relaxed))
            }),
            total: Duration::from_micros(durations.micros.load(Ordering::Relaxed)),
        })
    }

    /// Counts an error reply by its first word.
    pub(super) fn failed(&self, reply: &[u8]) {
        let word = reply.get(1..).unwrap_or_default();
        let is = |reason: &&str| word.starts_with(reason.as_bytes());
        let at = REASONS.iter().position(is).unwrap_or(REASONS.len() - 1);
        if let Some(count) = self.errors.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes over what a connection counted in one batch that took `span`.
    pub(super) fn add(&self, batch: &mut BatchCounts, span: Duration) {
        batch.end_run(self);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound < micros);
        for (durations, count) in self.durations.iter().zip(&mut batch.kinds) {
            let count = std::mem::take(count);
            if count == 0 {
                continue;
            }
            if let Some(bucket) = durations.buckets.get(bucket) {
                bucket.fetch_add(count, Ordering::Relaxed);
            }
            durations.micros.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
        }
    }
}

/// What a connection counted since it last handed over.
#[derive(Debug, Default)]
pub(super) struct BatchCounts {
    /// The command that ran last, and how often in a row.
    run: Option<(&'static Row, u64)>,
    kinds: [u64; KINDS.len()],
}

impl BatchCounts {
    /// Counts one command.
    pub(super) fn count(&mut self, row: &'static Row, route: Route, stats: &CommandStats) {
        match &mut self.run {
            Some((last, times)) if std::ptr::eq(*last, row) => *times += 1,
            _ => {
                self.end_run(stats);
                self.run = Some((row, 1));
            }
        }
        let kind = (Class::of(row), route);
        if let Some(count) =
            KINDS.iter().position(|known| *known == kind).and_then(|at| self.kinds.get_mut(at))
        {
            *count += 1;
        }
    }

    fn end_run(&mut self, stats: &CommandStats) {
        if let Some((row, times)) = self.run.take()
            && let Some(calls) = table::place(row).and_then(|place| stats.calls.get(place))
        {
            calls.fetch_add(times, Ordering::Relaxed);
        }
    }
}
