//! Whether the parts of a node still work, found by going through each of them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::within;

use super::Node;

/// A part of a node that did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// A thread of clients and peers, or a lock of the store that it asked for.
    Shard(usize),
    /// The task that owns membership and gossip.
    Membership,
    /// The task of the peer port.
    PeerPort,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(number) => write!(f, "shard thread {number}, or a lock of the store"),
            Self::Membership => f.write_str("membership"),
            Self::PeerPort => f.write_str("the peer port"),
        }
    }
}

impl Node {
    /// Goes once through every shard thread and there through every lock of the store, through the
    /// membership task and the peer port. Takes about a second.
    ///
    /// # Errors
    ///
    /// The first part that did not answer within `patience`, or has ended.
    pub async fn pulse(&self, patience: Duration) -> Result<(), Stuck> {
        let inner = &self.inner;
        for (number, shard) in inner.shards.iter().enumerate() {
            let shared = Arc::clone(&inner.shared);
            let locks = shard.executor.run("pulse", async move { shared.store().pass_locks() });
            answers(patience, async { locks.await.is_some() }, Stuck::Shard(number)).await?;
        }
        answers(patience, inner.members.pulse(), Stuck::Membership).await?;
        let port = async {
            inner.transport.pulse().await;
            true
        };
        answers(patience, port, Stuck::PeerPort).await
    }
}

async fn answers(
    patience: Duration,
    part: impl Future<Output = bool>,
    stuck: Stuck,
) -> Result<(), Stuck> {
    if within(patience, part).await == Some(true) { Ok(()) } else { Err(stuck) }
}
