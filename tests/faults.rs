//! Real processes under load while nodes are killed, stopped, restarted, joined, left, and not heard.
//!
//! Each scenario has three nodes with two copies of everything, eight clients that write about 2,000
//! commands a second and two that read, spread over all nodes. A client keeps its story: what was
//! executed, what certainly was not, and what it does not know (`story`). In the end every key is
//! read at every node: nothing acknowledged is missing, nothing deleted is back, counters are what
//! they can be, and nothing was granted twice. Times are printed and not judged.
//!
//! The scenarios take minutes, so they run only when they are asked for:
//! `cargo test --release --test faults -- --ignored --nocapture`. `CHICKADEE_ROUNDS` says how many
//! nodes are killed, `CHICKADEE_SECONDS` how long a node is stopped or not heard, and `CHICKADEE_LOGS`
//! names a folder to which the logs of the nodes go when a scenario fails.

mod support;

#[path = "faults/connection.rs"]
mod connection;
#[path = "faults/figures.rs"]
mod figures;
#[path = "faults/findings.rs"]
mod findings;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/proof.rs"]
mod proof;
#[path = "faults/scenario.rs"]
mod scenario;
#[path = "faults/story.rs"]
mod story;

use std::time::Duration;

use load::pass;
use scenario::{NODES, Scenario, asked};
use support::{namespace, now};

/// How long a killed node is down: less than it keeps its place.
const DOWN: Duration = Duration::from_secs(3);
/// Keys that are there before nodes are restarted in good order.
const LOADED: usize = 300_000;
/// All nodes of a cluster of three.
const ALL: [usize; NODES] = [0, 1, 2];

#[test]
#[ignore = "takes a minute or more"]
fn killed_nodes_cost_nothing_acknowledged_where_shortfall_is_accepted() {
    kill_in_turn("accept");
}

#[test]
#[ignore = "takes a minute or more"]
fn killed_nodes_cost_nothing_acknowledged_where_shortfall_is_an_error() {
    kill_in_turn("error");
}

/// Each node in turn is killed, stays away for a moment, and comes back with its id and no data.
fn kill_in_turn(shortfall: &str) {
    let mut scenario = Scenario::new("kill -9 of each node in turn", shortfall);
    scenario.start_load();
    for round in 0..asked("CHICKADEE_ROUNDS", 6) {
        scenario.work_in_order(&ALL);
        let victim = ALL[usize::try_from(round).expect("a small number") % NODES];
        scenario.fault();
        scenario.cluster.nodes[victim].kill();
        pass(DOWN);
        scenario.cluster.nodes[victim].start();
        scenario.settle(&ALL);
    }
    scenario.work_in_order(&ALL);
    scenario.finish(&ALL);
}

#[test]
#[ignore = "takes a minute or more"]
fn restarts_in_turn_cost_nothing_where_shortfall_is_accepted() {
    restart_in_turn("accept");
}

#[test]
#[ignore = "takes a minute or more"]
fn restarts_in_turn_cost_nothing_where_shortfall_is_an_error() {
    restart_in_turn("error");
}

/// Each node in turn is stopped in good order and started again, beside much data.
fn restart_in_turn(shortfall: &str) {
    let mut scenario = Scenario::new("restart of each node in turn", shortfall);
    let bytes = scenario.write_before(LOADED);
    let of_a_node = bytes * 2 / NODES;
    scenario.start_load();
    for number in ALL {
        scenario.work_in_order(&ALL);
        let before: Vec<f64> = ALL.iter().map(|node| scenario.received(*node)).collect();
        scenario.fault();
        let code = scenario.cluster.nodes[number].terminate();
        assert_eq!(code, Some(0), "node {number} stops in good order");
        let stopped = scenario.since_fault();
        scenario.cluster.nodes[number].start();
        scenario.settle(&ALL);
        // What the restarted node counted is gone with its process.
        let after = ALL.iter().map(|node| scenario.received(*node));
        let moved: f64 = after
            .zip(before)
            .enumerate()
            .map(|(node, (after, before))| if node == number { after } else { after - before })
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a share is told, not counted")]
        let share = moved / of_a_node as f64 * 100.0;
        scenario.tell(&format!(
            "restart of node {number}: stopped after {} ms, {moved} bytes moved, {share:.3} % of the \
             {of_a_node} bytes of its data",
            figures::ms(stopped)
        ));
    }
    scenario.work_in_order(&ALL);
    scenario.finish(&ALL);
}

#[test]
#[ignore = "takes a minute or more"]
fn joining_and_leaving_cost_nothing_where_shortfall_is_accepted() {
    join_and_leave("accept");
}

#[test]
#[ignore = "takes a minute or more"]
fn joining_and_leaving_cost_nothing_where_shortfall_is_an_error() {
    join_and_leave("error");
}

/// A fourth node joins, then one of the first leaves, then the fourth.
fn join_and_leave(shortfall: &str) {
    let mut scenario = Scenario::new("a fourth node joins, two leave", shortfall);
    scenario.start_load();
    scenario.work_in_order(&ALL);
    scenario.fault();
    let joiner = scenario.add();
    scenario.settle(&[0, 1, 2, joiner]);
    scenario.work_in_order(&[0, 1, 2, joiner]);
    for (leaver, rest) in [(1, &[0, 2, joiner][..]), (joiner, &[0, 2])] {
        scenario.fault();
        let node = &mut scenario.cluster.nodes[leaver];
        let left = node.cli(&["leave"]);
        assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
        assert_eq!(node.wait_exit(), Some(0), "who leaves ends in good order");
        scenario.settle(rest);
        scenario.work_in_order(rest);
    }
    scenario.finish(&[0, 2]);
}

#[test]
#[ignore = "takes a minute or more"]
fn a_stopped_node_does_nothing_old_when_it_goes_on_where_shortfall_is_accepted() {
    stop_and_continue("accept");
}

#[test]
#[ignore = "takes a minute or more"]
fn a_stopped_node_does_nothing_old_when_it_goes_on_where_shortfall_is_an_error() {
    stop_and_continue("error");
}

/// Each node in turn stands still, with clients that come back to it meanwhile, and goes on.
fn stop_and_continue(shortfall: &str) {
    let mut scenario = Scenario::new("each node in turn stands still", shortfall);
    scenario.start_load();
    let part = Duration::from_secs(asked("CHICKADEE_SECONDS", 12)) / 3;
    for stopped in ALL {
        scenario.work_in_order(&ALL);
        scenario.fault();
        scenario.cluster.nodes[stopped].signal("STOP");
        pass(part);
        // What they send to it now lies there until it goes on.
        for _ in 0..2 {
            scenario.spread(&ALL);
            pass(part);
        }
        scenario.fault();
        scenario.spread(&ALL);
        scenario.cluster.nodes[stopped].signal("CONT");
        scenario.settle(&ALL);
    }
    scenario.work_in_order(&ALL);
    scenario.finish(&ALL);
}

#[test]
#[ignore = "takes a minute or more, and root"]
fn a_node_not_heard_for_moments_counts_right_where_shortfall_is_accepted() {
    let test = "a_node_not_heard_for_moments_counts_right_where_shortfall_is_accepted";
    drop_datagrams("accept", test);
}

#[test]
#[ignore = "takes a minute or more, and root"]
fn a_node_not_heard_for_moments_counts_right_where_shortfall_is_an_error() {
    let test = "a_node_not_heard_for_moments_counts_right_where_shortfall_is_an_error";
    drop_datagrams("error", test);
}

/// All datagrams from and to one node are lost for a quarter of each second.
fn drop_datagrams(shortfall: &str, test: &str) {
    if !namespace::is_inside() {
        let _turn = scenario::turn();
        return namespace::run_inside(test);
    }
    namespace::make_ready();
    let mut scenario = Scenario::new("datagrams of a node lost for 250 ms a second", shortfall);
    scenario.start_load();
    scenario.work_in_order(&ALL);
    let node = &scenario.cluster.nodes[1];
    let ports = namespace::ports_of(node.pid());
    for which in ["gossip", "peer"] {
        assert!(ports.contains(&node.address(which).port()), "{ports:?} are the node's");
    }
    assert!(ports.len() > 2, "{ports:?}: it calls others from ports of their own");
    let mut next = now();
    for _ in 0..asked("CHICKADEE_SECONDS", 30) {
        scenario.fault();
        namespace::drop_datagrams(&ports);
        pass(Duration::from_millis(250));
        namespace::drop_nothing();
        next += Duration::from_secs(1);
        pass(next.saturating_duration_since(now()));
    }
    let dropped = namespace::dropped();
    assert!(dropped > 0, "the rules dropped something");
    scenario.tell(&format!("{dropped} datagrams dropped"));
    scenario.settle(&ALL);
    scenario.work_in_order(&ALL);
    scenario.finish(&ALL);
}
