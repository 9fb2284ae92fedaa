//! The Kubernetes API: a client without hidden retries, a time limit per call, and what its errors mean.

use super::http::chain;
use crate::engine::{
    error::{Class, Error, Result},
    rendering::{plain, shorten},
};
use kube::{core::Status, runtime::watcher};
use std::{error::Error as StdError, future::Future, time::Duration};

/// The field manager of all that we write to the API server.
pub const FIELD_MANAGER: &str = "campanile";

/// The longest that one call may take. The client itself has no such limit.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The most bytes that are quoted of what the API server says.
const SAID: usize = 500;

/// What kube gives for a reason where an answer is no `Status`.
const NO_STATUS: &str = "Failed to parse error data";

/// What the API server says, in plain text, to a path of a kind that it does not know.
const NO_KIND: &str = "404 page not found";

/// What to do where nothing came, or nothing that can be read.
const ON_THE_WAY: &str = "It is tried again by itself; if that lasts, see that the API server is up, and what is on the way to it";

/// What to do where the API server and we do not understand each other.
pub const OTHER_VERSION: &str =
    "Apply the CustomResourceDefinitions of this version of Campanile (campanile crds)";

/// A client from the cluster's service account or the kubeconfig. kube would retry for minutes
/// inside one call, holding a worker; the controller's own backoff does that better.
pub async fn client() -> Result<kube::Client> {
    let mut config = kube::Config::infer().await.map_err(|error| {
        Error::failing(format!(
            "no Kubernetes configuration: {error}. Run in a cluster, or set KUBECONFIG"
        ))
    })?;
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| {
        Error::failing(format!(
            "making a client of the API server from that configuration: {}. Correct it",
            said(&error)
        ))
    })
}

/// A call with a time limit. `doing` says what for, and with which object, to the person who reads the error.
pub async fn call<T>(doing: &str, future: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL_LIMIT, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(doing, &error)),
        Err(_) => Err(late(doing, CALL_LIMIT)),
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
            Err(kube::Error::Api(status)) if is_absent(&status) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Whether the API server itself says that there is no such object, or no such kind: not whatever stands in its place
/// and answers 404.
fn is_absent(status: &Status) -> bool {
    status.reason == "NotFound" || status.reason == NO_STATUS && status.message == NO_KIND
}

/// There was no answer in time.
pub fn late(doing: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs_f64();
    Error::failing(format!(
        "{doing}: the API server did not answer in {seconds} s. {ON_THE_WAY}"
    ))
}

/// What an error of the API server means. `doing` says what was being done, and with which object.
pub fn classify(doing: &str, error: &kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => refused(doing, status),
        kube::Error::SerdeError(error) => {
            // Its text may quote what stands there, which may be a secret.
            let what = match error.classify() {
                serde_json::error::Category::Eof => "breaks off",
                serde_json::error::Category::Data => "is of another shape than it should be",
                _ => "is not JSON",
            };
            let (line, column) = (error.line(), error.column());
            let what = format!("the API server's answer {what} (line {line}, column {column})");
            Error::failing(format!("{doing}: {what}. {ON_THE_WAY}"))
        }
        kube::Error::Auth(_) => Error::new(
            Class::Denied,
            format!(
                "{doing}: the operator's credentials cannot be had: {}. See the service account, or the kubeconfig",
                said(error)
            ),
        ),
        error => Error::failing(format!("{doing}: {}. {ON_THE_WAY}", said(error))),
    }
}

/// What it means that a watch has failed; it begins again by itself.
pub fn watching(doing: &str, error: &watcher::Error) -> Error {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => classify(doing, error),
        watcher::Error::WatchError(status) => refused(doing, status),
        watcher::Error::NoResourceVersion => {
            Error::failing(format!("{doing}: the list has no version. {ON_THE_WAY}"))
        }
    }
}

/// What an error and its sources say, without the name that kube gives to their sort.
fn said(error: &kube::Error) -> String {
    let said = error.source().map_or_else(|| error.to_string(), chain);
    shorten(&plain(&said), SAID)
}

/// What an answer means that is no success.
fn refused(doing: &str, status: &Status) -> Error {
    let Status {
        code,
        reason,
        message,
        details,
        ..
    } = status;
    if is_absent(status) && reason == NO_STATUS {
        return Error::failing(format!(
            "{doing}: the API server knows no such kind ({code}). {OTHER_VERSION}"
        ));
    }
    if reason == NO_STATUS || reason.is_empty() && message.is_empty() {
        return unreadable(doing, *code);
    }
    let details = details.as_ref();
    let of = details.map(|details| (details.kind.as_str(), &details.name));
    let mut causes = details.into_iter().flat_map(|details| &details.causes);
    let is_ending = causes.any(|cause| cause.reason == "NamespaceTerminating");
    let (class, remedy) = match code {
        401 => (
            Class::Denied,
            "Renew the operator's token, or its kubeconfig".to_owned(),
        ),
        403 if is_ending => (
            Class::Denied,
            "The Namespace is being deleted, and nothing can be created there any more".to_owned(),
        ),
        403 => (Class::Denied, grant(message)),
        404 => {
            let create = match of {
                Some(("namespaces", name)) => {
                    format!("Create that Namespace: kubectl create namespace {name}")
                }
                _ => "Create it, if it is to be there; it is looked for again by itself".to_owned(),
            };
            (Class::Unavailable, create)
        }
        409 => (
            Class::Unavailable,
            "Somebody else has changed or created it; it is tried again by itself".to_owned(),
        ),
        429 => (
            Class::Throttled,
            "It is asked again by itself; if that lasts, see what else burdens the API server"
                .to_owned(),
        ),
        422 => (
            Class::Rejected,
            format!("{OTHER_VERSION}, or correct what it names"),
        ),
        400..500 => (Class::Unavailable, OTHER_VERSION.to_owned()),
        _ => (Class::Unavailable, ON_THE_WAY.to_owned()),
    };
    let message = plain(message);
    let message = match message.trim_end_matches('.') {
        "" => String::new(),
        message => format!("{}, ", shorten(message, SAID)),
    };
    let reason = if reason.is_empty() { "HTTP" } else { reason };
    let error = Error::new(
        class,
        format!("{doing}: {message}{reason} ({code}). {remedy}"),
    );
    match details.map(|details| details.retry_after_seconds) {
        Some(seconds @ 1..) if class == Class::Throttled => {
            error.after(Duration::from_secs(seconds.into()))
        }
        _ => error,
    }
}

/// An answer that is none of the API server's.
fn unreadable(doing: &str, code: u16) -> Error {
    let class = match code {
        // Whoever says so wants to be left alone.
        429 => Class::Throttled,
        _ => Class::Unavailable,
    };
    let what = format!("HTTP {code} with an answer that is none of the API server's");
    Error::new(class, format!("{doing}: {what}. {ON_THE_WAY}"))
}

/// What is to be granted, by what RBAC says: `User "x" cannot get resource "secrets" in API group "" …`.
fn grant(message: &str) -> String {
    let verb = message.split_once(" cannot ").and_then(|(_, rest)| {
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, _) = rest.split_once('"')?;
        Some(format!("{verb} on {resource}"))
    });
    let what = verb.unwrap_or_else(|| "it".to_owned());
    format!("Grant {what} to the operator: its roles are in charts/campanile/files")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clients::messages::Told;
    use serde_json::{Value as Json, json};

    const DOING: &str = "creating Secret campanile-system/campanile-digest-key";

    fn status(status: Json) -> Box<Status> {
        serde_json::from_value(status).unwrap()
    }

    /// As kube makes it of an answer that is no `Status`.
    fn plain_text(code: u16, text: &str) -> Box<Status> {
        Status::failure(text, NO_STATUS).with_code(code).boxed()
    }

    fn undecodable() -> kube::Error {
        let error = serde_json::from_str::<u8>("\"canary\"").unwrap_err();
        kube::Error::SerdeError(error)
    }

    /// What every answer leads to.
    pub fn all() -> Vec<Told> {
        let mut told = Vec::new();
        for (code, reason) in [
            (400, "BadRequest"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (404, "NotFound"),
            (409, "AlreadyExists"),
            (409, "Conflict"),
            (410, "Expired"),
            (413, "RequestEntityTooLarge"),
            (422, "Invalid"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (503, "ServiceUnavailable"),
            (418, ""),
        ] {
            for message in ["", "so it is.", "so\nit is"] {
                let answer = status(json!({"code": code, "reason": reason, "message": message}));
                let error = refused(DOING, &answer);
                let code = code.to_string();
                told.push(Told::new(&[DOING, &code, reason_or(reason), ". "], error));
            }
        }
        for code in [301, 403, 404, 429, 502] {
            for text in ["", "<html>", NO_KIND] {
                let error = refused(DOING, &plain_text(code, text));
                told.push(Told::new(&[DOING, &code.to_string(), ". "], error));
            }
        }
        let service = kube::Error::Service("the connection was refused".into());
        let told_of = |error, says| Told::new(&[DOING, says, "again by itself"], error);
        told.push(told_of(
            classify(DOING, &service),
            "the connection was refused",
        ));
        told.push(told_of(classify(DOING, &undecodable()), "another shape"));
        told.push(told_of(late(DOING, CALL_LIMIT), "in 10 s"));
        told.push(told_of(
            watching(DOING, &watcher::Error::NoResourceVersion),
            "version",
        ));
        told
    }

    fn reason_or(reason: &str) -> &str {
        match reason {
            "" => "HTTP",
            reason => reason,
        }
    }

    #[test]
    fn what_is_to_be_done_is_said() {
        let missing = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "namespaces \"campanile-system\" not found",
            "details": {"name": "campanile-system", "kind": "namespaces"}});
        let error = refused(DOING, &status(missing));
        assert_eq!(
            error.message,
            "creating Secret campanile-system/campanile-digest-key: namespaces \"campanile-system\" not found, NotFound (404). Create that Namespace: kubectl create namespace campanile-system"
        );
        assert_eq!(error.class, Class::Unavailable);

        let forbidden = json!({"code": 403, "reason": "Forbidden",
            "message": "secrets is forbidden: User \"x\" cannot create resource \"secrets\" in API group \"\" in the namespace \"campanile-system\""});
        let error = refused(DOING, &status(forbidden));
        let grant = "Forbidden (403). Grant create on secrets to the operator: its roles are in charts/campanile/files";
        assert!(error.message.ends_with(grant), "{error}");
        assert_eq!(error.class, Class::Denied);

        let ending = json!({"code": 403, "reason": "Forbidden", "message": "it is being terminated",
            "details": {"causes": [{"reason": "NamespaceTerminating"}]}});
        let error = refused(DOING, &status(ending));
        assert!(
            error.message.contains("The Namespace is being deleted"),
            "{error}"
        );

        let busy =
            json!({"code": 429, "reason": "TooManyRequests", "details": {"retryAfterSeconds": 7}});
        let error = refused(DOING, &status(busy));
        assert_eq!(
            (error.class, error.wait),
            (Class::Throttled, Some(Duration::from_secs(7)))
        );
    }

    /// Neither for a refusal nor for absence.
    #[tokio::test]
    async fn an_answer_that_is_none_of_the_api_servers_is_not_taken_for_one() {
        let answer = async |status: Box<Status>| {
            call_if_there(DOING, async { Err::<(), _>(kube::Error::Api(status)) }).await
        };
        assert_eq!(
            answer(status(json!({"code": 404, "reason": "NotFound"}))).await,
            Ok(None)
        );
        assert_eq!(answer(plain_text(404, NO_KIND)).await, Ok(None));
        for (code, class) in [
            (403, Class::Unavailable),
            (404, Class::Unavailable),
            (422, Class::Unavailable),
            (429, Class::Throttled),
            (502, Class::Unavailable),
        ] {
            let error = answer(plain_text(code, "<html>canary")).await.unwrap_err();
            assert_eq!(error.class, class, "{error}");
            assert!(
                error.message.contains("none of the API server's"),
                "{error}"
            );
            assert!(!error.message.contains("canary"), "{error}");
        }
        let error = classify(DOING, &undecodable());
        assert_eq!(error.class, Class::Unavailable);
        assert!(!error.message.contains("canary"), "{error}");
        let error = classify(
            DOING,
            &kube::Error::SerdeError(serde_json::from_str::<Json>("{").unwrap_err()),
        );
        assert!(error.message.contains("answer breaks off"), "{error}");
    }
}
