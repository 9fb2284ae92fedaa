//! AlarmSet: CloudWatch alarms, in CloudWatch's own words.

use super::common::{AwsTarget, CommonStatus, NameRef, Severity, is_default};
use crate::engine::policy::{AdoptionPolicy, DeletionPolicy, DriftPolicy};
use derive_more::AddAssign;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strum::{Display, IntoStaticStr};

/// A set of a tenant's CloudWatch alarms.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "campanile.dev",
    version = "v1alpha1",
    kind = "AlarmSet",
    namespaced,
    shortname = "aset",
    category = "campanile",
    status = "AlarmSetStatus",
    derive = "PartialEq",
    doc = "A set of CloudWatch alarms of one tenant, made once per environment that it names.",
    selectable = ".spec.tenantRef.name",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Alarms", type_ = "integer", json_path = ".status.counts.desired"),
    printcolumn(name = "Firing", type_ = "integer", json_path = ".status.counts.firing"),
    printcolumn(name = "NoData", type_ = "integer", json_path = ".status.counts.noData"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("metadata.name stands in the names of alarms: use a DNS label (a-z, 0-9, -) of at most 63 characters"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.environments) || size(self.alarms) * size(self.environments) <= 200")
        .message("alarms × environments is more than 200: split the AlarmSet"),
    validation = Rule::new("!has(self.environments) || !('*' in self.environments) || size(self.environments) == 1")
        .message("environments: \"*\" means all of the tenant's, so it stands alone")
)]
pub struct AlarmSetSpec {
    /// The tenant whose alarms these are: a TenantObservability of the same namespace.
    #[x_kube(validation = Rule::new("self == oldSelf").message("tenantRef cannot be changed: delete this object and make a new one"))]
    pub tenant_ref: NameRef,

    /// The tenant's environments to make each alarm for, or `["*"]` for all of them. Left out: each
    /// alarm is made once, without the dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 20),
        inner(
            length(min = 1, max = 32),
            regex(pattern = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?|\*)$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub environments: Option<Vec<String>>,

    /// The dimension that tells environments apart.
    #[serde(default = "environment_dimension")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[!-9;-~][!-~]*$"))]
    pub environment_dimension: String,

    /// The alarms.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub alarms: Vec<Alarm>,

    /// Nothing is read or written outside while true; status keeps what was known last. A deletion
    /// is carried out all the same. Left out: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,

    /// `Repair`: a difference that came about outside after the spec was applied is repaired.
    /// `Report`: it is told in `status.drift` and not repaired; an edit applies the whole spec. Left
    /// out: `Repair`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drift_policy: DriftPolicy,

    /// `Delete`: when this object is deleted, what it made is deleted. `Orphan`: what it made stays,
    /// with its mark. Left out: `Delete`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deletion_policy: DeletionPolicy,

    /// What is done where something of the wanted name exists that carries nobody's mark. `Never`: it
    /// is a conflict. `IfExists`: it becomes ours. `MustExist`: as `IfExists`, and nothing is made
    /// anew. What carries another's mark is never adopted. Left out: `Never`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adoption_policy: AdoptionPolicy,
}

fn environment_dimension() -> String {
    "DeploymentId".into()
}

/// An alarm, in the words of CloudWatch's PutMetricAlarm.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.datapointsToAlarm) || self.datapointsToAlarm <= self.evaluationPeriods")
        .message("datapointsToAlarm (M of N) must not be more than evaluationPeriods"),
    validation = Rule::new("self.period in [10, 20, 30] || self.period % 60 == 0")
        .message("period must be 10, 20, 30 or a multiple of 60 seconds")
)]
pub struct Alarm {
    /// What the alarm is called here; its name in CloudWatch is made from this.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,

    /// How bad it is when it fires.
    pub severity: Severity,

    /// What it means, for the person who is woken. One line.
    #[schemars(length(max = 512))]
    #[x_kube(
        validation = Rule::new(r"self.matches(r'^[^\x00-\x1f\x7f-\x9f\x{2028}\x{2029}]*$')")
            .message("description is one line without control characters")
    )]
    pub description: Option<String>,

    /// What to do about it.
    #[schemars(length(max = 256))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[!-~]+$')")
            .message("runbookUrl is a URL: https://…")
    )]
    pub runbook_url: Option<String>,

    /// The metric's namespace.
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[0-9A-Za-z._/#-][ 0-9A-Za-z._:/#-]*$")
    )]
    pub namespace: String,

    /// The metric's name.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"))]
    pub metric_name: String,

    /// The metric's dimensions: an alarm watches the one metric that has exactly these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "dimensions")]
    #[x_kube(validation = Rule::new("self.all(name, size(name) >= 1 && size(name) <= 255 && !name.startsWith(':'))")
        .message("a dimension's name has 1 to 255 characters and does not begin with a colon"))]
    pub dimensions: BTreeMap<String, String>,

    /// A statistic (`SampleCount`, `Average`, `Sum`, `Minimum`, `Maximum`) or a percentile and its kin (`p95`, `tm90`, `IQM`).
    #[schemars(length(max = 64))]
    #[x_kube(
        validation = Rule::new(r"self.matches(r'^(SampleCount|Average|Sum|Minimum|Maximum|IQM|(p|tm|wm|tc|ts)([0-9]{1,2}(\.[0-9]{1,10})?|100)|(TM|WM|PR|TC|TS)\([0-9.%]*:[0-9.%]*\))$')")
            .message("statistic is SampleCount, Average, Sum, Minimum or Maximum, or a percentile or one of its kin: p95, tm90, IQM, PR(0:100)")
    )]
    pub statistic: String,

    /// The length of one period, in seconds: 10, 20, 30 or a multiple of 60.
    #[schemars(range(min = 10, max = 604800))]
    pub period: i32,

    /// How many periods are looked at (N).
    #[schemars(range(min = 1, max = 10080))]
    pub evaluation_periods: i32,

    /// How many of them must breach (M of N). Left out: all.
    #[schemars(range(min = 1, max = 10080))]
    pub datapoints_to_alarm: Option<i32>,

    /// How the value is compared with the threshold.
    pub comparison_operator: ComparisonOperator,

    /// What the value is compared with.
    pub threshold: f64,

    /// What a period without data means. Left out: CloudWatch's own default, `missing`.
    pub treat_missing_data: Option<TreatMissingData>,
}

/// schemars has no word for the number of a map's entries.
fn dimensions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"^[!-~]([ -~]*[!-~])?$"}
    })
}

/// How a value is compared with the threshold.
#[derive(Serialize, Deserialize, JsonSchema, Display, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOperator {
    /// ≥
    GreaterThanOrEqualToThreshold,
    /// >
    GreaterThanThreshold,
    /// <
    LessThanThreshold,
    /// ≤
    LessThanOrEqualToThreshold,
}

/// What a period without data means.
#[derive(Serialize, Deserialize, JsonSchema, Display, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum TreatMissingData {
    /// It breaches.
    Breaching,
    /// It does not breach.
    NotBreaching,
    /// The state stays as it is.
    Ignore,
    /// Enough of them make INSUFFICIENT_DATA.
    Missing,
}

/// What Campanile found and did. Written by Campanile only.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AlarmSetStatus {
    /// What all kinds say.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// How many alarms there are, by what matters. Absent until the alarms have been read once.
    pub counts: Option<AlarmCounts>,
    /// The alarms, the bad ones first, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub alarms: Vec<AlarmEntry>,
    /// How many alarms are not listed.
    pub omitted: Option<i32>,
    /// Where things were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub targets: Vec<AwsTarget>,
}

/// How many alarms there are, by what matters.
#[derive(
    Serialize, Deserialize, JsonSchema, AddAssign, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[serde(rename_all = "camelCase")]
pub struct AlarmCounts {
    /// Alarms that the spec asks for.
    pub desired: i32,
    /// Of these, how many CloudWatch has as the spec asks.
    pub applied: i32,
    /// In state ALARM.
    pub firing: i32,
    /// In state INSUFFICIENT_DATA.
    pub no_data: i32,
    /// Not as the spec asks, because something failed.
    pub failed: i32,
    /// Not touched, because something of that name is not ours.
    pub foreign: i32,
}

/// An alarm as CloudWatch has it.
#[serde_with::skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AlarmEntry {
    /// The alarm's name in the spec.
    pub name: String,
    /// The environment, for an alarm that is made once per environment.
    pub environment: Option<String>,
    /// CloudWatch's state. Absent where there is no such alarm, or none that is ours.
    pub state: Option<AlarmState>,
    /// When the alarm went into that state, RFC 3339.
    pub since: Option<String>,
    /// What is wrong with it, in a word. Absent where it is as the spec asks.
    pub reason: Option<String>,
    /// What is wrong with it and what to do; for a firing alarm, CloudWatch's own reason.
    pub message: Option<String>,
}

/// An alarm's state, as CloudWatch writes it.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    IntoStaticStr,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum AlarmState {
    /// It fires.
    Alarm,
    /// There is not enough data to tell.
    InsufficientData,
    /// It does not fire.
    Ok,
}
