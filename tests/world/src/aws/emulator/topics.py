"""SNS topics and subscriptions as AWS keeps them: other tags are refused, and who has not confirmed is pending, mail included."""

import asyncio
import json
import re

from ministack.core.responses import get_account_id, new_uuid, request_scope
from ministack.core.arn import parse_arn
from ministack.services import sns
from patch import replace

# The emulator answers with the names of the shapes; on the wire AWS says these.
CODES = {"InvalidParameterException": "InvalidParameter", "ResourceNotFoundException": "ResourceNotFound"}
OWNER_ACTIONS = (
    "GetTopicAttributes SetTopicAttributes AddPermission RemovePermission DeleteTopic Subscribe ListSubscriptionsByTopic Publish"
)
SETTABLE = {
    "ApplicationFailureFeedbackRoleArn", "ApplicationSuccessFeedbackRoleArn", "ApplicationSuccessFeedbackSampleRate",
    "ArchivePolicy", "ContentBasedDeduplication", "DeliveryPolicy", "DisplayName", "FifoThroughputScope",
    "FirehoseFailureFeedbackRoleArn", "FirehoseSuccessFeedbackRoleArn", "FirehoseSuccessFeedbackSampleRate",
    "HTTPFailureFeedbackRoleArn", "HTTPSuccessFeedbackRoleArn", "HTTPSuccessFeedbackSampleRate", "KmsMasterKeyId",
    "LambdaFailureFeedbackRoleArn", "LambdaSuccessFeedbackRoleArn", "LambdaSuccessFeedbackSampleRate", "MaximumMessageSize",
    "Policy", "SQSFailureFeedbackRoleArn", "SQSSuccessFeedbackRoleArn", "SQSSuccessFeedbackSampleRate", "SignatureVersion",
    "TracingConfig",
}
PROTOCOLS = ("http", "https", "email", "email-json", "sms", "sqs", "application", "lambda", "firehose")
PENDING, DELETED = "PendingConfirmation", "Deleted"
PAGE = 100
# How the proxy asks for shorter pages.
PAGE_PARAMETER = "WorldPage"


def install():
    global their_error, their_create, their_set_attributes, their_subscribe, their_unsubscribe, their_match
    their_error = replace(sns, "_error", error)
    their_create = replace(sns, "_create_topic", create_topic)
    their_set_attributes = replace(sns, "_set_topic_attributes", set_topic_attributes)
    their_subscribe = replace(sns, "_subscribe", subscribe)
    their_unsubscribe = replace(sns, "_unsubscribe", unsubscribe)
    their_match = replace(sns, "_matches_filter_policy", matches_filter_policy)
    replace(sns, "_list_topics", list_topics)
    replace(sns, "_list_subscriptions", list_subscriptions)
    replace(sns, "_list_subscriptions_by_topic", list_subscriptions_by_topic)
    replace(sns, "_list_tags_for_resource", list_tags_for_resource)


def error(code, message, status):
    return their_error(CODES.get(code, code), message, status)


def invalid(message):
    return error("InvalidParameter", f"Invalid parameter: {message}", 400)


def entries(params, key):
    found, at = {}, 1
    while name := sns._p(params, f"{key}.entry.{at}.key"):
        found[name] = sns._p(params, f"{key}.entry.{at}.value")
        at += 1
    return found


# Topics


def create_topic(params):
    name = sns._p(params, "Name")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", name.removesuffix(".fifo")):
        return invalid("Topic Name")
    arn = f"arn:aws:sns:{sns.get_region()}:{get_account_id()}:{name}"
    topic = sns._topics.get(arn)
    attributes, tags = entries(params, "Attributes"), sns._param_tags(params)
    wrong = wrong_attribute(attributes, creating=True)
    if wrong:
        return wrong
    if topic is None:
        answer = their_create(params)
        if answer[0] == 200 and "Policy" not in attributes:
            policy = json.loads(sns._topics[arn]["attributes"]["Policy"])
            policy["Statement"][0]["Action"] = [f"SNS:{action}" for action in OWNER_ACTIONS.split()]
            sns._topics[arn]["attributes"]["Policy"] = json.dumps(policy, separators=(",", ":"))
        return answer
    if any(topic["attributes"].get(key) != value for key, value in attributes.items()):
        return invalid("Attributes Reason: Topic already exists with different attributes")
    if any(topic["tags"].get(key) != value for key, value in tags.items()):
        return invalid("Tags Reason: Topic already exists with different tags")
    return their_create(params)


def set_topic_attributes(params):
    name, value = sns._p(params, "AttributeName"), sns._p(params, "AttributeValue")
    wrong = wrong_attribute({name: value})
    topic, refused = sns._get_topic(sns._p(params, "TopicArn"), "sns:SetTopicAttributes")
    if refused or wrong:
        return refused or wrong
    if name in ("KmsMasterKeyId", "DeliveryPolicy") and not value:
        topic["attributes"].pop(name, None)
        return sns._xml(200, "SetTopicAttributesResponse", "")
    return their_set_attributes(params)


def wrong_attribute(attributes, creating=False):
    for name, value in attributes.items():
        if name not in SETTABLE and not (creating and name in ("FifoTopic", "DataProtectionPolicy")):
            return invalid("AttributeName")
        if name == "DisplayName" and len(value) > 100:
            return invalid("DisplayName Reason: must be at most 100 characters long")
        if name == "Policy":
            try:
                statements = json.loads(value)["Statement"]
            except (TypeError, ValueError, KeyError):
                statements = None
            if not statements:
                return invalid("Policy Error: null")
    return None


def list_tags_for_resource(params):
    _, topic, refused = sns._resolve_topic_tag_arn(sns._p(params, "ResourceArn"), "sns:ListTagsForResource")
    if refused:
        return refused
    tags = [(sns._xml_escape(key), sns._xml_escape(value)) for key, value in topic["tags"].items()]
    tags = "".join(f"<member><Key>{key}</Key><Value>{value}</Value></member>" for key, value in tags)
    result = f"<ListTagsForResourceResult><Tags>{tags}</Tags></ListTagsForResourceResult>"
    return sns._xml(200, "ListTagsForResourceResponse", result)


def list_topics(params):
    members = [f"<member><TopicArn>{arn}</TopicArn></member>" for arn in sns._topics.keys()]
    return page_of("ListTopics", "Topics", members, params)


# Subscriptions


def subscribe(params):
    topic, refused = sns._get_topic(sns._p(params, "TopicArn"), "sns:Subscribe")
    if refused:
        return refused
    protocol, endpoint = sns._p(params, "Protocol"), sns._p(params, "Endpoint")
    if protocol not in PROTOCOLS:
        return invalid(f"Amazon SNS does not support this protocol string: {protocol}")
    if protocol in ("http", "https") and not endpoint.startswith(f"{protocol}://"):
        return invalid("Endpoint must match the specified protocol")
    if protocol.startswith("email") and not re.fullmatch(r"[^@\s]+@[^@\s]+", endpoint):
        return invalid("Email address")
    attributes = entries(params, "Attributes")
    subscription = find(topic, protocol, endpoint)
    if subscription is None:
        answer = their_subscribe(params)
        subscription = find(topic, protocol, endpoint)
        if answer[0] != 200 or subscription is None:
            return answer
        ended = [each for each in topic.get("ended", []) if key_of(each) != key_of(subscription)]
        topic["ended"] = ended
        if protocol.startswith("email"):
            subscription |= {"confirmed": False, "token": new_uuid()}
            subscription["attributes"] |= {"PendingConfirmation": "true", "ConfirmationWasAuthenticated": "false"}
            sns._refresh_subscription_counts(topic)
    elif any(subscription["attributes"].get(key) != value for key, value in attributes.items()):
        return invalid("Attributes Reason: Subscription already exists with different attributes")
    elif not subscription["confirmed"] and protocol in ("http", "https"):
        asyncio.ensure_future(sns._send_subscription_confirmation(topic["arn"], subscription))
    told = subscription["confirmed"] or sns._p(params, "ReturnSubscriptionArn") == "true"
    arn = subscription["arn"] if told else "pending confirmation"
    result = f"<SubscribeResult><SubscriptionArn>{arn}</SubscriptionArn></SubscribeResult>"
    return sns._xml(200, "SubscribeResponse", result)


def key_of(subscription):
    return subscription["protocol"], subscription["endpoint"]


def find(topic, protocol, endpoint):
    same = [each for each in topic["subscriptions"] if key_of(each) == (protocol, endpoint)]
    return same[0] if same else None


def unsubscribe(params):
    arn = sns._p(params, "SubscriptionArn")
    if arn.count(":") < 5:
        return invalid(f"SubscriptionArn Reason: An ARN must have at least 6 elements, not {arn.count(':') + 1}")
    topic_arn = sns._sub_arn_to_topic.get(arn)
    subscription = sns._find_subscription(topic_arn, arn) if topic_arn else None
    if subscription and not subscription["confirmed"]:
        return invalid("SubscriptionArn Reason: a subscription that is pending confirmation cannot be deleted")
    return their_unsubscribe(params)


def list_subscriptions(params):
    members = [member for topic in sns._topics.values() for member in members_of(topic)]
    return page_of("ListSubscriptions", "Subscriptions", members, params)


def list_subscriptions_by_topic(params):
    topic, refused = sns._get_topic(sns._p(params, "TopicArn"), "sns:ListSubscriptionsByTopic")
    return refused or page_of("ListSubscriptionsByTopic", "Subscriptions", members_of(topic), params)


def members_of(topic):
    told = [(each["arn"] if each["confirmed"] else PENDING, each) for each in topic["subscriptions"]]
    told += [(DELETED, each) for each in topic.get("ended", [])]
    return [
        "<member>"
        f"<SubscriptionArn>{arn}</SubscriptionArn>"
        f"<Owner>{each['owner']}</Owner><TopicArn>{each['topic_arn']}</TopicArn><Protocol>{each['protocol']}</Protocol>"
        f"<Endpoint>{sns._xml_escape(each['endpoint'])}</Endpoint>"
        "</member>"
        for arn, each in told
    ]


def page_of(operation, what, members, params):
    token = sns._p(params, "NextToken") or "0"
    if not token.isdigit():
        return invalid("NextToken")
    begin = int(token)
    end = begin + int(sns._p(params, PAGE_PARAMETER) or PAGE)
    more = f"<NextToken>{end}</NextToken>" if end < len(members) else ""
    result = f"<{operation}Result><{what}>{''.join(members[begin:end])}</{what}>{more}</{operation}Result>"
    return sns._xml(200, f"{operation}Response", result)


# Readers


def matches_filter_policy(subscription, attributes, message=""):
    """Asked for each confirmed subscription before a message is sent. The emulator sends no mail; what would be in one is kept."""
    matches = their_match(subscription, attributes, message)
    if matches and subscription["protocol"].startswith("email"):
        subscription.setdefault("mails", []).append(message)
    return matches


def mails(topic, endpoint):
    """What was sent to a reader, in order."""
    with scope_of(topic):
        read = [each for each in subscriptions_of(topic) if each["endpoint"] == endpoint]
    return {"messages": [message for each in read for message in each.get("mails", [])]}


def confirm(topic, endpoint):
    """The click on the link in the confirmation mail."""
    with scope_of(topic):
        waiting = [each for each in subscriptions_of(topic) if each["endpoint"] == endpoint and each["token"]]
        for each in waiting:
            sns._confirm_subscription({"TopicArn": topic, "Token": each["token"]})
    return {"done": len(waiting)}


def unsubscribe_mail(topic, endpoint, deleted):
    """The click on the link at the foot of a mail; `deleted` says whether the topic goes on listing what has ended."""
    with scope_of(topic):
        read = [each for each in subscriptions_of(topic) if each["endpoint"] == endpoint and each["confirmed"]]
        read = [each for each in read if each["protocol"].startswith("email")]
        for each in read:
            their_unsubscribe({"SubscriptionArn": each["arn"]})
            if deleted:
                sns._topics[topic].setdefault("ended", []).append(each)
    return {"done": len(read)}


def scope_of(topic):
    spec = parse_arn(topic)
    return request_scope(spec.account_id, spec.region)


def subscriptions_of(topic):
    return list((sns._topics.get(topic) or {}).get("subscriptions", []))
