//! `chickadee doctor` on this machine: without a node, and with a cluster of real ones.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up has failed, and one that finds nothing says what there was"
)]

mod support;

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use support::{Cluster, program};

/// Settings of a node that has nothing to do with any other on this machine.
fn apart(folder: &Path) -> Vec<String> {
    let settings = [
        "client.listen=127.0.0.1:0".to_owned(),
        "gossip.listen=127.0.0.1:0".to_owned(),
        "peer.listen=127.0.0.1:0".to_owned(),
        "admin.listen=127.0.0.1:0".to_owned(),
        "memory.limit=64MiB".to_owned(),
        format!("admin.socket={}", folder.join("admin.sock").display()),
        format!("node.data_dir={}", folder.join("data").display()),
    ];
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
}

/// The exit code and what was found, by check.
fn doctor(arguments: &[String]) -> (i32, Value) {
    let mut command = program();
    let output = command.args(["doctor", "--json"]).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), found.unwrap_or_else(|_| panic!("{errors}")))
}

/// The finding of a check.
fn finding<'a>(found: &'a Value, check: &str) -> &'a Value {
    let findings = found["findings"].as_array().unwrap();
    findings.iter().find(|it| it["check"] == check).unwrap_or_else(|| panic!("{check}: {found}"))
}

#[test]
fn a_machine_without_a_node_is_looked_at_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = apart(folder.path());
    let (code, found) = doctor(&settings);
    assert_eq!((code, &found["healthy"]), (0, &Value::Bool(true)), "{found}");
    assert_eq!(finding(&found, "node")["level"], "ok");
    assert_eq!(finding(&found, "ports")["level"], "ok");
    assert!(finding(&found, "data folder")["found"].as_str().unwrap().contains("will be made"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing was made");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    settings.extend(["--set".to_owned(), format!("client.listen=127.0.0.1:{port}")]);
    settings.extend(["--join".to_owned(), "no.such.host.invalid".to_owned()]);
    let (code, found) = doctor(&settings);
    assert_eq!(code, 1, "{found}");
    let ports = finding(&found, "ports");
    assert_eq!(ports["level"], "fail");
    assert!(ports["found"].as_str().unwrap().contains(&format!("127.0.0.1:{port} is taken")));
    assert_eq!(finding(&found, "seeds")["level"], "fail");
}

#[test]
fn what_is_wrong_is_a_line_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "short").unwrap();
    let mut settings = apart(folder.path());
    settings.extend(["--secret-file".to_owned(), secret.display().to_string()]);
    let mut command = program();
    let output = command.args(["doctor", "--format", "plain"]).args(&settings).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8(output.stdout).unwrap();
    let line = lines.lines().find(|line| line.contains("\tsecret\t")).unwrap();
    assert!(line.starts_with("FAIL\t"), "{line}");
    assert!(line.contains("chmod 600") || line.contains("keygen"), "{line}");
    assert_eq!(line.split('\t').count(), 4, "{line}");

    // Wrong settings and a node that was named and is not there end as they do elsewhere.
    let output = program().args(["doctor", "--set", "cluster.replicas=99"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let nobody = folder.path().join("none.sock").display().to_string();
    let output = program().args(["doctor", "--socket", &nobody]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_node_is_asked_for_itself_and_its_cluster() {
    let cluster = Cluster::started(2, &["memory.limit=32MiB"]);
    let folder = tempfile::tempdir().unwrap();
    let mut settings = apart(folder.path());
    let peer = cluster.nodes[0].address("peer");
    settings.extend(["--set".to_owned(), format!("peer.listen={peer}")]);
    settings.extend(["--socket".to_owned(), cluster.nodes[0].socket().display().to_string()]);
    let (code, found) = doctor(&settings);
    assert_eq!(code, 0, "{found}");
    for (check, part) in [
        ("node", "n0 is ready"),
        ("ports", "1 held by n0"),
        ("members", "2 alive"),
        ("clock", "of 1 peers"),
        ("memory by weight", "2 members answered"),
        ("versions", env!("CARGO_PKG_VERSION")),
        ("udp buffer", "n0 has"),
    ] {
        let told = finding(&found, check)["found"].as_str().unwrap();
        assert!(told.contains(part), "{check}: {told}");
    }
}

#[test]
fn certificates_that_end_or_are_none_are_found_before_a_node_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    let cert = |arguments: &[&str]| {
        assert!(program().arg("cert").args(arguments).status().unwrap().success());
    };
    cert(&["ca", "--out", at]);
    let file = |name: &str, end: &str| folder.path().join(format!("{name}.{end}"));
    for (name, valid, level, code) in [("long", "30d", "ok", 0), ("short", "2d", "warn", 0)] {
        cert(&["issue", name, "--ca", at, "--out", at, "--valid", valid]);
        let mut settings = apart(folder.path());
        for (setting, end) in [("tls_cert_file", "pem"), ("tls_key_file", "key")] {
            let setting = format!("client.{setting}={}", file(name, end).display());
            settings.extend(["--set".to_owned(), setting]);
        }
        settings.extend(["--set".to_owned(), "client.tls_listen=127.0.0.1:0".to_owned()]);
        let (found_code, found) = doctor(&settings);
        assert_eq!(finding(&found, "certificates")["level"], level, "{found}");
        assert_eq!(found_code, code, "{found}");
        std::fs::write(file(name, "pem"), "no certificate").unwrap();
        let (found_code, found) = doctor(&settings);
        assert_eq!(finding(&found, "certificates")["level"], "fail", "{found}");
        assert_eq!(found_code, 1);
    }
}
