//! `campanile run`: builds clients, stores and controllers, and runs them while it holds the Lease.

use super::{InstallationArgs, duration};
use crate::{
    clients::{aws::Observer, kubernetes},
    controller::{
        self, Context, digest_key, lease, object_memory::ObjectMemory, pools::Pools, wakers::Wakers,
    },
    engine::{
        error::{Error, Result},
        informer::{PollIntervals, Polling},
    },
    kinds::{job::KindJobs, stores::Stores},
    telemetry::{self, LogFormat, Metrics, Probes},
};
use clap::Args;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A lease that outlasts the longest write by far: the gate refuses one that might not end in time.
const TIMING: lease::Timing = lease::Timing {
    duration: Duration::from_secs(30),
    margin: Duration::from_secs(2),
    renew: Duration::from_secs(5),
    retry: Duration::from_secs(1),
    call: Duration::from_secs(5),
};

/// Options of `campanile run`.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    installation: InstallationArgs,

    /// Look after objects in this namespace only (repeatable). Left out: in all.
    #[arg(long, env = "CAMPANILE_WATCH_NAMESPACE", value_delimiter = ',')]
    watch_namespace: Vec<String>,

    /// How often the alarms of each account are looked at.
    #[arg(long, env = "CAMPANILE_POLL_INTERVAL", default_value = "60s", value_parser = duration)]
    poll_interval: Duration,

    /// How often that is looked at which changes rarely: topics, tags, whether roles still trust us.
    #[arg(long, env = "CAMPANILE_SLOW_POLL_INTERVAL", default_value = "10m", value_parser = duration)]
    slow_poll_interval: Duration,

    /// Where /metrics, /livez and /readyz are served.
    #[arg(long, env = "CAMPANILE_METRICS_ADDR", default_value = "0.0.0.0:8080")]
    metrics_addr: SocketAddr,

    /// Let one of several replicas work, by a Lease.
    #[arg(long, env = "CAMPANILE_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    leader_elect: bool,

    /// How logs are written.
    #[arg(long, env = "CAMPANILE_LOG_FORMAT", value_enum, default_value = "json")]
    log_format: LogFormat,
}

impl Run {
    /// Runs until SIGTERM or SIGINT.
    pub async fn execute(self) -> Result<()> {
        telemetry::init_logs(self.log_format, telemetry::Output::Stdout)?;
        let shutdown = CancellationToken::new();
        end_on_signal(shutdown.clone())?;

        let metrics = Metrics::default();
        let probes = Probes::default();
        let cluster_reached = probes.wait_for("the Kubernetes API");
        let listener = telemetry::bind(self.metrics_addr).await?;
        // To the very end: a process that is winding up is alive.
        let face = telemetry::serve(
            listener,
            probes.clone(),
            metrics.clone(),
            std::future::pending(),
        );

        let work = async {
            let client = kubernetes::client().await?;
            let namespace = &self.installation.operator_namespace;
            let digester =
                digest_key::digester_or_new(&client, namespace, &self.installation.cluster_name)
                    .await?;
            let installation = self.installation.installation(&client, digester).await?;
            cluster_reached.done();
            let replica = std::env::var("HOSTNAME").unwrap_or_else(|_| "campanile".into());
            let held = if self.leader_elect {
                tracing::info!(replica, "waiting for the lease");
                let acquired =
                    lease::acquire(client.clone(), namespace, "campanile", &replica, TIMING);
                tokio::select! {
                    held = acquired => {
                        metrics.leader(true);
                        Some(held?)
                    }
                    () = shutdown.cancelled() => return Ok(()),
                }
            } else {
                None
            };
            let observed = metrics.clone();
            let observer: Observer = Arc::new(move |request| {
                observed.requested(
                    request.service,
                    request.operation,
                    request.outcome,
                    request.took,
                );
            });
            tracing::info!(
                cluster = installation.cluster.name,
                uid = installation.cluster.uid,
                "running"
            );
            let wakers = Wakers::default();
            let intervals = PollIntervals {
                poll: self.poll_interval,
                // Rarely is not more often than often.
                slow: self.slow_poll_interval.max(self.poll_interval),
            };
            let polling = Polling {
                intervals: Some(intervals),
                waker: wakers.waker(),
            };
            let opened = self.installation.open(&installation, &polling, observer);
            let (clients, systems) = opened.await?;
            let context = Arc::new(Context {
                client,
                systems,
                wakers,
                installation,
                clients,
                pools: Pools::default(),
                object_memory: ObjectMemory::default(),
                stores: Stores::default(),
                jobs: KindJobs::default(),
                lease: held.clone(),
                shutdown: shutdown.clone(),
                intervals,
                replica,
                metrics: metrics.clone(),
                probes: probes.clone(),
            });
            let result = controller::run(context, &self.watch_namespace).await;
            if let (Ok(()), Some(held)) = (&result, held) {
                // Ended cleanly, so no write is under way and a successor need not wait.
                held.release().await;
            }
            result
        };
        let result = tokio::select! {
            result = work => result,
            served = face => served,
        };
        tracing::info!(clean = result.is_ok(), "ended");
        result
    }
}

fn end_on_signal(shutdown: CancellationToken) -> Result<()> {
    let listen = |kind| {
        signal(kind).map_err(|error| Error::failing(format!("listening for signals: {error}")))
    };
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: no new work, what is being written is finished");
        shutdown.cancel();
    });
    Ok(())
}
