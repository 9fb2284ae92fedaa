"""CloudWatch alarms kept and evaluated as AWS does.

MiniStack fills in what was never set, forgets metric math and evaluates without dimensions, periods and missing data.
"""

import json
import time

import metrics
import transitions
from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, get_region, new_uuid, request_scope
from ministack.services import cloudwatch, sns
from patch import replace
from transitions import moment

LISTS = ("AlarmActions", "OKActions", "InsufficientDataActions")
ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
STATE = ("StateValue", "StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp")
COMPARED = {
    "GreaterThanThreshold": ("greater than", lambda value, threshold: value > threshold),
    "GreaterThanOrEqualToThreshold": ("greater than or equal to", lambda value, threshold: value >= threshold),
    "LessThanThreshold": ("less than", lambda value, threshold: value < threshold),
    "LessThanOrEqualToThreshold": ("less than or equal to", lambda value, threshold: value <= threshold),
}
# By ARN, the state that an alarm leaves: its own record has the next one by the time it acts.
left = {}
# By name, what a composite alarm is being put with.
put_now = {}
REGIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-1": "US West (N. California)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
    "eu-central-1": "EU (Frankfurt)",
}


def install():
    global their_put, their_put_composite, their_set_state, their_tag_check, their_transition, their_delete
    their_put = replace(cloudwatch, "_put_metric_alarm", put_metric_alarm)
    their_put_composite = replace(cloudwatch, "_put_composite_alarm", put_composite_alarm)
    their_set_state = replace(cloudwatch, "_set_alarm_state", set_alarm_state)
    their_tag_check = replace(cloudwatch, "_validate_alarm_tag_arn", check_tagged)
    their_transition = replace(cloudwatch, "_transition_composite", turn_composite)
    their_delete = replace(cloudwatch, "_delete_alarms", delete_alarms)
    replace(cloudwatch, "_evaluate_alarm", evaluate)
    replace(cloudwatch, "_evaluate_all_alarms", evaluate_all)
    replace(cloudwatch, "_dispatch_alarm_actions", act)


def now():
    return round(time.time(), 3)


def arn_of(name):
    return f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm:{name}"


# Putting


def put_metric_alarm(params, request, is_cbor, is_json=False):
    if not (is_cbor or is_json):
        return their_put(params, request, is_cbor, is_json)
    name = request["AlarmName"]
    before = cloudwatch._alarms.get(name)
    refused = cloudwatch._alarm_tags_refusal(
        request.get("Tags"), request.get("DatapointsToAlarm"), before is None, is_cbor, is_json
    )
    if refused is None and name in cloudwatch._composite_alarms:
        message = f"Alarm {name} already exists as a composite alarm"
        refused = cloudwatch._error("ValidationError", message, 400, use_json=is_json, use_cbor=is_cbor)
    if refused:
        return refused
    # What was not put is not described either, but for these.
    alarm = {"ActionsEnabled": True, "Dimensions": [], **{key: [] for key in LISTS}}
    alarm |= {key: value for key, value in request.items() if key != "Tags" and value is not None}
    alarm |= {"AlarmArn": arn_of(name), "AlarmConfigurationUpdatedTimestamp": now()}
    alarm |= {key: before[key] for key in STATE if key in before} if before else initial_state()
    cloudwatch._alarms[name] = alarm
    if before is None:
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []}
        if tags:
            cloudwatch._resource_tags[alarm["AlarmArn"]] = tags
    transitions.changed_configuration(alarm, "update" if before else "create", before)
    evaluate(alarm)
    return cloudwatch._cbor_ok({}) if is_cbor else cloudwatch._json_ok({})


def initial_state():
    return {
        "StateValue": "INSUFFICIENT_DATA",
        "StateReason": "Unchecked: Initial alarm creation",
        "StateUpdatedTimestamp": now(),
        "StateTransitionedTimestamp": now(),
    }


def put_composite_alarm(params, request, is_cbor, is_json=False):
    if not (is_cbor or is_json):
        return their_put_composite(params, request, is_cbor, is_json)
    name = request.get("AlarmName")
    before = cloudwatch._composite_alarms.get(name)
    put_now[name] = request
    answer = their_put_composite(params, request, is_cbor, is_json)
    put_now.pop(name)
    alarm = cloudwatch._composite_alarms.get(name)
    if alarm is not before:
        complete(alarm, request)
        transitions.changed_configuration(alarm, "update" if before else "create", before)
    return answer


def complete(alarm, request):
    """What the emulator forgets of a composite alarm, or makes up."""
    if request.get("AlarmDescription") is None:
        alarm.pop("AlarmDescription", None)
    forgotten = ("ActionConfiguration", "ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod")
    alarm |= {key: request[key] for key in forgotten if request.get(key) is not None}


def turn_composite(alarm, state, *rest):
    """Also when it is put, in the midst of that."""
    if alarm["AlarmName"] in put_now:
        complete(alarm, put_now[alarm["AlarmName"]])
    left[alarm["AlarmArn"]] = transitions.state_of(alarm)
    return their_transition(alarm, state, *rest)


def set_alarm_state(params, request, is_cbor, is_json=False):
    name = request.get("AlarmName") if is_cbor or is_json else cloudwatch._p(params, "AlarmName")
    alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
    if alarm:
        left[alarm["AlarmArn"]] = transitions.state_of(alarm)
        # The data of the last evaluation say nothing of a state that was set.
        alarm.pop("StateReasonData", None)
    return their_set_state(params, request, is_cbor, is_json)


def delete_alarms(params, request, is_cbor, is_json=False):
    if not (is_cbor or is_json):
        return their_delete(params, request, is_cbor, is_json)
    stores = (cloudwatch._alarms, cloudwatch._composite_alarms)
    asked = [(store, store[name]) for name in request.get("AlarmNames") or [] for store in stores if name in store]
    answer = their_delete(params, request, is_cbor, is_json)
    for store, alarm in asked:
        if alarm["AlarmName"] not in store:
            transitions.changed_configuration(alarm, "delete")
    return answer


def check_tagged(arn, is_json=False, is_cbor=False):
    """Tags have an error of their own for what is not there: the emulator answers with that of SetAlarmState."""
    if their_tag_check(arn, is_json, is_cbor) is None:
        return None
    message = f"Resource {arn} does not exist"
    return cloudwatch._error("ResourceNotFoundException", message, 404, use_json=is_json, use_cbor=is_cbor)


# Evaluating


def evaluate_all():
    """What new data calls for. That data stays away is only noticed when the clock is looked at."""
    for alarm in list(cloudwatch._alarms.values()):
        evaluate(alarm)


def evaluate_account(account=None):
    """What AWS does by itself all the time: every alarm of the account, or of all accounts, missing data included."""
    evaluated = 0
    for owner, region in sorted({key[:2] for key in list(cloudwatch._alarms._data) if account in (None, key[0])}):
        with request_scope(owner, region):
            for alarm in list(cloudwatch._alarms.values()):
                evaluate(alarm, missing_counts=True)
                evaluated += 1
    return {"done": evaluated}


def evaluate(alarm, missing_counts=False):
    series = metrics.of_alarm(alarm)
    if series is None or alarm.get("ComparisonOperator") not in COMPARED or "Threshold" not in alarm:
        return
    period, values = series
    wanted = alarm["EvaluationPeriods"]
    newest = int(time.time() // period) * period
    # AWS looks further back than it evaluates, so that a late data point is not a missing one.
    oldest = newest - (wanted + 1) * period
    found = [(start, value) for start, value in values.items() if oldest <= start <= newest]
    found = sorted(found, reverse=True)[:wanted]
    if not found and not missing_counts:
        return
    verdict = judge(alarm, found, newest, period)
    if verdict and verdict != alarm["StateValue"]:
        turn(alarm, verdict, reason_of(alarm, verdict, found), reason_data_of(alarm, found, period))


def judge(alarm, found, newest, period):
    """The state that the data points call for; None keeps the one it has."""
    wanted = alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm", wanted)
    missing = wanted - len(found)
    treatment = alarm.get("TreatMissingData", "missing")
    crossed = COMPARED[alarm["ComparisonOperator"]][1]
    breaching = [start for start, value in found if crossed(value, alarm["Threshold"])]
    if not found:
        return {"missing": "INSUFFICIENT_DATA", "breaching": "ALARM", "notBreaching": "OK"}.get(treatment)
    if len(breaching) + (missing if treatment == "breaching" else 0) >= needed:
        return "ALARM"
    if treatment in ("breaching", "notBreaching") or not missing:
        return "OK"
    if len(found) - len(breaching) > wanted - needed:
        return "OK"
    # Breaching ever since, as far as anybody knows, for as long as it takes.
    if treatment == "missing" and len(breaching) == len(found) and newest - breaching[-1] >= (needed - 1) * period:
        return "ALARM"
    return "OK" if alarm["StateValue"] == "INSUFFICIENT_DATA" and not breaching else None


def reason_of(alarm, verdict, found):
    wanted = alarm["EvaluationPeriods"]
    periods = f"{wanted} period{'s' if wanted > 1 else ''}"
    if not found:
        if verdict == "INSUFFICIENT_DATA":
            return f"Insufficient Data: {wanted} datapoint{'s were' if wanted > 1 else ' was'} unknown."
        treated = {"breaching": "Breaching", "notBreaching": "NonBreaching"}[alarm["TreatMissingData"]]
        points = f"{wanted} missing datapoint{'s were' if wanted > 1 else ' was'}"
        return f"Threshold Crossed: no datapoints were received for {periods} and {points} treated as [{treated}]."
    words, crossed = COMPARED[alarm["ComparisonOperator"]]
    threshold = float(alarm["Threshold"])
    counted = [point for point in found if crossed(point[1], threshold) == (verdict == "ALARM")] or found
    listed = ", ".join(f"{value} ({time.strftime('%d/%m/%y %H:%M:%S', time.gmtime(start))})" for start, value in counted)
    verb = ("were" if len(counted) > 1 else "was") + ("" if verdict == "ALARM" else " not")
    needed = alarm.get("DatapointsToAlarm", wanted) if verdict == "ALARM" else 1
    turn_of = "OK -> ALARM" if verdict == "ALARM" else "ALARM -> OK"
    least = f"minimum {needed} datapoint{'s' if needed > 1 else ''} for {turn_of} transition"
    return (
        f"Threshold Crossed: {len(counted)} out of the last {wanted} datapoints [{listed}] {verb} {words} "
        f"the threshold ({threshold}) ({least})."
    )


def reason_data_of(alarm, found, period):
    data = {
        "version": "1.0",
        "queryDate": moment(time.time()),
        "startDate": moment(found[-1][0]) if found else None,
        "statistic": alarm.get("ExtendedStatistic") or alarm.get("Statistic"),
        "period": period,
        "recentDatapoints": [value for _, value in reversed(found)],
        "threshold": float(alarm["Threshold"]),
    }
    return json.dumps({key: value for key, value in data.items() if value is not None}, separators=(",", ":"))


def turn(alarm, state, reason, reason_data):
    before = alarm["StateValue"]
    left[alarm["AlarmArn"]] = transitions.state_of(alarm)
    alarm |= {"StateValue": state, "StateReason": reason, "StateReasonData": reason_data}
    cloudwatch._record_history(alarm["AlarmName"], before, state, reason, reason_data=json.loads(reason_data))
    act(alarm, before, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


# Acting


def act(alarm, before, state, reason):
    """What every transition comes to. Who listens to EventBridge hears of it even if the alarm's own actions are disabled."""
    alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = now()
    previous = left.pop(alarm["AlarmArn"])
    # A composite alarm that is made "turns" to the state in which it begins.
    if state != before:
        transitions.changed_state(alarm, previous)
    if not alarm.get("ActionsEnabled", True):
        return
    for action in alarm.get(ACTIONS[state]) or []:
        if action.startswith("arn:aws:sns:"):
            refusal = publish(alarm, action, before, state, reason)
            note(alarm, action, state, refusal)


def publish(alarm, topic_arn, before, state, reason):
    """Publishes as CloudWatch does; a refusal shows in the alarm's history and nowhere else."""
    topic = sns._topic_by_arn_any_scope(topic_arn)
    if topic is None:
        return f"Resource: {topic_arn} does not exist"
    context = iam_evaluator.EvalContext(
        principal_arn="*",
        principal_type="Service",
        principal_account="",
        action="sns:Publish",
        resource_arn=topic_arn,
        region=get_region(),
        service_context={
            "aws:sourcearn": alarm["AlarmArn"],
            "aws:sourceaccount": get_account_id(),
            "aws:sourceowner": get_account_id(),
        },
    )
    policy = topic["attributes"].get("Policy") or ""
    decision = iam_evaluator.evaluate_resource_policy(policy, context, service="cloudwatch.amazonaws.com")
    if decision.decision != "Allow":
        return f"CloudWatch is not authorized to perform: SNS:Publish on resource: {topic_arn}"
    place = REGIONS.get(get_region(), get_region())
    subject = f'{state}: "{alarm["AlarmName"]}" in {place}'[:100]
    sns._fanout(topic_arn, new_uuid(), json.dumps(message_of(alarm, place, before, state, reason)), subject)
    return None


def message_of(alarm, place, before, state, reason):
    message = {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription"),
        "AWSAccountId": get_account_id(),
        "AlarmConfigurationUpdatedTimestamp": moment(alarm["AlarmConfigurationUpdatedTimestamp"]),
        "NewStateValue": state,
        "NewStateReason": reason,
        "StateChangeTime": moment(time.time()),
        "Region": place,
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": before,
        **{key: alarm.get(key, []) for key in ("OKActions", "AlarmActions", "InsufficientDataActions")},
    }
    if "AlarmRule" in alarm:
        children = json.loads(alarm.get("StateReasonData", "{}")).get("triggeringAlarms", [])
        state_of = {each["arn"]: {key.title(): value for key, value in each["state"].items()} for each in children}
        children = [{"Arn": arn, "State": state} for arn, state in state_of.items()]
        return message | {"AlarmRule": alarm["AlarmRule"], "TriggeringChildren": children}
    trigger = {
        "Period": alarm.get("Period"),
        "EvaluationPeriods": alarm.get("EvaluationPeriods"),
        "DatapointsToAlarm": alarm.get("DatapointsToAlarm"),
        "ComparisonOperator": alarm.get("ComparisonOperator"),
        "Threshold": alarm.get("Threshold"),
        "TreatMissingData": alarm.get("TreatMissingData", ""),
        "EvaluateLowSampleCountPercentile": alarm.get("EvaluateLowSampleCountPercentile", ""),
    }
    if "Metrics" in alarm:
        trigger["Metrics"] = alarm["Metrics"]
    else:
        kind = "ExtendedStatistic" if alarm.get("ExtendedStatistic") else "Statistic"
        trigger |= {
            "MetricName": alarm.get("MetricName"),
            "Namespace": alarm.get("Namespace"),
            "StatisticType": kind,
            kind: alarm[kind] if kind == "ExtendedStatistic" else alarm[kind].upper(),
            "Unit": alarm.get("Unit"),
            "Dimensions": [{"name": each["Name"], "value": each["Value"]} for each in alarm["Dimensions"]],
        }
    return message | {"Trigger": {key: value for key, value in trigger.items() if value is not None or key == "Unit"}}


def note(alarm, action, state, refusal):
    failed = f'Failed to execute action {action}. Received error: "{refusal}"'
    how = failed if refusal else f"Successfully executed action {action}"
    cloudwatch._history_entries().append({
        "AlarmName": alarm["AlarmName"],
        "AlarmType": "CompositeAlarm" if "AlarmRule" in alarm else "MetricAlarm",
        "Timestamp": cloudwatch._ts_iso(time.time()),
        "HistoryItemType": "Action",
        "HistorySummary": how,
        "HistoryData": json.dumps({
            "actionState": "Failed" if refusal else "Succeeded",
            "stateUpdateTimestamp": int(time.time() * 1000),
            "notificationResource": action,
            "error": refusal,
        }),
    })
