"""A client of Fanfold's HTTP API, in one file, over the standard library. See clients/README.md.

client = Client("http://127.0.0.1:8080", user="ann", client="till 7")
entry = client.send({"type": "ledger", "command": "open", "data": {"account": "cash"}}, wait_s=5)
"""

from __future__ import annotations

import copy
import email.utils
import http.client
import json
import os
import random
import secrets
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, NamedTuple, TypedDict, Union, cast, overload
from urllib.parse import quote, urlsplit

__all__ = [
    "AUTO", "Accepted", "BadAnswer", "Client", "Clock", "Command", "Duplicate", "EntriesPage", "Entry", "Event",
    "FanfoldError", "Faulted", "Ids", "Lost", "NotSent", "Parked", "Problem", "Receipt", "Rejected", "Row", "RowAt",
    "RowsPage", "Stale", "StillPending", "Unanswered",
]  # fmt: skip

ID_MAX: Final = 2**53 - 1
"""The largest id of a command. Source: `docs/http.md`."""
COMMANDS_MAX: Final = 500
"""The most commands of one `send_many`. Source: the API's limit of one request."""
PAGE_MAX: Final = 1_000
"""The most entries or rows of one page. Source: the API's limit."""
WAITING_MAX: Final = 2_047
"""The most calls of one origin that wait for their turn. Source: a log remembers 2,048 ids of an origin."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""The most bytes of an answer. Source: our choice; the API closes a page at 3 MiB, and JSON may escape each byte."""
FIRST_PAUSE_S: Final = 0.1
"""The longest pause after the first try. It doubles with each try. Source: `fanfold send`."""
LONGEST_PAUSE_S: Final = 5.0
"""The longest pause, unless the server asks for a longer one. Source: `fanfold send`."""
POLL_S: Final = 0.05
"""The pause before the next request for what does not exist yet, in case the server does not wait."""
IDLE_MAX: Final = 8
"""The most idle connections that a client keeps. Source: our choice."""
IDS_PER_MS: Final = 1_024
"""The ids of one millisecond. Source: `docs/ids.md`."""
PROBLEM: Final = "urn:fanfold:problem:"
"""What the types of Fanfold's problems begin with."""


class _Auto(Enum):
    AUTO = "auto"


AUTO: Final = _Auto.AUTO
"""As a client's name: for `Client` a random one, for `lookup` the one of the `Client`."""


class _Named(TypedDict):
    type: str
    command: str


class Command(_Named, total=False):
    """A command. What is left out is filled in: `id` by the client's `Ids`, `user` and `client` by the client's. A
    `client` of `None` means that the id belongs to the user."""

    id: int
    user: str
    client: str | None
    org: str | None
    timestamp: int | None
    data: object


@dataclass(frozen=True)
class Receipt:
    """The command is accepted: its log, its position there from 1 on, and its id."""

    log: str
    seq: int
    id: int


class _Version(TypedDict, total=False):
    version: int


class Event(_Version):
    """An event of an entry. Without `version`, the version is 1."""

    type: str
    document: str
    data: Any


class _Entry(TypedDict):
    log: str
    seq: int
    at: str


class _Sent(_Entry, total=False):
    user: str
    client: str
    id: int
    command: str


class _Of(TypedDict, total=False):
    of: int


class Accepted(_Sent):
    """The command was done, with these events."""

    status: Literal["accepted"]
    events: list[Event]


class Rejected(_Sent, _Of):
    """The service refused the command. With the code `id_reused`, `of` is the seq of another command with its id."""

    status: Literal["rejected"]
    code: str
    message: str


class Duplicate(_Sent):
    """The command repeats the one at the seq `of`, whose outcome counts."""

    status: Literal["duplicate"]
    of: int


class Stale(_Sent):
    """The id is below what the log remembers: the command was not done now, and may have been done before."""

    status: Literal["stale"]


class Faulted(_Sent):
    """The service failed on the command."""

    status: Literal["faulted"]
    message: str


class Lost(_Sent):
    """An operator gave the command up."""

    status: Literal["lost"]
    reason: str


Entry = Union[Accepted, Rejected, Duplicate, Stale, Faulted, Lost]


class EntriesPage(TypedDict):
    """Entries from one seq on. `accepted` is the last seq that has a receipt, `tail` the last one that has an entry,
    `next` where the next page begins."""

    log: str
    accepted: int
    tail: int
    entries: list[Entry]
    next: int | None


class Parked(TypedDict):
    """The entry that a view cannot apply, why, and since when. The view stands still until an operator acts."""

    seq: int
    reason: str
    at: str


class Row(TypedDict):
    """A row of a view. `seq` is the last entry that is folded into it."""

    key: str
    seq: int
    row: Any


class _View(TypedDict):
    view: str
    version: int
    log: str
    seq: int
    parked: Parked | None


class RowsPage(_View):
    """Rows of a view that has reached `seq`. `next` is the key after which the next page begins."""

    rows: list[Row]
    next: str | None


class RowAt(_View):
    """One row of a view that has reached `seq`. `rowSeq` is the last entry that is folded into the row."""

    key: str
    rowSeq: int
    row: Any


class FanfoldError(Exception):
    """What a call of a `Client` raises, besides `ValueError` and `TypeError` for arguments that cannot be sent."""

    command: Command | None = None
    """The command of a failed `send` or item, with its id. To send it again, send exactly this."""
    maybe_accepted: bool = False
    """Whether the command may be in the log although it has no receipt: a request of it had no clear answer."""
    receipt: Receipt | None = None
    """The receipt, if the command was accepted and only its entry could not be had."""


class Problem(FanfoldError):
    """The server refused the request for good."""

    def __init__(self, status: int, kind: str, title: str, detail: str, retry_after_s: float | None = None) -> None:
        # The arguments as they are, so that an error can be copied and pickled.
        super().__init__(status, kind, title, detail, retry_after_s)
        self.status: int = status
        self.kind: str = kind
        """The problem's type, such as `bad-id`. `about:blank`: the answer was not one of Fanfold's."""
        self.title: str = title
        self.detail: str = detail
        """Which field or thing, why, and what to do."""
        self.retry_after_s: float | None = retry_after_s

    def __str__(self) -> str:
        return f"{self.detail} ({self.status} {self.kind})"


class Unanswered(FanfoldError):
    """No try got a final answer. `problem` is the last answer, if there was one; else see `__cause__`."""

    def __init__(self, tries: int, last: Exception) -> None:
        super().__init__(tries, last)
        self.tries: int = tries
        self.problem: Problem | None = last if isinstance(last, Problem) else None

    def __str__(self) -> str:
        return f"no final answer after {self.tries} tries: {self.args[1]!r}"


class NotSent(FanfoldError):
    """The command was not sent: an earlier one of its origin has no answer, or the time ended before its turn."""


class StillPending(FanfoldError):
    """What was waited for is not there yet. The log or view has reached `seq`; it will not go on while `parked`."""

    def __init__(self, seq: int, parked: Parked | None) -> None:
        super().__init__(seq, parked)
        self.seq: int = seq
        self.parked: Parked | None = parked

    def __str__(self) -> str:
        return f"only seq {self.seq} is reached" + (f", and the view is parked: {self.parked}" if self.parked else "")


class BadAnswer(FanfoldError):
    """An answer that is not one of Fanfold's, or is too large. Is it the right URL?"""


class Clock:
    """Time. Tests replace it."""

    def unix_s(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def now_s(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Ids:
    """Numbers commands: milliseconds since 1970 × 1,024 + the worker's number, and at least the last id + 1.

    Several threads may use one. Each process needs one of its own, with a `client` of its own (`docs/ids.md`).
    `worker` is 0 to 1,023, by default random.
    """

    def __init__(self, worker: int | None = None, clock: Clock | None = None) -> None:
        self._worker = secrets.randbelow(IDS_PER_MS) if worker is None else worker % IDS_PER_MS
        self._clock = clock or Clock()
        self._last = 0
        self._lock = threading.Lock()
        self._process = os.getpid()

    def next(self) -> int:
        """The next id, larger than all before. Raises `RuntimeError` in a forked process."""
        _check_process(self._process, "Ids")
        with self._lock:
            by_clock = int(self._clock.unix_s() * 1_000) * IDS_PER_MS + self._worker
            self._last = max(by_clock, self._last + 1)
            return self._last


class _Answer(NamedTuple):
    status: int
    retry_after: str | None
    location: str | None
    body: bytes


class _Turn:
    """A call's place in the queues of its origins, and the commands as they are sent."""

    def __init__(self, commands: Sequence[Command], bodies: Sequence[bytes]) -> None:
        self.commands = commands
        self.bodies = bodies
        self.origins = {_origin(command) for command in commands}
        self.ready = threading.Event()
        self.answered = False
        self.not_sent: str | None = None
        """Why the commands will not be sent."""


class _Tries:
    """The tries of one call: how many there were, and the pauses between them."""

    def __init__(self, clock: Clock, tries: int, give_up_s: float) -> None:
        self._clock = clock
        self._most = tries
        self._end = clock.now_s() + give_up_s
        self.count = 0
        self.maybe_accepted = False

    def left_s(self) -> float:
        return self._end - self._clock.now_s()

    def pause(self, failure: Exception, asked_s: float | None) -> None:
        """Sleeps until the next try, at least for as long as the server asked. Raises `Unanswered` if it would be too
        late, or one too many."""
        # These say that the request never reached a server.
        if not isinstance(failure, (ConnectionRefusedError, socket.gaierror)):
            self.maybe_accepted = True
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.count, 16))
        self.count += 1
        pause = max(random.random() * longest, asked_s or 0.0)
        hopeless = isinstance(failure, ssl.SSLCertVerificationError)
        if hopeless or self.count >= self._most or pause > self.left_s():
            raise Unanswered(self.count, failure) from failure
        self._clock.sleep(pause)


class Client:
    """A client of one server. Several threads may use it; a forked process needs another one.

    - `url`: the server, such as `http://127.0.0.1:8080`, with the prefix of all paths if there is one.
    - `user`: the user of commands that name none. `client`: the name under which this client numbers commands. By
      default it is random. A log remembers each name for ever, so give lasting names to processes that start often.
    - `token`: a bearer token, or a function that returns it before each request.
    - `timeout_s`: for one try, without the time that it waits for an entry or a view. `give_up_s` and `tries` bound
      all tries of a call. `wait_max_s` is the longest wait of one request that the server allows.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        client: str | None | _Auto = AUTO,
        token: str | Callable[[], str] | None = None,
        ids: Ids | None = None,
        timeout_s: float = 35.0,
        give_up_s: float = 60.0,
        tries: int = 30,
        wait_max_s: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        parts = urlsplit(url)
        is_plain = not (parts.query or parts.fragment or parts.username)
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
            raise ValueError(f"url: `{url}` is not like http://127.0.0.1:8080")
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port or self._connection.default_port
        self._prefix = parts.path.rstrip("/")
        self._url = url
        self.user: Final = user
        self.client: Final = f"py-{secrets.token_hex(8)}" if isinstance(client, _Auto) else client
        self._token = token
        self._clock = clock or Clock()
        self._ids = ids or Ids(clock=self._clock)
        self._timeout_s, self._give_up_s, self._tries, self._wait_max_s = timeout_s, give_up_s, tries, wait_max_s
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, str, str | None], list[_Turn]] = {}
        self._process = os.getpid()

    def close(self) -> None:
        """Closes idle connections. The client can still be used."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # Commands

    @overload
    def send(self, command: Command) -> Receipt: ...
    @overload
    def send(self, command: Command, *, wait_s: float) -> Entry: ...
    def send(self, command: Command, *, wait_s: float | None = None) -> Receipt | Entry:
        """Sends a command until it has an answer, after the earlier calls for its origin (log, user, client).

        Returns the receipt. With `wait_s`, returns the entry that has the command's outcome, once it is there: of a
        command that turns out to be a `duplicate`, that of the first. Raises `Problem` (refused), `Unanswered`,
        `NotSent`, `BadAnswer`; with `wait_s` also `StillPending`, and then `error.receipt` is the receipt.
        """
        turn, tries, wait = self._join([command]), self._start(), self._wait_ms(wait_s or 0.0)
        sent = turn.commands[0]
        try:
            self._await(turn)
            tries = self._start()
            answer = self._ask(tries, "POST", "/command" + _query(wait=wait), turn.bodies[0], wait or 0)
            answered_s, found = self._clock.now_s(), self._success(answer)
            receipt = self._receipt(found, sent)
            turn.answered = True
        except FanfoldError as error:
            # A try before may still be under way, and must not arrive behind the next command.
            turn.answered = isinstance(error, Problem) and not tries.maybe_accepted
            _about(error, sent, tries)
            raise
        finally:
            self._leave(turn)
        if wait_s is None:
            return receipt
        try:
            if "status" not in found:
                waited_s = self._clock.now_s() - answered_s + (wait or 0) / 1_000
                found = self.entry(receipt.log, receipt.seq, wait_s=max(0.0, wait_s - waited_s))
            entry = cast(Entry, found)
            return self.entry(entry["log"], entry["of"]) if entry["status"] == "duplicate" else entry
        except FanfoldError as error:
            error.command, error.receipt = sent, receipt
            raise

    def send_many(self, commands: Sequence[Command]) -> list[Receipt | FanfoldError]:
        """Sends up to 500 commands (1 MiB) in one request until each has an answer. Those that the server could not
        take are sent again, in their order and with their ids.

        Returns, for each, its receipt or the error that `send` would raise.
        """
        if not 1 <= len(commands) <= COMMANDS_MAX:
            raise ValueError(f"commands: {len(commands)}, must be 1 to {COMMANDS_MAX}: split them")
        results: dict[int, Receipt | FanfoldError] = {}
        turn, tries = self._join(commands), self._start()
        try:
            self._await(turn)
            tries = self._start()
            while left := [at for at in range(len(commands)) if at not in results]:
                self._send_once(tries, turn, left, results)
        except FanfoldError as error:
            for at, sent in enumerate(turn.commands):
                if at not in results:
                    copied = _about(copy.copy(error), sent, tries)
                    copied.__cause__ = error.__cause__
                    results[at] = copied
        finally:
            answers = [results.get(at) for at in range(len(commands))]
            turn.answered = all(
                isinstance(one, Receipt) or isinstance(one, Problem) and not one.maybe_accepted for one in answers
            )
            self._leave(turn)
        return [results[at] for at in range(len(commands))]

    def _send_once(
        self, tries: _Tries, turn: _Turn, left: list[int], results: dict[int, Receipt | FanfoldError]
    ) -> None:
        body = b"[" + b",".join(turn.bodies[at] for at in left) + b"]"
        answer = self._ask(tries, "POST", "/commands", body)
        found = self._success(answer)
        items = found.get("results") if isinstance(found, dict) else None
        if not isinstance(items, list) or len(items) != len(left):
            raise BadAnswer(f"{self._url} does not answer {len(left)} commands with as many results: {found!r:.200}")
        temporary: Problem | None = None
        for at, item in zip(left, items):
            refused = item.get("problem") if isinstance(item, dict) else None
            if not isinstance(refused, dict):
                results[at] = self._receipt(item, turn.commands[at])
                continue
            problem = self._problem(refused, answer)
            if _is_temporary(problem.status):
                temporary = temporary or problem
            else:
                results[at] = _about(problem, turn.commands[at], tries)
        if temporary:
            tries.pause(temporary, temporary.retry_after_s)

    # Logs

    def entry(self, log: str, seq: int, *, wait_s: float = 0.0) -> Entry:
        """The entry at `seq` of a log such as `ledger/org:acme`. Raises `StillPending` if it is not there in time."""
        return cast(Entry, self._wait(f"{_log(log)}/{seq}", {}, wait_s, "seq", "status"))

    def lookup(
        self, log: str, id: int, *, user: str | None = None, client: str | None | _Auto = AUTO, wait_s: float = 0.0
    ) -> Entry:
        """The entry of the first command with this id, by default of this client's user and name.

        Raises `Problem` with the kind `unknown-id` (never seen) or `id-below-window` (not remembered), or
        `StillPending`.
        """
        name = self.client if isinstance(client, _Auto) else client
        origin = {"user": user or self.user, "client": name, "id": id}
        return cast(Entry, self._wait(_log(log), origin, wait_s, "seq", "status"))

    def entries_page(self, log: str, *, from_seq: int = 1, page_size: int = 100) -> EntriesPage:
        """Up to `page_size` entries, from `from_seq` on."""
        params = {"from": from_seq, "limit": min(page_size, PAGE_MAX)}
        return cast(EntriesPage, self._wait(_log(log), params, 0.0, "entries", "next"))

    def entries(
        self, log: str, *, from_seq: int = 1, limit: int | None = None, page_size: int = 100
    ) -> Iterator[Entry]:
        """All entries from `from_seq` on, at most `limit`. Reads pages as they are needed."""
        left, next_seq = sys.maxsize if limit is None else limit, from_seq
        while left > 0:
            page = self.entries_page(log, from_seq=next_seq, page_size=min(page_size, left))
            yield from page["entries"][:left]
            left -= len(page["entries"])
            if page["next"] is None:
                return
            if page["next"] <= next_seq:
                raise BadAnswer(f"the page of {log} after seq {next_seq} goes back to {page['next']}")
            next_seq = page["next"]

    # Views

    def row(self, view: str, log: str, key: str, *, seq: int | None = None, wait_s: float = 0.0) -> RowAt:
        """The row of this key; with `seq`, once the view has reached it. Raises `StillPending` if that is not in
        time, and `Problem` with the kind `unknown-row`."""
        path = f"{_view(view, log)}/{_segment('key', key)}"
        return cast(RowAt, self._wait(path, {"seq": seq}, wait_s, "seq", "row"))

    def rows_page(
        self, view: str, log: str, *, seq: int | None = None, wait_s: float = 0.0, prefix: str = "",
        after: str | None = None, descending: bool = False, page_size: int = 100,
    ) -> RowsPage:  # fmt: skip
        """Up to `page_size` rows whose keys begin with `prefix` and come after `after`; with `seq`, once the view has
        reached it."""
        params = {"seq": seq, "prefix": prefix or None, "after": after, "limit": min(page_size, PAGE_MAX)}
        params["order"] = "desc" if descending else None
        return cast(RowsPage, self._wait(_view(view, log), params, wait_s, "rows", "next"))

    def rows(
        self, view: str, log: str, *, seq: int | None = None, wait_s: float = 0.0, prefix: str = "",
        after: str | None = None, descending: bool = False, limit: int | None = None, page_size: int = 100,
    ) -> Iterator[Row]:  # fmt: skip
        """All such rows, at most `limit`. Reads pages as they are needed; each shows the view as it is by then."""
        left = sys.maxsize if limit is None else limit
        while left > 0:
            page = self.rows_page(
                view, log, seq=seq, wait_s=wait_s, prefix=prefix, after=after, descending=descending,
                page_size=min(page_size, left),
            )  # fmt: skip
            yield from page["rows"][:left]
            left -= len(page["rows"])
            if page["next"] is None:
                return
            if page["next"] == after:
                raise BadAnswer(f"the page of {view} after `{after}` ends where it began")
            after = page["next"]

    # Turns

    def _join(self, commands: Sequence[Command]) -> _Turn:
        """Queues up behind all earlier calls of the commands' origins."""
        _check_process(self._process, "Client")
        with self._lock:
            # Ids are given and queues are joined in one step, so each origin sends its ids in their order.
            filled = [self._filled(command) for command in commands]
            turn = _Turn(filled, [_json(command) for command in filled])
            if any(len(self._queues.get(origin, [])) > WAITING_MAX for origin in turn.origins):
                turn.not_sent = f"{WAITING_MAX} calls of its origin wait already"
                return turn
            for origin in turn.origins:
                self._queues.setdefault(origin, []).append(turn)
            self._wake(turn)
        return turn

    def _await(self, turn: _Turn) -> None:
        if not turn.not_sent and not turn.ready.wait(min(self._give_up_s, threading.TIMEOUT_MAX)):
            turn.not_sent = f"its turn did not come within {self._give_up_s} s"
        if turn.not_sent:
            raise NotSent(f"the command was not sent: {turn.not_sent}")

    def _leave(self, turn: _Turn) -> None:
        """Removes a turn from its queues. If it has no answer, those behind it fail, and those behind these."""
        with self._lock:
            gone = [turn]
            for one in gone:
                for origin in one.origins:
                    queue = self._queues.get(origin, [])
                    behind = queue[queue.index(one) + 1 :] if one in queue and not turn.answered else []
                    gone += [other for other in behind if other not in gone]
            for one in gone:
                for origin in one.origins:
                    queue = self._queues.get(origin, [])
                    if one in queue:
                        queue.remove(one)
                    if not queue:
                        self._queues.pop(origin, None)
                if one is not turn:
                    one.not_sent = "an earlier command of its origin has no answer"
                    one.ready.set()
            for origin in {origin for one in gone for origin in one.origins if origin in self._queues}:
                self._wake(self._queues[origin][0])

    def _wake(self, turn: _Turn) -> None:
        if all(self._queues[origin][0] is turn for origin in turn.origins):
            turn.ready.set()

    def _filled(self, command: Command) -> Command:
        filled = command.copy()
        filled.setdefault("client", self.client)
        user = filled.setdefault("user", self.user or "")
        if not user:
            raise ValueError("user: give it to the client, or to the command")
        if "id" not in filled:
            filled["id"] = self._ids.next()
        if not 1 <= filled["id"] <= ID_MAX:
            raise ValueError(f"id: {filled['id']}, must be 1 to 2^53 - 1")
        return filled

    # Requests

    def _start(self) -> _Tries:
        return _Tries(self._clock, self._tries, self._give_up_s)

    def _wait_ms(self, left_s: float) -> int | None:
        """The `wait` of a request, in milliseconds."""
        return int(min(left_s, self._wait_max_s) * 1_000) or None

    def _wait(self, path: str, params: dict[str, Any], wait_s: float, *fields: str) -> Any:
        """Reads until the answer is not 202 any more. It must have these fields."""
        _check_process(self._process, "Client")
        end_s = self._clock.now_s() + wait_s
        while True:
            wait = self._wait_ms(max(0.0, end_s - self._clock.now_s()))
            answer = self._ask(self._start(), "GET", path + _query(**params, wait=wait), None, wait or 0)
            found = self._success(answer)
            expected = ("seq",) if answer.status == 202 else fields
            if not isinstance(found, dict) or any(field not in found for field in expected):
                raise BadAnswer(f"{self._url} answers without {' and '.join(expected)}: {found!r:.200}")
            if answer.status != 202:
                return found
            left_s, parked = end_s - self._clock.now_s(), found.get("parked")
            if left_s <= 0 or parked:
                raise StillPending(found["seq"], parked)
            self._clock.sleep(min(POLL_S, left_s))

    def _ask(self, tries: _Tries, method: str, target: str, body: bytes | None, wait_ms: int = 0) -> _Answer:
        """Sends a request until its answer is not a temporary failure."""
        while True:
            timeout_s = min(self._timeout_s, max(1.0, tries.left_s())) + wait_ms / 1_000
            failure: Exception
            try:
                answer = self._exchange(method, target, body, timeout_s)
            except (OSError, http.client.HTTPException) as error:
                failure, asked_s = error, None
            except FanfoldError:
                raise
            except Exception as error:
                # The application's token function failed. A try before may have reached the server.
                raise Unanswered(tries.count, error) from error
            else:
                if not _is_temporary(answer.status):
                    return answer
                failure = self._problem(_parsed(answer.body), answer)
                asked_s = failure.retry_after_s
            tries.pause(failure, asked_s)

    def _exchange(self, method: str, target: str, body: bytes | None, timeout_s: float) -> _Answer:
        """Sends a request once."""
        headers = {"Accept": "application/json", "User-Agent": "fanfold-python"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token if isinstance(self._token, str) else self._token()}"
        with self._lock:
            connection = self._idle.pop() if self._idle else self._connection(self._host, self._port)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        end_s = time.monotonic() + timeout_s
        try:
            connection.request(method, self._prefix + target, body, headers)
            response = connection.getresponse()
            announced, pieces, size = response.length, list[bytes](), 0
            while piece := response.read1(64 * 1024):
                pieces.append(piece)
                size += len(piece)
                if size > ANSWER_BYTES_MAX:
                    raise BadAnswer(f"the answer of {self._url} has more than {ANSWER_BYTES_MAX} bytes: ask for less")
                if time.monotonic() > end_s:
                    raise TimeoutError(f"the answer took longer than {timeout_s} s")
            if announced is not None and size < announced:
                raise http.client.IncompleteRead(b"".join(pieces[:1]), announced - size)
            # The connection takes the next request only after this.
            response.close()
        except BaseException:
            # The other idle connections are probably as broken as this one.
            connection.close()
            self.close()
            raise
        with self._lock:
            is_kept = not response.will_close and len(self._idle) < IDLE_MAX
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.close()
        headers_of = response.headers
        return _Answer(response.status, headers_of.get("Retry-After"), headers_of.get("Location"), b"".join(pieces))

    def _success(self, answer: _Answer) -> Any:
        """The JSON of an answer with a status of 2xx. Raises `Problem` for any other."""
        found = _parsed(answer.body)
        if not 200 <= answer.status < 300:
            raise self._problem(found, answer)
        if found is None:
            raise BadAnswer(f"{self._url} answers {answer.status} without JSON: {answer.body[:200]!r}")
        return found

    def _problem(self, found: Any, answer: _Answer) -> Problem:
        asked_s = _retry_after_s(answer.retry_after, self._clock.unix_s())
        if isinstance(found, dict) and isinstance(found.get("type"), str) and isinstance(found.get("detail"), str):
            status = found.get("status", answer.status)
            kind = found["type"].removeprefix(PROBLEM)
            return Problem(status, kind, str(found.get("title", "")), found["detail"], asked_s)
        detail = f"{self._url} answers without a problem of Fanfold's: is it the right URL?"
        if answer.location and 300 <= answer.status < 400:
            detail = f"{self._url} redirects to {answer.location}: give the client that URL"
        return Problem(answer.status, "about:blank", "", detail, asked_s)

    def _receipt(self, found: Any, command: Command) -> Receipt:
        log, seq = (found.get("log"), found.get("seq")) if isinstance(found, dict) else (None, None)
        if not isinstance(log, str) or not isinstance(seq, int):
            raise BadAnswer(f"{self._url} answers with neither a receipt nor a problem: {found!r:.200}")
        return Receipt(log, seq, command["id"])


def _check_process(process: int, what: str) -> None:
    # After a fork, two processes would give the same ids under the same name, and share connections.
    if os.getpid() != process:
        raise RuntimeError(f"this {what} was made in another process: make one in each, with a `client` of its own")


def _origin(command: Command) -> tuple[str, str, str | None]:
    org = command.get("org")
    partition = f"user:{command['user']}" if org is None else f"org:{org}"
    return f"{command['type']}/{partition}", command["user"], command.get("client")


def _about(error: FanfoldError, command: Command, tries: _Tries) -> FanfoldError:
    """The error, with the command and what is known of it."""
    error.command = command
    error.maybe_accepted = tries.maybe_accepted or isinstance(error, BadAnswer)
    return error


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _parsed(body: bytes) -> Any:
    """The JSON of a body; `None` if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_temporary(status: int) -> bool:
    """Whether the same request may succeed later: the server, or a gateway before it, is overloaded or failed."""
    return status in (408, 425, 429) or (500 <= status < 600 and status not in (501, 505))


def _retry_after_s(value: str | None, unix_s: float) -> float | None:
    """The header `Retry-After`, which has seconds or a date, as seconds from now."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Longer numbers are centuries, too.
        return float(value[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - unix_s)
    except (ValueError, TypeError, OverflowError):
        return None


def _segment(what: str, text: str) -> str:
    """A segment of a path, percent-encoded. Refuses those that URLs take for another path."""
    if text in ("", ".", ".."):
        raise ValueError(f"{what}: `{text}` cannot be a name")
    return quote(text, safe="")


def _log(log: str) -> str:
    service, slash, partition = log.partition("/")
    if not slash:
        raise ValueError(f"log: `{log}` is not like ledger/org:acme")
    return f"/logs/{_segment('log', service)}/{_segment('log', partition)}"


def _view(view: str, log: str) -> str:
    return f"/views/{_segment('view', view)}{_log(log).removeprefix('/logs')}"


def _query(**params: object) -> str:
    """A query of the parameters that are not `None`, percent-encoded."""
    pairs = [f"{name}={quote(str(value), safe='')}" for name, value in params.items() if value is not None]
    return "?" + "&".join(pairs) if pairs else ""
