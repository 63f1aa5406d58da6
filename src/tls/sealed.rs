//! Files that only a holder of the secret can read, and that show when they were changed.
//!
//! Layout: the marker, twelve bytes of nonce, AES-256-GCM ciphertext, sixteen bytes of tag. The key
//! comes from the secret and the purpose; marker and cluster name are authenticated with it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::types::ClusterName;

/// What a kind of file is sealed with.
pub struct FileSeal {
    key: LessSafeKey,
    marker: &'static [u8],
    cluster: ClusterName,
}

impl std::fmt::Debug for FileSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileSeal(…)")
    }
}

impl FileSeal {
    /// The seal of the files that begin with `marker`, in this cluster.
    pub fn new(secret: &Secret, marker: &'static [u8], cluster: ClusterName) -> Self {
        let key = secret.derive("file", &[marker, cluster.as_str().as_bytes()]);
        let key =
            UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("a derived key has 32 bytes");
        Self { key: LessSafeKey::new(key), marker, cluster }
    }

    fn authenticated(&self) -> Aad<Vec<u8>> {
        Aad::from([self.marker, self.cluster.as_str().as_bytes()].concat())
    }

    /// The contents of a file. `nonce` must be random: files are few, so that none comes twice.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], plain: &[u8]) -> Vec<u8> {
        let mut body = Zeroizing::new(plain.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                self.authenticated(),
                &mut body,
            )
            .expect("a file is never too long for the cipher");
        [self.marker, &nonce, &body, tag.as_ref()].concat()
    }

    /// What was sealed; `None` if the file was made under another secret or changed since.
    pub fn open(&self, contents: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let rest = contents.strip_prefix(self.marker)?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let mut body = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key.open_in_place(nonce, self.authenticated(), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: u8, cluster: &str) -> FileSeal {
        let secret = Secret::from_random([secret; 32]);
        FileSeal::new(&secret, b"TEST1", cluster.parse().unwrap())
    }

    #[test]
    fn a_file_opens_under_its_secret_and_unchanged_only() {
        let contents = seal(1, "a").seal([3; NONCE_LEN], b"keys");
        assert!(!contents.windows(4).any(|part| part == b"keys"));
        assert_eq!(seal(1, "a").open(&contents).unwrap().as_slice(), b"keys");
        assert!(seal(2, "a").open(&contents).is_none(), "another secret");
        assert!(seal(1, "b").open(&contents).is_none(), "another cluster");
        for at in 0..contents.len() {
            let mut spoilt = contents.clone();
            spoilt[at] ^= 1;
            assert!(seal(1, "a").open(&spoilt).is_none(), "{at}");
            assert!(seal(1, "a").open(&contents[..at]).is_none(), "{at}");
        }
    }
}
