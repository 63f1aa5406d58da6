//! Commands against a slot in memory, with a clock that the test sets.

use std::collections::BTreeMap;

use super::*;
use crate::resp::Proto;
use crate::types::WallMillis;

/// A slot of one database in a map.
#[derive(Default)]
struct Memory {
    now: WallMillis,
    entries: BTreeMap<Vec<u8>, (Vec<u8>, Option<WallMillis>)>,
    full_of_tombstones: bool,
    full_of_entries: bool,
}

impl Keyspace for Memory {
    fn now(&self) -> WallMillis {
        self.now
    }

    fn max_value_size(&self) -> usize {
        1024
    }

    fn get(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        self.peek(name)
    }

    fn peek(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        let (value, expires_at) = self.entries.get(name)?;
        let live = expires_at.is_none_or(|at| at > self.now);
        live.then_some(EntryView { value, expires_at: *expires_at })
    }

    fn kept(&mut self, name: &[u8]) -> Option<Kept> {
        self.peek(name).map(|entry| Kept { uses: 2, bytes: name.len() + entry.value.len() })
    }

    fn set(&mut self, name: &[u8], value: &[u8], expires_at: Option<WallMillis>) {
        assert!(expires_at.is_none_or(|at| at > self.now), "stored after its expiry");
        self.entries.insert(name.to_vec(), (value.to_vec(), expires_at));
    }

    fn has_room_to_expire(&mut self, name: &[u8]) -> bool {
        !self.full_of_entries || self.peek(name).is_none_or(|entry| entry.expires_at.is_some())
    }

    fn expire(&mut self, name: &[u8], expires_at: Option<WallMillis>) -> bool {
        let live = self.peek(name).is_some();
        if let Some(entry) = self.entries.get_mut(name).filter(|_| live) {
            entry.1 = expires_at;
        }
        live
    }

    fn has_room_to_remove(&self, name: &[u8]) -> bool {
        !self.full_of_tombstones || self.entries.contains_key(name)
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let live = self.peek(name).is_some();
        self.entries.remove(name);
        live
    }
}

impl Memory {
    fn at(millis: u64) -> Self {
        Self { now: WallMillis(millis), ..Self::default() }
    }

    /// Runs a request of words and gives the reply as one line, `~` for a line break.
    fn run(&mut self, text: &str) -> String {
        let args: Vec<&[u8]> =
            text.split(' ').map(|word| if word == "''" { b"" } else { word.as_bytes() }).collect();
        let mut out = Vec::new();
        let mut reply = Encoder::new(&mut out, Proto::Resp2);
        match parse::resolve(&args) {
            Ok(row) => execute(row, &args, self, &mut reply),
            Err(error) => error.encode(&mut reply),
        }
        String::from_utf8(out).unwrap().replace("\r\n", "~").trim_end_matches('~').to_owned()
    }

    /// Runs lines of `request => reply`.
    fn script(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (request, expected) = line.split_once(" => ").unwrap();
            assert_eq!(self.run(request), expected, "{request}");
        }
    }
}

#[test]
fn set_takes_its_options_in_any_consistent_set() {
    Memory::at(1_000_000).script(
        "set k v => +OK
         set k w nx => $-1
         set k w nx get => $1~v
         set n w get nx => $-1
         get n => $1~w
         set k w xx get => $1~v
         set absent w xx => $-1
         set k v ex 10 => +OK
         set k w keepttl => +OK
         ttl k => :10
         set k v => +OK
         ttl k => :-1
         set k v px 1500 ex 1 => -ERR syntax error
         set k v ex 5 ex 20 => +OK
         ttl k => :20
         set k v exat 1 => +OK
         exists k => :0
         set k v pxat 1002500 => +OK
         pttl k => :2500
         set k v nx xx => -ERR syntax error
         set k v ex => -ERR syntax error
         set k v keepttl ex 1 => -ERR syntax error
         set k v persist => -ERR syntax error
         set k v ex 0 => -ERR invalid expire time in 'set' command
         set k v px -1 => -ERR invalid expire time in 'set' command
         set k v ex 9223372036854775807 => -ERR invalid expire time in 'set' command
         set k v ex x => -ERR value is not an integer or out of range
         setex k 0 v => -ERR invalid expire time in 'setex' command
         psetex k 100 v => +OK
         pttl k => :100
         setnx k w => :0
         setnx m w => :1
         getset k w => $1~v
         pttl k => :-1",
    );
}

#[test]
fn getex_and_getdel_change_what_they_answer() {
    Memory::at(1_000_000).script(
        "set k v => +OK
         getex k ex 10 => $1~v
         ttl k => :10
         getex k => $1~v
         ttl k => :10
         getex k persist => $1~v
         ttl k => :-1
         getex k ex 1 persist => -ERR syntax error
         getex k keepttl => -ERR syntax error
         getex k ex 0 => -ERR invalid expire time in 'getex' command
         getex none ex 0 => $-1
         getex k exat 1 => $1~v
         exists k => :0
         set k v => +OK
         getdel k => $1~v
         getdel k => $-1",
    );
}

#[test]
fn a_delete_that_cannot_be_remembered_is_refused_and_changes_nothing() {
    let full_of_tombstones = true;
    let mut memory = Memory { full_of_tombstones, ..Memory::at(1_000_000) };
    let refusal = CommandError::TooManyTombstones;
    for request in ["DEL b", "UNLINK a b", "GETDEL b", "SET b 1 PXAT 999", "SET b 1 GET PXAT 999"] {
        memory.script("SET a 1 => +OK");
        assert_eq!(memory.run(request), format!("-{refusal}"), "{request}");
        assert_eq!(memory.run("GET a"), "$1~1", "{request}");
    }
    // What is there leaves its place to its tombstone.
    memory.script(
        "DEL a => :1
         SET a 1 => +OK
         GETDEL a => $1~1
         SET a 1 => +OK
         SET a 2 PXAT 999 => +OK
         GET a => $-1
         SET b 1 NX PX 1 => +OK",
    );
}

#[test]
fn an_expiry_that_has_no_room_is_refused_and_changes_nothing() {
    let mut memory = Memory { full_of_entries: true, ..Memory::at(1_000_000) };
    memory.script(
        "SET a 1 => +OK
         SET b 1 EX 5 => +OK",
    );
    let refusal = CommandError::OutOfMemory;
    for request in ["EXPIRE a 10", "PEXPIREAT a 2000000", "GETEX a EX 5"] {
        assert_eq!(memory.run(request), format!("-{refusal}"), "{request}");
    }
    memory.script(
        "TTL a => :-1
         EXPIRE b 10 => :1
         TTL b => :10
         EXPIRE none 10 => :0
         GETEX none EX 5 => $-1
         GETEX a => $1~1
         GETEX b EX 20 => $1~1
         EXPIRE a -1 => :1
         PERSIST b => :1",
    );
}

#[test]
fn expiry_takes_conditions_and_deletes_what_is_past() {
    Memory::at(1_000_000).script(
        "expire k 10 => :0
         set k v => +OK
         expire k 10 xx => :0
         expire k 10 gt => :0
         expire k 10 nx => :1
         expire k 20 nx => :0
         expire k 5 gt => :0
         expire k 20 gt => :1
         expire k 30 lt => :0
         expire k 5 lt => :1
         expire k 5 xx lt => :0
         ttl k => :5
         pexpireat k 1009499 => :1
         ttl k => :9
         pttl k => :9499
         expiretime k => :1009
         pexpiretime k => :1009499
         expire k 10 nx gt => -ERR NX and XX, GT or LT options at the same time are not compatible
         expire k 10 gt lt => -ERR GT and LT options at the same time are not compatible
         expire k 10 foo => -ERR Unsupported option foo
         expire k x => -ERR value is not an integer or out of range
         expire k 9223372036854775807 => -ERR invalid expire time in 'expire' command
         pexpire k 9223372036854775807 => -ERR invalid expire time in 'pexpire' command
         persist k => :1
         persist k => :0
         expire k 0 => :1
         ttl k => :-2
         set k v => +OK
         expireat k -5 => :1
         exists k => :0",
    );
}

#[test]
fn parts_of_strings_are_read_and_written_within_the_bound() {
    Memory::at(1).script(
        "append k abc => :3
         append k def => :6
         strlen k => :6
         getrange k 0 -1 => $6~abcdef
         getrange k -3 -2 => $2~de
         getrange k -1 -3 => $0
         getrange k 4 2 => $0
         getrange k -100 1 => $2~ab
         getrange k 2 100 => $4~cdef
         getrange k 6 10 => $0
         substr k 1 1 => $1~b
         getrange none 0 -1 => $0
         getrange k a 1 => -ERR value is not an integer or out of range
         setrange k 1 XY => :6
         get k => $6~aXYdef
         setrange k 8 z => :9
         strlen k => :9
         setrange k -1 z => -ERR offset is out of range
         setrange k 1024 z => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
         setrange k 9223372036854775807 z => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
         setrange none 5 '' => :0
         exists none => :0",
    );
}

#[test]
fn numbers_are_counted_as_in_redis() {
    Memory::at(1).script(
        "incr n => :1
         incrby n 41 => :42
         decrby n 2 => :40
         decr n => :39
         incrby n x => -ERR value is not an integer or out of range
         set n 9223372036854775807 => +OK
         incr n => -ERR increment or decrement would overflow
         decrby n -9223372036854775808 => -ERR decrement would overflow
         set n 01 => +OK
         incr n => -ERR value is not an integer or out of range
         set f 10.50 => +OK
         incrbyfloat f 0.1 => $4~10.6
         incrbyfloat f -5 => $3~5.6
         incrbyfloat f abc => -ERR value is not a valid float
         incrbyfloat f inf => -ERR increment would produce NaN or Infinity
         set f text => +OK
         incrbyfloat f 1 => -ERR value is not a valid float",
    );
}

#[test]
fn several_keys_are_taken_together() {
    Memory::at(1).script(
        "mset a 1 b 2 a 3 => +OK
         mget a b c => *3~$1~3~$1~2~$-1
         msetnx c 1 a 2 => :0
         exists c => :0
         msetnx c 1 d 2 => :1
         exists a a c none => :3
         touch a a => :2
         del a a b => :2
         unlink c none => :1
         type d => +string
         type none => +none",
    );
}

#[test]
fn a_key_that_expired_is_absent_to_every_command() {
    let mut memory = Memory::at(1000);
    memory.script("psetex k 100 v => +OK");
    memory.now = WallMillis(1100);
    memory.script(
        "get k => $-1
         exists k => :0
         ttl k => :-2
         setnx k w => :1
         ttl k => :-1",
    );
}

#[test]
fn what_an_entry_takes_and_how_often_it_is_used_is_told() {
    let mut memory = Memory::at(0);
    memory.script(
        "set key value => +OK
         object freq key => :2
         memory usage key => :8
         memory usage key samples 0 => :8",
    );
}

#[test]
fn a_row_that_does_not_run_at_a_slot_is_refused() {
    let mut out = Vec::new();
    let row = table::lookup(b"ping").unwrap();
    execute(row, &[b"ping"], &mut Memory::at(1), &mut Encoder::new(&mut out, Proto::Resp2));
    assert!(out.starts_with(b"-ERR "));
}
