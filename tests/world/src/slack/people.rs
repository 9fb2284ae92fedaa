//! The rules of who is who.

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::state::{Outcome, Team, Token};

fn answer(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(answer) => answer,
        _ => Map::new(),
    }
}

impl Team {
    pub(super) fn auth_test(&self, token: &Token) -> Outcome {
        Ok(answer(json!({
            "url": self.url(), "team": self.name, "user": self.name_of(&token.user), "team_id": self.id, "user_id": token.user,
            "bot_id": token.bot, "is_enterprise_install": false,
        })))
    }

    pub(super) fn team_info(&self, arguments: &Arguments) -> Outcome {
        if arguments.text("team").is_some_and(|team| team != self.id) {
            return Err("team_not_found".into());
        }
        let team = json!({
            "id": self.id, "name": self.name, "domain": self.domain, "url": self.url(), "email_domain": format!("{}.example", self.domain),
            "icon": {},
        });
        Ok(answer(json!({ "team": team })))
    }

    pub(super) fn lookup_by_email(&self, arguments: &Arguments) -> Outcome {
        let email = arguments.text_or_empty("email");
        let is_it = |each: &Option<String>| {
            each.as_deref()
                .is_some_and(|each| each.eq_ignore_ascii_case(email))
        };
        let user = self
            .users
            .values()
            .find(|user| !user.deactivated && is_it(&user.email))
            .ok_or("users_not_found")?;
        let user = json!({
            "id": user.id, "team_id": self.id, "name": user.name, "deleted": false, "is_bot": false,
            "profile": {"email": user.email, "real_name": user.name, "display_name": user.name},
        });
        Ok(answer(json!({ "user": user })))
    }
}
