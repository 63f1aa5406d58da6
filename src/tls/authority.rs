//! Certificates that an operator makes: an authority kept in two files, and what it signs.
//!
//! A node's certificate proves that it belongs to the cluster, by the name
//! `peer.<cluster>.chickadee`; names of hosts beside it make it good for the ports of clients too. The
//! keys are ECDSA P-256, which every TLS client knows. Any other authority may sign such a
//! certificate as well.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::identity::seed_server_name;
use crate::types::{ClusterName, WallMillis};

/// How far the clock of another machine may be behind for a fresh certificate to be valid there.
const SKEW_ALLOWED: Duration = Duration::from_hours(1);

/// Why there is no certificate. Nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The files of the authority do not hold one.
    #[error("not the certificate and the key of an authority: {0}")]
    Load(rcgen::Error),
    /// The certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate and its key as PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(…)")
    }
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// This moment.
    pub now: WallMillis,
    /// For how long from then.
    pub lasts: Duration,
}

impl Validity {
    fn put(self, params: &mut CertificateParams) {
        let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(self.now.0);
        params.not_before = now - SKEW_ALLOWED;
        params.not_after = now + self.lasts;
    }
}

/// An authority that can sign.
pub struct Authority(Issuer<'static, KeyPair>);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// Makes a new one for a cluster.
    pub fn make(cluster: &ClusterName, validity: Validity) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(format!("chickadee {cluster} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity.put(&mut params);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Pair { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// The authority of these files.
    pub fn load(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key).map_err(AuthorityError::Load)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(AuthorityError::Load)?;
        Ok(Self(issuer))
    }

    /// Signs a new key for the node `name`, reached under `hosts` by clients.
    pub fn issue(
        &self,
        cluster: &ClusterName,
        name: &str,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(hosts.to_vec())?;
        let peer = seed_server_name(cluster).try_into()?;
        params.subject_alt_names.push(SanType::DnsName(peer));
        params.distinguished_name = named(name.to_owned());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        validity.put(&mut params);
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Pair { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }
}

fn named(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
