import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { bytesOf, code, collect, pieces, type ObjectStoreFixture } from './object-store-fixture.contract.ts';
import { multipartContract } from './object-store-multipart.contract.ts';
import type { ObjectStore } from './object-store.ts';

const MIB = 1024 * 1024;

/** What every {@link ObjectStore} must do. */
export function objectStoreContract(name: string, open: () => Promise<ObjectStoreFixture>): void {
  describe(`ObjectStore contract: ${name}`, () => {
    let fixture: ObjectStoreFixture;
    let store: ObjectStore;
    beforeEach(async () => {
      fixture = await open();
      store = fixture.store;
    });
    afterEach(() => fixture[Symbol.asyncDispose]());

    describe('whole objects', () => {
      it('gives back what was put, whole, in pieces and by range', async () => {
        const body = Uint8Array.from({ length: 70_000 }, (_, index) => (index * 7) % 251);
        const info = await store.put(
          'a/b',
          pieces(body.subarray(0, 1), body.subarray(1, 65_537), body.subarray(65_537)),
        );
        expect(info).toEqual({ key: 'a/b', sizeBytes: 70_000 });
        expect(await store.head('a/b')).toEqual(info);
        expect(await store.get('a/b')).toEqual(body);
        expect(Buffer.concat(await collect(store.stream('a/b')))).toEqual(Buffer.from(body));
        const range = { offset: 65_530, lengthBytes: 20 };
        expect(await store.get('a/b', { range })).toEqual(body.slice(65_530, 65_550));
        expect(Buffer.concat(await collect(store.stream('a/b', { range })))).toEqual(
          Buffer.from(body.slice(65_530, 65_550)),
        );
        expect(await store.get('a/b', { range: { offset: 70_000, lengthBytes: 0 } })).toEqual(new Uint8Array());
      });

      it('refuses a range that is not inside', async () => {
        await store.put('k', bytesOf('12345'));
        for (const [offset, lengthBytes] of [
          [0, 6],
          [6, 0],
          [-1, 2],
          [2, -1],
          [0.5, 1],
          [4, 2],
        ] as const) {
          await expect(store.get('k', { range: { offset, lengthBytes } })).rejects.toThrow(RangeError);
          await expect(collect(store.stream('k', { range: { offset, lengthBytes } }))).rejects.toThrow(RangeError);
        }
      });

      it('holds an empty object', async () => {
        await store.put('empty', new Uint8Array());
        expect(await store.get('empty')).toEqual(new Uint8Array());
        expect(await collect(store.stream('empty'))).toEqual([]);
        expect(await store.head('empty')).toEqual({ key: 'empty', sizeBytes: 0 });
      });

      it('says when there is nothing', async () => {
        await expect(store.get('none')).rejects.toEqual(code('OBJECT_NOT_FOUND'));
        await expect(collect(store.stream('none/at/all'))).rejects.toEqual(code('OBJECT_NOT_FOUND'));
        expect(await store.head('none')).toBeUndefined();
        await store.delete('none');
      });

      it('keeps its own copy of the bytes', async () => {
        const body = bytesOf('before');
        await store.put('k', body);
        body.fill(0);
        (await store.get('k')).fill(1);
        expect(await store.get('k')).toEqual(bytesOf('before'));
      });

      it('is done with each piece when it asks for the next', async () => {
        async function* oneMemory() {
          const memory = new Uint8Array(70_000);
          for (const value of [1, 2, 3]) yield memory.fill(value);
          memory.fill(9);
        }
        await store.put('k', oneMemory());
        const id = await store.createMultipart('up');
        await store.completeMultipart('up', id, [await store.putPart('up', id, 1, oneMemory())]);
        const expected = Buffer.concat([1, 2, 3].map((value) => Buffer.alloc(70_000, value)));
        for (const key of ['k', 'up']) expect(expected.equals(await store.get(key))).toBe(true);
      });

      it('replaces and deletes', async () => {
        await store.put('k', bytesOf('a long first value'));
        await store.put('k', bytesOf('second'));
        expect(await store.get('k')).toEqual(bytesOf('second'));
        await store.delete('k');
        expect(await store.head('k')).toBeUndefined();
        expect(await collect(store.list(''))).toEqual([]);
        await store.put('k', bytesOf('third'));
        expect(await store.get('k')).toEqual(bytesOf('third'));
      });

      it('lets a key be the beginning of another', async () => {
        await store.put('a/b/c', bytesOf('deep'));
        await store.put('a', bytesOf('top'));
        await store.put('a/b', bytesOf('middle'));
        expect(await store.get('a')).toEqual(bytesOf('top'));
        await store.delete('a/b');
        expect(await store.get('a/b/c')).toEqual(bytesOf('deep'));
        expect((await collect(store.list(''))).map(({ key }) => key)).toEqual(['a', 'a/b/c']);
      });
    });

    describe('keys', () => {
      const bad = [
        '',
        '/',
        '/a',
        'a/',
        'a//b',
        '.',
        '..',
        'a/../b',
        'a/./b',
        '../a',
        'x'.repeat(1025),
        'é'.repeat(513),
      ];
      it.each(bad)('refuses %j everywhere', async (key) => {
        const refused = code('OBJECT_KEY_INVALID');
        await expect(store.put(key, new Uint8Array())).rejects.toEqual(refused);
        await expect(store.get(key)).rejects.toEqual(refused);
        await expect(collect(store.stream(key))).rejects.toEqual(refused);
        await expect(store.head(key)).rejects.toEqual(refused);
        await expect(store.delete(key)).rejects.toEqual(refused);
        await expect(store.createMultipart(key)).rejects.toEqual(refused);
      });

      const odd = [
        'x'.repeat(1024),
        `${'y'.repeat(300)}/z`,
        '...',
        'a b',
        'A',
        'a',
        'ä/ö',
        'a\\b',
        '%41',
        'a@',
        'a+',
        'a=/b',
        '😀',
      ];
      it('keeps unusual keys apart', async () => {
        for (const key of odd) await store.put(key, bytesOf(key));
        for (const key of odd) expect(await store.get(key)).toEqual(bytesOf(key));
        const listed = (await collect(store.list(''))).map(({ key }) => key);
        expect(listed).toEqual([...odd].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
      });

      it('behaves as a sorted map for any keys', async () => {
        const part = fc.oneof(
          fc.constantFrom(
            'a',
            'a-',
            'a.',
            'b',
            'B',
            'a0',
            '-',
            '~',
            'é',
            'x'.repeat(80),
            'x'.repeat(79),
            'x'.repeat(81),
          ),
          fc.string({ unit: 'grapheme', minLength: 1, maxLength: 4 }),
        );
        const key = fc
          .array(part, { minLength: 1, maxLength: 4 })
          .map((parts) => parts.join('/'))
          .filter((text) => text.isWellFormed())
          // oxlint-disable-next-line no-control-regex -- stores may refuse them
          .filter((text) => !/[\u0000-\u001f\u007f]/.test(text))
          .filter((text) => text.split('/').every((component) => !['', '.', '..'].includes(component)));
        await fc.assert(
          fc.asyncProperty(
            fc.uniqueArray(key, { maxLength: 12 }),
            fc.nat(11),
            fc.nat(6),
            async (keys, dropped, cut) => {
              await using own = await open();
              const expected = new Map<string, number>();
              for (const [index, text] of keys.entries()) {
                await own.store.put(text, new Uint8Array(index));
                expected.set(text, index);
              }
              const gone = keys[dropped];
              if (gone !== undefined) {
                await own.store.delete(gone);
                expected.delete(gone);
              }
              const order = [...expected].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
              const prefix = Buffer.from(keys[0] ?? '')
                .toString('utf8')
                .slice(0, cut);
              fc.pre(prefix.isWellFormed());
              const listed = await collect(own.store.list(prefix));
              expect(listed).toEqual(
                order
                  .filter(([text]) => text.startsWith(prefix))
                  .map(([text, sizeBytes]) => ({ key: text, sizeBytes })),
              );
            },
          ),
          { numRuns: 40 },
        );
      });
    });

    describe('listing', () => {
      it('goes by prefix and byte order', async () => {
        const keys = ['a', 'a-b', 'a/b', 'a/c/d', 'a0', 'ab/c', 'b', 'Z', 'é'];
        for (const key of keys.toReversed()) await store.put(key, bytesOf(key));
        const listed = async (prefix: string) => (await collect(store.list(prefix))).map(({ key }) => key);
        expect(await listed('')).toEqual(['Z', 'a', 'a-b', 'a/b', 'a/c/d', 'a0', 'ab/c', 'b', 'é']);
        expect(await listed('a')).toEqual(['a', 'a-b', 'a/b', 'a/c/d', 'a0', 'ab/c']);
        expect(await listed('a/')).toEqual(['a/b', 'a/c/d']);
        expect(await listed('a/c/d')).toEqual(['a/c/d']);
        expect(await listed('a/c/d/')).toEqual([]);
        expect(await listed('nothing')).toEqual([]);
      });
    });

    describe('atomicity', () => {
      it('shows no object until its body has ended, and none when it fails', async () => {
        let release: () => void = () => undefined;
        const gate = new Promise<void>((resolve) => {
          release = resolve;
        });
        async function* slow() {
          yield bytesOf('first half');
          await gate;
          yield bytesOf('second half');
        }
        const writing = store.put('slow', slow());
        await new Promise((resolve) => setTimeout(resolve, 20));
        expect(await store.head('slow')).toBeUndefined();
        expect(await collect(store.list(''))).toEqual([]);
        release();
        await writing;
        expect(await store.get('slow')).toEqual(bytesOf('first halfsecond half'));

        async function* broken() {
          yield bytesOf('part of it');
          await Promise.resolve();
          throw new Error('the source broke');
        }
        await expect(store.put('slow', broken())).rejects.toThrow('the source broke');
        await expect(store.put('new', broken())).rejects.toThrow('the source broke');
        expect(await store.get('slow')).toEqual(bytesOf('first halfsecond half'));
        expect(await store.head('new')).toBeUndefined();
      });

      it('lets one of several writers win, whole', async () => {
        const second = fixture.second ?? store;
        const values = Array.from({ length: 16 }, (_, index) => new Uint8Array(100_000 + index).fill(index));
        const writing = new AbortController();
        const reader = (async () => {
          let seen = 0;
          while (!writing.signal.aborted) {
            const bytes = await second.get('hot').catch(() => undefined);
            if (bytes === undefined) continue;
            expect(bytes).toEqual(values[bytes[0]!]);
            seen++;
          }
          return seen;
        })();
        await Promise.all(
          values.map((value, index) =>
            (index % 2 === 0 ? store : second).put('hot', pieces(value.subarray(0, 7), value.subarray(7))),
          ),
        );
        const last = await store.get('hot');
        writing.abort();
        await reader;
        expect(last).toEqual(values[last[0]!]);
      });

      it('keeps writers and deleters of neighbours out of each other’s way', async () => {
        const second = fixture.second ?? store;
        const work = async (own: ObjectStore, name: string) => {
          for (let round = 0; round < 25; round++) {
            await own.put(`deep/er/than/this/${name}`, bytesOf(name));
            expect(await own.get(`deep/er/than/this/${name}`)).toEqual(bytesOf(name));
            await own.delete(`deep/er/than/this/${name}`);
          }
        };
        await Promise.all(['a', 'b', 'c', 'd'].map((name, index) => work(index % 2 === 0 ? store : second, name)));
        expect(await collect(store.list(''))).toEqual([]);
      });

      it('goes on reading what it opened while the key is replaced or deleted', async () => {
        const body = new Uint8Array(5 * MIB).fill(7);
        await store.put('k', body);
        const reading = store.stream('k')[Symbol.asyncIterator]();
        const first = await reading.next();
        await (fixture.second ?? store).put('k', bytesOf('other'));
        await store.delete('k');
        let length = (first.value as Uint8Array).length;
        for (let next = await reading.next(); next.done !== true; next = await reading.next()) {
          expect(next.value.every((byte) => byte === 7)).toBe(true);
          length += next.value.length;
        }
        expect(length).toBe(body.length);
      });

      it('stops with the signal’s reason', async () => {
        const abort = new AbortController();
        async function* endless() {
          yield bytesOf('x');
          await new Promise(() => undefined);
        }
        const writing = store.put('k', endless(), { signal: abort.signal });
        setTimeout(() => abort.abort(new Error('enough')), 5);
        await expect(writing).rejects.toThrow('enough');
        expect(await store.head('k')).toBeUndefined();
        const signal = AbortSignal.abort(new Error('no'));
        await expect(store.get('k', { signal })).rejects.toThrow('no');
        await expect(store.put('k', new Uint8Array(), { signal })).rejects.toThrow('no');
      });
    });

    multipartContract(() => fixture);
  });
}
