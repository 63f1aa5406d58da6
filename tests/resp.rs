//! Raw bytes in, raw bytes out, against one node's front end on a port of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where something is amiss")]

use std::net::SocketAddr;
use std::time::Duration;

use chickadee::config::ClientConfig;
use chickadee::resp::Reply;
use chickadee::server::Port;
use chickadee::types::ByteSize;
use memory_backend::{FrontEnd, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "support/memory_backend.rs"]
mod memory_backend;

const PATIENCE: Duration = Duration::from_secs(10);

struct Connection {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buf: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next reply; `None` when the other side closes.
    async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some((reply, length)) = Reply::decode(&self.buf).unwrap() {
                self.buf.drain(..length);
                return Some(reply);
            }
            let read = self.stream.read_buf(&mut self.buf);
            match tokio::time::timeout(PATIENCE, read).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends an inline request and gives its reply in short: text as it is, numbers as digits.
    async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await.map_or_else(|| "(closed)".to_owned(), |reply| short(&reply))
    }
}

fn short(reply: &Reply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Simple(bytes) | Reply::Bulk(bytes) | Reply::Verbatim { text: bytes, .. } => {
            text(bytes)
        }
        Reply::Error(bytes) => format!("-{}", text(bytes)),
        Reply::Integer(value) => value.to_string(),
        Reply::Null | Reply::NullArray => "(nil)".to_owned(),
        Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) => {
            format!("[{}]", parts.iter().map(short).collect::<Vec<_>>().join(" "))
        }
        Reply::Map(pairs) => {
            let pair = |(key, value): &(Reply, Reply)| format!("{}={}", short(key), short(value));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        Reply::Double(value) => value.to_string(),
        Reply::Boolean(value) => value.to_string(),
        Reply::BigNumber(digits) => digits.clone(),
    }
}

fn bulk_request(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[tokio::test]
async fn replies_keep_their_order_though_some_come_late() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    client
        .send(
            b"set late:60:a 1\r\nset b 2\r\nset late:5:c 3\r\nget b\r\nget late:60:a\r\nping\r\n\
              dbsize\r\nnope\r\n",
        )
        .await;
    let mut replies = Vec::new();
    for _request in 0..8 {
        replies.push(short(&client.reply().await.unwrap()));
    }
    let unknown = "-ERR unknown command 'nope', with args beginning with: ";
    assert_eq!(replies, ["OK", "OK", "OK", "2", "1", "PONG", "3", unknown]);
    node.stop().await;
}

#[tokio::test]
async fn a_large_write_is_waited_for_by_commands_on_its_slot() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    let large = vec![b'x'; 100_000];
    let mut bytes = bulk_request(&[b"set", b"late:10:k", &large]);
    bytes.extend(bulk_request(&[b"append", b"late:10:k", b"y"]));
    bytes.extend(bulk_request(&[b"strlen", b"late:10:other"]));
    client.send(&bytes).await;
    assert_eq!(client.reply().await, Some(Reply::ok()));
    assert_eq!(client.reply().await, Some(Reply::Integer(100_001)));
    assert_eq!(client.reply().await, Some(Reply::Integer(0)));
    node.stop().await;
}

#[tokio::test]
async fn a_connection_chooses_its_protocol_and_database() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    let hello = client.ask("hello 3 setname me").await;
    assert!(hello.starts_with("{server=redis version=7.2.4 proto=3 id="), "{hello}");
    assert!(hello.contains("mode=standalone role=master modules=[]"), "{hello}");
    assert_eq!(client.ask("client getname").await, "me");
    client.send(b"get none\r\n").await;
    assert_eq!(client.reply().await, Some(Reply::Null));
    assert_eq!(client.buf, b"");
    assert_eq!(client.ask("select 5").await, "OK");
    assert_eq!(client.ask("set k five").await, "OK");
    assert_eq!(client.ask("reset").await, "RESET");
    assert_eq!(client.ask("get k").await, "(nil)");
    assert_eq!(client.ask("select 16").await, "-ERR DB index is out of range");
    assert_eq!(client.ask("hello 4").await, "-NOPROTO unsupported protocol version");
    let mut cluster = Connection::open(node.address(Port::Cluster)).await;
    assert!(cluster.ask("hello").await.contains("mode cluster"));
    assert!(cluster.ask("info server").await.contains("redis_mode:cluster\r\n"));
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_done_before_the_password_is_given() {
    let node = FrontEnd::start(settings(), Some("secret\n"));
    let mut client = Connection::open(node.address(Port::Client)).await;
    let noauth = "-NOAUTH Authentication required.";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(client.ask("get k").await, noauth);
    assert_eq!(client.ask("ping").await, noauth);
    assert!(client.ask("hello 3").await.starts_with("-NOAUTH HELLO must be called"));
    assert_eq!(client.ask("auth guess").await, wrong);
    assert_eq!(client.ask("auth root secret").await, wrong);
    assert_eq!(client.ask("hello 3 auth default guess").await, wrong);
    assert!(client.ask("hello 3 auth default secret").await.starts_with("{server="));
    assert_eq!(client.ask("set k v").await, "OK");
    assert_eq!(client.ask("reset").await, "RESET");
    assert_eq!(client.ask("get k").await, noauth);
    assert_eq!(client.ask("auth secret").await, "OK");
    assert_eq!(client.ask("get k").await, "v");
    let mut greedy = Connection::open(node.address(Port::Client)).await;
    greedy.send(b"*1\r\n$100000\r\n").await;
    let text = b"ERR Protocol error: unauthenticated bulk length".to_vec();
    assert_eq!(greedy.reply().await, Some(Reply::Error(text)));
    assert_eq!(greedy.reply().await, None);
    node.stop().await;
}

/// A connection after the node stood still: the first ones may have waited during the stop.
async fn open_anew(node: &FrontEnd) -> Connection {
    for attempt in 1.. {
        let mut client = Connection::open(node.address(Port::Client)).await;
        if client.ask("ping").await == "PONG" {
            return client;
        }
        assert!(attempt < 10, "no connection is taken any more");
    }
    unreachable!("it is taken, or it fails")
}

/// A node that stood still took a write from its socket that its client had given up long before: it
/// came after another that had been acknowledged elsewhere meanwhile.
#[tokio::test]
async fn what_was_sent_before_the_node_stood_still_is_not_executed() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    assert_eq!(client.ask("set k 1").await, "OK");
    assert_eq!(Connection::open(node.address(Port::Client)).await.ask("get stop").await, "(nil)");
    client.send(b"set k 2\r\nget k\r\ndel k\r\n").await;
    let reply = client.reply().await.as_ref().map(short).unwrap();
    assert!(reply.starts_with("-TRYAGAIN"), "{reply}");
    assert_eq!(client.reply().await, None);
    let mut client = open_anew(&node).await;
    assert_eq!(client.ask("get k").await, "1");
    // The last one waits for those before it, during which the node stands still.
    client.send(b"get late:50:k\r\nget stop\r\nflushall\r\n").await;
    let mut replies = Vec::new();
    while let Some(reply) = client.reply().await {
        replies.push(short(&reply));
    }
    assert!(replies.len() == 3 && replies[2].starts_with("-TRYAGAIN"), "{replies:?}");
    assert_eq!(open_anew(&node).await.ask("get k").await, "1");
    node.stop().await;
}

#[tokio::test]
async fn garbage_is_answered_and_closed_and_others_go_on() {
    let node = FrontEnd::start(settings(), None);
    let mut other = Connection::open(node.address(Port::Client)).await;
    for (garbage, answer) in [
        (&b"*1048577\r\n"[..], "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n$2000000000\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\nGET\r\n", "-ERR Protocol error: expected '$', got 'G'"),
        (b"set \"k\r\n", "-ERR Protocol error: unbalanced quotes in request"),
        (&[b'x'; 16_384].repeat(5), "-ERR Protocol error: too big inline request"),
    ] {
        let mut client = Connection::open(node.address(Port::Client)).await;
        client.send(b"ping\r\n").await;
        client.send(garbage).await;
        assert_eq!(client.reply().await.as_ref().map(short).as_deref(), Some("PONG"));
        assert_eq!(client.reply().await.as_ref().map(short).as_deref(), Some(answer));
        assert_eq!(client.reply().await, None);
        assert_eq!(other.ask("ping").await, "PONG");
    }
    let mut browser = Connection::open(node.address(Port::Client)).await;
    assert_eq!(browser.ask("POST / HTTP/1.1").await, "(closed)");
    let mut half = Connection::open(node.address(Port::Client)).await;
    half.send(b"*2\r\n$3\r\nGET\r\n$1000\r\nabc").await;
    drop(half);
    assert_eq!(other.ask("quit").await, "OK");
    assert_eq!(other.reply().await, None);
    node.stop().await;
}

#[tokio::test]
async fn a_value_that_comes_byte_by_byte_is_one_request() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    client.stream.set_nodelay(true).unwrap();
    for byte in bulk_request(&[b"set", b"k", b"some value"]) {
        client.send(&[byte]).await;
    }
    assert_eq!(client.reply().await, Some(Reply::ok()));
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    client.send(&bulk_request(&[b"set", b"large", &large])).await;
    assert_eq!(client.reply().await, Some(Reply::ok()));
    client.send(b"get large\r\n").await;
    assert_eq!(client.reply().await, Some(Reply::Bulk(large)));
    node.stop().await;
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody_else() {
    let limits = ClientConfig { output_buffer_limit: ByteSize(1 << 20), ..settings() };
    let node = FrontEnd::start(limits, None);
    let mut other = Connection::open(node.address(Port::Client)).await;
    let large = vec![b'x'; 400_000];
    other.send(&bulk_request(&[b"set", b"k", &large])).await;
    assert_eq!(other.reply().await, Some(Reply::ok()));
    let mut slow = Connection::open(node.address(Port::Client)).await;
    slow.send(&b"get k\r\n".repeat(100)).await;
    assert_eq!(other.ask("strlen k").await, "400000");
    for _request in 0..100 {
        assert_eq!(slow.reply().await, Some(Reply::Bulk(large.clone())));
    }
    // One reply beyond the limit ends the connection.
    other.send(b"mget k k k\r\n").await;
    assert_eq!(other.reply().await, None);
    node.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let node = FrontEnd::start(ClientConfig { max_clients: 1, ..settings() }, None);
    let mut first = Connection::open(node.address(Port::Client)).await;
    assert_eq!(first.ask("ping").await, "PONG");
    let mut second = Connection::open(node.address(Port::Client)).await;
    let text = b"ERR max number of clients reached".to_vec();
    assert_eq!(second.reply().await, Some(Reply::Error(text)));
    assert_eq!(second.reply().await, None);
    node.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let settings = ClientConfig { idle_timeout: Duration::from_millis(50), ..settings() };
    let node = FrontEnd::start(settings, None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    assert_eq!(client.ask("ping").await, "PONG");
    assert_eq!(client.reply().await, None);
    node.stop().await;
}

#[tokio::test]
async fn clients_are_listed_named_and_killed() {
    let node = FrontEnd::start(settings(), None);
    let (mut one, mut two) = (
        Connection::open(node.address(Port::Client)).await,
        Connection::open(node.address(Port::Client)).await,
    );
    assert_eq!(one.ask("client setname first").await, "OK");
    assert_eq!(one.ask("client setinfo lib-name test").await, "OK");
    assert!(one.ask("client setinfo foo bar").await.starts_with("-ERR Unrecognized option"));
    let id = two.ask("client id").await;
    let list = two.ask("client list").await;
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("name=first ") && list.contains("lib-name=test "), "{list}");
    assert!(list.contains("cmd=client|setinfo "), "{list}");
    assert_eq!(one.ask(&format!("client kill id {id}")).await, "1");
    assert_eq!(two.reply().await, None);
    assert_eq!(one.ask("client kill 1.2.3.4:5").await, "-ERR No such client");
    assert_eq!(
        one.ask("client maint_notifications on").await,
        "-ERR unknown subcommand 'maint_notifications'. Try CLIENT HELP."
    );
    one.send(
        b"client reply off\r\nping\r\nclient reply on\r\nclient reply skip\r\nping\r\necho x\r\n",
    )
    .await;
    assert_eq!(one.reply().await, Some(Reply::ok()));
    assert_eq!(one.reply().await, Some(Reply::bulk("x")));
    node.stop().await;
}

#[tokio::test]
async fn the_cluster_is_told_in_the_words_of_redis() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Cluster)).await;
    let id = |number: u128| chickadee::types::NodeId(number).to_redis_hex();
    let slots = client.ask("cluster slots").await;
    let expected = format!(
        "[[0 8191 [127.0.0.1 7001 {one} []]] [8192 16383 [127.0.0.1 7002 {two} []]]]",
        one = id(1),
        two = id(2)
    );
    assert_eq!(slots, expected);
    assert_eq!(client.ask("cluster myid").await, id(1));
    let nodes = client.ask("cluster nodes").await;
    let first = format!("{} 127.0.0.1:7001@8001 myself,master - 0 0 1 connected 0-8191", id(1));
    assert_eq!(nodes.lines().next(), Some(first.as_str()));
    assert!(nodes.contains("127.0.0.1:7003@8003 master,fail - 0 0 1 disconnected\n"), "{nodes}");
    let info = client.ask("cluster info").await;
    assert!(info.starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"), "{info}");
    assert!(info.contains("chickadee_placement_id:000000000000abcd\r\n"), "{info}");
    let shards = client.ask("cluster shards").await;
    assert!(shards.contains("role master replication-offset 0 health online"), "{shards}");
    assert!(!shards.contains("replica "), "every node is a master: {shards}");
    for verb in ["addslots 1", "meet 127.0.0.1 7000", "forget x", "failover", "reset"] {
        let answer = client.ask(&format!("cluster {verb}")).await;
        assert!(answer.starts_with("-ERR slots are placed automatically"), "{verb}: {answer}");
    }
    assert_eq!(client.ask("cluster foo").await, "-ERR unknown subcommand 'foo'. Try CLUSTER HELP.");
    assert_eq!(client.ask("readonly").await, "OK");
    node.stop().await;
}

#[tokio::test]
async fn clients_find_the_settings_and_fields_that_they_read() {
    let node = FrontEnd::start(settings(), None);
    let mut client = Connection::open(node.address(Port::Client)).await;
    assert_eq!(client.ask("config get save appendonly").await, "[appendonly no save ]");
    assert_eq!(client.ask("config get MAXMEMORY-*").await, "[maxmemory-policy allkeys-lfu]");
    assert_eq!(client.ask("config get nope").await, "[]");
    client.ask("set k v").await;
    let info = client.ask("info").await;
    for line in [
        "redis_version:7.2.4",
        "role:master",
        "loading:0",
        "connected_slaves:0",
        "cluster_enabled:0",
        "db0:keys=1,expires=0,avg_ttl=0",
        "maxmemory:1073741824",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{line} in {info}");
    }
    assert!(client.ask("info replication").await.starts_with("# Replication\r\nrole:master"));
    assert_eq!(client.ask("info foo").await, "");
    assert_eq!(client.ask("role").await, "[master 0 []]");
    assert_eq!(client.ask("command getkeys mset a 1 b 2").await, "[a b]");
    assert_eq!(client.ask("command list filterby pattern cluster|k*").await, "[cluster|keyslot]");
    assert!(client.ask("command help").await.starts_with("[COMMAND <subcommand>"));
    node.stop().await;
}
