//! Newtypes with no behaviour beyond their own meaning.
//!
//! Everything that crosses a boundary between modules, the network or a file has a type here, so
//! that a slot is never mistaken for a count nor a generation for a clock.

pub mod key;
pub mod member;
pub mod node;
pub mod record;
pub mod slot;
pub mod time;
pub mod units;
pub mod version;

pub use key::{Db, Key};
pub use member::{ClusterFacts, Identity, MemberRecord, MemberState, NodeMeta, Phase};
pub use node::{ClusterName, Generation, NodeId, NodeName, Weight, Zone};
pub use record::{Body, BodyRef, Record, RecordRef};
pub use slot::{SLOTS, Slot, SlotSet};
pub use time::{Instant, WallMillis};
pub use units::ByteSize;
pub use version::{Term, Version};
