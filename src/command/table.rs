//! The table of commands: the only place that names one.
//!
//! Names, arities, flags and key positions are those of Redis 7.0 (checked against it side by
//! side), so that client libraries which ask `COMMAND` route as they do there. The number of a row
//! travels between nodes: it never changes, and a new command takes a new one.

use crate::command::row::{Flags, Group, Keys, Merge, Row, Runs};

const RO: &[&str] = &["RO"];
const RO_ACCESS: &[&str] = &["RO", "access"];
const OW_UPDATE: &[&str] = &["OW", "update"];
const OW_INSERT: &[&str] = &["OW", "insert"];
const RW_UPDATE: &[&str] = &["RW", "update"];
const RW_INSERT: &[&str] = &["RW", "insert"];
const RW_ACCESS_UPDATE: &[&str] = &["RW", "access", "update"];
const RW_ACCESS_DELETE: &[&str] = &["RW", "access", "delete"];
const RM_DELETE: &[&str] = &["RM", "delete"];

/// Flags that stand together in many rows.
impl Flags {
    const ANYTIME: Self = Self::NOSCRIPT.with(Self::LOADING).with(Self::STALE);
    const BEFORE_AUTH: Self = Self::ANYTIME.with(Self::NO_AUTH).with(Self::ALLOW_BUSY);
}

macro_rules! runs {
    (Connection) => {
        Runs::Connection
    };
    (Node) => {
        Runs::Node
    };
    (Slot) => {
        Runs::Slot
    };
    (Keyspace) => {
        Runs::Keyspace
    };
    (Sum) => {
        Runs::FanOut(Merge::Sum)
    };
    (Array) => {
        Runs::FanOut(Merge::Array)
    };
    (Ok) => {
        Runs::FanOut(Merge::Ok)
    };
}

macro_rules! keys {
    () => {
        Keys::NONE
    };
    (none) => {
        Keys::NONE
    };
    ($shape:ident $access:ident) => {
        Keys::$shape($access)
    };
}

macro_rules! commands {
    ($(
        $wire:literal $id:ident $name:literal $arity:literal, $runs:ident,
        $keys:ident $($access:ident)?, $($flag:ident)|+,
        $group:ident $since:literal $summary:literal $([$($tip:literal),+])?
        $({$(
            $sub_wire:literal $sub_id:ident $sub_name:literal $sub_arity:literal,
            $sub_runs:ident $($sub_keys:ident $sub_access:ident)?,
            $($sub_flag:ident)|+, $sub_since:literal $sub_summary:literal
            $([$($sub_tip:literal),+])?;
        )+})?;
    )+) => {
        /// Every command and subcommand. The numbers are part of the protocol between nodes.
        #[expect(missing_docs, reason = "each row of the table has its summary")]
        #[expect(clippy::enum_variant_names, reason = "variants are named like the commands")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Id {
            $($id = $wire, $($($sub_id = $sub_wire,)+)?)+
        }

        const TABLE: &[Row] = &[$(
            Row {
                id: Id::$id,
                name: $name,
                arity: $arity,
                flags: Flags::NONE$(.with(Flags::$flag))+,
                keys: keys!($keys $($access)?),
                runs: runs!($runs),
                since: $since,
                group: Group::$group,
                summary: $summary,
                tips: &[$($($tip),+)?],
                subcommands: &[$($(
                    Row {
                        id: Id::$sub_id,
                        name: $sub_name,
                        arity: $sub_arity,
                        flags: Flags::NONE$(.with(Flags::$sub_flag))+,
                        keys: keys!($($sub_keys $sub_access)?),
                        runs: runs!($sub_runs),
                        since: $sub_since,
                        group: Group::$group,
                        summary: $sub_summary,
                        tips: &[$($($sub_tip),+)?],
                        subcommands: &[],
                    },
                )+)?],
            },
        )+];
    };
}

commands! {
    1 Get "get" 2, Slot, one RO_ACCESS, READONLY | FAST | STRING,
        String "1.0.0" "Get the value of a key";
    2 Set "set" -3, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | STRING | REPEATABLE,
        String "1.0.0" "Set the string value of a key";
    3 SetEx "setex" 4, Slot, one OW_UPDATE, WRITE | DENYOOM | STRING | REPEATABLE,
        String "2.0.0" "Set the value and expiration of a key";
    4 PSetEx "psetex" 4, Slot, one OW_UPDATE, WRITE | DENYOOM | STRING | REPEATABLE,
        String "2.6.0" "Set the value and expiration in milliseconds of a key";
    5 SetNx "setnx" 3, Slot, one OW_INSERT, WRITE | DENYOOM | FAST | STRING,
        String "1.0.0" "Set the value of a key, only if the key does not exist";
    6 GetSet "getset" 3, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | FAST | STRING,
        String "1.0.0" "Set the string value of a key and return its old value";
    7 GetDel "getdel" 2, Slot, one RW_ACCESS_DELETE, WRITE | FAST | STRING,
        String "6.2.0" "Get the value of a key and delete the key";
    8 GetEx "getex" -2, Slot, one RW_ACCESS_UPDATE, WRITE | FAST | STRING,
        String "6.2.0" "Get the value of a key and optionally set its expiration";
    9 Append "append" 3, Slot, one RW_INSERT, WRITE | DENYOOM | FAST | STRING,
        String "2.0.0" "Append a value to a key";
    10 StrLen "strlen" 2, Slot, one RO, READONLY | FAST | STRING,
        String "2.2.0" "Get the length of the value stored in a key";
    11 GetRange "getrange" 4, Slot, one RO_ACCESS, READONLY | STRING,
        String "2.4.0" "Get a substring of the string stored at a key";
    12 Substr "substr" 4, Slot, one RO_ACCESS, READONLY | STRING,
        String "1.0.0" "Get a substring of the string stored at a key";
    13 SetRange "setrange" 4, Slot, one RW_UPDATE, WRITE | DENYOOM | STRING | REPEATABLE,
        String "2.2.0" "Overwrite part of a string at key starting at the specified offset";
    14 Incr "incr" 2, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | FAST | STRING,
        String "1.0.0" "Increment the integer value of a key by one";
    15 Decr "decr" 2, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | FAST | STRING,
        String "1.0.0" "Decrement the integer value of a key by one";
    16 IncrBy "incrby" 3, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | FAST | STRING,
        String "1.0.0" "Increment the integer value of a key by the given amount";
    17 DecrBy "decrby" 3, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | FAST | STRING,
        String "1.0.0" "Decrement the integer value of a key by the given number";
    18 IncrByFloat "incrbyfloat" 3, Slot, one RW_ACCESS_UPDATE, WRITE | DENYOOM | FAST | STRING,
        String "2.6.0" "Increment the float value of a key by the given amount";
    19 MGet "mget" -2, Array, all RO_ACCESS, READONLY | FAST | STRING,
        String "1.0.0" "Get the values of all the given keys"
        ["request_policy:multi_shard"];
    20 MSet "mset" -3, Ok, pairs OW_UPDATE, WRITE | DENYOOM | STRING | REPEATABLE,
        String "1.0.1" "Set multiple keys to multiple values"
        ["request_policy:multi_shard", "response_policy:all_succeeded"];
    21 MSetNx "msetnx" -3, Slot, pairs OW_INSERT, WRITE | DENYOOM | STRING,
        String "1.0.1" "Set multiple keys to multiple values, only if none of the keys exist"
        ["request_policy:multi_shard", "response_policy:agg_min"];
    22 Del "del" -2, Sum, all RM_DELETE, WRITE | KEYSPACE,
        Generic "1.0.0" "Delete a key"
        ["request_policy:multi_shard", "response_policy:agg_sum"];
    23 Unlink "unlink" -2, Sum, all RM_DELETE, WRITE | FAST | KEYSPACE,
        Generic "4.0.0" "Delete a key; memory is given back later"
        ["request_policy:multi_shard", "response_policy:agg_sum"];
    24 Exists "exists" -2, Sum, all RO, READONLY | FAST | KEYSPACE,
        Generic "1.0.0" "Determine if a key exists"
        ["request_policy:multi_shard", "response_policy:agg_sum"];
    25 Touch "touch" -2, Sum, all RO, READONLY | FAST | KEYSPACE,
        Generic "3.2.1" "Count a use of keys and return how many exist"
        ["request_policy:multi_shard", "response_policy:agg_sum"];
    26 Type "type" 2, Slot, one RO, READONLY | FAST | KEYSPACE,
        Generic "1.0.0" "Determine the type stored at key";
    27 Ttl "ttl" 2, Slot, one RO_ACCESS, READONLY | FAST | KEYSPACE,
        Generic "1.0.0" "Get the time to live for a key in seconds"
        ["nondeterministic_output"];
    28 PTtl "pttl" 2, Slot, one RO_ACCESS, READONLY | FAST | KEYSPACE,
        Generic "2.6.0" "Get the time to live for a key in milliseconds"
        ["nondeterministic_output"];
    29 ExpireTime "expiretime" 2, Slot, one RO_ACCESS, READONLY | FAST | KEYSPACE,
        Generic "7.0.0" "Get the expiration Unix timestamp for a key";
    30 PExpireTime "pexpiretime" 2, Slot, one RO_ACCESS, READONLY | FAST | KEYSPACE,
        Generic "7.0.0" "Get the expiration Unix timestamp for a key in milliseconds";
    31 Expire "expire" -3, Slot, one RW_UPDATE, WRITE | FAST | KEYSPACE,
        Generic "1.0.0" "Set a key's time to live in seconds";
    32 PExpire "pexpire" -3, Slot, one RW_UPDATE, WRITE | FAST | KEYSPACE,
        Generic "2.6.0" "Set a key's time to live in milliseconds";
    33 ExpireAt "expireat" -3, Slot, one RW_UPDATE, WRITE | FAST | KEYSPACE,
        Generic "1.2.0" "Set the expiration for a key as a UNIX timestamp";
    34 PExpireAt "pexpireat" -3, Slot, one RW_UPDATE, WRITE | FAST | KEYSPACE,
        Generic "2.6.0" "Set the expiration for a key as a UNIX timestamp in milliseconds";
    35 Persist "persist" 2, Slot, one RW_UPDATE, WRITE | FAST | KEYSPACE,
        Generic "2.2.0" "Remove the expiration from a key";
    42 Object "object" -2, Node, none, NONE,
        Generic "2.2.3" "A container for object introspection commands" {
        281 ObjectEncoding "object|encoding" 3, Slot second RO, READONLY | KEYSPACE,
            "2.2.3" "Inspect the internal encoding of a Redis object"
            ["nondeterministic_output"];
        282 ObjectFreq "object|freq" 3, Slot second RO, READONLY | KEYSPACE,
            "4.0.0" "Get the logarithmic access frequency counter of a Redis object"
            ["nondeterministic_output"];
        283 ObjectIdleTime "object|idletime" 3, Slot second RO, READONLY | KEYSPACE,
            "2.2.3" "Get the time since a Redis object was last accessed"
            ["nondeterministic_output"];
        284 ObjectRefCount "object|refcount" 3, Slot second RO, READONLY | KEYSPACE,
            "2.2.3" "Get the number of references to the value of the key"
            ["nondeterministic_output"];
        285 ObjectHelp "object|help" 2, Node, LOADING | STALE | KEYSPACE,
            "6.2.0" "Show helpful text about the different subcommands";
    };
    43 Memory "memory" -2, Node, none, NONE,
        Server "4.0.0" "A container for memory diagnostics commands" {
        291 MemoryUsage "memory|usage" -3, Slot second RO, READONLY,
            "4.0.0" "Estimate the memory usage of a key";
        292 MemoryHelp "memory|help" 2, Node, LOADING | STALE,
            "4.0.0" "Show helpful text about the different subcommands";
    };
    36 Scan "scan" -2, Keyspace, none, READONLY | KEYSPACE,
        Generic "2.8.0" "Incrementally iterate the keys space"
        ["nondeterministic_output", "request_policy:special"];
    37 Keys "keys" 2, Keyspace, none, READONLY | KEYSPACE | DANGEROUS,
        Generic "1.0.0" "Find all keys matching the given pattern"
        ["request_policy:all_shards", "nondeterministic_output_order"];
    38 DbSize "dbsize" 1, Keyspace, none, READONLY | FAST | KEYSPACE,
        Server "1.0.0" "Return the number of keys in the selected database"
        ["request_policy:all_shards", "response_policy:agg_sum"];
    39 RandomKey "randomkey" 1, Keyspace, none, READONLY | KEYSPACE,
        Generic "1.0.0" "Return a random key from the keyspace"
        ["request_policy:all_shards", "nondeterministic_output"];
    40 FlushDb "flushdb" -1, Keyspace, none, WRITE | KEYSPACE | DANGEROUS,
        Server "1.0.0" "Remove all keys from the current database"
        ["request_policy:all_shards", "response_policy:all_succeeded"];
    41 FlushAll "flushall" -1, Keyspace, none, WRITE | KEYSPACE | DANGEROUS,
        Server "1.0.0" "Remove all keys from all databases"
        ["request_policy:all_shards", "response_policy:all_succeeded"];
    101 Hello "hello" -1, Connection, none, BEFORE_AUTH | FAST | CONNECTION,
        Connection "6.0.0" "Handshake with Redis";
    102 Auth "auth" -2, Connection, none, BEFORE_AUTH | FAST | CONNECTION,
        Connection "1.0.0" "Authenticate to the server";
    103 Ping "ping" -1, Connection, none, FAST | CONNECTION,
        Connection "1.0.0" "Ping the server"
        ["request_policy:all_shards", "response_policy:all_succeeded"];
    104 Echo "echo" 2, Connection, none, LOADING | STALE | FAST | CONNECTION,
        Connection "1.0.0" "Echo the given string";
    105 Select "select" 2, Connection, none, LOADING | STALE | FAST | CONNECTION,
        Connection "1.0.0" "Change the selected database for the current connection";
    106 Quit "quit" -1, Connection, none, BEFORE_AUTH | FAST | CONNECTION,
        Connection "1.0.0" "Close the connection";
    107 Reset "reset" 1, Connection, none, BEFORE_AUTH | FAST | CONNECTION,
        Connection "6.2.0" "Reset the connection";
    108 Client "client" -2, Connection, none, NONE,
        Connection "2.4.0" "A container for client connection commands" {
        201 ClientId "client|id" 2, Connection, ANYTIME | CONNECTION,
            "5.0.0" "Returns the client ID for the current connection";
        202 ClientSetName "client|setname" 3, Connection, ANYTIME | CONNECTION,
            "2.6.9" "Set the current connection name";
        203 ClientGetName "client|getname" 2, Connection, ANYTIME | CONNECTION,
            "2.6.9" "Get the current connection name";
        204 ClientInfo "client|info" 2, Connection, ANYTIME | CONNECTION,
            "6.2.0" "Returns information about the current client connection"
            ["nondeterministic_output"];
        205 ClientList "client|list" -2, Connection, ADMIN | ANYTIME | CONNECTION,
            "2.4.0" "Get the list of client connections"
            ["nondeterministic_output"];
        206 ClientKill "client|kill" -3, Connection, ADMIN | ANYTIME | CONNECTION,
            "2.4.0" "Kill the connection of a client";
        207 ClientReply "client|reply" 3, Connection, ANYTIME | CONNECTION,
            "3.2.0" "Instruct the server whether to reply to commands";
        208 ClientTracking "client|tracking" -3, Connection, ANYTIME | CONNECTION,
            "6.0.0" "Enable or disable server assisted client side caching support";
        209 ClientNoEvict "client|no-evict" 3, Connection, ADMIN | ANYTIME | CONNECTION,
            "7.0.0" "Set client eviction mode for the current connection";
        210 ClientNoTouch "client|no-touch" 3, Connection, ANYTIME | CONNECTION,
            "7.2.0" "Control whether commands sent by the client count as uses of keys";
        211 ClientSetInfo "client|setinfo" 4, Connection, ANYTIME | CONNECTION,
            "7.2.0" "Set client or connection specific info";
        212 ClientHelp "client|help" 2, Connection, LOADING | STALE | CONNECTION,
            "5.0.0" "Show helpful text about the different subcommands";
    };
    109 ReadOnly "readonly" 1, Connection, none, LOADING | STALE | FAST | CONNECTION,
        Cluster "3.0.0" "Enables read queries for a connection to a cluster replica node";
    110 ReadWrite "readwrite" 1, Connection, none, LOADING | STALE | FAST | CONNECTION,
        Cluster "3.0.0" "Disables read queries for a connection to a cluster replica node";
    111 Asking "asking" 1, Connection, none, FAST | CONNECTION,
        Cluster "3.0.0" "Sent by cluster clients after an -ASK redirect";
    121 Command "command" -1, Node, none, LOADING | STALE | CONNECTION,
        Server "2.8.13" "Get array of Redis command details"
        ["nondeterministic_output_order"] {
        231 CommandCount "command|count" 2, Node, LOADING | STALE | CONNECTION,
            "2.8.13" "Get total number of Redis commands";
        232 CommandInfo "command|info" -2, Node, LOADING | STALE | CONNECTION,
            "2.8.13" "Get array of specific command details, or all"
            ["nondeterministic_output_order"];
        233 CommandDocs "command|docs" -2, Node, LOADING | STALE | CONNECTION,
            "7.0.0" "Get array of specific Redis command documentation"
            ["nondeterministic_output_order"];
        234 CommandList "command|list" -2, Node, LOADING | STALE | CONNECTION,
            "7.0.0" "Get an array of Redis command names"
            ["nondeterministic_output_order"];
        235 CommandGetKeys "command|getkeys" -4, Node, LOADING | STALE | CONNECTION,
            "2.8.13" "Extract keys given a full Redis command";
        236 CommandGetKeysAndFlags "command|getkeysandflags" -4, Node, LOADING | STALE | CONNECTION,
            "7.0.0" "Extract keys and access flags given a full Redis command";
        237 CommandHelp "command|help" 2, Node, LOADING | STALE | CONNECTION,
            "5.0.0" "Show helpful text about the different subcommands";
    };
    122 Info "info" -1, Node, none, LOADING | STALE | DANGEROUS,
        Server "1.0.0" "Get information and statistics about the server"
        ["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
    123 Config "config" -2, Node, none, NONE,
        Server "2.0.0" "A container for server configuration commands" {
        251 ConfigGet "config|get" -3, Node, ADMIN | NOSCRIPT | LOADING | STALE,
            "2.0.0" "Get the values of configuration parameters";
        252 ConfigHelp "config|help" 2, Node, LOADING | STALE,
            "5.0.0" "Show helpful text about the different subcommands";
    };
    124 Cluster "cluster" -2, Node, none, NONE,
        Cluster "3.0.0" "A container for cluster commands" {
        261 ClusterSlots "cluster|slots" 2, Node, STALE,
            "3.0.0" "Get array of Cluster slot to node mappings"
            ["nondeterministic_output"];
        262 ClusterShards "cluster|shards" 2, Node, STALE,
            "7.0.0" "Get array of cluster slots to node mappings"
            ["nondeterministic_output"];
        263 ClusterNodes "cluster|nodes" 2, Node, STALE,
            "3.0.0" "Get Cluster config for the node"
            ["nondeterministic_output"];
        264 ClusterInfo "cluster|info" 2, Node, STALE,
            "3.0.0" "Provides info about Redis Cluster node state"
            ["nondeterministic_output"];
        265 ClusterMyId "cluster|myid" 2, Node, STALE,
            "3.0.0" "Return the node id";
        266 ClusterKeySlot "cluster|keyslot" 3, Node, STALE,
            "3.0.0" "Returns the hash slot of the specified key";
        267 ClusterHelp "cluster|help" 2, Node, LOADING | STALE,
            "5.0.0" "Show helpful text about the different subcommands";
        268 ClusterAddSlots "cluster|addslots" -3, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        269 ClusterAddSlotsRange "cluster|addslotsrange" -4, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "7.0.0" "Refused: slots are placed automatically";
        270 ClusterDelSlots "cluster|delslots" -3, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        271 ClusterDelSlotsRange "cluster|delslotsrange" -4, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "7.0.0" "Refused: slots are placed automatically";
        272 ClusterSetSlot "cluster|setslot" -4, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        273 ClusterFlushSlots "cluster|flushslots" 2, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        274 ClusterMeet "cluster|meet" -4, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        275 ClusterForget "cluster|forget" 3, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        276 ClusterFailover "cluster|failover" -2, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        277 ClusterReplicate "cluster|replicate" 3, Node, ADMIN | STALE | NO_ASYNC_LOADING,
            "3.0.0" "Refused: slots are placed automatically";
        278 ClusterReset "cluster|reset" -2, Node, ADMIN | NOSCRIPT | STALE,
            "3.0.0" "Refused: slots are placed automatically";
    };
    127 Acl "acl" -2, Node, none, NONE,
        Server "6.0.0" "A container for Access List Control commands" {
        301 AclWhoAmI "acl|whoami" 2, Node, ANYTIME,
            "6.0.0" "Return the name of the user associated to the current connection";
        302 AclUsers "acl|users" 2, Node, ADMIN | ANYTIME,
            "6.0.0" "List the names of all users";
        303 AclList "acl|list" 2, Node, ADMIN | ANYTIME,
            "6.0.0" "List the users in the format of their file";
        304 AclGetUser "acl|getuser" 3, Node, ADMIN | ANYTIME,
            "6.0.0" "Get the rules of a user";
        305 AclCat "acl|cat" -2, Node, ANYTIME,
            "6.0.0" "List the categories, or the commands of one";
        306 AclGenPass "acl|genpass" -2, Node, ANYTIME,
            "6.0.0" "Generate a password";
        307 AclLoad "acl|load" 2, Node, ADMIN | ANYTIME,
            "6.0.0" "Read the file of users again";
        308 AclSetUser "acl|setuser" -3, Node, ADMIN | ANYTIME,
            "6.0.0" "Refused: users are defined in their file";
        309 AclDelUser "acl|deluser" -3, Node, ADMIN | ANYTIME,
            "6.0.0" "Refused: users are defined in their file";
        310 AclSave "acl|save" 2, Node, ADMIN | ANYTIME,
            "6.0.0" "Refused: users are defined in their file";
        311 AclHelp "acl|help" 2, Node, LOADING | STALE,
            "6.0.0" "Show helpful text about the different subcommands";
    };
    125 Time "time" 1, Node, none, LOADING | STALE | FAST,
        Server "2.6.0" "Return the current server time"
        ["nondeterministic_output"];
    126 Role "role" 1, Node, none, NOSCRIPT | LOADING | STALE | FAST | ADMIN_CATEGORY,
        Server "2.8.12" "Return the role of the instance in the context of replication";
}

/// Every row of a command, in the order of the reference; subcommands stand in their container.
pub static ROWS: &[Row] = TABLE;

impl Id {
    /// The number that travels between nodes.
    pub const fn wire(self) -> u16 {
        self as u16
    }
}

/// Where a name's place in [`INDEX`] begins; 4 times as many places as rows keep runs short.
const PLACES: usize = 256;

const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ (name[at] | 0x20) as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 15)) as usize % PLACES
}

/// Row number + 1 by hash of the name, with the next place taken on a collision; 0 is empty.
static INDEX: [u8; PLACES] = {
    let mut index = [0; PLACES];
    let mut row = 0;
    while row < TABLE.len() {
        let mut place = hash(TABLE[row].name.as_bytes());
        while index[place] != 0 {
            place = (place + 1) % PLACES;
        }
        #[expect(clippy::cast_possible_truncation, reason = "asserted below: fewer than 256 rows")]
        let number = row as u8 + 1;
        index[place] = number;
        row += 1;
    }
    index
};

const _: () = assert!(TABLE.len() < PLACES / 2);

/// The longest name; a longer one needs no look.
const NAME_MAX: usize = 16;

/// The row of the command of this name, in any case of letters.
pub fn lookup(name: &[u8]) -> Option<&'static Row> {
    if name.len() > NAME_MAX {
        return None;
    }
    let mut place = hash(name);
    loop {
        let row = usize::from(*INDEX.get(place)?).checked_sub(1).and_then(|row| ROWS.get(row))?;
        if row.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(row);
        }
        place = (place + 1) % PLACES;
    }
}

/// How many commands there are; subcommands are not counted apart.
pub const COUNT: usize = TABLE.len();

/// Above every number of a row.
pub const NUMBERS: usize = 320;

/// Row number + 1 by wire number; a subcommand's is its container's, 0 is none.
static PLACE: [u8; NUMBERS] = {
    let mut places = [0; NUMBERS];
    let mut row = 0;
    while row < TABLE.len() {
        #[expect(clippy::cast_possible_truncation, reason = "asserted above: fewer than 256 rows")]
        let place = row as u8 + 1;
        places[TABLE[row].id as usize] = place;
        let mut sub = 0;
        while sub < TABLE[row].subcommands.len() {
            places[TABLE[row].subcommands[sub].id as usize] = place;
            sub += 1;
        }
        row += 1;
    }
    places
};

/// The position of a row in [`ROWS`]; a subcommand's is its container's.
pub fn place(row: &Row) -> Option<usize> {
    usize::from(*PLACE.get(usize::from(row.id.wire()))?).checked_sub(1)
}

/// The row of the command with this number; subcommands that never travel have none.
pub fn by_wire(wire: u16) -> Option<&'static Row> {
    by_number(wire).filter(|row| !row.name.contains('|') || row.runs == Runs::Slot)
}

/// The row of the command or subcommand with this number.
pub fn by_number(number: u16) -> Option<&'static Row> {
    let place = usize::from(*PLACE.get(usize::from(number))?).checked_sub(1)?;
    let row = ROWS.get(place)?;
    std::iter::once(row).chain(row.subcommands).find(|row| row.id.wire() == number)
}

/// The row of a subcommand by the name that a client sends, in any case of letters.
pub fn lookup_subcommand(container: &'static Row, name: &[u8]) -> Option<&'static Row> {
    container.subcommands.iter().find(|row| row.last_name().as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_is_found_in_any_case_of_letters() {
        for row in ROWS {
            assert!(row.name.len() <= NAME_MAX);
            assert_eq!(lookup(row.name.as_bytes()), Some(row));
            assert_eq!(lookup(row.name.to_uppercase().as_bytes()), Some(row));
            assert_eq!(by_wire(row.id.wire()), Some(row));
            for sub in row.subcommands {
                assert_eq!(sub.name.split_once('|').map(|(name, _)| name), Some(row.name));
                assert_eq!(lookup_subcommand(row, sub.last_name().as_bytes()), Some(sub));
                assert_eq!(by_number(sub.id.wire()), Some(sub));
                assert_eq!(by_wire(sub.id.wire()), (sub.runs == Runs::Slot).then_some(sub));
                assert_eq!(place(sub), place(row));
            }
        }
        for name in [&b""[..], b"gets", b"nope", b"a name that is far too long to be one"] {
            assert_eq!(lookup(name), None);
        }
        assert_eq!(by_wire(0), None);
        assert_eq!(by_wire(999), None);
    }

    #[test]
    fn numbers_are_given_once() {
        let rows = || ROWS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        let numbers: BTreeSet<u16> = rows().map(|row| row.id.wire()).collect();
        assert_eq!(numbers.len(), rows().count());
    }

    /// The numbers travel between nodes of different versions: a line here may be added, never
    /// changed.
    #[test]
    fn the_numbers_of_commands_that_travel_stay() {
        let travels = |row: &&Row| !matches!(row.runs, Runs::Connection | Runs::Node);
        let numbers: Vec<String> = ROWS
            .iter()
            .flat_map(|row| std::iter::once(row).chain(row.subcommands))
            .filter(travels)
            .map(|row| format!("{}={}", row.name, row.id.wire()))
            .collect();
        assert_eq!(
            numbers.join(" "),
            "get=1 set=2 setex=3 psetex=4 setnx=5 getset=6 getdel=7 getex=8 append=9 strlen=10 \
             getrange=11 substr=12 setrange=13 incr=14 decr=15 incrby=16 decrby=17 incrbyfloat=18 \
             mget=19 mset=20 msetnx=21 del=22 unlink=23 exists=24 touch=25 type=26 ttl=27 pttl=28 \
             expiretime=29 pexpiretime=30 expire=31 pexpire=32 expireat=33 pexpireat=34 persist=35 \
             object|encoding=281 object|freq=282 object|idletime=283 object|refcount=284 \
             memory|usage=291 scan=36 keys=37 dbsize=38 randomkey=39 flushdb=40 flushall=41"
        );
    }
}
