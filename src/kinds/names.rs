//! Names in the outside systems: functions of the object alone, injective and bounded.

use crate::{
    api::{AlarmState, Severity},
    engine::rendering::hex,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// What the names of all topics, rules, connections and API destinations begin with.
pub const PREFIX: &str = "campanile_";

/// What all alarms of a tenant begin with. It ends in `/`, which no part can contain, so that
/// tenant `vsu` never finds the alarms of `vsu-2`.
pub fn alarm_prefix(cluster: &str, tenant: &str) -> String {
    format!("{}{tenant}/", alarms_prefix(cluster))
}

/// What all alarms of an installation begin with.
pub fn alarms_prefix(cluster: &str) -> String {
    format!("campanile/{cluster}/")
}

/// What all alarms of an AlarmSet begin with, by severity.
pub fn alarm_set_prefixes(cluster: &str, tenant: &str, set: &str) -> BTreeSet<String> {
    let tenant = alarm_prefix(cluster, tenant);
    let severities = Severity::ALL.into_iter();
    severities
        .map(|severity| format!("{tenant}{severity}/{set}/"))
        .collect()
}

/// An alarm's name, at most 255 characters: `campanile/<cluster>/<tenant>/<severity>/<set>/<alarm>[@<environment>]`.
/// The severity stands before the set so that EventBridge can match it by prefix.
pub fn alarm(
    cluster: &str,
    tenant: &str,
    severity: Severity,
    set: &str,
    alarm: &str,
    environment: Option<&str>,
) -> String {
    let environment = environment
        .map(|name| format!("@{name}"))
        .unwrap_or_default();
    format!(
        "{}{severity}/{set}/{alarm}{environment}",
        alarm_prefix(cluster, tenant)
    )
}

/// A topic's name, at most 64 characters: `campanile_<tenant>_<severity>_<hash>`.
pub fn topic(cluster: &str, namespace: &str, tenant: &str, severity: Severity) -> String {
    format!(
        "{}{severity}_{}",
        tenant_prefix(tenant),
        place(cluster, namespace)
    )
}

/// What everything of a tenant's begins with but its alarms. `_` cannot be in a tenant's name, so that
/// tenant `vsu` never finds what is tenant `vsu-2`'s.
pub fn tenant_prefix(tenant: &str) -> String {
    format!("{PREFIX}{tenant}_")
}

/// An EventBridge rule's name, at most 64 characters: `campanile_<tenant>_<severity>_<hash>`. The hash
/// tells the states apart too.
pub fn rule(
    cluster: &str,
    namespace: &str,
    tenant: &str,
    severity: Severity,
    state: AlarmState,
) -> String {
    let hash = hash(&format!("{cluster}/{namespace}/{state}"));
    format!("{}{severity}_{hash}", tenant_prefix(tenant))
}

/// The name of the EventBridge connection of a way into Slack (`<SlackChannel>/webhook`, `<SlackChannel>/bot`),
/// and of its API destination, at most 64 characters: `campanile_<tenant>_slack_<hash>`.
pub fn slack_path(cluster: &str, namespace: &str, tenant: &str, path: &str) -> String {
    let hash = hash(&format!("{cluster}/{namespace}/{path}"));
    format!("{}slack_{hash}", tenant_prefix(tenant))
}

/// What a rule calls its target for a SlackChannel object: the object's name, which fits into the 64
/// characters that EventBridge gives it unless somebody found a way around the schema.
pub fn rule_target(channel: &str) -> String {
    /// `[.\-_A-Za-z0-9]{1,64}` (EventBridge's `TargetId`).
    const LONGEST: usize = 64;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !channel.is_empty() && channel.len() <= LONGEST && channel.bytes().all(plain) {
        return channel.to_owned();
    }
    format!("channel_{}", hash(channel))
}

/// Whether a topic's name is of the form that ours have, whoever made it.
pub fn is_called_as_ours(arn: &str) -> bool {
    arn.rsplit(':')
        .next()
        .is_some_and(|name| name.starts_with(PREFIX))
}

/// 8 hexadecimal characters that tell clusters and namespaces apart where their names have no room.
fn place(cluster: &str, namespace: &str) -> String {
    hash(&format!("{cluster}/{namespace}"))
}

/// 8 hexadecimal characters.
fn hash(text: &str) -> String {
    hex(&Sha256::digest(text)[..4])
}

/// The AWS partition of a Region: `aws`, `aws-cn` or `aws-us-gov`.
pub fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The role that is assumed in an account where the tenant names none.
pub fn role_arn(region: &str, account: &str, role: &str) -> String {
    format!("arn:{}:iam::{account}:role/{role}", partition(region))
}

/// A topic's ARN.
pub fn topic_arn(region: &str, account: &str, topic: &str) -> String {
    format!("arn:{}:sns:{region}:{account}:{topic}", partition(region))
}

/// An alarm's ARN.
pub fn alarm_arn(region: &str, account: &str, alarm: &str) -> String {
    format!(
        "arn:{}:cloudwatch:{region}:{account}:alarm:{alarm}",
        partition(region)
    )
}

/// The ARNs of all alarms whose names begin with `prefix`, as a pattern for `ArnLike`.
pub fn alarm_arn_pattern(region: &str, account: &str, prefix: &str) -> String {
    format!(
        "arn:{}:cloudwatch:{region}:{account}:alarm:{prefix}*",
        partition(region)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_longest_names_fit() {
        let longest = |n: usize| "x".repeat(n);
        let name = alarm(
            &longest(32),
            &longest(36),
            Severity::Critical,
            &longest(63),
            &longest(63),
            Some(&longest(32)),
        );
        assert!(name.len() <= 255, "{}", name.len());
        let (cluster, namespace, tenant) = (&longest(32), &longest(63), &longest(36));
        let state = AlarmState::InsufficientData;
        for severity in Severity::ALL {
            for name in [
                topic(cluster, namespace, tenant, severity),
                rule(cluster, namespace, tenant, severity, state),
            ] {
                assert!(name.len() <= 64, "{name}: {}", name.len());
            }
        }
        let name = slack_path(cluster, namespace, tenant, &longest(63));
        assert!(name.len() <= 64, "{}", name.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        assert!(name.bytes().all(plain), "{name}");
    }

    #[test]
    fn a_target_is_called_as_its_channel_where_that_fits() {
        let long = "x".repeat(65);
        for (channel, plain) in [
            ("vsu-alerts", true),
            (&"x".repeat(64), true),
            (&long, false),
            ("", false),
            ("a b", false),
            ("é", false),
        ] {
            let name = rule_target(channel);
            assert_eq!(name == channel, plain, "{channel}");
            assert!((1..=64).contains(&name.len()) && name.is_ascii());
        }
        assert_ne!(rule_target(&long), rule_target(&format!("{long}x")));
    }

    #[test]
    fn a_prefix_does_not_reach_another_tenant() {
        let other = alarm("eu", "vsu-2", Severity::Info, "s", "a", None);
        assert!(!other.starts_with(&alarm_prefix("eu", "vsu")));
        let other = slack_path("eu", "ns", "vsu-2", "alerts");
        assert!(!other.starts_with(&tenant_prefix("vsu")));
    }

    /// Whatever tells two of them apart tells their names apart.
    #[test]
    fn names_on_the_way_to_slack_are_told_apart() {
        let mut names = BTreeSet::new();
        let mut count = 0;
        for cluster in ["eu", "us"] {
            for namespace in ["a", "b"] {
                for tenant in ["vsu", "vsu-2"] {
                    for severity in Severity::ALL {
                        for state in [
                            AlarmState::Alarm,
                            AlarmState::Ok,
                            AlarmState::InsufficientData,
                        ] {
                            names.insert(rule(cluster, namespace, tenant, severity, state));
                            count += 1;
                        }
                    }
                    for channel in ["one", "two"] {
                        names.insert(slack_path(cluster, namespace, tenant, channel));
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(names.len(), count);
    }

    fn label(limit: usize) -> impl Strategy<Value = String> {
        proptest::string::string_regex(&format!("[a-b]([a-b-]{{0,{}}}[a-b])?", limit - 2)).unwrap()
    }

    proptest! {
        #[test]
        fn names_are_injective(parts in proptest::collection::vec(
            (label(4), label(4), prop_oneof![Just(Severity::Critical), Just(Severity::Info)], label(4), label(4), proptest::option::of(label(4))), 1..40)
        ) {
            let mut seen = BTreeMap::new();
            for part in parts {
                let (c, t, s, set, a, e) = &part;
                let name = alarm(c, t, *s, set, a, e.as_deref());
                if let Some(other) = seen.insert(name, part.clone()) {
                    prop_assert_eq!(other, part);
                }
            }
        }
    }
}
