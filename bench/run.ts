import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { ensureSystemDependencies } from '../scripts/system-deps.ts';
import { ROOT } from '../scripts/workspace.ts';
import { benchBottleProxy } from './bottle-proxy.ts';
import { benchBottle } from './bottle.ts';
import { benchBuild } from './build.ts';
import { benchBundle } from './bundle.ts';
import { benchCasLinear } from './cas-linear.ts';
import { benchCas } from './cas.ts';
import { missedGoals, tableOf, type BenchResult } from './report.ts';
import { benchRootfsLinear } from './rootfs-linear.ts';
import { benchShare } from './share.ts';

const BENCHES: Readonly<Record<string, (options: { short: boolean }) => Promise<BenchResult>>> = {
  cas: benchCas,
  'cas-linear': benchCasLinear,
  bundle: benchBundle,
  'rootfs-linear': benchRootfsLinear,
  share: benchShare,
  build: benchBuild,
  'bottle-proxy': benchBottleProxy,
  bottle: benchBottle,
};

/** `pnpm bench [NAME…] [--short]`: runs benchmarks, writes bench/results/NAME.json, ends with 1 when a goal is missed. */
async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { short: { type: 'boolean' } } });
  const names = positionals.length === 0 ? Object.keys(BENCHES) : positionals;
  const unknown = names.find((name) => !Object.hasOwn(BENCHES, name));
  if (unknown !== undefined) {
    console.error(`there is no benchmark ${unknown}; there are: ${Object.keys(BENCHES).join(', ')}`);
    return 2;
  }
  const short = values.short === true;
  const { missing, command } = await ensureSystemDependencies({ groups: ['bench'] });
  if (missing.length > 0) {
    console.error(`These Debian packages are missing: ${missing.join(', ')}. Install them with: ${command}`);
    return 1;
  }
  const missed: string[] = [];
  for (const name of names) {
    const result = await BENCHES[name]!({ short });
    const { model = 'unknown' } = cpus()[0] ?? {};
    const machine = { processor: model, processors: cpus().length, memoryBytes: totalmem(), node: process.version };
    // A short run must not take the place of a real one.
    const folder = join(ROOT, short ? '.cache/bench/short' : 'bench/results');
    await mkdir(folder, { recursive: true });
    const file = join(folder, `${name}.json`);
    const rounded = JSON.stringify(
      { ...result, machine },
      (_, value: unknown) => (typeof value === 'number' ? Number(value.toPrecision(value > 1e5 ? 12 : 4)) : value),
      2,
    );
    await writeFile(file, `${rounded}\n`);
    console.log(`${name}\n${tableOf(result)}\n\nwritten to ${file}`);
    // JSON would make null of them, which stands for a peer that cannot be had.
    missed.push(...Object.keys(result.fields).filter((field) => Number.isNaN(result.fields[field])));
    if (!short) missed.push(...missedGoals(result));
  }
  if (missed.length > 0) console.error(`below what they must be: ${missed.join(', ')}`);
  return missed.length > 0 ? 1 : 0;
}

process.exitCode = await main();
