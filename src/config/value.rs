//! From the text of a setting to a typed, range-checked value, and back.
//!
//! The first of two stages: here text becomes a [`Value`] of the setting's [`Kind`], whatever source
//! it came from; the table then puts the value into the tree.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use crate::types::units::{format_span, parse_span};
use crate::types::{ByteSize, NodeName};

/// The port that a seed without one is asked at.
const SEED_PORT: u16 = 7401;

/// What kind of value a setting takes, with its range.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Count {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// A number outside the range that is allowed as well, and what it means.
        or: Option<(u64, &'static str)>,
    },
    /// `true` or `false`.
    Switch,
    /// A span of time.
    Span {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
        /// What zero means, where it is allowed although it is below `min`.
        zero: Option<&'static str>,
    },
    /// A number of bytes.
    Size {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// What zero means, where it is allowed although it is below `min`.
        zero: Option<&'static str>,
    },
    /// A number of bytes, or a share of the machine's memory such as `60%`.
    Memory {
        /// The least number of bytes.
        min: u64,
    },
    /// One address and port.
    Address,
    /// One or more addresses and ports.
    Addresses,
    /// `host[:port]`s.
    Seeds,
    /// The name of a node, a cluster or a zone.
    Name,
    /// A file or folder.
    Path,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A filter of log levels.
    Filter,
}

const EMPTY_SEED: &str = "a seed is empty: write host or host:port; \
                          to form a cluster of its own, leave the setting out";

/// How many elements a list may have.
const LIST_MAX: usize = 64;

/// A value that fits its setting's kind and range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Not set.
    Nothing,
    /// Of [`Kind::Count`].
    Count(u64),
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Span`].
    Span(Duration),
    /// Of [`Kind::Size`] and [`Kind::Memory`].
    Size(ByteSize),
    /// Of [`Kind::Address`] and [`Kind::Addresses`].
    Addresses(Vec<SocketAddr>),
    /// Of every other kind.
    Texts(Vec<String>),
}

/// The text of a setting: one or, from a list in the file or a repeated flag, several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Vec<String>);

impl Kind {
    /// Whether a setting of this kind takes a list.
    pub const fn is_list(self) -> bool {
        matches!(self, Self::Addresses | Self::Seeds)
    }

    /// The kind and its range, for help texts and the manual.
    pub fn describe(self) -> String {
        let with = |or: Option<&str>| or.map(|or| format!(", or 0: {or}")).unwrap_or_default();
        match self {
            Self::Count { min, max, or } => {
                let or = or.map(|(n, means)| format!(", or {n}: {means}")).unwrap_or_default();
                format!("{min} to {max}{or}")
            }
            Self::Switch => "true or false".to_owned(),
            Self::Span { min, max, zero } => {
                format!("{} to {}{}", format_span(min), format_span(max), with(zero))
            }
            Self::Size { min, max, zero } => {
                format!("{} to {}{}", ByteSize(min), ByteSize(max), with(zero))
            }
            Self::Memory { min } => format!("{} or more, or a share such as 60%", ByteSize(min)),
            Self::Address => "address:port".to_owned(),
            Self::Addresses => "address:port, or a list".to_owned(),
            Self::Seeds => "host or host:port, or a list".to_owned(),
            Self::Name => "letters, digits, `-`, `_`, `.`".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Choice(words) => words.join(", "),
            Self::Filter => "off, error, warn, info, debug, trace, or target=level,…".to_owned(),
        }
    }

    /// Reads a value; the error says what was wrong with the text, without naming the setting.
    pub fn parse(self, raw: &Raw, total_memory: ByteSize) -> Result<Value, String> {
        if self.is_list() {
            return self.parse_list(raw);
        }
        let [text] = raw.0.as_slice() else {
            return Err("takes one value, not a list".to_owned());
        };
        let text = text.trim();
        if text.is_empty() {
            return Ok(Value::Nothing);
        }
        match self {
            Self::Count { min, max, or } => {
                let number = text.parse().map_err(|_| format!("not a whole number: {text:?}"))?;
                let fits = (min..=max).contains(&number) || or.is_some_and(|(n, _)| n == number);
                self.within(fits, Value::Count(number), text)
            }
            Self::Switch => match text {
                "true" | "yes" | "on" | "1" => Ok(Value::Switch(true)),
                "false" | "no" | "off" | "0" => Ok(Value::Switch(false)),
                _ => Err(format!("neither true nor false: {text:?}")),
            },
            Self::Span { min, max, zero } => {
                let span = parse_span(text).map_err(|e| e.to_string())?;
                let fits = (min..=max).contains(&span) || (zero.is_some() && span.is_zero());
                self.within(fits, Value::Span(span), text)
            }
            Self::Size { min, max, zero } => {
                let size: ByteSize = parse_size(text)?;
                let fits = (min..=max).contains(&size.0) || (zero.is_some() && size.0 == 0);
                self.within(fits, Value::Size(size), text)
            }
            Self::Memory { min } => {
                let size = parse_memory(text, total_memory)?;
                self.within(size.0 >= min, Value::Size(size), text)
            }
            Self::Address => Ok(Value::Addresses(vec![parse_address(text)?])),
            Self::Name => {
                text.parse::<NodeName>().map_err(|e| e.to_string())?;
                Ok(Value::Texts(vec![text.to_owned()]))
            }
            Self::Choice(words) if !words.contains(&text) => {
                Err(format!("{text:?} is none of {}", words.join(", ")))
            }
            Self::Filter => match text.parse::<Targets>() {
                Ok(_) => Ok(Value::Texts(vec![text.to_owned()])),
                Err(error) => Err(format!("not a filter of log levels: {text:?} ({error})")),
            },
            Self::Path | Self::Choice(_) | Self::Addresses | Self::Seeds => {
                Ok(Value::Texts(vec![text.to_owned()]))
            }
        }
    }

    fn within(self, fits: bool, value: Value, text: &str) -> Result<Value, String> {
        if fits { Ok(value) } else { Err(format!("{text} is out of range: {}", self.describe())) }
    }

    fn parse_list(self, raw: &Raw) -> Result<Value, String> {
        let parts = raw.0.iter().flat_map(|text| text.split(',')).map(str::trim);
        let (parts, empty): (Vec<&str>, Vec<&str>) = parts.partition(|part| !part.is_empty());
        // A variable that a script left empty would make a cluster of one beside the real one.
        if matches!(self, Self::Seeds) && !empty.is_empty() {
            return Err(EMPTY_SEED.to_owned());
        }
        if parts.len() > LIST_MAX {
            return Err(format!("a list of {} is too long: at most {LIST_MAX}", parts.len()));
        }
        match self {
            _ if parts.is_empty() => Ok(Value::Nothing),
            Self::Addresses => {
                let addresses: Result<_, _> = parts.into_iter().map(parse_address).collect();
                addresses.map(Value::Addresses)
            }
            _ => parts.into_iter().map(parse_seed).collect::<Result<_, _>>().map(Value::Texts),
        }
    }
}

fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse::<ByteSize>().map_err(|error| error.to_string())
}

fn parse_memory(text: &str, total: ByteSize) -> Result<ByteSize, String> {
    let Some(share) = text.strip_suffix('%') else {
        return parse_size(text);
    };
    match share.trim().parse::<u64>() {
        Ok(share) if (1..=100).contains(&share) => {
            let bytes = u128::from(total.0) * u128::from(share) / 100;
            Ok(ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX)))
        }
        _ => Err(format!("not a share of the memory: {text:?}; write 1% to 100%")),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("not an address and port: {text:?}; write them as in 127.0.0.1:6379 or [::1]:6379")
    })
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare v6 address, always given back with a port.
fn parse_seed(text: &str) -> Result<String, String> {
    let wrong = || format!("not a seed: {text:?}; write host or host:port");
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{bare}]:{SEED_PORT}"));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    let port = if port.is_empty() { Ok(SEED_PORT) } else { port.parse().map_err(|_| wrong()) }?;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(letter) || port == 0 {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Nothing => Ok(()),
            Self::Count(number) => number.fmt(f),
            Self::Switch(on) => on.fmt(f),
            Self::Span(span) => f.write_str(&format_span(*span)),
            Self::Size(size) => {
                let rounded = size.to_string();
                let exact = rounded.parse() == Ok(*size);
                if exact { f.write_str(&rounded) } else { write!(f, "{}B", size.0) }
            }
            Self::Addresses(list) => {
                f.write_str(&joined(list.iter().map(ToString::to_string).collect()))
            }
            Self::Texts(list) => f.write_str(&joined(list.clone())),
        }
    }
}

/// The second stage's side: the table takes values apart knowing the kind of its own row, which a
/// test proves for every row.
impl Value {
    pub(super) fn count<T: TryFrom<u64>>(self) -> T {
        let Self::Count(number) = self else { unreachable!("BUG: not a count") };
        T::try_from(number).ok().expect("the row's range fits the field")
    }

    pub(super) fn switch(self) -> bool {
        let Self::Switch(on) = self else { unreachable!("BUG: not a switch") };
        on
    }

    pub(super) fn span(self) -> Duration {
        let Self::Span(span) = self else { unreachable!("BUG: not a span") };
        span
    }

    pub(super) fn size(self) -> ByteSize {
        let Self::Size(size) = self else { unreachable!("BUG: not a size") };
        size
    }

    pub(super) fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Addresses(list) => list,
            Self::Nothing => Vec::new(),
            _ => unreachable!("BUG: not addresses"),
        }
    }

    pub(super) fn address(self) -> Option<SocketAddr> {
        self.addresses().first().copied()
    }

    pub(super) fn texts(self) -> Vec<String> {
        match self {
            Self::Texts(list) => list,
            Self::Nothing => Vec::new(),
            _ => unreachable!("BUG: not text"),
        }
    }

    pub(super) fn text(self) -> Option<String> {
        self.texts().pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: Kind, text: &str) -> Result<Value, String> {
        kind.parse(&Raw(vec![text.to_owned()]), ByteSize(1000))
    }

    #[test]
    fn a_share_is_of_the_machine() {
        let kind = Kind::Memory { min: 10 };
        assert_eq!(parse(kind, "60%"), Ok(Value::Size(ByteSize(600))));
        assert_eq!(parse(kind, "2KiB"), Ok(Value::Size(ByteSize(2048))));
        for wrong in ["0%", "101%", "x%", "1B"] {
            assert!(parse(kind, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_get_the_peer_port() {
        let seed = |text| parse(Kind::Seeds, text).map(|value| value.to_string());
        assert_eq!(seed("a, b:99").unwrap(), "a:7401,b:99");
        assert_eq!(seed("::1").unwrap(), "[::1]:7401");
        assert_eq!(seed("[::1]:5").unwrap(), "[::1]:5");
        assert_eq!(seed("[fe80::2]").unwrap(), "[fe80::2]:7401");
        for wrong in ["a:b", "a:0", "a b", ":7", "http://a"] {
            assert!(seed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_seed_is_refused_and_no_seed_is_none() {
        let seeds = |list: &[&str]| {
            Kind::Seeds
                .parse(&Raw(list.iter().map(|text| (*text).to_owned()).collect()), ByteSize(1000))
        };
        assert_eq!(seeds(&[]), Ok(Value::Nothing));
        for wrong in [&[""][..], &["  "], &["a", ""], &["a,,b"], &["a,"], &[","]] {
            assert_eq!(seeds(wrong), Err(EMPTY_SEED.to_owned()), "{wrong:?}");
        }
        assert_eq!(parse(Kind::Addresses, ""), Ok(Value::Nothing), "an empty list of listeners");
    }

    #[test]
    fn zero_is_allowed_only_where_it_means_something() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(9));
        assert!(parse(Kind::Span { min, max, zero: None }, "0").is_err());
        assert!(parse(Kind::Span { min, max, zero: Some("never") }, "0").is_ok());
        assert!(parse(Kind::Span { min, max, zero: Some("never") }, "10s").is_err());
        let count = Kind::Count { min: 1200, max: 6500, or: Some((0, "found")) };
        assert!(parse(count, "0").is_ok() && parse(count, "7").is_err());
    }
}
