import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isDecantError, sleep } from '@decant/core';
import { run, type RunOptions, type RunResult } from '@decant/core/node';

import { writeBaseArchive } from './base-archive.ts';
import { buildError, withoutSecrets } from './build-error.ts';
import { layBuildFiles, type BuildFiles } from './build-files.ts';
import { checkRequest } from './check-request.ts';
import { throughPipe, withSpool, type CommandLine } from './confine.ts';
import type {
  BuilderCapabilities,
  BuilderDriver,
  BuildEvent,
  BuildRequest,
  BuildResult,
  CallOptions,
} from './driver.ts';
import { architectureOf, buildResult } from './image-archive.ts';
import { startJanitor } from './janitor.ts';
import { BuildahReader } from './output/buildah.ts';
import { succeeds } from './process-output.ts';
import { writeAuthFile } from './registry-logins.ts';
import { writeRegistriesConf } from './registries-conf.ts';
import { removeTree } from './remove-tree.ts';
import { runEngine } from './run-engine.ts';
import { prepareSecrets, type PreparedSecrets } from './secrets.ts';
import { imageIds, staleImages } from './storage-cache.ts';
import { markedContainers, newBuildMark, ownerIsGone, recordsDirectory } from './storage-containers.ts';
import {
  storageArguments,
  storageBuildArguments,
  storageCommand,
  withHost,
  withTag,
  type StorageDialect,
  type StorageFacts,
  type StorageOptions,
} from './storage-engine.ts';

const QUERY_TIMEOUT_MS = 60_000;
const REMOVE_TIMEOUT_MS = 60_000;
const REMOVE_ATTEMPTS = 3;
const RETRY_MS = 200;

/** What buildah or podman can do here. */
export function storageCapabilities(dialect: StorageDialect, facts: StorageFacts): BuilderCapabilities {
  return {
    architecture: facts.architecture,
    features: dialect.features(facts.version),
    networks: facts.runc === undefined ? ['default', 'host'] : ['default', 'none', 'host'],
    cacheModes: ['use', 'ignore', 'refresh'],
    secrets: true,
    cacheMounts: true,
    ownIgnoreFile: true,
    reproducible: true,
    outputs: ['docker-archive', 'oci-layout'],
    skipsUnusedStages: dialect.skipsUnusedStages(facts.version),
    rootless: facts.rootless,
  };
}

/** A driver for buildah or podman, as root or as an ordinary user. */
export function storageDriver(dialect: StorageDialect, facts: StorageFacts, options: StorageOptions): BuilderDriver {
  const engine = `${dialect.name} ${facts.version}${facts.rootless ? ' (rootless)' : ''}`;
  const capabilities = storageCapabilities(dialect, facts);
  const env: NodeJS.ProcessEnv = { ...process.env, ...options.env };
  const plainCommand: CommandLine = [facts.program, ...storageArguments(options)];
  const commandOf = (args: readonly string[]): Promise<CommandLine> =>
    storageCommand(facts.program, options, facts.rootless, args);
  const ask = async (args: readonly string[], extra: RunOptions = {}): Promise<RunResult> => {
    const [program, ...rest] = await commandOf(args);
    return run(program, rest, { env, ...extra });
  };
  const removeContainers = async (
    wanted: (mark: string) => boolean | Promise<boolean>,
    timeoutMs: number,
    signal?: AbortSignal,
  ) => {
    const wantedIds = async () => {
      const ids: string[] = [];
      for (const { id, mark } of await markedContainers(facts.graphRoot, facts.graphDriver)) {
        if (await wanted(mark)) ids.push(id);
      }
      return ids;
    };
    const found = await wantedIds();
    let left = found;
    for (let attempt = 1; left.length > 0; attempt++) {
      try {
        await ask([...dialect.removeContainers, ...left], { timeoutMs, signal });
      } catch (error) {
        // Others may be removing it too, and what the kernel still takes apart is busy for a moment.
        if (attempt === REMOVE_ATTEMPTS || !isDecantError(error, 'PROCESS_FAILED')) throw error;
        await sleep(RETRY_MS, signal);
      }
      left = await wantedIds();
      if (attempt === REMOVE_ATTEMPTS) break;
    }
    return found.length - left.length;
  };
  /** Files below a build's directory may belong to subordinate ids, which only root of their namespace can remove. */
  const removeFiles = async (root: string) => {
    try {
      await removeTree(root);
    } catch (error) {
      if (!facts.rootless) throw error;
      const [program, ...rest] = plainCommand;
      await run(program, [...rest, 'unshare', 'rm', '-rf', '--', root], { env, timeoutMs: REMOVE_TIMEOUT_MS });
    }
  };

  /** Runs one build in laid-out files and returns the image id; whatever happens, no container stays. */
  async function* runBuild(
    request: BuildRequest,
    files: BuildFiles,
    secrets: PreparedSecrets,
    mark: string,
    signal?: AbortSignal,
  ): AsyncGenerator<BuildEvent, string> {
    const reader = new BuildahReader();
    const registries = await writeRegistriesConf(files.temporary, request, env);
    const authFile =
      request.auth === undefined ? undefined : await writeAuthFile(join(files.root, 'auth.json'), request.auth, env);
    const prepared = { mark, secrets: secrets.flags, authFile };
    const command = await withSpool(await commandOf(storageBuildArguments(dialect, request, files, facts, prepared)));
    let done = false;
    try {
      const exitCode = yield* runEngine(command, reader, {
        // Its temporary files go with the build's directory, also when it is killed.
        // Perl would complain of a locale that is not installed in the log.
        env: { ...env, ...registries, ...secrets.env, TMPDIR: files.temporary, PERL_BADLANG: '0' },
        killAfterMs: 500,
        masked: secrets.masked,
        signal,
      });
      if (exitCode !== 0) throw buildError(engine, withoutSecrets(reader.failure(), secrets.masked), files.root);
      done = true;
    } finally {
      // It takes a fraction of a second, and on a busy machine what it takes: a container that stayed would have an owner
      // until this process ends. A failure to clean up must not hide why the build ended; the next start cleans up again.
      if (!done) await removeContainers((found) => found === mark, REMOVE_TIMEOUT_MS).catch(() => undefined);
    }
    return (await readFile(files.imageIdFile, 'utf8')).trim().replace(/^sha256:/, '');
  }

  /** Removes what a build that refreshed the cache has replaced, so that the next build finds the new. */
  async function* removeReplaced(before: ReadonlySet<string>, signal?: AbortSignal): AsyncGenerator<BuildEvent, void> {
    const { removable, kept } = await staleImages(facts.graphRoot, facts.graphDriver, before);
    for (const id of removable) {
      // One that a container still uses stays: what is in use is no one's to remove.
      await ask(['rmi', id], { timeoutMs: REMOVE_TIMEOUT_MS, signal, okCodes: [0, 1, 2, 125] });
    }
    if (kept.length === 0) return;
    const message = `The cache still has steps of ${kept.join(', ')}: images with names are not removed.`;
    yield { type: 'warning', stage: 'build', message };
  }

  async function* build(request: BuildRequest, { signal }: CallOptions = {}): AsyncGenerator<BuildEvent, BuildResult> {
    signal?.throwIfAborted();
    yield* checkRequest(engine, capabilities, request);
    const secrets = await prepareSecrets(request.secrets);
    const mark = await newBuildMark();
    const containers = {
      records: recordsDirectory(facts.graphRoot, facts.graphDriver),
      mark,
      remove: await commandOf(dialect.removeContainers),
      enter: facts.rootless ? [...plainCommand, 'unshare'] : [],
    };
    const files = await layBuildFiles(request, {
      signal,
      onRoot: (root) => startJanitor({ root, containers, env }),
    });
    try {
      const refresh = request.cache === 'refresh';
      const before = refresh ? await imageIds(facts.graphRoot, facts.graphDriver) : new Set<string>();
      const id = yield* runBuild(request, files, secrets, mark, signal);
      if (refresh) yield* removeReplaced(before, signal);
      const { stdout } = await ask(dialect.architecture(id), { timeoutMs: QUERY_TIMEOUT_MS, signal });
      const architecture = architectureOf(stdout.toString().trim()) ?? facts.architecture;
      return buildResult(
        { image: `sha256:${id}`, architecture, engine },
        {
          env,
          // A relative name, because the directory may hold a colon, which ends the path in this notation.
          write: async (directory, fileName, call) => {
            await ask(['push', '--quiet', id, `docker-archive:${fileName}`], { cwd: directory, signal: call.signal });
          },
          stream: await throughPipe(await commandOf(['push', '--quiet', id, 'docker-archive:/dev/stdout'])),
        },
      );
    } finally {
      await removeFiles(files.root);
      await files.janitor?.[Symbol.asyncDispose]();
    }
  }

  return {
    name: dialect.name,
    engine,
    capabilities,
    build,
    async importBase({ tarFile, reference }, { signal } = {}) {
      const directory = await mkdtemp(join(tmpdir(), 'decant-import-'));
      try {
        const { architecture } = facts;
        await writeBaseArchive({ tarFile, name: withTag(withHost(reference)), architecture }, directory, { signal });
        // A relative name, because the path of the directory may hold a colon.
        await ask(['pull', '--quiet', 'docker-archive:image.tar'], { cwd: directory, signal });
      } finally {
        await removeTree(directory);
      }
    },
    async imageExists(reference, { signal } = {}) {
      return succeeds(ask(dialect.exists(reference), { timeoutMs: QUERY_TIMEOUT_MS, signal }), dialect.absent);
    },
    async removeImage(reference, { signal } = {}) {
      await succeeds(ask(['rmi', reference], { timeoutMs: REMOVE_TIMEOUT_MS, signal }), dialect.absent);
    },
    cleanUpLeftovers: ({ signal } = {}) => removeContainers(ownerIsGone, REMOVE_TIMEOUT_MS, signal),
  };
}
