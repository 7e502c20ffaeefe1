// What the host uses, as far as its metrics say.

import { badge, bytes, count, el, empty, facts, heading, rate } from './dom.js';
import { lines } from './chart.js';
import { series } from './figures.js';

const OUTCOMES = ['accepted', 'rejected', 'duplicate', 'stale', 'faulted', 'lost'];

/** Pairs in lines, for narrow panels. */
const list = (pairs) => facts(pairs, 'pairs');

function percent(part, whole) {
  return whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : '–';
}

function of(used, most, write) {
  if (used === undefined) return undefined;
  const meter = el('meter', { min: '0', max: String(most), value: String(used), 'aria-hidden': 'true' });
  return el('span', {}, `${write(used)} of ${write(most)} `, meter);
}

function units(history) {
  const reads = history.value('fanfold_read_units_total');
  const writes = history.value('fanfold_write_units_total');
  if (reads === undefined && writes === undefined) {
    return empty('Not measured on this host',
      'Read and write units of DynamoDB, and what AWS bills, do not exist here: the host keeps everything on this machine. On AWS, CloudWatch has them in the namespace Fanfold, and docs/costs.md has the prices.');
  }
  const decided = history.rate('fanfold_decide_seconds_count');
  const each = (name) => (decided > 0 ? rate(history.rate(name) / decided) : '–');
  return list([['Write units', count(writes)], ['Write units a command', each('fanfold_write_units_total')], ['Read units', count(reads)], ['Read units a command', each('fanfold_read_units_total')]]);
}

function render(root) {
  const chart = lines({ title: 'Commands a second', lines: ['Accepted', 'Decided'], unit: rate, least: 10 });
  const commands = el('div');
  const disk = el('div');
  const host = el('div');
  const aws = el('div');
  const panel = (title, content) => el('section', { class: 'panel' }, el('h2', { text: title }), content);
  root.append(heading('Cost'), chart.host, el('div', { class: 'grid' }, panel('Commands since the start', commands), panel('Disk', disk), panel('Connections and memory', host), panel('Units of AWS', aws)));
  return {
    update(history) {
      const [xs, accepted] = series(history, 'rates', 'accept');
      chart.set(xs, [accepted, series(history, 'rates', 'process')[1]]);
      const outcomes = OUTCOMES.map((outcome) => [outcome, history.value('fanfold_outcomes_total', { outcome })]);
      const all = outcomes.reduce((sum, [, number]) => sum + (number ?? 0), 0);
      const hits = history.value('fanfold_cache_lookups_total', { result: 'hit' });
      const misses = history.value('fanfold_cache_lookups_total', { result: 'miss' });
      commands.replaceChildren(list([...outcomes.map(([outcome, number]) => [outcome, `${count(number)} (${percent(number, all)})`]), ['Logs found in the cache', hits === undefined ? '–' : percent(hits, hits + misses)]]));
      const syncs = history.value('fanfold_syncs_total');
      const grouped = history.rate('fanfold_accept_seconds_count') / history.rate('fanfold_syncs_total');
      disk.replaceChildren(syncs === undefined ? empty('Nothing is stored', 'This host keeps everything in memory.') : list([['Syncs', `${count(syncs)} (${rate(history.rate('fanfold_syncs_total'))} /s)`],
        ['Commands a sync', rate(grouped)], ['Command log', bytes(history.value('fanfold_command_log_bytes'))], ['Not in a checkpoint yet', bytes(history.value('fanfold_unsaved_bytes'))], ['Checkpoints', count(history.value('fanfold_checkpoints_total'))]]));
      host.replaceChildren(list([['Connections', of(history.value('fanfold_http_connections'), history.value('fanfold_http_connections_limit'), count)],
        ['Long bodies', of(history.value('fanfold_http_body_bytes'), history.value('fanfold_http_body_limit_bytes'), bytes)],
        ['Requests', `${count(history.value('fanfold_http_requests_total'))} (${rate(history.rate('fanfold_http_requests_total'))} /s)`],
        ['Refused commands', history.value('fanfold_refused_total') > 0 ? badge(count(history.value('fanfold_refused_total')), 'warn') : '0']]));
      aws.replaceChildren(units(history));
    },
    destroy: () => chart.destroy(),
  };
}

export default { title: 'Cost', render };
