//! Times in arguments: `EX`, `PX`, `EXAT`, `PXAT`, and what EXPIRE and its kin take.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::command::error::CommandError;
use crate::command::number::parse_integer;
use crate::types::WallMillis;

/// How a number gives an expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Seconds since the Unix epoch.
    SecondsAt,
    /// Milliseconds since the Unix epoch.
    MillisAt,
}

impl Expiry {
    /// The option of this name in SET and GETEX.
    pub(super) fn named(option: &[u8]) -> Option<Self> {
        [
            ("EX", Self::Seconds),
            ("PX", Self::Millis),
            ("EXAT", Self::SecondsAt),
            ("PXAT", Self::MillisAt),
        ]
        .into_iter()
        .find_map(|(name, unit)| option.eq_ignore_ascii_case(name.as_bytes()).then_some(unit))
    }

    const fn in_seconds(self) -> bool {
        matches!(self, Self::Seconds | Self::SecondsAt)
    }

    /// What the number counts from, in milliseconds.
    fn base(self, now: WallMillis) -> i64 {
        match self {
            Self::Seconds | Self::Millis => i64::try_from(now.0).unwrap_or(i64::MAX),
            Self::SecondsAt | Self::MillisAt => 0,
        }
    }

    /// The instant that a number gives, in milliseconds of either sign; `None` if it does not fit.
    pub(super) fn instant(self, number: i64, now: WallMillis) -> Option<i64> {
        let millis = if self.in_seconds() { number.checked_mul(1000)? } else { number };
        millis.checked_add(self.base(now))
    }
}

/// An expiry as SET, SETEX and GETEX take it, not yet judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpiryArgument<'a> {
    /// What the number means.
    pub(super) unit: Expiry,
    /// The number.
    pub(super) text: &'a [u8],
}

impl ExpiryArgument<'_> {
    /// The instant; zero and negative numbers are refused. `command` is named in the error.
    pub(super) fn instant(
        self,
        command: &'static str,
        now: WallMillis,
    ) -> Result<WallMillis, CommandError> {
        let refused = CommandError::InvalidExpire(command);
        let number = parse_integer(self.text)?;
        if number <= 0 {
            return Err(refused);
        }
        let instant = self.unit.instant(number, now).and_then(|at| u64::try_from(at).ok());
        instant.map(WallMillis).ok_or(refused)
    }
}
