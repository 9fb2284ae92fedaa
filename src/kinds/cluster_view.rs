//! What a kind may read of the cluster while it finds out what an object refers to: the namespace around it. A
//! reconcile reads what is watched from its store, a plan takes what files say instead of what is there.

use super::{
    NamespacedObject,
    grants::Grants,
    overlay::{ObjectKey, Overlay},
    stores::Stores,
};
use crate::{
    api::TAKE_OVER_FROM,
    clients::kubernetes,
    engine::error::{Class, Error, Result, WaitingOn},
    kinds::{installation::Installation, mark::Cluster},
};
use k8s_openapi::api::core::v1::{Namespace, Secret as KubeSecret};
use kube::{Api, Resource, ResourceExt, api::ListParams};

/// Why an object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry it out: what it refers to must be there.
    Act,
    /// To say what would be done: what it refers to is taken as if it had been carried out.
    Plan,
}

/// What a kind may read while it finds out what its object refers to: the namespace around it.
pub struct ClusterView<'a> {
    /// The cluster's API.
    client: &'a kube::Client,
    /// This installation.
    pub installation: &'a Installation,
    /// Why we ask.
    pub purpose: Purpose,
    /// What is watched, and need not be read.
    stores: Option<&'a Stores>,
    /// What is taken instead of what is there.
    overlay: Option<&'a Overlay>,
}

impl<'a> ClusterView<'a> {
    /// The cluster as the API server has it.
    pub fn new(client: &'a kube::Client, installation: &'a Installation, purpose: Purpose) -> Self {
        Self {
            client,
            installation,
            purpose,
            stores: None,
            overlay: None,
        }
    }

    /// The cluster as it is watched, as far as it is and that may be relied on.
    pub fn watched(self, stores: &'a Stores) -> Self {
        Self {
            stores: Some(stores),
            ..self
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
        let key = ObjectKey::of::<T>(namespace, name);
        let given = self.overlay.and_then(|overlay| overlay.manifest(&key));
        given.is_some()
    }

    /// One object, if it is there. That it is not is never said by a store, which may lag behind.
    pub async fn get<T: NamespacedObject>(&self, namespace: &str, name: &str) -> Result<Option<T>> {
        let there = match self.stores.and_then(|stores| stores.get(namespace, name)) {
            None => self.read(namespace, name).await?,
            watched => watched,
        };
        match self.overlay {
            None => Ok(there),
            Some(overlay) => overlay.applied(&ObjectKey::of::<T>(namespace, name), there),
        }
    }

    /// The text under a key of a Secret. What waits for it says what to do.
    pub async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<String> {
        let waiting = |message: String| Error::new(Class::Waiting(WaitingOn::Secret), message);
        let secret = self.get::<KubeSecret>(namespace, name).await?;
        let Some(secret) = secret else {
            if self.is_terminating(namespace).await {
                let message = format!(
                    "Secret {namespace}/{name} does not exist, and Namespace {namespace} is being deleted, so that nothing can be created there: what needs the Secret is left as it is"
                );
                return Err(Error::new(Class::Waiting(WaitingOn::Never), message));
            }
            return Err(waiting(format!(
                "Secret {namespace}/{name} does not exist: create it with the key {key}"
            )));
        };
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

    /// One object as the API server has it.
    pub async fn read<T: NamespacedObject>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>> {
        let doing = format!("reading {} {namespace}/{name}", T::kind(&()));
        let api = Api::namespaced(self.client.clone(), namespace);
        kubernetes::call_if_there(&doing, api.get(name)).await
    }

    /// The objects of a namespace that are so; `fields` is the field selector that says the same to the API server.
    pub async fn list<T: NamespacedObject>(
        &self,
        namespace: &str,
        fields: &str,
        is_so: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>> {
        let watched = self.stores.and_then(|stores| stores.list(Some(namespace)));
        let mut found = match watched {
            Some(found) => found,
            None => self.select(namespace, fields).await?,
        };
        if let Some(overlay) = self.overlay {
            let kind = T::kind(&());
            let here = |key: &&ObjectKey| key.kind == kind && key.namespace == namespace;
            for key in overlay.keys().filter(here) {
                let at = found
                    .iter()
                    .position(|object: &T| object.name_any() == key.name);
                let there = match at.map(|at| found.swap_remove(at)) {
                    None if overlay.applied(key, None)?.as_ref().is_some_and(&is_so) => {
                        self.read(namespace, &key.name).await?
                    }
                    there => there,
                };
                found.extend(overlay.applied(key, there)?);
            }
        }
        found.retain(is_so);
        found.sort_by_cached_key(ResourceExt::name_any);
        Ok(found)
    }

    async fn select<T: NamespacedObject>(&self, namespace: &str, fields: &str) -> Result<Vec<T>> {
        let doing = format!("listing {} in {namespace}", T::kind(&()));
        let api = Api::<T>::namespaced(self.client.clone(), namespace);
        let chosen = ListParams::default().fields(fields);
        match kubernetes::call_if_there(&doing, api.list(&chosen)).await? {
            Some(found) => Ok(found.items),
            // A plan may come before the CustomResourceDefinitions do.
            None if self.purpose == Purpose::Plan => Ok(Vec::new()),
            None => Err(Error::failing(format!(
                "{doing}: there is no such kind. {}",
                kubernetes::OTHER_VERSION
            ))),
        }
    }

    /// The objects of a kind in all namespaces, whatever files say; of this one alone where that is all that we may
    /// see.
    pub async fn list_everywhere<T: NamespacedObject>(&self, namespace: &str) -> Result<Vec<T>> {
        if let Some(watched) = self.stores.and_then(|stores| stores.list(None)) {
            return Ok(watched);
        }
        let all = Api::<T>::all(self.client.clone());
        let here = Api::<T>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default();
        let doing = format!("listing {}", T::kind(&()));
        let found = match kubernetes::call_if_there(&doing, all.list(&params)).await {
            Err(error) if error.class == Class::Denied => {
                kubernetes::call_if_there(&doing, here.list(&params)).await?
            }
            found => found?,
        };
        Ok(found.map(|found| found.items).unwrap_or_default())
    }

    /// The former clusters whose things the objects of a Namespace take over.
    pub async fn formers(&self, namespace: &str) -> Result<Vec<Cluster>> {
        let Installation {
            cluster, formers, ..
        } = self.installation;
        let grants = match self.grants(namespace).await {
            // An operator that need not see Namespaces takes nothing over by their word.
            Err(error) if error.class == Class::Denied => None,
            grants => grants?,
        };
        let named = grants
            .as_ref()
            .and_then(|grants| grants.get(TAKE_OVER_FROM));
        let named = cluster.formers(named.unwrap_or_default()).map_err(|error| {
            Error::invalid(format!(
                "annotation {TAKE_OVER_FROM} of Namespace {namespace}: {error}"
            ))
        });
        Ok(formers.iter().cloned().chain(named?).collect())
    }

    /// Whether a Namespace is being deleted: nothing can be created there any more. Not where nobody can tell.
    pub async fn is_terminating(&self, namespace: &str) -> bool {
        let watched = self.stores.and_then(|stores| stores.grants.of(namespace));
        if watched.is_some() {
            return false;
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let doing = format!("reading Namespace {namespace}");
        let there = kubernetes::call_if_there(&doing, api.get_metadata(namespace)).await;
        there.is_ok_and(|there| {
            there.is_some_and(|there| there.metadata.deletion_timestamp.is_some())
        })
    }

    /// What a Namespace allows, if there is one.
    pub async fn grants(&self, namespace: &str) -> Result<Option<Grants>> {
        if let Some(watched) = self.stores.and_then(|stores| stores.grants.of(namespace)) {
            return Ok(Some(watched));
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let doing = format!("reading Namespace {namespace}");
        let mut there = kubernetes::call_if_there(&doing, api.get_metadata(namespace)).await?;
        if let Some(overlay) = self.overlay {
            there = overlay.applied(&ObjectKey::of::<Namespace>("", namespace), there)?;
        }
        Ok(there.as_ref().map(Grants::of))
    }
}
