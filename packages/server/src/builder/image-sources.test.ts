import { DecantError, parseNamespace } from '@decant/core';
import type { OciImage } from '@decant/oci';
import { beforeEach, describe, expect, it } from 'vitest';

import { createImageSources } from './image-sources.ts';
import { placeOf, type LocalRegistry, type RepositoryPlace } from './local-registry.ts';

const acme = parseNamespace('acme');
const hosts = ['decant.example', '127.0.0.1:8080'];
const digest = `sha256:${'1'.repeat(64)}`;
const here = {} as OciImage;

let asked: string[];
beforeEach(() => {
  asked = [];
});

/** Sources of a server whose registry has the images of these names, where every call elsewhere is written down. */
function sourcesWith(names: readonly string[], baseRegistries: readonly string[] = ['docker.io', 'quay.io']) {
  const registry: LocalRegistry = {
    push: () => Promise.reject(new Error('nothing is pushed')),
    async open(namespace, { name }) {
      asked.push(`own ${namespace}/${name}`);
      if (!names.includes(name)) throw new DecantError('NOT_FOUND', 'no');
      return here;
    },
  };
  const fetch = async (input: string | URL | Request) => {
    asked.push(new URL(input instanceof Request ? input.url : String(input)).host);
    return new Response('{}', { status: 404 });
  };
  const sources = createImageSources({ registry, fetch, baseRegistries });
  return (reference: string, ownFirst = true) => sources.open(reference, acme, { hosts, ownFirst });
}

describe('images that callers name', () => {
  it('are those of their own namespace, by every address of the server', async () => {
    const open = sourcesWith(['team/app']);
    for (const host of hosts) {
      const { image, place } = await open(`${host}/acme/team/app:v1@${digest}`, false);
      expect(image).toBe(here);
      expect(place).toEqual({ name: 'team/app', tag: 'v1', digest } satisfies RepositoryPlace);
    }
    expect(asked).toEqual(['own acme/team/app', 'own acme/team/app']);
  });

  it('are not those of another namespace, which are not even looked for', async () => {
    const open = sourcesWith(['app', 'x/app']);
    for (const name of ['other/app', 'acmex/app', 'acme', 'app', 'other/acme/app']) {
      await expect(open(`decant.example/${name}`), name).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    expect(asked).toEqual([]);
    await expect(open('decant.example/acme/none')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(asked).toEqual(['own acme/none']);
  });

  it('come from registries that are allowed, and no other one is asked', async () => {
    const open = sourcesWith([]);
    for (const name of ['localhost:5000/x', '169.254.169.254/x/y', 'decant.example:81/acme/app', 'ghcr.io/x/y']) {
      await expect(open(name), name).rejects.toMatchObject({
        code: 'FORBIDDEN',
        hint: expect.stringContaining('decant.example/acme/') as string,
      });
    }
    expect(asked).toEqual([]);
    await expect(open('quay.io/x/y')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(new Set(asked)).toEqual(new Set(['quay.io']));
  });

  it('without a registry are looked for among the own ones first, where that is wanted', async () => {
    const open = sourcesWith(['app']);
    expect((await open('app')).image).toBe(here);
    expect(asked).toEqual(['own acme/app']);
    asked = [];
    await expect(open('app', false)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(open('docker.io/library/app')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(asked.filter((each) => each.startsWith('own '))).toEqual([]);
    expect(asked.length).toBeGreaterThan(0);
  });

  it('are told from what another failure is', async () => {
    const broken: LocalRegistry = {
      push: () => Promise.reject(new Error('nothing is pushed')),
      open: () => Promise.reject(new DecantError('DISK_FULL', 'full')),
    };
    const fetch = () => Promise.reject(new Error('nobody is asked'));
    const sources = createImageSources({ registry: broken, fetch, baseRegistries: ['docker.io'] });
    await expect(sources.open('app', acme, { hosts, ownFirst: true })).rejects.toMatchObject({ code: 'DISK_FULL' });
    const missing = { ...broken, open: () => Promise.reject(new DecantError('OCI_PLATFORM_MISSING', 'amd64 only')) };
    const other = createImageSources({ registry: missing, fetch, baseRegistries: [] });
    const opening = other.open('decant.example/acme/app', acme, { hosts, architecture: 'arm64' });
    await expect(opening).rejects.toMatchObject({
      code: 'BUILD_PLATFORM_UNSUPPORTED',
      details: { path: ['architecture'] },
    });
  });
});

describe('placeOf', () => {
  it('is a repository of the namespace at a host of the server', () => {
    expect(placeOf('decant.example/acme/a/b', acme, hosts)).toMatchObject({ name: 'a/b', digest: undefined });
    for (const text of ['acme/a', 'docker.io/acme/a', 'decant.example/acmes/a', 'decant.example/b/acme/a']) {
      expect(placeOf(text, acme, hosts), text).toBeUndefined();
    }
  });
});
