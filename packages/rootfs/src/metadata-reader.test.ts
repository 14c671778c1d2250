import { KIB } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { MetadataReader } from './metadata-reader.ts';

const WINDOW_BYTES = 64 * KIB;

/** A source of zeros that counts how often it is read. */
function zeros(sizeBytes: number) {
  const state = { reads: 0 };
  const read = async (_: number, lengthBytes: number) => {
    state.reads++;
    return new Uint8Array(lengthBytes);
  };
  return { state, source: { sizeBytes, read } };
}

describe('MetadataReader', () => {
  it('lets the same bytes be asked for no more often than four times all there may be', async () => {
    const { source } = zeros(4096);
    const reader = new MetadataReader(source, 4096, undefined);
    for (let i = 0; i < 4; i++) expect((await reader.read(0, 4096)).length).toBe(4096);
    await expect(async () => reader.read(0, 1)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
  });

  it('keeps the windows that were read last, 16 MiB of them', async () => {
    const { source, state } = zeros(300 * WINDOW_BYTES);
    const reader = new MetadataReader(source, 300 * WINDOW_BYTES, undefined);
    for (let i = 0; i < 257; i++) await reader.read(i * WINDOW_BYTES, 10);
    expect(state.reads).toBe(257);
    await reader.read(256 * WINDOW_BYTES, 10);
    await reader.read(WINDOW_BYTES, 10);
    expect(state.reads).toBe(257);
    await reader.read(0, 10);
    expect(state.reads).toBe(258);
  });

  it('reads nothing beyond the end, and what lies over two windows as one', async () => {
    const { source } = zeros(2 * WINDOW_BYTES);
    const reader = new MetadataReader(source, 2 * WINDOW_BYTES, undefined);
    expect((await reader.read(WINDOW_BYTES - 5, 10)).length).toBe(10);
    for (const [offset, length] of [
      [2 * WINDOW_BYTES - 5, 6],
      [-1, 1],
      [2 ** 53, 1],
      [0.5, 1],
    ] as const) {
      expect(() => reader.read(offset, length)).toThrow(expect.objectContaining({ code: 'ROOTFS_INVALID' }));
    }
  });
});
