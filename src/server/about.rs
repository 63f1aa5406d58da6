//! Commands about the node: `INFO`, `CONFIG GET`, `TIME`, `ROLE`, and the help of containers.

use std::fmt::Write as _;

use crate::command::{CommandError, Id, Row, glob, table};
use crate::config::MemoryPolicy;
use crate::resp::{Encoder, errors};
use crate::server::acl;
use crate::server::local::{After, Context, Refusal};
use crate::server::{CHICKADEE_VERSION, Port, REDIS_VERSION, ServerFacts, describe, topology};
use crate::types::Db;

/// Runs a command about the node and appends its reply.
pub(super) fn run(row: &Row, args: &[&[u8]], context: &Context<'_>, out: &mut Vec<u8>) -> After {
    let mut reply = Encoder::new(out, context.session.proto);
    if let Err(refusal) = execute(row, args, context, &mut reply) {
        refusal.encode(&mut reply);
    }
    After::Continue
}

fn execute(
    row: &Row,
    args: &[&[u8]],
    context: &Context<'_>,
    reply: &mut Encoder<'_>,
) -> Result<(), Refusal> {
    match (row.id, args) {
        (Id::Info, [_, sections @ ..]) => {
            reply.verbatim(*b"txt", info(sections, context));
            Ok(())
        }
        (Id::ConfigGet, [_, _, patterns @ ..]) => {
            config_get(patterns, context, reply);
            Ok(())
        }
        (Id::Time, _) => {
            time(context, reply);
            Ok(())
        }
        (Id::Role, _) => {
            // A master without replicas of Redis's kind.
            reply.array(3);
            reply.bulk("master");
            reply.integer(0);
            reply.array(0);
            Ok(())
        }
        (Id::ConfigHelp, _) => {
            help("config", reply);
            Ok(())
        }
        (Id::ClusterHelp, _) => {
            help("cluster", reply);
            Ok(())
        }
        (Id::ObjectHelp, _) => {
            help("object", reply);
            Ok(())
        }
        (Id::MemoryHelp, _) => {
            help("memory", reply);
            Ok(())
        }
        (Id::Config, [_, sub, ..]) => Err(Refusal::Text(errors::unknown_subcommand(row.name, sub))),
        _ if row.name.starts_with("acl") => acl::run(row, args, context, reply),
        _ if row.name.starts_with("cluster") => topology::run(row, args, context, reply),
        _ if row.name.starts_with("command") => describe::run(row, args, reply),
        _ => Err(CommandError::WrongArity(row.name).into()),
    }
}

/// What kind of Redis a port looks like.
pub(super) const fn mode(port: Port) -> &'static str {
    match port {
        Port::Client => "standalone",
        Port::Cluster => "cluster",
    }
}

/// The help of a container, from its rows.
pub(super) fn help(container: &str, reply: &mut Encoder<'_>) {
    let rows = table::lookup(container.as_bytes()).map_or(&[][..], |row| row.subcommands);
    reply.array(rows.len().saturating_mul(2).saturating_add(1));
    reply.simple(&format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.to_ascii_uppercase()
    ));
    for row in rows {
        reply.simple(&row.last_name().to_ascii_uppercase());
        reply.simple(&format!("    {}.", row.summary));
    }
}

fn time(context: &Context<'_>, reply: &mut Encoder<'_>) {
    let now = context.server.clock.wall().0;
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(now / 1000));
    reply.bulk(itoa::Buffer::new().format(now % 1000 * 1000));
}

const fn policy(policy: MemoryPolicy) -> &'static str {
    match policy {
        // Redis has no name for S3-FIFO; of those that clients know this says the same: uses are counted.
        MemoryPolicy::Evict => "allkeys-lfu",
        MemoryPolicy::Refuse => "noeviction",
    }
}

/// Every parameter that clients ask for, with its value.
fn parameters(context: &Context<'_>) -> Vec<(&'static str, String)> {
    let facts = context.backend.facts();
    let live = context.server.live();
    let config = &live.config;
    vec![
        ("appendonly", "no".to_owned()),
        ("databases", Db::COUNT.to_string()),
        ("maxclients", config.max_clients.to_string()),
        ("maxmemory", facts.memory_limit.0.to_string()),
        ("maxmemory-policy", policy(facts.memory_policy).to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", context.client.to().port().to_string()),
        ("proto-max-bulk-len", config.max_value_size.0.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", config.idle_timeout.as_secs().to_string()),
    ]
}

fn config_get(patterns: &[&[u8]], context: &Context<'_>, reply: &mut Encoder<'_>) {
    let patterns: Vec<Vec<u8>> = patterns.iter().map(|text| text.to_ascii_lowercase()).collect();
    let asked = |name: &str| patterns.iter().any(|text| glob::matches(text, name.as_bytes()));
    let found: Vec<(&str, String)> =
        parameters(context).into_iter().filter(|(name, _)| asked(name)).collect();
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name);
        reply.bulk(value);
    }
}

/// A section of `INFO`: its name and how it is written.
type Section = (&'static str, fn(&Context<'_>, &ServerFacts, &mut String));

const SECTIONS: [Section; 8] = [
    ("Server", server_section),
    ("Clients", clients_section),
    ("Memory", memory_section),
    ("Persistence", persistence_section),
    ("Stats", stats_section),
    ("Replication", replication_section),
    ("Cluster", cluster_section),
    ("Keyspace", keyspace_section),
];

fn info(asked: &[&[u8]], context: &Context<'_>) -> String {
    let facts = context.backend.facts();
    let is = |name: &str| asked.iter().any(|text| text.eq_ignore_ascii_case(name.as_bytes()));
    let all = asked.is_empty() || is("all") || is("default") || is("everything");
    let mut text = String::new();
    for (name, write) in SECTIONS {
        if !all && !is(name) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let _writing_to_a_string_works = write!(text, "# {name}\r\n");
        write(context, &facts, &mut text);
    }
    text
}

/// Appends `name:value` lines.
macro_rules! lines {
    ($text:expr, $($name:literal: $value:expr),+ $(,)?) => {
        $(let _writing_to_a_string_works = write!($text, concat!($name, ":{}\r\n"), $value);)+
    };
}

fn server_section(context: &Context<'_>, facts: &ServerFacts, text: &mut String) {
    let seconds = facts.uptime.as_secs();
    lines!(text,
        "redis_version": REDIS_VERSION,
        "chickadee_version": CHICKADEE_VERSION,
        "redis_mode": mode(context.port),
        "os": std::env::consts::OS,
        "arch_bits": usize::BITS,
        "process_id": std::process::id(),
        "run_id": facts.run_id,
        "tcp_port": context.client.to().port(),
        "server_time_usec": context.server.clock.wall().0.saturating_mul(1000),
        "uptime_in_seconds": seconds,
        "uptime_in_days": seconds / 86_400,
    );
}

fn clients_section(context: &Context<'_>, _: &ServerFacts, text: &mut String) {
    let clients = context.server.clients();
    lines!(text,
        "connected_clients": clients.count(),
        "cluster_connections": clients.count_on(Port::Cluster),
        "maxclients": context.server.live().config.max_clients,
        "blocked_clients": 0,
        "tracking_clients": 0,
    );
}

/// `used_memory` is what the budget is charged: it is the store's alone, and not the allocator's.
#[expect(clippy::cast_precision_loss, reason = "two places are shown")]
fn memory_section(_: &Context<'_>, facts: &ServerFacts, text: &mut String) {
    let used = facts.memory_used.0;
    lines!(text,
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_overhead": used.saturating_sub(facts.memory_entries.0),
        "used_memory_dataset": facts.memory_entries.0,
    );
    if let Some(resident) = facts.memory_resident {
        lines!(text,
            "used_memory_rss": resident.0,
            "used_memory_rss_human": human(resident.0),
            "mem_fragmentation_ratio": format!("{:.2}", resident.0 as f64 / used.max(1) as f64),
        );
    }
    lines!(text,
        "maxmemory": facts.memory_limit.0,
        "maxmemory_human": human(facts.memory_limit.0),
        "maxmemory_policy": policy(facts.memory_policy),
    );
}

/// A size as `INFO` writes it for people.
#[expect(clippy::cast_precision_loss, reason = "two places are shown")]
fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

fn persistence_section(_: &Context<'_>, _: &ServerFacts, text: &mut String) {
    lines!(text, "loading": 0, "async_loading": 0, "aof_enabled": 0);
}

fn stats_section(context: &Context<'_>, facts: &ServerFacts, text: &mut String) {
    let server = context.server;
    let errors: u64 = server.stats().errors().map(|(_, count)| count).sum();
    lines!(text,
        "total_connections_received": server.clients().accepted(),
        "total_commands_processed": server.stats().total_calls(),
        "expired_keys": facts.expired,
        "evicted_keys": facts.evicted,
        "keyspace_hits": facts.hits,
        "keyspace_misses": facts.misses,
        "pubsub_channels": 0,
        "pubsub_patterns": 0,
        "total_error_replies": errors,
    );
}

fn replication_section(_: &Context<'_>, facts: &ServerFacts, text: &mut String) {
    lines!(text,
        "role": "master",
        "connected_slaves": 0,
        "master_replid": facts.run_id,
        "master_repl_offset": 0,
    );
}

fn cluster_section(context: &Context<'_>, _: &ServerFacts, text: &mut String) {
    lines!(text, "cluster_enabled": u8::from(context.port == Port::Cluster));
}

fn keyspace_section(_: &Context<'_>, facts: &ServerFacts, text: &mut String) {
    for database in facts.databases.iter().filter(|database| database.keys > 0) {
        let _writing_to_a_string_works = write!(
            text,
            "db{}:keys={},expires={},avg_ttl=0\r\n",
            database.db.get(),
            database.keys,
            database.expires
        );
    }
}
