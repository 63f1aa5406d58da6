//! Certificates: the cluster's authority, made alike by every node, and the leaf of this start.
//!
//! The authority's key is derived from the secret and the cluster's name, and Ed25519 signs alike
//! each time, so that every node makes the same certificate, byte for byte, and none is ever
//! stored or sent. Its common name holds a key id: with another secret a peer fails with *unknown
//! issuer* rather than with a bad signature.
//!
//! A leaf says who a node is in three names:
//! `<node id>.<cluster>.chickadee` (to dial a known node), `peer.<cluster>.chickadee` (to dial a
//! seed), and the URI `chickadee://<cluster>/node/<node id>` (from which a listener reads the id).

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::secret::{Secret, write_hex};
use crate::types::{ClusterName, NodeId, WallMillis};

/// How far the clock of a peer may be behind for a fresh leaf to be valid there.
const SKEW_ALLOWED: Duration = Duration::from_hours(24);

/// How long a leaf is valid. Its key lives in memory only, so that it ends with the process; this
/// has to outlast any process.
const LEAF_VALID: Duration = Duration::from_hours(10 * 365 * 24);

/// What stands before the 32 bytes of a seed in the PKCS#8 form of an Ed25519 key.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why there is no certificate. The node must not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The cluster's name as one label of a host name.
///
/// A name that is a label stands for itself, in lower case; another is replaced by a hash. Two
/// names that meet here are told apart by the hello and by their authorities.
pub fn cluster_label(cluster: &ClusterName) -> String {
    let name = cluster.as_str();
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if plain {
        return name.to_ascii_lowercase();
    }
    format!("x{}", hex(digest(&SHA256, name.as_bytes()).as_ref(), 16))
}

/// The name by which a known node is dialled.
pub fn node_server_name(cluster: &ClusterName, node: NodeId) -> String {
    format!("{node}.{}.chickadee", cluster_label(cluster))
}

/// The name by which a seed is dialled, whose node id is not known.
pub fn seed_server_name(cluster: &ClusterName) -> String {
    format!("peer.{}.chickadee", cluster_label(cluster))
}

fn node_uri_prefix(cluster: &ClusterName) -> String {
    format!("chickadee://{}/node/", cluster_label(cluster))
}

/// The first `digits` hex digits of `bytes`.
fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    write_hex(bytes, &mut text);
    text.truncate(digits);
    text
}

/// The cluster's certificate authority.
pub struct ClusterTrust {
    cluster: ClusterName,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for ClusterTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterTrust").field(&self.cluster).finish_non_exhaustive()
    }
}

impl ClusterTrust {
    /// The authority of a secret and a cluster's name.
    pub fn derive(secret: &Secret, cluster: &ClusterName) -> Result<Self, IdentityError> {
        let seed = secret.ca_seed(cluster);
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(PKCS8_ED25519.len() + seed.len()));
        pkcs8.extend_from_slice(&PKCS8_ED25519);
        pkcs8.extend_from_slice(seed.as_slice());
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)?;
        let key_id = hex(digest(&SHA256, key.public_key_raw()).as_ref(), 16);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("chickadee cluster {key_id}"));
        params.serial_number = Some(SerialNumber::from(1_u64));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2120, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { cluster: cluster.clone(), certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate: what peers must be signed by.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The name that the authority is bound to.
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Makes the key and the certificate of this start of `node`.
    pub fn issue(&self, node: NodeId, now: WallMillis) -> Result<NodeCertificate, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
        let mut params = CertificateParams::new(vec![
            node_server_name(&self.cluster, node),
            seed_server_name(&self.cluster),
        ])?;
        let uri = format!("{}{node}", node_uri_prefix(&self.cluster));
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        // Serials of one length keep the handshakes of a simulation equal from run to run.
        let mut serial = [0; 16];
        let hash = digest(&SHA256, key.public_key_raw());
        serial.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        serial[0] = serial[0] & 0x3f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = now - SKEW_ALLOWED;
        params.not_after = now + LEAF_VALID;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(NodeCertificate { certificate, key: Zeroizing::new(key.serialize_der()) })
    }
}

/// A certificate and its key.
pub struct NodeCertificate {
    certificate: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCertificate(…)")
    }
}

impl NodeCertificate {
    /// The chain to present.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    /// The private key (PKCS#8).
    pub(super) fn into_key(self) -> Zeroizing<Vec<u8>> {
        self.key
    }
}

/// The node id in a peer's certificate; `None` if it has none for this cluster.
///
/// The certificate must have been verified before: this only reads it.
pub fn node_of(certificate: &CertificateDer<'_>, cluster: &ClusterName) -> Option<NodeId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let prefix = node_uri_prefix(cluster);
    parsed.valid_uri_names().find_map(|uri| uri.strip_prefix(&prefix)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(cluster: &str) -> ClusterTrust {
        ClusterTrust::derive(&Secret::from_random([1; 32]), &cluster.parse().unwrap()).unwrap()
    }

    const NOW: WallMillis = WallMillis(1_800_000_000_000);

    #[test]
    fn every_node_makes_the_same_authority() {
        assert_eq!(trust("flock").certificate(), trust("flock").certificate());
        assert_ne!(trust("flock").certificate(), trust("other").certificate());
    }

    #[test]
    fn the_node_id_is_read_back_from_the_leaf_within_its_cluster_only() {
        let leaf = trust("flock").issue(NodeId(42), NOW).unwrap();
        let certificate = &leaf.chain()[0];
        assert_eq!(node_of(certificate, &"flock".parse().unwrap()), Some(NodeId(42)));
        assert_eq!(node_of(certificate, &"other".parse().unwrap()), None);
        let authority = trust("flock");
        assert_eq!(node_of(authority.certificate(), &"flock".parse().unwrap()), None);
    }

    #[test]
    fn every_cluster_name_gives_a_label() {
        let label = |name: &str| cluster_label(&name.parse().unwrap());
        assert_eq!(label("Flock-7"), "flock-7");
        let odd = ["my.cluster", "my_cluster", "-x", "x-", "."];
        let labels: std::collections::BTreeSet<String> =
            odd.iter().map(|name| label(name)).collect();
        assert_eq!(labels.len(), odd.len());
        for name in odd.into_iter().chain(["a", &"n".repeat(63)]) {
            let server_name = node_server_name(&name.parse().unwrap(), NodeId(u128::MAX));
            assert!(rustls::pki_types::DnsName::try_from(server_name).is_ok(), "{name}");
            assert!(trust(name).issue(NodeId(1), NOW).is_ok(), "{name}");
        }
    }
}
