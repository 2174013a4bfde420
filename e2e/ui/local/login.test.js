// Who may do what: the login, a wrong password, a gateway that is read only, and
// what the local provider cannot do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accessible, eventually, everywhere, launch, shoot, view, visit } from '../browser.js';
import { credentials, functions, password, reader, start, user } from '../gateway.js';

const flags = functions();
const closed = await start([...flags, '-auth-dir', credentials()]);
const open = await start(flags);
const browser = await launch();

async function login(p, word, name = user) {
  await p.getByLabel('User').fill(name);
  await p.getByLabel('Password').fill(word);
  await p.getByRole('button', { name: 'Log in' }).click();
}

test('wrong password, then the right one', async (t) => {
  const p = await visit(t, browser, closed, { refused: ['401 /system/'] });
  await view(p, 'login');
  await shoot(p, 'login');
  await login(p, 'wrong');
  await p.getByText('User or password is wrong.').waitFor();
  await accessible(p, 'wrong password');
  await login(p, password);
  await view(p, 'list');
  await p.getByRole('link', { name: 'text', exact: true }).waitFor();
  assert.equal(await p.evaluate(() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)), '{}{}', 'the login is kept nowhere');
  assert.doesNotMatch(p.url(), new RegExp(password));

  await p.reload();
  await view(p, 'login');
});

test('a login counts for every view', async (t) => {
  const p = await visit(t, browser, `${closed}#/function/talker`, { refused: ['401 /system/'] });
  await login(p, password);
  await view(p, 'function');
  await p.getByRole('heading', { name: 'talker', level: 1 }).waitFor();
  await p.getByRole('region', { name: 'Replicas' }).getByText('1 ready of 1 wanted.').waitFor();
});

test('the local provider deploys nothing, and says so', async (t) => {
  const p = await visit(t, browser, open);
  await view(p, 'list');
  await p.getByText('they are named by -function').waitFor();
  for (const name of ['Deploy', 'Secrets', 'Queue']) assert.ok(!await p.getByRole('link', { name }).isVisible(), name);
});

test('read only: what changes things is not there, and the page says so', async (t) => {
  const p = await visit(t, browser, `${closed}#/function/text`, { refused: ['401 /system/'] });
  await login(p, password, reader);
  await view(p, 'function');
  await p.getByText(/^Read only:/).waitFor();
  await p.getByRole('button', { name: 'Call', exact: true }).click();
  await p.getByRole('region', { name: 'Answer' }).getByText(/^200 /).waitFor();
  await p.getByRole('region', { name: 'Replicas' }).getByText('1 ready of 1 wanted.').waitFor();
  for (const name of ['Set', 'Update', 'Delete']) assert.equal(await p.getByRole('button', { name }).count(), 0, name);
  await everywhere(p, 'local-read-only');
});

const overview = /\/system\/overview/;

test('the login ends, and the next one shows what the address names by then', async (t) => {
  let send;
  const p = await visit(t, browser, closed, {
    refused: ['401 /system/'],
    prepare: (p) => p.route('**/function.js', (route) => { send = () => route.continue(); }),
  });
  await login(p, password);
  await view(p, 'list');
  await p.route(overview, (route) => route.fulfill({ status: 401 }));
  await view(p, 'login');
  await p.unroute(overview);
  await p.evaluate(() => { location.hash = '#/function/text'; });
  let answer;
  await p.route(overview, (route) => { answer = () => route.continue(); });
  await login(p, password);
  await eventually('function', async () => typeof answer, 'the first overview is asked for');
  await send();
  await p.evaluate(() => import('./function.js')); // the module is there before the overview
  await p.unroute(overview);
  await answer();
  await view(p, 'function');
  await p.getByRole('heading', { name: 'text', level: 1 }).waitFor();
  await p.getByText(/^local ·/).waitFor();
});

test('closed for a while', async (t) => {
  const p = await visit(t, browser, open, { refused: ['403 /system/'] });
  await view(p, 'list');
  await p.route(overview, (route) => route.fulfill({ status: 403, body: 'closed' }));
  await p.getByRole('heading', { name: 'Closed' }).waitFor();
  await p.unroute(overview);
  await p.getByRole('button', { name: 'Try again' }).click();
  await view(p, 'list');
  await p.getByRole('link', { name: 'text', exact: true }).waitFor();
});
