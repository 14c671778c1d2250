import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type {
  ExecExit,
  Backend,
  Exec,
  ExecRequest,
  Machine,
  MachineRequest,
  ResourceClaim,
} from '../backends/backend.ts';
import type { Fence, FenceOptions } from '../fence/fence.ts';
import { specOf } from '../manifest/spec.ts';
import type { Manifest } from '../manifest/schema.ts';
import { planBottle } from '../plan/plan-bottle.ts';
import { collectBottles } from '../stack/gc.ts';
import type { OpenBottleDeps } from './deps.ts';
import { launch, type LaunchParts } from './launch.ts';

/*
 * The order of a launch and of what undoes it, on parts that write down what is done to them and hold `world` while they
 * are there. The parts themselves are tried for real where they are made.
 */

let directory: string;
let log: string[];
let world: Set<string>;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'decant-launch-'));
  log = [];
  world = new Set();
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUU7HeqQA1GzHEAyEQl6y6enMAriUwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjIwODI5MTZaGA8yMTI2MTAyOTA4Mjkx
NlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCeS
V2cNvaqtGT6HauxNwgvYz4KPnwd+tk6g4hgSw84LJ4kaHMLrqNfXt/Ce+aexjLVG
nW0BldXVvvfDwxPl1kejUzBRMB0GA1UdDgQWBBQg45dHRTy6fSRDBiTJyeiuA7M8
GTAfBgNVHSMEGDAWgBQg45dHRTy6fSRDBiTJyeiuA7M8GTAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDcSxW0sIo9B1Wfpk1HHg3dARqk++X1nV9p
MQ2hboMHnwIhAOW2kcti4XSKQkO6fTZQuUEKJJ3IzArOWyLZOkgnFwNP
-----END CERTIFICATE-----
`;

interface Ends {
  fence: (reason: string) => void;
  machine: (reason: string) => void;
}

function fakes(failAt?: string) {
  const step = (name: string) => {
    log.push(name);
    if (name === failAt) throw new Error(`${name} fails`);
  };
  const ends: Partial<Ends> = {};
  const execs: ExecRequest[] = [];
  const hold = (name: string) => {
    step(name);
    world.add(name);
  };
  const drop = (name: string) => {
    world.delete(name);
    step(`${name} gone`);
  };
  const machine: Machine = {
    async exec(request) {
      execs.push(request);
      const stdin = new PassThrough();
      const exit = new Promise<ExecExit>((resolve) => {
        stdin.resume().once('end', () => resolve({ exitCode: 0, ran: true, timedOut: false }));
      });
      const none = async () => undefined;
      return {
        stdin,
        stdout: new PassThrough(),
        stderr: new PassThrough(),
        exit,
        signal: none,
        resize: none,
      } satisfies Exec;
    },
    async copyIn(source, target) {
      log.push(`in ${target} ${await readFile(source, 'utf8')}`);
    },
    async copyOut(source, target) {
      log.push(`out ${source}`);
      await writeFile(target, 'bundle of the image');
    },
    withFiles: (use) =>
      use({
        async read(path) {
          log.push(`out ${path}`);
          return Buffer.from('bundle of the image');
        },
        async write(path, content) {
          log.push(`in ${path} ${String(Buffer.from(content))}`);
        },
      }),
    exportChanges: () => new PassThrough(),
    networkNamespace: '/proc/1/ns/net',
    ended: new Promise((resolve) => (ends.machine = (reason) => resolve({ reason }))),
    [Symbol.asyncDispose]: async () => drop('machine'),
  };
  const requests: MachineRequest[] = [];
  const backend: Backend = {
    name: 'native',
    probe: async () => ({ usable: true, reasons: [], weaknesses: [] }),
    async prepare(request, stack) {
      requests.push(request);
      await stack.enter(
        { kind: 'group', path: '/sys/fs/cgroup/x' },
        async () => hold('group'),
        async () => drop('group'),
      );
      hold('prepared');
      return {
        network: 'new',
        async start() {
          hold('machine');
          return machine;
        },
        [Symbol.asyncDispose]: async () => drop('prepared'),
      };
    },
    reap: async (claim: ResourceClaim) => {
      log.push(`reap ${claim.kind}`);
      world.delete(claim.kind);
    },
  };
  const fences: FenceOptions[] = [];
  const fence: Fence = {
    networkNamespace: '/proc/1/fd/9',
    processId: 2 ** 22 + 1,
    certificatePem: CERTIFICATE,
    env: { HTTPS_PROXY: 'http://127.0.0.1:9099', MODE: 'of the fence' },
    async trustFiles(read) {
      const bundle = await read('/etc/ssl/certs/ca-certificates.crt');
      return [
        { path: '/etc/ssl/certs/ca-certificates.crt', content: Buffer.from(`${String(bundle)} + ours`), mode: 0o644 },
      ];
    },
    reload: async () => undefined,
    stats: async () => ({ connections: 3 }) as Awaited<ReturnType<Fence['stats']>>,
    ended: new Promise((resolve) => (ends.fence = (reason) => resolve({ reason }))),
    close: async () => drop('fence'),
    [Symbol.asyncDispose]: async () => drop('fence'),
  };
  const parts: LaunchParts = {
    openFence: async (options) => {
      hold('fence');
      fences.push(options);
      return fence;
    },
    selfProbe: async () => {
      step('probe');
    },
    requireSameNetwork: async () => {
      step('same network');
    },
  };
  const deps: OpenBottleDeps = {
    directory,
    backend,
    environment: { MODE: 'of the agent' },
    resolveImage: async ({ scratchDirectory }) => {
      await access(scratchDirectory);
      hold('image');
      return {
        image: {
          id: 'cas-v1:00',
          disk: { file: '/x' },
          filesystem: 'erofs',
          config: { Entrypoint: ['/init'], Cmd: ['-v'] },
        },
        [Symbol.asyncDispose]: async () => drop('image'),
      };
    },
    provision: async () => step('provision'),
  };
  return { backend, deps, parts, ends, execs, requests, fences };
}

async function planOf(extra: Manifest = {}) {
  const { spec } = specOf({ name: 'agent', image: 'app', ...extra, agent: { env: { MODE: 'x' }, ...extra.agent } });
  return await planBottle(spec, { backend: fakes().backend });
}

/** Keeps the open files of owners that were cut off, as the dead do until the kernel closes them. */
const abandoned: unknown[] = [];

/** Everything is gone: in the world, and on the disk but for the audits. */
async function expectNothingLeft(): Promise<void> {
  expect([...world]).toEqual([]);
  expect(await readdir(directory)).toEqual((await readdir(directory)).filter((name) => name === 'audit.d'));
}

describe('launch', () => {
  it('acquires in order, lets go in reverse, and leaves nothing', async () => {
    const { deps, parts, requests, fences } = fakes();
    const bottle = await launch(await planOf({ agent: { user: 'node' } }), deps, parts);
    expect(log.filter((line) => !line.startsWith('in ') && !line.startsWith('out '))).toEqual([
      'image',
      'group',
      'prepared',
      'fence',
      'machine',
      'probe',
      'provision',
    ]);
    expect(log.indexOf('in /etc/ssl/certs/ca-certificates.crt bundle of the image + ours')).toBeLessThan(
      log.indexOf('provision'),
    );
    expect(requests[0]).toMatchObject({ slug: 'agent', hostname: 'agent', image: { config: { User: 'node' } } });
    expect(fences[0]).toMatchObject({ network: 'new', ports: [80, 443], policy: { routes: [] } });
    expect(bottle.plan).toMatchObject({ slug: 'agent', artifact: { id: 'cas-v1:00' } });
    log = [];
    await bottle.stop();
    await bottle.stop();
    expect(log).toEqual(['machine gone', 'fence gone', 'prepared gone', 'group gone', 'image gone']);
    expect(await bottle.ended).toEqual({ reason: 'stopped', message: 'It was stopped.' });
    await expect(bottle.exec({ argv: ['x'] })).rejects.toMatchObject({ code: 'BOTTLE_ENDED' });
    await expectNothingLeft();
  });

  it('opens the fence of a backend that joins it at once, and leaves nothing when either fails', async () => {
    const one = fakes();
    const joining = (backend: Backend): Backend => ({ ...backend, joinsNetwork: true });
    const bottle = await launch(await planOf(), { ...one.deps, backend: joining(one.backend) }, one.parts);
    expect(log.indexOf('fence')).toBeLessThan(log.indexOf('prepared'));
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
      const started = () => expect.poll(() => log).toContain('machine');
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
    expect(log.indexOf('fence')).toBeLessThan(log.indexOf('probe'));
    expect(log.indexOf('probe')).toBeLessThan(log.indexOf('provision'));
    await bottle.stop();
    await expectNothingLeft();
    log = [];
    await expect(run(true)).rejects.toThrow('no sidecar');
    expect(log).toContain('machine gone');
    expect(log).not.toContain('provision');
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
      // What belongs to the process goes with it.
      for (const name of ['image', 'prepared', 'fence', 'machine']) world.delete(name);
      await ownerDies('agent');
      const result = await collectBottles({ directory, backends: [backend] });
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
    await mkdir(join(directory, 'agent'));
    await writeFile(join(directory, 'agent', 'old'), '');
    const { deps, parts } = fakes();
    const bottle = await launch(await planOf(), deps, parts);
    expect(await readdir(bottle.paths.state)).not.toContain('old');
    await bottle.stop();
    await expectNothingLeft();
  });

  it('ends at its wall time, and when the signal aborts', async () => {
    const one = fakes();
    const bottle = await launch(await planOf({ limits: { wallTime: 300 } }), one.deps, one.parts);
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

  it('runs nothing when the plan has obstacles, or the variables are others than planned', async () => {
    const { deps, parts } = fakes();
    const plan = await planOf();
    await expect(launch({ ...plan, obstacles: ['No bwrap.'] }, deps, parts)).rejects.toMatchObject({
      code: 'JAIL_UNAVAILABLE',
    });
    await expect(launch(plan, { ...deps, environment: {} }, parts)).rejects.toThrow('MODE');
    await expect(launch(plan, { ...deps, environment: { MODE: 'x', MORE: 'y' } }, parts)).rejects.toThrow('MORE');
    await expect(
      launch(await planOf({ egress: { upstreamCaFile: join(directory, 'none.pem') } }), deps, parts),
    ).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await mkdir(join(directory, 'folder'));
    await expect(
      launch(await planOf({ egress: { upstreamCaFile: join(directory, 'folder') } }), deps, parts),
    ).rejects.toThrow('is no file');
    expect(log).toEqual([]);
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
    if ('promptMode' in agent && agent.promptMode === 'file') expect(log).toContain('in /tmp/decant-prompt do it');
  });

  it('a prompt on standard input and a terminal exclude each other', async () => {
    const { deps, parts } = fakes();
    const plan = await planOf({ agent: { prompt: 'x', promptMode: 'stdin' } });
    await using bottle = await launch(plan, deps, parts);
    await expect(bottle.runAgent({ terminal: { columns: 80, rows: 24 } })).rejects.toMatchObject({ code: 'USAGE' });
  });
});

/** Makes the owner of a ledger a process that has ended, as it is after SIGKILL. */
async function ownerDies(slug: string): Promise<void> {
  const path = join(directory, `${slug}.jsonl`);
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace(/"start":"\d+"/, '"start":"1"'));
}
