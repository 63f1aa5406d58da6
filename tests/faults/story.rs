//! What a client was told, and what it must therefore find in the end.
//!
//! A client's keys are its own and it does one thing at a time, so that its story has one order: a
//! key holds what was acknowledged last, or one of the writes of unknown outcome since then. Every
//! value is written once only, so that it tells which command wrote it. Claims (`SET NX`) are for
//! all clients: nobody may be granted what another was granted, nor the same one twice.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::findings::{Findings, Kind};

/// Keys that one client writes and deletes again and again.
const OFTEN: u64 = 40;
/// Counters of one client.
pub(crate) const COUNTERS: usize = 16;
/// How often clients try to have each claim.
const TRIES: usize = 8;

/// A command that changes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `SET key value` of a key that is written this once.
    Once(String, String),
    /// `SET key value` of a key that is written again and again.
    Set(String, String),
    /// `DEL key`.
    Delete(String),
    /// `INCR` of the client's counter of that number.
    Increment(usize, String),
    /// `SET key value NX` of the claim of that number.
    Claim(usize, String, String),
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Executed; the number is an `INCR`'s.
    Done(i64),
    /// Executed, and it changed nothing: somebody else has the claim.
    Refused,
    /// Certainly not executed.
    NotExecuted,
    /// Perhaps executed.
    Unknown,
}

impl Act {
    /// The command.
    pub(crate) fn args(&self) -> Vec<&str> {
        match self {
            Self::Once(key, value) | Self::Set(key, value) => vec!["SET", key, value],
            Self::Delete(key) => vec!["DEL", key],
            Self::Increment(_, key) => vec!["INCR", key],
            Self::Claim(_, key, value) => vec!["SET", key, value, "NX"],
        }
    }

    /// Whether it may be sent again when it is not known whether it was executed.
    pub(crate) const fn is_repeatable(&self) -> bool {
        matches!(self, Self::Once(..) | Self::Set(..) | Self::Delete(_))
    }
}

/// The key of a client's counter.
pub(crate) fn counter_key(client: usize, number: usize) -> String {
    format!("counter:{client}:{number}")
}

fn claim_key(number: usize) -> String {
    format!("claim:{number}")
}

/// What a key may hold: `None` for no value.
#[derive(Debug, Default)]
struct Value {
    acknowledged: Option<String>,
    since: Vec<Option<String>>,
}

impl Value {
    fn check(&self, key: &str, found: Option<&str>, findings: &Findings) {
        let mut allowed = std::iter::once(&self.acknowledged).chain(&self.since);
        if allowed.any(|value| value.as_deref() == found) {
            return;
        }
        let deleted = self.acknowledged.is_none() && self.since.iter().all(Option::is_none);
        let kind = if deleted { Kind::Back } else { Kind::Missing };
        findings.note(kind, format!("{key} is {found:?}, but {self:?}"));
    }
}

/// How often a counter was raised.
#[derive(Debug, Default)]
struct Counter {
    acknowledged: i64,
    unknown: i64,
    last: i64,
}

impl Counter {
    fn check(&self, key: &str, number: i64, findings: &Findings) {
        let possible = self.acknowledged..=self.acknowledged + self.unknown;
        if !possible.contains(&number) {
            findings.note(Kind::Counter, format!("{key} is {number}, but {self:?}"));
        }
    }

    fn raised(&mut self, key: &str, number: i64, findings: &Findings) {
        self.acknowledged += 1;
        self.check(key, number, findings);
        if number <= self.last {
            findings.note(Kind::Counter, format!("{key} was raised to {number} after {self:?}"));
        }
        self.last = number;
    }
}

/// One thing that clients compete for.
#[derive(Debug, Default)]
struct Claim {
    granted: Vec<String>,
    unknown: Vec<String>,
}

/// What all clients claimed.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    tried: std::sync::atomic::AtomicUsize,
    claims: Mutex<BTreeMap<usize, Claim>>,
}

impl Claims {
    fn next(&self) -> usize {
        self.tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / TRIES
    }

    fn note(&self, number: usize, value: &str, told: Told, findings: &Findings) {
        let mut claims = self.claims.lock().expect("nobody panics with it");
        let claim = claims.entry(number).or_default();
        match told {
            Told::Done(_) => claim.granted.push(value.to_owned()),
            Told::Unknown => claim.unknown.push(value.to_owned()),
            Told::Refused | Told::NotExecuted => return,
        }
        if claim.granted.len() > 1 && told != Told::Unknown {
            findings.note(Kind::Claim, format!("{}: {claim:?}", claim_key(number)));
        }
    }

    fn check(&self, number: usize, found: Option<&str>, findings: &Findings) {
        let claims = self.claims.lock().expect("nobody panics with it");
        let Some(claim) = claims.get(&number) else { return };
        let allowed = if claim.granted.is_empty() { &claim.unknown } else { &claim.granted };
        let fine = match found {
            Some(value) => allowed.iter().any(|allowed| allowed == value),
            None => claim.granted.is_empty(),
        };
        if !fine {
            let kind = if found.is_none() { Kind::Missing } else { Kind::Claim };
            findings.note(kind, format!("{} is {found:?}, but {claim:?}", claim_key(number)));
        }
    }
}

/// The story of one client.
#[derive(Debug)]
pub(crate) struct Story {
    client: usize,
    number: u64,
    values: BTreeMap<String, Value>,
    counters: Vec<Counter>,
}

impl Story {
    /// The story of a client, at its beginning.
    pub(crate) fn new(client: usize) -> Self {
        let counters = (0..COUNTERS).map(|_| Counter::default()).collect();
        Self { client, number: 0, values: BTreeMap::new(), counters }
    }

    /// The next thing to do.
    pub(crate) fn next_act(&mut self, rng: &mut StdRng, claims: &Claims) -> Act {
        let (client, number) = (self.client, self.number);
        self.number += 1;
        let value = format!("value:{client}:{number}");
        match rng.random_range(0..100) {
            0..30 => Act::Once(format!("once:{client}:{number}"), value),
            30..55 => Act::Set(self.often(rng), value),
            55..70 => Act::Delete(self.often(rng)),
            70..80 => {
                let claim = claims.next();
                Act::Claim(claim, claim_key(claim), value)
            }
            _ => {
                let counter = rng.random_range(0..COUNTERS);
                Act::Increment(counter, counter_key(client, counter))
            }
        }
    }

    fn often(&self, rng: &mut StdRng) -> String {
        format!("often:{}:{}", self.client, rng.random_range(0..OFTEN))
    }

    /// Notes what became of an act.
    pub(crate) fn note(&mut self, act: &Act, told: Told, claims: &Claims, findings: &Findings) {
        match act {
            Act::Once(key, value) | Act::Set(key, value) => {
                self.note_value(key, Some(value.clone()), told);
            }
            Act::Delete(key) => self.note_value(key, None, told),
            Act::Increment(number, key) => match told {
                Told::Done(raised) => self.counters[*number].raised(key, raised, findings),
                Told::Unknown => self.counters[*number].unknown += 1,
                Told::NotExecuted | Told::Refused => {}
            },
            Act::Claim(number, _, value) => claims.note(*number, value, told, findings),
        }
    }

    fn note_value(&mut self, key: &str, value: Option<String>, told: Told) {
        let known = self.values.entry(key.to_owned()).or_default();
        match told {
            Told::Done(_) => *known = Value { acknowledged: value, since: Vec::new() },
            Told::NotExecuted | Told::Refused => {}
            Told::Unknown => known.since.push(value),
        }
    }

    fn check(&self, key: &str, found: Option<&str>, findings: &Findings) {
        if let Some(value) = self.values.get(key) {
            value.check(key, found, findings);
        }
    }

    fn check_counter(&self, number: usize, found: Option<&str>, findings: &Findings) {
        let key = counter_key(self.client, number);
        match found.map_or(Ok(0), str::parse) {
            Ok(value) => self.counters[number].check(&key, value, findings),
            Err(_) => findings.note(Kind::Counter, format!("{key} is {found:?}")),
        }
    }
}

/// The stories of all clients, at their end.
#[derive(Debug)]
pub(crate) struct Stories<'a> {
    /// One for each writer, in order.
    pub(crate) stories: &'a [Story],
    /// What they claimed.
    pub(crate) claims: &'a Claims,
}

impl Stories<'_> {
    /// Every key that was ever written.
    pub(crate) fn keys(&self) -> Vec<String> {
        let counters = |story: &Story| {
            let client = story.client;
            (0..COUNTERS).map(move |number| counter_key(client, number))
        };
        let mut keys: Vec<String> =
            self.stories.iter().flat_map(|story| story.values.keys().cloned()).collect();
        keys.extend(self.stories.iter().flat_map(counters));
        let claims = self.claims.claims.lock().expect("nobody panics with it");
        keys.extend(claims.keys().map(|number| claim_key(*number)));
        keys
    }

    /// Notes whether a key holds what it must not.
    pub(crate) fn check(&self, key: &str, found: Option<&str>, findings: &Findings) {
        let mut words = key.split(':');
        let (family, first) = (words.next().unwrap_or_default(), words.next());
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<usize>().ok());
        let first = number(first).expect("keys are named by numbers");
        match family {
            "claim" => self.claims.check(first, found, findings),
            "counter" => {
                let counter = number(words.next()).expect("a counter has a number");
                self.stories[first].check_counter(counter, found, findings);
            }
            _ => self.stories[first].check(key, found, findings),
        }
    }
}
