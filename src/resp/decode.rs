//! Finds requests in a buffer, in place: multibulk requests and inline ones.
//!
//! The caller keeps the unparsed bytes at the start of its buffer, appends what arrives and asks
//! [`RequestParser::next`] until it says [`Parsed::Incomplete`]. A parser remembers how far it came
//! in a partial request, so that a request which arrives in many pieces is read once: between two
//! calls the bytes already shown must stay, and after a request its bytes must be taken away.
//!
//! As in Redis, the two bytes behind an argument are skipped unseen.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use memchr::memchr;
use smallvec::SmallVec;
use thiserror::Error;

use crate::limits;
use crate::resp::inline;

/// What a request may measure. Two sets: before a client has authenticated, and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The most arguments.
    pub args_max: usize,
    /// The longest argument in bytes.
    pub bulk_max: usize,
    /// Whether the limits are those of a client that has not authenticated; picks the error text.
    pub before_auth: bool,
}

impl RequestLimits {
    /// The limits of a client that may do everything.
    pub const fn trusted(max_value_size: usize) -> Self {
        Self { args_max: limits::REQUEST_ARGS_MAX, bulk_max: max_value_size, before_auth: false }
    }

    /// The limits of a client that has yet to authenticate.
    pub const fn before_auth() -> Self {
        Self {
            args_max: limits::REQUEST_ARGS_MAX_BEFORE_AUTH,
            bulk_max: limits::REQUEST_BULK_MAX_BEFORE_AUTH,
            before_auth: true,
        }
    }
}

/// Why the bytes are not a request. The connection is answered with the text and closed: what
/// follows in the buffer has no meaning. Nothing of the request was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// `*` is not followed by a number of arguments, or by too large a one.
    #[error("ERR Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// More arguments than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// `$` is not followed by a length, or by too large a one.
    #[error("ERR Protocol error: invalid bulk length")]
    BulkLength,
    /// A longer argument than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// Another byte stands where an argument must begin.
    #[error("ERR Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The line with the number of arguments has no end.
    #[error("ERR Protocol error: too big mbulk count string")]
    MultibulkLine,
    /// The line with the length of an argument has no end.
    #[error("ERR Protocol error: too big bulk count string")]
    BulkLine,
    /// An inline request has no end.
    #[error("ERR Protocol error: too big inline request")]
    InlineTooBig,
    /// The quotes of an inline request do not pair.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// All arguments together are more than a node takes in.
    #[error("ERR Protocol error: too big request")]
    TooBig,
}

/// Where an argument lies: `start..end` in the buffer that the request was found in.
type Span = (u32, u32);

/// A complete request: where its arguments are, and how many bytes it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    spans: SmallVec<[Span; 8]>,
    /// The unquoted arguments of an inline request; the spans point into it.
    unquoted: Option<Box<[u8]>>,
    consumed: usize,
}

/// The arguments of a request as slices.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

impl Request {
    /// The bytes of the buffer that the request took.
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    /// How many arguments there are, the command's name included. At least one.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Never true: empty requests are skipped.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument with this number, 0 being the command's name.
    pub fn arg<'a>(&'a self, buf: &'a [u8], index: usize) -> Option<&'a [u8]> {
        self.unquoted.as_deref().unwrap_or(buf).get(range(*self.spans.get(index)?))
    }

    /// The arguments, as slices of the buffer that the request was found in.
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        let source = self.unquoted.as_deref().unwrap_or(buf);
        self.spans.iter().map(|&span| source.get(range(span)).unwrap_or_default()).collect()
    }
}

/// What [`RequestParser::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A request with at least one argument.
    Request(Request),
    /// Bytes without meaning (an empty line, an array of nothing): take them away and go on.
    Skip(usize),
    /// The request is not complete before the buffer holds this many bytes, or more.
    Incomplete(usize),
}

/// Finds requests; one per connection. See the module's text for how to feed it.
#[derive(Clone, Debug)]
pub struct RequestParser {
    limits: RequestLimits,
    partial: Partial,
}

/// How far a partial request was read. All positions count from the start of the buffer.
#[derive(Clone, Debug, Default)]
enum Partial {
    #[default]
    Nothing,
    /// No end of the first line before this position.
    Line(usize),
    /// A multibulk request whose first line was read.
    Multibulk(Multibulk),
}

/// A multibulk request in the making.
#[derive(Clone, Debug)]
struct Multibulk {
    spans: SmallVec<[Span; 8]>,
    /// Arguments still to come.
    remaining: usize,
    /// Where the next line or argument begins.
    at: usize,
    /// The length of the argument at `at`, if its line was read.
    bulk: Option<usize>,
}

impl RequestParser {
    /// A parser at the start of a request.
    pub const fn new(limits: RequestLimits) -> Self {
        Self { limits, partial: Partial::Nothing }
    }

    /// Changes what requests may measure from the next length on.
    pub const fn set_limits(&mut self, limits: RequestLimits) {
        self.limits = limits;
    }

    /// Forgets how far it came in a partial request: the buffer begins with another one now.
    pub fn start_over(&mut self) {
        self.partial = Partial::Nothing;
    }

    /// Reads the request at the start of `buf`.
    pub fn next(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        match buf.first() {
            None => Ok(Parsed::Incomplete(1)),
            Some(b'*') => self.multibulk(buf),
            Some(_) => self.inline(buf),
        }
    }

    fn inline(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        let seen = if let Partial::Line(seen) = self.partial { seen } else { 0 };
        let Some(end) = find(buf, seen, b'\n') else {
            if buf.len() > limits::REQUEST_LINE_MAX {
                return Err(ProtocolError::InlineTooBig);
            }
            self.partial = Partial::Line(buf.len());
            return Ok(Parsed::Incomplete(buf.len().saturating_add(1)));
        };
        self.partial = Partial::Nothing;
        let line = buf.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let consumed = end.saturating_add(1);
        let words = inline::split(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        if words.spans.is_empty() {
            return Ok(Parsed::Skip(consumed));
        }
        let unquoted = Some(words.bytes.into_boxed_slice());
        Ok(Parsed::Request(Request { spans: words.spans, unquoted, consumed }))
    }

    fn multibulk(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        let seen = match std::mem::take(&mut self.partial) {
            Partial::Multibulk(request) => return self.arguments(request, buf),
            Partial::Line(seen) => seen,
            Partial::Nothing => 1,
        };
        match self.count(buf, seen)? {
            Header::Incomplete(parsed) => Ok(parsed),
            Header::Nothing(consumed) => Ok(Parsed::Skip(consumed)),
            Header::Count { args: remaining, at } => {
                let request = Multibulk { spans: SmallVec::new(), remaining, at, bulk: None };
                self.arguments(request, buf)
            }
        }
    }

    fn arguments(&mut self, mut request: Multibulk, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        while request.remaining > 0 {
            if request.bulk.is_none()
                && let Some((length, at)) = self.bulk_length(buf, request.at)?
            {
                request.at = at;
                request.bulk = Some(length);
            }
            let Some(length) = request.bulk else {
                self.partial = Partial::Multibulk(request);
                return Ok(Parsed::Incomplete(buf.len().saturating_add(1)));
            };
            let end = request.at.saturating_add(length);
            let next = end.saturating_add(2);
            if next > limits::REQUEST_BYTES_MAX {
                return Err(ProtocolError::TooBig);
            }
            if buf.len() < next {
                self.partial = Partial::Multibulk(request);
                return Ok(Parsed::Incomplete(next));
            }
            request.spans.push(span(request.at..end)?);
            request.bulk = None;
            request.at = next;
            request.remaining = request.remaining.saturating_sub(1);
        }
        let Multibulk { spans, at, .. } = request;
        Ok(Parsed::Request(Request { spans, unquoted: None, consumed: at }))
    }

    /// Reads the line `*<count>`, which has no end before `seen`.
    fn count(&mut self, buf: &[u8], seen: usize) -> Result<Header, ProtocolError> {
        let Some(end) = line_end(buf, seen.max(1)) else {
            if buf.len() > limits::REQUEST_LINE_MAX {
                return Err(ProtocolError::MultibulkLine);
            }
            // The last byte may be the `\r` whose `\n` is still to come.
            self.partial = Partial::Line(buf.len().saturating_sub(1));
            return Ok(Header::Incomplete(Parsed::Incomplete(buf.len().saturating_add(1))));
        };
        let number = buf.get(1..end).and_then(parse_length);
        let at = end.saturating_add(2);
        match number {
            Some(count) if count <= 0 => Ok(Header::Nothing(at)),
            Some(count) => match usize::try_from(count) {
                Ok(args) if args <= self.limits.args_max => Ok(Header::Count { args, at }),
                Ok(args) if self.limits.before_auth && args <= limits::REQUEST_ARGS_MAX => {
                    Err(ProtocolError::UnauthenticatedMultibulkLength)
                }
                _ => Err(ProtocolError::MultibulkLength),
            },
            None => Err(ProtocolError::MultibulkLength),
        }
    }

    /// Reads the line `$<length>` at `at`; `None` if it has no end yet.
    fn bulk_length(&self, buf: &[u8], at: usize) -> Result<Option<(usize, usize)>, ProtocolError> {
        let Some(end) = line_end(buf, at) else {
            if buf.len().saturating_sub(at) > limits::REQUEST_LINE_MAX {
                return Err(ProtocolError::BulkLine);
            }
            return Ok(None);
        };
        match buf.get(at) {
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
            None => return Ok(None),
        }
        let number = buf.get(at.saturating_add(1)..end).and_then(parse_length);
        match number.and_then(|length| usize::try_from(length).ok()) {
            Some(length) if length <= self.limits.bulk_max => {
                Ok(Some((length, end.saturating_add(2))))
            }
            Some(length) if self.limits.before_auth && length < limits::REQUEST_BYTES_MAX => {
                Err(ProtocolError::UnauthenticatedBulkLength)
            }
            _ => Err(ProtocolError::BulkLength),
        }
    }
}

/// The first line of a multibulk request.
enum Header {
    Incomplete(Parsed),
    Nothing(usize),
    Count { args: usize, at: usize },
}

fn range((start, end): Span) -> Range<usize> {
    start as usize..end as usize
}

/// Refuses what lies beyond the bound of a request, which fits the span.
pub(super) fn span(at: Range<usize>) -> Result<Span, ProtocolError> {
    match (u32::try_from(at.start), u32::try_from(at.end)) {
        (Ok(start), Ok(end)) => Ok((start, end)),
        _ => Err(ProtocolError::TooBig),
    }
}

fn find(buf: &[u8], from: usize, byte: u8) -> Option<usize> {
    memchr(byte, buf.get(from..)?).and_then(|at| at.checked_add(from))
}

/// The position of the `\r` that ends the line, once the byte behind it is there too.
fn line_end(buf: &[u8], from: usize) -> Option<usize> {
    let end = find(buf, from, b'\r')?;
    (buf.len().saturating_sub(end) >= 2).then_some(end)
}

/// A length as Redis reads it: digits without a sign but `-`, no leading zero, no space.
fn parse_length(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [] | [b'0', ..] => return None,
        _ if digits.len() > 18 => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    Some(if negative { value.checked_neg()? } else { value })
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRUSTED: RequestLimits = RequestLimits::trusted(1024 * 1024);

    /// Every request of `bytes`, given in pieces of at most `step`, and how it ended.
    fn parse_all(bytes: &[u8], step: usize) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut parser = RequestParser::new(TRUSTED);
        let (mut buf, mut found) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            buf.extend_from_slice(piece);
            loop {
                match parser.next(&buf) {
                    Ok(Parsed::Request(request)) => {
                        found.push(request.args(&buf).iter().map(|arg| arg.to_vec()).collect());
                        buf.drain(..request.consumed());
                    }
                    Ok(Parsed::Skip(consumed)) => drop(buf.drain(..consumed)),
                    Ok(Parsed::Incomplete(needed)) => {
                        assert!(needed > buf.len(), "needs {needed} of {}", buf.len());
                        break;
                    }
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn error_of(bytes: &[u8]) -> Option<String> {
        parse_all(bytes, bytes.len()).1.map(|error| error.to_string())
    }

    #[test]
    fn pipelined_requests_are_found_in_order() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\n\r\n*-1\r\nPING\r\n*1\r\n$4\r\nPING\r\n";
        let (found, error) = parse_all(bytes, bytes.len());
        assert_eq!(error, None);
        assert_eq!(
            found,
            vec![
                vec![b"GET".to_vec(), b"a".to_vec()],
                vec![b"PING".to_vec()],
                vec![b"PING".to_vec()]
            ]
        );
    }

    #[test]
    fn inline_words_are_unquoted() {
        let (found, _) = parse_all(b"set \"a \\x41\\n\" 'it\\'s' b\"c d\" \"\"\n", 3);
        let words: Vec<&[u8]> = found[0].iter().map(Vec::as_slice).collect();
        assert_eq!(words, [&b"set"[..], b"a A\n", b"it's", b"bc d", b""]);
    }

    #[test]
    fn errors_have_the_texts_that_redis_gives() {
        let wrong = |text: &str| Some(format!("ERR Protocol error: {text}"));
        assert_eq!(error_of(b"*1\r\nXab\r\n"), wrong("expected '$', got 'X'"));
        assert_eq!(error_of(b"*01\r\n"), wrong("invalid multibulk length"));
        assert_eq!(error_of(b"*1048577\r\n"), wrong("invalid multibulk length"));
        assert_eq!(error_of(b"*1\r\n$-1\r\n"), wrong("invalid bulk length"));
        assert_eq!(error_of(b"*1\r\n$2000000000\r\n"), wrong("invalid bulk length"));
        assert_eq!(error_of(b"ping \"a\n"), wrong("unbalanced quotes in request"));
        assert_eq!(error_of(b"ping 'a'b\n"), wrong("unbalanced quotes in request"));
        assert_eq!(error_of(&vec![b'a'; 70_000]), wrong("too big inline request"));
        assert_eq!(error_of(&vec![b'*'; 70_000]), wrong("too big mbulk count string"));
        let long = [&b"*1\r\n"[..], &vec![b'$'; 70_000]].concat();
        assert_eq!(error_of(&long), wrong("too big bulk count string"));
    }

    #[test]
    fn little_is_taken_before_authentication() {
        let mut parser = RequestParser::new(RequestLimits::before_auth());
        let error = parser.next(b"*11\r\n").unwrap_err();
        assert_eq!(error, ProtocolError::UnauthenticatedMultibulkLength);
        let mut parser = RequestParser::new(RequestLimits::before_auth());
        let error = parser.next(b"*1\r\n$16385\r\n").unwrap_err();
        assert_eq!(error, ProtocolError::UnauthenticatedBulkLength);
    }

    #[test]
    fn a_large_argument_is_not_read_again_with_every_piece() {
        let mut parser = RequestParser::new(TRUSTED);
        let buf = b"*2\r\n$1\r\na\r\n$1000000\r\nxyz";
        assert_eq!(parser.next(buf), Ok(Parsed::Incomplete(21 + 1_000_002)));
        let Partial::Multibulk(request) = &parser.partial else { panic!("not partial") };
        assert_eq!((request.at, request.bulk), (21, Some(1_000_000)));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_requests(
            parts in prop::collection::vec(prop_oneof![
                4 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..4)
                    .prop_map(|args| {
                        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
                        for arg in args {
                            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                            bytes.extend_from_slice(&arg);
                            bytes.extend_from_slice(b"\r\n");
                        }
                        bytes
                    }),
                2 => "[a-c\"' \\\\]{0,9}\r?\n".prop_map(String::into_bytes),
                1 => prop::collection::vec(prop_oneof![
                    Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'),
                    any::<u8>()
                ], 0..12),
            ], 0..6),
            step in 1usize..40,
        ) {
            let bytes = parts.concat();
            prop_assert_eq!(parse_all(&bytes, bytes.len()), parse_all(&bytes, step));
        }
    }
}
