//! What status says of the topics of a tenant and of who hears them, and whether messages arrive. Pure.

use super::{
    TenantStages,
    attributes::{KMS_KEY, MESSAGE_SIZE, Setting, unheard, unreadable_key},
    desired::{SubscriptionKey, subscription_attributes},
    eventbridge::report::{self as slack, Delivery, is_slacks},
};
use crate::{
    api::{
        ACCOUNT_REACHABLE, AlarmSet, DELIVERY_READY, DriftChange, SubscriptionEntry,
        SubscriptionState, TenantObservabilityStatus, TopicEntry,
    },
    engine::{
        error::{Class, Error},
        plan::{Desired, Owner, Value as _},
        rendering::few,
        stage::Failure,
    },
    kinds::ConditionUpdate,
};
use std::collections::BTreeSet;

/// Topics, subscriptions and paths into Slack into status, and whether messages reach those who should hear them.
/// `failed`: what failed in the run.
pub fn delivery(
    stages: &TenantStages,
    failed: &[Failure],
    status: &mut TenantObservabilityStatus,
) -> Delivery {
    let delivery = topics_and_subscriptions(stages, status);
    slack::record(&stages.slack, &stages.rules, status);
    delivery.and(slack::delivery(&stages.slack, &stages.rules, failed))
}

/// Topics and subscriptions into status, and whether messages reach those who should hear them.
fn topics_and_subscriptions(
    stages: &TenantStages,
    status: &mut TenantObservabilityStatus,
) -> Delivery {
    let (topics, subscriptions) = (&stages.topics.stage, &stages.subscriptions.stage);
    let Some(seen) = &stages.topics.seen else {
        return Delivery::Unknown;
    };
    let is_ours = |name: &String| seen.get(name).is_some_and(|found| found.owner == Owner::Us);
    let is_there = |name: &String| seen.contains_key(name);
    // What happens to a topic outside is no reason to take the alarms off it: it is made again, or given
    // back, and until then nobody else has that name in the tenant's own account.
    let known: BTreeSet<_> = status.topics.iter().map(|topic| topic.severity).collect();
    status.topics = topics
        .candidates
        .iter()
        .filter(|(_, (name, _))| topics.desired.wanted.contains_key(name))
        .filter(|(severity, (name, _))| is_ours(name) || known.contains(severity))
        .map(|(severity, (_, arn))| TopicEntry {
            severity: *severity,
            arn: arn.0.clone(),
        })
        .collect();
    let not_ours = topics.desired.wanted.keys().filter(|name| !is_ours(name));
    let (taken, missing): (Vec<_>, Vec<_>) = not_ours.partition(|name| is_there(name));
    let taken: Vec<_> = taken.into_iter().map(String::as_str).collect();
    let mut missing: Vec<_> = missing.into_iter().map(String::as_str).collect();
    missing.extend(topics.absent());
    // Of who hears a topic that is not ours to look into, what was known last stands.
    let is_taken = |key: &SubscriptionKey| {
        let topic = topics.candidates.get(&key.severity);
        topic.is_some_and(|(name, _)| taken.contains(&name.as_str()))
    };

    // With a topic its subscriptions went by themselves.
    let has_topic = |key: &SubscriptionKey| {
        topics
            .candidates
            .get(&key.severity)
            .is_some_and(|(name, _)| is_ours(name))
    };
    let Some(seen) = &stages.subscriptions.seen else {
        return Delivery::Unknown;
    };
    let Desired {
        wanted, blocked, ..
    } = &subscriptions.desired;
    let made = subscriptions.made();
    let state = |key: &SubscriptionKey| match seen.get(key) {
        Some(found) => found.live,
        None if is_taken(key) => made
            .get(key)
            .copied()
            .unwrap_or(SubscriptionState::Creating),
        None if subscriptions.is_gone(key) => SubscriptionState::Gone,
        None => SubscriptionState::Creating,
    };
    status.subscriptions = made
        .keys()
        .filter(|key| wanted.contains_key(key) || seen.contains_key(key) && has_topic(key))
        .map(|key| SubscriptionEntry {
            severity: key.severity,
            protocol: key.protocol.clone(),
            endpoint: key.endpoint.clone(),
            state: state(key),
        })
        .collect();
    let in_state = |state_wanted: SubscriptionState| {
        let late = wanted.iter().filter(|(key, _)| !is_taken(key));
        let late = late.filter(|(key, _)| state(key) == state_wanted);
        let late = late.map(|(key, to)| format!("{} ({})", to.recipient, key.severity));
        late.collect::<Vec<_>>().join(", ")
    };
    let blocked: Vec<_> = blocked
        .values()
        .map(|error| error.message.clone())
        .collect();
    if missing.is_empty()
        && taken.is_empty()
        && blocked.is_empty()
        && wanted.is_empty()
        && !topics.has_named()
    {
        return Delivery::ToNobody;
    }
    let mut troubles = Vec::new();
    if !taken.is_empty() {
        let taken = taken.join(", ");
        let says = format!(
            "topic {taken} does not carry our mark, so who hears it is not looked after (see Ready)"
        );
        troubles.push(("TopicConflict", says));
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        troubles.push(("TopicMissing", format!("topic {missing} is not there")));
    }
    troubles.extend(unpublishable(stages));
    troubles.extend(unheard_subscriptions(stages));
    if !blocked.is_empty() {
        troubles.push(("WaitingForSecret", blocked.join("; ")));
    }
    for (reason, state, says) in [
        (
            "SubscriptionMissing",
            SubscriptionState::Creating,
            "not subscribed",
        ),
        (
            "SubscriptionGone",
            SubscriptionState::Gone,
            "unsubscribed, or never confirmed within the time that AWS gives (to invite again, take the address out of the spec and put it back in)",
        ),
        (
            "PendingConfirmation",
            SubscriptionState::Pending,
            "not confirmed yet, so messages do not reach them",
        ),
    ] {
        let who = in_state(state);
        if !who.is_empty() {
            troubles.push((reason, format!("{says}: {who}")));
        }
    }
    Delivery::Known(troubles)
}

/// What about the topics that are ours keeps CloudWatch from publishing, or may, while it is as it was seen.
fn unpublishable(stages: &TenantStages) -> Vec<(&'static str, String)> {
    let (topics, attributes) = (&stages.topics, &stages.topic_attributes);
    let policies = topics.stage.desired.wanted.iter().filter(|(name, to)| {
        let found = topics.seen.as_ref().and_then(|seen| seen.get(*name));
        let found = found.filter(|found| found.owner == Owner::Us);
        found.is_some_and(|found| !to.is_satisfied_by(&found.value))
    });
    let policies = policies.map(|(name, _)| {
        let says = format!(
            "topic {name} has another policy than it should, so CloudWatch may not be let in"
        );
        ("TopicNotAsDeclared", says)
    });
    let attributes = attributes.stage.desired.wanted.iter().filter_map(|(key, to)| {
        let found = &attributes.seen.as_ref()?.get(key)?.value;
        if to.is_satisfied_by(found) {
            return None;
        }
        let (topic, Setting(value)) = (&key.of, found);
        match key.name {
            KMS_KEY => {
                let says = unreadable_key(value)?;
                Some(("TopicEncrypted", format!("topic {topic} {says}")))
            }
            MESSAGE_SIZE => {
                let says = format!("topic {topic} refuses messages of more than {value} bytes, and what an alarm says may have up to {}", to.0);
                Some(("TopicNotAsDeclared", says))
            }
            _ => None,
        }
    });
    policies.chain(attributes).collect()
}

/// Which subscriptions of ours somebody has changed so that alarms may not arrive, as far as that is known.
fn unheard_subscriptions(stages: &TenantStages) -> Vec<(&'static str, String)> {
    let wanted = &stages.subscriptions.stage.desired.wanted;
    let seen = stages
        .subscriptions
        .seen
        .iter()
        .flat_map(|seen| seen.iter());
    let unheard = seen.filter_map(|(key, found)| {
        let (to, arn) = (wanted.get(key)?, found.id.as_ref()?);
        let known = stages.subscription_attributes.stage.known(arn)?;
        let why = unheard(&subscription_attributes(key), &known)?;
        let says = format!("{why}: {} ({})", to.recipient, key.severity);
        (found.owner == Owner::Us).then_some(("SubscriptionNotAsDeclared", says))
    });
    unheard.collect()
}

/// What nobody can see from here, and messages depend on.
pub fn provisos(stages: &TenantStages) -> Vec<String> {
    let wanted = &stages.topic_attributes.stage.desired.wanted;
    let mut key = wanted.iter().filter(|(key, _)| key.name == KMS_KEY);
    let key = key.find(|(_, Setting(key))| !key.is_empty());
    let key = key.map(|(_, Setting(key))| {
        format!("the topics are encrypted with {key}: alarms get through only while its key policy lets cloudwatch.amazonaws.com do kms:GenerateDataKey* and kms:Decrypt, which cannot be seen from here (a failure shows in the alarm's history)")
    });
    let refusals = stages.subscription_attributes.stage.refusals().into_iter();
    let refusals = refusals.map(|error| {
        format!("what somebody changes about subscriptions is not seen or not put back: {error}")
    });
    key.into_iter().chain(refusals).collect()
}

/// The fields of an alarm by which it tells its topics, as drift has them.
const TELLS: [&str; 4] = [
    "actionsEnabled",
    "alarmActions",
    "okActions",
    "insufficientDataActions",
];

/// The alarms that do not tell their topics what the spec asks for, because somebody changed that and it is left so.
pub fn silent_alarms<'a>(
    sets: impl Iterator<Item = &'a AlarmSet>,
) -> Option<(&'static str, String)> {
    let differs = sets.flat_map(|set| set.status.iter().flat_map(|status| &status.common.drift));
    let alarms = differs.filter(|entry| entry.resource == "alarm");
    let silent = alarms.filter_map(|entry| match (entry.change, entry.field.as_deref()) {
        (DriftChange::Missing, _) => Some(format!("{} is not there", entry.name)),
        (DriftChange::Changed, Some(field)) if TELLS.contains(&field) => {
            let found = entry.found.as_deref().unwrap_or("unset");
            Some(format!("{field} of {} is {found}", entry.name))
        }
        _ => None,
    });
    let silent: Vec<_> = silent.collect();
    (!silent.is_empty()).then(|| {
        let few = few(silent.into_iter(), 5, ", ");
        let says = format!("alarms do not tell what they should, and driftPolicy is Report: {few}");
        ("AlarmsNotAsDeclared", says)
    })
}

/// The condition that says whether messages arrive. `provisos`: what they depend on besides.
pub fn delivering(troubles: &[(&'static str, String)], provisos: &[String]) -> ConditionUpdate {
    // What a reader has yet to confirm is the least: anything else is said before it.
    let mut troubles: Vec<_> = troubles.iter().collect();
    troubles.sort_by_key(|(reason, _)| *reason == "PendingConfirmation");
    let told = troubles.iter().map(|(_, text)| text).chain(provisos);
    let told: Vec<_> = told.map(String::as_str).collect();
    let reason = troubles.first().map_or("Delivering", |(reason, _)| reason);
    ConditionUpdate::new(DELIVERY_READY, troubles.is_empty(), reason, told.join("; "))
}

/// Whether the account answered us; `None` where that passes by itself and says nothing yet.
pub fn reachable(unreachable: Option<&Error>, failed: &[Failure]) -> Option<ConditionUpdate> {
    // Alarms need no EventBridge: what is in the way there is told of their delivery.
    let others = failed.iter().filter(|failure| !is_slacks(failure));
    let mut others = others.filter(|failure| failure.key.is_none());
    let blind = others.next();
    let (holds, reason, message) = match unreachable.or(blind.map(|failure| &failure.error)) {
        None => (true, "Reachable", ""),
        Some(error) if error.class == Class::Denied => (false, "AccessDenied", &*error.message),
        Some(_) => return None,
    };
    Some(ConditionUpdate::new(
        ACCOUNT_REACHABLE,
        holds,
        reason,
        message,
    ))
}
