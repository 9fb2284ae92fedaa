//! What a kind may read of the cluster while it finds out what an object refers to: the namespace
//! around it, and for a plan what files say instead of what is there.

use crate::{
    clients::kubernetes,
    engine::error::{Class, Error, Result, WaitingOn},
    kinds::installation::Installation,
};
use derive_more::Display;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Secret as KubeSecret},
};
use kube::{Api, Resource, ResourceExt, api::ListParams, core::PartialObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeMap, fmt::Debug};

/// Why an object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry it out: what it refers to must be there.
    Act,
    /// To say what would be done: what it refers to is taken as if it had been carried out.
    Plan,
}

/// Objects that are taken to be in the cluster as they are here, whatever is there now. May hold Secrets,
/// so it cannot be printed.
#[derive(Default)]
pub struct Overlay(BTreeMap<ObjectKey, Json>);

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

    fn of<'a>(&'a self, kind: &str, namespace: &str) -> impl Iterator<Item = (&'a str, &'a Json)> {
        let here = move |key: &ObjectKey| key.kind == kind && key.namespace == namespace;
        let found = self.0.iter().filter(move |(key, _)| here(key));
        found.map(|(key, object)| (key.name.as_str(), object))
    }
}

/// What would be in the cluster after `manifest` was applied over what is `there`: the spec is the
/// manifest's; what the cluster says of the object, its status above all, stays. Where the spec becomes
/// another, the generation is one that status does not know yet.
fn applied<T: Serialize + DeserializeOwned>(manifest: &Json, there: Option<&T>) -> Option<T> {
    /// What the cluster says of an object, and no manifest.
    const THEIRS: [&str; 9] = [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "ownerReferences",
        "managedFields",
    ];
    let there = there
        .map(serde_json::to_value)
        .transpose()
        .ok()?
        .unwrap_or_default();
    let mut object = manifest.as_object()?.clone();
    let mut metadata = object.get("metadata")?.as_object()?.clone();
    for name in THEIRS {
        set(
            &mut metadata,
            name,
            there.pointer(&format!("/metadata/{name}")),
        );
    }
    for name in ["annotations", "labels"] {
        let kept = there.pointer(&format!("/metadata/{name}"));
        let mut all = kept.and_then(Json::as_object).cloned().unwrap_or_default();
        all.extend(
            metadata
                .remove(name)
                .and_then(|own| match own {
                    Json::Object(own) => Some(own),
                    _ => None,
                })
                .unwrap_or_default(),
        );
        metadata.insert(name.to_owned(), Json::Object(all));
    }
    set(&mut object, "status", there.get("status"));
    // Through the type, so that what is left out and what is written as its default are the same.
    let read = |object: &Map<String, Json>, metadata: &Map<String, Json>| -> Option<T> {
        let mut object = object.clone();
        object.insert("metadata".into(), Json::Object(metadata.clone()));
        serde_json::from_value(Json::Object(object)).ok()
    };
    let typed = read(&object, &metadata)?;
    let wanted = serde_json::to_value(&typed).ok()?;
    if wanted.get("spec") == there.get("spec") {
        return Some(typed);
    }
    let generation = metadata.get("generation").and_then(Json::as_i64);
    let next = generation.unwrap_or_default().saturating_add(1);
    metadata.insert("generation".into(), json!(next));
    read(&object, &metadata)
}

fn set(fields: &mut Map<String, Json>, name: &str, value: Option<&Json>) {
    match value {
        Some(value) => drop(fields.insert(name.to_owned(), value.clone())),
        None => drop(fields.remove(name)),
    }
}

/// Whether a field selector, `path=value` or nothing, finds an object.
fn selects(selector: &str, object: &Json) -> bool {
    selector
        .split(',')
        .filter(|term| !term.is_empty())
        .all(|term| {
            let (path, value) = term.split_once('=').unwrap_or((term, ""));
            let mut names = path.split('.');
            let found = names.try_fold(object, |object, name| object.get(name));
            found.and_then(Json::as_str).unwrap_or_default() == value
        })
}

/// What a kind may read while it finds out what its object refers to: the namespace around it.
pub struct ClusterView<'a> {
    /// The cluster's API.
    client: &'a kube::Client,
    /// This installation.
    pub installation: &'a Installation,
    /// Why we ask.
    pub purpose: Purpose,
    /// What is taken instead of what is there.
    overlay: Option<&'a Overlay>,
}

impl<'a> ClusterView<'a> {
    /// The cluster as it is.
    pub fn new(client: &'a kube::Client, installation: &'a Installation, purpose: Purpose) -> Self {
        Self {
            client,
            installation,
            purpose,
            overlay: None,
        }
    }

    /// The cluster as it would be with these objects.
    pub fn with(self, overlay: &'a Overlay) -> Self {
        Self {
            overlay: Some(overlay),
            ..self
        }
    }

    /// Whether an object is taken as a file has it, and not as it is in the cluster.
    pub fn is_given<T: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) -> bool {
        let key = ObjectKey {
            kind: T::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let given = self.overlay.and_then(|overlay| overlay.manifest(&key));
        given.is_some()
    }

    /// One object, if it is there.
    pub async fn get<T>(&self, namespace: &str, name: &str) -> Result<Option<T>>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let there = self.read(namespace, name).await?;
        let key = ObjectKey {
            kind: T::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match self.overlay.and_then(|overlay| overlay.manifest(&key)) {
            None => Ok(there),
            Some(manifest) => over(&key, manifest, there.as_ref()).map(Some),
        }
    }

    /// The text under a key of a Secret. What waits for it says what to do.
    pub async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<String> {
        let waiting = |message: String| Error::new(Class::Waiting(WaitingOn::Secret), message);
        let secret = self.get::<KubeSecret>(namespace, name).await?;
        let secret = secret.ok_or_else(|| {
            waiting(format!(
                "Secret {namespace}/{name} does not exist: create it with the key {key}"
            ))
        })?;
        let data = secret.data.unwrap_or_default();
        let bytes = data.get(key).ok_or_else(|| {
            waiting(format!(
                "Secret {namespace}/{name} has no key {key}: add it, or correct the reference"
            ))
        })?;
        let text = std::str::from_utf8(&bytes.0).map_err(|_| {
            waiting(format!(
                "key {key} of Secret {namespace}/{name} is not text"
            ))
        })?;
        Ok(text.to_owned())
    }

    /// One object as it is in the cluster.
    pub async fn read<T>(&self, namespace: &str, name: &str) -> Result<Option<T>>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let doing = format!("reading {} {namespace}/{name}", T::kind(&()));
        kubernetes::call(
            &doing,
            Api::namespaced(self.client.clone(), namespace).get_opt(name),
        )
        .await
    }

    /// The objects of a namespace that a field selector finds.
    pub async fn list<T>(&self, namespace: &str, fields: &str) -> Result<Vec<T>>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let kind = T::kind(&());
        let doing = format!("listing {kind} in {namespace}");
        let api = Api::<T>::namespaced(self.client.clone(), namespace);
        let chosen = ListParams::default().fields(fields);
        let found = match kubernetes::call_if_there(&doing, api.list(&chosen)).await? {
            Some(found) => found.items,
            // A plan may come before the CustomResourceDefinitions do.
            None if self.purpose == Purpose::Plan => Vec::new(),
            None => return Err(Error::failing(format!("{doing}: there is no such kind"))),
        };
        let Some(overlay) = self.overlay else {
            return Ok(found);
        };
        let found = found.into_iter().map(|object| (object.name_any(), object));
        let mut found: BTreeMap<_, _> = found.collect();
        for (name, manifest) in overlay.of(&kind, namespace) {
            let mut there = found.remove(name);
            if !selects(fields, manifest) {
                continue;
            }
            if there.is_none() {
                there = self.read(namespace, name).await?;
            }
            let key = ObjectKey {
                kind: kind.to_string(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let object = over(&key, manifest, there.as_ref())?;
            found.insert(key.name, object);
        }
        Ok(found.into_values().collect())
    }

    /// The objects of a kind in all namespaces, as they are in the cluster; of this one alone where that is all
    /// that we may see.
    pub async fn list_everywhere<T>(&self, namespace: &str) -> Result<Vec<T>>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let kind = T::kind(&());
        let all = Api::<T>::all(self.client.clone());
        let here = Api::<T>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default();
        let doing = format!("listing {kind}");
        let found = match kubernetes::call_if_there(&doing, all.list(&params)).await {
            Err(error) if error.class == Class::Denied => {
                kubernetes::call_if_there(&doing, here.list(&params)).await?
            }
            found => found?,
        };
        Ok(found.map(|found| found.items).unwrap_or_default())
    }

    /// What is said about a namespace itself, if there is one.
    pub async fn namespace(&self, name: &str) -> Result<Option<PartialObjectMeta<Namespace>>> {
        let api = Api::<Namespace>::all(self.client.clone());
        let doing = format!("reading Namespace {name}");
        let there = kubernetes::call(&doing, api.get_metadata_opt(name)).await?;
        let key = ObjectKey {
            kind: "Namespace".into(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        match self.overlay.and_then(|overlay| overlay.manifest(&key)) {
            None => Ok(there),
            Some(manifest) => over(&key, manifest, there.as_ref()).map(Some),
        }
    }
}

/// As [`applied`]. A manifest was checked when it was read, so this fails only with what it has not seen.
fn over<T>(key: &ObjectKey, manifest: &Json, there: Option<&T>) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    applied(manifest, there).ok_or_else(|| {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = key;
        // Not what is wrong with it: it may be a Secret.
        Error::invalid(format!("{kind} {namespace}/{name} cannot be read"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AlarmSet;

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

    #[test]
    fn selectors_find_by_a_field() {
        let set = manifest("vsu", &json!({}));
        for (selector, found) in [
            ("", true),
            ("spec.tenantRef.name=vsu", true),
            ("spec.tenantRef.name=other", false),
            ("spec.tenantRef.name=vsu,metadata.name=golden", true),
            ("spec.nothing=x", false),
        ] {
            assert_eq!(selects(selector, &set), found, "{selector}");
        }
    }
}
