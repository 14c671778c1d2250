import { buildFieldsSchema, parseNamespace } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { ClaimedBuild } from '../metadata/image-build-store.ts';
import { openSqliteMetadata } from '../metadata/sqlite-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { LogWriter, type LogWriterOptions } from './log-writer.ts';

const namespace = parseNamespace('acme');
const CLAIM = { trusts: ['tenant'], running: 9, runningPerNamespace: 9, leaseMs: 60_000 } as const;
let metadata: MetadataStore;
let claim: ClaimedBuild;
let said: string[];
beforeEach(async () => {
  metadata = await openSqliteMetadata(':memory:');
  said = [];
  const build = {
    ...({ id: 'one', namespace, trust: 'tenant', host: 'h', name: 'app', tag: 'latest', cacheKey: 'app' } as const),
    ...{
      fields: buildFieldsSchema.parse({ image_name: 'app' }),
      contextBytes: 1,
      idempotencyKey: undefined,
      digest: 'd',
    },
  };
  await metadata.imageBuilds.submit(build, { queued: 9, repeatMs: 0 });
  claim = (await metadata.imageBuilds.claim(CLAIM))!;
});
afterEach(() => metadata[Symbol.asyncDispose]());

const writer = (limitBytes: number, change: Partial<LogWriterOptions> = {}) =>
  new LogWriter({
    builds: metadata.imageBuilds,
    claim,
    limitBytes,
    onWritten: () => said.push('written'),
    onLimit: () => said.push('limit'),
    onFailure: (error) => said.push(`failed: ${(error as Error).message}`),
    ...change,
  });
const lines = async () =>
  (await metadata.imageBuilds.readLog(claim.build, 0)).flatMap(({ firstLine, lines: own }) => [firstLine, ...own]);

describe('the log of a build', () => {
  it('has one line for each, whatever it holds, in the order they came', async () => {
    const log = writer(1000);
    log.add('one\ntwo\r');
    await log.flush();
    log.note('of the service');
    log.add('');
    await log.flush();
    await log.flush();
    expect(await lines()).toEqual([1, 'one two ', 2, 'of the service', '']);
    expect(said).toEqual(['written', 'written']);
  });

  it('is written without being asked', async () => {
    const log = writer(1000);
    log.add('by itself');
    await expect.poll(lines).toEqual([1, 'by itself']);
    expect(log.lastLines).toEqual(['by itself']);
  });

  it('ends at its limit in bytes, of which it says so once, and goes on to know its last lines', async () => {
    const log = writer(10);
    // Five characters of two bytes, which with the end of the line are eleven.
    for (const line of ['äääää', 'a', 'b']) log.add(line);
    log.note('more');
    await log.flush();
    expect([await lines(), log.lastLines, said]).toEqual([
      [1, 'more'],
      ['äääää', 'a', 'b'],
      ['limit', 'written'],
    ]);
    const exact = writer(10);
    exact.add('äääab');
    exact.add('a');
    await exact.flush();
    expect(await lines()).toEqual([1, 'more', 2, 'äääab']);
  });

  it('counts what an earlier start of the build wrote', async () => {
    const first = writer(10);
    first.add('12345');
    await first.flush();
    const release = { ...claim, token: claim.token };
    await metadata.imageBuilds.release(release);
    claim = (await metadata.imageBuilds.claim(CLAIM))!;
    writer(10).add('67890');
    expect(said).toEqual(['written', 'limit']);
  });

  it('keeps twenty last lines, and of long ones their beginning', async () => {
    const log = writer(1e6);
    for (let i = 0; i < 30; i++) log.add(`${i} ${'x'.repeat(3000)}`);
    expect(log.lastLines).toHaveLength(20);
    expect(log.lastLines.at(-1)).toBe(`29 ${'x'.repeat(1997)}…`);
  });

  it('that cannot be written, or is no longer this worker’s, is told', async () => {
    const failing = { ...metadata.imageBuilds, appendLog: () => Promise.reject(new Error('full')) };
    const broken = writer(100, { builds: failing });
    broken.add('x');
    await broken.flush();
    const late = writer(100, { claim: { ...claim, token: claim.token - 1 } });
    late.add('x');
    await late.flush();
    expect(said).toEqual(['failed: full', 'failed: the claim is lost']);
    expect(await lines()).toEqual([]);
  });
});
