import { lstat, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Scope } from '@decant/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { cacheContract } from './contract-cache.ts';
import { cancelContract } from './contract-cancel.ts';
import {
  BASE,
  build as startBuild,
  busyboxArchive,
  exported as exportedOf,
  failure as failureOf,
  finish,
  goneWithin,
  LIMIT_MS,
  linesOf,
  source,
  type AnyRequest,
  type DriverUnderTest,
} from './contract-kit.ts';
import { outputContract } from './contract-output.ts';
import { registryContract } from './contract-registry.ts';
import { secretContract } from './contract-secrets.ts';
import type { BuildRequest, BuildResult } from './driver.ts';

export { busyboxArchive, type DriverUnderTest } from './contract-kit.ts';

/** What every builder driver does, on a real engine. */
export function builderContract(
  name: string,
  available: boolean,
  open: (scope: Scope) => Promise<DriverUnderTest>,
): void {
  describe.skipIf(!available)(name, () => {
    const scope = new Scope();
    let under: DriverUnderTest;
    let workDirectory: string;
    const bench = () => ({ under, workDirectory });
    const build = (request: AnyRequest, signal?: AbortSignal) => startBuild(bench(), request, signal);
    const failure = (request: AnyRequest) => failureOf(bench(), request);
    const exported = (result: BuildResult) => exportedOf(bench(), result);

    beforeAll(async () => {
      workDirectory = await mkdtemp(join(tmpdir(), 'decant-builder-'));
      scope.defer(() => rm(workDirectory, { recursive: true, force: true }));
      under = await open(scope);
      const tarFile = await busyboxArchive(workDirectory);
      await under.driver.importBase({ tarFile, reference: BASE });
    });

    afterAll(() => scope[Symbol.asyncDispose]());

    it('builds, exports and removes what it exported', async () => {
      const { result, events } = await finish(
        build({
          context: source(
            `FROM ${BASE}\nARG WHO\nARG EMPTY=x\nENV A="b c"\nSHELL ["/bin/sh","-ec"]\nCOPY src /src\nRUN echo "hello $WHO" > /greeting; cat /src/a; echo to-stderr >&2\n`,
            { 'src/a': 'from the context\n' },
          ),
          buildArgs: { WHO: 'world, = "quoted"', TYPO: '1' },
        }),
      );
      expect(linesOf(events)).toEqual(expect.arrayContaining(['from the context', 'to-stderr']));
      expect(linesOf(events).join('\n')).not.toMatch(/sha256:|^#\d|[0-9a-f]{12}/m);
      expect(linesOf(events).join('\n')).not.toContain('\u001B');
      expect(events).toContainEqual(
        expect.objectContaining({ type: 'warning', message: expect.stringContaining('TYPO') }),
      );
      expect(events.some((event) => event.type === 'stage-progress' && event.items === event.totalItems)).toBe(true);
      expect(result.image).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(result.architecture).toBe(process.arch === 'x64' ? 'amd64' : 'arm64');
      const { file, config, layers } = await exported(result);
      expect(config.config.Env).toContain('A=b c');
      expect(config.config.Shell).toEqual(['/bin/sh', '-ec']);
      expect(Buffer.concat(layers).includes('hello world, = "quoted"\n')).toBe(true);
      await result[Symbol.asyncDispose]();
      await expect(lstat(file)).rejects.toThrow(/ENOENT/);
    });

    it('sees a change that keeps size and time', async () => {
      for (const content of ['one', 'two']) {
        const context: BuildRequest['context'] = {
          ...source(`FROM ${BASE}\nCOPY a /a\nRUN cat /a\n`),
          async materialize(directory) {
            await writeFile(join(directory, 'a'), content);
            await utimes(join(directory, 'a'), 0, 0);
          },
        };
        const { events } = await finish(build({ context }));
        expect(linesOf(events)).toContain(content);
      }
    });

    it('names the step, command, exit code and last lines of a failing RUN', async () => {
      const error = await failure({
        context: source(
          `FROM ${BASE} AS one\nRUN true\nFROM ${BASE}\nRUN echo "it's \\"last\\": words"; exit 7\nRUN true\n`,
        ),
      });
      expect(error).toMatchObject({
        code: 'BUILD_STEP_FAILED',
        details: {
          exitCode: 7,
          step: expect.stringMatching(/\d+\/\d+$/),
          // BuildKit shows the words as it understood them.
          command: expect.stringMatching(/^RUN echo "it's \\?"last\\?": words"; exit 7$/),
          lastLines: expect.arrayContaining(['it\'s "last": words']),
        },
      });
      expect(await goneWithin(LIMIT_MS, () => under.leftovers())).toEqual([]);
    });

    it('names the step of a COPY whose source is missing, and no private directory', async () => {
      const error = await failure({ context: source(`FROM ${BASE}\nCOPY missing.txt /m\n`, { other: 'x' }) });
      expect(error).toMatchObject({
        code: 'BUILD_STEP_FAILED',
        message: expect.stringContaining('missing.txt'),
        details: { command: 'COPY missing.txt /m', exitCode: null },
      });
      expect(JSON.stringify(error)).not.toContain(workDirectory);
    });

    it('leaves filtering to the sender and keeps the Dockerfile out of reach of COPY', async () => {
      const files = { '.dockerignore': '*\n', 'Dockerfile.dockerignore': '*\n', kept: 'k' };
      const { events } = await finish(build({ context: source(`FROM ${BASE}\nCOPY . /c\nRUN ls -A /c\n`, files) }));
      expect(linesOf(events)).toEqual(expect.arrayContaining(['Dockerfile.dockerignore', 'kept']));
      // The classic builder cannot, and says so.
      const said = events.some((event) => event.type === 'warning' && event.message.includes('.dockerignore'));
      expect(linesOf(events).includes('.dockerignore')).toBe(!said);
      expect(said).toBe(under.driver.name === 'docker');
      expect(linesOf(events)).not.toContain('Dockerfile');
      const error = await failure({ context: source(`FROM ${BASE}\nCOPY Dockerfile /d\n`, files) });
      expect(error).toMatchObject({ code: 'BUILD_STEP_FAILED' });
    });

    it('builds the stage asked for', async () => {
      const context = source(`FROM ${BASE} AS one\nRUN echo in-one\nFROM one AS two\nRUN echo in-two; exit 1\n`);
      const { events } = await finish(build({ context, target: 'one' }));
      expect(linesOf(events)).toContain('in-one');
      expect(linesOf(events)).not.toContain('in-two');
      // Engines themselves take names only.
      expect(linesOf((await finish(build({ context, target: '0' }))).events)).not.toContain('in-two');
      expect(await failure({ context, target: 'three' })).toMatchObject({
        code: 'USAGE',
        details: { target: 'three' },
      });
    });

    it('builds several stages on a base that an argument names', async () => {
      const made = 'ARG WHERE=nothing\nFROM $WHERE AS made\nRUN echo made-there > /made\n';
      const last = `FROM ${BASE}\nCOPY --from=made /made /copied\nARG TARGETARCH\nARG BUILDPLATFORM\n`;
      const dockerfile = `${made}${last}RUN cat /copied; echo "for $TARGETARCH on $BUILDPLATFORM"\n`;
      const { events } = await finish(build({ context: source(dockerfile), buildArgs: { WHERE: BASE } }));
      const { architecture } = under.driver.capabilities;
      expect(linesOf(events)).toEqual(
        expect.arrayContaining(['made-there', `for ${architecture} on linux/${architecture}`]),
      );
    });

    it('names a base image that cannot be had', async () => {
      const error = await failure({ context: source('FROM registry.invalid/no/base:1\nRUN true\n') });
      expect(error).toMatchObject({
        code: 'BUILD_BASE_UNAVAILABLE',
        message: expect.stringContaining('registry.invalid/no/base:1'),
        details: { image: 'registry.invalid/no/base:1' },
      });
    });

    it('reports a Dockerfile that the engine cannot read', async () => {
      expect(await failure({ context: source(`FROM ${BASE}\nRUNN true\n`) })).toMatchObject({
        code: 'DOCKERFILE_INVALID',
      });
    });

    it('reads a Dockerfile with a syntax line without the network', async () => {
      const context = source(`# syntax=docker/dockerfile:1\n# escape=\`\nFROM ${BASE}\nRUN echo a\`\n  b\n`);
      const { events } = await finish(build({ context }));
      expect(linesOf(events).join('\n')).toMatch(/^a\s*b$/m);
      expect(events[0]).toMatchObject({ type: 'warning' });
    });

    it('leaves out the stages that the target does not need, if it says so', async () => {
      const context = source(`FROM ${BASE} AS unused\nRUN false\nFROM ${BASE}\nRUN echo done\n`);
      if (!under.driver.capabilities.skipsUnusedStages) {
        expect(await failure({ context })).toMatchObject({ code: 'BUILD_STEP_FAILED' });
        return;
      }
      const { events } = await finish(build({ context, cache: 'ignore' }));
      expect(linesOf(events)).toContain('done');
    });

    it('runs steps without a network when told to', async () => {
      if (!under.driver.capabilities.networks.includes('none')) return;
      const context = source(`FROM ${BASE}\nRUN echo interfaces: $(ls /sys/class/net)\n`);
      const { events } = await finish(build({ context, network: 'none', cache: 'ignore' }));
      expect(linesOf(events)).toContain('interfaces: lo');
    });

    it('knows and removes images by name', async () => {
      const tag = 'decant-contract-named:v1';
      expect(await under.driver.imageExists(tag)).toBe(false);
      await finish(build({ context: source(`FROM ${BASE}\nENV N=1\n`), tag }));
      expect(await under.driver.imageExists(tag)).toBe(true);
      const { events } = await finish(build({ context: source(`FROM ${tag}\nRUN echo "N=$N"\n`) }));
      expect(linesOf(events)).toContain('N=1');
      await under.driver.removeImage(tag);
      await under.driver.removeImage(tag);
      expect(await under.driver.imageExists(tag)).toBe(false);
      expect(await under.driver.imageExists(BASE)).toBe(true);
    });

    cacheContract(bench);
    secretContract(bench);
    registryContract(bench, scope);
    outputContract(bench);
    cancelContract(bench);
  });
}
