// The hosts and the browser of the tests.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import http from 'node:http';
import { chromium } from 'playwright-core';

/** How long a host may take to start or to end, in milliseconds. */
const PATIENCE_MS = 20_000;

/** An organisation's name that would run a script if it became a part of the page. */
export const HOSTILE = '<img src=x onerror=globalThis.hacked=1>';

/** An `up`, from the first line that it prints. */
export class Host {
  /** All that were started. */
  static all = [];

  static async start(program, more, environment = {}) {
    assert.ok(program, 'the program is not named: run `cargo xtask console`');
    const child = spawn(program, ['up', ...more], { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    const host = new Host();
    host.child = child;
    Host.all.push(host);
    host.ended = new Promise((resolve) => child.once('exit', resolve));
    let said = '';
    child.stderr.on('data', (data) => (said += data));
    host.url = await new Promise((resolve, reject) => {
      let out = '';
      const timer = setTimeout(() => reject(new Error(`\`up\` does not start: ${out}${said}`)), PATIENCE_MS);
      child.stdout.on('data', (data) => {
        out += data;
        const found = /listens on (\S+),/.exec(out);
        if (found) {
          clearTimeout(timer);
          resolve(found[1]);
        }
      });
      child.once('exit', () => reject(new Error(`\`up\` ended: ${said}`)));
    });
    return host;
  }

  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), PATIENCE_MS);
    await this.ended;
    clearTimeout(timer);
  }

  async send(type, command, id, org, data, wait = 5_000) {
    const body = JSON.stringify({ type, command, id, user: 'ann', org, data });
    const response = await fetch(`${this.url}/command?wait=${wait}`, { method: 'POST', body });
    const answer = await response.json();
    assert.ok(response.ok, JSON.stringify(answer));
    return answer;
  }
}

/** Sends commands to the ledger until it is stopped, so that the pages have something to show. */
export function load(host) {
  const orgs = ['acme', 'globex', 'initech', 'umbrella', HOSTILE];
  let id = Date.now() * 1_024;
  const opened = new Set();
  let isOn = true;
  let turn = 0;
  const run = async () => {
    while (isOn) {
      turn += 1;
      const lines = Array.from({ length: 12 + Math.round(8 * Math.sin(turn / 20)) }, (_, at) => {
        const org = orgs[(turn + at) % orgs.length];
        const [command, data] = !opened.has(org) ? ['open', { account: 'cash' }]
          : at === 3 ? ['withdraw', { account: 'cash', amount: 4e9 }] : ['deposit', { account: 'cash', amount: 1 + at, memo: 'rent & <b>heat</b>' }];
        opened.add(org);
        return JSON.stringify({ type: 'ledger', command, id: id++, user: 'ann', org, data });
      });
      await fetch(`${host.url}/commands`, { method: 'POST', body: lines.join('\n') });
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const ended = run();
  return async () => {
    isOn = false;
    await ended;
  };
}

export function browser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
}

/** A server of this test, at another origin. */
export async function serve(answer) {
  const server = http.createServer(answer);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}

/** Passes requests on to a host, below a prefix, as a stage of API Gateway does. */
export function prefixed(host, prefix) {
  return serve((request, response) => {
    if (!request.url.startsWith(`${prefix}/`)) {
      response.writeHead(404).end();
      return;
    }
    const to = new URL(host.url);
    const path = request.url.slice(prefix.length);
    const passed = http.request({ host: to.hostname, port: to.port, method: request.method, path, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    request.pipe(passed);
    response.on('close', () => passed.destroy());
  });
}
