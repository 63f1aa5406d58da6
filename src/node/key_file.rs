//! The file in which a node keeps the cluster's key ring of gossip, once it is another than the one
//! that the secret gives. Sealed under the secret: one that was made under another is not taken.

use std::sync::Arc;

use ring::aead::NONCE_LEN;
use zeroize::Zeroizing;

use crate::members::VersionedKeys;
use crate::membership::{GossipKey, KeyRing};
use crate::persist::{Storage, StorageError};
use crate::rng::Randomness;
use crate::tls::{FileSeal, Secret};
use crate::types::ClusterName;
use crate::wire::keys::KeyRingRecord;

/// The file's name in the node's storage.
const NAME: &str = "keys";

/// What the file begins with; its last byte is the version of the layout within.
const MARKER: &[u8] = b"CHKKEYS1";

/// Keeps the key ring.
pub(super) struct KeyFile {
    seal: FileSeal,
    cluster: ClusterName,
    storage: Arc<dyn Storage>,
    rng: Randomness,
}

impl KeyFile {
    /// The file in `storage`.
    pub(super) fn new(
        secret: &Secret,
        cluster: &ClusterName,
        storage: Arc<dyn Storage>,
        rng: Randomness,
    ) -> Self {
        let seal = FileSeal::new(secret, MARKER, cluster.clone());
        Self { seal, cluster: cluster.clone(), storage, rng }
    }

    /// The ring that was kept, else the one that the secret gives.
    pub(super) fn read(&self, secret: &Secret) -> Result<VersionedKeys, StorageError> {
        if let Some(contents) = self.storage.read(NAME)? {
            if let Some(keys) = self.understand(&contents) {
                return Ok(keys);
            }
            tracing::warn!(
                file = self.storage.describe(NAME),
                "key ring was made under another secret or is damaged: the secret's own is used"
            );
        }
        let key = GossipKey::new(*secret.gossip_key(&self.cluster));
        Ok(VersionedKeys::first(KeyRing::new(self.cluster.clone(), 0, key)))
    }

    fn understand(&self, contents: &[u8]) -> Option<VersionedKeys> {
        let record = self.seal.open(contents)?;
        let record: KeyRingRecord = postcard::from_bytes(&record).ok()?;
        VersionedKeys::of_record(self.cluster.clone(), &record)
    }

    /// Keeps a ring. Where that fails, the node gets the ring from the others at its next start.
    pub(super) fn write(&self, record: &KeyRingRecord) {
        let plain = postcard::to_stdvec(record).map(Zeroizing::new);
        let plain = plain.expect("plain fields can be encoded");
        let mut nonce = [0; NONCE_LEN];
        for chunk in nonce.chunks_mut(8) {
            let word = self.rng.next_u64().to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
        if let Err(error) = self.storage.write(NAME, &self.seal.seal(nonce, &plain)) {
            tracing::error!(%error, "key ring could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::MemoryStorage;
    use crate::wire::keys::KeyBytes;

    #[test]
    fn a_ring_comes_back_under_its_secret_and_else_the_secrets_own() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let cluster: ClusterName = "c".parse().unwrap();
        let file = |secret: &Secret| {
            KeyFile::new(secret, &cluster, Arc::clone(&storage), Randomness::from_seed(1))
        };
        let (one, other) = (Secret::from_random([1; 32]), Secret::from_random([2; 32]));
        assert_eq!(file(&one).read(&one).unwrap().revision, 0);
        let keys = vec![(4, KeyBytes([4; 32])), (5, KeyBytes([5; 32]))];
        let record = KeyRingRecord { revision: 7, origin: 9, primary: 5, keys };
        file(&one).write(&record);
        assert_eq!(file(&one).read(&one).unwrap().to_record(), record);
        assert_eq!(file(&other).read(&other).unwrap().revision, 0);
        storage.write(NAME, b"CHKKEYS1").unwrap();
        assert_eq!(file(&one).read(&one).unwrap().revision, 0);
    }
}
