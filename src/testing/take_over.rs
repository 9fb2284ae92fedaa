//! A cluster that is rebuilt and takes over what its former self made.

use super::{
    Operator, World,
    alarm_sets::{alarms, tenant},
    operator::NAMESPACE,
};
use crate::{
    api::{AlarmSet, TAKE_OVER_FROM, TenantObservability},
    kinds::installation::Installation,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

const UID: &str = "11111111";

fn apply(world: &World) {
    world.secret(
        "webhook",
        "url",
        "https://hooks.slack.com/services/T0/B0/secret",
    );
    let webhook = json!({"webhookSecretRef": {"name": "webhook", "key": "url"}, "suspend": true});
    world.apply("SlackChannel", "alerts", webhook);
    let mut tenant = tenant();
    tenant["notify"]["warning"]["slack"] = json!([{"channelRef": {"name": "alerts"}}]);
    world.apply("TenantObservability", "vsu", tenant);
    let set = alarms(&[("errors", 1.0), ("latency", 2.0)], json!({}));
    world.apply("AlarmSet", "golden", set);
}

/// All that is in AWS, and how often it has such a text.
fn marked(world: &World, text: &str) -> (BTreeMap<String, Json>, usize) {
    let things = world.aws.things("");
    let count = things.values().map(Json::to_string);
    let count = count.map(|thing| thing.matches(text).count()).sum();
    (things, count)
}

async fn look(world: &World, operator: &Operator) -> [String; 2] {
    let tenant = operator.reconcile::<TenantObservability>("vsu").await;
    let set = operator.reconcile::<AlarmSet>("golden").await;
    tenant.unwrap();
    set.unwrap();
    [
        world.condition::<TenantObservability>("vsu", "Ready"),
        world.condition::<AlarmSet>("golden", "Ready"),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_cluster_has_what_the_former_made_for_one_word() {
    let world = World::new();
    apply(&world);
    Operator::new(&world).converge().await;
    let former = Installation::sample().cluster;
    let (before, marks) = marked(&world, &former.to_string());
    assert!(marks >= 8, "{marks} in {before:#?}");

    let rebuilt = world.rebuilt(UID);
    apply(&rebuilt);
    let operator = Operator::new(&rebuilt);
    look(&rebuilt, &operator).await;
    assert_eq!(
        look(&rebuilt, &operator).await,
        ["False Conflict", "False Conflict"]
    );
    assert_eq!(rebuilt.aws.things(""), before, "nothing changes without it");
    let told = rebuilt
        .status::<AlarmSet>("golden", "/conditions")
        .to_string();
    let word = format!("annotates the Namespace with {TAKE_OVER_FROM}={former}");
    assert!(told.contains(&word), "{told}");

    rebuilt.annotate(TAKE_OVER_FROM, "another");
    assert_eq!(look(&rebuilt, &operator).await[1], "False InvalidSpec");
    assert_eq!(rebuilt.aws.things(""), before);

    rebuilt.annotate(TAKE_OVER_FROM, &former.to_string());
    rebuilt.calls.clear();
    operator.converge().await;
    let applied = ["True Applied", "True Applied"];
    assert_eq!(look(&rebuilt, &operator).await, applied);
    let (after, left) = marked(&rebuilt, &former.to_string());
    assert_eq!(left, 0, "{after:#?}");
    assert_eq!(marked(&rebuilt, UID).1, marks);
    assert!(after.keys().eq(before.keys()), "{after:#?}");
    for write in rebuilt.calls.writes() {
        let (call, _) = write.split_once(' ').unwrap();
        let gap = ["Delete", "Create", "Subscribe", "Remove"];
        let gap = gap.iter().any(|verb| call.contains(verb));
        assert!(!gap || !call.contains(':'), "{write}");
    }

    // From now on it is its own, with that word or without.
    rebuilt
        .cluster
        .edit::<k8s_openapi::api::core::v1::Namespace>("", NAMESPACE, |namespace| {
            namespace["metadata"]["annotations"][TAKE_OVER_FROM] = json!("");
        });
    rebuilt.calls.clear();
    assert_eq!(look(&rebuilt, &operator).await, applied);
    assert_eq!(rebuilt.calls.writes(), Vec::<String>::new());
    rebuilt.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    rebuilt
        .cluster
        .delete::<TenantObservability>(NAMESPACE, "vsu");
    operator.converge().await;
    assert_eq!(rebuilt.aws.things(""), BTreeMap::new());
}
