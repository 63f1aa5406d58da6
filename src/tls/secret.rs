//! The cluster secret: read, checked, wiped on drop; every other key is derived from it.
//!
//! `keygen` writes 32 random bytes as 64 hex digits and a newline. A file that is hex is decoded;
//! anything else counts as the bytes it holds, without trailing white space, so that what other
//! tools write (base64, raw bytes) serves too. Either way at least 32 bytes are asked for: HKDF
//! spreads randomness, it makes none.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::types::{ClusterName, NodeId};

/// The fewest bytes that a secret may have.
pub const SECRET_MIN: usize = 32;

/// The longest secret file that is read.
const FILE_MAX: usize = 4096;

/// Bits of a file's mode that a secret must not have: write for the group, anything for others.
pub(super) const FORBIDDEN_MODE: u32 = 0o027;

/// Separates this use of the secret from any other program's.
const SALT: &[u8] = b"chickadee/v1";

/// Takes the secret's place on loopback when there is none; known to everyone.
const DEVELOPMENT: &[u8; SECRET_MIN] = b"chickadee development, no secret";

/// Why there is no secret. The node must not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read the secret file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others than the owner and its group may read it, or more than the owner may write it.
    #[error(
        "the secret file {} is open to other users (mode {mode:03o}): run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Too little to be a secret.
    #[error(
        "a secret needs at least {SECRET_MIN} random bytes, this one has {0}: \
         make one with `chickadee keygen`"
    )]
    TooShort(usize),
    /// Not a secret file at all.
    #[error("a secret file has at most {FILE_MAX} bytes")]
    TooLong,
}

/// A key derived from the secret; wiped on drop.
pub type DerivedKey = Zeroizing<[u8; 32]>;

/// The secret that the nodes of a cluster share.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads a secret file, which only its owner (and readers of its group) may see.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & FORBIDDEN_MODE != 0 {
            return Err(SecretError::Exposed { path: path.to_owned(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
        let limit = FILE_MAX as u64 + 1;
        file.by_ref().take(limit).read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(&bytes)
    }

    /// Understands the contents of a secret file or variable.
    pub fn parse(contents: &[u8]) -> Result<Self, SecretError> {
        if contents.len() > FILE_MAX {
            return Err(SecretError::TooLong);
        }
        let trimmed = contents.trim_ascii();
        let bytes = from_hex(trimmed).unwrap_or_else(|| Zeroizing::new(trimmed.to_vec()));
        if bytes.len() < SECRET_MIN {
            return Err(SecretError::TooShort(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// A secret of random bytes, for `keygen`.
    pub fn from_random(bytes: [u8; SECRET_MIN]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// What stands in for a secret where there is none. It protects nothing: loopback only.
    pub fn development() -> Self {
        Self(Zeroizing::new(DEVELOPMENT.to_vec()))
    }

    /// The contents of a secret file: hex digits and a newline.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 2 + 1));
        write_hex(&self.0, &mut text);
        text.push('\n');
        text
    }

    /// The seed of the cluster's certificate authority; another name gives another authority.
    pub fn ca_seed(&self, cluster: &ClusterName) -> DerivedKey {
        self.derive("ca-ed25519", &[cluster.as_str().as_bytes()])
    }

    /// The key under which gossip is sealed.
    pub fn gossip_key(&self, cluster: &ClusterName) -> DerivedKey {
        self.derive("gossip", &[cluster.as_str().as_bytes()])
    }

    /// The seed of key hashes and digests: equal on all nodes, not known outside.
    pub fn digest_seed(&self, cluster: &ClusterName) -> u64 {
        first_word(&self.derive("digest", &[cluster.as_str().as_bytes()]))
    }

    /// The key of stateless resets of a node's QUIC port: the same after a restart, so that peers
    /// understand at once that their connections are gone.
    pub fn reset_key(&self, node: NodeId) -> DerivedKey {
        self.derive("quic-reset", &[&node.0.to_be_bytes()])
    }

    /// The key of connection ids of a node's QUIC port: without it a restarted node would drop old
    /// packets before it considers a reset.
    pub fn connection_id_key(&self, node: NodeId) -> u64 {
        first_word(&self.derive("quic-cid", &[&node.0.to_be_bytes()]))
    }

    /// HKDF-SHA256 of the secret for one purpose and context.
    pub fn derive(&self, purpose: &str, context: &[&[u8]]) -> DerivedKey {
        struct Len32;
        impl KeyType for Len32 {
            fn len(&self) -> usize {
                32
            }
        }
        let mut info: Vec<&[u8]> = Vec::with_capacity(context.len() * 2 + 1);
        info.push(purpose.as_bytes());
        for part in context {
            info.push(b"\0");
            info.push(part);
        }
        let mut key = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, SALT)
            .extract(&self.0)
            .expand(&info, Len32)
            .and_then(|material| material.fill(key.as_mut_slice()))
            .expect("32 bytes are within what HKDF-SHA256 can give");
        key
    }
}

fn first_word(key: &DerivedKey) -> u64 {
    key.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// Appends `bytes` as lower-case hex digits.
pub(super) fn write_hex(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

/// Decodes hex digits; `None` if there is anything else or an odd number of them.
fn from_hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.chunks_exact(2) {
        let [high, low] = pair else { return None };
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret() -> Secret {
        Secret::from_random([7; SECRET_MIN])
    }

    #[test]
    fn what_keygen_writes_is_read_back() {
        let text = secret().to_file_text();
        assert_eq!(text.len(), 65);
        assert_eq!(*Secret::parse(text.as_bytes()).unwrap().0, *secret().0);
    }

    #[test]
    fn other_texts_count_as_bytes_and_short_ones_are_refused() {
        assert!(Secret::parse(b"dGhpcyBpcyBub3QgYSBzZWNyZXQgYnV0IGJhc2U2NA==\n").is_ok());
        assert!(matches!(Secret::parse(b"hunter2\n"), Err(SecretError::TooShort(7))));
        assert!(matches!(Secret::parse(&[b'a'; 62]), Err(SecretError::TooShort(31))));
        assert!(matches!(Secret::parse(b""), Err(SecretError::TooShort(0))));
        assert!(matches!(Secret::parse(&[b'x'; 5000]), Err(SecretError::TooLong)));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, secret().to_file_text().as_bytes()).unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, true), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Secret::read(&path);
            assert_eq!(read.is_ok(), fine, "{mode:o}");
        }
        let text = Secret::read(&path).unwrap_err().to_string();
        assert!(text.contains("mode 644") && text.contains("chmod 600"), "{text}");
        assert!(Secret::read(&directory.path().join("none")).is_err());
    }

    #[test]
    fn keys_differ_by_purpose_and_context() {
        let (a, b): (ClusterName, ClusterName) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_ne!(secret().ca_seed(&a), secret().ca_seed(&b));
        assert_ne!(secret().ca_seed(&a), secret().gossip_key(&a));
        assert_eq!(secret().gossip_key(&a), secret().gossip_key(&a));
        assert_ne!(secret().gossip_key(&a), Secret::development().gossip_key(&a));
        assert_ne!(secret().reset_key(NodeId(1)), secret().reset_key(NodeId(2)));
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", secret()), "Secret(…)");
    }
}
