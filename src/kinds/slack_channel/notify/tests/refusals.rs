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
            assert!(!format!("{:?}", memory.place().saved).contains("Intended"));
            if let Some(wait) = error.wait {
                let calls = memory.place().calls;
                advance(wait / 3).await;
                let again = tell_in_vain(&memory, &mut notifier, &started()).await;
                assert_eq!(
                    (again.class, again.wait),
                    (error.class, Some(wait - wait / 3))
                );
                assert_eq!(memory.place().calls, calls, "Slack wants to be left alone");
                advance(wait - wait / 3).await;
            }
            tell_all(&memory, &mut notifier, &started()).await;
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
        let error = tell_in_vain(&memory, &mut notifier, &started()).await;
        assert_eq!(error.class, Class::Cut);
        assert!(error.message.contains("not posted again"), "{error}");
        let left = seen(&memory);
        assert_eq!(left.len(), usize::from(there));
        let calls = memory.place().calls;
        for progress in ["", "1 of 2", "2 of 2"] {
            let running = run(Phase::Started, progress, &["a"]);
            tell_all(&memory, &mut notifier, &running).await;
        }
        assert_eq!(memory.place().calls, calls);
        assert_eq!(seen(&memory), left);
        let over = run(Phase::Completed, "", &["a"]);
        for _ in 0..2 {
            tell_all(&memory, &mut notifier, &over).await;
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
        tell_all(&memory, &mut notifier, &started()).await;
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
        tell_all(&memory, &mut notifier, &over).await;
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
        tell_all(&memory, &mut notifier, &started()).await;
        let moved = memory.moved_to("C2");
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

#[tokio::test(start_paused = true)]
async fn what_was_refused_lately_is_not_asked_again() {
    let memory = Memory::bot();
    let mut book = memory.clone();
    let refused = Run {
        id: "refused".into(),
        ..started()
    };
    let told = memory
        .notifier()
        .tell_by(&memory, &refused, &mut book, &Everything)
        .await;
    assert_eq!(told.unwrap_err().class, Class::Denied);
    let place = memory.place();
    assert_eq!((place.calls, place.saved.len()), (0, 0));
}
