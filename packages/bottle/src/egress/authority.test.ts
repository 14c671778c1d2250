import { X509Certificate } from 'node:crypto';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { Authority } from './authority.ts';
import { integer, objectId, time } from './der.ts';

const DAY_MS = 24 * 60 * 60_000;

describe('Authority', () => {
  test('its leaves are signed by it, for one host each, and by no other', () => {
    const authority = new Authority();
    const root = new X509Certificate(authority.certificatePem);
    expect(root.ca).toBe(true);
    expect(root.verify(root.publicKey)).toBe(true);
    for (const [host, name] of [
      ['api.example.com', 'DNS:api.example.com'],
      ['203.0.113.5', 'IP Address:203.0.113.5'],
      ['2001:db8::1', 'IP Address:2001:DB8:0:0:0:0:0:1'],
      [`${'a'.repeat(60)}.${'b'.repeat(60)}.example`, `DNS:${'a'.repeat(60)}.${'b'.repeat(60)}.example`],
    ] as const) {
      const leaf = new X509Certificate(authority.leafPem(host));
      expect(leaf.ca).toBe(false);
      expect(leaf.subjectAltName).toBe(name);
      expect(leaf.checkIssued(root)).toBe(true);
      expect(leaf.verify(root.publicKey)).toBe(true);
      expect(leaf.verify(new X509Certificate(new Authority().certificatePem).publicKey)).toBe(false);
    }
  });

  test('what its certificates are good for is in them: signing no further authority, serving, and for a month', () => {
    const authority = new Authority();
    const root = new X509Certificate(authority.certificatePem);
    const leaf = new X509Certificate(authority.leafPem('a.example'));
    const has = ({ raw }: X509Certificate, der: string) => raw.toString('hex').includes(der);
    // RFC 5280: basic constraints (CA, with no authority below it; none) and key usage, both critical.
    expect(has(root, '0603551d130101ff040830060101ff020100')).toBe(true);
    expect(has(root, '0603551d0f0101ff040403020106')).toBe(true);
    expect(has(leaf, '0603551d130101ff04023000')).toBe(true);
    expect(has(leaf, '0603551d0f0101ff040403020780')).toBe(true);
    expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
    expect(leaf.validToDate.getTime() - leaf.validFromDate.getTime()).toBe(31 * DAY_MS);
  });

  test('leaves are kept, within a bound, and made anew before they end', () => {
    let now = Date.now();
    const authority = new Authority({ leaves: 2, now: () => now });
    const first = authority.contextFor('a.example');
    expect(authority.contextFor('a.example')).toBe(first);
    const second = authority.contextFor('b.example');
    authority.contextFor('a.example');
    authority.contextFor('c.example');
    // b was used longest ago.
    expect(authority.contextFor('a.example')).toBe(first);
    expect(authority.contextFor('b.example')).not.toBe(second);
    expect(authority.contextFor('a.example')).toBe(first);
    now += 29.5 * DAY_MS;
    expect(authority.contextFor('a.example')).not.toBe(first);
  });
});

describe('DER', () => {
  test('numbers, identifiers and times have their one form', () => {
    expect(Buffer.from(integer(Uint8Array.of(0))).toString('hex')).toBe('020100');
    expect(Buffer.from(integer(Uint8Array.of(0, 0, 0x7f))).toString('hex')).toBe('02017f');
    expect(Buffer.from(integer(Uint8Array.of(0x80))).toString('hex')).toBe('02020080');
    expect(Buffer.from(objectId('1.2.840.10045.4.3.2')).toString('hex')).toBe('06082a8648ce3d040302');
    expect(Buffer.from(time(new Date('2049-12-31T23:59:59Z'))).toString('latin1')).toContain('491231235959Z');
    expect(Buffer.from(time(new Date('2050-01-01T00:00:00Z'))).toString('latin1')).toContain('20500101000000Z');
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 20 }), (bytes) => {
        const [, length, ...content] = integer(bytes);
        const value = (all: readonly number[]) => all.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
        return length === content.length && content[0]! < 0x80 && value(content) === value([...bytes]);
      }),
    );
  });
});
