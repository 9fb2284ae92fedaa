//! The key of this installation's digests, kept in a Secret of the operator's namespace.

use crate::{
    clients::kubernetes,
    error::{Class, Error, Result},
    secret::Digester,
};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};

/// The Secret's name.
pub const NAME: &str = "campanile-digest-key";

const KEY: &str = "key";

/// The digester, if its key exists. Writes nothing.
pub async fn digester(client: &kube::Client, namespace: &str) -> Result<Option<Digester>> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = kubernetes::call(
        &format!("reading Secret {namespace}/{NAME}"),
        api.get_opt(NAME),
    )
    .await?;
    let Some(secret) = secret else {
        return Ok(None);
    };
    let key = secret
        .data
        .and_then(|mut data| data.remove(KEY))
        .unwrap_or_default();
    Digester::new(&key.0).map(Some).ok_or_else(|| {
        Error::new(
            Class::Invalid,
            format!("Secret {namespace}/{NAME} has no key {KEY}: delete it, and a new one is made"),
        )
    })
}

/// The digester; its key is made at the first start. Losing it costs a rewrite of every digest.
pub async fn digester_or_new(client: &kube::Client, namespace: &str) -> Result<Digester> {
    if let Some(digester) = digester(client, namespace).await? {
        return Ok(digester);
    }
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), ByteString(random_key()?))].into()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => {}
        // Another replica was faster.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => {
            return Err(kubernetes::classify(
                &format!("making Secret {namespace}/{NAME}"),
                &error,
            ));
        }
    }
    digester(client, namespace).await?.ok_or_else(|| {
        Error::failing(format!(
            "Secret {namespace}/{NAME} was made and is not there"
        ))
    })
}

fn random_key() -> Result<Vec<u8>> {
    let mut key = vec![0; Digester::KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| Error::failing(format!("no randomness: {error}")))?;
    Ok(key)
}
