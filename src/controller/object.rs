//! What we write to the object itself: its status and its finalizer.

use crate::{
    api::FINALIZER,
    clients::kubernetes::{self, FIELD_MANAGER},
    engine::error::{Class, Error, Result},
    kinds::Kind,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, TypeMeta},
};
use serde::Serialize;
use serde_json::json;

/// Adds our finalizer before anything is made outside.
pub async fn hold<K: Kind>(object: &K, api: &Api<K>) -> Result<()> {
    if object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(object, api, finalizers).await
}

/// The version is part of the patch: a list can only be replaced whole, and others have finalizers too.
pub async fn set_finalizers<K: Kind>(
    object: &K,
    api: &Api<K>,
    finalizers: Vec<String>,
) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let (name, patch) = (object.name_any(), Patch::Merge(patch));
    kubernetes::call(
        "setting the finalizer",
        api.patch_metadata(&name, &params, &patch),
    )
    .await
    .map(drop)
}

/// Server-side apply of the whole status, only if it changed. The one place that writes it.
pub async fn write_status<K: Kind>(
    object: &K,
    before: &K::Status,
    after: &K::Status,
    context: &super::Context,
) -> Result<()> {
    #[derive(Serialize, Debug)]
    struct Body<'a, S> {
        #[serde(flatten)]
        types: TypeMeta,
        metadata: Meta<'a>,
        status: &'a S,
    }
    /// So that another object of the same name, made meanwhile, does not get this one's status.
    #[derive(Serialize, Debug)]
    struct Meta<'a> {
        uid: &'a str,
    }
    if before == after {
        return Ok(());
    }
    // A successor may have written a newer one.
    if context
        .lease
        .as_ref()
        .is_some_and(|lease| lease.remaining() < kubernetes::CALL_LIMIT)
    {
        return Err(Error::new(Class::Superseded, "the lease is running out"));
    }
    let api = Api::<K>::namespaced(
        context.client.clone(),
        &object.namespace().unwrap_or_default(),
    );
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let patch = Patch::Apply(Body {
        types: TypeMeta::resource::<K>(),
        metadata: Meta { uid: &uid },
        status: after,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patched = api.patch_status(&name, &params, &patch);
    match kubernetes::call_if_there("writing the status", patched).await? {
        Some(_) => Ok(()),
        None => Err(Error::new(Class::Superseded, "the object is gone")),
    }
}
