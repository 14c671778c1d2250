import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import {
  createRemoteBuilder,
  memoryContext,
  type RemoteBuilder,
  type RemoteBuildEvent,
  type RemoteBuildRequest,
} from '../packages/builder-remote/src/index.ts';
import { createNodeFetch, type NodeFetch } from '../packages/transport/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { startDecant, type RunningDecant } from './support/decant.ts';
import { have, isRoot } from './support/programs.ts';

const BASE = 'FROM scratch AS base\nCOPY busybox /bin/sh\nCOPY busybox /bin/cat\n';

/** What every local builder does, as builder-local's contract has it, of a builder at a service. */
describe.skipIf(!isRoot || !have('busybox', 'buildah', 'bwrap', 'mkfs.ext4'))(
  '[backend:buildah] the contract of builders, at a service',
  { timeout: 300_000 },
  () => {
    let folder: TemporaryDirectory;
    let server: RunningDecant;
    let http: NodeFetch;
    let builder: RemoteBuilder;
    let busybox: Uint8Array;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-contract-');
      server = startDecant(['serve', '--port', '0', '--data', join(folder.path, 'server')], {
        home: join(folder.path, 'unused'),
        timeoutMs: 1_800_000,
      });
      await server.seen(/Use it with/);
      const [baseUrl = '', token = ''] = server.stdout().split('\n');
      http = createNodeFetch();
      builder = createRemoteBuilder({ baseUrl, fetch: http.fetch, token });
      busybox = await readFile('/bin/busybox');
    });
    afterAll(async () => {
      await http?.close();
      await server?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    const contextOf = (dockerfile: string, files: Readonly<Record<string, string>> = {}) =>
      memoryContext([
        { path: 'Dockerfile', content: dockerfile },
        { path: 'busybox', content: busybox, mode: 0o755 },
        ...Object.entries(files).map(([path, content]) => ({ path, content })),
      ]);
    /** One name, so that builds find each other's layers. */
    const start = (request: RemoteBuildRequest, signal?: AbortSignal) =>
      builder.build({ imageName: 'contract', ...request }, { signal });
    const finish = async (request: RemoteBuildRequest) => {
      const lines: string[] = [];
      const generator = start(request);
      for (;;) {
        const step = await generator.next();
        if (step.done === true) return { result: step.value, lines };
        if (step.value.type === 'log') lines.push(step.value.line);
      }
    };
    const failure = (request: RemoteBuildRequest): Promise<unknown> =>
      finish(request).then(
        () => expect.fail('the build should fail'),
        (error: unknown) => error,
      );

    test('builds several stages with arguments, up to the one asked for; equal contexts are not built again', async () => {
      const dockerfile = `${BASE}FROM base AS made
ARG WHO
RUN echo "hello $WHO" > /greeting
FROM base AS shown
COPY --from=made /greeting /greeting
COPY src /src
RUN cat /greeting /src/a
FROM shown AS last
RUN echo in-last; exit 1
`;
      const request = {
        context: contextOf(dockerfile, { 'src/a': 'from the context\n' }),
        buildArgs: { WHO: 'world, = "quoted"' },
        target: 'shown',
      };
      const first = await finish({ ...request, transfer: 'archive' });
      expect(first.lines).toEqual(expect.arrayContaining(['hello world, = "quoted"', 'from the context']));
      expect(first.lines).not.toContain('in-last');
      expect(first.result).toMatchObject({
        image: expect.stringMatching(/\/contract:latest@sha256:[0-9a-f]{64}$/),
        architecture: process.arch === 'x64' ? 'amd64' : 'arm64',
      });
      // Neither the way the context goes nor the time at which it does makes it another one.
      const second = await finish({ ...request, transfer: 'files' });
      expect(second.result.image).toBe(first.result.image);
      expect(second.lines.filter((line) => line.startsWith('CACHED ')).length).toBeGreaterThanOrEqual(4);
      const other = await finish({ ...request, buildArgs: { WHO: 'you' } });
      expect(other.lines).toContain('hello you');
      expect(other.result.image).not.toBe(first.result.image);
      expect(await failure({ ...request, target: 'three' })).toMatchObject({
        code: 'USAGE',
        details: { target: 'three' },
      });
    });

    test('names the step, command, exit code and last lines of a failing RUN', async () => {
      const context = contextOf(
        `${BASE}RUN true=1\nFROM base\nRUN echo "it's \\"last\\": words"; exit 7\nRUN true=2\n`,
      );
      expect(await failure({ context })).toMatchObject({
        code: 'BUILD_STEP_FAILED',
        details: {
          exitCode: 7,
          step: expect.stringMatching(/\d+\/\d+$/),
          command: 'RUN echo "it\'s \\"last\\": words"; exit 7',
          lastLines: expect.arrayContaining(['it\'s "last": words']),
        },
      });
    });

    test('names the step of a COPY whose source is missing, and no directory of the service', async () => {
      const error = await failure({ context: contextOf(`${BASE}COPY missing.txt /m\n`) });
      expect(error).toMatchObject({
        code: 'BUILD_STEP_FAILED',
        message: expect.stringContaining('missing.txt'),
        details: { command: 'COPY missing.txt /m', exitCode: null },
      });
      expect(JSON.stringify(error)).not.toContain(folder.path);
      expect(JSON.stringify(error)).not.toContain('/build/work');
    });

    test('reports a Dockerfile that the engine cannot read, and a base image that cannot be had', async () => {
      expect(await failure({ context: contextOf(`${BASE}RUNN true\n`) })).toMatchObject({ code: 'DOCKERFILE_INVALID' });
      expect(await failure({ context: contextOf('FROM registry.invalid/no/base:1\nRUN true\n') })).toMatchObject({
        code: 'BUILD_BASE_UNAVAILABLE',
        message: expect.stringContaining('registry.invalid/no/base:1'),
      });
    });

    test('cancels by a signal object and by no longer taking events', async () => {
      const context = contextOf(`${BASE}RUN echo go; while :; do :; done\n`);
      const isGo = (event: RemoteBuildEvent) => event.type === 'log' && event.line === 'go';
      const reason = new Error('enough');
      const controller = new AbortController();
      const following = async () => {
        for await (const event of start({ context }, controller.signal)) if (isGo(event)) controller.abort(reason);
      };
      await expect(following()).rejects.toBe(reason);
      for await (const event of start({ context })) if (isGo(event)) break;
      const deadline = performance.now() + 60_000;
      const statuses = async () => (await builder.list({ limit: 2 })).builds.map(({ status }) => status);
      while ((await statuses()).includes('running') && performance.now() < deadline) await sleep(50);
      expect(await statuses()).toEqual(['cancelled', 'cancelled']);
      const before = await builder.list();
      await expect(start({ context }, AbortSignal.abort(reason)).next()).rejects.toBe(reason);
      expect((await builder.list()).builds).toHaveLength(before.builds.length);
    });
  },
);
