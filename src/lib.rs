//! Campanile: a Kubernetes operator that keeps the observability of many tenants as declared.
//!
//! Every outside system is a keyed map of values. *Desired* is a pure function of the object, *observed*
//! is what the outside has, the *plan* is their difference, and *apply* walks it. Deletion is the same
//! with nothing desired; `campanile plan` is the same without apply.
//!
//! Dependencies point one way: pure ← [`stage`], [`kind`] ← the kinds ← [`controller`] ← [`cli`].
//!
//! | module | what lives in it |
//! |---|---|
//! | [`api`] | the kinds as people write them: types, schema, validation rules, columns (pure) |
//! | [`names`], [`mark`] | what things outside are called, and how ours are told from others' (pure) |
//! | [`error`] | what went wrong, for the person who reads it, and what is done about it (pure) |
//! | [`plan`] | the difference between desired and observed (pure) |
//! | [`secret`] | secrets that cannot be printed, and digests that stand in for them (pure) |
//! | [`installation`] | what does not change while this process runs (pure) |
//! | [`jitter`] | delays, spread (pure but for its dice) |
//! | [`mirror`] | what is observed of one scope: snapshots, stamps (pure) |
//! | [`outside`], [`scopes`] | the outside as a source of events: who reads it when, who is woken; a scope's life |
//! | [`stage`] | the engine: stages, lanes forward and backward, the gate that every write passes |
//! | [`surroundings`] | what a kind may read of the cluster, or of files in its place |
//! | [`kind`] | what the kinds have in common, and how one object is carried out |
//! | [`alarms`] | AlarmSet: CloudWatch alarms |
//! | [`tenant`] | TenantObservability: SNS topics, subscriptions, the way into Slack by EventBridge, the health roll-up |
//! | [`slack`] | SlackChannel: channels, and the messages in them |
//! | [`clients`] | the outside systems' clients: AWS, Slack, the Kubernetes API |
//! | [`controller`] | who is woken when, the one reconcile, the gate, conditions, drift, what Namespaces allow, backoff, the lease |
//! | [`telemetry`] | logs, metrics, probes |
//! | [`cli`] | `run`, `plan`, `crds` |

pub mod alarms;
pub mod api;
pub mod cli;
pub mod clients;
pub mod controller;
pub mod error;
pub mod installation;
pub mod jitter;
pub mod kind;
pub mod mark;
pub mod mirror;
pub mod names;
pub mod outside;
pub mod plan;
pub mod scopes;
pub mod secret;
pub mod slack;
pub mod stage;
pub mod surroundings;
pub mod telemetry;
pub mod tenant;
