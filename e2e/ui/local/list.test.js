// The list of functions: what it shows, search, sort, and what somebody without
// JavaScript sees.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, launch, view, visit } from '../browser.js';
import { call, functions, longest, markup, start } from '../gateway.js';

const page = await start(functions());
const empty = await start(['-samples=false']);
const browser = await launch();

const names = (p) => p.getByRole('rowheader').allInnerTexts();
const row = (p, name) => p.getByRole('row').filter({ has: p.getByRole('link', { name, exact: true }) });

test('every function has a row', async (t) => {
  const p = await visit(t, browser, page);
  await view(p, 'list');
  assert.match(await p.title(), /^Functions/);
  await row(p, 'text').waitFor();
  assert.deepEqual((await names(p)).sort(), ['drawing', 'failing', 'file', 'gone', 'image', 'json', longest, 'page', 'request', 'talker', 'text'].sort());
  assert.match(await row(p, 'text').innerText(), /Ready\s+1 \/ 1/);
});

test('the longest name is whole, and inside the page', async (t) => {
  const p = await visit(t, browser, page);
  const link = p.getByRole('link', { name: longest, exact: true });
  await link.waitFor();
  assert.equal(longest.length, 63);
  assert.equal(await link.innerText(), longest);
  const box = await link.boundingBox();
  assert.ok(box.x >= 0 && box.x + box.width <= 1280, `got ${JSON.stringify(box)}`);
});

test('calls and failures are counted', async (t) => {
  const p = await visit(t, browser, page);
  await row(p, 'failing').waitFor();
  for (let i = 0; i < 20; i++) {
    await call(page, 'text', 'hello');
    await call(page, 'failing');
  }
  const cell = (name, column) => row(p, name).getByRole('cell').nth(column).innerText();
  await eventually(/^[\d.]+$/, async () => { const v = await cell('text', 2); return v === '0' ? '' : v; }, 'calls per second');
  await eventually(/^[\d.]+$/, async () => { const v = await cell('failing', 3); return v === '0' ? '' : v; }, 'failures per second');
  await eventually(/calls failed/, () => cell('failing', 0), 'the state of what fails');
  await eventually(/[µm]?s$/, () => cell('text', 4), 'p50');
  await eventually(/[µm]?s$/, () => cell('text', 5), 'p99');
  assert.equal(await cell('text', 3), '0');
  await eventually(/^M/, () => row(p, 'text').locator('path.line').getAttribute('d'), 'the curve');
});

test('replicas that nobody answers for', async (t) => {
  const p = await visit(t, browser, page);
  await row(p, 'gone').waitFor();
  await call(page, 'gone');
  await eventually(/100 % of calls failed/, () => row(p, 'gone').getByRole('cell').first().innerText(), 'the state in words');
});

test('search', async (t) => {
  const p = await visit(t, browser, page);
  await row(p, 'text').waitFor();
  const search = p.getByRole('searchbox', { name: 'Search functions' });
  await p.keyboard.press('/');
  assert.ok(await search.evaluate((e) => e === document.activeElement), 'the key / goes to the search');
  await search.fill('IMA');
  assert.deepEqual(await names(p), ['image']);
  await search.fill(markup);
  assert.deepEqual(await names(p), []);
  await p.getByText('No function has that').waitFor();
  await search.fill('');
  await eventually(11, async () => (await names(p)).length, 'rows');
});

test('sort', async (t) => {
  const p = await visit(t, browser, page);
  await row(p, 'text').waitFor();
  await p.getByRole('button', { name: 'Function', exact: true }).click();
  const byName = await names(p);
  assert.deepEqual(byName, [...byName].sort((a, b) => (a < b ? -1 : 1)));
  assert.equal(await p.getByRole('columnheader', { name: 'Function' }).getAttribute('aria-sort'), 'ascending');
  for (let i = 0; i < 30; i++) await call(page, 'json');
  await p.getByRole('button', { name: 'Calls/s' }).click();
  await eventually('json', async () => (await names(p))[0], 'the function with most calls first');
  await p.getByRole('button', { name: 'State' }).click();
  await eventually(/^(failing|gone)$/, async () => (await names(p))[0], 'what needs somebody first');
});

test('an empty list tells how to make a function', async (t) => {
  const p = await visit(t, browser, empty);
  await p.getByRole('heading', { name: 'There are no functions yet' }).waitFor();
  assert.match(await p.locator('main').innerText(), /go run \. -function/);
});

test('without JavaScript it says so', async (t) => {
  const p = await visit(t, browser, page, { noscript: true });
  assert.match(await p.locator('main').innerText(), /needs JavaScript[^]*\/system\//);
});
