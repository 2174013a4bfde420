// Asynchronous calls: what waits, what was given up, and running that again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, everywhere, launch, view, visit } from '../browser.js';
import { functions, markup, startQueue } from '../gateway.js';

const page = await startQueue([...functions(), '-label', 'failing:com.openfaas.retry.attempts=1', '-label', 'failing:com.openfaas.retry.codes=500']);
const browser = await launch();

// queue makes an asynchronous call, once they are accepted.
const queue = (body) => eventually(202, async () => (await fetch(new URL('/async-function/failing', page), { method: 'POST', body })).status, 'an asynchronous call');

test('dead letters: look, run again, drop', async (t) => {
  const p = await visit(t, browser, page);
  await p.getByRole('navigation').getByRole('link', { name: 'Queue' }).click();
  await view(p, 'async');
  await p.getByText('None: every call was done').waitFor();
  const letters = p.getByRole('region', { name: /^Dead letters/ });

  await queue(`one ${markup}`);
  await letters.getByRole('rowheader', { name: 'failing' }).waitFor();
  await p.getByRole('heading', { name: 'Dead letters (1)' }).waitFor();
  await letters.getByText('Request and answer').click();
  await letters.getByText(`one ${markup}`).waitFor();
  await everywhere(p, 'local-queue');

  // It fails again, and is a dead letter again: of two attempts, or a new one.
  const given = await letters.getByRole('row').nth(1).innerText();
  await letters.getByRole('button', { name: /^Run again call/ }).click();
  await letters.getByText(/^Call .* runs again\.$/).waitFor();
  await eventually(true, async () => {
    const rows = await letters.getByRole('row').allInnerTexts();
    return rows.length === 2 && rows[1] !== given;
  }, 'another row of the call');

  await letters.getByRole('button', { name: /^Drop call/ }).click();
  await p.getByText('None: every call was done').waitFor();
  assert.equal(await letters.getByRole('rowheader').count(), 0);
});

test('all of them at once', async (t) => {
  const p = await visit(t, browser, `${page}#/queue`);
  await view(p, 'async');
  await queue('two');
  await queue('three');
  await p.getByRole('heading', { name: 'Dead letters (2)' }).waitFor();
  await p.getByRole('button', { name: 'Run all again' }).click();
  await p.getByText('All of them run again.').waitFor();
});
