// Breaks the host on purpose: only an `up` that was started with `--chaos` lets a page do that.

import { get, post } from './api.js';
import { announce, count, el, empty, field, heading, link, problem, table } from './dom.js';

const REFRESH_MS = 1_000;

const PORTS = [['stream', 'the command stream'], ['journal', 'the journal'], ['state', 'heads and documents'], ['topic', 'the topic']];
const STAGES = [['relay', 'relay'], ['process', 'process']];
/** Each fault with what it does, and whether it is at a port, at a stage, or has its own place. */
const FAULTS = [
  ['fail', 'a port does not answer', 'port'],
  ['kill', 'invocations of a stage panic', 'stage'],
  ['delay', 'invocations of a stage begin late', 'stage'],
  ['hold', 'records come when the fault ends, out of their order'],
  ['damage', 'records that no build can read'],
  ['refuse', 'the topic refuses commits for good'],
];

const options = (pairs) => pairs.map(([value, text]) => el('option', { value, text }));
const number = (props) => el('input', { type: 'number', step: '1', ...props });
const text = (value) => value.trim() || undefined;
const whole = (control) => (control.value === '' ? undefined : Number(control.value));

function render(root) {
  const shown = el('div');
  root.append(heading('Chaos'), shown);
  let stages = STAGES;
  let before = '';
  let isGone = false;

  const fault = el('select', { change: () => choose() }, FAULTS.map(([value, what]) => el('option', { value, text: `${value}: ${what}` })));
  const at = el('select');
  const delay = number({ min: '1', max: '30000', value: '500', required: true });
  const log = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', placeholder: 'all' });
  const shard = el('select', {}, options([['', 'all']]));
  const times = number({ min: '1', placeholder: 'all' });
  const lasts = number({ min: '1', max: '600', value: '10', required: true });
  const places = field('At', at);
  const late = field('Late by, ms', delay);
  const failed = el('div');
  const list = el('div');

  function choose() {
    const [, , kind] = FAULTS.find(([name]) => name === fault.value);
    at.replaceChildren(...options(kind === 'port' ? PORTS : stages));
    places.hidden = !kind;
    late.hidden = fault.value !== 'delay';
    delay.disabled = late.hidden;
  }

  async function change(path, body, done) {
    failed.replaceChildren();
    try {
      announce(done(await post(['ops', 'chaos', ...path], body)));
    } catch (error) {
      failed.replaceChildren(problem(error));
    }
    load();
  }

  const form = el('form', { class: 'toolbar fields', submit: (event) => {
    event.preventDefault();
    change([], {
      fault: fault.value, at: places.hidden ? undefined : at.value, delay_ms: late.hidden ? undefined : whole(delay),
      log: text(log.value), shard: text(shard.value), times: whole(times), for_ms: whole(lasts) * 1_000,
    }, (planted) => `Broken: ${planted.fault} ${planted.at ?? ''}`);
  } }, field('Fault', fault), places, late, field('Only the log', log), field('Only the shard', shard), field('Only so many calls', times), field('For seconds', lasts),
  el('button', { type: 'submit', class: 'danger', text: 'Break it' }));
  const page = [
    el('p', { class: 'muted' }, 'For development. Each fault ends by itself. Clients, readers and operators are not cut off. ', link(['pipeline'], 'See the pipeline heal')),
    form, failed, list,
  ];
  choose();

  async function load() {
    let faults;
    try {
      ({ faults } = await get(['ops', 'chaos']));
    } catch (error) {
      before = '';
      shown.replaceChildren(error.status === 404 ? empty('This host cannot be broken on purpose', 'A host for development is started with ', el('code', { text: 'fanfold up --chaos' }), '.') : problem(error));
      return;
    }
    if (isGone) return;
    if (!form.isConnected) shown.replaceChildren(...page);
    const now = JSON.stringify(faults);
    if (now === before) return;
    before = now;
    const rows = faults.map(({ id, fault: name, at: place, delay_ms: ms, log: only, shard: part, times: calls, met, until }) => [
      el('strong', { text: name }), place ? `${place}${ms ? ` by ${count(ms)} ms` : ''}` : '–', el('span', { class: 'mono', text: only ?? part ?? 'all logs' }),
      `${count(met)}${calls ? ` of ${count(calls)}` : ''}`, new Date(until).toLocaleTimeString(),
      el('button', { type: 'button', text: 'Heal', 'aria-label': `Heal fault ${id}`, click: () => change(['heal'], { id }, () => `Fault ${id} has ended`) }),
    ]);
    list.replaceChildren(rows.length === 0 ? empty('Nothing is broken') : table('Faults', [['Fault', ''], ['At', ''], ['For', ''], ['Calls broken', 'number'], ['Until', ''], ['', 'right']], rows));
  }

  async function choices() {
    try {
      const [{ views }, { shards }] = await Promise.all([get(['views']), get(['ops', 'shards'])]);
      stages = [...STAGES, ...views.map(({ view }) => [`view:${view}`, `the view ${view}`])];
      shard.replaceChildren(...options([['', 'all'], ...shards.filter(({ state }) => state === 'open').map(({ id }) => [id, id])]));
      choose();
    } catch (error) {
      failed.replaceChildren(problem(error));
    }
  }

  load().then(() => form.isConnected && choices());
  const timer = setInterval(() => document.visibilityState === 'visible' && load(), REFRESH_MS);
  return {
    destroy() {
      isGone = true;
      clearInterval(timer);
    },
  };
}

export default { title: 'Chaos', render };
