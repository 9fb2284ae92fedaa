//! Which replica may write: leadership by a `coordination.k8s.io/v1` Lease. When it is lost, [`keep`] ends, and with it
//! the process.
//!
//! Two writers would fight over the same outside systems, so all that counts is that nobody takes the
//! lease while its holder may still believe in it. The clocks of two machines say nothing about each
//! other; hence time is only ever measured on one machine, on its monotonic clock:
//! - the holder counts from *before* it sent the request that renewed the lease, and stops a margin early;
//! - a candidate counts from *after* it first saw a version of the lease, and takes the lease only if
//!   that very version (it is the write's precondition) has stood for the whole duration.
//!
//! The one is earlier and the other later than the moment at which the API server stored that version,
//! so the two cannot overlap. `renewTime` is written for people and never read.
//!
//! That is why no crate is used: those that are alive compare `renewTime` with the local wall clock, or
//! have nobody told while the API server cannot be reached. What no Lease can cover is a write that was
//! sent in time and arrives late; so ask [`Held::remaining`] before each, and put a time limit on it.

use crate::{
    clients::kubernetes::{self, FIELD_MANAGER},
    engine::error::{Class, Error, Result},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use std::{future::Future, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::{debug, error, info, warn};

/// What a renewal does, for people.
const UPDATE: &str = "updating";

/// How long a lease lasts and how often it is looked at. Pauses are jittered: at most as long as given.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a lease must stand unchanged before another candidate takes it. Whole seconds.
    pub duration: Duration,
    /// How much earlier its holder counts it as lost: for clocks that run unevenly, and to end in.
    pub margin: Duration,
    /// The pause between two renewals.
    pub renew: Duration,
    /// The pause after a failed renewal, and between two looks of a candidate.
    pub retry: Duration,
    /// The time limit of a call to the API server, and of a release as a whole.
    pub call: Duration,
}

impl Default for Timing {
    /// Rides out an API server that does not answer for 8 s: a renewal is then at most 4 s old, and the
    /// third try of the remaining 9 s (two time limits, two pauses) still comes in time.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            margin: Duration::from_secs(2),
            renew: Duration::from_secs(4),
            retry: Duration::from_secs(1),
            call: Duration::from_secs(3),
        }
    }
}

/// Waits until the lease is ours. It is then renewed in the background for as long as a handle is left.
///
/// `identity` is for people (the Pod's name); what makes it this process's own is added here, so that
/// a restarted container cannot take itself for its predecessor. Trouble with the API server is waited
/// out and logged; an error means that waiting will not help: no permission, or no such namespace.
pub async fn acquire(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    timing: Timing,
) -> Result<Held> {
    let claim = Claim {
        api: Api::namespaced(client, namespace),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        identity: format!("{identity}_{:08x}", fastrand::u32(..)),
        timing,
    };
    let (mut sighting, mut failing) = (None, false);
    loop {
        match claim.attempt(&mut sighting).await {
            Ok(Some((lease, sent))) => return Ok(claim.hold(lease, sent)),
            Ok(None) => failing = false,
            Err(error) if matches!(error.class, Class::Denied | Class::Rejected) => {
                return Err(error);
            }
            // Said once, not with every try.
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "could not look for the lease; trying until it can be had");
            }
            Err(error) => debug!(%error, "could not look for the lease"),
        }
        let pause = jittered(timing.retry);
        let left = sighting
            .as_ref()
            .map(|seen| seen.until.saturating_duration_since(Instant::now()));
        sleep(
            left.filter(|left| !left.is_zero())
                .map_or(pause, |left| left.min(pause)),
        )
        .await;
    }
}

/// A lease that is ours, until it is lost or released. Clones are handles of the same lease.
#[derive(Clone, Debug)]
pub struct Held {
    /// `None`: not ours any more, for good.
    until: watch::Receiver<Option<Instant>>,
    release: mpsc::Sender<()>,
}

impl Held {
    /// How long the lease is certainly still ours. Zero once it is lost or released.
    pub fn remaining(&self) -> Duration {
        let until = *self.until.borrow();
        until
            .map(|until| until.saturating_duration_since(Instant::now()))
            .unwrap_or_default()
    }

    /// Resolves when the lease is lost or released. Whoever writes must end then.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut until = self.until.clone();
        async move {
            loop {
                let Some(deadline) = *until.borrow_and_update() else {
                    return;
                };
                if !matches!(timeout_at(deadline, until.changed()).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }

    /// Gives the lease up, so that a successor need not wait. Call it when the last write is done: all
    /// handles count it as lost from here on. Ends within [`Timing::call`], whether the API server
    /// answers or not.
    pub async fn release(mut self) {
        if self.release.send(()).await.is_ok() {
            while self.until.changed().await.is_ok() {}
        }
    }
}

/// A version of the lease that somebody else holds.
#[derive(Clone, Debug, PartialEq)]
struct Sighting {
    version: Option<String>,
    owner: String,
    /// Until when it is not to be taken, unless it is released.
    until: Instant,
}

#[derive(Debug, PartialEq)]
enum Next {
    Take,
    Wait(Sighting),
}

/// What a candidate does about what it sees, and saw before. `duration` is the shortest it waits,
/// whatever the lease says, for its holder may count on as much.
fn next(
    lease: Option<&Lease>,
    before: Option<&Sighting>,
    identity: &str,
    duration: Duration,
    now: Instant,
) -> Next {
    let Some(lease) = lease else {
        // Deleted by hand, which its holder may not know yet.
        return match before {
            Some(seen) if now < seen.until => Next::Wait(seen.clone()),
            _ => Next::Take,
        };
    };
    let owner = owner(lease);
    // Our own name: a write of ours that was stored although its answer got lost.
    if owner.is_empty() || owner == identity {
        return Next::Take;
    }
    match before {
        Some(seen) if seen.version == lease.resource_version() => {
            if now < seen.until {
                Next::Wait(seen.clone())
            } else {
                Next::Take
            }
        }
        _ => {
            let declared = lease
                .spec
                .as_ref()
                .and_then(|spec| spec.lease_duration_seconds);
            let declared = declared
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or_default();
            Next::Wait(Sighting {
                version: lease.resource_version(),
                owner: owner.to_owned(),
                until: now + duration.max(Duration::from_secs(declared)),
            })
        }
    }
}

fn owner(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// The lease as `identity` writes it, whatever else is in it kept.
fn claimed(lease: &Lease, identity: &str, duration: Duration, now: Timestamp) -> Lease {
    let mut claimed = lease.clone();
    let spec = claimed.spec.get_or_insert_with(LeaseSpec::default);
    if owner(lease) != identity {
        spec.lease_transitions = Some(
            spec.lease_transitions
                .map_or(0, |count| count.saturating_add(1)),
        );
        spec.acquire_time = Some(MicroTime(now));
    }
    spec.holder_identity = Some(identity.to_owned());
    // Rounded up: a candidate must never count less than the holder does.
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    claimed
}

/// The lease with nobody in it.
fn vacated(lease: &Lease, now: Timestamp) -> Lease {
    let mut vacated = lease.clone();
    let spec = vacated.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(String::new());
    spec.renew_time = Some(MicroTime(now));
    vacated
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 4.0)
}

/// One process's wish for one lease.
struct Claim {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    timing: Timing,
}

impl Claim {
    /// Looks once, and takes the lease if it is to be had: what was stored, and from when it counts.
    async fn attempt(&self, sighting: &mut Option<Sighting>) -> Result<Option<(Lease, Instant)>> {
        let found = self.get().await?;
        let now = Instant::now();
        match next(
            found.as_ref(),
            sighting.as_ref(),
            &self.identity,
            self.timing.duration,
            now,
        ) {
            Next::Wait(seen) => {
                if sighting
                    .as_ref()
                    .is_none_or(|before| before.owner != seen.owner)
                {
                    info!(
                        lease = self.name,
                        owner = seen.owner,
                        "standing by: another replica leads"
                    );
                }
                *sighting = Some(seen);
                Ok(None)
            }
            Next::Take => match self
                .put(&self.claimed(&found.unwrap_or_else(|| self.blank())))
                .await
            {
                Ok(lease) => Ok(Some((lease, now))),
                // Another candidate was quicker; the next look tells who.
                Err(error) if error.class == Class::Conflict => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Renews in the background what was taken with a request sent at `sent`.
    fn hold(self, lease: Lease, sent: Instant) -> Held {
        info!(lease = self.name, identity = self.identity, "leading");
        let (until, held_until) = watch::channel(Some(self.valid_until(sent)));
        let (release, released) = mpsc::channel(1);
        tokio::spawn(self.keep(lease, until, released));
        Held {
            until: held_until,
            release,
        }
    }

    async fn keep(
        self,
        mut lease: Lease,
        until: watch::Sender<Option<Instant>>,
        mut released: mpsc::Receiver<()>,
    ) {
        let mut pause = jittered(self.timing.renew);
        loop {
            let Some(deadline) = *until.borrow() else {
                return;
            };
            let renewal = async {
                sleep(pause).await;
                let sent = Instant::now();
                (
                    sent,
                    self.rewrite(&lease, |lease| self.claimed(lease)).await,
                )
            };
            let (sent, renewed) = tokio::select! {
                // In this order: an answer that comes too late must not bring a lost lease back.
                biased;
                () = sleep_until(deadline) => break error!(lease = self.name, "lost the lease: it could not be renewed in time"),
                asked = released.recv() => {
                    until.send_replace(None);
                    if asked.is_some() {
                        self.release(&lease).await;
                    }
                    return;
                }
                renewal = renewal => renewal,
            };
            match renewed {
                Ok(_) if Instant::now() >= deadline => {
                    break error!(
                        lease = self.name,
                        "lost the lease: the answer to its renewal came too late"
                    );
                }
                Ok(renewed) => {
                    lease = renewed;
                    pause = jittered(self.timing.renew);
                    until.send_replace(Some(self.valid_until(sent)));
                }
                Err(error) if error.class == Class::Superseded => {
                    break error!(lease = self.name, %error, "lost the lease");
                }
                Err(error) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    warn!(%error, left_seconds = left.as_secs(), "could not renew the lease; trying again");
                    pause = jittered(self.timing.retry);
                }
            }
        }
        until.send_replace(None);
    }

    async fn release(&self, lease: &Lease) {
        let vacate = self.rewrite(lease, |lease| vacated(lease, Timestamp::now()));
        match timeout(self.timing.call, vacate).await {
            Ok(Ok(_)) => info!(lease = self.name, "released the lease"),
            Ok(Err(error)) => warn!(%error, "could not release the lease; it runs out by itself"),
            Err(_) => warn!(
                lease = self.name,
                "could not release the lease in time; it runs out by itself"
            ),
        }
    }

    /// Changes the lease, provided that it is still ours.
    async fn rewrite(&self, lease: &Lease, change: impl Fn(&Lease) -> Lease) -> Result<Lease> {
        match self.put(&change(lease)).await {
            Err(error) if error.class == Class::Conflict => {}
            outcome => return outcome,
        }
        // Perhaps only the version is stale: the answer to a write of ours got lost, or somebody set a label.
        match self.get().await? {
            Some(lease) if owner(&lease) == self.identity => self.put(&change(&lease)).await,
            Some(lease) => {
                let taker = if owner(&lease).is_empty() {
                    "somebody"
                } else {
                    owner(&lease)
                };
                Err(Error::new(
                    Class::Superseded,
                    format!("{taker} has taken it from us"),
                ))
            }
            None => Err(Error::new(Class::Superseded, "somebody has deleted it")),
        }
    }

    async fn get(&self) -> Result<Option<Lease>> {
        self.call("reading", self.api.get_opt(&self.name)).await
    }

    /// Stores the lease if it is still at its version, or still absent if it has none.
    async fn put(&self, lease: &Lease) -> Result<Lease> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        if lease.metadata.resource_version.is_some() {
            self.call(UPDATE, self.api.replace(&self.name, &params, lease))
                .await
        } else {
            self.call("creating", self.api.create(&params, lease)).await
        }
    }

    async fn call<T>(
        &self,
        verb: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T> {
        let Self {
            namespace,
            name,
            timing: Timing { call: limit, .. },
            ..
        } = self;
        let doing = format!("{verb} Lease {namespace}/{name}");
        let error = match timeout(*limit, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => return Err(kubernetes::late(&doing, *limit)),
        };
        let mut told = kubernetes::classify(&doing, &error);
        let kube::Error::Api(status) = error else {
            return Err(told);
        };
        if told.class == Class::Denied {
            told.message +=
                &format!("; the operator needs get, create and update on leases in {namespace}");
        }
        told.class = match status.reason.as_str() {
            "Conflict" | "AlreadyExists" => Class::Conflict,
            "NotFound" if verb == UPDATE => Class::Conflict,
            "BadRequest" | "NotFound" | "Invalid" => Class::Rejected,
            _ => told.class,
        };
        Err(told)
    }

    fn valid_until(&self, sent: Instant) -> Instant {
        sent + self.timing.duration.saturating_sub(self.timing.margin)
    }

    fn claimed(&self, lease: &Lease) -> Lease {
        claimed(
            lease,
            &self.identity,
            self.timing.duration,
            Timestamp::now(),
        )
    }

    fn blank(&self) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.name.clone());
        lease
    }
}

#[cfg(test)]
mod tests;
