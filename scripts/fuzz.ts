import { parseArgs } from 'node:util';

import { runCase } from '../fuzz/fuzz-case.ts';
import { fuzz } from '../fuzz/fuzz.ts';
import { findTarget, IMAGE_TARGETS, TARGETS } from '../fuzz/targets/index.ts';

const USAGE = `usage: pnpm fuzz [--target NAME]... [--images] [--seconds N | --total N] [--seed N] [--case N]

  Tries changed inputs on the parsers of untrusted bytes: ${TARGETS.map(({ name }) => name).join(', ')}.
  --target NAME   this one alone; may be given several times
  --images        all that reads images of others: ${IMAGE_TARGETS.map(({ name }) => name).join(', ')}
  --seconds N     time for each target; default 60
  --total N       time for all chosen targets together, in seconds
  --seed N        the same inputs in the same order; default: another seed each time
  --case N        one input of a target again, by the seed that a failure was reported with
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      target: { type: 'string', multiple: true, default: [] },
      images: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '60' },
      total: { type: 'string' },
      seed: { type: 'string', default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
      case: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help === true) {
    console.log(USAGE);
    return 0;
  }
  const chosen = [...(values.images ? IMAGE_TARGETS : []), ...values.target.map((name) => findTarget(name))];
  const targets = chosen.length === 0 ? TARGETS : [...new Set(chosen)];
  const seconds = values.total === undefined ? Number(values.seconds) : Number(values.total) / targets.length;
  const seed = Number(values.seed);
  if (!(seconds > 0) || !Number.isSafeInteger(seed)) {
    throw new RangeError('--seconds, --total and --seed are numbers');
  }
  if (values.case !== undefined) {
    if (targets.length !== 1) throw new RangeError('--case needs one --target');
    const outcome = await runCase(targets[0]!, Number(values.case));
    console.log(outcome.type === 'failed' ? outcome.problem : `the input was ${outcome.type}`);
    return outcome.type === 'failed' ? 1 : 0;
  }
  let failed = false;
  let inputs = 0;
  for (const target of targets) {
    const { cases, accepted, refused, failure } = await fuzz(target, { seed, milliseconds: seconds * 1000 });
    inputs += cases;
    console.log(
      `${target.name}: ${cases} inputs in ${Math.round(seconds)} s, ${accepted} accepted, ${refused} refused (seed ${seed})`,
    );
    if (failure === undefined) continue;
    failed = true;
    console.log(`FAILED: ${failure.problem}\nrun it again: pnpm fuzz --target ${target.name} --case ${failure.seed}`);
  }
  if (targets.length > 1) {
    console.log(`${inputs} inputs of ${targets.length} targets in ${Math.round(seconds * targets.length)} s`);
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
