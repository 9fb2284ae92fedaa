//! How an object is read.

use campanile::api::{AlarmSet, SlackChannel, TenantObservability};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Whatever lives in a namespace.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

/// Kinds whose conditions the tests read.
pub trait Conditions: Object {
    /// All conditions in status.
    fn conditions(&self) -> &[Condition];

    /// The condition of a type, if there is one.
    fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions()
            .iter()
            .find(|condition| condition.type_ == type_)
    }

    /// Status and reason of a condition that is there.
    fn verdict(&self, type_: &str) -> (&str, &str) {
        let condition = self.condition(type_).unwrap();
        (&condition.status, &condition.reason)
    }

    /// Whether the condition of a type is there and true.
    fn holds(&self, type_: &str) -> bool {
        self.condition(type_)
            .is_some_and(|condition| condition.status == "True")
    }
}

impl Conditions for AlarmSet {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.common.conditions)
    }
}

impl Conditions for SlackChannel {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.common.conditions)
    }
}

impl Conditions for TenantObservability {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.common.conditions)
    }
}

/// What kstatus makes of an object: <https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus>.
pub fn kstatus<K: Conditions>(object: &K) -> &'static str {
    let all = serde_json::to_value(object).unwrap();
    let observed = &all["status"]["observedGeneration"];
    let is = |type_: &str, status: &str| {
        object
            .condition(type_)
            .is_some_and(|condition| condition.status == status)
    };
    match () {
        () if all["metadata"]["deletionTimestamp"].is_string() => "Terminating",
        () if !observed.is_null() && *observed != all["metadata"]["generation"] => "InProgress",
        () if is("Stalled", "True") => "Failed",
        () if is("Reconciling", "True") || is("Ready", "False") || is("Ready", "Unknown") => {
            "InProgress"
        }
        () => "Current",
    }
}
