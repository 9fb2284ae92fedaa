//! Clients of the outside systems.

pub mod aws;
pub mod http;
pub mod kubernetes;
pub mod secret;
pub mod slack;

use crate::engine::{error::Result, limits::Limiter};
use aws::{Accounts, Observer};
use slack::Slack;
use std::sync::Arc;

/// The ways to the outside, one for each system.
#[derive(Clone)]
pub struct Clients {
    /// The tenants' AWS accounts.
    pub aws: Arc<Accounts>,
    /// Slack.
    pub slack: Slack,
    /// The quotas of all of them.
    pub limiter: Arc<Limiter>,
}

impl Clients {
    /// Credentials and endpoints come from the operator's environment, never from a spec. `observer` is
    /// told of every request.
    pub async fn from_environment(
        cluster: &str,
        slack_api_url: &str,
        limiter: Arc<Limiter>,
        observer: Observer,
    ) -> Result<Self> {
        let aws = Accounts::from_environment(cluster, limiter.clone(), observer.clone()).await;
        Ok(Self {
            aws: Arc::new(aws),
            slack: Slack::new(http::client()?, slack_api_url, limiter.clone(), observer),
            limiter,
        })
    }
}

#[cfg(test)]
mod messages;
