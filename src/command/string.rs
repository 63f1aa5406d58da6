//! Commands on strings.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;
use crate::command::expiry::{Expiry, ExpiryArgument};
use crate::command::float::Number;
use crate::command::keyspace::Keyspace;
use crate::command::number::parse_integer;
use crate::command::row::Row;
use crate::resp::Encoder;
use crate::types::WallMillis;

type Done = Result<(), CommandError>;

/// The options of SET, in a consistent set; times are not yet judged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SetOptions<'a> {
    condition: Option<Condition>,
    answer_old: bool,
    keep_ttl: bool,
    expiry: Option<ExpiryArgument<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Absent,
    Present,
}

impl<'a> SetOptions<'a> {
    /// Reads the options of a whole SET request.
    pub(super) fn parse(args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut rest = args.get(3..).unwrap_or_default().iter();
        while let Some(option) = rest.next() {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") && options.condition != Some(Condition::Present) {
                options.condition = Some(Condition::Absent);
            } else if is("XX") && options.condition != Some(Condition::Absent) {
                options.condition = Some(Condition::Present);
            } else if is("GET") {
                options.answer_old = true;
            } else if is("KEEPTTL") && options.expiry.is_none() {
                options.keep_ttl = true;
            } else if let Some(unit) = Expiry::named(option)
                && !options.keep_ttl
                && options.expiry.is_none_or(|given| given.unit == unit)
            {
                let text = rest.next().ok_or(CommandError::Syntax)?;
                options.expiry = Some(ExpiryArgument { unit, text });
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether the reply is the value before.
    pub(super) const fn answers_old(&self) -> bool {
        self.answer_old
    }

    /// Whether neither outcome nor reply depend on what is stored.
    pub(super) const fn is_plain(&self) -> bool {
        self.condition.is_none() && !self.answer_old
    }
}

/// Stores a value; one that is expired already leaves nothing behind.
fn store(keyspace: &mut dyn Keyspace, key: &[u8], value: &[u8], expires_at: Option<WallMillis>) {
    if expires_at.is_some_and(|at| at <= keyspace.now()) {
        keyspace.remove(key);
    } else {
        keyspace.set(key, value, expires_at);
    }
}

pub(super) fn get(key: &[u8], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    reply.optional(keyspace.get(key).map(|entry| entry.value));
}

pub(super) fn set(
    row: &Row,
    args: &[&[u8]],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let [_, key, value, ..] = args else { return Err(CommandError::WrongArity(row.name)) };
    let options = SetOptions::parse(args)?;
    let expires_at = match options.expiry {
        Some(expiry) => Some(expiry.instant(row.name, keyspace.now())?),
        None => None,
    };
    if expires_at.is_some_and(|at| at <= keyspace.now()) && !keyspace.has_room_to_remove(key) {
        return Err(CommandError::TooManyTombstones);
    }
    let old = if options.answer_old {
        let old = keyspace.get(key);
        reply.optional(old.map(|entry| entry.value));
        old.map(|entry| entry.expires_at)
    } else if options.condition.is_some() || options.keep_ttl {
        keyspace.peek(key).map(|entry| entry.expires_at)
    } else {
        None
    };
    let refused = match options.condition {
        Some(Condition::Absent) => old.is_some(),
        Some(Condition::Present) => old.is_none(),
        None => false,
    };
    if !refused {
        let kept = if options.keep_ttl { old.flatten() } else { None };
        store(keyspace, key, value, expires_at.or(kept));
    }
    match (options.answer_old, refused) {
        (true, _) => {}
        (false, true) => reply.null(),
        (false, false) => reply.ok(),
    }
    Ok(())
}

/// SETEX and PSETEX.
pub(super) fn set_with_expiry(
    row: &Row,
    args: &[&[u8]],
    unit: Expiry,
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let [_, key, text, value] = args else { return Err(CommandError::WrongArity(row.name)) };
    let expires_at = ExpiryArgument { unit, text }.instant(row.name, keyspace.now())?;
    store(keyspace, key, value, Some(expires_at));
    reply.ok();
    Ok(())
}

pub(super) fn set_absent(
    key: &[u8],
    value: &[u8],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) {
    let absent = keyspace.peek(key).is_none();
    if absent {
        keyspace.set(key, value, None);
    }
    reply.integer(i64::from(absent));
}

pub(super) fn get_set(
    key: &[u8],
    value: &[u8],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) {
    get(key, keyspace, reply);
    keyspace.set(key, value, None);
}

pub(super) fn get_delete(key: &[u8], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) -> Done {
    if !keyspace.has_room_to_remove(key) {
        return Err(CommandError::TooManyTombstones);
    }
    get(key, keyspace, reply);
    keyspace.remove(key);
    Ok(())
}

pub(super) fn get_expire(
    row: &Row,
    args: &[&[u8]],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let [_, key, options @ ..] = args else { return Err(CommandError::WrongArity(row.name)) };
    let (mut persist, mut expiry) = (false, None::<ExpiryArgument<'_>>);
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if option.eq_ignore_ascii_case(b"PERSIST") && expiry.is_none() {
            persist = true;
        } else if let Some(unit) = Expiry::named(option)
            && !persist
            && expiry.is_none_or(|given| given.unit == unit)
        {
            let text = rest.next().ok_or(CommandError::Syntax)?;
            expiry = Some(ExpiryArgument { unit, text });
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let now = keyspace.now();
    if expiry.is_some() && !keyspace.has_room_to_expire(key) {
        return Err(CommandError::OutOfMemory);
    }
    let Some(entry) = keyspace.get(key) else {
        reply.null();
        return Ok(());
    };
    let expires_at = match expiry {
        Some(expiry) => Some(expiry.instant(row.name, now)?),
        None => None,
    };
    reply.bulk(entry.value);
    let changes = entry.expires_at.is_some();
    match expires_at {
        Some(at) if at <= now => drop(keyspace.remove(key)),
        Some(_) => drop(keyspace.expire(key, expires_at)),
        None if persist && changes => drop(keyspace.expire(key, None)),
        None => {}
    }
    Ok(())
}

pub(super) fn multi_get(keys: &[&[u8]], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    reply.array(keys.len());
    for key in keys {
        get(key, keyspace, reply);
    }
}

pub(super) fn multi_set(pairs: &[&[u8]], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    set_pairs(pairs, keyspace);
    reply.ok();
}

/// All or nothing: the keys share a slot, and with it the lock under which this runs.
pub(super) fn multi_set_absent(
    pairs: &[&[u8]],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) {
    let mut keys = pairs.iter().step_by(2);
    let absent = keys.all(|key| keyspace.peek(key).is_none());
    if absent {
        set_pairs(pairs, keyspace);
    }
    reply.integer(i64::from(absent));
}

fn set_pairs(pairs: &[&[u8]], keyspace: &mut dyn Keyspace) {
    for pair in pairs.chunks_exact(2) {
        if let [key, value] = pair {
            keyspace.set(key, value, None);
        }
    }
}

pub(super) fn append(
    key: &[u8],
    tail: &[u8],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let max = keyspace.max_value_size();
    let (value, expires_at) = match keyspace.peek(key) {
        Some(entry) => {
            let length = entry.value.len().saturating_add(tail.len());
            if length > max {
                return Err(CommandError::TooLong);
            }
            ([entry.value, tail].concat(), entry.expires_at)
        }
        None => (tail.to_vec(), None),
    };
    reply.count(value.len());
    keyspace.set(key, &value, expires_at);
    Ok(())
}

pub(super) fn length(key: &[u8], keyspace: &mut dyn Keyspace, reply: &mut Encoder<'_>) {
    reply.count(keyspace.get(key).map_or(0, |entry| entry.value.len()));
}

/// GETRANGE and SUBSTR.
pub(super) fn get_range(
    key: &[u8],
    (start, end): (&[u8], &[u8]),
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let (start, end) = (parse_integer(start)?, parse_integer(end)?);
    let value = keyspace.get(key).map_or(&[][..], |entry| entry.value);
    reply.bulk(part(value, start, end).unwrap_or_default());
    Ok(())
}

/// The bytes from `start` to `end`, both included; negative positions count from the end.
fn part(value: &[u8], start: i64, end: i64) -> Option<&[u8]> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { length.saturating_add(at).max(0) } else { at };
    let first = usize::try_from(place(start)).ok()?;
    let last = usize::try_from(place(end).min(length.saturating_sub(1))).ok()?;
    value.get(first..=last)
}

/// The bytes before an offset; none where SETRANGE refuses it.
pub(super) fn filled(offset: &[u8], max: usize) -> usize {
    let offset = parse_integer(offset).ok().and_then(|offset| usize::try_from(offset).ok());
    offset.filter(|offset| *offset <= max).unwrap_or(0)
}

pub(super) fn set_range(
    key: &[u8],
    (offset, part): (&[u8], &[u8]),
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let offset = usize::try_from(parse_integer(offset)?).map_err(|_| CommandError::Offset)?;
    let max = keyspace.max_value_size();
    let entry = keyspace.peek(key);
    if part.is_empty() {
        reply.count(entry.map_or(0, |entry| entry.value.len()));
        return Ok(());
    }
    let end = offset.saturating_add(part.len());
    if end > max {
        return Err(CommandError::TooLong);
    }
    let (old, expires_at) = entry.map_or((&[][..], None), |entry| (entry.value, entry.expires_at));
    let mut value = Vec::with_capacity(end.max(old.len()));
    value.extend_from_slice(old.get(..offset).unwrap_or(old));
    value.resize(offset, 0);
    value.extend_from_slice(part);
    value.extend_from_slice(old.get(end..).unwrap_or_default());
    reply.count(value.len());
    keyspace.set(key, &value, expires_at);
    Ok(())
}

/// INCR, DECR, INCRBY and, with the number negated, DECRBY.
pub(super) fn increment(
    key: &[u8],
    by: i64,
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let (value, expires_at) = match keyspace.peek(key) {
        Some(entry) => (parse_integer(entry.value)?, entry.expires_at),
        None => (0, None),
    };
    let value = value.checked_add(by).ok_or(CommandError::Overflow)?;
    keyspace.set(key, itoa::Buffer::new().format(value).as_bytes(), expires_at);
    reply.integer(value);
    Ok(())
}

/// The number by which DECRBY increments.
pub(super) fn decrement_by(text: &[u8]) -> Result<i64, CommandError> {
    parse_integer(text)?.checked_neg().ok_or(CommandError::DecrementOverflow)
}

pub(super) fn increment_float(
    key: &[u8],
    by: &[u8],
    keyspace: &mut dyn Keyspace,
    reply: &mut Encoder<'_>,
) -> Done {
    let (old, expires_at) = match keyspace.peek(key) {
        Some(entry) => (Number::parse(entry.value)?, entry.expires_at),
        None => (Number::parse(b"0")?, None),
    };
    let text = old.plus(Number::parse(by)?)?.to_text();
    keyspace.set(key, text.as_bytes(), expires_at);
    reply.bulk(text);
    Ok(())
}
