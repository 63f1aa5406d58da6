//! What must hold between settings, each rule with the way to mend it.

use std::net::SocketAddr;

use crate::config::load::{ConfigError, Loaded};
use crate::config::settings::find;
use crate::config::{ClientConfig, Config};
use crate::types::units::format_span;

/// Checks every relation; the first that does not hold is the error.
pub(super) fn check(loaded: &Loaded) -> Result<(), ConfigError> {
    let Config {
        node: _,
        cluster,
        security,
        gossip,
        peer,
        client,
        admin: _,
        memory: _,
        snapshot: _,
        log: _,
    } = &loaded.config;
    let secret = security.secret_file.is_some();
    let files = [&security.cert_file, &security.key_file, &security.ca_file];
    let named = files.iter().filter(|file| file.is_some()).count();
    let fault = |key: &'static str, message: String| {
        let value = find(key).map(|row| row.show(&loaded.config)).unwrap_or_default();
        Err(ConfigError::Relation { origin: loaded.origin(key), key, value, message })
    };
    for (key, address) in [("gossip.listen", gossip.listen), ("peer.listen", peer.listen)] {
        if beyond_loopback(address) && !secret {
            return fault(key, NEEDS_SECRET.to_owned());
        }
    }
    if named > 0 && named < files.len() {
        return fault("security.cert_file", NEEDS_ALL_THREE.to_owned());
    }
    if let Some((key, message)) = trust_of_clients(client) {
        return fault(key, message.to_owned());
    }
    if client.listen.is_empty() {
        return fault("client.listen", "at least one address is needed".to_owned());
    }
    if gossip.listen == peer.listen && gossip.listen.port() != 0 {
        return fault("gossip.listen", "must differ from peer.listen: both are UDP".to_owned());
    }
    if client.op_timeout <= peer.call_timeout {
        let call = format_span(peer.call_timeout);
        let message = format!("must be longer than peer.call_timeout ({call})");
        return fault("client.op_timeout", message);
    }
    if client.output_buffer_limit < client.max_value_size {
        let value = client.max_value_size;
        let message = format!("must be at least client.max_value_size ({value})");
        return fault("client.output_buffer_limit", message);
    }
    if cluster.tombstone_grace <= cluster.ring_grace {
        let ring = format_span(cluster.ring_grace);
        let message = format!("must be longer than cluster.ring_grace ({ring})");
        return fault("cluster.tombstone_grace", message);
    }
    Ok(())
}

impl ClientConfig {
    /// Whether somebody on another host, who has no certificate, can connect.
    pub fn lets_strangers_connect(&self) -> bool {
        let open = |addresses: &[SocketAddr]| addresses.iter().copied().any(beyond_loopback);
        let over_tls = open(&self.tls_listen) || open(&self.cluster_tls_listen);
        open(&self.listen)
            || open(&self.cluster_listen)
            || (over_tls && self.tls_client_ca_file.is_none())
    }
}

/// What is missing for clients to be told from strangers, and where.
fn trust_of_clients(client: &ClientConfig) -> Option<(&'static str, &'static str)> {
    let known = client.password_file.is_some()
        || client.acl_file.is_some()
        || client.danger_allow_anonymous;
    let open = |addresses: &[SocketAddr]| addresses.iter().copied().any(beyond_loopback);
    let plain =
        [("client.listen", &client.listen), ("client.cluster_listen", &client.cluster_listen)];
    let tls = [
        ("client.tls_listen", &client.tls_listen),
        ("client.cluster_tls_listen", &client.cluster_tls_listen),
    ];
    for (key, addresses) in plain {
        if open(addresses) && !known {
            return Some((key, NEEDS_PASSWORD));
        }
    }
    let has_identity = client.tls_cert_file.is_some() && client.tls_key_file.is_some();
    for (key, addresses) in tls {
        if !addresses.is_empty() && !has_identity {
            return Some((key, NEEDS_CERTIFICATE));
        }
        if open(addresses) && !known && client.tls_client_ca_file.is_none() {
            return Some((key, NEEDS_CLIENT_CERTIFICATES));
        }
    }
    None
}

const NEEDS_ALL_THREE: &str = "certificate, key and authorities go together: set \
                               security.cert_file, security.key_file and security.ca_file, or none";
const NEEDS_SECRET: &str = "reaches beyond loopback, which needs a secret: make one with \
                            `chickadee keygen --out FILE` and name it by security.secret_file";
const NEEDS_PASSWORD: &str = "reaches beyond loopback, which needs a password: name its file by \
                              client.password_file or client.acl_file, or set client.danger_allow_anonymous";
const NEEDS_CERTIFICATE: &str = "TLS needs a certificate and its key: name their files by \
                                 client.tls_cert_file and client.tls_key_file";
const NEEDS_CLIENT_CERTIFICATES: &str = "reaches beyond loopback, which needs a password or client \
                                         certificates: name a file by client.password_file or \
                                         client.tls_client_ca_file, or set \
                                         client.danger_allow_anonymous";

fn beyond_loopback(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}
