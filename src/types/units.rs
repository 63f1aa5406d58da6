//! Sizes and spans as people write them: `512MiB`, `250ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ByteSize(pub u64);

/// Why a size or span was not understood. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not a size.
    #[error("not a size: {0:?}; write a number and B, KiB, MiB, GiB or TiB, as in `512MiB`")]
    Size(String),
    /// Not a span of time.
    #[error("not a span of time: {0:?}; write a number and ms, s, m, h or d, as in `250ms`")]
    Span(String),
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// `number × unit`, exactly where the number is whole.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let base = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(base);
    }
    let digits = u128::from(fraction.parse::<u64>().ok()?);
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    base.checked_add(u64::try_from(digits * u128::from(unit) / scale).ok()?)
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text);
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(UnitError::Size(text.to_owned())),
        };
        scaled(number, unit).map(Self).ok_or_else(|| UnitError::Size(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (name, unit) in UNITS {
            if self.0 >= unit {
                if self.0.is_multiple_of(unit) {
                    return f.pad(&format!("{}{name}", self.0 / unit));
                }
                let tenths = u128::from(self.0) * 10 / u128::from(unit);
                return f.pad(&format!("{}.{}{name}", tenths / 10, tenths % 10));
            }
        }
        f.pad(&format!("{}B", self.0))
    }
}

/// Reads a span such as `250ms`, `5s`, `10m`; a bare number is seconds.
pub fn parse_span(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text);
    let wrong = || UnitError::Span(text.to_owned());
    let nanos: u64 = match unit {
        "us" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(wrong()),
    };
    scaled(number, nanos).map(Duration::from_nanos).ok_or_else(wrong)
}

/// Writes a span in its largest whole unit.
pub fn format_span(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0 if !span.is_zero() => format!("{}us", span.as_micros()),
        0 => "0s".to_owned(),
        m if m % 86_400_000 == 0 => format!("{}d", m / 86_400_000),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1_000 == 0 => format!("{}s", m / 1_000),
        m => format!("{m}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_come_back_as_written() {
        for text in ["512MiB", "4GiB", "1.5KiB", "17B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["250ms", "5s", "10m", "1h", "2d"] {
            assert_eq!(format_span(parse_span(text).unwrap()), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "MiB", "5 parsecs", "-1", "99999999999999999999", "1.2.3GiB", "."] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
