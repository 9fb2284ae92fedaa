//! SlackChannel: a channel, who is in it, and how messages get into it.

use super::common::{CommonStatus, KeyRef, is_default};
use crate::engine::policy::{AdoptionPolicy, DeletionPolicy, DriftPolicy};
use derive_more::Display;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A channel in Slack, a way into it, or both.
#[serde_with::skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "campanile.dev",
    version = "v1alpha1",
    kind = "SlackChannel",
    plural = "slackchannels",
    namespaced,
    shortname = "slc",
    category = "campanile",
    status = "SlackChannelStatus",
    derive = "PartialEq",
    doc = "A channel in Slack: that it is there as declared, and how messages get into it.",
    printcolumn(name = "Channel", type_ = "string", json_path = ".status.channel"),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.channelId"),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("metadata.name: use a DNS label (a-z, 0-9, -) of at most 63 characters"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.channel) || has(self.channel)")
        .message("channel cannot be taken away, for nobody would look after it any more: delete this object, and make one with the webhook alone"),
    validation = Rule::new("has(self.channel) || has(self.webhookSecretRef)")
        .message("a SlackChannel is a channel, an incoming webhook, or both: add channel or webhookSecretRef"),
    validation = Rule::new("has(self.channel) || !(has(self.tokenSecretRef) || has(self.topic) || has(self.purpose) || has(self.invite) || has(self.visibility) || has(self.adoptionPolicy))")
        .message("tokenSecretRef, topic, purpose, invite, visibility and adoptionPolicy are about a channel: add channel, or remove them"),
    validation = Rule::new("!has(self.channel) || !has(oldSelf.channel) || (has(self.visibility) ? self.visibility : 'Public') == (has(oldSelf.visibility) ? oldSelf.visibility : 'Public')")
        .message("visibility cannot be changed: Slack lets nobody but a person convert a channel; delete this object and make a new one")
)]
pub struct SlackChannelSpec {
    /// The channel's name in Slack, without `#`. It is made if there is none. A change renames it.
    #[schemars(length(min = 1, max = 80))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9_-]+$')")
            .message("a channel's name has lower-case letters, digits, _ and - only, and no #")
    )]
    pub channel: Option<String>,

    /// The bot token by which the channel is looked after. Left out: the operator's own, where the
    /// Namespace's annotation `campanile.dev/slack-channel-prefix` allows it.
    pub token_secret_ref: Option<KeyRef>,

    /// An incoming webhook: a way for alarms and messages into the channel that Slack tied it to.
    pub webhook_secret_ref: Option<KeyRef>,

    /// Who can see the channel. Cannot be changed. Left out: `Public`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub visibility: Visibility,

    /// The channel's topic. Left out: whatever it is.
    #[schemars(length(min = 1, max = 250))]
    pub topic: Option<String>,

    /// What the channel is for. Left out: whatever it is.
    #[schemars(length(min = 1, max = 250))]
    pub purpose: Option<String>,

    /// Who is invited, once each: addresses or member ids. Nobody is ever removed, and who leaves is not
    /// invited again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "people")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub invite: Vec<String>,

    /// What is done where a channel of that name exists already. `Never`: it is a conflict. `IfExists`:
    /// it is looked after from then on. `MustExist`: as `IfExists`, and none is made. Left out: `Never`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adoption_policy: AdoptionPolicy,

    /// Nothing is read or written outside while true; status keeps what was known last. A deletion
    /// is carried out all the same. Left out: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,

    /// `Repair`: a difference that came about outside after the spec was applied is repaired.
    /// `Report`: it is told in `status.drift` and not repaired; an edit applies the whole spec. Left
    /// out: `Repair`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drift_policy: DriftPolicy,

    /// `Orphan`: when this object is deleted, the channel stays. `Delete`: it is archived, which a bot
    /// cannot undo. Left out: `Orphan`, since a channel holds people's history.
    #[serde(default = "orphan", skip_serializing_if = "is_orphan")]
    #[schemars(schema_with = "deletion_policy")]
    pub deletion_policy: DeletionPolicy,
}

fn orphan() -> DeletionPolicy {
    DeletionPolicy::Orphan
}

fn is_orphan(policy: &DeletionPolicy) -> bool {
    *policy == orphan()
}

/// The type's own default is another, and would be published with it.
fn deletion_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Delete", "Orphan"]})
}

/// The rule is on the item, so that a refusal names its index; schemars has no word for that. Ids of
/// members begin with U or W.
fn people(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 50,
        "items": {
            "type": "string",
            "maxLength": 254,
            "x-kubernetes-validations": [{
                "rule": r"self.matches('^[UW][A-Z0-9]{2,30}$') || self.matches('^[^@\\s,]+@[^@\\s,]+\\.[^@\\s,.]+$')",
                "message": "invite people by the address that Slack knows, as in oncall@vsu.example, or by their member id, as in U012AB3CD"
            }]
        }
    })
}

/// Who can see a channel.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody in the workspace.
    #[default]
    Public,
    /// Those who were invited.
    Private,
}

/// What Campanile found and did. Written by Campanile only.
#[serde_with::skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SlackChannelStatus {
    /// What all kinds say.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// The channel's name as Slack has it.
    pub channel: Option<String>,
    /// The channel's id, by which it is found again whatever it is called.
    pub channel_id: Option<String>,
    /// When the channel was made, in seconds since 1970: by it the same channel is known under another id.
    pub channel_created: Option<i64>,
    /// How many are in the channel.
    pub members: Option<i32>,
    /// The workspace in which the channel is.
    pub workspace: Option<Workspace>,
    /// Where to look at it: the channel's URL.
    pub link: Option<String>,
    /// A channel that is about to be made: by this it is known again where the answer is lost.
    pub creating: Option<Creating>,
    /// What Slack made of the topic and of the purpose: it turns an emoji into its name, an address into a link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub texts: Vec<StoredText>,
    /// Who has been invited, or was in the channel already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub invited: Vec<String>,
    /// By which token things were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub targets: Vec<SlackTarget>,
}

/// A text of a channel, and what Slack made of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StoredText {
    /// Which: `topic` or `purpose`.
    pub about: String,
    /// As the spec has it.
    pub text: String,
    /// As Slack has it. Something else is somebody's doing.
    pub stored: String,
}

/// A workspace of Slack.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Slack's id of it.
    pub team_id: String,
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub url: String,
}

/// A channel that is about to be made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Creating {
    /// Its name.
    pub channel: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// The way by which an object has acted in Slack: written to status before the first outside write and
/// dropped after the last.
#[derive(Serialize, Deserialize, JsonSchema, Display, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[display("Slack by {token}")]
pub struct SlackTarget {
    /// Whose token: `Secret <namespace>/<name>, key <key>`, `the operator's own token`, or `no token` where there is only
    /// a webhook.
    pub token: String,
}
