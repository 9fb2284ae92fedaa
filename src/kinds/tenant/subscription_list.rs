//! How a topic says which of its subscriptions are ours: what cannot carry a mark is listed, as digests, in a tag of the
//! topic. Pure.

use crate::engine::{plan::Value, rendering::hex};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The tag that lists them; where one is too short, others follow, with a number behind.
const TAG: &str = "campanile.dev/subscriptions";

/// How many digests fit into a tag, whose value has at most 256 characters.
const PER_TAG: usize = 18;

/// The subscriptions of one topic that are ours: a digest of each, and whether it has been seen there since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionList(pub BTreeMap<String, bool>);

/// What stands for a subscription, whatever the installation: 48 bits of SHA-256. Who may read the tags of a topic may read
/// who hears it, and the keys in URLs are too long to be guessed.
pub fn digest(protocol: &str, endpoint: &str) -> String {
    hex(&Sha256::digest(format!("{protocol} {endpoint}"))[..6])
}

impl SubscriptionList {
    /// What the tags of a topic say.
    pub fn among<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let lists = tags.filter(|(key, _)| key.starts_with(TAG));
        let listed = lists.flat_map(|(_, text)| text.split(' '));
        let listed = listed.filter(|text| !text.is_empty());
        let entry = |text: &str| match text.strip_suffix('+') {
            Some(digest) => (digest.to_owned(), true),
            None => (text.to_owned(), false),
        };
        Self(listed.map(entry).collect())
    }

    /// Whether a subscription is listed, and whether it has been seen.
    pub fn get(&self, protocol: &str, endpoint: &str) -> Option<bool> {
        self.0.get(&digest(protocol, endpoint)).copied()
    }

    /// The tags that say so, in the place of those that say what `before` has.
    pub fn tags(&self, before: &Self) -> Vec<(String, String)> {
        let entry = |(digest, seen): (&String, &bool)| match seen {
            true => format!("{digest}+"),
            false => digest.clone(),
        };
        let entries: Vec<_> = self.0.iter().map(entry).collect();
        let longest = self.0.len().max(before.0.len()).max(1);
        let tag = |number: usize| {
            let some = entries.chunks(PER_TAG).nth(number);
            let text = some.map(|some| some.join(" "));
            let key = match number {
                0 => TAG.to_owned(),
                _ => format!("{TAG}-{}", number + 1),
            };
            (key, text.unwrap_or_default())
        };
        (0..longest.div_ceil(PER_TAG)).map(tag).collect()
    }
}

impl Value for SubscriptionList {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![(
            TAG,
            self.tags(&Self::default())
                .into_iter()
                .map(|(_, text)| text)
                .collect(),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_comes_back_whatever_is_beside_it() {
        let list = |count: usize| {
            let entry = |number: usize| {
                (
                    digest("email", &number.to_string()),
                    number.is_multiple_of(3),
                )
            };
            SubscriptionList((0..count).map(entry).collect())
        };
        for (before, now) in [(0, 0), (0, 1), (3, 18), (18, 19), (40, 17), (1, 0), (40, 0)] {
            let mut tags: BTreeMap<_, _> = list(before).tags(&list(0)).into_iter().collect();
            tags.insert("team".into(), "deadbeef".into());
            tags.extend(list(now).tags(&list(before)));
            let pairs = tags.iter().map(|(key, text)| (key.as_str(), text.as_str()));
            assert_eq!(
                SubscriptionList::among(pairs),
                list(now),
                "{before} → {now}"
            );
            for text in tags.values() {
                let allowed = |c: char| c.is_ascii_alphanumeric() || c == ' ' || c == '+';
                assert!(text.len() <= 256 && text.chars().all(allowed), "{text}");
            }
        }
    }

    #[test]
    fn a_digest_stands_for_protocol_and_endpoint() {
        let one = digest("email", "oncall@vsu.example");
        assert_eq!(one, digest("email", "oncall@vsu.example"));
        assert_ne!(one, digest("email-json", "oncall@vsu.example"));
        assert_ne!(one, digest("email", "oncall@vsu.exampl"));
        assert_eq!(one.len(), 12);
    }
}
