//! Requests that ask by name: for one thing, for a list, for tags.

use serde::Deserialize;

use super::{Checked, at_most, between, name, one_of, required, too_short};

const CONNECTION_STATES: [&str; 9] = [
    "CREATING",
    "UPDATING",
    "DELETING",
    "AUTHORIZED",
    "DEAUTHORIZED",
    "AUTHORIZING",
    "DEAUTHORIZING",
    "ACTIVE",
    "FAILED_CONNECTIVITY",
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Named {
    name: Option<String>,
}

impl Named {
    pub(super) fn check(&self) -> Checked {
        name("name", self.name.as_deref())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Listing {
    rule: Option<String>,
    name_prefix: Option<String>,
    connection_state: Option<String>,
    limit: Option<i64>,
    next_token: Option<String>,
}

impl Listing {
    pub(super) fn check(&self, of_a_rule: bool) -> Checked {
        if of_a_rule {
            name("rule", self.rule.as_deref())?;
        }
        if let Some(prefix) = &self.name_prefix {
            name("namePrefix", Some(prefix))?;
        }
        one_of(
            "connectionState",
            self.connection_state.as_deref(),
            &CONNECTION_STATES,
        )?;
        between("limit", self.limit, 1, 100)?;
        match self.next_token.as_deref() {
            Some("") => Err(too_short("nextToken", "")),
            token => at_most("nextToken", token, 2048),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Tag {
    key: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Tagging {
    #[serde(rename = "ResourceARN")]
    arn: Option<String>,
    tags: Vec<Tag>,
}

impl Tagging {
    pub(super) fn check(&self) -> Checked {
        required("resourceARN", self.arn.as_deref())?;
        tags(&self.tags)
    }
}

pub(super) fn tags(tags: &[Tag]) -> Checked {
    for tag in tags {
        if tag.key.is_empty() {
            return Err(too_short("tags.member.key", ""));
        }
        at_most("tags.member.key", Some(&tag.key), 128)?;
        at_most("tags.member.value", Some(&tag.value), 256)?;
    }
    Ok(())
}
