//! AWS: clients that act as one role in one account, and what AWS's errors mean.

pub mod reading;

use super::http::chain;
use crate::engine::{
    error::{Class, Error, Result},
    gate::{Operation, WritePermit},
    limits::{Limiter, Priority},
};
use aws_config::{
    Region, SdkConfig, identity::IdentityCache, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_sdk_cloudwatch::config::{SharedCredentialsProvider, retry::RetryPartition};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::FinalizerInterceptorContextRef},
        orchestrator::{HttpResponse, Metadata},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, watch};

/// The longest that one attempt of a call may take. The SDK itself has no such limit.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// The longest that a call with its retries may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(20);

/// The time limits of all calls.
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .operation_timeout(CALL_LIMIT)
        .build()
}

/// What AWS says, as an error of validation, of a role that a call hands over and that does not trust the
/// service: its trust policy is wrong, or has not spread yet.
pub const DISTRUSTS: &str = "cannot be assumed by principal";

/// Who we are in an account: role *and* external id, so that two namespaces never share credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The role that is assumed.
    pub role_arn: String,
    /// `<cluster>/<namespace>`: not a tenant's to choose.
    pub external_id: String,
    /// The account that the role must lead to.
    pub account_id: String,
    /// The Region.
    pub region: String,
}

impl Identity {
    /// What one refusal or throttling stops: these credentials, in this Region, for one service.
    pub fn scope(&self, service: &str) -> String {
        let Self {
            role_arn,
            external_id,
            region,
            ..
        } = self;
        format!("{role_arn}/{external_id}/{region}/{service}")
    }
}

/// Clients that act as one [`Identity`]. Credentials refresh inside the SDK.
pub struct Account {
    /// Who we are there.
    pub identity: Identity,
    clients: RwLock<Clients>,
    base: Arc<Base>,
    /// Why the role does not let us in any more, though credentials from before would work for a while.
    refusal: watch::Sender<Option<Error>>,
    /// When the role was assumed last to see whether it lets us in.
    checked: parking_lot::Mutex<Instant>,
}

/// The moments at which a role begins or ceases to let us in. None is missed while nobody waits.
#[derive(Debug)]
pub struct RoleAccess(Mutex<watch::Receiver<Option<Error>>>);

impl RoleAccess {
    /// Ends at the next one.
    pub async fn next(&self) {
        if self.0.lock().await.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends at the next one at which it begins to let us in.
    pub async fn let_in(&self) {
        loop {
            self.next().await;
            if self.0.lock().await.borrow().is_none() {
                return;
            }
        }
    }
}

/// The clients of one configuration.
#[derive(Clone)]
struct Clients {
    cloudwatch: aws_sdk_cloudwatch::Client,
    eventbridge: aws_sdk_eventbridge::Client,
    sns: aws_sdk_sns::Client,
}

impl Clients {
    fn new(identity: &Identity, config: &SdkConfig, observer: &Observer) -> Self {
        // One tenant's throttling must not eat the others' retries: the SDK's budget is per service
        // and Region unless it is partitioned.
        let partition =
            RetryPartition::new(format!("{}/{}", identity.role_arn, identity.external_id));
        let cloudwatch = aws_sdk_cloudwatch::config::Builder::from(config)
            .retry_partition(partition.clone())
            .interceptor(Observe(observer.clone()))
            .build();
        let eventbridge = aws_sdk_eventbridge::config::Builder::from(config)
            .retry_partition(partition.clone())
            .interceptor(Observe(observer.clone()))
            .build();
        let sns = aws_sdk_sns::config::Builder::from(config)
            .retry_partition(partition)
            .interceptor(Observe(observer.clone()))
            .build();
        Self {
            cloudwatch: aws_sdk_cloudwatch::Client::from_conf(cloudwatch),
            eventbridge: aws_sdk_eventbridge::Client::from_conf(eventbridge),
            sns: aws_sdk_sns::Client::from_conf(sns),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Account");
        shown
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// An account for tests, whose services are all at one URL and let as many requests through.
    #[cfg(test)]
    pub fn at(url: &str, rates: &std::collections::BTreeMap<String, f64>) -> Arc<Self> {
        let identity = Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/ns".into(),
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
        };
        let credentials = aws_sdk_sts::config::Credentials::new("id", "key", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .region(Region::new(identity.region.clone()))
            .endpoint_url(url)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .build();
        let base = Base {
            config: config.clone(),
            session_name: "campanile-eu".into(),
            observer: Arc::new(|_| {}),
            limiter: Arc::new(Limiter::new(rates)),
        };
        Arc::new(Self {
            clients: RwLock::new(Clients::new(&identity, &config, &base.observer)),
            identity,
            base: Arc::new(base),
            refusal: watch::Sender::new(None),
            checked: parking_lot::Mutex::new(Instant::now()),
        })
    }

    fn clients(&self) -> Clients {
        self.clients.read().clone()
    }

    /// CloudWatch.
    pub fn cloudwatch(&self) -> aws_sdk_cloudwatch::Client {
        self.clients().cloudwatch
    }

    /// EventBridge.
    pub fn eventbridge(&self) -> aws_sdk_eventbridge::Client {
        self.clients().eventbridge
    }

    /// SNS.
    pub fn sns(&self) -> aws_sdk_sns::Client {
        self.clients().sns
    }

    /// A call that changes nothing, once the account's quota and its role allow it. (A write passes the gate.)
    pub async fn read(
        &self,
        service: &'static str,
        operation: &'static str,
        priority: Priority,
    ) -> Result<Call<'_>> {
        if let Some(refusal) = self.refusal.borrow().clone() {
            return Err(refusal);
        }
        let Identity {
            account_id, region, ..
        } = &self.identity;
        let api = format!("{service}:{operation}");
        let limiter = &self.base.limiter;
        limiter.take(account_id, region, &api, priority).await;
        Ok(Call::read(&self.identity, service, operation))
    }

    /// A call that writes, as the gate sees it. `endpoint` is that of the stage.
    pub fn operation<'a>(&'a self, endpoint: &'a str, api: &'static str) -> Operation<'a> {
        let Identity {
            role_arn,
            account_id,
            region,
            ..
        } = &self.identity;
        Operation {
            endpoint,
            account: account_id,
            region,
            identity: role_arn,
            api,
        }
    }

    /// The clients, for the one call that has passed the gate.
    pub fn writer(&self, permit: &WritePermit<'_>) -> Writer<'_> {
        let api = permit.operation().api;
        let (service, operation) = api.split_once(':').unwrap_or(("", api));
        Writer {
            clients: self.clients(),
            call: Call::write(&self.identity, service, operation),
        }
    }

    /// Assumes the role anew: credentials outlive a change of its trust by up to an hour, and those of a
    /// role that was deleted stay dead when it is made again. What it gets is used from now on.
    pub async fn check(&self) -> Result<()> {
        let outcome = self.ask().await;
        *self.checked.lock() = Instant::now();
        outcome
    }

    /// The same, unless the role has just let somebody else in. A refusal is never taken on trust.
    pub async fn check_unless_let_in(&self) -> Result<()> {
        /// Whoever is told that the role has turned looks within this time.
        const JUST: Duration = Duration::from_secs(1);
        let checked = *self.checked.lock();
        if checked.elapsed() < JUST && self.refusal.borrow().is_none() {
            return Ok(());
        }
        self.check().await
    }

    async fn ask(&self) -> Result<()> {
        let (refusal, outcome) = match self.base.verify(&self.identity).await {
            Ok(config) => {
                let fresh = Clients::new(&self.identity, &config, &self.base.observer);
                *self.clients.write() = fresh;
                (None, Ok(()))
            }
            Err(error) if error.class == Class::Denied => (Some(error.clone()), Err(error)),
            // What passes by itself says nothing about the role.
            Err(error) => return Err(error),
        };
        self.refusal.send_if_modified(|known| {
            let turned = known.is_some() != refusal.is_some();
            *known = refusal;
            turned
        });
        outcome
    }

    /// Tells whoever waits for it when the role lets us in again, or does not any more.
    pub fn turns(&self) -> RoleAccess {
        RoleAccess(Mutex::new(self.refusal.subscribe()))
    }
}

/// One request that went to AWS, an attempt each.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The service, in lower case.
    pub service: &'a str,
    /// The operation.
    pub operation: &'a str,
    /// `ok`, `throttled`, `denied`, `refused`, `failing` or `no answer`.
    pub outcome: &'static str,
    /// From sending to the answer.
    pub took: Duration,
}

/// Is told of every request that went to AWS.
pub type Observer = Arc<dyn Fn(Request<'_>) + Send + Sync>;

/// What the clients of all accounts have in common.
struct Base {
    config: SdkConfig,
    session_name: String,
    observer: Observer,
    limiter: Arc<Limiter>,
}

/// All accounts that somebody is at work in, with clients of their own each.
pub struct Accounts {
    base: Arc<Base>,
    /// Whoever is at work there keeps them.
    known: Mutex<HashMap<Identity, Weak<Account>>>,
}

impl Accounts {
    /// Credentials and endpoints come from the operator's environment, never from a spec.
    pub async fn from_environment(
        cluster: &str,
        limiter: Arc<Limiter>,
        observer: Observer,
    ) -> Self {
        let base = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12())
            .timeout_config(timeouts())
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .load()
            .await;
        let config = if base.region().is_some() {
            base
        } else {
            // STS needs some Region; each account's clients get their own.
            base.into_builder()
                .region(Region::from_static("us-east-1"))
                .build()
        };
        Self::new(config, cluster, limiter, observer)
    }

    /// `config` says where AWS is, and who assumes the tenants' roles.
    pub fn new(
        config: SdkConfig,
        cluster: &str,
        limiter: Arc<Limiter>,
        observer: Observer,
    ) -> Self {
        let base = Base {
            config,
            session_name: format!("campanile-{cluster}"),
            observer,
            limiter,
        };
        Self {
            base: Arc::new(base),
            known: Mutex::default(),
        }
    }

    /// The clients of an identity, once it is certain that the role leads to the account that was named.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<Account>> {
        if let Some(account) = self
            .known
            .lock()
            .await
            .get(identity)
            .and_then(Weak::upgrade)
        {
            return Ok(account);
        }
        let config = self.base.verify(identity).await?;
        let clients = Clients::new(identity, &config, &self.base.observer);
        let account = Arc::new(Account {
            identity: identity.clone(),
            clients: RwLock::new(clients),
            base: self.base.clone(),
            refusal: watch::Sender::new(None),
            checked: parking_lot::Mutex::new(Instant::now()),
        });
        let mut known = self.known.lock().await;
        known.retain(|_, account| account.strong_count() > 0);
        // Two may have asked at once; they share the first one's clients, and what is known of the role.
        if let Some(first) = known.get(identity).and_then(Weak::upgrade) {
            return Ok(first);
        }
        known.insert(identity.clone(), Arc::downgrade(&account));
        Ok(account)
    }
}

impl Base {
    async fn assume(&self, identity: &Identity) -> SdkConfig {
        let provider = AssumeRoleProvider::builder(&identity.role_arn)
            .session_name(&self.session_name)
            .external_id(&identity.external_id)
            .region(Region::new(identity.region.clone()))
            .configure(&self.config)
            .build()
            .await;
        self.config
            .clone()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(provider))
            // The provider does not cache, and the cache of one configuration holds only 64 identities.
            .identity_cache(IdentityCache::lazy().build())
            .region(Region::new(identity.region.clone()))
            .build()
    }

    /// A configuration that acts as this identity. A role's ARN names an account, but only AWS can say
    /// where its credentials lead.
    async fn verify(&self, identity: &Identity) -> Result<SdkConfig> {
        let config = self.assume(identity).await;
        let sts = aws_sdk_sts::config::Builder::from(&config)
            .interceptor(Observe(self.observer.clone()))
            .build();
        let asked = Instant::now();
        let caller = aws_sdk_sts::Client::from_conf(sts)
            .get_caller_identity()
            .send()
            .await;
        // The SDK assumes the role on the way, where no interceptor sees it.
        let refusal = caller.as_ref().err().and_then(assume_role_refusal);
        let outcome = match refusal {
            None if matches!(&caller, Ok(_) | Err(SdkError::ServiceError(_))) => "ok",
            None => "no answer",
            Some(Refusal { status: 500.., .. }) => "failing",
            Some(Refusal { code, .. }) if code.contains("Throttl") => "throttled",
            Some(_) => "denied",
        };
        (self.observer)(Request {
            service: "sts",
            operation: "AssumeRole",
            outcome,
            took: asked.elapsed(),
        });
        let caller = caller
            .map_err(|error| classify(&Call::read(identity, "sts", "GetCallerIdentity"), &error))?;
        match caller.account() {
            Some(account) if account == identity.account_id => Ok(config),
            account => Err(Error::new(
                Class::Denied,
                format!(
                    "{} leads to account {}, but the tenant's spec.aws.accountId is {}: nothing was written; name a role of that account",
                    identity.role_arn,
                    account.unwrap_or("(none)"),
                    identity.account_id
                ),
            )),
        }
    }
}

/// One call, for the person who reads what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// As whom.
    pub identity: &'a Identity,
    /// The service's prefix in IAM.
    pub service: &'static str,
    /// The operation.
    pub operation: &'static str,
    /// Whether it changes something, so that an outcome that never came must be looked up.
    pub writes: bool,
}

impl<'a> Call<'a> {
    /// A call that changes nothing.
    pub fn read(identity: &'a Identity, service: &'static str, operation: &'static str) -> Self {
        Self {
            identity,
            service,
            operation,
            writes: false,
        }
    }

    /// A call that changes something.
    pub fn write(identity: &'a Identity, service: &'static str, operation: &'static str) -> Self {
        Self {
            identity,
            service,
            operation,
            writes: true,
        }
    }
}

/// Clients for one call that changes something.
pub struct Writer<'a> {
    clients: Clients,
    /// The call.
    pub call: Call<'a>,
}

impl Writer<'_> {
    /// CloudWatch.
    pub fn cloudwatch(&self) -> &aws_sdk_cloudwatch::Client {
        &self.clients.cloudwatch
    }

    /// EventBridge.
    pub fn eventbridge(&self) -> &aws_sdk_eventbridge::Client {
        &self.clients.eventbridge
    }

    /// SNS.
    pub fn sns(&self) -> &aws_sdk_sns::Client {
        &self.clients.sns
    }

    /// What the call's error means, and what to do about it.
    pub fn refusal<E>(&self, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        classify(&self.call, error)
    }
}

/// What an SDK error means, and what to do about it.
pub fn classify<E>(call: &Call<'_>, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let Call {
        identity,
        service,
        operation,
        writes,
    } = *call;
    if let SdkError::ServiceError(refusal) = error {
        let status = refusal.raw().status().as_u16();
        let code = refusal.err().code().unwrap_or_default();
        let text = refusal.err().message().unwrap_or_default();
        return answered(call, status, code, text);
    }
    if let Some(refusal) = assume_role_refusal(error) {
        let assume = Call {
            service: "sts",
            operation: "AssumeRole",
            ..*call
        };
        let Refusal { status, code, text } = refusal;
        let answer = answered(&assume, status, &code, &text);
        // Whatever else STS refuses about a role, the role is what needs mending.
        return match answer.class {
            Class::Throttled | Class::Unavailable => answer,
            _ => Error::new(
                Class::Denied,
                format!(
                    "cannot assume {}: {code}: {text}. Let the role trust the operator's identity for sts:AssumeRole and sts:TagSession with the condition sts:ExternalId = {}",
                    identity.role_arn, identity.external_id
                ),
            ),
        };
    }
    let class = match error {
        // The request was never sent.
        SdkError::ConstructionFailure(_) => Class::Unavailable,
        SdkError::DispatchFailure(failure) if failure.is_user() || !writes => Class::Unavailable,
        _ if writes => Class::OutcomeUnknown,
        _ => Class::Unavailable,
    };
    Error::new(
        class,
        format!(
            "{service}:{operation} in account {}, {}: {}",
            identity.account_id,
            identity.region,
            chain(error)
        ),
    )
}

/// What it means that an answer which was otherwise good names one thing that could not be done: code and
/// text as AWS gave them.
pub fn failed_entry(call: &Call<'_>, code: &str, text: &str) -> Error {
    match code {
        // EventBridge's own fault has no status of its own here.
        "InternalException" | "InternalFailure" => answered(call, 500, code, text),
        _ => answered(call, 400, code, text),
    }
}

/// What a refusal means: code and text as AWS gave them, the status for answers without a code.
fn answered(call: &Call<'_>, status: u16, code: &str, text: &str) -> Error {
    let Call {
        identity,
        service,
        operation,
        ..
    } = *call;
    let place = format!(
        "{service}:{operation} in account {}, {}",
        identity.account_id, identity.region
    );
    // Two writers on one thing: AWS says it of an alarm as an error of validation, and elsewhere with 400 or
    // 429, but it passes.
    let busy = code.contains("ConcurrentModification")
        || code.contains("ConcurrentAccess")
        || text.contains("is in progress");
    // Of things, not of requests: it is no matter of waiting.
    let quota = matches!(code, "LimitExceeded" | "LimitExceededException");
    let throttled = code.contains("Throttl")
        || matches!(code, "RequestLimitExceeded" | "TooManyRequestsException")
        || status == 429 && !busy && !quota;
    let denied = code.contains("AccessDenied")
        || code.contains("AuthorizationError")
        || code.contains("NotAuthorized")
        || code.contains("ExpiredToken")
        || matches!(
            code,
            "InvalidClientTokenId" | "UnrecognizedClientException" | "SignatureDoesNotMatch"
        )
        || matches!(status, 401 | 403) && code.is_empty();
    // Nothing is wrong with what was asked for, and it heals without an edit of it.
    let distrusts = status < 500 && text.contains(DISTRUSTS);
    if throttled {
        Error::new(
            Class::Throttled,
            format!("throttled: {place}: {code}: {text}"),
        )
    } else if distrusts {
        let text = text.trim_end_matches('.');
        Error::new(
            Class::Denied,
            format!(
                "{place} was denied: {code}: {text}. Let that role's trust policy allow sts:AssumeRole to that principal; AWS takes a while to see it"
            ),
        )
    } else if denied {
        Error::new(
            Class::Denied,
            format!(
                "{place} was denied: {code}: {text}. Allow {service}:{operation} to {}",
                identity.role_arn
            ),
        )
    } else if busy || status >= 500 {
        Error::failing(format!(
            "{place}: {} {text}",
            if code.is_empty() {
                status.to_string()
            } else {
                code.into()
            }
        ))
    } else if quota {
        Error::new(
            Class::Rejected,
            format!(
                "AWS refused {operation}: {code}: {text}. A quota of account {} in {} is used up: have it raised, or remove something there",
                identity.account_id, identity.region
            ),
        )
    } else {
        Error::new(
            Class::Rejected,
            format!("AWS refused {operation}: {code}: {text}"),
        )
    }
}

/// What STS answered.
struct Refusal {
    status: u16,
    code: String,
    text: String,
}

/// A refused AssumeRole reaches us as a failure to send, STS's answer several sources down.
fn assume_role_refusal<E, R>(error: &SdkError<E, R>) -> Option<Refusal>
where
    E: StdError + 'static,
    R: fmt::Debug,
{
    use aws_sdk_sts::operation::assume_role::AssumeRoleError;
    let SdkError::DispatchFailure(failure) = error else {
        return None;
    };
    let mut source: Option<&(dyn StdError + 'static)> =
        failure.as_connector_error().map(|error| error as _);
    while let Some(error) = source {
        if let Some(SdkError::ServiceError(answer)) =
            error.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>()
        {
            return Some(Refusal {
                status: answer.raw().status().as_u16(),
                code: answer.err().code().unwrap_or_default().to_owned(),
                text: answer.err().message().unwrap_or_default().to_owned(),
            });
        }
        source = error.source();
    }
    None
}

/// Tells the observer of every attempt.
struct Observe(Observer);

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observe")
    }
}

/// What an answer says. The services put their codes into XML, JSON, CBOR or a header, all of them as
/// plain text, and throttle with 400 as well as with 429.
fn outcome(response: &HttpResponse) -> &'static str {
    let status = response.status().as_u16();
    if (200..400).contains(&status) {
        return "ok";
    }
    let code = response
        .headers()
        .get("x-amzn-query-error")
        .unwrap_or_default();
    let body = String::from_utf8_lossy(response.body().bytes().unwrap_or_default());
    let says = |word: &str| code.contains(word) || body.contains(word);
    match status {
        429 => "throttled",
        400..=499 if says("Throttl") || says("RequestLimitExceeded") => "throttled",
        401 | 403 => "denied",
        400..=499 if says("AccessDenied") || says(DISTRUSTS) => "denied",
        400..=499 => "refused",
        _ => "failing",
    }
}

/// When an attempt was sent; `None` while it has not been.
#[derive(Debug)]
struct Sent(Option<Instant>);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Observe {
    fn name(&self) -> &'static str {
        "campanile"
    }

    fn read_before_attempt(
        &self,
        _: &aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Sent(None));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state()
            .store_put(Sent(Some(Instant::now())));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Without credentials nothing is sent.
        let sent = bag.load::<Sent>().and_then(|sent| sent.0);
        if let (Some(metadata), Some(sent)) = (bag.load::<Metadata>(), sent) {
            self.0(Request {
                service: &metadata.service().to_ascii_lowercase(),
                operation: metadata.name(),
                outcome: context.response().map_or("no answer", outcome),
                took: sent.elapsed(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::Class;

    #[test]
    fn refusals_are_told_apart() {
        let identity = Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/vsu".into(),
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
        };
        let call = Call::write(&identity, "cloudwatch", "PutMetricAlarm");
        for (status, code, text, class) in [
            (400, "Throttling", "Rate exceeded", Class::Throttled),
            (429, "", "", Class::Throttled),
            (403, "AccessDenied", "no", Class::Denied),
            (400, "AccessDeniedException", "no", Class::Denied),
            (403, "ExpiredToken", "", Class::Denied),
            (403, "", "", Class::Denied),
            (400, "ValidationError", "Period is bad", Class::Rejected),
            (
                400,
                "ValidationError",
                "A separate request to update this alarm is in progress",
                Class::Unavailable,
            ),
            (400, "LimitExceeded", "quota", Class::Rejected),
            (400, "LimitExceededException", "quota", Class::Rejected),
            (429, "LimitExceededException", "quota", Class::Rejected),
            (
                409,
                "ConcurrentModificationException",
                "",
                Class::Unavailable,
            ),
            (
                400,
                "ConcurrentModificationException",
                "",
                Class::Unavailable,
            ),
            (
                429,
                "ConcurrentModificationException",
                "",
                Class::Unavailable,
            ),
            (400, "ManagedRuleException", "", Class::Rejected),
            (400, "InvalidEventPatternException", "", Class::Rejected),
            (500, "InternalServiceFault", "", Class::Unavailable),
            (503, "", "", Class::Unavailable),
        ] {
            assert_eq!(
                answered(&call, status, code, text).class,
                class,
                "{status} {code} {text}"
            );
        }
        let denied = answered(&call, 403, "AccessDenied", "not authorized");
        assert!(denied.message.contains(
            "Allow cloudwatch:PutMetricAlarm to arn:aws:iam::222233334444:role/campanile"
        ));
    }

    /// It is no fault of the request, so it is neither remembered as one nor told as one.
    #[test]
    fn a_role_that_does_not_trust_the_service_is_to_be_mended() {
        let identity = Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/vsu".into(),
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
        };
        let role = "arn:aws:iam::222233334444:role/campanile-events";
        let text = format!(
            "Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'."
        );
        for operation in ["PutRule", "PutTargets"] {
            let call = Call::write(&identity, "events", operation);
            for error in [
                answered(&call, 400, "ValidationException", &text),
                failed_entry(&call, "ValidationException", &text),
            ] {
                assert_eq!(error.class, Class::Denied);
                assert_eq!(
                    error.message,
                    format!(
                        "events:{operation} in account 222233334444, us-east-2 was denied: ValidationException: Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'. Let that role's trust policy allow sts:AssumeRole to that principal; AWS takes a while to see it"
                    )
                );
            }
        }
        let call = Call::write(&identity, "events", "PutTargets");
        let other = answered(&call, 400, "ValidationException", "Arn is not valid");
        assert_eq!(other.class, Class::Rejected);
        // What passes by itself is told as that, whatever the text.
        let throttled = answered(&call, 400, "ThrottlingException", &text);
        assert_eq!(throttled.class, Class::Throttled);
        let fails = answered(&call, 500, "InternalException", &text);
        assert_eq!(fails.class, Class::Unavailable);
    }

    #[test]
    fn an_entry_that_failed_is_told_with_its_code() {
        let identity = Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/vsu".into(),
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
        };
        let call = Call::write(&identity, "events", "PutTargets");
        for (code, class) in [
            ("ConcurrentModificationException", Class::Unavailable),
            ("InternalException", Class::Unavailable),
            ("ThrottlingException", Class::Throttled),
            ("AccessDeniedException", Class::Denied),
            ("LimitExceededException", Class::Rejected),
            ("ResourceNotFoundException", Class::Rejected),
            ("", Class::Rejected),
        ] {
            let error = failed_entry(&call, code, "so it is");
            assert_eq!(error.class, class, "{code}");
            assert!(error.message.contains(code) && error.message.contains("so it is"));
        }
    }

    /// What STS answers while credentials are fetched arrives as a failure to send.
    #[test]
    fn a_refused_role_is_told_from_an_sts_that_fails() {
        use aws_sdk_sts::{
            error::ErrorMetadata,
            operation::{
                assume_role::AssumeRoleError, get_caller_identity::GetCallerIdentityError,
            },
        };
        use aws_smithy_runtime_api::{client::result::ConnectorError, http::StatusCode};
        use aws_smithy_types::body::SdkBody;
        let identity = Identity {
            role_arn: "arn:aws:iam::222233334444:role/campanile".into(),
            external_id: "eu/vsu".into(),
            account_id: "222233334444".into(),
            region: "us-east-2".into(),
        };
        for (status, code, class, text) in [
            (
                403,
                "AccessDenied",
                Class::Denied,
                "sts:ExternalId = eu/vsu",
            ),
            (400, "ValidationError", Class::Denied, "cannot assume"),
            (400, "Throttling", Class::Throttled, "sts:AssumeRole"),
            (
                503,
                "ServiceUnavailable",
                Class::Unavailable,
                "sts:AssumeRole",
            ),
            (500, "", Class::Unavailable, "500"),
        ] {
            let metadata = ErrorMetadata::builder()
                .code(code)
                .message("so it is")
                .build();
            let status = StatusCode::try_from(status).unwrap();
            let answer = SdkError::service_error(
                AssumeRoleError::generic(metadata),
                HttpResponse::new(status, SdkBody::empty()),
            );
            let error: SdkError<GetCallerIdentityError, HttpResponse> =
                SdkError::dispatch_failure(ConnectorError::other(Box::new(answer), None));
            let error = classify(&Call::write(&identity, "sns", "Subscribe"), &error);
            assert_eq!(error.class, class, "{code}");
            assert!(error.message.contains(text), "{error}");
        }
    }
}
