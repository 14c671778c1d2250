import { randomInt } from 'node:crypto';
import type { Readable } from 'node:stream';

import { DecantError, isDecantError, MIB, Scope } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';

import { openControlGroup, type ControlGroup } from '../cgroup.ts';
import { requireRunner } from '../probe.ts';
import { seccompFilter } from '../seccomp.ts';
import { resolveUser } from '../user.ts';
import { exportChanges } from './changes.ts';
import { copyIn, copyOut } from './copy.ts';
import { withFiles } from './files.ts';
import { converse, hex, sandboxGone, unhex, type Conversation } from './conversation.ts';
import { answer, startCommand } from './exec.ts';
import { Joiners } from './joiners.ts';
import { checkMounts } from './mounts.ts';
import { SETUP_PROGRAM, SETUP_STREAMS } from './setup-program.ts';
import type { SandboxEntrance } from './entrance.ts';
import type { Sandbox, SandboxDisk, SandboxOptions } from './types.ts';
import { volumeTemplate } from './volume-template.ts';

/** Host ids of a sandbox begin at a random multiple of 65,536 in this range, far above those of people and services. */
const FIRST_HOST_ID = 0x3000_0000;
const HOST_ID_SLOTS = 4096;
const IDS = 65_536;
const MOST_PROCESSES = 4096;
const SMALLEST_WRITE_LAYER = { memory: 65_536, disk: 16 * MIB };
const SETUP_TIMEOUT_MS = 60_000;
const KILL_AFTER_MS = 2000;

/**
 * Builds a sandbox: the image lazily mounted read-only, a write layer over it, process, mount, IPC, UTS, cgroup and user
 * namespaces of its own. No id in it, root included, is an id that the host uses.
 * @throws JAIL_UNAVAILABLE when this machine or user cannot do it, JAIL_FAILED when it cannot be set up, USAGE.
 */
export async function openSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { signal, writeLayer, limits, container } = options;
  signal?.throwIfAborted();
  checkSandbox(options);
  const [mounts] = await Promise.all([
    checkMounts(options.mounts ?? [], options.hiddenFolders ?? []),
    requireRunner(options.filesystem, 'nbdSocket' in options.disk),
  ]);
  const shared = mounts.flatMap((mount) => (mount.type === 'read-write' ? [mount.source] : []));
  const filter = seccompFilter(process.arch, { setId: shared.length === 0 });
  await using scope = new Scope();
  const folder = scope.use(await openScratchDirectory(options.stateDirectory));
  const own = container === undefined ? await groupOf(limits) : undefined;
  if (own !== undefined) scope.use(own);
  const group = container?.group ?? own;
  const base = FIRST_HOST_ID + randomInt(HOST_ID_SLOTS) * IDS;
  const groupFiles = group?.joinFiles ?? [];
  const facts: [string, string | number][] = [
    ['dir', folder.path],
    ['base', base],
    ['count', IDS],
    ['fs', options.filesystem],
    ['hostname', options.hostname ?? 'decant'],
    ['seccomp', Buffer.from(filter).toString('hex')],
    diskFact(options.disk),
    [writeLayer.kind === 'disk' ? 'volume' : 'memory', writeLayer.bytes],
    ...groupFiles.map((file): [string, string] => ['group', file]),
    ...mounts.map((mount): [string, string] => [
      'mount',
      [mount.type, mount.type === 'tmpfs' ? mount.sizeBytes : mount.source, mount.target].join('\0'),
    ]),
  ];
  const template = writeLayer.kind === 'disk' ? await volumeTemplate(writeLayer.bytes, folder.path) : undefined;
  if (template !== undefined) facts.push([template.use, template.path]);
  if (options.networkNamespace !== undefined) facts.push(['net', options.networkNamespace]);
  if (mounts.length > 0) facts.push(['ask', 1]);
  if (container !== undefined) facts.push(['container', `${container.pid} ${container.start}`]);

  const start = options.reserve?.start ?? converse;
  const talk = start(SETUP_PROGRAM, SETUP_STREAMS);
  scope.defer(() => stop(talk));
  const joiners = scope.use(new Joiners(start));
  const { holder, userNamespace } = await setUp(talk, facts, options).finally(() => template?.done());
  const entrance: SandboxEntrance = {
    ...{ holder, userNamespace, base, ids: IDS, groupFiles, filter, start },
    processes: limits?.processes ?? MOST_PROCESSES,
  };
  joiners.open(entrance);
  return sandboxOf(talk, { entrance, group, joiners, shared, scope: scope.move() }, options);
}

async function groupOf(limits: SandboxOptions['limits']): Promise<ControlGroup | undefined> {
  if (limits === undefined) return undefined;
  try {
    return await openControlGroup(limits);
  } catch (error) {
    if (limits.bestEffort === true && isDecantError(error, 'JAIL_UNAVAILABLE')) return undefined;
    throw error;
  }
}

function checkSandbox({ writeLayer, hostname = 'decant' }: SandboxOptions): void {
  const least = SMALLEST_WRITE_LAYER[writeLayer.kind];
  if (!Number.isSafeInteger(writeLayer.bytes) || writeLayer.bytes < least) {
    throw new DecantError('USAGE', `The write layer needs at least ${least} bytes.`);
  }
  if (!/^[^\0\n]{1,64}$/.test(hostname)) throw new DecantError('USAGE', 'A host name has 1 to 64 characters.');
}

function diskFact(disk: SandboxDisk): [string, string] {
  if ('file' in disk) return ['file', disk.file];
  const { nbdSocket, exportName = '' } = disk;
  return ['nbd', `nbd+unix:///${encodeURIComponent(exportName)}?socket=${encodeURIComponent(nbdSocket)}`];
}

async function setUp(
  talk: Conversation,
  facts: readonly (readonly [string, string | number])[],
  { user, signal }: SandboxOptions,
): Promise<{ holder: number; userNamespace: string }> {
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    talk.end();
  }, SETUP_TIMEOUT_MS);
  const onAbort = () => talk.end();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    talk.send('setup', ...facts.map(([key, value]) => `${key}=${hex(String(value))}`));
    const [holder = ''] = await answer(talk, 'process');
    for (;;) {
      const [verb, ...words] = await answer(talk, 'files', 'ready');
      if (verb === 'ready') return { holder: Number(holder), userNamespace: words.join(' ') };
      const { uid, gid } = resolveUser(user, unhex(words[0]), unhex(words[1]));
      talk.send('user', uid, gid);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (timedOut) throw new DecantError('TIMEOUT', `The sandbox was not ready within ${SETUP_TIMEOUT_MS} ms.`);
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

async function stop(talk: Conversation): Promise<void> {
  talk.end();
  const timer = setTimeout(() => talk.child.kill('SIGKILL'), KILL_AFTER_MS);
  await talk.exited.catch(() => undefined);
  clearTimeout(timer);
}

interface Owned {
  readonly entrance: SandboxEntrance;
  readonly group: Pick<ControlGroup, 'freezer'> | undefined;
  readonly joiners: Joiners;
  readonly shared: readonly string[];
  readonly scope: Scope;
}

function sandboxOf(
  talk: Conversation,
  { entrance, group, joiners, shared, scope }: Owned,
  { user, signal: endSignal }: SandboxOptions,
): Sandbox {
  const exports = new Set<Readable>();
  // What stands still for an export does not end either.
  const endExports = () => {
    for (const layer of exports) layer.destroy(sandboxGone('it was stopped'));
  };
  let closing: Promise<void> | undefined;
  const close = () => {
    endExports();
    return (closing ??= scope[Symbol.asyncDispose]());
  };
  const onAbort = () => void close().catch(() => undefined);
  endSignal?.addEventListener('abort', onAbort, { once: true });
  const ended = (async () => {
    const words = await talk.hear();
    endExports();
    await talk.exited.catch(() => undefined);
    endSignal?.removeEventListener('abort', onAbort);
    return { reason: words?.[0] === 'ended' ? unhex(words[1]) : 'it was stopped' };
  })();
  if (endSignal?.aborted === true) onAbort();
  return {
    exec: (options) => startCommand(entrance, options, joiners),
    copyIn: (source, target, limits, signal) => copyIn(entrance, source, target, { user, shared, limits, signal }),
    copyOut: (source, target, limits, signal) => copyOut(entrance, source, target, { user, shared, limits, signal }),
    withFiles: (use, signal) => withFiles(entrance, use, signal),
    exportChanges(signal) {
      const layer = exportChanges(entrance, group, signal);
      exports.add(layer);
      layer.once('close', () => exports.delete(layer));
      return layer;
    },
    networkNamespace: `/proc/${entrance.holder}/ns/net`,
    ended,
    [Symbol.asyncDispose]: close,
  };
}
