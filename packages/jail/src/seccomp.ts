import { DecantError } from '@decant/core';

/*
 * A classic BPF program (linux/filter.h): instructions of 8 bytes, little-endian here:
 *
 *     u16 code | u8 jump if true | u8 jump if false | u32 k
 *
 * over struct seccomp_data: 0 u32 call number, 4 u32 architecture, 16 + 8i u64 argument i.
 */
const LOAD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_AT_LEAST = 0x35;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const errno = (number: number) => 0x00050000 | number;
const EPERM = 1;
const ENOSYS = 38;

const NUMBER_AT = 0;
const ARCHITECTURE_AT = 4;
const argumentAt = (index: number) => 16 + 8 * index;

/** CLONE_NEWTIME, _NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID and _NEWNET. */
const NEW_NAMESPACES = 0x7e020080;
/** ioctl requests that write into a terminal's input or drive its selection. */
const TERMINAL_INJECTION = [0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */];

interface Calls {
  readonly architecture: number;
  /** Numbers from here on belong to a second ABI (x32) and are refused. */
  readonly foreignFrom?: number;
  readonly clone: number;
  readonly unshare: number;
  readonly ioctl: number;
  readonly socket: number;
  /** Calls whose argument at this index is the mode of a file. */
  readonly modes: Readonly<Record<number, number>>;
  readonly denied: readonly number[];
}

/** Same number on both architectures. */
const DENIED_EVERYWHERE = [
  425, 426, 427 /* io_uring */, 428, 429, 430, 431, 432, 433, 442, 467 /* mounts by descriptor */,
];

// Keys, BPF, perf, userfaultfd, mounts, namespaces of others, modules, kexec, swap, quota, reboot, clocks,
// kernel log, other processes' memory by handle, files by handle, NUMA page moves.
const CALLS: Readonly<Record<string, Calls>> = {
  x64: {
    architecture: 0xc000003e,
    foreignFrom: 0x40000000,
    clone: 56,
    unshare: 272,
    ioctl: 16,
    socket: 41,
    // open, creat, chmod, fchmod, mknod, openat, mknodat, fchmodat, fchmodat2
    modes: { 2: 2, 85: 1, 90: 1, 91: 1, 133: 1, 257: 3, 259: 2, 268: 2, 452: 2 },
    denied: [
      248, 249, 250, 321, 298, 323, 165, 166, 155, 308, 175, 313, 176, 246, 320, 167, 168, 179, 169, 164, 227, 103, 304,
      256, 279, 163, 172, 173, 153, 212, 180, 312,
    ],
  },
  arm64: {
    architecture: 0xc00000b7,
    clone: 220,
    unshare: 97,
    ioctl: 29,
    socket: 198,
    // mknodat, fchmod, fchmodat, openat, fchmodat2
    modes: { 33: 2, 52: 1, 53: 2, 56: 3, 452: 2 },
    denied: [
      217, 218, 219, 280, 241, 282, 40, 39, 41, 268, 105, 273, 106, 104, 294, 224, 225, 60, 142, 170, 112, 116, 265,
      238, 239, 89, 58, 18, 42, 272,
    ],
  },
};
/** What builders of images need in namespaces of their own: mount, umount2, pivot_root and setns. */
const NESTING: Readonly<Record<string, readonly number[]>> = { x64: [165, 166, 155, 308], arm64: [40, 39, 41, 268] };
const MOUNTS_BY_DESCRIPTOR = [428, 429, 430, 431, 432, 433, 442, 467];
/** Unix, IPv4, IPv6 and netlink: others reach around the network namespace or are seldom used parts of the kernel. */
const SOCKET_FAMILIES = [1, 2, 10, 16];
const SET_ID_BITS = 0o6000;
/** openat2 hides the mode in memory. */
const OPENAT2 = 437;
/** clone3 hides its flags in memory, where a filter cannot look: ENOSYS makes the C library use clone. */
const CLONE3 = 435;

/**
 * The filter for a guest on this architecture: everything is allowed except what a program in a container
 * without a network has no use for. Refused calls give EPERM; clone3 gives ENOSYS.
 * With `nesting`, mounts and new namespaces are allowed as well, for programs that build or run containers inside.
 * With `setId` false no file can get a setuid or setgid bit: where the guest writes to a folder of the host, such a file
 * would have its rights there.
 * @throws JAIL_UNAVAILABLE on an architecture without a table.
 */
export function seccompFilter(
  architecture: string = process.arch,
  {
    nesting = false,
    setId = true,
  }: { readonly nesting?: boolean | undefined; readonly setId?: boolean | undefined } = {},
): Uint8Array<ArrayBuffer> {
  const calls = CALLS[architecture];
  if (calls === undefined) {
    throw new DecantError('JAIL_UNAVAILABLE', `There is no system call filter for ${architecture} processors yet.`);
  }
  const program: (readonly [code: number, yes: number, no: number, k: number])[] = [
    [LOAD, 0, 0, ARCHITECTURE_AT],
    [JUMP_EQUAL, 1, 0, calls.architecture],
    [RETURN, 0, 0, errno(EPERM)],
    [LOAD, 0, 0, NUMBER_AT],
  ];
  if (calls.foreignFrom !== undefined) {
    program.push([JUMP_AT_LEAST, 0, 1, calls.foreignFrom], [RETURN, 0, 0, errno(ENOSYS)]);
  }
  program.push([JUMP_EQUAL, 0, 1, CLONE3], [RETURN, 0, 0, errno(ENOSYS)]);
  const nested = new Set(nesting ? [...MOUNTS_BY_DESCRIPTOR, ...(NESTING[architecture] ?? [])] : []);
  for (const number of [...DENIED_EVERYWHERE, ...calls.denied]) {
    if (nested.has(number)) continue;
    program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, errno(EPERM)]);
  }
  for (const number of nesting ? [] : [calls.clone, calls.unshare]) {
    program.push(
      [JUMP_EQUAL, 0, 4, number],
      [LOAD, 0, 0, argumentAt(0)],
      [JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES],
      [RETURN, 0, 0, errno(EPERM)],
      [RETURN, 0, 0, ALLOW],
    );
  }
  if (!nesting) {
    program.push([JUMP_EQUAL, 0, SOCKET_FAMILIES.length + 3, calls.socket], [LOAD, 0, 0, argumentAt(0)]);
    SOCKET_FAMILIES.forEach((family, i) => program.push([JUMP_EQUAL, SOCKET_FAMILIES.length - i, 0, family]));
    program.push([RETURN, 0, 0, errno(EPERM)], [RETURN, 0, 0, ALLOW]);
  }
  if (!setId) {
    program.push([JUMP_EQUAL, 0, 1, OPENAT2], [RETURN, 0, 0, errno(ENOSYS)]);
    for (const [number, index] of Object.entries(calls.modes)) {
      program.push(
        [JUMP_EQUAL, 0, 4, Number(number)],
        [LOAD, 0, 0, argumentAt(index)],
        [JUMP_ANY_BIT, 0, 1, SET_ID_BITS],
        [RETURN, 0, 0, errno(EPERM)],
        [RETURN, 0, 0, ALLOW],
      );
    }
  }
  // The kernel reads the lower half of an ioctl request, so that half is what is compared.
  program.push([JUMP_EQUAL, 0, 1 + 2 * TERMINAL_INJECTION.length, calls.ioctl], [LOAD, 0, 0, argumentAt(1)]);
  for (const request of TERMINAL_INJECTION) {
    program.push([JUMP_EQUAL, 0, 1, request], [RETURN, 0, 0, errno(EPERM)]);
  }
  program.push([RETURN, 0, 0, ALLOW]);
  return assemble(program);
}

function assemble(program: readonly (readonly [number, number, number, number])[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(program.length * 8);
  const view = new DataView(bytes.buffer);
  program.forEach(([code, yes, no, k], index) => {
    view.setUint16(index * 8, code, true);
    view.setUint8(index * 8 + 2, yes);
    view.setUint8(index * 8 + 3, no);
    view.setUint32(index * 8 + 4, k >>> 0, true);
  });
  return bytes;
}
