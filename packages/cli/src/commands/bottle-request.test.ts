import { CommanderError } from 'commander';
import { beforeEach, describe, expect, test, vi } from 'vitest';

import { createProgram } from '../program.ts';
import { copyEndOf } from './bottle-copy.ts';
import { execAction } from './bottle-exec.ts';
import { environmentOf, requestOf, millisecondsOf } from './bottle-request.ts';
import { planAction, runAction } from './bottle-run.ts';

// What is done is not the matter here, only what it is asked to do.
vi.mock(import('./bottle-run.ts'), async (original) => ({
  ...(await original()),
  planAction: vi.fn<typeof planAction>(),
  runAction: vi.fn<typeof runAction>(),
}));
vi.mock(import('./bottle-exec.ts'), async (original) => ({
  ...(await original()),
  execAction: vi.fn<typeof execAction>(),
}));

beforeEach(() => void vi.clearAllMocks());

const parse = (...args: string[]) => createProgram().parseAsync(['bottle', ...args], { from: 'user' });
const usage = expect.objectContaining({ code: 'USAGE' });

describe('bottle run', () => {
  test.each([
    { args: ['reviewer'], names: ['reviewer'], command: undefined },
    { args: ['reviewer', '-d', '--', 'sh', '-c', 'x y'], names: ['reviewer'], command: ['sh', '-c', 'x y'] },
    { args: ['--image', 'app', '--', 'echo', '--help'], names: [], command: ['echo', '--help'] },
    { args: ['mine', '--image', 'app', '--', 'a', '--', 'b'], names: ['mine'], command: ['a', '--', 'b'] },
    { args: ['--image', 'app', '--'], names: [], command: [] },
  ])('$args', async ({ args, names, command }) => {
    await parse('run', ...args);
    expect(vi.mocked(runAction).mock.calls[0]?.[0]).toEqual({ names, command });
  });

  test('takes every option on either side of the name', async () => {
    const before = '-t --image app:v1 --backend docker --allow a.example --allow b.example:8443 -e A=1 -u 5:6 -w /w';
    const after = '--mount overlay:/src:/dst --cpus 1.5 --memory 2GiB --disk 1G --processes 9 --time 90m -d --json';
    await parse('run', ...before.split(' '), 'name', ...after.split(' '), '--trust-filesystem');
    const [words, options] = vi.mocked(runAction).mock.calls[0]!;
    expect(options).toMatchObject({ tty: true, detach: true, json: true, trustFilesystem: true });
    expect(requestOf(words, options)).toEqual({
      name: 'name',
      image: 'app:v1',
      backend: 'docker',
      allow: ['a.example', 'b.example:8443'],
      command: undefined,
      environment: { A: '1' },
      user: '5:6',
      workingDir: '/w',
      mounts: [{ type: 'overlay', source: '/src', target: '/dst' }],
      limits: { cpus: 1.5, memoryBytes: 2 ** 31, diskBytes: 2 ** 30, processes: 9, wallTimeMs: 5_400_000 },
    });
  });

  test('plan takes the same', async () => {
    await parse('plan', 'reviewer', '--allow', 'x.example', '--', 'ls');
    expect(vi.mocked(planAction).mock.calls[0]?.[0]).toEqual({ names: ['reviewer'], command: ['ls'] });
    const quiet = createProgram();
    for (const command of quiet.commands)
      for (const child of command.commands) child.configureOutput({ writeErr: () => 0 });
    await expect(quiet.parseAsync(['bottle', 'plan', 'x', '-d'], { from: 'user' })).rejects.toThrow(CommanderError);
  });

  test.each([
    [{ names: [], command: ['ls'] }, {}],
    [{ names: ['a', 'b'], command: undefined }, {}],
    [{ names: ['a'], command: undefined }, { cpus: '0' }],
    [{ names: ['a'], command: undefined }, { cpus: '1e3' }],
    [{ names: ['a'], command: undefined }, { memory: 'lots' }],
    [{ names: ['a'], command: undefined }, { processes: '-1' }],
    [{ names: ['a'], command: undefined }, { time: '5 years' }],
    [{ names: ['a'], command: undefined }, { mount: ['tmpfs:/x:/y'] }],
    [{ names: ['a'], command: undefined }, { mount: ['read-only:/x:relative'] }],
    [{ names: ['a'], command: undefined }, { env: ['=x'] }],
    [{ names: ['a'], command: undefined }, { env: ['A\nB=x'] }],
    [{ names: ['a'], command: undefined }, { env: ['NOT_SET_ANYWHERE_HERE'] }],
  ])('refuses %j with %j', (words, options) => {
    expect(() => requestOf(words, options)).toThrow(usage);
  });
});

test('bottle exec keeps what follows the name as it is', async () => {
  await parse('exec', '-i', '-u', 'app', 'box', '--', 'ls', '-i', '--', 'x');
  await parse('exec', 'box', 'ls');
  expect(vi.mocked(execAction).mock.calls.map((call) => call.slice(0, 2))).toEqual([
    ['box', ['--', 'ls', '-i', '--', 'x']],
    ['box', ['ls']],
  ]);
});

test('an end of a copy is in a bottle or here', () => {
  expect(copyEndOf('box:/a/b')).toEqual({ bottle: 'box', path: '/a/b' });
  expect(copyEndOf('box:a:b')).toEqual({ bottle: 'box', path: '/a:b' });
  for (const path of ['./box:/a', '/box:/a', '../x', 'Box:/a', '-x:/a', 'plain', 'a/b:c']) {
    expect(copyEndOf(path)).toEqual({ path });
  }
  for (const text of ['', 'box:']) expect(() => copyEndOf(text)).toThrow(usage);
});

test('variables come from the line or from here; times have units', () => {
  expect(environmentOf(['A=1', 'B', 'A=x=y', 'C='], { B: 'here' })).toEqual({ A: 'x=y', B: 'here', C: '' });
  expect([undefined, '5', '5s', '2m', '1h', '1d'].map((text) => millisecondsOf('--time', text))).toEqual([
    undefined,
    5000,
    5000,
    120_000,
    3_600_000,
    86_400_000,
  ]);
});
