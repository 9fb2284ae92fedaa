//! What a plan takes instead of what is in the cluster: objects as files have them.

use crate::engine::error::{Error, Result};
use derive_more::Display;
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Which object: its kind, its namespace (empty where it has none) and its name.
#[derive(Serialize, Display, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[display("{kind} {namespace}{}{name}", if namespace.is_empty() { "" } else { "/" })]
pub struct ObjectKey {
    /// The kind. All that is here is of one version of one group.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// That of an object of a known type.
    pub fn of<T: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self {
            kind: T::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Objects that are taken to be in the cluster as they are here, whatever is there now. May hold Secrets,
/// so it cannot be printed.
#[derive(Default)]
pub struct Overlay(BTreeMap<ObjectKey, Json>);

impl Overlay {
    /// Adds an object as a manifest has it. False if there is one of that key already, which stays.
    pub fn add(&mut self, key: ObjectKey, object: Json) -> bool {
        let is_new = !self.0.contains_key(&key);
        if is_new {
            self.0.insert(key, object);
        }
        is_new
    }

    /// Which objects there are.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.keys()
    }

    /// The object as its manifest has it.
    pub fn manifest(&self, key: &ObjectKey) -> Option<&Json> {
        self.0.get(key)
    }

    /// An object as it would be in the cluster after its manifest was applied over what is `there`; that itself, where
    /// it has none. A manifest was checked when it was read, so this fails only with what that has not seen.
    pub fn applied<T>(&self, key: &ObjectKey, there: Option<T>) -> Result<Option<T>>
    where
        T: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let Some(manifest) = self.manifest(key) else {
            return Ok(there);
        };
        let object = applied(manifest, there.as_ref());
        // Not what is wrong with it: it may be a Secret.
        let unreadable = || Error::invalid(format!("{key} cannot be read"));
        object.ok_or_else(unreadable).map(Some)
    }
}

/// The spec is the manifest's; what the cluster says of the object, its status above all, stays. Where the spec becomes
/// another, the generation is one that status does not know yet.
fn applied<T>(manifest: &Json, there: Option<&T>) -> Option<T>
where
    T: Resource + Serialize + DeserializeOwned,
{
    let mut known = there.map_or(Some(Json::Null), |there| serde_json::to_value(there).ok())?;
    let mut object = manifest.clone();
    let fields = object.as_object_mut()?;
    fields.remove("status");
    let status = known.get_mut("status").map(Json::take);
    fields.extend(status.map(|status| ("status".to_owned(), status)));
    // Through the type, so that what is left out and what is written as its default are the same.
    let mut object: T = serde_json::from_value(object).ok()?;
    let edited = serde_json::to_value(&object).ok()?.get("spec") != known.get("spec");
    let own = std::mem::take(object.meta_mut());
    let meta = object.meta_mut();
    *meta = there.map(|there| there.meta().clone()).unwrap_or_default();
    (meta.name, meta.namespace) = (own.name, own.namespace);
    for (known, own) in [
        (&mut meta.annotations, own.annotations),
        (&mut meta.labels, own.labels),
    ] {
        known
            .get_or_insert_default()
            .extend(own.unwrap_or_default());
    }
    if edited {
        let next = meta.generation.unwrap_or_default().saturating_add(1);
        meta.generation = Some(next);
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AlarmSet;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::{ResourceExt, core::PartialObjectMeta};
    use serde_json::json;

    fn manifest(tenant: &str, more: &Json) -> Json {
        let mut manifest = json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
            "metadata": {"name": "golden", "namespace": "vsu", "annotations": {"a": "new"}, "uid": "made up"},
            "spec": {"tenantRef": {"name": tenant}, "alarms": []},
            "status": {"observedGeneration": 99}
        });
        let fields = manifest["spec"].as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        manifest
    }

    #[test]
    fn an_object_that_is_not_there_is_new() {
        let set: AlarmSet = applied(&manifest("vsu", &json!({})), None).unwrap();
        assert_eq!(set.metadata.generation, Some(1));
        assert_eq!((set.metadata.uid, set.status), (None, None));
    }

    #[test]
    fn what_the_cluster_says_of_an_object_stays() {
        let there: AlarmSet = serde_json::from_value(json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
            "metadata": {
                "name": "golden", "namespace": "vsu", "generation": 7, "uid": "u",
                "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["f"],
                "annotations": {"a": "old", "b": "kept"}
            },
            "spec": {"tenantRef": {"name": "vsu"}, "environmentDimension": "DeploymentId", "alarms": []},
            "status": {"observedGeneration": 7}
        }))
        .unwrap();
        let same: AlarmSet =
            applied(&manifest("vsu", &json!({"suspend": false})), Some(&there)).unwrap();
        assert_eq!(same.spec, there.spec);
        assert_eq!(same.status, there.status);
        let annotations = [("a", "new"), ("b", "kept")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(same.metadata.annotations, Some(annotations.into()));
        assert_eq!(same.metadata.uid.as_deref(), Some("u"));
        assert_eq!(
            same.metadata.deletion_timestamp,
            there.metadata.deletion_timestamp
        );
        assert_eq!(same.metadata.finalizers, there.metadata.finalizers);
        assert_eq!(same.metadata.generation, Some(7), "it is no edit");

        let edited: AlarmSet =
            applied(&manifest("vsu", &json!({"suspend": true})), Some(&there)).unwrap();
        assert!(edited.spec.suspend);
        assert_eq!(edited.metadata.generation, Some(8), "it is an edit");
        assert_eq!(edited.status, there.status);
    }

    #[test]
    fn a_namespace_keeps_the_annotations_that_its_manifest_does_not_name() {
        let there: PartialObjectMeta<Namespace> = serde_json::from_value(json!({
            "metadata": {"name": "vsu", "uid": "u", "annotations": {"campanile.dev/aws-account-id": "1"}}
        }))
        .unwrap();
        let manifest =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vsu"}});
        for (there, bound) in [(Some(&there), Some("1")), (None, None)] {
            let namespace: PartialObjectMeta<Namespace> = applied(&manifest, there).unwrap();
            let annotations = namespace.annotations();
            let found = annotations.get("campanile.dev/aws-account-id");
            assert_eq!(found.map(String::as_str), bound);
        }
    }
}
