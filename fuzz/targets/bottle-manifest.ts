import { parseManifest, policyProblems, specOf } from '../../packages/bottle/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, type FuzzTarget } from '../target.ts';

const LINES = [
  'backend: native',
  'extends: base',
  'egress:\n  routes:\n    - hosts: [api.example.com, "*.example.com"]\n      ports: [443, 8443]\n      matches:\n        - methods: [GET]\n          path: {type: prefix, value: /v1}\n  deny: [10.0.0.0/8, bad.example.com]\n  resolvers: ["192.0.2.1:53", "[2001:db8::1]:53"]',
  'mounts:\n  - {type: read-only, source: /srv/data, target: /data}\n  - {type: tmpfs, target: /scratch, size: 64M}',
  'limits: {cpus: 1.5, memory: 1G, processes: 100, disk: 2G, wallTime: 30m}',
  'agent:\n  command: [agent, --print]\n  prompt: "say hello"\n  promptMode: stdin\n  env: {TOKEN: {from: HOST_TOKEN}, MODE: fast}\n  user: agent\n  workingDir: /work',
];

export const bottleManifestTarget: FuzzTarget = {
  name: 'bottle-manifest',
  refusals: ['CONFIG_INVALID', 'NAME_INVALID'],
  maxMs: 1000,
  maxMemoryBytes: 64 * 2 ** 20,
  generate: (random: Random) =>
    // A long comment takes half of the changes, so that some manifests stay whole.
    Buffer.from([`# ${'words '.repeat(100)}`, 'name: fuzz', 'image: app:v1', ...LINES.filter(() => random.chance(0.5))].join('\n')),
  check: (bytes) => {
    const manifest = parseManifest(Buffer.from(bytes).toString('utf8'), 'fuzz.yaml');
    const { spec } = specOf(manifest);
    // What a plan would be made of can be judged, and survives being written down.
    const [problem] = policyProblems(spec.egress.policy);
    if (problem !== undefined) throw new Finding(`a manifest was taken whose policy is broken: ${problem}`);
    if (JSON.stringify(JSON.parse(JSON.stringify(spec))) !== JSON.stringify(spec))
      throw new Finding('the spec is no JSON');
    for (const mount of spec.mounts) {
      if (!mount.target.startsWith('/') || mount.target.includes('..'))
        throw new Finding(`a mount goes to ${mount.target}`);
    }
  },
};
