import { createHash } from 'node:crypto';

import { DecantError } from '@decant/core';

/**
 * What a container runs: a program that leaves zombies to the kernel (SIGCHLD is ignored) and waits for ever.
 *
 *     x86-64: rt_sigaction(SIGCHLD, &action, NULL, 8); for (;;) pause();
 *     arm64:  rt_sigaction(SIGCHLD, &action, NULL, 8); for (;;) ppoll(NULL, 0, NULL, NULL);
 *
 * At its end stands the action, whose handler is SIG_IGN. It is written out because a container needs a first process, an
 * image need not have a program that could be it, and nothing of an image is to run outside of what confines it.
 */
const CODE: Readonly<
  Record<string, { readonly machine: number; readonly architecture: string; readonly code: string }>
> = {
  x64: {
    machine: 62,
    architecture: 'amd64',
    code: 'bf11000000 488d3518000000 31d2 41ba08000000 b80d000000 0f05 b822000000 0f05 ebf7',
  },
  arm64: {
    machine: 183,
    architecture: 'arm64',
    code:
      '200280d2 a1010010 020080d2 030180d2 c81080d2 010000d4 ' +
      '000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17 00000000',
  },
};
const SIGNAL_ACTION = '0100000000000000'.padEnd(64, '0');
const LOADED_AT = 0x40_0000n;
const HEADERS = 64 + 56;

/** An image of one program for the daemon to load: the same bytes each time, so that loading it again changes nothing. */
export interface IdleImage {
  readonly reference: string;
  /** As `docker load` takes it. */
  readonly archive: Uint8Array;
}

/** @throws JAIL_UNAVAILABLE on other architectures than x64 and arm64. */
export function idleImage(architecture: string = process.arch): IdleImage {
  const known = CODE[architecture];
  if (known === undefined) {
    throw new DecantError('JAIL_UNAVAILABLE', `The docker backend does not know the architecture ${architecture}.`);
  }
  const layer = tarOf([['idle', idleProgram(architecture), 0o555]]);
  const created = '1970-01-01T00:00:00Z';
  const config = Buffer.from(
    JSON.stringify({
      ...{ architecture: known.architecture, os: 'linux', created },
      config: { Entrypoint: ['/idle'], User: '65534:65534', Labels: { 'dev.decant.image': 'idle' } },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(layer)}`] },
      history: [{ created, created_by: 'decant' }],
    }),
  );
  const id = sha256(config);
  const reference = `decant-idle:${id.slice(0, 16)}`;
  const manifest = [{ Config: `${id}.json`, RepoTags: [reference], Layers: ['layer.tar'] }];
  const archive = tarOf([
    [`${id}.json`, config, 0o444],
    ['layer.tar', layer, 0o444],
    ['manifest.json', Buffer.from(JSON.stringify(manifest)), 0o444],
  ]);
  return { reference, archive };
}

/** A static ELF program in one read-only segment. */
export function idleProgram(architecture: string): Buffer {
  const { machine, code } = CODE[architecture]!;
  const text = Buffer.from((code + SIGNAL_ACTION).replaceAll(' ', ''), 'hex');
  const size = BigInt(HEADERS + text.length);
  const head = Buffer.alloc(HEADERS);
  head.write('7f454c46020101', 'hex');
  head.writeUInt16LE(2, 16);
  head.writeUInt16LE(machine, 18);
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(LOADED_AT + BigInt(HEADERS), 24);
  head.writeBigUInt64LE(64n, 32);
  head.writeUInt16LE(64, 52);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(1, 56);
  head.writeUInt16LE(64, 58);
  head.writeUInt32LE(1, 64);
  head.writeUInt32LE(5, 68);
  head.writeBigUInt64LE(LOADED_AT, 80);
  head.writeBigUInt64LE(LOADED_AT, 88);
  head.writeBigUInt64LE(size, 96);
  head.writeBigUInt64LE(size, 104);
  head.writeBigUInt64LE(0x1_0000n, 112);
  return Buffer.concat([head, text]);
}

type TarFile = readonly [name: string, content: Uint8Array, mode: number];

/** POSIX ustar of files with short names, of root, without times. */
function tarOf(files: readonly TarFile[]): Buffer {
  const blocks = files.flatMap(([name, content, mode]) => {
    const header = Buffer.alloc(512);
    const number = (value: number, at: number, digits: number) =>
      header.write(value.toString(8).padStart(digits, '0'), at, 'latin1');
    header.write(name, 0, 'latin1');
    number(mode, 100, 7);
    number(0, 108, 7);
    number(0, 116, 7);
    number(content.length, 124, 11);
    number(0, 136, 11);
    header.write(`${' '.repeat(8)}0`, 148, 'latin1');
    header.write('ustar\u000000', 257, 'latin1');
    number(
      header.reduce((sum, byte) => sum + byte, 0),
      148,
      6,
    );
    header[154] = 0;
    return [header, content, Buffer.alloc((512 - (content.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
