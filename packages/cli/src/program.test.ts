import { CommanderError, type Command } from 'commander';
import { beforeEach, describe, expect, test, vi } from 'vitest';

import { createAction, importAction } from './commands/image-create.ts';
import { exportAction } from './commands/image-data.ts';
import { runAction, commandOf } from './commands/run-image.ts';
import { originsOf, portOf } from './commands/serve-http.ts';
import { createProgram } from './program.ts';

// What is done is not the matter here, only what it is asked to do.
vi.mock(import('./commands/image-create.ts'), async (original) => ({
  ...(await original()),
  createAction: vi.fn<typeof createAction>(),
  importAction: vi.fn<typeof importAction>(),
}));
vi.mock(import('./commands/image-data.ts'), async (original) => ({
  ...(await original()),
  exportAction: vi.fn<typeof exportAction>(),
}));
vi.mock(import('./commands/run-image.ts'), async (original) => ({
  ...(await original()),
  runAction: vi.fn<typeof runAction>(),
}));

beforeEach(() => void vi.clearAllMocks());

function quiet(program: Command): Command {
  for (const command of [program, ...program.commands, ...program.commands.flatMap((child) => child.commands)]) {
    command.configureOutput({ writeOut: () => undefined, writeErr: () => undefined });
  }
  return program;
}
const parse = (...args: string[]) => quiet(createProgram()).parseAsync(args, { from: 'user' });

describe('run', () => {
  test.each([
    { args: ['img'], rest: [] },
    { args: ['img', '--', 'sh', '-c', 'x y'], rest: ['--', 'sh', '-c', 'x y'] },
    { args: ['img', 'sh', '-c', 'x'], rest: ['sh', '-c', 'x'] },
    { args: ['img', 'sh', '--', '-h', '--help', '--version'], rest: ['sh', '--', '-h', '--help', '--version'] },
    { args: ['img', '--', '--help'], rest: ['--', '--help'] },
    { args: ['img', '--stats-file', 'f'], rest: ['--stats-file', 'f'] },
  ])('$args', async ({ args, rest }) => {
    await parse('run', ...args);
    expect(vi.mocked(runAction).mock.calls).toEqual([['img', rest, { progress: 'auto' }]]);
  });

  test('options before the image are ours, and so is a separator before it', async () => {
    await parse('run', '--stats-file', 'f', '--trust-filesystem', 'img', 'ls');
    await parse('run', '--', 'img', '--', 'ls');
    const [first, second] = vi.mocked(runAction).mock.calls;
    expect(first).toEqual(['img', ['ls'], { progress: 'auto', statsFile: 'f', trustFilesystem: true }]);
    expect(second?.slice(0, 2)).toEqual(['img', ['--', 'ls']]);
  });

  test('one separator is ours; a dash without one is a mistake', () => {
    expect(commandOf('img', ['--', '--', 'x'])).toEqual(['--', 'x']);
    expect(commandOf('img', ['--'])).toEqual([]);
    expect(commandOf('img', [])).toEqual([]);
    expect(commandOf('img', ['ls', '--', '-l'])).toEqual(['ls', '--', '-l']);
    expect(() => commandOf('img', ['--json', 'x'])).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

test('image create takes every option, and options after the context as well', async () => {
  const args = '-f D.file -n a/b:c --streaming --build-arg A=1 ctx --build-arg B=2 --target t --platform linux/arm64';
  await parse('image', 'create', ...args.split(' '), '--local', '--disk-mb', '5', '--json', '--progress', 'plain');
  expect(vi.mocked(createAction).mock.calls).toEqual([
    [
      'ctx',
      {
        file: 'D.file',
        name: 'a/b:c',
        streaming: true,
        buildArg: ['A=1', 'B=2'],
        target: 't',
        platform: 'linux/arm64',
        local: true,
        diskMb: '5',
        json: true,
        progress: 'plain',
      },
    ],
  ]);
});

test('image import and export', async () => {
  await parse('image', 'import', 'raw:disk.img', '--name', 'x');
  expect(vi.mocked(importAction).mock.calls).toEqual([['raw:disk.img', { name: 'x', progress: 'auto' }]]);
  await parse('image', 'export', 'x', '--sparse', 'out');
  expect(vi.mocked(exportAction).mock.calls).toEqual([['x', { sparse: 'out', progress: 'auto' }]]);
});

test.each([
  [],
  ['nope'],
  ['image'],
  ['image', 'create', 'a', 'b'],
  ['image', 'ls', '--nope'],
  ['image', 'ls', '--progress', 'loud'],
  ['image', 'serve', 'x'],
  ['run'],
  ['run', '--json', 'img'],
])('wrong usage is an error: %j', async (...args) => {
  await expect(parse(...args)).rejects.toSatisfy((error) => error instanceof CommanderError && error.exitCode !== 0);
});

test.each([['--version'], ['-V'], ['--help'], ['image', '--help'], ['run', '--help'], ['help', 'run']])(
  'help is none: %j',
  async (...args) => {
    await expect(parse(...args)).rejects.toSatisfy((error) => error instanceof CommanderError && error.exitCode === 0);
    expect(runAction).not.toHaveBeenCalled();
  },
);

test.each(['*', 'app.example', 'https://app.example/', 'https://app.example/x', 'file:///x'])(
  'no origin: %j',
  (text) => {
    expect(() => originsOf([text])).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(originsOf(['https://app.example:8443'])).toEqual(['https://app.example:8443']);
  },
);

test.each(['', '-1', '65536', '80a', '1e3', '0x50'])('no port: %j', (text) => {
  expect(() => portOf(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
});
