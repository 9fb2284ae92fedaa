//! When something is told: progress now and then, the end at once, and what is said last in any case.

use super::*;
use tokio::time::advance;

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
        assert_eq!(told, (since != 0).then_some(wait), "{second}");
        edits.extend((0..edited(&memory)).map(|_| second));
        // The same again is nothing new.
        assert_eq!(
            tell(&memory, &mut notifier, &now).await.unwrap().unwrap(),
            told
        );
        assert!(memory.log().is_empty());
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(edits, [10, 20, 30]);
    assert_eq!(began.elapsed(), Duration::from_secs(35));
    let over = run(Phase::Completed, "35", &[]);
    tell_all(&memory, &mut notifier, &over).await;
    assert_eq!(seen(&memory), ["✅ Completed · Rebuild of idx: 35"]);
}

/// How often something was edited since this was asked last.
fn edited(memory: &Memory) -> usize {
    let log = memory.log();
    log.iter().filter(|line| *line == "edit").count()
}

async fn follow(memory: &Memory, runs: &mut watch::Receiver<Run>) -> Result<()> {
    let mut notifier = memory.notifier();
    notifier.follow(&memory.sender, runs, memory).await
}

#[tokio::test(start_paused = true)]
async fn what_is_said_last_goes_out() {
    // Said within a second, and nothing more while the run goes on.
    let memory = Memory::bot();
    let (says, mut runs) = watch::channel(started());
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
    assert_eq!(seen(&memory), [END]);
    assert_eq!(edited(&memory), 2);
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_the_run_or_with_who_tells_of_it() {
    // Nobody is left to say more, and the last word has not gone out yet.
    let memory = Memory::bot();
    let (says, mut runs) = watch::channel(started());
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
    assert_eq!(seen(&memory), [END]);
    // What does not is told.
    let memory = Memory::bot();
    memory.meets([Mood::Fine, Mood::Fine, Mood::Denied]);
    let error = follow(&memory, &mut runs).await.unwrap_err();
    assert_eq!(error.class, Class::Denied);
}
