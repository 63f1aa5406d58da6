//! What Prometheus makes of a cluster: the metrics of live nodes, the alerts and recorded series of
//! `deploy/prometheus`. Tests that need `promtool` or `prometheus` say so where these are missing.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot set up has failed; one that is left out says so"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chickadee::metrics::{Metrics, rendered};
use serde_json::Value;
use support::resp::ok;
use support::{Cluster, free_port, wait_for};

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

/// A Prometheus that finds the nodes by asking one of them.
struct Prometheus {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// `None` where there is no such program. Its alerts wait for seconds where those of the rules wait
    /// for minutes.
    fn start(seed: std::net::SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
        let hasty = rules.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
            Some(_) => "        for: 1s",
            None => line,
        });
        let hasty = hasty.collect::<Vec<_>>().join("\n");
        fs::write(folder.path().join("rules.yml"), hasty).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: chickadee\n  http_sd_configs:\n  \
             - {{url: 'http://{seed}/v1/sd', refresh_interval: 1s}}\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let port = free_port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, port, _folder: folder }),
            Err(error) => {
                println!("left out: prometheus does not run ({error})");
                None
            }
        }
    }

    /// How many series a query gives; `None` while it does not answer.
    fn series(&self, query: &str) -> Option<usize> {
        let escape = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        };
        let query: String = query.bytes().map(escape).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        Some(body["data"]["result"].as_array()?.len())
    }

    fn wait_series(&self, query: &str, count: usize) {
        wait_for(&format!("{count} series of {query}"), || {
            (self.series(query)? == count).then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_real_prometheus_finds_all_nodes_has_every_series_and_tells_of_a_dead_one() {
    let mut cluster = Cluster::started(3, &[]);
    let Some(prometheus) = Prometheus::start(cluster.nodes[0].address("admin")) else { return };
    let mut client = cluster.client(1);
    for number in 0..50 {
        assert_eq!(client.run(&["SET", &format!("key:{number}"), "value"]), ok());
        client.run(&["GET", &format!("key:{number}")]);
    }
    prometheus.wait_series("up{job=\"chickadee\"} == 1", 3);
    let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
    for name in named(&rules) {
        wait_for(&format!("{name} has series"), || (prometheus.series(&name)? > 0).then_some(()));
    }
    for recorded in ["cluster:chickadee_commands:rate5m", "cluster:chickadee_members_alive:min"] {
        prometheus.wait_series(recorded, 1);
    }
    // A busy machine may be slow for good reason.
    prometheus.wait_series("ALERTS{alertstate=\"firing\",alertname!=\"ChickadeeSlow\"}", 0);

    let down = "ALERTS{alertname=\"ChickadeeDown\",alertstate=\"firing\"}";
    cluster.nodes[2].kill();
    prometheus.wait_series(down, 1);
    prometheus
        .wait_series("ALERTS{alertname=\"ChickadeeUnderReplicated\",alertstate=\"firing\"}", 1);
    cluster.nodes[2].start();
    cluster.wait_settled(3);
    prometheus.wait_series(down, 0);
    prometheus
        .wait_series("ALERTS{alertname=\"ChickadeeUnderReplicated\",alertstate=\"firing\"}", 0);
}
