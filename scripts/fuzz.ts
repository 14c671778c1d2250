import { parseArgs } from 'node:util';

import { runCase } from '../fuzz/fuzz-case.ts';
import { fuzz } from '../fuzz/fuzz.ts';
import { findTarget, TARGETS } from '../fuzz/targets/index.ts';

const USAGE = `usage: pnpm fuzz [--target NAME] [--seconds N] [--seed N] [--case N]

  Tries changed inputs on the parsers of untrusted bytes: ${TARGETS.map(({ name }) => name).join(', ')}.
  --target NAME   this one alone
  --seconds N     time for each target; default 60
  --seed N        the same inputs in the same order; default: another seed each time
  --case N        one input of a target again, by the seed that a failure was reported with
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      target: { type: 'string' },
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
      case: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help === true) {
    console.log(USAGE);
    return 0;
  }
  const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
  const targets = values.target === undefined ? TARGETS : [findTarget(values.target)];
  if (!(seconds > 0) || !Number.isSafeInteger(seed)) throw new RangeError('--seconds and --seed are numbers');
  if (values.case !== undefined) {
    if (values.target === undefined) throw new RangeError('--case needs --target');
    const outcome = await runCase(targets[0]!, Number(values.case));
    console.log(outcome.type === 'failed' ? outcome.problem : `the input was ${outcome.type}`);
    return outcome.type === 'failed' ? 1 : 0;
  }
  let failed = false;
  for (const target of targets) {
    const { cases, accepted, refused, failure } = await fuzz(target, { seed, milliseconds: seconds * 1000 });
    console.log(
      `${target.name}: ${cases} inputs in ${seconds} s, ${accepted} accepted, ${refused} refused (seed ${seed})`,
    );
    if (failure === undefined) continue;
    failed = true;
    console.log(`FAILED: ${failure.problem}\nrun it again: pnpm fuzz --target ${target.name} --case ${failure.seed}`);
  }
  return failed ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  console.error(USAGE);
  process.exitCode = 2;
}
