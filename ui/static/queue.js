// Asynchronous calls: how many wait, and those that were given up.

import { every, get, send } from './api.js';
import { duration, h, outcome, setText } from './dom.js';

const page = 100;

export function queueView(overview) {
  const { write } = overview.can;
  const depth = h('div', {}, h('p', { class: 'hint' }, 'Asking…'));
  const letters = h('div', {}, h('p', { class: 'hint' }, 'Asking…'));
  const heading = h('h2', { id: 'dead-heading' }, 'Dead letters');
  const result = outcome();
  let shownDepth = '';
  let shownLetters = '';

  async function load() {
    try {
      const q = await get('system/async/queue');
      const key = JSON.stringify(q);
      if (key !== shownDepth) {
        shownDepth = key;
        depth.replaceChildren(waiting(q));
        setText(heading, `Dead letters (${q.deadLetters})`);
      }
    } catch (error) {
      shownDepth = '';
      depth.replaceChildren(h('p', { class: 'outcome', 'data-kind': 'bad' }, error.message));
    }
    try {
      const list = await get(`system/async/dead?limit=${page}`);
      const key = JSON.stringify(list);
      if (key === shownLetters || letters.contains(document.activeElement)) return;
      shownLetters = key;
      letters.replaceChildren(list.length ? dead(list) : h('p', { class: 'hint' }, 'None: every call was done, or will still be tried.'));
    } catch (error) {
      shownLetters = '';
      letters.replaceChildren(h('p', { class: 'outcome', 'data-kind': 'bad' }, error.message));
    }
  }

  function waiting({ functions }) {
    if (!functions.length) return h('p', { class: 'hint' }, 'Nothing waits.');
    return h('table', { class: 'plain' },
      h('thead', {}, h('tr', {}, ['Function', 'Not over', 'Running', 'Oldest'].map((t) => h('th', { scope: 'col' }, t)))),
      h('tbody', {}, functions.map((f) => h('tr', {}, h('th', { scope: 'row' }, f.function),
        h('td', { class: 'number' }, String(f.queued)), h('td', { class: 'number' }, String(f.running)), h('td', { class: 'number' }, duration(f.oldestSeconds))))));
  }

  async function act(words, method, path) {
    try {
      await send(method, path);
      result.show(words, 'good');
    } catch (error) {
      result.show(error.message, 'bad');
    }
    shownLetters = '';
    document.activeElement?.blur();
    polling.now();
  }

  function dead(list) {
    return h('table', { class: 'plain' },
      h('thead', {}, h('tr', {}, ['Function', 'Given up', 'Why', 'Attempts', 'Change'].filter((t) => write || t !== 'Change').map((t) => h('th', { scope: 'col' }, t)))),
      h('tbody', {}, list.map((l) => h('tr', {},
        h('th', { scope: 'row' }, l.function, l.kind === 'callback' ? h('span', { class: 'hint' }, ' (callback)') : null),
        h('td', {}, new Date(l.died).toLocaleString('en-GB')),
        h('td', {}, l.reason, details(l)),
        h('td', { class: 'number' }, String(l.attempts)),
        write ? h('td', {}, h('div', { class: 'actions' },
          h('button', { type: 'button', 'aria-label': `Run again call ${l.id} of ${l.function}`, onclick: () => act(`Call ${l.id} runs again.`, 'POST', `system/async/dead/${l.id}/run`) }, 'Run again'),
          h('button', { type: 'button', class: 'danger', 'aria-label': `Drop call ${l.id} of ${l.function}`, onclick: () => act(`Call ${l.id} is dropped.`, 'DELETE', `system/async/dead/${l.id}`) }, 'Drop'))) : null))));
  }

  // details fetch request and answer when they are opened.
  function details({ id }) {
    const element = h('details', { ontoggle: async () => {
      if (!element.open || element.children.length > 1) return;
      const body = h('pre', { tabindex: '0', 'aria-label': `Request and answer of call ${id}` }, 'Asking…');
      element.append(body);
      try {
        const { request, answer } = await get(`system/async/dead/${id}`);
        body.textContent = [message(request), message(answer)].filter(Boolean).join('\n\n');
      } catch (error) {
        body.textContent = error.message;
      }
    } }, h('summary', {}, 'Request and answer'));
    return element;
  }

  const polling = every(2000, load);
  return {
    name: 'async', title: 'Queue',
    elements: [h('h1', {}, 'Queue'),
      h('div', { class: 'stack' },
        h('section', { class: 'panel', 'aria-labelledby': 'depth-heading' }, h('h2', { id: 'depth-heading' }, 'Calls that are not over'), depth),
        h('section', { class: 'panel', 'aria-labelledby': 'dead-heading' },
          h('div', { class: 'bar' }, heading,
            write ? h('button', { type: 'button', onclick: () => act('All of them run again.', 'POST', 'system/async/dead/run?all=true') }, 'Run all again') : null, result.element),
          h('div', { class: 'scroll' }, letters)))],
    close() { polling.end(); },
  };
}

function message(m) {
  if (!m) return '';
  const head = m.method ? [`${m.method} ${m.path}`] : [];
  for (const [name, values] of Object.entries(m.header ?? {})) head.push(...values.map((v) => `${name}: ${v}`));
  return `${head.join('\n')}\n\n${m.body ?? (m.base64 ? `(base64) ${m.base64}` : '')}`;
}
