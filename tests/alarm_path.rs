//! The way of an alarm into Slack, without the operator in between: CloudWatch, EventBridge, and Campanile's own
//! rules, connections and API destinations, up to the message that people read.

use crate::{
    slack_channel::SCOPES,
    support::{PATIENCE, REGION, Tenant, alarm, eventually, test},
};
use aws_sdk_cloudwatch::types::{AlarmType, StateValue};
use campanile::api::{AlarmSet, AlarmState, Severity, SlackChannel, TenantObservability};
use campanile_world::{
    World,
    slack::{By, Message, Workspace},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A tenant, its workspace, and the role by which EventBridge gets there.
struct Site {
    tenant: Tenant,
    slack: Workspace,
    role: String,
}

impl Site {
    async fn new(world: &'static World, name: &str) -> Self {
        mend_crd(world).await;
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

    /// Lets an alarm come to a state, for a reason.
    async fn turn(&self, name: &str, state: AlarmState, reason: &str) {
        self.state(name).await;
        let set = self.tenant.cloudwatch().set_alarm_state().alarm_name(name);
        set.state_value(StateValue::from(state.as_str()))
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

    /// Nothing broke Slack's contract.
    fn kept_the_rules(&self) {
        assert_eq!(self.slack.violations(), Vec::<String>::new());
    }
}

// TEMPORARY
async fn mend_crd(world: &World) {
    static ONCE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    ONCE.get_or_init(|| async {
        let client = world.kubernetes.client().await.unwrap();
        let api = kube::Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(client);
        let ops: Vec<_> = ["critical", "warning", "info"].iter().map(|severity| json!({"op": "replace", "path": format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/notify/properties/{severity}/properties/slack/x-kubernetes-list-type"), "value": "atomic"})).collect();
        let patch: kube::api::Patch<()> = kube::api::Patch::Json(serde_json::from_value(json!(ops)).unwrap());
        let name = "tenantobservabilities.campanile.dev";
        api.patch(name, &kube::api::PatchParams::default(), &patch).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    })
    .await;
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

/// A metric alarm, one of math, and one of others.
fn of_each_kind() -> Value {
    let metric = |id: &str| json!({"id": id, "namespace": "App", "metricName": id, "statistic": "Sum", "period": 60});
    let described = json!({"description": "More than ten errors", "runbookUrl": "https://runbooks.example/errors"});
    json!([
        alarm("errors", "critical", described),
        {
            "name": "rate", "severity": "critical", "evaluationPeriods": 1,
            "comparisonOperator": "GreaterThanThreshold", "threshold": 10,
            "metrics": [
                {"id": "rate", "expression": "100 * errors / requests", "returnData": true},
                metric("errors"),
                metric("requests"),
            ]
        },
        {"name": "down", "severity": "critical", "description": "All of it", "compositeRule": "ALARM(errors) AND ALARM(rate)"}
    ])
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
        site.golden(of_each_kind()).await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        let names = ["errors", "rate", "down"].map(|alarm| site.name(Severity::Critical, alarm));
        let [errors, rate, down] = &names;
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
                    "More than ten errors\nhttps://runbooks.example/errors\ncampanile:it/"
                ) && described.ends_with(mark),
                "{described}"
            );
            assert!(found[&**rate].description.ends_with(mark));
            assert!(found[&**down].description.starts_with("All of it\n"));
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
