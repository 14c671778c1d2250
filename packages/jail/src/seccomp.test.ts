import { describe, expect, test } from 'vitest';

import { seccompFilter } from './seccomp.ts';

const ALLOW = 0x7fff0000;
const EPERM = 0x00050001;
const ENOSYS = 0x00050026;

/** Runs the program as the kernel would, over the number, architecture and arguments of a call. */
function verdict(filter: Uint8Array, architecture: number, number: number, args: readonly number[] = []): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, architecture, true);
  args.forEach((value, i) => data.setBigUint64(16 + 8 * i, BigInt(value), true));
  const program = new DataView(filter.buffer, filter.byteOffset, filter.length);
  let accumulator = 0;
  for (let at = 0; at < filter.length; at += 8) {
    const k = program.getUint32(at + 4, true);
    const jump = (yes: boolean) => (at += 8 * program.getUint8(at + (yes ? 2 : 3)));
    switch (program.getUint16(at, true)) {
      case 0x20:
        accumulator = data.getUint32(k, true);
        break;
      case 0x15:
        jump(accumulator === k);
        break;
      case 0x35:
        jump(accumulator >= k);
        break;
      case 0x45:
        jump((accumulator & k) !== 0);
        break;
      case 0x06:
        return k;
      default:
        throw new Error(`unknown instruction at ${at}`);
    }
  }
  throw new Error('the program has no end');
}

describe.each([
  [
    'x64',
    0xc000003e,
    {
      read: 0,
      clone: 56,
      unshare: 272,
      ioctl: 16,
      mount: 165,
      keyctl: 250,
      bpf: 321,
      setns: 308,
      socket: 41,
      openat: 257,
      fchmod: 91,
    },
  ],
  [
    'arm64',
    0xc00000b7,
    {
      read: 63,
      clone: 220,
      unshare: 97,
      ioctl: 29,
      mount: 40,
      keyctl: 219,
      bpf: 280,
      setns: 268,
      socket: 198,
      openat: 56,
      fchmod: 52,
    },
  ],
] as const)('the filter for %s', (name, architecture, calls) => {
  const filter = seccompFilter(name);
  const call = (number: number, ...args: number[]) => verdict(filter, architecture, number, args);

  test('ordinary calls pass, also processes and threads', () => {
    expect(call(calls.read)).toBe(ALLOW);
    expect(call(calls.clone, 17)).toBe(ALLOW);
    expect(call(calls.clone, 0x3d0f00)).toBe(ALLOW);
    expect(call(calls.unshare, 0x400)).toBe(ALLOW);
    expect(call(calls.ioctl, 0, 0x5401)).toBe(ALLOW);
  });

  test('keys, BPF, mounts, io_uring and namespaces do not', () => {
    for (const number of [calls.mount, calls.keyctl, calls.bpf, calls.setns, 425, 428, 442])
      expect(call(number)).toBe(EPERM);
    expect(call(calls.unshare, 0x10000000)).toBe(EPERM);
    expect(call(calls.clone, 0x10000011)).toBe(EPERM);
    expect(call(435)).toBe(ENOSYS);
  });

  test('typing into a terminal does not, whatever the upper half of the request says', () => {
    for (const request of [0x5412, 0x541c, 2 ** 32 + 0x5412]) expect(call(calls.ioctl, 0, request)).toBe(EPERM);
  });

  test('sockets of families that namespaces do not hold do not', () => {
    for (const family of [1, 2, 10, 16]) expect(call(calls.socket, family)).toBe(ALLOW);
    for (const family of [0, 3, 15, 17, 38, 40, 44]) expect(call(calls.socket, family)).toBe(EPERM);
  });

  test('bits that lend rights do not, where they could be set on the host', () => {
    const strict = seccompFilter(name, { setId: false });
    for (const [number, index] of [
      [calls.fchmod, 1],
      [calls.openat, 3],
    ] as const) {
      const args = (mode: number) => [0, 0, 0, 0].with(index, mode);
      expect(call(number, ...args(0o4755))).toBe(ALLOW);
      expect(verdict(strict, architecture, number, args(0o4755))).toBe(EPERM);
      expect(verdict(strict, architecture, number, args(0o2755))).toBe(EPERM);
      expect(verdict(strict, architecture, number, args(0o1777))).toBe(ALLOW);
    }
    expect(verdict(strict, architecture, 437)).toBe(ENOSYS);
    expect(verdict(strict, architecture, calls.socket, [2])).toBe(ALLOW);
  });

  test('calls of another architecture do not', () => {
    expect(verdict(filter, 0x40000003, calls.read)).toBe(EPERM);
    if (name === 'x64') expect(call(0x40000000)).toBe(ENOSYS);
  });
});

test('an architecture without a table is said to be so', () => {
  expect(() => seccompFilter('mips')).toThrow(expect.objectContaining({ code: 'JAIL_UNAVAILABLE' }));
});
