//! Every bound, with its reason and its relatives.
//!
//! A bound that an operator may want to move is a setting; what stands here is what keeps the
//! process within its means whatever its settings say.

// --- peers and lanes (facts: transport) -----------------------------------------------------

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

/// Messages that wait in each direction of a bulk stream.
pub const BULK_QUEUE_MAX: usize = 8;

const _: () = assert!(LANE_PAYLOAD_MAX < LANE_QUEUED_MAX);

// --- ring -----------------------------------------------------------------------------------

/// Points on the ring at most, over all members and weights: 16 MiB of tokens. Where weights and
/// `virtual_nodes` ask for more, every member gets fewer points per unit of weight.
pub const RING_TOKENS_MAX: u32 = 1 << 20;

// --- store ----------------------------------------------------------------------------------

/// Shards of a store: 64 locks are enough that threads seldom meet, and more of them cost memory.
pub const STORE_SHARDS_MAX: usize = 64;

/// Entries of one part of a slot: what a hash table of 4,096 buckets holds. The longest stretch
/// that a sweep, a page of a scan or a split works on under one lock.
pub const STORE_PART_MAX: usize = 3584;

/// Entries that the eviction spares in a row before it takes one whatever its uses.
pub const STORE_SPARED_MAX: usize = 64;

/// Evictions at one write towards the soft limit; the limit itself is always kept.
pub const STORE_EVICT_STEP: usize = 16;
// --- clients' requests and replies ----------------------------------------------------------

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
