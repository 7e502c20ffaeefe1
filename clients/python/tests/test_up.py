"""The client against `fanfold up`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from harness import CLIENTS, Case, Reply, Up

from fanfold import Client, Command, Entry, Problem, Receipt

WORKER = """
import sys
from fanfold import Client, Receipt
url, org, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = Client(url, user="ann")
command = {"type": "ledger", "command": "deposit", "org": org, "data": {"account": "cash", "amount": 1}}
for _ in range(count):
    client.send(command)
assert all(isinstance(one, Receipt) for one in client.send_many([command] * count))
"""


def of(command: str, org: str, **data: Any) -> Command:
    return {"type": "ledger", "command": command, "org": org, "data": data}


class UpCase(Case):
    up: ClassVar[Up]

    @classmethod
    def setUpClass(cls) -> None:
        cls.up = Up()
        cls.addClassCleanup(cls.up.close)

    def setUp(self) -> None:
        super().setUp()
        self.org = f"org {uuid.uuid4()}"
        self.log = f"ledger/org:{self.org}"

    def client(self, url: str | None = None, **options: Any) -> Client:
        return super().client(url or self.up.url, **{"clock": None, **options})


class Calls(UpCase):
    def test_a_command_its_entry_its_rows_and_its_id(self) -> None:
        client = self.client()
        opened = client.send(of("open", self.org, account="cash"), wait_s=30)
        assert opened["status"] == "accepted"
        self.assertEqual((opened["log"], opened["seq"], opened["user"]), (self.log, 1, "ann"))
        self.assertEqual(opened["events"], [{"type": "opened", "document": "cash", "data": {}}])
        sent = client.send(of("deposit", self.org, account="cash", amount=2**53 + 1))
        self.assertEqual((sent.log, sent.seq), (self.log, 2))
        row = client.row("balances", self.log, "cash", seq=sent.seq, wait_s=30)
        self.assertEqual((row["row"]["balance"], row["rowSeq"], row["parked"]), (2**53 + 1, 2, None))
        self.assertEqual(client.lookup(self.log, sent.id), client.entry(self.log, 2))
        rejected = client.send(of("withdraw", self.org, account="cash", amount=2**60), wait_s=30)
        assert rejected["status"] == "rejected"
        self.assertEqual(rejected["code"], "overdrawn")
        # The same command with the same id again: the outcome is that of the first.
        again: Command = {**of("deposit", self.org, account="cash", amount=2**53 + 1), "id": sent.id}
        self.assertEqual(client.send(again, wait_s=30)["seq"], 2)
        self.assertEqual(client.entry(self.log, 4)["status"], "duplicate")

    def test_problems_are_typed(self) -> None:
        client = self.client()
        client.send(of("open", self.org, account="cash"), wait_s=30)
        calls: list[tuple[Any, int, str, str]] = [
            (lambda: client.send({**of("open", "a/b", account="x")}), 400, "bad-name", "`org`"),
            (lambda: client.send(of("opn", self.org)), 400, "unknown-command", "opn"),
            (lambda: client.send(of("open", self.org, account=7)), 400, "invalid-data", "`data"),
            (lambda: client.entry(self.log, 9, wait_s=1), 404, "unknown-seq", "9"),
            (lambda: client.lookup(self.log, 5), 404, "unknown-id", "5"),
            (lambda: client.row("balances", self.log, "none", seq=1, wait_s=30), 404, "unknown-row", "none"),
            (lambda: client.rows_page("balances", self.log, seq=7), 404, "unknown-seq", "7"),
            (lambda: list(client.rows("nothing", self.log)), 404, "unknown-view", "nothing"),
            (lambda: client.entries_page(self.log, page_size=0), 400, "bad-parameter", "`limit`"),
        ]
        for call, status, kind, says in calls:
            with self.assertRaises(Problem) as caught:
                call()
            self.assertEqual((caught.exception.status, caught.exception.kind), (status, kind))
            self.assertIn(says, caught.exception.detail)

    def test_pages_are_read_to_their_end(self) -> None:
        client = self.client()
        accounts = [f"account {n:03}" for n in range(25)]
        results = client.send_many([of("open", self.org, account=account) for account in accounts])
        self.assertEqual([one.seq for one in results if isinstance(one, Receipt)], list(range(1, 26)))
        client.entry(self.log, 25, wait_s=30)
        seqs = [entry["seq"] for entry in client.entries(self.log, page_size=10)]
        self.assertEqual(seqs, list(range(1, 26)))
        self.assertEqual(
            [e["seq"] for e in client.entries(self.log, from_seq=7, limit=12, page_size=5)], list(range(7, 19))
        )
        page = client.entries_page(self.log, page_size=10)
        self.assertEqual((page["accepted"], page["tail"], page["next"]), (25, 25, 11))
        keys = [row["key"] for row in client.rows("balances", self.log, seq=25, wait_s=30, page_size=10)]
        self.assertEqual(keys, accounts)
        down = client.rows("balances", self.log, prefix="account 01", descending=True, page_size=3, limit=7)
        self.assertEqual([row["key"] for row in down], accounts[19:12:-1])
        self.assertEqual([row["key"] for row in client.rows("balances", self.log, after=accounts[22])], accounts[23:])

    def test_unusual_names_come_back_as_they_were_sent(self) -> None:
        for name in ("Zoë Müller", "山田 太郎", "a+b@x.io", '"q"', "<b>&", "🦀👩‍🚀", "a;b=~'c'", "org:x"):
            client = self.client(user=name, client=name)
            opened = client.send(of("open", name + self.org, account=name), wait_s=30)
            log = f"ledger/org:{name}{self.org}"
            self.assertEqual((opened["log"], opened["user"], opened["client"]), (log, name, name))
            self.assertEqual(client.lookup(log, opened["id"]), opened)
            self.assertEqual(client.row("balances", log, name, seq=1, wait_s=30)["key"], name)
            self.assertEqual([row["key"] for row in client.rows("balances", log, prefix=name)], [name])
            self.assertEqual([row["key"] for row in client.rows("statement", log, prefix=name + "/")], [])
            self.assertEqual(list(client.rows("balances", log, after=name)), [])

    def test_without_an_organisation_and_without_a_client(self) -> None:
        client = self.client(user=self.org, client=None)
        opened = client.send({"type": "ledger", "command": "open", "data": {"account": "cash"}}, wait_s=30)
        self.assertEqual(opened["log"], f"ledger/user:{self.org}")
        self.assertNotIn("client", opened)
        self.assertEqual(client.lookup(opened["log"], opened["id"]), opened)
        with self.assertRaises(Problem):
            client.lookup(opened["log"], opened["id"], client="another")


class LostAnswers(UpCase):
    def test_a_command_whose_answer_was_lost_is_done_once(self) -> None:
        lost = Reply(cut=True, first_to=self.up.url)
        fake = self.fake(lost, lost, script=None)
        direct = self.client()
        direct.send(of("open", self.org, account="cash"), wait_s=30)
        # The third try, and all that follows, is passed on and answered.
        proxy = self.client(fake.url)
        proxy._clock = self.clock
        with self.assertRaises(Problem) as caught:
            proxy.send(of("deposit", self.org, account="cash", amount=5))
        error = caught.exception
        self.assertTrue(error.maybe_accepted)
        assert error.command
        self.assertEqual(len(set(fake.bodies)), 1)
        entry = direct.send(error.command, wait_s=30)
        self.assertEqual((entry["seq"], entry["status"]), (2, "accepted"))
        statuses = [entry["status"] for entry in direct.entries(self.log)]
        self.assertEqual(statuses, ["accepted", "accepted", "duplicate", "duplicate"])
        self.assertEqual(direct.row("balances", self.log, "cash", seq=4, wait_s=30)["row"]["balance"], 5)


class Processes(UpCase):
    def test_several_processes_of_one_user_make_ids_at_once(self) -> None:
        processes, count = 4, 60
        client = self.client()
        client.send(of("open", self.org, account="cash"), wait_s=30)
        command = [sys.executable, "-c", WORKER, self.up.url, self.org, str(count)]
        environment = {**os.environ, "PYTHONPATH": str(CLIENTS / "python")}
        running = [subprocess.Popen(command, env=environment) for _ in range(processes)]
        self.assertEqual([process.wait(120) for process in running], [0] * processes)
        last = 1 + processes * count * 2
        client.entry(self.log, last, wait_s=30)
        entries: list[Entry] = list(client.entries(self.log))
        self.assertEqual(Counter(entry["status"] for entry in entries), {"accepted": last})
        per_client = Counter(entry["client"] for entry in entries[1:])
        self.assertEqual(list(per_client.values()), [2 * count] * processes)
        self.assertEqual(len({(entry["client"], entry["id"]) for entry in entries}), last)


class Documents(UpCase):
    def snippets(self, document: Path) -> list[str]:
        found = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
        self.assertTrue(found, document)
        return [text.replace("http://127.0.0.1:8080", self.up.url) for text in found]

    def run_snippet(self, text: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(CLIENTS / "python")}
        ran = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return ran.stdout

    def test_the_examples_run(self) -> None:
        for document in (CLIENTS / "README.md", CLIENTS.parent / "docs/ids.md"):
            for text in self.snippets(document):
                # A second run must work, too: the account is open by then.
                for _ in range(2):
                    self.assertTrue(self.run_snippet(text), text)


if __name__ == "__main__":
    unittest.main()
