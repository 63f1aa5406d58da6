//! The protocol of Redis clients, both directions, without a socket.
//!
//! [`RequestParser`] finds the requests in a buffer of bytes and points at their arguments in
//! place; [`Encoder`] appends replies to a buffer in RESP2 or RESP3; [`Reply`] is a reply as a
//! tree, which is decoded where replies of several nodes are merged and by this project's own
//! clients. `errors` holds the error texts by which client libraries decide what to do.
//!
//! Everything here may meet arbitrary bytes: no input panics, and nothing is reserved for a length
//! that was only announced.

pub mod decode;
pub mod encode;
pub mod errors;
pub mod inline;
pub mod reply;

pub use decode::{Args, Parsed, ProtocolError, Request, RequestLimits, RequestParser};
pub use encode::{Encoder, Proto};
pub use reply::{DecodeError, Reply};
