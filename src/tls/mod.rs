//! Trust between nodes: one secret makes the cluster's certificate authority, and every other key.
//! An operator's own certificates (`pem`, made by `authority` or elsewhere) may take the place of those
//! that are derived, and are what clients are shown (`clients`).
//!
//! ```text
//! secret file ─► Secret ─HKDF─┬─► CA key (bound to the cluster's name) ─► leaf of this start ─► Credentials ─► configs
//!                             ├─► gossip key       (sealed datagrams)
//!                             ├─► digest seed      (equal on all nodes)
//!                             ├─► file keys        (what a node keeps sealed)
//!                             └─► reset and id keys of a node's QUIC port (stable over restarts)
//! ```
//!
//! Whoever has the secret is a member; there is no revocation of a single node. Nothing derived is
//! ever written to disk but sealed, and what is secret is wiped when dropped.

pub mod authority;
pub mod clients;
pub mod configs;
pub mod credentials;
pub mod identity;
pub mod pem;
pub mod sealed;
pub mod secret;

pub use clients::{ClientTls, ClientTlsFiles, lacks_certificate};
pub use configs::{ALPN, ConfigError, describe_alert, quic_client, quic_server};
pub use credentials::{Credentials, PeerFiles, Proof};
pub use identity::{ClusterTrust, IdentityError, NodeCertificate, node_of, seed_server_name};
pub use pem::PemError;
pub use sealed::FileSeal;
pub use secret::{DerivedKey, Secret, SecretError};
