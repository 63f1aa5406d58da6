//! What a client was told, and what it must therefore find in the end.
//!
//! A client's keys are its own and it does one thing at a time, so that its story has one order: a
//! key holds what was acknowledged last, or one of the writes of unknown outcome since then. Claims
//! (`SET NX`) are for all clients: nobody may be granted what another was granted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use chickadee::resp::Reply;
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// Hash tags of all keys: so few slots that each is written to all the time, whatever happens to it.
const TAGS: u64 = 24;
/// How often clients try to have each claim.
const TRIES: u64 = 8;

/// A command that changes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `SET key value`.
    Set(String, String),
    /// `DEL key`.
    Delete(String),
    /// `INCR key`.
    Increment(String),
    /// `SET key client NX`.
    Claim(String, String),
}

/// What became of a command, by the word of the node that was asked.
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

/// Commands by what became of them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Acknowledged.
    pub(crate) acknowledged: usize,
    /// Refused for certain.
    pub(crate) not_executed: usize,
    /// Of unknown outcome.
    pub(crate) unknown: usize,
}

impl Counts {
    /// Adds another client's.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.not_executed += other.not_executed;
        self.unknown += other.unknown;
    }
}

/// What a key may hold: `None` for no value.
#[derive(Debug)]
struct Value {
    acknowledged: Option<String>,
    since: Vec<Option<String>>,
}

/// How often a counter was raised.
#[derive(Debug, Default)]
struct Counter {
    acknowledged: i64,
    unknown: i64,
}

/// What all clients claimed.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    tried: u64,
    granted: BTreeMap<String, BTreeSet<String>>,
}

impl Claims {
    /// The next thing to claim.
    pub(crate) fn next_key(&mut self) -> String {
        let number = self.tried / TRIES;
        self.tried += 1;
        format!("claim:{{{}}}:{number}", number % TAGS)
    }

    /// Notes what became of a claim; panics where two were granted the same.
    pub(crate) fn note(&mut self, act: &Act, told: Told) {
        let (Act::Claim(key, by), Told::Done(_)) = (act, told) else { return };
        let granted = self.granted.entry(key.clone()).or_default();
        granted.insert(by.clone());
        assert!(granted.len() == 1, "{key} was granted to {granted:?}");
    }

    /// Everything that was granted.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.granted.keys().cloned().collect()
    }

    /// Panics where a claim is not held by whom it was granted to.
    pub(crate) fn check(&self, key: &str, found: Option<&str>) {
        let Some(granted) = self.granted.get(key) else { return };
        assert!(
            found.is_some_and(|by| granted.contains(by)),
            "{key} is {found:?}, not {granted:?}"
        );
    }
}

/// The story of one client.
#[derive(Debug, Default)]
pub(crate) struct Story {
    client: usize,
    number: u64,
    values: BTreeMap<String, Value>,
    counters: BTreeMap<String, Counter>,
    /// Commands by what became of them.
    pub(crate) counts: Counts,
}

impl Story {
    /// The story of a client, at its beginning.
    pub(crate) fn new(client: usize) -> Self {
        Self { client, ..Self::default() }
    }

    /// The next thing to do: keys that are written once, some that are written and deleted again
    /// and again, counters, and claims.
    pub(crate) fn next_act(&mut self, rng: &mut StdRng, claims: &mut Claims) -> Act {
        let (client, number) = (self.client, self.number);
        self.number += 1;
        match rng.random_range(0..100) {
            0..25 => {
                let tag = number % TAGS;
                Act::Set(format!("once:{{{tag}}}:{client}:{number}"), format!("value:{number}"))
            }
            25..55 => Act::Set(self.often(rng), format!("value:{number}")),
            55..65 => Act::Delete(self.often(rng)),
            65..75 => Act::Claim(claims.next_key(), format!("c{client}")),
            _ => {
                let tag = rng.random_range(0..TAGS);
                Act::Increment(format!("counter:{{{tag}}}:{client}"))
            }
        }
    }

    fn often(&self, rng: &mut StdRng) -> String {
        let tag = rng.random_range(0..TAGS);
        format!("often:{{{tag}}}:{}:{}", self.client, rng.random_range(0..2))
    }

    /// Notes what became of an act; panics where a counter's number is impossible.
    pub(crate) fn note(&mut self, act: &Act, told: Told) {
        match told {
            Told::Done(_) | Told::Refused => self.counts.acknowledged += 1,
            Told::NotExecuted => self.counts.not_executed += 1,
            Told::Unknown => self.counts.unknown += 1,
        }
        match act {
            Act::Set(key, value) => self.note_value(key, Some(value.clone()), told),
            Act::Delete(key) => self.note_value(key, None, told),
            Act::Increment(key) => {
                let counter = self.counters.entry(key.clone()).or_default();
                match told {
                    Told::Done(number) => {
                        counter.acknowledged += 1;
                        counter.check(key, number);
                    }
                    Told::NotExecuted | Told::Refused => {}
                    Told::Unknown => counter.unknown += 1,
                }
            }
            Act::Claim(..) => {}
        }
    }

    fn note_value(&mut self, key: &str, value: Option<String>, told: Told) {
        let known = self
            .values
            .entry(key.to_owned())
            .or_insert(Value { acknowledged: None, since: Vec::new() });
        match told {
            Told::Done(_) => *known = Value { acknowledged: value, since: Vec::new() },
            Told::NotExecuted | Told::Refused => {}
            Told::Unknown => known.since.push(value),
        }
    }

    /// Every key that was ever written.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.values.keys().chain(self.counters.keys()).cloned().collect()
    }

    /// Panics where a key holds what it must not.
    pub(crate) fn check(&self, key: &str, found: Option<&str>) {
        if let Some(value) = self.values.get(key) {
            let matches = |allowed: &Option<String>| allowed.as_deref() == found;
            assert!(
                matches(&value.acknowledged) || value.since.iter().any(matches),
                "{key} is {found:?}, but {value:?}"
            );
        }
        if let Some(counter) = self.counters.get(key) {
            let number = found.map_or(Ok(0), str::parse).expect("a counter holds a number");
            counter.check(key, number);
        }
    }
}

impl Counter {
    fn check(&self, key: &str, number: i64) {
        let possible = self.acknowledged..=self.acknowledged + self.unknown;
        assert!(possible.contains(&number), "{key} is {number}, but {self:?}");
    }
}

impl Act {
    /// The command.
    pub(crate) fn args(&self) -> Vec<&str> {
        match self {
            Self::Set(key, value) => vec!["SET", key, value],
            Self::Delete(key) => vec!["DEL", key],
            Self::Increment(key) => vec!["INCR", key],
            Self::Claim(key, by) => vec!["SET", key, by, "NX"],
        }
    }
}

impl Told {
    /// What a reply says; panics at one that a healthy node does not give.
    pub(crate) fn by(reply: &io::Result<Reply>) -> Self {
        match reply {
            Ok(Reply::Integer(number)) => Self::Done(*number),
            Ok(Reply::Simple(_)) => Self::Done(0),
            Ok(Reply::Null) => Self::Refused,
            Ok(other) => {
                let text = other.as_error().unwrap_or_default();
                let prefix = text.split(' ').next().unwrap_or_default();
                match prefix {
                    "TRYAGAIN" | "NOREPLICAS" | "CLUSTERDOWN" | "LOADING" => Self::NotExecuted,
                    _ if text.starts_with("ERR outcome unknown") => Self::Unknown,
                    _ => panic!("unexpected reply {other:?}"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::NotExecuted,
            Err(_) => Self::Unknown,
        }
    }
}
