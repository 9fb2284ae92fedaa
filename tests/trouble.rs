//! What goes wrong is said on the resource, for the person who reads it, and holds up nothing else.
//!
//! Here is what most of it befalls, and how what is said there is read.

mod absent;
mod access;
mod deletion;
mod lost;
mod refused;

use crate::support::{Conditions, Tenant, alarm, eventually};
use campanile::api::{AlarmSet, Health, TenantObservability};
use serde_json::{Value, json};

/// For a neighbour in an account that the namespace is not bound to.
const UNBOUND: [&str; 1] = ["--require-account-binding=false"];

/// The one alarm that most of it befalls.
fn errors() -> Value {
    json!([alarm("errors", "critical", json!({}))])
}

/// Applies the set `golden` with these alarms, in one environment.
async fn golden(tenant: &Tenant, alarms: Value) {
    tenant.set("golden", json!(["prod"]), alarms).await;
}

/// The usual tenant, with a pager for what is critical; its key is in a Secret.
fn paged(tenant: &Tenant) -> Value {
    let reference = json!({"name": "pager", "key": "key"});
    let pager = json!({"name": "primary", "integrationKeySecretRef": reference});
    let mut spec = tenant.usual_spec();
    spec["notify"]["critical"] = json!({"pagerDuty": [pager]});
    spec
}

/// An object as it is now.
async fn now<K: Conditions>(tenant: &Tenant, name: &str) -> K {
    tenant.api::<K>().get(name).await.unwrap()
}

/// Waits for a reason of the tenant's `Ready`, and returns its message.
async fn tenant_is(tenant: &Tenant, reason: &str) -> String {
    let name = &tenant.namespace;
    tenant.ready::<TenantObservability>(name, reason).await
}

/// Waits until this is the tenant's health, and returns it.
async fn comes_to(tenant: &Tenant, health: Health) -> TenantObservability {
    let right = |tenant: &TenantObservability| {
        let status = tenant.status.as_ref();
        status.is_some_and(|status| status.health == Some(health))
    };
    let what = format!("{health:?}");
    tenant.until(&tenant.namespace, &what, right).await
}

/// Asks for a look at an object, in these words.
async fn ask<K: Conditions>(tenant: &Tenant, name: &str, words: &str) {
    let key = "reconcile.fluxcd.io/requestedAt";
    tenant.annotate::<K>(name, key, words).await;
}

/// Waits until AWS has been asked so often, which `count` knows.
async fn asked(what: &str, times: usize, count: impl Fn() -> usize) {
    eventually(what, || async {
        match count() {
            found if found >= times => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;
}

/// The names of the alarms in the account.
async fn names(tenant: &Tenant) -> Vec<String> {
    tenant.alarms().await.into_keys().collect()
}

/// How many alarms and how many topics are in the account.
async fn left(tenant: &Tenant) -> (usize, usize) {
    (tenant.alarms().await.len(), tenant.topics().await.len())
}
