//! Who is a member and how it fares: SWIM as a pure state machine.
//!
//! [`Membership`] wraps `foca` and adds what it lacks. It has no socket, no clock and no thread:
//! datagrams, due timers and commands go in, each with `now`; datagrams, events and the next due
//! time come out. One task drives it for real (`members`), and `net_sim` drives a thousand of them
//! in virtual time.
//!
//! ```text
//!   handle_packet ──► seal: open ──► foca ──► outbox ──► seal ──► poll_transmit
//!   handle_timeout ─► timers ─guard─┘   │
//!   commands ───────► merge ────────┘   └─► scan ──► member table ──► poll_event
//! ```
//!
//! Invariants:
//! - What does not open with a key of the ring is counted and dropped, never answered.
//! - A member's state changes only through foca; the table is a copy that adds *left*, *removed*
//!   and *since*.
//! - A node answers for itself alone: nobody else declares a living generation of it dead by
//!   push-pull, and only the node itself chooses its next generation.

mod backchannel;
mod codec;
mod commands;
mod engine;
mod health;
mod identity;
mod member;
mod merge;
#[cfg(test)]
mod net_sim;
mod notice;
mod profile;
mod refused;
mod seal;
mod suspicion;
#[cfg(test)]
mod tests;
mod timers;

pub use engine::{Event, Membership, MembershipOptions, Pong, Transmit};
pub use member::Member;
pub use seal::{GossipKey, KeyRing, KeyRingError, SEAL_OVERHEAD};
