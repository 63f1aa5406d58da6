//! What was found broken: counted by kind, with the first cases in words.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

/// How many cases of one kind are told in words.
const TOLD_MAX: usize = 12;

/// Kinds of broken promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An acknowledged value is missing, or another one stands in its place.
    Missing,
    /// A key that was deleted is there again.
    Back,
    /// A counter is lower or higher than it can be, or went back.
    Counter,
    /// Something was granted twice, or to nobody who was granted it.
    Claim,
    /// A read under load did not find what had been acknowledged before it began.
    Stale,
    /// A reply that no healthy node gives.
    Reply,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Missing, Self::Back, Self::Counter, Self::Claim, Self::Stale, Self::Reply];

    const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing or wrong",
            Self::Back => "deleted and back",
            Self::Counter => "wrong counters",
            Self::Claim => "granted twice",
            Self::Stale => "stale reads",
            Self::Reply => "odd replies",
        }
    }
}

/// What was found, by all clients.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    cases: Mutex<BTreeMap<Kind, Vec<String>>>,
}

impl Findings {
    /// Notes one case.
    pub(crate) fn note(&self, kind: Kind, case: String) {
        self.cases.lock().expect("nobody panics with it").entry(kind).or_default().push(case);
    }

    /// The kind of each case.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let cases = self.cases.lock().expect("nobody panics with it");
        cases.iter().flat_map(|(kind, cases)| vec![*kind; cases.len()]).collect()
    }

    /// Panics if there is any, with the first cases of each kind.
    pub(crate) fn assert_none(&self) {
        let cases = self.cases.lock().expect("nobody panics with it");
        let told: Vec<String> = cases
            .iter()
            .flat_map(|(kind, cases)| {
                cases.iter().take(TOLD_MAX).map(|case| format!("{}: {case}", kind.name()))
            })
            .collect();
        assert!(told.is_empty(), "promises were broken:\n{}", told.join("\n"));
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cases = self.cases.lock().expect("nobody panics with it");
        let counted = Kind::ALL
            .map(|kind| format!("{} {}", kind.name(), cases.get(&kind).map_or(0, Vec::len)));
        f.write_str(&counted.join(", "))
    }
}
