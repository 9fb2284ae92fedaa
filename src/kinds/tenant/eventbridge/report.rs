//! What status says of the paths into Slack, and whether alarms get there. Pure.

use super::{
    desired::{
        ENABLED, Given, ObservedConnection, PathKey, PathPart, PathValue, RuleKey, RuleValue,
    },
    stages::{AlarmRules, KnownPaths, SlackPaths},
};
use crate::{
    api::TenantObservabilityStatus,
    engine::{
        error::{Class, Error, WaitingOn},
        plan::{Desired, Owner, Value},
        rendering::few,
        stage::{Failure, Stage as _, StageRun},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

/// Whether something failed on the path to Slack, and so says nothing of the rest.
pub fn is_slacks(failure: &Failure) -> bool {
    let mut nouns = SlackPaths::NOUNS.iter().chain(AlarmRules::NOUNS);
    nouns.any(|noun| *noun == failure.stage)
}

/// Whether messages reach those who should hear them.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It could not be read.
    Unknown,
    /// Nobody is to hear anything, so there is nothing to say.
    ToNobody,
    /// What is in the way, a reason and a text each; nothing where they do.
    Known(Vec<(&'static str, String)>),
}

impl Delivery {
    /// That of both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (it, Self::ToNobody) | (Self::ToNobody, it) => it,
            // What is known to be wrong is told, whatever is not known.
            (Self::Unknown, Self::Known(troubles)) | (Self::Known(troubles), Self::Unknown)
                if !troubles.is_empty() =>
            {
                Self::Known(troubles)
            }
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Known(mut all), Self::Known(troubles)) => {
                all.extend(troubles);
                Self::Known(all)
            }
        }
    }
}

/// The paths into status: those that are wanted, and those of which something is left. What could not be read stays
/// as it was.
pub fn record(
    slack: &StageRun<SlackPaths>,
    rules: &StageRun<AlarmRules>,
    status: &mut TenantObservabilityStatus,
) {
    let events = &slack.stage.events;
    let noted = status.slack_paths.iter();
    let noted = noted.map(|entry| (PathKey::from(entry), Given::from(entry)));
    let mut paths: KnownPaths = noted.collect();
    paths.extend(events.known());
    if let (Some(seen), Some(seen_rules)) = (&slack.seen, &rules.seen) {
        let Desired {
            wanted, blocked, ..
        } = &slack.stage.desired;
        let ours = seen.iter().filter(|(_, found)| found.owner == Owner::Us);
        let kept = wanted.keys().chain(blocked.keys());
        let kept = kept.chain(ours.map(|(part, _)| part));
        let kept: BTreeSet<_> = kept.map(|part| events.path(part.name())).collect();
        let Desired {
            wanted, blocked, ..
        } = &rules.stage.desired;
        let left = seen_rules.iter().find_map(|(key, found)| match key {
            RuleKey::Rule(name) => {
                let stays = wanted.contains_key(key) || blocked.contains_key(key);
                (found.owner == Owner::Us && !stays).then_some(name)
            }
            RuleKey::Target(_) => None,
        });
        if let Some(rule) = left {
            // Without an entry nobody would look for it any more.
            if paths.is_empty() {
                paths.insert(events.path(rule), Given::default());
            }
        } else {
            paths.retain(|path, _| kept.contains(path));
        }
    }
    let entries = paths.into_iter().map(|(path, given)| path.entry(given));
    status.slack_paths = entries.collect();
}

/// Whether alarms get to Slack. `failed`: what failed in the run.
pub fn delivery(
    slack: &StageRun<SlackPaths>,
    rules: &StageRun<AlarmRules>,
    failed: &[Failure],
) -> Delivery {
    let Desired {
        wanted, blocked, ..
    } = &slack.stage.desired;
    if wanted.is_empty() && blocked.is_empty() {
        return Delivery::ToNobody;
    }
    let (Some(seen), Some(seen_rules)) = (&slack.seen, &rules.seen) else {
        let denied = |it: &&Failure| it.key.is_none() && it.error.class == Class::Denied;
        let mut blind = failed.iter().filter(|failure| is_slacks(failure));
        return blind.find(denied).map_or(Delivery::Unknown, |failure| {
            let message = failure.error.message.clone();
            Delivery::Known(vec![("SlackAccessDenied", message)])
        });
    };
    let channel = |name: &str| slack.stage.events.path(name).channel;
    let mut missing: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let (mut taken, mut barred, mut disabled) = (Vec::new(), Vec::new(), Vec::new());
    let mut differ = Vec::new();
    for (part, to) in wanted {
        let (noun, name) = (SlackPaths::noun(part), part.name());
        let connection = seen.get(&PathPart::Connection(name.to_owned()));
        let connection = connection.filter(|found| found.owner == Owner::Us);
        let connection = connection.and_then(|found| found.live.connection.as_ref());
        let shut = connection.filter(|connection| !connection.is_open());
        match (seen.get(part), part, shut) {
            (None, ..) => drop(missing.entry(channel(name)).or_default().insert(noun)),
            (Some(found), ..) if found.owner != Owner::Us => taken.push(format!("{noun} {name}")),
            (Some(_), PathPart::Connection(_), Some(connection)) => {
                barred.push(not_open(name, &channel(name), connection));
            }
            (Some(found), PathPart::Destination(_), None)
                if found.live.destination.as_ref().is_some_and(|it| !it.active) =>
            {
                let channel = channel(name);
                barred.push(format!(
                    "{noun} {name} (SlackChannel {channel}) is INACTIVE"
                ));
            }
            (Some(found), ..) => differ.extend(misleads(noun, name, to, &found.value)),
        }
    }
    for (key, to) in &rules.stage.desired.wanted {
        match (to, seen_rules.get(key)) {
            (RuleValue::Rule(_), Some(found)) if found.owner != Owner::Us => {
                taken.push(format!("{} {key}", AlarmRules::NAME));
            }
            (RuleValue::Rule(_), Some(found)) => match &found.value {
                RuleValue::Rule(rule) if rule.state != ENABLED => disabled.push(key.rule()),
                rule => differ.extend(misleads(AlarmRules::noun(key), key, to, rule)),
            },
            (RuleValue::Target(to), None) => {
                let rule = RuleKey::Rule(key.rule().to_owned());
                let lacks = if seen_rules.contains_key(&rule) {
                    key
                } else {
                    &rule
                };
                let lacking = missing.entry(channel(&to.destination)).or_default();
                lacking.insert(AlarmRules::noun(lacks));
            }
            (RuleValue::Target(_), Some(found)) => {
                differ.extend(misleads(AlarmRules::noun(key), key, to, &found.value));
            }
            // Its targets are not there either.
            (RuleValue::Rule(_), None) => {}
        }
    }
    let mut troubles = Vec::new();
    if !taken.is_empty() {
        let taken = taken.join(", ");
        let says = format!("{taken} does not carry our mark (see Ready)");
        troubles.push(("SlackConflict", says));
    }
    troubles.extend(held(blocked.values()));
    if !missing.is_empty() {
        let missing = missing.iter().map(|(channel, what)| {
            let what: Vec<_> = what.iter().copied().collect();
            format!("SlackChannel {channel} lacks its {}", what.join(", "))
        });
        let says = missing.collect::<Vec<_>>().join("; ");
        troubles.push((
            "SlackPathMissing",
            format!("alarms do not reach Slack: {says}"),
        ));
    }
    if !barred.is_empty() {
        troubles.push(("SlackNotAuthorized", barred.join("; ")));
    }
    let shut = wanted.values().filter_map(|to| match to {
        PathValue::Connection(to) => to.shut.as_deref(),
        PathValue::Destination(_) => None,
    });
    let shut: Vec<_> = shut.collect();
    if !shut.is_empty() {
        troubles.push(("ChannelNotReady", shut.join("; ")));
    }
    if !disabled.is_empty() {
        let says = format!("{} {} is disabled", AlarmRules::NAME, disabled.join(", "));
        troubles.push(("SlackRuleDisabled", says));
    }
    if !differ.is_empty() {
        let says = format!(
            "not as declared, so that alarms may not reach Slack: {}",
            few(differ.into_iter(), 5, ", ")
        );
        troubles.push(("SlackNotAsDeclared", says));
    }
    Delivery::Known(troubles)
}

/// The fields by which an alarm finds its way into Slack, of all parts of the way.
const LEADS: [&str; 10] = [
    "api destination",
    "connection",
    "endpoint",
    "foreign fields",
    "header",
    "message",
    "method",
    "pattern",
    "role",
    "secret",
];

/// A part that differs from what is wanted in a field by which an alarm finds its way.
fn misleads<V: Value>(noun: &str, key: impl Display, to: &V, found: &V) -> Option<String> {
    if to.is_satisfied_by(found) {
        return None;
    }
    let both = to.fields().into_iter().zip(found.fields());
    let differ = both.filter(|((field, to), (_, found))| LEADS.contains(field) && to != found);
    let fields: Vec<_> = differ.map(|((field, _), _)| field).collect();
    (!fields.is_empty()).then(|| format!("{noun} {key} ({})", fields.join(", ")))
}

fn not_open(name: &str, channel: &str, connection: &ObservedConnection) -> String {
    let ObservedConnection { state, reason, .. } = connection;
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    let says = format!(
        "{} {name} (SlackChannel {channel}) is {state}{why}",
        SlackPaths::NAME
    );
    if connection.is_pending() {
        return says;
    }
    format!(
        "{says}: what answers for Slack refused it, so EventBridge does not call it any more; it is written again once each time, and then needs a webhook or a token that is accepted"
    )
}

/// What is waited for, the same text once.
fn held<'a>(errors: impl Iterator<Item = &'a Error>) -> Vec<(&'static str, String)> {
    let mut all: BTreeMap<&'static str, BTreeSet<&str>> = BTreeMap::new();
    for error in errors {
        let reason = match error.class {
            Class::Waiting(WaitingOn::Secret) => "WaitingForSecret",
            Class::Waiting(WaitingOn::Channel | WaitingOn::Tenant | WaitingOn::Prerequisite) => {
                "WaitingForChannel"
            }
            Class::Invalid => "InvalidSpec",
            _ => "SystemUnavailable",
        };
        all.entry(reason).or_default().insert(&error.message);
    }
    let told = all.into_iter().map(|(reason, texts)| {
        let texts: Vec<_> = texts.into_iter().collect();
        (reason, texts.join("; "))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            desired::{
                AUTHORIZED, ApiDestination, Connection, ObservedDestination, ObservedPath, Rule,
                RuleTarget, TargetKey, Wanted, path_name,
            },
            stages::{EventBridgeContext, stages},
        },
        *,
    };
    use crate::{
        api::TenantObservability,
        clients::{aws::Account, secret::Secret},
        engine::{
            informer::{Consistency, Polling, ReadOptions},
            limits::Priority,
            plan::Found,
        },
        kinds::{
            aws_scope::AwsScope, installation::Installation,
            tenant::eventbridge::message::Transformer,
        },
    };
    use serde_json::json;
    use std::sync::Arc;

    const RULE: &str = "campanile_vsu_critical_0a1b2c3d";

    fn found<V, I: Default, L>(value: V, live: L) -> Found<V, I, L> {
        Found {
            id: I::default(),
            value,
            owner: Owner::Us,
            live,
        }
    }

    /// All as it should be: one channel, one rule.
    struct World {
        slack: StageRun<SlackPaths>,
        rules: StageRun<AlarmRules>,
    }

    fn live(state: &str) -> ObservedConnection {
        ObservedConnection {
            arn: "arn".into(),
            header: "X".into(),
            state: state.into(),
            reason: String::new(),
            description: String::new(),
            foreign: Default::default(),
            modified: None,
        }
    }

    fn path(state: &str, active: bool) -> Arc<ObservedPath> {
        Arc::new(ObservedPath {
            connection: Some(live(state)),
            destination: Some(ObservedDestination {
                arn: "arn".into(),
                url: Secret::new(String::new()),
                method: String::new(),
                per_second: 1,
                connection: "arn".into(),
                active,
                description: String::new(),
            }),
        })
    }

    fn tenant() -> TenantObservability {
        let mut tenant =
            TenantObservability::new("vsu", serde_json::from_value(json!({})).unwrap());
        tenant.metadata.namespace = Some("ns".into());
        tenant
    }

    /// The name of the path of a webhook into the channel `alerts`.
    fn name() -> String {
        let [hook, _] = PathKey::both("alerts");
        path_name(&tenant(), &hook, &Installation::sample())
    }

    fn connection() -> PathPart {
        PathPart::Connection(name())
    }

    fn destination() -> PathPart {
        PathPart::Destination(name())
    }

    fn rule() -> RuleKey {
        RuleKey::Rule(RULE.into())
    }

    fn target() -> RuleKey {
        RuleKey::Target(TargetKey {
            rule: RULE.into(),
            id: "alerts".into(),
        })
    }

    fn status(channels: &[&str]) -> TenantObservabilityStatus {
        let entries = channels.iter();
        TenantObservabilityStatus {
            slack_paths: entries
                .map(|name| PathKey::both(name)[0].clone().entry(Default::default()))
                .collect(),
            ..TenantObservabilityStatus::default()
        }
    }

    fn world() -> World {
        world_after(&status(&["alerts"]))
    }

    /// The same where status said this before the run.
    fn world_after(before: &TenantObservabilityStatus) -> World {
        let to = Connection {
            channel: "alerts".into(),
            header: "X".into(),
            secret: String::new(),
            state: AUTHORIZED.into(),
            description: "mark".into(),
            foreign: Default::default(),
            needs_reauthorization: false,
            value: None,
            shut: None,
        };
        let post = ApiDestination {
            channel: "alerts".into(),
            endpoint: "hmac:1".into(),
            method: "POST".into(),
            per_second: 1,
            connection: name(),
            description: "mark".into(),
            url: None,
        };
        let on = Rule {
            pattern: json!({}),
            state: ENABLED.into(),
            schedule: String::new(),
            role: String::new(),
            description: "mark".into(),
        };
        let to_slack = RuleTarget {
            destination: name(),
            role: "role".into(),
            dead_letters: String::new(),
            max_age: None,
            max_attempts: None,
            message: Transformer::default(),
            foreign: BTreeSet::new(),
        };
        let parts = [
            (connection(), PathValue::Connection(to)),
            (destination(), PathValue::Destination(post)),
        ];
        let sorts = [
            (rule(), RuleValue::Rule(on)),
            (target(), RuleValue::Target(to_slack)),
        ];
        let mut wanted = Wanted::default();
        wanted.slack.wanted.extend(parts.clone());
        wanted.rules.wanted.extend(sorts.clone());
        wanted.paths = PathKey::both("alerts")
            .map(|path| (path_name(&tenant(), &path, &Installation::sample()), path))
            .into();
        let account = Account::at("http://127.0.0.1", &BTreeMap::new());
        let options = ReadOptions {
            uid: "uid".into(),
            priority: Priority::Edit,
            consistency: Consistency::Known,
            since: tokio::time::Instant::now(),
            superseded: Default::default(),
        };
        let events = EventBridgeContext::new(
            &tenant(),
            &wanted,
            before,
            Arc::new(AwsScope::of(account, "", &Polling::none())),
            options,
            Installation::sample().ownership(&tenant(), &[]),
            &Installation::sample(),
        );
        let (slack, rules) = stages(wanted, &events);
        let (mut slack, mut rules) = (StageRun::new(slack), StageRun::new(rules));
        let parts = parts.map(|(key, to)| (key, found(to, path(AUTHORIZED, true))));
        let sorts = sorts.map(|(key, to)| (key, found(to, ())));
        slack.seen = Some(parts.into_iter().collect());
        rules.seen = Some(sorts.into_iter().collect());
        World { slack, rules }
    }

    impl World {
        fn delivery(&self, failed: &[Failure]) -> Delivery {
            delivery(&self.slack, &self.rules, failed)
        }

        fn reasons(&self) -> Vec<&'static str> {
            match self.delivery(&[]) {
                Delivery::Known(troubles) => troubles.iter().map(|(reason, _)| *reason).collect(),
                other => panic!("{other:?}"),
            }
        }

        /// What status says of the paths after a run before which it said `before`.
        fn paths(&self, before: &[&str]) -> Vec<String> {
            let mut status = status(before);
            record(&self.slack, &self.rules, &mut status);
            let paths = status.slack_paths.into_iter();
            paths.map(|entry| entry.channel).collect()
        }

        fn wants_nothing(&mut self) {
            self.slack.stage.desired = Desired::default();
            self.rules.stage.desired = Desired::default();
        }

        fn is_without(&mut self, part: &PathPart) {
            self.slack.seen.as_mut().unwrap().remove(part);
        }

        fn is_without_rule(&mut self, key: &RuleKey) {
            self.rules.seen.as_mut().unwrap().remove(key);
        }

        fn is_of(&mut self, part: &PathPart, owner: Owner) {
            let seen = self.slack.seen.as_mut().unwrap();
            seen.get_mut(part).unwrap().owner = owner;
        }

        fn rule_is_of(&mut self, owner: Owner) {
            let seen = self.rules.seen.as_mut().unwrap();
            seen.get_mut(&rule()).unwrap().owner = owner;
        }

        fn is(&mut self, state: &str, active: bool) {
            let all = self.slack.seen.as_mut().unwrap().values_mut();
            all.for_each(|found| found.live = path(state, active));
        }
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        assert_eq!(world().reasons(), Vec::<&str>::new());
        type Change = fn(&mut World);
        let changes: [(Change, &[&str]); 13] = [
            (
                |it| {
                    for to in it.slack.stage.desired.wanted.values_mut() {
                        if let PathValue::Connection(to) = to {
                            to.shut = Some("no".into());
                        }
                    }
                },
                &["ChannelNotReady"],
            ),
            (|it| it.is_without(&connection()), &["SlackPathMissing"]),
            (|it| it.is_without(&destination()), &["SlackPathMissing"]),
            (|it| it.is_without_rule(&target()), &["SlackPathMissing"]),
            (
                |it| {
                    it.is_without_rule(&rule());
                    it.is_without_rule(&target());
                },
                &["SlackPathMissing"],
            ),
            (|it| it.rule_is_of(Owner::Nobody), &["SlackConflict"]),
            (
                |it| it.is_of(&connection(), Owner::Other("x".into())),
                &["SlackConflict"],
            ),
            (
                |it| it.is_of(&destination(), Owner::Nobody),
                &["SlackConflict"],
            ),
            (|it| it.is("DEAUTHORIZED", true), &["SlackNotAuthorized"]),
            (|it| it.is("AUTHORIZING", true), &["SlackNotAuthorized"]),
            (|it| it.is(AUTHORIZED, false), &["SlackNotAuthorized"]),
            (
                |it| {
                    for found in it.rules.seen.as_mut().unwrap().values_mut() {
                        if let RuleValue::Rule(rule) = &mut found.value {
                            rule.state = "DISABLED".into();
                        }
                    }
                },
                &["SlackRuleDisabled"],
            ),
            (
                |it| {
                    let held = &mut it.slack.stage.desired.blocked;
                    for (name, on) in [
                        ("a", WaitingOn::Channel),
                        ("b", WaitingOn::Secret),
                        ("c", WaitingOn::Secret),
                    ] {
                        let error = Error::new(Class::Waiting(on), "it is not there");
                        held.insert(PathPart::Connection(name.into()), error);
                    }
                },
                &["WaitingForChannel", "WaitingForSecret"],
            ),
        ];
        for (change, expected) in changes {
            let mut world = world();
            change(&mut world);
            assert_eq!(world.reasons(), expected, "{:?}", world.delivery(&[]));
        }
    }

    #[test]
    fn one_connection_that_is_barred_is_told_once() {
        let mut world = world();
        world.is("DEAUTHORIZED", false);
        let Delivery::Known(troubles) = world.delivery(&[]) else {
            panic!("it was read");
        };
        assert_eq!(troubles.len(), 1);
        assert!(
            troubles[0]
                .1
                .contains("(SlackChannel alerts) is DEAUTHORIZED")
        );
        assert!(!troubles[0].1.contains("INACTIVE"));
    }

    #[test]
    fn what_could_not_be_read_is_not_made_up() {
        let mut world = world();
        world.rules.seen = None;
        let failure = |class| Failure {
            stage: AlarmRules::NAME,
            key: None,
            error: Error::new(class, "no"),
            deletes: false,
            blocked: false,
        };
        let unavailable = failure(Class::Unavailable);
        assert_eq!(world.delivery(&[unavailable]), Delivery::Unknown);
        assert_eq!(world.delivery(&[]), Delivery::Unknown);
        let denied = Delivery::Known(vec![("SlackAccessDenied", "no".into())]);
        assert_eq!(world.delivery(&[failure(Class::Denied)]), denied);
        world.wants_nothing();
        assert_eq!(
            world.delivery(&[failure(Class::Denied)]),
            Delivery::ToNobody
        );
        assert!(is_slacks(&failure(Class::Denied)));
    }

    #[test]
    fn a_path_stands_in_status_until_nothing_is_left_of_it() {
        let mut world = world();
        assert_eq!(world.paths(&[]), ["alerts"]);
        assert_eq!(world.paths(&["alerts", "gone"]), ["alerts"]);
        // Not wanted any more, and still there.
        world.wants_nothing();
        world.is_without_rule(&target());
        assert_eq!(world.paths(&["alerts"]), ["alerts"]);
        world.is_without_rule(&rule());
        world.is_without(&connection());
        assert_eq!(
            world.paths(&["alerts", "gone"]),
            ["alerts"],
            "its API destination"
        );
        world.is_without(&destination());
        assert_eq!(world.paths(&["alerts"]), Vec::<String>::new());
        // A rule alone is looked for as well, whoever knows it still.
        world.rules.seen = self::world().rules.seen;
        assert_eq!(world.paths(&["alerts"]), ["alerts"]);
        let mut world = world_after(&status(&[]));
        world.wants_nothing();
        world.slack.seen = Some(Default::default());
        assert_eq!(world.paths(&[]), [RULE]);
        // What is somebody else's is not ours to look after.
        world.rule_is_of(Owner::Nobody);
        assert_eq!(world.paths(&[RULE]), Vec::<String>::new());
    }

    #[test]
    fn a_path_that_could_not_be_read_stands_as_it_was() {
        let mut world = world_after(&status(&[]));
        world.wants_nothing();
        let mut status = TenantObservabilityStatus {
            slack_paths: vec![PathKey::both("x")[1].clone().entry(Default::default())],
            ..TenantObservabilityStatus::default()
        };
        let before = status.clone();
        world.slack.seen = None;
        record(&world.slack, &world.rules, &mut status);
        assert_eq!(status, before);
    }
}
