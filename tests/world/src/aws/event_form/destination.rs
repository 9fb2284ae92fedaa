//! API destinations: what is called outside AWS, how, and how often.

use serde::Deserialize;

use super::{
    Checked, at_most, constraint, description, invalid, is_name, name, one_of, pattern_of,
    required, resource,
};

const METHODS: [&str; 7] = ["POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Destination {
    name: Option<String>,
    description: Option<String>,
    connection_arn: Option<String>,
    invocation_endpoint: Option<String>,
    http_method: Option<String>,
    invocation_rate_limit_per_second: Option<i64>,
}

impl Destination {
    pub(super) fn check(&self, creating: bool) -> Checked {
        name("name", self.name.as_deref())?;
        description(self.description.as_deref())?;
        if creating {
            required("connectionArn", self.connection_arn.as_deref())?;
            required("invocationEndpoint", self.invocation_endpoint.as_deref())?;
            required("httpMethod", self.http_method.as_deref())?;
        }
        if let Some(arn) = &self.connection_arn
            && !is_connection(arn)
        {
            return Err(pattern_of(
                "connectionArn",
                arn,
                "^arn:aws([a-z]|\\-)*:events:([a-z]|\\d|\\-)*:([0-9]{12})?:connection\\/[\\.\\-_A-Za-z0-9]+\\/[\\-A-Za-z0-9]+$",
            ));
        }
        one_of("httpMethod", self.http_method.as_deref(), &METHODS)?;
        if let Some(rate) = self.invocation_rate_limit_per_second
            && rate < 1
        {
            return Err(constraint(
                "invocationRateLimitPerSecond",
                &rate.to_string(),
                "Member must have value greater than or equal to 1",
            ));
        }
        self.invocation_endpoint.as_deref().map_or(Ok(()), endpoint)
    }
}

/// AWS calls by https alone. What listens in the test world does so on loopback, without.
fn endpoint(url: &str) -> Checked {
    at_most("invocationEndpoint", Some(url), 2048)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"%-()_.!~*';/?:@&=+$,".contains(&byte);
    let whole = url.bytes().all(legal);
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let reachable = match scheme {
        "https" => !host.is_empty(),
        "http" => ["127.0.0.1", "localhost"].contains(&host),
        _ => false,
    };
    if whole && reachable && !authority.contains('@') {
        Ok(())
    } else {
        Err(invalid(
            "Parameter InvocationEndpoint is not valid. Reason: Must be an HTTPS endpoint."
                .to_owned(),
        ))
    }
}

fn is_connection(arn: &str) -> bool {
    let Some(resource) = resource(arn, "events") else {
        return false;
    };
    let parts: Vec<&str> = resource.split('/').collect();
    let ["connection", name, id] = parts[..] else {
        return false;
    };
    let uuid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    is_name(name) && !id.is_empty() && id.bytes().all(uuid)
}
