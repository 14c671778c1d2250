import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';

import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

const executablePath = inject('tools')['chromium'] ?? null;
const site = join(import.meta.dirname, '../apps/docs/.vitepress/dist');
/** `pnpm run docs` makes it; `.ci/run` does that before the tests. */
const built = existsSync(join(site, 'index.html'));
const PATIENCE_MS = 180_000;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
};

/** Files of the site as any web server with clean URLs gives them. */
async function serveSite(): Promise<Server> {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://site').pathname);
    const file = join(site, path.endsWith('/') ? `${path}index.html` : extname(path) === '' ? `${path}.html` : path);
    readFile(file).then(
      (bytes) => response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'text/plain' }).end(bytes),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

describe.skipIf(executablePath === null || !built)('[backend:chromium] the documentation site', () => {
  let server: Server;
  let browser: Browser;
  let page: Page;
  let origin: string;
  const faults: string[] = [];

  beforeAll(async () => {
    server = await serveSite();
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'], timeout: PATIENCE_MS });
    page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(`${page.url()}: ${message.text()}`);
    });
    page.on('pageerror', (error) => faults.push(`${page.url()}: ${error.message}`));
    page.on('response', (response) => {
      if (response.status() >= 400) faults.push(`${response.status()} ${response.url()}`);
    });
  }, PATIENCE_MS);
  afterAll(async () => {
    await browser.close();
    server.close();
  });

  it(
    'has a page behind every entry of its side bar, with a heading and without an error',
    { timeout: 600_000 },
    async () => {
      await page.goto(`${origin}/getting-started`);
      const links = await page.locator('.VPSidebar a').evaluateAll((all) => all.map((a) => a.getAttribute('href')!));
      expect(links.length).toBeGreaterThan(40);
      for (const link of links) {
        await page.goto(origin + link);
        await expect(page.locator('.vp-doc h1').first().textContent()).resolves.toMatch(/\w/);
      }
      expect(faults).toEqual([]);
    },
  );

  it('shows a bar of some width for each goal of each benchmark', { timeout: 600_000 }, async () => {
    for (const name of ['bottle', 'build', 'cas', 'share']) {
      await page.goto(`${origin}/benchmarks/${name}`);
      const goals = await page
        .locator('.vp-doc table')
        .first()
        .locator('tr', { hasText: /at (?:most|least)/ })
        .count();
      const widths = await page
        .locator('svg[role=img] rect')
        .evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().width));
      expect(widths.length).toBeGreaterThan(0);
      expect(widths.length).toBeLessThanOrEqual(goals);
      expect(widths.every((width) => width > 0)).toBe(true);
    }
    expect(faults).toEqual([]);
  });

  it('finds a guide by a word in it', { timeout: 600_000 }, async () => {
    await page.goto(`${origin}/`);
    await page.locator('button.DocSearch, .VPNavBarSearch button').first().click();
    await page.locator('.VPLocalSearchBox input').fill('egress proxy');
    // The list is made anew with each letter; what was meant is the one for all of them.
    const link = page.locator('.VPLocalSearchBox .result', { hasText: /egress/i }).first();
    await link.click();
    await page.waitForURL((url) => url.pathname !== '/');
    await page.locator('.vp-doc', { hasText: /egress/i }).waitFor();
    expect(faults).toEqual([]);
  });
});
