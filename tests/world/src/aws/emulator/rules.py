"""EventBridge rules and targets as AWS keeps them: what is left out is cleared, tags count at creation only, a rule with targets
stays, and of many targets each can fail by itself."""

import json

import destinations
from destinations import error, page_of
from ministack.core.arn import parse_arn
from ministack.core.responses import get_account_id, get_region, json_response
from ministack.services import eventbridge
from patch import replace

# Quotas: rules of a bus, targets of a rule.
RULES, TARGETS = 300, 5
TOO_MANY = "The requested resource exceeds the maximum number allowed."
# Without one of these an event is none, for TestEventPattern.
ENVELOPE = ("id", "detail-type", "source", "account", "time", "region", "resources")


def install():
    global their_put_rule, their_delete_rule, their_list_rules, their_test
    their_put_rule = replace(eventbridge, "_put_rule", put_rule)
    their_delete_rule = replace(eventbridge, "_delete_rule", delete_rule)
    their_list_rules = replace(eventbridge, "_list_rules", list_rules)
    their_test = replace(eventbridge, "_test_event_pattern", test_event_pattern)
    for name in ("_describe_rule", "_enable_rule", "_disable_rule"):
        replace(eventbridge, name, existing(getattr(eventbridge, name)))
    replace(eventbridge, "_put_targets", put_targets)
    replace(eventbridge, "_remove_targets", remove_targets)
    replace(eventbridge, "_list_targets_by_rule", list_targets)


def bus_of(data):
    """The name of the bus, which is given by its name or its ARN, and what is wrong with it."""
    name, wrong = eventbridge._event_bus_name_from_ref(data.get("EventBusName") or "default")
    if wrong:
        return name, error(*wrong)
    if name not in eventbridge._event_buses:
        return name, error("ResourceNotFoundException", f"Event bus {name} does not exist.")
    return name, None


def rule_of(data, name):
    """The key of the rule, and what is wrong with it."""
    bus, wrong = bus_of(data)
    key = eventbridge._rule_key(name, bus)
    if wrong is None and key not in eventbridge._rules:
        wrong = error("ResourceNotFoundException", f"Rule {name} does not exist on EventBus {bus}.")
    return key, wrong


def existing(theirs):
    def ours(data):
        key, wrong = rule_of(data, data["Name"])
        return wrong or theirs(data | {"EventBusName": key.split("|")[0]})

    return ours


def put_rule(data):
    bus, wrong = bus_of(data)
    if wrong:
        return wrong
    if not (data.get("EventPattern") or data.get("ScheduleExpression")):
        return error("ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified.")
    before = eventbridge._rules.get(eventbridge._rule_key(data["Name"], bus))
    of_bus = [rule for rule in eventbridge._rules.values() if rule["EventBusName"] == bus]
    if before is None and len(of_bus) >= RULES:
        return error("LimitExceededException", TOO_MANY)
    whole = {"State": "ENABLED", "Description": "", "RoleArn": "", "EventPattern": "", "ScheduleExpression": ""} | data
    return their_put_rule(whole | {"EventBusName": bus, "Tags": [] if before else data.get("Tags", [])})


def delete_rule(data):
    """One that is not there is deleted already."""
    bus, wrong = bus_of(data)
    if wrong:
        return wrong
    if eventbridge._targets.get(eventbridge._rule_key(data["Name"], bus)):
        return error("ValidationException", "Rule can't be deleted since it has targets.")
    return their_delete_rule(data | {"EventBusName": bus})


def list_rules(data):
    bus, wrong = bus_of(data)
    return wrong or their_list_rules(data | {"EventBusName": bus})


def put_targets(data):
    key, wrong = rule_of(data, data["Rule"])
    if wrong:
        return wrong
    for target in data["Targets"]:
        wrong = eventbridge._validate_target_arn(target)
        if wrong:
            return wrong
    failed = [failure for failure in map(failure_of, data["Targets"]) if failure]
    refused = {failure["TargetId"] for failure in failed}
    targets = {target["Id"]: target for target in eventbridge._targets.get(key) or []}
    targets |= {target["Id"]: target for target in data["Targets"] if target["Id"] not in refused}
    if len(targets) > TARGETS:
        return error("LimitExceededException", TOO_MANY)
    eventbridge._targets[key] = list(targets.values())
    return json_response({"FailedEntryCount": len(failed), "FailedEntries": failed})


def failure_of(target):
    """Why this target alone is not taken."""
    arn = parse_arn(target["Arn"])
    if arn.service != "events" or not arn.resource.startswith("api-destination/"):
        return None
    here = (arn.account_id, arn.region) == (get_account_id(), get_region())
    if here and destinations.destination_by_arn(target["Arn"]):
        return None
    message = f"ApiDestination {target['Arn']} does not exist." if here else (
        f"ApiDestination {target['Arn']} is not in this account and Region."
    )
    code = "ResourceNotFoundException" if here else "ValidationException"
    return {"TargetId": target["Id"], "ErrorCode": code, "ErrorMessage": message}


def remove_targets(data):
    key, wrong = rule_of(data, data["Rule"])
    if wrong:
        return wrong
    targets = {target["Id"]: target for target in eventbridge._targets.get(key) or []}
    failed = [
        {
            "TargetId": missing,
            "ErrorCode": "ResourceNotFoundException",
            "ErrorMessage": f"Rule '{data['Rule']}' does not have a target with the Id '{missing}'.",
        }
        for missing in data["Ids"]
        if missing not in targets
    ]
    eventbridge._targets[key] = [target for name, target in targets.items() if name not in data["Ids"]]
    return json_response({"FailedEntryCount": len(failed), "FailedEntries": failed})


def list_targets(data):
    key, wrong = rule_of(data, data["Rule"])
    return wrong or page_of("Targets", eventbridge._targets.get(key) or [], data)


def test_event_pattern(data):
    try:
        event = json.loads(data["Event"])
    except ValueError:
        event = None
    if not isinstance(event, dict):
        return error("ValidationException", "Parameter Event is not valid.")
    missing = [key for key in ENVELOPE if key not in event]
    if missing:
        return error("ValidationException", f"Parameter Event is not valid. Reason: {missing[0]} is a required field.")
    return their_test(data)
