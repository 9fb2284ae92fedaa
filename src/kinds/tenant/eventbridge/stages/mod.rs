//! The path of one tenant's alarms into Slack, in one place: connections and API destinations, rules and targets.

mod paths;
mod rules;

pub use paths::SlackPaths;
pub use rules::AlarmRules;

use super::desired::{
    Given, MAX_AGE, ObservedPath, PathKey, PathPart, Wanted, concerns, path_name,
};
use crate::{
    api::{TenantObservability, TenantObservabilityStatus},
    clients::{
        aws::{Writer, reading::is_missing},
        secret::redact,
    },
    engine::{
        error::{Error, Result},
        gate::{Operation, WritePermit},
        informer::{Informer, ReadOptions, Snapshot, Source},
        stage::Seen,
    },
    kinds::{aws_scope::AwsScope, installation::Installation, mark::Ownership, names},
};
use aws_sdk_eventbridge::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use kube::ResourceExt;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// For how long a path stays that another one has replaced: what is on its way may be tried for so long, and
/// where a target leads from now on is not known everywhere at once.
const DRAINING: Duration = Duration::from_secs(MAX_AGE.unsigned_abs() as u64);

/// The paths into Slack that we have made, or are about to make, each with what EventBridge was given last.
pub type KnownPaths = BTreeMap<PathKey, Given>;

/// What both stages of the path to Slack have in common.
#[derive(Clone)]
pub struct EventBridgeContext {
    scope: Arc<AwsScope>,
    options: ReadOptions,
    ownership: Ownership,
    /// What the names of all that is the tenant's there begin with.
    prefix: BTreeSet<String>,
    /// Whether anything is wanted there, or may have been made. Otherwise nothing is read.
    active: bool,
    endpoint: String,
    installation: Installation,
    /// The paths by name, whether they are wanted, were, or might have been.
    paths: Arc<BTreeMap<String, PathKey>>,
    /// The names of those in whose place another path into the same channel is wanted.
    replaced: Arc<BTreeSet<String>>,
    recorded: Arc<Mutex<KnownPaths>>,
}

impl EventBridgeContext {
    /// For one tenant in one place. `status` is what was recorded before.
    pub fn new(
        tenant: &TenantObservability,
        wanted: &Wanted,
        status: &TenantObservabilityStatus,
        scope: Arc<AwsScope>,
        options: ReadOptions,
        ownership: Ownership,
        installation: &Installation,
    ) -> Self {
        let mut paths = wanted.paths.clone();
        let mut recorded = KnownPaths::new();
        for entry in &status.slack_paths {
            let path = PathKey::from(entry);
            paths.insert(path_name(tenant, &path, installation), path.clone());
            recorded.insert(path, Given::from(entry));
        }
        let wanted: BTreeSet<_> = wanted.slack.wanted.keys().map(PathPart::name).collect();
        let open = wanted.iter().filter_map(|name| paths.get(*name));
        let open: BTreeSet<_> = open.map(|path| path.channel.as_str()).collect();
        let replaced = paths
            .iter()
            .filter(|(name, path)| !wanted.contains(name.as_str()) && open.contains(&*path.channel))
            .map(|(name, _)| name.clone())
            .collect();
        Self {
            endpoint: scope.account.identity.scope("events"),
            scope,
            options,
            ownership,
            prefix: [names::tenant_prefix(&tenant.name_any())].into(),
            active: concerns(tenant),
            installation: installation.clone(),
            paths: Arc::new(paths),
            replaced: Arc::new(replaced),
            recorded: Arc::new(Mutex::new(recorded)),
        }
    }

    /// The paths that we have made, as they are known by now.
    pub fn known(&self) -> KnownPaths {
        self.recorded.lock().clone()
    }

    /// The path of a connection or an API destination.
    pub fn path(&self, name: &str) -> PathKey {
        PathKey::named(name, &self.paths)
    }

    /// Begins to count for how long the replaced paths stay, from when no target is seen to lead there any more.
    /// `there` and `used` are the names of those that there are, and of those where a target leads.
    fn retire(&self, there: &BTreeSet<&str>, used: &BTreeSet<&str>) {
        let mut retired = self.scope.paths.source.reader.retired.lock();
        let until = Instant::now() + DRAINING;
        for name in self.paths.keys().map(String::as_str) {
            if self.replaced.contains(name) && there.contains(name) && !used.contains(name) {
                retired.entry(name.to_owned()).or_insert(until);
            } else {
                retired.remove(name);
            }
        }
    }

    /// Whether a path stays though another one has replaced it.
    fn is_draining(&self, name: &str) -> bool {
        let retired = self.scope.paths.source.reader.retired.lock();
        let until = retired.get(name);
        self.replaced.contains(name) && until.is_none_or(|until| *until > Instant::now())
    }

    /// When the first of the paths that have been replaced need not stay any longer. `seen`: what there is of them.
    pub fn drained_in(&self, seen: &Seen<SlackPaths>) -> Option<Duration> {
        let retired = self.scope.paths.source.reader.retired.lock();
        let is_there = |name: &&String| seen.contains_key(&PathPart::Destination((*name).clone()));
        let replaced = self.replaced.iter().filter(is_there);
        let left =
            replaced.filter_map(|name| retired.get(name)?.checked_duration_since(Instant::now()));
        left.min()
    }

    fn writer<'p>(&'p self, permit: &'p WritePermit<'_>) -> Result<Writer<'p>> {
        self.scope.account.writer(permit)
    }

    /// The call that makes a change, as the gate sees it.
    fn operation(&self, api: &'static str) -> Operation<'_> {
        self.scope.account.operation(&self.endpoint, api)
    }

    /// What there is of the tenant's.
    async fn observed<S: Source<Key = String>>(
        &self,
        outside: &Informer<S>,
    ) -> Result<Snapshot<S::Value>> {
        if !self.active {
            return Ok(Snapshot::new());
        }
        outside.snapshot(&self.prefix, &self.options).await
    }

    /// What a write to a connection or an API destination leaves behind, as far as it is known.
    fn remember_path<T>(
        &self,
        name: &str,
        outcome: Result<&T, &Error>,
        change: impl FnOnce(&mut ObservedPath, &T),
    ) {
        let paths = &self.scope.paths;
        paths.note(name, outcome, || {
            let known = paths.get(name);
            let mut now = known.map_or_else(ObservedPath::default, |known| (*known).clone());
            if let Ok(made) = outcome {
                change(&mut now, made);
            }
            let there = now.connection.is_some() || now.destination.is_some();
            there.then_some(now)
        });
    }
}

/// What a refusal means. What is missing, or there after all, is known better by the next look.
fn refused<E>(writer: &Writer<'_>, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let refusal = writer.refusal(error);
    if is_missing(error) || is_there(error) {
        return Error::failing(refusal.message);
    }
    refusal
}

/// What came of a deletion; what is gone already is deleted.
fn deleted<T, E>(writer: &Writer<'_>, outcome: Result<T, SdkError<E, HttpResponse>>) -> Result<()>
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match outcome {
        Err(error) if !is_missing(&error) => Err(writer.refusal(&error)),
        _ => Ok(()),
    }
}

/// Whether AWS says that what was to be made is there.
fn is_there<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    let code = error.as_service_error().and_then(|error| error.code());
    code == Some("ResourceAlreadyExistsException")
}

/// AWS quotes what it refuses: `shown` stands for what it was.
fn redacted(error: Error, secret: &str, shown: &str) -> Error {
    let message = redact(&error.message, secret, shown);
    Error { message, ..error }
}

/// The stages on the path to Slack, in order.
pub fn stages(wanted: Wanted, events: &EventBridgeContext) -> (SlackPaths, AlarmRules) {
    let paths = SlackPaths {
        desired: wanted.slack,
        events: events.clone(),
    };
    let rules = AlarmRules {
        desired: wanted.rules,
        feeds: wanted.feeds,
        events: events.clone(),
    };
    (paths, rules)
}

#[cfg(test)]
mod tests;
