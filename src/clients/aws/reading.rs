//! Reads of AWS: within the quota, to the last page, with fresh credentials once a role has changed; what is not found
//! is `None`.

use super::{
    Account, Identity, RoleAccess,
    error::{Call, classify},
};
use crate::engine::{
    error::{Class, Error, Result},
    informer::{PollRate, Source},
    limits::Priority,
    mirror::{InformerKey, Mirrored},
};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    sync::Arc,
};

/// What a call of the SDK is answered.
type Answer<T, E> = Result<T, SdkError<E, HttpResponse>>;

/// What is read by: an account's calls that change nothing. Without a permit no others can be made.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    account: &'a Account,
    priority: Priority,
}

macro_rules! calls {
    ($($name:ident: $sdk:ident $service:ident $call:ident $builder:ident),+) => {
        impl Reads<'_> {
            $(
                #[doc = concat!("`", stringify!($call), "`, to be sent.")]
                pub fn $name(&self) -> $sdk::operation::$call::builders::$builder {
                    self.account.clients.read().$service.$call()
                }
            )+
        }
    };
}

calls! {
    alarms: aws_sdk_cloudwatch cloudwatch describe_alarms DescribeAlarmsFluentBuilder,
    alarm_tags: aws_sdk_cloudwatch cloudwatch list_tags_for_resource ListTagsForResourceFluentBuilder,
    rules: aws_sdk_eventbridge eventbridge list_rules ListRulesFluentBuilder,
    rule: aws_sdk_eventbridge eventbridge describe_rule DescribeRuleFluentBuilder,
    targets: aws_sdk_eventbridge eventbridge list_targets_by_rule ListTargetsByRuleFluentBuilder,
    connections: aws_sdk_eventbridge eventbridge list_connections ListConnectionsFluentBuilder,
    connection: aws_sdk_eventbridge eventbridge describe_connection DescribeConnectionFluentBuilder,
    api_destinations: aws_sdk_eventbridge eventbridge list_api_destinations ListApiDestinationsFluentBuilder,
    api_destination: aws_sdk_eventbridge eventbridge describe_api_destination DescribeApiDestinationFluentBuilder,
    topic: aws_sdk_sns sns get_topic_attributes GetTopicAttributesFluentBuilder,
    topic_tags: aws_sdk_sns sns list_tags_for_resource ListTagsForResourceFluentBuilder,
    subscription: aws_sdk_sns sns get_subscription_attributes GetSubscriptionAttributesFluentBuilder,
    subscriptions: aws_sdk_sns sns list_subscriptions_by_topic ListSubscriptionsByTopicFluentBuilder
}

impl<'a> Reads<'a> {
    /// Of an account, with its quota's share for `priority`.
    pub fn of(account: &'a Account, priority: Priority) -> Self {
        Self { account, priority }
    }

    /// Whose they are.
    pub fn identity(&self) -> &'a Identity {
        &self.account.identity
    }

    /// Sends a call once the account's quota and its role allow it. `None` where what it is about is not there.
    pub async fn find<T, E>(
        &self,
        api: &'static str,
        call: impl Future<Output = Answer<T, E>>,
    ) -> Result<Option<T>>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let Account { identity, base, .. } = self.account;
        if let Some(refusal) = self.account.refusal.borrow().clone() {
            return Err(refusal);
        }
        let (account, region) = (&identity.account_id, &identity.region);
        base.limiter.take(account, region, api, self.priority).await;
        match call.await {
            Err(error) if is_missing(&error) => Ok(None),
            answer => answer.map(Some).map_err(|error| {
                let call = Call {
                    identity,
                    api,
                    writes: false,
                };
                classify(&call, &error)
            }),
        }
    }

    /// The same of a list, which is never absent.
    pub async fn list<T, E>(
        &self,
        api: &'static str,
        call: impl Future<Output = Answer<T, E>>,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let found = self.find(api, call).await?;
        found.ok_or_else(|| self.unreadable(api, "it says that there is no such list"))
    }

    /// What an answer must hold; an error where it does not.
    pub fn told<T>(&self, api: &'static str, field: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.unreadable(api, &format!("an answer without {field}")))
    }

    /// An answer that says something else than it must.
    pub fn unreadable(&self, api: &'static str, what: &str) -> Error {
        let call = Call {
            identity: self.identity(),
            api,
            writes: false,
        };
        call.unreadable(what)
    }

    /// Reads all pages of `api`, from the one without a token on; `None` where what is listed is not there
    /// itself. It is an error if AWS answers with the same page again and again.
    pub async fn pages<T, F>(
        &self,
        api: &'static str,
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
                return Err(self.unreadable(api, "the same page again and again"));
            }
            token = next;
        }
    }
}

/// Everything that a read found, by key.
pub type ReadBy<R> = BTreeMap<<R as Reader>::Key, <R as Reader>::Value>;

/// How one sort of thing is read in an account.
pub trait Reader: Send + Sync + 'static {
    /// What tells the things apart.
    type Key: InformerKey;
    /// What is mirrored.
    type Value: Mirrored;
    /// As [`Source::ENUMERATES`].
    const ENUMERATES: bool = false;
    /// As [`Source::POLL_RATE`].
    const POLL_RATE: PollRate = PollRate::Slow;

    /// As [`Source::read`].
    fn read(
        &self,
        by: &Reads<'_>,
        asked: &BTreeSet<Self::Key>,
    ) -> impl Future<Output = Result<ReadBy<Self>>> + Send
    where
        Self: Sized;
    /// As [`Source::read_some`].
    fn read_some(
        &self,
        by: &Reads<'_>,
        keys: &BTreeSet<Self::Key>,
    ) -> impl Future<Output = Result<ReadBy<Self>>> + Send
    where
        Self: Sized,
    {
        self.read(by, keys)
    }
    /// As [`Source::is_unsettled`].
    fn is_unsettled(_: &Self::Value) -> bool {
        false
    }
}

/// What a [`Reader`] reads in one account: once more with fresh credentials where those at hand are refused but the
/// role is not, and anew when the role begins or ceases to let us in.
pub struct AwsSource<R> {
    /// How it is read.
    pub reader: R,
    account: Arc<Account>,
    access: RoleAccess,
}

impl<R> AwsSource<R> {
    /// Of one account.
    pub fn new(account: &Arc<Account>, reader: R) -> Self {
        Self {
            reader,
            access: account.access_changes(),
            account: account.clone(),
        }
    }
}

impl<R: Reader> Source for AwsSource<R> {
    type Key = R::Key;
    type Value = R::Value;
    const ENUMERATES: bool = R::ENUMERATES;
    const POLL_RATE: PollRate = R::POLL_RATE;

    async fn read(&self, asked: &BTreeSet<R::Key>, priority: Priority) -> Result<ReadBy<R>> {
        let by = Reads::of(&self.account, priority);
        afresh(by, || self.reader.read(&by, asked)).await
    }

    async fn read_some(&self, keys: &BTreeSet<R::Key>, priority: Priority) -> Result<ReadBy<R>> {
        let by = Reads::of(&self.account, priority);
        afresh(by, || self.reader.read_some(&by, keys)).await
    }

    fn is_unsettled(value: &R::Value) -> bool {
        R::is_unsettled(value)
    }

    async fn invalidated(&self) {
        self.access.next().await;
    }
}

async fn afresh<T, F>(by: Reads<'_>, read: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match read().await {
        Err(error) if error.class == Class::Denied => {
            by.account.check().await?;
            read().await
        }
        outcome => outcome,
    }
}

/// What is on a page, and the token of the next one; `None` where what is listed is not there itself.
pub type Page<T> = Option<(Vec<T>, Option<String>)>;

/// Whether AWS says that what a call is about is not there: EventBridge's code, and the two of SNS.
pub fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
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
        let account = Account::at("http://127.0.0.1:9", &BTreeMap::new());
        let reads = Reads::of(&account, Priority::Edit);
        let from = async |first: Option<String>| {
            let read = |token: Option<String>| {
                let wanted = token.or(first.clone());
                let page = book.iter().find(|(token, _)| *token == wanted);
                let page = page.unwrap().1.clone();
                async move { Ok(page) }
            };
            reads.pages("s:L", read).await
        };
        assert_eq!(from(None).await, Ok(Some(vec![1, 2, 3])));
        let repeated = from(text("c")).await.unwrap_err();
        let says = "s:L in account 222233334444, us-east-2: the same page again and again. ";
        assert!(repeated.message.starts_with(says), "{repeated}");
        assert_eq!(from(text("d")).await, Ok(None));
    }
}
