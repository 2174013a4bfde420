// A function's log: what its replicas say, as it comes.

import { lines } from './api.js';
import { h, setText } from './dom.js';

const past = 200; // lines of the past, of each replica
const most = 2000; // lines that are kept
const again = 2000; // milliseconds until a stream that ended is opened again

export function logSection(name) {
  const follow = h('input', { type: 'checkbox', checked: true, onchange: () => restart() });
  const pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => setPaused(!paused) }, 'Pause');
  const clear = h('button', { type: 'button', onclick: () => { view.replaceChildren(); kept.length = 0; count(); } }, 'Clear');
  const search = h('input', { type: 'search', placeholder: 'Search', 'aria-label': 'Search the log', oninput: filter });
  const status = h('p', { class: 'hint', role: 'status' });
  const view = h('div', { class: 'lines', role: 'log', 'aria-live': 'off', 'aria-label': `Log of ${name}`, tabindex: '0' });
  const kept = []; // { element, text }, the oldest first
  let waiting = []; // lines that are not shown yet
  let paused = false;
  let frame = 0;
  let stream;
  let timer = 0;
  let last = ''; // timestamp of the newest line
  let sameTime = new Set(); // lines that have it
  let problem = '';

  async function open() {
    const mine = stream = new AbortController();
    const query = new URLSearchParams({ name, follow: follow.checked });
    if (last) query.set('since', last);
    else query.set('tail', past);
    try {
      problem = '';
      count();
      await lines(`system/logs?${query}`, mine.signal, take);
      if (!follow.checked) return;
      problem = 'The stream ended; it is opened again.';
    } catch (error) {
      if (mine.signal.aborted) return;
      problem = error.status ? error.message : 'The stream broke off; it is opened again.';
      if (error.status === 404 || error.status === 501 || error.status === 401) return;
    } finally {
      count();
    }
    if (!mine.signal.aborted && follow.checked) timer = setTimeout(open, again);
  }

  function restart() {
    stream?.abort();
    clearTimeout(timer);
    open();
  }

  // take gets each line. After a break the stream begins with the last one's time.
  function take(line) {
    const key = `${line.instance} ${line.text}`;
    if (line.timestamp === last) {
      if (sameTime.has(key)) return;
    } else {
      if (line.timestamp < last && !sameTime.size) return;
      sameTime = new Set();
    }
    if (line.timestamp >= last) last = line.timestamp;
    sameTime.add(key);
    waiting.push(line);
    if (waiting.length > most) waiting.shift();
    if (!paused && !frame) frame = requestAnimationFrame(flush);
    if (paused) count();
  }

  function flush() {
    frame = 0;
    const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 30;
    const wanted = search.value.toLowerCase();
    const added = waiting.splice(0, 300).map((line) => {
      const time = new Date(line.timestamp);
      const element = h('p', {},
        h('time', { datetime: line.timestamp, title: line.timestamp }, time.toLocaleTimeString('en-GB')),
        h('span', { class: 'instance', title: line.instance }, short(line.instance)),
        h('span', { class: 'text' }, line.text));
      element.hidden = wanted !== '' && !line.text.toLowerCase().includes(wanted);
      kept.push({ element, text: line.text });
      return element;
    });
    view.append(...added);
    for (const { element } of kept.splice(0, Math.max(0, kept.length - most))) element.remove();
    if (atEnd && follow.checked) view.scrollTop = view.scrollHeight;
    count();
    if (waiting.length) frame = requestAnimationFrame(flush);
  }

  function setPaused(on) {
    paused = on;
    pause.setAttribute('aria-pressed', String(on));
    setText(pause, on ? 'Go on' : 'Pause');
    if (!on && !frame) frame = requestAnimationFrame(flush);
    count();
  }

  function filter() {
    const wanted = search.value.toLowerCase();
    for (const { element, text } of kept) element.hidden = wanted !== '' && !text.toLowerCase().includes(wanted);
    view.scrollTop = view.scrollHeight;
    count();
  }

  let counting = 0;
  function count() {
    if (counting) return;
    counting = setTimeout(() => {
      counting = 0;
      const shown = search.value ? kept.filter((k) => !k.element.hidden).length : kept.length;
      let text = search.value ? `${shown} of ${kept.length} lines` : `${kept.length} ${kept.length === 1 ? 'line' : 'lines'}`;
      if (kept.length === 0 && !problem) text = 'Nothing has been written yet.';
      if (paused) text += `, paused, ${waiting.length} more`;
      setText(status, problem ? `${text} · ${problem}` : text);
    }, 250);
  }

  open();

  return {
    element: h('section', { class: 'panel log', 'aria-labelledby': 'log-heading' },
      h('div', { class: 'bar' }, h('h2', { id: 'log-heading' }, 'Log'),
        h('label', { class: 'check' }, follow, 'Follow'), pause, clear, search),
      view, status),
    close() {
      stream?.abort();
      clearTimeout(timer);
      clearTimeout(counting);
      cancelAnimationFrame(frame);
    },
  };
}

// short is the end of a replica's name that tells it from its siblings.
function short(instance) {
  return instance.includes(':') ? instance.slice(instance.lastIndexOf(':')) : instance.slice(0, 8);
}
