//! What a service manager sees of the program: what it is told (`sd_notify`), and SIGHUP.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::resp::{Client, Reply, bulk};
use support::{free_port, program, wait_for};

/// A node of its own with a settings file and a service manager.
struct Service {
    child: Child,
    /// What the manager was told so far.
    told: String,
    manager: UnixDatagram,
    client_port: u16,
    folder: tempfile::TempDir,
    errors: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Service {
    fn start(settings: &str, seeds: &[u16]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let client_port = free_port();
        let file = folder.path().join("settings.toml");
        fs::write(&file, settings).unwrap();
        let mut command = program();
        command.args(["serve", "--config"]).arg(&file);
        for (key, value) in [
            ("client.listen", format!("127.0.0.1:{client_port}")),
            ("gossip.listen", "127.0.0.1:0".to_owned()),
            ("peer.listen", "127.0.0.1:0".to_owned()),
            ("admin.listen", "127.0.0.1:0".to_owned()),
        ] {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        for seed in seeds {
            command.arg("--join").arg(format!("127.0.0.1:{seed}"));
        }
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "30000000");
        command.env("STATE_DIRECTORY", folder.path().join("state"));
        command.env("RUNTIME_DIRECTORY", folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let errors = std::thread::spawn(move || errors.lines().map_while(Result::ok).collect());
        let (told, errors) = (String::new(), Some(errors));
        Self { child, told, manager, client_port, folder, errors }
    }

    /// Waits until the manager was told this line.
    fn wait_told(&mut self, line: &str) {
        wait_for(&format!("the manager is told {line}"), || {
            let mut bytes = [0; 4096];
            if let Ok(length) = self.manager.recv(&mut bytes) {
                self.told.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
            }
            self.told.contains(line).then_some(())
        });
    }

    fn forget(&mut self) {
        self.told.clear();
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("settings.toml")
    }

    fn client(&self) -> Client {
        Client::connect(([127, 0, 0, 1], self.client_port).into())
    }

    fn max_clients(&self) -> Reply {
        self.client().run(&["CONFIG", "GET", "maxclients"])
    }

    /// Stops it in order; what it logged.
    fn stop(mut self) -> String {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
        self.errors.take().unwrap().join().unwrap().join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[test]
fn the_manager_is_told_when_it_is_ready_healthy_and_stopping() {
    let mut service = Service::start("", &[]);
    service.wait_told("READY=1\n");
    let (_, after) = service.told.split_once("READY=1\n").unwrap();
    assert!(!after.contains("EXTEND_TIMEOUT_USEC"), "that would put the watchdog off: {after}");
    service.wait_told("STATUS=serving: 1 alive, 0 suspect; owner of 16384 slots");
    service.wait_told("WATCHDOG=1\n");
    assert!(is_socket(&service.folder.path().join("admin.sock")), "in $RUNTIME_DIRECTORY");
    assert!(service.folder.path().join("state").is_dir(), "data in $STATE_DIRECTORY");
    // A standstill that the manager bears is no end of it.
    service.signal("STOP");
    while service.manager.recv(&mut [0; 4096]).is_ok() {}
    service.forget();
    service.signal("CONT");
    service.wait_told("WATCHDOG=1\n");
    service.signal("TERM");
    service.wait_told("STOPPING=1\n");
    service.wait_told("EXTEND_TIMEOUT_USEC=");
    assert!(service.child.wait().unwrap().success());
}

#[test]
fn a_node_that_waits_for_its_seeds_counts_as_started_after_a_while() {
    let mut service = Service::start("", &[free_port()]);
    service.wait_told("STATUS=no cluster yet");
    assert!(!service.told.contains("READY=1"), "{}", service.told);
    // Settings that are read again make it no more ready.
    service.signal("HUP");
    service.forget();
    service.wait_told("EXTEND_TIMEOUT_USEC=");
    assert!(!service.told.contains("READY=1"), "{}", service.told);
    service.wait_told("READY=1\n");
    assert!(!service.told.contains("RELOADING=1"), "{}", service.told);
}

#[test]
fn settings_are_read_again_and_wrong_ones_change_nothing() {
    let mut service = Service::start("[client]\nmax_clients = 70\n", &[]);
    service.wait_told("READY=1\n");
    let told = |limit: &str| Reply::Array(Some(vec![bulk("maxclients"), bulk(limit)]));
    assert_eq!(service.max_clients(), told("70"));

    fs::write(service.settings(), "[client]\nmax_clients = 71\n[node]\nweight = 3\n").unwrap();
    service.forget();
    service.signal("HUP");
    service.wait_told("RELOADING=1\nMONOTONIC_USEC=");
    service.wait_told("READY=1\n");
    assert_eq!(service.max_clients(), told("71"));

    // A password from now on; whoever was there before stays.
    let mut before = service.client();
    let password = service.folder.path().join("password");
    fs::write(&password, "first\n").unwrap();
    let file = format!("[client]\nmax_clients = 71\npassword_file = {password:?}\n");
    fs::write(service.settings(), &file).unwrap();
    service.forget();
    service.signal("HUP");
    service.wait_told("READY=1\n");
    assert_eq!(before.run(&["PING"]), Reply::Simple("PONG".into()));
    assert!(service.client().run(&["PING"]).text().is_some_and(|text| text.starts_with("NOAUTH")));
    fs::write(&password, "second\n").unwrap();
    service.forget();
    service.signal("HUP");
    service.wait_told("READY=1\n");
    let mut client = service.client();
    assert!(
        client.run(&["AUTH", "first"]).text().is_some_and(|text| text.starts_with("WRONGPASS"))
    );
    assert_eq!(client.run(&["AUTH", "second"]), support::resp::ok());

    fs::write(service.settings(), "[client]\nmax_clientz = 72\n").unwrap();
    service.forget();
    service.signal("HUP");
    service.wait_told("READY=1\n");
    let limit = client.run(&["CONFIG", "GET", "maxclients"]);
    assert_eq!(limit, told("71"));

    let log = service.stop();
    assert!(log.contains("next start on") && log.contains("node.weight"), "{log}");
    assert!(log.contains("settings.toml:2:1") && log.contains("client.max_clients"), "{log}");
}
