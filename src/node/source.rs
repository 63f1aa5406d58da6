//! The node as admin sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::admin::Source;
use crate::admin::status::{
    Copy, Explained, Facts, Located, Member, MemberCounts, NodeStatus, Peer, Replica, Ring,
    RingNode, RingStatus, Role, SlotFilter, SlotRow, Stamp, Status, StoreStatus,
};
use crate::hlc;
use crate::members::MemberInfo;
use crate::tasks::BoxFuture;
use crate::transport::PeerStats;
use crate::types::{ClusterFacts, Db, MemberState, NodeId, Slot, WallMillis};

use super::Inner;

/// Admin's view of a running node.
pub(super) struct NodeSource(pub(super) Arc<Inner>);

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn name_of(member: &MemberInfo) -> String {
    match &member.meta {
        Some(meta) => meta.name.to_string(),
        None => member.identity.node.to_string().chars().take(8).collect(),
    }
}

impl NodeSource {
    fn peer_stats(&self) -> BTreeMap<NodeId, PeerStats> {
        self.0.transport.peer_stats().into_iter().map(|stats| (stats.node, stats)).collect()
    }

    pub(super) fn name(&self, node: NodeId) -> String {
        let view = self.0.shared.view();
        view.table.get(node).map_or_else(|| node.to_string(), name_of)
    }

    fn state(&self, node: NodeId) -> MemberState {
        let view = self.0.shared.view();
        view.table.get(node).map_or(MemberState::Dead, |member| member.state)
    }
}

impl Source for NodeSource {
    fn status(&self) -> Status {
        let node = &self.0;
        let view = node.shared.view();
        let mut members = MemberCounts::default();
        for member in &view.table.members {
            match member.state {
                MemberState::Alive => members.alive += 1,
                MemberState::Suspect => members.suspect += 1,
                MemberState::Dead => members.dead += 1,
                MemberState::Left => members.left += 1,
            }
        }
        let slots = node.shared.slot_counts();
        let totals = node.shared.store().totals(node.clock.wall());
        Status {
            node: NodeStatus {
                id: node.me.to_string(),
                name: node.config.node.name.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                zone: node.config.node.zone.as_ref().map(ToString::to_string),
                protocol: node.transport.protocols().newest,
            },
            cluster: view.table.facts.name.to_string(),
            ready: node.reasons().is_empty(),
            phase: view.phase,
            fenced: node.shared.fenced().map(|why| why.to_string()),
            members,
            ring: RingStatus {
                placement_id: view.placement.id().to_string(),
                nodes: count(view.placement.members().len()),
                slots_owned: count(slots.owned),
                slots_replica: count(slots.replica),
                slots_acting: count(slots.acting),
                slots_incomplete: count(slots.incomplete),
                slots_under_replicated: count(node.shared.progress().under_replicated),
            },
            store: StoreStatus {
                keys: totals.keys,
                tombstones: totals.tombstones,
                used_bytes: totals.used_bytes,
                limit_bytes: totals.limit_bytes,
            },
            uptime_seconds: node.uptime().as_secs_f64(),
            addresses: node.addresses,
        }
    }

    fn members(&self) -> Vec<Member> {
        let view = self.0.shared.view();
        let stats = self.peer_stats();
        let mut rows: Vec<Member> = view
            .table
            .members
            .iter()
            .map(|member| {
                let (identity, meta) = (&member.identity, member.meta.as_ref());
                let rtt = stats.get(&identity.node).and_then(|stats| stats.rtt);
                Member {
                    id: identity.node.to_string(),
                    name: name_of(member),
                    state: member.state,
                    phase: identity.phase,
                    since: Stamp(member.since),
                    gossip: identity.gossip,
                    peer: meta.map(|meta| meta.peer),
                    client: meta.map(|meta| meta.client),
                    cluster: meta.map(|meta| meta.cluster),
                    admin: meta.and_then(|meta| meta.admin),
                    zone: meta.and_then(|meta| meta.zone.as_ref()).map(ToString::to_string),
                    weight: identity.weight.get(),
                    generation: identity.generation.0,
                    version: meta.map(|meta| meta.version.clone()),
                    rtt_seconds: rtt.map(|rtt| rtt.as_secs_f64()),
                    is_self: identity.node == view.me,
                }
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    fn peers(&self) -> Vec<Peer> {
        let view = self.0.shared.view();
        let stats = self.peer_stats();
        let mut rows: Vec<Peer> = view
            .table
            .members
            .iter()
            .filter(|member| member.identity.node != view.me)
            .map(|member| {
                let node = member.identity.node;
                let (stats, meta) = (stats.get(&node), member.meta.as_ref());
                Peer {
                    id: node.to_string(),
                    name: name_of(member),
                    state: member.state,
                    address: meta.map(|meta| meta.peer),
                    zone: meta.and_then(|meta| meta.zone.as_ref()).map(ToString::to_string),
                    version: meta.map(|meta| meta.version.clone()),
                    connected: stats.is_some_and(|stats| stats.up),
                    rtt_seconds: stats.and_then(|stats| stats.rtt).map(|rtt| rtt.as_secs_f64()),
                    queue_bytes: self.0.shared.queued_bytes(node) as u64,
                    dirty_slots: count(self.0.shared.dirty_slots(node)),
                    last_seen: self.0.shared.last_told(node).map(Stamp),
                    clock_offset_seconds: self.0.shared.clock_offset(node),
                    last_error: None,
                }
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    fn ring(&self) -> Ring {
        let view = self.0.shared.view();
        let mut places: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
        for slot in Slot::all() {
            for (place, node) in view.placement.replica_set(slot).enumerate() {
                let counts = places.entry(node).or_default();
                if place == 0 {
                    counts.0 += 1;
                } else {
                    counts.1 += 1;
                }
            }
        }
        let nodes = view
            .placement
            .members()
            .iter()
            .map(|member| {
                let (owned, replica) = places.get(&member.node).copied().unwrap_or_default();
                let known = view.table.get(member.node);
                let zone = known.and_then(|known| known.meta.as_ref()?.zone.clone());
                RingNode {
                    id: member.node.to_string(),
                    name: self.name(member.node),
                    zone: zone.map(|zone| zone.to_string()),
                    weight: member.weight.get(),
                    slots_owned: owned,
                    slots_replica: replica,
                }
            })
            .collect();
        Ring {
            placement_id: view.placement.id().to_string(),
            replicas: view.table.facts.replicas,
            nodes,
        }
    }

    fn locate(&self, key: &[u8]) -> Located {
        let (slot, replicas) = self.0.shared.locate_key(key);
        let replicas = replicas
            .into_iter()
            .map(|replica| Replica {
                id: replica.node.to_string(),
                name: self.name(replica.node),
                role: if replica.owner { Role::Owner } else { Role::Replica },
                state: self.state(replica.node),
                complete: replica.complete,
                acting: replica.acting,
            })
            .collect();
        Located { key: String::from_utf8_lossy(key).into_owned(), slot: slot.get(), replicas }
    }

    fn explain(&self, db: Db, key: Bytes) -> BoxFuture<'_, Explained> {
        Box::pin(async move {
            let (slot, reports) = self.0.control.explain(db, &key).await;
            let set: Vec<NodeId> = self.0.shared.view().placement.replica_set(slot).collect();
            let mut copies: Vec<(usize, Copy)> = reports
                .into_iter()
                .filter_map(|report| {
                    let place = set.iter().position(|node| *node == report.node);
                    let (copy, error) = match report.copy {
                        Ok(copy) => (Some(copy), None),
                        Err(error) => (None, Some(error.to_string())),
                    };
                    // Former holders are shown as long as they have something.
                    let shown = place.is_some() || copy.as_ref().is_some_and(|copy| copy.present);
                    shown.then(|| {
                        let version = copy.as_ref().and_then(|copy| copy.version);
                        let row = Copy {
                            name: self.name(report.node),
                            present: copy.as_ref().is_some_and(|copy| copy.present),
                            version: version.map(version_text),
                            expires_at: copy.as_ref().and_then(|copy| copy.expires_at).map(Stamp),
                            bytes: copy.as_ref().map(|copy| copy.bytes),
                            error,
                        };
                        (place.unwrap_or(usize::MAX), row)
                    })
                })
                .collect();
            copies.sort_by(|(a, row), (b, other)| (a, &row.name).cmp(&(b, &other.name)));
            Explained {
                key: String::from_utf8_lossy(&key).into_owned(),
                slot: slot.get(),
                copies: copies.into_iter().map(|(_, copy)| copy).collect(),
            }
        })
    }

    fn slots(&self, filter: SlotFilter) -> Vec<SlotRow> {
        let wanted = (filter.from..=filter.to).filter_map(Slot::new);
        self.0
            .shared
            .slot_reports(wanted)
            .into_iter()
            .map(|report| SlotRow {
                slot: report.slot.get(),
                role: report.owner.map(|owner| if owner { Role::Owner } else { Role::Replica }),
                acting: report.acting,
                complete: report.complete,
                keys: report.keys,
                digest: format!("{:016x}", report.digest),
                as_of: (report.as_of > 0).then(|| Stamp(hlc::wall_of(report.as_of))),
            })
            .filter(|row| filter.role.is_none() || row.role == filter.role)
            .collect()
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        let reasons = self.0.reasons();
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    fn metrics(&self) -> String {
        self.0.render_metrics()
    }

    fn facts(&self) -> Facts {
        shown_facts(&self.0.shared.view().table.facts)
    }

    fn certificate_ends(&self) -> Vec<(&'static str, f64)> {
        let seconds = |end: WallMillis| Duration::from_millis(end.0).as_secs_f64();
        self.0.certificate_ends().map(|(used_for, end)| (used_for, seconds(end))).collect()
    }
}

/// The cluster's facts as admin shows them.
pub(super) fn shown_facts(facts: &ClusterFacts) -> Facts {
    Facts {
        name: facts.name.to_string(),
        replicas: facts.replicas,
        virtual_nodes: facts.virtual_nodes,
        ring_grace_seconds: facts.ring_grace.as_secs_f64(),
        tombstone_grace_seconds: facts.tombstone_grace.as_secs_f64(),
        revision: facts.revision,
    }
}

fn version_text(version: crate::types::Version) -> String {
    format!("{:04x}-{:012x}-{:08x}", version.term, version.clock, version.origin)
}
