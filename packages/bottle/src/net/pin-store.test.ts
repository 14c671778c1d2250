import { describe, expect, it } from 'vitest';

import { PinStore } from './pin-store.ts';

const MOST_NAMES = 4096;
const address = (i: number) => `203.0.${i >> 8}.${i & 255}`;

describe('pins', () => {
  it('of a name that is forgotten are forgotten with all addresses it ever had', () => {
    const pins = new PinStore(() => 0);
    pins.set('a.test', ['192.0.2.1'], 1000);
    pins.set('a.test', ['192.0.2.2'], 1000);
    expect(pins.namesOf('192.0.2.1')).toEqual(['a.test']);
    for (let i = 0; i < MOST_NAMES; i++) pins.set(`x${i}.test`, ['192.0.2.2'], 1000);
    expect(pins.addressesOf('a.test')).toBeUndefined();
    expect(pins.namesOf('192.0.2.1')).toEqual([]);
    expect(pins.namesOf('192.0.2.2')).toHaveLength(MOST_NAMES);
    expect(pins.namesOf('192.0.2.2')).not.toContain('a.test');
  });

  it('of the name that was pinned longest ago go first', () => {
    const pins = new PinStore(() => 0);
    for (let i = 0; i < MOST_NAMES; i++) pins.set(`x${i}.test`, ['192.0.2.1'], 1000);
    pins.set('x0.test', ['192.0.2.1'], 1000);
    pins.set('new.test', ['192.0.2.1'], 1000);
    expect(pins.addressesOf('x0.test')).toEqual(['192.0.2.1']);
    expect(pins.addressesOf('x1.test')).toBeUndefined();
    expect(pins.addressesOf('x2.test')).toEqual(['192.0.2.1']);
  });

  it('keep 256 addresses of the past', () => {
    const pins = new PinStore(() => 0);
    for (let i = 0; i < 300; i++) pins.set('a.test', [address(i)], 1000);
    const kept = Array.from({ length: 300 }, (_, i) => pins.namesOf(address(i)).length);
    expect(kept.slice(0, 44)).toEqual(Array.from({ length: 44 }, () => 0));
    expect(kept.slice(44)).toEqual(Array.from({ length: 256 }, () => 1));
  });
});
