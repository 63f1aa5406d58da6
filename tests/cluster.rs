//! Clusters of real processes on loopback: formed, joined, asked through any node, killed,
//! restarted, left.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test whose cluster answers something else has failed"
)]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::resp::{Client, NIL, Reply, bulk, ok};
use support::{Cluster, Node, free_port, now, wait_for};

fn key(number: usize) -> String {
    format!("key:{number}")
}

#[test]
fn any_node_serves_any_key() {
    let cluster = Cluster::started(3, &[]);
    let mut clients: Vec<Client> = (0..3).map(|number| cluster.client(number)).collect();
    for number in 0..300 {
        let value = "v".repeat(number * 7 % 3000 + 1);
        assert_eq!(clients[number % 3].run(&["SET", &key(number), &value]), ok());
        for client in &mut clients {
            assert_eq!(client.run(&["GET", &key(number)]), bulk(&value));
        }
    }
    for client in &mut clients {
        assert_eq!(client.run(&["DBSIZE"]), Reply::Int(300));
        assert_eq!(scan_all(client).len(), 300);
    }
    assert_eq!(clients[0].run(&["DEL", &key(1), &key(2), &key(3), "absent"]), Reply::Int(3));
    assert_eq!(clients[1].run(&["EXISTS", &key(1), &key(4), &key(4)]), Reply::Int(2));
    let got = clients[2].run(&["MGET", &key(3), &key(4), "absent"]);
    assert_eq!(got, Reply::Array(Some(vec![NIL, bulk(&"v".repeat(29)), NIL])));
    assert_eq!(clients[1].run(&["FLUSHALL"]), ok());
    wait_for("the flush is seen everywhere", || {
        clients.iter_mut().all(|client| client.run(&["DBSIZE"]) == Reply::Int(0)).then_some(())
    });
}

#[test]
fn values_of_any_size_and_byte_cross_nodes() {
    let cluster = Cluster::started(3, &[]);
    let (mut one, mut other) = (cluster.client(0), cluster.client(2));
    for size in [0, 1, 1_000, 31_000, 32_768, 33_000, 100_000, 1_048_576, 40_000_000] {
        let value: Vec<u8> =
            (0..=250).map(|byte: u8| byte.wrapping_mul(31)).cycle().take(size).collect();
        let key = format!("size:{size}");
        assert_eq!(one.run(&[b"SET", key.as_bytes(), &value]), ok(), "{size}");
        assert_eq!(other.run(&["GET", &key]), Reply::Bulk(Some(value)), "{size}");
    }
}

/// The command is short, but what it changes goes to the other holder whole: it was waited for no longer than
/// for a small one.
#[test]
fn a_large_value_is_changed_through_either_node() {
    let cluster = Cluster::started(2, &[]);
    let (mut clients, value) = ([cluster.client(0), cluster.client(1)], vec![7; 40_000_000]);
    for name in ["a", "b", "c"] {
        assert_eq!(clients[0].run(&[b"SET", name.as_bytes(), &value]), ok());
        for client in &mut clients {
            assert_eq!(client.run(&["EXPIRE", name, "1000"]), Reply::Int(1));
            assert_eq!(client.run(&["PERSIST", name]), Reply::Int(1));
        }
        assert_eq!(clients[1].run(&["APPEND", name, "end"]), Reply::Int(40_000_003));
        assert_eq!(clients[0].run(&["GETRANGE", name, "-4", "-1"]), bulk("\u{7}end"));
    }
}

/// Its room is that of thousands of small ones of all shards.
#[test]
fn a_large_value_finds_room_among_many_small_ones() {
    let cluster = Cluster::started(1, &["memory.limit=16MiB"]);
    let mut client = cluster.client(0);
    for batch in 0..600 {
        let mut pipeline = Vec::new();
        for number in 0..1_000 {
            let key = key(batch * 1_000 + number);
            write!(pipeline, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len()).unwrap();
        }
        client.send_raw(&pipeline).unwrap();
        assert!((0..1_000).all(|_| client.receive().unwrap() == ok()));
    }
    assert!(cluster.nodes[0].metric("chickadee_evictions_total", "memory") > 0.0);
    // What one try does not free the next one finds free; it was 37 KB a try once.
    for size in [300_000, 1_000_000] {
        let (key, value) = (format!("large:{size}"), "x".repeat(size));
        let tries = (0..3).map(|_| client.run(&["SET", &key, &value]));
        assert!(tries.into_iter().any(|reply| reply == ok()), "{size}");
    }
}

/// APPEND and SETRANGE make values longer than what they are given.
#[test]
fn what_would_grow_past_the_limit_is_refused() {
    let refused = |reply: &Reply| matches!(reply, Reply::Error(text) if text.starts_with("OOM"));
    for policy in ["evict", "refuse"] {
        let policy = format!("memory.policy={policy}");
        let cluster = Cluster::started(1, &["memory.limit=16MiB", &policy]);
        let mut client = cluster.client(0);
        assert!(refused(&client.run(&["SETRANGE", "new", "20000000", "x"])));
        assert_eq!(client.run(&["EXISTS", "new"]), Reply::Int(0));
    }
    let cluster = Cluster::started(1, &["memory.limit=16MiB", "memory.policy=refuse"]);
    let (mut client, part) = (cluster.client(0), "v".repeat(1 << 20));
    let mut length = 0;
    let last = loop {
        match client.run(&["APPEND", "long", &part]) {
            Reply::Int(longer) if longer < 16 << 20 => length = longer,
            other => break other,
        }
    };
    assert!(refused(&last) && length >= 4 << 20, "{last:?} {length}");
    assert_eq!(client.run(&["STRLEN", "long"]), Reply::Int(length));
    let used = cluster.nodes[0].metric("chickadee_memory_used_bytes", "");
    assert!(used <= f64::from(16 << 20), "{used}");
}

#[test]
fn copies_are_where_the_ring_says() {
    let cluster = Cluster::started(3, &[]);
    let mut client = cluster.client(1);
    for number in 0..60 {
        assert_eq!(client.run(&["SET", &key(number), "value"]), ok());
    }
    for number in 0..60 {
        // Former holders drop a slot once every member of its set has said that it is complete.
        wait_for("the copies are exactly where the ring says", || {
            let located = cluster.nodes[0].json(&format!("/v1/ring/locate?key={}", key(number)))?;
            let explained = cluster.nodes[2].json(&format!("/v1/explain?key={}", key(number)))?;
            let named = names(&located["replicas"], |_| true);
            let holding = names(&explained["copies"], |copy| copy["present"] == true);
            (named == holding && named.len() == 2).then_some(())
        });
    }
}

/// The names of the rows that are wanted.
fn names(rows: &Value, wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let rows = rows.as_array().into_iter().flatten().filter(|row| wanted(row));
    rows.filter_map(|row| row["name"].as_str()).map(str::to_owned).collect()
}

#[test]
fn a_joiner_is_filled_while_clients_write() {
    let mut cluster = Cluster::started(3, &["peer.sync_rate=256KiB"]);
    let mut client = cluster.client(0);
    for first in (0..20_000).step_by(100) {
        let pairs = (first..first + 100).flat_map(|number| [key(number), "x".repeat(100)]);
        let words: Vec<String> = std::iter::once("MSET".to_owned()).chain(pairs).collect();
        assert_eq!(client.run(&words), ok());
    }
    let before = placement(&cluster.nodes[0]);
    let writing = Writer::start(&cluster, 0, 20_000);
    let joiner = cluster.add(&[]);
    let mut progress = BTreeSet::new();
    wait_for("the joiner is ready", || {
        let node = &cluster.nodes[joiner];
        let status = node.status()?;
        let ratio = node.metric("chickadee_sync_progress_ratio", "");
        if ratio > 0.0 && ratio < 1.0 {
            progress.insert(format!("{ratio:.3}"));
        }
        (status["ready"] == true).then_some(())
    });
    cluster.wait_settled(4);
    let written = writing.stop();
    assert!(progress.len() >= 3, "progress between 0 and 1 was seen {} times", progress.len());
    assert_ne!(placement(&cluster.nodes[0]), before);
    let mut there = cluster.client(joiner);
    let numbers: Vec<_> = (0..20_000).chain(written).collect();
    for some in numbers.chunks(100) {
        let names = some.iter().map(|number| key(*number));
        let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(names).collect();
        let Reply::Array(Some(values)) = there.run(&words) else { panic!("MGET failed") };
        assert_eq!(values.len(), some.len());
        let lost = values.iter().position(|value| *value == Reply::Bulk(None));
        assert_eq!(lost.map(|at| some[at]), None, "an acknowledged key is missing");
    }
}

#[test]
fn the_last_node_answers_everything_after_the_others_left() {
    let mut cluster = Cluster::started(3, &[]);
    let mut client = cluster.client(0);
    for number in 0..2_000 {
        assert_eq!(client.run(&["SET", &key(number), "value"]), ok());
    }
    for (number, remaining) in [(0, vec![1, 2]), (1, vec![2])] {
        let left = cluster.nodes[number].cli(&["leave"]);
        assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
        assert_eq!(cluster.nodes[number].wait_exit(), Some(0));
        cluster.wait_agreed(&remaining, remaining.len() as u64);
    }
    let mut last = cluster.client(2);
    for number in 0..2_000 {
        assert_eq!(last.run(&["GET", &key(number)]), bulk("value"), "{number}");
    }
}

#[test]
fn a_killed_node_costs_no_acknowledged_key_and_is_filled_when_it_returns() {
    let mut cluster = Cluster::started(3, &["cluster.acks=all", "cluster.ring_grace=3s"]);
    let writing = Writer::start(&cluster, 0, 0);
    wait_for("some keys are written", || (writing.count() > 500).then_some(()));
    cluster.nodes[2].kill();
    let written_before = writing.count();
    wait_for("writes go on", || (writing.count() > written_before + 500).then_some(()));
    cluster.wait_agreed(&[0, 1], 2);
    let written = writing.stop();
    let mut client = cluster.client(1);
    for number in &written {
        assert!(matches!(client.run(&["GET", &key(*number)]), Reply::Bulk(Some(_))), "{number}");
    }
    cluster.nodes[2].start();
    cluster.wait_settled(3);
    let mut back = cluster.client(2);
    for number in &written {
        assert!(matches!(back.run(&["GET", &key(*number)]), Reply::Bulk(Some(_))), "{number}");
    }
}

#[test]
fn a_restart_of_each_node_in_turn_loses_nothing_and_moves_little() {
    let mut cluster = Cluster::started(3, &[]);
    let mut client = cluster.client(0);
    let value = "v".repeat(4096);
    for number in 0..3_000 {
        assert_eq!(client.run(&["SET", &key(number), &value]), ok());
    }
    let held = f64::from(2 * 3_000 * 4096) / 3.0;
    for number in 0..3 {
        let witness = (number + 1) % 3;
        let changes = |cluster: &Cluster| {
            cluster.nodes[witness].metric("chickadee_ring_changes_total", "").to_string()
        };
        let before = changes(&cluster);
        assert_eq!(cluster.nodes[number].terminate(), Some(0));
        cluster.nodes[number].start();
        cluster.wait_settled(3);
        assert_eq!(changes(&cluster), before, "node {number} did not come back to its place");
        let received = "direction=\"received\"";
        let moved = cluster.nodes[number].metric("chickadee_sync_bytes_total", received);
        assert!(moved < held / 20.0, "{moved} bytes were sent to a node that had {held}");
    }
    let mut client = cluster.client(1);
    for number in 0..3_000 {
        assert_eq!(client.run(&["GET", &key(number)]), bulk(&value), "{number}");
    }
}

#[test]
fn a_cluster_that_was_stopped_as_a_whole_comes_back_with_its_data() {
    let mut cluster = Cluster::started(3, &[]);
    let mut client = cluster.client(0);
    for number in 0..1_000 {
        assert_eq!(client.run(&["SET", &key(number), "first"]), ok());
    }
    assert_eq!(cluster.nodes[0].terminate(), Some(0));
    // What the first one does not know when it is back.
    let mut client = cluster.client(1);
    for number in 0..500 {
        assert_eq!(client.run(&["SET", &key(number), "second"]), ok());
    }
    for number in 500..600 {
        assert_eq!(client.run(&["DEL", &key(number)]), Reply::Int(1));
    }
    drop(client);
    for number in [1, 2] {
        assert_eq!(cluster.nodes[number].terminate(), Some(0));
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.wait_settled(3);
    let mut client = cluster.client(0);
    for number in 0..1_000 {
        let expected = match number {
            0..500 => bulk("second"),
            500..600 => NIL,
            _ => bulk("first"),
        };
        assert_eq!(client.run(&["GET", &key(number)]), expected, "{number}");
    }
}

#[test]
fn nodes_with_one_and_the_same_seed_list_form_one_cluster() {
    let mut cluster = Cluster::new(&[]);
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    cluster.add_with_seeds(&ports, 2);
    cluster.add_with_seeds(&ports, 1);
    cluster.add_with_seeds(&ports, 0);
    cluster.wait_settled(3);
}

#[test]
fn metrics_move_by_what_was_done() {
    let cluster = Cluster::started(2, &[]);
    let mut client = cluster.client(0);
    let sum = |name: &str, label: &str| {
        cluster.nodes.iter().map(|node| node.metric(name, label)).sum::<f64>()
    };
    let (hits, misses) = ("result=\"hit\"", "result=\"miss\"");
    let before = (sum("chickadee_reads_total", hits), sum("chickadee_reads_total", misses));
    for number in 0..100 {
        client.run(&["SET", &key(number), "value"]);
        client.run(&["GET", &key(number)]);
        client.run(&["GET", &format!("absent:{number}")]);
    }
    let after = (sum("chickadee_reads_total", hits), sum("chickadee_reads_total", misses));
    assert_eq!((after.0 - before.0, after.1 - before.1), (100.0, 100.0));
    assert!(sum("chickadee_proxied_requests_total", "result=\"ok\"") > 50.0);
    assert!(sum("chickadee_replication_ops_total", "result=\"applied\"") >= 100.0);
}

fn placement(node: &Node) -> String {
    node.status().unwrap()["ring"]["placement_id"].to_string()
}

fn scan_all(client: &mut Client) -> BTreeSet<String> {
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    loop {
        let Reply::Array(Some(page)) = client.run(&["SCAN", &cursor, "COUNT", "50"]) else {
            panic!("SCAN answers an array");
        };
        cursor = page[0].text().unwrap();
        let Reply::Array(Some(keys)) = &page[1] else { panic!("SCAN answers keys") };
        found.extend(keys.iter().filter_map(Reply::text));
        if cursor == "0" {
            return found;
        }
    }
}

/// Writes keys from a thread of its own until it is told to stop, and knows which were
/// acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<usize>>,
}

impl Writer {
    fn start(cluster: &Cluster, node: usize, first: usize) -> Self {
        let address = cluster.nodes[node].address("client");
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect(address);
            let (mut number, mut written) = (first, Vec::new());
            let deadline = now() + Duration::from_mins(2);
            while !stopped.load(Ordering::Relaxed) && now() < deadline {
                if client.run(&["SET", &key(number), "written"]) == ok() {
                    written.push(number);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                number += 1;
            }
            written
        });
        Self { stop, count, thread }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}

#[test]
fn who_has_another_secret_is_kept_out_and_both_sides_say_why() {
    let cluster = Cluster::started(1, &[]);
    let mut stranger = Cluster::new(&[]);
    let seed = cluster.nodes[0].address("peer").port();
    stranger.add_with_seeds(&[free_port(), seed], 0);
    let why = "another cluster secret or cluster name";
    for node in [&stranger.nodes[0], &cluster.nodes[0]] {
        wait_for("the log names the cause", || node.log().contains(why).then_some(()));
    }
    let (code, reasons) = stranger.nodes[0].http("/readyz").unwrap();
    assert!(code == 503 && reasons.contains(why), "{code} {reasons}");
    let mut refused = stranger.client(0);
    let answer = refused.run(&["GET", "key"]);
    assert!(matches!(&answer, Reply::Error(text) if text.starts_with("LOADING ")), "{answer:?}");
    assert_eq!(cluster.nodes[0].status().unwrap()["members"]["alive"], 1);
}

#[test]
fn a_fact_changed_at_one_node_counts_on_all_and_after_a_restart() {
    let mut cluster = Cluster::started(3, &[]);
    let shown = |node: &Node, fact: &str| node.json("/v1/cluster").map(|facts| facts[fact].clone());
    let mut client = cluster.client(0);
    for number in 0..100 {
        assert_eq!(client.run(&["SET", &key(number), "v"]), ok());
    }
    for (fact, value, why) in [
        ("replicas", "9", "out of range"),
        ("replicas", "", "takes 1 to 8"),
        ("name", "other", "facts are replicas, virtual_nodes"),
        ("tombstone_grace", "10s", "out of range"),
        ("ring_grace", "2h", "longer than ring_grace"),
    ] {
        let refused = cluster.nodes[1].cli(&["cluster", "set", fact, value]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && words.contains(why), "{fact}: {words}");
    }
    assert_eq!(shown(&cluster.nodes[0], "revision"), Some(1.into()), "nothing was changed");
    assert!(cluster.nodes[1].cli(&["cluster", "set", "replicas", "3"]).status.success());
    for node in &cluster.nodes {
        wait_for("the fact is known", || (shown(node, "replicas")? == 3).then_some(()));
    }
    cluster.wait_settled(3);
    for node in &cluster.nodes {
        wait_for("every node has a copy of every key", || {
            (node.status()?["store"]["keys"] == 100).then_some(())
        });
    }
    cluster.nodes[2].terminate();
    cluster.nodes[2].start();
    cluster.wait_settled(3);
    assert_eq!(shown(&cluster.nodes[2], "replicas"), Some(3.into()), "not what its settings say");
}

/// With a grace that no test waits for, so that nothing else gives the place up.
#[test]
fn a_burnt_host_is_replaced_under_its_name_or_forgotten() {
    let mut cluster =
        Cluster::started(3, &["cluster.ring_grace=20m", "cluster.tombstone_grace=1h"]);
    let mut client = cluster.client(0);
    for number in 0..100 {
        assert_eq!(client.run(&["SET", &key(number), "v"]), ok());
    }
    cluster.nodes[2].kill();
    let refused = cluster.nodes[0].cli(&["forget", "n1"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("n1 is alive"), "{refused:?}");
    assert_eq!(cluster.nodes[0].cli(&["forget", "n9"]).status.code(), Some(1));
    // A new host: another id, nothing on its disk, the old name.
    let new = cluster.add(&["node.name=n2"]);
    cluster.wait_agreed(&[0, 1, new], 3);
    let called = |node: &Node, name: &str| {
        let members = node.json("/v1/members")?;
        let living = |row: &&Value| row["name"] == name && row["state"] == "alive";
        Some(members.as_array()?.iter().filter(living).count())
    };
    assert_eq!(called(&cluster.nodes[0], "n2"), Some(1));

    cluster.nodes[new].kill();
    wait_for("the member is dead and forgotten", || {
        cluster.nodes[0].cli(&["forget", "n2"]).status.success().then_some(())
    });
    cluster.wait_agreed(&[0, 1], 2);
    for number in 0..100 {
        assert_eq!(client.run(&["GET", &key(number)]), bulk("v"), "{number}");
    }
}

/// A probe that fails, or a packet that does not open, would show that a key was sealed with before
/// everyone had it.
#[test]
fn the_gossip_key_is_rotated_under_way_and_outlives_restarts() {
    let mut cluster = Cluster::started(3, &[]);
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("next");
    let file = secret.to_str().unwrap();
    assert!(cluster.nodes[0].cli(&["keygen", "--out", file]).status.success());
    let probes = |nodes: &[Node]| -> f64 {
        nodes.iter().map(|node| node.metric("chickadee_swim_probes_total", "result=\"ack\"")).sum()
    };
    let lost = |nodes: &[Node]| -> f64 {
        let of = |node: &Node| {
            node.metric("chickadee_swim_probes_total", "result=\"fail\"")
                + node.metric("chickadee_gossip_packets_rejected_total", "")
        };
        nodes.iter().map(of).sum()
    };
    let before = lost(&cluster.nodes);
    let keys = |number: usize, arguments: &[&str]| {
        let seen = probes(&cluster.nodes);
        let done = cluster.nodes[number].cli(&[&["keys"], arguments].concat());
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        wait_for("probes go on", || (probes(&cluster.nodes) > seen + 6.0).then_some(()));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let counted = |count: f64| {
        let has = |node: &Node| (node.metric("chickadee_gossip_keys", "") - count).abs() < 0.5;
        wait_for("every node counts its keys", || cluster.nodes.iter().all(has).then_some(()));
    };
    counted(1.0);
    assert_eq!(keys(0, &["add", file]), "key 1 added\n");
    counted(2.0);
    assert_eq!(keys(1, &["use", "1"]), "key 1 in use\n");
    assert_eq!(keys(2, &["remove", "0"]), "key 0 removed\n");
    counted(1.0);
    let listed = keys(0, &["list", "--format", "plain"]);
    assert!(listed.starts_with("1\tyes\t") && listed.lines().count() == 1, "{listed}");
    assert_eq!(keys(1, &["list", "--format", "plain"]), listed);
    assert!(lost(&cluster.nodes) <= before, "no probe failed, every packet opened");

    // One after the other and all at once: no node is left that could tell them.
    cluster.nodes[0].terminate();
    cluster.nodes[0].start();
    cluster.wait_settled(3);
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.wait_settled(3);
    let after = cluster.nodes[2].cli(&["keys", "list", "--format", "plain"]);
    assert_eq!(String::from_utf8_lossy(&after.stdout), listed);
    // And one that comes later gets it from them.
    cluster.add(&[]);
    cluster.wait_settled(4);
    let new = cluster.nodes[3].cli(&["keys", "list", "--format", "plain"]);
    assert_eq!(String::from_utf8_lossy(&new.stdout), listed);
}
