/**
 * A client of Fanfold's HTTP API, in one file, over the built-in `fetch` of Node (20 or newer) and browsers. See
 * clients/README.md.
 *
 *     const client = new Client("http://127.0.0.1:8080", { user: "ann", client: "till 7" });
 *     const open = { type: "ledger", command: "open", data: { account: "cash" } };
 *     const entry = await client.send(open, { waitMs: 5_000 });
 */

/** The largest id of a command. Source: `docs/http.md`. */
export const ID_MAX = Number.MAX_SAFE_INTEGER;
/** The most commands of one `sendMany`. Source: the API's limit of one request. */
export const COMMANDS_MAX = 500;
/** The most entries or rows of one page. Source: the API's limit. */
export const PAGE_MAX = 1_000;
/** The most calls of one origin that wait for their turn. Source: a log remembers 2,048 ids of an origin. */
export const WAITING_MAX = 2_047;
/** The most bytes of an answer. Source: our choice; the API closes a page at 3 MiB, and JSON may escape each byte. */
export const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** The longest pause after the first try, in milliseconds. It doubles with each try. Source: `fanfold send`. */
const FIRST_PAUSE_MS = 100;
/** The longest pause, in milliseconds, unless the server asks for a longer one. Source: `fanfold send`. */
const LONGEST_PAUSE_MS = 5_000;
/** The pause, in milliseconds, before the next request for what is not there yet, in case the server does not wait. */
const POLL_MS = 50;
/** The ids of one millisecond. Source: `docs/ids.md`. */
const IDS_PER_MS = 1_024;
/** The longest time of a timer, in milliseconds. Source: timers have 31 bits. */
const TIMER_MS_MAX = 2 ** 31 - 1;
/** What the types of Fanfold's problems begin with. */
const PROBLEM = "urn:fanfold:problem:";
/** Codes of Node's errors that say that the request never reached a server. */
const NOT_REACHED: readonly unknown[] = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"];

/**
 * A command. What is left out is filled in: `id` by the client's `Ids`, `user` and `client` by the client's. A `client`
 * of `null` means that the id belongs to the user.
 */
export interface Command {
  type: string;
  command: string;
  id?: number;
  user?: string;
  client?: string | null;
  org?: string | null;
  timestamp?: number | null;
  data?: unknown;
}

/** The command is accepted: its log, its position there from 1 on, and its id. */
export interface Receipt {
  log: string;
  seq: number;
  id: number;
}

/** An event of an entry. Without `version`, the version is 1. */
export interface Event {
  type: string;
  document: string;
  data: any;
  version?: number;
}

/** The outcome of an entry, by its `status`. */
export type Outcome =
  /** The command was done, with these events. */
  | { status: "accepted"; events: Event[] }
  /** The service refused the command. With the code `id_reused`, `of` is the seq of another command with its id. */
  | { status: "rejected"; code: string; message: string; of?: number }
  /** The command repeats the one at the seq `of`, whose outcome counts. */
  | { status: "duplicate"; of: number }
  /** The id is below what the log remembers: the command was not done now, and may have been done before. */
  | { status: "stale" }
  /** The service failed on the command. */
  | { status: "faulted"; message: string }
  /** An operator gave the command up. */
  | { status: "lost"; reason: string };

/** What became of a command. */
export type Entry = Outcome & {
  log: string;
  seq: number;
  at: string;
  user?: string;
  client?: string;
  id?: number;
  command?: string;
};

/**
 * Entries from one seq on. `accepted` is the last seq that has a receipt, `tail` the last one that has an entry, `next`
 * where the next page begins.
 */
export interface EntriesPage {
  log: string;
  accepted: number;
  tail: number;
  entries: Entry[];
  next: number | null;
}

/** The entry that a view cannot apply, why, and since when. The view stands still until an operator acts. */
export interface Parked {
  seq: number;
  reason: string;
  at: string;
}

/** A row of a view. `seq` is the last entry that is folded into it. */
export interface Row {
  key: string;
  seq: number;
  row: any;
}

interface View {
  view: string;
  version: number;
  log: string;
  seq: number;
  parked: Parked | null;
}

/** Rows of a view that has reached `seq`. `next` is the key after which the next page begins. */
export interface RowsPage extends View {
  rows: Row[];
  next: string | null;
}

/** One row of a view that has reached `seq`. `rowSeq` is the last entry that is folded into the row. */
export interface RowAt extends View {
  key: string;
  rowSeq: number;
  row: any;
}

/** What the calls of a `Client` throw, besides `RangeError` and `TypeError` for arguments that cannot be sent. */
export class FanfoldError extends Error {
  /** The command of a failed `send` or item, with its id. To send it again, send exactly this. */
  command?: Command;
  /** Whether the command may be in the log although it has no receipt: a request of it had no clear answer. */
  maybeAccepted = false;
  /** The receipt, if the command was accepted and only its entry could not be had. */
  receipt?: Receipt;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The server refused the request for good. */
export class Problem extends FanfoldError {
  readonly status: number;
  /** The problem's type, such as `bad-id`. `about:blank`: the answer was not one of Fanfold's. */
  readonly kind: string;
  readonly title: string;
  /** Which field or thing, why, and what to do. */
  readonly detail: string;
  readonly retryAfterMs: number | undefined;

  constructor(status: number, kind: string, title: string, detail: string, retryAfterMs?: number) {
    super(`${detail} (${status} ${kind})`);
    this.status = status;
    this.kind = kind;
    this.title = title;
    this.detail = detail;
    this.retryAfterMs = retryAfterMs;
  }
}

/** No try got a final answer. `problem` is the last answer, if there was one; else see `cause`. */
export class Unanswered extends FanfoldError {
  readonly tries: number;
  readonly problem: Problem | undefined;

  constructor(tries: number, last: unknown) {
    super(`no final answer after ${tries} tries: ${describe(last)}`, { cause: last });
    this.tries = tries;
    this.problem = last instanceof Problem ? last : undefined;
  }
}

/** The command was not sent: an earlier one of its origin has no answer, or the time ended before its turn. */
export class NotSent extends FanfoldError {}

/** What was waited for is not there yet. The log or view has reached `seq`; it will not go on while `parked`. */
export class StillPending extends FanfoldError {
  readonly seq: number;
  readonly parked: Parked | undefined;

  constructor(seq: number, parked?: Parked) {
    super(`only seq ${seq} is reached${parked ? `, and the view is parked: ${JSON.stringify(parked)}` : ""}`);
    this.seq = seq;
    this.parked = parked;
  }
}

/** An answer that is not one of Fanfold's, or is too large. Is it the right URL? */
export class BadAnswer extends FanfoldError {}

/** Time. Tests replace it. */
export interface Clock {
  /** Milliseconds since 1970. */
  unixMs(): number;
  /** Milliseconds of a clock that never goes back. */
  nowMs(): number;
  sleep(ms: number): Promise<void>;
}

const CLOCK: Clock = {
  unixMs: () => Date.now(),
  nowMs: () => performance.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, Math.min(ms, TIMER_MS_MAX))),
};

/**
 * Numbers commands: milliseconds since 1970 × 1,024 + the worker's number, and at least the last id + 1.
 *
 * Each process, worker thread or page needs one of its own, with a `client` of its own (`docs/ids.md`). `worker` is 0
 * to 1,023, by default random.
 */
export class Ids {
  readonly #worker: number;
  readonly #clock: Clock;
  #last = 0;

  constructor(worker?: number, clock: Clock = CLOCK) {
    this.#worker = worker === undefined ? random(1)[0]! % IDS_PER_MS : worker % IDS_PER_MS;
    this.#clock = clock;
  }

  /** The next id, larger than all before. */
  next(): number {
    const byClock = Math.floor(this.#clock.unixMs()) * IDS_PER_MS + this.#worker;
    this.#last = Math.max(byClock, this.#last + 1);
    return this.#last;
  }
}

export interface ClientOptions {
  /** The user of commands that name none. */
  user?: string;
  /**
   * The name under which this client numbers commands. By default it is random; with `null` ids belong to the user. A
   * log remembers each name for ever, so give lasting names to processes that start often.
   */
  client?: string | null;
  /** A bearer token, or a function that returns it before each request. */
  token?: string | (() => string | Promise<string>);
  ids?: Ids;
  /** For one try, without the time that it waits for an entry or a view. The default is 35,000. */
  timeoutMs?: number;
  /** For all tries of a call. The default is 60,000. */
  giveUpMs?: number;
  /** The most tries of a call. The default is 30. */
  tries?: number;
  /** The longest wait of one request that the server allows. The default is 5,000. */
  waitMsMax?: number;
  /** What reads and writes JSON. `JSON` rounds integers beyond 2^53; another one need not. */
  json?: { parse(text: string): any; stringify(value: unknown): string };
  clock?: Clock;
}

interface Waiting {
  /** How long to wait in all, in milliseconds. */
  waitMs?: number;
}

interface Paging {
  /** The most entries or rows in all. */
  limit?: number;
  /** The most entries or rows of a page. The default is 100. */
  pageSize?: number;
}

interface OfView extends Waiting {
  /** Read only once the view has reached this seq, as a receipt has it. */
  seq?: number;
}

interface Range extends OfView {
  /** What the keys begin with. */
  prefix?: string;
  /** The key that comes before all of them. */
  after?: string;
  descending?: boolean;
}

interface Answer {
  status: number;
  retryAfter: string | null;
  location: string | null;
  text: string;
}

type Params = Record<string, string | number | null | undefined>;
type Sent = Command & { id: number; user: string };

/** A call's place in the queues of its origins, and the commands as they are sent. */
class Turn {
  readonly commands: readonly Sent[];
  readonly bodies: readonly string[];
  readonly origins: ReadonlySet<string>;
  /** Resolves when it is the first in all its queues, or will not be sent. */
  readonly ready: Promise<void>;
  wake: () => void = () => {};
  answered = false;
  /** Why the commands will not be sent. */
  notSent: string | undefined;

  constructor(commands: readonly Sent[], bodies: readonly string[]) {
    this.commands = commands;
    this.bodies = bodies;
    this.origins = new Set(commands.map(originOf));
    this.ready = new Promise((resolve) => (this.wake = resolve));
  }
}

/** The tries of one call: how many there were, and the pauses between them. */
class Tries {
  readonly #clock: Clock;
  readonly #most: number;
  readonly #end: number;
  count = 0;
  maybeAccepted = false;

  constructor(clock: Clock, most: number, giveUpMs: number) {
    this.#clock = clock;
    this.#most = most;
    this.#end = clock.nowMs() + giveUpMs;
  }

  leftMs(): number {
    return this.#end - this.#clock.nowMs();
  }

  /**
   * Sleeps until the next try, at least for as long as the server asked. Throws `Unanswered` if it would be too late,
   * or one too many.
   */
  async pause(failure: unknown, askedMs?: number): Promise<void> {
    const code = codeOf(failure);
    this.maybeAccepted ||= !NOT_REACHED.includes(code);
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.count);
    this.count += 1;
    const pause = Math.max(Math.random() * longest, askedMs ?? 0);
    const hopeless = /CERT|SIGNATURE/.test(code);
    if (hopeless || this.count >= this.#most || pause > this.leftMs()) throw new Unanswered(this.count, failure);
    await this.#clock.sleep(pause);
  }
}

/** A client of one server. Calls may run at the same time. */
export class Client {
  readonly user: string | undefined;
  readonly client: string | null;
  readonly #url: string;
  readonly #token: ClientOptions["token"];
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #timeoutMs: number;
  readonly #giveUpMs: number;
  readonly #tries: number;
  readonly #waitMsMax: number;
  readonly #json: NonNullable<ClientOptions["json"]>;
  readonly #queues = new Map<string, Turn[]>();

  /** `url` is the server's, such as `http://127.0.0.1:8080`, with the prefix of all paths if there is one. */
  constructor(url: string, options: ClientOptions = {}) {
    const parsed = new URL(url);
    if (!/^https?:$/.test(parsed.protocol) || parsed.search || parsed.hash || parsed.username) {
      throw new TypeError(`url: \`${url}\` is not like http://127.0.0.1:8080`);
    }
    this.#url = parsed.href.replace(/\/+$/, "");
    this.user = options.user;
    const name = () => `js-${Array.from(random(2), (part) => part.toString(16).padStart(8, "0")).join("")}`;
    this.client = options.client === undefined ? name() : options.client;
    this.#token = options.token;
    this.#clock = options.clock ?? CLOCK;
    this.#ids = options.ids ?? new Ids(undefined, this.#clock);
    this.#timeoutMs = options.timeoutMs ?? 35_000;
    this.#giveUpMs = options.giveUpMs ?? 60_000;
    this.#tries = options.tries ?? 30;
    this.#waitMsMax = options.waitMsMax ?? 5_000;
    this.#json = options.json ?? JSON;
  }

  /**
   * Sends a command until it has an answer, after the earlier calls for its origin (log, user, client).
   *
   * Returns the receipt. With `waitMs`, returns the entry that has the command's outcome, once it is there: of a
   * command that turns out to be a `duplicate`, that of the first. Throws `Problem` (refused), `Unanswered`, `NotSent`,
   * `BadAnswer`; with `waitMs` also `StillPending`, and then `error.receipt` is the receipt.
   */
  send(command: Command): Promise<Receipt>;
  send(command: Command, options: { waitMs: number }): Promise<Entry>;
  async send(command: Command, options?: { waitMs: number }): Promise<Receipt | Entry> {
    const turn = this.#join([command]);
    const sent = turn.commands[0]!;
    const wait = this.#wait(options?.waitMs ?? 0);
    let tries = this.#start();
    let found, receipt: Receipt, answeredMs: number;
    try {
      await this.#await(turn);
      tries = this.#start();
      const answer = await this.#ask(tries, "POST", "/command" + query({ wait }), turn.bodies[0], wait);
      answeredMs = this.#clock.nowMs();
      found = this.#success(answer);
      receipt = this.#receipt(found, sent);
      turn.answered = true;
    } catch (error) {
      // A try before may still be under way, and must not arrive behind the next command.
      turn.answered = error instanceof Problem && !tries.maybeAccepted;
      throw about(error, sent, tries);
    } finally {
      this.#leave(turn);
    }
    if (!options) return receipt;
    try {
      if (found.status === undefined) {
        const waitedMs = this.#clock.nowMs() - answeredMs + (wait ?? 0);
        const waitMs = Math.max(0, options.waitMs - waitedMs);
        found = await this.entry(receipt.log, receipt.seq, { waitMs });
      }
      const entry: Entry = found;
      return entry.status === "duplicate" ? await this.entry(entry.log, entry.of) : entry;
    } catch (error) {
      if (error instanceof FanfoldError) Object.assign(error, { command: sent, receipt });
      throw error;
    }
  }

  /**
   * Sends up to 500 commands (1 MiB) in one request until each has an answer. Those that the server could not take are
   * sent again, in their order and with their ids.
   *
   * Returns, for each, its receipt or the error that `send` would throw.
   */
  async sendMany(commands: readonly Command[]): Promise<(Receipt | FanfoldError)[]> {
    if (commands.length < 1 || commands.length > COMMANDS_MAX) {
      throw new RangeError(`commands: ${commands.length}, must be 1 to ${COMMANDS_MAX}: split them`);
    }
    const results: (Receipt | FanfoldError | undefined)[] = commands.map(() => undefined);
    const turn = this.#join(commands);
    let tries = this.#start();
    try {
      await this.#await(turn);
      tries = this.#start();
      while (results.includes(undefined)) await this.#sendOnce(tries, turn, results);
    } catch (error) {
      turn.commands.forEach((sent, at) => {
        if (!results[at]) results[at] = about(copied(error), sent, tries);
      });
    } finally {
      turn.answered = results.every(
        (one) => one && (one instanceof Problem ? !one.maybeAccepted : !(one instanceof FanfoldError)),
      );
      this.#leave(turn);
    }
    return results.filter((one) => one !== undefined);
  }

  async #sendOnce(tries: Tries, turn: Turn, results: (Receipt | FanfoldError | undefined)[]): Promise<void> {
    const left = results.flatMap((one, at) => (one ? [] : [at]));
    const answer = await this.#ask(tries, "POST", "/commands", `[${left.map((at) => turn.bodies[at]).join(",")}]`);
    const items = this.#success(answer).results;
    if (!Array.isArray(items) || items.length !== left.length) {
      throw new BadAnswer(`${this.#url} does not answer ${left.length} commands with as many: ${short(answer.text)}`);
    }
    let temporary: Problem | undefined;
    left.forEach((at, place) => {
      const [item, sent] = [items[place], turn.commands[at]!];
      if (!isObject(item) || !isObject(item["problem"])) {
        results[at] = this.#receipt(item, sent);
        return;
      }
      const problem = this.#problem(item["problem"], answer);
      if (isTemporary(problem.status)) temporary ??= problem;
      else results[at] = about(problem, sent, tries);
    });
    if (temporary) await tries.pause(temporary, temporary.retryAfterMs);
  }

  /** The entry at `seq` of a log such as `ledger/org:acme`. Throws `StillPending` if it is not there in time. */
  entry(log: string, seq: number, options: Waiting = {}): Promise<Entry> {
    return this.#read(`${logPath(log)}/${seq}`, {}, options.waitMs, "seq", "status");
  }

  /**
   * The entry of the first command with this id, by default of this client's user and name.
   *
   * Throws `Problem` with the kind `unknown-id` (never seen) or `id-below-window` (not remembered), or `StillPending`.
   */
  lookup(log: string, id: number, options: Waiting & { user?: string; client?: string | null } = {}): Promise<Entry> {
    const { user = this.user, client = this.client } = options;
    return this.#read(logPath(log), { user, client, id }, options.waitMs, "seq", "status");
  }

  /** Up to `pageSize` entries, from the seq `from` on. */
  entriesPage(log: string, options: { from?: number; pageSize?: number } = {}): Promise<EntriesPage> {
    const { from = 1, pageSize = 100 } = options;
    return this.#read(logPath(log), { from, limit: Math.min(pageSize, PAGE_MAX) }, 0, "entries", "next");
  }

  /** All entries from the seq `from` on, at most `limit`. Reads pages as they are needed. */
  async *entries(log: string, options: Paging & { from?: number } = {}): AsyncGenerator<Entry, void, undefined> {
    let { from = 1, limit = Infinity, pageSize = 100 } = options;
    while (limit > 0) {
      const page = await this.entriesPage(log, { from, pageSize: Math.min(pageSize, limit) });
      yield* page.entries.slice(0, limit);
      limit -= page.entries.length;
      if (page.next === null) return;
      if (!(page.next > from)) throw new BadAnswer(`the page of ${log} from ${from} on goes back to ${page.next}`);
      from = page.next;
    }
  }

  /**
   * The row of this key; with `seq`, once the view has reached it. Throws `StillPending` if that is not in time, and
   * `Problem` with the kind `unknown-row`.
   */
  row(view: string, log: string, key: string, options: OfView = {}): Promise<RowAt> {
    const path = `${viewPath(view, log)}/${segment("key", key)}`;
    return this.#read(path, { seq: options.seq }, options.waitMs, "seq", "row");
  }

  /**
   * Up to `pageSize` rows whose keys begin with `prefix` and come after `after`; with `seq`, once the view has reached
   * it.
   */
  rowsPage(view: string, log: string, options: Range & { pageSize?: number } = {}): Promise<RowsPage> {
    const { seq, prefix, after, descending, pageSize = 100, waitMs } = options;
    const order = descending ? "desc" : undefined;
    const params = { seq, prefix: prefix || undefined, after, limit: Math.min(pageSize, PAGE_MAX), order };
    return this.#read(viewPath(view, log), params, waitMs, "rows", "next");
  }

  /** All such rows, at most `limit`. Reads pages as they are needed; each shows the view as it is by then. */
  async *rows(view: string, log: string, options: Range & Paging = {}): AsyncGenerator<Row, void, undefined> {
    let { limit = Infinity, pageSize = 100, ...range } = options;
    while (limit > 0) {
      const page = await this.rowsPage(view, log, { ...range, pageSize: Math.min(pageSize, limit) });
      yield* page.rows.slice(0, limit);
      limit -= page.rows.length;
      if (page.next === null) return;
      if (page.next === range.after) throw new BadAnswer(`the page of ${view} after ${page.next} ends where it began`);
      range.after = page.next;
    }
  }

  /** Queues up behind all earlier calls of the commands' origins. */
  #join(commands: readonly Command[]): Turn {
    // There is no `await` here: ids are given and queues are joined in one step, so each origin sends its ids in order.
    const filled = commands.map((command) => this.#filled(command));
    const turn = new Turn(
      filled,
      filled.map((command) => this.#json.stringify(command)),
    );
    const queues = Array.from(turn.origins, (origin) => this.#queues.get(origin) ?? []);
    if (queues.some((queue) => queue.length > WAITING_MAX)) {
      turn.notSent = `${WAITING_MAX} calls of its origin wait already`;
      return turn;
    }
    for (const origin of turn.origins) this.#queues.set(origin, [...(this.#queues.get(origin) ?? []), turn]);
    this.#wake(turn);
    return turn;
  }

  async #await(turn: Turn): Promise<void> {
    let timer;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(
        () => {
          turn.notSent ??= `its turn did not come within ${this.#giveUpMs} ms`;
          resolve();
        },
        Math.min(this.#giveUpMs, TIMER_MS_MAX),
      );
    });
    if (!turn.notSent) await Promise.race([turn.ready, late]);
    clearTimeout(timer);
    if (turn.notSent) throw new NotSent(`the command was not sent: ${turn.notSent}`);
  }

  /** Removes a turn from its queues. If it has no answer, those behind it fail, and those behind these. */
  #leave(turn: Turn): void {
    const gone = new Set([turn]);
    for (const one of gone) {
      for (const origin of one.origins) {
        const queue = this.#queues.get(origin) ?? [];
        if (turn.answered || !queue.includes(one)) continue;
        queue.slice(queue.indexOf(one) + 1).forEach((behind) => gone.add(behind));
      }
    }
    const origins = new Set(Array.from(gone, (one) => [...one.origins]).flat());
    for (const origin of origins) {
      const rest = (this.#queues.get(origin) ?? []).filter((one) => !gone.has(one));
      if (rest.length > 0) this.#queues.set(origin, rest);
      else this.#queues.delete(origin);
    }
    gone.delete(turn);
    for (const one of gone) {
      one.notSent ??= "an earlier command of its origin has no answer";
      one.wake();
    }
    for (const origin of origins) {
      const first = this.#queues.get(origin)?.[0];
      if (first) this.#wake(first);
    }
  }

  #wake(turn: Turn): void {
    if (Array.from(turn.origins).every((origin) => this.#queues.get(origin)?.[0] === turn)) turn.wake();
  }

  #filled(command: Command): Sent {
    const { id = this.#ids.next(), user = this.user, client = this.client } = command;
    if (!user) throw new TypeError("user: give it to the client, or to the command");
    if (!Number.isSafeInteger(id) || id < 1) throw new RangeError(`id: ${id}, must be an integer from 1 to 2^53 - 1`);
    return { ...command, id, user, client };
  }

  #start(): Tries {
    return new Tries(this.#clock, this.#tries, this.#giveUpMs);
  }

  /** The `wait` of a request, in milliseconds. */
  #wait(leftMs: number): number | undefined {
    return Math.floor(Math.min(leftMs, this.#waitMsMax)) || undefined;
  }

  /** Reads until the answer is not 202 any more. It must have these fields. */
  async #read(path: string, params: Params, waitMs = 0, ...fields: string[]): Promise<any> {
    const end = this.#clock.nowMs() + waitMs;
    for (;;) {
      const wait = this.#wait(Math.max(0, end - this.#clock.nowMs()));
      const answer = await this.#ask(this.#start(), "GET", path + query({ ...params, wait }), undefined, wait);
      const found = this.#success(answer);
      const expected = answer.status === 202 ? ["seq"] : fields;
      if (!isObject(found) || expected.some((field) => !(field in found))) {
        throw new BadAnswer(`${this.#url} answers without ${expected.join(" and ")}: ${short(answer.text)}`);
      }
      if (answer.status !== 202) return found;
      const leftMs = end - this.#clock.nowMs();
      const { seq, parked } = found as { seq: number; parked?: Parked };
      if (leftMs <= 0 || parked) throw new StillPending(seq, parked);
      await this.#clock.sleep(Math.min(POLL_MS, leftMs));
    }
  }

  /** Sends a request until its answer is not a temporary failure. */
  async #ask(tries: Tries, method: string, target: string, body?: string, waitMs = 0): Promise<Answer> {
    for (;;) {
      const headers = new Headers({ accept: "application/json" });
      if (body !== undefined) headers.set("content-type", "application/json");
      let token;
      try {
        token = typeof this.#token === "function" ? await this.#token() : this.#token;
      } catch (error) {
        // A try before may have reached the server.
        throw new Unanswered(tries.count, error);
      }
      if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
      const timeoutMs = Math.min(this.#timeoutMs, Math.max(1_000, tries.leftMs())) + waitMs;
      const signal = AbortSignal.timeout(Math.min(Math.ceil(timeoutMs), TIMER_MS_MAX));
      const init: RequestInit = { method, headers, redirect: "manual", signal };
      if (body !== undefined) init.body = body;
      let failure: unknown, askedMs: number | undefined;
      try {
        const answer = await this.#exchange(this.#url + target, init);
        if (!isTemporary(answer.status)) return answer;
        const problem = this.#problem(this.#parsed(answer.text), answer);
        [failure, askedMs] = [problem, problem.retryAfterMs];
      } catch (error) {
        if (error instanceof FanfoldError) throw error;
        failure = error;
      }
      await tries.pause(failure, askedMs);
    }
  }

  /** Sends a request once. */
  async #exchange(url: string, init: RequestInit): Promise<Answer> {
    const response = await fetch(url, init);
    const decoder = new TextDecoder();
    const reader = response.body?.getReader();
    let [size, text] = [0, ""];
    for (let read = await reader?.read(); read && !read.done; read = await reader?.read()) {
      size += read.value.byteLength;
      if (size > ANSWER_BYTES_MAX) {
        await reader?.cancel();
        throw new BadAnswer(`the answer of ${this.#url} has more than ${ANSWER_BYTES_MAX} bytes: ask for less`);
      }
      text += decoder.decode(read.value, { stream: true });
    }
    const header = (name: string) => response.headers.get(name);
    text += decoder.decode();
    return { status: response.status, retryAfter: header("retry-after"), location: header("location"), text };
  }

  /** The JSON of an answer with a status of 2xx. Throws `Problem` for any other. */
  #success(answer: Answer): any {
    const found = this.#parsed(answer.text);
    if (answer.status < 200 || answer.status > 299) throw this.#problem(found, answer);
    if (found === undefined || found === null) {
      throw new BadAnswer(`${this.#url} answers ${answer.status} without JSON: ${short(answer.text)}`);
    }
    return found;
  }

  /** The JSON of a text; `undefined` if it is not JSON. */
  #parsed(text: string): any {
    try {
      return this.#json.parse(text);
    } catch {
      return undefined;
    }
  }

  #problem(found: unknown, answer: Answer): Problem {
    const askedMs = retryAfterMs(answer.retryAfter, this.#clock.unixMs());
    if (isObject(found) && typeof found["type"] === "string" && typeof found["detail"] === "string") {
      const kind = found["type"].startsWith(PROBLEM) ? found["type"].slice(PROBLEM.length) : found["type"];
      const status = typeof found["status"] === "number" ? found["status"] : answer.status;
      return new Problem(status, kind, String(found["title"] ?? ""), found["detail"], askedMs);
    }
    const { status, location } = answer;
    // Browsers show a redirection as a status of 0.
    const redirects = status === 0 || (status >= 300 && status < 400);
    const detail = redirects
      ? `${this.#url} redirects to ${location ?? "another URL"}: give the client that URL`
      : `${this.#url} answers without a problem of Fanfold's: is it the right URL?`;
    return new Problem(status, "about:blank", "", detail, askedMs);
  }

  #receipt(found: unknown, sent: Sent): Receipt {
    const { log, seq } = isObject(found) ? found : {};
    if (typeof log !== "string" || typeof seq !== "number") {
      const text = short(this.#json.stringify(found) ?? "");
      throw new BadAnswer(`${this.#url} answers with neither a receipt nor a problem: ${text}`);
    }
    return { log, seq, id: sent.id };
  }
}

function random(count: number): Uint32Array {
  return crypto.getRandomValues(new Uint32Array(count));
}

function isObject(value: unknown): value is { [field: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function short(text: string): string {
  return text.slice(0, 200);
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${describe(error.cause)}` : error.message;
}

/** The code of the system's error below an error of `fetch`; in browsers there is none. */
function codeOf(error: unknown): string {
  const cause: unknown = error instanceof Error && !(error instanceof FanfoldError) ? error.cause : undefined;
  return isObject(cause) ? String(cause["code"] ?? "") : "";
}

function originOf(command: Sent): string {
  const partition = command.org == null ? `user:${command.user}` : `org:${command.org}`;
  return JSON.stringify([command.type, partition, command.user, command.client]);
}

/** The error, with the command and what is known of it. */
function about<E>(error: E, command: Sent, tries: Tries): E {
  if (error instanceof FanfoldError) {
    error.command = command;
    error.maybeAccepted = tries.maybeAccepted || error instanceof BadAnswer;
  }
  return error;
}

/** Another error that says the same, for another command. Throws what is not a `FanfoldError`. */
function copied(error: unknown): FanfoldError {
  if (!(error instanceof FanfoldError)) throw error;
  return Object.create(Object.getPrototypeOf(error), Object.getOwnPropertyDescriptors(error)) as FanfoldError;
}

/** Whether the same request may succeed later: the server, or a gateway before it, is overloaded or failed. */
function isTemporary(status: number): boolean {
  return [408, 425, 429].includes(status) || (status >= 500 && status < 600 && ![501, 505].includes(status));
}

/** The header `Retry-After`, which has seconds or a date, as milliseconds from now. */
function retryAfterMs(value: string | null, unixMs: number): number | undefined {
  const text = value?.trim() ?? "";
  if (/^[0-9]+$/.test(text)) return Number(text) * 1_000;
  // `Date.parse` takes much else for a date.
  const date = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - unixMs);
}

/** A segment of a path, percent-encoded. Refuses those that URLs take for another path. */
function segment(what: string, text: string): string {
  if (["", ".", ".."].includes(text)) throw new RangeError(`${what}: \`${text}\` cannot be a name`);
  return encodeURIComponent(text);
}

function logPath(log: string): string {
  const slash = log.indexOf("/");
  if (slash < 0) throw new RangeError(`log: \`${log}\` is not like ledger/org:acme`);
  return `/logs/${segment("log", log.slice(0, slash))}/${segment("log", log.slice(slash + 1))}`;
}

function viewPath(view: string, log: string): string {
  return `/views/${segment("view", view)}${logPath(log).slice("/logs".length)}`;
}

/** A query of the parameters that are there, percent-encoded. */
function query(params: Params): string {
  const there = Object.entries(params).filter(([, value]) => value !== undefined && value !== null);
  const pairs = there.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
  return pairs.length > 0 ? `?${pairs.join("&")}` : "";
}
