//! The Kubernetes API: a client without hidden retries, a time limit per call, and what its errors mean.

use crate::engine::error::{Class, Error, Result};
use std::{future::Future, time::Duration};

/// The field manager of all that we write to the API server.
pub const FIELD_MANAGER: &str = "campanile";

/// The longest that one call may take. The client itself has no such limit.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A client from the cluster's service account or the kubeconfig. kube would retry for minutes
/// inside one call, holding a worker; the controller's own backoff does that better.
pub async fn client() -> Result<kube::Client> {
    let mut config = kube::Config::infer().await.map_err(|error| {
        Error::failing(format!(
            "no Kubernetes configuration: {error}. Run in a cluster, or set KUBECONFIG"
        ))
    })?;
    config.default_retry = false;
    kube::Client::try_from(config)
        .map_err(|error| Error::failing(format!("Kubernetes client: {error}")))
}

/// A call with a time limit. `doing` says what for, to the person who reads the error.
pub async fn call<T>(doing: &str, future: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL_LIMIT, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(doing, &error)),
        Err(_) => Err(Error::failing(format!(
            "{doing}: the API server did not answer in {} s",
            CALL_LIMIT.as_secs()
        ))),
    }
}

/// The same, for a call on one object that may be gone: then there is no answer.
pub async fn call_if_there<T>(
    doing: &str,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>> {
    call(doing, async {
        match future.await {
            Ok(answer) => Ok(Some(answer)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// What an error of the API server means.
pub fn classify(doing: &str, error: &kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => Error::new(
            Class::Denied,
            format!(
                "{doing}: {}. Grant this to the operator's ClusterRole",
                status.message
            ),
        ),
        kube::Error::Api(status) if status.code == 429 => {
            Error::new(Class::Throttled, format!("{doing}: {}", status.message))
        }
        kube::Error::Api(status) if status.is_invalid() => {
            Error::new(Class::Rejected, format!("{doing}: {}", status.message))
        }
        error => Error::failing(format!("{doing}: {error}")),
    }
}
