// One function: calling it, its log, its replicas, and what was deployed.

import { get, send } from './api.js';
import { duration, field, h, outcome, rate, setText } from './dom.js';
import { callSection } from './call.js';
import { logSection } from './log.js';
import { deploymentForm } from './deployment.js';
import { Curve, tone, words } from './list.js';

export function functionView(name, first, refresh) {
  const { can, provider } = first;
  const state = h('p', { class: 'state', role: 'status' });
  const numbers = {};
  const number = (key, label) => {
    numbers[key] = h('dd', {}, '–');
    return h('div', {}, h('dt', {}, label), numbers[key]);
  };
  const curve = new Curve();
  const call = callSection(name);
  const log = can.logs ? logSection(name) : undefined;
  const ways = h('div', {});
  const details = h('div', {}, h('p', { class: 'hint' }, 'Asking…'));
  const problems = h('ul', { class: 'problems', hidden: true });
  const replicas = replicasSection(name, can, refresh);
  const change = h('div', { class: 'stack' });
  let closed = false;

  async function load() {
    let status;
    try {
      status = await get(`system/function/${encodeURIComponent(name)}`);
    } catch (error) {
      if (!closed) details.replaceChildren(h('p', { class: 'outcome', 'data-kind': 'bad' }, error.message));
      return;
    }
    if (closed) return;
    details.replaceChildren(deployed(status));
    if (can.write && can.deploy && !change.hasChildNodes()) change.append(updateSection(status, first, load), deleteSection(name));
  }
  load();

  let shownWays = '';
  function update(overview) {
    const f = overview.functions.find((g) => g.name === name);
    if (!f) return;
    setText(state, words(f));
    state.dataset.tone = tone(f);
    setText(numbers.replicas, `${f.ready} of ${f.wanted}`);
    setText(numbers.calls, `${rate(f.calls)}/s`);
    setText(numbers.failures, `${rate(f.failures)}/s`);
    setText(numbers.p50, duration(f.p50));
    setText(numbers.p99, duration(f.p99));
    setText(numbers.inflight, `${f.inFlight}${f.waiting ? `, ${f.waiting} waiting` : ''}`);
    curve.update(f);
    replicas.update(f);
    const list = f.problems ?? [];
    if (problems.dataset.key !== list.join('\n')) {
      problems.dataset.key = list.join('\n');
      problems.hidden = !list.length;
      problems.replaceChildren(...list.map((p) => h('li', {}, p)));
    }
    const key = JSON.stringify(f.ways ?? {});
    if (key !== shownWays) {
      shownWays = key;
      ways.replaceChildren(waysIn(name, f.ways ?? {}));
    }
  }

  return {
    name: 'function', title: name, path: `system/overview?name=${encodeURIComponent(name)}`, update,
    gone() {
      state.dataset.tone = 'bad';
      setText(state, 'It is gone: there is no function of this name any more.');
      this.path = undefined; // the whole overview shows whether it comes back
    },
    elements: [
      h('div', { class: 'bar head' }, h('a', { href: '#/', class: 'back' }, 'Functions'), h('h1', { class: 'name' }, name), state),
      problems,
      h('dl', { class: 'numbers' },
        number('replicas', 'Replicas ready'), number('calls', 'Calls'), number('failures', 'Failed'),
        number('p50', 'p50'), number('p99', 'p99'), number('inflight', 'In flight'),
        h('div', { class: 'wide' }, h('dt', {}, 'Calls, last 5 minutes'), h('dd', {}, curve.element))),
      h('div', { class: 'columns' },
        h('div', {}, call.element, log?.element),
        h('div', {},
          replicas.element,
          h('section', { class: 'panel', 'aria-labelledby': 'ways-heading' }, h('h2', { id: 'ways-heading' }, 'Ways in'), ways),
          h('section', { class: 'panel', 'aria-labelledby': 'deployed-heading' }, h('h2', { id: 'deployed-heading' }, 'Deployment'), details),
          change)),
    ],
    close() {
      closed = true;
      call.close();
      log?.close();
    },
  };
}

function replicasSection(name, can, refresh) {
  const input = h('input', { type: 'number', min: '0', max: '1000', required: true, inputmode: 'numeric' });
  const result = outcome();
  const button = h('button', { type: 'submit' }, 'Set');
  const note = h('p', { class: 'hint' }, 'The autoscaler goes on from there.');
  let touched = false;
  input.addEventListener('input', () => { touched = true; });
  const form = h('form', {
    class: 'line', novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      const wanted = Number(input.value);
      if (input.value === '' || !Number.isInteger(wanted) || wanted < 0 || wanted > 1000) {
        result.show('Replicas: a whole number from 0 to 1000.', 'bad');
        return;
      }
      button.disabled = true;
      try {
        await send('POST', `system/scale-function/${encodeURIComponent(name)}`, { serviceName: name, replicas: wanted });
        result.show(`${wanted} wanted.`, 'good');
        touched = false;
        refresh();
      } catch (error) {
        result.show(error.message, 'bad');
      } finally {
        button.disabled = false;
      }
    },
  }, field('Wanted', input), button);
  const fixed = h('p', { class: 'hint', hidden: true }, 'How many there are is not for the gateway to say: they are given by address, or the service is global.');
  const bare = h('p', {});
  const parts = can.write ? [form, result.element, note] : [];
  return {
    element: h('section', { class: 'panel', 'aria-labelledby': 'replicas-heading' }, h('h2', { id: 'replicas-heading' }, 'Replicas'), bare, fixed, parts),
    update(f) {
      setText(bare, `${f.ready} ready of ${f.wanted} wanted.`);
      fixed.hidden = !f.fixed;
      for (const part of parts) part.hidden = Boolean(f.fixed);
      if (!touched && document.activeElement !== input) input.value = f.wanted;
    },
  };
}

// waysIn lists how callers reach the function.
function waysIn(name, claims) {
  const base = new URL('..', document.baseURI);
  const byName = new URL(`function/${name}`, base).href;
  const list = [['By name', byName], ['By header', `${base.href}  X-Function: ${name}`]];
  for (const route of claims['faas.route'] ?? []) list.push(['By route', route]);
  for (const intent of claims['faas.alexa.intent'] ?? []) list.push(['Alexa intent', intent]);
  if (!claims['faas.alexa.intent']) list.push(['Alexa intent', name]);
  for (const skill of claims['faas.alexa.application'] ?? []) list.push(['Alexa skill', skill]);
  return h('dl', { class: 'facts' }, list.map(([label, text]) => h('div', {}, h('dt', {}, label), h('dd', {}, h('code', {}, text)))));
}

function deployed(status) {
  const facts = [];
  const add = (label, value) => {
    if (value) facts.push(h('div', {}, h('dt', {}, label), h('dd', {}, value)));
  };
  const code = (text) => text && h('code', {}, text);
  const pairs = (object) => {
    const entries = Object.entries(object ?? {});
    return entries.length ? h('ul', { class: 'pairs' }, entries.sort().map(([k, v]) => h('li', {}, h('code', {}, `${k}=${v}`)))) : undefined;
  };
  const amounts = (r) => r && [r.memory && `${r.memory} memory`, r.cpu && `${r.cpu} processors`].filter(Boolean).join(', ');
  const { faas_function: _, ...labels } = status.labels;
  add('Image', code(status.image));
  add('Process', code(status.envProcess));
  add('Made', status.createdAt && new Date(status.createdAt).toLocaleString('en-GB'));
  add('Calls so far', status.invocationCount.toLocaleString('en'));
  add('Limits', amounts(status.limits));
  add('Reserved', amounts(status.requests));
  add('Secrets', status.secrets?.join(', '));
  add('Placement', code(status.constraints?.join(', ')));
  add('Root', status.readOnlyRootFilesystem && 'read-only');
  add('Labels', pairs(labels));
  add('Annotations', pairs(status.annotations));
  add('Variables', pairs(status.envVars));
  return h('dl', { class: 'facts' }, facts);
}

function updateSection(status, overview, done) {
  const { faas_function: _, ...labels } = status.labels;
  const deployment = {
    service: status.name, image: status.image, envProcess: status.envProcess, envVars: status.envVars, labels: Object.keys(labels).length ? labels : undefined,
    annotations: Object.keys(status.annotations).length ? status.annotations : undefined, constraints: status.constraints, secrets: status.secrets,
    limits: status.limits, requests: status.requests, readOnlyRootFilesystem: status.readOnlyRootFilesystem,
  };
  const result = outcome();
  const form = deploymentForm(deployment, overview, {
    fixedName: true, button: 'Update', result,
    async submit(next) {
      await send('PUT', 'system/functions', next);
      result.show('The new version is being rolled out; callers keep the old one until it is ready.', 'good');
      done();
    },
  });
  return h('details', { class: 'panel' }, h('summary', {}, h('h2', {}, 'Update')), h('div', { class: 'stack' }, form.element, form.same));
}

function deleteSection(name) {
  const typed = h('input', { autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' });
  const result = outcome();
  const button = h('button', { type: 'submit', class: 'danger', disabled: true }, `Delete ${name}`);
  typed.addEventListener('input', () => { button.disabled = typed.value !== name; });
  return h('details', { class: 'panel' }, h('summary', {}, h('h2', {}, 'Delete')),
    h('form', {
      onsubmit: async (event) => {
        event.preventDefault();
        if (typed.value !== name) return;
        button.disabled = true;
        try {
          await send('DELETE', 'system/functions', { functionName: name });
          location.hash = '#/';
        } catch (error) {
          result.show(error.message, 'bad');
          button.disabled = false;
        }
      },
    }, field(`Type ${name} to delete it`, typed, 'Its replicas end, and its callers get 404.'), button, result.element));
}
