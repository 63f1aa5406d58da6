//! Alerts whose causes are a host's: its network, which is one of the test's own, and its clock, by
//! `libfaketime` where that is installed.

use std::path::Path;
use std::time::Duration;

use super::causes::Watched;
use super::support::{namespace, wait_within};

/// What gives a process another time of day.
const FAKE_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
/// How long it may take until the compare of all slots, which comes once a minute, is late.
const A_COMPARE_LATE: Duration = Duration::from_mins(5);

impl Watched {
    /// A node is started with a clock that is seconds ahead.
    pub(crate) fn a_clock_is_wrong(&mut self) {
        if !Path::new(FAKE_TIME).exists() {
            println!("left out: a wrong clock, without libfaketime");
            return;
        }
        let node = &mut self.cluster.nodes[2];
        node.terminate();
        let variables =
            [("LD_PRELOAD", FAKE_TIME), ("FAKETIME", "+3s"), ("DONT_FAKE_MONOTONIC", "1")];
        node.variables = variables.map(|(name, value)| (name.into(), value.into())).to_vec();
        node.start();
        self.cluster.wait_settled(3);
        self.fire(&["ChickadeeClockSkew"], |_| {});
        let node = &mut self.cluster.nodes[2];
        node.terminate();
        node.variables.clear();
        node.start();
        self.is_well_again();
    }

    /// All datagrams of a node are dropped, until its place is given away and for longer.
    pub(crate) fn a_node_is_cut_off(&self) {
        namespace::drop_datagrams(&namespace::ports_of(self.cluster.nodes[2].pid()));
        self.fire(&["ChickadeeMembershipSplit"], |_| {});
        namespace::drop_nothing();
        self.is_well_again();
    }

    /// A node is alive by its gossip, and no call comes to it.
    pub(crate) fn a_peer_answers_gossip_only(&self) {
        namespace::drop_datagrams(&[self.cluster.nodes[2].address("peer").port()]);
        wait_within(A_COMPARE_LATE, "compares that are cut off are told", || {
            self.is_firing("ChickadeeAntiEntropyStalled").then_some(())
        });
        namespace::drop_nothing();
        self.is_well_again();
    }

    /// Waits until nothing fires. A node that was started counts as late until its first compare.
    fn is_well_again(&self) {
        self.cluster.wait_settled(3);
        wait_within(A_COMPARE_LATE, "a compare that came to its end clears the alert", || {
            self.is_clear("ChickadeeAntiEntropyStalled").then_some(())
        });
        self.clear(&[""]);
    }
}
