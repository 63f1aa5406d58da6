//! Digests and key hashes.
//!
//! A slot's digest is the XOR of one hash for each value in it: of key, version, expiry, kind and
//! length. It is the same whatever the order of the writes, and a write changes it by two hashes.
//! Tombstones are no part of it, so that a holder that has reaped them equals one that has not;
//! expired values are, until they are removed. Both seeds are the same on all nodes of a cluster.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{BodyRef, Db, RecordRef, Version};

/// The kind of a string value in digests.
const KIND_STRING: u8 = 0;

/// The seeds of a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeds {
    /// Of key hashes.
    pub(super) hash: u64,
    /// Of digests.
    pub(super) digest: u64,
}

impl Seeds {
    /// The hash by which a key is found, ordered and named in cursors: the database's number in
    /// the upper four bits, so that a database is one range of hashes, and 60 bits of the key.
    pub(super) fn key_hash(self, stored_key: &[u8]) -> u64 {
        let db = u64::from(db_of(stored_key).get());
        db << 60 | xxh3_64_with_seed(stored_key, self.hash) >> 4
    }

    /// What the record contributes to its slot.
    pub(super) fn share(self, key_hash: u64, record: &RecordRef<'_>) -> Share {
        let BodyRef::String(value) = record.body else {
            return Share {
                db: db_of(record.key),
                version: record.version,
                digest: 0,
                tombstone: true,
                expiring: false,
            };
        };
        let mut bytes = [0; 37];
        bytes[..8].copy_from_slice(&key_hash.to_le_bytes());
        bytes[8..20].copy_from_slice(&record.version.to_bytes());
        // No expiry reads as the end of time, which no client can set.
        let expiry = record.expires_at.map_or(u64::MAX, |expiry| expiry.0);
        bytes[20..28].copy_from_slice(&expiry.to_le_bytes());
        bytes[28] = KIND_STRING;
        bytes[29..].copy_from_slice(&(value.len() as u64).to_le_bytes());
        Share {
            db: db_of(record.key),
            version: record.version,
            digest: xxh3_64_with_seed(&bytes, self.digest),
            tombstone: false,
            expiring: record.expires_at.is_some(),
        }
    }
}

/// What one entry contributes to the sums of its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) db: Db,
    pub(super) version: Version,
    /// 0 for a tombstone.
    pub(super) digest: u64,
    pub(super) tombstone: bool,
    pub(super) expiring: bool,
}

/// The database of a stored key; 0 if it names none, which keys made by `types::Key` cannot.
pub(super) fn db_of(stored_key: &[u8]) -> Db {
    stored_key.first().copied().and_then(Db::new).unwrap_or_default()
}

/// The first and the last hash that keys of a database can have.
pub(super) const fn hashes_of(db: Db) -> (u64, u64) {
    let first = (db.get() as u64) << 60;
    (first, first | ((1 << 60) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::WallMillis;

    const SEEDS: Seeds = Seeds { hash: 1, digest: 2 };

    /// Nodes of different releases compare these.
    #[test]
    fn hashes_and_digests_are_those_that_were_shipped() {
        let key = b"\x03user:1";
        let version = Version { term: 1, clock: 2, origin: 3 };
        let body = BodyRef::String(b"value");
        let record = RecordRef { key, version, expires_at: Some(WallMillis(5)), body };
        let hash = SEEDS.key_hash(key);
        assert_eq!(hash >> 60, 3);
        assert_eq!(
            (hash, SEEDS.share(hash, &record).digest),
            (4_150_331_267_590_516_830, 11_105_544_084_730_622_232)
        );
    }

    #[test]
    fn a_digest_sees_every_field() {
        let key = b"\0k";
        let version = Version { term: 1, clock: 2, origin: 3 };
        let record = RecordRef { key, version, expires_at: None, body: BodyRef::String(b"value") };
        let digest =
            |record: RecordRef<'_>| SEEDS.share(SEEDS.key_hash(record.key), &record).digest;
        let changed = [
            record,
            RecordRef { key: b"\x01k", ..record },
            RecordRef { version: Version { term: 2, ..version }, ..record },
            RecordRef { version: Version { clock: 3, ..version }, ..record },
            RecordRef { version: Version { origin: 4, ..version }, ..record },
            RecordRef { expires_at: Some(WallMillis(0)), ..record },
            RecordRef { body: BodyRef::String(b"value!"), ..record },
            RecordRef { body: BodyRef::Tombstone, ..record },
        ]
        .map(digest);
        let distinct: std::collections::BTreeSet<_> = changed.into_iter().collect();
        assert_eq!(distinct.len(), changed.len());
    }
}
