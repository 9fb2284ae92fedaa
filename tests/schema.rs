//! What the real API server refuses, with messages that tell what to do, and what it shows.

use crate::support::{REGION, Tenant, alarm, test};
use campanile::api::{
    AlarmSet, AlarmSetStatus, CommonStatus, DriftChange, DriftEntry, Links, Severity,
    SubscriptionEntry, SubscriptionState, TenantObservability, TenantObservabilityStatus,
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The base with a JSON merge patch on top of it.
fn patched(mut base: Value, patch: Value) -> Value {
    fn merge(base: &mut Value, patch: Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                for (key, value) in patch {
                    if value.is_null() {
                        base.remove(&key);
                    } else {
                        merge(base.entry(key).or_insert(Value::Null), value);
                    }
                }
            }
            (base, patch) => *base = patch,
        }
    }
    merge(&mut base, patch);
    base
}

/// What both kinds refuse of the fields that they share.
fn unknown_policies() -> [(Value, &'static str); 4] {
    [
        (json!({"suspend": "yes"}), "spec.suspend"),
        (
            json!({"driftPolicy": "Ignore"}),
            "spec.driftPolicy: Unsupported value: \"Ignore\": supported values: \"Repair\", \"Report\"",
        ),
        (
            json!({"deletionPolicy": "Retain"}),
            "spec.deletionPolicy: Unsupported value: \"Retain\": supported values: \"Delete\", \"Orphan\"",
        ),
        (
            json!({"adoptionPolicy": "Always"}),
            "spec.adoptionPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"IfExists\", \"MustExist\"",
        ),
    ]
}

/// Each value of the fields that both kinds share, and back to none.
fn policies() -> [Value; 5] {
    [
        json!({"suspend": true, "driftPolicy": "Report", "deletionPolicy": "Orphan", "adoptionPolicy": "IfExists"}),
        json!({"adoptionPolicy": "MustExist"}),
        json!({"suspend": false, "driftPolicy": "Repair", "deletionPolicy": "Delete", "adoptionPolicy": "Never"}),
        json!({"driftPolicy": "Report"}),
        json!({}),
    ]
}

#[test]
fn an_alarm_set_that_cannot_work_is_refused_with_what_to_do() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-alarmset").await;
        let base = |alarms: Value, more: Value| {
            patched(
                json!({"tenantRef": {"name": "t"}, "environments": ["prod"], "alarms": alarms}),
                more,
            )
        };
        let one = |more: Value| {
            base(
                json!([patched(alarm("a", "critical", json!({})), more)]),
                json!({}),
            )
        };
        let many = |n: usize| -> Value {
            (0..n)
                .map(|n| alarm(&format!("a{n}"), "info", json!({})))
                .collect()
        };
        let environments: Vec<_> = (0..20).map(|n| format!("e{n}")).collect();
        for (spec, expected) in [
            (
                one(json!({"datapointsToAlarm": 4, "evaluationPeriods": 3})),
                "spec.alarms[0]: Invalid value: datapointsToAlarm (M of N) must not be more than evaluationPeriods",
            ),
            (
                one(json!({"period": 45})),
                "period must be 10, 20, 30 or a multiple of 60 seconds",
            ),
            (
                one(json!({"severity": "fatal"})),
                "supported values: \"critical\", \"warning\", \"info\"",
            ),
            (
                one(json!({"statistic": "p101"})),
                "statistic is SampleCount, Average",
            ),
            (
                one(json!({"statistic": "average"})),
                "spec.alarms[0].statistic: Invalid value: \"average\": statistic is",
            ),
            (
                one(json!({"comparisonOperator": ">"})),
                "GreaterThanThreshold",
            ),
            (
                one(json!({"description": "one\ncampanile:it/00000000/AlarmSet/a/b"})),
                "description is one line without control characters",
            ),
            (one(json!({"name": "Chat_Errors"})), "spec.alarms[0].name"),
            (
                one(json!({"threshold": null})),
                "spec.alarms[0].threshold: Required value",
            ),
            (
                one(json!({"metricName": null})),
                "spec.alarms[0].metricName: Required value",
            ),
            (
                one(json!({"runbookUrl": "runbooks/x"})),
                "runbookUrl is a URL: https://",
            ),
            (
                one(json!({"dimensions": {"": "x"}})),
                "a dimension's name has 1 to 255 characters",
            ),
            (
                one(json!({"treatMissingData": "NotBreaching"})),
                "notBreaching",
            ),
            (base(json!([]), json!({})), "spec.alarms"),
            (
                base(
                    json!([alarm("a", "info", json!({})), alarm("a", "info", json!({}))]),
                    json!({}),
                ),
                "duplicate entries for key",
            ),
            (
                base(many(11), json!({"environments": environments})),
                "alarms × environments is more than 200: split the AlarmSet",
            ),
            (
                base(many(201), json!({"environments": null})),
                "spec.alarms: Too many",
            ),
            (
                base(many(1), json!({"environments": ["*", "prod"]})),
                "\"*\" means all of the tenant's, so it stands alone",
            ),
            (
                base(many(1), json!({"environments": []})),
                "spec.environments",
            ),
            (
                base(many(1), json!({"tenantRef": null})),
                "spec.tenantRef: Required value",
            ),
        ] {
            tenant.refuses::<AlarmSet>("a", spec, expected).await;
        }
        // Nothing that anybody takes for the end of a line: the mark is a line of its own. Created, not
        // applied: what is applied is read as YAML, which refuses some of these by itself.
        for control in [
            '\0', '\t', '\n', '\u{b}', '\r', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}',
            '\u{2028}', '\u{2029}',
        ] {
            let forged = format!("one{control}campanile:it/00000000/AlarmSet/a/b");
            let spec = one(json!({"description": forged}));
            let set = AlarmSet::new("a", serde_json::from_value(spec).unwrap());
            let refusal = tenant
                .api()
                .create(&PostParams::default(), &set)
                .await
                .expect_err(&forged);
            let expected = "description is one line without control characters";
            assert!(refusal.to_string().contains(expected), "{refusal}");
        }
        for (policy, expected) in unknown_policies() {
            tenant
                .refuses::<AlarmSet>("a", patched(one(json!({})), policy), expected)
                .await;
        }
        tenant
            .refuses::<AlarmSet>("a.b", one(json!({})), "use a DNS label")
            .await;

        let written = "p95 über 5 s – „dringend“, 🔥";
        tenant
            .apply::<AlarmSet>("a", one(json!({"description": written})))
            .await;
        let moved = base(many(1), json!({"tenantRef": {"name": "other"}}));
        tenant
            .refuses::<AlarmSet>(
                "a",
                moved,
                "tenantRef cannot be changed: delete this object and make a new one",
            )
            .await;
    });
}

#[test]
fn a_tenant_that_cannot_work_is_refused_with_what_to_do() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-tenant").await;
        let service =
            json!({"name": "primary", "integrationKeySecretRef": {"name": "s", "key": "k"}});
        let base = json!({
            "environments": [{"name": "prod"}],
            "aws": {"accountId": "222233334444", "region": REGION},
            "notify": {"critical": {"pagerDuty": [service]}}
        });
        for (patch, expected) in [
            (
                json!({"aws": {"roleArn": "arn:aws:iam::999988887777:role/campanile"}}),
                "spec.aws: Invalid value: roleArn must be a role of accountId",
            ),
            (
                json!({"aws": {"accountId": "22223333444"}}),
                "accountId is 12 digits, in quotes",
            ),
            (json!({"aws": {"region": "Ohio"}}), "spec.aws.region"),
            (json!({"aws": null}), "add the aws block, or remove notify"),
            (
                json!({"environments": [{"name": "prod"}, {"name": "prod"}]}),
                "duplicate entries for key",
            ),
            (
                json!({"environments": [{"name": "Prod"}]}),
                "spec.environments[0].name",
            ),
            (
                json!({"notify": {"critical": {"pagerDuty": [{"name": "primary"}]}}}),
                "integrationKeySecretRef: Required value",
            ),
            (
                json!({"notify": {"critical": {"pagerDuty": [service, service]}}}),
                "duplicate entries for key",
            ),
        ]
        .into_iter()
        .chain(unknown_policies())
        {
            let spec = patched(base.clone(), patch);
            tenant
                .refuses::<TenantObservability>("t", spec, expected)
                .await;
        }
        tenant
            .refuses::<TenantObservability>(
                &"t".repeat(37),
                base.clone(),
                "of at most 36 characters",
            )
            .await;

        tenant.apply::<TenantObservability>("t", base.clone()).await;
        for (patch, expected) in [
            (
                json!({"aws": {"accountId": "999988887777"}}),
                "accountId cannot be changed: delete this object and make a new one",
            ),
            (
                json!({"aws": {"region": "eu-central-1"}}),
                "region cannot be changed",
            ),
            (
                json!({"aws": null, "notify": null}),
                "aws cannot be removed while things exist in that account",
            ),
        ] {
            tenant
                .refuses::<TenantObservability>("t", patched(base.clone(), patch), expected)
                .await;
        }
        // What may change, may.
        let role = json!({"aws": {"roleArn": "arn:aws:iam::222233334444:role/path/other"}});
        tenant
            .apply::<TenantObservability>("t", patched(base, role))
            .await;
    });
}

#[test]
fn recipients_that_cannot_be_told_are_refused_with_what_to_do() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-recipients").await;
        let spec = |notify: Value| json!({"aws": {"accountId": "222233334444", "region": REGION}, "notify": notify});
        let topic = |region: &str, name: &str| format!("arn:aws:sns:{region}:222233334444:{name}");
        let refused = async |notify: Value, expected: &str| {
            tenant
                .refuses::<TenantObservability>("t", spec(notify), expected)
                .await;
        };
        let good = "oncall@vsu.example";

        for bad in [
            "",
            "oncall",
            "oncall@",
            "@vsu.example",
            "oncall@vsu",
            "oncall@vsu.",
            "oncall@.vsu.example",
            "oncall@-vsu.example",
            "oncall@vsu-.example",
            "oncall@127.0.0.1",
            ".oncall@vsu.example",
            "on..call@vsu.example",
            "on call@vsu.example",
            "on@call@vsu.example",
            "On Call <oncall@vsu.example>",
            "mailto:oncall@vsu.example",
            "oncall@vsu.example,other@vsu.example",
            "oncall@vsu.example\n",
            "ёж@vsu.example",
        ] {
            let expected = format!(
                "spec.notify.critical.emails[1]: Invalid value: {bad:?}: an e-mail address is written plainly, as in oncall@vsu.example"
            );
            refused(json!({"critical": {"emails": [good, bad]}}), &expected).await;
        }
        for bad in [
            String::new(),
            "pager".into(),
            topic(REGION, "pager.fifo"),
            topic(REGION, ""),
            topic(REGION, &"x".repeat(257)),
            topic(REGION, "pager:6b8d4a4e-0000-0000-0000-000000000000"),
            topic(REGION, "pager").replace(":sns:", ":sqs:"),
            topic(REGION, "pager").replace("222233334444", "22223333444"),
            topic(REGION, "pager").replace("aws", "gcp"),
            format!("{}\n", topic(REGION, "pager")),
        ] {
            let expected = format!(
                "spec.notify.info.topicArns[1]: Invalid value: {bad:?}: a topic ARN is that of a standard SNS topic, as in arn:aws:sns:us-east-2:222233334444:pager"
            );
            let topics = [topic(REGION, "good"), bad];
            refused(json!({"info": {"topicArns": topics}}), &expected).await;
        }
        let elsewhere = [topic(REGION, "pager"), topic("eu-central-1", "pager")];
        for severity in Severity::ALL {
            refused(
                json!({"critical": {"emails": [good]}, severity.to_string(): {"topicArns": elsewhere}}),
                "spec: Invalid value: topicArns: CloudWatch can only notify topics of the tenant's own Region",
            )
            .await;
        }
        let key = |region: &str| {
            let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
            format!("arn:aws:kms:{region}:222233334444:key/{id}")
        };
        for bad in [
            "alias/aws/sns".to_owned(),
            "1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
            key(REGION).replace("key/", "alias/"),
            key(REGION).replace(":kms:", ":sns:"),
            format!("{}\n", key(REGION)),
        ] {
            let expected = format!(
                "spec.notify.encryptionKeyArn: Invalid value: {bad:?}: encryptionKeyArn is the ARN"
            );
            refused(json!({"info": {}, "encryptionKeyArn": bad}), &expected).await;
        }
        refused(
            json!({"info": {}, "encryptionKeyArn": key("eu-central-1")}),
            "a topic can only be encrypted with a key of its own Region, aws.region",
        )
        .await;
        let many = |n: usize, of: &dyn Fn(usize) -> String| (0..n).map(of).collect::<Vec<_>>();
        for (recipients, expected) in [
            (
                json!({"emails": many(11, &|n| format!("{n}{good}"))}),
                "spec.notify.warning.emails: Too many",
            ),
            (json!({"emails": [good, good]}), "duplicate entries"),
            (
                json!({"emails": [format!("{}@vsu.example", "x".repeat(243))]}),
                "spec.notify.warning.emails[0]: Too long",
            ),
            (
                json!({"topicArns": many(5, &|n| topic(REGION, &format!("pager{n}")))}),
                "spec.notify.warning.topicArns: Too many",
            ),
            (
                json!({"topicArns": many(2, &|_| topic(REGION, "pager"))}),
                "duplicate entries",
            ),
        ] {
            refused(json!({"warning": recipients}), expected).await;
        }
        let without_account =
            json!({"aws": null, "notify": {"info": {"topicArns": [topic(REGION, "pager")]}}});
        tenant
            .refuses::<TenantObservability>(
                "t",
                without_account,
                "add the aws block, or remove notify",
            )
            .await;

        for notify in [
            json!({"critical": {"emails": [good, "On.Call+vsu_2@mail-1.vsu.example", "o'neill@xn--80ak6aa92e.xn--p1ai"]}}),
            json!({"critical": {"topicArns": [topic(REGION, "pager"), topic(REGION, "Pager_2-x")]}, "info": {"topicArns": [topic(REGION, "pager")]}}),
            // A topic of another account or partition is for AWS to judge.
            json!({"warning": {"topicArns": [topic(REGION, "pager").replace("222233334444", "999988887777")]}}),
            json!({"warning": {"emails": [], "topicArns": [], "pagerDuty": []}, "info": {}}),
            json!({"critical": null, "warning": {"topicArns": [topic(REGION, "pager")]}}),
            json!({"info": {}, "encryptionKeyArn": key(REGION).replace("222233334444", "999988887777")}),
            json!({"critical": {"emails": [good], "topicArns": [topic(REGION, "pager")]}}),
        ] {
            tenant.apply::<TenantObservability>("t", spec(notify)).await;
        }
        let last = tenant
            .now::<TenantObservability>("t")
            .await
            .spec
            .notify
            .unwrap()
            .critical
            .unwrap();
        assert_eq!(last.emails, [good]);
        assert_eq!(last.topic_arns, [topic(REGION, "pager")]);
    });
}

#[test]
fn policies_may_be_edited_and_are_not_written_where_nobody_wrote_them() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-policies").await;
        let base = json!({"environments": [{"name": "prod"}]});
        for policies in policies() {
            let object = tenant
                .apply::<TenantObservability>("t", patched(base.clone(), policies.clone()))
                .await;
            let set = tenant
                .apply::<AlarmSet>(
                    "a",
                    patched(
                        json!({"tenantRef": {"name": "t"}, "alarms": [alarm("a", "info", json!({}))]}),
                        policies.clone(),
                    ),
                )
                .await;
            let said =
                |field: &str, default: Value| policies.get(field).cloned().unwrap_or(default);
            for (suspend, drift, deletion, adoption) in [
                (
                    object.spec.suspend,
                    object.spec.drift_policy,
                    object.spec.deletion_policy,
                    object.spec.adoption_policy,
                ),
                (
                    set.spec.suspend,
                    set.spec.drift_policy,
                    set.spec.deletion_policy,
                    set.spec.adoption_policy,
                ),
            ] {
                assert_eq!(json!(suspend), said("suspend", json!(false)));
                assert_eq!(json!(drift), said("driftPolicy", json!("Repair")));
                assert_eq!(json!(deletion), said("deletionPolicy", json!("Delete")));
                assert_eq!(json!(adoption), said("adoptionPolicy", json!("Never")));
            }
        }
        // What is stored is what was written: no diff for Argo to find.
        let stored = world
            .kubernetes
            .kubectl([
                "-n",
                &tenant.namespace,
                "get",
                "tobs/t",
                "-o",
                "jsonpath={.spec}",
            ])
            .await
            .unwrap()
            .success()
            .unwrap();
        assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), base);
    });
}

#[test]
fn status_keeps_what_is_written_to_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-status").await;
        let changes = [
            DriftChange::Changed,
            DriftChange::Missing,
            DriftChange::Unexpected,
        ];
        let drift: Vec<_> = (0..20)
            .map(|n| DriftEntry {
                resource: "alarm".into(),
                name: format!("campanile/it/t/critical/a/a{n}"),
                change: changes[n % 3],
                field: (n % 3 == 0).then(|| "threshold".into()),
                wanted: (n % 3 != 2).then(|| "10".into()),
                found: (n % 3 != 1).then(|| "x".repeat(1024)),
                since: "2026-07-01T12:00:00Z".into(),
            })
            .collect();
        let common = CommonStatus {
            drift,
            drift_count: Some(21),
            applied_digest: Some("00112233445566778899aabbccddeeff".into()),
            // As much as 200 alarms and their tags take.
            applied: Some(
                serde_json::from_value(json!({
                    "spec": "0011223344556677",
                    "things": {"alarm": "0a".repeat(1600), "alarm tag": "0a".repeat(1600)},
                }))
                .unwrap(),
            ),
            ..CommonStatus::default()
        };
        tenant.tenant(json!({"environments": []})).await;
        let status = TenantObservabilityStatus {
            common: common.clone(),
            external_id: Some("it/schema-status".into()),
            links: Some(Links {
                alarms: Some("https://us-east-2.console.aws.amazon.com/cloudwatch/home".into()),
            }),
            subscriptions: vec![SubscriptionEntry {
                severity: Severity::Critical,
                protocol: "email".into(),
                endpoint: "oncall@vsu.example".into(),
                state: SubscriptionState::Gone,
            }],
            ..Default::default()
        };
        let body = json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "TenantObservability", "status": status});
        let kept = tenant
            .api::<TenantObservability>()
            .patch_status(
                &tenant.namespace,
                &PatchParams::apply("a-test").force(),
                &Patch::Apply(body),
            )
            .await
            .unwrap();
        assert_eq!(kept.status, Some(status));

        tenant
            .set("a", json!(["prod"]), json!([alarm("a", "info", json!({}))]))
            .await;
        let status = AlarmSetStatus {
            common,
            ..Default::default()
        };
        let body =
            json!({"apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet", "status": status});
        let kept = tenant
            .api::<AlarmSet>()
            .patch_status(
                "a",
                &PatchParams::apply("a-test").force(),
                &Patch::Apply(body),
            )
            .await
            .unwrap();
        assert_eq!(kept.status, Some(status));
    });
}

#[test]
fn every_list_and_string_may_be_as_long_as_its_bound() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-bounds").await;
        let text = |n: usize| "x".repeat(n);
        let key = json!({"name": text(253), "key": text(253)});
        let services: Vec<_> = (0..5)
            .map(|n| json!({"name": format!("{n}{}", text(62)), "integrationKeySecretRef": key}))
            .collect();
        let emails: Vec<_> = (0..10)
            .map(|n| format!("{n}{}@{}.example", text(63), text(181)))
            .collect();
        assert_eq!(emails[9].len(), 254);
        let topics: Vec<_> = (0..4)
            .map(|n| {
                format!(
                    "arn:aws-us-gov:sns:us-gov-east-1:222233334444:{n}{}",
                    text(255)
                )
            })
            .collect();
        let recipients = json!({"pagerDuty": services, "emails": emails, "topicArns": topics});
        let fits = |spec: &Value| assert!(spec.to_string().len() < 1 << 20);
        let environments: Vec<_> = (10..30)
            .map(|n| json!({"name": format!("{n}{}", text(30)), "deploymentId": text(255)}))
            .collect();
        let spec = json!({
            "environments": environments,
            "aws": {"accountId": "222233334444", "region": "us-gov-east-1", "roleArn": format!("arn:aws:iam::222233334444:role/{}", text(564))},
            "notify": {"critical": recipients, "warning": recipients, "info": recipients},
            "suspend": true, "driftPolicy": "Report", "deletionPolicy": "Orphan", "adoptionPolicy": "MustExist"
        });
        fits(&spec);
        tenant
            .apply::<TenantObservability>(&text(36), spec.clone())
            .await;
        tenant
            .apply::<TenantObservability>(
                &text(36),
                patched(spec, json!({"notify": {"info": null}})),
            )
            .await;

        // All strings of an alarm at their bounds, in as many alarms as fit into an object.
        let dimensions: serde_json::Map<_, _> = (0..10)
            .map(|n| (format!("{n}{}", text(254)), json!(text(1024))))
            .collect();
        let long = |n: usize| {
            json!({"name": format!("{n:03}{}", text(60)), "severity": "critical", "description": "é".repeat(512),
                "runbookUrl": format!("https://{}", text(248)), "namespace": text(255), "metricName": text(255),
                "dimensions": dimensions, "statistic": "p99.9999999999", "period": 604_800, "evaluationPeriods": 10_080,
                "datapointsToAlarm": 10_080, "comparisonOperator": "GreaterThanThreshold", "threshold": 1.5})
        };
        let spec = |alarms: Vec<Value>, environments: Value| json!({"tenantRef": {"name": text(63)}, "environmentDimension": text(255), "environments": environments, "alarms": alarms});
        let names: Vec<_> = (10..30).map(|n| format!("{n}{}", text(30))).collect();
        let wide = spec((0..10).map(long).collect(), json!(names));
        fits(&wide);
        tenant.apply::<AlarmSet>(&text(63), wide.clone()).await;
        tenant
            .apply::<AlarmSet>(
                &text(63),
                patched(wide, json!({"environmentDimension": "D"})),
            )
            .await;
        // As many alarms as there may be.
        let short = |n: usize| {
            alarm(
                &format!("{n:03}{}", text(60)),
                "critical",
                json!({"description": text(512), "runbookUrl": format!("https://{}", text(248))}),
            )
        };
        let tall = spec((0..200).map(short).collect(), Value::Null);
        fits(&tall);
        tenant.apply::<AlarmSet>("tall", tall.clone()).await;
        tenant
            .apply::<AlarmSet>("tall", patched(tall, json!({"environmentDimension": "D"})))
            .await;
    });
}

#[test]
fn columns_are_blank_before_the_first_status() {
    test(|world| async move {
        let tenant = Tenant::new(world, "schema-columns").await;
        tenant.usual_tenant().await;
        tenant
            .golden(json!([alarm("a", "critical", json!({}))]))
            .await;
        let get = async |what: &[&str]| {
            let mut args = vec!["-n", &tenant.namespace, "get"];
            args.extend(what);
            world
                .kubernetes
                .kubectl(args)
                .await
                .unwrap()
                .success()
                .unwrap()
        };
        let rows = |text: String| -> Vec<Vec<String>> {
            text.lines()
                .map(|line| line.split_whitespace().map(str::to_owned).collect())
                .collect()
        };
        let tenants = rows(get(&["tobs"]).await);
        assert_eq!(tenants[0], ["NAME", "HEALTH", "ALARMS", "READY", "AGE"]);
        assert_eq!(tenants[1].len(), 2, "only name and age: {:?}", tenants[1]);
        let sets = rows(get(&["aset"]).await);
        assert_eq!(
            sets[0],
            [
                "NAME", "TENANT", "ALARMS", "FIRING", "NODATA", "READY", "AGE"
            ]
        );
        assert_eq!(sets[1].len(), 3, "only name, tenant and age: {:?}", sets[1]);
        let wide = rows(get(&["tobs", "-o", "wide"]).await);
        assert_eq!(
            wide[0],
            [
                "NAME", "HEALTH", "ALARMS", "READY", "AGE", "ACCOUNT", "REGION", "MESSAGE"
            ]
        );
        // Nobody has looked at them, and kstatus must not take them for what is as declared.
        for object in ["tobs/schema-columns", "aset/golden"] {
            let path = "jsonpath={.status.observedGeneration}";
            assert_eq!(get(&[object, "-o", path]).await, "-1", "{object}");
        }
        assert!(
            get(&["campanile"])
                .await
                .contains("alarmset.campanile.dev/golden"),
            "the category lists all kinds"
        );
    });
}
