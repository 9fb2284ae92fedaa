//! The ownership tag of everything that we make.
//!
//! `campanile:<cluster>/<uid>/<kind>/<namespace>/<name>`. It is the whole last line of an alarm's
//! description (one bulk read brings it) and the tag [`TAG`] on everything that has tags.

use crate::engine::plan::Value;
use std::fmt;

/// The tag key that carries the mark.
pub const TAG: &str = "campanile.dev/owner";

const SCHEME: &str = "campanile:";

/// One installation of Campanile: the cluster's name as the operator was told, and which cluster
/// that name means, so that two clusters that were given the same name do not take each other's
/// things for their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `--cluster-name`: a DNS label of at most 32 characters.
    pub name: String,
    /// The first 8 characters of the UID of the Namespace `kube-system`.
    pub uid: String,
}

/// Which object of which cluster holds a thing in an outside system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(String);

impl Mark {
    /// The mark of one object.
    pub fn of(cluster: &Cluster, kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!(
            "{SCHEME}{}/{}/{kind}/{namespace}/{name}",
            cluster.name, cluster.uid
        ))
    }

    /// The mark on `text` where that is a mark as we write it: the scheme and five parts, nothing around them.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.strip_prefix(SCHEME)?.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        };
        (parts.len() == 5 && parts.iter().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The mark in a description: its last line, whole, or nothing.
    pub fn in_description(description: &str) -> Option<Self> {
        description.rsplit('\n').next().and_then(Self::parse)
    }

    /// `text` followed by the mark on a line of its own.
    pub fn sign(&self, text: &str) -> String {
        if text.is_empty() {
            self.0.clone()
        } else {
            format!("{text}\n{}", self.0)
        }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tag by which a thing says whose it is; `None` where it has no such tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerTag(pub Option<String>);

impl Value for OwnerTag {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![(TAG, self.0.clone().unwrap_or_default())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster() -> Cluster {
        Cluster {
            name: "eu".into(),
            uid: "0a1b2c3d".into(),
        }
    }

    #[test]
    fn only_a_whole_last_line_counts() {
        let mark = Mark::of(&cluster(), "AlarmSet", "vsu", "golden");
        assert_eq!(mark.as_str(), "campanile:eu/0a1b2c3d/AlarmSet/vsu/golden");
        for (description, found) in [
            (mark.sign("p95 above 5 s"), true),
            (mark.sign(""), true),
            (format!("{mark}\nedited by hand"), false),
            (format!("see {mark}"), false),
            (format!("{mark} "), false),
            (format!("{mark}/more"), false),
            ("campanile:eu//AlarmSet/vsu/golden".into(), false),
            (String::new(), false),
        ] {
            assert_eq!(
                Mark::in_description(&description).is_some(),
                found,
                "{description:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn round_trips(text in "[^\\p{Cc}]{0,80}", namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?") {
            let mark = Mark::of(&cluster(), "AlarmSet", &namespace, &name);
            prop_assert_eq!(Mark::in_description(&mark.sign(&text)), Some(mark));
        }
    }
}
