//! What it takes to get from observed to desired. Pure; nothing else decides.

use crate::error::Error;
use std::{collections::BTreeMap, fmt};

/// Who holds a thing in an outside system, read from its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The object at hand.
    Us,
    /// Nobody that we know: it carries no mark.
    Nobody,
    /// Another object, or another installation.
    Other(String),
}

impl fmt::Display for Holder {
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
    pub holder: Holder,
    /// What it is doing: never compared, only reported.
    pub live: L,
}

/// Proof that a thing was seen and is ours. Only [`Found::ours`] makes it, so nothing else can be
/// updated or deleted.
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
        (self.holder == Holder::Us).then(|| Ours(self.id.clone()))
    }
}

/// A configuration. What the spec leaves unset is not managed, so desired *covers* observed where
/// all that is set is as it should be.
pub trait Value: Clone + Send + Sync {
    /// Whether `seen` is as we want it.
    fn covers(&self, seen: &Self) -> bool;
    /// Its fields for people, in a fixed order. Secrets appear as digests.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// What a stage wants.
#[derive(Clone, Debug)]
pub struct Desired<K, V> {
    /// What is to be there.
    pub wanted: BTreeMap<K, V>,
    /// What is asked for but cannot be made, and why. If it exists it stays as it is: bad input loses nothing.
    pub held: BTreeMap<K, Error>,
}

impl<K, V> Default for Desired<K, V> {
    /// Nothing: what deletion wants.
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
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
    /// Leave it alone and say so.
    Conflict {
        /// Which.
        key: K,
        /// Who holds it.
        holder: Holder,
    },
}

impl<K, V, I> Change<K, V, I> {
    /// Which thing.
    pub fn key(&self) -> &K {
        match self {
            Self::Create { key, .. }
            | Self::Update { key, .. }
            | Self::Delete { key, .. }
            | Self::Conflict { key, .. } => key,
        }
    }

    /// What is done to it.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Create { .. } => Verb::Create,
            Self::Update { .. } => Verb::Update,
            Self::Delete { .. } => Verb::Delete,
            Self::Conflict { .. } => Verb::Conflict,
        }
    }
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl Verb {
    /// The sign it has in a printed plan.
    pub fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
            Self::Conflict => '!',
        }
    }
}

/// The changes from `seen` to `desired`.
pub fn diff<K: Ord + Clone, V: Value, I: Clone, L>(
    desired: &Desired<K, V>,
    seen: &BTreeMap<K, Found<V, I, L>>,
) -> Vec<Change<K, V, I>> {
    let upserts = desired.wanted.iter().filter_map(|(key, to)| {
        let (key, to) = (key.clone(), to.clone());
        let Some(found) = seen.get(&key) else {
            return Some(Change::Create { key, to });
        };
        match found.ours() {
            None => Some(Change::Conflict {
                key,
                holder: found.holder.clone(),
            }),
            Some(_) if to.covers(&found.value) => None,
            Some(ours) => Some(Change::Update {
                key,
                ours,
                from: found.value.clone(),
                to,
            }),
        }
    });
    let stays = |key: &K| desired.wanted.contains_key(key) || desired.held.contains_key(key);
    let deletes = seen
        .iter()
        .filter(|(key, _)| !stays(key))
        .filter_map(|(key, found)| {
            found.ours().map(|ours| Change::Delete {
                key: key.clone(),
                ours,
            })
        });
    upserts.chain(deletes).collect()
}

/// A change for people: what `campanile plan` prints and what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub verb: Verb,
    /// To what kind of thing: the stage's name.
    pub stage: &'static str,
    /// To which.
    pub key: String,
    /// The fields that change: name, from, to. A created thing has no `from`, a deleted one no fields.
    pub fields: Vec<FieldChange>,
    /// Who holds it, in a conflict.
    pub holder: Option<String>,
}

/// One field of a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field's name.
    pub name: &'static str,
    /// What it was; `None` if the thing was not there.
    pub from: Option<String>,
    /// What it becomes.
    pub to: String,
}

impl Step {
    /// A change of a stage, for people.
    pub fn of<K: fmt::Display, V: Value, I>(stage: &'static str, change: &Change<K, V, I>) -> Self {
        let fields = match change {
            Change::Create { to, .. } => to
                .fields()
                .into_iter()
                .filter(|(_, to)| !to.is_empty())
                .map(|(name, to)| FieldChange {
                    name,
                    from: None,
                    to,
                })
                .collect(),
            Change::Update { from, to, .. } => changed(from.fields(), to.fields()),
            Change::Delete { .. } | Change::Conflict { .. } => Vec::new(),
        };
        let holder = match change {
            Change::Conflict { holder, .. } => Some(holder.to_string()),
            _ => None,
        };
        Self {
            verb: change.verb(),
            stage,
            key: change.key().to_string(),
            fields,
            holder,
        }
    }
}

fn changed(from: Vec<(&'static str, String)>, to: Vec<(&'static str, String)>) -> Vec<FieldChange> {
    let from: BTreeMap<_, _> = from.into_iter().collect();
    to.into_iter()
        .filter_map(|(name, to)| {
            let was = from.get(name).cloned().unwrap_or_default();
            (was != to).then_some(FieldChange {
                name,
                from: Some(was),
                to,
            })
        })
        .collect()
}

impl fmt::Display for Step {
    /// `~ alarm campanile/eu/vsu/critical/golden/p95` and a line per field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb.sign(), self.stage, self.key)?;
        if let Some(holder) = &self.holder {
            write!(f, "\n    not touched: it is held by {holder}")?;
        }
        for FieldChange { name, from, to } in &self.fields {
            let shown = |text: &str| {
                if text.is_empty() {
                    "(unset)".to_owned()
                } else {
                    text.replace('\n', "⏎")
                }
            };
            match from {
                Some(from) => write!(f, "\n    {name}: {} → {}", shown(from), shown(to))?,
                None => write!(f, "\n    {name}: {}", shown(to))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Size(u8);

    impl Value for Size {
        fn covers(&self, seen: &Self) -> bool {
            self == seen
        }
        fn fields(&self) -> Vec<(&'static str, String)> {
            vec![("size", self.0.to_string())]
        }
    }

    fn found(size: u8, holder: Holder) -> Found<Size, u8, ()> {
        Found {
            id: size,
            value: Size(size),
            holder,
            live: (),
        }
    }

    fn shown(changes: &[Change<&str, Size, u8>]) -> Vec<String> {
        changes
            .iter()
            .map(|change| Step::of("thing", change).to_string())
            .collect()
    }

    #[test]
    fn creates_updates_deletes_and_leaves_others_alone() {
        let desired = Desired {
            wanted: [
                ("a", Size(1)),
                ("b", Size(2)),
                ("c", Size(3)),
                ("x", Size(4)),
            ]
            .into(),
            held: [("h", Error::invalid("no such environment"))].into(),
        };
        let seen = [
            ("b", found(2, Holder::Us)),
            ("c", found(0, Holder::Us)),
            ("h", found(1, Holder::Us)),
            ("x", found(4, Holder::Nobody)),
            (
                "y",
                found(5, Holder::Other("campanile:eu/1/AlarmSet/a/b".into())),
            ),
            ("z", found(9, Holder::Us)),
        ];
        assert_eq!(
            shown(&diff(&desired, &seen.into())),
            [
                "+ thing a\n    size: 1",
                "~ thing c\n    size: 0 → 3",
                "! thing x\n    not touched: it is held by nobody that Campanile knows (it carries no mark)",
                "- thing z"
            ]
        );
    }

    fn holder() -> impl Strategy<Value = Holder> {
        prop_oneof![
            Just(Holder::Us),
            Just(Holder::Nobody),
            Just(Holder::Other("other".into()))
        ]
    }

    proptest! {
        #[test]
        fn applying_a_plan_leaves_none_and_touches_no_foreigner(
            wanted in proptest::collection::btree_map(0_u8..20, any::<u8>(), 0..15),
            seen in proptest::collection::btree_map(0_u8..20, (any::<u8>(), holder()), 0..15),
        ) {
            let desired = Desired { wanted: wanted.into_iter().map(|(k, v)| (k, Size(v))).collect(), ..Desired::default() };
            let before: BTreeMap<_, _> = seen.into_iter().map(|(k, (v, h))| (k, found(v, h))).collect();
            let mut after = before.clone();
            for change in diff(&desired, &before) {
                match change {
                    Change::Create { key, to } => drop(after.insert(key, Found { id: 0, value: to, holder: Holder::Us, live: () })),
                    Change::Update { key, to, .. } => after.get_mut(&key).unwrap().value = to,
                    Change::Delete { key, .. } => drop(after.remove(&key)),
                    Change::Conflict { .. } => {}
                }
            }
            let foreign = |map: &BTreeMap<u8, Found<Size, u8, ()>>| map.iter().filter(|(_, f)| f.holder != Holder::Us).map(|(k, f)| (*k, f.clone())).collect::<Vec<_>>();
            prop_assert_eq!(foreign(&before), foreign(&after));
            prop_assert!(diff(&desired, &after).iter().all(|change| change.verb() == Verb::Conflict));
        }
    }
}
