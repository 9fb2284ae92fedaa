//! Digests that stand in for secrets wherever a value is compared, shown or kept in status.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// Makes digests with a key that only this installation has, so that a digest in a status cannot
/// be tried against guesses by those who can read it.
#[derive(Clone)]
pub struct Digester(Hmac<Sha256>);

impl Digester {
    /// The number of bytes of a key that we make.
    pub const KEY_BYTES: usize = 32;

    /// A digester with a key; `None` where the key is empty, which would make digests guessable.
    pub fn new(key: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        Hmac::<Sha256>::new_from_slice(key).ok().map(Self)
    }

    /// The digest of a secret.
    pub fn digest(&self, secret: &str) -> Digest {
        let mut mac = self.0.clone();
        mac.update(secret.as_bytes());
        let hex: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Digest(format!("hmac:{hex}"))
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester(…)")
    }
}

/// `hmac:` and 16 hexadecimal characters: equal for equal secrets, says nothing else about them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that must not be printed: it has no `Display`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value out of circulation.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_depend_on_key_and_value_and_show_neither() {
        let (one, two) = (
            Digester::new(b"one").unwrap(),
            Digester::new(b"two").unwrap(),
        );
        assert_eq!(one.digest("canary"), one.digest("canary"));
        assert_ne!(one.digest("canary"), two.digest("canary"));
        assert_ne!(one.digest("canary"), one.digest("canarz"));
        assert!(Digester::new(b"").is_none());
        let shown = format!(
            "{:?} {:?} {}",
            one,
            Secret::new("canary".into()),
            one.digest("canary")
        );
        assert!(!shown.contains("canary"), "{shown}");
    }
}
