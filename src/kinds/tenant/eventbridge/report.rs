//! What status says of the way into Slack, and whether alarms get there. Pure.

use super::{
    desired::{ENABLED, ObservedConnection, PathKey, Wanted},
    stages::{Connections, Destinations, KnownPaths, RuleTargets, Rules},
};
use crate::{
    api::TenantObservabilityStatus,
    engine::{
        error::{Class, Error, WaitingOn},
        plan::{Desired, Owner},
        stage::{Failure, Seen, Stage as _},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// The stages on the way to Slack.
const STAGES: [&str; 4] = [
    Connections::NAME,
    Destinations::NAME,
    Rules::NAME,
    RuleTargets::NAME,
];

/// Whether something failed on the way to Slack, and so says nothing of the rest.
pub fn is_slacks(failure: &Failure) -> bool {
    STAGES.contains(&failure.stage)
}

/// What was wanted and what there is; `None` of what could not be read.
pub struct View<'a> {
    /// What was wanted.
    pub wanted: Parts<'a>,
    /// The ways by the names of their connections, whether they are wanted, were, or might have been.
    pub paths: &'a BTreeMap<String, PathKey>,
    /// The ways that we have made, as they are known after the run.
    pub ledger: KnownPaths,
    /// The connections that there are.
    pub connections: Option<&'a Seen<Connections>>,
    /// The API destinations that there are.
    pub destinations: Option<&'a Seen<Destinations>>,
    /// The rules that there are.
    pub rules: Option<&'a Seen<Rules>>,
    /// Their targets that there are.
    pub targets: Option<&'a Seen<RuleTargets>>,
}

/// What was wanted, by stage.
pub struct Parts<'a> {
    /// The connections.
    pub connections: &'a Desired<String, super::desired::Connection>,
    /// The API destinations.
    pub destinations: &'a Desired<String, super::desired::ApiDestination>,
    /// The rules.
    pub rules: &'a Desired<String, super::desired::Rule>,
    /// Their targets.
    pub targets: &'a Desired<super::desired::TargetKey, super::desired::RuleTarget>,
}

impl<'a> From<&'a Wanted> for Parts<'a> {
    fn from(wanted: &'a Wanted) -> Self {
        Self {
            connections: &wanted.connections,
            destinations: &wanted.destinations,
            rules: &wanted.rules,
            targets: &wanted.targets,
        }
    }
}

/// Whether alarms get to Slack.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// It could not be read.
    Unknown,
    /// They are not to.
    Unasked,
    /// What is in the way, a reason and a text each; nothing where they do.
    Known(Vec<(&'static str, String)>),
}

impl View<'_> {
    /// The SlackChannel object of a connection or an API destination.
    fn channel<'a>(&'a self, name: &'a str) -> &'a str {
        self.paths.get(name).map_or(name, |path| &path.channel)
    }

    /// The way of a connection or an API destination.
    fn path(&self, name: &str) -> PathKey {
        PathKey::named(name, self.paths)
    }

    fn is_asked(&self) -> bool {
        let Desired {
            wanted, blocked, ..
        } = self.wanted.connections;
        !wanted.is_empty() || !blocked.is_empty()
    }

    /// The ways into status: those that are wanted, and those of which something is left. What could not be
    /// read stays as it was.
    pub fn record(&self, status: &mut TenantObservabilityStatus) {
        let noted = status.slack_paths.iter();
        let noted = noted.map(|entry| (PathKey::from(entry), entry.secret.clone()));
        let mut ways: KnownPaths = noted.collect();
        ways.extend(self.ledger.clone());
        if let (Some(connections), Some(destinations), Some(rules)) =
            (self.connections, self.destinations, self.rules)
        {
            let Desired {
                wanted, blocked, ..
            } = self.wanted.connections;
            let connections = connections.iter();
            let connections = connections.map(|(name, found)| (name, &found.owner));
            let destinations = destinations.iter();
            let destinations = destinations.map(|(name, found)| (name, &found.owner));
            let ours = connections.chain(destinations);
            let ours = ours.filter(|(_, owner)| **owner == Owner::Us);
            let kept = wanted.keys().chain(blocked.keys());
            let kept = kept.chain(ours.map(|(name, _)| name));
            let kept: BTreeSet<_> = kept.map(|name| self.path(name)).collect();
            let Desired {
                wanted, blocked, ..
            } = self.wanted.rules;
            let left = rules.iter().find(|(name, found)| {
                let stays = wanted.contains_key(*name) || blocked.contains_key(*name);
                found.owner == Owner::Us && !stays
            });
            if let Some((rule, _)) = left {
                // Without an entry nobody would look for it any more.
                if ways.is_empty() {
                    ways.insert(self.path(rule), None);
                }
            } else {
                ways.retain(|path, _| kept.contains(path));
            }
        }
        let entries = ways.into_iter().map(|(path, secret)| path.entry(secret));
        status.slack_paths = entries.collect();
    }

    /// Whether alarms get to Slack. `failed`: what failed in the run.
    pub fn way(&self, failed: &[Failure]) -> Way {
        if !self.is_asked() {
            return Way::Unasked;
        }
        let blind = failed.iter().filter(|failure| is_slacks(failure));
        let mut blind = blind.filter(|failure| failure.key.is_none());
        let (Some(connections), Some(destinations), Some(rules), Some(targets)) = (
            self.connections,
            self.destinations,
            self.rules,
            self.targets,
        ) else {
            let denied = blind.find(|failure| failure.error.class == Class::Denied);
            return match denied {
                Some(failure) => {
                    let message = failure.error.message.clone();
                    Way::Known(vec![("SlackAccessDenied", message)])
                }
                None => Way::Unknown,
            };
        };
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let (mut taken, mut barred, mut disabled) = (Vec::new(), Vec::new(), Vec::new());
        for name in self.wanted.connections.wanted.keys() {
            let channel = self.channel(name);
            let mut lacks = |what| {
                missing.entry(channel).or_default().insert(what);
            };
            let connection = match connections.get(name) {
                None => {
                    lacks(Connections::NAME);
                    None
                }
                Some(found) if found.owner != Owner::Us => {
                    taken.push(format!("{} {name}", Connections::NAME));
                    None
                }
                Some(found) => Some(&found.live),
            };
            let open = connection.is_none_or(is_open);
            match destinations.get(name) {
                None => lacks(Destinations::NAME),
                Some(found) if found.owner != Owner::Us => {
                    taken.push(format!("{} {name}", Destinations::NAME));
                }
                Some(found) if !found.live && open => barred.push(format!(
                    "{} {name} (SlackChannel {channel}) is INACTIVE",
                    Destinations::NAME
                )),
                Some(_) => {}
            }
            if let Some(live) = connection.filter(|live| !is_open(live)) {
                barred.push(not_open(name, channel, live));
            }
        }
        for name in self.wanted.rules.wanted.keys() {
            match rules.get(name) {
                Some(found) if found.owner != Owner::Us => {
                    taken.push(format!("{} {name}", Rules::NAME));
                }
                Some(found) if found.value.state != ENABLED => disabled.push(name.as_str()),
                // Its targets are not there either.
                Some(_) | None => {}
            }
        }
        for (key, to) in &self.wanted.targets.wanted {
            if !targets.contains_key(key) {
                let channel = self.channel(&to.destination);
                let what = if rules.contains_key(&key.rule) {
                    RuleTargets::NAME
                } else {
                    Rules::NAME
                };
                missing.entry(channel).or_default().insert(what);
            }
        }
        let mut troubles = Vec::new();
        if !taken.is_empty() {
            let taken = taken.join(", ");
            let says = format!("{taken} does not carry our mark (see Ready)");
            troubles.push(("SlackConflict", says));
        }
        troubles.extend(held(self.wanted.connections.blocked.values()));
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
        let wanted = self.wanted.connections.wanted.values();
        let shut: Vec<_> = wanted.filter_map(|to| to.shut.as_deref()).collect();
        if !shut.is_empty() {
            troubles.push(("ChannelNotReady", shut.join("; ")));
        }
        if !disabled.is_empty() {
            let says = format!("{} {} is disabled", Rules::NAME, disabled.join(", "));
            troubles.push(("SlackRuleDisabled", says));
        }
        Way::Known(troubles)
    }
}

fn is_open(connection: &ObservedConnection) -> bool {
    !connection.is_barred() && !connection.is_moving()
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
        Connections::NAME
    );
    if connection.is_moving() {
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
        super::desired::{AUTHORIZED, ApiDestination, Connection, Rule, RuleTarget, TargetKey},
        *,
    };
    use crate::{engine::plan::Found, kinds::tenant::eventbridge::message::Transformer};
    use serde_json::json;

    const PATH: &str = "campanile_vsu_slack_0a1b2c3d";
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
        wanted: Wanted,
        paths: BTreeMap<String, PathKey>,
        ledger: KnownPaths,
        connections: Seen<Connections>,
        destinations: Seen<Destinations>,
        rules: Seen<Rules>,
        targets: Seen<RuleTargets>,
    }

    fn live(state: &str) -> ObservedConnection {
        ObservedConnection {
            arn: "arn".into(),
            header: "X".into(),
            state: state.into(),
            reason: String::new(),
            description: String::new(),
        }
    }

    fn world() -> World {
        let connection = Connection {
            channel: "alerts".into(),
            header: "X".into(),
            secret: String::new(),
            state: AUTHORIZED.into(),
            description: "mark".into(),
            value: None,
            shut: None,
        };
        let destination = ApiDestination {
            channel: "alerts".into(),
            endpoint: "hmac:1".into(),
            method: "POST".into(),
            per_second: 1,
            connection: PATH.into(),
            description: "mark".into(),
            url: None,
        };
        let rule = Rule {
            pattern: json!({}),
            state: ENABLED.into(),
            schedule: String::new(),
            description: "mark".into(),
        };
        let target = RuleTarget {
            destination: PATH.into(),
            role: "role".into(),
            dead_letters: String::new(),
            max_age: None,
            max_attempts: None,
            message: Transformer::default(),
            foreign: BTreeSet::new(),
        };
        let key = TargetKey {
            rule: RULE.into(),
            id: "alerts".into(),
        };
        let mut wanted = Wanted::default();
        let (path, name) = (PATH.to_owned(), RULE.to_owned());
        wanted
            .connections
            .wanted
            .insert(path.clone(), connection.clone());
        wanted
            .destinations
            .wanted
            .insert(path.clone(), destination.clone());
        wanted.rules.wanted.insert(name.clone(), rule.clone());
        wanted.targets.wanted.insert(key.clone(), target.clone());
        let [hook, _] = PathKey::both("alerts");
        World {
            wanted,
            paths: [(path.clone(), hook.clone())].into(),
            ledger: [(hook, Some("hmac:1".into()))].into(),
            connections: [(path.clone(), found(connection, live(AUTHORIZED)))]
                .into_iter()
                .collect(),
            destinations: [(path, found(destination, true))].into_iter().collect(),
            rules: [(name, found(rule, ()))].into_iter().collect(),
            targets: [(key, found(target, ()))].into_iter().collect(),
        }
    }

    impl World {
        fn view(&self) -> View<'_> {
            View {
                wanted: (&self.wanted).into(),
                paths: &self.paths,
                ledger: self.ledger.clone(),
                connections: Some(&self.connections),
                destinations: Some(&self.destinations),
                rules: Some(&self.rules),
                targets: Some(&self.targets),
            }
        }

        fn reasons(&self) -> Vec<&'static str> {
            match self.view().way(&[]) {
                Way::Known(troubles) => troubles.iter().map(|(reason, _)| *reason).collect(),
                other => panic!("{other:?}"),
            }
        }

        fn paths(&self, before: &[&str]) -> Vec<String> {
            let entries = before.iter();
            let mut status = TenantObservabilityStatus {
                slack_paths: entries
                    .map(|name| PathKey::both(name)[0].clone().entry(None))
                    .collect(),
                ..TenantObservabilityStatus::default()
            };
            self.view().record(&mut status);
            let paths = status.slack_paths.into_iter();
            paths.map(|entry| entry.channel).collect()
        }
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        assert_eq!(world().reasons(), Vec::<&str>::new());
        type Change = fn(&mut World);
        let changes: [(Change, &[&str]); 13] = [
            (
                |it| {
                    let all = it.wanted.connections.wanted.values_mut();
                    all.for_each(|to| to.shut = Some("no".into()));
                },
                &["ChannelNotReady"],
            ),
            (|it| it.connections.clear(), &["SlackPathMissing"]),
            (|it| it.destinations.clear(), &["SlackPathMissing"]),
            (|it| it.targets.clear(), &["SlackPathMissing"]),
            (
                |it| {
                    it.rules.clear();
                    it.targets.clear();
                },
                &["SlackPathMissing"],
            ),
            (
                |it| {
                    it.rules
                        .values_mut()
                        .for_each(|found| found.owner = Owner::Nobody)
                },
                &["SlackConflict"],
            ),
            (
                |it| {
                    let all = it.connections.values_mut();
                    all.for_each(|found| found.owner = Owner::Other("x".into()));
                },
                &["SlackConflict"],
            ),
            (
                |it| {
                    let all = it.destinations.values_mut();
                    all.for_each(|found| found.owner = Owner::Nobody);
                },
                &["SlackConflict"],
            ),
            (
                |it| {
                    it.connections
                        .values_mut()
                        .for_each(|found| found.live = live("DEAUTHORIZED"))
                },
                &["SlackNotAuthorized"],
            ),
            (
                |it| {
                    it.connections
                        .values_mut()
                        .for_each(|found| found.live = live("AUTHORIZING"))
                },
                &["SlackNotAuthorized"],
            ),
            (
                |it| {
                    it.destinations
                        .values_mut()
                        .for_each(|found| found.live = false)
                },
                &["SlackNotAuthorized"],
            ),
            (
                |it| {
                    let all = it.rules.values_mut();
                    all.for_each(|found| found.value.state = "DISABLED".into());
                },
                &["SlackRuleDisabled"],
            ),
            (
                |it| {
                    let held = &mut it.wanted.connections.blocked;
                    for (name, on) in [
                        ("a", WaitingOn::Channel),
                        ("b", WaitingOn::Secret),
                        ("c", WaitingOn::Secret),
                    ] {
                        let error = Error::new(Class::Waiting(on), "it is not there");
                        held.insert(name.into(), error);
                    }
                },
                &["WaitingForChannel", "WaitingForSecret"],
            ),
        ];
        for (change, expected) in changes {
            let mut world = world();
            change(&mut world);
            assert_eq!(world.reasons(), expected, "{:?}", world.view().way(&[]));
        }
    }

    #[test]
    fn one_connection_that_is_barred_is_told_once() {
        let mut world = world();
        let connection = world.connections.values_mut().next().unwrap();
        connection.live = live("DEAUTHORIZED");
        world.destinations.values_mut().next().unwrap().live = false;
        let Way::Known(troubles) = world.view().way(&[]) else {
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
        let world = world();
        let view = View {
            rules: None,
            ..world.view()
        };
        let failure = |class| Failure {
            stage: Rules::NAME,
            key: None,
            error: Error::new(class, "no"),
            deletes: false,
            blocked: false,
        };
        assert_eq!(view.way(&[failure(Class::Unavailable)]), Way::Unknown);
        assert_eq!(view.way(&[]), Way::Unknown);
        let denied = Way::Known(vec![("SlackAccessDenied", "no".into())]);
        assert_eq!(view.way(&[failure(Class::Denied)]), denied);
        let nothing = Wanted::default();
        let view = View {
            wanted: (&nothing).into(),
            ..view
        };
        assert_eq!(view.way(&[failure(Class::Denied)]), Way::Unasked);
        assert!(is_slacks(&failure(Class::Denied)));
    }

    #[test]
    fn a_way_stands_in_status_until_nothing_is_left_of_it() {
        let mut world = world();
        assert_eq!(world.paths(&[]), ["alerts"]);
        assert_eq!(world.paths(&["alerts", "gone"]), ["alerts"]);
        // Not wanted any more, and still there.
        world.wanted = Wanted::default();
        world.targets.clear();
        assert_eq!(world.paths(&["alerts"]), ["alerts"]);
        world.rules.clear();
        world.connections.clear();
        assert_eq!(
            world.paths(&["alerts", "gone"]),
            ["alerts"],
            "its API destination"
        );
        world.destinations.clear();
        assert_eq!(world.paths(&["alerts"]), Vec::<String>::new());
        // A rule alone is looked for as well, whoever knows it still.
        world.rules = self::world().rules;
        assert_eq!(world.paths(&["alerts"]), ["alerts"]);
        world.ledger.clear();
        assert_eq!(world.paths(&[]), [RULE]);
        // What is somebody else's is not ours to look after.
        world
            .rules
            .values_mut()
            .for_each(|found| found.owner = Owner::Nobody);
        assert_eq!(world.paths(&[RULE]), Vec::<String>::new());
    }

    #[test]
    fn a_way_that_could_not_be_read_stands_as_it_was() {
        let mut world = world();
        world.wanted = Wanted::default();
        world.ledger.clear();
        let mut status = TenantObservabilityStatus {
            slack_paths: vec![PathKey::both("x")[1].clone().entry(None)],
            ..TenantObservabilityStatus::default()
        };
        let before = status.clone();
        let view = View {
            connections: None,
            ..world.view()
        };
        view.record(&mut status);
        assert_eq!(status, before);
    }
}
