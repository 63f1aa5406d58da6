//! What a node keeps on disk, and the storage it keeps it in.
//!
//! `storage` is the port: files written whole, in a folder that one process owns; the simulator has
//! it in memory. `node_file` is who the node is and what it must not forget. `snapshot_file` is what
//! it had when it paused. `machine` is what the settings' defaults ask of the host.

pub mod machine;
pub mod node_file;
pub mod snapshot_file;
pub mod storage;

pub use node_file::{NodeFile, NodeFileError, Seed};
pub use snapshot_file::{SnapshotError, SnapshotHead, SnapshotReader, SnapshotWriter};
pub use storage::{DirectoryStorage, MemoryStorage, NewFile, Storage, StorageError};
