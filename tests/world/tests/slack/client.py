"""What Slack's official client sees of the stand-in: one step, told as JSON."""

import json
import os
import sys

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
from slack_sdk.models.blocks import ActionsBlock, ButtonElement, DividerBlock, HeaderBlock, SectionBlock
from slack_sdk.webhook import WebhookClient

client = WebClient(os.environ.get("SLACK_BOT_TOKEN"), base_url=os.environ.get("SLACK_API_URL", "") + "/")

BLOCKS = [
    HeaderBlock(text=":rotating_light: ALARM · critical"),
    SectionBlock(fields=["*Alarm*\nerrors", "*State*\nALARM"]),
    DividerBlock(),
    ActionsBlock(elements=[ButtonElement(text="Open", url="https://example.com/alarm", action_id="open")]),
]


def refused(call, **arguments):
    """The error's answer: it must be the client's own error."""
    try:
        call(**arguments)
    except SlackApiError as error:
        answer = error.response
        return {"status": answer.status_code, "headers": {k.lower(): v for k, v in answer.headers.items()}, **answer.data}
    raise AssertionError(f"{call.__name__} was not refused")


def journey():
    who = client.auth_test()
    channel = client.conversations_create(name="vsu-alarms", is_private=False)["channel"]["id"]
    client.conversations_setTopic(channel=channel, topic="Alarms of vsu")
    client.conversations_setPurpose(channel=channel, purpose="What fires")
    ann = client.users_lookupByEmail(email="ann@campus.example")["user"]["id"]
    client.conversations_invite(channel=channel, users=[ann])
    first = client.chat_postMessage(channel=channel, text="started", blocks=BLOCKS, unfurl_links=False, unfurl_media=False)
    reply = client.chat_postMessage(channel=channel, text="detail", thread_ts=first["ts"])
    edited = client.chat_update(channel=channel, ts=first["ts"], text="completed", blocks=[], attachments=[{"color": "good", "text": "fine"}])
    link = client.chat_getPermalink(channel=channel, message_ts=first["ts"])["permalink"]
    members = [member for page in client.conversations_members(channel=channel, limit=1) for member in page["members"]]
    renamed = client.conversations_rename(channel=channel, name="vsu-old")["channel"]["name"]
    info = client.conversations_info(channel=channel, include_num_members=True)["channel"]
    own = [each["name"] for each in client.users_conversations(types="public_channel,private_channel")["channels"]]
    client.conversations_archive(channel=channel)
    unarchive = refused(client.conversations_unarchive, channel=channel)["error"]
    return {
        "who": who.data, "scopes": who.headers["x-oauth-scopes"], "channel": channel, "ann": ann, "first": first["ts"], "reply": reply["ts"],
        "edited": edited.data, "link": link, "members": members, "renamed": renamed,
        "info": info, "own": own, "unarchive": unarchive, "team": client.team_info()["team"]["id"],
    }


def pages():
    told = []
    for page in client.conversations_list(limit=3, exclude_archived=True, types="public_channel"):
        told.append([channel["name"] for channel in page["channels"]])
    return told


def errors():
    channel = client.conversations_create(name="b")["channel"]["id"]
    broken = [{"type": "section", "text": {"type": "mrkdwn", "text": ""}}]
    return {
        "taken": refused(client.conversations_create, name="b"),
        "nobody": refused(client.users_lookupByEmail, email="x@campus.example"),
        "nowhere": refused(client.conversations_info, channel="C0NOWHERE"),
        "blocks": refused(client.chat_postMessage, channel=channel, text="a", blocks=broken),
        "scope": refused(WebClient(os.environ["POOR_TOKEN"], base_url=client.base_url).conversations_create, name="c"),
        "dead": refused(WebClient(os.environ["DEAD_TOKEN"], base_url=client.base_url).auth_test),
    }


def limited():
    answer = refused(client.auth_test)
    patient = WebClient(client.token, base_url=client.base_url)
    patient.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    return {"refused": answer, "patient": patient.auth_test()["ok"]}


def webhook():
    def send(**message):
        answer = WebhookClient(os.environ["SLACK_WEBHOOK_URL"]).send(**message)
        return [answer.status_code, answer.body]

    return [
        send(text="fire", blocks=BLOCKS),
        send(text="smoke", attachments=[{"color": "#d1242f", "blocks": [block.to_dict() for block in BLOCKS]}]),
        send(blocks=[{"type": "header", "text": {"type": "plain_text", "text": "a" * 151}}]),
        send(text=""),
    ]


def dead_webhook():
    answer = WebhookClient(os.environ["SLACK_WEBHOOK_URL"]).send(text="a")
    return [answer.status_code, answer.body]


if __name__ == "__main__":
    json.dump(globals()[sys.argv[1]](), sys.stdout)
