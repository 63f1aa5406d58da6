//! `COMMAND` and its subcommands, from the table.

use crate::command::{CommandError, Id, Row, glob, parse, table};
use crate::resp::Encoder;
use crate::server::about;
use crate::server::local::{Refusal, SYNTAX};

pub(super) fn run(row: &Row, args: &[&[u8]], reply: &mut Encoder<'_>) -> Result<(), Refusal> {
    match (row.id, args.get(2..).unwrap_or_default()) {
        (Id::Command, _) | (Id::CommandInfo, []) => {
            reply.array(table::ROWS.len());
            for row in table::ROWS {
                describe(row, reply);
            }
        }
        (Id::CommandInfo, names) => {
            reply.array(names.len());
            for name in names {
                match named(name) {
                    Some(row) => describe(row, reply),
                    None => reply.null(),
                }
            }
        }
        (Id::CommandCount, _) => reply.count(table::ROWS.len()),
        (Id::CommandDocs, names) => docs(names, reply),
        (Id::CommandList, filter) => list(filter, reply)?,
        (Id::CommandGetKeys, request) => {
            let (_, keys) = parse::quoted_keys(request)?;
            reply.array(keys.len());
            for key in keys {
                reply.bulk(key);
            }
        }
        (Id::CommandGetKeysAndFlags, request) => {
            let (row, keys) = parse::quoted_keys(request)?;
            reply.array(keys.len());
            for key in keys {
                reply.array(2);
                reply.bulk(key);
                words(parse::access(row, request).iter(), reply);
            }
        }
        (Id::CommandHelp, _) => about::help("command", reply),
        _ => return Err(CommandError::WrongArity(row.name).into()),
    }
    Ok(())
}

/// The row of `name` or `container|subcommand`.
fn named(name: &[u8]) -> Option<&'static Row> {
    match name.iter().position(|byte| *byte == b'|') {
        None => table::lookup(name),
        Some(at) => {
            let (container, rest) = name.split_at(at);
            table::lookup_subcommand(table::lookup(container)?, rest.get(1..)?)
        }
    }
}

/// A set of statuses.
fn words(words: impl Iterator<Item = impl AsRef<str>>, reply: &mut Encoder<'_>) {
    let words: Vec<_> = words.collect();
    reply.set(words.len());
    for word in words {
        reply.simple(word.as_ref());
    }
}

/// The ten parts by which client libraries route.
fn describe(row: &Row, reply: &mut Encoder<'_>) {
    reply.array(10);
    reply.bulk(row.name);
    reply.integer(i64::from(row.arity));
    words(row.flags.words(), reply);
    reply.integer(i64::from(row.keys.first));
    reply.integer(i64::from(row.keys.last));
    reply.integer(i64::from(row.keys.step));
    words(row.categories().map(|name| format!("@{name}")), reply);
    reply.set(row.tips.len());
    row.tips.iter().for_each(|tip| reply.bulk(tip));
    if row.keys.first == 0 {
        reply.set(0);
    } else {
        reply.set(1);
        key_spec(row, reply);
    }
    if row.subcommands.is_empty() {
        reply.set(0);
    } else {
        reply.array(row.subcommands.len());
        row.subcommands.iter().for_each(|row| describe(row, reply));
    }
}

fn key_spec(row: &Row, reply: &mut Encoder<'_>) {
    // What a range calls its last key counts from its first.
    let last = if row.keys.last < 0 { i64::from(row.keys.last) } else { 0 };
    reply.map(3);
    reply.bulk("flags");
    words(row.keys.access.iter(), reply);
    reply.bulk("begin_search");
    reply.map(2);
    reply.bulk("type");
    reply.bulk("index");
    reply.bulk("spec");
    reply.map(1);
    reply.bulk("index");
    reply.integer(i64::from(row.keys.first));
    reply.bulk("find_keys");
    reply.map(2);
    reply.bulk("type");
    reply.bulk("range");
    reply.bulk("spec");
    reply.map(3);
    for (name, value) in [("lastkey", last), ("keystep", i64::from(row.keys.step)), ("limit", 0)] {
        reply.bulk(name);
        reply.integer(value);
    }
}

fn docs(names: &[&[u8]], reply: &mut Encoder<'_>) {
    let rows: Vec<&Row> = if names.is_empty() {
        table::ROWS.iter().collect()
    } else {
        names.iter().filter_map(|name| named(name)).collect()
    };
    reply.map(rows.len());
    for row in rows {
        document(row, reply);
    }
}

fn document(row: &Row, reply: &mut Encoder<'_>) {
    reply.bulk(row.name);
    let container = !row.subcommands.is_empty();
    reply.map(if container { 4 } else { 3 });
    for (name, value) in
        [("summary", row.summary), ("since", row.since), ("group", row.group.as_str())]
    {
        reply.bulk(name);
        reply.bulk(value);
    }
    if container {
        reply.bulk("subcommands");
        reply.map(row.subcommands.len());
        row.subcommands.iter().for_each(|row| document(row, reply));
    }
}

fn list(filter: &[&[u8]], reply: &mut Encoder<'_>) -> Result<(), Refusal> {
    let with_subcommands =
        || table::ROWS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    let names: Vec<&str> = match filter {
        [] => table::ROWS.iter().map(|row| row.name).collect(),
        [by, kind, value] if by.eq_ignore_ascii_case(b"FILTERBY") => {
            let value = value.to_ascii_lowercase();
            let wanted: Box<dyn Fn(&Row) -> bool> = match kind.to_ascii_lowercase().as_slice() {
                b"module" => Box::new(|_| false),
                b"aclcat" => Box::new(|row| row.categories().any(|name| name.as_bytes() == value)),
                b"pattern" => Box::new(|row| glob::matches(&value, row.name.as_bytes())),
                _ => return Err(SYNTAX),
            };
            with_subcommands().filter(|row| wanted(row)).map(|row| row.name).collect()
        }
        _ => return Err(SYNTAX),
    };
    reply.array(names.len());
    for name in names {
        reply.bulk(name);
    }
    Ok(())
}
