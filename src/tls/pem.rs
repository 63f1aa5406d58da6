//! PEM files of an operator: certificates and keys, read with errors that name the setting and the file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error as FormError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, X509Certificate};
use zeroize::Zeroizing;

use super::secret::FORBIDDEN_MODE;
use crate::limits::{CERTIFICATE_FILE_MAX, CERTIFICATES_MAX};
use crate::types::WallMillis;

/// Why a file cannot be used. A node must not start with it; a running one stays as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PemError {
    /// The file could not be read.
    #[error("{setting} {}: cannot be read: {source}", path.display())]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than the owner and its group may read the key, or more than the owner may write it.
    #[error(
        "{setting} {}: is open to other users (mode {mode:03o}): run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file has none of what it is for.
    #[error("{setting} {}: holds no {content} in PEM form", path.display())]
    Nothing {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        content: &'static str,
    },
    /// The file is larger than any such file.
    #[error(
        "{setting} {}: too large: at most {CERTIFICATE_FILE_MAX} bytes and {CERTIFICATES_MAX} \
         certificates are read",
        path.display()
    )]
    TooLarge {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// What the file holds is damaged, or of a kind that cannot be used.
    #[error("{setting} {}: {why}", path.display())]
    Unusable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is of another certificate.
    #[error(
        "{setting} {}: is not the key of the certificate in {}",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The setting that names the key.
        setting: &'static str,
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
}

/// A file and the setting that names it.
#[derive(Clone, Copy, Debug)]
pub struct PemFile<'a> {
    /// The setting.
    pub setting: &'static str,
    /// The file.
    pub path: &'a Path,
}

impl PemFile<'_> {
    /// That the file cannot be used, and why.
    pub fn unusable(self, why: &dyn std::fmt::Display) -> PemError {
        let path = self.path.to_owned();
        PemError::Unusable { setting: self.setting, path, why: why.to_string() }
    }

    /// The certificates in the file, in their order; there is at least one.
    pub fn certificates(self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let bytes = self.read(false)?;
        let found: Result<Vec<_>, FormError> =
            CertificateDer::pem_slice_iter(&bytes).take(CERTIFICATES_MAX + 1).collect();
        let found = found.map_err(|error| self.unusable(&error))?;
        match found.len() {
            0 => Err(self.nothing("certificate")),
            1..=CERTIFICATES_MAX => Ok(found),
            _ => Err(self.too_large()),
        }
    }

    /// The private key in the file, which only its owner (and readers of its group) may see.
    pub fn private_key(self) -> Result<PrivateKeyDer<'static>, PemError> {
        let bytes = self.read(true)?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            FormError::NoItemsFound => self.nothing("private key without a passphrase"),
            other => self.unusable(&other),
        })
    }

    fn nothing(self, content: &'static str) -> PemError {
        PemError::Nothing { setting: self.setting, path: self.path.to_owned(), content }
    }

    fn too_large(self) -> PemError {
        PemError::TooLarge { setting: self.setting, path: self.path.to_owned() }
    }

    fn read(self, secret: bool) -> Result<Zeroizing<Vec<u8>>, PemError> {
        let (setting, path) = (self.setting, self.path.to_owned());
        let failed =
            |source| PemError::Read { setting: self.setting, path: self.path.to_owned(), source };
        let file = File::open(self.path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if secret && mode & FORBIDDEN_MODE != 0 {
            return Err(PemError::Exposed { setting, path, mode });
        }
        // Of its full size from the start: a buffer that grew would leave pieces of a key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(CERTIFICATE_FILE_MAX + 1));
        let limit = CERTIFICATE_FILE_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > CERTIFICATE_FILE_MAX {
            return Err(self.too_large());
        }
        Ok(bytes)
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let parsed = x509_parser::parse_x509_certificate(certificate.as_ref());
    parsed.map(|(_, certificate)| certificate).map_err(|error| error.to_string())
}

fn wall(time: ASN1Time) -> WallMillis {
    WallMillis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
}

/// When a certificate ends.
pub fn end_of(certificate: &CertificateDer<'_>) -> Result<WallMillis, String> {
    Ok(wall(parsed(certificate)?.validity().not_after))
}

/// What a certificate says, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The names that it is good for.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: WallMillis,
    /// Until when it is valid.
    pub not_after: WallMillis,
}

/// What the certificates of a file say.
pub fn describe(path: &Path) -> Result<Vec<Described>, PemError> {
    let file = PemFile { setting: "file", path };
    let describe = |certificate: &CertificateDer<'_>| {
        let certificate = parsed(certificate).map_err(|why| file.unusable(&why))?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().map(name_text).collect());
        Ok(Described {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names: names.unwrap_or_default(),
            not_before: wall(certificate.validity().not_before),
            not_after: wall(certificate.validity().not_after),
        })
    };
    file.certificates()?.iter().map(describe).collect()
}

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
            _ => <[u8; 16]>::try_from(*bytes)
                .map_or_else(|_| "?".to_owned(), |ip| std::net::Ipv6Addr::from(ip).to_string()),
        },
        other => other.to_string(),
    }
}
