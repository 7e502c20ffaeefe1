// What the samples say of each hop: one place that knows the names of metrics.

import { count } from './dom.js';

/** A lag above this, in seconds, is shown as a warning. Source: our choice; a healthy hop takes milliseconds. */
const LAG_WARN_S = 5;

/** The hops before the views, with the histogram that counts what has passed them. */
const HOPS = [
  { name: 'accept', title: 'Accept', histogram: 'fanfold_accept_seconds', what: 'A request becomes a durable command with its position.' },
  { name: 'relay', title: 'Relay', histogram: 'fanfold_relay_seconds', stage: 'relay', what: 'The command comes onto the command stream.' },
  { name: 'process', title: 'Process', histogram: 'fanfold_decide_seconds', stage: 'process', what: 'The service decides it, and the journal has its entry.' },
  { name: 'publish', title: 'Publish', histogram: 'fanfold_publish_seconds', what: 'The topic has the entry.' },
];

/** The numbers that charts keep of each sample. */
export function point(history) {
  const rates = {};
  const slow = {};
  for (const { name, histogram } of HOPS) {
    rates[name] = history.rate(`${histogram}_count`);
    slow[name] = history.percentile(histogram, 0.99)?.seconds;
  }
  for (const view of history.labels('fanfold_apply_seconds_count', 'view')) {
    rates[`view ${view}`] = history.rate('fanfold_apply_seconds_count', { view });
    slow[`view ${view}`] = history.percentile('fanfold_apply_seconds', 0.99, { view })?.seconds;
  }
  return { rates, slow };
}

/** One series of the points: times in seconds, and values, where a missing one is `null`. */
export function series(history, kind, name) {
  return [history.points.map(({ at }) => at / 1_000), history.points.map((point) => point[kind]?.[name] ?? null)];
}

/** Logs with something that waits for an operator; `undefined` if the host does not say. */
export function waitingCount(history) {
  const commands = history.value('fanfold_waiting_logs');
  const views = history.value('fanfold_view_parked_logs');
  return commands === undefined && views === undefined ? undefined : (commands ?? 0) + (views ?? 0);
}

/** What there is to say of a hop's health, worst first. */
function health({ waiting, errors, lag, rate, backlog }) {
  if (waiting > 0) return ['parked', 'bad'];
  if (errors > 0) return ['errors', 'bad'];
  if (lag > LAG_WARN_S) return ['behind', 'warn'];
  if (rate > 0 || backlog > 0) return ['ok', 'ok'];
  return rate === undefined ? ['…', 'idle'] : ['idle', 'idle'];
}

/** The numbers of each hop. `extra` are further facts, as `[term, text, level]`. */
export function hops(history) {
  return HOPS.map(({ name, title, histogram, stage, what }) => {
    const hop = {
      name, title, what, stage,
      rate: history.rate(`${histogram}_count`),
      total: history.value(`${histogram}_count`),
      p50: history.percentile(histogram, 0.5),
      p99: history.percentile(histogram, 0.99),
      lag: stage && history.value('fanfold_lag_seconds', { stage }),
      backlog: stage && history.value('fanfold_backlog', { stage }),
    };
    return { ...hop, ...EXTRA[name](history, hop) };
  });
}

const fact = (term, number, isBad = number > 0) => [term, count(number), isBad ? 'bad' : ''];

const EXTRA = {
  accept(history, hop) {
    const refused = history.value('fanfold_refused_total') ?? 0;
    const grows = history.rate('fanfold_refused_total') > 0;
    return { health: grows ? ['refuses', 'warn'] : health(hop), extra: [['Refused', count(refused), grows ? 'warn' : '']] };
  },
  relay: (history, hop) => ({ health: health(hop), extra: [fact('Failed sweeps', history.value('fanfold_failed_logs'))] }),
  process(history, hop) {
    // What goes on by itself is parked, too. Only what an operator must look at is bad.
    const unpublished = history.value('fanfold_parked_logs', { reason: 'unpublished' }) ?? 0;
    const waiting = Math.max((history.value('fanfold_waiting_logs') ?? 0) - unpublished, 0);
    const parked = history.labels('fanfold_parked_logs', 'reason').filter((reason) => reason !== 'unpublished')
      .reduce((sum, reason) => sum + history.value('fanfold_parked_logs', { reason }), 0);
    const faulted = (history.value('fanfold_outcomes_total', { outcome: 'faulted' }) ?? 0) + (history.value('fanfold_outcomes_total', { outcome: 'lost' }) ?? 0);
    return {
      health: health({ ...hop, waiting, errors: history.rate('fanfold_outcomes_total', { outcome: 'faulted' }) }),
      extra: [fact('Faulted, lost', faulted), fact('Parked logs', parked, waiting > 0)],
    };
  },
  publish(history, hop) {
    const waiting = history.value('fanfold_parked_logs', { reason: 'unpublished' });
    return { health: health({ ...hop, waiting }), extra: [fact('Unpublished logs', waiting)] };
  },
};

/** The numbers of each view. */
export function viewFigures(history) {
  return history.labels('fanfold_apply_seconds_count', 'view').concat(
    history.labels('fanfold_view_backlog', 'view')).filter((view, at, all) => all.indexOf(view) === at).sort()
    .map((view) => {
      const deliveries = (outcome) => history.value('fanfold_deliveries_total', { view, outcome });
      const figures = {
        view,
        rate: history.rate('fanfold_apply_seconds_count', { view }),
        p50: history.percentile('fanfold_apply_seconds', 0.5, { view }),
        p99: history.percentile('fanfold_apply_seconds', 0.99, { view }),
        lag: history.value('fanfold_view_lag_seconds', { view }),
        backlog: history.value('fanfold_view_backlog', { view }),
        parked: history.value('fanfold_view_parked_logs', { view }),
        retried: deliveries('retried'),
        dead: deliveries('dead'),
        lost: deliveries('lost'),
        walks: history.value('fanfold_view_walks_total', { view }),
        walked: history.value('fanfold_view_walk_logs', { view }),
      };
      return { ...figures, health: health({ ...figures, waiting: figures.parked }) };
    });
}
