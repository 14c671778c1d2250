import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { formatPlan } from '@decant/bottle';

import { planFor, type BottleRequest } from './bottle-plan.ts';
import { createSession, type Session } from './session.ts';

let folder: string;
let session: Session;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bottle-plan-'));
  const paths = { home: folder, cache: join(folder, 'cache'), scratch: join(folder, 'scratch') };
  session = createSession({
    baseUrl: 'https://decant.invalid',
    paths,
    fetch: () => Promise.reject(new Error('unused')),
  });
  vi.stubEnv('DECANT_HOME', folder);
  await mkdir(join(folder, 'bottles.d'), { mode: 0o755 });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

const manifest = (name: string, text: string) =>
  writeFile(join(folder, 'bottles.d', `${name}.yaml`), text, { mode: 0o644 });
const plan = (request: BottleRequest) => planFor(session, request, {});

describe('a bottle is planned', () => {
  test('from the manifest in the documentation', async () => {
    const page = await readFile(join(import.meta.dirname, '../../../docs/bottles.md'), 'utf8');
    const [, yaml = ''] = /```yaml\n([^]*?)```/.exec(page) ?? [];
    await manifest('base', 'limits: { memory: 1G }\n');
    await manifest('reviewer', yaml);
    await expect(plan({ name: 'reviewer' })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    vi.stubEnv('REVIEW_MODEL', 'of the operator');
    const planned = await plan({ name: 'reviewer' });
    expect(planned.environment).toEqual({ LANG: 'C.UTF-8', MODEL: 'of the operator' });
    expect(planned.files).toHaveLength(2);
    expect(formatPlan(planned.plan)).toContain('10.4.0.0/16');
    expect(JSON.stringify(planned.plan)).not.toContain('of the operator');
  });

  test('from options alone, which go before a manifest', async () => {
    const own = await plan({ image: 'registry/app:v1', allow: ['a.example:8443'], environment: { A: 'secret' } });
    expect(own.plan).toMatchObject({ name: 'app', image: 'registry/app:v1', agent: { environmentNames: ['A'] } });
    expect(own.plan.egress.policy.routes).toMatchObject([{ hosts: ['a.example'], ports: [8443], protocol: 'http' }]);
    await manifest('known', 'image: app\nlimits: { cpus: 1 }\nagent: { command: [ls], user: app }\n');
    const file = join(folder, 'bottles.d', 'known.yaml');
    for (const name of ['known', file]) {
      const over = await plan({
        name,
        image: 'other',
        command: ['id'],
        limits: { memoryBytes: 2 ** 30, wallTimeMs: 5000 },
      });
      expect(over.plan).toMatchObject({
        name: 'known',
        image: 'other',
        agent: { command: ['id'], user: 'app' },
        limits: { cpus: 1, memoryBytes: 2 ** 30, wallTimeMs: 5000 },
      });
    }
    expect((await plan({ name: 'Not a manifest', image: 'app' })).plan.slugBase).toBe('not-a-manifest');
  });

  test.each<[BottleRequest, string]>([
    [{ name: 'nobody' }, 'NOT_FOUND'],
    [{ name: '../known' }, 'NAME_INVALID'],
    [{ image: '--privileged' }, 'USAGE'],
    [{ image: 'a\nb' }, 'USAGE'],
    [{ image: 'app', name: '日本' }, 'NAME_INVALID'],
    [{ image: 'app', allow: ['http://x.example/'] }, 'CONFIG_INVALID'],
    [{ image: 'app', allow: ['a\0.example'] }, 'USAGE'],
    [{ image: 'app', limits: { memoryBytes: 1 } }, 'USAGE'],
    [{ image: 'app', limits: { cpus: Number.NaN } }, 'USAGE'],
    [{ image: 'app', environment: { 'A B': 'x' } }, 'USAGE'],
    [{ image: 'app', mounts: [{ type: 'read-only', source: '/x', target: '/proc/x' }] }, 'CONFIG_INVALID'],
  ])('%j is refused', async (request, code) => {
    await expect(plan(request)).rejects.toMatchObject({ code });
  });
});
