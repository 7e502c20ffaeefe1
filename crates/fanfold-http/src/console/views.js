// The views, and the rows of one in one log.

import { get, logParts } from './api.js';
import { badge, count, el, empty, facts, field, hash, heading, inline, link, plural, problem, rate, span, table, time } from './dom.js';
import { viewFigures } from './figures.js';
import { estimate } from './pipeline.js';

const PAGE = 50;

/** How far the view's first walk over all logs is. */
function rebuilt(figures) {
  if (figures?.walks === undefined) return '–';
  return figures.walks > 0 ? badge('complete', 'ok') : badge(`${count(figures.walked)} logs so far`, 'warn');
}

function listed(root) {
  const shown = el('div');
  root.append(heading('Views'), shown, el('p', { class: 'muted note', text: 'Old entries: after its first walk over all logs, a new view has the entries from before it was there.' }));
  let views;
  let timer;
  function update(history) {
    if (!views || !history) return;
    const focused = document.activeElement?.closest('.views') && document.activeElement.getAttribute('href');
    const all = viewFigures(history);
    const columns = [['View', ''], ['State', ''], ['Version', 'number'], ['Services', ''], ['Entries/s', 'number'], ['p99', 'number'], ['Lag', 'number'], ['Backlog', 'number'], ['Parked logs', 'number'], ['Old entries', '']];
    shown.replaceChildren(views.length > 0 ? table('Views', columns, views.map((view) => {
      const of = all.find((figures) => figures.view === view.view);
      return [link(['views', view.view], view.view, { class: 'mono' }), of ? badge(...of.health) : badge('of another app', 'idle'), count(view.version), view.services.join(', '),
        rate(of?.rate), estimate(of?.p99), span(of?.lag), count(of?.backlog), of?.parked > 0 ? link(['parked'], count(of.parked), { class: 'level bad' }) : count(of?.parked), rebuilt(of)];
    })) : empty('No view is served', 'A view announces itself when its app starts.'));
    if (focused) [...shown.querySelectorAll('a')].find((anchor) => anchor.getAttribute('href') === focused)?.focus();
  }
  const load = () => get(['views']).then(({ views: got }) => { views = got; }, (error) => shown.replaceChildren(problem(error)));
  load();
  timer = setInterval(() => document.visibilityState === 'visible' && load(), 10_000);
  return { update, destroy: () => clearInterval(timer) };
}

function one(root, name, log) {
  const about = el('div', { class: 'panel' });
  const numbers = el('div');
  root.append(el('p', { class: 'back' }, link(['views'], '‹ All views')), heading(name), about);
  get(['views']).then(({ views }) => {
    const view = views.find((served) => served.view === name);
    if (!view) return about.replaceChildren(empty('There is no such view'));
    return about.replaceChildren(facts([['Version', count(view.version)], ['Services', view.services.join(', ')], ['Since', view.since === null ? '–' : time(view.since)], ['Table', view.table && el('span', { class: 'mono', text: view.table })],
      ['Can be waited for', view.awaitable ? 'yes' : 'no: it takes only some events'], ['Events', view.events.join(', ')]]), numbers);
  }, (error) => about.replaceChildren(problem(error)));
  root.append(rowsOf(name, log));
  return {
    update(history) {
      const of = viewFigures(history).find((figures) => figures.view === name);
      numbers.replaceChildren(of ? facts([['State', badge(...of.health)], ['Entries/s', rate(of.rate)], ['p50', estimate(of.p50)], ['p99', estimate(of.p99)], ['Lag', span(of.lag)], ['Backlog', plural(of.backlog, 'notification', 'notifications')],
        ['Parked logs', count(of.parked)], ['Retried', count(of.retried)], ['Dead', count(of.dead)], ['Lost', count(of.lost)], ['Old entries', rebuilt(of)]]) : el('p', { class: 'muted', text: 'This host has no metrics of it: another app hosts it.' }));
    },
  };
}

/** The rows of a view in a log, paged. */
function rowsOf(view, log) {
  const text = (value, more) => {
    const input = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...more });
    input.value = value;
    return input;
  };
  const name = text(log ?? '', { required: true, placeholder: 'ledger/org:acme', list: 'known-logs' });
  const known = el('datalist', { id: 'known-logs' });
  const prefix = text('', {});
  const order = el('select', {}, el('option', { value: 'asc', text: 'ascending' }), el('option', { value: 'desc', text: 'descending' }));
  const shown = el('div', { 'aria-live': 'polite' });
  get(['logs'], { limit: 50 }).then(({ logs }) => known.append(...logs.map(({ log: of }) => el('option', { value: of }))), () => {});

  async function load(after) {
    try {
      const page = await get(['views', view, ...logParts(name.value.trim())], { prefix: prefix.value, order: order.value, after, limit: PAGE });
      const parked = page.parked && el('div', { class: 'problem' }, el('p', { class: 'strong', text: `Parked at entry ${page.parked.seq}` }), el('p', { text: page.parked.reason }), el('p', {}, link(['parked'], 'Go to what is parked')));
      const rows = page.rows.map(({ key, seq, row }) => [el('span', { class: 'mono name', text: key }), link(['entry', page.log, String(seq)], count(seq)), inline(row)]);
      shown.replaceChildren(...[parked, el('p', { class: 'muted above', text: `Version ${page.version}, all entries up to ${count(page.seq)}` }),
        rows.length > 0 ? table('Rows', [['Key', 'key'], ['Last entry', 'number'], ['Row', '']], rows) : empty('There are no rows here'),
        el('div', { class: 'toolbar' }, after && el('button', { type: 'button', text: 'First page', click: () => load() }), page.next && el('button', { type: 'button', text: 'Next page', click: () => load(page.next) }))].filter(Boolean));
    } catch (error) {
      shown.replaceChildren(problem(error));
    }
  }

  const form = el('form', { class: 'toolbar fields', submit: (event) => {
    event.preventDefault();
    if (name.value.trim() === log) load();
    else location.hash = hash(['views', view, name.value.trim()]);
  } }, field('Log', name), field('Keys that begin with', prefix), field('Order', order), el('button', { type: 'submit', class: 'primary', text: 'Show rows' }));
  if (log) load();
  return el('section', { 'aria-labelledby': 'rows-title' }, el('h2', { id: 'rows-title', text: 'Rows' }), form, known, shown);
}

export default { title: 'Views', render: (root, [name, log]) => (name ? one(root, name, log) : listed(root)) };
