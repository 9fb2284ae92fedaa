//! From a TenantObservability to the topics and subscriptions that its account should have. Pure.

use super::{
    attributes::{Attributes, FILTER_POLICY, FILTER_SCOPE, KMS_KEY, SUBSCRIPTION, TOPIC},
    subscription_list::SubscriptionList,
    transitions::Listener,
};
use crate::{
    api::{Aws, AwsTarget, Severity, SubscriptionEntry, SubscriptionState, TenantObservability},
    clients::secret::{Digester, Secret},
    engine::{
        error::Result,
        mirror::Mirrored,
        plan::{Desired, Value},
    },
    kinds::{installation::Installation, mark::OwnerTag, names},
};
use kube::ResourceExt;
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Where a tenant's things are, and by which role one gets there.
pub fn target(aws: &Aws, prefix: String, installation: &Installation) -> AwsTarget {
    let role = &installation.tenant_role_name;
    AwsTarget {
        account_id: aws.account_id.clone(),
        region: aws.region.clone(),
        role_arn: aws
            .role_arn
            .clone()
            .unwrap_or_else(|| names::role_arn(&aws.region, &aws.account_id, role)),
        prefix,
    }
}

/// The name of the topic of a severity.
pub fn topic_name(
    tenant: &TenantObservability,
    severity: Severity,
    installation: &Installation,
) -> String {
    let namespace = tenant.namespace().unwrap_or_default();
    names::topic(
        &installation.cluster.name,
        &namespace,
        &tenant.name_any(),
        severity,
    )
}

/// The ARNs of the topics that a tenant's spec asks for, whether they exist or not.
pub fn topic_arns(
    tenant: &TenantObservability,
    installation: &Installation,
) -> BTreeMap<Severity, String> {
    let (Some(aws), Some(notify)) = (&tenant.spec.aws, &tenant.spec.notify) else {
        return BTreeMap::new();
    };
    notify
        .listed()
        .map(|(severity, _)| {
            let name = topic_name(tenant, severity, installation);
            (
                severity,
                names::topic_arn(&aws.region, &aws.account_id, &name),
            )
        })
        .collect()
}

/// Whom a tenant's alarms tell, by severity: of its own topics those that are there, and all that its spec names.
pub fn alarm_actions(
    tenant: &TenantObservability,
    own: BTreeMap<Severity, String>,
) -> BTreeMap<Severity, BTreeSet<String>> {
    let mut alarm_actions: BTreeMap<Severity, BTreeSet<String>> = BTreeMap::new();
    for (severity, recipients) in tenant.spec.notify.iter().flat_map(|notify| notify.listed()) {
        let named = recipients.topic_arns.iter().cloned();
        alarm_actions.entry(severity).or_default().extend(named);
    }
    for (severity, arn) in own {
        alarm_actions.entry(severity).or_default().insert(arn);
    }
    alarm_actions
}

/// A topic's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Who may do what with it: a policy document, compared as a tree.
    pub policy: Json,
}

impl Value for Topic {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("policy", self.policy.to_string())]
    }
}

/// A topic as SNS has it, with whoever hears it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedTopic {
    /// How it is configured.
    pub topic: Topic,
    /// Its other attributes, as far as they are kept.
    pub attributes: Attributes,
    /// Whose it is, by its tag.
    pub owner: OwnerTag,
    /// Which of its subscriptions are ours, by its tags.
    pub listed: SubscriptionList,
    /// Who hears it.
    pub subscriptions: Vec<ObservedSubscription>,
}

/// Who hears a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSubscription {
    /// SNS's name of the protocol.
    pub protocol: String,
    /// Where messages go.
    pub endpoint: Secret,
    /// Its name; `None` while it waits to be confirmed.
    pub arn: Option<String>,
}

impl ObservedSubscription {
    /// As status has it.
    pub fn state(&self) -> SubscriptionState {
        match &self.arn {
            Some(_) => SubscriptionState::Confirmed,
            None => SubscriptionState::Pending,
        }
    }
}

impl Mirrored for ObservedTopic {}

/// The topics of a tenant, by name.
pub fn topics(
    tenant: &TenantObservability,
    target: &AwsTarget,
    installation: &Installation,
) -> Desired<String, Topic> {
    let wanted = topic_arns(tenant, installation)
        .into_iter()
        .map(|(severity, arn)| {
            let alarms = names::alarm_prefix(&installation.cluster.name, &tenant.name_any());
            let sources = names::alarm_arn_pattern(&target.region, &target.account_id, &alarms);
            (
                topic_name(tenant, severity, installation),
                Topic {
                    policy: policy(&arn, &target.account_id, &sources),
                },
            )
        });
    Desired {
        wanted: wanted.collect(),
        blocked: BTreeMap::new(),
        adoption: tenant.spec.adoption_policy.into(),
        ..Desired::default()
    }
}

/// What the attributes of each of a tenant's topics should be.
pub fn topic_attributes(tenant: &TenantObservability) -> Attributes {
    let notify = tenant.spec.notify.as_ref();
    let key = notify.and_then(|notify| notify.encryption_key_arn.clone());
    Attributes::of(TOPIC, |name| key.clone().filter(|_| name == KMS_KEY))
}

/// What the attributes of a subscription should be.
pub fn subscription_attributes(key: &SubscriptionKey) -> Attributes {
    let listener = match key.protocol.as_str() {
        EMAIL => Listener::Mail,
        _ => Listener::Pager,
    };
    Attributes::of(SUBSCRIPTION, |name| match name {
        FILTER_POLICY => Some(listener.filter_policy().to_string()),
        FILTER_SCOPE => Some("MessageBody".to_owned()),
        _ => None,
    })
}

/// CloudWatch's alarms in the AWS console, whose pages follow.
fn console(region: &str) -> String {
    let domain = match names::partition(region) {
        "aws-cn" => "console.amazonaws.cn",
        "aws-us-gov" => "console.amazonaws-us-gov.com",
        _ => "console.aws.amazon.com",
    };
    format!("https://{region}.{domain}/cloudwatch/home?region={region}#alarmsV2:")
}

/// The page of the AWS console that shows one alarm, whose name follows.
pub fn alarm_link(region: &str) -> String {
    format!("{}alarm/", console(region))
}

/// The page of the AWS console that shows a tenant's alarms.
pub fn alarms_link(tenant: &TenantObservability, region: &str, cluster: &str) -> String {
    let prefix = names::alarm_prefix(cluster, &tenant.name_any());
    // The console's own way of escaping, inside the fragment of a URL.
    let search = prefix.replace('/', "*2f");
    format!("{}?~(search~'{search})", console(region))
}

/// CloudWatch may publish, for this tenant's alarms in this account, and nobody else who needs the
/// topic's own permission. (Principals of the account have theirs from IAM.)
fn policy(topic: &str, account: &str, alarms: &str) -> Json {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "CampanileAlarms",
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": topic,
            "Condition": {
                "StringEquals": {"aws:SourceAccount": account},
                "ArnLike": {"aws:SourceArn": alarms}
            }
        }]
    })
}

/// SNS's name of the protocol whose subscriptions a person confirms, and may end by a link in each message.
pub const EMAIL: &str = "email";

/// What tells subscriptions apart. Its text is `<severity> <protocol> <endpoint>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// Whose topic.
    pub severity: Severity,
    /// SNS's name of the protocol.
    pub protocol: String,
    /// The endpoint; a digest where it is a secret.
    pub endpoint: String,
}

impl SubscriptionKey {
    /// The key of an endpoint. URLs hold keys, so they appear as digests.
    pub fn of(severity: Severity, protocol: &str, endpoint: &str, digester: &Digester) -> Self {
        let endpoint = match protocol {
            "http" | "https" => digester.digest(endpoint).to_string(),
            _ => endpoint.to_owned(),
        };
        Self {
            severity,
            protocol: protocol.to_owned(),
            endpoint,
        }
    }
}

impl fmt::Display for SubscriptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.severity, self.protocol, self.endpoint)
    }
}

impl From<&SubscriptionEntry> for SubscriptionKey {
    fn from(entry: &SubscriptionEntry) -> Self {
        Self {
            severity: entry.severity,
            protocol: entry.protocol.clone(),
            endpoint: entry.endpoint.clone(),
        }
    }
}

/// A subscription's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// What the spec calls the recipient; empty on what was only seen.
    pub recipient: String,
    /// Where messages go.
    pub endpoint: Secret,
}

impl Value for Subscription {
    /// There is nothing about a subscription that we set beyond its key.
    fn is_satisfied_by(&self, _: &Self) -> bool {
        true
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("recipient", self.recipient.clone())]
    }
}

/// Where PagerDuty takes the events of an integration, by where its key is, as read.
pub type Integrations = BTreeMap<(String, String), Result<Secret>>;

/// The subscriptions of a tenant.
pub fn subscriptions(
    tenant: &TenantObservability,
    integrations: &Integrations,
    installation: &Installation,
) -> Desired<SubscriptionKey, Subscription> {
    let mut desired = Desired::default();
    for (severity, recipients) in tenant.spec.notify.iter().flat_map(|notify| notify.listed()) {
        for address in &recipients.emails {
            let key = SubscriptionKey::of(severity, EMAIL, address, &installation.digester);
            let subscription = Subscription {
                recipient: address.clone(),
                endpoint: Secret::new(address.clone()),
            };
            desired.wanted.insert(key, subscription);
        }
        for service in &recipients.pager_duty {
            let reference = &service.integration_key_secret_ref;
            let recipient = format!("PagerDuty {}", service.name);
            match integrations.get(&(reference.name.clone(), reference.key.clone())) {
                Some(Ok(url)) => {
                    // SNS wants the protocol that the URL has; PagerDuty's own is https.
                    let protocol = if url.reveal().starts_with("http:") {
                        "http"
                    } else {
                        "https"
                    };
                    let key = SubscriptionKey::of(
                        severity,
                        protocol,
                        url.reveal(),
                        &installation.digester,
                    );
                    desired.wanted.insert(
                        key,
                        Subscription {
                            recipient,
                            endpoint: url.clone(),
                        },
                    );
                }
                Some(Err(error)) => {
                    let key = SubscriptionKey {
                        severity,
                        protocol: "https".into(),
                        endpoint: recipient,
                    };
                    desired.blocked.insert(key, error.clone());
                }
                None => {}
            }
        }
    }
    desired
}

/// PagerDuty's own hosts: the second is that of accounts in its EU service region.
const PAGERDUTY: [&str; 2] = [
    "https://events.pagerduty.com",
    "https://events.eu.pagerduty.com",
];

/// Where PagerDuty takes the events of an integration: from its key, by the host that the installation names, or from
/// the integration URL that PagerDuty shows. `None` where it is neither, or the URL is of another host.
pub fn integration(text: &str, installation: &Installation) -> Option<Secret> {
    let (text, base) = (text.trim(), installation.pagerduty_events_url.as_str());
    let parts = |host| {
        let path = text.strip_prefix(host)?.strip_prefix("/integration/")?;
        Some((host, path.trim_end_matches('/').strip_suffix("/enqueue")?))
    };
    let mut hosts = PAGERDUTY.into_iter().chain([base]);
    let (host, key) = hosts.find_map(parts).unwrap_or((base, text));
    // Anything else would become another part of the URL.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let fits = (1..=64).contains(&key.len()) && key.bytes().all(is_plain);
    fits.then(|| Secret::new(format!("{host}/integration/{key}/enqueue")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::{Class, Error, WaitingOn};

    fn installation() -> Installation {
        Installation::sample()
    }

    fn tenant() -> TenantObservability {
        let spec = json!({
            "aws": {"accountId": "222233334444", "region": "us-east-2"},
            "notify": {
                "critical": {"pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "s", "key": "k"}}]},
                "info": {}
            }
        });
        let mut tenant = TenantObservability::new("vsu", serde_json::from_value(spec).unwrap());
        tenant.metadata.namespace = Some("ns".into());
        tenant
    }

    #[test]
    fn a_topic_per_listed_severity_that_only_the_tenants_alarms_may_use() {
        let (tenant, installation) = (tenant(), installation());
        let target = target(
            tenant.spec.aws.as_ref().unwrap(),
            "campanile_vsu_".into(),
            &installation,
        );
        assert_eq!(target.role_arn, "arn:aws:iam::222233334444:role/campanile");
        let topics = topics(&tenant, &target, &installation).wanted;
        let names: Vec<_> = topics
            .keys()
            .map(|name| name.rsplit_once('_').unwrap().0)
            .collect();
        assert_eq!(names, ["campanile_vsu_critical", "campanile_vsu_info"]);
        let statement = &topics.values().next().unwrap().policy["Statement"][0];
        assert_eq!(
            statement["Principal"],
            json!({"Service": "cloudwatch.amazonaws.com"})
        );
        assert_eq!(
            statement["Condition"]["StringEquals"]["aws:SourceAccount"],
            "222233334444"
        );
        assert_eq!(
            statement["Condition"]["ArnLike"]["aws:SourceArn"],
            "arn:aws:cloudwatch:us-east-2:222233334444:alarm:campanile/eu/vsu/*"
        );
    }

    #[test]
    fn an_integration_key_becomes_an_endpoint_that_is_shown_as_a_digest() {
        let secret = integration("canary0123456789", &installation()).unwrap();
        let keys = [(("s".to_owned(), "k".to_owned()), Ok(secret))].into();
        let desired = subscriptions(&tenant(), &keys, &installation());
        let (key, subscription) = desired.wanted.first_key_value().unwrap();
        assert_eq!(
            subscription.endpoint.reveal(),
            "https://events.pagerduty.com/integration/canary0123456789/enqueue"
        );
        assert!(key.to_string().starts_with("critical https hmac:"), "{key}");
        assert!(!format!("{desired:?}").contains("canary"));
    }

    #[test]
    fn a_missing_secret_holds_its_own_subscription_only() {
        let error = Error::new(Class::Waiting(WaitingOn::Secret), "no Secret");
        let keys = [(("s".to_owned(), "k".to_owned()), Err(error.clone()))].into();
        let desired = subscriptions(&tenant(), &keys, &installation());
        assert!(desired.wanted.is_empty());
        assert_eq!(desired.blocked.values().collect::<Vec<_>>(), [&error]);
    }

    #[test]
    fn an_integration_is_a_key_or_the_url_that_pagerduty_shows() {
        let url = |host: &str, key: &str| Some(format!("https://{host}/integration/{key}/enqueue"));
        let (us, eu) = ("events.pagerduty.com", "events.eu.pagerduty.com");
        for (text, expected) in [
            ("0123456789abcdef\n", url(us, "0123456789abcdef")),
            (
                "https://events.pagerduty.com/integration/k1/enqueue",
                url(us, "k1"),
            ),
            (
                "https://events.eu.pagerduty.com/integration/k1/enqueue/\n",
                url(eu, "k1"),
            ),
            (
                "https://events.eu.pagerduty.com.example/integration/k1/enqueue",
                None,
            ),
            ("http://events.pagerduty.com/integration/k1/enqueue", None),
            (
                "https://user@events.pagerduty.com/integration/k1/enqueue",
                None,
            ),
            ("https://events.pagerduty.com/integration/a/b/enqueue", None),
            ("https://events.pagerduty.com/integration//enqueue", None),
            ("https://events.pagerduty.com/v2/enqueue", None),
            ("", None),
            ("a/b", None),
            ("a?b", None),
            ("a b", None),
        ] {
            let found = integration(text, &installation());
            assert_eq!(
                found.map(|url| url.reveal().to_owned()),
                expected,
                "{text:?}"
            );
        }
    }
}
