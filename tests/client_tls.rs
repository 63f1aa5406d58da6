//! Clients over TLS: real nodes, a client of rustls, and redis-cli where it is installed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]
#![expect(clippy::float_cmp, reason = "these metrics are whole numbers")]
#![expect(clippy::print_stdout, reason = "what was left out is told")]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use support::resp::Client;
use support::{Cluster, wait_for};
use tls::{Authority, Files, TlsClient};

const ANY: &str = "client.tls_listen=127.0.0.1:0";
const ANY_CLUSTER: &str = "client.cluster_tls_listen=127.0.0.1:0";

fn file(setting: &str, path: &Path) -> String {
    format!("client.{setting}={}", path.display())
}

/// Settings of a node with TLS ports; clients need a certificate of `authority`, if there is one.
fn settings(own: &Files, authority: Option<&Path>) -> Vec<String> {
    let mut settings = vec![ANY.to_owned(), ANY_CLUSTER.to_owned()];
    settings.push(file("tls_cert_file", &own.certificate));
    settings.push(file("tls_key_file", &own.key));
    settings.extend(authority.map(|path| file("tls_client_ca_file", path)));
    settings
}

fn started(count: usize, settings: &[String]) -> Cluster {
    Cluster::started(count, &settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What redis-cli says, if it is here.
fn redis_cli(address: SocketAddr, tls: &[&Path], command: &[&str]) -> Option<Output> {
    let mut program = Command::new("redis-cli");
    program.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "--tls"]);
    for (flag, path) in ["--cacert", "--cert", "--key"].iter().zip(tls) {
        program.arg(flag).arg(path);
    }
    match program.args(command).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("left out: redis-cli does not run ({error})");
            None
        }
    }
}

#[test]
fn clients_are_served_over_tls_as_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.issue("node", 2099);
    let cluster = started(1, &settings(&own, None));
    let node = &cluster.nodes[0];
    let address = node.address("client_tls");
    for version in [&TLS12, &TLS13] {
        let mut client = TlsClient::connect(address, &authority.file, None, &[version]).unwrap();
        assert_eq!(client.ask("SET a 1").unwrap(), "+OK");
        assert_eq!(client.ask("INCR a").unwrap(), ":2");
        assert_eq!(node.metric("chickadee_clients", "kind=\"tls\""), 1.0);
        // A reply that is larger than what TLS and the socket keep.
        assert_eq!(client.ask("SETRANGE large 8000000 x").unwrap(), ":8000001");
        assert_eq!(client.ask("GET large").unwrap(), "$8000001");
        assert_eq!(client.line().unwrap().len(), 8_000_001);
        assert_eq!(client.ask("QUIT").unwrap(), "+OK");
        // The node says goodbye before it closes: rustls would report an end without it.
        assert_eq!(client.line().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        wait_for("the client is gone", || {
            (node.metric("chickadee_clients", "kind=\"tls\"") == 0.0).then_some(())
        });
    }
    let end = node.metric("chickadee_tls_certificate_not_after_timestamp_seconds", "client");
    assert_eq!(end, 4_070_908_800.0, "2099-01-01");
    if let Some(said) = redis_cli(address, &[&authority.file], &["GET", "a"]) {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "2\n", "{said:?}");
    }
    // Bytes that are no TLS are refused and counted, and nobody else is hurt.
    let mut plain = Client::connect(address);
    assert!(plain.try_run(&["PING"]).is_err());
    wait_for("the failed handshake is counted", || {
        let rejected = node.metric("chickadee_client_rejections_total", "reason=\"tls\"");
        (rejected == 1.0).then_some(())
    });
    assert!(TlsClient::connect(address, &authority.file, None, &[&TLS13]).is_ok());
}

#[test]
fn where_an_authority_is_set_only_its_clients_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let strangers = Authority::new(folder.path(), "strangers");
    let own = authority.issue("node", 2099);
    let known = authority.issue("known", 2099);
    let stranger = strangers.issue("stranger", 2099);
    let expired = authority.issue("expired", 2021);
    let cluster = started(1, &settings(&own, Some(&authority.file)));
    let node = &cluster.nodes[0];
    let address = node.address("client_tls");
    let connect = |own: Option<&Files>, version| {
        TlsClient::connect(address, &authority.file, own, &[version])
    };
    for version in [&TLS12, &TLS13] {
        assert_eq!(connect(Some(&known), version).unwrap().ask("ECHO hi").unwrap(), "$2");
        for wrong in [None, Some(&stranger), Some(&expired)] {
            assert!(connect(wrong, version).is_err(), "{wrong:?}");
        }
    }
    wait_for("each refusal is counted", || {
        let reason = "reason=\"certificate\"";
        (node.metric("chickadee_client_rejections_total", reason) == 6.0).then_some(())
    });
    let with = [authority.file.as_path(), &known.certificate, &known.key];
    if let Some(said) = redis_cli(address, &with, &["PING"]) {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "PONG\n", "{said:?}");
        let said = redis_cli(address, &with[..1], &["PING"]).unwrap();
        assert!(!said.status.success(), "{said:?}");
    }
}

#[test]
fn a_reload_swaps_the_certificate_and_a_wrong_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let strangers = Authority::new(folder.path(), "strangers");
    let own = authority.issue("node", 2099);
    let known = authority.issue("known", 2099);
    let stranger = strangers.issue("stranger", 2099);
    let trusted = folder.path().join("trusted.pem");
    fs::copy(&authority.file, &trusted).unwrap();
    let cluster = started(1, &settings(&own, Some(&trusted)));
    let node = &cluster.nodes[0];
    let address = node.address("client_tls");
    let connect = |own: &Files| TlsClient::connect(address, &authority.file, Some(own), &[&TLS13]);
    let mut before = connect(&known).unwrap();
    let first = before.shown();

    // A new certificate under the old names of files, and another authority of clients.
    let second = authority.issue("node", 2098);
    fs::copy(&strangers.file, &trusted).unwrap();
    node.signal("HUP");
    let reloaded = |count: usize| {
        wait_for("the settings are read again", || {
            (node.log().matches("settings were read again").count() == count).then_some(())
        });
    };
    reloaded(1);
    let after = connect(&stranger).unwrap().shown();
    assert_eq!(after, CertificateDer::from_pem_file(&second.certificate).unwrap());
    assert_ne!(after, first);
    assert!(connect(&known).is_err(), "its authority is trusted no more");
    assert_eq!(before.ask("PING").unwrap(), "+PONG", "old connections live");
    let end = node.metric("chickadee_tls_certificate_not_after_timestamp_seconds", "client");
    assert_eq!(end, 4_039_372_800.0, "2098-01-01");

    // A key that does not belong to the certificate.
    let other = authority.issue("other", 2097);
    fs::copy(&other.key, &second.key).unwrap();
    node.signal("HUP");
    wait_for("the wrong key is named", || {
        node.log().contains("is not the key of the certificate in").then_some(())
    });
    assert_eq!(node.metric("chickadee_config_last_reload_successful", ""), 0.0);
    assert_eq!(connect(&stranger).unwrap().shown(), after);
}

#[test]
fn a_node_that_cannot_serve_tls_does_not_start_and_says_why() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.issue("node", 2099);
    let refused = |settings: &[String], part: &str| {
        let mut command = support::program();
        command.args(["serve", "--set", "client.listen=127.0.0.1:0"]);
        command.args(["--set", "gossip.listen=127.0.0.1:0", "--set", "peer.listen=127.0.0.1:0"]);
        command.args(["--set", "admin.listen=127.0.0.1:0", "--set"]);
        command.arg(format!("node.data_dir={}", folder.path().join("data").display()));
        for setting in settings {
            command.args(["--set", setting]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{settings:?}: {said}");
    };
    let certificate = file("tls_cert_file", &own.certificate);
    let key = file("tls_key_file", &own.key);
    refused(&[ANY.to_owned()], "client.tls_cert_file and client.tls_key_file");
    refused(&[ANY_CLUSTER.to_owned(), certificate.clone()], "client.tls_key_file");
    let absent = file("tls_cert_file", &folder.path().join("absent"));
    refused(&[ANY.to_owned(), absent, key.clone()], "client.tls_cert_file");
    let open = "client.tls_listen=0.0.0.0:0".to_owned();
    refused(&[open, certificate.clone(), key.clone()], "client.tls_client_ca_file");
    fs::set_permissions(&own.key, fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&own.key, fs::Permissions::from_mode(0o604)).unwrap();
    refused(&[ANY.to_owned(), certificate, key], "chmod 600");
}

#[test]
fn a_certificate_that_ends_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.issue("node", 2021);
    let cluster = started(1, &settings(&own, None));
    let log = cluster.nodes[0].log();
    assert!(log.contains("certificate has expired"), "{log}");
    assert!(log.contains("ends=2021-01-01T00:00:00Z"), "{log}");
}

/// Beyond loopback a listener needs no password where it lets in only clients with a certificate.
#[test]
fn client_certificates_stand_for_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.issue("node", 2099);
    let mut settings = settings(&own, Some(&authority.file));
    settings[0] = "client.tls_listen=0.0.0.0:0".to_owned();
    let cluster = started(1, &settings);
    let port = cluster.nodes[0].address("client_tls").port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(TlsClient::connect(address, &authority.file, Some(&own), &[&TLS13]).is_ok());
    assert!(TlsClient::connect(address, &authority.file, None, &[&TLS13]).is_err());
}

#[test]
fn the_slot_map_over_tls_names_tls_ports_only() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.issue("node", 2099);
    let cluster = started(3, &settings(&own, None));
    let ports: Vec<u16> =
        cluster.nodes.iter().map(|node| node.address("cluster_tls").port()).collect();
    let all: BTreeSet<u16> = ports.iter().copied().collect();
    for node in &cluster.nodes {
        for which in ["client_tls", "cluster_tls"] {
            let address = node.address(which);
            let mut client = TlsClient::connect(address, &authority.file, None, &[&TLS13]).unwrap();
            let named = ports_of_slots(&mut client);
            assert_eq!(named, all, "each node masters some slots");
        }
        let plain = node.address("cluster").port();
        let mut client = Client::connect(node.address("cluster"));
        let text = format!("{:?}", client.run(&["CLUSTER", "SLOTS"]));
        assert!(text.contains(&format!("Int({plain})")), "{text}");
        assert!(ports.iter().all(|port| !text.contains(&format!("Int({port})"))), "{text}");
    }
}

/// The ports of the masters in CLUSTER SLOTS, after a check that every slot is covered.
fn ports_of_slots(client: &mut TlsClient) -> BTreeSet<u16> {
    let integer = |line: &str| line.strip_prefix(':').unwrap().parse::<u16>().unwrap();
    let header = client.ask("CLUSTER SLOTS").unwrap();
    let ranges: usize = header.strip_prefix('*').unwrap().parse().unwrap();
    let (mut ports, mut slots) = (BTreeSet::new(), 0);
    for _range in 0..ranges {
        // *n :first :last, then for each node *4 $n host :port $40 id *0
        let lines: Vec<String> = (0..3).map(|_| client.line().unwrap()).collect();
        slots += u32::from(integer(&lines[2]) - integer(&lines[1])) + 1;
        let nodes: usize = lines[0].strip_prefix('*').unwrap().parse::<usize>().unwrap() - 2;
        for place in 0..nodes {
            let lines: Vec<String> = (0..7).map(|_| client.line().unwrap()).collect();
            if place == 0 {
                ports.insert(integer(&lines[3]));
            }
        }
    }
    assert_eq!(slots, 16_384);
    ports
}
