//! The floating-point arithmetic of INCRBYFLOAT: the 80-bit numbers of x86, in software.
//!
//! Redis reads, adds and prints with C's `long double`. Its results show it: 10.5 + 0.1 is 10.6
//! there, and 10.59999999999999964 with 64 bits. So the same format is kept here (a mantissa of 64
//! bits, exponents of 15), rounded to nearest even as the processor does, and printed as `%.17Lf`
//! without trailing zeros, the same on every machine.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::command::error::CommandError;

/// The longest text that is read; longer than any printed number.
const TEXT_MAX: usize = 5 * 1024;
/// Exponents of the leading bit.
const EXPONENT_MAX: i32 = 16_383;
const EXPONENT_MIN: i32 = -16_445;
/// Beyond these powers of ten every number is infinite, or zero.
const DECIMAL_MAX: i64 = 4_940;
const DECIMAL_MIN: i64 = -5_000;
/// Digits printed behind the point.
const PLACES: u32 = 17;

/// A number: zero, or `mantissa × 2^exponent` with the highest bit of the mantissa set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// A number that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// A finite one.
    Finite(Extended),
    /// `inf`, of either sign: readable, but nothing can be added to it.
    Infinite,
}

impl Number {
    /// Reads a number as C's `strtold` does: decimal, hexadecimal or `inf`; no space, and no
    /// number out of range.
    pub fn parse(text: &[u8]) -> Result<Self, CommandError> {
        if text.len() >= TEXT_MAX {
            return Err(CommandError::NotAFloat);
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Ok(Self::Infinite);
        }
        let magnitude = match text {
            [b'0', b'x' | b'X', rest @ ..] => hexadecimal(rest),
            _ => decimal(text),
        };
        let magnitude = magnitude.ok_or(CommandError::NotAFloat)?;
        Ok(Self::Finite(Extended { negative, ..magnitude }))
    }

    /// The sum; an error unless it is finite.
    pub fn plus(self, other: Self) -> Result<Extended, CommandError> {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.plus(b).ok_or(CommandError::NotFinite),
            _ => Err(CommandError::NotFinite),
        }
    }
}

impl Extended {
    const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// `bits × 2^exponent` rounded to 64 bits; `sticky` says that something lies below `bits`,
    /// which then has more than 64 of them. `None` if it is out of range.
    fn round(bits: u128, exponent: i32, sticky: bool) -> Option<Self> {
        if bits == 0 {
            return Some(Self::ZERO);
        }
        let length = bits.ilog2().saturating_add(1);
        let (mut mantissa, mut exponent) = if let Some(shift) = length.checked_sub(64)
            && shift > 0
        {
            let kept = u64::try_from(bits >> shift).ok()?;
            let rest = bits & !(u128::MAX << shift);
            let half = 1_u128 << shift.saturating_sub(1);
            let up = match rest.cmp(&half) {
                Ordering::Greater => true,
                Ordering::Equal => sticky || kept & 1 == 1,
                Ordering::Less => false,
            };
            (u128::from(kept).saturating_add(u128::from(up)), exponent.checked_add_unsigned(shift)?)
        } else {
            let shift = 64_u32.saturating_sub(length);
            (bits << shift, exponent.checked_sub_unsigned(shift)?)
        };
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            exponent = exponent.checked_add(1)?;
        }
        let leading = exponent.checked_add(63)?;
        let in_range = (EXPONENT_MIN..=EXPONENT_MAX).contains(&leading);
        let mantissa = u64::try_from(mantissa).ok()?;
        in_range.then_some(Self { negative: false, mantissa, exponent })
    }

    /// The sum; `None` if it is infinite.
    fn plus(self, other: Self) -> Option<Self> {
        if self.mantissa == 0 {
            return Some(other);
        }
        if other.mantissa == 0 {
            return Some(self);
        }
        let order = |number: &Self| (number.exponent, number.mantissa);
        let (large, small) =
            if order(&self) >= order(&other) { (self, other) } else { (other, self) };
        let apart = large.exponent.abs_diff(small.exponent);
        let high = u128::from(large.mantissa) << 63;
        let shifted = u128::from(small.mantissa) << 63;
        let (low, sticky) = match shifted.checked_shr(apart) {
            Some(low) => (low, low.checked_shl(apart) != Some(shifted)),
            None => (0, true),
        };
        let bits = if large.negative == small.negative {
            high.checked_add(low)?
        } else {
            // What was shifted out is taken away too: one less, and something above it.
            high.checked_sub(low)?.checked_sub(u128::from(sticky))?
        };
        let magnitude = Self::round(bits, large.exponent.checked_sub(63)?, sticky)?;
        Some(Self { negative: large.negative && magnitude.mantissa != 0, ..magnitude })
    }

    /// The number with at most 17 places behind the point and no trailing zero.
    pub fn to_text(self) -> String {
        let mut text = match u32::try_from(self.exponent) {
            Ok(shift) => Natural::from(u128::from(self.mantissa)).shifted(shift).into_decimal(),
            Err(_) => fixed(self.mantissa, self.exponent.unsigned_abs()),
        };
        if self.negative && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// `mantissa / 2^shift` with 17 places, rounded to nearest even, without trailing zeros.
fn fixed(mantissa: u64, shift: u32) -> String {
    const UNIT: u128 = 10_u128.pow(PLACES);
    let scaled = u128::from(mantissa).saturating_mul(UNIT);
    let rounded = match scaled.checked_shr(shift) {
        None => 0,
        Some(kept) => {
            let rest = scaled & !(u128::MAX << shift);
            let half = 1_u128 << shift.saturating_sub(1);
            let up = rest > half || (rest == half && kept & 1 == 1);
            kept.saturating_add(u128::from(up))
        }
    };
    let (whole, part) = (rounded / UNIT, rounded % UNIT);
    let text = format!("{whole}.{part:017}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads digits with an optional point and an optional exponent.
fn decimal(text: &[u8]) -> Option<Extended> {
    let (digits, exponent) = split_exponent(text, b'e');
    let exponent = exponent?;
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, part) = match point {
        Some(at) => (digits.get(..at)?, digits.get(at.checked_add(1)?..)?),
        None => (digits, &[][..]),
    };
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut number = Natural::from(0);
    for byte in whole.iter().chain(part) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.multiply_add(10, u32::from(digit));
    }
    if number.is_zero() {
        return Some(Extended::ZERO);
    }
    let exponent = exponent.saturating_sub_unsigned(u64::try_from(part.len()).ok()?);
    let leading = whole.iter().chain(part).skip_while(|byte| **byte == b'0').count();
    let size = exponent.saturating_add_unsigned(u64::try_from(leading).ok()?);
    if !(DECIMAL_MIN..=DECIMAL_MAX).contains(&size) {
        return None;
    }
    let mut divisor = Natural::from(1);
    let scale = if exponent < 0 { &mut divisor } else { &mut number };
    for _ in 0..exponent.unsigned_abs() {
        scale.multiply_add(10, 0);
    }
    let (bits, power, sticky) = number.divide(divisor)?;
    Extended::round(bits, power, sticky).filter(|number| number.mantissa != 0)
}

/// Reads what follows `0x`: hexadecimal digits with an optional point, and a power of two.
fn hexadecimal(text: &[u8]) -> Option<Extended> {
    let (digits, exponent) = split_exponent(text, b'p');
    let mut exponent = exponent?;
    let (mut bits, mut sticky, mut any, mut behind) = (0_u128, false, false, false);
    for byte in digits {
        if *byte == b'.' && !behind {
            behind = true;
            continue;
        }
        let digit = u128::from(char::from(*byte).to_digit(16)?);
        any = true;
        if bits >> 120 == 0 {
            bits = bits << 4 | digit;
            exponent = exponent.saturating_sub(if behind { 4 } else { 0 });
        } else {
            sticky |= digit != 0;
            exponent = exponent.saturating_add(if behind { 0 } else { 4 });
        }
    }
    if !any {
        return None;
    }
    if bits == 0 {
        return Some(Extended::ZERO);
    }
    Extended::round(bits, i32::try_from(exponent).ok()?, sticky)
}

/// Splits off the exponent behind `mark`; `None` in its place if it is malformed. An exponent
/// that does not fit is held at the largest.
fn split_exponent(text: &[u8], mark: u8) -> (&[u8], Option<i64>) {
    let Some(at) = text.iter().position(|byte| byte.eq_ignore_ascii_case(&mark)) else {
        return (text, Some(0));
    };
    let (digits, rest) = text.split_at(at);
    let (negative, rest) = match rest {
        [_, b'-', rest @ ..] => (true, rest),
        [_, b'+', rest @ ..] | [_, rest @ ..] => (false, rest),
        [] => (false, rest),
    };
    if rest.is_empty() || !rest.iter().all(u8::is_ascii_digit) {
        return (digits, None);
    }
    let value = rest.iter().fold(0_i64, |value, byte| {
        value.saturating_mul(10).saturating_add(i64::from(byte.wrapping_sub(b'0')))
    });
    (digits, Some(if negative { value.saturating_neg() } else { value }))
}

/// A natural number of any size: 32 bits each, the lowest first, no zero at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural(Vec<u32>);

#[expect(
    clippy::cast_possible_truncation,
    reason = "words are cut from wider intermediate results"
)]
impl Natural {
    fn from(value: u128) -> Self {
        let words = [value, value >> 32, value >> 64, value >> 96].map(|word| word as u32);
        let mut number = Self(words.to_vec());
        number.trim();
        number
    }

    const fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn multiply_add(&mut self, factor: u32, term: u32) {
        let mut carry = u64::from(term);
        for word in &mut self.0 {
            carry = carry.saturating_add(u64::from(*word).saturating_mul(u64::from(factor)));
            *word = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// How many bits it has.
    fn length(&self) -> u32 {
        let Some(last) = self.0.last() else { return 0 };
        let words = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        words.saturating_mul(32).saturating_sub(last.leading_zeros())
    }

    fn shifted(self, bits: u32) -> Self {
        let mut words = vec![0; (bits / 32) as usize];
        let mut carry = 0_u64;
        for word in self.0 {
            carry |= u64::from(word) << (bits % 32);
            words.push(carry as u32);
            carry >>= 32;
        }
        words.push(carry as u32);
        let mut number = Self(words);
        number.trim();
        number
    }

    fn double(&mut self) {
        let mut carry = 0;
        for word in &mut self.0 {
            let next = *word >> 31;
            *word = *word << 1 | carry;
            carry = next;
        }
        if carry > 0 {
            self.0.push(carry);
        }
    }

    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (at, word) in self.0.iter_mut().enumerate() {
            let (value, first) = word.overflowing_sub(other.0.get(at).copied().unwrap_or_default());
            let (value, second) = value.overflowing_sub(u32::from(borrow));
            *word = value;
            borrow = first || second;
        }
        self.trim();
    }

    fn compare(&self, other: &Self) -> Ordering {
        let by_words = || self.0.iter().rev().cmp(other.0.iter().rev());
        self.0.len().cmp(&other.0.len()).then_with(by_words)
    }

    /// The quotient as bits (65 or 66 of them) and a power of two, and whether a rest is left.
    fn divide(self, divisor: Self) -> Option<(u128, i32, bool)> {
        let (above, below) = (self.length(), divisor.length());
        let mut rest = self.shifted(below.saturating_sub(above));
        let divisor = divisor.shifted(above.saturating_sub(below));
        let mut quotient = 0_u128;
        for _ in 0..66 {
            quotient <<= 1;
            if rest.compare(&divisor).is_ge() {
                rest.subtract(&divisor);
                quotient |= 1;
            }
            rest.double();
        }
        let power = i64::from(above).checked_sub(i64::from(below))?.checked_sub(65)?;
        Some((quotient, i32::try_from(power).ok()?, !rest.is_zero()))
    }

    fn into_decimal(mut self) -> String {
        const GROUP: u64 = 1_000_000_000;
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0_u64;
            for word in self.0.iter_mut().rev() {
                rest = rest << 32 | u64::from(*word);
                *word = (rest / GROUP) as u32;
                rest %= GROUP;
            }
            self.trim();
            groups.push(rest);
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            let _writing_to_a_string_works = write!(text, "{group:09}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Result<String, String> {
        let read = |text: &str| Number::parse(text.as_bytes()).map_err(|error| error.to_string());
        let sum = read(a)?.plus(read(b)?).map_err(|error| error.to_string())?;
        Ok(sum.to_text())
    }

    #[test]
    fn sums_are_those_of_redis() {
        for (a, b, expected) in [
            ("10.5", "0.1", "10.6"),
            ("3.0e3", "200", "3200"),
            ("5.0e3", "2.0e2", "5200"),
            ("1", "-1", "0"),
            ("-0", "0", "0"),
            ("0x10", "0.5", "16.5"),
            (".5", "5.", "5.5"),
            ("17179869184", "-1.5", "17179869182.5"),
            ("1e20", "1", "100000000000000000000"),
            ("1e-20", "0", "0"),
            ("-1e-18", "0", "0"),
            ("0.1", "0.2", "0.3"),
            ("3", "1.000000000000000005", "4.00000000000000001"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Ok(expected), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", " 1", "1 ", "abc", "1e", "1e+", ".", "nan", "0x", "1e5000", "1e-5000", "--1"]
        {
            assert_eq!(sum(text, "1"), Err(CommandError::NotAFloat.to_string()), "{text}");
        }
        assert_eq!(sum("inf", "1"), Err(CommandError::NotFinite.to_string()));
        assert_eq!(sum("1e4932", "1e4932"), Err(CommandError::NotFinite.to_string()));
    }

    #[test]
    fn the_longest_numbers_are_read_soon() {
        let digits = "9".repeat(TEXT_MAX - 1);
        assert_eq!(sum(&digits, "1"), Err(CommandError::NotAFloat.to_string()));
        let small = format!("0.{digits}");
        assert_eq!(sum(&small[..TEXT_MAX - 1], "1").as_deref(), Ok("2"));
    }
}
