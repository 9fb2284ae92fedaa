//! AWS: clients that act as one role in one account. What reads is at hand, what writes takes a permit.

pub mod alarms;
mod complete;
pub mod error;
mod observe;
pub mod reading;
mod writing;

use crate::engine::{
    error::{Class, Error, Result},
    gate::Operation,
    limits::Limiter,
};
use aws_config::{
    Region, SdkConfig, identity::IdentityCache, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_sdk_cloudwatch::config::{SharedCredentialsProvider, retry::RetryPartition};
use aws_sdk_sts::error::SdkError;
use complete::Complete;
use error::{Call, Refusal, assume_role_refusal, classify};
use observe::Observe;
pub use observe::{Observer, Request};
use parking_lot::RwLock;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, watch};
pub use writing::Writer;

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
    pub async fn restored(&self) {
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
        macro_rules! client {
            ($sdk:ident) => {{
                let config = $sdk::config::Builder::from(config)
                    .retry_partition(partition.clone())
                    .interceptor(Complete)
                    .interceptor(Observe(observer.clone()));
                $sdk::Client::from_conf(config.build())
            }};
        }
        Self {
            cloudwatch: client!(aws_sdk_cloudwatch),
            eventbridge: client!(aws_sdk_eventbridge),
            sns: client!(aws_sdk_sns),
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

    /// Assumes the role anew: credentials outlive a change of its trust by up to an hour, and those of a
    /// role that was deleted stay dead when it is made again. What it gets is used from now on.
    pub async fn check(&self) -> Result<()> {
        let outcome = self.ask().await;
        *self.checked.lock() = Instant::now();
        outcome
    }

    /// The same, unless a check succeeded less than a second ago. A refusal is never taken on trust.
    pub async fn check_unless_recent(&self) -> Result<()> {
        /// Whoever is told that the role's access has changed checks within this time.
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
    pub fn access_changes(&self) -> RoleAccess {
        RoleAccess(Mutex::new(self.refusal.subscribe()))
    }
}

/// What the clients of all accounts have in common.
struct Base {
    config: SdkConfig,
    session_name: String,
    observer: Observer,
    limiter: Arc<Limiter>,
}

/// All accounts that may be opened, with clients of their own each.
pub struct Accounts {
    base: Arc<Base>,
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
        }
    }

    /// New clients of an identity, once it is certain that the role leads to the account that was named.
    pub async fn open(&self, identity: &Identity) -> Result<Arc<Account>> {
        let config = self.base.verify(identity).await?;
        let clients = Clients::new(identity, &config, &self.base.observer);
        Ok(Arc::new(Account {
            identity: identity.clone(),
            clients: RwLock::new(clients),
            base: self.base.clone(),
            refusal: watch::Sender::new(None),
            checked: parking_lot::Mutex::new(Instant::now()),
        }))
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
            .interceptor(Complete)
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
            // An answer that is none of AWS's.
            Some(Refusal { code, .. }) if code.is_empty() => "failing",
            Some(Refusal { code, .. }) if code.contains("Throttl") => "throttled",
            Some(_) => "denied",
        };
        (self.observer)(Request {
            service: "sts",
            operation: "AssumeRole",
            outcome,
            took: asked.elapsed(),
        });
        let call = Call {
            identity,
            api: "sts:GetCallerIdentity",
            writes: false,
        };
        let caller = caller.map_err(|error| classify(&call, &error))?;
        match caller.account() {
            Some(account) if account == identity.account_id => Ok(config),
            Some(account) => Err(Error::new(
                Class::Denied,
                format!(
                    "{} leads to account {account}, but the tenant's spec.aws.accountId is {}: nothing was written; name a role of that account",
                    identity.role_arn, identity.account_id
                ),
            )),
            None => Err(call.unreadable("an answer that names no account")),
        }
    }
}
