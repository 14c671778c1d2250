import { readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openScratchDirectory } from '@decant/core/node';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { AuditEvent } from './audit-event.ts';
import { AuditLog, FIRST_LINK } from './audit-log.ts';
import { verifyAudit } from './verify-audit.ts';

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

  test('a file that exists is left alone; a full log says so; a closed one takes nothing', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = await written(folder.path, ['a.example']);
    expect(() => new AuditLog({ path })).toThrow(expect.objectContaining({ code: 'CONFLICT' }));
    const small = new AuditLog({ path: join(folder.path, 'small.jsonl'), maxBytes: 300 });
    small.append(event('a.example'));
    expect(() => small.append(event('b.example'))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
    const long = new AuditLog({ path: join(folder.path, 'long.jsonl') });
    expect(() => long.append(event('x'.repeat(9000)))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
    long.close();
    long.close();
    expect(() => long.append(event('a'))).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  test('a line without an end does not fill the memory', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const path = join(folder.path, 'long.jsonl');
    await writeFile(path, Buffer.alloc(1024 * 1024, 'x'));
    await expect(verifyAudit(path)).rejects.toMatchObject({ code: 'AUDIT_INVALID', details: { line: 1 } });
  });
});
