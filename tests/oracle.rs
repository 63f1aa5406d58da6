//! Asks Chickadee and Debian's `redis-server` the same and compares the replies byte for byte.
//!
//! Both sides are addresses. Without `redis-server` in the path the tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is amiss"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chickadee::clock::{Clock, SystemClock};
use chickadee::command::{EntryView, Keyspace, execute, parse};
use chickadee::resp::{Encoder, Parsed, Proto, Reply, RequestLimits, RequestParser};
use chickadee::types::WallMillis;

/// Redis's own bound on values, so that both sides refuse the same.
const MAX_VALUE: usize = 512 * 1024 * 1024;

/// A slot in a map.
struct Memory {
    clock: SystemClock,
    entries: BTreeMap<Vec<u8>, (Vec<u8>, Option<WallMillis>)>,
}

impl Keyspace for Memory {
    fn now(&self) -> WallMillis {
        self.clock.wall()
    }

    fn max_value_size(&self) -> usize {
        MAX_VALUE
    }

    fn get(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        self.peek(name)
    }

    fn peek(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        let now = self.now();
        let (value, expires_at) = self.entries.get(name)?;
        let live = expires_at.is_none_or(|at| at > now);
        live.then_some(EntryView { value, expires_at: *expires_at })
    }

    fn set(&mut self, name: &[u8], value: &[u8], expires_at: Option<WallMillis>) {
        self.entries.insert(name.to_vec(), (value.to_vec(), expires_at));
    }

    fn expire(&mut self, name: &[u8], expires_at: Option<WallMillis>) -> bool {
        let live = self.peek(name).is_some();
        if let Some(entry) = self.entries.get_mut(name).filter(|_| live) {
            entry.1 = expires_at;
        }
        live
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let live = self.peek(name).is_some();
        self.entries.remove(name);
        live
    }
}

/// Serves one connection from a map; ends with the connection.
fn serve_chickadee() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut memory = Memory { clock: clock(), entries: BTreeMap::new() };
        let mut parser = RequestParser::new(RequestLimits::trusted(MAX_VALUE));
        let (mut buf, mut piece) = (Vec::new(), vec![0; 65536]);
        loop {
            let read = stream.read(&mut piece).unwrap_or(0);
            if read == 0 {
                return;
            }
            buf.extend_from_slice(&piece[..read]);
            let mut out = Vec::new();
            loop {
                match parser.next(&buf).unwrap() {
                    Parsed::Request(request) => {
                        let args = request.args(&buf);
                        let mut reply = Encoder::new(&mut out, Proto::Resp2);
                        match parse::resolve(&args) {
                            Ok(row) => execute(row, &args, &mut memory, &mut reply),
                            Err(error) => error.encode(&mut reply),
                        }
                        drop(args);
                        buf.drain(..request.consumed());
                    }
                    Parsed::Skip(consumed) => drop(buf.drain(..consumed)),
                    Parsed::Incomplete(_) => break,
                }
            }
            stream.write_all(&out).unwrap();
        }
    });
    address
}

fn clock() -> SystemClock {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async { SystemClock::new() })
}

/// A `redis-server` of its own for a test; killed with it.
struct Oracle {
    process: Child,
    address: SocketAddr,
}

impl Oracle {
    /// `None` if there is no `redis-server`.
    fn start() -> Option<Self> {
        for _attempt in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let process = Command::new("redis-server")
                .args(["--port", &port.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
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
    _oracle: Oracle,
}

impl Pair {
    fn start() -> Option<Self> {
        let oracle = Oracle::start()?;
        let redis = Side::connect(oracle.address);
        Some(Self { chickadee: Side::connect(serve_chickadee()), redis, _oracle: oracle })
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
