//! The key of this installation's digests and the name of its cluster, kept in a Secret of the operator's namespace.

use crate::{
    clients::{kubernetes, secret::Digester},
    engine::error::{Class, Error, Result},
};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};

/// The Secret's name.
pub const NAME: &str = "campanile-digest-key";

const KEY: &str = "key";

/// Under which cluster name this installation made what it made.
const CLUSTER: &str = "cluster";

/// The digester, if its key exists. Writes nothing.
pub async fn digester(
    client: &kube::Client,
    namespace: &str,
    cluster: &str,
) -> Result<Option<Digester>> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let doing = format!("reading Secret {namespace}/{NAME}");
    let secret = kubernetes::call_if_there(&doing, api.get(NAME)).await?;
    let Some(secret) = secret else {
        return Ok(None);
    };
    let mut data = secret.data.unwrap_or_default();
    // Under another name we would find nothing of what is ours, make all of it again, and let go of it.
    if let Some(made) = data
        .get(CLUSTER)
        .filter(|made| made.0 != cluster.as_bytes())
    {
        let made = String::from_utf8_lossy(&made.0);
        return Err(Error::invalid(format!(
            "this installation is called {made} (Secret {namespace}/{NAME}), not {cluster}: use --cluster-name {made}; to rename it, first delete all objects, then that Secret"
        )));
    }
    let key = data.remove(KEY).unwrap_or_default();
    Digester::new(&key.0).map(Some).ok_or_else(|| {
        Error::new(
            Class::Invalid,
            format!("Secret {namespace}/{NAME} has no key {KEY}: delete it, and a new one is made"),
        )
    })
}

/// The digester; its key is made at the first start. Losing it costs a rewrite of every digest.
pub async fn digester_or_new(
    client: &kube::Client,
    namespace: &str,
    cluster: &str,
) -> Result<Digester> {
    if let Some(digester) = digester(client, namespace, cluster).await? {
        return Ok(digester);
    }
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        data: Some(
            [
                (KEY.to_owned(), ByteString(random_key()?)),
                (CLUSTER.to_owned(), ByteString(cluster.as_bytes().to_vec())),
            ]
            .into(),
        ),
        ..Secret::default()
    };
    let created = async {
        match api.create(&PostParams::default(), &secret).await {
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => created.map(drop),
        }
    };
    kubernetes::call(&format!("creating Secret {namespace}/{NAME}"), created).await?;
    digester(client, namespace, cluster).await?.ok_or_else(|| {
        Error::failing(format!(
            "Secret {namespace}/{NAME} was created and is not there: see who deletes it"
        ))
    })
}

fn random_key() -> Result<Vec<u8>> {
    let mut key = vec![0; Digester::KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| Error::failing(format!("no randomness: {error}")))?;
    Ok(key)
}
