// Requests to the gateway. The login is kept in this module's memory alone, and
// sent by it with each request to /system/: no cookie and no login of the browser,
// so that no other page can make use of it. A function's own HTML has the same
// origin as this page.

let authorization = '';

// A Refused is an answer that is none of the good ones.
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const session = new EventTarget(); // 'login': the API wants one; 'readonly': it may not write

export function login(user, password) {
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  authorization = `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

export function logout() {
  authorization = '';
}

export const loggedIn = () => authorization !== '';

// url is that of a path of the gateway, which may itself be below a path.
export const url = (path) => new URL(`../${path}`, document.baseURI);

// send asks the API, and returns the answer. body is sent as JSON.
export async function send(method, path, body, signal) {
  const headers = {};
  if (authorization) headers.Authorization = authorization;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(url(path), {
      method, headers, signal, credentials: 'omit', cache: 'no-store', redirect: 'error',
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, 'The gateway does not answer.');
  }
  if (response.ok) return response;
  const text = (await response.text()).trim() || response.statusText || `status ${response.status}`;
  if (response.status === 401) {
    authorization = '';
    session.dispatchEvent(new Event('login'));
  }
  throw new Refused(response.status, text);
}

export const get = async (path, signal) => (await send('GET', path, undefined, signal)).json();

// access asks whether the API wants a login.
export async function access() {
  try {
    return await (await fetch(new URL('access', document.baseURI), { credentials: 'omit', cache: 'no-store' })).json();
  } catch {
    throw new Refused(0, 'The gateway does not answer.');
  }
}

// lines calls each with every object of a stream of JSON lines, until it ends.
export async function lines(path, signal, each) {
  const response = await send('GET', path, undefined, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    for (const part of parts) if (part) each(JSON.parse(part));
  }
}

// every runs task now and then, while the page is visible: pause milliseconds after
// the last run has ended. It returns a function that ends it, and one that runs the
// task at once.
export function every(pause, task) {
  let timer = 0;
  let ended = false;
  let running = false;
  let again = false;
  async function run() {
    clearTimeout(timer);
    if (ended) return;
    if (running) {
      again = true;
      return;
    }
    if (document.hidden) return; // visibilitychange calls
    running = true;
    try {
      await task();
    } finally {
      running = false;
      if (!ended) timer = setTimeout(run, again ? 0 : pause);
      again = false;
    }
  }
  const shown = () => { if (!document.hidden) run(); };
  document.addEventListener('visibilitychange', shown);
  run();
  return {
    now: run,
    end() {
      ended = true;
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', shown);
    },
  };
}
