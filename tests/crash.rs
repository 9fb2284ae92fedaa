//! Killing the operator at any moment ends in the desired state, with nothing twice and nothing left over.

use crate::support::{Tenant, alarm, eventually, paged, pager_key, test};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// What is asked for in a round: some alarms change, some come, some go, the severity of one moves.
fn alarms(round: usize) -> Value {
    (0..12)
        .filter(|n| !(n + round).is_multiple_of(4))
        .map(|n| {
            let severity = if (n + round).is_multiple_of(3) {
                "critical"
            } else {
                "warning"
            };
            alarm(
                &format!("a{n:02}"),
                severity,
                json!({"threshold": 100 + round}),
            )
        })
        .collect()
}

#[test]
fn twenty_kills_at_random_moments() {
    test(|world| async move {
        let tenant = Tenant::new(world, "crash").await;
        tenant.secret("pager", "key", &pager_key("20")).await;
        let spec = |round: usize| {
            let mut spec = paged(tenant.usual_spec());
            if round.is_multiple_of(2) {
                spec["notify"].as_object_mut().unwrap().remove("warning");
            }
            spec
        };
        let seed = std::env::var("CAMPANILE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..));
        eprintln!("crash: CAMPANILE_SEED={seed} repeats these moments");
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..20_usize {
            // Create in round 0, then edits, and every fifth time everything is deleted and made anew.
            let deleting = round % 5 == 4;
            if deleting {
                tenant.delete_both().await;
            } else {
                tenant.tenant(spec(round)).await;
                tenant.set("golden", json!(["*"]), alarms(round)).await;
            }
            let doomed = tenant.operator().await;
            // A start takes a quarter of a second, a round of writes about as long.
            tokio::time::sleep(Duration::from_millis(random.u64(150..1200))).await;
            doomed.kill().await.unwrap();

            let operator = tenant.operator().await;
            if deleting {
                tenant.both_gone().await;
                assert_eq!(
                    tenant.alarms_and_topics().await,
                    (0, 0),
                    "round {round}, seed {seed}"
                );
                let listed = tenant.subscriptions().await;
                assert_eq!(listed, [], "round {round}, seed {seed}");
            } else {
                tenant.both_are("Applied").await;
                eventually(
                    &format!("the desired state of round {round}, seed {seed}"),
                    || async { as_desired(&tenant, round).await },
                )
                .await;
            }
            operator.kill().await.unwrap();
        }
    });
}

async fn as_desired(tenant: &Tenant, round: usize) -> Result<(), String> {
    let topics: BTreeMap<_, _> = tenant
        .topics()
        .await
        .into_iter()
        .map(|arn| {
            (
                if arn.contains("critical") {
                    "critical"
                } else {
                    "warning"
                },
                arn,
            )
        })
        .collect();
    let severities: &[&str] = if round.is_multiple_of(2) {
        &["critical"]
    } else {
        &["critical", "warning"]
    };
    if topics.keys().copied().collect::<Vec<_>>() != severities {
        return Err(format!("topics {topics:?}"));
    }
    let wanted: BTreeMap<_, _> = alarms(round)
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|alarm| {
            let (name, severity) = (
                alarm["name"].as_str().unwrap().to_owned(),
                alarm["severity"].as_str().unwrap().to_owned(),
            );
            let actions: Vec<_> = topics.get(severity.as_str()).cloned().into_iter().collect();
            let threshold = alarm["threshold"].as_f64().unwrap();
            ["pilot", "prod"].map(|environment| {
                (
                    format!(
                        "campanile/it/{}/{severity}/golden/{name}@{environment}",
                        tenant.namespace
                    ),
                    (threshold, actions.clone()),
                )
            })
        })
        .collect();
    let found: BTreeMap<_, _> = tenant
        .alarms()
        .await
        .into_iter()
        .map(|(name, alarm)| {
            (
                name,
                (alarm.threshold().unwrap(), alarm.alarm_actions().to_vec()),
            )
        })
        .collect();
    if found != wanted {
        return Err(format!("wanted {wanted:#?}\nfound {found:#?}"));
    }
    match &tenant.subscriptions().await[..] {
        [one] if one.subscription_arn().unwrap().starts_with("arn:") => Ok(()),
        other => Err(format!("subscriptions {other:?}")),
    }
}
