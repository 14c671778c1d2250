import { utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { BASE, build, exported, finish, source, stepsCached, type Bench } from './contract-kit.ts';

/** Cache modes: what runs, and what the next build finds. */
export function cacheContract(bench: () => Bench): void {
  describe('cache', () => {
    const text = (mark: string) =>
      `FROM ${BASE} AS made\nENV MARK=${mark}\nRUN cat /proc/sys/kernel/random/uuid > /made\nFROM ${BASE}\nCOPY a /a\nCOPY --from=made /made /made\nRUN cat /proc/sys/kernel/random/uuid > /when\n`;
    const once = async (mark: string, cache?: 'use' | 'ignore' | 'refresh') => {
      const { result, events } = await finish(build(bench(), { context: source(text(mark), { a: '1' }), cache }));
      return { result, cached: stepsCached(events), lines: events };
    };

    it('gives the same image and layers again while nothing changed', async () => {
      const first = await once('same');
      const second = await once('same');
      expect(second.result.image).toBe(first.result.image);
      // The classic builder and buildah count ENV as a step, BuildKit does not.
      expect(second.cached).toBeGreaterThanOrEqual(4);
      const [one, two] = [await exported(bench(), first.result), await exported(bench(), second.result)];
      expect(two.layers).toEqual(one.layers);
      expect(two.config).toEqual(one.config);
    });

    it('runs all steps when told to ignore it, and leaves it as it was', async () => {
      const first = await once('ignored');
      const other = await once('ignored', 'ignore');
      expect(other.cached).toBe(0);
      expect(other.result.image).not.toBe(first.result.image);
      const third = await once('ignored');
      expect(third.result.image).toBe(first.result.image);
      const { layers } = await exported(bench(), other.result);
      expect(layers.length).toBeGreaterThan(1);
      // Steps are counted as the Dockerfile has them.
      const labels = (events: typeof first.lines) =>
        events.flatMap((event) =>
          event.type === 'log' ? (/^\[[^\]]+\] (?!FROM ).*/.exec(event.line)?.[0] ?? []) : [],
        );
      expect(labels(other.lines).toSorted()).toEqual(labels(first.lines).toSorted());
    });

    it('is replaced when told to refresh it', async () => {
      const first = await once('refreshed');
      const fresh = await once('refreshed', 'refresh');
      expect(fresh.cached).toBe(0);
      expect(fresh.result.image).not.toBe(first.result.image);
      const third = await once('refreshed');
      expect(third.result.image).toBe(fresh.result.image);
      expect(third.cached).toBeGreaterThanOrEqual(4);
    });

    it('gives equal image ids without it where the engine can, or refuses', async () => {
      const context = {
        ...source(`FROM ${BASE}\nCOPY a /a\nRUN echo same > /b\n`),
        // Times are 0, as in every context that is materialized: a COPY's key has them.
        async materialize(directory: string) {
          await writeFile(join(directory, 'a'), '1');
          await utimes(join(directory, 'a'), 0, 0);
        },
      };
      const request = { context, cache: 'ignore', reproducible: true } as const;
      if (!bench().under.driver.capabilities.reproducible) {
        await expect(finish(build(bench(), request))).rejects.toMatchObject({ code: 'USAGE' });
        return;
      }
      const one = await finish(build(bench(), request));
      const two = await finish(build(bench(), request));
      expect(two.result.image).toBe(one.result.image);
    });
  });
}
