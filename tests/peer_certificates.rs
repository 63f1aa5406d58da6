//! Nodes that prove themselves with an operator's certificates: made by the command line, renewed by a
//! reload, and refused where they are not of the cluster's authority.

#![expect(clippy::unwrap_used, reason = "a test whose cluster answers something else has failed")]

mod support;

use std::fs;
use std::path::Path;

use support::resp::{bulk, ok};
use support::{Cluster, Node, program, wait_for};

/// Runs `chickadee cert …`; what it said on stderr, and whether it did what it was told.
fn cert(arguments: &[&str]) -> (bool, String) {
    let done = program().arg("cert").args(arguments).output().unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn made(arguments: &[&str]) {
    let (done, words) = cert(arguments);
    assert!(done, "{arguments:?}: {words}");
}

/// The settings of the node `name`, whose files are in `folder`.
fn settings(folder: &Path, name: &str) -> Vec<String> {
    let file =
        |setting: &str, file: String| format!("security.{setting}={}", folder.join(file).display());
    vec![
        file("cert_file", format!("{name}.pem")),
        file("key_file", format!("{name}.key")),
        file("ca_file", "ca.pem".to_owned()),
    ]
}

fn add(cluster: &mut Cluster, folder: &Path, name: &str) -> usize {
    let settings = settings(folder, name);
    cluster.add(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

fn end(node: &Node) -> f64 {
    node.metric("chickadee_tls_certificate_not_after_timestamp_seconds", "use=\"peer\"")
}

fn reload(node: &Node) -> f64 {
    let log = node.log().matches("settings were").count();
    node.signal("HUP");
    wait_for("the node has read its settings again", || {
        let lines = node.log();
        let told = lines.matches("settings were").count() + lines.matches("not taken over").count();
        (told > log).then_some(())
    });
    node.metric("chickadee_config_last_reload_successful", "")
}

#[test]
fn nodes_trust_an_operators_authority_and_take_renewed_certificates_while_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let at = folder.to_str().unwrap();
    made(&["ca", "--out", at]);
    let mut cluster = Cluster::new(&[]);
    for number in 0..3 {
        let name = format!("n{number}");
        made(&["issue", &name, "--ca", at, "--out", at, "--valid", "30d"]);
        add(&mut cluster, folder, &name);
    }
    cluster.wait_settled(3);
    assert_eq!(cluster.client(0).run(&["SET", "key", "value"]), ok());
    assert_eq!(cluster.client(1).run(&["GET", "key"]), bulk("value"));

    // A new authority: first all trust both, then each shows a certificate of the new one.
    let (next, before) = (folder.join("next"), end(&cluster.nodes[0]));
    let next_at = next.to_str().unwrap();
    made(&["ca", "--out", next_at]);
    let both = [folder.join("ca.pem"), next.join("ca.pem")].map(|file| fs::read(file).unwrap());
    fs::write(folder.join("ca.pem"), both.concat()).unwrap();
    for node in &cluster.nodes {
        assert!(reload(node) > 0.5);
    }
    for number in 0..3 {
        let name = format!("n{number}");
        made(&["issue", &name, "--ca", next_at, "--out", next_at, "--valid", "60d"]);
        for end in ["key", "pem"] {
            let file = format!("{name}.{end}");
            fs::rename(next.join(&file), folder.join(&file)).unwrap();
        }
        assert!(reload(&cluster.nodes[number]) > 0.5);
        assert!(end(&cluster.nodes[number]) > before, "the metric is that of the new one");
    }
    fs::copy(next.join("ca.pem"), folder.join("ca.pem")).unwrap();
    for node in &cluster.nodes {
        assert!(reload(node) > 0.5);
    }
    // Who comes back makes every connection anew.
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    cluster.wait_settled(3);
    assert_eq!(cluster.client(1).run(&["GET", "key"]), bulk("value"));

    // A wrong file changes nothing.
    fs::write(folder.join("n0.pem"), "no certificate\n").unwrap();
    assert!(reload(&cluster.nodes[0]) < 0.5);
    assert!(cluster.nodes[0].log().contains("security.cert_file"), "the log names the setting");
    cluster.wait_settled(3);
}

#[test]
fn who_has_a_certificate_of_another_authority_is_kept_out_although_it_has_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for (place, name) in [(&ours, "n0"), (&theirs, "n1")] {
        let at = place.to_str().unwrap();
        made(&["ca", "--out", at]);
        made(&["issue", name, "--ca", at, "--out", at]);
    }
    let mut cluster = Cluster::new(&[]);
    add(&mut cluster, &ours, "n0");
    cluster.wait_settled(1);
    add(&mut cluster, &theirs, "n1");
    // And one that has no certificate but what follows from the secret.
    cluster.add(&[]);
    for stranger in [1, 2] {
        wait_for("the stranger says that it is refused", || {
            let status = cluster.nodes[stranger].http("/readyz")?;
            (status.0 == 503 && status.1.contains("peer uses another")).then_some(())
        });
    }
    let members = cluster.nodes[0].json("/v1/members").unwrap();
    assert_eq!(members.as_array().unwrap().len(), 1);
}

#[test]
fn certificates_are_made_privately_never_overwritten_and_shown_with_their_end() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    let (done, words) = cert(&["issue", "n1", "--ca", at]);
    assert!(!done && words.contains("chickadee cert ca"), "{words}");
    made(&["ca", "--out", at, "--cluster", "prod"]);
    let (done, words) = cert(&["ca", "--out", at]);
    assert!(!done && words.contains("ca.key: File exists"), "{words}");
    let host = ["--host", "db1.example.com", "--host", "10.0.0.1"];
    made(&[&["issue", "n1", "--ca", at, "--out", at, "--cluster", "prod"], &host[..]].concat());
    let mode =
        |file: &str| fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("ca.key"), mode("n1.key")], [0o600, 0o600]);
    let show = |file: &str| {
        let path = folder.path().join(file);
        let done = program().args(["cert", "show", "--json"]).arg(path).output().unwrap();
        let json = serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap_or_default();
        (done.status.code(), json)
    };
    let (code, shown) = show("n1.pem");
    assert_eq!(code, Some(0));
    assert_eq!(shown[0]["issuer"], "CN=chickadee prod authority");
    let names = ["db1.example.com", "10.0.0.1", "peer.prod.chickadee"];
    assert_eq!(shown[0]["names"], serde_json::json!(names));
    made(&["issue", "n2", "--ca", at, "--out", at, "--valid", "0s"]);
    assert_eq!(show("n2.pem").0, Some(1), "it has ended");
    assert_eq!(show("n2.key").0, Some(1), "no certificate");
}
