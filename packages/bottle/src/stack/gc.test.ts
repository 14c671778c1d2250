import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Backend, ResourceClaim } from '../backends/backend.ts';
import { collectBottles, listBottles } from './gc.ts';
import { identityOf, livenessOf, ownerMark } from './owner.ts';
import { openStack } from './stack.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'decant-gc-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const gone = { pid: process.pid, start: '1', boot: '', namespace: '' };

async function ledger(
  slug: string,
  claims: readonly ResourceClaim[],
  change: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const own = (await identityOf(process.pid))!;
  const header = {
    version: 1,
    slug,
    id: '0123456789abcdef',
    name: slug,
    backend: 'native',
    image: 'app',
    owner: { ...gone, boot: own.boot, namespace: own.namespace },
    createdAt: '2026-01-01T00:00:00.000Z',
    endsBy: '2026-01-01T01:00:00.000Z',
    ...change,
  };
  const lines = [header, ...claims.map(({ kind, ...facts }, index) => ({ claim: index + 1, kind, facts }))];
  await writeFile(join(directory, `${slug}.jsonl`), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}

function recording(reaped: string[]): Backend {
  const none = () => Promise.reject(new Error('not used'));
  return { name: 'native', probe: none, prepare: none, reap: async (claim) => void reaped.push(claim.kind) };
}

describe('collectBottles', () => {
  it('undoes in reverse order what bottles left whose owner is gone, and nothing else', async () => {
    const running = await openStack({
      directory,
      name: 'mine',
      backend: 'native',
      image: 'app',
      wallTimeMs: 60_000,
      reap: async () => undefined,
    });
    await running.enter(
      { kind: 'kept' },
      async () => 1,
      async () => undefined,
    );
    await ledger('dead', [{ kind: 'a' }, { kind: 'b' }, { kind: 'c' }]);
    const reaped: string[] = [];
    const backends = [recording(reaped)];
    const first = await collectBottles({ directory, backends });
    expect(first).toEqual({ collected: [{ slug: 'dead', kinds: ['c', 'b', 'a'] }], running: ['mine'], failed: [] });
    expect(reaped).toEqual(['c', 'b', 'a']);
    const before = await readFile(join(directory, 'mine.jsonl'));
    expect(await collectBottles({ directory, backends })).toEqual({ collected: [], running: ['mine'], failed: [] });
    expect(await readFile(join(directory, 'mine.jsonl'))).toEqual(before);
    expect(reaped).toHaveLength(3);
    await running.close();
    expect(await collectBottles({ directory, backends })).toEqual({ collected: [], running: [], failed: [] });
    expect(await readdir(directory)).toEqual([]);
  });

  it('is content without a folder', async () => {
    const none = { collected: [], running: [], failed: [] };
    expect(await collectBottles({ directory: join(directory, 'none'), backends: [] })).toEqual(none);
    expect(await listBottles(join(directory, 'none'))).toEqual([]);
  });

  it('takes a used-again process number, another boot and a zombie for gone', async () => {
    const own = (await identityOf(process.pid))!;
    expect(await livenessOf(own)).toBe('lives');
    expect(await livenessOf({ ...own, start: `${Number(own.start) + 1}` })).toBe('gone');
    expect(await livenessOf({ ...own, boot: '00000000-0000-0000-0000-000000000000' })).toBe('gone');
    expect(await livenessOf({ ...own, namespace: '1' })).toBe('unknown');
    await ledger('other-boot', [], { owner: { ...own, boot: '00000000-0000-0000-0000-000000000000' } });
    await ledger('reused', [], { owner: { ...own, start: '1' } });
    const { collected } = await collectBottles({ directory, backends: [] });
    expect(collected.map(({ slug }) => slug)).toEqual(['other-boot', 'reused']);
  });

  it('leaves a bottle of another process namespace alone until its wall time has long run out', async () => {
    const own = (await identityOf(process.pid))!;
    const owner = { ...own, namespace: '1' };
    await ledger('fresh', [], { owner, endsBy: new Date(Date.now() - 1000).toISOString() });
    await ledger('old', [], { owner });
    const result = await collectBottles({ directory, backends: [] });
    expect(result).toMatchObject({ collected: [{ slug: 'old' }], running: ['fresh'] });
  });

  it('reports what it cannot read or undo, leaves that ledger, and goes on with the others', async () => {
    await writeFile(join(directory, 'broken.jsonl'), '{"version":1}\n');
    await writeFile(join(directory, 'empty.jsonl'), '');
    await writeFile(join(directory, 'Not A Slug.jsonl'), 'what');
    await ledger('docker-one', [{ kind: 'container' }], { backend: 'docker' });
    await ledger('fine', [{ kind: 'x' }]);
    const result = await collectBottles({ directory, backends: [recording([])] });
    expect(result.failed.map(({ slug }) => slug)).toEqual(['broken', 'docker-one']);
    expect(result.collected.map(({ slug }) => slug)).toEqual(['fine']);
    expect((await readdir(directory)).toSorted()).toEqual(['Not A Slug.jsonl', 'broken.jsonl', 'docker-one.jsonl']);
  });

  it('ignores a last line that was cut off, for it was not synced', async () => {
    await ledger('cut', [{ kind: 'a' }]);
    const path = join(directory, 'cut.jsonl');
    await writeFile(path, `${await readFile(path, 'utf8')}{"claim":2,"kind":"b`);
    const reaped: string[] = [];
    await collectBottles({ directory, backends: [recording(reaped)] });
    expect(reaped).toEqual(['a']);
  });

  it('tries the other claims when one cannot be undone', async () => {
    await ledger('two', [{ kind: 'a' }, { kind: 'b' }]);
    const reaped: string[] = [];
    const backend = recording(reaped);
    const reap = async (claim: ResourceClaim) => {
      if (claim.kind === 'b') throw new Error('busy');
      await backend.reap(claim);
    };
    const { failed } = await collectBottles({ directory, backends: [{ ...backend, reap }] });
    expect(failed).toMatchObject([{ slug: 'two', error: { message: 'busy' } }]);
    expect(reaped).toEqual(['a']);
  });

  it('removes a state folder, but only that of the bottle, and not through links', async () => {
    const outside = join(directory, 'outside');
    await mkdir(outside);
    await writeFile(join(outside, 'file'), 'x');
    await mkdir(join(directory, 'mine'));
    await symlink(outside, join(directory, 'mine', 'link'));
    await ledger('mine', [{ kind: 'directory', path: join(directory, 'mine') }]);
    await ledger('forged', [{ kind: 'directory', path: outside }]);
    await ledger('elsewhere', [{ kind: 'directory', path: join(outside, 'elsewhere') }]);
    await mkdir(join(outside, 'elsewhere'));
    await ledger('climbing', [{ kind: 'directory', path: join(directory, 'climbing', '..', 'outside') }]);
    const result = await collectBottles({ directory, backends: [] });
    expect(result.collected.map(({ slug }) => slug)).toEqual(['mine']);
    expect(result.failed.map(({ slug }) => slug)).toEqual(['climbing', 'elsewhere', 'forged']);
    expect((await readdir(outside)).toSorted()).toEqual(['elsewhere', 'file']);
    expect(await readdir(directory)).not.toContain('mine');
  });

  it('ends a process that is left, and never another with its number', async () => {
    const left = spawn('sleep', ['60']);
    const sidecar = spawn('sleep', ['60']);
    const other = spawn('sleep', ['60']);
    try {
      const leftFacts = (await identityOf(left.pid!))!;
      const otherFacts = (await identityOf(other.pid!))!;
      const sidecarFacts = (await identityOf(sidecar.pid!))!;
      await ledger('one', [
        { kind: 'process', ...leftFacts },
        { kind: 'fence', ...sidecarFacts },
        { kind: 'process', ...otherFacts, start: `${Number(otherFacts.start) - 1}` },
        { kind: 'process' },
      ]);
      const ended = new Promise((resolve) => left.once('exit', (_, signal) => resolve(signal)));
      expect((await collectBottles({ directory, backends: [] })).failed).toEqual([]);
      // They are not only told to end.
      expect(await Promise.all([leftFacts, sidecarFacts].map(livenessOf))).toEqual(['gone', 'gone']);
      expect(await ended).toBe('SIGKILL');
      expect(await livenessOf(otherFacts)).toBe('lives');
    } finally {
      left.kill('SIGKILL');
      sidecar.kill('SIGKILL');
      other.kill('SIGKILL');
    }
  });

  it('waits for another collector, not for one that was killed', async () => {
    const own = (await identityOf(process.pid))!;
    await ledger('dead', []);
    const flag = join(directory, `.gc-${ownerMark(own)}.aaaaaaaaaaaaaaaa`);
    await writeFile(flag, '');
    await writeFile(join(directory, `.gc-${ownerMark({ ...own, start: '1' })}.bbbbbbbbbbbbbbbb`), '');
    await writeFile(join(directory, `.claim-${ownerMark({ ...own, start: '1' })}.cccccccccccccccc`), '');
    let done = false;
    const collecting = collectBottles({ directory, backends: [] }).finally(() => (done = true));
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(done).toBe(false);
    await rm(flag);
    expect((await collecting).collected).toHaveLength(1);
    expect(await readdir(directory)).toEqual([]);
  });

  it('what collectors of another process namespace left counts for an hour', async () => {
    const own = (await identityOf(process.pid))!;
    const mark = ownerMark({ ...own, namespace: '1' });
    const [flag, fresh, stale] = [`.gc-${mark}.a`, `.claim-${mark}.b`, `.claim-${mark}.c`];
    for (const name of [flag, fresh, stale]) await writeFile(join(directory, name), '');
    const longAgo = Date.now() / 1000 - 2 * 60 * 60;
    await utimes(join(directory, stale), longAgo, longAgo);
    await ledger('dead', []);
    let done = false;
    const collecting = collectBottles({ directory, backends: [] }).finally(() => (done = true));
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(done).toBe(false);
    await utimes(join(directory, flag), longAgo, longAgo);
    expect((await collecting).collected).toHaveLength(1);
    expect(await readdir(directory)).toEqual([fresh]);
  });

  it('two at a time undo everything once', async () => {
    const reaped: string[] = [];
    for (let index = 0; index < 12; index++) await ledger(`b-${index}`, [{ kind: `k${index}` }]);
    const backends = [recording(reaped)];
    const results = await Promise.all([1, 2, 3].map(() => collectBottles({ directory, backends })));
    expect(results.flatMap(({ collected }) => collected)).toHaveLength(12);
    expect(reaped).toHaveLength(12);
    expect(await readdir(directory)).toEqual([]);
  });
});

describe('listBottles', () => {
  it('tells running ones from those whose owner is gone', async () => {
    await ledger('dead', []);
    await ledger('live', [], { owner: await identityOf(process.pid) });
    await writeFile(join(directory, 'broken.jsonl'), 'x\n');
    const found = await listBottles(directory);
    expect(found.map(({ header, state }) => [header.slug, state])).toEqual([
      ['dead', 'gone'],
      ['live', 'running'],
    ]);
    expect(found[1]?.stateDirectory).toBe(join(directory, 'live'));
  });
});
