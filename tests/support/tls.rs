//! An authority with certificates for tests, as files, and a client that speaks TLS.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An authority that signs for tests.
pub(crate) struct Authority {
    folder: PathBuf,
    /// Its certificate.
    pub(crate) file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, with its certificate in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let file = folder.join(format!("{name}.pem"));
        let certificate = params.self_signed(&key).expect("a certificate can be made");
        fs::write(&file, certificate.pem()).expect("a file can be written");
        Self { folder: folder.to_owned(), file, issuer: Issuer::new(params, key) }
    }

    /// A certificate for 127.0.0.1 of that name, valid until the first day of `year`.
    pub(crate) fn issue(&self, name: &str, year: i32) -> Files {
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let file = |end: &str| self.folder.join(format!("{name}.{end}"));
        let files = Files { certificate: file("crt"), key: file("key") };
        fs::write(&files.certificate, certificate.pem()).expect("a file can be written");
        fs::write(&files.key, key.serialize_pem()).expect("a file can be written");
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("own file");
        files
    }
}

/// A connection over TLS.
pub(crate) struct TlsClient(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl TlsClient {
    /// Connects and shakes hands; `trusted` is the authority of the node.
    pub(crate) fn connect(
        address: SocketAddr,
        trusted: &Path,
        own: Option<&Files>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted).expect("PEM")).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("ring knows them")
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain = CertificateDer::pem_file_iter(&files.certificate).expect("PEM");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        };
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).expect("good settings");
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut client = Self(BufReader::new(StreamOwned::new(connection, stream)));
        // With TLS 1.3 a client that is refused learns it from its first read.
        client.ask("PING")?;
        Ok(client)
    }

    /// The first line of the reply to an inline command.
    pub(crate) fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.line()
    }

    /// One more line.
    pub(crate) fn line(&mut self) -> std::io::Result<String> {
        let mut reply = String::new();
        if self.0.read_line(&mut reply)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(reply.trim_end().to_owned())
    }

    /// The certificate that the node showed.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        let shown = self.0.get_ref().conn.peer_certificates().expect("a node shows one");
        shown[0].clone().into_owned()
    }
}
