//! What is watched of one scope for its tenants: whether the role still lets us in, the topics and who hears
//! them, and their alarms' way into Slack. And what reading them has in common.

use super::{eventbridge, sns::Topics};
use crate::{
    clients::{
        Clients,
        aws::{Account, Identity, Turns},
        limit::Urgency,
    },
    error::{Class, Error, Result},
    installation::Installation,
    mirror::Mirrored,
    outside::{Outside, Polled, ReadOf, Rhythm, Source, Waker},
    scopes::Watch,
};
use aws_sdk_eventbridge::error::{ProvideErrorMetadata, SdkError};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// What is watched of one scope for its tenants.
pub struct TenantWatch {
    /// The account, and who we are there.
    pub account: Arc<Account>,
    /// Whether the role lets us in.
    pub trust: Outside<Trust>,
    /// The topics by ARN, and who hears them.
    pub topics: Outside<Topics>,
    /// The rules by name, and their targets.
    pub rules: Outside<eventbridge::Rules>,
    /// The connections and API destinations by name.
    pub paths: Outside<eventbridge::Paths>,
    /// The connections that have been written again since they were seen to be refused.
    revived: Mutex<BTreeSet<String>>,
    /// Until when the ways into Slack stay that have been replaced, by the names of their connections.
    retired: Mutex<BTreeMap<String, Instant>>,
}

impl TenantWatch {
    /// Of one account. Nothing is read yet.
    pub fn of(account: Arc<Account>, waker: &Waker) -> Self {
        let trust = Trust {
            turns: account.turns(),
            account: account.clone(),
        };
        Self {
            trust: Outside::new(trust, waker.clone()),
            topics: Outside::new(Topics::of(&account), waker.clone()),
            rules: Outside::new(eventbridge::Rules::of(&account), waker.clone()),
            paths: Outside::new(eventbridge::Paths::of(&account), waker.clone()),
            revived: Mutex::default(),
            retired: Mutex::default(),
            account,
        }
    }

    /// The connections that have been written again since they were seen to be refused, by name.
    pub fn revived(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.revived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the ways into Slack stay that have been replaced, by the names of their connections. Whoever
    /// does not know counts anew.
    pub fn retired(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for TenantWatch {
    type Access = Identity;

    async fn open(
        access: &Identity,
        clients: &Clients,
        _: &Installation,
        waker: &Waker,
    ) -> Result<Self> {
        let account = clients.aws.get(access).await?;
        Ok(Self::of(account, waker))
    }

    fn parts(&self) -> Vec<&dyn Polled> {
        vec![&self.trust, &self.topics, &self.rules, &self.paths]
    }
}

/// Whether the role still trusts us. Credentials outlive a change of its trust, so it is assumed anew.
pub struct Trust {
    account: Arc<Account>,
    turns: Turns,
}

/// There is nothing to see of a role but whether it lets us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nothing;

impl Mirrored for Nothing {
    fn is_alike(&self, _: &Self) -> bool {
        true
    }
}

impl Source for Trust {
    type Value = Nothing;
    const ENUMERATES: bool = true;
    const RHYTHM: Rhythm = Rhythm::Slow;

    async fn read(&self, _: &BTreeSet<String>, _: Urgency) -> Result<ReadOf<Self>> {
        self.account.check_unless_let_in().await?;
        Ok(ReadOf::<Self>::new())
    }

    async fn read_some(&self, _: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        self.read(&BTreeSet::new(), urgency).await
    }

    /// That it does not let us in any more is told by whatever is refused.
    async fn stirred(&self) {
        self.turns.let_in().await;
    }
}

/// Reads; once more with fresh credentials, where those at hand are refused but the role is not.
pub(super) async fn let_in<T, F>(account: &Account, read: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match read().await {
        Err(error) if error.class == Class::Denied => {
            account.check().await?;
            read().await
        }
        outcome => outcome,
    }
}

/// What is on a page, and the token of the next one; `None` where what is listed is not there itself.
pub(super) type Page<T> = Option<(Vec<T>, Option<String>)>;

/// Reads all pages of `operation`, from the one without a token on; `None` where what is listed is not there
/// itself. It is an error if AWS answers with the same page again and again.
pub(super) async fn pages<T, F>(
    operation: &str,
    read: impl Fn(Option<String>) -> F,
) -> Result<Option<Vec<T>>>
where
    F: Future<Output = Result<Page<T>>>,
{
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let Some((page, next)) = read(token.clone()).await? else {
            return Ok(None);
        };
        all.extend(page);
        if next.is_none() {
            return Ok(Some(all));
        }
        if next == token {
            return Err(Error::failing(format!(
                "{operation} answers with the same page again and again"
            )));
        }
        token = next;
    }
}

/// Whether AWS says that what a call is about is not there: EventBridge's code, and the two of SNS.
pub(super) fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    let code = error.as_service_error().and_then(|error| error.code());
    matches!(
        code,
        Some("ResourceNotFoundException" | "ResourceNotFound" | "NotFound")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_read_to_the_end_and_one_that_repeats_is_an_error() {
        let text = |text: &str| Some(text.to_owned());
        let book = [
            (None, Some((vec![1, 2], text("a")))),
            // A page may be empty, and yet not the last.
            (text("a"), Some((vec![], text("b")))),
            (text("b"), Some((vec![3], None))),
            (text("c"), Some((vec![4], text("c")))),
            (text("d"), None),
        ];
        let from = async |first: Option<String>| {
            let read = |token: Option<String>| {
                let wanted = token.or(first.clone());
                let page = book.iter().find(|(token, _)| *token == wanted);
                let page = page.unwrap().1.clone();
                async move { Ok(page) }
            };
            pages("L", read).await
        };
        assert_eq!(from(None).await, Ok(Some(vec![1, 2, 3])));
        let repeated = from(text("c")).await.unwrap_err();
        assert_eq!(
            repeated.message,
            "L answers with the same page again and again"
        );
        assert_eq!(from(text("d")).await, Ok(None));
    }
}
