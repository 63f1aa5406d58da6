//! What `deploy/docker` says agrees with the program and with itself; `tests/docker/run` tries it.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chickadee::config::Config;
use chickadee::config::load::{Machine, Sources, load};
use chickadee::types::ByteSize;
use serde_yaml_ng::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/docker")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

fn compose() -> Value {
    let mut compose: Value = serde_yaml_ng::from_str(&read("compose.yaml")).unwrap();
    compose.apply_merge().unwrap();
    compose
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_sequence().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

fn named<'a>(compose: &'a Value, what: &str) -> BTreeMap<&'a str, &'a Value> {
    let entries = compose[what].as_mapping().unwrap().iter();
    entries.map(|(name, value)| (name.as_str().unwrap(), value)).collect()
}

fn nodes(compose: &Value) -> BTreeMap<&str, &Value> {
    let mut services = named(compose, "services");
    services.retain(|name, _| name.starts_with("node"));
    services
}

/// The words after an instruction of the Dockerfile, each line of it by itself.
fn instructions<'a>(dockerfile: &'a str, instruction: &str) -> Vec<&'a str> {
    let rest = |line: &'a str| Some(line.strip_prefix(instruction)?.trim());
    dockerfile.lines().filter_map(rest).collect()
}

/// The settings of a container: the image's variables and those of compose.yaml, and the secrets.
fn settings(of_compose: &Value) -> Config {
    let dockerfile = read("Dockerfile");
    let image = instructions(&dockerfile, "ENV ");
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in image.iter().map(|line| line.split_once('=').unwrap()) {
        environment.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in of_compose["environment"].as_mapping().unwrap() {
        environment.insert(name.as_str().unwrap().into(), value.as_str().unwrap().into());
    }
    let secrets = Path::new(&environment["CREDENTIALS_DIRECTORY"]);
    let credentials = texts(&of_compose["secrets"]);
    assert_eq!(credentials, ["secret", "password"]);
    let machine = Machine {
        host_name: of_compose["hostname"].as_str().unwrap().to_owned(),
        total_memory: ByteSize(1 << 30),
        data_dir: PathBuf::from(&environment["STATE_DIRECTORY"]),
        runtime_dir: None,
        credentials: ["secret", "password"].map(|name| (name, secrets.join(name))).into(),
    };
    let environment = &environment;
    let sources = Sources { file: None, environment, flags: &[], form: false, machine: &machine };
    load(&sources).unwrap().config
}

#[test]
fn the_variables_of_a_container_are_good_settings() {
    let compose = compose();
    let nodes = nodes(&compose);
    assert_eq!(nodes.keys().copied().collect::<Vec<_>>(), ["node1", "node2", "node3"]);
    let dockerfile = read("Dockerfile");
    let exposed: BTreeSet<&str> = instructions(&dockerfile, "EXPOSE ")[0].split(' ').collect();
    for (name, node) in &nodes {
        let config = settings(node);
        assert_eq!(config.node.name.to_string(), *name);
        let seeds = nodes.keys().map(|seed| format!("{seed}:{}", config.peer.listen.port()));
        assert_eq!(config.cluster.join, seeds.collect::<Vec<_>>());
        let udp = [config.gossip.listen, config.peer.listen];
        let client = config.client.listen.iter().chain(&config.client.cluster_listen);
        let tcp = client.chain(&config.admin.listen);
        let ports: BTreeSet<String> = (udp.iter().map(|address| format!("{}/udp", address.port())))
            .chain(tcp.map(|address| address.port().to_string()))
            .collect();
        assert_eq!(ports.iter().map(String::as_str).collect::<BTreeSet<_>>(), exposed);
        let data = instructions(&dockerfile, "VOLUME ")[0];
        assert_eq!(config.node.data_dir, Path::new(data));
        assert_eq!(texts(&node["volumes"]), [format!("{name}:{data}")]);
        let patience = node["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap();
        let leaving = config.cluster.leave_timeout.as_secs();
        assert!(patience.parse::<u64>().unwrap() > leaving, "{patience} s, {leaving} s");
    }
}

#[test]
fn compose_names_what_exists() {
    let compose = compose();
    let volumes = named(&compose, "volumes");
    let secrets = named(&compose, "secrets");
    let mut published = BTreeSet::new();
    for (name, service) in named(&compose, "services") {
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(folder().join(source).exists(), "{name}: {volume}");
            } else {
                assert!(volumes.contains_key(source), "{name}: {volume}");
            }
        }
        for secret in texts(&service["secrets"]) {
            assert!(secrets.contains_key(secret), "{name}: {secret}");
        }
        for port in texts(&service["ports"]) {
            let (outside, _) = port.rsplit_once(':').unwrap();
            assert!(outside.starts_with("127.0.0.1:"), "{name}: {port}");
            assert!(published.insert(outside.to_owned()), "{name}: {port} stands twice");
        }
        if let Some(dockerfile) = service["build"]["dockerfile"].as_str() {
            let context = folder().join(service["build"]["context"].as_str().unwrap());
            assert!(context.join(dockerfile).exists(), "{name}: {dockerfile}");
        }
    }
    let ignored = read(".gitignore");
    for secret in secrets.values() {
        let file = secret["file"].as_str().unwrap().trim_start_matches('.');
        assert!(ignored.lines().any(|line| line == file), "{file} would be committed");
    }
}

#[test]
fn prometheus_scrapes_the_nodes_of_compose() {
    let text = read("prometheus.yml");
    let prometheus: Value = serde_yaml_ng::from_str(&text).unwrap();
    let compose = compose();
    let job = &prometheus["scrape_configs"][0];
    let found = job["http_sd_configs"].as_sequence().unwrap();
    assert!(found.len() > 1, "one of them may be down");
    for discovery in found {
        let url = discovery["url"].as_str().unwrap();
        let host = url.strip_prefix("http://").unwrap().strip_suffix(":9400/v1/sd").unwrap();
        assert!(nodes(&compose).contains_key(host), "{url}");
    }
    // The alerts are about this job.
    let rules = fs::read_to_string(folder().join("../prometheus/rules.yml")).unwrap();
    assert!(rules.contains(&format!("up{{job=\"{}\"}}", job["job_name"].as_str().unwrap())));
    let together = tempfile::tempdir().unwrap();
    let config = together.path().join("prometheus.yml");
    fs::write(&config, text).unwrap();
    fs::write(together.path().join("rules.yml"), rules).unwrap();
    match Command::new("promtool").args(["check", "config"]).arg(&config).output() {
        Ok(checked) => {
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
        Err(error) => println!("left out: promtool does not run ({error})"),
    }
}
