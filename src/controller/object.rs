//! Reads the object itself, and writes its status and its finalizer.

use super::Context;
use crate::{
    api::FINALIZER,
    clients::kubernetes::{self, FIELD_MANAGER},
    engine::error::{Class, Error, Result},
    kinds::{Kind, Status as _, stores::Stores},
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, TypeMeta},
};
use serde::Serialize;
use serde_json::json;

/// The object of this name as it is now, if it is there: as it is watched, where that is not older than our own last
/// write. What is being deleted, and what seems to have no status yet, is read: on neither may we be wrong.
pub async fn read<K: Kind>(name: &str, api: &Api<K>, stores: &Stores) -> Result<Option<K>> {
    let is_settled = |object: &K| {
        let mut status = object.status().cloned().unwrap_or_default();
        object.meta().deletion_timestamp.is_none() && !status.conditions().is_empty()
    };
    let namespace = api.namespace().unwrap_or_default();
    let watched = stores.get(namespace, name).filter(is_settled);
    if watched.is_some() {
        return Ok(watched);
    }
    let doing = format!("reading {} {namespace}/{name}", K::KIND);
    let read = kubernetes::call_if_there(&doing, api.get(name)).await?;
    if let Some(object) = &read {
        stores.answered(object);
    }
    Ok(read)
}

/// Adds our finalizer before anything is made outside.
pub async fn add_finalizer<K: Kind>(object: &K, api: &Api<K>, stores: &Stores) -> Result<()> {
    if object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(object, api, finalizers, stores).await
}

/// The version is part of the patch: a list can only be replaced whole, and others have finalizers too.
pub async fn set_finalizers<K: Kind>(
    object: &K,
    api: &Api<K>,
    finalizers: Vec<String>,
    stores: &Stores,
) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let (name, patch) = (object.name_any(), Patch::Merge(patch));
    stores.writing(&object.uid().unwrap_or_default());
    let patched = api.patch_metadata(&name, &params, &patch);
    let namespace = api.namespace().unwrap_or_default();
    let doing = format!("setting the finalizers of {} {namespace}/{name}", K::KIND);
    let patched = kubernetes::call(&doing, patched).await?;
    stores.answered(&patched);
    Ok(())
}

/// Server-side apply of the whole status, only if it changed. The one place that writes it.
pub async fn write_status<K: Kind>(
    object: &K,
    before: &K::Status,
    after: &K::Status,
    context: &Context,
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
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<K>::namespaced(context.client.clone(), &namespace);
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let patch = Patch::Apply(Body {
        types: TypeMeta::resource::<K>(),
        metadata: Meta { uid: &uid },
        status: after,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let uid = uid.as_str();
    context.stores.writing(uid);
    let patched = api.patch_status(&name, &params, &patch);
    let doing = format!("writing the status of {} {namespace}/{name}", K::KIND);
    match kubernetes::call_if_there(&doing, patched).await? {
        Some(written) => {
            context.stores.status_written(uid, &written.status());
            let mut records = K::Status::default();
            records.restore(after);
            context.stores.recorded(uid, records);
            context.stores.answered(&written);
            Ok(())
        }
        None => Err(Error::new(Class::Superseded, "the object is gone")),
    }
}
