import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { Cooperation } from './cooperate.ts';
import { ext4Commands, ext4Time } from './ext4-script.ts';
import { takeInventory } from './inventory.ts';
import { directory, file, meta } from './trees.fixture.ts';
import type { DirectoryNode } from './tree.ts';

async function script(root: DirectoryNode) {
  const { inodes } = await takeInventory(root, new Cooperation(1000, undefined));
  const staging = {
    file: () => Promise.resolve('0'),
    value: () => Promise.resolve('1'),
    indexedBlocks: () => undefined,
  };
  const commands = [];
  for await (const command of ext4Commands(inodes, staging)) commands.push(command);
  return commands;
}

describe('ext4Commands', () => {
  it('quote names, so that none becomes a request or an argument', async () => {
    const name = 'a" \\ <3>\t";rm';
    const texts = (await script(directory({ [name]: file('x') }))).map(({ text }) => text);
    expect(texts).toContain(String.raw`write "0" "a"" \ <3>` + '\t"";rm"');
    expect(texts.filter((text) => text.includes('rm'))).toHaveLength(1);
  });

  it('keep line ends out of scripts', async () => {
    const commands = await script(
      directory({
        'a\nquit': file('x'),
        'b\rc': directory(),
        link: { kind: 'symlink', meta: meta(), target: 'x\ny' },
      }),
    );
    for (const { text, direct } of commands) expect(direct).toBe(/[\r\n]/.test(text));
    const direct = commands.filter((command) => command.direct).map(({ text }) => text);
    expect(direct).toEqual(['ln <12> "<2>/a\nquit"', 'ln <13> "<2>/b\rc"', 'symlink "<2>/link" "x\ny"']);
  });
});

describe('ext4Time', () => {
  it('is read back by the rule of the kernel', () => {
    const time = fc.record({
      mtimeSeconds: fc.integer({ min: -(2 ** 31), max: 2 ** 34 - 2 ** 31 - 1 }),
      mtimeNanoseconds: fc.nat(999_999_999),
    });
    fc.assert(
      fc.property(time, ({ mtimeSeconds, mtimeNanoseconds }) => {
        const { low, extra } = ext4Time(meta({ mtimeSeconds, mtimeNanoseconds }));
        expect((low | 0) + (extra & 3) * 2 ** 32).toBe(mtimeSeconds);
        expect(extra >>> 2).toBe(mtimeNanoseconds);
        expect(extra).toBeLessThan(2 ** 32);
      }),
    );
  });

  it('keeps what does not fit at the nearest time that does', () => {
    expect(ext4Time(meta({ mtimeSeconds: -(2 ** 40), mtimeNanoseconds: 5 }))).toEqual({ low: 2 ** 31, extra: 0 });
    expect(ext4Time(meta({ mtimeSeconds: 2 ** 40 }))).toEqual({ low: 2 ** 31 - 1, extra: 3 });
  });
});
