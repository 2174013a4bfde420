// Gateways of this machine, with functions of every kind.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

export const user = 'admin';
export const reader = 'reader'; // who may look and call alone
export const password = 'e2e-secret';

// folder makes one until the end of the tests of the file.
export function folder() {
  const dir = mkdtempSync(join(tmpdir(), 'faas-ui-'));
  after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

// start runs a gateway until the end of the tests of the file, and returns the
// address of its page: the one that it prints.
export async function start(flags) {
  const said = await run(process.env.GATEWAY, ['-listen', '127.0.0.1:0', '-drain', '0', ...flags], /open the page in a browser.* url=(\S+)/);
  return said[1];
}

// run runs a program until the end of the tests of the file, and waits for what its
// log says.
async function run(program, flags, sign) {
  const child = spawn(program, flags, { stdio: ['ignore', 'pipe', 'pipe'] });
  after(async () => {
    child.kill();
    if (child.exitCode === null) await new Promise((resolve) => { child.once('exit', resolve); });
  });
  let log = '';
  return new Promise((resolve, reject) => {
    const read = (text) => {
      log += text;
      const said = sign.exec(log);
      if (said) resolve(said);
    };
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', read);
    child.once('exit', (code) => reject(new Error(`${program} has ended with ${code}: ${log}`)));
  });
}

// startQueue is start with asynchronous calls.
export async function startQueue(flags) {
  const port = await freePort();
  const none = folder(); // no credentials: this machine may
  const said = await run(process.env.ASYNC, ['-listen', '127.0.0.1:0', '-gateway', `http://127.0.0.1:${port}`, '-nats-listen', 'none',
    '-data', folder(), '-auth-dir', none, '-poll', '200ms'], /address=(127\.0\.0\.1:\d+)/);
  return start([...flags, '-listen', `127.0.0.1:${port}`, '-auth-dir', none, '-async', `http://${said[1]}`]);
}

// freePort is one that nobody listens on.
function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

// credentials makes a folder for -auth-dir.
export function credentials() {
  const dir = folder();
  writeFileSync(join(dir, 'basic-auth-user'), user);
  writeFileSync(join(dir, 'basic-auth-password'), password);
  writeFileSync(join(dir, 'basic-auth-reader-user'), reader);
  writeFileSync(join(dir, 'basic-auth-reader-password'), password);
  return dir;
}

// The name of a function may have 63 characters.
export const longest = `longest-${'x'.repeat(54)}z`;

// A red square of 8 by 8 pixels.
export const picture = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mO4oKCAFTEMLQkAvk5EAYUHFA8AAAAASUVORK5CYII=', 'base64');

// What would run, if any of it ever became HTML of the page: it sets a flag of the
// page that it is in and of the one around it.
export const markup = '<script>window.ran=1;parent.ran=1;top.ran=1</script><img src=x onerror="window.ran=1;parent.ran=1;top.ran=1">';

// functions are the flags of one of each kind.
export function functions() {
  const dir = folder();
  writeFileSync(join(dir, 'picture.png'), picture);
  writeFileSync(join(dir, 'page.html'), `<!doctype html><title>ran</title><h1>Hello</h1>${markup}\n`);
  writeFileSync(join(dir, 'drawing.svg'), `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8" onload="parent.ran=1"><script>window.ran=1;top.ran=1</script><rect width="8" height="8"/></svg>\n`);
  writeFileSync(join(dir, 'data.json'), `${JSON.stringify({ list: [1, 2, { deep: true }], text: markup, none: null })}\n`);
  writeFileSync(join(dir, 'file.bin'), Buffer.from([0, 1, 2, 253, 254, 255]));
  const kinds = {
    text: ['cat', 'content_type=text/plain'],
    json: [`cat ${dir}/data.json`, 'content_type=application/json'],
    image: [`cat ${dir}/picture.png`, 'content_type=image/png'],
    file: [`cat ${dir}/file.bin`, 'content_type=application/octet-stream'],
    page: [`cat ${dir}/page.html`, 'content_type=text/html; charset=utf-8'],
    drawing: [`cat ${dir}/drawing.svg`, 'content_type=image/svg+xml'],
    request: ['sh -c \'echo "$Http_Method $Http_Path?$Http_Query $Http_X_Test"; cat\'', 'content_type=text/plain'],
    talker: ['sh -c "cat >&2"'],
    failing: ['sh -c "echo broken; exit 3"'],
    [longest]: ['cat'],
  };
  const flags = [];
  for (const [name, [command, ...env]] of Object.entries(kinds)) {
    flags.push('-function', `${name}=${command}`);
    for (const e of env) flags.push('-env', `${name}:${e}`);
  }
  flags.push('-function', 'gone=http://127.0.0.1:1', '-route', 'POST /shout/{who}=text', '-label', 'text:faas.alexa.intent=Shout');
  return flags;
}

// call calls a function, and returns its answer as text.
export async function call(page, name, body = '') {
  const response = await fetch(new URL(`/function/${name}`, page), { method: 'POST', body });
  return response.text();
}
