//! Who hears of which change of an alarm's state: the one table from which SNS's filter policies and EventBridge's
//! patterns are made. Pure.

use crate::api::AlarmState;
use serde_json::{Value as Json, json};

/// Who hears of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Whoever reads mail.
    Mail,
    /// What opens and closes incidents.
    Pager,
    /// Whoever reads a channel in Slack.
    Slack,
}

/// The states that an alarm may have.
pub const STATES: [AlarmState; 3] = [
    AlarmState::Alarm,
    AlarmState::Ok,
    AlarmState::InsufficientData,
];

impl Listener {
    /// Those who are told that an alarm is now in the state `to`, by the states that it came from.
    ///
    /// People hear that it fires, and what became of that: every new alarm begins without data and comes to be OK,
    /// which is no news. A pager is told of that as well: SNS sees one step, and an alarm that fires, loses its data and
    /// gets well closes its incident by the last one. Where none is open, an OK opens none.
    pub fn hears_after(self, to: AlarmState) -> &'static [AlarmState] {
        use AlarmState::{Alarm, InsufficientData, Ok};
        match (self, to) {
            (_, Alarm) => &STATES,
            (Self::Pager, Ok) => &[Alarm, InsufficientData],
            (Self::Pager, InsufficientData) => &[],
            (Self::Mail | Self::Slack, Ok | InsufficientData) => &[Alarm],
        }
    }
}

impl Listener {
    /// The filter policy of a subscription, on the body of the message by which CloudWatch tells of a change.
    pub fn filter_policy(self) -> Json {
        let heard = STATES.into_iter().filter_map(|to| {
            let from = self.hears_after(to);
            let mut heard = json!({"NewStateValue": [to]});
            if from.len() < STATES.len() {
                heard["OldStateValue"] = json!(from);
            }
            (!from.is_empty()).then_some(heard)
        });
        // SNS takes it for an operator where it has two alternatives or more.
        json!({"$or": heard.collect::<Vec<_>>()})
    }

    /// What of EventBridge's event says that an alarm has come to the state `to`, under `detail`.
    pub fn event_pattern(self, to: AlarmState) -> Json {
        let from = self.hears_after(to);
        let mut detail = json!({"state": {"value": [to]}});
        if from.len() < STATES.len() {
            detail["previousState"] = json!({"value": from});
        }
        detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::aws::matches;

    /// Every change of state, and whether mail, pagers and Slack hear of it.
    #[test]
    fn each_hears_of_what_it_is_to_and_both_services_are_told_the_same() {
        use AlarmState::{Alarm, InsufficientData as NoData, Ok};
        for (from, to, mail, pager) in [
            (Alarm, Alarm, true, true),
            (Ok, Alarm, true, true),
            (NoData, Alarm, true, true),
            (Alarm, Ok, true, true),
            (Ok, Ok, false, false),
            (NoData, Ok, false, true),
            (Alarm, NoData, true, false),
            (Ok, NoData, false, false),
            (NoData, NoData, false, false),
        ] {
            let message = json!({"AlarmName": "a", "NewStateValue": to, "OldStateValue": from});
            let event =
                json!({"alarmName": "a", "state": {"value": to}, "previousState": {"value": from}});
            for (listener, heard) in [
                (Listener::Mail, mail),
                (Listener::Pager, pager),
                (Listener::Slack, mail),
            ] {
                let told = format!("{listener:?}: {from} → {to}");
                assert_eq!(listener.hears_after(to).contains(&from), heard, "{told}");
                assert_eq!(
                    matches(&listener.filter_policy(), &message),
                    heard,
                    "{told}"
                );
                let patterns = STATES.map(|to| listener.event_pattern(to));
                let met = STATES.iter().zip(patterns);
                let met = met.filter(|(to, _)| !listener.hears_after(**to).is_empty());
                let met = met.filter(|(_, pattern)| matches(pattern, &event)).count();
                assert_eq!(met, usize::from(heard), "{told}");
            }
        }
    }

    /// SNS shows a filter one step alone. Whatever way an alarm takes from ALARM to OK, its last step closes.
    #[test]
    fn no_way_from_alarm_to_ok_leaves_an_incident_open() {
        let others = |state: AlarmState| STATES.into_iter().filter(move |it| *it != state);
        for before in others(AlarmState::Ok) {
            assert!(
                Listener::Pager
                    .hears_after(AlarmState::Ok)
                    .contains(&before)
            );
        }
        for before in others(AlarmState::Alarm) {
            assert!(
                Listener::Pager
                    .hears_after(AlarmState::Alarm)
                    .contains(&before)
            );
        }
    }

    #[test]
    fn a_filter_policy_has_alternatives_as_sns_wants_them() {
        for listener in [Listener::Mail, Listener::Pager] {
            let policy = listener.filter_policy();
            assert!(policy["$or"].as_array().unwrap().len() >= 2, "{policy}");
            assert_eq!(policy.as_object().unwrap().len(), 1);
        }
        assert_eq!(
            Listener::Pager.filter_policy(),
            json!({"$or": [
                {"NewStateValue": ["ALARM"]},
                {"NewStateValue": ["OK"], "OldStateValue": ["ALARM", "INSUFFICIENT_DATA"]}
            ]})
        );
    }
}
