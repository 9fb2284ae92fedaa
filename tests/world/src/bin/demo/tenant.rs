//! The tenants of `examples/`: who they are, before there is a cluster to ask.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// What the demo has to know of a TenantObservability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub namespace: String,
    pub name: String,
    pub account: String,
    pub region: String,
    pub role_arn: String,
    /// By which EventBridge calls Slack.
    pub invoke_role_arn: Option<String>,
    /// Where goes what it cannot deliver.
    pub dead_letter_queue_arn: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    aws: Aws,
    #[serde(default)]
    event_bridge: EventBridge,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventBridge {
    invoke_role_arn: Option<String>,
    dead_letter_queue_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aws {
    account_id: String,
    region: String,
    role_arn: Option<String>,
}

impl Tenant {
    /// All tenants that have an AWS account, from the manifests in `folder`.
    pub fn all(folder: &Path) -> Result<Vec<Self>> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .with_context(|| format!("{} cannot be read", folder.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        });
        paths.sort();
        let mut tenants = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path)?;
            let found = Self::of(&text).with_context(|| path.display().to_string())?;
            tenants.extend(found);
        }
        ensure!(!tenants.is_empty(), "{} holds no tenants", folder.display());
        Ok(tenants)
    }

    fn of(yaml: &str) -> Result<Vec<Self>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
        let tenants = documents.into_iter().filter(|document| {
            document["kind"] == "TenantObservability" && !document["spec"]["aws"].is_null()
        });
        tenants
            .map(|document| {
                let Manifest { metadata, spec } = serde_json::from_value(document)?;
                let Aws {
                    account_id,
                    region,
                    role_arn,
                } = spec.aws;
                let default = || format!("arn:aws:iam::{account_id}:role/campanile");
                Ok(Self {
                    namespace: metadata.namespace,
                    name: metadata.name,
                    role_arn: role_arn.unwrap_or_else(default),
                    invoke_role_arn: spec.event_bridge.invoke_role_arn,
                    dead_letter_queue_arn: spec.event_bridge.dead_letter_queue_arn,
                    account: account_id,
                    region,
                })
            })
            .collect()
    }

    /// What the names of all its alarms begin with.
    pub fn alarm_prefix(&self, cluster: &str) -> String {
        format!("campanile/{cluster}/{}/", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Tenant;

    #[test]
    fn tenants_with_an_account_are_found_among_other_things() {
        let yaml = "
kind: Namespace
metadata: {name: a}
---
kind: TenantObservability
metadata: {name: t, namespace: a}
spec: {aws: {accountId: \"222233334444\", region: us-east-2}}
---
kind: TenantObservability
metadata: {name: without, namespace: a}
spec: {}
";
        let found = Tenant::of(yaml).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].role_arn,
            "arn:aws:iam::222233334444:role/campanile"
        );
        assert_eq!(found[0].invoke_role_arn, None);
        assert_eq!(found[0].alarm_prefix("demo"), "campanile/demo/t/");
    }
}
