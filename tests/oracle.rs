//! Asks Chickadee and Debian's `redis-server` the same and compares the replies byte for byte.
//!
//! Both sides are addresses. Without `redis-server` in the path the tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is amiss"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use chickadee::command::table;
use chickadee::config::ClientConfig;
use chickadee::resp::Reply;
use chickadee::server::Port;
use memory_backend::{FrontEnd, settings};

#[path = "support/memory_backend.rs"]
mod memory_backend;

/// A front end on a thread of its own; ends with this.
struct Chickadee {
    address: SocketAddr,
    _alive: mpsc::Sender<()>,
}

impl Chickadee {
    fn start(users: Option<&Path>) -> Self {
        let users = users.map(Path::to_owned);
        let (give, take) = mpsc::channel();
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let node = FrontEnd::start(ClientConfig { acl_file: users, ..settings() }, None);
                give.send(node.address(Port::Client)).unwrap();
                while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                node.stop().await;
            });
        });
        Self { address: take.recv().unwrap(), _alive: alive }
    }
}

/// A `redis-server` of its own for a test; killed with it.
struct Oracle {
    process: Child,
    address: SocketAddr,
}

impl Oracle {
    /// `None` if there is no `redis-server`.
    fn start(users: Option<&Path>) -> Option<Self> {
        for _attempt in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let process = Command::new("redis-server")
                .args(["--port", &port.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
                .args(["--maxmemory-policy", "allkeys-lfu"])
                .args(
                    users
                        .map(|file| format!("--aclfile {}", file.display()))
                        .iter()
                        .flat_map(|text| text.split(' ')),
                )
                .stdout(Stdio::null())
                .spawn();
            let Ok(process) = process else {
                println!("skipped: no redis-server here");
                return None;
            };
            let mut oracle = Self { process, address: port };
            if oracle.is_up() {
                return Some(oracle);
            }
        }
        panic!("redis-server does not start");
    }

    /// Waits until this very process answers: another test may have been given the same port.
    fn is_up(&mut self) -> bool {
        let process = format!("process_id:{}\r\n", self.process.id());
        for _wait in 0..200 {
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                let (mut piece, mut text) = ([0; 4096], Vec::new());
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let _a_stranger_may_not_read = stream.write_all(b"INFO server\r\nQUIT\r\n");
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    text.extend_from_slice(&piece[..read]);
                }
                return String::from_utf8_lossy(&text).contains(&process);
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _it_may_be_gone = self.process.kill();
        let _it_was_killed = self.process.wait();
    }
}

/// A connection to either side.
struct Side {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Side {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buf: Vec::new() }
    }

    /// Sends bytes and reads so many replies, as they came.
    fn ask(&mut self, bytes: &[u8], replies: usize) -> Vec<u8> {
        self.stream.write_all(bytes).unwrap();
        let (mut taken, mut piece) = (0, vec![0; 65536]);
        for _reply in 0..replies {
            loop {
                if let Some((_, length)) = Reply::decode(&self.buf[taken..]).unwrap() {
                    taken += length;
                    break;
                }
                let read = self.stream.read(&mut piece).unwrap();
                assert!(read > 0, "closed by the other side");
                self.buf.extend_from_slice(&piece[..read]);
            }
        }
        self.buf.drain(..taken).collect()
    }
}

/// Both sides.
struct Pair {
    chickadee: Side,
    redis: Side,
    addresses: [SocketAddr; 2],
    _alive: (Chickadee, Oracle),
}

impl Pair {
    fn start() -> Option<Self> {
        Self::with(None)
    }

    fn with_users(file: &Path) -> Option<Self> {
        Self::with(Some(file))
    }

    fn with(users: Option<&Path>) -> Option<Self> {
        let oracle = Oracle::start(users)?;
        let node = Chickadee::start(users);
        Some(Self {
            chickadee: Side::connect(node.address),
            redis: Side::connect(oracle.address),
            addresses: [node.address, oracle.address],
            _alive: (node, oracle),
        })
    }

    /// The replies of both sides to a request, as trees.
    fn replies(&mut self, args: &[&[u8]]) -> [Reply; 2] {
        let request = request(args);
        [&mut self.chickadee, &mut self.redis].map(|side| {
            let bytes = side.ask(&request, 1);
            Reply::decode(&bytes).unwrap().unwrap().0
        })
    }

    /// Everything that both sides say to some bytes on a connection of their own until they close.
    fn same_stream(&self, bytes: &[u8]) {
        let [chickadee, redis] = self.addresses.map(|address| {
            let mut side = Side::connect(address);
            side.stream.write_all(bytes).unwrap();
            side.stream.shutdown(Shutdown::Write).unwrap();
            let mut said = Vec::new();
            // A side that closes with unread bytes before it resets the connection.
            let _what_was_said_counts = side.stream.read_to_end(&mut said);
            said
        });
        assert!(
            chickadee == redis,
            "{}\nchickadee: {}\n    redis: {}",
            bytes.escape_ascii(),
            chickadee.escape_ascii(),
            redis.escape_ascii()
        );
    }

    fn same(&mut self, args: &[&[u8]], story: &str) {
        let request = request(args);
        let redis = self.redis.ask(&request, 1);
        let chickadee = self.chickadee.ask(&request, 1);
        assert!(
            chickadee == redis || same_time(args[0], &chickadee, &redis),
            "{story}{}\nchickadee: {}\n    redis: {}",
            request.escape_ascii(),
            chickadee.escape_ascii(),
            redis.escape_ascii()
        );
    }

    /// Asks each line; words are separated by a space, `''` is the empty string.
    fn script(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.same(&words(line), "");
        }
    }
}

/// Whether both are the same time, but for the moment that passed between the two.
fn same_time(command: &[u8], a: &[u8], b: &[u8]) -> bool {
    let apart = match command.to_ascii_lowercase().as_slice() {
        b"ttl" | b"expiretime" => 1,
        b"pttl" | b"pexpiretime" => 1000,
        _ => return false,
    };
    match (Reply::decode(a), Reply::decode(b)) {
        (Ok(Some((Reply::Integer(a), _))), Ok(Some((Reply::Integer(b), _)))) => {
            a > 0 && b > 0 && a.abs_diff(b) <= apart
        }
        _ => false,
    }
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(|word| if word == "''" { b"" } else { word.as_bytes() }).collect()
}

fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A small generator of its own, so that a seed repeats a run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) ^ (self.0 >> 17)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[usize::try_from(self.next()).unwrap() % from.len()]
    }
}

#[test]
fn set_and_its_kin() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "set k v
         get k
         set k w NX
         set k w nx get
         set k x xx get
         set a x xx
         set a x xx get
         set a x nx get
         set k v ex 100 keepttl
         set k v EX 100 EX 200
         ttl k
         set k v px 5 ex 5
         set k v exat 9999999999 get
         expiretime k
         set k w keepttl
         expiretime k
         set k w
         ttl k
         set k v pxat 1
         get k
         set k v ex 0
         set k v ex -1
         set k v ex abc
         set k v ex 9223372036854775807
         set k v px 9223372036854775807
         set k v exat 9223372036854775
         set k v ex
         set k v persist
         set k v nx xx
         set k v foo
         set k
         setex k 0 v
         setex k x v
         setex k 10 v
         psetex k 0 v
         psetex k 100000 v
         setnx k v
         setnx k2 v
         getset k w
         ttl k
         getset none v
         getdel none
         getdel none
         getex k
         getex k ex 100
         ttl k
         getex k persist
         ttl k
         getex k ex 0
         getex absent ex 0
         getex k ex 10 persist
         getex k keepttl
         getex k nx
         getex k exat 1
         get k",
    );
}

#[test]
fn parts_of_strings() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "append k abcdef
         append k ''
         strlen k
         strlen none
         getrange k 0 -1
         getrange k -3 -2
         getrange k -1 -3
         getrange k -100 2
         getrange k 3 100
         getrange k 6 6
         getrange k 5 5
         getrange k -9 -8
         getrange k a 0
         getrange k 0 9223372036854775808
         getrange k -9223372036854775808 9223372036854775807
         substr k 1 2
         substr none 1 2
         setrange k 2 XX
         get k
         setrange k 10 Y
         get k
         setrange k -1 Y
         setrange k x Y
         setrange none 0 ''
         exists none
         setrange none 3 abc
         get none
         setrange k 536870912 x
         setrange k 9223372036854775807 x
         setrange absent 536870911 xy
         expire k 100
         append k z
         setrange k 0 z
         ttl k",
    );
}

#[test]
fn numbers() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "incr n
         incrby n 10
         decr n
         decrby n 3
         incrby n -9223372036854775808
         decrby n -9223372036854775808
         incrby n 9223372036854775808
         incrby n 1.5
         incrby n ''
         set n 9223372036854775807
         incr n
         set n -9223372036854775808
         decr n
         decrby n 1
         set n 00
         incr n
         set n 1234567890123456789012345
         incr n
         set n ''
         incr n
         expire n 5 
         set n 5 ex 100
         incr n
         ttl n
         incrbyfloat n 0.1
         ttl n
         incrbyfloat new 1e3
         incrbyfloat new 5.0e3
         incrbyfloat new -200
         incrbyfloat new nan
         incrbyfloat new inf
         incrbyfloat new 0x1p-3
         incrbyfloat new 0x.8
         incrbyfloat new 1e
         incrbyfloat new ''
         incrbyfloat new 1e5000
         incrbyfloat new 1e-5000
         incrbyfloat new +3
         incrbyfloat new 1.
         incrbyfloat new .
         set f 1e4932
         incrbyfloat f 1e4932
         set f 3.0e0
         incrbyfloat f 0
         set f text
         incrbyfloat f 1",
    );
}

#[test]
fn how_keys_are_kept() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "mset int -12 zero 0 padded 012 float 1.5 text abc empty ''
         set just 12345678901234567890123456789012345678901234
         set more 123456789012345678901234567890123456789012345
         object encoding int
         object encoding zero
         object encoding padded
         object encoding float
         object encoding text
         object encoding empty
         object encoding just
         object encoding more
         object encoding none
         object refcount text
         object refcount int
         object refcount none
         object idletime text
         object idletime none
         object freq none
         object
         object text
         object encoding
         object encoding text more
         object nope text
         memory usage none
         memory usage none samples 5
         memory usage none samples 0
         memory usage text samples x
         memory usage text sampling 5
         memory usage text samples
         memory usage
         memory
         memory nope",
    );
}

#[test]
fn keys_and_times() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "mset a 1 b 2 c 3 a 4
         mget a b none c a
         mset a
         mset a 1 b
         msetnx a 1 z 2
         msetnx y 1 z 2 y 3
         get y
         msetnx a
         exists a a b none
         touch a a none
         type a
         type none
         expire a 100
         expire a 50 gt
         expire a 200 gt
         ttl a
         expire a 300 lt
         expire a 20 lt
         ttl a
         expire a 10 nx
         expire b 10 xx
         expire b 10 gt
         expire b 100 lt
         expire b 100 NX XX
         expire b 100 gt lt
         expire b 100 gt nx
         expire b 100 foo
         expire b x
         expire b x foo
         expire b 9223372036854775807
         expire b -9223372036854775808
         pexpire b 9223372036854775807
         pexpire b -9223372036854775808
         get b
         expireat c 9999999999
         expiretime c
         pexpiretime c
         pexpireat c 9999999999499
         expiretime c
         pexpireat c 9999999999500
         expiretime c
         persist c
         persist c
         persist none
         expiretime c
         pexpiretime none
         expireat c -1
         exists c
         ttl none
         pttl none
         pttl a x
         expire none 5 foo
         expire none 5
         del a a none
         unlink z y
         del
         foo bar baz
         get
         client foo",
    );
}

#[test]
fn connections() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "ping
         ping hello
         ping a b
         echo x
         echo
         select 15
         set k v
         select 0
         get k
         select 16
         select -1
         select a
         hello 4
         hello x
         hello 2 foo
         hello 2 auth default
         hello 2 setname
         auth x
         auth default x
         auth nobody x
         auth a b c
         client getname
         client setname me
         client getname
         client setname a\nb
         client setname ''
         client getname
         client no-evict on
         client no-evict foo
         client tracking off
         client tracking foo
         client reply foo
         client kill 1.2.3.4:5
         client kill id 0
         client kill id x
         client kill type foo
         client kill foo bar
         client kill id 1 skipme foo
         client list foo
         client list type foo
         client list id x
         client list type master
         client foo
         client
         client maint_notifications on
         config
         config foo
         command foo
         cluster foo bar
         config get save
         config get nothing
         role
         command getkeys get a
         command getkeys mset a b c d
         command getkeys get
         command getkeys ping
         command getkeys nope
         command getkeysandflags set a b
         command getkeysandflags mget a b
         command list filterby module x
         command list filterby foo x
         command list foo
         command info nope get
         command list filterby pattern cluster|k*
         reset",
    );
}

#[test]
fn resp3() {
    let Some(mut pair) = Pair::start() else { return };
    pair.replies(&words("hello 3"));
    pair.script(
        "get none
         mget a b
         set k v nx
         set k w nx
         set k w get
         incrbyfloat f 1.5
         scan 0 match none*
         config get save
         config get nothing
         client list type master
         command info get exists nope
         command getkeysandflags set a b
         info nothing
         role
         flushall
         randomkey
         reset
         get none",
    );
}

/// Users as Redis 7.0.15 has them; both sides read the same file. One rule for single commands each: Redis
/// writes several in an order that differs from start to start.
const USERS: &str = "user default on nopass ~* &* +@all\n\
    user alice on >secret ~app:* %R~shared:* &chan* +@read +set\n\
    user bob on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b ~* +@all -@dangerous\n\
    user carol off nopass\n\
    user dora on >one >two %W~log:* ~own:* +@all -client +client|id\n";

/// What users are asked and ask, in this order.
const ASKED: &str = "acl whoami
         acl users
         acl list
         acl getuser default
         acl getuser alice
         acl getuser carol
         acl getuser dora
         acl getuser nobody
         acl cat
         acl cat nope
         acl genpass 0
         acl genpass 4097
         acl foo
         acl
         acl getuser
         acl load
         acl whoami
         auth carol x
         auth alice wrong
         auth nobody x
         auth x
         auth alice secret
         acl whoami
         get app:1
         set app:1 x
         set app:1 x get
         get shared:1
         set shared:1 x
         exists shared:1
         exists other
         get other
         mget app:1 other
         append app:1 x
         flushall
         client id
         command count
         object
         object encoding other
         object encoding app:1
         nope
         get
         ping
         hello 2 auth alice nope
         auth dora two
         acl whoami
         client id x
         set log:1 a
         get log:1
         exists log:1
         mset own:1 a log:2 b
         mset own:1 a other b
         del own:1 log:1 log:2
         memory usage other
         memory usage own:1
         auth default anything
         acl whoami
         reset
         client kill user nobody";

#[test]
fn users_and_what_they_may_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    std::fs::write(&file, USERS).unwrap();
    let Some(mut pair) = Pair::with_users(&file) else { return };
    pair.script(ASKED);
    pair.replies(&words("hello 3"));
    pair.script(
        "acl getuser alice
         acl getuser nobody",
    );
    let [chickadee, redis] = pair.replies(&[b"acl", b"genpass", b"5"]).map(|reply| match reply {
        Reply::Bulk(text) => text.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(chickadee, redis);
}

/// Every command that is here is in the categories in which Redis has it.
#[test]
fn categories_hold_the_same_commands() {
    let Some(mut pair) = Pair::start() else { return };
    let names = |reply: &Reply| match reply {
        Reply::Array(names) => names
            .iter()
            .map(|name| format!("{name:?}"))
            .collect::<std::collections::BTreeSet<String>>(),
        other => panic!("{other:?}"),
    };
    let [all, _] = pair.replies(&[b"command", b"list"]);
    let known = names(&all);
    for category in ["string", "keyspace", "read", "write", "connection", "dangerous", "admin"] {
        let [chickadee, redis] = pair.replies(&[b"acl", b"cat", category.as_bytes()]);
        let (ours, theirs) = (names(&chickadee), names(&redis));
        let theirs: Vec<&String> = theirs.iter().filter(|name| known.contains(*name)).collect();
        assert!(theirs.iter().all(|name| ours.contains(*name)), "{category}: {theirs:?} {ours:?}");
        assert!(!theirs.is_empty(), "{category}");
    }
}

#[test]
fn bytes_that_are_hardly_requests() {
    let Some(pair) = Pair::start() else { return };
    for bytes in [
        &b"ping\r\nping\n\r\n\n   \nping\r\n"[..],
        b"*1\r\n$4\r\nping\r\n*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\r\npingxxping\r\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"* 1\r\n",
        b"*1 \r\n",
        b"*\r\n",
        b"*a\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\nXab\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$4x\r\n",
        b"*2\r\n$3\r\nget\r\n$1\r\n",
        b"set a 'b c'\r\nget a\r\n",
        b"set a \"b\\x41\\n\\\"\"\r\nget a\r\n",
        b"set a b\"c d\"\r\nget a\r\n",
        b"set a \"\\xZZ\\q\"\r\nget a\r\n",
        b"set a 'it\\'s'\r\nget a\r\n",
        b"set a \"b\r\n",
        b"set a 'b'c\r\n",
        b"set a \"b\"c\r\n",
        b"ping\r\nset a 'b\r\nping\r\n",
        b"foo \xff\xfe\r\n",
        b"*2\r\n$3\r\nf\0o\r\n$5\r\nb\r\n\0x\r\n",
        b"post / HTTP/1.1\r\nping\r\n",
        b"Host: example\r\nping\r\n",
        b"quit\r\nping\r\n",
    ] {
        pair.same_stream(bytes);
    }
    let long = vec![b'x'; 70_000];
    pair.same_stream(&long);
    pair.same_stream(&[&b"*"[..], &long].concat());
    pair.same_stream(&[&b"*1\r\n$"[..], &long].concat());
    pair.same_stream(&request(&[&long[..200], &long[..100], &long[..100], b"x"]));
    pair.same_stream(&b"ping\r\n".repeat(5000));
}

const PATTERNS: &[&str] = &[
    "*",
    "a*",
    "?",
    "h?llo",
    "h[ae]llo",
    "h[^e]llo",
    "h[a-b]llo",
    "h[b-a]llo",
    "a\\*c",
    "[[]x]",
    "\\[x]",
    "[",
    "[^",
    "[a",
    "[]",
    "[]]",
    "k\\\\1",
    "**",
    "*l*o",
    "a[b",
    "[a-",
    "[^a-z]",
    "\\",
    "*\\",
    "a**c",
    "[\\]]",
    "[\\^]",
    "?*?*?",
];

#[test]
fn the_whole_keyspace() {
    let Some(mut pair) = Pair::start() else { return };
    pair.script(
        "dbsize
         randomkey
         keys *
         scan 0
         scan x
         scan -1x
         scan 18446744073709551616
         scan 0 count 0
         scan 0 count x
         scan 0 match
         scan 0 foo bar
         scan 0 count
         flushall now
         flushall sync async
         flushdb sync
         keys
         keys a b",
    );
    for key in ["a", "b", "abc", "a*c", "[x]", "a-b", "k\\1", "^", "hello", "hallo", "hxllo", "]"] {
        pair.same(&[b"set", key.as_bytes(), b"v"], "");
    }
    let sorted = |reply: &Reply| match reply {
        Reply::Array(keys) => {
            let mut keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            keys.sort();
            keys
        }
        other => vec![format!("{other:?}")],
    };
    for pattern in PATTERNS {
        let [chickadee, redis] = pair.replies(&[b"keys", pattern.as_bytes()]);
        assert_eq!(sorted(&chickadee), sorted(&redis), "keys {pattern}");
        let scan: [&[u8]; 6] = [b"scan", b"0", b"match", pattern.as_bytes(), b"count", b"1000"];
        let [chickadee, redis] = pair.replies(&scan);
        let (Reply::Array(chickadee), Reply::Array(redis)) = (chickadee, redis) else {
            panic!("scan {pattern}")
        };
        assert_eq!(sorted(&chickadee[1]), sorted(&redis[1]), "scan {pattern}");
    }
    pair.script("dbsize\n select 1\n dbsize\n flushdb\n select 0\n dbsize\n flushall\n dbsize");
}

/// Client libraries route by what `COMMAND` says: arities, flags, key positions and categories.
#[test]
fn the_table_says_what_redis_says() {
    let Some(mut pair) = Pair::start() else { return };
    let rows = table::ROWS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    for row in rows {
        let [chickadee, redis] = pair.replies(&[b"command", b"info", row.name.as_bytes()]);
        let (Reply::Array(chickadee), Reply::Array(redis)) = (chickadee, redis) else {
            panic!("{}", row.name)
        };
        match (&chickadee[0], &redis[0]) {
            (_, Reply::Null | Reply::NullArray) => assert_eq!(row.since, "7.2.0", "{}", row.name),
            (Reply::Array(chickadee), Reply::Array(redis)) => {
                assert_eq!(chickadee[..8], redis[..8], "{}", row.name);
                let specs =
                    |parts: &[Reply]| matches!(&parts[8], Reply::Array(specs) if specs.is_empty());
                assert_eq!(specs(chickadee), specs(redis), "{}", row.name);
            }
            _ => panic!("{}", row.name),
        }
    }
}

const KEYS: [&str; 5] = ["a", "b", "c", "{t}1", ""];
const VALUES: [&str; 18] = [
    "",
    "0",
    "1",
    "-1",
    "10",
    "007",
    "text",
    "3.14",
    "1e10",
    "-0",
    "9223372036854775807",
    "0.1",
    "1e-7",
    "123456789.123456789",
    "-9223372036854775808",
    "1e300",
    "9007199254740993",
    " 1",
];
const TIMES: [&str; 8] = ["0", "-5", "100", "1000", "x", "9999999999", "99999999999999", "1"];
const OPTIONS: [&str; 9] = ["nx", "xx", "gt", "lt", "get", "keepttl", "persist", "ex", "foo"];
const COMMANDS: [&str; 35] = [
    "get",
    "set",
    "set",
    "set",
    "setex",
    "psetex",
    "setnx",
    "getset",
    "getdel",
    "getex",
    "append",
    "strlen",
    "getrange",
    "setrange",
    "incr",
    "decr",
    "incrby",
    "decrby",
    "incrbyfloat",
    "incrbyfloat",
    "mget",
    "mset",
    "msetnx",
    "del",
    "unlink",
    "exists",
    "touch",
    "type",
    "ttl",
    "expiretime",
    "pexpiretime",
    "expire",
    "expireat",
    "persist",
    "pttl",
];

/// A command with arguments that often fit it.
fn random_request(random: &mut Seeded) -> Vec<&'static str> {
    let name = random.pick(&COMMANDS);
    let mut args = vec![name, random.pick(&KEYS)];
    match name {
        "set" => {
            args.push(random.pick(&VALUES));
            for _option in 0..random.next() % 3 {
                args.push(random.pick(&OPTIONS));
                if random.next().is_multiple_of(2) {
                    args.extend([random.pick(&["ex", "exat"]), random.pick(&TIMES)]);
                }
            }
        }
        "setex" => args.extend([random.pick(&TIMES), random.pick(&VALUES)]),
        "psetex" => args.extend([random.pick(&["0", "99999999999"]), random.pick(&VALUES)]),
        "getex" if random.next().is_multiple_of(2) => args.push(random.pick(&OPTIONS)),
        "getex" => args.extend([random.pick(&["ex", "exat"]), random.pick(&TIMES)]),
        "getrange" => args.extend([random.pick(&VALUES), random.pick(&VALUES)]),
        "setrange" => args.extend([random.pick(&["0", "3", "-1", "x"]), random.pick(&VALUES)]),
        "expire" | "expireat" => {
            args.push(random.pick(&TIMES));
            for _option in 0..random.next() % 3 {
                args.push(random.pick(&OPTIONS));
            }
        }
        "mset" | "msetnx" => {
            args.extend([random.pick(&VALUES), random.pick(&KEYS), random.pick(&VALUES)]);
        }
        "mget" | "del" | "exists" | "touch" | "unlink" => args.push(random.pick(&KEYS)),
        "append" | "setnx" | "getset" | "incrby" | "decrby" | "incrbyfloat" => {
            args.push(random.pick(&VALUES));
        }
        _ => {}
    }
    args
}

/// Thousands of random commands on few keys; a difference is shown with the seed that repeats it.
#[test]
fn random_commands() {
    let Some(mut pair) = Pair::start() else { return };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_250_801);
    let mut random = Seeded(seed);
    for step in 0..6000 {
        let args = random_request(&mut random);
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        pair.same(&args, &format!("SEED={seed} step {step}: "));
    }
}
