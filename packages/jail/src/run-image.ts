import type { Readable, Writable } from 'node:stream';

import { checkCommand } from './sandbox/exec.ts';
import { openSandbox } from './sandbox/open-sandbox.ts';
import type { SandboxDisk, SandboxExec } from './sandbox/types.ts';

/** Streams the guest's standard streams are connected to; what is left out is empty or thrown away. */
export interface GuestStreams {
  readonly stdin?: Readable | undefined;
  readonly stdout?: Writable | undefined;
  readonly stderr?: Writable | undefined;
}

export interface RunImageOptions {
  readonly disk: SandboxDisk;
  readonly filesystem: 'erofs' | 'ext4';
  /** Program and arguments; the program is looked for in the PATH of `env` inside the image. At least one. */
  readonly argv: readonly string[];
  /** The guest's environment. HOME and PATH get values when they are not in it. */
  readonly env: Readonly<Record<string, string>>;
  /** `User` of the OCI image config: name or number, with an optional group; undefined or empty is root. */
  readonly user?: string | undefined;
  /** Made when the image does not have it; default `/`. */
  readonly workingDir?: string | undefined;
  /** Default `decant`. */
  readonly hostname?: string | undefined;
  /** Most bytes the guest can write; they live in memory and are thrown away at the end. */
  readonly diskBytes: number;
  readonly stdio: 'inherit' | GuestStreams;
  /** Where the run has its (empty) folder, and what killed runs left of theirs is removed. */
  readonly stateDirectory: string;
  readonly signal?: AbortSignal | undefined;
}

export interface RunImageResult {
  /** The command's exit code; 128 + n after signal n; 127 when there is no such command, 126 when it cannot be executed. */
  readonly exitCode: number;
  /** False when the image has no such command or it cannot be executed, so that nothing ran. */
  readonly ran: boolean;
}

/**
 * Runs one command in a sandbox that ends with it: the image lazily mounted read-only below a throw-away write layer, without
 * network. Everything ends when this process ends, however it ends.
 * @throws JAIL_UNAVAILABLE when this machine or user cannot do it, JAIL_FAILED when the sandbox cannot be set up.
 */
export async function runImage(options: RunImageOptions): Promise<RunImageResult> {
  const { argv, env, user, workingDir, stdio, signal } = options;
  signal?.throwIfAborted();
  const command = { argv, env, user, workingDir, makeWorkingDir: true };
  checkCommand(command);
  const sandbox = await openSandbox({ ...options, writeLayer: { kind: 'memory', bytes: options.diskBytes } });
  let result: RunImageResult;
  let delivered: Promise<unknown> = Promise.resolve();
  const stopDelivery = new AbortController();
  try {
    const running = stdio === 'inherit' ? await sandbox.execInherited(command) : await sandbox.exec(command);
    if (stdio !== 'inherit') delivered = connect(running, stdio, stopDelivery.signal);
    const { exitCode, ran } = await running.exit;
    result = { exitCode, ran };
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    // What the command left behind ends here, and with it the last that can write.
    await sandbox[Symbol.asyncDispose]();
    if (signal?.aborted === true) stopDelivery.abort();
    await delivered;
  }
  // A key that interrupts both may end the command before it is told here.
  signal?.throwIfAborted();
  return result;
}

/** Settles when all that was written has been taken. */
function connect({ stdin, stdout, stderr }: SandboxExec, streams: GuestStreams, signal: AbortSignal): Promise<unknown> {
  if (streams.stdin === undefined) stdin.end();
  else streams.stdin.pipe(stdin);
  stdout.once('close', () => streams.stdin?.unpipe());
  return Promise.all([deliver(stdout, streams.stdout, signal), deliver(stderr, streams.stderr, signal)]);
}

function deliver(from: Readable, to: Writable | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => from.destroy(), { once: true });
    from.once('error', () => resolve());
    from.once('close', () => resolve());
    if (to === undefined) from.resume();
    else from.pipe(to, { end: false });
  });
}
