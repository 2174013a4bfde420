// Which view an address shows, and what is shown when it cannot be.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, launch, view, visit } from '../browser.js';
import { functions, start } from '../gateway.js';

const page = await start(functions());
const browser = await launch();

test('a function that there is not', async (t) => {
  const p = await visit(t, browser, `${page}#/function/nosuch`, { refused: ['404 /system/'] });
  await p.getByText('There is no function of this name.').waitFor();
});

test('a part of the page that does not come', async (t) => {
  const p = await visit(t, browser, page, {
    refused: ['503 /ui/function.js'],
    prepare: (p) => p.route('**/function.js', (route) => route.fulfill({ status: 503 })),
  });
  await p.getByRole('link', { name: 'text', exact: true }).click();
  await p.getByRole('heading', { name: 'did not send this part' }).waitFor();
  await p.unroute('**/function.js');
  await p.getByRole('button', { name: 'Reload the page' }).click();
  await view(p, 'function');
});

test('a view that comes late is not made', async (t) => {
  let send;
  const asked = [];
  const p = await visit(t, browser, page, {
    prepare: (p) => {
      p.on('request', (r) => asked.push(new URL(r.url()).pathname));
      return p.route('**/function.js', (route) => { send = () => route.continue(); });
    },
  });
  await p.getByRole('link', { name: 'text', exact: true }).click();
  await eventually('function', async () => typeof send, 'the request for the module');
  await p.getByRole('link', { name: 'faas', exact: true }).click();
  const loaded = p.waitForResponse('**/function.js');
  await send();
  await loaded;
  await p.evaluate(() => import('./function.js')); // and run
  assert.equal(await p.locator('main').getAttribute('data-view'), 'list');
  assert.equal(await p.getByRole('link', { name: 'text', exact: true }).count(), 1);
  assert.deepEqual(asked.filter((path) => /^\/system\/(logs|function\/)/.test(path)), [], 'what is not shown asks for nothing');
});
