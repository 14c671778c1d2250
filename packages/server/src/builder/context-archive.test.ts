import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { inspectContext } from './context-archive.ts';

const exec = promisify(execFile);
const LIMITS = { contextFiles: 100, unpackedBytes: 1_000_000 };

let directory: string;
let archive: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'context-archive-'));
  archive = join(directory, 'c.tar');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** One entry as other clients write it. */
function entry(name: string, content = '', change: { type?: string; link?: string; owner?: string } = {}): Buffer {
  const header = Buffer.alloc(512);
  const owner = change.owner ?? '0000000\0';
  const field = (text: string, at: number) => header.write(text, at, 'latin1');
  field(name, 0);
  field('0000644\0', 100);
  field(owner, 108);
  field(owner, 116);
  field(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  field('00000000000\0', 136);
  field(change.type ?? '0', 156);
  field(change.link ?? '', 157);
  field('ustar\x0000', 257);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  field(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  body.write(content, 'latin1');
  return Buffer.concat([header, body]);
}
const tar = (...entries: Buffer[]) => Buffer.concat([...entries, Buffer.alloc(1024)]);
const inspect = async (bytes: Uint8Array, dockerfile: string | undefined = 'Dockerfile', limits = LIMITS) => {
  await writeFile(archive, bytes);
  return inspectContext(archive, dockerfile, limits);
};
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

describe('the archive of a context', () => {
  it('may have names with ./ and blank owners, and be compressed or not', async () => {
    const blank = '\0'.repeat(8);
    for (const name of ['Dockerfile', './Dockerfile']) {
      for (const owner of [blank, '0000000\0', '0001750\0']) {
        const bytes = tar(entry('a', 'x'.repeat(600), { owner }), entry(name, 'FROM scratch\n', { owner }));
        for (const sent of [bytes, gzipSync(bytes)]) {
          const facts = await inspect(sent);
          expect(text(facts.dockerfile)).toBe('FROM scratch\n');
          expect(facts).toMatchObject({ entries: 2, unpackedBytes: bytes.length });
        }
      }
    }
  });

  it('is read as GNU tar writes it, with links and long names, in both formats', async () => {
    const from = join(directory, 'from');
    const long = `${'d'.repeat(90)}/${'e'.repeat(40)}`;
    await mkdir(join(from, long), { recursive: true });
    await writeFile(join(from, long, 'File'), 'FROM base\n');
    await symlink(`${long}/File`, join(from, 'Dockerfile'));
    for (const format of ['gnu', 'pax']) {
      const args = ['--format', format, '-czf', archive, '-C', from, '.'];
      await exec('tar', args);
      const facts = await inspectContext(archive, 'Dockerfile', LIMITS);
      expect(text(facts.dockerfile)).toBe('FROM base\n');
    }
  });

  it('names the entry that it cannot have', async () => {
    const bad: [Buffer, RegExp][] = [
      [entry('../x', 'y'), /\.\.\/x.*leads out/],
      [entry('a/../../x', 'y'), /leads out/],
      [entry('/etc/passwd', 'y'), /leads out/],
      [entry('dev', '', { type: '3' }), /character-device/],
      [entry('pipe', '', { type: '6' }), /fifo/],
      [entry('h', '', { type: '1', link: '../out' }), /hard link/],
      [entry('h', '', { type: '1', link: '/etc/shadow' }), /hard link/],
    ];
    for (const [bytes, message] of bad) {
      await expect(inspect(tar(bytes))).rejects.toMatchObject({
        code: 'BUILD_CONTEXT_INVALID',
        message: expect.stringMatching(message),
      });
    }
    // A link that leads out is only a link: engines resolve it inside the context.
    const link = entry('l', '', { type: '2', link: '../../etc/passwd' });
    expect(await inspect(tar(link, entry('Dockerfile', 'FROM x\n')))).toMatchObject({ entries: 2 });
    await expect(inspect(tar(link), 'l')).rejects.toMatchObject({ code: 'DOCKERFILE_UNREADABLE' });
    await expect(inspect(tar(entry('a', '')))).rejects.toMatchObject({ code: 'DOCKERFILE_UNREADABLE' });
  });

  it('has its Dockerfile where links lead, in however many pieces it is read', async () => {
    const link = (name: string, to: string, type: '1' | '2') => entry(name, '', { type, link: to });
    const long = Array.from({ length: 20_000 }, (_, i) => `# line ${i}\n`).join('');
    const large = { ...LIMITS, unpackedBytes: 2 ** 24 };
    const files = [entry('a', 'x'.repeat(100_000)), entry('d/real', long), entry('z', 'y'.repeat(300_000))];
    // A hard link counts from the root of the archive, a symbolic one from where it is.
    const bytes = tar(
      ...files,
      link('d/hard', 'd/real', '1'),
      link('d/soft', 'hard', '2'),
      link('top', './d/soft', '2'),
    );
    for (const sent of [bytes, gzipSync(bytes)]) {
      for (const name of ['d/real', 'd/hard', 'd/soft', 'top', './d/../top']) {
        expect(text((await inspect(sent, name, large)).dockerfile) === long, name).toBe(true);
      }
    }
    const round = tar(link('one', 'two', '2'), link('two', 'one', '2'));
    await expect(inspect(round, 'one')).rejects.toMatchObject({ code: 'DOCKERFILE_UNREADABLE' });
    const huge = tar(entry('Dockerfile', '#'.repeat(4 * 2 ** 20 + 1)));
    await expect(inspect(huge, 'Dockerfile', large)).rejects.toMatchObject({ code: 'DOCKERFILE_INVALID' });
    expect((await inspectContext(archive, undefined, large)).entries).toBe(1);
  });

  it('has bounds on entries and on bytes, also of a bomb', async () => {
    const many = tar(...Array.from({ length: 101 }, (_, i) => entry(`f${i}`)));
    await expect(inspect(many)).rejects.toMatchObject({ code: 'BUILD_CONTEXT_FILES', details: { limit: 100 } });
    const bomb = gzipSync(tar(entry('zeros', '\0'.repeat(3_000_000))));
    expect(bomb.length).toBeLessThan(10_000);
    await expect(inspect(bomb)).rejects.toMatchObject({ code: 'BUILD_UNPACKED_BYTES', details: { limit: 1_000_000 } });
  });

  it('is refused with a code whatever bytes are changed or cut off', async () => {
    const plain = tar(entry('Dockerfile', 'FROM scratch\n'), entry('b', 'content'));
    const packed = gzipSync(plain);
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.nat(), fc.nat(255), fc.boolean(), async (gzip, place, value, cut) => {
        const whole = gzip ? packed : plain;
        const at = place % whole.length;
        const bytes = cut ? whole.subarray(0, at) : Buffer.from(whole);
        if (!cut) bytes[at] = value;
        await inspect(bytes).then(
          (facts) => expect(facts.entries).toBeGreaterThan(0),
          (error: unknown) =>
            expect(error).toMatchObject({
              code: expect.stringMatching(
                /^(BUILD_CONTEXT_INVALID|DOCKERFILE_UNREADABLE|BUILD_UNPACKED_BYTES|LIMIT_EXCEEDED)$/,
              ),
            }),
        );
      }),
      { numRuns: 150 },
    );
  });
});
