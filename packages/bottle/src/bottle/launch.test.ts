import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';

import type { Backend } from '../backends/backend.ts';
import type { Manifest } from '../manifest/schema.ts';
import { collectBottles } from '../stack/gc.ts';
import { LaunchStage } from './launch.fixture.ts';
import { launch, type LaunchParts } from './launch.ts';

/*
 * The order of a launch and of what undoes it, on parts that write down what is done to them and hold `world` while they
 * are there. The parts themselves are tried for real where they are made.
 */

let stage: LaunchStage;
beforeEach(async () => {
  stage = await LaunchStage.open();
});
afterEach(() => stage[Symbol.asyncDispose]());

const fakes = (failAt?: string) => stage.fakes(failAt);
const planOf = (extra?: Manifest) => stage.plan(extra);
const expectNothingLeft = async () => expect(await stage.left()).toEqual([]);

type Hangs = (first: unknown) => Promise<never>;

/** Keeps the open files of owners that were cut off, as the dead do until the kernel closes them. */
const abandoned: unknown[] = [];

describe('launch', () => {
  it('acquires in order, lets go in reverse, and leaves nothing', async () => {
    const { deps, parts, requests, fences } = fakes();
    const bottle = await launch(await planOf({ agent: { user: 'node' } }), deps, parts);
    expect(stage.log.filter((line) => !line.startsWith('in ') && !line.startsWith('out '))).toEqual([
      'image',
      'group',
      'prepared',
      'fence',
      'machine',
      'probe',
      'provision',
    ]);
    expect(stage.log.indexOf('in /etc/ssl/certs/ca-certificates.crt bundle of the image + ours')).toBeLessThan(
      stage.log.indexOf('provision'),
    );
    expect(requests[0]).toMatchObject({ slug: 'agent', hostname: 'agent', image: { config: { User: 'node' } } });
    expect(fences[0]).toMatchObject({ network: 'new', ports: [80, 443], policy: { routes: [] } });
    expect(bottle.plan).toMatchObject({ slug: 'agent', artifact: { id: 'cas-v1:00' } });
    stage.log = [];
    await bottle.stop();
    await bottle.stop();
    expect(stage.log).toEqual(['machine gone', 'fence gone', 'prepared gone', 'group gone', 'image gone']);
    expect(await bottle.ended).toEqual({ reason: 'stopped', message: 'It was stopped.' });
    await expect(bottle.exec({ argv: ['x'] })).rejects.toMatchObject({ code: 'BOTTLE_ENDED' });
    await expectNothingLeft();
  });

  it('opens the fence of a backend that joins it at once, and leaves nothing when either fails', async () => {
    const one = fakes();
    const joining = (backend: Backend): Backend => ({ ...backend, joinsNetwork: true });
    const bottle = await launch(await planOf(), { ...one.deps, backend: joining(one.backend) }, one.parts);
    expect(stage.log.indexOf('fence')).toBeLessThan(stage.log.indexOf('prepared'));
    await bottle.stop();
    await expectNothingLeft();
    for (const step of ['image', 'fence', 'prepared', 'machine', 'probe', 'same network']) {
      const { deps, parts, backend } = fakes(step);
      await expect(launch(await planOf(), { ...deps, backend: joining(backend) }, parts)).rejects.toThrow(
        `${step} fails`,
      );
      await expectNothingLeft();
    }
  });

  it('starts a machine that joins the fence when the namespace is there, and undoes it when the fence fails then', async () => {
    const run = async (fails: boolean) => {
      const { deps, parts, backend } = fakes();
      const started = () => expect.poll(() => stage.log).toContain('machine');
      const openFence: LaunchParts['openFence'] = async (options) => {
        options.onNamespace?.('/proc/1/fd/9');
        await started();
        if (fails) throw new Error('no sidecar');
        return await parts.openFence(options);
      };
      return await launch(
        await planOf(),
        { ...deps, backend: { ...backend, joinsNetwork: true } },
        { ...parts, openFence },
      );
    };
    const bottle = await run(false);
    expect(stage.log.indexOf('fence')).toBeLessThan(stage.log.indexOf('probe'));
    expect(stage.log.indexOf('probe')).toBeLessThan(stage.log.indexOf('provision'));
    await bottle.stop();
    await expectNothingLeft();
    stage.log = [];
    await expect(run(true)).rejects.toThrow('no sidecar');
    expect(stage.log).toContain('machine gone');
    expect(stage.log).not.toContain('provision');
    await expectNothingLeft();
  });

  it.each(['image', 'group', 'prepared', 'fence', 'machine', 'probe', 'provision'])(
    'leaves nothing when %s fails, and says so',
    async (step) => {
      const { deps, parts } = fakes(step);
      await expect(launch(await planOf(), deps, parts)).rejects.toThrow(`${step} fails`);
      await expectNothingLeft();
    },
  );

  it.each(['machine gone', 'fence gone', 'prepared gone', 'group gone', 'image gone'])(
    'goes on to the end when %s fails on the way down, and says so',
    async (step) => {
      const { deps, parts } = fakes(step);
      const bottle = await launch(await planOf(), deps, parts);
      await expect(bottle.stop()).rejects.toThrow(`${step} fails`);
      expect(await bottle.ended).toMatchObject({ reason: 'stopped' });
      await expectNothingLeft();
    },
  );

  it('leaves nothing when it is cut off at any acquisition, once it is collected', async () => {
    const points: string[] = [];
    {
      const { deps, parts } = fakes();
      const bottle = await launch(await planOf(), { ...deps, faultHook: (point) => void points.push(point) }, parts);
      await bottle.stop();
    }
    expect(points.filter((point) => point.startsWith('acquired:'))).toEqual(
      ['directory', 'audit', 'image', 'group', 'prepared', 'fence', 'machine'].map((kind) => `acquired:${kind}`),
    );
    for (const point of points) {
      const { deps, parts, backend } = fakes();
      const cut = Promise.withResolvers<'cut'>();
      const faultHook = async (at: string) => {
        if (at !== point) return;
        cut.resolve('cut');
        await new Promise((resolve) => abandoned.push(resolve));
      };
      const live = async () => {
        const bottle = await launch(await planOf(), { ...deps, faultHook }, parts);
        await bottle.stop();
      };
      expect([point, await Promise.race([live(), cut.promise])]).toEqual([point, 'cut']);
      await stage.ownerDies('agent');
      const result = await collectBottles({ directory: stage.directory, backends: [backend] });
      expect([point, result.failed, result.running]).toEqual([point, [], []]);
      await expectNothingLeft();
    }
  });

  it.each(['fence', 'machine'] as const)('ends when its %s ends', async (part) => {
    const { deps, parts, ends } = fakes();
    const bottle = await launch(await planOf(), deps, parts);
    ends[part]!('it was killed.');
    expect(await bottle.ended).toMatchObject({ reason: `${part}-ended` });
    await expectNothingLeft();
  });

  it('takes the place of a folder that lost its ledger', async () => {
    await mkdir(join(stage.directory, 'agent'));
    await writeFile(join(stage.directory, 'agent', 'old'), '');
    const { deps, parts } = fakes();
    const bottle = await launch(await planOf(), deps, parts);
    expect(await readdir(bottle.paths.state)).not.toContain('old');
    await bottle.stop();
    await expectNothingLeft();
  });

  it('ends at its wall time, and when the signal aborts', async () => {
    const one = fakes();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const bottle = await launch(await planOf({ limits: { wallTime: 60_000 } }), one.deps, one.parts);
    await vi.advanceTimersByTimeAsync(59_999);
    expect(await bottle.stats()).toMatchObject({ uptimeMs: expect.any(Number) });
    await vi.advanceTimersByTimeAsync(1);
    expect(await bottle.ended).toMatchObject({ reason: 'wall-time' });
    const two = fakes();
    const controller = new AbortController();
    const other = await launch(await planOf(), { ...two.deps, signal: controller.signal }, two.parts);
    controller.abort(new Error('enough'));
    expect(await other.ended).toMatchObject({ reason: 'aborted' });
    await expectNothingLeft();
  });

  it('a launch that hangs ends with its signal, and with its fence', async () => {
    const never = () => new Promise<never>(() => undefined);
    const one = fakes();
    const controller = new AbortController();
    const reason = new Error('enough');
    const provision = async () => {
      setTimeout(() => controller.abort(reason), 10);
      await never();
    };
    await expect(launch(await planOf(), { ...one.deps, provision, signal: controller.signal }, one.parts)).rejects.toBe(
      reason,
    );
    await expectNothingLeft();
    const two = fakes();
    const dying = async () => {
      two.ends.fence!('killed.');
      await never();
    };
    await expect(launch(await planOf(), two.deps, { ...two.parts, selfProbe: dying })).rejects.toMatchObject({
      code: 'BOTTLE_ENDED',
    });
    await expectNothingLeft();
  });

  it.each([
    ['its image comes', (hangs: Hangs) => ({ deps: { resolveImage: hangs } })],
    ['its fence is opened', (hangs: Hangs) => ({ parts: { openFence: hangs } })],
    ['its fence is tried', (hangs: Hangs) => ({ parts: { selfProbe: hangs } })],
    ['it is provisioned', (hangs: Hangs) => ({ deps: { provision: hangs } })],
  ])('says that its wall time was over, or why it was aborted, while %s', async (_, replaced) => {
    for (const wallTime of [100, 600_000]) {
      const controller = new AbortController();
      const reason = new Error('enough');
      const { deps, parts, requests } = fakes();
      // As streams do, it says how the end reached it, and not why.
      const hangs: Hangs = async (first) => {
        const signal = (first as { signal?: AbortSignal }).signal ?? requests[0]?.signal;
        const ended = new Promise((resolve) => signal?.addEventListener('abort', resolve, { once: true }));
        if (wallTime > 1000) controller.abort(reason);
        if (signal?.aborted !== true) await ended;
        throw new Error('Premature close');
      };
      const other: { deps?: object; parts?: object } = replaced(hangs);
      const launched = launch(
        await planOf({ limits: { wallTime } }),
        { ...deps, signal: controller.signal, ...other.deps },
        { ...parts, ...other.parts },
      );
      if (wallTime > 1000) await expect(launched).rejects.toBe(reason);
      else await expect(launched).rejects.toMatchObject({ code: 'TIMEOUT', retryable: false });
      await expectNothingLeft();
    }
  });

  it('runs nothing when the plan has obstacles, or the variables are others than planned', async () => {
    const { deps, parts } = fakes();
    const plan = await planOf();
    await expect(launch({ ...plan, obstacles: ['No bwrap.'] }, deps, parts)).rejects.toMatchObject({
      code: 'JAIL_UNAVAILABLE',
    });
    await expect(launch(plan, { ...deps, environment: {} }, parts)).rejects.toThrow('MODE');
    await expect(launch(plan, { ...deps, environment: { MODE: 'x', MORE: 'y' } }, parts)).rejects.toThrow('MORE');
    await expect(
      launch(await planOf({ egress: { upstreamCaFile: join(stage.directory, 'none.pem') } }), deps, parts),
    ).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await mkdir(join(stage.directory, 'folder'));
    await expect(
      launch(await planOf({ egress: { upstreamCaFile: join(stage.directory, 'folder') } }), deps, parts),
    ).rejects.toThrow('is no file');
    expect(stage.log).toEqual([]);
  });

  it('gives commands the variables of fence, agent and request, the later over the earlier', async () => {
    const { deps, parts, execs } = fakes();
    await using bottle = await launch(await planOf(), deps, parts);
    await bottle.exec({ argv: ['x'], env: { OWN: '1' } });
    expect(execs[0]?.env).toEqual({ HTTPS_PROXY: 'http://127.0.0.1:9099', MODE: 'of the agent', OWN: '1' });
    expect(await bottle.stats()).toMatchObject({ execs: { running: 1, total: 1 }, egress: { connections: 3 } });
  });

  it.each([
    [{}, { argv: ['/init', '-v'] }, undefined],
    [{ command: ['run'] }, { argv: ['run'] }, undefined],
    [{ command: ['run'], prompt: 'do it' }, { argv: ['run', 'do it'] }, undefined],
    [{ command: ['run'], prompt: '-x', promptMode: 'argument' as const }, { argv: ['run', '-x'] }, undefined],
    [{ command: ['run'], prompt: 'do it', promptMode: 'stdin' as const }, { argv: ['run'] }, 'do it'],
    [
      { command: ['run'], prompt: 'do it', promptMode: 'file' as const },
      {
        argv: ['run', '/tmp/decant-prompt'],
        env: expect.objectContaining({ DECANT_PROMPT_FILE: '/tmp/decant-prompt' }),
      },
      undefined,
    ],
  ])('runs the agent %j', async (agent, request, input) => {
    const { deps, parts, execs } = fakes();
    await using bottle = await launch(await planOf({ agent }), deps, parts);
    const exec = await bottle.runAgent();
    expect(execs[0]).toMatchObject(request);
    if (input !== undefined) expect(await exec.exit).toMatchObject({ exitCode: 0 });
    if ('promptMode' in agent && agent.promptMode === 'file')
      expect(stage.log).toContain('in /tmp/decant-prompt do it');
  });

  it('a prompt on standard input and a terminal exclude each other', async () => {
    const { deps, parts } = fakes();
    const plan = await planOf({ agent: { prompt: 'x', promptMode: 'stdin' } });
    await using bottle = await launch(plan, deps, parts);
    await expect(bottle.runAgent({ terminal: { columns: 80, rows: 24 } })).rejects.toMatchObject({ code: 'USAGE' });
  });
});
