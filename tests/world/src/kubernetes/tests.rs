use std::fs;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};

use super::{Kubernetes, ServiceAccount, client};
use crate::install;

const CRD: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: bells.test.campanile.dev}
spec:
  group: test.campanile.dev
  names: {kind: Bell, plural: bells}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {tone: {type: string, maxLength: 2}}}}}}
";
const BELL: &str = "apiVersion: test.campanile.dev/v1\nkind: Bell\nmetadata: {name: tenor, namespace: default}\nspec: {tone: TONE}\n";

#[tokio::test]
async fn serves_as_a_real_cluster_does() {
    let home = install::directory()
        .join("test")
        .join(format!("kubernetes-{}", std::process::id()));
    fs::create_dir_all(home.join("crds")).unwrap();
    let kubernetes = Kubernetes::start(&home, &[]).await.unwrap();

    // A schema is enforced.
    fs::write(home.join("crds/bells.yaml"), CRD).unwrap();
    assert_eq!(
        kubernetes.install_crds(&home.join("crds")).await.unwrap(),
        ["bells.test.campanile.dev"]
    );
    kubernetes.apply(&BELL.replace("TONE", "C")).await.unwrap();
    let refused = kubernetes
        .apply(&BELL.replace("TONE", "cracked"))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("Too long"), "{refused}");
    assert_eq!(
        kubernetes
            .kubectl(["get", "bells", "-o", "name"])
            .await
            .unwrap()
            .success()
            .unwrap(),
        "bell.test.campanile.dev/tenor\n"
    );

    // An identity may do what its roles say and nothing else.
    let may = |kind: &str, resource: &str| {
        let file = home.join(format!("{kind}.yaml"));
        let rules = format!("[{{apiGroups: [''], resources: [{resource}], verbs: [list]}}]");
        fs::write(&file, format!("kind: {kind}\nrules: {rules}\n")).unwrap();
        file
    };
    let roles = [may("ClusterRole", "configmaps"), may("Role", "secrets")];
    let account = ServiceAccount {
        namespace: "belfry",
        name: "ringer",
    };
    let ringer = kubernetes.identity(account, &roles).await.unwrap();
    let config_maps: Api<ConfigMap> = Api::default_namespaced(client(&ringer).await.unwrap());
    assert_eq!(
        config_maps.resource_url(),
        "/api/v1/namespaces/belfry/configmaps"
    );
    config_maps.list(&Default::default()).await.unwrap();
    let forbidden = config_maps
        .create(&PostParams::default(), &ConfigMap::default())
        .await
        .unwrap_err();
    assert!(
        forbidden
            .to_string()
            .contains("system:serviceaccount:belfry:ringer"),
        "{forbidden}"
    );
    for (namespace, resource, answer) in [
        ("default", "configmaps", "yes\n"),
        ("belfry", "secrets", "yes\n"),
        ("default", "secrets", "no\n"),
        ("belfry", "pods", "no\n"),
    ] {
        let can = kubernetes
            .kubectl_as(
                &ringer,
                ["auth", "can-i", "list", resource, "-n", namespace],
            )
            .await
            .unwrap();
        assert_eq!(can.stdout, answer, "{resource} in {namespace}");
    }

    // The controllers work: a namespace goes with all that is in it.
    let namespaces: Api<Namespace> = Api::all(kubernetes.client().await.unwrap());
    let uid = namespaces
        .get("belfry")
        .await
        .unwrap()
        .metadata
        .uid
        .unwrap();
    namespaces
        .delete("belfry", &DeleteParams::default())
        .await
        .unwrap();
    await_condition(namespaces, "belfry", conditions::is_deleted(&uid))
        .await
        .unwrap();

    drop(kubernetes);
    fs::remove_dir_all(home).unwrap();
}
