// Compares what is stored, of one log or of all.

import { get, logParts } from './api.js';
import { badge, count, el, empty, field, hash, heading, link, plural, problem, table } from './dom.js';

/** Logs of a request: few, so that the page shows how far it is. */
const PAGE = 20;
/** Findings that are shown. */
const FINDINGS_MAX = 500;

function findingRow(log, { what, view, detail }) {
  return [link(['logs', log], log, { class: 'mono' }), badge(what, 'bad'), view ?? '–', detail];
}

function findingsTable(rows) {
  return table('Findings', [['Log', ''], ['Finding', 'nowrap'], ['View', ''], ['Detail', '']], rows);
}

function depthChoice() {
  return el('select', {}, el('option', { value: '', text: 'a sample' }), el('option', { value: 'all', text: 'everything' }));
}

function render(root, [log = '']) {
  const name = el('input', { type: 'text', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'ledger/org:acme' });
  name.value = log;
  const depth = depthChoice();
  const one = el('div', { 'aria-live': 'polite' });
  let isGone = false;

  async function examine() {
    one.replaceChildren(el('p', { class: 'muted', text: 'Examining …' }));
    try {
      const found = await get(['ops', 'doctor', ...logParts(name.value.trim())], { depth: depth.value });
      const what = `${plural(found.entries, 'entry', 'entries')} and ${plural(found.rows, 'row', 'rows')} were compared${found.uncompared ? `; ${plural(found.uncompared, 'view has', 'views have')} too many rows` : ''}${found.is_incomplete ? '; the time was over before the end' : ''}.`;
      one.replaceChildren(el('p', {}, found.findings.length > 0 ? badge(plural(found.findings.length, 'finding', 'findings'), 'bad') : badge('fits together', 'ok'), ' ', what),
        found.findings.length > 0 ? findingsTable(found.findings.map((finding) => findingRow(found.log, finding))) : '');
    } catch (error) {
      one.replaceChildren(problem(error));
    }
  }

  const form = el('form', { class: 'toolbar fields', submit: (event) => {
    event.preventDefault();
    if (name.value.trim() === log) examine();
    else location.hash = hash(['doctor', name.value.trim()]);
  } }, field('Log', name), field('Depth', depth), el('button', { type: 'submit', class: 'primary', text: 'Examine' }));

  const depthOfAll = depthChoice();
  const progress = el('p', { role: 'status' });
  const findings = el('div');
  let isRunning = false;
  const start = el('button', { type: 'submit', class: 'primary', text: 'Examine all' });

  async function all() {
    isRunning = true;
    start.textContent = 'Stop';
    const sum = { logs: 0, entries: 0, rows: 0, findings: 0 };
    const rows = [];
    findings.replaceChildren();
    let after;
    let ended = 'stopped';
    try {
      while (isRunning && !isGone) {
        const page = await get(['ops', 'doctor'], { after, limit: PAGE, depth: depthOfAll.value });
        for (const found of page.logs) {
          sum.logs += 1;
          sum.entries += found.entries;
          sum.rows += found.rows;
          sum.findings += found.findings.length;
          rows.push(...found.findings.map((finding) => findingRow(found.log, finding)).slice(0, FINDINGS_MAX - rows.length));
        }
        after = page.next;
        progress.textContent = `${plural(sum.logs, 'log', 'logs')}, ${plural(sum.entries, 'entry', 'entries')}, ${plural(sum.rows, 'row', 'rows')}: ${plural(sum.findings, 'finding', 'findings')}${after ? ' …' : ''}`;
        if (!after) {
          ended = 'done';
          break;
        }
      }
      findings.replaceChildren(rows.length > 0 ? findingsTable(rows) : ended === 'done' ? el('p', {}, badge('everything fits together', 'ok')) : el('p', { text: 'Stopped before the end.' }),
        sum.findings > rows.length ? `The first ${FINDINGS_MAX} findings are shown: \`fanfold doctor\` lists all.` : '');
    } catch (error) {
      findings.replaceChildren(problem(error));
    }
    isRunning = false;
    start.textContent = 'Examine all';
  }

  const allForm = el('form', { class: 'toolbar fields', submit: (event) => {
    event.preventDefault();
    if (isRunning) isRunning = false;
    else all();
  } }, field('Depth', depthOfAll), start);

  root.append(heading('Doctor'), el('p', { class: 'muted', text: 'Reads slots, commits, documents, cursors and rows, and says what does not fit. It changes nothing. The runbook says how to mend each finding.' }),
    el('section', { class: 'panel', 'aria-labelledby': 'one-title' }, el('h2', { id: 'one-title', text: 'One log' }), form, one),
    el('section', { class: 'panel', 'aria-labelledby': 'all-title' }, el('h2', { id: 'all-title', text: 'All logs' }), allForm, progress, findings));
  if (log) examine();
  else one.replaceChildren(empty('Nothing examined yet'));
  return { destroy: () => { isGone = true; } };
}

export default { title: 'Doctor', render };
