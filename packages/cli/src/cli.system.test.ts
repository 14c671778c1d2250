import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { findProgram } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { writeBusyboxLayout } from './busybox-layout.fixture.ts';
import { DECANT, startDecant, type Outcome } from './decant-process.fixture.ts';

let folder: string;
let home: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'decant-cli-'));
  home = join(folder, 'home');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const decant = (args: readonly string[], env: Record<string, string> = {}, input = ''): Promise<Outcome> =>
  startDecant(args, { DECANT_HOME: home, ...env }, input).outcome;

describe('usage', () => {
  test.each([
    { args: ['--version'], code: 0, stdout: /^\d+\.\d+\.\d+\n$/, stderr: /^$/ },
    { args: ['--help'], code: 0, stdout: /Usage: decant .*Exit status:/s, stderr: /^$/ },
    { args: ['image', 'create', '--help'], code: 0, stdout: /--build-arg/, stderr: /^$/ },
    { args: [], code: 2, stdout: /^$/, stderr: /Usage: decant/ },
    { args: ['imagine'], code: 2, stdout: /^$/, stderr: /unknown command 'imagine'/ },
    { args: ['image', 'lz'], code: 2, stdout: /^$/, stderr: /Did you mean ls/ },
    { args: ['image', 'ls', '--nope'], code: 2, stdout: /^$/, stderr: /unknown option/ },
    { args: ['image', 'import', 'tape:0'], code: 2, stdout: /^$/, stderr: /oci:DIR.*\[USAGE\]|\[USAGE\].*oci:DIR/s },
    { args: ['run', 'NotAName'], code: 2, stdout: /^$/, stderr: /\[NAME_INVALID\]/ },
    { args: ['run', 'nothing-here'], code: 4, stdout: /^$/, stderr: /nothing-here.*\[NOT_FOUND\]/ },
    { args: ['image', 'create', '/nothing/here'], code: 2, stdout: /^$/, stderr: /\[CONTEXT_UNREADABLE\]/ },
  ])('decant $args ends with $code', async ({ args, code, stdout, stderr }) => {
    const outcome = await decant(args);
    expect(outcome).toEqual({
      code,
      stdout: expect.stringMatching(stdout) as string,
      stderr: expect.stringMatching(stderr) as string,
    });
  });

  test('a result that cannot be written is an error, one that nobody reads any more is not', async () => {
    await using full = await open('/dev/full', 'w');
    const [program, ...first] = DECANT;
    const onFullDisk = spawn(program, [...first, '--help'], { stdio: ['ignore', full.fd, 'pipe'] });
    const [said, [code]] = await Promise.all([text(onFullDisk.stderr!), once(onFullDisk, 'close')]);
    expect([said, code]).toEqual([expect.stringMatching(/^error: .*\[DISK_FULL\]\n[^\n]*\n$/), 7]);
    const left = startDecant(['--help'], {});
    left.child.stdout!.destroy();
    expect(await left.outcome).toMatchObject({ code: 0, stderr: '' });
  });

  test('nothing of a failed command is visible, and a server that is not there is unavailable', async () => {
    expect(JSON.parse((await decant(['image', 'ls', '--json'])).stdout)).toEqual({ images: [] });
    const outcome = await decant(['image', 'ls'], { DECANT_URL: 'http://127.0.0.1:1' });
    expect(outcome).toMatchObject({ code: 7, stdout: '' });
  });

  test('doctor tells of a data directory that cannot be used', async () => {
    const file = join(folder, 'a-file');
    await writeFile(file, '');
    const { code, stdout } = await decant(['doctor', '--json'], { DECANT_HOME: file });
    const { sections } = JSON.parse(stdout) as {
      sections: { title: string; checks: { name: string; ok: boolean }[] }[];
    };
    expect(code).toBe(0);
    expect(sections.find(({ title }) => title === 'storage')?.checks).toMatchObject([{ name: file, ok: false }]);
  });

  test('a context is listed in byte order, with the ignore file that applies', async () => {
    const context = join(folder, 'context');
    await mkdir(join(context, 'src'), { recursive: true });
    const files = { Dockerfile: 'FROM scratch\n', '.dockerignore': '*.log\n', 'a.log': 'x', 'src/z': 'zz', Z: '' };
    for (const [name, text] of Object.entries(files)) await writeFile(join(context, name), text);
    const { code, stdout } = await decant(['context', 'ls', context, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      files: [
        { path: '.dockerignore', type: 'file', sizeBytes: 6 },
        { path: 'Dockerfile', type: 'file', sizeBytes: 13 },
        { path: 'Z', type: 'file', sizeBytes: 0 },
        { path: 'src', type: 'directory', sizeBytes: 0 },
        { path: 'src/z', type: 'file', sizeBytes: 2 },
      ],
      ignoreFile: '.dockerignore',
      digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string,
    });
    await writeFile(join(context, '.dockerignore'), 'fine\n[\n');
    const bad = await decant(['context', 'ls', context, '--json']);
    expect(bad).toMatchObject({ code: 2, stdout: '' });
    expect(bad.stderr).toMatch(/\.dockerignore.*2/);
  });
});

const FIELDS = {
  image: {
    id: expect.any(String) as string,
    name: 'box',
    tag: 'latest',
    format: expect.any(String) as string,
    architecture: 'amd64',
    virtualBytes: expect.any(Number) as number,
    contentBytes: expect.any(Number) as number,
    createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) as string,
  },
  bytes: {
    new: expect.any(Number) as number,
    stored: expect.any(Number) as number,
    uploaded: expect.any(Number) as number,
  },
  timingsMs: Object.fromEntries(
    ['build', 'layout', 'upload', 'admit', 'total'].map((name) => [name, expect.any(Number) as number]),
  ),
};

const hasBusybox = (await findProgram('busybox')) !== undefined;

describe.skipIf(!hasBusybox)('images', () => {
  let source: string;
  beforeAll(async () => {
    await writeBusyboxLayout(join(folder, 'layout'));
    source = `oci:${join(folder, 'layout')}`;
  });

  test('a streaming import, and the same again', async () => {
    const first = await decant(['image', 'import', source, '-n', 'box', '--streaming', '--json', '--progress', 'json']);
    expect(first.code).toBe(0);
    const document = JSON.parse(first.stdout) as { chunks: { total: number; new: number; reused: number } };
    expect(document).toEqual({
      ...FIELDS,
      image: { ...FIELDS.image, id: expect.stringMatching(/^cas-v1:[0-9a-f]{64}$/) as string, format: 'cas-streaming' },
      chunks: { total: document.chunks.new, new: document.chunks.new, reused: 0 },
    });
    const events = first.stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { type: string; stage: string });
    const finished = events.filter(({ type }) => type === 'stage-finished').map(({ stage }) => stage);
    expect(finished).toEqual(['layers', 'layout', 'upload', 'admit']);

    const again = await decant(['image', 'import', source, '-n', 'box', '--json'], {
      DECANT_ROOTFS_FORMAT: 'cas-streaming',
    });
    const { chunks, bytes } = JSON.parse(again.stdout) as typeof document & { bytes: object };
    expect(chunks).toEqual({ total: document.chunks.total, new: 0, reused: document.chunks.total });
    expect(bytes).toMatchObject({ new: 0, stored: 0 });
    expect(again.stderr).toContain('✓ verifying and admitting');
  });

  test('names: list, tag, history, inspect, verify, remove', async () => {
    expect((await decant(['image', 'tag', 'box', 'team/other:v1'])).code).toBe(0);
    const list = JSON.parse((await decant(['image', 'ls', '--json'])).stdout) as { images: { name: string }[] };
    expect(list.images.map(({ name }) => name).toSorted()).toEqual(['box', 'team/other']);
    expect((await decant(['image', 'ls'])).stdout).toMatch(/^NAME +TAG .*\nbox +latest +cas-streaming +amd64 /);
    expect((await decant(['image', 'inspect', 'team/other:v1'])).stdout).toContain('["echo","hello from the image"]');
    expect((await decant(['image', 'verify', 'box'])).stdout).toMatch(/^box is whole: \d+ chunks, /);
    expect((await decant(['image', 'rm', 'team/other:v1'])).code).toBe(0);
    expect(await decant(['image', 'inspect', 'team/other:v1'])).toMatchObject({ code: 4, stdout: '' });
    const history = await decant(['image', 'history', 'team/other:v1']);
    expect(history.stdout).toMatch(/^VERSION .*\n2 .*removed\n1 .*cas-v1:/);
  });

  test('an export is the whole disk; a target that is not a file is refused', async () => {
    const raw = join(folder, 'box.raw');
    const inspected = await decant(['image', 'inspect', 'box', '--json']);
    const { virtualBytes } = JSON.parse(inspected.stdout) as { virtualBytes: number };
    const exported = await decant(['image', 'export', 'box', '--raw', raw, '--json']);
    expect(JSON.parse(exported.stdout)).toMatchObject({ file: raw, bytes: virtualBytes });
    expect((await stat(raw)).size).toBe(virtualBytes);
    expect(await decant(['image', 'export', 'box', '--raw', folder])).toMatchObject({ code: 2 });
    expect(await decant(['image', 'export', 'box'])).toMatchObject({ code: 2 });
  });

  test('a server, its first key, and the same commands over HTTP', async () => {
    const server = startDecant(['serve', '--port', '0', '--data', join(folder, 'served'), '--json'], {});
    try {
      await vi.waitFor(() => expect(server.output.stdout).toContain('\n'), { timeout: 120_000, interval: 100 });
      const { url, key } = JSON.parse(server.output.stdout) as { url: string; key: string };
      const remote = { DECANT_URL: url, DECANT_API_KEY: key };
      expect(await decant(['image', 'ls'], { DECANT_URL: url })).toMatchObject({ code: 3, stdout: '' });
      expect((await decant(['image', 'import', source, '-n', 'far', '--streaming'], remote)).code).toBe(0);
      expect((await decant(['image', 'verify', 'far'], remote)).stdout).toContain('far is whole');
      expect(JSON.parse((await decant(['image', 'ls', '--json'])).stdout)).toMatchObject({ images: [{ name: 'box' }] });
    } finally {
      server.child.kill('SIGTERM');
    }
    expect((await server.outcome).code).toBe(0);
  });

  test('an image served over NBD until interrupted; its socket is gone afterwards', async () => {
    const socket = join(folder, 'nbd.sock');
    const serving = startDecant(['image', 'serve', 'box', '--socket', socket, '--json'], { DECANT_HOME: home });
    await vi.waitFor(() => expect(serving.output.stdout).toContain('\n'), { timeout: 120_000, interval: 100 });
    expect(JSON.parse(serving.output.stdout)).toMatchObject({ exportName: 'box:latest' });
    expect(existsSync(socket)).toBe(true);
    serving.child.kill('SIGINT');
    expect((await serving.outcome).code).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });
});

const canRun =
  hasBusybox &&
  process.getuid?.() === 0 &&
  (await findProgram('bwrap')) !== undefined &&
  (await findProgram('nbdfuse')) !== undefined;

describe.skipIf(!canRun)('[backend:bubblewrap] run', () => {
  beforeAll(async () => {
    const layout = join(folder, 'run-layout');
    await writeBusyboxLayout(layout);
    const imported = await decant(['image', 'import', `oci:${layout}`, '-n', 'runs', '--streaming', '--json']);
    expect(imported.code).toBe(0);
  });

  test("the image's own command, and others with and without a separator", async () => {
    expect(await decant(['run', 'runs'])).toEqual({ code: 0, stdout: 'hello from the image\n', stderr: '' });
    const script = 'cat; echo "$GREETING $1"; echo oops >&2; exit 9';
    const expected = { code: 9, stdout: 'in and good day a b\n', stderr: 'oops\n' };
    expect(await decant(['run', 'runs', '--', 'sh', '-c', script, 'sh', 'a b'], {}, 'in and ')).toEqual(expected);
    expect(await decant(['run', 'runs', 'sh', '-c', script, 'sh', 'a b'], {}, 'in and ')).toEqual(expected);
  });

  test('what cannot run says so', async () => {
    expect(await decant(['run', 'runs', '--', 'no-such-program'])).toEqual({
      code: 127,
      stdout: '',
      stderr: 'error: runs has no command "no-such-program".\n',
    });
    expect(await decant(['run', 'runs', '--', '/etc/passwd'])).toMatchObject({ code: 126, stdout: '' });
    expect(await decant(['run', 'runs', '--stats-file', 'x'])).toMatchObject({ code: 2, stdout: '' });
  });

  test('the stats file says how little was fetched', async () => {
    const file = join(folder, 'stats.json');
    expect((await decant(['run', '--stats-file', file, 'runs', '--', 'ls', '/'])).code).toBe(0);
    const stats = JSON.parse(await readFile(file, 'utf8')) as Record<string, number>;
    expect(Object.keys(stats).toSorted()).toEqual(['bytesFetched', 'bytesVirtual', 'chunksFetched', 'rounds']);
    expect(stats['bytesFetched']).toBeGreaterThan(0);
    expect(stats['rounds']).toBeLessThanOrEqual(stats['chunksFetched']!);
  });

  test('an interrupt ends the command and leaves nothing', async () => {
    const running = startDecant(['run', 'runs', '--', 'sh', '-c', 'echo up; sleep 600'], { DECANT_HOME: home });
    await vi.waitFor(() => expect(running.output.stdout).toBe('up\n'), { timeout: 120_000, interval: 100 });
    running.child.kill('SIGINT');
    const { code, stderr } = await running.outcome;
    expect({ code, stderr }).toEqual({ code: 130, stderr: 'interrupted\n' });
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(folder);
    expect(await readdir(join(home, 'scratch'))).toEqual([]);
  });
});
