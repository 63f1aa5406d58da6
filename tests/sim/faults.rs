//! What goes wrong in a world, drawn from its seed.

use chickadee::config::AcksShortfall;
use rand::RngExt;
use rand::rngs::StdRng;
use turmoil::Sim;

/// Something that goes wrong with one node for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What.
    pub(crate) kind: Kind,
    /// The node that it befalls.
    pub(crate) node: usize,
    /// How long it lasts, in simulated milliseconds.
    pub(crate) lasts: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The node dies and comes back with its node file and without its data.
    Crash,
    /// The node is told to stop, and is started again; both as a service manager does it.
    Restart,
    /// The node is cut off from the others; clients still reach it.
    Cut,
    /// The others hear the node, and it does not hear them; or the other way round.
    OneWay {
        /// Whether it is the node that is not heard.
        mute: bool,
    },
    /// Nothing reaches the node or leaves it, and then all of it at once, with a clock that has
    /// gone on: the process was stopped.
    Stall,
    /// Again and again, what the nodes send each other is held up for a quarter of a second.
    Lag,
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
        let mild =
            |rng: &mut StdRng| if rng.random_bool(0.6) { Kind::Crash } else { Kind::Restart };
        let harsh = |rng: &mut StdRng| match rng.random_range(0..10) {
            0..3 => Kind::Cut,
            3..5 => Kind::OneWay { mute: rng.random_bool(0.5) },
            5..8 => Kind::Stall,
            _ => Kind::Lag,
        };
        let kinds = match shortfall {
            AcksShortfall::Accept => [mild(rng), mild(rng)],
            AcksShortfall::Error => [mild(rng), harsh(rng)],
        };
        let mut faults = kinds.map(|kind| Fault {
            kind,
            node: rng.random_range(0..nodes),
            lasts: rng.random_range(300..9_000),
        });
        if rng.random_bool(0.5) {
            faults.reverse();
        }
        let faults =
            faults.into_iter().map(|fault| (rng.random_range(1_000..4_000), fault)).collect();
        Self { shortfall, short_grace: rng.random_bool(0.5), faults }
    }

    /// Whether every acknowledgement is given by one side only: everybody who is there hears the
    /// others.
    pub(crate) fn is_whole(&self) -> bool {
        let whole = |kind| matches!(kind, Kind::Crash | Kind::Restart);
        self.faults.iter().all(|(_, fault)| whole(fault.kind))
    }
}

/// The names of those who are there.
pub(crate) struct Names {
    /// Of the nodes.
    pub(crate) nodes: Vec<String>,
    /// Of the clients.
    pub(crate) clients: Vec<String>,
}

impl Fault {
    fn others<'n>(&self, names: &'n Names) -> impl Iterator<Item = &'n str> {
        let own = self.node;
        let others = names.nodes.iter().enumerate().filter(move |(node, _)| *node != own);
        others.map(|(_, name)| name.as_str())
    }

    /// Begins it, as far as it is the network's.
    pub(crate) fn begin(&self, sim: &mut Sim<'_>, names: &Names) {
        let own = names.nodes[self.node].as_str();
        match self.kind {
            Kind::Crash => sim.crash(own),
            Kind::Cut => self.others(names).for_each(|other| sim.partition(own, other)),
            Kind::OneWay { mute: true } => {
                self.others(names).for_each(|other| sim.partition_oneway(own, other));
            }
            Kind::OneWay { mute: false } => {
                self.others(names).for_each(|other| sim.partition_oneway(other, own));
            }
            Kind::Stall => {
                let clients = names.clients.iter().map(String::as_str);
                self.others(names).chain(clients).for_each(|other| sim.hold(own, other));
            }
            Kind::Lag | Kind::Restart => {}
        }
    }

    /// Goes on with it: called every tenth of a second.
    pub(crate) fn go_on(&self, sim: &mut Sim<'_>, names: &Names, now: u64) {
        if self.kind == Kind::Lag {
            let own = names.nodes[self.node].as_str();
            let held = now / 100 % 5 < 2;
            self.others(names).for_each(|other| {
                if held { sim.hold(own, other) } else { sim.release(own, other) }
            });
        }
    }

    /// Ends it, as far as it is the network's.
    pub(crate) fn end(&self, sim: &mut Sim<'_>, names: &Names) {
        let own = names.nodes[self.node].as_str();
        match self.kind {
            Kind::Crash | Kind::Restart => sim.bounce(own),
            Kind::Cut => self.others(names).for_each(|other| sim.repair(own, other)),
            Kind::OneWay { mute: true } => {
                self.others(names).for_each(|other| sim.repair_oneway(own, other));
            }
            Kind::OneWay { mute: false } => {
                self.others(names).for_each(|other| sim.repair_oneway(other, own));
            }
            Kind::Stall | Kind::Lag => {
                let clients = names.clients.iter().map(String::as_str);
                self.others(names).chain(clients).for_each(|other| sim.release(own, other));
            }
        }
    }
}
