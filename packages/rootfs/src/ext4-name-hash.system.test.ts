import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { bytesOf } from './byte-string.ts';
import { hashName } from './ext4-name-hash.ts';
import { privateFolder } from './private-folder.ts';

const hasTools = (await findProgram('debugfs')) !== undefined;

describe.skipIf(!hasTools)('[backend:e2fsprogs] hashName', () => {
  it.each([true, false])('agrees with debugfs, bytes signed: %s', async (signed) => {
    // What debugfs's parser and its options would take for their own is left out.
    const byte = fc
      .constantFrom(...Array.from({ length: 255 }, (_, i) => String.fromCharCode(i + 1)))
      .filter((character) => !'\r\n"-'.includes(character));
    const names = [
      ...[1, 3, 4, 31, 32, 33, 63, 64, 65, 255].map((length) => 'n'.repeat(length)),
      ...fc.sample(fc.string({ unit: byte, minLength: 1, maxLength: 255 }), { numRuns: 300, seed: 7 }),
    ];
    const uuid = '12345678-9abc-def0-fedc-ba9876543210';
    const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
    const seed = [0, 4, 8, 12].map((at) => bytes.readUInt32LE(at)) as [number, number, number, number];
    await using folder = await privateFolder();
    const script = join(folder.path, 'script');
    // debugfs knows the hash of unsigned bytes by its number only.
    const lines = names.map((name) => `dx_hash -h ${signed ? 'half_md4' : '4'} -s ${uuid} "${name}"\n`);
    await writeFile(script, bytesOf(lines.join('')));
    const { stdout } = await run('debugfs', ['-f', script]);
    const found = [
      ...Buffer.from(stdout)
        .toString('latin1')
        .matchAll(/ is 0x([0-9a-f]+) \(minor 0x([0-9a-f]+)\)\n/g),
    ];
    const expected = found.map(([, major, minor]) => [Number.parseInt(major!, 16), Number.parseInt(minor!, 16)]);
    expect(expected).toHaveLength(names.length);
    expect(
      names.map((name) => {
        const { major, minor } = hashName(name, { seed, signed });
        return [major, minor];
      }),
    ).toEqual(expected);
  });
});
