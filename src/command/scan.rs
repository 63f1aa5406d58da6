//! Commands over the whole keyspace: their arguments and their replies.
//!
//! What a cursor means is the cluster's business; to a client it is an opaque number, 0 at the
//! beginning and at the end.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;
use crate::command::glob;
use crate::command::number::{parse_cursor, parse_integer};
use crate::command::row::Row;
use crate::command::table::Id;
use crate::resp::Encoder;

/// A command over the whole keyspace, read from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyspaceCommand<'a> {
    /// One step through the keys of a database.
    Scan(Scan<'a>),
    /// All keys of a database that match a pattern.
    Keys(&'a [u8]),
    /// How many keys a database has.
    DbSize,
    /// Any key of a database.
    RandomKey,
    /// Remove all keys of one database, or of all.
    Flush {
        /// Of every database.
        all: bool,
    },
}

/// The arguments of SCAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Where to go on.
    pub cursor: u64,
    /// About how many keys to look at; at least 1.
    pub count: u64,
    /// Which keys to answer; `None` = all.
    pub pattern: Option<&'a [u8]>,
    /// Which type of values to answer; `None` = all.
    pub kind: Option<&'a [u8]>,
}

/// What SCAN looks at when it is not told.
const COUNT_DEFAULT: u64 = 10;

impl<'a> KeyspaceCommand<'a> {
    /// Reads the arguments of a row that runs over the keyspace.
    pub fn parse(row: &Row, args: &[&'a [u8]]) -> Result<Self, CommandError> {
        match (row.id, args) {
            (Id::Scan, [_, cursor, options @ ..]) => Scan::parse(cursor, options).map(Self::Scan),
            (Id::Keys, [_, pattern]) => Ok(Self::Keys(pattern)),
            (Id::DbSize, [_]) => Ok(Self::DbSize),
            (Id::RandomKey, [_]) => Ok(Self::RandomKey),
            (Id::FlushDb | Id::FlushAll, [_, mode @ ..]) => {
                let known = |mode: &[u8]| {
                    mode.eq_ignore_ascii_case(b"SYNC") || mode.eq_ignore_ascii_case(b"ASYNC")
                };
                match mode {
                    [] => {}
                    [mode] if known(mode) => {}
                    _ => return Err(CommandError::Syntax),
                }
                Ok(Self::Flush { all: row.id == Id::FlushAll })
            }
            _ => Err(CommandError::WrongArity(row.name)),
        }
    }
}

impl<'a> Scan<'a> {
    fn parse(cursor: &[u8], options: &[&'a [u8]]) -> Result<Self, CommandError> {
        let cursor = parse_cursor(cursor)?;
        let mut scan = Self { cursor, count: COUNT_DEFAULT, pattern: None, kind: None };
        for option in options.chunks(2) {
            let [name, value] = option else { return Err(CommandError::Syntax) };
            if name.eq_ignore_ascii_case(b"COUNT") {
                let count = parse_integer(value)?;
                scan.count = u64::try_from(count).map_err(|_| CommandError::Syntax)?;
                if scan.count == 0 {
                    return Err(CommandError::Syntax);
                }
            } else if name.eq_ignore_ascii_case(b"MATCH") {
                scan.pattern = Some(*value).filter(|pattern| *pattern != b"*");
            } else if name.eq_ignore_ascii_case(b"TYPE") {
                scan.kind = Some(value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(scan)
    }

    /// Whether a key that was looked at is answered; every value is a string.
    pub fn takes(&self, key: &[u8]) -> bool {
        self.kind.is_none_or(|kind| kind.eq_ignore_ascii_case(b"string"))
            && self.pattern.is_none_or(|pattern| glob::matches(pattern, key))
    }

    /// Writes the reply: the next cursor, and the keys.
    pub fn reply<K: AsRef<[u8]>>(cursor: u64, keys: &[K], reply: &mut Encoder<'_>) {
        reply.array(2);
        reply.bulk(itoa::Buffer::new().format(cursor));
        keys_reply(keys, reply);
    }
}

/// Writes a list of keys.
pub fn keys_reply<K: AsRef<[u8]>>(keys: &[K], reply: &mut Encoder<'_>) {
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::parse::resolve;

    fn parsed(text: &str) -> Result<KeyspaceCommand<'_>, String> {
        let args: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        let row = resolve(&args).map_err(|error| error.to_string())?;
        KeyspaceCommand::parse(row, &args).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read() {
        let scan = Scan { cursor: 7, count: 100, pattern: Some(b"a*"), kind: Some(b"hash") };
        assert_eq!(parsed("scan 7 match a* COUNT 100 type hash"), Ok(KeyspaceCommand::Scan(scan)));
        assert!(!scan.takes(b"ab"));
        assert!(Scan { kind: None, ..scan }.takes(b"ab"));
        assert_eq!(parsed("flushall async"), Ok(KeyspaceCommand::Flush { all: true }));
    }

    #[test]
    fn nonsense_has_the_errors_of_redis() {
        let error = |text| parsed(text).unwrap_err();
        assert_eq!(error("scan x"), "ERR invalid cursor");
        assert_eq!(error("scan 0 count 0"), "ERR syntax error");
        assert_eq!(error("scan 0 count x"), "ERR value is not an integer or out of range");
        assert_eq!(error("scan 0 match"), "ERR syntax error");
        assert_eq!(error("flushall now"), "ERR syntax error");
    }
}
