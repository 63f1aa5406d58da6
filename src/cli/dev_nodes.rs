//! The nodes of a throwaway cluster: their folder, their settings, their processes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::serve::{THROWAWAY_MARK, remove_throwaway};
use crate::cli::service;
use crate::cli::sources::CREDENTIALS_VARIABLE;
use crate::cli::{make, output};
use crate::clock::within;
use crate::config::keys;
use crate::config::load::VARIABLE_PREFIX;
use crate::rng::Randomness;
use crate::tasks;

/// Share of the machine's memory that all nodes together may use, in percent.
const MEMORY_SHARE: u16 = 60;

/// A folder of a throwaway cluster; removed with everything in it on drop.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, for this user alone, with a secret in it.
    pub(super) fn new() -> Result<Self, Failure> {
        let random = Randomness::from_system().next_u64();
        let path = std::env::temp_dir().join(format!("chickadee-dev-{random:016x}"));
        let fault = |error: io::Error| {
            Failure::Failed(format!("cannot make the folder {}: {error}", path.display()))
        };
        DirBuilder::new().mode(0o700).create(&path).map_err(fault)?;
        let folder = Self(path.clone());
        fs::write(path.join(THROWAWAY_MARK), b"").map_err(fault)?;
        make::write_secret(&folder.secret())?;
        // Without a file of its own a node would read the system's.
        fs::write(folder.settings(), b"").map_err(fault)?;
        Ok(folder)
    }

    fn secret(&self) -> PathBuf {
        self.0.join("secret")
    }

    fn settings(&self) -> PathBuf {
        self.0.join("chickadee.toml")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.sock"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_throwaway(&self.0);
    }
}

/// The ports of a node: those of the first are told, the others follow; 0 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    client: u16,
    cluster: u16,
    gossip: u16,
    peer: u16,
    admin: u16,
}

impl Ports {
    /// The ports of node `index`, from 0; an error names what does not fit.
    pub(super) fn of(base: u16, index: u16) -> Result<Self, Failure> {
        if base == 0 {
            return Ok(Self { client: 0, cluster: 0, gossip: 0, peer: 0, admin: 0 });
        }
        let too_high =
            || Failure::Usage(format!("--base-port {base} leaves no room for the nodes"));
        let client = base.checked_add(index).ok_or_else(too_high)?;
        let cluster = client.checked_add(10_000).ok_or_else(too_high)?;
        let gossip = 7400 + 10 * index;
        Ok(Self { client, cluster, gossip, peer: gossip + 1, admin: 9400 + index })
    }
}

/// A node's process.
#[derive(Debug)]
pub(super) struct DevNode {
    /// Its name.
    pub(super) name: String,
    /// Its socket.
    pub(super) ask: Ask,
    child: Child,
    /// Open as long as this process lives: the node ends when it closes.
    _stdin: Option<tokio::process::ChildStdin>,
    /// Pass its lines on; they end with the process.
    logs: Vec<JoinHandle<()>>,
}

/// What all nodes are started with.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Their folder.
    pub(super) folder: &'a Folder,
    /// How many they are.
    pub(super) nodes: u16,
    /// The first client port.
    pub(super) base_port: u16,
    /// Settings for all of them.
    pub(super) set: &'a [(String, String)],
}

impl Plan<'_> {
    /// Starts node `index`, from 0; `seed` is the peer address of one that runs.
    pub(super) fn start(&self, index: u16, seed: Option<&str>) -> Result<DevNode, Failure> {
        let name = format!("node{}", index + 1);
        let ask = Ask::Unix(self.folder.socket(&name));
        let program = std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("cannot find this program: {error}")))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(self.folder.settings());
        command.arg("--throwaway").arg(&self.folder.0);
        for (key, value) in self.settings(&name, Ports::of(self.base_port, index)?, seed) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()) {
                command.env_remove(variable);
            }
        }
        // The service manager waits for `dev`, not for its nodes.
        command.env_remove(service::NOTIFY_VARIABLE);
        // The secret and the password of another cluster are none of this one's.
        command.env_remove(CREDENTIALS_VARIABLE);
        // Its own process group: the terminal's Ctrl-C is for this process, which ends the nodes.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Failure::Failed(format!("cannot start {name}: {error}")))?;
        let mut logs = Vec::new();
        logs.extend(child.stdout.take().map(|lines| pass_on(&name, lines)));
        logs.extend(child.stderr.take().map(|lines| pass_on(&name, lines)));
        let stdin = child.stdin.take();
        Ok(DevNode { name, ask, child, _stdin: stdin, logs })
    }

    fn settings(&self, name: &str, ports: Ports, seed: Option<&str>) -> Vec<(String, String)> {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let show = |path: &Path| path.display().to_string();
        let share = (MEMORY_SHARE / self.nodes).max(1);
        let own = [
            (keys::CLUSTER_NAME, "dev".to_owned()),
            (keys::SECRET_FILE, show(&self.folder.secret())),
            (keys::NAME, name.to_owned()),
            (keys::DATA_DIR, show(&self.folder.data(name))),
            (keys::ADMIN_SOCKET, show(&self.folder.socket(name))),
            (keys::MEMORY_LIMIT, format!("{share}%")),
            (keys::CLIENT_LISTEN, at(ports.client)),
            (keys::CLUSTER_LISTEN, at(ports.cluster)),
            (keys::GOSSIP_LISTEN, at(ports.gossip)),
            (keys::PEER_LISTEN, at(ports.peer)),
            (keys::ADMIN_LISTEN, at(ports.admin)),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        let seed = seed.map(|seed| (keys::JOIN.to_owned(), seed.to_owned()));
        own.chain(seed).chain(self.set.iter().cloned()).collect()
    }
}

impl DevNode {
    /// The process's id; `None` once it was waited for.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the process to end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the process and waits for it and for its last lines.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            output::note(&format!("dev: cannot end {}: {error}", self.name));
        }
        for log in self.logs {
            let _what_it_left_running_may_hold_the_pipe = within(LAST_LINES_WITHIN, log).await;
        }
    }
}

/// How long the last lines of an ended node are waited for.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// Passes the lines of a node on to stderr, with its name before each.
fn pass_on(name: &str, lines: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
    let name = name.to_owned();
    tasks::spawn("node's log", async move {
        let mut lines = BufReader::new(lines).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            output::note(&format!("{name} | {line}"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_first_nodes() {
        let ports = Ports::of(6379, 2).unwrap();
        let expected =
            Ports { client: 6381, cluster: 16_381, gossip: 7420, peer: 7421, admin: 9402 };
        assert_eq!(ports, expected);
        assert_eq!(Ports::of(0, 5).unwrap().peer, 0);
        assert!(Ports::of(60_000, 0).is_err());
    }

    #[test]
    fn a_folder_goes_with_its_cluster_and_no_other_is_removed() {
        let folder = Folder::new().unwrap();
        let path = folder.0.clone();
        fs::create_dir(folder.data("node1")).unwrap();
        assert!(path.exists());
        drop(folder);
        assert!(!path.exists());
        let other = tempfile::tempdir().unwrap();
        remove_throwaway(other.path());
        assert!(other.path().exists());
    }
}
