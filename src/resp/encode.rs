//! Appends replies to a buffer, in RESP2 or RESP3.
//!
//! What RESP2 has no type for becomes what Redis makes of it: a map a flat array, a set and a push
//! an array, a double a bulk string, a boolean an integer.

use crate::resp::reply::Reply;

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// The version every connection begins with.
    #[default]
    Resp2,
    /// The version with maps, sets, pushes and a null of its own; asked for by `HELLO 3`.
    Resp3,
}

impl Proto {
    /// The protocol of this number; `None` if there is none.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::Resp2),
            3 => Some(Self::Resp3),
            _ => None,
        }
    }

    /// Its number, as `HELLO` gives it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// Appends replies to `out`. Aggregates are written as their head; their parts follow.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    proto: Proto,
}

impl<'a> Encoder<'a> {
    /// An encoder that appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>, proto: Proto) -> Self {
        Self { out, proto }
    }

    /// The version that is written.
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// A status such as `OK`. It must not hold a line break.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// The status `OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error: its prefix, a space, its text. Line breaks become spaces, since the text may
    /// quote what a client sent.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.out.push(b'-');
        let text = text.as_ref();
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        self.out.extend(text.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }));
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.number(b':', value);
    }

    /// A count, as an integer; held at the largest integer.
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A bulk string.
    pub fn bulk(&mut self, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.out.reserve(value.len().saturating_add(16));
        self.length(b'$', value.len());
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A bulk string, or null.
    pub fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bulk(value),
            None => self.null(),
        }
    }

    /// Nothing, where a string would stand.
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => b"$-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// Nothing, where an array would stand.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => b"*-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array; `len` parts follow.
    pub fn array(&mut self, len: usize) {
        self.length(b'*', len);
    }

    /// The head of a map; `len` times a key and a value follow.
    pub fn map(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.length(b'*', len.saturating_mul(2)),
            Proto::Resp3 => self.length(b'%', len),
        }
    }

    /// The head of a set; `len` parts follow.
    pub fn set(&mut self, len: usize) {
        self.by_proto(b'*', b'~', len);
    }

    /// The head of a message that answers no request; `len` parts follow.
    pub fn push(&mut self, len: usize) {
        self.by_proto(b'*', b'>', len);
    }

    /// A floating-point number.
    pub fn double(&mut self, value: f64) {
        let text = double_text(value);
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// A truth value.
    pub fn boolean(&mut self, value: bool) {
        match self.proto {
            Proto::Resp2 => self.integer(i64::from(value)),
            Proto::Resp3 => self.line(b'#', if value { b"t" } else { b"f" }),
        }
    }

    /// An integer of any size, as its digits.
    pub fn big_number(&mut self, digits: &str) {
        match self.proto {
            Proto::Resp2 => self.bulk(digits),
            Proto::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// Text for people, with its format in three letters: `txt` or `mkd`.
    pub fn verbatim(&mut self, format: [u8; 3], text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => {
                self.length(b'=', text.len().saturating_add(4));
                self.out.extend_from_slice(&format);
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A whole reply.
    pub fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Simple(text) => self.line(b'+', text),
            Reply::Error(text) => self.error(text),
            Reply::Integer(value) => self.integer(*value),
            Reply::Bulk(value) => self.bulk(value),
            Reply::Null => self.null(),
            Reply::NullArray => self.null_array(),
            Reply::Array(parts) => {
                self.array(parts.len());
                self.replies(parts);
            }
            Reply::Set(parts) => {
                self.set(parts.len());
                self.replies(parts);
            }
            Reply::Push(parts) => {
                self.push(parts.len());
                self.replies(parts);
            }
            Reply::Map(pairs) => {
                self.map(pairs.len());
                for (key, value) in pairs {
                    self.reply(key);
                    self.reply(value);
                }
            }
            Reply::Double(value) => self.double(*value),
            Reply::Boolean(value) => self.boolean(*value),
            Reply::BigNumber(digits) => self.big_number(digits),
            Reply::Verbatim { format, text } => self.verbatim(*format, text),
        }
    }

    /// Bytes that are a reply in this protocol already.
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn replies(&mut self, parts: &[Reply]) {
        for part in parts {
            self.reply(part);
        }
    }

    fn by_proto(&mut self, resp2: u8, resp3: u8, len: usize) {
        let kind = match self.proto {
            Proto::Resp2 => resp2,
            Proto::Resp3 => resp3,
        };
        self.length(kind, len);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    fn length(&mut self, kind: u8, len: usize) {
        self.number(kind, len);
    }

    fn number(&mut self, kind: u8, value: impl itoa::Integer) {
        self.line(kind, itoa::Buffer::new().format(value).as_bytes());
    }
}

/// The shortest digits that read back as `value`, with an exponent where they would be long.
fn double_text(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
    } else if size != 0.0 && !(1e-5..1e17).contains(&size) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}
