//! What a request is, read off its path, headers and body.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use hyper::http::request::Parts;

use super::calls::By;
use super::{OWN_APP, cbor};

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// smithy rpc-v2-CBOR: CloudWatch.
    Cbor,
    /// A form, answered in XML: SNS, STS.
    Query,
    /// `X-Amz-Target` and JSON: EventBridge, Logs.
    Json,
    /// Method and path say it all.
    Rest,
}

/// Who signed it, and for where. The signature itself is not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) access_key_id: String,
    pub(super) date: String,
    pub(super) region: String,
    pub(super) service: String,
}

impl Credential {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let scope = header
            .split_once("Credential=")?
            .1
            .split([',', ' '])
            .next()?;
        let mut parts = scope.split('/').map(str::to_owned);
        Some(Self {
            access_key_id: parts.next()?,
            date: parts.next()?,
            region: parts.next()?,
            service: parts.next()?,
        })
    }

    /// The header that makes the emulator act in `account`.
    pub(super) fn header(&self, account: &str) -> String {
        let Self {
            date,
            region,
            service,
            ..
        } = self;
        format!(
            "AWS4-HMAC-SHA256 Credential={account}/{date}/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        )
    }
}

pub(super) struct Request {
    pub(super) protocol: Protocol,
    pub(super) by: By,
    pub(super) credential: Option<Credential>,
    pub(super) token: Option<String>,
    /// As IAM spells it.
    pub(super) service: String,
    pub(super) operation: String,
    /// The parameters of a query or link.
    pub(super) form: BTreeMap<String, String>,
    /// The body of a CBOR request.
    pub(super) cbor: Option<serde_json::Value>,
    /// The body of a JSON request.
    pub(super) json: Option<serde_json::Value>,
    /// Whether it asks for more of a listing that began with another request.
    pub(super) later_page: bool,
}

impl Request {
    pub(super) fn read(parts: &Parts, body: &Bytes) -> Self {
        let header = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let credential = Credential::read(&parts.headers);
        let scope = credential
            .as_ref()
            .map_or("", |credential| credential.service.as_str());
        let path = parts.uri.path();
        let mut form = BTreeMap::new();
        let mut read_form = |text: &[u8]| form.extend(form_urlencoded::parse(text).into_owned());
        read_form(parts.uri.query().unwrap_or_default().as_bytes());
        if header(CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
        {
            read_form(body);
        }
        let (protocol, service, operation) = if let Some((service, operation)) = rpc(path) {
            (Protocol::Cbor, service, operation.to_owned())
        } else if let Some((target, operation)) =
            header("x-amz-target").and_then(|target| target.rsplit_once('.'))
        {
            (Protocol::Json, target, operation.to_owned())
        } else if let Some(action) = form.get("Action") {
            let service = if scope.is_empty() { "sns" } else { scope };
            (Protocol::Query, service, action.clone())
        } else {
            (Protocol::Rest, scope, format!("{} {path}", parts.method))
        };
        let by = match &credential {
            None => By::Link,
            Some(_)
                if is_own(header(USER_AGENT.as_str())) || is_own(header("x-amz-user-agent")) =>
            {
                By::World
            }
            Some(_) => By::Client,
        };
        let cbor = (protocol == Protocol::Cbor)
            .then(|| cbor::read(body))
            .flatten();
        let json = (protocol == Protocol::Json)
            .then(|| serde_json::from_slice(body).ok())
            .flatten();
        let later_page = match protocol {
            Protocol::Cbor => cbor.as_ref().is_some_and(has_token),
            Protocol::Json => json.as_ref().is_some_and(has_token),
            Protocol::Query | Protocol::Rest => {
                form.get("NextToken").is_some_and(|token| !token.is_empty())
            }
        };
        Self {
            protocol,
            by,
            service: iam_name(service).to_owned(),
            operation,
            token: header("x-amz-security-token").map(str::to_owned),
            cbor,
            json,
            later_page,
            form,
            credential,
        }
    }

    /// A link in a message carries no signature: where it leads, the ARN in it says.
    pub(super) fn link_target(&self) -> Option<(String, Credential)> {
        if self.credential.is_some()
            || !matches!(
                self.operation.as_str(),
                "ConfirmSubscription" | "Unsubscribe"
            )
        {
            return None;
        }
        let arn = self
            .form
            .get("TopicArn")
            .or_else(|| self.form.get("SubscriptionArn"))?;
        let parts: Vec<&str> = arn.split(':').collect();
        let [_, _, "sns", region, account, _, ..] = parts[..] else {
            return None;
        };
        let credential = Credential {
            region: region.to_owned(),
            service: "sns".to_owned(),
            date: "20000101".to_owned(),
            ..Credential::default()
        };
        Some((account.to_owned(), credential))
    }

    /// The roles that it hands to the service, for which IAM asks for `iam:PassRole` as well.
    pub(super) fn passed_roles(&self) -> Vec<&str> {
        let Some(body) = self.json.as_ref().filter(|_| self.service == "events") else {
            return Vec::new();
        };
        let targets = body.get("Targets").and_then(serde_json::Value::as_array);
        let targets = targets.into_iter().flatten();
        std::iter::once(body)
            .chain(targets)
            .filter_map(|holder| holder.get("RoleArn")?.as_str())
            .collect()
    }

    /// What EventBridge's are about.
    fn event_resource(&self, account: &str, region: &str) -> String {
        let text = |key: &str| self.json.as_ref()?.get(key)?.as_str();
        let kind = if self.operation.ends_with("Connection") {
            "connection"
        } else if self.operation.ends_with("ApiDestination") {
            "api-destination"
        } else {
            "rule"
        };
        match text("ResourceARN") {
            Some(arn) => arn.to_owned(),
            None => text("Rule")
                .or_else(|| text("Name"))
                .map_or_else(String::new, |name| {
                    format!("arn:aws:events:{region}:{account}:{kind}/{name}")
                }),
        }
    }

    /// What it is about, as far as that is one thing.
    pub(super) fn resource(&self, account: &str, region: &str) -> String {
        if self.service == "events" {
            return self.event_resource(account, region);
        }
        const IN_FORMS: [&str; 6] = [
            "TopicArn",
            "SubscriptionArn",
            "ResourceArn",
            "TargetArn",
            "RoleArn",
            "Name",
        ];
        let text = |key: &str| {
            self.cbor
                .as_ref()
                .and_then(|body| body.get(key))
                .and_then(serde_json::Value::as_str)
        };
        if let Some(name) = text("AlarmName") {
            return format!("arn:aws:cloudwatch:{region}:{account}:alarm:{name}");
        }
        if let Some(name) = text("ResourceARN").or_else(|| text("DashboardName")) {
            return name.to_owned();
        }
        match IN_FORMS
            .iter()
            .find_map(|key| Some((*key, self.form.get(*key)?)))
        {
            Some(("Name", name)) if self.service == "sns" => {
                format!("arn:aws:sns:{region}:{account}:{name}")
            }
            Some((_, value)) => value.clone(),
            None => String::new(),
        }
    }
}

/// CloudWatch and EventBridge write it large, Logs small.
fn has_token(body: &serde_json::Value) -> bool {
    ["NextToken", "nextToken"]
        .iter()
        .any(|key| body.get(key).is_some_and(serde_json::Value::is_string))
}

fn rpc(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/service/")?.split_once("/operation/")
}

/// The world's clients carry their name as `app/…` in the user agent.
fn is_own(user_agent: Option<&str>) -> bool {
    user_agent.is_some_and(|agent| {
        agent
            .split(' ')
            .any(|part| part.strip_prefix("app/") == Some(OWN_APP))
    })
}

/// The name in IAM policies of what signatures, targets and paths call otherwise.
fn iam_name(service: &str) -> &str {
    match service {
        "GraniteServiceVersion20100801" | "monitoring" => "cloudwatch",
        "AWSEvents" => "events",
        "Logs_20140328" => "logs",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_of_eventbridge_is_about_and_whom_it_passes_is_read() {
        let read = |operation: &str, body: &'static str| {
            let request = hyper::Request::post("/")
                .header("x-amz-target", format!("AWSEvents.{operation}"))
                .header(
                    AUTHORIZATION,
                    "AWS4-HMAC-SHA256 Credential=1/20000101/r/events/aws4_request, Signature=0",
                );
            let (parts, ()) = request.body(()).unwrap().into_parts();
            Request::read(&parts, &Bytes::from_static(body.as_bytes()))
        };
        let arn = |name: &str| format!("arn:aws:events:r:1:{name}");
        let cases = [
            (
                "PutRule",
                "{\"Name\":\"a\",\"RoleArn\":\"x\"}",
                arn("rule/a"),
                vec!["x"],
            ),
            (
                "PutTargets",
                "{\"Rule\":\"a\",\"Targets\":[{\"Id\":\"1\"},{\"RoleArn\":\"y\"}]}",
                arn("rule/a"),
                vec!["y"],
            ),
            (
                "UpdateConnection",
                "{\"Name\":\"a\"}",
                arn("connection/a"),
                vec![],
            ),
            (
                "CreateApiDestination",
                "{\"Name\":\"a\"}",
                arn("api-destination/a"),
                vec![],
            ),
            (
                "TagResource",
                "{\"ResourceARN\":\"arn\"}",
                "arn".to_owned(),
                vec![],
            ),
            ("ListRules", "{\"NextToken\":\"a\"}", String::new(), vec![]),
            ("ListRules", "no JSON", String::new(), vec![]),
        ];
        for (operation, body, resource, roles) in cases {
            let request = read(operation, body);
            assert_eq!(
                (request.service.as_str(), request.operation.as_str()),
                ("events", operation)
            );
            assert_eq!(request.resource("1", "r"), resource, "{operation}");
            assert_eq!(request.passed_roles(), roles, "{operation}");
            assert_eq!(request.later_page, body.contains("NextToken"), "{body}");
        }
    }
}
