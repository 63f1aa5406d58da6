//! Integers as Redis reads and writes them.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;

/// Reads an integer: digits with at most a `-` before them, no leading zero, no space, 64 bits.
///
/// A string is an integer exactly if it is what [`itoa`] writes for one.
pub fn parse_integer(text: &[u8]) -> Result<i64, CommandError> {
    integer(text).ok_or(CommandError::NotAnInteger)
}

fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

/// Reads a cursor as C's `strtoul` does: digits after an optional sign, nothing behind them; the
/// empty string is 0.
pub fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() && !text.is_empty() {
        return Err(CommandError::Cursor);
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(CommandError::Cursor);
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit)))
            .ok_or(CommandError::Cursor)?;
    }
    Ok(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any::<i64>()) {
            prop_assert_eq!(parse_integer(value.to_string().as_bytes()), Ok(value));
        }
    }

    #[test]
    fn what_redis_does_not_write_is_not_read() {
        let wrong = ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "0x1", "9223372036854775808"];
        for text in wrong {
            assert_eq!(parse_integer(text.as_bytes()), Err(CommandError::NotAnInteger), "{text}");
        }
        assert_eq!(parse_integer(b"-9223372036854775808"), Ok(i64::MIN));
    }

    #[test]
    fn cursors_are_read_as_c_does() {
        assert_eq!(parse_cursor(b""), Ok(0));
        assert_eq!(parse_cursor(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_cursor(b"-1"), Ok(u64::MAX));
        for text in ["18446744073709551616", "a", "1a", " 1", "-"] {
            assert_eq!(parse_cursor(text.as_bytes()), Err(CommandError::Cursor), "{text}");
        }
    }
}
