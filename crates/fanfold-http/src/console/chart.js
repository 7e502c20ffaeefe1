// Charts by uPlot, which `index.html` has loaded. Their colours are those of the page.

import { el } from './dom.js';

/** Dashes of the lines of a chart, so that they differ by more than their colours. */
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [12, 4]];

/** A colour of the style, as it is in the chosen theme. */
function colour(name) {
  const probe = el('span', { hidden: true });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

class Chart {
  constructor(host, make) {
    this.host = host;
    this.make = make;
    this.data = undefined;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(host);
    this.redraw = () => {
      this.drop();
      this.draw();
    };
    addEventListener('fanfold-theme', this.redraw);
  }

  resize() {
    const width = this.host.clientWidth;
    if (this.plot && width > 0) this.plot.setSize({ width, height: this.plot.height });
    else this.draw();
  }

  set(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.draw();
  }

  draw() {
    const width = this.host.clientWidth;
    if (this.plot || !this.data || width === 0) return;
    this.plot = new uPlot(this.make(width), this.data, this.host);
  }

  drop() {
    this.plot?.destroy();
    this.plot = undefined;
  }

  destroy() {
    this.observer.disconnect();
    removeEventListener('fanfold-theme', this.redraw);
    this.drop();
  }
}

/** The range of an axis from 0. There is some room below, so that a flat line at 0 is seen. */
function fromZero(least) {
  return (_, __, most) => {
    const top = Math.max((most ?? 0) * 1.15, least);
    return [-0.03 * top, top];
  };
}

/** The range of times: a minute at least, so that the first samples do not fill the whole width. */
function aMinute(chart, least, most) {
  if (chart.data[0].length === 0) return [Date.now() / 1_000 - 60, Date.now() / 1_000];
  return [Math.min(least, most - 60), most];
}

/** Steps between times on an axis, in seconds. */
const TIME_STEPS = [5, 10, 15, 30, 60, 120, 300, 600];

/** A line without axes. The text beside it has its numbers, so it is hidden from screen readers. */
export function sparkline(kind = 'spark') {
  const host = el('div', { class: kind, 'aria-hidden': 'true' });
  const chart = new Chart(host, (width) => ({
    width,
    height: host.clientHeight || 36,
    padding: [2, 0, 0, 0],
    cursor: { show: false },
    legend: { show: false },
    axes: [{ show: false }, { show: false }],
    scales: { x: { time: false, range: aMinute }, y: { range: fromZero(1) } },
    series: [{}, { stroke: colour('accent'), fill: colour('accent-soft'), width: 1.5, points: { show: false } }],
  }));
  return { host, set: (xs, ys) => chart.set([xs, ys]), destroy: () => chart.destroy() };
}

/** A chart with axes and a legend. `lines` are names; `unit` writes a value; `least` is the smallest top of its axis. */
export function lines({ title, lines: names, unit, least }) {
  const host = el('div', { class: 'plot' });
  const legend = el('ul', { class: 'legend' });
  const values = names.map((name, at) => {
    const number = el('span', { class: 'number', text: '–' });
    legend.append(el('li', {}, el('span', { class: `swatch line${at % DASHES.length}`, 'aria-hidden': 'true' }), el('span', { text: name }), number));
    return number;
  });
  const figure = el('figure', { class: 'panel chart' }, el('figcaption', {}, el('h2', { text: title }), legend), host);
  const tick = () => ({ stroke: colour('muted'), font: '11px system-ui, sans-serif', grid: { stroke: colour('line'), width: 1 }, ticks: { show: false } });
  const chart = new Chart(host, (width) => ({
    width,
    height: 190,
    padding: [8, 8, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { show: false },
    axes: [
      { ...tick(), size: 26, space: 70, incrs: TIME_STEPS, values: (_, ticks) => ticks.map((at) => new Date(at * 1_000).toLocaleTimeString('en-GB')) },
      { ...tick(), size: 58, space: 36, values: (_, ticks) => ticks.map((tick) => (tick < 0 ? '' : unit(tick))) },
    ],
    scales: { x: { range: aMinute }, y: { range: fromZero(least) } },
    series: [{}, ...names.map((_, at) => ({
      stroke: colour(`line${at % DASHES.length}`), width: 1.75, dash: DASHES[at % DASHES.length], points: { show: false }, spanGaps: false,
    }))],
  }));
  host.setAttribute('role', 'img');
  return {
    host: figure,
    set(xs, all) {
      chart.set([xs, ...all]);
      const shown = all.map((ys, at) => {
        const last = ys.at(-1);
        values[at].textContent = last === null || last === undefined ? '–' : unit(last);
        return `${names[at]} ${values[at].textContent}`;
      });
      host.setAttribute('aria-label', `${title}: now ${shown.join(', ')}`);
    },
    destroy: () => chart.destroy(),
  };
}
