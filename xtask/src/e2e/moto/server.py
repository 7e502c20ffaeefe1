"""Serves moto on a port of loopback, with what it lacks to run Lambdas: `server.py PORT REFUSED`.

- It runs calls of DynamoDB and Kinesis one at a time: moto's server is threaded, and its UpdateItem is not atomic.
- An upsert writes one record to the table's stream, as in DynamoDB. moto writes two; the first has only the key.
- Calls can be refused, or answered with an error after their effect. `PUT /_fault` plants
  {"target": "PutItem", "texts": ["all of these are in", "the request"], "type": "AccessDeniedException", "status": 400,
  "share": 1.0, "after": false}, `DELETE /_fault` ends it. Both, and `GET /_fault`, answer how many calls it has met.
- It is faster: it lists moto's modules only once, and a query reads only the items of its key.

It writes each call that it answers with an error to the file REFUSED, with the reason.
"""
import io
import json
import random
import sys
import threading

import waitress
from moto import backends
from moto.dynamodb.models.table import StreamShard, Table
from moto.server import DomainDispatcherApplication, create_backend_app

ONE_AT_A_TIME = ("DynamoDB", "Kinesis")
LOCK = threading.Lock()
APP = DomainDispatcherApplication(create_backend_app)
REFUSED = open(sys.argv[2], "a", buffering=1)
add_to_stream = StreamShard.add


def add_whole_items(shard, old, new):
    keys = {shard.table.hash_key_attr, shard.table.range_key_attr}
    if old is None and new is not None and set(new.to_json()["Attributes"]) <= keys:
        return
    add_to_stream(shard, old, new)


StreamShard.add = add_whole_items

# Otherwise each call reads a folder of 200 modules.
modules = frozenset(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: modules

# Otherwise each query sorts the whole table, and looks at every item.
all_items, query = Table.all_items, Table.query


def items_asked_for(table):
    asked_for = getattr(table, "asked_for", None)
    return all_items(table) if asked_for is None else list(table.items[asked_for].values())


def query_one_key(table, hash_key, *arguments, **named):
    index = arguments[6] if len(arguments) > 6 else named.get("index_name")
    is_alone = index is None and table.range_key_attr and hash_key in table.items
    table.asked_for = hash_key if is_alone else None
    try:
        return query(table, hash_key, *arguments, **named)
    finally:
        table.asked_for = None


Table.all_items, Table.query = items_asked_for, query_one_key


class Fault:
    """The planted fault, and the calls that it has met."""

    def __init__(self):
        self.planted, self.met = None, 0

    def control(self, method, body):
        met = self.met
        if method == "PUT":
            self.planted, self.met = json.loads(body), 0
        elif method == "DELETE":
            self.planted, self.met = None, 0
        return json.dumps({"met": met}).encode()

    def of(self, target, body):
        planted = self.planted
        if not planted or not target.endswith("." + planted["target"]):
            return None
        if not all(text.encode() in body for text in planted["texts"]):
            return None
        if random.random() >= planted.get("share", 1.0):
            return None
        self.met += 1
        return planted


FAULT = Fault()


def answer(start_response, status, body):
    start_response(status, [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))])
    return [body]


def call(environ, start_response):
    seen = []

    def note(status, headers, *more):
        seen.append(status)
        return start_response(status, headers, *more)

    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target.startswith(ONE_AT_A_TIME):
        with LOCK:
            out = list(APP(environ, note))
    else:
        out = list(APP(environ, note))
    if seen and not seen[0].startswith("2"):
        REFUSED.write(f"{target or environ['PATH_INFO']} {seen[0]} {b''.join(out)[:300]!r}\n")
    return out


def serve(environ, start_response):
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target.startswith(ONE_AT_A_TIME) or environ["PATH_INFO"] == "/_fault":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if environ["PATH_INFO"] == "/_fault":
            return answer(start_response, "200 OK", FAULT.control(environ["REQUEST_METHOD"], body))
        fault = FAULT.of(target, body)
        if fault:
            if fault.get("after"):
                call(environ, lambda *_: None)
            text = {"__type": fault["type"], "message": "a planted fault", "Message": "a planted fault"}
            return answer(start_response, f"{fault.get('status', 400)} Fault", json.dumps(text).encode())
    return call(environ, start_response)


# waitress keeps connections open and has a pool of threads. The longest call is a poll of a queue.
waitress.serve(serve, host="127.0.0.1", port=int(sys.argv[1]), threads=16, connection_limit=1000)
