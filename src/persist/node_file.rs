//! The node file: who a node is, and what it must not forget over a restart.
//!
//! Layout: eight bytes of marker `CHKNODE` and the version `1`; the fields in postcard; eight bytes
//! of xxh3 over everything before, little-endian. A field is never added to a version: a change of
//! the layout is a new version with its own struct, and the old one stays readable.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::persist::storage::{Storage, StorageError};
use crate::types::{ClusterFacts, Generation, NodeId, WallMillis};

/// The file's name in the node's storage.
pub const NAME: &str = "node";

const MARKER: &[u8; 7] = b"CHKNODE";
const VERSION: u8 = b'1';
const CHECKSUM_BYTES: usize = 8;

/// A member to be asked at the next start, beside the seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The member.
    pub node: NodeId,
    /// Its peer address.
    pub peer: SocketAddr,
}

/// What a node keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Its id for life.
    pub node: NodeId,
    /// The number of its present start.
    pub generation: Generation,
    /// A hybrid-clock reading that no stamp of this node has passed.
    pub clock_high: u64,
    /// What the cluster agreed on when it was last heard of; `None` before the first join.
    pub facts: Option<ClusterFacts>,
    /// Members last heard of.
    pub members: Vec<Seed>,
}

/// Why there is no node file to go on with. It was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeFileError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The contents are torn or spoiled. The node may be started anew without the file: it then
    /// joins as another node.
    #[error("{path} is damaged ({why}); move it away to start as a new node")]
    Damaged {
        /// The file.
        path: String,
        /// What did not fit.
        why: &'static str,
    },
    /// Written by a later release; go on with that release.
    #[error("{path} was written by a later release (version {version:?})")]
    Later {
        /// The file.
        path: String,
        /// Its version byte.
        version: char,
    },
}

impl NodeFile {
    /// Begins a start: reads the file, or makes one with the id `new_node`, and gives it a
    /// generation above every earlier one, which is on disk when this returns.
    ///
    /// The generation is at least the wall clock's milliseconds, so that a node whose file was
    /// lost with its id kept elsewhere still comes back with a higher one.
    pub fn begin(
        storage: &dyn Storage,
        wall: WallMillis,
        new_node: impl FnOnce() -> NodeId,
    ) -> Result<Self, NodeFileError> {
        let mut file = Self::read(storage)?.unwrap_or_else(|| Self {
            node: new_node(),
            generation: Generation(0),
            clock_high: 0,
            facts: None,
            members: Vec::new(),
        });
        file.generation = Generation(file.generation.0.saturating_add(1).max(wall.0));
        file.write(storage)?;
        Ok(file)
    }

    /// The file as it is; `None` if there is none.
    pub fn read(storage: &dyn Storage) -> Result<Option<Self>, NodeFileError> {
        let path = || storage.describe(NAME);
        let Some(bytes) = storage.read(NAME)? else { return Ok(None) };
        match decode(&bytes) {
            Ok(file) => Ok(Some(file)),
            Err(Fault::Later(version)) => {
                Err(NodeFileError::Later { path: path(), version: char::from(version) })
            }
            Err(Fault::Damaged(why)) => Err(NodeFileError::Damaged { path: path(), why }),
        }
    }

    /// Replaces the file.
    pub fn write(&self, storage: &dyn Storage) -> Result<(), NodeFileError> {
        storage.write(NAME, &self.encode()).map_err(NodeFileError::from)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MARKER.to_vec();
        bytes.push(VERSION);
        let mut bytes = postcard::to_extend(self, bytes).expect("plain fields can be encoded");
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

enum Fault {
    Damaged(&'static str),
    Later(u8),
}

fn decode(bytes: &[u8]) -> Result<NodeFile, Fault> {
    let (body, checksum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Fault::Damaged("too short"))?;
    if xxh3_64(body) != u64::from_le_bytes(*checksum) {
        return Err(Fault::Damaged("wrong checksum"));
    }
    let rest = body.strip_prefix(MARKER).ok_or(Fault::Damaged("not a node file"))?;
    let (version, fields) = rest.split_first().ok_or(Fault::Damaged("too short"))?;
    if *version != VERSION {
        return Err(Fault::Later(*version));
    }
    postcard::from_bytes(fields).map_err(|_| Fault::Damaged("unreadable fields"))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that spoils bytes knows where they are")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::persist::storage::MemoryStorage;

    fn sample() -> NodeFile {
        NodeFile {
            node: NodeId(0x0123_4567_89ab_cdef),
            generation: Generation(1_795_000_000_000),
            clock_high: 77,
            facts: Some(ClusterFacts {
                name: "prod".parse().unwrap(),
                replicas: 2,
                virtual_nodes: 256,
                ring_grace: Duration::from_secs(30),
                tombstone_grace: Duration::from_hours(1),
                revision: 4,
                origin: 9,
            }),
            members: vec![Seed { node: NodeId(5), peer: "10.0.0.1:7401".parse().unwrap() }],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
    }

    fn digit(nibble: u8) -> char {
        char::from_digit(nibble.into(), 16).unwrap()
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        assert_eq!(hex(&sample().encode()), GOLDEN);
    }

    const GOLDEN: &str = "43484b4e4f444531ef9bafcdf8acd1910180bcd9f29e344d010470726f64\
                          0280021e00901c0004090105000a000001e9399e286770ab2f31d3";

    #[test]
    fn a_file_comes_back_as_written() {
        let storage = MemoryStorage::default();
        sample().write(&storage).unwrap();
        assert_eq!(NodeFile::read(&storage).unwrap(), Some(sample()));
    }

    #[test]
    fn a_torn_or_spoiled_file_is_refused_by_name() {
        let whole = sample().encode();
        let storage = MemoryStorage::default();
        let refused = |bytes: &[u8]| {
            storage.write(NAME, bytes).unwrap();
            let error = NodeFile::read(&storage).unwrap_err();
            assert!(matches!(error, NodeFileError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("node (in memory) is damaged"), "{error}");
        };
        for length in 0..whole.len() {
            refused(&whole[..length]);
        }
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[position] ^= 1 << bit;
                refused(&bytes);
            }
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let storage = MemoryStorage::default();
        let mut bytes = sample().encode();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes[MARKER.len()] = b'2';
        let checksum = xxh3_64(&bytes).to_le_bytes();
        bytes.extend_from_slice(&checksum);
        storage.write(NAME, &bytes).unwrap();
        let error = NodeFile::read(&storage).unwrap_err().to_string();
        assert!(error.contains("later release (version '2')"), "{error}");
    }

    #[test]
    fn a_generation_is_on_disk_before_it_is_used_and_only_grows() {
        let storage = MemoryStorage::default();
        let begin = |wall| NodeFile::begin(&storage, WallMillis(wall), || NodeId(7)).unwrap();
        let first = begin(1000);
        assert_eq!((first.node, first.generation), (NodeId(7), Generation(1000)));
        assert_eq!(NodeFile::read(&storage).unwrap(), Some(first));
        assert_eq!(begin(10).generation, Generation(1001));
        assert_eq!(begin(5000).generation, Generation(5000));
        let kept = NodeFile::begin(&storage, WallMillis(0), || NodeId(8)).unwrap();
        assert_eq!(kept.node, NodeId(7));
    }
}
