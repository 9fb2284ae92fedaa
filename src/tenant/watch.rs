//! What is watched of one scope for its tenants: whether the role still lets us in, the topics and who hears
//! them, and their alarms' way into Slack.

use super::{eventbridge, sns::Topics};
use crate::{
    clients::{
        Clients,
        aws::{Account, Identity, Turns},
        limit::Urgency,
    },
    error::Result,
    installation::Installation,
    mirror::Mirrored,
    outside::{Outside, Polled, ReadOf, Rhythm, Source, Waker},
    scopes::Watch,
};
use std::{
    collections::{BTreeMap, BTreeSet},
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
