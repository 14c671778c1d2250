import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { run } from '@decant/core/node';

import { writeBaseArchive } from './base-archive.ts';
import { buildError } from './build-error.ts';
import { layBuildFiles } from './build-files.ts';
import { probeBuildah } from './detect-storage.ts';
import { flagsOf, probeDocker } from './detect.ts';
import { buildkitFeatures, dockerBuildArguments, dockerDriver } from './docker.ts';
import type { BuildEvent, BuildRequest } from './driver.ts';
import { EventQueue } from './event-queue.ts';
import { removeTree } from './remove-tree.ts';
import { secretArgument } from './secrets.ts';
import {
  BUILDAH,
  buildahFeatures,
  PODMAN,
  podmanFeatures,
  storageArguments,
  storageBuildArguments,
  withHost,
} from './storage-engine.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'decant-unit-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const files = {
  root: '/w',
  context: '/w/context',
  dockerfile: '/w/file/Dockerfile',
  imageIdFile: '/w/id',
  temporary: '/w/tmp',
  janitor: undefined,
};
const context: BuildRequest['context'] = {
  dockerfile: { displayPath: 'Dockerfile', bytes: new TextEncoder().encode('FROM a\n') },
  materialize: () => Promise.resolve(),
};
const full: BuildRequest = {
  context,
  workDirectory: '/w',
  buildArgs: { A: 'x y', B: '' },
  target: 't',
  network: 'none',
  cache: 'ignore',
  secrets: [{ id: 's', file: '/s' }],
  tag: 'app:1',
};

describe('arguments', () => {
  it('of docker', () => {
    const plain = { flags: undefined, secrets: [], nonce: undefined, architecture: 'arm64' } as const;
    expect(dockerBuildArguments({ context, workDirectory: '/w' }, files, plain)).toEqual(
      'build --force-rm --iidfile /w/id --file /w/file/Dockerfile /w/context'.split(' '),
    );
    const flags = new Set(['--secret', '--load', '--provenance']);
    const args = dockerBuildArguments(full, files, { ...plain, flags, secrets: ['id=s,src=/s'], nonce: 'n' });
    expect(args.join('|')).toContain(
      '--progress|plain|--load|--provenance=false|--no-cache|--add-host|n.decant.invalid:127.0.0.1|--target|t|--network|none|--build-arg|A=x y|--build-arg|B=|--secret|id=s,src=/s|--tag|app:1|/w/context',
    );
    expect(dockerBuildArguments(full, files, { ...plain, flags: new Set(['--secret']) })).not.toContain('--load');
    const fresh = dockerBuildArguments({ ...full, cache: 'refresh' }, files, { ...plain, flags });
    expect(fresh).toContain('--no-cache');
    expect(fresh).not.toContain('--add-host');

    const bytes = new TextEncoder().encode('FROM a AS one\nARG TARGETARCH\nARG BUILDOS\nARG OTHER\nFROM a\n');
    const asking = { context: { ...context, dockerfile: { displayPath: 'D', bytes } }, workDirectory: '/w' };
    const classic = dockerBuildArguments({ ...asking, target: '0', buildArgs: { BUILDOS: 'plan9' } }, files, plain);
    expect(classic.join(' ')).toContain('--target one --build-arg TARGETARCH=arm64 --build-arg BUILDOS=plan9 /w');
    expect(dockerBuildArguments(asking, files, { ...plain, flags }).join(' ')).not.toContain('TARGETARCH');
    expect(dockerBuildArguments({ ...asking, target: '1' }, files, { ...plain, flags })).toContain('1');
  });

  it('of buildah and podman', () => {
    const facts = { rootless: false, runc: '/usr/sbin/runc' };
    const prepared = { mark: 'mark', secrets: ['id=s,src=/s'], authFile: '/w/auth' };
    const args = storageBuildArguments(BUILDAH, full, files, facts, prepared).join(' ');
    expect(args).toMatch(/^bud --runtime \/usr\/sbin\/runc --format docker --layers /);
    expect(args).toContain('--isolation oci --network none --secret id=mark,src=/dev/null');
    expect(args).toContain(
      '--no-cache --authfile /w/auth --target t --build-arg A=x y --build-arg B= --secret id=s,src=/s --tag localhost/app:1 /w/context',
    );
    const minimal = { context, workDirectory: '/w' };
    const none = { mark: 'mark', secrets: [], authFile: undefined };
    const plain = storageBuildArguments(PODMAN, minimal, files, { rootless: true, runc: undefined }, none).join(' ');
    expect(plain).toContain('build --format docker --layers --force-rm --iidfile /w/id --isolation chroot');
    expect(storageBuildArguments(PODMAN, full, files, { ...facts, rootless: true }, none).join(' ')).toMatch(
      /^--runtime \/usr\/sbin\/runc build .*--isolation rootless/,
    );
    expect(storageArguments({ storageRoot: '/r', runRoot: '/u', storageDriver: 'vfs' })).toEqual(
      '--root /r --runroot /u --storage-driver vfs'.split(' '),
    );
  });

  it('give short names a host for buildah', () => {
    expect(withHost('app')).toBe('localhost/app');
    expect(withHost('team/app:1')).toBe('localhost/team/app:1');
    expect(withHost('localhost/app')).toBe('localhost/app');
    expect(withHost('reg.example/app')).toBe('reg.example/app');
    expect(withHost('127.0.0.1:5000/app')).toBe('127.0.0.1:5000/app');
  });

  it('refuse a secret that would be split', () => {
    expect(() => secretArgument({ id: 'a', file: '/x,src=/etc/shadow' })).toThrow(
      expect.objectContaining({ code: 'USAGE' }),
    );
  });
});

describe('capabilities', () => {
  it('follow the version', () => {
    expect(buildkitFeatures('20.10.24+dfsg1').has('heredoc')).toBe(false);
    expect(buildkitFeatures('28.2.2').has('heredoc')).toBe(true);
    expect(buildahFeatures('1.28.2').has('heredoc')).toBe(false);
    expect(buildahFeatures('1.39.0').has('heredoc')).toBe(true);
    expect(podmanFeatures('4.3.1').has('heredoc')).toBe(false);
    expect(podmanFeatures('5.0.0').has('heredoc')).toBe(true);
  });

  it('are read from help texts', () => {
    const help = '  -o, --output stringArray      Output\n      --secret stringArray      Secret file\n   not --this\n';
    expect([...flagsOf(help)]).toEqual(['--output', '--secret']);
  });
});

describe('files of a build', () => {
  it('hold the Dockerfile apart, with an empty ignore file, and vanish when the context fails', async () => {
    const laid = await layBuildFiles({ context, workDirectory: directory }, {});
    expect(await readFile(laid.dockerfile, 'utf8')).toBe('FROM a\n');
    expect(await readFile(`${laid.dockerfile}.dockerignore`, 'utf8')).toBe('');
    const locked = join(laid.context, 'locked');
    await mkdir(join(locked, 'in'), { recursive: true });
    await chmod(locked, 0o500);
    await removeTree(laid.root);
    await expect(stat(laid.root)).rejects.toThrow(/ENOENT/);
    let seen = '';
    const failing = { ...context, materialize: (target: string) => Promise.reject(new Error((seen = target))) };
    // The janitor goes last: what is left until then is its to remove.
    let there: boolean | undefined;
    const onRoot = (root: string) => ({
      async [Symbol.asyncDispose]() {
        there = existsSync(root);
      },
    });
    await expect(layBuildFiles({ context: failing, workDirectory: directory }, { onRoot })).rejects.toThrow(/context/);
    await expect(stat(seen)).rejects.toThrow(/ENOENT/);
    expect(there).toBe(false);
  });
});

describe('a base as an archive', () => {
  it('depends on nothing but the content and the name', async () => {
    const tarFile = join(directory, 'some base.tar');
    await writeFile(tarFile, Buffer.alloc(10_240));
    const contents: string[] = [];
    for (const name of ['b1', 'b2']) {
      await mkdir(join(directory, name));
      const file = await writeBaseArchive(
        { tarFile, name: 'localhost/b:1', architecture: 'amd64' },
        join(directory, name),
      );
      const { stdout } = await run('tar', ['-xOf', file, 'manifest.json', 'config.json']);
      contents.push(stdout.toString());
    }
    expect(contents[0]).toBe(contents[1]);
    expect(contents[0]).toContain('"RepoTags":["localhost/b:1"]');
    // SHA-256 of 10,240 zero bytes.
    expect(contents[0]).toContain('sha256:84ff92691f909a05b224e1c56abb4864f01b4f8e3c854e4bb4c7baf1d3f6d652');
  });
});

describe('EventQueue', () => {
  const line = (text: string): BuildEvent => ({ type: 'log', stage: 'build', stream: 'stdout', line: text });

  it('passes events on in order, as they come', async () => {
    const queue = new EventQueue();
    const seen: BuildEvent[] = [];
    const drained = (async () => {
      for await (const event of queue.drain()) seen.push(event);
    })();
    queue.push(line('a'));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(seen).toHaveLength(1);
    queue.push(line('b'));
    queue.end();
    await drained;
    expect(seen).toEqual([line('a'), line('b')]);
  });

  it('drops and counts lines beyond its limit, never warnings', async () => {
    const queue = new EventQueue(2);
    for (const text of ['a', 'b', 'c', 'd']) queue.push(line(text));
    queue.push({ type: 'warning', stage: 'build', message: 'w' });
    queue.end();
    const seen: BuildEvent[] = [];
    for await (const event of queue.drain()) seen.push(event);
    expect(seen).toEqual([
      line('a'),
      line('b'),
      { type: 'warning', stage: 'build', message: 'w' },
      expect.objectContaining({ type: 'warning', message: expect.stringContaining('2 lines') }),
    ]);
  });
});

describe('probes', () => {
  const program = async (name: string, script: string) => {
    const path = join(directory, name);
    await writeFile(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return path;
  };

  it('say why a docker client is of no use', async () => {
    const gone = await program(
      'gone',
      'echo "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?" >&2; exit 1',
    );
    expect(await probeDocker({ program: gone })).toMatchObject([
      { usable: false, reason: 'The docker daemon does not run.' },
    ]);
    const denied = await program('denied', 'echo "permission denied while trying to connect" >&2; exit 1');
    expect(await probeDocker({ program: denied })).toMatchObject([
      { usable: false, hint: expect.stringContaining('group docker') },
    ]);
    const odd = await program('odd', 'echo not json');
    expect(await probeDocker({ program: odd })).toMatchObject([{ usable: false }]);
  });

  it('tell a client with BuildKit from one without', async () => {
    const version = `echo '{"Client":{},"Server":{"Version":"28.2.2","Arch":"amd64"}}'`;
    const without = await program(
      'without',
      `[ "$1" = version ] && { ${version}; exit; }; echo "buildx component is missing" >&2; exit 1`,
    );
    expect(await probeDocker({ program: without })).toMatchObject([
      { usable: false, name: 'docker-buildkit' },
      { usable: true, name: 'docker' },
    ]);
    const having = await program(
      'having',
      `[ "$1" = version ] && { ${version}; exit; }; echo "      --secret stringArray  Secret"`,
    );
    expect(await probeDocker({ program: having })).toMatchObject([
      { usable: true, name: 'docker-buildkit' },
      { usable: true, name: 'docker' },
    ]);
  });

  it('say why buildah is of no use', async () => {
    const broken = await program('broken', 'echo "Error: mounting: permission denied" >&2; exit 125');
    expect(await probeBuildah({ program: broken })).toMatchObject([
      { usable: false, reason: expect.stringContaining('permission denied') },
    ]);
  });
});

describe('a build', () => {
  const facts = { serverVersion: '20.10', architecture: 'amd64', buildkitFlags: new Set<string>() } as const;

  it('that is refused or already aborted touches nothing', async () => {
    const driver = dockerDriver('docker', facts, { program: '/nonexistent/docker' });
    const request = { context, workDirectory: '/nonexistent', platform: 'linux/arm64' } as const;
    await expect(driver.build(request).next()).rejects.toMatchObject({ code: 'BUILD_PLATFORM_UNSUPPORTED' });
    const reason = new Error('no');
    const { platform: _, ...native } = request;
    await expect(driver.build(native, { signal: AbortSignal.abort(reason) }).next()).rejects.toBe(reason);
  });

  it('whose program is gone says so and leaves no files', async () => {
    const driver = dockerDriver('docker', facts, { program: join(directory, 'absent') });
    const workDirectory = await mkdtemp(join(directory, 'work-'));
    const build = async () => {
      const events = driver.build({ context, workDirectory });
      while ((await events.next()).done !== true);
    };
    await expect(build()).rejects.toMatchObject({ code: 'BUILD_ENGINE_MISSING' });
    expect((await stat(workDirectory)).nlink).toBe(2);
  });
});

describe('buildError', () => {
  it('hides private directories, names a full disk and shortens long commands', () => {
    const report = {
      kind: 'step',
      step: '2/2',
      command: `RUN ${'x'.repeat(500)}`,
      exitCode: 137,
      reason: 'at /secret/dir/file',
      lastLines: [],
    } as const;
    const error = buildError('engine', report, '/secret/dir');
    expect(error).toMatchObject({
      code: 'BUILD_STEP_FAILED',
      hint: expect.stringContaining('memory'),
      details: { reason: 'at /file' },
    });
    expect(error.message.length).toBeLessThan(250);
    expect(buildError('engine', { ...report, reason: 'write: no space left on device' }, '/x').code).toBe('DISK_FULL');
  });

  it.each([
    ['COPY nothing /', 'stat nothing: file does not exist', /ignore rule/],
    ['COPY --chown=me:us a /', "can't find gid for group us: no such group: us", /numbers.*\/etc\/group/],
    ['COPY --from=tools /x /', 'no stage or image found with that name', /--from/],
    ['ADD --chmod=644 https://example.com/x /', 'connection refused', /reach that address/],
  ])('hint at what makes %s fail', (command, reason, hint) => {
    const report = { kind: 'step', step: '2/2', command, exitCode: undefined, reason, lastLines: [] } as const;
    expect(buildError('engine', report, '/x').hint).toMatch(hint);
  });
});
