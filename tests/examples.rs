//! What is committed is what works.

use crate::support::{root, test};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("examples")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn documents() -> Vec<Value> {
    let read = |file: &PathBuf| -> Vec<Value> {
        serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    files().iter().flat_map(read).collect()
}

#[test]
fn the_golden_signals_are_sixteen_alarms() {
    let text = std::fs::read_to_string(root().join("examples/20-vsu-golden-signals.yaml")).unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.trim_start().starts_with("- name:"))
            .count(),
        16
    );
}

/// Critical wakes somebody and is in Slack, warning is in Slack and in the mail, info is in Slack alone; and each channel is declared
/// in the tenant's own Namespace.
#[test]
fn each_severity_goes_where_it_should() {
    let documents = documents();
    let of_kind = |kind: &str| -> Vec<&Value> {
        let all = documents.iter();
        all.filter(|document| document["kind"] == kind).collect()
    };
    let tenants = of_kind("TenantObservability");
    let vsu = tenants.iter().find(|it| it["metadata"]["name"] == "vsu");
    let vsu = vsu.unwrap();
    let notify = &vsu["spec"]["notify"];
    let heard = |severity: &str| -> BTreeSet<&str> {
        let recipients = notify[severity].as_object().unwrap();
        recipients.keys().map(String::as_str).collect()
    };
    assert_eq!(heard("critical"), ["pagerDuty", "slack"].into());
    assert_eq!(heard("warning"), ["emails", "slack"].into());
    assert_eq!(heard("info"), ["slack"].into());

    let declared: BTreeSet<_> = of_kind("SlackChannel")
        .into_iter()
        .filter(|channel| channel["metadata"]["namespace"] == vsu["metadata"]["namespace"])
        .map(|channel| channel["metadata"]["name"].as_str().unwrap())
        .collect();
    let recipients = ["critical", "warning", "info"].map(|severity| &notify[severity]["slack"]);
    let named: BTreeSet<_> = recipients
        .into_iter()
        .flat_map(|slack| slack.as_array().unwrap())
        .map(|recipient| recipient["channelRef"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(named, declared);
}

/// By a webhook, and by a bot of the tenant's own: both ways in are shown, and none is the operator's.
#[test]
fn both_ways_into_slack_are_shown() {
    let documents = documents();
    let channels = documents.iter().filter(|it| it["kind"] == "SlackChannel");
    let ways: Vec<_> = channels
        .map(|channel| {
            let spec = &channel["spec"];
            let has = |field: &str| spec[field].is_object();
            (
                spec["channel"].clone(),
                has("webhookSecretRef"),
                has("tokenSecretRef"),
            )
        })
        .collect();
    let expected = [
        (json!("vsu_alerts"), true, true),
        (json!("vsu_workflow_runs"), false, true),
    ];
    assert_eq!(ways, expected);
}

/// Whoever applies the folder again must not put a made-up secret over the real one.
#[test]
fn no_example_holds_a_secret_of_slack() {
    let documents = documents();
    let named: BTreeSet<_> = documents
        .iter()
        .filter(|document| document["kind"] == "SlackChannel")
        .flat_map(|channel| ["tokenSecretRef", "webhookSecretRef"].map(|it| &channel["spec"][it]))
        .filter_map(|reference| reference["name"].as_str())
        .collect();
    assert!(!named.is_empty());
    for secret in documents.iter().filter(|it| it["kind"] == "Secret") {
        let name = secret["metadata"]["name"].as_str().unwrap();
        assert!(!named.contains(name), "{name}");
    }
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        // The commands in the comments end in an ellipsis where the secret follows.
        for start in ["xoxb-", "xoxp-", "hooks.slack.com/services/"] {
            let mut found = text.split(start).skip(1);
            assert!(
                found.all(|rest| rest.starts_with('…')),
                "{}: {start}",
                file.display()
            );
        }
    }
}

#[test]
fn every_example_is_accepted() {
    test(|world| async move {
        let files = files();
        assert!(files.len() >= 5);
        for file in files {
            world
                .kubernetes
                .apply_path(&file)
                .await
                .unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        }
    });
}
