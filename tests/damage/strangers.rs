//! What does not bear our mark, or bears it no more, is left alone and told; when the stranger goes, it heals.

use super::*;
use crate::support::{CLUSTER, REGION};
use futures::FutureExt;

#[test]
fn an_alarm_without_our_mark_is_left_alone_and_said_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-mark").await;
        let _operator = in_place(&tenant, tenant.usual_spec()).await;
        let (name, right) = errors(&tenant).await;
        let other = tenant.name(Severity::Warning, "golden", "slow", Some("prod"));
        let right_other = tenant.alarms().await.remove(&other).unwrap();
        let cloudwatch = tenant.cloudwatch();
        let description = right.alarm_description().unwrap();
        let ours = description.lines().last().unwrap();
        let (head, tail) = ours.split_once("/AlarmSet/").unwrap();
        let forged = |mark: String| (mark.clone(), format!("is held by {mark}"));
        for (what, (description, holder), deleted) in [
            (
                "cut off",
                ("by hand".into(), "it carries no mark".into()),
                true,
            ),
            (
                "another installation's",
                forged(format!("campanile:{CLUSTER}/00000000/AlarmSet/{tail}")),
                false,
            ),
            (
                "another object's",
                forged(format!("{head}/AlarmSet/{tail}-2")),
                true,
            ),
        ] {
            let before = events::<AlarmSet>(&tenant, "golden", "Conflict").await;
            let taken = put(&cloudwatch, &right).alarm_description(&description);
            taken.send().await.unwrap();
            let mark = world.aws.mark();
            let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
            assert!(
                message.contains(&name) && message.contains(&holder),
                "{what}: {message}"
            );
            let (at, note) = told::<AlarmSet>(&tenant, "golden", "Conflict", before.len()).await;
            Look::alarms(0).in_time(&tenant, mark, at, what);
            assert!(note.contains(&name), "{what}: {note}");
            let set = tenant.now::<AlarmSet>("golden").await;
            assert!(set.holds("Stalled"), "{what}");
            let counts = set.status.as_ref().unwrap().counts.unwrap();
            assert_eq!((counts.applied, counts.foreign, counts.failed), (1, 1, 0));
            assert_eq!(first_entry(&set), ("errors", Some("Conflict")), "{what}");
            // The other one is looked after as ever.
            let meddled = put(&cloudwatch, &right_other).threshold(99.0);
            meddled.send().await.unwrap();
            is_as_before(&tenant, what, &right_other).await;
            tenant.polls(world.aws.mark(), 2).await;
            let writes = tenant.writes_since(mark);
            assert!(
                writes.iter().all(|(_, about)| about.ends_with(&other)),
                "{what}: {writes:?}"
            );
            let left = tenant.alarms().await.remove(&name).unwrap();
            assert_eq!(left.alarm_description(), Some(description.as_str()));

            // It heals by itself.
            if deleted {
                let delete = cloudwatch.delete_alarms().alarm_names(&name);
                delete.send().await.unwrap();
            } else {
                put(&cloudwatch, &right).send().await.unwrap();
            }
            let mark = world.aws.mark();
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            let at = Timestamp::now();
            Look::alarms(usize::from(deleted)).in_time(&tenant, mark, at, what);
            is_as_before(&tenant, what, &right).await;
            let made = tenant.writes_since(mark).len();
            assert_eq!(made, usize::from(deleted), "{what}");
        }
    });
}

#[test]
fn a_topic_without_our_tag_is_left_alone_and_said_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-topic-tag").await;
        let _operator = in_place(&tenant, tenant.usual_spec()).await;
        let (name, right) = errors(&tenant).await;
        let topic = right.alarm_actions()[0].as_str();
        let short = topic.rsplit(':').next().unwrap();
        let (sns, namespace) = (tenant.sns(), &tenant.namespace);
        let tag = |value: &str| {
            let tag = aws_sdk_sns::types::Tag::builder().key("campanile.dev/owner");
            let tag = sns
                .tag_resource()
                .resource_arn(topic)
                .tags(tag.value(value).build().unwrap());
            async { drop(tag.send().await.unwrap()) }
        };
        let tags = sns
            .list_tags_for_resource()
            .resource_arn(topic)
            .send()
            .await
            .unwrap();
        let ours = tags.tags()[0].value().to_owned();
        let stolen = ours.replacen("TenantObservability", "Somebody", 1);
        let removed = async {
            let untag = sns.untag_resource().resource_arn(topic);
            drop(untag.tag_keys("campanile.dev/owner").send().await.unwrap());
        };
        for (what, done, holder) in [
            ("removed", removed.boxed_local(), "it carries no mark"),
            ("another's", tag(&stolen).boxed_local(), stolen.as_str()),
        ] {
            let before = events::<TenantObservability>(&tenant, namespace, "Conflict").await;
            let before = before.len();
            done.await;
            let mark = world.aws.mark();
            let message = tenant.tenant_is("Conflict").await;
            assert!(
                message.contains(short) && message.contains(holder),
                "{what}: {message}"
            );
            let (at, _) = told::<TenantObservability>(&tenant, namespace, "Conflict", before).await;
            Look::topic(topic, 0).in_time(&tenant, mark, at, what);
            tenant.delivery("TopicConflict").await;
            // What happens to a topic outside is no reason to take the alarms off it.
            Look::topic(topic, 0).times(&tenant, mark, 3).await;
            assert_eq!(tenant.writes_since(mark), [], "{what}");
            let actions = tenant.alarms().await[&name].alarm_actions().to_vec();
            assert_eq!(actions, [topic], "{what}");
            tag(&ours).await;
            tenant.tenant_is("Applied").await;
            is_as_before(&tenant, what, &right).await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            let writes = tenant.writes_since(mark);
            assert!(
                writes
                    .iter()
                    .all(|(operation, _)| operation == "PutMetricAlarm"),
                "{what}: {writes:?}"
            );
        }
    });
}

#[test]
fn a_conflict_heals_when_the_stranger_goes() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-stranger").await;
        tenant.usual_tenant().await;
        let cloudwatch = tenant.cloudwatch();
        let name = |alarm| tenant.name(Severity::Info, "golden", alarm, Some("prod"));
        let (by_hand, composite) = (name("by-hand"), name("composite"));
        put_by_hand(&cloudwatch, &by_hand).await;
        let put = cloudwatch.put_composite_alarm().alarm_name(&composite);
        put.alarm_rule("FALSE").send().await.unwrap();
        let alarms = json!([
            alarm("by-hand", "info", json!({})),
            alarm("composite", "info", json!({})),
            alarm("ours", "info", json!({}))
        ]);
        tenant.golden(alarms).await;
        let _operator = operator(&tenant, &[]).await;
        let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
        assert!(message.contains(&by_hand), "{message}");
        let foreign = async |count: i32| {
            let what = format!("{count} that are not ours");
            let right = |set: &AlarmSet| {
                let status = set.status.as_ref().unwrap();
                status.counts.is_some_and(|counts| counts.foreign == count)
            };
            tenant.until("golden", &what, right).await
        };
        let set = foreign(2).await;
        assert_eq!(set.status.unwrap().counts.unwrap().applied, 1);
        for (stranger, left) in [(&composite, 1), (&by_hand, 0)] {
            let delete = cloudwatch.delete_alarms().alarm_names(stranger);
            delete.send().await.unwrap();
            let mark = world.aws.mark();
            foreign(left).await;
            Look::alarms(1).in_time(&tenant, mark, Timestamp::now(), stranger);
            let arn = format!(
                "arn:aws:cloudwatch:{REGION}:{}:alarm:{stranger}",
                tenant.account
            );
            let made = [("PutMetricAlarm".to_owned(), arn)];
            assert_eq!(tenant.writes_since(mark), made);
        }
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        assert_eq!(tenant.alarms().await.len(), 3);

        // A topic: its name is known once it has been made.
        let sns = tenant.sns();
        let topics = tenant.topics().await;
        let topic = topics.iter().find(|arn| arn.contains("warning")).unwrap();
        let warning = async |there: bool| {
            let mut spec = tenant.usual_spec();
            if !there {
                spec["notify"].as_object_mut().unwrap().remove("warning");
            }
            tenant.tenant(spec).await;
        };
        warning(false).await;
        tenant.tenant_is("Applied").await;
        let create = sns.create_topic().name(topic.rsplit(':').next().unwrap());
        create.send().await.unwrap();
        warning(true).await;
        let message = tenant.tenant_is("Conflict").await;
        assert!(message.contains("_warning_"), "{message}");
        sns.delete_topic().topic_arn(topic).send().await.unwrap();
        let mark = world.aws.mark();
        tenant.tenant_is("Applied").await;
        Look::topic(topic, 1).in_time(&tenant, mark, Timestamp::now(), topic);
        let made = [("CreateTopic".to_owned(), topic.clone())];
        assert_eq!(tenant.writes_since(mark), made);
    });
}
