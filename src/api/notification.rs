//! What the status of a kind whose work takes long says of the messages about it in Slack.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a channel was told of a run. The caller keeps it in its own status for as long as it tells of the run, and
/// changes nothing in it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The run: what tells it from all other runs of the same object, for ever.
    pub run: String,
    /// The SlackChannel.
    pub channel: String,
    /// Whether the start or the end was told last, or was about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Phase>,
    /// The message that can be edited and answered. None by a webhook, and none where nobody knows whether it is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Posted>,
    /// How many of the details were told, or were about to be.
    #[serde(default)]
    pub details: u32,
}

impl Record {
    /// Of a run of which the SlackChannel was told nothing yet.
    pub fn new(run: &str, channel: &str) -> Self {
        Self {
            run: run.to_owned(),
            channel: channel.to_owned(),
            told: None,
            message: None,
            details: 0,
        }
    }
}

/// How far a run is, as far as it concerns who hears of it.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum Phase {
    /// It is under way.
    Started,
    /// It has done what it was to do.
    Completed,
    /// It has not.
    Failed,
}

impl Phase {
    /// Whether nothing more happens in the run.
    pub fn is_over(self) -> bool {
        self != Self::Started
    }
}

/// Where a message is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The channel's id.
    pub channel: String,
    /// What tells the message from the others of the channel.
    pub ts: String,
}
