//! What is there already is adopted where the spec says so, and only then.

use super::*;
use crate::support::Planned;

/// The policies, whether each adopts what is there, and whether it makes what is not.
const POLICIES: [(&str, bool, bool); 3] = [
    ("Never", false, true),
    ("IfExists", true, true),
    ("MustExist", true, false),
];

/// What a plan of this object says before it is applied.
async fn planned<K: Conditions>(tenant: &Tenant, name: &str, spec: &Value) -> Planned {
    let kind = K::kind(&());
    let file = format!("{}-{name}.yaml", tenant.namespace);
    let file = tenant.world.run_dir().join(file);
    let object = json!({"apiVersion": "campanile.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec});
    std::fs::write(&file, object.to_string()).unwrap();
    let args = ["-n", &tenant.namespace, "-f", file.to_str().unwrap()];
    plan(tenant, &args).await
}

/// That a plan says this, or does not.
fn says(planned: &Planned, text: &str, wanted: bool) {
    let found = planned.out.contains(text);
    assert_eq!(found, wanted, "{text}: {}", planned.out);
}

/// Tags by their keys.
fn tags<const N: usize>(tags: [(&str, &str); N]) -> BTreeMap<String, String> {
    let tags = tags.into_iter();
    tags.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn alarms_are_adopted_where_the_spec_says_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-adopts").await;
        tenant.usual_tenant().await;
        let another = mark_of(&tenant, "AlarmSet", "other").await;
        let _operator = tenant.operator().await;
        tenant.tenant_is("Applied").await;
        for (policy, adopts, makes) in POLICIES {
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
            let spec = set_spec(&tenant.namespace, json!(alarms), more);

            // A plan tells it, before anything is done.
            let planned = planned::<AlarmSet>(&tenant, &set, &spec).await;
            let adoption = format!("  ~ alarm {found}\n");
            let metric = "      metricName: by.hand → found\n";
            let signed = format!("      description: made by hand → {ours}\n");
            for told in [&adoption, metric, &signed] {
                says(&planned, told, adopts);
            }
            says(&planned, &format!("  + alarm {missing}\n"), makes);
            let conflict =
                format!("  ! alarm {theirs}\n      not touched: it is held by {another}\n");
            says(&planned, &conflict, true);
            let untold =
                "spec.adoptionPolicy is MustExist: make it there first, or choose IfExists";
            says(&planned, untold, !makes);

            let mark = world.aws.mark();
            tenant.apply::<AlarmSet>(&set, spec).await;
            tenant.ready::<AlarmSet>(&set, "Conflict").await;
            let status = tenant.now::<AlarmSet>(&set).await.status.unwrap();
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
                    let found = alarm_tags(&tenant, &found).await;
                    let expected = [
                        (mark::TAG, ours.as_str()),
                        ("campanile-alarm", "found"),
                        ("campanile-set", &*set),
                        ("team", "somebody"),
                    ];
                    once(found == tags(expected), &found)
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
        for (policy, adopts, makes) in POLICIES {
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
            let planned = planned::<TenantObservability>(&tenant, &name, &spec).await;
            let adoption = format!("  ~ topic {found_name}\n");
            let signed = format!("      {}: (unset) → {ours}\n", mark::TAG);
            for told in [&adoption, &signed] {
                says(&planned, told, adopts);
            }
            says(&planned, &format!("  + topic {missing_name}\n"), makes);
            let conflict =
                format!("  ! topic {theirs_name}\n      not touched: it is held by {another}\n");
            says(&planned, &conflict, true);

            let mark = world.aws.mark();
            tenant.apply::<TenantObservability>(&name, spec).await;
            tenant.ready::<TenantObservability>(&name, "Conflict").await;
            let topics = tenant.topics().await;
            assert_eq!(topics.contains(&missing), makes);
            if adopts {
                let expected = tags([(mark::TAG, &ours), ("team", "somebody")]);
                assert_eq!(topic_tags(&tenant, &found).await, expected);
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
        tenant.tenant_is("Applied").await;
        // Who heard it still does, and so does whom the spec names.
        let state = topic_as_it_is(&tenant, &arn).await;
        for reader in ["oncall@vsu.example", "reader@somebody.example"] {
            assert!(state.contains(reader), "{reader} in {state}");
        }
        let alarms = errors();
        let spec = set_spec("own-at-once", alarms, adopt);
        tenant.apply::<AlarmSet>("golden", spec).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let ours = mark_of(&tenant, "AlarmSet", "golden").await;
        let tags = alarm_tags(&tenant, &found).await;
        assert_eq!(tags.get(mark::TAG), Some(&ours), "{tags:?}");
    });
}
