import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { isDecantError } from '@decant/core';
import { findProgram } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { openContext } from './open-context.ts';

const execute = promisify(execFile);
const docker = await findProgram('docker');
const version = docker === undefined ? '' : (await execute(docker, ['--version'])).stdout;
/** Clients before this one have an older matcher. */
const available = Number(/version (\d+)\./.exec(version)?.[1] ?? 0) >= 25;

/**
 * The docker client reads the ignore file and packs the context itself before any engine works on it, so that what it
 * sends can be looked at without one. Its walk differs from BuildKit's where an exception with a wildcard could apply
 * inside an excluded directory; such exceptions are left out here.
 */
describe.skipIf(!available)('[backend:docker-cli] the files that the docker client sends', () => {
  let base: string;
  let root: string;
  let server: Server;
  let received: Buffer | undefined;

  beforeAll(async () => {
    base = await mkdtemp(join(tmpdir(), 'decant-docker-'));
    root = join(base, 'context');
    for (const folder of ['dir/sub/deep', 'docs/sub', 'src/pkg']) await mkdir(join(root, folder), { recursive: true });
    const names =
      'Dockerfile a.txt b.md foo .foo bar.foo x+y x$y xxy xx a|b {x} x{2} a]b [a] ^x 1 A - a-b aa ünï é 日本 #foo !bang ' +
      'dir/file dir/foo dir/sub/file dir/sub/deep/foo docs/a.md docs/sub/b.md src/main.go src/pkg/x.go';
    for (const name of names.split(' ')) await writeFile(join(root, name), '');
    server = createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('end', () => {
        if (request.url?.includes('/build') === true) received = Buffer.concat(pieces);
        response.setHeader('Api-Version', '1.43').setHeader('Ostype', 'linux').end('{}');
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });

  afterAll(async () => {
    await new Promise((resolve) => server.close(resolve));
    await rm(base, { recursive: true });
  });

  /** Files that the client sends, or undefined when it refuses the ignore file. */
  async function sent(): Promise<string[] | undefined> {
    received = undefined;
    const host = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const env = { ...process.env, DOCKER_BUILDKIT: '0' };
    await execute(docker!, ['-H', host, 'build', '-q', root], { env, timeout: 240_000 }).catch(() => undefined);
    if (received === undefined) return undefined;
    await writeFile(join(base, 'sent.tar'), received);
    const list = ['-tf', join(base, 'sent.tar'), '--quoting-style=literal'];
    const { stdout } = await execute('tar', list, { env: { ...process.env, LC_ALL: 'C.UTF-8' } });
    return withoutBuildFiles(stdout.split('\n').filter((name) => name !== '' && !name.endsWith('/')));
  }

  async function kept(): Promise<string[] | undefined> {
    try {
      const { entries } = await openContext({ directory: root });
      return withoutBuildFiles(entries.filter(({ type }) => type !== 'directory').map(({ path }) => path));
    } catch (error) {
      if (isDecantError(error, 'IGNORE_FILE_INVALID')) return undefined;
      throw error;
    }
  }

  // The client sends these two even when they are excluded.
  const withoutBuildFiles = (names: string[]) =>
    names.filter((name) => name !== 'Dockerfile' && name !== '.dockerignore').sort();

  const atoms = (
    '* ** **/ ? / a b x foo dir sub file .go *.md src [a-z] [^a] [ ] - | { } {2} ^ $ + ( ) . .. \\ \\d \\w \\f \\x41 ' +
    '\\pL \\p{Han} [[:alpha:]] é ! # 1'
  ).split(' ');
  let state = 20_261_122;
  const random = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return (state >>> 8) % below;
  };
  const made = Array.from({ length: 60 }, () =>
    Array.from({ length: 1 + random(2) }, () =>
      Array.from({ length: 1 + random(5) }, () => atoms[random(atoms.length)]!).join(''),
    ).join('\n'),
  ).filter((text) => !/^\s*!/m.test(text));

  it.each([
    '**foo\n',
    '*\n!src\nsrc/main.go\n',
    'dir\n!dir/sub/file\n',
    'a[b\n',
    'a*[?]\n',
    'x*\\\n',
    '\\d\n',
    'a|b*\n',
    'x{2}*\n',
    '^*\n',
    '[z-a]\n',
    ...made,
  ])('%j', async (text) => {
    await writeFile(join(root, '.dockerignore'), text);
    expect(await kept()).toEqual(await sent());
  });
});
