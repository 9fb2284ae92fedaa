//! What Slack refuses is not lost; what nobody knows is not told twice; what is gone is told anew.

use super::*;
use tokio::time::advance;

#[tokio::test(start_paused = true)]
async fn what_is_certainly_refused_is_not_lost() {
    for mood in [Mood::Throttled, Mood::Undone, Mood::Rejected, Mood::Denied] {
        // At the gate, and at Slack.
        for at in [1, 2] {
            let memory = Memory::bot();
            memory.meets(std::iter::repeat_n(Mood::Fine, at).chain([mood]));
            let mut notifier = memory.notifier();
            let error = tell_in_vain(&memory, &mut notifier, &started()).await;
            assert_eq!(seen(&memory), Vec::<String>::new());
            assert!(
                memory
                    .world()
                    .saved
                    .as_ref()
                    .is_none_or(|saved| saved.told.is_none())
            );
            if let Some(wait) = error.wait.filter(|_| at == 2) {
                let calls = memory.world().calls;
                advance(wait / 3).await;
                let again = tell_in_vain(&memory, &mut notifier, &started()).await;
                assert_eq!(
                    (again.class, again.wait),
                    (error.class, Some(wait - wait / 3))
                );
                assert_eq!(memory.world().calls, calls, "Slack wants to be left alone");
                advance(wait - wait / 3).await;
            }
            tell_all(&memory, &mut notifier, &started()).await;
            assert_eq!(seen(&memory), [START]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_in_doubt_is_not_posted_again_and_its_end_is_posted_once() {
    for (mood, there) in [(Mood::CutAfter, true), (Mood::CutBefore, false)] {
        let memory = Memory::bot();
        memory.meets([Mood::Fine, Mood::Fine, mood]);
        let mut notifier = memory.notifier();
        let error = tell_in_vain(&memory, &mut notifier, &started()).await;
        assert_eq!(error.class, Class::OutcomeUnknown);
        assert!(error.message.contains("not posted again"), "{error}");
        let left = seen(&memory);
        assert_eq!(left.len(), usize::from(there));
        let calls = memory.world().calls;
        for progress in ["", "1 of 2", "2 of 2"] {
            let running = run(Phase::Started, progress, &["a"]);
            tell_all(&memory, &mut notifier, &running).await;
        }
        assert_eq!(memory.world().calls, calls);
        assert_eq!(seen(&memory), left);
        let over = run(Phase::Completed, "", &["a"]);
        for _ in 0..2 {
            tell_all(&memory, &mut notifier, &over).await;
            let end = [END, "  a"].map(str::to_owned);
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
        tell_all(&memory, &mut notifier, &started()).await;
        memory.world().refuses = Some(code);
        advance(EDIT_EVERY).await;
        let running = run(Phase::Started, "1 of 2", &["a"]);
        let told = tell(&memory, &mut notifier, &running).await.unwrap();
        if !gone {
            assert_eq!(told.unwrap_err().class, Class::Rejected, "{code}");
            memory.world().refuses = None;
        } else {
            assert_eq!(told, Ok(None), "{code}");
        }
        let over = run(Phase::Completed, "", &["a"]);
        tell_all(&memory, &mut notifier, &over).await;
        let expected = &[START, END, "  a"][usize::from(!gone)..];
        assert_eq!(seen(&memory), expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_stays_where_it_began_unless_that_is_no_more() {
    for (there, expected) in [
        (true, &[("C1", END)][..]),
        (false, &[("C1", START), ("C2", END)]),
    ] {
        let memory = Memory::bot();
        let mut notifier = memory.notifier();
        tell_all(&memory, &mut notifier, &started()).await;
        let moved = memory.moved("C2");
        moved.world().refuses = Some("channel_not_found").filter(|_| !there);
        tell_all(&moved, &mut notifier, &run(Phase::Completed, "", &[])).await;
        let messages = memory.messages();
        let messages = messages
            .iter()
            .map(|it| (&*it.channel, it.texts.last().unwrap().as_str()));
        assert_eq!(messages.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_lately_is_not_asked_again() {
    let memory = Memory::bot();
    memory.world().refused = Some(Error::new(Class::Denied, "refused lately"));
    let error = tell_in_vain(&memory, &mut memory.notifier(), &started()).await;
    assert_eq!(error.class, Class::Denied);
    let world = memory.world();
    assert_eq!((world.calls, &world.saved), (0, &None));
}
