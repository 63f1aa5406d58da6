//! What the defaults of the settings ask of the machine: name, memory, folder for data, credentials.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::load::Machine;
use crate::config::settings::SETTINGS;
use crate::types::ByteSize;
use crate::types::node::NAME_MAX;

/// Bytes of a credential that are looked at to see whether it is blank.
const BLANK_LOOK: u64 = 4096;
/// The folder of a node that the system runs.
const SYSTEM_DATA_DIR: &str = "/var/lib/chickadee";

/// Folders that the environment of a process names.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// `$STATE_DIRECTORY`: where the service manager lets the node keep data.
    pub state: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`: where it lets it have sockets.
    pub runtime: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
}

/// Looks at this machine.
pub fn this_machine(folders: &Folders) -> Machine {
    let Folders { state, runtime, state_home, home, credentials: folder } = folders;
    let given = |folder: &Option<PathBuf>| folder.clone().filter(|folder| folder.is_absolute());
    let system = rustix::system::uname();
    Machine {
        host_name: as_name(&system.nodename().to_string_lossy()),
        total_memory: total_memory(),
        data_dir: given(state).unwrap_or_else(|| data_dir(state_home.as_deref(), home.as_deref())),
        runtime_dir: given(runtime),
        credentials: folder.as_deref().map(credentials).unwrap_or_default(),
    }
}

/// The credentials in `folder` that settings know. A blank one is what a unit hands over where the
/// file that it names is missing. One that cannot be looked at counts as there, so that a node fails
/// over it and does not start without.
fn credentials(folder: &Path) -> BTreeMap<&'static str, PathBuf> {
    if !folder.is_absolute() {
        return BTreeMap::new();
    }
    let known = SETTINGS.iter().filter_map(|row| row.credential);
    let files = known.map(|name| (name, folder.join(name)));
    let is_there = |path: &Path| match is_blank(path) {
        Ok(blank) => !blank,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    files.filter(|(_, path)| is_there(path)).collect()
}

/// Whether a file has nothing but space, as far as one looks.
fn is_blank(path: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BLANK_LOOK).read_to_end(&mut bytes)?;
    Ok(bytes.trim_ascii().is_empty())
}

/// A host's name as far as it can be a node's.
fn as_name(host: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    host.chars().map(|c| if fits(c) { c } else { '-' }).take(NAME_MAX).collect()
}

fn data_dir(state_home: Option<&Path>, home: Option<&Path>) -> PathBuf {
    if rustix::process::geteuid().is_root() || Path::new(SYSTEM_DATA_DIR).is_dir() {
        return PathBuf::from(SYSTEM_DATA_DIR);
    }
    match (state_home, home) {
        (Some(state), _) if state.is_absolute() => state.join("chickadee"),
        (_, Some(home)) => home.join(".local/state/chickadee"),
        (_, None) => PathBuf::from(SYSTEM_DATA_DIR),
    }
}

/// Bytes of memory that this process has from the system; `None` where that cannot be read.
pub fn resident_memory() -> Option<ByteSize> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(ByteSize(resident.saturating_mul(rustix::param::page_size() as u64)))
}

/// The machine's memory, or what the control group leaves of it. `/proc/meminfo` is not asked:
/// hardened units cannot see it.
fn total_memory() -> ByteSize {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    #[expect(clippy::useless_conversion, reason = "narrower than u64 on 32-bit machines")]
    let machine = u64::from(info.totalram).saturating_mul(unit);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_limit_files(&groups)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    ByteSize(limits.fold(machine, u64::min))
}

/// The files that may hold a memory limit for the groups of `/proc/self/cgroup`, inherited ones
/// included; version 2 (`0::/path`) and version 1 (`n:memory:/path`).
fn group_limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let inner = Path::new(path.trim_start_matches('/'));
        files.extend(inner.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_and_memory() {
        let machine = this_machine(&Folders::default());
        assert!(machine.host_name.parse::<crate::types::NodeName>().is_ok());
        assert!(machine.total_memory.0 > 1 << 20);
    }

    #[test]
    fn credentials_are_the_files_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(credentials(folder.path()).is_empty());
        fs::write(folder.path().join("secret"), b"x").unwrap();
        fs::write(folder.path().join("unknown"), b"x").unwrap();
        fs::write(folder.path().join("password"), b" \n").unwrap();
        let found = credentials(folder.path());
        assert_eq!(found, BTreeMap::from([("secret", folder.path().join("secret"))]));
        let no_folder = folder.path().join("secret");
        assert_eq!(credentials(&no_folder).len(), 2, "what cannot be looked at is not passed over");
        assert!(credentials(Path::new("")).is_empty(), "a variable that is set to nothing");
    }

    #[test]
    fn names_are_made_to_fit() {
        assert_eq!(as_name("a b.c!"), "a-b.c-");
        assert_eq!(as_name(&"x".repeat(100)).len(), NAME_MAX);
    }

    #[test]
    fn limits_of_outer_groups_count() {
        let files = group_limit_files("0::/a/b\n5:cpu,memory:/c\n6:cpu:/d\nnonsense\n");
        let expected = [
            "/sys/fs/cgroup/a/b/memory.max",
            "/sys/fs/cgroup/a/memory.max",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/memory/c/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }
}
