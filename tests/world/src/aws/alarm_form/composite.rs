//! An alarm over other alarms.

use serde::Deserialize;

use super::{Checked, common::Common, length};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CompositeAlarm {
    #[serde(flatten)]
    common: Common,
    alarm_rule: Option<String>,
    actions_suppressor: Option<String>,
    actions_suppressor_wait_period: Option<i64>,
    actions_suppressor_extension_period: Option<i64>,
}

impl CompositeAlarm {
    pub(super) fn check(&self, region: &str) -> Checked {
        self.common.check(region)?;
        length("alarmRule", self.alarm_rule.as_deref(), 1, 10_240)?;
        if self
            .common
            .actions()
            .any(|action| action.contains(":ec2:") || action.contains(":autoscaling:"))
        {
            return Err(
                "EC2 and Auto Scaling actions are not supported for composite alarms".to_owned(),
            );
        }
        let periods = self.actions_suppressor_wait_period.is_some()
            && self.actions_suppressor_extension_period.is_some();
        if self.actions_suppressor.is_some() && !periods {
            return Err("ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod are required with ActionsSuppressor".to_owned());
        }
        Ok(())
    }
}
