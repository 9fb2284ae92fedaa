//! The ownership tag of everything that we make.
//!
//! `campanile:<cluster>/<uid>/<kind>/<namespace>/<name>`. It is the whole last line of an alarm's
//! description (one bulk read brings it) and the tag [`TAG`] on everything that has tags.

use crate::{
    api::TAKE_OVER_FROM,
    engine::plan::{Owner, Value},
};
use std::{fmt, str::FromStr};

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

impl FromStr for Cluster {
    type Err = String;

    /// `<name>/<uid>`, as marks have it.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once('/');
        let parts = parts.filter(|(name, uid)| [name, uid].into_iter().all(is_plain));
        let (name, uid) = parts.ok_or_else(|| {
            format!("{text:?} is not <cluster>/<uid>, as in the mark campanile:<cluster>/<uid>/…")
        })?;
        Ok(Self {
            name: name.into(),
            uid: uid.into(),
        })
    }
}

impl Cluster {
    /// Former clusters, separated by commas, of which this one may take things over.
    pub fn formers(&self, text: &str) -> Result<Vec<Self>, String> {
        let named = text.split(',').filter(|text| !text.trim().is_empty());
        let formers = named.map(|text| {
            let former: Self = text.parse()?;
            // The names of things have it in them.
            if former.name != self.name {
                return Err(format!(
                    "{former} was another cluster's name, and this operator runs with --cluster-name {}: what that made has its name in all names and cannot be renamed. Run the operator with --cluster-name {}",
                    self.name, former.name
                ));
            }
            Ok(former)
        });
        formers.collect()
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.uid)
    }
}

fn is_plain(part: &&str) -> bool {
    let mut bytes = part.bytes();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !part.is_empty() && bytes.all(plain)
}

/// Which object of which cluster holds a thing in an outside system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(String);

impl Mark {
    /// The mark of one object.
    pub fn of(cluster: &Cluster, kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{SCHEME}{cluster}/{kind}/{namespace}/{name}"))
    }

    /// The mark on `text` where that is a mark as we write it: the scheme and five parts, nothing around them.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.strip_prefix(SCHEME)?.split('/').collect();
        (parts.len() == 5 && parts.iter().all(is_plain)).then(|| Self(text.to_owned()))
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

/// Whose things an object changes: those with its mark, and those with the mark that it had in former clusters.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// Its mark.
    pub mark: Mark,
    /// The marks that it had.
    formers: Vec<Mark>,
}

impl Ownership {
    /// Of one object in this cluster, which takes over what it made in `formers`.
    pub fn new(
        cluster: &Cluster,
        formers: &[Cluster],
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Self {
        let mark = |cluster| Mark::of(cluster, kind, namespace, name);
        Self {
            mark: mark(cluster),
            formers: formers.iter().map(mark).collect(),
        }
    }

    /// Who holds what has this mark, or none.
    pub fn owner(&self, found: Option<&str>) -> Owner {
        match found {
            None => Owner::Nobody,
            Some(found) if found == self.mark.as_str() || self.is_former(found) => Owner::Us,
            Some(found) => Owner::Other(match self.cluster_of(found) {
                Some(cluster) => format!(
                    "{found}, this object in another cluster; if that is gone for good, the platform team annotates the Namespace with {TAKE_OVER_FROM}={cluster}"
                ),
                None => found.to_owned(),
            }),
        }
    }

    /// Who holds what has such a description.
    pub fn of_description(&self, description: &str) -> Owner {
        let found = Mark::in_description(description);
        self.owner(found.as_ref().map(Mark::as_str))
    }

    /// Whether a mark is one that the object had in a former cluster.
    pub fn is_former(&self, found: &str) -> bool {
        self.formers.iter().any(|former| former.as_str() == found)
    }

    /// The cluster of this one's name in which such a mark is that of this object. What another name's cluster made is
    /// called otherwise.
    fn cluster_of<'a>(&self, found: &'a str) -> Option<&'a str> {
        let own = self.mark.as_str().strip_prefix(SCHEME)?;
        let (at, _) = own.match_indices('/').nth(1)?;
        let (cluster, object) = own.split_at(at);
        let cluster_name = |cluster: &str| cluster.parse().map(|it: Cluster| it.name);
        let found = found.strip_prefix(SCHEME)?.strip_suffix(object)?;
        let namesakes = cluster_name(found).is_ok_and(|name| Ok(name) == cluster_name(cluster));
        namesakes.then_some(found)
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

    #[test]
    fn a_former_cluster_is_one_that_had_this_name() {
        let formers = |text| cluster().formers(text);
        let former = |uid: &str| Cluster {
            uid: uid.into(),
            ..cluster()
        };
        assert_eq!(formers(""), Ok(Vec::new()));
        let both = [former("11111111"), former("22222222")];
        assert_eq!(formers("eu/11111111, eu/22222222,"), Ok(both.to_vec()));
        for (text, told) in [
            ("eu", "\"eu\" is not <cluster>/<uid>"),
            ("eu/a/b", "is not <cluster>/<uid>"),
            ("us/11111111", "Run the operator with --cluster-name us"),
        ] {
            let error = formers(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn whose_it_is_says_its_description() {
        let ownership = Ownership::new(&cluster(), &[], "AlarmSet", "vsu", "golden");
        let mark = &ownership.mark;
        let other = mark.to_string().replace("/vsu/", "/other/");
        for (description, expected) in [
            (mark.to_string(), Owner::Us),
            (mark.sign("For Slack"), Owner::Us),
            (other.clone(), Owner::Other(other)),
            ("something".into(), Owner::Nobody),
            (String::new(), Owner::Nobody),
            (format!("{mark} of mine"), Owner::Nobody),
        ] {
            let owner = ownership.of_description(&description);
            assert_eq!(owner, expected, "{description:?}");
        }
    }

    #[test]
    fn what_a_former_cluster_made_is_ours_by_its_mark_alone() {
        let of =
            |formers: &[Cluster]| Ownership::new(&cluster(), formers, "AlarmSet", "vsu", "golden");
        let (alone, taking) = (of(&[]), of(&["eu/11111111".parse().unwrap()]));
        let way_out = "annotates the Namespace with campanile.dev/take-over-from=";
        for (mark, before, after) in [
            ("campanile:eu/0a1b2c3d/AlarmSet/vsu/golden", "ours", "ours"),
            (
                "campanile:eu/11111111/AlarmSet/vsu/golden",
                "eu/11111111",
                "ours",
            ),
            (
                "campanile:eu/22222222/AlarmSet/vsu/golden",
                "eu/22222222",
                "eu/22222222",
            ),
            (
                "campanile:us/11111111/AlarmSet/vsu/golden",
                "another's",
                "another's",
            ),
            (
                "campanile:eu/11111111/AlarmSet/vsu/other",
                "another's",
                "another's",
            ),
            (
                "campanile:eu/11111111/AlarmSet/other/golden",
                "another's",
                "another's",
            ),
            (
                "campanile:eu/0a1b2c3d/AlarmSet/vsu/other",
                "another's",
                "another's",
            ),
        ] {
            for (ownership, expected) in [(&alone, before), (&taking, after)] {
                let told = match ownership.owner(Some(mark)) {
                    Owner::Us => "ours".to_owned(),
                    Owner::Other(held) => match held.split_once(way_out) {
                        Some((_, cluster)) => cluster.to_owned(),
                        None => "another's".to_owned(),
                    },
                    Owner::Nobody => "nobody's".to_owned(),
                };
                assert_eq!(told, expected, "{mark}");
            }
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
