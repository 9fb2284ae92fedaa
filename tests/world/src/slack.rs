//! Slack: several workspaces behind one Web API and one host of incoming webhooks, as strict as the real one, and judged.
//!
//! What a bot may see and do follows Slack's rules: a private channel that it is not in is not there, archiving takes it out for
//! good, names stay taken. Every request and every answer is held against Slack's published contract where that is at hand
//! (`contract.rs` says where); whatever breaks it is refused, changes nothing, and is told by [`Slack::violations`].
//!
//! `POST <url>/api/<method>` with a token of [`Workspace::bot`], `POST <url>/services/T…/B…/…` as [`Workspace::webhook`] hands out,
//! and `GET <url>/record` for people.

mod arguments;
mod blocks;
mod calls;
mod chat;
mod contract;
mod conversations;
mod methods;
mod people;
mod rates;
mod render;
mod serve;
mod state;
mod trouble;
mod workspace;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use tokio::sync::watch;

pub use calls::{Call, Mark};
pub use render::{paint, render};
pub use state::{By, Channel, Edit, Message};
pub use trouble::{Filter, Trouble};
pub use workspace::Workspace;

use crate::server::{Port, Server};
use contract::Contract;
use rates::Rates;
use state::State;
use trouble::Troubles;

/// What a call to an incoming webhook is called in place of a method.
pub const WEBHOOK: &str = "webhook";

/// All scopes that Campanile asks for, and those that it can use.
pub const ALL_SCOPES: [&str; 11] = [
    "channels:join",
    "channels:manage",
    "channels:read",
    "chat:write",
    "chat:write.public",
    "groups:read",
    "groups:write",
    "incoming-webhook",
    "team:read",
    "users:read",
    "users:read.email",
];

/// Slack on loopback. Dropping it ends it.
pub struct Slack {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: watch::Sender<usize>,
}

struct Inner {
    state: State,
    calls: Vec<Call>,
    /// The workspace's id, and what was wrong.
    violations: Vec<(String, String)>,
    troubles: Troubles,
    rates: Rates,
    /// The workspaces whose rates are kept.
    limited: HashSet<String>,
    contract: Option<&'static Contract>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look<T>(&self, which: impl FnOnce(&Inner) -> T) -> T {
        which(&self.lock())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        changed
    }

    /// Waits until `which` finds what it looks for; `what` is told when `limit` is over.
    async fn wait<T>(
        &self,
        limit: Duration,
        which: impl Fn() -> Option<T>,
        what: impl Fn() -> String,
    ) -> Result<T> {
        let mut changes = self.changed.subscribe();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = which() {
                    return found;
                }
                // The sender lives as long as we do.
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(found) => Ok(found),
            Err(_) => bail!(
                "Slack did not see it within {limit:?}; what it has:\n{}",
                what()
            ),
        }
    }
}

impl Inner {
    /// Everything, for people: channels and what stands in them.
    fn told(&self) -> String {
        self.state
            .teams
            .values()
            .map(|team| self.told_of(&team.id))
            .collect()
    }

    fn told_of(&self, workspace: &str) -> String {
        let Some(team) = self.state.teams.get(workspace) else {
            return String::new();
        };
        let mut told = format!("{} ({})\n", team.name, team.id);
        for room in &team.rooms {
            let Channel {
                id,
                name,
                is_private,
                is_archived,
                topic,
                members,
                ..
            } = &room.channel;
            let private = if *is_private { ", private" } else { "" };
            let archived = if *is_archived { ", archived" } else { "" };
            let members: Vec<_> = members.iter().map(|user| team.name_of(user)).collect();
            told.push_str(&format!(
                "\n#{name} ({id}{private}{archived}) {topic}\n  with {}\n",
                members.join(", ")
            ));
            for message in &room.messages {
                for line in render(message).lines() {
                    told.push_str(&format!("  {line}\n"));
                }
            }
        }
        let calls = self.calls.iter().filter(|call| call.workspace == workspace);
        let calls: Vec<_> = calls
            .map(|call| {
                format!(
                    "{} {} {}",
                    call.at,
                    call.method,
                    call.error.as_deref().unwrap_or("ok")
                )
            })
            .collect();
        if !calls.is_empty() {
            told.push_str(&format!("\ncalls\n  {}\n", calls.join("\n  ")));
        }
        told.push('\n');
        told
    }
}

impl Slack {
    /// Starts it on a free port of loopback. Fails if the contract is there but cannot be read.
    pub async fn start() -> Result<Self> {
        let inner = Inner {
            state: State::default(),
            calls: Vec::new(),
            violations: Vec::new(),
            troubles: Troubles::default(),
            rates: Rates::default(),
            limited: HashSet::new(),
            contract: contract::contract()?,
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
        });
        let server = Server::start("Slack", Port::take()?, {
            let shared = Arc::clone(&shared);
            move |listener| serve::serve(shared, listener)
        })?;
        Ok(Self { server, shared })
    }

    /// Where it is: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What `SLACK_API_URL` is set to: methods are below it.
    pub fn api_url(&self) -> String {
        format!("{}/api", self.url())
    }

    /// The workspace of that name, made if there is none. It has a person, its owner, and the channel `general`.
    pub fn workspace(&self, name: &str) -> Workspace {
        let id = self
            .shared
            .change(|inner| inner.state.team_named(name, Timestamp::now()));
        Workspace::new(Arc::clone(&self.shared), self.url(), id, name.to_owned())
    }

    /// Whether requests and answers are held against Slack's contract, because it is at hand.
    pub fn is_judged(&self) -> bool {
        self.shared.look(|inner| inner.contract.is_some())
    }

    /// What broke the contract so far, in any workspace or with a token of none: `<workspace> <method> request: <what>`.
    pub fn violations(&self) -> Vec<String> {
        self.shared.look(|inner| {
            inner
                .violations
                .iter()
                .map(|(_, what)| what.clone())
                .collect()
        })
    }

    /// Makes calls of `method` ([`WEBHOOK`] for webhooks, `*` for anything) that `filter` lets through meet `trouble`: the next
    /// `times`, or all until [`Slack::lift`] where it is `None`. Troubles of the same calls come one after the other, as they were set.
    pub fn trouble(
        &self,
        method: &str,
        filter: impl Into<Filter>,
        trouble: Trouble,
        times: impl Into<Option<usize>>,
    ) {
        let (filter, times) = (filter.into(), times.into());
        self.shared
            .change(|inner| inner.troubles.set(method, filter, trouble, times));
    }

    /// Ends the troubles of `method` (`*` for every one) that were set with just this filter.
    pub fn lift(&self, method: &str, filter: impl Into<Filter>) {
        let filter = filter.into();
        self.shared
            .change(|inner| inner.troubles.lift(method, &filter));
    }

    /// What was called so far in all workspaces, in the order in which it was answered.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_since(Mark(0))
    }

    /// What was answered since `mark`.
    pub fn calls_since(&self, Mark(begin): Mark) -> Vec<Call> {
        self.shared
            .look(|inner| inner.calls.get(begin..).unwrap_or_default().to_vec())
    }

    /// How many calls `which` is true of.
    pub fn count(&self, which: impl Fn(&Call) -> bool) -> usize {
        self.shared
            .look(|inner| inner.calls.iter().filter(|call| which(call)).count())
    }

    /// Now, for [`Slack::calls_since`] and [`Workspace::calls_since`].
    pub fn mark(&self) -> Mark {
        self.shared.look(|inner| Mark(inner.calls.len()))
    }

    /// Waits until `which` finds what it looks for; fails, showing everything, when `limit` is over.
    pub async fn wait<T>(&self, limit: Duration, which: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let what = || self.shared.look(Inner::told);
        self.shared.wait(limit, || which(self), what).await
    }
}

impl std::fmt::Debug for Slack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slack")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
