//! Commands on keys of any type.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;
use crate::command::expiry::Expiry;
use crate::command::keyspace::Keyspace;
use crate::command::number::parse_integer;
use crate::command::row::Row;
use crate::resp::Encoder;
use crate::types::WallMillis;

type Done = Result<(), CommandError>;

/// DEL and UNLINK.
pub(super) fn delete(keys: &[&[u8]], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) -> Done {
    if !keys.iter().all(|key| keyspace.has_room_to_remove(key)) {
        return Err(CommandError::TooManyTombstones);
    }
    reply.count(keys.iter().filter(|key| keyspace.remove(key)).count());
    Ok(())
}

pub(super) fn exists(keys: &[&[u8]], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    reply.count(keys.iter().filter(|key| keyspace.peek(key).is_some()).count());
}

pub(super) fn touch(keys: &[&[u8]], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    reply.count(keys.iter().filter(|key| keyspace.get(key).is_some()).count());
}

pub(super) fn kind(key: &[u8], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    reply.simple(if keyspace.peek(key).is_some() { "string" } else { "none" });
}

/// How a time is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeReply {
    /// In seconds, rounded; else in milliseconds.
    pub(super) seconds: bool,
    /// From now on; else since the Unix epoch.
    pub(super) relative: bool,
}

/// TTL, PTTL, EXPIRETIME and PEXPIRETIME.
pub(super) fn time_to_live(
    key: &[u8],
    unit: TimeReply,
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) {
    let now = keyspace.now();
    let answer = match keyspace.peek(key).map(|entry| entry.expires_at) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => {
            let millis = if unit.relative { at.saturating_since(now) } else { at.0 };
            let number = if unit.seconds { millis.saturating_add(500) / 1000 } else { millis };
            i64::try_from(number).unwrap_or(i64::MAX)
        }
    };
    reply.integer(answer);
}

/// The conditions of EXPIRE and its kin.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    absent: bool,
    present: bool,
    greater: bool,
    less: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Self, CommandError> {
        let mut found = Self::default();
        for option in options {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") {
                found.absent = true;
            } else if is("XX") {
                found.present = true;
            } else if is("GT") {
                found.greater = true;
            } else if is("LT") {
                found.less = true;
            } else {
                let text = [b"ERR Unsupported option ", *option].concat();
                return Err(CommandError::UnsupportedOption(text));
            }
        }
        if found.absent && (found.present || found.greater || found.less) {
            return Err(CommandError::NxWithOthers);
        }
        if found.greater && found.less {
            return Err(CommandError::GtWithLt);
        }
        Ok(found)
    }

    /// Whether an entry that expires at `present` may be made to expire at `instant`. Never is
    /// later than every instant.
    fn allow(self, present: Option<WallMillis>, instant: i64) -> bool {
        let present = present.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX));
        !(self.absent && present.is_some()
            || self.present && present.is_none()
            || self.greater && present.is_none_or(|present| instant <= present)
            || self.less && present.is_some_and(|present| instant >= present))
    }
}

/// EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT. An instant that is not to come deletes.
pub(super) fn expire(
    row: &Row,
    args: &[&[u8]],
    unit: Expiry,
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let [_, key, number, options @ ..] = args else {
        return Err(CommandError::WrongArity(row.name));
    };
    let conditions = Conditions::parse(options)?;
    let now = keyspace.now();
    let instant =
        unit.instant(parse_integer(number)?, now).ok_or(CommandError::InvalidExpire(row.name))?;
    let Some(present) = keyspace.peek(key).map(|entry| entry.expires_at) else {
        reply.integer(0);
        return Ok(());
    };
    let allowed = conditions.allow(present, instant);
    if allowed {
        match u64::try_from(instant).map(WallMillis) {
            Ok(at) if at > now && !keyspace.has_room_to_expire(key) => {
                return Err(CommandError::OutOfMemory);
            }
            Ok(at) if at > now => drop(keyspace.expire(key, Some(at))),
            _ => drop(keyspace.remove(key)),
        }
    }
    reply.integer(i64::from(allowed));
    Ok(())
}

pub(super) fn persist(key: &[u8], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    let expires = keyspace.peek(key).is_some_and(|entry| entry.expires_at.is_some());
    let changed = expires && keyspace.expire(key, None);
    reply.integer(i64::from(changed));
}
