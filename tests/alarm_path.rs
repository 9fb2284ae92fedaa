//! The way of an alarm into Slack, without the operator in between: CloudWatch, EventBridge, and Campanile's own
//! rules, connections and API destinations, up to the message that people read.

mod clean;
mod damage;
mod membership;
mod secrets;
mod switch;
mod troubles;

use crate::{
    slack_channel::SCOPES,
    support::{CLUSTER, PATIENCE, REGION, Tenant, alarm, eventually, test},
};
use aws_sdk_cloudwatch::types::{
    ActionConfiguration, AlarmTagsPropagation, AlarmType, Metric, MetricDataQuery, MetricStat,
    StateValue, Tag,
};
use campanile::{
    api::{AlarmSet, AlarmState, Severity, SlackChannel, TenantObservability},
    kinds::{names, tenant::eventbridge::desired::PathKey},
};
use campanile_world::{
    World,
    aws::{Delivery, Mark, Outcome},
    slack::{By, Message, Trouble, WEBHOOK, Workspace},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A tenant, its workspace, and the role by which EventBridge gets there.
struct Site {
    tenant: Tenant,
    slack: Workspace,
    role: String,
}

impl Site {
    async fn new(world: &'static World, name: &str) -> Self {
        let tenant = Tenant::new(world, name).await;
        Self {
            slack: world.slack.workspace(name),
            role: world.aws.events_role(&tenant.account).await.unwrap(),
            tenant,
        }
    }

    /// A channel that a person has made, and a SlackChannel of that name with a webhook into it; its URL.
    async fn hooked(&self, name: &str) -> String {
        self.slack.create_channel(name);
        let url = self.slack.webhook(name);
        self.hook(name, &url).await;
        let reference = json!({"name": format!("{name}-hook"), "key": "url"});
        let spec = json!({"webhookSecretRef": reference});
        self.tenant.apply::<SlackChannel>(name, spec).await;
        url
    }

    /// Puts a webhook's URL where the SlackChannel looks for it.
    async fn hook(&self, name: &str, url: &str) {
        let secret = format!("{name}-hook");
        self.tenant.secret(&secret, "url", url).await;
    }

    /// A SlackChannel that a bot of the tenant's own makes; its token.
    async fn manned(&self, name: &str) -> String {
        let token = self.slack.bot(&SCOPES);
        self.hand_over(name, &token).await;
        let reference = json!({"name": format!("{name}-token"), "key": "token"});
        let spec = json!({"channel": name, "tokenSecretRef": reference});
        self.tenant.apply::<SlackChannel>(name, spec).await;
        token
    }

    /// Puts a token where the SlackChannel looks for it.
    async fn hand_over(&self, name: &str, token: &str) {
        let secret = format!("{name}-token");
        self.tenant.secret(&secret, "token", token).await;
    }

    /// A tenant whose severities go to these SlackChannels.
    fn spec(&self, notify: Value) -> Value {
        let recipients = |channels: &Value| {
            let channels = channels.as_array().unwrap().iter();
            let channels = channels.map(|name| json!({"channelRef": {"name": name}}));
            json!({"slack": channels.collect::<Vec<_>>()})
        };
        let severities = notify.as_object().unwrap().iter();
        let notify: BTreeMap<_, _> = severities
            .map(|(severity, channels)| (severity, recipients(channels)))
            .collect();
        json!({
            "environments": [{"name": "prod"}],
            "aws": {"accountId": self.tenant.account, "region": REGION},
            "notify": notify,
            "eventBridge": {"invokeRoleArn": self.role}
        })
    }

    /// Applies the tenant that is named like the namespace.
    async fn notify(&self, notify: Value) {
        self.tenant.tenant(self.spec(notify)).await;
    }

    /// An AlarmSet `golden` in prod.
    async fn golden(&self, alarms: Value) {
        self.tenant.set("golden", json!(["prod"]), alarms).await;
    }

    /// Waits until alarms get to Slack by what is declared now.
    async fn delivering(&self) -> TenantObservability {
        self.delivers(&self.tenant.namespace).await
    }

    async fn delivers(&self, name: &str) -> TenantObservability {
        let tenant = &self.tenant;
        tenant.ready::<TenantObservability>(name, "Applied").await;
        tenant
            .stands::<TenantObservability>(name, "DeliveryReady", "True", "Delivering")
            .await;
        tenant.api().get(name).await.unwrap()
    }

    /// The name of an alarm of `golden`.
    fn name(&self, severity: Severity, alarm: &str) -> String {
        self.tenant.name(severity, "golden", alarm, Some("prod"))
    }

    /// Waits until an alarm is there and AWS has come to a state of it, and says which.
    async fn state(&self, name: &str) -> String {
        let cloudwatch = self.tenant.cloudwatch();
        eventually(&format!("{name} to be there"), || async {
            let described = cloudwatch
                .describe_alarms()
                .alarm_names(name)
                .alarm_types(AlarmType::MetricAlarm)
                .alarm_types(AlarmType::CompositeAlarm)
                .send()
                .await
                .unwrap();
            let metric = described.metric_alarms().iter();
            let metric = metric.map(|alarm| alarm.state_value().cloned());
            let composite = described.composite_alarms().iter();
            let composite = composite.map(|alarm| alarm.state_value().cloned());
            match metric.chain(composite).flatten().next() {
                Some(state) => Ok(state.as_str().to_owned()),
                None => Err("it is not there".to_owned()),
            }
        })
        .await
    }

    /// Lets a new metric alarm, whose metric is called like it, find that nothing is wrong.
    async fn settle(&self, name: &str, metric: &str) {
        self.state(name).await;
        self.tenant.emit(metric, "prod", 1.0, 1).await;
        eventually(&format!("{name} to be OK"), || async {
            match self.state(name).await {
                state if state == "OK" => Ok(()),
                state => Err(state),
            }
        })
        .await;
    }

    /// Asks for a look at a tenant now.
    async fn nudge(&self, name: &str) {
        let key = "reconcile.fluxcd.io/requestedAt";
        let now = jiff::Timestamp::now().to_string();
        self.tenant
            .annotate::<TenantObservability>(name, key, &now)
            .await;
    }

    /// Lets an alarm come to a state, for a reason.
    async fn turn(&self, name: &str, state: AlarmState, reason: &str) {
        self.state(name).await;
        let set = self.tenant.cloudwatch().set_alarm_state().alarm_name(name);
        set.state_value(StateValue::from(<&str>::from(state)))
            .state_reason(reason)
            .send()
            .await
            .unwrap();
    }

    /// Waits until so many messages are in a channel; all of them, by what they are about and the order.
    async fn told(&self, channel: &str, count: usize) -> Vec<Told> {
        let what = format!("{count} messages in {channel}");
        let messages = self.slack.wait(PATIENCE, |slack| {
            let messages = slack.messages(channel);
            (messages.len() >= count).then_some(messages)
        });
        let messages = messages
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let found: Vec<_> = messages.iter().map(Told::read).collect();
        assert_eq!(found.len(), count, "{what}: {found:#?}");
        found
    }

    /// A set `golden` of so many critical alarms, that are there.
    async fn numbered(&self, count: usize) {
        self.golden(numbered(count)).await;
        self.tenant.ready::<AlarmSet>("golden", "Applied").await;
    }

    /// Lets one of [`numbered`] fire.
    async fn fire(&self, number: usize) {
        let name = self.name(Severity::Critical, &format!("a-{number}"));
        self.turn(&name, AlarmState::Alarm, "fired").await;
    }

    /// What became of the events that met a rule of the account, the oldest first.
    async fn deliveries(&self) -> Vec<Delivery> {
        let deliveries = self.tenant.world.aws.deliveries(&self.tenant.account);
        deliveries.await.unwrap()
    }

    /// Waits until `which` finds what it looks for among the deliveries.
    async fn delivery<T>(&self, what: &str, which: impl Fn(&[Delivery]) -> Option<T>) -> T {
        eventually(what, || async {
            let deliveries = self.deliveries().await;
            which(&deliveries).ok_or_else(|| format!("{deliveries:#?}"))
        })
        .await
    }

    /// EventBridge in the tenant's account.
    fn events(&self) -> aws_sdk_eventbridge::Client {
        let Tenant { world, account, .. } = &self.tenant;
        world.aws.eventbridge(account, REGION)
    }

    /// Everything in the account that Campanile makes, by sort and name.
    async fn inventory(&self) -> BTreeSet<String> {
        let (events, mut all) = (self.events(), BTreeSet::new());
        let rules = events.list_rules().send().await.unwrap();
        for rule in rules.rules() {
            let name = rule.name().unwrap();
            all.insert(format!("rule {name}"));
            let targets = events.list_targets_by_rule().rule(name).send().await;
            for target in targets.unwrap().targets() {
                all.insert(format!("target {name}/{}", target.id()));
            }
        }
        let connections = events.list_connections().send().await.unwrap();
        let names = connections.connections().iter();
        all.extend(names.map(|it| format!("connection {}", it.name().unwrap())));
        let destinations = events.list_api_destinations().send().await.unwrap();
        let names = destinations.api_destinations().iter();
        all.extend(names.map(|it| format!("destination {}", it.name().unwrap())));
        let topics = self.tenant.topics().await.into_iter();
        all.extend(topics.map(|arn| format!("topic {arn}")));
        let alarms = self.tenant.alarms().await.into_keys();
        all.extend(alarms.map(|name| format!("alarm {name}")));
        all
    }

    /// How many of a sort there are.
    async fn count(&self, sort: &str) -> usize {
        let all = self.inventory().await.into_iter();
        all.filter(|thing| thing.split(' ').next() == Some(sort))
            .count()
    }

    /// The name of a rule of the tenant that is named like the namespace.
    fn rule(&self, severity: Severity, state: AlarmState) -> String {
        let name = &self.tenant.namespace;
        names::rule(CLUSTER, name, name, severity, state)
    }

    /// The name of the connection and the API destination by which one of its channels is reached by a webhook.
    fn hook_path(&self, channel: &str) -> String {
        let (name, [hook, _]) = (&self.tenant.namespace, PathKey::both(channel));
        hook.name(CLUSTER, name, name)
    }

    /// The same by a bot.
    fn bot_path(&self, channel: &str) -> String {
        let (name, [_, bot]) = (&self.tenant.namespace, PathKey::both(channel));
        bot.name(CLUSTER, name, name)
    }

    /// The ARNs of a connection and an API destination of this name.
    async fn arns(&self, name: &str) -> (String, String) {
        let events = self.events();
        let connection = events.describe_connection().name(name).send().await;
        let destination = events.describe_api_destination().name(name).send().await;
        (
            connection.unwrap().connection_arn.unwrap(),
            destination.unwrap().api_destination_arn.unwrap(),
        )
    }

    /// Nothing broke Slack's contract.
    fn kept_the_rules(&self) {
        assert_eq!(self.slack.violations(), Vec::<String>::new());
    }
}

/// A message about an alarm, as people read it.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    by: By,
    text: String,
    header: String,
    color: String,
    fields: BTreeMap<String, String>,
    name: String,
    reason: String,
    description: String,
    buttons: Vec<(String, String)>,
}

impl Told {
    /// Fails where it is not of the form that all of them have.
    fn read(message: &Message) -> Self {
        let shown = || serde_json::to_string_pretty(message).unwrap();
        let text = |value: &Value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => panic!("{value} in {}", shown()),
        };
        let [header] = &message.blocks[..] else {
            panic!("{}", shown())
        };
        assert_eq!(
            (&header["type"], &header["text"]["type"]),
            (&json!("header"), &json!("plain_text"))
        );
        let [facts, reason, description, links] = &message.attachments[..] else {
            panic!("{}", shown())
        };
        let colors = message.attachments.iter();
        let colors: BTreeSet<_> = colors.map(|part| text(&part["color"])).collect();
        assert_eq!(colors.len(), 1, "one bar: {}", shown());
        let fields = facts["blocks"][0]["fields"].as_array().unwrap().iter();
        let fields = fields.map(|field| {
            assert_eq!(field["type"], "mrkdwn");
            let field = text(&field["text"]);
            let (title, value) = field.split_once('\n').unwrap();
            (title.trim_matches('*').to_owned(), value.to_owned())
        });
        let name = &facts["blocks"][1]["elements"][0];
        assert_eq!(name["type"], "plain_text");
        let free = |part: &Value, title: &str| {
            assert_eq!(part["title"], title);
            assert_eq!(part["mrkdwn_in"], json!([]), "nothing in it is markup");
            text(&part["text"])
        };
        let buttons = links["blocks"][0]["elements"].as_array().unwrap().iter();
        let buttons = buttons.map(|button| {
            assert_eq!(button["type"], "button");
            (text(&button["text"]["text"]), text(&button["url"]))
        });
        Self {
            by: message.by.clone(),
            text: message.text.clone(),
            header: text(&header["text"]["text"]),
            color: colors.into_iter().next().unwrap(),
            fields: fields.collect(),
            name: text(&name["text"]),
            reason: free(reason, "Reason"),
            description: free(description, "Description"),
            buttons: buttons.collect(),
        }
    }
}

/// By the alarm that each is about.
fn by_alarm(told: &[Told]) -> BTreeMap<&str, &Told> {
    told.iter().map(|told| (told.name.as_str(), told)).collect()
}

/// Critical alarms `a-1` to `a-<count>`.
fn numbered(count: usize) -> Value {
    let alarms = (1..=count).map(|number| alarm(&format!("a-{number}"), "critical", json!({})));
    alarms.collect()
}

/// A math alarm and a composite one as Campanile would put them: an AlarmSet does not have them yet.
async fn put_others(site: &Site, errors: &str, rate: &str, down: &str) {
    let cloudwatch = site.tenant.cloudwatch();
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = |alarm: &str| {
        [
            tag("campanile-set", "golden"),
            tag("campanile-alarm", alarm),
            tag("campanile-environment", "prod"),
        ]
    };
    let travel = ["campanile-set", "campanile-alarm", "campanile-environment"];
    let travel = AlarmTagsPropagation::builder()
        .enabled(true)
        .set_included_tag_keys(Some(travel.map(str::to_owned).to_vec()))
        .build();
    let travel = ActionConfiguration::builder().alarm_tags_propagation(travel);
    let query = |id: &str| {
        let metric = Metric::builder().namespace("App").metric_name(id).build();
        let stat = MetricStat::builder().metric(metric).period(60).stat("Sum");
        MetricDataQuery::builder()
            .id(id)
            .metric_stat(stat.build())
            .return_data(false)
            .build()
    };
    let math = MetricDataQuery::builder()
        .id("rate")
        .expression("100 * errors / requests")
        .return_data(true);
    cloudwatch
        .put_metric_alarm()
        .alarm_name(rate)
        .set_tags(Some(tags("rate").to_vec()))
        .action_configuration(travel.clone().build())
        .metrics(math.build())
        .metrics(query("errors"))
        .metrics(query("requests"))
        .evaluation_periods(1)
        .threshold(10.0)
        .comparison_operator("GreaterThanThreshold".into())
        .send()
        .await
        .unwrap();
    cloudwatch
        .put_composite_alarm()
        .alarm_name(down)
        .alarm_description("All of it")
        .set_tags(Some(tags("down").to_vec()))
        .action_configuration(travel.build())
        .alarm_rule(format!("ALARM(\"{errors}\") AND ALARM(\"{rate}\")"))
        .send()
        .await
        .unwrap();
}

#[test]
fn each_kind_of_alarm_is_told_and_told_to_be_over() {
    test(|world| async move {
        let site = Site::new(world, "path-kinds").await;
        site.hooked("alerts").await;
        let token = site.manned("ops").await;
        let mut spec = site.spec(json!({"critical": ["alerts", "ops"]}));
        spec["displayName"] = json!("Virginia State <University> & more");
        site.tenant.tenant(spec).await;
        let _operator = site.tenant.operator().await;
        let tenant = site.delivering().await;
        // They come to be while the way is open already: a new alarm that is OK is no news.
        let described = json!({"description": "More than ten errors", "runbookUrl": "https://runbooks.example/errors"});
        site.golden(json!([alarm("errors", "critical", described)]))
            .await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        let names = ["errors", "rate", "down"].map(|alarm| site.name(Severity::Critical, alarm));
        let [errors, rate, down] = &names;
        put_others(&site, errors, rate, down).await;
        site.settle(errors, "errors").await;
        let mut before = BTreeMap::new();
        for name in &names {
            before.insert(name.as_str(), site.state(name).await);
        }
        assert_eq!((&*before[&**errors], &*before[&**down]), ("OK", "OK"));

        let began = jiff::Timestamp::now().as_second();
        site.turn(errors, AlarmState::Alarm, "one").await;
        site.turn(rate, AlarmState::Alarm, "two").await;
        let bot = By::Bot(site.slack.bot_user(&token));
        let mut all = Vec::new();
        for channel in ["alerts", "ops"] {
            let told = site.told(channel, 3).await;
            let found = by_alarm(&told);
            for (alarm, name) in ["errors", "rate", "down"].into_iter().zip(&names) {
                let told = found[&**name];
                assert_eq!(told.by == bot, channel == "ops", "{:?}", told.by);
                assert_eq!(told.color, "#d50200");
                assert_eq!(
                    told.header,
                    "🚨 ALARM · critical · Virginia State <University> & more"
                );
                let tenant_shown = "Virginia State &lt;University&gt; &amp; more";
                assert_eq!(
                    told.text,
                    format!("🚨 ALARM · critical · {tenant_shown}: {alarm} prod")
                );
                let field = |title: &str| told.fields[title].as_str();
                assert_eq!(field("Alarm"), format!("{alarm} prod"));
                assert_eq!(field("State"), format!("{} → ALARM", before[&**name]));
                assert_eq!(field("Severity"), "critical");
                assert_eq!(field("Tenant"), tenant_shown);
                let account = format!("{}, {REGION}", site.tenant.account);
                assert_eq!(field("Account"), account);
                let since: jiff::Timestamp = field("Since").parse().unwrap();
                assert!(since.as_second() >= began && since <= jiff::Timestamp::now());
                let links = tenant.status.as_ref().unwrap().links.as_ref().unwrap();
                let console = format!(
                    "https://{REGION}.console.aws.amazon.com/cloudwatch/home?region={REGION}"
                );
                let buttons = [
                    (
                        "Alarm".to_owned(),
                        format!("{console}#alarmsV2:alarm/{name}"),
                    ),
                    (
                        "All alarms of the tenant".to_owned(),
                        links.alarms.clone().unwrap(),
                    ),
                ];
                assert_eq!(told.buttons, buttons);
            }
            assert_eq!(found[&**errors].reason, "one");
            assert_eq!(found[&**rate].reason, "two");
            let reason = &found[&**down].reason;
            assert!(reason.contains("transitioned to ALARM"), "{reason}");
            let mark = "/AlarmSet/path-kinds/golden";
            let described = &found[&**errors].description;
            assert!(
                described.starts_with(
                    "More than ten errors\nRunbook: https://runbooks.example/errors\ncampanile:it/"
                ) && described.ends_with(mark),
                "{described}"
            );
            assert_eq!(found[&**rate].description, "", "it has none");
            assert_eq!(found[&**down].description, "All of it");
            all.push(told);
        }

        for name in [errors, rate] {
            site.turn(name, AlarmState::Ok, "over").await;
        }
        for (channel, before) in ["alerts", "ops"].into_iter().zip(all) {
            let told = site.told(channel, 6).await;
            assert_eq!(&told[..3], before);
            let found = by_alarm(&told[3..]);
            assert_eq!(found.len(), 3);
            for (alarm, name) in ["errors", "rate", "down"].into_iter().zip(&names) {
                let told = found[&**name];
                assert_eq!(told.color, "#2eb67d");
                assert!(told.header.starts_with("✅ OK · critical · "), "{told:?}");
                assert!(told.text.ends_with(&format!(": {alarm} prod")));
                assert_eq!(told.fields["State"], "ALARM → OK");
            }
            assert_eq!(found[&**errors].reason, "over");
        }
        // The bot said where to, and nothing was refused that Slack answers with success.
        let posts = site.slack.calls("chat.postMessage");
        let channel = site.slack.channel("ops").unwrap();
        assert_eq!(posts.len(), 6);
        for post in posts {
            assert!(post.succeeded() && post.token == token, "{post:?}");
            assert_eq!(post.argument("channel"), channel.id);
        }
        site.kept_the_rules();
    });
}

#[test]
fn every_state_looks_different_and_a_new_alarm_is_no_news() {
    test(|world| async move {
        let site = Site::new(world, "path-states").await;
        for severity in ["critical", "warning", "info"] {
            site.hooked(severity).await;
        }
        let channels = json!({"critical": ["critical"], "warning": ["warning"], "info": ["info"]});
        site.notify(channels).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        let all = Severity::ALL.map(|severity| severity.to_string());
        let alarms = all.iter().map(|it| alarm(it, it, json!({})));
        site.golden(alarms.collect()).await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        let mut looks = BTreeSet::new();
        for severity in Severity::ALL {
            let name = site.name(severity, &severity.to_string());
            site.settle(&name, &severity.to_string()).await;
            for state in [
                // Neither comes from ALARM.
                AlarmState::InsufficientData,
                AlarmState::Ok,
                AlarmState::Alarm,
                AlarmState::InsufficientData,
                AlarmState::Ok,
                AlarmState::Alarm,
                AlarmState::Ok,
            ] {
                site.turn(&name, state, "r").await;
            }
            let told = site.told(&severity.to_string(), 4).await;
            let transitions: Vec<_> = told.iter().map(|told| &*told.fields["State"]).collect();
            let expected = [
                "OK → ALARM",
                "ALARM → INSUFFICIENT_DATA",
                "OK → ALARM",
                "ALARM → OK",
            ];
            assert_eq!(transitions, expected);
            for (told, word) in told.iter().zip(["ALARM", "NO DATA", "ALARM", "OK"]) {
                let says = format!("{word} · {severity} · path-states");
                assert!(told.header.ends_with(&says), "{told:?}");
                assert!(told.text.contains(&says), "{told:?}");
                looks.insert((word, told.color.clone(), told.header.clone()));
            }
        }
        assert_eq!(looks.len(), 9, "{looks:#?}");
        let colors: BTreeMap<_, BTreeSet<_>> =
            looks
                .iter()
                .fold(BTreeMap::new(), |mut all, (word, color, _)| {
                    let colors: &mut BTreeSet<_> = all.entry(*word).or_default();
                    colors.insert(color.as_str());
                    all
                });
        let sizes: Vec<_> = colors.values().map(BTreeSet::len).collect();
        assert_eq!(sizes, [3, 1, 1], "{colors:?}");
        let each: BTreeSet<_> = colors.values().flatten().collect();
        assert_eq!(each.len(), 5, "{colors:?}");
        assert_eq!(site.deliveries().await.len(), 12, "nothing else met a rule");
        site.kept_the_rules();
    });
}

/// Two tenants of one account, whose names begin alike.
#[test]
fn nobody_hears_what_is_not_for_them() {
    test(|world| async move {
        let site = Site::new(world, "path-others").await;
        for channel in ["one-critical", "one-warning", "two-critical"] {
            site.hooked(channel).await;
        }
        let _operator = site.tenant.operator().await;
        let one = json!({"critical": ["one-critical"], "warning": ["one-warning"], "info": []});
        let two = json!({"critical": ["two-critical"], "warning": []});
        let alarms = json!([
            alarm("errors", "critical", json!({})),
            alarm("slow", "warning", json!({})),
            alarm("full", "info", json!({}))
        ]);
        for (name, notify) in [("vsu", one), ("vsu-2", two)] {
            let spec = site.spec(notify);
            site.tenant.apply::<TenantObservability>(name, spec).await;
            site.delivers(name).await;
            let spec =
                json!({"tenantRef": {"name": name}, "environments": ["prod"], "alarms": alarms});
            site.tenant.apply::<AlarmSet>(name, spec).await;
            site.tenant.ready::<AlarmSet>(name, "Applied").await;
        }
        let name = |tenant: &str, severity, alarm: &str| {
            names::alarm(CLUSTER, tenant, severity, tenant, alarm, Some("prod"))
        };
        // In every channel what is for it comes last.
        let all = [
            ("vsu", Severity::Info, "full", None),
            ("vsu-2", Severity::Info, "full", None),
            ("vsu-2", Severity::Warning, "slow", None),
            ("vsu-2", Severity::Critical, "errors", Some("two-critical")),
            ("vsu", Severity::Warning, "slow", Some("one-warning")),
            ("vsu", Severity::Critical, "errors", Some("one-critical")),
        ];
        for (tenant, severity, alarm, _) in &all {
            let name = name(tenant, *severity, alarm);
            site.turn(&name, AlarmState::Alarm, "r").await;
        }
        for (tenant, severity, alarm, channel) in all {
            let Some(channel) = channel else { continue };
            let name = name(tenant, severity, alarm);
            let told = site.told(channel, 1).await.remove(0);
            assert_eq!((&told.name, &*told.fields["Tenant"]), (&name, tenant));
            site.turn(&name, AlarmState::Ok, "over").await;
            let told = site.told(channel, 2).await;
            assert!(told.iter().all(|told| told.name == name), "{told:#?}");
        }
        let deliveries = site.deliveries().await;
        assert_eq!(deliveries.len(), 6, "{deliveries:#?}");
        site.kept_the_rules();
    });
}

#[test]
fn whatever_an_alarm_says_arrives_as_it_was_said() {
    test(|world| async move {
        let site = Site::new(world, "path-nasty").await;
        site.hooked("alerts").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["alerts", "ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        let described = [
            "\"quoted\" and \\back\\slashed\\\" <!here> & <b> &amp; <https://example.com|x> *bold* 🚨",
            "<reason> <name> <aws.events.event.json> {\"json\": [1, null]} \\u003c",
        ];
        let reasons = [
            "two\nlines\r\n\ttabbed \"quoted\" \\ <!channel> <@U012AB3CD> & 🔥",
            "<description>\",\"text\":\"x\\",
        ];
        let alarms = (1..).zip(described).map(|(number, text)| {
            alarm(
                &format!("a-{number}"),
                "critical",
                json!({"description": text}),
            )
        });
        site.golden(alarms.collect()).await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        let names = ["a-1", "a-2"].map(|alarm| site.name(Severity::Critical, alarm));
        for (name, reason) in names.iter().zip(reasons) {
            site.turn(name, AlarmState::Alarm, reason).await;
        }
        for channel in ["alerts", "ops"] {
            let told = site.told(channel, 2).await;
            let found = by_alarm(&told);
            for ((name, reason), description) in names.iter().zip(reasons).zip(described) {
                let told = found[&**name];
                assert_eq!(told.reason, reason);
                let lines: Vec<_> = told.description.lines().collect();
                assert_eq!((lines.len(), lines[0]), (2, description));
            }
            // What Slack looks through for markup has none that is not ours.
            for message in site.slack.messages(channel) {
                let clean = |text: &Value| {
                    let text = text.as_str().unwrap();
                    assert!(!text.contains(['<', '>']), "{text}");
                };
                clean(&json!(message.text));
                let parts = message
                    .attachments
                    .iter()
                    .flat_map(|part| part["blocks"].as_array());
                for block in parts.flatten().chain(&message.blocks) {
                    for field in block["fields"].as_array().into_iter().flatten() {
                        clean(&field["text"]);
                    }
                }
            }
        }
        site.delivery("all to be delivered at once", |deliveries| {
            let right = deliveries.iter().all(|each| each.statuses == [200]);
            (right && deliveries.len() == 4).then_some(())
        })
        .await;
        site.kept_the_rules();
    });
}

#[test]
fn a_rotated_webhook_reaches_eventbridge_without_a_gap() {
    test(|world| async move {
        let site = Site::new(world, "path-rotate-hook").await;
        let old = site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(5).await;
        site.fire(1).await;
        let by = site.told("alerts", 1).await.remove(0).by;
        let arns = site.arns(&site.hook_path("alerts")).await;
        let known = site.delivering().await.status.unwrap().slack_paths;

        let mark = world.aws.mark();
        let new = site.slack.webhook("alerts");
        let (fired, _) = tokio::join!(
            async {
                for number in 2..=4 {
                    site.fire(number).await;
                }
            },
            site.hook("alerts", &new),
        );
        let () = fired;
        site.rotated(mark, "UpdateApiDestination").await;
        site.told("alerts", 4).await;
        // Nobody needs the old one any more.
        site.slack.revoke_webhook(&old);
        site.fire(5).await;
        let told = site.told("alerts", 5).await;
        assert_ne!(told[4].by, by, "by the new one");
        assert_eq!(site.arns(&site.hook_path("alerts")).await, arns);
        assert_eq!(by_alarm(&told).len(), 5, "none is lost, none comes twice");
        let tenant = site.delivering().await;
        let now = tenant.status.unwrap().slack_paths;
        assert_ne!(now, known, "another digest");
        site.kept_the_rules();
    });
}

#[test]
fn a_rotated_token_reaches_eventbridge_without_a_gap() {
    test(|world| async move {
        let site = Site::new(world, "path-rotate-bot").await;
        let old = site.manned("ops").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(5).await;
        site.fire(1).await;
        site.told("ops", 1).await;
        let arns = site.arns(&site.bot_path("ops")).await;

        let mark = world.aws.mark();
        let new = site.slack.reissue(&old);
        let (fired, _) = tokio::join!(
            async {
                for number in 2..=4 {
                    site.fire(number).await;
                }
            },
            site.hand_over("ops", &new),
        );
        let () = fired;
        site.rotated(mark, "UpdateConnection").await;
        site.told("ops", 4).await;
        site.slack.revoke(&old);
        site.fire(5).await;
        let told = site.told("ops", 5).await;
        assert_eq!(by_alarm(&told).len(), 5, "none is lost, none comes twice");
        assert_eq!(site.arns(&site.bot_path("ops")).await, arns);
        let posts = site.slack.calls("chat.postMessage");
        assert_eq!(posts.last().unwrap().token, new);
        assert!(posts.iter().all(|post| post.succeeded()), "{posts:#?}");
        site.delivering().await;
        site.kept_the_rules();
    });
}

impl Site {
    /// Waits until EventBridge has been given a new secret since `mark`: by one call, and nothing else was done.
    async fn rotated(&self, mark: Mark, operation: &str) {
        let account = &self.tenant.account;
        let writes = || {
            let calls = self.tenant.world.aws.calls_since(mark).into_iter();
            let calls = calls
                .filter(|call| call.write && call.service == "events" && call.account == *account);
            calls.map(|call| call.operation).collect::<Vec<_>>()
        };
        eventually(operation, || async {
            let writes = writes();
            (writes == [operation])
                .then_some(())
                .ok_or_else(|| format!("{writes:?}"))
        })
        .await;
        self.delivering().await;
        assert_eq!(writes(), [operation]);
    }
}

/// Slack gives a channel another id when it is shared or converted: the target follows.
#[test]
fn a_channel_that_gets_another_id_is_followed() {
    test(|world| async move {
        let site = Site::new(world, "path-id").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        site.fire(1).await;
        site.told("ops", 1).await;
        let id = site.slack.change_id("ops");
        let rule = site.rule(Severity::Critical, AlarmState::Alarm);
        eventually("the target to say the new id", || async {
            let targets = site
                .events()
                .list_targets_by_rule()
                .rule(&rule)
                .send()
                .await;
            let target = targets.unwrap().targets.unwrap().remove(0);
            let template = target.input_transformer.unwrap().input_template;
            template.contains(&id).then_some(()).ok_or(template)
        })
        .await;
        site.delivering().await;
        site.fire(2).await;
        site.told("ops", 2).await;
        site.kept_the_rules();
    });
}

#[test]
fn what_slack_does_not_take_at_once_arrives_once() {
    test(|world| async move {
        let site = Site::new(world, "path-again").await;
        site.hooked("alerts").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["alerts"], "warning": ["ops"]}))
            .await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        let troubles = [
            (Trouble::RateLimited { retry_after: 1 }, 429),
            (Trouble::Status(500, "<html>".into()), 500),
            (Trouble::Status(503, "<html>".into()), 503),
        ];
        let alarms = (1..=troubles.len()).flat_map(|number| {
            ["critical", "warning"].map(|it| alarm(&format!("{it}-{number}"), it, json!({})))
        });
        site.golden(alarms.collect()).await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        for (number, (trouble, status)) in (1..).zip(troubles) {
            for (severity, method, channel) in [
                (Severity::Critical, WEBHOOK, "alerts"),
                (Severity::Warning, "chat.postMessage", "ops"),
            ] {
                let name = site.name(severity, &format!("{severity}-{number}"));
                site.slack.trouble(method, trouble.clone(), None);
                site.turn(&name, AlarmState::Alarm, "r").await;
                let of_alarm = |deliveries: &[Delivery]| {
                    let mut found = deliveries.iter().filter(|each| each.alarm == name);
                    found.next().cloned()
                };
                site.delivery(&format!("{trouble:?}"), |deliveries| {
                    let delivery = of_alarm(deliveries)?;
                    (!delivery.statuses.is_empty()).then_some(())
                })
                .await;
                site.slack.lift(method);
                let delivery = site
                    .delivery("it to be delivered", |deliveries| {
                        let delivery = of_alarm(deliveries)?;
                        (delivery.outcome == Outcome::Delivered).then_some(delivery)
                    })
                    .await;
                let (last, before) = delivery.statuses.split_last().unwrap();
                assert_eq!(*last, 200);
                assert!(before.iter().all(|it| *it == status), "{delivery:?}");
                let told = site.told(channel, number).await;
                assert_eq!(told[number - 1].name, name);
            }
        }
        site.kept_the_rules();
    });
}

/// An answer that comes too late is asked for again: EventBridge delivers at least once. One that comes late, but in
/// time, is not.
#[test]
fn a_slow_slack_loses_nothing() {
    test(|world| async move {
        let site = Site::new(world, "path-slow").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(3).await;
        let late = |seconds| Trouble::Slow(Duration::from_secs(seconds));
        site.slack.trouble("chat.postMessage", late(2), 1);
        site.fire(1).await;
        site.settled(1, 1).await;
        site.told("ops", 1).await;
        // Nothing of what is cut off was done.
        site.slack
            .trouble("chat.postMessage", Trouble::CutBefore, 1);
        site.fire(2).await;
        site.settled(2, 2).await;
        site.told("ops", 2).await;
        site.slack.trouble("chat.postMessage", late(6), 1);
        site.fire(3).await;
        site.settled(3, 2).await;
        let told = site.told("ops", 4).await;
        assert_eq!(told[2], told[3], "the same twice");
        site.kept_the_rules();
    });
}

impl Site {
    /// Waits until so many events have been delivered, the last of them after so many attempts.
    async fn settled(&self, count: usize, attempts: usize) {
        let last = self.delivery("it to be delivered", |deliveries| {
            let delivered = deliveries
                .iter()
                .all(|each| each.outcome == Outcome::Delivered);
            (deliveries.len() == count && delivered).then(|| deliveries[count - 1].clone())
        });
        let last = last.await;
        assert_eq!(last.attempts, attempts, "{last:?}");
    }
}

#[test]
fn a_channel_of_two_severities_has_one_way_in() {
    test(|world| async move {
        let site = Site::new(world, "path-shared").await;
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"], "warning": ["alerts"]}))
            .await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        let counts = |all: &BTreeSet<String>| {
            ["connection", "destination", "rule", "target"].map(|sort| {
                let of_sort = |thing: &&String| thing.split(' ').next() == Some(sort);
                all.iter().filter(of_sort).count()
            })
        };
        assert_eq!(counts(&site.inventory().await), [1, 1, 6, 6]);
        let describe = site.events().describe_api_destination();
        let destination = describe
            .name(site.hook_path("alerts"))
            .send()
            .await
            .unwrap();
        assert_eq!(destination.invocation_rate_limit_per_second, Some(1));
        let alarms = json!([
            alarm("a-1", "critical", json!({})),
            alarm("slow", "warning", json!({}))
        ]);
        site.golden(alarms).await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        site.fire(1).await;
        let slow = site.name(Severity::Warning, "slow");
        site.turn(&slow, AlarmState::Alarm, "r").await;
        let told = site.told("alerts", 2).await;
        let severities: BTreeSet<_> = told.iter().map(|told| &*told.fields["Severity"]).collect();
        assert_eq!(severities, ["critical", "warning"].into());

        // As many as one severity may have.
        let five = ["alerts", "b", "c", "d", "e"];
        for channel in &five[1..] {
            site.hooked(channel).await;
        }
        site.notify(json!({"critical": five, "warning": ["alerts"]}))
            .await;
        site.delivering().await;
        assert_eq!(counts(&site.inventory().await), [5, 5, 6, 18]);
        let name = site.name(Severity::Critical, "a-1");
        site.turn(&name, AlarmState::Ok, "over").await;
        for (channel, count) in five.into_iter().zip([3, 1, 1, 1, 1]) {
            let told = site.told(channel, count).await;
            assert_eq!(told[count - 1].name, name, "{channel}");
        }
        let tenant = site.delivering().await;
        let paths = tenant.status.unwrap().slack_paths;
        let paths: Vec<_> = paths.iter().map(|path| &*path.channel).collect();
        assert_eq!(paths, five);
        site.kept_the_rules();
    });
}

/// What cannot be delivered is kept where the tenant says, and is not lost without a word.
#[test]
fn what_cannot_be_delivered_is_kept_in_the_queue() {
    test(|world| async move {
        let site = Site::new(world, "path-dead").await;
        let url = site.hooked("alerts").await;
        let account = &site.tenant.account;
        let queue = world.aws.dead_letter_queue(account, REGION, "dead").await;
        let queue = queue.unwrap();
        let mut spec = site.spec(json!({"critical": ["alerts"]}));
        spec["eventBridge"]["deadLetterQueueArn"] = json!(queue);
        site.tenant.tenant(spec).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        site.slack.disable_webhook(&url);
        site.fire(1).await;
        let delivery = site.delivery("it to be given up", |deliveries| {
            let last = deliveries.last()?;
            (last.outcome != Outcome::Pending).then(|| last.clone())
        });
        let delivery = delivery.await;
        assert_eq!(
            (delivery.outcome, delivery.statuses),
            (Outcome::DeadLettered, vec![403])
        );
        let letters = world.aws.dead_letters(&queue).await.unwrap();
        let event: Value = serde_json::from_str(&letters[0].body).unwrap();
        let name = site.name(Severity::Critical, "a-1");
        assert_eq!(event["detail"]["alarmName"], name);
        // The channel says what the tenant cannot know.
        site.tenant
            .ready::<SlackChannel>("alerts", "PartiallyFailed")
            .await;
        site.slack.restore_webhook(&url);
        site.tenant.ready::<SlackChannel>("alerts", "Applied").await;
        site.fire(2).await;
        site.told("alerts", 1).await;
        site.kept_the_rules();
    });
}
