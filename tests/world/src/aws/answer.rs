//! Answers that the proxy gives by itself, in the words of each protocol.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::cbor;
use super::request::Protocol;

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const QUERY_ERROR: HeaderName = HeaderName::from_static("x-amzn-query-error");

/// The content type of awsJson1.1.
pub(super) const JSON: &str = "application/x-amz-json-1.1";

/// A refusal, whatever the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// How AWS says that the permission is missing.
    pub(super) fn denied(
        protocol: Protocol,
        caller: &str,
        service: &str,
        operation: &str,
        resource: &str,
    ) -> Self {
        // SNS alone spells its service in capitals and has a code of its own.
        let action = if service == "sns" {
            format!("SNS:{operation}")
        } else {
            format!("{service}:{operation}")
        };
        let on = if resource.is_empty() {
            String::new()
        } else {
            format!(" on resource: {resource}")
        };
        let message = format!(
            "User: {caller} is not authorized to perform: {action}{on} because no identity-based policy allows the {action} action"
        );
        match protocol {
            Protocol::Json => Self::new(400, "AccessDeniedException", message),
            _ if service == "sns" => Self::new(403, "AuthorizationError", message),
            _ => Self::new(403, "AccessDenied", message),
        }
    }

    pub(super) fn throttled(protocol: Protocol) -> Self {
        let code = if protocol == Protocol::Json {
            "ThrottlingException"
        } else {
            "Throttling"
        };
        Self::new(400, code, "Rate exceeded")
    }

    pub(super) fn internal() -> Self {
        Self::new(
            500,
            "InternalFailure",
            "The request processing has failed because of an unknown error, exception or failure.",
        )
    }

    pub(super) fn answer(&self, protocol: Protocol, service: &str) -> Answer {
        let Self {
            status,
            code,
            message,
        } = self;
        let at_fault = if *status < 500 { "Sender" } else { "Receiver" };
        match protocol {
            Protocol::Cbor => {
                let mut answer = reply(*status, "application/cbor", cbor::error(code, message));
                answer
                    .headers_mut()
                    .insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
                if let Ok(value) = HeaderValue::try_from(format!("{code};{at_fault}")) {
                    answer.headers_mut().insert(QUERY_ERROR, value);
                }
                answer
            }
            Protocol::Json => {
                let body = serde_json::json!({"__type": code, "message": message}).to_string();
                let mut answer = reply(*status, JSON, body);
                if let Ok(value) = HeaderValue::try_from(code) {
                    answer.headers_mut().insert("x-amzn-errortype", value);
                }
                answer
            }
            Protocol::Query | Protocol::Rest => {
                let (code, message) = (escape(code), escape(message));
                let namespace = match service {
                    "sns" => "http://sns.amazonaws.com/doc/2010-03-31/",
                    "sts" => "https://sts.amazonaws.com/doc/2011-06-15/",
                    _ => "http://ec2.amazonaws.com/doc/2016-11-15/",
                };
                let error = format!(
                    "<Error><Type>{at_fault}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
                );
                let body = format!(
                    "<ErrorResponse xmlns=\"{namespace}\">{error}<RequestId>{}</RequestId></ErrorResponse>",
                    request_id()
                );
                reply(*status, "text/xml", body)
            }
        }
    }
}

pub(super) fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub(super) fn request_id() -> String {
    let id = format!("{:032x}", fastrand::u128(..));
    format!(
        "{}-{}-{}-{}-{}",
        &id[..8],
        &id[8..12],
        &id[12..16],
        &id[16..20],
        &id[20..]
    )
}
