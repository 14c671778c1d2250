import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { bundleForBrowser } from '../scripts/bundle.ts';
import { startDecant, type RunningDecant } from './support/decant.ts';
import { have, isRoot } from './support/programs.ts';
import type { PageBuild } from './support/remote-page.ts';

const executablePath = inject('tools')['chromium'] ?? null;

describe.skipIf(executablePath === null || !isRoot || !have('buildah', 'bwrap'))(
  '[backend:chromium] a page builds files of its memory',
  () => {
    let folder: TemporaryDirectory;
    let pages: Server;
    let origin: string;
    let server: RunningDecant;
    let url: string;
    let key: string;
    let browser: Browser;
    let page: Page;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-browser-');
      const { code, imports } = await bundleForBrowser(new URL('support/remote-page.ts', import.meta.url).pathname);
      expect(imports).toEqual([]);
      pages = createServer((request, response) => {
        const [type, body] = request.url === '/page.js' ? ['text/javascript', code] : ['text/html', html];
        response.writeHead(200, { 'content-type': type }).end(body);
      });
      const html = '<!doctype html><title>builds</title><script type="module" src="/page.js"></script>';
      pages.listen(0, '127.0.0.1');
      await once(pages, 'listening');
      origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
      const data = join(folder.path, 'server');
      server = startDecant(['serve', '--port', '0', '--data', data, '--allow-origin', origin], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await server.seen(/Use it with/);
      [url = '', key = ''] = server.stdout().split('\n');
      browser = await chromium.launch({
        executablePath: executablePath!,
        chromiumSandbox: false,
        args: ['--disable-gpu', '--disable-dev-shm-usage'],
      });
      page = await browser.newPage();
    });
    afterAll(async () => {
      await browser?.close();
      await server?.[Symbol.asyncDispose]();
      pages?.closeAllConnections();
      pages?.close();
      await folder?.[Symbol.asyncDispose]();
    });

    const build = async (from: string, ...args: readonly unknown[]): Promise<PageBuild> => {
      await page.goto(from);
      await page.waitForFunction(() => 'build' in globalThis);
      return page.evaluate(
        (given) =>
          (globalThis as unknown as { build: (...all: readonly unknown[]) => Promise<PageBuild> }).build(...given),
        args,
      );
    };
    const files = [
      { path: 'Dockerfile', content: 'FROM scratch\nCOPY grüße.txt /\n' },
      { path: 'grüße.txt', content: 'from a page\n' },
    ];

    test.each(['archive', 'files'])('sent as %s', async (transfer) => {
      const { lines, image, error } = await build(`${origin}/`, url, key, files, transfer);
      expect(error).toBe('');
      expect(image).toMatch(/@sha256:[0-9a-f]{64}$/);
      expect(lines.join('\n')).toContain('COPY grüße.txt /');
    });

    test('a refusal arrives typed; a page of another origin is not let in', async () => {
      expect((await build(`${origin}/`, url, key.slice(0, -1), files, 'archive')).error).toBe('UNAUTHORIZED');
      const elsewhere = origin.replace('127.0.0.1', 'localhost');
      const { image, error } = await build(`${elsewhere}/`, url, key, files, 'archive').catch(() => ({
        image: '',
        error: 'HTTP_UNREACHABLE',
      }));
      expect([image, error]).toEqual(['', 'HTTP_UNREACHABLE']);
    });
  },
);
