//! What several kinds share: severities, references, where an object acts.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad it is when an alarm fires. Picks the topic and stands in the alarm's name.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "lowercase")]
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

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
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

/// A place where an object has made things, or is about to: written to status before the first
/// outside write there and dropped after the last delete, so that cleaning up needs no tenant.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The AWS account, 12 digits.
    pub account_id: String,
    /// The AWS Region.
    pub region: String,
    /// The role that was assumed there last.
    pub role_arn: String,
    /// What the names of all that is ours there begin with.
    pub prefix: String,
}

impl Target {
    /// Whether both mean the same place; the role by which one gets there may change.
    pub fn same_place(&self, other: &Self) -> bool {
        (&self.account_id, &self.region, &self.prefix)
            == (&other.account_id, &other.region, &other.prefix)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}, {}", self.account_id, self.region)
    }
}
