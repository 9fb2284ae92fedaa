//! A small Kubernetes API: objects with versions, generations and finalizers, status by server-side apply,
//! lists, watches, and the refusals that we meet.

use super::{Broken, Call, Calls, pairs};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{Response, header, request::Parts},
};
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::{reflector::store::Writer, watcher::Event},
};
use parking_lot::{Mutex, MutexGuard};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    io,
    sync::Arc,
};
use tokio::sync::watch;

/// Plural, namespace (empty where there is none) and name.
type Key = (String, String, String);

/// Is told of every change of an object of one plural, and whether the object is gone.
type Listener = Box<dyn FnMut(&Json, bool) + Send>;

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Json>,
    /// All that watches have to tell: as which version, of what, and what.
    events: Vec<(u64, Key, Json)>,
    listeners: HashMap<String, Vec<Listener>>,
}

/// The cluster. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
    moved: watch::Sender<()>,
    calls: Calls,
}

/// What a request asks for.
struct Asked {
    verb: &'static str,
    key: Key,
    status: bool,
    metadata_only: bool,
    query: HashMap<String, String>,
    body: Json,
    /// Whether the body is applied, and not merged.
    applies: bool,
}

/// A refusal: status and reason.
type Refused = (u16, &'static str);

impl Cluster {
    /// An empty one.
    pub fn new(calls: &Calls) -> Self {
        Self {
            state: Arc::default(),
            moved: watch::Sender::new(()),
            calls: calls.clone(),
        }
    }

    /// Another one with all objects that are there now.
    pub fn copy(&self, calls: &Calls) -> Self {
        let copy = Self::new(calls);
        let objects = self.state().objects.clone();
        copy.state().version = self.state().version;
        copy.state().objects = objects;
        copy
    }

    /// A client of it.
    pub fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let answer = move |request| cluster.clone().answer(request);
        kube::Client::new(Router::new().fallback(answer), "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Makes an object, or gives it another spec, as `kubectl apply` does.
    pub fn apply(&self, mut object: Json) {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let plural = match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => kind + "s",
        };
        let key = (
            plural,
            text("namespace").to_owned(),
            text("name").to_owned(),
        );
        for (name, value) in object["stringData"]
            .take()
            .as_object()
            .into_iter()
            .flatten()
        {
            let bytes = ByteString(value.as_str().unwrap_or_default().into());
            object["data"][name] = json!(bytes);
        }
        let mut state = self.state();
        let mut now = state.objects.get(&key).cloned().unwrap_or_default();
        merge(&mut now["metadata"], object["metadata"].take());
        for (name, value) in object.as_object().unwrap() {
            if name != "metadata" && name != "status" && !value.is_null() {
                now[name] = value.clone();
            }
        }
        state.store(&key, now);
        self.moved.send_replace(());
    }

    /// An object, if it is there.
    pub fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<K> {
        let state = self.state();
        let found = state.objects.get(&key::<K>(namespace, name))?;
        Some(serde_json::from_value(found.clone()).unwrap())
    }

    /// The names of the objects of a kind, as `namespace/name`.
    pub fn names<K: Resource<DynamicType = ()>>(&self) -> Vec<(String, String)> {
        let state = self.state();
        let keys = state.objects.keys();
        keys.filter(|(plural, ..)| *plural == K::plural(&()))
            .map(|(_, namespace, name)| (namespace.clone(), name.clone()))
            .collect()
    }

    /// Changes an object that is there; all of it, status too.
    pub fn edit<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Json),
    ) {
        let (mut state, key) = (self.state(), key::<K>(namespace, name));
        let mut object = state.objects[&key].clone();
        edit(&mut object);
        state.store(&key, object);
        self.moved.send_replace(());
    }

    /// Deletes an object: at once, or as soon as it has no finalizer any more.
    pub fn delete<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        self.state().delete(&key::<K>(namespace, name)).unwrap();
        self.moved.send_replace(());
    }

    /// From now on a store holds the objects of a kind, always as they are: a watch that never lags.
    pub fn reflect<K>(&self, mut writer: Writer<DeserializeGuard<K>>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        self.listen::<K>(move |object, gone| {
            let object = serde_json::from_value(object.clone()).unwrap();
            writer.apply_watcher_event(&match gone {
                true => Event::Delete(object),
                false => Event::Apply(object),
            });
        });
    }

    /// From now on nobody is told of the objects of a kind: the watch lags behind.
    pub fn lag<K: Resource<DynamicType = ()>>(&self) {
        self.state().listeners.remove(&*K::plural(&()));
    }

    /// From now on somebody is told at once of every object of a kind, and whether it is gone.
    pub fn listen<K: Resource<DynamicType = ()>>(
        &self,
        mut listener: impl FnMut(&Json, bool) + Send + 'static,
    ) {
        let (mut state, plural) = (self.state(), K::plural(&()).into_owned());
        for ((of, ..), object) in &state.objects {
            if *of == plural {
                listener(object, false);
            }
        }
        let listeners = state.listeners.entry(plural).or_default();
        listeners.push(Box::new(listener));
    }

    async fn answer(self, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let asked = Asked::of(&parts, &body);
        let (plural, namespace, name) = &asked.key;
        let call = Call {
            system: "kubernetes",
            operation: format!(
                "{} {plural}{}",
                asked.verb,
                if asked.status { "/status" } else { "" }
            ),
            subject: format!("{namespace}/{name}"),
            writes: !matches!(asked.verb, "get" | "list" | "watch"),
        };
        let answer = self.calls.take(call, || self.serve(&asked)).await;
        match answer {
            Ok(Ok(body)) => Response::new(body),
            Ok(Err(refused)) => failure(refused),
            Err(Broken::Refused(status, reason)) => failure((status, reason)),
            Err(Broken::Cut) => {
                let cut = Err::<Bytes, _>(io::Error::other("the connection was cut"));
                Response::new(Body::from_stream(stream::iter([cut])))
            }
            Err(Broken::Answered(status, kind, body)) => {
                let answer = Response::builder().status(status);
                let answer = answer.header("content-type", kind);
                answer.body(Body::from(body)).unwrap()
            }
        }
    }

    fn serve(&self, asked: &Asked) -> Result<Body, Refused> {
        if asked.verb == "watch" {
            return Ok(self.watch(asked));
        }
        let mut state = self.state();
        let done = match asked.verb {
            "get" => state.there(&asked.key).cloned()?,
            "list" => {
                let found = state
                    .objects
                    .iter()
                    .filter(|(key, it)| asked.finds(key, it));
                let items: Vec<_> = found.map(|(_, object)| asked.shown(object)).collect();
                let metadata = json!({"resourceVersion": state.version.to_string()});
                json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items})
            }
            "create" if state.objects.contains_key(&asked.key) => {
                return Err((409, "AlreadyExists"));
            }
            "create" => state.store(&asked.key, asked.body.clone()),
            "delete" => state.delete(&asked.key)?,
            _ => state.write(asked)?,
        };
        drop(state);
        self.moved.send_replace(());
        let shown = if asked.verb == "list" {
            done
        } else {
            asked.shown(&done)
        };
        Ok(Body::from(shown.to_string()))
    }

    /// A line for each event, without end.
    fn watch(&self, asked: &Asked) -> Body {
        let since = asked.query.get("resourceVersion");
        let since: u64 = since.and_then(|text| text.parse().ok()).unwrap_or_default();
        let asked = Asked {
            query: asked.query.clone(),
            key: asked.key.clone(),
            body: Json::Null,
            ..*asked
        };
        let begin = (self.clone(), self.moved.subscribe(), asked, since);
        let lines = stream::unfold(begin, async |(cluster, mut moved, asked, since)| {
            loop {
                moved.borrow_and_update();
                let (version, lines) = cluster.state().told(&asked, since);
                if !lines.is_empty() {
                    let next = (cluster, moved, asked, version);
                    return Some((Ok::<_, io::Error>(lines), next));
                }
                moved.changed().await.ok()?;
            }
        });
        Body::from_stream(lines)
    }
}

fn key<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Key {
    let plural = K::plural(&()).into_owned();
    (plural, namespace.to_owned(), name.to_owned())
}

/// A `Status` as the API server answers with.
fn failure((code, reason): Refused) -> Response<Body> {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code, "reason": reason, "message": format!("refused: {reason}")});
    let answer = Response::builder().status(code);
    answer.body(Body::from(status.to_string())).unwrap()
}

/// A merge patch.
fn merge(object: &mut Json, patch: Json) {
    match patch {
        Json::Object(patch) => {
            if !object.is_object() {
                *object = json!({});
            }
            for (name, value) in patch {
                if value.is_null() {
                    object.as_object_mut().unwrap().remove(&name);
                } else {
                    merge(&mut object[name], value);
                }
            }
        }
        value => *object = value,
    }
}

impl Asked {
    fn of(parts: &Parts, body: &Bytes) -> Self {
        let path: Vec<_> = parts.uri.path().trim_matches('/').split('/').collect();
        // `api/v1` or `apis/<group>/<version>`.
        let path = &path[if path[0] == "api" { 2 } else { 3 }..];
        let (namespace, path) = match path {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            path => ("", path),
        };
        let query: HashMap<_, _> = pairs(parts.uri.query().unwrap_or_default())
            .into_iter()
            .collect();
        let header = |name| {
            let value = parts.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let body: Json = serde_json::from_slice(body).unwrap_or_default();
        let named = path.get(1).copied();
        let name = named.or_else(|| body.pointer("/metadata/name")?.as_str());
        Self {
            verb: match (parts.method.as_str(), named) {
                ("GET", None) if query.contains_key("watch") => "watch",
                ("GET", None) => "list",
                ("GET", Some(_)) => "get",
                ("POST", _) => "create",
                ("DELETE", _) => "delete",
                _ => "patch",
            },
            key: (
                path[0].to_owned(),
                namespace.to_owned(),
                name.unwrap_or_default().to_owned(),
            ),
            status: path.get(2) == Some(&"status"),
            metadata_only: header(header::ACCEPT).contains("PartialObjectMetadata"),
            applies: header(header::CONTENT_TYPE).contains("apply-patch"),
            query,
            body,
        }
    }

    /// Whether a list finds an object.
    fn finds(&self, (plural, namespace, _): &Key, object: &Json) -> bool {
        let selector = self.query.get("fieldSelector").map_or("", String::as_str);
        let is_so = |term: &str| {
            let (path, value) = term.split_once('=').unwrap_or((term, ""));
            let found = object.pointer(&format!("/{}", path.replace('.', "/")));
            found.and_then(Json::as_str).unwrap_or_default() == value
        };
        *plural == self.key.0
            && (self.key.1.is_empty() || *namespace == self.key.1)
            && selector
                .split(',')
                .filter(|term| !term.is_empty())
                .all(is_so)
    }

    /// An object as it is asked for.
    fn shown(&self, object: &Json) -> Json {
        if !self.metadata_only {
            return object.clone();
        }
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": object["metadata"]})
    }
}

impl State {
    fn there(&self, key: &Key) -> Result<&Json, Refused> {
        self.objects.get(key).ok_or((404, "NotFound"))
    }

    /// Changes what is there: status alone, or all but status.
    fn write(&mut self, asked: &Asked) -> Result<Json, Refused> {
        let before = self.there(&asked.key)?.clone();
        let meant = |name: &str| {
            let meant = asked.body["metadata"].get(name);
            meant.is_none_or(|meant| *meant == before["metadata"][name])
        };
        if !meant("uid") || !meant("resourceVersion") {
            return Err((409, "Conflict"));
        }
        let mut after = before.clone();
        if asked.applies {
            // All that is applied here has one manager, which applies all of it.
            after["status"] = asked.body["status"].clone();
        } else {
            merge(&mut after, asked.body.clone());
        }
        let mut whole = if asked.status {
            before.clone()
        } else {
            after.clone()
        };
        match if asked.status { &after } else { &before }.get("status") {
            Some(status) => whole["status"] = status.clone(),
            None => drop(whole.as_object_mut().unwrap().remove("status")),
        }
        Ok(self.store(&asked.key, whole))
    }

    fn delete(&mut self, key: &Key) -> Result<Json, Refused> {
        let mut object = self.there(key)?.clone();
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(Timestamp::now().to_string());
        }
        Ok(self.store(key, object))
    }

    /// Stores an object as it is after a change, and says so to whoever watches it.
    fn store(&mut self, key: &Key, mut object: Json) -> Json {
        let before = self.objects.get(key).cloned().unwrap_or_default();
        let ours = object["apiVersion"] == "campanile.dev/v1alpha1";
        if before.is_null() {
            self.version += 1;
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
            object["metadata"]["creationTimestamp"] = json!(Timestamp::now().to_string());
        }
        if ours && object["status"].is_null() {
            // The schema's default.
            object["status"] = json!({"observedGeneration": -1});
        }
        if object == before {
            return object;
        }
        let going = object["metadata"].get("deletionTimestamp").is_some();
        let was_going = before["metadata"].get("deletionTimestamp").is_some();
        if ours && (before["spec"] != object["spec"] || going != was_going) {
            let generation = before["metadata"]["generation"].as_i64();
            object["metadata"]["generation"] = json!(generation.unwrap_or_default() + 1);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let held = object["metadata"]["finalizers"].as_array();
        let gone = going && held.is_none_or(Vec::is_empty);
        if gone {
            self.objects.remove(key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        for listener in self.listeners.get_mut(&key.0).into_iter().flatten() {
            listener(&object, gone);
        }
        let type_ = match (gone, before.is_null()) {
            (true, _) => "DELETED",
            (false, true) => "ADDED",
            (false, false) => "MODIFIED",
        };
        let event = json!({"type": type_, "object": object});
        self.events.push((self.version, key.clone(), event));
        object
    }

    /// What there is to tell of what came after a version, and the newest version.
    fn told(&self, asked: &Asked, since: u64) -> (u64, String) {
        let new = self.events.iter().filter(|(version, ..)| *version > since);
        let new = new.filter(|(_, key, event)| asked.finds(key, &event["object"]));
        let lines = new.map(|(_, _, event)| {
            let object = asked.shown(&event["object"]);
            format!("{}\n", json!({"type": event["type"], "object": object}))
        });
        (self.version, lines.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{AlarmSet, FINALIZER},
        testing::Fault,
    };
    use kube::{
        Api, ResourceExt,
        api::{ListParams, Patch, PatchParams},
    };
    use std::time::Duration;
    use tokio::time::timeout;

    fn code<T: Debug>(answer: kube::Result<T>) -> u16 {
        match answer.unwrap_err() {
            kube::Error::Api(status) => status.code,
            _ => 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_answers_as_the_api_server_does() {
        let calls = Calls::default();
        let cluster = Cluster::new(&calls);
        let api = Api::<AlarmSet>::namespaced(cluster.client(), "vsu");
        let set = |name: &str, tenant: &str| {
            json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
                "metadata": {"name": name, "namespace": "vsu"},
                "spec": {"tenantRef": {"name": tenant}, "alarms": []}})
        };
        assert_eq!(code(api.get("a").await), 404);
        cluster.apply(set("a", "one"));
        cluster.apply(set("b", "two"));
        let first = api.get("a").await.unwrap();
        assert_eq!(first.metadata.generation, Some(1));
        let found = ListParams::default().fields("spec.tenantRef.name=two");
        let found = api.list_metadata(&found).await.unwrap().items;
        assert_eq!((found.len(), found[0].name_any().as_str()), (1, "b"));

        let hold = json!({"finalizers": [FINALIZER], "resourceVersion": first.resource_version()});
        let hold = Patch::Merge(json!({"metadata": hold}));
        let params = PatchParams::default();
        api.patch_metadata("a", &params, &hold).await.unwrap();
        let again = api.patch_metadata("a", &params, &hold).await;
        assert_eq!(code(again), 409, "an old version");

        let status = |uid: &str| {
            Patch::Apply(
                json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
                "metadata": {"uid": uid}, "spec": null, "status": {"observedGeneration": 1}}),
            )
        };
        let apply = PatchParams::apply("campanile").force();
        let other = api
            .patch_status("a", &apply, &status("another object's"))
            .await;
        assert_eq!(code(other), 409);
        let uid = first.uid().unwrap();
        let told = api.patch_status("a", &apply, &status(&uid)).await.unwrap();
        let observed = told.status.as_ref().unwrap().common.observed_generation;
        assert_eq!((observed, told.metadata.generation), (Some(1), Some(1)));
        let same = api.patch_status("a", &apply, &status(&uid)).await.unwrap();
        assert_eq!(same.resource_version(), told.resource_version());

        cluster.delete::<AlarmSet>("vsu", "a");
        assert_eq!(api.get("a").await.unwrap().metadata.generation, Some(2));
        let free = Patch::Merge(json!({"metadata": {"finalizers": []}}));
        api.patch_metadata("a", &params, &free).await.unwrap();
        assert_eq!(cluster.get::<AlarmSet>("vsu", "a"), None);

        calls.fail_next("get alarmsets", 1, Fault::Refuse(429, "TooManyRequests"));
        assert_eq!(code(api.get("b").await), 429);
        calls.fail_next("get alarmsets", 1, Fault::Cut { done: false });
        assert_eq!(code(api.get("b").await), 0);
        calls.fail_next("get alarmsets", 1, Fault::Hang { done: false });
        let limit = Duration::from_secs(10);
        assert!(timeout(limit, api.get("b")).await.is_err());
    }
}
