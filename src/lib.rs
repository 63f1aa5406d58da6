//! Chickadee: a distributed in-memory cache that any Redis client can use on any node.
//!
//! ```text
//!    cli ──► node ──────────────────────────────────────────────┐   WIRING
//!             │                                                 │
//!             ▼                                                 ▼
//!    gossip   transport   persist   tls   server   admin            DRIVERS: one kind of I/O each
//!      │         │           │               │        │
//!      └► members ◄──┴─► peers                └──► cluster ◄──┘     SERVICES: no socket, no clock
//!             │              │                        │             of their own
//!             ▼              ▼                        ▼
//!    membership     wire   store   command   ring   hlc   resp      CORES: sans-io
//!
//!      types  limits  config  clock  metrics  rng  net  tasks       VOCABULARY
//! ```

pub mod clock;
pub mod config;
pub mod hlc;
pub mod limits;
pub mod manual;
pub mod metrics;
pub mod peers;
pub mod rng;
pub mod tasks;
pub mod types;

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod gossip;
pub mod members;
pub mod membership;
pub mod net;
pub mod node;
pub mod persist;
pub mod resp;
pub mod ring;
pub mod server;
pub mod store;
pub mod tls;
pub mod transport;
pub mod wire;
