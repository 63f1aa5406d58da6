//! Sealed packets: every datagram is encrypted and proves that its sender holds a key of the ring.
//!
//! ```text
//! version u8 │ key id u8 │ boot salt 8 B │ counter u64 LE │ ciphertext │ tag 16 B
//! └────────────── authenticated together with the cluster name ──────┘
//! ```
//!
//! Each process draws a boot salt and seals with a key of its own, derived from the ring's key and
//! that salt; the counter is the nonce, so no nonce is ever used twice under one key. A receiver
//! keeps a window of counters for each salt and takes no packet twice. After a restart of the
//! *receiver* an old packet may be taken once more, which SWIM's order of incarnations makes
//! harmless. What does not open is counted and dropped, never answered: no oracle, no amplifier.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::hkdf::{HKDF_SHA256, Prk};
use smallvec::SmallVec;
use thiserror::Error;
use zeroize::Zeroize;

use crate::limits::{GOSSIP_KEYS_MAX, GOSSIP_SENDERS_MAX};
use crate::types::ClusterName;

const VERSION: u8 = 1;
const HEADER: usize = 18;
const TAG: usize = 16;
const SALT: usize = 8;

/// Bytes that sealing adds to a packet.
pub const SEAL_OVERHEAD: usize = HEADER + TAG;

/// Counters behind the highest one that are still told apart.
const WINDOW_WORDS: usize = 16;
const WINDOW: u64 = 64 * WINDOW_WORDS as u64;

/// A key of the gossip key ring: 32 secret bytes, wiped when dropped.
#[derive(Clone)]
pub struct GossipKey([u8; 32]);

impl GossipKey {
    /// A key of these bytes; they must have the strength of 256 random bits.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be told to a member or kept.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Eight hex digits by which people tell keys apart. They say nothing of the key.
    pub fn fingerprint(&self) -> String {
        let mut hash = Context::new(&SHA256);
        hash.update(b"chickadee gossip key fingerprint");
        hash.update(&self.0);
        let first =
            hash.finish().as_ref().first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        format!("{first:08x}")
    }

    fn sender_key(&self, salt: [u8; SALT], cluster: &ClusterName) -> LessSafeKey {
        let info: [&[u8]; 3] = [b"chickadee gossip sender", &salt, cluster.as_str().as_bytes()];
        let prk = Prk::new_less_safe(HKDF_SHA256, &self.0);
        let okm = prk.expand(&info, &AES_256_GCM).expect("one AEAD key is never too long for HKDF");
        LessSafeKey::new(UnboundKey::from(okm))
    }
}

impl Drop for GossipKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipKey(…)")
    }
}

/// Why the key ring was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The ring has no key of this id: add it first.
    #[error("the key ring has no key {0}")]
    Unknown(u8),
    /// Another key has this id: choose another id.
    #[error("the key ring has another key {0}")]
    Taken(u8),
    /// The key that seals cannot be removed: use another one first.
    #[error("key {0} seals; use another one before it is removed")]
    InUse(u8),
    /// The ring is full: remove a key first.
    #[error("the key ring holds at most {GOSSIP_KEYS_MAX} keys")]
    Full,
}

/// The keys of a cluster's gossip: any of them opens, one seals.
#[derive(Clone, Debug)]
pub struct KeyRing {
    cluster: ClusterName,
    keys: BTreeMap<u8, GossipKey>,
    primary: u8,
}

impl KeyRing {
    /// A ring of one key, which seals.
    pub fn new(cluster: ClusterName, id: u8, key: GossipKey) -> Self {
        Self { cluster, keys: BTreeMap::from([(id, key)]), primary: id }
    }

    /// A ring of these keys; `None` if there are none or too many, an id is there twice, or the one
    /// that is to seal is not among them.
    pub fn of(
        cluster: ClusterName,
        keys: impl IntoIterator<Item = (u8, GossipKey)>,
        primary: u8,
    ) -> Option<Self> {
        let mut ring = Self { cluster, keys: BTreeMap::new(), primary };
        for (id, key) in keys {
            if ring.keys.len() >= GOSSIP_KEYS_MAX || ring.keys.insert(id, key).is_some() {
                return None;
            }
        }
        ring.keys.contains_key(&primary).then_some(ring)
    }

    /// Adds a key that opens under the next free id, which it returns. A key that is there already
    /// keeps its id.
    pub fn add_next(&mut self, key: GossipKey) -> Result<u8, KeyRingError> {
        if let Some((id, _)) = self.keys.iter().find(|(_, known)| known.0 == key.0) {
            return Ok(*id);
        }
        let last = self.keys.last_key_value().map_or(0, |(id, _)| *id);
        let after = (1..=u8::MAX).map(|step| last.wrapping_add(step));
        let free = after.into_iter().find(|id| !self.keys.contains_key(id));
        let id = free.ok_or(KeyRingError::Full)?;
        self.add(id, key).map(|()| id)
    }

    /// The keys by id, ascending.
    pub fn keys(&self) -> impl Iterator<Item = (u8, &GossipKey)> {
        self.keys.iter().map(|(id, key)| (*id, key))
    }

    /// The id of the key that seals.
    pub const fn primary(&self) -> u8 {
        self.primary
    }

    /// Adds a key that opens.
    pub fn add(&mut self, id: u8, key: GossipKey) -> Result<(), KeyRingError> {
        if let Some(known) = self.keys.get(&id) {
            return if known.0 == key.0 { Ok(()) } else { Err(KeyRingError::Taken(id)) };
        }
        if self.keys.len() >= GOSSIP_KEYS_MAX {
            return Err(KeyRingError::Full);
        }
        self.keys.insert(id, key);
        Ok(())
    }

    /// Makes a key of the ring the one that seals.
    pub fn use_key(&mut self, id: u8) -> Result<(), KeyRingError> {
        if !self.keys.contains_key(&id) {
            return Err(KeyRingError::Unknown(id));
        }
        self.primary = id;
        Ok(())
    }

    /// Removes a key that does not seal.
    pub fn remove(&mut self, id: u8) -> Result<(), KeyRingError> {
        if id == self.primary {
            return Err(KeyRingError::InUse(id));
        }
        self.keys.remove(&id).map(|_| ()).ok_or(KeyRingError::Unknown(id))
    }
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// Of a version that this program does not know, or too short to have one.
    Version,
    /// No key of the ring opens it.
    Sealed,
    /// It was seen before, or is older than the window.
    Replay,
}

/// The counters of one sender that were seen.
#[derive(Debug, Default)]
struct Window {
    highest: u64,
    seen: [u64; WINDOW_WORDS],
}

impl Window {
    /// Whether this counter was not seen yet; notes it.
    fn admit(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter.saturating_sub(self.highest);
            if ahead >= WINDOW {
                self.seen = [0; WINDOW_WORDS];
            } else {
                for passed in self.highest.saturating_add(1)..=counter {
                    let (word, bit) = Self::place(passed);
                    if let Some(word) = self.seen.get_mut(word) {
                        *word &= !bit;
                    }
                }
            }
            self.highest = counter;
        } else if self.highest.saturating_sub(counter) >= WINDOW {
            return false;
        }
        let (word, bit) = Self::place(counter);
        let Some(word) = self.seen.get_mut(word) else { return false };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn place(counter: u64) -> (usize, u64) {
        let at = counter % WINDOW;
        (usize::try_from(at / 64).unwrap_or(0), 1 << (at % 64))
    }
}

/// Another process that sealed packets which opened.
struct Sender {
    keys: SmallVec<[(u8, LessSafeKey); 1]>,
    window: Window,
    used: u64,
}

/// Seals and opens packets.
pub(super) struct Sealer {
    ring: KeyRing,
    salt: [u8; SALT],
    key: LessSafeKey,
    counter: u64,
    senders: BTreeMap<[u8; SALT], Sender>,
    opened: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("ring", &self.ring).finish_non_exhaustive()
    }
}

fn primary_key(ring: &KeyRing, salt: [u8; SALT]) -> LessSafeKey {
    let key = ring.keys.get(&ring.primary).expect("the key that seals is never removed");
    key.sender_key(salt, &ring.cluster)
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    let (_zero, low) = bytes.split_at_mut(4);
    low.copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn associated(header: &[u8], cluster: &ClusterName) -> SmallVec<[u8; 96]> {
    let mut bytes = SmallVec::from_slice(header);
    bytes.extend_from_slice(cluster.as_str().as_bytes());
    bytes
}

impl Sealer {
    /// A sealer under `ring`. The salt must differ from that of every other process of the cluster.
    pub(super) fn new(ring: KeyRing, salt: u64) -> Self {
        let salt = salt.to_le_bytes();
        let key = primary_key(&ring, salt);
        Self { ring, salt, key, counter: 0, senders: BTreeMap::new(), opened: 0 }
    }

    /// Puts another ring in place. The counter goes on, so a key that seals again stays safe.
    pub(super) fn set_ring(&mut self, ring: KeyRing) {
        self.key = primary_key(&ring, self.salt);
        self.ring = ring;
        for sender in self.senders.values_mut() {
            sender.keys.clear();
        }
    }

    /// The sealed datagram of a packet.
    pub(super) fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.counter = self.counter.checked_add(1).expect("2^64 packets are never sent");
        let mut out = Vec::with_capacity(packet.len().saturating_add(SEAL_OVERHEAD));
        out.extend_from_slice(&[VERSION, self.ring.primary]);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.counter.to_le_bytes());
        let aad = associated(&out, &self.ring.cluster);
        out.extend_from_slice(packet);
        let (_header, body) = out.split_at_mut(HEADER);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.counter), Aad::from(&aad), body)
            .expect("a packet is never too long for the cipher");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens a datagram in place; the packet lies within it.
    pub(super) fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Rejected> {
        let (header, body) = datagram.split_at_mut_checked(HEADER).ok_or(Rejected::Version)?;
        let (&[version, key_id], rest) =
            header.split_first_chunk::<2>().ok_or(Rejected::Version)?;
        let (salt, counter) = rest.split_first_chunk::<SALT>().ok_or(Rejected::Version)?;
        let counter = u64::from_le_bytes(counter.try_into().map_err(|_| Rejected::Version)?);
        if version != VERSION {
            return Err(Rejected::Version);
        }
        if *salt == self.salt {
            return Err(Rejected::Replay);
        }
        let key = self.ring.keys.get(&key_id).ok_or(Rejected::Sealed)?;
        let aad = associated(header, &self.ring.cluster);
        let derived;
        let known = self.senders.get(salt).and_then(|sender| {
            sender.keys.iter().find(|(id, _)| *id == key_id).map(|(_, key)| key)
        });
        let sender_key = if let Some(known) = known {
            known
        } else {
            derived = key.sender_key(*salt, &self.ring.cluster);
            &derived
        };
        let opened = sender_key
            .open_in_place(nonce(counter), Aad::from(&aad), body)
            .map_err(|_| Rejected::Sealed)?;
        if self.admit(*salt, key_id, counter) { Ok(opened) } else { Err(Rejected::Replay) }
    }

    /// Notes a packet that opened; whether it is new. Only here does a sender get a place, so that
    /// packets made up by an outsider push nobody out.
    fn admit(&mut self, salt: [u8; SALT], key_id: u8, counter: u64) -> bool {
        self.opened = self.opened.saturating_add(1);
        if !self.senders.contains_key(&salt) {
            if self.senders.len() >= GOSSIP_SENDERS_MAX {
                let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.used);
                if let Some(salt) = oldest.map(|(salt, _)| *salt) {
                    self.senders.remove(&salt);
                }
            }
            let sender = Sender { keys: SmallVec::new(), window: Window::default(), used: 0 };
            self.senders.insert(salt, sender);
        }
        let Some(sender) = self.senders.get_mut(&salt) else { return false };
        sender.used = self.opened;
        if !sender.keys.iter().any(|(id, _)| *id == key_id)
            && let Some(key) = self.ring.keys.get(&key_id)
        {
            sender.keys.push((key_id, key.sender_key(salt, &self.ring.cluster)));
        }
        sender.window.admit(counter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(cluster: &str, key: u8) -> KeyRing {
        KeyRing::new(cluster.parse().unwrap(), key, GossipKey::new([key; 32]))
    }

    fn pair() -> (Sealer, Sealer) {
        (Sealer::new(ring("c", 1), 11), Sealer::new(ring("c", 1), 22))
    }

    #[test]
    fn a_sealed_packet_opens_once() {
        let (mut a, mut b) = pair();
        let sealed = a.seal(b"hello");
        assert_eq!(sealed.len(), 5 + SEAL_OVERHEAD);
        assert_eq!(b.open(&mut sealed.clone()), Ok(&b"hello"[..]));
        assert_eq!(b.open(&mut sealed.clone()), Err(Rejected::Replay));
        assert_eq!(a.open(&mut sealed.clone()), Err(Rejected::Replay), "one's own, reflected");
    }

    #[test]
    fn another_key_or_cluster_does_not_open() {
        let mut a = Sealer::new(ring("c", 1), 11);
        let sealed = a.seal(b"hello");
        let mut stranger = Sealer::new(ring("d", 1), 22);
        assert_eq!(stranger.open(&mut sealed.clone()), Err(Rejected::Sealed));
        let mut other = KeyRing::new("c".parse().unwrap(), 1, GossipKey::new([9; 32]));
        assert_eq!(Sealer::new(other.clone(), 22).open(&mut sealed.clone()), Err(Rejected::Sealed));
        assert_eq!(other.add(1, GossipKey::new([1; 32])), Err(KeyRingError::Taken(1)));
    }

    #[test]
    fn keys_rotate_without_a_lost_packet() {
        let (mut a, mut b) = pair();
        let mut next = ring("c", 1);
        next.add(2, GossipKey::new([2; 32])).unwrap();
        b.set_ring(next.clone());
        let first = a.seal(b"first");
        assert_eq!(b.open(&mut first.clone()), Ok(&b"first"[..]));
        next.use_key(2).unwrap();
        a.set_ring(next.clone());
        let second = a.seal(b"second");
        assert_eq!(b.open(&mut second.clone()), Ok(&b"second"[..]));
        assert_eq!(next.remove(2), Err(KeyRingError::InUse(2)));
        next.remove(1).unwrap();
        b.set_ring(next);
        assert_eq!(b.open(&mut first.clone()), Err(Rejected::Sealed));
    }

    #[test]
    fn packets_out_of_order_are_taken_within_the_window() {
        let (mut a, mut b) = pair();
        let sealed: Vec<_> = (0..WINDOW + 2).map(|_| a.seal(b"x")).collect();
        assert!(b.open(&mut sealed.last().unwrap().clone()).is_ok());
        assert!(b.open(&mut sealed[2].clone()).is_ok());
        assert_eq!(b.open(&mut sealed[1].clone()), Err(Rejected::Replay), "behind the window");
    }

    #[test]
    fn made_up_packets_take_no_place() {
        let (mut a, mut b) = pair();
        let mut sealed = a.seal(b"hello");
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(b.open(&mut sealed), Err(Rejected::Sealed));
        assert!(b.senders.is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_opens(mut bytes: Vec<u8>, version: bool) {
            let (_, mut b) = pair();
            if let (true, [first, second, ..]) = (version, bytes.as_mut_slice()) {
                (*first, *second) = (VERSION, 1);
            }
            prop_assert!(b.open(&mut bytes).is_err());
        }

        #[test]
        fn a_counter_is_admitted_at_most_once(counters in prop::collection::vec(1..3000_u64, 1..400)) {
            let mut window = Window::default();
            let mut admitted = std::collections::BTreeSet::new();
            for counter in counters {
                if window.admit(counter) {
                    prop_assert!(admitted.insert(counter));
                }
            }
        }
    }
}
