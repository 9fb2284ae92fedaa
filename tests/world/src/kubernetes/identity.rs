//! Who talks to the API server: kubeconfig files and service accounts.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::Resource as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{FIELD_OWNER, Kubernetes};

/// The certificates, relative to the cluster's directory, with which the API server's own can be verified.
pub(super) const AUTHORITY: &str = "certificates/apiserver.crt";
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// A workload's identity in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct ServiceAccount<'a> {
    /// The namespace it lives in.
    pub namespace: &'a str,
    /// Its name; what is bound to it is called the same.
    pub name: &'a str,
}

impl Kubernetes {
    /// Makes a service account, and its namespace where that is missing, and returns a kubeconfig file with a token of its own.
    /// It may do what the files `roles` allow and nothing else: a ClusterRole everywhere, a Role in the account's namespace.
    pub async fn identity(
        &self,
        account: ServiceAccount<'_>,
        roles: &[PathBuf],
    ) -> Result<PathBuf> {
        let ServiceAccount { namespace, name } = account;
        let client = self.client().await?;
        let accounts: Api<core::ServiceAccount> = Api::namespaced(client.clone(), namespace);
        apply(
            Api::<core::Namespace>::all(client.clone()),
            namespace,
            json!({}),
        )
        .await?;
        apply(accounts.clone(), name, json!({})).await?;
        for file in roles {
            grant(&client, account, file)
                .await
                .with_context(|| format!("the role of {} is not granted", file.display()))?;
        }

        let spec = TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        let token = answer
            .status
            .with_context(|| format!("no token for {namespace}/{name}"))?
            .token;
        write_kubeconfig(
            &self.directory,
            &format!("{namespace}.{name}"),
            &self.server,
            namespace,
            &token,
        )
    }
}

/// Creates or updates one object from what it holds besides type and name.
async fn apply<K>(api: Api<K>, name: &str, mut body: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    body["apiVersion"] = json!(K::api_version(&()));
    body["kind"] = json!(K::kind(&()));
    body["metadata"] = json!({"name": name});
    let applied = api
        .patch(
            name,
            &PatchParams::apply(FIELD_OWNER).force(),
            &Patch::Apply(&body),
        )
        .await;
    applied
        .map(drop)
        .with_context(|| format!("{} {name} was refused", K::kind(&())))
}

/// Creates the role in `file` and binds it to `account`.
async fn grant(client: &Client, account: ServiceAccount<'_>, file: &Path) -> Result<()> {
    let ServiceAccount { namespace, name } = account;
    let manifest: RoleManifest = serde_saphyr::from_str(&fs::read_to_string(file)?)?;
    let rules = json!({"rules": manifest.rules});
    let binding = json!({
        "roleRef": {"apiGroup": ClusterRole::GROUP, "kind": manifest.kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    match manifest.kind {
        RoleKind::ClusterRole => {
            apply(Api::<ClusterRole>::all(client.clone()), name, rules).await?;
            apply(
                Api::<ClusterRoleBinding>::all(client.clone()),
                name,
                binding,
            )
            .await
        }
        RoleKind::Role => {
            apply(
                Api::<Role>::namespaced(client.clone(), namespace),
                name,
                rules,
            )
            .await?;
            apply(
                Api::<RoleBinding>::namespaced(client.clone(), namespace),
                name,
                binding,
            )
            .await
        }
    }
}

#[derive(Deserialize)]
struct RoleManifest {
    kind: RoleKind,
    rules: Value,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum RoleKind {
    ClusterRole,
    Role,
}

/// JSON is YAML, so this is a kubeconfig like any other.
pub(super) fn write_kubeconfig(
    directory: &Path,
    who: &str,
    server: &str,
    namespace: &str,
    token: &str,
) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "world", "cluster": {"server": server, "certificate-authority": directory.join(AUTHORITY)}}],
        "users": [{"name": who, "user": {"token": token}}],
        "contexts": [{"name": "world", "context": {"cluster": "world", "user": who, "namespace": namespace}}],
        "current-context": "world",
    });
    let path = directory.join(format!("{who}.kubeconfig"));
    fs::write(&path, format!("{config:#}\n"))
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}
