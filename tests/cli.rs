//! The program from outside: exit codes, messages, and what it prints of a made-up node.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chickadee::admin::status::{
    Addresses, Copy, Explained, Facts, KeyChanged, KeyRow, Left, Located, Member, MemberCounts,
    NodeStatus, Peer, Replica, Ring, RingNode, RingStatus, Role, SlotFilter, SlotRow, Stamp,
    Status, StoreStatus,
};
use chickadee::admin::{Actions, Bound, Source};
use chickadee::config::AdminConfig;
use chickadee::metrics::Metrics;
use chickadee::tasks::{BoxFuture, TaskGroup};
use chickadee::types::{Db, MemberState, Phase, WallMillis};

/// The program, with nothing of this process's surroundings.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee"));
    command.env_clear().stdin(Stdio::null()).args(arguments);
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    finished(program(arguments).output().unwrap())
}

fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

// --- without a node ------------------------------------------------------------------------

#[test]
fn wrong_usage_and_settings_exit_2_with_one_line_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[cluster]\nreplicsa = 3\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, part) in [
        (vec!["serve", "--replicas", "9"], "flag --replicas: cluster.replicas: 9 is out of range"),
        (vec!["serve", "--config", file], "bad.toml:2:1: unknown setting \"cluster.replicsa\""),
        (vec!["config", "check", file], "did you mean \"cluster.replicas\"?"),
        (vec!["serve", "--config", "/does/not/exist"], "cannot read the settings file"),
        (vec!["serve", "--set", "gossip.listen=0.0.0.0:7400"], "chickadee keygen --out FILE"),
        (vec!["serve", "--set", "client.listen=0.0.0.0:6379"], "client.password_file"),
        (vec!["leave", "--addr", "127.0.0.1:9400"], "--socket PATH"),
        (vec!["status", "--addr", "nowhere"], "not HOST:PORT"),
    ] {
        let (code, out, err) = run(&arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{arguments:?}: {err}");
    }
    let (code, _, err) = run(&["statsu"]);
    assert!(code == 2 && err.contains("'status'"), "{err}");
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    let mut command = program(&["config", "check"]);
    let output = command.env("CHICKADEE_CLUSTER_REPLICA", "3").output().unwrap();
    let (code, _, err) = finished(output);
    assert_eq!(code, 2);
    assert!(err.contains("did you mean \"CHICKADEE_CLUSTER_REPLICAS\"?"), "{err}");
}

/// A node whose seeds got lost on the way must not form a cluster of its own. Settings are only
/// looked at: where this fails, no node is started.
#[test]
fn an_empty_seed_is_refused_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let file = file.to_str().unwrap();
    std::fs::write(file, "[cluster]\njoin = [\"10.0.0.1\", \"\"]\n").unwrap();
    let refused = "cluster.join: a seed is empty: write host or host:port";
    for (arguments, origin) in [
        (vec!["show", "--join", ""], "flag --join"),
        (vec!["show", "--join", "10.0.0.1", "--join", "  "], "flag --join"),
        (vec!["show", "--set", "cluster.join="], "flag --set cluster.join"),
        (vec!["check", file], "a.toml:2:8"),
    ] {
        let (code, _, err) = run(&[&["config"], arguments.as_slice()].concat());
        assert_eq!(code, 2, "{arguments:?}");
        assert!(err.contains(&format!("{origin}: {refused}")), "{arguments:?}: {err}");
    }
    let mut command = program(&["config", "check"]);
    let (code, _, err) = finished(command.env("CHICKADEE_CLUSTER_JOIN", "").output().unwrap());
    assert_eq!(code, 2);
    assert!(err.contains(&format!("variable CHICKADEE_CLUSTER_JOIN: {refused}")), "{err}");
    std::fs::write(file, "[cluster]\njoin = []\n").unwrap();
    assert_eq!(run(&["config", "check", file]).0, 0, "no seed is none");
}

#[test]
fn a_node_that_is_not_there_exits_3_and_waiting_for_it_4() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    assert_eq!(run(&["status", "--addr", &free]).0, 3);
    assert_eq!(run(&["get", "a", "--addr", &free]).0, 3);
    let (code, out, err) = run(&["leave", "--socket", socket]);
    assert_eq!((code, out.as_str(), err.lines().count()), (3, "", 1), "{err}");
    assert!(err.starts_with(&format!("chickadee: no node answers at {socket}: ")), "{err}");
    let (code, _, err) = run(&["status", "--wait", "ready", "--timeout", "300ms", "--addr", &free]);
    assert_eq!(code, 4);
    assert!(err.contains("not reached within 300ms: no node answers"), "{err}");
}

#[test]
fn settings_are_shown_with_their_origin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    std::fs::write(&file, "[cluster]\nreplicas = 3\n").unwrap();
    let mut command = program(&["config", "show", "--origin", "--config", file.to_str().unwrap()]);
    let output = command.env("CHICKADEE_NODE_ZONE", "z1").arg("--acks").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "--acks is no flag");
    let mut command = program(&["config", "show", "--origin", "--config", file.to_str().unwrap()]);
    command.env("CHICKADEE_NODE_ZONE", "z1").args(["--cluster-acks", "all"]);
    let (code, out, _) = finished(command.output().unwrap());
    assert_eq!(code, 0);
    assert!(out.contains("a.toml:2:12\n"), "{out}");
    assert!(out.contains("zone = \"z1\"  # environment variable CHICKADEE_NODE_ZONE\n"), "{out}");
    assert!(out.contains("acks = \"all\"  # flag --cluster-acks\n"), "{out}");
    assert!(out.contains("weight = 1  # default\n"), "{out}");
}

#[test]
fn credentials_stand_in_for_files_that_no_setting_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("password"), "p\n").unwrap();
    assert_eq!(run(&["keygen", "--out", &path("secret")]).0, 0);
    let show = |arguments: &[&str]| {
        let mut command = program(&["config", "show", "--origin"]);
        command.env("CREDENTIALS_DIRECTORY", folder.path()).args(arguments);
        let (code, out, err) = finished(command.output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let open = ["--set", "gossip.listen=0.0.0.0:7400", "--set", "client.listen=0.0.0.0:6379"];
    let out = show(&open);
    let secret = format!("secret_file = {:?}  # credential secret\n", path("secret"));
    assert!(out.contains(&secret), "{out}");
    let password = format!("password_file = {:?}  # credential password\n", path("password"));
    assert!(out.contains(&password), "{out}");
    let out = show(&["--secret-file", "other"]);
    assert!(out.contains("secret_file = \"other\"  # flag --secret-file\n"), "{out}");
    assert!(out.contains(&password), "{out}");
}

#[test]
fn the_example_is_a_file_that_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.toml");
    std::fs::write(&file, run(&["config", "example"]).1).unwrap();
    assert_eq!(run(&["config", "check", file.to_str().unwrap()]).0, 0);
}

#[test]
fn a_secret_is_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let arguments = ["keygen", "--out", file.to_str().unwrap()];
    assert_eq!(run(&arguments).0, 0);
    let first = std::fs::read(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&arguments).0, 1);
    assert_eq!(std::fs::read(&file).unwrap(), first);
    let (code, out, err) = run(&["keygen"]);
    assert_eq!((code, out.trim_end().len(), err.as_str()), (0, 64, ""));
}

/// A node that runs until this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _ended_before = self.0.wait();
    }
}

/// The log of a node with these settings, up to the line that says that it started.
fn log_of_start(folder: &Path, settings: &[&str]) -> Vec<String> {
    let data = format!("node.data_dir={}", folder.join("data").display());
    let own = ["client.listen=127.0.0.1:0", "gossip.listen=127.0.0.1:0", "peer.listen=127.0.0.1:0"];
    let own = own.into_iter().chain(["admin.listen=127.0.0.1:0", "memory.limit=16MiB", &data]);
    let mut command = program(&["serve"]);
    for setting in own.chain(settings.iter().copied()) {
        command.args(["--set", setting]);
    }
    let mut node = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = Vec::new();
    let started = |log: &[String]| log.last().is_some_and(|line| line.contains("node started"));
    let mut lines = BufReader::new(node.0.stderr.take().unwrap()).lines();
    while !started(&log)
        && let Some(line) = lines.next()
    {
        log.push(line.unwrap());
    }
    assert!(started(&log), "{log:#?}");
    log
}

#[test]
fn a_node_that_tells_an_address_that_leads_nowhere_warns_once() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    assert_eq!(run(&["keygen", "--out", secret.to_str().unwrap()]).0, 0);
    let secret = format!("security.secret_file={}", secret.display());
    let open = [
        secret.as_str(),
        "gossip.listen=0.0.0.0:0",
        "peer.listen=[::]:0",
        "client.listen=0.0.0.0:0",
        "client.danger_allow_anonymous=true",
    ];
    let warnings = |settings: &[&str]| {
        let log = log_of_start(folder.path(), settings);
        let warning = "WARN chickadee::node::ports: no address to advertise";
        log.into_iter().filter(|line| line.contains(warning)).collect::<Vec<_>>()
    };
    let found = warnings(&open);
    assert_eq!(found.len(), 1, "{found:#?}");
    let all = "client.advertise, client.cluster_advertise, gossip.advertise, peer.advertise";
    assert!(found[0].contains(&format!("settings=\"{all}\"")), "{found:#?}");
    let told = ["client.advertise=10.0.0.3:0", "gossip.advertise=10.0.0.3:0"];
    let found = warnings(&[open.as_slice(), &told].concat());
    assert_eq!(found.len(), 1, "{found:#?}");
    let rest = "client.cluster_advertise, peer.advertise";
    assert!(found[0].contains(&format!("settings=\"{rest}\"")), "{found:#?}");
    let found = warnings(&[open.as_slice(), &["cluster.join=127.0.0.1:1"]].concat());
    assert_eq!(found, [""; 0], "the route to a seed is found");
}

// --- a made-up node ------------------------------------------------------------------------

/// A node that is alone, holds one key, and is ready or not.
struct MadeUp {
    client: SocketAddr,
    ready: AtomicBool,
    leaving: AtomicBool,
}

/// With this much time the made-up node does not leave.
const REFUSED: Duration = Duration::from_secs(13);

impl Source for MadeUp {
    fn status(&self) -> Status {
        let none = SocketAddr::from(([127, 0, 0, 1], 1));
        Status {
            node: NodeStatus {
                id: "0f".into(),
                name: "n1".into(),
                version: "0.1.0".into(),
                zone: None,
                protocol: 1,
            },
            cluster: "c".into(),
            ready: self.ready.load(Ordering::Relaxed),
            phase: if self.leaving.load(Ordering::Relaxed) {
                Phase::Leaving
            } else {
                Phase::Active
            },
            fenced: None,
            members: MemberCounts { alive: 1, ..MemberCounts::default() },
            ring: RingStatus { placement_id: "00ff".into(), nodes: 1, ..RingStatus::default() },
            store: StoreStatus { keys: 1, ..StoreStatus::default() },
            uptime_seconds: 3.0,
            addresses: Addresses {
                client: self.client,
                cluster: none,
                client_tls: None,
                cluster_tls: None,
                gossip: none,
                peer: none,
                admin: None,
            },
        }
    }

    fn members(&self) -> Vec<Member> {
        vec![Member {
            id: "0f".into(),
            name: "n1".into(),
            state: MemberState::Alive,
            phase: Phase::Active,
            since: Stamp(WallMillis(0)),
            gossip: SocketAddr::from(([127, 0, 0, 1], 1)),
            peer: None,
            client: Some(self.client),
            cluster: None,
            admin: None,
            zone: None,
            weight: 1,
            generation: 1,
            version: Some("0.1.0".into()),
            rtt_seconds: None,
            is_self: true,
        }]
    }

    fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }

    fn ring(&self) -> Ring {
        let node = RingNode {
            id: "0f".into(),
            name: "n1".into(),
            zone: None,
            weight: 1,
            slots_owned: 16_384,
            slots_replica: 0,
        };
        Ring { placement_id: "00ff".into(), replicas: 1, nodes: vec![node] }
    }

    fn locate(&self, key: &[u8]) -> Located {
        let replica = Replica {
            id: "0f".into(),
            name: "n1".into(),
            role: Role::Owner,
            state: MemberState::Alive,
            complete: true,
            acting: true,
        };
        let key = String::from_utf8_lossy(key).into_owned();
        Located { key, slot: 7, replicas: vec![replica] }
    }

    fn explain(&self, _db: Db, key: Bytes) -> BoxFuture<'_, Explained> {
        let copy = Copy {
            name: "n1".into(),
            present: true,
            version: Some("1.2".into()),
            expires_at: None,
            bytes: Some(5),
            error: None,
        };
        let key = String::from_utf8_lossy(&key).into_owned();
        Box::pin(async { Explained { key, slot: 7, copies: vec![copy] } })
    }

    fn slots(&self, _filter: SlotFilter) -> Vec<SlotRow> {
        Vec::new()
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        if self.ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(vec!["phase is joining".into(), "7 of 9 slots\u{1b} are not complete".into()])
    }

    fn metrics(&self) -> String {
        Metrics::new().1.render()
    }

    fn facts(&self) -> Facts {
        made_up_facts()
    }
}

fn made_up_facts() -> Facts {
    Facts {
        name: "c".into(),
        replicas: 2,
        virtual_nodes: 256,
        ring_grace_seconds: 30.0,
        tombstone_grace_seconds: 3600.0,
        revision: 1,
    }
}

impl Actions for MadeUp {
    fn leave(&self, timeout: Option<Duration>) -> BoxFuture<'_, Result<Left, String>> {
        let Some(timeout) = timeout else {
            return Box::pin(async { Ok(Left { slots_remaining: 0 }) });
        };
        if timeout == REFUSED {
            return Box::pin(async {
                tokio::time::sleep(Duration::from_millis(400)).await;
                Err("not now".to_owned())
            });
        }
        self.leaving.store(true, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(timeout).await;
            Ok(Left { slots_remaining: 3 })
        })
    }

    fn form(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("already a member".to_owned()) })
    }

    fn forget(&self, member: String) -> BoxFuture<'_, Result<(), String>> {
        let known = member == "n 2";
        Box::pin(async move { if known { Ok(()) } else { Err("no such member".to_owned()) } })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRow>, String>> {
        let key = |id, primary| KeyRow { id, primary, fingerprint: "00ff".into() };
        Box::pin(async move { Ok(vec![key(0, false), key(1, true)]) })
    }

    fn add_key(&self, contents: Bytes) -> BoxFuture<'_, Result<KeyChanged, String>> {
        let id = u8::try_from(contents.len()).unwrap();
        Box::pin(async move { Ok(KeyChanged { id, late: vec!["n3".into()] }) })
    }

    fn use_key(&self, id: u8) -> BoxFuture<'_, Result<KeyChanged, String>> {
        Box::pin(async move { Ok(KeyChanged { id, late: Vec::new() }) })
    }

    fn remove_key(&self, id: u8) -> BoxFuture<'_, Result<KeyChanged, String>> {
        Box::pin(async move { Err(format!("key {id} seals")) })
    }

    fn set_fact(&self, name: String, value: String) -> BoxFuture<'_, Result<Facts, String>> {
        let replicas = value.parse().map_err(|_| format!("{name}: not a number"));
        Box::pin(async move { Ok(Facts { replicas: replicas?, ..made_up_facts() }) })
    }
}

/// Serves a made-up node while `body` runs with its address, its socket and itself.
fn with_node(client: SocketAddr, body: impl FnOnce(&str, &str, &MadeUp) + Send) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let node = Arc::new(MadeUp { client, ready: true.into(), leaving: false.into() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let config = AdminConfig { listen, socket: socket.clone() };
    let bound = runtime.block_on(Bound::bind(&config)).unwrap();
    let address = bound.addresses().first().unwrap().to_string();
    let group = TaskGroup::new();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let shared = Arc::clone(&node);
        scope.spawn(|| {
            runtime.block_on(async {
                bound.serve(shared, &group);
                let _either_way_it_is_done = wait.await;
                group.stop_and_join(Duration::from_secs(5)).await;
            });
        });
        // Dropped when the body ends, also by a failed assertion.
        let _done = done;
        body(&address, socket.to_str().unwrap(), &node);
    });
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

#[test]
fn looking_prints_tables_json_and_plain_columns() {
    with_node(nowhere(), |address, socket, _| {
        let (code, out, err) = run(&["members", "--addr", address]);
        assert_eq!((code, err.as_str()), (0, ""));
        let head = out.lines().next().unwrap();
        assert!(head.starts_with("NODE") && head.ends_with("VERSION"), "{out}");
        assert!(out.contains("n1 (this node)"), "{out}");
        let (_, out, _) = run(&["members", "--json", "--socket", socket]);
        let members: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(members[0]["since"], "1970-01-01T00:00:00.000Z");
        let (_, out, _) = run(&["ring", "locate", "a b", "--format", "plain", "--addr", address]);
        assert_eq!(out, "7\tn1\towner\talive\tyes\tyes\n");
        let (_, out, _) = run(&["explain", "k", "--format", "plain", "--addr", address]);
        assert_eq!(out, "7\tn1\tyes\t1.2\t-\t5\n");
        let (_, out, _) = run(&["ring", "--format", "plain", "--addr", address]);
        assert_eq!(out, "n1\t-\t1\t16384\t0\n");
        let (code, out, _) = run(&["stats", "--json", "--addr", address]);
        assert!(code == 0 && out.contains("\"reads_total_hit\": 0.0"), "{out}");
    });
}

#[test]
fn a_node_that_is_not_ready_is_unhealthy() {
    with_node(nowhere(), |address, _, node| {
        assert_eq!(run(&["status", "--addr", address]).0, 0);
        for goal in ["ready", "converged", "replicated"] {
            assert_eq!(run(&["status", "--wait", goal, "--addr", address]).0, 0, "{goal}");
        }
        node.ready.store(false, Ordering::Relaxed);
        let (code, out, err) = run(&["status", "--addr", address]);
        assert_eq!((code, err.as_str()), (1, ""));
        assert!(out.contains("not ready, active"), "{out}");
        let wait = ["status", "--wait", "ready", "--timeout", "1s", "--addr", address];
        let (code, out, err) = run(&wait);
        assert_eq!((code, out.as_str()), (4, ""));
        let why = "not reached within 1s: n1 is not ready: \
                   phase is joining; 7 of 9 slots\\u{1b} are not complete\n";
        assert_eq!(err, format!("chickadee: {why}"));
    });
}

#[test]
fn actions_go_through_the_socket() {
    with_node(nowhere(), |_, socket, _| {
        let (code, out, _) = run(&["leave", "--json", "--socket", socket]);
        assert_eq!((code, out.contains("\"slots_remaining\": 0")), (0, true), "{out}");
        let (code, _, err) = run(&["form", "--socket", socket]);
        assert_eq!((code, err.as_str()), (1, "chickadee: already a member\n"));
        let (code, out, _) = run(&["forget", "n 2", "--socket", socket]);
        assert_eq!((code, out.as_str()), (0, "forgot n 2\n"));
        let (code, _, err) = run(&["forget", "n3", "--socket", socket]);
        assert_eq!((code, err.as_str()), (1, "chickadee: no such member\n"));
        let (_, out, _) = run(&["keys", "list", "--format", "plain", "--socket", socket]);
        assert_eq!(out, "0\tno\t00ff\n1\tyes\t00ff\n");
        let (code, _, err) = run(&["keys", "remove", "1", "--socket", socket]);
        assert_eq!((code, err.as_str()), (1, "chickadee: key 1 seals\n"));
        let (code, out, _) = run(&["keys", "use", "1", "--socket", socket]);
        assert_eq!((code, out.as_str()), (0, "key 1 in use\n"));
        let (code, _, err) = run(&["keys", "add", "/nowhere/secret", "--socket", socket]);
        assert!(code == 1 && err.contains("cannot read the secret file"), "{err}");
        let (code, out, _) = run(&["cluster", "set", "replicas", "3", "--socket", socket]);
        assert!(code == 0 && out.contains("replicas         3\n"), "{out}");
        let (_, out, _) = run(&["cluster", "show", "--format", "plain", "--socket", socket]);
        assert!(out.contains("ring_grace\t30s\ntombstone_grace\t1h\n"), "{out}");
    });
}

#[test]
fn progress_is_told_of_a_node_that_leaves_and_of_no_other() {
    let refused = format!("{}s", REFUSED.as_secs());
    with_node(nowhere(), |_, socket, _| {
        let (code, out, err) = run(&["leave", "--timeout", &refused, "--socket", socket]);
        assert_eq!((code, out.as_str(), err.as_str()), (1, "", "chickadee: not now\n"));
        let (code, _, err) = run(&["leave", "--timeout", "1s", "--socket", socket]);
        let expected = "leaving: slots are handed over\n\
                        chickadee: 3 slots had no other complete copy\n";
        assert_eq!((code, err.as_str()), (1, expected));
    });
}

/// A client port that expects these commands, in RESP, and answers each with these bytes.
fn client_port(
    turns: Vec<(&'static str, &'static str)>,
) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for (expected, answer) in turns {
            assert_eq!(read_command(&mut reader), expected);
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, serving)
}

fn read_command(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let count: usize = line.trim_end().strip_prefix('*').unwrap().parse().unwrap();
    let mut parts = Vec::new();
    for _ in 0..count {
        let mut head = String::new();
        reader.read_line(&mut head).unwrap();
        let length: usize = head.trim_end().strip_prefix('$').unwrap().parse().unwrap();
        let mut bytes = vec![0; length + 2];
        reader.read_exact(&mut bytes).unwrap();
        bytes.truncate(length);
        parts.push(String::from_utf8(bytes).unwrap());
    }
    parts.join(" ")
}

fn talk(turns: Vec<(&'static str, &'static str)>, arguments: &[&str], expected: (i32, &str, &str)) {
    let (client, serving) = client_port(turns);
    with_node(client, |address, _, _| {
        let mut command = program(arguments);
        let output = command.args(["--addr", address]).output().unwrap();
        let (code, out, err) = finished(output);
        assert_eq!((code, out.as_str(), err.as_str()), expected, "{arguments:?}");
    });
    serving.join().unwrap();
}

#[test]
fn data_goes_through_the_client_port() {
    talk(vec![("GET k", "$3\r\na\r\n\r\n")], &["get", "k", "--format", "plain"], (0, "a\r\n", ""));
    talk(vec![("GET k", "$-1\r\n")], &["get", "k"], (1, "", "chickadee: no such key\n"));
    talk(
        vec![("SELECT 3", "+OK\r\n"), ("SET k v PX 1500", "+OK\r\n")],
        &["set", "k", "v", "--ttl", "1.5s", "--db", "3"],
        (0, "OK\n", ""),
    );
    talk(vec![("DEL a b", ":1\r\n")], &["del", "a", "b"], (0, "1\n", ""));
    talk(vec![("PTTL k", ":-1\r\n")], &["ttl", "k"], (0, "no expiry\n", ""));
    talk(vec![("PTTL k", ":-2\r\n")], &["ttl", "k"], (1, "", "chickadee: no such key\n"));
    talk(
        vec![
            ("SCAN 0 MATCH * COUNT 1000", "*2\r\n$1\r\n9\r\n*1\r\n$1\r\na\r\n"),
            ("SCAN 9 MATCH * COUNT 1000", "*2\r\n$1\r\n0\r\n*1\r\n$2\r\n\x1bb\r\n"),
        ],
        &["scan"],
        (0, "a\n\\u{1b}b\n", ""),
    );
    let refused = "chickadee: NOAUTH Authentication required.\n";
    talk(vec![("GET k", "-NOAUTH Authentication required.\r\n")], &["get", "k"], (1, "", refused));
}

const VERBS: &[&str] = &[
    "serve",
    "dev",
    "status",
    "members",
    "ring",
    "slots",
    "peers",
    "stats",
    "explain",
    "get",
    "set",
    "del",
    "ttl",
    "scan",
    "leave",
    "form",
    "forget",
    "cluster",
    "keys",
    "cert",
    "keygen",
    "config",
    "completions",
    "man",
    "doctor",
    "version",
];

#[test]
fn help_names_every_verb() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for verb in VERBS {
        let named = out.lines().any(|line| line.trim_start().starts_with(&format!("{verb} ")));
        assert!(named, "{verb}: {out}");
    }
}

// --- what is installed beside the program --------------------------------------------------

#[test]
fn bash_completes_verbs_flags_and_words() {
    let completed = |words: &str| {
        let script = r#"
            eval "$("$0" completions bash)"
            COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _chickadee chickadee "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let arguments = ["-uc", script, env!("CARGO_BIN_EXE_chickadee"), words];
        let (code, out, err) = finished(Command::new("bash").args(arguments).output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{words}");
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed("chickadee stat"), ["status", "stats"]);
    assert_eq!(completed("chickadee ring l"), ["locate"]);
    assert_eq!(completed("chickadee status --wai"), ["--wait"]);
    assert_eq!(completed("chickadee status --wait r"), ["ready", "replicated"]);
}

#[test]
fn completions_name_every_verb_and_are_what_their_shell_reads() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for verb in VERBS {
            assert!(out.contains(verb), "{shell}: {verb}");
        }
        let file = folder.path().join(shell);
        std::fs::write(&file, out).unwrap();
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(read) => assert_eq!(finished(read), (0, String::new(), String::new()), "{shell}"),
            Err(error) => println!("left out: {shell} does not run ({error})"),
        }
    }
    let (code, out, err) = run(&["completions", "cmd.exe"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("bash"), "{err}");
}

#[test]
fn every_verb_and_the_settings_have_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man");
    let (code, out, err) = run(&["man", pages.to_str().unwrap()]);
    assert_eq!((code, out.as_str(), err.lines().count()), (0, "", 1), "{err}");
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    let main = page("chickadee.1");
    for verb in VERBS {
        let version = env!("CARGO_PKG_VERSION");
        let title = format!(".TH chickadee-{verb} 1 \" \" \"chickadee {version}\" Chickadee\n");
        assert!(page(&format!("chickadee-{verb}.1")).contains(&title), "{verb}");
        assert!(main.contains(&format!("chickadee\\-{verb}(1)")), "{verb}: {main}");
    }
    assert!(page("chickadee-ring-locate.1").contains("Who should hold a key"));
    assert!(page("chickadee.toml.5").contains("cluster.replicas"));
    assert!(!pages.join("chickadee-help.1").exists());
    for entry in std::fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        match Command::new("groff")
            .args(["-Kutf8", "-ww", "-man", "-Tutf8", "-z"])
            .arg(&path)
            .output()
        {
            Ok(read) => assert_eq!(finished(read), (0, String::new(), String::new()), "{path:?}"),
            Err(error) => println!("left out: groff does not run ({error})"),
        }
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, out, err) = run(&["man", file.to_str().unwrap()]);
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
    assert!(err.contains("cannot write manual pages to"), "{err}");
}
