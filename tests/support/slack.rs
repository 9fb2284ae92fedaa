//! A workspace of a tenant's own.

use super::{Tenant, at_least, eventually, with};
use campanile_world::slack::{Call, Mark, WEBHOOK, Workspace};
use serde_json::{Value, json};

/// What a bot needs to look after public channels.
pub const SCOPES: [&str; 6] = [
    "channels:read",
    "channels:manage",
    "channels:join",
    "chat:write",
    "users:read",
    "users:read.email",
];

/// What it needs besides for private ones.
pub const PRIVATE: [&str; 2] = ["groups:read", "groups:write"];

/// A workspace of the test's own, and a Secret `slack` with the token of a bot there.
pub async fn workspace(tenant: &Tenant, scopes: &[&str]) -> (Workspace, String) {
    let workspace = tenant.world.slack.workspace(&tenant.namespace);
    workspace.limit_rates();
    let token = workspace.bot(scopes);
    tenant.secret("slack", "token", &token).await;
    (workspace, token)
}

/// A channel by the token in the Secret `slack`.
pub fn spec(channel: &str, more: Value) -> Value {
    let spec = json!({"channel": channel, "tokenSecretRef": {"name": "slack", "key": "token"}});
    with(spec, more)
}

/// All that a bot needs for public and for private channels.
pub fn all_scopes() -> Vec<&'static str> {
    [&SCOPES[..], &PRIVATE[..]].concat()
}

/// Waits until the operator has looked so often by this token since `mark`: each look begins or ends with
/// whether the token is still good, and comes to the listings as well.
pub async fn looks(slack: &Workspace, token: &str, mark: Mark, times: usize) {
    for method in ["auth.test", "conversations.list"] {
        at_least(&format!("{times} calls of {method}"), times, || {
            let calls = slack.calls_since(mark, method).into_iter();
            calls.filter(|call| call.token == token).count()
        })
        .await;
    }
}

/// Waits until the bot is in the channel, or is not.
pub async fn bot_is(slack: &Workspace, token: &str, channel: &str, within: bool) {
    let bot = slack.bot_user(token);
    eventually(
        &format!("{within} that the bot is in {channel}"),
        || async {
            match slack.channel(channel) {
                Some(found) if found.members.contains(&bot) == within => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}

/// Nothing broke Slack's contract, and no more was asked than Slack lets through; `refused` calls met such
/// a trouble on demand.
pub fn kept_the_rules(tenant: &Tenant, slack: &Workspace, refused: usize) {
    assert_eq!(slack.violations(), Vec::<String>::new());
    // A webhook is asked as often as Slack takes messages by it, and its clock is not ours.
    let limited = |call: &Call| call.status == Some(429) && call.method != WEBHOOK;
    let calls = tenant.world.slack.calls().into_iter();
    let ours = calls.filter(|call| call.workspace == slack.id());
    let limited: Vec<_> = ours.filter(limited).collect();
    assert_eq!(limited.len(), refused, "{limited:#?}");
}
