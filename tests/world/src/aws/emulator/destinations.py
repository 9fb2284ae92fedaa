"""EventBridge connections and API destinations as AWS keeps them: ARNs that end in a uuid, values that never come back, and
destinations that are active as long as their connection is authorized."""

import secrets
import string

from ministack.core.responses import error_response_json, get_account_id, get_region, json_response, new_uuid
from ministack.services import eventbridge
from patch import replace

# What a page holds unless less is asked for.
PAGE = 100
SECRET = {
    "ApiKeyAuthParameters": ("ApiKeyValue",),
    "BasicAuthParameters": ("Password",),
    "OAuthParameters": (),
}


def install():
    global their_create_connection, their_update_connection, their_deauthorize
    global their_create_destination, their_update_destination
    their_create_connection = replace(eventbridge, "_create_connection", create_connection)
    their_update_connection = replace(eventbridge, "_update_connection", update_connection)
    their_deauthorize = replace(eventbridge, "_deauthorize_connection", deauthorize_connection)
    their_create_destination = replace(eventbridge, "_create_api_destination", create_destination)
    their_update_destination = replace(eventbridge, "_update_api_destination", update_destination)
    replace(eventbridge, "_describe_connection", describe_connection)
    replace(eventbridge, "_delete_connection", delete_connection)
    replace(eventbridge, "_list_connections", list_connections)
    replace(eventbridge, "_describe_api_destination", describe_destination)
    replace(eventbridge, "_delete_api_destination", delete_destination)
    replace(eventbridge, "_list_api_destinations", list_destinations)


def error(code, message):
    return error_response_json(code, message, 400)


def arn_of(kind, name):
    return f"arn:aws:events:{get_region()}:{get_account_id()}:{kind}/{name}/{new_uuid()}"


def some(record, *keys):
    """Those members that are there: AWS leaves out what was never set."""
    return {key: record[key] for key in keys if record.get(key) not in (None, "")}


def page_of(what, entries, data):
    begin = eventbridge._opaque_offset_decode(data.get("NextToken") or "")
    end = begin + (data.get("Limit") or PAGE)
    more = {"NextToken": eventbridge._opaque_offset_encode(end)} if end < len(entries) else {}
    return json_response({what: entries[begin:end]} | more)


def named(records, data):
    prefix = data.get("NamePrefix") or ""
    return [records[name] for name in sorted(records) if name.startswith(prefix)]


# Connections


def create_connection(data):
    name = data["Name"]
    if name in eventbridge._connections:
        return error("ResourceAlreadyExistsException", f"Connection {name} already exists.")
    answer = their_create_connection(data)
    if answer[0] != 200:
        return answer
    connection = eventbridge._connections[name]
    suffix = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(6))
    secret = f"secret:events!connection/{name}/{new_uuid()}-{suffix}"
    connection |= {
        "ConnectionArn": arn_of("connection", name),
        "SecretArn": f"arn:aws:secretsmanager:{get_region()}:{get_account_id()}:{secret}",
    }
    return json_response(some(connection, "ConnectionArn", "ConnectionState", "CreationTime", "LastModifiedTime"))


def no_connection(name):
    message = f"Failed to describe the connection(s). Connection '{name}' does not exist."
    return error("ResourceNotFoundException", message)


def update_connection(data):
    name = data["Name"]
    connection = eventbridge._connections.get(name)
    if connection is None:
        return no_connection(name)
    before, state = connection["AuthParameters"], connection["ConnectionState"]
    authorized = connection.get("LastAuthorizedTime")
    given = data.get("AuthParameters")
    if given is not None:
        # What is left out of a set of parameters stays as it is.
        sets = {key: (before.get(key) or {}) | value for key, value in given.items()}
        changed = data.get("AuthorizationType", connection["AuthorizationType"]) != connection["AuthorizationType"]
        data = data | {"AuthParameters": given if changed else before | sets}
    answer = their_update_connection(data)
    if answer[0] != 200:
        return answer
    if given is None:
        # Only new parameters authorize it again.
        connection |= {"ConnectionState": state, "LastAuthorizedTime": authorized}
    else:
        connection.pop("StateReason", None)
    return json_response(told_of(connection))


def told_of(connection):
    return some(connection, "ConnectionArn", "ConnectionState", "CreationTime", "LastModifiedTime", "LastAuthorizedTime")


def describe_connection(data):
    connection = eventbridge._connections.get(data["Name"])
    if connection is None:
        return no_connection(data["Name"])
    members = ("Name", "Description", "StateReason", "AuthorizationType", "SecretArn", "KmsKeyIdentifier")
    told = told_of(connection) | some(connection, *members)
    return json_response(told | {"AuthParameters": without_values(connection["AuthParameters"])})


def without_values(parameters):
    told = {}
    for key, value in parameters.items():
        if key in SECRET:
            told[key] = {name: each for name, each in value.items() if name not in SECRET[key]}
        if key == "InvocationHttpParameters":
            told[key] = public(value)
    oauth = told.get("OAuthParameters")
    if oauth:
        oauth["ClientParameters"] = some(oauth.get("ClientParameters") or {}, "ClientID")
        if oauth.get("OAuthHttpParameters"):
            oauth["OAuthHttpParameters"] = public(oauth["OAuthHttpParameters"])
    return told


def public(parameters):
    def shown(each):
        return {key: value for key, value in each.items() if key != "Value" or not each.get("IsValueSecret")}

    return {key: [shown(each) for each in values] for key, values in parameters.items()}


def deauthorize_connection(data):
    connection = eventbridge._connections.get(data["Name"])
    if connection is None:
        return no_connection(data["Name"])
    answer = their_deauthorize(data)
    return json_response(told_of(connection)) if answer[0] == 200 else answer


def refused_by_endpoint(connection, status):
    """What AWS does when the endpoint says that it does not know the credentials: they count again after the next update."""
    connection["ConnectionState"] = "DEAUTHORIZED"
    connection["StateReason"] = f"The endpoint answered with HTTP status {status}."
    connection["LastModifiedTime"] = eventbridge._now_ts()


def delete_connection(data):
    """Also while a destination uses it: that becomes inactive."""
    connection = eventbridge._connections.pop(data["Name"], None)
    if connection is None:
        return no_connection(data["Name"])
    connection |= {"ConnectionState": "DELETING", "LastModifiedTime": eventbridge._now_ts()}
    return json_response(told_of(connection))


def list_connections(data):
    state = data.get("ConnectionState")
    found = [each for each in named(eventbridge._connections, data) if state in (None, each["ConnectionState"])]
    entries = [told_of(each) | some(each, "Name", "StateReason", "AuthorizationType") for each in found]
    return page_of("Connections", entries, data)


def connection_by_arn(arn):
    found = [each for each in eventbridge._connections.values() if each["ConnectionArn"] == arn]
    return found[0] if found else None


# API destinations


def create_destination(data):
    name = data["Name"]
    if name in eventbridge._api_destinations:
        return error("ResourceAlreadyExistsException", f"An api-destination '{name}' already exists.")
    if connection_by_arn(data["ConnectionArn"]) is None:
        return error("ResourceNotFoundException", f"Connection '{data['ConnectionArn']}' does not exist.")
    answer = their_create_destination(data)
    if answer[0] != 200:
        return answer
    destination = eventbridge._api_destinations[name]
    destination["ApiDestinationArn"] = arn_of("api-destination", name)
    return json_response(changed(destination))


def changed(destination):
    told = some(destination, "ApiDestinationArn", "CreationTime", "LastModifiedTime")
    return told | {"ApiDestinationState": state_of(destination)}


def state_of(destination):
    connection = connection_by_arn(destination["ConnectionArn"])
    authorized = connection is not None and connection["ConnectionState"] == "AUTHORIZED"
    return "ACTIVE" if authorized else "INACTIVE"


def no_destination(name):
    message = f"Failed to describe the api-destination(s). An api-destination '{name}' does not exist."
    return error("ResourceNotFoundException", message)


def update_destination(data):
    destination = eventbridge._api_destinations.get(data["Name"])
    if destination is None:
        return no_destination(data["Name"])
    if "ConnectionArn" in data and connection_by_arn(data["ConnectionArn"]) is None:
        return error("ResourceNotFoundException", f"Connection '{data['ConnectionArn']}' does not exist.")
    answer = their_update_destination(data)
    return json_response(changed(destination)) if answer[0] == 200 else answer


def listed(destination):
    members = ("Name", "ConnectionArn", "InvocationEndpoint", "HttpMethod", "InvocationRateLimitPerSecond")
    return changed(destination) | some(destination, *members)


def describe_destination(data):
    destination = eventbridge._api_destinations.get(data["Name"])
    if destination is None:
        return no_destination(data["Name"])
    return json_response(listed(destination) | some(destination, "Description"))


def delete_destination(data):
    """Also while a target leads to it: that leads nowhere from then on."""
    if eventbridge._api_destinations.pop(data["Name"], None) is None:
        return no_destination(data["Name"])
    return json_response({})


def list_destinations(data):
    of = data.get("ConnectionArn")
    found = [each for each in named(eventbridge._api_destinations, data) if of in (None, each["ConnectionArn"])]
    return page_of("ApiDestinations", [listed(each) for each in found], data)


def destination_by_arn(arn):
    found = [each for each in eventbridge._api_destinations.values() if each["ApiDestinationArn"] == arn]
    return found[0] if found else None
