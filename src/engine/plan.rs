//! What it takes to get from observed to desired. Pure; nothing else decides.

use crate::engine::{
    error::Error,
    policy::{AdoptionPolicy, DeletionPolicy},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{Deref, DerefMut},
};

/// Who holds a thing in an outside system, read from its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The object at hand.
    Us,
    /// Nobody that we know: it carries no mark.
    Nobody,
    /// Another object, or another installation.
    Other(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Us => f.write_str("this object"),
            Self::Nobody => f.write_str("nobody that Campanile knows (it carries no mark)"),
            Self::Other(mark) => f.write_str(mark),
        }
    }
}

/// A thing seen in an outside system.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<V, I, L> {
    /// The name that the outside gave it, where it gives one; `()` where names are ours.
    pub id: I,
    /// Its configuration, in the form in which it is compared.
    pub value: V,
    /// Who holds it.
    pub owner: Owner,
    /// What it is doing: never compared, only reported.
    pub live: L,
}

/// Proof that a thing was seen and is ours, or nobody's and to be adopted. Only [`Found`] makes it, so
/// nothing else can be updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours<I>(I);

impl<I> Ours<I> {
    /// The name that the outside gave it.
    pub fn id(&self) -> &I {
        &self.0
    }
}

impl<V, I: Clone, L> Found<V, I, L> {
    /// The right to change it, if it is ours.
    pub fn ours(&self) -> Option<Ours<I>> {
        (self.owner == Owner::Us).then(|| Ours(self.id.clone()))
    }

    /// The right to change it, if it is ours or, where the spec says so, nobody's. Another's never.
    pub fn ours_or_adopted(&self, policy: AdoptionPolicy) -> Option<Ours<I>> {
        let adopted = self.owner == Owner::Nobody && policy != AdoptionPolicy::Never;
        (adopted || self.owner == Owner::Us).then(|| Ours(self.id.clone()))
    }
}

/// A configuration.
pub trait Value: Clone + PartialEq + Send + Sync {
    /// Whether `seen` is as we want it. What the spec leaves unset is not managed, so that a value which can
    /// leave something unset compares only what is set.
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        self == seen
    }

    /// Its fields for people, in a fixed order. Secrets appear as digests. They are the audit line's, and by
    /// their digest it is known whether something else is wanted than before: a field that is called
    /// otherwise in another release makes the first run of every object an edit.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// What is decided thing by thing: one policy for all of them, and another for some.
#[derive(Clone, Debug)]
pub struct PerThing<K, P> {
    /// For all others.
    pub usual: P,
    /// For these.
    pub of: BTreeMap<K, P>,
}

impl<K: Ord, P: Copy> PerThing<K, P> {
    /// What is decided for this one.
    pub fn get(&self, key: &K) -> P {
        self.of.get(key).copied().unwrap_or(self.usual)
    }
}

impl<K, P> From<P> for PerThing<K, P> {
    fn from(usual: P) -> Self {
        let of = BTreeMap::new();
        Self { usual, of }
    }
}

/// What a stage wants.
#[derive(Clone, Debug)]
pub struct Desired<K, V> {
    /// What is to be there.
    pub wanted: BTreeMap<K, V>,
    /// What is asked for but cannot be made, and why. If it exists it stays as it is: bad input loses nothing.
    pub blocked: BTreeMap<K, Error>,
    /// What is done about a thing of a wanted name that carries nobody's mark.
    pub adoption: PerThing<K, AdoptionPolicy>,
    /// What becomes of a thing of ours that is not wanted any more.
    pub deletion: PerThing<K, DeletionPolicy>,
}

impl<K, V> Default for Desired<K, V> {
    /// Nothing: what deletion wants.
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            blocked: BTreeMap::new(),
            adoption: AdoptionPolicy::Never.into(),
            deletion: DeletionPolicy::Delete.into(),
        }
    }
}

/// All that a stage has seen. What is neither found nor unknown is not there.
#[derive(Clone, Debug)]
pub struct Observed<K, V, I, L> {
    /// What is there.
    pub found: BTreeMap<K, Found<V, I, L>>,
    /// What nobody can tell of now, or not what it is like. Nothing is done about it.
    pub unknown: BTreeSet<K>,
}

impl<K, V, I, L> Default for Observed<K, V, I, L> {
    fn default() -> Self {
        Self {
            found: BTreeMap::new(),
            unknown: BTreeSet::new(),
        }
    }
}

impl<K, V, I, L> Deref for Observed<K, V, I, L> {
    type Target = BTreeMap<K, Found<V, I, L>>;

    fn deref(&self) -> &Self::Target {
        &self.found
    }
}

impl<K, V, I, L> DerefMut for Observed<K, V, I, L> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.found
    }
}

impl<K: Ord, V, I, L> FromIterator<(K, Found<V, I, L>)> for Observed<K, V, I, L> {
    fn from_iter<T: IntoIterator<Item = (K, Found<V, I, L>)>>(found: T) -> Self {
        Self {
            found: found.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// One step from observed to desired.
#[derive(Clone, Debug)]
pub enum Change<K, V, I> {
    /// Make it.
    Create {
        /// Which.
        key: K,
        /// As what.
        to: V,
    },
    /// Bring it back to what it should be.
    Update {
        /// Which.
        key: K,
        /// The right to.
        ours: Ours<I>,
        /// What it is.
        from: V,
        /// What it should be.
        to: V,
    },
    /// Remove it.
    Delete {
        /// Which.
        key: K,
        /// The right to.
        ours: Ours<I>,
    },
}

impl<K, V, I> Change<K, V, I> {
    /// Which thing.
    pub fn key(&self) -> &K {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// What is done to it.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Create { .. } => Verb::Create,
            Self::Update { .. } => Verb::Update,
            Self::Delete { .. } => Verb::Delete,
        }
    }
}

/// All that it takes, and what stands in the way.
#[derive(Clone, Debug)]
pub struct Plan<K, V, I> {
    /// What is to be done.
    pub changes: Vec<Change<K, V, I>>,
    /// What is wanted and somebody else's: it is left alone and told.
    pub conflicts: Vec<(K, Owner)>,
}

/// What a change does.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Something is made.
    Create,
    /// Something is changed.
    Update,
    /// Something is removed.
    Delete,
    /// Something is left alone because it is not ours.
    Conflict,
}

/// The way from `seen` to `desired`. Of what is unknown it says nothing.
pub fn diff<K: Ord + Clone, V: Value, I: Clone, L>(
    desired: &Desired<K, V>,
    seen: &Observed<K, V, I, L>,
) -> Plan<K, V, I> {
    let Desired {
        wanted,
        blocked,
        adoption,
        deletion,
    } = desired;
    let (mut changes, mut conflicts) = (Vec::new(), Vec::new());
    let known = |key: &K| !seen.unknown.contains(key);
    for (key, to) in wanted.iter().filter(|(key, _)| known(key)) {
        let (key, to) = (key.clone(), to.clone());
        let Some(found) = seen.found.get(&key) else {
            changes.push(Change::Create { key, to });
            continue;
        };
        match found.ours_or_adopted(adoption.get(&key)) {
            None => conflicts.push((key, found.owner.clone())),
            Some(_) if to.is_satisfied_by(&found.value) => {}
            Some(ours) => changes.push(Change::Update {
                key,
                ours,
                from: found.value.clone(),
                to,
            }),
        }
    }
    let stays = |key: &K| {
        let asked_for = wanted.contains_key(key) || blocked.contains_key(key);
        asked_for || deletion.get(key) == DeletionPolicy::Orphan
    };
    let gone = seen.found.iter();
    let gone = gone.filter(|(key, _)| known(key) && !stays(key));
    changes.extend(gone.filter_map(|(key, found)| {
        let ours = found.ours()?;
        let key = key.clone();
        Some(Change::Delete { key, ours })
    }));
    Plan { changes, conflicts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rendering::Step;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Size(u8);

    impl Value for Size {
        fn fields(&self) -> Vec<(&'static str, String)> {
            vec![("size", self.0.to_string())]
        }
    }

    fn found(size: u8, owner: Owner) -> Found<Size, u8, ()> {
        Found {
            id: size,
            value: Size(size),
            owner,
            live: (),
        }
    }

    fn shown(plan: &Plan<&str, Size, u8>) -> Vec<String> {
        let changes = plan.changes.iter();
        let changes = changes.map(|change| Step::of("thing", change));
        let conflicts = plan.conflicts.iter();
        let conflicts = conflicts.map(|(key, owner)| Step::conflict("thing", key, owner));
        changes
            .chain(conflicts)
            .map(|step| step.to_string())
            .collect()
    }

    #[test]
    fn creates_updates_deletes_and_leaves_others_alone() {
        let desired = Desired {
            wanted: [
                ("a", Size(1)),
                ("b", Size(2)),
                ("c", Size(3)),
                ("v", Size(1)),
                ("x", Size(4)),
            ]
            .into(),
            blocked: [("h", Error::invalid("no such environment"))].into(),
            deletion: PerThing {
                usual: DeletionPolicy::Delete,
                of: [("o", DeletionPolicy::Orphan)].into(),
            },
            ..Desired::default()
        };
        let seen = [
            ("b", found(2, Owner::Us)),
            ("c", found(0, Owner::Us)),
            ("h", found(1, Owner::Us)),
            ("o", found(1, Owner::Us)),
            ("u", found(1, Owner::Us)),
            ("x", found(4, Owner::Nobody)),
            (
                "y",
                found(5, Owner::Other("campanile:eu/1/AlarmSet/a/b".into())),
            ),
            ("z", found(9, Owner::Us)),
        ];
        let seen = Observed {
            found: seen.into(),
            unknown: ["u", "v"].into(),
        };
        assert_eq!(
            shown(&diff(&desired, &seen)),
            [
                "+ thing a\n    size: 1",
                "~ thing c\n    size: 0 → 3",
                "- thing z",
                "! thing x\n    not touched: it is held by nobody that Campanile knows (it carries no mark)",
            ]
        );
    }

    fn owner() -> impl Strategy<Value = Owner> {
        prop_oneof![
            Just(Owner::Us),
            Just(Owner::Nobody),
            Just(Owner::Other("other".into()))
        ]
    }

    proptest! {
        #[test]
        fn applying_a_plan_leaves_none_and_touches_no_foreigner(
            wanted in proptest::collection::btree_map(0_u8..20, any::<u8>(), 0..15),
            seen in proptest::collection::btree_map(0_u8..20, (any::<u8>(), owner()), 0..15),
        ) {
            let desired = Desired { wanted: wanted.into_iter().map(|(k, v)| (k, Size(v))).collect(), ..Desired::default() };
            let before: Observed<_, _, _, _> = seen.into_iter().map(|(k, (v, h))| (k, found(v, h))).collect();
            let mut after = before.clone();
            for change in diff(&desired, &before).changes {
                match change {
                    Change::Create { key, to } => drop(after.insert(key, Found { id: 0, value: to, owner: Owner::Us, live: () })),
                    Change::Update { key, to, .. } => after.get_mut(&key).unwrap().value = to,
                    Change::Delete { key, .. } => drop(after.remove(&key)),
                }
            }
            let foreign = |map: &Observed<u8, Size, u8, ()>| map.iter().filter(|(_, f)| f.owner != Owner::Us).map(|(k, f)| (*k, f.clone())).collect::<Vec<_>>();
            prop_assert_eq!(foreign(&before), foreign(&after));
            prop_assert!(diff(&desired, &after).changes.is_empty());
        }
    }
}
