//! What is watched of one AWS account and Region by one role, for all kinds. What nobody subscribes to is not read.

use crate::{
    api::{ACCOUNT_BINDING, AwsTarget},
    clients::aws::{Account, Accounts, Identity, RoleAccess, reading::AwsSource},
    engine::{
        error::{Class, Error, Result},
        informer::{DynInformer, Informer, PollRate, Polling, ReadOf, Source},
        limits::Priority,
        mirror::Mirrored,
        scope_pool::Scope,
    },
    kinds::{
        alarm_set::{
            closing::Closings,
            cloudwatch::{Alarms, HeldTags},
        },
        cluster_view::{ClusterView, Purpose},
        system::Target,
        tenant::{
            eventbridge::{Paths, Rules},
            sns::{Refusal, SubscriptionAttributes, Topics},
        },
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// What is watched of one account and Region by one role.
pub struct AwsScope {
    /// The account, and who we are there.
    pub account: Arc<Account>,
    /// Whether the role lets us in.
    pub trust: Arc<Informer<RoleTrust>>,
    /// All alarms of this installation there.
    pub alarms: Arc<Informer<AwsSource<Alarms>>>,
    /// Those of their tags that are ours to set.
    pub tags: Arc<Informer<HeldTags>>,
    /// The topics, and who hears them.
    pub topics: Arc<Informer<AwsSource<Topics>>>,
    /// The attributes of who hears them.
    pub subscription_attributes: Arc<Informer<AwsSource<SubscriptionAttributes>>>,
    /// That these may not be set.
    pub unsettable: Refusal,
    /// The rules by name, and their targets.
    pub rules: Arc<Informer<AwsSource<Rules>>>,
    /// The connections and API destinations by name.
    pub paths: Arc<Informer<AwsSource<Paths>>>,
    /// The alarms that were closed and are to be removed.
    pub closings: Arc<Closings>,
}

impl Target for AwsTarget {
    fn place(&self) -> String {
        format!("{}/{}/{}", self.account_id, self.region, self.prefix)
    }

    fn account(&self) -> Option<&str> {
        Some(&self.account_id)
    }

    fn region(&self) -> Option<&str> {
        Some(&self.region)
    }
}

/// Whether a namespace may act in an account at all. What a tenant writes into its spec does not say that.
pub async fn admits(namespace: &str, account: &str, cluster: &ClusterView<'_>) -> Result<()> {
    if !cluster.installation.require_account_binding {
        return Ok(());
    }
    let Some(found) = cluster.grants(namespace).await? else {
        // What is planned for a namespace that is not there yet is judged when it is.
        return match cluster.purpose {
            Purpose::Plan => Ok(()),
            Purpose::Act => Err(Error::failing(format!("Namespace {namespace} is gone"))),
        };
    };
    let bound = found.get(ACCOUNT_BINDING);
    if bound.is_some_and(|bound| bound == account) {
        return Ok(());
    }
    let bound = bound.map_or("no account".to_owned(), |bound| {
        format!("account {bound:?}")
    });
    Err(Error::new(
        Class::Denied,
        format!(
            "Namespace {namespace} is bound to {bound}, not to {account}: nothing is done there. If it is to be, the platform team annotates the Namespace with {ACCOUNT_BINDING}={account}"
        ),
    ))
}

impl AwsScope {
    /// Of one account. Nothing is read yet. `prefix` is that of the names of this installation's alarms.
    pub fn of(account: Arc<Account>, prefix: &str, polling: &Polling) -> Self {
        let trust = RoleTrust {
            access: account.access_changes(),
            account: account.clone(),
        };
        let prefix = prefix.to_owned();
        let alarms = Informer::new(AwsSource::new(&account, Alarms { prefix }), polling);
        let topics = Informer::new(AwsSource::new(&account, Topics), polling);
        let attributes = SubscriptionAttributes {
            topics: topics.clone(),
        };
        Self {
            trust: Informer::new(trust, polling),
            tags: Informer::new(HeldTags::of(&account, &alarms), polling),
            alarms,
            topics,
            subscription_attributes: Informer::new(AwsSource::new(&account, attributes), polling),
            unsettable: Refusal::default(),
            rules: Informer::new(AwsSource::new(&account, Rules), polling),
            paths: Informer::new(AwsSource::new(&account, Paths::default()), polling),
            closings: Arc::default(),
            account,
        }
    }
}

impl Scope for AwsScope {
    type Credentials = Identity;
    /// The accounts, what the names of this installation's alarms begin with, and which of them were closed: a scope that
    /// only a deletion uses is opened anew by each of its runs.
    type Opener = (Arc<Accounts>, String, Arc<Closings>);

    async fn open(
        identity: &Identity,
        (accounts, prefix, closings): &Self::Opener,
        polling: &Polling,
    ) -> Result<Self> {
        Ok(Self {
            closings: closings.clone(),
            ..Self::of(accounts.open(identity).await?, prefix, polling)
        })
    }

    /// Without the attributes of subscriptions: an older role may not read them, and nothing is less known for that.
    fn informers(&self) -> Vec<&dyn DynInformer> {
        vec![
            &*self.trust,
            &*self.alarms,
            &*self.tags,
            &*self.topics,
            &*self.rules,
            &*self.paths,
        ]
    }
}

/// Whether the role still trusts us. Credentials outlive a change of its trust, so it is assumed anew.
pub struct RoleTrust {
    account: Arc<Account>,
    access: RoleAccess,
}

/// There is nothing to see of a role but whether it lets us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nothing;

impl Mirrored for Nothing {
    fn is_equivalent(&self, _: &Self) -> bool {
        true
    }
}

impl Source for RoleTrust {
    type Key = ();
    type Value = Nothing;
    const ENUMERATES: bool = true;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, _: &BTreeSet<()>, _: Priority) -> Result<ReadOf<Self>> {
        self.account.check_unless_recent().await?;
        Ok(ReadOf::<Self>::new())
    }

    /// That it does not let us in any more is told by whatever is refused.
    async fn invalidated(&self) {
        self.access.restored().await;
    }
}
