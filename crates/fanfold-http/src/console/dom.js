// Makes elements. Data only ever becomes text: nothing here takes HTML, and the page's policy (Trusted Types) refuses it.

/** The longest JSON that is shown, in characters. */
const JSON_SHOWN_MAX = 20_000;

/** An element. `props` are attributes; `class`, `text` and functions for events are treated as such. */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** A link to a screen. `parts` are encoded here. */
export function link(parts, text, props = {}) {
  return el('a', { href: hash(parts), ...props }, text);
}

export function hash(parts) {
  return `#/${parts.map(encodeURIComponent).join('/')}`;
}

/** A badge: its text says what its colour says. `level` is `ok`, `warn`, `bad` or `idle`. */
export function badge(text, level) {
  return el('span', { class: `badge ${level}`, text });
}

/** A heading of a screen, with what belongs beside it. */
export function heading(text, ...beside) {
  return el('div', { class: 'heading' }, el('h1', { text, tabindex: '-1' }), ...beside);
}

/** A table whose columns are `[title, class]`. `rows` are arrays of cells. */
export function table(label, columns, rows) {
  const head = columns.map(([title, kind]) => el('th', { scope: 'col', class: kind, text: title }));
  const line = (cells) => el('tr', {}, cells.map((cell, at) => el('td', { class: columns[at][1], 'data-label': columns[at][0] }, cell)));
  // A table that is wider than the screen scrolls in itself, also by the keyboard.
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label },
    el('table', { 'aria-label': label }, el('thead', {}, el('tr', {}, head)), el('tbody', {}, rows.map(line))));
}

/** Pairs of a term and its value. */
export function facts(pairs, kind = 'facts') {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null);
  return el('dl', { class: kind }, shown.map(([term, value]) => el('div', {}, el('dt', { text: term }), el('dd', {}, value))));
}

/** A labelled field of a form. */
export function field(label, control, hint) {
  return el('label', { class: 'field' }, el('span', { text: label }), control, hint && el('small', { text: hint }));
}

export function empty(title, ...text) {
  return el('div', { class: 'empty' }, el('p', { class: 'strong', text: title }), text.length > 0 && el('p', {}, ...text));
}

/** An error, as the API words it. */
export function problem(error) {
  const title = error.title ?? 'The console failed';
  const detail = error.detail ?? error.message;
  return el('div', { class: 'problem', role: 'alert' }, el('p', { class: 'strong', text: title }), detail && el('p', { text: detail }));
}

/** Says something in the live region, where it also appears for some seconds. */
export function announce(text) {
  const region = document.getElementById('announcer');
  region.textContent = text;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => (region.textContent = ''), 8_000);
}

/** JSON as text. Integers that the browser would round are written as they were sent. */
export function json(value, indent = 2) {
  const raw = (_, inner) => (typeof inner === 'bigint' ? (JSON.rawJSON?.(String(inner)) ?? String(inner)) : inner);
  const text = JSON.stringify(value, raw, indent) ?? '';
  if (text.length <= JSON_SHOWN_MAX) return text;
  return `${text.slice(0, JSON_SHOWN_MAX)}\n… ${count(text.length - JSON_SHOWN_MAX)} characters more: \`fanfold log\` shows all`;
}

export function code(value, indent) {
  return el('pre', { class: 'json', text: json(value, indent) });
}

/** JSON in a line of a table. */
export function inline(value) {
  return el('code', { class: 'mono name', text: json(value, 0) });
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** A number with separators; a dash if there is none. */
export function count(number) {
  return Number.isFinite(number) ? whole.format(number) : '–';
}

/** A number of things. */
export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Some of something a second. */
export function rate(number) {
  if (!Number.isFinite(number)) return '–';
  return number > 0 && number < 10 ? tenth.format(number) : whole.format(number);
}

/** A time span, given in seconds. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 1) return `${(seconds < 0.01 ? tenth : whole).format(seconds * 1_000)} ms`;
  if (seconds < 60) return `${tenth.format(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${whole.format(seconds % 60)} s`;
  if (minutes < 1_440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1_440)} d ${Math.floor((minutes % 1_440) / 60)} h`;
}

export function bytes(number) {
  if (!Number.isFinite(number)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = number < 1 ? 0 : Math.min(Math.floor(Math.log2(number) / 10), units.length - 1);
  return `${tenth.format(number / 1_024 ** power)} ${units[power]}`;
}

const two = (number) => String(number).padStart(2, '0');

/** A time of the host, given in milliseconds since 1970, in the reader's time zone. */
export function time(ms) {
  const at = new Date(ms);
  if (!Number.isFinite(ms) || Number.isNaN(at.getTime())) return '–';
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
  const isToday = new Date().toDateString() === at.toDateString();
  return el('time', { datetime: at.toISOString(), title: at.toISOString() }, isToday ? clock : `${day} ${clock}`);
}
