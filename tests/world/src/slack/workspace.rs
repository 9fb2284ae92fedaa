//! One workspace: who is in it, what people do there, and what came of the calls to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::state::{Channel, HookState, Message, Room, Team, Token, Webhook, id, random};
use super::{Call, Filter, Inner, Mark, Shared, Trouble};

/// A workspace of [`super::Slack`], as cheap as a test needs it. Clones are the same workspace.
///
/// Where a function takes a `channel`, it is the id or the name. What is not there makes it panic: a test that means another
/// channel or token than there is must not go on.
#[derive(Clone)]
pub struct Workspace {
    shared: Arc<Shared>,
    url: String,
    id: String,
    name: String,
}

impl Workspace {
    pub(super) fn new(shared: Arc<Shared>, url: String, id: String, name: String) -> Self {
        Self {
            shared,
            url,
            id,
            name,
        }
    }

    fn look<T>(&self, which: impl FnOnce(&Team) -> T) -> T {
        self.shared
            .look(|inner| which(&inner.state.teams[&self.id]))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Team) -> T) -> T {
        self.shared
            .change(|inner| match inner.state.teams.get_mut(&self.id) {
                Some(team) => change(team),
                None => panic!("the workspace {} is gone", self.name),
            })
    }

    fn in_room<T>(&self, channel: &str, change: impl FnOnce(&mut Room) -> T) -> T {
        self.change(|team| match team.room_called_mut(channel) {
            Some(room) => change(room),
            None => panic!("there is no channel {channel}"),
        })
    }

    fn with_token<T>(&self, token: &str, change: impl FnOnce(&mut Token) -> T) -> T {
        self.change(|team| match team.tokens.get_mut(token) {
            Some(token) => change(token),
            None => panic!("{} handed out no such token", self.name),
        })
    }

    /// `T…`
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where people find it, as auth.test says: `https://<name>.slack.com/`.
    pub fn url(&self) -> String {
        self.look(Team::url)
    }

    // Bots and their tokens.

    /// A new app with a bot that has `scopes`; its token, `xoxb-…`, unlike any other.
    pub fn bot(&self, scopes: &[&str]) -> String {
        self.bot_named("campanile", scopes)
    }

    /// As [`Workspace::bot`], with a name that people see at its messages.
    pub fn bot_named(&self, name: &str, scopes: &[&str]) -> String {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.change(|team| team.add_bot(name, scopes))
    }

    /// Another token of the same bot with the same scopes, as reissuing gives; the old one goes on until [`Workspace::revoke`].
    pub fn reissue(&self, token: &str) -> String {
        let token = self.with_token(token, |token| token.clone());
        self.change(|team| {
            team.add_token(Token {
                dead: None,
                ..token
            })
        })
    }

    /// The bot's user, `U…`.
    pub fn bot_user(&self, token: &str) -> String {
        self.with_token(token, |token| token.user.clone())
    }

    /// From now on `token_revoked`.
    pub fn revoke(&self, token: &str) {
        self.with_token(token, |token| token.dead = Some("token_revoked"));
    }

    /// Uninstalls the app: from now on `account_inactive`, and the bot is in no channel any more.
    pub fn uninstall(&self, token: &str) {
        let user = self.with_token(token, |token| {
            token.dead = Some("account_inactive");
            token.user.clone()
        });
        self.change(|team| {
            for room in &mut team.rooms {
                room.channel.members.remove(&user);
            }
        });
    }

    /// Undoes [`Workspace::revoke`] and [`Workspace::uninstall`], but for the channels.
    pub fn restore(&self, token: &str) {
        self.with_token(token, |token| token.dead = None);
    }

    /// What the app is granted from now on.
    pub fn set_scopes(&self, token: &str, scopes: &[&str]) {
        let scopes: BTreeSet<_> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.with_token(token, |token| token.scopes = scopes);
    }

    // People.

    /// A new person with that e-mail; the id, `U…`.
    pub fn add_user(&self, email: &str) -> String {
        self.change(|team| team.add_user(email))
    }

    /// Deactivates a person: no longer found, cannot be invited.
    pub fn deactivate(&self, user: &str) {
        self.change(|team| match team.users.get_mut(user) {
            Some(user) => user.deactivated = true,
            None => panic!("there is no user {user}"),
        });
    }

    // What people do to channels.

    /// A person, the owner, makes a public channel, in which no bot is; its id.
    pub fn create_channel(&self, name: &str) -> String {
        self.create(name, false)
    }

    /// A person makes a private channel, which no bot sees; its id.
    pub fn create_private_channel(&self, name: &str) -> String {
        self.create(name, true)
    }

    fn create(&self, name: &str, private: bool) -> String {
        self.change(|team| {
            assert!(
                team.room_called(name).is_none(),
                "there is a channel {name} already"
            );
            let owner = team.owner.clone();
            team.add_room(name, private, &owner, Timestamp::now())
                .channel
                .id
                .clone()
        })
    }

    /// A person archives it, which takes the bots out.
    pub fn archive(&self, channel: &str) {
        let id = self.in_room(channel, |room| room.channel.id.clone());
        self.change(|team| team.close(&id));
    }

    /// A person unarchives it; the bots stay out.
    pub fn unarchive(&self, channel: &str) {
        self.in_room(channel, |room| room.channel.is_archived = false);
    }

    /// A person renames it.
    pub fn rename(&self, channel: &str, name: &str) {
        self.change(|team| {
            assert!(
                team.room_called(name).is_none(),
                "there is a channel {name} already"
            )
        });
        self.in_room(channel, |room| room.channel.name = name.to_owned());
    }

    /// A person changes its topic.
    pub fn set_topic(&self, channel: &str, topic: &str) {
        let owner = self.look(|team| team.owner.clone());
        self.in_room(channel, |room| {
            room.channel.topic = topic.to_owned();
            room.topic_set = Some((owner, Timestamp::now()));
        });
    }

    /// A person changes its purpose.
    pub fn set_purpose(&self, channel: &str, purpose: &str) {
        let owner = self.look(|team| team.owner.clone());
        self.in_room(channel, |room| {
            room.channel.purpose = purpose.to_owned();
            room.purpose_set = Some((owner, Timestamp::now()));
        });
    }

    /// A person invites somebody, a person or a bot by its user: `U…`.
    pub fn invite(&self, channel: &str, user: &str) {
        self.in_room(channel, |room| room.channel.members.insert(user.to_owned()));
    }

    /// A person removes somebody, or somebody leaves: `U…`.
    pub fn kick(&self, channel: &str, user: &str) {
        self.in_room(channel, |room| room.channel.members.remove(user));
    }

    /// A person removes all bots from it.
    pub fn remove_bot(&self, channel: &str) {
        let bots: BTreeSet<String> = self.look(|team| {
            let bots = team.users.keys().filter(|user| team.is_bot(user));
            bots.cloned().collect()
        });
        self.in_room(channel, |room| {
            room.channel.members.retain(|user| !bots.contains(user))
        });
    }

    /// A person makes it private; who is in it stays.
    pub fn make_private(&self, channel: &str) {
        self.in_room(channel, |room| room.channel.is_private = true);
    }

    /// A person makes it public.
    pub fn make_public(&self, channel: &str) {
        self.in_room(channel, |room| room.channel.is_private = false);
    }

    /// Deletes it with its messages; its name is free again.
    pub fn delete_channel(&self, channel: &str) {
        let id = self.in_room(channel, |room| room.channel.id.clone());
        self.change(|team| team.rooms.retain(|room| room.channel.id != id));
    }

    /// Gives it another id, as when it is shared with another company or converted: the new one. The old one is `channel_not_found`
    /// from now on; webhooks follow.
    pub fn change_id(&self, channel: &str) -> String {
        let new = id('C');
        self.in_room(channel, |room| room.channel.id.clone_from(&new));
        new
    }

    // Webhooks.

    /// A new incoming webhook to `channel`; its URL, unlike any other, is the secret.
    pub fn webhook(&self, channel: &str) -> String {
        let room = self.in_room(channel, |room| room.serial);
        let hook = Webhook {
            id: id('B'),
            secret: random(24),
            room,
            state: HookState::Alive,
        };
        let url = format!(
            "{}/services/{}/{}/{}",
            self.url, self.id, hook.id, hook.secret
        );
        self.change(|team| team.webhooks.push(hook));
        url
    }

    /// Deletes it: from now on 404 `no_service`.
    pub fn revoke_webhook(&self, url: &str) {
        self.hook(url, HookState::Deleted);
    }

    /// Takes its token away: from now on 403 `invalid_token`.
    pub fn disable_webhook(&self, url: &str) {
        self.hook(url, HookState::Disabled);
    }

    /// Undoes [`Workspace::revoke_webhook`] and [`Workspace::disable_webhook`].
    pub fn restore_webhook(&self, url: &str) {
        self.hook(url, HookState::Alive);
    }

    fn hook(&self, url: &str, state: HookState) {
        let secret = url.rsplit('/').next().unwrap_or_default();
        self.change(
            |team| match team.webhooks.iter_mut().find(|hook| hook.secret == secret) {
                Some(hook) => hook.state = state,
                None => panic!("{} has no such webhook", self.name),
            },
        );
    }

    // What there is.

    /// The channel of that id or name, if there is one, whoever may see it.
    pub fn channel(&self, id_or_name: &str) -> Option<Channel> {
        self.look(|team| {
            team.room_called(id_or_name)
                .map(|room| room.channel.clone())
        })
    }

    /// All channels, in the order in which they were made; `general` is the first.
    pub fn channels(&self) -> Vec<Channel> {
        self.look(|team| team.rooms.iter().map(|room| room.channel.clone()).collect())
    }

    /// What was posted to a channel and is still there, replies included, in the order in which it came.
    pub fn messages(&self, channel: &str) -> Vec<Message> {
        self.look(|team| match team.room_called(channel) {
            Some(room) => room.messages.clone(),
            None => panic!("there is no channel {channel}"),
        })
    }

    /// Waits until `which` finds what it looks for; fails, showing the workspace, when `limit` is over.
    pub async fn wait<T>(&self, limit: Duration, which: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let what = || self.shared.look(|inner| inner.told_of(&self.id));
        self.shared.wait(limit, || which(self), what).await
    }

    /// Waits for the first message in `channel` that `which` is true of.
    pub async fn wait_for_message(
        &self,
        channel: &str,
        limit: Duration,
        which: impl Fn(&Message) -> bool,
    ) -> Result<Message> {
        self.wait(limit, |workspace| {
            workspace.messages(channel).into_iter().find(&which)
        })
        .await
    }

    // What was called.

    /// The calls of `method` ([`super::WEBHOOK`] for webhooks), in the order in which they were answered.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.calls_since(Mark(0), method)
    }

    /// As [`Workspace::calls`], since `mark`.
    pub fn calls_since(&self, mark: Mark, method: &str) -> Vec<Call> {
        let mut calls = self.all_calls_since(mark);
        calls.retain(|call| call.method == method);
        calls
    }

    /// Every call to this workspace since `mark`.
    pub fn all_calls_since(&self, Mark(begin): Mark) -> Vec<Call> {
        let is_ours = |call: &&Call| call.workspace == self.id;
        self.shared.look(|inner| {
            let calls = inner.calls.get(begin..).unwrap_or_default();
            calls.iter().filter(is_ours).cloned().collect()
        })
    }

    /// Now, for [`Workspace::calls_since`].
    pub fn mark(&self) -> Mark {
        self.shared.look(|inner| Mark(inner.calls.len()))
    }

    /// What broke the contract in this workspace: `<workspace> <method> request: <what>`.
    pub fn violations(&self) -> Vec<String> {
        self.shared.look(|inner| {
            let ours = inner
                .violations
                .iter()
                .filter(|(workspace, _)| *workspace == self.id);
            ours.map(|(_, what)| what.clone()).collect()
        })
    }

    /// Forgets the violations of this workspace, for a test that has made and read them on purpose.
    pub fn take_violations(&self) -> Vec<String> {
        let taken = self.violations();
        self.shared.change(|inner| {
            inner
                .violations
                .retain(|(workspace, _)| *workspace != self.id)
        });
        taken
    }

    // What goes wrong.

    /// Makes calls of `method` ([`super::WEBHOOK`], `*` for anything) in this workspace meet `trouble`: the next `times`, or all until
    /// [`Workspace::lift`] where it is `None`.
    pub fn trouble(&self, method: &str, trouble: Trouble, times: impl Into<Option<usize>>) {
        self.set(method, self.into(), trouble, times.into());
    }

    /// As [`Workspace::trouble`], for calls about one channel: by its id or its name, or the name that it is to get.
    pub fn trouble_in(
        &self,
        channel: &str,
        method: &str,
        trouble: Trouble,
        times: impl Into<Option<usize>>,
    ) {
        self.set(method, self.filter(channel), trouble, times.into());
    }

    fn filter(&self, channel: &str) -> Filter {
        Filter {
            workspace: Some(self.id.clone()),
            channel: Some(channel.to_owned()),
        }
    }

    fn set(&self, method: &str, filter: Filter, trouble: Trouble, times: Option<usize>) {
        self.shared
            .change(|inner| inner.troubles.set(method, filter, trouble, times));
    }

    /// Ends what [`Workspace::trouble`] began for `method`, all of it with `*`.
    pub fn lift(&self, method: &str) {
        self.shared
            .change(|inner| inner.troubles.lift(method, &self.into()));
    }

    /// Ends what [`Workspace::trouble_in`] began.
    pub fn lift_in(&self, channel: &str, method: &str) {
        self.shared
            .change(|inner| inner.troubles.lift(method, &self.filter(channel)));
    }

    /// Keeps this workspace to Slack's published rates until [`Workspace::lift_rates`]: each method by the minute for each app, with a
    /// burst of a minute's worth; chat.postMessage and webhooks one a second in each channel. What is above it gets 429 and
    /// `Retry-After`. The numbers are in `methods.rs`.
    pub fn limit_rates(&self) {
        self.shared.change(|inner| {
            inner.limited.insert(self.id.clone());
        });
    }

    /// Ends what [`Workspace::limit_rates`] began.
    pub fn lift_rates(&self) {
        let lift = |inner: &mut Inner| {
            inner.limited.remove(&self.id);
            inner.rates.forget(&self.id);
        };
        self.shared.change(lift);
    }
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
