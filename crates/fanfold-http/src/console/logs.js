// The logs, and the entries of one, which can be followed.

import { address, get, logParts } from './api.js';
import { badge, code, count, el, empty, field, hash, heading, link, plural, problem, time } from './dom.js';

/** Entries that are shown of a log at once. */
const PAGE = 50;
/** Entries that stay while a log is followed. */
const FOLLOWED_MAX = 200;
/** Logs that a list grows to. */
const LISTED_MAX = 2_000;

const LEVELS = { accepted: 'ok', rejected: 'warn', duplicate: 'idle', stale: 'idle', faulted: 'bad', lost: 'bad' };

export function status(entry) {
  return badge(entry.status, LEVELS[entry.status] ?? 'idle');
}

/** An entry's result in a line. */
export function summary(entry) {
  if (entry.events) {
    const parts = entry.events.flatMap(({ type, document }, at) => [at > 0 && ', ', el('strong', { text: type }), ` ${document}`]);
    return el('span', {}, parts.length > 0 ? parts.filter(Boolean) : 'no event');
  }
  if (entry.status === 'duplicate') return `the first is ${entry.of}`;
  const text = [entry.code, entry.message ?? entry.reason].filter(Boolean).join(': ');
  return entry.of ? `${text} (${entry.of})` : text;
}

export function author(entry) {
  return entry.user === undefined ? '–' : [entry.user, entry.client].filter(Boolean).join(' · ');
}

function row(entry) {
  const details = el('tr', { class: 'details', hidden: true }, el('td', { colspan: '6' }, code(entry)));
  const open = el('button', {
    type: 'button', class: 'quiet expand', 'aria-expanded': 'false', 'aria-label': `Details of entry ${entry.seq}`, text: '▸',
    click: () => {
      details.hidden = !details.hidden;
      open.setAttribute('aria-expanded', String(!details.hidden));
      open.textContent = details.hidden ? '▸' : '▾';
    },
  });
  const cell = (label, kind, ...content) => el('td', { class: kind, 'data-label': label }, ...content);
  return [el('tr', {},
    cell('Seq', 'number', open, link(['entry', entry.log, String(entry.seq)], count(entry.seq), { 'aria-label': `Entry ${entry.seq}` })),
    cell('Time', 'wide nowrap', time(entry.at)), cell('Status', '', status(entry)), cell('Command', 'mono', entry.command ?? '–'),
    cell('By', 'wide', author(entry)), cell('Result', 'result', summary(entry))), details];
}

function entriesTable(log, body) {
  const columns = [['Seq', 'number'], ['Time', 'wide'], ['Status', ''], ['Command', ''], ['By', 'wide'], ['Result', '']];
  const head = columns.map(([title, kind]) => el('th', { scope: 'col', class: kind, text: title }));
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Entries of ${log}` },
    el('table', { class: 'entries', 'aria-label': `Entries of ${log}` }, el('thead', {}, el('tr', {}, head)), body));
}

/** One log: pages of entries, the newest first. */
function oneLog(log) {
  const [service, partition] = logParts(log);
  const info = el('div');
  const body = el('tbody');
  const failed = el('div');
  const shown = el('div');
  const follow = el('button', { type: 'button', 'aria-pressed': 'false', text: 'Follow' });
  const newest = el('button', { type: 'button', text: 'Newest', click: () => load() });
  const newer = el('button', { type: 'button', text: 'Newer' });
  const older = el('button', { type: 'button', text: 'Older' });
  const jump = el('input', { type: 'text', inputmode: 'numeric', pattern: '[0-9]+', required: true, size: '8', 'aria-label': 'Seq to go to' });
  const go = el('form', { class: 'inline', submit: (event) => {
    event.preventDefault();
    location.hash = hash(['entry', log, jump.value.trim()]);
  } }, jump, el('button', { type: 'submit', text: 'Go to seq' }));
  let source;
  let page = { from: 1, to: 0, tail: 0 };

  function head(accepted, tail) {
    info.replaceChildren(el('p', { class: 'muted' }, plural(tail, 'entry', 'entries'), accepted > tail ? el('span', { class: 'level warn', text: `, ${plural(accepted - tail, 'accepted command has', 'accepted commands have')} none yet` }) : '', ' · ',
      link(['doctor', log], 'Examine')));
  }

  async function load(to) {
    stop();
    failed.replaceChildren();
    try {
      const { tail } = await get(['logs', service, partition], { from: 1, limit: 1 });
      const last = Math.max(Math.min(to ?? tail, tail), 0);
      const from = Math.max(last - PAGE + 1, 1);
      const got = await get(['logs', service, partition], { from, limit: PAGE });
      page = { from, to: got.entries.at(-1)?.seq ?? 0, tail: got.tail };
      head(got.accepted, got.tail);
      newer.disabled = page.to >= got.tail;
      older.disabled = page.from <= 1;
      const entries = got.entries.filter(({ seq }) => to === undefined || seq <= last).reverse();
      body.replaceChildren(...entries.flatMap(row));
      shown.replaceChildren(entries.length > 0 ? entriesTable(log, body) : empty('This log has no entries', 'A log that has never had a command looks like this, too. Follow it to wait for the first.'));
    } catch (error) {
      failed.replaceChildren(problem(error));
    }
  }

  let isGone = false;

  function stop() {
    source?.close();
    source = undefined;
    follow.setAttribute('aria-pressed', 'false');
    follow.textContent = 'Follow';
  }

  function start() {
    if (!shown.contains(body)) shown.replaceChildren(entriesTable(log, body));
    // The browser asks again after a break, and names the last entry that it has (`Last-Event-ID`).
    source = new EventSource(address(['logs', service, partition], { from: page.tail + 1 }));
    follow.setAttribute('aria-pressed', 'true');
    follow.textContent = 'Following';
    newer.disabled = true;
    source.addEventListener('entry', ({ data }) => {
      const entry = JSON.parse(data);
      page.tail = entry.seq;
      page.to = entry.seq;
      const rows = row(entry);
      rows[0].classList.add('new');
      body.prepend(...rows);
      while (body.children.length > FOLLOWED_MAX * 2) body.lastChild.remove();
      head(entry.seq, entry.seq);
      failed.replaceChildren();
    });
    source.addEventListener('problem', ({ data }) => {
      failed.replaceChildren(problem(JSON.parse(data)));
      stop();
    });
    source.addEventListener('error', () => {
      if (source?.readyState !== EventSource.CLOSED) return;
      failed.replaceChildren(problem({ title: 'The log cannot be followed', detail: 'The host does not send events of this log.' }));
      stop();
    });
  }

  follow.addEventListener('click', async () => {
    if (source) return stop();
    follow.disabled = true;
    await load();
    follow.disabled = false;
    // Another screen may be shown meanwhile.
    if (!isGone) start();
  });
  newer.addEventListener('click', () => load(page.to + PAGE));
  older.addEventListener('click', () => load(page.from - 1));
  load();
  return {
    host: el('section', { class: 'one', 'aria-labelledby': 'log-name' },
      el('p', { class: 'back' }, link(['logs'], '‹ All logs')),
      el('h2', { id: 'log-name', class: 'mono name', text: log }), info,
      el('div', { class: 'toolbar' }, follow, newest, newer, older, go), failed, shown),
    stop() {
      isGone = true;
      stop();
    },
  };
}

function render(root, [log = '', given = '']) {
  const prefix = el('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', placeholder: 'ledger/org:' });
  prefix.value = given;
  const list = el('ul', { class: 'names' });
  const more = el('button', { type: 'button', text: 'More', hidden: true });
  const said = el('div', { 'aria-live': 'polite' });
  let next;
  let turn = 0;

  async function load(isMore) {
    const mine = ++turn;
    try {
      const page = await get(['logs'], { prefix: prefix.value.trim(), after: isMore ? next : undefined, limit: 100 });
      // Another key was pressed meanwhile.
      if (mine !== turn) return;
      if (!isMore) list.replaceChildren();
      next = page.next;
      list.append(...page.logs.map(({ log: name }) => el('li', {}, link(['logs', name], name, { class: 'mono', 'aria-current': name === log ? 'true' : null }))));
      more.hidden = !next || list.children.length >= LISTED_MAX;
      const isEmpty = list.children.length === 0 && !next;
      said.replaceChildren(isEmpty ? empty(prefix.value ? 'No log begins with this' : 'There are no logs yet', prefix.value ? '' : 'A log is there soon after its first command.') : '');
      if (next && list.children.length >= LISTED_MAX) said.replaceChildren('There are more: give a longer prefix.');
    } catch (error) {
      if (mine === turn) said.replaceChildren(problem(error));
    }
  }

  let timer;
  prefix.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(load, 200);
  });
  more.addEventListener('click', () => load(true));
  load();
  const one = log && oneLog(log);
  root.classList.toggle('has-one', Boolean(log));
  root.append(heading('Logs'), el('div', { class: 'panes' },
    el('section', { class: 'list panel', 'aria-label': 'All logs' }, field('Names that begin with', prefix), said, list, more),
    one ? one.host : empty('Choose a log', 'Or find one entry by its receipt: type the log and the seq into the search above.')));
  return {
    destroy() {
      clearTimeout(timer);
      turn += 1;
      if (one) one.stop();
    },
  };
}

export default { title: 'Logs', render };
