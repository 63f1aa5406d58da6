//! TLS on the ports for clients: the operator's certificate, and whose certificates clients must have.
//!
//! Clients are other programs, of any age: 1.2 is spoken beside 1.3, both with ring's suites, all of
//! which keep yesterday's traffic closed when a key leaks. Sessions are not resumed: each connection
//! shows a certificate that is valid now, also after a reload.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::configs::NodeTime;
use super::pem::{PemError, PemFile, end_of};
use crate::clock::SharedClock;
use crate::config::keys;
use crate::types::WallMillis;

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
    pub fn read(files: ClientTlsFiles<'_>, clock: &SharedClock) -> Result<Self, PemError> {
        let certificate = PemFile { setting: keys::TLS_CERT_FILE, path: files.certificate };
        let key = PemFile { setting: keys::TLS_KEY_FILE, path: files.key };
        let chain = certificate.certificates()?;
        let not_after = chain.first().map_or(Ok(WallMillis(0)), end_of);
        let not_after = not_after.map_err(|why| certificate.unusable(&why))?;
        let private = key.private_key()?;
        let provider = Arc::new(provider::default_provider());
        let time = Arc::new(NodeTime::new(clock));
        let unusable = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => PemError::Mismatch {
                setting: key.setting,
                key: files.key.to_owned(),
                certificate: files.certificate.to_owned(),
            },
            // What is wrong with the certificate was found above.
            other => key.unusable(&other),
        };
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?;
        let builder = match files.authority {
            Some(path) => {
                let authority = PemFile { setting: keys::TLS_CLIENT_CA_FILE, path };
                builder.with_client_cert_verifier(verifier(authority, provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private).map_err(unusable)?;
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

fn verifier(
    file: PemFile<'_>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in file.certificates()? {
        roots.add(certificate).map_err(|error| file.unusable(&error))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error| file.unusable(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;
    use crate::clock::SystemClock;
    use crate::limits::CERTIFICATE_FILE_MAX;

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
