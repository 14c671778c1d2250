import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

import {
  chunkImage,
  createManifestBuilder,
  type ChunkCodec,
  type HashProvider,
  type ImagePiece,
  type Manifest,
} from '@decant/cas';
import { createZstdCodec } from '@decant/cas/node';
import { DecantError, MIB, type ChunkFrame, type ChunkId, type ChunkSource } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { createImageDisk, serveNbd, type ImageDisk } from '@decant/stream';

import { guestKernel } from '../e2e/support/guest-kernel.ts';
import { ROOT } from '../scripts/workspace.ts';

/** An image with its stored chunks in memory. */
export interface StoredImage {
  readonly manifest: Manifest;
  readonly frames: ReadonlyMap<ChunkId, ChunkFrame>;
}

/** Cuts one of our images and compresses its chunks as `publish` does. */
export async function storeImage(pieces: AsyncIterable<ImagePiece>, hash: HashProvider): Promise<StoredImage> {
  const codec = createZstdCodec();
  const facts = { format: 'erofs', layout: 'hinted', architecture: null, configDigest: new Uint8Array(32) } as const;
  const builder = createManifestBuilder(facts, hash);
  const frames = new Map<ChunkId, ChunkFrame>();
  for await (const stretch of chunkImage(pieces, { layout: 'hinted', hash })) {
    builder.add(stretch);
    if (stretch.type === 'hole' || frames.has(stretch.id)) continue;
    const { encoding, stored } = codec.encode(stretch.bytes);
    frames.set(stretch.id, { id: stretch.id, encoding, plainBytes: stretch.bytes.length, stored: stored.slice() });
  }
  return { manifest: builder.finish(), frames };
}

/** Programs that a guest starts in the image, by name; each prints `hello`, or nothing. */
export const GUEST_COMMANDS = {
  shell: "/bin/sh -c 'echo hello'",
  python: `/usr/bin/python3 -c 'print("hello")'`,
  node: `/usr/bin/node -e 'console.log("hello")'`,
  lsr: '/bin/ls -lR / >/dev/null',
} as const;

export type GuestCommand = keyof typeof GUEST_COMMANDS;

export interface Trace {
  /** Chunks that were fetched one by one, none ahead of need. */
  readonly fetches: number;
  /** Their stored bytes. */
  readonly wireBytes: number;
}

const GUEST_TIMEOUT_MS = 240_000;

/**
 * Boots Debian's kernel in QEMU without hardware help, mounts the image from our NBD server and runs one command in it.
 * Nothing is known of the image before and nothing is fetched ahead; read-ahead in the guest is the kernel's own.
 */
export async function traceGuest(
  image: StoredImage,
  command: GuestCommand,
  hash: HashProvider,
  observe?: (disk: ImageDisk) => ImageDisk,
): Promise<Trace> {
  const folder = await mkdtemp(join(tmpdir(), 'decant-bench-guest-'));
  try {
    const codec: ChunkCodec = createZstdCodec();
    const disk = createImageDisk({
      ...{ manifest: image.manifest, source: sourceOf(image), hash, codec },
      // All of it: a chunk must not be counted twice.
      memoryBytes: 4096 * MIB,
    });
    await using _disk = disk;
    const socketPath = join(folder, 'nbd.sock');
    const exported = observe === undefined ? disk : observe(disk);
    await using server = await serveNbd({ listen: { socketPath }, exports: new Map([['', exported]]) });
    const { kernel, modules } = await guestKernel(join(ROOT, '.cache'));
    const initrd = await initialRamDisk(folder, modules);
    const { stdout } = await run(
      'qemu-system-x86_64',
      [
        ...['-accel', 'tcg', '-cpu', 'max', '-m', '512', '-nodefaults', '-no-user-config', '-display', 'none'],
        ...['-serial', 'stdio', '-no-reboot', '-kernel', kernel, '-initrd', initrd],
        ...['-append', `console=ttyS0 panic=-1 quiet decant.command=${command}`],
        ...['-drive', `file=${server.uri},format=raw,if=virtio,readonly=on`],
      ],
      { timeoutMs: GUEST_TIMEOUT_MS },
    );
    const console = stdout.toString('utf8');
    if (!console.includes('status 0')) throw new Error(`the guest failed to run ${command}:\n${console}`);
    const { chunksFetched, bytesFetched } = disk.stats();
    return { fetches: chunksFetched, wireBytes: bytesFetched };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function sourceOf({ frames }: StoredImage): ChunkSource {
  return {
    has: (ids) => Promise.resolve(new Set(ids.filter((id) => frames.has(id)))),
    async *get(ids) {
      for (const id of ids) {
        const frame = frames.get(id);
        if (frame === undefined) throw new DecantError('CAS_CHUNK_MISSING', `There is no chunk ${id}.`);
        yield frame;
      }
    },
  };
}

/** An initial RAM disk that mounts the disk and runs the command that the kernel was started with in it. */
async function initialRamDisk(folder: string, modules: readonly string[]): Promise<string> {
  const tree = join(folder, 'initrd');
  for (const name of ['bin', 'dev', 'proc', 'root', 'modules']) await mkdir(join(tree, name), { recursive: true });
  const busybox = await findProgram('busybox');
  if (busybox === undefined) throw new Error('busybox is not installed');
  await copyFile(busybox, join(tree, 'bin/busybox'));
  for (const module of modules) await copyFile(module, join(tree, 'modules', basename(module)));
  const init = [
    '#!/bin/busybox sh',
    'busybox mount -t devtmpfs dev /dev',
    'busybox mount -t proc proc /proc',
    ...modules.map((module) => `busybox insmod /modules/${basename(module)}`),
    'for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; busybox sleep 1; done',
    'busybox mount -t erofs -o ro /dev/vda /root || busybox poweroff -f',
    'case "$(busybox cat /proc/cmdline)" in',
    ...Object.entries(GUEST_COMMANDS).map(
      ([name, line]) => `*decant.command=${name}*) busybox chroot /root ${line} ;;`,
    ),
    'esac',
    'echo "status $?"',
    'busybox poweroff -f',
  ];
  await writeFile(join(tree, 'init'), `${init.join('\n')}\n`);
  await chmod(join(tree, 'init'), 0o755);
  const file = join(folder, 'initrd.cpio');
  await run('sh', ['-c', 'find . | cpio --quiet --create --format=newc > "$1"', 'sh', file], {
    cwd: tree,
    timeoutMs: 60_000,
  });
  return file;
}
