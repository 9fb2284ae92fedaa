//! What can be made to go wrong, one thing per step. The world or the operator is broken, never a check: that a check notices is
//! what is shown.

use std::str::FromStr;

use anyhow::bail;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    World,
    Operator,
    Trust,
    Channels,
    Mail,
    Binding,
    Alarm,
    Pager,
    Message,
    Recovery,
    Resolved,
    Drift,
    Plan,
    Edit,
    Leftovers,
    Return,
}

impl Sabotage {
    /// All of them, in the order of the steps.
    pub const ALL: [Self; 16] = [
        Self::World,
        Self::Operator,
        Self::Trust,
        Self::Channels,
        Self::Mail,
        Self::Binding,
        Self::Alarm,
        Self::Pager,
        Self::Message,
        Self::Recovery,
        Self::Resolved,
        Self::Drift,
        Self::Plan,
        Self::Edit,
        Self::Leftovers,
        Self::Return,
    ];

    /// What CAMPANILE_DEMO_BREAK calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Operator => "operator",
            Self::Trust => "trust",
            Self::Channels => "channels",
            Self::Mail => "mail",
            Self::Binding => "binding",
            Self::Alarm => "alarm",
            Self::Pager => "pager",
            Self::Message => "message",
            Self::Recovery => "recovery",
            Self::Resolved => "resolved",
            Self::Drift => "drift",
            Self::Plan => "plan",
            Self::Edit => "edit",
            Self::Leftovers => "leftovers",
            Self::Return => "return",
        }
    }

    /// What goes wrong.
    pub fn what(self) -> &'static str {
        match self {
            Self::World => "the API server is killed as soon as it is up",
            Self::Operator => "the operator's RoleBinding is missing",
            Self::Trust => "the tenants' roles trust another ExternalId",
            Self::Channels => "the Slack app may not make channels",
            Self::Mail => "nobody reads mail",
            Self::Binding => "the other Namespace is bound to the account after all",
            Self::Alarm => "the failures are those of another deployment",
            Self::Pager => "PagerDuty is unsubscribed and confirms nothing any more",
            Self::Message => "the role is gone by which EventBridge calls Slack",
            Self::Recovery => "chat goes on failing",
            Self::Resolved => "the webhook is deleted before the alarm is over",
            Self::Drift => "the operator is stopped before the alarm is deleted",
            Self::Plan => "a second edit slips in beside the one",
            Self::Edit => "the operator may not put alarms any more",
            Self::Leftovers => "the operator may not delete alarms any more",
            Self::Return => "PagerDuty confirms nothing when the tenant comes back",
        }
    }
}

impl FromStr for Sabotage {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let Some(found) = Self::ALL.into_iter().find(|each| each.name() == name) else {
            bail!(
                "CAMPANILE_DEMO_BREAK={name} is nothing that can be broken; what can be: {}",
                Self::ALL.map(Self::name).join(", ")
            );
        };
        Ok(found)
    }
}
