// The shards of the command stream: `up` alone has them.

import { get } from './api.js';
import { act } from './dialog.js';
import { badge, count, el, heading, problem, table } from './dom.js';

const REFRESH_MS = 2_000;

const first = (shard) => BigInt(shard.range.start);
const short = (id) => id.replace(/^shardId-0*(?=\d)/, '');
const done = ({ shards }) => `Done: ${shards.map(({ id }) => id).join(', ')}`;

function split(shard) {
  return act({
    title: 'Split a shard',
    text: [`${shard.id} is closed, and two new shards take half of its hash keys each. Its backlog is processed first, so the order of each log stays.`],
    name: shard.id, button: 'Split', path: ['ops', 'shards', 'split'], body: { shard: shard.id }, done,
  });
}

function merge(shard, next) {
  return act({
    title: 'Merge two shards',
    text: [`${shard.id} and ${next.id} are closed, and one new shard takes their hash keys.`],
    name: shard.id, button: 'Merge', path: ['ops', 'shards', 'merge'], body: { shards: [shard.id, next.id] }, done,
  });
}

function render(root) {
  const shown = el('div');
  let before = '';
  root.append(heading('Shards'), shown,
    el('p', { class: 'muted note', text: 'Each open shard is processed in parallel. A log stays on one shard, by the hash of its name. More shards use more cores; they do not make one log faster.' }));

  async function load() {
    let shards;
    try {
      ({ shards } = await get(['ops', 'shards']));
    } catch (error) {
      before = '';
      shown.replaceChildren(error.status === 404 ? el('div', { class: 'empty' }, el('p', { class: 'strong', text: 'This host has no shards of its own' }), el('p', { text: 'On AWS they are those of the Kinesis stream.' })) : problem(error));
      return;
    }
    // Elements stay while nothing has changed, so that the focus does.
    const text = JSON.stringify(shards);
    if (text === before) return;
    before = text;
    shards.sort((one, other) => (first(one) < first(other) ? -1 : first(one) > first(other) ? 1 : 0));
    const open = shards.filter(({ state }) => state === 'open');
    const bar = el('div', { class: 'keyspace', 'aria-hidden': 'true' }, open.map((shard) => {
      const part = el('div', { title: `${shard.id}: ${shard.percent} % of the hash keys` }, el('span', { text: short(shard.id) }));
      part.style.flexGrow = String(Math.max(shard.percent, 0.5));
      return part;
    }));
    const rows = shards.map((shard) => {
      const isOpen = shard.state === 'open';
      const next = isOpen && open.find((other) => first(other) === BigInt(shard.range.end) + 1n);
      return [
        el('span', { class: 'mono', text: shard.id }),
        badge(isOpen ? 'open' : 'closed, drains', isOpen ? 'ok' : 'idle'),
        `${shard.percent} %`,
        count(shard.backlog),
        shard.parents.length > 0 ? el('span', { class: 'mono', text: shard.parents.map(short).join(', ') }) : '–',
        isOpen && el('div', { class: 'actions' },
          el('button', { type: 'button', text: 'Split…', 'aria-label': `Split ${shard.id}`, click: async () => (await split(shard)) && load() }),
          next && el('button', { type: 'button', text: 'Merge with next…', 'aria-label': `Merge ${shard.id} with ${next.id}`, click: async () => (await merge(shard, next)) && load() })),
      ];
    });
    shown.replaceChildren(el('div', { class: 'panel' }, el('h2', { text: `${open.length} open shards` }), el('p', { class: 'muted', text: 'Their parts of the hash keys:' }), bar),
      table('Shards', [['Shard', ''], ['State', ''], ['Hash keys', 'number'], ['Backlog, records', 'number'], ['Parents', ''], ['Actions', 'right']], rows));
  }

  load();
  const timer = setInterval(() => document.visibilityState === 'visible' && !document.querySelector('dialog[open]') && load(), REFRESH_MS);
  return { destroy: () => clearInterval(timer) };
}

export default { title: 'Shards', render };
