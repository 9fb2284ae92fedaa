"""How a target that is an API destination is called: with which body, by whose leave, how fast, how often again, and where it ends
if nothing helps. The emulator calls once, at once, whoever may."""

import asyncio
import email.utils
import hashlib
import json
import logging
import time
import urllib.error
import urllib.parse
import urllib.request

import destinations
from ministack import app
from ministack.core import iam_evaluator
from ministack.core.arn import ArnParseError, parse_arn
from ministack.core.responses import get_account_id, get_region, new_uuid, request_scope
from ministack.services import eventbridge, sqs
from patch import replace

# Seconds that the endpoint has to answer.
LIMIT = 5
# Beside everything from 500 on.
RETRIED = (401, 407, 409, 429)
RETRIES, AGE = 185, 86_400
# AWS backs off for minutes and hours, which no test waits for. What the endpoint asks for by Retry-After is waited for in full.
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
# Nothing in the world calls anybody outside of it.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

logger = logging.getLogger("world.delivery")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), eventbridge._NoFollowRedirect())
# What became of each invocation; the roles that EventBridge can assume; when a destination may be called next; what is under way.
deliveries, roles, free_at, under_way = [], set(), {}, set()


def install():
    global their_invoke
    their_invoke = replace(eventbridge, "_invoke_target", invoke)


def invoke(target, event, rule, view=None):
    if ":api-destination/" not in target["Arn"]:
        return their_invoke(target, event, rule, view)
    view = view or eventbridge._pattern_event_view(event)
    whole = view.event_with_detail()
    detail = whole["detail"] if isinstance(whole["detail"], dict) else {}
    record = {
        "account": get_account_id(),
        "region": get_region(),
        "rule": rule["Name"],
        "target": target["Id"],
        "destination": target["Arn"],
        "event": whole["id"],
        "alarm": detail.get("alarmName", ""),
        "statuses": [],
        "attempts": 0,
        "outcome": "Pending",
        "reason": "",
    }
    deliveries.append(record)
    if not target.get("RoleArn"):
        # Neither a call nor an error, and nothing for the dead-letter queue.
        record |= {"outcome": "NotInvoked", "reason": "the target has no RoleArn"}
        return None
    invocation = Invocation(record, target, rule, whole, body_of(target, rule, view))
    future = asyncio.run_coroutine_threadsafe(invocation.run(), app._MAIN_LOOP)
    under_way.add(future)
    future.add_done_callback(under_way.discard)
    return None


# The body


def body_of(target, rule, view):
    whole = view.event_with_detail()
    if target.get("InputTransformer"):
        return transformed(target["InputTransformer"], rule, view)
    if target.get("Input"):
        return target["Input"]
    if target.get("InputPath"):
        return json.dumps(at(target["InputPath"], whole), ensure_ascii=False)
    return json.dumps(whole, ensure_ascii=False)


def transformed(transformer, rule, view):
    whole = view.event_with_detail()
    values = {name: at(path, whole) for name, path in (transformer.get("InputPathsMap") or {}).items()}
    # In this one the fields are spelled otherwise, and there is no detail.
    event = {"detailType" if key == "detail-type" else key: value for key, value in view.envelope().items()}
    reserved = {
        "aws.events.rule-arn": rule["Arn"],
        "aws.events.rule-name": rule["Name"],
        "aws.events.event.ingestion-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "aws.events.event": event,
        "aws.events.event.json": whole,
    }
    return eventbridge._render_input_template(transformer["InputTemplate"], values | reserved)


def at(path, whole):
    """What is at the path; what is not there is an empty text."""
    found = whole
    for field, index in eventbridge._HTTP_JSON_PATH_TOKEN.findall(path):
        if field and isinstance(found, dict) and field in found:
            found = found[field]
        elif index.isdigit() and isinstance(found, list) and int(index) < len(found):
            found = found[int(index)]
        else:
            return ""
    return found


# The call


class Invocation:
    def __init__(self, record, target, rule, event, body):
        self.record, self.target, self.rule, self.event, self.body = record, target, rule, event, body
        policy = target.get("RetryPolicy") or {}
        self.retries = policy.get("MaximumRetryAttempts", RETRIES)
        self.ends = time.time() + policy.get("MaximumEventAgeInSeconds", AGE)

    async def run(self):
        with request_scope(self.record["account"], self.record["region"]):
            try:
                await self.deliver()
            except Exception as failure:
                logger.exception("an event is lost")
                self.record |= {"outcome": "Dropped", "reason": f"the test world failed: {failure!r}"}

    async def deliver(self):
        wait = FIRST_WAIT
        while True:
            await self.turn()
            # Only now: what was changed while it waited counts.
            refused = self.refused()
            if refused:
                return self.give_up(*refused)
            status, asked, reason = await self.attempt()
            self.record["attempts"] += 1
            if status is not None:
                self.record["statuses"].append(status)
                if 200 <= status < 300:
                    return self.record.update(outcome="Delivered", reason="")
                if status not in RETRIED and status < 500:
                    return self.give_up("SDK_CLIENT_ERROR", f"the endpoint answered with HTTP status {status}")
                reason = f"the endpoint answered with HTTP status {status}"
            self.record["reason"] = reason
            if asked is not None and asked < 0:
                return self.give_up("SDK_CLIENT_ERROR", f"{reason}, and wants no more")
            if self.record["attempts"] > self.retries:
                return self.give_up("CONNECTION_FAILURE", reason, "MaximumRetryAttempts")
            pause = max(wait, asked or 0)
            if time.time() + pause > self.ends:
                # AWS would come to this when the time has passed.
                return self.give_up("CONNECTION_FAILURE", reason, "MaximumEventAgeInSeconds")
            await asyncio.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)

    async def turn(self):
        """Waits until the destination's rate lets the next call through."""
        destination = destinations.destination_by_arn(self.target["Arn"])
        if destination is None:
            return
        now = time.monotonic()
        turn = max(now, free_at.get(self.target["Arn"], now))
        free_at[self.target["Arn"]] = turn + 1 / destination["InvocationRateLimitPerSecond"]
        await asyncio.sleep(turn - now)

    def refused(self):
        """Why there is no use in trying: a code as AWS has them in dead letters, and a reason."""
        role = self.target["RoleArn"]
        if role not in roles or not role.startswith(f"arn:aws:iam::{get_account_id()}:role/"):
            return "NO_PERMISSIONS", f"EventBridge cannot assume {role}"
        if destinations.destination_by_arn(self.target["Arn"]) is None:
            return "NO_RESOURCE", f"{self.target['Arn']} does not exist"
        return None

    async def attempt(self):
        """The status, if there was an answer; the seconds that it asks to wait; what went wrong without one."""
        destination = destinations.destination_by_arn(self.target["Arn"])
        connection = destinations.connection_by_arn(destination["ConnectionArn"])
        if destinations.state_of(destination) != "ACTIVE":
            return None, None, "the connection is not authorized"
        parameters = eventbridge._resolve_http_parameters(self.target.get("HttpParameters") or {}, self.event)
        request = eventbridge._build_api_destination_request(destination, connection, parameters, self.body)
        if urllib.parse.urlsplit(request["url"]).hostname not in LOOPBACK:
            return None, None, "the endpoint is outside of the test world"
        key = (get_account_id(), get_region(), connection["Name"])
        call = asyncio.to_thread(send, request, connection, key)
        try:
            status, asked, reason = await asyncio.wait_for(call, LIMIT)
        except asyncio.TimeoutError:
            return None, None, f"the endpoint did not answer within {LIMIT} s"
        if status in (401, 407):
            destinations.refused_by_endpoint(connection, status)
        return status, asked, reason

    # What fails

    def give_up(self, code, reason, exhausted=None):
        arn = (self.target.get("DeadLetterConfig") or {}).get("Arn")
        if arn is None:
            self.record |= {"outcome": "Dropped", "reason": reason}
            return
        attributes = {
            "RULE_ARN": self.rule["Arn"],
            "TARGET_ARN": self.target["Arn"],
            "ERROR_CODE": code,
            "ERROR_MESSAGE": reason,
            "RETRY_ATTEMPTS": str(max(self.record["attempts"] - 1, 0)),
        }
        if exhausted:
            attributes["EXHAUSTED_RETRY_CONDITION"] = exhausted
        refused = bury(arn, self.rule["Arn"], self.event, attributes)
        if refused:
            self.record |= {"outcome": "Dropped", "reason": f"{reason}; {refused}"}
        else:
            self.record |= {"outcome": "DeadLettered", "reason": reason}


def send(request, connection, key):
    auth = eventbridge._connection_auth_headers(connection, key)
    headers = eventbridge._finalize_api_dest_headers(request["headers"] | auth)
    call = urllib.request.Request(
        request["url"], data=request["body"].encode(), headers=headers, method=request["method"]
    )
    try:
        with opener.open(call, timeout=LIMIT) as answer:
            return answer.status, None, ""
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, seconds(answer.headers.get("Retry-After")), ""
    except OSError as failure:
        return None, None, f"no answer: {failure}"


def seconds(retry_after):
    if retry_after is None:
        return None
    try:
        return float(retry_after)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0)
    except ValueError:
        return None


def bury(arn, rule_arn, event, attributes):
    """Puts the event into the dead-letter queue; if that is not possible, why."""
    try:
        queue = sqs._queue_by_arn(arn) if parse_arn(arn).region == get_region() else None
    except ArnParseError:
        queue = None
    if queue is None or queue["is_fifo"]:
        return f"{arn} is no standard queue of this Region"
    context = iam_evaluator.EvalContext(
        principal_arn="*",
        principal_type="Service",
        principal_account="",
        action="sqs:SendMessage",
        resource_arn=arn,
        region=get_region(),
        service_context={"aws:sourcearn": rule_arn, "aws:sourceaccount": get_account_id()},
    )
    policy = queue["attributes"].get("Policy") or ""
    if iam_evaluator.evaluate_resource_policy(policy, context, service="events.amazonaws.com").decision != "Allow":
        return f"EventBridge is not authorized to perform: sqs:SendMessage on resource: {arn}"
    body = json.dumps(event, ensure_ascii=False)
    message_attributes = {key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()}
    message = {
        "id": new_uuid(),
        "body": body,
        "md5_body": hashlib.md5(body.encode()).hexdigest(),
        "message_attributes": message_attributes,
        "md5_attrs": sqs._md5_msg_attrs(message_attributes),
    }
    sqs._ensure_msg_fields(message)
    queue["messages"].append(message)
    return None


# What the world asks for


def allow(role):
    """Makes a role that EventBridge can assume, and that may call every destination of its account."""
    roles.add(role)
    return {}


def forbid(role):
    roles.discard(role)
    return {}


def of_account(account):
    return {"deliveries": [each for each in deliveries if each["account"] == account]}


def make_queue(account, region, name):
    """A queue that takes what the rules of its account cannot deliver."""
    arn = f"arn:aws:sqs:{region}:{account}:{name}"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:events:{region}:{account}:rule/*"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    with request_scope(account, region):
        sqs._act_create_queue({"QueueName": name, "Attributes": {"Policy": json.dumps(policy)}}, "")
    return {"arn": arn}


def messages_of(arn):
    """What is in a queue; it stays there."""
    queue = sqs._queue_by_arn(arn)
    return {
        "messages": [
            {
                "body": message["body"],
                "attributes": {
                    key: value.get("StringValue", "") for key, value in message["message_attributes"].items()
                },
            }
            for message in (queue["messages"] if queue else [])
        ]
    }
