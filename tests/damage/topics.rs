//! What somebody does to a topic of ours is mended; a topic of somebody's own is told and never touched.

use super::*;
use campanile_world::aws::Unsubscribed;
use futures::FutureExt;

async fn policy(tenant: &Tenant, topic: &str) -> Value {
    let attributes = tenant.sns().get_topic_attributes().topic_arn(topic);
    let attributes = attributes.send().await.unwrap();
    serde_json::from_str(&attributes.attributes().unwrap()["Policy"]).unwrap()
}

#[test]
fn a_topic_is_mended_whatever_is_done_to_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-topic").await;
        let key = &pager_key("d1");
        let (oncall, gone) = ("oncall@vsu.example", "gone@vsu.example");
        tenant.secret("pager", "key", key).await;
        let mut spec = paged(tenant.usual_spec());
        spec["notify"]["critical"]["emails"] = json!([oncall, gone]);
        let site = Site::in_place(tenant, spec).await;
        let tenant = &site.tenant;
        let namespace = &tenant.namespace;
        state(tenant, oncall, SubscriptionState::Pending).await;
        let (_, right) = errors(tenant).await;
        let topic = right.alarm_actions()[0].as_str();

        // A reader confirms.
        for address in [oncall, gone] {
            world.aws.confirm_mail(topic, address).await.unwrap();
        }
        let mark = world.aws.mark();
        let well = tenant.delivery("Delivering").await;
        Look::topic(topic, 0).in_time(tenant, mark, Timestamp::now(), "both confirmed");
        let mut all = well.status.as_ref().unwrap().subscriptions.iter();
        assert!(all.all(|one| one.state == SubscriptionState::Confirmed));
        tenant.healthy().await;
        // One of them leaves by the link at the foot of a mail, for good.
        let left = world.aws.unsubscribe_mail(topic, gone, Unsubscribed::Gone);
        left.await.unwrap();
        state(tenant, gone, SubscriptionState::Gone).await;

        let sns = tenant.sns();
        let declared = policy(tenant, topic).await;
        let url = tenant.pager_url(key);
        let pager = subscriptions(tenant, topic).await.remove(&url).unwrap();
        let open = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sns:Publish","Resource":"*"}]}"#;
        let short = topic.rsplit(':').next().unwrap();
        let damages = [
            Damage {
                what: "policy replaced",
                done: async {
                    let set = sns.set_topic_attributes().topic_arn(topic);
                    let set = set.attribute_name("Policy").attribute_value(open);
                    drop(set.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 1),
                says: vec![
                    format!("topic {short}: policy.Statement[0]"),
                    "policy.Statement[0].Principal.AWS was *".into(),
                ],
                note: format!("changed topic {short}: policy.Statement[0]"),
            },
            Damage {
                what: "encrypted",
                done: async {
                    let set = sns.set_topic_attributes().topic_arn(topic);
                    let set = set.attribute_name("KmsMasterKeyId");
                    let set = set.attribute_value("alias/aws/sns");
                    drop(set.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 1),
                says: vec![format!(
                    "topic attribute {short} KmsMasterKeyId: value was alias/aws/sns, wanted unset"
                )],
                note: format!(
                    "changed topic attribute {short} KmsMasterKeyId: value alias/aws/sns"
                ),
            },
            Damage {
                what: "subscription removed",
                done: async {
                    let end = sns.unsubscribe().subscription_arn(&pager);
                    drop(end.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 2),
                says: vec![
                    "subscription critical http hmac:".into(),
                    "was missing".into(),
                ],
                note: "created 1 subscription (critical http hmac:".into(),
            },
            Damage {
                what: "deleted",
                done: async {
                    drop(sns.delete_topic().topic_arn(topic).send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 2),
                says: vec![
                    format!("topic {short} was missing"),
                    format!("subscription critical email {oncall} was missing"),
                ],
                note: format!("created 1 topic ({short}), created 2 subscriptions ("),
            },
        ];
        let count = damages.len();
        for damage in damages {
            let (what, before) = (damage.what, invited(tenant));
            is_mended::<TenantObservability>(&site, namespace, damage).await;
            assert_eq!(policy(tenant, topic).await, declared, "{what}");
            let again = match what {
                "policy replaced" | "encrypted" => 0,
                "subscription removed" => 1,
                _ => {
                    // With a topic those who heard it go; whoever has left before stays away.
                    state(tenant, oncall, SubscriptionState::Pending).await;
                    world.aws.confirm_mail(topic, oncall).await.unwrap();
                    state(tenant, gone, SubscriptionState::Gone).await;
                    2
                }
            };
            state(tenant, oncall, SubscriptionState::Confirmed).await;
            assert_eq!(invited(tenant) - before, again, "{what}");
            eventually("the pager to be subscribed", || async {
                match subscriptions(tenant, topic).await.remove(&url) {
                    Some(arn) if arn.starts_with("arn:") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            is_as_before(tenant, what, &right).await;
        }
        tenant
            .tenant_until("all but one to be confirmed", |tenant| {
                let mut all = tenant
                    .status
                    .iter()
                    .flat_map(|status| &status.subscriptions);
                all.all(|one| one.endpoint == gone || one.state == SubscriptionState::Confirmed)
            })
            .await;
        tenant.polls(world.aws.mark(), 2).await;
        tenant.is_quiet("when all is repaired").await;
        let repaired = events::<TenantObservability>(tenant, namespace, "DriftRepaired").await;
        assert_eq!(repaired.len(), count, "one Event for one damage");
        let others = events::<AlarmSet>(tenant, "golden", "DriftRepaired").await;
        assert_eq!(others.len(), 0, "the set is another resource");
    });
}

#[test]
fn topics_of_somebodys_own_hear_the_alarms_and_are_never_touched() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-topics").await;
        let sns = tenant.sns();
        let create = async |name: &str| {
            let created = sns.create_topic().name(name).send().await.unwrap();
            created.topic_arn.unwrap()
        };
        let there = create("pager").await;
        let subscribe = sns.subscribe().topic_arn(&there).protocol("email");
        subscribe
            .endpoint("somebody@vsu.example")
            .send()
            .await
            .unwrap();
        let declared = policy(&tenant, &there).await;
        let absent = there.replace(":pager", ":absent");
        let with = |topics: &[&String]| {
            let mut spec = tenant.usual_spec();
            spec["notify"]["critical"] = json!({"topicArns": topics});
            spec
        };
        declare(&tenant, with(&[&there, &absent])).await;
        let _operator = operator(&tenant, &[]).await;
        let missing = tenant.delivery("TopicMissing").await;
        let told = missing.condition("DeliveryReady").unwrap();
        assert!(
            told.message.contains(&absent) && !told.message.contains(&there),
            "{told:?}"
        );
        assert!(
            missing.holds("Ready"),
            "the tenant's own things are in place"
        );
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let ours = critical_topic(&tenant).await;
        let (name, _) = errors(&tenant).await;
        let heard = async |wanted: &[&String]| {
            let mut wanted: Vec<_> = wanted.iter().map(|arn| (*arn).clone()).collect();
            wanted.sort();
            let wanted = &wanted;
            eventually("the topics that hear it", || async {
                let alarm = tenant.alarms().await.remove(&name).unwrap();
                let sorted = |arns: &[String]| {
                    let mut arns = arns.to_vec();
                    arns.sort();
                    arns
                };
                let (alarms, oks) = (sorted(alarm.alarm_actions()), sorted(alarm.ok_actions()));
                if alarms == *wanted && oks == *wanted {
                    Ok(())
                } else {
                    Err(format!("{alarms:?} {oks:?}"))
                }
            })
            .await;
        };
        heard(&[&ours, &there, &absent]).await;

        // It comes, and goes again.
        assert_eq!(create("absent").await, absent);
        let mark = world.aws.mark();
        tenant.delivery("Delivering").await;
        Look::topic(&absent, 0).in_time(&tenant, mark, Timestamp::now(), "it comes");
        sns.delete_topic().topic_arn(&there).send().await.unwrap();
        let mark = world.aws.mark();
        let missing = tenant.delivery("TopicMissing").await;
        Look::topic(&there, 0).in_time(&tenant, mark, Timestamp::now(), "it goes");
        let told = missing.condition("DeliveryReady").unwrap();
        assert!(told.message.contains(&there), "{told:?}");
        heard(&[&ours, &there, &absent]).await;
        create("pager").await;
        subscriptions(&tenant, &there).await;
        tenant.delivery("Delivering").await;

        // One is taken out; then all goes.
        tenant.tenant(with(&[&there])).await;
        heard(&[&ours, &there]).await;
        tenant.delete::<AlarmSet>("golden").await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
        let mut left = tenant.topics().await;
        left.sort();
        assert_eq!(left, [absent.clone(), there.clone()]);
        assert_eq!(policy(&tenant, &there).await, declared);
        let written = world.aws.calls().into_iter().filter(|call| {
            call.write && (call.resource.starts_with(&there) || call.resource.starts_with(&absent))
        });
        assert_eq!(written.count(), 0, "no write to a topic of somebody's own");
    });
}
