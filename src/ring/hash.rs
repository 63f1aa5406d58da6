//! The slot of a key: CRC16-XMODEM of its hash tag or of the whole name, as in Redis Cluster.
//!
//! Cluster clients compute the same function to find a key's owner themselves, so it can never
//! change. The sum is taken eight bytes at a time with eight tables (4 KiB), made at compile time.

use crate::types::Slot;

const POLYNOMIAL: u16 = 0x1021;

/// `TABLES[k][b]` is what byte `b` contributes when `k` more bytes follow it.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte as usize] = crc;
        byte += 1;
    }
    let mut follow = 1;
    while follow < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[follow - 1][byte];
            tables[follow][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        follow += 1;
    }
    tables
}

/// CRC16 with polynomial 0x1021, initial value 0, no reflection (XMODEM).
pub fn crc16(bytes: &[u8]) -> u16 {
    let at = |follow: usize, byte: u8| TABLES[follow][usize::from(byte)];
    let mut crc = 0u16;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for [b0, b1, b2, b3, b4, b5, b6, b7] in chunks {
        let [high, low] = (crc ^ u16::from_be_bytes([*b0, *b1])).to_be_bytes();
        crc = at(7, high)
            ^ at(6, low)
            ^ at(5, *b2)
            ^ at(4, *b3)
            ^ at(3, *b4)
            ^ at(2, *b5)
            ^ at(1, *b6)
            ^ at(0, *b7);
    }
    for byte in rest {
        let [high, _] = crc.to_be_bytes();
        crc = (crc << 8) ^ at(0, high ^ byte);
    }
    crc
}

/// The part of a name that decides its slot: what stands between the first `{` and the first `}`
/// after it, if that is not empty; else the whole name.
pub fn hash_tag(name: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', name) else { return name };
    let after = &name[open + 1..];
    match memchr::memchr(b'}', after) {
        None | Some(0) => name,
        Some(close) => &after[..close],
    }
}

/// The slot of the key that clients call `name`, whatever its database.
pub fn slot_of(name: &[u8]) -> Slot {
    Slot::from_hash(crc16(hash_tag(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit_by_bit(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0u16, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL }
            })
        })
    }

    #[test]
    fn known_sums_and_slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo").get(), 12_182);
        assert_eq!(slot_of(b"bar").get(), 5_061);
        assert_eq!(slot_of(b"").get(), 0);
    }

    #[test]
    fn a_hash_tag_is_what_the_first_braces_hold() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(hash_tag(b"{user1000}.following"), b"user1000");
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
        assert_eq!(hash_tag(b"}foo{bar}"), b"bar");
    }

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_give_the_same_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            prop_assert_eq!(crc16(&bytes), bit_by_bit(&bytes));
        }
    }
}
