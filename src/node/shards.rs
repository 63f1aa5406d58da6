//! Threads: one for control, some for clients and peers; or none, on the caller's runtime.

use crate::tasks::{Executor, RuntimeThread};

use super::Error;

/// The threads of a node. They end when this is dropped.
pub(super) enum Threads {
    /// Everything on the caller's runtime.
    Caller,
    /// Threads of the node's own.
    Own {
        /// Gossip, movement, admin.
        control: RuntimeThread,
        /// Clients, lanes, peers.
        shards: Vec<RuntimeThread>,
    },
}

impl Threads {
    /// A control thread and `shards` shard threads.
    pub(super) fn own(shards: usize) -> Result<Self, Error> {
        let control = RuntimeThread::start("control").map_err(Error::Thread)?;
        let shards = (0..shards.max(1))
            .map(|number| RuntimeThread::start(&format!("shard-{number}")))
            .collect::<Result<_, _>>()
            .map_err(Error::Thread)?;
        Ok(Self::Own { control, shards })
    }

    /// Where control runs.
    pub(super) fn control(&self) -> Executor {
        match self {
            Self::Caller => Executor::Caller,
            Self::Own { control, .. } => control.executor().clone(),
        }
    }

    /// Where the shards run.
    pub(super) fn shards(&self) -> Vec<Executor> {
        match self {
            Self::Caller => vec![Executor::Caller],
            Self::Own { shards, .. } => {
                shards.iter().map(|shard| shard.executor().clone()).collect()
            }
        }
    }
}

/// How many shard threads a node has where its settings leave it open: half of the cores, because
/// the system's network work needs the other half.
pub(super) fn default_shards() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).max(1)
}
