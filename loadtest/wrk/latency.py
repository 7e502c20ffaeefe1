"""How long a command takes from the request to the 202, and to a view, while others come at a rate.

usage: latency.py URL [per_second=2000] [seconds=10] [orgs=1000]
Open loop: the others are sent when they are due, not when the last one is answered.
"""
import http.client
import json
import multiprocessing
import random
import sys
import time
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
per_second, seconds, orgs = (int(a) for a in (sys.argv[2:] + ["2000", "10", "1000"][len(sys.argv) - 2:]))


def connect():
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    connection.connect()
    return connection


def command(user, number, org):
    return json.dumps({"type": "ledger", "command": "deposit", "id": number, "user": user,
                       "org": f"org{org}", "data": {"account": "cash", "amount": 1}})


def post(connection, body):
    connection.request("POST", "/command", body)
    answer = connection.getresponse()
    receipt = json.loads(answer.read())
    assert answer.status == 202, receipt
    return receipt


def others(worker, rate, began):
    connection, start, late = connect(), time.time(), 0.0
    run = int(began)
    for number in range(1, int(rate * seconds) + 1):
        due = start + number / rate
        pause = due - time.time()
        if pause > 0:
            time.sleep(pause)
        late = max(late, -pause)
        post(connection, command(f"rate{run}-{worker}", number, random.randrange(orgs)))
    print(f"worker {worker}: {rate:.0f} per second, at most {late * 1000:.0f} ms late", flush=True)


def main():
    workers, began = 4, time.time()
    started = [multiprocessing.Process(target=others, args=(w, per_second / workers, began)) for w in range(workers)]
    for worker in started:
        worker.start()
    time.sleep(1)
    accepts, views, number, connection = [], [], 0, connect()
    while time.time() < began + seconds - 0.5:
        number, org, sent = number + 1, random.randrange(orgs), time.time()
        receipt = post(connection, command(f"probe{int(began)}", number, org))
        accepts.append(time.time() - sent)
        connection.request("GET", f"/views/balances/{receipt['log']}/cash?seq={receipt['seq']}&wait=5000")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body)
        views.append(time.time() - sent)
        time.sleep(0.01)
    for worker in started:
        worker.join()
    for name, times in (("202", sorted(accepts)), ("view", sorted(views))):
        at = lambda share: times[min(len(times) - 1, int(share * len(times)))] * 1000
        print(f"{name}: {len(times)} probes, p50 {at(.5):.1f} ms, p90 {at(.9):.1f} ms, p99 {at(.99):.1f} ms, max {times[-1] * 1000:.1f} ms")


main()
