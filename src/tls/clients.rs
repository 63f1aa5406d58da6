//! TLS on the ports for clients: the operator's certificate, and whose certificates clients must have.
//!
//! Clients are other programs, of any age: 1.2 is spoken beside 1.3, both with ring's suites, all of
//! which keep yesterday's traffic closed when a key leaks. Sessions are not resumed: each connection
//! shows a certificate that is valid now, also after a reload.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use zeroize::Zeroizing;

use super::configs::NodeTime;
use super::secret::FORBIDDEN_MODE;
use crate::clock::SharedClock;
use crate::limits::{CERTIFICATE_FILE_MAX, CERTIFICATES_MAX};
use crate::types::WallMillis;

/// Why clients cannot be served over TLS. The node must not start with it; a running one stays as it
/// was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientTlsError {
    /// A file could not be read.
    #[error("{role} {}: cannot be read: {source}", path.display())]
    Read {
        /// The setting that names it.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than the owner and its group may read the key, or more than the owner may write it.
    #[error(
        "{} {}: is open to other users (mode {mode:03o}): run `chmod 600 {}`",
        Role::Key, path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file has none of what it is for.
    #[error("{role} {}: holds no {} in PEM form", path.display(), role.content())]
    Nothing {
        /// The setting that names it.
        role: Role,
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than any such file.
    #[error(
        "{role} {}: too large: at most {CERTIFICATE_FILE_MAX} bytes and {CERTIFICATES_MAX} \
         certificates are read",
        path.display()
    )]
    TooLarge {
        /// The setting that names it.
        role: Role,
        /// The file.
        path: PathBuf,
    },
    /// What the file holds is damaged, or of a kind that cannot be used.
    #[error("{role} {}: {why}", path.display())]
    Unusable {
        /// The setting that names it.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is of another certificate.
    #[error(
        "{} {}: is not the key of the certificate in {}",
        Role::Key, key.display(), certificate.display()
    )]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The node's certificate.
    Certificate,
    /// Its private key.
    Key,
    /// Who signs the certificates of clients.
    Authority,
}

impl Role {
    const fn content(self) -> &'static str {
        match self {
            Self::Certificate | Self::Authority => "certificate",
            Self::Key => "private key without a passphrase",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = match self {
            Self::Certificate => "tls_cert_file",
            Self::Key => "tls_key_file",
            Self::Authority => "tls_client_ca_file",
        };
        write!(f, "client.{setting}")
    }
}

/// The files that the settings name.
#[derive(Clone, Copy, Debug)]
pub struct ClientTlsFiles<'a> {
    /// The node's certificate and what leads from it to its authority.
    pub certificate: &'a Path,
    /// The private key.
    pub key: &'a Path,
    /// Who signs the certificates of clients; `None` if they need none.
    pub authority: Option<&'a Path>,
}

/// How TLS is spoken with clients.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ServerConfig>,
    not_after: WallMillis,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads and checks the files.
    pub fn read(files: ClientTlsFiles<'_>, clock: &SharedClock) -> Result<Self, ClientTlsError> {
        let chain = certificates(Role::Certificate, files.certificate)?;
        let key = private_key(files.key)?;
        let not_after = end_of(&chain, files.certificate)?;
        let provider = Arc::new(provider::default_provider());
        let time = Arc::new(NodeTime::new(clock));
        let unusable = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => ClientTlsError::Mismatch {
                key: files.key.to_owned(),
                certificate: files.certificate.to_owned(),
            },
            // What is wrong with the certificate was found above.
            other => unusable(Role::Key, files.key, &other),
        };
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?;
        let builder = match files.authority {
            Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), not_after })
    }

    /// The configuration, as rustls takes it.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// When the node's certificate ends.
    pub const fn not_after(&self) -> WallMillis {
        self.not_after
    }
}

/// Whether a handshake failed because the client has no certificate that is trusted.
pub fn lacks_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(
        cause,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

fn unusable(role: Role, path: &Path, why: &dyn fmt::Display) -> ClientTlsError {
    ClientTlsError::Unusable { role, path: path.to_owned(), why: why.to_string() }
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(Role::Authority, path)? {
        roots.add(certificate).map_err(|error| unusable(Role::Authority, path, &error))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error: VerifierBuilderError| unusable(Role::Authority, path, &error))
}

fn read(role: Role, path: &Path) -> Result<Zeroizing<Vec<u8>>, ClientTlsError> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    let failed = |source| ClientTlsError::Read { role, path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if role == Role::Key && mode & FORBIDDEN_MODE != 0 {
        return Err(ClientTlsError::Exposed { path: path.to_owned(), mode });
    }
    // Of its full size from the start: a buffer that grew would leave pieces of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(CERTIFICATE_FILE_MAX + 1));
    let limit = CERTIFICATE_FILE_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > CERTIFICATE_FILE_MAX {
        return Err(ClientTlsError::TooLarge { role, path: path.to_owned() });
    }
    Ok(bytes)
}

fn certificates(role: Role, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let bytes = read(role, path)?;
    let found: Result<Vec<_>, PemError> =
        CertificateDer::pem_slice_iter(&bytes).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|error| unusable(role, path, &error))?;
    match found.len() {
        0 => Err(ClientTlsError::Nothing { role, path: path.to_owned() }),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(ClientTlsError::TooLarge { role, path: path.to_owned() }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientTlsError> {
    let bytes = read(Role::Key, path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        PemError::NoItemsFound => {
            ClientTlsError::Nothing { role: Role::Key, path: path.to_owned() }
        }
        other => unusable(Role::Key, path, &other),
    })
}

/// When the first certificate of a chain, the node's own, ends.
fn end_of(chain: &[CertificateDer<'_>], path: &Path) -> Result<WallMillis, ClientTlsError> {
    let own = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let (_, certificate) = x509_parser::parse_x509_certificate(own)
        .map_err(|error| unusable(Role::Certificate, path, &error))?;
    let seconds = certificate.validity().not_after.timestamp();
    Ok(WallMillis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::SystemClock;

    /// A certificate and its key, written as an operator's tools would.
    fn write_identity(folder: &Path, name: &str) -> [PathBuf; 2] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = ["crt", "key"].map(|end| folder.join(format!("{name}.{end}")));
        fs::write(&files[0], made.cert.pem()).unwrap();
        fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files[1], fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    fn load(certificate: &Path, key: &Path, authority: Option<&Path>) -> Result<ClientTls, String> {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let files = ClientTlsFiles { certificate, key, authority };
        ClientTls::read(files, &clock).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_with_its_key_is_taken_and_its_end_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = write_identity(folder.path(), "a");
        let tls = load(&certificate, &key, Some(&certificate)).unwrap();
        // rcgen's certificates end in the year 4096.
        assert_eq!(
            tls.not_after(),
            WallMillis(67_090_118_400_000 - 86_400_000 * 366 + 86_400_000 * 366)
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name_and_setting() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = write_identity(folder.path(), "a");
        let [_, other_key] = write_identity(folder.path(), "b");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let empty = file("empty", b"no PEM here\n");
        let broken =
            file("broken", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
        let large = file("large", &vec![b'x'; CERTIFICATE_FILE_MAX + 1]);
        let absent = folder.path().join("absent");
        let refused = |certificate: &Path, key: &Path, authority: Option<&Path>, part: &str| {
            let error = load(certificate, key, authority).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(error.contains(&folder.path().display().to_string()), "{error}");
        };
        refused(&absent, &key, None, "client.tls_cert_file");
        refused(&empty, &key, None, "holds no certificate in PEM form");
        refused(&large, &key, None, "too large");
        refused(&broken, &key, None, "client.tls_cert_file");
        refused(&certificate, &empty, None, "holds no private key without a passphrase");
        refused(&certificate, &other_key, None, "is not the key of the certificate in");
        refused(&certificate, &key, Some(&empty), "client.tls_client_ca_file");
        refused(&certificate, &key, Some(&broken), "client.tls_client_ca_file");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        refused(&certificate, &key, None, "is open to other users (mode 644): run `chmod 600");
    }
}
