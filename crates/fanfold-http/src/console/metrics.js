// Reads OpenMetrics text, and makes rates and percentiles from two samples of counters.

/** Points that charts keep: ten minutes, at one a second. */
export const POINTS_MAX = 600;
/** The time over which rates are taken, in milliseconds. */
const RATE_MS = 5_000;
/** The time over which percentiles are taken, in milliseconds. */
export const PERCENTILE_MS = 30_000;

/** The series of a text, by metric: arrays of `{ labels, value }`. */
export function parse(text) {
  const series = new Map();
  for (const line of text.split('\n')) {
    if (line === '' || line[0] === '#') continue;
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const [, name, inside, value] = found;
    const labels = {};
    for (const [, label, escaped] of (inside ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[label] = escaped.replace(/\\(.)/g, (_, character) => (character === 'n' ? '\n' : character));
    }
    if (!series.has(name)) series.set(name, []);
    series.get(name).push({ labels, value: value === '+Inf' ? Infinity : Number(value) });
  }
  return series;
}

function fits(labels, wanted) {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}

/** The sum of the series with these labels; `undefined` if the host does not have them. */
export function value(series, name, wanted = {}) {
  const found = (series.get(name) ?? []).filter(({ labels }) => fits(labels, wanted));
  return found.length === 0 ? undefined : found.reduce((sum, { value }) => sum + value, 0);
}

/** The values of a label that a metric has. */
export function labels(series, name, label) {
  return [...new Set((series.get(name) ?? []).map(({ labels }) => labels[label]))].filter((value) => value !== undefined);
}

/** How much a counter grew. One that fell began again at 0. */
function growth(before, after) {
  if (after === undefined) return undefined;
  return before === undefined || after < before ? after : after - before;
}

/** The percentile `q` of a histogram's growth, as Prometheus estimates it: `{ seconds, bound }`, where `bound` is `<` or `>` if it is beyond the buckets. */
export function percentile(before, after, name, wanted, q) {
  const buckets = (series) => (series?.get(`${name}_bucket`) ?? [])
    .filter(({ labels }) => fits(labels, wanted))
    .map(({ labels, value }) => ({ le: labels.le === '+Inf' ? Infinity : Number(labels.le), value }))
    .sort((one, other) => one.le - other.le);
  const old = buckets(before);
  const grown = buckets(after).map(({ le, value }, at) => ({ le, n: growth(old[at]?.value, value) }));
  const total = grown.at(-1)?.n ?? 0;
  if (total === 0) return undefined;
  const rank = q * total;
  const at = grown.findIndex(({ n }) => n >= rank);
  const { le, n } = grown[at];
  if (le === Infinity) return { seconds: grown[at - 1]?.le, bound: '>' };
  if (at === 0) return { seconds: le, bound: '<' };
  const { le: lower, n: below } = grown[at - 1];
  return { seconds: lower + ((le - lower) * (rank - below)) / (n - below), bound: '' };
}

/** The samples of the last half minute, and the points of the last ten minutes. */
export class History {
  samples = [];
  points = [];

  /** Takes a sample, made at `at` in milliseconds. `names` are functions that give a point's numbers. */
  add(at, text, point) {
    const series = parse(text);
    const last = this.samples.at(-1);
    if (last && this.isNewProcess(last.series, series)) this.samples = [];
    // A line over a time without samples would show what nothing has measured.
    if (last && at - last.at > 10_000) this.points.push({ at: last.at + 1_000 });
    this.samples.push({ at, series });
    while (this.samples[0].at < at - PERCENTILE_MS - 2_000) this.samples.shift();
    // A rate needs two samples.
    if (this.samples.length > 1) this.points.push({ at, ...point(this) });
    this.points.splice(0, this.points.length - POINTS_MAX);
  }

  isNewProcess(before, after) {
    return value(after, 'fanfold_accept_seconds_count') < value(before, 'fanfold_accept_seconds_count');
  }

  get now() {
    return this.samples.at(-1)?.series ?? new Map();
  }

  /** The sample that is `ms` old, or the oldest after that. */
  before(ms) {
    const last = this.samples.at(-1);
    return this.samples.find(({ at }) => last.at - at <= ms + 500 && at !== last.at) ?? this.samples.at(-2);
  }

  /** How much a counter grew a second; `undefined` before the second sample. */
  rate(name, wanted = {}) {
    const last = this.samples.at(-1);
    const before = last && this.before(RATE_MS);
    if (!before) return undefined;
    const grown = growth(value(before.series, name, wanted), value(last.series, name, wanted));
    return grown === undefined ? undefined : (grown * 1_000) / (last.at - before.at);
  }

  percentile(name, q, wanted = {}) {
    const before = this.samples.length > 1 && this.before(PERCENTILE_MS);
    return before ? percentile(before.series, this.now, name, wanted, q) : undefined;
  }

  value(name, wanted) {
    return value(this.now, name, wanted);
  }

  labels(name, label) {
    return labels(this.now, name, label);
  }
}
