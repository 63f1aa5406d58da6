//! What a node keeps on disk, and the storage it keeps it in.
//!
//! `storage` is the port: small files written whole, in a folder that one process owns; the
//! simulator has it in memory. `node_file` is the one file of a node: who it is and what it must
//! not forget. `machine` is what the settings' defaults ask of the host. The cache's data is not here: a node that restarts is filled by its peers.

pub mod machine;
pub mod node_file;
pub mod storage;

pub use node_file::{NodeFile, NodeFileError, Seed};
pub use storage::{DirectoryStorage, MemoryStorage, Storage, StorageError};
