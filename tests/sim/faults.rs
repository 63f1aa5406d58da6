//! What goes wrong in a world, drawn from its seed.

use std::collections::BTreeSet;

use chickadee::net::simulated::{Fate, set_hook};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use turmoil::Sim;

/// Nodes that are there from the beginning.
pub(crate) const FIRST_NODES: usize = 3;
/// Nodes that may be there.
pub(crate) const NODES: usize = FIRST_NODES + 1;

/// Something that befalls one node for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// What.
    pub(crate) kind: Kind,
    /// The node that it befalls.
    pub(crate) node: usize,
    /// When it begins, in simulated milliseconds of its trouble.
    pub(crate) after: u64,
    /// How long it lasts, in simulated milliseconds.
    pub(crate) lasts: u64,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The node dies and comes back with its node file, and with the data of its last snapshot file
    /// if it has one.
    Crash,
    /// The node is told to stop, and is started again; both as a service manager does it.
    Restart,
    /// The node is cut off from the others; clients still reach it.
    Cut,
    /// Cut off and reached again, second by second.
    Flap,
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
    /// Datagrams of all nodes are lost and doubled.
    Noise,
    /// The node's wall clock goes wrong by seconds, and right again.
    Skew,
    /// The node joins.
    Join,
    /// The node leaves for good.
    Leave,
}

impl Kind {
    /// Whether everybody who is there hears the others all the time.
    const fn is_whole(self) -> bool {
        matches!(self, Self::Crash | Self::Restart | Self::Join | Self::Leave | Self::Skew)
    }
}

/// Faults that overlap, some time after the world has settled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// Quiet milliseconds before it.
    pub(crate) quiet: u64,
    /// What happens. Only one of them takes a node away.
    pub(crate) faults: Vec<Fault>,
}

/// The troubles of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Script {
    /// Copies of each slot. With one of them nothing may befall a node that ends it.
    pub(crate) copies: u8,
    /// Whether writes that too few copies have are refused.
    pub(crate) strict: bool,
    /// Whether more than half of the copies are enough for an acknowledgement. Of two copies that is both.
    #[serde(default)]
    pub(crate) quorum: bool,
    /// Whether the place of a dead node is given away before it is back.
    pub(crate) short_grace: bool,
    /// Whether tombstones go long before all that are away may be back.
    #[serde(default)]
    pub(crate) forgetful: bool,
    /// Whether nodes have weights and zones.
    pub(crate) lopsided: bool,
    /// Whether nodes write snapshot files while they run: then a crash leaves old data.
    pub(crate) saving: bool,
    /// In their order: each comes some time after the world has settled.
    pub(crate) troubles: Vec<Trouble>,
}

impl Script {
    /// The script of a world.
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let copies = match rng.random_range(0..20) {
            0 | 1 => 1,
            2..5 => 3,
            _ => 2,
        };
        let strict = copies > 1 && rng.random_bool(0.5);
        let mut harshness = [false, strict];
        if rng.random_bool(0.5) {
            harshness.reverse();
        }
        let mut there: BTreeSet<usize> = (0..FIRST_NODES).collect();
        let kind = |rng: &mut StdRng, harsh| match (copies, harsh) {
            (1, _) => Kind::Restart,
            (_, true) => harsh_kind(rng),
            (_, false) => mild_kind(rng),
        };
        let troubles = harshness.map(|harsh| {
            let kind = kind(rng, harsh);
            Trouble::draw(rng, kind, &mut there)
        });
        let troubles = troubles.to_vec();
        Self {
            copies,
            strict,
            short_grace: rng.random_bool(0.5),
            forgetful: false,
            lopsided: rng.random_bool(0.25),
            saving: rng.random_bool(0.3),
            quorum: copies == 3 && rng.random_bool(0.5),
            troubles,
        }
    }

    /// All faults.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.troubles.iter().flat_map(|trouble| &trouble.faults)
    }

    /// Whether every acknowledgement is given by one side only: everybody who is there hears the
    /// others.
    pub(crate) fn is_whole(&self) -> bool {
        self.faults().all(|fault| fault.kind.is_whole())
    }
}

impl Trouble {
    fn draw(rng: &mut StdRng, kind: Kind, there: &mut BTreeSet<usize>) -> Self {
        let node = any_of(rng, there);
        let lasts = rng.random_range(300..9_000);
        let mut main = Fault { kind, node, after: 0, lasts };
        let mut faults = Vec::new();
        if rng.random_bool(0.4) {
            let absent = (0..NODES).find(|node| !there.contains(node));
            let (kind, node) = match absent {
                Some(absent) => (Kind::Join, absent),
                None => (Kind::Leave, any_of(rng, &without(there, main.node))),
            };
            main.after = rng.random_range(0..1_500);
            let after = rng.random_range(0..main.after + main.lasts);
            faults.push(Fault { kind, node, after, lasts: 0 });
            if !there.remove(&node) {
                there.insert(node);
            }
        }
        if faults.is_empty() || rng.random_bool(0.7) {
            faults.push(main);
        }
        Self { quiet: rng.random_range(1_000..4_000), faults }
    }
}

fn mild_kind(rng: &mut StdRng) -> Kind {
    if rng.random_bool(0.6) { Kind::Crash } else { Kind::Restart }
}

fn harsh_kind(rng: &mut StdRng) -> Kind {
    match rng.random_range(0..13) {
        0..3 => Kind::Cut,
        3..5 => Kind::OneWay { mute: rng.random_bool(0.5) },
        5..8 => Kind::Stall,
        8..10 => Kind::Lag,
        10 => Kind::Flap,
        11 => Kind::Skew,
        _ => Kind::Noise,
    }
}

fn any_of(rng: &mut StdRng, nodes: &BTreeSet<usize>) -> usize {
    let chosen = rng.random_range(0..nodes.len());
    nodes.iter().copied().nth(chosen).expect("one of them")
}

fn without(nodes: &BTreeSet<usize>, one: usize) -> BTreeSet<usize> {
    nodes.iter().copied().filter(|node| *node != one).collect()
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
            Kind::Cut | Kind::Flap => {
                self.others(names).for_each(|other| sim.partition(own, other));
            }
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
            Kind::Noise => disturb(self.lasts),
            Kind::Join => sim.bounce(own),
            Kind::Lag | Kind::Restart | Kind::Leave | Kind::Skew => {}
        }
    }

    /// Goes on with it: called every tenth of a second, with the time since it began.
    pub(crate) fn go_on(&self, sim: &mut Sim<'_>, names: &Names, since: u64) {
        let own = names.nodes[self.node].as_str();
        match self.kind {
            Kind::Lag => {
                let held = since / 100 % 5 < 2;
                self.others(names).for_each(|other| {
                    if held { sim.hold(own, other) } else { sim.release(own, other) }
                });
            }
            Kind::Flap => {
                let cut = (since / 1_000).is_multiple_of(2);
                self.others(names).for_each(|other| {
                    if cut { sim.partition(own, other) } else { sim.repair(own, other) }
                });
            }
            _ => {}
        }
    }

    /// Ends it, as far as it is the network's.
    pub(crate) fn end(&self, sim: &mut Sim<'_>, names: &Names) {
        let own = names.nodes[self.node].as_str();
        match self.kind {
            Kind::Crash | Kind::Restart => sim.bounce(own),
            Kind::Cut | Kind::Flap => self.others(names).for_each(|other| sim.repair(own, other)),
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
            Kind::Noise => set_hook(None),
            Kind::Join | Kind::Leave | Kind::Skew => {}
        }
    }
}

/// One datagram in ten is lost, one in twenty doubled.
fn disturb(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    set_hook(Some(Box::new(move |_, _| match rng.random_range(0..20) {
        0 | 1 => Fate::Drop,
        2 => Fate::Duplicate,
        _ => Fate::Deliver,
    })));
}
