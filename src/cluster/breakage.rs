//! A switch for tests that breaks one rule at a time, so that the simulation proves itself: each
//! broken rule must be found. Without the simulator's feature nothing is ever broken.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Who does not hold the acting bit does not write.
    ActingBit,
    /// A slot that another acts for is taken by its release only.
    Release,
    /// A deputy pings before it takes over.
    DeputyPings,
    /// A node that may have been away drops its bits.
    Fence,
    /// A node that stood still executes no write that may have been sent before.
    OldCommands,
    /// A write is answered when the holders have it.
    Acks,
    /// What may have been executed is not repeated, unless that does no harm.
    RepeatOnlyHarmless,
    /// Who does not know whether a write was executed says so.
    UnknownIsTold,
    /// The higher version is kept.
    HigherVersion,
    /// A delete leaves a tombstone.
    Tombstones,
    /// Who missed something is sent it again.
    DirtyBits,
    /// A former holder keeps a slot until every member of its set has it.
    FormerHolderKeeps,
    /// A copy that was kept over a restart is proved equal before it counts.
    KeptIsProved,
    /// The word of a member that lost its place does not count.
    Outcasts,
    /// Who takes a slot that nobody acts for catches up with its highest term first.
    HighestTerm,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::ActingBit,
        Self::Release,
        Self::DeputyPings,
        Self::Fence,
        Self::OldCommands,
        Self::Acks,
        Self::RepeatOnlyHarmless,
        Self::UnknownIsTold,
        Self::HigherVersion,
        Self::Tombstones,
        Self::DirtyBits,
        Self::FormerHolderKeeps,
        Self::KeptIsProved,
        Self::Outcasts,
        Self::HighestTerm,
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
