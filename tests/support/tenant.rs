//! A namespace, an account and a role of a test's own, and what a person does to the objects in it.

use super::{CLUSTER, Object, eventually};
use campanile::api::{ACCOUNT_BINDING, AlarmSet, TenantObservability};
use campanile_world::{World, aws::Trust};
use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What whoever asks for a look writes; the same as Flux's.
const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";

/// A tenant of a test's own: a namespace, an account, a role that trusts.
pub struct Tenant {
    pub world: &'static World,
    pub client: Client,
    pub namespace: String,
    pub account: String,
}

impl Tenant {
    /// A namespace named after the test, and an account that nobody else has.
    pub async fn new(world: &'static World, name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let tenant = Self {
            world,
            client: world.kubernetes.client().await.unwrap(),
            namespace: name.to_owned(),
            account: format!("{:012}", 700_000_000_000_u64 + number as u64),
        };
        let bound = json!({ACCOUNT_BINDING: tenant.account});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": bound}});
        let api = Api::<Namespace>::all(tenant.client.clone());
        api.create(
            &PostParams::default(),
            &serde_json::from_value(namespace).unwrap(),
        )
        .await
        .unwrap();
        tenant.trust(Trust::external_id(format!("{CLUSTER}/{name}")));
        tenant
    }

    /// The role that the operator assumes in the account, by default.
    pub fn role(&self) -> String {
        format!("arn:aws:iam::{}:role/campanile", self.account)
    }

    /// Says whom the role lets in.
    pub fn trust(&self, trust: Trust) {
        self.world.aws.role(&self.role(), trust);
    }

    /// Binds the namespace to an account, or to none.
    pub async fn bind(&self, account: Option<&str>) {
        self.annotate_namespace(ACCOUNT_BINDING, account).await;
    }

    /// Annotates the namespace, or takes the annotation away.
    pub async fn annotate_namespace(&self, key: &str, value: Option<&str>) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let (name, params) = (&self.namespace, PatchParams::default());
        namespaces.patch(name, &params, &patch).await.unwrap();
    }

    /// The API of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An object as it is now.
    pub async fn now<K: Object>(&self, name: &str) -> K {
        self.api::<K>().get(name).await.unwrap()
    }

    /// All objects of a kind, as they are now.
    pub async fn list<K: Object>(&self) -> Vec<K> {
        let listed = self.api::<K>().list(&ListParams::default()).await;
        listed.unwrap().items
    }

    /// Applies a TenantObservability named like the namespace.
    pub async fn tenant(&self, spec: Value) -> TenantObservability {
        self.apply(&self.namespace, spec).await
    }

    /// Applies an AlarmSet.
    pub async fn set(&self, name: &str, environments: Value, alarms: Value) -> AlarmSet {
        let spec = json!({"tenantRef": {"name": self.namespace}, "environments": environments, "alarms": alarms});
        self.apply(name, spec).await
    }

    /// Server-side apply, as kubectl and Flux do it.
    pub async fn apply<K: Object>(&self, name: &str, spec: Value) -> K {
        self.try_apply(name, spec).await.unwrap()
    }

    /// The same, if the API server takes it.
    pub async fn try_apply<K: Object>(&self, name: &str, mut spec: Value) -> kube::Result<K> {
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let body = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec});
        self.api::<K>()
            .patch(
                name,
                &PatchParams::apply("a-person").force(),
                &Patch::Apply(body),
            )
            .await
    }

    /// The API server refuses this spec, and says so.
    pub async fn refuses<K: Object>(&self, name: &str, spec: Value, expected: &str) {
        let refusal = self.try_apply::<K>(name, spec.clone()).await;
        let refusal = refusal.expect_err(&spec.to_string()).to_string();
        assert!(refusal.contains(expected), "{expected:?} in: {refusal}");
    }

    /// Merges a patch into an object's spec.
    pub async fn patch<K: Object>(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let api = self.api::<K>();
        let patched = api.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap();
    }

    /// Merges a patch into an object's status, past the operator.
    pub async fn patch_status<K: Object>(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        let api = self.api::<K>();
        let params = PatchParams::default();
        api.patch_status(name, &params, &patch).await.unwrap();
    }

    /// Applies a Secret with this key.
    pub async fn secret(&self, name: &str, key: &str, value: &str) {
        let secret = Secret {
            metadata: kube::core::ObjectMeta {
                name: Some(name.into()),
                ..Default::default()
            },
            data: Some([(key.to_owned(), ByteString(value.as_bytes().to_vec()))].into()),
            ..Default::default()
        };
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": secret.data});
        let params = PatchParams::apply("a-person").force();
        self.api::<Secret>()
            .patch(name, &params, &Patch::Apply(body))
            .await
            .unwrap();
    }

    /// Annotates an object.
    pub async fn annotate<K: Object>(&self, name: &str, key: &str, value: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        self.api::<K>()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Asks for a look at an object, in these words.
    pub async fn ask<K: Object>(&self, name: &str, words: &str) {
        self.annotate::<K>(name, REQUESTED, words).await;
    }

    /// Asks for a look at an object, in these words, and waits until its status names them.
    pub async fn look<K: Object>(&self, name: &str, words: &str) -> K {
        self.ask::<K>(name, words).await;
        let answered = |object: &K| {
            let object = serde_json::to_value(object).unwrap();
            object["status"]["lastHandledReconcileAt"] == words
        };
        self.until(name, "looked at", answered).await
    }

    /// Asks for the deletion of an object.
    pub async fn delete<K: Object>(&self, name: &str) {
        self.api::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Deletes the namespace, and waits until it is gone.
    pub async fn delete_namespace(&self) {
        let api = Api::<Namespace>::all(self.client.clone());
        api.delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
        eventually("the namespace to be gone", || async {
            match api.get_opt(&self.namespace).await.unwrap() {
                None => Ok(()),
                Some(namespace) => Err(serde_json::to_string_pretty(&namespace.status).unwrap()),
            }
        })
        .await;
    }
}

/// A spec with more fields, or other ones.
pub fn with(mut spec: Value, more: Value) -> Value {
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    spec
}

/// What an object's version is, so that a test can say that nobody wrote it.
pub async fn version<K: Object>(tenant: &Tenant, name: &str) -> String {
    let object = tenant.now::<K>(name).await;
    object.resource_version().unwrap()
}
