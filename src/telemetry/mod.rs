//! How the operator shows what it does: log lines, Prometheus series, and the kubelet's probes.

mod logs;
mod metrics;
mod probes;
mod serve;

pub use logs::{LogFormat, Output, init_logs};
pub use metrics::Metrics;
pub use probes::{Heartbeat, Pending, Probes};
pub use serve::{bind, serve};
