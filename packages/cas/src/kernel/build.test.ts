import { describe, expect, it } from 'vitest';

import { ModuleWriter, signed, unsigned } from './assembler.ts';
import { buildKernel } from './build.ts';
import { i32 } from './instructions.ts';
import { KERNEL_BASE64 } from './kernel-bytes.ts';
import { compileKernel, openKernel } from './kernel.ts';

describe('the hashing kernel', () => {
  it('is what its program writes', () => {
    // When this fails after a change of the kernel: pnpm run kernel.
    expect(Buffer.from(buildKernel()).toString('base64')).toBe(KERNEL_BASE64);
  });

  it('has a memory of its own in every instance, as large as asked for', async () => {
    const module = await compileKernel();
    const [one, other] = [await openKernel(module, 4096), await openKernel(module, 1 << 20)];
    expect(one.input.length).toBe(4096);
    expect(other.input.length).toBe(1 << 20);
    expect(one.input.buffer).not.toBe(other.input.buffer);
    // Behind the input there is room for lanes that are computed and thrown away.
    expect(other.input.byteOffset + other.input.length + 4096).toBeLessThanOrEqual(other.input.buffer.byteLength);
  });
});

describe('the assembler', () => {
  it('encodes LEB128 as the specification does', () => {
    expect(unsigned(0)).toEqual([0]);
    expect(unsigned(127)).toEqual([127]);
    expect(unsigned(128)).toEqual([0x80, 1]);
    expect(unsigned(624_485)).toEqual([0xe5, 0x8e, 0x26]);
    expect(unsigned(2 ** 32 - 1)).toEqual([0xff, 0xff, 0xff, 0xff, 0x0f]);
    expect(signed(-123_456)).toEqual([0xc0, 0xbb, 0x78]);
    expect(signed(63)).toEqual([63]);
    expect(signed(64)).toEqual([0xc0, 0]);
    expect(signed(-64)).toEqual([0x40]);
    expect(signed(-65)).toEqual([0xbf, 0x7f]);
    expect(signed(0x9e3779b1)).toEqual(signed(0x9e3779b1 - 2 ** 32));
  });

  it('refuses a call with other parameters than the function has', () => {
    const module = new ModuleWriter(1);
    const next = module.define('next', { parameters: 1, result: 'i32', exported: true }, (f, a) =>
      f.return(i32.add(a, i32.const(1))),
    );
    expect(() => next()).toThrow(TypeError);
    expect(() => next(i32.const(1), i32.const(2))).toThrow(TypeError);
    expect(next(i32.const(1)).type).toBe('i32');
  });
});
