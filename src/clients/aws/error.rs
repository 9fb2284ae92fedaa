//! What AWS's errors mean, and what to do about them.

use super::Identity;
use crate::{
    clients::http::chain,
    engine::error::{Class, Error},
};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::{error::Error as StdError, fmt};

/// What AWS says, as an error of validation, of a role that a call hands over and that does not trust the
/// service: its trust policy is wrong, or has not spread yet.
pub const DISTRUSTS: &str = "cannot be assumed by principal";

/// One call, for the person who reads what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// As whom.
    pub identity: &'a Identity,
    /// The API, as IAM spells it: `cloudwatch:PutMetricAlarm`.
    pub api: &'static str,
    /// Whether it changes something, so that an outcome that never came must be looked up.
    pub writes: bool,
}

/// The operation of an API that is spelled as IAM does.
pub(super) fn operation(api: &str) -> &str {
    api.split_once(':').map_or(api, |(_, operation)| operation)
}

/// What an SDK error means, and what to do about it.
pub fn classify<E>(call: &Call<'_>, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let Call {
        identity,
        api,
        writes,
    } = *call;
    if let SdkError::ServiceError(refusal) = error {
        let status = refusal.raw().status().as_u16();
        let code = refusal.err().code().unwrap_or_default();
        let text = refusal.err().message().unwrap_or_default();
        return answered(call, status, code, text);
    }
    if let Some(refusal) = assume_role_refusal(error) {
        let assume = Call {
            api: "sts:AssumeRole",
            ..*call
        };
        let Refusal { status, code, text } = refusal;
        let answer = answered(&assume, status, &code, &text);
        // Whatever else STS refuses about a role, the role is what needs mending.
        return match answer.class {
            Class::Throttled | Class::Unavailable => answer,
            _ => Error::new(
                Class::Denied,
                format!(
                    "cannot assume {}: {code}: {text}. Let the role trust the operator's identity for sts:AssumeRole and sts:TagSession with the condition sts:ExternalId = {}",
                    identity.role_arn, identity.external_id
                ),
            ),
        };
    }
    let class = match error {
        // The request was never sent.
        SdkError::ConstructionFailure(_) => Class::Unavailable,
        SdkError::DispatchFailure(failure) if failure.is_user() || !writes => Class::Unavailable,
        _ if writes => Class::OutcomeUnknown,
        _ => Class::Unavailable,
    };
    Error::new(
        class,
        format!(
            "{api} in account {}, {}: {}",
            identity.account_id,
            identity.region,
            chain(error)
        ),
    )
}

/// What it means that an answer which was otherwise good names one thing that could not be done: code and
/// text as AWS gave them.
pub fn failed_entry(call: &Call<'_>, code: &str, text: &str) -> Error {
    match code {
        // EventBridge's own fault has no status of its own here.
        "InternalException" | "InternalFailure" => answered(call, 500, code, text),
        _ => answered(call, 400, code, text),
    }
}

/// What a refusal means: code and text as AWS gave them, the status for answers without a code.
fn answered(call: &Call<'_>, status: u16, code: &str, text: &str) -> Error {
    let Call { identity, api, .. } = *call;
    let operation = operation(api);
    let place = format!(
        "{api} in account {}, {}",
        identity.account_id, identity.region
    );
    // Two writers on one thing: AWS says it of an alarm as an error of validation, and elsewhere with 400 or
    // 429, but it passes.
    let busy = code.contains("ConcurrentModification")
        || code.contains("ConcurrentAccess")
        || text.contains("is in progress");
    // Of things, not of requests: it is no matter of waiting.
    let quota = matches!(code, "LimitExceeded" | "LimitExceededException");
    let throttled = code.contains("Throttl")
        || matches!(code, "RequestLimitExceeded" | "TooManyRequestsException")
        || status == 429 && !busy && !quota;
    let denied = code.contains("AccessDenied")
        || code.contains("AuthorizationError")
        || code.contains("NotAuthorized")
        || code.contains("ExpiredToken")
        || matches!(
            code,
            "InvalidClientTokenId" | "UnrecognizedClientException" | "SignatureDoesNotMatch"
        )
        || matches!(status, 401 | 403) && code.is_empty();
    // Nothing is wrong with what was asked for, and it heals without an edit of it.
    let distrusts = status < 500 && text.contains(DISTRUSTS);
    if throttled {
        Error::new(
            Class::Throttled,
            format!("throttled: {place}: {code}: {text}"),
        )
    } else if distrusts {
        let text = text.trim_end_matches('.');
        Error::new(
            Class::Denied,
            format!(
                "{place} was denied: {code}: {text}. Let that role's trust policy allow sts:AssumeRole to that principal; AWS takes a while to see it"
            ),
        )
    } else if denied {
        Error::new(
            Class::Denied,
            format!(
                "{place} was denied: {code}: {text}. Allow {api} to {}",
                identity.role_arn
            ),
        )
    } else if busy || status >= 500 {
        Error::failing(format!(
            "{place}: {} {text}",
            if code.is_empty() {
                status.to_string()
            } else {
                code.into()
            }
        ))
    } else if quota {
        Error::new(
            Class::Rejected,
            format!(
                "AWS refused {operation}: {code}: {text}. A quota of account {} in {} is used up: have it raised, or remove something there",
                identity.account_id, identity.region
            ),
        )
    } else {
        Error::new(
            Class::Rejected,
            format!("AWS refused {operation}: {code}: {text}"),
        )
    }
}

/// What STS answered.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    text: String,
}

/// A refused AssumeRole reaches us as a failure to send, STS's answer several sources down.
pub(super) fn assume_role_refusal<E, R>(error: &SdkError<E, R>) -> Option<Refusal>
where
    E: StdError + 'static,
    R: fmt::Debug,
{
    use aws_sdk_sts::operation::assume_role::AssumeRoleError;
    let SdkError::DispatchFailure(failure) = error else {
        return None;
    };
    let mut source: Option<&(dyn StdError + 'static)> =
        failure.as_connector_error().map(|error| error as _);
    while let Some(error) = source {
        if let Some(SdkError::ServiceError(answer)) =
            error.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>()
        {
            return Some(Refusal {
                status: answer.raw().status().as_u16(),
                code: answer.err().code().unwrap_or_default().to_owned(),
                text: answer.err().message().unwrap_or_default().to_owned(),
            });
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/vsu".into(),
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
        }
    }

    fn write<'a>(identity: &'a Identity, api: &'static str) -> Call<'a> {
        Call {
            identity,
            api,
            writes: true,
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let identity = identity();
        let call = write(&identity, "cloudwatch:PutMetricAlarm");
        for (status, code, text, class) in [
            (400, "Throttling", "Rate exceeded", Class::Throttled),
            (429, "", "", Class::Throttled),
            (403, "AccessDenied", "no", Class::Denied),
            (400, "AccessDeniedException", "no", Class::Denied),
            (403, "ExpiredToken", "", Class::Denied),
            (403, "", "", Class::Denied),
            (400, "ValidationError", "Period is bad", Class::Rejected),
            (
                400,
                "ValidationError",
                "A separate request to update this alarm is in progress",
                Class::Unavailable,
            ),
            (400, "LimitExceeded", "quota", Class::Rejected),
            (400, "LimitExceededException", "quota", Class::Rejected),
            (429, "LimitExceededException", "quota", Class::Rejected),
            (
                409,
                "ConcurrentModificationException",
                "",
                Class::Unavailable,
            ),
            (
                400,
                "ConcurrentModificationException",
                "",
                Class::Unavailable,
            ),
            (
                429,
                "ConcurrentModificationException",
                "",
                Class::Unavailable,
            ),
            (400, "ManagedRuleException", "", Class::Rejected),
            (400, "InvalidEventPatternException", "", Class::Rejected),
            (500, "InternalServiceFault", "", Class::Unavailable),
            (503, "", "", Class::Unavailable),
        ] {
            assert_eq!(
                answered(&call, status, code, text).class,
                class,
                "{status} {code} {text}"
            );
        }
        let denied = answered(&call, 403, "AccessDenied", "not authorized");
        assert!(denied.message.contains(
            "Allow cloudwatch:PutMetricAlarm to arn:aws:iam::222233334444:role/campanile"
        ));
    }

    /// It is no fault of the request, so it is neither remembered as one nor told as one.
    #[test]
    fn a_role_that_does_not_trust_the_service_is_to_be_mended() {
        let identity = identity();
        let role = "arn:aws:iam::222233334444:role/campanile-events";
        let text = format!(
            "Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'."
        );
        for api in ["events:PutRule", "events:PutTargets"] {
            let call = write(&identity, api);
            for error in [
                answered(&call, 400, "ValidationException", &text),
                failed_entry(&call, "ValidationException", &text),
            ] {
                assert_eq!(error.class, Class::Denied);
                assert_eq!(
                    error.message,
                    format!(
                        "{api} in account 222233334444, us-east-2 was denied: ValidationException: Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'. Let that role's trust policy allow sts:AssumeRole to that principal; AWS takes a while to see it"
                    )
                );
            }
        }
        let call = write(&identity, "events:PutTargets");
        let other = answered(&call, 400, "ValidationException", "Arn is not valid");
        assert_eq!(other.class, Class::Rejected);
        // What passes by itself is told as that, whatever the text.
        let throttled = answered(&call, 400, "ThrottlingException", &text);
        assert_eq!(throttled.class, Class::Throttled);
        let fails = answered(&call, 500, "InternalException", &text);
        assert_eq!(fails.class, Class::Unavailable);
    }

    #[test]
    fn an_entry_that_failed_is_told_with_its_code() {
        let identity = identity();
        let call = write(&identity, "events:PutTargets");
        for (code, class) in [
            ("ConcurrentModificationException", Class::Unavailable),
            ("InternalException", Class::Unavailable),
            ("ThrottlingException", Class::Throttled),
            ("AccessDeniedException", Class::Denied),
            ("LimitExceededException", Class::Rejected),
            ("ResourceNotFoundException", Class::Rejected),
            ("", Class::Rejected),
        ] {
            let error = failed_entry(&call, code, "so it is");
            assert_eq!(error.class, class, "{code}");
            assert!(error.message.contains(code) && error.message.contains("so it is"));
        }
    }

    /// What STS answers while credentials are fetched arrives as a failure to send.
    #[test]
    fn a_refused_role_is_told_from_an_sts_that_fails() {
        use aws_sdk_sts::{
            error::ErrorMetadata,
            operation::{
                assume_role::AssumeRoleError, get_caller_identity::GetCallerIdentityError,
            },
        };
        use aws_smithy_runtime_api::{client::result::ConnectorError, http::StatusCode};
        use aws_smithy_types::body::SdkBody;
        let identity = identity();
        for (status, code, class, text) in [
            (
                403,
                "AccessDenied",
                Class::Denied,
                "sts:ExternalId = eu/vsu",
            ),
            (400, "ValidationError", Class::Denied, "cannot assume"),
            (400, "Throttling", Class::Throttled, "sts:AssumeRole"),
            (
                503,
                "ServiceUnavailable",
                Class::Unavailable,
                "sts:AssumeRole",
            ),
            (500, "", Class::Unavailable, "500"),
        ] {
            let metadata = ErrorMetadata::builder()
                .code(code)
                .message("so it is")
                .build();
            let status = StatusCode::try_from(status).unwrap();
            let answer = SdkError::service_error(
                AssumeRoleError::generic(metadata),
                HttpResponse::new(status, SdkBody::empty()),
            );
            let error: SdkError<GetCallerIdentityError, HttpResponse> =
                SdkError::dispatch_failure(ConnectorError::other(Box::new(answer), None));
            let error = classify(&write(&identity, "sns:Subscribe"), &error);
            assert_eq!(error.class, class, "{code}");
            assert!(error.message.contains(text), "{error}");
        }
    }
}
