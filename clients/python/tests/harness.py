"""What the tests share: `fanfold up`, a server that misbehaves as told, and a clock that does not sleep."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import unittest
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, NamedTuple

PYTHON = Path(__file__).parent.parent
CLIENTS = PYTHON.parent
sys.path.insert(0, str(PYTHON))

from fanfold import Client, Clock  # noqa: E402


class FakeClock(Clock):
    """Sleeping only moves this clock on. `slept` has each pause, in seconds."""

    def __init__(self, unix_s: float = 1_800_000_000.0) -> None:
        self.passed_s = 0.0
        self.began_s = unix_s
        self.slept: list[float] = []

    def unix_s(self) -> float:
        return self.began_s + self.passed_s

    def now_s(self) -> float:
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed_s += seconds


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """The client's port."""


@dataclass
class Reply:
    """How the fake server answers one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Close the connection instead of an answer."""
    then_closed: bool = False
    """Close the connection after the answer, without notice."""
    short_by: int = 0
    """Announce so many bytes more than are sent."""
    after: threading.Event | None = None
    """Answer only when this is set."""
    first_to: str | None = None
    """First pass the request on to the server at this URL."""


Script = Callable[[Request], Reply]


class Fake:
    """A server on loopback that answers by a script, or with these replies in their order."""

    def __init__(self, *replies: Reply, script: Script | None = None) -> None:
        self.requests: list[Request] = []
        self._replies = list(replies)
        self._script = script
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                request = Request(self.command, self.path, dict(self.headers.items()), body, self.client_address[1])
                reply = fake._reply(request)
                if reply.first_to:
                    post = urllib.request.Request(reply.first_to + self.path, body, method="POST")
                    with urllib.request.urlopen(post, timeout=30) as answer:
                        answer.read()
                if reply.after:
                    reply.after.wait(30)
                if reply.cut:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) + reply.short_by))
                self.end_headers()
                self.wfile.write(reply.body)
                self.close_connection = self.close_connection or reply.then_closed or reply.short_by > 0

            do_GET = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if not self._script:
                return self._replies.pop(0) if self._replies else Reply(418, b"the test has no more replies")
        return self._script(request)

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Case(unittest.TestCase):
    """A test with a clock that does not sleep, and with fake servers that it closes."""

    def setUp(self) -> None:
        self.clock = FakeClock()

    def fake(self, *replies: Reply, script: Script | None = None) -> Fake:
        fake = Fake(*replies, script=script)
        self.addCleanup(fake.close)
        return fake

    def client(self, url: str, **options: Any) -> Client:
        options = {"user": "ann", "client": "till 7", "clock": self.clock, **options}
        client = Client(url, **options)
        self.addCleanup(client.close)
        return client


class Up:
    """`fanfold up --in-memory`, from the program that `FANFOLD_BIN` names, on a free port of loopback."""

    def __init__(self) -> None:
        program = os.environ.get("FANFOLD_BIN") or shutil.which("fanfold")
        if not program:
            raise RuntimeError("FANFOLD_BIN: must name the program `fanfold` (`cargo xtask clients` sets it)")
        arguments = [program, "up", "--in-memory", "--listen", "127.0.0.1:0"]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        greeting = self._process.stdout.readline()
        found = re.search(r"http://[0-9.]+:[0-9]+", greeting)
        if not found:
            self.close()
            raise RuntimeError(f"`fanfold up` greets without a URL: {greeting!r}")
        self.url = found[0]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
