//! A status that cannot be read keeps no other object from being seen.

use super::*;

/// Merges a patch into an object's status, past the operator.
async fn write_status(tenant: &Tenant, kind: &str, name: &str, patch: &Value) {
    let patch = patch.to_string();
    let args = [
        "-n",
        &tenant.namespace,
        "patch",
        kind,
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    let patched = tenant.world.kubernetes.kubectl(args).await.unwrap();
    patched.success().unwrap();
}

#[test]
fn a_status_that_nobody_can_read_keeps_no_other_object_from_being_seen() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-poison").await;
        tenant.usual_tenant().await;
        tenant
            .set(
                "poisoned",
                json!(["prod"]),
                json!([alarm("a", "info", json!({}))]),
            )
            .await;
        let poison = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "X", "message": "",
            "lastTransitionTime": "9999-12-31T23:59:59-12:00"}]}});
        write_status(&tenant, "aset", "poisoned", &poison).await;
        let _operator = tenant.operator_with(&UNBOUND).await;
        // A tenant lists its sets, so another one shows that the watches are alive.
        tenant.neighbour_works().await;
    });
}
