//! A reply as a tree, and how it is read from bytes.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use memchr::memchr;
use thiserror::Error;

use crate::limits;

/// A reply of either protocol version.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A status, such as `OK`.
    Simple(Vec<u8>),
    /// An error: prefix, space, text.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// Nothing, where a string would stand.
    Null,
    /// Nothing, where an array would stand; RESP3 has one null for both.
    NullArray,
    /// An array.
    Array(Vec<Self>),
    /// Pairs, in the order in which they were given.
    Map(Vec<(Self, Self)>),
    /// A set, in the order in which it was given.
    Set(Vec<Self>),
    /// A message that answers no request.
    Push(Vec<Self>),
    /// A floating-point number.
    Double(f64),
    /// A truth value.
    Boolean(bool),
    /// An integer of any size, as its digits.
    BigNumber(String),
    /// Text for people and the three letters of its format.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
}

/// Why bytes are not a reply: whoever sent them does not speak the protocol; close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A reply cannot begin with this byte.
    #[error("a reply cannot begin with byte {0:#04x}")]
    Kind(u8),
    /// A length, an integer or a number is malformed.
    #[error("malformed number in a reply")]
    Number,
    /// A string is not followed by a line break, or a verbatim one has no format.
    #[error("malformed string in a reply")]
    Text,
    /// Aggregates are nested deeper than `limits::REPLY_DEPTH_MAX`.
    #[error("a reply is nested too deeply")]
    TooDeep,
}

impl Reply {
    /// The status `OK`.
    pub fn ok() -> Self {
        Self::Simple(b"OK".to_vec())
    }

    /// An error of this text, prefix included.
    pub fn error(text: impl Into<Vec<u8>>) -> Self {
        Self::Error(text.into())
    }

    /// A bulk string.
    pub fn bulk(value: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(value.into())
    }

    /// The text of an error; `None` for everything else.
    pub fn as_error(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Error(text) => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// Reads the reply at the start of `bytes` and says how many of them it took; `None` if it is
    /// not all there. Attributes of RESP3 are read and dropped.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut reader = Reader { bytes, at: 0 };
        let reply = reader.reply(limits::REPLY_DEPTH_MAX)?;
        Ok(reply.map(|reply| (reply, reader.at)))
    }
}

/// Reads replies from `at` on. `None` everywhere means that more bytes are needed.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Read<T> = Result<Option<T>, DecodeError>;

/// Takes the value out of a [`Read`], or returns that more bytes are needed.
macro_rules! needed {
    ($read:expr) => {
        match $read {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> Read<Reply> {
        let Some(below) = depth.checked_sub(1) else { return Err(DecodeError::TooDeep) };
        let line = needed!(self.line());
        let Some((&kind, text)) = line.split_first() else { return Err(DecodeError::Text) };
        Ok(Some(match kind {
            b'+' => Reply::Simple(text.to_vec()),
            b'-' => Reply::Error(text.to_vec()),
            b':' => Reply::Integer(parse(text)?),
            b'_' => Reply::Null,
            b',' => Reply::Double(parse(text)?),
            b'#' => match text {
                b"t" => Reply::Boolean(true),
                b"f" => Reply::Boolean(false),
                _ => return Err(DecodeError::Text),
            },
            b'(' => Reply::BigNumber(parse(text)?),
            b'$' => match length(text)? {
                Some(length) => Reply::Bulk(needed!(self.string(length)?).to_vec()),
                None => Reply::Null,
            },
            b'!' => match length(text)? {
                Some(length) => Reply::Error(needed!(self.string(length)?).to_vec()),
                None => return Err(DecodeError::Number),
            },
            b'=' => needed!(self.verbatim(text)?),
            b'*' => match length(text)? {
                Some(length) => Reply::Array(needed!(self.parts(length, below)?)),
                None => Reply::NullArray,
            },
            b'~' => Reply::Set(needed!(self.parts(some_length(text)?, below)?)),
            b'>' => Reply::Push(needed!(self.parts(some_length(text)?, below)?)),
            b'%' => Reply::Map(needed!(self.pairs(some_length(text)?, below)?)),
            b'|' => {
                needed!(self.pairs(some_length(text)?, below)?);
                return self.reply(below);
            }
            other => return Err(DecodeError::Kind(other)),
        }))
    }

    /// The next line without its end.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = memchr(b'\n', rest)?;
        let line = rest.get(..end)?;
        self.at = self.at.saturating_add(end).saturating_add(1);
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// The next `length` bytes, and the line break behind them.
    fn string(&mut self, length: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(DecodeError::Number)?;
        let after = end.checked_add(2).ok_or(DecodeError::Number)?;
        let text = needed!(self.bytes.get(self.at..end));
        match needed!(self.bytes.get(end..after)) {
            b"\r\n" => {
                self.at = after;
                Ok(Some(text))
            }
            _ => Err(DecodeError::Text),
        }
    }

    fn verbatim(&mut self, text: &[u8]) -> Read<Reply> {
        let text = needed!(self.string(some_length(text)?)?);
        match text.split_first_chunk::<4>() {
            Some(([a, b, c, b':'], text)) => {
                Ok(Some(Reply::Verbatim { format: [*a, *b, *c], text: text.to_vec() }))
            }
            _ => Err(DecodeError::Text),
        }
    }

    fn parts(&mut self, count: usize, depth: usize) -> Read<Vec<Reply>> {
        let mut parts = Vec::with_capacity(count.min(self.room()));
        for _ in 0..count {
            parts.push(needed!(self.reply(depth)?));
        }
        Ok(Some(parts))
    }

    fn pairs(&mut self, count: usize, depth: usize) -> Read<Vec<(Reply, Reply)>> {
        let mut pairs = Vec::with_capacity(count.min(self.room()));
        for _ in 0..count {
            let key = needed!(self.reply(depth)?);
            pairs.push((key, needed!(self.reply(depth)?)));
        }
        Ok(Some(pairs))
    }

    /// The most replies that the rest of the bytes can hold, and few at that: an announced length
    /// reserves no more.
    fn room(&self) -> usize {
        const AT_ONCE: usize = 1024;
        (self.bytes.len().saturating_sub(self.at) / 3).min(AT_ONCE)
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T, DecodeError> {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(DecodeError::Number)
}

/// A length; `None` for the -1 of a null.
fn length(text: &[u8]) -> Result<Option<usize>, DecodeError> {
    if text == b"-1" { Ok(None) } else { parse(text).map(Some) }
}

fn some_length(text: &[u8]) -> Result<usize, DecodeError> {
    length(text)?.ok_or(DecodeError::Number)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resp::{Encoder, Proto};

    fn encoded(reply: &Reply, proto: Proto) -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::new(&mut out, proto).reply(reply);
        out
    }

    fn replies() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Reply::Integer),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Reply::Bulk),
            "[ -~]{0,9}".prop_map(|text| Reply::Simple(text.into_bytes())),
            "[ -~]{0,9}".prop_map(|text| Reply::Error(text.into_bytes())),
            Just(Reply::Null),
            any::<bool>().prop_map(Reply::Boolean),
            (-1e300..1e300).prop_map(Reply::Double),
            "-?[1-9][0-9]{0,40}".prop_map(Reply::BigNumber),
            prop::collection::vec(any::<u8>(), 0..9)
                .prop_map(|text| Reply::Verbatim { format: *b"txt", text }),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Reply::Array),
                prop::collection::vec(inner.clone(), 0..5).prop_map(Reply::Set),
                prop::collection::vec(inner.clone(), 0..5).prop_map(Reply::Push),
                prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_reply_comes_back_as_it_was_written(reply in replies()) {
            let bytes = encoded(&reply, Proto::Resp3);
            prop_assert_eq!(Reply::decode(&bytes), Ok(Some((reply, bytes.len()))));
        }

        #[test]
        fn a_part_of_a_reply_is_never_taken_for_a_whole_one(reply in replies(), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&reply, Proto::Resp3);
            prop_assert_eq!(Reply::decode(&bytes[..cut.index(bytes.len())]), Ok(None));
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _any_result_will_do = Reply::decode(&bytes);
        }
    }

    #[test]
    fn resp2_gets_what_it_can_read() {
        let reply = Reply::Array(vec![
            Reply::Map(vec![(Reply::bulk("a"), Reply::Boolean(true))]),
            Reply::Set(vec![Reply::Double(0.5)]),
            Reply::Null,
            Reply::NullArray,
        ]);
        let bytes = encoded(&reply, Proto::Resp2);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "*4\r\n*2\r\n$1\r\na\r\n:1\r\n*1\r\n$3\r\n0.5\r\n$-1\r\n*-1\r\n");
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        assert_eq!(encoded(&Reply::error("ERR a\r\nb"), Proto::Resp2), b"-ERR a  b\r\n");
    }

    #[test]
    fn a_reply_nested_without_end_is_refused() {
        let bytes = b"*1\r\n".repeat(1000);
        assert_eq!(Reply::decode(&bytes), Err(DecodeError::TooDeep));
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        assert_eq!(Reply::decode(b"*99999999999\r\n:1\r\n"), Ok(None));
        assert_eq!(Reply::decode(b"$18446744073709551615\r\n"), Err(DecodeError::Number));
    }
}
