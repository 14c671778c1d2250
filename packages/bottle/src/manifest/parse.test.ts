import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { mergeManifests } from './merge.ts';
import { parseManifest } from './parse.ts';
import { specOf } from './spec.ts';

const WHOLE = `extends: base
name: Code Reviewer
image: team/app:v1
backend: native
egress:
  routes:
    - id: api
      hosts: [api.example.com, "*.api.example.com"]
      ports: [443]
      matches:
        - path: {type: prefix, value: /v1}
          methods: [GET, POST]
          headers: [{name: X-Team, value: a}]
    - hosts: [203.0.113.7]
      protocol: tls
      privateRanges: [10.0.0.0/8]
  deny: [admin.api.example.com, 203.0.113.0/24]
  resolvers: [192.0.2.53, "[2001:db8::1]:5353"]
  upstreamCaFile: /etc/decant/ca.pem
mounts:
  - {type: read-only, source: /srv/data, target: /data}
  - {type: tmpfs, target: /scratch, size: 64M}
limits: {cpus: 1.5, memory: 2G, processes: 256, disk: 1073741824, wallTime: 30m}
agent:
  command: [agent, --print]
  prompt: |
    Look at the code.
    Then stop.
  promptMode: stdin
  env:
    MODE: fast
    TOKEN: {from: HOST_TOKEN}
  user: node
  workingDir: /work
`;

function problemsOf(text: string): unknown {
  try {
    parseManifest(text, 'x.yaml');
  } catch (error) {
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    const { message, details } = error as { message: string; details: { problems?: unknown[] } };
    return [message, details.problems?.length ?? 0];
  }
  return 'accepted';
}

describe('parseManifest', () => {
  it('reads everything a manifest can say', () => {
    const manifest = parseManifest(WHOLE, 'x.yaml');
    expect(manifest).toMatchObject({
      limits: { memory: 2_147_483_648, wallTime: 1_800_000 },
      mounts: [{ type: 'read-only' }, { size: 67_108_864 }],
      agent: { env: { MODE: 'fast', TOKEN: { from: 'HOST_TOKEN' } }, prompt: 'Look at the code.\nThen stop.\n' },
    });
    const { spec } = specOf(manifest);
    expect(spec.egress.resolvers).toEqual(['192.0.2.53:53', '[2001:db8::1]:5353']);
  });

  it('an empty manifest says nothing', () => {
    expect(parseManifest('', 'x.yaml')).toEqual({});
    expect(parseManifest('# only a comment\n', 'x.yaml')).toEqual({});
  });

  it.each([
    ['nmae: x\n', 'x.yaml:1:1: There is no key "nmae" in a manifest.'],
    ['name: x\nlimits:\n  cpus: 1\n  memroy: 2G\n', 'x.yaml:4:3: There is no key "memroy" in "limits".'],
    [
      'egress:\n  routes:\n    - hosts: [a.example]\n      port: 443\n',
      'x.yaml:4:7: There is no key "port" in "egress.routes.0".',
    ],
    [
      'mounts:\n  - type: tmpfs\n    target: /x\n    size: lots\n',
      'x.yaml:4:11: "mounts.0.size" is not a size such as 512M.',
    ],
    ['mounts:\n  - {type: bind, source: /a, target: /b}\n', 'x.yaml:2:12: "mounts.0.type"'],
    [
      'mounts:\n  - {type: read-only, source: a, target: /b}\n',
      'x.yaml:2:31: "mounts.0.source" is not an absolute path',
    ],
    [
      'mounts:\n  - {type: read-only, source: /a/../b, target: /b}\n',
      'x.yaml:2:31: "mounts.0.source" is not an absolute',
    ],
    ['mounts:\n  - {type: tmpfs, target: /x}\n', 'x.yaml:2:5: "mounts.0.size"'],
    ['egress: {routes: [{hosts: ["ex ample.com"]}]}\n', 'x.yaml:1:28: "egress.routes.0.hosts.0" is no plain host name'],
    ['egress: {routes: [{hosts: []}]}\n', 'x.yaml:1:27: "egress.routes.0.hosts" is empty.'],
    [
      'egress: {routes: [{hosts: [a.example], ports: [0]}]}\n',
      'x.yaml:1:48: "egress.routes.0.ports.0" is less than 1.',
    ],
    ['egress: {deny: ["10.0.0.1/8"]}\n', 'x.yaml:1:17: "egress.deny.0" is no host, *.NAME or range.'],
    ['egress: {resolvers: [dns.example]}\n', 'x.yaml:1:22: "egress.resolvers.0" is no ADDRESS'],
    ['limits: {wallTime: forever}\n', 'x.yaml:1:20: "limits.wallTime" is not a time such as 30m, 8h or 2d.'],
    ['limits: {wallTime: 8d}\n', 'x.yaml:1:20: "limits.wallTime" is not from 1s to 7d.'],
    ['limits: {memory: 1}\n', 'x.yaml:1:18: "limits.memory" is not from'],
    ['backend: qemu\n', 'x.yaml:1:10: "backend" is none of native, docker.'],
    ['agent: {env: {N: 1}}\n', 'x.yaml:1:18: "agent.env.N" is neither text (in quotes) nor {from: NAME}.'],
    ['agent: {env: {"A=B": x}}\n', 'x.yaml:1:15: "A=B" is not a name of an environment variable.'],
    ['agent: {env: {"A\\nB": x}}\n', 'x.yaml:1:15: "A\\nB" is not a name of an environment variable.'],
    ['agent: {env: {__proto__: x}}\n', 'x.yaml:1:15: There is no key "__proto__".'],
    ['agent: {env: {A: "x\\0y"}}\n', 'x.yaml:1:18: "agent.env.A"'],
    ['agent: {command: run}\n', 'x.yaml:1:18: "agent.command" is not a list.'],
    ['image: --privileged\n', 'x.yaml:1:8: "image" begins with a dash.'],
    ['image: "a\\nb"\n', 'x.yaml:1:8: "image" holds control characters.'],
    ['image: 1.10\n', 'x.yaml:1:8: "image" is not text (numbers and words such as true need quotes).'],
    ['extends: ../other\n', 'x.yaml:1:10: "extends" is not a name of lowercase letters'],
    ['extends: /etc/passwd\n', 'x.yaml:1:10: "extends" is not a name'],
    ['- a\n- b\n', 'x.yaml:1:1: The manifest is not a map of keys.'],
    ['name: a\nname: b\n', 'x.yaml:2:1: Map keys must be unique.'],
    ['a: &a [x]\n  b: c', 'x.yaml:2:'],
    ['name: !!js/function x\n', 'x.yaml:1:7: Unresolved tag'],
    ['name: a\n---\nname: b\n', 'x.yaml:2:1: Source contains multiple documents'],
    ['limits:\n\tcpus: 1\n', 'x.yaml:2:1: Tabs are not allowed'],
    ['name: *nowhere\n', 'x.yaml:1:7: Nothing is anchored as nowhere.'],
    ['__proto__: {polluted: true}\n', 'x.yaml:1:1: There is no key "__proto__".'],
    ['constructor: x\n', 'x.yaml:1:1: There is no key "constructor" in a manifest.'],
  ])('refuses %j where it is', (text, message) => {
    const result = problemsOf(text);
    expect(result).not.toBe('accepted');
    expect((result as [string])[0]).toContain(message);
  });

  it('reports all problems at once, in the order they stand', () => {
    const [message, count] = problemsOf('image: 1\nb: 2\nlimits: {cpus: none}\na: 1\n') as [string, number];
    expect(message).toMatch(/^x\.yaml:1:8/);
    expect(count).toBe(4);
  });

  it('is bounded: size, aliases, depth', () => {
    const rows = ['a: &a [x,x,x,x,x,x,x,x,x]'];
    for (const [next, last] of ['ba', 'cb', 'dc', 'ed', 'fe', 'gf']) {
      rows.push(`${next}: &${next} [${Array.from({ length: 9 }, () => `*${last}`).join(',')}]`);
    }
    expect(problemsOf(rows.join('\n'))).toEqual([
      'x.yaml:1:1: Its aliases make more copies than a manifest may have.',
      1,
    ]);
    expect(problemsOf(`name: ${'x'.repeat(300_000)}`)).toEqual(['x.yaml has more than 262144 bytes.', 0]);
    for (const text of ['['.repeat(20_000), '{a: '.repeat(5000), '- '.repeat(20_000)]) {
      expect(problemsOf(text)).not.toBe('accepted');
    }
  });

  it('whatever comes in is a manifest or CONFIG_INVALID', () => {
    const pieces = WHOLE.split(/(?<=[\n:,[{ ])/);
    const text = fc.oneof(
      fc.array(fc.integer({ min: 0, max: 0x2fff }), { maxLength: 80 }).map((codes) => String.fromCodePoint(...codes)),
      fc
        .tuple(fc.nat(pieces.length - 1), fc.nat(pieces.length - 1), fc.string({ maxLength: 6 }))
        .map(([from, to, put]) => pieces.map((piece, index) => (index === from ? put + pieces[to]! : piece)).join('')),
    );
    fc.assert(
      fc.property(text, (input) => {
        try {
          parseManifest(input, 'x.yaml');
        } catch (error) {
          expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
          expect((error as Error).message).toMatch(/^x\.yaml/);
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('mergeManifests', () => {
  it('replaces single values, merges by name, target and id, and never takes a denial back', () => {
    const base = parseManifest(WHOLE, 'base.yaml');
    const over = parseManifest(
      `image: other
egress:
  routes: [{id: api, hosts: [new.example.com]}, {id: more, hosts: [more.example.com]}]
  deny: [also.example.com]
  resolvers: []
mounts: [{type: overlay, source: /else, target: /data/}, {type: tmpfs, target: /new, size: 1M}]
limits: {cpus: 4}
agent: {env: {MODE: slow, NEW: x}, command: [other]}
`,
      'over.yaml',
    );
    expect(mergeManifests(base, over)).toMatchObject({
      name: 'Code Reviewer',
      image: 'other',
      egress: {
        routes: [{ id: 'api', hosts: ['new.example.com'] }, { protocol: 'tls' }, { id: 'more' }],
        deny: ['admin.api.example.com', '203.0.113.0/24', 'also.example.com'],
        resolvers: [],
        upstreamCaFile: '/etc/decant/ca.pem',
      },
      mounts: [{ type: 'overlay', source: '/else' }, { target: '/scratch' }, { target: '/new' }],
      limits: { cpus: 4, memory: 2_147_483_648 },
      agent: { command: ['other'], env: { MODE: 'slow', TOKEN: { from: 'HOST_TOKEN' }, NEW: 'x' }, user: 'node' },
    });
  });

  it('nothing over something is that, and the other way round', () => {
    const { extends: _, ...whole } = parseManifest(WHOLE, 'x.yaml');
    expect(mergeManifests({}, whole)).toEqual(whole);
    expect(mergeManifests(whole, {})).toEqual(whole);
  });
});
