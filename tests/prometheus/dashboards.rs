//! Grafana's dashboards of `deploy/grafana`, read as JSON: their panels, their queries, and what is
//! wrong with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::unknown;

/// Panels that ask no data source.
const WITHOUT_QUERIES: [&str; 2] = ["row", "alertlist"];

/// The dashboards' file names without their ending.
pub(crate) const NAMES: [&str; 2] = ["overview", "node"];

/// Reads a dashboard.
pub(crate) fn read(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana");
    let text = fs::read_to_string(folder.join(name).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or("")
}

/// Every query of a dashboard, variables in it.
pub(crate) fn queries(dashboard: &Value) -> Vec<String> {
    let targets = list(dashboard, "panels").iter().flat_map(|panel| list(panel, "targets"));
    targets.map(|target| text(target, "expr").to_owned()).collect()
}

/// A query with these in the place of its variables.
pub(crate) fn filled_in(query: &str, cluster: &str, instance: &str) -> String {
    query
        .replace("$cluster", cluster)
        .replace("$instance", instance)
        .replace("$__rate_interval", "15s")
}

/// What is wrong with a dashboard.
pub(crate) fn faults(dashboard: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in list(dashboard, "panels") {
        let (kind, title) = (text(panel, "type"), text(panel, "title"));
        if !ids.insert(panel["id"].as_u64().unwrap_or(0)) || title.is_empty() {
            faults.push(format!("{title:?}: another panel has its id, or it has no title"));
        }
        if kind == "row" {
            continue;
        }
        if text(panel, "description").len() < 10 {
            faults.push(format!("{title}: it does not say what it means"));
        }
        if !WITHOUT_QUERIES.contains(&kind) {
            faults.extend(query_faults(panel).map(|fault| format!("{title}: {fault}")));
        }
    }
    faults.extend(place_faults(dashboard));
    let variables: Vec<&str> =
        list(&dashboard["templating"], "list").iter().map(|it| text(it, "name")).collect();
    for query in queries(dashboard) {
        faults.extend(unknown(&query).into_iter().map(|name| format!("no metric: {name}")));
        let used = query.split('$').skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        });
        let is_known = |name: &&str| *name == "__rate_interval" || variables.contains(name);
        let unknown = used.filter(|name| !is_known(name));
        faults.extend(unknown.map(|name| format!("no variable: {name} in {query}")));
    }
    faults
}

fn query_faults(panel: &Value) -> impl Iterator<Item = String> {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let targets = list(panel, "targets");
    let ids: BTreeSet<&str> = targets.iter().map(|target| text(target, "refId")).collect();
    let has_source = |of: &Value| of["datasource"] == source;
    let fixed = |target: &Value| {
        let query = text(target, "expr");
        query.contains('[') && !query.contains("[$__rate_interval]")
    };
    let found = [
        (ids.len() != targets.len() || ids.contains(""), "two queries have one refId, or one none"),
        (targets.is_empty(), "it asks nothing"),
        (
            !has_source(panel) || !targets.iter().all(has_source),
            "its data source is not that chosen",
        ),
        (targets.iter().any(fixed), "a rate over a fixed time misses points when zoomed out"),
        (
            panel["fieldConfig"]["defaults"]["unit"].is_null()
                && text(panel, "type") == "timeseries",
            "its numbers have no unit",
        ),
    ];
    found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, fault)| fault.to_owned())
}

/// Panels that stand on each other, or outside.
fn place_faults(dashboard: &Value) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut faults = Vec::new();
    for panel in list(dashboard, "panels") {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(u64::MAX);
        if at("x").saturating_add(at("w")) > 24 || at("y") > 10_000 || at("h") > 24 {
            faults.push(format!("{}: outside of the grid", text(panel, "title")));
            continue;
        }
        let cells = (at("y")..at("y") + at("h"))
            .flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y)));
        if cells.filter(|cell| !taken.insert(*cell)).count() > 0 {
            faults.push(format!("{}: on another panel", text(panel, "title")));
        }
    }
    faults
}

#[test]
fn the_dashboards_are_sound() {
    for name in NAMES {
        let dashboard = read(name);
        assert!(queries(&dashboard).len() > 40, "{name}");
        assert_eq!(faults(&dashboard), Vec::<String>::new(), "{name}");
        let variables = list(&dashboard["templating"], "list");
        assert_eq!(text(&variables[0], "type"), "datasource", "{name}");
    }
}

/// Spoils a dashboard.
type Change<'a> = &'a dyn Fn(&mut Value);

#[test]
fn every_fault_of_a_dashboard_is_found() {
    let spoil = |change: Change<'_>| {
        let mut dashboard = read("overview");
        change(&mut dashboard);
        faults(&dashboard)
    };
    let changes: [(&str, Change<'_>); 9] = [
        ("id", &|it| {
            it["panels"][2]["id"] = it["panels"][1]["id"].clone();
        }),
        ("does not say", &|it| it["panels"][1]["description"] = json!("")),
        ("refId", &|it| it["panels"][1]["targets"][1]["refId"] = json!("A")),
        ("asks nothing", &|it| it["panels"][1]["targets"] = json!([])),
        ("data source", &|it| it["panels"][1]["datasource"] = json!({ "uid": "prom" })),
        ("fixed time", &|it| it["panels"][1]["targets"][0]["expr"] = json!("rate(up[5m])")),
        ("on another panel", &|it| it["panels"][2]["gridPos"] = it["panels"][1]["gridPos"].clone()),
        ("no metric: chickadee_kees", &|it| {
            it["panels"][1]["targets"][0]["expr"] = json!("chickadee_kees");
        }),
        ("no variable: node", &|it| {
            it["panels"][1]["targets"][0]["expr"] = json!("up{n=\"$node\"}");
        }),
    ];
    for (expected, change) in changes {
        let found = spoil(change);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn dashboards_and_data_source_are_provisioned() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/provisioning");
    for (file, parts) in [
        ("datasources/prometheus.yaml", ["apiVersion: 1", "type: prometheus", "timeInterval: 10s"]),
        ("dashboards/chickadee.yaml", ["apiVersion: 1", "type: file", "path: /var/lib/grafana/"]),
    ] {
        let yaml = fs::read_to_string(folder.join(file)).unwrap();
        assert!(parts.iter().all(|part| yaml.contains(part)), "{file}:\n{yaml}");
        assert!(!yaml.contains('\t'), "{file}: YAML knows no tabs");
    }
    let scrapes = fs::read_to_string(super::deployed("prometheus.yml")).unwrap();
    assert!(scrapes.contains("scrape_interval: 10s"), "as the data source says");
}
