//! Whose a thing is: what is not ours is left alone, whatever it looks like; what becomes ours, what is
//! let go of, and what is not even looked at.

use crate::{
    cli::plan,
    support::{CLUSTER, Conditions, REGION, Tenant, alarm, eventually, test, version},
};
use campanile::{
    api::{AlarmSet, Health, Severity, TenantObservability},
    mark::{self, Cluster, Mark},
    names,
};
use campanile_world::{
    World,
    aws::{self, Call, Trust},
    process::Process,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The mark of an object of a tenant's namespace.
async fn mark_of(tenant: &Tenant, kind: &str, name: &str) -> String {
    let namespaces = Api::<Namespace>::all(tenant.client.clone());
    let uid = namespaces.get("kube-system").await.unwrap().uid().unwrap();
    let cluster = Cluster {
        name: CLUSTER.into(),
        uid: uid.chars().take(8).collect(),
    };
    Mark::of(&cluster, kind, &tenant.namespace, name).to_string()
}

/// The same object's mark, had another cluster made it, or another one of the same name.
fn elsewhere(mark: &str) -> [String; 2] {
    let (_, rest) = mark.split_once('/').unwrap();
    let (_, object) = rest.split_once('/').unwrap();
    [
        format!("campanile:other/{rest}"),
        format!("campanile:{CLUSTER}/00000000/{object}"),
    ]
}

/// An alarm that somebody makes by hand; the tag says what the last line of its description says.
async fn put_alarm(tenant: &Tenant, name: &str, description: &str) {
    use aws_sdk_cloudwatch::types::{ComparisonOperator, Statistic, Tag};
    let owner = description.lines().last().unwrap_or_default();
    let put = tenant.cloudwatch().put_metric_alarm().alarm_name(name);
    let put = put
        .alarm_description(description)
        .namespace("App")
        .metric_name("by.hand")
        .statistic(Statistic::Maximum)
        .period(120)
        .evaluation_periods(2)
        .comparison_operator(ComparisonOperator::LessThanThreshold)
        .threshold(3.5)
        .tags(Tag::builder().key("team").value("somebody").build());
    let put = match Mark::parse(owner) {
        Some(mark) => {
            let tag = Tag::builder().key(mark::TAG).value(mark.as_str());
            put.tags(tag.build())
        }
        None => put,
    };
    put.send().await.unwrap();
}

/// A composite alarm that somebody makes by hand over an alarm.
async fn put_composite(tenant: &Tenant, name: &str, over: &str, description: &str) {
    let put = tenant.cloudwatch().put_composite_alarm().alarm_name(name);
    let put = put
        .alarm_rule(format!("ALARM(\"{over}\")"))
        .alarm_description(description);
    put.send().await.unwrap();
}

/// All that CloudWatch says of an alarm, but for what it is doing: that is nobody's choice.
async fn alarm_as_it_is(tenant: &Tenant, name: &str) -> String {
    let mut alarms = tenant.alarms().await;
    let Some(mut alarm) = alarms.remove(name) else {
        panic!("{name} is gone: {:?}", alarms.keys())
    };
    (alarm.state_value, alarm.evaluation_state) = (None, None);
    (alarm.state_reason, alarm.state_reason_data) = (None, None);
    alarm.state_updated_timestamp = None;
    alarm.state_transitioned_timestamp = None;
    let tags = alarm_tags(tenant, name).await;
    format!("{alarm:?} {tags:?}")
}

async fn alarm_tags(tenant: &Tenant, name: &str) -> BTreeMap<String, String> {
    let arn = names::alarm_arn(REGION, &tenant.account, name);
    let list = tenant.cloudwatch().list_tags_for_resource();
    let tags = list.resource_arn(arn).send().await.unwrap();
    let pair = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let tags = tags.tags().iter();
    tags.map(|tag| (pair(tag.key()), pair(tag.value())))
        .collect()
}

/// The names of all composite alarms, with what is known of each.
async fn composites(tenant: &Tenant) -> BTreeMap<String, (String, String)> {
    use aws_sdk_cloudwatch::types::AlarmType;
    let described = tenant.cloudwatch().describe_alarms();
    let described = described.alarm_types(AlarmType::CompositeAlarm);
    let described = described.send().await.unwrap();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let all = described.composite_alarms().iter();
    all.map(|one| {
        let about = (text(one.alarm_rule()), text(one.alarm_description()));
        (text(one.alarm_name()), about)
    })
    .collect()
}

/// A topic that somebody makes by hand, with a reader of its own, and its ARN.
async fn make_topic(tenant: &Tenant, name: &str, owner: Option<&str>) -> String {
    use aws_sdk_sns::types::Tag;
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
    let sns = tenant.sns();
    let make = sns.create_topic().name(name).tags(tag("team", "somebody"));
    let make = match owner {
        Some(owner) => make.tags(tag(mark::TAG, owner)),
        None => make,
    };
    let made = make.attributes("DisplayName", "by hand").send().await;
    let arn = made.unwrap().topic_arn.unwrap();
    let subscribe = sns.subscribe().topic_arn(&arn).protocol("email");
    let reader = "reader@somebody.example";
    subscribe.endpoint(reader).send().await.unwrap();
    arn
}

/// All that SNS says of a topic.
async fn topic_as_it_is(tenant: &Tenant, arn: &str) -> String {
    let sns = tenant.sns();
    let attributes = sns.get_topic_attributes().topic_arn(arn).send().await;
    let attributes = attributes.unwrap().attributes.unwrap_or_default();
    let attributes: BTreeMap<_, _> = attributes.into_iter().collect();
    let tags = topic_tags(tenant, arn).await;
    let readers = sns.list_subscriptions_by_topic().topic_arn(arn).send();
    let readers = readers.await.unwrap().subscriptions.unwrap_or_default();
    let readers: BTreeSet<_> = readers.iter().map(|reader| format!("{reader:?}")).collect();
    format!("{attributes:?} {tags:?} {readers:?}")
}

async fn topic_tags(tenant: &Tenant, arn: &str) -> BTreeMap<String, String> {
    let list = tenant.sns().list_tags_for_resource().resource_arn(arn);
    let tags = list.send().await.unwrap().tags.unwrap_or_default();
    tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

/// The name and the ARN of a tenant's topic.
fn topic(tenant: &Tenant, name: &str, severity: Severity) -> (String, String) {
    let topic = names::topic(CLUSTER, &tenant.namespace, name, severity);
    let arn = names::topic_arn(REGION, &tenant.account, &topic);
    (topic, arn)
}

/// The calls that concern an account: made in it, or to get into it.
pub fn about(world: &World, since: aws::Mark, account: &str) -> Vec<Call> {
    let calls = world.aws.calls_since(since).into_iter();
    let concerns = |call: &Call| call.account == account || call.resource.contains(account);
    calls.filter(concerns).collect()
}

/// What kstatus makes of an object: <https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus>.
pub fn kstatus<K: Conditions>(object: &K) -> &'static str {
    let all = serde_json::to_value(object).unwrap();
    let observed = &all["status"]["observedGeneration"];
    let is = |type_: &str, status: &str| {
        object
            .condition(type_)
            .is_some_and(|condition| condition.status == status)
    };
    match () {
        () if all["metadata"]["deletionTimestamp"].is_string() => "Terminating",
        () if !observed.is_null() && *observed != all["metadata"]["generation"] => "InProgress",
        () if is("Stalled", "True") => "Failed",
        () if is("Reconciling", "True") || is("Ready", "False") || is("Ready", "Unknown") => {
            "InProgress"
        }
        () => "Current",
    }
}

fn set_spec(tenant: &str, alarms: Value, more: Value) -> Value {
    let mut spec = json!({"tenantRef": {"name": tenant}, "alarms": alarms});
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    spec
}

fn with(mut spec: Value, more: Value) -> Value {
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    spec
}

async fn patch<K>(tenant: &Tenant, name: &str, spec: Value)
where
    K: Conditions,
{
    let patch = Patch::Merge(json!({ "spec": spec }));
    let api = tenant.api::<K>();
    let patched = api.patch(name, &PatchParams::default(), &patch).await;
    patched.unwrap();
}

#[test]
fn alarms_of_others_are_left_alone() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-alarms").await;
        let ours = mark_of(&tenant, "AlarmSet", "golden").await;
        let another = mark_of(&tenant, "AlarmSet", "other").await;
        let [cluster, namesake] = elsewhere(&ours);
        let nobody = "nobody that Campanile knows (it carries no mark)";
        let foreign = [
            ("unmarked", "made by hand".to_owned(), nobody),
            ("undone", format!("{ours} and more"), nobody),
            ("another-set", format!("theirs\n{another}"), &another),
            ("another-cluster", format!("theirs\n{cluster}"), &cluster),
            ("a-namesake", format!("theirs\n{namesake}"), &namesake),
        ];
        let wanted = |name: &str| tenant.name(Severity::Critical, "golden", name, None);
        let left = |name: &str| tenant.name(Severity::Info, "golden", name, None);
        let mut before = BTreeMap::new();
        for (name, description, _) in &foreign {
            for name in [wanted(name), left(name)] {
                put_alarm(&tenant, &name, description).await;
                before.insert(name.clone(), alarm_as_it_is(&tenant, &name).await);
            }
        }
        // No AlarmSet makes composite alarms, so one by our mark is none of ours.
        put_alarm(&tenant, "by-hand", "under something").await;
        for name in [wanted("composed"), left("composed")] {
            put_composite(&tenant, &name, "by-hand", &format!("forged\n{ours}")).await;
        }
        let composed = composites(&tenant).await;
        assert_eq!(composed.len(), 2);

        tenant.usual_tenant().await;
        let alarms = |threshold: i32| -> Value {
            let names = foreign.iter().map(|(name, ..)| *name);
            let names = names.chain(["composed", "one", "two"]);
            let threshold = json!({"threshold": threshold});
            names
                .map(|name| alarm(name, "critical", threshold.clone()))
                .collect()
        };
        let apply = async |threshold| {
            let spec = set_spec("own-alarms", alarms(threshold), json!({}));
            tenant.apply::<AlarmSet>("golden", spec).await
        };
        let mark = world.aws.mark();
        apply(10).await;
        let _operator = tenant.operator().await;
        let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
        assert!(
            message.contains("it was not touched") && message.contains("and 5 other problems"),
            "{message}"
        );
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        assert_eq!(kstatus(&set), "Failed");
        let status = set.status.unwrap();
        let counts = status.counts.unwrap();
        assert_eq!(
            (
                counts.desired,
                counts.applied,
                counts.foreign,
                counts.failed
            ),
            (8, 2, 6, 0)
        );
        let told = |name: &str| {
            let mut entries = status.alarms.iter();
            entries.find(|entry| entry.name == name).unwrap().clone()
        };
        let holders = foreign.iter().map(|(name, _, holder)| (*name, *holder));
        for (name, holder) in holders.chain([("composed", "a composite alarm")]) {
            let entry = told(name);
            let message = entry.message.unwrap();
            assert_eq!(
                (entry.reason.as_deref(), entry.state),
                (Some("Conflict"), None)
            );
            assert!(
                message.contains(&wanted(name)) && message.contains(holder),
                "{message}"
            );
        }
        let planned = plan(&tenant, &["-n", "own-alarms", "aset/golden"]).await;
        assert_eq!(planned.code, 2);
        assert!(
            planned.out.ends_with(
                "0 to create, 0 to change, 0 to delete, 6 in conflict, 0 problems in 1 object.\n"
            ),
            "{}",
            planned.out
        );

        // An edit of all of them reaches ours.
        apply(20).await;
        eventually("our two alarms to be edited", || async {
            let alarms = tenant.alarms().await;
            let threshold = |name: &str| alarms[&wanted(name)].threshold();
            match (threshold("one"), threshold("two")) {
                (Some(20.0), Some(20.0)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        // One of ours that somebody else signs is theirs from then on.
        put_alarm(&tenant, &wanted("two"), &format!("taken\n{another}")).await;
        before.insert(wanted("two"), alarm_as_it_is(&tenant, &wanted("two")).await);
        tenant
            .until::<AlarmSet>("golden", "seven in conflict", |set| {
                set.status.as_ref().unwrap().counts.unwrap().foreign == 7
            })
            .await;
        let taken = world.aws.mark();
        tenant.polls(taken, 3).await;
        assert_eq!(tenant.writes_since(taken), []);

        tenant.delete::<AlarmSet>("golden").await;
        tenant.gone::<AlarmSet>("golden").await;
        let there: BTreeSet<_> = tenant.alarms().await.into_keys().collect();
        let theirs = before.keys().cloned().chain(["by-hand".to_owned()]);
        assert_eq!(there, theirs.collect());
        for (name, as_it_was) in &before {
            assert_eq!(&alarm_as_it_is(&tenant, name).await, as_it_was);
        }
        assert_eq!(composites(&tenant).await, composed);
        let touched = tenant.writes_since(mark);
        let alarms = touched
            .iter()
            .filter(|(_, resource)| resource.contains(":alarm:"));
        let ours = [wanted("one"), wanted("two")];
        for (operation, resource) in alarms {
            let is_ours = ours.iter().any(|name| resource.ends_with(name));
            assert!(is_ours, "{operation} {resource}");
        }
    });
}

#[test]
fn topics_of_others_are_left_alone() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-topics").await;
        let (first, second) = ("own-topics", "own-topics-2");
        let ours = async |name: &str| mark_of(&tenant, "TenantObservability", name).await;
        let [cluster, _] = elsewhere(&ours(first).await);
        let [_, namesake] = elsewhere(&ours(second).await);
        let another = ours("another").await;
        let nobody = "nobody that Campanile knows (it carries no mark)";
        let (critical, warning, info) = (Severity::Critical, Severity::Warning, Severity::Info);
        let foreign = [
            (first, critical, None, nobody),
            (first, warning, Some(&another), another.as_str()),
            (first, info, Some(&cluster), cluster.as_str()),
            (second, critical, Some(&namesake), namesake.as_str()),
        ];
        let mut before = BTreeMap::new();
        for (name, severity, owner, _) in foreign {
            let (topic, arn) = topic(&tenant, name, severity);
            let made = make_topic(&tenant, &topic, owner.map(String::as_str)).await;
            assert_eq!(made, arn);
            before.insert(arn.clone(), topic_as_it_is(&tenant, &arn).await);
        }

        let mark = world.aws.mark();
        let listed = json!({"emails": ["oncall@vsu.example"]});
        let spec = |notify: Value| with(tenant.usual_spec(), json!({"notify": notify}));
        let everything = spec(json!({"critical": listed, "warning": listed, "info": listed}));
        tenant.apply::<TenantObservability>(first, everything).await;
        let some = spec(json!({"critical": listed, "warning": {}}));
        tenant.apply::<TenantObservability>(second, some).await;
        for name in [first, second] {
            let alarms = json!([alarm("errors", "critical", json!({}))]);
            let spec = set_spec(name, alarms, json!({}));
            tenant.apply::<AlarmSet>(name, spec).await;
        }
        let _operator = tenant.operator().await;
        for (name, problems) in [(first, "and 2 other problems"), (second, "")] {
            let message = tenant.ready::<TenantObservability>(name, "Conflict").await;
            assert!(
                message.contains("it was not touched") && message.ends_with(problems),
                "{message}"
            );
            let (topic, _) = topic(&tenant, name, critical);
            assert!(message.contains(&topic), "{message}");
            // The alarms are there and do not tell a stranger.
            tenant.ready::<AlarmSet>(name, "Applied").await;
            let alarm = names::alarm(CLUSTER, name, critical, name, "errors", None);
            let actions = tenant.alarms().await[&alarm].alarm_actions().to_vec();
            assert_eq!(actions, Vec::<String>::new());
        }
        for (name, severity, _, holder) in foreign {
            let object = format!("tobs/{name}");
            let planned = plan(&tenant, &["-n", "own-topics", &object]).await;
            let (topic, _) = topic(&tenant, name, severity);
            let told = format!("  ! topic {topic}\n      not touched: it is held by {holder}\n");
            assert!(planned.out.contains(&told), "{told} in {}", planned.out);
        }
        let conflict = tenant.api::<TenantObservability>().get(second).await;
        let conflict = conflict.unwrap();
        assert_eq!(kstatus(&conflict), "Failed");
        let delivery = conflict.condition("DeliveryReady").unwrap();
        assert_eq!(
            (delivery.status.as_str(), delivery.reason.as_str()),
            ("False", "TopicConflict")
        );
        // The one that nobody else has made is ours.
        let status = conflict.status.unwrap();
        let (_, other) = topic(&tenant, second, warning);
        let topics: Vec<_> = status.topics.iter().map(|topic| &topic.arn).collect();
        assert_eq!(topics, [&other]);
        assert_eq!(status.subscriptions, []);

        for name in [first, second] {
            tenant.delete::<TenantObservability>(name).await;
            tenant.gone::<TenantObservability>(name).await;
        }
        let there: BTreeSet<_> = tenant.topics().await.into_iter().collect();
        assert_eq!(there, before.keys().cloned().collect());
        for (arn, as_it_was) in &before {
            assert_eq!(&topic_as_it_is(&tenant, arn).await, as_it_was);
        }
        let touched = tenant.writes_since(mark);
        let topics = touched
            .iter()
            .filter(|(_, resource)| resource.contains(":sns:"));
        let topics: Vec<_> = topics.cloned().collect();
        let expected = ["CreateTopic", "DeleteTopic"].map(|api| (api.to_owned(), other.clone()));
        assert_eq!(topics, expected);
    });
}

#[test]
fn a_mark_that_is_written_into_a_spec_is_text() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-forged").await;
        tenant.usual_tenant().await;
        let ours = mark_of(&tenant, "AlarmSet", "golden").await;
        let theirs = mark_of(&tenant, "AlarmSet", "theirs").await;
        let alarms = |text: &str| {
            json!([
                alarm("errors", "critical", json!({"description": text})),
                alarm(
                    "slow",
                    "warning",
                    json!({"description": text, "runbookUrl": "https://r.example/"})
                )
            ])
        };
        tenant.set("golden", json!(["prod"]), alarms(&theirs)).await;
        tenant.set("theirs", json!(["prod"]), alarms(&ours)).await;
        let _operator = tenant.operator().await;
        for name in ["golden", "theirs"] {
            tenant.ready::<AlarmSet>(name, "Applied").await;
        }
        let name =
            |set: &str, alarm: &str, severity| tenant.name(severity, set, alarm, Some("prod"));
        let errors = |set: &str| name(set, "errors", Severity::Critical);
        let slow = |set: &str| name(set, "slow", Severity::Warning);
        for (set, mark, text) in [("golden", &ours, &theirs), ("theirs", &theirs, &ours)] {
            let found = tenant.alarms().await;
            let said = |name: &String| found[name].alarm_description().unwrap().to_owned();
            assert_eq!(said(&errors(set)), format!("{text}\n{mark}"));
            let runbook = "Runbook: https://r.example/";
            assert_eq!(said(&slow(set)), format!("{text}\n{runbook}\n{mark}"));
            for name in [errors(set), slow(set)] {
                let tags = alarm_tags(&tenant, &name).await;
                assert_eq!(tags.get(mark::TAG), Some(mark));
            }
        }
        let mut before = BTreeMap::new();
        for name in [errors("golden"), slow("golden")] {
            before.insert(name.clone(), alarm_as_it_is(&tenant, &name).await);
        }
        let mark = world.aws.mark();
        tenant.polls(mark, 3).await;
        assert_eq!(tenant.writes_since(mark), []);

        // Neither an edit nor the end of the set that is named there concerns them.
        tenant
            .set(
                "theirs",
                json!(["prod"]),
                json!([alarm("new", "info", json!({}))]),
            )
            .await;
        tenant.ready::<AlarmSet>("theirs", "Applied").await;
        tenant.delete::<AlarmSet>("theirs").await;
        tenant.gone::<AlarmSet>("theirs").await;
        let there: Vec<_> = tenant.alarms().await.into_keys().collect();
        assert_eq!(there, before.keys().cloned().collect::<Vec<_>>());
        for (name, as_it_was) in &before {
            assert_eq!(&alarm_as_it_is(&tenant, name).await, as_it_was);
        }

        // What would make a line of its own of it is no description.
        for line in [
            "\n", "\r", "\r\n", "\u{b}", "\u{85}", "\u{2028}", "\u{2029}", "\u{1b}",
        ] {
            let spec = set_spec(
                &tenant.namespace,
                json!([alarm(
                    "errors",
                    "info",
                    json!({"description": format!("a{line}{theirs}")})
                )]),
                json!({}),
            );
            // Not server-side apply: the API server reads its body as YAML, where some of these fold to a space.
            let set: AlarmSet =
                serde_json::from_value(json!({"apiVersion": "campanile.dev/v1alpha1",
                "kind": "AlarmSet", "metadata": {"name": "refused"}, "spec": spec}))
                .unwrap();
            let api = tenant.api::<AlarmSet>();
            let refused = api.create(&PostParams::default(), &set).await;
            let refused = refused.expect_err(&format!("{line:?} is accepted"));
            let message = refused.to_string();
            assert!(
                message.contains("description is one line without control characters"),
                "{line:?}: {message}"
            );
        }
    });
}

#[test]
fn alarms_are_adopted_where_the_spec_says_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-adopts").await;
        tenant.usual_tenant().await;
        let another = mark_of(&tenant, "AlarmSet", "other").await;
        let _operator = tenant.operator().await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        for (policy, adopts, makes) in [
            ("Never", false, true),
            ("IfExists", true, true),
            ("MustExist", true, false),
        ] {
            let set = format!("golden-{}", policy.to_lowercase());
            let ours = mark_of(&tenant, "AlarmSet", &set).await;
            let wanted = |name: &str| tenant.name(Severity::Critical, &set, name, None);
            let [found, theirs, missing] = ["found", "theirs", "missing"].map(wanted);
            put_alarm(&tenant, &found, "made by hand").await;
            put_alarm(&tenant, &theirs, &format!("theirs\n{another}")).await;
            let found_as_it_was = alarm_as_it_is(&tenant, &found).await;
            let theirs_as_it_was = alarm_as_it_is(&tenant, &theirs).await;
            let names = ["found", "theirs", "missing"];
            let alarms = names.map(|name| alarm(name, "critical", json!({})));
            let more = json!({"adoptionPolicy": policy});
            let spec = |alarms: &[Value]| set_spec(&tenant.namespace, json!(alarms), more.clone());

            // A plan tells it, before anything is done.
            let file = world.run_dir().join(format!("{set}.yaml"));
            let object = json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
                "metadata": {"name": set}, "spec": spec(&alarms)});
            std::fs::write(&file, object.to_string()).unwrap();
            let args = ["-n", "own-adopts", "-f", file.to_str().unwrap()];
            let planned = plan(&tenant, &args).await;
            let adoption = format!("  ~ alarm {found}\n");
            let metric = "      metricName: by.hand → found\n";
            let signed = format!("      description: made by hand → {ours}\n");
            for told in [&adoption, metric, &signed] {
                assert_eq!(
                    planned.out.contains(told),
                    adopts,
                    "{told}: {}",
                    planned.out
                );
            }
            let making = format!("  + alarm {missing}\n");
            assert_eq!(planned.out.contains(&making), makes, "{}", planned.out);
            let conflict =
                format!("  ! alarm {theirs}\n      not touched: it is held by {another}\n");
            assert!(planned.out.contains(&conflict), "{}", planned.out);
            let untold =
                "spec.adoptionPolicy is MustExist: make it there first, or choose IfExists";
            assert_eq!(planned.out.contains(untold), !makes, "{}", planned.out);

            let mark = world.aws.mark();
            tenant.apply::<AlarmSet>(&set, spec(&alarms)).await;
            tenant.ready::<AlarmSet>(&set, "Conflict").await;
            let status = tenant.api::<AlarmSet>().get(&set).await.unwrap().status;
            let status = status.unwrap();
            let reason = |name: &str| {
                let mut entries = status.alarms.iter();
                let entry = entries.find(|entry| entry.name == name).unwrap();
                let message = entry.message.clone().unwrap_or_default();
                (entry.reason.clone().unwrap_or_default(), message)
            };
            assert_eq!(reason("theirs").0, "Conflict");
            let expected = if adopts { "" } else { "Conflict" };
            assert_eq!(reason("found").0, expected);
            let (why, message) = reason("missing");
            assert_eq!(why, if makes { "" } else { "Rejected" });
            assert_eq!(message.contains(untold), !makes, "{message}");
            let there = tenant.alarms().await;
            assert_eq!(there.contains_key(&missing), makes);
            let adopted = &there[&found];
            if adopts {
                assert_eq!(adopted.metric_name(), Some("found"));
                assert_eq!(adopted.alarm_description(), Some(ours.as_str()));
                eventually("the owner's tag, beside what else was there", || async {
                    let tags = alarm_tags(&tenant, &found).await;
                    let expected = [
                        (mark::TAG, ours.as_str()),
                        ("campanile-alarm", "found"),
                        ("campanile-set", &*set),
                        ("team", "somebody"),
                    ];
                    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
                    if tags == expected.into() {
                        Ok(())
                    } else {
                        Err(format!("{tags:?}"))
                    }
                })
                .await;
            } else {
                assert_eq!(alarm_as_it_is(&tenant, &found).await, found_as_it_was);
            }
            assert_eq!(alarm_as_it_is(&tenant, &theirs).await, theirs_as_it_was);
            let writes = tenant.writes_since(mark);
            let to = |name: &str| {
                let writes = writes.iter();
                writes
                    .filter(|(_, resource)| resource.ends_with(name))
                    .count()
            };
            assert_eq!(
                (to(&found), to(&missing), to(&theirs)),
                (if adopts { 2 } else { 0 }, usize::from(makes), 0),
                "{writes:?}"
            );

            // What was adopted goes with us.
            tenant.delete::<AlarmSet>(&set).await;
            tenant.gone::<AlarmSet>(&set).await;
            let there = tenant.alarms().await;
            assert_eq!(there.contains_key(&found), !adopts);
            assert!(!there.contains_key(&missing));
            assert_eq!(alarm_as_it_is(&tenant, &theirs).await, theirs_as_it_was);
        }
    });
}

#[test]
fn topics_are_adopted_where_the_spec_says_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-adopts-topics").await;
        let _operator = tenant.operator().await;
        let (critical, warning, info) = (Severity::Critical, Severity::Warning, Severity::Info);
        for (policy, adopts, makes) in [
            ("Never", false, true),
            ("IfExists", true, true),
            ("MustExist", true, false),
        ] {
            let name = policy.to_lowercase();
            let ours = mark_of(&tenant, "TenantObservability", &name).await;
            let another = mark_of(&tenant, "TenantObservability", "another").await;
            let (found_name, found) = topic(&tenant, &name, critical);
            let (theirs_name, theirs) = topic(&tenant, &name, warning);
            let (missing_name, missing) = topic(&tenant, &name, info);
            make_topic(&tenant, &found_name, None).await;
            make_topic(&tenant, &theirs_name, Some(&another)).await;
            let found_as_it_was = topic_as_it_is(&tenant, &found).await;
            let theirs_as_it_was = topic_as_it_is(&tenant, &theirs).await;

            let spec = with(
                tenant.usual_spec(),
                json!({"adoptionPolicy": policy,
                    "notify": {"critical": {"emails": ["oncall@vsu.example"]}, "warning": {}, "info": {}}}),
            );
            let file = world.run_dir().join(format!("topics-{name}.yaml"));
            let object = json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "TenantObservability",
                "metadata": {"name": name}, "spec": spec});
            std::fs::write(&file, object.to_string()).unwrap();
            let args = ["-n", "own-adopts-topics", "-f", file.to_str().unwrap()];
            let planned = plan(&tenant, &args).await;
            let adoption = format!("  ~ topic {found_name}\n");
            let signed = format!("      {}: (unset) → {ours}\n", mark::TAG);
            for told in [&adoption, &signed] {
                assert_eq!(
                    planned.out.contains(told),
                    adopts,
                    "{told}: {}",
                    planned.out
                );
            }
            let making = format!("  + topic {missing_name}\n");
            assert_eq!(planned.out.contains(&making), makes, "{}", planned.out);
            let conflict =
                format!("  ! topic {theirs_name}\n      not touched: it is held by {another}\n");
            assert!(planned.out.contains(&conflict), "{}", planned.out);

            let mark = world.aws.mark();
            tenant.apply::<TenantObservability>(&name, spec).await;
            tenant.ready::<TenantObservability>(&name, "Conflict").await;
            let topics = tenant.topics().await;
            assert_eq!(topics.contains(&missing), makes);
            if adopts {
                let tags = topic_tags(&tenant, &found).await;
                let expected = [(mark::TAG, ours.as_str()), ("team", "somebody")];
                let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
                assert_eq!(tags, expected.into());
                let state = topic_as_it_is(&tenant, &found).await;
                assert!(
                    state.contains("cloudwatch.amazonaws.com")
                        && state.contains("by hand")
                        && state.contains("reader@somebody.example"),
                    "{state}"
                );
            } else {
                assert_eq!(topic_as_it_is(&tenant, &found).await, found_as_it_was);
            }
            assert_eq!(topic_as_it_is(&tenant, &theirs).await, theirs_as_it_was);
            let listed = tenant
                .until::<TenantObservability>(&name, "its own topics", |tenant| {
                    let topics = &tenant.status.as_ref().unwrap().topics;
                    topics.len() == usize::from(adopts) + usize::from(makes)
                })
                .await;
            assert!(kstatus(&listed) == "Failed", "{listed:?}");
            if !makes {
                let told = &listed.condition("Ready").unwrap().message;
                let untold = format!(
                    "topic {missing_name} does not exist, and spec.adoptionPolicy is MustExist"
                );
                assert!(told.contains(&untold), "{told}");
            }
            let writes = tenant.writes_since(mark);
            assert!(
                writes.iter().all(|(_, resource)| *resource != theirs),
                "{writes:?}"
            );

            tenant.delete::<TenantObservability>(&name).await;
            tenant.gone::<TenantObservability>(&name).await;
            let topics = tenant.topics().await;
            assert_eq!(topics.contains(&found), !adopts);
            assert!(!topics.contains(&missing));
            assert_eq!(topic_as_it_is(&tenant, &theirs).await, theirs_as_it_was);
        }
    });
}

#[test]
fn what_is_let_go_of_stays_and_is_taken_back() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-orphan").await;
        let orphan = json!({"deletionPolicy": "Orphan"});
        let notify =
            json!({"notify": {"critical": {"emails": ["oncall@vsu.example"]}, "warning": {}}});
        let spec = with(with(tenant.usual_spec(), orphan.clone()), notify);
        let alarms = json!([
            alarm("errors", "critical", json!({})),
            alarm("slow", "warning", json!({}))
        ]);
        let set = set_spec("own-orphan", alarms, orphan);
        let apply = async || {
            tenant.tenant(spec.clone()).await;
            tenant.apply::<AlarmSet>("golden", set.clone()).await;
            tenant
                .ready::<TenantObservability>("own-orphan", "Applied")
                .await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
        };
        let everything = async || {
            let mut all = BTreeMap::new();
            for name in tenant.alarms().await.into_keys() {
                all.insert(name.clone(), alarm_as_it_is(&tenant, &name).await);
            }
            for arn in tenant.topics().await {
                all.insert(arn.clone(), topic_as_it_is(&tenant, &arn).await);
            }
            all
        };
        let _operator = tenant.operator().await;
        apply().await;
        let before = everything().await;
        assert_eq!(before.len(), 4);
        for (kind, name) in [
            ("AlarmSet", "golden"),
            ("TenantObservability", "own-orphan"),
        ] {
            let mark = mark_of(&tenant, kind, name).await;
            let marked = before.values().filter(|thing| thing.contains(&mark));
            assert_eq!(marked.count(), 2, "{mark}");
        }

        // The account lets nobody in any more, and nothing waits for that.
        world.aws.remove_role(&tenant.role());
        let mark = world.aws.mark();
        tenant.delete::<AlarmSet>("golden").await;
        tenant.delete::<TenantObservability>("own-orphan").await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.gone::<TenantObservability>("own-orphan").await;
        assert_eq!(everything().await, before);
        assert_eq!(tenant.writes_since(mark), [], "not even tried");

        // The same objects find what they made, and have nothing to do.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/own-orphan")));
        apply().await;
        let settled = world.aws.mark();
        tenant.polls(settled, 3).await;
        assert_eq!(tenant.writes_since(mark), []);
        assert_eq!(everything().await, before);
        let again = tenant.api::<TenantObservability>().get("own-orphan").await;
        assert_eq!(again.unwrap().status.unwrap().topics.len(), 2);

        // Deleted another way it all goes.
        patch::<AlarmSet>(&tenant, "golden", json!({"deletionPolicy": "Delete"})).await;
        let delete = json!({"deletionPolicy": "Delete"});
        patch::<TenantObservability>(&tenant, "own-orphan", delete).await;
        tenant.delete::<AlarmSet>("golden").await;
        tenant.delete::<TenantObservability>("own-orphan").await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.gone::<TenantObservability>("own-orphan").await;
        assert_eq!(everything().await, BTreeMap::new());
    });
}

#[test]
fn a_deletion_that_hangs_can_be_let_go_of() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-hangs").await;
        tenant.usual_tenant().await;
        let alarms = json!([alarm("errors", "critical", json!({}))]);
        tenant.set("golden", json!(["*"]), alarms).await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        world.aws.remove_role(&tenant.role());
        tenant.delete::<AlarmSet>("golden").await;
        tenant.delete::<TenantObservability>("own-hangs").await;
        let place = format!("cleaning up in account {}, {REGION}: ", tenant.account);
        for message in [
            tenant.ready::<AlarmSet>("golden", "Deleting").await,
            tenant
                .ready::<TenantObservability>("own-hangs", "Deleting")
                .await,
        ] {
            assert!(message.starts_with(&place), "{message}");
        }
        let hanging = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        assert_eq!(kstatus(&hanging), "Terminating");

        let orphan = json!({"deletionPolicy": "Orphan"});
        patch::<AlarmSet>(&tenant, "golden", orphan.clone()).await;
        patch::<TenantObservability>(&tenant, "own-hangs", orphan).await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.gone::<TenantObservability>("own-hangs").await;
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (2, 2)
        );
    });
}

/// Two tenants under one operator. The second one's polls are a clock for what the first one does not do.
async fn beside(tenant: &Tenant, clock: &Tenant) -> Process {
    let operator = tenant
        .operator_with(&["--watch-namespace", &clock.namespace])
        .await;
    clock.usual_tenant().await;
    let alarms = json!([alarm("errors", "critical", json!({}))]);
    clock.set("golden", json!(["prod"]), alarms).await;
    clock.ready::<AlarmSet>("golden", "Applied").await;
    operator
}

#[test]
fn what_is_suspended_is_not_even_looked_at() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-suspended").await;
        let clock = Tenant::new(world, "own-suspended-clock").await;
        let operator = beside(&tenant, &clock).await;
        let alarms =
            |threshold: i32| json!([alarm("errors", "critical", json!({"threshold": threshold}))]);
        let set = |threshold, suspend: bool| {
            let suspend = if suspend {
                json!({"suspend": true})
            } else {
                json!({})
            };
            set_spec("own-suspended", alarms(threshold), suspend)
        };
        let suspended = |reason: &'static str| {
            let tenant = &tenant;
            async move {
                tenant.ready::<AlarmSet>("golden", reason).await;
                tenant
                    .ready::<TenantObservability>("own-suspended", reason)
                    .await;
            }
        };
        tenant.usual_tenant().await;
        tenant.apply::<AlarmSet>("golden", set(1, false)).await;
        tenant
            .until::<TenantObservability>("own-suspended", "healthy", |tenant| {
                tenant.holds("Healthy") && tenant.holds("Ready")
            })
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;

        let stop = with(tenant.usual_spec(), json!({"suspend": true}));
        tenant.tenant(stop.clone()).await;
        tenant.apply::<AlarmSet>("golden", set(1, true)).await;
        suspended("Suspended").await;
        let set_now = async || tenant.api::<AlarmSet>().get("golden").await.unwrap();
        let tenant_now = async || {
            let api = tenant.api::<TenantObservability>();
            api.get("own-suspended").await.unwrap()
        };
        assert!(set_now().await.holds("Ready") && tenant_now().await.holds("Ready"));
        assert_eq!(
            (kstatus(&set_now().await), kstatus(&tenant_now().await)),
            ("Current", "Current")
        );
        // Its health is what it was, and says since when nobody looks.
        let known = tenant_now().await;
        assert_eq!(known.status.as_ref().unwrap().health, Some(Health::Healthy));
        let healthy = known.condition("Healthy").unwrap();
        assert_eq!(
            (healthy.status.as_str(), healthy.message.as_str()),
            ("True", "suspended; last known: 0/1 firing")
        );

        // What was under way when it was suspended is over; then much happens, and nothing comes of it.
        clock.polls(world.aws.mark(), 2).await;
        let mark = world.aws.mark();
        let quiet = async |times| {
            let since = world.aws.mark();
            clock.polls(since, times).await;
            let calls = about(world, mark, &tenant.account);
            assert!(calls.is_empty(), "{calls:?}");
        };
        let name = tenant.name(Severity::Critical, "golden", "errors", None);
        let delete = tenant.cloudwatch().delete_alarms().alarm_names(&name);
        delete.send().await.unwrap();
        let (_, arn) = topic(&tenant, "own-suspended", Severity::Critical);
        let delete = tenant.sns().delete_topic().topic_arn(&arn);
        delete.send().await.unwrap();
        let versions = async || {
            (
                version::<AlarmSet>(&tenant, "golden").await,
                version::<TenantObservability>(&tenant, "own-suspended").await,
            )
        };
        let before = versions().await;
        quiet(4).await;
        assert_eq!(versions().await, before, "nothing to say, either");
        // Whoever asks for a look is told that he was heard, and no more.
        tenant
            .annotate::<AlarmSet>("golden", "reconcile.fluxcd.io/requestedAt", "now")
            .await;
        tenant
            .until::<AlarmSet>("golden", "the echo", |set| {
                let status = set.status.as_ref().unwrap();
                status.last_handled_reconcile_at.as_deref() == Some("now")
            })
            .await;
        let planned = plan(&tenant, &["-n", "own-suspended"]).await;
        assert_eq!(planned.code, 0);
        assert!(
            planned.out.contains("  suspended: nothing would be done\n"),
            "{}",
            planned.out
        );
        quiet(2).await;
        // Nor does an operator that begins only now get into the account.
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let before = versions().await;
        let _operator = beside(&tenant, &clock).await;
        quiet(2).await;
        assert_eq!(versions().await, before);

        // An edit is not applied, and that is said; taken back, it is as it was.
        tenant.apply::<AlarmSet>("golden", set(2, true)).await;
        let ahead = with(stop.clone(), json!({"notify": {"critical": {}}}));
        tenant.tenant(ahead).await;
        suspended("Suspended").await;
        assert!(!set_now().await.holds("Ready") && !tenant_now().await.holds("Ready"));
        assert_eq!(
            (kstatus(&set_now().await), kstatus(&tenant_now().await)),
            ("InProgress", "InProgress")
        );
        tenant.tenant(stop).await;
        suspended("Suspended").await;
        assert!(!set_now().await.holds("Ready") && tenant_now().await.holds("Ready"));
        assert_eq!(
            tenant_now().await.condition("Healthy").unwrap().message,
            "suspended; last known: 0/1 firing",
            "said once"
        );
        quiet(2).await;

        // It goes on where it is: with the edit, and with what somebody did meanwhile repaired.
        tenant.usual_tenant().await;
        tenant.apply::<AlarmSet>("golden", set(2, false)).await;
        suspended("Applied").await;
        assert_eq!(tenant.alarms().await[&name].threshold(), Some(2.0));
        assert!(tenant.topics().await.contains(&arn));
        eventually("the alarm to tell its topic", || async {
            let actions = tenant.alarms().await[&name].alarm_actions().to_vec();
            if actions == [arn.clone()] {
                Ok(())
            } else {
                Err(format!("{actions:?}"))
            }
        })
        .await;
        tenant
            .until::<TenantObservability>("own-suspended", "healthy, as seen now", |tenant| {
                tenant.condition("Healthy").unwrap().message == "0/1 firing"
            })
            .await;

        // One that begins suspended holds nothing, is not applied, and goes at once.
        let spec = set_spec("own-suspended", alarms(1), json!({"suspend": true}));
        tenant.apply::<AlarmSet>("asleep", spec).await;
        tenant.ready::<AlarmSet>("asleep", "Suspended").await;
        let asleep = tenant.api::<AlarmSet>().get("asleep").await.unwrap();
        assert!(!asleep.holds("Ready") && asleep.finalizers().is_empty());
        assert_eq!(kstatus(&asleep), "InProgress");
        tenant.delete::<AlarmSet>("asleep").await;
        tenant.gone::<AlarmSet>("asleep").await;

        // An edit that comes along with it is not applied either. A deletion is carried out all the same.
        let mark = world.aws.mark();
        tenant.apply::<AlarmSet>("golden", set(3, true)).await;
        tenant.ready::<AlarmSet>("golden", "Suspended").await;
        assert!(!set_now().await.holds("Ready"));
        assert_eq!(tenant.writes_since(mark), []);
        patch::<TenantObservability>(&tenant, "own-suspended", json!({"suspend": true})).await;
        tenant.delete::<AlarmSet>("golden").await;
        tenant.delete::<TenantObservability>("own-suspended").await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.gone::<TenantObservability>("own-suspended").await;
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (0, 0)
        );
    });
}

#[test]
fn a_tenant_says_which_of_its_sets_is_suspended() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-asleep").await;
        let clock = Tenant::new(world, "own-asleep-clock").await;
        let _operator = beside(&tenant, &clock).await;
        tenant.usual_tenant().await;
        let spec = |suspend: bool| {
            let alarms = json!([alarm("errors", "critical", json!({}))]);
            let more = json!({"environments": ["prod"], "suspend": suspend});
            set_spec("own-asleep", alarms, more)
        };
        tenant.apply::<AlarmSet>("golden", spec(false)).await;
        tenant
            .until::<TenantObservability>("own-asleep", "healthy", |tenant| tenant.holds("Healthy"))
            .await;
        tenant.apply::<AlarmSet>("golden", spec(true)).await;
        tenant.ready::<AlarmSet>("golden", "Suspended").await;
        let asleep = "0/1 firing (suspended: AlarmSet golden)";
        let says = |text: &'static str| {
            move |tenant: &TenantObservability| tenant.condition("Healthy").unwrap().message == text
        };
        tenant
            .until::<TenantObservability>("own-asleep", asleep, says(asleep))
            .await;
        tenant.emit("errors", "app-prod", 50.0, 1).await;
        clock.polls(world.aws.mark(), 4).await;
        let known = tenant.api::<TenantObservability>().get("own-asleep").await;
        let known = known.unwrap();
        assert!(known.holds("Healthy") && says(asleep)(&known), "{known:?}");
        tenant.apply::<AlarmSet>("golden", spec(false)).await;
        tenant
            .until::<TenantObservability>("own-asleep", "alarming", |tenant| {
                tenant.status.as_ref().unwrap().health == Some(Health::Alarming)
            })
            .await;
    });
}

#[test]
fn what_is_adopted_is_ours_in_the_same_run() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-at-once").await;
        let (name, _) = topic(&tenant, "own-at-once", Severity::Critical);
        let arn = make_topic(&tenant, &name, None).await;
        let found = tenant.name(Severity::Critical, "golden", "errors", None);
        put_alarm(&tenant, &found, "made by hand").await;
        let adopt = json!({"adoptionPolicy": "MustExist"});
        let notify = json!({"notify": {"critical": {"emails": ["oncall@vsu.example"]}}});
        let spec = with(with(tenant.usual_spec(), adopt.clone()), notify);
        tenant.tenant(spec).await;
        // Nobody looks a second time by himself.
        let rare = ["--poll-interval", "1h", "--slow-poll-interval", "1h"];
        let _operator = tenant.operator_with(&rare).await;
        tenant
            .ready::<TenantObservability>("own-at-once", "Applied")
            .await;
        // Who heard it still does, and so does whom the spec names.
        let state = topic_as_it_is(&tenant, &arn).await;
        for reader in ["oncall@vsu.example", "reader@somebody.example"] {
            assert!(state.contains(reader), "{reader} in {state}");
        }
        let alarms = json!([alarm("errors", "critical", json!({}))]);
        let spec = set_spec("own-at-once", alarms, adopt);
        tenant.apply::<AlarmSet>("golden", spec).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let ours = mark_of(&tenant, "AlarmSet", "golden").await;
        let tags = alarm_tags(&tenant, &found).await;
        assert_eq!(tags.get(mark::TAG), Some(&ours), "{tags:?}");
    });
}

#[test]
fn tenants_of_one_account_are_planned_each_for_itself() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-two-plans").await;
        let names = ["one", "two", "three"];
        for name in names {
            let spec = tenant.usual_spec();
            tenant.apply::<TenantObservability>(name, spec).await;
        }
        let operator = tenant.operator().await;
        for name in names {
            tenant.ready::<TenantObservability>(name, "Applied").await;
        }
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let planned = plan(&tenant, &["-n", "own-two-plans"]).await;
        assert_eq!(
            (planned.code, planned.out.as_str()),
            (0, "Nothing would change: 3 objects are as declared.\n")
        );
    });
}

#[test]
fn what_acts_nowhere_is_applied_when_it_is_suspended() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-nowhere").await;
        let _operator = tenant.operator().await;
        let spec = |environment: &str| json!({"environments": [{"name": environment}]});
        tenant.tenant(spec("prod")).await;
        tenant
            .ready::<TenantObservability>("own-nowhere", "Applied")
            .await;
        for (environment, is_applied, status) in
            [("prod", true, "Current"), ("pilot", false, "InProgress")]
        {
            let suspended = with(spec(environment), json!({"suspend": true}));
            tenant.tenant(suspended).await;
            tenant
                .ready::<TenantObservability>("own-nowhere", "Suspended")
                .await;
            let found = tenant.api::<TenantObservability>().get("own-nowhere").await;
            let found = found.unwrap();
            assert_eq!(
                (found.holds("Ready"), kstatus(&found)),
                (is_applied, status)
            );
        }
    });
}
