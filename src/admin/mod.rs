//! How a node is seen and told to act: HTTP over TCP to look, over a unix socket to act.
//!
//! ```text
//!   TCP ───► http ─► routes ─► trait Source (the node implements it)
//!   socket ─►  │        └────► exposition: metrics as text
//!              └ bounded connections, a timeout on the head of a request
//! ```
//!
//! Nothing here changes anything but through [`Actions`]; over TCP there is no action at all. The
//! structs of `status` are what scripts rely on.

mod actions;
mod exposition;
mod http;
mod routes;
pub mod stats;
pub mod status;

pub use actions::{Acted, Actions};
pub use exposition::exposition;
pub use http::{AdminError, Bound};

use bytes::Bytes;

use crate::admin::status::{
    Explained, Facts, Located, Member, Peer, Ring, SlotFilter, SlotRow, Status,
};
use crate::tasks::BoxFuture;
use crate::types::Db;

/// What admin asks of the node. Answers are of this moment.
pub trait Source: Actions {
    /// The node by its own word.
    fn status(&self) -> Status;

    /// Every member that is not forgotten, this node included, by name.
    fn members(&self) -> Vec<Member>;

    /// Every other member, by name.
    fn peers(&self) -> Vec<Peer>;

    /// The placement.
    fn ring(&self) -> Ring;

    /// Who should hold a key.
    fn locate(&self, key: &[u8]) -> Located;

    /// What each holder has of a key; the holders are asked.
    fn explain(&self, db: Db, key: Bytes) -> BoxFuture<'_, Explained>;

    /// The slots this node holds, in ascending order.
    fn slots(&self, filter: SlotFilter) -> Vec<SlotRow>;

    /// Whether the node is ready, else every reason why not.
    fn ready(&self) -> Result<(), Vec<String>>;

    /// The metrics that the node's recorder and its shard threads hold, as Prometheus text; what
    /// `exposition` adds is not part of it.
    fn metrics(&self) -> String;

    /// What the cluster agrees on.
    fn facts(&self) -> Facts;

    /// When the certificates in use end, in seconds since 1970, by what they are used for.
    fn certificate_ends(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
