"""moto's server on a port of loopback, with what it lacks as AWS to run Lambdas against: `server.py PORT REFUSED`.

- Calls of DynamoDB and Kinesis are made one at a time: moto's server is threaded, and its UpdateItem is not atomic.
- An upsert writes one record to the table's stream, as DynamoDB does. moto writes two; the first has only the key.
- Calls can be refused, or answered with an error after their effect: `PUT /_fault` plants
  {"target": "PutItem", "texts": ["of the request", "all of them"], "type": "AccessDeniedException", "status": 400,
  "share": 1.0, "after": false}, `DELETE /_fault` ends it, and each of them, as `GET /_fault`, answers how many calls it has met.

Whatever is answered with an error is written to the file REFUSED: the call, and why.
"""
import io
import json
import random
import sys
import threading

from moto.dynamodb.models.table import StreamShard
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

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


class Fault:
    """What is wrong with calls at the moment."""

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


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


run_simple("127.0.0.1", int(sys.argv[1]), serve, threaded=True, request_handler=Quiet)
