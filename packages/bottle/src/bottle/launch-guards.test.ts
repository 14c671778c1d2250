import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it, onTestFinished, vi } from 'vitest';

import type { Backend, Machine } from '../backends/backend.ts';
import type { Fence } from '../fence/fence.ts';
import type { Manifest } from '../manifest/schema.ts';
import type { FaultPoint } from '../stack/fault-points.ts';
import { readLedger } from '../stack/ledger.ts';
import { LaunchStage } from './launch.fixture.ts';
import { launch } from './launch.ts';
import { LifeLine } from './life-line.ts';

/* What a launch guards against, besides its order (see launch.test.ts). */

let stage: LaunchStage;
beforeEach(async () => {
  stage = await LaunchStage.open();
});
afterEach(() => stage[Symbol.asyncDispose]());

const planOf = (extra?: Manifest) => stage.plan(extra);
const expectNothingLeft = async () => expect(await stage.left()).toEqual([]);

/** A backend whose machines have something of their own. */
function withMachine(backend: Backend, change: (machine: Machine) => Machine): Backend {
  return {
    ...backend,
    async prepare(request, stack) {
      const prepared = await backend.prepare(request, stack);
      return { ...prepared, start: async (how) => change(await prepared.start(how)) };
    },
  };
}

function fakeTimers(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
}

it('leaves nothing when it fails before, within or after any acquisition, or after a release, and says so', async () => {
  const points: FaultPoint[] = [];
  const { deps, parts } = stage.fakes();
  const bottle = await launch(await planOf(), { ...deps, faultHook: (point) => void points.push(point) }, parts);
  await bottle.stop();
  expect(points).toHaveLength(7 * 5);
  // What cannot be let go at all is in launch.test.ts.
  for (const point of points.filter((name) => !name.startsWith('release:'))) {
    const again = stage.fakes();
    const faultHook = (at: FaultPoint) => {
      if (at === point) throw new Error(`${point} fails`);
    };
    const live = async () => {
      const opened = await launch(await planOf(), { ...again.deps, faultHook }, again.parts);
      await opened.stop();
    };
    await expect(live(), point).rejects.toThrow(`${point} fails`);
    expect([point, await stage.left()]).toEqual([point, []]);
  }
});

it('a machine that comes into being while its launch fails goes before what it is made of', async () => {
  const { deps, parts, backend } = stage.fakes();
  const failed = Promise.withResolvers<void>();
  const late: Backend = {
    ...backend,
    joinsNetwork: true,
    async prepare(request, stack) {
      const prepared = await backend.prepare(request, stack);
      return {
        ...prepared,
        async start(how) {
          await failed.promise;
          // Long enough for the rest to be undone, if it were.
          await new Promise((resolve) => setTimeout(resolve, 50));
          return await prepared.start(how);
        },
      };
    },
  };
  const openFence = async (): Promise<Fence> => {
    await expect.poll(() => stage.log).toContain('prepared');
    failed.resolve();
    throw new Error('no sidecar');
  };
  await expect(
    launch(
      await planOf(),
      { ...deps, backend: late },
      {
        ...parts,
        openFence: async (options) => {
          options.onNamespace?.('/proc/1/fd/9');
          return await openFence();
        },
      },
    ),
  ).rejects.toThrow('no sidecar');
  expect(stage.log.slice(-4)).toEqual(['machine gone', 'prepared gone', 'group gone', 'image gone']);
  await expectNothingLeft();
});

it('no timer of it stays, when it was stopped and when it failed', async () => {
  fakeTimers();
  const { deps, parts } = stage.fakes();
  const bottle = await launch(await planOf(), deps, parts);
  expect(vi.getTimerCount()).toBe(1);
  await bottle.stop();
  expect(vi.getTimerCount()).toBe(0);
  for (const step of ['image', 'machine', 'probe']) {
    const failing = stage.fakes(step);
    await expect(launch(await planOf(), failing.deps, failing.parts)).rejects.toThrow(`${step} fails`);
    expect(vi.getTimerCount()).toBe(0);
  }
});

it('a wall time beyond the longest timer is not over at once', async () => {
  fakeTimers();
  const life = new LifeLine({ slug: 'long', wallTimeMs: 2 ** 31 + 1000, signal: undefined });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(life.reason).toBeUndefined();
  life.end('stopped', 'It was stopped.');
});

it('an abort counts at every moment, also before its folder and after its last step', async () => {
  const reason = new Error('enough');
  const early = new AbortController();
  const one = stage.fakes();
  const launched = launch(await planOf(), { ...one.deps, signal: early.signal }, one.parts);
  early.abort(reason);
  await expect(launched).rejects.toBe(reason);
  await expectNothingLeft();
  const late = new AbortController();
  const { provision: _, ...deps } = stage.fakes().deps;
  const onEvent = ({ name }: { readonly name: string }) => {
    if (name === 'probed') late.abort(reason);
  };
  await expect(launch(await planOf(), { ...deps, onEvent, signal: late.signal }, one.parts)).rejects.toBe(reason);
  await expectNothingLeft();
});

it('its folders are for its owner alone, and the ledger knows the process of its fence', async () => {
  const { deps, parts } = stage.fakes();
  const openFence: typeof parts.openFence = async (options) => ({
    ...(await parts.openFence(options)),
    processId: process.pid,
  });
  await using bottle = await launch(await planOf(), deps, { ...parts, openFence });
  for (const path of [bottle.paths.state, join(bottle.paths.state, 'machine'), join(stage.directory, 'audit.d')]) {
    expect([path, (await stat(path)).mode & 0o777]).toEqual([path, 0o700]);
  }
  expect(await readLedger(stage.directory, 'agent')).toMatchObject({
    claims: expect.arrayContaining([expect.objectContaining({ kind: 'fence', pid: process.pid })]) as unknown,
  });
});

it('a file of authorities that holds none, or too much, is refused before anything is done', async () => {
  const { deps, parts } = stage.fakes();
  const file = join(stage.directory, 'authorities.pem');
  const launched = async () => await launch(await planOf({ egress: { upstreamCaFile: file } }), deps, parts);
  await writeFile(file, 'no certificate');
  await expect(launched()).rejects.toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining('PEM') });
  await writeFile(file, `-----BEGIN CERTIFICATE-----\n${'x'.repeat(2 ** 20)}`);
  await expect(launched()).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.stringContaining('1048576 bytes'),
  });
  expect(stage.log).toEqual([]);
});

it('a sealed bottle has no fence, and is taken down when its network is no sealed one', async () => {
  const { deps, parts, backend } = stage.fakes();
  const own = withMachine(backend, (machine) => ({ ...machine, networkNamespace: '/proc/self/ns/net' }));
  const plan = await planOf({ egress: { sealed: true } });
  await expect(launch(plan, { ...deps, backend: own }, parts)).rejects.toMatchObject({ code: 'BOTTLE_PROBE_FAILED' });
  expect(stage.log).not.toContain('fence');
  expect(stage.log).not.toContain('provision');
  await expectNothingLeft();
});

it('what an image trusts is read once, and again where something is mounted over it', async () => {
  const reads = async (extra: Manifest) => {
    stage.log = [];
    const { deps, parts } = stage.fakes();
    const resolveImage: typeof deps.resolveImage = async (request) => {
      const resolved = await deps.resolveImage(request);
      return { ...resolved, image: { ...resolved.image, id: `cas-v1:${'ab'.repeat(32)}` } };
    };
    await using _ = await launch(await planOf(extra), { ...deps, resolveImage }, parts);
    return stage.log.filter((line) => line.startsWith('out ')).length;
  };
  expect(await reads({})).toBe(1);
  expect(await reads({})).toBe(0);
  await mkdir(join(stage.directory, 'mounted'));
  const mounts = [{ type: 'read-only' as const, source: join(stage.directory, 'mounted'), target: '/etc/ssl' }];
  expect(await reads({ mounts })).toBe(1);
});

it('a prompt in a file is for its owner alone while it is copied, and gone then', async () => {
  const { deps, parts, backend } = stage.fakes();
  const modes: number[] = [];
  const own = withMachine(backend, (machine) => ({
    ...machine,
    async copyIn(source, target) {
      modes.push((await stat(source)).mode & 0o777);
      await machine.copyIn(source, target);
    },
  }));
  const plan = await planOf({ agent: { command: ['run'], prompt: 'do it', promptMode: 'file' } });
  await using bottle = await launch(plan, { ...deps, backend: own }, parts);
  await bottle.runAgent();
  expect(modes).toEqual([0o600]);
  expect((await readdir(bottle.paths.state)).toSorted()).toEqual(['image', 'machine']);
});
