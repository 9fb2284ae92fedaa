//! From a TenantObservability to what its account needs for alarms to reach Slack: a connection and an API
//! destination for each channel, a rule for each severity and state, a target for each of both. Pure.

use super::{
    attributes::Foreign,
    message::{About, Transformer, message},
};
use crate::{
    api::{
        AdoptionPolicy, AlarmState, AwsTarget, SlackPathEntry, SlackVia, TenantObservability,
        TenantObservabilityStatus,
    },
    clients::secret::Secret,
    engine::{
        error::{Error, Result},
        mirror::Mirrored,
        plan::{Desired, Value},
    },
    kinds::{
        installation::Installation,
        mark::Mark,
        names,
        slack_channel::route::{RouteState, SlackRoute},
        tenant::{
            desired::{alarm_link, alarms_link},
            transitions::{Listener, STATES},
        },
    },
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A connection that lets its destination be called.
pub const AUTHORIZED: &str = "AUTHORIZED";

/// A rule that is at work.
pub const ENABLED: &str = "ENABLED";

/// The header by which a bot says who it is.
pub const BOT_HEADER: &str = "Authorization";

/// EventBridge requires a header; a webhook needs none, so this one says nothing.
const WEBHOOK_HEADER: (&str, &str) = ("X-Campanile", "webhook");

/// Slack takes one message a second for a channel.
const PER_SECOND: i32 = 1;

/// For how long EventBridge tries to deliver a message, in seconds: an hour later nobody wants it.
pub const MAX_AGE: i32 = 3600;

/// How often, at most. What EventBridge does where nothing is said.
const MAX_ATTEMPTS: i32 = 185;

/// A path into Slack: whose channel, and by what. By another it is another path, so that both can be there while
/// the one takes the place of the other. Its text is `<SlackChannel>/webhook` or `<SlackChannel>/bot`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathKey {
    /// The SlackChannel object.
    pub channel: String,
    /// By what messages get in.
    pub via: SlackVia,
}

impl PathKey {
    /// The paths that there may be into a channel.
    pub fn both(channel: &str) -> [Self; 2] {
        [SlackVia::Webhook, SlackVia::BotToken].map(|via| Self {
            channel: channel.to_owned(),
            via,
        })
    }

    /// The path for a route into a channel.
    fn of(channel: &str, route: &SlackRoute) -> Self {
        let via = match route {
            SlackRoute::Webhook(_) => SlackVia::Webhook,
            SlackRoute::BotToken { .. } => SlackVia::BotToken,
        };
        Self {
            channel: channel.to_owned(),
            via,
        }
    }

    /// The path of a connection or an API destination, of those in `known`. The channel of one that nobody knows
    /// any more is called as that, so that it is not forgotten.
    pub fn named(name: &str, known: &BTreeMap<String, Self>) -> Self {
        known.get(name).cloned().unwrap_or_else(|| Self {
            channel: name.to_owned(),
            via: SlackVia::Webhook,
        })
    }

    /// As status has it.
    pub fn entry(self, given: Given) -> SlackPathEntry {
        let Self { channel, via } = self;
        let Given { secret, modified } = given;
        SlackPathEntry {
            channel,
            via,
            secret,
            modified: modified.map(|at| at.to_string()),
        }
    }

    /// What its connection and its API destination are called, for a tenant of a namespace.
    pub fn name(&self, cluster: &str, namespace: &str, tenant: &str) -> String {
        names::slack_path(cluster, namespace, tenant, &self.to_string())
    }
}

impl From<&SlackPathEntry> for PathKey {
    fn from(entry: &SlackPathEntry) -> Self {
        Self {
            channel: entry.channel.clone(),
            via: entry.via,
        }
    }
}

impl fmt::Display for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let via = match self.via {
            SlackVia::Webhook => "webhook",
            SlackVia::BotToken => "bot",
        };
        // No object's name has a slash.
        write!(f, "{}/{via}", self.channel)
    }
}

/// What a path was given last, as status has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// A digest of the secret; `None` where it was given none, or nobody knows.
    pub secret: Option<String>,
    /// When AWS says that the connection was modified, as it was seen first with that secret; `None` until then.
    pub modified: Option<Timestamp>,
}

impl From<&SlackPathEntry> for Given {
    fn from(entry: &SlackPathEntry) -> Self {
        Self {
            secret: entry.secret.clone(),
            modified: entry.modified.as_ref().and_then(|at| at.parse().ok()),
        }
    }
}

/// What SlackChannel objects say of how messages get in, by their names.
pub type Routes = BTreeMap<String, Result<RouteState>>;

/// What EventBridge knows of how Slack is called: the header, and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// The SlackChannel object, for people.
    pub channel: String,
    /// What the header is called; empty where there is none.
    pub header: String,
    /// A digest of the secret in it; empty where there is none, or nobody knows.
    pub secret: String,
    /// As AWS calls it.
    pub state: String,
    /// Holds the mark, and nothing else: AWS takes no line break there.
    pub description: String,
    /// What we never set and somebody has.
    pub foreign: Foreign,
    /// Whether it lets nobody through, and has not been written again since. Known only of what is there.
    pub needs_reauthorization: bool,
    /// What is in the header. Known only of what is to be.
    pub value: Option<Secret>,
    /// Why Slack takes nothing that comes by this path. Known only of what is to be, and never compared.
    pub shut: Option<String>,
}

impl Connection {
    /// Whether a bot's token is in it.
    pub fn is_bot(&self) -> bool {
        self.header == BOT_HEADER
    }
}

/// The field of a connection that names the SlackChannel object.
pub const CHANNEL: &str = "channel";

/// The field of a connection that names the header by which it lets itself be known.
pub const HEADER: &str = "header";

impl Value for Connection {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        (
            &self.header,
            &self.secret,
            &self.description,
            &self.foreign,
            false,
        ) == (
            &seen.header,
            &seen.secret,
            &seen.description,
            &seen.foreign,
            seen.needs_reauthorization,
        )
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            (CHANNEL, self.channel.clone()),
            (HEADER, self.header.clone()),
            ("secret", self.secret.clone()),
            ("state", self.state.clone()),
            ("description", self.description.clone()),
            ("foreign fields", named(&self.foreign)),
        ]
    }
}

/// Where EventBridge posts.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiDestination {
    /// The SlackChannel object, for people.
    pub channel: String,
    /// The URL; a digest where it is a webhook's.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// The most requests per second.
    pub per_second: i32,
    /// The connection: its name where it is ours, its ARN otherwise.
    pub connection: String,
    /// Holds the mark, and nothing else, as a connection's.
    pub description: String,
    /// The URL itself. Known only of what is to be.
    pub url: Option<Secret>,
}

impl Value for ApiDestination {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        let compared = |it: &Self| Self {
            channel: String::new(),
            url: None,
            ..it.clone()
        };
        compared(self) == compared(seen)
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("channel", self.channel.clone()),
            ("endpoint", self.endpoint.clone()),
            ("method", self.method.clone()),
            ("requests per second", self.per_second.to_string()),
            ("connection", self.connection.clone()),
            ("description", self.description.clone()),
        ]
    }
}

/// A part of a path, by the name that both have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathPart {
    /// The connection.
    Connection(String),
    /// The API destination.
    Destination(String),
}

impl PathPart {
    /// The name of its path.
    pub fn name(&self) -> &str {
        let (Self::Connection(name) | Self::Destination(name)) = self;
        name
    }
}

impl fmt::Display for PathPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a part of a path is configured.
#[derive(Clone, Debug, PartialEq)]
pub enum PathValue {
    /// The connection.
    Connection(Connection),
    /// The API destination.
    Destination(ApiDestination),
}

impl Value for PathValue {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        match (self, seen) {
            (Self::Connection(to), Self::Connection(seen)) => to.is_satisfied_by(seen),
            (Self::Destination(to), Self::Destination(seen)) => to.is_satisfied_by(seen),
            _ => false,
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Connection(it) => it.fields(),
            Self::Destination(it) => it.fields(),
        }
    }
}

/// Which events go to Slack.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The event pattern, compared as a tree.
    pub pattern: Json,
    /// As AWS calls it: [`ENABLED`], or not.
    pub state: String,
    /// When it is at work whatever happens: never.
    pub schedule: String,
    /// What EventBridge assumes for targets without a role of their own: none.
    pub role: String,
    /// For people, with the mark in its last line.
    pub description: String,
}

impl Value for Rule {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("pattern", self.pattern.to_string()),
            ("state", self.state.clone()),
            ("schedule", self.schedule.clone()),
            ("role", self.role.clone()),
            ("description", self.description.clone()),
        ]
    }
}

/// What tells the targets of a tenant's rules apart. Its text is `<rule>/<target>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetKey {
    /// The rule's name.
    pub rule: String,
    /// What the rule calls the target.
    pub id: String,
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.rule, self.id)
    }
}

/// Where a rule's events go, as what.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleTarget {
    /// The API destination: its name where it is ours, the target's ARN otherwise.
    pub destination: String,
    /// What EventBridge assumes to call it.
    pub role: String,
    /// Where goes what could not be delivered; empty where nowhere.
    pub dead_letters: String,
    /// For how long it tries, in seconds.
    pub max_age: Option<i32>,
    /// How often it tries.
    pub max_attempts: Option<i32>,
    /// What it makes of an event.
    pub message: Transformer,
    /// Fields that we never set and somebody has: a target is put whole, so these go.
    pub foreign: Foreign,
}

impl Value for RuleTarget {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        let compared = |it: &Self| Self {
            message: Transformer::default(),
            ..it.clone()
        };
        self.message.is_same(&seen.message) && compared(self) == compared(seen)
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let number = |number: Option<i32>| number.map(|number| number.to_string());
        vec![
            ("api destination", self.destination.clone()),
            ("role", self.role.clone()),
            ("dead letters", self.dead_letters.clone()),
            (
                "tries for seconds",
                number(self.max_age).unwrap_or_default(),
            ),
            (
                "tries at most",
                number(self.max_attempts).unwrap_or_default(),
            ),
            ("input", json!(self.message.paths).to_string()),
            ("message", self.message.shown()),
            ("foreign fields", named(&self.foreign)),
        ]
    }
}

fn named(foreign: &Foreign) -> String {
    let foreign: Vec<_> = foreign.iter().copied().collect();
    foreign.join(", ")
}

/// A rule, or a target of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleKey {
    /// The rule of this name.
    Rule(String),
    /// A target.
    Target(TargetKey),
}

impl RuleKey {
    /// The rule's name.
    pub fn rule(&self) -> &str {
        let (Self::Rule(name) | Self::Target(TargetKey { rule: name, .. })) = self;
        name
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => f.write_str(name),
            Self::Target(key) => key.fmt(f),
        }
    }
}

/// How a rule or a target is configured.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleValue {
    /// The rule.
    Rule(Rule),
    /// The target.
    Target(RuleTarget),
}

impl Value for RuleValue {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        match (self, seen) {
            (Self::Rule(to), Self::Rule(seen)) => to.is_satisfied_by(seen),
            (Self::Target(to), Self::Target(seen)) => to.is_satisfied_by(seen),
            _ => false,
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Rule(it) => it.fields(),
            Self::Target(it) => it.fields(),
        }
    }
}

/// All that a tenant's alarms need to reach Slack.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The connections and API destinations.
    pub slack: Desired<PathPart, PathValue>,
    /// The rules and their targets.
    pub rules: Desired<RuleKey, RuleValue>,
    /// The paths that there may be into the channels, by name.
    pub paths: BTreeMap<String, PathKey>,
    /// Where the events of each rule go, by the names of the API destinations.
    pub feeds: BTreeMap<String, BTreeSet<String>>,
}

/// The SlackChannel objects to which a tenant's alarms go.
pub fn channels(tenant: &TenantObservability) -> BTreeSet<&str> {
    let listed = tenant.spec.notify.iter().flat_map(|notify| notify.listed());
    listed
        .flat_map(|(_, recipients)| &recipients.slack)
        .map(|recipient| recipient.channel_ref.name.as_str())
        .collect()
}

/// Whether a tenant's alarms go to Slack, or may have. Where they do not, EventBridge is not even asked, but for once:
/// one of its name may have been there before it, and what status has forgotten is looked for.
pub fn concerns(tenant: &TenantObservability) -> bool {
    concerns_as(tenant, tenant.status.as_ref())
}

/// The same by what another status says.
pub fn concerns_as(
    tenant: &TenantObservability,
    status: Option<&TenantObservabilityStatus>,
) -> bool {
    let noted = status.is_some_and(|status| !status.slack_paths.is_empty());
    // Every look at a tenant that stays says where its alarms are.
    let wiped = status.is_none_or(|status| status.links.is_none());
    noted || wiped || !channels(tenant).is_empty()
}

/// Whether nothing says that a tenant's alarms go to Slack, or went there. Who may not look there has nothing there.
pub fn is_guess(tenant: &TenantObservability) -> bool {
    let status = tenant.status.as_ref();
    let noted = status.is_some_and(|status| !status.slack_paths.is_empty());
    !noted && channels(tenant).is_empty()
}

/// The name of a path: its connection and its API destination have it.
pub fn path_name(
    tenant: &TenantObservability,
    path: &PathKey,
    installation: &Installation,
) -> String {
    let namespace = tenant.namespace().unwrap_or_default();
    path.name(&installation.cluster.name, &namespace, &tenant.name_any())
}

/// What a tenant's alarms need to reach Slack.
pub fn wanted(
    tenant: &TenantObservability,
    routes: &Routes,
    target: &AwsTarget,
    installation: &Installation,
) -> Wanted {
    let mark = installation.mark(tenant);
    let cluster = &installation.cluster.name;
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let adoption = tenant.spec.adoption_policy;
    let mut wanted = Wanted {
        slack: desired(adoption),
        rules: desired(adoption),
        ..Wanted::default()
    };
    let mut open: BTreeMap<&str, Result<&RouteState>> = BTreeMap::new();
    for channel in channels(tenant) {
        let both = PathKey::both(channel);
        let both = both.map(|path| (path_name(tenant, &path, installation), path));
        wanted.paths.extend(both.clone());
        let route = match (routes.get(channel), &tenant.spec.event_bridge) {
            (_, None) => Err(Error::invalid(
                "spec.notify lists Slack channels, but spec.eventBridge.invokeRoleArn is missing: add it",
            )),
            (Some(Ok(route)), Some(_)) => Ok(route),
            (Some(Err(error)), Some(_)) => Err(error.clone()),
            // Whoever read them read those of this very spec.
            (None, Some(_)) => continue,
        };
        match &route {
            Ok(route) => {
                let path = PathKey::of(channel, &route.route);
                let path = path_name(tenant, &path, installation);
                let (connection, destination) =
                    path_into(route, channel, &path, &mark, installation);
                wanted.slack.wanted.extend([
                    (
                        PathPart::Connection(path.clone()),
                        PathValue::Connection(connection),
                    ),
                    (
                        PathPart::Destination(path),
                        PathValue::Destination(destination),
                    ),
                ]);
            }
            // By what it is asked for nobody can say now: whatever there is stays.
            Err(error) => {
                for (path, _) in both {
                    let parts = [
                        PathPart::Connection(path.clone()),
                        PathPart::Destination(path),
                    ];
                    wanted
                        .slack
                        .blocked
                        .extend(parts.map(|part| (part, error.clone())));
                }
            }
        }
        open.insert(channel, route);
    }
    let display = tenant.spec.display_name.as_deref().unwrap_or(&name);
    let alarms = alarms_link(tenant, &target.region, cluster);
    let listed = tenant.spec.notify.iter().flat_map(|notify| notify.listed());
    for (severity, recipients) in listed.filter(|(_, recipients)| !recipients.slack.is_empty()) {
        let channels = recipients.slack.iter();
        let channels: Vec<_> = channels
            .filter_map(|recipient| open.get_key_value(recipient.channel_ref.name.as_str()))
            .collect();
        for state in STATES {
            let rule = names::rule(cluster, &namespace, &name, severity, state);
            for (channel, route) in &channels {
                let key = RuleKey::Target(TargetKey {
                    rule: rule.clone(),
                    id: names::rule_target(channel),
                });
                let (route, event_bridge) = match (route, &tenant.spec.event_bridge) {
                    (Ok(route), Some(event_bridge)) => (route, event_bridge),
                    (Err(error), _) => {
                        wanted.rules.blocked.insert(key, error.clone());
                        continue;
                    }
                    (Ok(_), None) => continue,
                };
                let path = PathKey::of(channel, &route.route);
                let path = path_name(tenant, &path, installation);
                let feeds = wanted.feeds.entry(rule.clone()).or_default();
                feeds.insert(path.clone());
                let about = About {
                    state,
                    severity,
                    tenant: display,
                    account: &target.account_id,
                    region: &target.region,
                    alarm_link: &alarm_link(&target.region),
                    alarms_link: &alarms,
                    channel_id: match &route.route {
                        SlackRoute::Webhook(_) => None,
                        SlackRoute::BotToken { channel_id, .. } => Some(channel_id),
                    },
                };
                let dead_letters = event_bridge.dead_letter_queue_arn.clone();
                let to = RuleTarget {
                    destination: path,
                    role: event_bridge.invoke_role_arn.clone(),
                    dead_letters: dead_letters.unwrap_or_default(),
                    max_age: Some(MAX_AGE),
                    max_attempts: Some(MAX_ATTEMPTS),
                    message: message(&about),
                    foreign: BTreeSet::new(),
                };
                // Of a rule of ours every target is ours, and it need not exist before.
                let adoption = &mut wanted.rules.adoption.of;
                adoption.insert(key.clone(), AdoptionPolicy::Never);
                wanted.rules.wanted.insert(key, RuleValue::Target(to));
            }
            let blocked = channels.iter().find_map(|(_, route)| route.as_ref().err());
            match blocked {
                // It would tell nobody.
                Some(error) if !wanted.feeds.contains_key(&rule) => {
                    wanted
                        .rules
                        .blocked
                        .insert(RuleKey::Rule(rule), error.clone());
                }
                _ => {
                    let prefix = format!("{}{severity}/", names::alarm_prefix(cluster, &name));
                    let text = format!("For Slack: {severity} alarms of {name}, {state}");
                    let to = Rule {
                        pattern: pattern(&prefix, state),
                        state: ENABLED.into(),
                        schedule: String::new(),
                        role: String::new(),
                        description: mark.sign(&text),
                    };
                    wanted
                        .rules
                        .wanted
                        .insert(RuleKey::Rule(rule), RuleValue::Rule(to));
                }
            }
        }
    }
    wanted
}

fn desired<K, V>(adoption: AdoptionPolicy) -> Desired<K, V> {
    Desired {
        wanted: BTreeMap::new(),
        blocked: BTreeMap::new(),
        adoption: adoption.into(),
        ..Desired::default()
    }
}

/// The connection and the API destination for a route into a channel.
fn path_into(
    state: &RouteState,
    channel: &str,
    path: &str,
    mark: &Mark,
    installation: &Installation,
) -> (Connection, ApiDestination) {
    let digest = |secret: &Secret| installation.digester.digest(secret.reveal()).to_string();
    let (header, secret, value, url) = match &state.route {
        SlackRoute::Webhook(url) => {
            let (header, value) = WEBHOOK_HEADER;
            (header, String::new(), value.to_owned(), url.clone())
        }
        SlackRoute::BotToken { token, .. } => (
            BOT_HEADER,
            digest(token),
            format!("Bearer {}", token.reveal()),
            Secret::new(post_url(installation)),
        ),
    };
    let connection = Connection {
        channel: channel.to_owned(),
        header: header.to_owned(),
        secret,
        state: AUTHORIZED.into(),
        description: mark.to_string(),
        foreign: Foreign::new(),
        needs_reauthorization: false,
        value: Some(Secret::new(value)),
        shut: state.blocked.clone(),
    };
    let destination = ApiDestination {
        channel: channel.to_owned(),
        endpoint: shown(&url, installation),
        method: "POST".into(),
        per_second: PER_SECOND,
        connection: path.to_owned(),
        description: mark.to_string(),
        url: Some(url),
    };
    (connection, destination)
}

/// Where a bot posts.
fn post_url(installation: &Installation) -> String {
    format!("{}/chat.postMessage", installation.slack_api_url)
}

/// A URL where it is no secret, its digest where it may be one.
pub fn shown(url: &Secret, installation: &Installation) -> String {
    if url.reveal() == post_url(installation) {
        return url.reveal().to_owned();
    }
    installation.digester.digest(url.reveal()).to_string()
}

/// Which events are told: that an alarm whose name begins with `prefix` came to be in a state.
fn pattern(prefix: &str, state: AlarmState) -> Json {
    let mut detail = Listener::Slack.event_pattern(state);
    detail["alarmName"] = json!([{"prefix": prefix}]);
    json!({
        "source": ["aws.cloudwatch"],
        "detail-type": ["CloudWatch Alarm State Change"],
        "detail": detail
    })
}

/// A connection as EventBridge has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedConnection {
    /// Its ARN, which ends in something that nobody can foresee.
    pub arn: String,
    /// What its header is called; empty where it has none.
    pub header: String,
    /// As AWS calls it.
    pub state: String,
    /// Why it is in that state, where AWS says so.
    pub reason: String,
    /// Holds the mark.
    pub description: String,
    /// What we never set and somebody has.
    pub foreign: Foreign,
    /// When it was modified last, whoever did it. Known only of what was read.
    pub modified: Option<Timestamp>,
}

impl ObservedConnection {
    /// Whether it does not let its destination be called, and will not by itself.
    pub fn is_deauthorized(&self) -> bool {
        matches!(self.state.as_str(), "DEAUTHORIZED" | "FAILED_CONNECTIVITY")
    }

    /// Whether it is about to be in another state by itself.
    pub fn is_pending(&self) -> bool {
        matches!(
            self.state.as_str(),
            "CREATING" | "UPDATING" | "DELETING" | "AUTHORIZING" | "DEAUTHORIZING"
        )
    }

    /// Whether it lets its destination be called, as far as AWS says.
    pub fn is_open(&self) -> bool {
        !self.is_deauthorized() && !self.is_pending()
    }

    /// Whether it is going away.
    pub fn is_deleting(&self) -> bool {
        self.state == "DELETING"
    }
}

/// An API destination as EventBridge has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDestination {
    /// Its ARN, which ends in something that nobody can foresee.
    pub arn: String,
    /// Where it posts.
    pub url: Secret,
    /// The method.
    pub method: String,
    /// The most requests per second.
    pub per_second: i32,
    /// The ARN of its connection.
    pub connection: String,
    /// Whether its connection lets it be called.
    pub active: bool,
    /// Holds the mark.
    pub description: String,
}

/// What there is of a path into Slack: a connection and an API destination of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedPath {
    /// The connection.
    pub connection: Option<ObservedConnection>,
    /// The API destination.
    pub destination: Option<ObservedDestination>,
}

impl Mirrored for ObservedPath {}

/// A rule as EventBridge has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedRule {
    /// How it is configured.
    pub rule: Rule,
    /// The AWS service that looks after it, where one does.
    pub managed_by: Option<String>,
    /// Its targets by their ids, with ARNs for names; `None` where it carries nobody's mark and they are no
    /// concern of ours.
    pub targets: Option<BTreeMap<String, RuleTarget>>,
}

impl Mirrored for ObservedRule {}

#[cfg(test)]
mod tests {
    use super::{
        super::message::tests::{complaints, event, transform},
        *,
    };
    use crate::{
        api::{Links, Severity},
        engine::{
            error::{Class, WaitingOn},
            plan::{Change, Found, Observed, Owner, diff},
            rendering::Step,
        },
    };

    const URL: &str = "https://hooks.slack.com/services/T0CANARY/B0CANARY/canary0123456789";
    const TOKEN: &str = "xoxb-1234567890-canary0123456789";

    fn tenant(notify: Json) -> TenantObservability {
        let spec = json!({
            "displayName": "Virginia State <University> & more",
            "aws": {"accountId": "222233334444", "region": "us-east-2"},
            "notify": notify,
            "eventBridge": {
                "invokeRoleArn": "arn:aws:iam::222233334444:role/campanile-events",
                "deadLetterQueueArn": "arn:aws:sqs:us-east-2:222233334444:dlq"
            }
        });
        let mut tenant = TenantObservability::new("vsu", serde_json::from_value(spec).unwrap());
        tenant.metadata.namespace = Some("ns".into());
        tenant
    }

    fn slack(channels: &[&str]) -> Json {
        let channels = channels
            .iter()
            .map(|name| json!({"channelRef": {"name": name}}));
        json!({"slack": channels.collect::<Vec<_>>()})
    }

    fn target() -> AwsTarget {
        AwsTarget {
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            prefix: "campanile_vsu_".into(),
        }
    }

    fn hook() -> SlackRoute {
        SlackRoute::Webhook(Secret::new(URL.into()))
    }

    fn bot() -> SlackRoute {
        SlackRoute::BotToken {
            token: Secret::new(TOKEN.into()),
            channel_id: "C012AB3CD".into(),
        }
    }

    fn ways(ways: &[(&str, Result<SlackRoute>)]) -> Routes {
        let ways = ways.iter().cloned();
        ways.map(|(name, way)| (name.to_owned(), way.map(RouteState::from)))
            .collect()
    }

    /// What is wanted, each sort by itself.
    struct Parts {
        connections: Desired<String, Connection>,
        destinations: Desired<String, ApiDestination>,
        rules: Desired<String, Rule>,
        targets: Desired<TargetKey, RuleTarget>,
        paths: BTreeMap<String, PathKey>,
        feeds: BTreeMap<String, BTreeSet<String>>,
    }

    fn parts(wanted: Wanted) -> Parts {
        let mut parts = Parts {
            connections: Desired::default(),
            destinations: Desired::default(),
            rules: Desired::default(),
            targets: Desired::default(),
            paths: wanted.paths,
            feeds: wanted.feeds,
        };
        for (key, value) in wanted.slack.wanted {
            let name = key.name().to_owned();
            match value {
                PathValue::Connection(it) => drop(parts.connections.wanted.insert(name, it)),
                PathValue::Destination(it) => drop(parts.destinations.wanted.insert(name, it)),
            }
        }
        for (key, error) in wanted.slack.blocked {
            match key {
                PathPart::Connection(name) => parts.connections.blocked.insert(name, error),
                PathPart::Destination(name) => parts.destinations.blocked.insert(name, error),
            };
        }
        for (key, value) in wanted.rules.wanted {
            match (key, value) {
                (RuleKey::Rule(name), RuleValue::Rule(it)) => {
                    parts.rules.wanted.insert(name, it);
                }
                (RuleKey::Target(key), RuleValue::Target(it)) => {
                    parts.targets.wanted.insert(key, it);
                }
                other => panic!("{other:?}"),
            }
        }
        for (key, error) in wanted.rules.blocked {
            match key {
                RuleKey::Rule(name) => parts.rules.blocked.insert(name, error),
                RuleKey::Target(key) => parts.targets.blocked.insert(key, error),
            };
        }
        parts
    }

    fn of(tenant: &TenantObservability, ways: &Routes) -> Parts {
        parts(wanted(tenant, ways, &target(), &Installation::sample()))
    }

    #[test]
    fn a_path_per_channel_and_a_rule_per_severity_and_state() {
        let notify = json!({"critical": slack(&["a", "b"]), "warning": slack(&["a"]), "info": {}});
        let tenant = tenant(notify);
        let wanted = of(&tenant, &ways(&[("a", Ok(hook())), ("b", Ok(bot()))]));
        let sizes = (
            wanted.connections.wanted.len(),
            wanted.destinations.wanted.len(),
            wanted.rules.wanted.len(),
            wanted.targets.wanted.len(),
        );
        assert_eq!(sizes, (2, 2, 6, 9));
        let named = |name: &String| wanted.paths.contains_key(name);
        assert!(wanted.connections.wanted.keys().all(named));
        assert_eq!(wanted.paths.len(), 4, "by a webhook, and by a bot");
        assert!(wanted.feeds.keys().eq(wanted.rules.wanted.keys()));
        let mark = "campanile:eu/0a1b2c3d/TenantObservability/ns/vsu";
        for rule in wanted.rules.wanted.values() {
            assert!(rule.description.ends_with(&format!("\n{mark}")));
            assert!(rule.description.len() <= 512);
            assert!(rule.pattern.to_string().len() <= 2048);
        }
        let installation = Installation::sample();
        let path = |path: &PathKey| path_name(&tenant, path, &installation);
        let ([a, _], [_, b]) = (PathKey::both("a"), PathKey::both("b"));
        let (a, b) = (path(&a), path(&b));
        let connection = |name: &String| wanted.connections.wanted[name].clone();
        let destination = |name: &String| wanted.destinations.wanted[name].clone();
        // A webhook's URL is the secret, and nobody needs a token for it.
        let (hook, post) = (connection(&a), destination(&a));
        assert_eq!(
            (hook.header.as_str(), hook.secret.as_str()),
            ("X-Campanile", "")
        );
        assert!(!hook.is_bot() && hook.description == mark);
        assert_eq!(post.url.as_ref().unwrap().reveal(), URL);
        assert!(post.endpoint.starts_with("hmac:"));
        assert_eq!((post.connection.as_str(), post.per_second), (a.as_str(), 1));
        let (bot, post) = (connection(&b), destination(&b));
        assert_eq!(
            bot.value.as_ref().unwrap().reveal(),
            format!("Bearer {TOKEN}")
        );
        assert!(bot.is_bot() && bot.secret.starts_with("hmac:"));
        assert_eq!(post.endpoint, "https://slack.com/api/chat.postMessage");
        let all = format!("{:?} {:?}", wanted.connections, wanted.destinations);
        assert!(!all.contains("canary") && !format!("{:?}", wanted.targets).contains("canary"));
        // Only a bot says which channel.
        for (key, to) in &wanted.targets.wanted {
            let bot = key.id == "b";
            assert_eq!(to.message.template.contains("C012AB3CD"), bot, "{key}");
            assert_eq!(to.destination, if bot { b.clone() } else { a.clone() });
            assert_eq!(to.role, "arn:aws:iam::222233334444:role/campanile-events");
            assert_eq!((to.max_age, to.max_attempts), (Some(3600), Some(185)));
        }
    }

    #[test]
    fn ways_are_told_apart_by_their_names() {
        let tenant = tenant(json!({}));
        let installation = Installation::sample();
        let channels = ["a", "b", "a-bot", "a-webhook", "webhook", "bot"];
        let paths = channels.into_iter().flat_map(PathKey::both);
        let names: BTreeSet<_> = paths
            .map(|path| path_name(&tenant, &path, &installation))
            .collect();
        assert_eq!(names.len(), 2 * channels.len());
        assert!(
            names
                .iter()
                .all(|name| name.starts_with("campanile_vsu_slack_"))
        );
    }

    #[test]
    fn a_channel_without_a_way_in_holds_nothing_else_up() {
        let notify = json!({"critical": slack(&["a", "b"]), "info": slack(&["b"])});
        let waiting = Error::new(Class::Waiting(WaitingOn::Channel), "no such channel");
        let ways = ways(&[("a", Ok(hook())), ("b", Err(waiting.clone()))]);
        let wanted = of(&tenant(notify), &ways);
        assert_eq!(wanted.connections.wanted.len(), 1);
        // Whichever it was.
        assert_eq!(
            wanted.connections.blocked.values().collect::<Vec<_>>(),
            [&waiting, &waiting]
        );
        assert!(
            wanted
                .destinations
                .blocked
                .keys()
                .eq(wanted.connections.blocked.keys())
        );
        // Those of `info` would tell nobody; what is there already stays.
        assert_eq!(
            (wanted.rules.wanted.len(), wanted.rules.blocked.len()),
            (3, 3)
        );
        assert_eq!(
            (wanted.targets.wanted.len(), wanted.targets.blocked.len()),
            (3, 6)
        );
    }

    #[test]
    fn without_a_role_nothing_is_made_and_without_slack_nothing_is_wanted() {
        let mut lost = tenant(json!({"critical": slack(&["a"])}));
        lost.spec.event_bridge = None;
        let wanted = of(&lost, &ways(&[("a", Ok(hook()))]));
        assert!(wanted.connections.wanted.is_empty() && wanted.rules.wanted.is_empty());
        let classes = wanted.targets.blocked.values().map(|error| error.class);
        assert_eq!(classes.collect::<Vec<_>>(), [Class::Invalid; 3]);
        let none = of(&tenant(json!({"critical": {}})), &Routes::new());
        assert!(
            none.paths.is_empty() && none.rules.wanted.is_empty() && none.rules.blocked.is_empty()
        );
    }

    /// As EventBridge matches: every field of the pattern is there, with one of the values.
    fn matches(pattern: &Json, event: &Json) -> bool {
        let one = |alternative: &Json| match alternative.get("prefix") {
            Some(prefix) => {
                let (prefix, text) = (prefix.as_str().unwrap(), event.as_str());
                text.is_some_and(|text| text.starts_with(prefix))
            }
            None => alternative == event,
        };
        match pattern {
            Json::Object(fields) => fields.iter().all(|(name, pattern)| {
                event.get(name).is_some_and(|event| matches(pattern, event))
            }),
            Json::Array(alternatives) => alternatives.iter().any(one),
            _ => panic!("{pattern} is not a list"),
        }
    }

    #[test]
    fn each_change_of_state_matches_its_own_rule_and_no_other() {
        let all = slack(&["a"]);
        let notify = json!({"critical": all, "warning": all, "info": all});
        let tenant = tenant(notify);
        let wanted = of(&tenant, &ways(&[("a", Ok(hook()))]));
        assert_eq!(wanted.rules.wanted.len(), 9);
        for (name, state, previous, expected) in [
            (
                "campanile/eu/vsu/critical/s/a@prod",
                "ALARM",
                "OK",
                Some((Severity::Critical, AlarmState::Alarm)),
            ),
            (
                "campanile/eu/vsu/critical/s/a",
                "ALARM",
                "INSUFFICIENT_DATA",
                Some((Severity::Critical, AlarmState::Alarm)),
            ),
            (
                "campanile/eu/vsu/warning/s/a",
                "OK",
                "ALARM",
                Some((Severity::Warning, AlarmState::Ok)),
            ),
            (
                "campanile/eu/vsu/info/s/a",
                "INSUFFICIENT_DATA",
                "ALARM",
                Some((Severity::Info, AlarmState::InsufficientData)),
            ),
            // Every new alarm does this.
            ("campanile/eu/vsu/info/s/a", "OK", "INSUFFICIENT_DATA", None),
            ("campanile/eu/vsu/info/s/a", "INSUFFICIENT_DATA", "OK", None),
            // Another tenant's, another cluster's, somebody else's.
            ("campanile/eu/vsu-2/critical/s/a", "ALARM", "OK", None),
            ("campanile/us/vsu/critical/s/a", "ALARM", "OK", None),
            ("critical", "ALARM", "OK", None),
        ] {
            let event = event(name, state, previous, "d", "r");
            let matched = wanted.rules.wanted.iter();
            let matched: Vec<_> = matched
                .filter(|(_, rule)| matches(&rule.pattern, &event))
                .collect();
            let names: Vec<_> = matched.iter().map(|(name, _)| name.as_str()).collect();
            let expected =
                expected.map(|(severity, state)| names::rule("eu", "ns", "vsu", severity, state));
            assert_eq!(
                names,
                expected.iter().map(String::as_str).collect::<Vec<_>>(),
                "{event}"
            );
        }
        let mut other = event("campanile/eu/vsu/critical/s/a", "ALARM", "OK", "d", "r");
        other["detail-type"] = json!("CloudWatch Alarm Configuration Change");
        assert!(
            !wanted
                .rules
                .wanted
                .values()
                .any(|rule| matches(&rule.pattern, &other))
        );
    }

    #[test]
    fn what_a_target_sends_is_what_slack_takes() {
        let tenant = tenant(json!({"critical": slack(&["a"])}));
        let wanted = of(&tenant, &ways(&[("a", Ok(bot()))]));
        for (key, to) in &wanted.targets.wanted {
            let event = event(
                "campanile/eu/vsu/critical/s/a",
                "ALARM",
                "OK",
                "a \"d\"\n",
                "<r>",
            );
            let text = transform(&to.message, &event);
            let message: Json = serde_json::from_str(&text).unwrap();
            assert_eq!(complaints(&message), Vec::<String>::new(), "{key}");
            let all = &message["attachments"][3]["blocks"][0]["elements"][1]["url"];
            assert_eq!(*all, json!(alarms_link(&tenant, "us-east-2", "eu")));
        }
    }

    #[test]
    fn only_what_we_set_is_compared() {
        let tenant = tenant(json!({"critical": slack(&["a"])}));
        let wanted = of(&tenant, &ways(&[("a", Ok(bot()))]));
        let connection = wanted.connections.wanted.values().next().unwrap();
        let seen = Connection {
            value: None,
            channel: String::new(),
            ..connection.clone()
        };
        assert!(connection.is_satisfied_by(&seen));
        for other in [
            Connection {
                header: "X".into(),
                ..seen.clone()
            },
            Connection {
                secret: String::new(),
                ..seen.clone()
            },
            Connection {
                foreign: Foreign::new(),
                needs_reauthorization: true,
                ..seen.clone()
            },
            Connection {
                description: "x".into(),
                ..seen.clone()
            },
        ] {
            assert!(!connection.is_satisfied_by(&other));
        }
        let destination = wanted.destinations.wanted.values().next().unwrap();
        let seen = ApiDestination {
            url: None,
            channel: String::new(),
            ..destination.clone()
        };
        assert!(destination.is_satisfied_by(&seen));
        for other in [
            ApiDestination {
                endpoint: "hmac:1".into(),
                ..seen.clone()
            },
            ApiDestination {
                per_second: 300,
                ..seen.clone()
            },
            ApiDestination {
                connection: "arn:aws:events:1".into(),
                ..seen.clone()
            },
            ApiDestination {
                method: "PUT".into(),
                ..seen.clone()
            },
        ] {
            assert!(!destination.is_satisfied_by(&other));
        }
        let to = wanted.targets.wanted.values().next().unwrap();
        let mut seen = to.clone();
        seen.message.template = seen.message.template.replace("\":", "\": ");
        assert!(to.is_satisfied_by(&seen), "the same however it is written");
        for other in [
            RuleTarget {
                role: String::new(),
                ..seen.clone()
            },
            RuleTarget {
                dead_letters: String::new(),
                ..seen.clone()
            },
            RuleTarget {
                max_age: None,
                ..seen.clone()
            },
            RuleTarget {
                foreign: ["InputPath"].into(),
                ..seen.clone()
            },
        ] {
            assert!(!to.is_satisfied_by(&other));
        }
    }

    /// What a person reads of a rule and its target before they are made, and when somebody has changed them.
    #[test]
    fn a_plan_shows_them_as_documents() {
        let tenant = tenant(json!({"critical": slack(&["a"])}));
        let wanted = of(&tenant, &ways(&[("a", Ok(hook()))]));
        let name = names::rule("eu", "ns", "vsu", Severity::Critical, AlarmState::Ok);
        let shown = |key: &TargetKey| {
            let desired = Desired {
                wanted: [(key.clone(), wanted.targets.wanted[key].clone())].into(),
                ..Desired::default()
            };
            let changes = diff::<_, _, (), ()>(&desired, &Observed::default()).changes;
            Step::of("rule target", &changes[0]).to_string()
        };
        let key = TargetKey {
            rule: name.clone(),
            id: "a".into(),
        };
        let made = shown(&key);
        for line in [
            "    message.attachments[2].text: <description>",
            "    message.attachments[0].blocks[1]: {\"elements\":[{\"text\":\"<name>\",\"type\":\"plain_text\"}]",
            "    tries for seconds: 3600",
        ] {
            assert!(
                made.lines().any(|made| made.starts_with(line)),
                "{line}\n{made}"
            );
        }
        assert!(!made.contains("canary"));
        let to = wanted.rules.wanted[&name].clone();
        let mut from = to.clone();
        from.pattern["detail"]["alarmName"][0]["prefix"] = json!("x");
        from.state = "DISABLED".into();
        let found = Found {
            id: (),
            value: from,
            owner: Owner::Us,
            live: (),
        };
        let desired = Desired {
            wanted: [(name.clone(), to)].into(),
            ..Desired::default()
        };
        let changes = diff(&desired, &[(name.clone(), found)].into_iter().collect()).changes;
        assert!(matches!(changes[..], [Change::Update { .. }]));
        assert_eq!(
            Step::of("rule", &changes[0]).to_string(),
            format!(
                "~ rule {name}\n    pattern.detail.alarmName[0].prefix: x → campanile/eu/vsu/critical/\n    state: DISABLED → ENABLED"
            )
        );
    }

    #[test]
    fn a_tenant_without_slack_is_no_concern_of_eventbridge() {
        let bare = || tenant(json!({"critical": {}}));
        assert!(concerns(&tenant(json!({"info": slack(&["a"])}))));
        let with = |status: Json, deleting: bool| {
            let mut tenant = bare();
            tenant.status = serde_json::from_value(status).unwrap();
            if deleting {
                let at = json!("2026-01-02T03:04:05Z");
                tenant.metadata.deletion_timestamp = serde_json::from_value(at).unwrap();
            }
            concerns(&tenant)
        };
        let noted = json!({"slackPaths": [{"channel": "a", "via": "Webhook"}]});
        let place = json!({"accountId": "1", "region": "r", "roleArn": "a", "prefix": "p"});
        let looked = json!({"targets": [place], "links": {"alarms": "https://"}});
        for (status, deleting, expected) in [
            // Made just now, or anew, or its status was wiped.
            (json!(null), false, true),
            (json!({}), false, true),
            (json!(null), true, true),
            (json!({}), true, true),
            (noted, false, true),
            // As a deletion leaves it that did not come to its end.
            (json!({"targets": [place]}), true, true),
            (looked.clone(), false, false),
            (looked, true, false),
        ] {
            assert_eq!(
                with(status.clone(), deleting),
                expected,
                "{status} {deleting}"
            );
        }
    }

    /// What a run has taken down need not be watched any more; what it has begun to make must be.
    #[test]
    fn it_is_a_concern_as_long_as_something_is_left() {
        let paths = |channels: &[&str]| {
            let entries = channels.iter();
            TenantObservabilityStatus {
                slack_paths: entries
                    .map(|name| PathKey::both(name)[0].clone().entry(Given::default()))
                    .collect(),
                links: Some(Links::default()),
                ..TenantObservabilityStatus::default()
            }
        };
        let listed = || tenant(json!({"info": slack(&["a"])}));
        for (mut tenant, before, after, expected) in [
            (
                tenant(json!({"info": {}})),
                &["a"][..],
                &[][..],
                (true, false),
            ),
            (tenant(json!({"info": {}})), &["a"], &["a"], (true, true)),
            (tenant(json!({"info": {}})), &[], &[], (false, false)),
            (listed(), &["a"], &[], (true, true)),
            (listed(), &[], &["a"], (true, true)),
        ] {
            tenant.status = Some(paths(before));
            let found = (concerns(&tenant), concerns_as(&tenant, Some(&paths(after))));
            assert_eq!(found, expected, "{before:?} {after:?}");
        }
    }

    /// The longest names that the schema lets through fit.
    #[test]
    fn the_longest_descriptions_fit() {
        let mut installation = Installation::sample();
        installation.cluster.name = "x".repeat(32);
        let mut tenant = tenant(json!({"critical": slack(&[&"c".repeat(63)])}));
        tenant.metadata.name = Some("t".repeat(36));
        tenant.metadata.namespace = Some("n".repeat(63));
        let way = ways(&[(&"c".repeat(63), Ok(bot()))]);
        let wanted = parts(wanted(&tenant, &way, &target(), &installation));
        assert_eq!(wanted.paths.len(), 2);
        for name in wanted.paths.keys() {
            assert!(name.len() <= 64, "{name}: {}", name.len());
        }
        for rule in wanted.rules.wanted.values() {
            assert!(rule.description.len() <= 512, "{}", rule.description);
        }
        for connection in wanted.connections.wanted.values() {
            assert!(connection.description.len() <= 512 && !connection.description.contains('\n'));
        }
    }
}
