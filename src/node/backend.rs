//! The cluster as the Redis front end sees it: commands on keys, topology, figures.

use std::sync::{Arc, Mutex};

use crate::cluster::{Cache, CommandCall, Started, View};
use crate::persist::machine::resident_memory;
use crate::ring::slot_of;
use crate::server::{Backend, DatabaseFacts, ServerFacts, SlotRange, Topology, TopologyNode};
use crate::store::Store;
use crate::tasks::lock;
use crate::types::{ByteSize, Db, Instant, Slot};

use super::Inner;

/// One thread's front end.
pub(super) struct FrontEnd {
    cache: Cache,
    node: Arc<Inner>,
    /// The topology of the last view, and whether the node was ready then.
    topology: Mutex<Option<(Arc<View>, Arc<Topology>)>>,
}

impl FrontEnd {
    pub(super) fn new(cache: Cache, node: Arc<Inner>) -> Self {
        Self { cache, node, topology: Mutex::default() }
    }
}

impl Backend for FrontEnd {
    fn start(&self, call: &CommandCall<'_>, out: &mut Vec<u8>) -> Started {
        self.cache.start(call, out)
    }

    fn warm(&self, db: Db, keys: &mut dyn Iterator<Item = &[u8]>) {
        self.cache.warm(db, keys);
    }

    fn slot_of(&self, key: &[u8]) -> Slot {
        slot_of(key)
    }

    fn wake(&self, now: Instant) -> u64 {
        self.node.shared.wake(now)
    }

    fn topology(&self) -> Arc<Topology> {
        let view = self.cache.view();
        let ready = self.node.reasons().is_empty();
        let mut cached = lock(&self.topology);
        if let Some((of, topology)) = cached.as_ref()
            && Arc::ptr_eq(of, &view)
            && topology.ready == ready
        {
            return Arc::clone(topology);
        }
        let topology = Arc::new(topology(&view, ready));
        *cached = Some((view, Arc::clone(&topology)));
        topology
    }

    fn facts(&self) -> ServerFacts {
        let node = &self.node;
        let totals = node.shared.store().totals(node.clock.wall());
        let counts = node.shared.counts();
        let held = Db::all().zip(totals.dbs).filter(|(_, held)| held.keys > 0);
        let databases = held.map(|(db, _)| acted_for(node.shared.store(), db)).collect();
        ServerFacts {
            node: node.me,
            name: node.config.node.name.clone(),
            run_id: format!("{:016x}{:024x}", node.generation.0, node.me.0 & 0xffff_ffff_ffff),
            uptime: node.uptime(),
            client: node.addresses.client,
            cluster: node.addresses.cluster,
            ready: node.reasons().is_empty(),
            memory_used: ByteSize(totals.used_bytes),
            memory_entries: ByteSize(totals.memory.entries),
            memory_resident: resident_memory(),
            memory_limit: ByteSize(totals.limit_bytes),
            memory_policy: node.config.memory.policy,
            databases,
            hits: totals.reads.hits,
            misses: totals.reads.misses,
            expired: counts.expired,
            evicted: counts.evicted,
        }
    }
}

/// A database in the slots that this node acts for: the figures of all nodes add up to the cluster's.
fn acted_for(store: &Store, db: Db) -> DatabaseFacts {
    let mut facts = DatabaseFacts { db, keys: 0, expires: 0 };
    for index in 0..store.shards() {
        let shard = store.lock_shard(index);
        for (_, header) in shard.headers().filter(|(_, header)| header.acting) {
            facts.keys += u64::from(header.keys_in(db));
            facts.expires += u64::from(header.expiring_in(db));
        }
    }
    facts
}

/// The cluster as clients are shown it.
fn topology(view: &View, ready: bool) -> Topology {
    let nodes: Vec<TopologyNode> = view
        .table
        .members
        .iter()
        .filter_map(|member| {
            let meta = member.meta.as_ref()?;
            Some(TopologyNode {
                id: member.identity.node,
                name: meta.name.clone(),
                cluster: meta.cluster,
                cluster_tls: meta.cluster_tls,
                gossip: member.identity.gossip,
                state: member.state,
            })
        })
        .collect();
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in Slot::all() {
        let set: Vec<usize> = view
            .placement
            .replica_set(slot)
            .filter_map(|node| nodes.iter().position(|known| known.id == node))
            .collect();
        match ranges.last_mut() {
            Some(range) if range.nodes == set => range.last = slot,
            _ => ranges.push(SlotRange { first: slot, last: slot, nodes: set }),
        }
    }
    ranges.retain(|range| !range.nodes.is_empty());
    let (me, placement_id) = (view.me, view.placement.id().get());
    Topology { me, nodes, ranges, ready, placement_id }
}
