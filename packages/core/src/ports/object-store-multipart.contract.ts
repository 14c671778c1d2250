import { beforeEach, describe, expect, it } from 'vitest';

import { bytesOf, code, collect, pieces, type ObjectStoreFixture } from './object-store-fixture.contract.ts';
import type { ObjectStore } from './object-store.ts';

/** What every object store must do with uploads in parts; run by `objectStoreContract`. */
export function multipartContract(current: () => ObjectStoreFixture): void {
  describe('multipart uploads', () => {
    let store: ObjectStore;
    let second: ObjectStore;
    beforeEach(() => {
      store = current().store;
      second = current().second ?? store;
    });
    const key = 'up/load';

    it('joins parts in ascending order, whatever order they came and were listed in', async () => {
      const id = await store.createMultipart(key);
      const third = await store.putPart(key, id, 7, bytesOf('three'));
      const first = await store.putPart(key, id, 1, pieces(bytesOf('o'), bytesOf('ne')));
      const two = await second.putPart(key, id, 2, bytesOf('two'));
      expect(await store.head(key)).toBeUndefined();
      expect(await collect(store.list(''))).toEqual([]);
      const info = await store.completeMultipart(key, id, [two, third, first]);
      expect(info).toEqual({ key, sizeBytes: 11 });
      expect(await store.get(key)).toEqual(bytesOf('onetwothree'));
      expect(await collect(store.list(''))).toEqual([info]);
    });

    it('replaces a part and leaves out those not listed', async () => {
      const id = await store.createMultipart(key);
      const old = await store.putPart(key, id, 1, bytesOf('old'));
      const now = await store.putPart(key, id, 1, bytesOf('new'));
      await store.putPart(key, id, 2, bytesOf('unwanted'));
      await expect(store.completeMultipart(key, id, [old])).rejects.toEqual(code('UPLOAD_INVALID'));
      await store.completeMultipart(key, id, [now]);
      expect(await store.get(key)).toEqual(bytesOf('new'));
    });

    it('takes one empty part', async () => {
      const id = await store.createMultipart(key);
      const part = await store.putPart(key, id, 1, new Uint8Array());
      expect(await store.completeMultipart(key, id, [part])).toEqual({ key, sizeBytes: 0 });
      expect(await store.get(key)).toEqual(new Uint8Array());
    });

    it('refuses what does not fit', async () => {
      const id = await store.createMultipart(key);
      const part = await store.putPart(key, id, 1, bytesOf('1'));
      const refused = code('UPLOAD_INVALID');
      for (const number of [0, -1, 1.5, 10_001]) {
        await expect(store.putPart(key, id, number, bytesOf('x'))).rejects.toEqual(refused);
      }
      for (const other of ['nope', '../objects', '0'.repeat(32)]) {
        await expect(store.putPart(key, other, 1, bytesOf('x'))).rejects.toEqual(refused);
        await expect(store.completeMultipart(key, other, [part])).rejects.toEqual(refused);
        await store.abortMultipart(key, other);
      }
      await expect(store.putPart('another/key', id, 1, bytesOf('x'))).rejects.toEqual(refused);
      await expect(store.completeMultipart('another/key', id, [part])).rejects.toEqual(refused);
      await expect(store.completeMultipart(key, id, [])).rejects.toEqual(refused);
      await expect(store.completeMultipart(key, id, [part, part])).rejects.toEqual(refused);
      await expect(store.completeMultipart(key, id, [part, { partNumber: 2, etag: part.etag }])).rejects.toEqual(
        refused,
      );
      await expect(store.completeMultipart(key, id, [{ partNumber: 1, etag: 'wrong' }])).rejects.toEqual(refused);
      await store.abortMultipart('another/key', id);
      await store.completeMultipart(key, id, [part]);
      expect(await store.get(key)).toEqual(bytesOf('1'));
    });

    it('forgets an aborted upload', async () => {
      const id = await store.createMultipart(key);
      const part = await store.putPart(key, id, 1, bytesOf('x'));
      await store.abortMultipart(key, id);
      await store.abortMultipart(key, id);
      await expect(store.putPart(key, id, 2, bytesOf('x'))).rejects.toEqual(code('UPLOAD_INVALID'));
      await expect(store.completeMultipart(key, id, [part])).rejects.toEqual(code('UPLOAD_INVALID'));
      expect(await store.head(key)).toBeUndefined();
    });

    it('answers the same completion again, but takes no more parts', async () => {
      const id = await store.createMultipart(key);
      const part = await store.putPart(key, id, 1, bytesOf('once'));
      const other = await store.putPart(key, id, 2, bytesOf('twice'));
      const [a, b] = await Promise.all([
        store.completeMultipart(key, id, [part, other]),
        store.completeMultipart(key, id, [part, other]),
      ]);
      expect(a).toEqual(b);
      expect(await second.completeMultipart(key, id, [other, part])).toEqual(a);
      await expect(store.completeMultipart(key, id, [part])).rejects.toEqual(code('UPLOAD_INVALID'));
      await expect(store.putPart(key, id, 3, bytesOf('late'))).rejects.toEqual(code('UPLOAD_INVALID'));
      expect(await store.get(key)).toEqual(bytesOf('oncetwice'));
    });

    it('leaves no part behind whose body failed', async () => {
      const id = await store.createMultipart(key);
      async function* broken() {
        yield bytesOf('x');
        await Promise.resolve();
        throw new Error('cut');
      }
      await expect(store.putPart(key, id, 1, broken())).rejects.toThrow('cut');
      await expect(store.completeMultipart(key, id, [{ partNumber: 1, etag: 'x' }])).rejects.toEqual(
        code('UPLOAD_INVALID'),
      );
    });
  });
}
