use std::collections::BTreeSet;
use std::fs;

use k8s_openapi::api::core::v1::{self as core, ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Resource};

use super::{ApiWrite, Kubernetes, ServiceAccount, client, identity};
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

    // The controllers work. A namespace gets an account and the server's certificates, a role the rules that it gathers.
    let admin = kubernetes.client().await.unwrap();
    let accounts: Api<core::ServiceAccount> = Api::namespaced(admin.clone(), "belfry");
    let config_maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "belfry");
    let roles: Api<ClusterRole> = Api::all(admin.clone());
    let has_rules = |role: Option<&ClusterRole>| {
        role.and_then(|role| role.rules.as_ref())
            .is_some_and(|rules| !rules.is_empty())
    };
    await_condition(accounts, "default", conditions::is_created())
        .await
        .unwrap();
    await_condition(
        config_maps.clone(),
        "kube-root-ca.crt",
        conditions::is_created(),
    )
    .await
    .unwrap();
    await_condition(roles, "edit", has_rules).await.unwrap();

    // What has an owner goes with it.
    let named = |name: &str, owner: Option<OwnerReference>| ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let create = PostParams::default();
    let ring = config_maps
        .create(&create, &named("ring", None))
        .await
        .unwrap();
    let rope = named("rope", ring.owner_ref(&()));
    let rope = config_maps.create(&create, &rope).await.unwrap();
    config_maps
        .delete("ring", &DeleteParams::default())
        .await
        .unwrap();
    let uid = rope.metadata.uid.unwrap();
    await_condition(config_maps, "rope", conditions::is_deleted(&uid))
        .await
        .unwrap();

    // A namespace goes with all that is in it.
    let namespaces: Api<Namespace> = Api::all(admin);
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

/// What a write was, without when.
fn told(write: &ApiWrite) -> (&str, &str, &str, &str, &str, u16) {
    let resource = match write.subresource.as_str() {
        "" => write.resource.as_str(),
        subresource => subresource,
    };
    (
        &write.user,
        &write.verb,
        resource,
        &write.namespace,
        &write.name,
        write.status_code,
    )
}

#[tokio::test]
async fn every_write_is_on_record() {
    let home = install::directory()
        .join("test")
        .join(format!("audit-{}", std::process::id()));
    fs::create_dir_all(&home).unwrap();
    let arguments = ["--anonymous-auth=false".to_owned()];
    let kubernetes = Kubernetes::start(&home, &arguments).await.unwrap();
    let account = ServiceAccount {
        namespace: "belfry",
        name: "ringer",
    };
    let began = kubernetes.mark_writes();
    let ringer = kubernetes.identity(account, &[]).await.unwrap();
    let made = kubernetes.writes_since(began).unwrap();
    let expected = [
        ("admin", "patch", "namespaces", "belfry", "belfry", 201),
        ("admin", "patch", "serviceaccounts", "belfry", "ringer", 201),
        ("admin", "create", "token", "belfry", "ringer", 201),
    ];
    assert_eq!(made.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(made.is_sorted_by_key(|write| write.at));

    // What is refused, and what is only tried, is there as well; what is read is not.
    let mark = kubernetes.mark_writes();
    assert_eq!(kubernetes.writes_since(mark).unwrap(), []);
    let config = |name: &str| ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let its: Api<ConfigMap> = Api::default_namespaced(client(&ringer).await.unwrap());
    let refused = its.create(&PostParams::default(), &config("bell")).await;
    assert!(refused.unwrap_err().to_string().contains("forbidden"));
    let ours: Api<ConfigMap> = Api::namespaced(kubernetes.client().await.unwrap(), "belfry");
    ours.list(&Default::default()).await.unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    ours.create(&dry, &config("bell")).await.unwrap();
    ours.create(&PostParams::default(), &config("bell"))
        .await
        .unwrap();
    ours.get("bell").await.unwrap();
    ours.delete("bell", &DeleteParams::default()).await.unwrap();
    ours.delete_collection(&DeleteParams::default(), &Default::default())
        .await
        .unwrap();
    let written = kubernetes.writes_since(mark).unwrap();
    let (ringer, configs) = ("system:serviceaccount:belfry:ringer", "configmaps");
    let expected = [
        (ringer, "create", configs, "belfry", "", 403),
        ("admin", "create", configs, "belfry", "bell", 201),
        ("admin", "create", configs, "belfry", "bell", 201),
        ("admin", "delete", configs, "belfry", "bell", 200),
        ("admin", "deletecollection", configs, "belfry", "", 200),
    ];
    assert_eq!(written.iter().map(told).collect::<Vec<_>>(), expected);
    let dry: Vec<bool> = written.iter().map(|write| write.dry_run).collect();
    assert_eq!(dry, [false, true, false, false, false]);

    // Nothing is hidden, however many come at once.
    let mark = kubernetes.mark_writes();
    let many = (0..50).map(|number| {
        let ours = ours.clone();
        let one = config(&format!("bell-{number}"));
        async move { ours.create(&PostParams::default(), &one).await.map(drop) }
    });
    futures::future::try_join_all(many).await.unwrap();
    assert_eq!(kubernetes.writes_since(mark).unwrap().len(), 50);

    // What the control plane does by itself is not: the namespace went with all that was in it.
    let namespaces: Api<Namespace> = Api::all(kubernetes.client().await.unwrap());
    let mark = kubernetes.mark_writes();
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
    let gone = kubernetes.writes_since(mark).unwrap();
    let expected = [("admin", "delete", "namespaces", "belfry", "belfry", 200)];
    assert_eq!(gone.iter().map(told).collect::<Vec<_>>(), expected);
    let users = kubernetes.writes_since(began).unwrap().into_iter();
    let users: BTreeSet<String> = users.map(|write| write.user).collect();
    assert_eq!(users, BTreeSet::from(["admin".into(), ringer.into()]));

    // The arguments of a test count beside the world's own.
    let directory = home.join("kubernetes");
    let server = kubernetes.server();
    let stranger = identity::write_kubeconfig(&directory, "nobody", server, "default", "").unwrap();
    let stranger = client(&stranger).await.unwrap();
    let refused = stranger.apiserver_version().await.unwrap_err();
    assert!(refused.to_string().contains("Unauthorized"), "{refused}");

    drop(kubernetes);
    fs::remove_dir_all(home).unwrap();
}
