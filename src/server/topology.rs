//! `CLUSTER`: members and slots in the words of Redis Cluster.
//!
//! Each node is the master of the slots it owns, and nobody's replica: every node would be both, and
//! clients take a node that they first meet as a replica for nothing else. (Measured with redis-py:
//! DBSIZE, SCAN and FLUSHALL went to one node of three.) Any node answers for any slot, so replicas
//! would give clients nothing. What is dead is left out, so that a client never starts with it. Hosts are always explicit: an empty
//! one ends some client libraries.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
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

/// Which reply, in which protocol, and whether over TLS.
type Asked = (Id, Proto, bool);

#[derive(Debug)]
struct Cached {
    topology: Arc<Topology>,
    replies: Vec<(Asked, Bytes)>,
}

impl ReplyCache {
    fn reply(
        &self,
        topology: &Arc<Topology>,
        key: Asked,
        encode: impl FnOnce(&mut Vec<u8>),
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
        encode(&mut out);
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
    let (topology, proto) = (context.backend.topology(), reply.proto());
    if !context.client.is_tls() {
        let write = |out: &mut Vec<u8>| encode(&topology, &mut Encoder::new(out, proto));
        let key = (row.id, proto, false);
        reply.encoded(&context.server.cluster_replies.reply(&topology, key, write));
        return Ok(());
    }
    if my_tls_port(&topology).is_none() {
        // Not kept: it differs with the address that the client came to.
        encode(&over_tls(&topology, context.client.to()), reply);
        return Ok(());
    }
    let write = |out: &mut Vec<u8>| {
        encode(&over_tls(&topology, context.client.to()), &mut Encoder::new(out, proto));
    };
    let key = (row.id, proto, true);
    reply.encoded(&context.server.cluster_replies.reply(&topology, key, write));
    Ok(())
}

/// Where cluster clients reach this node over TLS.
fn my_tls_port(topology: &Topology) -> Option<SocketAddr> {
    topology.nodes.iter().find(|node| node.id == topology.me)?.cluster_tls
}

/// The cluster as a client over TLS reaches it: each node by its TLS port. For those whose port is
/// not known this node stands in, which serves every key; if it has no such port itself, it is the only
/// one, at `here`, where the client came to.
fn over_tls(topology: &Topology, here: SocketAddr) -> Topology {
    let mine = my_tls_port(topology);
    let mut places = Vec::with_capacity(topology.nodes.len());
    let mut nodes = Vec::new();
    let mut me = None;
    for node in &topology.nodes {
        let is_me = node.id == topology.me;
        let port = if is_me { Some(mine.unwrap_or(here)) } else { mine.and(node.cluster_tls) };
        places.push(port.map(|_| nodes.len()));
        if is_me {
            me = Some(nodes.len());
        }
        nodes.extend(port.map(|cluster| TopologyNode { cluster, ..node.clone() }));
    }
    let known = |place: &usize| places.get(*place).copied().flatten();
    let ranges = topology.ranges.iter().map(|range| {
        let mut set: Vec<usize> = range.nodes.iter().filter_map(known).collect();
        set.extend(me.filter(|me| !set.contains(me)));
        SlotRange { nodes: set, ..range.clone() }
    });
    let ranges = ranges.collect();
    Topology { nodes, ranges, ..topology.clone() }
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
