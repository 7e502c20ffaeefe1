// The console in a browser: `cargo xtask console` starts this.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { HOSTILE, Host, browser, load, prefixed, serve } from './hosts.mjs';

const SHOTS = process.env.SHOTS ?? path.join(tmpdir(), 'fanfold-console');
const LOG = 'ledger/org:acme';
const enc = encodeURIComponent;
/** The time that the page may take to show something, in milliseconds. */
const PATIENCE_MS = 10_000;

let chrome;
let ledger;
let stopLoad;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  ledger = await Host.start(process.env.FANFOLD_BIN, ['--in-memory', '--listen', '127.0.0.1:0']);
  stopLoad = load(ledger);
  chrome = await browser();
});

after(async () => {
  await chrome?.close();
  await stopLoad?.();
  // Also those of tests that have failed.
  await Promise.all(Host.all.map((host) => host.stop()));
});

/** Opens a page, and collects what must not happen on it. */
async function open(url, { width = 1280, height = 800, scheme = 'light', mayFail = false } = {}) {
  const context = await chrome.newContext({ viewport: { width, height }, colorScheme: scheme });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const wrong = [];
  const origin = new URL(url).origin;
  // A policy that is broken is also said on the console; the event has the directive.
  await page.addInitScript(() => addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  page.on('console', (message) => {
    const isNetwork = message.text().includes('Failed to load resource');
    if (['error', 'warning'].includes(message.type()) && !(mayFail && isNetwork)) wrong.push(`${message.type()}: ${message.text()} ${message.location().url}`);
  });
  page.on('pageerror', (error) => wrong.push(`exception: ${error.message}`));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) wrong.push(`request elsewhere: ${request.url()}`);
  });
  await page.goto(url);
  await page.getByText('Live', { exact: true }).waitFor();
  return {
    page,
    async close() {
      assert.equal(await page.evaluate(() => globalThis.hacked), undefined, 'text of the data has run');
      assert.deepEqual(wrong, [], page.url());
      await context.close();
    },
  };
}

const heading = (page, name) => page.getByRole('heading', { level: 1, name, exact: true });
const SCREENS = [
  ['pipeline', '#/pipeline', 'Pipeline', (page) => page.getByRole('list', { name: 'Hops of a command' }).getByRole('heading', { name: 'Publish' })],
  ['shards', '#/shards', 'Shards', (page) => page.getByRole('table', { name: 'Shards' }).getByText('shardId-000000000003').first()],
  ['logs', '#/logs', 'Logs', (page) => page.getByRole('link', { name: LOG, exact: true })],
  ['log', `#/logs/${enc(LOG)}`, 'Logs', (page) => page.getByRole('table', { name: `Entries of ${LOG}` }).getByText('accepted').first()],
  ['entry', `#/entry/${enc(LOG)}/2`, 'Entry 2', (page) => page.getByRole('table', { name: 'Rows of statement' })],
  ['views', '#/views', 'Views', (page) => page.getByRole('table', { name: 'Views' }).getByRole('link', { name: 'totals' })],
  ['view', `#/views/statement/${enc(LOG)}`, 'statement', (page) => page.getByRole('table', { name: 'Rows' }).getByText('deposited').first()],
  ['parked', '#/parked', 'Parked', (page) => page.getByText('No view is parked')],
  ['doctor', `#/doctor/${enc(LOG)}`, 'Doctor', (page) => page.getByText('fits together')],
  ['cost', '#/cost', 'Cost', (page) => page.getByText('Not measured on this host')],
];

for (const [width, height, scheme] of [[1280, 800, 'light'], [1280, 800, 'dark'], [390, 844, 'light'], [390, 844, 'dark']]) {
  test(`every screen, ${width} px, ${scheme}`, async () => {
    const { page, close } = await open(`${ledger.url}/console`, { width, height, scheme });
    await heading(page, 'Pipeline').waitFor();
    for (const [name, hash, title, content] of SCREENS) {
      await page.evaluate((to) => (location.hash = to), hash);
      await heading(page, title).waitFor();
      await content(page).waitFor();
      assert.equal(await page.getByRole('main').count(), 1);
      assert.equal(await page.getByRole('navigation', { name: 'Screens' }).count(), 1);
      assert.equal(await page.title(), `${await page.evaluate(() => document.title.split(' – ')[0])} – Fanfold`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wider <= 0, `${name} is ${wider} px wider than the screen`);
      const tree = await page.locator('body').ariaSnapshot();
      const unnamed = tree.split('\n').filter((line) => /- (button|link|textbox|searchbox|combobox|checkbox|dialog|table|region)(:| \[|$)/.test(line));
      assert.deepEqual(unnamed, [], `${name} has controls without a name`);
      if (name === 'pipeline') await page.waitForFunction(() => document.querySelectorAll('.spark canvas').length >= 7 && /\d/.test(document.querySelector('.hop .rate strong').textContent));
      await page.screenshot({ path: path.join(SHOTS, `${name}-${width}-${scheme}.png`) });
    }
    await close();
  });
}

test('keys lead to screens, search and help', async () => {
  const { page, close } = await open(`${ledger.url}/console`);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('7');
  await heading(page, 'Cost').waitFor();
  await page.getByRole('link', { name: 'Skip to the content' }).focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  assert.ok(await heading(page, 'Cost').isVisible(), 'the screen stays');
  for (const [keys, title] of [[['g', 's'], 'Shards'], [['g', 'l'], 'Logs'], [['4'], 'Views'], [['g', 'w'], 'Parked'], [['6'], 'Doctor'], [['g', 'c'], 'Cost'], [['g', 'p'], 'Pipeline']]) {
    for (const key of keys) await page.keyboard.press(key);
    await heading(page, title).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), title, 'the focus is on the heading');
    assert.equal(await page.getByRole('navigation').locator('[aria-current=page]').count(), 1);
  }
  await page.keyboard.press('?');
  const dialog = page.getByRole('dialog', { name: 'Keys' });
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  await page.keyboard.press('/');
  const search = page.getByRole('searchbox', { name: 'Find a log or a receipt' });
  await page.keyboard.type('3 gl', { delay: 5 });
  assert.equal(await search.inputValue(), '3 gl', 'keys are text in a field');
  assert.ok(await heading(page, 'Pipeline').isVisible());
  for (const [text, title] of [[`${LOG} 2`, 'Entry 2'], [`{"log":"${LOG}","seq":3}`, 'Entry 3'], [`${ledger.url}/logs/${LOG}/1`, 'Entry 1'], [LOG, 'Logs']]) {
    await search.fill(text);
    await search.press('Enter');
    await heading(page, title).waitFor();
  }
  await page.getByRole('heading', { name: LOG }).waitFor();
  await close();
});

test('the theme can be switched, and is kept', async () => {
  const { page, close } = await open(`${ledger.url}/console`);
  const colour = () => page.evaluate(() => getComputedStyle(document.body.parentElement).backgroundColor);
  const light = await colour();
  await page.getByRole('combobox', { name: 'Colours' }).selectOption('dark');
  const dark = await colour();
  assert.notEqual(dark, light);
  await page.reload();
  await page.getByText('Live', { exact: true }).waitFor();
  assert.equal(await colour(), dark);
  await close();
});

test('the pipeline shows rates, lags and backlogs', async () => {
  const { page, close } = await open(`${ledger.url}/console`);
  const accept = page.getByRole('list', { name: 'Hops of a command' }).getByRole('listitem').filter({ hasText: 'Accept' });
  await page.waitForFunction(() => Number(document.querySelector('.hop .rate strong')?.textContent) > 10);
  assert.match(await accept.innerText(), /p99\s+(≤ )?[\d.]+ (ms|s)/);
  const views = page.getByRole('list', { name: 'Views' }).getByRole('listitem');
  assert.equal(await views.count(), 3);
  for (const text of ['Lag', 'Backlog', 'Parked logs', 'Dead, lost']) assert.match(await views.first().innerText(), new RegExp(text));
  assert.match(await page.getByRole('img', { name: /^Commands a second/ }).getAttribute('aria-label'), /Accepted \d/);
  await close();
});

test('a followed log shows entries as they come', async () => {
  const host = await Host.start(process.env.FANFOLD_BIN, ['--in-memory', '--listen', '127.0.0.1:0']);
  const { page, close } = await open(`${host.url}/console#/logs/${enc(LOG)}`);
  await page.getByText('This log has no entries').waitFor();
  await page.getByRole('button', { name: 'Follow' }).click();
  await page.getByRole('button', { name: 'Following', pressed: true }).waitFor();
  await host.send('ledger', 'open', 1, 'acme', { account: 'cash' });
  await page.getByRole('link', { name: 'Entry 1', exact: true }).waitFor();
  await host.send('ledger', 'withdraw', 2, 'acme', { account: 'cash', amount: 7 });
  await page.getByRole('cell', { name: 'overdrawn' }).waitFor();
  const seqs = await page.getByRole('table').getByRole('link', { name: /^Entry/ }).allInnerTexts();
  assert.deepEqual(seqs, ['2', '1'], 'the newest is first');
  await page.getByRole('button', { name: 'Details of entry 1' }).click();
  await page.getByText('"command": "open"').waitFor();
  await close();
  await host.stop();
});

test('names and texts that look like HTML are text', async () => {
  const { page, close } = await open(`${ledger.url}/console#/logs`);
  const name = `ledger/org:${HOSTILE}`;
  await page.getByRole('link', { name, exact: true }).click();
  await page.getByRole('heading', { name }).waitFor();
  await page.getByRole('link', { name: 'Entry 2', exact: true }).or(page.getByRole('link', { name: /^Entry/ })).first().click();
  await page.getByRole('heading', { name: 'Views' }).waitFor();
  await page.getByText('rent & <b>heat</b>').first().waitFor();
  assert.equal(await page.getByRole('main').locator('img, script, b').count(), 0);
  // Even a script of the page cannot write HTML.
  const refused = await page.evaluate(() => {
    try {
      document.getElementById('main').innerHTML = '<b>no</b>';
      return 'written';
    } catch (error) {
      return error.name;
    }
  });
  assert.equal(refused, 'TypeError');
  await assert.rejects(close(), /Trusted|require-trusted-types-for/, 'the page must have reported what was refused');
});

test('errors of the API are shown as they are worded', async () => {
  const { page, close } = await open(`${ledger.url}/console#/logs/nothing%2Forg%3Aacme`, { mayFail: true });
  await page.getByRole('alert').getByText('There is no such service').waitFor();
  await page.evaluate(() => (location.hash = '#/views/balances/ledger%2Fnobody'));
  await page.getByRole('alert').getByText('A name is not allowed').waitFor();
  await page.getByRole('alert').getByText('`partition`').waitFor();
  await close();
});

test('shards are split and merged once their name was typed', async () => {
  const host = await Host.start(process.env.FANFOLD_BIN, ['--in-memory', '--shards', '2', '--listen', '127.0.0.1:0']);
  const { page, close } = await open(`${host.url}/console#/shards`);
  const name = 'shardId-000000000000';
  await page.getByRole('button', { name: `Split ${name}` }).click();
  const dialog = page.getByRole('dialog', { name: 'Split a shard' });
  const split = dialog.getByRole('button', { name: 'Split' });
  assert.ok(await split.isDisabled());
  await dialog.getByLabel('Type the name to confirm').fill('shardId-000000000001');
  assert.ok(await split.isDisabled(), 'it is another name');
  await dialog.getByLabel('Type the name to confirm').fill(name);
  await split.click();
  await page.getByRole('heading', { name: '3 open shards' }).waitFor();
  await page.getByRole('status').getByText('Done: shardId-000000000002, shardId-000000000003').waitFor();
  await page.getByRole('button', { name: 'Merge shardId-000000000002 with shardId-000000000003' }).click();
  await page.getByLabel('Type the name to confirm').fill('shardId-000000000002');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: '2 open shards' }).waitFor();
  await close();
  await host.stop();
});

test('the doctor examines all logs', async () => {
  const { page, close } = await open(`${ledger.url}/console#/doctor`);
  await page.getByRole('button', { name: 'Examine all' }).click();
  await page.getByText(/^5 logs, [\d,]+ entries, [\d,]+ rows: 0 findings$/).waitFor();
  await page.getByText('everything fits together').waitFor();
  await close();
});

test('what is parked is shown, resumed with the next build, skipped and sent again', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'fanfold-console-'));
  const start = (listen, environment) => Host.start(process.env.FAULTY_BIN, ['--data', folder, '--log', 'off', '--listen', listen], environment);
  let host = await start('127.0.0.1:0');
  const address = new URL(host.url).host;
  for (const [id, org, text] of [[1, 'acme', 'hi'], [2, 'acme', 'boo'], [3, 'acme', 'hi'], [4, HOSTILE, 'boo'], [5, 'beta', 'panic']]) await host.send('talk', 'say', id, org, { text });
  const { page, close } = await open(`${host.url}/console#/parked`, { mayFail: true });
  const resume = page.getByRole('button', { name: 'Resume texts of talk/org:acme' });
  await resume.waitFor();
  await page.getByText('this build cannot take `boo`').first().waitFor();
  await page.screenshot({ path: path.join(SHOTS, 'parked-items-1280-light.png') });

  // Skipping cannot be undone, so the name of the log has to be typed.
  const name = `talk/org:${HOSTILE}`;
  await page.getByRole('button', { name: `Skip texts of ${name}` }).click();
  const dialog = page.getByRole('dialog', { name: 'Skip' });
  const skip = dialog.getByRole('button', { name: 'Skip for ever' });
  await dialog.getByLabel('Type the name to confirm').fill(name);
  assert.ok(await skip.isDisabled(), 'it has no reason');
  await dialog.getByLabel('Reason').fill('<b>noise</b>');
  await page.screenshot({ path: path.join(SHOTS, 'skip-1280-light.png') });
  await skip.click();
  await page.getByRole('status').getByText(`Skipped texts of ${name}: a stage does the rest`).waitFor();
  await page.getByRole('button', { name: `Skip texts of ${name}` }).waitFor({ state: 'detached' });

  // The console survives a restart of the host.
  await host.stop();
  await page.getByText('The host does not answer', { exact: true }).waitFor();
  host = await start(address, { FIXED: '1' });
  await page.getByText('Live', { exact: true }).waitFor();
  await resume.click();
  await page.getByRole('dialog', { name: 'Resume' }).getByRole('button', { name: 'Resume' }).click();
  await page.getByText('No view is parked').waitFor();
  await page.getByRole('region', { name: 'Results' }).getByText('Resumed texts of talk/org:acme').waitFor();

  await page.evaluate(() => (location.hash = '#/entry/talk%2Forg%3Abeta/1'));
  await page.getByText('faulted', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Send again…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Send again' }).click();
  await page.getByRole('status').getByText('Sent again: talk/org:beta 2').waitFor();
  await page.evaluate(() => (location.hash = '#/entry/talk%2Forg%3Abeta/2'));
  await page.getByRole('table', { name: 'Rows of texts' }).getByText('panic').waitFor();
  await close();
  await host.stop();
  rmSync(folder, { recursive: true });
});

test('a host that is broken on purpose shows it, and heals', async () => {
  const host = await Host.start(process.env.FANFOLD_BIN, ['--in-memory', '--chaos', '--log', 'off', '--listen', '127.0.0.1:0']);
  const { page, close } = await open(`${host.url}/console#/chaos`, { mayFail: true });
  await page.getByText('Nothing is broken').waitFor();
  await page.getByRole('combobox', { name: 'Fault', exact: true }).selectOption('kill');
  await page.getByRole('combobox', { name: 'At', exact: true }).selectOption('view:totals');
  await page.getByRole('combobox', { name: 'Fault', exact: true }).selectOption('fail');
  await page.getByRole('combobox', { name: 'At', exact: true }).selectOption('journal');
  await page.getByLabel('Only the log').fill(LOG);
  await page.getByLabel('For seconds').fill('60');
  await page.screenshot({ path: path.join(SHOTS, 'chaos-1280-light.png') });
  await page.getByRole('button', { name: 'Break it' }).click();
  const row = page.getByRole('table', { name: 'Faults' }).getByRole('row').filter({ hasText: 'journal' });
  await row.waitFor();
  await host.send('ledger', 'open', 1, 'acme', { account: 'cash' }, 0);
  await row.getByRole('cell', { name: /^[1-9]\d*$/ }).first().waitFor();
  await page.screenshot({ path: path.join(SHOTS, 'chaos-faults-1280-light.png') });

  // The pipeline shows where the command waits.
  await page.getByRole('link', { name: 'See the pipeline heal' }).click();
  const processing = page.getByRole('list', { name: 'Hops of a command' }).getByRole('listitem').filter({ has: page.getByRole('heading', { name: 'Process' }) });
  await processing.getByText('behind', { exact: true }).waitFor({ timeout: 20_000 });
  await page.screenshot({ path: path.join(SHOTS, 'pipeline-broken-1280-light.png') });
  await page.keyboard.press('8');
  await page.getByRole('button', { name: 'Heal fault 1' }).click();
  await page.getByText('Nothing is broken').waitFor();
  await page.keyboard.press('1');
  await processing.getByText('behind', { exact: true }).waitFor({ state: 'detached', timeout: 20_000 });
  await page.evaluate((to) => (location.hash = to), `#/entry/${enc(LOG)}/1`);
  await page.getByText('accepted', { exact: true }).waitFor();

  // What cannot be broken is said as the API words it.
  await page.evaluate(() => (location.hash = '#/chaos'));
  await page.getByLabel('Only the log').fill('acme');
  await page.getByRole('button', { name: 'Break it' }).click();
  await page.getByRole('alert').getByText('`log`').waitFor();
  await close();
  await host.stop();
});

test('the console works below a prefix', async () => {
  const proxy = await prefixed(ledger, '/prod');
  const { page, close } = await open(`${proxy.url}/prod/console/`);
  const paths = [];
  page.on('request', (request) => paths.push(new URL(request.url()).pathname));
  await page.getByRole('link', { name: 'Logs' }).click();
  await page.getByRole('link', { name: LOG, exact: true }).click();
  await page.getByRole('table', { name: `Entries of ${LOG}` }).waitFor();
  assert.ok(paths.length > 0 && paths.every((of) => of.startsWith('/prod/')), paths.join(' '));
  await close();
  await proxy.close();
});

test('a page of another origin can neither operate the host nor show the console', async () => {
  const other = await serve((request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>elsewhere</h1>'));
  const context = await chrome.newContext();
  const page = await context.newPage();
  await page.goto(other.url);
  const answer = page.waitForResponse((response) => response.url().includes('/ops/'));
  await page.evaluate((url) => fetch(`${url}/ops/shards/split`, { method: 'POST', mode: 'no-cors', headers: { 'content-type': 'text/plain' }, body: '{"shard":"shardId-000000000000"}' }).catch(() => {}), ledger.url);
  assert.equal((await answer).status(), 403);
  await page.evaluate((url) => {
    const form = Object.assign(document.createElement('form'), { method: 'post', action: `${url}/ops/shards/split`, enctype: 'text/plain' });
    form.append(Object.assign(document.createElement('input'), { name: '{"shard":"shardId-000000000000","x":"', value: '"}' }));
    document.body.append(form);
    form.submit();
  }, ledger.url);
  await page.getByText('foreign-origin').waitFor();
  const { shards } = await (await fetch(`${ledger.url}/ops/shards`)).json();
  assert.equal(shards.length, 4, 'nothing was split');
  await page.goto(other.url);
  const framed = page.waitForResponse((response) => response.url().endsWith('/console'));
  await page.evaluate((url) => document.body.append(Object.assign(document.createElement('iframe'), { src: `${url}/console` })), ledger.url);
  assert.equal((await framed).status(), 403);
  for (const frame of page.frames().slice(1)) assert.ok(!(await frame.content()).includes('search-text'), 'the console is in a frame');
  await context.close();
  await other.close();
});
