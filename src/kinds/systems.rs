//! The outside systems of this process.

use super::{
    aws_scope::AwsScope, installation::Installation, names, slack_channel::workspace::SlackScope,
};
use crate::{
    clients::Clients,
    engine::{informer::Polling, scope_pool::ScopePools},
};
use std::sync::Arc;

/// What is watched of them; no scope is open yet.
pub fn systems(clients: &Clients, installation: &Installation, polling: &Polling) -> ScopePools {
    let alarms = names::alarms_prefix(&installation.cluster.name);
    ScopePools::default()
        .with::<AwsScope>(
            (clients.aws.clone(), alarms, Arc::default()),
            polling.clone(),
        )
        .with::<SlackScope>(clients.slack.clone(), polling.clone())
}
