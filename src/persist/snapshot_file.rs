//! The snapshot file: what a node had when it paused, so that it need not be sent it again.
//!
//! ```text
//!  ├─ len u32 ─┼─ xxh3 u64 ─┼─ body ─┤ …   ├─ 0 ─┤
//! ```
//! Little-endian. The first body is the head: magic, node id, wall clock, hybrid clock. The others
//! are the cluster layer's own. A length of 0 ends the file. It is not synced to the disk: what a
//! power cut tears shows by its checksum, and everything in it is compared before it is used.

use std::io::Read;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::types::{NodeId, WallMillis};

use super::storage::{NewFile, Storage, StorageError};

const FILE: &str = "snapshot";
const MAGIC: [u8; 8] = *b"CHKSNAP1";
const HEAD_LEN: usize = MAGIC.len() + 16 + 8 + 8;

/// Whose snapshot it is, and of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The node that wrote it.
    pub node: NodeId,
    /// The time of day when it was begun.
    pub taken_at: WallMillis,
    /// The hybrid clock's reading then.
    pub clock: u64,
}

/// Why a snapshot file is of no use from some place on. The node starts without the rest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file cannot be read.
    #[error("cannot read the snapshot file: {0}")]
    Read(#[from] std::io::Error),
    /// The file is none of this program's, or of another version.
    #[error("not a snapshot file of this version")]
    Strange,
    /// The file is torn or was changed.
    #[error("the snapshot file is damaged")]
    Damaged,
}

/// A snapshot file that is being written.
pub struct SnapshotWriter {
    file: Box<dyn NewFile>,
    bytes: u64,
}

impl SnapshotWriter {
    /// Begins a file; the old one stays until [`commit`](Self::commit).
    pub fn begin(storage: &dyn Storage, head: SnapshotHead) -> Result<Self, StorageError> {
        let mut writer = Self { file: storage.create(FILE)?, bytes: 0 };
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&head.node.0.to_le_bytes());
        body.extend_from_slice(&head.taken_at.0.to_le_bytes());
        body.extend_from_slice(&head.clock.to_le_bytes());
        writer.put(&body)?;
        Ok(writer)
    }

    /// Appends a body, which must not be empty.
    pub fn put(&mut self, body: &[u8]) -> Result<(), StorageError> {
        let length = u32::try_from(body.len()).expect("values are bounded far below 4 GiB");
        self.file.append(&length.to_le_bytes())?;
        self.file.append(&xxh3_64(body).to_le_bytes())?;
        self.file.append(body)?;
        self.bytes += 12 + u64::from(length);
        Ok(())
    }

    /// Puts the file in the place of the old one; gives its length in bytes.
    pub fn commit(mut self) -> Result<u64, StorageError> {
        self.file.append(&0u32.to_le_bytes())?;
        self.file.commit()?;
        Ok(self.bytes + 4)
    }
}

/// A snapshot file that is being read.
pub struct SnapshotReader {
    file: Box<dyn Read + Send>,
    /// What its head says.
    pub head: SnapshotHead,
}

impl SnapshotReader {
    /// Opens the file; `None` if there is none.
    pub fn open(storage: &dyn Storage) -> Result<Option<Self>, SnapshotError> {
        let Some(mut file) = storage.open(FILE)? else { return Ok(None) };
        let body = read_body(&mut *file)?.ok_or(SnapshotError::Strange)?;
        let head = read_head(&body).ok_or(SnapshotError::Strange)?;
        Ok(Some(Self { file, head }))
    }

    /// Removes the file, if there is one.
    pub fn discard(storage: &dyn Storage) -> Result<(), StorageError> {
        storage.remove(FILE)
    }

    /// The next body; `None` at the end.
    pub fn next_body(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        read_body(&mut *self.file)
    }
}

fn read_head(body: &[u8]) -> Option<SnapshotHead> {
    let body: &[u8; HEAD_LEN] = body.try_into().ok()?;
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (node, rest) = rest.split_first_chunk::<16>()?;
    let (taken_at, rest) = rest.split_first_chunk::<8>()?;
    let clock = rest.first_chunk::<8>()?;
    (*magic == MAGIC).then(|| SnapshotHead {
        node: NodeId(u128::from_le_bytes(*node)),
        taken_at: WallMillis(u64::from_le_bytes(*taken_at)),
        clock: u64::from_le_bytes(*clock),
    })
}

fn read_body(file: &mut (dyn Read + Send)) -> Result<Option<Vec<u8>>, SnapshotError> {
    let mut length = [0; 4];
    exactly(file, &mut length)?;
    let length = u32::from_le_bytes(length);
    if length == 0 {
        return Ok(None);
    }
    let mut sum = [0; 8];
    exactly(file, &mut sum)?;
    // Not allocated in advance: a damaged length may say anything.
    let mut body = Vec::new();
    file.take(length.into()).read_to_end(&mut body)?;
    if body.len() as u64 != u64::from(length) || xxh3_64(&body) != u64::from_le_bytes(sum) {
        return Err(SnapshotError::Damaged);
    }
    Ok(Some(body))
}

fn exactly(file: &mut (dyn Read + Send), buffer: &mut [u8]) -> Result<(), SnapshotError> {
    file.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => SnapshotError::Damaged,
        _ => SnapshotError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::MemoryStorage;
    use proptest::prelude::*;

    const HEAD: SnapshotHead =
        SnapshotHead { node: NodeId(7), taken_at: WallMillis(1_000), clock: 99 };

    fn written(bodies: &[&[u8]]) -> MemoryStorage {
        let storage = MemoryStorage::default();
        let mut writer = SnapshotWriter::begin(&storage, HEAD).unwrap();
        for body in bodies {
            writer.put(body).unwrap();
        }
        let bytes = writer.commit().unwrap();
        assert_eq!(bytes, storage.read(FILE).unwrap().unwrap().len() as u64);
        storage
    }

    fn bodies(storage: &MemoryStorage) -> (Vec<Vec<u8>>, Option<SnapshotError>) {
        let mut found = Vec::new();
        let mut reader = match SnapshotReader::open(storage) {
            Ok(reader) => reader.unwrap(),
            Err(error) => return (found, Some(error)),
        };
        assert_eq!(reader.head, HEAD);
        loop {
            match reader.next_body() {
                Ok(Some(body)) => found.push(body),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[test]
    fn what_was_written_comes_back() {
        assert!(SnapshotReader::open(&MemoryStorage::default()).unwrap().is_none());
        let (found, error) = bodies(&written(&[b"one", b"two"]));
        assert_eq!(found, [b"one", b"two"]);
        assert!(error.is_none());
    }

    #[test]
    fn a_file_that_was_not_committed_replaces_nothing() {
        let storage = written(&[b"one"]);
        let mut writer = SnapshotWriter::begin(&storage, HEAD).unwrap();
        writer.put(b"other").unwrap();
        drop(writer);
        assert_eq!(bodies(&storage).0, [b"one"]);
    }

    proptest! {
        #[test]
        fn damage_gives_an_error_and_no_wrong_body(at in 0usize..100, flip in 1u8.., cut in 0usize..100) {
            let whole = written(&[b"one body", b"another one"]).read(FILE).unwrap().unwrap();
            for damaged in [
                { let mut bytes = whole.clone(); let at = at % bytes.len(); bytes[at] ^= flip; bytes },
                whole[..cut % whole.len()].to_vec(),
            ] {
                let storage = MemoryStorage::default();
                storage.write(FILE, &damaged).unwrap();
                let (found, error) = bodies(&storage);
                prop_assert!(error.is_some());
                let right: [&[u8]; 2] = [b"one body", b"another one"];
                prop_assert!(found.iter().zip(right).all(|(body, right)| body == right));
            }
        }
    }
}
