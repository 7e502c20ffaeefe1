// What the tests share: `fanfold up`, a server that misbehaves as told, and a clock that does not sleep.

import { spawn, type ChildProcess } from "node:child_process";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after } from "node:test";
import { Client, type ClientOptions, type Clock } from "../fanfold.js";

/** Sleeping only moves this clock on. `slept` has each pause, in milliseconds. */
export class FakeClock implements Clock {
  passedMs = 0;
  beganMs = 1_800_000_000_000;
  slept: number[] = [];

  unixMs(): number {
    return this.beganMs + this.passedMs;
  }

  nowMs(): number {
    return this.passedMs;
  }

  async sleep(ms: number): Promise<void> {
    this.slept.push(ms);
    this.passedMs += ms;
  }
}

/** How the fake server answers one request. */
export interface Reply {
  status?: number;
  body?: string | Uint8Array;
  headers?: Record<string, string>;
  /** Close the connection instead of an answer. */
  cut?: boolean;
  /** Announce so many bytes more than are sent. */
  shortBy?: number;
  /** Answer only after this. */
  after?: Promise<unknown>;
  /** First pass the request on to the server at this URL. */
  firstTo?: string;
}

export interface Request {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  body: string;
}

/** A server on loopback that answers by a script, or with these replies in their order. */
export class Fake {
  requests: Request[] = [];
  url = "";
  readonly #script: (request: Request) => Reply | Promise<Reply>;
  readonly #server: Server = createServer((request, response) => void this.#serve(request, response));

  private constructor(script: Reply[] | ((request: Request) => Reply | Promise<Reply>)) {
    const replies = Array.isArray(script) ? [...script] : [];
    const next = () => replies.shift() ?? { status: 418, body: "the test has no more replies" };
    this.#script = Array.isArray(script) ? next : script;
  }

  static async start(script: Reply[] | ((request: Request) => Reply | Promise<Reply>)): Promise<Fake> {
    const fake = new Fake(script);
    await new Promise<void>((resolve) => fake.#server.listen(0, "127.0.0.1", resolve));
    fake.url = `http://127.0.0.1:${(fake.#server.address() as AddressInfo).port}`;
    after(() => fake.close());
    return fake;
  }

  get bodies(): string[] {
    return this.requests.map((request) => request.body);
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Uint8Array[] = [];
    for await (const piece of incoming) pieces.push(piece as Uint8Array);
    const body = Buffer.concat(pieces).toString();
    const request = { method: incoming.method ?? "", path: incoming.url ?? "", headers: incoming.headers, body };
    this.requests.push(request);
    const reply = await this.#script(request);
    if (reply.firstTo) await (await fetch(reply.firstTo + request.path, { method: "POST", body })).text();
    await reply.after;
    if (reply.cut) {
      incoming.socket.destroy();
      return;
    }
    const bytes = Buffer.from(reply.body ?? "");
    const length = String(bytes.length + (reply.shortBy ?? 0));
    response.writeHead(reply.status ?? 200, { ...reply.headers, "content-length": length });
    response.end(bytes);
    if (reply.shortBy) setTimeout(() => incoming.socket.destroy(), 20);
  }
}

/** A client whose clock does not sleep. */
export function client(url: string, clock: FakeClock, options: ClientOptions = {}): Client {
  return new Client(url, { user: "ann", client: "till 7", clock, ...options });
}

/** `fanfold up --in-memory`, from the program that `FANFOLD_BIN` names, on a free port of loopback. */
export class Up {
  url = "";
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess) {
    this.#process = process;
  }

  static async start(): Promise<Up> {
    const program = process.env["FANFOLD_BIN"];
    if (!program) throw new Error("FANFOLD_BIN: must name the program `fanfold` (`cargo xtask clients` sets it)");
    const child = spawn(program, ["up", "--in-memory", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", 2] });
    const up = new Up(child);
    let greeting = "";
    const { stdout } = child;
    if (!stdout) throw new Error("`fanfold up` has no standard output");
    stdout.setEncoding("utf8");
    for await (const piece of stdout) {
      greeting += piece;
      up.url = /http:\/\/[0-9.]+:[0-9]+/.exec(greeting)?.[0] ?? "";
      if (greeting.includes("\n")) break;
    }
    if (!up.url) throw new Error(`\`fanfold up\` greets without a URL: ${greeting}`);
    return up;
  }

  close(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#process.once("exit", () => resolve()));
    this.#process.kill("SIGKILL");
    return ended;
  }
}
