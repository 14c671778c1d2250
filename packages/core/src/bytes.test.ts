import fc from 'fast-check';
import { expect, it } from 'vitest';

import { compareBytes, concatBytes, equalBytes, fromHex, releaseBytes, toHex } from './bytes.ts';

const bytes = fc.uint8Array({ maxLength: 64 });

it('writes and reads hexadecimal as node:buffer does', () => {
  fc.assert(
    fc.property(bytes, (value) => {
      expect(toHex(value)).toBe(Buffer.from(value).toString('hex'));
      expect(equalBytes(fromHex(toHex(value).toUpperCase()), value)).toBe(true);
    }),
  );
});

it.each(['0', 'zz', '0x00', ' 00', '00\n'])('refuses %j as hexadecimal', (text) => {
  expect(() => fromHex(text)).toThrow(RangeError);
});

it('orders as node:buffer does', () => {
  fc.assert(
    fc.property(bytes, bytes, (a, b) => {
      expect(compareBytes(a, b)).toBe(Buffer.compare(a, b));
      expect(equalBytes(a, b)).toBe(Buffer.compare(a, b) === 0);
    }),
  );
});

it('joins', () => {
  fc.assert(
    fc.property(fc.array(bytes, { maxLength: 5 }), (parts) => {
      expect(Buffer.compare(concatBytes(parts), Buffer.concat(parts))).toBe(0);
    }),
  );
});

it('gives back the memory of whole buffers, and leaves views, shared and released ones alone', () => {
  const whole = new Uint8Array(1000);
  releaseBytes(whole);
  releaseBytes(whole);
  expect([whole.length, whole.buffer.detached]).toEqual([0, true]);
  const large = new Uint8Array(1000).fill(7);
  releaseBytes(large.subarray(1));
  const shared = new Uint8Array(new SharedArrayBuffer(10));
  releaseBytes(shared);
  expect([large.at(-1), shared.length]).toEqual([7, 10]);
});
