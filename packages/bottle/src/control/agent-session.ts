import { once } from 'node:events';
import type { Writable } from 'node:stream';

import { DecantError, errnoOf, MIB } from '@decant/core';

import type { Exec, ExecExit } from '../backends/backend.ts';
import type { AgentLog } from './agent-log.ts';

/** Who sees what the agent writes as it writes it. */
export interface AgentViewer {
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** The agent waits when this one does not read. Default: one that is too slow is sent away by `onSlow`. */
  readonly holdsAgent?: boolean | undefined;
  onSlow?(error: DecantError): void;
}

/** Most bytes that wait for one viewer that does not hold the agent. */
const MAX_WAITING_BYTES = 4 * MIB;
/** How long the end of streams is waited for when everything that could write has been killed, milliseconds. */
const LAST_OUTPUT_MS = 10_000;

/** The one command a bottle is there for: its output goes to the log and to whoever looks on. */
export class AgentSession {
  readonly terminal: boolean;
  readonly log: AgentLog;
  /** Of the agent itself: what it wrote last, and what it started, may still be on the way. */
  readonly exit: Promise<ExecExit>;
  readonly #exec: Exec;
  readonly #viewers = new Set<AgentViewer>();
  readonly #outputs: Promise<unknown>;
  readonly #delivered = Promise.withResolvers<void>();

  constructor(exec: Exec, { terminal, log }: { readonly terminal: boolean; readonly log: AgentLog }) {
    this.#exec = exec;
    this.terminal = terminal;
    this.log = log;
    exec.stdin.on('error', () => undefined);
    this.#outputs = Promise.all([this.#follow('stdout'), this.#follow('stderr')]);
    this.exit = exec.exit;
    this.exit.catch(() => undefined);
  }

  /** Resolves when all output has reached the log and the viewers; to be called when nothing is left that could write more. */
  async delivered(): Promise<void> {
    const timer = setTimeout(() => this.#abandon(), LAST_OUTPUT_MS);
    await this.#outputs;
    clearTimeout(timer);
    this.#delivered.resolve();
  }

  /** Resolves when `delivered` has. */
  get ended(): Promise<void> {
    return this.#delivered.promise;
  }

  get stdin(): NodeJS.WritableStream {
    return this.#exec.stdin;
  }

  get viewers(): number {
    return this.#viewers.size;
  }

  /** Adds a viewer until the returned function is called. */
  view(viewer: AgentViewer): () => void {
    this.#viewers.add(viewer);
    return () => void this.#viewers.delete(viewer);
  }

  signal(name: NodeJS.Signals): Promise<void> {
    return this.#exec.signal(name);
  }

  resize(size: { readonly columns: number; readonly rows: number }): Promise<void> {
    return this.terminal ? this.#exec.resize(size) : Promise.resolve();
  }

  /** Makes a program on the terminal draw itself again: it does so when its size changes. */
  async redraw({ columns, rows }: { readonly columns: number; readonly rows: number }): Promise<void> {
    await this.resize({ columns, rows: rows > 1 ? rows - 1 : rows + 1 });
    await this.resize({ columns, rows });
  }

  async #follow(name: 'stdout' | 'stderr'): Promise<void> {
    try {
      for await (const piece of this.#exec[name]) {
        const bytes = piece as Buffer;
        this.#log(name, bytes);
        for (const viewer of this.#viewers) await this.#show(viewer, name, bytes);
      }
    } catch {
      // A stream that is cut off is at its end; why the agent ended is told by its exit.
    }
  }

  /** What the disk has no room for is missing in the log, and nowhere else: the agent and who looks on do not notice. */
  #log(name: 'stdout' | 'stderr', bytes: Buffer): void {
    try {
      this.log.append(name, bytes);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
    }
  }

  async #show(viewer: AgentViewer, name: 'stdout' | 'stderr', bytes: Buffer): Promise<void> {
    const to = viewer[name];
    if (to.destroyed || to.writableEnded) return;
    if (viewer.holdsAgent === true) {
      const taken = to.write(bytes, (error) => {
        // Its reader has gone: the agent hears of that as it would of any other pipe.
        if (error != null) destroy(this.#exec[name]);
      });
      if (!taken) await Promise.race([once(to, 'drain'), once(to, 'close'), this.#exec.exit]).catch(() => 0);
      return;
    }
    if (to.writableLength + bytes.length > MAX_WAITING_BYTES) {
      this.#viewers.delete(viewer);
      viewer.onSlow?.(
        new DecantError('LIMIT_EXCEEDED', `More than ${MAX_WAITING_BYTES} bytes of output waited to be read.`, {
          hint: 'The agent goes on; look at what it wrote with: decant bottle logs',
        }),
      );
    } else to.write(bytes);
  }

  #abandon(): void {
    destroy(this.#exec.stdout);
    destroy(this.#exec.stderr);
  }
}

function destroy(stream: NodeJS.ReadableStream & { destroy?(): void }): void {
  stream.destroy?.();
}
