//! Who talks to the API server: kubeconfig files and service accounts.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::Resource as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
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
    /// It may do what the ClusterRole in the file `role` allows and nothing else; without one, nothing.
    pub async fn identity(
        &self,
        account: ServiceAccount<'_>,
        role: Option<&Path>,
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
        if let Some(role) = role {
            apply(
                Api::<ClusterRole>::all(client.clone()),
                name,
                json!({"rules": rules(role)?}),
            )
            .await?;
            let binding = json!({
                "roleRef": {"apiGroup": ClusterRole::GROUP, "kind": ClusterRole::KIND, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            });
            apply(Api::<ClusterRoleBinding>::all(client), name, binding).await?;
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

/// The rules of a ClusterRole in a file: a whole manifest, or `rules` alone, as charts keep them.
fn rules(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("the role's file {} cannot be read", file.display()))?;
    let mut role: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", file.display()))?;
    match role.get_mut("rules").map(Value::take) {
        Some(rules @ Value::Array(_)) => Ok(rules),
        _ if role.is_array() => Ok(role),
        _ => bail!("{} has no list of rules", file.display()),
    }
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
