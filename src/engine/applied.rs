//! What was applied, remembered thing by thing, so that what somebody changes outside afterwards is told from what the
//! spec changes, whatever becomes of the other things of the same object.

use super::{plan::Value, rendering::hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt::Display};

/// By stage (of an object: by `system/stage`), each applied thing as 16 hexadecimal digits: eight of a digest of its
/// key, eight of a digest of its value. A stage that has been applied and has nothing is there and empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Applied(BTreeMap<String, String>);

/// The applied things of one stage in one place: the digest of each value by the digest of its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedStage(BTreeMap<String, String>);

/// A thing of one stage in one system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ThingRef {
    /// The system.
    pub system: &'static str,
    /// The stage.
    pub stage: &'static str,
    /// The thing's key, for people.
    pub key: String,
}

const DIGITS: usize = 8;

impl Applied {
    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is remembered of one system, by stage.
    pub fn system(&self, system: &str) -> Self {
        let stages = self.0.iter().filter_map(|(name, packed)| {
            let stage = name.strip_prefix(system)?.strip_prefix('/')?;
            Some((stage.to_owned(), packed.clone()))
        });
        Self(stages.collect())
    }

    /// Whether a stage of this system was ever applied.
    pub fn has_stage(&self, system: &str, stage: &str) -> bool {
        self.0.contains_key(&format!("{system}/{stage}"))
    }

    /// Remembers a system's stages.
    pub fn add_system(&mut self, system: &str, stages: Self) {
        let stages = stages.0.into_iter();
        let named = stages.map(|(stage, packed)| (format!("{system}/{stage}"), packed));
        self.0.extend(named);
    }

    /// What is remembered of a stage; `None` if it was never applied.
    pub fn stage(&self, name: &str) -> Option<AppliedStage> {
        let packed = self.0.get(name)?;
        let entries = packed.as_bytes().chunks_exact(2 * DIGITS);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = entries.map(|entry| {
            let (key, value) = entry.split_at(DIGITS);
            (text(key), text(value))
        });
        Some(AppliedStage(entries.collect()))
    }

    /// The same things, none of which has what is wanted now. It is what an edit starts from: what it has yet to apply
    /// is no drift, however often it fails before.
    #[must_use]
    pub fn outdated(&self) -> Self {
        let mut outdated = Self::default();
        for name in self.0.keys() {
            let mut stage = AppliedStage::default();
            let known = self.stage(name).unwrap_or_default();
            known.0.into_keys().for_each(|thing| stage.mark(thing));
            outdated.set_stage(name, stage);
        }
        outdated
    }

    /// Remembers a stage anew.
    pub fn set_stage(&mut self, name: &str, stage: AppliedStage) {
        let packed = stage.0.into_iter().flat_map(|(key, value)| [key, value]);
        self.0.insert(name.to_owned(), packed.collect());
    }
}

impl AppliedStage {
    /// Whether this value was applied to this thing.
    pub fn has(&self, thing: &str, value: &impl Value) -> bool {
        self.0
            .get(thing)
            .is_some_and(|was| *was == value_digest(value))
    }

    /// Whether anything was applied to this thing.
    pub fn knows(&self, thing: &str) -> bool {
        self.0.contains_key(thing)
    }

    /// This value was applied to this thing.
    pub fn insert(&mut self, thing: String, value: &impl Value) {
        self.0.insert(thing, value_digest(value));
    }

    /// Something was applied to this thing that is not wanted any more.
    pub fn mark(&mut self, thing: String) {
        self.0.insert(thing, "0".repeat(DIGITS));
    }

    /// What was applied to this thing before still counts.
    pub fn keep(&mut self, thing: String, before: &Self) {
        if let Some(value) = before.0.get(&thing) {
            self.0.insert(thing, value.clone());
        }
    }
}

/// What a thing is called in a memory: it is another thing in another place.
pub fn thing(place: &str, key: &impl Display) -> String {
    digest([place, &key.to_string()].into_iter())
}

fn value_digest(value: &impl Value) -> String {
    let fields = value.fields();
    digest(
        fields
            .iter()
            .flat_map(|(name, value)| [*name, value.as_str()]),
    )
}

/// Of a row of texts; their lengths count, so that no two rows read the same.
fn digest<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    hex(&digest.finalize()[..DIGITS / 2])
}
