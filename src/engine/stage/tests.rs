//! What the engine promises, shown in a world that does everything wrong.
//!
//! What a record in status promises: nothing is made before its name is in status, so a thing of ours without
//! a mark is never lost, wherever the process died; and nothing is made twice, as long as what was
//! made shows at the next look. What shows only later may be there twice for a while; both bear a
//! name that is in the record, so the one too many is removed. What somebody else makes by a name
//! in the record is taken for ours.

mod world;

use super::*;
use crate::engine::error::Class::{
    Denied, OutcomeUnknown, Rejected, Superseded, Throttled, Unavailable, Waiting,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use world::{
    Deed, Fault,
    Lands::{Later, Never, Now},
    STAGES, Spec, TARGET, World, spec,
};

const FROM: &str = "connection a=1, connection z=1, destination d=1@a, destination z=1@z, group g=1, group z=1, target t=1@d, target z=1@z";
const TO: &str = "connection a=2, connection b=1, destination d=2@a, destination e=1@b, group g=2, group h=1, target t=2@d, target u=1@e";

/// What a run from [`FROM`] to [`TO`] writes when all goes well.
const WRITES: [&str; 13] = [
    "+ connection b",
    "~ connection a",
    "+ destination e",
    "~ destination d",
    "+ group h",
    "~ group g",
    "intend target u",
    "+ target u",
    "~ target t",
    "- target z",
    "- group z",
    "- destination z",
    "- connection z",
];

const CLASSES: [Class; 7] = [
    Rejected,
    Waiting(WaitingOn::Tenant),
    Denied,
    Throttled,
    Unavailable,
    OutcomeUnknown,
    Superseded,
];

/// The calls of [`WRITES`] that a failure leaves out, other than the failed call itself.
fn left_out(fault: &str, class: Class) -> (Vec<&'static str>, usize) {
    let world = World::with(FROM);
    world.fails(fault, class, Never);
    let report = world.run(&spec(TO)).unwrap();
    assert!(!report.is_settled());
    let writes = world.writes();
    let made = |call: &&str| writes.iter().any(|write| write == call);
    let missing = WRITES.into_iter().filter(|call| !made(call));
    (missing.collect(), report.untried)
}

/// What somebody changes is told and left as it is, whatever becomes of another thing meanwhile; and that one is
/// made as soon as it can be, since nobody changed it.
#[test]
fn drift_is_told_beside_whatever_fails() {
    let held = |spec: &mut Spec| {
        spec[2].wanted.remove("b");
        let error = Error::invalid("no such environment");
        spec[2].blocked.insert("b".into(), error);
    };
    type Trouble<'a> = (&'a str, &'a dyn Fn(&World, &mut Spec));
    let troubles: [Trouble<'_>; 7] = [
        ("nothing", &|_, _| {}),
        ("held", &|_, spec| held(spec)),
        ("conflict", &|world, _| {
            world.happen(Deed::Put(2, "b", 9, true))
        }),
        ("rejected", &|world, _| {
            world.fails("+ group b", Rejected, Never)
        }),
        ("throttled", &|world, _| {
            world.fails("+ group b", Throttled, Never)
        }),
        ("denied", &|world, _| {
            world.fails("+ group b", Denied, Never)
        }),
        ("unavailable", &|world, _| {
            world.fails("+ group b", Unavailable, Never)
        }),
    ];
    for (name, trouble) in troubles {
        let world = World::default();
        let wanted = spec("group a=1, group b=1");
        let mut troubled = wanted.clone();
        trouble(&world, &mut troubled);
        world.run(&troubled).unwrap();
        world.happen(Deed::Put(2, "a", 7, false));
        for _ in 0..2 {
            let report = world.run_since(&troubled, DriftPolicy::Report);
            let told: Vec<_> = report
                .reported
                .iter()
                .map(|step| step.key.as_str())
                .collect();
            assert_eq!(told, ["a"], "{name}");
            assert!(
                world.ours().starts_with("group a=7"),
                "{name}: {}",
                world.ours()
            );
        }
        world.recovers();
        world.others_leave();
        let report = world.run_since(&wanted, DriftPolicy::Report);
        assert_eq!(world.ours(), "group a=7, group b=1", "{name}");
        assert_eq!(report.drift.len(), 1, "{name}: {:?}", report.drift);
        let report = world.run_since(&wanted, DriftPolicy::Repair);
        assert_eq!(
            (world.ours().as_str(), report.drift.len()),
            ("group a=1, group b=1", 1)
        );
        world.happen(Deed::Put(2, "a", 7, false));
        world.run(&spec("group a=1, group b=2")).unwrap();
        assert_eq!(
            world.ours(),
            "group a=1, group b=2",
            "{name}: an edit applies all"
        );
    }
}

#[test]
fn upserts_run_forward_deletes_backward_and_only_what_was_written_is_read_again() {
    let world = World::with(FROM);
    assert!(world.run(&spec(TO)).unwrap().is_settled());
    assert_eq!(world.writes(), WRITES);
    let reads = |world: &World| {
        let calls = world.state().calls.clone();
        STAGES.map(|stage| {
            calls
                .iter()
                .filter(|call| **call == format!("? {stage}"))
                .count()
        })
    };
    assert_eq!(reads(&world), [2, 2, 2, 2]);
    world.run(&spec(&TO.replace("group g=2", "group g=1")));
    assert_eq!(world.writes(), ["~ group g"]);
    assert_eq!(reads(&world), [1, 1, 2, 1]);
}

#[test]
fn what_a_failure_holds_back() {
    // A refused item holds back only what is on it. Deletions go on.
    for fault in ["~ connection a", "+ group h", "~ target t", "- target z"] {
        assert_eq!(left_out(fault, Rejected), (vec![], 0), "{fault}");
    }
    assert_eq!(
        left_out("+ connection b", Rejected),
        (vec!["+ destination e", "+ target u"], 0)
    );

    // What may pass by itself holds back deletions in its stage and in those that it needs.
    let all = ["- target z", "- destination z", "- connection z"];
    assert_eq!(left_out("~ connection a", Unavailable).0, all[2..]);
    assert_eq!(left_out("~ destination d", Unavailable).0, all[1..]);
    for class in [Unavailable, OutcomeUnknown, Waiting(WaitingOn::Tenant)] {
        assert_eq!(left_out("~ target t", class), (all.to_vec(), 3));
        assert_eq!(left_out("- target z", class), (all[1..].to_vec(), 2));
        // What waits for something that may come is as good as failed itself.
        let (missing, untried) = left_out("+ connection b", class);
        assert_eq!(missing[..2], ["+ destination e", "+ target u"]);
        assert_eq!((&missing[2..], untried), (&all[..], 3));
    }
    let (missing, untried) = left_out("intend", Unavailable);
    assert_eq!(
        (missing[0], &missing[1..], untried),
        ("+ target u", &all[..], 3)
    );

    // A stage that could not look does nothing, nor do those that need it, however indirectly.
    for class in [Rejected, Unavailable, Denied] {
        let events = |call: &&str| !call.contains("group");
        let (missing, _) = left_out("? connection", class);
        assert_eq!(
            missing,
            WRITES.into_iter().filter(events).collect::<Vec<_>>()
        );
    }
    let (missing, _) = left_out("? destination", Unavailable);
    assert!(!missing.contains(&"+ connection b") && missing.contains(&"~ target t"));
    assert_eq!(missing[missing.len() - 3..], all);
    let (missing, _) = left_out("? target", Rejected);
    assert_eq!(
        missing[..3],
        ["intend target u", "+ target u", "~ target t"]
    );
    assert_eq!(missing[3..], all);
}

#[test]
fn a_refusal_or_throttling_stops_its_scope_and_nothing_else() {
    for class in [Denied, Throttled] {
        let (missing, untried) = left_out("+ destination e", class);
        let events = ["~ destination d", "- destination z", "- connection z"];
        let waiting = ["+ target u", "- target z"];
        assert!(
            events
                .iter()
                .chain(&waiting)
                .all(|call| missing.contains(call))
        );
        assert_eq!((missing.len(), untried), (5, 4), "{missing:?}");

        // Deletions also wait for what was only not tried.
        let (missing, untried) = left_out("+ group h", class);
        assert_eq!(missing, [&WRITES[5..]].concat());
        assert_eq!(untried, 7);
    }
}

#[test]
fn nothing_is_written_once_there_is_a_newer_generation() {
    let edited = TO.replace("group g=2", "group g=3");
    for passed in 0.. {
        let world = World::with(FROM);
        world.state().overtaken_after = Some(passed);
        let report = world.run(&spec(TO)).unwrap();
        let intents = world
            .writes()
            .iter()
            .filter(|it| it.starts_with("intend"))
            .count();
        assert_eq!(
            (world.writes().len() - intents, report.made.len()),
            (passed, passed)
        );
        let mut failed = report.failed.iter();
        assert!(failed.all(|failure| matches!(failure.error.class, Superseded | Waiting(_))));
        world.recovers();
        world.settles(&edited);
        if report.is_settled() {
            assert_eq!(passed, WRITES.len() - 1);
            break;
        }
    }
}

#[test]
fn after_any_failure_of_any_call_the_next_run_finishes() {
    let calls = WRITES.into_iter().map(str::to_owned);
    let looks = STAGES.map(|stage| format!("? {stage}"));
    for call in calls.chain(looks) {
        for (class, lands) in CLASSES.into_iter().flat_map(|it| [(it, Never), (it, Now)]) {
            for goal in [TO, ""] {
                let world = World::with(FROM);
                world.fails(&call, class, lands);
                world.run(&spec(TO)).unwrap();
                assert!(
                    class == Rejected || world.state().in_use == 0,
                    "{call}: {class:?} deleted what something was on"
                );
                world.recovers();
                world.settles(goal);
            }
        }
    }
}

#[test]
fn wherever_the_process_dies_the_next_one_finishes() {
    let before = World::with(FROM);
    let (mut deaths, mut alive) = (0, false);
    while !alive {
        let once = before.clone();
        deaths += 1;
        once.state().dies_at = Some(deaths);
        alive = once.run(&spec(TO)).is_some();
        // Then it dies again on the way to there, or to nothing.
        for goal in [TO, ""] {
            for again in 1.. {
                let twice = once.clone();
                twice.state().dies_at = Some(again);
                let alive = twice.run(&spec(goal)).is_some();
                twice.recovers();
                twice.settles(goal);
                if alive {
                    break;
                }
            }
        }
    }
    assert!(deaths > 2 * WRITES.len());
}

#[test]
fn a_thing_with_a_ledger_that_shows_late_is_not_kept_twice() {
    let wanted = "connection a=1, destination d=1@a, target t=1@d";
    let world = World::default();
    world.fails("+ target", OutcomeUnknown, Later);
    world.run(&spec(wanted)).unwrap();
    assert!(!world.ours().contains("target"));
    world.recovers();
    world.settles(wanted);
    world.late_ones_show();
    assert_eq!(world.ours().matches("target t").count(), 2);
    world.settles(wanted);
    world.settles("");
}

#[test]
fn a_batch_is_of_one_verb_and_of_the_size_that_the_stage_says() {
    let many = |names: std::ops::Range<usize>, size: u8| {
        let groups = names.map(|n| format!("group g{n:03}={size}"));
        groups.collect::<Vec<_>>().join(", ")
    };
    let world = World::with(&many(0..255, 1));
    let to = spec(&[many(250..255, 2), many(300..302, 1)].join(", "));
    world.fails("- group g100", Rejected, Never);
    let report = world.run(&to).unwrap();
    let sent = |sign: char| {
        let calls = world
            .writes()
            .into_iter()
            .filter(|call| call.starts_with(sign));
        calls
            .map(|call| call.split(' ').count() - 2)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (sent('+'), sent('~'), sent('-')),
        (vec![1, 1], vec![2, 2, 1], vec![100, 100, 50])
    );
    assert_eq!(
        (report.made.len(), report.failed.len()),
        (256, 1),
        "each has its own answer"
    );
}

#[test]
fn a_change_without_an_answer_is_not_taken_for_done() {
    let world = World::default();
    world.state().mute = true;
    let report = world.run(&spec("group g=1")).unwrap();
    assert_eq!(classes(&report), [("group", Some("g"), OutcomeUnknown)]);
}

fn classes(report: &Report) -> Vec<(&'static str, Option<&str>, Class)> {
    let failed = report.failed.iter();
    failed
        .map(|it| (it.stage, it.key.as_deref(), it.error.class))
        .collect()
}

#[test]
fn only_a_stage_that_could_not_look_fails_without_a_key() {
    for (fault, key) in [
        ("? target", None),
        ("intend", Some("u")),
        ("+ target", Some("u")),
    ] {
        let world = World::with(FROM);
        world.fails(fault, Unavailable, Never);
        let report = world.run(&spec(TO)).unwrap();
        assert_eq!(classes(&report), [("target", key, Unavailable)]);
    }
}

#[test]
fn a_plan_holds_nothing_back_but_says_what_it_could_see() {
    let world = World::with(FROM);
    world.fails("? target", Unavailable, Never);
    let planned = world.plan(&spec(TO));
    assert!(planned.contains(&"- connection z".to_owned()));
    assert!(!planned.iter().any(|step| step.contains("target")));
}

#[test]
fn what_was_refused_is_not_tried_again_but_still_reported() {
    let world = World::with(FROM);
    world.fails("~ group g", Rejected, Never);
    let first = world.run(&spec(TO)).unwrap();
    let second = world.run(&spec(TO)).unwrap();
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(classes(&second), classes(&first));
    assert_eq!(second.planned.len(), 1);
    world.state().faults.clear();
    world.settles(&TO.replace("group g=2", "group g=3"));
}

#[test]
fn what_is_held_is_reported_and_left_as_it_is() {
    // Its error is not the outside's: whatever it is, it stops nothing there.
    for class in [Class::Invalid, Waiting(WaitingOn::Secret), Denied] {
        let world = World::with(FROM);
        let mut to = spec(TO);
        for name in ["z", "new"] {
            to[2]
                .blocked
                .insert(name.into(), Error::new(class, "cannot be made"));
        }
        let report = world.run(&to).unwrap();
        let mut left_out = WRITES.to_vec();
        left_out.retain(|call| *call != "- group z");
        assert_eq!(world.writes(), left_out);
        assert_eq!(
            classes(&report),
            ["new", "z"].map(|key| ("group", Some(key), class))
        );
        assert!(world.ours().contains("group z=1"));
    }
}

#[test]
fn what_is_not_ours_is_left_alone_and_holds_up_nothing_else() {
    let world = World::with(FROM);
    for (stage, name) in [(0, "b"), (2, "h"), (TARGET, "u"), (2, "x")] {
        world.happen(Deed::Put(stage, name, 9, stage == 0));
    }
    let planned = world.plan(&spec(TO));
    let told = "! connection b\n    not touched: it is held by rival".to_owned();
    assert!(planned.contains(&told), "{planned:#?}");
    let report = world.run(&spec(TO)).unwrap();
    assert_eq!(
        classes(&report),
        [
            ("connection", Some("b"), Class::Conflict),
            ("destination", Some("e"), Waiting(WaitingOn::Prerequisite)),
            ("group", Some("h"), Class::Conflict),
            ("target", Some("u"), Class::Conflict),
        ]
    );
    assert_eq!(
        world.ours(),
        "connection a=2, destination d=2@a, group g=2, target t=2@d"
    );
    world.others_leave();
    world.settles(TO);
}

/// Up to three things in each stage, each on one that is wanted as well.
fn specs() -> impl Strategy<Value = String> {
    vec(option::of((1_u8..3, 0_usize..3)), 12).prop_map(|choices| {
        let mut items = Vec::new();
        let mut wanted: [Vec<&str>; 4] = Default::default();
        for (n, choice) in choices.into_iter().enumerate() {
            let (stage, name) = (n / 3, NAMES[n % 3]);
            let below = match STAGES[stage] {
                "destination" => Some(&wanted[0]),
                "target" => Some(&wanted[1]),
                _ => None,
            };
            let on = |pick: usize| match below {
                None => Some(String::new()),
                Some(below) => Some(format!("@{}", below.get(pick % below.len().max(1))?)),
            };
            if let Some((size, pick)) = choice
                && let Some(on) = on(pick)
            {
                items.push(format!("{} {name}={size}{on}", STAGES[stage]));
                wanted[stage].push(name);
            }
        }
        items.join(", ")
    })
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn deeds(stages: usize) -> impl Strategy<Value = Deed> {
    (
        0..stages,
        select(&NAMES[..]),
        1_u8..3,
        any::<(bool, bool)>(),
    )
        .prop_map(|(stage, name, size, (put, marked))| match put {
            true => Deed::Put(stage, name, size, marked),
            false => Deed::Remove(stage, name),
        })
}

fn faults() -> impl Strategy<Value = Fault> {
    let calls = select(&["+", "~", "-", "?", "intend"][..]);
    let stages = option::of(select(&STAGES[..]));
    (calls, stages, select(&CLASSES[..]), any::<bool>()).prop_map(|(call, stage, class, lands)| {
        let call = stage.map_or(call.to_owned(), |stage| format!("{call} {stage}"));
        (call, class, if lands { Now } else { Never })
    })
}

#[derive(Clone, Debug)]
enum Event {
    /// Somebody edits the object.
    Edit(String),
    /// Somebody does something outside.
    Deed(Deed),
    /// We run, and something goes wrong.
    Run {
        faults: Vec<Fault>,
        dies_at: Option<usize>,
        overtaken_after: Option<usize>,
        meanwhile: Option<(usize, Deed)>,
    },
    /// All is well for a while.
    Recovery,
}

fn events() -> impl Strategy<Value = Event> {
    let run = (
        vec(faults(), 0..3),
        option::of(1_usize..30),
        option::of(0_usize..10),
        option::of((1_usize..20, deeds(TARGET))),
    );
    prop_oneof![
        2 => specs().prop_map(Event::Edit),
        2 => deeds(STAGES.len()).prop_map(Event::Deed),
        4 => run.prop_map(|(faults, dies_at, overtaken_after, meanwhile)| Event::Run {
            faults,
            dies_at,
            overtaken_after,
            meanwhile
        }),
        1 => Just(Event::Recovery),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// The world itself watches over each write: that the thing is ours, that it passed the gate,
    /// that a create with a record is intended and is not the second.
    #[test]
    fn whatever_happened_what_is_ours_is_as_wanted_and_what_is_not_was_never_touched(
        first in specs(),
        events in vec(events(), 1..8),
    ) {
        let world = World::default();
        let mut wanted = first;
        for event in events {
            match event {
                Event::Edit(edited) => wanted = edited,
                Event::Deed(deed) => world.happen(deed),
                Event::Recovery => world.recovers(),
                Event::Run { faults, dies_at, overtaken_after, meanwhile } => {
                    {
                        let mut state = world.state();
                        (state.faults, state.dies_at) = (faults, dies_at);
                        (state.overtaken_after, state.meanwhile) = (overtaken_after, meanwhile);
                    }
                    world.run(&spec(&wanted));
                }
            }
        }
        world.recovers();
        let undisturbed = world.clone();
        undisturbed.others_leave();
        undisturbed.settles(&wanted);

        let report = world.run(&spec(&wanted)).unwrap();
        let failed: Vec<_> = report.failed.iter().map(|it| (it.stage, it.key.clone().unwrap())).collect();
        for (_, _, class) in classes(&report) {
            prop_assert!(matches!(class, Class::Conflict | Waiting(WaitingOn::Prerequisite) | Rejected));
        }
        let ours = world.ours();
        for item in wanted.split(", ").filter(|item| !item.is_empty()) {
            let (thing, _) = item.split_once('=').unwrap();
            let (stage, name) = thing.split_once(' ').unwrap();
            let in_trouble = failed.iter().any(|(at, key)| (*at, key.as_str()) == (stage, name));
            prop_assert!(in_trouble || ours.contains(item), "{item} is neither there nor reported");
        }
        world.recovers();
        world.settles("");
    }
}

proptest! {
    #[test]
    fn nothing_is_deleted_that_something_is_on_while_what_failed_may_pass(
        from in specs(),
        to in specs(),
        mut faults in vec(faults(), 1..3),
    ) {
        faults.retain(|(_, class, _)| *class != Rejected);
        let world = World::with(&from);
        world.state().faults = faults;
        world.run(&spec(&to)).unwrap();
        prop_assert_eq!(world.state().in_use, 0);
        world.recovers();
        world.settles(&to);
    }

    #[test]
    fn a_plan_says_what_a_run_does_and_a_second_run_does_nothing(from in specs(), to in specs()) {
        let world = World::with(&from);
        let planned = world.plan(&spec(&to));
        let report = world.run(&spec(&to)).unwrap();
        prop_assert_eq!(planned, report.planned.iter().map(ToString::to_string).collect::<Vec<_>>());
        prop_assert_eq!(report.made.len(), report.planned.len());
        world.settles(&to);
        world.run(&spec(&to)).unwrap();
        prop_assert_eq!(world.writes(), [""; 0]);
        prop_assert_eq!(world.state().calls.len(), STAGES.len());
    }
}
