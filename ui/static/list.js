// The list of all functions: what runs, how it does, and what is wrong.

import { duration, h, rate, setAttribute, setText, svg } from './dom.js';

const rank = { failing: 0, starting: 1, stopped: 2, ready: 3, asleep: 4 };

const sum = (list) => list.reduce((a, b) => a + b, 0);

// failing is the part of the last minute's calls that failed.
function failing(f) {
  const failed = sum(f.failed?.slice(-6) ?? []);
  return failed && failed / sum(f.curve.slice(-6));
}

// attention says how much a function needs somebody: 0 is most.
function attention(f) {
  if (f.state === 'failing') return 0;
  if (failing(f) >= 0.05) return 1;
  if (f.state === 'starting') return 2;
  if (f.problems?.length) return 3;
  return 4;
}

const hints = {
  'No such image': 'no such image: is its name right, and may the nodes pull it?',
  'its health check fails': 'its health check fails: see its log',
  'its process accepts no connections': 'its process accepts no connections: does it listen on its port?',
};

// words say in what state a function is.
export function words(f) {
  const reason = f.reason && (hints[f.reason] ?? f.reason);
  switch (f.state) {
    case 'failing': return `Down: ${reason}`;
    case 'starting': return reason ? `Starting: ${reason}` : 'Starting';
    case 'asleep': return 'Asleep, the next call wakes it';
    case 'stopped': return 'Stopped: no replicas are wanted';
  }
  const parts = [];
  const part = failing(f);
  if (part) parts.push(`${part < 0.01 ? '<1' : Math.round(100 * part)} % of calls failed`);
  if (f.rollout) parts.push('a new version is rolled out');
  else if (f.ready < f.wanted) parts.push(`${f.wanted - f.ready} more on the way`);
  if (f.waiting) parts.push(`${f.waiting} waiting`);
  if (f.problems?.length) parts.push('a label is not valid');
  return parts.length ? parts.join(', ') : 'Ready';
}

// tone is how its state is marked: bad, busy, idle or good.
export function tone(f) {
  const level = attention(f);
  if (level < 2) return 'bad';
  if (level < 4 || f.rollout || f.ready < f.wanted) return 'busy';
  return f.state === 'ready' ? 'good' : 'idle';
}

const columns = [
  { key: 'name', label: 'Function', value: (f) => f.name },
  { key: 'state', label: 'State', value: (f) => attention(f) * 10 + rank[f.state] },
  { key: 'replicas', label: 'Replicas', value: (f) => -f.ready },
  { key: 'calls', label: 'Calls/s', value: (f) => -f.calls },
  { key: 'failures', label: 'Failed/s', value: (f) => -f.failures },
  { key: 'p50', label: 'p50', value: (f) => -f.p50 },
  { key: 'p99', label: 'p99', value: (f) => -f.p99 },
  { key: 'curve', label: 'Last 5 minutes' },
];

const points = 30;

// curve is the path of one point for each ten seconds, as high as the highest.
function curve(values, top, closed) {
  const at = values.map((v, i) => `${i},${(20 - (18 * v) / top).toFixed(1)}`);
  return `M${at.join('L')}${closed ? `L${points - 1},20L0,20Z` : ''}`;
}

// spikes is the path of those points that are not 0, and their neighbours.
function spikes(values, top) {
  let path = '';
  let drawing = false;
  values.forEach((v, i) => {
    const near = v > 0 || values[i - 1] > 0 || values[i + 1] > 0;
    if (near) path += `${drawing ? 'L' : 'M'}${i},${(20 - (18 * v) / top).toFixed(1)}`;
    drawing = near;
  });
  return path;
}

// A Curve is drawn anew where it has changed.
export class Curve {
  constructor() {
    this.area = svg('path', { class: 'area' });
    this.line = svg('path', { class: 'line', 'vector-effect': 'non-scaling-stroke' });
    this.failed = svg('path', { class: 'failed', 'vector-effect': 'non-scaling-stroke' });
    this.element = svg('svg', { viewBox: `0 0 ${points - 1} 20`, preserveAspectRatio: 'none', 'aria-hidden': 'true', class: 'curve' }, this.area, this.line, this.failed);
    this.key = '';
  }

  update(f) {
    const key = `${f.curve ?? ''}|${f.failed ?? ''}`;
    if (key === this.key) return;
    this.key = key;
    const top = Math.max(1, ...(f.curve ?? []));
    setAttribute(this.area, 'd', f.curve ? curve(f.curve, top, true) : '');
    setAttribute(this.line, 'd', f.curve ? curve(f.curve, top) : '');
    setAttribute(this.failed, 'd', f.failed ? spikes(f.failed, top) : '');
  }
}

// A Row is one function's. It touches the page where a value has changed.
class Row {
  constructor(name) {
    const cell = (key, label) => h('td', { role: 'cell', class: `c-${key}`, 'data-label': label });
    this.name = name;
    this.state = h('td', { role: 'cell', class: 'c-state' }, h('span', { class: 'mark', 'aria-hidden': 'true' }), h('span', { class: 'words' }));
    this.words = this.state.lastChild;
    this.replicas = cell('replicas', 'replicas');
    this.calls = cell('calls', 'calls/s');
    this.failures = cell('failures', 'failed/s');
    this.p50 = cell('p50', 'p50');
    this.p99 = cell('p99', 'p99');
    this.curve = new Curve();
    this.element = h('tr', { role: 'row' },
      h('th', { role: 'rowheader', scope: 'row', class: 'c-name' }, h('a', { href: `#/function/${encodeURIComponent(name)}` }, name)),
      this.state, this.replicas, this.calls, this.failures, this.p50, this.p99,
      h('td', { role: 'cell', class: 'c-curve' }, this.curve.element));
  }

  // place is that among all rows, from 0.
  update(f, place) {
    setAttribute(this.element, 'aria-rowindex', String(place + 2));
    const text = words(f);
    setText(this.words, text);
    setAttribute(this.words, 'title', text);
    setAttribute(this.element, 'data-tone', tone(f));
    setText(this.replicas, `${f.ready} / ${f.wanted}`);
    setText(this.calls, rate(f.calls));
    setText(this.failures, rate(f.failures));
    setAttribute(this.failures, 'data-bad', String(f.failures > 0));
    setText(this.p50, duration(f.p50));
    setText(this.p99, duration(f.p99));
    this.curve.update(f);
  }
}

const overscan = 8; // rows that are kept above and below what is visible
const calm = 3000; // milliseconds after the pointer has moved over the rows, or while one has the focus, in which they keep their places

const saved = { sort: 'state', search: '' }; // while the page is open

// listView keeps only those rows in the page that can be seen, and some around them:
// of 500 functions a refresh touches thirty.
export function listView(first) {
  const rows = new Map(); // that are in the page, by name
  let list = [];
  let sorted = []; // those that are searched for, in order
  let height = 40; // of a row
  let frame = 0;
  let pointed = -calm;

  const search = h('input', { type: 'search', placeholder: 'Search', 'aria-label': 'Search functions', value: saved.search, oninput: () => { saved.search = search.value; arrange(true); } });
  const order = h('select', { 'aria-label': 'Sort by', class: 'order', onchange: () => sortBy(order.value) },
    columns.filter((c) => c.value).map((c) => h('option', { value: c.key }, c.label)));
  const summary = h('p', { class: 'summary' });
  const heads = columns.map((c) => h('th', { role: 'columnheader', scope: 'col', class: `c-${c.key}` },
    c.value ? h('button', { type: 'button', onclick: () => sortBy(c.key) }, c.label) : c.label));
  const body = h('tbody', { role: 'rowgroup', onpointermove: () => { pointed = performance.now(); } });
  const table = h('table', { role: 'table', class: 'functions', 'aria-label': 'Functions' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heads)), body);
  const nothing = h('div', { class: 'empty', hidden: true });

  function sortBy(key) {
    saved.sort = key;
    arrange(true);
  }

  // arrange decides what is shown in which order. Rows do not move away from under
  // a pointer or from the focus, unless they are told to.
  function arrange(told) {
    const column = columns.find((c) => c.key === saved.sort);
    const wanted = saved.search.trim().toLowerCase();
    const found = wanted === '' ? list : list.filter((f) => f.name.toLowerCase().includes(wanted) || words(f).toLowerCase().includes(wanted));
    let value = (f) => column.value(f);
    if (!told && (performance.now() - pointed < calm || body.contains(document.activeElement))) {
      const places = new Map(sorted.map((f, i) => [f.name, i]));
      value = (f) => places.get(f.name) ?? places.size;
    }
    sorted = found.map((f) => [value(f), f])
      .sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x.name < y.name ? -1 : 1)).map(([, f]) => f);
    columns.forEach((c, i) => {
      if (c === column) heads[i].setAttribute('aria-sort', c.key === 'name' || c.key === 'state' ? 'ascending' : 'descending');
      else heads[i].removeAttribute('aria-sort');
    });
    order.value = saved.sort;
    setAttribute(table, 'aria-rowcount', String(sorted.length + 1));
    showNothing(list.length === 0 ? 'none' : sorted.length === 0 ? 'unfound' : '');
    render();
  }

  function render() {
    frame = 0;
    const above = -body.getBoundingClientRect().top;
    const start = Math.max(0, Math.min(Math.floor(above / height) - overscan, sorted.length - 1));
    const end = Math.min(sorted.length, Math.ceil((above + innerHeight) / height) + overscan);
    const visible = sorted.slice(start, Math.max(start, end));
    const names = new Set(visible.map((f) => f.name));
    for (const [name, row] of rows) {
      if (!names.has(name)) {
        row.element.remove();
        rows.delete(name);
      }
    }
    const focused = document.activeElement; // moving a row takes the focus from it
    let at = body.firstChild;
    visible.forEach((f, i) => {
      let row = rows.get(f.name);
      if (!row) rows.set(f.name, row = new Row(f.name));
      if (row.element === at) at = at.nextSibling;
      else body.insertBefore(row.element, at);
      row.update(f, start + i);
    });
    if (body.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
    pad('paddingTop', start);
    pad('paddingBottom', sorted.length - start - visible.length);
  }

  // pad stands for rows that are not in the page.
  function pad(side, count) {
    const wanted = `${count * height}px`;
    if (body.style[side] !== wanted) body.style[side] = wanted;
  }

  function soon() {
    frame ||= requestAnimationFrame(render);
  }

  function measure() {
    const row = body.firstElementChild;
    if (row) height = row.getBoundingClientRect().height || height;
    soon();
  }

  function showNothing(kind) {
    table.hidden = kind !== '';
    nothing.hidden = kind === '';
    if (nothing.dataset.kind === kind) return;
    nothing.dataset.kind = kind;
    nothing.replaceChildren(...(kind === 'none' ? firstSteps(first) : [h('p', {}, 'No function has that in its name or state.')]));
  }

  function summarize() {
    const bad = list.filter((f) => tone(f) === 'bad').length;
    const calls = sum(list.map((f) => f.calls));
    const failures = sum(list.map((f) => f.failures));
    summary.dataset.tone = bad ? 'bad' : 'good';
    const busy = list.filter((f) => tone(f) === 'busy').length;
    const state = bad ? `${bad} ${bad === 1 ? 'needs' : 'need'} attention` : busy ? `${busy} not settled` : 'all well';
    const words = `${list.length} ${list.length === 1 ? 'function' : 'functions'}, ${state}`;
    setText(summary, `${words} · ${rate(calls)} calls/s · ${rate(failures)} failed/s`);
  }

  function update(overview) {
    const first = rows.size === 0;
    list = overview.functions;
    summarize();
    arrange();
    if (first) measure();
  }

  addEventListener('scroll', soon, { passive: true });
  addEventListener('resize', measure);

  return {
    name: 'list', title: 'Functions', update,
    elements: [
      h('div', { class: 'bar' }, h('h1', {}, 'Functions'), summary, search, order),
      table, nothing,
    ],
    close() {
      cancelAnimationFrame(frame);
      removeEventListener('scroll', soon);
      removeEventListener('resize', measure);
    },
  };
}

// firstSteps tell how to make the first function.
function firstSteps({ provider, can, network }) {
  const command = provider === 'local'
    ? "go run . -function 'shout=tr a-z A-Z'"
    : `docker service create --name hello --network ${network} --label com.openfaas.scale.max=5 faas/catservice`;
  return [
    h('h2', {}, 'There are no functions yet'),
    h('p', {}, provider === 'local' ? 'Start the gateway with one:' : 'Every service on the network of functions is one:'),
    h('pre', {}, h('code', {}, command)),
    can.deploy && can.write ? h('p', {}, 'Or ', h('a', { href: '#/deploy' }, 'deploy one here'), '.') : '',
  ];
}
