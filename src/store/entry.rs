//! The resident form of a record, byte by byte, as it stands in a page.
//!
//! ```text
//!   inside   flags 1 │ key length 1 │ value length 2 │ clock 6 │ stamp 2 or 6 │ expiry 0, 6 or 8 │ key │ value
//!   outside  flags 1 │      0       │       0        │ clock 6 │ stamp 2 or 6 │ expiry 0, 6 or 8 │ number 4
//!   dead     flags 1 │      –       │    length 2    │ …
//! ```
//!
//! The stamp is what the version has beside its clock, by its number in [`super::stamps`]; whole
//! where it has none. A page is walked from its start: each entry says how long it is, a dead one too. What is large,
//! or has a key of more than 255 bytes, stands in an allocation of its own ([`super::outside`]), and
//! its entry keeps the place in the order. Numbers are little-endian and unaligned.

use super::outside;
use super::stamps::{Stamp, Stamps};
use crate::types::{BodyRef, RecordRef, Version, WallMillis};

const EXPIRES: u8 = 1;
const USES: u8 = 0b110;
const ONE_USE: u8 = 0b010;
const OUTSIDE: u8 = 1 << 3;
const TOMBSTONE: u8 = 1 << 4;
/// An expiry that six bytes do not hold: after the year 10,000.
const LATE: u8 = 1 << 5;
/// The stamp stands here whole.
const STAMPED: u8 = 1 << 6;
const DEAD: u8 = 1 << 7;

const KEY_LENGTH_AT: usize = 1;
const VALUE_LENGTH_AT: usize = 2;
const CLOCK_AT: usize = 4;
const CLOCK_LEN: usize = 6;
const STAMP_AT: usize = CLOCK_AT + CLOCK_LEN;
/// Bytes of a stamp's number.
const STAMP_NUMBER_LEN: usize = 2;
/// Bytes of a stamp's term, before its origin.
const TERM_LEN: usize = 2;
/// Bytes of a whole stamp.
const STAMP_LEN: usize = TERM_LEN + 4;
/// Bytes of the shortest dead stretch: it says how long it is.
const DEAD_LEN_MIN: usize = CLOCK_AT;
/// Bytes of an outside value's number.
const NUMBER_LEN: usize = 4;
/// No outside value has this number.
const DISOWNED: u32 = u32::MAX;
/// Bytes that the processor takes from memory at once.
const LINE: usize = 64;
/// From this size on the allocator maps whole pages.
const MAPPED_FROM: usize = 128 * 1024;
/// Uses that are counted.
pub(super) const USES_MAX: u8 = 3;

/// What an allocation of `bytes` takes from the system: malloc's header and its rounding to 16,
/// and whole pages for large ones.
pub(super) const fn charged_for(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else if bytes >= MAPPED_FROM {
        (bytes + 16).next_multiple_of(4096)
    } else {
        let chunk = (bytes + 8).next_multiple_of(16);
        if chunk < 32 { 32 } else { chunk }
    }
}

/// How a record stands in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    flags: u8,
    key: usize,
    value: usize,
    /// Bytes in the page.
    pub(super) len: usize,
}

/// The numbers by which an entry names what stands elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// That of its stamp; without meaning where that stands in the entry.
    pub(super) stamp: u16,
    /// That of its outside value, if it has one.
    pub(super) outside: u32,
}

impl Shape {
    /// The shape of a record where an entry has at most `inside_max` bytes; `numbered` says whether its
    /// stamp has a number.
    pub(super) fn of(record: &RecordRef<'_>, inside_max: usize, numbered: bool) -> Self {
        let (mut flags, value) = match record.body {
            BodyRef::String(value) => (expiry_flags(record.expires_at), value.len()),
            BodyRef::Tombstone => (TOMBSTONE, 0),
        };
        flags |= if numbered { 0 } else { STAMPED };
        let key = record.key.len();
        let head = head_len(flags);
        let mut len = head + key + value;
        if len > inside_max || key > usize::from(u8::MAX) {
            flags |= OUTSIDE;
            len = head + NUMBER_LEN;
        }
        Self { flags, key, value, len }
    }

    pub(super) const fn is_outside(self) -> bool {
        self.flags & OUTSIDE != 0
    }

    pub(super) const fn is_tombstone(self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    /// Bytes charged beside the page.
    pub(super) const fn outside_bytes(self) -> usize {
        if self.is_outside() { outside::charged(self.key, self.value) } else { 0 }
    }

    /// Bytes in the page and beside it.
    pub(super) const fn charged(self) -> usize {
        self.len + self.outside_bytes()
    }

    pub(super) const fn is_numbered(self) -> bool {
        self.flags & STAMPED == 0
    }

    /// Writes the record to the start of `bytes`.
    pub(super) fn write(
        self,
        bytes: &mut [u8],
        record: &RecordRef<'_>,
        uses: u8,
        numbers: Numbers,
    ) {
        bytes[0] = self.flags | uses.min(USES_MAX) << USES.trailing_zeros();
        self.write_version(bytes, record.version, numbers.stamp);
        let mut at = expiry_at(self.flags);
        if let Some(expiry) = record.expires_at.filter(|_| self.flags & EXPIRES != 0) {
            let length = expiry_len(self.flags);
            bytes[at..at + length].copy_from_slice(&expiry.0.to_le_bytes()[..length]);
            at += length;
        }
        let (key, value) = if self.is_outside() { (0, 0) } else { (self.key, self.value) };
        bytes[KEY_LENGTH_AT] = u8::try_from(key).unwrap_or_default();
        let value = u16::try_from(value).unwrap_or_default();
        bytes[VALUE_LENGTH_AT..CLOCK_AT].copy_from_slice(&value.to_le_bytes());
        if self.is_outside() {
            bytes[at..at + NUMBER_LEN].copy_from_slice(&numbers.outside.to_le_bytes());
            return;
        }
        bytes[at..at + key].copy_from_slice(record.key);
        if let BodyRef::String(value) = record.body {
            bytes[at + key..self.len].copy_from_slice(value);
        }
    }

    fn write_version(self, bytes: &mut [u8], version: Version, number: u16) {
        bytes[CLOCK_AT..STAMP_AT].copy_from_slice(&version.clock.to_le_bytes()[..CLOCK_LEN]);
        let stamp = &mut bytes[STAMP_AT..expiry_at(self.flags)];
        if self.is_numbered() {
            stamp.copy_from_slice(&number.to_le_bytes());
        } else {
            stamp[..TERM_LEN].copy_from_slice(&version.term.to_le_bytes());
            stamp[TERM_LEN..].copy_from_slice(&version.origin.to_le_bytes());
        }
    }
}

fn expiry_flags(expires_at: Option<WallMillis>) -> u8 {
    match expires_at {
        None => 0,
        Some(WallMillis(expiry)) if expiry < 1 << 48 => EXPIRES,
        Some(_) => EXPIRES | LATE,
    }
}

const fn expiry_at(flags: u8) -> usize {
    STAMP_AT + if flags & STAMPED == 0 { STAMP_NUMBER_LEN } else { STAMP_LEN }
}

/// Bytes before the key, or before the number of what stands outside.
const fn head_len(flags: u8) -> usize {
    expiry_at(flags) + expiry_len(flags)
}

const fn expiry_len(flags: u8) -> usize {
    match (flags & EXPIRES, flags & LATE) {
        (0, _) => 0,
        (_, 0) => 6,
        (_, _) => 8,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The bytes that an entry takes in its page, dead or not.
pub(super) fn len(bytes: &[u8]) -> usize {
    let length = usize::from(u16::from_le_bytes(array(bytes, VALUE_LENGTH_AT)));
    let flags = bytes[0];
    if flags & DEAD != 0 {
        return length;
    }
    let head = head_len(flags);
    if flags & OUTSIDE != 0 {
        head + NUMBER_LEN
    } else {
        head + usize::from(bytes[KEY_LENGTH_AT]) + length
    }
}

/// Marks an entry as dead.
pub(super) fn kill(bytes: &mut [u8]) {
    let length = len(bytes);
    bury(bytes, length);
}

/// Makes a dead stretch of so many bytes, [`DEAD_LEN_MIN`] at least.
pub(super) fn bury(bytes: &mut [u8], length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    bytes[0] = DEAD;
    bytes[VALUE_LENGTH_AT..CLOCK_AT].copy_from_slice(&length.to_le_bytes());
}

pub(super) const fn is_dead(bytes: &[u8]) -> bool {
    bytes[0] & DEAD != 0
}

/// The number of the outside value, if the entry has it still.
pub(super) fn outside_number(bytes: &[u8]) -> Option<u32> {
    let flags = bytes[0];
    let outside = flags & (OUTSIDE | DEAD) == OUTSIDE;
    let number = outside.then(|| u32::from_le_bytes(array(bytes, head_len(flags))));
    number.filter(|number| *number != DISOWNED)
}

/// Takes the outside value from an entry that is to die: another one has it now.
pub(super) fn disown(bytes: &mut [u8]) {
    let at = head_len(bytes[0]);
    bytes[at..at + NUMBER_LEN].copy_from_slice(&DISOWNED.to_le_bytes());
}

/// The number of the stamp.
pub(super) fn stamp_number(bytes: &[u8]) -> Option<u16> {
    let numbered = bytes[0] & (STAMPED | DEAD) == 0;
    numbered.then(|| u16::from_le_bytes(array(bytes, STAMP_AT)))
}

/// Uses since it was appended, up to three.
pub(super) const fn uses(bytes: &[u8]) -> u8 {
    (bytes[0] & USES) >> USES.trailing_zeros()
}

/// Counts a use.
pub(super) const fn touch(bytes: &mut [u8]) {
    if bytes[0] & USES != USES {
        bytes[0] += ONE_USE;
    }
}

/// Sets the number of uses.
pub(super) fn set_uses(bytes: &mut [u8], uses: u8) {
    bytes[0] = bytes[0] & !USES | uses.min(USES_MAX) << USES.trailing_zeros();
}

/// A stored entry, borrowed from its shard.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    /// From its start on, at least to its end.
    bytes: &'a [u8],
    /// Key and value where they stand outside.
    outside: Option<(&'a [u8], &'a [u8])>,
    stamps: &'a Stamps,
}

impl<'a> EntryRef<'a> {
    pub(super) const fn new(
        bytes: &'a [u8],
        outside: Option<(&'a [u8], &'a [u8])>,
        stamps: &'a Stamps,
    ) -> Self {
        Self { bytes, outside, stamps }
    }

    fn has(self, flag: u8) -> bool {
        self.bytes[0] & flag != 0
    }

    /// Reads a byte of each of the first lines of memory that the entry covers.
    pub(super) fn warm(self) -> u8 {
        let byte = |at: usize| self.bytes.get(at).copied().unwrap_or_default();
        byte(0) ^ byte(LINE) ^ byte(2 * LINE)
    }

    /// Whether it can be written over by a record of this shape.
    pub(super) fn has_shape(self, shape: Shape) -> bool {
        let flags = self.bytes[0] & !USES;
        flags == shape.flags
            && !shape.is_outside()
            && self.key().len() == shape.key
            && len(self.bytes) == shape.len
    }

    /// Whether a record of this shape can take its place and leave a dead stretch behind.
    pub(super) fn can_shrink_to(self, shape: Shape) -> bool {
        !self.has(OUTSIDE)
            && !shape.is_outside()
            && self.is_tombstone() == shape.is_tombstone()
            && len(self.bytes) >= shape.len + DEAD_LEN_MIN
    }

    fn parts(self) -> (&'a [u8], &'a [u8]) {
        self.outside.unwrap_or_else(|| {
            let start = head_len(self.bytes[0]);
            let middle = start + usize::from(self.bytes[KEY_LENGTH_AT]);
            (&self.bytes[start..middle], &self.bytes[middle..len(self.bytes)])
        })
    }

    /// The stored key: database byte and name.
    pub fn key(self) -> &'a [u8] {
        if let Some((key, _)) = self.outside {
            return key;
        }
        let start = head_len(self.bytes[0]);
        &self.bytes[start..start + usize::from(self.bytes[KEY_LENGTH_AT])]
    }

    /// Everything as a record.
    pub fn record(self) -> RecordRef<'a> {
        let (key, value) = self.parts();
        let body = if self.is_tombstone() { BodyRef::Tombstone } else { BodyRef::String(value) };
        RecordRef { key, version: self.version(), expires_at: self.expires_at(), body }
    }

    /// The version.
    pub fn version(self) -> Version {
        let mut clock = [0; 8];
        clock[..CLOCK_LEN].copy_from_slice(&self.bytes[CLOCK_AT..STAMP_AT]);
        self.stamp().at(u64::from_le_bytes(clock))
    }

    fn stamp(self) -> Stamp {
        stamp_number(self.bytes).map_or_else(
            || Stamp {
                term: u16::from_le_bytes(array(self.bytes, STAMP_AT)),
                origin: u32::from_le_bytes(array(self.bytes, STAMP_AT + TERM_LEN)),
            },
            |number| self.stamps.get(number),
        )
    }

    /// When the value stops being served; `None` for never and for a tombstone.
    pub fn expires_at(self) -> Option<WallMillis> {
        let length = expiry_len(self.bytes[0]);
        let mut bytes = [0; 8];
        let at = expiry_at(self.bytes[0]);
        bytes[..length].copy_from_slice(&self.bytes[at..at + length]);
        (length > 0).then(|| WallMillis(u64::from_le_bytes(bytes)))
    }

    /// The value; `None` for a tombstone. It may have expired.
    pub fn value(self) -> Option<&'a [u8]> {
        (!self.is_tombstone()).then(|| self.parts().1)
    }

    /// Whether this is a tombstone.
    pub fn is_tombstone(self) -> bool {
        self.has(TOMBSTONE)
    }

    /// Whether the value's time is over by `now`; never for a tombstone.
    pub fn is_expired(self, now: WallMillis) -> bool {
        self.expires_at().is_some_and(|expiry| expiry <= now)
    }

    /// Whether there is a value whose time is not over by `now`.
    pub fn is_live(self, now: WallMillis) -> bool {
        !self.is_tombstone() && !self.is_expired(now)
    }

    /// Uses since it came or was last spared by the eviction, up to three.
    pub const fn uses(self) -> u8 {
        uses(self.bytes)
    }

    /// Whether the key and value outside are just those of a record.
    pub(super) fn has_outside(self, record: &RecordRef<'_>) -> bool {
        let same = |(key, value)| key == record.key && BodyRef::String(value) == record.body;
        self.outside.is_some_and(same)
    }

    /// Bytes in its page.
    pub(super) fn len(self) -> usize {
        len(self.bytes)
    }

    /// The bytes it takes, its place in the table not included.
    pub fn charged(self) -> usize {
        let outside =
            self.outside.map_or(0, |(key, value)| outside::charged(key.len(), value.len()));
        len(self.bytes) + outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was_written(
            key in proptest::collection::vec(any::<u8>(), 1..256),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            expiry in proptest::option::of(any::<u64>()),
            late in any::<bool>(),
            clock in 0u64..1 << 48,
            term in any::<u16>(),
            uses in 0u8..=3,
            numbered in any::<bool>(),
        ) {
            let expiry = expiry.map(|expiry| WallMillis(if late { expiry } else { expiry >> 20 }));
            let record = RecordRef {
                key: &key,
                version: Version { term, clock, origin: 7 },
                expires_at: value.as_ref().and(expiry),
                body: value.as_deref().map_or(BodyRef::Tombstone, BodyRef::String),
            };
            let mut stamps = Stamps::default();
            let stamp = stamps.take(Stamp::of(record.version)).unwrap();
            let shape = Shape::of(&record, 1 << 13, numbered);
            prop_assert_eq!(shape.is_numbered(), numbered);
            prop_assert!(!shape.is_outside());
            prop_assert_eq!(shape.outside_bytes(), 0);
            let mut page = vec![0xff; shape.len + 9];
            shape.write(&mut page, &record, uses, Numbers { stamp, outside: 0 });
            prop_assert_eq!(stamp_number(&page), numbered.then_some(stamp));
            prop_assert_eq!(len(&page), shape.len);
            let entry = EntryRef::new(&page, None, &stamps);
            prop_assert_eq!(entry.record(), record);
            prop_assert_eq!(entry.key(), &key[..]);
            prop_assert_eq!(entry.uses(), uses);
            prop_assert!(entry.has_shape(shape));
            kill(&mut page);
            prop_assert!(is_dead(&page));
            prop_assert_eq!(stamp_number(&page), None);
            prop_assert_eq!(len(&page), shape.len);
        }
    }

    #[test]
    fn what_is_large_or_has_a_long_key_stands_outside() {
        let (long, short) = ([1; 256], [1; 255]);
        let record = |key, body| RecordRef { key, version: Version::ZERO, expires_at: None, body };
        for (record, outside) in [
            (record(&short[..], BodyRef::String(b"v")), false),
            (record(&long[..], BodyRef::String(b"v")), true),
            (record(&long[..], BodyRef::Tombstone), true),
            (record(&short[..], BodyRef::String(&[0; 1 << 10])), true),
        ] {
            let shape = Shape::of(&record, 1 << 10, false);
            assert_eq!(shape.is_outside(), outside);
            let mut page = vec![0; shape.len];
            shape.write(&mut page, &record, 0, Numbers { stamp: 0, outside: 77 });
            assert_eq!(outside_number(&page), outside.then_some(77));
            assert_eq!(len(&page), shape.len);
        }
    }

    #[test]
    fn uses_are_counted_to_three() {
        let record = RecordRef {
            key: b"\0k",
            version: Version::ZERO,
            expires_at: Some(WallMillis(5)),
            body: BodyRef::String(b"v"),
        };
        let shape = Shape::of(&record, 1 << 10, false);
        let mut page = vec![0; shape.len];
        shape.write(&mut page, &record, 0, Numbers::default());
        for expected in [1, 2, 3, 3] {
            touch(&mut page);
            assert_eq!(uses(&page), expected);
        }
        set_uses(&mut page, 1);
        assert_eq!(uses(&page), 1);
        assert_eq!(EntryRef::new(&page, None, &Stamps::default()).record(), record);
    }
}
