//! The kinds of `campanile.dev/v1alpha1`: types, schema, validation rules, columns. No I/O.

mod alarm_set;
mod common;
pub mod notification;
mod slack_channel;
mod tenant_observability;

pub use crate::engine::policy::{AdoptionPolicy, DeletionPolicy, DriftPolicy};
pub use alarm_set::{
    Alarm, AlarmCounts, AlarmEntry, AlarmSet, AlarmSetSpec, AlarmSetStatus, AlarmState,
    ComparisonOperator, TreatMissingData,
};
pub use common::{
    AppliedEntry, AwsTarget, CommonStatus, DriftChange, DriftEntry, KeyRef, NameRef, Severity,
    condition,
};
pub use slack_channel::{
    Creating, SlackChannel, SlackChannelSpec, SlackChannelStatus, SlackTarget, StoredText,
    Visibility, Workspace,
};
pub use tenant_observability::{
    ACCOUNT_REACHABLE, Aws, DELIVERY_READY, Environment, Health, Links, Notify, PagerDuty,
    Recipients, SlackPathEntry, SlackVia, SubscriptionEntry, SubscriptionState,
    TenantObservability, TenantObservabilitySpec, TenantObservabilityStatus, TopicEntry,
};

use common::UNSEEN;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
};
use kube::CustomResourceExt;
use serde_json::json;

/// The API group.
pub const GROUP: &str = "campanile.dev";

/// What keeps an object until the outside is clean.
pub const FINALIZER: &str = "campanile.dev/cleanup";

/// The annotation by which Flux (and a person) asks for a reconcile now; its value is echoed in
/// `status.lastHandledReconcileAt`.
pub const RECONCILE_REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";

/// The annotation of a Namespace that binds it to one AWS account, 12 digits. Only the platform team
/// can set it.
pub const ACCOUNT_BINDING: &str = "campanile.dev/aws-account-id";

/// The annotation of a Namespace that lets its SlackChannels use the operator's own token, for channels
/// whose names begin with its value. Only the platform team can set it.
pub const SLACK_PREFIX: &str = "campanile.dev/slack-channel-prefix";

/// The annotation of a Namespace that says whose things its objects take over: former clusters, `<name>/<first 8 of the
/// UID of kube-system>` each, separated by commas. Only the platform team can set it.
pub const TAKE_OVER_FROM: &str = "campanile.dev/take-over-from";

/// The annotations by which a Namespace is allowed something. What they say is watched, and a run that is
/// under way ends when it changes.
pub const BINDINGS: [&str; 3] = [ACCOUNT_BINDING, SLACK_PREFIX, TAKE_OVER_FROM];

/// All CustomResourceDefinitions, in the order in which they are printed and applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let tenant = ", `Healthy`, `AccountReachable`, `DeliveryReady`";
    let channel = ", `ChannelReady`, `WebhookReady`";
    let mut crds = vec![
        TenantObservability::crd(),
        AlarmSet::crd(),
        SlackChannel::crd(),
    ];
    for (crd, conditions) in crds.iter_mut().zip([tenant, "", channel]) {
        complete(crd, conditions);
    }
    crds
}

/// Adds what the types cannot say of the status: its default, and which conditions only this kind has.
fn complete(crd: &mut CustomResourceDefinition, conditions: &str) -> Option<()> {
    let schema = crd.spec.versions.first_mut()?.schema.as_mut()?;
    let schema = schema.open_api_v3_schema.as_mut()?;
    let status = schema.properties.as_mut()?.get_mut("status")?;
    // Without it kstatus, and so Flux and Argo CD, takes an object that nobody has looked at yet for one that
    // is as declared.
    status.default = Some(JSON(json!({"observedGeneration": UNSEEN})));
    let list = status.properties.as_mut()?.get_mut("conditions")?;
    let all = format!("`Ready`, `Reconciling`, `Stalled`, `Drifted`{conditions}.");
    list.description = Some(all);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Every list, map and string of a spec has a bound, so that an object stays under etcd's
    /// limit and the validation rules under the API server's cost budget.
    fn unbounded(path: &str, schema: &Value, found: &mut Vec<String>) {
        let has = |key: &str| schema.get(key).is_some();
        match schema["type"].as_str() {
            Some("array") if !has("maxItems") => found.push(format!("{path}: maxItems")),
            Some("string") if !(has("maxLength") || has("enum") || has("format")) => {
                found.push(format!("{path}: maxLength"));
            }
            Some("object") if has("additionalProperties") && !has("maxProperties") => {
                found.push(format!("{path}: maxProperties"));
            }
            _ => {}
        }
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(&format!("{path}.{key}"), property, found);
        }
        for key in ["items", "additionalProperties"] {
            if has(key) {
                unbounded(&format!("{path}[]"), &schema[key], found);
            }
        }
    }

    #[test]
    fn every_list_and_string_of_a_spec_is_bounded() {
        for crd in crds() {
            let crd = serde_json::to_value(&crd).unwrap();
            let schema =
                &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            assert_eq!(schema["type"], "object");
            let mut found = Vec::new();
            unbounded(
                crd["spec"]["names"]["kind"].as_str().unwrap(),
                schema,
                &mut found,
            );
            assert_eq!(found, Vec::<String>::new());
        }
    }

    /// What was written before a field came about still means the same, and is written back as it was.
    #[test]
    fn a_spec_without_the_optional_fields_stays_as_it_is() {
        let tenant = serde_json::json!({
            "aws": {"accountId": "222233334444", "region": "us-east-2"},
            "notify": {"critical": {}}
        });
        let read: TenantObservabilitySpec = serde_json::from_value(tenant.clone()).unwrap();
        assert!(!read.suspend);
        assert_eq!(read.drift_policy, DriftPolicy::Repair);
        assert_eq!(read.deletion_policy, DeletionPolicy::Delete);
        assert_eq!(read.adoption_policy, AdoptionPolicy::Never);
        assert_eq!(serde_json::to_value(&read).unwrap(), tenant);

        let set = serde_json::json!({"tenantRef": {"name": "t"}, "environmentDimension": "D", "alarms": []});
        let read: AlarmSetSpec = serde_json::from_value(set.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), set);

        let channel = serde_json::json!({"channel": "vsu_alerts"});
        let read: SlackChannelSpec = serde_json::from_value(channel.clone()).unwrap();
        assert_eq!(read.deletion_policy, DeletionPolicy::Orphan);
        assert_eq!(serde_json::to_value(&read).unwrap(), channel);

        for status in [
            serde_json::to_value(TenantObservabilityStatus::default()).unwrap(),
            serde_json::to_value(AlarmSetStatus::default()).unwrap(),
            serde_json::to_value(SlackChannelStatus::default()).unwrap(),
        ] {
            assert_eq!(status, serde_json::json!({}));
        }
    }
}
