//! STS, answered by the proxy itself: it alone knows roles and sessions.

use jiff::{SignedDuration, Timestamp};

use super::answer::{Answer, Fault, escape, reply, request_id};
use super::identity::{Identities, Identity};
use super::request::Request;

/// `None` for what is not STS's identity business.
pub(super) fn answer(
    identities: &Identities,
    caller: &Identity,
    request: &Request,
) -> Option<Result<Answer, Fault>> {
    match request.operation.as_str() {
        "AssumeRole" => Some(assume_role(identities, caller, request)),
        "GetCallerIdentity" => {
            let Identity {
                account,
                arn,
                user_id,
            } = caller;
            let result = format!(
                "<Arn>{}</Arn><UserId>{}</UserId><Account>{account}</Account>",
                escape(arn),
                escape(user_id)
            );
            Some(Ok(xml("GetCallerIdentity", &result)))
        }
        _ => None,
    }
}

fn assume_role(
    identities: &Identities,
    caller: &Identity,
    request: &Request,
) -> Result<Answer, Fault> {
    let parameter = |name: &str| request.form.get(name).map(String::as_str);
    let name = parameter("RoleSessionName").unwrap_or_default();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if !(2..=64).contains(&name.len()) || !name.bytes().all(legal) {
        return Err(invalid(
            name,
            "roleSessionName",
            "Member must satisfy regular expression pattern: [\\w+=,.@-]*",
        ));
    }
    let seconds = parameter("DurationSeconds").unwrap_or("3600");
    let lifetime = seconds
        .parse()
        .ok()
        .filter(|seconds| (900..=43_200).contains(seconds));
    let lifetime = lifetime.ok_or_else(|| {
        invalid(
            seconds,
            "durationSeconds",
            "Member must have value between 900 and 43200",
        )
    })?;
    let external_id = parameter("ExternalId");
    if external_id.is_some_and(|id| id.len() < 2 || id.len() > 1224) {
        return Err(invalid(
            external_id.unwrap_or_default(),
            "externalId",
            "Member must have length between 2 and 1224",
        ));
    }
    let role_arn = parameter("RoleArn").unwrap_or_default();
    let session = identities.assume(
        caller,
        role_arn,
        name,
        external_id,
        SignedDuration::from_secs(lifetime),
        Timestamp::now(),
    )?;
    let result = format!(
        "<AssumedRoleUser><AssumedRoleId>{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser><Credentials><AccessKeyId>{}</AccessKeyId>\
         <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>{:.0}</Expiration></Credentials>",
        escape(&session.identity.user_id),
        escape(&session.identity.arn),
        session.access_key_id,
        session.secret_access_key,
        session.token,
        session.expires,
    );
    Ok(xml("AssumeRole", &result))
}

fn invalid(value: &str, field: &str, constraint: &str) -> Fault {
    let message = format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: {constraint}"
    );
    Fault::new(400, "ValidationError", message)
}

fn xml(operation: &str, result: &str) -> Answer {
    let body = format!(
        "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{operation}Result>{result}</{operation}Result>\
         <ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></{operation}Response>",
        request_id()
    );
    reply(200, "text/xml", body)
}
