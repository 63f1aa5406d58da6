//! Clusters of real processes on loopback, for tests: started, asked, killed, and gone at the end.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::print_stderr,
    reason = "each test binary uses another part of the harness; a failing test shows logs"
)]

pub(crate) mod namespace;
pub(crate) mod resp;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use resp::Client;

/// How long a cluster may take for what it should do within a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The test's own clock: real processes live in real time.
#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits a moment between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "between two looks at a condition, never for one")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Waits until `condition` gives a value; fails with `what` after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, condition)
}

/// Waits until `condition` gives a value; fails with `what` after `patience`.
pub(crate) fn wait_within<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(now() < deadline, "not within {patience:?}: {what}");
        pause();
    }
}

/// The program under test.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHICKADEE_")) {
        command.env_remove(name);
    }
    command
}

/// A port that was free a moment ago, for TCP and UDP.
pub(crate) fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = tcp.local_addr().expect("a bound socket has an address").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A cluster in a folder of its own.
pub(crate) struct Cluster {
    /// The nodes, running or not, by number. Dropped before their folder, which holds the logs that
    /// a failing test shows.
    pub(crate) nodes: Vec<Node>,
    /// Settings that every node gets, as `key=value`.
    pub(crate) settings: Vec<String>,
    folder: tempfile::TempDir,
}

/// One node of a test cluster.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    folder: PathBuf,
    child: Option<Child>,
    peer_port: u16,
    args: Vec<String>,
    /// Variables for the process, from its next start on.
    pub(crate) variables: Vec<(String, String)>,
}

impl Cluster {
    /// A folder and a secret; no nodes yet.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let secret = folder.path().join("secret");
        let made = program().args(["keygen", "--out"]).arg(&secret).output().expect("keygen runs");
        assert!(made.status.success(), "keygen: {}", String::from_utf8_lossy(&made.stderr));
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self { folder, nodes: Vec::new(), settings }
    }

    /// `count` nodes that join the first one; returns when all are ready.
    pub(crate) fn started(count: usize, settings: &[&str]) -> Self {
        let mut cluster = Self::new(settings);
        for _ in 0..count {
            cluster.add(&[]);
        }
        cluster.wait_settled(count);
        cluster
    }

    /// The cluster's secret file.
    pub(crate) fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// Starts one more node, which joins those before it; its number.
    pub(crate) fn add(&mut self, settings: &[&str]) -> usize {
        let seeds: Vec<u16> = self.nodes.iter().take(3).map(|node| node.peer_port).collect();
        self.add_at(free_port(), &seeds, settings)
    }

    /// Starts a node whose peer port is the seed of that number, with all of them as seeds.
    pub(crate) fn add_with_seeds(&mut self, seeds: &[u16], own: usize) -> usize {
        self.add_at(seeds[own], seeds, &[])
    }

    /// Starts a node with that peer port, those seeds and settings of its own; its number.
    pub(crate) fn add_at(&mut self, peer_port: u16, seeds: &[u16], settings: &[&str]) -> usize {
        let number = self.nodes.len();
        let name = format!("n{number}");
        let folder = self.folder.path().join(&name);
        fs::create_dir(&folder).expect("a folder for the node");
        let mut args: Vec<String> = vec!["serve".into(), "--name".into(), name.clone()];
        args.extend(["--secret-file".into(), self.secret().display().to_string()]);
        for seed in seeds {
            args.extend(["--join".into(), format!("127.0.0.1:{seed}")]);
        }
        let own = [
            format!("peer.listen=127.0.0.1:{peer_port}"),
            "gossip.listen=127.0.0.1:0".into(),
            "client.listen=127.0.0.1:0".into(),
            "admin.listen=127.0.0.1:0".into(),
            format!("admin.socket={}", folder.join("admin.sock").display()),
            format!("node.data_dir={}", folder.join("data").display()),
        ];
        let given = settings.iter().map(|&setting| setting.to_owned());
        for setting in own.into_iter().chain(self.settings.iter().cloned()).chain(given) {
            args.extend(["--set".into(), setting]);
        }
        let mut node = Node { name, folder, child: None, peer_port, args, variables: Vec::new() };
        node.start();
        self.nodes.push(node);
        number
    }

    /// Waits until these nodes are ready, agree on a placement of `ring` nodes, and every slot has
    /// its copies.
    pub(crate) fn wait_agreed(&self, numbers: &[usize], ring: u64) {
        wait_for(&format!("nodes {numbers:?} agree on a ring of {ring}"), || {
            let mut ids = Vec::new();
            for number in numbers {
                let status = self.nodes[*number].status()?;
                let settled = status["ready"] == true
                    && status["ring"]["nodes"] == ring
                    && status["ring"]["slots_incomplete"] == 0
                    && (ring == 1 || status["ring"]["slots_under_replicated"] == 0);
                settled.then(|| ids.push(status["ring"]["placement_id"].clone()))?;
            }
            ids.dedup();
            (ids.len() == 1).then_some(())
        });
        wait_for("every slot is acted for once", || {
            let acting =
                |number: &usize| self.nodes[*number].status()?["ring"]["slots_acting"].as_u64();
            let counts: Option<Vec<u64>> = numbers.iter().map(acting).collect();
            (counts?.iter().sum::<u64>() == 16_384).then_some(())
        });
    }

    /// Waits until all `count` nodes agree.
    pub(crate) fn wait_settled(&self, count: usize) {
        self.wait_agreed(&(0..count).collect::<Vec<_>>(), count as u64);
    }

    /// A client of a node's client port.
    pub(crate) fn client(&self, number: usize) -> Client {
        Client::connect(self.nodes[number].address("client"))
    }
}

impl Node {
    /// Starts the process.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("a log file for the node");
        let errors = log.try_clone().expect("a file can be held twice");
        let child = program()
            .args(&self.args)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        self.child = Some(child);
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// Sends a signal by name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Kills the process without a word (`kill -9`).
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Asks the process to stop (SIGTERM) and waits for it; its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait_exit()
    }

    /// Waits until the process has ended by itself; its exit code.
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the node runs");
        wait_for(&format!("{} ends", self.name), || child.try_wait().expect("a child can be asked"))
            .code()
    }

    /// The admin socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// What the node logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// `GET path` on the admin socket; the status code and the body.
    pub(crate) fn http(&self, path: &str) -> Option<(u16, String)> {
        get(&self.socket(), path)
    }

    /// `GET path` as JSON.
    pub(crate) fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.http(path)?.1).ok()
    }

    /// `/v1/status`.
    pub(crate) fn status(&self) -> Option<Value> {
        self.json("/v1/status")
    }

    /// One of the node's addresses, by its name in the status.
    pub(crate) fn address(&self, which: &str) -> SocketAddr {
        wait_for("the status names the address", || {
            self.status()?["addresses"][which].as_str()?.parse().ok()
        })
    }

    /// The sum of a metric's series whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = self.http("/metrics").expect("the node answers");
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Runs the command line against this node's admin socket.
    pub(crate) fn cli(&self, args: &[&str]) -> std::process::Output {
        let mut command = program();
        command.args(args).arg("--socket").arg(self.socket());
        command.output().expect("the program runs")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(40);
            eprintln!("--- last lines of {}:\n{}", self.name, lines[tail..].join("\n"));
        }
    }
}

fn get(socket: &Path, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((code, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}
