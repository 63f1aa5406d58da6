//! Looks at this machine: what it grants, what stands in the way of the settings. Nothing stays.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, geteuid, getrlimit};

use crate::cli::sources;
use crate::clock::{Clock, SystemClock, within};
use crate::config::keys;
use crate::config::load::Loaded;
use crate::config::{Config, seed_address};
use crate::limits::UDP_BUFFER;
use crate::net::Net;
use crate::tls::pem::{self, PemError};
use crate::tls::{Secret, SecretError};
use crate::types::ByteSize;

use super::facts::{
    CertificateFile, Facts, Folder, MachineFacts, NodeFacts, Port, PortState, Readable, Seed,
    Validity,
};

/// How long a seed's name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(5);
/// Where the system tells how it hands out huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// Permissions of others than the owner and the group.
const OTHERS: u32 = 0o007;

/// Gathers everything that the checks judge.
pub(super) async fn facts(loaded: Loaded, node: Option<NodeFacts>) -> Facts {
    let config = &loaded.config;
    let mut seeds = Vec::new();
    for seed in &config.cluster.join {
        let name = seed_address(seed);
        let resolved = within(RESOLVE, Net::Os.resolve(&name)).await;
        let addresses = resolved
            .unwrap_or_else(|| Err(ErrorKind::TimedOut.into()))
            .map_err(|error| error.to_string());
        seeds.push(Seed { name, addresses });
    }
    Facts {
        machine: machine(),
        folder: folder(&config.node.data_dir),
        secret: config.security.secret_file.as_deref().map(secret),
        password: config.client.password_file.as_deref().map(password),
        certificates: certificates(config),
        now: SystemClock::new().wall(),
        ports: ports(config),
        seeds,
        node,
        loaded,
    }
}

fn machine() -> MachineFacts {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = Net::Os.bind_quic(any, UDP_BUFFER);
    MachineFacts {
        memory: sources::machine().total_memory,
        receive_buffer: socket.ok().map(|socket| socket.receive_buffer),
        open_files: getrlimit(Resource::Nofile).current,
        huge_pages: fs::read_to_string(HUGE_PAGES).ok().and_then(|text| chosen(&text)),
        is_root: geteuid().is_root(),
    }
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

fn folder(path: &Path) -> Folder {
    let write = Access::WRITE_OK | Access::EXEC_OK;
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let Some(existing) = existing else {
        return Folder::Refused(format!("no part of {} exists", path.display()));
    };
    if let Err(error) = access(existing, write) {
        let error = io::Error::from(error);
        return Folder::Refused(format!("{}: {error}", existing.display()));
    }
    if !existing.is_dir() {
        return Folder::Refused(format!("{} is no folder", existing.display()));
    }
    let free = statvfs(existing).ok();
    let free = free.map(|system| ByteSize(system.f_bavail.saturating_mul(system.f_frsize)));
    if existing == path { Folder::Writable(free) } else { Folder::ToBeMade(free) }
}

fn secret(path: &Path) -> Readable {
    match Secret::read(path) {
        Ok(_) => Readable::Good,
        Err(SecretError::Read { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            Readable::Denied
        }
        Err(error @ SecretError::Exposed { .. }) => Readable::Exposed(error.to_string()),
        Err(error) => Readable::Bad(error.to_string()),
    }
}

fn password(path: &Path) -> Readable {
    let mode = fs::metadata(path).map(|file| file.permissions().mode());
    let text = fs::read(path);
    match (mode, text) {
        (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Readable::Denied
        }
        (Err(error), _) | (_, Err(error)) => Readable::Bad(format!("{}: {error}", path.display())),
        (_, Ok(text)) if text.trim_ascii().is_empty() => {
            Readable::Bad(format!("{} is empty", path.display()))
        }
        (Ok(mode), Ok(_)) if mode & OTHERS != 0 => {
            let mode = mode & 0o777;
            Readable::Exposed(format!(
                "{} is open to other users (mode {mode:03o})",
                path.display()
            ))
        }
        (Ok(_), Ok(_)) => Readable::Good,
    }
}

fn certificates(config: &Config) -> Vec<CertificateFile> {
    let (client, security) = (&config.client, &config.security);
    let files = [
        (keys::TLS_CERT_FILE, &client.tls_cert_file),
        (keys::TLS_CLIENT_CA_FILE, &client.tls_client_ca_file),
        (keys::CERT_FILE, &security.cert_file),
        (keys::CA_FILE, &security.ca_file),
    ];
    let set = files.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
    let file = |(key, path): (&'static str, &PathBuf)| {
        let any_will_do = [keys::TLS_CLIENT_CA_FILE, keys::CA_FILE].contains(&key);
        CertificateFile { key, path: path.clone(), validity: validity(path, any_will_do) }
    };
    set.map(file).collect()
}

/// When the certificates of a file count: all of them, or (of authorities, of which one takes the place of
/// another) any.
fn validity(path: &Path, any_will_do: bool) -> Validity {
    let found = match pem::describe(path) {
        Ok(found) => found,
        Err(PemError::Read { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            return Validity::Denied;
        }
        Err(error) => return Validity::Bad(error.to_string()),
    };
    let (begins, ends) =
        (found.iter().map(|one| one.not_before), found.iter().map(|one| one.not_after));
    let (from, until) =
        if any_will_do { (begins.min(), ends.max()) } else { (begins.max(), ends.min()) };
    let none = || Validity::Bad(format!("{} holds no certificate", path.display()));
    from.zip(until).map_or_else(none, |(from, until)| Validity::Between(from, until))
}

/// Every port of the settings, tried. Port 0 is any that is free.
fn ports(config: &Config) -> Vec<Port> {
    let tcp = |address: SocketAddr| Net::Os.bind_tcp(address).map(drop);
    let udp = |address: SocketAddr| Net::Os.bind_udp(address, UDP_BUFFER).map(drop);
    let mut ports = Vec::new();
    let mut note = |key, address: SocketAddr, tried: io::Result<()>| {
        if address.port() != 0 {
            ports.push(Port { key, address, state: state(tried) });
        }
    };
    for address in &config.client.listen {
        note(keys::CLIENT_LISTEN, *address, tcp(*address));
    }
    for address in cluster_listen(config) {
        note(keys::CLUSTER_LISTEN, address, tcp(address));
    }
    note(keys::GOSSIP_LISTEN, config.gossip.listen, udp(config.gossip.listen));
    note(keys::PEER_LISTEN, config.peer.listen, udp(config.peer.listen));
    for address in &config.admin.listen {
        note(keys::ADMIN_LISTEN, *address, tcp(*address));
    }
    ports
}

/// Where cluster clients are served: as set, else the client port + 10000 where there is such a one.
fn cluster_listen(config: &Config) -> Vec<SocketAddr> {
    if !config.client.cluster_listen.is_empty() {
        return config.client.cluster_listen.clone();
    }
    let beside = |address: &SocketAddr| {
        let port = address.port().checked_add(10_000).filter(|_| address.port() != 0)?;
        Some(SocketAddr::new(address.ip(), port))
    };
    config.client.listen.iter().filter_map(beside).collect()
}

fn state(tried: io::Result<()>) -> PortState {
    match tried {
        Ok(()) => PortState::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => PortState::Taken,
        Err(error) => PortState::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn file(folder: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = folder.join(name);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        path
    }

    #[test]
    fn files_and_folders_are_seen_as_they_are() {
        let folder_of = tempfile::tempdir().unwrap();
        let at = folder_of.path();
        assert!(matches!(folder(at), Folder::Writable(Some(free)) if free.0 > 0));
        assert!(matches!(folder(&at.join("a/b")), Folder::ToBeMade(Some(_))));
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(secret(&file(at, "good", 0o600, &hex)), Readable::Good);
        assert!(matches!(secret(&file(at, "open", 0o644, &hex)), Readable::Exposed(_)));
        assert!(matches!(secret(&file(at, "short", 0o600, "abc")), Readable::Bad(_)));
        assert!(matches!(secret(&at.join("none")), Readable::Bad(_)));
        assert_eq!(password(&file(at, "password", 0o640, "x")), Readable::Good);
        assert!(matches!(password(&file(at, "shown", 0o644, "x")), Readable::Exposed(_)));
        assert!(matches!(password(&file(at, "blank", 0o600, " \n")), Readable::Bad(_)));
        assert!(matches!(password(&at.join("none")), Readable::Bad(_)));
        assert!(matches!(folder(&at.join("good/below")), Folder::Refused(_)));
    }

    #[test]
    fn the_chosen_word_is_that_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }

    #[tokio::test]
    async fn a_port_is_free_or_taken() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::on_loopback("n1".parse().unwrap(), "/data");
        assert!(ports(&config).is_empty(), "any port is free");
        config.client.listen = vec![taken.local_addr().unwrap()];
        config.admin.listen = vec!["192.0.2.1:1".parse().unwrap()];
        let found = ports(&config);
        assert_eq!(found[0].state, PortState::Taken);
        assert_eq!((found[0].key, found[1].key), (keys::CLIENT_LISTEN, keys::CLUSTER_LISTEN));
        assert!(matches!(found.last().unwrap().state, PortState::Refused(_)), "{found:?}");
        let machine = machine();
        assert!(machine.receive_buffer.is_some_and(|buffer| buffer > 0), "{machine:?}");
    }
}
