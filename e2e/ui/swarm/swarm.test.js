// The page of a gateway on a real Swarm: the life of a function, from its secret to
// its end, by what a user sees and types. The steps build on each other.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { eventually, everywhere, launch, shoot, view, visit } from '../browser.js';

const { PAGE: page, API_USER: user, API_PASSWORD: password, IMAGE: image, NEXT_IMAGE: next } = process.env;
const browser = await launch();
const slow = { timeout: 120_000 }; // of what Swarm does

test('the life of a function', async (t) => {
  const p = await visit(t, browser, page, { refused: ['401 /system/', '400 /system/secrets', '409 /system/secrets', '404 /system/'] });
  let broken = false;
  const step = (name, run) => t.test(name, async () => {
    assert.ok(!broken, 'a step before this one has failed');
    try {
      await run();
    } catch (error) {
      broken = true;
      await shoot(p, `failed-swarm-${name.replaceAll(/\W+/g, '-')}`);
      throw error;
    }
  });
  const go = (name) => p.getByRole('navigation').getByRole('link', { name }).click();
  const region = (name) => p.getByRole('region', { name, exact: true });
  const answer = () => region('Answer');

  async function openFunction(name) {
    await go('Functions');
    await p.getByRole('link', { name, exact: true }).click(slow);
    await view(p, 'function');
    await p.getByRole('heading', { name, exact: true, level: 1 }).waitFor();
  }

  async function call(body) {
    await p.getByRole('textbox', { name: 'Body', exact: true }).fill(body);
    await p.getByRole('button', { name: 'Call', exact: true }).click();
    await answer().getByText(/^200 OK · .* · \d+ B$/).waitFor(slow);
    return answer().getByLabel('Body').innerText();
  }

  async function remove(name) {
    await p.getByRole('heading', { name: 'Delete', exact: true }).click();
    const button = p.getByRole('button', { name: `Delete ${name}` });
    const typed = p.getByLabel(`Type ${name} to delete it`);
    await typed.fill(`${name}x`);
    assert.ok(await button.isDisabled(), 'another name deletes nothing');
    await typed.fill(name);
    await button.click();
    await view(p, 'list');
    await p.getByRole('link', { name, exact: true }).waitFor({ state: 'detached', ...slow });
  }

  await step('log in', async () => {
    await view(p, 'login');
    for (const word of ['wrong', password]) {
      await p.getByLabel('User').fill(user);
      await p.getByLabel('Password').fill(word);
      await p.getByRole('button', { name: 'Log in' }).click();
      if (word === 'wrong') await p.getByText('User or password is wrong.').waitFor();
    }
    await view(p, 'list');
    await p.getByRole('link', { name: 'catservice', exact: true }).waitFor(slow);
  });

  await step('make a secret', async () => {
    await go('Secrets');
    await view(p, 'secrets');
    const form = region('A new secret');
    await form.getByLabel('Name').fill('not a name');
    await form.getByLabel('Value').fill('first value');
    await form.getByRole('button', { name: 'Create' }).click();
    await p.getByRole('status').filter({ hasText: /name/i }).waitFor();
    await form.getByLabel('Name').fill('ui-key');
    await form.getByRole('button', { name: 'Create' }).click();
    await p.getByRole('rowheader', { name: 'ui-key' }).waitFor();
    assert.ok(!(await p.content()).includes('first value'), 'the value is not shown');
    await everywhere(p, 'swarm-secrets');
  });

  await step('deploy an image that does not exist', async () => {
    await go('Deploy');
    await view(p, 'deploy');
    await p.getByRole('button', { name: 'Deploy', exact: true }).click();
    await p.getByText('Name: it is missing.').waitFor();
    await p.getByLabel('Name', { exact: true }).fill('nosuch');
    await p.getByLabel('Image').fill('registry.invalid/no/such:1');
    await p.getByRole('button', { name: 'Deploy', exact: true }).click();
    await region('nosuch').getByText(/Down: .*no such image/i).waitFor(slow);
    await everywhere(p, 'swarm-deploy-failed');
    await go('Functions');
    const row = p.getByRole('row').filter({ has: p.getByRole('link', { name: 'nosuch', exact: true }) });
    await row.getByText(/no such image/i).waitFor(slow);
    assert.match(await row.innerText(), /0 \/ 1/);
    await openFunction('nosuch');
    await remove('nosuch');
  });

  const envProcess = 'sh -c "echo called >&2; cat /run/secrets/ui-key; echo; echo $GREETING; cat"';

  await step('deploy until it is ready', async () => {
    await go('Deploy');
    await view(p, 'deploy');
    await p.getByLabel('Name', { exact: true }).fill('uilife');
    await p.getByLabel('Image').fill(image);
    await p.getByLabel('Process').fill(envProcess);
    await p.getByLabel('Variables').fill("GREETING=it's me");
    await p.getByLabel('Labels').fill('com.openfaas.scale.max=4\nfaas.route=POST /uilife/{who}');
    await p.getByRole('checkbox', { name: 'ui-key' }).check();
    await p.getByLabel('Memory limit').fill('64Mi');
    assert.deepEqual(JSON.parse(await p.getByLabel('The same as JSON').inputValue()), {
      service: 'uilife', image, envProcess, envVars: { GREETING: "it's me" }, labels: { 'com.openfaas.scale.max': '4', 'faas.route': 'POST /uilife/{who}' },
      secrets: ['ui-key'], limits: { memory: '64Mi' },
    });
    await everywhere(p, 'swarm-deploy');
    await p.getByRole('button', { name: 'Deploy', exact: true }).click();
    await region('uilife').getByText(/^Its first replica was ready after/).waitFor(slow);
    await region('uilife').getByRole('link', { name: 'Open uilife' }).click();
    await view(p, 'function');
  });

  await step('call it', async () => {
    assert.equal(await call('hello'), "first value\nit's me\nhello");
    const out = execFileSync('sh', ['-c', `${await p.getByLabel('The same with curl').innerText()} -sS`], { encoding: 'utf8' });
    assert.match(out, /^HTTP\/1.1 200 [^]*\r\n\r\nfirst value\nit's me\nhello$/);
    await region('Ways in').getByText('POST /uilife/{who}').waitFor();
    await region('Deployment').getByText('64Mi').first().waitFor();
  });

  await step('follow its log', async () => {
    const log = p.getByRole('log');
    await log.getByText('called').first().waitFor(slow);
    const before = await log.getByText('called').count();
    await call('again');
    await eventually(true, async () => await log.getByText('called').count() > before, 'a new line');
    await everywhere(p, 'swarm-function');
  });

  await step('scale it', async () => {
    const replicas = region('Replicas');
    await replicas.getByLabel('Wanted').fill('3');
    await replicas.getByRole('button', { name: 'Set' }).click();
    await replicas.getByText('3 ready of 3 wanted.').waitFor(slow);
  });

  await step('update it under load', async () => {
    const ended = new AbortController();
    const failed = [];
    let calls = 0;
    const callers = Array.from({ length: 4 }, async () => {
      while (!ended.signal.aborted) {
        try {
          const response = await fetch(new URL('/function/uilife', page), { method: 'POST', body: 'load' });
          const text = await response.text();
          calls++;
          if (response.status !== 200 || !text.endsWith('load')) failed.push(`${response.status} ${text}`);
        } catch (error) {
          failed.push(error.cause?.message ?? error.message);
        }
      }
    });
    await p.getByRole('heading', { name: 'Update', exact: true }).click();
    const form = p.locator('details').filter({ has: p.getByRole('heading', { name: 'Update', exact: true }) });
    assert.equal(await form.getByLabel('Name', { exact: true }).inputValue(), 'uilife');
    assert.equal(await form.getByLabel('Process').inputValue(), envProcess);
    await form.getByLabel('Image').fill(next);
    await form.getByLabel('Variables').fill('GREETING=version two');
    await form.getByRole('button', { name: 'Update', exact: true }).click();
    await form.getByText('The new version is being rolled out').waitFor(slow);
    let row = 0; // answers of the new version, one after the other
    while (row < 50) row = (await call('look')).includes('version two') ? row + 1 : 0;
    ended.abort();
    await Promise.all(callers);
    assert.deepEqual(failed.slice(0, 3), [], `${failed.length} of ${calls} calls failed`);
    assert.ok(calls > 50, `got ${calls} calls, want a load`);
    t.diagnostic(`updated under load: 0 of ${calls} calls failed`);
    await region('Deployment').getByText(next).waitFor(slow);
  });

  await step('a new value for its secret', async () => {
    await go('Secrets');
    await p.getByRole('button', { name: 'Delete ui-key' }).click();
    const dialog = p.getByRole('dialog');
    await dialog.getByRole('button', { name: 'Delete ui-key' }).click();
    await dialog.getByText(/uilife/).waitFor(); // it is in use
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await p.getByRole('button', { name: 'Update ui-key' }).click();
    await dialog.getByLabel('Value').fill('second value');
    await dialog.getByRole('button', { name: 'Update' }).click();
    await p.getByText('ui-key has a new value').waitFor(slow);
    await openFunction('uilife');
    await eventually(/^second value\nversion two\n/, () => call('look'), 'the new value');
  });

  await step('the line for docker makes the same', async () => {
    await go('Deploy');
    await p.getByLabel('Name', { exact: true }).fill('uidocker');
    await p.getByLabel('Image').fill(image);
    await p.getByLabel('Process').fill('sh -c "echo $A; cat"');
    await p.getByLabel('Variables').fill("A=it's $HOME");
    await p.getByLabel('Labels').fill('com.openfaas.scale.max=2');
    await p.getByLabel('Memory limit').fill('64Mi');
    await p.getByLabel('CPU limit').fill('500m');
    const line = await p.getByLabel('The same with docker').innerText();
    // As typed, but for images that are in no registry.
    execFileSync('sh', ['-c', line.replace('service create', 'service create --detach --quiet --no-resolve-image')]);
    await openFunction('uidocker');
    await p.getByText('1 ready of 1 wanted.').waitFor(slow);
    assert.equal(await call('hello'), "it's $HOME\nhello");
    await region('Deployment').getByText('64Mi').first().waitFor();
    execFileSync('docker', ['service', 'rm', 'uidocker']);
  });

  await step('the list', async () => {
    await go('Functions');
    await view(p, 'list');
    for (let i = 0; i < 60; i++) {
      await fetch(new URL(`/function/${i % 3 ? 'catservice' : 'uilife'}`, page), { method: 'POST', body: 'x' });
    }
    const row = p.getByRole('row').filter({ has: p.getByRole('link', { name: 'catservice', exact: true }) });
    await eventually(/^[1-9]|^0\.[1-9]/, () => row.getByRole('cell').nth(2).innerText(), 'calls per second');
    await everywhere(p, 'swarm-list');
  });

  await step('delete it', async () => {
    await openFunction('uilife');
    await remove('uilife');
    await go('Secrets');
    await eventually(0, async () => {
      if (await p.getByRole('button', { name: 'Delete ui-key' }).count() === 0) return 0;
      await p.getByRole('button', { name: 'Delete ui-key' }).click();
      await p.getByRole('dialog').getByRole('button', { name: 'Delete ui-key' }).click();
      // Swarm lets it go a moment after the last task that used it.
      await p.waitForTimeout(500);
      await p.keyboard.press('Escape');
      return p.getByRole('rowheader', { name: 'ui-key' }).count();
    }, 'the secret');
  });
});
