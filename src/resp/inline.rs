//! Splits an inline request into words by the quoting rules of `redis-cli`.
//!
//! Words are separated by white space. Inside double quotes `\n \r \t \b \a` and `\xHH` stand for a
//! byte and a backslash keeps any other one; inside single quotes only `\'` is special. A closing
//! quote must be followed by white space or by the end.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::iter::Peekable;
use std::slice::Iter;

use smallvec::SmallVec;

/// The words of a line, end to end in one buffer.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) bytes: Vec<u8>,
    pub(super) spans: SmallVec<[(u32, u32); 8]>,
}

type Bytes<'a> = Peekable<Iter<'a, u8>>;

/// The words of `line`; `None` if its quotes do not pair.
pub(super) fn split(line: &[u8]) -> Option<Words> {
    let mut words = Words::default();
    let mut rest = line.iter().peekable();
    loop {
        while rest.next_if(|byte| is_space(**byte)).is_some() {}
        if rest.peek().is_none() {
            return Some(words);
        }
        let start = words.bytes.len();
        word(&mut rest, &mut words.bytes)?;
        words.spans.push(super::decode::span(start..words.bytes.len()).ok()?);
    }
}

/// Reads one word up to the white space behind it.
fn word(rest: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => return Some(()),
            b'"' => return double_quoted(rest, out),
            b'\'' => return single_quoted(rest, out),
            other => out.push(*other),
        }
    }
    Some(())
}

fn double_quoted(rest: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    loop {
        match rest.next()? {
            b'"' => return closed(rest),
            b'\\' => out.push(escaped(rest)),
            other => out.push(*other),
        }
    }
}

/// The byte that stands behind a backslash; at the end of the line the backslash itself, and the
/// missing quote is noticed next.
fn escaped(rest: &mut Bytes<'_>) -> u8 {
    let Some(byte) = rest.next() else { return b'\\' };
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        b'x' => {
            let mut ahead = rest.clone();
            match (ahead.next().copied().and_then(hex), ahead.next().copied().and_then(hex)) {
                (Some(high), Some(low)) => {
                    *rest = ahead;
                    high << 4 | low
                }
                _ => b'x',
            }
        }
        other => *other,
    }
}

fn single_quoted(rest: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    loop {
        match rest.next()? {
            b'\'' => return closed(rest),
            b'\\' if rest.next_if(|byte| **byte == b'\'').is_some() => out.push(b'\''),
            other => out.push(*other),
        }
    }
}

fn closed(rest: &mut Bytes<'_>) -> Option<()> {
    rest.peek().is_none_or(|byte| is_space(**byte)).then_some(())
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
