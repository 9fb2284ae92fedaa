//! Rules, and the patterns of events that they are for.

use serde::Deserialize;

use super::{
    Checked, DESCRIPTION, Refusal, at_most,
    by_name::{Tag, tags},
    name, one_of, required, role,
};

/// The model takes 4096 bytes of a pattern, the quota of an account half of that.
const PATTERN: (usize, usize) = (4096, 2048);

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Test {
    event_pattern: Option<String>,
    event: Option<String>,
}

impl Test {
    pub(super) fn check(&self) -> Checked {
        required("event", self.event.as_deref())?;
        pattern(required("eventPattern", self.event_pattern.as_deref())?)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Rule {
    name: Option<String>,
    description: Option<String>,
    event_pattern: Option<String>,
    state: Option<String>,
    role_arn: Option<String>,
    tags: Vec<Tag>,
}

impl Rule {
    pub(super) fn check(&self) -> Checked {
        name("name", self.name.as_deref())?;
        at_most("description", self.description.as_deref(), DESCRIPTION)?;
        one_of(
            "state",
            self.state.as_deref(),
            &[
                "ENABLED",
                "DISABLED",
                "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS",
            ],
        )?;
        role(self.role_arn.as_deref())?;
        tags(&self.tags)?;
        self.event_pattern.as_deref().map_or(Ok(()), pattern)
    }
}

fn pattern(text: &str) -> Checked {
    let (model, quota) = PATTERN;
    at_most("eventPattern", Some(text), model)?;
    if text.len() > quota {
        return Err(Refusal {
            code: "LimitExceededException",
            message: format!("Event pattern exceeds the quota of {quota} characters."),
        });
    }
    Ok(())
}
