// What the console computes from `/metrics`.

import assert from 'node:assert/strict';
import test from 'node:test';

const { History, POINTS_MAX, parse, percentile, value } = await import('../../crates/fanfold-http/src/console/metrics.js');

const histogram = (counts, name = 'a_seconds') =>
  ['0.001', '0.01', '0.1', '+Inf'].map((le, at) => `${name}_bucket{le="${le}",view="v"} ${counts[at]}\n`).join('') + `${name}_count{view="v"} ${counts.at(-1)}\n`;

test('labels are read with their escapes', () => {
  const series = parse('# HELP a A.\na_total{of="one \\"quoted\\", \\\\ and }",b="x"} 2\na_total{of="\\n",b="y"} 3.5\nb +Inf\n# EOF\n');
  assert.deepEqual(series.get('a_total'), [
    { labels: { of: 'one "quoted", \\ and }', b: 'x' }, value: 2 },
    { labels: { of: '\n', b: 'y' }, value: 3.5 },
  ]);
  assert.equal(value(series, 'a_total'), 5.5);
  assert.equal(value(series, 'a_total', { b: 'y' }), 3.5);
  assert.equal(value(series, 'b'), Infinity);
  assert.equal(value(series, 'c'), undefined, 'a metric that is not there has no value');
});

test('percentiles are of what was added, and say when they are beyond the buckets', () => {
  const before = parse(histogram([5, 5, 5, 5]));
  const p = (counts, q) => percentile(before, parse(histogram(counts)), 'a_seconds', { view: 'v' }, q);
  assert.equal(p([5, 5, 5, 5], 0.5), undefined, 'nothing was added');
  assert.deepEqual(p([15, 15, 15, 15], 0.99), { seconds: 0.001, bound: '<' });
  assert.deepEqual(p([5, 5, 5, 15], 0.5), { seconds: 0.1, bound: '>' });
  const between = p([5, 15, 15, 15], 0.5);
  assert.equal(between.bound, '');
  assert.ok(Math.abs(between.seconds - 0.0055) < 1e-9, String(between.seconds));
  assert.equal(percentile(before, parse(''), 'a_seconds', {}, 0.5), undefined);
});

test('rates are of the last five seconds', () => {
  const history = new History();
  for (let second = 0; second <= 20; second += 1) {
    history.add(second * 1_000, `a_total ${second <= 15 ? 10 * second : 150 + 100 * (second - 15)}\n`, () => ({}));
  }
  assert.equal(history.rate('a_total'), 100);
  assert.equal(history.rate('b_total'), undefined);
});

test('a host that has started again does not make a rate negative', () => {
  const history = new History();
  const text = (n) => `fanfold_accept_seconds_count ${n}\n`;
  history.add(0, text(1_000), () => ({}));
  history.add(1_000, text(1_010), () => ({}));
  assert.equal(history.rate('fanfold_accept_seconds_count'), 10);
  history.add(2_000, text(3), () => ({}));
  assert.equal(history.rate('fanfold_accept_seconds_count'), undefined, 'the first sample of a process has no rate');
  history.add(3_000, text(8), () => ({}));
  assert.equal(history.rate('fanfold_accept_seconds_count'), 5);
});

test('what is kept is bounded', () => {
  const history = new History();
  for (let second = 0; second < 2 * POINTS_MAX; second += 1) history.add(second * 1_000, 'a 1\n', () => ({ rates: {} }));
  assert.equal(history.points.length, POINTS_MAX);
  assert.ok(history.samples.length < 40, String(history.samples.length));
});

test('a time without samples is a gap', () => {
  const history = new History();
  for (const at of [0, 1_000, 60_000, 61_000]) history.add(at, 'a 1\n', () => ({ rates: {} }));
  assert.deepEqual(history.points.map(({ at, rates }) => [at, rates !== undefined]), [[1_000, true], [2_000, false], [61_000, true]]);
});
