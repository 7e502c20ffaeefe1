// Dialogs, and what operators do: a request that is confirmed first, with its result in the live region.

import { post } from './api.js';
import { announce, el, field, problem } from './dom.js';

/**
 * Asks before a request is sent, and sends it. Returns whether it was done.
 * `name`: what has to be typed first, if the action cannot be undone. `fields`: controls, by the body's field.
 */
export function act({ title, text, name, fields = {}, button, path, body, done }) {
  return new Promise((resolve) => {
    const controls = Object.entries(fields).map(([key, { label, hint }]) =>
      [key, label, el('input', { type: 'text', required: true, autocomplete: 'off', maxlength: '500' }), hint]);
    const typed = name && el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', class: 'mono' });
    const send = el('button', { type: 'submit', class: name ? 'danger' : 'primary', text: button });
    const failed = el('div');
    let isDone = false;
    const check = () => {
      send.disabled = (name && typed.value !== name) || controls.some(([, , control]) => control.value.trim() === '');
    };
    const form = el('form', {
      input: check,
      submit: async (event) => {
        event.preventDefault();
        if (send.disabled) return;
        send.disabled = true;
        failed.replaceChildren();
        try {
          const given = Object.fromEntries(controls.map(([key, , control]) => [key, control.value.trim()]));
          announce(done(await post(path, { ...body, ...given })));
          isDone = true;
          dialog.close();
        } catch (error) {
          failed.replaceChildren(problem(error));
          check();
        }
      },
    },
    el('h2', { id: 'dialog-title', text: title }),
    text.map((line) => el('p', {}, line)),
    controls.map(([, label, control, hint]) => field(label, control, hint)),
    name && field('Type the name to confirm', typed, name),
    failed,
    el('div', { class: 'buttons' }, el('button', { type: 'button', text: 'Cancel', click: () => dialog.close() }), send));
    const dialog = el('dialog', {
      'aria-labelledby': 'dialog-title',
      close: () => {
        dialog.remove();
        resolve(isDone);
      },
    }, form);
    check();
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Shows something in a dialog until it is closed. */
export function show(title, ...content) {
  const dialog = el('dialog', { 'aria-labelledby': 'dialog-title', close: () => dialog.remove() },
    el('h2', { id: 'dialog-title', text: title }), ...content,
    el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'primary', text: 'Close', click: () => dialog.close() })));
  document.body.append(dialog);
  dialog.showModal();
}
