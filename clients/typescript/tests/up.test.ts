// The client against `fanfold up`.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { Client, type ClientOptions, type Command, Problem } from "../fanfold.js";
import { Fake, FakeClock, Up } from "./harness.js";

const BUILD = fileURLToPath(new URL("..", import.meta.url));
const FOLDER = fileURLToPath(new URL("../..", import.meta.url));

const WORKER = `
import { Client } from "./fanfold.js";
const [url, org, count] = process.argv.slice(1);
const client = new Client(url, { user: "ann" });
const command = { type: "ledger", command: "deposit", org, data: { account: "cash", amount: 1 } };
await Promise.all(Array.from({ length: Number(count) }, () => client.send(command)));
const found = await client.sendMany(Array(Number(count)).fill(command));
if (!found.every((one) => "seq" in one)) throw found;
`;

let up: Up;
before(async () => {
  up = await Up.start();
});
after(() => up.close());

function client(options: ClientOptions = {}, url = up.url): Client {
  return new Client(url, { user: "ann", client: "till 7", ...options });
}

/** An organisation that no other test has, and its log. */
function organisation(): { org: string; log: string } {
  const org = `org ${randomUUID()}`;
  return { org, log: `ledger/org:${org}` };
}

function of(command: string, org: string, data: object): Command {
  return { type: "ledger", command, org, data };
}

async function all<T>(found: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of found) items.push(item);
  return items;
}

describe("fanfold up", () => {
  test("a command, its entry, its rows and its id", async () => {
    const { org, log } = organisation();
    const sender = client();
    const opened = await sender.send(of("open", org, { account: "cash" }), { waitMs: 30_000 });
    assert.ok(opened.status === "accepted");
    assert.deepEqual([opened.log, opened.seq, opened.user], [log, 1, "ann"]);
    assert.deepEqual(opened.events, [{ type: "opened", document: "cash", data: {} }]);
    const sent = await sender.send(of("deposit", org, { account: "cash", amount: 500 }));
    assert.deepEqual([sent.log, sent.seq], [log, 2]);
    const row = await sender.row("balances", log, "cash", { seq: sent.seq, waitMs: 30_000 });
    assert.deepEqual([row.row.balance, row.rowSeq, row.parked], [500, 2, null]);
    assert.deepEqual(await sender.lookup(log, sent.id), await sender.entry(log, 2));
    const rejected = await sender.send(of("withdraw", org, { account: "cash", amount: 501 }), { waitMs: 30_000 });
    assert.ok(rejected.status === "rejected");
    assert.equal(rejected.code, "overdrawn");
    // The same command with the same id again: the outcome is that of the first.
    const again = { ...of("deposit", org, { account: "cash", amount: 500 }), id: sent.id };
    assert.equal((await sender.send(again, { waitMs: 30_000 })).seq, 2);
    assert.equal((await sender.entry(log, 4)).status, "duplicate");
  });

  test("problems are typed", async () => {
    const { org, log } = organisation();
    const sender = client();
    await sender.send(of("open", org, { account: "cash" }), { waitMs: 30_000 });
    const calls: [() => Promise<unknown>, number, string, string][] = [
      [() => sender.send(of("open", "a/b", { account: "x" })), 400, "bad-name", "`org`"],
      [() => sender.send(of("opn", org, {})), 400, "unknown-command", "opn"],
      [() => sender.send(of("open", org, { account: 7 })), 400, "invalid-data", "`data"],
      [() => sender.entry(log, 9, { waitMs: 1_000 }), 404, "unknown-seq", "9"],
      [() => sender.lookup(log, 5), 404, "unknown-id", "5"],
      [() => sender.row("balances", log, "none", { seq: 1, waitMs: 30_000 }), 404, "unknown-row", "none"],
      [() => sender.rowsPage("balances", log, { seq: 7 }), 404, "unknown-seq", "7"],
      [() => all(sender.rows("nothing", log)), 404, "unknown-view", "nothing"],
      [() => sender.entriesPage(log, { pageSize: 0 }), 400, "bad-parameter", "`limit`"],
    ];
    for (const [call, status, kind, says] of calls) {
      await assert.rejects(call(), (error) => {
        assert.ok(error instanceof Problem, String(error));
        assert.deepEqual([error.status, error.kind], [status, kind]);
        return error.detail.includes(says);
      });
    }
  });

  test("pages are read to their end", async () => {
    const { org, log } = organisation();
    const sender = client();
    const accounts = Array.from({ length: 25 }, (_, n) => `account ${String(n).padStart(3, "0")}`);
    const upTo = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
    const results = await sender.sendMany(accounts.map((account) => of("open", org, { account })));
    assert.deepEqual(
      results.map((one) => "seq" in one && one.seq),
      upTo(1, 25),
    );
    await sender.entry(log, 25, { waitMs: 30_000 });
    const seqs = async (options: object) => (await all(sender.entries(log, options))).map((entry) => entry.seq);
    assert.deepEqual(await seqs({ pageSize: 10 }), upTo(1, 25));
    assert.deepEqual(await seqs({ from: 7, limit: 12, pageSize: 5 }), upTo(7, 18));
    const page = await sender.entriesPage(log, { pageSize: 10 });
    assert.deepEqual([page.accepted, page.tail, page.next], [25, 25, 11]);
    const keys = async (options: object) => (await all(sender.rows("balances", log, options))).map((row) => row.key);
    assert.deepEqual(await keys({ seq: 25, waitMs: 30_000, pageSize: 10 }), accounts);
    const down = await keys({ prefix: "account 01", descending: true, pageSize: 3, limit: 7 });
    assert.deepEqual(down, accounts.slice(13, 20).reverse());
    assert.deepEqual(await keys({ after: accounts[22] }), accounts.slice(23));
  });

  test("unusual names come back as they were sent", async () => {
    for (const name of ["Zoë Müller", "山田 太郎", "a+b@x.io", '"q"', "<b>&", "🦀👩‍🚀", "a;b=~'c'!*()", "org:x"]) {
      const { org } = organisation();
      const log = `ledger/org:${name}${org}`;
      const sender = client({ user: name, client: name });
      const opened = await sender.send(of("open", name + org, { account: name }), { waitMs: 30_000 });
      assert.deepEqual([opened.log, opened.user, opened.client], [log, name, name]);
      assert.deepEqual(await sender.lookup(log, opened.id!), opened);
      assert.equal((await sender.row("balances", log, name, { seq: 1, waitMs: 30_000 })).key, name);
      const keys = async (options: object) => (await all(sender.rows("balances", log, options))).map((row) => row.key);
      assert.deepEqual(await keys({ prefix: name }), [name]);
      assert.deepEqual(await keys({ after: name }), []);
    }
  });

  test("without an organisation and without a client", async () => {
    const { org: user } = organisation();
    const sender = client({ user, client: null });
    const opened = await sender.send(
      { type: "ledger", command: "open", data: { account: "cash" } },
      { waitMs: 30_000 },
    );
    assert.equal(opened.log, `ledger/user:${user}`);
    assert.equal(opened.client, undefined);
    assert.deepEqual(await sender.lookup(opened.log, opened.id!), opened);
    await assert.rejects(sender.lookup(opened.log, opened.id!, { client: "another" }), Problem);
  });

  test("an integer beyond 2^53 is rounded by the default JSON", async () => {
    const { org, log } = organisation();
    const json = {
      parse: JSON.parse,
      stringify: (value: unknown) => JSON.stringify(value).replace('"BIG"', `${2n ** 53n + 1n}`),
    };
    const sender = client({ json });
    await sender.sendMany([
      of("open", org, { account: "cash" }),
      of("deposit", org, { account: "cash", amount: "BIG" }),
    ]);
    const { row } = await sender.row("balances", log, "cash", { seq: 2, waitMs: 30_000 });
    assert.equal(row.balance, 2 ** 53);
    const exact = {
      parse: (text: string) => JSON.parse(text.replace(/:(\d{16,})/g, ':"$1"')),
      stringify: JSON.stringify,
    };
    assert.equal((await client({ json: exact }).row("balances", log, "cash")).row.balance, "9007199254740993");
  });

  test("a command whose answer was lost is done once", async () => {
    const { org, log } = organisation();
    const lost = { cut: true, firstTo: up.url };
    const fake = await Fake.start([lost, lost]);
    const direct = client();
    await direct.send(of("open", org, { account: "cash" }), { waitMs: 30_000 });
    const proxy = client({ clock: new FakeClock(), client: "till 8" }, fake.url);
    let failed: Problem | undefined;
    await assert.rejects(proxy.send(of("deposit", org, { account: "cash", amount: 5 })), (error) => {
      failed = error instanceof Problem ? error : undefined;
      return failed !== undefined && failed.maybeAccepted;
    });
    assert.equal(new Set(fake.bodies).size, 1);
    const entry = await direct.send(failed!.command!, { waitMs: 30_000 });
    assert.deepEqual([entry.seq, entry.status], [2, "accepted"]);
    const statuses = (await all(direct.entries(log))).map((one) => one.status);
    assert.deepEqual(statuses, ["accepted", "accepted", "duplicate", "duplicate"]);
    const { row } = await direct.row("balances", log, "cash", { seq: 4, waitMs: 30_000 });
    assert.equal(row.balance, 5);
  });

  test("several processes of one user make ids at once", async () => {
    const [processes, count] = [4, 60];
    const { org, log } = organisation();
    const reader = client();
    await reader.send(of("open", org, { account: "cash" }), { waitMs: 30_000 });
    const run = () => {
      const arguments_ = ["--input-type=module", "--eval", WORKER, up.url, org, String(count)];
      const child = spawn(process.execPath, arguments_, { cwd: BUILD, stdio: "inherit" });
      return new Promise((resolve) => child.once("exit", resolve));
    };
    assert.deepEqual(await Promise.all(Array.from({ length: processes }, run)), Array(processes).fill(0));
    const last = 1 + processes * count * 2;
    await reader.entry(log, last, { waitMs: 30_000 });
    const entries = await all(reader.entries(log));
    assert.equal(entries.length, last);
    assert.deepEqual([...new Set(entries.map((entry) => entry.status))], ["accepted"]);
    const clients = entries.slice(1).map((entry) => entry.client!);
    const counts = [...new Set(clients)].map((name) => clients.filter((other) => other === name).length);
    assert.deepEqual(counts, Array(processes).fill(2 * count));
    assert.equal(new Set(entries.map((entry) => `${entry.client} ${entry.id}`)).size, last);
  });

  test("the examples run", () => {
    const readme = readFileSync(`${FOLDER}../README.md`, "utf8");
    const examples = Array.from(readme.matchAll(/```typescript\n(.*?)```/gs), (found) => found[1]!);
    assert.ok(examples.length > 0);
    examples.forEach((example, at) => {
      const name = `${FOLDER}build/example${at}`;
      writeFileSync(`${name}.mts`, example.replaceAll("http://127.0.0.1:8080", up.url));
      const tsc = [
        `${FOLDER}node_modules/typescript/bin/tsc`,
        "--ignoreConfig",
        "--strict",
        "--noUncheckedIndexedAccess",
      ];
      const options = [
        "--target",
        "ES2022",
        "--module",
        "NodeNext",
        "--types",
        "node",
        "--typeRoots",
        `${FOLDER}node_modules/@types`,
      ];
      const built = spawnSync(process.execPath, [...tsc, ...options, `${name}.mts`], { encoding: "utf8", cwd: FOLDER });
      assert.equal(built.status, 0, built.stdout + built.stderr);
      // A second run must work, too: the account is open by then.
      for (let run = 0; run < 2; run++) {
        const ran = spawnSync(process.execPath, [`${name}.mjs`], { encoding: "utf8", timeout: 60_000 });
        assert.equal(ran.status, 0, ran.stderr);
        assert.ok(ran.stdout, example);
      }
    });
  });
});
