//! What goes wrong in a world, drawn from its seed.

use chickadee::config::AcksShortfall;
use rand::RngExt;
use rand::rngs::StdRng;
use turmoil::Sim;

/// Something that goes wrong, and for how long, in simulated milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node dies and comes back with its node file and without its data.
    Crash {
        /// Which.
        node: usize,
        /// Until it is started again.
        lasts: u64,
    },
    /// A node is cut off from the others; clients still reach it.
    Cut {
        /// Which.
        node: usize,
        /// Until the cut heals.
        lasts: u64,
    },
}

/// The faults of a world in their order: each comes some time after the world has settled.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// What a write is told that too few copies have.
    pub(crate) shortfall: AcksShortfall,
    /// Whether the place of a dead node is given away before it is back.
    pub(crate) short_grace: bool,
    /// Quiet milliseconds, then the fault.
    pub(crate) faults: Vec<(u64, Fault)>,
}

impl Script {
    /// The script of a world of `nodes` nodes.
    pub(crate) fn draw(rng: &mut StdRng, nodes: usize) -> Self {
        let shortfall =
            if rng.random_bool(0.5) { AcksShortfall::Error } else { AcksShortfall::Accept };
        let crash = |rng: &mut StdRng| Fault::Crash {
            node: rng.random_range(0..nodes),
            lasts: rng.random_range(300..9_000),
        };
        let first = crash(rng);
        let second = match shortfall {
            AcksShortfall::Accept => crash(rng),
            AcksShortfall::Error => {
                Fault::Cut { node: rng.random_range(0..nodes), lasts: rng.random_range(300..9_000) }
            }
        };
        let mut faults = vec![first, second];
        if rng.random_bool(0.5) {
            faults.reverse();
        }
        let faults =
            faults.into_iter().map(|fault| (rng.random_range(1_000..4_000), fault)).collect();
        Self { shortfall, short_grace: rng.random_bool(0.5), faults }
    }

    /// Whether every acknowledgement is given by one side only: nobody is cut off.
    pub(crate) fn is_whole(&self) -> bool {
        self.faults.iter().all(|(_, fault)| matches!(fault, Fault::Crash { .. }))
    }
}

impl Fault {
    /// The node that it befalls.
    pub(crate) const fn node(self) -> usize {
        match self {
            Self::Crash { node, .. } | Self::Cut { node, .. } => node,
        }
    }

    /// How long it lasts, in milliseconds.
    pub(crate) const fn lasts(self) -> u64 {
        match self {
            Self::Crash { lasts, .. } | Self::Cut { lasts, .. } => lasts,
        }
    }

    /// Begins it; `names` are the names of all nodes.
    pub(crate) fn begin(self, sim: &mut Sim<'_>, names: &[String]) {
        match self {
            Self::Crash { node, .. } => sim.crash(names[node].as_str()),
            Self::Cut { node, .. } => {
                for other in names.iter().filter(|other| **other != names[node]) {
                    sim.partition(names[node].as_str(), other.as_str());
                }
            }
        }
    }

    /// Ends it.
    pub(crate) fn end(self, sim: &mut Sim<'_>, names: &[String]) {
        match self {
            Self::Crash { node, .. } => sim.bounce(names[node].as_str()),
            Self::Cut { node, .. } => {
                for other in names.iter().filter(|other| **other != names[node]) {
                    sim.repair(names[node].as_str(), other.as_str());
                }
            }
        }
    }
}
