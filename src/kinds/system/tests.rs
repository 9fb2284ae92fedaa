//! A kind that exists only here. It acts in two systems whose stages have the same names: labels, which go in batches
//! and need each other, and tickets, which are made twice by whoever forgets them. Each place fails as a test says.

use super::*;
use crate::{
    api::CommonStatus,
    controller::jobs::ProcessWrites,
    engine::{
        gate::{Operation, WritePermit},
        informer::{DynInformer, Polling},
        jobs::{Activity, Job, JobGate, JobOwner, Jobs, Next, Reason, Record, Recovered, Slot},
        limits::Priority,
        plan::{Change, Desired, Found, Owner, PerThing, Value},
        policy::{DeletionPolicy, DriftPolicy},
        stage::{ChangeOf, Ids, ResultOf, STRAGGLER_LIMIT, Seen, Stage, StageRun},
    },
    kinds::{
        Clock, ConditionUpdate, Outcome, Policies, Status, StatusUpdate,
        job::{JobContext, JobState, KindJobs},
    },
    testing::{Operator, World, operator::NAMESPACE},
};
use futures::future::pending;
use jiff::Timestamp;
use kube::CustomResource;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};

const CALL: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "campanile.dev",
    version = "v1alpha1",
    kind = "Probe",
    namespaced
)]
#[kube(status = "ProbeStatus")]
#[serde(default)]
pub(crate) struct ProbeSpec {
    /// Where it is in the first system.
    home: String,
    /// Where it is in the second, if it is there.
    second: Option<String>,
    /// What each says in both; `>other` refers to another label, and in the second system `#t` is the ticket `t`.
    labels: BTreeMap<String, String>,
    /// Only in the first.
    tickets: BTreeSet<String>,
    /// Labels that stay when they are not wanted any more.
    orphans: BTreeSet<String>,
    report_drift: bool,
    suspend: bool,
    /// The job that it wants.
    round: Option<String>,
    /// In seconds.
    look_again: Option<u64>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub(crate) struct ProbeStatus {
    #[serde(flatten)]
    pub common: CommonStatus,
    pub first: Vec<Place>,
    pub second: Vec<Place>,
    tickets: BTreeMap<String, Option<usize>>,
    /// The job that is claimed, and how those before it ended.
    round: Option<String>,
    rounds: Vec<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub(crate) struct Place(pub String);

impl Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target for Place {
    fn place(&self) -> String {
        self.to_string()
    }
}

/// What a place does when it is asked.
#[derive(Clone, Copy, Debug, Default)]
enum Mode {
    #[default]
    Answers,
    Silent,
    Slow(Duration),
    Fails(Class),
}

/// What a place has, and every write to it with its time.
#[derive(Default)]
pub(crate) struct Registry {
    mode: Mutex<Mode>,
    labels: Mutex<BTreeMap<String, String>>,
    tickets: Mutex<Vec<String>>,
    calls: Mutex<Vec<(Duration, String)>>,
}

impl Registry {
    fn be(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    async fn answer(&self) -> Result<()> {
        let mode = *self.mode.lock();
        match mode {
            Mode::Answers => Ok(()),
            Mode::Silent => pending().await,
            Mode::Slow(after) => {
                sleep(after).await;
                Ok(())
            }
            Mode::Fails(class) => Err(Error::new(class, format!("{class:?}"))),
        }
    }

    async fn write(&self, what: String) {
        sleep(CALL).await;
        let at = BEGAN.with(|began| began.lock().elapsed());
        self.calls.lock().push((at, what));
    }

    fn calls(&self) -> Vec<(Duration, String)> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn names(&self) -> String {
        let labels = self.labels.lock();
        labels.keys().map(String::as_str).collect()
    }
}

impl Scope for Arc<Registry> {
    type Credentials = String;
    type Opener = ();

    async fn open(place: &String, (): &(), _: &Polling) -> Result<Self> {
        let registry = at(place);
        registry.answer().await?;
        Ok(registry)
    }

    fn informers(&self) -> Vec<&dyn DynInformer> {
        Vec::new()
    }
}

thread_local! {
    static PLACES: Mutex<BTreeMap<String, Arc<Registry>>> = Mutex::default();
    static BEGAN: Mutex<Instant> = Mutex::new(Instant::now());
}

/// What is at a place.
fn at(place: &str) -> Arc<Registry> {
    PLACES.with(|all| all.lock().entry(place.to_owned()).or_default().clone())
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Text(String);

impl Value for Text {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("text", self.0.clone())]
    }
}

fn operation(api: &'static str) -> Operation<'static> {
    Operation {
        endpoint: "registry",
        account: "",
        region: "",
        identity: "",
        api,
    }
}

fn ours<I>(id: I, text: &str) -> Found<Text, I, ()> {
    Found {
        id,
        value: Text(text.to_owned()),
        owner: Owner::Us,
        live: (),
    }
}

pub(crate) struct Labels {
    desired: Desired<String, Text>,
    registry: Arc<Registry>,
    options: ReadOptions,
}

impl Stage for Labels {
    const NAME: &'static str = "label";
    type Key = String;
    type Value = Text;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        "registry"
    }

    fn desired(&self) -> &Desired<String, Text> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        self.options
            .unless_superseded(self.registry.answer())
            .await?;
        let labels = self.registry.labels.lock();
        Ok(labels
            .iter()
            .map(|(name, text)| (name.clone(), ours((), text)))
            .collect())
    }

    fn refers_to(&self, _: &String, value: &Text) -> BTreeSet<String> {
        value
            .0
            .strip_prefix('>')
            .map(str::to_owned)
            .into_iter()
            .collect()
    }

    fn batch(&self, _: &[ChangeOf<Self>]) -> usize {
        2
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        operation("registry:PutLabels")
    }

    async fn apply(&self, _: &WritePermit<'_>, _: &ChangeOf<Self>, _: &Ids) -> ResultOf<Self> {
        Ok(None)
    }

    async fn apply_batch(
        &self,
        permit: &WritePermit<'_>,
        changes: &[ChangeOf<Self>],
        _: &Ids,
    ) -> Vec<ResultOf<Self>> {
        let names: Vec<_> = changes.iter().map(|it| it.key().as_str()).collect();
        let api = permit.operation().api;
        self.registry
            .write(format!("{api} {}", names.join(" ")))
            .await;
        let mut labels = self.registry.labels.lock();
        for change in changes {
            match change {
                Change::Create { key, to } | Change::Update { key, to, .. } => {
                    labels.insert(key.clone(), to.0.clone());
                }
                Change::Delete { key, .. } => drop(labels.remove(key)),
            }
        }
        changes.iter().map(|_| Ok(None)).collect()
    }
}

/// A place makes another one for each call, and shows nobody's mark.
pub(crate) struct Tickets {
    desired: Desired<String, Text>,
    known: BTreeMap<String, Option<usize>>,
    registry: Arc<Registry>,
}

impl Stage for Tickets {
    const NAME: &'static str = "ticket";
    const NEEDS: &'static [&'static str] = &[Labels::NAME];
    type Key = String;
    type Value = Text;
    type Id = usize;
    type Live = ();

    fn endpoint(&self) -> &str {
        "registry"
    }

    fn desired(&self) -> &Desired<String, Text> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let tickets = self.registry.tickets.lock();
        let all = tickets.iter().enumerate();
        let ours_of = |name: &String| self.known.contains_key(name) || ids.is_new::<Self>(name);
        let all = all.filter(|(_, name)| ours_of(name));
        Ok(all.map(|(id, name)| (name.clone(), ours(id, ""))).collect())
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        operation("registry:CreateTicket")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let api = permit.operation().api;
        self.registry.write(format!("{api} {}", change.key())).await;
        let mut tickets = self.registry.tickets.lock();
        tickets.push(change.key().clone());
        Ok(Some(tickets.len() - 1))
    }

    fn intent(&self, name: &String) -> Option<StatusEdit> {
        let name = name.clone();
        Some(StatusEdit::new(move |status: &mut ProbeStatus| {
            status.tickets.insert(name.clone(), None);
        }))
    }

    fn record(&self, name: &String, id: &usize) -> Option<StatusEdit> {
        let (name, id) = (name.clone(), *id);
        Some(StatusEdit::new(move |status: &mut ProbeStatus| {
            status.tickets.insert(name.clone(), Some(id));
        }))
    }
}

pub(crate) struct ProbeStages {
    labels: StageRun<Labels>,
    tickets: StageRun<Tickets>,
}

impl Stages for ProbeStages {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        vec![&mut self.labels, &mut self.tickets]
    }
}

/// The first system, and the second.
pub(crate) struct In<const N: usize>;

impl<const N: usize> System<Probe> for In<N> {
    const NAME: &'static str = ["first", "second"][N];
    type Target = Place;
    type Scope = Arc<Registry>;
    type Stages = ProbeStages;
    /// The tickets that the first has made.
    type From = BTreeMap<String, usize>;

    fn targets(status: &mut ProbeStatus) -> &mut Vec<Place> {
        match N {
            0 => &mut status.first,
            _ => &mut status.second,
        }
    }

    fn target(probe: &Probe, (): &(), _: &Installation) -> Option<Place> {
        let spec = &probe.spec;
        let all = [Some(&spec.home), spec.second.as_ref()];
        all[N].cloned().map(Place)
    }

    fn credentials(
        _: &Probe,
        place: &Place,
        _: Result<&(), &Error>,
        _: &Installation,
    ) -> Result<String> {
        Ok(place.place())
    }

    fn subscribe(
        _: &Probe,
        _: &StageContext<'_, Probe, Self>,
        _: &Subscriber,
    ) -> Vec<Subscription> {
        Vec::new()
    }

    fn stages(probe: &Probe, context: &StageContext<'_, Probe, Self>) -> ProbeStages {
        let spec = context.inputs.map(|()| probe.spec.clone());
        let spec = spec.unwrap_or_default();
        let orphans = probe.spec.orphans.iter().cloned();
        let (mut labels, mut blocked) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in spec.labels {
            let ticket = text.strip_prefix('#').filter(|_| N == 1);
            match ticket.map(|ticket| context.from.get(ticket)) {
                None => drop(labels.insert(name, Text(text))),
                Some(Some(id)) => drop(labels.insert(name, Text(format!("ticket {id}")))),
                Some(None) => {
                    let waiting = Class::Waiting(WaitingOn::Prerequisite);
                    blocked.insert(name, Error::new(waiting, "there is no such ticket yet"));
                }
            }
        }
        let tickets = spec.tickets.into_iter().filter(|_| N == 0);
        let registry: Arc<Registry> = (*context.scope).clone();
        ProbeStages {
            labels: StageRun::new(Labels {
                desired: Desired {
                    wanted: labels,
                    blocked,
                    deletion: PerThing {
                        usual: DeletionPolicy::Delete,
                        of: orphans.map(|name| (name, DeletionPolicy::Orphan)).collect(),
                    },
                    ..Desired::default()
                },
                registry: registry.clone(),
                options: context.options.clone(),
            }),
            tickets: StageRun::new(Tickets {
                desired: Desired {
                    wanted: tickets.map(|name| (name, Text(String::new()))).collect(),
                    ..Desired::default()
                },
                known: context.status.tickets.clone(),
                registry,
            }),
        }
    }
}

pub(crate) struct ProbeVisits {
    pub first: SystemVisits<Probe, In<0>>,
    pub second: SystemVisits<Probe, In<1>>,
}

impl Status for ProbeStatus {
    fn common(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn places(&self) -> Vec<TargetView> {
        let all = self.first.iter().chain(&self.second);
        all.map(Target::view).collect()
    }

    fn take_records(&mut self, known: &Self) {
        self.first = known.first.clone();
        self.second = known.second.clone();
        self.tickets = known.tickets.clone();
    }
}

impl Visits<Probe> for ProbeVisits {
    fn systems(&self) -> Vec<&dyn Visited<Probe>> {
        vec![&self.first, &self.second]
    }
}

impl Kind for Probe {
    const KIND: &'static str = "Probe";
    type Inputs = ();
    type Visits = ProbeVisits;
    const HAS_JOBS: bool = true;

    async fn drive_job(&self, context: &JobContext<'_, Self>) -> Result<JobState> {
        let claim = context.status.round.clone();
        let mut owner = Rounds(self, context, claim);
        context.drive(&mut owner, |_| None).await
    }

    fn reserve_job(&self, jobs: &KindJobs) -> Result<()> {
        let claim = self
            .status
            .as_ref()
            .and_then(|status| status.round.as_ref());
        if let Some(claim) = claim {
            let uid = self.uid().unwrap_or_default();
            jobs.of::<Endless>()?.reserve(&uid, claim);
        }
        Ok(())
    }

    fn policies(&self) -> Policies {
        Policies {
            suspend: self.spec.suspend,
            drift: match self.spec.report_drift {
                true => DriftPolicy::Report,
                false => DriftPolicy::Repair,
            },
            deletion: DeletionPolicy::Delete,
        }
    }

    async fn dereference(&self, _: &ClusterView<'_>) -> Result<()> {
        Ok(())
    }

    async fn visit(visitor: &Visitor<'_, Self>) -> ProbeVisits {
        let first = visitor.visit::<In<0>>(BTreeMap::new());
        let mut texts = visitor.object.spec.labels.values();
        if !texts.any(|text| text.starts_with('#')) {
            let second = visitor.visit::<In<1>>(BTreeMap::new());
            let (first, second) = tokio::join!(first, second);
            return ProbeVisits { first, second };
        }
        let first = first.await;
        let current = first.current().and_then(|visit| visit.stages.as_ref());
        let tickets = current.and_then(|stages| stages.tickets.seen.as_ref());
        let tickets = tickets.iter().flat_map(|seen| &seen.found);
        let made = tickets
            .map(|(name, found)| (name.clone(), found.id))
            .collect();
        let second = visitor.visit::<In<1>>(made).await;
        ProbeVisits { first, second }
    }

    fn report(
        &self,
        outcome: &Outcome<Self>,
        _: &mut ProbeStatus,
        clock: Clock<'_>,
    ) -> StatusUpdate {
        let visits = &outcome.visits;
        let (first, second) = (&visits.first, &visits.second);
        let stale = [clock.is_stale(first), clock.is_stale(second)];
        StatusUpdate {
            conditions: vec![ConditionUpdate::new(
                "Stale",
                true,
                "Told",
                format!("{stale:?}"),
            )],
            requeue_after: self.spec.look_again.map(Duration::from_secs),
            ..StatusUpdate::default()
        }
    }
}

/// A world with one probe, and one process of the operator.
struct Scene {
    world: World,
    operator: Operator,
}

impl Scene {
    /// A probe at `a`, and at `b` in the second system where that is so.
    fn new(second: bool) -> Self {
        PLACES.with(|all| all.lock().clear());
        BEGAN.with(|began| *began.lock() = Instant::now());
        let world = World::new();
        let operator = Operator::new(&world);
        let scene = Self { world, operator };
        scene.edit(
            json!({"home": "a", "second": second.then_some("b"), "tickets": ["t"],
            "labels": {"a": ">c", "b": "1", "c": "1", "d": "1"}}),
        );
        scene
    }

    fn edit(&self, spec: serde_json::Value) {
        self.world.apply("Probe", "p", spec);
    }

    async fn run(&self) -> &'static str {
        self.operator.reconcile::<Probe>("p").await.unwrap().outcome
    }

    fn probe(&self) -> Option<Probe> {
        self.world.cluster.get(NAMESPACE, "p")
    }

    fn status(&self) -> ProbeStatus {
        self.probe().unwrap().status.unwrap_or_default()
    }

    /// Where status says that it has made things.
    fn places(&self) -> Vec<String> {
        let places = self.status().places();
        places.into_iter().map(|place| place.text).collect()
    }

    /// It was deleted so long ago.
    fn delete(&self, ago: Duration) {
        self.world.cluster.delete::<Probe>(NAMESPACE, "p");
        let at = (Timestamp::now() - ago).to_string();
        let edit =
            |probe: &mut serde_json::Value| probe["metadata"]["deletionTimestamp"] = json!(at);
        self.world.cluster.edit::<Probe>(NAMESPACE, "p", edit);
    }
}

/// Runs until it ends by itself, or is ended by a newer edit after a while: how it ended, and after how long.
async fn run_until_edited(scene: &Scene, after: Duration) -> (&'static str, Duration) {
    let edit = async {
        sleep(after).await;
        let uid = scene.probe().unwrap().uid().unwrap_or_default();
        let memory = &scene.operator.context.object_memory;
        memory.seen(&uid, Some(i64::MAX), None);
        pending::<()>().await;
    };
    let began = Instant::now();
    let outcome = tokio::select! {
        outcome = scene.run() => outcome,
        () = edit => unreachable!("the edit waits for ever"),
    };
    (outcome, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_system_that_never_answers_delays_neither_another_nor_a_newer_edit() {
    let scene = Scene::new(false);
    assert_eq!(scene.run().await, "ok");
    let alone = at("a").calls();
    let writes = CALL * u32::try_from(alone.len()).unwrap();
    let soon = Duration::from_secs(5);
    for (after, ended, limit) in [
        (soon, "superseded", soon),
        (HOUR, "unavailable", writes + STRAGGLER_LIMIT),
    ] {
        let scene = Scene::new(true);
        at("b").be(Mode::Silent);
        let (outcome, took) = run_until_edited(&scene, after).await;
        assert_eq!(alone, at("a").calls());
        assert_eq!((outcome, took), (ended, limit));
        assert_eq!(scene.status().tickets, [("t".to_owned(), Some(0))].into());
    }
}

#[tokio::test(start_paused = true)]
async fn places_that_never_answer_are_waited_for_side_by_side_and_told() {
    let scene = Scene::new(false);
    scene.run().await;
    for place in ["a", "b"] {
        at(place).be(Mode::Silent);
    }
    scene.edit(json!({"home": "b"}));
    let (outcome, took) = run_until_edited(&scene, HOUR).await;
    assert_eq!((outcome, took), ("unavailable", VISIT_LIMIT));
    let conditions = scene.status().common.conditions;
    let ready = &conditions
        .iter()
        .find(|it| it.type_ == "Ready")
        .unwrap()
        .message;
    for place in ["a", "b"] {
        assert!(
            ready.contains(&format!("{place} did not answer within 300 s")),
            "{ready}"
        );
    }
}

/// Two at a time, what is needed first; and what makes two is made once, whatever is forgotten.
#[tokio::test(start_paused = true)]
async fn a_stage_says_what_goes_together_and_what_goes_first() {
    let scene = Scene::new(false);
    assert_eq!(scene.run().await, "ok");
    let calls: Vec<_> = at("a").calls().into_iter().map(|(_, call)| call).collect();
    assert_eq!(
        calls,
        [
            "registry:PutLabels b c",
            "registry:PutLabels d",
            "registry:PutLabels a",
            "registry:CreateTicket t"
        ]
    );
    assert_eq!(scene.status().tickets, [("t".to_owned(), Some(0))].into());
    assert_eq!(scene.places(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_clean_up_is_abandoned_place_by_place() {
    let denied = Mode::Fails(Class::Denied);
    let throttled = Mode::Fails(Class::Throttled);
    // In two systems, and in two places of one system.
    for moved in [false, true] {
        let scene = Scene::new(!moved);
        assert_eq!(scene.run().await, "ok");
        at("a").be(denied);
        if moved {
            scene.edit(json!({"home": "b", "labels": {"x": "1"}}));
            assert_eq!(scene.run().await, "denied");
            assert_eq!(at("b").names(), "x");
        }
        at("b").be(throttled);
        scene.delete(HOUR * 23);
        scene.run().await;
        assert_eq!(scene.places(), ["a", "b"], "{moved}");
        scene.delete(HOUR * 25);
        assert_eq!(scene.run().await, "throttled", "{moved}");
        assert_eq!(scene.places(), ["b"], "{moved}");
        at("b").be(Mode::Answers);
        sleep(HOUR).await;
        scene.run().await;
        assert!(scene.probe().is_none(), "{moved}");
        assert_eq!(
            (&*at("a").names(), &*at("b").names()),
            ("abcd", ""),
            "{moved}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_status_was_lost_is_held_until_it_was_looked_for() {
    let scene = Scene::new(true);
    scene.run().await;
    // As after a restart, it cannot even be reached.
    let operator = Operator::new(&scene.world);
    let scene = Scene { operator, ..scene };
    scene.world.wipe::<Probe>();
    scene.delete(HOUR);
    for mode in [
        Mode::Fails(Class::Unavailable),
        Mode::Fails(Class::Throttled),
    ] {
        at("b").be(mode);
        scene.run().await;
        assert!(scene.probe().is_some());
    }
    at("b").be(Mode::Answers);
    sleep(HOUR).await;
    scene.run().await;
    assert!(scene.probe().is_none());
    assert_eq!(at("b").names(), "");
}

/// By hand, a label says something else.
fn meddle(place: &str, label: &str) {
    let place = at(place);
    place.labels.lock().insert(label.into(), "9".into());
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_in_one_system_is_not_forgotten_for_the_same_stage_of_another() {
    let scene = Scene::new(true);
    let spec = json!({"home": "a", "second": "b", "labels": {"b": "1"}, "report_drift": true});
    scene.edit(spec);
    scene.run().await;
    for place in ["a", "b"] {
        meddle(place, "b");
        assert_eq!(scene.run().await, "ok");
        assert_eq!(
            at(place).labels.lock()["b"],
            "9",
            "it is told, and left as it is"
        );
    }
    assert_eq!(scene.status().common.drift_count, Some(2));
}

/// Of a thing that was changed outside before the edit, too: an edit applies the whole spec.
#[tokio::test(start_paused = true)]
async fn an_edit_that_fails_at_first_is_applied_when_it_can_be() {
    let spec = |c: &str| json!({"home": "a", "second": "b", "labels": {"b": "1", "c": c}, "report_drift": true});
    for mode in [
        Mode::Fails(Class::Throttled),
        Mode::Fails(Class::Unavailable),
        Mode::Fails(Class::OutcomeUnknown),
        Mode::Silent,
    ] {
        for place in ["a", "b"] {
            let scene = Scene::new(true);
            scene.edit(spec("1"));
            scene.run().await;
            meddle(place, "b");
            assert_eq!(scene.run().await, "ok");
            scene.edit(spec("2"));
            at(place).be(mode);
            scene.run().await;
            at(place).be(Mode::Answers);
            for _ in 0..2 {
                sleep(HOUR).await;
                scene.run().await;
            }
            let labels = at(place).labels.lock().clone();
            assert_eq!((&*labels["b"], &*labels["c"]), ("1", "2"), "{mode:?}");
            // From now on it is drift again.
            meddle(place, "b");
            scene.run().await;
            assert_eq!(at(place).labels.lock()["b"], "9", "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_edit_ends_the_wait_for_a_quota() {
    let scene = Scene::new(false);
    let limiter = &scene.operator.context.clients.limiter;
    let api = "registry:PutLabels";
    for _ in 0..600 {
        let limiter = limiter.clone();
        tokio::spawn(async move { limiter.take("", "", api, Priority::Edit).await });
    }
    sleep(Duration::from_millis(1)).await;
    let second = Duration::from_secs(1);
    assert_eq!(
        run_until_edited(&scene, second).await,
        ("superseded", second)
    );
}

#[tokio::test(start_paused = true)]
async fn a_system_that_cannot_be_looked_at_blinds_no_other() {
    let scene = Scene::new(true);
    let spec =
        json!({"home": "a", "second": "b", "labels": {"b": "1", "c": "1"}, "report_drift": true});
    scene.edit(spec);
    scene.run().await;
    let listed = || {
        let found = scene.status().common.drift.into_iter();
        found
            .map(|entry| entry.found.unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let drifted = || scene.world.condition::<Probe>("p", "Drifted");
    meddle("b", "c");
    scene.run().await;
    assert_eq!(
        (listed().len(), drifted()),
        (1, "True DriftReported".into())
    );
    at("b").be(Mode::Fails(Class::Unavailable));
    scene.run().await;
    assert_eq!(
        (listed().len(), drifted()),
        (1, "True DriftReported".into()),
        "it still stands"
    );
    meddle("a", "b");
    scene.run().await;
    assert_eq!(
        listed().len(),
        2,
        "in the other one it is seen all the same"
    );
    scene.world.calls.clear();
    scene.run().await;
    assert_eq!(scene.world.calls.writes(), [""; 0], "it is told once");
    at("a").labels.lock().insert("b".into(), "1".into());
    scene.run().await;
    assert_eq!(
        (listed().len(), drifted()),
        (1, "True DriftReported".into())
    );
    at("b").labels.lock().insert("c".into(), "1".into());
    at("b").be(Mode::Answers);
    scene.run().await;
    assert_eq!((listed().len(), drifted()), (0, "False AsApplied".into()));
    at("b").be(Mode::Fails(Class::Unavailable));
    for _ in 0..2 {
        scene.run().await;
        sleep(HOUR).await;
    }
    let conditions = scene.status().common.conditions;
    let stale = conditions.iter().find(|it| it.type_ == "Stale").unwrap();
    assert_eq!(stale.message, "[false, true]");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_left_and_cannot_be_looked_at_makes_nothing_stale() {
    let scene = Scene::new(false);
    scene.run().await;
    at("a").be(Mode::Fails(Class::Denied));
    scene.edit(json!({"home": "b"}));
    for _ in 0..2 {
        assert_eq!(scene.run().await, "denied");
        sleep(2 * HOUR).await;
    }
    let conditions = scene.status().common.conditions;
    let stale = conditions.iter().find(|it| it.type_ == "Stale").unwrap();
    assert_eq!(stale.message, "[false, false]");
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_orphaned_stays_when_the_object_is_deleted() {
    let scene = Scene::new(false);
    scene.edit(json!({"home": "a", "labels": {"b": "1", "c": "1"}, "orphans": ["c"]}));
    assert_eq!(scene.run().await, "ok");
    scene.delete(HOUR);
    scene.run().await;
    assert!(scene.probe().is_none());
    assert_eq!(at("a").names(), "c");
}

#[tokio::test(start_paused = true)]
async fn what_one_system_makes_feeds_another_in_the_same_run() {
    let spec =
        json!({"home": "a", "second": "b", "labels": {"x": "#t", "y": "1"}, "tickets": ["t"]});
    let scene = Scene::new(true);
    scene.edit(spec.clone());
    assert_eq!(scene.run().await, "ok");
    assert_eq!(at("b").labels.lock()["x"], "ticket 0");
    let scene = Scene::new(true);
    scene.edit(spec);
    at("a").be(Mode::Fails(Class::Throttled));
    assert_eq!(scene.run().await, "throttled");
    assert_eq!(
        at("b").names(),
        "y",
        "what needs nothing of the first is made"
    );
}

/// Runs until it is told to stop.
#[derive(Clone)]
pub(crate) struct Endless;

impl Job for Endless {
    type Object = String;
    type Claim = String;
    type Place = String;
    type Progress = ();
    type Report = ();
    const GRACE: Duration = HOUR;

    fn slot(uid: &String) -> Slot<String> {
        Slot {
            place: uid.clone(),
            pool: "probes",
            pool_size: 9,
        }
    }

    async fn recover(self) -> Result<Recovered<Self>> {
        Ok(Recovered::NothingOfIt)
    }

    async fn run(self, gate: JobGate<()>) -> Result<()> {
        assert!(gate.enter(operation("registry:Begin")).is_ok());
        let reason = gate.cancelled().await;
        assert!(gate.enter(operation("registry:GoOn")).is_err());
        Err(Error::invalid(format!("{reason:?}")))
    }
}

/// A probe with its job, as its reconcile sees it.
struct Rounds<'a>(&'a Probe, &'a JobContext<'a, Probe>, Option<String>);

impl JobOwner<Endless> for Rounds<'_> {
    fn object(&self) -> String {
        self.0.uid().unwrap_or_default()
    }

    fn claim(&self) -> Option<String> {
        self.2.clone()
    }

    fn next(&self, _: Timestamp, _: &Activity<()>) -> Next<String> {
        match &self.0.spec.round {
            Some(round) => Next::Start(round.clone()),
            None => Next::Cancel(Reason::NotWanted),
        }
    }

    fn job(&self, _: &String) -> Result<Endless> {
        Ok(Endless)
    }

    async fn record(&mut self, record: Record<Endless>) -> Result<()> {
        let (claim, ended) = match record {
            Record::Claimed(claim) => (Some(claim), None),
            Record::Ended(_, outcome) => (None, Some(format!("{outcome:?}"))),
        };
        self.2.clone_from(&claim);
        let edit = StatusEdit::new(move |status: &mut ProbeStatus| {
            status.round.clone_from(&claim);
            status.rounds.extend(ended.clone());
        });
        self.1.gate.edit(&edit).await
    }
}

thread_local! {
    static JOBS: Mutex<Arc<Jobs<Endless>>> = Mutex::new(new_jobs());
}

fn new_jobs() -> Arc<Jobs<Endless>> {
    let writes = ProcessWrites {
        lease: None,
        shutdown: Default::default(),
    };
    Jobs::new(HOUR, Arc::new(writes), Box::new(|_| {}))
}

/// The jobs of all probes, in a process that has just started.
pub(crate) fn probe_jobs() -> Arc<Jobs<Endless>> {
    let jobs = new_jobs();
    JOBS.with(|it| *it.lock() = jobs.clone());
    jobs
}

#[tokio::test(start_paused = true)]
async fn a_job_outlives_runs_and_ends_with_the_wish_for_it_and_with_the_process() {
    for expected in [
        Reason::NotWanted,
        Reason::Suspended,
        Reason::Deleted,
        Reason::LeaseLost,
    ] {
        let scene = Scene::new(false);
        scene.edit(json!({"home": "a", "round": "r"}));
        for _ in 0..2 {
            assert_eq!(scene.run().await, "ok");
        }
        assert_eq!(scene.status().round.as_deref(), Some("r"));
        sleep(HOUR).await;
        let running = JOBS.with(|it| it.lock().clone());
        let uid = scene.probe().unwrap().uid().unwrap_or_default();
        assert_eq!(running.activity(&uid), Activity::Running(()));
        match expected {
            Reason::NotWanted => scene.edit(json!({"home": "a"})),
            Reason::Suspended => {
                scene.edit(json!({"home": "a", "round": "r", "suspend": true}));
            }
            Reason::Deleted => scene.delete(Duration::ZERO),
            _ => scene.operator.context.end_jobs(expected).await,
        }
        scene.run().await;
        if expected == Reason::Deleted {
            let ready = scene.status().common.conditions;
            let ready = ready.iter().find(|it| it.type_ == "Ready").unwrap();
            assert!(
                ready.message.contains("its job has not ended yet"),
                "{ready:?}"
            );
        }
        sleep(HOUR).await;
        let last = scene.run().await;
        match expected {
            Reason::Deleted => {
                scene.run().await;
                assert!(scene.probe().is_none());
            }
            // The claims of a process that ends stay for the next.
            Reason::LeaseLost => {
                assert_eq!(last, "superseded");
                assert_eq!(scene.status().round.as_deref(), Some("r"));
            }
            _ => {
                assert_eq!(scene.status().round, None);
                assert_eq!(scene.status().rounds, [format!("Cancelled({expected:?})")]);
            }
        }
    }
}

/// The next process finds nothing of it, says so, and begins anew; until then nothing runs in its place.
#[tokio::test(start_paused = true)]
async fn a_claim_of_another_process_is_recovered_before_anything_starts() {
    let mut scene = Scene::new(false);
    scene.edit(json!({"home": "a", "round": "r"}));
    scene.run().await;
    scene.run().await;
    scene.operator = Operator::new(&scene.world);
    for _ in 0..3 {
        scene.run().await;
        sleep(CALL).await;
    }
    assert_eq!(scene.status().rounds, ["Interrupted"]);
    assert_eq!(scene.status().round.as_deref(), Some("r"));
}

/// Who takes off the finalizer, replaces the status or deletes past us hides nothing.
#[tokio::test(start_paused = true)]
async fn what_others_do_to_an_object_is_mended() {
    let woken = |scene: &Scene| scene.operator.woken().contains("p");
    let take_off = |object: &mut serde_json::Value| object["metadata"]["finalizers"] = json!([]);
    let replace = |object: &mut serde_json::Value| {
        object["status"] = json!({});
    };
    let rename = |object: &mut serde_json::Value| {
        object["status"]["conditions"][0]["message"] = json!("all is well");
    };
    type Edit = fn(&mut serde_json::Value);
    for edit in [take_off as Edit, replace, rename] {
        let scene = Scene::new(true);
        scene.run().await;
        let good = scene.probe().unwrap();
        sleep(HOUR).await;
        assert!(!woken(&scene), "our own writes wake nobody");
        scene.world.cluster.edit::<Probe>(NAMESPACE, "p", edit);
        sleep(Duration::from_secs(3)).await;
        assert!(woken(&scene));
        scene.run().await;
        let now = scene.probe().unwrap();
        assert_eq!(now.finalizers(), good.finalizers());
        let said = |probe: Probe| {
            let all = probe.status.unwrap().common.conditions.into_iter();
            all.map(|it| (it.type_, it.reason, it.message))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(now), said(good));
        assert_eq!(scene.places(), ["a", "b"]);
        sleep(HOUR).await;
        assert!(!woken(&scene), "it is mended");
        // A ticket has no mark: who forgot it would make another.
        assert_eq!(at("a").tickets.lock().len(), 1);
    }
}

/// It is deleted by whoever takes its finalizer off: what it made goes all the same, unless another object of its name
/// looks after it now, or it is to stay.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_past_us_is_cleaned_up() {
    for (again, left) in [(false, ""), (true, "abcd")] {
        let scene = Scene::new(false);
        scene.run().await;
        at("a").be(Mode::Fails(Class::Throttled));
        scene.delete(Duration::ZERO);
        scene.world.cluster.edit::<Probe>(NAMESPACE, "p", |object| {
            object["metadata"]["finalizers"] = json!([]);
        });
        assert!(scene.probe().is_none());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(at("a").names(), "abcd", "it is tried again");
        if again {
            scene.edit(json!({"home": "a"}));
        }
        at("a").be(Mode::Answers);
        sleep(HOUR).await;
        assert_eq!(at("a").names(), left);
    }
}

/// The watch may tell of a deletion later than the API server has answered, and an object of the same name may be there
/// by then.
#[tokio::test(start_paused = true)]
async fn what_was_let_go_is_not_cleaned_up_again() {
    let scene = Scene::new(false);
    scene.run().await;
    let gone = scene.probe().unwrap();
    scene.delete(Duration::ZERO);
    scene.operator.lag::<Probe>();
    scene.run().await;
    assert!(scene.probe().is_none());
    scene.edit(json!({"home": "a", "labels": {"x": "1"}}));
    at("a").labels.lock().insert("x".into(), "1".into());
    at("a").calls();
    scene.operator.saw(gone, true);
    sleep(HOUR).await;
    assert_eq!(at("a").calls(), []);
}

/// A place that was left is read in each run from its beginning.
#[tokio::test(start_paused = true)]
async fn a_slow_place_that_was_left_is_cleaned_up() {
    let scene = Scene::new(false);
    scene.run().await;
    at("a").be(Mode::Slow(Duration::from_secs(40)));
    scene.edit(json!({"home": "b"}));
    assert_eq!(scene.run().await, "ok");
    assert_eq!(
        (at("a").names().as_str(), scene.places()),
        ("", vec!["b".to_owned()])
    );
}

/// A job gets its slot before its object's systems are visited, however long that takes.
#[tokio::test(start_paused = true)]
async fn a_silent_place_does_not_keep_a_job_from_starting_or_stopping() {
    let scene = Scene::new(false);
    at("a").be(Mode::Silent);
    scene.edit(json!({"home": "a", "round": "r"}));
    for _ in 0..2 {
        scene.run().await;
    }
    let running = JOBS.with(|it| it.lock().clone());
    let uid = scene.probe().unwrap().uid().unwrap_or_default();
    assert_eq!(running.activity(&uid), Activity::Running(()));
    scene.edit(json!({"home": "a"}));
    for _ in 0..2 {
        scene.run().await;
    }
    assert_eq!(scene.status().rounds, ["Cancelled(NotWanted)"]);
}

/// An edit was half applied, and then taken back by one that could do nothing: it is not taken for applied.
#[tokio::test(start_paused = true)]
async fn an_edit_that_was_taken_back_half_way_is_put_right() {
    for suspend in [true, false] {
        let scene = Scene::new(false);
        let spec = |text: &str, suspend: bool| json!({"home": "a", "labels": {"x": text}, "report_drift": true, "suspend": suspend});
        scene.edit(spec("1", false));
        scene.run().await;
        scene.edit(spec("2", false));
        meddle("a", "x");
        if !suspend {
            at("a").be(Mode::Fails(Class::Denied));
        }
        scene.edit(spec("1", suspend));
        scene.run().await;
        if suspend {
            let conditions = scene.status().common.conditions;
            let ready = conditions.iter().find(|it| it.type_ == "Ready").unwrap();
            assert_eq!((&*ready.status, &*ready.reason), ("False", "Suspended"));
            scene.edit(spec("1", false));
        }
        at("a").be(Mode::Answers);
        assert_eq!(scene.run().await, "ok");
        assert_eq!(at("a").labels.lock()["x"], "1");
        assert_eq!(scene.status().common.drift, []);
    }
}
