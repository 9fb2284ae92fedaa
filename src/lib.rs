//! Campanile: a Kubernetes operator that keeps the observability of many tenants as declared.
//!
//! Every outside system is a keyed map of values. *Desired* is a pure function of the object, *observed*
//! is what the outside has, the *plan* is their difference, and *apply* walks it. Deletion is the same
//! with nothing desired; `campanile plan` is the same without apply.
//!
//! Dependencies point one way: [`engine`], [`api`] ← [`clients`] ← [`kinds`] ← [`controller`] ← [`cli`].
//!
//! | module | what lives in it |
//! |---|---|
//! | [`engine`] | plan, stages, informers, limits, classes of errors: no Kubernetes, no SDK |
//! | [`api`] | the kinds as people write them: types, schema, validation rules, columns |
//! | [`clients`] | the outside systems' clients: AWS, Slack, the Kubernetes API; secrets that cannot be printed |
//! | [`kinds`] | what a kind is, what things are called outside and how ours are told from others'; each kind in a module of its own |
//! | [`controller`] | who is woken when, the one reconcile, its gate, conditions, drift, Events, the Lease |
//! | [`telemetry`] | logs, metrics, probes |
//! | [`cli`] | `run`, `plan`, `crds` |

pub mod api;
pub mod cli;
pub mod clients;
pub mod controller;
pub mod engine;
pub mod kinds;
pub mod telemetry;

#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod testing;
