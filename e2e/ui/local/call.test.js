// Calling a function: with text, JSON and files, and answers of each type. Whatever
// a function answers, nothing of it runs.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { launch, view, visit } from '../browser.js';
import { folder, functions, markup, picture, start } from '../gateway.js';

const page = await start(functions());
const browser = await launch();

async function open(t, name, refused) {
  const p = await visit(t, browser, `${page}#/function/${name}`, { refused });
  await view(p, 'function');
  await p.getByRole('heading', { name, exact: true, level: 1 }).waitFor();
  return p;
}

const answer = (p) => p.getByRole('region', { name: 'Answer' });

// press calls, and waits for the status.
async function press(p, status) {
  await p.getByRole('button', { name: 'Call', exact: true }).click();
  await answer(p).getByText(new RegExp(`^${status} .* · .*s · `)).waitFor();
}

const line = (p) => p.getByLabel('The same with curl').innerText();

// curl runs the line that the page shows, as typed, and returns the body.
function curl(command, cwd = '/') {
  const out = execFileSync('sh', ['-c', command.replace(/^curl -i/, 'curl -sS -i')], { cwd, encoding: 'utf8' });
  return out.slice(out.indexOf('\r\n\r\n') + 4);
}

test('text', async (t) => {
  const p = await open(t, 'text');
  const body = `one\n@two 'three' "four" $HOME \`five\` \\ ${markup}`;
  await p.getByLabel('Body', { exact: true }).fill(body);
  await press(p, 200);
  assert.equal(await answer(p).getByLabel('Body').innerText(), body);
  assert.equal(curl(await line(p)), body);
});

test('text that begins as the name of a file does', async (t) => {
  const p = await open(t, 'text');
  await p.getByLabel('Body', { exact: true }).fill('@/etc/hostname');
  await press(p, 200);
  assert.equal(await answer(p).getByLabel('Body').innerText(), '@/etc/hostname');
  assert.equal(curl(await line(p)), '@/etc/hostname');
});

test('method, path, query and headers', async (t) => {
  const p = await open(t, 'request');
  await p.getByLabel('Method').selectOption('PUT');
  await p.getByLabel('Path').fill('/a b/%2F{c}[1-2]');
  await p.getByLabel('Query').fill("x=1&y=[1-3]{a,b}'&z=$HOME");
  await p.getByLabel('Headers').fill("X-Test: it's \"quoted\"");
  await p.getByLabel('Body', { exact: true }).fill('body');
  await press(p, 200);
  const got = await answer(p).getByLabel('Body').innerText();
  assert.match(got, /^PUT \/a%20b\/%2F(\{c\}|%7Bc%7D)\[1-2\]\?x=1&y=\[1-3\](\{a,b\}|%7Ba,b%7D)(%27|')&z=\$HOME it's "quoted"\nbody$/);
  assert.equal(curl(await line(p)), got);
});

test('GET has no body', async (t) => {
  const p = await open(t, 'request');
  await p.getByLabel('Method').selectOption('GET');
  await press(p, 200);
  assert.equal((await answer(p).getByLabel('Body').innerText()).trim(), 'GET /?');
  assert.equal(curl(await line(p)).trim(), 'GET /?');
});

test('a path cannot leave the function', async (t) => {
  const p = await open(t, 'request');
  await p.getByLabel('Path').fill('/../../system/info');
  await p.getByText('The path leaves the function.').waitFor();
});

test('JSON', async (t) => {
  const p = await open(t, 'text');
  await p.getByLabel('Body as').selectOption('json');
  await p.getByLabel('Body', { exact: true }).fill('{"a":');
  await p.getByRole('alert').filter({ hasText: /^Body: / }).waitFor();
  await p.getByLabel('Body', { exact: true }).fill('{"a":[1,{"b":null}]}');
  await press(p, 200);
  assert.match(await answer(p).getByRole('group', { name: 'Body, JSON' }).innerText(), /"a": \[ 1|"a": \[ 2 items \]/);
  assert.match(await line(p), /Content-Type: application\/json/);
  assert.equal(curl(await line(p)), '{"a":[1,{"b":null}]}');
});

test('an answer of JSON is folded', async (t) => {
  const p = await open(t, 'json');
  await press(p, 200);
  const tree = answer(p).getByRole('group', { name: 'Body, JSON' });
  assert.match(await tree.innerText(), /"text": "<script>/);
  const deep = tree.getByText('"deep": true');
  assert.ok(!await deep.isVisible(), 'deep values are folded');
  await tree.getByText(/^2: /).click();
  await deep.waitFor();
  await answer(p).getByText('As it came').click();
  assert.match(await answer(p).getByLabel('Body', { exact: true }).innerText(), /^\{"list":\[1,2,\{"deep":true\}\]/);
});

test('an answer that is a picture', async (t) => {
  const p = await open(t, 'image');
  await press(p, 200);
  const shown = answer(p).getByRole('img');
  await shown.waitFor();
  await shown.evaluate((img) => img.decode());
  assert.equal(await shown.evaluate((img) => img.naturalWidth), 8);
});

// keep downloads the answer, and returns its name and bytes.
async function keep(p) {
  const [download] = await Promise.all([p.waitForEvent('download'), answer(p).getByRole('link', { name: /^Download/ }).click()]);
  return [download.suggestedFilename(), readFileSync(await download.path())];
}

test('an answer that is a file', async (t) => {
  const p = await open(t, 'file');
  await press(p, 200);
  assert.deepEqual(await keep(p), ['file.bin', Buffer.from([0, 1, 2, 253, 254, 255])]);
});

test('a file goes and comes back as it is', async (t) => {
  const p = await open(t, 'text');
  const dir = folder();
  const name = "it's a 'file'.bin";
  writeFileSync(join(dir, name), Buffer.concat([picture, Buffer.from('\n\r\0')]));
  await p.getByLabel('Body as').selectOption('file');
  await p.getByLabel('File').setInputFiles(join(dir, name));
  await press(p, 200);
  assert.deepEqual((await keep(p))[1], readFileSync(join(dir, name)));
  const command = await line(p);
  assert.deepEqual(execFileSync('sh', ['-c', command.replace(/^curl -i/, 'curl -sS')], { cwd: dir }), readFileSync(join(dir, name)));
});

test('headers and failures are shown', async (t) => {
  const p = await open(t, 'failing', ['500 /function/failing/']);
  await press(p, 500);
  await answer(p).getByText(/^\d+ headers$/).click();
  assert.match(await answer(p).innerText(), /x-exit-code\s+3/i);
  assert.match(await answer(p).innerText(), /broken/);
});

for (const name of ['page', 'drawing']) {
  test(`nothing runs of an answer: ${name}`, async (t) => {
    const p = await open(t, name);
    await press(p, 200);
    await (name === 'page' ? answer(p).getByText('<h1>Hello</h1>') : answer(p).getByRole('img')).waitFor();
    // Nor in a tab of its own, which must not have the page's origin.
    const opened = await p.context().newPage();
    const [address] = await answer(p).locator('[src], a[href]').evaluateAll((all) => all.map((e) => e.src ?? e.href));
    await opened.goto(address).catch((e) => assert.match(e.message, /Download is starting/));
    assert.ok(await opened.evaluate(() => window.ran === undefined || self.origin === 'null'), `${address} runs in the page's origin`);
    await opened.close();
    assert.equal((await keep(p))[0], name === 'page' ? 'page.html.txt' : 'drawing.svg');
    assert.equal(p.frames().length, 1);
    assert.equal(await p.evaluate(() => window.ran), undefined);
  });
}

test('ways in', async (t) => {
  const p = await open(t, 'text');
  const ways = p.getByRole('region', { name: 'Ways in' });
  for (const way of ['/function/text', 'X-Function: text', 'POST /shout/{who}', 'Shout']) await ways.getByText(way).first().waitFor();
});
