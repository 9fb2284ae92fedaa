//! Who hears of which change of an alarm's state, with SNS's filter policies.

use crate::support::{Tenant, alarm, eventually, once, paged, pager_key, test};
use aws_sdk_cloudwatch::types::StateValue;
use campanile::api::{AlarmSet, AlarmState};
use serde_json::{Value, json};

const ONCALL: &str = "oncall@vsu.example";

/// What a reader of mail was told of an alarm: `<state before> <state>`, one after the other.
async fn mails(tenant: &Tenant, topic: &str, alarm: &str) -> Vec<String> {
    let mails = tenant.world.aws.mails(topic, ONCALL).await.unwrap();
    let mails = mails
        .iter()
        .map(|mail| serde_json::from_str::<Value>(mail).unwrap());
    let told = mails.filter(|mail| mail["AlarmName"] == alarm).map(|mail| {
        let text = |field: &str| mail[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("OldStateValue"), text("NewStateValue"))
    });
    told.collect()
}

#[test]
fn the_first_good_data_of_new_alarms_is_no_news() {
    test(|world| async move {
        let tenant = Tenant::new(world, "news").await;
        let key = &pager_key("a1");
        tenant.secret("pager", "key", key).await;
        let mut spec = paged(tenant.usual_spec());
        spec["notify"]["critical"]["emails"] = json!([ONCALL]);
        tenant.tenant(spec).await;
        let missing = || json!({"treatMissingData": "missing"});
        let alarms = ["errors", "slow"].map(|name| alarm(name, "critical", missing()));
        tenant.golden(json!(alarms)).await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let alarms = tenant.alarms().await;
        let names: Vec<_> = alarms.keys().cloned().collect();
        let topic = alarms[&names[0]].alarm_actions()[0].clone();
        world.aws.confirm_mail(&topic, ONCALL).await.unwrap();
        tenant.delivering().await;

        for metric in ["errors", "slow"] {
            tenant.emit(metric, "app-prod", 1.0, 1).await;
        }
        let right = |set: &AlarmSet| {
            let mut all = set.status.iter().flat_map(|status| &status.alarms);
            all.all(|alarm| alarm.state == Some(AlarmState::Ok))
        };
        tenant.until("golden", "OK", right).await;
        for name in &names {
            assert_eq!(mails(&tenant, &topic, name).await, [""; 0], "{name}");
        }
        for state in [StateValue::Alarm, StateValue::Ok] {
            for name in &names {
                let set = tenant.cloudwatch().set_alarm_state().alarm_name(name);
                let set = set.state_value(state.clone()).state_reason("a test");
                set.send().await.unwrap();
            }
        }
        for name in &names {
            let told = ["OK ALARM", "ALARM OK"];
            eventually("what a reader of mail is told", || async {
                let mails = mails(&tenant, &topic, name).await;
                once(mails == told, mails)
            })
            .await;
            // Where no incident is open, the first OK closes none. SNS does not promise an order.
            let told = ["ALARM OK", "INSUFFICIENT_DATA OK", "OK ALARM"];
            eventually("what the pager is told", || async {
                let heard = world.pagerduty.received(key).into_iter();
                let heard = heard.filter(|it| it.alarm_name == *name);
                let heard = heard.map(|it| format!("{} {}", it.old_state, it.new_state));
                let mut heard: Vec<_> = heard.collect();
                heard.sort();
                once(heard == told, heard)
            })
            .await;
        }
    });
}
