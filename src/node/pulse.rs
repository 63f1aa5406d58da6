//! Whether the parts of a node still work, found by going through each of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::within;

use super::client::ShardHandle;
use super::{Inner, Node};

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
    /// Goes once through every shard thread and there through every lock of the store, at the same time
    /// through all of them, and through the membership task and the peer port. Takes about a second.
    ///
    /// # Errors
    ///
    /// A part that did not answer until `patience` was over, or has ended.
    pub async fn pulse(&self, patience: Duration) -> Result<(), Stuck> {
        let mut at = Stuck::Shard(0);
        let passed = within(patience, self.pass_through(&mut at)).await.flatten();
        passed.ok_or(at)
    }

    /// Goes through all parts and says at which it is; `None` where one has ended.
    async fn pass_through(&self, at: &mut Stuck) -> Option<()> {
        let inner = &self.inner;
        let passing: Vec<_> = inner.shards.iter().map(|shard| pass_locks(inner, shard)).collect();
        for (number, passed) in passing.into_iter().enumerate() {
            *at = Stuck::Shard(number);
            passed.await.ok()?;
        }
        *at = Stuck::Membership;
        inner.members.pulse().await.then_some(())?;
        *at = Stuck::PeerPort;
        inner.transport.pulse().await;
        Some(())
    }
}

/// Begins to go through all locks on a shard's thread.
fn pass_locks(inner: &Arc<Inner>, shard: &ShardHandle) -> oneshot::Receiver<()> {
    let (done, passed) = oneshot::channel();
    let shared = Arc::clone(&inner.shared);
    shard.executor.spawn("pulse", async move {
        shared.store().pass_locks();
        let _nobody_waits_any_more = done.send(());
    });
    passed
}
