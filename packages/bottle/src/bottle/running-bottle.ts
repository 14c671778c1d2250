import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';

import { DecantError } from '@decant/core';

import type { BottleImage, CopyLimits, Exec, ExecRequest, Machine } from '../backends/backend.ts';
import type { Fence } from '../fence/fence.ts';
import type { BottlePlan } from '../plan/plan.ts';
import type { BottleStack } from '../stack/stack.ts';
import { layerWithout, type OwnFiles } from './layer-without.ts';
import { agentRequest, PROMPT_PATH } from './agent.ts';
import type { Bottle, BottleEnd, BottlePaths, BottleStats, EndReason, RunAgentOptions } from './bottle.ts';
import type { LifeLine } from './life-line.ts';

interface RunningBottleParts {
  readonly plan: BottlePlan;
  readonly paths: BottlePaths;
  readonly machine: Machine;
  /** Undefined for a sealed network. */
  readonly fence: Fence | undefined;
  readonly stack: BottleStack;
  readonly life: LifeLine;
  readonly startedMs: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly imageConfig: BottleImage['config'];
  /** What its supervisor put into it, which is no change of its agent's. */
  readonly own: OwnFiles;
}

export class RunningBottle implements Bottle {
  readonly #parts: RunningBottleParts;
  readonly #execs = { running: 0, total: 0 };
  readonly #down = Promise.withResolvers<BottleEnd>();
  #closing: Promise<void> | undefined;

  constructor(parts: RunningBottleParts) {
    this.#parts = parts;
  }

  get slug(): string {
    return this.#parts.stack.header.slug;
  }

  get plan(): BottlePlan {
    return this.#parts.plan;
  }

  get paths(): BottlePaths {
    return this.#parts.paths;
  }

  get ended(): Promise<BottleEnd> {
    return this.#down.promise;
  }

  /** From now on whatever ends its life takes it down. */
  watch(): void {
    void this.#parts.life.begun.then(({ reason, message }) => this.stop(reason, message)).catch(() => undefined);
  }

  async exec(request: ExecRequest): Promise<Exec> {
    const { life, machine, environment } = this.#parts;
    life.signal.throwIfAborted();
    const exec = await machine.exec({ ...request, env: { ...environment, ...request.env } });
    this.#execs.running++;
    this.#execs.total++;
    const leave = () => void this.#execs.running--;
    exec.exit.then(leave, leave);
    return exec;
  }

  async attach(request: ExecRequest & Required<Pick<ExecRequest, 'terminal'>>): Promise<Exec> {
    if (request.terminal === undefined) throw new DecantError('USAGE', 'Attaching needs the size of a terminal.');
    return await this.exec(request);
  }

  async runAgent(options: RunAgentOptions = {}): Promise<Exec> {
    const { plan, imageConfig } = this.#parts;
    const { request, promptFile, input } = agentRequest(plan.agent, imageConfig, options);
    if (promptFile !== undefined) await this.#putPrompt(promptFile, options.signal);
    const exec = await this.exec(request);
    // An agent that does not read its prompt is judged by its exit code.
    if (input !== undefined) exec.stdin.on('error', () => undefined).end(input);
    return exec;
  }

  async #putPrompt(prompt: string, signal: AbortSignal | undefined): Promise<void> {
    const folder = await mkdtemp(join(this.paths.state, 'prompt-'));
    try {
      const file = join(folder, 'prompt');
      await writeFile(file, prompt, { mode: 0o600 });
      await this.copyIn(file, PROMPT_PATH, undefined, signal);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  async copyIn(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void> {
    this.#parts.life.signal.throwIfAborted();
    await this.#parts.machine.copyIn(source, target, limits, signal);
  }

  async copyOut(source: string, target: string, limits?: CopyLimits, signal?: AbortSignal): Promise<void> {
    this.#parts.life.signal.throwIfAborted();
    await this.#parts.machine.copyOut(source, target, limits, signal);
  }

  snapshot(signal?: AbortSignal): NodeJS.ReadableStream {
    this.#parts.life.signal.throwIfAborted();
    const { machine, own } = this.#parts;
    const changes = machine.exportChanges(signal);
    return own.files.size === 0 ? changes : Readable.from(layerWithout(changes as Readable, own));
  }

  async stats(): Promise<BottleStats> {
    const { fence, life, startedMs } = this.#parts;
    life.signal.throwIfAborted();
    const now = Date.now();
    return {
      startedAt: new Date(startedMs).toISOString(),
      uptimeMs: now - startedMs,
      remainingMs: Math.max(0, life.deadlineMs - now),
      execs: { ...this.#execs },
      egress: fence === undefined ? {} : { ...(await fence.stats()) },
    };
  }

  stop(reason: EndReason = 'stopped', message = 'It was stopped.'): Promise<void> {
    const { life, stack } = this.#parts;
    life.end(reason, message);
    if (this.#closing === undefined) {
      this.#closing = stack.close();
      const down = () => void life.begun.then(this.#down.resolve);
      this.#closing.then(down, down);
    }
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
