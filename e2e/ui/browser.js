// Debian's Chromium, with pages that are watched: a test ends well only if the page
// has said no error, broken no rule of its policy, asked nobody but the gateway, and
// run nothing that a function wrote.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after } from 'node:test';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// launch starts a browser until the end of the tests of the file.
export async function launch() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
  after(() => browser.close());
  return browser;
}

// watcher runs in the page before anything of it does.
function watcher() {
  window.seen = { violations: [], shifts: [], list: 0 };
  document.addEventListener('securitypolicyviolation', (e) => window.seen.violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
  new PerformanceObserver((entries) => {
    for (const e of entries.getEntries()) {
      if (!e.hadRecentInput) window.seen.shifts.push(`${e.value.toFixed(4)} at ${Math.round(e.startTime)} ms: ${e.sources.map((s) => s.node?.outerHTML?.slice(0, 90) ?? s.node?.nodeName).join(' ')}`);
    }
  }).observe({ type: 'layout-shift', buffered: true });
  const first = new MutationObserver(() => {
    if (!document.querySelector('tbody tr')) return;
    first.disconnect();
    requestAnimationFrame(() => { window.seen.list = performance.now(); });
  });
  first.observe(document, { childList: true, subtree: true });
}

// visit opens the page until the end of test t, and fails t for what it must not do.
// refused lists the refusals that the test is about, as "status path".
export async function visit(t, browser, url, { width = 1280, height = 900, scheme = 'light', refused = [], noscript = false, prepare } = {}) {
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: scheme, locale: 'en-GB', reducedMotion: 'reduce', javaScriptEnabled: !noscript, acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const problems = [];
  page.on('console', (m) => {
    const status = /Failed to load resource: the server responded with a status of (\d+)/.exec(m.text())?.[1];
    const expected = status && refused.some((r) => `${status} ${new URL(m.location().url).pathname}`.startsWith(r));
    if (['error', 'warning'].includes(m.type()) && !expected) problems.push(`console: ${m.text()} ${m.location().url}`);
  });
  page.on('pageerror', (e) => problems.push(`error: ${e.stack}`));
  page.on('dialog', (d) => { problems.push(`dialog: ${d.message()}`); d.dismiss(); });
  page.on('request', (r) => {
    const to = new URL(r.url());
    if (to.protocol !== 'blob:' && to.protocol !== 'data:' && to.origin !== new URL(url).origin) problems.push(`request: ${r.url()}`);
  });
  if (!noscript) await page.addInitScript(watcher);
  t.after(async () => {
    if (t.passed === false) await shoot(page, `failed-${t.name.replaceAll(/\W+/g, '-')}`);
    if (!noscript) {
      problems.push(...(await page.evaluate(() => window.seen.violations)).map((v) => `policy: ${v}`));
      for (const frame of page.frames()) if (await frame.evaluate(() => window.ran)) problems.push(`ran in ${frame.url()}`);
    }
    await context.close();
    assert.deepEqual(problems, []);
  });
  await prepare?.(page);
  await page.goto(url);
  return page;
}

// view waits until the page shows a view.
export const view = (page, name) => page.locator(`main[data-view=${name}]`).waitFor();

// shoot keeps a picture of what is seen, where a folder for them is named.
export async function shoot(page, name) {
  const dir = process.env.FAAS_SCREENSHOTS;
  if (!dir) return;
  await mkdir(dir, { recursive: true });
  await page.screenshot({ path: join(dir, `${name}.png`) });
}

// accessible fails for what axe-core finds in the page as it is.
export async function accessible(page, what) {
  await page.evaluate(`if (!window.axe) { ${axe} }`);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target}: ${n.failureSummary}`).join('; ')}`), [], `axe-core: ${what}`);
}

// fits fails if the page is wider than its window.
export async function fits(page, what) {
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= window, `${what}: got ${wide} pixels in a window of ${window}`);
}

// eventually asks until the answer is as wanted.
export async function eventually(want, ask, what) {
  const end = Date.now() + 60_000;
  let got;
  for (;;) {
    got = await ask();
    if (want instanceof RegExp ? want.test(got) : got === want) return got;
    if (Date.now() > end) assert.fail(`${what}: got ${JSON.stringify(got)}, want ${want}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

// everywhere looks at the page as it is in light and dark, narrow and wide, and keeps
// a picture of each.
export async function everywhere(page, name) {
  const { width, height } = page.viewportSize();
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const w of [360, width, 2560]) {
      const what = `${name}-${colorScheme}-${w}`;
      await page.setViewportSize({ width: w, height });
      await fits(page, what);
      if (w === width || w === 360 && colorScheme === 'light') await accessible(page, what);
      await shoot(page, what);
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width, height });
}
