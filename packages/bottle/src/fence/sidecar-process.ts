import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { readlink } from 'node:fs/promises';

import { DecantError } from '@decant/core';

import type { AuditEvent } from '../audit/audit-event.ts';
import type { FenceListenersOptions } from './fence.ts';
import { fromSidecarSchema, type FromSidecar, type ToSidecar } from './messages.ts';
import { PROLOGUE } from './prologue.ts';
import { DNS_PORT, PROXY_PORT } from './ports.ts';
import { sidecarProgram } from './sidecar-program.ts';

/** Above what people, services and the ids of sandboxes (0x3000_0000 and up) have. */
const FIRST_USER_ID = 0x5000_0000;
const USER_IDS = 0x1000_0000;
/** A cold or emulated machine takes long to start Perl and Node; a quick one takes a third of a second. */
const START_TIMEOUT_MS = 60_000;
const REPLY_TIMEOUT_MS = 20_000;
const CLOSE_TIMEOUT_MS = 2000;
const STDERR_BYTES = 8192;

type Kind = FromSidecar['type'];
type Reply<K extends Kind> = Extract<FromSidecar, { type: K }>;

/** The sidecar as the supervisor sees it: started, asked one thing at a time, listened to, ended. */
export class SidecarProcess {
  readonly pid: number;
  readonly ended: Promise<{ readonly reason: string }>;
  /** Set before anything is let through. */
  onAudit: ((event: AuditEvent) => void) | undefined;
  readonly #child: ChildProcess;
  #stderr = '';
  #closing = false;
  #complaint: string | undefined;
  #alive = true;
  readonly #waiting = new Map<Kind, { resolve: (message: never) => void; reject: (error: unknown) => void }>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    child.stderr?.on('data', (data: Buffer) => {
      this.#stderr = (this.#stderr + data.toString('latin1')).slice(-STDERR_BYTES);
    });
    child.on('message', (message) => this.#receive(message));
    this.ended = new Promise((resolve) => {
      const end = (reason: string) => {
        this.#alive = false;
        for (const { reject } of this.#waiting.values()) reject(this.failure(reason));
        this.#waiting.clear();
        resolve({ reason });
      };
      child.once('error', (error) => end(`it could not be started: ${error.message}`));
      child.once('close', (code, signal) => {
        const how = signal === null ? `it ended with status ${code}` : `it was ended by ${signal}`;
        end(this.#closing ? 'the fence was closed' : (this.#complaint ?? `${how}${this.#lastWords()}`));
      });
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Waits for a message that comes of itself. @throws JAIL_FAILED when the sidecar ends first, TIMEOUT */
  async expect<K extends Kind>(kind: K, timeoutMs: number, signal: AbortSignal | undefined): Promise<Reply<K>> {
    signal?.throwIfAborted();
    if (!this.#alive) throw this.failure((await this.ended).reason);
    return await new Promise<Reply<K>>((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#waiting.delete(kind);
      };
      const onAbort = () => {
        settle();
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        settle();
        reject(new DecantError('TIMEOUT', `The fence did not answer within ${timeoutMs} ms.`));
      }, timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.set(kind, {
        resolve: (message: Reply<K>) => {
          settle();
          resolve(message);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
    });
  }

  /** Asks, and waits for the answer; one question at a time. */
  ask<K extends Kind>(question: ToSidecar, kind: K, signal?: AbortSignal): Promise<Reply<K>> {
    const asked = this.#turn.then(async () => {
      const reply = this.expect(kind, REPLY_TIMEOUT_MS, signal);
      this.#send(question);
      return await reply;
    });
    this.#turn = asked.catch(() => undefined);
    return asked;
  }

  /** Ends the sidecar, after what it has to record has come. Idempotent. */
  async close(): Promise<void> {
    this.#closing ||= this.#alive;
    this.#send({ type: 'close' });
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
  }

  /** Ends the sidecar at once, because it or what hears of it cannot be relied on. */
  abandon(complaint: string): void {
    this.#complaint ??= complaint;
    this.#child.kill('SIGKILL');
  }

  #send(message: ToSidecar): void {
    // A sidecar that is gone is noticed by its end.
    if (this.#alive && this.#child.connected) this.#child.send(message, () => undefined);
  }

  #receive(raw: unknown): void {
    const parsed = fromSidecarSchema.safeParse(raw);
    if (!parsed.success) {
      this.abandon('it sent a message that the supervisor does not know');
      return;
    }
    const message = parsed.data;
    if (message.type !== 'audit') {
      this.#waiting.get(message.type)?.resolve(message as never);
      return;
    }
    try {
      for (const event of message.events) this.onAudit?.(event);
    } catch (error) {
      this.abandon(`its decisions could not be recorded: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #lastWords(): string {
    const text = this.#stderr.trim();
    return text === '' ? '' : `: ${text}`;
  }

  /** What is thrown when it cannot be had. */
  failure(reason: string): DecantError {
    return new DecantError('JAIL_FAILED', `The fence of the bottle is not there: ${reason}.`, {
      hint: 'Opening a network namespace needs root, Linux, and perl.',
    });
  }
}

export interface StartedSidecar {
  readonly sidecar: SidecarProcess;
  readonly certificatePem: string;
  readonly networkNamespace: string;
}

/** Starts the prologue, which becomes the sidecar once the listeners are open. */
export async function startSidecar(
  options: Pick<FenceListenersOptions, 'network' | 'userId' | 'sidecarUrl' | 'onNamespace' | 'signal'>,
  ports: readonly number[],
): Promise<StartedSidecar> {
  const { network, signal } = options;
  signal?.throwIfAborted();
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new DecantError('JAIL_UNAVAILABLE', 'Only root on Linux can open the network of a bottle.', {
      hint: 'Run decant as root; the bottle itself never runs as root of this machine.',
    });
  }
  const { node, args, reads } = sidecarProgram(options.sidecarUrl);
  const facts = [
    `network=${network === 'new' ? 'new' : network.path}`,
    `ports=${[...ports, DNS_PORT, PROXY_PORT].join(',')}`,
    `uid=${options.userId ?? FIRST_USER_ID + randomInt(USER_IDS)}`,
    `parent=${process.pid}`,
    ...reads.map((path) => `reach=${path}`),
  ];
  const child = spawn('perl', ['-e', PROLOGUE, '--', ...facts, '--', node, ...args, 'LISTENERS'], {
    cwd: '/',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    // Ctrl-C at the terminal is for the supervisor, which then closes in order.
    detached: true,
  });
  const sidecar = new SidecarProcess(child);
  try {
    const opened = sidecar.expect('opened', START_TIMEOUT_MS, signal).then(async ({ namespace }) => {
      const path = await namespaceAt(sidecar.pid, namespace);
      options.onNamespace?.(path);
      return path;
    });
    const [networkNamespace, { certificatePem }] = await Promise.all([
      opened,
      sidecar.expect('listening', START_TIMEOUT_MS, signal),
    ]);
    return { sidecar, certificatePem, networkNamespace };
  } catch (error) {
    sidecar.abandon('it did not start');
    await sidecar.ended;
    throw error;
  }
}

/** The sidecar holds the namespace open; its own is the host's. */
async function namespaceAt(pid: number, descriptor: number): Promise<string> {
  const path = `/proc/${pid}/fd/${descriptor}`;
  const [own, held] = await Promise.all([readlink('/proc/self/ns/net'), readlink(path).catch(() => '')]);
  if (held.startsWith('net:[') && held !== own) return path;
  throw new DecantError('JAIL_FAILED', 'The sidecar holds no network namespace.');
}
