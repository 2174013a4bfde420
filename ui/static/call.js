// Calling a function, and showing its answer. The answer is text, a picture or a
// file to keep, and never a part of the page.

import { url } from './api.js';
import { copyButton, duration, field, h, quote, say, size } from './dom.js';

const methods = ['POST', 'GET', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS'];
const bodiless = new Set(['GET', 'HEAD']);

const maxShown = 200_000; // characters of a text; all of it can be kept as a file
const maxRead = 64 * 1024 * 1024; // bytes of an answer
const maxNodes = 5000; // of folded JSON

export function callSection(name) {
  const method = h('select', { 'aria-label': 'Method' }, methods.map((m) => h('option', {}, m)));
  const path = h('input', { value: '/', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off' });
  const query = h('input', { placeholder: 'a=1&b=2', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off' });
  const headers = h('textarea', { rows: '2', placeholder: 'X-Name: value', spellcheck: 'false' });
  const kind = h('select', {}, h('option', { value: 'text' }, 'Text'), h('option', { value: 'json' }, 'JSON'), h('option', { value: 'file' }, 'File'), h('option', { value: 'none' }, 'None'));
  const text = h('textarea', { rows: '5', spellcheck: 'false' });
  const file = h('input', { type: 'file' });
  const textField = field('Body', text);
  const fileField = field('File', file);
  const problem = h('p', { class: 'outcome', 'data-kind': 'bad', role: 'alert' });
  const send = h('button', { type: 'submit', class: 'primary' }, 'Call');
  const stop = h('button', { type: 'button', disabled: true, onclick: () => running?.abort() }, 'Stop');
  const curl = h('code', {});
  const answer = h('div', { class: 'answer', role: 'region', 'aria-label': 'Answer' }, h('p', { class: 'hint' }, 'The answer is shown here.'));
  let running;
  let shared = []; // URLs of the body that is shown

  // request reads the form. It throws what is wrong with it.
  function request() {
    const prefix = `function/${name}`;
    const target = url(prefix + (path.value.startsWith('/') ? path.value : `/${path.value}`));
    if (!target.pathname.startsWith(url(`${prefix}/`).pathname)) throw new Error('The path leaves the function.');
    if (target.hash) throw new Error('The path has a #, which is never sent: write %23.');
    const search = query.value.replace(/^\?/, '');
    if (search) target.search = search;
    const list = [];
    for (const line of headers.value.split('\n')) {
      if (!line.trim()) continue;
      const colon = line.indexOf(':');
      if (colon < 1) throw new Error(`Headers: “${line.trim()}” is not NAME: VALUE.`);
      list.push([line.slice(0, colon).trim(), line.slice(colon + 1).trim()]);
    }
    let body;
    if (!bodiless.has(method.value)) {
      if (kind.value === 'file') body = file.files[0];
      else if (kind.value !== 'none') body = text.value;
      if (kind.value === 'json') {
        try {
          JSON.parse(text.value);
        } catch (error) {
          throw new Error(`Body: ${error.message}`);
        }
        if (!list.some(([n]) => n.toLowerCase() === 'content-type')) list.push(['Content-Type', 'application/json']);
      }
    }
    return { method: method.value, target, headers: list, body };
  }

  function showCurl() {
    textField.hidden = kind.value === 'file' || kind.value === 'none' || bodiless.has(method.value);
    fileField.hidden = kind.value !== 'file' || bodiless.has(method.value);
    kind.disabled = bodiless.has(method.value);
    try {
      curl.textContent = curlLine(request());
      problem.textContent = '';
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  async function call(event) {
    event.preventDefault();
    showCurl();
    if (problem.textContent) return;
    const asked = request();
    running?.abort();
    const mine = running = new AbortController();
    send.disabled = true;
    stop.disabled = false;
    const began = performance.now();
    answer.setAttribute('aria-busy', 'true');
    show(h('p', { class: 'status' }, 'Waiting for the answer…'));
    try {
      const init = new Headers(asked.headers);
      if (typeof asked.body === 'string' && !init.has('Content-Type')) init.set('Content-Type', 'text/plain');
      const response = await fetch(asked.target, {
        method: asked.method, headers: init, body: asked.body, signal: mine.signal,
        credentials: 'omit', cache: 'no-store', redirect: 'manual',
      });
      if (response.type === 'opaqueredirect') {
        show(h('p', { class: 'status' }, 'A redirect. Browsers do not show where to; curl does.'));
        return;
      }
      await receive(response, began, mine.signal);
    } catch (error) {
      const took = duration((performance.now() - began) / 1000);
      const words = mine.signal.aborted ? `Stopped after ${took}.` : error instanceof TypeError ? `No answer after ${took}: ${error.message}. A header that browsers set themselves, or a connection that broke off.` : error.message;
      show(h('p', { class: 'status', 'data-kind': 'bad' }, words));
      say(words);
    } finally {
      answer.removeAttribute('aria-busy');
      if (running === mine) {
        send.disabled = false;
        stop.disabled = true;
      }
    }
  }

  // receive reads the answer's body as it comes; what came by a stop is shown.
  async function receive(response, began, signal) {
    const chunks = [];
    let length = 0;
    let broke = '';
    const status = h('p', { class: 'status', 'data-kind': response.ok ? 'good' : 'bad' });
    const progress = () => {
      const took = duration((performance.now() - began) / 1000);
      status.textContent = `${response.status} ${response.statusText || reason(response.status)} · ${took} · ${size(length)}${broke}`;
    };
    progress();
    show(status);
    try {
      for (const reader = response.body?.getReader(); reader;) {
        const { done, value } = await reader.read();
        if (done) break;
        chunks.push(value);
        length += value.length;
        if (length > maxRead) {
          broke = ' · the rest is left out';
          reader.cancel();
          break;
        }
        progress();
      }
    } catch (error) {
      broke = signal.aborted ? ' · stopped' : ' · broke off';
    }
    progress();
    const type = response.headers.get('Content-Type') ?? '';
    const blob = new Blob(chunks, { type: type || 'application/octet-stream' });
    const list = [...response.headers].sort();
    show(status,
      h('details', { class: 'headers' }, h('summary', {}, `${list.length} headers`),
        h('dl', {}, list.map(([n, v]) => h('div', {}, h('dt', {}, n), h('dd', {}, v))))),
      await shown(blob, type));
    say(`${response.status}, ${size(length)}`);
  }

  function show(...parts) {
    answer.replaceChildren(...parts);
  }

  function link(blob, type) {
    shared.push(URL.createObjectURL(new Blob([blob], { type })));
    return shared.at(-1);
  }

  function forget() {
    for (const address of shared) URL.revokeObjectURL(address);
    shared = [];
  }

  // shown is a body by its type. Whatever it is, it can be kept as a file.
  async function shown(blob, type) {
    if (!blob.size) return h('p', { class: 'hint' }, 'The body is empty.');
    forget();
    const keep = h('a', { href: link(blob, 'application/octet-stream'), download: `${name}${extension(type)}`, class: 'keep' }, `Download ${size(blob.size)}`);
    if (type.startsWith('image/')) return h('div', {}, h('img', { src: await dataURL(blob), alt: `Picture that ${name} answered` }), keep);
    const bytes = new Uint8Array(await blob.slice(0, 4 * maxShown).arrayBuffer());
    let written;
    try {
      written = new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
    } catch {
      return h('div', {}, h('p', { class: 'hint' }, `${type || 'Bytes'}: not text.`), keep);
    }
    if (/[/+]json\b/.test(type) || /^\s*[[{]/.test(written)) {
      try {
        const view = h('div', { class: 'json', tabindex: '0', role: 'group', 'aria-label': 'Body, JSON' }, tree(JSON.parse(written), { left: maxNodes }));
        return h('div', {}, view, h('details', {}, h('summary', {}, 'As it came'), plain(written)), keep);
      } catch { /* text, then */ }
    }
    return h('div', {}, plain(written), keep);
  }

  for (const control of [method, path, query, headers, kind, text, file]) control.addEventListener('input', showCurl);
  showCurl();

  return {
    element: h('section', { class: 'panel call', 'aria-labelledby': 'call-heading' },
      h('h2', { id: 'call-heading' }, 'Call'),
      h('form', { onsubmit: call, novalidate: true },
        h('div', { class: 'line' }, field('Method', method), field('Path', path), field('Query', query)),
        field('Headers', headers),
        h('div', { class: 'line' }, field('Body as', kind)),
        textField, fileField,
        h('div', { class: 'actions' }, send, stop, problem)),
      answer,
      h('div', { class: 'code' }, h('h3', {}, 'The same with curl'), h('pre', { tabindex: '0', 'aria-label': 'The same with curl' }, curl), copyButton('curl line', () => curl.textContent, curl))),
    close() {
      running?.abort();
      forget();
    },
  };
}

// dataURL is an address that holds the bytes. What is opened from it in a tab of its
// own has no origin: a drawing may have scripts.
const dataURL = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

function plain(written) {
  const cut = written.length > maxShown;
  return h('div', {},
    h('pre', { class: 'body', tabindex: '0', 'aria-label': 'Body' }, cut ? written.slice(0, maxShown) : written),
    cut ? h('p', { class: 'hint' }, `The first ${maxShown.toLocaleString('en')} characters.`) : null);
}

// tree is JSON, of which objects and arrays fold. budget.left bounds the elements.
function tree(value, budget, key, depth = 0) {
  const name = key === undefined ? [] : [h('span', { class: 'key' }, `${key}: `)];
  if (budget.left-- <= 0) return h('div', {}, name, '…');
  if (value === null || typeof value !== 'object') {
    return h('div', {}, name, h('span', { class: typeof value }, JSON.stringify(value)));
  }
  const array = Array.isArray(value);
  const entries = Object.entries(value);
  const brackets = array ? ['[', ']'] : ['{', '}'];
  if (!entries.length) return h('div', {}, name, brackets.join(''));
  const count = array ? `${entries.length} ${entries.length === 1 ? 'item' : 'items'}` : `${entries.length} ${entries.length === 1 ? 'member' : 'members'}`;
  return h('details', { open: depth < 2 },
    h('summary', {}, name, `${brackets[0]} `, h('span', { class: 'count' }, count), ` ${brackets[1]}`),
    entries.map(([k, v]) => tree(v, budget, array ? k : JSON.stringify(k), depth + 1)));
}

function curlLine({ method, target, headers, body }) {
  const parts = ['curl', '-i'];
  if (method === 'HEAD') parts.push('-I');
  else if (!(method === 'GET' && body === undefined) && !(method === 'POST' && body !== undefined)) parts.push('-X', method);
  for (const [n, v] of headers) parts.push('-H', quote(`${n}: ${v}`));
  if (typeof body === 'string') {
    if (!headers.some(([n]) => n.toLowerCase() === 'content-type')) parts.push('-H', quote('Content-Type: text/plain'));
    parts.push('--data-raw', quote(body));
  } else if (body) {
    parts.push('-H', quote(`Content-Type: ${body.type || 'application/octet-stream'}`), '--data-binary', quote(`@${body.name}`));
  }
  if (/[[\]{}]/.test(target.href)) parts.push('--globoff');
  parts.push(quote(target.href));
  return parts.join(' ');
}

function extension(type) {
  const known = { 'text/plain': '.txt', 'text/html': '.html.txt', 'application/json': '.json', 'image/png': '.png', 'image/jpeg': '.jpg', 'image/gif': '.gif', 'image/svg+xml': '.svg', 'image/webp': '.webp' };
  return known[type.split(';')[0].trim()] ?? '.bin';
}

// reason is there for HTTP/2, which has no reason phrases.
function reason(status) {
  return { 200: 'OK', 404: 'Not Found', 429: 'Too Many Requests', 500: 'Internal Server Error', 502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout' }[status] ?? '';
}
