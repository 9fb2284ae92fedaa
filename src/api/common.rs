//! What several kinds share: severities, references, where an object acts.

use crate::engine::applied::Applied;
use derive_more::Display;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// How bad it is when an alarm fires. Picks the topic and stands in the alarm's name.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// Wakes somebody.
    Critical,
    /// Somebody looks at it today.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Warning, Self::Info];
}

/// Whether a field has the value that it has when it is left out, so that what is written is what
/// somebody wrote.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What the status of every kind says.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommonStatus {
    /// The generation that was attempted last.
    #[serde(default, deserialize_with = "attempted")]
    pub observed_generation: Option<i64>,
    /// The last value of the annotation `reconcile.fluxcd.io/requestedAt` that was acted on.
    pub last_handled_reconcile_at: Option<String>,
    /// What differs outside from what was applied, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub drift: Vec<DriftEntry>,
    /// How many differences there are, listed or not.
    pub drift_count: Option<i32>,
    /// A digest of the spec that was last applied completely.
    pub applied_digest: Option<String>,
    /// What was applied, thing by thing: what differs from it later came about outside.
    pub applied: Option<AppliedEntry>,
    /// `Ready`, `Reconciling`, `Stalled`, `Drifted`, and those of the kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub conditions: Vec<Condition>,
}

/// The condition of a type; its types differ.
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// What stands for the generation that was attempted last before any was.
pub(super) const UNSEEN: i64 = -1;

/// The generation that was attempted last; none before the first status is written.
fn attempted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let read = Option::<i64>::deserialize(deserializer)?;
    Ok(read.filter(|generation| *generation != UNSEEN))
}

/// A difference that came about outside after the spec was applied. Holds no secret.
#[serde_with::skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DriftEntry {
    /// What sort of thing differs: `alarm`, `topic`, `subscription`, `alarm tag`.
    pub resource: String,
    /// What it is called outside.
    pub name: String,
    /// How it differs.
    pub change: DriftChange,
    /// The field that differs. Absent where the thing as a whole is missing or unexpected.
    pub field: Option<String>,
    /// What the spec asks for there. Absent where it asks for nothing.
    pub wanted: Option<String>,
    /// What is there. Absent where nothing is.
    pub found: Option<String>,
    /// When it was noticed, RFC 3339.
    pub since: String,
}

/// How something outside differs from what was applied.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum DriftChange {
    /// It is there, but not as the spec asks.
    Changed,
    /// It is gone.
    Missing,
    /// It is ours and the spec does not ask for it.
    Unexpected,
}

/// An object of the same namespace, by name.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
pub struct NameRef {
    /// The object's name.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// A key of a Secret of the same namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// The Secret's name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What was applied, so that what comes about outside is told from what the spec changes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedEntry {
    /// A digest of the spec that was last attempted to its end.
    pub spec: String,
    /// By sort of thing, a digest of each thing's name and of what was applied to it.
    #[serde(default, skip_serializing_if = "Applied::is_empty")]
    pub things: Applied,
}

/// A place where an object has made things, or is about to: written to status before the first
/// outside write there and dropped after the last delete, so that cleaning up needs no tenant.
#[derive(
    Serialize, Deserialize, JsonSchema, Display, Clone, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
#[display("account {account_id}, {region}")]
pub struct AwsTarget {
    /// The AWS account, 12 digits.
    pub account_id: String,
    /// The AWS Region.
    pub region: String,
    /// The role that was assumed there last.
    pub role_arn: String,
    /// What the names of all that is ours there begin with.
    pub prefix: String,
}
