//! From an AlarmSet and its tenant to the alarms that CloudWatch should have. Pure.

use super::tags::{AlarmTags, TagsInEvents};
use crate::{
    api::{
        Alarm, AlarmSet, AlarmState, DeletionPolicy, Environment, Severity, TenantObservability,
        TreatMissingData,
    },
    engine::{
        error::{Class, Error},
        mirror::Mirrored,
        plan::{Desired, Found, Owner, Value},
    },
    kinds::{
        mark::{Mark, Ownership},
        names,
    },
};
use jiff::Timestamp;
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The most alarms that one AlarmSet makes.
pub const LIMIT: usize = 200;

/// An alarm's configuration as CloudWatch has it, with everything that may be left unset in the
/// form in which it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// With the mark as its last line.
    pub description: String,
    /// The metric's namespace.
    pub namespace: String,
    /// The metric's name.
    pub metric_name: String,
    /// The metric's dimensions.
    pub dimensions: BTreeMap<String, String>,
    /// Statistic or percentile.
    pub statistic: Statistic,
    /// Seconds.
    pub period: i32,
    /// N.
    pub evaluation_periods: i32,
    /// M; as many as `evaluation_periods` where it is unset.
    pub datapoints_to_alarm: i32,
    /// As CloudWatch writes it.
    pub comparison_operator: String,
    /// `None` only on what is not ours.
    pub threshold: Option<f64>,
    /// `missing` where it is unset.
    pub treat_missing_data: String,
    /// Whether the alarm acts at all.
    pub actions_enabled: bool,
    /// What happens when it fires.
    pub alarm_actions: BTreeSet<String>,
    /// What happens when it stops.
    pub ok_actions: BTreeSet<String>,
    /// What happens when it has no data any more.
    pub insufficient_data_actions: BTreeSet<String>,
    /// Which of its tags travel in its events.
    pub tags_in_events: TagsInEvents,
    /// The state that it is set to; only what is about to be removed has one.
    pub state: Option<&'static str>,
    /// What is set that we never set: unit, metrics, other actions. Always empty in ours.
    pub foreign_fields: Vec<String>,
}

/// CloudWatch takes the plain statistics and the percentiles in different fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Statistic {
    /// One of the five.
    Plain(String),
    /// A percentile or one of its kin.
    Extended(String),
}

impl Statistic {
    /// Which of both a spec's word is.
    pub fn parse(text: &str) -> Self {
        match text {
            "SampleCount" | "Average" | "Sum" | "Minimum" | "Maximum" => {
                Self::Plain(text.to_owned())
            }
            _ => Self::Extended(text.to_owned()),
        }
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Plain(text) | Self::Extended(text)) = self;
        f.write_str(text)
    }
}

impl Value for Configuration {
    /// A put replaces an alarm whole, so all of it is managed.
    fn fields(&self) -> Vec<(&'static str, String)> {
        // Without `..`, so that a new field cannot be forgotten in what people see.
        let Self {
            description,
            namespace,
            metric_name,
            dimensions,
            statistic,
            period,
            evaluation_periods,
            datapoints_to_alarm,
            comparison_operator,
            threshold,
            treat_missing_data,
            actions_enabled,
            alarm_actions,
            ok_actions,
            insufficient_data_actions,
            tags_in_events,
            state,
            foreign_fields,
        } = self;
        let list = |items: &BTreeSet<String>| items.iter().cloned().collect::<Vec<_>>().join(", ");
        let dimensions = dimensions
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(", ");
        let mut fields = vec![
            ("description", description.clone()),
            ("namespace", namespace.clone()),
            ("metricName", metric_name.clone()),
            ("dimensions", dimensions),
            ("statistic", statistic.to_string()),
            ("period", period.to_string()),
            ("evaluationPeriods", evaluation_periods.to_string()),
            ("datapointsToAlarm", datapoints_to_alarm.to_string()),
            ("comparisonOperator", comparison_operator.clone()),
            (
                "threshold",
                threshold.map(|value| value.to_string()).unwrap_or_default(),
            ),
            ("treatMissingData", treat_missing_data.clone()),
            ("actionsEnabled", actions_enabled.to_string()),
            ("alarmActions", list(alarm_actions)),
            ("okActions", list(ok_actions)),
            ("insufficientDataActions", list(insufficient_data_actions)),
            ("alarm tags in events", tags_in_events.to_string()),
            ("other", foreign_fields.join(", ")),
        ];
        fields.extend(state.map(|state| ("state", state.to_owned())));
        fields
    }
}

/// What an alarm is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Its state.
    pub state: AlarmState,
    /// When it went into that state.
    pub since: Option<Timestamp>,
    /// CloudWatch's reason.
    pub reason: String,
}

/// What CloudWatch has, by name.
pub type Existing = BTreeMap<String, Found<Configuration, (), Live>>;

/// An alarm as CloudWatch has it, whoever made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// How it is configured.
    pub configuration: Configuration,
    /// What it is doing.
    pub live: Live,
    /// Whether it is a composite alarm: of those only the description says anything here.
    pub composite: bool,
    /// Whether it is there and nothing else can be read of it: then all the rest says nothing.
    pub unreadable: bool,
}

impl Mirrored for Observed {
    /// CloudWatch words its reason anew at each evaluation; the one of the transition will do.
    fn is_equivalent(&self, other: &Self) -> bool {
        let live = |observed: &Self| (observed.live.state, observed.live.since);
        self.configuration == other.configuration
            && self.composite == other.composite
            && self.unreadable == other.unreadable
            && live(self) == live(other)
    }
}

impl Observed {
    /// Whose it is: the last line of the description says it.
    pub fn owner(&self, ownership: &Ownership) -> Owner {
        match ownership.of_description(&self.configuration.description) {
            // Something by one of our names that no AlarmSet makes: in the way, and never ours to change.
            Owner::Us | Owner::Nobody if self.composite => Owner::Other("a composite alarm".into()),
            owner => owner,
        }
    }
}

/// Which alarm of the spec an alarm in CloudWatch is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The alarm's name in the spec.
    pub alarm: String,
    /// The environment it was made for.
    pub environment: Option<String>,
    /// How bad it is when it fires.
    pub severity: Severity,
}

/// What an AlarmSet asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By name in CloudWatch.
    pub alarms: Desired<String, Configuration>,
    /// The tags of each alarm that is to be there.
    pub tags: BTreeMap<String, AlarmTags>,
    /// What each of them is in the spec, those that cannot be made included.
    pub members: BTreeMap<String, Member>,
}

/// The alarms of `set`. `topics` are those that exist and are ours: an alarm that pointed at
/// another's topic would tell them.
pub fn desired(
    cluster: &str,
    set: &AlarmSet,
    tenant: &TenantObservability,
    topics: &BTreeMap<Severity, BTreeSet<String>>,
    mark: &Mark,
) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.alarms.adoption = set.spec.adoption_policy.into();
    let slots = slots(set, tenant);
    if slots.iter().any(|slot| matches!(slot, Slot::Unknown(..))) {
        // It may be a typo for one that the set does not name now, whose alarms are there.
        wanted.alarms.deletion = DeletionPolicy::Orphan.into();
    }
    for slot in slots {
        for alarm in &set.spec.alarms {
            let environment = slot.name();
            let name = names::alarm(
                cluster,
                &tenant.name_any(),
                alarm.severity,
                &set.name_any(),
                &alarm.name,
                environment,
            );
            let member = Member {
                alarm: alarm.name.clone(),
                environment: environment.map(str::to_owned),
                severity: alarm.severity,
            };
            let tags = AlarmTags::of(mark, &set.name_any(), &alarm.name, environment);
            wanted.members.insert(name.clone(), member);
            match configuration(set, alarm, &slot, (tenant, topics), mark) {
                _ if wanted.alarms.wanted.len() >= LIMIT => {
                    let message = format!(
                        "{} alarms × the tenant's environments is more than {LIMIT}: split the AlarmSet",
                        set.spec.alarms.len()
                    );
                    wanted.alarms.blocked.insert(name, Error::invalid(message));
                }
                Ok(configuration) => {
                    wanted.tags.insert(name.clone(), tags);
                    wanted.alarms.wanted.insert(name, configuration);
                }
                Err(error) => drop(wanted.alarms.blocked.insert(name, error)),
            }
        }
    }
    wanted
}

/// What each alarm is made once for.
enum Slot<'a> {
    /// Once, without the dimension.
    Whole,
    /// For an environment.
    In(&'a Environment),
    /// For an environment that the tenant does not have.
    Unknown(&'a str, String),
}

impl Slot<'_> {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Whole => None,
            Self::In(environment) => Some(&environment.name),
            Self::Unknown(name, _) => Some(name),
        }
    }
}

fn slots<'a>(set: &'a AlarmSet, tenant: &'a TenantObservability) -> Vec<Slot<'a>> {
    let has = &tenant.spec.environments;
    match set.spec.environments.as_deref() {
        None => vec![Slot::Whole],
        Some([all]) if all == "*" => has.iter().map(Slot::In).collect(),
        Some(names) => names
            .iter()
            .map(|name| match has.iter().find(|environment| environment.name == *name) {
                Some(environment) => Slot::In(environment),
                None => {
                    let known: Vec<_> = has.iter().map(|environment| environment.name.as_str()).collect();
                    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                    let message = format!(
                        "environment {name} is not one of tenant {}'s ({known}): correct spec.environments here, or add it there; until then no alarm of this set is removed",
                        tenant.name_any()
                    );
                    Slot::Unknown(name, message)
                }
            })
            .collect(),
    }
}

fn configuration(
    set: &AlarmSet,
    alarm: &Alarm,
    slot: &Slot<'_>,
    (tenant, topics): (&TenantObservability, &BTreeMap<Severity, BTreeSet<String>>),
    mark: &Mark,
) -> Result<Configuration, Error> {
    let mut dimensions = alarm.dimensions.clone();
    match slot {
        Slot::Whole => {}
        Slot::Unknown(_, message) => return Err(Error::new(Class::Invalid, message.clone())),
        Slot::In(environment) => {
            let name = set.spec.environment_dimension.clone();
            let value = environment.deployment_id().to_owned();
            if dimensions.insert(name.clone(), value).is_some() {
                return Err(Error::invalid(format!(
                    "alarm {} sets the dimension {name}, which spec.environments sets to the environment: remove one of both",
                    alarm.name
                )));
            }
        }
    }
    let actions = topics.get(&alarm.severity).cloned().unwrap_or_default();
    // Readers of mail hear that its data ended while it fired. Our topics keep the rest from them, and all of it from
    // pagers; topics of somebody's own would tell everything.
    let mut listed = tenant.spec.notify.iter().flat_map(|notify| notify.listed());
    let is_read = listed
        .any(|(severity, recipients)| severity == alarm.severity && !recipients.emails.is_empty());
    let named = |arn: &String| names::is_called_as_ours(arn);
    let without_data = actions.iter().filter(|arn| is_read && named(arn)).cloned();
    let without_data = without_data.collect();
    let runbook = alarm
        .runbook_url
        .as_ref()
        .map(|url| format!("Runbook: {url}"));
    let description = alarm.description.clone().filter(|text| !text.is_empty());
    let text: Vec<_> = description.into_iter().chain(runbook).collect();
    Ok(Configuration {
        description: mark.sign(&text.join("\n")),
        namespace: alarm.namespace.clone(),
        metric_name: alarm.metric_name.clone(),
        dimensions,
        statistic: Statistic::parse(&alarm.statistic),
        period: alarm.period,
        evaluation_periods: alarm.evaluation_periods,
        datapoints_to_alarm: alarm
            .datapoints_to_alarm
            .unwrap_or(alarm.evaluation_periods),
        comparison_operator: alarm.comparison_operator.to_string(),
        threshold: Some(alarm.threshold),
        treat_missing_data: alarm
            .treat_missing_data
            .unwrap_or(TreatMissingData::Missing)
            .to_string(),
        actions_enabled: true,
        alarm_actions: actions.clone(),
        ok_actions: actions,
        insufficient_data_actions: without_data,
        tags_in_events: TagsInEvents::ours(),
        state: None,
        foreign_fields: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::AlarmSetSpec,
        engine::{plan::diff, rendering::Step},
        kinds::mark::Cluster,
    };
    use serde_json::json;

    fn tenant() -> TenantObservability {
        let spec = json!({"environments": [{"name": "pilot"}, {"name": "prod", "deploymentId": "campuscore-prod"}]});
        let mut tenant = TenantObservability::new("vsu", serde_json::from_value(spec).unwrap());
        tenant.metadata.namespace = Some("vsu".into());
        tenant
    }

    fn set(environments: serde_json::Value, alarm: serde_json::Value) -> AlarmSet {
        let mut item = json!({"name": "p95", "severity": "warning", "namespace": "CampusCore",
            "metricName": "chat.request.duration_ms", "statistic": "p95", "period": 300, "evaluationPeriods": 3,
            "comparisonOperator": "GreaterThanThreshold", "threshold": 5000});
        item.as_object_mut()
            .unwrap()
            .extend(alarm.as_object().unwrap().clone());
        let spec =
            json!({"tenantRef": {"name": "vsu"}, "environments": environments, "alarms": [item]});
        let mut set = AlarmSet::new(
            "golden",
            serde_json::from_value::<AlarmSetSpec>(spec).unwrap(),
        );
        set.metadata.namespace = Some("vsu".into());
        set
    }

    fn wanted(set: &AlarmSet) -> Wanted {
        wanted_for(set, &tenant(), &["arn:topic"])
    }

    /// With these topics for warnings.
    fn wanted_for(set: &AlarmSet, tenant: &TenantObservability, topics: &[&str]) -> Wanted {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let mark = Mark::of(
            &Cluster {
                name: "eu".into(),
                uid: "0a1b2c3d".into(),
            },
            "AlarmSet",
            "vsu",
            "golden",
        );
        desired(
            "eu",
            set,
            tenant,
            &[(Severity::Warning, topics)].into(),
            &mark,
        )
    }

    #[test]
    fn one_alarm_per_environment_with_its_dimension() {
        let wanted = wanted(&set(
            json!(["*"]),
            json!({"dimensions": {"Surface": "chat"}}),
        ));
        let shown: Vec<_> = wanted
            .alarms
            .wanted
            .iter()
            .map(|(name, alarm)| (name.as_str(), alarm.dimensions.clone()))
            .collect();
        let dimensions = |id: &str| {
            [
                ("DeploymentId".to_owned(), id.to_owned()),
                ("Surface".into(), "chat".into()),
            ]
            .into()
        };
        assert_eq!(
            shown,
            [
                (
                    "campanile/eu/vsu/warning/golden/p95@pilot",
                    dimensions("pilot")
                ),
                (
                    "campanile/eu/vsu/warning/golden/p95@prod",
                    dimensions("campuscore-prod")
                ),
            ]
        );
    }

    #[test]
    fn without_environments_one_alarm_without_the_dimension() {
        let wanted = wanted(&set(json!(null), json!({})));
        let (name, alarm) = wanted.alarms.wanted.first_key_value().unwrap();
        assert_eq!(
            (name.as_str(), alarm.dimensions.len()),
            ("campanile/eu/vsu/warning/golden/p95", 0)
        );
    }

    #[test]
    fn each_alarm_carries_what_it_is_in_the_spec() {
        let owner = (
            "campanile.dev/owner",
            "campanile:eu/0a1b2c3d/AlarmSet/vsu/golden",
        );
        let (set_tag, alarm) = (("campanile-set", "golden"), ("campanile-alarm", "p95"));
        for (environments, expected) in [
            (
                json!(["*"]),
                vec![("@pilot", Some("pilot")), ("@prod", Some("prod"))],
            ),
            (json!(null), vec![("", None)]),
        ] {
            let wanted = wanted(&set(environments, json!({})));
            let names = wanted.alarms.wanted.keys();
            assert!(names.eq(wanted.tags.keys()));
            for ((name, tags), (end, environment)) in wanted.tags.iter().zip(expected) {
                assert_eq!(*name, format!("campanile/eu/vsu/warning/golden/p95{end}"));
                let mut all = vec![owner, set_tag, alarm];
                all.extend(environment.map(|name| ("campanile-environment", name)));
                assert_eq!(tags.pairs().collect::<Vec<_>>(), all);
                let alarm = &wanted.alarms.wanted[name];
                assert_eq!(alarm.tags_in_events, TagsInEvents::ours());
            }
        }
    }

    /// An alarm that was made before its tags travelled is put once, and the plan says why.
    #[test]
    fn an_alarm_whose_tags_do_not_travel_is_updated() {
        let wanted = wanted(&set(json!(null), json!({})));
        let (name, right) = wanted.alarms.wanted.first_key_value().unwrap();
        for (was, told) in [
            (TagsInEvents::ours(), None),
            (TagsInEvents::Off, Some("unset")),
            (TagsInEvents::All, Some("all")),
            (
                TagsInEvents::Only(["campanile-alarm".to_owned()].into()),
                Some("campanile-alarm"),
            ),
        ] {
            let found = Found {
                id: (),
                value: Configuration {
                    tags_in_events: was,
                    ..right.clone()
                },
                owner: Owner::Us,
                live: (),
            };
            let changes = diff(
                &wanted.alarms,
                &[(name.clone(), found)].into_iter().collect(),
            )
            .changes;
            let steps = changes
                .iter()
                .map(|change| Step::of("alarm", change).difference());
            let told = told.map(|was| {
                format!(
                    "alarm {name}: alarm tags in events was {was}, wanted campanile-alarm, campanile-environment, campanile-set"
                )
            });
            assert_eq!(steps.collect::<Vec<_>>(), Vec::from_iter(told));
        }
    }

    #[test]
    fn an_unknown_environment_holds_only_its_own_alarms() {
        let wanted = wanted(&set(json!(["prod", "stage"]), json!({})));
        assert!(wanted.tags.keys().eq(wanted.alarms.wanted.keys()));
        assert_eq!(
            wanted.alarms.wanted.keys().collect::<Vec<_>>(),
            ["campanile/eu/vsu/warning/golden/p95@prod"]
        );
        let (name, error) = wanted.alarms.blocked.first_key_value().unwrap();
        assert_eq!(
            (name.as_str(), error.class),
            ("campanile/eu/vsu/warning/golden/p95@stage", Class::Invalid)
        );
        assert_eq!(
            error.message,
            "environment stage is not one of tenant vsu's (pilot, prod): correct spec.environments here, or add it there; until then no alarm of this set is removed"
        );
    }

    #[test]
    fn a_dimension_set_twice_is_refused() {
        let wanted = wanted(&set(
            json!(["prod"]),
            json!({"dimensions": {"DeploymentId": "x"}}),
        ));
        assert!(
            wanted
                .alarms
                .blocked
                .values()
                .next()
                .unwrap()
                .message
                .contains("remove one of both")
        );
    }

    #[test]
    fn that_its_data_ended_is_told_to_our_topic_where_somebody_reads_mail() {
        let ours = "arn:aws:sns:us-east-2:222233334444:campanile_vsu_warning_0a1b2c3d";
        let theirs = "arn:aws:sns:us-east-2:222233334444:pager";
        for (recipients, told) in [
            (json!({"emails": ["a@vsu.example"]}), vec![ours]),
            (json!({}), vec![]),
        ] {
            let mut tenant = tenant();
            let notify = json!({"warning": recipients, "critical": {"emails": ["b@vsu.example"]}});
            tenant.spec.notify = Some(serde_json::from_value(notify).unwrap());
            let set = set(json!(["prod"]), json!({"severity": "warning"}));
            let wanted = wanted_for(&set, &tenant, &[ours, theirs]);
            let alarm = wanted.alarms.wanted.values().next().unwrap();
            assert_eq!(alarm.alarm_actions.len(), 2);
            let without_data: Vec<_> = alarm.insufficient_data_actions.iter().collect();
            assert_eq!(without_data, told);
        }
    }

    #[test]
    fn actions_go_to_the_topic_of_the_severity_if_there_is_one() {
        for (severity, actions) in [("warning", vec!["arn:topic"]), ("critical", vec![])] {
            let wanted = wanted(&set(json!(["prod"]), json!({"severity": severity})));
            let alarm = wanted.alarms.wanted.values().next().unwrap().clone();
            assert_eq!(
                alarm
                    .alarm_actions
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
                actions
            );
            assert_eq!(alarm.ok_actions, alarm.alarm_actions);
        }
    }

    #[test]
    fn defaults_are_those_of_cloudwatch() {
        let wanted = wanted(&set(
            json!(["prod"]),
            json!({"description": "slow", "runbookUrl": "https://r.example/x"}),
        ));
        let alarm = wanted.alarms.wanted.values().next().unwrap();
        assert_eq!(
            alarm.description,
            "slow\nRunbook: https://r.example/x\ncampanile:eu/0a1b2c3d/AlarmSet/vsu/golden"
        );
        assert_eq!(
            (alarm.datapoints_to_alarm, alarm.treat_missing_data.as_str()),
            (3, "missing")
        );
        assert_eq!(alarm.statistic, Statistic::Extended("p95".into()));
        assert_eq!(Statistic::parse("Sum"), Statistic::Plain("Sum".into()));
    }

    #[test]
    fn the_longest_description_fits() {
        let cluster = Cluster {
            name: "c".repeat(32),
            uid: "0a1b2c3d".into(),
        };
        let mark = Mark::of(&cluster, "AlarmSet", &"n".repeat(63), &"s".repeat(63));
        let text = format!("{}\nRunbook: {}", "d".repeat(512), "r".repeat(256));
        assert!(mark.sign(&text).chars().count() <= 1024);
    }
}
