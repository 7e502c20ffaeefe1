// What waits for an operator: commands, commits and bytes, and logs for which a view is parked.

import { get } from './api.js';
import { act } from './dialog.js';
import { badge, code, count, el, empty, facts, field, heading, link, plural, problem, time } from './dom.js';
import { summary } from './logs.js';

const PAGE = 100;
const REFRESH_MS = 3_000;

/** What each reason means, and what to do: as the runbook has it. */
const REASONS = {
  gap: ['A command before it has not come yet.', 'Most often it comes by itself. If it never came, skip the seq that is missing.'],
  no_service: ['No processor hosts the service.', 'Deploy a build that does. Its commands go on by themselves.'],
  cannot_fold: ['The processor cannot read the log’s state or its journal.', 'Deploy a build that can. The commands go on by themselves.'],
  conflict: ['The journal has another command at this seq.', 'Resume accepts it again at a new seq. Skip drops it, although its client was answered 202.'],
  undecodable: ['No build so far could read the bytes.', 'Deploy a build that can, then resume. If nothing can, skip.'],
  suspect: ['Processes crashed again and again while they worked on it.', 'Look for panics and memory in the processor’s log. After the mend, resume; or skip the one that is to blame.'],
  unpublished: ['The topic refuses the commit. The journal has the entry.', 'Mend the topic, then resume.'],
  given_up: ['An operator has given it up, and its turn has not come.', 'Nothing to do.'],
};

const results = [];

function done(text) {
  return (answer) => {
    const how = { begun: 'a stage does the rest', removed: 'it waits no longer', accepted: `new position ${answer.seq}` }[answer.done] ?? answer.done;
    const said = `${text}: ${how}`;
    results.unshift({ at: Date.now(), said });
    results.splice(20);
    return said;
  };
}

function resume(item, body, what) {
  return act({
    title: 'Resume', button: 'Resume', path: ['ops', 'resume'], body, text: [`${what} goes on from where it is. If nothing has been mended, it is parked again.`], done: done(`Resumed ${what}`),
  });
}

function skip(item, body, what, effect) {
  return act({
    title: 'Skip', button: 'Skip for ever', path: ['ops', 'skip'], body, name: item.log, text: [effect, 'This cannot be undone.'],
    fields: { reason: { label: 'Reason', hint: 'The log shows it for ever.' } }, done: done(`Skipped ${what}`),
  });
}

function buttons(what, onResume, onSkip) {
  return el('div', { class: 'actions' },
    el('button', { type: 'button', text: 'Resume…', 'aria-label': `Resume ${what}`, click: onResume }),
    el('button', { type: 'button', class: 'danger', text: 'Skip…', 'aria-label': `Skip ${what}`, click: onSkip }));
}

function commandItem(item, load) {
  const body = { log: item.log, seq: item.seq, identity: item.identity };
  const what = `${item.log} ${item.seq}`;
  const [means, mend] = REASONS[item.reason] ?? ['', ''];
  const after = async (did) => (await did) && load();
  return el('li', { class: 'panel item' },
    el('div', { class: 'item-head' }, badge(item.reason, 'bad'), el('h3', { class: 'mono name' }, link(['logs', item.log], item.log), ` ${count(item.seq)}`),
      buttons(what, () => after(resume(item, body, what)), () => after(skip(item, body, what, `Entry ${item.seq} of the log will say that its command is lost.`)))),
    el('p', {}, means, ' ', el('span', { class: 'muted', text: mend })),
    item.detail && el('p', { class: 'mono detail', text: item.detail }),
    facts([['Parked', item.at && time(item.at)], ['Command', item.command?.command], ['By', item.command && [item.command.user, item.command.client].filter(Boolean).join(' · ')], ['Id', item.command?.id], ['In the log', plural(item.accepted - item.tail, 'command has no entry', 'commands have no entry')]]),
    item.command && el('details', {}, el('summary', { text: 'Data of the command' }), code(item.command.data)));
}

function viewItem(item, load) {
  const body = { view: item.view, log: item.log };
  const what = `${item.view} of ${item.log}`;
  const after = async (did) => (await did) && load();
  return el('li', { class: 'panel item' },
    el('div', { class: 'item-head' }, badge(`view ${item.view}`, 'bad'), el('h3', { class: 'mono name' }, link(['logs', item.log], item.log), ' ', link(['entry', item.log, String(item.seq)], count(item.seq))),
      buttons(what, () => after(resume(item, body, what)), () => after(skip(item, body, what, `The view ${item.view} will never show entry ${item.seq} of this log.`)))),
    el('p', { class: 'mono detail', text: item.reason }),
    facts([['Parked', time(item.at)], ['By build', item.build && el('span', { class: 'mono', text: item.build })], ['Has applied', `up to ${count(item.cursor)}`], ['Not applied', plural(item.tail - item.cursor, 'entry', 'entries')], ['Entry', item.entry && summary(item.entry)]]),
    item.entry && el('details', {}, el('summary', { text: 'The entry' }), code(item.entry)));
}

function resendForm() {
  const log = el('input', { type: 'text', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'ledger/org:acme' });
  const seq = el('input', { type: 'text', required: true, inputmode: 'numeric', pattern: '[0-9]+', size: '8' });
  return el('section', { class: 'panel', 'aria-labelledby': 'resend-title' },
    el('h2', { id: 'resend-title', text: 'Send a faulted command again' }),
    el('p', { class: 'muted', text: 'A faulted entry does not wait: the service failed on the command, and the log went on. A new build may decide it.' }),
    el('form', { class: 'toolbar fields', submit: (event) => {
      event.preventDefault();
      const [of, at] = [log.value.trim(), Number(seq.value)];
      act({ title: 'Send a faulted command again', button: 'Send again', path: ['ops', 'resend'], body: { log: of, seq: at }, text: [`${of} ${at} gets a new position, with its own id. It counts once, however often you send it.`], done: done(`Sent ${of} ${at} again`) });
    } }, field('Log', log), field('Seq', seq), el('button', { type: 'submit', text: 'Send again…' })));
}

function render(root) {
  const service = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', placeholder: 'all' });
  const commands = el('div');
  const views = el('div');
  const log = el('div');
  root.append(heading('Parked'), log,
    el('section', { 'aria-labelledby': 'commands-title' }, el('div', { class: 'section-head' }, el('h2', { id: 'commands-title', text: 'Commands' }), field('Service', service)), commands),
    el('section', { 'aria-labelledby': 'views-title' }, el('h2', { id: 'views-title', text: 'Views' }), views), resendForm());
  const shown = new Map();

  /** Elements stay while nothing has changed, so that the focus and what is open do. */
  function fill(host, pages, item, none) {
    const text = JSON.stringify(pages, (_, value) => (typeof value === 'bigint' ? String(value) : value));
    if (shown.get(host) === text) return;
    shown.set(host, text);
    const items = pages.flatMap(({ parked }) => parked);
    const isMore = pages.some(({ next }) => next);
    host.replaceChildren(items.length > 0 ? el('ul', { class: 'items' }, items.map((of) => item(of, load))) : empty(none),
      isMore ? el('p', { class: 'muted', text: `There are more than these: the first ${PAGE} are shown. \`fanfold parked\` lists all, and \`fanfold resume --all\` resumes them at a bounded rate.` }) : '');
  }

  async function part(host, read) {
    try {
      await read();
    } catch (error) {
      shown.delete(host);
      host.replaceChildren(problem(error));
    }
  }

  async function load() {
    log.replaceChildren(results.length > 0 ? el('section', { class: 'panel', 'aria-label': 'Results' }, el('ul', { class: 'results' }, results.map(({ at, said }) => el('li', {}, time(at), ' ', said)))) : '');
    await Promise.all([
      part(commands, async () => fill(commands, [await get(['ops', 'parked'], { service: service.value.trim(), limit: PAGE })], commandItem, 'No command waits')),
      part(views, async () => {
        const { views: served } = await get(['views']);
        const pages = await Promise.all(served.map(({ view }) => get(['ops', 'parked', view], { limit: PAGE }).catch((error) => {
          // A view of another app is announced here, but this host cannot operate it.
          if (error.status === 404) return { parked: [] };
          throw error;
        })));
        fill(views, pages, viewItem, 'No view is parked');
      }),
    ]);
  }

  let timer;
  service.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(load, 300);
  });
  load();
  const refresh = setInterval(() => document.visibilityState === 'visible' && !document.querySelector('dialog[open]') && load(), REFRESH_MS);
  return { destroy: () => { clearTimeout(timer); clearInterval(refresh); } };
}

export default { title: 'Parked', render };
