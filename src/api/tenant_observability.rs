//! TenantObservability: a tenant, its account, its environments and who hears what.

use super::common::{AwsTarget, CommonStatus, KeyRef, NameRef, Severity, is_default};
use crate::engine::policy::{AdoptionPolicy, DeletionPolicy, DriftPolicy};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// What is watched for one tenant, in which account, and who hears about it.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "campanile.dev",
    version = "v1alpha1",
    kind = "TenantObservability",
    plural = "tenantobservabilities",
    namespaced,
    shortname = "tobs",
    category = "campanile",
    status = "TenantObservabilityStatus",
    derive = "PartialEq",
    doc = "The observability of one tenant: its AWS account, its environments, and who hears which severity.",
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health"),
    printcolumn(name = "Alarms", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Account", type_ = "string", json_path = ".spec.aws.accountId", priority = 1),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.aws.region", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].message"#,
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 36 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("metadata.name stands in the names of alarms and topics: use a DNS label (a-z, 0-9, -) of at most 36 characters"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.notify) || has(self.aws)")
        .message("notify makes SNS topics in the tenant's account: add the aws block, or remove notify"),
    validation = Rule::new("!has(self.aws) || !has(self.notify) || [self.notify.?critical.?topicArns.orValue([]), \
        self.notify.?warning.?topicArns.orValue([]), self.notify.?info.?topicArns.orValue([])].all(topics, \
        topics.all(topic, topic.split(':').size() != 6 || topic.split(':')[3] == self.aws.region))")
        .message("topicArns: CloudWatch can only notify topics of the tenant's own Region"),
    validation = Rule::new("!has(self.aws) || !has(self.notify) || !has(self.notify.encryptionKeyArn) || \
        self.notify.encryptionKeyArn.split(':').size() != 6 || self.notify.encryptionKeyArn.split(':')[3] == self.aws.region")
        .message("notify.encryptionKeyArn: a topic can only be encrypted with a key of its own Region, aws.region"),
    validation = Rule::new("!has(self.eventBridge) || has(self.aws)")
        .message("eventBridge is about the tenant's account: add the aws block, or remove eventBridge"),
    validation = Rule::new("!has(self.notify) || has(self.eventBridge) || (size(self.notify.?critical.?slack.orValue([])) == 0 \
        && size(self.notify.?warning.?slack.orValue([])) == 0 && size(self.notify.?info.?slack.orValue([])) == 0)")
        .message("alarms reach Slack through EventBridge, which has to assume a role for that: add eventBridge.invokeRoleArn, or remove notify's slack"),
    validation = Rule::new("!has(self.aws) || !has(self.eventBridge) || self.eventBridge.invokeRoleArn.split(':').size() < 6 || \
        self.eventBridge.invokeRoleArn.split(':')[4] == self.aws.accountId")
        .message("eventBridge.invokeRoleArn must be a role of aws.accountId"),
    validation = Rule::new("!has(self.aws) || !has(self.eventBridge) || !has(self.eventBridge.deadLetterQueueArn) || \
        self.eventBridge.deadLetterQueueArn.split(':').size() != 6 || \
        (self.eventBridge.deadLetterQueueArn.split(':')[3] == self.aws.region && self.eventBridge.deadLetterQueueArn.split(':')[4] == self.aws.accountId)")
        .message("eventBridge.deadLetterQueueArn must be a queue of aws.accountId, in aws.region"),
    validation = Rule::new("!has(oldSelf.aws) || has(self.aws)")
        .message("aws cannot be removed while things exist in that account: delete this object and make a new one")
)]
pub struct TenantObservabilitySpec {
    /// What people call the tenant. Left out: the object's name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(
        validation = Rule::new(r"self.matches('^[^\\pC\\s]([^\\pC]*[^\\pC\\s])?$')")
            .message("displayName is one line of text, without spaces around it")
    )]
    pub display_name: Option<String>,

    /// The tenant's environments. An AlarmSet makes each of its alarms once per environment that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub environments: Vec<Environment>,

    /// The tenant's AWS account.
    pub aws: Option<Aws>,

    /// Who hears which severity. An SNS topic is made for each severity that is listed.
    pub notify: Option<Notify>,

    /// How EventBridge calls Slack. Needed where a severity lists Slack channels.
    pub event_bridge: Option<EventBridge>,

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

/// One environment of a tenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// How AlarmSets call it.
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,

    /// The value of the dimension that tells this environment's metrics apart. Left out: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"))]
    pub deployment_id: Option<String>,
}

impl Environment {
    /// The value of the dimension that tells this environment's metrics apart.
    pub fn deployment_id(&self) -> &str {
        self.deployment_id.as_deref().unwrap_or(&self.name)
    }
}

/// An AWS account and how to get there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.roleArn) || self.roleArn.split(':').size() < 5 || self.roleArn.split(':')[4] == self.accountId")
        .message("roleArn must be a role of accountId")
)]
pub struct Aws {
    /// The account, 12 digits, in quotes.
    #[schemars(length(max = 12))]
    #[x_kube(
        validation = Rule::new("self.matches('^[0-9]{12}$')").message("accountId is 12 digits, in quotes"),
        validation = Rule::new("self == oldSelf")
            .message("accountId cannot be changed: delete this object and make a new one")
    )]
    pub account_id: String,

    /// The Region.
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$')")
            .message("region is the code of an AWS Region, as in us-east-2"),
        validation = Rule::new("self == oldSelf")
            .message("region cannot be changed: delete this object and make a new one")
    )]
    pub region: String,

    /// The role that Campanile assumes. Left out: the role in this account that `--tenant-role-name` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    #[x_kube(
        validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$')")
            .message("roleArn is the ARN of a role, as in arn:aws:iam::222233334444:role/campanile")
    )]
    pub role_arn: Option<String>,
}

/// How EventBridge calls Slack.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EventBridge {
    /// The role that EventBridge assumes to call the API destination, in the tenant's account. It trusts
    /// `events.amazonaws.com` and may do `events:InvokeApiDestination`.
    #[schemars(length(max = 600))]
    #[x_kube(
        validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$')")
            .message("invokeRoleArn is the ARN of a role, as in arn:aws:iam::222233334444:role/campanile-events")
    )]
    pub invoke_role_arn: String,

    /// A queue for what could not be delivered, in the tenant's account and Region. Left out: it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 160))]
    #[x_kube(
        validation = Rule::new("self.matches('^arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}$')")
            .message("deadLetterQueueArn is the ARN of a standard SQS queue, as in arn:aws:sqs:us-east-2:222233334444:campanile-dlq; EventBridge cannot use a FIFO queue here")
    )]
    pub dead_letter_queue_arn: Option<String>,
}

/// Who hears which severity.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Notify {
    /// Who is woken.
    #[serde(default, deserialize_with = "listed")]
    #[x_kube(merge_strategy = StructMerge::Atomic)]
    pub critical: Option<Recipients>,
    /// Who looks at it today.
    #[serde(default, deserialize_with = "listed")]
    #[x_kube(merge_strategy = StructMerge::Atomic)]
    pub warning: Option<Recipients>,
    /// Who likes to know.
    #[serde(default, deserialize_with = "listed")]
    #[x_kube(merge_strategy = StructMerge::Atomic)]
    pub info: Option<Recipients>,
    /// The KMS key with which the topics are encrypted, in the tenant's Region. Its key policy has to let
    /// `cloudwatch.amazonaws.com` do `kms:GenerateDataKey*` and `kms:Decrypt`, or no alarm gets through.
    /// Left out: they are not encrypted.
    #[schemars(length(max = 160))]
    #[x_kube(
        validation = Rule::new("self.matches('^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]{1,64}$')")
            .message("encryptionKeyArn is the ARN of a customer managed KMS key, as in arn:aws:kms:us-east-2:222233334444:key/1234abcd-12ab-34cd-56ef-1234567890ab; no alias, since CloudWatch can never use alias/aws/sns")
    )]
    pub encryption_key_arn: Option<String>,
}

/// A severity that is there is listed, whatever is in it: where somebody takes the last recipient out of
/// it, server-side apply may store `null` for what was applied as `{}`.
fn listed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Recipients>, D::Error> {
    Option::deserialize(deserializer).map(|read| Some(read.unwrap_or_default()))
}

impl Notify {
    /// The severities that are listed, each with those who hear it.
    pub fn listed(&self) -> impl Iterator<Item = (Severity, &Recipients)> {
        Severity::ALL.into_iter().filter_map(|severity| {
            let recipients = match severity {
                Severity::Critical => &self.critical,
                Severity::Warning => &self.warning,
                Severity::Info => &self.info,
            };
            recipients.as_ref().map(|recipients| (severity, recipients))
        })
    }
}

/// Those who hear one severity.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Recipients {
    /// PagerDuty services, by the integration key of an Amazon CloudWatch integration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pager_duty: Vec<PagerDuty>,

    /// Addresses of people, each of whom confirms once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "emails")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub emails: Vec<String>,

    /// Channels in Slack, by their SlackChannel objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub slack: Vec<SlackRecipient>,

    /// Topics that exist already and hear the alarms beside ours, in the tenant's Region. They stay
    /// as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "topic_arns")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub topic_arns: Vec<String>,
}

/// The rule is on the item, so that a refusal names its index; schemars has no word for that. 254
/// characters are what fits into the path of an SMTP command (RFC 5321, 4.5.3.1.3).
fn emails(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 10,
        "items": {
            "type": "string",
            "maxLength": 254,
            "x-kubernetes-validations": [{
                "rule": r#"self.matches(r"^[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])$")"#,
                "message": "an e-mail address is written plainly, as in oncall@vsu.example"
            }]
        }
    })
}

/// As for `emails`. CloudWatch takes five actions for an alarm, and one of them is our own topic. A
/// topic's name has at most 256 characters.
fn topic_arns(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 4,
        "items": {
            "type": "string",
            "maxLength": 320,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$')",
                "message": "a topic ARN is that of a standard SNS topic, as in arn:aws:sns:us-east-2:222233334444:pager; CloudWatch cannot notify a FIFO topic"
            }]
        }
    })
}

/// A PagerDuty service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PagerDuty {
    /// How messages call it.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Where the integration key is, or the integration URL that PagerDuty shows.
    pub integration_key_secret_ref: KeyRef,
}

/// A channel in Slack.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SlackRecipient {
    /// The SlackChannel, in this namespace.
    pub channel_ref: NameRef,
}

/// What the roll-up says.
#[derive(Serialize, Deserialize, JsonSchema, strum::Display, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing fires and everything is in place.
    Healthy,
    /// Nothing that wakes anybody fires, but something is not in place.
    Degraded,
    /// A critical or a warning alarm fires.
    Alarming,
    /// The alarms have not been read, or not lately.
    Unknown,
}

/// What Campanile found and did. Written by Campanile only.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantObservabilityStatus {
    /// What all kinds say.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// The roll-up.
    pub health: Option<Health>,
    /// How many of the tenant's alarms fire: `1/16 firing`.
    pub summary: Option<String>,
    /// The sums over the tenant's AlarmSets.
    pub counts: Option<super::AlarmCounts>,
    /// What the role's trust must ask for as `sts:ExternalId`.
    pub external_id: Option<String>,
    /// Where to look at it.
    pub links: Option<Links>,
    /// The topics that exist and are ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub topics: Vec<TopicEntry>,
    /// The subscriptions that Campanile has made, or is about to make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub subscriptions: Vec<SubscriptionEntry>,
    /// The ways into Slack that Campanile has made, or is about to make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub slack_paths: Vec<SlackPathEntry>,
    /// Where things were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub targets: Vec<AwsTarget>,
}

/// The condition that says whether messages reach those who are to hear them.
pub const DELIVERY_READY: &str = "DeliveryReady";

/// The condition that says whether the role lets us into the account.
pub const ACCOUNT_REACHABLE: &str = "AccountReachable";

/// Where a person looks at what Campanile made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Links {
    /// The tenant's alarms: a URL of the AWS console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<String>,
}

/// An SNS topic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TopicEntry {
    /// Whose alarms it carries.
    pub severity: Severity,
    /// The topic.
    pub arn: String,
}

/// A subscription to one of the topics.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionEntry {
    /// Whose topic.
    pub severity: Severity,
    /// SNS's name of the protocol.
    pub protocol: String,
    /// The endpoint; a digest where the endpoint is a secret.
    pub endpoint: String,
    /// Whether it delivers.
    pub state: SubscriptionState,
}

/// Whether a subscription delivers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// About to be made.
    Creating,
    /// Waits for its reader to confirm.
    Pending,
    /// Delivers.
    Confirmed,
    /// Its reader, or somebody else, removed it, or it was never confirmed. It is not sent again by
    /// itself.
    Gone,
}

/// A way for alarms into Slack: an EventBridge connection and an API destination.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SlackPathEntry {
    /// The SlackChannel object.
    pub channel: String,
    /// How messages get in.
    pub via: SlackVia,
    /// A digest of the webhook's URL or of the token that EventBridge was given last. Absent while it was
    /// given none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// When AWS says that the connection was modified last by Campanile (RFC 3339). A later time is somebody else's
    /// doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

/// How messages get into a channel.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum SlackVia {
    /// By an incoming webhook.
    Webhook,
    /// As a bot, by its token.
    BotToken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_severity_that_is_null_is_listed_with_nobody() {
        let notify: Notify = serde_json::from_value(json!({"critical": null, "info": {}})).unwrap();
        let listed: Vec<_> = notify.listed().map(|(severity, _)| severity).collect();
        assert_eq!(listed, [Severity::Critical, Severity::Info]);
    }
}
