//! Those who are to hear by mail are invited by AWS, and click on the link in the mail.

use anyhow::Result;
use serde_json::Value;

use crate::demo::Demo;
use crate::sabotage::Sabotage;

/// An invitation: to which topic, and whom.
type Invitation = (String, String);

/// Waits until AWS has invited everybody whom the tenant's spec names, and has each of them accept.
pub async fn confirmed(demo: &Demo<'_>) -> Result<()> {
    let tenant = demo.tenant();
    let object = [
        "get",
        "tobs",
        &tenant.name,
        "-n",
        &tenant.namespace,
        "-o",
        "json",
    ];
    let expected = format!("everybody is invited whom {} names", tenant.name);
    let all = demo
        .until(&expected, &object, |text| {
            invited(&serde_json::from_str(text).ok()?)
        })
        .await?;
    for (topic, reader) in all {
        if demo.breaks(Sabotage::Mail) {
            demo.screen
                .say(&format!("{reader} does not read the mail."));
            continue;
        }
        demo.world.aws.confirm_mail(&topic, &reader).await?;
        demo.screen.say(&format!(
            "{reader} clicks on the link in the mail from AWS."
        ));
    }
    Ok(())
}

/// Those whose invitation is under way, once all whom the spec names are invited.
fn invited(tenant: &Value) -> Option<Vec<Invitation>> {
    let entries = |list: &str| tenant["status"][list].as_array().map(Vec::as_slice);
    let (topics, subscriptions) = (entries("topics")?, entries("subscriptions")?);
    let mut all = Vec::new();
    for (severity, recipients) in tenant["spec"]["notify"].as_object()? {
        let topic = topics.iter().find(|topic| topic["severity"] == **severity);
        for reader in recipients["emails"].as_array().into_iter().flatten() {
            let pending = subscriptions.iter().any(|known| {
                let Value::String(endpoint) = reader else {
                    return false;
                };
                known["severity"] == **severity
                    && known["endpoint"] == **endpoint
                    && known["state"] == "Pending"
            });
            let topic = topic?["arn"].as_str().filter(|_| pending)?;
            all.push((topic.to_owned(), reader.as_str()?.to_owned()));
        }
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::invited;
    use serde_json::json;

    #[test]
    fn all_are_invited_or_nobody_is() {
        let tenant = |states: [&str; 2]| {
            json!({
                "spec": {"notify": {
                    "critical": {"emails": ["a@x.example"]}, "info": {}, "warning": {"emails": ["a@x.example"]}
                }},
                "status": {
                    "topics": [{"severity": "critical", "arn": "c"}, {"severity": "warning", "arn": "w"}],
                    "subscriptions": [
                        {"severity": "critical", "endpoint": "a@x.example", "state": states[0]},
                        {"severity": "warning", "endpoint": "a@x.example", "state": states[1]}
                    ]
                }
            })
        };
        let to = |topic: &str| (topic.to_owned(), "a@x.example".to_owned());
        let all = invited(&tenant(["Pending", "Pending"]));
        assert_eq!(all, Some(vec![to("c"), to("w")]));
        assert_eq!(invited(&tenant(["Pending", "Creating"])), None);
        assert_eq!(invited(&json!({"spec": {}, "status": {}})), None);
    }
}
