//! The policies of a spec: drift, deletion, adoption. They are applied in [`crate::engine::stage`] and
//! [`crate::engine::plan`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done about a difference that came about outside after the spec was applied.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriftPolicy {
    /// It is repaired.
    #[default]
    Repair,
    /// It is told in `status.drift` and not repaired; an edit applies the whole spec.
    Report,
}

/// What becomes of what an object made when the object is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays, with its mark.
    Orphan,
}

/// What is done where something of the wanted name exists that carries nobody's mark. What carries
/// another's mark is never adopted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdoptionPolicy {
    /// It is a conflict.
    #[default]
    Never,
    /// It becomes ours.
    IfExists,
    /// It becomes ours, and nothing is made anew.
    MustExist,
}
