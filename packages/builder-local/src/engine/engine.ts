import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { DecantError, isDecantError, quote, type ProgressEvent } from '@decant/core';
import { findProgram, run, type RunOptions, type RunResult } from '@decant/core/node';

import { isUnauthorised, registryOf, unauthorised } from '../build-error.ts';
import type { CallOptions, RegistryLogins } from '../driver.ts';
import { lastLinesOf, succeeds } from '../process-output.ts';
import { writeAuthFile, writeDockerLogins } from '../registry-logins.ts';
import { isLoopback } from '../registries-conf.ts';
import { engineMissing } from './engine-missing.ts';
import { PushReader } from './push-progress.ts';

export interface EngineOptions {
  /** Default: the one on PATH. */
  readonly program?: string | undefined;
  /** Options in front of every command, such as `--root DIR`. */
  readonly args?: readonly string[] | undefined;
  /** Variables on top of this process's environment, such as DOCKER_HOST. */
  readonly env?: Readonly<Record<string, string>> | undefined;
}

export interface PushOptions extends CallOptions {
  /** Logins for this push, on top of those the user keeps; forgotten afterwards. */
  readonly auth?: RegistryLogins | undefined;
  /** Told of progress in the stage `upload`: layers done of layers known. */
  readonly onEvent?: ((event: ProgressEvent) => void) | undefined;
}

export interface BuildImageOptions extends CallOptions {
  readonly dockerfile?: string | undefined;
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  readonly network?: string | undefined;
  readonly onLine?: ((line: string) => void) | undefined;
}

export interface ExecOptions extends CallOptions {
  readonly input?: string | Uint8Array | undefined;
  readonly timeoutMs?: number | undefined;
  /** Exit codes that are not errors; default [0]. */
  readonly okCodes?: readonly number[] | undefined;
}

/** Thin calls of docker or podman: each is one command, bounded, with a typed error. */
export interface ContainerEngine {
  readonly name: 'docker' | 'podman';
  /** The id (`sha256:…`) of an image, or undefined when the engine does not have it; nothing is pulled. */
  imageId(reference: string, options?: CallOptions): Promise<string | undefined>;
  imageExists(reference: string, options?: CallOptions): Promise<boolean>;
  /** Builds a directory and names the result, every time: the layer cache makes it cheap. Returns the image id. */
  buildImage(directory: string, reference: string, options?: BuildImageOptions): Promise<string>;
  tag(image: string, reference: string, options?: CallOptions): Promise<void>;
  /** Returns the digest of the manifest in the registry. @throws UNAUTHORIZED naming the registry. */
  push(reference: string, options?: PushOptions): Promise<string>;
  /** Writes an archive of the `docker save` form. */
  save(reference: string, file: string, options?: CallOptions): Promise<void>;
  /** Loads an archive and returns the names or ids of what it held. */
  load(file: string, options?: CallOptions): Promise<string[]>;
  /** Whether a container has exactly this name, running or not. */
  containerExists(name: string, options?: CallOptions): Promise<boolean>;
  /** Removes a container, running or not. Best effort: returns whether it is gone, and throws only for an abort. */
  removeContainer(name: string, options?: CallOptions): Promise<boolean>;
  /** Removes an image or name, as best it can. */
  removeImage(reference: string, options?: CallOptions): Promise<boolean>;
  /** Runs a command as root in a running container. @throws PROCESS_FAILED with its last lines. */
  execAsRoot(container: string, command: readonly [string, ...string[]], options?: ExecOptions): Promise<RunResult>;
  /** Whether gVisor's `runsc` can run containers here. */
  hasRunsc(options?: CallOptions): Promise<boolean>;
}

const QUERY_MS = 60_000;
const REMOVE_MS = 60_000;
const TRANSFER_MS = 60 * 60_000;
const ABSENT = /no such (image|object|container)|image not known|no such container/i;

/** @throws BUILD_ENGINE_MISSING with where to get it, when the program is not there. */
export async function openEngine(name: 'docker' | 'podman', options: EngineOptions = {}): Promise<ContainerEngine> {
  const program = options.program ?? (await findProgram(name));
  if (program === undefined) throw engineMissing(name);
  return new CommandEngine(name, program, options);
}

class CommandEngine implements ContainerEngine {
  readonly name: 'docker' | 'podman';
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #env: NodeJS.ProcessEnv;

  constructor(name: 'docker' | 'podman', program: string, { args = [], env }: EngineOptions) {
    this.name = name;
    this.#program = program;
    this.#args = args;
    this.#env = { ...process.env, ...env, DOCKER_CLI_HINTS: 'false' };
  }

  async #run(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    try {
      return await run(this.#program, [...this.#args, ...args], { env: this.#env, timeoutMs: QUERY_MS, ...options });
    } catch (error) {
      throw isDecantError(error, 'PROCESS_MISSING') ? engineMissing(this.name, error) : error;
    }
  }

  async imageId(reference: string, { signal }: CallOptions = {}): Promise<string | undefined> {
    try {
      const { stdout } = await this.#run(['image', 'inspect', '--format', '{{.Id}}', named(reference)], { signal });
      return `sha256:${stdout
        .toString()
        .trim()
        .replace(/^sha256:/, '')}`;
    } catch (error) {
      if (isDecantError(error, 'PROCESS_FAILED') && ABSENT.test(lastLinesOf(error))) return undefined;
      throw error;
    }
  }

  async imageExists(reference: string, options: CallOptions = {}): Promise<boolean> {
    return (await this.imageId(reference, options)) !== undefined;
  }

  async buildImage(directory: string, reference: string, options: BuildImageOptions = {}): Promise<string> {
    const { dockerfile, buildArgs = {}, network, onLine, signal } = options;
    const args = ['build', '--force-rm', '--tag', named(reference)];
    if (dockerfile !== undefined) args.push('--file', dockerfile);
    if (network !== undefined) args.push('--network', network);
    for (const [key, value] of Object.entries(buildArgs)) args.push('--build-arg', `${key}=${value}`);
    await this.#run([...args, '--', directory], { timeoutMs: TRANSFER_MS, signal, ...(onLine ? { onLine } : {}) });
    const id = await this.imageId(reference, { signal });
    if (id !== undefined) return id;
    throw new DecantError('BUILD_FAILED', `${this.name} built ${quote(reference)} and does not have it.`);
  }

  async tag(image: string, reference: string, { signal }: CallOptions = {}): Promise<void> {
    await this.#run(['image', 'tag', named(image), named(reference)], { signal });
  }

  async push(reference: string, { auth, onEvent, signal }: PushOptions = {}): Promise<string> {
    const host = registryOf(named(reference));
    const directory = await mkdtemp(join(tmpdir(), 'decant-push-'));
    const reader = new PushReader(onEvent);
    try {
      const args = ['push'];
      let env = this.#env;
      if (this.name === 'podman') {
        if (auth !== undefined) args.push('--authfile', await writeAuthFile(join(directory, 'auth.json'), auth, env));
        // As docker has it: a registry on this machine may speak plain HTTP.
        if (isLoopback(host)) args.push('--tls-verify=false');
        args.push('--digestfile', join(directory, 'digest'));
      } else if (auth !== undefined) {
        env = { ...env, ...(await writeDockerLogins(join(directory, 'docker'), auth, env)) };
      }
      const onLine = (line: string) => reader.line(line);
      await this.#run([...args, reference], { timeoutMs: TRANSFER_MS, env, onLine, signal });
      return reader.digest ?? (await digestIn(join(directory, 'digest')));
    } catch (error) {
      if (isDecantError(error, 'PROCESS_FAILED') && isUnauthorised(lastLinesOf(error))) {
        throw unauthorised(host, `${reference} could not be pushed`, { reference });
      }
      throw error;
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async save(reference: string, file: string, { signal }: CallOptions = {}): Promise<void> {
    const form = this.name === 'podman' ? ['--format', 'docker-archive'] : [];
    try {
      await this.#run(['save', ...form, '--output', file, named(reference)], { timeoutMs: TRANSFER_MS, signal });
    } catch (error) {
      await rm(file, { force: true });
      throw error;
    }
  }

  async load(file: string, { signal }: CallOptions = {}): Promise<string[]> {
    const input = createReadStream(file);
    const { stdout } = await this.#run(['load'], { input, timeoutMs: TRANSFER_MS, signal });
    return [...stdout.toString().matchAll(/^Loaded image(?: ID)?(?:\(s\))?: (.+)$/gm)].flatMap((match) =>
      match[1]!.split(',').map((name) => name.trim()),
    );
  }

  async containerExists(name: string, { signal }: CallOptions = {}): Promise<boolean> {
    // The filter is a pattern that may match a part of a name, so each answer is compared as a whole.
    const args = ['ps', '--all', '--format', '{{.Names}}', '--filter', `name=${named(name)}`];
    const { stdout } = await this.#run(args, { signal });
    return stdout
      .toString()
      .split(/[\n,]/)
      .some((found) => found.trim() === name);
  }

  async removeContainer(name: string, { signal }: CallOptions = {}): Promise<boolean> {
    return this.#removed(['rm', '--force', '--volumes', named(name)], signal);
  }

  async removeImage(reference: string, { signal }: CallOptions = {}): Promise<boolean> {
    return this.#removed(['image', 'rm', named(reference)], signal);
  }

  async #removed(args: readonly string[], signal: AbortSignal | undefined): Promise<boolean> {
    try {
      await succeeds(this.#run(args, { timeoutMs: REMOVE_MS, signal }), ABSENT);
      return true;
    } catch (error) {
      signal?.throwIfAborted();
      if (isDecantError(error)) return false;
      throw error;
    }
  }

  execAsRoot(
    container: string,
    command: readonly [string, ...string[]],
    options: ExecOptions = {},
  ): Promise<RunResult> {
    const { input, timeoutMs = TRANSFER_MS, okCodes = [0], signal } = options;
    const args = ['exec', ...(input === undefined ? [] : ['--interactive']), '--user', '0:0', named(container)];
    return this.#run([...args, ...command], { timeoutMs, okCodes, signal, ...(input === undefined ? {} : { input }) });
  }

  async hasRunsc({ signal }: CallOptions = {}): Promise<boolean> {
    if (this.name === 'podman') return (await findProgram('runsc')) !== undefined;
    const { stdout } = await this.#run(['info', '--format', '{{json .Runtimes}}'], { signal });
    return Object.hasOwn(JSON.parse(stdout.toString()) as object, 'runsc');
  }
}

/** A name or id; never what a program would take for an option. @throws NAME_INVALID */
function named(text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}$/.test(text)) return text;
  throw new DecantError('NAME_INVALID', `Not a name of an image or container: ${quote(text)}.`);
}

async function digestIn(file: string): Promise<string> {
  const digest = (await readFile(file, 'utf8').catch(() => '')).trim();
  if (/^sha256:[0-9a-f]{64}$/.test(digest)) return digest;
  throw new DecantError('INTERNAL', 'The engine did not say what it pushed.');
}
