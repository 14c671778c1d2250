import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import { expect, it } from 'vitest';

import { privateFolder } from './private-folder.ts';
import { runToolDirectly } from './run-tool.ts';

it('gives the end of what a tool wrote to a file, and replaces what an earlier tool wrote there', async () => {
  await using folder = await privateFolder(undefined);
  const stdoutFile = join(folder.path, 'printed');
  await writeFile(stdoutFile, 'of an earlier tool, and longer than what follows');
  const short = await runToolDirectly('sh', ['-c', 'echo one; echo two >&2; exit 7'], { stdoutFile });
  expect([Buffer.from(short.stdout).toString(), Buffer.from(short.stderr).toString(), short.exitCode]).toEqual([
    'one\n',
    'two\n',
    7,
  ]);
  expect(await readFile(stdoutFile, 'utf8')).toBe('one\n');

  const script = `head -c ${2 * MIB} /dev/zero; echo last`;
  const { stdout } = await runToolDirectly('sh', ['-c', script], { stdoutFile });
  expect(stdout).toHaveLength(MIB);
  expect(Buffer.from(stdout.subarray(-5)).toString()).toBe('last\n');
});
