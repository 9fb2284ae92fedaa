//! What somebody does to an alarm is mended; a repair that is refused is told, and a listing that breaks off is not
//! absence.

use super::*;
use aws_sdk_cloudwatch::types::{Dimension, StandardUnit, Tag};
use campanile_world::aws::Trouble;
use futures::FutureExt;

async fn owner(tenant: &Tenant, alarm: &MetricAlarm) -> Option<String> {
    let tags = tenant.cloudwatch().list_tags_for_resource();
    let tags = tags.resource_arn(alarm.alarm_arn().unwrap()).send().await;
    let tags = tags.unwrap().tags.unwrap_or_default().into_iter();
    let mut owner = tags.filter(|tag| tag.key() == Some("campanile.dev/owner"));
    owner.next()?.value
}

#[test]
fn an_alarm_is_mended_whatever_is_done_to_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-alarm").await;
        let spec = tenant.usual_spec();
        let site = Site::in_place(tenant, spec).await;
        let tenant = &site.tenant;
        tenant.healthy().await;

        let (name, right) = errors(tenant).await;
        let mark = owner(tenant, &right).await.unwrap();
        let cloudwatch = tenant.cloudwatch();
        let (arn, topic) = (right.alarm_arn().unwrap(), &right.alarm_actions()[0]);
        let other = "arn:aws:sns:us-east-2:999900001111:other";
        let elsewhere = Dimension::builder().name("DeploymentId").value("elsewhere");
        let description = format!("meddled with\n{}", right.alarm_description().unwrap());
        let put = || put(&cloudwatch, &right);
        let sent = |put: PutMetricAlarmFluentBuilder| {
            async { drop(put.send().await.unwrap()) }.boxed_local()
        };
        let says = |text: &str| vec![format!("alarm {name}: {text}")];
        let meddle = Tag::builder().key("campanile.dev/owner").value("nobody");
        let damages = [
            Damage {
                what: "deleted",
                done: async {
                    let delete = cloudwatch.delete_alarms().alarm_names(&name);
                    drop(delete.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::alarms(1),
                says: vec![format!("alarm {name} was missing")],
                note: "created 1 alarm (".into(),
            },
            Damage {
                what: "threshold",
                done: sent(put().threshold(99.0)),
                look: Look::alarms(1),
                says: says("threshold was 99, wanted 10"),
                note: "threshold 99 → 10".into(),
            },
            Damage {
                what: "dimension",
                done: sent(put().set_dimensions(Some(vec![elsewhere.build()]))),
                look: Look::alarms(1),
                says: says("dimensions was DeploymentId=elsewhere, wanted DeploymentId=app-prod"),
                note: "dimensions DeploymentId=elsewhere → DeploymentId=app-prod".into(),
            },
            Damage {
                what: "actions",
                done: sent(
                    put()
                        .set_alarm_actions(Some(vec![other.into()]))
                        .set_ok_actions(None),
                ),
                look: Look::alarms(1),
                says: vec![
                    format!("alarmActions was {other}, wanted {}", &topic[..40]),
                    format!("okActions was unset, wanted {}", &topic[..40]),
                ],
                note: format!("alarmActions {other} → {topic}, okActions (unset) → {topic}"),
            },
            Damage {
                what: "description",
                done: sent(put().alarm_description(&description)),
                look: Look::alarms(1),
                says: says("description was meddled with⏎campanile:"),
                note: "description meddled with⏎campanile:".into(),
            },
            Damage {
                what: "disabled",
                done: async {
                    let disable = cloudwatch.disable_alarm_actions().alarm_names(&name);
                    drop(disable.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::alarms(1),
                says: says("actionsEnabled was false, wanted true"),
                note: "actionsEnabled false → true".into(),
            },
            Damage {
                what: "what is never set",
                done: sent(put().unit(StandardUnit::Seconds)),
                look: Look::alarms(1),
                says: says("other was unit Seconds, wanted unset"),
                note: "other unit Seconds → (unset)".into(),
            },
            Damage {
                what: "tag changed",
                done: async {
                    let tag = cloudwatch.tag_resource().resource_arn(arn);
                    drop(tag.tags(meddle.build()).send().await.unwrap());
                }
                .boxed_local(),
                look: Look::tag(&right),
                says: vec![format!(
                    "alarm tag {name}: campanile.dev/owner was nobody, wanted {mark}"
                )],
                note: format!("campanile.dev/owner nobody → {mark}"),
            },
            Damage {
                what: "tag removed",
                done: async {
                    let untag = cloudwatch.untag_resource().resource_arn(arn);
                    let untag = untag.tag_keys("campanile.dev/owner");
                    drop(untag.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::tag(&right),
                says: vec![format!(
                    "alarm tag {name}: campanile.dev/owner was unset, wanted {mark}"
                )],
                note: format!("campanile.dev/owner (unset) → {mark}"),
            },
        ];
        let count = damages.len();
        for damage in damages {
            let what = damage.what;
            is_mended::<AlarmSet>(&site, "golden", damage).await;
            is_as_before(tenant, what, &right).await;
            assert_eq!(owner(tenant, &right).await.as_ref(), Some(&mark), "{what}");
        }

        // What is damaged at once is told at once.
        let all = tenant.alarm_names().await;
        assert_eq!(all.len(), 2);
        let damage = Damage {
            what: "both deleted",
            done: async {
                let delete = cloudwatch.delete_alarms().set_alarm_names(Some(all));
                drop(delete.send().await.unwrap());
            }
            .boxed_local(),
            look: Look::alarms(1),
            says: vec![format!("alarm {name} was missing; alarm ")],
            note: "created 2 alarms (".into(),
        };
        is_mended::<AlarmSet>(&site, "golden", damage).await;

        // A new alarm's state has a time as soon as it is read; after that nothing moves any more.
        tenant
            .until::<AlarmSet>("golden", "a time in every entry", |set| {
                let alarms = &set.status.as_ref().unwrap().alarms;
                alarms.iter().all(|entry| entry.since.is_some())
            })
            .await;
        tenant.polls(world.aws.mark(), 2).await;
        tenant.is_quiet("when all is repaired").await;
        let repaired = events::<AlarmSet>(tenant, "golden", "DriftRepaired").await;
        assert_eq!(repaired.len(), count + 1, "one Event for one damage");
        let namespace = &tenant.namespace;
        let others = events::<TenantObservability>(tenant, namespace, "DriftRepaired").await;
        assert_eq!(others.len(), 0, "the tenant is another resource");
    });
}

#[test]
fn a_repair_that_is_refused_is_said_and_not_tried_at_every_poll() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-refused").await;
        let spec = tenant.usual_spec();
        let site = Site::in_place(tenant, spec).await;
        let tenant = &site.tenant;
        let (_, right) = errors(tenant).await;
        world.aws.deny(&tenant.account, "PutMetricAlarm");
        let meddled = put(&tenant.cloudwatch(), &right).threshold(99.0);
        meddled.send().await.unwrap();
        let mark = world.aws.mark();
        let message = tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
        assert!(
            message.contains("Allow cloudwatch:PutMetricAlarm to"),
            "{message}"
        );
        let (at, _) = told::<AlarmSet>(tenant, "golden", "AccessDenied", 0).await;
        Look::alarms(1).in_time(tenant, mark, at, "the denial");
        let set = tenant.now::<AlarmSet>("golden").await;
        assert_eq!(first_entry(&set), ("errors", Some("AccessDenied")));
        tenant.polls(world.aws.mark(), 3).await;
        assert_eq!(tenant.writes_since(mark).len(), 1, "it was tried once");
        assert_eq!(site.drift::<AlarmSet>().await, (0, 0));

        world.aws.allow(&tenant.account, "PutMetricAlarm");
        tenant.ask::<AlarmSet>("golden", "mended").await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        is_as_before(tenant, "allowed", &right).await;
        let set = tenant.now::<AlarmSet>("golden").await;
        assert_eq!(set.verdict("Drifted").1, "DriftRepaired");
        assert_eq!(site.drift::<AlarmSet>().await, (1, 1));
    });
}

#[test]
fn a_listing_that_breaks_off_is_not_absence() {
    test(|world| async move {
        for (name, count, page) in [
            ("damage-short-pages", 6, Some(2)),
            ("damage-pages", 120, None),
        ] {
            let tenant = Tenant::new(world, name).await;
            let describe = "DescribeAlarms";
            if let Some(size) = page {
                let short = Trouble::ShortPages(size);
                world.aws.trouble(&tenant.account, describe, short);
            }
            tenant.usual_tenant().await;
            let alarms = (0..count).map(|n| alarm(&format!("a{n:03}"), "info", json!({})));
            tenant.golden(alarms.collect()).await;
            let _operator = operator(&tenant, &["--aws-rate", "PutMetricAlarm=1000"]).await;
            let counted = |set: &AlarmSet| {
                let Some(status) = &set.status else {
                    return false;
                };
                let counts = status.counts;
                let counts = counts.map(|counts| (counts.desired, counts.applied, counts.no_data));
                counts == Some((count, count, count))
                    && status.alarms.iter().all(|entry| entry.since.is_some())
            };
            tenant.until("golden", "all in place", counted).await;
            tenant.healthy().await;
            let whole = async || {
                let alarms = tenant.alarms().await.into_values();
                alarms.map(|alarm| still(&alarm)).collect::<Vec<_>>()
            };
            let right = whole().await;
            assert_eq!(right.len(), usize::try_from(count).unwrap());

            world
                .aws
                .trouble(&tenant.account, describe, Trouble::FailLaterPages);
            let mark = world.aws.mark();
            let failed = || {
                world.aws.count_since(mark, |call| {
                    (&call.account, call.operation.as_str()) == (&tenant.account, describe)
                        && call.status == Some(500)
                })
            };
            // Somebody deletes what the first page would have told; what the last ones would have told
            // is there all the time. (Each read is tried twice.)
            let first = right[0].alarm_name().unwrap();
            let delete = tenant.cloudwatch().delete_alarms().alarm_names(first);
            delete.send().await.unwrap();
            at_least("two listings that broke off", 4, failed).await;
            let set = tenant.now::<AlarmSet>("golden").await;
            assert!(counted(&set) && set.holds("Ready"), "{name}: {set:?}");
            assert_eq!(tenant.writes_since(mark), [], "{name}");
            assert_eq!(whole().await.len(), right.len() - 1, "{name}");

            world.aws.allow(&tenant.account, describe);
            eventually("what was deleted to be back", || async {
                let now = whole().await;
                if now == right {
                    Ok(())
                } else {
                    Err(format!("{} alarms", now.len()))
                }
            })
            .await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            assert_eq!(tenant.writes_since(mark).len(), 1, "{name}");
        }
    });
}
