// The frame of the page: which view is shown, the login, and the state of the
// gateway, asked for every two seconds while the page is visible.

import { access, every, get, loggedIn, login, logout, session } from './api.js';
import { clock, field, h, outcome, say, setText } from './dom.js';

const main = document.getElementById('main');
const notices = document.getElementById('notices');
const connection = document.getElementById('connection');

// A view is made for an address. It has a name, a title, its elements, and may have
// the path that it is kept up to date from, update(overview) and close().
let view;
let latest; // the last overview
let polling;

// A route is the form of an address, the module of its view, and what makes the view.
const routes = [
  [/^#\/function\/([^/]+)$/, './function.js', (module, name) => oneFunction(module, decodeURIComponent(name))],
  [/^#\/deploy$/, './deploy.js', (module) => module.deployView(latest)],
  [/^#\/secrets$/, './secrets.js', (module) => module.secretsView(latest)],
  [/^#\/queue$/, './queue.js', (module) => module.queueView(latest)],
  [/^(#\/?)?$/, './list.js', (module) => module.listView(latest)],
];

// loadAll loads what the first list does not wait for. Where that fails, the view says
// so when it is asked for.
function loadAll() {
  for (const [, file] of routes) import(file).catch(() => {});
}

// oneFunction shows a function, or that there is none of that name: one that was just
// deployed is shown as soon as it is known.
function oneFunction(module, name) {
  const known = (overview) => overview.functions.some((f) => f.name === name);
  if (known(latest)) return module.functionView(name, latest, refresh);
  const { hash } = location;
  const text = h('p', { role: 'status' }, 'Looking for it…');
  let asked = 0;
  return {
    name: 'none', title: name,
    elements: [h('div', { class: 'bar head' }, h('a', { href: '#/', class: 'back' }, 'Functions'), h('h1', { class: 'name' }, name)), text],
    update(overview) {
      if (known(overview) && location.hash === hash) route();
      else if (asked++) setText(text, 'There is no function of this name.');
    },
  };
}

function refresh() {
  return polling?.now();
}

let turn = 0; // counts what is shown and asked for: a module that comes late makes no view

function show(next) {
  turn++;
  view?.close?.();
  view = next;
  main.dataset.view = view.name;
  document.title = `${view.title} · faas`;
  main.replaceChildren(...view.elements);
  for (const link of document.querySelectorAll('[data-nav]')) {
    if (link.dataset.nav === view.name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

// route shows what the address names. Focus moves to the new heading, so that
// keyboard and screen reader go on from there.
async function route(event) {
  const { hash } = location;
  if (event && hash && !hash.startsWith('#/')) return;
  if (!latest) return; // the first overview shows it
  const mine = ++turn;
  const make = await named(hash);
  if (mine !== turn) return;
  show(make());
  view.update?.(latest);
  if (!event) return;
  scrollTo(0, 0);
  const heading = main.querySelector('h1');
  heading?.setAttribute('tabindex', '-1');
  heading?.focus({ preventScroll: true });
  refresh();
}

// named returns what makes the view of an address, once its module is there.
async function named(hash) {
  for (const [pattern, file, make] of routes) {
    const match = pattern.exec(hash);
    if (!match) continue;
    try {
      const module = await import(file);
      return () => make(module, ...match.slice(1));
    } catch {
      return () => message('Not loaded', 'The gateway did not send this part of the page',
        h('button', { type: 'button', class: 'primary', onclick: () => location.reload() }, 'Reload the page'));
    }
  }
  return () => message('Not found', 'There is no such view', h('p', {}, h('a', { href: '#/' }, 'All functions')));
}

const message = (title, heading, way) => ({ name: 'none', title, elements: [h('h1', {}, heading), way] });

function connected(state, text) {
  connection.dataset.state = state;
  setText(document.getElementById('connection-text'), text);
}

// merged replaces those of all that are in some.
function merged(all, some) {
  return [...all.filter((f) => !some.some((g) => g.name === f.name)), ...some];
}

let entered = false; // the API lets this page in

// enter asks whether a login is needed: a request without one would be refused, and
// the browser would note an error.
async function enter() {
  const { state, text } = await access();
  entered = state === 'open' || loggedIn();
  if (state === 'closed') showLogin(text);
  else if (!entered) showLogin();
  return entered;
}

async function poll() {
  if (view?.name === 'login') return;
  const asked = view;
  let overview;
  try {
    if (!entered && !(await enter())) return;
    overview = await get(asked?.path ?? 'system/overview');
  } catch (error) {
    if (error.status === 401) return;
    if (error.status === 403) {
      entered = false;
      showLogin(error.message);
    }
    else if (error.status === 404 && asked?.path) {
      if (view === asked) view.gone?.();
    }
    else if (connection.dataset.state !== 'lost') {
      connected('lost', latest ? `No answer since ${clock(latest.at)}` : 'No answer');
      say('The gateway does not answer.');
    }
    return;
  }
  if (view?.name === 'login') return; // another request was refused meanwhile
  const first = !latest;
  if (first && asked?.path) return; // one function is no list
  const whole = asked?.path ? merged(latest.functions, overview.functions) : overview.functions;
  latest = { ...overview, functions: whole, at: new Date() };
  connected(overview.problem ? 'lost' : 'live', `${overview.provider} · ${clock(latest.at)}`);
  showAbilities(overview);
  if (first) {
    route();
    setTimeout(() => {
      refresh(); // reasons are found out when somebody looks
      loadAll();
    }, 600);
  } else if (view === asked) {
    view?.update?.(overview);
  }
}

function showAbilities({ can, problem, provider }) {
  const shown = { deploy: can.deploy && can.write, secrets: can.secrets, async: can.async };
  for (const [name, on] of Object.entries(shown)) {
    document.querySelector(`[data-nav=${name}]`).parentElement.hidden = !on;
  }
  const words = [];
  if (problem) words.push(['trouble', problem]);
  if (!can.write) words.push(['readonly', 'Read only: this login may look and call, and change nothing.']);
  if (provider === 'local' && !can.deploy && can.write) {
    words.push(['local', 'Functions are programs of this machine: they are named by -function when the gateway starts, not deployed here.']);
  }
  const key = JSON.stringify(words);
  if (notices.dataset.key === key) return;
  notices.dataset.key = key;
  notices.replaceChildren(...words.map(([kind, text]) => h('p', { class: 'notice', 'data-kind': kind, role: kind === 'trouble' ? 'alert' : undefined }, text)));
}

function showLogin(closed) {
  if (view?.name === 'login') return;
  const user = h('input', { name: 'username', autocomplete: 'username', required: true, value: 'admin', spellcheck: 'false', autocapitalize: 'off' });
  const password = h('input', { name: 'password', type: 'password', autocomplete: 'current-password', required: true });
  const result = outcome();
  const button = h('button', { type: 'submit', class: 'primary' }, 'Log in');
  const form = h('form', {
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      result.show('Asking the gateway…');
      login(user.value, password.value);
      try {
        await get('system/info');
        view = undefined;
        connected('waiting', 'Connecting');
        refresh();
      } catch (error) {
        logout();
        result.show(error.status === 401 ? 'User or password is wrong.' : error.message, 'bad');
        password.select();
      } finally {
        button.disabled = false;
      }
    },
  }, field('User', user), field('Password', password), button, result.element);
  connected('waiting', 'Not logged in');
  notices.replaceChildren();
  delete notices.dataset.key;
  for (const link of document.querySelectorAll('[data-nav=deploy], [data-nav=secrets], [data-nav=async]')) link.parentElement.hidden = true;
  latest = undefined; // the first overview after the login shows what the address names
  show({
    name: 'login', title: 'Log in',
    elements: [h('section', { class: 'login' },
      h('h1', {}, closed ? 'Closed' : 'Log in'),
      closed ? h('p', { role: 'alert' }, closed)
        : h('p', { class: 'hint' }, 'With the user and password of the control plane, which make deploy printed. They are forgotten when the page is closed or reloaded.'),
      closed ? h('button', { type: 'button', onclick: () => { view = undefined; refresh(); } }, 'Try again') : form)],
  });
  if (!closed) (user.value ? password : user).focus();
}

session.addEventListener('login', () => { entered = false; if (view?.name !== 'login') showLogin(); });
addEventListener('hashchange', route);
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select, dialog');
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = main.querySelector('input[type=search]');
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
});

polling = every(2000, poll);
