//! What nodes say to each other over QUIC.
//!
//! `frame` and `hello` belong to the transport: they carry opaque payloads. `message` gives the
//! payload of a call its meaning, `snapshot` is the one encoding of records, `replication` the
//! items of a replication queue and of a fill.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod frame;
pub mod hello;
pub mod keys;
pub mod member;
pub mod message;
pub mod raw;
pub mod replication;
pub mod snapshot;
