import { execFileSync } from 'node:child_process';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { canonicalHost } from './host.ts';

/** What the C library takes each of these for without asking anybody: what a program that was given the text would dial. */
const READ = `
import json, socket, sys
def read(text):
    try:
        return socket.getaddrinfo(text, 1, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4][0]
    except (OSError, UnicodeError, ValueError):
        return None
print(json.dumps([read(text) for text in json.load(sys.stdin)]))
`;

function libcReads(texts: readonly string[]): (string | null)[] {
  return JSON.parse(execFileSync('python3', ['-c', READ], { input: JSON.stringify(texts), encoding: 'utf8' })) as (
    | string
    | null
  )[];
}

describe('[backend:python3] hosts as the C library reads them', () => {
  const number = fc.oneof(
    fc.nat(300).map(String),
    fc.nat(2 ** 32 - 1).map(String),
    fc.nat(2 ** 32 - 1).map((value) => `0x${value.toString(16)}`),
    fc.nat(511).map((value) => `0${value.toString(8)}`),
    fc.constantFrom('0', '00', '0x', '0X7F', '127', '1', '', ' 1', '1 '),
  );
  const numbers = fc.array(number, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('.'));
  const hosts = fc.oneof(
    numbers,
    fc.ipV4Extended(),
    fc.ipV6(),
    fc.ipV4().map((text) => `::ffff:${text}`),
    fc.ipV6().map((text) => `${text}%1`),
  );

  it('are refused, or judged as the very address that would be dialled', () => {
    const texts = [
      ...fc.sample(hosts, { numRuns: 4000, seed: 6 }),
      '127.1',
      '2130706433',
      '0x7f000001',
      '0177.0.0.1',
      '0',
      '127.0.0.1.',
      '1.2.3.4 x',
    ];
    const read = libcReads(texts);
    let refused = 0;
    for (const [i, text] of texts.entries()) {
      const address = read[i];
      if (address === null || address === undefined) continue;
      const host = canonicalHost(text);
      if (host.type === 'refused') refused++;
      else expect(host, text).toEqual(canonicalHost(address));
    }
    expect(read.filter((address) => address !== null).length).toBeGreaterThan(1000);
    expect(refused).toBeGreaterThan(200);
    // Every plain address is taken.
    for (const text of ['127.0.0.1', '203.0.113.9', '::1', '2001:db8::1'])
      expect(canonicalHost(text).type).toBe('address');
  });
});
