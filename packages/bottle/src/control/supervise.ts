import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';

import { Scope, sleep, toDecantError } from '@decant/core';

import type { Exec } from '../backends/backend.ts';
import type { Bottle, BottleEnd } from '../bottle/bottle.ts';
import type { BottlePlan } from '../plan/plan.ts';
import { identityOf } from '../stack/owner.ts';
import { describeRoute } from './describe-route.ts';
import { AgentLog } from './agent-log.ts';
import { AgentSession, type AgentViewer } from './agent-session.ts';
import type { BottleInfo } from './messages.ts';
import { openRecord, writeRecord } from './records.ts';
import { serveControl, type ControlTarget } from './server.ts';

export interface SuperviseOptions {
  /** Folder of what is kept of bottles that have ended; left out: nothing is kept, and the log goes with the bottle. */
  readonly records?: string | undefined;
  /** Default: none; then the agent has a terminal only when `terminal` says so. */
  readonly viewer?: AgentViewer | undefined;
  /** What the agent reads; without it and without a terminal it reads the end at once, or its prompt. */
  readonly stdin?: Readable | undefined;
  /** The agent reads the standard input of this process, which must not read it itself; not with `stdin` or a terminal. */
  readonly inheritStdin?: boolean | undefined;
  readonly terminal?: { readonly columns: number; readonly rows: number } | undefined;
  /** In place of the plan's command. */
  readonly command?: readonly string[] | undefined;
  /** Whether the bottle outlives the command that started it; told in listings. */
  readonly detached: boolean;
  /** Time between TERM and KILL when the signal aborts, milliseconds; default 10,000. */
  readonly graceMs?: number | undefined;
  /** The agent runs and the control socket answers. */
  readonly onReady?: ((ready: SupervisedBottle) => void) | undefined;
  /** Ends the agent and then the bottle, gracefully; the result then says how. */
  readonly signal?: AbortSignal | undefined;
}

export interface SupervisedBottle {
  readonly slug: string;
  /** Folder of its record, which stays when records are kept. */
  readonly record: string;
  resize(size: { readonly columns: number; readonly rows: number }): Promise<void>;
}

export interface SupervisedEnd {
  /** Of the agent; undefined when the bottle ended under it. */
  readonly exitCode: number | undefined;
  /** False when there is no such command or it cannot be executed. */
  readonly ran: boolean;
  readonly timedOut: boolean;
  readonly end: BottleEnd;
}

const GRACE_MS = 10_000;
/** How long the end of an agent that was killed is waited for, milliseconds. */
const KILL_WAIT_MS = 2000;

/**
 * Runs the agent of a bottle that was opened and serves its control socket, until the agent ends, the bottle does, or
 * somebody stops it; then takes the bottle down. Nothing of it is left afterwards but its record and its audit.
 */
export async function superviseBottle(bottle: Bottle, options: SuperviseOptions): Promise<SupervisedEnd> {
  await using scope = new Scope();
  scope.use(bottle);
  const startedAt = (await bottle.stats()).startedAt;
  const { plan } = bottle;
  const command = options.command ?? plan.agent.command;
  const kept = {
    slug: bottle.slug,
    name: plan.name,
    image: plan.image,
    command: [...command],
    startedAt,
    supervisor: await identityOf(process.pid),
    auditFile: bottle.paths.audit,
  };
  if (options.records === undefined) {
    const log = join(bottle.paths.state, 'log');
    await mkdir(log, { mode: 0o700 });
    return await superviseAgent(bottle, log, kept, options);
  }
  const record = await openRecord(options.records, kept);
  const close = (exitCode: number | undefined, reason: string) =>
    writeRecord(record, { ...kept, ended: { at: new Date().toISOString(), exitCode: exitCode ?? null, reason } });
  try {
    const ended = await superviseAgent(bottle, record, kept, options);
    await close(ended.exitCode, ended.end.message);
    return ended;
  } catch (error) {
    await close(undefined, toDecantError(error).message);
    throw error;
  }
}

async function superviseAgent(
  bottle: Bottle,
  record: string,
  { startedAt }: { readonly startedAt: string },
  options: SuperviseOptions,
): Promise<SupervisedEnd> {
  const { signal, graceMs = GRACE_MS } = options;
  await using scope = new Scope();
  const log = scope.use(AgentLog.create(record));
  const { terminal, command, inheritStdin } = options;
  const exec = await bottle.runAgent({ terminal, command, inheritStdin });
  const agent = new AgentSession(exec, { terminal: options.terminal !== undefined, log });
  if (options.viewer !== undefined) agent.view(options.viewer);
  feed(exec, bottle.plan, options);
  const stop = new Stop(bottle, agent);
  const control = scope.use(await serveControl(bottle.paths.state, target(bottle, agent, stop, options, startedAt)));
  const onAbort = () => void stop.now(graceMs).catch(() => undefined);
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  scope.defer(() => signal?.removeEventListener('abort', onAbort));
  options.onReady?.({ slug: bottle.slug, record, resize: (size) => agent.resize(size) });
  const exit = await Promise.race([agent.exit.catch(() => undefined), bottle.ended.then(() => undefined)]);
  stop.begin();
  try {
    // With it ends what the agent left behind, and so the last that can write.
    await bottle.stop('stopped', 'Its agent has ended.').finally(() => agent.delivered());
    log[Symbol.dispose]();
  } catch (error) {
    control.endCalls('not everything of it could be undone; decant bottle gc tries again.');
    stop.finish(error);
    throw error;
  }
  const end = await bottle.ended;
  control.endCalls(end.message);
  stop.finish(undefined);
  return { exitCode: exit?.exitCode, ran: exit?.ran ?? true, timedOut: exit?.timedOut ?? false, end };
}

function feed(exec: Exec, { agent }: BottlePlan, { stdin, terminal }: SuperviseOptions): void {
  // Its prompt is all that it reads.
  if (agent.prompt !== undefined && agent.promptMode === 'stdin') return;
  if (stdin !== undefined) stdin.on('error', () => undefined).pipe(exec.stdin);
  else if (terminal === undefined) exec.stdin.end();
}

/** What of a command is told, since a message has an end. */
const MOST_SHOWN_WORDS = 64;
const MOST_SHOWN_CHARACTERS = 1024;

function shownCommand(command: readonly string[]): string[] {
  const cut = (word: string) =>
    word.length > MOST_SHOWN_CHARACTERS ? `${word.slice(0, MOST_SHOWN_CHARACTERS)}…` : word;
  const words = command.slice(0, MOST_SHOWN_WORDS).map(cut);
  return command.length > MOST_SHOWN_WORDS ? [...words, '…'] : words;
}

/** The end that was asked for: the agent is told once, and everybody who asked waits for the same end. */
class Stop {
  readonly #bottle: Bottle;
  readonly #agent: AgentSession;
  readonly #finished = Promise.withResolvers<void>();
  #begun = false;

  constructor(bottle: Bottle, agent: AgentSession) {
    this.#bottle = bottle;
    this.#agent = agent;
    this.#finished.promise.catch(() => undefined);
  }

  get begun(): boolean {
    return this.#begun;
  }

  begin(): void {
    this.#begun = true;
  }

  finish(error: unknown): void {
    if (error === undefined) this.#finished.resolve();
    else this.#finished.reject(error);
  }

  /** TERM for the agent, KILL after the time; resolves when the bottle is gone. */
  async now(graceMs: number): Promise<void> {
    if (!this.#begun) {
      this.#begun = true;
      const exited = this.#agent.exit.then(
        () => true,
        () => true,
      );
      await this.#agent.signal('SIGTERM').catch(() => undefined);
      // A terminal's shell does not end for TERM, but for the end of its terminal.
      if (this.#agent.terminal) await this.#agent.signal('SIGHUP').catch(() => undefined);
      if (!(await Promise.race([exited, sleep(graceMs).then(() => false)]))) {
        await this.#agent.signal('SIGKILL').catch(() => undefined);
        await Promise.race([exited, sleep(KILL_WAIT_MS)]);
        // Also ends an agent that cannot be killed one by one.
        void this.#bottle.stop('stopped', 'It was stopped.').catch(() => undefined);
      }
    }
    await this.#finished.promise;
  }
}

function target(
  bottle: Bottle,
  agent: AgentSession,
  stop: Stop,
  { detached, terminal, command }: SuperviseOptions,
  startedAt: string,
): ControlTarget {
  const { plan, slug } = bottle;
  const counts = { execs: 0 };
  return {
    slug,
    agent,
    auditFile: bottle.paths.audit,
    info: async (): Promise<BottleInfo> => {
      const { egress } = await bottle.stats();
      return {
        slug,
        name: plan.name,
        image: { ref: plan.image, id: plan.artifact?.id ?? plan.image },
        backend: plan.backend,
        command: shownCommand(command ?? plan.agent.command),
        terminal: terminal !== undefined,
        state: stop.begun ? 'stopping' : 'running',
        startedAt,
        pid: process.pid,
        detached,
        routes: plan.egress.policy.routes.map(describeRoute),
        counts: { execs: counts.execs, attached: agent.viewers, egress: { ...egress } },
      };
    },
    exec: async (request) => {
      const exec = await (request.terminal === undefined
        ? bottle.exec(request)
        : bottle.attach({ ...request, terminal: request.terminal }));
      counts.execs++;
      const leave = () => void counts.execs--;
      exec.exit.then(leave, leave);
      return exec;
    },
    copyIn: (from, to, limits, signal) => bottle.copyIn(from, to, limits, signal),
    copyOut: (from, to, limits, signal) => bottle.copyOut(from, to, limits, signal),
    exportChanges: (signal) => bottle.snapshot(signal),
    stop: (graceMs) => stop.now(graceMs),
  };
}
