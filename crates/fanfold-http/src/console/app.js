// The page: its screens, keys, search and colours, and the samples of `/metrics` that screens share.

import { metrics } from './api.js';
import { badge, count, el, hash, problem } from './dom.js';
import { show } from './dialog.js';
import { History } from './metrics.js';
import { point, waitingCount } from './figures.js';
import chaos from './chaos.js';
import cost from './cost.js';
import doctor from './doctor.js';
import entry from './entry.js';
import logs from './logs.js';
import parked from './parked.js';
import pipeline from './pipeline.js';
import shards from './shards.js';
import views from './views.js';

/** The screens with their keys, in the order of the menu. `entry` is reached from others. */
const SCREENS = [
  ['pipeline', 'p', pipeline], ['shards', 's', shards], ['logs', 'l', logs], ['views', 'v', views],
  ['parked', 'w', parked], ['doctor', 'd', doctor], ['cost', 'c', cost], ['chaos', 'x', chaos],
].map(([name, key, screen], at) => ({ name, key, number: String(at + 1), screen }));
const BY_NAME = new Map([...SCREENS.map(({ name, screen }) => [name, screen]), ['entry', entry]]);

/** The time between two samples, and the longest after errors, in milliseconds. */
const SAMPLE_MS = 1_000;
const SAMPLE_AFTER_ERRORS_MS = 5_000;
/** The time within which the second key of `g p` must come, in milliseconds. */
const CHORD_MS = 1_500;

const history = new History();
const main = document.getElementById('main');
let current;
let failures = 0;

function stored(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(`fanfold.${key}`);
    localStorage.setItem(`fanfold.${key}`, value);
  } catch {
    // The browser keeps nothing for this page.
  }
  return value ?? null;
}

// The menu.

const items = SCREENS.map(({ name, number, screen }) => {
  const mark = el('span', { class: 'mark' });
  const anchor = el('a', { href: hash([name]) }, el('span', { text: screen.title }), mark, el('kbd', { 'aria-hidden': 'true', text: number }));
  document.getElementById('screens').append(el('li', {}, anchor));
  return { name, anchor, mark };
});

function showWaiting() {
  const waiting = waitingCount(history);
  const { mark } = items.find(({ name }) => name === 'parked');
  if (mark.textContent !== (waiting ? count(waiting) : '')) {
    mark.replaceChildren(...(waiting ? [badge(count(waiting), 'bad')] : []));
  }
}

// The screens.

function navigate() {
  const parts = location.hash.replace(/^#\/?/, '').split('/').map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const screen = BY_NAME.get(parts[0]) ?? pipeline;
  const name = BY_NAME.has(parts[0]) ? parts[0] : 'pipeline';
  const isFirst = current === undefined;
  current?.destroy?.();
  const root = el('div', { class: `screen ${name}` });
  main.replaceChildren(root);
  document.title = `${screen.title} – Fanfold`;
  for (const item of items) {
    const isCurrent = item.name === (name === 'entry' ? 'logs' : name);
    if (isCurrent) {
      item.anchor.setAttribute('aria-current', 'page');
      // On a narrow screen the menu scrolls. `scrollIntoView` would also move where the next Tab begins.
      const menu = item.anchor.closest('nav');
      menu.scrollLeft = item.anchor.offsetLeft - (menu.clientWidth - item.anchor.offsetWidth) / 2;
    }
    if (!isCurrent) item.anchor.removeAttribute('aria-current');
  }
  try {
    current = screen.render(root, parts.slice(1), history) ?? {};
    if (history.samples.length > 0) current.update?.(history);
  } catch (error) {
    current = {};
    root.replaceChildren(problem(error));
    console.error(error);
  }
  scrollTo(0, 0);
  // A reader of the screen hears its heading, except of the first, which the page's title names.
  if (!isFirst) root.querySelector('h1')?.focus();
}

// The samples.

function state(name, text) {
  const live = document.getElementById('live');
  live.dataset.state = name;
  const label = document.getElementById('live-text');
  if (label.textContent !== text) label.textContent = text;
}

async function sample() {
  let wait = SAMPLE_MS;
  if (document.visibilityState === 'visible') {
    try {
      history.add(Date.now(), await metrics(), point);
      failures = 0;
      state('live', 'Live');
      showWaiting();
      current?.update?.(history);
    } catch (error) {
      failures += 1;
      wait = Math.min(SAMPLE_MS * failures, SAMPLE_AFTER_ERRORS_MS);
      state('failed', error.title ?? 'The console failed');
      if (!error.title) console.error(error);
    }
  } else {
    state('paused', 'Paused');
  }
  setTimeout(sample, wait);
}

// Search.

/** The screen that a text names: a log, a receipt as `log seq`, as `log/seq` of a path, or as the JSON of an answer. */
export function found(text) {
  const trimmed = text.trim();
  try {
    const { log, seq } = JSON.parse(trimmed);
    if (typeof log === 'string') return seq ? ['entry', log, String(seq)] : ['logs', log];
  } catch {
    // It is not JSON.
  }
  const path = trimmed.replace(/^.*\/logs\//, '');
  const receipt = /^([^/]+\/.+?)(?:\s+|\/|#)(\d+)$/.exec(path);
  if (receipt) return ['entry', receipt[1], receipt[2]];
  return /^[^/]+\/[^/]+$/.test(path) ? ['logs', path] : ['logs', '', trimmed];
}

document.getElementById('search').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = document.getElementById('search-text');
  if (input.value.trim() === '') return;
  location.hash = hash(found(input.value));
  input.value = '';
});

// Keys.

function help() {
  const keys = [['/', 'Find a log or a receipt'], ...SCREENS.map(({ key, number, screen }) => [`g ${key} or ${number}`, screen.title]), ['?', 'This help'], ['Esc', 'Close a dialog, leave the search']];
  const toggle = el('input', { type: 'checkbox', change: () => stored('keys', toggle.checked ? 'on' : 'off') });
  toggle.checked = stored('keys') !== 'off';
  show('Keys',
    el('dl', { class: 'keys' }, keys.map(([key, text]) => el('div', {}, el('dt', {}, key.split(' ').map((part) => (part === 'or' ? ' or ' : el('kbd', { text: part })))), el('dd', { text })))),
    el('label', { class: 'check' }, toggle, 'Use single keys'),
    el('p', { class: 'muted', text: 'Rates are of the last 5 s, percentiles of the last 30 s. The page asks the host once a second while it is visible.' }));
}

let chord = 0;
document.addEventListener('keydown', (event) => {
  const isTyping = event.target.closest?.('input, textarea, select, [contenteditable]');
  if (event.key === 'Escape' && event.target.id === 'search-text') event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (stored('keys') === 'off') return;
  const isSecond = event.timeStamp - chord < CHORD_MS;
  chord = event.key === 'g' ? event.timeStamp : 0;
  const screen = SCREENS.find(({ key, number }) => event.key === number || (isSecond && event.key === key));
  if (screen) location.hash = hash([screen.name]);
  else if (event.key === '/') document.getElementById('search-text').focus();
  else if (event.key === '?') help();
  else return;
  event.preventDefault();
});

// Colours.

const theme = document.getElementById('theme');
theme.value = document.documentElement.dataset.theme ?? 'system';
theme.addEventListener('change', () => {
  stored('theme', theme.value);
  if (theme.value === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  dispatchEvent(new Event('fanfold-theme'));
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => dispatchEvent(new Event('fanfold-theme')));

document.getElementById('help').addEventListener('click', help);
// The address names the screen, so the link must not change it.
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', navigate);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible' && failures === 0) state('waiting', 'Connecting');
});
navigate();
sample();
