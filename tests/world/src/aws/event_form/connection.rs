//! Connections: by which secret a thing outside AWS lets EventBridge in.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Checked, constraint, description, invalid, missing, name, one_of, pattern_of, required,
    too_short,
};

pub(super) const CREDENTIAL: usize = 512;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Connection {
    name: Option<String>,
    description: Option<String>,
    authorization_type: Option<String>,
    auth_parameters: Option<AuthParameters>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AuthParameters {
    api_key_auth_parameters: Option<ApiKey>,
    basic_auth_parameters: Option<Basic>,
    #[serde(rename = "OAuthParameters")]
    o_auth_parameters: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ApiKey {
    api_key_name: Option<String>,
    api_key_value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Basic {
    username: Option<String>,
    password: Option<String>,
}

impl Connection {
    pub(super) fn check(&self, creating: bool) -> Checked {
        name("name", self.name.as_deref())?;
        description(self.description.as_deref())?;
        let kind = self.authorization_type.as_deref();
        one_of(
            "authorizationType",
            kind,
            &["BASIC", "OAUTH_CLIENT_CREDENTIALS", "API_KEY"],
        )?;
        if creating {
            required("authorizationType", kind)?;
        }
        let Some(parameters) = &self.auth_parameters else {
            return if creating {
                Err(missing("authParameters"))
            } else {
                Ok(())
            };
        };
        let given = [
            ("API_KEY", parameters.api_key_auth_parameters.is_some()),
            ("BASIC", parameters.basic_auth_parameters.is_some()),
            (
                "OAUTH_CLIENT_CREDENTIALS",
                parameters.o_auth_parameters.is_some(),
            ),
        ];
        let mut given = given.iter().filter(|(_, given)| *given);
        let (first, more) = (given.next().map(|(kind, _)| *kind), given.next());
        let fits = match (kind, first) {
            (Some(kind), Some(first)) => kind == first,
            (Some(_), None) => !creating,
            (None, _) => true,
        };
        if more.is_some() || !fits {
            return Err(invalid(
                "Authorization parameters do not match the authorization type.".to_owned(),
            ));
        }
        let field = |field: &str| format!("authParameters.{field}");
        if let Some(key) = &parameters.api_key_auth_parameters {
            let (name, value) = (key.api_key_name.as_deref(), key.api_key_value.as_deref());
            credential(
                &field("apiKeyAuthParameters.apiKeyName"),
                name,
                creating,
                false,
            )?;
            credential(
                &field("apiKeyAuthParameters.apiKeyValue"),
                value,
                creating,
                true,
            )?;
        }
        if let Some(basic) = &parameters.basic_auth_parameters {
            let (user, password) = (basic.username.as_deref(), basic.password.as_deref());
            credential(
                &field("basicAuthParameters.username"),
                user,
                creating,
                false,
            )?;
            credential(
                &field("basicAuthParameters.password"),
                password,
                creating,
                true,
            )?;
        }
        Ok(())
    }
}

/// A secret is never repeated in what is said of it.
fn credential(field: &str, value: Option<&str>, needed: bool, secret: bool) -> Checked {
    let Some(text) = value else {
        return if needed { Err(missing(field)) } else { Ok(()) };
    };
    let shown = if secret {
        "***Sensitive Data Redacted***"
    } else {
        text
    };
    if text.is_empty() {
        return Err(too_short(field, shown));
    }
    if text.encode_utf16().count() > CREDENTIAL {
        return Err(constraint(
            field,
            shown,
            &format!("Member must have length less than or equal to {CREDENTIAL}"),
        ));
    }
    if text
        .chars()
        .any(|character| character == ':' || character != '\t' && character.is_ascii_control())
    {
        return Err(pattern_of(
            field,
            shown,
            "^[ \\t]*[^\\x00-\\x1F:\\x7F]+([ \\t]+[^\\x00-\\x1F:\\x7F]+)*[ \\t]*$",
        ));
    }
    Ok(())
}
