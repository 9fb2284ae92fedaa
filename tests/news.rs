//! Who hears of which change of an alarm's state, with SNS's filter policies.

use crate::support::{PATIENCE, Tenant, alarm, eventually, paged, pager_key, test};
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

        let comes_to = async |state: AlarmState, value: f64| {
            for metric in ["errors", "slow"] {
                tenant.emit(metric, "app-prod", value, 1).await;
            }
            world
                .aws
                .evaluate_alarms(Some(&tenant.account))
                .await
                .unwrap();
            let right = |set: &AlarmSet| {
                let mut all = set.status.iter().flat_map(|status| &status.alarms);
                all.all(|alarm| alarm.state == Some(state))
            };
            tenant.until("golden", &format!("{state}"), right).await;
        };
        comes_to(AlarmState::Ok, 1.0).await;
        for name in &names {
            assert_eq!(mails(&tenant, &topic, name).await, [""; 0], "{name}");
        }
        comes_to(AlarmState::Alarm, 99.0).await;
        comes_to(AlarmState::Ok, 1.0).await;
        for name in &names {
            let told = ["OK ALARM", "ALARM OK"];
            eventually("what a reader of mail is told", || async {
                match mails(&tenant, &topic, name).await {
                    mails if mails == told => Ok(()),
                    mails => Err(format!("{mails:?}")),
                }
            })
            .await;
            // Where no incident is open, the first OK closes none; no other message came before the alarm.
            let heard = || world.pagerduty.received(key).into_iter();
            let heard = || heard().filter(|it| it.alarm_name == *name);
            world
                .pagerduty
                .wait_for(key, name, "ALARM", PATIENCE)
                .await
                .unwrap();
            eventually("the pager to hear the end", || async {
                let told: Vec<_> = heard()
                    .map(|it| format!("{} {}", it.old_state, it.new_state))
                    .collect();
                let right = ["INSUFFICIENT_DATA OK", "OK ALARM", "ALARM OK"];
                match told == right {
                    true => Ok(()),
                    false => Err(format!("{told:?}")),
                }
            })
            .await;
        }
    });
}
