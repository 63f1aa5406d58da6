//! What a node proves itself with to its peers, and whom it believes.
//!
//! Either all of it follows from the secret: then a certificate names the one node that has it. Or an
//! operator made it (`cert`, or another authority): then a certificate names the cluster, by
//! `peer.<cluster>.chickadee`, and its bearer is taken at its word about its node id, as whoever has the
//! secret could be.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rustls::InconsistentKeys;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithms};
use zeroize::Zeroizing;

use super::identity::{ClusterTrust, IdentityError, node_of, node_server_name, seed_server_name};
use super::pem::{PemError, PemFile, end_of};
use super::secret::Secret;
use crate::config::keys;
use crate::types::{ClusterName, NodeId, WallMillis};

/// What a verified certificate of a peer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Which node it is.
    Node,
    /// That it belongs to the cluster.
    Cluster,
}

impl Proof {
    /// The name by which a known node is dialled.
    pub fn server_name(self, cluster: &ClusterName, node: NodeId) -> String {
        match self {
            Self::Node => node_server_name(cluster, node),
            Self::Cluster => seed_server_name(cluster),
        }
    }

    /// The node whose certificate this is, as far as it is proved, for a peer that says to be
    /// `claimed`; `None` if it is none of this cluster. The certificate must have been verified before.
    pub fn node(
        self,
        certificate: &CertificateDer<'_>,
        cluster: &ClusterName,
        claimed: NodeId,
    ) -> Option<NodeId> {
        match self {
            Self::Node => node_of(certificate, cluster),
            Self::Cluster => names_cluster(certificate, cluster).then_some(claimed),
        }
    }
}

fn names_cluster(certificate: &CertificateDer<'_>, cluster: &ClusterName) -> bool {
    let (Ok(certificate), Ok(name)) =
        (EndEntityCert::try_from(certificate), ServerName::try_from(seed_server_name(cluster)))
    else {
        return false;
    };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}

/// The files of an operator.
#[derive(Clone, Copy, Debug)]
pub struct PeerFiles<'a> {
    /// The node's certificate and what leads from it to its authority.
    pub certificate: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// The authorities that sign the nodes of the cluster.
    pub authority: &'a Path,
}

/// What a node proves itself with, and whom it believes.
pub struct Credentials {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: Key,
    proof: Proof,
    end: Option<WallMillis>,
}

enum Key {
    Made(Zeroizing<Vec<u8>>),
    Read(PrivateKeyDer<'static>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("proof", &self.proof).finish_non_exhaustive()
    }
}

impl Credentials {
    /// What follows from the secret for this start of a node. It outlives the process.
    pub fn derived(
        secret: &Secret,
        cluster: &ClusterName,
        node: NodeId,
        now: WallMillis,
    ) -> Result<Self, IdentityError> {
        let trust = ClusterTrust::derive(secret, cluster)?;
        let own = trust.issue(node, now)?;
        Ok(Self {
            roots: vec![trust.certificate().clone()],
            chain: own.chain(),
            key: Key::Made(own.into_key()),
            proof: Proof::Node,
            end: None,
        })
    }

    /// Reads an operator's files, and checks that this node's peers will take them.
    pub fn read(
        files: PeerFiles<'_>,
        cluster: &ClusterName,
        now: WallMillis,
    ) -> Result<Self, PemError> {
        let certificate = PemFile { setting: keys::CERT_FILE, path: files.certificate };
        let key = PemFile { setting: keys::KEY_FILE, path: files.key };
        let authority = PemFile { setting: keys::CA_FILE, path: files.authority };
        let roots = authority.certificates()?;
        let chain = certificate.certificates()?;
        let own = chain.first().ok_or_else(|| certificate.unusable(&"no certificate"))?;
        let end = end_of(own).map_err(|why| certificate.unusable(&why))?;
        check(&chain, &roots, cluster, now).map_err(|why| match why {
            Unfit::Root(why) => authority.unusable(&why),
            Unfit::Own(why) => certificate.unusable(&why),
        })?;
        let private = key.private_key()?;
        if !fits(&private, &chain).map_err(|error| key.unusable(&error))? {
            return Err(PemError::Mismatch {
                setting: key.setting,
                key: key.path.to_owned(),
                certificate: certificate.path.to_owned(),
            });
        }
        let (key, proof) = (Key::Read(private), Proof::Cluster);
        Ok(Self { roots, chain, key, proof, end: Some(end) })
    }

    /// What the certificates of peers prove.
    pub const fn proof(&self) -> Proof {
        self.proof
    }

    /// When the node's certificate ends; `None` if it outlives the process.
    pub const fn end(&self) -> Option<WallMillis> {
        self.end
    }

    /// The private key, as rustls takes it.
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        match &self.key {
            Key::Made(bytes) => PrivatePkcs8KeyDer::from(bytes.to_vec()).into(),
            Key::Read(key) => key.clone_key(),
        }
    }
}

/// Whether this is the key of the first certificate.
fn fits(
    key: &PrivateKeyDer<'static>,
    chain: &[CertificateDer<'static>],
) -> Result<bool, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(key.clone_key())?;
    let matched = CertifiedKey::new(chain.to_vec(), signing).keys_match();
    Ok(!matches!(matched, Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch))))
}

enum Unfit {
    Root(String),
    Own(String),
}

/// Whether a peer with the same authorities will take this chain, in both directions.
fn check(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    cluster: &ClusterName,
    now: WallMillis,
) -> Result<(), Unfit> {
    let own = |why: String| Unfit::Own(why);
    let (first, between) = chain.split_first().ok_or_else(|| own("no certificate".to_owned()))?;
    let anchors: Result<Vec<_>, _> = roots.iter().map(anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|error| Unfit::Root(error.to_string()))?;
    let parsed = EndEntityCert::try_from(first).map_err(|error| own(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        parsed
            .verify_for_usage(ALGORITHMS, &anchors, between, now, usage, None, None)
            .map_err(|error| own(untrusted(&error)))?;
    }
    if !names_cluster(first, cluster) {
        return Err(own(format!("does not name {}", seed_server_name(cluster))));
    }
    Ok(())
}

/// What a certificate may be signed with.
const ALGORITHMS: &[&dyn rustls::pki_types::SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

fn untrusted(error: &webpki::Error) -> String {
    match error {
        // The second: by another authority of the same name.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            format!("is signed by no authority of {}", keys::CA_FILE)
        }
        webpki::Error::CertExpired { .. } => "is not valid any more".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "is not valid yet".to_owned(),
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "is not made for both servers and clients".to_owned()
        }
        other => format!("is not to be trusted: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;
    use crate::tls::authority::{Authority, Pair, Validity};

    const NOW: WallMillis = WallMillis(1_800_000_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn cluster(name: &str) -> ClusterName {
        name.parse().unwrap()
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, pair: &Pair) -> [PathBuf; 2] {
            let paths = ["pem", "key"].map(|end| self.0.path().join(format!("{name}.{end}")));
            fs::write(&paths[0], &pair.certificate).unwrap();
            fs::write(&paths[1], pair.key.as_bytes()).unwrap();
            fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o600)).unwrap();
            paths
        }
    }

    fn authority(lasts: Duration) -> (Pair, Authority) {
        let pair = Authority::make(&cluster("c"), Validity { now: NOW, lasts }).unwrap();
        let authority = Authority::load(&pair.certificate, &pair.key).unwrap();
        (pair, authority)
    }

    fn read(
        [certificate, key]: &[PathBuf; 2],
        ca: &Path,
        now: WallMillis,
    ) -> Result<Credentials, String> {
        let files = PeerFiles { certificate, key, authority: ca };
        Credentials::read(files, &cluster("c"), now).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_authority_signed_for_the_cluster_is_taken_and_its_end_is_known() {
        let folder = Folder::new();
        let (ca, signer) = authority(100 * DAY);
        let [ca, _] = folder.write("ca", &ca);
        let validity = Validity { now: NOW, lasts: 30 * DAY };
        let hosts = ["db1.example.com".to_owned(), "10.0.0.1".to_owned()];
        let pair = signer.issue(&cluster("c"), "n1", &hosts, validity).unwrap();
        let files = folder.write("n1", &pair);
        let credentials = read(&files, &ca, NOW).unwrap();
        assert_eq!(credentials.end(), Some(NOW.saturating_add(30 * 86_400_000)));
        let (own, node) = (&credentials.chain[0], NodeId(7));
        assert_eq!(Proof::Cluster.node(own, &cluster("c"), node), Some(node));
        assert_eq!(Proof::Cluster.node(own, &cluster("d"), node), None);
        assert_eq!(Proof::Node.node(own, &cluster("c"), node), None, "it names no node");
        let described = &crate::tls::pem::describe(&files[0]).unwrap()[0];
        assert_eq!(
            described.names,
            ["db1.example.com", "10.0.0.1", "peer.c.chickadee"].map(str::to_owned)
        );
        assert_eq!(described.subject, "CN=n1");
        assert_eq!(described.issuer, "CN=chickadee c authority");
    }

    #[test]
    fn what_peers_would_refuse_is_refused_at_once_with_its_reason() {
        let folder = Folder::new();
        let (ca, signer) = authority(100 * DAY);
        let [ca, ca_key] = folder.write("ca", &ca);
        let (other_ca, _) = authority(100 * DAY);
        let [other_ca, _] = folder.write("other", &other_ca);
        let issue = |name: &str, of: &str| {
            let validity = Validity { now: NOW, lasts: DAY };
            folder.write(name, &signer.issue(&cluster(of), name, &[], validity).unwrap())
        };
        let (good, foreign) = (issue("good", "c"), issue("foreign", "d"));
        let late = NOW.saturating_add(2 * 86_400_000);
        let early = WallMillis(NOW.0 - 2 * 86_400_000);
        let cases = [
            (read(&good, &other_ca, NOW), "is signed by no authority of security.ca_file"),
            (read(&good, &ca, late), "is not valid any more"),
            (read(&good, &ca, early), "is not valid yet"),
            (read(&foreign, &ca, NOW), "does not name peer.c.chickadee"),
            (read(&[ca.clone(), ca_key], &ca, NOW), "security.cert_file"),
            (read(&[good[0].clone(), ca.clone()], &ca, NOW), "security.key_file"),
            (read(&[good[0].clone(), foreign[1].clone()], &ca, NOW), "is not the key of the"),
        ];
        for (outcome, part) in cases {
            let why = outcome.unwrap_err();
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}
