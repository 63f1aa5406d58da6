//! Checks of the machine: what it gives to a node.

use crate::config::keys;
use crate::limits::UDP_BUFFER;
use crate::types::ByteSize;

use super::Finding;
use super::facts::{Facts, Folder};

/// Files that a node has open beside those of its clients: peers, admin, its folder.
const OTHER_FILES: u64 = 256;
/// What a process takes beyond the memory limit, at least: a quarter of it, or this.
const MEMORY_BESIDE: u64 = 64 << 20;

/// QUIC loses packets where the system grants small buffers.
pub(super) fn receive_buffer(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "udp buffer";
    let of_node = facts.node.as_ref().and_then(|node| {
        let bytes = node.figures.get("udp_receive_buffer_bytes")?;
        Some((format!("{} has", node.status.node.name), whole(*bytes)))
    });
    let of_machine = facts.machine.receive_buffer.map(|bytes| {
        ("a node here would get".to_owned(), u64::try_from(bytes).unwrap_or(u64::MAX))
    });
    let Some((whose, bytes)) = of_node.or(of_machine) else { return Vec::new() };
    let wanted = UDP_BUFFER as u64;
    let found = format!("{whose} {} of receive buffer", ByteSize(bytes));
    if bytes >= wanted {
        return vec![Finding::ok(CHECK, found)];
    }
    let found =
        format!("{found}, {} are asked for: packets between nodes get lost", ByteSize(wanted));
    vec![Finding::warn(
        CHECK,
        found,
        "sysctl -w net.core.rmem_max=7500000 (deploy/systemd/60-chickadee.conf keeps it), then restart the node",
    )]
}

/// Each client needs a file descriptor.
pub(super) fn open_files(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "open files";
    let clients = facts.config().client.max_clients as u64;
    let of_node = facts.node_here().and_then(|node| node.figures.get("max_fds"));
    let (whose, limit) = match of_node {
        Some(limit) => ("the node", Some(whole(*limit))),
        None => ("a process that is started here", facts.machine.open_files),
    };
    let Some(limit) = limit else {
        return vec![Finding::ok(CHECK, format!("{whose} may open any number of files"))];
    };
    let found = format!("{whose} may open {limit} files");
    if limit >= clients + OTHER_FILES {
        return vec![Finding::ok(CHECK, found)];
    }
    let enough = clients + OTHER_FILES;
    vec![Finding::warn(
        CHECK,
        format!("{found}, too few for {} = {clients}", keys::MAX_CLIENTS),
        format!(
            "LimitNOFILE={enough} in the unit, or `ulimit -n {enough}`; else lower {}",
            keys::MAX_CLIENTS
        ),
    )]
}

/// The limit is that of the entries; the process takes more.
pub(super) fn memory(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "memory";
    let of_node = facts.node_here().map(|node| node.status.store.limit_bytes);
    let limit = of_node.unwrap_or_else(|| facts.config().memory.limit.0);
    let machine = facts.machine.memory;
    let needed = limit.saturating_add((limit / 4).max(MEMORY_BESIDE));
    let found = format!("limit {}, machine or control group {machine}", ByteSize(limit));
    let less = ByteSize(machine.0 / 5 * 4);
    let fix = format!("set {} to {less} or less, such as 60%", keys::MEMORY_LIMIT);
    vec![if limit >= machine.0 {
        Finding::fail(CHECK, format!("{found}: the system will kill the node"), fix)
    } else if needed > machine.0 {
        let needed = ByteSize(needed);
        Finding::warn(CHECK, format!("{found}: a full node takes about {needed}"), fix)
    } else {
        Finding::ok(CHECK, found)
    }]
}

/// Where the system hands out huge pages unasked a process takes more than it uses.
pub(super) fn huge_pages(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "huge pages";
    let Some(mode) = &facts.machine.huge_pages else { return Vec::new() };
    let found = format!("transparent huge pages: {mode}");
    vec![if mode == "always" {
        Finding::warn(
            CHECK,
            format!("{found}: memory is taken in pieces of 2 MiB, more than the limit shows"),
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, and at boot transparent_hugepage=madvise",
        )
    } else {
        Finding::ok(CHECK, found)
    }]
}

/// The node's identity and its snapshot are there.
pub(super) fn data_folder(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "data folder";
    let path = facts.config().node.data_dir.display();
    let (found, free) = match &facts.folder {
        Folder::Writable(free) => (format!("{path} can be written to"), *free),
        Folder::ToBeMade(free) => (format!("{path} will be made by the node"), *free),
        Folder::Refused(why) if facts.node_here().is_some() && !facts.machine.is_root => {
            let found = format!("this user cannot look at {path} ({why})");
            return vec![Finding::warn(CHECK, found, "run the doctor as root")];
        }
        Folder::Refused(why) => {
            let fix = format!(
                "run the node as the folder's owner, make it writable, or set {}",
                keys::DATA_DIR
            );
            return vec![Finding::fail(CHECK, format!("{path} cannot be written to: {why}"), fix)];
        }
    };
    let limit = facts.config().memory.limit;
    let Some(free) = free else { return vec![Finding::ok(CHECK, found)] };
    let found = format!("{found}, {free} free");
    let fits = !facts.config().snapshot.enabled || free >= limit;
    vec![if fits {
        Finding::ok(CHECK, found)
    } else {
        Finding::warn(
            CHECK,
            format!("{found}: the snapshot of a full node ({limit}) does not fit"),
            "make room, or a restart of a full node fetches all its data from the others",
        )
    }]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are sizes and counts; what is too large is cut"
)]
pub(super) const fn whole(figure: f64) -> u64 {
    figure as u64
}

#[cfg(test)]
mod tests {
    use super::super::Level::{self, Fail, Ok, Warn};
    use super::super::facts::{good, good_node};
    use super::*;

    fn level(findings: &[Finding]) -> Level {
        findings[0].level
    }

    #[test]
    fn a_small_receive_buffer_is_warned_of_for_the_node_before_the_machine() {
        let mut facts = good();
        assert_eq!(level(&receive_buffer(&facts)), Ok);
        facts.machine.receive_buffer = Some(212_992);
        let found = receive_buffer(&facts);
        assert_eq!(level(&found), Warn);
        assert!(found[0].fix.as_ref().unwrap().contains("net.core.rmem_max"));
        facts.node = Some(good_node());
        assert_eq!(level(&receive_buffer(&facts)), Ok, "the node has enough");
        facts.node.as_mut().unwrap().figures.insert("udp_receive_buffer_bytes".into(), 212_992.0);
        assert!(receive_buffer(&facts)[0].found.contains("n1 has 208KiB"));
        (facts.node, facts.machine.receive_buffer) = (None, None);
        assert!(receive_buffer(&facts).is_empty(), "what was not tried is not judged");
    }

    #[test]
    fn every_client_needs_a_file() {
        let mut facts = good();
        facts.loaded.config.client.max_clients = 10_000;
        for (limit, expected) in
            [(Some(1024), Warn), (Some(10_255), Warn), (Some(10_256), Ok), (None, Ok)]
        {
            facts.machine.open_files = limit;
            assert_eq!(level(&open_files(&facts)), expected, "{limit:?}");
        }
        facts.machine.open_files = Some(1024);
        facts.node = Some(good_node());
        assert_eq!(level(&open_files(&facts)), Ok, "the node was started otherwise");
    }

    #[test]
    fn memory_must_leave_room_beside_the_entries() {
        let mut facts = good();
        for (gib, expected) in [(4, Ok), (6, Ok), (7, Warn), (8, Fail), (9, Fail)] {
            facts.loaded.config.memory.limit = ByteSize(gib << 30);
            assert_eq!(level(&memory(&facts)), expected, "{gib} GiB of 8");
        }
        facts.node = Some(good_node());
        assert_eq!(level(&memory(&facts)), Ok, "the node's own limit counts");
        facts.node.as_mut().unwrap().is_here = false;
        assert_eq!(level(&memory(&facts)), Fail, "of another machine's node nothing follows");
    }

    #[test]
    fn huge_pages_unasked_are_warned_of() {
        let mut facts = good();
        assert_eq!(level(&huge_pages(&facts)), Ok);
        facts.machine.huge_pages = Some("always".to_owned());
        assert_eq!(level(&huge_pages(&facts)), Warn);
        facts.machine.huge_pages = None;
        assert!(huge_pages(&facts).is_empty());
    }

    #[test]
    fn the_folder_must_be_writable_and_have_room() {
        let mut facts = good();
        facts.loaded.config.memory.limit = ByteSize(1 << 30);
        facts.loaded.config.snapshot.enabled = true;
        let small = Some(ByteSize(1 << 20));
        for (folder, expected) in [
            (Folder::ToBeMade(None), Ok),
            (Folder::Writable(small), Warn),
            (Folder::ToBeMade(small), Warn),
            (Folder::Refused("read-only".to_owned()), Fail),
        ] {
            facts.folder = folder;
            assert_eq!(level(&data_folder(&facts)), expected, "{:?}", facts.folder);
        }
        (facts.node, facts.machine.is_root) = (Some(good_node()), false);
        assert_eq!(level(&data_folder(&facts)), Warn, "the node is another user's");
        facts.loaded.config.snapshot.enabled = false;
        facts.folder = Folder::Writable(small);
        assert_eq!(level(&data_folder(&facts)), Ok);
    }
}
