import { execFileSync } from 'node:child_process';

import { describe, expect, it } from 'vitest';

import type { ContextEntry } from '../entry.ts';
import { packEntries } from './pack.ts';
import { tarHeader } from './tar-header.ts';

const x = (length: number) => 'x'.repeat(length);
const file = (path: string): ContextEntry => ({ path, type: 'file', sizeBytes: 0, mode: 0o644 });

/** The names, and behind an arrow the link targets, that GNU tar reads in an archive of the entries. */
async function namesOf(entries: readonly ContextEntry[]): Promise<string[]> {
  const pieces: Uint8Array[] = [];
  for await (const piece of packEntries(entries, () => []).stream) pieces.push(piece);
  const options = { input: Buffer.concat(pieces), env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' } };
  const lines = execFileSync('tar', ['--quoting-style=literal', '--full-time', '-tvf', '-'], options).toString(
    'latin1',
  );
  return lines
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/^.* \d\d:\d\d:\d\d /, ''));
}

describe('tarHeader', () => {
  it('holds names of any length, cut anywhere, as GNU tar reads them', async () => {
    const entries: ContextEntry[] = [];
    for (const front of [1, 99, 100, 101, 154, 155, 156, 157, 160]) {
      for (const back of [1, 98, 99, 100, 101]) {
        entries.push(file(`${x(front)}/${x(back)}`));
        entries.push({ ...file(`${x(front)}/${x(back)}/d`), type: 'directory' });
        entries.push({ ...file(`${x(front)}/${x(back)}`), type: 'directory' });
      }
    }
    for (const length of [98, 99, 100, 101]) {
      entries.push(file(x(length)), { ...file(x(length)), type: 'directory' }, file(`/${x(length)}`));
    }
    const wanted = entries.map(({ path, type }) => (type === 'directory' ? `${path}/` : path));
    expect(await namesOf(entries)).toEqual(wanted);
    // Whatever two fields can hold needs no extended header.
    expect(tarHeader(file(`${x(155)}/${x(100)}`))).toHaveLength(512);
    expect(tarHeader(file(`${x(156)}/${x(100)}`))).toHaveLength(3 * 512);
    expect(tarHeader(file(x(100)))).toHaveLength(512);
  });

  it('counts the length of a record with its own digits', async () => {
    const entries: ContextEntry[] = [];
    for (let length = 980; length <= 1000; length++) entries.push({ ...file(x(length)), sizeBytes: 0 });
    for (let length = 101; length <= 103; length++) {
      entries.push({ ...file(`link-${length}`), type: 'symlink', linkTarget: x(length) });
    }
    for (let length = 976; length <= 996; length++) {
      entries.push({ ...file(`link-${length}`), type: 'symlink', linkTarget: x(length) });
    }
    expect(await namesOf(entries)).toEqual(
      entries.map(({ path, linkTarget }) => (linkTarget === undefined ? path : `${path} -> ${linkTarget}`)),
    );
  });

  it('has the size of a file of 8 GiB in a record, which eleven octal digits cannot hold', () => {
    const sizeOf = (sizeBytes: number) => Buffer.from(tarHeader({ ...file('big'), sizeBytes })).toString('latin1');
    expect(sizeOf(8 ** 11 - 1)).toHaveLength(512);
    expect(sizeOf(8 ** 11 - 1)).toContain('77777777777\0');
    expect(sizeOf(8 ** 11)).toHaveLength(3 * 512);
    expect(sizeOf(8 ** 11)).toContain('19 size=8589934592\n');
  });

  it.each([file(x(4097)), { ...file('link'), type: 'symlink', linkTarget: x(4097) } as const])(
    'refuses what is longer than any path of Linux',
    (entry) => {
      expect(() => tarHeader(entry)).toThrow(expect.objectContaining({ code: 'CONTEXT_ENTRY_UNSUPPORTED' }));
      const shorter = { ...entry, path: entry.path.slice(0, 4096), linkTarget: x(4096) };
      expect(() => tarHeader(shorter)).not.toThrow();
    },
  );
});
