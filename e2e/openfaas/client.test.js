// The whole control plane, as a client sees it that others made: openfaas-client is
// generated from OpenFaaS's own description of its API.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import openfaas from 'openfaas-client';

const { GATEWAY, API_USER, API_PASSWORD, IMAGE } = process.env;
const name = 'strangers';
const secret = 'strangers-key';

function client(user, password) {
  const auth = new openfaas.HttpBasicAuth();
  Object.assign(auth, { username: user, password });
  const api = new openfaas.DefaultApi(GATEWAY);
  api.setDefaultAuthentication(auth);
  return new Proxy(api, { get: (all, method) => (...args) => all[method](...args).catch(failed) });
}

// failed turns an answer that is a refusal into an error with a readable message.
function failed({ response, body, ...error }) {
  const { method, path } = response?.request ?? {};
  throw Object.assign(new Error(`${method} ${path}: got ${response?.statusCode} ${JSON.stringify(body ?? error)}`), { status: response?.statusCode });
}

const refused = (status) => (error) => error.status === status;

const api = client(API_USER, API_PASSWORD);

after(async () => { // where a test has ended early
  await api.systemFunctionsDelete({ functionName: name }).catch(() => {});
  await api.systemSecretsDelete({ name: secret }).catch(() => {});
});

// secrets returns all names. The client's own type is one secret, not a list: so the raw
// body is read.
const secrets = async () => (await api.systemSecretsGet()).response.body.map((s) => s.name);

// logs returns lines. Of one alone the client makes an object, of several text.
async function logs() {
  const { body } = (await api.systemLogsGet(name, undefined, 100, false)).response;
  return typeof body === 'string' ? body.split('\n').filter(Boolean).map((line) => JSON.parse(line)) : [body];
}

// until asks until the answer is as wanted.
async function until(ask, wanted) {
  const end = Date.now() + 60_000;
  for (;;) {
    const got = await ask();
    if (wanted(got)) return got;
    assert.ok(Date.now() < end, `got ${JSON.stringify(got)} for a minute`);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}

const describe = async () => (await api.systemFunctionFunctionNameGet(name)).body;
const invoke = async () => (await api.functionFunctionNamePost(name, 'world')).body;

const deployment = (changes) => ({
  service: name, image: IMAGE, envProcess: `cat /run/secrets/${secret} /dev/stdin`, secrets: [secret],
  labels: { team: 'a' }, annotations: { note: 'b' }, limits: { memory: '64Mi' }, constraints: ['node.role == manager'],
  ...changes,
});

test('what there is', async () => {
  const { body } = await api.systemInfoGet();
  assert.equal(body.provider.orchestration, 'swarm');
  assert.ok(body.version.release && body.arch, `got ${JSON.stringify(body)}, want the version and the architecture`);
  assert.equal((await api.healthzGet()).response.statusCode, 200);
  assert.deepEqual((await api.systemFunctionsGet()).body, []);
  await assert.rejects(client(API_USER, 'wrong').systemFunctionsGet(), refused(401));
});

test('secrets', async () => {
  await api.systemSecretsPost({ name: secret, value: 'first ' });
  await api.systemSecretsPut({ name: secret, value: 'second ' });
  assert.deepEqual(await secrets(), [secret]);
  await assert.rejects(api.systemSecretsPut({ name: 'nosuch', value: 'x' }), refused(404));
});

test('a function', async () => {
  await assert.rejects(api.systemFunctionsPut(deployment()), refused(404));
  assert.equal((await api.systemFunctionsPost(deployment())).response.statusCode, 202);
  const ready = await until(describe, (f) => f.availableReplicas === 1);
  assert.equal(ready.image, IMAGE);
  assert.equal(ready.labels.team, 'a');
  assert.deepEqual(ready.annotations, { note: 'b' });
  assert.equal(await invoke(), 'second "world"'); // it sends JSON
  await assert.rejects(api.systemSecretsDelete({ name: secret }), refused(409));

  const [listed] = (await api.systemFunctionsGet()).body;
  assert.equal(listed.name, name);
  assert.equal(listed.invocationCount, 1);

  await api.systemScaleFunctionFunctionNamePost(name, { serviceName: name, replicas: 3 });
  await until(describe, (f) => f.replicas === 3 && f.availableReplicas === 3);

  const alert = { status: 'firing', receiver: 'scale-up', alerts: [{ status: 'firing', labels: { function_name: name } }] };
  await api.systemAlertPost(alert);
  await until(describe, (f) => f.replicas > 3);

  await api.systemFunctionsPut(deployment({ envProcess: 'sh -c "echo said >&2; cat"' }));
  await until(invoke, (answer) => answer === 'world');
  const line = (await until(logs, (lines) => lines.some((l) => l?.text?.includes('said')))).find((l) => l.text.includes('said'));
  assert.equal(line.name, name);
  assert.ok(line.instance && Date.parse(line.timestamp), `got ${JSON.stringify(line)}, want a replica and a time`);

  await assert.rejects(api.asyncFunctionFunctionNamePost(name, 'later'), refused(501)); // no faas-async
  assert.equal((await api.systemFunctionsDelete({ functionName: name })).response.statusCode, 202);
  await assert.rejects(api.systemFunctionFunctionNameGet(name), refused(404));
  await api.systemSecretsDelete({ name: secret });
  assert.deepEqual(await secrets(), []);
});
