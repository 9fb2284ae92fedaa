//! The stages against an EventBridge in memory: what is called, in which order, and what is there then.

use super::{rules::passing, *};
use crate::{
    api::{DriftPolicy, FINALIZER, SlackPathEntry},
    clients::{aws::Account, secret::Secret},
    engine::{
        applied::Applied,
        error::{Class, WaitingOn},
        gate::{Gate, Operation, StatusEdit},
        informer::{Consistency, Polling, Subscriber, Subscription},
        limits::Priority,
        rendering::Step,
        stage::{AppliedBefore, DynStage, Run, StageRun, applied_after, drive},
    },
    kinds::{
        slack_channel::route::{RouteState, SlackRoute},
        system::System as _,
        tenant::{
            Aws,
            eventbridge::{
                desired::{Routes, wanted},
                report::{self, Delivery},
            },
        },
    },
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::future::BoxFuture;
use parking_lot::MutexGuard;
use serde_json::{Value as Json, json};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

const URL: &str = "https://hooks.slack.com/services/T0CANARY/B0CANARY/canary0123456789";
const TOKEN: &str = "xoxb-1234567890-canary0123456789";
const MARK: &str = "campanile:eu/0a1b2c3d/TenantObservability/ns/vsu";

/// What EventBridge has: by name, each with what it was given.
#[derive(Default)]
struct Has {
    rules: BTreeMap<String, Json>,
    targets: BTreeMap<String, BTreeMap<String, Json>>,
    connections: BTreeMap<String, Json>,
    destinations: BTreeMap<String, Json>,
    calls: Vec<(String, Json)>,
    /// What the next call of an operation is answered with.
    faults: BTreeMap<String, Vec<(u16, Json)>>,
    made: usize,
}

#[derive(Clone, Default)]
struct EventBridge(Arc<Mutex<Has>>);

fn problem(code: &str, text: &str) -> (u16, Json) {
    (400, json!({"__type": code, "message": text}))
}

/// A page with one thing on it.
fn page(name: &str, all: Vec<Json>, body: &Json) -> (u16, Json) {
    let at: usize = body["NextToken"]
        .as_str()
        .map_or(0, |token| token.parse().unwrap());
    let next = (at + 1 < all.len()).then(|| (at + 1).to_string());
    let shown: Vec<_> = all.into_iter().skip(at).take(1).collect();
    (200, json!({name: shown, "NextToken": next}))
}

impl Has {
    fn answer(&mut self, operation: &str, body: &Json) -> (u16, Json) {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let prefix = text("NamePrefix");
        let named = |all: &BTreeMap<String, Json>| -> Vec<Json> {
            let found = all.iter().filter(|(name, _)| name.starts_with(&prefix));
            found.map(|(_, thing)| thing.clone()).collect()
        };
        let name = text("Name");
        let missing = || problem("ResourceNotFoundException", "it does not exist");
        if let Some(fault) = self.faults.get_mut(operation).and_then(Vec::pop) {
            return fault;
        }
        self.made += 1;
        let arn = |kind: &str| {
            let made = self.made;
            format!("arn:aws:events:us-east-2:222233334444:{kind}/{name}/{made}")
        };
        match operation {
            "ListRules" => page("Rules", named(&self.rules), body),
            "ListConnections" => page("Connections", named(&self.connections), body),
            "ListApiDestinations" => page("ApiDestinations", named(&self.destinations), body),
            "ListTargetsByRule" => match self.targets.get(&text("Rule")) {
                Some(targets) => page("Targets", targets.values().cloned().collect(), body),
                None => missing(),
            },
            "DescribeRule" => self
                .rules
                .get(&name)
                .map_or_else(missing, |rule| (200, rule.clone())),
            "DescribeConnection" => {
                let found = self.connections.get(&name);
                found.map_or_else(missing, |found| (200, found.clone()))
            }
            "DescribeApiDestination" => {
                let found = self.destinations.get(&name);
                found.map_or_else(missing, |found| (200, found.clone()))
            }
            "PutRule" => {
                let mut rule = body.clone();
                rule["Arn"] = json!(format!("arn:aws:events:us-east-2:222233334444:rule/{name}"));
                self.rules.insert(name.clone(), rule);
                self.targets.entry(name).or_default();
                (200, json!({"RuleArn": "arn"}))
            }
            "DeleteRule" => match self.targets.get(&name) {
                Some(targets) if !targets.is_empty() => problem(
                    "ValidationException",
                    "Rule can't be deleted since it has targets.",
                ),
                _ => {
                    self.rules.remove(&name);
                    self.targets.remove(&name);
                    (200, json!({}))
                }
            },
            "PutTargets" => match self.targets.get_mut(&text("Rule")) {
                Some(targets) => {
                    for target in body["Targets"].as_array().unwrap() {
                        targets.insert(target["Id"].as_str().unwrap().to_owned(), target.clone());
                    }
                    (200, json!({"FailedEntryCount": 0, "FailedEntries": []}))
                }
                None => missing(),
            },
            "RemoveTargets" => match self.targets.get_mut(&text("Rule")) {
                Some(targets) => {
                    for id in body["Ids"].as_array().unwrap() {
                        targets.remove(id.as_str().unwrap());
                    }
                    (200, json!({"FailedEntryCount": 0, "FailedEntries": []}))
                }
                None => missing(),
            },
            "CreateConnection" | "UpdateConnection" => {
                let known = self.connections.get(&name);
                let arn = match (known, operation) {
                    (Some(_), "CreateConnection") => {
                        return problem("ResourceAlreadyExistsException", "it exists");
                    }
                    (None, "UpdateConnection") => return missing(),
                    (Some(known), _) => known["ConnectionArn"].clone(),
                    (None, _) => json!(arn("connection")),
                };
                let mut made = body.clone();
                made["ConnectionArn"] = arn.clone();
                made["ConnectionState"] = json!("AUTHORIZED");
                made["LastModifiedTime"] = json!(self.made);
                // What is left out of an update stays.
                let added = known.map(|known| &known["AuthParameters"]["InvocationHttpParameters"]);
                let adds = &mut made["AuthParameters"]["InvocationHttpParameters"];
                if let (Some(added), true) = (added, adds.is_null()) {
                    *adds = added.clone();
                }
                self.connections.insert(name, made);
                (
                    200,
                    json!({"ConnectionArn": arn, "ConnectionState": "AUTHORIZED"}),
                )
            }
            "CreateApiDestination" | "UpdateApiDestination" => {
                let known = self.destinations.get(&name);
                let arn = match (known, operation) {
                    (Some(_), "CreateApiDestination") => {
                        return problem("ResourceAlreadyExistsException", "it exists");
                    }
                    (None, "UpdateApiDestination") => return missing(),
                    (Some(known), _) => known["ApiDestinationArn"].clone(),
                    (None, _) => json!(arn("api-destination")),
                };
                let mut made = body.clone();
                made["ApiDestinationArn"] = arn.clone();
                made["ApiDestinationState"] = json!("ACTIVE");
                self.destinations.insert(name, made);
                (
                    200,
                    json!({"ApiDestinationArn": arn, "ApiDestinationState": "ACTIVE"}),
                )
            }
            "DeleteConnection" => match self.connections.remove(&name) {
                Some(found) => (
                    200,
                    json!({"ConnectionArn": found["ConnectionArn"], "ConnectionState": "DELETING"}),
                ),
                None => missing(),
            },
            "DeleteApiDestination" => match self.destinations.remove(&name) {
                Some(_) => (200, json!({})),
                None => missing(),
            },
            other => problem("UnknownOperationException", other),
        }
    }
}

async fn answer(State(it): State<EventBridge>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.strip_prefix("AWSEvents.").unwrap().to_owned();
    let body: Json = serde_json::from_slice(&body).unwrap();
    let (status, answer) = {
        let mut has = it.has();
        has.calls.push((operation.clone(), body.clone()));
        has.answer(&operation, &body)
    };
    let status = StatusCode::from_u16(status).unwrap();
    let kind = [(CONTENT_TYPE, "application/x-amz-json-1.1")];
    (status, kind, answer.to_string()).into_response()
}

impl EventBridge {
    fn has(&self) -> MutexGuard<'_, Has> {
        self.0.lock()
    }

    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/", post(answer))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// What was called since this was asked last: what writes, and how often something was read.
    fn calls(&self) -> (Vec<String>, usize) {
        let calls = std::mem::take(&mut self.has().calls);
        let calls = calls.into_iter().map(|(operation, _)| operation);
        let reads =
            |operation: &String| operation.starts_with("List") || operation.starts_with("Describe");
        let (reads, writes): (Vec<_>, Vec<_>) = calls.partition(reads);
        (writes, reads.len())
    }

    fn writes(&self) -> Vec<String> {
        self.calls().0
    }

    fn fault(&self, operation: &str, fault: (u16, Json)) {
        let mut has = self.has();
        has.faults
            .entry(operation.to_owned())
            .or_default()
            .push(fault);
    }
}

/// So many calls are let through.
struct Open {
    status: Mutex<TenantObservabilityStatus>,
    left: AtomicUsize,
}

impl Gate for Open {
    fn enter<'a>(&'a self, _: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Relaxed, Relaxed, one_less);
        let over = |_| Error::new(Class::Superseded, "the process ends");
        Box::pin(async move { left.map(drop).map_err(over) })
    }

    fn edit<'a>(&'a self, edit: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        edit.apply(&mut *self.status.lock());
        Box::pin(async { Ok(()) })
    }

    fn answered(&self, _: Operation<'_>, _: &[(&Step, Result<(), &Error>)]) {}

    fn refused(&self, _: Operation<'_>, _: &Step) -> Option<Error> {
        None
    }
}

/// What a process knows of an account when it begins, which is nothing.
fn scope(account: Arc<Account>) -> (Arc<AwsScope>, [Subscription; 2]) {
    let scope = AwsScope::of(account, "", &Polling::none());
    let subscriber = Subscriber {
        kind: "TenantObservability",
        namespace: "ns".into(),
        name: "vsu".into(),
        uid: "uid".into(),
    };
    let prefix = BTreeSet::from([names::tenant_prefix("vsu")]);
    let subscriptions = [
        scope.rules.subscribe(&subscriber, prefix.clone()),
        scope.paths.subscribe(&subscriber, prefix),
    ];
    (Arc::new(scope), subscriptions)
}

/// A tenant, its account, and what we know of it.
struct World {
    eventbridge: EventBridge,
    scope: Arc<AwsScope>,
    subscriptions: [Subscription; 2],
    tenant: TenantObservability,
    routes: Routes,
    installation: Installation,
    /// What was applied before.
    applied: Applied,
    /// What is done about what came about outside; `None` where all is applied anew.
    drift: Option<DriftPolicy>,
}

/// What came of a run.
struct Ran {
    planned: Vec<String>,
    drift: Vec<String>,
    untried: usize,
    failed: Vec<Error>,
    way: Delivery,
    drained: Option<Duration>,
}

impl World {
    async fn new(notify: Json, routes: &[(&str, SlackRoute)]) -> Self {
        let eventbridge = EventBridge::default();
        let reads = [
            "ListRules",
            "ListTargetsByRule",
            "DescribeRule",
            "ListConnections",
            "DescribeConnection",
            "ListApiDestinations",
            "DescribeApiDestination",
        ];
        let fast = reads.map(|read| (format!("events:{read}"), 1000.0));
        let account = Account::at(&eventbridge.serve().await, &fast.into());
        let spec = json!({
            "aws": {"accountId": "222233334444", "region": "us-east-2"},
            "notify": notify,
            "eventBridge": {"invokeRoleArn": "arn:aws:iam::222233334444:role/campanile-events"}
        });
        let mut tenant = TenantObservability::new("vsu", serde_json::from_value(spec).unwrap());
        tenant.metadata.namespace = Some("ns".into());
        let routes = routes
            .iter()
            .map(|(name, way)| ((*name).to_owned(), Ok(way.clone().into())));
        let (scope, subscriptions) = scope(account);
        Self {
            eventbridge,
            scope,
            subscriptions,
            tenant,
            routes: routes.collect(),
            installation: Installation::sample(),
            applied: Applied::default(),
            drift: None,
        }
    }

    /// One channel of critical alarms, by a webhook.
    async fn hooked() -> Self {
        Self::new(slack(&["a"]), &[("a", hook(URL))]).await
    }

    async fn run(&mut self, consistency: Consistency) -> Ran {
        self.run_for(usize::MAX, consistency).await
    }

    /// The same in a process that ends before one call more than so many.
    async fn crash_after(&mut self, calls: usize) {
        self.run_for(calls, Consistency::Now).await;
        self.restart();
    }

    /// The process begins anew.
    fn restart(&mut self) {
        (self.scope, self.subscriptions) = scope(self.scope.account.clone());
    }

    async fn run_for(&mut self, calls: usize, consistency: Consistency) -> Ran {
        let target = Aws::target(
            &self.tenant,
            &crate::kinds::tenant::Inputs {
                integrations: Default::default(),
                routes: Routes::new(),
                sets: Vec::new(),
            },
            &self.installation,
        );
        let wanted = if self.tenant.metadata.deletion_timestamp.is_some() {
            Wanted::default()
        } else {
            wanted(
                &self.tenant,
                &self.routes,
                &target.unwrap(),
                &self.installation,
            )
        };
        let status = self.tenant.status.clone().unwrap_or_default();
        let options = ReadOptions {
            uid: "uid".into(),
            priority: Priority::Edit,
            consistency,
            since: Instant::now(),
            superseded: CancellationToken::new(),
        };
        let events = EventBridgeContext::new(
            &self.tenant,
            &wanted,
            &status,
            self.scope.clone(),
            options,
            self.installation.ownership(&self.tenant, &[]),
            &self.installation,
        );
        let (slack, rules) = stages(wanted, &events);
        let (mut slack, mut rules) = (StageRun::new(slack), StageRun::new(rules));
        let gate = Open {
            status: Mutex::new(status),
            left: AtomicUsize::new(calls),
        };
        let applied = self.applied.clone();
        let before = self.drift.map(|drift| AppliedBefore {
            applied: &applied,
            drift,
        });
        let mut run = Run::new(Some(&gate), "").since(before);
        drive(&mut [&mut slack, &mut rules], &mut run).await;
        let report = std::mem::take(&mut run.report);
        let all: [&mut dyn DynStage; 2] = [&mut slack, &mut rules];
        let now = applied_after(&all, "", &applied);
        drop(run);
        self.applied = now;
        let mut status = gate.status.into_inner();
        // A process that ends has said no more than what it was about to do.
        if calls == usize::MAX {
            report::record(&slack, &rules, &mut status);
        }
        let drained = slack.seen.as_ref();
        let drained = drained.and_then(|seen| events.drained_in(seen));
        let way = report::delivery(&slack, &rules, &report.failed);
        let told = format!("{report:?} {status:?} {way:?}");
        let cluster = told.find("canary").map(|at| &told[at - 100..at + 20]);
        assert_eq!(cluster, None, "no secret is told");
        self.tenant.status = Some(status);
        Ran {
            planned: report.planned.iter().map(Step::to_string).collect(),
            drift: report.drift.iter().map(Step::to_string).collect(),
            untried: report.untried,
            failed: report
                .failed
                .into_iter()
                .map(|failure| failure.error)
                .collect(),
            way,
            drained,
        }
    }

    /// Runs on what is there now, and is as it should be.
    async fn settles(&mut self) -> Vec<String> {
        let ran = self.run(Consistency::Now).await;
        assert_eq!(ran.failed, []);
        assert_eq!(ran.way, Delivery::Known(Vec::new()));
        self.eventbridge.writes()
    }

    /// The paths in status, without when AWS modified them.
    fn paths(&self) -> Json {
        let paths = self.tenant.status.as_ref().unwrap().slack_paths.iter();
        let undated = |path: &SlackPathEntry| SlackPathEntry {
            modified: None,
            ..path.clone()
        };
        json!(paths.map(undated).collect::<Vec<_>>())
    }

    /// The name of the way into a channel by which it is asked for now.
    fn path(&self, channel: &str) -> String {
        let [hook, bot] = PathKey::both(channel);
        let is_hook = matches!(
            self.routes[channel],
            Ok(RouteState {
                route: SlackRoute::Webhook(_),
                ..
            })
        );
        let path = if is_hook { hook } else { bot };
        path_name(&self.tenant, &path, &self.installation)
    }

    /// Lets the time pass for which paths stay that have been replaced.
    fn drain(&self) {
        let mut retired = self.scope.paths.source.reader.retired.lock();
        retired
            .values_mut()
            .for_each(|until| *until = Instant::now());
    }

    /// The names of the connections and of the API destinations that there are.
    fn there(&self) -> (Vec<String>, Vec<String>) {
        let has = self.eventbridge.has();
        let names = |all: &BTreeMap<String, Json>| all.keys().cloned().collect();
        (names(&has.connections), names(&has.destinations))
    }

    /// That every event arrives somewhere: every rule has a target for `a`, which leads to an API destination whose
    /// connection is there; and its message is one for where it goes.
    fn leads(&self) {
        let has = self.eventbridge.has();
        assert_eq!(has.targets.len(), 3);
        for (rule, targets) in &has.targets {
            let target = &targets["a"];
            let mut all = has.destinations.values();
            let destination = all.find(|it| it["ApiDestinationArn"] == target["Arn"]);
            let destination = destination.unwrap_or_else(|| panic!("{rule} leads nowhere"));
            let mut all = has.connections.values();
            let connection = all.find(|it| it["ConnectionArn"] == destination["ConnectionArn"]);
            let connection = connection.unwrap_or_else(|| panic!("{rule} is let in nowhere"));
            let bot = destination["InvocationEndpoint"] != URL;
            let header = &connection["AuthParameters"]["ApiKeyAuthParameters"]["ApiKeyName"];
            assert_eq!(*header == "Authorization", bot, "{rule}");
            let message = target["InputTransformer"]["InputTemplate"].to_string();
            assert_eq!(message.contains("C012AB3CD"), bot, "{rule}: {message}");
        }
    }

    /// Its status was lost.
    fn wipe(&mut self) {
        self.tenant.status = None;
        self.tenant.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    }

    /// The tenant is to go.
    fn delete(&mut self) {
        let at = json!("2026-01-02T03:04:05Z");
        self.tenant.metadata.deletion_timestamp = serde_json::from_value(at).unwrap();
    }

    fn rotate(&mut self, channel: &str, way: SlackRoute) {
        self.routes.insert(channel.to_owned(), Ok(way.into()));
    }
}

fn slack(channels: &[&str]) -> Json {
    let channels = channels
        .iter()
        .map(|name| json!({"channelRef": {"name": name}}));
    json!({"critical": {"slack": channels.collect::<Vec<_>>()}})
}

fn hook(url: &str) -> SlackRoute {
    SlackRoute::Webhook(Secret::new(url.into()))
}

fn bot(token: &str) -> SlackRoute {
    SlackRoute::BotToken {
        token: Secret::new(token.into()),
        channel_id: "C012AB3CD".into(),
    }
}

#[tokio::test]
async fn it_is_made_once_and_looked_at_cheaply() {
    let mut world = World::new(slack(&["a", "b"]), &[("a", hook(URL)), ("b", bot(TOKEN))]).await;
    let made = world.settles().await;
    let count = |operation: &str| made.iter().filter(|made| *made == operation).count();
    assert_eq!(
        [
            "CreateConnection",
            "CreateApiDestination",
            "PutRule",
            "PutTargets"
        ]
        .map(count),
        [2, 2, 3, 6]
    );
    assert_eq!(made.len(), 13, "{made:?}");
    let order = made.iter().map(|made| match made.as_str() {
        "CreateConnection" => 0,
        "CreateApiDestination" => 1,
        "PutRule" => 2,
        _ => 3,
    });
    assert!(order.is_sorted(), "{made:?}");
    {
        let has = world.eventbridge.has();
        let (a, b) = (
            &has.connections[&world.path("a")],
            &has.connections[&world.path("b")],
        );
        let key = |it: &Json| it["AuthParameters"]["ApiKeyAuthParameters"].clone();
        assert_eq!(key(a)["ApiKeyName"], "X-Campanile");
        assert!(
            !a.to_string().contains("canary"),
            "a webhook needs no secret there"
        );
        assert_eq!(
            key(b),
            json!({"ApiKeyName": "Authorization", "ApiKeyValue": format!("Bearer {TOKEN}")})
        );
        for thing in has.connections.values().chain(has.destinations.values()) {
            assert_eq!(thing["Description"], MARK);
        }
        let (a, b) = (
            &has.destinations[&world.path("a")],
            &has.destinations[&world.path("b")],
        );
        assert_eq!(a["InvocationEndpoint"], URL);
        assert_eq!(
            b["InvocationEndpoint"],
            "https://slack.com/api/chat.postMessage"
        );
        assert_eq!(
            (&b["InvocationRateLimitPerSecond"], &b["HttpMethod"]),
            (&json!(1), &json!("POST"))
        );
        for targets in has.targets.values() {
            assert_eq!(targets.keys().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(targets["a"]["Arn"], a["ApiDestinationArn"]);
            assert_eq!(
                targets["a"]["RetryPolicy"]["MaximumEventAgeInSeconds"],
                3600
            );
        }
    }
    let digest = |secret: &str| world.installation.digester.digest(secret).to_string();
    let applied = json!(world.applied);
    let nouns: Vec<_> = applied.as_object().unwrap().keys().collect();
    assert_eq!(
        nouns,
        ["api destination", "connection", "rule", "rule target"]
    );
    assert_eq!(
        world.paths(),
        json!([
            {"channel": "a", "via": "Webhook", "secret": digest(URL)},
            {"channel": "b", "via": "BotToken", "secret": digest(TOKEN)}
        ])
    );
    assert_eq!(world.settles().await, Vec::<String>::new());
    // What is known is not read again.
    let ran = world.run(Consistency::Known).await;
    assert_eq!(
        (ran.planned.len(), world.eventbridge.calls()),
        (0, (Vec::new(), 0))
    );
}

#[tokio::test]
async fn without_slack_eventbridge_is_not_asked() {
    let mut world = World::new(json!({"critical": {}}), &[]).await;
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.way, ran.planned.len()), (Delivery::ToNobody, 0));
    assert_eq!(world.eventbridge.calls(), (Vec::new(), 0));
}

#[tokio::test]
async fn a_new_secret_is_written_in_place() {
    let mut world = World::new(slack(&["a", "b"]), &[("a", hook(URL)), ("b", bot(TOKEN))]).await;
    world.settles().await;
    let (a, b) = (world.path("a"), world.path("b"));
    let arns = |world: &World| {
        let has = world.eventbridge.has();
        let connections = [&a, &b].map(|name| has.connections[name]["ConnectionArn"].clone());
        let destinations = [&a, &b].map(|name| has.destinations[name]["ApiDestinationArn"].clone());
        (connections, destinations)
    };
    let before = arns(&world);
    world.rotate("b", bot("xoxb-canary-2"));
    assert_eq!(world.settles().await, ["UpdateConnection"]);
    let value = world.eventbridge.has().connections[&b]["AuthParameters"]["ApiKeyAuthParameters"]["ApiKeyValue"].clone();
    assert_eq!(value, "Bearer xoxb-canary-2");
    world.rotate("a", hook("https://hooks.slack.com/services/T/B/canary2"));
    assert_eq!(world.settles().await, ["UpdateApiDestination"]);
    assert_eq!(arns(&world), before);
    assert_eq!(world.settles().await, Vec::<String>::new());
    // Without status nobody knows which token was given last.
    world.tenant.status = None;
    assert_eq!(world.settles().await, ["UpdateConnection"]);
    assert_eq!(world.paths().as_array().unwrap().len(), 2);
}

const MADE: [&str; 5] = [
    "CreateConnection",
    "CreateApiDestination",
    "PutTargets",
    "PutTargets",
    "PutTargets",
];

#[tokio::test]
async fn another_way_takes_the_place_of_one_that_drains() {
    let mut world = World::hooked().await;
    world.settles().await;
    let old = world.path("a");
    world.rotate("a", bot(TOKEN));
    let new = world.path("a");
    let digest = |secret: &str| world.installation.digester.digest(secret).to_string();
    let (by_hook, by_bot) = (
        json!({"channel": "a", "via": "Webhook", "secret": digest(URL)}),
        json!({"channel": "a", "via": "BotToken", "secret": digest(TOKEN)}),
    );
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.failed, ran.way), (vec![], Delivery::Known(Vec::new())));
    assert_eq!(world.eventbridge.writes(), MADE);
    world.leads();
    assert!(ran.drained.is_some_and(|left| left <= DRAINING));
    let both = BTreeSet::from([&old, &new]);
    let names = |names: &[String]| names.iter().collect::<BTreeSet<_>>() == both;
    let (connections, destinations) = world.there();
    assert!(names(&connections) && names(&destinations));
    assert_eq!(world.paths(), json!([by_hook, by_bot]));
    // As long as something may be on its way, nothing happens, whoever looks; one that does not know for how
    // long it has been so begins anew.
    assert_eq!(world.settles().await, Vec::<String>::new());
    world.crash_after(0).await;
    world.drain();
    assert_eq!(world.settles().await, Vec::<String>::new());
    assert_eq!(world.paths(), json!([by_hook, by_bot]));
    world.drain();
    let gone = ["DeleteApiDestination", "DeleteConnection"];
    assert_eq!(world.settles().await, gone);
    world.leads();
    assert_eq!(world.there(), (vec![new.clone()], vec![new]));
    assert_eq!(world.paths(), json!([by_bot]));
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.planned, ran.drained), (vec![], None));
    // And back, while the one still drains that came first.
    world.eventbridge.writes();
    world.rotate("a", hook(URL));
    assert_eq!(world.settles().await, MADE);
    world.rotate("a", bot(TOKEN));
    assert_eq!(world.settles().await, MADE[2..], "it is there as it was");
    world.leads();
    world.rotate("a", bot("xoxb-canary-2"));
    assert_eq!(world.settles().await, ["UpdateConnection"], "in place");
    world.drain();
    assert_eq!(world.settles().await, gone);
    world.leads();
    assert_eq!(world.settles().await, Vec::<String>::new());
}

/// What an edit has left for later is no drift, and is done whatever the spec says about that.
#[tokio::test]
async fn the_hour_of_a_way_that_was_replaced_hides_no_drift() {
    let mut world = World::hooked().await;
    world.settles().await;
    world.rotate("a", bot(TOKEN));
    assert_eq!(
        world.run(Consistency::Now).await.untried,
        0,
        "it is applied"
    );
    world.eventbridge.calls();
    world.drift = Some(DriftPolicy::Report);
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.drift.len(), ran.untried), (0, 0));
    let rule = {
        let mut has = world.eventbridge.has();
        let (name, rule) = has.rules.iter_mut().next().unwrap();
        rule["State"] = json!("DISABLED");
        name.clone()
    };
    let ran = world.run(Consistency::Now).await;
    assert!(
        ran.drift.len() == 1 && ran.drift[0].contains(&rule),
        "{:?}",
        ran.drift
    );
    assert_eq!(world.eventbridge.writes(), Vec::<String>::new());
    world.drain();
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.drift.len(), ran.untried), (1, 0));
    let gone = world.eventbridge.writes();
    assert_eq!(gone, ["DeleteApiDestination", "DeleteConnection"]);
}

/// Wherever the process ends, every event has somewhere to go, and in the end nothing is there twice.
#[tokio::test]
async fn a_crash_between_two_ways_loses_and_leaves_nothing() {
    for (before, after) in [(hook(URL), bot(TOKEN)), (bot(TOKEN), hook(URL))] {
        for calls in 0..=MADE.len() {
            let mut world = World::new(slack(&["a"]), &[("a", before.clone())]).await;
            world.settles().await;
            let old = world.path("a");
            world.rotate("a", after.clone());
            world.crash_after(calls).await;
            assert_eq!(world.eventbridge.writes(), MADE[..calls]);
            world.leads();
            // Which token it was given, if it was made, went with the process.
            let unsure = calls > 0 && matches!(after, SlackRoute::BotToken { .. });
            let again = if unsure {
                &["UpdateConnection"][..]
            } else {
                &[]
            };
            assert_eq!(world.settles().await, [again, &MADE[calls..]].concat());
            world.leads();
            assert_ne!(world.path("a"), old);
            world.drain();
            world.crash_after(1).await;
            assert_eq!(world.eventbridge.writes(), ["DeleteApiDestination"]);
            world.leads();
            assert_eq!(world.settles().await, ["DeleteConnection"]);
            let new = world.path("a");
            assert_eq!(world.there(), (vec![new.clone()], vec![new]));
            assert_eq!(world.paths().as_array().unwrap().len(), 1);
            assert_eq!(world.settles().await, Vec::<String>::new());

            // Nor where it is taken back half way.
            world.rotate("a", before.clone());
            world.crash_after(calls).await;
            world.leads();
            world.rotate("a", after.clone());
            world.run(Consistency::Now).await;
            world.leads();
            world.drain();
            world.run(Consistency::Now).await;
            world.leads();
            let new = world.path("a");
            assert_eq!(world.there(), (vec![new.clone()], vec![new]), "{calls}");
            assert_eq!(world.paths().as_array().unwrap().len(), 1);
        }
    }
}

/// What serves stays for as long as what is to replace it does not, whatever is wrong with that.
#[tokio::test]
async fn a_way_stays_until_nothing_leads_there() {
    let unfit = || problem("ValidationException", "it is not valid");
    let quota = || problem("LimitExceededException", "too many");
    let entry = json!({"TargetId": "a", "ErrorCode": "InvalidArgument", "ErrorMessage": "no"});
    let entry = || {
        (
            200,
            json!({"FailedEntryCount": 1, "FailedEntries": [entry]}),
        )
    };
    for (operation, fault, then) in [
        ("CreateConnection", quota(), &MADE[..]),
        ("CreateApiDestination", quota(), &MADE[1..]),
        ("PutTargets", unfit(), &MADE[4..]),
        ("PutTargets", entry(), &MADE[4..]),
    ] {
        let mut world = World::hooked().await;
        world.settles().await;
        let old = world.path("a");
        world.rotate("a", bot(TOKEN));
        for _ in 0..2 {
            world.eventbridge.fault(operation, fault.clone());
            let ran = world.run(Consistency::Now).await;
            let classes: BTreeSet<_> = ran.failed.iter().map(|it| it.class.label()).collect();
            assert!(classes.contains("rejected"), "{operation}: {classes:?}");
            assert_eq!(ran.drained, None, "{operation}: its time has not begun");
            world.leads();
            let (connections, destinations) = world.there();
            assert!(connections.contains(&old) && destinations.contains(&old));
            world.drain();
        }
        world.eventbridge.writes();
        assert_eq!(world.settles().await, then, "{operation}");
        world.leads();
        world.drain();
        world.settles().await;
        let new = world.path("a");
        assert_eq!(world.there(), (vec![new.clone()], vec![new]));
    }
}

/// A channel that is not asked for any more, and a tenant that goes, take both along at once.
#[tokio::test]
async fn what_goes_takes_both_ways_along() {
    for (deleted, lost) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::hooked().await;
        world.settles().await;
        world.rotate("a", bot(TOKEN));
        world.settles().await;
        assert_eq!(world.there().0.len(), 2);
        if deleted {
            world.delete();
        } else {
            world.tenant.spec.notify = None;
        }
        if lost {
            world.wipe();
        }
        let ran = world.run(Consistency::Now).await;
        assert_eq!((ran.failed, ran.way), (vec![], Delivery::ToNobody));
        assert_eq!(world.there(), (vec![], vec![]), "{deleted} {lost}");
        assert_eq!(world.paths(), json!([]));
    }
}

/// Without its SlackChannel, or its Secret, nobody can say by which way a channel is asked for.
#[tokio::test]
async fn whichever_way_there_is_stays_while_nobody_knows_which() {
    for lost in [false, true] {
        let mut world = World::hooked().await;
        world.settles().await;
        world.rotate("a", bot(TOKEN));
        world.settles().await;
        let both = world.there();
        let known = world.routes["a"].clone();
        let waiting = Error::new(Class::Waiting(WaitingOn::Channel), "it is not there");
        world.routes.insert("a".into(), Err(waiting.clone()));
        world.drain();
        if lost {
            world.tenant.status = None;
            world.restart();
        }
        for _ in 0..2 {
            let ran = world.run(Consistency::Now).await;
            assert_eq!(ran.planned, Vec::<String>::new());
            assert!(ran.failed.iter().all(|error| *error == waiting));
            assert_eq!(
                (world.eventbridge.writes(), world.there()),
                (vec![], both.clone())
            );
            assert_eq!(world.paths().as_array().unwrap().len(), 2);
        }
        world.routes.insert("a".into(), known);
        // Which token it was went with status.
        let again = if lost {
            vec!["UpdateConnection"]
        } else {
            vec![]
        };
        assert_eq!(world.settles().await, again);
        world.drain();
        assert_eq!(
            world.settles().await,
            ["DeleteApiDestination", "DeleteConnection"]
        );
        world.leads();
    }
}

#[tokio::test]
async fn what_somebody_did_is_put_right() {
    let mut world = World::hooked().await;
    world.settles().await;
    let path = world.path("a");
    let rules: Vec<_> = world.eventbridge.has().rules.keys().cloned().collect();
    type Damage = fn(&mut Has, &str, &str);
    let damages: [(Damage, &[&str]); 13] = [
        (
            // Its API destination and all that refers to it stays what it is.
            |has, path, _| drop(has.connections.remove(path)),
            &["CreateConnection", "UpdateApiDestination"],
        ),
        (
            |has, path, _| drop(has.destinations.remove(path)),
            &[
                "CreateApiDestination",
                "PutTargets",
                "PutTargets",
                "PutTargets",
            ],
        ),
        (
            |has, path, _| {
                has.destinations.get_mut(path).unwrap()["InvocationEndpoint"] =
                    json!("https://x.example")
            },
            &["UpdateApiDestination"],
        ),
        (
            |has, path, _| {
                let key = json!({"ApiKeyName": "Authorization", "ApiKeyValue": "x"});
                has.connections.get_mut(path).unwrap()["AuthParameters"]["ApiKeyAuthParameters"] =
                    key;
            },
            &["UpdateConnection"],
        ),
        (
            |has, _, rule| {
                has.rules.remove(rule);
                has.targets.remove(rule);
            },
            &["PutRule", "PutTargets"],
        ),
        (
            |has, _, rule| has.rules.get_mut(rule).unwrap()["State"] = json!("DISABLED"),
            &["PutRule"],
        ),
        (
            |has, _, rule| has.targets.get_mut(rule).unwrap().clear(),
            &["PutTargets"],
        ),
        (
            |has, _, rule| {
                let mut target = has.targets[rule]["a"].clone();
                target["Id"] = json!("mine");
                has.targets
                    .get_mut(rule)
                    .unwrap()
                    .insert("mine".into(), target);
            },
            &["RemoveTargets"],
        ),
        (
            |has, _, rule| {
                let target = has.targets.get_mut(rule).unwrap().get_mut("a").unwrap();
                target["InputTransformer"]["InputTemplate"] = json!("\"<name>\"");
                target["InputPath"] = json!("$.detail");
            },
            &["PutTargets"],
        ),
        (
            |has, _, rule| {
                let target = has.targets.get_mut(rule).unwrap().get_mut("a").unwrap();
                target["HttpParameters"] = json!({"HeaderParameters": {"X-Team": "a"}});
            },
            &["PutTargets"],
        ),
        (
            |has, _, rule| {
                has.rules.get_mut(rule).unwrap()["ScheduleExpression"] = json!("rate(1 day)")
            },
            &["PutRule"],
        ),
        (
            |has, _, rule| {
                has.rules.get_mut(rule).unwrap()["RoleArn"] = json!("arn:aws:iam::1:role/x")
            },
            &["PutRule"],
        ),
        (
            |has, path, _| {
                let parameters = json!({"QueryStringParameters": [{"Key": "a", "Value": "b", "IsValueSecret": false}]});
                has.connections.get_mut(path).unwrap()["AuthParameters"]["InvocationHttpParameters"] =
                    parameters;
            },
            &["UpdateConnection"],
        ),
    ];
    for (damage, repair) in damages {
        damage(&mut world.eventbridge.has(), &path, &rules[0]);
        assert_eq!(world.settles().await, repair);
        assert_eq!(
            world.settles().await,
            Vec::<String>::new(),
            "after {repair:?}"
        );
    }
    // Written otherwise, it is the same.
    {
        let mut has = world.eventbridge.has();
        let rule = has.rules.get_mut(&rules[0]).unwrap();
        let pattern: Json = serde_json::from_str(rule["EventPattern"].as_str().unwrap()).unwrap();
        rule["EventPattern"] = json!(serde_json::to_string_pretty(&pattern).unwrap());
    }
    assert_eq!(world.settles().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_that_is_refused_is_written_again_once() {
    let mut world = World::new(slack(&["a"]), &[("a", bot(TOKEN))]).await;
    world.settles().await;
    let path = world.path("a");
    let bar = |world: &World| {
        let mut has = world.eventbridge.has();
        has.connections.get_mut(&path).unwrap()["ConnectionState"] = json!("DEAUTHORIZED");
    };
    for _ in 0..2 {
        bar(&world);
        assert_eq!(world.settles().await, ["UpdateConnection"], "each time");
        assert_eq!(world.settles().await, Vec::<String>::new());
    }
    // AWS says at once that it was of no use.
    bar(&world);
    let refused = json!({"ConnectionArn": "arn:aws:events:us-east-2:222233334444:connection/x/1", "ConnectionState": "DEAUTHORIZED"});
    world.eventbridge.fault("UpdateConnection", (200, refused));
    for writes in [vec!["UpdateConnection"], vec![], vec![]] {
        let ran = world.run(Consistency::Now).await;
        assert_eq!(world.eventbridge.writes(), writes);
        let Delivery::Known(troubles) = ran.way else {
            panic!("{:?}", ran.way);
        };
        assert_eq!(troubles[0].0, "SlackNotAuthorized");
    }
    world.rotate("a", bot("xoxb-canary-2"));
    assert_eq!(
        world.settles().await,
        ["UpdateConnection"],
        "another secret is another matter"
    );
}

/// AWS never gives a key back; but it says when the connection was modified.
#[tokio::test]
async fn a_key_that_somebody_else_wrote_is_written_again_once() {
    let nothing = Vec::<String>::new();
    let mut world = World::new(slack(&["a"]), &[("a", bot(TOKEN))]).await;
    world.settles().await;
    assert_eq!(world.settles().await, nothing);
    let path = world.path("a");
    let writes = |world: &World| {
        let mut has = world.eventbridge.has();
        let connection = has.connections.get_mut(&path).unwrap();
        let at = connection["LastModifiedTime"].as_i64().unwrap();
        connection["LastModifiedTime"] = json!(at + 60);
    };
    for _ in 0..2 {
        writes(&world);
        world.restart();
        assert_eq!(world.settles().await, ["UpdateConnection"]);
        for _ in 0..2 {
            world.restart();
            assert_eq!(world.settles().await, nothing);
        }
    }
    world.drift = Some(DriftPolicy::Report);
    writes(&world);
    for _ in 0..2 {
        let drift = world.run(Consistency::Now).await.drift.concat();
        assert!(
            drift.contains("written by somebody else at 1970-"),
            "{drift}"
        );
        assert_eq!(world.eventbridge.writes(), nothing);
    }
    world.drift = None;
    assert_eq!(world.settles().await, ["UpdateConnection"]);
}

#[tokio::test]
async fn what_is_anothers_is_left_alone() {
    let mut world = World::hooked().await;
    world.settles().await;
    let other = MARK.replace("/ns/", "/other/");
    let mine = "campanile_vsu_mine";
    let before = {
        let mut has = world.eventbridge.has();
        for description in ["", other.as_str()] {
            let name = format!("{mine}{}", description.len());
            let rule = json!({"Name": name, "Description": description, "EventPattern": "{}", "State": "ENABLED"});
            has.rules.insert(name.clone(), rule);
            let target = json!({"Id": "x", "Arn": "arn:aws:sqs:us-east-2:222233334444:x"});
            has.targets
                .insert(name.clone(), [("x".to_owned(), target)].into());
            let connection = json!({"Name": name, "Description": description, "ConnectionState": "DEAUTHORIZED"});
            has.connections.insert(name.clone(), connection);
            has.destinations.insert(
                name.clone(),
                json!({"Name": name, "Description": description}),
            );
        }
        // One of ours that says it is somebody else's now.
        let path = world.path("a");
        has.connections.get_mut(&path).unwrap()["Description"] = json!(other);
        let rule = has
            .rules
            .keys()
            .find(|name| !name.starts_with(mine))
            .unwrap()
            .clone();
        has.rules.get_mut(&rule).unwrap()["Description"] = json!("");
        (
            has.rules.clone(),
            has.targets.clone(),
            has.connections.clone(),
            has.destinations.clone(),
        )
    };
    let now = |world: &World| {
        let has = world.eventbridge.has();
        (
            has.rules.clone(),
            has.targets.clone(),
            has.connections.clone(),
            has.destinations.clone(),
        )
    };
    let ran = world.run(Consistency::Now).await;
    let conflicts = ran
        .failed
        .iter()
        .filter(|error| error.class == Class::Conflict);
    assert_eq!(conflicts.count(), 2, "{:?}", ran.failed);
    let Delivery::Known(troubles) = ran.way else {
        panic!("{:?}", ran.way);
    };
    assert_eq!(troubles[0].0, "SlackConflict");
    assert_eq!(now(&world), before);
    // Nor when we go.
    world.delete();
    world.run(Consistency::Now).await;
    let after = now(&world);
    assert!(after.0.len() == 3 && after.1.values().all(|targets| targets.len() == 1));
    assert_eq!((after.2.len(), after.3.len()), (3, 2));
}

#[tokio::test]
async fn it_goes_in_the_order_in_which_it_may() {
    let mut world = World::new(slack(&["a", "b"]), &[("a", hook(URL)), ("b", bot(TOKEN))]).await;
    world.settles().await;
    // One channel less.
    world.tenant.spec = {
        let mut spec = serde_json::to_value(&world.tenant.spec).unwrap();
        spec["notify"] = slack(&["a"]);
        serde_json::from_value(spec).unwrap()
    };
    assert_eq!(
        world.settles().await,
        [
            "RemoveTargets",
            "RemoveTargets",
            "RemoveTargets",
            "DeleteApiDestination",
            "DeleteConnection"
        ]
    );
    assert_eq!(world.paths().as_array().unwrap().len(), 1);
    // No Slack at all.
    world.tenant.spec.notify = None;
    world.eventbridge.fault(
        "RemoveTargets",
        (500, json!({"__type": "InternalException"})),
    );
    let ran = world.run(Consistency::Now).await;
    assert_eq!(ran.failed.len(), 1);
    let removed = ["RemoveTargets", "RemoveTargets", "RemoveTargets"];
    assert_eq!(
        world.eventbridge.writes(),
        [&removed[..], &["DeleteRule", "DeleteRule"]].concat(),
        "nothing goes that is still referred to"
    );
    assert_eq!(
        world.paths().as_array().unwrap().len(),
        1,
        "it is not forgotten"
    );
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.failed, ran.way), (vec![], Delivery::ToNobody));
    assert_eq!(
        world.eventbridge.writes(),
        [
            "RemoveTargets",
            "DeleteRule",
            "DeleteApiDestination",
            "DeleteConnection"
        ]
    );
    assert_eq!(world.paths(), json!([]));
    world.run(Consistency::Now).await;
    assert_eq!(
        world.eventbridge.calls(),
        (Vec::new(), 0),
        "and then it is not asked any more"
    );
}

#[tokio::test]
async fn a_deletion_finds_it_though_status_was_lost() {
    let mut world = World::hooked().await;
    world.settles().await;
    world.wipe();
    world.delete();
    let ran = world.run(Consistency::Now).await;
    assert_eq!(ran.failed, []);
    let has = world.eventbridge.has();
    assert!(has.rules.is_empty() && has.connections.is_empty() && has.destinations.is_empty());
}

#[tokio::test]
async fn a_target_that_failed_is_an_error_of_its_own() {
    let mut world = World::hooked().await;
    let entry = json!({"TargetId": "a", "ErrorCode": "ResourceNotFoundException", "ErrorMessage": "no such destination"});
    let failed = json!({"FailedEntryCount": 1, "FailedEntries": [entry]});
    world.eventbridge.fault("PutTargets", (200, failed));
    let ran = world.run(Consistency::Now).await;
    assert_eq!(ran.failed.len(), 1);
    // It went while we were at it: nobody remembers that against the target, which heals with the next look.
    assert_eq!(ran.failed[0].class, Class::Unavailable);
    let says = &ran.failed[0].message;
    assert!(
        says.contains("ResourceNotFoundException: target a: no such destination"),
        "{says}"
    );
    let Delivery::Known(troubles) = ran.way else {
        panic!("{:?}", ran.way);
    };
    assert_eq!(troubles[0].0, "SlackPathMissing");
    assert!(
        troubles[0]
            .1
            .contains("SlackChannel a lacks its rule target")
    );
    world.eventbridge.writes();
    assert_eq!(
        world.settles().await,
        ["PutTargets"],
        "the others are there"
    );
    world
        .eventbridge
        .fault("PutTargets", (200, json!({"FailedEntryCount": 2})));
    let rule = world.eventbridge.has().rules.keys().next().unwrap().clone();
    world
        .eventbridge
        .has()
        .targets
        .get_mut(&rule)
        .unwrap()
        .clear();
    assert_eq!(
        world.run(Consistency::Now).await.failed.len(),
        1,
        "though nobody says which"
    );
}

#[tokio::test]
async fn what_came_to_be_meanwhile_is_looked_at_first() {
    let mut world = World::hooked().await;
    world.eventbridge.fault(
        "CreateConnection",
        problem("ResourceAlreadyExistsException", "it exists"),
    );
    world.eventbridge.fault(
        "PutRule",
        problem("ConcurrentModificationException", "busy"),
    );
    let ran = world.run(Consistency::Now).await;
    // Without its connection the rest waits.
    assert!(
        ran.failed
            .iter()
            .any(|error| error.class == Class::Unavailable)
    );
    assert!(
        ran.failed
            .iter()
            .all(|error| matches!(error.class, Class::Unavailable | Class::Waiting(_)))
    );
    assert_eq!(world.eventbridge.writes(), ["CreateConnection"]);
    assert_eq!(
        world.paths(),
        json!([{"channel": "a", "via": "Webhook"}]),
        "it is noted before it is made"
    );
    let ran = world.run(Consistency::Known).await;
    assert_eq!(
        ran.failed.len(),
        2,
        "a rule, and its target: {:?}",
        ran.failed
    );
    world.eventbridge.writes();
    assert_eq!(world.settles().await, ["PutRule", "PutTargets"]);
}

#[tokio::test]
async fn what_aws_quotes_is_not_told() {
    let mut world = World::new(slack(&["a", "b"]), &[("a", hook(URL)), ("b", bot(TOKEN))]).await;
    let says = |value: &str| {
        problem(
            "ValidationException",
            &format!("Value '{value}' is not valid"),
        )
    };
    // The last is the first: that of the webhook has no secret.
    world
        .eventbridge
        .fault("CreateConnection", says(&format!("Bearer {TOKEN}")));
    world.eventbridge.fault("CreateConnection", says("webhook"));
    // `run` looks for them in all that is told.
    assert!(!world.run(Consistency::Now).await.failed.is_empty());
    world.settles().await;
    world.rotate(
        "a",
        hook("https://hooks.slack.com/services/T0CANARY/B1/canary2"),
    );
    world.rotate("b", bot("xoxb-canary-2"));
    world.eventbridge.fault(
        "UpdateApiDestination",
        says("https://hooks.slack.com/services/T0CANARY/B1/canary2"),
    );
    world
        .eventbridge
        .fault("UpdateConnection", says("xoxb-canary-2"));
    let ran = world.run(Consistency::Now).await;
    assert_eq!(ran.failed.len(), 2, "{:?}", ran.failed);
    // It was certainly not given.
    world.eventbridge.writes();
    assert_eq!(
        world.settles().await,
        ["UpdateConnection", "UpdateApiDestination"]
    );
}

#[test]
fn who_may_not_hand_over_the_role_is_told_so() {
    let denied = |text: &str| passing(Error::new(Class::Denied, text), Some(text), "arn:invoke");
    let error = denied("is not authorized to perform: iam:PassRole");
    assert!(
        error.message.contains("iam:PassRole on arn:invoke"),
        "{error}"
    );
    assert!(!denied("no").message.contains("PassRole"));
    let unnamed = denied("the role cannot be assumed by principal 'events.amazonaws.com'");
    assert!(
        unnamed.message.ends_with(" (the role is arn:invoke)"),
        "{unnamed}"
    );
    let named = "'arn:invoke' cannot be assumed by principal 'events.amazonaws.com'";
    assert_eq!(denied(named).message, named);
    // That of the operator is another one.
    let own = "cannot assume arn:own: let it trust the operator for sts:AssumeRole";
    assert_eq!(denied(own).message, own);
}

#[tokio::test]
async fn a_role_that_does_not_trust_eventbridge_is_told_and_tried_again() {
    let mut world = World::hooked().await;
    let role = "arn:aws:iam::222233334444:role/campanile-events";
    let refused =
        format!("Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'.");
    world
        .eventbridge
        .fault("PutTargets", problem("ValidationException", &refused));
    let ran = world.run(Consistency::Now).await;
    let classes: Vec<_> = ran.failed.iter().map(|error| error.class).collect();
    assert_eq!(classes, [Class::Denied], "and the other targets are left");
    let says = &ran.failed[0].message;
    assert!(
        says.contains(role) && says.contains("sts:AssumeRole"),
        "{says}"
    );
    let Delivery::Known(troubles) = ran.way else {
        panic!("{:?}", ran.way);
    };
    assert_eq!(troubles[0].0, "SlackPathMissing");
    world.eventbridge.writes();
    assert_eq!(world.settles().await, ["PutTargets"; 3]);
}

/// A message that goes nowhere is no reason to hold its way back, or to take it down: it is mended in Slack.
#[tokio::test]
async fn a_channel_that_takes_nothing_has_its_way_all_the_same() {
    let mut world = World::new(slack(&["a", "b"]), &[("a", hook(URL)), ("b", bot(TOKEN))]).await;
    let says = "alarms do not get through SlackChannel ns/b: revoked";
    let told = || Delivery::Known(vec![("ChannelNotReady", says.to_owned())]);
    let shut = |says: Option<&str>| {
        let route = bot(TOKEN);
        let blocked = says.map(str::to_owned);
        Ok(RouteState { route, blocked })
    };
    world.routes.insert("b".into(), shut(Some(says)));
    let ran = world.run(Consistency::Now).await;
    assert_eq!((ran.failed, ran.way), (vec![], told()));
    world.routes.insert("b".into(), shut(None));
    assert_eq!(world.settles().await.len(), 13, "all was made before");
    for way in [Some(says), None] {
        world.routes.insert("b".into(), shut(way));
        let ran = world.run(Consistency::Known).await;
        assert_eq!((ran.planned, ran.failed), (vec![], vec![]));
        let open = Delivery::Known(Vec::new());
        assert_eq!(ran.way, if way.is_some() { told() } else { open });
    }
}
