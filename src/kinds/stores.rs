//! What this process watches of the cluster, and which versions of it that process has written itself.

use super::{NamespacedObject, grants::NamespaceGrants};
use futures::FutureExt;
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// An object as it is watched: one that cannot be read must not keep the others from being listed.
pub type Watched<T> = DeserializeGuard<T>;

/// By the type of the objects and the namespace that is watched; `None` for all.
type ByWatch = HashMap<(TypeId, Option<String>), Box<dyn Any + Send + Sync>>;

/// The stores of all watches. An object in them answers for the API server only if it is at least as new as our own
/// last write of it.
#[derive(Default)]
pub struct Stores {
    all: Mutex<ByWatch>,
    /// The version of our last write, by UID; `None` while nobody knows what became of one.
    written: Mutex<HashMap<String, Option<u64>>>,
    /// A digest of the status that we wrote last, by UID.
    statuses: Mutex<HashMap<String, u64>>,
    /// What that records of what was made, by UID: a status each.
    records: Mutex<HashMap<String, Box<dyn Any + Send>>>,
    /// What Namespaces allow.
    pub grants: NamespaceGrants,
}

impl Stores {
    /// A watch of a namespace, or of all, fills this store.
    pub fn add<T: NamespacedObject>(&self, namespace: Option<&str>, store: Store<Watched<T>>) {
        let key = (TypeId::of::<T>(), namespace.map(str::to_owned));
        self.all.lock().insert(key, Box::new(store));
    }

    /// The store of the watch that covers a namespace, or all; `None` before it has been filled.
    fn store<T: NamespacedObject>(&self, namespace: Option<&str>) -> Option<Store<Watched<T>>> {
        let all = self.all.lock();
        let of =
            |namespace: Option<&str>| all.get(&(TypeId::of::<T>(), namespace.map(str::to_owned)));
        let found = of(namespace).or_else(|| of(None))?;
        let store = found.downcast_ref::<Store<Watched<T>>>()?;
        let filled = store.wait_until_ready().now_or_never()?;
        filled.is_ok().then(|| store.clone())
    }

    /// The objects of all watches, once all of these have been filled.
    pub async fn all<T: NamespacedObject>(&self) -> Vec<Arc<Watched<T>>> {
        let stores: Vec<Store<Watched<T>>> = {
            let all = self.all.lock();
            let stores = all.iter().filter(|((of, _), _)| *of == TypeId::of::<T>());
            let stores = stores.filter_map(|(_, store)| store.downcast_ref().cloned());
            stores.collect()
        };
        let mut objects = Vec::new();
        for store in stores {
            // Its writer is dropped only when the process ends.
            let _ = store.wait_until_ready().await;
            objects.extend(store.state());
        }
        objects
    }

    /// The objects of a namespace, or of all, as they are watched; `None` where they are not, or not yet.
    pub fn watched<T: NamespacedObject>(
        &self,
        namespace: Option<&str>,
    ) -> Option<Vec<Arc<Watched<T>>>> {
        let here =
            |object: &Watched<T>| namespace.is_none() || object.namespace().as_deref() == namespace;
        Some(self.store::<T>(namespace)?.state_filter(here))
    }

    /// An object, if it is watched and not older than our own last write of it.
    pub fn get<T: NamespacedObject>(&self, namespace: &str, name: &str) -> Option<T> {
        let key = ObjectRef::new(name).within(namespace);
        let watched = self.store::<T>(Some(namespace))?.get(&key)?;
        self.current(&watched)
    }

    /// The objects of a namespace, or of all, if they are watched and none is older than our own last write of it.
    /// What cannot be read is left out.
    pub fn list<T: NamespacedObject>(&self, namespace: Option<&str>) -> Option<Vec<T>> {
        let all = self.watched::<T>(namespace)?;
        let read = all.iter().filter(|object| object.0.is_ok());
        read.map(|object| self.current(object)).collect()
    }

    /// A watched object, if it can be read and is not older than our own last write of it. The versions of one
    /// resource are numbers that grow (KEP-5504).
    fn current<T: NamespacedObject>(&self, watched: &Watched<T>) -> Option<T> {
        let object = watched.0.as_ref().ok()?;
        let written = self.written.lock();
        if let Some(written) = written.get(&object.uid()?) {
            version(object).filter(|watched| written.is_some_and(|it| it <= *watched))?;
        }
        Some(object.clone())
    }

    /// We are about to write an object: before that is answered nobody knows which version it has.
    pub fn writing(&self, uid: &str) {
        self.written.lock().insert(uid.to_owned(), None);
    }

    /// The API server has answered a write of ours, or a read that began after it, with this.
    pub fn answered(&self, object: &impl ResourceExt) {
        let Some(uid) = object.uid() else { return };
        self.written.lock().insert(uid, version(object));
    }

    /// The status of an object as the API server has it after our own write.
    pub fn status_written(&self, uid: &str, status: &impl Serialize) {
        self.statuses.lock().insert(uid.to_owned(), digest(status));
    }

    /// What the status that was written last records of what was made.
    pub fn recorded<S: Any + Send>(&self, uid: &str, records: S) {
        let records = Box::new(records);
        self.records.lock().insert(uid.to_owned(), records);
    }

    /// What was written last of an object that this process has written to.
    pub fn records<S: Any + Clone>(&self, uid: &str) -> Option<S> {
        self.records.lock().get(uid)?.downcast_ref().cloned()
    }

    /// Whether somebody else has changed the status of a watched object since we wrote it.
    pub fn status_is_foreign(&self, object: &impl ResourceExt, status: &impl Serialize) -> bool {
        let Some(uid) = object.uid() else {
            return false;
        };
        let written = self.written.lock().get(&uid).copied().flatten();
        let is_newer = written.is_some_and(|written| version(object) >= Some(written));
        let ours = self.statuses.lock().get(&uid).copied();
        is_newer && ours.is_some_and(|ours| ours != digest(status))
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.written.lock().remove(uid);
        self.statuses.lock().remove(uid);
        self.records.lock().remove(uid);
    }
}

fn digest(status: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(status)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AlarmSet;
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    fn set(namespace: &str, name: &str, version: &str) -> Watched<AlarmSet> {
        let uid = format!("{namespace}/{name}");
        serde_json::from_value(json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version},
            "spec": {"tenantRef": {"name": "t"}, "alarms": []}
        }))
        .unwrap()
    }

    #[test]
    fn a_store_answers_once_it_is_filled_and_where_it_is_not_older_than_our_own_write() {
        let (stores, (store, mut writer)) = (Stores::default(), reflector::store());
        stores.add::<AlarmSet>(None, store);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(set("a", "one", "9")));
        writer.apply_watcher_event(&Event::InitApply(set("b", "two", "8")));
        assert_eq!(
            stores.get::<AlarmSet>("a", "one"),
            None,
            "it is being filled"
        );
        assert_eq!(stores.list::<AlarmSet>(None), None);
        writer.apply_watcher_event(&Event::InitDone);

        let there = || stores.get::<AlarmSet>("a", "one").is_some();
        let count = |namespace| stores.list::<AlarmSet>(namespace).map(|all| all.len());
        assert!(there());
        assert_eq!(
            (count(None), count(Some("a")), count(Some("c"))),
            (Some(2), Some(1), Some(0))
        );
        assert_eq!(stores.get::<AlarmSet>("a", "two"), None);

        stores.writing("a/one");
        assert!(!there(), "a write is under way");
        assert_eq!((count(None), count(Some("b"))), (None, Some(1)));
        // As numbers, not as texts.
        stores.answered(&set("a", "one", "10"));
        assert!(!there(), "the watch is behind");
        writer.apply_watcher_event(&Event::Apply(set("a", "one", "11")));
        assert!(there());
        stores.answered(&set("a", "one", "as no API server says"));
        assert!(!there(), "it cannot be compared");
        stores.forget("a/one");
        assert!(there());

        let mut unreadable = serde_json::to_value(set("a", "one", "12").0.unwrap()).unwrap();
        unreadable["spec"] = json!(null);
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(unreadable).unwrap()));
        assert!(!there());
        assert_eq!((count(Some("a")), count(Some("b"))), (Some(0), Some(1)));
    }

    #[test]
    fn the_watch_of_a_namespace_does_not_answer_for_all() {
        let (stores, (store, mut writer)) = (Stores::default(), reflector::store());
        stores.add::<AlarmSet>(Some("a"), store);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        assert_eq!(stores.list::<AlarmSet>(Some("a")), Some(vec![]));
        assert_eq!(stores.list::<AlarmSet>(Some("b")), None);
        assert_eq!(stores.list::<AlarmSet>(None), None);
    }
}
