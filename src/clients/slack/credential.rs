//! Bot tokens and webhook URLs as Secrets hold them: their form, and the scopes that a token needs. Pure.

use crate::clients::secret::Secret;
use reqwest::Url;
use std::collections::BTreeSet;

/// The most characters of a token or a webhook's URL; Slack's own have less than a hundred.
const LONGEST: usize = 500;

/// Where Slack's incoming webhooks are.
const HOSTS: [&str; 2] = ["hooks.slack.com", "hooks.slack-gov.com"];

/// A bot token, spaces around it removed. The error says what is wrong and never quotes the text.
pub fn bot_token(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    let kind = text.split_once('-').map(|(kind, _)| kind);
    let wrong = match kind {
        _ if text.is_empty() => "it is empty",
        Some("xoxb") if text.len() > LONGEST => "it is longer than 500 characters",
        Some("xoxb") if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "it has characters in it that no token has: spaces, line breaks, or others than ASCII's"
        }
        Some("xoxb") if text == "xoxb-" => "nothing follows its xoxb-",
        Some("xoxb") => return Ok(Secret::new(text.to_owned())),
        Some("xoxp") => {
            "it is a user token (xoxp-…), which acts as a person, with all that they may do"
        }
        Some("xapp") => {
            "it is an app-level token (xapp-…), which can neither manage channels nor post"
        }
        Some(kind) if kind.starts_with("xoxe") => {
            "it belongs to an app with token rotation (xoxe…), whose tokens end after hours: switch that off"
        }
        _ => "it does not begin with xoxb-",
    };
    Err(format!(
        "this is no bot token of Slack: {wrong}; take the Bot User OAuth Token (xoxb-…) from the app's page OAuth & Permissions"
    ))
}

/// The URL of an incoming webhook, in its normal form. Only Slack's own, unless `allow_private` says that
/// there are others. The error says what is wrong and never quotes the text.
pub fn webhook_url(text: &str, allow_private: bool) -> Result<Secret, String> {
    let text = text.trim();
    let url = Url::parse(text);
    let wrong = match &url {
        _ if text.is_empty() => "it is empty",
        _ if text.len() > LONGEST => "it is longer than 500 characters",
        // What a URL's parser would quietly drop, or read otherwise than the next one does.
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('\\') => {
            "it has characters in it that no URL has: spaces, line breaks, backslashes"
        }
        Err(_) => "it is no URL",
        Ok(url) => match wrong_with(url, allow_private) {
            Some(wrong) => wrong,
            None => return Ok(Secret::new(url.to_string())),
        },
    };
    Err(format!(
        "this is no URL of an incoming webhook of Slack: {wrong}; it looks like https://hooks.slack.com/services/T…/B…/…"
    ))
}

fn wrong_with(url: &Url, allow_private: bool) -> Option<&'static str> {
    let Some(host) = url.host_str() else {
        return Some("it names no host");
    };
    let is_slacks = HOSTS.contains(&host.trim_end_matches('.'));
    let path: Vec<_> = url.path().split('/').skip(1).collect();
    let is_part =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Some(match (url.scheme(), &path[..]) {
        _ if !url.username().is_empty() || url.password().is_some() => {
            "it has a user or a password before its host"
        }
        ("http" | "https", _) if !is_slacks && allow_private => return None,
        ("http" | "https", _) if !is_slacks => "its host is not hooks.slack.com",
        (scheme, _) if scheme != "https" => "it does not begin with https://",
        _ if host.ends_with('.') => "its host ends in a dot",
        _ if url.port().is_some() => "it names a port",
        _ if url.query().is_some() || url.fragment().is_some() => "something follows its path",
        (_, ["services", parts @ ..]) if parts.len() == 3 && parts.iter().all(is_part) => {
            return None;
        }
        (_, ["workflows" | "triggers", ..]) => {
            "it starts a workflow, which takes the variables of that workflow and no messages: add an incoming webhook to an app instead"
        }
        (_, ["services", ..]) => "after /services/ come three parts of letters and digits",
        _ => "its path does not begin with /services/",
    })
}

/// The scopes to ask for so that all is granted that is needed: each need is met by any one of its scopes,
/// and where none is granted, the first of them is told. Empty if nothing is missing.
pub fn missing_scopes<'a>(granted: &BTreeSet<String>, needed: &[&[&'a str]]) -> Vec<&'a str> {
    let mut missing: Vec<&str> = Vec::new();
    for need in needed {
        let is_met = |scope: &&str| granted.contains(*scope) || missing.contains(scope);
        match need.first() {
            Some(first) if !need.iter().any(is_met) => missing.push(first),
            _ => {}
        }
    }
    missing
}
