//! What the defaults of the settings ask of the machine: name, memory, folder for data.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::load::Machine;
use crate::types::ByteSize;
use crate::types::node::NAME_MAX;

/// The folder of a node that the system runs.
const SYSTEM_DATA_DIR: &str = "/var/lib/chickadee";

/// Looks at this machine. `state_home` is `$XDG_STATE_HOME`, `home` is `$HOME`.
pub fn this_machine(state_home: Option<&Path>, home: Option<&Path>) -> Machine {
    let system = rustix::system::uname();
    let host_name = as_name(&system.nodename().to_string_lossy());
    Machine { host_name, total_memory: total_memory(), data_dir: data_dir(state_home, home) }
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
        let machine = this_machine(None, None);
        assert!(machine.host_name.parse::<crate::types::NodeName>().is_ok());
        assert!(machine.total_memory.0 > 1 << 20);
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
