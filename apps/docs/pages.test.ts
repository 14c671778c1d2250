import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { ERROR_CODES } from '../../packages/core/src/index.ts';
import { copyFolder, errorCodes, withoutForeignLinks } from './pages.ts';

let folder: string;
let site: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'decant-docs-'));
  site = join(folder, 'site');
  mkdirSync(site);
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

it('keeps links to pages and to the web, and takes the others off', () => {
  const text = '[a](a.md) [b](../b.md) [c](https://example.org/) [d](#d)';
  expect(withoutForeignLinks(text, (target) => target === 'a.md')).toBe(
    '[a](a.md) b [c](https://example.org/) [d](#d)',
  );
});

it('copies a folder of documents, with a page that lists them by their titles', () => {
  const from = join(folder, 'decisions');
  mkdirSync(from);
  writeFileSync(join(from, '0001-b.md'), '# 0001: `B`\n\n[a](0000-a.md#why) [code](../../packages/x.ts)\n');
  writeFileSync(join(from, '0000-a.md'), '# 0000: A\n');
  writeFileSync(join(from, 'notes.txt'), 'x');
  const group = copyFolder(from, site, 'decisions', 'Decisions', 'None.');
  expect(group.items?.map((item) => [item.text, item.link])).toEqual([
    ['0000: A', '/decisions/0000-a'],
    ['0001: B', '/decisions/0001-b'],
  ]);
  expect(readFileSync(join(site, 'decisions/0001-b.md'), 'utf8')).toContain('[a](0000-a.md#why) code');
  expect(readFileSync(join(site, 'decisions/index.md'), 'utf8')).toContain('- [0001: B](/decisions/0001-b)');
});

it('makes a page for a folder that is not there', () => {
  copyFolder(join(folder, 'missing'), site, 'formats', 'Formats', 'None yet.');
  expect(readFileSync(join(site, 'formats/index.md'), 'utf8')).toBe('# Formats\n\nNone yet.\n');
});

it('lists every error code once', () => {
  errorCodes(site);
  const page = readFileSync(join(site, 'error-codes.md'), 'utf8');
  for (const code of Object.keys(ERROR_CODES)) expect(page.split(`| \`${code}\` |`)).toHaveLength(2);
});
