//! Whole lives of runs: whatever happens, nothing is there twice, and nothing is missing but what is in doubt.

use super::*;
use proptest::prelude::*;
use tokio::{runtime::Builder, time::advance};

const FAILED: &str = "❌ Failed · Rebuild of idx: after 3 min";

/// A whole life, told again after every death and every error, time passing in between.
async fn live(memory: &Memory) {
    let mut notifier = memory.notifier();
    let life = [
        started(),
        run(Phase::Started, "1 of 2", &["a"]),
        run(Phase::Started, "2 of 2", &["a"]),
        run(Phase::Failed, "after 3 min", &["a", "b"]),
    ];
    for now in life {
        for tries in 0.. {
            assert!(tries < 100, "it does not end: {:?}", memory.log());
            advance(EDIT_EVERY).await;
            match tell(memory, &mut notifier, &now).await {
                Some(Ok(wait)) => {
                    assert_eq!(wait, None);
                    break;
                }
                Some(Err(error)) => advance(error.wait.unwrap_or_default()).await,
                None => {
                    let posting = memory.world().posting.take();
                    memory.world().doubts.extend(posting.map(str::to_owned));
                    notifier = memory.notifier();
                }
            }
        }
    }
    let mut later = memory.notifier();
    let calls = memory.world().calls;
    let last = run(Phase::Failed, "after 3 min", &["a", "b"]);
    tell_all(memory, &mut later, &last).await;
    assert_eq!(memory.world().calls, calls, "what is told is told");
}

/// That nothing is there twice, and nothing is missing but what is in doubt.
fn check(memory: &Memory) {
    let world = memory.world();
    let World { log, doubts, .. } = &*world;
    let messages = memory.messages();
    let story = format!("{log:#?}\n{messages:#?}\n{doubts:?}");
    let invalidated = |part: &str| doubts.iter().any(|doubt| doubt == part);
    let (replies, top): (Vec<_>, Vec<_>) = messages.iter().partition(|it| it.thread_ts.is_some());
    let says = |text: Option<&String>| text.unwrap().contains("Failed");
    let ends = top.iter().filter(|it| says(it.texts.first())).count();
    let over = top.iter().filter(|it| says(it.texts.last())).count();
    let starts = top.len() - ends;
    assert!(starts <= 1 && ends <= 1, "{story}");
    assert!(over == 1 || over == 0 && invalidated("end"), "{story}");
    assert!(starts + over >= 1 || invalidated("start"), "{story}");
    if memory.channel_id.is_none() {
        assert!(replies.is_empty(), "{story}");
        assert!(starts == 1 || invalidated("start"), "{story}");
        return;
    }
    let alone = if invalidated("start") {
        starts + over
    } else {
        1
    };
    assert_eq!(top.len(), alone, "{story}");
    for detail in ["a", "b"] {
        let told: Vec<_> = replies.iter().filter(|it| it.texts[0] == detail).collect();
        let missing = invalidated("detail") || invalidated("end");
        assert!(told.len() == 1 || told.is_empty() && missing, "{story}");
        for reply in told {
            let mut threads = top
                .iter()
                .filter(|it| Some(&it.ts) == reply.thread_ts.as_ref());
            let thread = threads.next().expect("it answers the run's message");
            assert_eq!(says(thread.texts.last()), over == 1, "{story}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_message_is_edited_and_answered() {
    let memory = Memory::bot();
    live(&memory).await;
    check(&memory);
    assert_eq!(seen(&memory), [FAILED, "  a", "  b"]);
    let log = memory.log();
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
    assert_eq!(log[..beginning.len()], beginning);
    let count = |what: &str| log.iter().filter(|line| *line == what).count();
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
    assert_eq!(seen(&memory), [START, FAILED]);
    let log = memory.log();
    assert!(
        !log.iter()
            .any(|line| line == "edit" || line.ends_with("detail"))
    );
    let secret = memory.sender.route.secret();
    let reason = format!("{} does not answer", secret.reveal());
    let run = run(Phase::Failed, "", &["a", &reason]);
    let says = message(&run, false, &Redact::new([secret]));
    let says = says.blocks.to_string();
    assert!(says.contains("… does not answer"), "{says}");
}

/// It is the record that keeps a message from being there twice.
#[tokio::test(start_paused = true)]
async fn without_a_record_it_would_be_told_twice() {
    for forgets in [false, true] {
        let memory = Memory::bot();
        memory.world().forgets = forgets;
        memory.meets([Mood::Fine, Mood::Fine, Mood::DiesAfter]);
        let died = tell(&memory, &mut memory.notifier(), &started()).await;
        assert_eq!(died, None);
        tell_all(&memory, &mut memory.notifier(), &started()).await;
        assert_eq!(seen(&memory).len(), if forgets { 2 } else { 1 });
    }
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
        let calls = whole.world().calls;
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
                    lost += usize::from(!memory.world().doubts.is_empty());
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
