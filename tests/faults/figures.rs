//! Figures of a run: how many commands, what became of them, and how long they took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How long after a fault commands are looked at for its own 99th percentile.
const AFTER_FAULT: Duration = Duration::from_secs(5);

/// How many faults are listed one by one.
const LISTED_MAX: usize = 20;

/// When a whole command ran, from its first try to its last, counted from the start of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Its beginning.
    pub(crate) began: Duration,
    /// Its end.
    pub(crate) ended: Duration,
    /// Whether it was executed for certain.
    pub(crate) done: bool,
}

impl Sample {
    fn length(self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// Commands by what became of them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Every command.
    pub(crate) samples: Vec<Sample>,
    /// Commands that were not repeated when their connection broke.
    pub(crate) unknown_by_connection: usize,
    /// Connections that broke, or on which nothing came in time, after a command was sent.
    pub(crate) lost: usize,
    /// Connections that were refused, or found closed before a command was sent.
    pub(crate) unsent: usize,
    /// Reads of a counter that found less than the same client had read before.
    pub(crate) went_back: usize,
    failed: BTreeMap<String, usize>,
    unknown: BTreeMap<String, usize>,
    repeated: BTreeMap<String, usize>,
}

impl Counts {
    /// Counts a command that was certainly not executed, and not tried again.
    pub(crate) fn failed(&mut self, why: &str) {
        *self.failed.entry(why.to_owned()).or_default() += 1;
    }

    /// Counts a command of which a node said that its outcome is not known.
    pub(crate) fn unknown(&mut self, why: &str) {
        *self.unknown.entry(why.to_owned()).or_default() += 1;
    }

    /// Counts a try that is followed by another one.
    pub(crate) fn repeated(&mut self, why: &str) {
        *self.repeated.entry(why.to_owned()).or_default() += 1;
    }

    /// Adds another client's.
    pub(crate) fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.unknown_by_connection += other.unknown_by_connection;
        self.lost += other.lost;
        self.unsent += other.unsent;
        self.went_back += other.went_back;
        let added = [
            (&mut self.failed, other.failed),
            (&mut self.unknown, other.unknown),
            (&mut self.repeated, other.repeated),
        ];
        for (mine, theirs) in added {
            for (why, count) in theirs {
                *mine.entry(why).or_default() += count;
            }
        }
    }

    /// How long commands took: of all, and of those that ended soon after each of the `faults`.
    pub(crate) fn latencies(&self, faults: &[Duration]) -> Latencies {
        let all = self.samples.iter().map(|sample| sample.length());
        let mut after = Vec::new();
        let mut worst = vec![Duration::ZERO; faults.len()];
        let mut undone = vec![0; faults.len()];
        for sample in &self.samples {
            let Some(fault) = faults.iter().rposition(|fault| *fault <= sample.ended) else {
                continue;
            };
            if sample.began <= faults[fault] + AFTER_FAULT {
                after.push(sample.length());
            }
            worst[fault] = worst[fault].max(sample.length());
            undone[fault] += usize::from(!sample.done);
        }
        Latencies { all: sorted(all), after: sorted(after), worst: sorted(worst), undone }
    }
}

/// How long commands took, each list in order.
pub(crate) struct Latencies {
    all: Vec<Duration>,
    after: Vec<Duration>,
    /// The longest after each fault.
    worst: Vec<Duration>,
    /// Commands after each fault, in their order, that failed or whose outcome is not known.
    undone: Vec<usize>,
}

/// In order.
pub(crate) fn sorted(times: impl IntoIterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times
}

/// The time that so many of a hundred do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |times: &[Duration], percent| ms(percentile(times, percent));
        let (all, after, worst) = (&self.all, &self.after, &self.worst);
        write!(f, "p50 {} p99 {} worst {} ms", of(all, 50), of(all, 99), of(all, 100))?;
        if !worst.is_empty() {
            write!(
                f,
                " (5 s after each fault p99 {}; worst of each fault median {} most {}",
                of(after, 99),
                of(worst, 50),
                of(worst, 100)
            )?;
            if self.undone.len() <= LISTED_MAX {
                write!(f, "; failed or unknown after each {:?}", self.undone)?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &BTreeMap<String, usize>| {
            let all: usize = counts.values().sum();
            let each: Vec<String> =
                counts.iter().map(|(why, count)| format!("{why} {count}")).collect();
            if each.is_empty() { all.to_string() } else { format!("{all} ({})", each.join(", ")) }
        };
        write!(
            f,
            "{} commands, failed {}, unknown by reply {} and by connection {}, tried again {}, \
             connections broken {} after sending and {} before",
            self.samples.len(),
            listed(&self.failed),
            listed(&self.unknown),
            self.unknown_by_connection,
            listed(&self.repeated),
            self.lost,
            self.unsent
        )
    }
}
