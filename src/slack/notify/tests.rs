use super::*;
use futures::{FutureExt, future::pending};
use proptest::prelude::*;
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{runtime::Builder, time::advance};

const ALL: [Phase; 3] = [Phase::Started, Phase::Completed, Phase::Failed];
const CHANNEL: &str = "runs";

fn run(phase: Phase, progress: &str, details: &[&str]) -> Run {
    Run {
        id: "rebuild-1".into(),
        title: "Rebuild of idx".into(),
        object: "IndexMaintenancePolicy vsu/knowledge-base".into(),
        phase,
        progress: progress.into(),
        facts: Vec::new(),
        details: details.iter().map(|detail| (*detail).into()).collect(),
    }
}

/// What one call meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Fine,
    /// The process dies before anything comes of it.
    DiesBefore,
    /// It is done, and the process dies.
    DiesAfter,
    /// It is done, and nobody hears.
    CutAfter,
    /// Nobody hears, and it was not done.
    CutBefore,
    Throttled,
    /// It never got there.
    Undone,
    Rejected,
    Denied,
}

#[derive(Debug)]
struct Message {
    channel: String,
    ts: String,
    thread_ts: Option<String>,
    /// As it was posted, and as it is.
    texts: Vec<String>,
}

/// Slack, the status and the gate, in memory: it outlives the process.
#[derive(Default)]
struct Place {
    messages: Vec<Message>,
    /// As it is in status.
    saved: BTreeMap<(String, String), Json>,
    calls: usize,
    /// What the calls meet, one after the other, then nothing.
    moods: VecDeque<Mood>,
    /// What was called, with the API or the posting.
    record: Vec<String>,
    /// Whether what is saved is gone the next moment.
    forgets: bool,
    /// What an edit is refused with.
    refuses: Option<&'static str>,
    /// Of which parts nobody can know whether they were posted.
    doubts: Vec<String>,
}

/// The one way into [`Place`]; as a webhook it knows no channel.
#[derive(Clone, Default)]
struct Memory {
    place: Arc<Mutex<Place>>,
    channel_id: Option<&'static str>,
    secret: Option<Secret>,
}

impl Memory {
    fn bot() -> Self {
        Self {
            channel_id: Some("C1"),
            ..Self::default()
        }
    }

    fn webhook() -> Self {
        Self {
            secret: Some(Secret::new("canary-url".into())),
            ..Self::default()
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap()
    }

    fn meets(&self, moods: impl IntoIterator<Item = Mood>) {
        self.place().moods = moods.into_iter().collect();
    }

    fn notifier(&self) -> Notifier {
        Notifier::new(CHANNEL, ALL, [])
    }

    fn record(&self) -> Vec<String> {
        std::mem::take(&mut self.place().record)
    }

    /// Lets one call happen, as the mood is; `unheard` is what it fails with.
    async fn call<T>(
        &self,
        what: String,
        posts: Option<&str>,
        effect: impl FnOnce(&mut Place) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let refusal = |class, message: &str| {
            Err(Refusal {
                code: String::new(),
                error: Error::new(class, message),
            })
        };
        let (mood, outcome) = {
            let mut place = self.place();
            place.calls += 1;
            let mood = place.moods.pop_front().unwrap_or(Mood::Fine);
            place.record.push(what);
            let done = matches!(mood, Mood::Fine | Mood::DiesAfter | Mood::CutAfter);
            let given_up = mood == Mood::Rejected && posts == Some("detail");
            let unsure = matches!(mood, Mood::CutBefore | Mood::CutAfter) || given_up;
            place
                .doubts
                .extend(posts.filter(|_| unsure).map(str::to_owned));
            (mood, done.then(|| effect(&mut place)))
        };
        match (mood, outcome) {
            (Mood::Fine, Some(outcome)) => outcome,
            (Mood::DiesBefore | Mood::DiesAfter, _) => pending().await,
            (Mood::Throttled, _) => {
                let throttled = Error::new(Class::Throttled, "throttled");
                Err(Refusal {
                    code: "ratelimited".into(),
                    error: throttled.after(Duration::from_secs(30)),
                })
            }
            (Mood::Undone, _) => refusal(Class::Failing, "refuses connections"),
            (Mood::Rejected, _) => refusal(Class::Rejected, "not_in_channel"),
            (Mood::Denied, _) => refusal(Class::Denied, "token_revoked"),
            _ => refusal(Class::Cut, "no answer"),
        }
    }
}

impl Way for Memory {
    fn channel(&self) -> Option<&str> {
        self.channel_id
    }

    fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    fn operation<'a>(&'a self, edits: bool, channel: &'a str) -> Operation<'a> {
        Operation {
            scope: "slack",
            account: "key",
            region: channel,
            identity: "a test",
            api: if edits { api::UPDATE } else { api::POST },
        }
    }

    async fn post(&self, channel: &str, post: &Post) -> Result<Option<Posted>, Refusal> {
        let posts = match &post.thread_ts {
            Some(_) => "detail",
            None if post.text.contains("Failed") || post.text.contains("Completed") => "end",
            None => "start",
        };
        let effect = |place: &mut Place| {
            let ts = format!("{}.000100", place.calls);
            place.messages.push(Message {
                channel: channel.into(),
                ts: ts.clone(),
                thread_ts: post.thread_ts.clone(),
                texts: vec![post.text.clone()],
            });
            let channel = self.channel_id.map(str::to_owned);
            Ok(channel.map(|channel| Posted { channel, ts }))
        };
        self.call(format!("post {posts}"), Some(posts), effect)
            .await
    }

    async fn edit(&self, channel: &str, ts: &str, post: &Post) -> Result<(), Refusal> {
        let effect = |place: &mut Place| {
            if let Some(code) = place.refuses {
                return Err(Refusal {
                    code: code.into(),
                    error: Error::new(Class::Rejected, code),
                });
            }
            let mut messages = place.messages.iter_mut();
            let message = messages.find(|message| message.ts == ts && message.channel == channel);
            let message = message.expect("only what is there is edited");
            message.texts.push(post.text.clone());
            Ok(())
        };
        self.call("edit".into(), None, effect).await
    }
}

impl Ledger for Memory {
    fn known(&self, run: &str, channel: &str) -> Option<Posting> {
        let key = (run.to_owned(), channel.to_owned());
        let place = self.place();
        let saved = place.saved.get(&key)?;
        Some(serde_json::from_value(saved.clone()).unwrap())
    }

    fn save<'a>(&'a mut self, posting: &'a Posting) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let saved = serde_json::to_value(posting).unwrap();
            let effect = |place: &mut Place| {
                let key = (posting.run().to_owned(), posting.channel().to_owned());
                if !place.forgets {
                    drop(place.saved.insert(key, saved));
                }
                Ok(())
            };
            self.call("save".into(), None, effect)
                .await
                .map_err(|refusal| refusal.error)
        })
    }
}

impl Gate for Memory {
    fn enter<'a>(
        &'a self,
        operation: Operation<'a>,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Result<()>> {
        assert_eq!(steps.len(), 1);
        let Operation { api, region, .. } = operation;
        assert_eq!(region, self.channel_id.unwrap_or_default());
        Box::pin(async move {
            let entered = self.call(format!("enter {api}"), None, |_| Ok(())).await;
            entered.map_err(|refusal| refusal.error)
        })
    }

    fn intend<'a>(&'a self, _: &'a Step) -> BoxFuture<'a, Result<()>> {
        unreachable!("the ledger does that")
    }

    fn record<'a>(&'a self, _: &'a Step, _: &'a str) -> BoxFuture<'a, ()> {
        unreachable!("the ledger does that")
    }

    fn leave(&self, operation: Operation<'_>, step: &Step, outcome: &Result<Applied>) {
        let outcome = outcome
            .as_ref()
            .map_or_else(|error| error.class.label(), |_| "ok");
        let line = format!("leave {} {}: {outcome}", operation.api, step.key);
        self.place().record.push(line);
    }

    fn refused(&self, _: &str, _: &Step) -> Option<Error> {
        None
    }
}

/// It is the ledger that keeps a message from being there twice.
#[tokio::test(start_paused = true)]
async fn without_a_ledger_it_would_be_told_twice() {
    for forgets in [false, true] {
        let memory = Memory::bot();
        memory.place().forgets = forgets;
        memory.meets([Mood::Fine, Mood::Fine, Mood::DiesAfter]);
        let started = run(Phase::Started, "", &[]);
        assert_eq!(tell(&memory, &mut memory.notifier(), &started).await, None);
        let told = tell(&memory, &mut memory.notifier(), &started).await;
        assert_eq!(told, Some(Ok(Told::All)));
        assert_eq!(seen(&memory).len(), if forgets { 2 } else { 1 });
    }
}

/// What people see: of each message what it says now, answers indented.
fn seen(memory: &Memory) -> Vec<String> {
    let place = memory.place();
    let said = place.messages.iter().map(|message| {
        let indent = if message.thread_ts.is_some() {
            "  "
        } else {
            ""
        };
        format!("{indent}{}", message.texts.last().unwrap())
    });
    said.collect()
}

/// One telling by a process, which may die in it: `None`.
async fn tell(memory: &Memory, notifier: &mut Notifier, run: &Run) -> Option<Result<Told>> {
    let (mut ledger, gate) = (memory.clone(), memory.clone());
    notifier
        .tell_by(memory, run, &mut ledger, &gate)
        .now_or_never()
}

/// A whole life, told again after every death and every error, time passing in between.
async fn live(memory: &Memory) {
    let mut notifier = memory.notifier();
    let life = [
        run(Phase::Started, "", &[]),
        run(Phase::Started, "1 of 2", &["a"]),
        run(Phase::Started, "2 of 2", &["a"]),
        run(Phase::Failed, "after 3 min", &["a", "b"]),
    ];
    for now in life {
        for tries in 0.. {
            assert!(
                tries < 100,
                "it does not come to an end: {:?}",
                memory.record()
            );
            advance(EDIT_EVERY).await;
            match tell(memory, &mut notifier, &now).await {
                Some(Ok(told)) => {
                    assert_eq!(told, Told::All);
                    break;
                }
                Some(Err(error)) => advance(error.wait.unwrap_or_default()).await,
                None => {
                    bury(memory);
                    notifier = memory.notifier();
                }
            }
        }
    }
    let mut later = memory.notifier();
    let calls = memory.place().calls;
    let last = run(Phase::Failed, "after 3 min", &["a", "b"]);
    assert_eq!(tell(memory, &mut later, &last).await, Some(Ok(Told::All)));
    assert_eq!(memory.place().calls, calls, "what is told is told");
}

/// A process has died. What it leaves in the ledger is all that is known.
fn bury(memory: &Memory) {
    let place = &mut *memory.place();
    let answers = place
        .messages
        .iter()
        .filter(|message| message.thread_ts.is_some());
    let answers = answers.count() as u64;
    for posting in place.saved.values() {
        let in_doubt = |part: &str| posting[part] == "Intended";
        let doubts = [
            ("start", in_doubt("started")),
            ("end", in_doubt("ended")),
            (
                "detail",
                posting["details"].as_u64().unwrap_or_default() > answers,
            ),
        ];
        let doubts = doubts.into_iter().filter(|(_, doubt)| *doubt);
        place.doubts.extend(doubts.map(|(part, _)| part.to_owned()));
    }
}

/// That nothing is there twice, and nothing is missing but what is in doubt.
fn check(memory: &Memory) {
    let place = memory.place();
    let story = format!(
        "{:#?}\n{:#?}\n{:?}",
        place.record, place.messages, place.doubts
    );
    let doubtful = |part: &str| place.doubts.iter().any(|doubt| doubt == part);
    let top: Vec<_> = place
        .messages
        .iter()
        .filter(|message| message.thread_ts.is_none())
        .collect();
    let first = |message: &&&Message, says: &str| message.texts[0].contains(says);
    let ends = |message: &&&Message| first(message, "Failed");
    let starts = top.len() - top.iter().filter(ends).count();
    assert!(starts <= 1, "{story}");
    assert!(top.iter().filter(ends).count() <= 1, "{story}");
    let over = top
        .iter()
        .filter(|message| message.texts.last().unwrap().contains("Failed"));
    let over = over.count();
    assert!(over == 1 || over == 0 && doubtful("end"), "{story}");
    assert!(starts + over >= 1 || doubtful("start"), "{story}");
    if memory.channel_id.is_none() {
        assert_eq!(place.messages.len(), top.len(), "{story}");
        assert!(starts == 1 || doubtful("start"), "{story}");
        return;
    }
    assert_eq!(
        top.len(),
        if doubtful("start") { starts + over } else { 1 },
        "{story}"
    );
    for detail in ["a", "b"] {
        let answers = place
            .messages
            .iter()
            .filter(|message| message.texts[0] == detail);
        let answers: Vec<_> = answers.collect();
        assert!(answers.len() <= 1, "{story}");
        let missing = doubtful("detail") || doubtful("end");
        assert!(answers.len() == 1 || missing, "{story}");
        for answer in answers {
            let thread = top
                .iter()
                .find(|message| Some(&message.ts) == answer.thread_ts.as_ref());
            let thread = thread.expect("it answers the run's message");
            assert_eq!(
                thread.texts.last().unwrap().contains("Failed"),
                over == 1,
                "{story}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_message_is_edited_and_answered() {
    let memory = Memory::bot();
    live(&memory).await;
    check(&memory);
    assert_eq!(
        seen(&memory),
        ["❌ Failed · Rebuild of idx: after 3 min", "  a", "  b"]
    );
    let record = memory.record();
    let beginning = [
        "save",
        "enter slack:chat.postMessage",
        "post start",
        "leave slack:chat.postMessage start of rebuild-1 in runs: ok",
        "save",
        "enter slack:chat.update",
        "edit",
        "leave slack:chat.update message of rebuild-1 in runs: ok",
    ];
    assert_eq!(record[..beginning.len()], beginning);
    let count = |what: &str| record.iter().filter(|line| *line == what).count();
    assert_eq!(
        (count("post start"), count("post end"), count("post detail")),
        (1, 0, 2)
    );
    assert_eq!(count("edit"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_hears_of_the_start_and_of_the_end_with_its_reason() {
    let memory = Memory::webhook();
    live(&memory).await;
    check(&memory);
    assert_eq!(
        seen(&memory),
        [
            "▶️ Started · Rebuild of idx",
            "❌ Failed · Rebuild of idx: after 3 min"
        ]
    );
    assert!(
        !memory
            .record()
            .iter()
            .any(|line| line == "edit" || line.ends_with("detail"))
    );
    let run = run(Phase::Failed, "", &["a", "canary-url does not answer"]);
    let redact = Redact::new(memory.secret());
    let says = message::message_without_thread(&run, &redact);
    let says = says.blocks.unwrap().to_string();
    assert!(
        says.contains("… does not answer") && !says.contains("canary"),
        "{says}"
    );
}

/// Every call is the last one of a process, before it is done and after, and so is every later one of its successor.
#[tokio::test(start_paused = true)]
async fn a_process_may_die_at_any_call() {
    for (way, name) in [
        (Memory::bot as fn() -> Memory, "bot"),
        (Memory::webhook, "webhook"),
    ] {
        let whole = way();
        live(&whole).await;
        let calls = whole.place().calls;
        let mut lost = 0;
        let deaths = [Mood::DiesBefore, Mood::DiesAfter];
        for first in 0..calls {
            for second in 0..calls + 10 {
                for (one, two) in deaths.iter().flat_map(|one| deaths.map(|two| (*one, two))) {
                    let memory = way();
                    let fine = |count| std::iter::repeat_n(Mood::Fine, count);
                    memory.meets(fine(first).chain([one]).chain(fine(second)).chain([two]));
                    live(&memory).await;
                    check(&memory);
                    lost += usize::from(!memory.place().doubts.is_empty());
                }
            }
        }
        assert!(lost > 0 && calls > 5, "{name}: {calls} calls");
    }
}

fn moods() -> impl Strategy<Value = Vec<Mood>> {
    let mood = prop_oneof![
        4 => Just(Mood::Fine),
        1 => Just(Mood::DiesBefore),
        1 => Just(Mood::DiesAfter),
        1 => Just(Mood::CutBefore),
        1 => Just(Mood::CutAfter),
        1 => Just(Mood::Throttled),
        1 => Just(Mood::Undone),
        1 => Just(Mood::Rejected),
        1 => Just(Mood::Denied),
    ];
    proptest::collection::vec(mood, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever Slack, the status and the gate do, and whenever the process dies.
    #[test]
    fn nothing_is_told_twice_and_nothing_lost_but_what_is_in_doubt(moods in moods(), bot in any::<bool>()) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let memory = if bot { Memory::bot() } else { Memory::webhook() };
            memory.meets(moods);
            live(&memory).await;
            check(&memory);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_certainly_refused_is_not_lost() {
    for mood in [Mood::Throttled, Mood::Undone, Mood::Rejected, Mood::Denied] {
        // At the gate, and at Slack.
        for at in [1, 2] {
            let memory = Memory::bot();
            memory.meets(std::iter::repeat_n(Mood::Fine, at).chain([mood]));
            let mut notifier = memory.notifier();
            let started = run(Phase::Started, "", &[]);
            let error = tell(&memory, &mut notifier, &started)
                .await
                .unwrap()
                .unwrap_err();
            assert_eq!(seen(&memory), Vec::<String>::new());
            assert!(!format!("{:?}", memory.place().saved).contains("Intended"));
            if let Some(wait) = error.wait {
                let calls = memory.place().calls;
                advance(wait / 3).await;
                let again = tell(&memory, &mut notifier, &started)
                    .await
                    .unwrap()
                    .unwrap_err();
                assert_eq!(
                    (again.class, again.wait),
                    (error.class, Some(wait - wait / 3))
                );
                assert_eq!(memory.place().calls, calls, "Slack wants to be left alone");
                advance(wait - wait / 3).await;
            }
            let told = tell(&memory, &mut notifier, &started).await;
            assert_eq!(told, Some(Ok(Told::All)));
            assert_eq!(seen(&memory), ["▶️ Started · Rebuild of idx"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_in_doubt_is_not_posted_again_and_its_end_is_posted_once() {
    for (mood, there) in [(Mood::CutAfter, true), (Mood::CutBefore, false)] {
        let memory = Memory::bot();
        memory.meets([Mood::Fine, Mood::Fine, mood]);
        let mut notifier = memory.notifier();
        let started = run(Phase::Started, "", &[]);
        let error = tell(&memory, &mut notifier, &started)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.class, Class::Cut);
        assert!(error.message.contains("not posted again"), "{error}");
        let left = seen(&memory);
        assert_eq!(left.len(), usize::from(there));
        let calls = memory.place().calls;
        for progress in ["", "1 of 2", "2 of 2"] {
            let running = run(Phase::Started, progress, &["a"]);
            assert_eq!(
                tell(&memory, &mut notifier, &running).await,
                Some(Ok(Told::All))
            );
        }
        assert_eq!(memory.place().calls, calls);
        assert_eq!(seen(&memory), left);
        let over = run(Phase::Completed, "", &["a"]);
        for _ in 0..2 {
            assert_eq!(
                tell(&memory, &mut notifier, &over).await,
                Some(Ok(Told::All))
            );
            let end = ["✅ Completed · Rebuild of idx", "  a"].map(str::to_owned);
            assert_eq!(seen(&memory), [left.clone(), end.into()].concat());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_gone_is_not_edited_and_the_end_is_told_anew() {
    for (code, gone) in [
        ("message_not_found", true),
        ("cant_update_message", true),
        ("edit_window_closed", true),
        ("is_inactive", false),
        ("channel_not_found", false),
    ] {
        let memory = Memory::bot();
        let mut notifier = memory.notifier();
        let started = run(Phase::Started, "", &[]);
        assert_eq!(
            tell(&memory, &mut notifier, &started).await,
            Some(Ok(Told::All))
        );
        memory.place().refuses = Some(code);
        advance(EDIT_EVERY).await;
        let running = run(Phase::Started, "1 of 2", &["a"]);
        let told = tell(&memory, &mut notifier, &running).await.unwrap();
        if !gone {
            assert_eq!(told.unwrap_err().class, Class::Rejected, "{code}");
            memory.place().refuses = None;
        } else {
            assert_eq!(told, Ok(Told::All), "{code}");
        }
        let over = run(Phase::Completed, "", &["a"]);
        assert_eq!(
            tell(&memory, &mut notifier, &over).await,
            Some(Ok(Told::All))
        );
        let (start, end) = (
            "▶️ Started · Rebuild of idx",
            "✅ Completed · Rebuild of idx",
        );
        let expected = if gone {
            vec![start, end, "  a"]
        } else {
            vec![end, "  a"]
        };
        assert_eq!(seen(&memory), expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_stays_where_it_began_unless_that_is_no_more() {
    for (there, expected) in [
        (true, vec!["✅ Completed · Rebuild of idx"]),
        (
            false,
            vec![
                "▶️ Started · Rebuild of idx",
                "✅ Completed · Rebuild of idx",
            ],
        ),
    ] {
        let memory = Memory::bot();
        let mut notifier = memory.notifier();
        let started = run(Phase::Started, "", &[]);
        assert_eq!(
            tell(&memory, &mut notifier, &started).await,
            Some(Ok(Told::All))
        );
        let moved = Memory {
            channel_id: Some("C2"),
            ..memory.clone()
        };
        moved.place().refuses = Some("channel_not_found").filter(|_| !there);
        let mut book = moved.clone();
        let over = run(Phase::Completed, "", &[]);
        let told = notifier
            .tell_by(&moved, &over, &mut book, &Everything)
            .await;
        assert_eq!(told, Ok(Told::All));
        assert_eq!(seen(&memory), expected);
        let channels: Vec<_> = memory
            .place()
            .messages
            .iter()
            .map(|message| message.channel.clone())
            .collect();
        assert_eq!(channels, ["C1", "C2"][..expected.len()]);
    }
}

/// A gate that is open.
struct Everything;

impl Gate for Everything {
    fn enter<'a>(&'a self, _: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn intend<'a>(&'a self, _: &'a Step) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn record<'a>(&'a self, _: &'a Step, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn leave(&self, _: Operation<'_>, _: &Step, _: &Result<Applied>) {}

    fn refused(&self, _: &str, step: &Step) -> Option<Error> {
        let refused = step.key.contains("refused");
        refused.then(|| Error::new(Class::Denied, "refused lately"))
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_lately_is_not_asked_again() {
    let memory = Memory::bot();
    let mut book = memory.clone();
    let refused = Run {
        id: "refused".into(),
        ..run(Phase::Started, "", &[])
    };
    let told = memory
        .notifier()
        .tell_by(&memory, &refused, &mut book, &Everything)
        .await;
    assert_eq!(told.unwrap_err().class, Class::Denied);
    let place = memory.place();
    assert_eq!((place.calls, place.saved.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_now_and_then_and_the_end_at_once() {
    let memory = Memory::bot();
    let mut notifier = memory.notifier();
    let mut edits = Vec::new();
    let began = Instant::now();
    for second in 0..35 {
        let now = run(Phase::Started, &format!("{second}"), &[]);
        let told = tell(&memory, &mut notifier, &now).await.unwrap().unwrap();
        let since = second % 10;
        let wait = EDIT_EVERY - Duration::from_secs(since);
        assert_eq!(
            told,
            if since == 0 {
                Told::All
            } else {
                Told::Later(wait)
            },
            "{second}"
        );
        edits.extend(
            memory
                .record()
                .into_iter()
                .filter(|line| line == "edit")
                .map(|_| second),
        );
        // The same again is nothing new.
        assert_eq!(
            tell(&memory, &mut notifier, &now).await.unwrap().unwrap(),
            told
        );
        assert_eq!(memory.record(), Vec::<String>::new());
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(edits, [10, 20, 30]);
    assert_eq!(began.elapsed(), Duration::from_secs(35));
    let over = run(Phase::Completed, "35", &[]);
    assert_eq!(
        tell(&memory, &mut notifier, &over).await,
        Some(Ok(Told::All))
    );
    assert_eq!(seen(&memory), ["✅ Completed · Rebuild of idx: 35"]);
}

/// As [`Notifier::follow`], by what is in memory.
async fn follow(memory: &Memory, runs: &mut watch::Receiver<Run>) -> Result<()> {
    let (mut ledger, gate) = (memory.clone(), memory.clone());
    memory
        .notifier()
        .follow_by(memory, runs, &mut ledger, &gate)
        .await
}

#[tokio::test(start_paused = true)]
async fn what_is_said_last_goes_out() {
    // Said within a second, and nothing more while the run goes on.
    let memory = Memory::bot();
    let (says, mut runs) = watch::channel(run(Phase::Started, "", &[]));
    let following = follow(&memory, &mut runs);
    let talking = async {
        for done in 1..=9 {
            sleep(Duration::from_millis(100)).await;
            says.send(run(Phase::Started, &format!("{done} of 10"), &[]))
                .unwrap();
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(seen(&memory), ["🔄 Running · Rebuild of idx: 9 of 10"]);
        says.send(run(Phase::Completed, "", &[])).unwrap();
    };
    let (followed, ()) = futures::join!(following, talking);
    assert_eq!(followed, Ok(()));
    assert_eq!(seen(&memory), ["✅ Completed · Rebuild of idx"]);
    let edits = memory
        .record()
        .into_iter()
        .filter(|line| line == "edit")
        .count();
    assert_eq!(edits, 2);
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_the_run_or_with_who_tells_of_it() {
    // Nobody is left to say more, and the last word has not gone out yet.
    let memory = Memory::bot();
    let (says, mut runs) = watch::channel(run(Phase::Started, "", &[]));
    let (followed, ()) = futures::join!(follow(&memory, &mut runs), async {
        sleep(Duration::from_secs(1)).await;
        says.send(run(Phase::Started, "1 of 2", &[])).unwrap();
        sleep(Duration::from_secs(1)).await;
        drop(says);
    });
    assert_eq!(followed, Ok(()));
    assert_eq!(seen(&memory), ["🔄 Running · Rebuild of idx: 1 of 2"]);
    // What passes is waited for, as long as Slack says.
    let memory = Memory::bot();
    memory.meets([
        Mood::Fine,
        Mood::Fine,
        Mood::Throttled,
        Mood::Undone,
        Mood::Fine,
        Mood::Undone,
    ]);
    let (_says, mut runs) = watch::channel(run(Phase::Completed, "", &[]));
    let began = Instant::now();
    assert_eq!(follow(&memory, &mut runs).await, Ok(()));
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!(seen(&memory), ["✅ Completed · Rebuild of idx"]);
    // What does not is told.
    let memory = Memory::bot();
    memory.meets([Mood::Fine, Mood::Fine, Mood::Denied]);
    let error = follow(&memory, &mut runs).await.unwrap_err();
    assert_eq!(error.class, Class::Denied);
}

#[test]
fn what_is_to_be_done_next() {
    use Delivery::{Intended, Posted};
    let posting = |started, ended, there: bool, details| Posting {
        started,
        ended,
        channel_id: there.then(|| "C1".into()),
        ts: there.then(|| "1.1".into()),
        details,
        ..Posting::new("rebuild-1", CHANNEL)
    };
    let post = |part| Some(Deed::Post(part));
    let (start, end, first) = (post(Part::Start), post(Part::End), post(Part::Detail(0)));
    let quiet: &[Phase] = &[Phase::Failed];
    let (new, there) = (
        posting(None, None, false, 0),
        posting(Some(Posted), None, true, 0),
    );
    let lost = posting(Some(Intended), None, false, 0);
    let (going, over, failed) = (Phase::Started, Phase::Completed, Phase::Failed);
    for (case, posting, phase, on, edits, stale, expected) in [
        ("a start", &new, going, &ALL[..], true, true, start),
        (
            "a start by webhook",
            &new,
            going,
            &ALL[..],
            false,
            true,
            Some(Deed::Post(Part::Start)),
        ),
        ("not wanted", &new, going, quiet, true, true, None),
        ("an end alone", &new, over, &ALL[..], true, true, end),
        ("an end not wanted", &new, over, quiet, true, true, None),
        (
            "a failure wanted",
            &new,
            failed,
            quiet,
            true,
            true,
            Some(Deed::Post(Part::End)),
        ),
        (
            "progress",
            &there,
            going,
            &ALL[..],
            true,
            true,
            Some(Deed::Edit),
        ),
        ("nothing new", &there, going, &ALL[..], true, false, first),
        (
            "the end",
            &there,
            over,
            &ALL[..],
            true,
            false,
            Some(Deed::Edit),
        ),
        (
            "the end is told whatever is wanted",
            &there,
            over,
            &[Phase::Started],
            true,
            true,
            Some(Deed::Edit),
        ),
        (
            "the bot is gone",
            &there,
            going,
            &ALL[..],
            false,
            true,
            None,
        ),
        (
            "the bot is gone at the end",
            &there,
            over,
            &ALL[..],
            false,
            true,
            Some(Deed::Post(Part::End)),
        ),
        ("in doubt", &lost, going, &ALL[..], true, true, None),
        (
            "over after a doubt",
            &lost,
            over,
            &ALL[..],
            true,
            true,
            Some(Deed::Post(Part::End)),
        ),
        (
            "an end in doubt",
            &posting(None, Some(Intended), false, 0),
            over,
            &ALL[..],
            true,
            true,
            None,
        ),
        (
            "an end told",
            &posting(Some(Posted), Some(Posted), true, 1),
            over,
            &ALL[..],
            true,
            true,
            Some(Deed::Post(Part::Detail(1))),
        ),
        (
            "all told",
            &posting(Some(Posted), Some(Posted), true, 2),
            over,
            &ALL[..],
            true,
            true,
            None,
        ),
        (
            "over is over",
            &posting(Some(Posted), Some(Posted), true, 0),
            going,
            &ALL[..],
            true,
            true,
            None,
        ),
    ] {
        let on = on.iter().copied().collect();
        let run = run(phase, "", &["a", "b"]);
        assert_eq!(next(posting, &run, &on, edits, stale), expected, "{case}");
    }
    let details = vec!["x"; MOST_DETAILS + 5];
    let run = run(Phase::Completed, "", &details);
    let on = ALL.into();
    for (told, more) in [(MOST_DETAILS - 1, true), (MOST_DETAILS, false)] {
        let posting = posting(Some(Posted), Some(Posted), true, told as i32);
        assert_eq!(next(&posting, &run, &on, true, true).is_some(), more);
    }
}

#[test]
fn a_posting_is_small_and_comes_back() {
    let new = Posting::new("rebuild-1", CHANNEL);
    let posted = Posted {
        channel: "C1".into(),
        ts: "1.1".into(),
    };
    let started = new.intended(Part::Start).posted(Part::Start, Some(posted));
    let told = started.intended(Part::Detail(0)).edited_to_the_end();
    for (posting, text) in [
        (new.clone(), json!({"run": "rebuild-1", "channel": "runs"})),
        (
            new.intended(Part::Start),
            json!({"run": "rebuild-1", "channel": "runs", "started": "Intended"}),
        ),
        (
            told,
            json!({"run": "rebuild-1", "channel": "runs", "channelId": "C1", "ts": "1.1", "started": "Posted", "ended": "Posted", "details": 1}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&posting).unwrap(), text);
        assert_eq!(serde_json::from_value::<Posting>(text).unwrap(), posting);
    }
}

#[tokio::test]
async fn where_nothing_is_named_nothing_happens() {
    let memory = Memory::bot();
    let mut book = memory.clone();
    let started = run(Phase::Started, "", &[]);
    let told = memory
        .notifier()
        .tell(&Door::nowhere(), &started, &mut book, &memory)
        .await;
    assert_eq!(told, Ok(Told::All));
    let place = memory.place();
    assert!(place.record.is_empty() && place.saved.is_empty());
}

#[test]
fn which_way_leads_into_a_channel() {
    let hook = json!({"name": "hook", "key": "k"});
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "R", "message": format!("{type_} says"),
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let channel = |spec: &Json, id: Option<&str>, conditions: &[Json], deleting: bool| {
        let mut metadata = json!({"name": "runs", "namespace": "ns"});
        if deleting {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        let channel: SlackChannel = serde_json::from_value(json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "SlackChannel", "metadata": metadata,
            "spec": spec, "status": {"channelId": id, "conditions": conditions}
        }))
        .unwrap();
        channel
    };
    let both = json!({"channel": "a", "webhookSecretRef": hook});
    let (bot_only, hook_only) = (json!({"channel": "a"}), json!({"webhookSecretRef": hook}));
    let ready = [
        condition("ChannelReady", "True"),
        condition("WebhookReady", "True"),
    ];
    let unknown = [
        condition("ChannelReady", "Unknown"),
        condition("WebhookReady", "Unknown"),
    ];
    let no_bot = [
        condition("ChannelReady", "False"),
        condition("WebhookReady", "True"),
    ];
    let neither = [
        condition("ChannelReady", "False"),
        condition("WebhookReady", "False"),
    ];
    let failed = [condition("Ready", "False")];
    for (spec, id, conditions, bot, webhook, wanting) in [
        (
            &both,
            Some("C1"),
            &ready[..],
            true,
            true,
            "nothing is known",
        ),
        (&both, Some("C1"), &unknown, true, true, "nothing is known"),
        (&both, None, &ready, false, true, "nothing is known"),
        (&both, Some("C1"), &no_bot, false, true, "ChannelReady says"),
        (
            &both,
            Some("C1"),
            &neither,
            false,
            false,
            "ChannelReady says",
        ),
        (&both, Some("C1"), &[], false, false, "nothing is known"),
        (
            &bot_only,
            Some("C1"),
            &ready,
            true,
            false,
            "nothing is known",
        ),
        (&bot_only, None, &failed, false, false, "Ready says"),
        (
            &hook_only,
            Some("C1"),
            &ready,
            false,
            true,
            "nothing is known",
        ),
    ] {
        let channel = channel(spec, id, conditions, false);
        let ways = ways(Some(&channel), "runs", "ns").unwrap();
        let found = (ways.bot, ways.webhook.is_some());
        assert_eq!(
            found,
            (bot.then_some(("a", "C1")), webhook),
            "{spec} {conditions:?}"
        );
        assert!(ways.wanting.starts_with(wanting), "{}", ways.wanting);
    }
    let going = channel(&both, Some("C1"), &ready, true);
    for (channel, says) in [(None, "does not exist"), (Some(&going), "is being deleted")] {
        let error = ways(channel, "runs", "ns").unwrap_err();
        assert_eq!(error.class, Class::Waiting(On::Channel));
        assert!(
            error.message.contains("SlackChannel ns/runs") && error.message.contains(says),
            "{error}"
        );
    }
}
