//! From arguments to a row, and from a row to the keys among the arguments.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;
use crate::command::row::{Flags, Row};
use crate::command::string::SetOptions;
use crate::command::table::{self, Id};
use crate::resp::errors;

/// The row of a request, whose number of arguments it accepts. `args` begins with the name.
pub fn resolve(args: &[&[u8]]) -> Result<&'static Row, CommandError> {
    let row = find(args)?;
    if takes(row, args.len()) { Ok(row) } else { Err(CommandError::WrongArity(row.name)) }
}

/// The row that the first argument, or the first two, name.
fn find(args: &[&[u8]]) -> Result<&'static Row, CommandError> {
    let name = args.first().copied().unwrap_or_default();
    let row =
        table::lookup(name).ok_or_else(|| CommandError::Unknown(errors::unknown_command(args)))?;
    match args.get(1) {
        Some(sub) if !row.subcommands.is_empty() => table::lookup_subcommand(row, sub)
            .ok_or_else(|| CommandError::Unknown(errors::unknown_subcommand(row.name, sub))),
        _ => Ok(row),
    }
}

/// Whether `row` takes this many arguments, its name included, keys and values in pairs.
pub fn takes(row: &Row, args: usize) -> bool {
    let step = usize::from(row.keys.step).max(1);
    let first = usize::from(row.keys.first);
    let paired = row.keys.last != -1 || args.saturating_sub(first).is_multiple_of(step);
    row.accepts(args) && paired
}

/// The keys of a request with what belongs to each (for MSET its value), in their order.
///
/// A fan-out is split by giving each part the name and the groups of its slot.
pub fn key_groups<'s, 'a>(
    row: &Row,
    args: &'s [&'a [u8]],
) -> impl Iterator<Item = &'s [&'a [u8]]> + use<'s, 'a> {
    let first = usize::from(row.keys.first);
    let end = match usize::try_from(row.keys.last) {
        Ok(last) => last.saturating_add(1),
        Err(_) => args.len(),
    };
    let span = if first == 0 { None } else { args.get(first..end.min(args.len())) };
    span.unwrap_or_default().chunks(usize::from(row.keys.step).max(1))
}

/// The keys of a request in their order; none for commands without keys.
pub fn keys<'s, 'a>(
    row: &Row,
    args: &'s [&'a [u8]],
) -> impl Iterator<Item = &'a [u8]> + use<'s, 'a> {
    key_groups(row, args).filter_map(|group| group.first().copied())
}

/// The first key of a request.
pub fn first_key<'a>(row: &Row, args: &[&'a [u8]]) -> Option<&'a [u8]> {
    let first = usize::from(row.keys.first);
    if first == 0 { None } else { args.get(first).copied() }
}

/// The row and the keys of a request that another command quotes: `COMMAND GETKEYS`.
pub fn quoted_keys<'a>(args: &[&'a [u8]]) -> Result<(&'static Row, Vec<&'a [u8]>), CommandError> {
    let row = find(args).map_err(|_| CommandError::InvalidCommand)?;
    if row.keys.first == 0 {
        return Err(CommandError::NoKeys);
    }
    if !row.accepts(args.len()) {
        return Err(CommandError::InvalidArity);
    }
    Ok((row, keys(row, args).collect()))
}

/// What happens to the keys of a request, in the words of `COMMAND`.
pub fn access(row: &Row, args: &[&[u8]]) -> &'static [&'static str] {
    // A SET reads only if it is asked for the value before it.
    let overwrites =
        row.id == Id::Set && SetOptions::parse(args).is_ok_and(|options| !options.answers_old());
    if overwrites { &["OW", "update"] } else { row.keys.access }
}

/// Whether a request may be sent once more, to another node, when it was sent and not answered:
/// reads, and writes whose outcome and reply are the same when they run twice.
///
/// A SET with a condition, or one that answers the value before it, is not: the second run would
/// see what the first one did.
pub fn is_repeatable(row: &Row, args: &[&[u8]]) -> bool {
    if row.id == Id::Set {
        return SetOptions::parse(args).is_ok_and(|options| options.is_plain());
    }
    row.flags.has(Flags::READONLY) || row.flags.has(Flags::REPEATABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&[u8]> {
        text.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn a_request_finds_its_row_or_the_error_of_redis() {
        let name = |text: &str| resolve(&split(text)).map(|row| row.name);
        let error = |text: &str| resolve(&split(text)).unwrap_err().to_string();
        assert_eq!(name("GeT k"), Ok("get"));
        assert_eq!(name("client ID"), Ok("client|id"));
        assert_eq!(name("command"), Ok("command"));
        assert_eq!(error("get"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(error("mset a b c"), "ERR wrong number of arguments for 'mset' command");
        assert_eq!(error("client"), "ERR wrong number of arguments for 'client' command");
        assert_eq!(
            error("client setname"),
            "ERR wrong number of arguments for 'client|setname' command"
        );
        assert_eq!(error("client foo"), "ERR unknown subcommand 'foo'. Try CLIENT HELP.");
        assert_eq!(
            error("foo bar baz"),
            "ERR unknown command 'foo', with args beginning with: 'bar' 'baz' "
        );
    }

    #[test]
    fn keys_are_found_among_the_arguments() {
        let found = |text: &str| {
            let args = split(text);
            let row = resolve(&args).unwrap();
            keys(row, &args).map(|key| str::from_utf8(key).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("get a"), ["a"]);
        assert_eq!(found("mset a 1 b 2"), ["a", "b"]);
        assert_eq!(found("del a b c"), ["a", "b", "c"]);
        assert!(found("ping a").is_empty());
    }

    #[test]
    fn only_what_may_run_twice_is_repeatable() {
        let repeatable = |text: &str| {
            let args = split(text);
            is_repeatable(resolve(&args).unwrap(), &args)
        };
        for text in ["get a", "set a b", "set a b ex 5", "mset a b", "setex a 1 b"] {
            assert!(repeatable(text), "{text}");
        }
        for text in ["set a b nx", "set a b get", "del a", "incr a", "setnx a b", "expire a 1"] {
            assert!(!repeatable(text), "{text}");
        }
    }
}
