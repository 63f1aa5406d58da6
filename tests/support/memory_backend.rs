//! One node's front end over a map, on a port of its own, for tests of the protocol.
//!
//! A key that begins with `late:<millis>:` belongs to "another node": its command runs, and its
//! reply comes, only after so many milliseconds; large ones travel beside the others and take ten
//! times as long. After a command on the key `stop` the node finds that it stood still.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chickadee::clock::{SharedClock, SystemClock};
use chickadee::command::scan::{Scan, keys_reply};
use chickadee::command::{EntryView, Kept, Keyspace, KeyspaceCommand, Runs, execute, glob, parse};
use chickadee::config::{ClientConfig, MemoryPolicy};
use chickadee::limits::LANE_PAYLOAD_MAX;
use chickadee::metrics::Metrics;
use chickadee::net::Net;
use chickadee::resp::{Encoder, Proto};
use chickadee::rng::Randomness;
use chickadee::server::{
    Admission, Backend, CommandCall, DatabaseFacts, Entrance, Passwords, Port, Server, ServerFacts,
    SlotRange, Started, Topology, TopologyNode, Users,
};
use chickadee::tasks::TaskGroup;
use chickadee::types::{ByteSize, Db, Instant, MemberState, NodeId, NodeName, Slot, WallMillis};

/// Values and when they expire, by database and key.
type Entries = BTreeMap<(Db, Vec<u8>), (Vec<u8>, Option<WallMillis>)>;

/// Every key of a node.
#[derive(Clone)]
pub(crate) struct Memory {
    clock: SharedClock,
    max_value_size: usize,
    entries: Arc<Mutex<Entries>>,
    topology: Arc<Topology>,
    stops: Arc<AtomicU64>,
}

/// One database of a node.
struct Database<'a> {
    db: Db,
    now: WallMillis,
    max_value_size: usize,
    entries: &'a mut Entries,
}

impl Keyspace for Database<'_> {
    fn now(&self) -> WallMillis {
        self.now
    }

    fn max_value_size(&self) -> usize {
        self.max_value_size
    }

    fn get(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        self.peek(name)
    }

    fn peek(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        let (value, expires_at) = self.entries.get(&(self.db, name.to_vec()))?;
        let live = expires_at.is_none_or(|at| at > self.now);
        live.then_some(EntryView { value, expires_at: *expires_at })
    }

    fn kept(&mut self, name: &[u8]) -> Option<Kept> {
        self.peek(name).map(|entry| Kept { uses: 0, bytes: name.len() + entry.value.len() })
    }

    fn set(&mut self, name: &[u8], value: &[u8], expires_at: Option<WallMillis>) {
        self.entries.insert((self.db, name.to_vec()), (value.to_vec(), expires_at));
    }

    fn expire(&mut self, name: &[u8], expires_at: Option<WallMillis>) -> bool {
        let live = self.peek(name).is_some();
        if let Some(entry) = self.entries.get_mut(&(self.db, name.to_vec())).filter(|_| live) {
            entry.1 = expires_at;
        }
        live
    }

    fn has_room_to_expire(&mut self, _: &[u8]) -> bool {
        true
    }

    fn has_room_to_remove(&self, _: &[u8]) -> bool {
        true
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let live = self.peek(name).is_some();
        self.entries.remove(&(self.db, name.to_vec()));
        live
    }
}

impl Memory {
    fn run(
        &self,
        row: &chickadee::command::Row,
        args: &[&[u8]],
        db: Db,
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut database = Database {
            db,
            now: self.clock.wall(),
            max_value_size: self.max_value_size,
            entries: &mut entries,
        };
        execute(row, args, &mut database, &mut Encoder::new(out, proto));
    }

    /// The live keys of a database.
    fn keys(&self, db: Db) -> Vec<Vec<u8>> {
        let now = self.clock.wall();
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let live = entries.iter().filter(|(_, entry)| entry.1.is_none_or(|at| at > now));
        live.filter(|((of, _), _)| *of == db).map(|((_, name), _)| name.clone()).collect()
    }

    fn run_over_keyspace(&self, call: &CommandCall<'_>, reply: &mut Encoder<'_>) {
        let keys = self.keys(call.db);
        match KeyspaceCommand::parse(call.row, call.args) {
            Err(error) => error.encode(reply),
            Ok(KeyspaceCommand::Scan(scan)) => {
                let from = usize::try_from(scan.cursor).unwrap();
                let to = from.saturating_add(usize::try_from(scan.count).unwrap());
                let page = keys.get(from..to.min(keys.len())).unwrap_or_default();
                let found: Vec<&Vec<u8>> = page.iter().filter(|key| scan.takes(key)).collect();
                Scan::reply(if to < keys.len() { to as u64 } else { 0 }, &found, reply);
            }
            Ok(KeyspaceCommand::Keys(pattern)) => {
                let found: Vec<&Vec<u8>> =
                    keys.iter().filter(|key| glob::matches(pattern, key)).collect();
                keys_reply(&found, reply);
            }
            Ok(KeyspaceCommand::DbSize) => reply.count(keys.len()),
            Ok(KeyspaceCommand::RandomKey) => {
                reply.optional(keys.first().map(Vec::as_slice));
            }
            Ok(KeyspaceCommand::Flush { all }) => {
                let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
                entries.retain(|(db, _), _| !all && *db != call.db);
                reply.ok();
            }
        }
    }
}

/// How late the reply of a key's command is.
fn lateness(key: &[u8]) -> Option<Duration> {
    let rest = str::from_utf8(key.strip_prefix(b"late:")?).ok()?;
    rest.split(':').next()?.parse().ok().map(Duration::from_millis)
}

impl Backend for Memory {
    fn start(&self, call: &CommandCall<'_>, out: &mut Vec<u8>) -> Started {
        if call.row.runs == Runs::Keyspace {
            self.run_over_keyspace(call, &mut Encoder::new(out, call.proto));
            return Started::Done;
        }
        let size: usize = call.args.iter().map(|arg| arg.len()).sum();
        let times = if size > LANE_PAYLOAD_MAX { 10 } else { 1 };
        let key = parse::first_key(call.row, call.args);
        if key == Some(b"stop") {
            self.stops.fetch_add(1, Ordering::Relaxed);
        }
        let late = key.and_then(lateness);
        let Some(late) = late else {
            self.run(call.row, call.args, call.db, call.proto, out);
            return Started::Done;
        };
        let (memory, row, db, proto) = (self.clone(), call.row, call.db, call.proto);
        let args: Vec<Vec<u8>> = call.args.iter().map(|arg| arg.to_vec()).collect();
        Started::Waiting(Box::pin(async move {
            tokio::time::sleep(late * times).await;
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let mut out = Vec::new();
            memory.run(row, &args, db, proto, &mut out);
            Bytes::from(out)
        }))
    }

    fn wake(&self, _now: Instant) -> u64 {
        self.stops.load(Ordering::Relaxed)
    }

    fn warm(&self, _db: Db, _keys: &mut dyn Iterator<Item = &[u8]>) {}

    fn slot_of(&self, key: &[u8]) -> Slot {
        let hash = |sum: u32, byte: &u8| (sum * 31 + u32::from(*byte)) % 16_384;
        Slot::from_hash(u16::try_from(key.iter().fold(0, hash)).unwrap())
    }

    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology)
    }

    fn facts(&self) -> ServerFacts {
        let count = |db: Db| DatabaseFacts { db, keys: self.keys(db).len() as u64, expires: 0 };
        ServerFacts {
            node: NodeId(1),
            name: node_name("one"),
            run_id: "0".repeat(40),
            uptime: Duration::from_secs(1),
            client: address(1),
            cluster: address(2),
            ready: true,
            memory_used: ByteSize(0),
            memory_entries: ByteSize(0),
            memory_resident: None,
            memory_limit: ByteSize(1 << 30),
            memory_policy: MemoryPolicy::Evict,
            databases: Db::all().map(count).filter(|facts| facts.keys > 0).collect(),
            hits: 0,
            misses: 0,
            expired: 0,
            evicted: 0,
        }
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn node_name(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// Three nodes, of which the last is dead; the first half of the slots belongs to the first.
fn topology() -> Topology {
    let node = |id: u16, name, state| TopologyNode {
        id: NodeId(u128::from(id)),
        name: node_name(name),
        cluster: address(7000 + id),
        cluster_tls: None,
        gossip: address(8000 + id),
        state,
    };
    let range = |first, last, nodes: &[usize]| SlotRange {
        first: Slot::new(first).unwrap(),
        last: Slot::new(last).unwrap(),
        nodes: nodes.to_vec(),
    };
    Topology {
        me: NodeId(1),
        nodes: vec![
            node(1, "one", MemberState::Alive),
            node(2, "two", MemberState::Alive),
            node(3, "three", MemberState::Dead),
        ],
        ranges: vec![
            range(0, 99, &[0, 1]),
            range(100, 8191, &[0, 2]),
            range(8192, 16_383, &[2, 1]),
        ],
        ready: true,
        placement_id: 0xabcd,
    }
}

/// The settings of a test's node: small bounds that a test can reach.
pub(crate) fn settings() -> ClientConfig {
    ClientConfig {
        listen: Vec::new(),
        cluster_listen: Vec::new(),
        advertise: None,
        cluster_advertise: None,
        tls_listen: Vec::new(),
        cluster_tls_listen: Vec::new(),
        tls_cert_file: None,
        tls_key_file: None,
        tls_client_ca_file: None,
        op_timeout: Duration::from_secs(2),
        password_file: None,
        acl_file: None,
        max_clients: 100,
        idle_timeout: Duration::ZERO,
        output_buffer_limit: ByteSize(64 << 20),
        max_value_size: ByteSize(512 << 20),
        danger_allow_anonymous: false,
    }
}

/// A front end that runs on the current runtime.
pub(crate) struct FrontEnd {
    server: Arc<Server>,
    client: SocketAddr,
    cluster: SocketAddr,
    tasks: TaskGroup,
}

impl FrontEnd {
    /// Listens on two free ports.
    pub(crate) fn start(settings: ClientConfig, password: Option<&str>) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let memory = Arc::new(Memory {
            clock: Arc::clone(&clock),
            max_value_size: usize::try_from(settings.max_value_size.0).unwrap(),
            entries: Arc::default(),
            topology: Arc::new(topology()),
            stops: Arc::default(),
        });
        let passwords = password.map(|text| Passwords::from_lines(text).unwrap());
        let rng = Randomness::from_system();
        let users = match &settings.acl_file {
            Some(_) => Users::read(&settings).unwrap(),
            None => Users::with_passwords(passwords),
        };
        let admission = Admission { users, tls: None };
        let server = Server::new(settings, admission, (clock, rng), Metrics::unregistered().server);
        let tasks = TaskGroup::new();
        let listen = |port| {
            let listener = Net::Os.bind_tcp(address(0)).unwrap();
            let bound = listener.local_addr().unwrap();
            let (serving, memory, group) =
                (Arc::clone(&server), Arc::clone(&memory), tasks.clone());
            let stops = Arc::clone(&memory.stops);
            let wake = move |_| stops.load(Ordering::Relaxed);
            let give = move |accepted| {
                let serve = Arc::clone(&serving).serve(Arc::clone(&memory), accepted);
                group.spawn("connection", serve);
            };
            let (entrance, stop) = (Entrance::plain(port), tasks.stop_signal());
            let accept = Arc::clone(&server).listen(listener, entrance, stop, (wake, give));
            tasks.spawn("listener", accept);
            bound
        };
        let (client, cluster) = (listen(Port::Client), listen(Port::Cluster));
        Self { server, client, cluster, tasks }
    }

    /// Where clients of a kind connect.
    pub(crate) fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Client => self.client,
            Port::Cluster => self.cluster,
        }
    }

    /// Ends all connections and waits for them.
    pub(crate) async fn stop(self) {
        self.tasks.stop();
        self.server.clients().close_all();
        self.tasks.stop_and_join(Duration::from_secs(5)).await;
    }
}
