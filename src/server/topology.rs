//! `CLUSTER`: members and slots in the words of Redis Cluster.
//!
//! Each node is the master of the slots it owns, and nobody's replica: every node would be both, and
//! clients take a node that they first meet as a replica for nothing else. (Measured with redis-py:
//! DBSIZE, SCAN and FLUSHALL went to one node of three.) Any node answers for any slot, so replicas
//! would give clients nothing. What is dead is left out, so that a client never starts with it. Hosts are always explicit: an empty
//! one ends some client libraries.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::command::{CommandError, Id, Row};
use crate::resp::{Encoder, Proto, errors};
use crate::server::local::{Context, Refusal};
use crate::server::{SlotRange, Topology, TopologyNode};
use crate::types::{MemberState, SLOTS};

/// Why slots cannot be moved by command.
const AUTOMATIC: &str = "ERR slots are placed automatically; nodes join and leave by themselves";

/// Encoded replies of one topology: they are large, and every client asks for them.
#[derive(Debug, Default)]
pub(super) struct ReplyCache(Mutex<Option<Cached>>);

#[derive(Debug)]
struct Cached {
    topology: Arc<Topology>,
    replies: Vec<((Id, Proto), Bytes)>,
}

impl ReplyCache {
    fn reply(
        &self,
        topology: &Arc<Topology>,
        key: (Id, Proto),
        encode: fn(&Topology, &mut Encoder<'_>),
    ) -> Bytes {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Cached { topology: Arc::clone(topology), replies: Vec::new() };
        let cached = cached.get_or_insert_with(fresh);
        if !Arc::ptr_eq(&cached.topology, topology) {
            *cached = fresh();
        }
        if let Some((_, reply)) = cached.replies.iter().find(|(known, _)| *known == key) {
            return reply.clone();
        }
        let mut out = Vec::new();
        encode(topology, &mut Encoder::new(&mut out, key.1));
        let reply = Bytes::from(out);
        cached.replies.push((key, reply.clone()));
        reply
    }
}

pub(super) fn run(
    row: &Row,
    args: &[&[u8]],
    context: &Context<'_>,
    reply: &mut Encoder<'_>,
) -> Result<(), Refusal> {
    let encode: fn(&Topology, &mut Encoder<'_>) = match row.id {
        Id::ClusterSlots => slots,
        Id::ClusterShards => shards,
        Id::ClusterNodes => nodes,
        Id::ClusterInfo => info,
        Id::ClusterMyId => |topology, reply| reply.bulk(topology.me.to_redis_hex()),
        Id::ClusterKeySlot => {
            let [_, _, key] = args else {
                return Err(CommandError::WrongArity(row.name).into());
            };
            reply.integer(i64::from(context.backend.slot_of(key).get()));
            return Ok(());
        }
        Id::Cluster => {
            let sub = args.get(1).copied().unwrap_or_default();
            return Err(Refusal::Text(errors::unknown_subcommand(row.name, sub)));
        }
        _ => return Err(Refusal::Fixed(AUTOMATIC)),
    };
    let key = (row.id, reply.proto());
    let bytes = context.server.cluster_replies.reply(&context.backend.topology(), key, encode);
    reply.encoded(&bytes);
    Ok(())
}

const fn is_there(state: MemberState) -> bool {
    matches!(state, MemberState::Alive | MemberState::Suspect)
}

/// A run of slots, and the place of their master.
struct Mastered {
    master: usize,
    first: u16,
    last: u16,
}

/// Who masters which slots, ascending: of a replica set the first that is there. Neighbours with
/// the same master are one run.
fn mastered(topology: &Topology) -> Vec<Mastered> {
    let there =
        |place: &&usize| topology.nodes.get(**place).is_some_and(|node| is_there(node.state));
    let mut runs: Vec<Mastered> = Vec::new();
    for range in &topology.ranges {
        let Some(&master) = range.nodes.iter().find(there) else { continue };
        let (first, last) = (range.first.get(), range.last.get());
        match runs.last_mut() {
            Some(run) if run.master == master && run.last.saturating_add(1) == first => {
                run.last = last;
            }
            _ => runs.push(Mastered { master, first, last }),
        }
    }
    runs
}

/// The runs of each master, by its place.
fn by_master(topology: &Topology) -> BTreeMap<usize, Vec<Mastered>> {
    let mut runs: BTreeMap<usize, Vec<Mastered>> = BTreeMap::new();
    for run in mastered(topology) {
        runs.entry(run.master).or_default().push(run);
    }
    runs
}

fn slots(topology: &Topology, reply: &mut Encoder<'_>) {
    let runs = mastered(topology);
    reply.array(runs.len());
    for Mastered { master, first, last } in runs {
        let Some(node) = topology.nodes.get(master) else { continue };
        reply.array(3);
        reply.integer(i64::from(first));
        reply.integer(i64::from(last));
        reply.array(4);
        reply.bulk(node.cluster.ip().to_string());
        reply.integer(i64::from(node.cluster.port()));
        reply.bulk(node.id.to_redis_hex());
        reply.map(0);
    }
}

/// One shard for each master.
fn shards(topology: &Topology, reply: &mut Encoder<'_>) {
    let shards = by_master(topology);
    reply.array(shards.len());
    for (master, runs) in shards {
        reply.map(2);
        reply.bulk("slots");
        reply.array(runs.len().saturating_mul(2));
        for run in &runs {
            reply.integer(i64::from(run.first));
            reply.integer(i64::from(run.last));
        }
        reply.bulk("nodes");
        let node = topology.nodes.get(master);
        reply.array(usize::from(node.is_some()));
        if let Some(node) = node {
            shard_node(node, reply);
        }
    }
}

fn shard_node(node: &TopologyNode, reply: &mut Encoder<'_>) {
    let ip = node.cluster.ip().to_string();
    reply.map(7);
    reply.bulk("id");
    reply.bulk(node.id.to_redis_hex());
    reply.bulk("port");
    reply.integer(i64::from(node.cluster.port()));
    for (name, value) in [("ip", ip.as_str()), ("endpoint", &ip), ("role", "master")] {
        reply.bulk(name);
        reply.bulk(value);
    }
    reply.bulk("replication-offset");
    reply.integer(0);
    reply.bulk("health");
    reply.bulk(if is_there(node.state) { "online" } else { "fail" });
}

fn nodes(topology: &Topology, reply: &mut Encoder<'_>) {
    let runs = by_master(topology);
    let mut text = String::new();
    for (place, node) in topology.nodes.iter().enumerate() {
        if node.state == MemberState::Left {
            continue;
        }
        let myself = if node.id == topology.me { "myself," } else { "" };
        let (failed, link) = match node.state {
            MemberState::Suspect => (",fail?", "connected"),
            MemberState::Dead => (",fail", "disconnected"),
            MemberState::Alive | MemberState::Left => ("", "connected"),
        };
        let _writing_to_a_string_works = write!(
            text,
            "{} {}@{} {myself}master{failed} - 0 0 1 {link}",
            node.id.to_redis_hex(),
            node.cluster,
            node.gossip.port(),
        );
        for Mastered { first, last, .. } in runs.get(&place).map_or(&[][..], Vec::as_slice) {
            let _writing_to_a_string_works = if first == last {
                write!(text, " {first}")
            } else {
                write!(text, " {first}-{last}")
            };
        }
        text.push('\n');
    }
    reply.verbatim(*b"txt", text);
}

fn info(topology: &Topology, reply: &mut Encoder<'_>) {
    let width = |range: &SlotRange| {
        u32::from(range.last.get().saturating_sub(range.first.get())).saturating_add(1)
    };
    let placed: u32 = topology.ranges.iter().map(width).sum();
    let served: u32 = mastered(topology)
        .iter()
        .map(|run| u32::from(run.last.saturating_sub(run.first)).saturating_add(1))
        .sum();
    let owners: std::collections::BTreeSet<usize> =
        topology.ranges.iter().filter_map(|range| range.nodes.first().copied()).collect();
    let state = if topology.ready && served == u32::from(SLOTS) { "ok" } else { "fail" };
    let known = topology.nodes.iter().filter(|node| node.state != MemberState::Left).count();
    let mut text = String::new();
    for (name, value) in [
        ("cluster_state", state.to_owned()),
        ("cluster_slots_assigned", placed.to_string()),
        ("cluster_slots_ok", served.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", placed.saturating_sub(served).to_string()),
        ("cluster_known_nodes", known.to_string()),
        ("cluster_size", owners.len().to_string()),
        // There is no agreed epoch; clients want to read a number.
        ("cluster_current_epoch", "1".to_owned()),
        ("cluster_my_epoch", "1".to_owned()),
        ("chickadee_placement_id", format!("{:016x}", topology.placement_id)),
    ] {
        let _writing_to_a_string_works = write!(text, "{name}:{value}\r\n");
    }
    reply.verbatim(*b"txt", text);
}
