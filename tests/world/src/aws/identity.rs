//! Who calls: accounts, roles and the sessions that AssumeRole opened.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::OPERATOR_ACCOUNT;
use super::answer::Fault;

/// Under which conditions the operator's account may assume a role, and what the role may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The external id that the caller must give; `None` does not ask for one.
    pub external_id: Option<String>,
    /// The account in which the credentials land; the role's own unless a test wants them not to match.
    pub account: Option<String>,
    /// Whether the role may only read. A permission, not a condition of trust: it counts for open sessions too, at once.
    pub read_only: bool,
}

impl Trust {
    /// Trust that asks for this external id.
    pub fn external_id(external_id: impl Into<String>) -> Self {
        Self {
            external_id: Some(external_id.into()),
            ..Self::default()
        }
    }

    /// The same trust, with credentials that land in another account.
    pub fn landing_in(self, account: impl Into<String>) -> Self {
        Self {
            account: Some(account.into()),
            ..self
        }
    }

    /// The same trust in a role that may only read: every operation that writes is denied, as the service it goes to denies.
    pub fn read_only(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }
}

/// A caller that was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) account: String,
    pub(super) arn: String,
    pub(super) user_id: String,
}

/// Credentials that AssumeRole issued.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) token: String,
    pub(super) expires: Timestamp,
    pub(super) identity: Identity,
    /// The ARN of the role that was assumed.
    role: String,
}

#[derive(Default)]
struct Table {
    roles: HashMap<String, Trust>,
    sessions: HashMap<String, Session>,
}

#[derive(Default)]
pub(super) struct Identities(Mutex<Table>);

impl Identities {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn role(&self, arn: &str, trust: Trust) {
        self.table().roles.insert(arn.to_owned(), trust);
    }

    /// A role that is made again under the same name is another one: sessions of the first do not come back.
    pub(super) fn remove_role(&self, arn: &str) {
        let mut table = self.table();
        table.roles.remove(arn);
        table.sessions.retain(|_, session| session.role != arn);
    }

    /// Whether the key is one of a role that may only read.
    pub(super) fn is_read_only(&self, access_key_id: &str) -> bool {
        let table = self.table();
        let session = table.sessions.get(access_key_id);
        session
            .and_then(|session| table.roles.get(&session.role))
            .is_some_and(|trust| trust.read_only)
    }

    /// Whose access key this is.
    pub(super) fn of(
        &self,
        access_key_id: &str,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Identity, Fault> {
        if is_account(access_key_id) {
            let (account, user_id) = (access_key_id.to_owned(), access_key_id.to_owned());
            let name = if access_key_id == OPERATOR_ACCOUNT {
                "user/campanile"
            } else {
                "root"
            };
            return Ok(Identity {
                arn: format!("arn:aws:iam::{account}:{name}"),
                account,
                user_id,
            });
        }
        let table = self.table();
        let session = table
            .sessions
            .get(access_key_id)
            .filter(|session| token == Some(session.token.as_str()));
        let session = session.ok_or_else(|| {
            Fault::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            )
        })?;
        if session.expires <= now {
            return Err(Fault::new(
                403,
                "ExpiredToken",
                "The security token included in the request is expired",
            ));
        }
        Ok(session.identity.clone())
    }

    /// Opens a session of the role if its trust lets `caller` do so. AWS does not say which part of it did not.
    pub(super) fn assume(
        &self,
        caller: &Identity,
        role_arn: &str,
        session_name: &str,
        external_id: Option<&str>,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<Session, Fault> {
        let (role_account, role_name) = role(role_arn)
            .ok_or_else(|| Fault::new(400, "ValidationError", format!("{role_arn} is invalid")))?;
        let mut table = self.table();
        let trust = table.roles.get(role_arn).filter(|trust| {
            caller.account == OPERATOR_ACCOUNT
                && trust
                    .external_id
                    .as_deref()
                    .is_none_or(|wanted| external_id == Some(wanted))
        });
        let Some(trust) = trust else {
            let message = format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
                caller.arn
            );
            return Err(Fault::new(403, "AccessDenied", message));
        };
        let account = trust
            .account
            .clone()
            .unwrap_or_else(|| role_account.to_owned());
        let identity = Identity {
            arn: format!("arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}"),
            user_id: format!("AROA{}:{session_name}", random(16)),
            account,
        };
        let session = Session {
            access_key_id: format!("ASIA{}", random(16)),
            secret_access_key: random(40),
            token: random(120),
            expires: now + lifetime,
            identity,
            role: role_arn.to_owned(),
        };
        table
            .sessions
            .insert(session.access_key_id.clone(), session.clone());
        Ok(session)
    }
}

pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The account and the name, without its path, of a role's ARN.
fn role(arn: &str) -> Option<(&str, &str)> {
    let (account, path) = arn.strip_prefix("arn:aws:iam::")?.split_once(":role/")?;
    let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
    is_account(account).then_some((account, name))
}

fn random(length: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..length)
        .filter_map(|_| fastrand::choice(LETTERS))
        .map(|&letter| char::from(letter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::222233334444:role/path/campanile";

    fn assume(
        identities: &Identities,
        caller: &str,
        external_id: Option<&str>,
    ) -> Result<Session, Fault> {
        let now = Timestamp::UNIX_EPOCH;
        let caller = identities.of(caller, None, now)?;
        identities.assume(
            &caller,
            ROLE,
            "session",
            external_id,
            SignedDuration::from_hours(1),
            now,
        )
    }

    #[test]
    fn a_role_is_assumed_only_as_its_trust_allows() {
        let identities = Identities::default();
        assert_eq!(
            assume(&identities, OPERATOR_ACCOUNT, None)
                .unwrap_err()
                .code,
            "AccessDenied"
        );

        identities.role(ROLE, Trust::external_id("a/b"));
        for (caller, external_id) in [
            (OPERATOR_ACCOUNT, None),
            (OPERATOR_ACCOUNT, Some("a/c")),
            ("999999999999", Some("a/b")),
        ] {
            let fault = assume(&identities, caller, external_id).unwrap_err();
            assert_eq!(
                (fault.status, fault.code.as_str()),
                (403, "AccessDenied"),
                "{caller} {external_id:?}"
            );
            assert!(fault.message.contains("is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::222233334444"), "{fault:?}");
        }
        let session = assume(&identities, OPERATOR_ACCOUNT, Some("a/b")).unwrap();
        assert_eq!(
            session.identity.arn,
            "arn:aws:sts::222233334444:assumed-role/campanile/session"
        );

        identities.remove_role(ROLE);
        assert!(assume(&identities, OPERATOR_ACCOUNT, Some("a/b")).is_err());
    }

    #[test]
    fn a_session_keeps_its_account_but_not_its_permissions_and_ends_with_its_role() {
        let identities = Identities::default();
        let of = |session: &Session| {
            let token = Some(session.token.as_str());
            identities
                .of(&session.access_key_id, token, Timestamp::UNIX_EPOCH)
                .map(|identity| identity.account)
                .map_err(|fault| (fault.status, fault.code))
        };
        identities.role(ROLE, Trust::external_id("a/b"));
        let session = assume(&identities, OPERATOR_ACCOUNT, Some("a/b")).unwrap();
        assert!(!identities.is_read_only(&session.access_key_id));

        // Trust is asked for once, permission every time.
        let changed = Trust::external_id("a/c").landing_in("555566667777");
        identities.role(ROLE, changed.read_only());
        assert_eq!(of(&session), Ok("222233334444".to_owned()));
        assert!(identities.is_read_only(&session.access_key_id));
        assert!(assume(&identities, OPERATOR_ACCOUNT, Some("a/b")).is_err());
        let next = assume(&identities, OPERATOR_ACCOUNT, Some("a/c")).unwrap();
        assert_eq!(of(&next), Ok("555566667777".to_owned()));

        identities.role("arn:aws:iam::222233334444:role/other", Trust::default());
        identities.remove_role("arn:aws:iam::222233334444:role/other");
        assert!(of(&session).is_ok(), "another role's end is not its own");
        identities.remove_role(ROLE);
        identities.role(ROLE, Trust::external_id("a/b"));
        for session in [&session, &next] {
            let refused = of(session).unwrap_err();
            assert_eq!(refused, (403, "InvalidClientTokenId".to_owned()));
            assert!(!identities.is_read_only(&session.access_key_id));
        }
        assert!(!identities.is_read_only(OPERATOR_ACCOUNT));
    }

    #[test]
    fn a_session_needs_its_token_and_ends() {
        let identities = Identities::default();
        identities.role(ROLE, Trust::default().landing_in("555566667777"));
        let session = assume(&identities, OPERATOR_ACCOUNT, None).unwrap();
        let of = |token, now| {
            identities
                .of(&session.access_key_id, token, now)
                .map(|identity| identity.account)
                .map_err(|fault| fault.code)
        };
        assert_eq!(
            of(Some(&session.token), Timestamp::UNIX_EPOCH),
            Ok("555566667777".to_owned())
        );
        assert_eq!(
            of(None, Timestamp::UNIX_EPOCH),
            Err("InvalidClientTokenId".to_owned())
        );
        assert_eq!(
            of(Some(&session.token), session.expires),
            Err("ExpiredToken".to_owned())
        );
    }
}
