//! Digests that stand for secrets where a value is compared, shown or kept in status; and redaction of secrets in texts
//! of others. Secrets are read in `kinds::cluster_view`.

use crate::engine::rendering::hex;
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
        let digest = mac.finalize().into_bytes();
        Digest(format!("hmac:{}", hex(&digest[..8])))
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

/// `message` without an endpoint that holds a secret, and without the parts of it that may be the
/// secret, should somebody have quoted it in another form. `shown` stands in for the whole of it.
pub fn redact(message: &str, endpoint: &str, shown: &str) -> String {
    // Of an address nothing is secret but what tells one reader from another.
    let plain = |part: &&str| {
        part.len() < 4 || part.contains(['.', ':']) || matches!(*part, "integration" | "enqueue")
    };
    let whole = message.replace(endpoint, shown);
    let parts = endpoint.split(['/', '?', '&', '=', '@']);
    let parts = parts.filter(|part| !plain(part));
    parts.fold(whole, |message, part| message.replace(part, "…"))
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

    #[test]
    fn an_endpoint_that_is_quoted_in_another_form_shows_no_key() {
        let endpoint = "https://events.pagerduty.com/integration/canary0123456789abcdef/enqueue";
        for quoted in [
            endpoint,
            "http://x/integration/canary0123456789abcdef/enqueue",
            "'canary0123456789abcdef'",
        ] {
            let message = redact(&format!("Invalid parameter: {quoted}"), endpoint, "hmac:1");
            assert!(
                !message.contains("canary") && message.starts_with("Invalid parameter"),
                "{message}"
            );
        }
        let short = "https://events.pagerduty.com/integration/canary1/enqueue";
        let said = "no such endpoint: canary1 at events.pagerduty.com";
        assert_eq!(
            redact(said, short, "hmac:1"),
            "no such endpoint: … at events.pagerduty.com"
        );
    }
}
