//! Passwords of clients: kept as digests and compared in a time that tells nothing of them.

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use thiserror::Error;

use crate::limits::PASSWORDS_MAX;

/// The digest of a password, so that neither its length nor a common beginning shows in the time of a
/// comparison.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash([u8; SHA256_OUTPUT_LEN]);

impl Hash {
    /// The digest of a password as a client sends it.
    pub(super) fn of(password: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, password).as_ref());
        Self(hash)
    }

    /// Reads 64 hex digits in lower case, as ACL files have them.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != SHA256_OUTPUT_LEN || !rest.is_empty() {
            return None;
        }
        let mut hash = [0; SHA256_OUTPUT_LEN];
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(hash))
    }

    /// The digest as 64 hex digits.
    pub(super) fn to_hex(&self) -> String {
        use std::fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _writing_to_a_string_works = write!(text, "{byte:02x}");
            text
        })
    }

    /// Whether it is one of these; all are compared, whichever it is.
    pub(super) fn is_among(&self, known: &[Self]) -> bool {
        let differing =
            |known: &Self| self.0.iter().zip(known.0).fold(0, |bits, (a, b)| bits | (a ^ b));
        let found = known
            .iter()
            .fold(false, |found, one| found | (std::hint::black_box(differing(one)) == 0));
        std::hint::black_box(found)
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(hidden)")
    }
}

/// The passwords of a file: any of them is right.
#[derive(Clone, Debug)]
pub struct Passwords(pub(super) Vec<Hash>);

/// Why a file gives no passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PasswordsError {
    /// Nobody could log in.
    #[error("holds no password: write one on a line of its own")]
    Empty,
    /// More than an exchange of passwords needs.
    #[error("holds more than {PASSWORDS_MAX} passwords: take the old ones out")]
    TooMany,
}

impl Passwords {
    /// The passwords of a file's text: every line that is not blank is one. A line break, of either
    /// kind, is not part of it; spaces are.
    pub fn from_lines(text: &str) -> Result<Self, PasswordsError> {
        let lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        let lines = lines.filter(|line| !line.trim().is_empty());
        let passwords: Vec<Hash> =
            lines.take(PASSWORDS_MAX + 1).map(|line| Hash::of(line.as_bytes())).collect();
        match passwords.len() {
            0 => Err(PasswordsError::Empty),
            1..=PASSWORDS_MAX => Ok(Self(passwords)),
            _ => Err(PasswordsError::TooMany),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(passwords: &Passwords, given: &[u8]) -> bool {
        Hash::of(given).is_among(&passwords.0)
    }

    #[test]
    fn every_line_of_a_file_is_a_password() {
        let one = Passwords::from_lines("secret\r\n").unwrap();
        assert!(takes(&one, b"secret"));
        assert!(!takes(&one, b"secre") && !takes(&one, b"") && !takes(&one, b"secret\n"));
        let several = Passwords::from_lines("\nnew one\n\n  \nold\n").unwrap();
        assert!(takes(&several, b"new one") && takes(&several, b"old"));
        assert!(!takes(&several, b"new") && !takes(&several, b"") && !takes(&several, b"  "));
        assert_eq!(Passwords::from_lines("\n\r\n").unwrap_err(), PasswordsError::Empty);
        let many = "x\n".repeat(PASSWORDS_MAX + 1);
        assert_eq!(Passwords::from_lines(&many).unwrap_err(), PasswordsError::TooMany);
        assert!(!format!("{several:?}").contains("old"));
    }

    #[test]
    fn a_digest_is_written_and_read_in_hex() {
        let hash = Hash::of(b"secret");
        let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(hash.to_hex(), hex);
        assert_eq!(Hash::from_hex(hex), Some(hash));
        for wrong in ["", &hex[1..], &hex.to_uppercase(), &format!("{hex}0"), &"é".repeat(32)] {
            assert_eq!(Hash::from_hex(wrong), None, "{wrong}");
        }
    }
}
