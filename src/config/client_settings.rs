//! The rows of the section `client` in the table of settings.

use std::path::PathBuf;

use crate::config::setting::{BLANK, Change, Setting};
use crate::config::settings::{DAY, GIB, KIB, MIB, ms, path, secs};
use crate::config::value::{Kind, Value};

/// The ports for clients, who may use them, and what a connection may take.
pub(super) const CLIENT: &[Setting] = &[
    Setting {
        key: "client.listen",
        kind: Kind::Addresses,
        default: "127.0.0.1:6379",
        doc: "Where clients are received (RESP over TCP); port 0 takes any.",
        more: "Every command works on every node: what another node holds is proxied.",
        put: |c, v| c.client.listen = v.addresses(),
        get: |c| Value::Addresses(c.client.listen.clone()),
        ..BLANK
    },
    Setting {
        key: "client.cluster_listen",
        kind: Kind::Addresses,
        fallback: "the client port + 10000 where that is possible, else any",
        doc: "Where Redis Cluster clients are received; what CLUSTER SLOTS names.",
        put: |c, v| c.client.cluster_listen = v.addresses(),
        get: |c| Value::Addresses(c.client.cluster_listen.clone()),
        ..BLANK
    },
    Setting {
        key: "client.advertise",
        kind: Kind::Address,
        fallback: "as listened",
        doc: "The client address that members and tools are told.",
        put: |c, v| c.client.advertise = v.address(),
        get: |c| c.client.advertise.map_or(Value::Nothing, |a| Value::Addresses(vec![a])),
        ..BLANK
    },
    Setting {
        key: "client.cluster_advertise",
        kind: Kind::Address,
        fallback: "as listened",
        doc: "The cluster address that CLUSTER SLOTS names.",
        put: |c, v| c.client.cluster_advertise = v.address(),
        get: |c| c.client.cluster_advertise.map_or(Value::Nothing, |a| Value::Addresses(vec![a])),
        ..BLANK
    },
    Setting {
        key: "client.tls_listen",
        kind: Kind::Addresses,
        fallback: "off",
        doc: "Where clients are received over TLS; port 0 takes any.",
        more: "Needs `client.tls_cert_file` and `client.tls_key_file`. TLS 1.2 and 1.3 are spoken. \
               Beyond loopback it needs a password, users, or `client.tls_client_ca_file`.",
        put: |c, v| c.client.tls_listen = v.addresses(),
        get: |c| Value::Addresses(c.client.tls_listen.clone()),
        ..BLANK
    },
    Setting {
        key: "client.cluster_tls_listen",
        kind: Kind::Addresses,
        fallback: "off",
        doc: "Where Redis Cluster clients are received over TLS; what CLUSTER SLOTS names to them.",
        put: |c, v| c.client.cluster_tls_listen = v.addresses(),
        get: |c| Value::Addresses(c.client.cluster_tls_listen.clone()),
        ..BLANK
    },
    Setting {
        key: "client.tls_cert_file",
        kind: Kind::Path,
        fallback: "none",
        change: Change::Reload,
        doc: "The certificate that clients are shown over TLS (PEM), with what leads to its authority.",
        put: |c, v| c.client.tls_cert_file = v.text().map(PathBuf::from),
        get: |c| path(c.client.tls_cert_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "client.tls_key_file",
        kind: Kind::Path,
        fallback: "none",
        change: Change::Reload,
        doc: "The private key of that certificate (PEM); no other user may read it.",
        put: |c, v| c.client.tls_key_file = v.text().map(PathBuf::from),
        get: |c| path(c.client.tls_key_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "client.tls_client_ca_file",
        kind: Kind::Path,
        fallback: "none: clients need no certificate",
        change: Change::Reload,
        doc: "Authorities (PEM) by one of which the certificate of a TLS client must be signed.",
        more: "Where it is set, a TLS client without such a certificate is refused.",
        put: |c, v| c.client.tls_client_ca_file = v.text().map(PathBuf::from),
        get: |c| path(c.client.tls_client_ca_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "client.op_timeout",
        kind: Kind::Span { min: ms(50), max: secs(60), zero: None },
        default: "2s",
        doc: "The budget of one command, retries at other nodes included.",
        more: "Longer than `peer.call_timeout`, by several tries.",
        put: |c, v| c.client.op_timeout = v.span(),
        get: |c| Value::Span(c.client.op_timeout),
        ..BLANK
    },
    Setting {
        key: "client.password_file",
        kind: Kind::Path,
        fallback: "none",
        credential: Some("password"),
        change: Change::Reload,
        doc: "The file with the passwords that clients must give (AUTH): a line each, any is right.",
        more: "Several lines, at most eight, serve to exchange one for another. They are those of the \
               user `default`, if `client.acl_file` does not define it. Where this is not set, the file `password` in `$CREDENTIALS_DIRECTORY` is used if \
               there is one.",
        put: |c, v| c.client.password_file = v.text().map(PathBuf::from),
        get: |c| path(c.client.password_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "client.acl_file",
        kind: Kind::Path,
        fallback: "none: one user, `default`, who may do everything",
        change: Change::Reload,
        doc: "The file of users and what they may do, in the format of Redis's ACL files.",
        more: "Commands are allowed by name, subcommand and category, keys by patterns. Selectors, and \
               rules about arguments of commands, do not exist.",
        put: |c, v| c.client.acl_file = v.text().map(PathBuf::from),
        get: |c| path(c.client.acl_file.as_ref()),
        ..BLANK
    },
    Setting {
        key: "client.max_clients",
        kind: Kind::Count { min: 1, max: 1_000_000, or: None },
        default: "10000",
        change: Change::Reload,
        doc: "Client connections; one more is refused.",
        put: |c, v| c.client.max_clients = v.count(),
        get: |c| Value::Count(c.client.max_clients as u64),
        ..BLANK
    },
    Setting {
        key: "client.idle_timeout",
        kind: Kind::Span { min: secs(1), max: secs(365 * DAY), zero: Some("never") },
        default: "0s",
        change: Change::Reload,
        doc: "A client that sends nothing for so long is disconnected.",
        more: "Another value counts for each client from its next request on.",
        put: |c, v| c.client.idle_timeout = v.span(),
        get: |c| Value::Span(c.client.idle_timeout),
        ..BLANK
    },
    Setting {
        key: "client.output_buffer_limit",
        kind: Kind::Size { min: MIB, max: 64 * GIB, zero: None },
        default: "1GiB",
        change: Change::Reload,
        doc: "A client that lets more bytes of replies pile up is disconnected.",
        more: "At least `client.max_value_size`.",
        put: |c, v| c.client.output_buffer_limit = v.size(),
        get: |c| Value::Size(c.client.output_buffer_limit),
        ..BLANK
    },
    Setting {
        key: "client.max_value_size",
        kind: Kind::Size { min: KIB, max: 512 * MIB, zero: None },
        default: "64MiB",
        doc: "The largest key or value that a client may send, or make by APPEND or SETRANGE.",
        put: |c, v| c.client.max_value_size = v.size(),
        get: |c| Value::Size(c.client.max_value_size),
        ..BLANK
    },
    Setting {
        key: "client.danger_allow_anonymous",
        kind: Kind::Switch,
        default: "false",
        doc: "Lets clients in from beyond loopback without a password.",
        put: |c, v| c.client.danger_allow_anonymous = v.switch(),
        get: |c| Value::Switch(c.client.danger_allow_anonymous),
        ..BLANK
    },
];
