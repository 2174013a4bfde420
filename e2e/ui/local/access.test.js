// For everybody: axe-core, light and dark, narrow and wide, the keyboard alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { everywhere, launch, view, visit } from '../browser.js';
import { call, credentials, functions, markup, start } from '../gateway.js';

const page = await start(functions());
const closed = await start(['-auth-dir', credentials(), '-samples=false']);
const empty = await start(['-samples=false']);
const browser = await launch();

// Each view, and how to get to what it can show.
const views = {
  list: [page, async (p) => {
    await call(page, 'failing');
    await p.getByRole('link', { name: 'text', exact: true }).waitFor();
  }],
  empty: [empty, (p) => p.getByText('There are no functions yet').waitFor()],
  login: [closed, (p) => view(p, 'login')],
  function: [`${page}#/function/json`, async (p) => {
    await p.getByRole('button', { name: 'Call', exact: true }).click();
    await p.getByRole('group', { name: 'Body, JSON' }).waitFor();
    await p.getByText('As it came').click();
  }],
  picture: [`${page}#/function/image`, async (p) => {
    await p.getByRole('button', { name: 'Call', exact: true }).click();
    await p.getByRole('region', { name: 'Answer' }).getByRole('img').waitFor();
  }],
  log: [`${page}#/function/talker`, async (p) => {
    await call(page, 'talker', `${'word '.repeat(80)}\n${'x'.repeat(400)}\n${markup}\n`);
    await p.getByRole('log').getByText(markup).waitFor();
  }],
};

for (const [name, [url, prepare]] of Object.entries(views)) {
  test(`light and dark, narrow and wide: ${name}`, async (t) => {
    const p = await visit(t, browser, url, { refused: name === 'login' ? ['401 /system/'] : [] });
    await prepare(p);
    await everywhere(p, `local-${name}`);
  });
}

// focused describes what has the focus, and fails where nobody sees that it has.
async function focused(p) {
  const [name, visible] = await p.evaluate(() => {
    const e = document.activeElement;
    const style = getComputedStyle(e);
    const label = e.labels?.[0]?.innerText ?? e.getAttribute('aria-label') ?? e.innerText ?? '';
    const seen = e.tabIndex < 0 || style.outlineStyle !== 'none' || style.boxShadow !== 'none'; // a heading is no control
    return [`${e.tagName.toLowerCase()} ${label.trim()}`, seen];
  });
  assert.ok(visible || name.startsWith('body'), `the focus of ${name} cannot be seen`);
  return name;
}

// tab presses the key until the focus is on what is wanted.
async function tab(p, wanted) {
  const passed = [];
  for (let i = 0; i < 80; i++) {
    await p.keyboard.press('Tab');
    passed.push(await focused(p));
    if (passed.at(-1) === wanted) return;
  }
  assert.fail(`no way to ${wanted}: ${passed.join(', ')}`);
}

test('the keyboard alone', async (t) => {
  const p = await visit(t, browser, page);
  await p.getByRole('link', { name: 'text', exact: true }).waitFor();
  await p.keyboard.press('Tab');
  assert.equal(await focused(p), 'a Skip to content');
  await p.keyboard.press('Enter');
  await tab(p, 'input Search functions');
  await p.keyboard.type('text');
  await tab(p, 'a text');
  await p.keyboard.press('Enter');
  await view(p, 'function');
  assert.equal(await focused(p), 'h1 text');
  await tab(p, 'select Method');
  await p.keyboard.press('p');
  await tab(p, 'textarea Body');
  await p.keyboard.type('typed');
  await tab(p, 'button Call');
  await p.keyboard.press('Enter');
  await p.getByRole('region', { name: 'Answer' }).getByText('typed', { exact: true }).waitFor();
  await tab(p, 'pre Body');
  await tab(p, 'button Pause');
  await p.keyboard.press('Space');
  await p.getByRole('button', { name: 'Go on' }).waitFor();
  await tab(p, 'input Wanted');
  await p.keyboard.press('ControlOrMeta+a');
  await p.keyboard.type('2');
  await p.keyboard.press('Enter');
  await p.getByText('2 ready of 2 wanted.').waitFor();
  await p.goBack();
  await view(p, 'list');
});

test('landmarks, headings and live regions', async (t) => {
  const p = await visit(t, browser, `${page}#/function/text`);
  await view(p, 'function');
  for (const role of ['banner', 'navigation', 'main']) assert.equal(await p.getByRole(role).count(), 1, role);
  assert.equal(await p.getByRole('heading', { level: 1 }).count(), 1);
  await p.getByLabel('Body', { exact: true }).fill('hello');
  await p.getByRole('button', { name: 'Call', exact: true }).click();
  await p.locator('[role=status], [aria-live]').getByText(/^200, 5 B/).waitFor();
});
