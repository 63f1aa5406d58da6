//! What a node can be told to do, over its socket.

use std::time::Duration;

use bytes::Bytes;

use crate::admin::status::{Facts, KeyChanged, KeyRow, Left};
use crate::tasks::BoxFuture;

/// What an action came to; the error says in words for people why nothing was done.
pub type Acted<'a, T> = BoxFuture<'a, Result<T, String>>;

/// Actions of the node.
pub trait Actions: Send + Sync + 'static {
    /// Leaves the cluster for good, within `timeout` or the node's own; the process ends afterwards.
    fn leave(&self, timeout: Option<Duration>) -> Acted<'_, Left>;

    /// Forms a cluster now instead of waiting for a member.
    fn form(&self) -> Acted<'_, ()>;

    /// Takes a dead member, by its name or id, out of the cluster at once.
    fn forget(&self, member: String) -> Acted<'_, ()>;

    /// Changes one of the cluster's facts, by its name as in the settings' section `cluster`.
    fn set_fact(&self, name: String, value: String) -> Acted<'_, Facts>;

    /// The key ring of gossip, by id.
    fn keys(&self) -> Acted<'_, Vec<KeyRow>>;

    /// Adds a key made from the contents of a secret file; every member opens packets with it.
    fn add_key(&self, contents: Bytes) -> Acted<'_, KeyChanged>;

    /// Makes every member seal with this key.
    fn use_key(&self, id: u8) -> Acted<'_, KeyChanged>;

    /// Removes a key that no member seals with.
    fn remove_key(&self, id: u8) -> Acted<'_, KeyChanged>;
}
