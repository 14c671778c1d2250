import { parseNamespace } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { acme, useStores, type MetadataStoreFixture } from './contract-kit.ts';

/** What the settings, keys and registry credentials of every store must do. */
export function keyStoreContract(open: () => Promise<MetadataStoreFixture>): void {
  const on = useStores(open);

  describe('settings', () => {
    it('are made once, whoever asks', async () => {
      const values = await Promise.all(
        [on.store, on.second, on.store, on.second].map((each, i) => each.setting('secret', () => `value-${i}`)),
      );
      expect(new Set(values).size).toBe(1);
      expect(await on.second.setting('secret', () => 'late')).toBe(values[0]);
    });
  });

  describe('keys', () => {
    it('are found with their hash, listed and revoked once', async () => {
      const row = await on.store.keys.create('aaaaaaaaaaaa', parseNamespace('brand-new'), 'ff00');
      expect(row).toMatchObject({ id: 'aaaaaaaaaaaa', namespace: 'brand-new', revokedAt: null });
      expect(await on.second.keys.find('aaaaaaaaaaaa')).toEqual({ ...row, secretHash: 'ff00' });
      expect(await on.second.keys.list()).toEqual([row]);
      expect(await on.second.keys.namespaces()).toContain('brand-new');
      const revoked = await on.second.keys.revoke('aaaaaaaaaaaa');
      expect(revoked?.revokedAt).toBeGreaterThanOrEqual(row.createdAt);
      expect(await on.store.keys.revoke('aaaaaaaaaaaa')).toEqual(revoked);
      expect(await on.store.keys.revoke('bbbbbbbbbbbb')).toBeUndefined();
      expect(await on.store.keys.find('bbbbbbbbbbbb')).toBeUndefined();
    });
  });

  describe('registry credentials', () => {
    const credential = { namespace: acme, keyId: null, secretHash: 'ff00', lifeMs: 60_000 };

    it('are found until they end, and go then', async () => {
      const before = Date.now();
      const row = await on.store.keys.createRegistryCredential({ ...credential, id: 'a' });
      expect(row).toMatchObject({ id: 'a', namespace: 'acme', secretHash: 'ff00' });
      expect(row.expiresAt).toBeGreaterThanOrEqual(before + 59_000);
      expect(await on.second.keys.findRegistryCredential('a')).toEqual(row);
      await on.store.keys.createRegistryCredential({ ...credential, id: 'b', lifeMs: 0 });
      expect(await on.second.keys.findRegistryCredential('b')).toBeUndefined();
      // The ended one is forgotten: its id is free again.
      await on.store.keys.createRegistryCredential({ ...credential, id: 'b' });
      expect(await on.second.keys.findRegistryCredential('b')).toMatchObject({ id: 'b' });
      expect(await on.second.keys.findRegistryCredential('c')).toBeUndefined();
    });

    it('end with their key', async () => {
      await on.store.keys.create('aaaaaaaaaaaa', acme, 'ff00');
      await on.store.keys.createRegistryCredential({ ...credential, id: 'a', keyId: 'aaaaaaaaaaaa' });
      expect(await on.second.keys.findRegistryCredential('a')).toMatchObject({ namespace: 'acme' });
      await on.store.keys.revoke('aaaaaaaaaaaa');
      expect(await on.second.keys.findRegistryCredential('a')).toBeUndefined();
    });
  });
}
