//! What AWS's errors mean, and what to do about them.

use super::{Identity, complete::Incomplete};
use crate::{
    clients::http::{chain, content_type},
    engine::error::{Class, Error},
};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::ServiceError};
use std::{error::Error as StdError, fmt};

/// What AWS says, as an error of validation, of a role that a call hands over and that does not trust the
/// service: its trust policy is wrong, or has not spread yet.
pub const DISTRUSTS: &str = "cannot be assumed by principal";

/// What to do where nobody let us in, or nothing can be made of what came: not in AWS, but on the way there.
const ON_THE_WAY: &str = "It is tried again by itself; if that lasts, see the operator's credentials, and what is on the way to AWS: the network, a proxy, AWS_ENDPOINT_URL";

/// The same of a write.
const LOOKED_UP: &str = "Whether it was done is looked up before anything else is";

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

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            account_id, region, ..
        } = self.identity;
        write!(f, "{} in account {account_id}, {region}", self.api)
    }
}

impl Call<'_> {
    /// An answer that says less than it must, or something else: nothing is known by it. `what` says what came.
    pub fn unreadable(&self, what: &str) -> Error {
        self.without_answer(what, true)
    }

    /// No answer, or none that can be read; `sent`: what was asked for may have been done.
    fn without_answer(&self, what: &str, sent: bool) -> Error {
        let (class, remedy) = match self.writes && sent {
            true => (Class::OutcomeUnknown, LOOKED_UP),
            false => (Class::Unavailable, ON_THE_WAY),
        };
        Error::new(class, format!("{self}: {what}. {remedy}"))
    }
}

/// What an SDK error means, and what to do about it.
pub fn classify<E>(call: &Call<'_>, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    if let SdkError::ServiceError(refusal) = error {
        return answered(call, &Refusal::of(refusal));
    }
    if let Some(refusal) = assume_role_refusal(error) {
        let assume = Call {
            api: "sts:AssumeRole",
            writes: false,
            ..*call
        };
        let answer = answered(&assume, &refusal);
        let Identity {
            role_arn,
            external_id,
            ..
        } = call.identity;
        // Whatever else STS refuses about a role, the role is what needs mending.
        return match answer.class {
            Class::Throttled | Class::Unavailable => answer,
            _ => Error::new(
                Class::Denied,
                format!(
                    "cannot assume {role_arn}: {}. Let the role trust the operator's identity for sts:AssumeRole and sts:TagSession with the condition sts:ExternalId = {external_id}",
                    refusal.said()
                ),
            ),
        };
    }
    let why = chain(error);
    match error {
        SdkError::ResponseError(response) => {
            let why = error.source().map_or(why, incomplete);
            let came = came(response.raw());
            call.unreadable(&format!("{came}, and that is not whole: {why}"))
        }
        // The request was never sent.
        SdkError::ConstructionFailure(_) => call.without_answer(&why, false),
        SdkError::DispatchFailure(failure) => call.without_answer(&why, !failure.is_user()),
        _ => call.without_answer(&why, true),
    }
}

/// Why an answer does not count as one, without what the SDK says around it.
fn incomplete(error: &(dyn StdError + 'static)) -> String {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<Incomplete>() {
            return found.to_string();
        }
        source = error.source();
    }
    chain(error)
}

/// What it means that an answer which was otherwise good names one thing that could not be done: code and
/// text as AWS gave them.
pub fn failed_entry(call: &Call<'_>, code: &str, text: &str) -> Error {
    let status = match code {
        // EventBridge's own fault has no status of its own here.
        "InternalException" | "InternalFailure" => 500,
        _ => 400,
    };
    let refusal = Refusal {
        came: "an entry failed without a reason".into(),
        ..Refusal::new(status, code, text)
    };
    refused(call, &refusal)
}

/// What an answer means that is no success. One without a code is none of AWS's own.
fn answered(call: &Call<'_>, refusal: &Refusal) -> Error {
    let Refusal {
        status, code, came, ..
    } = refusal;
    match status {
        _ if !code.is_empty() => refused(call, refusal),
        // Whoever says so wants to be left alone.
        429 => throttled(call, refusal),
        200..300 => call.unreadable(&format!("{came}, which cannot be read as an answer to it")),
        // Refused by whatever stands there, so nothing was done; a failure may have come too late for that.
        300..500 => call.without_answer(&format!("{came}, which is no answer of AWS's"), false),
        _ => Error::failing(format!("{call}: {came}. {ON_THE_WAY}")),
    }
}

fn throttled(call: &Call<'_>, refusal: &Refusal) -> Error {
    let said = refusal.said();
    let message = format!(
        "throttled: {call}: {said}. It is asked again by itself; if that lasts, have the quota raised, or ask less with --aws-rate"
    );
    Error::new(Class::Throttled, message)
}

/// What a refusal of AWS's own means.
fn refused(call: &Call<'_>, refusal: &Refusal) -> Error {
    let Call { identity, api, .. } = *call;
    let Refusal {
        status, code, text, ..
    } = refusal;
    let (status, said) = (*status, refusal.said());
    // Two writers on one thing: AWS says it of an alarm as an error of validation, and elsewhere with 400 or
    // 429, but it passes.
    let busy = code.contains("ConcurrentModification")
        || code.contains("ConcurrentAccess")
        || text.contains("is in progress");
    let throttles = code.contains("Throttl")
        || matches!(
            code.as_str(),
            "RequestLimitExceeded" | "TooManyRequestsException"
        );
    // Of things, not of requests: it is no matter of waiting.
    let quota = code.contains("LimitExceeded") && !throttles;
    // Credentials that are not those of the role any more, whatever it may do.
    let expired = code.contains("ExpiredToken")
        || matches!(
            code.as_str(),
            "InvalidClientTokenId"
                | "UnrecognizedClientException"
                | "SignatureDoesNotMatch"
                | "InvalidSignatureException"
                | "IncompleteSignature"
                | "IncompleteSignatureException"
                | "MissingAuthenticationToken"
                | "MissingAuthenticationTokenException"
                | "RequestExpired"
        );
    let denied = code.contains("AccessDenied")
        || code.contains("AuthorizationError")
        || code.contains("NotAuthorized");
    // Nothing is wrong with what was asked for, and it heals without an edit of it.
    let distrusts = status < 500 && text.contains(DISTRUSTS);
    if throttles || status == 429 && !busy && !quota {
        return throttled(call, refusal);
    }
    let role = &identity.role_arn;
    let (class, what, remedy) = if distrusts {
        let remedy = "Let that role's trust policy allow sts:AssumeRole to that principal; AWS takes a while to see it".to_owned();
        (Class::Denied, format!("{call} was denied"), remedy)
    } else if expired {
        let remedy = format!(
            "The credentials of {role} are fetched anew; if that does not help, see that the operator's own are valid, and that its clock is right"
        );
        (Class::Denied, format!("{call} was denied"), remedy)
    } else if denied {
        let remedy = format!("Allow {api} to {role}");
        (Class::Denied, format!("{call} was denied"), remedy)
    } else if busy {
        let remedy = "Somebody else changes the same thing; it is tried again by itself".to_owned();
        (Class::Unavailable, call.to_string(), remedy)
    } else if status >= 500 {
        let remedy = "AWS fails; it is tried again by itself".to_owned();
        (Class::Unavailable, call.to_string(), remedy)
    } else if quota {
        let remedy = format!(
            "A quota of account {} in {} is used up: have it raised, or remove something there",
            identity.account_id, identity.region
        );
        (Class::Rejected, format!("AWS refused {call}"), remedy)
    } else {
        let remedy = "Correct what it names; the same is asked again after an hour".to_owned();
        (Class::Rejected, format!("AWS refused {call}"), remedy)
    };
    Error::new(class, format!("{what}: {said}. {remedy}"))
}

/// What AWS, or whoever stands in its place, answered.
pub(super) struct Refusal {
    pub(super) status: u16,
    /// AWS's own word for it; empty where the answer has none.
    pub(super) code: String,
    text: String,
    /// What came, for people, where there is no code.
    came: String,
}

impl Refusal {
    fn new(status: u16, code: &str, text: &str) -> Self {
        Self {
            status,
            code: code.to_owned(),
            text: text.to_owned(),
            came: format!("HTTP {status}"),
        }
    }

    fn of<E: ProvideErrorMetadata>(answer: &ServiceError<E, HttpResponse>) -> Self {
        let (raw, error) = (answer.raw(), answer.err());
        let code = error.code().unwrap_or_default();
        let text = error.message().unwrap_or_default();
        Self {
            came: came(raw),
            ..Self::new(raw.status().as_u16(), code, text)
        }
    }

    /// Code and text, or what came instead; never nothing.
    fn said(&self) -> String {
        let text = self.text.trim().trim_end_matches('.');
        match (self.code.as_str(), text) {
            ("", "") => self.came.clone(),
            (code, "") => code.to_owned(),
            ("", text) => text.to_owned(),
            (code, text) => format!("{code}: {text}"),
        }
    }
}

/// What came, for people: `HTTP 200 with application/cbor`.
fn came(response: &HttpResponse) -> String {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").unwrap_or_default();
    let body = response.body().bytes().unwrap_or_default();
    format!("HTTP {status} with {}", content_type(kind, body))
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
            return Some(Refusal::of(answer));
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
pub(in crate::clients) mod tests {
    use super::*;
    use crate::clients::messages::Told;
    use aws_sdk_sts::{
        error::ErrorMetadata,
        operation::{assume_role::AssumeRoleError, get_caller_identity::GetCallerIdentityError},
    };
    use aws_smithy_runtime_api::{client::result::ConnectorError, http::StatusCode};
    use aws_smithy_types::body::SdkBody;

    /// What every answer to some calls leads to.
    pub fn all() -> Vec<Told> {
        let identity = identity();
        let (account, role) = (&*identity.account_id, &*identity.role_arn);
        let again = "again by itself";
        let mut told = Vec::new();
        for (api, writes) in [
            ("cloudwatch:DescribeAlarms", false),
            ("cloudwatch:PutMetricAlarm", true),
            ("sns:Subscribe", true),
            ("events:ListRules", false),
            ("sts:GetCallerIdentity", false),
        ] {
            let call = Call {
                identity: &identity,
                api,
                writes,
            };
            let allow = format!("Allow {api} to {role}");
            for (status, code, remedy) in [
                (400, "Throttling", again),
                (400, "AccessDenied", &allow),
                (403, "AuthorizationError", &allow),
                (403, "ExpiredToken", "fetched anew"),
                (403, "SignatureDoesNotMatch", "clock"),
                (409, "ConcurrentModificationException", again),
                (400, "LimitExceeded", "have it raised"),
                (400, "ValidationError", "Correct what it names"),
                (404, "ResourceNotFoundException", "Correct what it names"),
                (500, "InternalFailure", again),
            ] {
                for text in ["", "so it is.", " \n"] {
                    let error = answer(&call, status, code, text);
                    told.push(Told::new(&[api, account, code, remedy], error));
                    let error = failed_entry(&call, code, text);
                    told.push(Told::new(&[api, account, code, remedy], error));
                }
            }
            let nothing = failed_entry(&call, "", "");
            told.push(Told::new(
                &[api, account, "without a reason", "Correct"],
                nothing,
            ));
            for status in [200, 302, 400, 403, 404, 429, 500, 503] {
                let error = answer(&call, status, "", "");
                let code = format!("HTTP {status} with text/html");
                let remedy = if writes && status == 200 {
                    "looked up"
                } else {
                    again
                };
                told.push(Told::new(&[api, account, &code, remedy], error));
            }
            let cut = || std::io::Error::other("cut");
            type Failure = SdkError<GetCallerIdentityError, HttpResponse>;
            let response = || response(200, "text/xml", "<x>");
            let remedy = if writes { "looked up" } else { again };
            for (failure, remedy) in [
                (Failure::construction_failure(cut()), again),
                (Failure::timeout_error(cut()), remedy),
                (Failure::response_error(cut(), response()), remedy),
                (
                    Failure::dispatch_failure(ConnectorError::io(Box::new(cut()))),
                    remedy,
                ),
            ] {
                let error = classify(&call, &failure);
                told.push(Told::new(&[api, account, "cut", remedy], error));
            }
            for (status, code, remedy) in [
                (403, "AccessDenied", "Let the role trust"),
                (400, "Throttling", again),
                (500, "InternalFailure", again),
                (200, "", again),
            ] {
                let error = classify(&call, &unassumed(status, code, ""));
                let came = if code.is_empty() { "HTTP 200" } else { code };
                told.push(Told::new(&["sts:AssumeRole", account, came, remedy], error));
            }
        }
        told
    }

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

    /// What AWS, or whoever stands in its place, answers.
    fn answer(call: &Call<'_>, status: u16, code: &str, text: &str) -> Error {
        let metadata = ErrorMetadata::builder().message(text);
        let metadata = match code {
            "" => metadata,
            code => metadata.code(code),
        };
        let metadata = metadata.build();
        let error: SdkError<_, HttpResponse> = SdkError::service_error(
            GetCallerIdentityError::generic(metadata),
            response(status, "text/html; charset=utf-8", "<html>canary"),
        );
        classify(call, &error)
    }

    /// A call for which STS does not let us assume the role.
    fn unassumed(
        status: u16,
        code: &str,
        text: &str,
    ) -> SdkError<GetCallerIdentityError, HttpResponse> {
        let metadata = ErrorMetadata::builder().message(text);
        let metadata = match code {
            "" => metadata,
            code => metadata.code(code),
        };
        let answer = SdkError::service_error(
            AssumeRoleError::generic(metadata.build()),
            response(status, "text/html", "<html>canary"),
        );
        SdkError::dispatch_failure(ConnectorError::other(Box::new(answer), None))
    }

    fn response(status: u16, kind: &'static str, body: &'static str) -> HttpResponse {
        let status = StatusCode::try_from(status).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        response.headers_mut().insert("content-type", kind);
        response
    }

    #[test]
    fn refusals_are_told_apart() {
        let identity = identity();
        let call = write(&identity, "cloudwatch:PutMetricAlarm");
        for (status, code, text, class) in [
            (400, "Throttling", "Rate exceeded", Class::Throttled),
            (400, "RequestLimitExceeded", "", Class::Throttled),
            (429, "", "", Class::Throttled),
            (403, "AccessDenied", "no", Class::Denied),
            (400, "AccessDeniedException", "no", Class::Denied),
            (403, "ExpiredToken", "", Class::Denied),
            (403, "InvalidClientTokenId", "", Class::Denied),
            (403, "", "", Class::Unavailable),
            (404, "", "", Class::Unavailable),
            (302, "", "", Class::Unavailable),
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
            (403, "TopicLimitExceeded", "quota", Class::Rejected),
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
            (200, "", "", Class::OutcomeUnknown),
        ] {
            assert_eq!(
                answer(&call, status, code, text).class,
                class,
                "{status} {code} {text}"
            );
        }
        let denied = answer(&call, 403, "AccessDenied", "not authorized");
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
                answer(&call, 400, "ValidationException", &text),
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
        let other = answer(&call, 400, "ValidationException", "Arn is not valid");
        assert_eq!(other.class, Class::Rejected);
        // What passes by itself is told as that, whatever the text.
        let throttled = answer(&call, 400, "ThrottlingException", &text);
        assert_eq!(throttled.class, Class::Throttled);
        let fails = answer(&call, 500, "InternalException", &text);
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
            (200, "", Class::Unavailable, "HTTP 200 with text/html"),
            (403, "", Class::Unavailable, "HTTP 403 with text/html"),
        ] {
            let error = unassumed(status, code, "so it is");
            let error = classify(&write(&identity, "sns:Subscribe"), &error);
            assert_eq!(error.class, class, "{code}");
            assert!(error.message.contains(text), "{error}");
        }
    }

    /// It is no refusal, whatever its status says, and nothing of it is quoted.
    #[test]
    fn an_answer_that_cannot_be_read_is_told_as_what_came() {
        let identity = identity();
        let write = write(&identity, "events:CreateConnection");
        let read = Call {
            writes: false,
            api: "events:ListConnections",
            ..write
        };
        for (status, what) in [
            (
                200,
                "HTTP 200 with text/html, which cannot be read as an answer to it",
            ),
            (403, "HTTP 403 with text/html, which is no answer of AWS's"),
            (503, "HTTP 503 with text/html"),
        ] {
            let error = answer(&read, status, "", "");
            let says = format!(
                "events:ListConnections in account 222233334444, us-east-2: {what}. {ON_THE_WAY}"
            );
            assert_eq!(error, Error::failing(says));
            let class = match status {
                200 => Class::OutcomeUnknown,
                _ => Class::Unavailable,
            };
            assert_eq!(answer(&write, status, "", "").class, class, "{status}");
        }
        for (kind, body, what) in [
            ("application/cbor", "", "an empty body"),
            ("application/cbor", "x", "application/cbor"),
            ("<script>", "x", "a body of an unknown type"),
            ("", "x", "a body of an unknown type"),
        ] {
            let cut = std::io::Error::other("the connection was closed");
            let error: SdkError<GetCallerIdentityError, HttpResponse> =
                SdkError::response_error(cut, response(200, kind, body));
            let error = classify(&read, &error);
            let says =
                format!("HTTP 200 with {what}, and that is not whole: the connection was closed. ");
            assert!(error.message.contains(&says), "{error}");
            assert_eq!(error.class, Class::Unavailable);
        }
        let empty: SdkError<GetCallerIdentityError, HttpResponse> =
            SdkError::response_error(Incomplete::Empty, response(200, "text/xml", ""));
        let error = classify(&write, &empty);
        assert_eq!(error.class, Class::OutcomeUnknown);
        assert!(
            error
                .message
                .contains("not whole: there is nothing in it. "),
            "{error}"
        );
    }
}
