// Retries, order and errors, against a server that misbehaves.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  BadAnswer,
  Client,
  type Command,
  FanfoldError,
  Ids,
  NotSent,
  Problem,
  StillPending,
  Unanswered,
  WAITING_MAX,
  ANSWER_BYTES_MAX,
} from "../fanfold.js";
import { client, Fake, FakeClock, type Reply, type Request } from "./harness.js";

const OPEN: Command = { type: "ledger", command: "open", org: "acme", data: { account: "cash" } };

const receipt = (seq = 1): Reply => ({ status: 202, body: JSON.stringify({ log: "ledger/org:acme", seq }) });

const entry = (seq = 1, status = "accepted", more = {}): Reply => {
  const found = { log: "ledger/org:acme", seq, status, at: "2026-01-01T00:00:00Z", ...more };
  return { status: 200, body: JSON.stringify(found) };
};

const problem = (status: number, kind = "unavailable", headers: Record<string, string> = {}): Reply => {
  const found = { type: `urn:fanfold:problem:${kind}`, title: "A title", status, detail: "`id`: is bad" };
  return { status, body: JSON.stringify(found), headers };
};

const pending = (seq: number, more = {}): Reply => {
  return { status: 202, body: JSON.stringify({ status: "pending", seq, ...more }) };
};

/** The error that a call ends with. */
async function caught<E>(kind: abstract new (...args: never[]) => E, call: Promise<unknown>): Promise<E> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof kind, String(error));
    return error;
  }
  assert.fail("the call did not fail");
}

async function all<T>(found: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of found) items.push(item);
  return items;
}

function assertSentAgain(fake: Fake, times: number): void {
  assert.equal(fake.bodies.length, times);
  assert.equal(new Set(fake.bodies).size, 1, "the same id and body are sent again");
}

describe("retries", () => {
  test("after 503 the same body is sent again, no sooner than Retry-After", async () => {
    const [fake, clock] = [await Fake.start([problem(503, "x", { "retry-after": "7" }), receipt(3)]), new FakeClock()];
    const sent = await client(fake.url, clock).send(OPEN);
    assert.deepEqual([sent.log, sent.seq], ["ledger/org:acme", 3]);
    assert.equal(JSON.parse(fake.bodies[0]!).id, sent.id);
    assertSentAgain(fake, 2);
    assert.deepEqual(clock.slept, [7_000]);
  });

  test("Retry-After may be a date, and is ignored if it cannot be read", async () => {
    const clock = new FakeClock();
    const at = (ms: number) => new Date(clock.unixMs() + ms).toUTCString();
    for (const [value, expected] of [
      [at(11_000), 11_000],
      [at(-9_000), 0],
      ["-1", 0],
      ["1.5", 0],
      ["soon", 0],
    ] as const) {
      clock.slept = [];
      clock.passedMs = 0;
      const fake = await Fake.start([problem(503, "x", { "retry-after": value }), receipt()]);
      await client(fake.url, clock).send(OPEN);
      assertSentAgain(fake, 2);
      assert.ok(expected === 0 ? clock.slept[0]! <= 100 : clock.slept[0] === expected, `${value}: ${clock.slept}`);
    }
  });

  test("429, 500, a cut connection and a short answer are retried", async () => {
    const short = { ...receipt(), shortBy: 5 };
    for (const failure of [problem(429), problem(500), { status: 502, body: "<html>" }, { cut: true }, short]) {
      const fake = await Fake.start([failure, failure, receipt()]);
      assert.equal((await client(fake.url, new FakeClock()).send(OPEN)).seq, 1);
      assertSentAgain(fake, 3);
    }
  });

  test("an answer that is too slow is retried", async () => {
    let answer = () => {};
    const late = new Promise<void>((resolve) => (answer = resolve));
    const slow = { ...receipt(8), after: late };
    const fake: Fake = await Fake.start(() => (fake.requests.length === 1 ? slow : receipt(9)));
    assert.equal((await client(fake.url, new FakeClock(), { timeoutMs: 200 }).send(OPEN)).seq, 9);
    answer();
    // On a busy machine, later answers may be too slow, too.
    assertSentAgain(fake, Math.max(2, fake.bodies.length));
  });

  test("pauses grow to a bound, and the tries are bounded", async (t) => {
    t.mock.method(Math, "random", () => 1);
    const [fake, clock] = [await Fake.start(() => problem(503)), new FakeClock()];
    const error = await caught(Unanswered, client(fake.url, clock, { tries: 9, giveUpMs: 1e12 }).send(OPEN));
    assert.deepEqual(clock.slept, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assertSentAgain(fake, 9);
    assert.deepEqual([error.tries, error.problem?.status, error.maybeAccepted], [9, 503, true]);
    assert.equal(error.command?.id, JSON.parse(fake.bodies[0]!).id);
  });

  test("the total time is bounded", async () => {
    const clock = new FakeClock();
    const fake = await Fake.start(() => ({ cut: true }));
    const error = await caught(Unanswered, client(fake.url, clock, { tries: 1e6, giveUpMs: 60_000 }).send(OPEN));
    assert.ok(clock.passedMs <= 60_000);
    assert.equal(error.problem, undefined);
    assert.ok(error.cause);
    for (const long of ["3600", "9".repeat(4_000)]) {
      const busy = await Fake.start([problem(503, "x", { "retry-after": long })]);
      await caught(Unanswered, client(busy.url, new FakeClock()).send(OPEN));
      assert.equal(busy.bodies.length, 1);
    }
  });

  test("a command that never reached a server is not accepted", async () => {
    const fake = await Fake.start([]);
    await fake.close();
    const error = await caught(Unanswered, client(fake.url, new FakeClock(), { tries: 3 }).send(OPEN));
    assert.equal(error.maybeAccepted, false);
  });
});

describe("refusals", () => {
  test("400 and 409 are not retried, and later commands are sent", async () => {
    for (const [status, kind] of [
      [400, "bad-id"],
      [409, "log-closed"],
      [413, "command-too-large"],
      [501, "x"],
    ] as const) {
      const fake = await Fake.start([problem(status, kind), receipt()]);
      const sender = client(fake.url, new FakeClock());
      const [error, sent] = await Promise.all([caught(Problem, sender.send(OPEN)), sender.send(OPEN)]);
      assert.deepEqual(
        [error.status, error.kind, error.title, error.detail],
        [status, kind, "A title", "`id`: is bad"],
      );
      assert.deepEqual([error.retryAfterMs, error.maybeAccepted, error.name], [undefined, false, "Problem"]);
      assert.equal(sent.seq, 1);
      assert.equal(fake.bodies.length, 2);
    }
  });

  test("a refusal after a lost answer says that the command may be in the log", async () => {
    const fake = await Fake.start([{ cut: true }, problem(409, "log-closed")]);
    assert.equal((await caught(Problem, client(fake.url, new FakeClock()).send(OPEN))).maybeAccepted, true);
  });

  test("an answer that is not understood is an error of its own", async () => {
    for (const body of ["", "{", new Uint8Array([255]), "null", "[]", '{"log":1,"seq":1}', '{"log":"a/b"}']) {
      const fake = await Fake.start([{ status: 202, body }]);
      const error = await caught(BadAnswer, client(fake.url, new FakeClock()).send(OPEN));
      assert.deepEqual([error.maybeAccepted, fake.bodies.length], [true, 1]);
    }
    for (const reply of [{ body: '{"seq":1}' }, { status: 202, body: "{}" }, { body: "7" }]) {
      const fake = await Fake.start([reply]);
      await caught(BadAnswer, client(fake.url, new FakeClock()).entry("ledger/org:acme", 1));
    }
  });

  test("a refusal by another server is a problem of no kind", async () => {
    const moved = { status: 308, headers: { location: "/x" } };
    for (const [reply, says] of [
      [{ status: 404, body: "<html>" }, "right URL"],
      [moved, "redirects to /x"],
    ] as const) {
      const fake = await Fake.start([reply]);
      const error = await caught(Problem, client(fake.url, new FakeClock()).send(OPEN));
      assert.deepEqual([error.status, error.kind], [reply.status, "about:blank"]);
      assert.ok(error.detail.includes(says), error.detail);
    }
  });

  test("an answer that is too large is not kept", async () => {
    const fake = await Fake.start([{ body: Buffer.alloc(ANSWER_BYTES_MAX + 1, " ") }]);
    const error = await caught(BadAnswer, client(fake.url, new FakeClock()).entry("ledger/org:acme", 1));
    assert.match(error.message, /has more than/);
  });

  test("what cannot be sent is refused before it is sent", async () => {
    const fake = await Fake.start([receipt()]);
    const sender = client(fake.url, new FakeClock());
    for (const more of [{ id: 0 }, { id: 2 ** 53 }, { id: 1.5 }, { user: "" }, { data: 1n }]) {
      await assert.rejects(sender.send({ ...OPEN, ...more }), (error) => !(error instanceof FanfoldError));
    }
    for (const [log, key] of [
      ["ledger", "a"],
      ["ledger/", "a"],
      ["ledger/org:a", ".."],
      ["../org:a", "a"],
      ["a/b", ""],
    ]) {
      assert.throws(() => sender.row("balances", log!, key!), RangeError);
    }
    for (const url of ["127.0.0.1:8080", "ftp://x", "http://", "http://x?a=b", "http://a@x"])
      assert.throws(() => new Client(url), TypeError);
    assert.deepEqual(fake.bodies, []);
    await sender.send(OPEN);
  });
});

describe("order", () => {
  test("no command overtakes an earlier one of its origin", async () => {
    const seed = Number(process.env["FANFOLD_SEED"] ?? Date.now() % 2 ** 31);
    console.log(`seed ${seed} (FANFOLD_SEED)`);
    let state = seed;
    // A linear congruential generator (Numerical Recipes): its high bits are random enough.
    const below = (n: number) => ((state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) >>> 16) % n;
    const underWay = new Map<string, number>();
    const taken = new Map<string, number[]>();
    const overtaken: string[] = [];
    const script = async (request: Request): Promise<Reply> => {
      const { org, user, id } = JSON.parse(request.body);
      const origin = org + user;
      underWay.set(origin, (underWay.get(origin) ?? 0) + 1);
      if (underWay.get(origin) !== 1) overtaken.push(origin);
      const action = ["take", "take", "refuse", "cut", "take and cut"][below(5)]!;
      const ids = taken.get(origin) ?? [];
      if (action.startsWith("take") && !ids.includes(id)) taken.set(origin, [...ids, id]);
      await new Promise((resolve) => setTimeout(resolve, 1));
      underWay.set(origin, underWay.get(origin)! - 1);
      return action === "take" ? receipt() : action === "refuse" ? problem(503) : { cut: true };
    };
    const fake = await Fake.start(script);
    const sender = client(fake.url, new FakeClock(), { tries: 1e6, giveUpMs: 1e12 });
    const calls = Array.from({ length: 120 }, (_, n) => {
      const origin = { org: `org ${n % 2}`, user: `user ${(n >> 1) % 2}` };
      return n % 5 === 0 ? sender.send({ ...OPEN, ...origin }) : sender.send({ ...OPEN, ...origin, data: { n } });
    });
    await Promise.all(calls);
    assert.deepEqual(overtaken, []);
    assert.equal(taken.size, 4);
    for (const ids of taken.values()) {
      assert.deepEqual(
        ids,
        [...ids].sort((a, b) => a - b),
      );
      assert.equal(ids.length, 30);
    }
  });

  test("commands behind one without an answer are not sent, and later calls are", async () => {
    let giveUp = () => {};
    const waits = new Promise<void>((resolve) => (giveUp = resolve));
    const fake = await Fake.start((request) =>
      JSON.parse(request.body).id === 1 ? { cut: true, after: waits } : receipt(2),
    );
    const sender = client(fake.url, new FakeClock(), { tries: 1 });
    const calls = [1, 2, 3].map((id) => caught(FanfoldError, sender.send({ ...OPEN, id })));
    // Another origin does not wait.
    assert.equal((await sender.send({ ...OPEN, user: "bob", id: 9 })).seq, 2);
    giveUp();
    const errors = await Promise.all(calls);
    assert.deepEqual(
      errors.map((error) => error.name),
      ["Unanswered", "NotSent", "NotSent"],
    );
    assert.deepEqual(
      errors.map((error) => error.command?.id),
      [1, 2, 3],
    );
    assert.deepEqual(
      errors.map((error) => error.maybeAccepted),
      [true, false, false],
    );
    assert.deepEqual(fake.bodies.map((body) => JSON.parse(body).id).sort(), [1, 9]);
    assert.deepEqual(await sender.send({ ...OPEN, id: 2 }), { log: "ledger/org:acme", seq: 2, id: 2 });
  });

  test("a turn that does not come in time is not sent, and too many calls do not wait", async () => {
    let answer = () => {};
    const waits = new Promise<void>((resolve) => (answer = resolve));
    const fake = await Fake.start(() => ({ ...receipt(), after: waits }));
    const sender = client(fake.url, new FakeClock(), { giveUpMs: 50 });
    const first = sender.send(OPEN);
    const others = Array.from({ length: WAITING_MAX + 1 }, () => caught(NotSent, sender.send(OPEN)));
    const errors = await Promise.all(others);
    answer();
    // On a busy machine, its own time may be over, too.
    await first.catch(() => undefined);
    assert.match(errors[0]!.message, /its turn did not come/);
    assert.match(errors.at(-1)!.message, /wait already/);
    assert.equal(new Set(fake.bodies).size, 1, "only the first was sent");
  });
});

describe("batches", () => {
  const results = (items: unknown, headers: Record<string, string> = {}): Reply => {
    return { status: 202, body: JSON.stringify({ results: items }), headers };
  };
  const taken = { log: "ledger/org:acme", seq: 1 };
  const refused = (status: number, kind = "x") => ({ problem: JSON.parse(problem(status, kind).body as string) });

  test("only commands that could not be taken are sent again, with their ids", async () => {
    const once = results([taken, refused(503), refused(400, "bad-id"), refused(503)], { "retry-after": "4" });
    const [fake, clock] = [await Fake.start([{ cut: true }, once, results([taken, taken])]), new FakeClock()];
    const found = await client(fake.url, clock).sendMany([0, 1, 2, 3].map((n) => ({ ...OPEN, data: { n } })));
    const [first, again, last] = fake.bodies.map((body) => JSON.parse(body));
    assert.deepEqual(first, again);
    assert.deepEqual(last, [first[1], first[3]]);
    assert.equal(new Set(first.map((command: Command) => command.id)).size, 4);
    assert.deepEqual(clock.slept.slice(1), [4_000]);
    const error = found[2];
    assert.ok(error instanceof Problem);
    assert.deepEqual([error.kind, error.command, error.maybeAccepted], ["bad-id", first[2], true]);
    const ids = [0, 1, 3].map((at) => (found[at] as { id: number }).id);
    assert.deepEqual(ids, [first[0].id, first[1].id, first[3].id]);
  });

  test("commands that are given up have an error each", async () => {
    const fake = await Fake.start([results([taken, refused(503), refused(503)])]);
    const found = await client(fake.url, new FakeClock(), { tries: 1 }).sendMany([OPEN, OPEN, OPEN]);
    const sent = JSON.parse(fake.bodies[0]!);
    assert.deepEqual(
      found.slice(1).map((one) => (one as FanfoldError).name),
      ["Unanswered", "Unanswered"],
    );
    assert.deepEqual(
      found.slice(1).map((one) => (one as FanfoldError).command),
      [sent[1], sent[2]],
    );
    for (const items of [5, [], [taken], [1, 2, 3]]) {
      const broken = client((await Fake.start([results(items)])).url, new FakeClock());
      const errors = await broken.sendMany([OPEN, OPEN]);
      assert.ok(
        errors.every((one) => one instanceof BadAnswer),
        JSON.stringify(items),
      );
    }
    for (const count of [0, 501]) {
      await assert.rejects(client(fake.url, new FakeClock()).sendMany(Array(count).fill(OPEN)), RangeError);
    }
  });
});

describe("waits", () => {
  test("an entry is asked for until it is there", async () => {
    const fake = await Fake.start([receipt(4), pending(2), pending(3), entry(4)]);
    assert.equal((await client(fake.url, new FakeClock()).send(OPEN, { waitMs: 12_000 })).seq, 4);
    assert.equal(fake.requests[0]!.path, "/command?wait=5000");
    assert.equal(fake.requests[1]!.path, "/logs/ledger/org%3Aacme/4?wait=5000");
    const refuses = await Fake.start([entry(4, "rejected", { code: "overdrawn", message: "" })]);
    const rejected = await client(refuses.url, new FakeClock(), { waitMsMax: 2_000 }).send(OPEN, { waitMs: 12_000 });
    assert.ok(rejected.status === "rejected");
    assert.deepEqual([rejected.code, refuses.requests[0]!.path], ["overdrawn", "/command?wait=2000"]);
  });

  test("a duplicate leads to the first entry", async () => {
    const fake = await Fake.start([{ cut: true }, entry(9, "duplicate", { of: 4 }), entry(4)]);
    assert.equal((await client(fake.url, new FakeClock()).send(OPEN, { waitMs: 1_000 })).seq, 4);
  });

  test("a wait ends after its time, and at once if the view is parked", async () => {
    const clock = new FakeClock();
    const slow = client((await Fake.start(() => pending(2))).url, clock);
    const late = await caught(StillPending, slow.entry("ledger/org:acme", 4, { waitMs: 1_000 }));
    assert.deepEqual([late.seq, late.parked, clock.passedMs], [2, undefined, 1_000]);
    const parked = { seq: 3, reason: "overflow", at: "2026-01-01T00:00:00Z" };
    const fake = await Fake.start([pending(2, { parked })]);
    const options = { seq: 4, waitMs: 1_000 };
    const call = client(fake.url, new FakeClock()).row("balances", "ledger/org:acme", "cash", options);
    assert.deepEqual([(await caught(StillPending, call)).parked, fake.requests.length], [parked, 1]);
  });

  test("a wait that fails after the receipt has the receipt", async () => {
    const fake = await Fake.start([receipt(4), pending(2)]);
    const error = await caught(StillPending, client(fake.url, new FakeClock()).send(OPEN, { waitMs: 0 }));
    assert.equal(error.receipt?.seq, 4);
    assert.ok(error.command?.id);
    assert.equal(error.receipt?.id, error.command.id);
  });
});

describe("requests", () => {
  test("names are percent-encoded", async () => {
    const fake = await Fake.start(() => ({ body: '{"seq":1,"row":1,"rows":[],"next":null,"status":"stale"}' }));
    const reader = client(`${fake.url}/v1/`, new FakeClock());
    await reader.row("balances", "ledger/org:Zoë + b", "cash/1 +%");
    await reader.lookup("ledger/user:a+b@x.io", 7, { client: null, user: "a+b & c" });
    await reader.lookup("ledger/org:x", 7, { waitMs: 1_000 });
    await all(reader.rows("balances", "ledger/org:x", { prefix: "a b+", after: "a/ü", descending: true, seq: 3 }));
    assert.deepEqual(
      fake.requests.map((request) => request.path),
      [
        "/v1/views/balances/ledger/org%3AZo%C3%AB%20%2B%20b/cash%2F1%20%2B%25",
        "/v1/logs/ledger/user%3Aa%2Bb%40x.io?user=a%2Bb%20%26%20c&id=7",
        "/v1/logs/ledger/org%3Ax?user=ann&client=till%207&id=7&wait=1000",
        "/v1/views/balances/ledger/org%3Ax?seq=3&prefix=a%20b%2B&after=a%2F%C3%BC&limit=100&order=desc",
      ],
    );
  });

  test("a token may change", async () => {
    const fake = await Fake.start([problem(503), receipt(), receipt()]);
    const tokens = ["a", "b"];
    await client(fake.url, new FakeClock(), { token: async () => tokens.shift()! }).send(OPEN);
    await client(fake.url, new FakeClock(), { token: "c" }).send(OPEN);
    assert.deepEqual(
      fake.requests.map((request) => request.headers.authorization),
      ["Bearer a", "Bearer b", "Bearer c"],
    );
  });

  test("a page that does not advance is an error", async () => {
    let next: unknown = 1;
    const fake = await Fake.start(() => ({ body: JSON.stringify({ entries: [], rows: [], next }) }));
    const reader = client(fake.url, new FakeClock());
    await caught(BadAnswer, all(reader.entries("ledger/org:acme")));
    next = "a";
    await caught(BadAnswer, all(reader.rows("balances", "ledger/org:acme")));
  });

  test("another JSON may keep integers beyond 2^53", async () => {
    const fake = await Fake.start(() => entry(1, "accepted", { events: [{ data: "BIG" }] }));
    const json = {
      parse: (text: string) => JSON.parse(text, (_, value) => (value === "BIG" ? 9_007_199_254_740_993n : value)),
      stringify: (value: unknown) => JSON.stringify(value, (_, v) => (typeof v === "bigint" ? v.toString() : v)),
    };
    const found = await client(fake.url, new FakeClock(), { json }).send({ ...OPEN, data: { n: 1n } }, { waitMs: 1 });
    assert.ok(found.status === "accepted");
    assert.equal(found.events[0]!.data, 9_007_199_254_740_993n);
    assert.equal(JSON.parse(fake.bodies[0]!).data.n, "1");
  });
});

describe("numbering", () => {
  test("ids follow the recipe, and grow even if the clock goes back", () => {
    const clock = new FakeClock();
    const ids = new Ids(3, clock);
    const first = ids.next();
    assert.equal(first, clock.unixMs() * 1_024 + 3);
    clock.beganMs -= 1_000_000;
    assert.deepEqual([ids.next(), ids.next()], [first + 1, first + 2]);
    clock.beganMs += 2_000_000;
    assert.equal(ids.next(), clock.unixMs() * 1_024 + 3);
    assert.ok(Number.isSafeInteger(first));
  });

  test("clients have random names of their own", () => {
    const names = new Set(Array.from({ length: 100 }, () => new Client("http://x").client));
    assert.equal(names.size, 100);
    assert.match([...names][0]!, /^js-[0-9a-f]{16}$/);
    assert.equal(new Client("http://x", { client: null }).client, null);
  });
});
