//! Keys of settings that other parts name, in messages that say what to set.

/// Admin HTTP: its default is where the command line asks.
pub const ADMIN_LISTEN: &str = "admin.listen";
/// The socket for actions.
pub const ADMIN_SOCKET: &str = "admin.socket";
/// The ports of clients; those of the next four may be 0 for any.
pub const CLIENT_LISTEN: &str = "client.listen";
/// The ports of cluster clients.
pub const CLUSTER_LISTEN: &str = "client.cluster_listen";
/// The client address that the others are told.
pub const CLIENT_ADVERTISE: &str = "client.advertise";
/// The cluster address that the others are told.
pub const CLUSTER_ADVERTISE: &str = "client.cluster_advertise";
/// The TLS ports of clients.
pub const TLS_LISTEN: &str = "client.tls_listen";
/// The TLS ports of cluster clients.
pub const CLUSTER_TLS_LISTEN: &str = "client.cluster_tls_listen";
/// The certificate for clients.
pub const TLS_CERT_FILE: &str = "client.tls_cert_file";
/// Its key.
pub const TLS_KEY_FILE: &str = "client.tls_key_file";
/// Who signs the certificates of clients.
pub const TLS_CLIENT_CA_FILE: &str = "client.tls_client_ca_file";
/// The node's certificate for its peers.
pub const CERT_FILE: &str = "security.cert_file";
/// Its key.
pub const KEY_FILE: &str = "security.key_file";
/// Who signs the certificates of peers.
pub const CA_FILE: &str = "security.ca_file";
/// The file of the clients' users.
pub const ACL_FILE: &str = "client.acl_file";
/// The file of the clients' password.
pub const PASSWORD_FILE: &str = "client.password_file";
/// The gossip port.
pub const GOSSIP_LISTEN: &str = "gossip.listen";
/// The gossip address that the others are told.
pub const GOSSIP_ADVERTISE: &str = "gossip.advertise";
/// The QUIC port.
pub const PEER_LISTEN: &str = "peer.listen";
/// The peer address that the others are told.
pub const PEER_ADVERTISE: &str = "peer.advertise";
/// The cluster's name.
pub const CLUSTER_NAME: &str = "cluster.name";
/// Copies of each slot.
pub const REPLICAS: &str = "cluster.replicas";
/// Seeds.
pub const JOIN: &str = "cluster.join";
/// How long leaving may take.
pub const LEAVE_TIMEOUT: &str = "cluster.leave_timeout";
/// The memory budget.
pub const MEMORY_LIMIT: &str = "memory.limit";
/// The folder for data.
pub const DATA_DIR: &str = "node.data_dir";
/// The node's name.
pub const NAME: &str = "node.name";
/// The secret.
pub const SECRET_FILE: &str = "security.secret_file";
/// How many clients may be connected.
pub const MAX_CLIENTS: &str = "client.max_clients";
/// The node's zone.
pub const ZONE: &str = "node.zone";
/// The node's weight.
pub const WEIGHT: &str = "node.weight";
/// The shape of log lines.
pub const LOG_FORMAT: &str = "log.format";
