import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { ROOT } from './workspace.ts';

const PAGE = 'docs/builder-checks.md';
/** Checks of the builders, then those of the contract of remote builds. */
const CHECKS = [
  ...Array.from({ length: 25 }, (_, index) => String(index + 1)),
  ...Array.from({ length: 12 }, (_, index) => `A${index + 1}`),
];

const sections = readFileSync(join(ROOT, PAGE), 'utf8')
  .split(/^### /m)
  .slice(1)
  .map((text) => ({
    check: text.slice(0, text.indexOf('.')),
    tests: [...text.matchAll(/^- `([^`]+\.ts)`: (.+)$/gm)].map(([, file = '', title = '']) => ({ file, title })),
  }));

describe(PAGE, () => {
  test('has each check once, each held by a test', () => {
    expect(sections.map(({ check }) => check)).toEqual(CHECKS);
    expect(sections.filter(({ tests }) => tests.length === 0)).toEqual([]);
  });

  test.each(sections.map(({ check, tests }) => [check, tests] as const))('check %s names what is there', (_, tests) => {
    for (const { file, title } of tests) {
      const source = readFileSync(join(ROOT, file), 'utf8');
      // The first argument of a call, or the name of a case in a table.
      const places = ["'", '"', '`'].flatMap((quote) => source.split(`${quote}${title}${quote}`).slice(0, -1));
      expect(
        places.some((before) => /[(\n]\s*$/.test(before)),
        `${file}: ${title}`,
      ).toBe(true);
    }
  });
});
