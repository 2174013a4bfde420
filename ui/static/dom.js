// Elements and words. Text goes into the page as text alone: there is no way here
// from a string to HTML, and the page's policy forbids all others.

// h makes an element. Of props, functions become listeners, true and false boolean
// attributes, undefined nothing; "value" and "checked" are set as properties.
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked') element[name] = value;
    else if (typeof value === 'boolean') element.toggleAttribute(name, value);
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return element;
}

// svg makes an element of SVG.
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// setText and setAttribute touch the page only where something changes.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

let fields = 0;

// field is a labelled control. hint stands below it and describes it.
export function field(label, control, hint) {
  control.id ||= `field-${++fields}`;
  const parts = [h('label', { for: control.id }, label), control];
  if (hint) {
    const id = `${control.id}-hint`;
    control.setAttribute('aria-describedby', id);
    parts.push(h('p', { class: 'hint', id }, hint));
  }
  return h('div', { class: 'field' }, parts);
}

// say has a screen reader say something that the page shows as well.
export function say(text) {
  document.getElementById('live').textContent = text;
}

// outcome is the line below a form that says what became of it.
export function outcome() {
  const element = h('p', { class: 'outcome', role: 'status' });
  return {
    element,
    show(text, kind = '') {
      element.textContent = text;
      element.dataset.kind = kind;
    },
  };
}

// copyButton copies what text returns, or selects it in from where the browser
// does not let the page copy (without TLS it lets localhost alone).
export function copyButton(name, text, from) {
  const button = h('button', { type: 'button', class: 'quiet' }, 'Copy');
  button.setAttribute('aria-label', `Copy ${name}`);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
      say(`${name} copied`);
    } catch {
      getSelection().selectAllChildren(from);
      say(`${name} selected`);
    }
  });
  return button;
}

// Numbers, in as few characters as say enough.

export function rate(perSecond) {
  if (perSecond === 0) return '0';
  if (perSecond < 0.1) return '<0.1';
  if (perSecond < 10) return perSecond.toFixed(1);
  return Math.round(perSecond).toLocaleString('en');
}

export function duration(seconds) {
  if (!seconds) return '–';
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  return `${Math.round(seconds)} s`;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function clock(time) {
  return time.toLocaleTimeString('en-GB');
}

// quote writes a word for a shell.
export function quote(word) {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
