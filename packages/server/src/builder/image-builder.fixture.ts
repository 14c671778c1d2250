import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  buildFieldsSchema,
  parseNamespace,
  sleep,
  type DecantError,
  type Namespace,
  type ObjectStore,
} from '@decant/core';
import { createFileObjectStore } from '@decant/dataplane';
import { afterEach, beforeEach, expect } from 'vitest';

import type { ImageBuildRow } from '../metadata/image-build-store.ts';
import { openSqliteMetadata } from '../metadata/sqlite-store.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { createRegistry } from '../registry/registry.ts';
import { startImageBuilder, type ImageBuilder, type ImageBuilderOptions, type NewBuild } from './image-builder.ts';
import { DEFAULT_BUILDER_LIMITS, type BuilderLimits } from './limits.ts';
import { createLocalRegistry } from './local-registry.ts';
import type { BuildRunner, RunnerRequest } from './runner.ts';

export const acme = parseNamespace('acme');
export const other = parseNamespace('other');

/** A runner whose builds do what the test says: how builds are kept is looked at here, not what engines do. */
export function scripted(run: (request: RunnerRequest) => Promise<void>): BuildRunner {
  return {
    ready: async () => undefined,
    async run(request) {
      await run(request);
      throw new Error('a scripted build makes no image');
    },
    async [Symbol.asyncDispose]() {},
  };
}

export const untilStopped = ({ signal }: RunnerRequest): Promise<void> => sleep(60_000, signal);

export interface BuilderBench {
  readonly directory: string;
  readonly metadata: MetadataStore;
  readonly store: ObjectStore;
  readonly start: (
    runner: BuildRunner,
    limits?: Partial<BuilderLimits>,
    change?: Partial<ImageBuilderOptions>,
  ) => Promise<ImageBuilder & { readonly errors: DecantError[] }>;
  readonly submit: (builder: ImageBuilder, namespace?: Namespace, change?: Partial<NewBuild>) => Promise<ImageBuildRow>;
  /** The build once it has ended. */
  readonly ended: (id: string, namespace?: Namespace) => Promise<ImageBuildRow>;
  readonly isRunning: (id: string) => Promise<void>;
  readonly logOf: (id: string) => Promise<string[]>;
  /** Keys of all objects. */
  readonly keys: () => Promise<string[]>;
}

/** Image-builders on a fresh directory for every test of the file, disposed of after it. */
export function useImageBuilders(): BuilderBench {
  let directory: string;
  let metadata: MetadataStore;
  let store: ObjectStore;
  let contextFile: string;
  const open: ImageBuilder[] = [];
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'image-builder-'));
    metadata = await openSqliteMetadata(join(directory, 'metadata.sqlite'));
    store = createFileObjectStore({ directory: join(directory, 'objects'), fsync: 'never' });
    contextFile = join(directory, 'context.tar');
    await writeFile(contextFile, Buffer.alloc(1024));
  });
  afterEach(async () => {
    for (const builder of open.splice(0)) await builder[Symbol.asyncDispose]();
    await metadata[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });
  return {
    get directory() {
      return directory;
    },
    get metadata() {
      return metadata;
    },
    get store() {
      return store;
    },
    async start(runner, limits = {}, change = {}) {
      const scratchDirectory = await mkdtemp(join(directory, 'scratch-'));
      const errors: DecantError[] = [];
      const builder = startImageBuilder({
        metadata,
        store,
        registry: createLocalRegistry(createRegistry({ metadata, store })),
        runners: { tenant: runner },
        limits: { ...DEFAULT_BUILDER_LIMITS, ...limits },
        clock: { now: () => performance.now(), tickMs: 10 },
        scratchDirectory,
        idleMs: 20,
        leaseMs: 60_000,
        onError: (error) => errors.push(error),
        ...change,
      });
      open.push(builder);
      return Object.assign(builder, { errors });
    },
    submit: (builder, namespace = acme, change = {}) =>
      builder.submit({
        namespace,
        trust: 'tenant',
        host: 'h',
        fields: buildFieldsSchema.parse({ image_name: 'app', dockerfile_text: 'FROM scratch\n' }),
        contextFile,
        contextBytes: 1024,
        contextDigest: `${Math.random()}`,
        idempotencyKey: undefined,
        ...change,
      }),
    async ended(id, namespace = acme) {
      for (let i = 0; i < 6000; i++) {
        const build = await metadata.imageBuilds.find(namespace, id);
        if (build?.finishedAt != null) return build;
        await sleep(10);
      }
      throw new Error('the build did not end');
    },
    isRunning: (id) =>
      expect.poll(async () => (await metadata.imageBuilds.find(acme, id))?.status, { timeout: 60_000 }).toBe('running'),
    async logOf(id) {
      const build = (await metadata.imageBuilds.find(acme, id))!;
      return (await metadata.imageBuilds.readLog(build, 0)).flatMap(({ lines }) => lines);
    },
    async keys() {
      const found: string[] = [];
      for await (const { key } of store.list('')) found.push(key);
      return found;
    },
  };
}
