//! The one writer of the node file while the node runs.
//!
//! The membership task tells it a renewed generation, which must be on disk before its first
//! packet; everything else is noted in rounds. Both change one and the same file.

use std::sync::{Arc, Mutex};

use crate::members::MemberTable;
use crate::persist::{NodeFile, Seed, Storage};
use crate::tasks::lock;
use crate::types::Generation;

/// Keeps what must survive a restart.
pub(super) struct FileKeeper {
    file: Mutex<NodeFile>,
    storage: Arc<dyn Storage>,
}

impl FileKeeper {
    /// A keeper of `file`, which is on disk as it is.
    pub(super) fn new(file: NodeFile, storage: Arc<dyn Storage>) -> Self {
        Self { file: Mutex::new(file), storage }
    }

    /// Notes a renewed generation.
    pub(super) fn note_generation(&self, generation: Generation) {
        self.update(|file| file.generation = file.generation.max(generation));
    }

    /// Notes what the members agree on, who they are, and a clock reading that this node will not
    /// pass before the next round.
    pub(super) fn note(&self, table: &MemberTable, clock_high: u64) {
        self.update(|file| {
            file.clock_high = file.clock_high.max(clock_high);
            if table.formed {
                file.facts = Some(table.facts.clone());
                let members = table.last_known();
                file.members = members.map(|(node, peer)| Seed { node, peer }).collect();
            }
        });
    }

    /// A write that fails is logged and tried again with the next change.
    fn update(&self, change: impl FnOnce(&mut NodeFile)) {
        let mut file = lock(&self.file);
        let mut changed = file.clone();
        change(&mut changed);
        if changed == *file {
            return;
        }
        match changed.write(&*self.storage) {
            Ok(()) => *file = changed,
            Err(error) => tracing::error!(%error, "node file could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::persist::MemoryStorage;
    use crate::types::{ClusterFacts, NodeId, WallMillis};

    /// The phase of a node changes when it pauses; the file went back to what it was at the start
    /// then, and the node that came back formed a cluster of its own beside the old one.
    #[test]
    fn a_new_generation_keeps_what_was_noted_before() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let begin = || NodeFile::begin(&*storage, WallMillis(1), || NodeId(7)).unwrap();
        let first = begin();
        let keeper = FileKeeper::new(first.clone(), Arc::clone(&storage));
        let facts = ClusterFacts {
            name: "prod".parse().unwrap(),
            replicas: 2,
            virtual_nodes: 256,
            ring_grace: Duration::from_secs(30),
            tombstone_grace: Duration::from_hours(1),
            revision: 4,
            origin: 9,
        };
        let table = MemberTable {
            me: NodeId(7),
            members: Vec::new(),
            facts,
            refutations: 0,
            formed: true,
            waiting_for: String::new(),
        };
        keeper.note(&table, 99);
        keeper.note_generation(Generation(first.generation.0 + 5));
        let kept = begin();
        assert_eq!((kept.clock_high, kept.generation), (99, Generation(first.generation.0 + 6)));
        assert_eq!(kept.facts, Some(table.facts));
    }
}
