//! What is watched of one scope for its tenants: whether the role still lets us in, the topics and who hears
//! them, and their alarms' way into Slack.

use super::{eventbridge, sns::Topics};
use crate::{
    clients::{
        Clients,
        aws::{Account, Identity, RoleAccess},
    },
    engine::{
        error::Result,
        informer::{Informer, PollRate, Polled, ReadOf, Source, Waker},
        limits::Priority,
        mirror::Mirrored,
        scope_pool::Scope,
    },
    kinds::installation::Installation,
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::time::Instant;

/// What is watched of one scope for its tenants.
pub struct TenantScope {
    /// The account, and who we are there.
    pub account: Arc<Account>,
    /// Whether the role lets us in.
    pub trust: Informer<Trust>,
    /// The topics by ARN, and who hears them.
    pub topics: Informer<Topics>,
    /// The rules by name, and their targets.
    pub rules: Informer<eventbridge::Rules>,
    /// The connections and API destinations by name.
    pub paths: Informer<eventbridge::Paths>,
    /// The connections that have been written again since they were seen to be refused.
    revived: Mutex<BTreeSet<String>>,
    /// Until when the ways into Slack stay that have been replaced, by the names of their connections.
    retired: Mutex<BTreeMap<String, Instant>>,
}

impl TenantScope {
    /// Of one account. Nothing is read yet.
    pub fn of(account: Arc<Account>, waker: &Waker) -> Self {
        let trust = Trust {
            turns: account.turns(),
            account: account.clone(),
        };
        Self {
            trust: Informer::new(trust, waker.clone()),
            topics: Informer::new(Topics::of(&account), waker.clone()),
            rules: Informer::new(eventbridge::Rules::of(&account), waker.clone()),
            paths: Informer::new(eventbridge::Paths::of(&account), waker.clone()),
            revived: Mutex::default(),
            retired: Mutex::default(),
            account,
        }
    }

    /// The connections that have been written again since they were seen to be refused, by name.
    pub fn revived(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.revived.lock()
    }

    /// Until when the ways into Slack stay that have been replaced, by the names of their connections. Whoever
    /// does not know counts anew.
    pub fn retired(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.retired.lock()
    }
}

impl Scope for TenantScope {
    type Credentials = Identity;

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
    turns: RoleAccess,
}

/// There is nothing to see of a role but whether it lets us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nothing;

impl Mirrored for Nothing {
    fn is_equivalent(&self, _: &Self) -> bool {
        true
    }
}

impl Source for Trust {
    type Value = Nothing;
    const ENUMERATES: bool = true;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, _: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
        self.account.check_unless_let_in().await?;
        Ok(ReadOf::<Self>::new())
    }

    async fn read_some(&self, _: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.read(&BTreeSet::new(), priority).await
    }

    /// That it does not let us in any more is told by whatever is refused.
    async fn invalidated(&self) {
        self.turns.let_in().await;
    }
}
