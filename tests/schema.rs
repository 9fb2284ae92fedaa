//! What the real API server refuses, with messages that tell what to do, and what it shows.

use crate::support::{REGION, Tenant, alarm, test};
use campanile::api::{AlarmSet, TenantObservability};
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
            let refusal = tenant
                .try_apply::<AlarmSet>("a", spec.clone())
                .await
                .expect_err(&spec.to_string());
            assert!(
                refusal.to_string().contains(expected),
                "expected {expected:?} in: {refusal}"
            );
        }
        let refusal = tenant
            .try_apply::<AlarmSet>("a.b", one(json!({})))
            .await
            .unwrap_err();
        assert!(refusal.to_string().contains("use a DNS label"), "{refusal}");

        tenant.apply::<AlarmSet>("a", one(json!({}))).await;
        let moved = base(many(1), json!({"tenantRef": {"name": "other"}}));
        let refusal = tenant.try_apply::<AlarmSet>("a", moved).await.unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains("tenantRef cannot be changed: delete this object and make a new one"),
            "{refusal}"
        );
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
        ] {
            let spec = patched(base.clone(), patch.clone());
            let refusal = tenant
                .try_apply::<TenantObservability>("t", spec)
                .await
                .expect_err(&patch.to_string());
            assert!(
                refusal.to_string().contains(expected),
                "expected {expected:?} in: {refusal}"
            );
        }
        let refusal = tenant
            .try_apply::<TenantObservability>(&"t".repeat(37), base.clone())
            .await
            .unwrap_err();
        assert!(
            refusal.to_string().contains("of at most 36 characters"),
            "{refusal}"
        );

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
            let refusal = tenant
                .try_apply::<TenantObservability>("t", patched(base.clone(), patch))
                .await
                .unwrap_err();
            assert!(
                refusal.to_string().contains(expected),
                "expected {expected:?} in: {refusal}"
            );
        }
        // What may change, may.
        let role = json!({"aws": {"roleArn": "arn:aws:iam::222233334444:role/path/other"}});
        tenant
            .apply::<TenantObservability>("t", patched(base, role))
            .await;
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
        let environments: Vec<_> = (10..30)
            .map(|n| json!({"name": format!("{n}{}", text(30)), "deploymentId": text(255)}))
            .collect();
        let spec = json!({
            "environments": environments,
            "aws": {"accountId": "222233334444", "region": "us-gov-east-1", "roleArn": format!("arn:aws:iam::222233334444:role/{}", text(564))},
            "notify": {"critical": {"pagerDuty": services}, "warning": {"pagerDuty": services}, "info": {"pagerDuty": services}}
        });
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
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("a", "critical", json!({}))]),
            )
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
        assert!(
            get(&["campanile"])
                .await
                .contains("alarmset.campanile.dev/golden"),
            "the category lists all kinds"
        );
    });
}
