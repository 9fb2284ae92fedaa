"""Starts MiniStack as the test world needs it: behind the world's proxy, and like AWS where it is not.

What needs the emulator's own state is put right here, through its internals; who may call, what is legal and what goes wrong is
the proxy's. Paths below /_world/ are for the world itself.
"""

import json
import os

import alarms
import delivery
import destinations
import rules
import topics
from ministack import app
from ministack.services import sns

emulated = app.app
DEEDS = {
    "ready": lambda: {},
    "evaluate": alarms.evaluate_account,
    "confirm": topics.confirm,
    "unsubscribe": topics.unsubscribe_mail,
    "mails": topics.mails,
    "allow": delivery.allow,
    "forbid": delivery.forbid,
    "deliveries": delivery.of_account,
    "queue": delivery.make_queue,
    "messages": delivery.messages_of,
}


async def application(scope, receive, send):
    if scope["type"] != "http" or not scope["path"].startswith("/_world/"):
        return await emulated(scope, receive, send)
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    deed = DEEDS.get(scope["path"].removeprefix("/_world/"))
    status, answer = (200, deed(**json.loads(body or b"{}"))) if deed else (404, {})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


# The links in SNS messages have to lead to the proxy: only it knows that a confirmation belongs to the topic's account.
sns._HOST, sns._PORT = os.environ["PUBLIC_HOST"], os.environ["PUBLIC_PORT"]
for patch in (alarms, topics, rules, destinations, delivery):
    patch.install()
app.app = application
app.main()
