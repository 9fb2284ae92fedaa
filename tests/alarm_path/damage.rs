//! What somebody does to the way to Slack behind the operator's back is repaired within two polls, or told and left,
//! or is not ours to touch.

use super::Site;
use crate::support::{CLUSTER, Conditions, errors, eventually, test, version};
use aws_sdk_eventbridge::types::{
    ApiDestinationHttpMethod, ConnectionAuthorizationType,
    CreateConnectionApiKeyAuthRequestParameters, CreateConnectionAuthRequestParameters, RuleState,
    Target,
};
use campanile::{
    api::{AlarmSet, AlarmState, DriftChange, Severity, SlackChannel, TenantObservability},
    kinds::{names, tenant::eventbridge::desired::PathKey},
};
use campanile_world::{
    aws::{Mark, Outcome},
    slack::Trouble,
};
use futures::{FutureExt, future::LocalBoxFuture};
use serde_json::json;
use std::collections::BTreeSet;

/// How many polls may pass from a damage until it is mended.
const POLLS: usize = 2;

/// Something that is done to what the operator made.
struct Damage<'a> {
    what: &'static str,
    done: LocalBoxFuture<'a, ()>,
    /// The call that reads it first in each poll.
    look: &'static str,
    /// What the condition `Drifted` says of it.
    says: Vec<String>,
}

impl Site {
    /// The calls of EventBridge that changed something, since `mark`.
    fn writes(&self, mark: Mark) -> Vec<String> {
        let calls = self.tenant.world.aws.calls_since(mark).into_iter();
        let calls = calls.filter(|call| {
            call.write && call.service == "events" && call.account == self.tenant.account
        });
        calls.map(|call| call.operation).collect()
    }

    /// That nobody wrote the tenant.
    async fn version(&self) -> String {
        version::<TenantObservability>(&self.tenant, &self.tenant.namespace).await
    }

    /// Waits for what `Drifted` says of a damage, and for its repair; no more than two polls passed until then.
    async fn mended(&self, damage: Damage<'_>) {
        let Damage {
            what,
            done,
            look,
            says,
        } = damage;
        let (tenant, name) = (&self.tenant, &self.tenant.namespace);
        let drifted = |object: &TenantObservability| {
            let drifted = object.condition("Drifted").unwrap();
            (drifted.reason.clone(), drifted.message.clone())
        };
        let before = tenant.now::<TenantObservability>(name).await;
        let before = drifted(&before);
        let mark = tenant.world.aws.mark();
        done.await;
        let mended = tenant
            .until::<TenantObservability>(name, &format!("{what}: repaired"), |object| {
                let now = drifted(object);
                now.0 == "DriftRepaired" && now != before
            })
            .await;
        let message = drifted(&mended).1;
        for part in says {
            assert!(message.contains(&part), "{what}: {part:?} in {message:?}");
        }
        assert!(mended.holds("Ready"), "{what}: it was ready all the time");
        let calls = tenant.world.aws.calls_since(mark).into_iter();
        let ours = calls.filter(|call| call.account == tenant.account);
        let until = ours.take_while(|call| !(call.service == "events" && call.write));
        let polls = until.filter(|call| call.operation == look).count();
        assert!(polls <= POLLS, "{what}: {polls} polls");
        self.delivering().await;
    }
}

/// Whoever makes a connection by hand.
fn header() -> CreateConnectionAuthRequestParameters {
    let key = CreateConnectionApiKeyAuthRequestParameters::builder()
        .api_key_name("X-Mine")
        .api_key_value("mine")
        .build()
        .unwrap();
    CreateConnectionAuthRequestParameters::builder()
        .api_key_auth_parameters(key)
        .build()
}

#[test]
fn what_is_damaged_is_repaired_and_the_next_alarm_arrives() {
    test(|world| async move {
        let site = Site::new(world, "path-damage").await;
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        let events = site.events();
        let (rule, path) = (
            site.rule(Severity::Critical, AlarmState::Alarm),
            site.hook_path("alerts"),
        );
        let target = async || {
            let list = events.list_targets_by_rule().rule(&rule).send().await;
            list.unwrap().targets.unwrap().remove(0)
        };
        let right = target().await;
        let put = |target: Target| {
            let (events, rule) = (&events, &rule);
            async move {
                let put = events.put_targets().rule(rule).targets(target);
                assert_eq!(put.send().await.unwrap().failed_entry_count, 0);
            }
        };
        let remove = async || {
            let remove = events.remove_targets().rule(&rule).ids("alerts");
            assert_eq!(remove.send().await.unwrap().failed_entry_count, 0);
        };
        let stranger = Target::builder()
            .id("stranger")
            .arn(format!(
                "arn:aws:sns:us-east-2:{}:stranger",
                site.tenant.account
            ))
            .build()
            .unwrap();
        let transformed = {
            let mut changed = right.clone();
            let transformer = changed.input_transformer.as_mut().unwrap();
            transformer.input_template = "{\"text\":<reason>}".into();
            changed
        };
        let mut unheard = right.clone();
        unheard.role_arn = None;
        unheard.retry_policy = None;
        let of_rule = |says: &str| vec![format!("rule {rule}: {says}")];
        let of_target = |says: &str| vec![format!("rule target {rule}/alerts{says}")];
        let damages = [
            Damage {
                what: "rule deleted",
                done: async {
                    remove().await;
                    events.delete_rule().name(&rule).send().await.unwrap();
                }
                .boxed_local(),
                look: "ListRules",
                says: vec![format!("rule {rule} was missing")],
            },
            Damage {
                what: "rule disabled",
                done: async {
                    events.disable_rule().name(&rule).send().await.unwrap();
                }
                .boxed_local(),
                look: "ListRules",
                says: of_rule("state was DISABLED, wanted ENABLED"),
            },
            Damage {
                what: "pattern changed",
                done: async {
                    let described = events.describe_rule().name(&rule).send().await.unwrap();
                    let put = events.put_rule().name(&rule);
                    put.event_pattern(
                        r#"{"source":["aws.cloudwatch"],"detail":{"alarmName":[{"prefix":"x"}]}}"#,
                    )
                    .set_description(described.description)
                    .send()
                    .await
                    .unwrap();
                }
                .boxed_local(),
                look: "ListRules",
                says: of_rule(
                    "pattern.detail.alarmName[0].prefix was x, wanted campanile/it/path-damage/critical/",
                ),
            },
            Damage {
                what: "target removed",
                done: remove().boxed_local(),
                look: "ListRules",
                says: of_target(" was missing"),
            },
            Damage {
                what: "transformer changed",
                done: put(transformed).boxed_local(),
                look: "ListRules",
                says: of_target(": message.attachments was unset, wanted "),
            },
            Damage {
                what: "role and retries taken",
                done: put(unheard).boxed_local(),
                look: "ListRules",
                says: of_target(": role was unset, wanted arn:aws:iam::"),
            },
            Damage {
                what: "foreign target",
                done: put(stranger).boxed_local(),
                look: "ListRules",
                says: vec![format!(
                    "rule target {rule}/stranger was there and is not asked for"
                )],
            },
            Damage {
                what: "rate changed",
                done: async {
                    let update = events.update_api_destination().name(&path);
                    let update = update.invocation_rate_limit_per_second(300);
                    update.send().await.unwrap();
                }
                .boxed_local(),
                look: "ListConnections",
                says: vec![format!(
                    "api destination {path}: requests per second was 300, wanted 1"
                )],
            },
            Damage {
                what: "endpoint changed",
                done: async {
                    let update = events.update_api_destination().name(&path);
                    let update = update.invocation_endpoint("https://example.com/canary");
                    update.send().await.unwrap();
                }
                .boxed_local(),
                look: "ListConnections",
                says: vec![format!("api destination {path}: endpoint was hmac:")],
            },
            Damage {
                what: "destination deleted",
                done: async {
                    let delete = events.delete_api_destination().name(&path);
                    delete.send().await.unwrap();
                }
                .boxed_local(),
                look: "ListConnections",
                says: vec![format!("api destination {path} was missing")],
            },
            Damage {
                what: "connection deauthorized",
                done: async {
                    let revoke = events.deauthorize_connection().name(&path);
                    revoke.send().await.unwrap();
                }
                .boxed_local(),
                look: "ListConnections",
                says: vec![
                    format!("connection {path}: "),
                    "state was DEAUTHORIZED, wanted AUTHORIZED".into(),
                ],
            },
            Damage {
                what: "connection deleted",
                done: async {
                    let delete = events.delete_connection().name(&path);
                    delete.send().await.unwrap();
                }
                .boxed_local(),
                look: "ListConnections",
                says: vec![format!("connection {path} was missing")],
            },
        ];
        let last = damages.len() + 1;
        site.numbered(last).await;
        let all = site.inventory().await;
        for (number, damage) in (1..).zip(damages) {
            let what = damage.what;
            site.mended(damage).await;
            eventually(what, || async {
                let now = site.inventory().await;
                (now == all)
                    .then_some(())
                    .ok_or_else(|| format!("{now:#?}"))
            })
            .await;
            site.fire(number).await;
            let told = site.told("alerts", number).await;
            let name = site.name(Severity::Critical, &format!("a-{number}"));
            assert_eq!(told[number - 1].name, name, "{what}");
            let now = target().await;
            assert_eq!(now.input_transformer, right.input_transformer, "{what}");
            assert_eq!(now.role_arn, right.role_arn, "{what}");
            assert_eq!(now.retry_policy, right.retry_policy, "{what}");
        }
        // All of it at once.
        remove().await;
        events.delete_rule().name(&rule).send().await.unwrap();
        let delete = events.delete_api_destination().name(&path);
        delete.send().await.unwrap();
        let delete = events.delete_connection().name(&path);
        delete.send().await.unwrap();
        eventually("all of it to be made again", || async {
            let now = site.inventory().await;
            (now == all)
                .then_some(())
                .ok_or_else(|| format!("{now:#?}"))
        })
        .await;
        site.delivering().await;
        site.fire(last).await;
        site.told("alerts", last).await;

        // Nothing moves any more: the last alarm is the last that is told of in status.
        site.tenant
            .until::<TenantObservability>("path-damage", "all that fires", |tenant| {
                let counts = tenant.status.as_ref().unwrap().counts.unwrap();
                usize::try_from(counts.firing) == Ok(last)
            })
            .await;
        let (mark, at) = (world.aws.mark(), site.version().await);
        site.tenant.polls(mark, 6).await;
        assert_eq!(site.writes(mark), Vec::<String>::new());
        assert_eq!(site.version().await, at);
        site.kept_the_rules();
    });
}

#[test]
fn what_is_damaged_is_told_and_left_where_the_spec_says_so() {
    test(|world| async move {
        let site = Site::new(world, "path-report").await;
        site.hooked("alerts").await;
        let mut spec = site.spec(json!({"critical": ["alerts"]}));
        spec["driftPolicy"] = json!("Report");
        site.tenant.tenant(spec.clone()).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        let (events, name) = (site.events(), "path-report");
        let (rule, path) = (
            site.rule(Severity::Critical, AlarmState::Alarm),
            site.hook_path("alerts"),
        );
        let mark = world.aws.mark();
        events.disable_rule().name(&rule).send().await.unwrap();
        let update = events.update_api_destination().name(&path);
        let update = update.invocation_rate_limit_per_second(7);
        update.send().await.unwrap();
        let ok = site.rule(Severity::Critical, AlarmState::Ok);
        let stranger = Target::builder()
            .id("stranger")
            .arn("arn:aws:sns:us-east-2:999900001111:x");
        let put = events.put_targets().rule(&ok);
        put.targets(stranger.build().unwrap()).send().await.unwrap();
        let remove = events.remove_targets().rule(&rule).ids("alerts");
        remove.send().await.unwrap();

        let told = site
            .tenant
            .until::<TenantObservability>(name, "all of it told", |tenant| {
                tenant.status.as_ref().unwrap().common.drift.len() == 4
            })
            .await;
        let drift = told.status.as_ref().unwrap().common.drift.iter();
        let drift: BTreeSet<_> = drift
            .map(|entry| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                (
                    entry.change,
                    format!("{} {}", entry.resource, entry.name),
                    text(&entry.field),
                    text(&entry.wanted),
                    text(&entry.found),
                )
            })
            .collect();
        let entry = |change, what: String, field: &str, wanted: &str, found: &str| {
            let [field, wanted, found] = [field, wanted, found].map(str::to_owned);
            (change, what, field, wanted, found)
        };
        let expected = [
            entry(
                DriftChange::Changed,
                format!("rule {rule}"),
                "state",
                "ENABLED",
                "DISABLED",
            ),
            entry(
                DriftChange::Changed,
                format!("api destination {path}"),
                "requests per second",
                "1",
                "7",
            ),
            entry(
                DriftChange::Unexpected,
                format!("rule target {ok}/stranger"),
                "",
                "",
                "",
            ),
            entry(
                DriftChange::Missing,
                format!("rule target {rule}/alerts"),
                "",
                "",
                "",
            ),
        ];
        assert_eq!(drift, expected.into());
        assert!(told.holds("Ready") && told.holds("Drifted"));
        // It is told that alarms do not arrive, whoever wants it so.
        let delivery = site
            .tenant
            .stands::<TenantObservability>(name, "DeliveryReady", "False", "SlackPathMissing")
            .await;
        for part in ["SlackChannel alerts lacks its rule target", "is disabled"] {
            assert!(delivery.contains(part), "{delivery}");
        }
        site.tenant.polls(world.aws.mark(), 4).await;
        assert_eq!(site.writes(mark), Vec::<String>::new());

        // An edit applies it all.
        spec["displayName"] = json!("Reported");
        site.tenant.tenant(spec).await;
        let whole = site.delivering().await;
        assert_eq!(whole.status.unwrap().common.drift, []);
        site.fire(1).await;
        let told = site.told("alerts", 1).await;
        assert_eq!(told[0].fields["Tenant"], "Reported");
        site.kept_the_rules();
    });
}

/// What answers for Slack says 401 once: EventBridge calls it no more until the connection is written again.
#[test]
fn a_connection_that_was_refused_is_written_again() {
    test(|world| async move {
        let site = Site::new(world, "path-refused").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        for number in 1..=2 {
            let mark = world.aws.mark();
            let refusal = Trouble::Status(401, "<html>".into());
            site.slack.trouble("chat.postMessage", refusal, 1);
            site.fire(number).await;
            let told = site.told("ops", number).await;
            let name = site.name(Severity::Critical, &format!("a-{number}"));
            assert_eq!(told[number - 1].name, name);
            let delivery = site.delivery("it to be delivered", |deliveries| {
                let last = deliveries.get(number - 1)?;
                (last.outcome == Outcome::Delivered).then(|| last.clone())
            });
            assert_eq!(delivery.await.statuses, [401, 200]);
            assert_eq!(site.writes(mark), ["UpdateConnection"]);
        }
        let path = site.bot_path("ops");
        let tenant = site.delivering().await;
        let drifted = &tenant.condition("Drifted").unwrap().message;
        let says = format!("connection {path}: state was DEAUTHORIZED, wanted AUTHORIZED");
        assert!(drifted.contains(&says), "{drifted}");
        site.kept_the_rules();
    });
}

/// Whoever was there first keeps what is theirs, and nobody touches it.
#[test]
fn what_carries_no_mark_is_a_conflict_and_is_not_touched() {
    test(|world| async move {
        let site = Site::new(world, "path-foreign").await;
        site.hooked("alerts").await;
        let tenant = &site.tenant;
        let events = site.events();
        let _operator = tenant.operator().await;
        let pattern = r#"{"source":["mine"]}"#;
        let rule_of = |name: &str| {
            names::rule(
                CLUSTER,
                "path-foreign",
                name,
                Severity::Critical,
                AlarmState::Alarm,
            )
        };
        let [hook, _] = PathKey::both("alerts");
        let path_of = |name: &str| hook.name(CLUSTER, "path-foreign", name);
        let apply = async |name: &str| {
            let spec = site.spec(json!({"critical": ["alerts"]}));
            tenant.apply::<TenantObservability>(name, spec).await;
            let spec = json!({"tenantRef": {"name": name}, "alarms": errors()});
            tenant.apply::<AlarmSet>(name, spec).await;
            tenant.ready::<AlarmSet>(name, "Applied").await;
        };
        let conflicts = async |name: &str, thing: String| {
            let says = tenant.ready::<TenantObservability>(name, "Conflict").await;
            assert!(says.contains(&thing), "{thing} in {says}");
            let says = tenant
                .stands::<TenantObservability>(name, "DeliveryReady", "False", "SlackConflict")
                .await;
            assert!(says.contains(&thing), "{thing} in {says}");
            let object = tenant.now::<TenantObservability>(name).await;
            assert!(object.holds("Stalled"));
        };

        // A rule.
        let rule = rule_of("rule");
        let put = events.put_rule().name(&rule).event_pattern(pattern);
        put.description("mine").send().await.unwrap();
        let theirs = Target::builder()
            .id("mine")
            .arn("arn:aws:sns:us-east-2:999900001111:x");
        let put = events.put_targets().rule(&rule);
        put.targets(theirs.build().unwrap()).send().await.unwrap();
        let described = async || {
            let rule = events.describe_rule().name(&rule).send().await.unwrap();
            let targets = events.list_targets_by_rule().rule(rule.name().unwrap());
            let targets = targets.send().await.unwrap().targets.unwrap();
            (rule.event_pattern, rule.description, rule.state, targets)
        };
        let before = described().await;
        apply("rule").await;
        conflicts("rule", format!("rule {rule}")).await;
        assert_eq!(described().await, before);
        // A person gives it up.
        let remove = events.remove_targets().rule(&rule).ids("mine");
        remove.send().await.unwrap();
        events.delete_rule().name(&rule).send().await.unwrap();
        site.delivers("rule").await;

        // A connection, and with it the API destination.
        let path = path_of("connection");
        let create = async || {
            let create = events.create_connection().name(&path);
            let create = create
                .authorization_type(ConnectionAuthorizationType::ApiKey)
                .auth_parameters(header());
            create.send().await.unwrap().connection_arn.unwrap()
        };
        let arn = create().await;
        apply("connection").await;
        conflicts("connection", format!("connection {path}")).await;
        let now = events.describe_connection().name(&path).send().await;
        let now = now.unwrap();
        assert_eq!(
            (now.connection_arn(), now.description()),
            (Some(&*arn), None)
        );
        // Its owner goes, and takes nothing that is not its own along.
        tenant.delete::<TenantObservability>("connection").await;
        tenant.gone::<TenantObservability>("connection").await;
        let now = events.describe_connection().name(&path).send().await;
        assert_eq!(now.unwrap().connection_arn(), Some(&*arn));
        let left = site.inventory().await.into_iter();
        let left: Vec<_> = left.filter(|it| it.contains("_connection_")).collect();
        assert_eq!(left, [format!("connection {path}")]);

        // An API destination.
        let path = path_of("destination");
        let create = events.create_api_destination().name(&path);
        let create = create
            .connection_arn(&arn)
            .invocation_endpoint("https://example.com/mine")
            .http_method(ApiDestinationHttpMethod::Post);
        let mine = create.send().await.unwrap().api_destination_arn.unwrap();
        apply("destination").await;
        conflicts("destination", format!("api destination {path}")).await;
        let now = events.describe_api_destination().name(&path).send().await;
        let now = now.unwrap();
        assert_eq!(
            (now.api_destination_arn(), now.invocation_endpoint()),
            (Some(&*mine), Some("https://example.com/mine"))
        );

        // Where the spec says so it becomes ours.
        let rule = rule_of("adopted");
        let put = events.put_rule().name(&rule).event_pattern(pattern);
        put.state(RuleState::Disabled).send().await.unwrap();
        let mut spec = site.spec(json!({"critical": ["alerts"]}));
        spec["adoptionPolicy"] = json!("IfExists");
        tenant.apply::<TenantObservability>("adopted", spec).await;
        site.delivers("adopted").await;
        let adopted = events.describe_rule().name(&rule).send().await.unwrap();
        assert_eq!(adopted.state(), Some(&RuleState::Enabled));
        assert!(adopted.description().unwrap().contains("campanile:it/"));
        site.kept_the_rules();
    });
}

/// A webhook that a person takes away: the SlackChannel tells it, and alarms arrive again by a new one.
#[test]
fn a_webhook_that_was_taken_away_is_told_and_replaced() {
    test(|world| async move {
        let site = Site::new(world, "path-revoked").await;
        let old = site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        site.slack.revoke_webhook(&old);
        site.tenant
            .stands::<SlackChannel>("alerts", "WebhookReady", "False", "Revoked")
            .await;
        // What goes nowhere is no delivery, though nothing is wrong in AWS.
        let name = "path-revoked";
        let tenant = site
            .tenant
            .until::<TenantObservability>(name, "that nobody hears it", |tenant| {
                let delivery = tenant.condition("DeliveryReady").unwrap();
                delivery.status == "False"
                    && delivery
                        .message
                        .contains("SlackChannel path-revoked/alerts")
            })
            .await;
        assert_eq!(tenant.condition("Healthy").unwrap().reason, "Degraded");
        site.fire(1).await;
        let dropped = site.delivery("it to be dropped", |deliveries| {
            let last = deliveries.last()?;
            (last.outcome == Outcome::Dropped).then(|| last.statuses.clone())
        });
        assert_eq!(dropped.await, [404]);
        site.hook("alerts", &site.slack.webhook("alerts")).await;
        site.tenant
            .stands::<SlackChannel>("alerts", "WebhookReady", "True", "TakesMessages")
            .await;
        site.delivering().await;
        site.fire(2).await;
        site.told("alerts", 1).await;
        site.kept_the_rules();
    });
}

/// Slack answers a bot whose message it refuses with success, so that EventBridge sees nothing: the tenant says it
/// all the same.
#[test]
fn a_token_that_was_revoked_is_told_and_replaced() {
    test(|world| async move {
        let site = Site::new(world, "path-token").await;
        let old = site.manned("ops").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        let new = site.slack.reissue(&old);
        site.slack.revoke(&old);
        let name = "path-token";
        let says = site
            .tenant
            .stands::<TenantObservability>(name, "DeliveryReady", "False", "ChannelNotReady")
            .await;
        assert!(says.contains("SlackChannel path-token/ops: "), "{says}");
        site.tenant
            .stands::<TenantObservability>(name, "Healthy", "False", "Degraded")
            .await;
        let object = site.tenant.now::<TenantObservability>(name).await;
        assert!(object.holds("Ready"), "nothing is wrong in AWS");
        site.fire(1).await;
        let lost = site.delivery("it to be taken for delivered", |deliveries| {
            let last = deliveries.last()?;
            (last.outcome == Outcome::Delivered).then(|| last.statuses.clone())
        });
        assert_eq!(lost.await, [200]);
        assert_eq!(site.slack.messages("ops"), []);
        site.hand_over("ops", &new).await;
        site.delivering().await;
        site.fire(2).await;
        let told = site.told("ops", 1).await;
        assert_eq!(told[0].name, site.name(Severity::Critical, "a-2"));
        site.kept_the_rules();
    });
}
