"""Stock keeping: an order reserves goods, its end releases them or takes them off the shelf.

It gets the order's events from the shop, keeps what it has applied in a database of its own, and tells the shop `StockLow`.
"""

import json
import os
import pathlib
import signal
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

SHOP = os.environ.get("SHOP", "http://localhost:4000")
PORT = int(os.environ.get("PORT", "9192"))
DATA = pathlib.Path(os.environ.get("DATA", "stock-data"))
TOKEN = pathlib.Path(os.environ.get("TOKEN_FILE", "stock.token")).read_text().strip()
TYPES = ["cascade.OrderCreated.v1", "cascade.OrderCancelled.v1", "cascade.OrderCompleted.v1"]
PIECES_AT_FIRST, PIECES_LOW = 20, 5
BODY_BYTES_MAX = 2 * 1024 * 1024

DATA.mkdir(exist_ok=True)
database = sqlite3.connect(DATA / "stock.db", check_same_thread=False, isolation_level=None)
database.executescript("""
    pragma journal_mode = wal;
    pragma synchronous = full;
    create table if not exists applied (source text, id text, primary key (source, id));
    create table if not exists stock (product text primary key, on_hand integer not null);
    create table if not exists reserved (order_id text, product text, quantity integer not null, primary key (order_id, product));
    create table if not exists outbox (id text primary key, event text not null);
""")
turn = threading.Lock()  # the shop may deliver several batches at once; one is applied at a time
webhook = None  # none until the shop has told us the secret


class Unreadable(Exception):
    """An event that can never be applied."""


def read(item):
    """A CloudEvent from its JSON."""
    try:
        return JSONFormat().read(None, json.dumps(item))
    except Exception as error:
        raise Unreadable(str(error)) from error


def take(items):
    """Applies each event once, then publishes what follows from it. Gives those that can never be applied."""
    refused = []
    with turn:
        for item in items:
            try:
                event = read(item)
                with transaction():
                    name = (event.get_source(), event.get_id())
                    if database.execute("insert or ignore into applied values (?, ?)", name).rowcount == 1:
                        apply(event)
            except Unreadable as error:
                refused.append({"source": item["source"], "id": item["id"], "status": 422, "reason": str(error)})
        # Before the answer: if it fails, or we die here, the shop sends the events again, and what waits in the outbox goes then.
        publish()
    return refused


class transaction:
    """What happens inside is kept whole, or not at all: what the event changed, that it was applied, and what is to be said."""

    def __enter__(self):
        database.execute("begin immediate")

    def __exit__(self, kind, error, trace):
        database.execute("commit" if kind is None else "rollback")


def apply(event):
    """What an event means for the goods."""
    order = event.get_subject()
    if event.get_type() == "cascade.OrderCreated.v1":
        for product, quantity in lines_of(event).items():
            database.execute("insert or ignore into stock values (?, ?)", (product, PIECES_AT_FIRST))
            before = available(product)
            database.execute("insert into reserved values (?, ?, ?)", (order, product, quantity))
            if before > PIECES_LOW >= before - quantity:
                say_low(event, product, before - quantity)
        return
    if event.get_type() == "cascade.OrderCompleted.v1":
        taken = "select quantity from reserved where order_id = ? and reserved.product = stock.product"
        database.execute(f"update stock set on_hand = on_hand - coalesce(({taken}), 0)", (order,))
    database.execute("delete from reserved where order_id = ?", (order,))


def lines_of(event):
    """How many pieces of each product an order has."""
    pieces = {}
    try:
        for line in event.get_data()["lines"]:
            pieces[line["product_id"]] = pieces.get(line["product_id"], 0) + int(line["quantity"])
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"its lines cannot be read: {error!r}") from error
    return pieces


def available(product):
    """What is on the shelf and not reserved. Below zero, more was sold than there is."""
    on_hand = "select on_hand from stock where product = :product"
    reserved = "select coalesce(sum(quantity), 0) from reserved where product = :product"
    return database.execute(f"select ({on_hand}) - ({reserved})", {"product": product}).fetchone()[0]


def say_low(cause, product, pieces):
    """Leaves an event in the outbox. Its id is written with it: the shop knows it again when it is published twice."""
    attributes = {"type": "stock.StockLow.v1", "source": "/stock", "subject": product, "datacontenttype": "application/json"}
    attributes |= {"id": f"{cause.get_id()}/{product}", "causationid": cause.get_id(), "time": cause.get_time()}
    event = CloudEvent(attributes, {"product_id": product, "available": pieces})
    database.execute("insert into outbox values (?, ?)", (event.get_id(), JSONFormat().write(event).decode()))
    print(f"{product} runs low: {pieces} left", flush=True)


def publish():
    """Tells the shop what waits in the outbox."""
    while waiting := database.execute("select id, event from outbox order by rowid limit 100").fetchall():
        ask("POST", "/api/events", [json.loads(event) for _, event in waiting], "application/cloudevents-batch+json")
        database.executemany("delete from outbox where id = ?", [(id,) for id, _ in waiting])


def ask(method, path, body, media="application/json"):
    """Asks the shop, and gives its answer."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": media}
    request = urllib.request.Request(SHOP + path, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def register():
    """At every start: it is harmless, and it wakes a shop that was waiting for us. The secret is told once, so it is kept."""
    global webhook
    path, kept = "/api/subscriptions/stock", DATA / "secret"
    sink = f"http://127.0.0.1:{PORT}/events"
    secret = ask("PUT", path, {"sink": sink, "types": TYPES, "revision": 1}).get("secret")
    if secret is None and not kept.exists():
        secret = ask("POST", f"{path}/secret/rotate", {"grace_s": 0})["secret"]
    if secret is not None:
        kept.touch(mode=0o600)
        kept.write_text(secret)
    webhook = Webhook(kept.read_text())


class Sink(BaseHTTPRequestHandler):
    """Where the shop delivers, and where people look."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if self.path != "/events":
            return self.answer(404)
        if webhook is None:
            return self.answer(503)  # later: the shop tries again
        try:
            events = webhook.verify(body, dict(self.headers))
        except Exception:
            return self.answer(401)  # not from the shop, or too old
        try:
            self.answer(200, {"results": take(events)})
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self.answer(503)

    def do_GET(self):
        if self.path != "/stock":
            return self.answer(404)
        with turn:
            rows = database.execute("select product, on_hand from stock order by product").fetchall()
            self.answer(200, {product: {"on_hand": on_hand, "available": available(product)} for product, on_hand in rows})

    def answer(self, status, body=None):
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Says nothing of each request."""


def join():
    """Registers, until the shop has taken it."""
    while True:
        try:
            register()
            return print(f"joined {SHOP}; stock at http://127.0.0.1:{PORT}/stock", flush=True)
        except urllib.error.HTTPError as error:
            print(f"{error.code}: {error.read().decode()}", file=sys.stderr, flush=True)
            if 400 <= error.code < 500 and error.code != 429:
                os._exit(1)  # asking again would not help
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(1)


server = ThreadingHTTPServer(("127.0.0.1", PORT), Sink)
for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, lambda *_: threading.Thread(target=server.shutdown).start())
threading.Thread(target=join, daemon=True).start()
server.serve_forever()
with turn:  # after what is being applied; an answer that is cut off is asked for again, and the events are known then
    database.close()
