//! The front end for Redis clients: listeners, connections, and the commands that are not about
//! keys.
//!
//! ```text
//!   listener ─ accepted ─► a shard thread: connection
//!                            read ─► parse every whole request ─► start each ─► one write
//!                                        about the connection: local
//!                                        about the node:       about, describe, topology
//!                                        about keys:           Backend::start
//! ```
//!
//! A [`Server`] is shared by all threads: options, the registry of clients and counters. Each
//! thread serves its connections with a [`Backend`] of its own, so that a command never changes
//! threads. A reply that is still under way does not hold up the requests behind it, but replies
//! leave in the order of the requests.

mod about;
pub mod acl;
pub mod backend;
pub mod clients;
mod connection;
mod describe;
mod handshake;
mod listener;
mod local;
mod password;
mod permission;
mod refused;
mod replies;
mod session;
pub mod stats;
mod topology;

use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, Semaphore};

pub use backend::{
    Backend, CommandCall, DatabaseFacts, Port, ServerFacts, SlotRange, Started, Topology,
    TopologyNode,
};
pub use listener::{Accepted, Entrance};
pub use password::{Passwords, PasswordsError};

pub use acl::{Users, UsersError};

use crate::audit::Seldom;
use crate::clock::SharedClock;
use crate::config::ClientConfig;
use crate::limits;
use crate::metrics::{ServerMetrics, level};
use crate::rng::Randomness;
use crate::server::clients::Clients;
use crate::server::stats::CommandStats;
use crate::server::topology::ReplyCache;
use crate::tls::ClientTls;

/// The version of Redis whose behaviour clients may expect; several read nothing but this.
pub const REDIS_VERSION: &str = "7.2.4";

/// The version of this program.
pub const CHICKADEE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What may change while clients are connected.
struct Live {
    config: ClientConfig,
    users: Arc<Users>,
    /// Counts the sets of users.
    users_number: u64,
    /// How TLS is spoken; `None` where no port does.
    tls: Option<ClientTls>,
}

/// Who may come in, and how.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Users and what they may do.
    pub users: Users,
    /// What the TLS ports need; `None` where there are none.
    pub tls: Option<ClientTls>,
}

/// What the connections of all threads share.
pub struct Server {
    live: ArcSwap<Live>,
    clock: SharedClock,
    rng: Randomness,
    metrics: ServerMetrics,
    clients: Arc<Clients>,
    stats: CommandStats,
    cluster_replies: ReplyCache,
    /// Places for TLS handshakes.
    handshakes: Semaphore,
    /// Told when the node has stood still.
    stood_still: Notify,
    /// Log lines about HTTP requests at client ports.
    refused_browsers: Mutex<Seldom>,
    /// Log lines about logins that were refused.
    refused_logins: Mutex<Seldom>,
    /// Log lines about clients without a certificate that is trusted.
    refused_certificates: Mutex<Seldom>,
}

impl Server {
    /// A front end without listeners.
    pub fn new(
        config: ClientConfig,
        Admission { users, tls }: Admission,
        (clock, rng): (SharedClock, Randomness),
        metrics: ServerMetrics,
    ) -> Arc<Self> {
        metrics.clients_limit.set(level(config.max_clients));
        Arc::new(Self {
            live: ArcSwap::from_pointee(Live {
                config,
                users: Arc::new(users),
                users_number: 0,
                tls,
            }),
            clock,
            rng,
            metrics,
            clients: Arc::default(),
            stats: CommandStats::default(),
            cluster_replies: ReplyCache::default(),
            handshakes: Semaphore::new(limits::CLIENT_HANDSHAKES_MAX),
            stood_still: Notify::new(),
            refused_browsers: Mutex::default(),
            refused_logins: Mutex::default(),
            refused_certificates: Mutex::default(),
        })
    }

    /// Other limits, other users and another certificate from now on. Whoever has logged in stays so
    /// as long as that user exists, with the rights that it has now; connections go on under the
    /// certificate that they began with.
    pub fn reload(&self, config: &ClientConfig, Admission { users, tls }: Admission) {
        self.metrics.clients_limit.set(level(config.max_clients));
        let users = Arc::new(users);
        self.live.rcu(|live| Live {
            config: config.clone(),
            users: Arc::clone(&users),
            users_number: live.users_number.wrapping_add(1),
            tls: tls.clone(),
        });
        self.clients.close_those_of_none(&users);
    }

    /// Reads the users' files again, as the settings name them.
    fn load_users(&self) -> Result<(), UsersError> {
        let users = Arc::new(Users::read(&self.live().config)?);
        self.live.rcu(|live| Live {
            config: live.config.clone(),
            users: Arc::clone(&users),
            users_number: live.users_number.wrapping_add(1),
            tls: live.tls.clone(),
        });
        self.clients.close_those_of_none(&users);
        Ok(())
    }

    fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// The clients that are connected.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// How often commands ran, failed, and how long they took.
    pub const fn stats(&self) -> &CommandStats {
        &self.stats
    }
}
