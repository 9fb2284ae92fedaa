//! The damage matrix: each attribute of each type of thing that Campanile makes is changed by hand. It is told on the
//! right resource, with what and since when, and put back; or it is theirs, and stays.

use super::{
    Operator, World,
    alarm_sets::{alarms, tenant},
    operator::POLL,
    slack_channels::channel,
};
use crate::{
    api::{AlarmSet, SlackChannel, TenantObservability},
    kinds::{
        alarm_set::cloudwatch::OF_ALARM,
        attributes::{Attribute, Attributes},
        tenant::{
            attributes::{SUBSCRIPTION, TOPIC, Upkeep},
            eventbridge::attributes::{
                OF_AUTHORIZATION, OF_CONNECTION, OF_DESTINATION, OF_RULE, OF_TARGET,
            },
        },
    },
};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
};

/// Two of the slow polls.
const TWO_POLLS: std::time::Duration = POLL.saturating_mul(21);

/// What is to become of a damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It is put back, and `Drifted` says so with this word.
    Repaired(&'static str),
    /// It stays, and nothing is said.
    Theirs,
    /// It carries our mark no more: it is a stranger's, `Ready` says so, and it stays.
    Conflict,
    /// No call of AWS takes it back: `Ready` says what to do, and it stays.
    Told,
}
use Outcome::{Conflict, Repaired, Theirs, Told};

/// One damage: to which type of thing, to which attribute, where that is in what the double keeps, and the new value.
type Row = (&'static str, &'static str, &'static str, Json, Outcome);

fn of_alarms() -> Vec<Row> {
    let description = "Somebody's own";
    let query = json!([{"Id": "m1", "Expression": "1", "ReturnData": true}]);
    let all = [
        (
            "alarm_description",
            "/AlarmDescription",
            json!(description),
            Conflict,
        ),
        (
            "actions_enabled",
            "/ActionsEnabled",
            json!(false),
            Repaired("actionsEnabled"),
        ),
        ("ok_actions", "/OKActions", json!([]), Repaired("okActions")),
        (
            "alarm_actions",
            "/AlarmActions",
            json!([]),
            Repaired("alarmActions"),
        ),
        (
            "insufficient_data_actions",
            "/InsufficientDataActions",
            json!(["arn:x"]),
            Repaired("insufficientDataActions"),
        ),
        (
            "metric_name",
            "/MetricName",
            json!("other"),
            Repaired("metricName"),
        ),
        (
            "namespace",
            "/Namespace",
            json!("Other"),
            Repaired("namespace"),
        ),
        (
            "statistic",
            "/Statistic",
            json!("Average"),
            Repaired("statistic"),
        ),
        (
            "extended_statistic",
            "/ExtendedStatistic",
            json!("p99"),
            Repaired("statistic"),
        ),
        (
            "dimensions",
            "/Dimensions",
            json!([{"Name": "a", "Value": "b"}]),
            Repaired("dimensions"),
        ),
        ("period", "/Period", json!(300), Repaired("period")),
        ("unit", "/Unit", json!("Seconds"), Repaired("unit")),
        (
            "evaluation_periods",
            "/EvaluationPeriods",
            json!(5),
            Repaired("evaluationPeriods"),
        ),
        (
            "datapoints_to_alarm",
            "/DatapointsToAlarm",
            json!(2),
            Repaired("datapointsToAlarm"),
        ),
        (
            "threshold",
            "/Threshold",
            json!(99.0),
            Repaired("threshold"),
        ),
        (
            "comparison_operator",
            "/ComparisonOperator",
            json!("LessThanThreshold"),
            Repaired("comparisonOperator"),
        ),
        (
            "treat_missing_data",
            "/TreatMissingData",
            json!("ignore"),
            Repaired("treatMissingData"),
        ),
        (
            "evaluate_low_sample_count_percentile",
            "/EvaluateLowSampleCountPercentile",
            json!("ignore"),
            Repaired("evaluateLowSampleCountPercentile"),
        ),
        ("metrics", "/Metrics", query, Repaired("metrics")),
        (
            "threshold_metric_id",
            "/ThresholdMetricId",
            json!("band"),
            Repaired("thresholdMetricId"),
        ),
        (
            "evaluation_window",
            "/EvaluationWindow",
            json!({"WallClockWindow": {"Timezone": "UTC"}}),
            Repaired("evaluationWindow"),
        ),
        (
            "warm_up_configuration",
            "/WarmUpConfiguration",
            json!({"WarmUpPeriodDurationInMinutes": 9}),
            Repaired("warmUpConfiguration"),
        ),
        (
            "evaluation_criteria",
            "/EvaluationCriteria",
            json!({"PromQLCriteria": {"Query": "up"}}),
            Repaired("evaluationCriteria"),
        ),
        (
            "evaluation_interval",
            "/EvaluationInterval",
            json!(30),
            Repaired("evaluationInterval"),
        ),
        (
            "action_configuration",
            "/ActionConfiguration",
            json!({}),
            Repaired("tags in events"),
        ),
    ];
    all.into_iter()
        .map(|(attribute, at, to, outcome)| ("alarm", attribute, at, to, outcome))
        .collect()
}

fn of_eventbridge() -> Vec<Row> {
    let role = || json!("arn:aws:iam::222233334444:role/other");
    let parameters =
        json!({"HeaderParameters": [{"Key": "X-Team", "Value": "a", "IsValueSecret": false}]});
    let description = || json!("Somebody's own");
    vec![
        (
            "rule",
            "event_pattern",
            "/EventPattern",
            json!(r#"{"source":["aws.ec2"]}"#),
            Repaired("pattern"),
        ),
        (
            "rule",
            "state",
            "/State",
            json!("DISABLED"),
            Repaired("state"),
        ),
        (
            "rule",
            "description",
            "/Description",
            description(),
            Conflict,
        ),
        (
            "rule",
            "schedule_expression",
            "/ScheduleExpression",
            json!("rate(1 day)"),
            Repaired("schedule"),
        ),
        ("rule", "role_arn", "/RoleArn", role(), Repaired("role")),
        (
            "target",
            "arn",
            "/Targets/alerts/Arn",
            json!("arn:aws:sqs:us-east-2:222233334444:other"),
            Repaired("api destination"),
        ),
        (
            "target",
            "role_arn",
            "/Targets/alerts/RoleArn",
            role(),
            Repaired("role"),
        ),
        (
            "target",
            "input",
            "/Targets/alerts/Input",
            json!("{}"),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "input_path",
            "/Targets/alerts/InputPath",
            json!("$.detail"),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "input_transformer",
            "/Targets/alerts/InputTransformer/InputTemplate",
            json!("\"<name>\""),
            Repaired("message"),
        ),
        (
            "target",
            "kinesis_parameters",
            "/Targets/alerts/KinesisParameters",
            json!({"PartitionKeyPath": "$.id"}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "run_command_parameters",
            "/Targets/alerts/RunCommandParameters",
            json!({"RunCommandTargets": []}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "ecs_parameters",
            "/Targets/alerts/EcsParameters",
            json!({"TaskDefinitionArn": "arn"}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "batch_parameters",
            "/Targets/alerts/BatchParameters",
            json!({"JobDefinition": "a", "JobName": "a"}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "sqs_parameters",
            "/Targets/alerts/SqsParameters",
            json!({}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "http_parameters",
            "/Targets/alerts/HttpParameters",
            json!({}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "redshift_data_parameters",
            "/Targets/alerts/RedshiftDataParameters",
            json!({"Database": "a"}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "sage_maker_pipeline_parameters",
            "/Targets/alerts/SageMakerPipelineParameters",
            json!({}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "app_sync_parameters",
            "/Targets/alerts/AppSyncParameters",
            json!({}),
            Repaired("foreign fields"),
        ),
        (
            "target",
            "dead_letter_config",
            "/Targets/alerts/DeadLetterConfig",
            json!({"Arn": "arn:aws:sqs:us-east-2:222233334444:other"}),
            Repaired("dead letters"),
        ),
        (
            "target",
            "retry_policy",
            "/Targets/alerts/RetryPolicy/MaximumEventAgeInSeconds",
            json!(60),
            Repaired("tries for seconds"),
        ),
        (
            "connection",
            "description",
            "/Description",
            description(),
            Conflict,
        ),
        (
            "connection",
            "authorization_type",
            "/AuthorizationType",
            json!("BASIC"),
            Repaired("header"),
        ),
        (
            "connection",
            "kms_key_identifier",
            "/KmsKeyIdentifier",
            json!("alias/other"),
            Theirs,
        ),
        (
            "connection",
            "invocation_connectivity_parameters",
            "/InvocationConnectivityParameters",
            json!({"ResourceParameters": {"ResourceConfigurationArn": "arn", "ResourceAssociationArn": "arn"}}),
            Told,
        ),
        (
            "authorization",
            "api_key_auth_parameters",
            "/AuthParameters/ApiKeyAuthParameters",
            json!({"ApiKeyName": "X-Other", "ApiKeyValue": "x"}),
            Repaired("header"),
        ),
        (
            "authorization",
            "invocation_http_parameters",
            "/AuthParameters/InvocationHttpParameters",
            parameters,
            Repaired("foreign fields"),
        ),
        (
            "authorization",
            "basic_auth_parameters",
            "/AuthParameters/BasicAuthParameters",
            json!({"Username": "a"}),
            Repaired("foreign fields"),
        ),
        (
            "authorization",
            "o_auth_parameters",
            "/AuthParameters/OAuthParameters",
            json!({}),
            Repaired("foreign fields"),
        ),
        (
            "authorization",
            "connectivity_parameters",
            "/AuthParameters/ConnectivityParameters",
            json!({"ResourceParameters": {"ResourceConfigurationArn": "arn", "ResourceAssociationArn": "arn"}}),
            Repaired("foreign fields"),
        ),
        (
            "destination",
            "description",
            "/Description",
            description(),
            Conflict,
        ),
        (
            "destination",
            "connection_arn",
            "/ConnectionArn",
            json!("arn:aws:events:us-east-2:222233334444:connection/other/1"),
            Repaired("connection"),
        ),
        (
            "destination",
            "invocation_endpoint",
            "/InvocationEndpoint",
            json!("https://other.example/x"),
            Repaired("endpoint"),
        ),
        (
            "destination",
            "http_method",
            "/HttpMethod",
            json!("PUT"),
            Repaired("method"),
        ),
        (
            "destination",
            "invocation_rate_limit_per_second",
            "/InvocationRateLimitPerSecond",
            json!(300),
            Repaired("requests per second"),
        ),
    ]
}

fn of_sns() -> Vec<Row> {
    let value = |name: &str| match name {
        "KmsMasterKeyId" => "alias/aws/sns",
        "DeliveryPolicy" => r#"{"http":{"defaultHealthyRetryPolicy":{"numRetries":0}}}"#,
        "MaximumMessageSize" => "1024",
        "SignatureVersion" => "2",
        "Policy" => r#"{"Statement":[]}"#,
        "FilterPolicy" => r#"{"NewStateValue":["OK"]}"#,
        "FilterPolicyScope" => "MessageAttributes",
        "RawMessageDelivery" => "true",
        _ => "something",
    };
    let rows = |type_: &'static str, table: &[(&'static str, Upkeep)]| {
        let row = |(name, upkeep): &(&'static str, Upkeep)| {
            let outcome = match upkeep {
                Upkeep::OfTopic => Repaired("policy"),
                Upkeep::Declared(_) | Upkeep::Default(_) => Repaired(name),
                Upkeep::Theirs | Upkeep::Elsewhere => Theirs,
            };
            (type_, *name, "", json!(value(name)), outcome)
        };
        table.iter().map(row).collect::<Vec<_>>()
    };
    [rows("topic", TOPIC), rows("subscription", SUBSCRIPTION)].concat()
}

fn of_slack() -> Vec<Row> {
    vec![
        ("channel", "name", "/name", json!("other"), Repaired("name")),
        (
            "channel",
            "topic",
            "/topic/value",
            json!("other"),
            Repaired("topic"),
        ),
        (
            "channel",
            "purpose",
            "/purpose/value",
            json!("other"),
            Repaired("purpose"),
        ),
    ]
}

/// That a table has a row for each attribute that somebody may set, or none can set by itself: what a thing is called.
fn assert_tried(type_: &str, tables: &[Attributes], rows: &[Row]) {
    let named = ["name", "alarm_name", "id"];
    let all = tables.iter().copied().flatten();
    let settable = all.filter(|(name, ours)| *ours != Attribute::ReadOnly && !named.contains(name));
    let settable: BTreeSet<_> = settable.map(|(name, _)| *name).collect();
    let tried = rows
        .iter()
        .filter(|(of, ..)| *of == type_ || type_ == "connection" && *of == "authorization");
    let mut tried: BTreeSet<_> = tried.map(|(_, name, ..)| *name).collect();
    // What is in it is tried part by part.
    tried.extend((type_ == "connection").then_some("auth_parameters"));
    assert_eq!(tried, settable, "{type_}");
}

struct Site {
    world: World,
    /// Where each type of thing is, by a part of its ARN.
    things: BTreeMap<&'static str, String>,
}

async fn site(policy: &str) -> Site {
    let world = World::new();
    world.secret("hook", "url", &world.slack.webhook());
    channel(
        &world,
        json!({"purpose": "Pages", "webhookSecretRef": {"name": "hook", "key": "url"}}),
    );
    let mut tenant = tenant();
    tenant["driftPolicy"] = json!(policy);
    tenant["notify"]["warning"]["slack"] = json!([{"channelRef": {"name": "alerts"}}]);
    world.apply("TenantObservability", "vsu", tenant);
    world.apply("AlarmSet", "golden", alarms(&[("errors", 1.0)], json!({})));
    let operator = Operator::new(&world);
    operator.converge().await;
    world.aws.confirm();
    tokio::time::sleep(TWO_POLLS).await;
    operator.converge().await;
    let all = world.aws.things("");
    let first = |part: &str| {
        let mut found = all.keys().filter(|arn| arn.contains(part));
        found
            .next()
            .unwrap_or_else(|| panic!("{part} in {all:#?}"))
            .clone()
    };
    let subscription = all.iter().find(|(_, it)| it["Protocol"] == "email");
    let topic = all
        .keys()
        .find(|arn| arn.contains(":sns:") && arn.split(':').count() == 6);
    let things = [
        ("alarm", first(":alarm:")),
        ("topic", topic.unwrap().clone()),
        ("subscription", subscription.unwrap().0.clone()),
        ("rule", first(":rule/")),
        ("target", first(":rule/")),
        ("connection", first(":connection/")),
        ("authorization", first(":connection/")),
        ("destination", first(":api-destination/")),
    ];
    Site {
        world,
        things: things.into(),
    }
}

impl Site {
    fn thing(&self, world: &World, type_: &str) -> Json {
        match self.things.get(type_) {
            Some(arn) => world.aws.things(arn)[arn].clone(),
            None => world.slack.channels().pop_first().unwrap().1,
        }
    }

    fn damage(&self, world: &World, (type_, name, at, to, _): &Row) {
        let at = match *at {
            "" => format!("/Attributes/{name}"),
            at => at.to_owned(),
        };
        let edit = |thing: &mut Json| {
            let mut place = &mut *thing;
            for part in at.split('/').skip(1) {
                place = &mut place[part];
            }
            *place = to.clone();
            // No alarm has both.
            if *name == "extended_statistic" {
                thing["Statistic"] = Json::Null;
            }
        };
        match self.things.get(type_) {
            Some(arn) => world.aws.edit(arn, edit),
            None => world.slack.edit(
                world.slack.channels().pop_first().unwrap().1["id"]
                    .as_str()
                    .unwrap(),
                edit,
            ),
        }
    }
}

fn told(world: &World, type_: &str, condition: &str) -> (String, String) {
    let (conditions, verdict) = match type_ {
        "alarm" => (
            world.status::<AlarmSet>("golden", "/conditions"),
            world.condition::<AlarmSet>("golden", condition),
        ),
        "channel" => (
            world.status::<SlackChannel>("alerts", "/conditions"),
            world.condition::<SlackChannel>("alerts", condition),
        ),
        _ => (
            world.status::<TenantObservability>("vsu", "/conditions"),
            world.condition::<TenantObservability>("vsu", condition),
        ),
    };
    let mut all = conditions.as_array().unwrap().iter();
    let found = all.find(|it| it["type"] == condition).unwrap();
    (
        verdict,
        found["message"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Without what is null or empty: whether that is there says nothing.
fn plain(value: &Json) -> Json {
    let is_nothing =
        |it: &Json| it.is_null() || *it == json!([]) || *it == json!({}) || *it == json!("");
    match value {
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, it)| (name.clone(), plain(it)));
            Json::Object(fields.filter(|(_, it)| !is_nothing(it)).collect())
        }
        other => other.clone(),
    }
}

/// Whether a thing is as it was; an attribute that had not been set may have its default now.
fn is_as_before((_, attribute, ..): &Row, before: &Json, after: &Json) -> bool {
    let mut after = after.clone();
    let all = TOPIC.iter().chain(SUBSCRIPTION);
    let mut known = all.filter(|(name, _)| name == attribute);
    if let Some((name, Upkeep::Default(default) | Upkeep::Declared(default))) = known.next()
        && before["Attributes"][name].is_null()
        && after["Attributes"][name] == *default
    {
        after["Attributes"][name] = Json::Null;
    }
    plain(&after) == plain(before)
}

#[tokio::test(start_paused = true)]
async fn whatever_somebody_changes_is_told_and_put_back_or_theirs() {
    let rows = [of_alarms(), of_eventbridge(), of_sns(), of_slack()].concat();
    assert_tried("alarm", &[OF_ALARM], &rows);
    assert_tried("rule", &[OF_RULE], &rows);
    assert_tried("target", &[OF_TARGET], &rows);
    assert_tried("connection", &[OF_CONNECTION, OF_AUTHORIZATION], &rows);
    assert_tried("destination", &[OF_DESTINATION], &rows);
    let site = site("Repair").await;
    let mut matrix = Vec::new();
    let mut wrong = Vec::new();
    for row in &rows {
        let (type_, attribute, _, _, outcome) = row;
        let world = site.world.copy();
        let operator = Operator::new(&world);
        operator.converge().await;
        let before = site.thing(&world, type_);
        let (_, said) = told(&world, type_, "Drifted");
        site.damage(&world, row);
        let damaged = site.thing(&world, type_);
        tokio::time::sleep(TWO_POLLS).await;
        operator.rest().await;
        let after = site.thing(&world, type_);
        let (ready, why) = told(&world, type_, "Ready");
        let (drifted, says) = told(&world, type_, "Drifted");
        let right = match outcome {
            Repaired(field) => {
                is_as_before(row, &before, &after)
                    && drifted == "False DriftRepaired"
                    && says.starts_with("repaired at ")
                    && says.contains(field)
                    && ready == "True Applied"
            }
            Theirs => after == damaged && says == said && ready == "True Applied",
            Told => after == damaged && ready == "False PartiallyFailed",
            Conflict => {
                after == damaged && ready == "False Conflict" && why.contains("it was not touched")
            }
        };
        let outcome = match outcome {
            Repaired(_) => says,
            Theirs => "theirs: it stays".into(),
            Conflict | Told => format!("it stays: {why}"),
        };
        let outcome: String = outcome.chars().take(160).collect();
        matrix.push(format!("{type_:13} | {attribute:37} | {outcome}"));
        if !right {
            wrong.push(format!(
                "{type_} {attribute}: {ready} {drifted} {outcome}\n  {before}\n  {after}"
            ));
        }
    }
    // What a test prints is shown only where it fails; this is to be read.
    let mut out = std::io::stdout();
    writeln!(out, "The damage matrix\n{}", matrix.join("\n")).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows.len() >= 60, "{}", rows.len());
}

/// What leads alarms elsewhere than to Slack is no delivery, where it is left as it is.
#[tokio::test(start_paused = true)]
async fn what_leads_elsewhere_is_no_delivery() {
    let site = site("Report").await;
    assert_eq!(
        told(&site.world, "rule", "DeliveryReady").0,
        "True Delivering"
    );
    let harmless = [
        "schedule_expression",
        "dead_letter_config",
        "retry_policy",
        "invocation_rate_limit_per_second",
        "description",
        "kms_key_identifier",
    ];
    let rows = of_eventbridge();
    for row in rows.iter().filter(|(_, name, ..)| !harmless.contains(name)) {
        let world = site.world.copy();
        let operator = Operator::new(&world);
        operator.converge().await;
        site.damage(&world, row);
        tokio::time::sleep(TWO_POLLS).await;
        operator.rest().await;
        let (delivery, says) = told(&world, "rule", "DeliveryReady");
        let expected = match row.1 {
            "state" => "False SlackRuleDisabled",
            _ => "False SlackNotAsDeclared",
        };
        assert_eq!(delivery, expected, "{} {}: {says}", row.0, row.1);
    }
}

/// What was found to differ, and is left, is left though status is wiped.
#[tokio::test(start_paused = true)]
async fn what_is_only_reported_is_left_though_status_is_wiped() {
    let site = site("Report").await;
    let row = of_eventbridge().remove(1);
    let world = site.world.copy();
    let operator = Operator::new(&world);
    operator.converge().await;
    site.damage(&world, &row);
    tokio::time::sleep(TWO_POLLS).await;
    operator.rest().await;
    let damaged = site.thing(&world, "rule");
    for _ in 0..2 {
        assert_eq!(told(&world, "rule", "Drifted").0, "True DriftReported");
        world.wipe::<TenantObservability>();
        operator.rest().await;
        assert_eq!(site.thing(&world, "rule"), damaged);
    }
}
