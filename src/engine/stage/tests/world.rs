//! An outside in memory with moods: it refuses, fails, loses answers, has other users, and lets the
//! process die in the middle. It is the status in the cluster as well, so all of it outlives a run.

use crate::engine::{
    applied::Applied,
    error::{Class, Error, Result},
    gate::{Gate, Operation, StatusEdit, WritePermit},
    plan::{Change, Desired, Found, Owner, Value, Verb},
    policy::DriftPolicy,
    rendering::Step,
    stage::{
        AppliedBefore, ChangeOf, DynStage, Ids, Report, ResultOf, Run, Seen, Stage, StageRun,
        applied_after, drive,
    },
};
use futures::{
    FutureExt,
    future::{BoxFuture, pending},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

/// The stages in order. A destination is on a connection, a target on a destination.
pub const STAGES: [&str; 4] = ["connection", "destination", "group", "target"];
const NEEDS: [&[&str]; 4] = [&[], &["connection"], &[], &["destination"]];
const SCOPES: [&str; 4] = ["events", "events", "rules", "rules"];
/// Making a target twice makes two, and it bears no mark: one is ours if the record has its name.
pub const TARGET: usize = 3;

/// What is wanted of each stage.
pub type Spec = [Desired<String, Setting>; 4];

/// The configuration of a thing: its size, and the name of what it is on.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    size: u8,
    on: Option<String>,
}

impl Value for Setting {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let on = self.on.clone().unwrap_or_default();
        vec![("size", self.size.to_string()), ("on", on)]
    }
}

/// Reads `connection a=1, destination d=2@a`.
pub fn spec(text: &str) -> Spec {
    let mut spec = Spec::default();
    for item in text.split(", ").filter(|item| !item.is_empty()) {
        let (stage, rest) = item.split_once(' ').unwrap();
        let (name, rest) = rest.split_once('=').unwrap();
        let (size, on) = rest
            .split_once('@')
            .map_or((rest, None), |(size, on)| (size, Some(on.to_owned())));
        let size = size.parse().unwrap();
        let stage = STAGES.iter().position(|known| *known == stage).unwrap();
        let setting = Setting { size, on };
        spec[stage].wanted.insert(name.to_owned(), setting);
    }
    spec
}

/// Whether a call that fails has its effect all the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lands {
    /// It has not.
    Never,
    /// It has, only the answer is lost.
    Now,
    /// It has, but what it made does not show yet.
    Later,
}

/// Calls that begin like this fail so.
pub type Fault = (String, Class, Lands);

/// What somebody else does, to our things as well as to their own.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Makes a thing, with another's mark or without one, or changes the one that is there.
    Put(usize, &'static str, u8, bool),
    /// Removes a thing.
    Remove(usize, &'static str),
}

#[derive(Clone)]
struct Thing {
    stage: usize,
    name: String,
    size: u8,
    on: Option<u32>,
    /// Who made it, in truth: what we can see of that is another matter.
    owner: Owner,
}

/// All that is there, and what will go wrong.
#[derive(Clone, Default)]
pub struct State {
    things: BTreeMap<u32, Thing>,
    late: BTreeMap<u32, Thing>,
    made: u32,
    /// The names in status that are about to be made or were made.
    pub recorded: BTreeSet<String>,
    /// What was called in this run: `? group`, `+ group a`, `- group b c`, `intend target t`.
    pub calls: Vec<String>,
    /// What fails.
    pub faults: Vec<Fault>,
    /// The last answer of each call is forgotten.
    pub mute: bool,
    /// The process dies at this moment of the run, from 1: before or after a call.
    pub dies_at: Option<usize>,
    /// Somebody does something at this moment of the run.
    pub meanwhile: Option<(usize, Deed)>,
    /// There is a newer generation once the gate was passed so often.
    pub overtaken_after: Option<usize>,
    /// How often a thing was to be deleted that something else was still on.
    pub in_use: usize,
    /// What was applied, as status says it.
    applied: Applied,
    /// What was refused, and is remembered for an hour.
    pub refused: Vec<(Step, Error)>,
    moments: usize,
    entered: usize,
    answered: usize,
    admitted: Vec<Step>,
}

impl State {
    fn find(&self, stage: usize, name: &str) -> Option<u32> {
        let mut things = self.things.iter();
        things
            .find(|(_, thing)| thing.stage == stage && thing.name == name)
            .map(|(id, _)| *id)
    }

    fn fault(&self, call: &str) -> Option<(Error, Lands)> {
        let fault = self.faults.iter().find(|(like, ..)| call.starts_with(like));
        fault.map(|(_, class, lands)| (Error::new(*class, format!("{call}: {class:?}")), *lands))
    }

    fn put(&mut self, stage: usize, name: &str, size: u8, on: Option<u32>, owner: Owner) -> u32 {
        let name = name.to_owned();
        let thing = Thing {
            stage,
            name,
            size,
            on,
            owner,
        };
        self.made += 1;
        self.things.insert(self.made, thing);
        self.made
    }

    fn happen(&mut self, deed: Deed) {
        match deed {
            Deed::Put(stage, name, size, marked) => match self.find(stage, name) {
                Some(id) => self.things.get_mut(&id).unwrap().size = size,
                // Where there is no mark, what is made by a name in the record counts as ours.
                None if stage == TARGET && self.recorded.contains(name) => {}
                None => {
                    let owner = match marked {
                        true => Owner::Other("rival".into()),
                        false => Owner::Nobody,
                    };
                    self.put(stage, name, size, None, owner);
                }
            },
            Deed::Remove(stage, name) => {
                let id = self.find(stage, name);
                id.map(|id| self.things.remove(&id));
            }
        }
    }

    fn see(&mut self, stage: usize) -> BTreeMap<String, Found<Setting, u32, ()>> {
        let mut seen = BTreeMap::new();
        for (id, thing) in self.things.iter().filter(|(_, it)| it.stage == stage) {
            let owner = match stage {
                TARGET if self.recorded.contains(&thing.name) => Owner::Us,
                TARGET => Owner::Nobody,
                _ => thing.owner.clone(),
            };
            let name = |on: u32| self.things.get(&on).map_or("gone", |on| &on.name);
            let on = thing.on.map(|on| name(on).to_owned());
            let value = Setting {
                size: thing.size,
                on,
            };
            // A second one by the same name is a thing of its own, which nobody wants.
            let key = match seen.contains_key(&thing.name) {
                true => format!("{}#{id}", thing.name),
                false => thing.name.clone(),
            };
            let found = Found {
                id: *id,
                value,
                owner,
                live: (),
            };
            seen.insert(key, found);
        }
        seen
    }

    fn write(
        &mut self,
        stage: usize,
        change: &Change<String, Setting, u32>,
        on: Option<u32>,
    ) -> Result<Option<u32>> {
        let rejected = |message: &str| Err(Error::new(Class::Rejected, message));
        if let Some(on) = on {
            let Some(on) = self.things.get(&on) else {
                return rejected("what it is to be on is gone");
            };
            assert_eq!(on.owner, Owner::Us, "{} is not ours to be on", on.name);
        }
        match change {
            Change::Create { key, to } => {
                let there = self.find(stage, key);
                if stage == TARGET {
                    let ours = there.is_some_and(|id| self.things[&id].owner == Owner::Us);
                    assert!(!ours, "{key} was made twice");
                    assert!(self.recorded.contains(key), "the intent is written first");
                } else if there.is_some() {
                    return rejected("it exists");
                }
                let id = self.put(stage, key, to.size, on, Owner::Us);
                Ok(Some(id))
            }
            Change::Update { key, ours, to, .. } => {
                let Some(thing) = self.things.get_mut(ours.id()) else {
                    return Err(Error::failing("it is gone"));
                };
                assert_eq!(thing.owner, Owner::Us, "{key} is not ours to change");
                (thing.size, thing.on) = (to.size, on);
                Ok(None)
            }
            Change::Delete { key, ours } => {
                if self.things.values().any(|it| it.on == Some(*ours.id())) {
                    self.in_use += 1;
                    return rejected("it is in use");
                }
                if let Some(thing) = self.things.remove(ours.id()) {
                    assert_eq!(thing.owner, Owner::Us, "{key} is not ours to delete");
                }
                Ok(None)
            }
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct World(Mutex<State>);

impl Clone for World {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.state().clone()))
    }
}

impl World {
    /// A world where everything went well so far.
    pub fn with(wanted: &str) -> Self {
        let world = Self::default();
        world.settles(wanted);
        world
    }

    /// What is there and what will go wrong.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on such calls fail.
    pub fn fails(&self, call: &str, class: Class, lands: Lands) {
        self.state().faults.push((call.to_owned(), class, lands));
    }

    /// An hour later: nothing goes wrong any more.
    pub fn recovers(&self) {
        let mut state = self.state();
        *state = State {
            things: std::mem::take(&mut state.things),
            late: std::mem::take(&mut state.late),
            made: state.made,
            recorded: std::mem::take(&mut state.recorded),
            applied: std::mem::take(&mut state.applied),
            ..State::default()
        };
    }

    /// What is ours in truth, in the form that [`spec`] reads.
    pub fn ours(&self) -> String {
        let state = self.state();
        let mut ours: Vec<_> = state
            .things
            .values()
            .filter(|thing| thing.owner == Owner::Us)
            .collect();
        ours.sort_by_key(|thing| (thing.stage, &thing.name));
        let shown = ours.into_iter().map(|thing| {
            let on = thing.on.map(|on| match state.things.get(&on) {
                Some(on) => format!("@{}", on.name),
                None => "@gone".into(),
            });
            let on = on.unwrap_or_default();
            format!("{} {}={}{on}", STAGES[thing.stage], thing.name, thing.size)
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// What was made and did not show yet shows.
    pub fn late_ones_show(&self) {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        state.things.extend(late);
    }

    /// What is not ours is gone.
    pub fn others_leave(&self) {
        let mut state = self.state();
        state.things.retain(|_, thing| thing.owner == Owner::Us);
    }

    /// The calls of the last run that were to change something.
    pub fn writes(&self) -> Vec<String> {
        let calls = self.state().calls.clone();
        calls
            .into_iter()
            .filter(|call| !call.starts_with('?'))
            .collect()
    }

    /// What a plan says, and that it says so without writing.
    pub fn plan(&self, spec: &Spec) -> Vec<String> {
        let (report, _) = self.drive(spec, Run::new(None, "")).unwrap();
        assert_eq!(self.writes(), [""; 0]);
        assert_eq!((report.made.len(), report.untried), (0, 0));
        report.planned.iter().map(ToString::to_string).collect()
    }

    /// One run of a new process; `None` if it died.
    pub fn run(&self, spec: &Spec) -> Option<Report> {
        let (report, held) = self.drive(spec, Run::new(Some(self), ""))?;
        let failed = report.failed.iter().filter(|it| it.key.is_some()).count();
        let state = self.state();
        assert_eq!(state.answered, state.entered, "each call is answered once");
        drop(state);
        assert_eq!(
            report.planned.len() + held,
            report.made.len() + report.untried + failed,
            "each change was made, failed or was not tried, and once: {report:#?}"
        );
        Some(report)
    }

    /// A run by what was applied before.
    pub fn run_since(&self, spec: &Spec, drift: DriftPolicy) -> Report {
        let applied = self.state().applied.clone();
        let before = AppliedBefore {
            applied: &applied,
            drift,
        };
        let run = Run::new(Some(self), "").since(Some(before));
        self.drive(spec, run).unwrap().0
    }

    /// One run that brings all in order, after which there is nothing left to do.
    pub fn settles(&self, wanted: &str) {
        let spec = spec(wanted);
        let report = self.run(&spec).unwrap();
        assert!(report.is_settled(), "{:#?}", report.failed);
        assert_eq!(self.ours(), wanted);
        assert_eq!(self.plan(&spec), [""; 0]);
    }

    fn drive(&self, spec: &Spec, mut run: Run<'_>) -> Option<(Report, usize)> {
        {
            let mut state = self.state();
            state.calls.clear();
            (state.moments, state.entered, state.answered) = (0, 0, 0);
            let lost = |thing: &Thing| {
                let ours = thing.stage == TARGET && thing.owner == Owner::Us;
                ours && !state.recorded.contains(&thing.name)
            };
            assert!(!state.things.values().any(lost), "all are recorded");
        }
        let writing = run.gate.is_some();
        let mut connections = StageRun::new(Part::<0>(self, spec[0].clone()));
        let mut destinations = StageRun::new(Part::<1>(self, spec[1].clone()));
        let mut groups = StageRun::new(Part::<2>(self, spec[2].clone()));
        let mut targets = StageRun::new(Part::<TARGET>(self, spec[TARGET].clone()));
        let before = self.state().applied.clone();
        async {
            drive(
                &mut [
                    &mut connections,
                    &mut destinations,
                    &mut groups,
                    &mut targets,
                ],
                &mut run,
            )
            .await;
            // The status at the end of a run: the record forgets what is neither there nor wanted.
            if let (true, Some(seen)) = (writing, &targets.seen) {
                self.clock().await;
                let wanted = &spec[TARGET].wanted;
                let keep = |name: &String| wanted.contains_key(name) || seen.contains_key(name);
                self.state().recorded.retain(keep);
                self.clock().await;
            }
        }
        .now_or_never()?;
        if writing {
            let all: [&mut dyn DynStage; 4] = [
                &mut connections,
                &mut destinations,
                &mut groups,
                &mut targets,
            ];
            self.state().applied = applied_after(&all, "", &before);
        }
        let held = [
            connections.seen.is_some(),
            destinations.seen.is_some(),
            groups.seen.is_some(),
            targets.seen.is_some(),
        ];
        let held = held.iter().zip(spec).filter(|(looked, _)| **looked);
        let held = held.map(|(_, desired)| desired.blocked.len()).sum();
        Some((run.report, held))
    }

    /// Between any two things that a process does, it may die, and others may act.
    async fn clock(&self) {
        let dies = {
            let mut state = self.state();
            state.moments += 1;
            let now = state.moments;
            if let Some((_, deed)) = state.meanwhile.take_if(|(at, _)| *at == now) {
                state.happen(deed);
            }
            state.dies_at == Some(now)
        };
        if dies {
            pending::<()>().await;
        }
    }

    /// Somebody does something.
    pub fn happen(&self, deed: Deed) {
        self.state().happen(deed);
    }
}

/// One stage of the world.
pub struct Part<'a, const N: usize>(&'a World, Desired<String, Setting>);

impl<const N: usize> Stage for Part<'_, N> {
    const NAME: &'static str = STAGES[N];
    const NEEDS: &'static [&'static str] = NEEDS[N];
    type Key = String;
    type Value = Setting;
    type Id = u32;
    type Live = ();

    fn endpoint(&self) -> &str {
        SCOPES[N]
    }

    fn desired(&self) -> &Desired<String, Setting> {
        &self.1
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        Operation {
            endpoint: SCOPES[N],
            account: "222233334444",
            region: "us-east-2",
            identity: "arn:aws:iam::222233334444:role/campanile",
            api: Self::NAME,
        }
    }

    fn intent(&self, key: &String) -> Option<StatusEdit> {
        let key = key.clone();
        let intent = move |recorded: &mut Vec<String>| recorded.push(key.clone());
        (N == TARGET).then(|| StatusEdit::new(intent))
    }

    fn batch(&self, changes: &[ChangeOf<Self>]) -> usize {
        match (Self::NAME, changes[0].verb()) {
            ("group", Verb::Delete) => 100,
            ("group", Verb::Update) => 2,
            _ => 1,
        }
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        self.0.clock().await;
        let mut state = self.0.state();
        let call = format!("? {}", Self::NAME);
        let fault = state.fault(&call);
        state.calls.push(call);
        match fault {
            Some((error, _)) => Err(error),
            None => Ok(state.see(N).into_iter().collect()),
        }
    }

    async fn apply(&self, _: &WritePermit<'_>, _: &ChangeOf<Self>, _: &Ids) -> ResultOf<Self> {
        unreachable!("all goes in batches")
    }

    async fn apply_batch(
        &self,
        _: &WritePermit<'_>,
        changes: &[ChangeOf<Self>],
        ids: &Ids,
    ) -> Vec<ResultOf<Self>> {
        self.0.clock().await;
        let outcomes = self.write(changes, ids);
        self.0.clock().await;
        outcomes
    }
}

impl<const N: usize> Part<'_, N> {
    fn write(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<ResultOf<Self>> {
        let mut state = self.0.state();
        let steps: Vec<_> = changes.iter().map(|it| Step::of(Self::NAME, it)).collect();
        // What a deletion loses is for the record alone.
        let admitted = state.admitted.iter().cloned().map(|step| match step.verb {
            Verb::Delete => Step {
                fields: Vec::new(),
                ..step
            },
            _ => step,
        });
        let admitted: Vec<_> = admitted.collect();
        assert_eq!(admitted, steps, "every write has just passed the gate");
        let verb = changes[0].verb();
        assert!(changes.len() <= self.batch(changes));
        assert!(changes.iter().all(|change| change.verb() == verb));
        let head = format!("{} {}", verb.sign(), Self::NAME);
        let ready = |change: &ChangeOf<Self>| match change {
            Change::Create { to, .. } | Change::Update { to, .. } => {
                let on = to.on.as_ref();
                let on = on.map(|on| match N {
                    1 => ids.need::<Part<'_, 0>>(on),
                    _ => ids.need::<Part<'_, 1>>(on),
                });
                Ok(on.transpose()?.copied())
            }
            Change::Delete { .. } => Ok(None),
        };
        let ready: Vec<Result<Option<u32>>> = changes.iter().map(ready).collect();
        let sent: Vec<_> = changes
            .iter()
            .zip(&ready)
            .filter(|(_, on)| on.is_ok())
            .collect();
        if !sent.is_empty() {
            let keys: Vec<_> = sent
                .iter()
                .map(|(change, _)| change.key().as_str())
                .collect();
            state.calls.push(format!("{head} {}", keys.join(" ")));
        }
        let mut outcomes: Vec<_> = changes
            .iter()
            .zip(ready)
            .map(|(change, on)| {
                let on = on?;
                let Some((error, lands)) = state.fault(&format!("{head} {}", change.key())) else {
                    return state.write(N, change, on);
                };
                if lands != Lands::Never {
                    let _unheard = state.write(N, change, on);
                }
                if (lands, verb) == (Lands::Later, Verb::Create) {
                    let id = state.made;
                    let thing = state.things.remove(&id);
                    state.late.extend(thing.map(|thing| (id, thing)));
                }
                Err(error)
            })
            .collect();
        if state.mute {
            outcomes.pop();
        }
        outcomes
    }
}

/// The gate writes intents to status, and remembers what was refused.
impl Gate for World {
    fn enter<'a>(
        &'a self,
        operation: Operation<'a>,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut state = self.state();
            assert!(SCOPES.contains(&operation.endpoint));
            if state.overtaken_after == Some(state.entered) {
                return Err(Error::new(Class::Superseded, "edited meanwhile"));
            }
            state.entered += 1;
            state.admitted = steps.to_vec();
            Ok(())
        })
    }

    fn edit<'a>(&'a self, intent: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut named = Vec::<String>::new();
            intent.apply(&mut named);
            let name = named.remove(0);
            self.clock().await;
            {
                let mut state = self.state();
                let call = format!("intend {} {name}", STAGES[TARGET]);
                let fault = state.fault(&call);
                state.calls.push(call);
                if fault.as_ref().is_none_or(|(_, lands)| *lands == Lands::Now) {
                    state.recorded.insert(name);
                }
                if let Some((error, _)) = fault {
                    return Err(error);
                }
            }
            self.clock().await;
            Ok(())
        })
    }

    fn answered(&self, _: Operation<'_>, outcomes: &[(&Step, Result<(), &Error>)]) {
        let mut state = self.state();
        state.answered += 1;
        for (step, outcome) in outcomes {
            let at = state.admitted.iter().position(|admitted| admitted == *step);
            state
                .admitted
                .remove(at.expect("only what was admitted has an outcome"));
            let kept = step.fields.iter().any(|field| field.from.is_some());
            assert!(
                step.verb != Verb::Delete || kept,
                "the record says what went"
            );
            if let Err(error) = outcome
                && error.class == Class::Rejected
            {
                state.refused.push(((*step).clone(), (*error).clone()));
            }
        }
    }

    fn refused(&self, _: Operation<'_>, step: &Step) -> Option<Error> {
        let state = self.state();
        let refused = state.refused.iter().find(|(refused, _)| refused == step);
        refused.map(|(_, error)| error.clone())
    }
}
