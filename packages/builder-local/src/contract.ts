import { chmod, cp, lstat, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { Scope, sleep } from '@decant/core';
import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { BuilderDriver, BuildEvent, BuildRequest, BuildResult } from './driver.ts';

/** What the contract suite needs of one kind of driver. */
export interface DriverUnderTest {
  readonly driver: BuilderDriver;
  /** Network of steps that works with this engine in a test. */
  readonly network: 'default' | 'none';
  /** Containers and mounts of the engine that exist now; empty when nothing is left over. */
  leftovers(): Promise<string[]>;
  /** A module's source that sets `driver`, for a process of its own. */
  readonly openInChild: string;
}

export const BASE = 'decant-contract-base:latest';

/** A root filesystem of one static busybox, as an archive. */
export async function busyboxArchive(directory: string): Promise<string> {
  const root = join(directory, 'base');
  await mkdir(join(root, 'bin'), { recursive: true });
  await mkdir(join(root, 'tmp'));
  const busybox = (await findProgram('busybox'))!;
  await cp(busybox, join(root, 'bin/busybox'), { dereference: true });
  await chmod(join(root, 'bin/busybox'), 0o755);
  for (const name of ['sh', 'cat', 'echo', 'ls', 'sleep', 'date', 'cp', 'true']) {
    await symlink('busybox', join(root, 'bin', name));
  }
  const file = join(directory, 'base.tar');
  await run('tar', ['-C', root, '--owner=0', '--group=0', '-cf', file, '.']);
  return file;
}

/** Files in memory as a source. */
export function source(dockerfile: string, files: Readonly<Record<string, string>> = {}): BuildRequest['context'] {
  return {
    dockerfile: { displayPath: 'Dockerfile', bytes: new TextEncoder().encode(dockerfile) },
    async materialize(directory) {
      for (const [path, content] of Object.entries(files)) {
        await mkdir(dirname(join(directory, path)), { recursive: true });
        await writeFile(join(directory, path), content);
      }
    },
  };
}

async function finish(generator: AsyncGenerator<BuildEvent, BuildResult>) {
  const events: BuildEvent[] = [];
  for (;;) {
    const step = await generator.next();
    if (step.done === true) return { result: step.value, events };
    events.push(step.value);
  }
}

const linesOf = (events: readonly BuildEvent[]) =>
  events.flatMap((event) => (event.type === 'log' ? [event.line] : []));

/** Processes whose command line has the text. */
async function processesWith(text: string): Promise<string[]> {
  const { stdout } = await run('ps', ['-eo', 'pid,args']);
  return stdout
    .toString()
    .split('\n')
    .filter((line) => line.includes(text) && !line.includes('ps -eo'));
}

async function goneWithin(milliseconds: number, list: () => Promise<string[]>): Promise<string[]> {
  const deadline = performance.now() + milliseconds;
  for (;;) {
    const left = await list();
    if (left.length === 0 || performance.now() > deadline) return left;
    await sleep(100);
  }
}

/** What every builder driver does, on a real engine. */
export function builderContract(
  name: string,
  available: boolean,
  open: (scope: Scope) => Promise<DriverUnderTest>,
): void {
  describe.skipIf(!available)(name, { timeout: 60_000 }, () => {
    const scope = new Scope();
    let under: DriverUnderTest;
    let workDirectory: string;
    const build = (request: Partial<BuildRequest> & Pick<BuildRequest, 'context'>, signal?: AbortSignal) =>
      under.driver.build({ workDirectory, network: under.network, ...request }, { signal });
    const failure = (request: Parameters<typeof build>[0]) =>
      finish(build(request)).then(
        () => expect.fail('the build should fail'),
        (error: unknown) => error,
      );

    beforeAll(async () => {
      workDirectory = await mkdtemp(join(tmpdir(), 'decant-builder-'));
      scope.defer(() => rm(workDirectory, { recursive: true, force: true }));
      under = await open(scope);
      const tarFile = await busyboxArchive(workDirectory);
      await under.driver.importBase({ tarFile, reference: BASE });
    }, 60_000);

    afterAll(() => scope[Symbol.asyncDispose](), 60_000);

    const exported = async (result: BuildResult) => {
      const directory = await mkdtemp(join(workDirectory, 'out:'));
      const { kind, file } = await result.exportImage(directory);
      expect(kind).toBe('docker-archive');
      const read = async (path: string) => (await run('tar', ['-xOf', file, path])).stdout;
      const [entry] = JSON.parse((await read('manifest.json')).toString()) as { Config: string; Layers: string[] }[];
      const layers: Buffer[] = [];
      for (const layer of entry!.Layers) {
        // A layer may be a link to another entry of the archive.
        const unpacked = join(directory, 'unpacked');
        await run('tar', ['-xf', file, '--one-top-level=unpacked'], { cwd: directory });
        layers.push(await readFile(join(unpacked, layer)));
      }
      const config = JSON.parse((await read(entry!.Config)).toString()) as {
        config: { Env: string[]; Shell?: string[] };
      };
      return { file, config, layers };
    };

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

    it('gives the same image and layers again while nothing changed, and runs all steps when told to', async () => {
      const context = () => source(`FROM ${BASE}\nCOPY a /a\nRUN date > /when; sleep 1\n`, { a: '1' });
      const first = await finish(build({ context: context() }));
      const second = await finish(build({ context: context() }));
      expect(second.result.image).toBe(first.result.image);
      expect(linesOf(second.events).filter((line) => line.startsWith('CACHED '))).toHaveLength(2);
      const [one, two] = [await exported(first.result), await exported(second.result)];
      expect(two.layers).toEqual(one.layers);
      expect(two.config).toEqual(one.config);
      const third = await finish(build({ context: context(), cache: 'ignore' }));
      expect(third.result.image).not.toBe(first.result.image);
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
      expect(await under.leftovers()).toEqual([]);
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
      expect(await failure({ context, target: 'three' })).toMatchObject({
        code: 'USAGE',
        details: { target: 'three' },
      });
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

    it('mounts secrets for the step alone, or refuses', async () => {
      const value = `s3cret-${Math.random()}`;
      const file = join(workDirectory, 'secret');
      await writeFile(file, value, { mode: 0o600 });
      const context = source(
        `FROM ${BASE}\nRUN --mount=type=secret,id=tok cat /run/secrets/tok > /tmp/x; ls -s /tmp/x; echo > /tmp/x\n`,
      );
      if (!under.driver.capabilities.features.has('RUN --mount')) {
        expect(await failure({ context, secrets: [{ id: 'tok', file }] })).toMatchObject({
          code: 'DOCKERFILE_UNSUPPORTED',
        });
        return;
      }
      expect(await failure({ context })).toMatchObject({ code: 'USAGE', details: { id: 'tok' } });
      const { result, events } = await finish(build({ context, secrets: [{ id: 'tok', file }] }));
      const { layers, config } = await exported(result);
      expect(Buffer.concat(layers).includes(value)).toBe(false);
      expect(JSON.stringify([config, events])).not.toContain(value);
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

    const nothingLeft = async (mark: string) => {
      expect(await goneWithin(5000, () => processesWith(mark))).toEqual([]);
      expect(await goneWithin(5000, () => under.leftovers())).toEqual([]);
    };

    it('ends everything within five seconds when it is aborted', async () => {
      const mark = `3${Date.now() % 1e6}`;
      const controller = new AbortController();
      const reason = new Error('enough');
      const generator = build(
        { context: source(`FROM ${BASE}\nRUN echo go; sleep ${mark} & sleep ${mark}\n`) },
        controller.signal,
      );
      for (let step = await generator.next(); step.done !== true; step = await generator.next()) {
        if (step.value.type === 'log' && step.value.line === 'go') break;
      }
      expect(await processesWith(`sleep ${mark}`)).not.toEqual([]);
      const started = performance.now();
      controller.abort(reason);
      await expect(finish(generator)).rejects.toBe(reason);
      await nothingLeft(`sleep ${mark}`);
      expect(performance.now() - started).toBeLessThan(5000);
    });

    it('ends everything when its events are no longer taken', async () => {
      const mark = `4${Date.now() % 1e6}`;
      for await (const event of build({ context: source(`FROM ${BASE}\nRUN echo go; sleep ${mark}\n`) })) {
        if (event.type === 'log' && event.line === 'go') break;
      }
      await nothingLeft(`sleep ${mark}`);
    });

    it('leaves no process when this process is killed, and cleans up the rest at the next start', async () => {
      const mark = `5${Date.now() % 1e6}`;
      const script = `${under.openInChild}
        const bytes = new TextEncoder().encode(${JSON.stringify(`FROM ${BASE}\nRUN echo go; sleep ${mark} & sleep ${mark}\n`)});
        const context = { dockerfile: { displayPath: 'Dockerfile', bytes }, materialize: async () => {} };
        const request = { context, workDirectory: ${JSON.stringify(workDirectory)}, network: ${JSON.stringify(under.network)} };
        for await (const event of driver.build(request)) if (event.line === 'go') process.kill(process.pid, 'SIGKILL');`;
      const child = await run(
        process.execPath,
        ['--conditions=@decant/source', '--input-type=module', '--eval', script],
        {
          okCodes: [],
          timeoutMs: 30_000,
        },
      ).catch((error: unknown) => error);
      expect(child).toMatchObject({ details: { signalName: 'SIGKILL' } });
      expect(await goneWithin(5000, () => processesWith(`sleep ${mark}`))).toEqual([]);
      const removed = await under.driver.cleanUpLeftovers();
      // A daemon removes its own; buildah has none, so its working container waits for us.
      expect(removed).toBe(under.driver.name === 'buildah' ? 1 : 0);
      await nothingLeft(`sleep ${mark}`);
      const { result } = await finish(build({ context: source(`FROM ${BASE}\nRUN true\n`) }));
      expect(result.image).toMatch(/^sha256:/);
    });
  });
}
