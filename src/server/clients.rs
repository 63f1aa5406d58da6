//! The registry of connected clients: their limit, `CLIENT LIST` and `CLIENT KILL`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::command::table;
use crate::resp::Proto;
use crate::server::acl::{DEFAULT, Users};
use crate::server::{Entrance, Port};
use crate::types::{Db, Instant};

/// Every connected client, by id.
#[derive(Debug, Default)]
pub struct Clients {
    last_id: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// One connected client, as others see it.
#[derive(Debug)]
pub struct Client {
    id: u64,
    from: SocketAddr,
    to: SocketAddr,
    entrance: Entrance,
    since: Instant,
    /// Milliseconds on the node's clock when it sent its last requests.
    last_active: AtomicU64,
    /// The number of its last command's row; 0 before the first.
    last_command: AtomicU16,
    shown: Mutex<Shown>,
    closing: AtomicBool,
    close: Notify,
}

/// What a client said of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) name: Vec<u8>,
    pub(super) library: Vec<u8>,
    pub(super) library_version: Vec<u8>,
    pub(super) db: Db,
    pub(super) proto: Proto,
    /// Who it is; `None` before a login that is needed.
    pub(super) user: Option<String>,
}

impl Shown {
    /// The user's name.
    pub(super) fn user_name(&self) -> &str {
        self.user.as_deref().unwrap_or(DEFAULT)
    }
}

/// A client's place in the registry; given up when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
}

impl Clients {
    /// Takes a client in; `None` if there are `max` already.
    pub(super) fn register(
        self: &Arc<Self>,
        (from, to): (SocketAddr, SocketAddr),
        entrance: Entrance,
        now: Instant,
        max: usize,
    ) -> Option<Registered> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.len() >= max {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            from,
            to,
            entrance,
            since: now,
            last_active: AtomicU64::new(millis(now)),
            last_command: AtomicU16::new(0),
            shown: Mutex::default(),
            closing: AtomicBool::new(false),
            close: Notify::new(),
        });
        connected.insert(id, Arc::clone(&client));
        Some(Registered { clients: Arc::clone(self), client })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many there are on a port.
    pub fn count_on(&self, port: Port) -> usize {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.values().filter(|client| client.entrance.port == port).count()
    }

    /// How many there ever were.
    pub fn accepted(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// Everyone, ascending by id.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.values().cloned().collect()
    }

    /// Asks the connections of users who are gone, or may not log in any more, to close once their
    /// present requests are answered.
    pub(super) fn close_those_of_none(&self, users: &Users) {
        for client in self.all() {
            let user = client.shown().user;
            if user.is_some_and(|name| !users.get(&name).is_some_and(|user| user.is_on())) {
                client.close();
            }
        }
    }

    /// Asks every connection to close once its present requests are answered.
    pub fn close_all(&self) {
        self.all().iter().for_each(|client| client.close());
    }
}

impl Client {
    /// Its number: unique in the life of the node.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Where it comes from.
    pub(super) const fn from(&self) -> SocketAddr {
        self.from
    }

    /// The address it connected to.
    pub(super) const fn to(&self) -> SocketAddr {
        self.to
    }

    /// Whether it speaks TLS.
    pub(super) const fn is_tls(&self) -> bool {
        self.entrance.tls
    }

    /// Asks the connection to close once its present requests are answered.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.close.notify_one();
    }

    /// Waits until it is asked to close.
    pub(super) async fn closed(&self) {
        while !self.closing.load(Ordering::Acquire) {
            self.close.notified().await;
        }
    }

    /// Whether it was asked to close.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Notes its last command and when it came.
    pub(super) fn note(&self, now: Instant, command: u16) {
        self.last_active.store(millis(now), Ordering::Relaxed);
        self.last_command.store(command, Ordering::Relaxed);
    }

    /// Changes what it shows of itself.
    pub(super) fn show(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What it shows of itself.
    pub(super) fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its line of `CLIENT LIST`, with the fields that have a meaning here.
    pub(super) fn line(&self, now: Instant) -> String {
        let shown = self.shown();
        let active = self.last_active.load(Ordering::Relaxed);
        let idle = millis(now).saturating_sub(active) / 1000;
        let age = now.saturating_since(self.since).as_secs();
        let command = table::by_number(self.last_command.load(Ordering::Relaxed));
        let mut line = String::new();
        let text = String::from_utf8_lossy;
        let _writing_to_a_string_works = write!(
            line,
            "id={} addr={} laddr={} name={} age={age} idle={idle} flags=N db={} sub=0 psub=0 \
             ssub=0 multi=-1 cmd={} user={} resp={} lib-name={} lib-ver={}",
            self.id,
            self.from,
            self.to,
            text(&shown.name),
            shown.db.get(),
            command.map_or("NULL", |row| row.name),
            shown.user_name(),
            shown.proto.number(),
            text(&shown.library),
            text(&shown.library_version),
        );
        line
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut connected = self.clients.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.remove(&self.client.id);
    }
}

fn millis(now: Instant) -> u64 {
    u64::try_from(now.since_origin().as_millis()).unwrap_or(u64::MAX)
}
