import { fdatasyncSync, readdirSync, readlinkSync, writeSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openScratchDirectory } from '@decant/core/node';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';

import type { AuditEvent } from './audit-event.ts';
import { auditName, pruneAudits, readAudit, type AuditBounds } from './audit-files.ts';
import { AuditLog, FIRST_LINK, linkOf } from './audit-log.ts';
import { verifyAudit } from './verify-audit.ts';

vi.mock('node:fs', async (original) => {
  const real = await original<typeof import('node:fs')>();
  return { ...real, writeSync: vi.fn(real.writeSync), fdatasyncSync: vi.fn(real.fdatasyncSync) };
});

/** The disk takes `bytes` more, and then is full. */
async function diskFullAfter(bytes: number): Promise<void> {
  const real = await vi.importActual<typeof import('node:fs')>('node:fs');
  const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  vi.mocked(writeSync)
    .mockImplementationOnce((fd, buffer) => real.writeSync(fd, Buffer.from(buffer as unknown as Uint8Array), 0, bytes))
    .mockImplementationOnce(() => {
      throw full;
    });
}

const event = (host: string): AuditEvent => ({
  time: '2026-01-01T00:00:00.000Z',
  type: 'request',
  decision: 'deny',
  rule: 'no-route',
  host,
  port: 443,
});

async function written(folder: string, hosts: readonly string[]): Promise<string> {
  const path = join(folder, `audit-${Math.random()}.jsonl`);
  using log = new AuditLog({ path });
  for (const host of hosts) log.append(event(host));
  return path;
}

describe('AuditLog', () => {
  test('what was written verifies, is sealed, and only its owner may read it', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = await written(folder.path, ['a.example', 'b.example']);
    const report = await verifyAudit(path);
    expect(report).toMatchObject({ events: 2, sealed: true });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const [first] = (await readFile(path, 'utf8')).split('\n');
    expect(JSON.parse(first!)).toMatchObject({ seq: 0, prev: FIRST_LINK, host: 'a.example' });
  });

  test('any changed byte, and any line taken out, doubled or swapped, is noticed', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = await written(folder.path, ['a.example', 'b.example', 'c.example', 'd.example']);
    const good = await readFile(path);
    const other = join(folder.path, 'changed.jsonl');
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const bytes = Buffer.from(good);
        bytes[at] = bytes[at]! ^ flip;
        await writeFile(other, bytes);
        const { head } = await verifyAudit(path);
        // A change in the last line is seen by its hash alone.
        const outcome = await verifyAudit(other).then(
          (report) => report.head,
          () => 'refused',
        );
        expect(outcome).not.toBe(head);
        const lastLine = good.lastIndexOf(10, good.length - 2);
        if (at < lastLine) expect(outcome).toBe('refused');
      }),
      { numRuns: 200 },
    );
    const lines = good.toString('utf8').trimEnd().split('\n');
    const variants = [
      lines.filter((_, i) => i !== 1),
      [...lines.slice(0, 2), lines[1]!, ...lines.slice(2)],
      [lines[1]!, lines[0]!, ...lines.slice(2)],
      [...lines, lines[0]!],
    ];
    for (const variant of variants) {
      await writeFile(other, `${variant.join('\n')}\n`);
      await expect(verifyAudit(other)).rejects.toMatchObject({ code: 'AUDIT_INVALID' });
    }
  });

  test('a log whose end is missing is whole but not sealed; one that breaks off within a line is not whole', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = await written(folder.path, ['a.example', 'b.example']);
    const lines = (await readFile(path, 'utf8')).trimEnd().split('\n');
    await writeFile(path, `${lines.slice(0, 2).join('\n')}\n`);
    expect(await verifyAudit(path)).toMatchObject({ events: 2, sealed: false });
    await writeFile(path, lines.slice(0, 2).join('\n'));
    await expect(verifyAudit(path)).rejects.toMatchObject({ details: { line: 2 } });
  });

  test('a file that exists is left alone; an event that is too long is refused; a closed log takes nothing', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = await written(folder.path, ['a.example']);
    expect(() => new AuditLog({ path })).toThrow(expect.objectContaining({ code: 'CONFLICT' }));
    const long = new AuditLog({ path: join(folder.path, 'long.jsonl') });
    expect(() => long.append(event('x'.repeat(9000)))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
    long.close();
    long.close();
    expect(() => long.append(event('a'))).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  test('goes on in further files, as one chain, and ends where they are full', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = join(folder.path, 'log.jsonl');
    const log = new AuditLog({ path, segmentBytes: 2000, segments: 3 });
    let written = 0;
    const fill = () => {
      for (;;) {
        log.append(event(`${written}.example`));
        written++;
      }
    };
    for (let i = 0; i < 2; i++) expect(fill).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
    log.close();
    expect(written).toBeGreaterThan(10);
    expect((await readdir(folder.path)).toSorted()).toEqual(['log.2.jsonl', 'log.3.jsonl', 'log.jsonl']);
    for (const name of await readdir(folder.path)) {
      const { size, mode } = await stat(join(folder.path, name));
      expect(size).toBeLessThanOrEqual(2000);
      expect(mode & 0o777).toBe(0o600);
    }
    expect(await verifyAudit(path)).toEqual({
      events: written,
      segments: 3,
      sealed: true,
      reason: 'The log was full.',
      head: log.head,
    });
    const pieces: Buffer[] = [];
    for await (const piece of readAudit(path)) pieces.push(piece);
    const hosts = Buffer.concat(pieces)
      .toString('utf8')
      .match(/\d+\.example/g);
    expect(hosts).toEqual(Array.from({ length: written }, (_, i) => `${i}.example`));
  });

  test('a full disk ends the log with its last whole line, without a seal, and it takes nothing more', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = join(folder.path, 'log.jsonl');
    const log = new AuditLog({ path });
    log.append(event('a.example'));
    await diskFullAfter(10);
    for (let i = 0; i < 2; i++)
      expect(() => log.append(event('b.example'))).toThrow(expect.objectContaining({ code: 'DISK_FULL' }));
    log.close();
    expect(await verifyAudit(path)).toMatchObject({ events: 1, sealed: false });
  });

  test('a disk that is full where another file begins leaves that file empty and closed', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = join(folder.path, 'log.jsonl');
    const log = new AuditLog({ path, segmentBytes: 2000 });
    log.append(event('a.example'.padStart(1200, 'a')));
    await diskFullAfter(10);
    expect(() => log.append(event('b.example'.padStart(1200, 'b')))).toThrow(
      expect.objectContaining({ code: 'DISK_FULL' }),
    );
    const open = readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return [];
      }
    });
    expect(open.filter((name) => name.startsWith(folder.path))).toEqual([path]);
    log.close();
    expect(await verifyAudit(path)).toMatchObject({ events: 1, segments: 1, sealed: false });
  });

  test('what was sealed is on the disk', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    vi.mocked(fdatasyncSync).mockClear();
    await written(folder.path, ['a.example']);
    expect(fdatasyncSync).toHaveBeenCalledOnce();
  });

  test('lines that follow each other but are not as a log has them are noticed', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = join(folder.path, 'made.jsonl');
    const make = async (lines: readonly object[]) => {
      let prev = FIRST_LINK;
      const texts = lines.map((line, seq) => {
        const text = JSON.stringify({ seq, prev, ...line });
        prev = linkOf(Buffer.from(text));
        return text;
      });
      await writeFile(path, `${texts.join('\n')}\n`);
      return await verifyAudit(path);
    };
    const one = { type: 'dns' };
    expect(await make([one, one, { type: 'sealed' }])).toMatchObject({ events: 2, sealed: true });
    for (const lines of [
      [one, { ...one, seq: 7 }, one],
      [one, { type: 'sealed' }, one],
      [one, { type: 'continued' }, one],
    ]) {
      await expect(make(lines)).rejects.toMatchObject({ code: 'AUDIT_INVALID' });
    }
  });

  test('the first file of an audit is removed last, so that what is left of one is still found', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const first = auditName({ slug: 'b', createdAt: '2026-01-01T00:00:00.000Z', id: '0123456789abcdef' });
    // It cannot be removed as a file.
    await mkdir(join(folder.path, first));
    await writeFile(join(folder.path, first.replace('.jsonl', '.2.jsonl')), 'x');
    await expect(pruneAudits(folder.path, async () => false, { audits: 0 })).rejects.toThrow();
    expect(await readdir(folder.path)).toEqual([first]);
  });

  test('a file that is missing, swapped or added in the middle or at the end is noticed', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const at = (number: number) => join(folder.path, number === 1 ? 'log.jsonl' : `log.${number}.jsonl`);
    const contents = new Map<number, Buffer>();
    {
      using log = new AuditLog({ path: at(1), segmentBytes: 2000, segments: 9 });
      for (let i = 0; i < 25; i++) log.append(event(`${i}.example`));
    }
    const { segments } = await verifyAudit(at(1));
    expect(segments).toBeGreaterThan(2);
    for (let i = 1; i <= segments; i++) contents.set(i, await readFile(at(i)));
    const restore = async () => {
      for (const [i, bytes] of contents) await writeFile(at(i), bytes);
    };
    const refused = () => expect(verifyAudit(at(1))).rejects.toMatchObject({ code: 'AUDIT_INVALID' });
    for (let i = 2; i <= segments; i++) {
      await rm(at(i));
      await refused();
      await restore();
    }
    await writeFile(at(2), contents.get(3)!);
    await refused();
    await restore();
    await writeFile(at(segments + 1), contents.get(2)!);
    await refused();
    await rm(at(segments + 1));
    // What was killed between making a file and writing to it leaves it empty.
    await writeFile(at(segments), '');
    expect(await verifyAudit(at(1))).toMatchObject({ sealed: false, segments });
  });

  test('the oldest audits go when there are too many, those of running bottles stay', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const names = Array.from({ length: 6 }, (_, i) =>
      auditName({ slug: `b${i}`, createdAt: `2026-01-0${i + 1}T00:00:00.000Z`, id: '0123456789abcdef' }),
    );
    for (const name of names) await writeFile(join(folder.path, name), 'x'.repeat(100));
    const further = names[1]!.replace('.jsonl', '.2.jsonl');
    await writeFile(join(folder.path, further), 'x'.repeat(100));
    await writeFile(join(folder.path, 'notes.txt'), 'mine');
    const prune = (bounds: AuditBounds) => pruneAudits(folder.path, async (slug) => slug === 'b0', bounds);
    await prune({ audits: 6 });
    expect(await readdir(folder.path)).toHaveLength(8);
    await prune({ audits: 4 });
    expect((await readdir(folder.path)).toSorted()).toEqual([names[0], ...names.slice(3), 'notes.txt']);
    await prune({ bytes: 250 });
    expect((await readdir(folder.path)).toSorted()).toEqual([names[0], names[5], 'notes.txt']);
  });

  test('a line without an end does not fill the memory', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = join(folder.path, 'long.jsonl');
    await writeFile(path, Buffer.alloc(1024 * 1024, 'x'));
    await expect(verifyAudit(path)).rejects.toMatchObject({ code: 'AUDIT_INVALID', details: { line: 1 } });
  });
});
