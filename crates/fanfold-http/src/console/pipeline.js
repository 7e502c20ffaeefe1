// The path of a command, hop by hop.

import { badge, count, el, facts, heading, link, plural, rate, span } from './dom.js';
import { lines, sparkline } from './chart.js';
import { hops, series, viewFigures, waitingCount } from './figures.js';

/** A percentile, which is an estimate from buckets. */
export function estimate(percentile) {
  if (!percentile) return '–';
  const sign = { '<': '≤ ', '>': '> ', '': '' }[percentile.bound];
  return sign + span(percentile.seconds);
}

const alarming = (text, level) => (level ? el('span', { class: `level ${level}` }, text) : text);
const late = (seconds) => (seconds > 5 ? 'warn' : '');

function card(title, props) {
  const parts = { badge: el('span'), rate: el('p', { class: 'rate' }), facts: el('div'), spark: sparkline() };
  const host = el('li', { class: 'hop', ...props }, el('div', { class: 'hop-head' }, el('h2', {}, title), parts.badge), parts.rate, parts.spark.host, parts.facts);
  return { host, parts };
}

function fill(parts, figures, pairs, [xs, ys]) {
  parts.badge.replaceChildren(badge(...figures.health));
  parts.rate.replaceChildren(el('strong', { text: rate(figures.rate) }), ' /s');
  parts.facts.replaceChildren(facts(pairs, 'pairs'));
  parts.spark.set(xs, ys);
}

function render(root, _, history) {
  const tiles = el('div', { class: 'tiles' });
  const hopList = el('ol', { class: 'hops', 'aria-label': 'Hops of a command' });
  const fan = el('ul', { 'aria-label': 'Views' });
  const charts = el('div', { class: 'charts' });
  const names = ['Accept', 'Process', 'Slowest view'];
  const throughput = lines({ title: 'Commands a second', lines: ['Accepted', 'Decided', 'Slowest view'], unit: rate, least: 10 });
  const latency = lines({ title: 'Latency, 99th percentile', lines: names, unit: span, least: 0.01 });
  charts.append(throughput.host, latency.host);
  root.append(heading('Pipeline'), tiles, el('div', { class: 'flow' }, hopList, el('div', { class: 'fan' }, el('h2', { class: 'fan-title', text: 'Views' }), fan), charts),
    el('p', { class: 'muted note', text: 'Rates are of the last 5 s. Percentiles are of the last 30 s, estimated from buckets. Latencies count from the acceptance of a command until the hop is done; that of Accept counts from the request.' }));
  const cards = new Map();
  const of = (key, list, title, props) => {
    if (!cards.has(key)) {
      cards.set(key, card(title(), props));
      list.append(cards.get(key).host);
    }
    return cards.get(key).parts;
  };

  function update(now) {
    const all = hops(now);
    const views = viewFigures(now);
    showTiles(tiles, now, all, views);
    for (const hop of all) {
      const parts = of(hop.name, hopList, () => hop.title, { title: hop.what });
      const queue = hop.stage ? [['Lag', alarming(span(hop.lag), late(hop.lag))], ['Backlog', plural(hop.backlog, 'batch', 'batches')]] : [];
      fill(parts, hop, [['p50', estimate(hop.p50)], ['p99', estimate(hop.p99)], ...queue, ...hop.extra.map(([term, text, level]) => [term, alarming(text, level)])], series(now, 'rates', hop.name));
    }
    for (const view of views) {
      const parts = of(`view ${view.view}`, fan, () => link(['views', view.view], view.view), { class: 'hop view' });
      const failed = (view.dead ?? 0) + (view.lost ?? 0);
      fill(parts, view, [
        ['p99', estimate(view.p99)], ['Lag', alarming(span(view.lag), late(view.lag))], ['Backlog', count(view.backlog)],
        ['Parked logs', alarming(count(view.parked), view.parked > 0 && 'bad')], ['Retried', count(view.retried)], ['Dead, lost', alarming(count(failed), failed > 0 && 'bad')],
      ], series(now, 'rates', `view ${view.view}`));
    }
    for (const [key, { host, parts }] of cards) {
      if (key.startsWith('view ') && !views.some(({ view }) => key === `view ${view}`)) {
        parts.spark.destroy();
        host.remove();
        cards.delete(key);
      }
    }
    const [xs] = series(now, 'rates', 'accept');
    const worst = (kind, pick) => now.points.map((point) => {
      const values = Object.entries(point[kind] ?? {}).filter(([name, value]) => name.startsWith('view ') && value !== undefined).map(([, value]) => value);
      return values.length > 0 ? pick(...values) : null;
    });
    const line = (kind, name) => series(now, kind, name)[1];
    throughput.set(xs, [line('rates', 'accept'), line('rates', 'process'), worst('rates', Math.min)]);
    latency.set(xs, [line('slow', 'accept'), line('slow', 'process'), worst('slow', Math.max)]);
  }

  return {
    update,
    destroy() {
      cards.forEach(({ parts }) => parts.spark.destroy());
      throughput.destroy();
      latency.destroy();
    },
  };
}

function showTiles(tiles, history, all, views) {
  const accept = all.find(({ name }) => name === 'accept');
  const lags = [...all, ...views].map(({ lag }) => lag).filter((lag) => lag !== undefined);
  const oldest = lags.length > 0 ? Math.max(...lags) : undefined;
  const standstill = history.value('fanfold_standstill_seconds');
  const waiting = waitingCount(history);
  const slowest = views.map(({ p99 }) => p99).filter(Boolean).sort((one, other) => other.seconds - one.seconds)[0];
  const tile = (term, value, unit, level) => el('div', { class: `tile ${level || ''}` }, el('dt', { text: term }), el('dd', {}, el('strong', { text: value }), unit && ` ${unit}`));
  tiles.replaceChildren(el('dl', {},
    tile('Accepted', rate(accept?.rate), 'commands/s'),
    tile('Slowest view, p99', estimate(slowest)),
    tile('Oldest that waits', span(oldest), '', oldest > 5 && 'warn'),
    tile('Longest standstill', span(standstill), '', standstill > 60 && 'warn'),
    tile('Parked logs', count(waiting), '', waiting > 0 && 'bad')));
}

export default { title: 'Pipeline', render };
