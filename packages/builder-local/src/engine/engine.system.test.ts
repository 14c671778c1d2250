import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Scope, type ProgressEvent } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { busyboxArchive } from '../contract-kit.ts';
import { hasRegistry, startRegistry } from '../contract-registry.ts';
import { openEngine, type ContainerEngine, type EngineOptions } from './engine.ts';

const [docker, podman, runc, busybox] = await Promise.all(['docker', 'podman', 'runc', 'busybox'].map(findProgram));
// [backend:docker] makes the set-up start a daemon.
const dockerHost = inject('dockerHost');
const ready = process.getuid?.() === 0 && runc !== undefined && busybox !== undefined && hasRegistry;
const engines = [
  { name: 'docker', program: docker, there: ready && docker !== undefined && dockerHost !== null },
  { name: 'podman', program: podman, there: ready && podman !== undefined },
] as const;

/** Root may lack the right to raise limits, and crun does not take hybrid cgroups. */
const CONTAINERS_CONF = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`;

describe.each(engines)('[backend:$name] thin calls', { timeout: 300_000 }, ({ name, program, there }) => {
  const scope = new Scope();
  const suffix = `${process.pid}-${Date.now() % 1e6}`;
  const base = `decant-engine-base-${suffix}:1`;
  let directory: string;
  let options: EngineOptions;
  let engine: ContainerEngine;
  const raw = (...args: string[]) =>
    run(program!, [...(options.args ?? []), ...args], { env: { ...process.env, ...options.env } });

  beforeAll(async () => {
    if (!there) return;
    directory = await mkdtemp(join(tmpdir(), 'decant-engine-'));
    scope.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
    if (name === 'docker') options = { env: { DOCKER_HOST: dockerHost! } };
    else {
      await writeFile(join(directory, 'containers.conf'), CONTAINERS_CONF);
      const args = [
        '--root',
        join(directory, 'root'),
        '--runroot',
        join(directory, 'run'),
        '--storage-driver',
        'overlay',
      ];
      options = { args, env: { CONTAINERS_CONF: join(directory, 'containers.conf') } };
      scope.defer(() => run('umount', ['-l', join(directory, 'root/overlay')], { okCodes: [0, 1, 32] }));
    }
    engine = await openEngine(name, options);
    await raw('import', await busyboxArchive(directory), base);
    scope.defer(() => engine.removeImage(base));
  });
  afterAll(() => scope[Symbol.asyncDispose]());

  it.skipIf(!there)('build, identify, tag, save, load and remove images', async () => {
    const context = join(directory, 'context');
    await mkdir(context);
    await writeFile(join(context, 'Dockerfile'), `FROM ${base}\nARG A\nRUN echo "$A" > /a\n`);
    const app = `decant-engine-app-${suffix}:1`;
    expect(await engine.imageId(app)).toBeUndefined();
    const lines: string[] = [];
    const build = { buildArgs: { A: 'b' }, network: 'none', onLine: (line: string) => lines.push(line) };
    const id = await engine.buildImage(context, app, build);
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(lines.join('\n')).toContain('echo "$A"');
    // Every time, and cheap.
    expect(await engine.buildImage(context, app, build)).toBe(id);
    const other = app.replace('app', 'other');
    await engine.tag(app, other);
    expect(await engine.imageId(other)).toBe(id);
    const file = join(directory, 'saved.tar');
    await engine.save(app, file);
    expect((await stat(file)).size).toBeGreaterThan(1e6);
    expect([await engine.removeImage(app), await engine.removeImage(other)]).toEqual([true, true]);
    expect(await engine.imageExists(app)).toBe(false);
    expect((await engine.load(file)).join()).toContain(app);
    expect(await engine.imageId(app)).toBe(id);
    expect([await engine.removeImage(app), await engine.removeImage(app)]).toEqual([true, true]);
    await expect(engine.save(app, join(directory, 'never.tar'))).rejects.toMatchObject({ code: 'PROCESS_FAILED' });
    expect(await readdir(directory)).not.toContain('never.tar');
  });

  it.skipIf(!there)('push with progress and the login of one call', async () => {
    const host = await startRegistry(scope);
    const reference = `${host}/team/app:1`;
    await engine.tag(base, reference);
    scope.defer(() => engine.removeImage(reference));
    const refused = { code: 'UNAUTHORIZED', message: expect.stringContaining(`Not authorised for ${host}`) as string };
    await expect(engine.push(reference)).rejects.toMatchObject(refused);
    const wrong = { [host]: { username: 'me', password: 'wrong-password' } };
    const failure: unknown = await engine.push(reference, { auth: wrong }).catch((error: unknown) => error);
    expect(failure).toMatchObject(refused);
    expect(JSON.stringify(failure)).not.toContain('wrong-password');
    const auth = { [host]: { username: 'me', password: 'secret' } };
    const events: ProgressEvent[] = [];
    const digest = await engine.push(reference, { auth, onEvent: (event) => events.push(event) });
    expect(events.at(-1)).toMatchObject({ type: 'stage-progress', stage: 'upload', items: 1, totalItems: 1 });
    const headers = {
      authorization: `Basic ${Buffer.from('me:secret').toString('base64')}`,
      accept: 'application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json',
    };
    const answer = await fetch(`http://${host}/v2/team/app/manifests/1`, { method: 'HEAD', headers });
    expect(answer.headers.get('docker-content-digest')).toBe(digest);
    // The login was for that call alone.
    await expect(engine.push(reference)).rejects.toMatchObject(refused);
  });

  it.skipIf(!there)('find containers by their exact name, run in them as root and remove them', async () => {
    const container = `decant-c-${suffix}`;
    expect(await engine.containerExists(container)).toBe(false);
    await raw(
      'run',
      '--detach',
      '--network',
      'none',
      '--user',
      '1000:1000',
      '--name',
      `${container}-longer`,
      base,
      'sh',
      '-c',
      // A first process ends by no signal that it does not take, and podman waits ten seconds for it.
      'trap "exit 0" TERM; while :; do sleep 0.1; done',
    );
    try {
      expect(await engine.containerExists(container)).toBe(false);
      expect(await engine.containerExists(`${container}-longer`)).toBe(true);
      const { stdout } = await engine.execAsRoot(
        `${container}-longer`,
        ['sh', '-c', 'cat; echo > /tmp/x; ls -ln /tmp/x'],
        {
          input: 'hello ',
        },
      );
      expect(stdout.toString()).toMatch(/^hello -rw-r--r--\s+1 0\s+0/);
      const failing = engine.execAsRoot(`${container}-longer`, ['sh', '-c', 'echo why >&2; exit 3']);
      await expect(failing).rejects.toMatchObject({ code: 'PROCESS_FAILED', details: { exitCode: 3 } });
      const lax = await engine.execAsRoot(`${container}-longer`, ['sh', '-c', 'exit 3'], { okCodes: [3] });
      expect(lax.exitCode).toBe(3);
    } finally {
      expect(await engine.removeContainer(`${container}-longer`)).toBe(true);
    }
    expect(await engine.containerExists(`${container}-longer`)).toBe(false);
    expect(await engine.removeContainer(container)).toBe(true);
    expect(await engine.hasRunsc()).toBe(false);
  });
});
