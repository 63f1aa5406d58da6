//! What systemd's journal gets: lines with priorities on stderr, or events with fields of their own at
//! a journal of this test's own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot set up has failed; one that is left out says so"
)]

mod support;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{program, wait_for};

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// A node alone with its data in `folder`; ended when it is dropped.
struct Running(Child);

impl Running {
    fn start(mut command: Command, folder: &Path) -> Self {
        command.arg("serve");
        for (key, value) in [
            ("client.listen", "127.0.0.1:0".to_owned()),
            ("gossip.listen", "127.0.0.1:0".to_owned()),
            ("peer.listen", "127.0.0.1:0".to_owned()),
            ("admin.listen", "127.0.0.1:0".to_owned()),
            ("admin.socket", folder.join("admin.sock").display().to_string()),
            ("node.data_dir", folder.join("data").display().to_string()),
        ] {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The lines that a node logs to a file, once it is ready; `stream` makes `JOURNAL_STREAM` of the file.
fn logged(stream: impl FnOnce(&File) -> String) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = File::create(&path).unwrap();
    let mut command = program();
    command.env("JOURNAL_STREAM", stream(&log)).stderr(log);
    let _node = Running::start(command, folder.path());
    wait_for("the node logs that it started", || {
        let text = fs::read_to_string(&path).unwrap();
        let complete = text.rsplit_once('\n')?.0;
        complete.contains("started").then(|| complete.lines().map(str::to_owned).collect())
    })
}

#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    let lines = logged(|log| {
        let log = log.metadata().unwrap();
        format!("{}:{}", log.dev(), log.ino())
    });
    assert!(lines.iter().all(|line| line.starts_with('<')), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("<6> INFO chickadee")), "{lines:?}");
    let elsewhere = logged(|_| "1:1".to_owned());
    assert!(elsewhere.iter().all(|line| line.starts_with("20")), "{elsewhere:?}");
}

#[test]
fn without_a_journal_its_format_is_refused() {
    if Path::new(JOURNAL).exists() {
        println!("left out: this machine has a journal");
        return;
    }
    let output = program().args(["serve", "--set", "log.format=journald"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("log.format is journald, but no journal"), "{errors}");
    assert!(errors.contains("set it to auto"), "{errors}");
}

/// The program as it runs where `folder` stands in the place of the journal's.
fn with_journal(folder: &Path) -> Option<Command> {
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                  mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(folder);
    let mut trial = Command::new("unshare");
    trial.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(folder).arg("true");
    match trial.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            println!("left out: no mounts here: {}", String::from_utf8_lossy(&done.stderr));
            return None;
        }
        Err(error) => {
            println!("left out: unshare does not run ({error})");
            return None;
        }
    }
    command.arg(program().get_program());
    Some(command)
}

#[test]
fn the_journal_gets_events_with_their_fields() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let socket = UnixDatagram::bind(journal.join("socket")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let Some(mut command) = with_journal(&journal) else { return };
    command.env("CHICKADEE_LOG_FORMAT", "journald");
    let _node = Running::start(command, folder.path());
    let mut events: Vec<String> = Vec::new();
    wait_for("the journal hears that the node started", || {
        let mut bytes = [0; 8_192];
        match socket.recv(&mut bytes) {
            Ok(length) => events.push(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        events.iter().any(|event| event.contains("started")).then_some(())
    });
    let event = events.iter().find(|event| event.contains("started")).unwrap();
    for part in ["MESSAGE", "PRIORITY", "TARGET", "SYSLOG_IDENTIFIER", "chickadee", "CHICKADEE_"] {
        assert!(event.contains(part), "{part}: {event:?}");
    }
}
