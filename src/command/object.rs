//! Commands on how a key's entry is kept: `OBJECT` and `MEMORY USAGE`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;
use crate::command::keyspace::Keyspace;
use crate::command::number::parse_integer;
use crate::command::table::Id;
use crate::resp::Encoder;

/// Strings up to this length are `embstr` in Redis, longer ones `raw`.
const EMBEDDED_MAX: usize = 44;

/// The subcommands of `OBJECT` that name a key. An entry is a string of bytes: the encoding is the one
/// that Redis gives a string of this value when it is set whole.
pub(super) fn object(
    id: Id,
    key: &[u8],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Result<(), CommandError> {
    let Some(kept) = keyspace.kept(key) else {
        reply.null();
        return Ok(());
    };
    match id {
        Id::ObjectEncoding => {
            let value = keyspace.peek(key).map_or(&[][..], |entry| entry.value);
            reply.bulk(match parse_integer(value) {
                Ok(_) => "int",
                Err(_) if value.len() <= EMBEDDED_MAX => "embstr",
                Err(_) => "raw",
            });
        }
        Id::ObjectFreq => reply.integer(i64::from(kept.uses)),
        Id::ObjectRefCount => reply.integer(1),
        Id::ObjectIdleTime => return Err(CommandError::NoIdleTimes),
        _ => return Err(CommandError::NotAtASlot),
    }
    Ok(())
}

/// `MEMORY USAGE key [SAMPLES count]`; strings have nothing to sample.
pub(super) fn memory_usage(
    key: &[u8],
    options: &[&[u8]],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Result<(), CommandError> {
    match options {
        [] => {}
        [name, count] if name.eq_ignore_ascii_case(b"SAMPLES") => {
            if parse_integer(count)? < 0 {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    }
    match keyspace.kept(key) {
        Some(kept) => reply.count(kept.bytes),
        None => reply.null(),
    }
    Ok(())
}
