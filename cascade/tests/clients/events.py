"""Publishes and receives events with the libraries `cloudevents` and `standardwebhooks` of PyPI. Says a JSON value on each line."""

import json
import sys
import threading
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

BATCH = "application/cloudevents-batch+json"


def say(**value):
    print(json.dumps(value), flush=True)


def as_json(event):
    """The event as the library writes it."""
    return json.loads(JSONFormat().write(event))


def make_events(mode):
    """Events with all that an event may have."""

    def event(number, data=None, **more):
        name = {"id": f"{mode}-{number} é%", "source": "/client", "type": "client.Thing.v1", "subject": f'{mode} № {number} "😀"'}
        # Time here has microseconds, in the shop milliseconds.
        time = datetime.now(timezone.utc).replace(microsecond=123_000)
        return CloudEvent(name | {"time": time} | more, data)

    thing = {"text": "ü€😀\n", "list": [1, -2.5, None, True, {}]}
    return [
        event(1, thing, datacontenttype="application/json", dataschema="https://example.com/thing"),
        event(2, {"deep": {"deeper": ["x"]}}, datacontenttype="application/vnd.thing+json", colour="rosé", partitionkey=mode, causationid="the cause"),
        event(3, time=datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=timezone.utc)),
    ]


def publish(base, token, mode):
    events = make_events(mode)
    if mode == "batch":
        messages = [http.HTTPMessage({"content-type": BATCH}, json.dumps([as_json(event) for event in events]).encode())]
    else:
        write = {"structured": http.to_structured_event, "binary": http.to_binary_event}[mode]
        messages = [write(event) for event in events]
    for message in messages:
        # Without a media type of its own, this client would add that of a form.
        headers = {"content-type": "application/json"} | message.headers | {"authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{base}/api/events", message.body, headers, method="POST")
        with urllib.request.urlopen(request) as answer:
            say(status=answer.status, answer=json.load(answer))
    for event in events:
        say(event=as_json(event))


def receive():
    secrets = []

    def is_accepted(secret, body, headers):
        try:
            Webhook(secret).verify(body, headers)
            return True
        except Exception:
            return False

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body, headers = self.rfile.read(int(self.headers["content-length"])), dict(self.headers)
            if secrets:
                events = [as_json(JSONFormat().read(None, json.dumps(item))) for item in json.loads(body)]
                later = str(int(headers["webhook-timestamp"]) + 1)
                tampered = [
                    is_accepted(secrets[-1], body.replace(b'"specversion":"1.0"', b'"specversion":"1.1"'), headers),
                    is_accepted(secrets[-1], body, headers | {"webhook-id": "another"}),
                    is_accepted(secrets[-1], body, headers | {"webhook-timestamp": later}),
                ]
                verified = [is_accepted(secret, body, headers) for secret in secrets]
                say(media=headers["content-type"], events=events, verified=verified, tampered=tampered)
            self.send_response(204 if secrets else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(port=server.server_port)
    for line in sys.stdin:
        secrets.append(line.strip())
        say(secrets=len(secrets))


def read(base, token, position):
    request = urllib.request.Request(f"{base}/api/events/{position}", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        say(event=as_json(http.from_structured_event(http.HTTPMessage({}, answer.read()))))


{"publish": publish, "receive": receive, "read": read}[sys.argv[1]](*sys.argv[2:])
