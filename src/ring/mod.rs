//! Placement: which members hold which slot, computed alike by every node from the same inputs.
//!
//! ```text
//!   key ──hash──► slot ──its own number──► position on the ring
//!   members ──tokens──► points on the ring      walk clockwise ──► R members, owner first
//! ```
//!
//! Everything here is a pure function without history or clock: two nodes with equal
//! [`PlacementId`] have the same table, byte for byte. A change of the function is a change of the
//! protocol; golden vectors pin it.

pub mod hash;
pub mod placement;
mod tokens;

pub use hash::slot_of;
pub use placement::{Placement, PlacementId, RingMember};

#[cfg(test)]
mod tests;
