"""What CloudWatch tells EventBridge of an alarm: the emulator tells nothing, and takes no such event from outside either."""

import json
import time
import uuid

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudwatch, eventbridge

SUPPRESSION = ("ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod")
COPIED = (
    "EvaluationPeriods", "DatapointsToAlarm", "Threshold", "ThresholdMetricId", "ComparisonOperator", "TreatMissingData",
    "EvaluateLowSampleCountPercentile", "AlarmName", "ActionsEnabled", "AlarmActions", "InsufficientDataActions",
)


def moment(epoch):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch)) + f".{int(epoch * 1000) % 1000:03d}+0000"


def state_of(alarm):
    state = {
        "value": alarm["StateValue"],
        "reason": alarm.get("StateReason"),
        "reasonData": alarm.get("StateReasonData"),
        "timestamp": moment(alarm["StateUpdatedTimestamp"]),
    }
    return {key: value for key, value in state.items() if value is not None}


def changed_state(alarm, before):
    """`before`: the state that it was in, as `state_of` told it then."""
    detail = {
        "alarmName": alarm["AlarmName"],
        "configuration": described(alarm),
        "previousState": before,
        "state": state_of(alarm),
    }
    tags = propagated_tags(alarm)
    if tags is not None:
        detail |= {"alarmTags": tags, "alarmTagsStatus": "SUCCESS"}
    emit("CloudWatch Alarm State Change", alarm, detail)


def changed_configuration(alarm, operation, before=None):
    detail = {
        "alarmName": alarm["AlarmName"],
        "operation": operation,
        "state": {"value": alarm["StateValue"], "timestamp": moment(alarm["StateUpdatedTimestamp"])},
        "configuration": configuration_of(alarm),
    }
    if before:
        detail["previousConfiguration"] = configuration_of(before)
    emit("CloudWatch Alarm Configuration Change", alarm, detail)


def emit(kind, alarm, detail):
    entry = {
        "Source": "aws.cloudwatch",
        "DetailType": kind,
        "Resources": [alarm["AlarmArn"]],
        "Detail": json.dumps(detail, ensure_ascii=False, separators=(",", ":")),
    }
    eventbridge._ensure_default_bus()
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def described(alarm):
    """Of the configuration, what a change of state carries: no threshold, and of a composite alarm no metrics."""
    told = {"description": alarm["AlarmDescription"]} if alarm.get("AlarmDescription") else {}
    if "AlarmRule" in alarm:
        suppression = {lower(key): alarm[key] for key in SUPPRESSION if alarm.get(key) is not None}
        return told | {"alarmRule": alarm["AlarmRule"]} | suppression
    if "Metrics" in alarm:
        return told | {"metrics": [query_of(query) for query in alarm["Metrics"]]}
    if "MetricName" not in alarm:
        return told
    # The id of the one metric of an alarm is AWS's own, and stays the same.
    told["metrics"] = [{
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, alarm["AlarmArn"])),
        "metricStat": stat_of(alarm, alarm["Period"], alarm.get("ExtendedStatistic") or alarm.get("Statistic"), alarm),
        "returnData": True,
    }]
    return told


def configuration_of(alarm):
    copied = {lower(key): alarm[key] for key in COPIED if alarm.get(key) is not None}
    copied |= {"okActions": alarm.get("OKActions", []), "timestamp": moment(alarm["AlarmConfigurationUpdatedTimestamp"])}
    return described(alarm) | copied


def query_of(query):
    told = {"id": query["Id"]}
    told |= {lower(key): query[key] for key in ("Expression", "Label", "Period", "AccountId") if query.get(key) is not None}
    stat = query.get("MetricStat")
    if stat:
        told["metricStat"] = stat_of(stat["Metric"], stat["Period"], stat["Stat"], stat)
    return told | {"returnData": query.get("ReturnData", True)}


def stat_of(metric, period, stat, unit):
    dimensions = {each["Name"]: each["Value"] for each in metric.get("Dimensions") or []}
    told = {
        "metric": {"namespace": metric["Namespace"], "name": metric["MetricName"], "dimensions": dimensions},
        "period": period,
        "stat": stat,
    }
    return told | ({"unit": unit["Unit"]} if unit.get("Unit") else {})


def propagated_tags(alarm):
    """None where nobody asked for them. AWS's own tags never are among them."""
    wanted = (alarm.get("ActionConfiguration") or {}).get("AlarmTagsPropagation") or {}
    if not wanted.get("Enabled"):
        return None
    tags = cloudwatch._resource_tags.get(alarm["AlarmArn"]) or {}
    included, excluded = wanted.get("IncludedTagKeys"), wanted.get("ExcludedTagKeys") or []
    return {
        key: value
        for key, value in tags.items()
        if not key.startswith("aws:") and key not in excluded and (not included or key in included)
    }


def lower(key):
    return key[0].lower() + key[1:]
