import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { acme, code, imageIdOf, other, useStores, type MetadataStoreFixture } from './contract-kit.ts';

/** What the names of every store must do. */
export function nameStoreContract(open: () => Promise<MetadataStoreFixture>): void {
  const on = useStores(open);

  describe('names', () => {
    it('are pointed at images of their namespace, removed, and remember what they pointed at', async () => {
      await on.admit(1);
      await on.admit(2);
      await on.admit(2);
      const app = { name: 'app', tag: 'latest' };
      await expect(
        on.store.names.set(acme, { ...app, imageId: imageIdOf(3), configDigest: null, diskBytes: 0 }),
      ).rejects.toEqual(code('NOT_FOUND'));
      await on.admit(3, other);
      await expect(
        on.store.names.set(acme, { ...app, imageId: imageIdOf(3), configDigest: null, diskBytes: 0 }),
      ).rejects.toEqual(code('NOT_FOUND'));
      expect(await on.second.names.remove(acme, app)).toBe(true);
      expect(await on.second.names.remove(acme, app)).toBe(false);
      expect(await on.store.names.find(acme, app)).toBeUndefined();
      const row = await on.store.names.set(acme, { ...app, imageId: imageIdOf(1), configDigest: 'cc', diskBytes: 5 });
      expect(row).toMatchObject({ ...app, imageId: imageIdOf(1), configDigest: 'cc', diskBytes: 5 });
      expect(await on.second.names.find(acme, app)).toEqual(row);
      const history = await on.store.names.history(acme, app);
      expect(history.map(({ version, imageId }) => [version, imageId])).toEqual([
        [4, imageIdOf(1)],
        [3, null],
        [2, imageIdOf(2)],
        [1, imageIdOf(1)],
      ]);
      expect(await on.store.names.history(other, { name: 'app', tag: 'v9' })).toEqual([]);
    });

    it('are listed in byte order, page by page, each once', async () => {
      await on.admit(1, acme, 'seed');
      await on.store.names.remove(acme, { name: 'seed', tag: 'latest' });
      const word = fc.stringMatching(/^[a-z0-9]{1,3}((\.|_|-|\/)[a-z0-9]{1,2})?$/);
      await fc.assert(
        fc.asyncProperty(
          fc.uniqueArray(fc.tuple(word, fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,3}$/)), {
            maxLength: 12,
            selector: (pair) => pair.join(':'),
          }),
          fc.integer({ min: 1, max: 5 }),
          async (pairs, limit) => {
            for (const [each, tag] of pairs) {
              await on.store.names.set(acme, {
                name: each,
                tag,
                imageId: imageIdOf(1),
                configDigest: null,
                diskBytes: 0,
              });
            }
            const listed: string[][] = [];
            for (let after: { name: string; tag: string } | undefined; ;) {
              const page = await on.store.names.list(acme, { limit, after });
              expect(page.length).toBeLessThanOrEqual(limit);
              listed.push(...page.map(({ name: each, tag }) => [each, tag]));
              after = page.at(-1);
              if (after === undefined) break;
            }
            const expected = [...pairs].sort((a, b) => (a[0] === b[0] ? (a[1] < b[1] ? -1 : 1) : a[0] < b[0] ? -1 : 1));
            for (const [each, tag] of pairs) await on.store.names.remove(acme, { name: each, tag });
            expect(listed).toEqual(expected.map((pair) => [...pair]));
          },
        ),
        { numRuns: 12 },
      );
      expect(await on.store.names.list(other, { limit: 10 })).toEqual([]);
    });
  });
}
