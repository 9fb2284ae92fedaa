//! The engine: what is wanted, what is there, the difference, and how it is made. It knows no Kubernetes, no SDK and
//! no web framework, so all of it is tested in memory.
//!
//! | module | what lives in it |
//! |---|---|
//! | [`plan`] | the difference between desired and observed, conflicts included |
//! | [`policy`] | what is done about drift, on deletion, and about what existed before |
//! | [`rendering`] | a change as text, for plans, Events, conditions, the audit line and logs; how texts are cut |
//! | [`stage`] | one sort of thing in one system, and how a run walks the stages of an object |
//! | [`order`] | the order of things that need other things of the same stage |
//! | [`gate`] | what every write passes; the permit without which none is sent |
//! | [`applied`] | what was applied, thing by thing, so that drift is told from edits |
//! | [`informer`] | what is observed of one scope: who reads it when, how fresh an answer must be, who is woken |
//! | [`mirror`] | the memory of an informer: whole snapshots, stamped so that our own later writes win |
//! | [`scope_pool`] | what is watched by one set of credentials: opened, subscribed to, polled, closed |
//! | [`jobs`] | work that outlives a run, a generation and the process: claims, slots, cancellation, recovery |
//! | [`limits`] | how fast an outside API may be asked |
//! | [`error`], [`jitter`] | classes of errors, what is done about each, and after how long |

pub mod applied;
pub mod error;
pub mod gate;
pub mod informer;
pub mod jitter;
pub mod jobs;
pub mod limits;
pub mod mirror;
pub mod order;
pub mod plan;
pub mod policy;
pub mod rendering;
pub mod scope_pool;
pub mod stage;
