import { createHash } from 'node:crypto';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { layerWithout, type OwnFiles } from './layer-without.ts';

interface Entry {
  readonly name: string;
  readonly type?: string;
  readonly content?: string;
  readonly link?: string;
  readonly pax?: string;
}

function header({ name, type = '0', content = '', link = '' }: Entry): Buffer {
  const block = Buffer.alloc(512);
  block.write(name, 0);
  block.write('0000644\0', 100);
  block.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  block.write('        ', 148);
  block.write(type, 156);
  block.write(link, 157);
  block.write('ustar\u000000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function bytesOf(entry: Entry): Buffer {
  const { content = '', pax } = entry;
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  body.write(content, 0);
  const before = pax === undefined ? [] : [bytesOf({ name: 'pax', type: 'x', content: pax })];
  return Buffer.concat([...before, header(entry), body]);
}

const END = Buffer.alloc(1024);
const MIB = 1024 * 1024;
const layerOf = (entries: readonly Entry[]) => Buffer.concat([...entries.map(bytesOf), END]);
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const own: OwnFiles = {
  files: new Map([
    ['/etc/decant/ca.pem', { sizeBytes: 4, sha256: sha256('ours') }],
    ['/etc/bundle', { sizeBytes: 700, sha256: sha256('b'.repeat(700)) }],
  ]),
  folders: new Set(['/etc/decant']),
};

async function without(layer: Buffer, cuts: readonly number[] = []): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let rest = layer;
  for (const cut of cuts) {
    pieces.push(rest.subarray(0, cut));
    rest = rest.subarray(cut);
  }
  const source = async function* () {
    yield* [...pieces, rest].filter(({ length }) => length > 0);
  };
  const found: Buffer[] = [];
  for await (const piece of layerWithout(source(), own)) found.push(piece);
  return Buffer.concat(found);
}

const folder = { name: 'etc/decant/', type: '5' };
const ours = { name: 'etc/decant/ca.pem', content: 'ours' };
const bundle = { name: 'etc/bundle', content: 'b'.repeat(700) };
const theirs = { name: 'job/x', content: 'x'.repeat(600) };

describe('a layer without what the bottle was given', () => {
  test.each<[string, Entry[], Entry[]]>([
    ['goes without files that are as they were, and their folder', [folder, ours, bundle, theirs], [theirs]],
    ['is empty when there is nothing else', [folder, ours], []],
    ['has a file that was changed', [folder, { ...ours, content: 'mine' }], [folder, { ...ours, content: 'mine' }]],
    [
      'has a file that became longer',
      [{ ...bundle, content: 'b'.repeat(701) }],
      [{ ...bundle, content: 'b'.repeat(701) }],
    ],
    [
      'has the folder when something else is in it',
      [folder, ours, { name: 'etc/decant/notes', content: 'n' }],
      [folder, { name: 'etc/decant/notes', content: 'n' }],
    ],
    [
      'does not take a file of another folder for one of that folder',
      [folder, ours, { name: 'etc/decant-other', content: 'o' }],
      [{ name: 'etc/decant-other', content: 'o' }],
    ],
    [
      'has another name of a file that goes as a file',
      [folder, ours, { name: 'job/ca', type: '1', link: 'etc/decant/ca.pem' }],
      [{ name: 'job/ca', content: 'ours' }],
    ],
    [
      'leaves long names and attributes alone',
      [{ name: 'pem', content: 'ours', pax: '22 path=etc/decant/ca.pem\n' }, bundle, theirs],
      [{ name: 'pem', content: 'ours', pax: '22 path=etc/decant/ca.pem\n' }, theirs],
    ],
    [
      'has the folder when something with a long name is in it',
      [folder, ours, { name: 'x', content: 'n', pax: `112 path=etc/decant/${'x'.repeat(90)}\n` }],
      [folder, { name: 'x', content: 'n', pax: `112 path=etc/decant/${'x'.repeat(90)}\n` }],
    ],
  ])('%s', async (_, before, after) => {
    expect((await without(layerOf(before))).equals(layerOf(after))).toBe(true);
  });

  test('it does not matter in which pieces it comes', async () => {
    const before = layerOf([theirs, folder, ours, bundle, { name: 'job/ca', type: '1', link: 'etc/bundle' }, theirs]);
    const whole = await without(before);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 20 }), async (cuts) => {
        expect((await without(before, cuts)).equals(whole)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test('a size that a header has no room for is that of its record', async () => {
    const large = Buffer.concat([
      bytesOf({ name: 'pax', type: 'x', content: '12 size=600\n' }),
      header({ name: 'job/x' }),
    ]);
    const body = Buffer.alloc(1024, 'x');
    const layer = Buffer.concat([large, body, bytesOf(ours), END]);
    expect(await without(layer)).toEqual(Buffer.concat([large, body, END]));
  });

  test('little is read ahead, also of a file that is not what it was, and the source is closed', async () => {
    let read = 0;
    let isClosed = false;
    const source = async function* (first: Buffer) {
      try {
        yield first;
        for (; read < 8 * MIB; read += 65_536) yield Buffer.alloc(65_536);
      } finally {
        isClosed = true;
      }
    };
    const changed = header(bundle);
    changed.write('77777777777\0', 124);
    for await (const piece of layerWithout(source(changed), own)) {
      expect(piece).toEqual(changed);
      break;
    }
    expect([read, isClosed]).toEqual([0, true]);
    const huge = header({ name: 'pax', type: 'x' });
    huge.write('77777777777\0', 124);
    const refused = layerWithout(source(huge), own).next();
    await expect(refused).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    expect(read).toBe(0);
  });

  test('what is no layer, or ends too soon, is an error', async () => {
    await expect(without(layerOf([theirs]).subarray(0, 700))).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    await expect(without(Buffer.alloc(512, 'x'))).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    const huge = header({ name: 'pax', type: 'x' });
    huge.write('77777777777\0', 124);
    await expect(without(huge)).rejects.toMatchObject({ code: 'JAIL_FAILED' });
  });
});
