import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { makeTar, type TarEntry } from '../packages/testkit/src/tar.ts';
import type { Corpus, CorpusPair, CorpusTree, Relation } from './corpus.ts';

/** What makes the trees of the small corpus differ. */
interface Change {
  readonly edited?: boolean;
  readonly more?: boolean;
  readonly reversed?: boolean;
}

const PACKAGES = 60;
const FILES = 12;

/** Two packages more, one file edited, and the same tree in another order, of a tree of 9 MB that looks like Debian's. */
export async function shortCorpus(folder: string): Promise<Corpus> {
  const tree = async (name: string, change: Change): Promise<CorpusTree> => {
    const archive = join(folder, `${name}.tar`);
    await writeFile(archive, makeTar(entries(change)));
    return { name, archive };
  };
  const base = await tree('base', {});
  const edited = await tree('base-edited', { edited: true });
  const more = await tree('base-more', { more: true });
  const again = await tree('base-again', { reversed: true });
  const pair = (name: string, relation: Relation, after: CorpusTree): CorpusPair => ({
    ...{ name, relation, before: base, after },
  });
  return {
    description: 'a tree of 60 made-up packages',
    trees: [base, edited, more, again],
    pairs: [
      pair('one file edited', 'edit', edited),
      pair('two packages more', 'version', more),
      pair('extracted again', 'same', again),
    ],
  };
}

function entries({ edited = false, more = false, reversed = false }: Change): TarEntry[] {
  const files: TarEntry[] = [];
  const names = Array.from({ length: PACKAGES }, (_, i) => `package-${String(i).padStart(2, '0')}`);
  if (more) names.splice(PACKAGES / 3, 0, 'package-07-added', 'package-30-added');
  for (const name of names) {
    const seed = Buffer.from(name).reduce((hash, byte) => Math.imul(hash, 31) + byte, 7) >>> 0;
    const paths: string[] = [];
    for (let i = 0; i < FILES; i++) {
      const path = `usr/${['bin', 'lib', 'share/doc'][i % 3]}/${name}${i < 3 ? '' : `-${i}`}`;
      const data = noise(seed + i, i === 1 ? 150_000 : 2000 + ((seed + i * 977) % 9000));
      paths.push(path);
      const grown = edited && name === 'package-20' && i === 4;
      files.push({ path, data: grown ? Buffer.concat([data, noise(seed, 5000)]) : data });
    }
    const list = paths.map((path) => `/${path}\n`).join('');
    files.push({ path: `var/lib/dpkg/info/${name}.list`, data: list });
    files.push({ path: `var/lib/dpkg/info/${name}.md5sums`, data: noise(seed, 1500) });
  }
  files.push({ path: 'var/lib/dpkg/status', data: names.map((name) => `Package: ${name}\n\n`).join('') });
  return reversed ? files.toReversed() : files;
}

/** Pseudo-random bytes (xorshift32): no two pages of them are equal. */
function noise(seed: number, lengthBytes: number): Buffer {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  let state = seed | 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer, 0, lengthBytes);
}
