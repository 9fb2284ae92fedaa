//! The settable attributes of topics and of subscriptions: which of them the spec declares, which stay at SNS's own
//! default, and which are people's. Pure.

use crate::engine::{mirror::Mirrored, plan::Value};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// What becomes of an attribute that somebody may set. The texts are the values that SNS takes it for where it is not
/// set; an empty one says that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// It is a field of [`super::desired::Topic`].
    OfTopic,
    /// The spec says what it is.
    Declared(&'static str),
    /// It can stop or alter what is delivered, and no spec has a word for it: it stays at its default.
    Default(&'static str),
    /// It changes nothing of what is delivered, to whom and when: whoever sets it keeps it.
    Theirs,
    /// SNS takes it where our things never are: for FIFO topics, for Firehose.
    Elsewhere,
}

/// By which key a topic is encrypted: its id, ARN or alias, as it was set.
pub const KMS_KEY: &str = "KmsMasterKeyId";
/// How large a message may be that the topic takes, in bytes.
pub const MESSAGE_SIZE: &str = "MaximumMessageSize";

/// The attributes of topics: those of `SetTopicAttributes`, the one that only `CreateTopic` takes (`FifoTopic`), and
/// the one that has calls of its own (`DataProtectionPolicy`; not offered to new customers since 2026-04-30).
pub const TOPIC: &[(&str, Upkeep)] = {
    use Upkeep::{Declared, Default, Elsewhere, OfTopic, Theirs};
    &[
        ("Policy", OfTopic),
        (KMS_KEY, Declared("")),
        ("DeliveryPolicy", Default("")),
        (MESSAGE_SIZE, Default("262144")),
        ("SignatureVersion", Default("1")),
        ("DataProtectionPolicy", Theirs),
        ("DisplayName", Theirs),
        ("TracingConfig", Theirs),
        ("ApplicationFailureFeedbackRoleArn", Theirs),
        ("ApplicationSuccessFeedbackRoleArn", Theirs),
        ("ApplicationSuccessFeedbackSampleRate", Theirs),
        ("FirehoseFailureFeedbackRoleArn", Theirs),
        ("FirehoseSuccessFeedbackRoleArn", Theirs),
        ("FirehoseSuccessFeedbackSampleRate", Theirs),
        ("HTTPFailureFeedbackRoleArn", Theirs),
        ("HTTPSuccessFeedbackRoleArn", Theirs),
        ("HTTPSuccessFeedbackSampleRate", Theirs),
        ("LambdaFailureFeedbackRoleArn", Theirs),
        ("LambdaSuccessFeedbackRoleArn", Theirs),
        ("LambdaSuccessFeedbackSampleRate", Theirs),
        ("SQSFailureFeedbackRoleArn", Theirs),
        ("SQSSuccessFeedbackRoleArn", Theirs),
        ("SQSSuccessFeedbackSampleRate", Theirs),
        ("ArchivePolicy", Elsewhere),
        ("ContentBasedDeduplication", Elsewhere),
        ("FifoThroughputScope", Elsewhere),
        ("FifoTopic", Elsewhere),
    ]
};

/// Which messages a subscription is sent: a document. Without one SNS has an empty one, which lets everything through.
pub const FILTER_POLICY: &str = "FilterPolicy";
/// What [`FILTER_POLICY`] is about: the attributes of a message, or its body.
pub const FILTER_SCOPE: &str = "FilterPolicyScope";
/// Whether messages come without SNS's envelope, as `true` or `false`.
pub const RAW_DELIVERY: &str = "RawMessageDelivery";

/// The attributes of subscriptions: those of `Subscribe` and `SetSubscriptionAttributes`.
pub const SUBSCRIPTION: &[(&str, Upkeep)] = {
    use Upkeep::{Declared, Default, Elsewhere, Theirs};
    &[
        (FILTER_POLICY, Declared("{}")),
        (FILTER_SCOPE, Declared("MessageAttributes")),
        (RAW_DELIVERY, Default("false")),
        ("DeliveryPolicy", Default("")),
        ("RedrivePolicy", Theirs),
        ("ReplayPolicy", Elsewhere),
        ("ReplayStatus", Elsewhere),
        ("SubscriptionRoleArn", Elsewhere),
    ]
};

/// The attributes that are kept of one thing, each with its value; one that is not set has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<&'static str, Setting>);

impl Mirrored for Attributes {}

impl Attributes {
    /// All that are kept of such a thing, at their defaults but for what `set` says.
    pub fn of(table: &[(&'static str, Upkeep)], set: impl Fn(&str) -> Option<String>) -> Self {
        let kept = table.iter().filter_map(|(name, upkeep)| match upkeep {
            Upkeep::Declared(default) | Upkeep::Default(default) => Some((*name, *default)),
            Upkeep::OfTopic | Upkeep::Theirs | Upkeep::Elsewhere => None,
        });
        let kept = kept.map(|(name, default)| {
            let value = set(name).filter(|value| !value.is_empty());
            (name, Setting(value.unwrap_or_else(|| default.to_owned())))
        });
        Self(kept.collect())
    }

    /// As SNS answers with them.
    pub fn answered(table: &[(&'static str, Upkeep)], answer: &HashMap<String, String>) -> Self {
        Self::of(table, |name| answer.get(name).cloned())
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.0.iter().map(|(name, setting)| (*name, setting))
    }

    /// Those that are not at their defaults.
    pub fn declared(
        &self,
        table: &[(&'static str, Upkeep)],
    ) -> impl Iterator<Item = (&'static str, &Setting)> {
        let bare = Self::of(table, |_| None);
        self.iter()
            .filter(move |(name, Setting(value))| bare.get(name) != value)
    }

    /// The value of one; empty where it has none, or nobody knows.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |Setting(value)| value)
    }

    /// One was set.
    pub fn set(&mut self, name: &'static str, to: Setting) {
        self.0.insert(name, to);
    }
}

/// The value of an attribute; empty where it has none. A document is compared as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting(pub String);

impl Value for Setting {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        let document = |text: &str| serde_json::from_str::<Json>(text).ok();
        let same = || document(&self.0).is_some_and(|it| Some(it) == document(&seen.0));
        self == seen || same()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("value", self.0.clone())]
    }
}

/// What tells attributes apart: whose it is, and which. Its text is both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttributeKey<K> {
    /// Whose.
    pub of: K,
    /// As SNS calls it.
    pub name: &'static str,
}

impl<K: fmt::Display> fmt::Display for AttributeKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.of, self.name)
    }
}

/// Why CloudWatch cannot publish to a topic that is encrypted like this, or may not be able to, where anything else was
/// wanted; `None` where nothing is in its way.
pub fn unreadable_key(found: &str) -> Option<String> {
    let alias = found.rsplit(':').next().unwrap_or(found);
    match found {
        "" => None,
        _ if alias == "alias/aws/sns" => Some(
            "is encrypted with alias/aws/sns, AWS's own key, which CloudWatch can never use: no alarm gets through until that is taken off (or a key of your own stands in spec.notify.encryptionKeyArn)".to_owned(),
        ),
        key => Some(format!(
            "is encrypted with {key}, which is not what the spec says: no alarm gets through unless the policy of that key lets cloudwatch.amazonaws.com do kms:GenerateDataKey* and kms:Decrypt; declare it in spec.notify.encryptionKeyArn, or take it off"
        )),
    }
}

/// Why a subscription may not be told of alarms, or not so that its receiver understands, though it is confirmed;
/// `None` where nothing is in the way.
pub fn unheard(wanted: &Attributes, found: &Attributes) -> Option<&'static str> {
    let differs = |name: &str| {
        let [wanted, found] = [wanted, found].map(|it| Setting(it.get(name).to_owned()));
        !wanted.is_satisfied_by(&found)
    };
    let filters = !Setting("{}".into()).is_satisfied_by(&Setting(found.get(FILTER_POLICY).into()));
    if filters && (differs(FILTER_POLICY) || differs(FILTER_SCOPE)) {
        return Some("another filter policy than ours may keep alarms from them");
    }
    differs(RAW_DELIVERY).then_some("alarms come raw, which they cannot read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, path::Path, process::Command};

    /// What cargo says of itself, or of this crate.
    fn cargo(arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// The names of the attributes that the SDK's documentation of a call lists.
    fn documented(input: &str) -> BTreeSet<String> {
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        // Only what this machine needs has been downloaded.
        let metadata = cargo(&[
            "metadata",
            "--offline",
            "--format-version=1",
            "--filter-platform",
            host.unwrap(),
        ]);
        let metadata: Json = serde_json::from_str(&metadata).unwrap();
        let mut packages = metadata["packages"].as_array().unwrap().iter();
        let sdk = packages.find(|it| it["name"] == "aws-sdk-sns").unwrap();
        let manifest = Path::new(sdk["manifest_path"].as_str().unwrap());
        let file = manifest.with_file_name("src/operation").join(input);
        let source = std::fs::read_to_string(file).unwrap();
        let names = source.lines().filter_map(|line| {
            let item = line.trim_start().strip_prefix("/// <p><code>")?;
            let (name, text) = item.split_once("</code>")?;
            text.trim_start().starts_with('–').then_some(name)
        });
        // Protocols and the values of some attributes are listed like attributes.
        let is_attribute = |name: &&str| {
            let values = [
                "MessageAttributes",
                "MessageBody",
                "Topic",
                "MessageGroup",
                "Completed",
                "In progress",
                "Failed",
                "Pending",
            ];
            name.starts_with(|first: char| first.is_ascii_uppercase()) && !values.contains(name)
        };
        names.filter(is_attribute).map(str::to_owned).collect()
    }

    fn listed(table: &[(&str, Upkeep)]) -> BTreeSet<String> {
        table.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// What a new SDK lets people set has to be judged before it is used.
    #[test]
    fn every_attribute_of_a_topic_that_the_sdk_knows_has_its_row() {
        let mut known = documented("set_topic_attributes/_set_topic_attributes_input.rs");
        assert!(known.len() > 20, "{known:?}");
        known.extend(documented("create_topic/_create_topic_input.rs"));
        known.extend(["FifoTopic", "DataProtectionPolicy"].map(str::to_owned));
        assert_eq!(listed(TOPIC), known);
        assert_eq!(TOPIC.len(), known.len(), "no row twice");
    }

    #[test]
    fn every_attribute_of_a_subscription_that_the_sdk_knows_has_its_row() {
        let mut known = documented("subscribe/_subscribe_input.rs");
        known.extend(documented(
            "set_subscription_attributes/_set_subscription_attributes_input.rs",
        ));
        assert_eq!(listed(SUBSCRIPTION), known);
        assert_eq!(SUBSCRIPTION.len(), known.len(), "no row twice");
    }

    #[test]
    fn what_is_not_set_is_at_its_default_and_what_is_not_kept_is_not_seen() {
        let answer = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Attributes::answered(TOPIC, &pairs.collect())
        };
        let bare = Attributes::of(TOPIC, |_| None);
        assert_eq!(Attributes::answered(TOPIC, &HashMap::new()), bare);
        for same in [
            ("SignatureVersion", "1"),
            (MESSAGE_SIZE, "262144"),
            (KMS_KEY, ""),
            ("DisplayName", "Acme"),
            ("HTTPFailureFeedbackRoleArn", "arn:aws:iam::1:role/a"),
            ("FutureAttribute", "on"),
            ("SubscriptionsConfirmed", "3"),
        ] {
            assert_eq!(answer(&[same]), bare, "{same:?}");
        }
        for other in [
            ("SignatureVersion", "2"),
            (MESSAGE_SIZE, "1024"),
            (KMS_KEY, "alias/aws/sns"),
            ("DeliveryPolicy", "{}"),
        ] {
            let seen = answer(&[other]);
            let wanted = bare.iter().zip(seen.iter());
            let differ = wanted.filter(|((_, wanted), (_, seen))| !wanted.is_satisfied_by(seen));
            let names: Vec<_> = differ.map(|((name, _), _)| name).collect();
            assert_eq!(names, [other.0]);
        }
    }

    #[test]
    fn a_key_that_cloudwatch_cannot_use_is_told_from_one_that_it_may() {
        assert_eq!(unreadable_key(""), None);
        for (key, says) in [
            ("alias/aws/sns", "can never use"),
            (
                "arn:aws:kms:us-east-2:222233334444:alias/aws/sns",
                "can never use",
            ),
            (
                "alias/ours",
                "unless the policy of that key lets cloudwatch.amazonaws.com do",
            ),
        ] {
            assert!(unreadable_key(key).unwrap().contains(says), "{key}");
        }
    }
}
