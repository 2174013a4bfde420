// Secrets: their names, and new values for them. No value ever comes back.

import { get, send } from './api.js';
import { field, h, outcome, say } from './dom.js';

export function secretsView(overview) {
  const { write } = overview.can;
  const list = h('div', {}, h('p', { class: 'hint' }, 'Asking…'));
  const result = outcome();
  const dialogs = h('div', {});

  async function load() {
    let names;
    try {
      names = (await get('system/secrets')).map((s) => s.name).sort();
    } catch (error) {
      list.replaceChildren(h('p', { class: 'outcome', 'data-kind': 'bad' }, error.message));
      return;
    }
    list.replaceChildren(names.length ? table(names) : h('p', { class: 'hint' }, 'There are no secrets yet.'));
  }

  function table(names) {
    return h('table', { class: 'plain' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Name'), write ? h('th', { scope: 'col' }, 'Change') : null)),
      h('tbody', {}, names.map((name) => h('tr', {}, h('th', { scope: 'row' }, name),
        write ? h('td', {}, h('div', { class: 'actions' },
          h('button', { type: 'button', 'aria-label': `Update ${name}`, onclick: () => update(name) }, 'Update'),
          h('button', { type: 'button', class: 'danger', 'aria-label': `Delete ${name}`, onclick: () => remove(name) }, 'Delete'))) : null))));
  }

  function dialog(heading, ...content) {
    const element = h('dialog', { 'aria-labelledby': 'dialog-heading', onclose: () => element.remove() });
    element.append(h('h2', { id: 'dialog-heading' }, heading), ...content);
    dialogs.append(element);
    element.showModal();
    return element;
  }

  function update(name) {
    const value = valueFields();
    const said = outcome();
    const form = h('form', {
      novalidate: true,
      onsubmit: async (event) => {
        event.preventDefault();
        try {
          await send('PUT', 'system/secrets', { name, ...(await value.read()) });
          opened.close();
          result.show(`${name} has a new value; the functions that use it are being rolled over.`, 'good');
        } catch (error) {
          said.show(error.message, 'bad');
        }
      },
    }, value.elements, h('div', { class: 'actions' }, h('button', { type: 'submit', class: 'primary' }, 'Update'), h('button', { type: 'button', onclick: () => opened.close() }, 'Cancel')), said.element);
    const opened = dialog(`A new value for ${name}`, form);
  }

  function remove(name) {
    const said = outcome();
    const opened = dialog(`Delete ${name}?`, h('p', {}, 'Its value cannot be brought back.'),
      h('div', { class: 'actions' },
        h('button', { type: 'button', class: 'danger', onclick: async () => {
          try {
            await send('DELETE', 'system/secrets', { name });
            opened.close();
            result.show(`${name} is deleted.`, 'good');
            load();
          } catch (error) {
            said.show(error.message, 'bad');
          }
        } }, `Delete ${name}`),
        h('button', { type: 'button', onclick: () => opened.close() }, 'Cancel')), said.element);
  }

  const name = h('input', { required: true, maxlength: '64', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off' });
  const value = valueFields();
  const create = h('form', {
    novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        await send('POST', 'system/secrets', { name: name.value.trim(), ...(await value.read()) });
        result.show(`${name.value.trim()} is made.`, 'good');
        say('Secret made');
        create.reset();
        load();
      } catch (error) {
        result.show(error.message, 'bad');
      }
    },
  }, field('Name', name), value.elements, h('div', { class: 'actions' }, h('button', { type: 'submit', class: 'primary' }, 'Create')));

  load();
  return {
    name: 'secrets', title: 'Secrets',
    elements: [h('h1', {}, 'Secrets'),
      h('div', { class: 'columns' },
        h('section', { class: 'panel', 'aria-label': 'All secrets' },
          h('p', { class: 'hint' }, 'A function that asks for one finds it at /var/openfaas/secrets/NAME. Values go in and never come out.'), list, result.element),
        write ? h('section', { class: 'panel', 'aria-labelledby': 'create-heading' }, h('h2', { id: 'create-heading' }, 'A new secret'), create) : null), dialogs],
  };
}

// valueFields take a secret's value: text, or the bytes of a file.
function valueFields() {
  const text = h('textarea', { rows: '3', spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off' });
  const file = h('input', { type: 'file' });
  return {
    elements: [field('Value', text, 'Exactly as it stands here.'), field('Or a file', file)],
    async read() {
      if (!file.files.length) return { value: text.value };
      const bytes = new Uint8Array(await file.files[0].arrayBuffer());
      let binary = '';
      for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
      return { rawValue: btoa(binary) };
    },
  };
}
