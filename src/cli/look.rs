//! Verbs that show what a node sees.

use std::time::Duration;

use serde::Serialize;

use crate::admin::stats::Stats;
use crate::admin::status::{
    Explained, Facts, Located, Member, Peer, Ring, Role, Slots, Stamp, Status,
};
use crate::cli::args::{Look, RingVerb, Watch};
use crate::cli::ask::{Ask, query_escaped};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Page, printable, span};
use crate::clock::{Clock, SystemClock};
use crate::types::ByteSize;
use crate::types::units::format_span;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// `status`: exit 1 if the node is not ready.
pub(super) async fn status(ask: &Ask, output: Output) -> Result<(), Failure> {
    let status: Status = ask.get("/v1/status").await?;
    output.page(&status_page(&status))?;
    if status.ready { Ok(()) } else { Err(Failure::Unhealthy) }
}

/// The other verbs that look.
pub(super) async fn look(ask: &Ask, look: &Look, output: Output) -> Result<(), Failure> {
    let watch = match look {
        Look::Members { watch }
        | Look::Ring { watch, verb: _ }
        | Look::Slots { watch }
        | Look::Peers { watch }
        | Look::Stats { watch } => *watch,
        Look::Explain { key: _, db: _ } => Watch { watch: false },
    };
    if !watch.watch {
        return output.page(&page(ask, look).await?);
    }
    loop {
        output.redraw(&page(ask, look).await?)?;
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// `cluster show`.
pub(super) async fn cluster(ask: &Ask, output: Output) -> Result<(), Failure> {
    output.page(&facts_page(&ask.get("/v1/cluster").await?))
}

/// What the cluster agrees on; spans stand as they are set.
pub(super) fn facts_page(facts: &Facts) -> Page {
    let span = |seconds: f64| format_span(Duration::from_secs_f64(seconds));
    let rows = [
        ("name", facts.name.clone()),
        ("replicas", facts.replicas.to_string()),
        ("virtual_nodes", facts.virtual_nodes.to_string()),
        ("ring_grace", span(facts.ring_grace_seconds)),
        ("tombstone_grace", span(facts.tombstone_grace_seconds)),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]).to_vec();
    Page { json: json(facts), head: &[], rows }
}

async fn page(ask: &Ask, look: &Look) -> Result<Page, Failure> {
    Ok(match look {
        Look::Members { .. } => members_page(&ask.get::<Vec<Member>>("/v1/members").await?),
        Look::Ring { verb: None, .. } => ring_page(&ask.get("/v1/ring").await?),
        Look::Ring { verb: Some(RingVerb::Locate { key }), .. } => {
            let path = format!("/v1/ring/locate?key={}", query_escaped(key));
            located_page(&ask.get(&path).await?)
        }
        Look::Slots { .. } => slots_page(&ask.get("/v1/slots").await?),
        Look::Peers { .. } => peers_page(&ask.get::<Vec<Peer>>("/v1/peers").await?),
        Look::Stats { .. } => stats_page(&ask.get("/v1/stats").await?),
        Look::Explain { key, db } => {
            let path = format!("/v1/explain?db={}&key={}", db.get(), query_escaped(key));
            explained_page(&ask.get(&path).await?)
        }
    })
}

fn json(of: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(of).expect("plain structs can be written as JSON")
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn role(role: Option<Role>) -> String {
    match role {
        Some(Role::Owner) => "owner",
        Some(Role::Replica) => "replica",
        None => "-",
    }
    .to_owned()
}

fn since(stamp: Stamp) -> String {
    let millis = SystemClock::new().wall().saturating_since(stamp.0);
    span(Duration::from_millis(millis).as_secs_f64())
}

fn status_page(status: &Status) -> Page {
    let Status { node, members, ring, store, addresses, .. } = status;
    let state = match (&status.fenced, status.ready) {
        (Some(reason), _) => format!("fenced ({reason})"),
        (None, true) => "ready".to_owned(),
        (None, false) => "not ready".to_owned(),
    };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = vec![
        row("node", format!("{} ({}), version {}", node.name, node.id, node.version)),
        row("cluster", status.cluster.clone()),
        row("state", format!("{state}, {}, up {}", status.phase, span(status.uptime_seconds))),
        row(
            "members",
            format!(
                "{} alive, {} suspect, {} dead, {} left",
                members.alive, members.suspect, members.dead, members.left
            ),
        ),
        row("placement", format!("{} of {} nodes", ring.placement_id, ring.nodes)),
        row(
            "slots",
            format!(
                "{} owned, {} replica, {} acting, {} incomplete, {} short of copies",
                ring.slots_owned,
                ring.slots_replica,
                ring.slots_acting,
                ring.slots_incomplete,
                ring.slots_under_replicated
            ),
        ),
        row("keys", format!("{} and {} tombstones", store.keys, store.tombstones)),
        row("memory", format!("{} of {}", ByteSize(store.used_bytes), ByteSize(store.limit_bytes))),
        row("clients", addresses.client.to_string()),
        row("cluster clients", addresses.cluster.to_string()),
        row(
            "over TLS",
            format!("{}, {}", or_dash(addresses.client_tls), or_dash(addresses.cluster_tls)),
        ),
        row("gossip, peers", format!("{}, {}", addresses.gossip, addresses.peer)),
        row("admin", or_dash(addresses.admin)),
    ];
    Page { json: json(status), head: &[], rows }
}

fn members_page(members: &Vec<Member>) -> Page {
    let row = |member: &Member| {
        let own = if member.is_self { " (this node)" } else { "" };
        vec![
            format!("{}{own}", member.name),
            member.gossip.to_string(),
            member.state.to_string(),
            member.phase.to_string(),
            since(member.since),
            or_dash(member.rtt_seconds.map(span)),
            or_dash(member.zone.as_ref()),
            or_dash(member.client),
            or_dash(member.version.as_ref()),
        ]
    };
    Page {
        json: json(members),
        head: &["NODE", "GOSSIP", "STATE", "PHASE", "SINCE", "RTT", "ZONE", "CLIENTS", "VERSION"],
        rows: members.iter().map(row).collect(),
    }
}

fn ring_page(ring: &Ring) -> Page {
    let rows = ring
        .nodes
        .iter()
        .map(|node| {
            vec![
                node.name.clone(),
                or_dash(node.zone.as_ref()),
                node.weight.to_string(),
                node.slots_owned.to_string(),
                node.slots_replica.to_string(),
            ]
        })
        .collect();
    let head = &["NODE", "ZONE", "WEIGHT", "OWNER OF", "REPLICA OF"];
    Page { json: json(ring), head, rows }
}

fn located_page(located: &Located) -> Page {
    let row = |replica: &crate::admin::status::Replica| {
        vec![
            located.slot.to_string(),
            replica.name.clone(),
            role(Some(replica.role)),
            replica.state.to_string(),
            yes(replica.complete),
            yes(replica.acting),
        ]
    };
    let head = &["SLOT", "NODE", "ROLE", "STATE", "COMPLETE", "ACTING"];
    Page { json: json(located), head, rows: located.replicas.iter().map(row).collect() }
}

fn slots_page(slots: &Slots) -> Page {
    let row = |slot: &crate::admin::status::SlotRow| {
        vec![
            slot.slot.to_string(),
            role(slot.role),
            yes(slot.acting),
            yes(slot.complete),
            slot.keys.to_string(),
            slot.digest.clone(),
        ]
    };
    let head = &["SLOT", "ROLE", "ACTING", "COMPLETE", "KEYS", "DIGEST"];
    Page { json: json(slots), head, rows: slots.slots.iter().map(row).collect() }
}

fn peers_page(peers: &Vec<Peer>) -> Page {
    let row = |peer: &Peer| {
        vec![
            peer.name.clone(),
            or_dash(peer.address),
            peer.state.to_string(),
            yes(peer.connected),
            or_dash(peer.rtt_seconds.map(span)),
            ByteSize(peer.queue_bytes).to_string(),
            or_dash(peer.last_error.as_ref().map(|error| printable(error.as_bytes()))),
        ]
    };
    let head = &["PEER", "ADDRESS", "STATE", "CONNECTED", "RTT", "QUEUE", "LAST ERROR"];
    Page { json: json(peers), head, rows: peers.iter().map(row).collect() }
}

fn stats_page(stats: &Stats) -> Page {
    let rows = stats.0.iter().map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
    Page { json: json(stats), head: &[], rows }
}

fn explained_page(explained: &Explained) -> Page {
    let row = |copy: &crate::admin::status::Copy| {
        let present = match &copy.error {
            Some(error) => printable(error.as_bytes()),
            None => yes(copy.present),
        };
        vec![
            explained.slot.to_string(),
            copy.name.clone(),
            present,
            or_dash(copy.version.as_ref()),
            or_dash(copy.expires_at),
            or_dash(copy.bytes),
        ]
    };
    let head = &["SLOT", "NODE", "PRESENT", "VERSION", "EXPIRES", "BYTES"];
    Page { json: json(explained), head, rows: explained.copies.iter().map(row).collect() }
}
