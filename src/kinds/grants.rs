//! What Namespaces allow (the annotations that bind them to an account and give them the operator's Slack token), as
//! it is watched. Before each write a run sees by this whether that has been changed since it began.

use crate::api::BINDINGS;
use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt, core::PartialObjectMeta};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// What a Namespace allows: its annotations that are [`BINDINGS`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grants(BTreeMap<String, String>);

impl Grants {
    /// What a Namespace allows.
    pub fn of(namespace: &PartialObjectMeta<Namespace>) -> Self {
        let mut annotations = namespace.annotations().clone();
        annotations.retain(|name, _| BINDINGS.contains(&name.as_str()));
        Self(annotations)
    }

    /// The value of an annotation.
    pub fn get(&self, annotation: &str) -> Option<&str> {
        self.0.get(annotation).map(String::as_str)
    }
}

/// What all Namespaces allow that have been seen, by name.
#[derive(Debug, Default)]
pub struct NamespaceGrants(Mutex<HashMap<String, Grants>>);

impl NamespaceGrants {
    /// A Namespace has been seen.
    pub fn note(&self, namespace: &PartialObjectMeta<Namespace>) {
        if namespace.metadata.deletion_timestamp.is_some() {
            // What is going is cleaned up to the end.
            self.0.lock().remove(&namespace.name_any());
        } else {
            let grants = Grants::of(namespace);
            self.0.lock().insert(namespace.name_any(), grants);
        }
    }

    /// What a Namespace allows; `None` where it has not been seen.
    pub fn of(&self, namespace: &str) -> Option<Grants> {
        self.0.lock().get(namespace).cloned()
    }

    /// Whether a Namespace allows something else than `before`, as far as both are known.
    pub fn moved(&self, namespace: &str, before: Option<&Grants>) -> bool {
        let all = self.0.lock();
        let known = before.zip(all.get(namespace));
        known.is_some_and(|(before, now)| before != now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ACCOUNT_BINDING, SLACK_PREFIX};
    use serde_json::{Value, json};

    #[test]
    fn it_has_moved_where_both_are_known_and_differ() {
        let seen = |annotations: Value, going: bool| {
            let mut metadata = json!({"name": "ns", "annotations": annotations});
            if going {
                metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
            }
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let bound = || seen(json!({ACCOUNT_BINDING: "1", "other": "a"}), false);
        let grants = NamespaceGrants::default();
        let unknown = grants.of("ns");
        grants.note(&bound());
        assert!(!grants.moved("ns", unknown.as_ref()), "it was not known");
        let before = grants.of("ns");
        for (now, moved) in [
            (bound(), false),
            (
                seen(json!({ACCOUNT_BINDING: "1", "other": "b"}), false),
                false,
            ),
            (seen(json!({ACCOUNT_BINDING: "2"}), false), true),
            (seen(json!({}), false), true),
            (
                seen(json!({ACCOUNT_BINDING: "1", SLACK_PREFIX: "a"}), false),
                true,
            ),
            (seen(json!({}), true), false),
        ] {
            grants.note(&now);
            assert_eq!(grants.moved("ns", before.as_ref()), moved, "{now:?}");
            assert!(!grants.moved("another", before.as_ref()));
        }
    }
}
