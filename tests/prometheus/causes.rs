//! Alerts whose causes can be made on one machine: each cause is made, its alert seen to fire, the cause
//! ended, and the alert seen to clear.
//!
//! Windows and waits of the rules are seconds here (`server`). What needs a network of its own, or another
//! clock, is made by `causes_of_the_host`.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::Certificates;
use super::server::Prometheus;
use super::support::resp::Client;
use super::support::{Cluster, PATIENCE, free_port, now, pause, wait_for};

/// Clients that a node lets in.
const CLIENTS: usize = 40;
/// How long a node stands still once it is suspected: not so long that it is dead.
const STILL: Duration = Duration::from_millis(2_500);
/// How long a node stands still that is merely slow.
const SLOW: Duration = Duration::from_millis(60);
/// How long all alerts may take that follow from a node that stands still.
const STANDING_STILL: Duration = Duration::from_mins(4);

/// A cluster of three with a Prometheus that watches it.
pub(crate) struct Watched {
    pub(super) cluster: Cluster,
    prometheus: Prometheus,
    certificates: Certificates,
    /// The admin port of the third node, which it keeps.
    admin: u16,
}

impl Watched {
    /// All nodes have these settings; the second one refuses writes that do not fit. `None` where there is no
    /// Prometheus.
    pub(crate) fn start(own: &[&str]) -> Option<Self> {
        let certificates = Certificates::new();
        let mut settings = certificates.settings();
        settings.extend(["memory.limit=16MiB", "node.threads=2"].map(str::to_owned));
        settings.push(format!("client.max_clients={CLIENTS}"));
        let settings: Vec<&str> =
            settings.iter().map(String::as_str).chain(own.iter().copied()).collect();
        let (mut cluster, admin) = (Cluster::new(&settings), free_port());
        cluster.add(&[]);
        cluster.add(&["memory.policy=refuse"]);
        cluster.add(&[&format!("admin.listen=127.0.0.1:{admin}")]);
        cluster.wait_settled(3);
        let prometheus = Prometheus::start(cluster.nodes[0].address("admin"))?;
        prometheus.wait_series("up{job=\"chickadee\"} == 1", 3);
        let watched = Self { cluster, prometheus, certificates, admin };
        watched.clear(&[""]);
        Some(watched)
    }

    /// The alerts that fire and whose names begin so; `None` while Prometheus does not answer.
    fn firing(&self, alert: &str) -> Option<Vec<String>> {
        let query = format!("ALERTS{{alertname=~\"{alert}.*\",alertstate=\"firing\"}}");
        self.prometheus.values_of("alertname", &query)
    }

    pub(super) fn is_firing(&self, alert: &str) -> bool {
        self.firing(alert).is_some_and(|firing| !firing.is_empty())
    }

    /// Whether none of these fires, by the word of Prometheus.
    pub(super) fn is_clear(&self, alert: &str) -> bool {
        self.firing(alert).is_some_and(|firing| firing.is_empty())
    }

    /// Goes on with a cause until all these alerts have fired, each at some time.
    pub(super) fn fire(&self, alerts: &[&str], mut cause: impl FnMut(&Cluster)) {
        let (mut left, deadline) = (alerts.to_vec(), now() + PATIENCE);
        while !left.is_empty() {
            assert!(now() < deadline, "{left:?} did not fire within {PATIENCE:?}");
            cause(&self.cluster);
            left.retain(|alert| !self.is_firing(alert));
            pause();
        }
    }

    /// Waits until none of these fires; the empty name stands for all.
    pub(super) fn clear(&self, alerts: &[&str]) {
        for alert in alerts {
            let deadline = now() + PATIENCE;
            loop {
                let firing = self.firing(alert);
                if firing.as_ref().is_some_and(Vec::is_empty) {
                    break;
                }
                assert!(now() < deadline, "not clear within {PATIENCE:?}: {firing:?}");
                pause();
            }
        }
    }

    pub(crate) fn a_certificate_ends_and_one_is_none(&self) {
        let node = &self.cluster.nodes[0];
        self.certificates.issue("1d");
        node.signal("HUP");
        self.fire(&["ChickadeeCertificateEnds"], |_| {});
        self.certificates.spoil();
        node.signal("HUP");
        self.fire(&["ChickadeeConfigReloadFailed"], |_| {});
        self.certificates.issue("30d");
        node.signal("HUP");
        self.clear(&["ChickadeeCertificateEnds", "ChickadeeConfigReloadFailed"]);
    }

    pub(crate) fn too_many_clients_come(&self) {
        let address = self.cluster.nodes[0].address("client");
        let crowd: Vec<Client> = (0..CLIENTS * 9 / 10).map(|_| Client::connect(address)).collect();
        self.fire(&["ChickadeeConnectionsNearLimit"], |_| {});
        self.fire(&["ChickadeeClientsRefused"], |_| {
            let connect = |_| TcpStream::connect(address).unwrap();
            drop((0..CLIENTS).map(connect).collect::<Vec<_>>());
        });
        drop(crowd);
        self.clear(&["ChickadeeConnectionsNearLimit", "ChickadeeClientsRefused"]);
    }

    pub(crate) fn strangers_gossip(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.fire(&["ChickadeeGossipRejected"], |cluster| {
            let packet = [1; 200];
            socket.send_to(&packet, cluster.nodes[0].address("gossip")).unwrap();
        });
        self.clear(&["ChickadeeGossipRejected"]);
    }

    /// In the place of a node comes one with another secret.
    pub(crate) fn a_node_has_another_secret(&mut self) {
        self.cluster.nodes[2].terminate();
        self.fire(&["ChickadeeDown"], |_| {});
        let mut strangers = Cluster::new(&[]);
        let seed = self.cluster.nodes[0].address("peer").port();
        strangers.add_at(
            free_port(),
            &[seed],
            &[&format!("admin.listen=127.0.0.1:{}", self.admin)],
        );
        self.fire(&["ChickadeeNotReady"], |_| {});
        self.clear(&["ChickadeeDown"]);
        drop(strangers);
        self.cluster.nodes[2].start();
        self.cluster.wait_settled(3);
        self.clear(&["ChickadeeNotReady", "ChickadeeDown"]);
    }

    pub(crate) fn a_node_is_killed(&mut self) {
        self.cluster.nodes[2].kill();
        self.fire(&["ChickadeeDown", "ChickadeeUnderReplicated"], |_| {});
        self.cluster.nodes[2].start();
        self.cluster.wait_settled(3);
        self.clear(&["ChickadeeDown", "ChickadeeUnderReplicated"]);
    }

    /// Again and again a node stands still under load, until it is suspected, and for some seconds more.
    pub(crate) fn a_node_stands_still(&self) {
        let mut load = Load::at(self.cluster.nodes[0].address("client"));
        let mut left = vec![
            "ChickadeePeerSuspect",
            "ChickadeeMemberFlapping",
            "ChickadeeReplicationBacklog",
            "ChickadeeReplicationMissing",
            "ChickadeeOutcomesUnknown",
        ];
        let deadline = now() + STANDING_STILL;
        while !left.is_empty() {
            assert!(now() < deadline, "{left:?} did not fire");
            let mut look = || {
                load.go_on();
                left.retain(|alert| !self.is_firing(alert));
                let is_alive = "peer=\"n2\",state=\"alive\"";
                self.cluster.nodes[0].metric("chickadee_peer_state", is_alive) > 0.5
            };
            self.cluster.nodes[2].signal("STOP");
            wait_for("the node is suspect, or dead", || (!look()).then_some(()));
            let until = now() + STILL;
            wait_for("it stands still", || (look() || now() > until).then_some(()));
            self.cluster.nodes[2].signal("CONT");
            wait_for("the node is well", || look().then_some(()));
        }
        self.cluster.wait_settled(3);
        self.clear(&[""]);
    }

    /// A node stands still for moments again and again, with commands under way that need it.
    pub(crate) fn a_node_is_slow(&self) {
        let mut load = Load::at(self.cluster.nodes[0].address("client"));
        let node = &self.cluster.nodes[2];
        self.fire(&["ChickadeeSlow"], |_| {
            node.signal("STOP");
            load.send();
            let until = now() + SLOW;
            wait_for("it stands still", || (now() > until).then_some(()));
            node.signal("CONT");
            load.receive();
        });
        self.clear(&[""]);
    }

    /// More is written than fits.
    pub(crate) fn memory_is_full(&self) {
        let mut load = Load::at(self.cluster.nodes[0].address("client"));
        self.fire(&["ChickadeeEvictingHard", "ChickadeeWritesRefused"], |_| load.fill());
        self.clear(&["ChickadeeEvictingHard", "ChickadeeWritesRefused"]);
    }
}

/// Commands that are sent before the first reply is read: so many of each sort.
const AT_ONCE: usize = 32;

/// Reads, counts, and values of which a few hundred fill a node, over one connection.
struct Load {
    client: Client,
    number: usize,
}

impl Load {
    fn at(address: SocketAddr) -> Self {
        Self { client: Client::connect(address), number: 0 }
    }

    /// Many fail while a node stands still.
    fn go_on(&mut self) {
        self.send();
        self.receive();
    }

    fn send(&mut self) {
        for number in 0..AT_ONCE {
            let count = format!("count:{number}");
            self.send_large();
            self.client.send(&["INCR", &count]).unwrap();
            self.client.send(&["GET", &count]).unwrap();
        }
    }

    fn receive(&mut self) {
        self.receive_replies(3 * AT_ONCE);
    }

    /// Writes nothing but new large values: once a node is full, each takes the place of another.
    fn fill(&mut self) {
        for _ in 0..AT_ONCE {
            self.send_large();
        }
        self.receive_replies(AT_ONCE);
    }

    fn send_large(&mut self) {
        self.number += 1;
        let (key, value) = (format!("large:{}", self.number), vec![b'v'; 64 * 1024]);
        self.client.send(&[b"SET".as_slice(), key.as_bytes(), &value]).unwrap();
    }

    fn receive_replies(&mut self, count: usize) {
        for _ in 0..count {
            let _reply_or_error = self.client.receive().unwrap();
        }
    }
}
