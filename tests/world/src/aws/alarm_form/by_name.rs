//! Requests about alarms that are there: which, by name, and what is to be done with them.

use serde::Deserialize;

use super::{Checked, at_most, length, one_of, required};

const STATES: [&str; 3] = ["OK", "ALARM", "INSUFFICIENT_DATA"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Describe {
    alarm_names: Vec<String>,
    alarm_name_prefix: Option<String>,
    children_of_alarm_name: Option<String>,
    parents_of_alarm_name: Option<String>,
    action_prefix: Option<String>,
    state_value: Option<String>,
    alarm_types: Vec<String>,
}

impl Describe {
    pub(super) fn check(&self) -> Checked {
        names(&self.alarm_names)?;
        one_of("stateValue", self.state_value.as_deref(), &STATES)?;
        for kind in &self.alarm_types {
            one_of(
                "alarmTypes",
                Some(kind),
                &["MetricAlarm", "CompositeAlarm", "LogAlarm"],
            )?;
        }
        if !self.alarm_names.is_empty() && self.alarm_name_prefix.is_some() {
            return Err(
                "AlarmNamePrefix and AlarmNames cannot be specified at the same time".to_owned(),
            );
        }
        // The emulator would ignore these and answer with every alarm.
        if self.children_of_alarm_name.is_some()
            || self.parents_of_alarm_name.is_some()
            || self.action_prefix.is_some()
        {
            return Err(
                "the test world answers no ChildrenOfAlarmName, ParentsOfAlarmName or ActionPrefix"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Names {
    alarm_names: Vec<String>,
}

impl Names {
    pub(super) fn check(&self) -> Checked {
        names(&self.alarm_names)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SetState {
    alarm_name: Option<String>,
    state_value: Option<String>,
    state_reason: Option<String>,
}

impl SetState {
    pub(super) fn check(&self) -> Checked {
        length("alarmName", self.alarm_name.as_deref(), 1, 255)?;
        length("stateReason", self.state_reason.as_deref(), 0, 1023)?;
        one_of(
            "stateValue",
            Some(required("StateValue", self.state_value.as_deref())?),
            &STATES,
        )
    }
}

fn names(names: &[String]) -> Checked {
    at_most("alarmNames", names.len(), 100)?;
    names
        .iter()
        .try_for_each(|name| length("alarmNames", Some(name), 1, 255))
}
