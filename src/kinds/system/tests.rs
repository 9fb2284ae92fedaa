//! A kind that exists only here: it acts in a registry, whose labels go in batches and need each other and whose
//! tickets are made twice by whoever forgets them, and in a system that takes connections and never answers.

use super::*;
use crate::{
    api::CommonStatus,
    engine::{
        gate::{Operation, WritePermit},
        informer::{Consistency, Polling},
        limits::Priority,
        plan::{Change, Desired, Found, Owner, Value},
        policy::{DeletionPolicy, DriftPolicy},
        rendering::Step,
        scope_pool::ScopePool,
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage, StageRun},
    },
    kinds::{self, Clock, Outcome, Policies, Status, StatusUpdate},
    testing::World,
};
use futures::future::{BoxFuture, pending};
use kube::CustomResource;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CALL: Duration = Duration::from_millis(50);

#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "test.campanile.dev",
    version = "v1",
    kind = "Probe",
    namespaced
)]
#[kube(status = "ProbeStatus")]
struct ProbeSpec {
    /// What each says; `>other` refers to another label.
    labels: BTreeMap<String, String>,
    tickets: BTreeSet<String>,
    silent: bool,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
struct ProbeStatus {
    #[serde(flatten)]
    common: CommonStatus,
    places: Vec<Place>,
    silent: Vec<Place>,
    tickets: BTreeMap<String, Option<usize>>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
struct Place;

impl Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the registry")
    }
}

impl Target for Place {
    fn place(&self) -> String {
        self.to_string()
    }
}

/// What the registry has, and every call to it with its time.
#[derive(Default)]
struct Registry {
    labels: Mutex<BTreeMap<String, String>>,
    tickets: Mutex<Vec<String>>,
    calls: Mutex<Vec<(Duration, String)>>,
    began: Option<Instant>,
}

impl Registry {
    async fn call(&self, what: String) {
        sleep(CALL).await;
        let at = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        self.calls.lock().push((at, what));
    }
}

impl Scope for Registry {
    type Credentials = ();
    type Opener = Arc<Registry>;

    async fn open((): &(), _: &Arc<Registry>, _: &Polling) -> Result<Self> {
        Ok(Self::default())
    }

    fn informers(&self) -> Vec<&dyn crate::engine::informer::DynInformer> {
        Vec::new()
    }
}

thread_local! {
    static POOL: &'static ScopePool<Registry> =
        Box::leak(Box::new(ScopePool::new(Arc::default(), Polling::none())));
    static REGISTRY: Mutex<Arc<Registry>> = Mutex::default();
}

fn registry() -> Arc<Registry> {
    REGISTRY.with(|registry| registry.lock().clone())
}

#[derive(Clone, Debug, PartialEq)]
struct Text(String);

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

struct Labels {
    desired: Desired<String, Text>,
    registry: Arc<Registry>,
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
            .call(format!("{api} {}", names.join(" ")))
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

/// The registry makes another one for each call, and shows nobody's mark.
struct Tickets {
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
        self.registry.call(format!("{api} {}", change.key())).await;
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

struct RegistryStages(StageRun<Labels>, StageRun<Tickets>);

impl Stages for RegistryStages {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        vec![&mut self.0, &mut self.1]
    }
}

struct InRegistry;

impl System<Probe> for InRegistry {
    const NAME: &'static str = "registry";
    type Target = Place;
    type Scope = Registry;
    type Stages = RegistryStages;

    fn pool(_: &Systems) -> &ScopePool<Registry> {
        POOL.with(|pool| *pool)
    }

    fn targets(status: &mut ProbeStatus) -> &mut Vec<Place> {
        &mut status.places
    }

    fn target(_: &Probe, (): &(), _: &Installation) -> Option<Place> {
        Some(Place)
    }

    fn credentials(_: &Probe, _: &Place, _: Result<&(), &Error>, _: &Installation) -> Result<()> {
        Ok(())
    }

    fn subscribe(
        _: &Probe,
        _: &StageContext<'_, Probe, Self>,
        _: &Subscriber,
    ) -> Vec<Subscription> {
        Vec::new()
    }

    fn stages(probe: &Probe, context: &StageContext<'_, Probe, Self>) -> RegistryStages {
        let spec = probe.spec.clone();
        let labels = spec
            .labels
            .into_iter()
            .map(|(name, text)| (name, Text(text)));
        let tickets = spec
            .tickets
            .into_iter()
            .map(|name| (name, Text(String::new())));
        RegistryStages(
            StageRun::new(Labels {
                desired: Desired {
                    wanted: labels.collect(),
                    ..Desired::default()
                },
                registry: registry(),
            }),
            StageRun::new(Tickets {
                desired: Desired {
                    wanted: tickets.collect(),
                    ..Desired::default()
                },
                known: context.status.tickets.clone(),
                registry: registry(),
            }),
        )
    }
}

/// A system that takes connections and never answers.
struct Silent;

struct NeverAnswers(Desired<String, Text>, ReadOptions);

impl Stage for NeverAnswers {
    const NAME: &'static str = "answer";
    type Key = String;
    type Value = Text;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        "silent"
    }

    fn desired(&self) -> &Desired<String, Text> {
        &self.0
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        self.1.unless_superseded(pending()).await
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        operation("silent:Answer")
    }

    async fn apply(&self, _: &WritePermit<'_>, _: &ChangeOf<Self>, _: &Ids) -> ResultOf<Self> {
        Ok(None)
    }
}

impl Stages for StageRun<NeverAnswers> {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        vec![self]
    }
}

impl System<Probe> for Silent {
    const NAME: &'static str = "silent";
    type Target = Place;
    type Scope = Registry;
    type Stages = StageRun<NeverAnswers>;

    fn pool(systems: &Systems) -> &ScopePool<Registry> {
        InRegistry::pool(systems)
    }

    fn targets(status: &mut ProbeStatus) -> &mut Vec<Place> {
        &mut status.silent
    }

    fn target(probe: &Probe, (): &(), _: &Installation) -> Option<Place> {
        probe.spec.silent.then_some(Place)
    }

    fn credentials(_: &Probe, _: &Place, _: Result<&(), &Error>, _: &Installation) -> Result<()> {
        Ok(())
    }

    fn subscribe(
        _: &Probe,
        _: &StageContext<'_, Probe, Self>,
        _: &Subscriber,
    ) -> Vec<Subscription> {
        Vec::new()
    }

    fn stages(_: &Probe, context: &StageContext<'_, Probe, Self>) -> Self::Stages {
        StageRun::new(NeverAnswers(Desired::default(), context.options.clone()))
    }
}

struct ProbeVisits {
    registry: SystemVisits<Probe, InRegistry>,
    silent: SystemVisits<Probe, Silent>,
}

impl Status for ProbeStatus {
    fn common(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn places(&self) -> Vec<TargetView> {
        self.places
            .iter()
            .chain(&self.silent)
            .map(Target::view)
            .collect()
    }
}

impl Kind for Probe {
    const KIND: &'static str = "Probe";
    type Status = ProbeStatus;
    type Inputs = ();
    type Visits = ProbeVisits;

    fn status(&self) -> Option<&ProbeStatus> {
        self.status.as_ref()
    }

    fn policies(&self) -> Policies {
        Policies {
            suspend: false,
            drift: DriftPolicy::Repair,
            deletion: DeletionPolicy::Delete,
        }
    }

    async fn dereference(&self, _: &ClusterView<'_>) -> Result<()> {
        Ok(())
    }

    async fn visit(visitor: &Visitor<'_, Self>) -> ProbeVisits {
        let (registry, silent) =
            tokio::join!(visitor.visit::<InRegistry>(), visitor.visit::<Silent>());
        ProbeVisits { registry, silent }
    }

    fn visited(visits: &ProbeVisits) -> Vec<&dyn Visited<Self>> {
        vec![&visits.registry, &visits.silent]
    }

    fn report(&self, _: &Outcome<Self>, _: &mut ProbeStatus, _: Clock) -> StatusUpdate {
        StatusUpdate::default()
    }
}

#[derive(Default)]
struct Open(Mutex<ProbeStatus>);

impl Gate for Open {
    fn enter<'a>(&'a self, _: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn edit<'a>(&'a self, edit: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        edit.apply(&mut *self.0.lock());
        Box::pin(async { Ok(()) })
    }

    fn answered(&self, _: Operation<'_>, _: &[(&Step, Result<(), &Error>)]) {}

    fn refused(&self, _: Operation<'_>, _: &Step) -> Option<Error> {
        None
    }
}

fn probe(silent: bool) -> Probe {
    let labels = [("a", ">c"), ("b", "1"), ("c", "1"), ("d", "1")];
    let labels = labels.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let spec = ProbeSpec {
        labels: labels.into(),
        tickets: ["t".to_owned()].into(),
        silent,
    };
    Probe::new("p", spec)
}

/// Runs until it ends by itself or is superseded after a while; what was called, and when, and how it ended.
async fn run(
    probe: &Probe,
    gate: &Open,
    after: Duration,
) -> (Vec<(Duration, String)>, bool, Duration) {
    let began = Instant::now();
    let store = Registry {
        began: Some(began),
        ..Registry::default()
    };
    REGISTRY.with(|registry| *registry.lock() = Arc::new(store));
    let world = World::new();
    let context = world.context();
    let options = ReadOptions {
        uid: "u".into(),
        priority: Priority::Edit,
        consistency: Consistency::Known,
        since: began,
        superseded: CancellationToken::new(),
    };
    let superseded = options.superseded.clone();
    let cluster = ClusterView::new(&context.client, &context.installation, Purpose::Act);
    let run = RunContext {
        systems: &context.systems,
        cluster: &cluster,
        gate: Some(gate),
        options,
        held_back: BTreeMap::new(),
    };
    let status = gate.0.lock().clone();
    let run = kinds::run(probe, &status, run);
    let edit = async {
        sleep(after).await;
        superseded.cancel();
        pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = run => outcome,
        () = edit => unreachable!("the edit waits for ever"),
    };
    let calls = registry().calls.lock().clone();
    (calls, outcome.is_superseded(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_system_that_never_answers_delays_neither_another_nor_a_newer_edit() {
    let minute = Duration::from_secs(60);
    let (alone, superseded, _) = run(&probe(false), &Open::default(), minute).await;
    assert!(!superseded);
    let (beside, superseded, took) = run(&probe(true), &Open::default(), minute).await;
    assert_eq!(alone, beside);
    assert_eq!(
        (superseded, took),
        (true, minute),
        "the newer edit need not wait"
    );
}

/// Two at a time, what is needed first; and what makes two is made once, whatever is forgotten.
#[tokio::test(start_paused = true)]
async fn a_stage_says_what_goes_together_and_what_goes_first() {
    let gate = Open::default();
    let (calls, ..) = run(&probe(false), &gate, Duration::MAX / 4).await;
    let calls: Vec<_> = calls.iter().map(|(_, call)| call.as_str()).collect();
    assert_eq!(
        calls,
        [
            "registry:PutLabels b c",
            "registry:PutLabels d",
            "registry:PutLabels a",
            "registry:CreateTicket t"
        ]
    );
    assert_eq!(gate.0.lock().tickets, [("t".to_owned(), Some(0))].into());
    assert_eq!(gate.0.lock().places.len(), 1);
}
