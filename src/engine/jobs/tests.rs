//! What becomes of jobs in every order of slots, failures, cancellations and restarts. Time is paused.

mod world;

use super::*;
use proptest::{collection::vec, prelude::*};
use tokio::runtime;
use world::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// One object, and a process that has driven it for so long.
async fn running(time: Duration) -> (Arc<World>, Process) {
    let world = World::new(&[("a", "db", "check")]);
    let mut process = Process::start(&world);
    process.run_for(time).await;
    (world, process)
}

fn outcomes(world: &World, name: Name) -> Vec<Outcome<String>> {
    world.with(|outside| outside.status(name).outcomes.clone())
}

fn completed(report: &str) -> Outcome<String> {
    Outcome::Completed(report.to_owned())
}

#[test]
fn what_is_next_follows_from_time_spec_status_and_progress_alone() {
    let spec = Spec {
        database: "db",
        pool: "check",
        first: at(100),
        every: seconds(1000),
        until: None,
        suspend: false,
        deleting: false,
    };
    let claim = |run, second| Claim {
        run,
        database: "db".to_owned(),
        pool: "check".to_owned(),
        at: at(second),
    };
    let never = Status::default();
    let claimed = Status {
        claim: Some(claim(0, 100)),
        ..Status::default()
    };
    let once = Status {
        last: Some(at(200)),
        outcomes: vec![completed("")],
        ..Status::default()
    };
    let with = |edit: fn(&mut Spec)| {
        let mut edited = spec.clone();
        edit(&mut edited);
        edited
    };
    let suspended = with(|spec| spec.suspend = true);
    let deleting = with(|spec| (spec.suspend, spec.deleting) = (true, true));
    let moved = with(|spec| spec.database = "other");
    let closed = with(|spec| spec.until = Some(at(150)));
    let (idle, recovering) = (Activity::Idle, Activity::Recovering(None));
    let sleep = |second| Next::Sleep(Some(at(second)));
    for (now, spec, status, activity, expected) in [
        (99, &spec, &never, &idle, sleep(100)),
        (100, &spec, &never, &idle, Next::Start(claim(0, 100))),
        (
            130,
            &spec,
            &never,
            &Activity::Queued,
            Next::Start(claim(0, 130)),
        ),
        (1199, &spec, &once, &idle, sleep(1200)),
        (1200, &spec, &once, &idle, Next::Start(claim(1, 1200))),
        (130, &spec, &claimed, &recovering, sleep(500)),
        (130, &spec, &claimed, &Activity::Running(10), sleep(500)),
        (
            500,
            &spec,
            &claimed,
            &Activity::Running(89),
            Next::Cancel(Reason::Overdue),
        ),
        (
            500,
            &spec,
            &claimed,
            &Activity::Running(90),
            Next::Sleep(None),
        ),
        (
            130,
            &moved,
            &claimed,
            &Activity::Running(90),
            Next::Cancel(Reason::NotWanted),
        ),
        (
            149,
            &closed,
            &never,
            &Activity::Queued,
            Next::Start(claim(0, 149)),
        ),
        (150, &closed, &never, &Activity::Queued, Next::Sleep(None)),
        (
            130,
            &suspended,
            &never,
            &idle,
            Next::Cancel(Reason::Suspended),
        ),
        (
            130,
            &deleting,
            &claimed,
            &Activity::Running(1),
            Next::Cancel(Reason::Deleted),
        ),
    ] {
        assert_eq!(
            next(at(now), spec, status, activity),
            expected,
            "{now} {activity:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_claimed_then_started_then_its_outcome_takes_the_claim_away() {
    let (world, mut process) = running(seconds(50)).await;
    assert_eq!(world.log(), "claim a, begin a");
    assert_eq!(process.jobs.activity(&"a"), Activity::Running(49));
    process.run_for(seconds(51)).await;
    assert_eq!(world.log(), "a completed");
    assert_eq!(process.jobs.activity(&"a"), Activity::Idle);
    assert_eq!(outcomes(&world, "a"), [completed("seen to its end")]);
    assert!(world.with(|outside| outside.status("a").claim.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_process_may_be_killed_at_any_moment() {
    let mut kills = Vec::new();
    for moment in 1.. {
        let world = World::new(&[("a", "db", "check")]);
        world.with(|outside| outside.killed_at = Some(moment));
        let mut process = Process::start(&world);
        process.run_for(WORK + seconds(10)).await;
        if !process.is_dead() {
            break;
        }
        kills.push(world.log());
        // A second one is killed in the middle of what it recovers, at each of its moments.
        let points = world.with(|outside| outside.points);
        for again in 1..4 {
            world.with(|outside| outside.killed_at = Some(points + again));
            let mut process = Process::start(&world);
            process.run_for(seconds(20)).await;
        }
        world.with(|outside| outside.killed_at = None);
        Process::start(&world).run_for(WORK + seconds(10)).await;
        world.with(|outside| {
            let status = outside.status("a");
            assert_eq!(status.claim, None, "killed at {moment}");
            let completed = |outcome: &&_| matches!(outcome, Outcome::Completed(_));
            let (done, lost): (Vec<_>, Vec<_>) = status.outcomes.iter().partition(completed);
            assert_eq!(done.len(), 1, "killed at {moment}");
            assert!(
                lost.iter().all(|lost| **lost == Outcome::Interrupted),
                "{lost:?}"
            );
            assert_eq!(outside.work.len(), 1, "killed at {moment}");
        });
    }
    let expected = [
        "",                              // before the claim
        "claim a",                       // after the claim, before anything was answered
        "claim a",                       // before the work was begun
        "claim a, begin a",              // in the middle
        "claim a, begin a",              // at its end
        "claim a, begin a",              // before its report was recorded
        "claim a, begin a, a completed", // afterwards
    ];
    assert_eq!(kills, expected);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_recorded_in_time_starts_nothing() {
    let asked = "claim a, recover a, a interrupted, claim a, begin a, a completed";
    for (fault, expected) in [
        (WriteFault::Refused, "claim a, begin a, a completed"),
        // It is there all the same, so it is asked for.
        (WriteFault::Unanswered, asked),
        (WriteFault::Late, asked),
    ] {
        let world = World::new(&[("a", "db", "check")]);
        world.with(|outside| outside.write_fault = Some(fault));
        let mut process = Process::start(&world);
        process.run_for(seconds(1)).await;
        assert!(!world.with(|outside| outside.is_running("a")), "{fault:?}");
        process.run_for(WORK + seconds(20)).await;
        assert_eq!(world.log(), expected, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_not_recorded_is_recorded_again_and_nothing_starts_before() {
    for fault in [WriteFault::Refused, WriteFault::Unanswered] {
        let (world, mut process) = running(seconds(50)).await;
        process.edit("a", |spec| spec.every = seconds(0));
        world.with(|outside| outside.write_fault = Some(fault));
        process.run_for(seconds(80)).await;
        let expected = "claim a, begin a, a completed, claim a, begin a";
        assert_eq!(world.log(), expected, "{fault:?}");
        assert_eq!(outcomes(&world, "a").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_job_runs_in_a_place_and_a_slot_comes_in_turn() {
    let world = World::new(&[
        ("a", "db", "check"),
        ("b", "db", "check"),
        ("c", "db", "rebuild"),
        ("d", "other", "check"),
    ]);
    let mut process = Process::start(&world);
    process.run_for(WORK * 3 + seconds(10)).await;
    assert_eq!(
        world.log(),
        "claim a, claim d, begin a, begin d, a completed, claim b, d completed, begin b, b completed, \
         claim c, begin c, c completed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_bounds_its_own_jobs_and_whoever_waited_longest_is_next() {
    let world = World::new(&[
        ("a", "1", "rebuild"),
        ("b", "2", "rebuild"),
        ("c", "1", "rebuild"),
        ("d", "3", "rebuild"),
        ("e", "4", "rebuild"),
        ("f", "5", "check"),
    ]);
    let mut process = Process::start(&world);
    process.run_for(seconds(50)).await;
    assert_eq!(
        world.log(),
        "claim a, claim b, claim f, begin a, begin b, begin f"
    );
    let queued = |process: &Process| {
        let names = ["a", "b", "c", "d", "e", "f"].into_iter();
        let queued = names.filter(|name| process.jobs.activity(name) == Activity::Queued);
        queued.collect::<Vec<_>>()
    };
    assert_eq!(queued(&process), ["c", "d", "e"]);
    // Whoever waits may be called off.
    process.edit("d", |spec| spec.suspend = true);
    process.run_for(seconds(1)).await;
    assert_eq!(queued(&process), ["c", "e"]);
    // Who comes back is the last.
    process.edit("d", |spec| spec.suspend = false);
    process.run_for(seconds(50)).await;
    assert_eq!(queued(&process), ["d"]);
    process.run_for(WORK).await;
    let log = world.log();
    let begun: Vec<_> = log
        .split(", ")
        .filter(|line| line.starts_with("begin"))
        .collect();
    assert_eq!(begun, ["begin c", "begin e", "begin d"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_its_pool_is_not_overtaken_in_its_place() {
    let world = World::new(&[
        ("a", "1", "rebuild"),
        ("b", "2", "rebuild"),
        ("c", "3", "rebuild"),
        ("d", "3", "check"),
    ]);
    let mut process = Process::start(&world);
    process.run_for(seconds(50)).await;
    assert_eq!(world.log(), "claim a, claim b, begin a, begin b");
    process.run_for(WORK * 2).await;
    let log = world.log();
    assert!(log.find("begin c") < log.find("begin d"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_done_is_decided_again_when_there_is_a_slot() {
    let world = World::new(&[
        ("a", "db", "check"),
        ("b", "db", "check"),
        ("c", "db", "check"),
    ]);
    let mut process = Process::start(&world);
    process.edit("b", |spec| spec.until = Some(at(60)));
    process.run_for(seconds(110)).await;
    assert_eq!(
        world.log(),
        "claim a, begin a, a completed, claim c, begin c"
    );
    assert_eq!(process.jobs.activity(&"b"), Activity::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_nobody_claims_goes_to_the_next() {
    let world = World::new(&[
        ("a", "db", "check"),
        ("b", "db", "check"),
        ("c", "db", "check"),
    ]);
    let mut process = Process::start(&world);
    process.run_for(seconds(50)).await;
    process.stuck.insert("b");
    process.run_for(seconds(51)).await;
    assert_eq!(world.log(), "claim a, begin a, a completed");
    process.run_for(GRANT).await;
    assert_eq!(world.log(), "claim c, begin c");
    process.stuck.clear();
    process.run_for(WORK).await;
    assert_eq!(
        world.log(),
        "claim b, c completed, begin b",
        "it comes last"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_for_the_place_that_it_was_given_for() {
    let world = World::new(&[
        ("a", "1", "check"),
        ("b", "1", "check"),
        ("c", "2", "check"),
    ]);
    let mut process = Process::start(&world);
    process.edit("c", |spec| spec.first = at(50));
    process.run_for(seconds(60)).await;
    process.stuck.insert("b");
    process.run_for(seconds(45)).await;
    assert_eq!(
        world.log(),
        "claim a, begin a, claim c, begin c, a completed"
    );
    process.stuck.clear();
    process.edit("b", |spec| spec.database = "2");
    process.run_for(seconds(40)).await;
    assert_eq!(process.jobs.activity(&"b"), Activity::Queued);
    process.run_for(seconds(10)).await;
    assert_eq!(world.log(), "claim b, c completed, begin b");
}

#[tokio::test(start_paused = true)]
async fn a_job_learns_why_it_is_cancelled() {
    type Edit = fn(&mut Spec);
    let edits: [(Reason, Edit); 3] = [
        (Reason::Suspended, |spec| spec.suspend = true),
        (Reason::Deleted, |spec| spec.deleting = true),
        (Reason::NotWanted, |spec| spec.database = "other"),
    ];
    for (reason, edit) in edits {
        let (world, mut process) = running(seconds(50)).await;
        process.edit("a", edit);
        process.run_for(seconds(1)).await;
        assert_eq!(outcomes(&world, "a"), [Outcome::Cancelled(reason)]);
        assert!(world.log().contains(&format!("a learns {reason:?}")));
        assert!(
            !world.with(|outside| outside.is_running("a")),
            "it may undo what it began"
        );
        assert_eq!(process.jobs.activity(&"a"), Activity::Idle);
    }
    // Suspended while it waits: there is nothing to record.
    let world = World::new(&[("a", "db", "check"), ("b", "db", "check")]);
    let mut process = Process::start(&world);
    process.run_for(seconds(50)).await;
    process.edit("b", |spec| spec.suspend = true);
    process.run_for(WORK).await;
    assert_eq!(outcomes(&world, "b"), []);
}

#[tokio::test(start_paused = true)]
async fn after_its_end_a_process_writes_nothing_and_the_next_one_recovers() {
    for reason in [Reason::LeaseLost, Reason::ShuttingDown] {
        let world = World::new(&[
            ("a", "1", "check"),
            ("b", "2", "check"),
            ("c", "1", "check"),
        ]);
        let mut process = Process::start(&world);
        process.run_for(seconds(50)).await;
        let began = Instant::now();
        process.end(reason).await;
        assert_eq!(began.elapsed(), seconds(0), "nothing is waited for");
        process.run_for(seconds(20)).await;
        let log = world.log();
        assert!(
            log.ends_with(&format!(
                "begin b, a learns {reason:?}, b learns {reason:?}"
            )),
            "{log}"
        );
        for name in ["a", "b"] {
            world.with(|outside| {
                assert!(outside.status(name).claim.is_some());
                assert!(outside.is_running(name), "nothing is undone either");
            });
        }
        let refused = process.reconcile("a").await.unwrap_err();
        assert_eq!(refused.class, Class::Superseded);
        let mut process = Process::start(&world);
        process.run_for(seconds(10)).await;
        assert_eq!(world.log(), "recover a, recover b");
        assert!(matches!(
            process.jobs.activity(&"a"),
            Activity::Running(70..90)
        ));
        assert_eq!(process.jobs.activity(&"c"), Activity::Queued);
        process.run_for(seconds(30)).await;
        assert_eq!(outcomes(&world, "a"), [completed("seen to its end")]);
        assert!(world.with(|outside| outside.is_running("c")));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_if_the_lease_goes_while_the_claim_is_written() {
    let world = World::new(&[("a", "db", "check")]);
    world.with(|outside| outside.write_fault = Some(WriteFault::Slow));
    let mut process = Process::start(&world);
    let jobs = process.jobs.clone();
    tokio::spawn(async move {
        sleep(seconds(1)).await;
        jobs.end(Reason::LeaseLost).await;
    });
    process.run_for(WORK).await;
    assert_eq!(world.log(), "claim a");
    Process::start(&world).run_for(WORK * 2).await;
    assert_eq!(
        world.log(),
        "recover a, a interrupted, claim a, begin a, a completed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_job_once_nothing_of_it_is_left() {
    let (world, mut process) = running(seconds(50)).await;
    world.with(|outside| {
        outside
            .trouble
            .insert("db".to_owned(), Trouble::PanicsAlone)
    });
    process.run_for(seconds(30)).await;
    let expected = "claim a, begin a, recover a, a failed: the job panicked: this is a bug";
    assert_eq!(world.log(), expected);
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_without_its_job_is_followed_to_its_end() {
    for trouble in [Trouble::Panics, Trouble::Cut] {
        let (world, mut process) = running(seconds(50)).await;
        world.with(|outside| outside.trouble.insert("db".to_owned(), trouble));
        process.edit("a", |spec| spec.every = seconds(0));
        process.run_for(seconds(1)).await;
        let Activity::Recovering(Some(error)) = process.jobs.activity(&"a") else {
            panic!("{:?}", process.jobs.activity(&"a"))
        };
        assert!(!error.message.is_empty());
        process.run_for(seconds(50)).await;
        let expected = "claim a, begin a, recover a, a completed, claim a, begin a";
        assert_eq!(world.log(), expected, "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_says_so_and_leaves_its_slot() {
    let world = World::new(&[("a", "db", "check"), ("b", "db", "check")]);
    let mut process = Process::start(&world);
    world.with(|outside| outside.trouble.insert("db".to_owned(), Trouble::Fails));
    process.run_for(seconds(10)).await;
    assert_eq!(
        world.log(),
        "claim a, begin a, a failed: refused, claim b, begin b"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_stop_is_dropped_and_its_claim_stays() {
    let world = World::new(&[("a", "db", "check"), ("b", "db", "check")]);
    let mut process = Process::start(&world);
    world.with(|outside| outside.trouble.insert("db".to_owned(), Trouble::Deaf));
    process.run_for(seconds(20)).await;
    process.edit("a", |spec| spec.suspend = true);
    process.run_for(TestJob::GRACE - seconds(1)).await;
    assert!(matches!(process.jobs.activity(&"a"), Activity::Running(_)));
    process.run_for(seconds(2)).await;
    assert!(matches!(
        process.jobs.activity(&"a"),
        Activity::Recovering(Some(_))
    ));
    assert!(world.with(|outside| outside.status("a").claim.is_some()));
    assert_eq!(
        process.jobs.activity(&"b"),
        Activity::Queued,
        "its place is still taken"
    );
    // It is found to run still, is told again, and listens this time.
    process.run_for(seconds(15)).await;
    let expected =
        "claim a, begin a, recover a, a learns Suspended, a cancelled(suspended), claim b, begin b";
    assert_eq!(world.log(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_restart_asks_once_what_became_of_a_claim() {
    type Restart = (&'static str, u64, fn(&mut Outside), Outcome<String>);
    let restarts: [Restart; 3] = [
        ("running", 20, |_| {}, completed("seen to its end")),
        ("done", 200, |_| {}, completed("found done")),
        (
            "nothing",
            20,
            |outside| outside.work.clear(),
            Outcome::Interrupted,
        ),
    ];
    for (name, pause, meanwhile, expected) in restarts {
        let (world, process) = running(seconds(50)).await;
        process.kill();
        world.log();
        tokio::time::sleep(seconds(pause)).await;
        world.with(meanwhile);
        world.with(|outside| outside.objects.get_mut("a").unwrap().0.until = Some(at(60)));
        let mut process = Process::start(&world);
        assert_eq!(process.jobs.activity(&"a"), Activity::Recovering(None));
        process.run_for(seconds(60)).await;
        assert_eq!(world.log().matches("recover").count(), 1, "{name}");
        assert_eq!(outcomes(&world, "a"), [expected], "{name}");
        assert_eq!(process.jobs.activity(&"a"), Activity::Idle, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_asked_keeps_claim_and_place_but_no_slot_of_the_pool() {
    let world = World::new(&[
        ("a", "1", "rebuild"),
        ("b", "2", "rebuild"),
        ("c", "1", "rebuild"),
        ("d", "3", "rebuild"),
        ("e", "4", "rebuild"),
    ]);
    let mut process = Process::start(&world);
    process.run_for(seconds(50)).await;
    process.kill();
    world.log();
    world.with(|outside| outside.unreachable.extend(["1".to_owned(), "2".to_owned()]));
    let mut process = Process::start(&world);
    process.run_for(seconds(600)).await;
    let log = world.log();
    let asked = log.matches("recover a").count();
    assert!((3..30).contains(&asked), "with a growing pause: {asked}");
    let Activity::Recovering(Some(error)) = process.jobs.activity(&"a") else {
        panic!("{log}")
    };
    assert_eq!(error.message, "no route to the database");
    assert_eq!(process.jobs.activity(&"c"), Activity::Queued);
    for name in ["d", "e"] {
        assert_eq!(
            outcomes(&world, name),
            [completed("seen to its end")],
            "{log}"
        );
    }
    // Somebody who has edited something does not wait for the pause.
    world.with(|outside| outside.unreachable.clear());
    process.edit("a", |_| {});
    process.run_for(seconds(1)).await;
    assert_eq!(outcomes(&world, "a"), [completed("found done")]);
    assert!(world.with(|outside| outside.is_running("c")));
}

#[tokio::test(start_paused = true)]
async fn an_object_is_woken_for_progress_at_most_once_in_the_interval() {
    let (world, mut process) = running(WORK - seconds(1)).await;
    let wakes = process.wakes.lock().unwrap().clone();
    let since = wakes[0].0;
    let wakes: Vec<_> = wakes
        .iter()
        .map(|(at, _)| (*at - since).as_secs())
        .collect();
    // The slot, then progress, which is made every second.
    assert_eq!(wakes, [0, 1, 11, 21, 31, 41, 51, 61, 71, 81, 91]);
    process.run_for(seconds(3)).await;
    let last = process.wakes.lock().unwrap().last().unwrap().0 - since;
    assert_eq!(last, WORK, "its end is told at once");
    assert_eq!(outcomes(&world, "a").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_somebody_has_wiped_is_written_again() {
    let (world, mut process) = running(seconds(50)).await;
    world.with(|outside| outside.objects.get_mut("a").unwrap().1 = Status::default());
    process.run_for(seconds(10)).await;
    assert!(world.with(|outside| outside.status("a").claim.is_some()));
    process.run_for(seconds(50)).await;
    assert_eq!(world.log(), "claim a, begin a, claim a, a completed");
}

#[tokio::test(start_paused = true)]
async fn the_job_of_an_object_that_is_gone_is_stopped_and_its_place_is_free_then() {
    let world = World::new(&[("a", "db", "check"), ("b", "db", "check")]);
    let mut process = Process::start(&world);
    process.run_for(seconds(50)).await;
    process.jobs.forget(&"a");
    assert_eq!(process.jobs.activity(&"b"), Activity::Queued);
    process.stuck.insert("a");
    process.run_for(seconds(1)).await;
    let expected = "claim a, begin a, a learns Deleted, claim b, begin b";
    assert_eq!(world.log(), expected);
    assert_eq!(process.jobs.state().entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_given_while_the_job_may_go_on_and_to_clean_up_while_the_process_may() {
    for (reason, enters, cleans_up) in [
        (None, true, true),
        (Some(Reason::Suspended), false, true),
        (Some(Reason::Deleted), false, true),
        (Some(Reason::NotWanted), false, true),
        (Some(Reason::Overdue), false, true),
        (Some(Reason::LeaseLost), false, false),
        (Some(Reason::ShuttingDown), false, false),
    ] {
        let gate = JobGate {
            writes: Arc::new(MayWrite),
            stop: watch::Sender::new(reason),
            progress: watch::Sender::new(Some(())),
        };
        assert_eq!(gate.enter(OPERATION).is_ok(), enters, "{reason:?}");
        assert_eq!(gate.clean_up(OPERATION).is_ok(), cleans_up, "{reason:?}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Suspend(usize, bool),
    Move(usize, usize),
    Trouble(usize, Trouble),
    Reach(usize, bool),
    Write(WriteFault),
    /// At so many points from now.
    Kill(u32),
    End(Reason),
}

const NAMES: [Name; 4] = ["a", "b", "c", "d"];
const DATABASES: [Name; 3] = ["1", "2", "3"];

fn event() -> impl Strategy<Value = Event> {
    use Trouble::{Cut, Deaf, Fails, Panics, PanicsAlone};
    let trouble = prop::sample::select(vec![Cut, Deaf, Fails, Panics, PanicsAlone]);
    let fault = prop::sample::select(vec![
        WriteFault::Refused,
        WriteFault::Unanswered,
        WriteFault::Late,
    ]);
    let end = prop::sample::select(vec![Reason::LeaseLost, Reason::ShuttingDown]);
    prop_oneof![
        4 => (1_u64..90).prop_map(Event::Pass),
        1 => (0..4_usize, any::<bool>()).prop_map(|(name, on)| Event::Suspend(name, on)),
        1 => (0..4_usize, 0..3_usize).prop_map(|(name, to)| Event::Move(name, to)),
        1 => (0..3_usize, trouble).prop_map(|(at, trouble)| Event::Trouble(at, trouble)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(at, up)| Event::Reach(at, up)),
        1 => fault.prop_map(Event::Write),
        1 => (1_u32..20).prop_map(Event::Kill),
        1 => end.prop_map(Event::End),
    ]
}

async fn happen(world: &Arc<World>, process: &mut Process, event: Event) {
    match event {
        Event::Pass(time) => process.run_for(seconds(time)).await,
        Event::Suspend(name, on) => process.edit(NAMES[name], |spec| spec.suspend = on),
        Event::Move(name, to) => process.edit(NAMES[name], |spec| spec.database = DATABASES[to]),
        Event::Trouble(place, trouble) => {
            let place = DATABASES[place].to_owned();
            world.with(|outside| outside.trouble.insert(place, trouble));
        }
        Event::Reach(place, true) => {
            world.with(|outside| outside.unreachable.remove(DATABASES[place]));
        }
        Event::Reach(place, false) => {
            let place = DATABASES[place].to_owned();
            world.with(|outside| outside.unreachable.insert(place));
        }
        Event::Write(fault) => world.with(|outside| outside.write_fault = Some(fault)),
        Event::Kill(points) => {
            world.with(|outside| outside.killed_at = Some(outside.points + points));
        }
        Event::End(reason) => {
            drop(process.end(reason));
            process.run_for(seconds(1)).await;
            process.kill();
        }
    }
    if process.is_dead() {
        *process = Process::start(world);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    /// The world itself notes whatever must not happen: work without its claim, twice, or beside other work
    /// of the same object or in the same place; a status that is written after the process's end.
    #[test]
    fn whatever_happens_nothing_runs_twice_and_in_the_end_all_is_done(events in vec(event(), 0..40)) {
        let paused = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        paused.unwrap().block_on(async {
            let world = World::new(&[
                ("a", "1", "check"), ("b", "1", "rebuild"), ("c", "2", "rebuild"), ("d", "3", "rebuild"),
            ]);
            for name in NAMES {
                world.with(|outside| outside.objects.get_mut(name).unwrap().0.every = seconds(50));
            }
            let mut process = Process::start(&world);
            for event in events {
                happen(&world, &mut process, event).await;
            }
            world.with(|outside| {
                outside.killed_at = None;
                outside.write_fault = None;
                outside.trouble.clear();
                outside.unreachable.clear();
            });
            let before = NAMES.map(|name| outcomes(&world, name).len());
            for name in NAMES {
                process.edit(name, |spec| spec.suspend = false);
            }
            process.run_for(WORK * 12).await;
            for name in NAMES {
                let until = Some(world.now());
                process.edit(name, |spec| spec.until = until);
            }
            process.run_for(WORK * 2).await;
            for (name, before) in NAMES.into_iter().zip(before) {
                let told = outcomes(&world, name).split_off(before);
                assert!(told.iter().any(|told| matches!(told, Outcome::Completed(_))), "{name} {told:?}");
                assert_eq!(world.with(|outside| outside.status(name).claim.clone()), None, "{name}");
                assert_eq!(process.jobs.activity(&name), Activity::Idle);
            }
            assert!(process.jobs.state().entries.is_empty(), "nothing is left behind");
        });
    }
}
