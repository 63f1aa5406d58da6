//! A switch for tests that breaks one rule at a time, so that the simulation proves itself: each
//! broken rule must be found. Without the simulator's feature nothing is ever broken.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A node that may have been away drops its bits.
    Fence,
    /// Frames of a lower term are refused.
    TermCheck,
    /// Each holder's acknowledgement counts once.
    AcksOnce,
    /// Only complete holders' acknowledgements count.
    AcksOfComplete,
    /// A receiver is noted before its slot is walked.
    NotedBeforeWalk,
    /// A slot is complete only with both ends of its fill.
    BothEndsOfFill,
    /// The dirty bit is put aside before the slot is read.
    DirtyBeforeRead,
    /// Who missed something is sent it again.
    DirtyAtAll,
    /// The higher version is kept.
    HigherVersion,
    /// A slot that another acts for is taken by its release only.
    Release,
    /// A release waits for the writes before it.
    ReleaseDrains,
    /// A delete leaves a tombstone.
    Tombstones,
    /// A deputy pings before it takes over.
    DeputyPings,
    /// A slot started empty by a lonely node has the lowest term.
    HollowTerm,
    /// A former holder keeps a slot until every member of the set has it.
    FormerHolderKeeps,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Fence,
        Self::TermCheck,
        Self::AcksOnce,
        Self::AcksOfComplete,
        Self::NotedBeforeWalk,
        Self::BothEndsOfFill,
        Self::DirtyBeforeRead,
        Self::DirtyAtAll,
        Self::HigherVersion,
        Self::Release,
        Self::ReleaseDrains,
        Self::Tombstones,
        Self::DeputyPings,
        Self::HollowTerm,
        Self::FormerHolderKeeps,
    ];

    /// Whether the rule is broken on this thread.
    #[cfg(feature = "simulation")]
    pub(super) fn is_broken(self) -> bool {
        BROKEN.get() == Some(self)
    }

    /// Whether the rule is broken on this thread: never.
    #[cfg(not(feature = "simulation"))]
    pub(super) const fn is_broken(self) -> bool {
        false
    }
}

#[cfg(feature = "simulation")]
thread_local! {
    /// A simulated world lives on one thread.
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule for all nodes on this thread, or none.
#[cfg(feature = "simulation")]
pub fn break_rule(rule: Option<Rule>) {
    BROKEN.set(rule);
}
