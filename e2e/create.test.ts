import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { decant, decantJson, failure, startDecant, type DecantOptions, type MadeImage } from './support/decant.ts';
import { lastingTraces } from './support/leftovers.ts';
import { have, isRoot } from './support/programs.ts';

const BASE = `FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin; mkdir -p /etc /proc /dev /tmp; echo root:x:0:0::/:/bin/sh > /etc/passwd"]
`;

interface Engine {
  readonly name: 'buildah' | 'docker';
  readonly available: boolean;
  readonly says: RegExp;
}
const ENGINES: readonly Engine[] = [
  { name: 'buildah', available: isRoot && have('buildah', 'runc'), says: /Building with buildah/ },
  { name: 'docker', available: inject('dockerHost') !== null, says: /Building with docker/ },
];

// [backend:docker] makes the set-up start a daemon.
describe.each(ENGINES)('[backend:$name] decant image create', ({ name, available, says }) => {
  let folder: TemporaryDirectory;
  let context: string;
  let options: DecantOptions;

  beforeAll(async () => {
    if (!available) return;
    folder = await temporaryDirectory('decant-e2e-');
    context = join(folder.path, 'hello');
    const storage = join(folder.path, 'storage.conf');
    const places = `graphroot = "${folder.path}/storage"\nrunroot = "${folder.path}/run"\n`;
    await writeFile(storage, `[storage]\ndriver = "overlay"\n${places}`);
    options = {
      home: join(folder.path, 'home'),
      env: {
        CONTAINERS_STORAGE_CONF: storage,
        ...(name === 'buildah' ? { DOCKER_HOST: 'unix:///nowhere/docker.sock' } : {}),
      },
    };
    await mkdir(context);
    await copyFile((await findProgram('busybox'))!, join(context, 'busybox'));
    await writeFile(join(context, 'data.txt'), 'one\n');
    await dockerfile(
      `${BASE}ARG WHO=nobody\nENV WHO=$WHO PATH=/bin\nWORKDIR /srv\nCOPY data.txt .\nCMD ["sh", "-c", "echo $WHO; cat data.txt"]\n`,
    );
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  const dockerfile = (text: string, file = 'Dockerfile') => writeFile(join(context, file), text);
  const create = ['image', 'create'];

  test.skipIf(!available)(
    'builds; builds the same again for nothing; builds a change for little; and runs it',
    async () => {
      const args = [...create, context, '--streaming', '--build-arg', 'WHO=world', '-n', `hello:${name}`];
      const said = await decant([...args, '--json'], options);
      expect(said.stderr).toMatch(says);
      const first = JSON.parse(said.stdout) as MadeImage;
      expect(Object.keys(first)).toEqual(['image', 'chunks', 'bytes', 'timingsMs']);
      expect(Object.keys(first.image)).toEqual([
        'id',
        'name',
        'tag',
        'format',
        'architecture',
        'virtualBytes',
        'contentBytes',
        'createdAt',
      ]);
      expect(Object.keys(first.chunks!)).toEqual(['total', 'new', 'reused']);
      expect(Object.keys(first.bytes)).toEqual(['new', 'stored', 'uploaded']);
      expect(Object.keys(first.timingsMs)).toEqual(['build', 'layout', 'upload', 'admit', 'total']);
      expect(first.image).toMatchObject({ name: 'hello', tag: name, format: 'cas-streaming' });

      const again = await decantJson<MadeImage>(args, options);
      expect(again.image.id).toBe(first.image.id);
      expect(again.chunks).toEqual({ total: first.chunks!.total, new: 0, reused: first.chunks!.total });
      expect(again.bytes).toMatchObject({ new: 0, stored: 0 });

      await writeFile(join(context, 'data.txt'), 'two\n');
      const changed = await decantJson<MadeImage>(args, options);
      expect(changed.image.id).not.toBe(first.image.id);
      expect(changed.bytes.new).toBeLessThan(first.image.contentBytes / 4);
      expect(await decant(['run', `hello:${name}`], options)).toEqual({
        status: 0,
        stdout: 'world\ntwo\n',
        stderr: '',
      });
      expect((await decant(['run', first.image.id], options)).stdout).toBe('world\none\n');
    },
  );

  test.skipIf(!available)(
    'a failing RUN: step, command, exit code and last lines, status 5, and no image',
    async () => {
      await dockerfile(`${BASE}RUN ["/bin/busybox", "sh", "-c", "echo the last words; exit 23"]\n`, 'bad');
      const args = [...create, context, '-f', join(context, 'bad'), '--streaming', '-n', 'failing'];
      const failed = await failure(args, options);
      expect(failed).toMatchObject({ status: 5, code: 'BUILD_STEP_FAILED', details: { exitCode: 23 } });
      expect(failed.message).toContain('the last words; exit 23');
      expect(failed.message).toContain('23');
      expect(String(failed.details['lastLines'])).toContain('the last words');
      const told = await decant([...args, '--progress', 'none'], options);
      expect(told.stdout).toBe('');
      expect(told.stderr).toContain('[BUILD_STEP_FAILED]');
      expect(told.stderr).toMatch(/│ .*the last words/);
      await noImage('failing');
    },
  );

  test.skipIf(!available)('a base that cannot be had, and a target that is not there', async () => {
    await dockerfile('FROM registry.invalid/nothing:1\n', 'bad');
    const base = await failure([...create, context, '-f', join(context, 'bad'), '-n', 'failing'], options);
    expect(base).toMatchObject({ status: 5, code: 'BUILD_BASE_UNAVAILABLE', hint: expect.any(String) as string });
    const target = await failure([...create, context, '--target', 'nowhere', '-n', 'failing'], options);
    expect([2, 5]).toContain(target.status);
    expect(target.message).toContain('nowhere');
    await noImage('failing');
  });

  test.skipIf(!available)('Ctrl-C in a RUN ends it with 130 and leaves nothing', async () => {
    const seconds = `86${process.pid}`;
    await dockerfile(`${BASE}RUN ["/bin/busybox", "sh", "-c", "echo underway; sleep ${seconds}"]\n`, 'slow');
    await using building = startDecant([...create, context, '-f', join(context, 'slow'), '-n', 'slow'], options);
    await building.seen(/underway$/m);
    building.signal('SIGINT', 'group');
    expect((await building.ended).status).toBe(130);
    expect(await lastingTraces(seconds)).toEqual([]);
    await noImage('slow');
  });

  test.skipIf(!available)('SIGKILL in a RUN: the next build works and leaves nothing of the killed one', async () => {
    const seconds = `87${process.pid}`;
    await dockerfile(`${BASE}RUN ["/bin/busybox", "sh", "-c", "echo underway; sleep ${seconds}"]\n`, 'slow');
    await using building = startDecant([...create, context, '-f', join(context, 'slow'), '-n', 'slow'], options);
    await building.seen(/underway$/m);
    building.signal('SIGKILL');
    await building.ended;
    await decantJson([...create, context, '-n', 'after'], options);
    expect(await lastingTraces(seconds)).toEqual([]);
    await noImage('slow');
  });

  async function noImage(image: string): Promise<void> {
    expect((await failure(['image', 'inspect', image], options)).status).toBe(4);
  }
});

describe.skipIf(!isRoot)('decant image create without what it needs', () => {
  let folder: TemporaryDirectory;
  let context: string;
  let options: DecantOptions;

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    context = join(folder.path, 'context');
    options = { home: join(folder.path, 'home') };
    await mkdir(context);
    await writeFile(join(context, 'file'), 'x');
  });
  afterAll(() => folder?.[Symbol.asyncDispose]());

  test('no engine: status 7, and what to install', async () => {
    await writeFile(join(context, 'Dockerfile'), 'FROM scratch\nCOPY file /\n');
    const hide =
      'for p in docker buildah podman; do [ -e /usr/bin/$p ] && mount --bind /dev/null /usr/bin/$p; done; exec "$@"';
    const none = await failure(['image', 'create', context, '--streaming'], {
      ...options,
      env: { DOCKER_HOST: 'unix:///nowhere/docker.sock' },
      through: ['unshare', '--mount', 'sh', '-c', hide, 'sh'],
    });
    expect(none).toMatchObject({ status: 7, code: 'BUILD_ENGINE_MISSING' });
    expect(none.hint).toMatch(/install|docker|buildah/i);
    await rm(join(context, 'Dockerfile'));
  });

  test('a Dockerfile that is missing, a folder, not readable as text or nonsense: status 2', async () => {
    const missing = await failure(['image', 'create', context], options);
    expect(missing).toMatchObject({ status: 2, code: 'DOCKERFILE_UNREADABLE', hint: expect.any(String) as string });
    expect((await failure(['image', 'create', context, '-f', join(context, 'other')], options)).status).toBe(2);
    await mkdir(join(context, 'Dockerfile'));
    expect(await failure(['image', 'create', context], options)).toMatchObject({ status: 2 });
    await rm(join(context, 'Dockerfile'), { recursive: true });
    for (const text of ['', 'RUN echo without from\n', 'FROM scratch\nNONSENSE x\n']) {
      await writeFile(join(context, 'Dockerfile'), text);
      const { status, code } = await failure(['image', 'create', context], options);
      expect(code, JSON.stringify(text)).toMatch(/^DOCKERFILE_/);
      expect(status).toBe(2);
    }
    expect(await failure(['image', 'create', join(folder.path, 'nowhere')], options)).toMatchObject({ status: 2 });
  });

  test('a file that changes while it is read: status 2, naming it', async () => {
    await writeFile(join(context, 'Dockerfile'), 'FROM scratch\nCOPY . /\n');
    // A hole takes no room, and long to read: the writer is held up for a while where the disk is slow.
    const sizeBytes = 2 ** 29;
    await writeFile(join(context, 'growing'), '');
    await truncate(join(context, 'growing'), sizeBytes);
    const writer = spawn('sh', ['-c', 'while :; do echo more >> growing; done'], { cwd: context, stdio: 'ignore' });
    try {
      await expect.poll(async () => (await stat(join(context, 'growing'))).size).toBeGreaterThan(sizeBytes);
      const changed = await failure(['context', 'ls', context], options);
      expect(changed).toMatchObject({ status: 2, code: 'CONTEXT_CHANGED' });
      expect(changed.message).toContain('growing');
    } finally {
      const ended = once(writer, 'close');
      writer.kill('SIGKILL');
      await ended;
      await rm(join(context, 'growing'));
    }
  });

  test('context ls tells what would be sent, and names line and file of a bad ignore file', async () => {
    await writeFile(join(context, 'Dockerfile'), 'FROM scratch\nCOPY . /\n');
    await mkdir(join(context, 'z', 'a'), { recursive: true });
    await writeFile(join(context, 'z.txt'), '12345');
    await writeFile(join(context, 'z', 'a', 'debug.log'), 'left out');
    await writeFile(join(context, '.dockerignore'), '# comment\n**/*.log\n');
    interface Listing {
      files: { path: string; type: string; sizeBytes: number }[];
      ignoreFile: string | null;
      digest: string;
    }
    const listing = await decantJson<Listing>(['context', 'ls', context], options);
    expect(Object.keys(listing)).toEqual(['files', 'ignoreFile', 'digest']);
    expect(listing.ignoreFile).toBe('.dockerignore');
    expect(listing.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(listing.files.map(({ path }) => path)).toEqual(['.dockerignore', 'Dockerfile', 'file', 'z', 'z.txt', 'z/a']);
    expect(listing.files.find(({ path }) => path === 'z.txt')).toEqual({ path: 'z.txt', type: 'file', sizeBytes: 5 });
    // Touching a file changes nothing that is sent.
    await utimes(join(context, 'z.txt'), 1, 1);
    expect((await decantJson<Listing>(['context', 'ls', context], options)).digest).toBe(listing.digest);
    await writeFile(join(context, '.dockerignore'), 'fine\n[bad\n');
    const bad = await failure(['context', 'ls', context], options);
    expect(bad).toMatchObject({ status: 2, code: 'IGNORE_FILE_INVALID' });
    expect(bad.message).toMatch(/\.dockerignore/);
    expect(bad.message).toMatch(/line 2/);
  });
});
