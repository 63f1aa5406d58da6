//! A real Prometheus that finds the nodes by asking one of them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::deployed;
use super::support::{free_port, wait_for};

/// A Prometheus of this test's own.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// `None` where there is no such program. Its rules look back and wait for seconds where those that are
    /// deployed do for minutes.
    pub(crate) fn start(seed: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
        let hasty = rules.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
            Some(_) => "        for: 1s",
            None => line,
        });
        let hasty = hasty.collect::<Vec<_>>().join("\n");
        let hasty = hasty.replace("[5m]", "[10s]").replace("[15m]", "[40s]");
        // A compare of all slots comes once a minute.
        let hasty = hasty.replace("_timestamp_seconds > 900", "_timestamp_seconds > 150");
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

    /// What is under `data` in the answer of `GET path`; `None` while it does not answer.
    fn data(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let mut body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        assert_eq!(body["status"], "success", "{path}: {body}");
        Some(body["data"].take())
    }

    /// How many series a query gives; `None` while it does not answer.
    pub(crate) fn series(&self, query: &str) -> Option<usize> {
        Some(self.answer(query)?.len())
    }

    /// The values of a label in the series that a query gives; `None` while it does not answer.
    pub(crate) fn values_of(&self, label: &str, query: &str) -> Option<Vec<String>> {
        let value = |series: &Value| Some(series["metric"][label].as_str()?.to_owned());
        Some(self.answer(query)?.iter().filter_map(value).collect())
    }

    fn answer(&self, query: &str) -> Option<Vec<Value>> {
        let escape = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        };
        let query: String = query.bytes().map(escape).collect();
        let mut data = self.data(&format!("/api/v1/query?query={query}"))?;
        serde_json::from_value(data["result"].take()).ok()
    }

    /// Waits until a query gives so many series.
    pub(crate) fn wait_series(&self, query: &str, count: usize) {
        wait_for(&format!("{count} series of {query}"), || {
            (self.series(query)? == count).then_some(())
        });
    }

    /// Those of `queries` that give no series.
    pub(crate) fn without_series(&self, mut queries: Vec<String>) -> Vec<String> {
        queries.retain(|query| self.series(query).unwrap_or(0) == 0);
        queries
    }

    /// Every rule as a query for its series: a recorded one by its name, an alert by its expression, in
    /// which comparisons answer 0 or 1 and leave nothing out.
    pub(crate) fn rules(&self) -> Vec<String> {
        let data = wait_for("prometheus tells its rules", || {
            let data = self.data("/api/v1/rules")?;
            (data["groups"].as_array()?.len() == 2).then_some(data)
        });
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        rules.map(|rule| selector(rule["type"] == "recording", rule)).collect()
    }
}

fn selector(recorded: bool, rule: &Value) -> String {
    if recorded {
        return rule["name"].as_str().unwrap().to_owned();
    }
    let mut query = rule["query"].as_str().unwrap().to_owned();
    for comparison in [" == ", " != ", " >= ", " <= ", " > ", " < "] {
        query = query.replace(comparison, &format!("{comparison}bool "));
    }
    query
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
