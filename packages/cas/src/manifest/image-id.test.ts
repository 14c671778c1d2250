import type { ImageConfig } from '@decant/core';
import { blake3 } from '@noble/hashes/blake3.js';
import { describe, expect, it } from 'vitest';

import { loadHashProvider } from '../hash/load-hash-provider.ts';
import { canonicalConfig, configDigest, imageId } from './image-id.ts';

const hash = await loadHashProvider();
const textOf = (config: ImageConfig) => new TextDecoder().decode(canonicalConfig(config));

describe('configDigest', () => {
  it('is the digest of sorted JSON without empty members', () => {
    const config: ImageConfig = {
      os: 'linux',
      architecture: 'amd64',
      variant: '',
      config: { User: '', WorkingDir: '/', Env: [], Cmd: ['sh', ''], ExposedPorts: { '80/tcp': {} }, Labels: {} },
    };
    expect(textOf(config)).toBe(
      '{"architecture":"amd64","config":{"Cmd":["sh",""],"ExposedPorts":{"80/tcp":{}},"WorkingDir":"/"},"os":"linux"}',
    );
    expect(configDigest(config, hash)).toEqual(blake3(canonicalConfig(config)));
  });

  it('tells no configuration from an empty one', () => {
    expect(configDigest(undefined, hash)).toEqual(new Uint8Array(32));
    expect(configDigest(null, hash)).toEqual(new Uint8Array(32));
    expect(configDigest({}, hash)).toEqual(blake3(new TextEncoder().encode('{}')));
    expect(textOf({ config: { Cmd: [] } })).toBe('{}');
  });

  it('does not depend on the order of members or on members it does not know', () => {
    const a = { os: 'linux', config: { User: 'a', Cmd: ['x'] } };
    const b = { created: '2026', config: { Cmd: ['x'], User: 'a', History: 1 }, os: 'linux' } as ImageConfig;
    expect(configDigest(a, hash)).toEqual(configDigest(b, hash));
    expect(configDigest({ ...a, os: 'other' }, hash)).not.toEqual(configDigest(a, hash));
  });
});

describe('imageId', () => {
  it('is the derive-key digest of the header', () => {
    const header = Uint8Array.from({ length: 256 }, (_, i) => i);
    const context = new TextEncoder().encode('decant 2026-11 image manifest v1');
    expect(imageId(header, hash)).toBe(`cas-v1:${Buffer.from(blake3(header, { context })).toString('hex')}`);
  });

  it('takes only a whole header', () => {
    expect(() => imageId(new Uint8Array(255), hash)).toThrow(RangeError);
  });
});
