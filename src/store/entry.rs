//! The resident form of a record: one allocation, packed.
//!
//! ```text
//!   flags 1 │ version 12 │ key length 1 or 4 │ expiry 0 or 8 │ key │ value to the end
//! ```
//!
//! Flags: bit 0 has an expiry, bits 1–2 count recent uses for the eviction, bit 3 is a tombstone,
//! bit 4 has a key length of four bytes. Numbers are little-endian and unaligned.

use crate::types::{BodyRef, RecordRef, Version, WallMillis};

const EXPIRES: u8 = 1;
const USES: u8 = 0b110;
const ONE_USE: u8 = 0b010;
const TOMBSTONE: u8 = 1 << 3;
const LONG_KEY: u8 = 1 << 4;

const VERSION_AT: usize = 1;
const KEY_LENGTH_AT: usize = VERSION_AT + Version::BYTES;
/// Bytes that the processor takes from memory at once.
const LINE: usize = 64;
/// From this size on the allocator maps whole pages.
const MAPPED_FROM: usize = 128 * 1024;

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

/// The bytes that an entry of this record is charged.
pub(super) fn charged_record(record: &RecordRef<'_>) -> usize {
    charged_for(packed_len(record))
}

const fn length_field(key: usize) -> usize {
    if key <= u8::MAX as usize { 1 } else { 4 }
}

const fn expiry_field(expires: bool) -> usize {
    if expires { 8 } else { 0 }
}

/// One entry of a slot's table.
pub(super) struct Entry(Box<[u8]>);

impl Entry {
    /// Packs a record. It counts as used once, so that it outlives the eviction's next round.
    pub(super) fn new(record: &RecordRef<'_>) -> Self {
        let mut entry = Self(vec![0; packed_len(record)].into_boxed_slice());
        entry.write(record, ONE_USE);
        entry
    }

    /// Puts another record of the same key in place, without a new allocation where the length is
    /// the same.
    pub(super) fn overwrite(&mut self, record: &RecordRef<'_>) {
        self.touch();
        let uses = self.0[0] & USES;
        if self.0.len() != packed_len(record) {
            self.0 = vec![0; packed_len(record)].into_boxed_slice();
        }
        self.write(record, uses);
    }

    /// The tombstone of this entry's key and version.
    pub(super) fn tombstone(&self) -> Self {
        Self::new(&RecordRef { expires_at: None, body: BodyRef::Tombstone, ..self.record() })
    }

    fn write(&mut self, record: &RecordRef<'_>, uses: u8) {
        let mut flags = uses;
        let key_length = record.key.len();
        let bytes = &mut *self.0;
        bytes[VERSION_AT..KEY_LENGTH_AT].copy_from_slice(&record.version.to_bytes());
        let mut at = KEY_LENGTH_AT;
        if length_field(key_length) == 1 {
            bytes[at] = u8::try_from(key_length).unwrap_or(u8::MAX);
            at += 1;
        } else {
            flags |= LONG_KEY;
            let length = u32::try_from(key_length).expect("keys are far shorter than 4 GiB");
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            at += 4;
        }
        if let (BodyRef::String(_), Some(expiry)) = (record.body, record.expires_at) {
            flags |= EXPIRES;
            bytes[at..at + 8].copy_from_slice(&expiry.0.to_le_bytes());
            at += 8;
        }
        bytes[at..at + key_length].copy_from_slice(record.key);
        match record.body {
            BodyRef::String(value) => bytes[at + key_length..].copy_from_slice(value),
            BodyRef::Tombstone => flags |= TOMBSTONE,
        }
        bytes[0] = flags;
    }

    /// Reads a byte of each of the first lines of memory that the entry covers.
    pub(super) fn warm(&self) -> u8 {
        let byte = |at: usize| self.0.get(at).copied().unwrap_or_default();
        byte(0) ^ byte(LINE) ^ byte(2 * LINE)
    }

    fn has(&self, flag: u8) -> bool {
        self.0[0] & flag != 0
    }

    /// Where the expiry stands, if there is one; else the key.
    fn fields_at(&self) -> usize {
        KEY_LENGTH_AT + if self.has(LONG_KEY) { 4 } else { 1 }
    }

    fn key_range(&self) -> (usize, usize) {
        let start = self.fields_at() + expiry_field(self.has(EXPIRES));
        let length = if self.has(LONG_KEY) {
            u32::from_le_bytes(self.array(KEY_LENGTH_AT)) as usize
        } else {
            usize::from(self.0[KEY_LENGTH_AT])
        };
        (start, start + length)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }

    /// The stored key.
    pub(super) fn key(&self) -> &[u8] {
        let (start, end) = self.key_range();
        &self.0[start..end]
    }

    /// The version.
    pub(super) fn version(&self) -> Version {
        Version::from_bytes(self.array(VERSION_AT))
    }

    /// When the value stops being served.
    pub(super) fn expires_at(&self) -> Option<WallMillis> {
        let at = self.fields_at();
        self.has(EXPIRES).then(|| WallMillis(u64::from_le_bytes(self.array(at))))
    }

    /// Whether this is a tombstone.
    pub(super) fn is_tombstone(&self) -> bool {
        self.has(TOMBSTONE)
    }

    /// Whether the value's time is over by `now`; never for a tombstone.
    pub(super) fn is_expired(&self, now: WallMillis) -> bool {
        self.expires_at().is_some_and(|expiry| expiry <= now)
    }

    /// The record that was packed.
    pub(super) fn record(&self) -> RecordRef<'_> {
        let (start, end) = self.key_range();
        let body =
            if self.is_tombstone() { BodyRef::Tombstone } else { BodyRef::String(&self.0[end..]) };
        RecordRef {
            key: &self.0[start..end],
            version: self.version(),
            expires_at: self.expires_at(),
            body,
        }
    }

    /// Counts a use, up to three.
    pub(super) fn touch(&mut self) {
        if self.0[0] & USES != USES {
            self.0[0] += ONE_USE;
        }
    }

    /// Takes one use away; `false` if there was none left.
    pub(super) fn cool(&mut self) -> bool {
        let used = self.has(USES);
        if used {
            self.0[0] -= ONE_USE;
        }
        used
    }

    /// The bytes this entry is charged.
    pub(super) const fn charged(&self) -> usize {
        charged_for(self.0.len())
    }
}

fn packed_len(record: &RecordRef<'_>) -> usize {
    let (value, expires) = match record.body {
        BodyRef::String(value) => (value.len(), record.expires_at.is_some()),
        BodyRef::Tombstone => (0, false),
    };
    KEY_LENGTH_AT
        + length_field(record.key.len())
        + expiry_field(expires)
        + record.key.len()
        + value
}

/// A stored entry, borrowed from its shard.
#[derive(Clone, Copy)]
pub struct EntryRef<'a>(&'a Entry);

impl<'a> EntryRef<'a> {
    pub(super) const fn new(entry: &'a Entry) -> Self {
        Self(entry)
    }

    /// Everything as a record.
    pub fn record(self) -> RecordRef<'a> {
        self.0.record()
    }

    /// The stored key: database byte and name.
    pub fn key(self) -> &'a [u8] {
        self.0.key()
    }

    /// The version.
    pub fn version(self) -> Version {
        self.0.version()
    }

    /// When the value stops being served; `None` for never and for a tombstone.
    pub fn expires_at(self) -> Option<WallMillis> {
        self.0.expires_at()
    }

    /// The value; `None` for a tombstone. It may have expired.
    pub fn value(self) -> Option<&'a [u8]> {
        match self.0.record().body {
            BodyRef::String(value) => Some(value),
            BodyRef::Tombstone => None,
        }
    }

    /// Whether this is a tombstone.
    pub fn is_tombstone(self) -> bool {
        self.0.is_tombstone()
    }

    /// Whether there is a value whose time is not over by `now`.
    pub fn is_live(self, now: WallMillis) -> bool {
        !self.0.is_tombstone() && !self.0.is_expired(now)
    }

    /// The bytes it is charged, its place in the table not included.
    pub const fn charged(self) -> usize {
        self.0.charged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was_packed(
            key in proptest::collection::vec(any::<u8>(), 1..600),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            expiry in proptest::option::of(any::<u64>()),
            clock in 0u64..1 << 48,
            term in any::<u16>(),
        ) {
            let record = RecordRef {
                key: &key,
                version: Version { term, clock, origin: 7 },
                expires_at: value.as_ref().and(expiry).map(WallMillis),
                body: value.as_deref().map_or(BodyRef::Tombstone, BodyRef::String),
            };
            let mut entry = Entry::new(&record);
            prop_assert_eq!(entry.record(), record);
            prop_assert_eq!(entry.key(), &key[..]);
            prop_assert_eq!(entry.charged(), charged_record(&record));
            let tombstone = entry.tombstone();
            prop_assert_eq!(tombstone.record().body, BodyRef::Tombstone);
            prop_assert_eq!(tombstone.version(), record.version);
            entry.overwrite(&tombstone.record());
            prop_assert_eq!(entry.record(), tombstone.record());
        }
    }

    #[test]
    fn uses_are_counted_to_three() {
        let key = [0, b'k'];
        let body = BodyRef::String(b"v");
        let record = RecordRef { key: &key, version: Version::ZERO, expires_at: None, body };
        let mut entry = Entry::new(&record);
        for _ in 0..5 {
            entry.touch();
        }
        assert_eq!(
            [entry.cool(), entry.cool(), entry.cool(), entry.cool()],
            [true, true, true, false]
        );
        assert_eq!(entry.record(), record);
    }
}
