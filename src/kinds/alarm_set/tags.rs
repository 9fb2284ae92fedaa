//! The tags that an alarm of ours carries, and which of them travel in its events. Pure.

use crate::{
    engine::{mirror::Mirrored, plan::Value},
    kinds::mark::{self, Mark},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A tag that we set on alarms, in the order in which people see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Whose it is.
    Owner,
    /// The AlarmSet's name.
    Set,
    /// The alarm's name in the spec.
    Alarm,
    /// The environment's name, on alarms that are made for one.
    Environment,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Set, Self::Alarm, Self::Environment];

    /// Those that travel in events: what an alarm's name does not say plainly.
    pub const IN_EVENTS: [Self; 3] = [Self::Set, Self::Alarm, Self::Environment];

    /// As AWS has it; in an event it stands under `detail.alarmTags`. It needs no quotes in a JSONPath there.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => mark::TAG,
            Self::Set => "campanile-set",
            Self::Alarm => "campanile-alarm",
            Self::Environment => "campanile-environment",
        }
    }

    /// As people see it among an alarm's fields.
    fn field(self) -> &'static str {
        match self {
            Self::Owner => mark::TAG,
            Self::Set => "tag campanile-set",
            Self::Alarm => "tag campanile-alarm",
            Self::Environment => "tag campanile-environment",
        }
    }
}

/// Those of an alarm's tags that are ours to set. Whatever other tags it has are nobody's business here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlarmTags(BTreeMap<Key, String>);

impl AlarmTags {
    /// The owner's tag alone.
    pub fn owned(mark: &Mark) -> Self {
        Self([(Key::Owner, mark.to_string())].into())
    }

    /// All that an alarm of the AlarmSet `set` carries.
    pub fn of(mark: &Mark, set: &str, alarm: &str, environment: Option<&str>) -> Self {
        let mut tags = Self::owned(mark);
        tags.0.insert(Key::Set, set.to_owned());
        tags.0.insert(Key::Alarm, alarm.to_owned());
        if let Some(environment) = environment {
            tags.0.insert(Key::Environment, environment.to_owned());
        }
        tags
    }

    /// Those of ours among all tags of an alarm, by key and value.
    pub fn among<'k, 'v>(pairs: impl IntoIterator<Item = (&'k str, &'v str)>) -> Self {
        let ours = pairs.into_iter().filter_map(|(key, value)| {
            let mut all = Key::ALL.into_iter();
            let key = all.find(|known| known.as_str() == key)?;
            Some((key, value.to_owned()))
        });
        Self(ours.collect())
    }

    /// What is there once these are put where `before` was: TagResource takes nothing away.
    pub fn over(&self, before: &Self) -> Self {
        let mut now = before.clone();
        now.0.extend(self.0.clone());
        now
    }

    /// By key and value, the owner's first.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tags = self.0.iter();
        tags.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl Mirrored for AlarmTags {}

impl Value for AlarmTags {
    /// One that is not wanted does no harm and stays.
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        self.over(seen) == *seen
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let tags = self.0.iter();
        tags.map(|(key, value)| (key.field(), value.clone()))
            .collect()
    }
}

/// Which of an alarm's tags travel in its events and in what it sends to topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagsInEvents {
    /// None: also what CloudWatch does where nothing is said of it.
    Off,
    /// All, those included that are set later. Never in ours.
    All,
    /// Those with these keys.
    Only(BTreeSet<String>),
    /// Those without these keys. Never in ours.
    AllBut(BTreeSet<String>),
}

impl TagsInEvents {
    /// Of every alarm that we make. A key that an alarm does not have says nothing.
    pub fn ours() -> Self {
        Self::Only(Key::IN_EVENTS.map(|key| key.as_str().to_owned()).into())
    }
}

impl fmt::Display for TagsInEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |keys: &BTreeSet<String>| keys.iter().cloned().collect::<Vec<_>>().join(", ");
        match self {
            Self::Off => Ok(()),
            Self::All => f.write_str("all"),
            Self::Only(keys) => f.write_str(&list(keys)),
            Self::AllBut(keys) => write!(f, "all but {}", list(keys)),
        }
    }
}

/// What is to be taken for the tags of an alarm that nobody has read yet, once it was changed; `None` where there is
/// nothing to go by. `description` and `tags_in_events` are how it was, `ours` is its mark now.
/// A put sets no tags on an alarm that exists, and a read may be minutes away: so the same run sets them.
pub fn presumed(
    description: &str,
    tags_in_events: &TagsInEvents,
    ours: &Mark,
) -> Option<AlarmTags> {
    match Mark::in_description(description) {
        // Adopted.
        None => Some(AlarmTags::default()),
        // Made before tags travelled, and so without those that do; or by a former cluster, whose mark they have.
        Some(mark) if *tags_in_events == TagsInEvents::Off || mark != *ours => {
            Some(AlarmTags::owned(&mark))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{
            plan::{Change, Desired, Found, Owner, diff},
            rendering::Step,
        },
        kinds::mark::Cluster,
    };

    const MARK: &str = "campanile:eu/0a1b2c3d/AlarmSet/vsu/golden";

    fn mark() -> Mark {
        let cluster = Cluster {
            name: "eu".into(),
            uid: "0a1b2c3d".into(),
        };
        Mark::of(&cluster, "AlarmSet", "vsu", "golden")
    }

    fn wanted(environment: Option<&str>) -> AlarmTags {
        AlarmTags::of(&mark(), "golden", "p95", environment)
    }

    #[test]
    fn an_alarm_says_whose_it_is_and_what_it_is_in_the_spec() {
        let mut expected = vec![
            ("campanile.dev/owner", MARK),
            ("campanile-set", "golden"),
            ("campanile-alarm", "p95"),
            ("campanile-environment", "prod"),
        ];
        let tags = wanted(Some("prod"));
        assert_eq!(tags.pairs().collect::<Vec<_>>(), expected);
        expected.pop();
        let tags = wanted(None);
        assert_eq!(tags.pairs().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_our_own_tags_are_read() {
        let all = [
            ("team", "somebody"),
            ("campanile-alarm", "p95"),
            ("Campanile-Set", "golden"),
            ("campanile.dev/owner", MARK),
        ];
        let expected = [("campanile.dev/owner", MARK), ("campanile-alarm", "p95")];
        let found = AlarmTags::among(all);
        assert_eq!(found.pairs().collect::<Vec<_>>(), expected);
        assert_eq!(AlarmTags::among(wanted(None).pairs()), wanted(None));
    }

    /// What is seen, what has to be set, and how that is told.
    #[test]
    fn what_is_missing_or_changed_is_put_back_and_what_is_left_over_stays() {
        let owner = ("campanile.dev/owner", MARK);
        let (set, alarm) = (("campanile-set", "golden"), ("campanile-alarm", "p95"));
        let environment = ("campanile-environment", "prod");
        let full =
            "tag campanile-set was unset, wanted golden, tag campanile-alarm was unset, wanted p95";
        let unowned = format!("campanile.dev/owner was unset, wanted {MARK}");
        let foreign = format!("campanile.dev/owner was nobody, wanted {MARK}");
        let all = format!("{unowned}, {full}");
        for (seen, told) in [
            (vec![owner, set, alarm], None),
            (vec![owner, set, alarm, environment], None),
            (vec![owner], Some(full)),
            (vec![set, alarm], Some(unowned.as_str())),
            (
                vec![("campanile.dev/owner", "nobody"), set, alarm],
                Some(&foreign),
            ),
            (
                vec![owner, set, ("campanile-alarm", "p99")],
                Some("tag campanile-alarm was p99, wanted p95"),
            ),
            (
                vec![owner, alarm, environment],
                Some("tag campanile-set was unset, wanted golden"),
            ),
            (vec![], Some(&all)),
        ] {
            let (wanted, value) = (wanted(None), AlarmTags::among(seen));
            let key = "x".to_owned();
            let desired = Desired {
                wanted: [(key.clone(), wanted.clone())].into(),
                ..Desired::default()
            };
            let found = Found {
                id: (),
                value: value.clone(),
                owner: Owner::Us,
                live: (),
            };
            let changes = diff(&desired, &[(key, found)].into_iter().collect()).changes;
            let steps = changes.iter().map(|change| Step::of("alarm tag", change));
            let steps: Vec<_> = steps.map(|step| step.difference()).collect();
            let told = told.map(|told| format!("alarm tag x: {told}"));
            assert_eq!(steps, Vec::from_iter(told), "{value:?}");
            for change in &changes {
                assert!(matches!(change, Change::Update { .. }), "{change:?}");
            }
            assert!(wanted.is_satisfied_by(&wanted.over(&value)), "{value:?}");
        }
        let (wanted, stray) = (wanted(None), AlarmTags::among([environment]));
        let now = wanted.over(&stray);
        assert_eq!(
            now.pairs().collect::<Vec<_>>(),
            [owner, set, alarm, environment],
            "what is left over is still known"
        );
    }

    #[test]
    fn what_was_made_before_and_what_is_adopted_has_no_tags_as_far_as_we_know() {
        let (off, ours) = (TagsInEvents::Off, TagsInEvents::ours());
        let signed = mark().sign("slow");
        let former = Mark::parse("campanile:eu/00000000/AlarmSet/vsu/golden").unwrap();
        for (description, travels, expected) in [
            ("by hand", &off, Some(AlarmTags::default())),
            ("by hand", &ours, Some(AlarmTags::default())),
            (&signed, &off, Some(AlarmTags::owned(&mark()))),
            (&signed, &ours, None),
            (&signed, &TagsInEvents::All, None),
            (former.as_str(), &ours, Some(AlarmTags::owned(&former))),
        ] {
            let presumed = presumed(description, travels, &mark());
            assert_eq!(presumed, expected, "{description:?}, {travels:?}");
            assert!(presumed.is_none_or(|tags| !wanted(None).is_satisfied_by(&tags)));
        }
    }

    #[test]
    fn what_travels_is_shown_by_its_keys() {
        let keys = || BTreeSet::from(["team".to_owned(), "cost".into()]);
        for (tags, shown) in [
            (
                TagsInEvents::ours(),
                "campanile-alarm, campanile-environment, campanile-set",
            ),
            (TagsInEvents::Off, ""),
            (TagsInEvents::All, "all"),
            (TagsInEvents::Only(keys()), "cost, team"),
            (TagsInEvents::AllBut(keys()), "all but cost, team"),
        ] {
            assert_eq!(tags.to_string(), shown);
        }
    }
}
