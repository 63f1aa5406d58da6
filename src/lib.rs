//! Chickadee: a distributed in-memory cache that any Redis client can use on any node.
//!
//! Nodes find each other by a seed's address, agree on who holds which slot of the key space, keep
//! copies, and mend what a dead node leaves. The program `chickadee` runs a node; this library is
//! the same node inside another program:
//!
//! ```
//! use std::time::Duration;
//!
//! use chickadee::{Config, Node};
//!
//! #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
//! struct Bird {
//!     name: String,
//!     seeds: u32,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let data = folder.path();
//! // Three nodes in one process, each on threads and ports of its own.
//! let first = Node::start(Config::on_loopback("ada".parse()?, data.join("ada"))).await?;
//! let mut nodes = vec![first];
//! for name in ["bob", "cyd"] {
//!     let mut config = Config::on_loopback(name.parse()?, data.join(name));
//!     config.cluster.join = vec![nodes[0].addresses().peer.to_string()];
//!     nodes.push(Node::start(config).await?);
//! }
//! for node in &nodes {
//!     node.ready().await?;
//! }
//!
//! // What is set at one is there at every other.
//! nodes[0].cache().set("greeting", "chick-a-dee-dee").await?;
//! let got = nodes[1].cache().get("greeting").await?;
//! assert_eq!(got.as_deref(), Some(&b"chick-a-dee-dee"[..]));
//!
//! let bird = Bird { name: "Ada".to_owned(), seeds: 80_000 };
//! nodes[1].cache().set_value("bird", &bird, Some(Duration::from_mins(10))).await?;
//! assert_eq!(nodes[2].cache().get_value("bird").await?, Some(bird));
//! assert_eq!(nodes[2].members().len(), 3);
//!
//! // One leaves for good and hands everything over; what it held is still there.
//! assert_eq!(nodes.remove(0).leave().await, 0);
//! assert!(nodes[0].cache().delete("greeting").await?);
//! assert!(nodes[1].stats().limit_bytes > 0);
//! for node in nodes {
//!     node.shutdown().await;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Parts
//!
//! An arrow means *may use*; `tests/tidy.rs` holds the table. The [manual] says how they work
//! together: begin with its [architecture](manual::architecture).
//!
//! ```text
//!    cli ──► node ──────────────────────────────────────────────┐   WIRING: knows every part
//!             │                                                 │
//!             ▼                                                 ▼
//!    gossip   transport   persist   tls   server   admin            DRIVERS: one kind of I/O each
//!      │         │           │               │        │
//!      └► members ◄──┴─► peers                └──► cluster ◄──┘     SERVICES: async, no socket or clock
//!             │              │                        │             of their own
//!             ▼              ▼                        ▼
//!    membership     wire   store   command   ring   hlc   resp      CORES: functions of state, input, now
//!
//!      types  limits  config  clock  metrics  rng  net  tasks  audit   VOCABULARY
//! ```
//!
//! What an embedding program needs stands at the root of the crate. The modules are public so that
//! the program and the tests can reach them; their items change with any release.

pub mod admin;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod gossip;
pub mod hlc;
pub mod limits;
pub mod manual;
pub mod members;
pub mod membership;
pub mod metrics;
pub mod net;
pub mod node;
pub mod peers;
pub mod persist;
pub mod resp;
pub mod ring;
pub mod rng;
pub mod server;
pub mod store;
pub mod tasks;
pub mod tls;
pub mod transport;
pub mod types;
pub mod wire;

pub use admin::status::{Addresses, Member, Status};
pub use config::Config;
pub use node::{Cache, Error, Node, Seams, Stats};
pub use resp::Reply;
pub use types::{Db, NodeName};
