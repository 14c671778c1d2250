import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { describe, expect, it } from 'vitest';

import { BASE, build, finish, goneWithin, LIMIT_MS, processesWith, source, type Bench } from './contract-kit.ts';

/** Most milliseconds until nothing of a cancelled build is left. It takes a second. */
const PROMISED_MS = 5000;
/** A machine that is busy with something else may take longer once; three times in a row it is the builder. */
const ATTEMPTS = 3;

/** `attempt` gives the milliseconds it took. */
async function promptly(attempt: () => Promise<number>): Promise<void> {
  const took: number[] = [];
  do took.push(await attempt());
  while (took.at(-1)! > PROMISED_MS && took.length < ATTEMPTS);
  expect(Math.min(...took)).toBeLessThanOrEqual(PROMISED_MS);
}

/** What ends a build early: nothing stays, no process, container, mount or file. */
export function cancelContract(bench: () => Bench): void {
  describe('cancelling', () => {
    const dockerfile = (mark: string) => `FROM ${BASE}\nRUN echo go; sleep ${mark} & sleep ${mark}\n`;
    const markOf = (digit: number) => `${digit}${Date.now() % 1e6}.${process.pid}`;
    const scratch = async () => {
      const names = await readdir(bench().workDirectory);
      return names.filter((name) => name.startsWith('build-'));
    };
    /** Gives the milliseconds it took until nothing was left. */
    const nothingLeft = async (mark: string, started: number) => {
      const left = () => Math.max(0, LIMIT_MS - (performance.now() - started));
      expect(await goneWithin(left(), () => processesWith(`sleep ${mark}`))).toEqual([]);
      expect(await goneWithin(left(), () => bench().under.leftovers())).toEqual([]);
      expect(await goneWithin(left(), scratch)).toEqual([]);
      expect(await goneWithin(left(), () => processesWith('decant-janitor ' + bench().workDirectory))).toEqual([]);
      return performance.now() - started;
    };

    it('by a signal object', () =>
      promptly(async () => {
        const mark = markOf(3);
        const controller = new AbortController();
        const reason = new Error('enough');
        const generator = build(bench(), { context: source(dockerfile(mark)) }, controller.signal);
        for (let step = await generator.next(); step.done !== true; step = await generator.next()) {
          if (step.value.type === 'log' && step.value.line === 'go') break;
        }
        expect(await processesWith(`sleep ${mark}`)).not.toEqual([]);
        const started = performance.now();
        controller.abort(reason);
        await expect(finish(generator)).rejects.toBe(reason);
        return await nothingLeft(mark, started);
      }));

    it('by no longer taking events', () =>
      promptly(async () => {
        const mark = markOf(4);
        let started = 0;
        for await (const event of build(bench(), { context: source(dockerfile(mark)) })) {
          started = performance.now();
          if (event.type === 'log' && event.line === 'go') break;
        }
        return await nothingLeft(mark, started);
      }));

    /** A process of its own that builds and sends itself a signal while the step runs; `before` runs right before. */
    const killed = async (mark: string, signal: 'SIGTERM' | 'SIGKILL', before = '') => {
      const { under, workDirectory } = bench();
      const script = `${under.openInChild}
        const bytes = new TextEncoder().encode(${JSON.stringify(dockerfile(mark))});
        const context = { dockerfile: { displayPath: 'Dockerfile', bytes }, materialize: async () => {} };
        const request = { context, workDirectory: ${JSON.stringify(workDirectory)}, network: ${JSON.stringify(under.network)} };
        for await (const event of driver.build(request)) if (event.line === 'go') { ${before} process.kill(process.pid, '${signal}'); await new Promise(() => {}); }`;
      const child = await run(
        process.execPath,
        ['--conditions=@decant/source', '--input-type=module', '--eval', script],
        { okCodes: [], timeoutMs: 240_000 },
      ).catch((error: unknown) => error);
      expect(child).toMatchObject({ details: { signalName: signal } });
      return performance.now();
    };

    it.each(['SIGTERM', 'SIGKILL'] as const)('by %s to this process', async (signal) => {
      await promptly(async () => {
        const mark = markOf(signal === 'SIGTERM' ? 5 : 6);
        return await nothingLeft(mark, await killed(mark, signal));
      });
      expect(await bench().under.driver.cleanUpLeftovers()).toBe(0);
      const { result } = await finish(build(bench(), { context: source(`FROM ${BASE}\nRUN true\n`) }));
      expect(result.image).toMatch(/^sha256:/);
    });

    it('by killing this process and who cleans up after it: the next start does', async () => {
      const mark = markOf(7);
      const stop = `const { execFileSync } = await import('node:child_process');
        const pids = execFileSync('pgrep', ['-f', 'decant-[j]anitor ${bench().workDirectory}']).toString().trim().split('\\n');
        for (const pid of pids) process.kill(Number(pid), 'SIGKILL');`;
      await killed(mark, 'SIGKILL', stop);
      expect(await goneWithin(LIMIT_MS, () => processesWith(`sleep ${mark}`))).toEqual([]);
      const { under } = bench();
      // A daemon removes its own; the others have none, so the working container waits for us.
      expect(await under.driver.cleanUpLeftovers()).toBe(under.driver.name.startsWith('docker') ? 0 : 1);
      expect(await goneWithin(LIMIT_MS, () => under.leftovers())).toEqual([]);
      for (const name of await scratch()) await rm(join(bench().workDirectory, name), { recursive: true });
    });

    it('before it began does nothing', async () => {
      const reason = new Error('no');
      const generator = build(bench(), { context: source(`FROM ${BASE}\n`) }, AbortSignal.abort(reason));
      await expect(generator.next()).rejects.toBe(reason);
      expect(await scratch()).toEqual([]);
    });
  });
}
