//! The engine: a kind is a row of stages; upserts run forward, deletes backward, and every write
//! passes one gate. Deletion is the same with nothing desired, a plan is the same without a gate.

use crate::engine::{
    error::{Class, Error, On, Result},
    plan::{self, Change, Desired, Found, Owner, Step, Value, Verb},
    policy::{AdoptionPolicy, DriftPolicy},
};
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Display,
    future::{self, Future},
    iter::repeat_with,
};

/// All that a stage has seen.
pub type Seen<S> =
    BTreeMap<<S as Stage>::Key, Found<<S as Stage>::Value, <S as Stage>::Id, <S as Stage>::Live>>;

/// A change of a stage.
pub type ChangeOf<S> = Change<<S as Stage>::Key, <S as Stage>::Value, <S as Stage>::Id>;

/// One kind of thing in one outside system, held by one object: a keyed map of values.
pub trait Stage: Send + Sync {
    /// What one such thing is called: `alarm`, `topic`.
    const NAME: &'static str;
    /// The stages whose things this one's refer to: made before, deleted after.
    const NEEDS: &'static [&'static str] = &[];
    /// Whether making a thing twice makes two. The gate then writes the intent to status first.
    const LEDGER: bool = false;

    /// What tells the things apart; its `Display` is for people, and tells them apart as well.
    type Key: Ord + Clone + Display + Send + Sync;
    /// A thing's configuration.
    type Value: Value;
    /// The name that the outside gives, `()` where names are ours.
    type Id: Clone + Send + Sync;
    /// What a thing is doing, as opposed to how it is configured.
    type Live: Clone + Send + Sync;

    /// What one refusal or throttling stops: credential, Region and service.
    fn scope(&self) -> &str;
    /// What is to be there. Pure.
    fn desired(&self) -> &Desired<Self::Key, Self::Value>;
    /// What is there. Never writes; an error is never absence.
    fn observe(&self, ids: &Ids) -> impl Future<Output = Result<Seen<Self>>> + Send
    where
        Self: Sized;
    /// Reads these things again, by name, where what was seen is old enough for somebody to have come in
    /// between; `None` where it was read for this very run.
    fn confirm(
        &self,
        _keys: &BTreeSet<Self::Key>,
        _ids: &Ids,
    ) -> impl Future<Output = Result<Option<Seen<Self>>>> + Send
    where
        Self: Sized,
    {
        future::ready(Ok(None))
    }
    /// What to do about the difference. Pure.
    fn decide(&self, seen: &Seen<Self>) -> Vec<ChangeOf<Self>>
    where
        Self: Sized,
    {
        plan::diff(self.desired(), seen)
    }
    /// Whether what a change refers to is there; nothing is promised or sent before it is.
    fn ready(&self, _change: &ChangeOf<Self>, _ids: &Ids) -> Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }
    /// Why nobody but a person can make a change, where that is so: it is told and not even tried. Pure.
    fn objection(&self, _change: &ChangeOf<Self>) -> Option<Error>
    where
        Self: Sized,
    {
        None
    }
    /// The call that makes a change.
    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_>
    where
        Self: Sized;
    /// Whether a thing that is to be removed stays for the time being, because what replaces it does not
    /// serve yet. True only where [`Stage::was_replaced`] is, and known without asking outside.
    fn stays(&self, _key: &Self::Key, _seen: &Seen<Self>) -> bool
    where
        Self: Sized,
    {
        false
    }
    /// Whether a thing that is not wanted any more was left by an edit until what replaces it serves. Its
    /// removal is no drift then, however late it comes. Pure.
    fn was_replaced(&self, _key: &Self::Key) -> bool
    where
        Self: Sized,
    {
        false
    }
    /// How many changes of this sort go into one call.
    fn batch(&self, _verb: Verb) -> usize {
        1
    }
    /// Makes the changes, all of one verb and at most [`Stage::batch`] of them; an answer for each, in order.
    fn apply(
        &self,
        changes: &[ChangeOf<Self>],
        ids: &Ids,
    ) -> impl Future<Output = Vec<Result<Applied>>> + Send
    where
        Self: Sized;
    /// What a thing is, whatever it is called: where a key holds something that may be edited, the thing
    /// under the old key stays until the one under the new key is made.
    fn identity(&self, key: &Self::Key) -> String {
        key.to_string()
    }
    /// What later stages know a thing by.
    fn id_text(_id: &Self::Id) -> String {
        String::new()
    }
}

/// A call that writes, as the gate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// As [`Stage::scope`].
    pub scope: &'a str,
    /// Whose quota it uses up.
    pub account: &'a str,
    /// Where.
    pub region: &'a str,
    /// As whom: the role.
    pub identity: &'a str,
    /// The API, as IAM spells it: `cloudwatch:PutMetricAlarm`.
    pub api: &'static str,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is done.
    ReconcileResult,
    /// It is done, and later stages know the new thing by this.
    Id(String),
}

/// What the stages before have made or found, by stage and key. Only things that are ours.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    known: BTreeMap<(&'static str, String), String>,
    new: BTreeSet<(&'static str, String)>,
}

impl Ids {
    /// What `stage` calls the thing `key`.
    pub fn get(&self, stage: &'static str, key: &str) -> Option<&str> {
        let id = self.known.get(&(stage, key.to_owned()));
        id.map(String::as_str)
    }

    /// Whether this very run has made it.
    pub fn is_new(&self, stage: &'static str, key: &str) -> bool {
        self.new.contains(&(stage, key.to_owned()))
    }

    /// The same, where nothing can be done without it.
    pub fn need(&self, stage: &'static str, key: &str) -> Result<&str> {
        self.get(stage, key).ok_or_else(|| {
            Error::new(
                Class::Waiting(On::Prerequisite),
                format!("waiting for the {stage} {key}"),
            )
        })
    }
}

/// What every outside write passes. In `plan` there is none.
pub trait Gate: Send + Sync {
    /// May these changes be written now, in one call? Lease still held, not shutting down, no newer
    /// generation, and the quota allows it; it waits for the latter.
    fn enter<'a>(
        &'a self,
        operation: Operation<'a>,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Result<()>>;
    /// Records in status that this thing is about to be made. Only for stages with a ledger.
    fn intend<'a>(&'a self, step: &'a Step) -> BoxFuture<'a, Result<()>>;
    /// Records in status what the outside calls the thing that has been made. Only for stages with a
    /// ledger. Where that fails, what was intended still stands there.
    fn record<'a>(&'a self, step: &'a Step, id: &'a str) -> BoxFuture<'a, ()>;
    /// A call that was entered has been answered, once for all that was in it; whether anything of it was done.
    fn answered(&self, operation: Operation<'_>, done: bool);
    /// A change's outcome. The step of a deletion has what is lost by it.
    fn leave(&self, operation: Operation<'_>, step: &Step, outcome: &Result<Applied>);
    /// The refusal, where this very change, or any in this scope, was refused so lately that it is not
    /// worth asking again.
    fn refused(&self, scope: &str, step: &Step) -> Option<Error>;
}

/// Something that could not be done.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In which stage.
    pub stage: &'static str,
    /// To which thing; `None` if the stage could not even look.
    pub key: Option<String>,
    /// Why, and what to do.
    pub error: Error,
    /// Whether it was to be removed.
    pub deletes: bool,
    /// Whether it was not even asked for, because what the spec says or refers to makes no sense yet.
    pub held: bool,
}

impl Failure {
    /// As which class of error it is tried again: why a deletion is refused is seldom the thing's own
    /// fault, so whatever is in its way may go at any time.
    pub fn again(&self) -> Class {
        match self.error.class {
            Class::Rejected if self.deletes => Class::Failing,
            class => class,
        }
    }
}

/// What a run planned, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was to be done, in order.
    pub planned: Vec<Step>,
    /// What of it was made, in order.
    pub made: Vec<Step>,
    /// What of it came about outside after everything had been applied, whether it was repaired or not.
    pub drift: Vec<Step>,
    /// How many were not even tried, because the scope was stopped or a failure holds them back.
    pub untried: usize,
    /// How many deletions are put off until what replaces the thing serves.
    pub later: usize,
    /// What failed.
    pub failed: Vec<Failure>,
}

impl Report {
    /// Whether the outside is now as desired.
    pub fn is_settled(&self) -> bool {
        self.failed.is_empty() && self.untried == 0 && self.later == 0
    }
}

/// Where a difference between what is wanted and what is there comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Something else is wanted than what was last applied completely.
    #[default]
    Edit,
    /// What is wanted has been applied completely before: it came about outside, and this is done about it.
    Informer(DriftPolicy),
}

/// One run over all stages of an object in one place.
#[derive(Default)]
pub struct Run<'a> {
    gate: Option<&'a dyn Gate>,
    /// Where differences come from.
    pub origin: Origin,
    ids: Ids,
    /// What became of it.
    pub report: Report,
    stopped: BTreeSet<String>,
    superseded: bool,
    /// What could not look, or needs what could not.
    blind: BTreeSet<&'static str>,
    /// What has something still to do that may yet be done, and what it needs: no deletions there.
    unsettled: BTreeMap<&'static str, &'static [&'static str]>,
}

impl<'a> Run<'a> {
    /// A run that only plans.
    pub fn plan() -> Self {
        Self::default()
    }

    /// A run whose writes pass `gate`.
    pub fn through(gate: &'a dyn Gate) -> Self {
        Self {
            gate: Some(gate),
            ..Self::default()
        }
    }
}

/// The boxed face of a [`Stage`], so that a kind is a row of them.
pub trait DynStage: Send {
    /// Observes, plans, and makes what is to be made or changed.
    fn forward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()>;
    /// Adds what is wanted to a digest. Holds no secret.
    fn digest(&self, digest: &mut Sha256);
    /// Deletes what is to be deleted.
    fn backward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()>;
    /// Reads again what was written, so that the report is of the outside and not of our hopes.
    fn settle<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()>;
}

/// A stage on its way through a run.
pub struct StageRun<S: Stage> {
    /// The stage.
    pub stage: S,
    /// What it saw last; `None` while it has not been able to look.
    pub seen: Option<Seen<S>>,
    deletes: Vec<ChangeOf<S>>,
    /// What is wanted and was not made, by identity.
    unmade: BTreeSet<String>,
    wrote: bool,
}

impl<S: Stage> StageRun<S> {
    /// A stage at the start of a run.
    pub fn new(stage: S) -> Self {
        Self {
            stage,
            seen: None,
            deletes: Vec::new(),
            unmade: BTreeSet::new(),
            wrote: false,
        }
    }

    /// Says what failed.
    fn tell(key: Option<String>, error: Error, run: &mut Run<'_>) {
        run.report.failed.push(Failure {
            stage: S::NAME,
            key,
            error,
            held: false,
            deletes: false,
        });
    }

    /// The same of what the outside or the gate answered: it may go for the whole scope, and it holds
    /// back deletions if it may pass.
    fn fail(&self, step: Option<Step>, error: Error, run: &mut Run<'_>) {
        if error.class.stops_scope() {
            run.stopped.insert(self.stage.scope().to_owned());
        }
        run.superseded |= error.class == Class::Superseded;
        let passes = match error.class {
            // What it waits for has said why, and whether that may pass.
            Class::Waiting(On::Prerequisite) => {
                let mut needs = S::NEEDS.iter();
                needs.any(|need| run.unsettled.contains_key(need))
            }
            class => class.is_transient(),
        };
        if passes {
            run.unsettled.insert(S::NAME, S::NEEDS);
        }
        let deletes = step.as_ref().is_some_and(|step| step.verb == Verb::Delete);
        run.report.failed.push(Failure {
            stage: S::NAME,
            key: step.map(|step| step.key),
            error,
            held: false,
            deletes,
        });
    }

    /// A change as the gate sees it, which keeps the record.
    fn entered(&self, change: &ChangeOf<S>) -> Step {
        let step = Step::of(S::NAME, change);
        let seen = self.seen.as_ref().filter(|_| step.verb == Verb::Delete);
        match seen.and_then(|seen| seen.get(change.key())) {
            Some(lost) => step.losing(&lost.value),
            None => step,
        }
    }

    fn leave_untried(count: usize, run: &mut Run<'_>) {
        run.report.untried += count;
        run.unsettled.insert(S::NAME, S::NEEDS);
    }

    /// What is there, and what to do about it; `None` if that cannot be known.
    async fn look(&mut self, run: &mut Run<'_>) -> Option<Vec<ChangeOf<S>>> {
        match self.see(&run.ids).await {
            Ok((seen, changes)) => {
                self.seen = Some(seen);
                Some(changes)
            }
            Err(error) => {
                self.fail(None, error, run);
                None
            }
        }
    }

    async fn see(&self, ids: &Ids) -> Result<(Seen<S>, Vec<ChangeOf<S>>)> {
        let mut seen = self.stage.observe(ids).await?;
        let changes = self.stage.decide(&seen);
        let moving = changes
            .iter()
            .filter(|change| change.verb() != Verb::Conflict);
        let keys: BTreeSet<_> = moving.map(|change| change.key().clone()).collect();
        if keys.is_empty() {
            return Ok((seen, changes));
        }
        let Some(mut fresh) = self.stage.confirm(&keys, ids).await? else {
            return Ok((seen, changes));
        };
        for key in keys {
            match fresh.remove(&key) {
                Some(found) => drop(seen.insert(key, found)),
                None => drop(seen.remove(&key)),
            }
        }
        let changes = self.stage.decide(&seen);
        Ok((seen, changes))
    }

    /// Makes changes that all have one verb.
    async fn make(&mut self, changes: Vec<ChangeOf<S>>, run: &mut Run<'_>) {
        let mut fresh = Vec::with_capacity(changes.len());
        for change in changes {
            let step = self.entered(&change);
            let scope = self.stage.scope();
            let refusal = run.gate.and_then(|gate| gate.refused(scope, &step));
            if let Some(refusal) = refusal {
                self.fail(Some(step), refusal, run);
            } else if let (Some(_), Err(error)) = (run.gate, self.stage.ready(&change, &run.ids)) {
                self.fail(Some(step), error, run);
            } else {
                fresh.push(change);
            }
        }
        let Some(verb) = fresh.first().map(Change::verb) else {
            return;
        };
        let Some(gate) = run.gate else { return };
        let batches = fresh.chunks(self.stage.batch(verb).max(1));
        let mut waiting: VecDeque<&[ChangeOf<S>]> = batches.collect();
        while let Some(batch) = waiting.pop_front() {
            if run.stopped.contains(self.stage.scope()) {
                Self::leave_untried(batch.len(), run);
                continue;
            }
            let steps: Vec<_> = batch.iter().map(|change| self.entered(change)).collect();
            let Some(first) = batch.first() else { continue };
            let operation = self.stage.operation(first);
            if let Err(error) = Self::admit(gate, operation, &steps).await {
                for step in steps {
                    self.fail(Some(step), error.clone(), run);
                }
                continue;
            }
            // Whatever comes of it, the outside may have changed.
            self.wrote = true;
            let outcomes = self.stage.apply(batch, &run.ids).await;
            gate.answered(operation, outcomes.iter().any(Result::is_ok));
            if batch.len() > 1 && outcomes.iter().all(is_rejected) {
                // One of them is enough for all to be refused: each for itself, then.
                for one in batch.chunks(1).rev() {
                    waiting.push_front(one);
                }
                continue;
            }
            let unknown = || Err(Error::new(Class::Cut, "there was no answer"));
            let outcomes = outcomes.into_iter().chain(repeat_with(unknown));
            for ((step, change), outcome) in steps.iter().zip(batch).zip(outcomes) {
                gate.leave(operation, step, &outcome);
                if let (true, Verb::Create, Ok(Applied::Id(id))) = (S::LEDGER, step.verb, &outcome)
                {
                    gate.record(step, id).await;
                }
                match outcome {
                    Ok(applied) => {
                        run.report.made.push(Step::of(S::NAME, change));
                        let name = (S::NAME, step.key.clone());
                        match change {
                            Change::Create { .. } => drop(run.ids.new.insert(name.clone())),
                            // What was adopted is ours from now on.
                            Change::Update { ours, .. } => {
                                let id = S::id_text(ours.id());
                                run.ids.known.entry(name.clone()).or_insert(id);
                            }
                            Change::Delete { .. } | Change::Conflict { .. } => {}
                        }
                        if let Applied::Id(id) = applied {
                            run.ids.known.insert(name, id);
                        }
                    }
                    Err(error) => self.fail(Some(step.clone()), error, run),
                }
            }
        }
    }

    async fn admit(gate: &dyn Gate, operation: Operation<'_>, steps: &[Step]) -> Result<()> {
        if S::LEDGER {
            for step in steps.iter().filter(|step| step.verb == Verb::Create) {
                gate.intend(step).await?;
            }
        }
        // Last, so that what it says holds when the call is sent.
        gate.enter(operation, steps).await
    }
}

fn is_rejected(outcome: &Result<Applied>) -> bool {
    matches!(outcome, Err(error) if error.class == Class::Rejected)
}

impl<S: Stage> DynStage for StageRun<S> {
    fn forward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // The stage that could not look has said why; without it we would only guess.
            let blind = S::NEEDS.iter().any(|need| run.blind.contains(need));
            let looked = if blind { None } else { self.look(run).await };
            let (Some(changes), Some(seen)) = (looked, &self.seen) else {
                run.blind.insert(S::NAME);
                run.unsettled.insert(S::NAME, S::NEEDS);
                return;
            };
            for (key, found) in seen.iter().filter(|(_, found)| found.owner == Owner::Us) {
                run.ids
                    .known
                    .insert((S::NAME, key.to_string()), S::id_text(&found.id));
            }
            let held = self
                .stage
                .desired()
                .held
                .iter()
                .map(|(key, error)| (key.to_string(), error.clone()));
            for (key, error) in held {
                // Not the outside's: it stops nothing there.
                run.report.failed.push(Failure {
                    stage: S::NAME,
                    key: Some(key),
                    error,
                    held: true,
                    deletes: false,
                });
            }
            let (mut creates, mut updates) = (Vec::new(), Vec::new());
            for change in changes {
                let step = Step::of(S::NAME, &change);
                if let Some(error) = self.stage.objection(&change) {
                    if change.verb() != Verb::Delete {
                        self.unmade.insert(self.stage.identity(change.key()));
                    }
                    Self::tell(Some(step.key), error, run);
                    continue;
                }
                run.report.planned.push(step.clone());
                let edited = match step.verb {
                    Verb::Conflict => true,
                    Verb::Delete => self.stage.was_replaced(change.key()),
                    Verb::Create | Verb::Update => false,
                };
                if !edited && matches!(run.origin, Origin::Informer(_)) {
                    run.report.drift.push(step);
                    if run.origin == Origin::Informer(DriftPolicy::Report) {
                        continue;
                    }
                }
                match change {
                    Change::Create { key, .. }
                        if self.stage.desired().adoption == AdoptionPolicy::MustExist =>
                    {
                        let message = format!(
                            "{} {key} does not exist, and spec.adoptionPolicy is MustExist: make it there first, or choose IfExists",
                            S::NAME
                        );
                        let error = Error::new(Class::Rejected, message);
                        Self::tell(Some(key.to_string()), error, run);
                    }
                    Change::Create { .. } => creates.push(change),
                    Change::Update { .. } => updates.push(change),
                    Change::Delete { .. } => self.deletes.push(change),
                    Change::Conflict { key, owner } => {
                        let message = format!(
                            "{} {key} exists and is held by {owner}; it was not touched: remove it, or give ours another name",
                            S::NAME
                        );
                        Self::tell(
                            Some(key.to_string()),
                            Error::new(Class::Conflict, message),
                            run,
                        );
                    }
                }
            }
            let held = self.stage.desired().held.keys();
            let held = held.map(|key| self.stage.identity(key));
            self.unmade.extend(held);
            let wanted: BTreeMap<_, _> = creates
                .iter()
                .map(|change| (change.key().to_string(), self.stage.identity(change.key())))
                .collect();
            let before = run.report.failed.len();
            self.make(creates, run).await;
            let failed = run.report.failed.iter().skip(before);
            let failed = failed.filter_map(|failure| wanted.get(failure.key.as_deref()?));
            self.unmade.extend(failed.cloned());
            self.make(updates, run).await;
        })
    }

    fn digest(&self, digest: &mut Sha256) {
        for (key, value) in &self.stage.desired().wanted {
            // Lengths, so that no two rows of parts read the same.
            let mut part = |text: &str| {
                digest.update(text.len().to_be_bytes());
                digest.update(text);
            };
            part(S::NAME);
            part(&key.to_string());
            for (name, value) in value.fields() {
                part(name);
                part(&value);
            }
        }
    }

    fn backward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let deletes = std::mem::take(&mut self.deletes);
            let needed = run
                .unsettled
                .iter()
                .any(|(stage, needs)| *stage == S::NAME || needs.contains(&S::NAME));
            if needed && run.gate.is_some() && !deletes.is_empty() {
                Self::leave_untried(deletes.len(), run);
                return;
            }
            let stays = |change: &ChangeOf<S>| {
                let seen = self.seen.as_ref();
                seen.is_some_and(|seen| self.stage.stays(change.key(), seen))
            };
            let (later, now): (Vec<_>, Vec<_>) = deletes
                .into_iter()
                .filter(|change| !self.unmade.contains(&self.stage.identity(change.key())))
                .partition(stays);
            // It keeps nothing else waiting.
            run.report.later += later.len();
            self.make(now, run).await;
        })
    }

    fn settle<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A run that was superseded reports nothing; its successor looks.
            if !std::mem::take(&mut self.wrote) || run.superseded {
                return;
            }
            match self.stage.observe(&run.ids).await {
                Ok(seen) => self.seen = Some(seen),
                Err(error) => {
                    // What was seen before we wrote is not true any more, so nothing is known.
                    self.seen = None;
                    if run.report.failed.is_empty() {
                        self.fail(None, error, run);
                    }
                }
            }
        })
    }
}

/// Runs all lanes: upserts forward, deletes backward, then reads again what was written.
pub async fn drive(stages: &mut [&mut dyn DynStage], run: &mut Run<'_>) {
    for stage in stages.iter_mut() {
        stage.forward(run).await;
    }
    for stage in stages.iter_mut().rev() {
        stage.backward(run).await;
    }
    for stage in stages.iter_mut() {
        stage.settle(run).await;
    }
}

#[cfg(test)]
mod tests;
