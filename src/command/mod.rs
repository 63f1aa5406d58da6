//! What commands mean. No I/O: a command is a function of its arguments and one slot.
//!
//! `table` says what there is, `parse` finds the row and the keys of a request, and [`execute`]
//! runs it against a [`Keyspace`], which the cluster implements under the shard lock of the node
//! that acts for the slot. Commands that are split by slot run the same way at each part.
//!
//! Replies and errors are those of Redis 7.0.15 to the byte; `tests/oracle.rs` asks both.

pub mod error;
mod expiry;
pub mod float;
pub mod glob;
mod key;
pub mod keyspace;
pub mod number;
mod object;
pub mod parse;
pub mod row;
pub mod scan;
mod string;
pub mod table;

pub use error::CommandError;
pub use keyspace::{EntryView, Kept, Keyspace};
pub use row::{Flags, Merge, Row, Runs};
pub use scan::KeyspaceCommand;
pub use table::Id;

use crate::command::expiry::Expiry;
use crate::command::key::TimeReply;
use crate::command::number::parse_integer;
use crate::resp::Encoder;

/// Runs a command against the slot of its keys and appends its reply.
///
/// `args` begins with the command's name and holds only keys of the slot. Arguments that a peer
/// sent are not trusted: what does not fit the row is answered with an error.
pub fn execute(row: &Row, args: &[&[u8]], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    let done = if parse::takes(row, args.len()) {
        run(row, args, keyspace, reply)
    } else {
        Err(CommandError::WrongArity(row.name))
    };
    if let Err(error) = done {
        error.encode(reply);
    }
}

/// The bytes that a write needs at most beside those of its arguments, where `length` tells those of the
/// value that there is: APPEND and SETRANGE keep them, and SETRANGE fills up to its offset.
pub fn growth(row: &Row, args: &[&[u8]], max: usize, length: impl FnOnce() -> usize) -> usize {
    match (row.id, args) {
        (Id::Append, _) => length(),
        (Id::SetRange, [_, _, offset, _]) => string::filled(offset, max).max(length()),
        _ => 0,
    }
}

/// Whether a write sends on the value that there is, however short its arguments are.
pub const fn sends_stored(row: &Row) -> bool {
    matches!(
        row.id,
        Id::Append
            | Id::SetRange
            | Id::GetEx
            | Id::Expire
            | Id::PExpire
            | Id::ExpireAt
            | Id::PExpireAt
            | Id::Persist
    )
}

/// Every arm either replies, or fails before it has replied or changed anything.
fn run(
    row: &Row,
    args: &[&[u8]],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Result<(), CommandError> {
    let Some((_, rest)) = args.split_first() else {
        return Err(CommandError::WrongArity(row.name));
    };
    match (row.id, rest) {
        (Id::Get, [key]) => string::get(key, keyspace, reply),
        (Id::Set, _) => return string::set(row, args, keyspace, reply),
        (Id::SetEx, _) => {
            return string::set_with_expiry(row, args, Expiry::Seconds, keyspace, reply);
        }
        (Id::PSetEx, _) => {
            return string::set_with_expiry(row, args, Expiry::Millis, keyspace, reply);
        }
        (Id::SetNx, [key, value]) => string::set_absent(key, value, keyspace, reply),
        (Id::GetSet, [key, value]) => string::get_set(key, value, keyspace, reply),
        (Id::GetDel, [key]) => return string::get_delete(key, keyspace, reply),
        (Id::GetEx, _) => return string::get_expire(row, args, keyspace, reply),
        (Id::Append, [key, tail]) => return string::append(key, tail, keyspace, reply),
        (Id::StrLen, [key]) => string::length(key, keyspace, reply),
        (Id::GetRange | Id::Substr, [key, start, end]) => {
            return string::get_range(key, (start, end), keyspace, reply);
        }
        (Id::SetRange, [key, offset, part]) => {
            return string::set_range(key, (offset, part), keyspace, reply);
        }
        (Id::Incr, [key]) => return string::increment(key, 1, keyspace, reply),
        (Id::Decr, [key]) => return string::increment(key, -1, keyspace, reply),
        (Id::IncrBy, [key, by]) => {
            return string::increment(key, parse_integer(by)?, keyspace, reply);
        }
        (Id::DecrBy, [key, by]) => {
            return string::increment(key, string::decrement_by(by)?, keyspace, reply);
        }
        (Id::IncrByFloat, [key, by]) => return string::increment_float(key, by, keyspace, reply),
        (Id::MGet, keys) => string::multi_get(keys, keyspace, reply),
        (Id::MSet, pairs) => string::multi_set(pairs, keyspace, reply),
        (Id::MSetNx, pairs) => string::multi_set_absent(pairs, keyspace, reply),
        _ => return run_on_keys(row, args, rest, keyspace, reply),
    }
    Ok(())
}

/// Commands on keys of any type.
fn run_on_keys(
    row: &Row,
    args: &[&[u8]],
    rest: &[&[u8]],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Result<(), CommandError> {
    let mut time = |key: &[u8], seconds: bool, relative: bool| {
        key::time_to_live(key, TimeReply { seconds, relative }, keyspace, reply);
    };
    match (row.id, rest) {
        (Id::Ttl, [key]) => time(key, true, true),
        (Id::PTtl, [key]) => time(key, false, true),
        (Id::ExpireTime, [key]) => time(key, true, false),
        (Id::PExpireTime, [key]) => time(key, false, false),
        (Id::Del | Id::Unlink, keys) => return key::delete(keys, keyspace, reply),
        (Id::Exists, keys) => key::exists(keys, keyspace, reply),
        (Id::Touch, keys) => key::touch(keys, keyspace, reply),
        (Id::Type, [key]) => key::kind(key, keyspace, reply),
        (Id::Expire, _) => return key::expire(row, args, Expiry::Seconds, keyspace, reply),
        (Id::PExpire, _) => return key::expire(row, args, Expiry::Millis, keyspace, reply),
        (Id::ExpireAt, _) => return key::expire(row, args, Expiry::SecondsAt, keyspace, reply),
        (Id::PExpireAt, _) => return key::expire(row, args, Expiry::MillisAt, keyspace, reply),
        (Id::Persist, [key]) => key::persist(key, keyspace, reply),
        (Id::MemoryUsage, [_, key, options @ ..]) => {
            return object::memory_usage(key, options, keyspace, reply);
        }
        (
            Id::ObjectEncoding | Id::ObjectFreq | Id::ObjectIdleTime | Id::ObjectRefCount,
            [_, key],
        ) => return object::object(row.id, key, keyspace, reply),
        _ => return Err(CommandError::NotAtASlot),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
