// One command by its receipt: the command, its entry, and the rows of each view that has it.

import { get, logParts } from './api.js';
import { act } from './dialog.js';
import { badge, code, count, el, empty, facts, heading, inline, link, problem, table, time } from './dom.js';
import { author, status, summary } from './logs.js';

/** Rows that are read of each view. */
const ROWS = 1_000;
/** How long to wait for a view that does not have the entry yet, in milliseconds. */
const WAIT_MS = 2_000;

function step(number, title, ...content) {
  return el('li', { class: 'step' }, el('span', { class: 'step-number', 'aria-hidden': 'true', text: number }), el('div', { class: 'panel' }, el('h2', { text: title }), ...content));
}

async function ofView(host, { view, awaitable }, log, seq) {
  try {
    const query = { limit: ROWS, ...(awaitable ? { seq, wait: WAIT_MS } : {}) };
    const page = await get(['views', view, ...logParts(log)], query);
    if (page.pending || page.parked) {
      const why = page.parked ? `The view is parked at entry ${page.parked.seq}: ${page.parked.reason}` : `The view has reached entry ${page.seq}.`;
      if (page.pending || page.seq < seq) {
        host.append(badge(page.parked ? 'parked' : 'not yet', page.parked ? 'bad' : 'warn'), el('p', { text: why }), page.parked ? el('p', {}, link(['parked'], 'Go to what is parked')) : '');
        return;
      }
    }
    const rows = page.rows.filter((row) => row.seq === seq);
    host.append(badge(awaitable ? 'has it' : 'takes some events only', awaitable ? 'ok' : 'idle'));
    if (rows.length > 0) {
      host.append(table(`Rows of ${view}`, [['Key', 'key'], ['Row', '']], rows.map(({ key, row }) => [el('span', { class: 'mono name', text: key }), inline(row)])));
    } else {
      const among = page.next ? ` Only the first ${count(ROWS)} rows were read.` : '';
      host.append(el('p', { class: 'muted', text: `No row has this entry as its last: it touched none, or a later entry has changed them again.${among}` }));
    }
    host.append(el('p', {}, link(['views', view, log], 'All rows of this log')));
  } catch (error) {
    host.append(problem(error));
  }
}

function render(root, [log = '', text = '']) {
  const seq = Number(text);
  const steps = el('ol', { class: 'steps' });
  root.append(heading(`Entry ${Number.isSafeInteger(seq) ? count(seq) : text}`), el('p', { class: 'mono name' }, link(['logs', log], log)), steps);

  async function load() {
    let entry;
    try {
      entry = await get(['logs', ...logParts(log), text], { wait: WAIT_MS });
    } catch (error) {
      steps.replaceChildren(problem(error));
      return;
    }
    if (entry.pending) {
      steps.replaceChildren(step('1', 'Command', badge('accepted', 'ok'), el('p', { text: 'Its receipt is valid.' })),
        step('2', 'Entry', badge('not yet', 'warn'), el('p', { text: `The log has reached entry ${entry.seq}.` }), el('p', {}, link(['parked'], 'See what is parked'), ' · ', link(['doctor', log], 'Examine the log'))));
      return;
    }
    const neighbours = el('p', { class: 'toolbar' }, seq > 1 && link(['entry', log, String(seq - 1)], '‹ Entry before', { class: 'button' }), link(['entry', log, String(seq + 1)], 'Next entry ›', { class: 'button' }));
    const resend = entry.status === 'faulted' && el('button', {
      type: 'button', text: 'Send again…',
      click: () => act({
        title: 'Send a faulted command again', button: 'Send again', path: ['ops', 'resend'], body: { log, seq },
        text: ['The command gets a new position, with its own id. It counts once, however often you send it. Deploy a build that can decide it first.'],
        done: (done) => `Sent again: ${done.log} ${done.seq}`,
      }),
    });
    const views = el('ul', { class: 'of-views' });
    steps.replaceChildren(
      step('1', 'Command', facts([['Command', entry.command ?? '–'], ['By', author(entry)], ['Id', entry.id ?? '–'], ['Accepted', time(entry.at)], ['Digest of the data', entry.digest && el('span', { class: 'mono', text: entry.digest })]]),
        el('p', { class: 'muted more', text: 'An entry does not have the data of its command.' })),
      step('2', 'Entry', el('p', {}, status(entry), ' ', summary(entry)), entry.events?.length ? code(entry.events) : '', resend ? el('div', { class: 'toolbar' }, resend) : ''),
      step('3', 'Views', views));
    root.append(neighbours);
    try {
      const served = (await get(['views'])).views.filter(({ services }) => services.includes(logParts(log)[0]));
      if (served.length === 0) views.append(el('li', {}, empty('No view takes this service')));
      await Promise.all(served.map((view) => {
        const host = el('li', {}, el('h3', {}, link(['views', view.view], view.view)));
        views.append(host);
        return ofView(host, view, log, seq);
      }));
    } catch (error) {
      views.append(el('li', {}, problem(error)));
    }
  }

  load();
  return {};
}

export default { title: 'Entry', render };
