//! What Prometheus makes of a cluster: the metrics of live nodes, the alerts and recorded series of
//! `deploy/prometheus`, and every query of the dashboards of `deploy/grafana`. Tests that need
//! `promtool` or `prometheus` say so where these are missing.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot set up has failed; one that is left out says so"
)]

#[path = "prometheus/causes.rs"]
mod causes;
#[path = "prometheus/causes_of_the_host.rs"]
mod causes_of_the_host;
#[path = "prometheus/dashboards.rs"]
mod dashboards;
#[path = "prometheus/server.rs"]
mod server;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use causes::Watched;
use chickadee::metrics::{Metrics, rendered};
use server::Prometheus;
use support::resp::{Client, bulk, ok};
use support::{Cluster, namespace, now, pause, program};

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(name)
}

/// The metrics that a query names; recorded series, which have colons, are left out.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c));
    let metrics = words.filter(|word| word.starts_with("chickadee_") && !word.contains(':'));
    metrics.map(str::to_owned).collect()
}

/// The name of the catalog behind a series of a histogram.
fn base(name: &str) -> &str {
    let suffixes = ["_bucket", "_sum", "_count"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn unknown(text: &str) -> Vec<String> {
    let catalog: BTreeSet<&str> =
        Metrics::rows().chain(rendered::ROWS).map(|row| row.name).collect();
    let known = |name: &String| catalog.contains(name.as_str()) || catalog.contains(base(name));
    named(text).into_iter().filter(|name| !known(name)).collect()
}

#[test]
fn the_rules_name_metrics_of_the_catalog_only() {
    let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
    assert!(named(&rules).len() > 15, "{:?}", named(&rules));
    assert_eq!(unknown(&rules), Vec::<String>::new());
    assert_eq!(
        unknown("rate(chickadee_reads_totals[5m]) / chickadee_keys"),
        ["chickadee_reads_totals"]
    );
}

/// What `promtool` says with this input, if it is there: whether it is content, and its words.
fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("left out: promtool does not run ({error})");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&words).into_owned()))
}

#[test]
fn every_alert_fires_for_its_cause_and_is_silent_in_health() {
    let path = |name| deployed(name).display().to_string();
    for arguments in
        [["check", "rules", &path("rules.yml")], ["test", "rules", &path("rules_test.yml")]]
    {
        if let Some((content, words)) = promtool(&arguments, "") {
            assert!(content, "{words}");
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_is_expected_to_fire() {
    let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
    let tests = fs::read_to_string(deployed("rules_test.yml")).unwrap();
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    assert_eq!(rules.matches("runbook: ").count(), alerts.len());
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tested");
    }
}

#[test]
fn the_metrics_of_a_live_node_are_as_prometheus_wants_them() {
    let cluster = Cluster::started(2, &[]);
    assert_eq!(cluster.client(0).run(&["SET", "key", "value"]), ok());
    let (_, metrics) = cluster.nodes[0].http("/metrics").unwrap();
    if let Some((content, words)) = promtool(&["check", "metrics"], &metrics) {
        assert!(content && words.trim().is_empty(), "{words}");
        let spoilt = metrics.replace("# HELP chickadee_keys ", "# ");
        assert!(!promtool(&["check", "metrics"], &spoilt).unwrap().0, "it would find a fault");
    }
}

/// What clients do with a cluster, mistakes among it.
struct Traffic {
    clients: Vec<Client>,
    number: usize,
}

impl Traffic {
    /// A client of each node.
    fn of(cluster: &Cluster) -> Self {
        let clients = (0..cluster.nodes.len()).map(|number| cluster.client(number)).collect();
        Self { clients, number: 0 }
    }

    /// Hits, misses, writes that expire at once, and two errors, at every node.
    fn go_on(&mut self) {
        self.number += 1;
        for (node, client) in self.clients.iter_mut().enumerate() {
            for number in 0..20 {
                let key = format!("{node}:{number}:{}", self.number);
                assert_eq!(client.run(&["SET", &key, "value", "PX", "2000"]), ok());
                assert_eq!(client.run(&["GET", &key]), bulk("value"));
                client.run(&["GET", &format!("{key}:none")]);
            }
            let key = format!("{node}:text");
            assert_eq!(client.run(&["SET", &key, "no number"]), ok());
            assert!(client.run(&["INCR", &key]).is_error());
            assert!(client.run(&["NOSUCHCOMMAND"]).is_error());
        }
    }

    /// More than fits.
    fn overflow(&mut self) {
        let value = vec![b'v'; 64 * 1024];
        for number in 0..700 {
            let key = format!("large:{number}");
            let client = number % self.clients.len();
            let reply = self.clients[client].run(&[b"SET".as_slice(), key.as_bytes(), &value]);
            assert_eq!(reply, ok());
        }
    }
}

/// Runs `chickadee cert …`.
fn cert(arguments: &[&str]) {
    assert!(program().arg("cert").args(arguments).status().unwrap().success(), "{arguments:?}");
}

/// A certificate with which nodes serve clients, as the command line makes it.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        cert(&["ca", "--out", made.at()]);
        made.issue("30d");
        made
    }

    fn at(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// Puts one in place that is valid so long.
    fn issue(&self, valid: &str) {
        let next = tempfile::tempdir_in(self.at()).unwrap();
        let out = next.path().to_str().unwrap();
        cert(&["issue", "node", "--ca", self.at(), "--out", out, "--valid", valid]);
        for file in ["node.key", "node.pem"] {
            fs::rename(next.path().join(file), self.0.path().join(file)).unwrap();
        }
    }

    /// Puts no certificate in place.
    fn spoil(&self) {
        fs::write(self.0.path().join("node.pem"), "no certificate\n").unwrap();
    }

    fn settings(&self) -> Vec<String> {
        let at = self.at();
        vec![
            "client.tls_listen=127.0.0.1:0".to_owned(),
            format!("client.tls_cert_file={at}/node.pem"),
            format!("client.tls_key_file={at}/node.key"),
        ]
    }
}

/// How long every query may take to have its series: copies are compared once a minute.
const ALL_SERIES: Duration = Duration::from_mins(4);

/// Waits until each of `queries` has a series, while clients go on.
fn wait_all_series(prometheus: &Prometheus, mut queries: Vec<String>, traffic: &mut Traffic) {
    let deadline = now() + ALL_SERIES;
    while !queries.is_empty() {
        assert!(now() < deadline, "no series of:\n{}", queries.join("\n"));
        traffic.go_on();
        pause();
        queries = prometheus.without_series(queries);
    }
}

/// Every query of both dashboards, for every node.
fn dashboard_queries(cluster: &Cluster) -> Vec<String> {
    let status = cluster.nodes[0].status().unwrap();
    let name = status["cluster"].as_str().unwrap();
    let mut queries = BTreeSet::new();
    for query in dashboards::NAMES.map(dashboards::read).iter().flat_map(dashboards::queries) {
        for node in &cluster.nodes {
            let instance = node.address("admin").to_string();
            queries.insert(dashboards::filled_in(&query, name, &instance));
        }
    }
    queries.into_iter().collect()
}

#[test]
fn a_real_prometheus_has_series_for_every_panel_and_rule_and_no_alert_fires_in_health() {
    let certificates = Certificates::new();
    let settings = certificates.settings();
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    settings.extend(["memory.limit=16MiB", "node.zone=z"]);
    let cluster = Cluster::started(3, &settings);
    let Some(prometheus) = Prometheus::start(cluster.nodes[0].address("admin")) else { return };
    prometheus.wait_series("up{job=\"chickadee\"} == 1", 3);
    let mut traffic = Traffic::of(&cluster);
    traffic.overflow();
    let mut queries = dashboard_queries(&cluster);
    assert!(queries.len() > 200, "{}", queries.len());
    queries.extend(prometheus.rules());
    for happened in [
        "chickadee_evicted_bytes_total",
        "chickadee_expired_total",
        "chickadee_command_errors_total{reason=\"ERR\"}",
        "chickadee_antientropy_rounds_total{result=\"ok\"}",
        "chickadee_sync_runs_total{direction=\"sent\",result=\"ok\"}",
        "chickadee_quic_bytes_total",
    ] {
        queries.push(format!("sum({happened}) > 0"));
    }
    wait_all_series(&prometheus, queries, &mut traffic);
    let wrong = "rate(chickadee_reads_total{result=\"hitt\"}[15s])".to_owned();
    assert_eq!(prometheus.without_series(vec![wrong.clone()]), [wrong], "it would find a fault");

    // Everything but what the traffic did on purpose, and what a busy machine may do.
    let expected = "ChickadeeSlow|ChickadeeEvictingHard";
    prometheus
        .wait_series(&format!("ALERTS{{alertstate=\"firing\",alertname!~\"{expected}\"}}"), 0);
}

#[test]
fn alerts_fire_for_real_causes_and_clear_when_these_end() {
    let Some(mut watched) = Watched::start(&[]) else { return };
    watched.a_certificate_ends_and_one_is_none();
    watched.too_many_clients_come();
    watched.strangers_gossip();
    watched.a_node_has_another_secret();
    watched.a_node_is_killed();
    watched.a_node_stands_still();
    watched.a_node_is_slow();
    watched.memory_is_full();
}

#[test]
#[ignore = "takes some minutes, and root"]
fn alerts_fire_for_real_causes_of_the_host() {
    if !namespace::is_inside() {
        return namespace::run_inside("alerts_fire_for_real_causes_of_the_host");
    }
    namespace::make_ready();
    let Some(mut watched) = Watched::start(&["cluster.ring_grace=2s"]) else { return };
    watched.a_clock_is_wrong();
    watched.a_node_is_cut_off();
    watched.a_peer_answers_gossip_only();
}
