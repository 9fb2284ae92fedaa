//! What becomes of events whose target is an API destination.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It waits: for its turn, for an answer, or to be tried again.
    Pending,
    /// The endpoint answered with success, which says nothing of what is in the answer.
    Delivered,
    /// It cannot be delivered, and is in the target's dead-letter queue.
    DeadLettered,
    /// It cannot be delivered, and no queue took it.
    Dropped,
    /// The target has no role: AWS does nothing at all, and tells nobody.
    NotInvoked,
}

/// An event on its way to an API destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The account of the rule.
    pub account: String,
    /// Its Region.
    pub region: String,
    /// The name of the rule that the event met.
    pub rule: String,
    /// The id of the target.
    pub target: String,
    /// The ARN of the API destination.
    pub destination: String,
    /// The id of the event.
    pub event: String,
    /// The name of the alarm that the event is about; empty if it is about none.
    pub alarm: String,
    /// The HTTP statuses with which the endpoint answered, one after the other.
    pub statuses: Vec<u16>,
    /// How often it was tried, also without an answer.
    pub attempts: usize,
    /// How far it has come.
    pub outcome: Outcome,
    /// Why it was not delivered, or has not been yet.
    pub reason: String,
}

/// A message in a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event, as JSON.
    pub body: String,
    /// Why it is here: `RULE_ARN`, `TARGET_ARN`, `ERROR_CODE`, `ERROR_MESSAGE`, `RETRY_ATTEMPTS`, and `EXHAUSTED_RETRY_CONDITION`
    /// where there were too many or the event was too old.
    pub attributes: BTreeMap<String, String>,
}
