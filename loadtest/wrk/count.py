"""Reads all logs back, and counts distinct accepted commands; also sees the views at their tails.

usage: count.py URL ORGS
"""
import http.client
import json
import sys
from urllib.parse import urlsplit

url, orgs = urlsplit(sys.argv[1]), int(sys.argv[2])
connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)


def get(path):
    connection.request("GET", path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 200, (path, answer.status, body)
    return body


accepted, entries, behind, wrong = 0, 0, 0, 0
for org in range(orgs):
    log, start, seen, tail, balance = f"ledger/org:org{org}", 1, set(), 0, 0
    while start is not None:
        page = get(f"/logs/{log}?from={start}&limit=1000")
        for entry in page["entries"]:
            assert entry["seq"] == tail + 1, f"a hole in {log} at {entry['seq']}"
            tail, entries = entry["seq"], entries + 1
            if entry["status"] == "accepted":
                assert (entry["user"], entry["id"]) not in seen, f"twice in {log}: {entry}"
                seen.add((entry["user"], entry["id"]))
                if entry["command"] == "deposit":
                    accepted += 1
                    balance += entry["events"][0]["data"]["amount"]
        start = page["next"]
        behind += page["tail"] != page["accepted"]
    for view in ("balances", "statement", "totals"):
        behind += get(f"/views/{view}/{log}?limit=1")["seq"] != tail
    rows = get(f"/views/balances/{log}?limit=1")["rows"]
    wrong += (rows[0]["row"]["balance"] if rows else 0) != balance
print(json.dumps({"accepted": accepted, "entries": entries, "behind": behind, "wrong": wrong}))
