"""Retries, order and errors, against a server that misbehaves."""

from __future__ import annotations

import email.utils
import json
import os
import pickle
import random
import threading
import time
from typing import Any
from unittest import mock

import harness
from harness import Case, Reply, Request

import fanfold
from fanfold import BadAnswer, Client, Command, FanfoldError, Ids, NotSent, Problem, Receipt, StillPending, Unanswered

OPEN: Command = {"type": "ledger", "command": "open", "org": "acme", "data": {"account": "cash"}}


def receipt(seq: int = 1) -> Reply:
    return Reply(202, json.dumps({"log": "ledger/org:acme", "seq": seq}).encode())


def entry(seq: int = 1, status: str = "accepted", **more: Any) -> Reply:
    found = {"log": "ledger/org:acme", "seq": seq, "status": status, "at": "2026-01-01T00:00:00Z", **more}
    return Reply(200, json.dumps(found).encode())


def problem(status: int, kind: str = "unavailable", **headers: str) -> Reply:
    found = {"type": f"urn:fanfold:problem:{kind}", "title": "A title", "status": status, "detail": "`id`: is bad"}
    return Reply(status, json.dumps(found).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def pending(seq: int, **more: Any) -> Reply:
    return Reply(202, json.dumps({"status": "pending", "seq": seq, **more}).encode())


class Retries(Case):
    def assert_sent_again(self, fake: harness.Fake, times: int) -> None:
        self.assertEqual(len(fake.bodies), times)
        self.assertEqual(len(set(fake.bodies)), 1, "the same id and body are sent again")

    def test_after_503_the_same_body_is_sent_again_no_sooner_than_retry_after(self) -> None:
        fake = self.fake(problem(503, Retry_After="7"), receipt(3))
        sent = self.client(fake.url).send(OPEN)
        self.assertEqual((sent.log, sent.seq), ("ledger/org:acme", 3))
        self.assertEqual(json.loads(fake.bodies[0])["id"], sent.id)
        self.assert_sent_again(fake, 2)
        self.assertEqual(self.clock.slept, [7.0])

    def test_retry_after_may_be_a_date(self) -> None:
        date = email.utils.formatdate(self.clock.unix_s() + 11, usegmt=True)
        fake = self.fake(problem(503, Retry_After=date), receipt())
        self.client(fake.url).send(OPEN)
        self.assert_sent_again(fake, 2)
        self.assertEqual(self.clock.slept, [11.0])

    def test_a_retry_after_that_cannot_be_read_is_ignored(self) -> None:
        for bad in ("", "-1", "1.5", "soon", "Wed, 99 Foo", "²"):
            self.assertIsNone(fanfold._retry_after_s(bad, 0.0), bad)
        self.assertGreater(fanfold._retry_after_s("9" * 5_000, 0.0) or 0, 1e9)
        self.assertEqual(fanfold._retry_after_s("Thu, 01 Jan 1970 00:00:05 GMT", 100.0), 0.0)

    def test_429_500_a_cut_connection_and_a_short_answer_are_retried(self) -> None:
        short = receipt()
        short.short_by = 5
        for failure in (
            problem(429, "throttled"),
            problem(500, "internal"),
            Reply(502, b"<html>"),
            Reply(cut=True),
            short,
        ):
            fake = self.fake(failure, failure, receipt())
            self.assertEqual(self.client(fake.url).send(OPEN).seq, 1)
            self.assert_sent_again(fake, 3)

    def test_an_answer_that_is_too_slow_is_retried(self) -> None:
        late = threading.Event()
        self.addCleanup(late.set)
        slow = receipt(8)
        slow.after = late
        fake = self.fake(script=lambda _: slow if len(fake.requests) == 1 else receipt(9))
        self.assertEqual(self.client(fake.url, timeout_s=0.2).send(OPEN).seq, 9)
        # On a busy machine, later answers may be too slow, too.
        self.assert_sent_again(fake, max(2, len(fake.bodies)))

    def test_connections_that_the_server_closed_while_idle_do_not_use_up_the_tries(self) -> None:
        at_once = threading.Barrier(4)

        def script(request: Request) -> Reply:
            if b"last" not in request.body:
                at_once.wait(30)
            closed = receipt()
            closed.then_closed = True
            return closed

        client = self.client(self.fake(script=script).url, tries=2)
        orgs = [f"org {n}" for n in range(4)]
        threads = [threading.Thread(target=client.send, args=({**OPEN, "org": org},)) for org in orgs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(client._idle), 4)
        client.send({**OPEN, "org": "last"})

    def test_pauses_grow_to_a_bound_and_the_tries_are_bounded(self) -> None:
        fake = self.fake(script=lambda _: problem(503))
        with mock.patch("random.random", return_value=1.0), self.assertRaises(Unanswered) as caught:
            self.client(fake.url, tries=9, give_up_s=1e9).send(OPEN)
        self.assertEqual(self.clock.slept, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        self.assert_sent_again(fake, 9)
        error = caught.exception
        assert error.problem and error.command
        self.assertEqual((error.tries, error.problem.status, error.maybe_accepted), (9, 503, True))
        self.assertEqual(error.command["id"], json.loads(fake.bodies[0])["id"])

    def test_the_total_time_is_bounded(self) -> None:
        fake = self.fake(script=lambda _: Reply(cut=True))
        with self.assertRaises(Unanswered) as caught:
            self.client(fake.url, tries=10**6, give_up_s=60.0).send(OPEN)
        self.assertLessEqual(self.clock.passed_s, 60.0)
        self.assertIsNone(caught.exception.problem)
        self.assertIsNotNone(caught.exception.__cause__)
        fake = self.fake(problem(503, Retry_After="3600"))
        with self.assertRaises(Unanswered):
            self.client(fake.url, give_up_s=60.0).send(OPEN)
        self.assertEqual(len(fake.bodies), 1)

    def test_a_command_that_never_reached_a_server_is_not_accepted(self) -> None:
        fake = harness.Fake()
        fake.close()
        with self.assertRaises(Unanswered) as caught:
            self.client(fake.url, tries=3).send(OPEN)
        self.assertFalse(caught.exception.maybe_accepted)


class Refusals(Case):
    def test_400_and_409_are_not_retried_and_later_commands_are_sent(self) -> None:
        for status, kind in ((400, "bad-id"), (409, "log-closed"), (413, "command-too-large"), (501, "x")):
            fake = self.fake(problem(status, kind), receipt())
            client = self.client(fake.url)
            with self.assertRaises(Problem) as caught:
                client.send(OPEN)
            error = caught.exception
            self.assertEqual((error.status, error.kind, error.title), (status, kind, "A title"))
            self.assertEqual((error.detail, error.retry_after_s, error.maybe_accepted), ("`id`: is bad", None, False))
            self.assertEqual(len(fake.bodies), 1)
            self.assertEqual(client.send(OPEN).seq, 1)

    def test_a_refusal_after_a_lost_answer_says_that_the_command_may_be_in_the_log(self) -> None:
        fake = self.fake(Reply(cut=True), problem(409, "log-closed"))
        with self.assertRaises(Problem) as caught:
            self.client(fake.url).send(OPEN)
        self.assertTrue(caught.exception.maybe_accepted)

    def test_an_answer_that_is_not_understood_is_an_error_of_its_own(self) -> None:
        for body in (b"", b"{", b"\xff", b"null", b"[]", b'{"log":1,"seq":1}', b'{"log":"a/b"}', b"[" * 100_000):
            fake = self.fake(Reply(202, body))
            with self.assertRaises(BadAnswer) as caught:
                self.client(fake.url).send(OPEN)
            self.assertTrue(caught.exception.maybe_accepted)
            self.assertEqual(len(fake.bodies), 1)
        for reply in (Reply(200, b'{"seq":1}'), Reply(202, b"{}"), Reply(200, b"7")):
            with self.assertRaises(BadAnswer):
                self.client(self.fake(reply).url).entry("ledger/org:acme", 1)

    def test_a_refusal_by_another_server_is_a_problem_of_no_kind(self) -> None:
        for reply, says in (
            (Reply(404, b"<html>"), "right URL"),
            (Reply(308, b"", {"Location": "/x"}), "redirects to /x"),
        ):
            with self.assertRaises(Problem) as caught:
                self.client(self.fake(reply).url).send(OPEN)
            self.assertEqual((caught.exception.status, caught.exception.kind), (reply.status, "about:blank"))
            self.assertIn(says, caught.exception.detail)

    def test_an_answer_that_is_too_large_is_not_read(self) -> None:
        with mock.patch("fanfold.ANSWER_BYTES_MAX", 1_000), self.assertRaises(BadAnswer):
            self.client(self.fake(Reply(200, b" " * 2_000)).url).entry("ledger/org:acme", 1)

    def test_what_cannot_be_sent_is_refused_before_it_is_sent(self) -> None:
        fake = self.fake(receipt())
        client = self.client(fake.url)
        bad: list[Any] = [
            {"id": 0},
            {"id": 2**53},
            {"user": ""},
            {"data": float("nan")},
            {"data": "\ud800"},
            {"data": {1}},
        ]
        for more in bad:
            with self.assertRaises((ValueError, TypeError), msg=str(more)):
                client.send({**OPEN, **more})
        for log, key in (
            ("ledger", "a"),
            ("ledger/", "a"),
            ("ledger/org:a", ".."),
            ("../org:a", "a"),
            ("ledger/org:a", ""),
        ):
            with self.assertRaises(ValueError):
                client.row("balances", log, key)
        for url in ("127.0.0.1:8080", "ftp://x", "http://", "http://x?a=b", "http://x:y", "http://a@x"):
            with self.assertRaises(ValueError):
                Client(url)
        self.assertEqual(fake.bodies, [])
        client.send(OPEN)

    def test_errors_can_be_pickled(self) -> None:
        for error in (
            Problem(400, "a", "b", "c", 1.0),
            Unanswered(3, OSError("x")),
            StillPending(3, None),
            NotSent("x"),
        ):
            error.command = {**OPEN, "id": 7}
            again = pickle.loads(pickle.dumps(error))
            self.assertEqual((str(again), again.command["id"]), (str(error), 7))


class Order(Case):
    def test_no_command_overtakes_an_earlier_one_of_its_origin(self) -> None:
        seed = int(os.environ.get("FANFOLD_SEED") or time.time_ns())
        print(f"seed {seed} (FANFOLD_SEED)")
        rng, lock = random.Random(seed), threading.Lock()
        under_way: dict[str, int] = {}
        taken: dict[str, list[int]] = {}
        overtaken: list[str] = []

        def script(request: Request) -> Reply:
            command = json.loads(request.body)
            origin = command["org"] + command["user"]
            with lock:
                under_way[origin] = under_way.get(origin, 0) + 1
                if under_way[origin] > 1:
                    overtaken.append(origin)
                action = rng.choice(["take", "take", "refuse", "cut", "take and cut"])
                if action.startswith("take") and command["id"] not in taken.setdefault(origin, []):
                    taken[origin].append(command["id"])
            time.sleep(0.001)
            with lock:
                under_way[origin] -= 1
            return {"take": receipt(), "refuse": problem(503)}.get(action, Reply(cut=True))

        fake = self.fake(script=script)
        client = self.client(fake.url, tries=10**6, give_up_s=1e9)
        failures: list[BaseException] = []

        def send(worker: int) -> None:
            try:
                for _ in range(15):
                    client.send({**OPEN, "org": f"org {worker % 2}", "user": f"user {worker % 4 // 2}"})
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=send, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(overtaken, [])
        self.assertEqual(len(taken), 4)
        for ids in taken.values():
            self.assertEqual(ids, sorted(ids))
            self.assertEqual(len(ids), 30)
        self.assertEqual(client._queues, {}, "nothing is kept of origins at rest")

    def test_commands_behind_one_without_an_answer_are_not_sent_and_later_calls_are(self) -> None:
        given_up, waits = threading.Event(), threading.Event()

        def script(request: Request) -> Reply:
            if json.loads(request.body)["id"] != 1:
                return receipt(2)
            waits.set()
            given_up.wait(30)
            return Reply(cut=True)

        fake = self.fake(script=script)
        client = self.client(fake.url, tries=1)
        errors: dict[int, FanfoldError] = {}

        def send(id: int) -> None:
            try:
                client.send({**OPEN, "id": id})
            except FanfoldError as error:
                errors[id] = error

        threads = [threading.Thread(target=send, args=(id,)) for id in (1, 2, 3)]
        threads[0].start()
        waits.wait(30)
        for thread in threads[1:]:
            thread.start()
        while sum(map(len, client._queues.values())) < 3:
            time.sleep(0.001)
        # Another origin does not wait.
        self.assertEqual(client.send({**OPEN, "user": "bob", "id": 9}).seq, 2)
        given_up.set()
        for thread in threads:
            thread.join()
        self.assertEqual({id: type(error) for id, error in errors.items()}, {1: Unanswered, 2: NotSent, 3: NotSent})
        self.assertEqual([(e.command or OPEN).get("id") for _, e in sorted(errors.items())], [1, 2, 3])
        self.assertEqual([errors[id].maybe_accepted for id in (1, 2, 3)], [True, False, False])
        self.assertEqual([json.loads(body)["id"] for body in fake.bodies], [1, 9])
        self.assertEqual(client.send({**OPEN, "id": 2}), Receipt("ledger/org:acme", 2, 2))

    def test_a_command_behind_a_refused_one_is_sent(self) -> None:
        refuse, waits = threading.Event(), threading.Event()

        def script(request: Request) -> Reply:
            if json.loads(request.body)["id"] != 1:
                return receipt(2)
            waits.set()
            refuse.wait(30)
            return problem(400, "bad-id")

        client = self.client(self.fake(script=script).url)
        found: dict[int, object] = {}

        def send(id: int) -> None:
            try:
                found[id] = client.send({**OPEN, "id": id}).seq
            except FanfoldError as error:
                found[id] = type(error)

        threads = [threading.Thread(target=send, args=(id,)) for id in (1, 2)]
        threads[0].start()
        waits.wait(30)
        threads[1].start()
        while sum(map(len, client._queues.values())) < 2:
            time.sleep(0.001)
        refuse.set()
        for thread in threads:
            thread.join()
        self.assertEqual(found, {1: Problem, 2: 2})

    def test_a_turn_that_does_not_come_in_time_is_not_sent(self) -> None:
        first, waits = threading.Event(), threading.Event()

        def script(request: Request) -> Reply:
            waits.set()
            first.wait(30)
            return receipt()

        client = self.client(self.fake(script=script).url, give_up_s=0.05, clock=None)
        thread = threading.Thread(target=client.send, args=(OPEN,))
        thread.start()
        waits.wait(30)
        with self.assertRaises(NotSent):
            client.send(OPEN)
        first.set()
        thread.join()
        with mock.patch("fanfold.WAITING_MAX", -1), self.assertRaises(NotSent):
            client.send(OPEN)


class Batches(Case):
    def results(self, *items: object, **headers: str) -> Reply:
        return Reply(202, json.dumps({"results": items}).encode(), {k.replace("_", "-"): v for k, v in headers.items()})

    def test_only_commands_that_could_not_be_taken_are_sent_again_with_their_ids(self) -> None:
        taken = {"log": "ledger/org:acme", "seq": 1}
        busy, bad = (
            {"problem": json.loads(problem(status, kind).body)} for status, kind in ((503, "x"), (400, "bad-id"))
        )
        fake = self.fake(
            Reply(cut=True), self.results(taken, busy, bad, busy, Retry_After="4"), self.results(taken, taken)
        )
        commands: list[Command] = [{**OPEN, "data": {"n": n}} for n in range(4)]
        found = self.client(fake.url).send_many(commands)
        first, again, last = (json.loads(body) for body in fake.bodies)
        self.assertEqual(first, again)
        self.assertEqual(last, [first[1], first[3]])
        self.assertEqual(len({command["id"] for command in first}), 4)
        self.assertEqual(self.clock.slept[1:], [4.0])
        self.assertEqual([type(one) for one in found], [Receipt, Receipt, Problem, Receipt])
        refused = found[2]
        assert isinstance(refused, Problem)
        self.assertEqual((refused.kind, refused.command, refused.maybe_accepted), ("bad-id", first[2], True))

    def test_commands_that_are_given_up_have_an_error_each(self) -> None:
        taken, busy = {"log": "ledger/org:acme", "seq": 1}, {"problem": json.loads(problem(503).body)}
        fake = self.fake(self.results(taken, busy, busy), script=None)
        client = self.client(fake.url, tries=1)
        found = client.send_many([OPEN, OPEN, OPEN])
        self.assertEqual([type(one) for one in found], [Receipt, Unanswered, Unanswered])
        sent = json.loads(fake.bodies[0])
        self.assertEqual([getattr(one, "command", None) for one in found], [None, sent[1], sent[2]])
        for items in (5, [], [taken], [1, 2, 3]):
            client = self.client(self.fake(Reply(202, json.dumps({"results": items}).encode())).url)
            self.assertEqual({type(one) for one in client.send_many([OPEN, OPEN])}, {BadAnswer})
        for commands in ([], [OPEN] * 501):
            with self.assertRaises(ValueError):
                client.send_many(commands)


class Waits(Case):
    def test_an_entry_is_asked_for_until_it_is_there(self) -> None:
        fake = self.fake(receipt(4), pending(2), pending(3), entry(4))
        self.assertEqual(self.client(fake.url).send(OPEN, wait_s=12.0)["seq"], 4)
        self.assertEqual(fake.requests[0].path, "/command?wait=5000")
        self.assertEqual(fake.requests[1].path, "/logs/ledger/org%3Aacme/4?wait=5000")
        fake = self.fake(entry(4, "rejected", code="overdrawn", message=""))
        rejected = self.client(fake.url, wait_max_s=2.0).send(OPEN, wait_s=12.0)
        assert rejected["status"] == "rejected"
        self.assertEqual((rejected["code"], fake.requests[0].path), ("overdrawn", "/command?wait=2000"))

    def test_a_duplicate_leads_to_the_first_entry(self) -> None:
        fake = self.fake(Reply(cut=True), entry(9, "duplicate", of=4), entry(4))
        self.assertEqual(self.client(fake.url).send(OPEN, wait_s=1.0)["seq"], 4)

    def test_a_wait_ends_after_its_time_and_at_once_if_the_view_is_parked(self) -> None:
        client = self.client(self.fake(script=lambda _: pending(2)).url)
        with self.assertRaises(StillPending) as caught:
            client.entry("ledger/org:acme", 4, wait_s=1.0)
        self.assertEqual((caught.exception.seq, round(self.clock.passed_s, 6)), (2, 1.0))
        parked = {"seq": 3, "reason": "overflow", "at": "2026-01-01T00:00:00Z"}
        fake = self.fake(pending(2, parked=parked))
        with self.assertRaises(StillPending) as caught:
            self.client(fake.url).row("balances", "ledger/org:acme", "cash", seq=4, wait_s=1.0)
        self.assertEqual((caught.exception.parked, len(fake.requests)), (parked, 1))

    def test_a_wait_that_fails_after_the_receipt_has_the_receipt(self) -> None:
        with self.assertRaises(StillPending) as caught:
            self.client(self.fake(receipt(4), pending(2)).url).send(OPEN, wait_s=0.0)
        assert caught.exception.receipt and caught.exception.command
        self.assertEqual(caught.exception.receipt.seq, 4)
        self.assertEqual(caught.exception.receipt.id, caught.exception.command["id"])


class Requests(Case):
    def test_names_are_percent_encoded(self) -> None:
        fake = self.fake(script=lambda _: Reply(200, b'{"seq":1,"row":1,"rows":[],"next":null,"status":"stale"}'))
        client = self.client(fake.url + "/v1/")
        client.row("balances", "ledger/org:Zoë + b", "cash/1 +%")
        client.lookup("ledger/user:a+b@x.io", 7, client=None, user="a+b & c")
        client.lookup("ledger/org:x", 7, wait_s=1)
        list(client.rows("balances", "ledger/org:x", prefix="a b+", after="a/ü", descending=True, seq=3))
        self.assertEqual(
            [request.path for request in fake.requests],
            [
                "/v1/views/balances/ledger/org%3AZo%C3%AB%20%2B%20b/cash%2F1%20%2B%25",
                "/v1/logs/ledger/user%3Aa%2Bb%40x.io?user=a%2Bb%20%26%20c&id=7",
                "/v1/logs/ledger/org%3Ax?user=ann&client=till%207&id=7&wait=1000",
                "/v1/views/balances/ledger/org%3Ax?seq=3&prefix=a%20b%2B&after=a%2F%C3%BC&limit=100&order=desc",
            ],
        )

    def test_a_connection_is_used_again(self) -> None:
        fake = self.fake(*[receipt()] * 3)
        client = self.client(fake.url)
        for _ in range(3):
            client.send(OPEN)
        self.assertEqual(len(fake.requests), 3)
        self.assertEqual(len({request.connection for request in fake.requests}), 1)

    def test_a_token_may_change(self) -> None:
        fake, tokens = self.fake(problem(503), receipt(), receipt()), iter(["a", "b"])
        self.client(fake.url, token=lambda: next(tokens)).send(OPEN)
        self.client(fake.url, token="c").send(OPEN)
        found = [request.headers["Authorization"] for request in fake.requests]
        self.assertEqual(found, ["Bearer a", "Bearer b", "Bearer c"])

    def test_a_page_that_does_not_advance_is_an_error(self) -> None:
        page = Reply(200, b'{"entries":[],"rows":[],"next":1}')
        client = self.client(self.fake(script=lambda _: page).url)
        with self.assertRaises(BadAnswer):
            list(client.entries("ledger/org:acme"))
        page.body = b'{"rows":[],"next":"a"}'
        with self.assertRaises(BadAnswer):
            list(client.rows("balances", "ledger/org:acme"))


class Numbering(Case):
    def test_ids_follow_the_recipe_and_grow_even_if_the_clock_goes_back(self) -> None:
        ids = Ids(3, self.clock)
        first = ids.next()
        self.assertEqual(first, int(self.clock.unix_s() * 1000) * 1024 + 3)
        self.clock.began_s -= 1_000
        self.assertEqual([ids.next(), ids.next()], [first + 1, first + 2])
        self.clock.began_s += 2_000
        self.assertEqual(ids.next(), int(self.clock.unix_s() * 1000) * 1024 + 3)
        self.assertLess(first, 2**53)

    def test_a_forked_process_gives_no_ids(self) -> None:
        fake = self.fake(receipt())
        client, ids = self.client(fake.url), Ids()
        with mock.patch("os.getpid", return_value=0):
            for call in (ids.next, lambda: client.send(OPEN), lambda: client.entry("ledger/org:acme", 1)):
                with self.assertRaises(RuntimeError):
                    call()
        self.assertEqual(fake.bodies, [])

    def test_clients_have_random_names_of_their_own(self) -> None:
        names = {Client("http://x").client for _ in range(100)}
        self.assertEqual(len(names), 100)
        self.assertIsNone(Client("http://x", client=None).client)
