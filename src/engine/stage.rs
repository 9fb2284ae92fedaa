//! [`Stage`]: one type of resource in one system; and how a run walks the stages of an object: upserts run forward, deletes
//! backward, and every write passes one gate. Deletion is the same with nothing desired, a plan is the same without a
//! gate.

use super::{
    applied::{Applied, AppliedStage, thing},
    error::{Class, Error, Result, WaitingOn},
    gate::{Gate, Operation, StatusEdit, WritePermit, admit},
    order::layers,
    plan::{self, Change, Desired, Observed, Owner, Plan, Value, Verb},
    policy::{AdoptionPolicy, DriftPolicy},
    rendering::Step,
};
use futures::future::BoxFuture;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Display,
    future::{self, Future},
    iter::repeat_with,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// All that a stage has seen.
pub type Seen<S> =
    Observed<<S as Stage>::Key, <S as Stage>::Value, <S as Stage>::Id, <S as Stage>::Live>;

/// A change of a stage.
pub type ChangeOf<S> = Change<<S as Stage>::Key, <S as Stage>::Value, <S as Stage>::Id>;

/// A plan of a stage.
pub type PlanOf<S> = Plan<<S as Stage>::Key, <S as Stage>::Value, <S as Stage>::Id>;

/// What became of a change: with the name that later stages know the new thing by, where there is one.
pub type ResultOf<S> = Result<Option<<S as Stage>::Id>>;

/// One kind of thing in one outside system, held by one object: a keyed map of values.
pub trait Stage: Send + Sync {
    /// What one such thing is called: `alarm`, `topic`. No two stages of a system share it.
    const NAME: &'static str;
    /// What its things are called where there are several sorts of them, that of its own name first.
    const NOUNS: &'static [&'static str] = &[Self::NAME];
    /// The stages whose things this one's refer to: made before, deleted after.
    const NEEDS: &'static [&'static str] = &[];
    /// After how long a thing is looked at again that was prepared for its deletion, or whose deletion is put off, where nothing
    /// else wakes its object.
    const DEFERRAL: Option<Duration> = None;
    /// Whether its things are but notes of Campanile's own beside the others: what is written there is no news to
    /// anybody, nor drift, whoever changed it.
    const IS_NOTE: bool = false;

    /// What tells the things apart; its `Display` is for people, and tells those of one noun apart as well.
    type Key: Ord + Clone + Display + Send + Sync + 'static;
    /// A thing's configuration.
    type Value: Value;
    /// The name that the outside gives, `()` where names are ours.
    type Id: Clone + Send + Sync + 'static;
    /// What a thing is doing, as opposed to how it is configured.
    type Live: Clone + Send + Sync;

    /// What a thing is called: one of [`Stage::NOUNS`].
    fn noun(_key: &Self::Key) -> &'static str {
        Self::NAME
    }
    /// What one refusal or throttling stops: the credentials, the Region and the service.
    fn endpoint(&self) -> &str;
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
    fn decide(&self, seen: &Seen<Self>) -> PlanOf<Self>
    where
        Self: Sized,
    {
        plan::diff(self.desired(), seen)
    }
    /// The things of this very stage that a thing refers to: made before it, deleted after it. Pure.
    fn refers_to(&self, _key: &Self::Key, _value: &Self::Value) -> BTreeSet<Self::Key> {
        BTreeSet::new()
    }
    /// Whether what a change refers to is there; nothing is promised or sent before it is.
    fn ready(&self, _change: &ChangeOf<Self>, _ids: &Ids) -> Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }
    /// Why nobody but a person can make a change, where that is so: it is told and not even tried. Pure.
    fn unsupported_change(&self, _change: &ChangeOf<Self>) -> Option<Error>
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
    /// serve yet. Known without asking outside.
    fn defers_deletion(&self, _key: &Self::Key, _seen: &Seen<Self>) -> bool
    where
        Self: Sized,
    {
        false
    }
    /// What is changed in a thing before it is removed, one call each. Not made again where `seen` has it, or where
    /// that was tried and is of no use. Pure but for what this process remembers.
    fn before_deletion(&self, _key: &Self::Key, _seen: &Seen<Self>) -> Vec<ChangeOf<Self>>
    where
        Self: Sized,
    {
        Vec::new()
    }
    /// How many of these changes, all of one verb, go into one call, from the first on.
    fn batch(&self, _changes: &[ChangeOf<Self>]) -> usize
    where
        Self: Sized,
    {
        1
    }
    /// Makes a change.
    fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> impl Future<Output = ResultOf<Self>> + Send
    where
        Self: Sized;
    /// Makes as many changes as [`Stage::batch`] says by one call; an answer for each, in order.
    fn apply_batch(
        &self,
        permit: &WritePermit<'_>,
        changes: &[ChangeOf<Self>],
        ids: &Ids,
    ) -> impl Future<Output = Vec<ResultOf<Self>>> + Send
    where
        Self: Sized,
    {
        async move {
            let mut outcomes = Vec::with_capacity(changes.len());
            for change in changes {
                outcomes.push(self.apply(permit, change, ids).await);
            }
            outcomes
        }
    }
    /// What is written into status before a thing is made, where making it twice makes two.
    fn intent(&self, _key: &Self::Key) -> Option<StatusEdit> {
        None
    }
    /// What is written into status once the outside has given it a name.
    fn record(&self, _key: &Self::Key, _id: &Self::Id) -> Option<StatusEdit> {
        None
    }
    /// What a thing is, whatever it is called: where a key holds something that may be edited, the thing
    /// under the old key stays until the one under the new key is made.
    fn identity(&self, key: &Self::Key) -> String {
        format!("{} {key}", Self::noun(key))
    }
}

/// What the stages before have made or found. Only things that are ours.
#[derive(Default)]
pub struct Ids(BTreeMap<&'static str, Box<dyn Any + Send + Sync>>);

struct Known<K, I> {
    ids: BTreeMap<K, I>,
    new: BTreeSet<K>,
}

impl Ids {
    fn of<S: Stage>(&self) -> Option<&Known<S::Key, S::Id>> {
        self.0.get(S::NAME)?.downcast_ref()
    }

    fn change<S: Stage>(&mut self, change: impl FnOnce(&mut Known<S::Key, S::Id>)) {
        let known = self.0.entry(S::NAME).or_insert_with(|| {
            Box::new(Known::<S::Key, S::Id> {
                ids: BTreeMap::new(),
                new: BTreeSet::new(),
            })
        });
        if let Some(known) = known.downcast_mut() {
            change(known);
        }
    }

    /// There is a thing of ours.
    pub fn insert<S: Stage>(&mut self, key: S::Key, id: S::Id) {
        self.change::<S>(|known| drop(known.ids.insert(key, id)));
    }

    /// What the outside calls a thing of another stage.
    pub fn get<S: Stage>(&self, key: &S::Key) -> Option<&S::Id> {
        self.of::<S>()?.ids.get(key)
    }

    /// Whether this very run has made it.
    pub fn is_new<S: Stage>(&self, key: &S::Key) -> bool {
        self.of::<S>().is_some_and(|known| known.new.contains(key))
    }

    /// The same as [`Ids::get`], where nothing can be done without it.
    pub fn need<S: Stage>(&self, key: &S::Key) -> Result<&S::Id> {
        self.get::<S>(key).ok_or_else(|| waiting_for::<S>(key))
    }
}

fn waiting_for<S: Stage>(key: &S::Key) -> Error {
    let message = format!("waiting for the {} {key}", S::noun(key));
    Error::new(Class::Waiting(WaitingOn::Prerequisite), message)
}

/// Something that could not be done.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In which stage.
    pub stage: &'static str,
    /// To which thing, for people; `None` if the stage could not even look.
    pub key: Option<String>,
    /// Why, and what to do.
    pub error: Error,
    /// Whether it was to be removed.
    pub deletes: bool,
    /// Whether it was not even asked for, because what the spec says or refers to makes no sense yet.
    pub blocked: bool,
}

impl Failure {
    /// As which class of error it is tried again: why a deletion is refused is seldom the thing's own
    /// fault, so whatever is in its way may go at any time.
    pub fn retry_class(&self) -> Class {
        match self.error.class {
            Class::Rejected if self.deletes => Class::Unavailable,
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
    /// What of it came about outside after it had been applied, whether it was repaired or not.
    pub drift: Vec<Step>,
    /// What of that is told and left as it is.
    pub reported: Vec<Step>,
    /// How many were not even tried, because the endpoint was stopped or a failure holds them back.
    pub untried: usize,
    /// How many deletions are put off until what replaces the thing serves.
    pub later: usize,
    /// After how long to look again, where only time is waited for.
    pub wait: Option<Duration>,
    /// What failed.
    pub failed: Vec<Failure>,
}

impl Report {
    /// Whether the outside is now as desired.
    pub fn is_settled(&self) -> bool {
        self.failed.is_empty() && self.untried == 0 && self.later == 0
    }
}

/// What was applied before, and what is done about what has become of it outside.
#[derive(Clone, Copy, Debug)]
pub struct AppliedBefore<'a> {
    /// What was applied.
    pub applied: &'a Applied,
    /// What is done about a difference that came about outside.
    pub drift: DriftPolicy,
}

/// How long a place may leave a run without an answer once another place of that run is done. What is read in bulk
/// goes on being read by its poll, and wakes the object.
pub const STRAGGLER_LIMIT: Duration = Duration::from_secs(15);

/// How long one place may leave one run without answers, all of them taken together. Waiting for a quota before a
/// write does not count.
#[derive(Clone, Debug)]
pub struct Patience {
    place: String,
    limit: Duration,
    left: Duration,
    /// Cancelled when another place of the run is done.
    other_done: CancellationToken,
}

impl Default for Patience {
    /// Without end.
    fn default() -> Self {
        Self::new(String::new(), Duration::MAX, CancellationToken::new())
    }
}

impl Patience {
    /// With a place, as people call it. Once `other_done` is cancelled, no answer is waited for longer than
    /// [`STRAGGLER_LIMIT`].
    pub fn new(place: String, limit: Duration, other_done: CancellationToken) -> Self {
        Self {
            place,
            limit,
            left: limit,
            other_done,
        }
    }

    /// What `answer` ends with, unless there was none for too long.
    pub async fn wait<T>(&mut self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let alone = async {
            self.other_done.cancelled().await;
            sleep(STRAGGLER_LIMIT).await;
        };
        let answered = tokio::select! {
            biased;
            answered = timeout(self.left, answer) => answered.map_err(|_| self.limit),
            () = alone => Err(STRAGGLER_LIMIT),
        };
        match &answered {
            Err(_) => self.left = Duration::ZERO,
            Ok(_) => drop(self.spend(began.elapsed())),
        }
        answered.unwrap_or_else(|limit| {
            let (place, limit) = (&self.place, limit.as_secs());
            let message = format!("{place} did not answer within {limit} s");
            Err(Error::failing(message))
        })
    }

    /// Whether that was the last of it.
    fn spend(&mut self, time: Duration) -> bool {
        self.left = self.left.saturating_sub(time);
        self.left.is_zero()
    }
}

/// One run over all stages of an object in one place.
#[derive(Default)]
pub struct Run<'a> {
    pub(super) gate: Option<&'a dyn Gate>,
    /// Why nothing is written in this system for now.
    held_back: Option<Error>,
    /// What tells the place from others.
    place: &'a str,
    /// What was applied before; `None` where all of it is applied anew, because the spec was edited.
    before: Option<AppliedBefore<'a>>,
    patience: Patience,
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
    /// A run whose writes pass `gate`; it only plans where there is none.
    pub fn new(gate: Option<&'a dyn Gate>, place: &'a str) -> Self {
        Self {
            gate,
            place,
            ..Self::default()
        }
    }

    /// The same, which does not wait for answers for longer.
    #[must_use]
    pub fn within(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same, where nothing is written because the system failed lately, in these words.
    #[must_use]
    pub fn held_back(self, held_back: Option<Error>) -> Self {
        Self { held_back, ..self }
    }

    /// The same, where what was applied before is told from what the spec changes.
    #[must_use]
    pub fn since(self, before: Option<AppliedBefore<'a>>) -> Self {
        Self { before, ..self }
    }
}

/// A [`Stage`] of any type, so that the stages of a system are listed.
pub trait DynStage: Send {
    /// Observes, plans, and makes what is to be made or changed.
    fn forward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()>;
    /// Deletes what is to be deleted.
    fn backward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()>;
    /// Reads again what was written, so that the report says what is there.
    fn settle<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()>;
    /// Remembers what is applied now. What nobody could see, or what failed, is remembered as it was.
    fn remember(&self, place: &str, before: &Applied, now: &mut Applied);
}

/// A stage on its way through a run.
pub struct StageRun<S: Stage> {
    /// The stage.
    pub stage: S,
    /// What it saw last; `None` while it has not been able to look.
    pub seen: Option<Seen<S>>,
    /// Why things are not as they should be.
    pub failed: BTreeMap<S::Key, Error>,
    /// What came about outside and is left as it is.
    pub reported: BTreeMap<S::Key, Step>,
    deletes: Vec<ChangeOf<S>>,
    /// What is planned and not made yet.
    unfinished: BTreeSet<S::Key>,
    looked: bool,
    wrote: bool,
}

impl<S: Stage> StageRun<S> {
    /// A stage at the start of a run.
    pub fn new(stage: S) -> Self {
        Self {
            stage,
            seen: None,
            failed: BTreeMap::new(),
            reported: BTreeMap::new(),
            deletes: Vec::new(),
            unfinished: BTreeSet::new(),
            looked: false,
            wrote: false,
        }
    }

    /// Says what failed, and why.
    fn report_failure(
        &mut self,
        key: Option<(&S::Key, Verb)>,
        error: Error,
        blocked: bool,
        run: &mut Run<'_>,
    ) {
        if let Some((key, _)) = key.filter(|_| !blocked) {
            self.failed.insert(key.clone(), error.clone());
        }
        run.report.failed.push(Failure {
            stage: key.map_or(S::NAME, |(key, _)| S::noun(key)),
            key: key.map(|(key, _)| key.to_string()),
            error,
            blocked,
            deletes: key.is_some_and(|(_, verb)| verb == Verb::Delete),
        });
    }

    /// The same of what the outside or the gate answered: it may go for the whole endpoint, and it holds
    /// back deletions if it may pass.
    fn fail(&mut self, key: Option<(&S::Key, Verb)>, error: Error, run: &mut Run<'_>) {
        if error.class.stops_scope() {
            run.stopped.insert(self.stage.endpoint().to_owned());
        }
        run.superseded |= error.class == Class::Superseded;
        let passes = match error.class {
            // The prerequisite's own failure is reported, and says whether it passes.
            Class::Waiting(WaitingOn::Prerequisite) => {
                let mut needs = S::NEEDS.iter().chain([&S::NAME]);
                needs.any(|need| run.unsettled.contains_key(need))
            }
            class => class.is_transient(),
        };
        if passes {
            run.unsettled.insert(S::NAME, S::NEEDS);
        }
        self.report_failure(key, error, false, run);
    }

    /// A change as the gate sees it, which keeps the record.
    fn entered(&self, change: &ChangeOf<S>) -> Step {
        let step = Step::of(S::noun(change.key()), change);
        let seen = self.seen.as_ref().filter(|_| step.verb == Verb::Delete);
        match seen.and_then(|seen| seen.found.get(change.key())) {
            Some(lost) => step.losing(&lost.value),
            None => step,
        }
    }

    fn leave_untried(count: usize, run: &mut Run<'_>) {
        run.report.untried += count;
        run.unsettled.insert(S::NAME, S::NEEDS);
    }

    /// What is there, and what to do about it.
    async fn look(&self, ids: &Ids) -> Result<(Seen<S>, PlanOf<S>)> {
        let mut seen = self.stage.observe(ids).await?;
        let plan = self.stage.decide(&seen);
        let moving = plan.changes.iter().map(|change| change.key().clone());
        let keys: BTreeSet<_> = moving.collect();
        if keys.is_empty() {
            return Ok((seen, plan));
        }
        let Some(mut fresh) = self.stage.confirm(&keys, ids).await? else {
            return Ok((seen, plan));
        };
        for key in keys {
            if fresh.unknown.contains(&key) {
                seen.unknown.insert(key.clone());
            }
            match fresh.found.remove(&key) {
                Some(found) => drop(seen.found.insert(key, found)),
                None => drop(seen.found.remove(&key)),
            }
        }
        let plan = self.stage.decide(&seen);
        Ok((seen, plan))
    }

    /// Whether a difference came about outside: the same was applied to this very thing before.
    fn is_drift(
        change: &ChangeOf<S>,
        run: &Run<'_>,
        before: &BTreeMap<&'static str, AppliedStage>,
    ) -> bool {
        let Some(before) = before.get(S::noun(change.key())) else {
            return false;
        };
        let thing = thing(run.place, change.key());
        match change {
            Change::Create { to, .. } | Change::Update { to, .. } => before.has(&thing, to),
            // To delete what was applied and is not wanted any more is an edit.
            Change::Delete { .. } => !before.knows(&thing),
        }
    }

    /// What of the same stage a change needs and is not there.
    fn unmet(&self, change: &ChangeOf<S>, ids: &Ids) -> Result<()> {
        let (Change::Create { key, to } | Change::Update { key, to, .. }) = change else {
            return Ok(());
        };
        let Desired {
            wanted, blocked, ..
        } = self.stage.desired();
        let there = |key: &S::Key| {
            let found = self.seen.as_ref().map(|seen| &seen.found);
            found.is_some_and(|found| found.contains_key(key)) || ids.is_new::<S>(key)
        };
        let needs = self.stage.refers_to(key, to);
        let mut asked_for = needs
            .iter()
            .filter(|need| wanted.contains_key(need) || blocked.contains_key(need));
        match asked_for.find(|need| !there(need)) {
            Some(need) => Err(waiting_for::<S>(need)),
            None => Ok(()),
        }
    }

    /// Makes changes that all have one verb, as many in one call as the stage says.
    async fn make(&mut self, changes: Vec<ChangeOf<S>>, run: &mut Run<'_>) {
        let Some(gate) = run.gate else { return };
        let mut fresh = Vec::with_capacity(changes.len());
        for change in changes {
            let refused = || gate.refused(self.stage.operation(&change), &self.entered(&change));
            let ready = match run.held_back.clone().or_else(refused) {
                Some(refusal) => Err(refusal),
                None => self.unmet(&change, &run.ids),
            };
            match ready.and_then(|()| self.stage.ready(&change, &run.ids)) {
                Ok(()) => fresh.push(change),
                Err(error) => {
                    let key = Some((change.key(), change.verb()));
                    self.fail(key, error, run);
                }
            }
        }
        let mut batches = VecDeque::new();
        while !fresh.is_empty() {
            let size = self.stage.batch(&fresh).clamp(1, fresh.len());
            let rest = fresh.split_off(size);
            batches.push_back(std::mem::replace(&mut fresh, rest));
        }
        while let Some(batch) = batches.pop_front() {
            // One of them is enough for all to be refused: each for itself, then.
            if let Some(refused) = self.send(gate, batch, run).await {
                for one in refused.into_iter().rev() {
                    batches.push_front(vec![one]);
                }
            }
        }
    }

    /// Makes changes by one call. Gives back a batch that was refused as a whole.
    async fn send(
        &mut self,
        gate: &dyn Gate,
        batch: Vec<ChangeOf<S>>,
        run: &mut Run<'_>,
    ) -> Option<Vec<ChangeOf<S>>> {
        let first = batch.first()?;
        if run.stopped.contains(self.stage.endpoint()) {
            Self::leave_untried(batch.len(), run);
            return None;
        }
        let steps: Vec<_> = batch.iter().map(|change| self.entered(change)).collect();
        let creates = batch.iter().filter(|it| it.verb() == Verb::Create);
        let intents: Vec<_> = creates
            .filter_map(|it| self.stage.intent(it.key()))
            .collect();
        let operation = self.stage.operation(first);
        let outcomes = match admit(gate, operation, &steps, &intents).await {
            Ok(permit) => {
                // Whatever comes of it, the outside may have changed.
                self.wrote = true;
                let began = Instant::now();
                let outcomes = self.stage.apply_batch(&permit, &batch, &run.ids).await;
                let unanswered =
                    |it: &ResultOf<S>| it.as_ref().is_err_and(|it| it.class.may_have_landed());
                if outcomes.iter().all(unanswered) && run.patience.spend(began.elapsed()) {
                    run.stopped.insert(self.stage.endpoint().to_owned());
                }
                let rejected =
                    |it: &ResultOf<S>| it.as_ref().is_err_and(|it| it.class == Class::Rejected);
                if batch.len() > 1 && outcomes.iter().all(rejected) {
                    gate.answered(operation, &[]);
                    return Some(batch);
                }
                let unknown = || Err(Error::new(Class::OutcomeUnknown, "there was no answer"));
                let outcomes = outcomes.into_iter().chain(repeat_with(unknown));
                let outcomes: Vec<_> = outcomes.take(batch.len()).collect();
                let answers = outcomes.iter().map(|outcome| outcome.as_ref().map(drop));
                let answers: Vec<_> = steps.iter().zip(answers).collect();
                gate.answered(operation, &answers);
                outcomes
            }
            Err(error) => vec![Err(error); batch.len()],
        };
        for ((step, change), outcome) in steps.iter().zip(&batch).zip(outcomes) {
            match outcome {
                Ok(id) => self.made(gate, step, change, id, run).await,
                Err(error) => {
                    let key = Some((change.key(), change.verb()));
                    self.fail(key, error, run);
                }
            }
        }
        None
    }

    /// A change was made.
    async fn made(
        &mut self,
        gate: &dyn Gate,
        step: &Step,
        change: &ChangeOf<S>,
        id: Option<S::Id>,
        run: &mut Run<'_>,
    ) {
        let key = change.key();
        self.unfinished.remove(key);
        if !S::IS_NOTE {
            run.report.made.push(Step::of(S::noun(key), change));
        }
        let id = match change {
            Change::Create { .. } => {
                let edit = id.as_ref().and_then(|id| self.stage.record(key, id));
                if let Some(edit) = edit
                    && let Err(error) = gate.edit(&edit).await
                {
                    // What was intended still stands there.
                    tracing::warn!(stage = step.stage, key = step.key, %error, "what was made could not be recorded at once");
                }
                run.ids.change::<S>(|known| known.new.extend([key.clone()]));
                id
            }
            // What was adopted is ours from now on.
            Change::Update { ours, .. } => Some(id.unwrap_or_else(|| ours.id().clone())),
            Change::Delete { .. } => None,
        };
        if let Some(id) = id {
            run.ids.insert::<S>(key.clone(), id);
        }
    }

    /// Sorts out what is only told, and leaves what is to be made and changed.
    fn split_drift(&mut self, plan: PlanOf<S>, run: &mut Run<'_>) -> Vec<ChangeOf<S>> {
        let held = self.stage.desired().blocked.clone();
        for (key, error) in held {
            // Not the outside's: it stops nothing there.
            self.report_failure(Some((&key, Verb::Conflict)), error, true, run);
        }
        for (key, owner) in plan.conflicts {
            let noun = S::noun(&key);
            run.report.planned.push(Step::conflict(noun, &key, &owner));
            let message = format!(
                "{noun} {key} exists and is held by {owner}; it was not touched: remove it, or give ours another name"
            );
            let error = Error::new(Class::Conflict, message);
            self.report_failure(Some((&key, Verb::Conflict)), error, false, run);
            self.unfinished.insert(key);
        }
        let before = run.before.into_iter().flat_map(|before| {
            let known = |noun: &&'static str| Some((*noun, before.applied.stage(noun)?));
            S::NOUNS.iter().filter_map(known)
        });
        let before = before.collect();
        let mut upserts = Vec::new();
        for change in plan.changes {
            let (key, verb) = (change.key().clone(), change.verb());
            let noun = S::noun(&key);
            self.unfinished.insert(key.clone());
            if let Some(error) = self.stage.unsupported_change(&change) {
                self.report_failure(Some((&key, verb)), error, false, run);
                continue;
            }
            let step = Step::of(noun, &change);
            if !S::IS_NOTE {
                run.report.planned.push(step.clone());
            }
            if !S::IS_NOTE && Self::is_drift(&change, run, &before) {
                run.report.drift.push(step.clone());
                if run.before.is_some_and(|it| it.drift == DriftPolicy::Report) {
                    run.report.reported.push(step.clone());
                    self.reported.insert(key, step);
                    continue;
                }
            }
            let adoption = &self.stage.desired().adoption;
            match verb {
                Verb::Create if adoption.get(&key) == AdoptionPolicy::MustExist => {
                    let policy = match adoption.of.contains_key(&key) {
                        true => "its adoptionPolicy",
                        false => "spec.adoptionPolicy",
                    };
                    let message = format!(
                        "{noun} {key} does not exist, and {policy} is MustExist: make it there first, or choose IfExists"
                    );
                    let error = Error::new(Class::Rejected, message);
                    self.report_failure(Some((&key, verb)), error, false, run);
                }
                Verb::Delete => self.deletes.push(change),
                _ => upserts.push(change),
            }
        }
        upserts
    }

    /// What is needed goes before what needs it.
    async fn make_in_order(&mut self, upserts: Vec<ChangeOf<S>>, run: &mut Run<'_>) {
        let needs = upserts.iter().filter_map(|change| match change {
            Change::Create { key, to } | Change::Update { key, to, .. } => {
                Some((key.clone(), self.stage.refers_to(key, to)))
            }
            Change::Delete { .. } => None,
        });
        let (layers, circular) = layers(needs.collect());
        let mut rest = upserts;
        for layer in layers {
            let (now, later) = rest.into_iter().partition(|it| layer.contains(it.key()));
            rest = later;
            let is_create = |it: &ChangeOf<S>| it.verb() == Verb::Create;
            let (creates, updates) = Vec::into_iter(now).partition(is_create);
            self.make(creates, run).await;
            self.make(updates, run).await;
        }
        let names: Vec<_> = circular.iter().map(ToString::to_string).collect();
        for change in rest {
            let message = format!(
                "{} {} refers to itself by way of others: take one of these out of the circle: {}",
                S::noun(change.key()),
                change.key(),
                names.join(", ")
            );
            let key = Some((change.key(), change.verb()));
            self.report_failure(key, Error::invalid(message), false, run);
        }
    }

    /// What is still to be changed in things before they are removed.
    async fn prepare_deletes(&mut self, deletes: &[ChangeOf<S>], run: &mut Run<'_>) {
        let Some(seen) = &self.seen else { return };
        let preparations = deletes.iter().map(Change::key);
        let preparations: Vec<_> = preparations
            .flat_map(|key| self.stage.before_deletion(key, seen))
            .collect();
        if preparations.is_empty() {
            return;
        }
        run.report.wait = run.report.wait.into_iter().chain(S::DEFERRAL).min();
        let steps = preparations
            .iter()
            .map(|change| Step::of(S::noun(change.key()), change));
        run.report.planned.extend(steps);
        self.make(preparations, run).await;
        // They are still to be removed.
        self.unfinished
            .extend(deletes.iter().map(|change| change.key().clone()));
    }

    /// What needs others goes before them; what cannot be deleted keeps what it needs.
    async fn delete_in_order(&mut self, deletes: Vec<ChangeOf<S>>, run: &mut Run<'_>) {
        let found = self.seen.as_ref().map(|seen| &seen.found);
        let value = |key: &S::Key| found.and_then(|found| Some(&found.get(key)?.value));
        let mut parents: BTreeMap<_, BTreeSet<S::Key>> = deletes
            .iter()
            .map(|change| (change.key().clone(), BTreeSet::new()))
            .collect();
        for key in deletes.iter().map(Change::key) {
            let children = value(key).map(|value| self.stage.refers_to(key, value));
            for child in children.into_iter().flatten().filter(|child| child != key) {
                if let Some(parents) = parents.get_mut(&child) {
                    parents.insert(key.clone());
                }
            }
        }
        let (mut order, circular) = layers(parents.clone());
        // Things that refer to each other in a circle are deleted last: the API let them be made.
        order.push(circular);
        let mut rest = deletes;
        for layer in order {
            let (now, later) = rest.into_iter().partition(|it| layer.contains(it.key()));
            rest = later;
            let kept = |change: &ChangeOf<S>| {
                let mut needed_by = parents.get(change.key()).into_iter().flatten();
                needed_by.any(|parent| !layer.contains(parent) && self.unfinished.contains(parent))
            };
            let (kept, now): (Vec<_>, Vec<_>) = Vec::into_iter(now).partition(kept);
            if run.gate.is_some() && !kept.is_empty() {
                Self::leave_untried(kept.len(), run);
            }
            self.make(now, run).await;
        }
    }
}

impl<S: Stage> DynStage for StageRun<S> {
    fn forward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A stage that this one needs could not be read, and has reported why.
            let blind = S::NEEDS.iter().any(|need| run.blind.contains(need));
            let looked = if blind {
                None
            } else {
                Some(run.patience.wait(self.look(&run.ids)).await)
            };
            let plan = match looked {
                Some(Ok((seen, plan))) => {
                    let ours = seen.found.iter().filter(|it| it.1.owner == Owner::Us);
                    for (key, found) in ours {
                        run.ids.insert::<S>(key.clone(), found.id.clone());
                    }
                    (self.seen, self.looked) = (Some(seen), true);
                    plan
                }
                failed => {
                    if let Some(Err(error)) = failed {
                        self.fail(None, error, run);
                    }
                    run.blind.insert(S::NAME);
                    run.unsettled.insert(S::NAME, S::NEEDS);
                    return;
                }
            };
            let upserts = self.split_drift(plan, run);
            self.make_in_order(upserts, run).await;
        })
    }

    fn backward<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let deletes = std::mem::take(&mut self.deletes);
            if deletes.is_empty() || self.seen.is_none() {
                return;
            }
            if run.gate.is_none() {
                // What holds deletions back in a run says nothing of what goes in the end.
                self.prepare_deletes(&deletes, run).await;
                return;
            }
            let needed = run
                .unsettled
                .iter()
                .any(|(stage, needs)| *stage == S::NAME || needs.contains(&S::NAME));
            if needed {
                Self::leave_untried(deletes.len(), run);
                return;
            }
            let Desired {
                wanted, blocked, ..
            } = self.stage.desired();
            let unmade = self
                .unfinished
                .iter()
                .filter(|key| wanted.contains_key(key));
            let unmade = unmade
                .chain(blocked.keys())
                .map(|key| self.stage.identity(key));
            let unmade: BTreeSet<_> = unmade.collect();
            let mut deletes = deletes;
            deletes.retain(|change| !unmade.contains(&self.stage.identity(change.key())));
            self.prepare_deletes(&deletes, run).await;
            let deferred = |change: &ChangeOf<S>| {
                let mut seen = self.seen.iter();
                seen.any(|seen| self.stage.defers_deletion(change.key(), seen))
            };
            let (later, now): (Vec<_>, Vec<_>) = deletes.into_iter().partition(deferred);
            // A deferred deletion does not hold up others.
            run.report.later += later.len();
            if !later.is_empty() {
                run.report.wait = run.report.wait.into_iter().chain(S::DEFERRAL).min();
            }
            self.delete_in_order(now, run).await;
        })
    }

    fn settle<'a>(&'a mut self, run: &'a mut Run<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A superseded run reports nothing; the next one reads again.
            if !std::mem::take(&mut self.wrote) || run.superseded {
                return;
            }
            match run.patience.wait(self.stage.observe(&run.ids)).await {
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

    fn remember(&self, place: &str, before: &Applied, now: &mut Applied) {
        let unknown = self.seen.iter().flat_map(|seen| &seen.unknown);
        let undone: BTreeSet<_> = unknown.chain(&self.unfinished).collect();
        let Desired {
            wanted, blocked, ..
        } = self.stage.desired();
        for noun in S::NOUNS {
            let known = before.stage(noun);
            if !self.looked {
                if let Some(known) = known {
                    now.set_stage(noun, known);
                }
                continue;
            }
            let (known, mut stage) = (known.unwrap_or_default(), AppliedStage::default());
            let is_such = |key: &S::Key| S::noun(key) == *noun;
            for (key, value) in wanted.iter().filter(|(key, _)| is_such(key)) {
                if !undone.contains(key) {
                    stage.insert(thing(place, key), value);
                }
            }
            let kept = undone.iter().copied().chain(blocked.keys());
            for key in kept.filter(|key| is_such(key)) {
                let thing = thing(place, key);
                let removed = !wanted.contains_key(key) && !blocked.contains_key(key);
                if removed && !self.reported.contains_key(key) {
                    // Its deletion is still to be done, and is no drift.
                    stage.mark(thing);
                } else {
                    stage.keep(thing, &known);
                }
            }
            now.set_stage(noun, stage);
        }
    }
}

/// Runs all stages: upserts forward, deletes backward, then reads again what was written.
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

/// What is applied in a place after a run.
pub fn applied_after(stages: &[&mut dyn DynStage], place: &str, before: &Applied) -> Applied {
    let mut now = Applied::default();
    for stage in stages {
        stage.remember(place, before, &mut now);
    }
    now
}

#[cfg(test)]
mod tests;
