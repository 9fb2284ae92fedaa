//! The configuration of this process: the name of its cluster, the default role, base URLs.

use crate::{
    api::AwsTarget,
    clients::{
        aws::Identity,
        secret::{Digester, Secret},
    },
    kinds::mark::{Cluster, Mark, Ownership},
};
use kube::{Resource, ResourceExt};
use std::time::Duration;

/// What does not change while this process runs.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Which installation of Campanile this is.
    pub cluster: Cluster,
    /// The role to assume where a tenant names none.
    pub tenant_role_name: String,
    /// Where PagerDuty takes events: scheme and host, no trailing slash.
    pub pagerduty_events_url: String,
    /// Where Slack's Web API is, no trailing slash: a method's name follows.
    pub slack_api_url: String,
    /// The operator's own bot token, for namespaces that may use it.
    pub slack_token: Option<Secret>,
    /// Digests of secrets.
    pub digester: Digester,
    /// Whether a namespace may act only in the account that its annotation names.
    pub require_account_binding: bool,
    /// Whether URLs of specs and Secrets may lead anywhere, and without TLS.
    pub allow_private_endpoints: bool,
    /// The former clusters whose things are ours now, in every Namespace.
    pub formers: Vec<Cluster>,
    /// After how long a deletion lets go of what nobody can reach any more.
    pub release_after: Duration,
}

impl Installation {
    /// What a namespace's roles must ask for as `sts:ExternalId`. Not a tenant's to choose.
    pub fn external_id(&self, namespace: &str) -> String {
        format!("{}/{namespace}", self.cluster.name)
    }

    /// Who we are in a place, on behalf of a namespace.
    pub fn identity(&self, target: &AwsTarget, namespace: &str) -> Identity {
        Identity {
            role_arn: target.role_arn.clone(),
            external_id: self.external_id(namespace),
            account_id: target.account_id.clone(),
            region: target.region.clone(),
        }
    }

    /// The mark of an object.
    pub fn mark<K: Resource<DynamicType = ()>>(&self, object: &K) -> Mark {
        self.ownership(object, &[]).mark
    }

    /// Which things are an object's, which takes over what it made in `formers`.
    pub fn ownership<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        formers: &[Cluster],
    ) -> Ownership {
        Ownership::new(
            &self.cluster,
            formers,
            &K::kind(&()),
            &object.namespace().unwrap_or_default(),
            &object.name_any(),
        )
    }

    /// One for tests.
    #[cfg(test)]
    pub fn sample() -> Self {
        Self {
            cluster: Cluster {
                name: "eu".into(),
                uid: "0a1b2c3d".into(),
            },
            tenant_role_name: "campanile".into(),
            pagerduty_events_url: "https://events.pagerduty.com".into(),
            slack_api_url: "https://slack.com/api".into(),
            slack_token: None,
            digester: Digester::new(b"key").unwrap(),
            require_account_binding: true,
            allow_private_endpoints: false,
            formers: Vec::new(),
            release_after: Duration::from_secs(24 * 3600),
        }
    }
}
