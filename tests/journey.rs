//! The way of an alarm: declared, put, firing, heard, repaired, edited, deleted.

use crate::support::{
    CLUSTER, Conditions, PATIENCE, Tenant, alarm, at_least, errors, eventually, once, paged,
    pager_key, put_by_hand, test,
};
use campanile::api::{
    AlarmSet, AlarmState, Health, Severity, SubscriptionState, TenantObservability,
};
use campanile_world::aws::Trust;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

#[test]
fn an_alarm_fires_and_reaches_the_pager() {
    test(|world| async move {
        let tenant = Tenant::new(world, "journey-fires").await;
        let key = pager_key("02");
        tenant.secret("pager", "key", &key).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        let alarms = json!([
            alarm("errors", "critical", json!({})),
            alarm("slow", "warning", json!({}))
        ]);
        tenant.golden(alarms).await;
        let _operator = tenant.operator().await;

        let well = tenant
            .tenant_until("healthy", |tenant| {
                tenant.holds("Healthy") && tenant.holds("DeliveryReady")
            })
            .await;
        wait(&tenant, "condition=Healthy").await;
        let status = well.status.as_ref().unwrap();
        assert_eq!(
            (status.health, status.summary.as_deref()),
            (Some(Health::Healthy), Some("0/2 firing"))
        );
        assert_eq!(
            status
                .topics
                .iter()
                .map(|topic| topic.severity)
                .collect::<Vec<_>>(),
            [Severity::Critical, Severity::Warning]
        );
        let [subscription] = &status.subscriptions[..] else {
            panic!("{:?}", status.subscriptions)
        };
        assert_eq!(subscription.state, SubscriptionState::Confirmed);
        assert!(
            subscription.endpoint.starts_with("hmac:"),
            "{subscription:?}"
        );
        assert!(well.holds("AccountReachable"));

        // What was made is what was asked for, marked and tagged by the call that made it.
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let alarm = tenant
            .alarms()
            .await
            .remove(&name)
            .expect("the alarm is there");
        let topic = &status.topics[0].arn;
        assert_eq!(
            (alarm.alarm_actions(), alarm.ok_actions()),
            (&[topic.clone()][..], &[topic.clone()][..])
        );
        let mark = alarm
            .alarm_description()
            .unwrap()
            .lines()
            .last()
            .unwrap()
            .to_owned();
        assert!(
            mark.starts_with("campanile:it/") && mark.ends_with("/AlarmSet/journey-fires/golden"),
            "{mark}"
        );
        let tags = tenant
            .cloudwatch()
            .list_tags_for_resource()
            .resource_arn(alarm.alarm_arn().unwrap())
            .send()
            .await
            .unwrap();
        let owner = tags
            .tags()
            .iter()
            .find(|tag| tag.key() == Some(campanile::kinds::mark::TAG));
        assert_eq!(owner.unwrap().value(), Some(mark.as_str()));
        let tags = tenant
            .sns()
            .list_tags_for_resource()
            .resource_arn(topic)
            .send()
            .await
            .unwrap();
        assert!(
            tags.tags()[0]
                .value()
                .ends_with("/TenantObservability/journey-fires/journey-fires")
        );
        let attributes = tenant
            .sns()
            .get_topic_attributes()
            .topic_arn(topic)
            .send()
            .await
            .unwrap();
        let policy: Value =
            serde_json::from_str(&attributes.attributes().unwrap()["Policy"]).unwrap();
        assert_eq!(
            policy["Statement"][0]["Condition"]["StringEquals"]["aws:SourceAccount"],
            tenant.account
        );

        tenant.emit("errors", "app-prod", 50.0, 1).await;
        let firing = tenant
            .tenant_until("alarming", |tenant| {
                tenant.status.as_ref().unwrap().health == Some(Health::Alarming)
            })
            .await;
        assert_eq!(
            firing.status.as_ref().unwrap().summary.as_deref(),
            Some("1/2 firing")
        );
        wait(&tenant, "condition=Healthy=false").await;
        wait(&tenant, "condition=Ready").await;
        assert!(firing.holds("Ready"), "a firing alarm never touches Ready");
        let message = &firing.condition("Healthy").unwrap().message;
        assert_eq!(message, "1/2 firing: golden/errors in prod");
        let set = tenant
            .until::<AlarmSet>("golden", "firing", |set| {
                set.status.as_ref().unwrap().counts.unwrap().firing == 1
            })
            .await;
        let first = &set.status.as_ref().unwrap().alarms[0];
        assert_eq!(
            (first.name.as_str(), first.state),
            ("errors", Some(AlarmState::Alarm))
        );
        assert!(
            first.since.is_some() && first.message.is_some(),
            "{first:?}"
        );
        let heard = world
            .pagerduty
            .wait_for(&key, &name, "ALARM", PATIENCE)
            .await
            .unwrap();
        assert_eq!(heard.account, tenant.account);
    });
}

/// `kubectl wait`, as a pipeline does it.
async fn wait(tenant: &Tenant, what: &str) {
    let (object, what) = (
        format!("tobs/{}", tenant.namespace),
        format!("--for={what}"),
    );
    let args = [
        "wait",
        &what,
        "--timeout=30s",
        "-n",
        &tenant.namespace,
        &object,
    ];
    let waited = tenant.world.kubernetes.kubectl(args).await;
    waited.unwrap().success().unwrap();
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    test(|world| async move {
        let tenant = Tenant::new(world, "journey-still").await;
        tenant.secret("pager", "key", &pager_key("03")).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        // Everything that AWS leaves unset or that is easily compared wrongly.
        let alarms = json!([
            alarm(
                "plain",
                "critical",
                json!({"treatMissingData": null, "description": null})
            ),
            alarm(
                "percentile",
                "warning",
                json!({"statistic": "p99.9", "threshold": 0.1, "dimensions": {"B": "2", "A": "1"}})
            ),
            alarm(
                "m-of-n",
                "info",
                json!({"evaluationPeriods": 5, "datapointsToAlarm": 3, "threshold": -1e9})
            ),
            alarm(
                "emoji",
                "info",
                json!({"description": "«5 > 3 & so on» 🔔", "runbookUrl": "https://r.example/?a=1&b=%20"})
            ),
        ]);
        tenant
            .set(
                "golden",
                json!(["*"]),
                alarms.as_array().unwrap().iter().map(clean).collect(),
            )
            .await;
        let operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        tenant
            .tenant_until("healthy", |tenant| {
                tenant.holds("Healthy") && tenant.holds("DeliveryReady")
            })
            .await;
        // Until the roll-up has seen the set's last status, and the set the tenant's.
        let mut last = tenant.both_versions().await;
        for _ in 0..20 {
            tenant.polls(world.aws.mark(), 2).await;
            let now = tenant.both_versions().await;
            if now == last {
                break;
            }
            last = now;
        }

        for restarted in [false, true] {
            let restart = if restarted {
                operator.stop(Duration::from_secs(10)).await.unwrap();
                Some(tenant.operator().await)
            } else {
                None
            };
            let when = format!("restarted: {restarted}");
            tenant.is_quiet(&when).await;
            drop(restart);
        }
    });
}

fn clean(alarm: &Value) -> Value {
    let mut alarm = alarm.clone();
    alarm
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    alarm
}

#[test]
fn tenants_share_nothing_though_one_name_begins_with_the_other() {
    test(|world| async move {
        // Two tenants in one namespace and account, one named as the other begins.
        let tenant = Tenant::new(world, "journey-two").await;
        for name in ["a", "a-2"] {
            tenant
                .apply::<TenantObservability>(name, tenant.usual_spec())
                .await;
            let spec = json!({"tenantRef": {"name": name}, "alarms": errors()});
            tenant.apply::<AlarmSet>(&format!("set-{name}"), spec).await;
        }
        let _operator = tenant.operator().await;
        for name in ["a", "a-2"] {
            tenant
                .ready::<AlarmSet>(&format!("set-{name}"), "Applied")
                .await;
        }
        assert_eq!(tenant.alarms_and_topics().await, (2, 4));
        tenant.delete::<AlarmSet>("set-a").await;
        tenant.delete::<TenantObservability>("a").await;
        tenant.gone::<AlarmSet>("set-a").await;
        tenant.gone::<TenantObservability>("a").await;
        let names = tenant.alarm_names().await;
        assert_eq!(
            names,
            [format!("campanile/{CLUSTER}/a-2/critical/set-a-2/errors")]
        );
        let topics = tenant.topics().await;
        assert_eq!(topics.len(), 2);
        assert!(
            topics.iter().all(|topic| topic.contains("campanile_a-2_")),
            "{topics:?}"
        );
    });
}

#[test]
fn deletion_in_every_order_leaves_nothing() {
    test(|world| async move {
        for order in ["set-first", "tenant-first", "namespace-at-once"] {
            let tenant = Tenant::new(world, &format!("journey-{order}")).await;
            tenant.secret("pager", "key", &pager_key("04")).await;
            tenant.tenant(paged(tenant.usual_spec())).await;
            tenant.set("golden", json!(["*"]), errors()).await;
            // Somebody else's, which must survive.
            let (cloudwatch, sns) = (tenant.cloudwatch(), tenant.sns());
            let foreign = format!(
                "campanile/{CLUSTER}/{}/critical/golden/by-hand",
                tenant.namespace
            );
            put_by_hand(&cloudwatch, &foreign).await;
            sns.create_topic().name("by-hand").send().await.unwrap();
            let _operator = tenant.operator().await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            tenant.delivering().await;
            assert_eq!(tenant.alarms_and_topics().await, (3, 3));
            match order {
                "set-first" => {
                    tenant.delete::<AlarmSet>("golden").await;
                    tenant.gone::<AlarmSet>("golden").await;
                    tenant.delete_tenant().await;
                }
                "tenant-first" => {
                    tenant.delete_tenant().await;
                    tenant.tenant_gone().await;
                    // Its alarms stay until the set goes: they are the set's.
                    assert_eq!(tenant.alarms().await.len(), 3);
                    let message = tenant.ready::<AlarmSet>("golden", "WaitingForTenant").await;
                    assert!(
                        message.contains(
                            "TenantObservability journey-tenant-first/journey-tenant-first"
                        ),
                        "{message}"
                    );
                    tenant.delete::<AlarmSet>("golden").await;
                }
                _ => tenant.delete_namespace().await,
            }
            if order != "namespace-at-once" {
                tenant.both_gone().await;
            }
            assert_eq!(tenant.alarm_names().await, [foreign], "{order}");
            let topics: BTreeSet<_> = tenant.topics().await.into_iter().collect();
            assert_eq!(
                topics
                    .iter()
                    .map(|arn| arn.rsplit(':').next().unwrap())
                    .collect::<Vec<_>>(),
                ["by-hand"],
                "{order}"
            );
        }
    });
}

#[test]
fn a_pager_that_is_replaced_or_rotated_is_the_only_one_that_hears() {
    test(|world| async move {
        let tenant = Tenant::new(world, "journey-rotate").await;
        let (old, new) = (pager_key("05"), pager_key("06"));
        tenant.secret("pager", "key", &old).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        let _operator = tenant.operator().await;
        tenant.delivering().await;
        // One that somebody made by hand is left alone.
        let topics = tenant.topics().await;
        let topic = topics.iter().find(|arn| arn.contains("critical")).unwrap();
        tenant
            .sns()
            .subscribe()
            .topic_arn(topic)
            .protocol("email")
            .endpoint("by-hand@vsu.example")
            .send()
            .await
            .unwrap();

        tenant.secret("pager", "key", &new).await;
        eventually("only the new key and the one made by hand", || async {
            let endpoints = tenant.endpoints(topic).await;
            let expected = [tenant.pager_url(&new), "by-hand@vsu.example".into()];
            once(endpoints == expected.into(), &endpoints)
        })
        .await;
        assert!(world.pagerduty.confirmed(&new).contains(topic));
    });
}

#[test]
fn a_pager_whose_new_key_is_mistyped_goes_on_hearing() {
    test(|world| async move {
        let tenant = Tenant::new(world, "journey-mistyped").await;
        let (old, new) = (pager_key("10"), pager_key("11"));
        tenant.secret("pager", "key", &old).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        let _operator = tenant.operator().await;
        let well = tenant.delivering().await;
        let topic = &well.status.unwrap().topics[0].arn;

        tenant.secret("pager", "key", "mistyped").await;
        tenant.delivery("PendingConfirmation").await;
        let mark = world.aws.mark();
        at_least("two more slow polls", 4, || {
            tenant.asked_since(mark, "ListSubscriptionsByTopic")
        })
        .await;
        assert_eq!(
            tenant.endpoints(topic).await,
            [tenant.pager_url(&old), tenant.pager_url("mistyped")].into(),
            "the old one is heard until another is"
        );

        tenant.secret("pager", "key", &new).await;
        tenant.delivering().await;
        eventually("the old one to go", || async {
            let endpoints = tenant.endpoints(topic).await;
            once(!endpoints.contains(&tenant.pager_url(&old)), &endpoints)
        })
        .await;
        let endpoints = tenant.endpoints(topic).await;
        assert!(endpoints.contains(&tenant.pager_url(&new)));
    });
}

#[test]
fn a_lost_digest_key_leaves_no_pager_behind() {
    test(|world| async move {
        let tenant = Tenant::new(world, "journey-digests").await;
        let home = Tenant::operator_home(world, "journey-digests-system").await;
        let (old, new) = (pager_key("08"), pager_key("09"));
        tenant.secret("pager", "key", &old).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        let args = ["--operator-namespace", "journey-digests-system"];
        let first = tenant.operator_with(&args).await;
        tenant.delivering().await;
        first.stop(Duration::from_secs(10)).await.unwrap();
        let digest = async || {
            let found = tenant.tenant_now().await;
            let [entry] = &found.status.unwrap().subscriptions[..] else {
                return None;
            };
            Some(entry.endpoint.clone())
        };
        let before = digest().await.expect("one subscription");

        home.delete::<Secret>("campanile-digest-key").await;
        let _second = tenant.operator_with(&args).await;
        eventually("our subscription by its new digest", || async {
            match digest().await {
                Some(now) if now != before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        tenant.secret("pager", "key", &new).await;
        eventually("only the new key", || async {
            let listed = tenant.subscriptions().await.into_iter();
            let endpoints: Vec<_> = listed.map(|one| one.endpoint.unwrap()).collect();
            once(endpoints == [tenant.pager_url(&new)], &endpoints)
        })
        .await;
    });
}

#[test]
fn a_role_may_be_changed_while_its_alarms_are_there() {
    test(|world| async move {
        let tenant = Tenant::new(world, "journey-role").await;
        tenant.usual().await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let other = format!("arn:aws:iam::{}:role/other", tenant.account);
        world.aws.role(
            &other,
            Trust::external_id(format!("{CLUSTER}/{}", tenant.namespace)),
        );
        let mut spec = tenant.usual_spec();
        spec["aws"]["roleArn"] = json!(other);
        let mark = world.aws.mark();
        tenant.tenant(spec).await;
        let set = tenant
            .until::<AlarmSet>("golden", "the new role in targets", |set| {
                set.status.as_ref().unwrap().targets[0].role_arn == other
            })
            .await;
        assert_eq!(set.status.unwrap().targets.len(), 1);
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        assert_eq!(tenant.writes_since(mark), []);
    });
}
