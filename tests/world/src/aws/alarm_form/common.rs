//! What all alarms have: a name, a description, actions and the tags that go with them.

use serde::Deserialize;

use super::{Checked, constraint, length};

/// The services that an alarm can act through.
const ACTED_THROUGH: [&str; 9] = [
    "sns",
    "ec2",
    "automate",
    "autoscaling",
    "ssm",
    "ssm-incidents",
    "ssm-contacts",
    "lambda",
    "aiops",
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Common {
    alarm_name: Option<String>,
    alarm_description: Option<String>,
    alarm_actions: Vec<String>,
    #[serde(rename = "OKActions")]
    ok_actions: Vec<String>,
    insufficient_data_actions: Vec<String>,
    action_configuration: Option<ActionConfiguration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ActionConfiguration {
    alarm_tags_propagation: Option<TagsPropagation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TagsPropagation {
    enabled: Option<bool>,
    included_tag_keys: Option<Vec<String>>,
    excluded_tag_keys: Option<Vec<String>>,
}

impl TagsPropagation {
    fn check(&self) -> Checked {
        if self.enabled.is_none() {
            return Err("The parameter Enabled is required".to_owned());
        }
        if self.included_tag_keys.is_some() && self.excluded_tag_keys.is_some() {
            return Err(
                "IncludedTagKeys and ExcludedTagKeys cannot be specified together".to_owned(),
            );
        }
        let lists = [
            ("includedTagKeys", &self.included_tag_keys),
            ("excludedTagKeys", &self.excluded_tag_keys),
        ];
        for (field, keys) in lists {
            let Some(keys) = keys else { continue };
            if !(1..=50).contains(&keys.len()) {
                return Err(constraint(
                    field,
                    "[..]",
                    "Member must have length between 1 and 50",
                ));
            }
            for key in keys {
                length(field, Some(key), 1, 128)?;
            }
        }
        Ok(())
    }
}

impl Common {
    pub(super) fn check(&self, region: &str) -> Checked {
        let name = self.alarm_name.as_deref();
        length("alarmName", name, 1, 255)?;
        let name = name.unwrap_or_default();
        if name.chars().any(|character| character.is_ascii_control()) {
            return Err(constraint(
                "alarmName",
                name,
                "Member must not contain ASCII control characters",
            ));
        }
        if let Some(description) = &self.alarm_description {
            length("alarmDescription", Some(description), 0, 1024)?;
        }
        let configuration = self.action_configuration.as_ref();
        if let Some(tags) = configuration.and_then(|each| each.alarm_tags_propagation.as_ref()) {
            tags.check()?;
        }
        let lists = [
            ("alarmActions", &self.alarm_actions),
            ("oKActions", &self.ok_actions),
            ("insufficientDataActions", &self.insufficient_data_actions),
        ];
        for (field, actions) in lists {
            if actions.len() > 5 {
                return Err(constraint(
                    field,
                    &format!("{actions:?}"),
                    "Member must have length less than or equal to 5",
                ));
            }
            for (index, action) in actions.iter().enumerate() {
                action_arn(action, region)?;
                if actions.iter().take(index).any(|earlier| earlier == action) {
                    return Err(format!("Duplicate action in {field}: {action}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn actions(&self) -> impl Iterator<Item = &String> {
        self.alarm_actions
            .iter()
            .chain(&self.ok_actions)
            .chain(&self.insufficient_data_actions)
    }
}

fn action_arn(arn: &str, region: &str) -> Checked {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, service, arn_region, _, resource] = parts[..] else {
        return Err(format!("Invalid arn syntax: {arn}"));
    };
    if arn.len() > 1024
        || !partition.starts_with("aws")
        || resource.is_empty()
        || !ACTED_THROUGH.contains(&service)
    {
        return Err(format!("Invalid arn syntax: {arn}"));
    }
    if service == "sns" && arn_region != region {
        return Err(format!(
            "Invalid region {arn_region} specified. Only {region} is supported."
        ));
    }
    Ok(())
}
