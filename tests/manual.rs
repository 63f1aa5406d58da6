//! Pages and examples that are made from the code, or that must agree with it.
//!
//! `UPDATE=1 cargo test --test manual` writes the pages; without it they are compared.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use chickadee::config::load::{FileText, Machine, Sources, load};
use chickadee::metrics::{Kind, Metrics, Row, rendered};
use chickadee::types::ByteSize;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\nMade from the catalog in `src/metrics`; a test compares. Base units; counters end in \
         `_total`; labels have closed sets of values, but for names of members and builds. With them go the \
         `process_*` metrics that every exporter has.\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    let mut families: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in Metrics::rows().chain(rendered::ROWS) {
        families.entry(row.name).or_default().push(row);
    }
    for (name, rows) in families {
        let kind = match rows[0].kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (label, value) in rows.iter().flat_map(|row| row.labels) {
            let values = labels.entry(label).or_default();
            values.extend((!value.is_empty()).then_some(*value));
        }
        let label = |(label, values): (&&str, &BTreeSet<&str>)| {
            let values: Vec<&str> = values.iter().copied().collect();
            if values.is_empty() {
                format!("`{label}`")
            } else {
                format!("`{label}` = {}", values.join(", "))
            }
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        let mut help: Vec<&str> = rows.iter().map(|row| row.help).collect();
        help.dedup();
        writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join("; "), help.join(" "))
            .unwrap();
    }
    page
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = root().join("src/manual/metrics.md");
    let page = metrics_page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == page, "run the tests with UPDATE=1 to write {}", path.display());
}

#[test]
fn metrics_are_named_by_the_rules() {
    for row in Metrics::rows().chain(rendered::ROWS) {
        let name = row.name;
        assert!(name.starts_with("chickadee_"), "{name}");
        assert_eq!(name.ends_with("_total"), row.kind == Kind::Counter, "{name}");
        assert!(row.help.ends_with('.'), "{name}: {}", row.help);
        for (label, value) in row.labels {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(label.chars().all(plain) && value.chars().all(plain), "{name}");
        }
    }
}

/// The file is installed as it stands, on a host that has neither secret nor password.
#[test]
fn the_deployed_settings_are_good_as_they_stand_and_for_a_cluster() {
    let text = fs::read_to_string(root().join("deploy/chickadee.toml")).unwrap();
    let load = |text: &str, credentials: &[(&'static str, &str)]| {
        let credentials = credentials.iter().map(|(name, file)| (*name, PathBuf::from(file)));
        let machine = Machine {
            host_name: "a".to_owned(),
            total_memory: ByteSize(1 << 30),
            data_dir: PathBuf::from("/data"),
            runtime_dir: None,
            credentials: credentials.collect(),
        };
        let sources = Sources {
            file: Some(FileText { path: "deploy/chickadee.toml", text }),
            environment: &BTreeMap::new(),
            flags: &[],
            form: false,
            machine: &machine,
        };
        load(&sources)
    };
    let alone = load(&text, &[]).unwrap().config;
    assert!(alone.cluster.join.is_empty());
    assert!(alone.client.listen.iter().all(|address| address.ip().is_loopback()));

    let open = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(char::is_alphabetic) => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    let for_a_cluster: String = text.lines().map(open).collect();
    let missing = load(&for_a_cluster, &[]).unwrap_err().to_string();
    assert!(missing.contains("needs a secret"), "{missing}");
    let credentials = [("secret", "/run/secret"), ("password", "/run/password")];
    let several = load(&for_a_cluster, &credentials).unwrap().config;
    assert_eq!(several.cluster.join.len(), 3);
    let listen = [several.gossip.listen, several.peer.listen, several.client.listen[0]];
    assert!(listen.iter().all(|address| address.ip().is_unspecified()), "{listen:?}");
    // What is not commented out by then is prose.
    let comments = for_a_cluster.lines().filter_map(|line| line.strip_prefix('#'));
    assert!(comments.into_iter().all(|rest| rest.is_empty() || rest.starts_with(' ')));
}

#[test]
fn the_deployed_scrape_config_is_good() {
    let path = root().join("deploy/prometheus/prometheus.yml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(":9400/v1/sd"), "nodes are found through a node's admin address");
    match Command::new("promtool").args(["check", "config"]).arg(&path).output() {
        Ok(checked) => {
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
        Err(error) => println!("left out: promtool does not run ({error})"),
    }
}

#[test]
fn what_the_readme_links_to_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local: Vec<&str> = links.filter(|link| !link.contains("://")).collect();
    assert!(local.len() > 5);
    for link in local {
        assert!(root().join(link).exists(), "{link}");
    }
    assert!(readme.contains("\ncargo run --release -- dev\n"));
    assert!(readme.contains("\ncargo test --all-features\n"));
}
