// The log of a function: follow, pause, search; and its replicas by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, launch, view, visit } from '../browser.js';
import { call, functions, markup, start } from '../gateway.js';

const page = await start(functions());
const browser = await launch();

async function open(t, name) {
  const p = await visit(t, browser, `${page}#/function/${name}`);
  await view(p, 'function');
  return [p, p.getByRole('region', { name: 'Log', exact: true }), p.getByRole('log')];
}

test('follow, pause, search', async (t) => {
  const [p, section, log] = await open(t, 'talker');
  await call(page, 'talker', 'first line\n');
  await log.getByText('first line').waitFor();
  await call(page, 'talker', `a line with ${markup}\n`);
  await log.getByText(`a line with ${markup}`).waitFor();
  assert.equal(await log.locator('script, img').count(), 0);

  await section.getByRole('button', { name: 'Pause' }).click();
  await call(page, 'talker', 'while paused\n');
  await section.getByText(/paused, [1-9]\d* more/).waitFor();
  assert.equal(await log.getByText('while paused').count(), 0);
  await section.getByRole('button', { name: 'Go on' }).click();
  await log.getByText('while paused').waitFor();

  await section.getByRole('searchbox').fill('FIRST');
  assert.ok(await log.getByText('first line').isVisible());
  assert.ok(!await log.getByText('while paused').isVisible());
  await call(page, 'talker', 'another first\nand none\n');
  await log.getByText('another first').waitFor();
  assert.ok(!await log.getByText('and none').isVisible());
  await section.getByRole('searchbox').fill('');
  await log.getByText('and none').waitFor();

  await section.getByLabel('Follow').uncheck();
  await call(page, 'talker', 'not followed\n');
  await section.getByLabel('Follow').check();
  await log.getByText('not followed').waitFor();
  assert.equal(await log.getByText('first line', { exact: true }).count(), 1, 'no line comes twice');
});

test('replicas by hand', async (t) => {
  const [p] = await open(t, 'text');
  const section = p.getByRole('region', { name: 'Replicas' });
  await section.getByText('1 ready of 1 wanted.').waitFor();
  await section.getByLabel('Wanted').fill('1.5');
  await section.getByRole('button', { name: 'Set' }).click();
  await section.getByText('a whole number from 0 to 1000').waitFor();
  await section.getByLabel('Wanted').fill('3');
  await section.getByRole('button', { name: 'Set' }).click();
  await section.getByText(/^3 wanted|3 wanted\.$/).first().waitFor();
  await eventually(/^3 ready of 3 wanted/, () => section.innerText().then((s) => s.replace(/^Replicas\s*/, '')), 'replicas');
});
