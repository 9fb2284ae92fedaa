//! From what came of a SlackChannel to its status, and whether messages get into the channel. Pure, but for what
//! [`View::of`] takes from the watch.

use super::{
    Slack,
    desired::{Configuration, Detail},
    stages::{Channel, Details, IncomingWebhook, Member, Sighting},
};
use crate::{
    api::{SlackChannel, SlackChannelStatus, StoredText, Workspace},
    engine::{
        error::{Class, Error, WaitingOn},
        plan::Owner,
        stage::{Report, Seen, Stage as _},
    },
    kinds::{ConditionUpdate, system::Visit},
};

/// The condition that says whether the bot can post into the channel.
pub const CHANNEL_READY: &str = "ChannelReady";

/// The condition that says whether the incoming webhook takes messages.
pub const WEBHOOK_READY: &str = "WebhookReady";

/// What was found in one place.
pub struct View<'a> {
    /// Why one could not even get there.
    pub unreachable: Option<&'a Error>,
    /// What came of it.
    pub report: &'a Report,
    /// The channel as it was seen last, whoever holds it.
    pub channel: Option<&'a Configuration>,
    /// Why the bot cannot post, though it is in the channel.
    pub cannot_post: Option<Error>,
    /// Whether it could be seen what the webhook says.
    pub webhook_was_asked: bool,
}

impl<'a> View<'a> {
    /// Of the place where the object belongs.
    pub fn of(visit: &'a Visit<SlackChannel, Slack>) -> Self {
        let stages = visit.stages.as_ref();
        let channel = stages.and_then(|stages| stages.channel.as_ref());
        let seen = channel.and_then(|it| it.channel.seen.as_ref()?.found.values().next());
        Self {
            unreachable: visit.report.reached.as_ref().err(),
            report: &visit.report.report,
            channel: seen.map(|found| &found.value),
            cannot_post: channel.and_then(|it| it.shared.cannot_post()),
            webhook_was_asked: stages.is_some_and(|it| it.webhook.seen.is_some()),
        }
    }

    /// What failed first in any of these stages.
    fn failed(&self, stages: &[&str]) -> Option<&Error> {
        let mut failed = self.report.failed.iter();
        let first = failed.find(|failure| stages.contains(&failure.stage));
        first.map(|failure| &failure.error)
    }

    /// Whether messages can be posted into the channel; `None` where what is in the way passes by itself.
    pub fn channel_ready(&self) -> Option<ConditionUpdate> {
        let failed = self.failed(&[Channel::NAME, Member::NAME]);
        let (holds, reason, message) = match (self.unreachable.or(failed), self.channel) {
            (Some(error), Some(seen)) if seen.archived => (false, "Archived", &*error.message),
            (Some(error), _) if error.class.passes() => return None,
            (Some(error), _) => {
                let reason = match error.class {
                    Class::Denied => "AccessDenied",
                    Class::Waiting(WaitingOn::Secret | WaitingOn::Never) => "WaitingForSecret",
                    Class::Conflict => "NameTaken",
                    _ => "NotAsDeclared",
                };
                (false, reason, &*error.message)
            }
            (None, None) => (false, "Missing", "the channel is not there"),
            (None, Some(_)) => match &self.cannot_post {
                Some(error) => (false, "CannotPost", &*error.message),
                None => (true, "Available", ""),
            },
        };
        condition(CHANNEL_READY, holds, reason, message)
    }

    /// The same of the webhook.
    pub fn webhook_ready(&self) -> Option<ConditionUpdate> {
        let (holds, reason, message) = match self.failed(&[IncomingWebhook::NAME]) {
            Some(error) if error.class.passes() => return None,
            Some(error) if matches!(error.class, Class::Waiting(_)) => {
                (false, "WaitingForSecret", &*error.message)
            }
            Some(error) => (false, "Revoked", &*error.message),
            None if self.webhook_was_asked => (true, "TakesMessages", ""),
            None => return None,
        };
        condition(WEBHOOK_READY, holds, reason, message)
    }
}

fn condition(
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: &str,
) -> Option<ConditionUpdate> {
    Some(ConditionUpdate::new(type_, holds, reason, message))
}

/// What it says of the channel that what the spec refers to could not be read; `None` where that passes by itself.
pub fn unread(error: &Error) -> Option<ConditionUpdate> {
    let reason = match error.class {
        class if class.passes() => return None,
        Class::Waiting(WaitingOn::Secret | WaitingOn::Never) => "WaitingForSecret",
        _ => "AccessDenied",
    };
    condition(CHANNEL_READY, false, reason, &error.message)
}

/// What Slack made of the texts that the spec asks for, for status.
pub fn texts(stage: &Details, seen: &Seen<Details>) -> Vec<StoredText> {
    let wanted = stage.desired.wanted.iter();
    let texts = wanted.filter(|(detail, _)| **detail != Detail::Name);
    let texts = texts.filter_map(|(detail, wanted)| {
        Some(StoredText {
            about: detail.to_string(),
            text: wanted.text.clone(),
            stored: stage.stored(*detail, seen)?,
        })
    });
    texts.collect()
}

/// The channel as it was seen, into status; `sighting` is absent where one could not look. `invited`: who of
/// those that the spec names has been invited.
pub fn note(
    is_under_way: bool,
    sighting: Option<&Sighting>,
    invited: Vec<String>,
    status: &mut SlackChannelStatus,
) {
    let Some(seen) = sighting else { return };
    let (team, owner) = (&seen.team, &seen.owner);
    if !is_under_way {
        // It was made and recorded, or refused for good: nothing is under way any more.
        status.creating = None;
    }
    status.workspace = Some(Workspace {
        team_id: team.team_id.clone(),
        name: team.team.clone(),
        url: team.url.clone(),
    });
    match &seen.channel {
        Some(channel) if *owner == Owner::Us => {
            let url = team.url.trim_end_matches('/');
            status.link = Some(format!("{url}/archives/{}", channel.id));
            status.channel_id = Some(channel.id.clone());
            status.channel_created = Some(channel.created);
            status.channel = Some(channel.name.clone());
            let members = channel.members.map(i32::try_from);
            status.members = members.and_then(Result::ok);
            status.invited = invited;
        }
        // Another object looks after it; the id is kept for when that one is deleted.
        Some(channel) if status.channel_id.as_ref() == Some(&channel.id) => {}
        // That of somebody else, or none: what status says of one would not be true.
        _ => {
            status.channel_id = None;
            status.channel_created = None;
            status.channel = None;
            status.members = None;
            status.link = None;
            status.invited.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{Creating, Visibility},
        clients::slack::{Channel as SlacksChannel, Workspace as SlacksWorkspace},
        engine::stage::Failure,
        kinds::slack_channel::stages::Details,
    };
    use std::sync::Arc;

    const WHY: &str = "why, and what to do";

    fn error(class: Class) -> Error {
        Error::new(class, WHY)
    }

    /// What came of a run in which these stages failed.
    fn report(failed: &[(&'static str, Class)]) -> Report {
        let failed = failed.iter().map(|(stage, class)| Failure {
            stage,
            key: None,
            error: error(*class),
            deletes: false,
            blocked: false,
        });
        Report {
            failed: failed.collect(),
            ..Report::default()
        }
    }

    /// A condition in short: its reason, whether it holds, its message.
    fn told(update: Option<ConditionUpdate>, type_: &str) -> Option<(&'static str, bool, String)> {
        let update = update?;
        assert_eq!(update.type_, type_);
        Some((update.reason, update.holds.unwrap(), update.message))
    }

    #[test]
    fn whether_the_bot_can_post_and_why_not() {
        let channel = |archived| Configuration {
            visibility: Visibility::Public,
            archived,
        };
        let (open, archived) = (Some(channel(false)), Some(channel(true)));
        let at = |stage, class| vec![(stage, class)];
        let is = |reason, holds, message: &str| Some((reason, holds, message.to_owned()));
        let not = |reason| is(reason, false, WHY);
        let (channel, member) = (Channel::NAME, Member::NAME);
        let missing = "the channel is not there";
        let prerequisite = Class::Waiting(WaitingOn::Prerequisite);
        let two = vec![(channel, Class::Conflict), (member, Class::Unavailable)];
        for (unreachable, failed, seen, cannot_post, expected) in [
            (None, vec![], &open, false, is("Available", true, "")),
            // Its texts and who is invited keep no message from it.
            (
                None,
                at(Details::NAME, Class::Denied),
                &open,
                false,
                is("Available", true, ""),
            ),
            (None, vec![], &open, true, not("CannotPost")),
            (None, vec![], &None, true, is("Missing", false, missing)),
            (
                None,
                at(channel, Class::Denied),
                &None,
                false,
                not("AccessDenied"),
            ),
            (
                None,
                at(member, Class::Denied),
                &open,
                true,
                not("AccessDenied"),
            ),
            (
                None,
                at(channel, Class::Conflict),
                &open,
                false,
                not("NameTaken"),
            ),
            (
                None,
                at(channel, Class::Rejected),
                &open,
                false,
                not("NotAsDeclared"),
            ),
            (
                None,
                at(member, prerequisite),
                &open,
                false,
                not("NotAsDeclared"),
            ),
            // What is archived is so whatever else there is about it.
            (
                None,
                at(channel, Class::Rejected),
                &archived,
                false,
                not("Archived"),
            ),
            (
                None,
                at(channel, Class::Unavailable),
                &archived,
                false,
                not("Archived"),
            ),
            (None, at(channel, Class::Unavailable), &open, true, None),
            (None, at(channel, Class::Throttled), &None, false, None),
            // The first that failed decides.
            (None, two, &open, false, not("NameTaken")),
            (
                Some(Class::Denied),
                vec![],
                &None,
                false,
                not("AccessDenied"),
            ),
            (Some(Class::OutcomeUnknown), vec![], &None, false, None),
        ] {
            let unreachable = unreachable.map(error);
            let view = View {
                unreachable: unreachable.as_ref(),
                report: &report(&failed),
                channel: seen.as_ref(),
                cannot_post: cannot_post.then(|| error(Class::Denied)),
                webhook_was_asked: false,
            };
            let found = told(view.channel_ready(), CHANNEL_READY);
            assert_eq!(
                found, expected,
                "{unreachable:?} {failed:?} {seen:?} {cannot_post}"
            );
        }
    }

    #[test]
    fn whether_the_webhook_takes_messages_and_why_not() {
        const HOOK: &str = IncomingWebhook::NAME;
        let not = |reason| Some((reason, false, WHY.to_owned()));
        let takes = Some(("TakesMessages", true, String::new()));
        for (failed, webhook_was_asked, expected) in [
            (vec![], true, takes.clone()),
            (vec![], false, None),
            (vec![(Channel::NAME, Class::Denied)], true, takes),
            (vec![(HOOK, Class::Rejected)], true, not("Revoked")),
            (vec![(HOOK, Class::Denied)], false, not("Revoked")),
            (
                vec![(HOOK, Class::Waiting(WaitingOn::Secret))],
                true,
                not("WaitingForSecret"),
            ),
            (vec![(HOOK, Class::Throttled)], true, None),
            (vec![(HOOK, Class::Unavailable)], false, None),
        ] {
            let view = View {
                unreachable: None,
                report: &report(&failed),
                channel: None,
                cannot_post: None,
                webhook_was_asked,
            };
            let found = told(view.webhook_ready(), WEBHOOK_READY);
            assert_eq!(found, expected, "{failed:?} {webhook_was_asked}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_told_unless_it_passes() {
        for (class, reason) in [
            (Class::Waiting(WaitingOn::Secret), Some("WaitingForSecret")),
            (Class::Denied, Some("AccessDenied")),
            (Class::Unavailable, None),
            (Class::Throttled, None),
        ] {
            let found = told(unread(&error(class)), CHANNEL_READY);
            let expected = reason.map(|reason| (reason, false, WHY.to_owned()));
            assert_eq!(found, expected, "{class:?}");
        }
    }

    /// A channel of another id, found before.
    fn before() -> SlackChannelStatus {
        SlackChannelStatus {
            channel: Some("old".into()),
            channel_id: Some("C0".into()),
            channel_created: Some(1),
            members: Some(1),
            link: Some("https://vsu.slack.com/archives/C0".into()),
            invited: vec!["U1".into()],
            creating: Some(Creating {
                channel: "alerts".into(),
                since: 2,
            }),
            ..SlackChannelStatus::default()
        }
    }

    fn sighting(id: Option<&str>, owner: Owner) -> Sighting {
        let channel = id.map(|id| {
            Arc::new(SlacksChannel {
                id: id.into(),
                name: "alerts".into(),
                is_private: false,
                is_archived: false,
                is_member: true,
                creator: "UBOT".into(),
                created: 3,
                topic: String::new(),
                purpose: String::new(),
                members: Some(7),
            })
        });
        Sighting {
            team: Arc::new(SlacksWorkspace {
                team_id: "T1".into(),
                team: "vsu".into(),
                url: "https://vsu.slack.com/".into(),
                user_id: "UBOT".into(),
                bot_id: None,
                scopes: None,
            }),
            channel,
            owner,
        }
    }

    #[test]
    fn the_channel_comes_into_status_as_it_was_seen() {
        let workspace = Some(Workspace {
            team_id: "T1".into(),
            name: "vsu".into(),
            url: "https://vsu.slack.com/".into(),
        });
        let other = || Owner::Other("people".into());
        let seen = SlackChannelStatus {
            workspace: workspace.clone(),
            channel: Some("alerts".into()),
            channel_id: Some("C1".into()),
            channel_created: Some(3),
            members: Some(7),
            link: Some("https://vsu.slack.com/archives/C1".into()),
            invited: vec!["U2".into()],
            ..SlackChannelStatus::default()
        };
        let nothing = SlackChannelStatus {
            workspace: workspace.clone(),
            ..SlackChannelStatus::default()
        };
        let another_has_it = SlackChannelStatus {
            workspace,
            creating: None,
            ..before()
        };
        for (sighting, expected) in [
            (Some(sighting(Some("C1"), Owner::Us)), seen),
            (Some(sighting(Some("C0"), other())), another_has_it),
            (Some(sighting(Some("C1"), other())), nothing.clone()),
            (Some(sighting(None, Owner::Nobody)), nothing),
            // Whoever could not look knows no better.
            (None, before()),
        ] {
            let mut status = before();
            let invited = vec!["U2".into()];
            note(false, sighting.as_ref(), invited, &mut status);
            assert_eq!(status, expected);
        }
    }

    #[test]
    fn what_may_have_been_made_is_looked_for_again() {
        for is_under_way in [true, false] {
            let mut status = before();
            let seen = sighting(None, Owner::Nobody);
            note(is_under_way, Some(&seen), Vec::new(), &mut status);
            assert_eq!(status.creating.is_some(), is_under_way);
        }
    }
}
