//! What others have made, or bears their mark, is left alone; a mark in a spec is text, and tenants of one account are
//! strangers to each other.

use super::*;
use kube::api::PostParams;
use std::time::Duration;

/// What is said of the holder of a thing without a mark.
const NOBODY: &str = "nobody that Campanile knows (it carries no mark)";

/// The same object's mark, had another cluster made it, or another one of the same name.
fn elsewhere(mark: &str) -> [String; 2] {
    let (_, rest) = mark.split_once('/').unwrap();
    let (_, object) = rest.split_once('/').unwrap();
    [
        format!("campanile:other/{rest}"),
        format!("campanile:{CLUSTER}/00000000/{object}"),
    ]
}

/// A composite alarm that somebody makes by hand over an alarm.
async fn put_composite(tenant: &Tenant, name: &str, over: &str, description: &str) {
    let put = tenant.cloudwatch().put_composite_alarm().alarm_name(name);
    let put = put
        .alarm_rule(format!("ALARM(\"{over}\")"))
        .alarm_description(description);
    put.send().await.unwrap();
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

#[test]
fn alarms_of_others_are_left_alone() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-alarms").await;
        let ours = mark_of(&tenant, "AlarmSet", "golden").await;
        let another = mark_of(&tenant, "AlarmSet", "other").await;
        let [cluster, namesake] = elsewhere(&ours);
        let foreign = [
            ("unmarked", "made by hand".to_owned(), NOBODY),
            ("undone", format!("{ours} and more"), NOBODY),
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
        let set = tenant.now::<AlarmSet>("golden").await;
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
        let there = BTreeSet::from_iter(tenant.alarm_names().await);
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
        let (critical, warning, info) = (Severity::Critical, Severity::Warning, Severity::Info);
        let foreign = [
            (first, critical, None, NOBODY),
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
            let alarms = errors();
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
            let told = format!("  ! topic {topic}\n      not touched: it is held by {holder}");
            assert!(planned.out.contains(&told), "{told} in {}", planned.out);
        }
        let conflict = tenant.now::<TenantObservability>(second).await;
        assert_eq!(kstatus(&conflict), "Failed");
        assert_eq!(
            conflict.verdict("DeliveryReady"),
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
        tenant.golden(alarms(&theirs)).await;
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
        let there = tenant.alarm_names().await;
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
