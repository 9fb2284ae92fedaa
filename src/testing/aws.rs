//! The tenants' AWS accounts: what CloudWatch, SNS, EventBridge and STS answer to the calls that we make,
//! below the SDK and above the network.
//!
//! A thing is what made it says, as JSON in AWS's own words, by its ARN.

use super::{Broken, Call, Calls, pairs};
use crate::{
    clients::aws::{Accounts, timeouts},
    engine::limits::Limiter,
};
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_sts::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeMap, io, sync::Arc};

/// How many things a page of a list holds.
const PAGE: usize = 100;

/// What ids begin with that the outside makes up; a number follows.
pub const MADE: &str = "made-";

#[derive(Clone, Default)]
struct State {
    things: BTreeMap<String, Json>,
    /// How many things were made, so that each has an ARN of its own.
    made: u64,
}

/// All accounts. Clones are the same ones.
#[derive(Clone)]
pub struct Aws {
    state: Arc<Mutex<State>>,
    calls: Calls,
}

/// A refusal: status, code and text.
type Refused = (u16, &'static str, &'static str);

/// How a service talks.
#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Cbor,
    Json,
    Query,
}

impl Protocol {
    fn content_type(self) -> &'static str {
        match self {
            Self::Cbor => "application/cbor",
            Self::Json => "application/x-amz-json-1.1",
            Self::Query => "text/xml",
        }
    }
}

/// A request, as it is meant.
struct Asked {
    protocol: Protocol,
    /// As IAM calls it: `cloudwatch:PutMetricAlarm`.
    operation: String,
    account: String,
    region: String,
    input: Json,
}

impl Aws {
    /// Without anything in it.
    pub fn new(calls: &Calls) -> Self {
        Self {
            state: Arc::default(),
            calls: calls.clone(),
        }
    }

    /// Others with all that is there now.
    pub fn copy(&self, calls: &Calls) -> Self {
        let copy = Self::new(calls);
        copy.state().clone_from(&self.state());
        copy
    }

    /// Clients of all accounts, which retry nothing by themselves.
    pub fn accounts(&self, limiter: Arc<Limiter>) -> Accounts {
        let connector = SharedHttpConnector::new(Connector(self.clone()));
        let credentials = Credentials::new("000000000000", "secret", None, None, "double");
        let mut config = SdkConfig::builder();
        config.set_time_source(Some(Default::default()));
        let config = config
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("us-east-1"))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .timeout_config(timeouts())
            .retry_config(RetryConfig::disabled())
            .build();
        Accounts::new(config, "eu", limiter, Arc::new(|_| {}))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// All things whose ARN has this in it, by ARN: `:alarm:`, `:sns:`, `:rule/`.
    pub fn things(&self, part: &str) -> BTreeMap<String, Json> {
        let state = self.state();
        let found = state.things.iter().filter(|(arn, _)| arn.contains(part));
        found.map(|(arn, it)| (arn.clone(), it.clone())).collect()
    }

    /// Changes a thing behind our back, or makes one.
    pub fn edit(&self, arn: &str, edit: impl FnOnce(&mut Json)) {
        edit(self.state().things.entry(arn.to_owned()).or_default());
    }

    /// Everybody who has been invited by mail or URL confirms: their ARNs.
    pub fn confirm(&self) -> Vec<String> {
        let mut state = self.state();
        let invited = state.things.iter_mut();
        let invited = invited.filter(|(_, it)| it["SubscriptionArn"] == "PendingConfirmation");
        let invited = invited.map(|(arn, it)| {
            it["SubscriptionArn"] = json!(arn);
            arn.clone()
        });
        invited.collect()
    }

    /// An alarm comes to be in a state: the endpoints of the confirmed subscriptions that are sent a message.
    pub fn transition(&self, alarm: &str, to: &str) -> Vec<String> {
        let mut state = self.state();
        let alarm = state.things.get_mut(alarm).unwrap();
        let from = std::mem::replace(&mut alarm["StateValue"], json!(to));
        let actions = match to {
            "ALARM" => "AlarmActions",
            "OK" => "OKActions",
            _ => "InsufficientDataActions",
        };
        let message =
            json!({"AlarmName": alarm["AlarmName"], "NewStateValue": to, "OldStateValue": from});
        let topics = alarm[actions].as_array().cloned().unwrap_or_default();
        let heard = topics
            .iter()
            .flat_map(|topic| state.under(&format!("{}:", text(topic))));
        let heard = heard.filter(|it| {
            let attributes = &it["Attributes"];
            let policy =
                serde_json::from_str(text(&attributes["FilterPolicy"])).unwrap_or(json!({}));
            let filters = policy != json!({});
            // CloudWatch's messages have no attributes.
            let of_body = attributes["FilterPolicyScope"] == "MessageBody";
            it["SubscriptionArn"] != "PendingConfirmation"
                && (!filters || of_body && matches(&policy, &message))
        });
        heard.map(|it| text(&it["Endpoint"]).to_owned()).collect()
    }

    /// Removes a thing behind our back.
    pub fn remove(&self, arn: &str) {
        self.state().things.remove(arn).unwrap();
    }

    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let asked = Asked::of(&request);
        let of = [
            "AlarmName",
            "AlarmNames",
            "Name",
            "Rule",
            "TopicArn",
            "SubscriptionArn",
            "ResourceARN",
            "RoleArn",
        ];
        let named = of.iter().find_map(|name| asked.input.get(name));
        let (_, verb) = asked.operation.split_once(':').unwrap();
        let reads = ["Get", "List", "Describe", "AssumeRole"];
        let call = Call {
            system: "aws",
            operation: asked.operation.clone(),
            subject: format!("{} {}", asked.account, named.unwrap_or(&Json::Null)),
            writes: !reads.iter().any(|read| verb.starts_with(read)),
        };
        let answer = self.calls.take(call, || self.state().serve(&asked)).await;
        let mut kind = asked.protocol.content_type();
        let (status, body) = match answer {
            Ok(Ok(output)) => (200, asked.output(output)),
            Ok(Err((status, code, text))) => (status, asked.error(code, text)),
            Err(Broken::Refused(status, code)) => (status, asked.error(code, "refused")),
            Err(Broken::Cut) => {
                let cut = io::Error::other("the connection was cut");
                return Err(ConnectorError::io(Box::new(cut)));
            }
            Err(Broken::Answered(status, other, body)) => {
                kind = other;
                (status, body.into())
            }
        };
        let status = StatusCode::try_from(status).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        response.headers_mut().insert("content-type", kind);
        Ok(response)
    }
}

#[derive(Clone)]
struct Connector(Aws);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.0.clone().answer(request))
    }
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let header = |name| request.headers().get(name).unwrap_or_default();
        // Who asks stands in the signature: our access keys are the numbers of their accounts.
        let scope = header("authorization").split_once("Credential=").unwrap().1;
        let scope: Vec<_> = scope.split(['/', ',']).collect();
        let [account, _, region, service, ..] = scope[..] else {
            panic!("not signed: {scope:?}")
        };
        let body = request.body().bytes().unwrap_or_default();
        let (protocol, operation, input) = if header("smithy-protocol") == "rpc-v2-cbor" {
            let operation = request.uri().rsplit('/').next().unwrap();
            let input = ciborium::from_reader(body).unwrap_or_default();
            (Protocol::Cbor, operation.to_owned(), input)
        } else if let Some((_, operation)) = header("x-amz-target").split_once('.') {
            let input = serde_json::from_slice(body).unwrap();
            (Protocol::Json, operation.to_owned(), input)
        } else {
            let mut input = form(std::str::from_utf8(body).unwrap());
            let operation = input["Action"].take();
            (Protocol::Query, text(&operation).to_owned(), input)
        };
        let service = service.replace("monitoring", "cloudwatch");
        Self {
            protocol,
            operation: format!("{service}:{operation}"),
            account: account.to_owned(),
            region: region.to_owned(),
            input,
        }
    }

    fn text(&self, name: &str) -> &str {
        text(&self.input[name])
    }

    fn arn(&self, service: &str, name: &str) -> String {
        let Self {
            region, account, ..
        } = self;
        format!("arn:aws:{service}:{region}:{account}:{name}")
    }

    fn output(&self, output: Json) -> Vec<u8> {
        match self.protocol {
            Protocol::Cbor => cbor(&output),
            Protocol::Json => output.to_string().into(),
            Protocol::Query => {
                let (_, operation) = self.operation.split_once(':').unwrap();
                let result = json!({format!("{operation}Result"): output});
                xml(&json!({format!("{operation}Response"): result})).into()
            }
        }
    }

    fn error(&self, code: &str, text: &str) -> Vec<u8> {
        let error = json!({"__type": code, "message": text});
        match self.protocol {
            Protocol::Cbor => cbor(&error),
            Protocol::Json => error.to_string().into(),
            Protocol::Query => {
                let error = json!({"Type": "Sender", "Code": code, "Message": text});
                xml(&json!({"ErrorResponse": {"Error": error}})).into()
            }
        }
    }
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// A form's flat names as what they stand for: `Tags.member.1.Key`, `Attributes.entry.1.key`.
fn form(body: &str) -> Json {
    fn nested(value: Json) -> Json {
        let Json::Object(fields) = value else {
            return value;
        };
        let mut fields: Map<_, _> = fields.into_iter().map(|(k, v)| (k, nested(v))).collect();
        if let Some(Json::Object(items)) = fields.remove("member") {
            // No list of ours has ten items.
            return items.into_iter().map(|(_, item)| item).collect();
        }
        if let Some(Json::Object(items)) = fields.remove("entry") {
            let pairs = items.into_iter().map(|(_, mut item)| {
                let value = item["value"].take();
                (text(&item["key"]).to_owned(), value)
            });
            return Json::Object(pairs.collect());
        }
        Json::Object(fields)
    }
    let mut all = json!({});
    for (path, value) in pairs(body) {
        let place = path
            .split('.')
            .fold(&mut all, |place, name| &mut place[name]);
        *place = Json::String(value);
    }
    nested(all)
}

fn xml(value: &Json) -> String {
    match value {
        Json::Array(items) => items
            .iter()
            .map(|item| format!("<member>{}</member>", xml(item)))
            .collect(),
        Json::Object(fields) => {
            let written = fields.iter().map(|(name, value)| match value {
                Json::Object(pairs) if name == "Attributes" => {
                    let entries = pairs.iter().map(|(key, value)| {
                        format!(
                            "<entry><key>{key}</key><value>{}</value></entry>",
                            xml(value)
                        )
                    });
                    format!("<{name}>{}</{name}>", entries.collect::<String>())
                }
                value => format!("<{name}>{}</{name}>", xml(value)),
            });
            written.collect()
        }
        Json::Null => String::new(),
        value => {
            let plain = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            plain.replace('&', "&amp;").replace('<', "&lt;")
        }
    }
}

fn cbor(value: &Json) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Sets tags by their keys.
fn tag(thing: &mut Json, tags: &Json) {
    let mut all: BTreeMap<_, _> = [&thing["Tags"], tags]
        .into_iter()
        .flat_map(|tags| tags.as_array().into_iter().flatten())
        .map(|tag| (text(&tag["Key"]).to_owned(), tag.clone()))
        .collect();
    thing["Tags"] = std::mem::take(&mut all).into_values().collect();
}

/// Whether a message matches a filter policy of SNS, or an event a pattern of EventBridge, as far as ours go: values in
/// lists, within objects, and alternatives.
pub fn matches(policy: &Json, message: &Json) -> bool {
    policy
        .as_object()
        .unwrap()
        .iter()
        .all(|(key, rule)| match rule {
            Json::Array(any) if key == "$or" => any.iter().any(|policy| matches(policy, message)),
            Json::Array(values) => values.contains(&message[key]),
            Json::Object(_) => matches(rule, &message[key]),
            other => panic!("no rule: {other}"),
        })
}

/// Sets an attribute; an empty value takes it away.
fn set(attributes: &mut Map<String, Json>, name: &str, value: &str) {
    match value {
        "" => drop(attributes.remove(name)),
        value => drop(attributes.insert(name.to_owned(), json!(value))),
    }
}

/// Whether a list of texts has one.
fn has(list: &Json, item: &str) -> bool {
    let mut items = list.as_array().into_iter().flatten();
    items.any(|known| text(known) == item)
}

/// One page of a list.
fn page(name: &str, found: Vec<Json>, asked: &Asked) -> Json {
    let from: usize = asked.text("NextToken").parse().unwrap_or_default();
    let next = (found.len() > from + PAGE).then(|| (from + PAGE).to_string());
    let items: Vec<_> = found.into_iter().skip(from).take(PAGE).collect();
    let mut page = json!({name: items});
    if let Some(next) = next {
        page["NextToken"] = json!(next);
    }
    page
}

impl State {
    fn serve(&mut self, asked: &Asked) -> Result<Json, Refused> {
        let (service, verb) = asked.operation.split_once(':').unwrap();
        match service {
            "sts" => Ok(sts(verb, asked)),
            "cloudwatch" => self.cloudwatch(verb, asked),
            "sns" => self.sns(verb, asked),
            _ => self.events(verb, asked),
        }
    }

    fn there(&mut self, arn: &str) -> Result<&mut Json, Refused> {
        let missing = match arn.split(':').nth(2) {
            Some("sns") => (404, "NotFound", "Topic does not exist"),
            Some("cloudwatch") => (404, "ResourceNotFoundException", "there is no such alarm"),
            _ => (400, "ResourceNotFoundException", "it does not exist"),
        };
        self.things.get_mut(arn).ok_or(missing)
    }

    /// All things whose ARN begins so.
    fn under(&self, prefix: &str) -> Vec<Json> {
        let from = self.things.range(prefix.to_owned()..);
        let found = from.take_while(|(arn, _)| arn.starts_with(prefix));
        found.map(|(_, thing)| thing.clone()).collect()
    }

    /// A new id.
    fn id(&mut self) -> String {
        self.made += 1;
        format!("{MADE}{}", self.made)
    }

    fn cloudwatch(&mut self, verb: &str, asked: &Asked) -> Result<Json, Refused> {
        let named = |name: &str| asked.arn("cloudwatch", &format!("alarm:{name}"));
        let arn = named(asked.text("AlarmName"));
        match verb {
            "PutMetricAlarm" => {
                let mut alarm = asked.input.clone();
                alarm["AlarmArn"] = json!(arn);
                let tags = alarm["Tags"].take();
                let begun = json!({"StateValue": "INSUFFICIENT_DATA", "Tags": tags});
                let before = self.things.get(&arn).unwrap_or(&begun);
                for kept in ["StateValue", "StateReason", "Tags"] {
                    alarm[kept] = before[kept].clone();
                }
                self.things.insert(arn, alarm);
            }
            "DescribeAlarms" => {
                let names = &asked.input["AlarmNames"];
                let is_meant = |it: &Json| names.is_null() || has(names, text(&it["AlarmName"]));
                let mut found = self.under(&named(asked.text("AlarmNamePrefix")));
                found.retain(is_meant);
                return Ok(page("MetricAlarms", found, asked));
            }
            "DeleteAlarms" => {
                for name in asked.input["AlarmNames"].as_array().into_iter().flatten() {
                    self.things.remove(&named(text(name)));
                }
            }
            "SetAlarmState" => {
                let alarm = self.there(&arn)?;
                for set in ["StateValue", "StateReason"] {
                    alarm[set] = asked.input[set].clone();
                }
            }
            _ => return self.tags(verb, asked.text("ResourceARN"), asked),
        }
        Ok(json!({}))
    }

    fn tags(&mut self, verb: &str, arn: &str, asked: &Asked) -> Result<Json, Refused> {
        let thing = self.there(arn)?;
        if verb == "TagResource" {
            tag(thing, &asked.input["Tags"]);
        } else {
            assert_eq!(verb, "ListTagsForResource", "{}", asked.operation);
        }
        Ok(json!({"Tags": thing["Tags"]}))
    }

    /// A subscription's ARN begins with its topic's.
    fn sns(&mut self, verb: &str, asked: &Asked) -> Result<Json, Refused> {
        let arn = asked.text("TopicArn");
        let under = format!("{arn}:");
        match verb {
            "CreateTopic" => {
                let arn = asked.arn("sns", asked.text("Name"));
                let mut topic = json!({"Attributes": asked.input["Attributes"]});
                topic["Attributes"]["TopicArn"] = json!(arn);
                tag(&mut topic, &asked.input["Tags"]);
                let there = self.things.entry(arn.clone()).or_insert(topic.clone());
                if there["Tags"] != topic["Tags"] {
                    let text = "Topic already exists with different tags";
                    return Err((400, "InvalidParameter", text));
                }
                return Ok(json!({"TopicArn": arn}));
            }
            "GetTopicAttributes" => {
                return Ok(json!({"Attributes": self.there(arn)?["Attributes"]}));
            }
            "SetTopicAttributes" => {
                let (name, value) = (asked.text("AttributeName"), asked.text("AttributeValue"));
                let attributes = self.there(arn)?["Attributes"].as_object_mut().unwrap();
                set(attributes, name, value);
            }
            "DeleteTopic" => {
                let stays = |it: &str| it != arn && !it.starts_with(&under);
                self.things.retain(|it, _| stays(it));
            }
            "Subscribe" => {
                self.there(arn)?;
                let (protocol, endpoint) = (asked.text("Protocol"), asked.text("Endpoint"));
                let made = json!({"Protocol": protocol, "Endpoint": endpoint,
                    "SubscriptionArn": "PendingConfirmation", "Attributes": asked.input["Attributes"]});
                let same = |it: &Json| it["Protocol"] == protocol && it["Endpoint"] == endpoint;
                match self.under(&under).into_iter().find(same) {
                    Some(there) if there["Attributes"] != made["Attributes"] => {
                        let text = "Subscription already exists with different attributes";
                        return Err((400, "InvalidParameter", text));
                    }
                    Some(_) => {}
                    None => {
                        let arn = under + &self.id();
                        self.things.insert(arn, made);
                    }
                }
            }
            "GetSubscriptionAttributes" => {
                let attributes = &self.there(asked.text("SubscriptionArn"))?["Attributes"];
                return Ok(json!({"Attributes": attributes}));
            }
            "SetSubscriptionAttributes" => {
                let subscription = self.there(asked.text("SubscriptionArn"))?;
                let (name, value) = (asked.text("AttributeName"), asked.text("AttributeValue"));
                if subscription["Attributes"].is_null() {
                    subscription["Attributes"] = json!({});
                }
                set(
                    subscription["Attributes"].as_object_mut().unwrap(),
                    name,
                    value,
                );
            }
            "Unsubscribe" => drop(self.things.remove(asked.text("SubscriptionArn"))),
            "ListSubscriptionsByTopic" => {
                self.there(arn)?;
                let mut listed = self.under(&under);
                // The list does not tell them.
                let fields = listed.iter_mut().filter_map(Json::as_object_mut);
                fields.for_each(|fields| drop(fields.remove("Attributes")));
                return Ok(page("Subscriptions", listed, asked));
            }
            _ => return self.tags(verb, asked.text("ResourceArn"), asked),
        }
        Ok(json!({}))
    }

    fn events(&mut self, verb: &str, asked: &Asked) -> Result<Json, Refused> {
        let arn = |name: &str| asked.arn("events", &format!("rule/{}", asked.text(name)));
        match verb {
            "PutRule" => {
                let arn = arn("Name");
                let made = json!({"Targets": {}, "Tags": asked.input["Tags"]});
                let before = self.things.get(&arn).unwrap_or(&made);
                let mut rule = asked.input.clone();
                (rule["Targets"], rule["Tags"]) =
                    (before["Targets"].clone(), before["Tags"].clone());
                self.things.insert(arn, rule);
            }
            "DescribeRule" => return self.there(&arn("Name")).cloned(),
            "DeleteRule" => {
                if self
                    .things
                    .get(&arn("Name"))
                    .is_some_and(|it| it["Targets"] != json!({}))
                {
                    return Err((400, "ValidationException", "Rule has targets"));
                }
                self.things.remove(&arn("Name"));
            }
            "ListRules" => return Ok(page("Rules", self.under(&arn("NamePrefix")), asked)),
            "PutTargets" => {
                for target in asked.input["Targets"].as_array().into_iter().flatten() {
                    let id = text(&target["Id"]);
                    self.there(&arn("Rule"))?["Targets"][id] = target.clone();
                }
            }
            "RemoveTargets" => {
                let targets = &mut self.there(&arn("Rule"))?["Targets"];
                let targets = targets.as_object_mut().unwrap();
                targets.retain(|id, _| !has(&asked.input["Ids"], id));
            }
            "ListTargetsByRule" => {
                let targets = self.there(&arn("Rule"))?["Targets"].as_object();
                let targets = targets.unwrap().values().cloned().collect();
                return Ok(page("Targets", targets, asked));
            }
            _ if verb.contains("Connection") => {
                return self.path(verb, ["Connection", "connection", "AUTHORIZED"], asked);
            }
            _ => return self.path(verb, ["ApiDestination", "api-destination", "ACTIVE"], asked),
        }
        Ok(json!({"FailedEntryCount": 0}))
    }

    /// Connections and API destinations: what is made anew has another ARN.
    fn path(
        &mut self,
        verb: &str,
        [kind, called, state]: [&str; 3],
        asked: &Asked,
    ) -> Result<Json, Refused> {
        let place = |name: &str| asked.arn("events", &format!("{called}/{name}"));
        let verb = verb.split_once(kind).unwrap().0;
        if verb == "List" {
            let found = self.under(&place(asked.text("NamePrefix")));
            return Ok(page(&format!("{kind}s"), found, asked));
        }
        let under = place(&format!("{}/", asked.text("Name")));
        let known = self.under(&under).pop();
        let arn = known.map(|it| text(&it[format!("{kind}Arn")]).to_owned());
        let arn = match (verb, arn) {
            ("Create", Some(_)) => {
                return Err((400, "ResourceAlreadyExistsException", "it exists"));
            }
            ("Create", None) => {
                let arn = under + &self.id();
                self.things.insert(arn.clone(), json!({}));
                arn
            }
            (_, arn) => arn.unwrap_or(under),
        };
        let there = self.there(&arn)?;
        if matches!(verb, "Create" | "Update") {
            let given = asked.input.as_object().cloned().unwrap_or_default();
            there.as_object_mut().unwrap().extend(given);
            there[format!("{kind}Arn")] = json!(arn);
            there[format!("{kind}State")] = json!(state);
        }
        let answer = there.clone();
        if verb == "Delete" {
            self.things.remove(&arn);
        }
        Ok(answer)
    }
}

/// Every role lets everybody in, and leads to the account that its ARN names.
fn sts(verb: &str, asked: &Asked) -> Json {
    if verb != "AssumeRole" {
        return json!({"Account": asked.account, "UserId": "id", "Arn": "arn"});
    }
    let account = asked.text("RoleArn").split(':').nth(4);
    let until = Timestamp::from_second(Timestamp::now().as_second() + 3600).unwrap();
    json!({"Credentials": {"AccessKeyId": account, "SecretAccessKey": "secret",
        "SessionToken": "token", "Expiration": until.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clients::aws::{Identity, reading::Reads},
        engine::{gate::WritePermit, limits::Priority},
        testing::Fault,
    };
    use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn it_answers_as_aws_does() {
        let calls = Calls::default();
        let aws = Aws::new(&calls);
        let accounts = aws.accounts(Arc::new(Limiter::new(&BTreeMap::new())));
        let identity = |account: &str| Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/vsu".into(),
            account_id: account.into(),
            region: "us-east-2".into(),
        };
        let other = accounts.open(&identity("333344445555")).await.unwrap_err();
        assert!(other.message.contains("leads to account 222233334444"));
        let account = accounts.open(&identity("222233334444")).await.unwrap();
        let operation = account.operation("endpoint", "cloudwatch:PutMetricAlarm");
        let permit = WritePermit::unchecked(operation);
        let writer = account.writer(&permit).unwrap();
        let put = |name: String| {
            let put = writer.put_metric_alarm().unwrap().alarm_name(name);
            put.threshold(1.5).send()
        };
        for i in 0..=PAGE {
            put(format!("eu/{i:03}")).await.unwrap();
        }
        put("other".into()).await.unwrap();
        let reads = Reads::of(&account, Priority::Edit);
        let describe = reads.alarms().alarm_name_prefix("eu/");
        let page = describe.clone().send().await.unwrap();
        assert_eq!(page.metric_alarms().len(), PAGE);
        let page = describe.set_next_token(page.next_token).send().await;
        let page = page.unwrap();
        let last: Vec<_> = page.metric_alarms().iter().collect();
        assert_eq!((last.len(), last[0].threshold()), (1, Some(1.5)));
        assert_eq!(page.next_token, None);

        let put_fails = |fault| calls.fail_next("cloudwatch:PutMetricAlarm", 1, fault);
        put_fails(Fault::Refuse(400, "Throttling"));
        let refused = put("a".into()).await.unwrap_err();
        assert_eq!(refused.code(), Some("Throttling"));
        put_fails(Fault::Cut { done: true });
        put("a".into()).await.unwrap_err();
        assert_eq!(aws.things(":alarm:a").len(), 1);
        put_fails(Fault::Hang { done: false });
        let began = Instant::now();
        put("b".into()).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}
