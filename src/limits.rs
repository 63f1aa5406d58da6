//! Every bound, with its reason and its relatives.
//!
//! A bound that an operator may want to move is a setting; what stands here is what keeps the
//! process within its means whatever its settings say.

use std::time::Duration;

// --- peers and lanes ----------------------------------------------------------------------------

/// The largest payload that travels in a lane; above it a call has its own stream. The crossover
/// was measured between 16 and 64 KiB.
pub const LANE_PAYLOAD_MAX: usize = 32 * 1024;

/// Calls of one lane that may wait for their answer; above it a call is answered *busy*.
pub const LANE_IN_FLIGHT_MAX: usize = 4096;

/// Bytes that one lane may hold before they are written; above it a call is answered *busy*.
pub const LANE_QUEUED_MAX: usize = 1024 * 1024;

/// The largest payload of a call, on a stream of its own: a value, its key, and some frame.
pub const CALL_PAYLOAD_MAX: usize = 520 * 1024 * 1024;

/// The largest message of a bulk stream: one batch of records, or one record with a large value.
pub const BULK_MESSAGE_MAX: usize = CALL_PAYLOAD_MAX;

/// The age at which a request is stale: its caller has long given it up.
pub const REQUEST_STALE: Duration = Duration::from_secs(10);

/// The age, since it was read, at which a message of a bulk stream is stale. Where the receiver is
/// slow several wait, each for its turn.
pub const BULK_STALE: Duration = Duration::from_secs(30);

/// Messages that wait in each direction of a bulk stream.
pub const BULK_QUEUE_MAX: usize = 8;

const _: () = assert!(LANE_PAYLOAD_MAX < LANE_QUEUED_MAX);

// --- replication, fills and repair --------------------------------------------------------------

/// Bytes of a replication batch at which it is closed; one larger item travels alone.
pub const REPLICATION_BATCH_MAX: usize = 30 * 1024;

/// Bytes that wait in one replication queue; above it the queue is dropped and its slots become
/// dirty. There is one queue for each store shard and peer.
pub const REPLICATION_QUEUE_MAX: usize = 4 * 1024 * 1024;

/// How long a batch is repeated to a peer that is not gone before it is given up: longer than a
/// lost packet or a reconnect, shorter than a client waits.
pub const REPLICATION_PATIENCE: Duration = Duration::from_millis(1_500);

/// Bytes of a message of a fill at which it is closed.
pub const FILL_MESSAGE_BYTES: usize = 64 * 1024;

/// Entries that a fill or compare reads under one hold of a shard lock.
pub const WALK_STEP: usize = 256;

/// Entries that one `List` answer holds.
pub const LIST_MAX: usize = 2048;

/// How long nodes wait for each other's word on what they hold.
pub const HOLDINGS_TIMEOUT: Duration = Duration::from_millis(300);

/// A node whose own last tick is older than this may have been stood in for: it was stopped, or its
/// machine was.
pub const TICK_LATE: Duration = Duration::from_secs(1);

/// How long a member has to answer a ping before it is taken for silent, with the way through
/// another member.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// How long it has to answer the ping of a witness, whose answer must be back in time.
pub const PING_TIMEOUT: Duration = Duration::from_millis(150);

/// Members through which a silent one is pinged.
pub const PING_WITNESSES: usize = 3;

/// How long a write waits at a deputy: for a round under way, the pings, and a round.
pub const DEPUTY_PATIENCE: Duration = Duration::from_secs(1);

const _: () = assert!(PING_TIMEOUT.as_millis() < PROBE_TIMEOUT.as_millis());

/// How often a node looks whether something must move, when nothing tells it to.
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(REPLICATION_BATCH_MAX < LANE_PAYLOAD_MAX);

// --- commands over many slots -------------------------------------------------------------------

/// Parts of one fan-out that are under way at a time.
pub const FAN_OUT_MAX: usize = 512;

/// Slots that one `SCAN` call visits at most before it answers with what it has.
pub const SCAN_SLOTS_MAX: u16 = 4096;

/// Keys that one `SCAN` call looks at, whatever its `COUNT` says.
pub const SCAN_COUNT_MAX: usize = 65_536;

// --- ring ---------------------------------------------------------------------------------------

/// Points on the ring at most, over all members and weights: 16 MiB of tokens. Where weights and
/// `virtual_nodes` ask for more, every member gets fewer points per unit of weight.
pub const RING_TOKENS_MAX: u32 = 1 << 20;

// --- clients' requests and replies --------------------------------------------------------------

/// The longest inline request, and the longest line that announces a length; as in Redis.
pub const REQUEST_LINE_MAX: usize = 64 * 1024;

/// Arguments of one request. Redis takes two thousand millions; a cache has no use for more than
/// a million, and each costs 8 bytes before its command is known.
pub const REQUEST_ARGS_MAX: usize = 1024 * 1024;

/// Bytes of one request, all its arguments together; as in Redis (`client-query-buffer-limit`).
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Arguments of a request before a client has authenticated; as in Redis.
pub const REQUEST_ARGS_MAX_BEFORE_AUTH: usize = 10;

/// The longest argument before a client has authenticated; as in Redis.
pub const REQUEST_BULK_MAX_BEFORE_AUTH: usize = 16 * 1024;

/// How deep a decoded reply may be nested: CLUSTER SHARDS needs four.
pub const REPLY_DEPTH_MAX: usize = 32;

const _: () = assert!(REQUEST_BYTES_MAX < u32::MAX as usize);

// --- gossip and membership ----------------------------------------------------------------------

/// The largest gossip datagram, envelope included: it fits an Ethernet frame with room for a
/// tunnel's headers, so it is never fragmented.
pub const GOSSIP_DATAGRAM_MAX: usize = 1400;

/// Keys in the gossip key ring: rotation needs two, and a third while two rotations overlap.
pub const GOSSIP_KEYS_MAX: usize = 8;

/// Processes whose packet counters are remembered against replay, about 300 bytes each. Above it
/// the one silent for longest is forgotten.
pub const GOSSIP_SENDERS_MAX: usize = 4096;

/// Nodes whose removal from the ring is remembered.
pub const REMOVED_NOTICES_MAX: usize = 4096;

/// Members that a node alone announces itself to in one round.
pub const ANNOUNCE_FANOUT: usize = 8;

/// Members that a node keeps records and metadata of; above it new ones are not taken in.
pub const MEMBERS_MAX: usize = 10_000;

/// Starters that a node which looks for a cluster remembers.
pub const STARTERS_MAX: usize = 1024;

/// Addresses of one seed's name that are asked.
pub const SEED_ADDRESSES_MAX: usize = 16;

/// Commands and peers' requests that wait for the membership task.
pub const MEMBER_COMMANDS_MAX: usize = 1024;

/// Calls of the membership task that may be under way; above it new ones are left to the next
/// round.
pub const MEMBER_CALLS_MAX: usize = 64;

/// Datagrams that the membership task takes in before it looks at anything else.
pub const DATAGRAM_BATCH: usize = 256;

/// Members that a node exchanges its state with at once after it joined or changed cluster facts.
pub const PUSH_PULL_FANOUT: usize = 8;

const _: () = assert!(GOSSIP_SENDERS_MAX >= 2 * 1000, "a restart of all members must fit");

// --- admin HTTP ---------------------------------------------------------------------------------

/// Connections of one admin listener; further ones wait in the system's backlog. Scrapers and a
/// few open status pages need a dozen.
pub const ADMIN_CONNECTIONS_MAX: usize = 128;

/// How long a client of admin HTTP may take for the head of a request; an idle connection ends
/// then too, so that a few silent ones cannot keep the others out.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest body of an action, in bytes.
pub const ADMIN_BODY_MAX: usize = 64 * 1024;

/// The longest path of a unix socket: 108 bytes with the closing zero on Linux.
pub const UNIX_PATH_MAX: usize = 107;

// --- store --------------------------------------------------------------------------------------

/// Shards of a store: 64 locks are enough that threads seldom meet, and more of them cost memory.
pub const STORE_SHARDS_MAX: usize = 64;

/// Entries of one part of a slot: what a hash table of 1,024 buckets holds. The longest stretch
/// that a sweep, a page of a scan or a split works on under one lock.
pub const STORE_PART_MAX: usize = 896;

/// Bytes of the allocations that pages are cut from. From 32 MiB on glibc maps every allocation by itself, whatever
/// was freed before; musl does from far less.
pub const STORE_SLAB: usize = 33 * 1024 * 1024;

/// Bytes of the budget for each shard at least: [`STORE_SHARD_PAGES`] of 8 KiB.
pub const STORE_SHARD_MIN: u64 = 1024 * 1024;

/// Pages of a shard at least, where its share of the budget allows them: with fewer the order of the
/// eviction suffers.
pub const STORE_SHARD_PAGES: u64 = 128;

/// The smallest and the largest page, in bytes.
pub const STORE_PAGE_MIN: usize = 2 * 1024;
/// See [`STORE_PAGE_MIN`]; an entry's place in its page has 16 bits.
pub const STORE_PAGE_MAX: usize = 64 * 1024;

/// Slots that differ which one round of the reconciler takes in from each holder before it takes them over.
pub const PULLS_AT_ONCE: usize = 256;

/// Tombstones older than a minute that wait for absent holders take one part in this many of the budget
/// at most.
pub const TOMBSTONES_PART: u64 = 8;

/// Deletes of keys that are not there are refused while all tombstones take more than one part in this many
/// of the budget.
pub const TOMBSTONES_MAX_PART: u64 = 4;

/// Entries of a page that one step of the eviction goes over.
pub const STORE_EVICT_STEP: usize = 8;

/// Steps at one write towards the soft limit; the limit itself is always kept.
pub const STORE_EVICT_STEPS: usize = 16;

// --- transport ----------------------------------------------------------------------------------

/// Large calls that one lane may have under way: each holds its whole payload. Below the number of
/// streams that a peer accepts (`TRANSPORT_STREAMS`).
pub const LARGE_CALLS_MAX: usize = 32;

/// How long a payload that travels on a stream of its own may stand still. Its whole time has no
/// bound: 512 MiB take seconds on a fast network and minutes on a slow one.
pub const TRANSFER_STALL: Duration = Duration::from_secs(2);

/// The slowest that a large value travels, in bytes per second: whoever waits for its copies waits
/// as much longer.
pub const TRANSFER_RATE_MIN: u64 = 4 * 1024 * 1024;

/// Requests of one lane that may be answered later at a time; above it the lane is not read.
pub const SERVED_LATER_MAX: usize = 4096;

/// Streams that a peer may have open on one connection, in each direction.
pub const TRANSPORT_STREAMS: u32 = 64;

/// Bytes that a lane writes at a time; more waits for the next round.
pub const LANE_FLUSH_MAX: usize = 256 * 1024;

/// Bytes for which a lane makes room before it reads.
pub const LANE_READ_BUFFER: usize = 64 * 1024;

/// Handshakes under way; above it a dialler is not answered and tries again.
pub const HANDSHAKES_MAX: usize = 256;

/// Handshakes under way above which a dialler must first prove its address.
pub const HANDSHAKES_BEFORE_RETRY: usize = 32;

/// Connections that peers may have open to this node: 1,000 members with four lanes each, and
/// bulk; measured, each costs 38 KiB.
pub const PEER_CONNECTIONS_MAX: usize = 8192;

/// Bytes that diallers may send before their handshake is taken up, all together.
pub const INCOMING_BUFFER_TOTAL: u64 = 8 * 1024 * 1024;

/// Connections that wait for a thread to take them.
pub const ACCEPT_QUEUE_MAX: usize = 64;

/// The buffers that UDP sockets of the transport ask for. With the default of 208 KiB, QUIC loses
/// packets even on loopback.
pub const UDP_BUFFER: usize = 4 * 1024 * 1024;

/// Bytes of one stream that may be on the way; also what a slow reader may make the sender hold.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes of one connection that may be on the way, in each direction. Not above `UDP_BUFFER`.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

const _: () = assert!(LARGE_CALLS_MAX < TRANSPORT_STREAMS as usize);
const _: () = assert!(CONNECTION_WINDOW as usize <= UDP_BUFFER);
const _: () = assert!(CONNECTION_WINDOW as u64 / TRANSFER_RATE_MIN < TRANSFER_STALL.as_secs());
const _: () = assert!(HANDSHAKES_BEFORE_RETRY < HANDSHAKES_MAX);

// --- connections of clients ---------------------------------------------------------------------

/// Requests that a connection runs before it writes their replies.
pub const BATCH_REQUESTS_MAX: usize = 1024;

/// Requests that are read ahead of the one that runs. Measured: 16 are enough for the processor to
/// fetch memory for all at once; more gain nothing.
pub const READ_AHEAD_MAX: usize = 16;

/// Bytes of replies at which a connection stops starting requests and writes.
pub const BATCH_REPLY_BYTES: usize = 256 * 1024;

/// Room for one read of a connection that is idle, and of one that fills its room every time.
pub const READ_ROOM: (usize, usize) = (1024, 64 * 1024);

/// Buffers of a connection that have grown beyond this are given back after use.
pub const BUFFER_KEPT_MAX: usize = 64 * 1024;

/// How long a refused connection may take to be told why.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the TLS handshake of a client may take.
pub const CLIENT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS handshakes of clients under way at once: each costs about a millisecond of a shard thread and
/// some 20 KiB until it ends.
pub const CLIENT_HANDSHAKES_MAX: usize = 256;

/// The longest file of certificates that is read, and how many certificates one may hold.
pub const CERTIFICATE_FILE_MAX: usize = 1024 * 1024;

/// Certificates in one file.
pub const CERTIFICATES_MAX: usize = 256;

/// How long before the end of a certificate the log begins to warn of it, and how often it does.
pub const CERTIFICATE_WARNING: (Duration, Duration) =
    (Duration::from_hours(7 * 24), Duration::from_hours(24));

/// Passwords of one user, or lines of the password file: one in use, one to come, and some spare.
pub const PASSWORDS_MAX: usize = 8;

/// The longest file of users or passwords.
pub const ACL_FILE_MAX: u64 = 1024 * 1024;

/// Users in one file.
pub const USERS_MAX: usize = 1024;

/// The longest name or library name that a connection may give itself.
pub const CLIENT_NAME_MAX: usize = 1024;

const _: () = assert!(READ_ROOM.1 <= BUFFER_KEPT_MAX);
const _: () = assert!(BATCH_REQUESTS_MAX.is_multiple_of(READ_AHEAD_MAX));
