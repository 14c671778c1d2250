import { formatPlan, parseManifest, planBottle, specOf, type Backend } from '../../packages/bottle/src/index.ts';
import { MIB } from '../../packages/core/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';

const words = ['api', 'example', 'a', 'xn--bcher-kva', '203', 'data', 'tmp', 'x'.repeat(60)];

function some(random: Random, make: () => string): string {
  return `[${Array.from({ length: random.below(3) + 1 }, make).join(', ')}]`;
}

/** A manifest of the operator, or nearly one. */
function generate(random: Random): Uint8Array {
  const word = () => random.pick(words);
  const host = () => JSON.stringify(random.chance(0.3) ? `*.${word()}.test` : `${word()}.${word()}.test`);
  const path = () => `/${word()}/${word()}`;
  const lines: string[] = [];
  const maybe = (line: string) => {
    if (random.chance(0.7)) lines.push(line);
  };
  lines.push(`name: ${word()}`, `image: ${word()}:v1`);
  maybe(`backend: ${random.pick(['native', 'docker'])}`);
  maybe(
    `limits: {cpus: ${random.below(8) + 1}, memory: ${random.below(900) + 64}M, wallTime: ${random.below(90) + 1}m}`,
  );
  if (random.chance(0.8)) {
    lines.push('egress:', '  routes:');
    for (let number = random.below(3) + 1; number > 0; number--) {
      lines.push(`    - id: r${number}`, `      hosts: ${some(random, host)}`);
      maybe(`      ports: ${some(random, () => String(random.below(60_000) + 1))}`);
      maybe(`      matches: [{path: {type: prefix, value: ${path()}}, methods: [GET]}]`);
      maybe('      privateRanges: [10.0.0.0/8, "fd00::/8"]');
    }
    maybe(`  deny: ${some(random, host)}`);
    maybe('  resolvers: [192.0.2.53, "[2001:db8::1]:53"]');
  }
  maybe(`mounts: [{type: tmpfs, target: ${path()}, size: 1M}, {type: read-only, source: ${path()}, target: /m}]`);
  if (random.chance(0.7)) {
    lines.push('agent:', `  command: ${some(random, word)}`);
    maybe('  env: &env {MODE: fast, TOKEN: {from: HOST}}');
    maybe('  prompt: |\n    Look.\n    Then stop.');
  }
  return new TextEncoder().encode(`${lines.join('\n')}\n`);
}

const none = () => Promise.reject(new Finding('a plan started something'));

async function check(bytes: Uint8Array): Promise<void> {
  const { spec, environment } = specOf(parseManifest(new TextDecoder().decode(bytes), 'fuzz.yaml'));
  const probe = async () => ({ usable: true, reasons: [], weaknesses: [] });
  const backend: Backend = { name: spec.backend, probe, prepare: none, reap: none };
  const plan = await planBottle(spec, { backend });
  if (JSON.stringify(JSON.parse(JSON.stringify(plan))) !== JSON.stringify(plan)) throw new Finding('a plan is no JSON');
  const text = formatPlan(plan);
  if (!/^[ -~\n]*$/.test(text)) throw new Finding('a printed plan holds what a terminal acts on');
  const ids = plan.egress.policy.routes.map(({ id }) => id);
  if (new Set(ids).size !== ids.length) throw new Finding('two routes have one id');
  if (text.split('(route ').length <= ids.length) throw new Finding('a route is not printed');
  if (plan.agent.environmentNames.join() !== Object.keys(environment).sort().join()) {
    throw new Finding('a variable is not planned');
  }
}

export const bottleManifestTarget: FuzzTarget = {
  name: 'bottle-manifest',
  refusals: ['CONFIG_INVALID', 'NAME_INVALID'],
  maxMs: 2000,
  maxMemoryBytes: 128 * MIB,
  generate,
  check,
};
