import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { findProgram } from '@decant/core/node';
import { probeJail } from '@decant/jail';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { z } from 'zod';

import { makeTestImage } from '../../bottle/testing/test-image.ts';
import { openRealBottle, outputOf } from '../../bottle/testing/real-bottle.ts';
import { dockerBackend } from './docker-backend.ts';
import { openEngine, socketOf, type Engine } from './engine.ts';

const host = inject('dockerHost');
const available =
  host !== null &&
  (await probeJail()).ok &&
  (await findProgram('busybox')) !== undefined &&
  (await findProgram('mkfs.erofs')) !== undefined;

const listSchema = z.array(z.object({ Id: z.string(), Names: z.array(z.string()), State: z.string() }));
const inspectSchema = z.object({
  State: z.object({ Pid: z.int() }),
  Config: z.looseObject({ Labels: z.record(z.string(), z.string()) }),
  HostConfig: z.looseObject({ NetworkMode: z.string() }),
});

describe.skipIf(!available)('[backend:docker] a bottle in a container', { timeout: 300_000 }, () => {
  let folder: string;
  let image: string;
  let directory: string;
  let engine: Engine;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bottle-docker-'));
    image = await makeTestImage(folder);
    engine = openEngine(socketOf(host!));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  beforeEach(async () => {
    directory = await mkdtemp(join(folder, 'bottles-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  /** Containers of bottles, running or not. */
  async function containers(): Promise<z.infer<typeof listSchema>> {
    const filters = encodeURIComponent(JSON.stringify({ label: ['dev.decant.bottle'] }));
    const { body } = await engine.call({ method: 'GET', path: `/containers/json?all=true&filters=${filters}` });
    return listSchema.parse(body);
  }

  /** The container of this bottle; other tests have theirs at the same time. */
  async function containerOf(slug: string) {
    const found = (await containers()).filter(({ Names: [name = ''] }) =>
      new RegExp(`^/decant-${slug}-[0-9a-f]{12}$`).test(name),
    );
    expect(found).toHaveLength(1);
    const { body } = await engine.call({ method: 'GET', path: `/containers/${found[0]!.Id}/json` });
    return { id: found[0]!.Id, ...inspectSchema.parse(body) };
  }

  test('its commands are in the namespaces and the groups of a container that can do nothing itself', async () => {
    const bottle = await openRealBottle(directory, image, { name: 'inside', backend: 'docker' });
    try {
      const running = await bottle.exec({ argv: ['sleep', '66.25'] });
      const container = await containerOf('inside');
      expect(container.HostConfig).toMatchObject({
        NetworkMode: 'none',
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges:true'],
        ReadonlyRootfs: true,
        Memory: 268_435_456,
        MemorySwap: 268_435_456,
        PidsLimit: 65,
        CpuPeriod: 100_000,
        CpuQuota: 100_000,
      });
      expect(container.Config).toMatchObject({ StopSignal: 'SIGKILL', Labels: { 'dev.decant.bottle': 'inside' } });
      const sleeper = async () => {
        const top = await engine.call({ method: 'GET', path: `/containers/${container.id}/top?ps_args=-o%20pid,args` });
        const processes = z.object({ Processes: z.array(z.array(z.string())) }).parse(top.body).Processes;
        return processes.find((words) => words.join(' ').endsWith('sleep 66.25'))?.[0];
      };
      // A program that has just begun has no arguments until it is read from the disk.
      await expect.poll(sleeper).toBeDefined();
      const pid = await sleeper();
      for (const kind of ['pid', 'ipc', 'uts', 'net']) {
        expect(await readlink(`/proc/${pid}/ns/${kind}`)).toBe(
          await readlink(`/proc/${container.State.Pid}/ns/${kind}`),
        );
      }
      for (const kind of ['user', 'mnt']) {
        expect(await readlink(`/proc/${pid}/ns/${kind}`)).not.toBe(
          await readlink(`/proc/${container.State.Pid}/ns/${kind}`),
        );
      }
      expect(await readFile(`/proc/${pid}/cgroup`, 'utf8')).toBe(
        await readFile(`/proc/${container.State.Pid}/cgroup`, 'utf8'),
      );
      // The first process has no right, and signals of those that run beside it do not reach it.
      expect(await readFile(`/proc/${container.State.Pid}/status`, 'utf8')).toMatch(
        /Uid:\t65534\t[^]*CapEff:\t0+\nCapBnd:\t0+\n/,
      );
      await running.signal('SIGKILL');
      await running.exit;
      const kill = await bottle.exec({ argv: ['sh', '-c', 'kill -9 1; kill -TERM 1; kill -CHLD 1'], user: 'root' });
      await kill.exit;
      expect(await outputOf(bottle, ['echo', 'still here'])).toEqual({ exitCode: 0, text: 'still here\n' });
    } finally {
      await bottle.stop();
    }
    expect((await containers()).filter(({ Names: [name = ''] }) => name.startsWith('/decant-inside-'))).toEqual([]);
    expect(await readdir(directory)).toEqual(['audit.d']);
  });

  test('ends when somebody removes its container', async () => {
    const bottle = await openRealBottle(directory, image, { name: 'removed', backend: 'docker' });
    const { id } = await containerOf('removed');
    await engine.call({ method: 'DELETE', path: `/containers/${id}?force=true` });
    expect(await bottle.ended).toMatchObject({ reason: 'machine-ended' });
    expect(await readdir(directory)).toEqual(['audit.d']);
  });

  test('killed when it had its container or its machine, it leaves no container once it was collected', async () => {
    const worker = fileURLToPath(new URL('../../bottle/testing/killed-bottles-worker.ts', import.meta.url));
    const node = ['--conditions=@decant/source', '--disable-warning=ExperimentalWarning', worker];
    const { stdout } = await promisify(execFile)(process.execPath, [...node, directory, image, 'docker', 'docker-'], {
      maxBuffer: 1024 * 1024,
      timeout: 280_000,
      env: { ...process.env, DOCKER_HOST: host! },
    });
    const report = JSON.parse(stdout) as Record<string, unknown> & { points: string[] };
    expect(report.points).toHaveLength(4);
    expect(report).toMatchObject({
      outcomes: report.points.map((point) => `${point} SIGKILL`),
      before: 5,
      collected: 4,
      running: ['live'],
      failed: [],
      second: 0,
      mounts: 0,
      live: { exitCode: 0, text: 'still here\n' },
      after: ['audit.d'],
    });
    const left = (await containers()).filter(({ Names: [name = ''] }) => /^\/decant-(agent|live)-/.test(name));
    expect(left).toEqual([]);
  });

  test('undoes what is gone already', async () => {
    const backend = dockerBackend({ host: host! });
    await backend.reap({ kind: 'docker-container', name: 'decant-never-there', socket: socketOf(host!) });
    await backend.reap({ kind: 'docker-machine', slug: 'never-there' });
  });

  test('says whether the daemon will do', async () => {
    expect(await dockerBackend({ host: host! }).probe()).toMatchObject({
      usable: true,
      reasons: [],
      weaknesses: [expect.stringContaining('daemon'), expect.any(String)],
    });
    for (const wrong of ['tcp://127.0.0.1:2375', 'ssh://somewhere', `unix://${folder}/no.sock`, 'unix://']) {
      const report = await dockerBackend({ host: wrong }).probe();
      expect(report).toMatchObject({ usable: false, reasons: [expect.stringContaining('Docker daemon')] });
    }
  });
});
