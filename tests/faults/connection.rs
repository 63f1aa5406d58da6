//! One client's connection: to one node of several, and to the next one where that is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::support::resp::{Client, Reply};

/// The longest that a connection may take to come about.
const CONNECTING_MAX: Duration = Duration::from_secs(1);
/// The longest wait for one reply: more than the budget of a command.
const REPLY_MAX: Duration = Duration::from_secs(3);

/// Why a command has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It was not sent: nobody accepted the connection, or the node had closed it before.
    Unsent,
    /// It was sent, and the connection broke or nothing came in time.
    Sent,
}

/// A connection of a client that knows all nodes. It connects when it is needed.
pub(crate) struct Connection {
    addresses: Arc<[SocketAddr]>,
    node: usize,
    client: Option<Client>,
}

impl Connection {
    /// A client of the nodes at `addresses` that begins at `node`.
    pub(crate) const fn new(addresses: Arc<[SocketAddr]>, node: usize) -> Self {
        Self { addresses, node, client: None }
    }

    /// Goes on at that node.
    pub(crate) fn go_to(&mut self, node: usize) {
        self.node = node;
        self.client = None;
    }

    /// Goes on at the next node.
    pub(crate) fn go_on(&mut self) {
        self.go_to((self.node + 1) % self.addresses.len());
    }

    /// Runs one command at the present node.
    pub(crate) fn run(&mut self, args: &[&str]) -> Result<Reply, Broken> {
        if let Some(client) = &self.client
            && client.is_closed().unwrap_or(true)
        {
            self.client = None;
            return Err(Broken::Unsent);
        }
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                let address = self.addresses[self.node];
                let made = Client::try_connect_within(address, CONNECTING_MAX, REPLY_MAX);
                none.insert(made.map_err(|_| Broken::Unsent)?)
            }
        };
        let reply = client.try_run(args);
        if reply.is_err() {
            self.client = None;
        }
        reply.map_err(|_| Broken::Sent)
    }
}
