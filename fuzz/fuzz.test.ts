import { describe, expect, it } from 'vitest';

import { DecantError } from '../packages/core/src/index.ts';
import { runCase } from './fuzz-case.ts';
import { fuzz } from './fuzz.ts';
import { Random } from './random.ts';
import { Finding, type FuzzTarget } from './target.ts';
import { TARGETS } from './targets/index.ts';

/** A short run of every target; `pnpm fuzz --seconds 180` is the long one. */
const MILLISECONDS = 2000;
const SEED = 20_261_122;

describe.each(TARGETS.map((target) => [target.name, target] as const))('fuzzing of %s', (_, target) => {
  it('finds nothing, and gets past the first checks', async () => {
    const { failure, ...counts } = await fuzz(target, { seed: SEED, milliseconds: MILLISECONDS, leastCases: 200 });
    expect(failure).toBeUndefined();
    expect(counts.cases).toBeGreaterThan(100);
    expect(counts.refused).toBeGreaterThan(counts.cases / 10);
    expect(counts.accepted).toBeGreaterThan(0);
  });
});

describe('the fuzzer', () => {
  const target = (check: FuzzTarget['check']): FuzzTarget => ({
    name: 'test',
    refusals: ['CAS_LOCATOR_INVALID'],
    maxMs: 50,
    maxMemoryBytes: 2 ** 22,
    generate: (random) => random.bytes(100),
    check,
  });

  it('makes the same input of the same seed', async () => {
    const inputs: string[] = [];
    const keep = target((bytes) => void inputs.push(Buffer.from(bytes).toString('hex')));
    for (const seed of [1, 2, 1]) await runCase(keep, seed);
    expect(inputs[0]).toBe(inputs[2]);
    expect(inputs[0]).not.toBe(inputs[1]);
    expect(new Random(1).bytes(4)).toEqual(new Random(1).bytes(4));
  });

  it('tells a documented refusal from every other end', async () => {
    const refuse = (code: ConstructorParameters<typeof DecantError>[0]) =>
      target(() => {
        throw new DecantError(code, 'no');
      });
    expect(await runCase(refuse('CAS_LOCATOR_INVALID'), 1)).toEqual({ type: 'refused' });
    expect(await runCase(refuse('INTERNAL'), 1)).toMatchObject({ type: 'failed' });
    const findings: FuzzTarget['check'][] = [
      () => {
        throw new Finding('differs');
      },
      () => {
        throw new RangeError('offset is out of bounds');
      },
      () => {
        for (const start = process.threadCpuUsage(); process.threadCpuUsage(start).user < 80_000;);
      },
      () => void (globalThis as { kept?: Uint8Array }).kept?.fill(1),
    ];
    const kept = globalThis as { kept?: Uint8Array };
    findings[3] = () => void (kept.kept = new Uint8Array(2 ** 24).fill(1));
    for (const check of findings) expect(await runCase(target(check), 1)).toMatchObject({ type: 'failed' });
    delete kept.kept;
  });
});
