import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { creditFrame, dataFrame, FrameReader, messageFrame, type Frame } from './frames.ts';

const frame = fc.oneof(
  fc.jsonValue().map((value): [Buffer, Frame] => {
    const plain: unknown = JSON.parse(JSON.stringify(value));
    return [messageFrame({ v: value }), { kind: 'message', value: { v: plain } }];
  }),
  fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 100 }))
    .map(([stream, bytes]): [Buffer, Frame] => [
      dataFrame(stream, bytes),
      { kind: 'data', stream, bytes: Buffer.from(bytes) },
    ]),
  fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
    .map(([stream, bytes]): [Buffer, Frame] => [creditFrame(stream, bytes), { kind: 'credit', stream, bytes }]),
);

describe('frames', () => {
  it('come out as they went in, however the bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 8 }), fc.array(fc.nat(400), { maxLength: 12 }), (frames, cuts) => {
        const bytes = Buffer.concat(frames.map(([encoded]) => encoded));
        const reader = new FrameReader();
        const read: Frame[] = [];
        let at = 0;
        for (const cut of [...cuts.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
          read.push(...reader.push(bytes.subarray(at, cut)));
          at = cut;
        }
        expect(read).toEqual(frames.map(([, expected]) => expected));
        expect(reader.complete).toBe(true);
      }),
    );
  });

  it('of any bytes are frames or BOTTLE_PROTOCOL, and little is kept', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const reader = new FrameReader();
        try {
          reader.push(Buffer.from(bytes));
        } catch (error) {
          expect(error).toMatchObject({ code: 'BOTTLE_PROTOCOL' });
        }
      }),
    );
  });

  it('a length is judged before anything is kept, and the byte offset is named', () => {
    const reader = new FrameReader();
    const first = messageFrame({});
    expect(() => reader.push(Buffer.concat([first, Buffer.from([0x7f, 0, 0, 0, 1])]))).toThrow(
      expect.objectContaining({ code: 'BOTTLE_PROTOCOL', details: { offset: first.length } }),
    );
    expect(() => new FrameReader().push(Buffer.from([0, 0, 0, 7, 3, 0]))).toThrow(/kind 3 has the length 7/);
    expect(() => new FrameReader().push(Buffer.from([0, 0, 0, 4, 1, 0x7b, 0x7b, 0x7b]))).toThrow(/holds no JSON/);
    expect(() => messageFrame('x'.repeat(1024 * 1024))).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
  });
});
