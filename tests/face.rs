//! What the operator shows of itself: logs, probes, metrics, a clean end; and what it never shows.

use crate::support::{
    Address, CLUSTER, REGION, Tenant, alarm, errors, eventually, log, once, paged, pager_key,
    plan_as, put_by_hand, test, version,
};
use campanile::{
    api::{AlarmSet, Severity},
    kinds::{mark, names},
};
use campanile_world::aws::{By, Trouble};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use crate::support::lines;

/// Type, reason and note of each.
fn told(events: &[Event]) -> Vec<(String, String, String)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let all = events.iter();
    all.map(|event| (text(&event.type_), text(&event.reason), text(&event.note)))
        .collect()
}

/// Waits until a pager is told by this key alone, and not by the old one.
async fn hears_only(tenant: &Tenant, key: &str, old: &str) {
    eventually("the new key alone", || async {
        let listed = format!("{:?}", tenant.subscriptions().await);
        once(listed.contains(key) && !listed.contains(old), &listed)
    })
    .await;
}

#[test]
fn probes_metrics_logs_and_a_clean_end() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face").await;
        tenant.usual().await;
        let address = Address::free();
        let operator = tenant.operator_with(&address.option()).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        tenant.healthy().await;

        assert_eq!(address.answers("/livez", 200).await, "ok\n");
        assert_eq!(address.answers("/readyz", 200).await, "ok\n");
        address.answers("/", 404).await;
        let metrics = address.metrics().await;
        for series in [
            r#"campanile_reconciles_total{kind="AlarmSet",outcome="ok"}"#,
            r#"campanile_reconcile_duration_seconds_count{kind="TenantObservability"}"#,
            r#"campanile_outside_requests_total{service="cloudwatch",operation="PutMetricAlarm",outcome="ok"} 1"#,
            r#"campanile_outside_requests_total{service="sns",operation="CreateTopic",outcome="ok"} 2"#,
            r#"campanile_outside_requests_total{service="sts",operation="AssumeRole",outcome="ok"}"#,
            r#"campanile_mirrors{kind="AlarmSet"}"#,
            r#"campanile_mirrors_failing{kind="TenantObservability"}"#,
            r#"campanile_mirror_age_seconds{kind="AlarmSet",rhythm="poll"}"#,
            r#"campanile_objects{kind="AlarmSet",ready="Applied"} 1"#,
            r#"campanile_alarms{state="INSUFFICIENT_DATA"}"#,
        ] {
            assert!(metrics.contains(series), "{series} in:\n{metrics}");
        }
        assert!(
            !metrics.contains(&tenant.namespace) && !metrics.contains(&tenant.account),
            "no label may grow with the fleet"
        );

        let lines = lines(&operator).await;
        let reconciled = lines
            .iter()
            .find(|line| line["message"] == "reconciled" && line["span"]["kind"] == "AlarmSet")
            .expect("a line per reconcile");
        assert_eq!(
            (
                &reconciled["span"]["namespace"],
                &reconciled["span"]["object"]
            ),
            (&json!("face"), &json!("golden"))
        );
        assert_eq!(
            reconciled["spans"].as_array().unwrap().len(),
            1,
            "one span per reconcile: {reconciled}"
        );

        let status = operator.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", operator.log_tail(20));
    });
}

#[test]
fn text_logs_are_for_people() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-text").await;
        tenant.usual_tenant().await;
        let operator = tenant.operator_with(&["--log-format", "text"]).await;
        tenant.tenant_is("Applied").await;
        let text = log(&operator).await;
        assert!(
            text.contains("reconcile{kind=\"TenantObservability\" namespace=\"face-text\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "no colours in a file");
    });
}

#[test]
fn one_of_two_replicas_works_and_the_other_takes_over() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-lease").await;
        tenant.usual_tenant().await;
        // A home of its own for the Lease, so that other tests' operators are not in the way.
        Tenant::operator_home(world, "face-lease-system").await;
        let args = [
            "--leader-elect=true",
            "--operator-namespace",
            "face-lease-system",
        ];
        let first = tenant.operator_with(&args).await;
        tenant.tenant_is("Applied").await;
        let address = Address::free();
        let second = tenant
            .operator_with(&[&args[..], &address.option()].concat())
            .await;
        address.answers("/readyz", 200).await;
        assert!(
            !log(&second).await.contains("\"running\""),
            "a standby does nothing"
        );
        // A clean end gives the lease up, so the successor need not wait for it to run out.
        first.stop(Duration::from_secs(10)).await.unwrap();
        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
        assert!(log(&second).await.contains("\"running\""));
    });
}

#[test]
fn a_secret_is_nowhere_where_people_look() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-secret").await;
        let [first, second] =
            ["42", "43"].map(|end| format!("canaryc0ffee000000000000000000{end}"));
        tenant.secret("pager", "key", &first).await;
        // AWS quotes what it was given, and others quote it in their own way.
        let url = tenant.pager_url(&first);
        let escaped = url.replace(':', "%3A").replace('/', "%2F");
        let quoted = format!("Invalid parameter: Endpoint {url} ({escaped}; key '{first}')");
        let refusal = Trouble::Answer(400, "InvalidParameter".into(), quoted);
        world.aws.trouble(&tenant.account, "Subscribe", refusal);
        tenant.tenant(paged(tenant.usual_spec())).await;
        tenant.golden(errors()).await;
        let address = Address::free();
        // Whoever looks for a trouble sees no more.
        let loud = [("CAMPANILE_LOG", "debug")];
        let operator = tenant.operator_in(&loud, &address.option()).await;
        let mut seen = Vec::new();

        let objects = async || {
            let set = tenant.now::<AlarmSet>("golden").await;
            let own = tenant.tenant_now().await;
            let events = tenant.list::<Event>().await;
            [
                serde_json::to_string(&set).unwrap(),
                serde_json::to_string(&own).unwrap(),
                serde_json::to_string(&events).unwrap(),
            ]
        };
        let message = tenant.tenant_is("PartiallyFailed").await;
        let refused = format!(
            "AWS refused sns:Subscribe in account {}, {REGION}: InvalidParameter: Invalid parameter: Endpoint",
            tenant.account
        );
        let refused = refused.as_str();
        assert!(message.contains(refused), "{message}");
        eventually("the Event that tells the refusal", || async {
            let told = told(&tenant.events(&tenant.namespace).await);
            let is_told = told.iter().any(|(_, _, note)| note.contains(refused));
            once(is_told, &told)
        })
        .await;
        seen.extend(objects().await);

        // It is subscribed, replaced, and missing.
        world.aws.allow(&tenant.account, "Subscribe");
        tenant.ask_tenant("mended").await;
        tenant.delivering().await;
        seen.extend(objects().await);
        tenant.secret("pager", "key", &second).await;
        hears_only(&tenant, &second, &first).await;
        tenant.tenant_is("Applied").await;
        seen.extend(objects().await);
        let strange = format!("{first} is no key");
        tenant.secret("pager", "key", &strange).await;
        tenant.tenant_is("WaitingForSecret").await;
        seen.extend(objects().await);
        seen.push(address.metrics().await);

        // A plan, of what is there and of files, good and bad ones.
        let directory = world.run_dir().join("face-secret");
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let secret = |field: &str, value: &str| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: pager}}\n{field}: {{key: {value}}}\n"
            )
        };
        let owner = json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "TenantObservability",
            "metadata": {"name": tenant.namespace}, "spec": paged(tenant.usual_spec())});
        let owner = file("owner.yaml", &owner.to_string());
        let good = file("good.yaml", &secret("stringData", &first));
        let args = ["-n", "face-secret"];
        let mut plans = vec![(vec![], 2), (vec!["-f", &owner, "-f", &good], 2)];
        let bad = [
            secret("data", &first[..31]),
            secret("stringData", &format!("[{first}]")),
            secret("stringData", &format!("*{first}")),
            secret("stringData", &format!("\"{first}")),
            format!("{}{first}\n", secret("stringData", &first)),
            secret("stringData", "x").replace("pager", &format!("[{first}]")),
        ];
        let bad: Vec<_> = (0..).zip(bad).collect();
        let bad = bad
            .iter()
            .map(|(n, text)| file(&format!("bad-{n}.yaml"), text));
        let bad: Vec<_> = bad.collect();
        plans.extend(bad.iter().map(|bad| (vec!["-f", &owner, "-f", bad], 1)));
        for (more, code) in &plans {
            for format in ["text", "json"] {
                let args = [&args[..], &["-o", format], more].concat();
                let planned = plan_as(world, &loud, &args, "").await;
                assert_eq!(planned.code, *code, "{more:?}: {}", planned.out);
                seen.extend([planned.out, planned.err]);
            }
        }
        let hashed = |text: &String| text.contains("+ subscription critical http hmac:");
        assert!(
            seen.iter().any(hashed),
            "what is planned is told by its digest"
        );

        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
        seen.push(format!(
            "{:?}",
            told(&tenant.events(&tenant.namespace).await)
        ));
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let log = log(&operator).await;
        for line in [
            "\"api\":\"sns:Subscribe\"",
            "\"api\":\"sns:Unsubscribe\"",
            refused,
        ] {
            assert!(log.contains(line), "{line}");
        }
        seen.push(log);
        for text in seen {
            // Nor is a part of it.
            assert!(!text.contains("canaryc0ffee"), "{text}");
        }
    });
}

/// A write, as AWS's record and as the audit log tell it: the call, and what it is about.
type Write = (String, String);

/// The line of a write, and what it is about as AWS's record has it.
fn of_line(tenant: &Tenant, line: &Value) -> Write {
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    let (api, what) = (text("api"), text("what"));
    let topic = |severity: &str| {
        let severities = Severity::ALL.into_iter();
        let mut severities = severities.filter(|known| known.to_string() == severity);
        let severity = severities.next().unwrap();
        let name = names::topic(CLUSTER, &tenant.namespace, &tenant.namespace, severity);
        names::topic_arn(REGION, &tenant.account, &name)
    };
    let alarm = |name: &str| names::alarm_arn(REGION, &tenant.account, name);
    let about = match what.split_once(' ').unwrap() {
        ("topic", name) => {
            let name = name.strip_prefix("tag ").unwrap_or(name);
            names::topic_arn(REGION, &tenant.account, name)
        }
        ("subscription", key) => match key.strip_prefix("list ") {
            Some(name) => names::topic_arn(REGION, &tenant.account, name),
            None => topic(key.split(' ').next().unwrap()),
        },
        // The names of what goes are a list, which the record does not hold.
        ("alarm", _) if api == "cloudwatch:DeleteAlarms" => String::new(),
        ("alarm", name) => alarm(name.strip_prefix("tag ").unwrap_or(name)),
        other => panic!("{other:?}"),
    };
    (api, about)
}

/// What each line says of one write, by write.
fn audited<'a>(tenant: &Tenant, lines: &'a [Value]) -> BTreeMap<Write, Vec<&'a Value>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in lines {
        if line["target"] == "campanile::audit" {
            all.entry(of_line(tenant, line)).or_default().push(line);
        }
    }
    all
}

/// How each of the writes in AWS's record of the tenant's account ended, by write.
fn recorded(tenant: &Tenant) -> BTreeMap<Write, Vec<&'static str>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let calls = tenant.world.aws.calls().into_iter();
    let ours = calls.filter(|call| call.by == By::Client && call.account == tenant.account);
    for call in ours.filter(|call| call.write) {
        let about = match call.operation.as_str() {
            "Unsubscribe" => call.resource.rsplit_once(':').unwrap().0.to_owned(),
            _ => call.resource.clone(),
        };
        let outcome = match call.error.as_deref() {
            None => "ok",
            Some(code) if code.contains("Auth") || code.contains("Denied") => "denied",
            Some(code) if code.contains("Throttl") => "throttled",
            Some(_) => "rejected",
        };
        let api = format!("{}:{}", call.service, call.operation);
        all.entry((api, about)).or_default().push(outcome);
    }
    all
}

/// Compares the audit log with AWS's record, write by write.
fn audit_is_complete(tenant: &Tenant, lines: &[Value]) {
    let audited = audited(tenant, lines);
    let told: BTreeMap<_, Vec<_>> = audited
        .iter()
        .map(|(write, lines)| {
            let outcomes = lines.iter().map(|line| line["outcome"].as_str().unwrap());
            (write.clone(), outcomes.collect())
        })
        .collect();
    assert_eq!(told, recorded(tenant));
}

#[test]
fn every_write_outside_has_a_line() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-audit").await;
        tenant.secret("pager", "key", &pager_key("51")).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        let long = json!({"period": 300, "evaluationPeriods": 500});
        let alarms = |threshold: i32, more: &[Value]| {
            let first = alarm("errors", "critical", json!({"threshold": threshold}));
            Value::Array([&[first], more].concat())
        };
        let extra = [
            alarm("slow", "warning", json!({})),
            alarm("long", "warning", long),
        ];
        tenant.golden(alarms(10, &extra)).await;
        let operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "PartiallyFailed").await;
        tenant.delivering().await;

        // Edits: one alarm changes, the others go; another key; a topic goes.
        tenant.golden(alarms(20, &[])).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        tenant.secret("pager", "key", &pager_key("52")).await;
        hears_only(&tenant, &pager_key("52"), &pager_key("51")).await;
        let mut less = paged(tenant.usual_spec());
        less["notify"].as_object_mut().unwrap().remove("warning");
        tenant.tenant(less).await;
        tenant.tenant_is("Applied").await;

        // Repairs: a tag, and a policy, which is not allowed at first.
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let arn = names::alarm_arn(REGION, &tenant.account, &name);
        let tag = aws_sdk_cloudwatch::types::Tag::builder().key(mark::TAG);
        let retag = tenant.cloudwatch().tag_resource().resource_arn(&arn);
        let retag = retag.tags(tag.value("somebody").build());
        retag.send().await.unwrap();
        let topic = names::topic(
            "it",
            &tenant.namespace,
            &tenant.namespace,
            Severity::Critical,
        );
        let topic = names::topic_arn(REGION, &tenant.account, &topic);
        world.aws.deny(&tenant.account, "SetTopicAttributes");
        let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*",
            "Action": "sns:Publish", "Resource": topic}]});
        let set = tenant.sns().set_topic_attributes().topic_arn(&topic);
        let set = set
            .attribute_name("Policy")
            .attribute_value(policy.to_string());
        set.send().await.unwrap();
        let audited_so = async |api: &str, outcome: &str| {
            eventually(&format!("a line: {api} {outcome}"), || async {
                let lines = lines(&operator).await;
                let found = lines
                    .iter()
                    .find(|line| line["api"] == api && line["outcome"] == outcome);
                found.cloned().ok_or_else(|| operator.log_tail(10))
            })
            .await
        };
        audited_so("sns:SetTopicAttributes", "denied").await;
        world.aws.allow(&tenant.account, "SetTopicAttributes");
        tenant.ask_tenant("allowed").await;
        audited_so("sns:SetTopicAttributes", "ok").await;
        audited_so("cloudwatch:TagResource", "ok").await;
        tenant.delete::<AlarmSet>("golden").await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
        operator.stop(Duration::from_secs(10)).await.unwrap();

        let lines = lines(&operator).await;
        audit_is_complete(&tenant, &lines);
        let audited = audited(&tenant, &lines);
        let apis: BTreeSet<_> = audited.keys().map(|(api, _)| api.as_str()).collect();
        let all = [
            "cloudwatch:DeleteAlarms",
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:TagResource",
            "sns:CreateTopic",
            "sns:DeleteTopic",
            "sns:SetTopicAttributes",
            "sns:Subscribe",
            "sns:TagResource",
            "sns:Unsubscribe",
        ];
        assert_eq!(apis, all.into());
        // Each says who, where, for what, and in which run, that of its own object.
        for ((api, _), lines) in &audited {
            let (kind, object) = match api.starts_with("cloudwatch") {
                true => ("AlarmSet", "golden"),
                false => ("TenantObservability", "face-audit"),
            };
            for line in lines {
                let span = &line["span"];
                for (field, expected) in [
                    ("who", tenant.role()),
                    ("account", tenant.account.clone()),
                    ("region", REGION.to_owned()),
                    ("object", format!("{kind} face-audit/{object}")),
                ] {
                    assert_eq!(line[field], expected, "{line}");
                }
                assert_eq!(
                    [&span["kind"], &span["namespace"], &span["object"]],
                    [kind, "face-audit", object],
                    "{line}"
                );
                let trace = line["trace_id"].as_str().unwrap();
                assert!(trace.len() == 32 && span["trace_id"] == trace, "{line}");
            }
        }
        // From what to what: of a new thing there is no before, of one that goes no after.
        let of = |api: &str, about: &str| audited[&(api.to_owned(), about.to_owned())].clone();
        let puts = of("cloudwatch:PutMetricAlarm", &arn);
        let side = |line: &Value, side: &str| line[side].as_str().unwrap().to_owned();
        assert_eq!(side(puts[0], "from"), "");
        assert!(side(puts[0], "to").contains("threshold=10 "), "{}", puts[0]);
        assert_eq!(
            (side(puts[1], "from"), side(puts[1], "to")),
            ("threshold=10".to_owned(), "threshold=20".to_owned())
        );
        // Of what goes it is told what it was: two alarms, one after the other, a key's subscription and
        // two topics.
        let gone = of("cloudwatch:DeleteAlarms", "");
        let lost: Vec<_> = gone
            .iter()
            .map(|line| (side(line, "what"), side(line, "from"), side(line, "to")))
            .collect();
        let slow = tenant.name(Severity::Warning, "golden", "slow", Some("prod"));
        let warned = names::topic(
            CLUSTER,
            &tenant.namespace,
            &tenant.namespace,
            Severity::Warning,
        );
        let warned = names::topic_arn(REGION, &tenant.account, &warned);
        for ((what, from, to), (alarm, fields)) in lost.iter().zip([
            (&slow, vec!["metricName=slow", "threshold=10", &warned]),
            (&name, vec!["metricName=errors", "threshold=20", &topic]),
        ]) {
            assert_eq!((what, &**to), (&format!("alarm {alarm}"), ""));
            for field in fields.iter().chain(&["namespace=App", "statistic=Sum"]) {
                assert!(from.contains(field), "{field} in {from}");
            }
        }
        assert_eq!(lost.len(), 2, "{lost:?}");
        for topic in [&topic, &warned] {
            let line = of("sns:DeleteTopic", topic)[0];
            assert!(side(line, "from").starts_with("policy={"), "{line}");
            assert_eq!(side(line, "to"), "");
        }
        // An endpoint that holds a key is shown as a digest.
        for line in of("sns:Unsubscribe", &topic) {
            let (what, from) = (side(line, "what"), side(line, "from"));
            assert_eq!(what, format!("subscription {from}"));
            assert!(from.starts_with("critical http hmac:"), "{line}");
            assert_eq!(side(line, "to"), "");
        }
        for line in audited.values().flatten() {
            let line = line.to_string();
            assert!(!line.contains(&pager_key("")), "{line}");
        }
        let tagged = of("cloudwatch:TagResource", &arn)[0];
        let from = format!("{}=somebody", mark::TAG);
        assert_eq!(side(tagged, "from"), from);
        assert!(side(tagged, "to").ends_with("/AlarmSet/face-audit/golden"));
        for line in of("sns:SetTopicAttributes", &topic) {
            assert!(side(line, "from").contains("Deny"), "{line}");
            assert!(side(line, "to").contains("Allow"), "{line}");
        }
    });
}

#[test]
fn what_is_adopted_has_a_line_for_each_write() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-adopts").await;
        let name = names::topic(CLUSTER, "face-adopts", "face-adopts", Severity::Critical);
        let made = tenant.sns().create_topic().name(&name).send().await;
        let arn = made.unwrap().topic_arn.unwrap();
        let mut spec = tenant.usual_spec();
        spec["adoptionPolicy"] = json!("IfExists");
        tenant.tenant(spec).await;
        let operator = tenant.operator().await;
        tenant.tenant_is("Applied").await;
        operator.stop(Duration::from_secs(10)).await.unwrap();
        assert!(
            world
                .aws
                .calls()
                .iter()
                .any(|call| call.resource == arn && call.write)
        );
        audit_is_complete(&tenant, &lines(&operator).await);
    });
}

#[test]
fn events_tell_each_change_once() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-events").await;
        tenant.usual_tenant().await;
        let operator = tenant.operator().await;
        tenant.healthy().await;
        let name = |alarm: &str| tenant.name(Severity::Critical, "golden", alarm, None);
        let apply = async |threshold: i32, names: &[&str]| {
            let alarms = names.iter();
            let threshold = json!({"threshold": threshold});
            let alarms = alarms.map(|name| alarm(name, "critical", threshold.clone()));
            let alarms: Value = alarms.collect();
            let spec = json!({"tenantRef": {"name": "face-events"}, "alarms": alarms});
            tenant.apply::<AlarmSet>("golden", spec).await
        };
        let normal = |reason: &str, note: String| ("Normal".to_owned(), reason.to_owned(), note);
        let said = async |object: &str, expected: &[(String, String, String)]| {
            eventually("the Events", || async {
                let told = told(&tenant.events(object).await);
                if told.len() < expected.len() {
                    return Err(format!("{told:?}"));
                }
                assert_eq!(told, expected);
                Ok(())
            })
            .await;
        };
        let topic = |severity| names::topic(CLUSTER, "face-events", "face-events", severity);
        let topics = [topic(Severity::Critical), topic(Severity::Warning)];
        let made = format!("created 2 topics ({}, {})", topics[0], topics[1]);
        let of_tenant = [normal("Applied", made)];
        said("face-events", &of_tenant).await;

        // Two alarms, one Event; an edit of both, one Event that says what.
        apply(10, &["errors", "slow"]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let mut of_set = vec![normal(
            "Applied",
            format!("created 2 alarms ({}, {})", name("errors"), name("slow")),
        )];
        said("golden", &of_set).await;
        apply(20, &["errors", "slow"]).await;
        of_set.push(normal(
            "Applied",
            format!(
                "changed 2 alarms ({}: threshold 10 → 20; {}: threshold 10 → 20)",
                name("errors"),
                name("slow")
            ),
        ));
        said("golden", &of_set).await;
        let quiet = async |of_set: &[(String, String, String)]| {
            tenant.polls(world.aws.mark(), 4).await;
            assert_eq!(told(&tenant.events("golden").await), of_set);
            assert_eq!(told(&tenant.events("face-events").await), of_tenant);
        };
        quiet(&of_set).await;
        // What came about outside is told once, when it is repaired or when it is left as it is.
        let cloudwatch = tenant.cloudwatch();
        let disable = async || {
            let disable = cloudwatch.disable_alarm_actions();
            disable.alarm_names(name("slow")).send().await.unwrap();
        };
        let differs = format!("alarm {}: actionsEnabled false → true", name("slow"));
        disable().await;
        of_set.push(normal("DriftRepaired", format!("changed {differs}")));
        said("golden", &of_set).await;
        quiet(&of_set).await;
        // An edit that changes nothing outside is nothing to tell.
        let report = json!({"driftPolicy": "Report"});
        tenant.patch::<AlarmSet>("golden", report).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        quiet(&of_set).await;
        disable().await;
        of_set.push((
            "Warning".to_owned(),
            "DriftDetected".to_owned(),
            format!("differs from the spec outside and is left as it is: a repair would change {differs}"),
        ));
        said("golden", &of_set).await;
        quiet(&of_set).await;
        // Nor is it anything to tell that somebody took it back.
        let enable = cloudwatch.enable_alarm_actions();
        enable.alarm_names(name("slow")).send().await.unwrap();
        tenant
            .until::<AlarmSet>("golden", "no drift", |set| {
                set.status.as_ref().unwrap().common.drift.is_empty()
            })
            .await;
        quiet(&of_set).await;

        // A failure is told when it comes, with what was done beside it, and not again while it stays.
        let foreign = name("foreign");
        put_by_hand(&cloudwatch, &foreign).await;
        apply(30, &["errors", "foreign"]).await;
        let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
        of_set.push((
            "Warning".to_owned(),
            "Conflict".to_owned(),
            format!(
                "{message}; this run changed alarm {}: threshold 20 → 30; deleted 1 alarm ({})",
                name("errors"),
                name("slow")
            ),
        ));
        said("golden", &of_set).await;
        for time in ["first", "second", "third"] {
            tenant.look::<AlarmSet>("golden", time).await;
        }
        quiet(&of_set).await;
        let before = version::<AlarmSet>(&tenant, "golden").await;
        tenant.polls(world.aws.mark(), 2).await;
        assert_eq!(version::<AlarmSet>(&tenant, "golden").await, before);

        // All are about this very object, and there is at most one for each run.
        let set = tenant.now::<AlarmSet>("golden").await;
        let all = tenant.events("golden").await;
        for event in &all {
            let about = event.regarding.clone().unwrap();
            assert_eq!(about.uid, set.uid());
            assert_eq!(about.kind.as_deref(), Some("AlarmSet"));
        }
        let lines = lines(&operator).await;
        let runs: BTreeSet<_> = lines
            .iter()
            .filter(|line| line["message"] == "reconciled" && line["span"]["object"] == "golden")
            .map(|line| line["span"]["trace_id"].to_string())
            .collect();
        assert!(all.len() <= runs.len(), "{} of {runs:?}", all.len());
        // Where there is nothing more to do than to go, that is told as well.
        tenant.delete::<AlarmSet>("golden").await;
        tenant.gone::<AlarmSet>("golden").await;
        of_set.push(normal(
            "Applied",
            format!("deleted 1 alarm ({})", name("errors")),
        ));
        said("golden", &of_set).await;
    });
}
