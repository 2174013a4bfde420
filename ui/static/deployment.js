// The form of a deployment, the same as JSON, and as a line for Docker.

import { get } from './api.js';
import { copyButton, field, h, quote } from './dom.js';

// deploymentForm edits deployment. options: fixedName, the button's text, where the
// outcome is shown, and submit(deployment), which may throw. It returns the form, and
// what shows the same in other words.
export function deploymentForm(deployment, overview, { fixedName, button, result, submit }) {
  const line = (value, more = {}) => h('input', { value: value ?? '', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off', ...more });
  const area = (value, rows) => h('textarea', { rows, spellcheck: 'false', value: value ?? '' });
  const form = {
    service: line('', { required: true, readonly: Boolean(fixedName), maxlength: '63' }),
    image: line('', { required: true, placeholder: 'registry.example.com/name:tag' }),
    envProcess: line('', { placeholder: 'as in the image' }),
    envVars: area('', '3'),
    labels: area('', '3'),
    annotations: area('', '2'),
    constraints: area('', '2'),
    limitMemory: line('', { placeholder: '128Mi' }),
    limitCPU: line('', { placeholder: '500m' }),
    requestMemory: line('', { placeholder: '64Mi' }),
    requestCPU: line('', { placeholder: '100m' }),
    readOnly: h('input', { type: 'checkbox' }),
  };
  const secrets = h('div', { class: 'pairs-edit' }, h('p', { class: 'hint' }, 'There are none.'));
  const json = area('', '14');
  const docker = h('code', {});
  let secretNames = [...(deployment.secrets ?? [])]; // that can be chosen
  let chosen = new Set(secretNames);
  let rest = {}; // members that the form does not show

  function fill(d) {
    const { service, image, envProcess, envVars, labels, annotations, constraints, secrets: wanted, limits, requests, readOnlyRootFilesystem, ...others } = d;
    rest = others;
    if (!fixedName || !form.service.value) form.service.value = service ?? '';
    form.image.value = image ?? '';
    form.envProcess.value = envProcess ?? '';
    form.envVars.value = unpair(envVars);
    form.labels.value = unpair(labels);
    form.annotations.value = unpair(annotations);
    form.constraints.value = (constraints ?? []).join('\n');
    form.limitMemory.value = limits?.memory ?? '';
    form.limitCPU.value = limits?.cpu ?? '';
    form.requestMemory.value = requests?.memory ?? '';
    form.requestCPU.value = requests?.cpu ?? '';
    form.readOnly.checked = Boolean(readOnlyRootFilesystem);
    chosen = new Set(wanted ?? []);
    secretNames = [...new Set([...secretNames, ...chosen])].sort();
    showSecrets();
  }

  // read returns the deployment without what is empty. It throws what is wrong.
  function read() {
    const d = { service: form.service.value.trim(), image: form.image.value.trim() };
    const set = (key, value) => {
      if (value && (typeof value !== 'object' || Object.keys(value).length)) d[key] = value;
    };
    const amounts = (memory, cpu) => ({ ...(memory.value.trim() && { memory: memory.value.trim() }), ...(cpu.value.trim() && { cpu: cpu.value.trim() }) });
    set('envProcess', form.envProcess.value);
    set('envVars', pair('Variables', form.envVars.value));
    set('labels', pair('Labels', form.labels.value));
    set('annotations', pair('Annotations', form.annotations.value));
    set('constraints', form.constraints.value.split('\n').map((c) => c.trim()).filter(Boolean));
    set('secrets', [...chosen]);
    set('limits', amounts(form.limitMemory, form.limitCPU));
    set('requests', amounts(form.requestMemory, form.requestCPU));
    set('readOnlyRootFilesystem', form.readOnly.checked);
    return { ...rest, ...d };
  }

  function showSecrets() {
    if (!secretNames.length) return;
    secrets.replaceChildren(...secretNames.map((name) => h('label', { class: 'check' },
      h('input', { type: 'checkbox', checked: chosen.has(name), onchange: (event) => {
        if (event.target.checked) chosen.add(name);
        else chosen.delete(name);
        formChanged();
      } }), name)));
  }

  function formChanged() {
    try {
      const d = read();
      json.value = JSON.stringify(d, null, 2);
      docker.textContent = dockerLine(d, overview.network || 'functions');
      result.show('');
    } catch (error) {
      result.show(error.message, 'bad');
    }
  }

  function jsonChanged() {
    try {
      const d = JSON.parse(json.value);
      if (d === null || typeof d !== 'object' || Array.isArray(d)) throw new Error('want an object');
      fill(d);
      docker.textContent = dockerLine(read(), overview.network || 'functions');
      result.show('');
    } catch (error) {
      result.show(`JSON: ${error.message}`, 'bad');
    }
  }

  for (const control of Object.values(form)) control.addEventListener('input', formChanged);
  json.addEventListener('input', jsonChanged);
  fill(deployment);
  formChanged();
  if (overview.can.secrets) {
    get('system/secrets').then((list) => {
      secretNames = [...new Set([...secretNames, ...list.map((s) => s.name)])].sort();
      showSecrets();
    }, () => { /* those of the deployment can be chosen */ });
  }

  const send = h('button', { type: 'submit', class: 'primary' }, button);
  const element = h('form', {
    novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      let d;
      try {
        JSON.parse(json.value);
        d = read();
        if (!d.service) throw new Error('Name: it is missing.');
        if (!d.image) throw new Error('Image: it is missing.');
      } catch (error) {
        result.show(error.message, 'bad');
        return;
      }
      send.disabled = true;
      result.show('Asking the gateway…', 'busy');
      try {
        await submit(d);
      } catch (error) {
        result.show(error.message, 'bad');
      } finally {
        send.disabled = false;
      }
    },
  },
  h('div', { class: 'two' }, field('Name', form.service), field('Image', form.image)),
  field('Process', form.envProcess, 'The command that runs for each call, or the server of mode=http.'),
  field('Variables', form.envVars, 'NAME=value, one a line. Not for what is secret.'),
  field('Labels', form.labels, 'Such as com.openfaas.scale.max=5 or faas.route=POST /orders, one a line.'),
  overview.can.secrets ? h('fieldset', {}, h('legend', {}, 'Secrets'), secrets) : null,
  h('div', { class: 'two' }, field('Memory limit', form.limitMemory), field('CPU limit', form.limitCPU)),
  h('details', {}, h('summary', {}, 'Reservations, placement, annotations'),
    h('div', { class: 'more' },
      h('div', { class: 'two' }, field('Memory reserved', form.requestMemory), field('CPU reserved', form.requestCPU)),
      field('Placement', form.constraints, 'Such as node.labels.disk == ssd, one a line.'),
      field('Annotations', form.annotations, 'NAME=value, one a line.'),
      h('label', { class: 'check' }, form.readOnly, 'Read-only root'))),
  h('div', { class: 'actions' }, send, result.element));
  const same = h('div', { class: 'stack' },
    field('The same as JSON', json, 'What the API gets. It can be edited here as well.'),
    h('div', { class: 'code' }, h('h3', {}, 'The same with docker'), h('pre', { tabindex: '0', 'aria-label': 'The same with docker' }, docker), copyButton('docker line', () => docker.textContent, docker)));
  return { element, same };
}

function unpair(object) {
  return Object.entries(object ?? {}).map(([k, v]) => `${k}=${v}`).join('\n');
}

function pair(what, text) {
  const object = {};
  for (const line of text.split('\n')) {
    if (!line.trim()) continue;
    const at = line.indexOf('=');
    if (at < 1) throw new Error(`${what}: “${line.trim()}” is not NAME=value.`);
    object[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return object;
}

// dockerLine makes the same service with Docker's client. Its K, M and G are
// powers of 1024.
function dockerLine(d, network) {
  const words = ['docker service create', `--name ${quote(d.service || 'NAME')}`, `--network ${quote(network)}`];
  for (const [k, v] of Object.entries(d.labels ?? {})) words.push(`--label ${quote(`${k}=${v}`)}`);
  for (const [k, v] of Object.entries(d.annotations ?? {})) words.push(`--label ${quote(`com.openfaas.annotations.${k}=${v}`)}`);
  if (d.envProcess) words.push(`--env ${quote(`fprocess=${d.envProcess}`)}`);
  for (const [k, v] of Object.entries(d.envVars ?? {})) words.push(`--env ${quote(`${k}=${v}`)}`);
  for (const name of d.secrets ?? []) words.push(`--secret ${quote(`source=${name},target=/var/openfaas/secrets/${name}`)}`);
  for (const c of d.constraints ?? []) words.push(`--constraint ${quote(c)}`);
  if (d.limits?.memory) words.push(`--limit-memory ${quote(dockerMemory(d.limits.memory))}`);
  if (d.limits?.cpu) words.push(`--limit-cpu ${quote(dockerCPU(d.limits.cpu))}`);
  if (d.requests?.memory) words.push(`--reserve-memory ${quote(dockerMemory(d.requests.memory))}`);
  if (d.requests?.cpu) words.push(`--reserve-cpu ${quote(dockerCPU(d.requests.cpu))}`);
  if (d.readOnlyRootFilesystem) words.push('--read-only', '--mount type=tmpfs,target=/tmp,tmpfs-size=67108864');
  words.push(quote(d.image || 'IMAGE'));
  return words.join(' \\\n  ');
}

function dockerMemory(text) {
  const match = /^([0-9.]+)([KMGT])(i?)$/.exec(text);
  if (!match) return text;
  const [, n, unit, binary] = match;
  if (binary) return n + unit.toLowerCase();
  return String(Math.round(Number(n) * 1000 ** ('KMGT'.indexOf(unit) + 1)));
}

function dockerCPU(text) {
  return text.endsWith('m') ? String(Number(text.slice(0, -1)) / 1000) : text;
}
